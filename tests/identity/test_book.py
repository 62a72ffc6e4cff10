"""The keys in memory: a change is known at the next look, and when nobody can look, nobody is let in."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from headgate.gateway.errors import HouseError
from headgate.gateway.facts import Grant, Principal
from headgate.gateway.identity.book import TRUSTED_S, KeyBook
from headgate.gateway.identity.database import KeyDatabase, Mark, News, Wanted
from headgate.gateway.identity.keys import digest_of


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def database(tmp_path: Path) -> KeyDatabase:
    return KeyDatabase(tmp_path / "keys.db")


@pytest.fixture
async def book(database: KeyDatabase, clock: Time) -> AsyncIterator[KeyBook]:
    """A book that looks when it is told to."""
    book = KeyBook(database.path, clock, look_every_s=3600.0)
    yield book
    if book._holders:
        await book.stop()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "headgate.auth"]


async def test_changes_are_known_at_the_next_look(database: KeyDatabase, book: KeyBook) -> None:
    first = database.create(Wanted("a", "red", "acme", ("t",), models=("gpt-*",)))
    await book.start()
    found = book.find(digest_of(first))
    assert found is not None
    assert found.principal == Principal("a", "red", "acme", ("t",), Grant(("*",), ("gpt-*",)))
    assert book.find(digest_of("hg-none")) is None
    second = database.create(Wanted("b"))
    assert book.find(digest_of(second)) is None
    await book.look()
    other = book.find(digest_of(second))
    assert other is not None
    assert other.principal.grant is None
    database.revoke("a")
    await book.look()
    found = book.find(digest_of(first))
    assert found is not None
    assert "revoked" in found.refusal
    third = database.rotate("b", 60)
    await book.look()
    old, new = book.find(digest_of(second)), book.find(digest_of(third))
    assert old is not None
    assert new is not None
    assert (old.expires < 1e12, "replaced" in old.expired, new.expires) == (True, True, float("inf"))
    assert len(book) == 3


async def test_it_looks_by_itself(database: KeyDatabase) -> None:
    key = database.create(Wanted("a"))
    book = KeyBook(database.path, look_every_s=0.01)
    await book.start()
    database.revoke("a")
    async with asyncio.timeout(2):
        while (found := book.find(digest_of(key))) is None or not found.refusal:
            await asyncio.sleep(0.005)
    await book.stop()


async def test_a_look_without_news_reads_no_key(database: KeyDatabase, book: KeyBook) -> None:
    database.create(Wanted("a"))
    await book.start()
    callers = book._callers
    await book.look()
    assert book._callers is callers


async def test_a_file_that_comes_later(database: KeyDatabase, book: KeyBook, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await book.start()
    await book.look()
    with pytest.raises(HouseError, match="cannot be read") as caught:
        book.find(b"x")
    assert (caught.value.status, caught.value.kind) == (503, "unavailable")
    assert caught.value.retry_after_s is not None
    key = database.create(Wanted("a"))
    await book.look()
    assert book.find(digest_of(key)) is not None
    first, second = messages(caplog)  # not one line for each look
    assert "cannot be read" in first
    assert second == "keys.db: 1 API keys are known"


async def test_a_file_that_goes(
    database: KeyDatabase, book: KeyBook, clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """What was known counts for a moment longer; then nobody could tell of a revoked key."""
    key = database.create(Wanted("a"))
    await book.start()
    saved = database.path.read_bytes()
    database.path.unlink()
    for _ in range(3):
        await book.look()
    clock.now += TRUSTED_S
    assert book.find(digest_of(key)) is not None
    clock.now += 0.1
    with pytest.raises(HouseError):
        book.find(digest_of(key))
    with pytest.raises(HouseError):
        book.find(b"unknown")
    database.path.write_bytes(saved)
    await book.look()
    assert book.find(digest_of(key)) is not None
    assert sum("cannot be read" in each for each in messages(caplog)) == 1


@pytest.mark.parametrize("how", ["garbage", "locked", "emptied", "theirs"])
async def test_a_file_that_breaks(
    database: KeyDatabase, book: KeyBook, clock: Time, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("headgate.gateway.identity.database._READ_WAIT_S", 0.05)
    key = database.create(Wanted("a"))
    await book.start()
    saved = database.path.read_bytes()
    lock = sqlite3.connect(database.path, isolation_level=None)
    with closing(lock):
        if how == "locked":
            lock.execute("BEGIN EXCLUSIVE")
        else:
            database.path.write_bytes({"garbage": b"\0" * 5000, "emptied": b"", "theirs": _another()}[how])
        clock.now += TRUSTED_S + 1
        await book.look()
        with pytest.raises(HouseError):
            book.find(digest_of(key))
    if how != "locked":
        database.path.write_bytes(saved)
    await book.look()
    assert book.find(digest_of(key)) is not None


def _another() -> bytes:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE things (a)")
        return db.serialize()


async def test_a_disk_that_does_not_answer(tmp_path: Path, clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread waits for it, however often one looks, and no call does."""
    monkeypatch.setattr("headgate.gateway.identity.book.TRUSTED_S", 0.05)
    gate, asked = threading.Event(), []

    class Stuck(KeyDatabase):
        def read(self, since: Mark | None) -> News | None:
            asked.append(since)
            gate.wait(5)
            return super().read(since)

    database = Stuck(tmp_path / "keys.db")
    key = database.create(Wanted("a"))
    book = KeyBook(database.path, clock, 3600.0, database)
    await book.start()
    await book.look()
    assert len(asked) == 1
    with pytest.raises(HouseError):
        book.find(digest_of(key))
    gate.set()
    await asyncio.sleep(0.02)
    await book.look()
    await book.look()
    assert book.find(digest_of(key)) is not None
    await book.stop()


async def test_it_is_held_by_several(database: KeyDatabase, book: KeyBook) -> None:
    database.create(Wanted("a"))
    await book.start()
    watching = book._watching
    await book.start()
    await book.stop()
    assert book._watching is watching
    assert watching is not None
    assert not watching.done()
    await book.stop()
    assert watching.done()


async def test_without_a_look_nobody_is_let_in(database: KeyDatabase, book: KeyBook) -> None:
    key = database.create(Wanted("a"))
    with pytest.raises(HouseError):
        book.find(digest_of(key))
