"""The generic cell rate algorithm (GCRA): a rate with a burst, kept in one number per subject.

The number is the moment at which all that was taken will have flown back, "full at": the theoretical arrival time of ITU-T
I.371. Taking n moves it on by n intervals; it may be ahead of now by the burst, and what would lead further must wait. Nothing
is counted, nothing has to be reset, and a subject whose moment has passed is like one that never came.
"""

from __future__ import annotations

from ..units import Rate


class Pace:
    """A rate, and how much of it may be taken at once. Times are seconds of one clock that does not go back.

    ``interval`` is what one costs, ``depth`` how far ahead the moment may be. Within any ``period_s`` no more than ``count``
    and ``burst`` together can be taken: a burst, and what flows back meanwhile.
    """

    __slots__ = ("burst", "interval", "depth")

    def __init__(self, rate: Rate, burst: int | None = None) -> None:
        self.burst = rate.count if burst is None else burst
        self.interval = rate.period_s / rate.count
        self.depth = self.interval * (self.burst + 0.001)  # or sums of floats would cost somebody the last of a burst

    def left(self, full_at: float, now: float) -> int:
        """Return how many could be taken at once."""
        ahead = full_at - now
        return self.burst if ahead <= 0 else max(0, int((self.depth - ahead) / self.interval))
