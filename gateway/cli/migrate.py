"""``headgate migrate``: rule files of an earlier version into the present one."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from ..rules import migrations
from .replace import replace_file
from .show import Screen


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "migrate",
        help="bring rule files of an earlier version into the present one",
        description="Bring rule files of an earlier version of the rule language into the present one. Without an option "
        "the difference is printed and nothing is changed. Comments and layout stay; a file is replaced at once. Files that "
        "it includes are named one by one.",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if a file is of an earlier version"
    )
    how.add_argument("--write", action="store_true", help="replace the files")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", default=["routes.yaml"], help="rule files (default: routes.yaml)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Migrate the files, or say what would change."""
    done = [_migrate(name, options) for name in options.files]
    return 0 if all(done) else 1


def _migrate(name: str, options: argparse.Namespace) -> bool:
    """Return whether nothing is left to do or to complain of."""
    screen, complaints = Screen(sys.stdout), Screen(sys.stderr)
    try:
        text = Path(name).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        migrated = migrations.migrate(text, name, migrations.STEPS)
        if options.write and migrated.steps:
            replace_file(name, migrated.text.encode())
    except OSError as fault:
        complaints.failure(f"cannot {'migrate' if options.write else 'read'} {name}: {fault.strerror or fault}")
        return False
    except UnicodeDecodeError as fault:
        complaints.failure(f"cannot read {name}: not UTF-8 at byte {fault.start}")
        return False
    except migrations.CannotMigrate as fault:
        complaints.problems(fault.problems)
        complaints.failure(f"{name} stays as it is")
        return False
    if not migrated.steps:
        screen.line(f"{name}: in the present version")
        return True
    for step in migrated.steps:
        screen.line(f"{name}: version {step.since} to {step.since + 1}: {step.what}")
    if options.write:
        screen.line(f"{name}: written; next: headgate check {name}")
        return True
    for line in difflib.unified_diff(
        text.splitlines(), migrated.text.splitlines(), name, f"{name}, migrated", lineterm=""
    ):
        screen.line(line)
    return not options.check
