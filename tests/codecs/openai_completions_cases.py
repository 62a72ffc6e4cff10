"""What the tests of the legacy Completions share: the corpus, and ways to feed it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.openai_completions import CODEC
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import Chunk, Event

CORPUS = Path(__file__).parent.parent / "corpus" / "openai_completions"
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
    return [event for chunk in chunks for event in chunk.events]


def raw_of(chunks: Iterable[Chunk]) -> bytes:
    return b"".join(chunk.raw or b"" for chunk in chunks)


def stream(events: Sequence[Event], error: GatewayError | None = None) -> bytes:
    """Return ``events`` as the bytes of a stream, and what is owed after them."""
    encoder = CODEC.stream_encoder(CONTEXT)
    return encoder.encode(Chunk(tuple(events))) + encoder.close(error)


def payloads(sent: bytes) -> list[dict[str, object]]:
    """The JSON objects of a stream that was written, without pings and [DONE]."""
    blocks = [block for block in sent.split(b"\n\n") if block.startswith(b"data: {")]
    return [msgspec.json.decode(block[6:]) for block in blocks]
