"""``headgate graph``: a picture of a rule file."""

from __future__ import annotations

import argparse
import sys
from io import TextIOWrapper
from typing import Any

from .. import rules
from .dot import dot
from .drawing import draw
from .mermaid import can_be_shown, mermaid
from .replace import replace_file
from .show import Screen


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "graph",
        help="draw a rule file",
        description="Draw a rule file: which formats reach which routes, through which chains, to which targets and upstreams. "
        "Ways on failure are dotted, as are those of second calls and copies; what is off is dashed, and says why. No secret "
        "is needed: one that is missing counts as set, unless it is optional.",
    )
    parser.add_argument(
        "--format",
        choices=("mermaid", "dot"),
        default="mermaid",
        help="mermaid, which GitHub shows in Markdown, or dot, for Graphviz (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="write it to OUT, in place of what is there")
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="routes.yaml", help="the rule file (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print or write the picture."""
    complaints = Screen(sys.stderr)
    try:
        drawing = draw(rules.outline(options.file))
    except rules.RulesError as fault:
        complaints.problems(fault.problems)
        return 1
    text = dot(drawing) if options.format == "dot" else mermaid(drawing)
    if options.format == "mermaid" and not can_be_shown(drawing, text):
        complaints.line("headgate: too large for Mermaid as GitHub sets it up: --format dot has no limit")
    if options.output is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # both languages are, whatever the terminal
        sys.stdout.write(text)
        return 0
    try:
        replace_file(options.output, text.encode())
    except OSError as fault:
        complaints.failure(f"cannot write {options.output}: {fault.strerror or fault}")
        return 1
    Screen(sys.stdout).line(f"wrote {options.output}")
    return 0
