"""Reply: stages that raise or stop, whole answers, and what is left behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable

import pytest
from headgate.gateway.errors import Cancelled, Cut, ErrorKind, GatewayError, HouseError, Malformed
from headgate.gateway.ir.event import ChoiceStop, Chunk, Event, PartDelta, PartStart
from headgate.gateway.ir.message import Text
from headgate.gateway.relay import reply as reply_module
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.scope import Scope
from headgate.gateway.relay.source import Listed

from .conftest import START, STOP, WIRE, Ear, Mark, Script, of, say, settle, soon

# -- stages that raise or stop

Phase = Callable[[Reply, Script, Ear], Awaitable[object]]


async def _flowing(reply: Reply, source: Script, ear: Ear) -> None:
    reply.connect(ear)
    source.push(START, say("a"), say("x"), say("y"))
    source.end()


async def _early(reply: Reply, source: Script, ear: Ear) -> None:
    """Everything comes inside the connect() of opened()."""
    source.early = (START, say("a"), say("x"), say("y"), None)
    (await reply.opened()).connect(ear)


async def _late(reply: Reply, source: Script, ear: Ear) -> None:
    """Opened with the first content; the rest comes to a paused sink."""
    source.early = (START,)
    await reply.opened()
    reply.pause()
    reply.connect(ear)
    source.push(say("a"), say("x"), say("y"))
    source.end()
    reply.resume()


async def _opened_then_flowing(reply: Reply, source: Script, ear: Ear) -> None:
    source.early = (START,)
    (await reply.opened()).connect(ear)
    source.push(say("a"), say("x"), say("y"))
    source.end()


PHASES = [_flowing, _early, _late, _opened_then_flowing]


async def _stage_added_late(reply: Reply, source: Script, ear: Ear, *stages: Mark) -> None:
    """The stages are added after opened(): they meet the held chunks in the flush."""
    source.early = (START, say("a"), say("x"), say("y"), None)
    await reply.opened()
    for stage in stages:
        reply.through(stage)
    reply.connect(ear)


def _through(*stages: Mark) -> list[Phase]:
    def before(phase: Phase) -> Phase:
        async def run(reply: Reply, source: Script, ear: Ear) -> None:
            for stage in stages:
                reply.through(stage)
            await phase(reply, source, ear)

        return run

    async def after(reply: Reply, source: Script, ear: Ear) -> None:
        await _stage_added_late(reply, source, ear, *stages)

    return [*(before(phase) for phase in PHASES), after]


@pytest.mark.parametrize("phase", range(5))
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("fault", [ValueError("bug"), Malformed("bad")], ids=["stranger", "ours"])
async def test_a_stage_that_raises_in_feed(scope: Scope, phase: int, position: int, fault: Exception) -> None:
    marks = [Mark("", tail="p"), Mark("", tail="q"), Mark("", tail="r")]
    marks[position].raise_on, marks[position].fault = "x", fault
    source, ear = Script(), Ear()
    await _through(*marks)[phase](Reply(source, scope), source, ear)
    kind: ErrorKind = "internal" if isinstance(fault, ValueError) else "malformed"
    assert ear.ends == 1
    assert ear.error is not None
    assert ear.error.kind == kind
    assert ear.text == "apqr"
    assert [mark.closed for mark in marks] == [[kind]] * 3
    assert source.sink is None, "the source is closed, or had ended"


async def test_a_stage_that_raises_before_content_fails_opened(scope: Scope) -> None:
    source, mark = Script(of(PartDelta(0, "x"))), Mark("", raise_on="x")
    with pytest.raises(HouseError):
        await soon(Reply(source, scope).through(mark).opened())
    assert (mark.closed, source.aborted) == (["internal"], True)


@pytest.mark.parametrize("phase", range(5))
async def test_a_stage_that_raises_in_close_spoils_the_end(scope: Scope, phase: int) -> None:
    marks = [Mark("", tail="p"), Mark("", raise_in_close=True), Mark("", tail="r")]
    source, ear = Script(), Ear()
    await _through(*marks)[phase](Reply(source, scope), source, ear)
    assert (ear.text, ear.ends) == ("axypr", 1)
    assert isinstance(ear.error, HouseError), "no clean end after a failure"
    assert [mark.closed for mark in marks] == [["clean"], ["clean"], ["internal"]]


async def test_a_stage_that_raises_in_close_leaves_the_error_that_came(scope: Scope) -> None:
    source, ear, error = Script(), Ear(), Cut("cut")
    Reply(source, scope).through(Mark("", raise_in_close=True)).connect(ear)
    source.end(error)
    assert ear.error is error


async def test_a_stage_that_raises_in_close_before_content_fails_opened(scope: Scope) -> None:
    with pytest.raises(HouseError):
        await soon(Reply(Script(None), scope).through(Mark("", raise_in_close=True)).opened())


async def test_a_stage_that_raises_for_a_tail_is_closed_all_the_same(scope: Scope) -> None:
    source, ear = Script(), Ear()
    marks = [Mark("", tail="x"), Mark("", raise_on="x"), Mark("", tail="r")]
    reply = Reply(source, scope)
    for mark in marks:
        reply.through(mark)
    reply.connect(ear)
    source.end()
    assert isinstance(ear.error, HouseError)
    assert ear.text == "r"
    assert [len(mark.closed) for mark in marks] == [1, 1, 1]


async def test_a_stage_that_raises_in_an_abort_keeps_nobody_from_closing(scope: Scope) -> None:
    source, marks = Script(), [Mark("", raise_in_close=True), Mark("")]
    reply = Reply(source, scope).through(marks[0]).through(marks[1])
    reply.connect(Ear())
    reply.abort()
    assert [mark.closed for mark in marks] == [["cancelled"], ["cancelled"]]


@pytest.mark.parametrize("opened", [False, True])
async def test_a_sink_that_raises_ends_the_answer(scope: Scope, opened: bool) -> None:
    source = Script(START) if opened else Script()

    def fail(chunk: Chunk) -> None:
        raise RuntimeError("encoder")

    ear, mark = Ear(fail), Mark("", tail="t")
    reply = Reply(source, scope).through(mark)
    if opened:
        await reply.opened()
    reply.connect(ear)
    source.push(say("a"))
    assert (ear.ends, mark.closed) == (1, ["internal"])
    assert isinstance(ear.error, HouseError)
    assert source.aborted


@pytest.mark.parametrize("phase", range(5))
@pytest.mark.parametrize("empty", [False, True], ids=["with chunk", "without"])
async def test_stop_ends_the_answer_cleanly_and_its_chunk_passes_the_later_stages(
    scope: Scope, phase: int, empty: bool
) -> None:
    marks = [Mark(""), Mark("1", stop_on="x", stop_empty=empty, tail="t"), Mark("2", tail="u")]
    source, ear = Script(), Ear()
    await _through(*marks)[phase](Reply(source, scope), source, ear)
    assert (ear.text, ear.ends, ear.error) == ("a12" + ("" if empty else "x12") + "t2u", 1, None)
    assert [len(mark.closed) for mark in marks] == [1, 1, 1]
    assert source.sink is None


@pytest.mark.parametrize("ended", [False, True])
async def test_stop_in_the_flush_closes_each_stage_once(scope: Scope, ended: bool) -> None:
    source, ear = Script(START, say("a"), say("x"), say("y"), *([None] if ended else [])), Ear()
    marks = [Mark("1", tail="t"), Mark("2", stop_on="x", tail="u"), Mark("3")]
    reply = await Reply(source, scope).through(marks[0]).opened()
    reply.through(marks[1]).through(marks[2]).connect(ear)
    # The early tail stands behind what was stopped, if the end had come; else it is still to be told.
    assert ear.text == "a123x123" + ("" if ended else "t23") + "u3"
    assert (ear.ends, ear.error) == (1, None)
    assert [mark.closed for mark in marks] == [["clean"]] * 3


async def test_stop_before_content_opens(scope: Scope) -> None:
    source, ear = Script(of(PartDelta(0, "x"))), Ear()
    mark = Mark("", stop_on="x", stop_empty=True)
    reply = await Reply(source, scope).through(mark).opened()
    assert (source.aborted, mark.closed) == (True, ["clean"])
    reply.connect(ear)
    assert (ear.chunks, ear.ends, ear.error) == ([], 1, None)


async def test_stop_in_a_tail_lets_its_chunk_out(scope: Scope) -> None:
    source, ear = Script(), Ear()
    Reply(source, scope).through(Mark("", tail="x")).through(Mark("1", stop_on="x")).through(Mark("2")).connect(ear)
    source.end()
    assert (ear.text, ear.ends, ear.error) == ("x12", 1, None)


async def test_stop_when_the_sink_leaves_in_the_same_push(scope: Scope) -> None:
    source = Script()
    reply = Reply(source, scope).through(Mark("", stop_on="x"))

    def leave(chunk: Chunk) -> None:
        reply.abort()
        ear.deaf = True

    ear = Ear(leave)
    reply.connect(ear)
    source.push(say("x"))
    assert (ear.text, ear.ends) == ("x", 0)


async def test_a_stop_at_an_outer_level_closes_the_inner_one(scope: Scope) -> None:
    source, ear, inner = Script(), Ear(), Mark("1")
    reply = Reply(source, scope).through(inner).then(lambda end: None).through(Mark("2", stop_on="x"))
    reply.connect(ear)
    source.push(say("a"), say("x"), say("y"))
    assert (ear.text, ear.ends, ear.error) == ("a12x12", 1, None)
    assert (source.aborted, inner.closed) == (True, ["cancelled"])


# -- whole

WHOLE = of(PartStart(0, Text("")), PartDelta(0, "all"), ChoiceStop("stop"), raw=b"{}")


async def test_a_whole_reply_is_open_and_collected_as_it_is(scope: Scope) -> None:
    reply = Reply.whole(WHOLE, scope, 200, {"a": "b"})
    assert await reply.opened() is reply
    assert await reply.collect() == [WHOLE]
    with pytest.raises(AssertionError):
        reply.connect(Ear())


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("opened", [False, True])
async def test_a_whole_reply_passes_stages(scope: Scope, paused: bool, opened: bool) -> None:
    mark, ear = Mark("!", tail="t"), Ear()
    reply = Reply.whole(WHOLE, scope)
    if paused:
        reply.pause()
    if opened:
        await reply.opened()
    reply.through(mark).connect(ear)
    if paused:
        assert ear.chunks == []
        reply.resume()
    assert (ear.text, ear.ends, mark.closed) == ("all!t", 1, ["clean"])


@pytest.mark.parametrize("paused", [False, True])
async def test_a_whole_reply_with_stages_is_collected(scope: Scope, paused: bool) -> None:
    reply = Reply.whole(WHOLE, scope).through(Mark("!", tail="t"))
    if paused:
        reply.pause()
    chunks = await soon(reply.collect())
    assert isinstance(chunks, list)
    assert [event.text for chunk in chunks for event in chunk.events if isinstance(event, PartDelta)] == ["all!", "t"]


async def test_a_whole_reply_can_be_dropped(scope: Scope) -> None:
    mark = Mark("1")
    reply = Reply.whole(WHOLE, scope).through(mark)
    reply.abort()
    assert mark.closed == ["cancelled"]
    with pytest.raises(Cancelled):
        await reply.opened()


async def test_a_whole_body_that_turns_out_malformed_fails_as_itself(scope: Scope) -> None:
    def decode(raw: bytes) -> tuple[Event, ...]:
        raise Malformed("not what it says")

    body = Chunk(None, b"{}", WIRE, decode)
    assert await Reply.whole(body, scope).collect() == [body], "nobody looked"
    with pytest.raises(Malformed):
        await Reply.whole(body, scope).through(Mark("1")).collect()
    with pytest.raises(Malformed):
        await Reply.whole(body, scope).then(lambda end: None).collect()


# -- what is left behind


async def test_no_cycle_is_left_after_any_end(scope: Scope) -> None:
    """Reference counts alone must free a reply with all that hangs on it."""

    class Held:
        __slots__ = ("__weakref__",)

    class Keeper(Mark):
        def __init__(self, held: Held) -> None:
            super().__init__("")
            self.held = held

    async def flow(reply: Reply) -> None:
        reply.connect(Ear())

    async def opened_flow(reply: Reply) -> None:
        (await reply.opened()).connect(Ear())

    async def fail(reply: Reply) -> None:
        try:
            await reply.opened()
        except GatewayError:
            pass

    async def drop(reply: Reply) -> None:
        reply.abort()

    async def leave(reply: Reply) -> None:
        ear = Ear()
        ear.on_push = reply.push  # a sink that knows its reply, as most do
        reply.pause()
        reply.connect(ear)
        reply.abort()

    async def collect(reply: Reply) -> None:
        try:
            await reply.collect()
        except GatewayError:
            pass

    async def iterate(reply: Reply) -> None:
        try:
            async for _ in reply:
                pass
        except GatewayError:
            pass

    ways: list[Callable[[Reply], Awaitable[None]]] = [flow, opened_flow, fail, drop, leave, collect, iterate]
    gc.collect()
    gc.disable()
    try:
        for way in ways:
            for failing in (False, True):
                for nested in (False, True):
                    for content in ([], [START, say("a"), STOP]):
                        held = Held()
                        ref = weakref.ref(held)
                        reply = Reply(Listed(content, Cut("cut") if failing else None), scope).through(Keeper(held))
                        if nested:
                            reply = reply.then(lambda end: None)
                        del held
                        if way is opened_flow and failing and not content:
                            continue
                        await way(reply)
                        del reply
                        await settle()
                        assert ref() is None, (way, failing, nested, content)
    finally:
        gc.enable()


def test_the_constants_are_what_the_law_says() -> None:
    assert reply_module.HOLD_BYTES == 256 * 1024
