"""Upstreams with a text profile, seen by the official SDKs over real sockets: whole, streamed, and torn anywhere."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from ..fakes.gateway import CALLER_KEY, ENVIRONMENT
from ..fakes.provider import FakeProvider
from ..fakes.script import Say, script
from ..server.house import House, serving

RULES = """
server: {{anonymous: allow}}
upstreams:
  think: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, text: {{think: auto, tools: hermes}}}}
  gpt-oss: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, text: {{tools: harmony}}}}
  few-stops: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, text: {{stop: 1}}}}
  plain: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
routes:
  - {{name: think, match: {{model: think}}, to: think}}
  - {{name: gpt-oss, match: {{model: gpt-oss}}, to: gpt-oss}}
  - {{name: few-stops, match: {{model: few-stops}}, to: few-stops}}
  - {{name: rest, to: plain}}
"""
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
ANSWER = '<think>\nHm.\n</think>\n\nLet me.\n<tool_call>\n{"name": "f", "arguments": {"a":  1}}\n</tool_call>'
ASK: list[Any] = [{"role": "user", "content": "Hi"}]
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No failure here is one of the gateway's own."""
    caplog.set_level(logging.INFO, "headgate")
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake
        assert fake.unanswered == 0 and fake.refusals == []


@pytest.fixture
async def house(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[House]:
    async with serving(tmp_path, RULES.format(base=provider.base)) as made:
        yield made
        await made.idle()


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    """Building one is most of what a client costs."""
    return ssl.create_default_context()


@pytest.fixture
async def chat(house: House, tls: ssl.SSLContext) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    async with openai.AsyncOpenAI(
        api_key=CALLER_KEY, base_url=house.base + "/v1", max_retries=0, http_client=http
    ) as made:
        yield made


@pytest.fixture
async def claude(house: House, tls: ssl.SSLContext) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http = anthropic.DefaultAsyncHttpxClient(verify=tls)
    async with anthropic.AsyncAnthropic(
        api_key=CALLER_KEY, base_url=house.base, max_retries=0, http_client=http
    ) as made:
        yield made


@both
@pytest.mark.parametrize("pieces", [1, 7, 1000])
async def test_openai_sees_reasoning_and_calls(
    provider: FakeProvider, chat: openai.AsyncOpenAI, stream: bool, pieces: int
) -> None:
    provider.answer(script(Say(ANSWER, pieces)))
    thought = said = name = id = arguments = ""
    reason: str | None = None
    if stream:
        events = await chat.chat.completions.create(model="think", messages=ASK, tools=[TOOL], stream=True)  # type: ignore[list-item]
        async for chunk in events:
            for choice in chunk.choices:
                thought += getattr(choice.delta, "reasoning_content", None) or ""
                said += choice.delta.content or ""
                reason = choice.finish_reason or reason
                for call in choice.delta.tool_calls or ():
                    assert call.function is not None
                    name += call.function.name or ""
                    id += call.id or ""
                    arguments += call.function.arguments or ""
    else:
        answer = await chat.chat.completions.create(model="think", messages=ASK, tools=[TOOL])  # type: ignore[list-item]
        choice = answer.choices[0]
        thought = getattr(choice.message, "reasoning_content", "")
        said, reason = choice.message.content or "", choice.finish_reason
        (call,) = choice.message.tool_calls or ()
        assert call.type == "function"
        name, id, arguments = call.function.name, call.id, call.function.arguments
        assert answer.usage is not None and answer.usage.completion_tokens == 5
    assert (thought, said, reason) == ("Hm.", "Let me.\n", "tool_calls")
    assert (name, arguments) == ("f", '{"a":  1}')
    assert id.startswith("call_"), "minted, since the model gave none"


@both
async def test_anthropic_sees_thinking_and_tool_use(
    provider: FakeProvider, claude: anthropic.AsyncAnthropic, stream: bool
) -> None:
    provider.answer(script(Say(ANSWER, 40)))
    tool: Any = {"name": "f", "input_schema": TOOL["function"]["parameters"]}  # type: ignore[index]
    asked: dict[str, Any] = {"model": "think", "max_tokens": 100, "messages": ASK, "tools": [tool]}
    if stream:
        async with claude.messages.stream(**asked) as events:
            message = await events.get_final_message()
    else:
        message = await claude.messages.create(**asked)
    thinking, text, use = message.content
    assert thinking.type == "thinking" and thinking.thinking == "Hm."
    assert text.type == "text" and text.text == "Let me.\n"
    assert use.type == "tool_use" and use.name == "f" and use.input == {"a": 1}
    assert message.stop_reason == "tool_use"


@both
async def test_anthropic_sees_channels(provider: FakeProvider, claude: anthropic.AsyncAnthropic, stream: bool) -> None:
    answer = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello.<|return|>"
    provider.answer(script(Say(answer, 30)))
    if stream:
        async with claude.messages.stream(model="gpt-oss", max_tokens=9, messages=ASK) as events:
            message = await events.get_final_message()
    else:
        message = await claude.messages.create(model="gpt-oss", max_tokens=9, messages=ASK)
    assert [(each.type, getattr(each, each.type)) for each in message.content] == [
        ("thinking", "Hm."),
        ("text", "Hello."),
    ]
    assert message.stop_reason == "end_turn"


async def test_without_tools_in_the_request_a_call_is_text(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    provider.answer(script(text))
    answer = await chat.chat.completions.create(model="think", messages=ASK)
    assert answer.choices[0].message.content == text
    assert answer.choices[0].finish_reason == "stop"


async def test_a_stop_string_that_the_provider_does_not_take_stops_it(
    provider: FakeProvider, claude: anthropic.AsyncAnthropic
) -> None:
    provider.answer(script(Say("one two END three " + "x" * 50, 60), pause_s=0.01, stall_after=30))
    async with claude.messages.stream(
        model="few-stops", max_tokens=9, messages=ASK, stop_sequences=["\n\n\n", "END"]
    ) as events:
        message = await events.get_final_message()
    assert message.content[0].type == "text" and message.content[0].text == "one two "
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    async with asyncio.timeout(2):
        await provider.last.over.wait()
    assert provider.last.outcome == "aborted"
    assert provider.last.json["stop"] == ["\n\n\n"]


@both
async def test_the_same_stop_string_for_a_caller_of_the_same_format(
    provider: FakeProvider, chat: openai.AsyncOpenAI, stream: bool
) -> None:
    provider.answer(script(Say("one two END three", 60)))
    asked: dict[str, Any] = {"model": "few-stops", "messages": ASK, "stop": ["\n\n\n", "END"], "seed": 7}
    if stream:
        said, reason = "", None
        async for chunk in await chat.chat.completions.create(**asked, stream=True):
            for choice in chunk.choices:
                said += choice.delta.content or ""
                reason = choice.finish_reason or reason
    else:
        answer = await chat.chat.completions.create(**asked)
        said, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert (said, reason) == ("one two ", "stop")
    sent = provider.last.json
    assert (sent["stop"], sent["seed"], sent["messages"]) == (["\n\n\n"], 7, ASK)


async def test_an_upstream_without_a_profile_passes_bytes_on(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(script(Say(ANSWER, 9)))
    request = chat.chat.completions.with_raw_response
    answer = await request.create(model="other", messages=ASK, tools=[TOOL])  # type: ignore[list-item]
    body = answer.http_response.content
    assert body == provider.last.body
    assert json.loads(body)["choices"][0]["message"]["content"] == ANSWER
