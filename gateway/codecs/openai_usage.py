"""Token counts of both Completions APIs, both ways.

Sources: ``CompletionUsage`` of OpenAI's SDK 3.52; ``cached_tokens`` beside them (Moonshot), ``prompt_cache_hit_tokens``
(DeepSeek). OpenAI counts cached tokens, and those written to the cache, within ``prompt_tokens``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ..ir.event import Usage
from ..ir.loss import Loss
from ..wire.members import BAD_JSON, OBJECT
from .usage_losses import usage_losses


class _PromptDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None
    reasoning_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


_FORMATS: Final = frozenset({"openai.chat", "openai.completions"})
_USAGE: Final = msgspec.json.Decoder(_Usage)


def read_usage(raw: Raw, format: str = "openai.chat") -> Usage | None:
    """Return what a usage object of ``format`` says, None when it is none that we can read."""
    try:
        told, members = _USAGE.decode(raw), OBJECT.decode(raw)
    except BAD_JSON:
        return None
    if not members:
        return None
    read, written = told.prompt_tokens, told.completion_tokens
    if len(members) == 3 and read is not None and written is not None and told.total_tokens is not None:
        # Nothing else is told: no caches, no reasoning.
        return Usage(read, read if read > 0 else 0, None, None, written, None, False, format, members)
    prompt, completion = told.prompt_tokens_details, told.completion_tokens_details
    cached = cache_written = reasoning = None
    if prompt is not None:
        cached, cache_written = prompt.cached_tokens, prompt.cache_write_tokens
    if cached is None:
        cached = told.prompt_cache_hit_tokens if told.cached_tokens is None else told.cached_tokens
    if completion is not None:
        reasoning = completion.reasoning_tokens
    if reasoning is None:
        reasoning = told.reasoning_tokens
    if read is not None and written is not None and reasoning and told.total_tokens == read + written + reasoning:
        # xAI counts reasoning beside completion_tokens; only the sum tells (seen 2025).
        written += reasoning
    uncached = None if read is None else max(0, read - (cached or 0) - (cache_written or 0))
    return Usage(read, uncached, cached, cache_written, written, reasoning, False, format, members)


def write_usage(usage: Usage, losses: list[Loss], format: str) -> dict[str, Any]:
    """Return the usage object for ``usage`` in ``format``: its own members if they are of either of these APIs."""
    if usage.format in _FORMATS and usage.raw:
        return dict(usage.raw)
    losses += usage_losses(usage)
    read, written = usage.all_input, usage.output_tokens
    for name, count in (("prompt_tokens", read), ("completion_tokens", written)):
        if count is None:
            losses.append(Loss("minted", f"usage.{name}", name, "the provider did not say, 0 is demanded"))
    value: dict[str, Any] = {
        "prompt_tokens": read or 0,
        "completion_tokens": written or 0,
        "total_tokens": (read or 0) + (written or 0),
    }
    prompt = {"cached_tokens": usage.cache_read_input_tokens, "cache_write_tokens": usage.cache_creation_input_tokens}
    if told := {name: count for name, count in prompt.items() if count is not None}:
        value["prompt_tokens_details"] = told
    if usage.reasoning_output_tokens is not None:
        value["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_output_tokens}
    return value
