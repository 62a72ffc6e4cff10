"""Strings to look for in a text that comes in pieces."""

from __future__ import annotations

import re


class Markers:
    """A set of strings. Of several in a text the one that is complete first counts; of two that end together, the longer.

    That is what a model's own stop strings do, and it needs no look at what comes after.
    """

    __slots__ = ("_first", "_longest", "words")

    def __init__(self, *words: str) -> None:
        assert words and all(words), "a marker has at least one character"
        self.words = words
        self._longest = max(map(len, words))
        self._first = re.compile("[" + "".join(re.escape(first) for first in sorted({word[0] for word in words})) + "]")

    def find(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """Return where the first marker at or after ``start`` begins and ends, None if there is none."""
        first = self._first.search(text, start)
        if first is None:
            return None
        begin, end = -1, len(text)
        for word in self.words:
            at = text.find(word, first.start(), end)
            if at >= 0 and (begin < 0 or at + len(word) < end or at < begin):
                begin, end = at, at + len(word)
        return None if begin < 0 else (begin, end)

    def begun(self, text: str, start: int = 0) -> int:
        """Return where a marker may have begun that the text is too short for; the end of the text if nowhere."""
        at = max(start, len(text) - self._longest + 1)
        while (first := self._first.search(text, at)) is not None:
            at = first.start()
            rest = text[at:]
            if any(word.startswith(rest) for word in self.words):
                return at
            at += 1
        return len(text)
