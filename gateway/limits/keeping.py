"""What subjects have taken, in a store: so that a restart does not give it back.

Read when a subject is first met, written a while after it changed, never while a call waits for it. Times are kept as how
long it takes until all is back, since clocks of processes begin where they like; money with the window it was spent in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from ..errors import GatewayError
from ..stores.base import Key, Store, get_one
from .book import Subject

_log: Final = logging.getLogger("headgate.limit")
KEEP_S: Final = 1.0
"""How long a change may wait to be handed to the store: a crash gives back what was taken since."""
_MOST: Final = 2**63 - 1
"""What can be written of money: a provider may tell any figure, and that must not cost what is known of others."""
_SLACK_S: Final = 60.0
"""How much longer than needed a record is kept."""


class Kept(Struct, array_like=True):
    """A subject, ``at`` a moment in Unix seconds: in how many seconds all its requests and tokens are back, and what was spent
    or held in the window from ``window_start``."""

    at: float
    requests: float
    tokens: float
    window_start: float
    spent: int


_DECODER: Final = msgspec.json.Decoder(Kept)


class Keeper:
    """Keeps the subjects of one limit in ``store`` under ``name``. ``now`` tells the time of rates, ``wall`` Unix seconds."""

    __slots__ = ("_store", "_name", "_now", "_wall", "_changed", "_timer", "_reading")

    def __init__(self, store: Store, name: str, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._store = store
        self._name = name
        self._now = now
        self._wall = wall
        self._changed: set[Subject] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._reading: set[asyncio.Task[None]] = set()

    def meet(self, subject: Subject) -> None:
        """Begin to read what is known of ``subject``: until that is there, its ``coming`` is set."""
        # No call's own: whoever comes meanwhile waits for the same.
        subject.coming = task = asyncio.get_running_loop().create_task(self._recall(subject), name="headgate limit")
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _recall(self, subject: Subject) -> None:
        try:
            value = await get_one(self._store, self._key(subject))
        except GatewayError as fault:
            _log.warning("what was taken of the limit %s cannot be read, it counts anew: %s", self._name, fault.message)
            value = None
        finally:
            subject.coming = None
        if value is None:
            return
        try:
            kept = _DECODER.decode(value)
        except msgspec.DecodeError:
            _log.warning("what was taken of the limit %s is unreadable, it counts anew", self._name)
            return
        gone, now = max(0.0, self._wall() - kept.at), self._now()
        subject.requests = max(subject.requests, now + kept.requests - gone)
        subject.tokens = max(subject.tokens, now + kept.tokens - gone)
        subject.window_start, subject.spent = kept.window_start, kept.spent

    def touch(self, subject: Subject) -> None:
        """Write ``subject`` soon."""
        self._changed.add(subject)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEEP_S, self.flush)

    async def stop(self) -> None:
        """Hand over what is left."""
        self.flush()
        if self._reading:
            await asyncio.wait(self._reading)

    def flush(self) -> None:
        """Hand all that changed to the store."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        changed, self._changed = self._changed, set()
        now, wall = self._now(), self._wall()
        for subject in changed:
            requests, tokens = max(0.0, subject.requests - now), max(0.0, subject.tokens - now)
            money = min(subject.spent + subject.held, _MOST)
            start = subject.window_start
            kept = Kept(wall, requests, tokens, start, money)
            lasts = max(requests, tokens, subject.window_end - wall if money else 0.0)
            self._store.put(self._key(subject), msgspec.json.encode(kept), lasts + _SLACK_S)

    def _key(self, subject: Subject) -> Key:
        # Whose it is, tenant and all, is in the digest; a model's name may be as long as a caller likes.
        digest = blake2b(repr(subject.key).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return Key("limit", "", f"{self._name}/{digest}")
