"""What the Chat Completions tests share: the corpus, and ways to feed it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.openai_chat import CODEC
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import Chunk, Event, Keepalive

CORPUS = Path(__file__).parent.parent / "corpus" / "openai_chat"
CONTEXT = AnswerContext(request_id="r1", created=1700000000, model="asked", stream_usage=True)


def load(name: str) -> bytes:
    """The bytes of a corpus file below its line of origin."""
    return (CORPUS / name).read_bytes().partition(b"\n")[2]


def feed(
    data: bytes, sizes: Iterable[int] = (), *, hide_usage: bool = False
) -> tuple[list[Chunk], GatewayError | None]:
    """Decode ``data`` cut after each of ``sizes``, then the rest."""
    decoder = CODEC.stream_decoder(hide_usage=hide_usage)
    chunks: list[Chunk | None] = []
    for size in sizes:
        chunks.append(decoder.feed(data[:size]))
        data = data[size:]
    chunks += [decoder.feed(data), decoder.close()]
    return [chunk for chunk in chunks if chunk is not None], decoder.error


def events_of(chunks: Iterable[Chunk]) -> list[Event]:
    """All events but pings."""
    return [event for chunk in chunks for event in chunk.events if not isinstance(event, Keepalive)]


def frames(*deltas: dict[str, object], done: bool = True, **envelope: object) -> bytes:
    """A stream of one choice: each of ``deltas`` is a delta, or a whole choice if it has one."""
    out = []
    for delta in deltas:
        choice = delta if "delta" in delta else {"delta": delta}
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m", **envelope}
        value = {**head, "choices": [{"index": 0, "finish_reason": None, **choice}]}
        out.append(b"data: " + msgspec.json.encode(value) + b"\n\n")
    return b"".join(out) + (b"data: [DONE]\n\n" if done else b"")


def payloads(stream: bytes) -> list[dict[str, object]]:
    """The JSON objects of a stream that was written, without pings and [DONE]."""
    blocks = [block for block in stream.split(b"\n\n") if block.startswith(b"data: {")]
    return [msgspec.json.decode(block[6:]) for block in blocks]
