"""Who has taken what: one small record for each subject of a limit, in a table of bounded size that forgets nothing in use."""

from __future__ import annotations

from asyncio import Future
from collections import deque
from collections.abc import Hashable
from typing import Final

LOOKED_AT: Final = 16
"""Records that a newcomer to a full table looks at, to find one that is at rest."""


class Waiting:
    """A call in the line for a place; ``limit`` is how many may be under way, as the rules said when it came."""

    __slots__ = ("future", "limit")

    def __init__(self, future: Future[None], limit: int) -> None:
        self.future = future
        self.limit = limit


class Subject:
    """What one subject has taken: the moments of ``Pace`` for requests and tokens, the calls under way, the line for a place.

    ``waiting`` counts the calls that wait, in the line or for their moment.
    """

    __slots__ = ("requests", "tokens", "under_way", "waiting", "line")

    def __init__(self) -> None:
        self.requests = 0.0
        self.tokens = 0.0
        self.under_way = 0
        self.waiting = 0
        self.line: deque[Waiting] | None = None

    def leave(self) -> None:
        """A call is over: its place goes to the first in the line."""
        self.under_way -= 1
        if self.line:
            self.advance()

    def advance(self) -> None:
        """Give free places to those in the line."""
        line = self.line
        while line and self.under_way < line[0].limit:
            future = line.popleft().future
            if not future.done():
                self.under_way += 1
                future.set_result(None)

    def at_rest(self, now: float) -> bool:
        """Whether it is as good as new, so that forgetting it changes nothing."""
        return not self.under_way and not self.waiting and self.requests <= now and self.tokens <= now


class Book:
    """Subjects by key. Beyond ``cap`` one that is at rest makes room; if none is found, the newcomers share one record.

    So whoever invents names can neither fill the memory nor push out what is known of others. ``now`` is of the same clock
    always, and never goes back for those who ask here: a clock that does stands still until it has caught up.
    """

    __slots__ = ("subjects", "beyond", "_read", "_ahead")

    def __init__(self) -> None:
        self.subjects: dict[Hashable, Subject] = {}
        self.beyond = Subject()
        self._read = 0.0
        self._ahead = 0.0

    def now(self, read: float) -> float:
        """Return the time for what the clock says; one that is set back goes on from where it was."""
        if read < self._read:
            self._ahead += self._read - read
        self._read = read
        return read + self._ahead

    def subject(self, key: Hashable, now: float, cap: int) -> Subject:
        """Return the record of ``key``."""
        found = self.subjects.get(key)
        return self._new(key, now, cap) if found is None else found

    def _new(self, key: Hashable, now: float, cap: int) -> Subject:
        subjects = self.subjects
        for _ in range(LOOKED_AT):
            if len(subjects) < cap:
                break
            oldest = next(iter(subjects))
            subject = subjects.pop(oldest)
            if not subject.at_rest(now):
                subjects[oldest] = subject  # to the end: the next newcomer looks at others
        else:
            if len(subjects) >= cap:
                return self.beyond
        subjects[key] = made = Subject()
        return made
