"""The fold's short way for common answers, against the long one; and the recognition of an answer that is one text."""

from __future__ import annotations

import pytest
from headgate.gateway.ir import fold as fold_module
from headgate.gateway.ir.event import (
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
from headgate.gateway.ir.fold import Fold, PlainAnswer, Response, fold, plain_answer
from headgate.gateway.ir.message import Media, Reasoning, Refusal, Text, ToolCall
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

START, STOP, END = ResponseStart("i", "m"), ChoiceStop("stop", "stop"), (ResponseStop(), Terminator())
TEXT = (PartStart(0, Text("")), PartDelta(0, "hi"), PartStop(0))
CALL = (PartStart(1, ToolCall("c", "f")), PartDelta(1, "{}"), PartStop(1))
THOUGHT = (PartStart(0, Reasoning("a", "s", origin="x")), PartDelta(0, "b"), PartStop(0))

EVENTS: list[Event] = [
    *TEXT,
    *CALL,
    *THOUGHT,
    PartStart(1, Refusal("")),
    PartStart(1, Media("audio")),
    PartStart(2, Text("x"), 1),
    PartDelta(0, "more"),
    PartDelta(0, "probable", logprobs=Raw(b"{}")),
    PartStop(2),
    PartPatch(0, signature="s"),
    ChoicePatch(0, {"x": Raw(b"1")}),
    ResponsePatch({"x": Raw(b"1")}),
    STOP,
    ChoiceStop("length", choice=1),
    START,
    UsageReport(Usage(1, 1)),
    Keepalive(),
    *END,
]
PIECES = st.one_of(
    st.sampled_from([TEXT, CALL, THOUGHT, (STOP,), (START,), (UsageReport(Usage(1, 1)),), END]),
    st.sampled_from(EVENTS).map(lambda event: (event,)),
)


def long_way(events: list[Event]) -> Response:
    whole = Fold()
    for event in events:
        whole.add(event)
    return whole.done()


@settings(max_examples=200)
@given(st.lists(PIECES, max_size=8))
def test_both_ways_fold_alike(pieces: list[tuple[Event, ...]]) -> None:
    events = [event for piece in pieces for event in piece]
    assert fold(events) == long_way(events)


@pytest.mark.parametrize("parts", [TEXT, THOUGHT, (*TEXT, *CALL)])
def test_common_answers_go_the_short_way(parts: tuple[Event, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    events = [START, *parts, STOP, UsageReport(Usage(1, 1)), *END]
    want = long_way(events)
    monkeypatch.setattr(fold_module, "Fold", None)
    assert fold(events) == want


def test_one_text_is_a_plain_answer() -> None:
    assert plain_answer([START, *TEXT, STOP, UsageReport(Usage(1, 1)), *END]) == PlainAnswer(
        START, "hi", STOP, Usage(1, 1)
    )
    assert plain_answer((START, *TEXT, STOP, ResponseStop())) == PlainAnswer(START, "hi", STOP, None)


@pytest.mark.parametrize(
    "events",
    [
        [],
        [START, *TEXT, STOP],
        [START, *TEXT, PartStart(1, Text("")), STOP, *END],
        [START, *CALL, STOP, *END],
        [START, PartStart(0, Text("x")), *TEXT[1:], STOP, *END],
        [START, PartStart(0, Text(""), 1), *TEXT[1:], STOP, *END],
        [START, TEXT[0], PartDelta(0, "hi", logprobs=Raw(b"{}")), TEXT[2], STOP, *END],
        [START, *TEXT, ChoiceStop("stop", extra={"x": Raw(b"1")}), *END],
        [START, *TEXT, ChoiceStop("stop", choice=1), *END],
        [START, *TEXT, STOP, ResponsePatch({"x": Raw(b"1")}), *END],
    ],
)
def test_anything_else_is_not(events: list[Event]) -> None:
    assert plain_answer(events) is None
