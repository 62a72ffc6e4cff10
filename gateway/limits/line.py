"""Waiting: in the line for a place among the calls under way, or for the moment at which what was taken is there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

from ..call import Call, Step
from ..errors import Cancelled
from ..units import seconds as to_micros
from .book import Subject, Waiting


async def place(call: Call, subject: Subject, most: int, patience: float) -> bool:
    """Wait for a place, and take it. Return False if none came within ``patience`` seconds. Raises Cancelled."""
    began, line = monotonic(), subject.line
    if line is None:
        subject.line = line = deque()
    mine = Waiting(call.scope.loop.create_future(), most)
    line.append(mine)
    subject.waiting += 1
    try:
        async with asyncio.timeout(patience):
            await mine.future
        if call.scope.closed:
            raise Cancelled("the call was over before its turn came")
    except BaseException as fault:
        if mine.future.done() and not mine.future.cancelled():
            subject.leave()  # the place came at the same moment
        else:
            if mine in line:  # else a place came after it was given up, and went on to the next
                line.remove(mine)
            subject.advance()
        if isinstance(fault, TimeoutError):
            return False
        raise
    finally:
        subject.waiting -= 1
    _note(call, "a place", began)
    return True


async def turn(call: Call, subject: Subject, sleep: Callable[[float], Awaitable[object]], seconds: float) -> None:
    """Wait for so many seconds. Raises Cancelled."""
    began = monotonic()
    subject.waiting += 1
    try:
        await sleep(seconds)
    finally:
        subject.waiting -= 1
    if call.scope.closed:
        raise Cancelled("the call was over before its turn came")
    _note(call, "its turn", began)


def _note(call: Call, what: str, began: float) -> None:
    call.decision.notes.append(f"limit: waited for {what}")
    ended = monotonic()
    step = Step("limit", f"waited for {what}", to_micros(began - call.began), to_micros(ended - call.began))
    call.decision.steps.append(step)
