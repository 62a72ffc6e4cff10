"""Calls as a Python list: Llama 4's ``[f(a=1), g(b="x")]``, at the beginning of a text or after ``<|python_start|>``.

The list is held until it is whole, since only its end tells a call from prose in brackets; one that is no list of calls
goes out as the text that it is. Arguments become JSON: names and quotes change, numbers stay as they are spelled. The
reader knows literals and calls alone, and runs nothing.

Source: the chat template of Llama-4-Scout-17B-16E-Instruct.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from .json_calls import closing
from .markers import Markers
from .reader import PYTHON, NotThis, Reader, Steps
from .voice import Voice

_START: Final = "<|python_start|>"
_MARKERS: Final = Markers(_START)
_MAX_DEPTH: Final = 64
_NAME: Final = re.compile(r"[^\W\d][\w.]*")
_BLANKS: Final = re.compile(r"\s*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])")
_STRING: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\n": ""} | {
    sign: sign for sign in "\\'\""
}
_WORDS: Final = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}


def pythonic(it: Reader, voice: Voice) -> Steps[None]:
    """Read a text with such calls."""
    marker = ""
    while True:
        calls = yield from it.attempt(_list(it, marker))
        if calls is None:
            voice.text(marker)
        else:
            for name, arguments in calls:
                voice.call("", name)
                voice.arguments(arguments)
                voice.call_end()
            _ = yield from it.attempt(closing(it, "<|python_end|>"))
        marker = yield from it.words(_MARKERS, voice.text)
        if not marker:
            return


def literal(text: str) -> str | None:
    """Return the JSON for a Python literal, None if it is none."""
    try:
        python = _Python(text.strip())
        json = python.value(0)
        python.end()
    except NotThis:
        return None
    return json


def _list(it: Reader, marker: str) -> Steps[list[tuple[str, str]]]:
    if not marker and (yield from it.space()) == "<":
        yield from it.expect(_START)
    if (yield from it.space()) != "[":
        raise NotThis
    start = it.at
    it.at += 1
    yield from it.space()
    yield from it.name(_NAME)
    if (yield from it.space()) != "(":
        raise NotThis
    it.at = start
    return _Python((yield from it.bracketed(PYTHON))).calls()


class _Python:
    """Reads literals. Every method raises NotThis for what it does not know."""

    __slots__ = ("_at", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def calls(self) -> list[tuple[str, str]]:
        """Return the names and arguments in a list of calls, which is not empty."""
        found: list[tuple[str, str]] = []
        self._take("[")
        while not found or self._takes(","):
            if found and self._takes("]"):
                return found
            name = self._match(_NAME)
            self._take("(")
            found.append((name, self._members(")", "=", 1)))
        self._take("]")
        self.end()
        return found

    def value(self, depth: int) -> str:
        """Return the JSON for the next literal."""
        if depth > _MAX_DEPTH:
            raise NotThis
        sign = self._next()
        if sign and sign in "'\"":
            return _quoted(self._match(_STRING))
        if self._takes("["):
            return self._items("]", depth + 1)
        if self._takes("("):
            return self._items(")", depth + 1)
        if self._takes("{"):
            return self._members("}", ":", depth + 1)
        if sign.isdigit() or sign == "-":
            return self._match(_NUMBER)
        word = _WORDS.get(self._match(_NAME))
        if word is None:
            raise NotThis
        return word

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self._next():
            raise NotThis

    def _items(self, close: str, depth: int) -> str:
        items: list[str] = []
        while not self._takes(close):
            items.append(self.value(depth))
            if not self._takes(","):
                self._take(close)
                break
        return f"[{', '.join(items)}]"

    def _members(self, close: str, sign: str, depth: int) -> str:
        members: list[str] = []
        while not self._takes(close):
            key = msgspec.json.encode(self._match(_NAME)).decode() if sign == "=" else _quoted(self._match(_STRING))
            self._take(sign)
            members.append(f"{key}: {self.value(depth)}")
            if not self._takes(","):
                self._take(close)
                break
        return f"{{{', '.join(members)}}}"

    def _next(self) -> str:
        blanks = _BLANKS.match(self._text, self._at)
        assert blanks is not None
        self._at = blanks.end()
        return self._text[self._at : self._at + 1]

    def _takes(self, sign: str) -> bool:
        taken = self._next() == sign
        self._at += taken
        return taken

    def _take(self, sign: str) -> None:
        if not self._takes(sign):
            raise NotThis

    def _match(self, pattern: re.Pattern[str]) -> str:
        self._next()
        found = pattern.match(self._text, self._at)
        if found is None:
            raise NotThis
        self._at = found.end()
        return found.group()


def _quoted(python: str) -> str:
    """Return the JSON string for a Python string."""
    return msgspec.json.encode(_ESCAPE.sub(_unescaped, python[1:-1])).decode()


def _unescaped(found: re.Match[str]) -> str:
    sign = found[1]
    if sign[0] in "xuU" and len(sign) > 1:
        return _character(int(sign[1:], 16))
    if sign[0] in "01234567":
        return _character(int(sign, 8))
    return _ESCAPES.get(sign, found.group())


def _character(number: int) -> str:
    """Return the character; Python knows halves of pairs and numbers without one, JSON text does not."""
    return chr(number) if number < 0xD800 or 0xDFFF < number < 0x110000 else "\ufffd"
