"""The command ``headgate``: its arguments, and what each command does. Exit code 0: in order, 1: not, 2: wrong usage."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from .. import rules
from ..version import VERSION
from . import accounts, explain, fmt, graph, imports, keys, migrate, new, replay, schema, trials
from .show import Screen, plan_as_data, problems_as_data, routes_table

_FILE: Final = "routes.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Wrong usage raises SystemExit(2), as argparse does."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output has seen enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at the end would complain again
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "headgate", description="An LLM gateway: any client format to any provider, by the rules in routes.yaml."
    )
    parser.add_argument("--version", action="version", version=f"headgate {VERSION}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve calls by a rule file")
    serve.add_argument("--listen", metavar="HOST:PORT", type=_listen, help="instead of server.listen; or unix:/path")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="say what is wrong with a rule file")
    check.add_argument("--json", action="store_true", help="for editors and scripts")
    check.set_defaults(run=_check)

    init = commands.add_parser("init", help="write a rule file to begin with")
    init.set_defaults(run=_init)

    routes = commands.add_parser("routes", help="list the routes, and which are off")
    routes.add_argument("--json", action="store_true", help="for scripts")
    routes.set_defaults(run=_routes)

    trials.add(commands)
    schema.add(commands)
    fmt.add(commands)
    imports.add(commands)
    migrate.add(commands)
    keys.add(commands)
    accounts.add(commands)
    graph.add(commands)
    explain.add(commands)
    replay.add(commands)
    new.add(commands)

    for command in (serve, check, init, routes):
        command.add_argument("file", metavar="FILE", nargs="?", default=_FILE, help=f"the rule file (default: {_FILE})")
    return parser


def _listen(text: str) -> str:
    try:
        rules.parse_listen(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from fault
    return text


def _serve(options: argparse.Namespace) -> int:
    from ..server.standalone import run  # aiohttp is loaded by this command alone

    screen = Screen(sys.stderr)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return run(options.file, listen=options.listen)
    except rules.RulesError as fault:
        screen.problems(fault.problems)
    except OSError as fault:
        screen.failure(f"cannot serve {options.file}: {fault.strerror or fault}")
    except KeyboardInterrupt:
        return 130
    return 1


def _check(options: argparse.Namespace) -> int:
    problems = rules.check(options.file)
    screen = Screen(sys.stdout)
    errors = sum(problem.severity == "error" for problem in problems)
    if options.json:
        screen.json({"file": options.file, "ok": not errors, "problems": problems_as_data(problems)})
    else:
        screen.problems(problems)
        screen.line(f"{options.file}: {_count(errors, 'error')}, {_count(len(problems) - errors, 'warning')}")
    return 1 if errors else 0


def _init(options: argparse.Namespace) -> int:
    starter = (files(__name__.rpartition(".")[0]) / "starter.yaml").read_text(encoding="utf-8")
    try:
        with Path(options.file).open("x", encoding="utf-8") as file:
            file.write(starter)
    except FileExistsError:
        Screen(sys.stderr).failure(f"{options.file} exists and stays as it is: name another, headgate init FILE")
        return 1
    except OSError as fault:
        Screen(sys.stderr).failure(f"cannot write {options.file}: {fault.strerror or fault}")
        return 1
    named = "" if options.file == _FILE else f" {options.file}"
    Screen(sys.stdout).line(f"wrote {options.file}; next: headgate check{named}, headgate serve{named}")
    return 0


def _routes(options: argparse.Namespace) -> int:
    try:
        plan = rules.load(options.file)
    except rules.RulesError as fault:
        if options.json:
            Screen(sys.stdout).json({"file": options.file, "ok": False, "problems": problems_as_data(fault.problems)})
        else:
            Screen(sys.stderr).problems(fault.problems)
        return 1
    screen = Screen(sys.stdout)
    if options.json:
        screen.json({"file": options.file, "ok": True, **plan_as_data(plan)})
    else:
        screen.table(routes_table(plan))
    return 0


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
