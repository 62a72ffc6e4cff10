"""``headgate new middleware``: writes a package to begin with, which installs, is tested and can be named in rules."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path
from typing import Any, Final

from .. import registry
from .show import Screen
from .template import class_of, files_of, module_of

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_MAX_NAME: Final = 50
"""Names of distributions stand in file names."""
_TAKEN: Final = frozenset({"chain", "use", "with", "fail", "y", "yes", "n", "no", "on", "off", "true", "false", "null"})
"""What says something else in a chain, or in YAML."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "new",
        help="write a middleware of your own, to begin with",
        description="Write a package to begin with.",
    )
    kinds = parser.add_subparsers(title="kinds", required=True, metavar="KIND")
    middleware: argparse.ArgumentParser = kinds.add_parser(
        "middleware",
        help="what stands in a chain",
        description="Write a package with a middleware: its code and options, a test that passes, a README, rules to try it "
        "with, and the entry point by which rules name it once it is installed. Nothing that exists is overwritten.",
    )
    middleware.add_argument(
        "name", metavar="NAME", type=_name, help="what rules will call it: lower-case words with dashes, quiet-hours"
    )
    middleware.add_argument(
        "--dir", metavar="DIR", type=Path, help="where to write it: new, or empty (default: headgate-NAME)"
    )
    middleware.set_defaults(run=run)


def _name(text: str) -> str:
    name = text.removeprefix("headgate-")
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name for one: lower-case words, dashes between, at most {_MAX_NAME} letters, such as quiet-hours"
        )
    if name in registry.names("middlewares") and name not in registry.installed("middlewares"):
        raise argparse.ArgumentTypeError(f"{name!r} is a middleware of Headgate already: rules would not find yours")
    if name in _TAKEN:
        raise argparse.ArgumentTypeError(f"{name!r} means something else in rules: choose another name")
    return name


def run(options: argparse.Namespace) -> int:
    """Write the package."""
    name: str = options.name
    directory: Path = options.dir or Path(f"headgate-{name}")
    screen = Screen(sys.stderr)
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            screen.failure(f"{directory} exists and stays as it is: name another with --dir")
            return 1
        for path, text in files_of(name).items():
            file = directory / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8", newline="\n") as out:
                out.write(text)
    except OSError as fault:
        screen.failure(f"cannot write {fault.filename or directory}: {fault.strerror or fault}")
        return 1
    where = shlex.quote(str(directory))
    screen = Screen(sys.stdout)
    screen.line(f"wrote {directory}: the middleware {name} is {class_of(name)} in {module_of(name)}/__init__.py")
    screen.line(f"next: cd {where}; pip install -e '.[test]'; pytest; headgate serve routes.yaml")
    return 0
