"""What the tests of gemini share: the corpus, ways to feed it, and Google's SDK over a transport that answers itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
from google import genai
from google.genai import types
from headgate.gateway.codecs.base import AnswerContext, RequestFacts
from headgate.gateway.codecs.gemini import ARRAY_CODEC, CODEC
from headgate.gateway.codecs.gemini.codec import Gemini
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import Chunk, Event
from msgspec import Raw

CORPUS = Path(__file__).parent.parent / "corpus" / "gemini"
CONTEXT = AnswerContext(request_id="r1", created=1_700_000_000, model="asked", stream_usage=True)
STREAMS = sorted(path.stem for path in (CORPUS / "streams").glob("*.sse"))
ANSWERS = sorted(path.stem for path in (CORPUS / "answers").glob("*.json"))
REQUESTS = sorted(path.stem for path in (CORPUS / "requests").glob("*.json"))
WHOLE = RequestFacts("/v1beta/models/gemini-3-pro:generateContent")
STREAM = RequestFacts("/v1beta/models/gemini-3-pro:streamGenerateContent", {"alt": "sse"})
FRAMINGS = {"sse": CODEC, "array": ARRAY_CODEC}


def load(path: str) -> bytes:
    """The bytes of a corpus file below its line of origin."""
    return (CORPUS / path).read_bytes().partition(b"\n")[2]


def payloads(data: bytes) -> list[Any]:
    """The JSON values of a stream in either framing."""
    if data.lstrip().startswith(b"["):
        told = json.loads(data)
        assert isinstance(told, list)
        return told
    frames = data.replace(b"\r\n", b"\n").split(b"\n\n")
    return [json.loads(frame.strip()[6:]) for frame in frames if frame.strip().startswith(b"data: ")]


def as_array(data: bytes) -> bytes:
    """A stream of events as the array that Google sends without ``alt=sse``."""
    return b"[" + b"\r\n,\r\n".join(json.dumps(frame, indent=1).encode() for frame in payloads(data)) + b"\n]\n"


def stream(name: str, framing: str) -> bytes:
    """A stream of the corpus in a framing."""
    data = load(f"streams/{name}.sse")
    return data if framing == "sse" else as_array(data)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def decode(codec: Gemini, parts: Iterable[bytes]) -> tuple[list[Chunk], GatewayError | None]:
    """Return the chunks of a stream, and how it failed."""
    decoder = codec.stream_decoder()
    chunks = [decoder.feed(part) for part in parts]
    chunks.append(decoder.close())
    return [chunk for chunk in chunks if chunk is not None], decoder.error


def events_of(chunks: Iterable[Chunk]) -> list[Event]:
    return [event for chunk in chunks for event in chunk.events]


def encode(codec: Gemini, *chunks: Chunk, error: GatewayError | None = None) -> bytes:
    encoder = codec.stream_encoder(CONTEXT)
    return b"".join((*[encoder.encode(chunk) for chunk in chunks], encoder.close(error)))


def client(answer: Callable[[httpx.Request], httpx.Response]) -> genai.Client:
    """Google's own SDK, whose requests ``answer`` answers."""
    transport = httpx.Client(transport=httpx.MockTransport(answer))
    return genai.Client(api_key="k", http_options=types.HttpOptions(httpx_client=transport))


def heard(data: bytes) -> list[types.GenerateContentResponse]:
    """What the SDK makes of a stream of events. Raises google.genai.errors.APIError for an error in it."""
    headers = {"content-type": "text/event-stream"}
    asked = client(lambda _: httpx.Response(200, content=data, headers=headers))
    return list(asked.models.generate_content_stream(model="gemini-3-pro", contents="hi"))


def told(data: bytes) -> types.GenerateContentResponse:
    """What the SDK makes of a whole answer."""
    headers = {"content-type": "application/json"}
    asked = client(lambda _: httpx.Response(200, content=data, headers=headers))
    return asked.models.generate_content(model="gemini-3-pro", contents="hi")


def plain(value: object) -> object:
    """Opaque parts and extras by what they say: a stream spells its JSON with other blanks."""
    if isinstance(value, bytes | Raw):
        return json.loads(bytes(value))
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if hasattr(value, "__struct_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)  # arguments
    return value
