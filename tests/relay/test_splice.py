"""Reply.then: several rounds told as one response, whatever happens between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from headgate.gateway.errors import Cancelled, Cut, GatewayError, HouseError, RateLimited
from headgate.gateway.ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.fold import Response, fold
from headgate.gateway.ir.message import Citation, Part, Reasoning, Refusal, Text, ToolCall
from headgate.gateway.relay.reply import HOLD_BYTES, Decide, Reply
from headgate.gateway.relay.rounds import add_usage
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.relay.source import Listed
from headgate.gateway.relay.splice import End

from .conftest import START, STOP, WIRE, Ear, Mark, Script, of, say, settle, soon


def text(words: str, index: int = 0, choice: int = 0) -> list[Event]:
    return [PartStart(index, Text(""), choice), PartDelta(index, words, choice), PartStop(index, choice)]


def answer(
    *parts: Sequence[Event], reason: StopReason = "stop", used: Usage | None = None, name: str = "a"
) -> list[Event]:
    """The events of one round, as a provider would tell them."""
    usage = [] if used is None else [UsageReport(used)]
    said = [event for part in parts for event in part]
    return [ResponseStart(name), *said, ChoiceStop(reason, reason), *usage, ResponseStop(), Terminator()]


def each(events: Sequence[Event]) -> list[Chunk]:
    """One chunk for each event, with bytes of its own."""
    return [Chunk((event,), f"<{type(event).__name__}>".encode(), WIRE) for event in events]


def together(events: Sequence[Event]) -> list[Chunk]:
    return [of(*events)]


def rounds(scope: Scope, *following: list[Chunk], error: GatewayError | None = None) -> Decide:
    """Decide in favour of each of ``following`` in turn; the first of them ends with ``error``."""
    left = list(following)

    def decide(end: End) -> Awaitable[Reply | None] | None:
        if not left:
            return None
        chunks = left.pop(0)

        async def go_on() -> Reply:
            return Reply(Listed(chunks, error), scope)

        return go_on()

    return decide


async def spliced(
    scope: Scope,
    *of_rounds: Sequence[Event],
    cut: Callable[[Sequence[Event]], list[Chunk]] = each,
    first_error: GatewayError | None = None,
) -> Ear:
    """Run rounds through a splice and check what every reader relies on."""
    ear = Ear()
    first, *rest = (cut(events) for events in of_rounds)
    Reply(Listed(first, first_error), scope).then(rounds(scope, *rest)).connect(ear)
    async with asyncio.timeout(2):
        while not ear.ends:
            await asyncio.sleep(0)
    well_formed(ear.events, clean=ear.error is None)
    return ear


def well_formed(events: Sequence[Event], *, clean: bool = True) -> None:
    """Assert the order that gateway/ir/event.py promises."""
    open_parts: set[int] = set()
    started: list[int] = []
    stopped: set[int] = set()
    for event in events:
        if isinstance(event, PartStart):
            assert event.index == len(started), "parts are numbered on"
            assert event.choice not in stopped
            started.append(event.index)
            open_parts.add(event.index)
        elif isinstance(event, PartDelta | PartPatch):
            assert event.index in open_parts, f"{event} outside its part"
        elif isinstance(event, PartStop):
            open_parts.remove(event.index)
        elif isinstance(event, ChoiceStop):
            assert event.choice not in stopped, "one end for each choice"
            stopped.add(event.choice)
    assert sum(isinstance(event, ResponseStart) for event in events) <= 1
    assert sum(isinstance(event, Terminator) for event in events) <= 1
    assert not any(isinstance(event, Terminator) for event in events[:-1]), "the terminator is last"
    if clean:
        assert open_parts == set()


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
    source.push(*each([PartStart(0, Text("")), PartStart(1, Text("")), PartStop(1), PartDelta(0, "x"), PartDelta(0, "y")]))
    assert len(ear.chunks) == 5
    assert ear.raw == b"<PartStart><PartStart><PartStop><PartDelta><PartDelta>"


async def test_an_end_without_a_reason_is_held_back_too(scope: Scope) -> None:
    first = [*text("a"), ResponseStop(), Terminator()]
    ear = await spliced(scope, first, answer(text("b")))
    assert ear.events[-3:] == [ChoiceStop("stop", "stop"), ResponseStop(), Terminator()]
    assert ear.text == "ab"


# -- the seam


@pytest.mark.parametrize("cut", [each, together])
async def test_a_text_goes_on_in_one_part(scope: Scope, cut: Callable[[Sequence[Event]], list[Chunk]]) -> None:
    ear = await spliced(
        scope,
        answer(text("one "), reason="length", used=Usage(input_tokens=10, output_tokens=2), name="first"),
        answer(text("two "), reason="length", used=Usage(input_tokens=12, output_tokens=3), name="second"),
        answer(text("three"), reason="stop", used=Usage(input_tokens=15, output_tokens=4), name="third"),
        cut=cut,
    )
    told = ear.answer
    assert told.start.id == "first"
    assert [choice.parts for choice in told.choices] == [(Text("one two three"),)]
    assert told.choices[0].reason == "stop"
    assert told.usage == Usage(input_tokens=37, output_tokens=9)
    assert (ear.ends, ear.error) == (1, None)
    assert sum(isinstance(event, PartStart) for event in ear.events) == 1
    assert sum(isinstance(event, UsageReport) for event in ear.events) == 1


async def test_raw_is_dropped_from_the_seam_on(scope: Scope) -> None:
    ear = await spliced(scope, answer(text("one"), reason="length"), answer(text("two")))
    bytes_of = [chunk.raw for chunk in ear.chunks]
    assert bytes_of[:3] == [b"<ResponseStart>", b"<PartStart>", b"<PartDelta>"]
    assert set(bytes_of[3:]) == {None}


KINDS: list[tuple[Part, Part, bool]] = [
    (Text(""), Text(""), True),
    (Refusal(""), Refusal(""), True),
    (Text(""), Refusal(""), False),
    (Reasoning(), Reasoning(), False),
    (Reasoning(), Text(""), False),
    (ToolCall("i", "f"), ToolCall("j", "g"), False),
    (Text(""), ToolCall("j", "g"), False),
    (ToolCall("i", "f"), Text(""), False),
]


@pytest.mark.parametrize(("left", "right", "joined"), KINDS)
@pytest.mark.parametrize("how", ["stopped", "broken off", "in one chunk"])
async def test_which_parts_are_joined(scope: Scope, left: Part, right: Part, joined: bool, how: str) -> None:
    first: list[Event] = [PartStart(0, left), PartDelta(0, "a"), PartStop(0), ChoiceStop("length")]
    if how == "broken off":
        first = first[:2]
    second: list[Event] = [PartStart(0, right), PartDelta(0, "b"), PartStop(0), ChoiceStop("stop")]
    ear = await spliced(
        scope,
        first,
        second,
        cut=together if how == "in one chunk" else each,
        first_error=Cut("cut") if how == "broken off" else None,
    )
    parts = ear.answer.choices[0].parts
    words = ["ab"] if joined else ["a", "b"]
    assert [part.arguments if isinstance(part, ToolCall) else part.text for part in parts] == words  # type: ignore[union-attr]
    assert [type(part) for part in parts] == [type(left)] if joined else [type(left), type(right)]


async def test_parts_are_numbered_on(scope: Scope) -> None:
    first = [PartStart(0, Reasoning()), PartStop(0), *text("a", 1), PartStart(2, ToolCall("i", "f")), PartStop(2)]
    second = [PartStart(0, Reasoning()), PartDelta(0, "hm"), PartStop(0), *text("b", 1)]
    third = [*text("c", 0), *text("d", 1), PartStart(2, ToolCall("j", "g")), PartDelta(2, "{}"), PartStop(2)]
    ear = await spliced(scope, answer(first), answer(second), answer(third))
    parts = ear.answer.choices[0].parts
    assert parts == (
        Reasoning(),
        Text("a"),
        ToolCall("i", "f"),
        Reasoning("hm"),
        Text("bc"),
        Text("d"),
        ToolCall("j", "g", "{}"),
    )


async def test_interleaved_parts_of_a_later_round_keep_their_deltas(scope: Scope) -> None:
    second: list[Event] = [
        PartStart(0, Text("")),
        PartStart(1, ToolCall("i", "f")),
        PartDelta(1, "{"),
        PartDelta(0, "b"),
        PartPatch(1, extra={"x": Raw(b"1")}),
        PartDelta(1, "}"),
        PartStop(1),
        PartStop(0),
    ]
    ear = await spliced(scope, answer(text("a")), answer(second))
    assert ear.answer.choices[0].parts == (Text("ab"), ToolCall("i", "f", "{}", extra={"x": Raw(b"1")}))


async def test_parts_left_open_by_a_failure_are_stopped_at_the_seam(scope: Scope) -> None:
    first: list[Event] = [PartStart(0, Text("")), PartStart(1, ToolCall("i", "f")), PartDelta(1, '{"a')]
    ear = await spliced(scope, first, answer(text("b")), first_error=Cut("cut"))
    assert [type(part) for part in ear.answer.choices[0].parts] == [Text, ToolCall, Text]


async def test_a_text_that_was_stopped_long_before_a_failure_is_not_gone_on_in(scope: Scope) -> None:
    chunks = [of(*text("a"), PartStart(1, ToolCall("i", "f")), PartDelta(1, "{}"), PartStop(1), Keepalive())]
    ear = Ear()
    Reply(Listed(chunks, Cut("cut")), scope).then(rounds(scope, each(answer(text("b"))))).connect(ear)
    await settle()
    well_formed(ear.events)
    assert ear.answer.choices[0].parts == (Text("a"), ToolCall("i", "f", "{}"), Text("b"))


async def test_a_text_that_stopped_before_a_failure_is_gone_on_in(scope: Scope) -> None:
    ear = await spliced(scope, [*text("a"), Keepalive()], answer(text("b")), first_error=Cut("cut"))
    assert ear.answer.choices[0].parts == (Text("ab"),)


async def test_what_the_start_of_a_joined_part_says_is_not_lost(scope: Scope) -> None:
    citation = Citation("openai.chat", "url_citation", b"{}", url="https://example.com")
    start = PartStart(0, Text("b", citations=(citation,), extra={"x": Raw(b"1")}))
    ear = await spliced(scope, answer(text("a")), answer([start, PartDelta(0, "c"), PartStop(0)]))
    assert ear.answer.choices[0].parts == (Text("abc", citations=(citation,), extra={"x": Raw(b"1")}),)


async def test_a_later_round_without_parts_closes_what_is_owed(scope: Scope) -> None:
    ear = await spliced(scope, answer(text("a"), reason="length"), answer(reason="stop"))
    assert [type(event) for event in ear.events] == [
        *(ResponseStart, PartStart, PartDelta),
        *(PartStop, ChoiceStop, ResponseStop, Terminator),
    ]
    assert ear.answer.choices[0].reason == "stop"


async def test_a_later_round_that_says_nothing_leaves_the_end_that_was(scope: Scope) -> None:
    ear = await spliced(scope, answer(text("a"), reason="length", used=Usage(1)), [])
    assert fold(ear.events) == fold(answer(text("a"), reason="length", used=Usage(1)))


async def test_foreign_events_of_later_rounds(scope: Scope) -> None:
    second: list[Event] = [
        ResponsePatch({"x": Raw(b"1")}),
        Keepalive(),
        Alien("f", "k", b"{}"),
        ChoicePatch(0, {"y": Raw(b"2")}),
        PartDelta(7, "of a part that never started"),
        *text("b"),
    ]
    told = (await spliced(scope, answer(text("a")), answer(second))).answer
    assert (told.extra, told.aliens) == ({}, (Alien("f", "k", b"{}"),))
    assert told.choices[0].extra == {"y": Raw(b"2")}
    assert told.choices[0].parts == (Text("ab"),)


# -- several choices


async def test_only_choice_0_goes_on(scope: Scope) -> None:
    first = [*text("a"), *text("x", 1, 1)]
    stops: list[Event] = [ChoiceStop("length"), ChoiceStop("content_filter", choice=1), Terminator()]
    second = [*text("b"), *text("y", 1, 1), ChoicePatch(1, {"z": Raw(b"1")}), ChoiceStop("stop", choice=1)]
    told = (await spliced(scope, [*first, *stops], answer(second))).answer
    assert [(choice.parts, choice.reason) for choice in told.choices] == [
        ((Text("ab"),), "stop"),
        ((Text("x"),), "content_filter"),
    ]


async def test_another_choice_may_end_first_and_speak_last(scope: Scope) -> None:
    events: list[Event] = [
        *text("x", 0, 1),
        ChoiceStop("stop", choice=1),
        PartStart(1, Text(""), 2),
        *text("a", 2),
        ChoiceStop("length"),
        PartDelta(1, "late", 2),
        PartStop(1, 2),
        ChoiceStop("stop", choice=2),
        Terminator(),
    ]
    alone = Ear()
    Reply(Listed(each(events)), scope).then(lambda end: None).connect(alone)
    assert alone.events == events
    told = (await spliced(scope, events, answer(text("b")))).answer
    assert [choice.parts for choice in told.choices] == [(Text("ab"),), (Text("x"),), (Text("late"),)]


@pytest.mark.parametrize("late", [[PartDelta(0, "late", 1)], [Keepalive()]], ids=["choice", "pings"])
async def test_what_comes_after_the_end_is_bounded(
    scope: Scope, late: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    source, ear, ends = Script(), Ear(), list[End]()
    Reply(source, scope).then(ends.append).connect(ear)
    source.push(*each([PartStart(0, Text(""), 1), *text("a", 1), ChoiceStop("stop")]))
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            source.push(Chunk(tuple(late), b"x" * (HOLD_BYTES // 4), WIRE))
    assert len(ear.chunks) == 5 + 10
    source.end()
    assert ends == [], "a round that goes on after its end is the last"
    assert len(caplog.records) == 1
    assert ear.ends == 1


async def test_pings_after_a_part_are_bounded_too_and_the_decision_is_still_asked(scope: Scope) -> None:
    source, ear = Script(), Ear()
    Reply(source, scope).then(rounds(scope, each(answer(text("b"))))).connect(ear)
    source.push(*each(text("a")))
    for _ in range(10):
        source.push(Chunk((Keepalive(),), b"x" * (HOLD_BYTES // 4), WIRE))
    assert len(ear.chunks) > 8
    source.push(*each([ChoiceStop("length")]))
    source.end()
    await settle()
    well_formed(ear.events)
    assert ear.text == "ab"


async def test_one_big_chunk_may_be_followed_like_any_other(scope: Scope) -> None:
    whole = Chunk(tuple(answer(text("a"), reason="length")), b"{" * (2 * HOLD_BYTES), WIRE)
    ear = Ear()
    Reply.whole(whole, scope).then(rounds(scope, each(answer(text("b"))))).connect(ear)
    await settle()
    assert (ear.text, ear.ends) == ("ab", 1)


# -- usage


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [
        (None, Usage(1, raw={"a": Raw(b"1")}), Usage(1, raw={"a": Raw(b"1")})),
        (Usage(1, output_tokens=2), Usage(3, output_tokens=4), Usage(4, output_tokens=6)),
        (Usage(1), Usage(output_tokens=4), Usage(1, output_tokens=4)),
        (Usage(), Usage(), Usage()),
        (Usage(1, estimated=True), Usage(1), Usage(2, estimated=True)),
        (Usage(1, format="f", raw={"a": Raw(b"1")}), Usage(2, format="f", raw={"a": Raw(b"2")}), Usage(3)),
        (
            Usage(1, 2, 3, 4, 5, 6),
            Usage(10, 20, 30, 40, 50, 60),
            Usage(11, 22, 33, 44, 55, 66),
        ),
    ],
)
def test_add_usage(one: Usage | None, other: Usage, total: Usage) -> None:
    assert add_usage(one, other) == total


async def test_usage_is_cumulative_within_a_round_and_summed_over_rounds(scope: Scope) -> None:
    ends: list[End] = []

    def decide(end: End) -> Awaitable[Reply | None] | None:
        ends.append(end)
        return None if end.round else following()

    async def following() -> Reply:
        second = [UsageReport(Usage(20, output_tokens=1)), *answer(text("b"), used=Usage(20, output_tokens=7))]
        return Reply(Listed(each(second)), scope)

    ear = Ear()
    first = [UsageReport(Usage(10, output_tokens=1)), *answer(text("a"), reason="length", used=Usage(10, output_tokens=5))]
    Reply(Listed(each(first)), scope).then(decide).connect(ear)
    await settle()
    assert ends == [
        End(None, "length", Usage(10, output_tokens=5), 0),
        End(None, "stop", Usage(30, output_tokens=12), 1),
    ]
    assert ear.answer.usage == Usage(30, output_tokens=12)


@pytest.mark.parametrize("error", [None, Cut("cut")])
async def test_usage_of_earlier_rounds_is_told_when_the_last_gives_none(scope: Scope, error: GatewayError | None) -> None:
    ear = Ear()
    first = each(answer(text("a"), reason="length", used=Usage(10, output_tokens=5)))
    second = each(answer(text("b")))
    Reply(Listed(first), scope).then(rounds(scope, second, error=error)).connect(ear)
    await settle()
    assert ear.answer.usage == Usage(10, output_tokens=5)
    assert [type(event) for event in ear.events[-3:]] == [UsageReport, ResponseStop, Terminator]
    assert ear.error is error


# -- any cut of any rounds


_WORDS = st.text("ab ", max_size=3)


@st.composite
def _round(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for index in range(draw(st.integers(0, 3))):
        part = draw(st.sampled_from([Text(""), Reasoning(), ToolCall("i", "f"), Refusal("")]))
        events += [PartStart(index, part), *(PartDelta(index, word) for word in draw(st.lists(_WORDS, max_size=2)))]
        if draw(st.booleans()):
            events.append(Keepalive())
        events.append(PartStop(index))
    used = draw(st.none() | st.builds(Usage, st.integers(0, 9)))
    return answer(events, used=used)


@settings(max_examples=60, deadline=None)
@given(st.lists(_round(), min_size=1, max_size=4), st.data())
def test_the_cut_of_the_chunks_makes_no_difference(all_rounds: list[list[Event]], data: st.DataObject) -> None:
    def pieces(events: Sequence[Event]) -> list[Chunk]:
        chunks, at = [], 0
        while at < len(events):
            size = data.draw(st.integers(1, len(events) - at))
            chunks.append(of(*events[at : at + size]))
            at += size
        return chunks

    async def run(cut: Callable[[Sequence[Event]], list[Chunk]]) -> Response:
        clock = Clock()
        scope = Scope(clock)
        try:
            return (await spliced(scope, *all_rounds, cut=cut)).answer
        finally:
            await scope.aclose()
            clock.close()

    assert asyncio.run(run(pieces)) == asyncio.run(run(each))


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


async def test_abort_from_inside_the_push_of_the_seam_closes_what_follows(scope: Scope) -> None:
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

    first = [ResponseStart("a"), ChoiceStop("length"), Terminator()]
    reply = Reply(Listed(each(first)), scope).then(lambda end: None if end.round else go_on())
    ear = Ear()
    opened = await soon(reply.opened())
    assert opened is reply
    reply.connect(ear)
    await settle()
    assert (ear.text, ear.ends) == ("b", 1)
    assert ear.answer.start.id == "a"
