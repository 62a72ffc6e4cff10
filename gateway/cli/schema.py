"""``headgate schema``: the JSON Schema of rule files, for editors."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import msgspec

from .replace import replace_file
from .show import Screen


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "schema",
        help="print the JSON Schema of rule files, for editors",
        description="Print the JSON Schema (draft 2020-12) of rule files: every key with its meaning, type and default, the "
        "facts and operators of match, and the options of the middlewares and adapters that are installed here. An editor "
        "with a YAML language server completes and checks by it, once the first line of the rule file says "
        "'# yaml-language-server: $schema=./routes.schema.json'.",
    )
    parser.add_argument("--part", action="store_true", help="of files that others include: they need no version")
    parser.add_argument("--write", metavar="FILE", help="write it to FILE, in place of what is there")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print or write the schema."""
    from ..rules.json_schema import json_schema  # imports every middleware and adapter: for this command alone

    text = msgspec.json.format(msgspec.json.encode(json_schema(part=options.part)), indent=2).decode() + "\n"
    if options.write is None:
        sys.stdout.write(text)
        return 0
    try:
        replace_file(options.write, text.encode())
    except OSError as fault:
        Screen(sys.stderr).failure(f"cannot write {options.write}: {fault.strerror or fault}")
        return 1
    path = options.write if os.path.isabs(options.write) else f"./{options.write.removeprefix('./')}"
    Screen(sys.stdout).line(
        f"wrote {options.write}; let the rule file begin with: # yaml-language-server: $schema={path}"
    )
    return 0
