"""``headgate fmt``: rule files in canonical layout."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from ..rules.document import parse
from ..rules.layout import CannotLayOut, lay_out
from ..rules.problems import Problems
from .replace import replace_file
from .show import Screen


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "fmt",
        help="bring rule files into canonical layout",
        description="Bring rule files into canonical layout: levels and list items indented by two, one space after colons "
        "and commas, two before comments, columns kept where neighbouring lines share them. Line breaks, comments, quotes, "
        "anchors and the order of keys stay as they are. A file is replaced at once, and only if it says the same "
        "afterwards; one that is not in order as YAML is never touched. Files that it includes are named one by one.",
    )
    parser.add_argument("--check", action="store_true", help="change nothing; print the difference, exit with 1 if any")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", default=["routes.yaml"], help="rule files (default: routes.yaml)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Format the files, or say what would change."""
    failed = False
    for name in options.files:
        done = _format(name, check=options.check)
        failed = failed or not done
    return 1 if failed else 0


def _format(name: str, *, check: bool) -> bool:
    """Return whether the file is in canonical layout now."""
    screen, complaints = Screen(sys.stdout), Screen(sys.stderr)
    try:
        written = Path(name).read_bytes().decode("utf-8-sig")
    except OSError as fault:
        complaints.failure(f"cannot read {name}: {fault.strerror or fault}")
        return False
    except UnicodeDecodeError as fault:
        complaints.failure(f"cannot read {name}: not UTF-8 at byte {fault.start}")
        return False
    problems = Problems()
    parse(written, name, problems)
    if problems.failed:
        complaints.problems(problems.sorted())
        complaints.failure(f"{name} stays as it is until this is mended")
        return False
    try:
        laid = lay_out(written)
    except CannotLayOut as fault:
        complaints.failure(f"{name} stays as it is: {fault}")
        return False
    if laid == written:
        screen.line(f"{name}: in order")
        return True
    if check:
        for line in difflib.unified_diff(
            written.splitlines(), laid.splitlines(), name, f"{name}, formatted", lineterm=""
        ):
            screen.line(line)
        return False
    try:
        replace_file(name, laid.encode())
    except OSError as fault:
        complaints.failure(f"cannot write {name}: {fault.strerror or fault}")
        return False
    screen.line(f"{name}: formatted")
    return True
