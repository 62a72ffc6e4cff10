"""Providers that do what they should not, and that a gateway must serve all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from ..fakes import anthropic_api, openai_api
from ..fakes.gateway import CALLER_KEY, Served
from ..fakes.provider import FakeProvider
from ..fakes.script import Script, Use, script
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, Talk

Begin = Callable[..., Talk]
PATHS = {OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}
HEADERS = {"Authorization": f"Bearer {CALLER_KEY}", "anthropic-version": "2023-06-01"}
SDK: dict[str, Any] = {OPENAI: openai, ANTHROPIC: anthropic}
from_each = pytest.mark.parametrize("caller", CALLERS)
to_each = pytest.mark.parametrize("to", MODELS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
standalone_only = pytest.mark.parametrize("served", ["standalone"], indirect=True)


def frames_of(provider: FakeProvider, to: str, play: Script) -> list[bytes]:
    """The stream that the provider would send."""
    if to == OPENAI:
        return openai_api.frames(play, 1, "m", include_usage=True)
    return anthropic_api.frames(play, 1, "m", provider.issued)


def _say(talk: Begin, caller: str, model: str, stream: bool) -> Talk:
    conversation = talk(caller, model, stream=stream)
    conversation.tools("look")
    conversation.say("Hi.")
    return conversation


@standalone_only
@to_each
@from_each
async def test_a_stream_where_none_was_asked_for(provider: FakeProvider, talk: Begin, caller: str, to: str) -> None:
    wire = b"".join(frames_of(provider, to, script("One two three", Use("look", '{"at": "x"}'))))
    provider.answer(script(wire=wire, content_type="text/event-stream"))
    heard = await _say(talk, caller, MODELS[to], False).hear()
    assert heard.text == "One two three"
    assert len(heard.calls) == 1


@standalone_only
@to_each
@from_each
@pytest.mark.parametrize("prefix", ["", "x-"], ids=["plain", "watched"])
async def test_an_end_mark_without_an_end(
    served: Served, provider: FakeProvider, talk: Begin, caller: str, to: str, prefix: str
) -> None:
    """The format's end mark came, the HTTP body never ends: the answer is complete, nobody waits for more."""
    provider.answer(script("One two three", stall_after_last=True))
    async with asyncio.timeout(3):
        heard = await _say(talk, caller, prefix + MODELS[to], True).hear()
    assert heard.text == "One two three"
    await asyncio.wait_for(provider.last.over.wait(), 3)


@standalone_only
@to_each
@from_each
async def test_a_connection_that_breaks_after_the_end_mark(
    provider: FakeProvider, talk: Begin, caller: str, to: str
) -> None:
    play = script("One two three")
    count = len(frames_of(provider, to, play))
    provider.answer(script("One two three", cut_after=count), script("One two three", cut_after=count, cut="reset"))
    for _ in range(2):
        assert (await _say(talk, caller, MODELS[to], True).hear()).text == "One two three"


@standalone_only
@to_each
@from_each
@pytest.mark.parametrize("how", ["cut", "error event", "end without the end mark"])
async def test_failures_before_the_first_word_are_tried_again(
    provider: FakeProvider, talk: Begin, caller: str, to: str, how: str
) -> None:
    first = {
        "cut": script("x", cut_after=1),
        "error event": script("x", error_after=1),
        "end without the end mark": script("x", cut_after=1, cut="eof"),
    }[how]
    provider.answer(first, script("At last."))
    heard = await _say(talk, caller, "x-" + MODELS[to], True).hear()
    assert heard.text == "At last."


@standalone_only
@to_each
@from_each
@both
async def test_idle_connections_that_the_provider_closed(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool
) -> None:
    conversation = _say(talk, caller, MODELS[to], stream)
    for _ in range(3):
        assert (await conversation.hear()).text == "Hello!"
        conversation.say("More.")
        assert provider.connections == 1
        provider.hang_up()
        await asyncio.sleep(0.03)


@standalone_only
@to_each
@from_each
async def test_connections_are_used_again(provider: FakeProvider, talk: Begin, caller: str, to: str) -> None:
    for number in range(6):
        assert (await _say(talk, caller, MODELS[to], number % 2 == 0).hear()).text == "Hello!"
    assert provider.connections == 1


@standalone_only
@from_each
@to_each
@pytest.mark.parametrize("prefix", ["", "x-"], ids=["plain", "watched"])
@both
async def test_letters_split_into_surrogates(
    served: Served, provider: FakeProvider, caller: str, to: str, prefix: str, stream: bool
) -> None:
    """Servers in some languages cut a text between the halves of a letter, and spell each half by itself."""
    if stream:
        frames = frames_of(provider, to, script("ab"))
        index = next(number for number, frame in enumerate(frames) if b'"a"' in frame)
        halves = [frames[index].replace(b'"a"', half) for half in (rb'"<\ud83d"', rb'"\udc4b>"')]
        wire = b"".join(frames[:index] + halves + frames[index + 1 :])
    else:
        play = script("ab")
        whole = openai_api.whole(play, 1, "m") if to == OPENAI else anthropic_api.whole(play, 1, "m", provider.issued)
        wire = whole.replace(b'"ab"', rb'"<\udc4b>b"')
    provider.answer(script(wire=wire))
    body = {"model": prefix + MODELS[to], "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    body |= {"max_tokens": 9} if caller == ANTHROPIC else {"stream_options": {"include_usage": True}} if stream else {}
    async with aiohttp.ClientSession() as http:
        response = await http.post(served.base + PATHS[caller], json=body, headers=HEADERS)
        answer = await response.read()
    if caller == to:
        assert answer == wire
    else:
        assert response.status == 200
        assert "<�".encode() in answer
        assert b"error" not in answer


@from_each
async def test_a_body_far_above_the_limit_is_told_so(
    served: Served, provider: FakeProvider, talk: Begin, caller: str
) -> None:
    conversation: Any = talk(caller, MODELS[caller], stream=False)
    conversation.say("x" * (20 << 20))
    with pytest.raises(SDK[caller].APIStatusError) as caught:
        await conversation.hear()
    assert caught.value.status_code == 413


@standalone_only
async def test_keys_in_the_query_stay_here(served: Served, provider: FakeProvider) -> None:
    body = {"model": MODELS[OPENAI], "messages": [{"role": "user", "content": "hi"}]}
    async with aiohttp.ClientSession() as http:
        url = served.base + "/v1/chat/completions?api-version=1&key=sk-query&x=a%20b%26c"
        response = await http.post(url, json=body, headers=HEADERS)
        assert response.status == 200
    assert provider.last.query == {"api-version": "1", "x": "a b&c"}
