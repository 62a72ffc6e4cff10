"""Rounds: what the reader of a splice is told, whatever the rounds say and however they are cut into chunks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import pytest
from headgate.gateway.errors import Cut, GatewayError
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
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.fold import Response, fold
from headgate.gateway.ir.message import Citation, Part, Reasoning, Refusal, Text, ToolCall
from headgate.gateway.relay.reply import HOLD_BYTES, Reply
from headgate.gateway.relay.rounds import add_usage
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.relay.source import Listed
from headgate.gateway.relay.splice import End
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from .conftest import (
    WIRE,
    Ear,
    Script,
    answer,
    each,
    of,
    rounds,
    settle,
    spliced,
    text,
    together,
    well_formed,
)

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


@pytest.mark.parametrize("second", [[PartStart(0, ToolCall("i", "f")), PartStop(0)], []], ids=["another part", "none"])
async def test_the_owed_stop_comes_before_what_is_said_next(scope: Scope, second: list[Event]) -> None:
    ear = await spliced(scope, answer(text("a")), answer(second))
    kinds = [type(event) for event in ear.events]
    assert kinds[:4] == [ResponseStart, PartStart, PartDelta, PartStop]
    assert kinds[4] is (PartStart if second else ChoiceStop)


async def test_two_later_rounds_that_say_nothing_leave_the_end_that_was(scope: Scope) -> None:
    ear = await spliced(scope, answer(text("a"), reason="length"), [], [])
    assert fold(ear.events) == fold(answer(text("a"), reason="length"))


async def test_each_round_numbers_its_own_parts(scope: Scope) -> None:
    """A delta of a part that this round never started is not one of the round before."""
    third = [*text("c"), PartDelta(1, "lost"), PartStop(1)]
    ear = await spliced(scope, answer(text("a")), answer(text("b"), text("B", 1)), answer(third))
    assert ear.answer.choices[0].parts == (Text("ab"), Text("Bc"))


async def test_nothing_but_the_end_of_a_later_round_is_held_back(scope: Scope) -> None:
    source, ear = Script(of(ResponseStart("b")), of(Keepalive())), Ear()

    async def go_on() -> Reply:
        return Reply(source, scope)

    first = Reply(Listed(each(answer(text("a"), reason="length"))), scope)
    first.then(lambda end: None if end.round else go_on()).connect(ear)
    await settle()
    assert isinstance(ear.events[-1], Keepalive)
    source.push(*each([PartStart(0, Text("")), PartDelta(0, "b")]))
    assert ear.text == "ab"
    source.push(*each([PartStop(0), ChoiceStop("stop")]))
    assert isinstance(ear.events[-1], PartDelta)
    source.end()
    assert ear.ends == 1


async def test_what_a_provider_says_after_its_end_is_part_of_it(scope: Scope) -> None:
    late: list[Event] = [*text("a"), ChoiceStop("length"), PartStart(1, Text("")), PartDelta(1, "b"), PartStop(1)]
    alone = Ear()
    Reply(Listed(each(late)), scope).then(lambda end: None).connect(alone)
    assert alone.events == late
    ear = await spliced(scope, late, answer(text("c")))
    assert ear.answer.choices[0].parts == (Text("a"), Text("bc"))


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
    first = [
        UsageReport(Usage(10, output_tokens=1)),
        *answer(text("a"), reason="length", used=Usage(10, output_tokens=5)),
    ]
    Reply(Listed(each(first)), scope).then(decide).connect(ear)
    await settle()
    assert ends == [
        End(None, "length", Usage(10, output_tokens=5), 0),
        End(None, "stop", Usage(30, output_tokens=12), 1),
    ]
    assert ear.answer.usage == Usage(30, output_tokens=12)


@pytest.mark.parametrize("error", [None, Cut("cut")])
async def test_usage_of_earlier_rounds_is_told_when_the_last_gives_none(
    scope: Scope, error: GatewayError | None
) -> None:
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
        kinds: list[Part] = [Text(""), Reasoning(), ToolCall("i", "f"), Refusal("")]
        part = draw(st.sampled_from(kinds))
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
