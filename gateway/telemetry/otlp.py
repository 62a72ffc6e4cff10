"""Spans as the bytes of an OTLP ``ExportTraceServiceRequest``.

The SDK's objects and its encoder cost some 100 us a span, which is several times what a call costs: this is about 4. Field
numbers are those of opentelemetry-proto, ``trace/v1/trace.proto`` and ``common/v1/common.proto``, whose own decoder reads it
in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct as Layout
from typing import Final

from .span import Event, Span, Value

_MASK: Final = (1 << 64) - 1
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_TIMES: Final = Layout("<BQBQ").pack
_TIME: Final = Layout("<BQ").pack
_DOUBLE: Final = Layout("<Bd").pack
_FLAGS: Final = Layout("<HI").pack
_IS_REMOTE_KNOWN, _IS_REMOTE = 0x100, 0x200
_FAILED: Final = b"\x7a\x02\x18\x02"
_OF_SPAN, _OF_EVENT, _OF_RESOURCE = b"\x4a", b"\x1a", b"\x0a"


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_LENGTHS: Final = [_varint(length) for length in range(1024)]


def _sized(tag: bytes, content: bytes) -> bytes:
    size = len(content)
    return tag + (_LENGTHS[size] if size < 1024 else _varint(size)) + content


_KEYS: dict[str, bytes] = {}
"""Keys as they are written; there are some dozens, and facts of steps beside them."""
_MAX_KEYS: Final = 1000


def _key(key: str) -> bytes:
    written = _sized(b"\x0a", key.encode())
    if len(_KEYS) < _MAX_KEYS:
        _KEYS[key] = written
    return written


def int64(number: int) -> int:
    """Return a number as far as OTLP has it: callers choose seeds, and JSON knows no end."""
    return max(_LEAST, min(number, _MOST))


def _value(value: Value) -> bytes:
    if type(value) is str:
        return _sized(b"\x0a", value.encode("utf-8", "replace"))
    if type(value) is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if type(value) is int:
        return b"\x18" + (_LENGTHS[value] if 0 <= value < 1024 else _varint(int64(value) & _MASK))
    if type(value) is float:
        return _DOUBLE(0x21, value)
    return _sized(b"\x2a", b"".join([_sized(b"\x0a", _value(each)) for each in value]))  # type: ignore[union-attr]  # a tuple


def _attributes(tag: bytes, pairs: Iterable[tuple[str, Value]]) -> bytes:
    return b"".join([_attribute(tag, key, value) for key, value in pairs])


def _attribute(tag: bytes, key: str, value: Value) -> bytes:
    return _sized(tag, (_KEYS.get(key) or _key(key)) + _sized(b"\x12", _value(value)))


_OWN: dict[tuple[str, Value], bytes] = {}
"""Attributes of spans that come again and again: counts, status codes, reasons. Of one key all values are of one type."""
_HEADS: dict[tuple[str, int], bytes] = {}
"""What stands before the text of an attribute, by key and length: ids are all different, and all of one length."""
_MAX_KNOWN: Final = 4096
_SHORT: Final = 100


def _own(pair: tuple[str, Value]) -> bytes:
    """Return an attribute that has to be written anew, and remember what may come again of it."""
    key, value = pair
    kind = type(value)
    written = _attribute(_OF_SPAN, key, value)
    if kind is float:
        return written
    if kind is not str:
        if len(_OWN) >= _MAX_KNOWN:
            _OWN.clear()
        _OWN[pair] = written
    elif isinstance(value, str) and value.isascii() and (size := len(value)) < _SHORT:
        if len(_HEADS) >= _MAX_KNOWN:
            _HEADS.clear()
        _HEADS[key, size] = written[: len(written) - size]
    return written


def _event(event: Event) -> bytes:
    content = _TIME(0x09, event.at_ns) + _sized(b"\x12", event.name.encode())
    return _sized(b"\x5a", content + _attributes(_OF_EVENT, event.attributes))


def encode_span(span: Span) -> bytes:
    """Return a span as a member of ``ScopeSpans``."""
    fixed = span.fixed
    encoded = fixed.encoded
    if encoded is None:
        fixed.encoded = encoded = _attributes(_OF_SPAN, fixed.pairs)
    flags = span.flags & 0xFF | _IS_REMOTE_KNOWN | (_IS_REMOTE if span.remote else 0)
    own = b""
    for pair in span.own:
        key, value = pair
        if type(value) is str:
            head = _HEADS.get((key, len(value)))
            own += head + value.encode() if head is not None and value.isascii() else _own(pair)
        elif type(value) is float:
            own += _own(pair)
        else:
            own += _OWN.get(pair) or _own(pair)
    parts = [
        b"\x0a\x10",
        bytes.fromhex(span.trace_id),
        b"\x12\x08",
        bytes.fromhex(span.span_id),
        _sized(b"\x1a", span.state.encode("utf-8", "replace")) if span.state else b"",
        b"\x22\x08" + bytes.fromhex(span.parent_id) if span.parent_id else b"",
        _sized(b"\x2a", span.name.encode("utf-8", "replace")),
        b"\x30",
        _LENGTHS[span.kind],
        _TIMES(0x39, span.started_ns, 0x41, span.ended_ns),
        encoded,
        own,
    ]
    if span.events:
        parts.extend(map(_event, span.events))
    if span.failed:
        parts.append(_FAILED)
    parts.append(_FLAGS(0x0185, flags))
    return _sized(b"\x12", b"".join(parts))


class Envelope:
    """What stands around spans: the resource, and the scope that made them."""

    __slots__ = ("_resource", "_scope")

    def __init__(self, resource: Mapping[str, Value], scope: str, version: str) -> None:
        self._resource = _sized(b"\x0a", _attributes(_OF_RESOURCE, resource.items()))
        self._scope = _sized(b"\x0a", _sized(b"\x0a", scope.encode()) + _sized(b"\x12", version.encode()))

    def around(self, spans: Iterable[Span | bytes]) -> bytes:
        """Return the request that exports ``spans``, some of which may be written already."""
        of_scope = self._scope + b"".join([span if type(span) is bytes else encode_span(span) for span in spans])  # type: ignore[arg-type]  # a Span: tested by exact type
        return _sized(b"\x0a", self._resource + _sized(b"\x12", of_scope))
