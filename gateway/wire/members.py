"""Read JSON objects member by member: what is known is taken out and checked, what is left keeps its bytes.

A member that is ``null`` says nothing and is left where it is, so that it is written back as it came. Members of a nested
object that has no value of its own in the IR are kept beside their parent's under a dotted name, ``options.min_p``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from ..errors import DecodeError
from ..ir.message import NO_EXTRA, Extra

_T = TypeVar("_T")

BAD_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What a JSON reader raises: not JSON or of another shape, bytes that are no UTF-8, nesting beyond all reason."""

NULL: Final = Raw(b"null")

OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
ARRAY: Final = msgspec.json.Decoder(list[Raw])
_STRING: Final = msgspec.json.Decoder(str)
_STRINGS: Final = msgspec.json.Decoder(list[str])
_INTEGER: Final = msgspec.json.Decoder(int)
_NUMBER: Final = msgspec.json.Decoder(float)
_BOOLEAN: Final = msgspec.json.Decoder(bool)
encode_json: Final = msgspec.json.Encoder().encode
_AT: Final = re.compile(r"(.*) - at `\$\.?(.*)`\Z", re.DOTALL)
_MISSING: Final = re.compile(r"missing required field `(\w+)`")


class Members:
    """The members of one JSON object. ``take`` and its likes remove one and return its value, None if missing or null.

    They raise DecodeError with the member's path when it is of another type.
    """

    __slots__ = ("path", "rest")

    def __init__(self, data: bytes | Raw, path: str) -> None:
        self.path = path
        try:
            self.rest = OBJECT.decode(data)
        except BAD_JSON as error:
            raise DecodeError(path, why(error, "an object")) from error

    def at(self, name: str) -> str:
        """The path of the member ``name``."""
        return f"{self.path}.{name}" if self.path else name

    def extra(self) -> Extra:
        """What nobody took."""
        return self.rest or NO_EXTRA

    def raw(self, name: str) -> Raw | None:
        """The member as it came, left where it is; None if it is missing or null."""
        raw = self.rest.get(name)
        return None if raw is None or raw == NULL else raw

    def take(self, name: str) -> Raw | None:
        raw = self.raw(name)
        if raw is not None:
            del self.rest[name]
        return raw

    def string(self, name: str) -> str | None:
        return self._read(_STRING, name, "a string")

    def need_string(self, name: str) -> str:
        """The same, of a member that must be there."""
        value = self.string(name)
        if value is None:
            raise DecodeError(self.at(name), "expected a string, but it is missing")
        return value

    def strings(self, name: str) -> list[str] | None:
        return self._read(_STRINGS, name, "an array of strings")

    def integer(self, name: str) -> int | None:
        return self._read(_INTEGER, name, "an integer")

    def number(self, name: str) -> float | None:
        return self._read(_NUMBER, name, "a number")

    def boolean(self, name: str) -> bool | None:
        return self._read(_BOOLEAN, name, "true or false")

    def array(self, name: str) -> list[Raw] | None:
        return self._read(ARRAY, name, "an array")

    def object(self, name: str) -> Members | None:
        raw = self.take(name)
        return None if raw is None else Members(raw, self.at(name))

    def need_object(self, name: str) -> Members:
        """The same, of a member that must be there."""
        value = self.object(name)
        if value is None:
            raise DecodeError(self.at(name), "expected an object, but it is missing")
        return value

    def adopt(self, name: str, nested: Members) -> None:
        """Keep what is left of the object that was the member ``name``, under dotted names."""
        for key, raw in nested.rest.items():
            self.rest[f"{name}.{key}"] = raw

    def _read(self, decoder: msgspec.json.Decoder[_T], name: str, what: str) -> _T | None:
        raw = self.take(name)
        if raw is None:
            return None
        try:
            return decoder.decode(raw)
        except BAD_JSON as error:
            raise DecodeError(self.at(name), why(error, what)) from error


def put_extra(value: dict[str, Any], extra: Extra | Mapping[str, Raw]) -> None:
    """Write the members of ``extra`` into the object ``value``, dotted names into its nested objects; what is set stays."""
    for name, raw in extra.items():
        outer, dot, inner = name.partition(".")
        if dot and isinstance(nested := value.get(outer), dict):
            nested.setdefault(inner, raw)
        else:
            value.setdefault(name, raw)


def is_string(raw: Raw) -> bool:
    """Whether the JSON value is a string."""
    return memoryview(raw)[:1].tobytes() == b'"'


def string_of(raw: Raw, path: str) -> str:
    """Return the JSON string ``raw``. Raises DecodeError when it holds half a surrogate pair or is no UTF-8."""
    try:
        return _STRING.decode(raw)
    except BAD_JSON as error:
        raise DecodeError(path, why(error, "a string")) from error


def json_object(text: bytes | str) -> bool:
    """Whether ``text`` is a JSON object, all of it valid."""
    try:
        OBJECT.decode(text)
    except BAD_JSON:
        return False
    return True


def why(error: Exception, what: str) -> str:
    """Say what was expected and not found."""
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, msgspec.ValidationError):
        return f"expected {what}"
    return f"not valid JSON: {error}"


def fault(error: Exception) -> DecodeError:
    """Return the DecodeError for what a typed decoder found wrong with a request body, with its path."""
    if isinstance(error, RecursionError):
        return DecodeError("", "request body is nested too deep")
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return DecodeError("", f"request body is not valid JSON: {text}")
    if found := _AT.match(text):
        return DecodeError(found[2], found[1][:1].lower() + found[1][1:])
    if found := _MISSING.search(text):
        return DecodeError(found[1], "expected a value, but it is missing")
    return DecodeError("", f"request body: {text[:1].lower()}{text[1:]}")
