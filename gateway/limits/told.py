"""What is left of a limit, in the headers that the clients of a format read.

OpenAI: ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, a reset being the time until then, ``6m0s``. Anthropic:
``anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}``, a reset being a time in RFC 3339. Other formats have none.
Sources: the pages "Rate limits" of both APIs.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Literal

from .pace import Pace

Unit = Literal["requests", "tokens"]
Family = Literal["openai", "anthropic"]


@cache
def family_of(format: str) -> Family | None:
    """Return whose headers the clients of ``format`` read; None if they read none."""
    vendor = format.partition(".")[0]
    return "openai" if vendor == "openai" else "anthropic" if vendor == "anthropic" else None


class Told:
    """The headers of one unit of one limit."""

    __slots__ = ("openai", "anthropic", "_pace", "_limit")

    def __init__(self, unit: Unit, pace: Pace) -> None:
        self._pace = pace
        self._limit = str(pace.burst)
        self.openai = f"x-ratelimit-limit-{unit}", f"x-ratelimit-remaining-{unit}", f"x-ratelimit-reset-{unit}"
        start = f"anthropic-ratelimit-{unit}-"
        self.anthropic = f"{start}limit", f"{start}remaining", f"{start}reset"

    def add(self, headers: dict[str, str], family: Family, full_at: float, now: float, unix: float) -> None:
        """Add to ``headers``, unless the figures of a provider stand there; ``unix`` is now by the wall's clock."""
        limit, remaining, reset = self.openai if family == "openai" else self.anthropic
        if limit in headers:
            return
        ahead = full_at - now
        seconds = math.ceil(ahead) if ahead > 0 else 0
        headers[limit] = self._limit
        headers[remaining] = str(self._pace.left(full_at, now))
        headers[reset] = _duration(seconds) if family == "openai" else _moment(math.ceil(unix) + seconds)


@lru_cache(1024)
def _duration(seconds: int) -> str:
    """As Go writes them: ``1h0m5s``, ``6m0s``, ``0s``."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


@lru_cache(1024)
def _moment(unix: int) -> str:
    """``2026-11-21T10:00:00Z``."""
    return datetime.fromtimestamp(unix, UTC).isoformat()[:19] + "Z"
