"""The laws that need no sockets, for the formats that say less than a chat: ollama.chat, ollama.generate, openai.completions.

Untouched bytes, no silent loss, nothing invented, prefix-stable, cut anywhere, one path, bounded, no clean end. Each format
goes to and comes from every other one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import pytest
from headgate.gateway.codecs.base import AnswerContext, RequestFacts, UpstreamFacts
from headgate.gateway.codecs.ledger import MAX_LOSSES
from headgate.gateway.errors import CallerError, Overloaded, UpstreamError
from headgate.gateway.ir.event import ChoiceStop, Chunk, Event, PartStart, ResponseStart, Terminator
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.loss import Loss
from headgate.gateway.ir.message import Opaque, Part, ToolCall
from headgate.gateway.wire.ndjson import one_line
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from .answers import answers as chat_answers
from .common import (
    ANTHROPIC,
    CODECS,
    COMPLETIONS,
    CONTEXT,
    GENERATE,
    OLLAMA,
    OPENAI,
    PLACES,
    PLAIN,
    SPOKEN,
    cut,
    decoded,
    few,
    law,
    streamed,
)
from .plain_formats import TYPES, answers, known_members, requests, wires
from .sdk_requests import leaves
from .sdk_requests import requests as chat_requests
from .test_no_silent_loss import UNSAID, _spelled, _with_unknown, arrives, is_meant, names
from .test_nothing_invented import BARE, check_claims, derived, figures
from .test_prefix_stable import SAID, anthropic_turn, conversation_of, openai_turn
from .test_untouched_bytes import bodies as spelled_bodies
from .test_untouched_bytes import relayed

ALL: Final = (*PLAIN, *SPOKEN)
ROADS: Final = tuple((here, there) for here in ALL for there in ALL if here in PLAIN or there in PLAIN)
CROSSED: Final = tuple((here, there) for here, there in ROADS if here != there)
formats = pytest.mark.parametrize("format", PLAIN)
roads = pytest.mark.parametrize(("here", "there"), ROADS)
crossed = pytest.mark.parametrize(("here", "there"), CROSSED)

END: Final = {OLLAMA: b'"done":true', GENERATE: b'"done":true', COMPLETIONS: b"data: [DONE]\n\n"}


def answer_of(format: str) -> st.SearchStrategy[Any]:
    """Answers of a provider of any format."""
    return answers(format) if format in PLAIN else chat_answers(format)


def request_of(format: str) -> st.SearchStrategy[dict[str, Any]]:
    """Requests of any format."""
    return requests(format) if format in PLAIN else chat_requests(format)


def decode(format: str, body: Any) -> Any:
    return CODECS[format].decode_request(json.dumps(body).encode(), RequestFacts())


# -- untouched bytes, cut anywhere


@formats
@law
@given(st.data())
def test_a_stream_that_nobody_changed_goes_out_as_it_came(format: str, data: st.DataObject) -> None:
    wire = data.draw(wires(format))
    assert relayed(format, cut(wire, data.draw(PLACES))) == wire


@formats
@law
@given(st.data())
def test_any_split_of_any_stream(format: str, data: st.DataObject) -> None:
    wire = data.draw(wires(format))
    wire = wire[: data.draw(st.one_of(st.just(len(wire)), st.integers(0, len(wire))))]
    assert decoded(format, cut(wire, data.draw(PLACES))) == decoded(format, [wire] if wire else [])


@formats
@law
@given(st.data())
def test_a_whole_answer_that_nobody_changed_is_read_without_being_changed(format: str, data: st.DataObject) -> None:
    codec = CODECS[format]
    body = codec.encode_response(data.draw(answers(format)).events, CONTEXT).body
    spelled = json.dumps(json.loads(body, parse_float=str), indent=data.draw(st.sampled_from([None, 1]))).encode()
    chunk = Chunk(None, spelled, codec.whole, codec.decode_response)
    assert (chunk.usage is None) is (b"eval_count" not in spelled and b'"usage"' not in spelled)
    assert chunk.events
    assert chunk.raw == spelled


@formats
@law
@given(st.data())
def test_a_new_model_name_changes_that_value_alone(format: str, data: st.DataObject) -> None:
    codec, (before, after) = CODECS[format], data.draw(spelled_bodies(stream=False))
    peek = codec.peek(before, RequestFacts())
    assert codec.patch_request(before, peek, model="NEW", stream_usage=format != COMPLETIONS) == after
    assert codec.patch_request(before, peek, model=None, stream_usage=False) is before


# -- one path


def heard(format: str, wire: bytes, places: Sequence[int]) -> list[Event]:
    """Return the events of a stream that must be whole."""
    events, raw, error = decoded(format, cut(wire, places))
    assert error is None
    assert raw == wire
    return events


def whole(format: str, events: Sequence[Event]) -> Any:
    """Return the whole answer that ``events`` make in ``format``, or the error that it is; numbers keep their spelling."""
    try:
        body = CODECS[format].encode_response(events, CONTEXT).body
    except UpstreamError as error:
        return error.kind
    return json.loads(body, parse_float=str, parse_int=str)


def in_a_line(part: Part) -> Part:
    """A part as Ollama's lines tell it."""
    return replace(part, arguments=one_line(part.arguments.encode()).decode()) if isinstance(part, ToolCall) else part


@formats
@law
@given(st.data())
def test_the_fold_of_a_stream_is_the_whole_answer(format: str, data: st.DataObject) -> None:
    answer = data.draw(answers(format))
    body = CODECS[format].encode_response(answer.events, CONTEXT).body
    by_stream = heard(format, streamed(format, answer.events, answer.sizes)[0], data.draw(PLACES))
    assert fold(by_stream) == fold(CODECS[format].decode_response(body))
    # What was said is told again, but that a line has no room for the line ends between the members of arguments.
    told, heard_again = fold(answer.events), fold(by_stream)
    assert [tuple(map(in_a_line, choice.parts)) for choice in told.choices] == [
        tuple(replace(part, extra={}) for part in choice.parts) for choice in heard_again.choices
    ]
    assert [choice.reason for choice in told.choices] == [choice.reason for choice in heard_again.choices]


@roads
@few
@given(st.data())
def test_every_road_leads_to_the_same_answer(here: str, there: str, data: st.DataObject) -> None:
    answer = data.draw(answer_of(here))
    by_body = CODECS[here].decode_response(CODECS[here].encode_response(answer.events, CONTEXT).body)
    by_stream = heard(here, streamed(here, answer.events, answer.sizes)[0], data.draw(PLACES))
    expected = whole(there, by_body)
    assert whole(there, by_stream) == expected
    if isinstance(expected, str):
        return
    for events in (by_body, by_stream):
        wire, _ = streamed(there, events, data.draw(st.lists(st.integers(1, 6), max_size=8)))
        assert whole(there, heard(there, wire, data.draw(PLACES))) == expected


# -- no silent loss

MEANT: Final[dict[str, tuple[tuple[str, object], ...]]] = {
    OLLAMA: ((r".*", False), (r"stream", True), (r"keep_alive", "")),
    GENERATE: ((r".*", False), (r"stream", True)),
    COMPLETIONS: ((r".*", False), (r"stream", True), (r"stream_options\.include_usage", True)),
}
"""Values that say what holds anyway."""

KEPT: Final = {"tool_choice", "parallel_tool_calls", "reasoning_effort", "thinking.type", "tool_choice.type"}


def tells_logprobs(out: bytes) -> bool:
    """Whether a body asks for log probabilities: by a number of them in Completions, by what to include in Responses."""
    body = json.loads(out)
    number = body.get("logprobs")
    return isinstance(number, int) or "message.output_text.logprobs" in body.get("include", ())


def unnamed(here: str, body: dict[str, Any], out: bytes, losses: Sequence[Loss]) -> list[Any]:
    """Return what is neither in the translated body nor in the ledger."""
    told = list(leaves(json.loads(out)))
    missing = []
    for leaf in leaves(body):
        path = ".".join(map(str, leaf.path))
        if leaf.path[-1] in UNSAID or leaf.value is None or leaf.value == "" or path in KEPT:
            continue
        if path == "logprobs" and leaf.value is True and tells_logprobs(out):
            continue
        if here in PLAIN and any(re.fullmatch(p, path) and value is leaf.value for p, value in MEANT[here]):
            continue
        if here not in PLAIN and (is_meant(here, body, leaf) or path == "stream"):
            continue
        if not arrives(leaf, out, told) and not any(names(loss, leaf.path) for loss in losses):
            missing.append(leaf)
    return missing


@crossed
@few
@given(st.data())
def test_what_does_not_arrive_is_named(here: str, there: str, data: st.DataObject) -> None:
    if here not in (*PLAIN, OPENAI, ANTHROPIC):
        return
    body = data.draw(request_of(here))
    try:
        encoded = CODECS[there].encode_request(decode(here, body), UpstreamFacts())
    except CallerError:
        assume(False)
    assert unnamed(here, body, encoded.body, encoded.losses) == [], [loss.path for loss in encoded.losses]


@formats
@law
@given(st.data())
def test_unknown_members_survive_the_same_format(format: str, data: st.DataObject) -> None:
    spelled: list[str] = []
    body = json.dumps(_with_unknown(data.draw(requests(format)), data, spelled))
    for number, text in enumerate(spelled):
        body = body.replace(f'"<{number}>"', text)
    request = CODECS[format].decode_request(body.encode(), RequestFacts())
    encoded = CODECS[format].encode_request(request, UpstreamFacts())
    assert encoded.losses == ()
    assert _spelled(encoded.body) == _spelled(body.encode())
    for number, text in enumerate(spelled, 1):
        assert re.search(rf'"x_{number}": ?{re.escape(text)}', encoded.body.decode()), (number, text)


@formats
def test_the_types_of_the_client_are_drawn(format: str) -> None:
    assert TYPES[format] and {"model", "stream"} <= known_members(format)


# -- nothing invented


def bodies(format: str, wire: bytes) -> list[Any]:
    """The JSON values of a stream's frames."""
    payloads = (
        re.findall(rb"^data: (.*)$", wire, re.M) if CODECS[format].streamed.framing == "sse" else wire.splitlines()
    )
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


@roads
@few
@given(st.data())
def test_answers_claim_nothing_that_was_not_said(here: str, there: str, data: st.DataObject) -> None:
    answer = data.draw(answer_of(here))
    events, _, _ = decoded(here, cut(streamed(here, answer.events, answer.sizes)[0], data.draw(PLACES)))
    try:
        encoded = CODECS[there].encode_response(events, CONTEXT)
    except UpstreamError:
        assume(False)
    wire, losses = streamed(there, events, answer.sizes)
    for out, noted in ((json.loads(encoded.body), encoded.losses), (bodies(there, wire), losses)):
        check_claims(repr(events), out, noted)
        assert figures(out) | counts(out) <= derived(events) | derived(answer.events)
    assert CODECS[there].encode_response(events, CONTEXT) == encoded
    assert streamed(there, events, answer.sizes) == (wire, losses)


def counts(value: Any) -> set[int]:
    """Ollama's counts of tokens: members of an answer, not of its usage."""
    return {
        leaf.value
        for leaf in leaves(value)
        if str(leaf.path[-1]).endswith("eval_count") and isinstance(leaf.value, int)
    }


@crossed
@few
@given(st.data())
def test_requests_claim_nothing_that_was_not_said(here: str, there: str, data: st.DataObject) -> None:
    if here not in (*PLAIN, OPENAI, ANTHROPIC):
        return
    body = data.draw(request_of(here))
    request = decode(here, body)
    facts = UpstreamFacts(max_output_tokens=7)
    try:
        encoded = CODECS[there].encode_request(request, facts)
    except CallerError:
        assume(False)
    made = [loss for loss in encoded.losses if loss.kind != "lost"]
    # A call's id is rewritten wherever it stands; the name of a schema is made up with it.
    ids = [Loss("minted", name, "", "") for name in ("tool_use_id", "tool_call_id", "call_id", "id", "name") if made]
    check_claims(json.dumps(body), json.loads(encoded.body), [*made, *ids])
    assert CODECS[there].encode_request(request, facts) == encoded


@formats
def test_a_bare_answer_has_what_is_demanded(format: str) -> None:
    encoded = CODECS[format].encode_response(BARE, CONTEXT)
    wire, losses = streamed(format, BARE)
    for out, noted in ((json.loads(encoded.body), encoded.losses), (bodies(format, wire), losses)):
        minted = {re.sub(r"\[\d+\]", "[]", loss.path) for loss in noted if loss.kind == "minted"}
        if format == COMPLETIONS:
            assert minted == {"id", "created", "choices[].finish_reason"}
        else:
            assert minted == {"created_at", "done_reason"}
        assert figures(out) | counts(out) == set()


@formats
def test_what_is_minted_is_made_of_the_call(format: str) -> None:
    """Another call, another id and date; the same call, the same bytes."""
    again = AnswerContext("req_2", CONTEXT.created, CONTEXT.model, CONTEXT.stream_usage)
    assert streamed(format, BARE) == streamed(format, BARE)
    assert streamed(format, BARE, context=again)[0] == streamed(format, BARE)[0].replace(b"req_1", b"req_2")


# -- prefix-stable


@st.composite
def ollama_turn(draw: st.DrawFn, number: int) -> list[dict[str, Any]]:
    calls = [
        {"function": {"name": draw(st.sampled_from("abc")), "arguments": {"n": number}}}
        for _ in range(draw(st.integers(0, 3)))
    ]
    answer: dict[str, Any] = {"role": "assistant", "content": "" if calls else draw(SAID)}
    if draw(st.integers(0, 3)) == 0:
        answer["thinking"] = draw(SAID)
    if calls:
        answer["tool_calls"] = calls
    results = [{"role": "tool", "content": draw(SAID), "tool_name": call["function"]["name"]} for call in calls]
    turn = [answer, *results]
    if not calls or draw(st.booleans()):
        images = {"images": ["iVBORw0KGgo="]} if draw(st.booleans()) else {}
        turn.append({"role": "user", "content": draw(SAID), **images})
    return turn


_TURNS: Final[dict[str, Any]] = {OLLAMA: ollama_turn, OPENAI: openai_turn, ANTHROPIC: anthropic_turn}


@pytest.mark.parametrize(
    ("here", "there"), [(OLLAMA, OLLAMA), (OLLAMA, OPENAI), (OLLAMA, ANTHROPIC), (OPENAI, OLLAMA), (ANTHROPIC, OLLAMA)]
)
@few
@given(st.data())
def test_the_next_turn_begins_with_this_one(here: str, there: str, data: st.DataObject) -> None:
    head: dict[str, Any] = {"model": "m", **({"max_tokens": 99} if here == ANTHROPIC else {})}
    turns: list[Any] = [[{"role": "user", "content": data.draw(SAID)}]]
    turns += [data.draw(_TURNS[here](number)) for number in range(data.draw(st.integers(1, 4)))]
    before = b""
    for count in range(1, len(turns) + 1):
        body = head | {"messages": [message for turn in turns[:count] for message in turn]}
        after = CODECS[there].encode_request(decode(here, body), UpstreamFacts()).body
        if before:
            assert after.startswith(conversation_of(before))
        before = after


# -- bounded, no clean end


@formats
def test_the_losses_of_an_answer(format: str) -> None:
    writer = CODECS[format].stream_encoder(CONTEXT)
    writer.encode(Chunk((ResponseStart("id", "m", format="elsewhere"),)))
    for index in range(1000):
        writer.encode(Chunk((PartStart(index, Opaque("elsewhere", f"kind-{index % 300}", b"{}")),)))
    assert len(writer.losses) == MAX_LOSSES


@roads
@few
@given(st.data())
def test_no_clean_end_after_a_failure(here: str, there: str, data: st.DataObject) -> None:
    """Wherever a stream breaks off, the caller's has an error at its end and no end mark."""
    if there not in PLAIN:
        return
    answer = data.draw(answer_of(here))
    wire, _ = streamed(here, answer.events, answer.sizes)
    events, _, error = decoded(here, [wire[: data.draw(st.integers(0, len(wire)))]])
    if error is None:
        return
    encoder = CODECS[there].stream_encoder(CONTEXT)
    try:
        sent = encoder.encode(Chunk(tuple(events)))
    except UpstreamError:
        return
    sent += encoder.close(Overloaded("broke off"))
    assert END[there] not in sent
    assert not any(isinstance(event, Terminator) for event in events)
    assert "broke off" in json.dumps(bodies(there, sent)[-1]["error"])
    again, _, kind = decoded(there, [sent])
    assert kind is not None
    assert not any(isinstance(event, Terminator) for event in again)


@formats
def test_an_error_is_no_answer(format: str) -> None:
    events = (*BARE[:4], ChoiceStop("error", "error"), *BARE[-2:])
    with pytest.raises(UpstreamError):
        CODECS[format].encode_response(events, CONTEXT)
    assert END[format] not in streamed(format, events)[0]
