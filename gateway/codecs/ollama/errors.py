"""Errors of Ollama: ``{"error": "words"}``, as a response body and as a line within a stream.

Only words and the status tell what happened; there are no codes. Servers that speak this API nearly may put an object
there, which is read as OpenAI's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from ...errors import ErrorKind, GatewayError, UpstreamError, upstream_error
from ...wire.members import BAD_JSON, OBJECT, encode_json
from ...wire.ndjson import line
from .. import failures
from .. import headers as response_headers
from .words import FAMILY

_STATUSES: Final[Mapping[int, ErrorKind]] = {
    **failures.STATUSES,
    408: "unavailable",
    502: "unavailable",
    504: "unavailable",
}

_MESSAGES: Final[tuple[tuple[re.Pattern[str], frozenset[int], ErrorKind], ...]] = (
    (
        re.compile(r"context (length|window|size)|(prompt|input)( length)? (is )?(too long|exceeds)", re.IGNORECASE),
        frozenset({400, 413, 500}),
        "context_length",
    ),
    (re.compile(r"does not support|not supported by", re.IGNORECASE), frozenset({400, 500, 501}), "unsupported"),
    (re.compile(r"model .{0,200}not found|try pulling it", re.IGNORECASE), frozenset({400, 404, 500}), "not_found"),
    (
        re.compile(r"server (is )?busy|maximum pending requests|overloaded|at capacity", re.IGNORECASE),
        frozenset({429, 500, 502, 503}),
        "overloaded",
    ),
    (re.compile(r"more system memory|out of memory", re.IGNORECASE), frozenset({500, 503}), "overloaded"),
    (
        re.compile(r"usage limit|insufficient (balance|credit|quota)", re.IGNORECASE),
        frozenset({402, 403, 429}),
        "quota",
    ),
    (re.compile(r"\bunauthori[sz]ed\b", re.IGNORECASE), frozenset({400, 401, 500}), "auth"),
    (
        re.compile(r"^(invalid|missing|unexpected|json:)|is required|must be (of type|a |an )", re.IGNORECASE),
        frozenset({400}),
        "invalid_request",
    ),
)
"""What only the message tells, by the statuses that may come with it; a line in a stream has none of its own."""


def decode_error(status: int, headers: Mapping[str, str], body: bytes, format: str) -> UpstreamError:
    """Read an error response, whatever its body is. Never raises."""
    error = _read(body, status, format)
    if error is None:
        kind = _kind(status, "")
        error = upstream_error(kind, failures.describe(status, headers, body), status=failures.shown(status, kind))
    elif error.raw is not None:
        error.raw = body
    error.retry_after_s = response_headers.retry_after_s(headers)
    error.request_id = response_headers.request_id(headers)
    return error


def error_in(data: bytes, format: str) -> UpstreamError | None:
    """Return the error that a line or a whole body with status 200 tells, None for none. ``raw`` is left to the caller."""
    return _read(data, None, format)


def _read(data: bytes, status: int | None, format: str) -> UpstreamError | None:
    try:
        payload = msgspec.json.decode(data)
    except BAD_JSON:
        return None
    told = payload.get("error") if isinstance(payload, dict) else None
    code = None
    if isinstance(told, dict):
        message = told.get("message")
        code = told.get("code") if isinstance(told.get("code"), str) else told.get("type")
    else:
        message = told
    if told is None or told == "":
        return None
    text = message if isinstance(message, str) else msgspec.json.encode(told).decode()
    kind = _kind(status, text)
    secret = failures.has_key(text)
    return upstream_error(
        kind,
        failures.veiled(text)[: failures.MAX_MESSAGE] or "the provider reported an error",
        status=failures.shown(status, kind),
        code=code if isinstance(code, str) else None,
        details=None if secret else payload,
        format=format,
        raw=b"" if isinstance(told, str) and not secret else None,
    )


def _kind(status: int | None, message: str) -> ErrorKind:
    for pattern, statuses, meant in _MESSAGES:
        if (status is None or status in statuses) and pattern.search(message):
            return meant
    return "upstream_error" if status is None else failures.kind_of(status, _STATUSES)


def encode_error(error: GatewayError) -> tuple[int, dict[str, str], bytes]:
    """Write an error response: status, headers, body. The provider's own body goes out as it came."""
    headers = failures.error_headers(error, "application/json; charset=utf-8")
    return error.status, headers, own_body(error) or error_body(error)


def error_line(error: GatewayError) -> bytes:
    """Write the line that ends a stream with an error."""
    return line((own_body(error) or error_body(error)).strip())


def own_body(error: GatewayError) -> bytes | None:
    """The error body of this API that the provider sent; both its formats have the same."""
    if error.format not in FAMILY or not error.raw:
        return None
    try:
        OBJECT.decode(error.raw)
    except BAD_JSON:
        return None
    return error.raw


def error_body(error: GatewayError) -> bytes:
    """Write the error as Ollama does: words, and nothing besides."""
    return encode_json({"error": error.message})
