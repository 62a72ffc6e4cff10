"""Texts in the plain spelling that detectors know: no-break spaces, other digits, invisible characters, %40 and \\u0040.

What is copied out of a web page or a PDF has them, and whoever wants to slip by. Only the looking is done on the folded text:
a place that is found there is replaced as it was spelled, and restored so.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from typing import Final

_SPACES: Final = "\u00a0\u2000-\u200a\u202f\u205f\u3000"
_HYPHENS: Final = "\u2010-\u2013\u2212"
_INVISIBLE: Final = "\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff"
_DIGITS: Final = "\u0660-\u0669\u06f0-\u06f9\u0966-\u096f"
_WIDE: Final = "\uff0b\uff0d\uff0e\uff10-\uff19\uff20-\uff3a\uff3f\uff41-\uff5a\U0001d7ce-\U0001d7ff"
_ODD_CHARACTERS: Final = f"[{_SPACES}{_HYPHENS}{_INVISIBLE}{_DIGITS}{_WIDE}]"
_ESCAPE: Final = re.compile(
    r"\\{1,16}u(?:00(?:[2-7][0-9a-fA-F]|[aA][0dD])|034[fF]|061[cC]|06[6fF][0-9]|096[6-9a-fA-F]|180[eE]|2212|3000"
    r"|20(?:0[0-9a-fA-F]|1[0-3]|2[fF]|5[fF]|6[0-9])|[fF][eE](?:0[0-9a-fA-F]|[fF]{2})|[fF]{2}(?:0[bdeBDE]|1[0-9]|[2-5][0-9a-fA-F]))"
)
"""Escapes of ASCII and of the characters above, and of few others: a text may be escapes from end to end. JSON within JSON
doubles backslashes, four times here."""
_PERCENT: Final = re.compile(r"%[2-7][0-9a-fA-F]")
FOLDED: Final = f"{_ODD_CHARACTERS}|{_PERCENT.pattern}|{_ESCAPE.pattern}"
"""Whatever has a plain spelling besides, as an expression that re and RE2 read alike."""
_FOLDED: Final = re.compile(FOLDED)
_ODD: Final = re.compile(_ODD_CHARACTERS)
_IS_SPACE: Final = re.compile(f"[{_SPACES}]")
_IS_HYPHEN: Final = re.compile(f"[{_HYPHENS}]")
_IS_INVISIBLE: Final = re.compile(f"[{_INVISIBLE}]")


def needs_folding(text: str) -> bool:
    """Whether ``text`` may have another spelling. Costs next to nothing for ASCII without escapes."""
    return (
        ("%" in text and _PERCENT.search(text) is not None)
        or ("\\" in text and "\\u" in text and _ESCAPE.search(text) is not None)
        or (not text.isascii() and _ODD.search(text) is not None)
    )


def _plain(spelled: str) -> str:
    """Return what one character or escape stands for."""
    if len(spelled) > 1:
        spelled = chr(int(spelled[1:] if spelled[0] == "%" else spelled[-4:], 16))
        if spelled < " " or "\x7f" <= spelled < "\xa0" or "\ud800" <= spelled <= "\udfff":
            return " "
    if spelled.isascii():
        return spelled
    if _IS_INVISIBLE.match(spelled):
        return ""
    if _IS_SPACE.match(spelled):
        return " "
    if _IS_HYPHEN.match(spelled):
        return "-"
    wide = unicodedata.normalize("NFKC", spelled)
    digit = unicodedata.digit(spelled, None)
    return str(digit) if digit is not None else wide if len(wide) == 1 else spelled


def folded(text: str) -> str:
    """Return ``text`` in its plain spelling, for who only looks whether there is anything."""
    return _FOLDED.sub(lambda found: _plain(found[0]), text)


class Folded:
    """A text in its plain spelling, and the way back: where a place of it stands in the text as it was."""

    __slots__ = ("text", "_starts", "_shifts", "_ends")

    def __init__(self, original: str) -> None:
        pieces: list[str] = []
        self._starts = [0]
        self._shifts = [0]
        self._ends: dict[int, int] = {}
        at = length = 0
        for found in _FOLDED.finditer(original):
            plain = _plain(found[0])
            pieces += (original[at : found.start()], plain)
            length += found.start() - at + len(plain)
            at = found.end()
            if len(plain) != len(found[0]):
                self._starts.append(length)
                self._shifts.append(at - length)
                if plain:
                    self._ends[length] = at
        self.text = "".join((*pieces, original[at:]))

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Return where the place from ``start`` to ``end``, which is not empty, stands in the original."""
        return self._at(start), self._ends.get(end) or self._at(end - 1) + 1

    def _at(self, position: int) -> int:
        return position + self._shifts[bisect_right(self._starts, position) - 1]
