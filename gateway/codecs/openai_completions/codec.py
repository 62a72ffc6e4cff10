"""The codec of OpenAI's legacy Completions API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...errors import GatewayError, UpstreamError
from ...ir.event import Event, Usage, Wire
from ...ir.message import Request
from ...wire.members import BAD_JSON, fault
from ...wire.outline import outline
from ...wire.surrogates import mend_raw
from ..base import AnswerContext, Encoded, Peek, RequestFacts, UpstreamFacts, Wording
from ..openai_request import patch_request
from . import answer_writer, compose, errors, request
from .answer_reader import AnswerReader
from .stream_decoder import STREAMED, CompletionsStreamDecoder
from .stream_encoder import CompletionsStreamEncoder
from .usage import read_usage
from .words import FORMAT

PATH: Final = "/completions"


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Peek(Struct):
    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


_PEEK: Final = msgspec.json.Decoder(_Peek)


class OpenAICompletions:
    """Stateless; implements ``codecs.base.Codec``."""

    format: str = FORMAT
    whole: Wire = Wire(FORMAT, "json")
    streamed: Wire = STREAMED
    content_type: str = "application/json"
    stream_content_type: str = "text/event-stream"
    wording: Wording | None = None

    def for_caller(self, facts: RequestFacts) -> OpenAICompletions:
        return self

    def peek(self, body: bytes, facts: RequestFacts) -> Peek:
        try:
            seen = _PEEK.decode(body)
        except BAD_JSON as error:
            raise fault(error) from error
        options = seen.stream_options
        return Peek(seen.model, seen.stream is True, None if options is None else options.include_usage)

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        return request.decode_request(body)

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        body, losses = compose.encode_request(request, facts)
        return Encoded(body, PATH, losses=losses)

    def request_path(self, model: str, stream: bool) -> str:
        return PATH

    def patch_request(self, body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
        return patch_request(body, peek, model=model, stream_usage=stream_usage)

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        return AnswerReader().whole(body)

    outline = staticmethod(outline)

    def read_usage(self, usage: Raw) -> Usage | None:
        return read_usage(mend_raw(usage))

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        return answer_writer.encode_response(events, context)

    def stream_decoder(self, *, hide_usage: bool = False) -> CompletionsStreamDecoder:
        return CompletionsStreamDecoder(hide_usage=hide_usage)

    def stream_encoder(self, context: AnswerContext) -> CompletionsStreamEncoder:
        return CompletionsStreamEncoder(context)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return errors.decode_error(status, headers, body)

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        return errors.encode_error(error, request_id)
