"""When a key expires, as people write it: a date, a moment, or in how long."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from ..units import Duration

_FAR: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""Calendars end here."""


def at(text: str) -> float:
    """Return the Unix seconds of ``2027-01-31`` (when that day begins, in UTC) or ``2027-01-31T18:00``, with an offset or
    without (UTC). Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f'expires: expected a date such as "2027-01-31" or "2027-01-31T18:00Z", got {text!r}'
        ) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def in_time(text: str, now: float) -> float:
    """Return the same, or ``30d`` from ``now`` on; infinity for ``never``. Raises ValueError."""
    if text == "never":
        return math.inf
    try:
        return now + Duration.parse(text)
    except ValueError:
        pass
    try:
        return at(text)
    except ValueError:
        said = f'expires: expected "30d", a date such as "2027-01-31", or "never", got {text!r}'
        raise ValueError(said) from None


def written(moment: float) -> str:
    """Return Unix seconds as people read them, in UTC."""
    if moment >= _FAR:
        return "after the year 9999"
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
