"""Official SDKs before a gateway with a cache: the second answer comes from it, however it was asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import Use, script
from ..server.house import House, begin, serving, until

RULES = """
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
stores: {{disk: {{kind: sqlite, path: kept.db}}}}
chains: {{all: [{{auth: {{keys: [{{name: test, key: env:TEST_CALLER_KEY}}]}}}}, log, {{cache: {{store: {store}}}}}]}}
routes:
  - {{name: claude, match: {{model: "claude-*"}}, chain: all, to: anthropic}}
  - {{name: gpt, chain: all, to: openai}}
"""
MODELS = ["gpt-5.4", "claude-fake-4-5"]
Clients = tuple[openai.AsyncOpenAI, anthropic.AsyncAnthropic]


@pytest.fixture(params=["default", "disk"])
async def house(request: pytest.FixtureRequest, provider: FakeProvider, tmp_path: Path) -> AsyncIterator[House]:
    rules = RULES.format(base=provider.base, store=request.param)
    if request.param == "default":
        rules = rules.replace("stores: {disk: {kind: sqlite, path: kept.db}}\n", "")
    async with serving(tmp_path, rules) as house:
        yield house
        await until(lambda: house.gateway.in_flight == 0)


@pytest.fixture
async def clients(house: House, tls: ssl.SSLContext) -> AsyncIterator[Clients]:
    more: dict[str, Any] = {"api_key": CALLER_KEY, "max_retries": 0, "timeout": 10}
    async with (
        openai.AsyncOpenAI(
            base_url=house.base + "/v1", http_client=openai.DefaultAsyncHttpxClient(verify=tls), **more
        ) as chat,
        anthropic.AsyncAnthropic(
            base_url=house.base, http_client=anthropic.DefaultAsyncHttpxClient(verify=tls), **more
        ) as claude,
    ):
        yield chat, claude


async def ask(clients: Clients, caller: str, model: str, stream: bool) -> tuple[str, str, str]:
    """Return the text, the tool's arguments, and what the gateway says of its cache."""
    chat, claude = clients
    messages: Any = [{"role": "user", "content": "Hello"}]
    schema = {"type": "object", "properties": {"at": {"type": "string"}}}
    if caller == "openai":
        tools: Any = [{"type": "function", "function": {"name": "look", "parameters": schema}}]
        if stream:
            async with chat.chat.completions.stream(
                model=model, messages=messages, tools=tools, stream_options={"include_usage": True}
            ) as told:
                answer: Any = await told.get_final_completion()
                said = told._response.headers["headgate-cache"]
        else:
            raw = await chat.chat.completions.with_raw_response.create(model=model, messages=messages, tools=tools)
            answer, said = raw.parse(), raw.headers["headgate-cache"]
        assert answer.usage.prompt_tokens == 10
        message = answer.choices[0].message
        return message.content, message.tool_calls[0].function.arguments, said
    tools = [{"name": "look", "input_schema": schema}]
    if stream:
        async with claude.messages.stream(model=model, messages=messages, tools=tools, max_tokens=99) as heard:
            final: Any = await heard.get_final_message()
            said = heard.response.headers["headgate-cache"]
    else:
        raw_message = await claude.messages.with_raw_response.create(
            model=model, messages=messages, tools=tools, max_tokens=99
        )
        final, said = await raw_message.parse(), raw_message.headers["headgate-cache"]
    assert final.usage.input_tokens == 10
    return final.content[0].text, str(final.content[1].input["at"]), said


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("caller", ["openai", "anthropic"])
@pytest.mark.parametrize("first", [False, True], ids=["whole first", "stream first"])
async def test_the_second_time(provider: FakeProvider, clients: Clients, caller: str, model: str, first: bool) -> None:
    provider.answer(script("Hello there, you.", Use("look", '{"at": "home"}')))
    one = await ask(clients, caller, model, first)
    assert one[2] == "miss"
    for stream in (first, not first):
        assert await ask(clients, caller, model, stream) == (*one[:2], "hit")
    assert len(provider.requests) == 1


@pytest.mark.parametrize("caller", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_many_at_once(provider: FakeProvider, clients: Clients, caller: str, stream: bool) -> None:
    number = 100 if caller == "openai" else 10
    provider.answer(script("Hello there, you.", Use("look", '{"at": "home"}'), wait_s=0.2, pause_s=0.01))
    answers = await asyncio.gather(*(ask(clients, caller, MODELS[0], stream) for _ in range(number)))
    assert len({answer[:2] for answer in answers}) == 1
    assert sorted(answer[2] for answer in answers) == ["hit"] * (number - 1) + ["miss"]
    assert len(provider.requests) == 1


@pytest.mark.parametrize(("caller", "stream"), [("openai", False), ("anthropic", True)])
async def test_callers_that_leave(provider: FakeProvider, clients: Clients, caller: str, stream: bool) -> None:
    """The first two leave before anything came: it is asked for once more, and the rest have their answer."""
    answer = script("Hello there, you.", Use("look", '{"at": "home"}'), wait_s=1.0)
    provider.answer(script("x", stall_before=True), answer)
    tasks = []
    for _ in range(5):
        tasks.append(begin(ask(clients, caller, MODELS[0], stream)))
        await (await provider.received(1)).answering.wait()
    await asyncio.sleep(0.1)
    for task in tasks[:2]:
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: len(provider.requests) == 2)
    assert provider.requests[0].outcome == "aborted"
    answers = await asyncio.gather(*tasks[2:])
    assert {answer[:2] for answer in answers} == {("Hello there, you.", answers[0][1])}
    assert {answer[2] for answer in answers} == {"hit"}
    assert len(provider.requests) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_all_leave(provider: FakeProvider, clients: Clients, stream: bool) -> None:
    provider.answer(script("x", stall_before=True), script("x", stall_before=True))
    tasks = [begin(ask(clients, "openai", MODELS[0], stream)) for _ in range(3)]
    await (await provider.received(1)).answering.wait()
    await asyncio.sleep(0.1)
    for number in range(2):
        await (await provider.received(number + 1)).answering.wait()
        tasks[number].cancel()
        await asyncio.wait([tasks[number]])
    await until(lambda: len(provider.requests) == 2)
    await asyncio.sleep(0.1)
    tasks[2].cancel()
    async with asyncio.timeout(2):
        await provider.requests[1].over.wait()
    assert [request.outcome for request in provider.requests] == ["aborted"] * 2
