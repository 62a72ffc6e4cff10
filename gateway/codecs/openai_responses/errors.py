"""Errors of Responses: response bodies, events of a stream (``error``, ``response.failed``), failed answers, and ours.

Sources: OpenAI's ``ResponseErrorEvent`` and ``ResponseError`` of its SDK 3.52; compatible servers also nest the object in
the event, use numbers for codes, or answer with FastAPI's ``{"detail"}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Raw

from ...errors import ErrorKind, GatewayError
from ...wire.members import BAD_JSON, NULL, OBJECT, encode_json
from ...wire.sse import parse_frame
from .. import openai_errors
from ..openai_errors import WORDS, ErrorReader, type_of
from .members import FORMAT

_WORDS: Final[Mapping[str, ErrorKind]] = {
    **WORDS,
    "usage_limit_reached": "quota",
    "usage_not_included": "quota",
    "image_content_policy_violation": "content_filter",
    "misalignment_policy_violation": "content_filter",
    "bio_policy": "content_filter",
    "cyber_policy": "content_filter",
    "server_is_overloaded": "overloaded",
    "slow_down": "overloaded",
    "invalid_prompt": "invalid_request",
    "data_residency_mismatch": "permission",
    "vector_store_timeout": "unavailable",
    **dict.fromkeys(
        (
            *("invalid_image", "invalid_image_format", "invalid_base64_image", "invalid_image_url", "image_too_large"),
            *("image_too_small", "image_parse_error", "invalid_image_mode", "image_file_too_large", "empty_image_file"),
            *("unsupported_image_media_type", "failed_to_download_image", "image_file_not_found"),
        ),
        "invalid_request",
    ),
}
"""Beside OpenAI's common words, those of this API."""

_EVENTS: Final = frozenset({"error", "response.failed"})
"""Types of the events that tell an error, and no words for one."""


class _Reader(ErrorReader):
    def object_in(self, payload: dict[str, Any], status: int | None) -> tuple[object, bool]:
        """Look into events too.

        An event ``error`` has its members at the top; of a response body, only the object ``error`` is this API's own shape.
        """
        inner, response = payload.get("error"), payload.get("response")
        if payload.get("type") == "response.failed" and isinstance(response, dict):
            inner = response.get("error")
            if inner is None:
                inner = {"message": "the provider says that the response failed"}
        at_the_top = status is None and payload.get("type") == "error" and "message" in payload
        return inner, isinstance(inner, dict) or at_the_top

    def is_word(self, word: str) -> bool:
        return word not in _EVENTS


_READER: Final = _Reader(FORMAT, _WORDS)
decode_error: Final = _READER.decode_error
error_in: Final = _READER.error_in


def encode_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Write an error response: status, headers, body. The provider's own body goes out as it came."""
    return openai_errors.encode_error(error, request_id, own_body(error))


def own_body(error: GatewayError) -> bytes | None:
    """The error body of this very format that the provider sent; taken out of its event when it came in a stream."""
    if error.format != FORMAT or not error.raw:
        return None
    raw = error.raw.strip()
    data = raw if raw.startswith(b"{") else parse_frame(raw)[1] or b""
    try:
        whole = OBJECT.decode(data)
        if "response" in whole:
            whole = OBJECT.decode(whole["response"])
    except BAD_JSON:
        return None
    inner = whole.get("error")
    if raw.startswith(b"{") and "output" not in whole:
        return error.raw if inner is not None else None
    if inner is not None and inner != NULL:
        return b'{"error":%b}' % bytes(inner)
    if whole.get("type") != Raw(b'"error"') or "message" not in whole:
        return None
    told = {name: whole.get(name, NULL) for name in ("message", "param", "code")}
    return encode_json({"error": {**told, "type": type_of(error.kind)}})


def own_frame(error: GatewayError) -> bytes | None:
    """The event in which the provider of this very format told the error, as it came."""
    if error.format != FORMAT or error.raw is None or error.raw.lstrip().startswith(b"{"):
        return None
    return error.raw


def failure(error: GatewayError) -> dict[str, object]:
    """Return the member ``error`` of a response that failed.

    ``code`` is one of ResponseError's, or whatever the provider of this very format said; ``type`` is free.
    """
    own = error.code if error.format == FORMAT else None
    return {
        "code": own or _CODES.get(error.kind, "server_error"),
        "message": error.message,
        "param": error.param,
        "type": type_of(error.kind),
    }


_CODES: Final[Mapping[ErrorKind, str]] = {
    "rate_limit": "rate_limit_exceeded",
    "quota": "rate_limit_exceeded",
    "context_length": "invalid_prompt",
    "content_filter": "invalid_prompt",
    "invalid_request": "invalid_prompt",
    "unsupported": "invalid_prompt",
    "too_large": "invalid_prompt",
}
"""``code`` for a kind: the API's list is closed (ResponseError of OpenAI's SDK 3.52), so most have only a neighbour there.

The rest is ``server_error``. Clients decide by it whether to ask again: not after ``invalid_prompt``."""
