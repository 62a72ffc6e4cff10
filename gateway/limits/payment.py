"""Budgets: an amount of money for a calendar hour, day, week or month of UTC, and what one call takes of it.

What a call may cost is held before it is sent, as soon as it is known where: of the price there, the size of the request and
what is reserved for the answer. What it did cost is counted in the window in which that is known, and what is held and not
counted goes back when the call is over. Amounts are picodollars.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

from ..call import Call, Payer
from ..doors import OPERATIONS
from ..errors import QuotaExceeded, Unsupported
from ..pricing.price import Price
from ..units import Budget
from .book import Subject


class Purse:
    """A budget. ``wall`` tells Unix seconds that do not go back; ``whom`` is what a refusal calls the subject."""

    __slots__ = ("budget", "_reserve", "_unpriced", "_whom", "_wall", "_start", "_end")

    def __init__(
        self, budget: Budget, reserve: int, unpriced: Literal["refuse", "pass"], whom: str, wall: Callable[[], float]
    ) -> None:
        self.budget = budget
        self._reserve = reserve
        self._unpriced = unpriced
        self._whom = whom
        self._wall = wall
        self._start = self._end = 0.0

    def roll(self, subject: Subject) -> float:
        """Begin a new window if the last is over, and return the time. What is held stays held."""
        now = self._wall()
        if now >= self._end:
            self._start, self._end = window(self.budget.period, now)
        if subject.window_end != self._end:
            if subject.window_start < self._start:  # else it was read from a store, or is of another period
                subject.spent = 0
                subject.window_start = self._start
            elif subject.window_start >= self._end:  # written by a clock that was ahead
                subject.window_start = self._start
            subject.window_end = self._end
        return now

    def estimate(self, call: Call, price: Price | None) -> int:
        """Return what to hold for a try; at most all of the budget, or it could never be made. Raises Unsupported."""
        if price is None:
            if self._unpriced == "pass":
                return 0
            what = "what is passed on" if call.passed is not None else f"the model {call.model}"
            raise Unsupported(f"{what} has no price here, and a budget is kept for {self._whom}")
        asked = 0 if call.wire is None else call.wire.by_size
        cost = price.estimate(asked, 0 if call.codec.format in OPERATIONS else self._reserve)
        return min(cost, self.budget.pico)

    def refusal(self, subject: Subject, now: float) -> QuotaExceeded:
        """Return the error for a call that would cost more than there is."""
        wait = max(1.0, subject.window_end - now)
        spent = "spent" if subject.spent >= self.budget.pico else "spent, or held for calls under way"
        message = f"the budget of {self.budget} for {self._whom} is {spent}: it begins anew in {int(wait)} s"
        return QuotaExceeded(message, retry_after_s=wait)


class Payment:
    """A Payer: what one call takes of a budget. ``outer`` is who pays besides."""

    __slots__ = ("_purse", "_subject", "_outer", "_most", "_paid", "_held", "_over")

    def __init__(self, purse: Purse, subject: Subject, outer: Payer | None) -> None:
        self._purse = purse
        self._subject = subject
        self._outer = outer
        self._most = 0
        self._paid = 0
        self._held = 0
        self._over = False

    def foresee(self, call: Call, price: Price | None, /) -> None:
        """Hold what a try may cost, beside what the call has cost so far. Raises QuotaExceeded, Unsupported."""
        if self._outer is not None:
            self._outer.foresee(call, price)
        if self._over:
            return
        purse, subject = self._purse, self._subject
        cost = purse.estimate(call, price)
        if not cost:
            return  # what is free is free also where nothing is left
        now = purse.roll(subject)
        runs_beside = call.cause == "hedge"
        most = self._most + cost if runs_beside else max(self._most, self._paid + cost)
        wanted = most - self._paid
        if subject.spent + subject.held - self._held + wanted > purse.budget.pico and wanted > self._held:
            raise purse.refusal(subject, now)
        self._most = most
        self._hold(wanted)

    def pay(self, cost: int, /) -> None:
        """Count what a try cost."""
        if self._outer is not None:
            self._outer.pay(cost)
        self._purse.roll(self._subject)
        self._subject.spent += cost
        self._paid += cost
        self._hold(0 if self._over else max(0, self._most - self._paid))

    def close(self) -> None:
        """The call is over: nothing is held for it any more."""
        self._over = True
        self._hold(0)

    def _hold(self, amount: int) -> None:
        subject = self._subject
        subject.held += amount - self._held
        self._held = amount
        subject.touch()


def window(period: str, unix: float) -> tuple[float, float]:
    """Return when the calendar window around ``unix`` began and when it ends, in UTC; weeks begin on Monday."""
    if period == "h":
        start = unix // 3600 * 3600
        return start, start + 3600
    day = datetime.fromtimestamp(unix, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        first, after = day, day + timedelta(days=1)
    elif period == "week":
        first = day - timedelta(days=day.weekday())
        after = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        after = (first + timedelta(days=32)).replace(day=1)
    return first.timestamp(), after.timestamp()
