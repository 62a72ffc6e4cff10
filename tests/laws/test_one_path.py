"""Law 1, one path: the fold of a stream is the whole answer, for every pair of formats, and nothing runs twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from headgate import Gateway
from headgate.gateway.call import Call
from headgate.gateway.chain import Next
from headgate.gateway.errors import GatewayError, UpstreamError
from headgate.gateway.ir.event import Chunk, Event
from headgate.gateway.relay.reply import Reply
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from .answers import Answer, answers
from .common import (
    ANTHROPIC,
    CODECS,
    CONTEXT,
    FORMATS,
    OPENAI,
    PLACES,
    ROADS,
    SPOKEN,
    cut,
    decoded,
    law,
    streamed,
    told,
)


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
    value = json.loads(body, parse_float=str, parse_int=str)
    for choice in value.get("choices", ()):
        # Log probabilities come in pieces; both spellings of nothing say the same.
        choice["logprobs"] = choice["logprobs"] or None
    return value


def same_story(events: Sequence[Event]) -> Any:
    """Return what an answer tells, without how it was cut into parts where the format has no borders between them."""
    value = told(events)
    for choice in value.get("choices", ()):
        texts: dict[str, str] = {}
        rest = []
        for part in choice.pop("parts", ()):
            if part["type"] in ("text", "reasoning", "refusal"):
                texts[part["type"]] = texts.get(part["type"], "") + part["text"]
                rest += part.get("citations", [])
            else:
                rest.append(part)
        choice["told"] = [texts, sorted(rest, key=json.dumps)]
    return value


@pytest.mark.parametrize("format", SPOKEN)
@law
@given(st.data())
def test_the_fold_of_a_stream_is_the_whole_answer(format: str, data: st.DataObject) -> None:
    answer: Answer = data.draw(answers(format))
    body = CODECS[format].encode_response(answer.events, CONTEXT).body
    wire, _ = streamed(format, answer.events, answer.sizes)
    by_stream = heard(format, wire, data.draw(PLACES))
    assert told(by_stream) == told(CODECS[format].decode_response(body))


@pytest.mark.parametrize(("here", "there"), ROADS)
@law
@given(st.data())
def test_every_road_to_the_other_format_leads_to_the_same_answer(here: str, there: str, data: st.DataObject) -> None:
    answer: Answer = data.draw(answers(here))
    by_body = CODECS[here].decode_response(CODECS[here].encode_response(answer.events, CONTEXT).body)
    by_stream = heard(here, streamed(here, answer.events, answer.sizes)[0], data.draw(PLACES))
    expected = whole(there, by_body)
    assert whole(there, by_stream) == expected
    if isinstance(expected, str):
        return
    for events in (by_body, by_stream):
        wire, _ = streamed(there, events, data.draw(st.lists(st.integers(1, 6), max_size=8)))
        assert whole(there, heard(there, wire, data.draw(PLACES))) == expected


@law
@given(st.data())
def test_parts_in_any_order_tell_the_same(data: st.DataObject) -> None:
    """A whole answer of OpenAI's has one order, that of its members; a stream has any. Nothing is lost by that."""
    answer: Answer = data.draw(answers(OPENAI, canonical=False))
    body = CODECS[OPENAI].encode_response(answer.events, CONTEXT).body
    by_stream = heard(OPENAI, streamed(OPENAI, answer.events, answer.sizes)[0], data.draw(PLACES))
    assert same_story(by_stream) == same_story(CODECS[OPENAI].decode_response(body))


# -- middlewares


class Nothing(Struct, frozen=True):
    """Nothing to set."""


class Counter:
    """Counts how often it is called, what it sees, and that its stage is closed once."""

    Options: ClassVar[type[Struct]] = Nothing
    counts: ClassVar[dict[str, int]] = {}

    def __init__(self, options: Nothing) -> None:
        pass

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        self.note("called")
        return (await call_next(call)).through(self)

    def note(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def feed(self, chunk: Chunk, /) -> Chunk:
        for event in chunk.events:
            self.note(type(event).__name__)
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        self.note("closed")


RULES = f"""
version: 1
upstreams: {{demo: {{adapter: simulator, words: 100}}}}
chains: {{all: [{{use: "{__name__}:Counter"}}]}}
routes: [{{name: all, chain: all, to: demo}}]
"""


@pytest.mark.parametrize("format", FORMATS)
async def test_a_middleware_sees_the_same_of_a_stream_and_of_a_whole_answer(format: str, tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(RULES)
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "/sim think so\n/sim text a b c"}]}
    if format == ANTHROPIC:
        asked["max_tokens"] = 9
    seen = []
    async with Gateway.load(path) as gateway:
        for stream in (False, True):
            Counter.counts.clear()
            reply = await gateway.handle(format, json.dumps(asked | {"stream": stream}).encode())
            await reply.collect()
            seen.append(dict(Counter.counts))
    assert seen[0] == seen[1]
    assert seen[0]["called"] == seen[0]["closed"] == seen[0]["Terminator"] == 1
