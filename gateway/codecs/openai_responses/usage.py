"""Token counts, both ways. Source: ``ResponseUsage`` of OpenAI's SDK 3.52.

Cached tokens, and those written to the cache, are counted within ``input_tokens``; reasoning within ``output_tokens``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ...ir.event import Usage
from ...ir.loss import Loss
from ...wire.members import BAD_JSON, OBJECT
from ..usage_losses import usage_losses
from .members import FORMAT


class _InputDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(Struct):
    reasoning_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


_USAGE: Final = msgspec.json.Decoder(_Usage)


def read_usage(raw: Raw) -> Usage | None:
    """Return what a usage object says, None when it is none that we can read."""
    try:
        told, members = _USAGE.decode(raw), OBJECT.decode(raw)
    except BAD_JSON:
        return None
    if not members:
        return None
    read, cached, stored = told.input_tokens, None, None
    if (input := told.input_tokens_details) is not None:
        cached, stored = input.cached_tokens, input.cache_write_tokens
    uncached = None if read is None else max(0, read - (cached or 0) - (stored or 0))
    reasoning = None if told.output_tokens_details is None else told.output_tokens_details.reasoning_tokens
    return Usage(read, uncached, cached, stored, told.output_tokens, reasoning, False, FORMAT, members)


def write_usage(usage: Usage, losses: list[Loss]) -> dict[str, Any]:
    """Return the usage object for ``usage``: its own members if they are of this format. The details are demanded here."""
    if usage.format == FORMAT and usage.raw:
        return dict(usage.raw)
    losses += usage_losses(usage)
    read, written = usage.all_input, usage.output_tokens
    for name, count in (("input_tokens", read), ("output_tokens", written)):
        if count is None:
            losses.append(Loss("minted", f"usage.{name}", name, "the provider did not say, 0 is demanded"))
    if usage.estimated:
        losses.append(Loss("minted", "usage", "usage estimate", "counted by the gateway"))
    cached, stored = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    return {
        "input_tokens": read or 0,
        "input_tokens_details": {"cached_tokens": cached or 0, "cache_write_tokens": stored or 0},
        "output_tokens": written or 0,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_output_tokens or 0},
        "total_tokens": (read or 0) + (written or 0),
    }
