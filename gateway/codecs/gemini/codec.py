"""The codec itself: the members that base.Codec asks for, each a door into its own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from ...errors import DecodeError, GatewayError, UpstreamError
from ...ir.event import Event, Usage, Wire
from ...ir.message import Request
from ...wire.members import ARRAY as ARRAY_ITEMS
from ...wire.members import BAD_JSON
from ...wire.outline import NULL, Outline, outliner
from ...wire.surrogates import mend_raw
from ..base import AnswerContext, Encoded, Peek, RequestFacts, UpstreamFacts, Wording
from . import compose, errors, request, response
from .encoder import GeminiStreamEncoder
from .members import FORMAT
from .paths import read_path, write_path
from .stream import ARRAY, SSE, GeminiArrayDecoder, GeminiSseDecoder
from .usage import read_usage

_NOTHING: Final = Raw()


class _Peek(Struct):
    # msgspec reads Raw alone, not Raw or None.
    tools: Raw = _NOTHING
    labels: Raw = _NOTHING
    model: str | None = None
    stream: bool | None = None


_PEEK: Final = msgspec.json.Decoder(_Peek)


class _Outline(Outline):
    usage: Raw = field(default=NULL, name="usageMetadata")


_outline: Final = outliner(_Outline)


class Gemini:
    """``gemini``, the generateContent API; see base.Codec for every method.

    Its streams have two framings, and a codec speaks one of them: server-sent events, which is what a provider is always
    asked for, and the array that a caller gets who does not say ``alt=sse``. Requests and whole answers are the same in both.
    """

    format = FORMAT
    whole = Wire(FORMAT, "json")
    content_type = "application/json; charset=UTF-8"
    wording: Wording | None = None

    def __init__(self, streamed: Wire) -> None:
        self.streamed = streamed
        sse = streamed == SSE
        self.stream_content_type = "text/event-stream; charset=utf-8" if sse else self.content_type

    def for_caller(self, facts: RequestFacts) -> Gemini:
        """Return the codec in the framing that a caller asked for: an array unless the query says ``alt=sse``."""
        query = facts.query
        return CODEC if query.get("alt", query.get("$alt")) == "sse" else ARRAY_CODEC

    def peek(self, body: bytes, facts: RequestFacts) -> Peek:
        target = read_path(facts.path)
        try:
            found = _PEEK.decode(body)
        except BAD_JSON as error:
            raise _peek_error(error) from error
        if target is not None:
            model, stream = target
        elif found.model is not None:
            model, stream = found.model, bool(found.stream)
        else:
            raise DecodeError("model", "expected the name of a model, in the path")
        return Peek(model, stream, None, _told(found.tools), _told(found.labels))

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        return request.decode_request(body, facts)

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        return compose.encode_request(request, facts)

    def request_path(self, model: str, stream: bool) -> str:
        return write_path(model, stream)

    def patch_request(self, body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
        # The model is in the path, and streams always tell their usage.
        return body

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        return response.decode_response(body)

    def outline(self, body: bytes, /) -> Outline:
        """Look at a whole answer; of an array, as a streaming call may be answered, at its end."""
        if body[:1] == b"[" or body.lstrip()[:1] == b"[":
            frames = ARRAY_ITEMS.decode(body)
            body = bytes(frames[-1]) if frames else body
        return _outline(body)

    def read_usage(self, usage: Raw) -> Usage | None:
        return read_usage(mend_raw(usage))

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        return response.encode_response(events, context)

    def stream_decoder(self, *, hide_usage: bool = False) -> GeminiSseDecoder | GeminiArrayDecoder:
        # There is no usage frame of its own that could be hidden.
        return GeminiSseDecoder() if self.streamed == SSE else GeminiArrayDecoder()

    def stream_encoder(self, context: AnswerContext) -> GeminiStreamEncoder:
        return GeminiStreamEncoder(context, self.streamed)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return errors.decode_error(status, headers, body)

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        return errors.encode_error(error)


CODEC: Final = Gemini(SSE)
ARRAY_CODEC: Final = Gemini(ARRAY)


def _told(raw: Raw) -> Raw | None:
    return None if bytes(raw) == b"" or raw == NULL else raw


def _peek_error(error: Exception) -> DecodeError:
    if isinstance(error, RecursionError):
        return DecodeError("", "request body is nested too deep")
    if isinstance(error, msgspec.ValidationError):
        return DecodeError("", "request body is not a JSON object")
    return DecodeError("", f"request body is not valid JSON: {error}")
