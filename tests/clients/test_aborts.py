"""Clients that leave: the provider's connection is closed within a second, streamed or not, before and in an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from ..fakes.gateway import CALLER_KEY, Served
from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Script, script
from .talk import CALLERS, MODELS, OPENAI, Talk, start

Begin = Callable[..., Talk]
pytestmark = [
    pytest.mark.parametrize("prefix", ["", "x-"], ids=["plain", "watched"]),
    pytest.mark.parametrize("to", MODELS),
    pytest.mark.parametrize("caller", CALLERS),
]
WITHIN_S = 1.0


async def _closed_upstream(provider: FakeProvider, served: Served) -> None:
    """Wait until the provider saw the abort; fail if it took longer than the law allows."""
    left_at = time.monotonic()
    async with asyncio.timeout(5):
        await provider.last.over.wait()
    took = time.monotonic() - left_at
    assert provider.last.outcome == "aborted"
    assert took < WITHIN_S + 0.2
    async with asyncio.timeout(2):
        while served.gateway.in_flight:
            await asyncio.sleep(0.01)


async def _leave(conversation: Talk, provider: FakeProvider) -> None:
    """Send the conversation, and hang up once the provider is at work."""
    task = start(conversation.hear())
    received = await provider.received(1)
    await asyncio.wait_for(received.answering.wait(), 5)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


BEFORE: list[tuple[bool, Script]] = [
    (False, script("x", stall_before=True)),
    (True, script("x", stall_before=True)),
    (False, script("x", stall_after=1)),
    (True, script("x", stall_after=0)),
]


@pytest.mark.parametrize(
    ("stream", "play"),
    BEFORE,
    ids=["whole, no headers", "stream, no headers", "whole, half a body", "stream, no frame"],
)
async def test_before_the_first_byte(
    provider: FakeProvider, served: Served, talk: Begin, caller: str, to: str, prefix: str, stream: bool, play: Script
) -> None:
    provider.answer(play)
    conversation = talk(caller, prefix + MODELS[to], stream=stream)
    conversation.say("Hi.")
    await _leave(conversation, provider)
    await _closed_upstream(provider, served)
    assert len(provider.requests) == 1, "tried again for a client that had left"


async def _first_words(conversation: Any, caller: str) -> Any:
    """Return a stream of which the first words were read."""
    if caller == OPENAI:
        stream = await conversation.client.chat.completions.create(
            model=conversation.model, messages=conversation.messages, stream=True
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                return stream
    stream = await conversation.client.messages.create(
        model=conversation.model, messages=conversation.messages, stream=True, max_tokens=100
    )
    async for event in stream:
        if event.type == "content_block_delta":
            return stream
    raise AssertionError("no words came")


@pytest.mark.parametrize("talks_on", [False, True], ids=["silent", "talking"])
async def test_in_the_middle_of_a_stream(
    provider: FakeProvider, served: Served, talk: Begin, caller: str, to: str, prefix: str, talks_on: bool
) -> None:
    words = "word " * 2000
    if talks_on:
        provider.answer(script(words, piece=256, pause_s=0.002))
    else:
        provider.answer(script("One two three", stall_after=4))
    conversation = talk(caller, prefix + MODELS[to], stream=True)
    conversation.say("Hi.")
    stream = await _first_words(conversation, caller)
    await stream.close()
    await _closed_upstream(provider, served)


async def test_a_reader_that_stopped_reading(
    provider: FakeProvider, served: Served, caller: str, to: str, prefix: str
) -> None:
    """The provider is paused on its behalf when it leaves: nobody writes, and it must be noticed all the same."""
    provider.answer(script(Say("x" * (16 << 20), pieces=2048)))
    body: dict[str, Any] = {
        "model": prefix + MODELS[to],
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }
    path = "/v1/chat/completions"
    if caller != OPENAI:
        body["max_tokens"] = 99
        path = "/v1/messages"
    headers = {"Authorization": f"Bearer {CALLER_KEY}"}
    async with aiohttp.ClientSession(read_bufsize=2**14) as session:
        response = await session.post(served.base + path, json=body, headers=headers)
        await response.content.readany()
        sent = -1
        while sent != len(provider.last.sent):  # until the provider stands still
            sent = len(provider.last.sent)
            await asyncio.sleep(0.1)
        response.close()
        await _closed_upstream(provider, served)
