"""Rate-limit headers of a provider as callers of another format know them.

OpenAI: ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, a reset being the time until then, ``6m0s``. Anthropic:
``anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}``, a reset being a time in RFC
3339. Gemini and Ollama have none; Gemini's RetryInfo stands in the error's body.

Nothing is made up: what the other family has no name for (tokens of the input alone), a reset whose unit nobody told (Azure's
bare ``59``) and what is no count (its ``-1``) are left out. Sources: the pages "Rate limits" of both APIs.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from .headers import retry_after_s

_OPENAI: Final = "x-ratelimit-"
_ANTHROPIC: Final = "anthropic-ratelimit-"
_UNITS: Final = ("requests", "tokens")
"""What both families count. Anthropic's ``tokens`` are those of the limit that is nearest."""
_FACTS: Final = ("limit", "remaining", "reset")
_TO_ANTHROPIC: Final = {f"{_OPENAI}{fact}-{unit}": f"{_ANTHROPIC}{unit}-{fact}" for unit in _UNITS for fact in _FACTS}
_TO_OPENAI: Final = {theirs: ours for ours, theirs in _TO_ANTHROPIC.items()}
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(h|ms|m|s|us|µs|ns)")
_DURATION: Final = re.compile(rf"(?:{_DURATION_PART.pattern}){{1,9}}")
_LONGEST_S: Final = 366 * 86400.0
"""A reset further off than this is none: no limit is counted by the century."""


def for_caller(headers: Mapping[str, str], format: str, now: float | None = None) -> dict[str, str]:
    """Return ``headers`` (lower case) of a provider's response as a caller of ``format`` knows them.

    A family of the caller's own passes as it came, another is translated or left out; ``retry-after`` becomes whole seconds,
    ``retry-after-ms`` passes where SDKs read it. ``now`` is Unix seconds.
    """
    openai, anthropic = format.startswith("openai."), format.startswith("anthropic.")
    now = time.time() if now is None else now
    told: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(_OPENAI):
            if openai:
                told[name] = value
            elif anthropic and (theirs := _TO_ANTHROPIC.get(name)) and (new := _translated(name, value, now)):
                told.setdefault(theirs, new)
        elif name.startswith(_ANTHROPIC):
            if anthropic:
                told[name] = value
            elif openai and (ours := _TO_OPENAI.get(name)) and (new := _translated(name, value, now)):
                told.setdefault(ours, new)
        elif name == "retry-after-ms":
            if openai or anthropic:
                told[name] = value
        elif name != "retry-after":
            told[name] = value
    if "retry-after" in headers or "retry-after-ms" in headers:
        value = headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            told["retry-after"] = value
        elif (wait := retry_after_s(headers, now)) is not None:
            told["retry-after"] = str(math.ceil(wait))
    return told


def _translated(name: str, value: str, now: float) -> str | None:
    """Return the value of a header in the other family's words; None if it cannot be told."""
    value = value.strip()
    if "-reset" not in name:
        return value if value.isascii() and value.isdigit() else None
    return _moment(value, now) if name.startswith(_OPENAI) else _duration(value, now)


def _moment(duration: str, now: float) -> str | None:
    """``6m0s`` from now, to the second and never too early: 2026-11-21T10:00:00Z."""
    if _DURATION.fullmatch(duration) is None:
        return None
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))
    if seconds > _LONGEST_S:
        return None
    return datetime.fromtimestamp(math.ceil(now + seconds), UTC).isoformat()[:19] + "Z"


def _duration(moment: str, now: float) -> str | None:
    """The time until ``moment``, in whole seconds as Go writes them: ``1h0m5s``, ``6m0s``, ``0s``."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return None
    if then.tzinfo is None:
        return None
    left = then.timestamp() - now
    if left > _LONGEST_S:
        return None
    minutes, seconds = divmod(max(0, math.ceil(left)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
