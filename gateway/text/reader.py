"""The text of one part as a grammar reads it.

A grammar is a generator: its steps ask the reader for what comes next and yield where the text ends for now. Two ways to
read: **passing** (``words``, ``json``: what is read goes out at once, no more than half a marker is held back) and in an
**attempt** (everything else: nothing goes out, and the reader goes back to where it began if the text turns out to be
something else, or too long for MAX_HELD).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Final, TypeAlias, TypeVar

from .markers import Markers

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
Say: TypeAlias = Callable[[str], None]

MAX_HELD: Final = 256 * 1024
"""Characters that an attempt may hold. What is longer goes out as the text that it is, not looked at again."""
MAX_NAME: Final = 1024
"""Characters of a name, an id or a tag."""

_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_JSON: Final = re.compile(r'["{}\[\]<]')
PYTHON: Final = re.compile(r"""["'{}\[\]()<]""")
_INSIDE: Final = {'"': re.compile(r'["\\]'), "'": re.compile(r"['\\]")}
_SCALAR: Final = re.compile(r"[^\s,\]}<]*")


class NotThis(Exception):
    """The text is not what the attempt took it for."""


class Reader:
    """The text so far. ``ended`` says that no more will come."""

    __slots__ = ("_base", "_plain", "at", "buffer", "ended")

    def __init__(self) -> None:
        self.buffer = ""
        self.at = 0
        self.ended = False
        self._base = -1
        self._plain = 0

    def feed(self, text: str) -> None:
        """Take more text; drop what was read, unless an attempt may go back to it."""
        if self._base < 0:
            self.buffer = self.buffer[self.at :] + text
            self.at = 0
        else:
            self.buffer += text

    # -- passing

    def words(self, markers: Markers, say: Say) -> Steps[str]:
        """Say the text up to the first marker; return the marker, which is read too, or "" at the end of the text."""
        if self._plain:  # an attempt found too much to be held, all of it is here
            say(self.buffer[self.at : self.at + self._plain])
            self.at += self._plain
            self._plain = 0
        while True:
            found = markers.find(self.buffer, self.at)
            if found is not None:
                begin, end = found
                say(self.buffer[self.at : begin])
                self.at = end
                return self.buffer[begin:end]
            keep = len(self.buffer) if self.ended else markers.begun(self.buffer, self.at)
            say(self.buffer[self.at : keep])
            self.at = keep
            if self.ended:
                return ""
            yield

    def json(self, say: Say) -> Steps[None]:
        """Say a JSON object or array as it is spelled, to its end, or to a ``<`` between its strings: that is no JSON."""
        value = _Value(_JSON)
        while True:
            end = value.end(self.buffer, self.at)
            stop = len(self.buffer) if end < 0 else end
            say(self.buffer[self.at : stop])
            self.at = stop
            if end >= 0 or self.ended:
                return
            yield

    def rest(self, say: Say) -> Steps[None]:
        """Say all that comes."""
        while True:
            say(self.buffer[self.at :])
            self.at = len(self.buffer)
            if self.ended:
                return
            yield

    def first(self) -> Steps[str]:
        """Return the next character without reading it, "" at the end."""
        while self.at >= len(self.buffer):
            if self.ended:
                return ""
            yield
        return self.buffer[self.at]

    def back(self, text: str) -> None:
        """Put back what was read last."""
        self.at -= len(text)

    # -- attempts

    def attempt(self, steps: Steps[T]) -> Steps[T | None]:
        """Return what ``steps`` return; None, and the text is as before, if they raise NotThis or hold too much."""
        assert self._base < 0, "an attempt within an attempt"
        self._base = start = self.at
        try:
            found = yield from steps
            if self.at - start <= MAX_HELD:
                return found
        except NotThis:
            pass
        finally:
            self._base = -1
        # By where it failed, not by what happens to be here: a whole answer is told as a stream is.
        self._plain = MAX_HELD if self.at - start > MAX_HELD else 0
        self.at = start
        return None

    def look_again(self) -> None:
        """After a failed attempt: read what it held with an eye on markers, even if that was too much."""
        self._plain = 0

    def space(self) -> Steps[str]:
        """Skip white space; return the next character without reading it. Raises NotThis at the end."""
        while True:
            blanks = _BLANKS.match(self.buffer, self.at)
            assert blanks is not None
            self.at = blanks.end()
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            yield from self._more()

    def expect(self, literal: str) -> Steps[None]:
        """Read exactly this. Raises NotThis as soon as it is not."""
        while not self.buffer.startswith(literal, self.at):
            if not literal.startswith(self.buffer[self.at : self.at + len(literal)]):
                raise NotThis
            yield from self._more()
        self.at += len(literal)

    def either(self, *literals: str) -> Steps[str]:
        """Read one of these and return it; none may be the beginning of another. Raises NotThis as soon as it is none."""
        longest = max(map(len, literals))
        while True:
            rest = self.buffer[self.at : self.at + longest]
            for literal in literals:
                if rest.startswith(literal):
                    self.at += len(literal)
                    return literal
            if not any(literal.startswith(rest) for literal in literals):
                raise NotThis
            yield from self._more()

    def name(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Read the longest match of ``pattern``, which matches character by character.

        Raises NotThis if it is empty, or longer than MAX_NAME.
        """
        while True:
            found = pattern.match(self.buffer, self.at)
            end = self.at if found is None else found.end()
            if end < len(self.buffer) or end - self.at > MAX_NAME:
                break
            yield from self._more()
        if not 0 < end - self.at <= MAX_NAME:
            raise NotThis
        text = self.buffer[self.at : end]
        self.at = end
        return text

    def until(self, markers: Markers, *, limit: int = MAX_HELD, to_end: bool = False) -> Steps[tuple[str, str]]:
        """Return the text up to the first marker, and the marker; at the end of the text "", if that is an end.

        Raises NotThis when more than ``limit`` characters have no marker in them.
        """
        begin, scan = self.at, self.at
        while True:
            found = markers.find(self.buffer, scan)
            if (markers.begun(self.buffer, scan) if found is None else found[0]) - begin > limit:
                raise NotThis
            if found is not None:
                self.at = found[1]
                return self.buffer[begin : found[0]], self.buffer[found[0] : found[1]]
            if self.ended and to_end:
                self.at = len(self.buffer)
                return self.buffer[begin:], ""
            scan = markers.begun(self.buffer, scan)
            yield from self._more()

    def string(self) -> Steps[str]:
        """Return a JSON string as it is spelled, quotes included."""
        if (yield from self.space()) != '"':
            raise NotThis
        return (yield from self.value())

    def value(self) -> Steps[str]:
        """Return a JSON value as it is spelled; its inside is not judged."""
        first = yield from self.space()
        if first not in '"{[':
            return (yield from self.name(_SCALAR))
        return (yield from self.bracketed(_JSON))

    def bracketed(self, signs: re.Pattern[str]) -> Steps[str]:
        """Return what stands in brackets or quotes, with them. ``signs`` are those that count outside of quotes."""
        value, begin, scan = _Value(signs), self.at, self.at
        while (end := value.end(self.buffer, scan)) < 0:
            scan = len(self.buffer)
            yield from self._more()
        self.at = end
        if value.broken:
            raise NotThis
        return self.buffer[begin:end]

    def _more(self) -> Steps[None]:
        """Wait for more text. Raises NotThis when there will be none, or too much is held."""
        if self.ended or len(self.buffer) - self._base > MAX_HELD:
            self.at = len(self.buffer)
            raise NotThis
        yield


class _Value:
    """Finds the end of a bracket or a quoted string in a text that grows; ``broken`` if a ``<`` stands in the way."""

    __slots__ = ("_depth", "_escaped", "_quote", "_signs", "broken")

    def __init__(self, signs: re.Pattern[str]) -> None:
        self._signs = signs
        self._depth = 0
        self._quote = ""
        self._escaped = False
        self.broken = False

    def end(self, text: str, at: int) -> int:
        """Return where the value ends, -1 if not in ``text``; each character is to be shown once."""
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_INSIDE[self._quote] if self._quote else self._signs).search(text, at)
            if found is None:
                return -1
            at, sign = found.end(), found.group()
            if self._quote:
                if sign == "\\":
                    self._escaped = True
                    continue
                self._quote = ""
            elif sign in "'\"":
                self._quote = sign
            elif sign in "{[(":
                self._depth += 1
            elif sign == "<":
                self.broken = True
                return found.start()
            else:
                self._depth -= 1
            if self._depth <= 0 and not self._quote:
                return at
        return -1
