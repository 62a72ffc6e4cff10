"""Errors both ways: ``{"error": {"code", "message", "status", "details"}}``, in an array where the answer is one.

Source: google.rpc.Status and google/rpc/error_details.proto, and the API's "Troubleshooting" page. An error for a caller
carries our kind as the ``reason`` of an ErrorInfo of the domain ``headgate``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from ...errors import ErrorKind, GatewayError, UpstreamError
from ...wire.members import BAD_JSON
from ...wire.sse import parse_frame
from ..failures import MAX_MESSAGE, STATUSES, Found, error_headers, told_by_response, told_in_band
from .members import FORMAT

_KINDS: Final[Mapping[str, ErrorKind]] = {
    "INVALID_ARGUMENT": "invalid_request",
    "FAILED_PRECONDITION": "invalid_request",
    "OUT_OF_RANGE": "invalid_request",
    "ALREADY_EXISTS": "invalid_request",
    "ABORTED": "upstream_error",
    "UNAUTHENTICATED": "auth",
    "PERMISSION_DENIED": "permission",
    "NOT_FOUND": "not_found",
    "RESOURCE_EXHAUSTED": "rate_limit",
    "CANCELLED": "upstream_error",
    "DATA_LOSS": "upstream_error",
    "INTERNAL": "upstream_error",
    "UNKNOWN": "upstream_error",
    "UNIMPLEMENTED": "unsupported",
    "UNAVAILABLE": "unavailable",
    "DEADLINE_EXCEEDED": "timeout.total",
}
"""Source: google/rpc/code.proto."""
_REASONS: Final[Mapping[str, ErrorKind]] = {
    "API_KEY_INVALID": "auth",
    "API_KEY_EXPIRED": "auth",
    "ACCESS_TOKEN_EXPIRED": "auth",
    "CREDENTIALS_MISSING": "auth",
    "BILLING_DISABLED": "quota",
    "CONSUMER_SUSPENDED": "account_disabled",
    "USER_PROJECT_DENIED": "permission",
    "API_KEY_SERVICE_BLOCKED": "permission",
    "SERVICE_DISABLED": "permission",
}
"""What ``ErrorInfo.reason`` says more precisely. Source: google/api/error_reason.proto."""
_PHRASES: Final[tuple[tuple[str, ErrorKind], ...]] = (
    ("exceeds the maximum number of tokens", "context_length"),
    ("api key not valid", "auth"),
    ("api key expired", "auth"),
    ("api key not found", "auth"),
    ("reported as leaked", "auth"),
    ("location is not supported", "permission"),
    ("credits are depleted", "quota"),
    ("payload size exceeds", "too_large"),
    ("model is overloaded", "overloaded"),
)
"""How the message tells what it really is. A key that is wrong is an INVALID_ARGUMENT here."""
_GENERAL: Final = frozenset({None, "invalid_request", "permission", "unavailable", "rate_limit"})
_STATUSES: Final[Mapping[int, ErrorKind]] = {
    **STATUSES,
    408: "timeout.total",
    502: "unavailable",
    504: "timeout.total",
}
_WORDS: Final[Mapping[ErrorKind, str]] = {
    "rate_limit": "RESOURCE_EXHAUSTED",
    "quota": "RESOURCE_EXHAUSTED",
    "overloaded": "UNAVAILABLE",
    "unavailable": "UNAVAILABLE",
    "connect": "UNAVAILABLE",
    "auth": "UNAUTHENTICATED",
    "account_disabled": "PERMISSION_DENIED",
    "permission": "PERMISSION_DENIED",
    "not_found": "NOT_FOUND",
    "context_length": "INVALID_ARGUMENT",
    "content_filter": "INVALID_ARGUMENT",
    "invalid_request": "INVALID_ARGUMENT",
    "unsupported": "INVALID_ARGUMENT",
    "too_large": "INVALID_ARGUMENT",
    "timeout.connect": "DEADLINE_EXCEEDED",
    "timeout.pool": "DEADLINE_EXCEEDED",
    "timeout.write": "DEADLINE_EXCEEDED",
    "timeout.first_token": "DEADLINE_EXCEEDED",
    "timeout.idle": "DEADLINE_EXCEEDED",
    "timeout.total": "DEADLINE_EXCEEDED",
    "cancelled": "CANCELLED",
}
_RPC: Final = "type.googleapis.com/google.rpc."
_DOMAIN: Final = "headgate"
_A_DAY: Final = "PerDay"
"""In the ``quotaId`` of a QuotaFailure, for instance GenerateRequestsPerDayPerProjectPerModel-FreeTier."""


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """Read an error response of any shape. Never raises."""
    return told_by_response(_read(body), (status, headers, body), FORMAT, _STATUSES)


def in_band_error(data: bytes, raw: bytes) -> UpstreamError | None:
    """Read an error that came inside a 200: ``data`` is its JSON, ``raw`` its bytes. None if it is no error object."""
    return told_in_band(_read(data), raw, FORMAT)


def encode_error(error: GatewayError) -> tuple[int, dict[str, str], bytes]:
    """Write an error for a caller: status, headers, body."""
    return _status(error), error_headers(error), error_body(error)


def error_body(error: GatewayError) -> bytes:
    """The JSON of an error, an object: the provider's own if it is of this format, else ours."""
    if error.format == FORMAT and error.raw is not None and (own := _own_object(error.raw)) is not None:
        return own
    details = [{"@type": f"{_RPC}ErrorInfo", "reason": str(error.kind), "domain": _DOMAIN}]
    if error.retry_after_s is not None:
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": _duration(error.retry_after_s)})
    status = _status(error)
    word = "UNIMPLEMENTED" if status == 501 else _WORDS.get(error.kind, "INTERNAL")
    return msgspec.json.encode(
        {"error": {"code": status, "message": error.message, "status": word, "details": details}}
    )


def _duration(seconds: float) -> str:
    """Write a google.protobuf.Duration, to the millisecond."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"


def _status(error: GatewayError) -> int:
    return error.status if error.status >= 400 else 502


def _own_object(raw: bytes) -> bytes | None:
    """The error object in a provider's bytes: a body, an array of one, or a frame."""
    text = raw.strip()
    if text.startswith(b"data:"):
        text = (parse_frame(text)[1] or b"").strip()
    if text.startswith(b"["):
        try:
            items = msgspec.json.decode(text, type=list[msgspec.Raw])
        except BAD_JSON:
            return None
        text = bytes(items[-1]) if items else b""
    return text if text.startswith(b"{") else None


def _read(body: bytes) -> Found | None:
    try:
        whole = msgspec.json.decode(body, type=dict[str, Any] | list[Any])
    except BAD_JSON:
        return None
    if isinstance(whole, list):
        # Without alt=sse the answer to a streaming call is an array, and so is its error.
        whole = whole[-1] if whole else None
    if not isinstance(whole, dict):
        return None
    error = whole.get("error")
    if not isinstance(error, dict):
        text = error if isinstance(error, str) else whole.get("message") or whole.get("detail")
        return Found(_phrase(text), text[:MAX_MESSAGE], details=whole) if isinstance(text, str) else None
    word, message, code = error.get("status"), error.get("message"), error.get("code")
    text = message[:MAX_MESSAGE] if isinstance(message, str) else ""
    kind = _KINDS.get(word) if isinstance(word, str) else None
    if kind is None and isinstance(code, int):
        kind = _STATUSES.get(code)
    reason: str | None = None
    wait: float | None = None
    for detail in _details(error):
        name = str(detail.get("@type", "")).rpartition(".")[2]
        if name == "RetryInfo":
            wait = _seconds(detail.get("retryDelay"))
        elif name == "ErrorInfo" and isinstance(detail.get("reason"), str):
            reason = detail["reason"]
        elif name == "QuotaFailure" and kind == "rate_limit" and _daily(detail):
            # Nothing is left to spend today, whatever the delay says that comes with it.
            kind = "quota"
    if reason is not None and reason in _REASONS:
        kind = _REASONS[reason]
    elif kind in _GENERAL:
        kind = _phrase(text) or kind
    own = isinstance(code, int) and isinstance(message, str)
    return Found(kind, text, reason or (word if isinstance(word, str) else None), whole, wait, own=own)


def _details(error: dict[str, Any]) -> Iterator[dict[str, Any]]:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            yield detail


def _daily(detail: dict[str, Any]) -> bool:
    violations = detail.get("violations")
    return any(
        isinstance(item, dict) and _A_DAY in str(item.get("quotaId", ""))
        for item in (violations if isinstance(violations, list) else ())
    )


def _seconds(value: object) -> float | None:
    """Read a google.protobuf.Duration, ``34.07s``."""
    if not isinstance(value, str) or not value.endswith("s"):
        return None
    try:
        seconds = float(value[:-1])
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _phrase(message: str) -> ErrorKind | None:
    lower = message.lower()
    return next((kind for phrase, kind in _PHRASES if phrase in lower), None)
