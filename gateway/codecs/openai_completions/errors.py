"""Errors of the legacy Completions: OpenAI's error object, as a response body and as a frame within a stream.

Sources: OpenAI's ``ErrorObject`` (message, type, param, code); vLLM's older ``{"object": "error", "message", "type"}``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from ...errors import STATUS, ErrorKind, GatewayError, UpstreamError, upstream_error
from ...wire.members import BAD_JSON, OBJECT, encode_json
from ...wire.sse import parse_frame
from .. import headers as response_headers
from .words import FORMAT

MAX_MESSAGE: Final = 500

_WORDS: Final[Mapping[str, ErrorKind]] = {
    "insufficient_quota": "quota",
    "billing_not_active": "account_disabled",
    "account_deactivated": "account_disabled",
    "context_length_exceeded": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "permission_error": "permission",
    "model_not_found": "not_found",
    "not_found_error": "not_found",
    "notfounderror": "not_found",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "tokens": "rate_limit",
    "requests": "rate_limit",
    "engine_overloaded": "overloaded",
    "overloaded_error": "overloaded",
    "service_unavailable": "unavailable",
    "unsupported_parameter": "unsupported",
    "unsupported_value": "unsupported",
    "invalid_request_error": "invalid_request",
    "badrequesterror": "invalid_request",
    "server_error": "upstream_error",
    "internal_server_error": "upstream_error",
    "api_error": "upstream_error",
}
"""``code`` or ``type`` in an error object. The code is asked first, being the narrower word."""

_BROAD: Final = frozenset({"invalid_request", "upstream_error"})
"""Kinds that a status or a message may still narrow."""

_CONTEXT: Final = re.compile(
    r"context[ _](length|window)|maximum (context|prompt|input) length|(prompt|input) is too long|too many (input )?tokens"
    r"|reduce (the length of )?your prompt",
    re.IGNORECASE,
)
_OVERLOADED: Final = re.compile(r"overloaded|at capacity", re.IGNORECASE)

_STATUSES: Final[Mapping[int, ErrorKind]] = {
    400: "invalid_request",
    401: "auth",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "unavailable",
    409: "unavailable",
    413: "too_large",
    422: "invalid_request",
    429: "rate_limit",
    498: "overloaded",
    503: "unavailable",
    504: "unavailable",
    529: "overloaded",
}

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

_KEY: Final = re.compile(r"\b(sk|rk|pk|gsk|xai|key|fw|hf|pplx|nvapi)[-_][\w*.-]{6,}")
"""Providers quote the key that they refuse, in part or whole; it is ours, and never the caller's to see."""


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response, whatever its body is. Never raises."""
    error = _read(body, status)
    if error is None:
        kind = _kind(status, [], "")
        error = upstream_error(kind, _describe(status, headers, body), status=_shown(status, kind))
    elif error.raw is not None:
        error.raw = body
    error.retry_after_s = response_headers.retry_after_s(headers)
    error.request_id = response_headers.request_id(headers)
    return error


def error_in(data: bytes) -> UpstreamError | None:
    """Return the error that a frame or a whole body with status 200 tells, None for none. ``raw`` is left to the caller."""
    return _read(data, None)


def _read(data: bytes, status: int | None) -> UpstreamError | None:
    try:
        payload = msgspec.json.decode(data)
    except BAD_JSON:
        return None
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if not isinstance(payload, dict):
        return None
    inner = payload.get("error")
    shaped = isinstance(inner, dict)
    if isinstance(inner, str):
        inner = {**payload, "message": inner}
    elif not isinstance(inner, dict):
        inner = payload
    told = inner.get("message") or inner.get("detail")
    message = told if isinstance(told, str) else "" if told is None else msgspec.json.encode(told).decode()
    words = [word for word in (inner.get("code"), inner.get("type")) if isinstance(word, str)]
    if not message and not words and not shaped:
        return None
    number = inner.get("code")
    if status is None and isinstance(number, int) and 400 <= number <= 599:
        status = number
    kind = _kind(status, words, message)
    secret = _KEY.search(message) is not None
    return upstream_error(
        kind,
        _KEY.sub("***", message)[:MAX_MESSAGE] or f"the provider reported an error ({', '.join(words) or status})",
        status=_shown(status, kind),
        code=str(number) if isinstance(number, (str, int)) else (words[0] if words else None),
        param=inner["param"] if isinstance(inner.get("param"), str) else None,
        details=None if secret else payload,
        format=FORMAT,
        raw=b"" if shaped and not secret else None,
    )


def _kind(status: int | None, words: list[str], message: str) -> ErrorKind:
    known: list[ErrorKind] = [_WORDS[word.lower()] for word in words if word.lower() in _WORDS]
    narrow: ErrorKind | None = next((kind for kind in known if kind not in _BROAD), None)
    if narrow is not None:
        return narrow
    if status in (None, 400, 413, 422) and _CONTEXT.search(message):
        return "context_length"
    if status in (None, 429, 500, 502, 503) and _OVERLOADED.search(message):
        return "overloaded"
    if status is not None and status in _STATUSES:
        return _STATUSES[status]
    if status is not None and 400 <= status < 500:
        return "invalid_request"
    return known[0] if known else "upstream_error"


def _shown(status: int | None, kind: ErrorKind) -> int:
    """The status for the caller: the provider's if it is one of failure."""
    return status if status is not None and 400 <= status <= 599 else STATUS[kind]


def _describe(status: int, headers: Mapping[str, str], body: bytes) -> str:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body.strip() and media_type in ("", "text/plain") and not body.lstrip().startswith((b"<", b"{", b"[")):
        return _KEY.sub("***", body[: 4 * MAX_MESSAGE].decode("utf-8", "replace").strip())[:MAX_MESSAGE]
    if not body.strip():
        return f"HTTP {status} without a body"
    return f"HTTP {status} with a body of {media_type or 'no known type'}"


def encode_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Write an error response: status, headers, body. The provider's own body goes out as it came."""
    headers = {"content-type": "application/json"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return error.status, headers, own_body(error) or error_body(error, request_id)


def error_frame(error: GatewayError, request_id: str) -> bytes:
    """Write the frame that ends a stream with an error."""
    if error.format == FORMAT and error.raw and not error.raw.lstrip().startswith(b"{"):
        return error.raw
    body = own_body(error)
    if body is not None and (b"\n" in body or b"\r" in body):
        body = msgspec.json.format(body, indent=-1)
    return b"data: %b\n\n" % (body or error_body(error, request_id))


def own_body(error: GatewayError) -> bytes | None:
    """The error body of this very format that the provider sent; taken out of its frame when it came in a stream."""
    if error.format != FORMAT or not error.raw:
        return None
    raw = error.raw.strip()
    if raw.startswith(b"{"):
        return error.raw
    _, data = parse_frame(raw)
    try:
        inner = OBJECT.decode(data or b"").get("error")
    except BAD_JSON:
        return None
    return None if inner is None else b'{"error":%b}' % bytes(inner)


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
