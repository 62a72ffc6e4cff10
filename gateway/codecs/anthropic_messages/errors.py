"""Errors both ways: ``{"type": "error", "error": {"type", "message"}, "request_id"}``.

Source: the API's "Errors" page and the SDK's ``types/shared/error_type.py`` (2.11). An error for a caller also carries
``error.code``, our kind: a client that does not know it ignores it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from ...errors import ErrorKind, GatewayError, UpstreamError, upstream_error
from ...wire.sse import parse_frame
from ..headers import request_id as read_request_id
from ..headers import retry_after_s
from .members import BAD_JSON, FORMAT

_KINDS: Final[Mapping[str, ErrorKind]] = {
    "invalid_request_error": "invalid_request",
    "authentication_error": "auth",
    "billing_error": "quota",
    "permission_error": "permission",
    "not_found_error": "not_found",
    "request_too_large": "too_large",
    "rate_limit_error": "rate_limit",
    "timeout_error": "timeout.total",
    "api_error": "upstream_error",
    "overloaded_error": "overloaded",
    "conflict_error": "invalid_request",
    "memory_precondition_failed_error": "invalid_request",
    "memory_path_conflict_error": "invalid_request",
}
_DETAILS: Final[Mapping[str, ErrorKind]] = {
    "contract_spend_limit_reached": "quota",
    "enforced_spend_limit_reached": "quota",
    "linked_organization_spend_limit_reached": "quota",
    "linked_organization_billing_unavailable": "quota",
    "organization_on_hold": "account_disabled",
    "request_body_too_large_after_decoding": "too_large",
}
"""What ``error.details.error_code`` says more precisely. Source: ``types/shared/*_error_details.py``."""

_STATUSES: Final[Mapping[int, ErrorKind]] = {
    400: "invalid_request",
    401: "auth",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout.total",
    409: "invalid_request",
    413: "too_large",
    415: "invalid_request",
    422: "invalid_request",
    429: "rate_limit",
    502: "unavailable",
    503: "unavailable",
    504: "timeout.total",
    529: "overloaded",
}
_PHRASES: Final[tuple[tuple[str, ErrorKind], ...]] = (
    ("prompt is too long", "context_length"),
    ("exceed context limit", "context_length"),
    ("exceeds the context window", "context_length"),
    ("credit balance is too low", "quota"),
    ("organization has been disabled", "account_disabled"),
    ("blocked by content filtering", "content_filter"),
)
"""How the message of an ``invalid_request_error`` (or a 403) tells what it really is."""

_WORDS: Final[Mapping[ErrorKind, str]] = {
    "rate_limit": "rate_limit_error",
    "quota": "billing_error",
    "overloaded": "overloaded_error",
    "auth": "authentication_error",
    "account_disabled": "permission_error",
    "permission": "permission_error",
    "not_found": "not_found_error",
    "context_length": "invalid_request_error",
    "content_filter": "invalid_request_error",
    "invalid_request": "invalid_request_error",
    "unsupported": "invalid_request_error",
    "too_large": "request_too_large",
    "timeout.connect": "timeout_error",
    "timeout.pool": "timeout_error",
    "timeout.write": "timeout_error",
    "timeout.first_token": "timeout_error",
    "timeout.idle": "timeout_error",
    "timeout.total": "timeout_error",
}
_OVERLOADED: Final = 529
_MAX_MESSAGE: Final = 500


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response of any shape. Never raises."""
    found = _read(body)
    by_status = _STATUSES.get(status)
    fallback: ErrorKind = by_status or ("invalid_request" if 400 <= status < 500 else "upstream_error")
    if found is None:
        word = headers.get("content-type", "").split(";")[0].strip() or "unknown"
        what = f"a {word} body" if body.strip() else "an empty body"
        found = _Found(fallback, f"HTTP {status} with {what}")
    kind = found.kind or fallback
    if kind in ("invalid_request", "upstream_error"):
        kind = fallback  # a status such as 413 says more than these general words
    return upstream_error(
        kind,
        found.message or f"HTTP {status}",
        status=status,
        code=found.code,
        details=found.details,
        retry_after_s=retry_after_s(headers),
        request_id=read_request_id(headers) or found.request_id,
        format=FORMAT if found.own else "",
        raw=body if found.own else None,
    )


def in_band_error(data: bytes, raw: bytes) -> UpstreamError | None:
    """Read an error that came inside a 200: ``data`` is its JSON, ``raw`` its bytes. None if it is no error object."""
    found = _read(data)
    if found is None:
        return None
    return upstream_error(
        found.kind or "upstream_error",
        found.message or "the provider broke off with an error",
        code=found.code,
        details=found.details,
        request_id=found.request_id,
        format=FORMAT if found.own else "",
        raw=raw if found.own else None,
    )


def encode_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Write an error for a caller: status, headers, body."""
    headers = {"content-type": "application/json"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(0, math.ceil(error.retry_after_s)))
    if error.kind == "overloaded":
        status = _OVERLOADED  # what this API's clients back off for
    else:
        status = error.status if error.status >= 400 else 502
    return status, headers, error_body(error, request_id)


def error_body(error: GatewayError, request_id: str) -> bytes:
    """The JSON of an error: the provider's own if it is of this format, else ours."""
    if error.format == FORMAT and error.raw is not None:
        if error.raw.lstrip().startswith(b"{"):
            return error.raw
        data = parse_frame(error.raw.strip())[1]
        if data is not None:
            return data.strip()
    inner = {"type": _WORDS.get(error.kind, "api_error"), "message": error.message, "code": error.kind}
    body: dict[str, object] = {"type": "error", "error": inner}
    if error.request_id or request_id:
        body["request_id"] = error.request_id or request_id
    return msgspec.json.encode(body)


def error_frame(error: GatewayError, request_id: str) -> bytes:
    """The error as an event of a stream; the provider's own frame as it came."""
    raw = error.raw
    if error.format == FORMAT and raw is not None and not raw.lstrip().startswith(b"{"):
        return raw
    return b"event: error\ndata: %b\n\n" % msgspec.json.format(error_body(error, request_id), indent=-1)


class _Found(NamedTuple):
    """What an error body says; ``own`` if it has exactly this format's shape."""

    kind: ErrorKind | None
    message: str
    code: str | None = None
    details: object = None
    request_id: str | None = None
    own: bool = False


def _read(body: bytes) -> _Found | None:
    try:
        whole = msgspec.json.decode(body, type=dict[str, object])
    except BAD_JSON:
        return None
    error, id = whole.get("error"), whole.get("request_id")
    request_id = id if isinstance(id, str) else None
    if not isinstance(error, dict):
        text = error if isinstance(error, str) else whole.get("message") or whole.get("detail")
        if not isinstance(text, str):
            return None
        return _Found(_phrase(text), text[:_MAX_MESSAGE], None, whole, request_id)
    word, message, details = error.get("type"), error.get("message"), error.get("details")
    own = isinstance(word, str) and isinstance(message, str) and whole.get("type") == "error"
    text = message[:_MAX_MESSAGE] if isinstance(message, str) else ""
    kind = _KINDS.get(word) if isinstance(word, str) else None
    code = details.get("error_code") if isinstance(details, dict) else None
    if isinstance(code, str) and code in _DETAILS:
        kind = _DETAILS[code]
    elif kind in (None, "invalid_request", "permission"):
        kind = _phrase(text) or kind
    if not isinstance(code, str):
        code = word if isinstance(word, str) else None
    return _Found(kind, text, code, whole, request_id, own)


def _phrase(message: str) -> ErrorKind | None:
    lower = message.lower()
    return next((kind for phrase, kind in _PHRASES if phrase in lower), None)
