"""Token counts and stop reasons, both ways.

Anthropic's ``input_tokens`` leaves out what was read from or written to the cache; the IR's includes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...ir.event import StopReason, Usage
from ...ir.message import Extra
from .members import BAD_JSON, FORMAT, NULL

STOP_REASONS: Final[Mapping[str, StopReason]] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "compaction": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_window",
}
_WORDS: Final[Mapping[StopReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_calls": "tool_use",
    "pause": "pause_turn",
    "refusal": "refusal",
    "content_filter": "refusal",
    "context_window": "model_context_window_exceeded",
}


def stop_reason(word: str) -> StopReason:
    """The IR's word for a ``stop_reason``; the API may add more at any time."""
    return STOP_REASONS.get(word, "other")


def stop_word(reason: StopReason, raw_reason: str) -> str:
    """The ``stop_reason`` to write: the provider's own where it means the same, or nobody knows better."""
    if STOP_REASONS.get(raw_reason) == reason:
        return raw_reason
    return _WORDS.get(reason) or raw_reason or "end_turn"


class _Details(Struct):
    thinking_tokens: int | None = None


class _Counts(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _Details | None = None


_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_COUNTS: Final = msgspec.json.Decoder(_Counts)


def read_usage(raw: bytes | Raw, before: Extra) -> Usage | None:
    """Return the usage that the object ``raw`` tells together with what ``before`` said; None if it is no usage.

    Counts of a stream are cumulative, so a later one replaces the earlier; null replaces nothing.
    """
    try:
        members = {**before}
        for name, value in _MEMBERS.decode(raw).items():
            if name not in members or bytes(value) != NULL:
                members[name] = value
        counts = _COUNTS.decode(msgspec.json.encode(members) if before else raw)
    except BAD_JSON:
        return None
    fresh, read, written = counts.input_tokens, counts.cache_read_input_tokens, counts.cache_creation_input_tokens
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        uncached_input_tokens=fresh,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        output_tokens=counts.output_tokens,
        reasoning_output_tokens=counts.output_tokens_details.thinking_tokens if counts.output_tokens_details else None,
        format=FORMAT,
        raw=members,
    )


def write_usage(usage: Usage | None) -> dict[str, object]:
    """Return the members of a ``usage`` object; the two counts that are demanded are 0 where nobody told them."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    if usage.format == FORMAT and usage.raw:
        return {"input_tokens": 0, "output_tokens": 0, **usage.raw}
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    fresh = usage.uncached_input_tokens
    if fresh is None and usage.input_tokens is not None:
        fresh = max(usage.input_tokens - (read or 0) - (written or 0), 0)
    members: dict[str, object] = {"input_tokens": fresh or 0}
    if written is not None:
        members["cache_creation_input_tokens"] = written
    if read is not None:
        members["cache_read_input_tokens"] = read
    members["output_tokens"] = usage.output_tokens or 0
    if usage.reasoning_output_tokens is not None:
        members["output_tokens_details"] = {"thinking_tokens": usage.reasoning_output_tokens}
    return members
