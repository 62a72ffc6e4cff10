"""Halves of letters: JSON may spell a letter beyond U+FFFF as two escapes, and nothing stops it from spelling only one.

Languages whose strings are UTF-16 send such halves when they cut a text between the two. Most JSON readers take them;
ours does not, since no UTF-8 can hold one.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Raw

_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""One escape, or the two of a pair; the group is a half without its other half."""


def mend_halves(data: bytes) -> bytes:
    """Return the JSON ``data`` with U+FFFD for every half of a letter; the same object where there is none."""
    if b"\\ud" not in data and b"\\uD" not in data:
        return data
    mended = _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], data)
    return data if mended == data else mended


def mend_raw(raw: Raw) -> Raw:
    """The same for a member that was skipped, not read."""
    spelled = bytes(raw)
    return raw if b"\\" not in spelled else Raw(mend_halves(spelled))
