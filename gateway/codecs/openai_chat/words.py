"""The words of Chat Completions that stand for others: why an answer ended, and calls from before there were tools."""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from ...ir.event import StopReason
from ...ir.message import Extra

LEGACY_CALL: Final = "function_call_"
"""How the ids begin that stand for the ``function_call`` of the time before tools, which has none. A number follows."""

MINTED_ID: Final[Extra] = {"id": Raw(b"null")}
"""Marks, as their ``extra``, the calls and results with such an id: nobody gave it."""

STOP_REASONS: Final[dict[str, StopReason]] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "length": "length",
    "max_tokens": "length",
    "model_length": "context_window",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "refusal",
    "pause": "pause",
}
"""Beside OpenAI's five: ``eos`` Together, ``model_length`` Mistral, the rest seen in gateways that pass their provider's
word on. ``error`` (Mistral, OpenRouter) is none of them: it is a failure, and raised as one."""

FINISH_REASONS: Final[dict[StopReason, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "stop_sequence": "stop",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "pause": "stop",
    "context_window": "length",
    "error": "error",
    "other": "stop",
}
"""OpenAI's word for each reason. Of its five none means a failure; Mistral and OpenRouter say ``error`` in this format."""

INEXACT: Final[dict[StopReason, str]] = {
    "pause": "a paused turn looks finished here",
    "refusal": "content_filter stands in, as for what filters leave out",
    "context_window": "finish_reason length does not say which limit was reached",
    "other": "no finish_reason means this",
    "stop_sequence": "finish_reason stop does not say which sequence matched",
}
"""Reasons that have only a neighbour here, and why that is not quite the same."""
