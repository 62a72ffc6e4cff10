"""Words alone, asked and answered: read and written the short way, they come to what the long way makes of them."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.anthropic_messages import compose
from headgate.gateway.codecs.anthropic_messages import response as anthropic_response
from headgate.gateway.codecs.base import AnswerContext, Codec, RequestFacts, UpstreamFacts, peek_words
from headgate.gateway.codecs.openai_chat import request_writer
from headgate.gateway.codecs.openai_chat import response as openai_response
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.fold import plain_answer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from . import test_anthropic_messages_short_ways as messages_ways
from . import test_openai_chat_short_ways as chat_ways
from .short_ways import NULLS, TEXTS, objects

OPENAI: Final = "openai.chat"
ANTHROPIC: Final = "anthropic.messages"
PAIRS: Final = [(OPENAI, ANTHROPIC), (ANTHROPIC, OPENAI)]
LIMITS: Final = st.one_of(st.integers(-1, 9), NULLS, st.just(1.5), st.just("1"))

LINES: Final = {
    OPENAI: objects(
        {"role": st.sampled_from(["user", "assistant", "user", "system", "developer", "tool"]), "content": TEXTS},
        {"name": st.just("n")},
    ),
    ANTHROPIC: objects(
        {"role": st.sampled_from(["user", "assistant", "user", "assistant", "system"]), "content": TEXTS}, {}
    ),
}
MORE: Final[dict[str, dict[str, st.SearchStrategy[Any]]]] = {
    OPENAI: {
        "max_tokens": LIMITS,
        "max_completion_tokens": LIMITS,
        "stream_options": objects({}, {"include_usage": st.booleans()}),
    },
    ANTHROPIC: {"max_tokens": LIMITS, "system": TEXTS},
}
COMMON: Final[dict[str, st.SearchStrategy[Any]]] = {
    "temperature": st.sampled_from([0, 1, 0.5, 1.5, "1", None]),
    "top_p": st.just(0.5),
    "stream": st.sampled_from([True, False, None]),
    "metadata": st.just({"user_id": "u"}),
    "new": st.just(1),
}


def bodies(format: str) -> st.SearchStrategy[Any]:
    said = st.lists(LINES[format], max_size=4) | alternating()
    return objects({"model": st.just("m"), "messages": said}, {**MORE[format], **COMMON})


@st.composite
def alternating(draw: st.DrawFn) -> list[dict[str, str]]:
    count = draw(st.integers(1, 4))
    return [{"role": ("user", "assistant")[number % 2], "content": draw(TEXTS)} for number in range(count)]


FACTS: Final = st.builds(
    UpstreamFacts,
    stream_usage=st.booleans(),
    options=st.sampled_from([{}, {"max_tokens_field": "max_tokens"}, {"anthropic_version": "2026-10-21"}]),
)


def the_long_way(here: Codec, there: Codec, body: bytes, facts: UpstreamFacts) -> object:
    """What a request becomes, or what is wrong with it."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (compose, request_writer):
            patched.setattr(module, "words_of", lambda request: None)
        try:
            return there.encode_request(here.decode_request(body, RequestFacts()), facts)
        except GatewayError as error:
            return error.kind, error.message


@pytest.mark.parametrize(("here", "there"), PAIRS)
@settings(max_examples=300)
@given(data=st.data())
def test_the_short_way_comes_to_the_same(here: str, there: str, data: st.DataObject) -> None:
    body = json.dumps(data.draw(bodies(here)), ensure_ascii=data.draw(st.booleans())).encode()
    compare(here, there, body, data.draw(FACTS))


def compare(here: str, there: str, body: bytes, facts: UpstreamFacts) -> bool:
    """Compare both ways; return whether there is a short one."""
    ours, theirs = registry.codec(here), registry.codec(there)
    peek = peek_words(ours, body)
    if peek is None:
        return False
    words = peek.words
    assert words is not None and ours.wording is not None and theirs.wording is not None
    assert ours.wording.read(body) == words
    plain = ours.peek(body, RequestFacts())
    assert replace(peek, words=None, stream_usage=None) == replace(plain, stream_usage=None)
    assert bool(peek.stream_usage) == bool(plain.stream_usage) or here == ANTHROPIC  # whose streams always tell it
    short = theirs.wording.write(words, facts)
    if short is not None:
        assert short == the_long_way(ours, theirs, body, facts)
    return short is not None


def says(*lines: str) -> list[dict[str, str]]:
    return [dict(zip(("role", "content"), line.split(": "), strict=True)) for line in lines]


COMMON_BODIES: Final[list[tuple[str, str, dict[str, Any]]]] = [
    (ANTHROPIC, OPENAI, {"max_tokens": 5, "system": "s", "messages": says("user: hi")}),
    (
        ANTHROPIC,
        OPENAI,
        {"max_tokens": 5, "stream": True, "temperature": 1, "messages": says("user: a\n\u00e9\U0001f600")},
    ),
    (OPENAI, ANTHROPIC, {"max_tokens": 5, "messages": says("system: s", "user: hi")}),
    (
        OPENAI,
        ANTHROPIC,
        {
            "max_completion_tokens": 5,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": says("user: hi", "assistant: a", "user: b"),
        },
    ),
]


@pytest.mark.parametrize(("here", "there", "body"), COMMON_BODIES)
def test_common_requests_have_a_short_way(here: str, there: str, body: dict[str, Any]) -> None:
    assert compare(here, there, json.dumps({"model": "m", **body}).encode(), UpstreamFacts(stream_usage=True))


@pytest.mark.parametrize("here", [OPENAI, ANTHROPIC])
@settings(max_examples=200)
@given(junk=st.binary(max_size=40), cut=st.integers(0, 60))
@example(junk=b"\xff", cut=45)
def test_what_is_wrong_has_none(here: str, junk: bytes, cut: int) -> None:
    body = b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hello"}]}'
    ours, there = registry.codec(here), ANTHROPIC if here == OPENAI else OPENAI
    broken = body[:cut] + junk + body[cut:]
    if peek_words(ours, broken) is not None:
        compare(here, there, broken, UpstreamFacts())


ANSWERS: Final = {OPENAI: chat_ways.ANSWER, ANTHROPIC: messages_ways.ANSWER}


@pytest.mark.parametrize(("here", "there"), PAIRS)
@settings(max_examples=300)
@given(data=st.data())
def test_an_answer_comes_to_the_same(here: str, there: str, data: st.DataObject) -> None:
    told = data.draw(ANSWERS[there])
    compare_answers(here, there, json.dumps(told, ensure_ascii=data.draw(st.booleans())).encode())


def compare_answers(here: str, there: str, body: bytes) -> bool:
    """Compare both ways of an answer; return whether there is a short one."""
    ours, theirs = registry.codec(here), registry.codec(there)
    context = AnswerContext("req_1", 7, "asked")
    assert ours.wording is not None and theirs.wording is not None
    plain = theirs.wording.read_answer(body)
    if plain is None:
        return False
    with pytest.MonkeyPatch.context() as patched:
        for module in (anthropic_response, openai_response):
            patched.setattr(module, "read_answer", lambda body: None)
        events = theirs.decode_response(body)
        assert plain_answer(events) == plain
        for module in (anthropic_response, openai_response):
            patched.setattr(module, "plain_answer", lambda events: None)
        long = ours.encode_response(events, context)
    short = ours.wording.write_answer(plain, context)
    if short is not None:
        assert short == long
    return short is not None


COMMON_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    OPENAI: {
        "id": "c",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi\n"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    },
    ANTHROPIC: {
        "id": "i",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "hi\n"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "cache_read_input_tokens": 4, "output_tokens": 2, "service_tier": "standard"},
    },
}


@pytest.mark.parametrize(("here", "there"), PAIRS)
def test_common_answers_have_a_short_way(here: str, there: str) -> None:
    assert compare_answers(here, there, json.dumps(COMMON_ANSWERS[there]).encode())


@pytest.mark.parametrize(("here", "there"), PAIRS)
@settings(max_examples=100)
@given(junk=st.binary(max_size=40), cut=st.integers(0, 300))
def test_what_is_wrong_with_an_answer_has_none(here: str, there: str, junk: bytes, cut: int) -> None:
    body = json.dumps(COMMON_ANSWERS[there]).encode()
    compare_answers(here, there, body[:cut] + junk + body[cut:])
