"""When a provider says that an account is back: from the headers of its refusal, and Retry-After.

Of limits that are told side by side, those count that are used up (``remaining`` 0), and of these the one that is back last.
Sources: the pages "Rate limits" of OpenAI (a reset is the time until then, ``6m0s``), Anthropic (a time in RFC 3339; for
subscriptions ``anthropic-ratelimit-unified-reset``, Unix seconds, with the status ``rejected``) and OpenRouter
(``x-ratelimit-reset``, Unix milliseconds).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from ..errors import GatewayError
from .options import Source

_OPENAI: Final = "x-ratelimit-remaining"
_ANTHROPIC: Final = re.compile(r"anthropic-ratelimit-([a-z-]+)-remaining")
_UNIFIED: Final = "anthropic-ratelimit-unified"
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(h|ms|m|s|us|µs|ns)")
_DURATION: Final = re.compile(rf"(?:{_PART.pattern}){{1,9}}")
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_MOMENT: Final = 1e8
"""A number above is no time until then, which would be three years, but a moment in Unix seconds."""
_MILLIS: Final = 1e11
"""A moment above is in milliseconds: in seconds it would be in the year 5138."""


def back_in_s(error: GatewayError, sources: Iterable[Source], unix: float) -> float | None:
    """Return in how many seconds the provider says to come back, above 0; None when it says nothing, or nonsense."""
    for source in sources:
        wait = error.retry_after_s if source == "retry-after" else _reset_s(error.limits, unix)
        if wait is not None and math.isfinite(wait) and wait > 0:
            return wait
    return None


def _reset_s(headers: Mapping[str, str], unix: float) -> float | None:
    found = [wait for text in _used_up(headers) if (wait := _wait_s(text.strip(), unix)) is not None]
    return max(found, default=None)


def _used_up(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the resets of limits that are used up."""
    for name, value in headers.items():
        if name.startswith(_OPENAI):
            reset = f"x-ratelimit-reset{name.removeprefix(_OPENAI)}"
        elif found := _ANTHROPIC.fullmatch(name):
            reset = f"anthropic-ratelimit-{found[1]}-reset"
        else:
            continue
        if value.strip() == "0" and reset in headers:
            yield headers[reset]
    if headers.get(f"{_UNIFIED}-status") == "rejected" and f"{_UNIFIED}-reset" in headers:
        yield headers[f"{_UNIFIED}-reset"]


def _wait_s(text: str, unix: float) -> float | None:
    """Read a time until then or a moment, in any spelling."""
    if _DURATION.fullmatch(text) is not None:
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    try:
        number = float(text)
    except ValueError:
        return _moment_s(text, unix)
    if number > _MILLIS:
        return number / 1000 - unix
    return number - unix if number > _MOMENT else number


def _moment_s(text: str, unix: float) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.timestamp() - unix
    except (ValueError, OverflowError):
        return None
