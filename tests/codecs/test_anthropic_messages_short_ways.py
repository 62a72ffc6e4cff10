"""The short ways of Messages and the long ones: whatever both can do they do alike, and the common inputs are short.

A short way that refuses too much is only slow; so there are also inputs that none of them may refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from headgate.gateway.codecs.anthropic_messages import (
    CODEC,
    compose,
    request,
    response,
    stream,
    typed_answer,
    typed_request,
)
from headgate.gateway.codecs.base import AnswerContext, RequestFacts, UpstreamFacts
from headgate.gateway.codecs.openai_chat import CODEC as OTHER
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import ChoiceStop, Event, PartDelta, ResponseStart, ResponseStop, Terminator, UsageReport
from headgate.gateway.ir.event import Usage as Counts
from headgate.gateway.ir.fold import unfold_parts
from headgate.gateway.ir.message import CacheMark, Message, Request, Text
from headgate.gateway.ir.words import words_of
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from .short_ways import NULLS, TEXTS, objects, told

encode = msgspec.json.encode

CACHE = objects({"type": st.sampled_from(["ephemeral", "ephemeral", "other"])}, {"ttl": st.just("1h")})
TEXT = objects({"type": st.just("text"), "text": TEXTS}, {"cache_control": CACHE, "citations": st.just([])})
IMAGE = objects(
    {
        "type": st.just("image"),
        "source": st.sampled_from(
            [
                {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                {"type": "url", "url": "https://a.example/i.png"},
                {"data": "AAAA", "type": "base64", "media_type": "image/png", "x_own": 1},
            ]
        ),
    },
    {"cache_control": CACHE},
)
THINKING = objects({"type": st.just("thinking"), "thinking": TEXTS}, {"signature": st.just("s")})
CALL = objects(
    {"type": st.just("tool_use"), "id": st.just("t1"), "name": st.just("f")},
    {"input": st.sampled_from([{}, {"a": 1.0}, {"q": '"'}, []]), "cache_control": CACHE},
)
RESULT = objects(
    {"type": st.just("tool_result"), "tool_use_id": st.just("t1")},
    {
        "content": st.one_of(TEXTS, st.lists(st.one_of(TEXT, IMAGE, THINKING), max_size=2)),
        "is_error": st.booleans(),
        "cache_control": CACHE,
    },
)
OTHER_BLOCK = st.sampled_from([{"type": "redacted_thinking", "data": "x"}, {"type": "new", "text": "x"}, {"text": "x"}])
CONTENT = st.one_of(
    TEXTS, TEXTS, st.lists(st.one_of(TEXT, TEXT, IMAGE, THINKING, CALL, RESULT, OTHER_BLOCK), max_size=3)
)
MESSAGE = objects({"role": st.sampled_from(["user", "user", "assistant", "system", "x"]), "content": CONTENT}, {})
BODY = objects(
    {"model": st.just("m"), "messages": st.lists(MESSAGE, max_size=3)},
    {
        "system": st.one_of(TEXTS, st.lists(st.one_of(TEXT, TEXT, IMAGE), max_size=2)),
        "max_tokens": st.integers(0, 9),
        "temperature": st.sampled_from([0, 1, 0.5, "1"]),
        "top_p": st.just(0.5),
        "top_k": st.just(3),
        "stream": st.booleans(),
        "stop_sequences": st.sampled_from([[], ["a"], "a"]),
        "tools": st.lists(
            objects(
                {"name": st.just("f"), "input_schema": st.sampled_from([{"type": "object"}, {"type": "object"}, []])},
                {
                    "description": st.just("d"),
                    "type": st.sampled_from(["custom", "bash_20250124"]),
                    "strict": st.booleans(),
                    "cache_control": CACHE,
                },
            ),
            max_size=2,
        ),
        "tool_choice": objects(
            {"type": st.sampled_from(["auto", "any", "none", "tool", "new"])},
            {"name": st.just("f"), "disable_parallel_tool_use": st.booleans()},
        ),
        "thinking": objects({"type": st.sampled_from(["enabled", "new"])}, {"budget_tokens": st.just(1024)}),
        "metadata": objects({}, {"user_id": st.just("u")}),
        "service_tier": st.just("auto"),
    },
)


def long_way(patched: pytest.MonkeyPatch) -> None:
    """Switch every short way off."""
    patched.setattr(typed_request, "read_request", lambda body: None)
    patched.setattr(typed_request, "read_message", lambda raw: None)
    patched.setattr(compose, "words_of", lambda request: None)
    patched.setattr(compose, "plain_text", lambda message: None)
    patched.setattr(response, "read_answer", lambda body: None)
    patched.setattr(response, "plain_answer", lambda events: None)


def read(body: bytes) -> object:
    """What a request says, or what is wrong with it."""
    try:
        return told(request.decode_request(body))
    except GatewayError as error:
        return type(error), error.message


@settings(max_examples=200)
@given(BODY)
def test_a_request_is_read_alike(value: dict[str, Any]) -> None:
    body = encode(value)
    with pytest.MonkeyPatch.context() as patched:
        long_way(patched)
        want = read(body)
    short = typed_request.read_request(body)
    assert short is None or told(short) == want
    assert read(body) == want


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5,"stream":false,"temperature":1}',
        b'{"max_tokens":5,"messages":[{"content":[{"text":"a","type":"text"}],"role":"user"}],"model":"m","stream":true,'
        b'"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"metadata":{"user_id":"u"}}',
        b'{"model":"m","max_tokens":5,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f",'
        b'"input":{"a":1.0}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"x"}]}],'
        b'"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"tool_choice":{"type":"auto"}}',
    ],
)
def test_a_common_request_is_read_the_short_way(body: bytes) -> None:
    assert typed_request.read_request(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"hi","content":null}]}',
        b'{"model":"m","messages":[{"content":"hi"}]}',
        b'{"model":"m","messages":[{"role":"user","content":[{"text":"hi"}]}]}',
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","type":"image","text":"hi"}]}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":"\xff"}}]}]}',
        b'{"model":"m","messages":[]} x',
        b'{"model":"m","messages":' + b"[" * 5000,
    ],
)
def test_what_is_odd_is_left_to_the_long_way(body: bytes) -> None:
    assert typed_request.read_request(body) is None


ANSWER = objects(
    {
        "content": st.lists(
            st.one_of(
                objects({"type": st.just("text"), "text": TEXTS}, {"citations": st.just([])}), THINKING, CALL, RESULT
            ),
            max_size=3,
        )
    },
    {
        "id": st.just("i"),
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": st.just("m"),
        "stop_reason": st.sampled_from(["end_turn", "tool_use", "new"]),
        "stop_sequence": st.just("s"),
        "usage": objects(
            {},
            {
                "input_tokens": st.integers(0, 9),
                "output_tokens": st.integers(0, 9),
                "cache_read_input_tokens": st.integers(0, 9),
                "service_tier": st.sampled_from(["standard", "\\"]),
            },
        ),
        "container": st.just({"id": "c"}),
        "stop_details": NULLS,
        "context_management": NULLS,
        "error": st.just({"type": "api_error", "message": "broken"}),
    },
)


@settings(max_examples=200)
@given(ANSWER)
def test_an_answer_is_read_alike(value: dict[str, Any]) -> None:
    body = encode(value)
    short = typed_answer.read_answer(body)
    with pytest.MonkeyPatch.context() as patched:
        long_way(patched)
        try:
            want = response.decode_response(body)
        except GatewayError:
            assert short is None
        else:
            assert short is None or told(short) == told(want)


@pytest.mark.parametrize(
    "block",
    [
        b'{"type":"text","text":"hi"}',
        b'{"type":"text","text":"hi","citations":null},{"type":"tool_use","id":"t","name":"f","input":{"a":1.0}}',
        b'{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"hi"}',
    ],
)
def test_a_common_answer_is_read_the_short_way(block: bytes) -> None:
    head = b'{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[' + block
    end = b'],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":2}}'
    assert typed_answer.read_answer(head + end) is not None


MESSAGES = st.lists(
    st.builds(
        Message,
        st.sampled_from(["system", "developer", "user", "user", "assistant", "assistant"]),
        st.lists(
            st.builds(Text, TEXTS, cache=st.sampled_from([None, None, None, CacheMark("1h")])), min_size=1, max_size=2
        ).map(tuple),
        st.sampled_from([None, None, None, "n"]),
        st.booleans(),
        extra=st.sampled_from([{}, {}, {}, {"x": Raw(b"1")}]),
    ),
    max_size=4,
)
REQUESTS = st.builds(
    Request,
    st.sampled_from(["openai.chat", "openai.chat", "anthropic.messages"]),
    st.just("m"),
    MESSAGES.map(tuple),
    max_output_tokens=st.sampled_from([None, 5, 5]),
    temperature=st.sampled_from([None, 0.5]),
    top_p=st.sampled_from([None, 0.5]),
    top_k=st.sampled_from([None, None, None, 3]),
    stop=st.sampled_from([(), (), (), ("a",)]),
    seed=st.sampled_from([None, None, None, 3]),
    stream=st.booleans(),
    stream_usage=st.sampled_from([None, True, False]),
    extra=st.sampled_from([{}, {"max_tokens": Raw(b"null"), "stream": Raw(b"false")}, {"x": Raw(b"1")}]),
)
FACTS = st.builds(
    UpstreamFacts, options=st.sampled_from([{}, {"system_in_messages": True}, {"anthropic_version": "2026-10-21"}])
)


def written(asked: Request, facts: UpstreamFacts) -> object:
    """The request for a provider, or why there is none."""
    try:
        return compose.encode_request(asked, facts)
    except GatewayError as error:
        return type(error), error.message


@settings(max_examples=200)
@given(REQUESTS, FACTS)
def test_a_request_is_written_alike(asked: Request, facts: UpstreamFacts) -> None:
    with pytest.MonkeyPatch.context() as patched:
        long_way(patched)
        want = written(asked, facts)
    assert written(asked, facts) == want


def test_a_common_request_is_written_the_short_way() -> None:
    body = (
        b'{"model":"m","max_tokens":5,"stream":false,"messages":[{"role":"system","content":"s"},'
        b'{"role":"user","content":"hi"},{"role":"assistant","content":"a"},{"role":"user","content":"b"}]}'
    )
    words = words_of(OTHER.decode_request(body, RequestFacts()))
    assert words is not None
    assert CODEC.wording.write(words, UpstreamFacts()) is not None


def answers(format: str) -> list[Sequence[Event]]:
    start = ResponseStart("i", "m", 5, extra={"system_fingerprint": Raw(b'"f"')}, format=format)
    bare = ResponseStart(format=format, service_tier="t")
    usage = UsageReport(Counts(3, 2, 1, None, 4))
    plain = UsageReport(Counts(3, 3, output_tokens=4, format=format, raw={"x_own": Raw(b"1")}))
    silent = replace(start, extra={"system_fingerprint": Raw(b'""'), "kept.x": Raw(b"1")})
    several = replace(start, extra={"system_fingerprint": Raw(b'""'), "x": Raw(b'"f"'), "x_own": Raw(b"2")})
    other = replace(start, extra={"system_fingerprint": Raw(b'"f"'), "x": Raw(b'""'), "y" * 2000: Raw(b"2")})
    many = replace(start, extra={f"x{number}": Raw(b"1") for number in range(120)})
    out: list[Sequence[Event]] = []
    for text in ("hi", ""):
        for reason, word in (("stop", "stop"), ("length", ""), ("stop_sequence", "x"), ("refusal", ""), ("other", "y")):
            for first in (start, bare):
                parts = [*unfold_parts([Text(text)], 0, 0)]
                stop = ChoiceStop(reason, word)  # type: ignore[arg-type]
                out.append((first, *parts, stop, ResponseStop()))
                out.append((first, *parts, stop, usage, ResponseStop(), Terminator()))
                out.append((first, *parts, ChoiceStop("stop", extra={"x": Raw(b"1")}), ResponseStop()))
                out.append((first, *parts, stop))
                out.append((first, *parts, PartDelta(0, "more"), stop, ResponseStop()))
            for first in (start, silent, several, other, many):
                out.append((first, *parts, stop, plain, ResponseStop(), Terminator()))
    return out


@pytest.mark.parametrize("format", ["openai.chat", "anthropic.messages"])
def test_an_answer_is_written_alike(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context = AnswerContext("r", 7, "asked")
    short = [response.encode_response(events, context) for events in answers(format)]
    long_way(monkeypatch)
    assert short == [response.encode_response(events, context) for events in answers(format)]


START = (
    'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant",'
    '"model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)


def delta(words: str, between: str = "", end: str = "\n\n") -> str:
    return f'event: content_block_delta\ndata: {{"type":"content_block_delta",{between}"index":0,"delta":{words}}}{end}'


FRAMES = [
    delta('{"type":"text_delta","text":"a"}'),
    delta('{"type":"text_delta","text":""}'),
    delta('{"type":"text_delta","text":"b","x_own":1}'),
    delta('{"type":"text_delta","text":"\\ud800"}'),
    delta('{"type":"input_json_delta","partial_json":"{"}'),
    delta('{"type":"text_delta","text":"d"}', "\ndata: "),
    delta('{"type":"text_delta","text":"f"}', end="\r\n\r\n"),
    delta('{"type":"text_delta","text":"g"}').replace("data: ", "data:"),
    'event: content_block_start\ndata: {"type":"content_block_start","index":1,"content_block":{"type":"new"}}\n\n',
    'event: content_block_stop\ndata: {"type":"content_block_stop","index":1}\n\n',
    'event: ping\ndata: {"type":"ping"}\n\n',
    'event: content_block_delta\ndata: {"type":]}\n\n',
    'event: message_stop\ndata: {"type":"message_stop"}\n\n',
]


def decoded(reads: Sequence[bytes]) -> tuple[list[Event], bytes, str]:
    decoder = CODEC.stream_decoder()
    chunks = [*map(decoder.feed, reads), decoder.close()]
    events = [event for chunk in chunks if chunk is not None for event in chunk.events]
    raw = b"".join(chunk.raw or b"" for chunk in chunks if chunk is not None)
    return events, raw, repr(decoder.error)


@settings(max_examples=200)
@given(st.lists(st.one_of(st.just(FRAMES[0]), st.sampled_from(FRAMES)), max_size=8))
def test_words_are_read_alike_apart_and_together(frames: list[str]) -> None:
    apart = [START.encode(), *(frame.encode() for frame in frames)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stream, "_DELTA", b"never")
        want = decoded([b"".join(apart)])
    assert decoded([b"".join(apart)]) == want
    assert decoded(apart) == want
