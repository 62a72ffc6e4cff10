"""What the Ollama tests share: the corpus, ways to feed it, and Ollama's own client on a transport without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import httpx
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.ollama import CHAT, GENERATE, Ollama
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import Chunk, Event
from ollama import Client

CORPUS = Path(__file__).parent.parent / "corpus" / "ollama"
CONTEXT = AnswerContext(request_id="r1", created=1700000000, model="asked", stream_usage=True)
DATE = "2023-11-14T22:13:20Z"


def load(name: str) -> bytes:
    """The bytes of a corpus file below its line of origin."""
    return (CORPUS / name).read_bytes().partition(b"\n")[2]


def codec_of(name: str) -> Ollama:
    """The codec that a corpus file is for."""
    return GENERATE if name.startswith("generate") else CHAT


def feed(codec: Ollama, data: bytes, sizes: Iterable[int] = ()) -> tuple[list[Chunk], GatewayError | None]:
    """Decode ``data`` cut after each of ``sizes``, then the rest."""
    decoder = codec.stream_decoder()
    chunks: list[Chunk | None] = []
    for size in sizes:
        chunks.append(decoder.feed(data[:size]))
        data = data[size:]
    chunks += [decoder.feed(data), decoder.close()]
    return [chunk for chunk in chunks if chunk is not None], decoder.error


def events_of(chunks: Iterable[Chunk]) -> list[Event]:
    return [event for chunk in chunks for event in chunk.events]


def stream(codec: Ollama, events: Sequence[Event], error: GatewayError | None = None) -> bytes:
    """Return ``events`` as the bytes of a stream, and what is owed after them."""
    encoder = codec.stream_encoder(CONTEXT)
    return encoder.encode(Chunk(tuple(events))) + encoder.close(error)


def client(answer: Callable[[bytes], tuple[int, dict[str, str], bytes]]) -> Client:
    """Ollama's client; ``answer`` says status, headers and body for the body of a request."""

    def handle(request: httpx.Request) -> httpx.Response:
        status, headers, body = answer(request.content)
        return httpx.Response(status, headers=headers, content=body)

    return Client("http://ollama.example", transport=httpx.MockTransport(handle))
