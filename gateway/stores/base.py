"""What a store is: bytes by key, for a while. Whose they are is part of the key, so that nobody can forget to ask.

A store may lose what it holds at any time, because it is full or the time is up: whoever keeps something here can do
without it. What is put is visible to ``get`` at once, in this process; ``settled`` waits until others would find it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class Key(NamedTuple):
    """``space`` is what it is for (``responses``), ``tenant`` whose it is, ``name`` which of theirs."""

    space: str
    tenant: str
    name: str

    @property
    def size(self) -> int:
        """Bytes that the key stands for, about."""
        return len(self.space) + len(self.tenant) + len(self.name)


@runtime_checkable
class Store(Protocol):
    """Bounded bytes by key. A store that must be opened has an async ``start`` and ``stop`` besides."""

    shared: bool
    """Whether other processes write to it too: what is not there yet may be there in a moment."""

    async def get(self, keys: Sequence[Key], /) -> list[bytes | None]:
        """Return what is kept under each key, None where nothing is. Raises HouseError when the store cannot be read."""
        ...

    def put(self, key: Key, value: bytes, ttl_s: float | None = None, /) -> None:
        """Keep ``value`` for ``ttl_s`` seconds, at most as long as the store keeps anything; in place of what was there.

        A value that is too large for the store is not kept, and what was there is gone. Does not block.
        """
        ...

    def delete(self, key: Key, /) -> None:
        """Forget what is kept under ``key``, if anything. Does not block."""
        ...

    async def settled(self) -> None:
        """Wait until all that was put and deleted so far is where it belongs, or is known to be lost."""
        ...


async def get_one(store: Store, key: Key) -> bytes | None:
    """Return what is kept under ``key``. Raises HouseError when the store cannot be read."""
    return (await store.get((key,)))[0]
