"""What is kept of a turn, how it is found again, and how it goes back into what a client made of it."""

from __future__ import annotations

import json

import pytest
from headgate.gateway.ir.message import (
    CacheMark,
    Citation,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from headgate.gateway.reasoning.turn import (
    Step,
    Turn,
    by_calls,
    by_words,
    put_back,
    read,
    since_last_turn,
    steps_of,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

CLAUDE = "anthropic.messages"
R1, R2 = Reasoning("Hm.", "sig1", origin=CLAUDE), Reasoning("So.", "sig2", origin=CLAUDE)
HIDDEN = Reasoning(redacted="blob", origin=CLAUDE)
UNSIGNED = Reasoning("Hm.", origin="openai.chat:reasoning_content")
A, B = ToolCall("a", "look", '{"at":"x"}'), ToolCall("b", "now", "{}")


def signed(part: Text | ToolCall, signature: str) -> Text | ToolCall:
    extra = {"thoughtSignature": Raw(json.dumps(signature).encode())}
    if isinstance(part, Text):
        return Text(part.text, extra=extra)
    return ToolCall(part.id, part.name, part.arguments, extra=extra)


def said(*parts: Part) -> Message:
    return Message("assistant", parts, brief=len(parts) == 1)


# the provider's turn, what the client brings back, what the provider is to read
TURNS: list[tuple[str, tuple[Part, ...], tuple[Part, ...], tuple[Part, ...] | None]] = [
    ("in place", (R1, Text("Yes.")), (Text("Yes."),), (R1, Text("Yes."))),
    ("calls after texts", (R1, A, Text("And."), R2, B), (Text("And."), A, B), (R1, A, Text("And."), R2, B)),
    (
        "texts joined",
        (R1, Text("One. "), R2, Text("Two."), A),
        (Text("One. Two."), A),
        (R1, Text("One. "), R2, Text("Two."), A),
    ),
    ("encrypted", (HIDDEN, Text("Yes.")), (Text("Yes."),), (HIDDEN, Text("Yes."))),
    ("told in clear", (R1, Text("Yes.")), (UNSIGNED, Text("Yes.")), (R1, Text("Yes."))),
    ("no words", (R1, A, B), (A, B), (R1, A, B)),
    ("words added", (R1, A), (Text("Added."), A), (R1, Text("Added."), A)),
    ("words trimmed", (R1, Text("Long."), A), (Text("Lo"), A), (R1, Text("Lo"), A)),
    ("one call of two", (R1, A, R2, B), (B,), (R2, B)),
    ("the first of two", (R1, A, R2, B), (A,), (R1, A)),
    ("other calls", (R1, A), (ToolCall("z", "look", "{}"),), None),
    ("other words", (R1, Text("Yes.")), (Text("No, quite another."),), None),
    (
        "an image between",
        (R1, A),
        (Media("image", uri="https://a.example"), A),
        (R1, Media("image", uri="https://a.example"), A),
    ),
]


@pytest.mark.parametrize(("told", "brought", "wanted"), [row[1:] for row in TURNS], ids=[row[0] for row in TURNS])
def test_a_turn_goes_back(told: tuple[Part, ...], brought: tuple[Part, ...], wanted: tuple[Part, ...] | None) -> None:
    turn = read(write(Turn("up", "m", steps_of(told))))
    back = put_back(said(*brought), turn.steps)
    assert (None if back is None else back.parts) == wanted
    assert back is None or not back.brief


@pytest.mark.parametrize("parts", [(), (Text("Yes."),), (UNSIGNED, Text("Yes.")), (A, B), (Opaque("x", "y", b"1"),)])
def test_nothing_is_kept_of_what_nobody_signed(parts: tuple[Part, ...]) -> None:
    assert steps_of(parts) == ()


def test_openai_signs_the_last_text_of_an_item_for_all() -> None:
    first = Reasoning("One.", origin="openai.responses:summary")
    last = Reasoning("Two.", "enc", origin="openai.responses:summary")
    (item, call) = steps_of((first, last, A))
    assert isinstance(item.part, Opaque)
    assert json.loads(item.part.data) == {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}],
        "encrypted_content": "enc",
    }
    assert call.call == "a"
    assert [step.part for step in steps_of((last, Text("x"), first, A))] == [last, None, None]
    assert [step.part for step in steps_of((UNSIGNED, R1, A))] == [R1, None]


def test_gemini_signs_calls_and_texts_in_their_own_parts() -> None:
    alone = Opaque("gemini", "thoughtSignature", b'{"text":"","thoughtSignature":"s3"}')
    turn = steps_of((signed(A, "s1"), B, signed(Text("Yes."), "s2"), alone))
    assert [(step.call, step.length, step.signature) for step in turn] == [
        ("a", 0, "s1"),
        ("b", 0, None),
        (None, 4, "s2"),
        (None, 0, None),
    ]
    back = put_back(said(Text("Yes."), A, B), turn)
    assert back is not None
    call, plain, text, last = back.parts
    assert isinstance(call, ToolCall)
    assert json.loads(bytes(call.extra["extra_content"])) == {"google": {"thought_signature": "s1"}}
    assert plain == B
    assert isinstance(text, Opaque)
    assert json.loads(text.data) == {"text": "Yes.", "thoughtSignature": "s2"}
    assert last == alone


def test_calls_whose_ids_were_made_up_are_told_by_their_place() -> None:
    told = (signed(ToolCall("", "look", '{"at":"x"}'), "s1"), ToolCall("", "now", "{}"))
    steps = steps_of(told)
    brought = said(ToolCall("call_0", "look", '{"at": "x"}'), ToolCall("call_1", "now", ""))
    back = put_back(brought, steps)
    assert back is not None
    assert ["extra_content" in part.extra for part in back.parts if isinstance(part, ToolCall)] == [True, False]
    assert put_back(said(brought.parts[0]), steps) is None
    assert by_words((), told) == by_words((), brought.parts)


def test_the_callers_marks_stay() -> None:
    mark = CacheMark("5m")
    steps = steps_of((R1, Text("One. "), R2, Text("Two.")))
    back = put_back(said(Text("One. Two.", cache=mark)), steps)
    assert back is not None
    assert back.parts == (R1, Text("One. "), R2, Text("Two.", cache=mark))
    cited = Text("One. Two.", (Citation("x", "y", b"{}"),))
    assert put_back(said(cited), steps) is None


QUESTION = Message("user", (Text("Well?"),))


def test_a_turn_is_found_by_a_call_or_by_what_was_said() -> None:
    turn = (R1, Text("Yes. "), A, B)
    assert by_calls(turn) == ["call a", "call b"]
    made_up = ToolCall("call_0", "look", "{}", extra={"id": Raw(b"null")})
    assert by_calls((made_up, ToolCall("", "look"), ToolCall("s", "search", server="web_search"))) == []
    name = by_words((QUESTION,), turn)
    reordered = (Text("Yes."), ToolCall("other", "look", '{ "at" : "x" }'), ToolCall("", "now", ""))
    assert by_words((QUESTION,), reordered) == name
    for other in (
        by_words((Message("user", (Text("Well!"),)),), reordered),
        by_words((QUESTION,), (Text("No."), *reordered[1:])),
        by_words((QUESTION,), (reordered[0], reordered[2], reordered[1])),
        by_words((QUESTION,), (reordered[0], ToolCall("", "look", '{"at":"y"}'), reordered[2])),
    ):
        assert other != name
    assert by_words((QUESTION,), (R1,)) is None


def test_what_may_change_meanwhile_does_not_count() -> None:
    asked = (Message("system", (Text("It is 9:01."),)), QUESTION)
    later = (Message("system", (Text("It is 9:02."),)), QUESTION)
    assert by_words(asked, (Text("Yes."),)) == by_words(later, (Text("Yes."),))
    result = Message("tool", (ToolResult("a", (Text("rain"),)),))
    other = Message("tool", (ToolResult("a", (Text("sun"),)),))
    assert by_words((result,), (Text("Yes."),)) != by_words((other,), (Text("Yes."),))


def test_what_stands_between_two_turns() -> None:
    turn = said(Text("Yes."))
    messages = (QUESTION, turn, QUESTION, QUESTION, turn)
    assert since_last_turn(messages, 1) == (QUESTION,)
    assert since_last_turn(messages, 4) == (QUESTION, QUESTION)
    assert since_last_turn(messages, 5) == ()


_reasoning = st.builds(Reasoning, st.text(max_size=5), st.text(min_size=1, max_size=5), origin=st.just(CLAUDE))
_texts = st.builds(Text, st.text(min_size=1, max_size=8))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(_reasoning, _texts, st.just(None)), max_size=8))
def test_whatever_was_told_a_client_that_joins_texts_brings_it_back_whole(told: list[Part | None]) -> None:
    parts = [part or ToolCall(f"c{at}", "look", "{}") for at, part in enumerate(told)]
    steps = steps_of(parts)
    words = "".join(part.text for part in parts if isinstance(part, Text))
    calls = [part for part in parts if isinstance(part, ToolCall)]
    brought = [*([Text(words)] if words else []), *calls]
    if steps and brought:
        back = put_back(said(*brought), steps)
        assert back is not None
        assert list(back.parts) == parts


def test_a_step_says_little() -> None:
    assert write(Turn("up", "m", (Step(length=3), Step(call="")))) == (
        b'{"upstream":"up","model":"m","steps":[{"length":3},{"call":""}]}'
    )
