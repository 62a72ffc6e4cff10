"""The limit on simultaneous exchanges with one upstream: a count, and a line for those who must wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from time import monotonic

from ..relay.scope import Scope


class Slots:
    """``limit`` slots, given out first come first served.

    Taking a free one costs a comparison and no await, and giving one back that nobody waits for: who does either for every
    call looks at ``free`` and ``line``, and does it without a call.
    """

    __slots__ = ("free", "line")

    def __init__(self, limit: int) -> None:
        self.free = limit
        self.line: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self.line)

    def take(self) -> bool:
        """Take a slot if one is free. Whoever gives one back hands it to the first in line, so nobody overtakes."""
        if self.free > 0:
            self.free -= 1
            return True
        return False

    async def wait(self, scope: Scope, timeout_s: float | None) -> None:
        """Stand in line for a slot. Raises UpstreamError ``timeout.pool`` after ``timeout_s`` seconds."""
        turn: asyncio.Future[None] = scope.loop.create_future()
        self.join(turn)
        deadline = None if timeout_s is None else monotonic() + timeout_s
        try:
            with scope.limit(deadline, "timeout.pool", "every connection to the provider is busy"):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give_back()  # it was ours already when the wait was cancelled
            else:
                self.leave(turn)
            raise

    def join(self, turn: asyncio.Future[None]) -> None:
        """Put ``turn`` at the end of the line. Its result means that the slot is its owner's."""
        self.line.append(turn)

    def leave(self, turn: asyncio.Future[None]) -> None:
        """Take ``turn``, which has no result, out of the line."""
        with contextlib.suppress(ValueError):  # give_back passes over what was cancelled, and forgets it
            self.line.remove(turn)

    def give_back(self) -> None:
        """Hand a slot to the first in line, or put it back. Exactly once for each slot taken."""
        while self.line:
            turn = self.line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
