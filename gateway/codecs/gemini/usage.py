"""Token counts and finish reasons, both ways.

Gemini's ``promptTokenCount`` includes what was read from a cache, but neither what server tools read
(``toolUsePromptTokenCount``) nor, in ``candidatesTokenCount``, what was thought (``thoughtsTokenCount``); the total is the
sum of these four. Source: ``UsageMetadata`` of the API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...ir.event import StopReason, Usage
from ...wire.members import BAD_JSON
from .members import FORMAT

FINISH_REASONS: Final[Mapping[str, StopReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
    "PUP_LIMITED_DISABLED": "content_filter",
    "LANGUAGE": "other",
    "OTHER": "other",
    "IMAGE_OTHER": "other",
    "NO_IMAGE": "other",
    "FINISH_REASON_UNSPECIFIED": "other",
    "CONTINUATION": "pause",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
}
"""Source: the enum ``FinishReason`` of google-genai 3.4."""
_WORDS: Final[Mapping[StopReason, str]] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "stop_sequence": "STOP",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "context_window": "MAX_TOKENS",
}
EXACT: Final = frozenset({"stop", "length", "tool_calls", "stop_sequence", "content_filter"})
"""Reasons that this format says, if in fewer words."""


def finish_reason(word: str, *, calls: bool) -> StopReason:
    """The IR's word for a ``finishReason``. The API says STOP where the model waits for a tool, too."""
    reason = FINISH_REASONS.get(word, "other")
    return "tool_calls" if calls and reason == "stop" else reason


def finish_word(reason: StopReason, raw_reason: str, format: str) -> str:
    """The ``finishReason`` to write: the provider's own where it is this format's, or the nearest."""
    if format == FORMAT and raw_reason and FINISH_REASONS.get(raw_reason, "other") in (reason, "stop"):
        return raw_reason
    return _WORDS.get(reason, "OTHER")


class _Counts(Struct, rename="camel"):
    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None


_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_COUNTS: Final = msgspec.json.Decoder(_Counts, strict=False)


def read_usage(raw: bytes | Raw) -> Usage | None:
    """Return the usage that the object ``raw`` tells; None if it tells no count. Each frame of a stream tells it anew."""
    try:
        members = _MEMBERS.decode(raw)
        counts = _COUNTS.decode(raw)
    except BAD_JSON:
        return None
    prompt, by_tools, cached = (
        counts.prompt_token_count,
        counts.tool_use_prompt_token_count,
        counts.cached_content_token_count,
    )
    said, thought = counts.candidates_token_count, counts.thoughts_token_count
    if prompt is None and said is None and thought is None:
        # Vertex AI's frames begin with a trafficType alone.
        return None
    read = None if prompt is None else prompt + (by_tools or 0)
    return Usage(
        input_tokens=read,
        uncached_input_tokens=None if read is None else max(read - (cached or 0), 0),
        cache_read_input_tokens=cached,
        output_tokens=None if said is None and thought is None else (said or 0) + (thought or 0),
        reasoning_output_tokens=thought,
        format=FORMAT,
        raw=members,
    )


def write_usage(usage: Usage) -> dict[str, object]:
    """Return the members of a ``usageMetadata``; what nobody told is absent."""
    if usage.format == FORMAT and usage.raw:
        return dict(usage.raw)
    read, output, thought = usage.all_input, usage.output_tokens, usage.reasoning_output_tokens
    members: dict[str, object] = {}
    if read is not None:
        members["promptTokenCount"] = read
    if usage.cache_read_input_tokens is not None:
        members["cachedContentTokenCount"] = usage.cache_read_input_tokens
    if output is not None:
        members["candidatesTokenCount"] = max(output - (thought or 0), 0)
    if thought is not None:
        members["thoughtsTokenCount"] = thought
    if read is not None and output is not None:
        members["totalTokenCount"] = read + output
    return members
