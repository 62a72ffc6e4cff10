"""Structured output of providers that have none: by a tool, by instruction, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import anthropic
import httpx
import openai
import pytest
from pydantic import BaseModel

from ..fakes.provider import FakeProvider
from ..fakes.script import Part, Say, Script, Think, Tokens, Use, script
from ..server.house import CHAT, House, begin, until


class Step(BaseModel):
    """A step of the answer."""

    text: str
    number: int


class Plan(BaseModel):
    """What is asked for."""

    title: str
    steps: list[Step]


GOOD = '{"title": "Tea",  "steps": [{"text": "Boil", "number": 1}]}'
WRONG = '{"title": "Tea", "steps": [{"text": "Boil", "number": "one"}]}'
ASK: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How to make tea?"}]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "number", "schema": SCHEMA}}
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
models = pytest.mark.parametrize(
    "model", ["chat-tool", "chat-instruction", "messages-tool", "messages-instruction", "ollama-tool"]
)


def answer(model: str, text: str, name: str = "Plan", **fields: Any) -> Script:
    """What the provider says: a call of the tool that it was given, or words."""
    part: Part = Use(name, text) if model.endswith("tool") else Say(text)
    return script(part, **fields)


async def parsed(chat: openai.AsyncOpenAI, model: str, stream: bool, **more: Any) -> Any:
    """Ask by the SDK's helper for pydantic models; the completion."""
    if not stream:
        return await chat.chat.completions.parse(model=model, messages=ASK, response_format=Plan, **more)
    async with chat.chat.completions.stream(
        model=model, messages=ASK, response_format=Plan, stream_options={"include_usage": True}, **more
    ) as events:
        return await events.get_final_completion()


@both
@models
async def test_a_pydantic_model(provider: FakeProvider, chat: openai.AsyncOpenAI, model: str, stream: bool) -> None:
    provider.answer(answer(model, GOOD, tokens=Tokens(7, output=9)))
    completion = await parsed(chat, model, stream)
    choice = completion.choices[0]
    assert choice.message.parsed == Plan(title="Tea", steps=[Step(text="Boil", number=1)])
    assert (choice.finish_reason, choice.message.tool_calls or None) == ("stop", None)
    assert json.loads(choice.message.content) == json.loads(GOOD)
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (7, 9)
    sent = provider.last.json
    assert "response_format" not in sent and "output_config" not in sent
    if model.endswith("tool"):
        assert len(sent["tools"]) == 1
    else:
        said = sent["system"] if "system" in sent else sent["messages"][0]["content"]
        assert "JSON Schema" in json.dumps(said) and "Be brief." in json.dumps(said)


@both
@models
async def test_a_wrong_answer_is_mended(
    provider: FakeProvider, chat: openai.AsyncOpenAI, model: str, stream: bool
) -> None:
    provider.answer(answer(model, WRONG, tokens=Tokens(7, output=9)), answer(model, GOOD, tokens=Tokens(20, output=8)))
    completion = await parsed(chat, model, stream)
    assert completion.choices[0].message.parsed.steps[0].number == 1
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (27, 17)
    first, second = (received.json["messages"] for received in provider.requests)
    assert second[: len(first)] == first, "the provider's prompt cache keeps its prefix"
    assert "$.steps[0].number" in json.dumps(second[-1]) and "one" in json.dumps(second[-2])


@both
@models
async def test_what_stays_wrong_is_an_error(
    provider: FakeProvider, chat: openai.AsyncOpenAI, model: str, stream: bool
) -> None:
    provider.answer(answer(model, WRONG), answer(model, WRONG))
    with pytest.raises(openai.APIError) as caught:
        await parsed(chat, model, stream)
    assert "did not keep to the schema" in str(caught.value) and "$.steps[0].number" in str(caught.value)
    assert isinstance(caught.value, openai.APIStatusError) and caught.value.status_code == 502
    assert caught.value.response.headers["headgate-error"] == "malformed"
    assert len(provider.requests) == 2


@pytest.mark.parametrize(
    "words",
    [f"```json\n{GOOD}\n```", f"```\n{GOOD}```", f"  {GOOD}\n", GOOD],
    ids=["fence", "bare fence", "space", "plain"],
)
async def test_a_code_fence_is_taken_off(provider: FakeProvider, chat: openai.AsyncOpenAI, words: str) -> None:
    provider.answer(script(words))
    completion = await parsed(chat, "chat-instruction", False)
    assert completion.choices[0].message.content == GOOD, "as the model spelled it"


@both
async def test_thinking_goes_along(provider: FakeProvider, claude: anthropic.AsyncAnthropic, stream: bool) -> None:
    """A model that thinks cannot be forced to call a tool: it is asked to. What it thought is signed, and goes along."""
    provider.answer(
        script(Think("Hm."), Use("structured_output", '{"n": "4"}')),
        script(Think("Oh."), Use("structured_output", '{"n": 4}')),
    )
    asked: dict[str, Any] = {
        "model": "messages-tool",
        "max_tokens": 4096,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [{"role": "user", "content": "How many?"}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    if stream:
        async with claude.messages.stream(**asked) as events:
            message: Any = await events.get_final_message()
    else:
        message = await claude.messages.create(**asked)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.content[0].thinking, message.content[1].text) == ("Oh.", '{"n": 4}')
    assert message.content[0].signature
    assert provider.last.json["tool_choice"] == {"type": "auto"}
    assert "structured_output" in json.dumps(provider.last.json["system"])


async def test_words_in_place_of_the_tool_are_read_too(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(script(GOOD))
    assert (await parsed(chat, "chat-tool", False)).choices[0].message.parsed.title == "Tea"


async def test_words_beside_the_tool_are_lost_and_noted(provider: FakeProvider, house: House) -> None:
    provider.answer(script("Sure!", Use("number", '{"n": 1}')))
    call = {"model": "chat-tool", "messages": ASK, "response_format": FORMAT}
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, json=call)
    assert response.json()["choices"][0]["message"]["content"] == '{"n": 1}'
    assert "headgate-loss" not in response.headers, "what is emulated is not lost"


@both
async def test_a_callers_own_tool_may_be_called(provider: FakeProvider, chat: openai.AsyncOpenAI, stream: bool) -> None:
    provider.answer(script(Use("look", "{}", id="call_1")))
    asked: dict[str, Any] = {"model": "chat-tool", "messages": ASK, "tools": [TOOL], "response_format": FORMAT}
    if stream:
        async with chat.chat.completions.stream(**asked) as events:
            completion: Any = await events.get_final_completion()
    else:
        completion = await chat.chat.completions.create(**asked)
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.tool_calls[0].function.name) == ("tool_calls", "look")
    assert [tool["function"]["name"] for tool in provider.last.json["tools"]] == ["look", "number"]
    assert provider.last.json["tool_choice"] == "required"


async def test_a_tool_that_is_demanded_anyway_is_left_alone(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(script(Use("look", "{}", id="call_1")))
    demanded: Any = {"type": "function", "function": {"name": "look"}}
    await chat.chat.completions.create(
        model="chat-tool", messages=ASK, tools=[TOOL], tool_choice=demanded, response_format=FORMAT
    )
    assert provider.last.json["tool_choice"] == demanded and len(provider.last.json["tools"]) == 1


@both
@pytest.mark.parametrize("model", ["chat-tool", "chat-instruction"])
async def test_an_answer_that_was_cut_short_says_so(
    provider: FakeProvider, chat: openai.AsyncOpenAI, model: str, stream: bool
) -> None:
    """As from a provider that knows structured output: the reason says it, and nobody takes it for valid."""
    provider.answer(answer(model, '{"title": "Te', stop="length"))
    with pytest.raises(openai.LengthFinishReasonError):
        await parsed(chat, model, stream)
    assert len(provider.requests) == 1


async def test_any_object(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(script("Here you are: {}"), script('{"a": [1]}'), script(Use("structured_output", '{"a": 1}')))
    wanted: Any = {"type": "json_object"}
    for model, said in (("chat-instruction", '{"a": [1]}'), ("chat-tool", '{"a": 1}')):
        answer = await chat.chat.completions.create(model=model, messages=ASK, response_format=wanted)
        assert answer.choices[0].message.content == said


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "nonsense"}, "is not valid"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "only #/…"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}}, "does not exist"),
    ],
)
async def test_a_schema_that_is_none(provider: FakeProvider, chat: openai.AsyncOpenAI, schema: Any, why: str) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match=why) as caught:
        await chat.chat.completions.create(model="chat-tool", messages=ASK, response_format=wanted)
    assert caught.value.param == "response_format.json_schema.schema"
    assert provider.requests == []


@both
async def test_a_callers_schema_of_anthropics(
    provider: FakeProvider, claude: anthropic.AsyncAnthropic, stream: bool
) -> None:
    provider.answer(script(Use("structured_output", '{"n": 4}')))
    asked: dict[str, Any] = {
        "model": "chat-tool",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "How many?"}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    if stream:
        async with claude.messages.stream(**asked) as events:
            message: Any = await events.get_final_message()
    else:
        message = await claude.messages.create(**asked)
    assert (message.stop_reason, message.content[0].text) == ("end_turn", '{"n": 4}')


@both
@pytest.mark.parametrize("second", [{"status": 500}, {"cut_after": 1, "cut": "reset"}], ids=["500", "cut"])
async def test_a_fault_while_mending(
    provider: FakeProvider, chat: openai.AsyncOpenAI, stream: bool, second: dict[str, Any]
) -> None:
    provider.answer(answer("chat-tool", WRONG), answer("chat-tool", GOOD, **second))
    with pytest.raises(openai.InternalServerError):
        await parsed(chat, "chat-tool", stream)


@both
async def test_a_client_that_leaves_while_it_is_mended(provider: FakeProvider, house: House, stream: bool) -> None:
    provider.answer(answer("chat-tool", WRONG, name="number"), answer("chat-tool", GOOD, stall_before=True))
    call = {"model": "chat-tool", "messages": ASK, "response_format": FORMAT, "stream": stream}
    async with httpx.AsyncClient() as client:
        asking = begin(client.post(house.base + CHAT, json=call))
        await (await provider.received(2)).answering.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await until(lambda: provider.last.outcome == "aborted")


async def test_every_choice_is_checked(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    """Several choices are several calls, whether the upstream says so or not: each answer is mended by itself."""
    provider.answer(*(answer("chat-tool", text) for text in (GOOD, GOOD, WRONG, GOOD)))
    completion = await parsed(chat, "chat-tool", False, n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert all(choice.message.parsed.title == "Tea" for choice in completion.choices)
    assert len(provider.requests) == 4


async def test_who_does_not_ask_gets_the_providers_bytes(provider: FakeProvider, house: House) -> None:
    sent = json.dumps({"model": "chat-tool", "messages": ASK, "response_format": {"type": "text"}}, indent=1).encode()
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, content=sent, headers={"content-type": "application/json"})
    assert provider.last.raw == sent and response.content == provider.last.body


@both
async def test_whole_and_stream_agree(provider: FakeProvider, house: House, stream: bool) -> None:
    """The stream is held until it is valid, then told: role, words, reason, usage, end."""
    provider.answer(answer("chat-tool", '{"n":  2}', name="number"))
    call = {"model": "chat-tool", "messages": ASK, "response_format": FORMAT, "stream": stream}
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, json=call)
    if not stream:
        assert response.json()["choices"][0]["message"]["content"] == '{"n":  2}'
        return
    frames = response.text.strip().split("\n\n")
    assert frames[-1] == "data: [DONE]"
    deltas: Sequence[Any] = [json.loads(frame.removeprefix("data: "))["choices"][0] for frame in frames[:-1]]
    assert "".join(each["delta"].get("content") or "" for each in deltas) == '{"n":  2}'
    assert deltas[-1]["finish_reason"] == "stop"


@both
async def test_a_format_without_turns_has_no_mending(provider: FakeProvider, house: House, stream: bool) -> None:
    """A prompt of Ollama's cannot tell the model what it answered: the answer is wrong, and not the caller."""
    provider.answer(script(Say('{"n":"x"}')))
    call = {"model": "ollama-instruction", "prompt": "Number?", "format": SCHEMA, "stream": stream}
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + "/api/generate", json=call)
    assert response.status_code == 502
    assert response.json()["error"].startswith("the model did not keep to the schema: $.n")


@both
@pytest.mark.parametrize("model", ["messages-tool", "chat-instruction"])
async def test_a_pydantic_model_by_responses(
    provider: FakeProvider, chat: openai.AsyncOpenAI, model: str, stream: bool
) -> None:
    provider.answer(answer(model, WRONG), answer(model, GOOD))
    if stream:
        async with chat.responses.stream(model=model, input="Tea?", text_format=Plan) as events:
            response: Any = await events.get_final_response()
    else:
        response = await chat.responses.parse(model=model, input="Tea?", text_format=Plan)
    assert response.output_parsed.steps[0].number == 1 and response.status == "completed"
    assert "Tea?" in json.dumps(provider.last.json)


@pytest.mark.parametrize(
    ("schema", "arguments", "said"),
    [
        ({"type": "array", "items": {"type": "integer"}}, '{"answer": [1,  2]}', "[1,  2]"),
        ({"$defs": {"n": {"type": "object"}}, "$ref": "#/$defs/n"}, '{"answer": {"a": 1}}', '{"a": 1}'),
    ],
)
async def test_an_answer_that_is_no_object(
    provider: FakeProvider, chat: openai.AsyncOpenAI, schema: Any, arguments: str, said: str
) -> None:
    """Arguments are an object, so the answer is a member of it."""
    provider.answer(script(Use("a", arguments)))
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    completion = await chat.chat.completions.create(model="chat-tool", messages=ASK, response_format=wanted)
    assert completion.choices[0].message.content == said
    (tool,) = provider.last.json["tools"]
    assert tool["function"]["parameters"]["properties"]["answer"] == schema
    assert tool["function"]["parameters"].get("$defs") == schema.get("$defs")
