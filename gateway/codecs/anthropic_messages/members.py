"""Read JSON objects member by member: what is known is taken out and checked, what is left keeps its bytes.

A member that is ``null`` says nothing and is left where it is, so that it is written back as it came.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.message import NO_EXTRA, Extra

_T = TypeVar("_T")

FORMAT: Final = "anthropic.messages"

BAD_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a JSON reader raises: not JSON or of another shape, bytes that are no UTF-8, nesting beyond all reason."""

NULL: Final = b"null"

_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_STRING: Final = msgspec.json.Decoder(str)
_INTEGER: Final = msgspec.json.Decoder(int)
_NUMBER: Final = msgspec.json.Decoder(float)
_BOOLEAN: Final = msgspec.json.Decoder(bool)
_STRINGS: Final = msgspec.json.Decoder(tuple[str, ...])


class Members:
    """The members of one JSON object. ``take_*`` removes one and returns its value, None if it is missing or null.

    Raises DecodeError with the member's path when it is of another type.
    """

    __slots__ = ("path", "rest")

    def __init__(self, data: bytes | Raw, path: str) -> None:
        self.path = path
        try:
            self.rest = _OBJECT.decode(data)
        except BAD_JSON as error:
            raise DecodeError(path, _why("an object", error)) from error

    def at(self, name: str) -> str:
        """The path of the member ``name``."""
        return f"{self.path}.{name}" if self.path else name

    def extra(self) -> Extra:
        """What nobody took."""
        return self.rest or NO_EXTRA

    def has(self, name: str) -> bool:
        """Whether the member is there and not null."""
        raw = self.rest.get(name)
        return raw is not None and not is_null(raw)

    def take(self, name: str) -> Raw | None:
        raw = self.rest.get(name)
        if raw is None or is_null(raw):
            return None
        del self.rest[name]
        return raw

    def take_string(self, name: str) -> str | None:
        raw = self.take(name)
        return None if raw is None else self._read(_STRING, raw, name, "a string")

    def need_string(self, name: str) -> str:
        value = self.take_string(name)
        if value is None:
            raise DecodeError(self.at(name), "expected a string, but it is missing")
        return value

    def take_integer(self, name: str) -> int | None:
        raw = self.take(name)
        return None if raw is None else self._read(_INTEGER, raw, name, "an integer")

    def take_number(self, name: str) -> float | None:
        raw = self.take(name)
        return None if raw is None else self._read(_NUMBER, raw, name, "a number")

    def take_boolean(self, name: str) -> bool | None:
        raw = self.take(name)
        return None if raw is None else self._read(_BOOLEAN, raw, name, "true or false")

    def take_strings(self, name: str) -> tuple[str, ...] | None:
        raw = self.take(name)
        return None if raw is None else self._read(_STRINGS, raw, name, "an array of strings")

    def take_array(self, name: str) -> list[Raw] | None:
        raw = self.take(name)
        return None if raw is None else self._read(_ARRAY, raw, name, "an array")

    def take_object(self, name: str) -> Members | None:
        raw = self.take(name)
        return None if raw is None else Members(raw, self.at(name))

    def _read(self, decoder: msgspec.json.Decoder[_T], raw: Raw, name: str, what: str) -> _T:
        try:
            return decoder.decode(raw)
        except BAD_JSON as error:
            raise DecodeError(self.at(name), _why(what, error)) from error


def is_string(raw: Raw) -> bool:
    """Whether the JSON value is a string."""
    return memoryview(raw)[:1].tobytes() == b'"'


def is_object(raw: Raw) -> bool:
    """Whether the JSON value is an object."""
    return memoryview(raw)[:1].tobytes() == b"{"


def is_null(raw: Raw) -> bool:
    """Whether the JSON value is null. Looks before it copies: the value may be a whole conversation."""
    return len(memoryview(raw)) == 4 and bytes(raw) == NULL


def says(raw: Raw | None, default: bytes) -> bool:
    """Whether the member is there and other than ``default``, a short spelling of what its absence means."""
    return raw is not None and (len(memoryview(raw)) != len(default) or bytes(raw) != default)


def json_object(text: bytes) -> bool:
    """Whether ``text`` is a JSON object, all of it valid."""
    try:
        _OBJECT.decode(text)
    except BAD_JSON:
        return False
    return True


def _why(what: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, msgspec.ValidationError):
        return f"expected {what}"
    return f"not valid JSON: {error}"
