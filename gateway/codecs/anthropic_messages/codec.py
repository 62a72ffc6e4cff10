"""The codec itself: the members that base.Codec asks for, each a door into its own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...errors import DecodeError, GatewayError, UpstreamError
from ...ir.event import Event, Usage, Wire
from ...ir.message import NO_EXTRA, Request
from ...wire.outline import outline
from ...wire.patch import set_member
from ...wire.surrogates import mend_raw
from ..base import AnswerContext, Encoded, Peek, RequestFacts, UpstreamFacts, Wording
from . import compose, errors, request, response
from .encoder import MessagesStreamEncoder
from .members import BAD_JSON, FORMAT, NULL
from .stream import WIRE, MessagesStreamDecoder
from .usage import read_usage
from .wording import PATH, WORDING

_NOTHING: Final = Raw()


class _Peek(Struct):
    model: str
    stream: bool | None = False
    # msgspec reads Raw alone, not Raw or None.
    tools: Raw = _NOTHING
    metadata: Raw = _NOTHING


_PEEK: Final = msgspec.json.Decoder(_Peek)


class AnthropicMessages:
    """``anthropic.messages``, in both API versions (2023-06-01 and 2026-10-21); see base.Codec for every method.

    The versions have the same bodies; the later one refuses sampling parameters, documents in assistant turns and
    citations on a user's text. ``encode_request`` says by header which one is meant.
    """

    format = FORMAT
    whole = Wire(FORMAT, "json")
    streamed = WIRE
    content_type = "application/json"
    stream_content_type = "text/event-stream; charset=utf-8"
    wording: Wording | None = WORDING

    def for_caller(self, facts: RequestFacts) -> AnthropicMessages:
        return self

    def peek(self, body: bytes, facts: RequestFacts) -> Peek:
        try:
            found = _PEEK.decode(body)
        except BAD_JSON as error:
            raise _peek_error(body, error) from error
        return Peek(found.model, bool(found.stream), None, _told(found.tools), _told(found.metadata))

    def decode_request(self, body: bytes, facts: RequestFacts) -> Request:
        return request.decode_request(body)

    def encode_request(self, request: Request, facts: UpstreamFacts) -> Encoded:
        return compose.encode_request(request, facts)

    def request_path(self, model: str, stream: bool) -> str:
        return PATH

    def patch_request(self, body: bytes, peek: Peek, *, model: str | None, stream_usage: bool) -> bytes:
        # Streams of this format always tell their usage.
        if model is None or model == peek.model:
            return body
        return set_member(body, "model", msgspec.json.encode(model))

    def decode_response(self, body: bytes) -> tuple[Event, ...]:
        return response.decode_response(body)

    outline = staticmethod(outline)

    def read_usage(self, usage: Raw) -> Usage | None:
        return read_usage(mend_raw(usage), NO_EXTRA)

    def encode_response(self, events: Sequence[Event], context: AnswerContext) -> Encoded:
        return response.encode_response(events, context)

    def stream_decoder(self, *, hide_usage: bool = False) -> MessagesStreamDecoder:
        # There is no usage frame of its own that could be hidden.
        return MessagesStreamDecoder()

    def stream_encoder(self, context: AnswerContext) -> MessagesStreamEncoder:
        return MessagesStreamEncoder(context)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return errors.decode_error(status, headers, body)

    def encode_error(self, error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
        return errors.encode_error(error, request_id)


def _told(raw: Raw) -> Raw | None:
    return None if bytes(raw) in (b"", NULL) else raw


def _peek_error(body: bytes, error: Exception) -> DecodeError:
    """Why ``body`` could not be peeked into, by the member that is wrong."""
    if isinstance(error, RecursionError):
        return DecodeError("", "request body is nested too deep")
    if not isinstance(error, msgspec.ValidationError):
        return DecodeError("", f"request body is not valid JSON: {error}")
    try:
        members = msgspec.json.decode(body, type=dict[str, Raw])
    except BAD_JSON:
        return DecodeError("", "request body is not a JSON object")
    if not bytes(members.get("model", b"")).startswith(b'"'):
        return DecodeError("model", "expected a string" + ("" if "model" in members else ", but it is missing"))
    return DecodeError("stream", "expected true or false")
