"""Errors of Responses: response bodies, events of a stream (``error``, ``response.failed``), failed answers, and ours.

Sources: OpenAI's ``ErrorObject`` (message, type, param, code), ``ResponseErrorEvent`` and ``ResponseError`` of its SDK
3.52; compatible servers also nest the object in the event, use numbers for codes, or answer with FastAPI's ``{"detail"}``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from ...errors import STATUS, ErrorKind, GatewayError, UpstreamError, upstream_error
from ...wire.members import BAD_JSON, NULL, OBJECT, encode_json
from ...wire.sse import parse_frame
from .. import headers as response_headers
from .members import FORMAT

MAX_MESSAGE: Final = 500

_WORDS: Final[Mapping[str, ErrorKind]] = {
    "insufficient_quota": "quota",
    "insufficient_balance": "quota",
    "insufficient_credits": "quota",
    "quota_exceeded": "quota",
    "usage_limit_reached": "quota",
    "usage_not_included": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_not_active": "account_disabled",
    "account_deactivated": "account_disabled",
    "account_disabled": "account_disabled",
    "account_suspended": "account_disabled",
    "deactivated_workspace": "account_disabled",
    "context_length_exceeded": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "responsibleaipolicyviolation": "content_filter",
    "moderation_blocked": "content_filter",
    "image_content_policy_violation": "content_filter",
    "misalignment_policy_violation": "content_filter",
    "bio_policy": "content_filter",
    "cyber_policy": "content_filter",
    "invalid_api_key": "auth",
    "invalid_authentication_error": "auth",
    "authentication_error": "auth",
    "permission_error": "permission",
    "permission_denied_error": "permission",
    "model_not_found": "not_found",
    "not_found_error": "not_found",
    "resource_not_found_error": "not_found",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_reached_error": "rate_limit",
    "rate_limit_error": "rate_limit",
    "engine_overloaded_error": "overloaded",
    "engine_overloaded": "overloaded",
    "overloaded_error": "overloaded",
    "server_overloaded": "overloaded",
    "server_is_overloaded": "overloaded",
    "slow_down": "overloaded",
    "service_unavailable": "unavailable",
    "service_unavailable_error": "unavailable",
    "request_too_large": "too_large",
    "unsupported_parameter": "unsupported",
    "unsupported_value": "unsupported",
    "invalid_prompt": "invalid_request",
    "invalid_request_error": "invalid_request",
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
    "server_error": "upstream_error",
    "api_error": "upstream_error",
    "internal_server_error": "upstream_error",
    "upstream_error": "upstream_error",
}
"""``code`` or ``type`` in an error object. The code is asked first, being the narrower word."""

_BROAD: Final = frozenset({"invalid_request", "upstream_error"})
"""Kinds that a status or a message may still narrow."""

_CONTEXT: Final = re.compile(
    r"context[ _](length|window)|maximum (context|prompt|input) length|(prompt|input) is too long|too many (input )?tokens"
    r"|reduce the length of the (messages|prompt)",
    re.IGNORECASE,
)
_MESSAGES: Final[tuple[tuple[re.Pattern[str], frozenset[int], ErrorKind], ...]] = (
    (_CONTEXT, frozenset({400, 413, 422}), "context_length"),
    (
        re.compile(
            r"(account|organi[sz]ation|project|workspace|key)\b.{0,60}(deactivated|disabled|suspended)", re.IGNORECASE
        ),
        frozenset({401, 403}),
        "account_disabled",
    ),
    (
        re.compile(r"api key (not valid|expired|is invalid)|(invalid|incorrect) api key", re.IGNORECASE),
        frozenset({400}),
        "auth",
    ),
    (re.compile(r"insufficient (balance|credit|quota|fund)", re.IGNORECASE), frozenset({400, 402, 403, 429}), "quota"),
    (re.compile(r"overloaded|at capacity", re.IGNORECASE), frozenset({429, 500, 502, 503}), "overloaded"),
)
"""What only the message tells, by status: vendors that speak the format often leave the code out."""

_STATUSES: Final[Mapping[int, ErrorKind]] = {
    400: "invalid_request",
    401: "auth",
    402: "quota",
    403: "permission",
    404: "not_found",
    405: "invalid_request",
    408: "unavailable",
    409: "unavailable",
    413: "too_large",
    415: "invalid_request",
    422: "invalid_request",
    429: "rate_limit",
    498: "overloaded",
    503: "unavailable",
    504: "unavailable",
    529: "overloaded",
}
"""Beside the obvious: 402 is OpenRouter's and DeepSeek's empty purse, 498 Groq's and 529 Anthropic's lack of capacity."""

_TYPES: Final[Mapping[ErrorKind, str]] = {
    "rate_limit": "rate_limit_error",
    "quota": "insufficient_quota",
    "auth": "authentication_error",
    "account_disabled": "permission_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "context_length": "invalid_request_error",
    "content_filter": "invalid_request_error",
    "invalid_request": "invalid_request_error",
    "unsupported": "invalid_request_error",
    "too_large": "invalid_request_error",
    "upstream_error": "api_error",
}
"""OpenAI's ``type`` for a kind; what is not here is ``server_error``."""

_EVENTS: Final = frozenset({"error", "response.failed"})
"""Types of the events that tell an error, and no words for one."""

_KEY: Final = re.compile(r"\b(sk|rk|pk|gsk|xai|key|fw|hf|pplx|nvapi)[-_][\w*.-]{6,}")
"""Providers quote the key that they refuse, in part or whole; it is ours, and never the caller's to see."""


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response, whatever its body is. Never raises."""
    payload = _parse(body)
    error = _read(payload, status) if payload is not None else None
    if error is None:
        kind = _kind(status, (), "")
        error = upstream_error(kind, _describe(status, headers, body, payload), status=_shown(status, kind))
    elif error.raw is not None:
        error.raw = body
    error.retry_after_s = response_headers.retry_after_s(headers)
    error.request_id = response_headers.request_id(headers) or error.request_id
    return error


def error_in(data: bytes | Raw) -> UpstreamError | None:
    """Return the error that a frame or a whole body with status 200 tells, or None if it tells none.

    ``raw`` is left to the caller, who knows the frame.
    """
    payload = _parse(bytes(data))
    return _read(payload, None) if payload is not None else None


def _read(payload: object, status: int | None) -> UpstreamError | None:
    """``status`` is that of the HTTP response, None for an error told within a 200."""
    wrapped = isinstance(payload, list) and bool(payload)
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if not isinstance(payload, dict):
        return None
    response = payload.get("response")
    failed = payload.get("type") == "response.failed" and isinstance(response, dict)
    inner = response.get("error") if failed and isinstance(response, dict) else payload.get("error")
    if failed and inner is None:
        inner = {"message": "the provider says that the response failed"}
    # An event ``error`` has its members at the top; of a response body, only the object ``error`` is this API's own shape.
    shaped = isinstance(inner, dict) or (status is None and payload.get("type") == "error" and "message" in payload)
    if isinstance(inner, str) and inner:
        inner = {**payload, "message": inner}
    elif not isinstance(inner, dict):
        inner = payload
    message = _text(inner.get("message")) or _text(inner.get("detail")) or _text(payload.get("detail"))
    told = (inner.get("code"), inner.get("type"), inner.get("status"))
    words = [word for word in told if isinstance(word, str) and word not in _EVENTS]
    if not message and not words and not shaped:
        return None
    number = next((n for n in (inner.get("code"), inner.get("status_code")) if _is_status(n)), None)
    shown = status if status is not None else number
    kind = _kind(shown, words, message)
    secret = _KEY.search(message) is not None
    request_id = inner.get("request_id") or payload.get("request_id")
    code = inner.get("code")
    return upstream_error(
        kind,
        _KEY.sub("***", message)[:MAX_MESSAGE] or f"the provider reported an error ({', '.join(words) or shown})",
        status=_shown(shown, kind),
        code=str(code) if isinstance(code, (str, int)) else (words[0] if words else None),
        param=inner["param"] if isinstance(inner.get("param"), str) else None,
        details=None if secret else payload,
        request_id=request_id if isinstance(request_id, str) else None,
        format=FORMAT,
        raw=b"" if shaped and not wrapped and not secret else None,
    )


def _kind(status: int | None, words: list[str] | tuple[str, ...], message: str) -> ErrorKind:
    known: list[ErrorKind] = [_WORDS[word.lower()] for word in words if word.lower() in _WORDS]
    narrow: ErrorKind | None = next((kind for kind in known if kind not in _BROAD), None)
    for pattern, statuses, meant in _MESSAGES:
        if (
            (status is None or status in statuses)
            and pattern.search(message)
            and narrow in (None, "rate_limit", "auth")
        ):
            return meant
    if narrow is not None:
        return narrow
    if status is not None and status in _STATUSES:
        return _STATUSES[status]
    if status is not None and 400 <= status < 500:
        return "invalid_request"
    return known[0] if known else "upstream_error"


def _shown(status: int | None, kind: ErrorKind) -> int:
    """The status for the caller: the provider's if it is one of failure."""
    return status if _is_status(status) and status is not None else STATUS[kind]


def _is_status(value: object) -> bool:
    return isinstance(value, int) and 400 <= value <= 599


def _parse(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except BAD_JSON:
        return None


def _text(value: object) -> str:
    """A message, whatever it was given as: FastAPI's ``detail`` is an array of objects."""
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def _describe(status: int, headers: Mapping[str, str], body: bytes, payload: object) -> str:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if payload is None and body.strip() and media_type in ("", "text/plain") and not body.lstrip().startswith(b"<"):
        return _KEY.sub("***", body[: 4 * MAX_MESSAGE].decode("utf-8", "replace").strip())[:MAX_MESSAGE]
    if not body.strip():
        return f"HTTP {status} without a body"
    return f"HTTP {status} with {_a(media_type)} body"


def _a(media_type: str) -> str:
    if not media_type:
        return "an unreadable"
    return f"{'an' if media_type[0] in 'aeiou' else 'a'} {media_type}"


def encode_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Write an error response: status, headers, body. The provider's own body goes out as it came."""
    headers = {"content-type": "application/json"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return error.status, headers, own_body(error) or error_body(error, request_id)


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
    return encode_json({"error": {**told, "type": _TYPES.get(error.kind, "server_error")}})


def own_frame(error: GatewayError) -> bytes | None:
    """The event in which the provider of this very format told the error, as it came."""
    if error.format != FORMAT or error.raw is None or error.raw.lstrip().startswith(b"{"):
        return None
    return error.raw


def error_body(error: GatewayError, request_id: str) -> bytes:
    """Write the error object in OpenAI's shape; ``code`` is the kind."""
    told = {
        "message": error.message,
        "type": _TYPES.get(error.kind, "server_error"),
        "param": error.param,
        "code": error.kind,
    }
    if request_id:
        told["request_id"] = request_id
    return encode_json({"error": told})


def failure(error: GatewayError) -> dict[str, object]:
    """Return the member ``error`` of a response that failed.

    ``code`` is one of ResponseError's, or whatever the provider of this very format said; ``type`` is free.
    """
    own = error.code if error.format == FORMAT else None
    return {
        "code": own or _CODES.get(error.kind, "server_error"),
        "message": error.message,
        "param": error.param,
        "type": _TYPES.get(error.kind, "server_error"),
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
