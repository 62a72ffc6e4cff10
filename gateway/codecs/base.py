"""What a codec is: the sans-IO reader and writer of one API format, in both directions and on both sides.

Codecs are stateless and shared; the state of one stream lives in the StreamDecoder or StreamEncoder they hand out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Raw, Struct

from ..errors import GatewayError, UpstreamError
from ..ir.event import Chunk, Event, PlainAnswer, Usage, Wire
from ..ir.loss import Loss
from ..ir.message import Request
from ..ir.words import Words
from ..wire.outline import Outline

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""A frame above this is malformed. A generated image is one frame of base64, some 8 MB at today's sizes."""


class RequestFacts(Struct, frozen=True):
    """What stands around a request body. Header names are lower case; ``query`` as in the URL, decoded."""

    path: str = ""
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"RequestFacts({self.path!r})"  # headers and query hold the caller's key


class UpstreamFacts(Struct, frozen=True):
    """What an encoder must know of the model that it writes for.

    ``max_output_tokens`` stands in where the format demands a number and the caller gave none. ``stream_usage`` asks for
    usage in a stream whatever the caller wants. ``headers`` are the caller's headers that the policy lets through, lower
    case (a codec may read API versions and betas from them). ``options`` are the profile's own switches, by name.
    """

    max_output_tokens: int = 4096
    stream_usage: bool = False
    headers: Mapping[str, str] = {}
    options: Mapping[str, object] = {}

    def __repr__(self) -> str:
        return f"UpstreamFacts(max_output_tokens={self.max_output_tokens})"


class AnswerContext(Struct, frozen=True):
    """What an encoder needs to write an answer for one caller.

    ``request_id`` and ``created`` (Unix seconds) are what minted ids and dates are made of: no two calls have the same.
    ``stream_usage`` is whether the caller asked for usage in the stream. ``model`` is what the caller asked for, used only if
    the provider named none. ``headers`` are the caller's, lower case. ``asked`` is the body of the request as the caller sent
    it, for formats whose answers repeat it; empty where it is not known.
    """

    request_id: str = ""
    created: int = 0
    model: str = ""
    stream_usage: bool = False
    headers: Mapping[str, str] = {}
    asked: bytes = b""

    def __repr__(self) -> str:
        return f"AnswerContext({self.request_id!r})"


class Encoded(Struct, frozen=True):
    """Bytes ready to send. ``path`` is below the upstream's base URL, with its query; ``headers`` are the format's own."""

    body: bytes
    path: str = ""
    headers: Mapping[str, str] = {}
    losses: tuple[Loss, ...] = ()


class Peek(Struct, frozen=True):
    """The members of a request that routing needs, read without decoding the rest.

    ``stream_usage`` is what the caller said about usage in the stream; None: nothing.
    """

    model: str = ""
    stream: bool = False
    stream_usage: bool | None = None
    tools: Raw | None = None
    metadata: Raw | None = None
    words: Words | None = None
    """The whole request, where it is words alone and was read so."""


def peek_words(codec: Codec, body: bytes) -> Peek | None:
    """Read a request whole instead of peeking at it, if it is words alone: where it will be translated anyway."""
    wording = codec.wording
    if wording is None or (words := wording.read(body)) is None:
        return None
    return Peek(words.model, words.stream, words.stream_usage, words=words)


class StreamDecoder(Protocol):
    """Bytes of a stream into chunks, cut anywhere."""

    error: UpstreamError | None
    """Set once the stream failed: malformed JSON, an oversized frame, an in-band error, a missing end. Final."""

    def feed(self, data: bytes) -> Chunk | None:
        """Decode the whole frames in ``data``; keep a partial tail. None when no frame was completed.

        ``Chunk.raw`` is exactly the bytes of those frames, so that an untouched chunk can be sent on as it came.
        Never raises: the frames before a fault come out, then ``error`` is set.
        """
        ...

    def close(self) -> Chunk | None:
        """The bytes ended: decode what is left; ``error`` is set to ``cut`` when the terminator never came."""
        ...


class StreamEncoder(Protocol):
    """Chunks into the bytes of one caller's stream."""

    ping: bytes
    """A frame that means nothing and keeps connections alive; it may stand between any two frames."""
    losses: list[Loss]
    """What of the answer this format had no room for, so far."""

    def encode(self, chunk: Chunk) -> bytes:
        """Return the bytes for ``chunk``: its own ``raw`` when that is of this wire, else its events, written anew."""
        ...

    def close(self, error: GatewayError | None) -> bytes:
        """Return what is still owed: the end mark, or the format's error frame and no clean end."""
        ...


class Wording(Protocol):
    """The short way of a codec for words alone, asked and answered. What it can read or write comes out as by the long way."""

    def read(self, body: bytes) -> Words | None:
        """Read a caller's request; None if it is anything more, or wrong."""
        ...

    def write(self, words: Words, facts: UpstreamFacts) -> Encoded | None:
        """Write a request of another format for a provider; None if it would lose or make up anything."""
        ...

    def read_answer(self, body: bytes, /) -> PlainAnswer | None:
        """Read a provider's whole answer; None if it is anything more, or wrong."""
        ...

    def write_answer(self, plain: PlainAnswer, context: AnswerContext, /) -> Encoded | None:
        """Write a whole answer of another format for a caller, with the losses; None: see ``encode_response``."""
        ...


class Codec(Protocol):
    """One API format. ``whole`` and ``streamed`` are its wires; the content types are header values, charset included."""

    format: str
    whole: Wire
    streamed: Wire
    content_type: str
    stream_content_type: str
    wording: Wording | None

    def for_caller(self, facts: RequestFacts) -> Codec:
        """Return the codec in the framing that this caller asked for; itself where streams have only one."""
        ...

    def peek(self, body: bytes, facts: RequestFacts) -> Peek:
        """Read what routing needs. Raises DecodeError when ``body`` is no JSON object or such a member has a wrong type."""
        ...

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        """Read a caller's request. Raises DecodeError(path, why)."""
        ...

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        """Write a request for a provider, with the losses. Raises CallerError for what the format cannot say at all."""
        ...

    def request_path(self, model: str, stream: bool) -> str:
        """The path below a base URL to which a request of this format goes."""
        ...

    def patch_request(self, body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
        """Rename the model and, if asked, request usage in the stream, in a body of this format; touch nothing else."""
        ...

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        """Read a provider's whole answer as the events of a stream. Raises UpstreamError(malformed)."""
        ...

    def outline(self, body: bytes, /) -> Outline:
        """Look at a provider's whole answer once. Raises one of ``members.BAD_JSON`` for what is no answer at all."""
        ...

    def read_usage(self, usage: Raw) -> Usage | None:
        """Read what ``outline`` found to tell the usage of a whole answer; None when there is none to be read."""
        ...

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        """Write a whole answer for a caller, with the losses."""
        ...

    def stream_decoder(self, *, hide_usage: bool = False) -> StreamDecoder:
        """A decoder for one stream. ``hide_usage`` keeps the usage frame that only we asked for out of ``raw``."""
        ...

    def stream_encoder(self, context: AnswerContext) -> StreamEncoder:
        """An encoder for one caller's stream."""
        ...

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read a provider's error response, whatever its body is; header names are lower case. Never raises."""
        ...

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        """Write an error for a caller: status, headers, body."""
        ...
