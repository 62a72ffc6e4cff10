"""What outlives a process, what two processes learn from each other, and what a store that fails costs: nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway.accounts.keeper import Keeper
from headgate.gateway.accounts.options import CooldownRules
from headgate.gateway.accounts.pool import AccountPool, member_of
from headgate.gateway.accounts.record import Reset, read_record, record_key, reset_key
from headgate.gateway.accounts.state import State
from headgate.gateway.errors import HouseError
from headgate.gateway.stores.base import Key, Store, get_one
from headgate.gateway.stores.memory import MemoryStore
from headgate.gateway.stores.sqlite import SqliteStore

KEY = record_key("pool", "a")


class Hands:
    """The clocks of one process: the monotonic one began anew with it."""

    def __init__(self, now: float = 50.0, unix: float = 1_790_000_000.0) -> None:
        self.now = now
        self.unix = unix

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.unix += seconds


class Process:
    """A pool with one account, and its keeper, which looks when it is told to."""

    def __init__(self, store: Store, hands: Hands, key: str = "sk-a") -> None:
        self.hands = hands
        self.pool = AccountPool(
            "pool", [member_of("a", key)], store=store, clock=lambda: hands.now, wall=lambda: hands.unix
        )
        self.keeper = Keeper(self.pool, store)

    @property
    def state(self) -> State:
        return self.pool.members[0].state

    async def begin(self) -> Process:
        await self.keeper.look(write=False)
        return self

    def park(self, seconds: float, scope: str = "m", kind: str = "rate_limit") -> None:
        self.state.park(scope, self.hands.now, self.hands.unix, seconds, kind, "why", "m")

    @property
    def open(self) -> bool:
        return not self.state.is_closed("m", self.hands.now, 1)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, 100, 1_000_000, 1e9, clock=lambda: 1_790_000_000.0)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path / "a.db") as store:
        yield store


@pytest.mark.parametrize("jump", [0.0, 20.0, -1e6, -5.0])
async def test_a_cooldown_outlives_the_process(tmp_path: Path, jump: float) -> None:
    hands = Hands()
    async with opened(tmp_path / "a.db") as store:
        old = await Process(store, hands).begin()
        old.park(100.0)
        await old.keeper.look()
    hands = Hands(now=3.0, unix=hands.unix + 10.0 + jump)
    async with opened(tmp_path / "a.db") as store:
        new = await Process(store, hands).begin()
    left = min(100.0, 90.0 - jump)  # a clock that went back makes it no longer than it was
    assert not new.open
    hands.pass_(left - 0.1)
    assert not new.open
    hands.pass_(0.2)
    assert new.open
    assert [event.what for event in new.state.events] == ["cooling"]


@pytest.mark.parametrize("jump", [91.0, 1e9])
async def test_what_is_over_by_then_is_over(store: SqliteStore, jump: float) -> None:
    old = await Process(store, Hands()).begin()
    old.park(100.0)
    await old.keeper.look()
    new = await Process(store, Hands(unix=1_790_000_010.0 + jump)).begin()
    assert new.open


async def test_until_reset_outlives_the_process(store: SqliteStore) -> None:
    old = await Process(store, Hands()).begin()
    old.park(float("inf"), "", "auth")
    await old.keeper.look()
    new = await Process(store, Hands(unix=1_900_000_000.0)).begin()
    assert not new.open
    assert new.state.cooling[""].left(new.hands.now) == float("inf")


async def test_another_key_has_no_past(store: SqliteStore) -> None:
    old = await Process(store, Hands()).begin()
    old.park(float("inf"), "", "auth")
    await old.keeper.look()
    new = await Process(store, Hands(), key="sk-new").begin()
    assert new.open and not new.state.events
    new.state.calls += 1
    await new.keeper.look()
    record = read_record(await get_one(store, KEY))
    assert record is not None and not record.cooldowns


async def test_workers_learn_from_each_other(store: SqliteStore) -> None:
    one, two = await Process(store, Hands()).begin(), await Process(store, Hands(now=9000.0)).begin()
    one.park(100.0)
    await one.keeper.look()
    assert two.open
    await two.keeper.look()
    assert not two.open
    two.hands.pass_(10.0)
    two.park(5.0)  # a shorter one
    await two.keeper.look()
    await one.keeper.look()
    one.hands.pass_(99.0)
    assert not one.open
    one.hands.pass_(2.0)
    assert one.open
    one.state.over("m", one.hands.unix)
    await one.keeper.look()
    await two.keeper.look()
    assert not two.state.cooling
    two.hands.pass_(92.0)
    two.park(50.0)
    await two.keeper.look()
    await one.keeper.look()
    assert not one.open


async def test_counts_of_all_workers_stand_side_by_side(store: SqliteStore) -> None:
    one, two = await Process(store, Hands()).begin(), await Process(store, Hands()).begin()
    for each, calls in ((one, 3), (two, 4)):
        each.state.calls = calls
        await each.keeper.look()
    record = read_record(await get_one(store, KEY))
    assert record is not None
    assert sorted(each.calls for each in record.counts.values()) == [3, 4]
    # Somebody wrote over it with what had been read before.
    store.put(KEY, record.__class__(record.mark).encode())
    await one.keeper.look()
    await two.keeper.look()
    record = read_record(await get_one(store, KEY))
    assert record is not None and len(record.counts) == 2


async def test_a_reload_counts_nothing_twice(store: SqliteStore) -> None:
    old = await Process(store, Hands()).begin()
    old.state.calls = 3
    old.park(10.0)
    await old.keeper.look()
    new = Process(store, old.hands)
    new.pool.carry_over(old.pool)
    await new.begin()
    new.state.calls += 1
    await new.keeper.look()
    await old.keeper.look()
    record = read_record(await get_one(store, KEY))
    assert record is not None
    assert [each.calls for each in record.counts.values()] == [4]
    assert [event.what for event in new.state.events] == ["cooling"]


async def test_a_reset_is_heard_once(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headgate.accounts")
    one, two = await Process(store, Hands()).begin(), await Process(store, Hands()).begin()
    for each in (one, two):
        each.park(100.0, "", "auth")
        await each.keeper.look()
    one.hands.pass_(5.0)
    two.hands.pass_(5.0)
    store.put(reset_key("pool", "a"), Reset(one.hands.unix).encode())
    for each in (one, two):
        await each.keeper.look()
        assert each.open
    assert caplog.text.count("account a of pool: reset, it is used again") == 2
    one.hands.pass_(1.0)
    one.park(100.0, "", "auth")
    await one.keeper.look()
    await one.keeper.look()
    assert not one.open
    late = await Process(store, Hands(unix=one.hands.unix)).begin()
    assert not late.open


@pytest.mark.parametrize("before", ["reset", "back"])
async def test_what_fails_after_the_clock_went_back_is_the_later_word(store: SqliteStore, before: str) -> None:
    """An hour is set back: what was found out before counts no longer than what fails now."""
    one, two = await Process(store, Hands()).begin(), await Process(store, Hands()).begin()
    one.park(100.0, "", "auth")
    for each in (one, two):
        await each.keeper.look()
        await each.keeper.look()
    assert not two.open
    if before == "reset":
        store.put(reset_key("pool", "a"), Reset(one.hands.unix + 1.0).encode())
    else:
        one.state.over("", one.hands.unix + 1.0)
    for each in (one, two):
        await each.keeper.look()
        assert each.open
        each.hands.unix -= 3600.0
    one.park(float("inf"), "", "auth")
    await one.keeper.look()
    await two.keeper.look()
    assert not one.open and not two.open
    late = await Process(store, Hands(unix=one.hands.unix)).begin()
    assert not late.open


async def test_a_reset_before_the_start_counts(store: SqliteStore) -> None:
    old = await Process(store, Hands()).begin()
    old.park(100.0, "", "auth")
    await old.keeper.look()
    store.put(reset_key("pool", "a"), Reset(old.hands.unix + 1).encode())
    assert (await Process(store, Hands()).begin()).open


async def test_nothing_is_written_where_nothing_is_new(store: SqliteStore) -> None:
    puts: list[Key] = []
    put = store.put
    store.put = lambda key, value, ttl_s=None, /: (puts.append(key), put(key, value, ttl_s))[1]  # type: ignore[method-assign,assignment]
    one = await Process(store, Hands()).begin()
    for _ in range(3):
        await one.keeper.look()
    assert puts == []
    one.state.calls += 1
    for _ in range(3):
        await one.keeper.look()
    assert puts == [KEY]
    one.state.in_flight = 1
    for _ in range(4):
        await one.keeper.look()
        one.hands.pass_(6.0)
    assert len(puts) == 3  # new, and once more as a sign of life


class Failing(MemoryStore):
    """A store of others, too, that cannot be read for a while."""

    shared = True
    fails = True

    async def get(self, keys: Sequence[Key], /) -> list[bytes | None]:
        if self.fails:
            raise HouseError("a store of this gateway cannot be read")
        return await super().get(keys)


async def test_a_store_that_fails_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    store = Failing(10, 10_000, 100.0)
    one = await Process(store, Hands()).begin()
    one.park(100.0)
    await one.keeper.look()
    await one.keeper.look()
    assert caplog.text.count("are neither read nor kept") == 1
    store.fails = False
    await one.keeper.look()
    assert read_record(await get_one(store, KEY)) is not None


@pytest.mark.parametrize("rubbish", [b"", b"{", b'{"mark": "x"}', b"\xff" * 100])
async def test_rubbish_in_the_store(store: SqliteStore, rubbish: bytes) -> None:
    store.put(KEY, rubbish)
    store.put(reset_key("pool", "a"), rubbish)
    one = await Process(store, Hands()).begin()
    one.park(10.0)
    await one.keeper.look()
    assert not one.open
    record = read_record(await get_one(store, KEY))
    assert record is not None and "m" in record.cooldowns


async def test_a_pool_looks_by_itself(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keeper.__init__, "__defaults__", (0.01,))
    one = AccountPool("pool", [member_of("a", "sk-a")], rules=CooldownRules(), store=store)
    two = AccountPool("pool", [member_of("a", "sk-a")], rules=CooldownRules(), store=store)
    await one.start()
    await two.start()
    one.members[0].state.park("", one.clock(), one.wall(), 100.0, "quota", "empty")
    await until(lambda: two.members[0].state.cooling)
    two.members[0].state.over("", two.wall() + 1)
    await two.stop()
    await until(lambda: not one.members[0].state.cooling)
    await one.stop()
    await one.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "headgate accounts"]


async def test_what_is_in_memory_is_not_kept() -> None:
    store = MemoryStore(10, 10_000, 100.0)
    pool = AccountPool("pool", [member_of("a", "sk-a")], store=store)
    await pool.start()
    pool.members[0].state.park("", pool.clock(), pool.wall(), 100.0, "quota", "empty")
    await pool.stop()
    assert len(store) == 0


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)
