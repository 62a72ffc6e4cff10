"""The file of virtual keys: what is written down, what a reader is told, and what becomes of a file that is broken."""

from __future__ import annotations

import math
import random
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway.identity import database as module
from headgate.gateway.identity.database import KeyDatabase, KeyFault, Wanted
from headgate.gateway.identity.expiry import at, in_time, written
from headgate.gateway.identity.keys import PREFIX, digest_of, prefix_of


class Time:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def database(tmp_path: Path, clock: Time) -> KeyDatabase:
    return KeyDatabase(tmp_path / "a #1?.db", clock)


def test_a_key_is_nowhere_but_in_the_answer(database: KeyDatabase) -> None:
    key = database.create(Wanted("alice", "red", "acme", ("a", "b"), ("chat*",), ("gpt-*",), 1_000_060.0))
    assert key.startswith(PREFIX)
    assert len(key) == 46
    (found,) = database.every()
    assert (found.name, found.team, found.tenant, found.tags) == ("alice", "red", "acme", ("a", "b"))
    assert (found.routes, found.models, found.expires, found.revoked) == (("chat*",), ("gpt-*",), 1_000_060.0, None)
    assert [secret.prefix for secret in found.secrets] == [prefix_of(key)] == [key[:7]]
    raw = database.path.read_bytes()
    assert key.encode() not in raw
    assert key[7:].encode() not in raw
    assert digest_of(key) in raw
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600


def test_a_tenant_of_its_own(database: KeyDatabase) -> None:
    database.create(Wanted("alice"))
    assert database.find("alice").tenant == "alice"


@pytest.mark.parametrize("empty", [{"team": ""}, {"tags": ("a", "")}, {"routes": ("",)}, {"models": ("gpt-*", "")}])
def test_an_empty_word_is_refused(database: KeyDatabase, empty: dict[str, Any]) -> None:
    """It is a variable that a script forgot; and a model without a name would let in calls that name none."""
    with pytest.raises(KeyFault, match=f"{next(iter(empty)).rstrip('s')} .*empty"):
        database.create(Wanted("a", **empty))
    assert not database.path.exists()


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_a_name_is_printable(database: KeyDatabase, name: str) -> None:
    with pytest.raises(KeyFault, match="printable"):
        database.create(Wanted(name))
    assert not database.path.exists()


def test_a_name_is_taken_for_good(database: KeyDatabase) -> None:
    """Who came later would see what is kept of who had the name before."""
    database.create(Wanted("alice"))
    with pytest.raises(KeyFault, match="is there already"):
        database.create(Wanted("alice"))
    database.revoke("alice")
    with pytest.raises(KeyFault, match="was revoked"):
        database.create(Wanted("alice"))


def test_states(database: KeyDatabase, clock: Time) -> None:
    database.create(Wanted("a", expires=clock.now + 10))
    assert database.find("a").state(clock.now + 9.9) == "active"
    assert database.find("a").state(clock.now + 10) == "expired"
    database.revoke("a")
    assert database.find("a").state(clock.now) == "revoked"
    assert database.find("a").revoked == clock.now


def test_a_key_must_not_begin_at_its_end(database: KeyDatabase, clock: Time) -> None:
    with pytest.raises(KeyFault, match="expired already"):
        database.create(Wanted("a", expires=clock.now))


def untils(database: KeyDatabase) -> dict[bytes, float | None]:
    """Until when each secret is good."""
    news = database.read(None)
    assert news is not None
    return {each.digest: each.until for each in news.known}


def test_rotation(database: KeyDatabase, clock: Time) -> None:
    first = database.create(Wanted("a"))
    second = database.rotate("a", 60)
    clock.now += 10
    third = database.rotate("a", 600)
    known = untils(database)
    assert known == {digest_of(first): 1_000_060.0, digest_of(second): 1_000_610.0, digest_of(third): None}
    assert database.find("a").secrets[0].prefix == prefix_of(third)
    fourth = database.rotate("a")
    known = untils(database)
    assert known == {
        digest_of(fourth): None,
        **dict.fromkeys(map(digest_of, (first, second, third)), 1_000_010.0),
    }


def test_what_was_replaced_is_forgotten_in_the_end(database: KeyDatabase, clock: Time) -> None:
    database.create(Wanted("a"))
    for _ in range(50):
        last = database.rotate("a", 60)
    found = database.find("a").secrets
    assert len(found) == module.MAX_SECRETS
    assert found[0].prefix == prefix_of(last)
    assert found[0].until is None
    clock.now += module.OUTDATED_S + 61
    database.rotate("a")
    assert len(database.find("a").secrets) == 2


def test_rotation_and_expiry(database: KeyDatabase, clock: Time) -> None:
    database.create(Wanted("a", expires=clock.now + 10))
    database.rotate("a")
    assert database.find("a").expires == clock.now + 10
    database.rotate("a", expires=clock.now + 99)
    assert database.find("a").expires == clock.now + 99
    clock.now += 100
    with pytest.raises(KeyFault, match="--expires"):
        database.rotate("a")
    database.rotate("a", expires=math.inf)
    assert database.find("a").expires is None


@pytest.mark.parametrize("change", ["rotate", "revoke"])
def test_keys_that_are_not_there(database: KeyDatabase, change: str) -> None:
    database.create(Wanted("a"))
    with pytest.raises(KeyFault, match="no key 'b'"):
        getattr(database, change)("b")
    with pytest.raises(KeyFault, match="no key 'b'"):
        database.find("b")
    database.revoke("a")
    with pytest.raises(KeyFault, match="is revoked"):
        getattr(database, change)("a")


def test_a_reader_is_told_what_changed(database: KeyDatabase) -> None:
    for name in ("a", "b", "c"):
        database.create(Wanted(name))
    first = database.read(None)
    assert first is not None
    assert first.whole
    assert [each.key.name for each in first.known] == ["a", "b", "c"]
    assert database.read(first.mark) is None
    database.revoke("b")
    second = database.read(first.mark)
    assert second is not None
    assert not second.whole
    assert [(each.key.name, each.key.revoked is None) for each in second.known] == [("b", False)]
    assert database.read(second.mark) is None


def test_another_file_of_that_name_is_read_whole(database: KeyDatabase) -> None:
    database.create(Wanted("a"))
    saved = database.path.read_bytes()
    database.create(Wanted("b"))
    news = database.read(None)
    assert news is not None
    database.path.write_bytes(saved)  # a copy from before, put back in place
    back = database.read(news.mark)
    assert back is not None
    assert back.whole
    assert [each.key.name for each in back.known] == ["a"]
    database.path.unlink()
    database.create(Wanted("c"))
    again = database.read(back.mark)
    assert again is not None
    assert again.whole
    assert [each.key.name for each in again.known] == ["c"]


def test_a_copy_put_back_is_seen_whatever_was_changed_since(database: KeyDatabase) -> None:
    """As many changes as before, or more, are not the same ones: a key that is revoked in the copy is revoked."""
    for name in ("a", "b"):
        database.create(Wanted(name))
    saved = database.path.read_bytes()
    database.create(Wanted("c"))
    news = database.read(None)
    assert news is not None
    for later in ((), ("d",), ("d", "e")):
        database.path.write_bytes(saved)
        database.revoke("a")
        for name in later:
            database.create(Wanted(name))
        back = database.read(news.mark)
        assert back is not None
        assert back.whole
        assert [(each.key.name, each.key.revoked is None) for each in back.known][:2] == [("a", False), ("b", True)]


def test_concurrent_creation(database: KeyDatabase) -> None:
    gate = threading.Barrier(8)

    def make(at: int) -> str:
        gate.wait()
        return database.create(Wanted(f"key {at}"))

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert len(set(made)) == 8
    news = database.read(None)
    assert news is not None
    assert {each.digest for each in news.known} == set(map(digest_of, made))
    with closing(sqlite3.connect(database.path)) as db:
        assert db.execute("SELECT COUNT(DISTINCT changed), MAX(changed) FROM keys").fetchone() == (8, news.mark.changes)


def test_of_two_who_want_one_name_one_gets_it(database: KeyDatabase) -> None:
    gate = threading.Barrier(4)

    def make(_: int) -> bool:
        gate.wait()
        try:
            database.create(Wanted("the one"))
        except KeyFault:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(make, range(4))) == [False, False, False, True]


def test_a_full_file(database: KeyDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    database.create(Wanted("a"))
    database.create(Wanted("b"))
    with pytest.raises(KeyFault, match="full"):
        database.create(Wanted("c"))
    assert [key.name for key in database.every()] == ["a", "b"]


def test_a_missing_file_is_not_made_by_looking(database: KeyDatabase) -> None:
    for look in (lambda: database.read(None), database.every, lambda: database.revoke("a")):
        with pytest.raises(FileNotFoundError):
            look()
    assert not database.path.exists()


def test_files_of_somebody_else(database: KeyDatabase) -> None:
    database.path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        database.read(None)
    database.path.unlink()
    with closing(sqlite3.connect(database.path)) as theirs:
        theirs.execute("CREATE TABLE keys (a)")
        theirs.commit()
    for use in (lambda: database.read(None), database.every, lambda: database.create(Wanted("a"))):
        with pytest.raises(ValueError, match="no database of keys"):
            use()


DAMAGE = [
    "UPDATE keys SET tags = 'x'",
    "UPDATE keys SET routes = '[1]'",
    "UPDATE keys SET models = x'ff'",
    "UPDATE keys SET expires = 'soon'",
    "UPDATE keys SET revoked = 'yes'",
    "UPDATE keys SET tenant = 7",
    "UPDATE secrets SET until = 'soon'",
    "UPDATE secrets SET digest = 'text'",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_entries(database: KeyDatabase, damage: str) -> None:
    """Nobody is let in by half an entry."""
    database.create(Wanted("a"))
    with closing(sqlite3.connect(database.path)) as db:
        db.execute(damage)
        db.commit()
    if damage == "UPDATE keys SET tenant = 7":
        assert database.every()[0].tenant == "7"  # SQLite makes a text of it
        return
    with pytest.raises(ValueError, match="damaged"):
        database.read(None)


def test_a_file_with_bits_turned(database: KeyDatabase) -> None:
    """A reader meets with what a reader of files meets with, and nothing else; never with a key that nobody made."""
    for name in ("a", "b", "c"):
        database.create(Wanted(name, models=("gpt-*",)))
    good = database.path.read_bytes()
    whole = database.read(None)
    assert whole is not None
    digests = {each.digest for each in whole.known}
    turned = random.Random(7)  # the same every time
    met = 0
    for _ in range(400):
        at = turned.choice([turned.randrange(len(good)), turned.randrange(200), good.find(b"gpt-")])
        database.path.write_bytes(good[:at] + bytes([turned.randrange(256)]) + good[at + 1 :])
        try:
            news = database.read(None)
        except (sqlite3.Error, OSError, ValueError):
            met += 1
            continue
        assert news is not None
        assert sum(each.digest not in digests for each in news.known) <= 1
    assert met > 20


def test_moments() -> None:
    assert at("2027-01-31") == 1_801_353_600.0
    assert at("2027-01-31T01:00+01:00") == at("2027-01-31T00:00Z") == at("2027-01-31")
    assert in_time("30d", 100.0) == 100.0 + 30 * 86400
    assert in_time("never", 100.0) == math.inf
    assert in_time("2027-01-31", 0.0) == at("2027-01-31")
    assert written(at("2027-01-31")) == "2027-01-31 00:00:00Z"
    for wrong in ("", "soon", "30", "2027-13-01", "31.1.2027"):
        with pytest.raises(ValueError, match="expires: expected"):
            in_time(wrong, 0.0)
        with pytest.raises(ValueError, match="expires: expected"):
            at(wrong)
