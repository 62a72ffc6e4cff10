"""What becomes of a request body on its way, as a unified diff of both bodies' indented JSON."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Final

import msgspec

MAX_LINES: Final = 5000
"""A longer pair of bodies is not compared line by line: that would take minutes."""
_LONGEST: Final = 160


def body_diff(before: bytes, after: bytes, mask: Callable[[str], str]) -> list[str] | None:
    """Return the lines of the diff, none for the same bytes; None when the bodies are too long to compare.

    ``mask`` takes secrets out of a line: before it is shortened, or half a secret would be left.
    """
    if before == after:
        return []
    old, new = _lines(before), _lines(after)
    if len(old) + len(new) > MAX_LINES:
        return None
    found = difflib.unified_diff(old, new, "caller", "upstream", n=2, lineterm="")
    return [shortened(mask(line)) for line in found]


def shortened(line: str) -> str:
    """Return a line for people: of one as long as an image in base64, what it begins with."""
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 40]}… ({len(line)} characters)"


def _lines(body: bytes) -> list[str]:
    try:
        body = msgspec.json.format(body, indent=2)
    except msgspec.DecodeError:
        pass  # shown as it is
    return body.decode("utf-8", "replace").split("\n")
