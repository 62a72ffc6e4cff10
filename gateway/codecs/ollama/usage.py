"""Token counts and durations, both ways: members of the answer itself, in its last line.

Durations are nanoseconds; no other format has them, so they travel with the usage they came with. ``prompt_eval_count`` may
be missing when the whole prompt was cached.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from ...ir.event import Usage
from ...ir.loss import Loss
from ...ir.message import Extra
from ...wire.members import BAD_JSON, NULL, OBJECT
from ..usage_losses import usage_losses
from .words import FAMILY

METRICS: Final = (
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
)


def read_usage(raw: bytes | Raw, format: str) -> Usage | None:
    """Return what a whole answer says of its usage, None when it says nothing or is none."""
    try:
        members = OBJECT.decode(raw)
        return usage_of({name: members[name] for name in METRICS if members.get(name, NULL) != NULL}, format)
    except BAD_JSON:
        return None


def usage_of(members: Extra, format: str) -> Usage | None:
    """Return the usage that these members tell, None for none. Raises ValidationError for counts that are none."""
    if not members:
        return None
    read = written = None
    if (raw := members.get("prompt_eval_count")) is not None:
        read = msgspec.json.decode(raw, type=int)
    if (raw := members.get("eval_count")) is not None:
        written = msgspec.json.decode(raw, type=int)
    return Usage(read, read, None, None, written, None, False, format, members)


def write_usage(usage: Usage | None, losses: list[Loss]) -> dict[str, Any]:
    """Return the members that tell ``usage``: its own if they are of this API. What nobody told is left out, as Ollama does."""
    if usage is None:
        return {}
    if usage.format in FAMILY and usage.raw:
        return dict(usage.raw)
    losses += usage_losses(usage)
    for path, count, what in (
        ("prompt_eval_count", usage.cache_read_input_tokens, "tokens read from a cache"),
        ("prompt_eval_count", usage.cache_creation_input_tokens, "tokens written to a cache"),
        ("eval_count", usage.reasoning_output_tokens, "tokens of thinking"),
    ):
        if count:
            losses.append(Loss("lost", path, what, "are counted among the others alone here"))
    counts = {"prompt_eval_count": usage.all_input, "eval_count": usage.output_tokens}
    return {name: count for name, count in counts.items() if count is not None}
