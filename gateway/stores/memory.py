"""A store in the process: gone with it, and not shared with other workers. What was used longest ago goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from .base import Key

ENTRY_BYTES: Final = 400
"""What an entry costs beside its key and its value (CPython 3.11: the tuples, their strings' heads, the place in the table)."""


class _Entry(NamedTuple):
    value: bytes
    expires: float
    size: int


class _Shelf:
    """The entries, least recently used first, and what they take together."""

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: OrderedDict[Key, _Entry] = OrderedDict()
        self.size = 0

    def take(self, key: Key) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size

    def take_oldest(self) -> None:
        _, entry = self.entries.popitem(last=False)
        self.size -= entry.size


class MemoryStore:
    """At most ``max_entries`` and ``max_bytes``, keys and overhead included; nothing longer than ``ttl_s`` seconds.

    What is past its time goes when somebody asks for it, or when its turn comes: the bounds hold all the same.
    """

    shared = False

    def __init__(
        self, max_entries: int, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self._clock = clock
        self._shelf = _Shelf()

    def __len__(self) -> int:
        return len(self._shelf.entries)

    @property
    def size(self) -> int:
        """Bytes that are kept, keys and overhead included."""
        return self._shelf.size

    async def get(self, keys: Sequence[Key], /) -> list[bytes | None]:
        """Return what is kept under each key. Never suspends."""
        shelf, now = self._shelf, self._clock()
        found: list[bytes | None] = []
        for key in keys:
            entry = shelf.entries.get(key)
            if entry is None:
                found.append(None)
            elif entry.expires <= now:
                shelf.take(key)
                found.append(None)
            else:
                shelf.entries.move_to_end(key)
                found.append(entry.value)
        return found

    def put(self, key: Key, value: bytes, ttl_s: float | None = None, /) -> None:
        """Keep ``value``; others go for it, the one used longest ago first."""
        shelf = self._shelf
        shelf.take(key)
        size = len(value) + key.size + ENTRY_BYTES
        if size > self.max_bytes:
            return
        ttl_s = self.ttl_s if ttl_s is None else min(ttl_s, self.ttl_s)
        shelf.entries[key] = _Entry(value, self._clock() + ttl_s, size)
        shelf.size += size
        while shelf.size > self.max_bytes or len(shelf.entries) > self.max_entries:
            shelf.take_oldest()

    def delete(self, key: Key, /) -> None:
        """Forget it."""
        self._shelf.take(key)

    async def settled(self) -> None:
        """Nothing is ever under way."""

    def carry_over(self, old: Any, /) -> None:
        """Hold what the store of this name held before a reload; its bounds are those of the new rules from here on."""
        if isinstance(old, MemoryStore):
            self._shelf = old._shelf
