"""Members of Gemini's JSON objects: as Google reads them, in lowerCamelCase or in snake_case.

Source: ProtoJSON, "parsers accept both the lowerCamelCase name and the original proto field name"; 64-bit integers may be
spelled as strings, as may all numbers. What is written is lowerCamelCase.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...wire.members import BAD_JSON, NULL, Members, why

FORMAT: Final = "gemini"
ID: Final = "id"
"""With the value null in the ``extra`` of a call or a result: nobody gave the id, we made it up."""
SIGNATURE: Final = "thoughtSignature"
"""Stands in the ``extra`` of a text, a call or a file; that of a thought is its ``signature``."""

BLANKS: Final = bytes.maketrans(b"\r\n", b"  ")
"""Makes one line of JSON: within its texts line ends are escaped."""

_CAPITAL: Final = re.compile(r"(?<=.)([A-Z])")
_NUMBER: Final = msgspec.json.Decoder(int | float | str)


@lru_cache(512)
def snake(name: str) -> str:
    """Return the other spelling of a member's name: ``inline_data`` for ``inlineData``."""
    return _CAPITAL.sub(lambda letter: f"_{letter[1].lower()}", name)


class Fields(Members):
    """The members of one object, asked for in lowerCamelCase and found in both spellings."""

    __slots__ = ()

    def raw(self, name: str) -> Raw | None:
        raw = self.rest.get(name)
        if raw is None:
            raw = self.rest.get(snake(name))
        return None if raw is None or raw == NULL else raw

    def take(self, name: str) -> Raw | None:
        raw = self.raw(name)
        if raw is not None:
            spelled = name if name in self.rest and self.rest[name] is raw else snake(name)
            del self.rest[spelled]
        return raw

    def object(self, name: str) -> Fields | None:
        raw = self.take(name)
        return None if raw is None else Fields(raw, self.at(name))

    def need_object(self, name: str) -> Fields:
        value = self.object(name)
        if value is None:
            raise DecodeError(self.at(name), "expected an object, but it is missing")
        return value

    def array(self, name: str) -> list[Raw] | None:
        """The items of an array. One object alone is an array of one: Google reads it so, and its examples spell it so."""
        raw = self.raw(name)
        if raw is not None and is_object(raw):
            self.take(name)
            return [raw]
        return super().array(name)

    def integer(self, name: str) -> int | None:
        raw = self.take(name)
        if raw is None:
            return None
        try:
            value = _NUMBER.decode(raw)
            number = int(value)
            if isinstance(value, float) and number != value:
                raise ValueError(value)
        except BAD_JSON as error:
            raise DecodeError(self.at(name), why(error, "an integer")) from error
        except (ValueError, OverflowError) as error:
            raise DecodeError(self.at(name), "expected an integer") from error
        return number

    def number(self, name: str) -> float | None:
        raw = self.raw(name)
        if raw is None or first(raw) != b'"':
            return super().number(name)
        try:
            number = float(self.need_string(name))
        except ValueError as error:
            raise DecodeError(self.at(name), "expected a number") from error
        if not math.isfinite(number):
            raise DecodeError(self.at(name), "expected a finite number")
        return number


def first(raw: Raw) -> bytes:
    """The first byte of a JSON value, which tells its kind."""
    return memoryview(raw)[:1].tobytes()


def is_object(raw: Raw) -> bool:
    """Whether the JSON value is an object."""
    return first(raw) == b"{"


def text_of(raw: Raw, path: str) -> str:
    """Return the bytes of a JSON value as text. Raises DecodeError where they are no UTF-8."""
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise DecodeError(path, f"not valid UTF-8: {error.reason}") from error
