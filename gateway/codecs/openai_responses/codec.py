"""The codec itself: the members that base.Codec asks for, each a door into its own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...errors import GatewayError, UpstreamError
from ...ir.event import Event, Usage, Wire
from ...ir.message import Request
from ...wire.members import BAD_JSON, NULL, encode_json, fault
from ...wire.outline import outline
from ...wire.patch import set_member
from ...wire.surrogates import mend_raw
from ..base import AnswerContext, Encoded, Peek, RequestFacts, UpstreamFacts, Wording
from . import errors, request_reader, request_writer, response
from .members import FORMAT
from .stream_decoder import ResponsesStreamDecoder
from .stream_encoder import STREAMED, ResponsesStreamEncoder
from .usage import read_usage

PATH: Final = "/responses"


class _Peek(Struct):
    model: str
    stream: bool | None = None
    # msgspec reads Raw alone, not Raw or None.
    tools: Raw = NULL
    metadata: Raw = NULL


_PEEK: Final = msgspec.json.Decoder(_Peek)


class OpenAIResponses:
    """Stateless; see base.Codec for every method."""

    format: str = FORMAT
    whole: Wire = Wire(FORMAT, "json")
    streamed: Wire = STREAMED
    content_type: str = "application/json"
    stream_content_type: str = "text/event-stream; charset=utf-8"
    wording: Wording | None = None

    def for_caller(self, facts: RequestFacts) -> OpenAIResponses:
        return self

    def peek(self, body: bytes, facts: RequestFacts) -> Peek:
        try:
            seen = _PEEK.decode(body)
        except BAD_JSON as error:
            raise fault(error) from error
        tools = None if seen.tools == NULL else seen.tools
        return Peek(seen.model, seen.stream is True, None, tools, None if seen.metadata == NULL else seen.metadata)

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        return request_reader.decode_request(body)

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        body, losses = request_writer.encode_request(request, facts)
        return Encoded(body, PATH, losses=losses)

    def request_path(self, model: str, stream: bool) -> str:
        return PATH

    def patch_request(self, body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
        # Streams of this format always tell their usage.
        if model is None or model == peek.model:
            return body
        return set_member(body, "model", encode_json(model))

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        return response.decode_response(body)

    outline = staticmethod(outline)

    def read_usage(self, usage: Raw) -> Usage | None:
        return read_usage(mend_raw(usage))

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        return response.encode_response(events, context)

    def stream_decoder(self, *, hide_usage: bool = False) -> ResponsesStreamDecoder:
        # There is no usage frame of its own that could be hidden.
        return ResponsesStreamDecoder()

    def stream_encoder(self, context: AnswerContext) -> ResponsesStreamEncoder:
        return ResponsesStreamEncoder(context)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return errors.decode_error(status, headers, body)

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        return errors.encode_error(error, request_id)
