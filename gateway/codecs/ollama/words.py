"""The words of Ollama's API that stand for others: its options, why an answer ended, dates, kinds of images.

Sources: ``docs/api.md`` and ``docs/openapi.yaml`` of ollama/ollama; the types of its Python client 0.6.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Final

from ...ir.event import StopReason

CHAT: Final = "ollama.chat"
GENERATE: Final = "ollama.generate"
FAMILY: Final = frozenset({CHAT, GENERATE})

STOP_REASONS: Final[dict[str, StopReason]] = {
    "stop": "stop",
    "length": "length",
    "load": "other",
    "unload": "other",
}
"""``load`` and ``unload`` answer a request without a prompt, which only moves the model in or out of memory. After tool
calls Ollama says ``stop``; the reader makes ``tool_calls`` of it, which is what other formats' clients wait for."""

DONE_REASONS: Final[dict[StopReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "stop_sequence": "stop",
    "content_filter": "stop",
    "refusal": "stop",
    "pause": "stop",
    "context_window": "length",
    "other": "stop",
}
"""Ollama's word for each reason; it has none for a failure, which is an error line."""

INEXACT: Final[dict[StopReason, str]] = {
    "stop_sequence": "done_reason stop does not say which sequence matched",
    "content_filter": "no done_reason tells of a filter",
    "refusal": "no done_reason tells of a refusal",
    "pause": "a paused turn looks finished here",
    "context_window": "done_reason length does not say which limit was reached",
    "other": "no done_reason means this",
}
"""Reasons that have only a neighbour here, and why that is not quite the same."""

_MAGIC: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


def media_type(data: str) -> str | None:
    """Return what kind of image ``data`` (base64) is, by its first bytes: Ollama's images say no type."""
    try:
        head = base64.b64decode(data[:16])
    except (binascii.Error, ValueError):
        return None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def seconds(date: str | None) -> int | None:
    """Return an RFC 3339 date as Unix seconds, None for what is none. Fractions have up to nine digits in Go."""
    if not date:
        return None
    head, dot, rest = date.partition(".")
    if dot:
        zone = rest.lstrip("0123456789")
        head += zone
    try:
        moment = datetime.fromisoformat(head)
        return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def date(moment: int) -> str:
    """Return Unix seconds as ``created_at`` spells them."""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "1970-01-01T00:00:00Z"
