"""Spans as the bytes of an OTLP ``ExportTraceServiceRequest``.

The SDK's objects and its encoder cost some 100 us a span, which is several times what a call costs: this is about 3. Field
numbers are those of opentelemetry-proto, ``trace/v1/trace.proto`` and ``common/v1/common.proto``, whose own decoder reads it
in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from struct import Struct as Layout
from typing import Final

from .span import Event, Span, Value

_MASK: Final = (1 << 64) - 1
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
TIMES: Final = Layout("<BQBQ").pack
"""Both times of a span, each after its tag: 0x39 and 0x41."""
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


class _Sizes(dict[int, bytes]):
    def __missing__(self, size: int) -> bytes:
        written = _varint(size)
        if len(self) < _MAX_KNOWN:
            self[size] = written
        return written


_MAX_KNOWN: Final = 4096
SIZES: Final = _Sizes()
"""Numbers that are not negative, as they are written: mostly lengths."""


def _sized(tag: bytes, content: bytes) -> bytes:
    size = len(content)
    return tag + SIZES[size] + content


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
        return b"\x18" + (SIZES[int64(value) & _MASK])
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
_SHORT: Final = 100
_LONG: Final = 200
"""What callers wrote, such as stop sequences, is not kept for them."""


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
        if len(written) < _LONG:
            _OWN[pair] = written
    elif isinstance(value, str) and value.isascii() and (size := len(value)) < _SHORT:
        if len(_HEADS) >= _MAX_KNOWN:
            _HEADS.clear()
        _HEADS[key, size] = written[: len(written) - size]
    return written


def _event(event: Event) -> bytes:
    content = _TIME(0x09, event.at_ns) + _sized(b"\x12", event.name.encode())
    return _sized(b"\x5a", content + _attributes(_OF_EVENT, event.attributes))


class Heads(dict[int, bytes]):
    """What stands before the text of an attribute, by the bytes that the text takes."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def __missing__(self, size: int) -> bytes:
        self[size] = head = _attribute(_OF_SPAN, self._key, " " * size)[: -size or None]
        return head


class Numbers(dict[int, bytes]):
    """An attribute that is a count, by the count: most are of a few thousand at most."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def __missing__(self, number: int) -> bytes:
        written = _attribute(_OF_SPAN, self._key, int(number))
        if len(self) < _MAX_KNOWN:
            self[number] = written
        return written


def doubles_of(key: str) -> Callable[[float], bytes]:
    """Return what writes an attribute that is a measure."""
    head = _attribute(_OF_SPAN, key, 0.0)[:-8]
    layout = Layout("<d").pack

    def write(number: float) -> bytes:
        return head + layout(number)

    return write


def encode_pairs(pairs: Iterable[tuple[str, Value]]) -> bytes:
    """Return attributes of a span."""
    written = b""
    for pair in pairs:
        key, value = pair
        if type(value) is str:
            head = _HEADS.get((key, len(value)))
            written += head + value.encode() if head is not None and value.isascii() else _own(pair)
        elif type(value) is float:
            written += _own(pair)
        else:
            written += _OWN.get(pair) or _own(pair)
    return written


def name_of(span: Span) -> bytes:
    """Return a span's name and kind."""
    return _sized(b"\x2a", span.name.encode("utf-8", "replace")) + b"\x30" + SIZES[span.kind]


def flags_of(flags: int, remote: bool) -> bytes:
    """Return the flags of a span; ``remote``: those of its parent are from elsewhere."""
    return _FLAGS(0x0185, flags & 0xFF | _IS_REMOTE_KNOWN | (_IS_REMOTE if remote else 0))


def state_of(state: str) -> bytes:
    """Return the tracestate of a span."""
    return _sized(b"\x1a", state.encode("utf-8", "replace"))


def event_around(name: str) -> Callable[[int], bytes]:
    """Return what writes an event of a name and no attributes, for a time."""
    start, end = _event(Event(name, 0, [])).split(bytes(8))
    layout = Layout("<Q").pack

    def write(at_ns: int) -> bytes:
        return start + layout(at_ns) + end

    return write


def span_of(
    trace_id: bytes,
    span_id: bytes,
    parent_id: bytes,
    state: str,
    name: bytes,
    started_ns: int,
    ended_ns: int,
    content: bytes,
    flags: bytes,
) -> bytes:
    """Return a span; ``name`` is of ``name_of``, ``content`` are attributes, then events, and a status if it failed."""
    written = b"".join(
        (
            b"\x0a\x10",
            trace_id,
            b"\x12\x08",
            span_id,
            state_of(state) if state else b"",
            b"\x22\x08" + parent_id if parent_id else b"",
            name,
            TIMES(0x39, started_ns, 0x41, ended_ns),
            content,
            flags,
        )
    )
    size = len(written)
    return b"\x12" + SIZES[size] + written


def encode_span(span: Span) -> bytes:
    """Return a span as a member of ``ScopeSpans``."""
    fixed = span.fixed
    encoded = fixed.encoded
    if encoded is None:
        fixed.encoded = encoded = encode_pairs(fixed.pairs)
    content = encoded + encode_pairs(span.own)
    if span.events:
        content += b"".join(map(_event, span.events))
    if span.failed:
        content += _FAILED
    return span_of(
        bytes.fromhex(span.trace_id),
        bytes.fromhex(span.span_id),
        bytes.fromhex(span.parent_id),
        span.state,
        name_of(span),
        span.started_ns,
        span.ended_ns,
        content,
        flags_of(span.flags, span.remote),
    )


class Envelope:
    """What stands around spans: the resource, and the scope that made them."""

    __slots__ = ("_resource", "_scope")

    def __init__(self, resource: Mapping[str, Value], scope: str, version: str) -> None:
        self._resource = _sized(b"\x0a", _attributes(_OF_RESOURCE, resource.items()))
        self._scope = _sized(b"\x0a", _sized(b"\x0a", scope.encode()) + _sized(b"\x12", version.encode()))

    def around(self, spans: Iterable[Span | bytes]) -> bytes:
        """Return the request that exports ``spans``, some of which may be written already.

        It is put together in one piece: of some MB, each copy more is as many page faults, with the interpreter held.
        """
        written = [span if type(span) is bytes else encode_span(span) for span in spans]  # type: ignore[arg-type]  # a Span: tested by exact type
        of_scope = len(self._scope) + sum(map(len, written))
        before = self._resource + b"\x12" + _varint(of_scope) + self._scope
        size = len(before) - len(self._scope) + of_scope
        return b"".join([b"\x0a", _varint(size), before, *written])
