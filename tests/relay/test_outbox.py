"""Writes of one turn of the loop: together, in order, and never to who is gone."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
from weakref import ref

import pytest
from headgate.gateway.relay.outbox import ALONE, LARGE, Outbox, outbox_of


class Wire(asyncio.Transport):
    """Notes what is written to it, in a list that several share."""

    def __init__(self, name: str, log: list[tuple[str, bytes]]) -> None:
        super().__init__()
        self._name, self._log, self._closed = name, log, False

    def write(self, data: Any) -> None:
        self._log.append((self._name, bytes(data)))

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True


@pytest.fixture
async def log() -> list[tuple[str, bytes]]:
    return []


async def gathering() -> Outbox:
    """Return an outbox that has sent as many alone as it does before it tries another turn."""
    outbox, sink = Outbox(asyncio.get_running_loop()), Wire("", [])
    for _ in range(ALONE):
        outbox.write(sink, b"")
    return outbox


async def test_who_writes_alone_is_not_held_up(log: list[tuple[str, bytes]]) -> None:
    outbox = Outbox(asyncio.get_running_loop())
    wire = Wire("a", log)
    for number in range(ALONE):
        outbox.write(wire, b"%d" % number)
        assert len(log) == number + 1
    outbox.write(wire, b"tried")
    assert len(log) == ALONE
    await asyncio.sleep(0)
    assert log[-1] == ("a", b"tried")
    outbox.write(wire, b"alone again")
    assert log[-1] == ("a", b"alone again")


async def test_the_writes_of_a_turn_go_out_after_it(log: list[tuple[str, bytes]]) -> None:
    outbox = await gathering()
    first, second = Wire("a", log), Wire("b", log)
    for _ in range(3):
        outbox.write(first, b"1")
        outbox.write(second, b"2")
        outbox.write(first, b"3")
        assert log == [], "held until the turn is over"
        assert outbox.waiting
        await asyncio.sleep(0)
        assert log == [("a", b"1"), ("b", b"2"), ("a", b"3")]
        assert not outbox.waiting
        log.clear()


async def test_who_cannot_wait_flushes(log: list[tuple[str, bytes]]) -> None:
    outbox = await gathering()
    wire = Wire("a", log)
    outbox.write(wire, b"1")
    outbox.write(wire, b"2")
    outbox.flush()
    wire.write(b"3")
    assert [data for _, data in log] == [b"1", b"2", b"3"]
    outbox.write(wire, b"4")
    outbox.write(wire, b"5")
    for _ in range(3):
        await asyncio.sleep(0)
    assert [data for _, data in log] == [b"1", b"2", b"3", b"4", b"5"], "each once"


async def test_what_is_large_goes_at_once(log: list[tuple[str, bytes]]) -> None:
    """With what stands before it: its writer looks whether the reader keeps up."""
    outbox = await gathering()
    wire = Wire("a", log)
    outbox.write(wire, b"1")
    outbox.write(wire, b"2" * (LARGE + 1))
    assert [len(data) for _, data in log] == [1, LARGE + 1]
    outbox.write(wire, b"3")
    outbox.write(wire, b"4")
    await asyncio.sleep(0)
    assert [data for _, data in log[2:]] == [b"3", b"4"]


async def test_who_is_gone_gets_nothing(log: list[tuple[str, bytes]]) -> None:
    outbox = await gathering()
    gone, here = Wire("gone", log), Wire("here", log)
    outbox.write(gone, b"1")
    outbox.write(here, b"2")
    gone.close()
    await asyncio.sleep(0)
    assert log == [("here", b"2")]


async def test_a_loop_has_one() -> None:
    loop = asyncio.get_running_loop()
    assert outbox_of(loop) is outbox_of(loop)


def test_a_loop_that_is_over_is_let_go() -> None:
    async def use() -> None:
        outbox_of(asyncio.get_running_loop()).write(Wire("a", []), b"1")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    loop.close()
    over = ref(loop)
    del loop
    gc.collect()
    assert over() is None
