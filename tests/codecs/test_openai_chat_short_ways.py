"""The short ways of Chat Completions and the long ones: whatever both can do they do alike, and the common inputs are short.

A short way that refuses too much is only slow; so each test also counts what must not be refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from headgate.gateway.codecs.anthropic_messages import CODEC as OTHER
from headgate.gateway.codecs.base import AnswerContext, RequestFacts, UpstreamFacts
from headgate.gateway.codecs.openai_chat import (
    CODEC,
    request_reader,
    request_writer,
    response,
    typed_answer,
    typed_request,
)
from headgate.gateway.codecs.openai_chat.answer_reader import AnswerReader
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import ChoiceStop, Event, PartDelta, ResponseStart, ResponseStop, Terminator, UsageReport
from headgate.gateway.ir.event import Usage as Counts
from headgate.gateway.ir.fold import unfold_parts
from headgate.gateway.ir.message import CacheMark, Message, Request, Text
from headgate.gateway.ir.words import words_of
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from .short_ways import NULLS, TEXTS, objects, told

encode = msgspec.json.encode


CACHE = objects({"type": st.sampled_from(["ephemeral", "ephemeral", "other"])}, {"ttl": st.just("1h")})
TEXT_PART = objects({"type": st.just("text"), "text": TEXTS}, {"cache_control": CACHE})
IMAGE_PART = objects(
    {
        "type": st.just("image_url"),
        "image_url": objects(
            {"url": st.sampled_from(["https://a.example/i.png", "data:image/png;base64,AAAA", "data:,x"])},
            {"detail": st.just("low")},
        ),
    },
    {},
)
OTHER_PART = st.sampled_from([{"type": "refusal", "refusal": "no"}, {"type": "file", "file": {"file_id": "f"}}])
CONTENT = st.one_of(TEXTS, TEXTS, st.lists(st.one_of(TEXT_PART, TEXT_PART, IMAGE_PART, OTHER_PART), max_size=3))
CALL = objects(
    {"id": st.just("c1"), "function": objects({"name": st.just("f")}, {"arguments": st.sampled_from(["{}", "{", ""])})},
    {"type": st.sampled_from(["function", "custom"])},
)
SPEAKER = objects(
    {"role": st.sampled_from(["system", "developer", "user", "critic"]), "content": CONTENT}, {"name": st.just("n")}
)
ASSISTANT = objects(
    {"role": st.just("assistant")},
    {
        "content": CONTENT,
        "tool_calls": st.lists(CALL, max_size=2),
        "reasoning_content": TEXTS,
        "name": st.just("n"),
        "refusal": st.just("no"),
    },
)
RESULT = objects(
    {"role": st.sampled_from(["tool", "tool", "function"]), "content": CONTENT},
    {"tool_call_id": st.just("c1"), "name": st.just("f")},
)
FUNCTION = objects(
    {"name": st.just("f")},
    {"description": st.just("d"), "parameters": st.sampled_from([{"type": "object"}, []]), "strict": st.booleans()},
)
BODY = objects(
    {"model": st.just("m"), "messages": st.lists(st.one_of(SPEAKER, ASSISTANT, RESULT), max_size=4)},
    {
        "max_tokens": st.integers(0, 9),
        "max_completion_tokens": st.integers(0, 9),
        "temperature": st.sampled_from([0, 1, 0.5, "1"]),
        "top_p": st.just(0.5),
        "stream": st.booleans(),
        "stream_options": objects({}, {"include_usage": st.booleans()}),
        "stop": st.sampled_from(["a", [], ["a"], ["a", "b"]]),
        "tools": st.lists(objects({"type": st.sampled_from(["function", "x"]), "function": FUNCTION}, {}), max_size=2),
        "tool_choice": st.sampled_from(["auto", "any", "none", {"type": "function", "function": {"name": "f"}}]),
        "parallel_tool_calls": st.booleans(),
        "response_format": st.sampled_from(
            [
                {"type": "text"},
                {"type": "json_object", "json_schema": None},
                {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1.0}, "strict": True}},
                {"type": "json_schema", "json_schema": {"name": "n", "schema": None}},
                {"type": "json_schema"},
            ]
        ),
        "reasoning_effort": st.sampled_from(["none", "low"]),
        "user": st.just("u"),
        "seed": st.just(1),
    },
)


def long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch every short way off."""
    monkeypatch.setattr(typed_request, "read_request", lambda body: None)
    monkeypatch.setattr(typed_request, "read_message", lambda raw: None)
    monkeypatch.setattr(request_writer, "words_of", lambda request: None)
    monkeypatch.setattr(response, "read_answer", lambda body: None)
    monkeypatch.setattr(response, "plain_answer", lambda events: None)


def read(body: bytes) -> object:
    """What a request says, or what is wrong with it."""
    try:
        return told(request_reader.decode_request(body))
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
        b'{"messages":[{"content":[{"text":"a","type":"text"}],"role":"user"}],"model":"m","stream":true,'
        b'"stream_options":{"include_usage":true},"stop":["x"],"reasoning_effort":"low","tool_choice":"auto"}',
        b'{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":'
        b'{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"x"}],"tools":[{"type":"function",'
        b'"function":{"name":"f","description":"d","parameters":{"type":"object"}}}]}',
    ],
)
def test_a_common_request_is_read_the_short_way(body: bytes) -> None:
    assert typed_request.read_request(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","role":"tool","content":"hi"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"hi","content":null}]}',
        b'{"model":"m","messages":[{"content":"hi"}]}',
        b'{"model":"m","messages":[{"role":"user","content":[{"text":"hi"}]}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"m","messages":[]} x',
        b'{"model":"m","messages":' + b"[" * 5000,
    ],
)
def test_what_is_odd_is_left_to_the_long_way(body: bytes) -> None:
    assert typed_request.read_request(body) is None


USAGE = objects(
    {"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9)},
    {
        "total_tokens": st.just(9),
        "prompt_tokens_details": objects({}, {"cached_tokens": st.integers(0, 3), "audio_tokens": st.just(0)}),
        "completion_tokens_details": objects({}, {"reasoning_tokens": st.integers(0, 3)}),
        "cached_tokens": st.integers(0, 3),
        "note": st.sampled_from(["a", "\\", 'q"']),
    },
)
ANSWER = objects(
    {
        "choices": st.lists(
            objects(
                {
                    "message": objects(
                        {"role": st.just("assistant"), "content": TEXTS},
                        {
                            "refusal": st.just("no"),
                            "annotations": st.sampled_from([[], [], [{"type": "x"}], [None]]),
                            "reasoning_content": TEXTS,
                            "tool_calls": st.lists(CALL, max_size=3),
                            "function_call": NULLS,
                            "audio": NULLS,
                        },
                    ),
                    "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "eos", "", "error"]),
                },
                {"index": st.sampled_from([0, 0, 0, 1]), "logprobs": NULLS},
            ),
            min_size=1,
            max_size=2,
        ).map(lambda choices: choices[:1] if len(choices) > 1 and choices[0] == choices[1] else choices)
    },
    {
        "id": st.just("c"),
        "object": st.sampled_from(["chat.completion", "chat.completion", "error"]),
        "created": st.sampled_from([5, 5.0, 5.5]),
        "model": st.just("m"),
        "usage": USAGE,
        "service_tier": st.just("default"),
        "system_fingerprint": st.sampled_from(["fp", '"']),
        "error": st.just({"message": "broken"}),
    },
)


@settings(max_examples=100)
@given(ANSWER)
def test_an_answer_is_read_alike(value: dict[str, Any]) -> None:
    body = encode(value)
    short = typed_answer.read_answer(body)
    try:
        want = AnswerReader().whole(body)
    except GatewayError:
        assert short is None
    else:
        assert short is None or told(short) == told(want)


@pytest.mark.parametrize("name", ["text", "tools"])
def test_a_common_answer_is_read_the_short_way(name: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "hi" if name == "text" else None, "refusal": None, "annotations": []}
    if name == "tools":
        message["tool_calls"] = [call, {**call, "id": "d"}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    envelope = {"id": "c", "object": "chat.completion", "created": 5, "model": "m", "service_tier": "default"}
    body = {**envelope, "system_fingerprint": None, "choices": [choice], "usage": usage}
    assert typed_answer.read_answer(encode(body)) == AnswerReader().whole(encode(body))


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
    st.sampled_from(["anthropic.messages", "anthropic.messages", "openai.chat"]),
    st.just("m"),
    MESSAGES.map(tuple),
    max_output_tokens=st.sampled_from([None, 5]),
    temperature=st.sampled_from([None, 0.5]),
    top_p=st.sampled_from([None, 0.5]),
    top_k=st.sampled_from([None, None, None, 3]),
    stop=st.sampled_from([(), (), (), ("a",)]),
    stream=st.booleans(),
    stream_usage=st.sampled_from([None, True, False]),
    extra=st.sampled_from([{}, {"stream": Raw(b"false")}, {"x": Raw(b"1")}]),
)
FACTS = st.builds(
    UpstreamFacts,
    stream_usage=st.booleans(),
    options=st.sampled_from(
        [
            {},
            {"max_tokens_field": "max_tokens"},
            {"string_content": True},
            {"drop_nulls": True},
            {"developer_role": "system"},
        ]
    ),
)


@settings(max_examples=100)
@given(REQUESTS, FACTS)
def test_a_request_is_written_alike(request: Request, facts: UpstreamFacts) -> None:
    with pytest.MonkeyPatch.context() as patched:
        long_way(patched)
        patched.setattr("headgate.gateway.codecs.openai_chat.message_writer.plain_text", lambda message: None)
        want = request_writer.encode_request(request, facts)
    assert request_writer.encode_request(request, facts) == want


def test_a_common_request_is_written_the_short_way() -> None:
    body = b'{"model":"m","max_tokens":5,"stream":false,"system":"s","messages":[{"role":"user","content":"hi"}]}'
    words = words_of(OTHER.decode_request(body, RequestFacts()))
    assert words is not None
    assert CODEC.wording.write(words, UpstreamFacts()) is not None


def answers(format: str) -> list[Sequence[Event]]:
    start = ResponseStart("i", "m", 5, extra={"system_fingerprint": Raw(b'"f"')}, format=format)
    bare = ResponseStart(format=format, service_tier="t")
    usage = UsageReport(Counts(3, 2, 1, None, 4))
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
    return out


@pytest.mark.parametrize("format", ["openai.chat", "anthropic.messages"])
def test_an_answer_is_written_alike(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    context = AnswerContext("r", 7, "asked")
    short = [response.encode_response(events, context) for events in answers(format)]
    long_way(monkeypatch)
    assert short == [response.encode_response(events, context) for events in answers(format)]


HEAD = '{"id":"c","object":"chat.completion.chunk","created":5,"model":"m",'


def data(rest: str) -> str:
    return f"data: {HEAD}{rest}\n\n"


FRAMES = [
    data('"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'),
    data('"choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]}'),
    data('"choices":[{"delta":{"content":"b","refusal":null},"index":0}],"obfuscation":"x"}'),
    data('"system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":"c"}}]}'),
    data('"choices":[{"index":1,"delta":{"content":"d"}}]}'),
    data('"choices":[{"index":0,"delta":{"reasoning":"e","content":null}}]}'),
    data('"choices":[{"index":0,"delta":{"content":"f"},"finish_reason":"stop"}]}'),
    data('"choices":[{"index":0,"delta":{"content":"g"}}],"x_own":1}'),
    data('\ndata: "choices":[{"index":0,"delta":{"content":"h"}}]}'),
    data('\n"choices":[{"index":0,"delta":{"content":"i"}}]}'),
    data('\r"choices":[{"index":0,"delta":{"content":"j"}}]}'),
    "data: " + HEAD + '"choices":[{"index":0,"delta":{"content":"k"}}]}\r\n\r\n',
    "data:" + HEAD + '"choices":[{"index":0,"delta":{"content":"l"}}]}\n\n',
    data('"choices":[]}'),
    "event: x\ndata: " + HEAD + '"choices":[{"index":0,"delta":{"content":"m"}}]}\n\n',
    data('"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}'),
    ": ping\n\n",
    "data: {}\n\n",
    "data: {]}\n\n",
    "data: [DONE]\n\n",
]


USAGE_FRAMES = [
    data('"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'),
    data(
        '"choices":[],"usage":{"prompt_tokens":3,"completion_tokens_details":{"reasoning_tokens":2}},"obfuscation":"x"}'
    ),
    data('"system_fingerprint":"new","service_tier":"flex","choices":[],"usage":{"prompt_tokens":3}}'),
    data('"choices":[],"usage":null}'),
    data('"choices":[],"usage":{}}'),
    data('"choices":[],"usage":[]}'),
    data('"choices":[],"usage":{"note":"\u00e9"}}'),
    data('"choices":[],"usage":{"note":"\\ud800"}}'),
    data('"choices":[null],"usage":{"prompt_tokens":3}}'),
    data('"choices":[],"usage":{"prompt_tokens":3},"x_own":1}'),
    data('"choices":[],"usage":{"prompt_tokens":3},"error":{"message":"broken"}}'),
]


def decoded(reads: Sequence[bytes], hide_usage: bool = False) -> tuple[list[Event], bytes, str]:
    decoder = CODEC.stream_decoder(hide_usage=hide_usage)
    chunks = [*map(decoder.feed, reads), decoder.close()]
    events = [event for chunk in chunks if chunk is not None for event in chunk.events]
    raw = b"".join(chunk.raw or b"" for chunk in chunks if chunk is not None)
    return events, raw, repr(decoder.error)


@settings(max_examples=200)
@given(st.lists(st.one_of(st.sampled_from(FRAMES[:3]), st.sampled_from(FRAMES)), max_size=8))
def test_words_are_read_alike_apart_and_together(frames: list[str]) -> None:
    apart = [FRAMES[0].encode(), *(frame.encode() for frame in frames)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AnswerReader, "words", lambda self, data: None)
        want = decoded([b"".join(apart)])
    assert decoded([b"".join(apart)]) == want
    assert decoded(apart) == want
    assert decoded([apart[0], b"".join(apart[1:])]) == want


@settings(max_examples=200)
@given(st.lists(st.sampled_from([*USAGE_FRAMES, *FRAMES]), max_size=6), st.booleans())
def test_usage_is_read_alike(frames: list[str], hide_usage: bool) -> None:
    read = ["".join(frames).encode("utf-8", "surrogatepass")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AnswerReader, "_usage", lambda self, data, out: False)
        want = decoded(read, hide_usage)
    assert decoded(read, hide_usage) == want


def test_usage_is_read_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerReader, "_generic", None)
    for frame in USAGE_FRAMES[:3]:
        events, _, error = decoded([(FRAMES[0] + FRAMES[6] + frame + FRAMES[-1]).encode()])
        assert any(isinstance(event, UsageReport) for event in events)
        assert error == "None"


def test_words_are_read_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed((FRAMES[0] + FRAMES[1]).encode())
    monkeypatch.setattr(AnswerReader, "frame", None)
    for read in (FRAMES[1], FRAMES[2] * 3):
        chunk = decoder.feed(read.encode())
        assert chunk is not None
        assert chunk.raw == read.encode()
