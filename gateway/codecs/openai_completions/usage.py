"""Token counts, both ways. Source: ``CompletionUsage`` of OpenAI's SDK 3.52; cached tokens are within ``prompt_tokens``."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ...ir.event import Usage
from ...ir.loss import Loss
from ...wire.members import BAD_JSON, OBJECT
from .words import FORMAT


class _Prompt(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Completion(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Prompt | None = None
    completion_tokens_details: _Completion | None = None
    prompt_cache_hit_tokens: int | None = None


_USAGE: Final = msgspec.json.Decoder(_Usage)


def read_usage(raw: Raw) -> Usage | None:
    """Return what a usage object says, None when it is none that we can read."""
    try:
        told, members = _USAGE.decode(raw), OBJECT.decode(raw)
    except BAD_JSON:
        return None
    if not members:
        return None
    cached, stored = told.prompt_cache_hit_tokens, None
    if (prompt := told.prompt_tokens_details) is not None:
        cached, stored = cached if prompt.cached_tokens is None else prompt.cached_tokens, prompt.cache_write_tokens
    details = told.completion_tokens_details
    uncached = None if told.prompt_tokens is None else max(0, told.prompt_tokens - (cached or 0) - (stored or 0))
    return Usage(
        told.prompt_tokens,
        uncached,
        cached,
        stored,
        told.completion_tokens,
        None if details is None else details.reasoning_tokens,
        False,
        FORMAT,
        members,
    )


def write_usage(usage: Usage, losses: list[Loss]) -> dict[str, Any]:
    """Return the usage object for ``usage``: its own members if they are of this format."""
    if usage.format == FORMAT and usage.raw:
        return dict(usage.raw)
    read = usage.input_tokens
    if read is None and usage.uncached_input_tokens is not None:
        caches = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
        read = usage.uncached_input_tokens + caches
    for name, count in (("prompt_tokens", read), ("completion_tokens", usage.output_tokens)):
        if count is None:
            losses.append(Loss("minted", f"usage.{name}", name, "the provider did not say, 0 is demanded"))
    read, written = read or 0, usage.output_tokens or 0
    value: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    prompt = {"cached_tokens": usage.cache_read_input_tokens, "cache_write_tokens": usage.cache_creation_input_tokens}
    if told := {name: count for name, count in prompt.items() if count is not None}:
        value["prompt_tokens_details"] = told
    if usage.reasoning_output_tokens is not None:
        value["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_output_tokens}
    return value
