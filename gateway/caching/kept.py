"""An answer as bytes, and back: what a provider wrote, as it wrote it, behind a line that says how it is spelled, and when.

An answer that was changed on its way has no such bytes: it is kept whole, as the provider's format would say it.
Whether an answer is one to give again, complete and not broken off, is asked when it is read: most are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from .. import registry
from ..call import Call
from ..codecs.base import AnswerContext
from ..doors import OPERATIONS
from ..errors import GatewayError
from ..ir.event import ChoiceStop, Chunk, Event, Wire

_REASONS: Final = frozenset({"stop", "length", "tool_calls", "stop_sequence", "refusal"})
_FRUGAL: Final = frozenset({"openai.chat", "openai.completions"})
"""Formats whose streams tell usage only if they are asked to."""
_STAMP: Final = 5
"""Bytes of a date in Unix seconds."""


class Kept(NamedTuple):
    """``born`` is when it was asked for, in Unix seconds; ``frugal`` says that nobody asked it for usage."""

    chunk: Chunk
    born: int
    frugal: bool


def is_frugal(call: Call) -> bool:
    """Whether this is a stream that tells no usage, since the caller did not ask for it."""
    return call.peek.stream and call.codec.format in _FRUGAL and not call.peek.stream_usage


def pack(chunks: Sequence[Chunk], call: Call) -> bytes | None:
    """Return a complete answer as bytes; None if it cannot be kept without losing something."""
    if not chunks:
        return None
    first = chunks[0]
    wire, raw = first.wire, first.raw
    born = int(call.began_unix).to_bytes(_STAMP, "big")
    if wire is not None and raw is not None:
        if len(chunks) == 1 and not call.peek.stream:
            return _head(wire, False) + born + raw
        raws = [chunk.raw for chunk in chunks if chunk.wire is wire or chunk.wire == wire]
        if len(raws) == len(chunks) and None not in raws:
            head = _head(wire, is_frugal(call))
            return b"".join((head, born, *raws))  # type: ignore[arg-type]  # no None in it
    events = [event for chunk in chunks for event in chunk.events]
    if not _is_good(events):
        return None
    # in the provider's own words where they are known: its format has a place for all that it said
    context = AnswerContext(call.request_id, int(call.began_unix), call.model, True, call.headers, call.body or b"")
    try:
        codec = registry.codec(_spoken(call) if wire is None else wire.format)
        written = codec.encode_response(events, context)
    except (GatewayError, registry.UnknownName):
        return None
    if any(loss.kind != "minted" for loss in written.losses):  # an id or a date that the provider did not give
        return None
    return b"".join((_head(codec.whole, False), born, written.body))


def _spoken(call: Call) -> str:
    """Return the format that the provider spoke."""
    tries = call.decision.attempts
    return (tries[-1].format if tries else "") or call.codec.format


def unpack(value: bytes) -> Kept | None:
    """Return the answer; None if it is not one to give again."""
    ends = value.find(b"\n") + 1
    format, _, how = value[: max(0, ends - 1)].decode("ascii", "replace").partition(" ")
    framing, _, frugal = how.partition(" ")
    born, body = int.from_bytes(value[ends : ends + _STAMP], "big"), value[ends + _STAMP :]
    chunk = _chunk(format, framing, body)
    return None if chunk is None else Kept(chunk, born, bool(frugal))


def _chunk(format: str, framing: str, body: bytes) -> Chunk | None:
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
def _head(wire: Wire, frugal: bool) -> bytes:
    return f"{wire.format} {wire.framing}{' frugal' if frugal else ''}\n".encode()


def _is_good(events: Sequence[Event]) -> bool:
    """Whether every choice came to an end that a model or its caller chose, and there is one."""
    stops = [event.reason for event in events if type(event) is ChoiceStop]
    return bool(stops) and all(reason in _REASONS for reason in stops)
