"""The virtual keys of a database in memory, kept up to date beside the calls.

Once a second the file is looked at, in a thread: a key that was made, replaced or revoked counts from then on, in every
process that reads the file. A call costs one look into a dictionary, and a key that nobody knows costs no more: what is not
here does not exist. When the file could not be read for a while, no key counts any more, until it can be read again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ..errors import HouseError
from ..facts import Grant, Principal
from .database import KeyDatabase, Mark, News
from .keys import Caller
from .watched import Watched

_log = logging.getLogger("headgate.auth")
LOOK_EVERY_S: Final = 1.0
TRUSTED_S: Final = 10.0
"""So long keys are good that were not looked up again: who could not be told of a revoked key must stop to let it in."""
_RETRY_AFTER_S: Final = 5.0
_REVOKED: Final = "this API key was revoked"
_REPLACED: Final = "this API key was replaced by a newer one"


class KeyBook(Watched):
    """The keys of one file. ``clock`` is monotonic."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        look_every_s: float = LOOK_EVERY_S,
        database: KeyDatabase | None = None,
    ) -> None:
        super().__init__("key book", look_every_s)
        self.path = path
        self._database = database or KeyDatabase(path)
        self._clock = clock
        self._callers: Mapping[bytes, Caller] = {}
        self._mark: Mark | None = None
        self._began = self._trusted_until = -math.inf
        self._fault: str | None = ""
        self._reading: asyncio.Task[tuple[News, Mapping[bytes, Caller]] | None] | None = None

    def __len__(self) -> int:
        return len(self._callers)

    def find(self, digest: bytes) -> Caller | None:
        """Return who has the key of this digest. Raises HouseError while the file cannot be read."""
        if self._clock() > self._trusted_until:
            raise HouseError(
                "the database of API keys cannot be read at the moment: try again later",
                kind="unavailable",
                retry_after_s=_RETRY_AFTER_S,
            )
        return self._callers.get(digest)

    async def look(self) -> None:
        """Look at the file; log once that it cannot be read, and once that it can again."""
        if self._reading is None:
            self._began = self._clock()
            read = asyncio.to_thread(self._read, self._mark, self._callers)
            self._reading = asyncio.get_running_loop().create_task(read, name="headgate key book reads")
        try:
            async with asyncio.timeout(TRUSTED_S):
                found = await asyncio.shield(self._reading)
        except TimeoutError:  # the disk does not answer: the same thread is waited for at the next look
            self._failed("it does not answer")
            return
        except (sqlite3.Error, OSError, ValueError) as fault:
            self._reading = None
            self._failed(str(fault) or type(fault).__name__)
            return
        self._reading = None
        if found is not None:
            news, self._callers = found
            self._mark = news.mark
        if self._fault is not None:
            log = _log.info if self._fault == "" else _log.warning
            log("%s: %d API keys are known", self.path.name, len(self._callers))
            self._fault = None
        self._trusted_until = self._began + TRUSTED_S

    def _failed(self, why: str) -> None:
        if self._fault != why:
            self._fault = why
            _log.error("%s: the API keys cannot be read: %s", self.path.name, why)

    async def left(self) -> None:
        """Wait for a look that is under way: the file is not open afterwards."""
        if (reading := self._reading) is not None:
            self._reading = None
            done, _ = await asyncio.wait([reading], timeout=TRUSTED_S)
            for each in done:
                if not each.cancelled():
                    each.exception()  # nobody is left who would hear of it

    def _read(self, since: Mark | None, known: Mapping[bytes, Caller]) -> tuple[News, Mapping[bytes, Caller]] | None:
        """Return what is new, and all that is known with it. Runs in a thread."""
        news = self._database.read(since)
        return None if news is None else (news, _with(known, news))


def _with(known: Mapping[bytes, Caller], news: News) -> Mapping[bytes, Caller]:
    changed = {each.key.name for each in news.known}
    callers = {} if news.whole else {at: each for at, each in known.items() if each.principal.key not in changed}
    grants: dict[tuple[tuple[str, ...], tuple[str, ...]], Grant | None] = {}
    for digest, until, key in news.known:
        limits = key.routes, key.models
        if limits not in grants:
            grants[limits] = Grant.of(*limits)
        principal = Principal(key.name, key.team, key.tenant, key.tags, grants[limits])
        expires, refusal, words = math.inf if key.expires is None else key.expires, "", "this API key has expired"
        if key.revoked is not None:
            refusal = _REVOKED
        elif until is not None and until < expires:
            expires, words = until, _REPLACED
        callers[digest] = Caller(digest, principal, expires, refusal, words)
    return callers
