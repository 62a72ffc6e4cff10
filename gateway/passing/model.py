"""Where the model stands in the beginning of a body, a form or a JSON object, whatever follows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from ..errors import CallerError
from ..wire.members import BAD_JSON

_MODEL: Final = "model"
_MAX_BYTES: Final = 200
"""A longer value names no model."""
_BOUNDARY: Final = re.compile(r';[ \t]*boundary=(?:"([^"\r\n]{1,200})"|([^\s";,]{1,200}))', re.I)
_FIELD: Final = re.compile(
    rb'(?:^|\r\n)content-disposition:[ \t]*form-data;[ \t]*name=(?:"model"|model)[ \t]*(?:\r\n|$)', re.I
)
"""Nothing but the name: what has a file name is a file."""
_STEP: Final = re.compile(rb'[^"{}\[\],:]*+(?:("[^"\\]*+(?:\\.[^"\\]*+)*+")|[{}\[\],:])', re.S)
"""The next string or sign. Where a string has no end, nothing matches: what is in it is never taken for JSON."""


def boundary_of(content_type: str) -> str:
    """Return the boundary of a form, "" where the type names none."""
    found = _BOUNDARY.search(content_type)
    return "" if found is None else found[1] or found[2]


def in_form(head: bytes, boundary: str) -> tuple[int, int] | None:
    """Return the place of the field's value, None if no such field is there whole. SDKs send fields before files.

    Raises CallerError where there are two: rules would have seen the one, and the provider the other.
    """
    places = list(_fields(head, boundary)) if boundary else []
    if len(places) > 1:
        raise CallerError("the form names the model twice: send the field once", param=_MODEL)
    return places[0] if places else None


def _fields(head: bytes, boundary: str) -> Iterator[tuple[int, int]]:
    mark = b"\r\n--" + boundary.encode("utf-8", "surrogateescape")
    parts = (b"\r\n" + head).split(mark)
    start = len(parts[0]) - 2
    for part in parts[1:-1]:  # the last has no end yet, or is none
        start += len(mark)
        headers, blank, value = part.partition(b"\r\n\r\n")
        if blank and 0 < len(value) <= _MAX_BYTES and not {13, 10} & set(value) and _FIELD.search(headers[2:]):
            yield start + len(headers) + len(blank), start + len(part)
        start += len(part)


def in_json(head: bytes) -> tuple[int, int] | None:
    """Return the place of the member's value, a JSON string, in an object that may go on; None if it is not there."""
    depth = at = 0
    key, before = b"", 0
    while (found := _STEP.match(head, at)) is not None:
        at = found.end()
        if found[1] is None:
            before = head[at - 1]
            depth += (before in b"{[") - (before in b"}]")
            if depth == 0:
                return None
            continue
        if depth == 1 and before in b"{,":
            key = found[1]
        elif depth == 1 and before in b":" and json_string(key) == _MODEL:
            return found.span(1)
        before = 0
    return None


def json_string(string: bytes) -> str:
    """Return what a JSON string says; "" for what is none."""
    try:
        return msgspec.json.decode(string, type=str)
    except BAD_JSON:
        return ""
