"""The edges to async code: iterate, collect, and Pump."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NoReturn

import pytest
from headgate.gateway.errors import Cancelled, Cut, GatewayError, HouseError, Malformed
from headgate.gateway.ir.event import Chunk, PartDelta
from headgate.gateway.relay import pull
from headgate.gateway.relay.pull import HIGH_BYTES, Pump
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.scope import Scope
from headgate.gateway.relay.source import Listed

from .conftest import START, WIRE, Ear, Mark, Script, say, settle, soon

ABC = [say("a"), say("b"), say("c")]


def big(letter: str, size: int) -> Chunk:
    return Chunk((PartDelta(0, letter),), letter.encode() * size, WIRE)


def words(chunks: list[Chunk]) -> str:
    return "".join(event.text for chunk in chunks for event in chunk.events if isinstance(event, PartDelta))


# -- iterate


async def test_iterate_yields_everything(scope: Scope) -> None:
    assert words([chunk async for chunk in Reply(Listed(ABC), scope).through(Mark("1"))]) == "a1b1c1"


async def test_iterate_waits_for_what_comes_later(scope: Scope) -> None:
    source = Script(say("a"))
    seen: list[Chunk] = []

    async def read() -> None:
        async for chunk in Reply(source, scope):
            seen.append(chunk)

    task = scope.spawn(read())
    await settle()
    assert words(seen) == "a"
    source.push(say("b"), say("c"))
    await settle()
    assert words(seen) == "abc"
    source.end()
    await soon(task)
    assert not scope.items, "nothing is left behind"


async def test_iterate_raises_the_error_after_what_came_before(scope: Scope) -> None:
    seen: list[Chunk] = []
    error = Cut("cut")
    with pytest.raises(Cut) as caught:
        await _exhaust(Reply(Listed(ABC, error), scope), seen)
    assert caught.value is error
    assert words(seen) == "abc"


@pytest.mark.parametrize("how", ["aclose", "aclosing", "break", "cancel"])
async def test_a_reader_that_leaves_early_closes_the_reply(scope: Scope, how: str) -> None:
    source, mark = Script(*ABC), Mark("1")
    reply = Reply(source, scope).through(mark)
    if how == "aclose":
        chunks = reply.__aiter__()
        assert isinstance(chunks, AsyncGenerator)
        await anext(chunks)
        await chunks.aclose()
    elif how == "aclosing":
        reading = reply.__aiter__()
        assert isinstance(reading, AsyncGenerator)
        async with contextlib.aclosing(reading) as chunks:
            async for _ in chunks:
                break
    elif how == "break":
        async for _ in reply:
            break
        del _
    else:
        task = scope.spawn(_exhaust(reply))
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await settle()
    assert (source.aborted, mark.closed) == (True, ["cancelled"])
    assert not scope.items


async def _exhaust(reply: Reply, seen: list[Chunk] | None = None) -> None:
    async for chunk in reply:
        if seen is not None:
            seen.append(chunk)


async def test_a_slow_reader_pauses_the_source(scope: Scope) -> None:
    source = Script()
    reply = Reply(source, scope)
    chunks = reply.__aiter__()
    first = scope.spawn(_next(chunks))
    await settle()
    source.push(big("a", HIGH_BYTES), big("b", 100), big("c", 100))
    assert source.paused
    assert words([await first]) == "a"
    assert not source.paused, "the rest is below a quarter of the mark"
    source.push(big("d", HIGH_BYTES // 2), big("e", HIGH_BYTES))
    assert source.paused
    assert words([await anext(chunks) for _ in range(3)]) == "bcd"
    assert source.paused
    assert words([await anext(chunks)]) == "e"
    assert not source.paused
    assert source.heard.count("pause") == 2
    reply.abort()
    assert isinstance(chunks, AsyncGenerator)
    await chunks.aclose()


async def _next(chunks: AsyncIterator[Chunk]) -> Chunk:
    return await anext(chunks)


async def test_what_a_source_gives_inside_connect_is_bounded_too(scope: Scope) -> None:
    left = [big(letter, HIGH_BYTES) for letter in "abcdef"]
    source = Listed(left)
    assert words([chunk async for chunk in Reply(source, scope)]) == "abcdef"
    waiting = Listed(left)
    chunks = Reply(waiting, scope).__aiter__()
    await anext(chunks)
    assert len(waiting._items) >= 4
    assert isinstance(chunks, AsyncGenerator)
    await chunks.aclose()


@pytest.mark.parametrize("read", [_exhaust, Reply.collect])
@pytest.mark.parametrize("opened", [False, True])
async def test_a_reply_paused_by_somebody_before_flows_to_its_reader(scope: Scope, read: object, opened: bool) -> None:
    reply = Reply(Listed([START, *ABC]), scope)
    if opened:
        await reply.opened()
    reply.pause()
    assert callable(read)
    await soon(read(reply))


# -- collect


async def test_collect_returns_everything(scope: Scope) -> None:
    source = Script(say("a"))
    task = scope.spawn(Reply(source, scope).through(Mark("", tail="t")).collect())
    await settle()
    source.push(say("b"))
    source.end()
    assert words(await task) == "abt"


async def test_collect_raises_the_error(scope: Scope) -> None:
    error = Cut("cut")
    with pytest.raises(Cut) as caught:
        await Reply(Listed(ABC, error), scope).collect()
    assert caught.value is error


async def test_collect_cancelled_closes_the_reply(scope: Scope) -> None:
    source = Script()
    task = scope.spawn(Reply(source, scope).collect())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.aborted
    assert not scope.items


async def test_collect_is_bounded(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "COLLECT_BYTES", 1000)
    source = Script(*[big("a", 300)] * 3, say("t"))
    mark = Mark("", tail="never")
    with pytest.raises(Malformed, match="larger than 1000"):
        await soon(Reply(source, scope).through(mark).collect())
    assert (source.aborted, mark.closed) == (True, ["cancelled"])


@pytest.mark.parametrize("read", [_exhaust, Reply.collect])
@pytest.mark.parametrize("when", ["before", "while it waits"])
async def test_a_reader_is_woken_when_the_scope_closes(scope: Scope, read: object, when: str) -> None:
    source = Script(say("a"))
    if when == "before":
        scope.close()
    else:
        scope.loop.call_later(0.01, scope.close)
    assert callable(read)
    with pytest.raises(Cancelled):
        await soon(read(Reply(source, scope)))
    assert source.aborted


# -- Pump


class Given:
    """An async iterator that is no generator: with an aclose, if asked, that tells."""

    def __init__(self, *items: Chunk | BaseException, close_fault: Exception | None = None) -> None:
        self.items = list(items)
        self.closed = 0
        self.taken = 0
        self.close_fault = close_fault

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        await asyncio.sleep(0)
        if not self.items:
            raise StopAsyncIteration
        self.taken += 1
        item = self.items.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item

    async def aclose(self) -> None:
        self.closed += 1
        if self.close_fault is not None:
            raise self.close_fault


class Bare:
    """An async iterator without aclose, like aiohttp's iter_any()."""

    def __init__(self, given: Given) -> None:
        self.given = given

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        return await anext(self.given)


async def ended(ear: Ear) -> None:
    async with asyncio.timeout(2):
        while not ear.ends:
            await asyncio.sleep(0)


@pytest.mark.parametrize("bare", [False, True], ids=["with aclose", "without"])
async def test_pump_pushes_everything_and_closes(scope: Scope, bare: bool) -> None:
    given, ear = Given(*ABC), Ear()
    Pump(Bare(given) if bare else given, scope).connect(ear)
    await ended(ear)
    assert (ear.text, ear.error, given.closed) == ("abc", None, 0 if bare else 1)
    assert not scope.items


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(Cut("cut"), Cut), (ValueError("bug"), HouseError), (asyncio.CancelledError(), Cancelled)],
    ids=["ours", "stranger", "cancelled by itself"],
)
async def test_pump_ends_with_what_the_iterator_raises(
    scope: Scope, fault: BaseException, kind: type[GatewayError]
) -> None:
    given, ear = Given(say("a"), fault), Ear()
    Pump(given, scope).connect(ear)
    await ended(ear)
    assert isinstance(ear.error, kind)
    assert (ear.text, given.closed) == ("a", 1)


async def test_pump_tells_of_a_close_that_fails(scope: Scope) -> None:
    given, ear = Given(say("a"), close_fault=ValueError("bug")), Ear()
    Pump(given, scope).connect(ear)
    await ended(ear)
    assert isinstance(ear.error, HouseError)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_pump_aborted_at_any_moment_closes_the_iterator(scope: Scope, turns: int) -> None:
    given, ear = Given(*ABC * 10), Ear()
    pump = Pump(given, scope)
    pump.connect(ear)
    for _ in range(turns):
        await asyncio.sleep(0)
    pump.abort()
    pump.abort()
    ear.deaf = True
    await settle()
    assert given.closed == 1
    assert not scope.items
    assert not scope.tasks


@pytest.mark.parametrize("turns", [-1, 0, 1, 3], ids=["never connected", "0", "1", "3"])
async def test_closing_the_scope_at_any_moment_closes_the_iterator(scope: Scope, turns: int) -> None:
    given, ear = Given(*ABC * 10), Ear()
    pump = Pump(given, scope)
    if turns >= 0:
        pump.connect(ear)
    for _ in range(turns):
        await asyncio.sleep(0)
    ear.deaf = True
    await scope.aclose()
    assert given.closed == 1
    assert not scope.tasks


async def test_pump_never_connected_closes_the_iterator(scope: Scope) -> None:
    given, ear = Given(*ABC), Ear()
    pump = Pump(given, scope)
    pump.abort()
    pump.connect(ear)
    await settle()
    assert (given.closed, given.taken, ear.ends) == (1, 0, 0)


async def test_pump_aborted_from_inside_push(scope: Scope) -> None:
    given = Given(*ABC)
    pump = Pump(given, scope)

    def leave(chunk: Chunk) -> None:
        pump.abort()
        ear.deaf = True

    ear = Ear(leave)
    pump.connect(ear)
    await settle()
    assert (ear.text, ear.ends, given.closed, given.taken) == ("a", 0, 1, 1)


async def test_pump_paused_takes_nothing(scope: Scope) -> None:
    given = Given(*ABC)
    pump = Pump(given, scope)
    pump.pause()
    ear = Ear(lambda chunk: pump.pause())
    pump.connect(ear)
    for count in range(3):
        await settle()
        assert (given.taken, len(ear.chunks), ear.ends) == (count, count, 0)
        pump.resume()
    await settle()
    pump.resume()
    await ended(ear)
    assert ear.text == "abc"


async def test_pump_paused_while_the_iterator_works_holds_its_item(scope: Scope) -> None:
    given, ear = Given(*ABC), Ear()
    pump = Pump(given, scope)
    pump.connect(ear)
    await asyncio.sleep(0)
    pump.pause()
    await settle()
    assert (given.taken, ear.chunks) == (1, [])
    pump.resume()
    await ended(ear)
    assert ear.text == "abc"


async def test_pump_aborted_while_paused(scope: Scope) -> None:
    given, ear = Given(*ABC), Ear()
    pump = Pump(given, scope)
    ear.on_push = lambda chunk: pump.pause()
    pump.connect(ear)
    await settle()
    pump.abort()
    ear.deaf = True
    pump.resume()
    await settle()
    assert (ear.text, given.closed) == ("a", 1)


async def test_a_generator_hears_that_nobody_reads_on(scope: Scope) -> None:
    closed: list[str] = []

    async def chunks() -> AsyncIterator[Chunk]:
        try:
            while True:
                yield say("a")
                await asyncio.sleep(0)
        finally:
            closed.append("closed")

    reply = Reply.pump(chunks(), scope)
    async for _ in reply:
        break
    reply.abort()
    await settle()
    assert closed == ["closed"]


async def test_a_generator_that_does_not_take_no_for_an_answer(scope: Scope) -> None:
    """It swallows the cancellation and yields on: it is closed all the same."""

    async def chunks() -> AsyncIterator[Chunk]:
        yield say("a")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        yield say("b")

    ear = Ear()
    reply = Reply.pump(chunks(), scope)
    reply.connect(ear)
    await settle()
    reply.abort()
    ear.deaf = True
    await settle()
    assert ear.text == "a"
    assert not scope.tasks


async def test_a_pumped_reply_is_a_reply(scope: Scope) -> None:
    reply = await soon(Reply.pump(Given(START, *ABC), scope, 202).through(Mark("1")).opened())
    assert isinstance(reply, Reply)
    assert reply.status == 202
    assert words(await reply.collect()) == "a1b1c1"


async def test_a_middleware_in_pull_form(scope: Scope) -> None:
    async def shout(reply: Reply) -> AsyncIterator[Chunk]:
        async for chunk in reply:
            yield Chunk(
                tuple(
                    PartDelta(event.index, event.text.upper()) if isinstance(event, PartDelta) else event
                    for event in chunk.events
                )
            )

    source = Script(START, *ABC)
    outer = Reply.pump(shout(Reply(source, scope)), scope)
    chunks = outer.__aiter__()
    await anext(chunks)
    assert words([await anext(chunks)]) == "A"
    assert isinstance(chunks, AsyncGenerator)
    await chunks.aclose()
    await settle()
    assert source.aborted, "leaving goes through the generator down to the provider"


async def test_the_loop_closing_ends_a_pumped_reply(scope: Scope) -> None:
    """asyncio.run cancels every task: the sink must not be left without an end."""
    ear = Ear()

    async def never() -> AsyncIterator[Chunk]:
        await _forever()
        yield say("a")

    Reply.pump(never(), scope).connect(ear)
    await settle()
    for task in list(scope.tasks):
        task.cancel()
    await settle()
    assert ear.ends == 1
    assert isinstance(ear.error, Cancelled)


async def _forever() -> NoReturn:
    await asyncio.sleep(3600)
    raise AssertionError
