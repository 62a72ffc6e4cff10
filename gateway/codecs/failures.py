"""What errors of every format have in common: what a status means, no keys in messages, bodies that are no error objects.

Which words a provider has for an error, and where they stand, is each codec's own; OpenAI's object is in ``openai_errors``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from ..errors import STATUS, ErrorKind, GatewayError, UpstreamError, upstream_error
from .headers import request_id, retry_after_s

MAX_MESSAGE: Final = 500
"""Characters of a provider's message that are kept."""

STATUSES: Final[Mapping[int, ErrorKind]] = {
    400: "invalid_request",
    401: "auth",
    402: "quota",
    403: "permission",
    404: "not_found",
    413: "too_large",
    429: "rate_limit",
    503: "unavailable",
    529: "overloaded",
}
"""What a status means in every format; 402 is OpenRouter's and DeepSeek's empty purse, 529 Anthropic's lack of capacity."""

_KEY: Final = re.compile(r"\b(sk|rk|pk|gsk|xai|key|fw|hf|pplx|nvapi)[-_][\w*.-]{6,}")


class Found(NamedTuple):
    """What an error body says; ``own`` if it has exactly its format's shape, and may pass to a caller as it came."""

    kind: ErrorKind | None
    message: str
    code: str | None = None
    details: object = None
    retry_after_s: float | None = None
    request_id: str | None = None
    own: bool = False


def kind_of(status: int, statuses: Mapping[int, ErrorKind]) -> ErrorKind:
    """Return what ``status`` means by ``statuses``: what is not there is the caller's fault below 500, else the provider's."""
    return statuses.get(status) or ("invalid_request" if 400 <= status < 500 else "upstream_error")


def shown(status: int | None, kind: ErrorKind) -> int:
    """Return the status for the caller: the provider's if it is one of failure."""
    return status if status is not None and 400 <= status <= 599 else STATUS[kind]


def veiled(message: str) -> str:
    """Return ``message`` without keys. Providers quote the key that they refuse, in part or whole; it is ours, and never
    the caller's to see."""
    return _KEY.sub("***", message)


def has_key(message: str) -> bool:
    """Return whether ``message`` quotes a key."""
    return _KEY.search(message) is not None


def describe(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """Return words for a body that is no error object: itself if it is plain text, never a page of HTML."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body.strip():
        return f"HTTP {status} without a body"
    if media_type in ("", "text/plain") and not body.lstrip().startswith((b"<", b"{", b"[")):
        return veiled(body[: 4 * MAX_MESSAGE].decode("utf-8", "replace").strip())[:MAX_MESSAGE]
    if not media_type:
        return f"HTTP {status} with an unreadable body"
    return f"HTTP {status} with {'an' if media_type[0] in 'aeiou' else 'a'} {media_type} body"


def told_by_response(
    found: Found | None,
    response: tuple[int, Mapping[str, str], bytes],
    format: str,
    statuses: Mapping[int, ErrorKind],
) -> UpstreamError:
    """Return the error of a ``response`` (status, headers, body), of which ``found`` was read from the body."""
    status, headers, body = response
    fallback = kind_of(status, statuses)
    found = Found(fallback, describe(status, headers, body)) if found is None else _veiled(found)
    kind = found.kind or fallback
    if kind in ("invalid_request", "upstream_error"):
        kind = fallback  # a status such as 413 says more than these general words
    wait = retry_after_s(headers)
    return upstream_error(
        kind,
        found.message or f"HTTP {status}",
        status=status,
        code=found.code,
        details=found.details,
        retry_after_s=found.retry_after_s if wait is None else wait,
        request_id=request_id(headers) or found.request_id,
        format=format if found.own else "",
        raw=body if found.own else None,
    )


def told_in_band(found: Found | None, raw: bytes, format: str) -> UpstreamError | None:
    """Return the error that ``raw``, a piece of a 200, told; None for none."""
    if found is None:
        return None
    found = _veiled(found)
    return upstream_error(
        found.kind or "upstream_error",
        found.message or "the provider broke off with an error",
        code=found.code,
        details=found.details,
        retry_after_s=found.retry_after_s,
        request_id=found.request_id,
        format=format if found.own else "",
        raw=raw if found.own else None,
    )


def error_headers(error: GatewayError, content_type: str = "application/json") -> dict[str, str]:
    """Return the headers of an error response.

    ``retry-after`` is whole seconds, rounded up; where the provider's own passes (``error.headers``), it stays as it is.
    """
    headers = {"content-type": content_type}
    if error.retry_after_s is not None and "retry-after" not in error.headers:
        headers["retry-after"] = str(max(0, math.ceil(error.retry_after_s)))
    return headers


def _veiled(found: Found) -> Found:
    if not has_key(found.message):
        return found
    return found._replace(message=veiled(found.message), details=None, own=False)
