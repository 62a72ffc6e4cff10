"""The fake provider against the official SDKs without a gateway between: what it answers is what they understand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from .provider import KEY, FakeProvider
from .script import Redacted, Script, Think, Tokens, Use, script

TOOL = {"name": "look", "input_schema": {"type": "object"}}
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
async def chat(provider: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=provider.base + "/v1", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(provider: FakeProvider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=provider.base, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("piece", [None, 0, 7])
async def test_openai_stream(provider: FakeProvider, chat: openai.AsyncOpenAI, piece: int | None) -> None:
    tokens = Tokens(fresh=100, cached=20, output=7, reasoning=3)
    provider.answer(script("Hellö wörld", Use("look", '{"a": 1.0}'), Use("look"), tokens=tokens, piece=piece))
    stream = await chat.chat.completions.create(
        model="gpt-5.4", messages=ASK, stream=True, stream_options={"include_usage": True}, tools=[FUNCTION]
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hellö wörld"
    calls = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()]
    assert {call.index for call in calls} == {0, 1}
    assert "".join(call.function.arguments for call in calls if call.index == 0) == '{"a": 1.0}'
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage.prompt_tokens == 120
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 20
    assert provider.last.outcome == "done"


async def test_anthropic_stream(provider: FakeProvider, claude: anthropic.AsyncAnthropic) -> None:
    provider.answer(
        script(
            Think("Hm, hm."),
            Redacted("b64=="),
            "Hello",
            Use("look", '{"a": 1.0}'),
            tokens=Tokens(100, 20, 5, 7),
            piece=11,
        )
    )
    async with claude.messages.stream(model="claude-fake-4-5", max_tokens=99, messages=ASK, tools=[TOOL]) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "text", "tool_use"]
    assert provider.issued.signatures[message.content[0].signature] == message.content[0].thinking == "Hm, hm."
    assert message.content[3].input == {"a": 1.0}
    assert message.stop_reason == "tool_use"
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (100, 20, 7)


async def test_whole_answers(
    provider: FakeProvider, chat: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    provider.answer(script("Hello", Use("look", '{"a": 1}')), script("Hello", Use("look", '{"a": 1}')))
    completion = await chat.chat.completions.create(model="gpt-5.4", messages=ASK, tools=[FUNCTION])
    assert completion.choices[0].message.tool_calls[0].function.arguments == '{"a": 1}'
    message = await claude.messages.create(model="claude-x", max_tokens=9, messages=ASK, tools=[TOOL])
    assert message.content[1].input == {"a": 1}


_USE = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
_RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}


def _turns(*contents: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[index % 2], "content": text} for index, text in enumerate(contents)]}


ANTHROPIC_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens: Field required"),
    ({"temperature": 1.0}, "temperature: Extra inputs are not permitted"),
    ({"frequency_penalty": 1}, "frequency_penalty: Extra inputs are not permitted"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "system", "content": "x"}, *ASK]}, "system"),
    (_turns(""), "text content blocks must be non-empty"),
    (_turns([{"type": "text", "text": ""}]), "text content blocks must be non-empty"),
    (_turns("a", [_USE]), "were found without `tool_result` blocks"),
    (_turns("a", [_USE], "b"), "were found without `tool_result` blocks"),
    (_turns("a", [_USE], [{"type": "text", "text": "first"}, _RESULT]), "were found without `tool_result` blocks"),
    (_turns("a", "b", [_RESULT]), "unexpected `tool_use_id`"),
    (_turns("a", [{**_USE, "id": "call:1"}], [{**_RESULT, "tool_use_id": "call:1"}]), "should match pattern"),
    (_turns("a", [{**_USE, "input": "{}"}], [_RESULT]), "tool_use.input"),
    (_turns("a", [{"type": "thinking", "thinking": "t", "signature": "forged"}], "b"), "Invalid `signature`"),
    (_turns("a", [{"type": "thinking", "thinking": "t"}], "b"), "signature: Field required"),
    ({"model": "claude-fake-4-6", **_turns("a", "b")}, "does not support assistant message prefill"),
    ({"model": "claude-fake-4-7", "thinking": {"type": "enabled", "budget_tokens": 1024}}, "not supported"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 1024}, "must be greater than"),
    (
        {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 1024}, **_turns("a", [_USE], [_RESULT])},
        "Expected `thi",
    ),
    ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "String should match pattern"),
    ({"tools": [{"name": "a", "input_schema": {}}]}, "input_schema.type"),
    (_turns([{"type": "image", "source": {"type": "base64", "media_type": "image/bmp", "data": ""}}]), "media_type"),
]


@pytest.mark.parametrize(("change", "why"), ANTHROPIC_REFUSALS)
async def test_anthropic_refuses(
    provider: FakeProvider, claude: anthropic.AsyncAnthropic, change: dict[str, Any], why: str
) -> None:
    body = {"model": "claude-fake-4-5", "max_tokens": 64, "messages": ASK, **change}
    body = {name: value for name, value in body.items() if value is not None}
    with pytest.raises(anthropic.BadRequestError) as caught:
        await claude.post("/v1/messages", body=body, cast_to=object)
    assert why in caught.value.message
    assert caught.value.request_id == provider.last.request_id
    assert provider.refusals == [provider.last.refusal]


async def test_the_older_version_takes_temperature(provider: FakeProvider, claude: anthropic.AsyncAnthropic) -> None:
    older = claude.with_options(default_headers={"anthropic-version": "2023-06-01"})
    await older.messages.create(model="claude-fake-4-5", max_tokens=9, messages=ASK, extra_body={"temperature": 0.5})
    with pytest.raises(anthropic.BadRequestError, match="not a valid version"):
        await claude.messages.create(
            model="c", max_tokens=9, messages=ASK, extra_headers={"anthropic-version": "2024-01-01"}
        )


_CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
_ANSWERED = {"role": "tool", "tool_call_id": "call_1", "content": "x"}
OPENAI_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"top_k": 5}, "Unknown parameter: 'top_k'"),
    ({"messages": []}, "empty array"),
    ({"messages": None}, "Missing required parameter"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "Invalid value: 'robot'"),
    ({"messages": [{"role": "user"}]}, "got null"),
    ({"messages": [{"role": "user", "content": "a", "cache_control": {}}]}, "Unknown parameter"),
    ({"messages": [_ANSWERED]}, "must be a response to a preceeding message"),
    ({"messages": [*ASK, {"role": "assistant", "tool_calls": [_CALL]}]}, "must be followed by tool messages"),
    ({"messages": [*ASK, {"role": "assistant", "tool_calls": [_CALL]}, *ASK]}, "must be followed by tool messages"),
    ({"messages": [*ASK, {"role": "assistant", "content": "", "tool_calls": []}]}, "empty array"),
    (
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{**_CALL, "function": {"name": "x", "arguments": {}}}]},
                _ANSWERED,
            ]
        },
        "arguments': expected a string",
    ),
    ({"messages": [{"role": "assistant", "content": "x", "reasoning_content": "y"}]}, "Unknown parameter"),
    ({"max_tokens": 5}, "Use 'max_completion_tokens' instead"),
    ({"stream_options": {"include_usage": True}}, "only allowed when 'stream' is enabled"),
    ({"tools": []}, "empty array"),
    ({"tool_choice": "required"}, "only allowed when 'tools' are specified"),
    ({"temperature": 3}, "expected a value between 0 and 2"),
]


@pytest.mark.parametrize(("change", "why"), OPENAI_REFUSALS)
async def test_openai_refuses(
    provider: FakeProvider, chat: openai.AsyncOpenAI, change: dict[str, Any], why: str
) -> None:
    body = {"model": "gpt-5.4", "messages": ASK, **change}
    body = {name: value for name, value in body.items() if value is not None}
    with pytest.raises(openai.BadRequestError) as caught:
        await chat.post("/chat/completions", body=body, cast_to=object)
    assert why in caught.value.message
    assert caught.value.request_id == provider.last.request_id


async def test_keys_and_scripted_errors(
    provider: FakeProvider, chat: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    with pytest.raises(openai.AuthenticationError):
        await chat.with_options(api_key="wrong").chat.completions.create(model="m", messages=ASK)
    with pytest.raises(anthropic.AuthenticationError):
        await claude.with_options(api_key="wrong").messages.create(model="m", max_tokens=1, messages=ASK)
    provider.answer(script(status=429, headers={"retry-after": "7"}), script(status=529))
    with pytest.raises(openai.RateLimitError) as caught:
        await chat.chat.completions.create(model="m", messages=ASK)
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.OverloadedError):
        await claude.messages.create(model="m", max_tokens=1, messages=ASK)


async def _read(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    async for _ in stream:
        pass


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (script("abc", cut_after=2), openai.APIConnectionError),
        (script("abc", cut_after=2, cut="reset", half=True), openai.APIConnectionError),
        (script("abc", error_after=2), openai.APIError),
    ],
)
async def test_broken_streams(
    provider: FakeProvider, chat: openai.AsyncOpenAI, play: Script, error: type[Exception]
) -> None:
    provider.answer(play)
    with pytest.raises(error):
        await _read(chat)


async def test_a_client_that_leaves_is_seen(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(script("abc", stall_after=2))
    stream = await chat.chat.completions.create(model="m", messages=ASK, stream=True)
    await anext(aiter(stream))
    assert provider.connections == 1
    await stream.close()
    await asyncio.wait_for(provider.last.over.wait(), 1)
    assert provider.last.outcome == "aborted"
