"""Something outside of the process that is looked at now and then, as long as anybody holds what is known of it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod


class Watched(ABC):
    """Runs ``look`` at the first ``start``, and every ``look_every_s`` seconds until the last holder has stopped.

    Rules that replace others share it: it is started by the new ones before the old ones stop.
    """

    def __init__(self, name: str, look_every_s: float) -> None:
        self._name = name
        self._look_every_s = look_every_s
        self._holders = 0
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look for the first time, and go on looking. What cannot be had is waited for beside the calls."""
        self._holders += 1
        if self._holders == 1:
            try:
                await self.look()
            except BaseException:  # whoever starts it gave up
                self._holders -= 1
                await self.left()
                raise
            self._watching = asyncio.get_running_loop().create_task(self._watch(), name=f"headgate {self._name}")

    async def stop(self) -> None:
        """Look no longer, once nobody holds it any more."""
        self._holders -= 1
        watching, self._watching = (None, self._watching) if self._holders else (self._watching, None)
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
            await self.left()

    @abstractmethod
    async def look(self) -> None:
        """Find out what is new. Raises nothing that a look could meet with."""

    @abstractmethod
    async def left(self) -> None:
        """Wait for what is still under way."""

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s)
            await self.look()
