"""What is known of an account while the gateway runs: what it does, what it must not do, and why.

Cooldowns count in seconds of a monotonic clock, so that a change of the wall clock neither shortens nor lengthens any. The
wall's clock is only for people and for the record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from .record import MAX_EVENTS, MAX_SCOPES, Cooldown, Counts, Event, Record

ALL: Final = ""
"""The scope of a cooldown that closes the account for every model."""
_NEWS_S: Final = 1.0
"""A cooldown that another failure makes longer by less is nothing new."""
LATER_S: Final = 1e-6
"""By how much one moment of Unix time is surely later than another."""
_PROBED_S: Final = 1.0
"""So long those that find out whether an account is back go alone. Refusals come at once, and an answer may take minutes: an
account that has not refused by then has let them in."""


class Parked:
    """One cooldown: over at ``until``, ``length`` seconds after it was said; ``at`` is that in Unix seconds. Then it stays
    until one of the calls that find out has found out. ``probing`` of them are under way, the first since ``probed``."""

    __slots__ = ("until", "length", "at", "kind", "why", "probing", "probed")

    def __init__(self, until: float, length: float, at: float, kind: str, why: str) -> None:
        self.until = until
        self.length = length
        self.at = at
        self.kind = kind
        self.why = why
        self.probing = 0
        self.probed = -math.inf

    def probe(self, now: float) -> None:
        """Send a call to find out."""
        if self.probing == 0:
            self.probed = now
        self.probing += 1

    def wait(self, now: float) -> float:
        """Seconds until all may go, or find out; not below 0."""
        since = now - self.probed
        return self.left(now) or (_PROBED_S - since if self.probing and 0 <= since < _PROBED_S else 0.0)

    def left(self, now: float) -> float:
        """Seconds until it is over; none if the clock went back behind its beginning."""
        left = self.until - now
        return left if 0 < left <= self.length else 0.0


class State:
    """An account's state. ``turn`` orders those that take turns; ``calls`` and ``errors`` are since the process started,
    ``changed`` grows with everything that others should know beside them. ``cooling`` are its cooldowns by scope."""

    __slots__ = ("in_flight", "turn", "calls", "errors", "changed", "cooling", "back", "events", "reset_at")

    def __init__(self) -> None:
        self.in_flight = 0
        self.turn = 0.0
        self.calls = 0
        self.errors = 0
        self.changed = 0
        self.cooling: dict[str, Parked] = {}
        self.back: dict[str, float] = {}
        """When cooldowns were found to be over, in Unix seconds."""
        self.events: list[Event] = []
        self.reset_at = 0.0

    def is_closed(self, model: str, now: float, probes: int) -> bool:
        """Whether no call may go out now; ``probes`` of them may where a cooldown is over and nobody knows yet."""
        for scope in (ALL, model):
            parked = self.cooling.get(scope)
            if parked is None:
                continue
            if parked.left(now) > 0:
                return True
            if probes == 0:
                self.over(scope, parked.at)
            elif parked.probing >= probes and parked.wait(now) > 0:
                return True
        return False

    def closing(self, model: str) -> list[Parked]:
        """Return the cooldowns that stand in the way of a call for ``model``."""
        return [parked for scope in (ALL, model) if (parked := self.cooling.get(scope)) is not None]

    def park(self, scope: str, now: float, unix: float, length: float, kind: str, why: str, model: str = "") -> bool:
        """Leave it alone for ``length`` seconds, or longer if that was said before. Return whether that is news."""
        parked, until = self.cooling.get(scope), now + length
        # The later word, whatever the wall's clock did.
        unix = max(unix, max(self.reset_at, self.back.get(scope, 0.0)) + LATER_S)
        if parked is None:
            while len(self.cooling) >= MAX_SCOPES:
                del self.cooling[next(iter(self.cooling))]
            self.cooling[scope] = Parked(until, length, unix, kind, why)
            is_news = True
        else:
            standing = parked.left(now)
            is_news = standing == 0 or length > standing + _NEWS_S
            parked.at = max(parked.at, unix)
            if length > standing:
                parked.until, parked.length, parked.kind, parked.why = until, length, kind, why
        self.back.pop(scope, None)
        if is_news:
            what = "cooling" if kind == "rate_limit" else "parked"
            self.tell(Event(unix, what, model, kind, why, None if math.isinf(length) else round(length, 3)))
        self.changed += 1
        return is_news

    def over(self, scope: str, unix: float) -> bool:
        """Use it again. Return whether there was a cooldown."""
        parked = self.cooling.pop(scope, None)
        if parked is None:
            return False
        while len(self.back) >= MAX_SCOPES:
            del self.back[next(iter(self.back))]
        self.back[scope] = unix = max(unix, parked.at + LATER_S)  # the later word, whatever the wall's clock did
        self.tell(Event(unix, "back", scope))
        return True

    def reset(self, at: float) -> bool:
        """Forget the cooldowns that were said up to ``at``. Return whether that word is new."""
        if at <= self.reset_at:
            return False
        self.reset_at = at
        for scope in [scope for scope, parked in self.cooling.items() if parked.at <= at]:
            del self.cooling[scope]
            self.back[scope] = at
        self.tell(Event(at, "reset"))
        return True

    def tell(self, event: Event) -> None:
        """Note an event; the oldest goes for it."""
        self.events.append(event)
        del self.events[:-MAX_EVENTS]
        self.changed += 1

    # -- for others

    def record(self, mark: str, writer: str, now: float, unix: float) -> Record:
        """Return what others should know."""
        cooldowns = {scope: Cooldown(at, 0.0) for scope, at in self.back.items()}
        for scope, parked in self.cooling.items():
            endless = math.isinf(parked.until)
            until = None if endless else unix + parked.left(now)
            cooldowns[scope] = Cooldown(
                parked.at, until, parked.kind, parked.why, None if endless else round(parked.length, 3)
            )
        counts = {writer: Counts(unix, self.calls, self.errors, self.in_flight)}
        return Record(mark, cooldowns, tuple(self.events), counts)

    def absorb(self, cooldowns: Mapping[str, Cooldown], now: float, unix: float) -> None:
        """Take over what others know. What is over by now is no news, but that it was found to be over."""
        for scope, told in cooldowns.items():
            mine = self.cooling.get(scope)
            if told.at <= self.reset_at:
                continue
            if told.until == 0:
                if mine is not None and told.at > mine.at:
                    self.over(scope, told.at)
            elif mine is None or told.at >= mine.at:
                # A wall's clock that went back must not make it longer than it was meant to be.
                most = math.inf if told.length_s is None else told.length_s
                left = math.inf if told.until is None else min(told.until - unix, most)
                known = self.back.get(scope, -math.inf) if mine is None else -math.inf
                if left > 0 and told.at > known and (mine is None or left > mine.left(now) + _NEWS_S):
                    self._take_over(scope, now + left, left, told)

    def _take_over(self, scope: str, until: float, left: float, told: Cooldown) -> None:
        parked = self.cooling.get(scope)
        if parked is None:
            if len(self.cooling) < MAX_SCOPES:
                self.cooling[scope] = Parked(until, left, told.at, told.kind, told.why)
                self.back.pop(scope, None)
        else:
            parked.until, parked.length, parked.at, parked.kind, parked.why = until, left, told.at, told.kind, told.why
