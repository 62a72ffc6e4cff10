"""One contract for every store, and what each is beside it: bounds, time, tenants, and what a restart leaves."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from headgate.gateway.errors import HouseError
from headgate.gateway.stores import sqlite as sqlite_store
from headgate.gateway.stores.base import Key, Store, get_one
from headgate.gateway.stores.memory import ENTRY_BYTES, MemoryStore
from headgate.gateway.stores.sqlite import SqliteStore
from hypothesis import given, settings
from hypothesis import strategies as st

Opener = Callable[..., Awaitable[Store]]


class Time:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture(params=["memory", "sqlite"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Time) -> AsyncIterator[Opener]:
    """Open a store of each kind: ``await opened(max_entries=…, max_bytes=…, ttl_s=…)``."""
    async with AsyncExitStack() as stack:

        async def open_one(max_entries: int = 100, max_bytes: int = 1 << 20, ttl_s: float = 60) -> Store:
            if request.param == "memory":
                return MemoryStore(max_entries, max_bytes, ttl_s, clock)
            store = SqliteStore(tmp_path / "store.db", max_entries, max_bytes, ttl_s, clock)
            await store.start()
            stack.push_async_callback(store.stop)
            return store

        yield open_one


def key(name: str, tenant: str = "t", space: str = "s") -> Key:
    return Key(space, tenant, name)


async def test_what_is_put_is_found_at_once_and_later(opened: Opener) -> None:
    store = await opened()
    assert isinstance(store, Store)
    assert await get_one(store, key("a")) is None
    store.put(key("a"), b"one")
    assert await get_one(store, key("a")) == b"one"
    await store.settled()
    assert await get_one(store, key("a")) == b"one"
    store.put(key("a"), b"")
    assert await get_one(store, key("a")) == b""
    await store.settled()
    assert await get_one(store, key("a")) == b""
    store.delete(key("a"))
    store.delete(key("never"))
    assert await get_one(store, key("a")) is None
    await store.settled()
    assert await get_one(store, key("a")) is None


async def test_many_at_once_in_the_order_of_the_keys(opened: Opener) -> None:
    store = await opened(max_entries=2000)
    keys = [key(str(number)) for number in range(1000)]
    for number, each in enumerate(keys[::2]):
        store.put(each, b"%d" % number)
    await store.settled()
    found = await store.get(keys)
    assert found[::2] == [b"%d" % number for number in range(500)]
    assert set(found[1::2]) == {None}
    assert await store.get(()) == []


async def test_tenant_and_space_are_part_of_the_key(opened: Opener) -> None:
    store = await opened()
    everyone = [Key(space, tenant, "a") for space in ("s", "r", "") for tenant in ("t", "u", "", "t\0", "ü")]
    for each in everyone:
        store.put(each, repr(each).encode())
    for _ in range(2):
        assert await store.get(everyone) == [repr(each).encode() for each in everyone]
        await store.settled()
    store.delete(everyone[0])
    await store.settled()
    assert (await store.get(everyone)).count(None) == 1


async def test_time_is_up(opened: Opener, clock: Time) -> None:
    store = await opened(ttl_s=60)
    store.put(key("short"), b"x", 10)
    store.put(key("usual"), b"x")
    store.put(key("long"), b"x", 3600)
    keys = [key("short"), key("usual"), key("long")]
    clock.now += 9
    assert await store.get(keys) == [b"x", b"x", b"x"]
    await store.settled()
    clock.now += 1
    assert await store.get(keys) == [None, b"x", b"x"]
    clock.now += 50
    assert await store.get(keys) == [None, None, None]
    store.put(key("short"), b"again", 10)
    assert await get_one(store, key("short")) == b"again"


async def test_no_more_entries_than_there_may_be(opened: Opener) -> None:
    store = await opened(max_entries=10)
    for number in range(35):
        store.put(key(str(number)), b"x")
        await store.settled()
        kept = [each for each in await store.get([key(str(n)) for n in range(number + 1)]) if each is not None]
        assert 9 <= len(kept) <= 10 or len(kept) == number + 1
        assert await get_one(store, key(str(number))) == b"x"
    assert await get_one(store, key("0")) is None


async def test_no_more_bytes_than_there_may_be(opened: Opener) -> None:
    store = await opened(max_entries=1000, max_bytes=100_000)
    for number in range(40):
        store.put(key(str(number)), b"x" * 9_000)
        await store.settled()
        kept = [each for each in await store.get([key(str(n)) for n in range(40)]) if each is not None]
        assert len(kept) * 9_000 <= 100_000
        assert await get_one(store, key(str(number))) is not None
    assert len(kept) >= 9


async def test_what_is_too_large_is_not_kept_and_takes_the_old_value_along(opened: Opener) -> None:
    store = await opened(max_bytes=10_000)
    store.put(key("a"), b"old")
    store.put(key("b"), b"other")
    store.put(key("a"), b"x" * 10_001)
    assert await store.get([key("a"), key("b")]) == [None, b"other"]
    await store.settled()
    assert await store.get([key("a"), key("b")]) == [None, b"other"]


async def test_what_was_put_again_is_new_again(opened: Opener) -> None:
    store = await opened(max_entries=10)
    for number in range(10):
        store.put(key(str(number)), b"x")
        await store.settled()
    store.put(key("0"), b"again")
    store.put(key("more"), b"x")
    await store.settled()
    assert await store.get([key("0"), key("1"), key("more")]) == [b"again", None, b"x"]


_names = st.text(st.characters(codec="utf-8"), max_size=4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), _names, st.binary(max_size=300)),
            st.tuples(st.just("delete"), _names, st.just(b"")),
            st.tuples(st.just("wait"), st.just(""), st.just(b"")),
        ),
        max_size=40,
    )
)
async def test_memory_is_a_dictionary_that_forgets(steps: list[tuple[str, str, bytes]]) -> None:
    clock = Time()
    store = MemoryStore(5, 2500, 30, clock)
    last: dict[str, bytes] = {}
    for step, name, value in steps:
        if step == "put":
            store.put(key(name), value)
            last[name] = value
        elif step == "delete":
            store.delete(key(name))
            last.pop(name, None)
        else:
            clock.now += 11
        assert len(store) <= 5
        assert store.size <= 2500
        for each, told in last.items():
            assert await get_one(store, key(each)) in (told, None)
    names = list(last)
    kept = [each for each in await store.get([key(name) for name in names]) if each is not None]
    assert store.size >= sum(len(each) + ENTRY_BYTES for each in kept)


# -- memory alone


async def test_memory_forgets_what_was_used_longest_ago() -> None:
    store = MemoryStore(3, 1 << 20, 60)
    for name in "abc":
        store.put(key(name), b"x")
    await store.get([key("a")])
    store.put(key("d"), b"x")
    assert await store.get([key(name) for name in "abcd"]) == [b"x", None, b"x", b"x"]


async def test_memory_goes_on_after_a_reload_with_the_bounds_of_the_new_rules() -> None:
    old, new = MemoryStore(10, 1 << 20, 60), MemoryStore(2, 1 << 20, 60)
    for name in "abc":
        old.put(key(name), b"x")
    new.carry_over(old)
    assert await new.get([key(name) for name in "abc"]) == [b"x", b"x", b"x"]
    new.put(key("d"), b"x")
    assert len(new) == len(old) == 2
    assert await old.get([key("d")]) == [b"x"]


# -- sqlite alone


async def test_sqlite_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    first = SqliteStore(path, 100, 1 << 20, 60)
    await first.start()
    first.put(key("a"), b"one")
    first.put(key("b"), b"two")
    first.delete(key("b"))
    await first.stop()
    second = SqliteStore(path, 100, 1 << 20, 60)
    await second.start()
    try:
        assert await second.get([key("a"), key("b")]) == [b"one", None]
    finally:
        await second.stop()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.with_name("store.db-wal").exists()


async def test_no_value_stands_in_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The library under it logs the statements that it is given, with what they are given."""
    caplog.set_level(logging.DEBUG)
    store = SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60)
    await store.start()
    store.put(key("a"), b"ann@corp.example")
    await store.settled()
    assert await store.get([key("a")]) == [b"ann@corp.example"]
    await store.stop()
    assert "INSERT" in caplog.text
    assert "ann@corp" not in caplog.text


async def test_two_processes_find_what_the_other_wrote(tmp_path: Path) -> None:
    one, other = (SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60) for _ in range(2))
    await one.start()
    await other.start()
    try:
        one.put(key("a"), b"one")
        await one.settled()
        assert await get_one(other, key("a")) == b"one"
        other.delete(key("a"))
        await other.settled()
        assert await get_one(one, key("a")) is None
    finally:
        await one.stop()
        await other.stop()


async def test_a_reload_finds_what_is_not_written_yet(tmp_path: Path) -> None:
    old, new = (SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60) for _ in range(2))
    await old.start()
    old.put(key("a"), b"one")
    new.carry_over(old)
    await new.start()
    try:
        assert await get_one(new, key("a")) == b"one"
        await old.stop()
        assert await get_one(new, key("a")) == b"one"
    finally:
        await new.stop()


async def test_a_reload_keeps_the_file_from_being_taken_apart(tmp_path: Path) -> None:
    """Who else opens the file and closes it again, such as a command, must see that it is in use: the last one out takes away
    the log in which the writes stand. (Whoever closes any descriptor of a file loses all locks that the process has on it.)"""
    path = tmp_path / "a.db"
    look = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
        "print(db.execute('SELECT COUNT(*) FROM entries').fetchone()[0])"
    )
    old, new = (SqliteStore(path, 100, 10**6, 60) for _ in range(2))
    await old.start()
    old.put(key("one"), b"1")
    await old.settled()
    new.carry_over(old)
    await new.start()
    await old.stop()
    try:
        for number, name in enumerate(("two", "three"), 2):
            subprocess.run([sys.executable, "-c", f"{look}; db.close()", str(path)], check=True, timeout=20)
            new.put(key(name), b"2")
            await new.settled()
            told = subprocess.run(
                [sys.executable, "-c", look, str(path)], stdout=subprocess.PIPE, check=True, timeout=20
            )
            assert int(told.stdout) == number
    finally:
        await new.stop()


async def test_put_before_the_start_and_get_after_the_end(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60)
    store.put(key("a"), b"one")
    assert await get_one(store, key("a")) == b"one"
    await store.start()
    await store.start()
    await store.settled()
    await store.stop()
    await store.stop()
    await store.settled()
    with pytest.raises(HouseError, match="cannot be read"):
        await get_one(store, key("a"))


async def test_what_is_past_its_time_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "_PRUNE_EVERY", 3)
    clock = Time()
    store = SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60, clock)
    await store.start()
    for number in range(2):
        store.put(key(str(number)), b"x")
        await store.settled()
    clock.now += 61
    store.put(key("new"), b"x")
    await store.stop()
    with sqlite3.connect(tmp_path / "store.db") as db:
        assert db.execute("SELECT name FROM entries").fetchall() == [("new",)]
    db.close()


async def test_a_disk_that_does_not_keep_up_costs_entries_and_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_store, "MAX_PENDING_BYTES", 3000)
    store = SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60)
    for number in range(10):  # nothing is written before the start
        store.put(key(str(number)), b"x" * 700)
    assert store._pending_bytes <= 3000
    assert await get_one(store, key("9")) == b"x" * 700
    assert "does not keep up" in caplog.text
    await store.start()
    await store.settled()
    found = await store.get([key(str(number)) for number in range(10)])
    assert found[0] is None
    assert found[-1] is not None
    await store.stop()


async def test_what_cannot_be_written_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60)
    await store.start()
    try:
        with sqlite3.connect(tmp_path / "store.db") as db:
            db.execute("DROP TABLE entries")
        db.close()
        store.put(key("a"), b"one")
        await store.settled()
        assert "cannot be written, 1 entries are lost" in caplog.text
        assert "one" not in caplog.text.replace("entries", "")
        with pytest.raises(HouseError):
            await get_one(store, key("a"))
    finally:
        await store.stop()


async def test_a_disk_that_is_full_costs_what_was_to_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60)
    await store.start()
    assert store._db is not None
    try:
        store.put(key("a"), b"one")
        await store.settled()
        await store._db.execute_fetchall("PRAGMA max_page_count = 1")  # as few as there are: no page more
        store.put(key("b"), b"x" * 50_000)
        await store.settled()
        assert "cannot be written, 1 entries are lost: database or disk is full" in caplog.text
        assert await store.get([key("a"), key("b")]) == [b"one", None]
        await store._db.execute_fetchall("PRAGMA max_page_count = 1000000")
        store.put(key("b"), b"two")
        await store.settled()
        assert await store.get([key("a"), key("b")]) == [b"one", b"two"]
    finally:
        await store.stop()


async def test_a_file_that_somebody_has_locked_is_read_all_the_same(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", 100, 1 << 20, 60)
    await store.start()
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    try:
        store.put(key("a"), b"one")
        await store.settled()
        other.execute("BEGIN EXCLUSIVE")
        store.put(key("b"), b"two")
        async with asyncio.timeout(5):  # the write waits for longer
            for _ in range(3):
                await asyncio.sleep(0.01)
                assert await store.get([key("a"), key("b"), key("c")]) == [b"one", b"two", None]
        other.execute("ROLLBACK")
        await store.settled()
        assert other.execute("SELECT COUNT(*) FROM entries").fetchone() == (2,)
    finally:
        other.close()
        await store.stop()


async def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    for impossible in (tmp_path, tmp_path / "no" / "where.db"):
        with pytest.raises(OSError):
            await SqliteStore(impossible, 1, 1000, 1).start()
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    with pytest.raises(ValueError, match="no store of this version"):
        await SqliteStore(path, 1, 1000, 1).start()
    (tmp_path / "text.db").write_text("no database at all, and longer than a header of SQLite is " * 10)
    with pytest.raises(sqlite3.DatabaseError):
        await SqliteStore(tmp_path / "text.db", 1, 1000, 1).start()
