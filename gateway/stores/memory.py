"""A store in the process: gone with it, and not shared with other workers. What was used longest ago goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from .base import Key

ENTRY_BYTES: Final = 400
"""What an entry costs beside its key and its value (CPython 3.11: the tuples, their strings' heads, the place in the table)."""


_Entry: TypeAlias = tuple[bytes, float, int]
"""Value, when it expires, and what it takes. No NamedTuple: making one costs more than all the rest of ``put``."""


class _Shelf:
    """The entries, least recently used first, and what they take together."""

    __slots__ = ("entries", "size")

    def __init__(self) -> None:
        self.entries: OrderedDict[Key, _Entry] = OrderedDict()
        self.size = 0

    def take(self, key: Key) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.size -= entry[2]

    def shrink(self, max_bytes: int, max_entries: int) -> None:
        while self.size > max_bytes or len(self.entries) > max_entries:
            _, entry = self.entries.popitem(last=False)
            self.size -= entry[2]


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
        return [self.look(key) for key in keys]

    def look(self, key: Key, /) -> bytes | None:
        """Return what is kept under ``key``, for those who need not await."""
        entry = self._shelf.entries.get(key)
        if entry is None:
            return None
        if entry[1] <= self._clock():
            self._shelf.take(key)
            return None
        self._shelf.entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, value: bytes, ttl_s: float | None = None, /) -> None:
        """Keep ``value``; others go for it, the one used longest ago first."""
        shelf, max_bytes = self._shelf, self.max_bytes
        entries = shelf.entries
        if key in entries:
            shelf.take(key)
        size = len(value) + len("".join(key)) + ENTRY_BYTES
        if size > max_bytes:
            return
        if ttl_s is None or ttl_s > self.ttl_s:
            ttl_s = self.ttl_s
        entries[key] = (value, self._clock() + ttl_s, size)
        shelf.size = total = shelf.size + size
        if total > max_bytes or len(entries) > self.max_entries:
            shelf.shrink(max_bytes, self.max_entries)

    def delete(self, key: Key, /) -> None:
        """Forget it."""
        self._shelf.take(key)

    async def settled(self) -> None:
        """Nothing is ever under way."""

    def carry_over(self, old: Any, /) -> None:
        """Hold what the store of this name held before a reload; its bounds are those of the new rules from here on."""
        if isinstance(old, MemoryStore):
            self._shelf = old._shelf
