"""What is left of a limit, in the headers that the clients of a format read.

OpenAI: ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``, a reset being the time until then, ``6m0s``. Anthropic:
``anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}``, a reset being a time in RFC 3339. Other formats have none.
Sources: the pages "Rate limits" of both APIs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from time import monotonic
from typing import Final, Literal

from ..call import Call
from .book import Subject
from .pace import Pace

Family = Literal["openai", "anthropic"]
_LAST: Final = 253_402_300_799
"""The end of the year 9999: no date is later."""


@cache
def family_of(format: str) -> Family | None:
    """Return whose headers the clients of ``format`` read; None if they read none."""
    vendor = format.partition(".")[0]
    return "openai" if vendor == "openai" else "anthropic" if vendor == "anthropic" else None


class Told:
    """The headers of one limit: of its requests, its tokens, or both. Where all is left, as it mostly is, they are the same
    for all callers of a family, and for Anthropic's within a second: ``_rested`` is that second and what is told in it."""

    __slots__ = ("_units", "_openai", "_rested")

    def __init__(self, requests: Pace | None, tokens: Pace | None) -> None:
        paces = {"requests": requests, "tokens": tokens}
        self._units = [
            (unit == "requests", pace, _names(unit, pace)) for unit, pace in paces.items() if pace is not None
        ]
        self._openai = self._write("openai", Subject(), {}, 0.0, 0)
        self._rested: tuple[int, dict[str, str]] = (-1, {})

    def __bool__(self) -> bool:
        return bool(self._units)

    def add(self, call: Call, subject: Subject, standing: Mapping[str, str], now: float) -> Mapping[str, str]:
        """Return ``standing`` with what is left; figures of a provider that stand there do."""
        family = family_of(call.codec.format)
        if family == "openai":
            unix, rested = 0, self._openai
        elif family is None:
            return standing
        else:
            unix = -int(-(call.began_unix + (monotonic() - call.began)) // 1)
            said_at, rested = self._rested
            if unix != said_at:
                rested = self._write(family, Subject(), {}, 0.0, unix)
                self._rested = unix, rested
        if subject.requests <= now and subject.tokens <= now and rested.keys().isdisjoint(standing):
            return {**standing, **rested}
        return self._write(family, subject, standing, now, unix)

    def _write(
        self, family: Family, subject: Subject, standing: Mapping[str, str], now: float, unix: int
    ) -> dict[str, str]:
        """Return the same, word by word. ``unix`` is the time that a reset counts from, where it is told as a time."""
        headers = {**standing}
        for of_requests, pace, (limit, openai, anthropic) in self._units:
            named, remaining, reset = openai if family == "openai" else anthropic
            if named in headers:
                continue
            ahead = (subject.requests if of_requests else subject.tokens) - now
            seconds, left = 0, limit
            if ahead > 0.0:
                seconds, room = -int(-ahead // 1), pace.depth - ahead
                left = str(int(room / pace.interval)) if room > 0.0 else "0"
            headers[named] = limit
            headers[remaining] = left
            headers[reset] = _duration(seconds) if family == "openai" else _moment(unix + seconds)
        return headers


_Three = tuple[str, str, str]


def _names(unit: str, pace: Pace) -> tuple[str, _Three, _Three]:
    """Return the limit as it is told, and the names of the three headers for both families."""
    start = f"anthropic-ratelimit-{unit}-"
    openai = f"x-ratelimit-limit-{unit}", f"x-ratelimit-remaining-{unit}", f"x-ratelimit-reset-{unit}"
    return str(pace.burst), openai, (f"{start}limit", f"{start}remaining", f"{start}reset")


@lru_cache(1024)
def _duration(seconds: int) -> str:
    """As Go writes them: ``1h0m5s``, ``6m0s``, ``0s``."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


@lru_cache(1024)
def _moment(unix: int) -> str:
    """``2026-11-21T10:00:00Z``."""
    return datetime.fromtimestamp(min(unix, _LAST), UTC).isoformat()[:19] + "Z"
