"""Law 4, nothing invented: what was not said is absent, or minted: the same way each time, ledgered, and listed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from headgate.gateway.codecs.base import AnswerContext, RequestFacts, UpstreamFacts
from headgate.gateway.errors import CallerError, UpstreamError
from headgate.gateway.ir.event import (
    ChoiceStop,
    Event,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.loss import Loss
from headgate.gateway.ir.message import Text, ToolCall
from hypothesis import assume, given
from hypothesis import strategies as st

from .answers import Answer, answers
from .common import ANTHROPIC, CODECS, CONTEXT, OPENAI, PLACES, ROADS, SPOKEN, cut, decoded, law, streamed
from .formats_page import general, page
from .sdk_requests import leaves, requests

PAGE: Final = Path(__file__).parent.parent.parent / "docs/formats.md"
CLAIMS: Final = frozenset(
    [
        *("id", "tool_use_id", "tool_call_id", "file_id", "name", "model", "created"),
        *("signature", "data", "encrypted_content", "encrypted_index", "system_fingerprint"),
    ]
)
"""Members that only a provider, or a caller, can know."""


def minted(losses: Iterable[Loss]) -> set[str]:
    """The general paths of what was minted."""
    return {general(loss.path) for loss in losses if loss.kind == "minted"}


def listed(format: str, what: str) -> set[str]:
    """The paths that the page lists as minted in ``what`` (requests, answers) of ``format``."""
    return set(re.findall(rf"^\| `{re.escape(format)}` {what} \| `([^`]+)` \|", PAGE.read_text(), re.M))


def bodies(wire: bytes) -> list[Any]:
    """The JSON values of a stream's frames."""
    payloads = re.findall(rb"^data: (.*)$", wire, re.M)
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


def test_the_page_says_what_the_codecs_do() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.laws.formats_page > docs/formats.md"


def check_claims(told: str, out: Any, losses: Sequence[Loss]) -> None:
    """Fail for an id or a signature in ``out`` that is neither in what was ``told`` nor in the ledger."""
    made = {general(loss.path).split(".")[-1] for loss in losses if loss.kind != "lost"}
    for leaf in leaves(out):
        name = str(leaf.path[-1])
        if name not in CLAIMS or leaf.value in ("", None) or isinstance(leaf.value, bool):
            continue
        assert str(leaf.value) in told or name in made, leaf


def spelled(events: Sequence[Event]) -> str:
    """All that ``events`` say, the members of their extras too, which do not show what they are."""
    return repr(events) + msgspec.json.encode(list(events)).decode()


def figures(value: Any) -> set[int]:
    """The numbers below the ``usage`` members of JSON values."""
    found = set()
    for leaf in leaves(value):
        if "usage" in leaf.path and isinstance(leaf.value, int) and not isinstance(leaf.value, bool):
            found.add(leaf.value)
    return found


def derived(events: Sequence[Event]) -> set[int]:
    """The figures that follow from those that the provider told: the same, and their sums in either convention."""
    known: set[int] = {0}
    for event in events:
        if isinstance(event, UsageReport):
            it = event.usage
            told = [it.input_tokens, it.uncached_input_tokens, it.cache_read_input_tokens, it.output_tokens]
            known |= {n for n in (*told, it.cache_creation_input_tokens, it.reasoning_output_tokens) if n is not None}
            known.add((it.input_tokens or 0) + (it.output_tokens or 0))
    return known


@pytest.mark.parametrize(("here", "there"), ROADS)
@law
@given(st.data())
def test_answers_claim_nothing_that_was_not_said(here: str, there: str, data: st.DataObject) -> None:
    answer: Answer = data.draw(answers(here))
    events, _, _ = decoded(here, cut(streamed(here, answer.events, answer.sizes)[0], data.draw(PLACES)))
    try:
        encoded = CODECS[there].encode_response(events, CONTEXT)
    except UpstreamError:
        assume(False)
    wire, losses = streamed(there, events, answer.sizes)
    for out, noted in ((json.loads(encoded.body), encoded.losses), (bodies(wire), losses)):
        check_claims(spelled(events), out, noted)
        assert figures(out) <= derived(events) | derived(answer.events)
        if here != there:
            assert minted(noted) <= listed(there, "answers")
    assert CODECS[there].encode_response(events, CONTEXT) == encoded
    assert streamed(there, events, answer.sizes) == (wire, losses)


@pytest.mark.parametrize(("here", "there"), [(here, there) for here, there in ROADS if here != there])
@law
@given(st.data())
def test_requests_claim_nothing_that_was_not_said(here: str, there: str, data: st.DataObject) -> None:
    body = data.draw(requests(here))
    request = CODECS[here].decode_request(json.dumps(body).encode(), RequestFacts())
    facts = UpstreamFacts(max_output_tokens=7)
    try:
        encoded = CODECS[there].encode_request(request, facts)
    except CallerError:
        assume(False)
    made = [loss for loss in encoded.losses if loss.kind != "lost"]
    # A call's id is rewritten wherever it stands; the empty name of a schema is made up with it.
    ids = [Loss("minted", name, "", "") for name in ("tool_use_id", "name") if made]
    check_claims(json.dumps(body), json.loads(encoded.body), [*made, *ids])
    assert minted(encoded.losses) <= listed(there, "requests")
    assert CODECS[there].encode_request(request, facts) == encoded
    if there == ANTHROPIC and request.max_output_tokens is None:
        assert json.loads(encoded.body)["max_tokens"] == 7


BARE: Final[tuple[Event, ...]] = (
    ResponseStart(),
    PartStart(0, Text("")),
    PartDelta(0, "x"),
    PartStop(0),
    PartStart(1, ToolCall("", "look")),
    PartStop(1),
    ResponseStop(),
    Terminator(),
)
"""An answer of a provider that says as little as it can."""


@pytest.mark.parametrize("format", SPOKEN)
@pytest.mark.parametrize("usage", [None, Usage(output_tokens=3, format="elsewhere")], ids=["no usage", "half"])
def test_a_bare_answer_has_what_is_demanded(format: str, usage: Usage | None) -> None:
    events = BARE if usage is None else (*BARE[:-2], UsageReport(usage), *BARE[-2:])
    encoded = CODECS[format].encode_response(events, CONTEXT)
    wire, losses = streamed(format, events)
    for out, noted in ((json.loads(encoded.body), encoded.losses), (bodies(wire), losses)):
        text = json.dumps(out)
        assert "req_1" in text
        assert "sk-" not in text
        assert {"id"} <= minted(noted)
        assert minted(noted) <= listed(format, "answers") | {"choices[].parts[].arguments"}
        assert figures(out) <= {0, 3}
        if format == ANTHROPIC:
            assert "usage" in minted(noted)
            assert '"signature"' not in text
        else:
            assert minted(noted) & {"created", "created_at"}
            assert usage is not None or '"usage": {' not in text


@pytest.mark.parametrize("format", SPOKEN)
def test_what_is_minted_is_made_of_the_call(format: str) -> None:
    """Another call, another id; the same call, the same bytes."""
    again = AnswerContext("req_2", CONTEXT.created, CONTEXT.model, CONTEXT.stream_usage)
    first, same = streamed(format, BARE)[0], streamed(format, BARE)[0]
    second, _ = streamed(format, BARE, context=again)
    assert first == same
    assert second == first.replace(b"req_1", b"req_2")


def test_an_error_is_no_answer() -> None:
    """A reason that means a failure never becomes an answer of the format that has no word for it."""
    events = (*BARE[:4], ChoiceStop("error", "error"), *BARE[-2:])
    with pytest.raises(UpstreamError):
        CODECS[ANTHROPIC].encode_response(events, CONTEXT)
    assert b"message_stop" not in streamed(ANTHROPIC, events)[0]


def test_ids_of_calls_that_have_none_are_minted() -> None:
    """Calls of the time before tools have no id."""
    called = {"role": "assistant", "function_call": {"name": "look", "arguments": "{}"}}
    result = {"role": "function", "name": "look", "content": "x"}
    body = {"model": "m", "max_tokens": 9, "messages": [called, result, called, result]}
    request = CODECS[OPENAI].decode_request(json.dumps(body).encode(), RequestFacts())
    encoded = CODECS[ANTHROPIC].encode_request(request, UpstreamFacts())
    blocks = [turn["content"][0] for turn in json.loads(encoded.body)["messages"]]
    ids = [block.get("id") or block["tool_use_id"] for block in blocks]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert [loss.path for loss in encoded.losses if loss.kind == "minted"] == [
        "messages[0].function_call.id",
        "messages[1].tool_call_id",
        "messages[2].function_call.id",
        "messages[3].tool_call_id",
    ]
    assert json.loads(CODECS[OPENAI].encode_request(request, UpstreamFacts()).body)["messages"] == body["messages"]


def test_an_id_that_an_answer_does_not_have_is_made_of_the_call() -> None:
    message = {"content": None, "function_call": {"name": "look", "arguments": "{}"}}
    body = {"id": "c", "model": "m", "created": 1, "choices": [{"message": message, "finish_reason": "function_call"}]}
    events = CODECS[OPENAI].decode_response(json.dumps(body).encode())
    encoded = CODECS[ANTHROPIC].encode_response(events, CONTEXT)
    assert json.loads(encoded.body)["content"][0]["id"] == "toolu_req_1_0"
    wire, losses = streamed(ANTHROPIC, events)
    assert b'"id":"toolu_req_1_0"' in wire
    for noted in (encoded.losses, losses):
        assert "content[].id" in minted(noted)
    assert json.loads(CODECS[OPENAI].encode_response(events, CONTEXT).body)["choices"][0]["message"] == {
        "role": "assistant",
        "refusal": None,
        **message,
    }


@pytest.mark.parametrize(
    ("usage", "entries"),
    [
        ({"prompt_tokens": 5}, ["usage.output_tokens"]),
        ({"completion_tokens": 5}, ["usage"]),
        ({"prompt_tokens": 5, "completion_tokens": 0}, []),
    ],
)
def test_a_count_that_nobody_told_is_noted(usage: dict[str, int], entries: list[str]) -> None:
    choice = {"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}
    body = {"id": "c", "model": "m", "created": 1, "choices": [choice], "usage": usage}
    events = CODECS[OPENAI].decode_response(json.dumps(body).encode())
    encoded = CODECS[ANTHROPIC].encode_response(events, CONTEXT)
    wire, losses = streamed(ANTHROPIC, events)
    for out, noted in ((json.loads(encoded.body), encoded.losses), (bodies(wire)[-2], losses)):
        assert out["usage"]["output_tokens"] == usage.get("completion_tokens", 0)
        assert [loss.path for loss in noted if loss.kind == "minted"] == entries
