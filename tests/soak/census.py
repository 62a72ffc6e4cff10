"""A middleware that does nothing but count, at SIGUSR1, what is alive in its process: for rule files of the soak tests.

The counting is done by a child, a copy of the process, so that it costs the memory under test nothing. What the garbage
collector does not track is counted too, where something that is alive refers to it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from headgate.gateway.accounts.pool import AccountPool
from headgate.gateway.call import Call
from headgate.gateway.chain import Next
from headgate.gateway.relay.reply import Reply
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.telemetry.build import Builder
from headgate.gateway.transport.lean_connection import LeanConnection
from headgate.gateway.transport.lean_pool import LeanPool
from headgate.gateway.transport.slots import Slots
from headgate.middlewares.cache import Cache
from headgate.middlewares.limit import Limit
from msgspec import Struct


class CensusOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``to`` is the file that the counts are in, once they are all there."""

    to: str


class Census:
    """Passes calls on, and holds nothing of them."""

    Options = CensusOptions

    def __init__(self, options: CensusOptions) -> None:
        self.to = Path(options.to)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.count, loop)

    async def stop(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        return await call_next(call)

    def count(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a child write down what there is."""
        child = os.fork()
        if child != 0:
            os.waitpid(child, 0)
            return
        try:
            gc.unfreeze()
            forget()
            gc.collect()
            alive = living()
            text = json.dumps({"alive": Counter(map(name_of, alive)), "held": held(alive, loop)})
            made = self.to.with_suffix(".new")
            made.write_text(text)
            made.rename(self.to)
        finally:
            os._exit(0)


def forget() -> None:
    """Throw away what is kept on purpose, up to a bound that takes more calls than there are."""
    for thing in gc.get_objects():
        if type(thing) is Builder:
            thing._calls.clear()
            thing._attempts.clear()
        elif type(thing) is AccountPool:
            for member in thing.all:
                member.state.events.clear()


def name_of(thing: object) -> str:
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}"


def living() -> list[object]:
    """Return every object that the collector tracks, and each that one of them leads to."""
    found = gc.get_objects()
    seen = set(map(id, found))
    for thing in found:  # it grows meanwhile
        for each in below(thing):
            if id(each) not in seen and each is not found and each is not seen:
                seen.add(id(each))
                found.append(each)
    return found


def below(thing: object) -> list[object]:
    """Return what ``thing`` refers to; a Struct that the collector is not told of has to be asked itself."""
    fields = getattr(type(thing), "__struct_fields__", None)
    if fields is None or isinstance(thing, type) or gc.is_tracked(thing):
        return gc.get_referents(thing)
    return [getattr(thing, name) for name in fields]


def is_lent(connection: LeanConnection, pool: LeanPool) -> bool:
    """Whether a connection is open and not idle."""
    idle = any(connection in each for each in pool._idle.values())
    return not idle and connection._transport is not None and not connection._transport.is_closing()


def held(alive: list[object], loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """Return what a gateway at rest holds nothing of, by what it is; and ``free`` slots and ``tasks``, which do not change."""
    by_type: dict[type, list[Any]] = {}
    for thing in alive:
        by_type.setdefault(type(thing), []).append(thing)
    subjects = [subject for limit in by_type[Limit] for subject in limit._book.subjects.values()]
    accounts = [member.state for pool in by_type[AccountPool] for member in pool.all]
    return {
        "calls": sum(gateway.in_flight for gateway in by_type[Gateway]),
        "places": sum(subject.under_way for subject in subjects),
        "money": sum(subject.held for subject in subjects),
        "in line": sum(subject.waiting + len(subject.line or ()) for subject in subjects),
        "accounts": sum(state.in_flight for state in accounts),
        "flights": sum(len(cache._flights) for cache in by_type[Cache]),
        "room": sum(cache.options.max_size - cache._room for cache in by_type[Cache]),
        "pending": sum(len(pool.pending) for pool in by_type[LeanPool]),
        "lent": sum(is_lent(connection, pool) for pool in by_type[LeanPool] for connection in pool._open),
        "slots": sum(slots.waiting for slots in by_type[Slots]),
        "free": sum(slots.free for slots in by_type[Slots]),
        "tasks": len(asyncio.all_tasks(loop)),
    }
