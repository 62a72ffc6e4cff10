"""Keeps the states of a pool's accounts in a store that others see too, behind the calls: reads and writes once a second.

What is read is merged with what is known, so that cooldowns outlive the process, and the workers of one machine learn of each
other's; a reset from the command line is heard of here. A store that cannot be read costs no call anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from ..errors import HouseError
from ..stores.base import Store
from .record import Record, latest, merge, read_record, read_reset, record_key, reset_key

if TYPE_CHECKING:
    from .pool import AccountPool, Member

_log: Final = logging.getLogger("headgate.accounts")
EVERY_S: Final = 1.0
"""Between two looks."""
_FRESH_S: Final = 10.0
"""How often an account with calls under way is written although nothing is new, so that others see that these still are."""


class Keeper:
    """Runs from ``start`` to ``stop``."""

    def __init__(self, pool: AccountPool, store: Store, every_s: float = EVERY_S) -> None:
        self._pool = pool
        self._store = store
        self._every_s = every_s
        self._written: dict[str, tuple[object, float]] = {}
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what was known before; from here on, read and write now and then."""
        await self.look(write=False)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="headgate accounts")

    async def stop(self) -> None:
        """Write what is new."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.look()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self.look()

    async def look(self, *, write: bool = True) -> None:
        """Hear of what others know, and tell what is new here."""
        pool = self._pool
        members = pool.members
        keys = [record_key(pool.name, member.id) for member in members]
        keys += [reset_key(pool.name, member.id) for member in members]
        try:
            found = await self._store.get(keys)
        except HouseError as fault:
            if not self._failing:
                _log.warning("the accounts of %s are neither read nor kept: %s", pool.name, fault)
            self._failing = True
            return
        self._failing = False
        for member, data, reset in zip(members, found, found[len(members) :], strict=False):
            self._member(member, read_record(data), read_reset(reset), write)

    def _member(self, member: Member, told: Record | None, reset_at: float, write: bool) -> None:
        pool, state = self._pool, member.state
        now, unix = pool.clock(), pool.wall()
        heard = state.reset(reset_at)
        if heard:
            member.account.reset_at = reset_at
        if heard and write:
            _log.info("account %s of %s: reset, it is used again", member.id, pool.name)
        if told is not None and told.mark == member.mark:
            state.absorb(told.cooldowns, now, unix)
            if not write:
                state.events = list(latest((*told.events, *state.events)))
        if not write:
            return
        figures = (state.changed, state.calls, state.errors, state.in_flight)
        before, written_at = self._written.get(member.id, (None, unix))
        stale = state.in_flight > 0 and not 0 <= unix - written_at < _FRESH_S
        # Somebody may have written over what was written here.
        lost = before is not None and (told is None or pool.writer not in told.counts)
        if (figures != before and (before is not None or any(figures))) or stale or lost:
            record = merge(state.record(member.mark, pool.writer, now, unix), told)
            self._store.put(record_key(pool.name, member.id), record.encode())
            self._written[member.id] = (figures, unix)
