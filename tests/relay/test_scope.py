"""Scope, Clock and Limit: who owns what a call has open, and what time does to it."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable

import pytest
from headgate.gateway.errors import Cancelled, Cut, HouseError, UpstreamTimeout
from headgate.gateway.relay.scope import Clock, Limit, Scope, as_gateway_error

from .conftest import settle, soon


class Item:
    def __init__(self, fault: Exception | None = None, on_abort: Callable[[], object] = lambda: None) -> None:
        self.aborts = 0
        self.fault = fault
        self.on_abort = on_abort

    def abort(self) -> None:
        self.aborts += 1
        self.on_abort()
        if self.fault is not None:
            raise self.fault


class Watched:
    def __init__(self, on_tick: Callable[[float], object] = lambda now: None) -> None:
        self.ticks: list[float] = []
        self.on_tick = on_tick

    def tick(self, now: float, /) -> None:
        self.ticks.append(now)
        self.on_tick(now)


# -- closing


async def test_closing_ends_everything_once(clock: Clock) -> None:
    calls: list[str] = []
    scope = Scope(clock, lambda: calls.append("closed"))
    item = Item()
    scope.items.add(item)
    task = scope.spawn(asyncio.sleep(60))
    scope.watched.append(watched := Watched())
    assert len(clock) == 1
    scope.close()
    scope.close()
    await settle()
    assert (item.aborts, task.cancelled(), calls, scope.closed, len(clock)) == (1, True, ["closed"], True, 0)
    assert (scope.items, scope.tasks, scope.watched) == (set(), set(), [])
    scope.tick(0.0)
    assert watched.ticks == []


async def test_an_item_that_cannot_be_aborted_keeps_nobody_from_closing(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    scope = Scope(clock, lambda: calls.append("closed"))
    items = [Item(ValueError("bug")), Item(), Item(ValueError("bug"))]
    scope.items.update(items)
    task = scope.spawn(asyncio.sleep(60))
    scope.close()
    await settle()
    assert [item.aborts for item in items] == [1, 1, 1]
    assert task.cancelled()
    assert calls == ["closed"]
    assert caplog.text.count("ValueError: bug") == 2


async def test_an_item_may_take_itself_and_others_off(scope: Scope) -> None:
    second = Item()
    first = Item(on_abort=lambda: scope.items.clear())
    scope.items.update([first, second])
    scope.close()
    assert first.aborts + second.aborts >= 1
    assert not scope.items


async def test_a_closed_scope_begins_nothing_but_cleaning_up(scope: Scope) -> None:
    done: list[str] = []

    async def work(name: str) -> None:
        done.append(name)

    scope.close()
    task = scope.spawn(work("work"))
    cleanup = scope.spawn(work("cleanup"), cleanup=True)
    await settle()
    assert done == ["cleanup"]
    assert task.cancelled()
    assert cleanup.done()


async def test_aclose_waits_for_the_tasks_and_those_they_leave(scope: Scope) -> None:
    done: list[str] = []

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            _ = scope.spawn(cleaner(), cleanup=True)
            done.append("task")

    async def cleaner() -> None:
        await asyncio.sleep(0.01)
        done.append("cleanup")

    _ = scope.spawn(slow_to_end())
    await settle()
    await soon(scope.aclose())
    assert done == ["task", "cleanup"]


async def test_a_task_may_close_its_own_scope_and_wait(scope: Scope) -> None:
    async def last() -> str:
        try:
            await scope.aclose()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "cancelled"
        return "done"

    other = scope.spawn(asyncio.sleep(60))
    assert await soon(scope.spawn(last())) == "cancelled"
    await settle()
    assert other.cancelled()


async def test_a_closed_scope_is_freed_without_the_collector(clock: Clock) -> None:
    gc.disable()
    try:

        class Held:
            def __init__(self) -> None:
                self.scope = Scope(clock, self.note)

            def note(self) -> None:
                pass

        held = Held()
        await held.scope.spawn(asyncio.sleep(0))
        with held.scope.limit(1e9, "timeout.total", "late"):
            pass
        ref = weakref.ref(held)
        held.scope.close()
        await settle()
        del held
        assert ref() is None
    finally:
        gc.enable()


# -- tasks


async def test_a_failure_that_nobody_awaits_is_logged(scope: Scope, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(fault: Exception) -> None:
        raise fault

    _ = scope.spawn(fail(ValueError("bug")))
    _ = scope.spawn(fail(Cut("cut")))
    scope.spawn(asyncio.sleep(60)).cancel()
    await settle()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "bug" in caplog.text
    assert not scope.tasks


# -- the clock


async def test_the_clock_runs_only_while_there_is_somebody(clock: Clock) -> None:
    assert clock._timer is None
    scope = Scope(clock)
    scope.watched.append(watched := Watched())
    assert clock._timer is not None
    await asyncio.sleep(0.05)
    assert len(watched.ticks) >= 2
    assert watched.ticks == sorted(watched.ticks)
    scope.close()
    await asyncio.sleep(0.03)
    assert clock._timer is None
    again = Scope(clock)
    again.watched.append(second := Watched())
    await asyncio.sleep(0.03)
    assert second.ticks
    again.close()


async def test_a_fault_at_a_tick_stops_neither_the_clock_nor_the_others(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(now: float) -> None:
        raise ValueError("bug")

    first, second = Scope(clock), Scope(clock)
    watched = [Watched(fail), Watched(), Watched()]
    first.watched += watched[:2]
    second.watched.append(watched[2])
    await asyncio.sleep(0.05)
    assert all(len(each.ticks) >= 2 for each in watched)
    assert "ValueError: bug" in caplog.text
    first.close()
    second.close()


async def test_what_is_watched_may_close_its_scope_or_the_clock(clock: Clock) -> None:
    scope, other = Scope(clock), Scope(clock)
    watched = [Watched(lambda now: scope.close()), Watched()]
    scope.watched += watched
    other.watched.append(last := Watched(lambda now: clock.close() if scope.closed else None))
    async with asyncio.timeout(2):
        while not other.closed:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.03)
    assert len(watched[0].ticks) == 1
    assert watched[1].ticks == []
    assert last.ticks
    assert clock._timer is None


async def test_closing_the_clock_closes_every_scope(clock: Clock) -> None:
    scopes = [Scope(clock) for _ in range(3)]
    clock.close()
    assert all(scope.closed for scope in scopes)
    assert (len(clock), clock._timer) == (0, None)


# -- Limit


def limit(scope: Scope, in_s: float | None, message: str = "too late") -> Limit:
    deadline = None if in_s is None else scope.loop.time() + in_s
    return scope.limit(deadline, "timeout.total", message)


async def test_a_limit_ends_the_await_inside_it(scope: Scope) -> None:
    with pytest.raises(UpstreamTimeout, match="too late") as caught, limit(scope, 0.01):
        await asyncio.sleep(60)
    assert caught.value.kind == "timeout.total"
    assert_clean(scope)


def assert_clean(scope: Scope) -> None:
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert scope.watched == []


@pytest.mark.parametrize("in_s", [None, 60.0])
async def test_a_limit_that_is_met_leaves_nothing(scope: Scope, in_s: float | None) -> None:
    with limit(scope, in_s):
        await asyncio.sleep(0.03)
    with pytest.raises(ValueError), limit(scope, in_s):
        raise ValueError
    assert_clean(scope)


@pytest.mark.parametrize(
    ("outer", "inner", "wins"),
    [(0.01, 60.0, "outer"), (60.0, 0.01, "inner"), (0.0, 0.0, "outer"), (None, 0.01, "inner"), (0.01, None, "outer")],
)
async def test_limits_nest(scope: Scope, outer: float | None, inner: float | None, wins: str) -> None:
    """When both are over at once the outer one wins: it ends more."""
    with pytest.raises(UpstreamTimeout, match=wins), limit(scope, outer, "outer"), limit(scope, inner, "inner"):
        await asyncio.sleep(60)
    assert_clean(scope)


async def test_after_an_inner_limit_the_outer_still_holds(scope: Scope) -> None:
    async def work() -> None:
        with pytest.raises(UpstreamTimeout, match="inner"), limit(scope, 0.01, "inner"):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    with pytest.raises(UpstreamTimeout, match="outer"), limit(scope, 0.05, "outer"):
        await work()
    assert_clean(scope)


@pytest.mark.parametrize("first", ["limit", "cancel"])
async def test_a_limit_never_swallows_a_cancellation_from_outside(scope: Scope, first: str) -> None:
    async def work() -> None:
        with limit(scope, 0.0):
            await asyncio.sleep(60)

    task = scope.spawn(work())
    await asyncio.sleep(0)
    if first == "cancel":
        task.cancel()
    scope.tick(scope.loop.time())
    if first == "limit":
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert scope.watched == []


async def test_a_limit_that_fires_as_the_await_is_done(scope: Scope) -> None:
    """The result is there, but the task has not run yet: the limit wins, and nothing stays cancelled."""
    future: asyncio.Future[str] = scope.loop.create_future()

    async def work() -> str:
        try:
            with limit(scope, 0.0):
                return await future
        except UpstreamTimeout:
            await asyncio.sleep(0)
            return "late"

    task = scope.spawn(work())
    await asyncio.sleep(0)
    future.set_result("done")
    scope.tick(scope.loop.time())
    assert await task == "late"
    assert task.cancelling() == 0


async def test_a_limit_whose_cancellation_became_another_error(scope: Scope) -> None:
    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError from None

    with pytest.raises(ValueError), limit(scope, 0.0):
        await work()
    assert_clean(scope)


async def test_a_limit_fires_once_however_long_the_await_takes_to_end(scope: Scope) -> None:
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)

    with pytest.raises(UpstreamTimeout), limit(scope, 0.0):
        await slow_to_end()
    assert_clean(scope)


async def test_a_limit_in_a_task_that_was_being_cancelled_before(scope: Scope) -> None:
    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with pytest.raises(UpstreamTimeout), limit(scope, 0.0):
                await asyncio.sleep(60)
            return "cleaned up"
        raise AssertionError

    task = scope.spawn(work())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cleaned up"
    assert task.cancelling() == 1


async def test_a_scope_closed_inside_a_limit(scope: Scope) -> None:
    with limit(scope, 0.0):
        scope.close()
        await asyncio.sleep(0.03)
    assert_clean(scope)


async def test_a_scope_closed_after_the_limit_fired(scope: Scope) -> None:
    async def work() -> None:
        scope.tick(scope.loop.time())
        scope.close()
        await asyncio.sleep(60)

    with pytest.raises(UpstreamTimeout), limit(scope, 0.0):
        await work()
    assert_clean(scope)


# -- errors


async def test_as_gateway_error() -> None:
    ours = Cut("cut")
    assert as_gateway_error(ours) is ours
    assert isinstance(as_gateway_error(asyncio.CancelledError()), Cancelled)
    stranger = ValueError("the secret is x")
    error = as_gateway_error(stranger)
    assert isinstance(error, HouseError)
    assert error.__cause__ is stranger
    assert "secret" not in error.message
