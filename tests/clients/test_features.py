"""What else users of the SDKs do: structured output, forced tools, sampling, sync clients, model lists, long silences."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pydantic
import pytest

from ..fakes.gateway import CALLER_KEY, Served, serving
from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Use, script
from .conftest import anthropic_client, openai_client
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, SCHEMA, AnthropicTalk, OpenAITalk, Talk

Begin = Callable[..., Talk]
from_each = pytest.mark.parametrize("caller", CALLERS)
to_each = pytest.mark.parametrize("to", MODELS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
ASK: Any = [{"role": "user", "content": "Where?"}]


class Place(pydantic.BaseModel):
    """What the model must answer with."""

    city: str
    degrees: float


@to_each
@from_each
async def test_structured_output(
    provider: FakeProvider, chat: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic, caller: str, to: str
) -> None:
    provider.answer(script('{"city": "Köln", "degrees": 21.5}'))
    if caller == OPENAI:
        completion = await chat.chat.completions.parse(model=MODELS[to], messages=ASK, response_format=Place)
        place = completion.choices[0].message.parsed
    else:
        message = await claude.messages.parse(model=MODELS[to], max_tokens=99, messages=ASK, output_format=Place)
        place = message.parsed_output
    assert place == Place(city="Köln", degrees=21.5)
    sent = provider.last.json
    shape = sent["response_format"]["json_schema"] if to == OPENAI else sent["output_config"]["format"]
    assert shape["schema"]["required"] == ["city", "degrees"]
    assert set(shape["schema"]["properties"]) == {"city", "degrees"}


@to_each
@from_each
async def test_forced_and_single_tools(provider: FakeProvider, talk: Begin, caller: str, to: str) -> None:
    choices: dict[str, list[Any]] = {
        OPENAI: [{"type": "function", "function": {"name": "look"}}, "required", "none", "auto"],
        ANTHROPIC: [{"type": "tool", "name": "look"}, {"type": "any"}, {"type": "none"}, {"type": "auto"}],
    }
    for asked, expected in zip(choices[caller], choices[to], strict=True):
        provider.answer(script(Use("look")))
        conversation = talk(caller, MODELS[to], stream=False)
        conversation.tools("look", "now")
        conversation.options["tool_choice"] = asked
        conversation.say("Go.")
        await conversation.hear()
        assert provider.last.json["tool_choice"] == expected
    conversation = talk(caller, MODELS[to], stream=False)
    conversation.tools("look")
    if caller == OPENAI:
        conversation.options["parallel_tool_calls"] = False
    else:
        conversation.options["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    conversation.say("Go.")
    await conversation.hear()
    if to == OPENAI:
        assert provider.last.json["parallel_tool_calls"] is False
    else:
        assert provider.last.json["tool_choice"]["disable_parallel_tool_use"] is True


@to_each
async def test_sampling_from_openai(provider: FakeProvider, chat: openai.AsyncOpenAI, to: str) -> None:
    await chat.chat.completions.create(
        model=MODELS[to], messages=ASK, temperature=0.5, stop=["END", "STOP"], max_completion_tokens=77, user="u1"
    )
    sent = provider.last.json
    assert sent["temperature"] == 0.5
    if to == ANTHROPIC:
        # The later version refuses temperature.
        assert provider.last.headers["anthropic-version"] == "2023-06-01"
        assert sent["stop_sequences"] == ["END", "STOP"]
        assert sent["max_tokens"] == 77
    # The older name of the limit.
    await chat.chat.completions.create(model="gpt-4o" if to == OPENAI else MODELS[to], messages=ASK, max_tokens=66)
    assert provider.last.json["max_tokens"] == 66


@to_each
async def test_sampling_from_anthropic(provider: FakeProvider, claude: anthropic.AsyncAnthropic, to: str) -> None:
    await claude.messages.create(
        model=MODELS[to],
        max_tokens=77,
        messages=ASK,
        stop_sequences=["END"],
        metadata={"user_id": "u1"},
        extra_body={"temperature": 0.5},
        extra_headers={"anthropic-version": "2023-06-01"},
    )
    sent = provider.last.json
    assert sent["temperature"] == 0.5
    if to == OPENAI:
        assert sent["stop"] == ["END"]
        assert sent["max_completion_tokens"] == 77


async def test_what_anthropic_cannot_carry_is_named(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    raw = await chat.chat.completions.with_raw_response.create(
        model=MODELS[ANTHROPIC], messages=ASK, seed=7, logit_bias={"50256": -100}, frequency_penalty=0.5
    )
    lost = raw.headers["headgate-loss"]
    for name in ("seed", "logit_bias", "frequency_penalty"):
        assert name in lost
    assert raw.headers["headgate-route"] == "claude"
    assert raw.headers["headgate-upstream"] == "anthropic"


async def test_names_of_lost_members_cannot_break_the_header(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    odd = {"x\r\nSet-Cookie: a=b": 1, "ünï": 2, "a,b": 3} | {f"x_{number}": number for number in range(2000)}
    raw = await chat.chat.completions.with_raw_response.create(model=MODELS[ANTHROPIC], messages=ASK, extra_body=odd)
    assert "set-cookie" not in raw.headers
    assert 0 < len(raw.headers["headgate-loss"]) <= 1000


@pytest.mark.parametrize(
    "model", ["claude-fake-4-5", "claude-fake-4-6", "claude-fake-4-8", "claude-fake-5-0", "claude-3-5-fake-latest"]
)
async def test_conversations_that_anthropic_is_strict_about(
    provider: FakeProvider, chat: openai.AsyncOpenAI, model: str
) -> None:
    """Turns that OpenAI takes as they are: instructions anywhere, empty words, neighbours of one role."""
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]
    messages: Any = [
        {"role": "system", "content": "One."},
        {"role": "developer", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": " "}]},
        {"role": "assistant", "content": "", "tool_calls": [call, {**call, "id": "call_2"}]},
        {"role": "tool", "tool_call_id": "call_2", "content": ""},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "x"}]},
        {"role": "system", "content": "Three, in the middle."},
        {"role": "user", "content": "c", "name": "bob"},
        {"role": "assistant", "content": "d", "refusal": None},
        {"role": "user", "content": "e"},
    ]
    await chat.chat.completions.create(model=model, messages=messages, tools=tools)
    assert "Three, in the middle." in str(provider.last.json["messages"])


async def test_conversations_that_openai_is_strict_about(
    provider: FakeProvider, claude: anthropic.AsyncAnthropic
) -> None:
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "b"},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
                {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {"at": "x"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "x"}]},
                {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True},
                {"type": "text", "text": "and also this"},
            ],
        },
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]
    system: Any = [
        {"type": "text", "text": "One."},
        {"type": "text", "text": "Two.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    tools: Any = [
        {
            "name": "look",
            "description": "d",
            "input_schema": SCHEMA,
            "cache_control": {"type": "ephemeral"},
            "strict": True,
        }
    ]
    await claude.messages.create(
        model=MODELS[OPENAI], max_tokens=99, messages=messages, system=system, tools=tools, metadata={"user_id": "u"}
    )
    sent = provider.last.json["messages"]
    assert [message["role"] for message in sent[-6:]] == ["assistant", "tool", "tool", "user", "assistant", "user"]


async def test_tool_results_with_images_reach_openai(provider: FakeProvider, claude: anthropic.AsyncAnthropic) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    messages: Any = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [image]}]},
    ]
    await claude.messages.create(model=MODELS[OPENAI], max_tokens=99, messages=messages)
    assert "data:image/png;base64,iVBORw0KGgo=" in provider.last.raw.decode()


@to_each
@from_each
async def test_sync_clients(served: Served, provider: FakeProvider, caller: str, to: str) -> None:
    def ask() -> list[str]:
        if caller == OPENAI:
            with openai.OpenAI(api_key=CALLER_KEY, base_url=served.base + "/v1", max_retries=0, timeout=10) as chat:
                stream = chat.chat.completions.create(model=MODELS[to], messages=ASK, stream=True)
                words = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
                whole = chat.chat.completions.create(model=MODELS[to], messages=ASK)
                return ["".join(words), whole.choices[0].message.content or ""]
        with anthropic.Anthropic(api_key=CALLER_KEY, base_url=served.base, max_retries=0, timeout=10) as claude:
            with claude.messages.stream(model=MODELS[to], max_tokens=99, messages=ASK) as events:
                streamed = events.get_final_text()
            message = claude.messages.create(model=MODELS[to], max_tokens=99, messages=ASK)
            return [streamed, message.content[0].text]  # type: ignore[union-attr]

    assert await asyncio.to_thread(ask) == ["Hello!", "Hello!"]


@from_each
@to_each
async def test_sdk_retries(provider: FakeProvider, talk: Begin, caller: str, to: str) -> None:
    provider.answer(script(status=429, headers={"retry-after-ms": "20"}), script("Now."))
    conversation: Any = talk(caller, MODELS[to], stream=False)
    conversation.client = conversation.client.with_options(max_retries=1)
    conversation.say("Hi.")
    assert (await conversation.hear()).text == "Now."


async def test_model_lists(served: Served, chat: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> None:
    names = {model.id async for model in chat.models.list()}
    assert {"renamed-gpt", "renamed-claude"} <= names
    assert {model.id async for model in claude.models.list()} == names
    assert (await chat.models.retrieve("renamed-gpt")).id == "renamed-gpt"
    assert (await claude.models.retrieve("renamed-claude")).id == "renamed-claude"
    with pytest.raises(openai.NotFoundError):
        await chat.models.retrieve("unheard-of")
    with pytest.raises(anthropic.AuthenticationError):
        await claude.with_options(api_key="sk-nobody").models.list()


@pytest.mark.parametrize("then", ["an answer", "an error", "a cut"])
@to_each
@from_each
async def test_a_long_silence_before_the_first_word(
    provider: FakeProvider, tls: Any, tmp_path: Path, caller: str, to: str, then: str
) -> None:
    """Keep-alives go out; what fails after them is told in-band, never as a clean end."""
    plays = {
        "an answer": script("At last.", wait_s=0.55),
        "an error": script(status=529, wait_s=0.55),
        "a cut": script("At last.", wait_s=0.55, cut_after=0),
    }
    provider.answer(plays[then])
    sdk: Any = openai if caller == OPENAI else anthropic
    async with serving(provider, tmp_path, keep_alive="200ms") as served:
        client: Any = openai_client(served, tls) if caller == OPENAI else anthropic_client(served, tls)
        async with client:
            talk: Talk = (OpenAITalk if caller == OPENAI else AnthropicTalk)(client, MODELS[to], True)
            talk.say("Hi.")
            if then == "an answer":
                assert (await talk.hear()).text == "At last."
            else:
                with pytest.raises(sdk.APIError) as caught:
                    await talk.hear()
                assert not isinstance(caught.value, sdk.APIConnectionError)


@to_each
@from_each
async def test_a_slow_reader_slows_the_provider(served: Served, provider: FakeProvider, caller: str, to: str) -> None:
    """What nobody reads is not fetched: the gateway holds a bounded part of a long answer."""
    total = 24 << 20
    provider.answer(script(Say("x" * total, pieces=total // 8192)))
    path = {OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}[caller]
    body: dict[str, Any] = {"model": MODELS[to], "messages": ASK, "stream": True}
    if caller == ANTHROPIC:
        body["max_tokens"] = 99
    headers = {"Authorization": f"Bearer {CALLER_KEY}", "anthropic-version": "2023-06-01"}
    connector = aiohttp.TCPConnector()
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**14) as session:
        response = await session.post(served.base + path, json=body, headers=headers)
        await response.content.readany()
        sent = -1
        for _ in range(100):  # until the provider stands still
            await asyncio.sleep(0.05)
            if sent == len(provider.last.sent):
                break
            sent = len(provider.last.sent)
        assert provider.last.outcome == "running"
        # Kernel buffers of three sockets hold some megabytes; the gateway's own share is small.
        assert sum(map(len, provider.last.sent)) < total * 0.75
        size = 0
        async for piece in response.content.iter_any():
            size += len(piece)
    assert size > total - (1 << 20)
    assert provider.last.outcome == "done"


async def test_many_calls_at_once(served: Served, provider: FakeProvider, talk: Begin) -> None:
    provider.echo = True

    async def one(number: int) -> str:
        caller, to = CALLERS[number % 2], list(MODELS)[number // 2 % 2]
        conversation = talk(caller, "x-" * (number % 5 == 0) + MODELS[to], stream=number % 3 == 0)
        conversation.say(f"Call {number}.")
        return (await conversation.hear()).text

    assert await asyncio.gather(*map(one, range(80))) == [f"Call {number}." for number in range(80)]
    assert served.gateway.in_flight == 0
