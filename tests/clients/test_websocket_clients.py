"""OpenAI's SDK over a WebSocket, unmodified: the Responses API's WebSocket mode, to providers that know nothing of it."""

from __future__ import annotations

import asyncio
import json
import re
import textwrap
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import openai
import pytest
from openai.types.responses.responses_server_event import ResponseWsError

from ..fakes.provider import FakeProvider
from ..fakes.script import Redacted, Say, Think, Use, script
from ..server.house import House, serving, until

RULES: Final = """
server: {anonymous: allow}
upstreams:
  claude: {adapter: anthropic, base_url: "%(base)s", key: env:TEST_PROVIDER_KEY}
  chat: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY}
  native: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY, formats: [openai.responses]}
chains:
  base: [{auth: {keys: [{name: one, key: env:KEY_ONE, tenant: red}]}}, log]
  locked: [{auth: {keys: [{name: two, key: env:KEY_TWO}]}}]
routes:
  - {name: locked, match: {model: locked}, chain: locked, to: claude}
  - {name: theirs, match: {model: theirs}, chain: base, to: native, responses: {state: upstream}}
  - {name: none, match: {model: none}, chain: base, to: native, responses: {state: none}}
  - {name: native, match: {model: "gpt-*"}, chain: base, to: native}
  - {name: chat, match: {model: "chat-*"}, chain: base, to: chat}
  - {name: claude, match: {model: "claude-*"}, chain: base, to: claude}
"""
KEY: Final = "secret-one-000000"
CLAUDE: Final = "claude-fake-4-5"
MODELS: Final = (CLAUDE, "chat-x", "gpt-x")
SCHEMA: Final = {
    "type": "object",
    "properties": {"at": {"type": "string"}},
    "required": ["at"],
    "additionalProperties": False,
}
TOOLS: Final[list[Any]] = [
    {"type": "function", "name": name, "description": "Looks.", "parameters": SCHEMA, "strict": False}
    for name in ("look", "now")
]


@pytest.fixture
async def house(provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("KEY_ONE", KEY)
    monkeypatch.setenv("KEY_TWO", "secret-two-000000")
    async with serving(tmp_path, RULES % {"base": provider.base}) as each:
        yield each
        await each.idle()


def client(house: House, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=house.base + "/v1", max_retries=0, timeout=10)


async def turn(connection: Any, **arguments: Any) -> Any:
    """One turn; returns the response, or the event that told an error."""
    await connection.response.create(**arguments)
    return await heard(connection)


async def heard(connection: Any) -> Any:
    async for event in connection:
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            return event.response
        if event.type == "error":
            assert isinstance(event, ResponseWsError)
            return event
    raise AssertionError("the connection ended before the response did")


def text_of(response: Any) -> str:
    return "".join(part.text for item in response.output if item.type == "message" for part in item.content)


def output(call: Any, text: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


def calls_of(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


@pytest.mark.parametrize("store", [True, False], ids=["stored", "not stored"])
async def test_five_turns_over_anthropic(provider: FakeProvider, house: House, store: bool) -> None:
    provider.answer(
        script(Think("Two things to find out."), Use("look", '{"at": "Köln"}'), Use("now", '{"at": "Köln"}')),
        script(Think("One more."), Say("So far so good."), Use("look", '{"at": "Rome"}')),
        script(Think("Now I know."), "Rain there, sun here."),
        script(Redacted("b3BhcXVl"), "It is late."),
        script("Bye."),
    )
    usual: dict[str, Any] = {"model": CLAUDE, "tools": TOOLS, "reasoning": {"effort": "high"}, "store": store}
    async with client(house) as sdk, sdk.responses.connect() as connection:
        first = await turn(connection, input="How is it?", instructions="Be terse.", **usual)
        results = [output(call, f"result {number}") for number, call in enumerate(calls_of(first))]
        assert len(results) == 2
        second = await turn(connection, input=results, previous_response_id=first.id, **usual)
        third = await turn(
            connection, input=[output(calls_of(second)[0], "rain")], previous_response_id=second.id, **usual
        )
        assert text_of(third) == "Rain there, sun here."
        fourth = await turn(connection, input="What time?", previous_response_id=third.id, **usual)
        fifth = await turn(connection, input="Bye.", previous_response_id=fourth.id, **usual)
        assert text_of(fifth) == "Bye."

    assert len({each.id for each in (first, second, third, fourth, fifth)}) == 5
    bodies = [received.json for received in provider.requests]
    for before, after in pairwise(bodies[1:]):
        earlier, later = before["messages"], after["messages"]
        assert json.dumps(later[: len(earlier)])[:-1].startswith(json.dumps(earlier)[:-3])
    turns = [message["content"] for message in bodies[4]["messages"] if message["role"] == "assistant"]
    assert [[block["type"] for block in blocks] for blocks in turns] == [
        ["thinking", "tool_use", "tool_use"],
        ["thinking", "text", "tool_use"],
        ["thinking", "text"],
        ["redacted_thinking", "text"],
    ]
    signed = [block for blocks in turns for block in blocks if block["type"] == "thinking"]
    assert {block["signature"]: block["thinking"] for block in signed} == provider.issued.signatures


@pytest.mark.parametrize("model", [*MODELS, "theirs", "none"])
async def test_the_connection_remembers_the_last_response_alone(
    provider: FakeProvider, house: House, model: str
) -> None:
    provider.answer(script("I am Max."), script("Max."))
    async with client(house) as sdk:
        async with sdk.responses.connect() as connection:
            first = await turn(connection, model=model, input="Who are you?", store=False)
            second = await turn(connection, model=model, input="Again?", store=False, previous_response_id=first.id)
            assert text_of(second) == "Max."
            assert "I am Max." in json.dumps(provider.last.json)
            assert "previous_response_id" not in provider.last.json
            if model == "theirs":
                return  # what is not remembered is the provider's to know
            older = await turn(connection, model=model, input="?", store=False, previous_response_id=first.id)
            assert (older.status, older.error.code) == (400, "previous_response_not_found")
            assert older.error.type == "invalid_request_error"
            assert older.error.param == "previous_response_id"
        async with sdk.responses.connect() as connection:
            other = await turn(connection, model=model, input="?", store=False, previous_response_id=second.id)
            assert (other.status, other.error.code) == (400, "previous_response_not_found")
    assert len(provider.requests) == 2


@pytest.mark.parametrize("model", ["gpt-x", "theirs", "none"])
@pytest.mark.parametrize("store", [False, True])
async def test_reasoning_that_only_the_connection_remembers_is_asked_for(
    provider: FakeProvider, house: House, model: str, store: bool
) -> None:
    async with client(house) as sdk, sdk.responses.connect() as connection:
        first = await turn(connection, model=model, input="1", store=store, reasoning={"effort": "low"})
        asked = {"previous_response_id": first.id, "include": ["message.output_text.logprobs"]}
        await turn(connection, model=model, input="2", store=store, reasoning={"effort": "low"}, **asked)
    told = [received.json.get("include") for received in provider.requests]
    both = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    assert told == ([None, both[:1]] if store else [both[1:], both])


async def test_what_is_stored_is_found_from_anywhere(provider: FakeProvider, house: House) -> None:
    provider.answer(script("I am Max."), script("Max."), script("Still."), script("Max!"))
    async with client(house) as sdk:
        async with sdk.responses.connect() as connection:
            first = await turn(connection, model=CLAUDE, input="Who are you?")
            await turn(connection, model=CLAUDE, input="Again?", previous_response_id=first.id)
        async with sdk.responses.connect() as connection:
            third = await turn(connection, model=CLAUDE, input="And?", previous_response_id=first.id)
        fourth = await sdk.responses.create(model=CLAUDE, input="So?", previous_response_id=third.id)
        assert fourth.output_text == "Max!"
        assert (await sdk.responses.retrieve(third.id)).output_text == "Still."


@pytest.mark.parametrize("store", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize("model", [*MODELS, "theirs", "none"])
async def test_a_warm_up_asks_no_provider(provider: FakeProvider, house: House, model: str, store: bool) -> None:
    provider.answer(script("42."))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        warm = await turn(connection, model=model, input="The answer is 42.", store=store, generate=False)
        assert (warm.status, warm.output, provider.requests) == ("completed", [], [])
        answer = await turn(connection, model=model, input="Well?", store=store, previous_response_id=warm.id)
        assert text_of(answer) == "42."
    said = json.dumps(provider.last.json)
    assert said.index("The answer is 42.") < said.index("Well?")
    assert "generate" not in provider.last.json


async def test_a_turn_that_failed_drops_what_it_went_on_from(provider: FakeProvider, house: House) -> None:
    provider.answer(script("I am Max."), script(status=500), script("Never."))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        first = await turn(connection, model=CLAUDE, input="Who are you?", store=False)
        failed = await turn(connection, model=CLAUDE, input="?", store=False, previous_response_id=first.id)
        assert failed.status == 500
        gone = await turn(connection, model=CLAUDE, input="?", store=False, previous_response_id=first.id)
        assert gone.error.code == "previous_response_not_found"
        assert text_of(await turn(connection, model=CLAUDE, input="Hello")) == "Never."


ERRORS: Final = {
    "no such route": ({"model": "nobody"}, 404, None),
    "wrong type": ({"model": CLAUDE, "temperature": "hot"}, 400, None),
    "background": ({"model": CLAUDE, "background": True}, 501, None),
    "rate limit": ({"model": CLAUDE}, 429, script(status=429, headers={"retry-after": "7"})),
}


@pytest.mark.parametrize(("arguments", "status", "play"), ERRORS.values(), ids=ERRORS)
async def test_errors_are_events_and_the_connection_stays(
    provider: FakeProvider, house: House, arguments: dict[str, Any], status: int, play: Any
) -> None:
    if play is not None:
        provider.answer(play)
    provider.answer(script("Here."))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        failed = await turn(connection, input="Hello", **arguments)
        assert failed.status == status
        assert failed.error.message and failed.error.type
        if status == 429:
            assert failed.error.headers["retry-after"] == "7"
        assert text_of(await turn(connection, model=CLAUDE, input="Hello")) == "Here."


async def test_an_answer_that_breaks_off_fails(provider: FakeProvider, house: House) -> None:
    provider.answer(script("One two three", cut_after=4), script("Here."))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        assert (await turn(connection, model=CLAUDE, input="Hello")).status == "failed"
        assert text_of(await turn(connection, model=CLAUDE, input="Hello")) == "Here."


@pytest.mark.parametrize("error_after", [0, 4], ids=["at once", "midway"])
async def test_a_native_error_event_ends_its_turn_alone(provider: FakeProvider, house: House, error_after: int) -> None:
    provider.answer(script("One two three", error_after=error_after), script("Well."))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        told = await turn(connection, model="gpt-x", input="Hello")
        assert (told.status, told.error.code, told.error.message) == (
            "failed",
            "server_error",
            "The server had an error.",
        )
        assert (await turn(connection, model="gpt-x", input="Hello")).output_text == "Well."


async def test_a_stranger_is_refused_at_the_handshake(provider: FakeProvider, house: House) -> None:
    async with client(house, "secret-nobody-0000") as sdk:
        with pytest.raises(Exception, match="401"):
            async with sdk.responses.connect():
                pass
    assert provider.requests == []


@pytest.mark.parametrize("more", [{}, {"generate": False}, {"previous_response_id": "resp_1"}])
async def test_each_turn_is_admitted_by_its_own_chain(
    provider: FakeProvider, house: House, more: dict[str, Any]
) -> None:
    provider.answer(script("Here."))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        refused = await turn(connection, model="locked", input="Hello", **more)
        assert (refused.status, refused.error.type) == (401, "authentication_error")
        assert text_of(await turn(connection, model=CLAUDE, input="Hello")) == "Here."


async def test_lanes_run_beside_one_another_and_each_in_order(provider: FakeProvider, house: House) -> None:
    provider.answer(script("slow", wait_s=0.3), script("quick"), script("after slow"))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        await connection.response.create(model=CLAUDE, input="1", stream_id="a", store=False)
        await provider.received(1)
        await connection.response.create(model=CLAUDE, input="2", stream_id="a", store=False)
        await connection.response.create(model=CLAUDE, input="3", stream_id='b"', store=False)
        ended: list[tuple[str, str]] = []
        numbers: dict[str, list[int]] = {"a": [], 'b"': []}
        async for event in connection:
            assert event.type != "error"
            numbers[event.stream_id].append(event.sequence_number)
            if event.type == "response.completed":
                ended.append((event.stream_id, text_of(event.response)))
                if len(ended) == 3:
                    last = event.response
                    break
        assert ended == [('b"', "quick"), ("a", "slow"), ("a", "after slow")]
        assert numbers['b"'] == list(range(len(numbers['b"'])))
        provider.answer(script("forked"))
        fork = await turn(connection, model=CLAUDE, input="4", previous_response_id=last.id, stream_id="c")
        assert text_of(fork) == "forked"
        assert "after slow" in json.dumps(provider.last.json)


async def test_steering_is_given_back(provider: FakeProvider, house: House) -> None:
    provider.answer(script("One two three", stall_after_last=False))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        await connection.response.steer(input="Shorter!", previous_response_id="resp_1")
        event = await connection.recv()
        assert (event.type, event.error.code) == ("response.steer.failed", "steering_not_supported")
        assert (event.steer.input, event.steer.previous_response_id) == ("Shorter!", "resp_1")
        assert text_of(await turn(connection, model=CLAUDE, input="Hello")) == "One two three"


@pytest.mark.parametrize("play", [{"stall_before": True}, {"stall_after": 3}], ids=["thinking", "talking"])
async def test_a_client_that_closes_ends_the_call(provider: FakeProvider, house: House, play: dict[str, Any]) -> None:
    provider.answer(script("One two three", **play))
    async with client(house) as sdk, sdk.responses.connect() as connection:
        await connection.response.create(model=CLAUDE, input="Hello")
        received = await provider.received(1)
        await received.answering.wait()
    await until(lambda: received.outcome == "aborted")


@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")  # the SDK's
async def test_the_blocking_client(provider: FakeProvider, house: House) -> None:
    provider.answer(script("I am Max."), script("Max."))

    def talk() -> str:
        sdk = openai.OpenAI(api_key=KEY, base_url=house.base + "/v1", max_retries=0, timeout=10)
        said = ""
        with sdk, sdk.responses.connect() as connection:
            previous: str | None = None
            for text in ("Who are you?", "Again?"):
                more: Any = {} if previous is None else {"previous_response_id": previous}
                connection.response.create(model=CLAUDE, input=text, store=False, **more)
                for event in connection:
                    if event.type == "response.output_text.delta":
                        said += event.delta
                    elif event.type == "response.completed":
                        previous = event.response.id
                        break
        return said

    assert await asyncio.to_thread(talk) == "I am Max.Max."


PAGE: Final = Path(__file__).parents[2] / "docs/websocket.md"


async def test_the_examples_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = """
    upstreams: {sim: {adapter: simulator}}
    routes: [{name: demo, match: {model: demo}, to: sim}]
    """
    ours, theirs = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    async with serving(tmp_path, rules) as house:
        for example in (
            "async def main():\n" + textwrap.indent(ours, "    "),
            theirs.replace("asyncio.run(main())", ""),
        ):
            names: dict[str, Any] = {}
            exec(example.replace("127.0.0.1:8080", f"127.0.0.1:{house.port}"), names)
            await names["main"]()
            assert capsys.readouterr().out.strip()
