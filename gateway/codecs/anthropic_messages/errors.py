"""Errors both ways: ``{"type": "error", "error": {"type", "message"}, "request_id"}``.

Source: the API's "Errors" page and the SDK's ``types/shared/error_type.py`` (2.11). An error for a caller also carries
``error.code``, our kind: a client that does not know it ignores it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ...errors import CallerError, ErrorKind, GatewayError, UpstreamError
from ...wire.sse import parse_frame
from ..failures import MAX_MESSAGE, STATUSES, Found, error_headers, told_by_response, told_in_band
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
    **STATUSES,
    408: "timeout.total",
    502: "unavailable",
    504: "timeout.total",
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


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response of any shape. Never raises."""
    return told_by_response(_read(body), (status, headers, body), FORMAT, _STATUSES)


def in_band_error(data: bytes, raw: bytes) -> UpstreamError | None:
    """Read an error that came inside a 200: ``data`` is its JSON, ``raw`` its bytes. None if it is no error object."""
    return told_in_band(_read(data), raw, FORMAT)


def encode_error(error: GatewayError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Write an error for a caller: status, headers, body."""
    if error.kind == "overloaded":
        status = _OVERLOADED  # what this API's clients back off for
    else:
        status = error.status if error.status >= 400 else 502
    return status, error_headers(error), error_body(error, request_id)


def error_body(error: GatewayError, request_id: str) -> bytes:
    """The JSON of an error: the provider's own if it is of this format, else ours."""
    if error.format == FORMAT and error.raw is not None:
        if error.raw.lstrip().startswith(b"{"):
            return error.raw
        data = parse_frame(error.raw.strip())[1]
        if data is not None:
            return data.strip()
    inner: dict[str, object] = {"type": _WORDS.get(error.kind, "api_error"), "message": error.message}
    if error.details is not None and isinstance(error, CallerError):
        inner["details"] = error.details
    inner["code"] = error.kind
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


def _read(body: bytes) -> Found | None:
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
        return Found(_phrase(text), text[:MAX_MESSAGE], details=whole, request_id=request_id)
    word, message, details = error.get("type"), error.get("message"), error.get("details")
    own = isinstance(word, str) and isinstance(message, str) and whole.get("type") == "error"
    text = message[:MAX_MESSAGE] if isinstance(message, str) else ""
    kind = _KINDS.get(word) if isinstance(word, str) else None
    code = details.get("error_code") if isinstance(details, dict) else None
    if isinstance(code, str) and code in _DETAILS:
        kind = _DETAILS[code]
    elif kind in (None, "invalid_request", "permission"):
        kind = _phrase(text) or kind
    if not isinstance(code, str):
        code = word if isinstance(word, str) else None
    return Found(kind, text, code, whole, request_id=request_id, own=own)


def _phrase(message: str) -> ErrorKind | None:
    lower = message.lower()
    return next((kind for phrase, kind in _PHRASES if phrase in lower), None)
