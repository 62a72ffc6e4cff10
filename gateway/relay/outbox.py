"""What is written in one turn of the event loop goes out together.

A peer that waits is woken by a write. Written one by one, with the work for the next call in between, it has gone back to
sleep each time; written together, it is woken once and finds the rest. Of 16 calls at a time, each small and answered at
once, that is a third of what they cost in the kernel. Who writes alone, as most do who wait for a model, is not held up.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakKeyDictionary

ALONE: Final = 16
"""After a turn with one write, so many go out at once before another turn is tried."""

_outboxes: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox]] = WeakKeyDictionary()


class Outbox:
    """The writes of one loop's turn. Order is kept for each transport, as long as nobody writes to it past the outbox.

    ``waiting`` are those of this turn, ``turn`` counts them: who has written in a turn that is not over must ``flush`` before
    it writes by itself. A transport that is closed meanwhile gets nothing more.
    """

    __slots__ = ("waiting", "turn", "_loop", "_alone")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting: list[tuple[asyncio.Transport, bytes]] = []
        self.turn = 0
        self._loop = loop
        self._alone = ALONE

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Have ``data`` written to ``transport``: now, or with the others of this turn."""
        if self._alone:
            self._alone -= 1
            transport.write(data)
            return
        waiting = self.waiting
        if not waiting:
            self._loop.call_soon(self.flush)
        waiting.append((transport, data))

    def flush(self) -> None:
        """Write what waits."""
        waiting = self.waiting
        if not waiting:
            return  # somebody could not wait for it
        self.waiting = []
        self.turn += 1
        if len(waiting) == 1:
            self._alone = ALONE
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)


def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """Return the one outbox of a loop."""
    return _outboxes.get(loop) or _outboxes.setdefault(loop, Outbox(loop))
