"""Reply.then: several rounds told as one response, whatever happens between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence

import pytest
from headgate.gateway.errors import Cancelled, Cut, GatewayError, HouseError, RateLimited
from headgate.gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.message import Text, ToolCall
from headgate.gateway.relay.reply import Decide, Reply
from headgate.gateway.relay.scope import Scope
from headgate.gateway.relay.source import Listed
from headgate.gateway.relay.splice import End

from .conftest import (
    START,
    STOP,
    Ear,
    Mark,
    Script,
    answer,
    each,
    of,
    say,
    settle,
    soon,
    spliced,
    text,
    together,
    well_formed,
)

# -- nothing follows


@pytest.mark.parametrize("cut", [each, together])
async def test_if_nothing_follows_everything_goes_out_as_it_came(
    scope: Scope, cut: Callable[[Sequence[Event]], list[Chunk]]
) -> None:
    chunks = cut(answer(text("a"), text("b", 1), used=Usage(1)))
    ear, ends = Ear(), list[End]()
    Reply(Listed(chunks), scope).then(ends.append).connect(ear)
    assert [id(chunk) for chunk in ear.chunks] == [id(chunk) for chunk in chunks]
    assert (ear.ends, ear.error) == (1, None)
    assert ends == [End(None, "stop", Usage(1), 0)]


async def test_no_task_is_made_when_nothing_follows(scope: Scope) -> None:
    Reply(Listed(each(answer(text("a")))), scope).then(lambda end: None).connect(Ear())
    assert not scope.tasks


async def test_the_error_of_the_round_is_told_and_passed_on(scope: Scope) -> None:
    error, ear, ends = Cut("cut"), Ear(), list[End]()
    Reply(Listed([START, say("a")], error), scope).then(ends.append).connect(ear)
    assert ends == [End(error, None, None, 0)]
    assert ear.error is error
    assert ear.raw == b"<start>a"


async def test_only_the_end_is_held_back(scope: Scope) -> None:
    source, ear = Script(), Ear()
    Reply(source, scope).then(lambda end: None).connect(ear)
    script: list[tuple[Event, int]] = [
        (ResponseStart(), 1),
        (PartStart(0, Text("")), 2),
        (PartDelta(0, "a"), 3),
        (PartStop(0), 3),
        (Keepalive(), 3),
        (PartStart(1, ToolCall("i", "f")), 6),
        (PartStop(1), 7),
        (Keepalive(), 8),
        (PartStart(2, Text("")), 9),
        (PartDelta(2, "b"), 10),
        (PartStop(2), 10),
        (ChoiceStop("stop"), 10),
        (UsageReport(Usage(1)), 10),
        (Terminator(), 10),
    ]
    for event, seen in script:
        source.push(*each([event]))
        assert len(ear.chunks) == seen, event
    source.end()
    assert len(ear.chunks) == len(script)
    assert [event for chunk in ear.chunks for event in chunk.events] == [event for event, _ in script]


async def test_interleaved_parts_keep_flowing_after_one_of_them_stops(scope: Scope) -> None:
    source, ear = Script(), Ear()
    Reply(source, scope).then(lambda end: None).connect(ear)
    source.push(
        *each([PartStart(0, Text("")), PartStart(1, Text("")), PartStop(1), PartDelta(0, "x"), PartDelta(0, "y")])
    )
    assert len(ear.chunks) == 5
    assert ear.raw == b"<PartStart><PartStart><PartStop><PartDelta><PartDelta>"


async def test_an_end_without_a_reason_is_held_back_too(scope: Scope) -> None:
    first = [*text("a"), ResponseStop(), Terminator()]
    ear = await spliced(scope, first, answer(text("b")))
    assert ear.events[-3:] == [ChoiceStop("stop", "stop"), ResponseStop(), Terminator()]
    assert ear.text == "ab"


# -- the decision


async def test_decide_that_raises_leaves_the_end_as_it_was(scope: Scope, caplog: pytest.LogCaptureFixture) -> None:
    def decide(end: End) -> None:
        raise ValueError("bug")

    chunks, ear = each(answer(text("a"))), Ear()
    Reply(Listed(chunks), scope).then(decide).connect(ear)
    assert ear.chunks == chunks
    assert (ear.ends, ear.error) == (1, None)
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("first_error", [None, Cut("cut")])
@pytest.mark.parametrize("fault", [ValueError("bug"), RateLimited("no"), asyncio.CancelledError()], ids=repr)
async def test_an_awaitable_that_raises_leaves_the_end_as_it_was(
    scope: Scope, fault: BaseException, first_error: GatewayError | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def go_on() -> Reply:
        await asyncio.sleep(0)
        raise fault

    chunks, ear = each(answer(text("a"))), Ear()
    Reply(Listed(chunks, first_error), scope).then(lambda end: go_on()).connect(ear)
    await settle()
    assert ear.chunks == chunks
    assert ear.ends == 1
    assert ear.error is first_error
    assert "nothing follows" in caplog.text


async def test_an_awaitable_that_yields_none_leaves_the_end_as_it_was(scope: Scope) -> None:
    async def go_on() -> None:
        await asyncio.sleep(0)

    chunks, ear = each(answer(text("a"))), Ear()
    Reply(Listed(chunks), scope).then(lambda end: go_on()).connect(ear)
    assert ear.ends == 0
    await settle()
    assert ear.chunks == chunks
    assert (ear.ends, ear.error) == (1, None)


class _Odd:
    """An awaitable that is neither a coroutine nor a future."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def __await__(self) -> Generator[None, None, Reply]:
        yield
        return self.reply


@pytest.mark.parametrize("kind", ["task", "future", "odd"])
async def test_any_awaitable_will_do(scope: Scope, kind: str) -> None:
    following = Reply(Listed(each(answer(text("b")))), scope)

    async def go_on() -> Reply:
        return following

    def decide(end: End) -> Awaitable[Reply | None] | None:
        if end.round:
            return None
        if kind == "task":
            return scope.spawn(go_on())
        if kind == "odd":
            return _Odd(following)
        future: asyncio.Future[Reply | None] = scope.loop.create_future()
        future.set_result(following)
        return future

    ear = Ear()
    Reply(Listed(each(answer(text("a")))), scope).then(decide).connect(ear)
    await settle()
    assert (ear.text, ear.ends) == ("ab", 1)


async def test_a_round_that_fails_is_asked_about_and_fails_the_answer(scope: Scope) -> None:
    error, ear = Cut("cut"), Ear()
    ends: list[End] = []

    def decide(end: End) -> Awaitable[Reply | None] | None:
        ends.append(end)
        return None if end.round else go_on()

    async def go_on() -> Reply:
        return Reply(Listed([START, say("b")], error), scope)

    Reply(Listed(each(answer(text("a"), reason="length"))), scope).then(decide).connect(ear)
    await settle()
    assert [(end.error, end.reason, end.round) for end in ends] == [(None, "length", 0), (error, None, 1)]
    assert (ear.text, ear.ends) == ("ab", 1)
    assert ear.error is error
    assert not any(isinstance(event, ChoiceStop | Terminator) for event in ear.events), "no clean end after a failure"


@pytest.mark.parametrize("used", ["closed", "flowing", "over"])
async def test_a_reply_that_cannot_follow_fails_the_answer(scope: Scope, used: str) -> None:
    following = Reply(Listed([say("b")]) if used == "over" else Script(), scope)
    if used == "closed":
        following.abort()
    else:
        following.connect(Ear())

    async def go_on() -> Reply:
        return following

    ear = Ear()
    Reply(Listed(each(answer(text("a")))), scope).then(lambda end: go_on()).connect(ear)
    await settle()
    assert ear.ends == 1
    assert isinstance(ear.error, HouseError)


@pytest.mark.parametrize("how", ["new", "opened"])
async def test_what_follows_may_be_opened_and_pass_stages_of_its_own(scope: Scope, how: str) -> None:
    async def go_on() -> Reply:
        reply = Reply(Script(START, say("b"), STOP, None), scope).through(Mark("2"))
        return await reply.opened() if how == "opened" else reply

    ear = Ear()
    decide: Decide = lambda end: None if end.round else go_on()  # noqa: E731
    first = Reply(Listed(each(answer(text("a")))), scope).through(Mark("1"))
    first.then(decide).through(Mark("3")).connect(ear)
    await settle()
    assert (ear.text, ear.ends) == ("a13b23", 1)
    well_formed(ear.events)


async def test_then_nests(scope: Scope) -> None:
    asked: list[tuple[str, int]] = []

    def decides(name: str, words: str) -> Decide:
        def decide(end: End) -> Awaitable[Reply | None] | None:
            asked.append((name, end.round))
            return None if end.round else go_on()

        async def go_on() -> Reply:
            return Reply(Listed(each(answer(text(words), used=Usage(1)))), scope)

        return decide

    ear = Ear()
    first = Reply(Listed(each(answer(text("a"), reason="length", used=Usage(1)))), scope)
    first.then(decides("inner", "b")).then(decides("outer", "c")).connect(ear)
    await settle()
    assert (ear.text, ear.ends) == ("abc", 1)
    assert asked == [("inner", 0), ("inner", 1), ("outer", 0), ("outer", 1)]
    assert ear.answer.usage == Usage(3)
    well_formed(ear.events)


# -- leaving


async def test_abort_during_the_first_round_asks_nobody(scope: Scope) -> None:
    source, ends = Script(), list[End]()
    reply = Reply(source, scope).then(ends.append)
    reply.connect(Ear())
    source.push(START)
    reply.abort()
    assert (source.aborted, ends) == (True, [])


async def test_a_sink_that_leaves_while_it_hears_the_last_tail_asks_nobody(scope: Scope) -> None:
    source, ends = Script(), list[End]()
    reply = Reply(source, scope).through(Mark("", tail="t")).then(ends.append)

    def leave(chunk: Chunk) -> None:
        reply.abort()
        ear.deaf = True

    ear = Ear(leave)
    reply.connect(ear)
    source.end()
    assert (ear.text, ends) == ("t", [])


@pytest.mark.parametrize("turns", [0, 1, 3])
@pytest.mark.parametrize("by", ["reply", "scope"])
@pytest.mark.parametrize("kind", ["coroutine", "task", "odd"])
async def test_abort_while_the_decision_is_pending_cancels_it(scope: Scope, turns: int, by: str, kind: str) -> None:
    """With 0 turns it has not even begun, which must not leave a coroutine that nobody awaited."""
    outcome: list[str] = []

    async def go_on() -> Reply:
        outcome.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise
        raise AssertionError

    class Odd:
        def __await__(self) -> Generator[object, None, Reply]:
            return go_on().__await__()

    def decide(end: End) -> Awaitable[Reply | None]:
        return go_on() if kind == "coroutine" else scope.spawn(go_on()) if kind == "task" else Odd()

    ear = Ear()
    reply = Reply(Listed(each(answer(text("a")))), scope).then(decide)
    reply.connect(ear)
    for _ in range(turns):
        await asyncio.sleep(0)
    if by == "reply":
        reply.abort()
        ear.deaf = True
    else:
        scope.close()
    await settle()
    assert outcome == (["begun", "cancelled"] if turns else [])
    if by == "scope":
        assert ear.ends == 1
        assert isinstance(ear.error, Cancelled), "no clean end when the call is closed"
    assert not scope.tasks


@pytest.mark.parametrize("kind", ["coroutine", "future"])
async def test_a_reply_yielded_at_the_moment_of_the_abort_is_closed(scope: Scope, kind: str) -> None:
    source = Script()
    following = Reply(source, scope)
    future: asyncio.Future[Reply | None] = scope.loop.create_future()

    async def go_on() -> Reply | None:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            return following  # it takes the cancellation for something else

    ear = Ear()
    reply = Reply(Listed(each(answer(text("a")))), scope).then(lambda end: go_on() if kind == "coroutine" else future)
    reply.connect(ear)
    await settle()
    if kind == "future":
        future.set_result(following)
    reply.abort()
    ear.deaf = True
    await settle()
    future.cancel()
    assert source.aborted


async def test_a_decision_that_aborts_its_own_answer_is_not_cancelled_by_that(scope: Scope) -> None:
    source = Script()

    async def go_on() -> Reply:
        reply.abort()
        ear.deaf = True
        await asyncio.sleep(0)
        return Reply(source, scope)

    ear = Ear()
    reply = Reply(Listed(each(answer(text("a")))), scope).then(lambda end: go_on())
    reply.connect(ear)
    await settle()
    assert source.aborted


async def test_abort_from_inside_the_push_of_the_seam_closes_what_follows(
    scope: Scope, caplog: pytest.LogCaptureFixture
) -> None:
    source = Script()

    async def go_on() -> Reply:
        return Reply(source, scope)

    def leave(chunk: Chunk) -> None:
        if chunk.raw is None:
            reply.abort()
            ear.deaf = True

    ear = Ear(leave)
    reply = Reply(Listed([of(*answer([*text("a"), PartStart(1, ToolCall("i", "f")), PartStop(1)]))]), scope).then(
        lambda end: go_on()
    )
    reply.connect(ear)
    await settle()
    assert source.heard == ["abort"]
    assert caplog.records == []


# -- pause


async def test_pause_between_two_rounds_is_remembered(scope: Scope) -> None:
    gate = asyncio.Event()
    source = Script(START, say("b"), STOP, None)

    async def go_on() -> Reply:
        await gate.wait()
        return Reply(source, scope)

    ear = Ear()
    reply = Reply(Listed(each(answer(text("a"), reason="length"))), scope).then(
        lambda end: None if end.round else go_on()
    )
    reply.connect(ear)
    reply.pause()
    gate.set()
    await settle()
    assert source.heard[:2] == ["pause", "connect"]
    reply.resume()
    assert source.heard[-1] in ("resume", "connect")
    assert (ear.text, ear.ends) == ("ab", 1)


async def test_pause_and_resume_between_two_rounds_leave_nothing_behind(scope: Scope) -> None:
    gate = asyncio.Event()
    source = Script(START, say("b"), STOP, None)

    async def go_on() -> Reply:
        await gate.wait()
        return Reply(source, scope)

    ear = Ear()
    reply = Reply(Listed(each(answer(text("a"), reason="length"))), scope).then(
        lambda end: None if end.round else go_on()
    )
    reply.connect(ear)
    reply.pause()
    reply.resume()
    gate.set()
    await settle()
    assert source.heard[0] == "connect"
    assert ear.ends == 1


async def test_pause_and_resume_reach_the_round_that_runs(scope: Scope) -> None:
    source = Script()
    reply = Reply(source, scope).then(lambda end: None)
    reply.pause()
    reply.connect(Ear())
    reply.resume()
    assert source.heard == ["pause", "connect", "resume"]


async def test_opened_waits_through_a_round_without_content(scope: Scope) -> None:
    """What the first round had is held back until it is known whether another follows."""

    async def go_on() -> Reply:
        await asyncio.sleep(0)
        return Reply(Listed(each(answer(text("b")))), scope)

    first: list[Event] = [ResponseStart("a"), ChoiceStop("length"), Terminator()]
    reply = Reply(Listed(each(first)), scope).then(lambda end: None if end.round else go_on())
    ear = Ear()
    opened = await soon(reply.opened())
    assert opened is reply
    reply.connect(ear)
    await settle()
    assert (ear.text, ear.ends) == ("b", 1)
    assert ear.answer.start.id == "a"
