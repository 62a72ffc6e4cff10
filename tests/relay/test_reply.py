"""Reply: every state and every legal call; what stages, sinks and sources may do to it in each."""

from __future__ import annotations

import asyncio

import pytest
from headgate.gateway.errors import Cancelled, Cut, HouseError, RateLimited
from headgate.gateway.ir.event import ChoiceStop, Chunk, Event, Keepalive, PartDelta, PartStart, ResponseStart
from headgate.gateway.ir.message import Text
from headgate.gateway.relay.reply import HOLD_BYTES, Reply
from headgate.gateway.relay.scope import Scope
from headgate.gateway.relay.source import Listed

from .conftest import START, STOP, WIRE, Ear, Mark, Script, of, say, settle, soon


def big(letter: str, size: int = HOLD_BYTES // 2) -> Chunk:
    return Chunk((PartDelta(0, letter),), letter.encode() * size, WIRE)


# -- new


async def test_new_flows_through_the_stages_in_order(scope: Scope) -> None:
    source, ear, a, b = Script(), Ear(), Mark("1"), Mark("2")
    reply = Reply(source, scope, 201, {"x": "y"}).through(a).through(b)
    reply.connect(ear)
    source.push(say("a"), say("b"))
    source.end()
    assert (ear.text, ear.ends, ear.error) == ("a12b12", 1, None)
    assert (a.closed, b.closed) == (["clean"], ["clean"])
    assert (reply.status, reply.headers) == (201, {"x": "y"})


async def test_untouched_chunks_keep_their_bytes_and_their_identity(scope: Scope) -> None:
    source, ear, chunk = Script(), Ear(), say("a")
    (await reply_of(source, scope).through(Mark("")).through(Mark("")).opened_with(START)).connect(ear)
    source.push(chunk)
    assert ear.chunks[-1] is chunk


class _Opener(Reply):
    """A reply whose source says something while it is opened."""

    async def opened_with(self, *chunks: Chunk) -> Reply:
        opening = self.scope.spawn(self.opened())
        await settle()
        source = self._source
        assert isinstance(source, Script)
        source.push(*chunks)
        reply = await soon(opening)
        assert reply is self
        return self

    def through(self, stage: object) -> _Opener:
        super().through(stage)  # type: ignore[arg-type]
        return self


def reply_of(source: Script, scope: Scope) -> _Opener:
    return _Opener(source, scope)


async def test_pause_before_connect_reaches_the_source_and_resume_releases_it(scope: Scope) -> None:
    ear = Ear()
    reply = Reply(Listed([say("a")]), scope)
    reply.pause()
    reply.pause()
    reply.connect(ear)
    assert (ear.text, ear.ends) == ("", 0)
    reply.resume()
    reply.resume()
    assert (ear.text, ear.ends) == ("a", 1)


async def test_abort_of_a_new_reply_closes_source_and_stages_once(scope: Scope) -> None:
    source, mark = Script(), Mark("1", tail="never")
    reply = Reply(source, scope).through(mark)
    reply.abort()
    reply.abort()
    await reply.aclose()
    assert (source.heard, mark.closed) == (["abort"], ["cancelled"])
    with pytest.raises(AssertionError):
        reply.connect(Ear())
    with pytest.raises(AssertionError):
        reply.through(Mark("2"))
    with pytest.raises(AssertionError):
        reply.then(lambda end: None)
    with pytest.raises(Cancelled):
        await reply.opened()


async def test_connect_twice_and_through_then_or_opened_while_flowing_are_programming_errors(scope: Scope) -> None:
    reply = Reply(Script(), scope)
    reply.connect(Ear())
    with pytest.raises(AssertionError):
        reply.connect(Ear())
    with pytest.raises(AssertionError):
        reply.through(Mark("1"))
    with pytest.raises(AssertionError):
        reply.then(lambda end: None)
    with pytest.raises(AssertionError):
        await reply.opened()


# -- opening


async def test_opened_waits_for_content_and_not_for_its_announcement(scope: Scope) -> None:
    source, ear = Script(of(ResponseStart()), of(Keepalive())), Ear()
    reply = Reply(source, scope)
    opening = scope.spawn(reply.opened())
    await settle()
    assert not opening.done()
    source.push(START)
    assert await soon(opening) is reply
    assert await reply.opened() is reply
    reply.connect(ear)
    source.push(say("a"), STOP)
    source.end()
    assert ear.raw == b"rawraw<start>a<stop>"
    assert (ear.ends, ear.error) == (1, None)


@pytest.mark.parametrize(
    "content", [PartStart(0, Text("")), PartDelta(0, "a"), ChoiceStop("stop")], ids=lambda event: type(event).__name__
)
async def test_content_inside_connect_opens_at_once(scope: Scope, content: Event) -> None:
    await soon(Reply(Script(of(content)), scope).opened())


@pytest.mark.parametrize("inside", [True, False], ids=["inside connect", "later"])
async def test_an_error_before_content_is_raised_and_the_reply_is_closed(scope: Scope, inside: bool) -> None:
    error = RateLimited("slow down")
    source, mark = Script(*([error] if inside else [])), Mark("1")
    reply = Reply(source, scope).through(mark)
    opening = scope.spawn(reply.opened())
    await settle()
    source.end(error)
    with pytest.raises(RateLimited) as caught:
        await soon(opening)
    assert caught.value is error
    assert mark.closed == ["rate_limit"]
    with pytest.raises(AssertionError):
        reply.connect(Ear())


async def test_a_clean_end_without_content_is_an_answer(scope: Scope) -> None:
    ear = Ear()
    reply = await soon(Reply(Script(None), scope).through(Mark("", tail="tail")).opened())
    assert isinstance(reply, Reply)
    reply.connect(ear)
    assert (ear.text, ear.ends, ear.error) == ("tail", 1, None)


async def test_an_error_after_content_waits_for_the_sink(scope: Scope) -> None:
    ear, error = Ear(), Cut("cut")
    reply = await Reply(Script(START, say("a"), error), scope).opened()
    reply.through(late := Mark("2"))
    reply.connect(ear)
    assert (ear.text, ear.ends) == ("a2", 1)
    assert ear.error is error
    assert late.closed == ["cut"]


async def test_stages_added_after_opened_see_what_was_held_and_what_comes(scope: Scope) -> None:
    source, ear, early = Script(START, say("a")), Ear(), Mark("1")
    reply = await Reply(source, scope).through(early).opened()
    source.push(say("b"))
    reply.through(late := Mark("2"))
    source.push(say("c"))
    reply.connect(ear)
    source.push(say("d"))
    source.end()
    assert ear.text == "a12b12c12d12"
    assert (early.fed, late.fed) == (5, 5)
    assert (early.closed, late.closed) == (["clean"], ["clean"])


async def test_tails_of_stages_that_opened_closed_pass_those_added_since(scope: Scope) -> None:
    ear = Ear()
    early, late = Mark("1", tail="t"), Mark("2", tail="u")
    reply = await Reply(Script(START, say("a"), None), scope).through(early).opened()
    assert early.closed == ["clean"]
    reply.through(late).connect(ear)
    assert ear.text == "a12t2u"
    assert (early.closed, late.closed) == (["clean"], ["clean"])


async def test_opened_at_two_levels(scope: Scope) -> None:
    source, ear = Script(START, say("a")), Ear()
    inner = await Reply(source, scope).through(Mark("1")).opened()
    outer = await inner.then(lambda end: None).through(Mark("2")).opened()
    assert await outer.through(Mark("3")).opened() is outer
    outer.connect(ear)
    source.push(say("b"))
    source.end()
    assert (ear.text, ear.ends) == ("a123b123", 1)


async def test_opened_cancelled_closes_everything(scope: Scope) -> None:
    source, mark = Script(), Mark("1")
    reply = Reply(source, scope).through(mark)
    opening = scope.spawn(reply.opened())
    await settle()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (source.heard, mark.closed) == (["connect", "abort"], ["cancelled"])
    assert reply not in scope.items


async def test_opened_cancelled_while_its_content_came_closes_all_the_same(scope: Scope) -> None:
    source = Script()
    opening = scope.spawn(Reply(source, scope).opened())
    await settle()
    source.push(START)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert source.aborted


@pytest.mark.parametrize("by", ["reply", "scope"])
async def test_a_reply_closed_by_another_wakes_opened_with_an_error_and_cancels_nobody(scope: Scope, by: str) -> None:
    source = Script()
    reply = Reply(source, scope)
    asyncio.get_running_loop().call_later(0.01, reply.abort if by == "reply" else scope.close)
    with pytest.raises(Cancelled):
        await soon(reply.opened())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert source.aborted


async def test_opened_in_a_closed_scope_does_not_wait(scope: Scope) -> None:
    scope.close()
    with pytest.raises(Cancelled):
        await soon(Reply(Script(), scope).opened())


async def test_the_bound_on_what_is_held_counts_as_opened_and_stops_the_source(scope: Scope) -> None:
    source, ear = Script(), Ear()
    reply = Reply(source, scope)
    opening = scope.spawn(reply.opened())
    await settle()
    pings = Chunk((Keepalive(),), b":" * HOLD_BYTES, WIRE)
    source.push(pings)
    await soon(opening)
    assert source.paused
    reply.resume()
    assert source.paused, "resume() must not override the bound"
    reply.connect(ear)
    assert not source.paused
    source.push(say("a"))
    source.end()
    assert (len(ear.chunks), ear.ends) == (2, 1)


async def test_a_full_buffer_drained_with_pauses_lets_the_source_go_on(scope: Scope) -> None:
    source = Script(START, big("a"), big("b"), big("c"))
    reply = await Reply(source, scope).opened()
    assert source.paused
    ear = Ear(lambda chunk: reply.pause())
    reply.connect(ear)
    for count in (1, 2, 3):
        assert len(ear.chunks) == count
        assert source.paused
        reply.resume()
    assert ear.text == "abc"
    ear.on_push = lambda chunk: None
    reply.resume()
    assert not source.paused
    source.push(say("d"))
    source.end()
    assert (ear.text, ear.ends) == ("abcd", 1)


async def test_a_source_that_fills_the_buffer_while_it_is_drained_is_not_forgotten(scope: Scope) -> None:
    """The sink pauses and resumes from inside push: the source must not outrun the buffer that is being drained."""
    items = [START, *(big(letter) for letter in "abcdefgh")]
    reply = Reply(Listed(items), scope)

    depth = deepest = 0

    def on_push(chunk: Chunk) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        reply.pause()
        reply.resume()
        depth -= 1

    ear = Ear(on_push)
    (await reply.opened()).connect(ear)
    assert (ear.text, ear.ends, deepest) == ("abcdefgh", 1, 1)


async def test_a_sink_paused_before_connect_hears_nothing_until_resume(scope: Scope) -> None:
    source, ear = Script(START, say("a")), Ear()
    reply = await Reply(source, scope).through(early := Mark("1")).opened()
    reply.pause()
    reply.connect(ear)
    source.push(say("b"))
    assert ear.chunks == []
    reply.resume()
    assert ear.text == "a1b1"
    assert not source.paused
    assert early.fed == 3


async def test_the_end_that_comes_while_held_chunks_wait_closes_all_stages_once(scope: Scope) -> None:
    source, ear = Script(START, say("a")), Ear()
    early, late = Mark("1", tail="t"), Mark("2", tail="u")
    reply = await Reply(source, scope).through(early).opened()
    reply.through(late)
    reply.pause()
    reply.connect(ear)
    source.push(say("b"))
    source.end()
    assert (ear.ends, early.closed, late.closed) == (0, ["clean"], [])
    reply.resume()
    assert (ear.text, ear.ends) == ("a12b12t2u", 1)
    assert (early.closed, late.closed) == (["clean"], ["clean"])


@pytest.mark.parametrize("ended", [True, False])
async def test_abort_with_chunks_held_closes_each_stage_once(scope: Scope, ended: bool) -> None:
    source, ear = Script(START, say("a")), Ear()
    early, late = Mark("1"), Mark("2")
    reply = (await Reply(source, scope).through(early).opened()).through(late)
    reply.pause()
    reply.connect(ear)
    if ended:
        source.end()
    reply.abort()
    ear.deaf = True
    reply.resume()
    assert (early.closed, late.closed) == (["clean" if ended else "cancelled"], ["cancelled"])
    assert source.aborted is not ended


async def test_abort_from_inside_the_flush_ends_it(scope: Scope) -> None:
    source = Script(START, say("a"), say("b"))
    reply = await Reply(source, scope).opened()

    def leave(chunk: Chunk) -> None:
        reply.abort()
        ear.deaf = True

    ear = Ear(leave)
    reply.connect(ear)
    assert (len(ear.chunks), source.aborted) == (1, True)


async def test_an_error_while_paused_comes_after_what_was_held(scope: Scope) -> None:
    """A stage that raises for a new chunk must not swallow the chunks before it."""
    source, ear = Script(START, say("a")), Ear()
    reply = await Reply(source, scope).through(Mark("", raise_on="x")).opened()
    reply.pause()
    reply.connect(ear)
    source.push(say("b"), say("x"), say("y"))
    assert source.aborted
    reply.resume()
    assert (ear.text, ear.ends) == ("ab", 1)
    assert isinstance(ear.error, HouseError)


# -- flowing


@pytest.mark.parametrize("opened", [False, True])
async def test_abort_from_inside_push_is_heard_at_once(scope: Scope, opened: bool) -> None:
    source, mark = Script(), Mark("1", tail="t")
    reply = reply_of(source, scope)
    if opened:
        await reply.opened_with(START)
    reply.through(mark)

    def leave(chunk: Chunk) -> None:
        if any(isinstance(event, PartDelta) for event in chunk.events):
            reply.abort()
            ear.deaf = True

    ear = Ear(leave)
    reply.connect(ear)
    source.push(say("a"), say("b"))
    source.end()
    reply.resume()
    assert (ear.text, source.aborted, mark.closed) == ("a1", True, ["cancelled"])


async def test_a_sink_that_aborts_while_it_hears_the_tails_hears_no_more(scope: Scope) -> None:
    source = Script()
    marks = [Mark("", tail="t"), Mark("", tail="u")]
    reply = Reply(source, scope).through(marks[0]).through(marks[1])

    def leave(chunk: Chunk) -> None:
        reply.abort()
        ear.deaf = True

    ear = Ear(leave)
    reply.connect(ear)
    source.end()
    assert (ear.text, ear.ends) == ("t", 0)
    assert [mark.closed for mark in marks] == [["clean"], ["clean"]]


async def test_pause_and_resume_reach_the_source_without_a_buffer(scope: Scope) -> None:
    source, ear = Script(), Ear()
    reply = Reply(source, scope)
    reply.connect(ear)
    reply.pause()
    source.push(say("a"))
    reply.resume()
    assert source.heard == ["connect", "pause", "resume"]
    assert ear.text == "a", "pause is advisory: what was read may still come"


async def test_tails_flow_through_the_later_stages(scope: Scope) -> None:
    source, ear = Script(), Ear()
    marks = [Mark("1", tail="x"), Mark("2", hold=True, tail="y"), Mark("3", tail="z")]
    reply = Reply(source, scope)
    for mark in marks:
        reply.through(mark)
    reply.connect(ear)
    source.push(say("a"))
    source.end()
    assert ear.text == "y3z"
    assert [mark.closed for mark in marks] == [["clean"]] * 3


async def test_what_was_held_back_goes_out_before_a_failure_too(scope: Scope) -> None:
    source, ear, error = Script(), Ear(), Cut("cut")
    Reply(source, scope).through(Mark("1", hold=True, tail="t")).through(Mark("2")).connect(ear)
    source.push(say("a"))
    source.end(error)
    assert ear.text == "t2"
    assert ear.error is error


# -- over


@pytest.mark.parametrize("end", ["over", "closed"])
async def test_everything_is_quiet_after_the_end(scope: Scope, end: str) -> None:
    source, ear, mark = Script(), Ear(), Mark("1")
    reply = Reply(source, scope).through(mark)
    reply.connect(ear)
    if end == "over":
        source.end()
    else:
        reply.abort()
    heard = list(source.heard)
    reply.pause()
    reply.resume()
    reply.abort()
    await reply.aclose()
    reply.push(say("late"))
    reply.end(None)
    assert (source.heard, ear.chunks, ear.ends) == (heard, [], end == "over")
    assert len(mark.closed) == 1
    assert mark.fed == 0
    with pytest.raises(AssertionError):
        reply.connect(ear)
