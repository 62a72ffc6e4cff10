"""An answer as bytes, and back: what a provider wrote, as it wrote it, behind one line that says how it is spelled.

An answer that was changed on its way has no such bytes: it is kept as the caller's format would say it whole.
Whether an answer is one to give again, complete and not broken off, is asked when it is read: most are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from .. import registry
from ..call import Call
from ..codecs.base import AnswerContext
from ..doors import OPERATIONS
from ..errors import GatewayError
from ..ir.event import ChoiceStop, Chunk, Event, Wire

_REASONS: Final = frozenset({"stop", "length", "tool_calls", "stop_sequence", "refusal"})


def pack(chunks: Sequence[Chunk], call: Call) -> bytes | None:
    """Return a complete answer as bytes; None if it cannot be kept without losing something."""
    if not chunks:
        return None
    wire = chunks[0].wire
    if len(chunks) == 1 and wire is not None and chunks[0].raw is not None:
        return _head(wire) + chunks[0].raw
    raws = [chunk.raw for chunk in chunks if chunk.raw is not None and chunk.wire == wire]
    if wire is not None and len(raws) == len(chunks):
        return _head(wire) + b"".join(raws)
    events = [event for chunk in chunks for event in chunk.events]
    if not _is_good(events):
        return None
    codec = call.codec
    context = AnswerContext(call.request_id, int(call.began_unix), call.model, True, call.headers, call.body or b"")
    try:
        written = codec.encode_response(events, context)
    except GatewayError:
        return None
    if written.losses:
        return None
    return _head(codec.whole) + written.body


def unpack(value: bytes) -> Chunk | None:
    """Return the answer; None if it is not one to give again."""
    head, _, body = value.partition(b"\n")
    format, _, framing = head.decode().partition(" ")
    try:
        codec = registry.codec(format)
        if framing == codec.whole.framing:
            if format in OPERATIONS:  # such answers are no events
                return Chunk((), body, codec.whole)
            events: tuple[Event, ...] = codec.decode_response(body)
            if _is_good(events):
                return Chunk(events, body, codec.whole)
        elif framing == codec.streamed.framing:
            decoder = codec.stream_decoder()
            told = [chunk for chunk in (decoder.feed(body), decoder.close()) if chunk is not None]
            events = tuple(event for chunk in told for event in chunk.events)
            if decoder.error is None and _is_good(events):
                return Chunk(events, body, codec.streamed)
    except (GatewayError, registry.UnknownName):
        pass
    return None


@cache
def _head(wire: Wire) -> bytes:
    return f"{wire.format} {wire.framing}\n".encode()


def _is_good(events: Sequence[Event]) -> bool:
    """Whether every choice came to an end that a model or its caller chose, and there is one."""
    stops = [event.reason for event in events if type(event) is ChoiceStop]
    return bool(stops) and all(reason in _REASONS for reason in stops)
