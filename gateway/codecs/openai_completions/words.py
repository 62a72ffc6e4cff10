"""The words of the legacy Completions: the format's name, and why an answer ended."""

from __future__ import annotations

from typing import Final

from ...ir.event import StopReason

FORMAT: Final = "openai.completions"

STOP_REASONS: Final[dict[str, StopReason]] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
"""Beside OpenAI's three: ``eos`` Together. ``error`` is none of them: it is a failure, and raised as one."""

FINISH_REASONS: Final[dict[StopReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",
    "stop_sequence": "stop",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "pause": "stop",
    "context_window": "length",
    "other": "stop",
}

INEXACT: Final[dict[StopReason, str]] = {
    "tool_calls": "there are no tool calls here",
    "pause": "a paused turn looks finished here",
    "refusal": "content_filter stands in, as for what filters leave out",
    "context_window": "finish_reason length does not say which limit was reached",
    "other": "no finish_reason means this",
    "stop_sequence": "finish_reason stop does not say which sequence matched",
}
"""Reasons that have only a neighbour here, and why that is not quite the same."""
