"""What stands in the place of a codec for calls that are passed on: it names their format and writes errors, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from msgspec import Raw

from ..codecs.anthropic_messages import CODEC as ANTHROPIC_MESSAGES
from ..codecs.base import (
    AnswerContext,
    Codec,
    Encoded,
    Peek,
    RequestFacts,
    StreamDecoder,
    StreamEncoder,
    UpstreamFacts,
    Wording,
)
from ..codecs.gemini import CODEC as GEMINI_CODEC
from ..codecs.openai_chat import CODEC as OPENAI_CHAT
from ..errors import GatewayError, Unsupported, UpstreamError
from ..ir.event import Event, Usage, Wire
from ..ir.message import Request
from ..wire.members import encode_json
from ..wire.outline import Outline
from . import paths
from .request import json_model


class PassingCodec:
    """Its requests are read by nobody: a middleware that must look into them refuses the call with that."""

    wording: Wording | None = None
    content_type: str = "application/json"
    stream_content_type: str = "application/json"

    def __init__(self, format: str, vendor: Codec) -> None:
        self.format = format
        self._vendor = vendor
        self.whole = self.streamed = Wire(format, "bytes")

    def for_caller(self, facts: RequestFacts) -> PassingCodec:
        """Itself."""
        return self

    def peek(self, body: bytes, facts: RequestFacts) -> Peek:
        """Read the model, if it is told by the path or by a JSON body; never raises."""
        return Peek(paths.model_at(facts.path) or json_model(body))

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        """Raise Unsupported."""
        self._never()

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        """Write a body that names the model, for tests of rules."""
        return Encoded(encode_json({"model": request.model}))

    def request_path(self, model: str, stream: bool) -> str:
        """Raise Unsupported."""
        self._never()

    def patch_request(self, body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
        """Raise Unsupported."""
        self._never()

    def outline(self, body: bytes, /) -> Outline:
        """Raise Unsupported."""
        self._never()

    def read_usage(self, usage: Raw) -> Usage | None:
        """Nothing is read."""
        return None

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        """Raise Unsupported."""
        self._never()

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        """Raise Unsupported."""
        self._never()

    def stream_decoder(self, *, hide_usage: bool = False) -> StreamDecoder:
        """Raise Unsupported."""
        self._never()

    def stream_encoder(self, context: AnswerContext) -> StreamEncoder:
        """Raise Unsupported."""
        self._never()

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read a provider's error, as its codec does."""
        return self._vendor.decode_error(status, headers, body)

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        """Write an error, as the API's codec does."""
        return self._vendor.encode_error(error, request_id)

    def _never(self) -> NoReturn:
        raise Unsupported(f"{self.format} is passed on as it comes: nothing here reads or writes it", status=501)


OPENAI: Final = PassingCodec(paths.OPENAI, OPENAI_CHAT)
ANTHROPIC: Final = PassingCodec(paths.ANTHROPIC, ANTHROPIC_MESSAGES)
GEMINI: Final = PassingCodec(paths.GEMINI, GEMINI_CODEC)
