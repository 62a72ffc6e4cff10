"""How many calls may be made twice: a share of those of the last minutes, so that slow providers do not get double the load."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 600.0
"""Time over which the share holds."""
BUCKETS: Final = 10
"""In how many steps the window moves on."""
LEAST: Final = 1
"""Second calls that may be made in a window however few calls there were: the first of all may be late."""


class Allowance:
    """Counts the calls of one target, and those made twice. ``clock`` tells seconds."""

    __slots__ = ("share", "_clock", "_counts")

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.share = share
        self._clock = clock
        self._counts = _Counts()

    def carry_over(self, old: Allowance, /) -> None:
        """Go on with what ``old`` has counted."""
        self._counts = old._counts

    def count(self) -> None:
        """Count a call."""
        self._counts.calls[self._now()] += 1

    def take(self) -> bool:
        """Return whether one more may be made twice, and count it if so."""
        at, counts = self._now(), self._counts
        extra = sum(counts.extra)
        if extra >= LEAST and extra + 1 > self.share * sum(counts.calls):
            return False
        counts.extra[at] += 1
        return True

    def _now(self) -> int:
        """Return the place of this moment, with what is out of the window forgotten."""
        step, counts = int(self._clock() / (WINDOW_S / BUCKETS)), self._counts
        # where the clock goes back the window stands still until it is there again
        for passed in range(max(counts.step + 1, step - BUCKETS + 1), step + 1):
            counts.calls[passed % BUCKETS] = counts.extra[passed % BUCKETS] = 0
        counts.step = max(counts.step, step)
        return counts.step % BUCKETS


class _Counts:
    """By step of the window; ``step`` is the last."""

    __slots__ = ("calls", "extra", "step")

    def __init__(self) -> None:
        self.calls = [0] * BUCKETS
        self.extra = [0] * BUCKETS
        self.step = 0
