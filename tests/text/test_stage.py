"""The stage around the grammars: stop strings, parts that are not text, several choices, bounds, and what passes untouched."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from headgate.gateway.errors import Cancelled, Cut
from headgate.gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.loss import Loss
from headgate.gateway.ir.message import Citation, Reasoning, Request, Text, ToolCall
from headgate.gateway.relay.stage import Stop
from headgate.gateway.text.reader import MAX_HELD
from headgate.gateway.text.stage import MAX_LOGPROBS, TextStage
from headgate.gateway.text.voice import MAX_BLANK
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from ..relay.conftest import well_formed
from .reading import WIRE, answer, joined, make, parts, streamed, told, whole


def stopping(*stop: str, n: int | None = None, profile: dict[str, Any] | None = None) -> TextStage:
    stage = make(profile or {"stop": True}, Request("openai.chat", "m", stop=stop, n=n))
    assert stage is not None
    return stage


def reading(**profile: Any) -> TextStage:
    stage = make(profile)
    assert stage is not None
    return stage


def of(*events: Event) -> Chunk:
    return Chunk(events, b"<raw>", WIRE)


# -- stop strings

STOPS: list[tuple[tuple[str, ...], str, str, str | None]] = [
    (("END",), "one ENtwo END three", "one ENtwo ", "END"),
    (("END",), "one E", "one E", None),
    (("END",), "END", "", "END"),
    (("EEND",), "EEEND", "E", "EEND"),
    (("abcd", "b"), "xabcd", "xa", "b"),
    (("bc", "abc"), "xabcd", "x", "abc"),
    (("\n\n", "\nUser:"), "a\nUser:b", "a", "\nUser:"),
    (("a", "b"), "", "", None),
    (("ä€", "\U0001f600"), "x\U0001f600ä", "x", "\U0001f600"),
]


@pytest.mark.parametrize(("stop", "text", "said", "met"), STOPS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_stop_string_ends_the_answer_wherever_it_is_cut(
    stop: tuple[str, ...], text: str, said: str, met: str | None, data: st.DataObject
) -> None:
    by_body = told(stopping(*stop), whole(text))
    places = [0, *sorted(data.draw(st.sets(st.integers(0, len(text))))), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    by_stream = told(stopping(*stop), streamed(pieces))
    assert joined(by_stream) == joined(by_body)
    well_formed(by_stream)
    choice = answer(by_stream).choices[0]
    assert parts(by_stream) == [said]
    assert choice.stop_sequence == met
    assert (choice.reason, choice.raw_reason) == (("stop", "stop") if met is None else ("stop_sequence", ""))


def test_the_provider_is_stopped_at_the_stop_string_and_not_before() -> None:
    stage = stopping("END")
    chunks = streamed(["a E", "N", "D b", "c"])
    passed = [stage.feed(chunk) for chunk in chunks[:5]]
    assert [isinstance(each, Stop) for each in passed] == [False, False, False, False, True]
    assert passed[3] is None, "no more than what may be a stop string is held back"
    last = passed[4]
    assert isinstance(last, Stop) and last.chunk is not None and last.chunk.raw is None
    assert last.chunk.events == (
        PartStop(0),
        ChoiceStop("stop_sequence", "", 0, "END"),
        ResponseStop(),
        Terminator(),
    )
    assert stage.close(None) is None


def test_a_provider_that_has_ended_may_tell_its_usage() -> None:
    stage = stopping("b")
    events = [PartStart(0, Text("")), PartDelta(0, "ab"), PartStop(0), ChoiceStop("stop", "stop")]
    assert isinstance(stage.feed(of(*events)), Chunk)
    usage = of(UsageReport(Usage(output_tokens=3)), ResponseStop(), Terminator())
    assert stage.feed(usage) is usage


def test_each_choice_stops_for_itself() -> None:
    stage = stopping("X", n=2)
    first = stage.feed(of(PartStart(0, Text("")), PartStart(1, Text(""), 1), PartDelta(0, "aX"), PartDelta(1, "b", 1)))
    assert isinstance(first, Chunk)
    assert first.events[-2:] == (ChoiceStop("stop_sequence", "", 0, "X"), PartDelta(1, "b", 1))
    assert stage.feed(of(PartDelta(0, "more"))) is None
    assert isinstance(stage.feed(of(PartDelta(1, "cX", 1))), Stop)


def test_after_a_stop_string_nothing_of_the_choice_is_told() -> None:
    events = [
        ResponseStart("r"),
        *(PartStart(0, ToolCall("c0", "f")), PartDelta(0, "{")),
        *(PartStart(1, Text("")), PartDelta(1, "aXb"), PartStop(1)),
        *(PartDelta(0, "}"), PartStop(0), ChoiceStop("tool_calls", "tool_calls")),
        *(UsageReport(Usage(output_tokens=3)), ResponseStop(), Terminator()),
    ]
    out = told(stopping("X"), [of(*events)])
    well_formed(out)
    assert parts(out) == [("f", "{", "c0"), "a"]
    assert answer(out).usage == Usage(output_tokens=3)


def test_stop_strings_are_looked_for_in_the_text_alone() -> None:
    profile = {"stop": True, "think": "auto", "tools": "hermes"}
    text = '<think>aXb</think>c<tool_call>{"name":"f","arguments":{"x":"X"}}</tool_call>dXe'
    out = told(stopping("X", profile=profile), whole(text))
    assert parts(out) == [("think", "aXb"), "c", ("f", '{"x":"X"}'), "d"]


def test_half_a_stop_string_before_a_call_is_said_before_it() -> None:
    out = told(
        stopping("XY", profile={"stop": True, "tools": "hermes"}), whole('aX<tool_call>{"name":"f"}</tool_call>Y')
    )
    assert parts(out) == ["aX", ("f", "{}"), "Y"]


# -- what passes untouched


def test_a_text_with_no_stop_string_in_it_keeps_its_bytes() -> None:
    stage = stopping("END")
    for chunk in streamed(["one", " two", " three"]):
        assert stage.feed(chunk) is chunk
    body = whole("one two")[0]
    assert stopping("END").feed(body) is body


def test_once_it_is_told_that_nothing_is_thought_chunks_keep_their_bytes() -> None:
    stage = reading(think="auto")
    chunks = streamed(["Hel", "lo", " <thi"])
    passed = [stage.feed(chunk) for chunk in chunks]
    assert passed[1] is None
    assert isinstance(passed[2], Chunk) and passed[2].events == (PartStart(0, Text("")), PartDelta(0, "Hel"))
    assert passed[3:5] == chunks[3:5] and passed[3] is chunks[3]


def test_a_body_in_which_nothing_is_marked_keeps_its_bytes() -> None:
    body = whole("Hello")[0]
    for profile in ({"think": "auto"}, {"tools": "hermes"}, {"tools": "harmony"}):
        assert reading(**profile).feed(body) is body


def test_parts_that_are_not_text_pass_under_their_new_numbers() -> None:
    citation = Citation("openai.chat", "url_citation", b"{}")
    events = [
        *(PartStart(0, Reasoning()), PartDelta(0, "r"), PartPatch(0, signature="s"), PartStop(0)),
        *(PartStart(1, Text("")), PartDelta(1, "<think>a</think>b"), PartStop(1)),
        *(PartStart(2, ToolCall("c", "f")), PartDelta(2, "{}"), PartStop(2)),
        *(PartPatch(1, citation=citation), ChoiceStop("tool_calls", "tool_calls")),
    ]
    out = told(reading(think="auto"), [of(each) for each in events])
    well_formed([event for event in out if not isinstance(event, PartPatch)])
    assert parts(out) == [("think", "r"), ("think", "a"), "b", ("f", "{}", "c")]
    assert answer(out).choices[0].parts[2] == Text("b", (citation,))
    assert answer(out).choices[0].raw_reason == "tool_calls"


def test_members_of_a_text_part_stay_with_its_first_text() -> None:
    part = Text("<think>a</think>b", extra={"x": Raw(b"1")})
    out = told(reading(think="auto"), [of(PartStart(0, part), PartStop(0), ChoiceStop("stop", "stop"))])
    assert answer(out).choices[0].parts == (Reasoning("a"), Text("b", extra={"x": Raw(b"1")}))


def test_a_citation_that_has_no_text_to_stand_on_is_a_loss() -> None:
    losses: list[Loss] = []
    stage = make({"think": "auto"}, losses=losses)
    assert stage is not None
    citation = PartPatch(0, citation=Citation("openai.chat", "url_citation", b"{}"))
    out = told(stage, [of(PartStart(0, Text("")), PartDelta(0, "<think>a</think>"), PartStop(0), citation)])
    assert parts(out) == [("think", "a")]
    assert [loss.kind for loss in losses] == ["lost"]


def test_no_log_probability_is_lost() -> None:
    pieces = ["<th", "ink>", "a", "</think>", "", "b", "c"]
    events: list[Event] = [PartStart(0, Text(""))]
    events += [PartDelta(0, piece, 0, Raw(b'{"n":%d}' % number)) for number, piece in enumerate(pieces)]
    out = told(reading(think="auto"), [of(each) for each in [*events, PartStop(0), ChoiceStop("stop", "stop")]])
    assert [bytes(raw) for raw in answer(out).choices[0].logprobs] == [b'{"n":%d}' % n for n in range(len(pieces))]
    assert parts(out) == [("think", "a"), "bc"]


def test_log_probabilities_of_marks_alone_are_a_loss_that_is_told() -> None:
    losses: list[Loss] = []
    stage = make({"tools": "harmony"}, losses=losses)
    assert stage is not None
    events: list[Event] = [PartStart(0, Text("")), PartDelta(0, "<|channel|>final", 0, Raw(b"{}"))]
    out = told(stage, [of(*events, PartStop(0), ChoiceStop("length", "length"))])
    assert parts(out) == [""]
    assert [(loss.kind, loss.what) for loss in losses] == [("lost", "logprobs")]
    for _ in range(MAX_LOGPROBS + 1):
        events.append(PartDelta(0, "", 0, Raw(b"{}")))
    losses.clear()
    stage = make({"tools": "harmony"}, losses=losses)
    assert stage is not None
    stage.feed(of(*events))
    assert [(loss.kind, loss.what) for loss in losses] == [("lost", "logprobs")]


def test_only_the_first_text_of_a_choice_may_begin_with_thinking() -> None:
    events: list[Event] = []
    for index in range(2):
        events += [PartStart(index, Text("")), PartDelta(index, "<think>a</think>b"), PartStop(index)]
    assert parts(told(reading(think="auto"), [of(*events)])) == [("think", "a"), "b", "<think>a</think>b"]


# -- ends


def test_what_is_held_back_comes_out_when_the_answer_fails() -> None:
    stage = reading(tools="hermes")
    for chunk in streamed(["a <tool_call>", '{"name"'])[:4]:
        stage.feed(chunk)
    tail = stage.close(Cut("gone"))
    assert tail is not None and joined(tail.events) == [PartDelta(0, '<tool_call>{"name"'), PartStop(0)]


def test_nobody_hears_the_rest_when_the_caller_left() -> None:
    stage = reading(tools="hermes")
    for chunk in streamed(["a <tool_"])[:3]:
        stage.feed(chunk)
    assert stage.close(Cancelled("gone")) is None


def test_the_losses_of_a_call_are_noted() -> None:
    losses: list[Loss] = []
    stage = make({"tools": "hermes"}, losses=losses)
    assert stage is not None
    told(stage, whole('<tool_call>{"name":"f"}</tool_call><tool_call>{"name":"f","arguments":{},"x":1}</tool_call>'))
    assert [(loss.kind, loss.what) for loss in losses] == [("minted", "arguments"), ("lost", "x")]


@pytest.mark.parametrize(("more", "losses"), [("\n", []), ("<|start|>user<|message|>And?<|end|>", ["text"])])
def test_what_a_model_makes_up_after_its_answer_is_noted_once(more: str, losses: list[str]) -> None:
    noted: list[Loss] = []
    stage = make({"tools": "harmony"}, losses=noted)
    assert stage is not None
    said = told(stage, streamed(["<|channel|>final<|message|>a<|ret", "urn|>", *more, *more]))
    assert parts(said) == ["a"]
    assert [loss.what for loss in noted] == losses


# -- bounds

LONG = MAX_HELD + 1000
HELD = [
    ({"tools": "hermes"}, "<tool_call>" + " " * LONG),
    ({"tools": "hermes"}, '<tool_call>{"name": "' + "x" * LONG),
    ({"tools": "hermes"}, '<tool_call>{"arguments": {"a": "' + "x" * LONG),
    ({"tools": "pythonic"}, "[f(a='" + "x" * LONG),
    ({"tools": "mistral"}, "[TOOL_CALLS]f[CALL_ID]" + "x" * LONG),
    ({"tools": "kimi_k2"}, "<|tool_call_begin|>" + "x" * LONG),
    ({"tools": "deepseek"}, "<｜tool▁call▁begin｜>" + "x" * LONG),
    ({"tools": "qwen"}, "<function=" + "x" * LONG),
    ({"tools": "harmony"}, "<|start|>" + "x" * LONG),
    ({"think": "auto"}, " " * LONG),
    ({"think": "auto"}, "<think>a" + " " * LONG + "b"),
]


@pytest.mark.parametrize(("profile", "text"), HELD, ids=range(len(HELD)))
def test_a_marker_that_never_ends_is_not_held_for_ever(profile: dict[str, Any], text: str) -> None:
    stage = reading(**profile)
    pieces = [text[at : at + 1000] for at in range(0, len(text), 1000)]
    behind = 0
    for number, chunk in enumerate(streamed(pieces)[:-2]):
        passed = stage.feed(chunk)
        said = sum(len(each.text) for each in passed.events if isinstance(each, PartDelta)) if passed else 0  # type: ignore[union-attr]
        behind += (len(pieces[number - 2]) if number > 1 else 0) - said
        assert behind <= MAX_HELD + 2 * 1000
    by_stream = told(reading(**profile), streamed(pieces))
    assert joined(by_stream) == joined(told(reading(**profile), whole(text)))
    said = "".join(each.text for each in by_stream if isinstance(each, PartDelta))
    assert said == text.removeprefix("<|start|>").removeprefix("<think>"), "nothing is lost"


def test_arguments_of_any_length_are_not_held() -> None:
    stage = reading(tools="hermes")
    piece = "x" * 10_000
    head = stage.feed(streamed(['<tool_call>{"name":"f","arguments":{"a":"'])[1])
    assert head is None
    stage.feed(of(PartDelta(0, '<tool_call>{"name":"f","arguments":{"a":"')))
    for _ in range(50):
        assert stage.feed(of(PartDelta(0, piece))) == of(PartDelta(0, piece))


@pytest.mark.parametrize("number", [MAX_BLANK - 1, MAX_BLANK, MAX_BLANK + 1, 2 * MAX_BLANK + 1])
def test_long_runs_of_white_space_are_told_alike_however_they_are_cut(number: int) -> None:
    text = "<think>a" + "\n" * number + "</think>" + " " * number + '<tool_call>{"name":"f"}</tool_call>' + " " * number
    profile = {"think": "auto", "tools": "hermes"}
    assert joined(told(reading(**profile), streamed(list(text)))) == joined(told(reading(**profile), whole(text)))


def test_a_number_in_tags_that_is_too_long_is_a_string() -> None:
    text = f"<function=weather><parameter=days>{'1' * LONG}</parameter></function>"
    expected = [("weather", '{"days": "' + "1" * LONG + '"}')]
    for chunks in (whole(text), streamed([text[at : at + 1000] for at in range(0, len(text), 1000)])):
        assert parts(told(reading(tools="qwen"), chunks)) == expected


RUBBLE = (
    "<tool_call>",
    "</tool_call>",
    '{"name":"f"',
    ',"arguments":{',
    "}",
    "]",
    "[",
    "(",
    ")",
    '"',
    "\\",
    "<function=f>",
    "<parameter=a>",
    "</parameter>",
    "</function>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[f(",
    "a=",
    "1",
    ",",
    "'x",
    "<|channel|>",
    "final",
    "analysis",
    "<|message|>",
    "<|end|>",
    "<|start|>",
    "assistant",
    "to=f",
    "\n",
    " ",
    "<think>",
    "</think>",
    "text",
)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["hermes", "qwen", "kimi_k2", "deepseek", "mistral", "pythonic", "harmony"]),
    st.lists(
        st.sampled_from(RUBBLE),
        max_size=20,
    ),
    st.data(),
)
def test_rubble_tells_the_same_however_it_is_cut(tools: str, pieces: list[str], data: st.DataObject) -> None:
    profile = {"tools": tools, "stop": True} | ({} if tools == "harmony" else {"think": "auto"})
    request = Request("openai.chat", "m", stop=("text text", "x <"))
    text = "".join(pieces)
    size = data.draw(st.integers(1, 7))
    cut = [text[at : at + size] for at in range(0, len(text), size)]

    def run(chunks: list[Chunk]) -> list[Event]:
        stage = make(profile, request)
        assert stage is not None
        out = told(stage, chunks)
        well_formed(out)
        return joined(out)

    assert run(streamed(cut)) == run(whole(text)) == run(streamed(list(text)))
