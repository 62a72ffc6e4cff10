"""Who has taken what: one small record for each subject of a limit, in a table of bounded size that forgets nothing in use."""

from __future__ import annotations

from asyncio import Future
from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .keeping import Keeper

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

    ``waiting`` counts the calls that wait, in the line or for their moment. ``spent`` are picodollars in the window of a
    budget, between two moments in Unix seconds, ``held`` those that calls under way may still cost. ``book`` is where it
    stands under ``key``; ``coming`` is set until what a keeper wrote of it is read.
    """

    __slots__ = (
        "requests",
        "tokens",
        "under_way",
        "waiting",
        "line",
        "spent",
        "held",
        "window_start",
        "window_end",
        "book",
        "key",
        "coming",
    )

    def __init__(self, book: Book | None = None, key: Hashable = None) -> None:
        self.requests = 0.0
        self.tokens = 0.0
        self.under_way = 0
        self.waiting = 0
        self.line: deque[Waiting] | None = None
        self.spent = 0
        self.held = 0
        self.window_start = 0.0
        self.window_end = 0.0
        self.book = book
        self.key = key
        self.coming: Future[None] | None = None

    def touch(self) -> None:
        """Have it written down, if somebody does."""
        book = self.book
        if book is not None and book.keeper is not None:
            book.keeper.touch(self)

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

    def at_rest(self, now: float, wall: float) -> bool:
        """Whether it is as good as new, so that forgetting it changes nothing; ``wall`` is now in Unix seconds."""
        if self.under_way or self.waiting or self.requests > now or self.tokens > now or self.coming is not None:
            return False
        return not self.spent or self.window_end <= wall


class Steady:
    """Time that does not go back: a clock that is set back goes on from where it was."""

    __slots__ = ("_read", "_ahead")

    def __init__(self) -> None:
        self._read = 0.0
        self._ahead = 0.0

    def __call__(self, read: float) -> float:
        """Return the time for what the clock says."""
        if read < self._read:
            self._ahead += self._read - read
        self._read = read
        return read + self._ahead


class Book:
    """Subjects by key. Beyond ``cap`` one that is at rest makes room; if none is found, the newcomers share one record.

    So whoever invents names can neither fill the memory nor push out what is known of others. ``now`` and ``wall`` are how
    its limits read their two clocks; ``keeper`` writes it down, if somebody does.
    """

    __slots__ = ("subjects", "beyond", "now", "wall", "keeper")

    def __init__(self) -> None:
        self.subjects: dict[Hashable, Subject] = {}
        self.beyond = Subject()
        self.now = Steady()
        self.wall = Steady()
        self.keeper: Keeper | None = None

    def subject(self, key: Hashable, now: float, cap: int, wall: float = 0.0) -> Subject:
        """Return the record of ``key``."""
        found = self.subjects.get(key)
        return self._new(key, now, cap, wall) if found is None else found

    def _new(self, key: Hashable, now: float, cap: int, wall: float) -> Subject:
        subjects = self.subjects
        for _ in range(LOOKED_AT):
            if len(subjects) < cap:
                break
            oldest = next(iter(subjects))
            subject = subjects.pop(oldest)
            if not subject.at_rest(now, wall):
                subjects[oldest] = subject  # to the end: the next newcomer looks at others
        else:
            if len(subjects) >= cap:
                return self.beyond
        subjects[key] = made = Subject(self, key)
        if self.keeper is not None:
            self.keeper.meet(made)
        return made
