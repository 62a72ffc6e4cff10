"""The fold of events into a Response, and unfold_parts, its way back for parts."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
from headgate.gateway.ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
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
from headgate.gateway.ir.fold import MAX_CHOICES, Choice, Fold, Response, fold, unfold_parts
from headgate.gateway.ir.message import (
    CacheMark,
    Citation,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

CITATIONS = (
    Citation("openai.chat", "url_citation", b'{"n":1}', url="https://a.example"),
    Citation("openai.chat", "url_citation", b'{"n":2}', url="https://b.example"),
)
ONE, TWO = Raw(b"1"), Raw(b"2")


def grown(part: Part, *steps: Event) -> Part:
    """The part that results from a start and these steps."""
    response = fold([PartStart(0, part), *steps, PartStop(0)])
    assert len(response.choices) == 1
    assert len(response.choices[0].parts) == 1
    return response.choices[0].parts[0]


def test_nothing_is_an_empty_response() -> None:
    assert fold([]) == Response()
    assert fold([Keepalive(), ResponseStop(), Terminator()]) == Response()


def test_a_whole_answer() -> None:
    start = ResponseStart("id", "model", 1, "default", {"x": ONE}, "openai.chat")
    alien = Alien("f", "k", b"{}")
    stop = ChoiceStop("stop_sequence", "end", 0, "###", {"s": ONE})
    events: list[Event] = [
        start,
        UsageReport(Usage(1)),
        PartStart(0, Text("a")),
        PartDelta(0, "b", logprobs=ONE),
        PartDelta(0, "c", logprobs=TWO),
        PartStop(0),
        alien,
        ChoicePatch(0, {"p": ONE, "q": ONE}),
        ChoicePatch(0, {"q": TWO}),
        stop,
        ResponsePatch({"r": ONE}),
        ResponsePatch({"r": TWO, "t": ONE}),
        UsageReport(Usage(1, output_tokens=2)),
        ResponseStop(),
        Terminator(),
    ]
    assert fold(events) == Response(
        start,
        (Choice((Text("abc"),), "stop_sequence", "end", "###", (ONE, TWO), {"s": ONE}, {"p": ONE, "q": TWO}),),
        Usage(1, output_tokens=2),
        {"r": TWO, "t": ONE},
        (alien,),
    )


@pytest.mark.parametrize(
    ("part", "steps", "whole"),
    [
        (Text(""), [PartDelta(0, "a"), PartDelta(0, ""), PartDelta(0, "b")], Text("ab")),
        (
            Text("a", citations=CITATIONS[:1], cache=CacheMark("5m"), extra={"x": ONE, "y": ONE}),
            [PartPatch(0, citation=CITATIONS[1]), PartPatch(0, extra={"x": TWO})],
            Text("a", citations=CITATIONS, cache=CacheMark("5m"), extra={"x": TWO, "y": ONE}),
        ),
        (
            Reasoning("a", origin="f"),
            [PartDelta(0, "b"), PartPatch(0, signature="s"), PartPatch(0, signature="t")],
            Reasoning("ab", "st", origin="f"),
        ),
        (Reasoning(signature="s"), [PartPatch(0, signature="t")], Reasoning(signature="st")),
        (Reasoning(signature=""), [], Reasoning(signature="")),
        (Reasoning(redacted="r"), [], Reasoning(redacted="r")),
        (Refusal(""), [PartDelta(0, "no")], Refusal("no")),
        (ToolCall("i", "f", "{"), [PartDelta(0, '"a":'), PartDelta(0, "1}")], ToolCall("i", "f", '{"a":1}')),
        (ToolCall("i", "f"), [PartPatch(0, extra={"x": ONE})], ToolCall("i", "f", extra={"x": ONE})),
        (
            Media("audio", data="AA"),
            [PartDelta(0, "BB"), PartPatch(0, transcript="he"), PartPatch(0, transcript="llo")],
            Media("audio", data="AABB", text="hello"),
        ),
        (Media("image", uri="https://a.example"), [], Media("image", uri="https://a.example")),
        (Media("image", file_id="f"), [PartPatch(0, extra={"x": ONE})], Media("image", file_id="f", extra={"x": ONE})),
        (Media("document", text="words"), [], Media("document", text="words")),
        (Media("audio", data=""), [], Media("audio", data="")),
        (ToolResult("i", (Text("a"),)), [PartDelta(0, "b")], ToolResult("i", (Text("a"), Text("b")))),
        (ToolResult("i", (Text("a"),)), [], ToolResult("i", (Text("a"),))),
        (Opaque("f", "k", b"{}"), [PartPatch(0, extra={"x": ONE})], Opaque("f", "k", b"{}")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_part_grows(part: Part, steps: Sequence[Event], whole: Part) -> None:
    assert grown(part, *steps) == whole


def test_a_part_that_was_never_stopped_counts() -> None:
    assert fold([PartStart(0, Text("")), PartDelta(0, "a")]).choices == (Choice((Text("a"),)),)


def test_steps_of_a_part_that_never_started_are_ignored() -> None:
    assert fold([PartDelta(3, "a"), PartPatch(3, signature="s"), PartStop(3)]) == Response()


def test_interleaved_parts_stand_in_the_order_of_their_numbers() -> None:
    events: list[Event] = [
        PartStart(1, ToolCall("i", "f")),
        PartStart(0, Text("")),
        PartDelta(1, "{"),
        PartDelta(0, "a"),
        PartDelta(1, "}"),
        PartStop(0),
        PartStop(1),
    ]
    assert fold(events).choices[0].parts == (Text("a"), ToolCall("i", "f", "{}"))


def test_several_choices() -> None:
    events: list[Event] = [
        PartStart(0, Text(""), 1),
        PartStart(1, Text(""), 0),
        PartDelta(0, "one", 1, logprobs=ONE),
        PartDelta(1, "zero", 0, logprobs=TWO),
        ChoiceStop("length", choice=1),
        ChoiceStop("stop", choice=0),
    ]
    assert fold(events).choices == (
        Choice((Text("zero"),), "stop", logprobs=(TWO,)),
        Choice((Text("one"),), "length", logprobs=(ONE,)),
    )


@pytest.mark.parametrize(
    ("event", "choice"),
    [
        (PartStart(0, Text("a"), 2), Choice((Text("a"),))),
        (ChoiceStop("stop", choice=2), Choice((), "stop")),
        (ChoicePatch(2, {"x": ONE}), Choice(extra={"x": ONE})),
        (PartDelta(0, "", 2, logprobs=ONE), Choice(logprobs=(ONE,))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_choice_of_which_anything_was_said_is_there_and_so_are_those_before(event: Event, choice: Choice) -> None:
    assert fold([event]).choices == (Choice(), Choice(), choice)


def test_a_nonsensical_number_does_not_cost_a_billion_choices() -> None:
    response = fold([PartStart(0, Text("a"), sys.maxsize), PartStart(1, Text("b"), MAX_CHOICES)])
    assert response.choices == (Choice((Text("b"),)), Choice((Text("a"),)))
    assert len(fold([ChoiceStop("stop", choice=MAX_CHOICES - 1)]).choices) == MAX_CHOICES


def test_done_may_be_asked_at_any_time() -> None:
    whole = Fold()
    for event in (PartStart(0, Text("")), PartDelta(0, "a")):
        whole.add(event)
    assert whole.done() == whole.done() == Response(choices=(Choice((Text("a"),)),))
    whole.add(PartDelta(0, "b"))
    assert whole.done().choices[0].parts == (Text("ab"),)


def test_the_shared_empty_extra_is_never_written_to() -> None:
    fold(
        [PartStart(0, Text("")), PartPatch(0, extra={"x": ONE}), ChoicePatch(0, {"x": ONE}), ResponsePatch({"x": ONE})]
    )
    assert fold([PartStart(0, Text(""))]) == Response(choices=(Choice((Text(""),)),))


_EXTRA = st.dictionaries(st.sampled_from(["x", "y"]), st.just(ONE), max_size=2)
_TEXT = st.text("ab", max_size=3)
_PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, _TEXT, citations=st.sampled_from([(), CITATIONS]), extra=_EXTRA),
    st.builds(Reasoning, _TEXT, st.none() | _TEXT, extra=_EXTRA),
    st.builds(Refusal, _TEXT),
    st.builds(ToolCall, _TEXT, _TEXT, _TEXT),
    st.builds(Media, st.just("image"), data=st.none() | _TEXT, uri=st.none() | _TEXT),
    st.builds(ToolResult, _TEXT, st.sampled_from([(), (Text("a"),)])),
    st.builds(Opaque, _TEXT, _TEXT, st.just(b"{}")),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_PARTS, max_size=4), st.integers(0, 2), st.integers(0, 3))
def test_fold_is_the_way_back_of_unfold(parts: list[Part], choice: int, first: int) -> None:
    events = list(unfold_parts(parts, choice, first))
    told = fold(events)
    assert (told.choices[choice].parts if parts else ()) == tuple(parts)
    starts = [event for event in events if isinstance(event, PartStart)]
    assert [event.index for event in starts] == list(range(first, first + len(parts)))
    assert {event.choice for event in starts} <= {choice}
    assert sum(isinstance(event, PartStop) for event in events) == len(parts)


@settings(max_examples=60, deadline=None)
@given(st.lists(_PARTS, min_size=1, max_size=4), st.data())
def test_the_cut_of_the_deltas_makes_no_difference(parts: list[Part], data: st.DataObject) -> None:
    events: list[Event] = []
    for event in unfold_parts(parts, 0, 0):
        if isinstance(event, PartDelta):
            at = data.draw(st.integers(0, len(event.text)))
            events += [PartDelta(event.index, event.text[:at]), PartDelta(event.index, event.text[at:])]
        else:
            events.append(event)
    assert fold(events).choices[0].parts == tuple(parts)


_STEPS: st.SearchStrategy[Event] = st.one_of(
    st.builds(PartStart, st.integers(0, 2), _PARTS, st.sampled_from([0, 0, 0, 1])),
    st.builds(PartDelta, st.integers(0, 2), _TEXT, st.sampled_from([0, 0, 0, 1]), st.sampled_from([None, None, ONE])),
    st.builds(PartPatch, st.integers(0, 2), extra=_EXTRA),
    st.builds(PartStop, st.integers(0, 2)),
    st.builds(ChoiceStop, st.sampled_from(["stop", "length"]), choice=st.sampled_from([0, 0, 1])),
    st.builds(UsageReport, st.builds(Usage, st.integers(0, 9))),
    st.sampled_from([ResponseStart("a"), ResponseStop(), Terminator(), Keepalive(), ChoicePatch(0, {"x": ONE})]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_PARTS, max_size=3), st.lists(_STEPS, max_size=8), st.integers(0, 12))
def test_a_list_is_folded_as_its_events_one_by_one(parts: list[Part], steps: list[Event], at: int) -> None:
    """There is a short way for plain answers: it must not be another one."""
    events = [ResponseStart("i"), *unfold_parts(parts, 0, 0), ChoiceStop("stop"), UsageReport(Usage(1)), Terminator()]
    for told in (events, events[:at] + steps + events[at:], steps):
        assert fold(told) == fold(iter(told))
