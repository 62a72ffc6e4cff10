"""The words of Responses that stand for others: why an answer ended, and where a signature of another provider travels."""

from __future__ import annotations

from typing import Final

from ...ir.event import StopReason
from ...ir.message import Reasoning
from .members import FORMAT

SUMMARY: Final = f"{FORMAT}:summary"
CONTENT: Final = f"{FORMAT}:content"
"""Origins of reasoning: told in a summary, or in its own words."""

INCOMPLETE: Final[dict[str, StopReason]] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "max_messages": "other",
    "steered": "other",
}
"""``incomplete_details.reason``; ``max_tokens`` is seen at compatible providers."""

REASONS: Final[dict[StopReason, str]] = {
    "length": "max_output_tokens",
    "context_window": "max_output_tokens",
    "content_filter": "content_filter",
    "refusal": "content_filter",
}
"""Reasons for which an answer is ``incomplete`` here; for all others it is ``completed``."""

INEXACT: Final[dict[StopReason, str]] = {
    "pause": "a paused turn looks finished here",
    "refusal": "content_filter stands in, as for what filters leave out",
    "context_window": "max_output_tokens does not say which limit was reached",
    "other": "no status means this",
    "stop_sequence": "status completed does not say which sequence matched",
}
"""Reasons that have only a neighbour here, and why that is not quite the same."""

_SIGNED: Final = "signed:"
_REDACTED: Final = "redacted:"


def origin_of(part: Reasoning) -> str:
    """The format that made the signature."""
    return part.origin.partition(":")[0]


def carry(origin: str, signature: str, *, redacted: bool) -> str:
    """Return the ``encrypted_content`` that brings another format's ``signature`` back with the client's next turn."""
    return f"{_REDACTED if redacted else _SIGNED}{origin.partition(':')[0]}:{signature}"


def carried(text: str) -> tuple[str, str, bool] | None:
    """Return origin, signature and whether it is redacted thinking, of what ``carry`` wrote; None for OpenAI's own."""
    for head in (_SIGNED, _REDACTED):
        origin, colon, signature = text.removeprefix(head).partition(":")
        if text.startswith(head) and colon and origin:
            return origin, signature, head == _REDACTED
    return None
