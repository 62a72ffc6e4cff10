"""A store in a file of SQLite's: it survives a restart, and the workers of one machine share it. Needs the extra ``sqlite``.

Writes are gathered: a task of the store's own takes all that came since its last turn to the file in one transaction, in
the thread of the connection. Until then ``get`` finds them in memory. It reads by a connection of its own, so that a disk
that is slow, or a file that somebody else has locked, holds up writes alone. What was written first goes first when the
file is full: to know what was used last would make every read a write.

The file holds what callers and models said, in the clear; it is made readable for its owner alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiosqlite

from ..errors import HouseError
from .base import Key

_log = logging.getLogger("headgate.stores")

MAX_PENDING_BYTES: Final = 32 * 1024 * 1024
"""What may wait to be written; beyond this a disk that does not keep up loses entries, not the process its memory."""
ENTRY_BYTES: Final = 120
"""What a row costs beside its key and its value: its number, its times, its places in two indexes."""
_PRUNE_EVERY: Final = 256
"""Batches after which the file is looked through although by our own count it is not full: others may write to it too."""
_SLACK: Final = 0.9
"""What is left of a full file: clearing out a tenth at once is cheaper than a row at each write."""
_MOST_KEYS: Final = 300
"""In one query; SQLite takes 999 parameters in its smallest build."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    space TEXT NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    size INTEGER NOT NULL,
    expires REAL NOT NULL,
    UNIQUE (space, tenant, name)
);
CREATE INDEX IF NOT EXISTS entries_by_expiry ON entries (expires);
"""
_VERSION: Final = 1
_GET: Final = (
    "SELECT space, tenant, name, value FROM entries WHERE (space, tenant, name) IN (VALUES %s) AND expires > ?"
)
_PUT: Final = "INSERT OR REPLACE INTO entries (space, tenant, name, value, size, expires) VALUES (?, ?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM entries WHERE space = ? AND tenant = ? AND name = ?"
_COUNT: Final = "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM entries"
_LAST_TO_GO: Final = """
SELECT MAX(seq) FROM (
    SELECT seq, COUNT(*) OVER newest AS many, SUM(size) OVER newest AS bytes
    FROM entries WINDOW newest AS (ORDER BY seq DESC)
) WHERE many > ? OR bytes > ?
"""


def _make(path: Path) -> None:
    """Make the file, for its owner alone, unless it is there.

    One that is there must not be opened but by SQLite: whoever closes a file takes away all locks that the process has on it,
    those of the store that a reload replaces too. Then the next process to leave the file believes that it is the last, and
    removes the log in which the writes stand.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    if not path.is_file():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


class _Write(NamedTuple):
    """A value and when it expires, in Unix seconds; a value of None is deleted."""

    value: bytes | None
    expires: float


class SqliteStore:
    """At most ``max_entries`` and ``max_bytes`` of values with their keys; nothing longer than ``ttl_s`` seconds.

    ``clock`` tells Unix seconds.
    """

    shared = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_entries: int,
        max_bytes: int,
        ttl_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self._clock = clock
        self._db: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._writer: asyncio.Task[None] | None = None
        self._pending: dict[Key, _Write] = {}
        self._pending_bytes = 0
        self._before: SqliteStore | None = None
        self._wake = asyncio.Event()
        self._written = asyncio.Condition()
        self._put = self._kept = 0
        self._count = self._bytes = 0
        self._since_prune = 0

    # -- life

    async def start(self) -> None:
        """Open or make the file. Raises OSError, sqlite3.Error, ValueError for a file of another kind."""
        if self._db is not None:
            return
        _make(self.path)
        db = await aiosqlite.connect(self.path, isolation_level=None, timeout=10)
        try:
            await db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table, or never
            await db.execute("PRAGMA journal_mode = WAL")
            await db.execute(
                "PRAGMA synchronous = NORMAL"
            )  # a crash of the machine may cost the last writes, never the file
            await self._adopt(db)
            await db.executescript(_SCHEMA)
            self._count, self._bytes = await _totals(db)
            reader = await aiosqlite.connect(self.path, isolation_level=None, timeout=10)
        except BaseException:
            await db.close()
            raise
        self._db, self._reader = db, reader
        self._wake.set()
        self._writer = asyncio.get_running_loop().create_task(self._write_on(db), name="headgate store")

    async def _adopt(self, db: aiosqlite.Connection) -> None:
        """Raise ValueError unless the file is ours or empty: another application's tables are not ours to prune."""
        row = await _first(db, "PRAGMA user_version")
        tables = await _first(db, "SELECT COUNT(*) FROM sqlite_master")
        if row[0] not in (0, _VERSION) or (row[0] == 0 and tables[0] > 0):
            raise ValueError(f"{self.path} is no store of this version")
        await db.execute(f"PRAGMA user_version = {_VERSION}")

    async def stop(self) -> None:
        """Write what waits, and close the file."""
        writer, self._writer = self._writer, None
        db, self._db = self._db, None
        reader, self._reader = self._reader, None
        self._before = None
        if writer is None or db is None or reader is None:
            return
        self._wake.set()  # and not cancelled: a transaction is left whole
        try:
            await writer
        finally:
            await reader.close()
            await db.close()

    def carry_over(self, old: Any, /) -> None:
        """Find what the store of this name has not written yet, when the rules are reloaded and the file is the same."""
        if isinstance(old, SqliteStore) and old.path == self.path:
            self._before = old

    # -- a store

    async def get(self, keys: Sequence[Key], /) -> list[bytes | None]:
        """Return what is kept under each key. Raises HouseError."""
        now = self._clock()
        found: dict[Key, bytes | None] = {}
        for key in keys:
            write = self._pending.get(key)
            if write is None and self._before is not None:
                write = self._before._pending.get(key)
            if write is not None:
                found[key] = write.value if write.expires > now else None
        missing = [key for key in keys if key not in found]
        if missing:
            try:
                for start in range(0, len(missing), _MOST_KEYS):
                    found.update(await self._read(missing[start : start + _MOST_KEYS], now))
            except (sqlite3.Error, ValueError) as fault:  # aiosqlite raises ValueError on a closed connection
                raise HouseError("a store of this gateway cannot be read") from fault
        return [found.get(key) for key in keys]

    async def _read(self, keys: Sequence[Key], now: float) -> dict[Key, bytes | None]:
        if self._reader is None:
            raise ValueError("the store is closed")
        rows = ", ".join(["(?, ?, ?)"] * len(keys))
        query = _GET % rows
        parameters = [text for key in keys for text in key]
        async with self._reader.execute(query, [*parameters, now]) as cursor:
            return {Key(space, tenant, name): value async for space, tenant, name, value in cursor}

    def put(self, key: Key, value: bytes, ttl_s: float | None = None, /) -> None:
        """Keep ``value``, soon."""
        if len(value) + key.size + ENTRY_BYTES > min(int(self.max_bytes * _SLACK), MAX_PENDING_BYTES):
            self.delete(key)
            return
        ttl_s = self.ttl_s if ttl_s is None else min(ttl_s, self.ttl_s)
        self._note(key, _Write(value, self._clock() + ttl_s))

    def delete(self, key: Key, /) -> None:
        """Forget it, soon."""
        self._note(key, _Write(None, float("inf")))

    async def settled(self) -> None:
        """Wait until all that was put and deleted so far is in the file, or lost."""
        wanted = self._put
        async with self._written:
            await self._written.wait_for(lambda: self._kept >= wanted or self._db is None)

    # -- writing

    def _note(self, key: Key, write: _Write) -> None:
        self._forget(key)
        while self._pending and self._pending_bytes + _size(key, write) > MAX_PENDING_BYTES:
            self._forget(next(iter(self._pending)))
            _log.warning("%s does not keep up: an entry was not written", self.path.name)
        self._pending[key] = write
        self._pending_bytes += _size(key, write)
        self._put += 1
        self._wake.set()

    def _forget(self, key: Key) -> None:
        write = self._pending.pop(key, None)
        if write is not None:
            self._pending_bytes -= _size(key, write)

    async def _write_on(self, db: aiosqlite.Connection) -> None:
        open_ = True
        while open_:
            await self._wake.wait()
            self._wake.clear()
            open_ = self._db is db  # else this is the last turn
            await self._flush(db)

    async def _flush(self, db: aiosqlite.Connection) -> None:
        """Write what waits. What cannot be written is given up: it would stand in the way of all that follows."""
        batch, upto = dict(self._pending), self._put
        try:
            if batch:
                await self._transact(db, batch)
        except sqlite3.Error as fault:
            _log.warning("%s cannot be written, %d entries are lost: %s", self.path.name, len(batch), fault)
        for key, write in batch.items():
            if self._pending.get(key) is write:  # else there is a newer one
                self._forget(key)
        async with self._written:
            self._kept = max(self._kept, upto)
            self._written.notify_all()

    async def _transact(self, db: aiosqlite.Connection, batch: dict[Key, _Write]) -> None:
        puts = [
            (*key, memoryview(write.value), _size(key, write), write.expires)  # a view: aiosqlite logs what it is given
            for key, write in batch.items()
            if write.value is not None
        ]
        gone = [key for key, write in batch.items() if write.value is None]
        await db.execute("BEGIN IMMEDIATE")
        try:
            await db.executemany(_PUT, puts)
            await db.executemany(_DELETE, gone)
            self._count += len(puts)
            self._bytes += sum(size for *_, size, _ in puts)
            self._since_prune += 1
            full = self._count > self.max_entries or self._bytes > self.max_bytes
            pruned = full or self._since_prune >= _PRUNE_EVERY
            if pruned:
                await self._prune(db)
            await db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # SQLite ends it by itself when the disk is full
                await db.execute("ROLLBACK")
            raise
        if pruned:
            await db.execute_fetchall("PRAGMA incremental_vacuum(1000)")

    async def _prune(self, db: aiosqlite.Connection) -> None:
        """Delete what is past its time, and of the rest what was written first until the file is within its bounds."""
        self._since_prune = 0
        await db.execute("DELETE FROM entries WHERE expires <= ?", (self._clock(),))
        self._count, self._bytes = await _totals(db)
        if self._count > self.max_entries or self._bytes > self.max_bytes:
            bounds = (int(self.max_entries * _SLACK) or 1, int(self.max_bytes * _SLACK))
            (last,) = await _first(db, _LAST_TO_GO, bounds)
            await db.execute("DELETE FROM entries WHERE seq <= ?", (last,))
            self._count, self._bytes = await _totals(db)


def _size(key: Key, write: _Write) -> int:
    return len(write.value or b"") + key.size + ENTRY_BYTES


async def _totals(db: aiosqlite.Connection) -> tuple[int, int]:
    count, size = await _first(db, _COUNT)
    return count, size


async def _first(db: aiosqlite.Connection, query: str, parameters: Iterable[object] = ()) -> tuple[Any, ...]:
    async with db.execute(query, parameters) as cursor:
        row = await cursor.fetchone()
    assert row is not None
    return tuple(row)
