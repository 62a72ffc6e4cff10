"""The file in which virtual keys are written down: SQLite, with the hash of each key, never the key.

Commands write it, running gateways read it, and nothing here awaits: gateways call it in a thread. Every change moves a
counter, by which a reader that looks again finds out at once that nothing happened, or reads what changed alone.

The file keeps a rollback journal, not a WAL: it is written once in a while, and stays one file that can be copied.
"""

from __future__ import annotations

import math
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Struct

from .keys import digest_of, new_key, prefix_of

MAX_KEYS: Final = 100_000
"""So many keys a file holds, revoked ones included: every gateway keeps them all in memory, about 1 KB each."""
MAX_SECRETS: Final = 20
"""So many a key has at once, replaced ones included: the oldest goes first."""
OUTDATED_S: Final = 30 * 86400.0
"""So long a replaced secret is remembered after its time, so that who still sends it is told what happened."""
_APPLICATION: Final = 0x48674B79
"""Says in the file's head whose it is ("HgKy")."""
_VERSION: Final = 1
_WRITE_WAIT_S: Final = 10.0
_READ_WAIT_S: Final = 1.0
"""How long to wait for who has the file locked."""
_STEP: Final = 1 << 30
"""Changes are numbered by chance, upwards: in a copy that was put back, those that follow are not taken for others."""
_SCHEMA: Final = (
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL, changes INTEGER NOT NULL)",
    """CREATE TABLE keys (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        team TEXT,
        tenant TEXT NOT NULL,
        tags TEXT NOT NULL,
        routes TEXT NOT NULL,
        models TEXT NOT NULL,
        created REAL NOT NULL,
        expires REAL,
        revoked REAL,
        changed INTEGER NOT NULL
    )""",
    "CREATE INDEX keys_by_change ON keys (changed)",
    """CREATE TABLE secrets (
        digest BLOB PRIMARY KEY,
        key INTEGER NOT NULL REFERENCES keys (id),
        prefix TEXT NOT NULL,
        created REAL NOT NULL,
        until REAL
    )""",
    "CREATE INDEX secrets_by_key ON secrets (key)",
)
_KNOWN: Final = """
SELECT secrets.digest, secrets.until, keys.name, keys.team, keys.tenant, keys.tags, keys.routes, keys.models, keys.created,
    keys.expires, keys.revoked
FROM secrets JOIN keys ON keys.id = secrets.key WHERE keys.changed > ? ORDER BY keys.id
"""
_KEYS: Final = "SELECT name, team, tenant, tags, routes, models, created, expires, revoked FROM keys ORDER BY name"
_GIVEN: Final = """
SELECT keys.name, secrets.prefix, secrets.created, secrets.until FROM secrets JOIN keys ON keys.id = secrets.key
ORDER BY secrets.until IS NOT NULL, secrets.created DESC, secrets.rowid DESC
"""
_CREATE: Final = """
INSERT INTO keys (name, team, tenant, tags, routes, models, created, expires, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_FORGET: Final = """
DELETE FROM secrets WHERE key = ?1 AND (until < ?2 OR digest NOT IN (
    SELECT digest FROM secrets WHERE key = ?1 ORDER BY until IS NULL DESC, until DESC, rowid DESC LIMIT ?3
))
"""
_NAMES: Final = msgspec.json.Decoder(tuple[str, ...])


class KeyFault(ValueError):
    """What was asked for cannot be done; the words say why, and what can."""


class Wanted(Struct, frozen=True):
    """A key to be made. ``expires`` in Unix seconds; ``tenant`` is the name where it is empty."""

    name: str
    team: str | None = None
    tenant: str = ""
    tags: tuple[str, ...] = ()
    routes: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    expires: float | None = None


class KeySecret(Struct, frozen=True, omit_defaults=True):
    """One secret of a key: its first letters, and until when it is good if it was replaced. Times are Unix seconds."""

    prefix: str
    created: float
    until: float | None = None


class VirtualKey(Struct, frozen=True):
    """What is written down of a key. ``secrets`` are those that were ever given out and are remembered, newest first."""

    name: str
    team: str | None
    tenant: str
    tags: tuple[str, ...]
    routes: tuple[str, ...]
    models: tuple[str, ...]
    created: float
    expires: float | None
    revoked: float | None
    secrets: tuple[KeySecret, ...] = ()

    def state(self, now: float) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


class Mark(NamedTuple):
    """How far a file was read: which file, which of its lives, and how many changes."""

    file: tuple[int, int]
    epoch: str
    changes: int


class Known(NamedTuple):
    """One secret by which a key is found."""

    digest: bytes
    until: float | None
    key: VirtualKey


class News(NamedTuple):
    """What a look at the file brought. ``whole``: it is all there is, else it comes on top of what was known."""

    mark: Mark
    whole: bool
    known: tuple[Known, ...]


class KeyDatabase:
    """The file at ``path``. ``clock`` tells Unix seconds. Methods block; they raise sqlite3.Error, OSError, ValueError for a
    file that cannot be read or is none of ours."""

    def __init__(self, path: str | os.PathLike[str], clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock

    # -- what gateways ask

    def read(self, since: Mark | None) -> News | None:
        """Return what changed since a look, or all there is if that was another file; None if nothing did."""
        with closing(self._open(_READ_WAIT_S)) as db:
            db.execute("BEGIN")  # one look: no change comes in between
            self._check(db)
            found = os.stat(self.path)
            epoch, changes = db.execute("SELECT epoch, changes FROM state").fetchone() or (None, None)
            if not isinstance(epoch, str) or not isinstance(changes, int):
                raise ValueError(f"{self.path} is damaged")
            mark = Mark((found.st_dev, found.st_ino), epoch, changes)
            if mark == since:
                return None
            whole = since is None or since[:2] != mark[:2] or not _goes_on(db, since)
            after = -1 if whole or since is None else since.changes
            rows = db.execute(_KNOWN, (after,))
            return News(mark, whole, tuple(_known(*row) for row in rows))

    # -- what commands ask

    def every(self) -> list[VirtualKey]:
        """Return every key, by name."""
        with closing(self._open(_WRITE_WAIT_S)) as db:
            db.execute("BEGIN")
            self._check(db)
            given: dict[str, list[KeySecret]] = {}
            for name, prefix, created, until in db.execute(_GIVEN):
                given.setdefault(name, []).append(KeySecret(prefix, created, until))
            rows = db.execute(_KEYS).fetchall()
        return [_key(row, tuple(given.get(row[0], ()))) for row in rows]

    def find(self, name: str) -> VirtualKey:
        """Return the key called ``name``. Raises KeyFault."""
        for key in self.every():
            if key.name == name:
                return key
        raise KeyFault(f"there is no key {name!r}")

    def create(self, wanted: Wanted) -> str:
        """Write down a new key and return it: this is the only time that anybody sees it. The file is made if it is not there.
        Raises KeyFault."""
        now = self._clock()
        if not wanted.name or not wanted.name.isprintable() or len(wanted.name) > 200:
            raise KeyFault("a key's name is 1 to 200 printable characters")
        if wanted.expires is not None and wanted.expires <= now:
            raise KeyFault("a key that has expired already is of no use")
        words = {"team": (wanted.team,), "tag": wanted.tags, "route": wanted.routes, "model": wanted.models}
        for what, given in words.items():
            if "" in given:
                raise KeyFault(f"the {what} that was given is empty")
        with self._change(make=True) as (db, change):
            if db.execute("SELECT COUNT(*) FROM keys").fetchone()[0] >= MAX_KEYS:
                raise KeyFault(f"{self.path} is full: it holds {MAX_KEYS} keys")
            known = db.execute("SELECT revoked FROM keys WHERE name = ?", (wanted.name,)).fetchone()
            if known is not None:
                was = "was revoked, and its name stays taken" if known[0] is not None else "is there already"
                raise KeyFault(f"the key {wanted.name!r} {was}: take another name")
            lists = [msgspec.json.encode(each).decode() for each in (wanted.tags, wanted.routes, wanted.models)]
            tenant = wanted.tenant or wanted.name
            made = db.execute(_CREATE, (wanted.name, wanted.team, tenant, *lists, now, wanted.expires, change))
            return _give(db, made.lastrowid, now)

    def rotate(self, name: str, grace_s: float = 0.0, expires: float | None = None) -> str:
        """Give the key called ``name`` a new secret, and return it. What it had before is good for ``grace_s`` seconds more.

        ``expires`` replaces when the key expires: infinity is never. Raises KeyFault.
        """
        now = self._clock()
        with self._change() as (db, change):
            id, until = self._living(db, name)
            if expires is not None:
                until = None if expires == math.inf else expires
            if until is not None and until <= now:
                raise KeyFault(f"the key {name!r} has expired: say until when it is good from now on, with --expires")
            db.execute("UPDATE keys SET changed = ?, expires = ? WHERE id = ?", (change, until, id))
            db.execute(_FORGET, (id, now - OUTDATED_S, MAX_SECRETS - 1))
            db.execute("UPDATE secrets SET until = MIN(COALESCE(until, ?1), ?1) WHERE key = ?2", (now + grace_s, id))
            return _give(db, id, now)

    def revoke(self, name: str) -> None:
        """Have the key called ``name`` refused from now on, for good. Raises KeyFault."""
        with self._change() as (db, change):
            id, _ = self._living(db, name)
            db.execute("UPDATE keys SET changed = ?, revoked = ? WHERE id = ?", (change, self._clock(), id))

    @staticmethod
    def _living(db: sqlite3.Connection, name: str) -> tuple[int, float | None]:
        row = db.execute("SELECT id, expires, revoked FROM keys WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise KeyFault(f"there is no key {name!r}")
        if row[2] is not None:
            raise KeyFault(f"the key {name!r} is revoked: make another")
        return row[0], row[1]

    # -- the file

    def _open(self, wait_s: float, *, make: bool = False) -> sqlite3.Connection:
        """Open the file; only ``make`` makes one. It is opened for writing where it may be: a reader, too, has to undo what
        was cut off in the middle."""
        if make:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        os.stat(self.path)  # says what is missing in words of its own
        where = f"file:{quote(str(self.path.absolute()))}?mode=rw"
        return sqlite3.connect(where, uri=True, timeout=wait_s, isolation_level=None)

    def _check(self, db: sqlite3.Connection) -> None:
        whose = db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]
        if whose != (_APPLICATION, _VERSION):
            raise ValueError(f"{self.path} is no database of keys, or one of another version")

    @contextmanager
    def _change(self, *, make: bool = False) -> Iterator[tuple[sqlite3.Connection, int]]:
        """Give a connection in a transaction of its own, and the number of the change."""
        with closing(self._open(_WRITE_WAIT_S, make=make)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            try:
                if make and db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0:
                    _lay_out(db)
                self._check(db)
                db.execute("UPDATE state SET changes = changes + ?", (1 + secrets.randbelow(_STEP),))
                yield db, db.execute("SELECT changes FROM state").fetchone()[0]
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


def _goes_on(db: sqlite3.Connection, since: Mark) -> bool:
    """Whether the last change that a reader saw is in this file: it may be a copy from before. Where its key was changed once
    more nobody can tell."""
    return db.execute("SELECT 1 FROM keys WHERE changed = ? LIMIT 1", (since.changes,)).fetchone() is not None


def _lay_out(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA:
        db.execute(statement)
    db.execute("INSERT INTO state VALUES (1, ?, 0)", (secrets.token_hex(16),))
    db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute(f"PRAGMA user_version = {_VERSION}")


def _give(db: sqlite3.Connection, id: int | None, now: float) -> str:
    key = new_key()
    db.execute("INSERT INTO secrets VALUES (?, ?, ?, ?, NULL)", (digest_of(key), id, prefix_of(key), now))
    return key


def _known(digest: object, until: object, *row: Any) -> Known:
    key = _key(row)
    if not isinstance(digest, bytes) or not isinstance(until, float | None):
        raise ValueError(f"a secret of the key {key.name!r} is damaged")
    return Known(digest, until, key)


def _key(row: Sequence[Any], given: tuple[KeySecret, ...] = ()) -> VirtualKey:
    """Read a row of ``_KEYS``. Raises ValueError for what nobody of ours wrote."""
    name, team, tenant, tags, routes, models, created, expires, revoked = row
    try:
        lists = dict(zip(("tags", "routes", "models"), map(_NAMES.decode, (tags, routes, models)), strict=True))
        told = {
            "name": name,
            "team": team,
            "tenant": tenant,
            "created": created,
            "expires": expires,
            "revoked": revoked,
        }
        return msgspec.convert({**told, **lists, "secrets": given}, VirtualKey)
    except (TypeError, msgspec.DecodeError) as fault:
        raise ValueError(f"the entry of the key {name!r} is damaged") from fault
