"""``headgate import``: a rule file from the configuration of another gateway, and what it could not carry."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .. import rules
from .replace import replace_file
from .show import Screen

if TYPE_CHECKING:
    from ..importers import Entry


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "import",
        help="make a rule file from another gateway's configuration",
        description="Make a rule file from the configuration of another gateway. What is not carried, or means something "
        "else here, is reported on stderr and in comments at the top of the file, each with its place. Keys are never "
        "written: references to environment variables stand in their place. The file that comes out passes headgate check.",
    )
    parser.add_argument(
        "gateway",
        metavar="GATEWAY",
        choices=("litellm", "portkey", "claude-code-router"),
        help="litellm, portkey or claude-code-router",
    )
    parser.add_argument("source", metavar="SOURCE", help="its configuration, YAML or JSON")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the rules to FILE (default: to stdout)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.add_argument(
        "--json", action="store_true", help="the report as JSON, on stdout if the rules go to FILE, else on stderr"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Import; exit code 0: the rules are written, whatever was left out."""
    from ..importers import Unreadable, convert  # for this command alone

    complaints = Screen(sys.stderr)
    output: str | None = options.output
    if output is not None and not options.force and os.path.lexists(output):
        complaints.failure(f"{output} exists and stays as it is: name another, or say --force")
        return 1
    try:
        text = Path(options.source).read_bytes().decode("utf-8-sig")
    except OSError as fault:
        complaints.failure(f"cannot read {options.source}: {fault.strerror or fault}")
        return 1
    except UnicodeDecodeError as fault:
        complaints.failure(f"cannot read {options.source}: not UTF-8 at byte {fault.start}")
        return 1
    try:
        made = convert(options.gateway, text, options.source, os.environ)
        rules.loads(made.text, source=output or "the imported rules", directory=Path(output or ".").absolute().parent)
    except Unreadable as fault:
        complaints.problems(fault.problems)
        complaints.failure(f"{options.source} cannot be imported until this is mended")
        return 1
    except rules.RulesError as fault:
        complaints.problems(problem for problem in fault.problems if problem.severity == "error")
        complaints.failure(f"{options.source} cannot be imported: what came out is not in order, and is not written")
        return 1
    if output is None:
        sys.stdout.write(made.text)
    else:
        try:
            replace_file(output, made.text.encode())
        except OSError as fault:
            complaints.failure(f"cannot write {output}: {fault.strerror or fault}")
            return 1
    _report(options, made.entries)
    return 0


def _report(options: argparse.Namespace, entries: tuple[Entry, ...]) -> None:
    screen = Screen(sys.stdout if options.json and options.output is not None else sys.stderr)
    if options.json:
        data = [msgspec.structs.asdict(entry) for entry in entries]
        screen.json({"source": options.source, "output": options.output, "entries": data})
        return
    for entry in entries:
        screen.line(f"{options.source}: {entry}")
    left, changed, secret = (
        sum(each.outcome == word for each in entries) for word in ("left out", "changed", "secret")
    )
    written = f"wrote {options.output}: " if options.output is not None else ""
    screen.line(f"{written}{left} left out, {changed} changed, {secret} secrets to be set")
