"""OpenAI's error object, ``{"error": {"message", "type", "param", "code"}}``, which three formats and many providers share.

Sources: OpenAI's ``ErrorObject``; OpenRouter's ``{"error": {"code": 502, "message", "metadata"}}`` with numbers for codes;
Mistral's and older vLLM's ``{"object": "error", "message", "type", "code"}``; FastAPI's ``{"detail"}``; Gemini's compatible
endpoint, which wraps the object in an array.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from ..errors import ErrorKind, GatewayError, UpstreamError, upstream_error
from ..wire.members import BAD_JSON, OBJECT, encode_json
from ..wire.sse import parse_frame
from . import failures
from .headers import request_id, retry_after_s

WORDS: Final[Mapping[str, ErrorKind]] = {
    "insufficient_quota": "quota",
    "insufficient_balance": "quota",
    "insufficient_credits": "quota",
    "quota_exceeded": "quota",
    "exceeded_current_quota_error": "quota",
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
    "data_inspection_failed": "content_filter",
    "invalid_api_key": "auth",
    "invalid_authentication_error": "auth",
    "incorrect_api_key_error": "auth",
    "authentication_error": "auth",
    "permission_error": "permission",
    "permission_denied_error": "permission",
    "model_not_found": "not_found",
    "not_found_error": "not_found",
    "notfounderror": "not_found",
    "resource_not_found_error": "not_found",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_reached_error": "rate_limit",
    "rate_limit_error": "rate_limit",
    "tokens": "rate_limit",
    "requests": "rate_limit",
    "engine_overloaded_error": "overloaded",
    "engine_overloaded": "overloaded",
    "overloaded_error": "overloaded",
    "server_overloaded": "overloaded",
    "capacity_exceeded": "overloaded",
    "service_unavailable": "unavailable",
    "service_unavailable_error": "unavailable",
    "request_too_large": "too_large",
    "unsupported_parameter": "unsupported",
    "unsupported_value": "unsupported",
    "invalid_request_error": "invalid_request",
    "badrequesterror": "invalid_request",
    "server_error": "upstream_error",
    "api_error": "upstream_error",
    "internal_server_error": "upstream_error",
    "upstream_error": "upstream_error",
}
"""``code`` or ``type`` in an error object, in lower case. The code is asked first, being the narrower word."""

STATUSES: Final[Mapping[int, ErrorKind]] = {
    **failures.STATUSES,
    408: "unavailable",
    409: "unavailable",
    498: "overloaded",
    504: "unavailable",
}
"""Beside what they mean everywhere; 498 is Groq's lack of capacity."""

_BROAD: Final = frozenset({"invalid_request", "upstream_error"})
"""Kinds that a status or a message may still narrow."""

_MESSAGES: Final[tuple[tuple[re.Pattern[str], frozenset[int], ErrorKind], ...]] = (
    (
        re.compile(
            r"context[ _](length|window)|maximum (context|prompt|input) length|(prompt|input) is too long"
            r"|too many (input )?tokens|reduce (the length of the (messages|prompt)|(the length of )?your prompt)",
            re.IGNORECASE,
        ),
        frozenset({400, 413, 422}),
        "context_length",
    ),
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

TYPES: Final[Mapping[ErrorKind, str]] = {
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
"""``type`` for a kind."""
OTHER_TYPE: Final = "server_error"
"""``type`` for the kinds that are not in TYPES."""


class ErrorReader:
    """Reads the errors of providers of one ``format``, whose ``words`` stand for these kinds."""

    def __init__(self, format: str, words: Mapping[str, ErrorKind]) -> None:
        self.format = format
        self.words = words

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Read an error response, whatever its body is. Never raises."""
        error = self._read(body, status)
        if error is None:
            kind = self._kind(status, (), "")
            message = failures.describe(status, headers, body)
            error = upstream_error(kind, message, status=failures.shown(status, kind))
        elif error.raw is not None:
            error.raw = body
        error.retry_after_s = retry_after_s(headers)
        error.request_id = request_id(headers) or error.request_id
        return error

    def error_in(self, data: bytes | Raw) -> UpstreamError | None:
        """Return the error that a frame or a whole body with status 200 tells, or None if it tells none.

        ``raw`` is left to the caller, who knows the frame.
        """
        return self._read(bytes(data), None)

    def object_in(self, payload: dict[str, Any], status: int | None) -> tuple[object, bool]:
        """Return the error object in ``payload``, and whether it has this format's own shape."""
        inner = payload.get("error")
        return inner, isinstance(inner, dict)

    def _read(self, data: bytes, status: int | None) -> UpstreamError | None:
        """``status`` is that of the HTTP response, None for an error told within a 200."""
        try:
            payload = msgspec.json.decode(data)
        except BAD_JSON:
            return None
        wrapped = isinstance(payload, list) and bool(payload)
        if wrapped:
            payload = payload[0]
        if not isinstance(payload, dict):
            return None
        inner, shaped = self.object_in(payload, status)
        if isinstance(inner, str) and inner:
            inner = {**payload, "message": inner}
        elif not isinstance(inner, dict):
            inner = payload
        message = _text(inner.get("message")) or _text(inner.get("detail")) or _text(payload.get("detail"))
        words = [word for name in ("code", "type", "status") if isinstance(word := inner.get(name), str)]
        words = [word for word in words if self.is_word(word)]
        if not message and not words and not shaped:
            return None
        number = next((n for n in (inner.get("code"), inner.get("status_code")) if _is_status(n)), None)
        told = status if status is not None else number
        kind = self._kind(told, words, message)
        secret = failures.has_key(message)
        id = inner.get("request_id") or payload.get("request_id")
        code, param = inner.get("code"), inner.get("param")
        message = failures.veiled(message)[: failures.MAX_MESSAGE]
        return upstream_error(
            kind,
            message or f"the provider reported an error ({', '.join(words) or told})",
            status=failures.shown(told, kind),
            code=str(code) if isinstance(code, (str, int)) else (words[0] if words else None),
            param=param if isinstance(param, str) else None,
            details=None if secret else payload,
            request_id=id if isinstance(id, str) else None,
            format=self.format,
            raw=b"" if shaped and not wrapped and not secret else None,
        )

    def is_word(self, word: str) -> bool:
        """Return whether ``word``, a code or type, is one for an error."""
        return True

    def _kind(self, status: int | None, words: Sequence[str], message: str) -> ErrorKind:
        known = [self.words[word.lower()] for word in words if word.lower() in self.words]
        narrow = next((kind for kind in known if kind not in _BROAD), None)
        if narrow in (None, "rate_limit", "auth"):
            for pattern, statuses, meant in _MESSAGES:
                if (status is None or status in statuses) and pattern.search(message):
                    return meant
        if narrow is not None:
            return narrow
        if status is not None and (status in STATUSES or 400 <= status < 500):
            return failures.kind_of(status, STATUSES)
        return known[0] if known else "upstream_error"


def encode_error(error: GatewayError, request_id: str, own: bytes | None) -> tuple[int, dict[str, str], bytes]:
    """Write an error response: status, headers, body. ``own`` is the provider's own body, to go out as it came."""
    return error.status, failures.error_headers(error), own or error_body(error, request_id)


def error_frame(error: GatewayError, request_id: str, format: str) -> bytes:
    """Write the frame that ends a stream with an error."""
    if error.format == format and error.raw is not None and not error.raw.lstrip().startswith(b"{"):
        return error.raw
    body = own_body(error, format)
    if body is not None and (b"\n" in body or b"\r" in body):
        body = msgspec.json.format(body, indent=-1)
    return b"data: %b\n\n" % (body or error_body(error, request_id))


def own_body(error: GatewayError, format: str) -> bytes | None:
    """Return the error body of this very ``format`` that the provider sent; taken out of its frame if it was in a stream."""
    if error.format != format or not error.raw:
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


def type_of(kind: ErrorKind) -> str:
    """Return OpenAI's ``type`` for a kind."""
    return TYPES.get(kind, OTHER_TYPE)


def error_body(error: GatewayError, request_id: str) -> bytes:
    """Write the error object in OpenAI's shape; ``code`` is the kind."""
    told = {"message": error.message, "type": type_of(error.kind), "param": error.param, "code": error.kind}
    if request_id:
        told["request_id"] = request_id
    return encode_json({"error": told})


def _is_status(value: object) -> bool:
    return isinstance(value, int) and 400 <= value <= 599


def _text(value: object) -> str:
    """A message, whatever it was given as: FastAPI's ``detail`` is an array of objects."""
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()
