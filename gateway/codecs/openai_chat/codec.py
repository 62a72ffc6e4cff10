"""The codec of OpenAI's Chat Completions API, and of the many that speak it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw

from ...errors import GatewayError, UpstreamError
from ...ir.event import Event, Usage, Wire
from ...ir.message import Request
from ...wire.outline import outline
from ...wire.surrogates import mend_raw
from ..base import AnswerContext, Encoded, RequestFacts, UpstreamFacts, Wording
from ..openai_request import patch_request
from . import errors, request_reader, request_writer, response
from .members import FORMAT
from .peek import peek_request
from .stream_decoder import STREAMED, ChatStreamDecoder
from .stream_encoder import ChatStreamEncoder
from .usage import read_usage
from .wording import PATH, WORDING


class OpenAIChat:
    """Stateless; implements ``codecs.base.Codec``."""

    format: str = FORMAT
    whole: Wire = Wire(FORMAT, "json")
    streamed: Wire = STREAMED
    content_type: str = "application/json"
    stream_content_type: str = "text/event-stream"
    wording: Wording | None = WORDING

    def for_caller(self, facts: RequestFacts) -> OpenAIChat:
        return self

    peek = staticmethod(peek_request)

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        return request_reader.decode_request(body)

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        body, losses = request_writer.encode_request(request, facts)
        return Encoded(body, PATH, losses=losses)

    def request_path(self, model: str, stream: bool) -> str:
        return PATH

    patch_request = staticmethod(patch_request)

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        return response.decode_response(body)

    outline = staticmethod(outline)

    def read_usage(self, usage: Raw) -> Usage | None:
        return read_usage(mend_raw(usage))

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        return response.encode_response(events, context)

    def stream_decoder(self, *, hide_usage: bool = False) -> ChatStreamDecoder:
        return ChatStreamDecoder(hide_usage=hide_usage)

    def stream_encoder(self, context: AnswerContext) -> ChatStreamEncoder:
        return ChatStreamEncoder(context)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return errors.decode_error(status, headers, body)

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        return errors.encode_error(error, request_id)
