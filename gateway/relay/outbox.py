"""What is written in one turn of the event loop goes out together.

A peer that waits is woken by a write. Written one by one, with the work for the next call in between, it has gone back to
sleep each time; written together, it is woken once and finds the rest. Of 16 calls at a time, each small and answered at
once, that is a third of what they cost in the kernel. Who writes alone, as most do who wait for a model, is not held up.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakValueDictionary

ALONE: Final = 16
"""After a turn with one write, so many go out at once before another turn is tried."""

LARGE: Final = 16 * 1024
"""Bytes of a write that nothing waits for."""

_outboxes: Final[WeakValueDictionary[asyncio.AbstractEventLoop, Outbox]] = WeakValueDictionary()
"""Those that somebody writes by: each holds its loop."""


class Outbox:
    """The writes of one loop's turn, ``waiting`` for its end. Order is kept for each transport: whoever writes to it past the
    outbox, hands it on or closes it must ``flush`` before. One that is closed all the same gets nothing more.
    """

    __slots__ = ("waiting", "_loop", "_alone", "__weakref__")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting: list[tuple[asyncio.Transport, bytes]] = []
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
        if len(data) > LARGE:
            self.flush()  # it may have to wait for its reader, which its writer has to see

    def flush(self) -> None:
        """Write what waits."""
        waiting = self.waiting
        if not waiting:
            return  # somebody could not wait for it
        self.waiting = []
        if len(waiting) == 1:
            self._alone = ALONE
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)


def outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    """Return the one outbox of a loop, for as long as anybody has it."""
    return _outboxes.get(loop) or _outboxes.setdefault(loop, Outbox(loop))
