"""Providers that never stream, and providers that do nothing else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import Tokens, Use, script
from ..server.house import CHAT, House, begin, serving, until

ASK: list[Any] = [{"role": "user", "content": "Say something."}]


async def test_a_whole_answer_is_told_as_a_stream(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(script("Hello", Use("look", '{"a":  1}', id="call_1"), tokens=Tokens(3, output=4)))
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with chat.chat.completions.stream(
        model="tells", messages=ASK, tools=[tool], stream_options={"include_usage": True}
    ) as events:
        completion: Any = await events.get_final_completion()
    message = completion.choices[0].message
    assert (message.content, message.tool_calls[0].function.arguments) == ("Hello", '{"a":  1}')
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 4)
    sent = provider.last.json
    assert not sent.get("stream") and "stream_options" not in sent


async def test_a_stream_is_gathered_into_a_whole_answer(provider: FakeProvider, house: House) -> None:
    provider.answer(script("Hello", tokens=Tokens(3, output=4)))
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, json={"model": "gathers", "messages": ASK})
    answer = response.json()
    assert response.headers["content-type"].startswith("application/json")
    assert answer["object"] == "chat.completion" and answer["choices"][0]["message"]["content"] == "Hello"
    assert answer["usage"]["completion_tokens"] == 4
    assert provider.last.json["stream"] is True and provider.last.json["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("model", ["tells", "gathers"])
async def test_another_format(provider: FakeProvider, claude: anthropic.AsyncAnthropic, model: str) -> None:
    provider.answer(script("Hello"), script("Hello"))
    asked: dict[str, Any] = {"model": model, "max_tokens": 100, "messages": ASK}
    async with claude.messages.stream(**asked) as events:
        streamed: Any = await events.get_final_message()
    whole: Any = await claude.messages.create(**asked)
    assert streamed.content[0].text == whole.content[0].text == "Hello"
    assert streamed.stop_reason == whole.stop_reason == "end_turn"
    assert {received.json.get("stream", False) for received in provider.requests} == {model == "gathers"}


@pytest.mark.parametrize(("model", "stream"), [("tells", False), ("gathers", True)])
async def test_what_the_provider_can_do_passes_as_it_came(
    provider: FakeProvider, house: House, model: str, stream: bool
) -> None:
    sent = json.dumps({"model": model, "messages": ASK, "stream": stream}, indent=1).encode()
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, content=sent, headers={"content-type": "application/json"})
    assert provider.last.raw == sent and response.content == provider.last.body


async def test_a_gathered_stream_that_breaks_off_is_an_error(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(script("Hello there", cut_after=2, cut="eof"))
    with pytest.raises(openai.InternalServerError):
        await chat.chat.completions.create(model="gathers", messages=ASK)


async def test_a_client_that_leaves_a_gathered_stream(provider: FakeProvider, house: House) -> None:
    provider.answer(script("Hello there", stall_after=2))
    async with httpx.AsyncClient() as client:
        asking = begin(client.post(house.base + CHAT, json={"model": "gathers", "messages": ASK}))
        await (await provider.received(1)).answering.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await until(lambda: provider.last.outcome == "aborted")


async def test_keep_alives_meanwhile(provider: FakeProvider, tmp_path: Path) -> None:
    """Whoever waits for a stream hears that there is somebody, while the provider makes up its whole answer."""
    rules = f"""
        server: {{anonymous: allow, keep_alive: 50ms}}
        upstreams:
          tells: {{adapter: openai, base_url: "{provider.base}/v1", key: env:TEST_PROVIDER_KEY, emulate: {{stream: tell}}}}
        routes: [{{name: all, to: tells}}]
    """
    provider.answer(script("Hello", wait_s=1.0))
    async with serving(tmp_path, rules) as house, httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, json={"model": "m", "messages": ASK, "stream": True})
        assert response.text.startswith(":") and response.text.endswith("data: [DONE]\n\n")
        assert "Hello" in response.text
        await house.idle()
