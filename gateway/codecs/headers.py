"""What providers say in response headers, whatever their format: when to come back, and what they call the request."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

REQUEST_ID_HEADERS: Final = (
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "x-goog-request-id",
    "apim-request-id",
)
"""Where providers put their request id: OpenAI and its likes, Anthropic, AWS, Google, Azure."""


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds to wait that ``headers`` (lower case) ask for, never negative; None when they say nothing.

    ``retry-after-ms`` is finer and goes first; ``retry-after`` is seconds or an HTTP date (RFC 9110, 10.2.3), which is
    measured from ``now`` in Unix seconds.
    """
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        # A provider and what stands before it may each have said something: whoever heeds the longest heeds both.
        return max((wait for each in text.split(",") if (wait := _number(each)) is not None), default=None)
    if moment.tzinfo is None:  # a date of HTTP is one of UTC, whether it says so or not
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of the request from ``headers`` (lower case)."""
    for name in REQUEST_ID_HEADERS:
        if value := headers.get(name):
            return value
    return None


def _number(text: str | None) -> float | None:
    if text is None or "_" in text or not text.isascii():  # which Python reads, and nobody means
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return max(0.0, value) if math.isfinite(value) else None
