"""The codecs of Ollama's API: one class, two formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...errors import GatewayError, UpstreamError
from ...ir.event import Event, Usage, Wire
from ...ir.message import Request
from ...wire.members import BAD_JSON, NULL, encode_json, fault
from ...wire.outline import Outline, outline
from ...wire.patch import set_member
from ...wire.surrogates import mend_raw
from ..base import AnswerContext, Encoded, Peek, RequestFacts, UpstreamFacts, Wording
from . import answer_writer, errors, request_reader, request_writer
from .answer_reader import AnswerReader
from .stream_decoder import OllamaStreamDecoder
from .stream_encoder import OllamaStreamEncoder
from .usage import read_usage
from .words import CHAT, GENERATE

PATHS: Final = {CHAT: "/api/chat", GENERATE: "/api/generate"}


class _Peek(Struct):
    model: str
    stream: bool | None = None
    tools: Raw = NULL


_PEEK: Final = msgspec.json.Decoder(_Peek)


class Ollama:
    """Stateless; implements ``codecs.base.Codec`` for ``ollama.chat`` or ``ollama.generate``."""

    content_type: str = "application/json; charset=utf-8"
    stream_content_type: str = "application/x-ndjson"
    wording: Wording | None = None

    def __init__(self, format: str) -> None:
        self.format = format
        self.whole = Wire(format, "json")
        self.streamed = Wire(format, "ndjson")

    def for_caller(self, facts: RequestFacts) -> Ollama:
        return self

    def peek(self, body: bytes, facts: RequestFacts) -> Peek:
        """Read what routing needs; a request that does not say ``stream`` wants one."""
        try:
            seen = _PEEK.decode(body)
        except BAD_JSON as error:
            raise fault(error) from error
        return Peek(seen.model, seen.stream is not False, None, None if seen.tools == NULL else seen.tools)

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        read = request_reader.decode_chat if self.format == CHAT else request_reader.decode_generate
        return read(body)

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        body, losses = request_writer.encode_request(request, facts, self.format)
        return Encoded(body, PATHS[self.format], losses=losses)

    def request_path(self, model: str, stream: bool) -> str:
        return PATHS[self.format]

    def patch_request(self, body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
        # Streams of this API always tell their usage.
        if model is None or model == peek.model:
            return body
        return set_member(body, "model", encode_json(model))

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        return AnswerReader(self.format).whole(body)

    def outline(self, body: bytes, /) -> Outline:
        """Look at a whole answer, whose usage is no member of it, but several."""
        told = outline(body)
        told.usage = Raw(body)
        return told

    def read_usage(self, usage: Raw) -> Usage | None:
        return read_usage(mend_raw(usage), self.format)

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        return answer_writer.encode_response(events, context, self.format)

    def stream_decoder(self, *, hide_usage: bool = False) -> OllamaStreamDecoder:
        # There is no usage line of its own that could be hidden.
        return OllamaStreamDecoder(self.format)

    def stream_encoder(self, context: AnswerContext) -> OllamaStreamEncoder:
        return OllamaStreamEncoder(context, self.format)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return errors.decode_error(status, headers, body, self.format)

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        return errors.encode_error(error)
