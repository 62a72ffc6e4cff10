"""The state of the Responses API without a server that has any: OpenAI's SDK over sockets, to providers that keep nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import aiohttp
import openai
import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import Redacted, Say, Think, Tokens, Use, script
from ..server.house import House, serving

RULES: Final = """
upstreams:
  claude: {adapter: anthropic, base_url: "%(base)s", key: env:TEST_PROVIDER_KEY}
  chat: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY}
  native: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY, formats: [openai.responses]}
chains:
  base: [{auth: {keys: [
    {name: one, key: env:KEY_ONE, tenant: red}, {name: other, key: env:KEY_OTHER, tenant: blue},
    {name: mate, key: env:KEY_MATE, tenant: red}]}}]
%(more)s
routes:
  - {name: theirs, match: {model: theirs}, chain: base, to: native, responses: {state: upstream}}
  - {name: none-claude, match: {model: none-claude}, chain: base, to: claude, responses: {state: none}}
  - {name: none, match: {model: none}, chain: base, to: native, responses: {state: none}}
  - {name: native, match: {model: "gpt-*"}, chain: base, to: native}
  - {name: chat, match: {model: "chat-*"}, chain: base, to: chat}
  - {name: claude, chain: base, to: claude}
"""
CLAUDE: Final = "claude-fake-4-5"
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


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONE", "OTHER", "MATE"):
        monkeypatch.setenv(f"KEY_{name}", f"secret-{name.lower()}-000000")


@asynccontextmanager
async def gateway(provider: FakeProvider, directory: Path, more: str = "") -> AsyncIterator[House]:
    async with serving(directory, RULES % {"base": provider.base, "more": more}) as house:
        yield house
        await house.idle()


@pytest.fixture
async def house(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[House]:
    async with gateway(provider, tmp_path) as each:
        yield each


def client(house: House, key: str = "one") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=f"secret-{key}-000000", base_url=house.base + "/v1", max_retries=0, timeout=10)


async def ask(sdk: openai.AsyncOpenAI, stream: bool, **arguments: Any) -> Any:
    if not stream:
        return await sdk.responses.create(**arguments)
    async with sdk.responses.stream(**arguments) as events:
        return await events.get_final_response()


def output(call: Any, text: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


def calls_of(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_five_turns_over_anthropic(provider: FakeProvider, house: House, stream: bool) -> None:
    provider.answer(
        script(Think("Two things to find out."), Use("look", '{"at": "Köln"}'), Use("now", '{"at": "Köln"}')),
        script(Think("One more."), Say("So far so good."), Use("look", '{"at": "Rome"}')),
        script(Think("Now I know."), "Rain there, sun here."),
        script(Redacted("b3BhcXVl"), "It is late."),
        script("Bye."),
    )
    usual: dict[str, Any] = {"model": CLAUDE, "tools": TOOLS, "reasoning": {"effort": "high"}}
    if not stream:
        usual["max_output_tokens"] = 64_000
    async with client(house) as sdk:
        first = await ask(sdk, stream, input="How is it?", instructions="Be terse.", **usual)
        results = [output(call, f"result {number}") for number, call in enumerate(calls_of(first))]
        assert len(results) == 2
        second = await ask(sdk, stream, input=results, previous_response_id=first.id, **usual)
        third = await ask(
            sdk, stream, input=[output(calls_of(second)[0], "rain")], previous_response_id=second.id, **usual
        )
        assert third.output_text == "Rain there, sun here."
        fourth = await ask(sdk, stream, input="What time?", previous_response_id=third.id, **usual)
        fifth = await ask(sdk, stream, input="Bye.", previous_response_id=fourth.id, **usual)
        assert fifth.output_text == "Bye."

    bodies = [received.json for received in provider.requests]
    assert "Be terse." in json.dumps(bodies[0])
    assert not any("Be terse." in json.dumps(body) for body in bodies[1:])  # instructions are not inherited
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


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", ["gpt-x", "chat-x", CLAUDE])
async def test_a_conversation_at_every_kind_of_provider(
    provider: FakeProvider, house: House, model: str, stream: bool
) -> None:
    provider.answer(script("My name is Max."), script("It is Max."))
    async with client(house) as sdk:
        first = await ask(sdk, stream, model=model, input="Who are you?")
        second = await ask(sdk, stream, model=model, input="And again?", previous_response_id=first.id)
        assert second.output_text == "It is Max."
        assert (await sdk.responses.retrieve(second.id)).output_text == "It is Max."
    sent = provider.last.json
    assert "previous_response_id" not in sent
    said = json.dumps(sent)
    assert said.index("Who are you?") < said.index("My name is Max.") < said.index("And again?")


async def test_items_by_reference(provider: FakeProvider, house: House) -> None:
    """As Vercel's AI SDK brings back a turn: by the ids of its items."""
    provider.answer(script(Think("Hm."), "Let me look.", Use("look", '{"at": "Rome"}')), script("Rain."))
    async with client(house) as sdk:
        first = await ask(sdk, True, model=CLAUDE, input="How is it?", tools=TOOLS)
        user = {"role": "user", "content": "How is it?"}
        referred: list[Any] = [{"type": "item_reference", "id": item.id} for item in first.output]
        whole = [user, *referred, output(calls_of(first)[0], "rain")]
        second = await ask(sdk, False, model=CLAUDE, input=whole, tools=TOOLS)
        assert second.output_text == "Rain."
        blocks = provider.last.json["messages"][1]["content"]
        assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
        async with client(house, "other") as other:
            for sdk_of, id in ((other, referred[0]["id"]), (sdk, "rs_none")):
                with pytest.raises(openai.NotFoundError) as refused:
                    await sdk_of.responses.create(model=CLAUDE, input=[{"type": "item_reference", "id": id}])
                assert (refused.value.param, refused.value.code) == ("input", None)
        listed = [item async for item in sdk.responses.input_items.list(second.id, order="asc")]
        assert [item.id for item in listed][1:4] == [item.id for item in first.output]


async def test_an_id_alone_refers_to_an_item(provider: FakeProvider, house: House) -> None:
    provider.answer(script("One."), script("Two."))
    async with client(house) as sdk:
        first = await ask(sdk, False, model=CLAUDE, input="1")
        said: list[Any] = [
            {"role": "user", "content": "1"},
            {"id": first.output[0].id},
            {"role": "user", "content": "2"},
        ]
        await ask(sdk, False, model=CLAUDE, input=said)
        assert [message["role"] for message in provider.last.json["messages"]] == ["user", "assistant", "user"]
        with pytest.raises(openai.NotFoundError):
            await ask(sdk, False, model=CLAUDE, input=[{"id": "msg_of_nobody"}, *said])


async def test_tokens_are_counted_of_the_whole_conversation(provider: FakeProvider, house: House) -> None:
    async with client(house) as sdk:
        first = await ask(sdk, False, model="chat-x", input="How is it? " * 50)
        alone = await sdk.responses.input_tokens.count(model="chat-x", input="More.")
        whole = await sdk.responses.input_tokens.count(model="chat-x", input="More.", previous_response_id=first.id)
        assert whole.input_tokens > alone.input_tokens + 100


async def test_what_is_not_expanded_goes_out_as_it_came(provider: FakeProvider, house: House) -> None:
    body = b'{ "model": "gpt-x",  "input": "Hi." , "store": true}'
    headers = {"Authorization": "Bearer secret-one-000000", "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as http:
        response = await http.post(house.base + "/v1/responses", data=body, headers=headers)
        answer = await response.read()
        assert provider.last.raw == body
        assert answer == provider.last.body
        kept = await http.get(f"{house.base}/v1/responses/{json.loads(answer)['id']}", headers=headers)
        assert (await kept.read(), kept.headers["Content-Type"]) == (answer, "application/json")


async def test_one_answer_may_be_gone_on_from_twice(provider: FakeProvider, house: House) -> None:
    async with client(house) as sdk:
        first = await ask(sdk, False, model=CLAUDE, input="Root.")
        for leaf in ("Left.", "Right."):
            await ask(sdk, False, model=CLAUDE, input=leaf, previous_response_id=first.id)
            assert [message["role"] for message in provider.last.json["messages"]] == ["user", "assistant", "user"]
        assert "Left." not in json.dumps(provider.last.json)


async def test_tenants_see_their_own(provider: FakeProvider, house: House) -> None:
    async with AsyncExitStack() as stack:
        one, mate, other, stranger = [
            await stack.enter_async_context(client(house, key)) for key in ("one", "mate", "other", "nobody")
        ]
        kept = await one.responses.create(model=CLAUDE, input="A secret.")
        assert (await mate.responses.retrieve(kept.id)).id == kept.id
        await mate.responses.create(model=CLAUDE, input="More.", previous_response_id=kept.id)
        count = len(provider.requests)
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(kept.id)
        with pytest.raises(openai.NotFoundError):
            await other.responses.delete(kept.id)
        with pytest.raises(openai.NotFoundError):
            await other.responses.input_items.list(kept.id)
        with pytest.raises(openai.NotFoundError) as refused:
            await other.responses.create(model=CLAUDE, input="?", previous_response_id=kept.id)
        assert refused.value.code == "previous_response_not_found"
        for attempt in (
            stranger.responses.retrieve(kept.id),
            stranger.responses.create(model=CLAUDE, input="?", previous_response_id=kept.id),
        ):
            with pytest.raises(openai.AuthenticationError):
                await attempt
        assert len(provider.requests) == count
        assert (await one.responses.retrieve(kept.id)).output_text == "Hello!"


async def test_an_unknown_id_in_the_words_of_the_api(provider: FakeProvider, house: House) -> None:
    headers = {"Authorization": "Bearer secret-one-000000"}
    async with aiohttp.ClientSession(headers=headers) as http:
        body = {"model": CLAUDE, "input": "Hi.", "previous_response_id": "resp_none"}
        for stream in (False, True):
            response = await http.post(house.base + "/v1/responses", json={**body, "stream": stream})
            assert response.status == 404
            assert await response.json() == {
                "error": {
                    "message": "Previous response with id 'resp_none' not found.",
                    "type": "invalid_request_error",
                    "param": "previous_response_id",
                    "code": "previous_response_not_found",
                }
            }
        for path, method in (("", "GET"), ("", "DELETE"), ("/input_items", "GET"), ("/cancel", "POST")):
            response = await http.request(method, f"{house.base}/v1/responses/resp_none{path}")
            assert response.status == 404
            assert await response.json() == {
                "error": {
                    "message": "Response with id 'resp_none' not found.",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": None,
                }
            }
    assert provider.requests == []


@pytest.mark.parametrize(
    "members", [{"previous_response_id": "resp_nope"}, {"background": True}, {"input": [{"id": "msg_nope"}]}]
)
async def test_what_is_refused_before_the_chain_is_logged(
    house: House, caplog: pytest.LogCaptureFixture, members: dict[str, Any]
) -> None:
    async with client(house) as sdk:
        with pytest.raises(openai.APIStatusError) as refused:
            await ask(sdk, False, **{"model": CLAUDE, "input": "Hi."} | members)
    request_id = refused.value.response.headers["x-request-id"]
    lines = [record.getMessage() for record in caplog.records if request_id in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("POST /v1/responses refused: ")


@pytest.mark.parametrize(
    ("model", "store", "lost"), [(CLAUDE, True, None), ("none-claude", True, "store"), (CLAUDE, False, None)]
)
async def test_what_is_kept_here_is_not_lost(
    provider: FakeProvider, house: House, model: str, store: bool, lost: str | None
) -> None:
    async with client(house) as sdk:
        told = await sdk.responses.with_raw_response.create(model=model, input="Hi.", store=store)
    assert told.headers.get("headgate-loss") == lost


async def test_what_is_not_to_be_kept_is_not(provider: FakeProvider, house: House) -> None:
    async with client(house) as sdk:
        for stream in (False, True):
            answer = await ask(sdk, stream, model=CLAUDE, input="Forget this.", store=False)
            with pytest.raises(openai.NotFoundError):
                await sdk.responses.retrieve(answer.id)
        kept = await ask(sdk, False, model=CLAUDE, input="Keep this.")
        again = await ask(sdk, False, model=CLAUDE, input="Not this.", store=False, previous_response_id=kept.id)
        assert len(provider.last.json["messages"]) == 3
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(again.id)


async def test_an_answer_that_broke_off_is_not_kept(provider: FakeProvider, house: House) -> None:
    provider.answer(script("Half of ", cut_after=5))
    async with client(house) as sdk:
        with pytest.raises(RuntimeError, match="receive a"):
            await ask(sdk, True, model=CLAUDE, input="Hi.")
    store = house.gateway.plan.routes[-1].responses
    assert store is not None
    assert len(store.store) == 0  # type: ignore[arg-type]  # the memory store has a length


async def test_an_answer_cut_short_by_its_limit_is_kept(provider: FakeProvider, house: House) -> None:
    provider.answer(script("Half of ", stop="length"), script("Half of ", stop="length"))
    async with client(house) as sdk:
        answer = await sdk.responses.create(model=CLAUDE, input="Hi.")
        assert (await sdk.responses.retrieve(answer.id)).status == answer.status == "incomplete"
        events = [event async for event in await sdk.responses.create(model=CLAUDE, input="Hi.", stream=True)]
        told = events[-1]
        assert told.type == "response.incomplete"
        assert (await sdk.responses.retrieve(told.response.id)).output_text == "Half of "


async def test_deletion_and_input_items(provider: FakeProvider, house: House) -> None:
    provider.answer(script(Use("look", '{"at": "Rome"}', id="call_1")), script("Rain."))
    async with client(house) as sdk:
        first = await ask(sdk, False, model=CLAUDE, input="How is it?", tools=TOOLS)
        second = await ask(
            sdk, False, model=CLAUDE, input=[output(calls_of(first)[0], "rain")], previous_response_id=first.id
        )
        listed = [item async for item in sdk.responses.input_items.list(second.id, order="asc", limit=1)]
        assert [item.type for item in listed] == ["message", "function_call", "function_call_output"]
        newest = [item async for item in sdk.responses.input_items.list(second.id, limit=2)]
        assert newest == listed[::-1]
        assert listed[0].content[0].text == "How is it?"
        page = await sdk.responses.input_items.list(second.id, order="asc", limit=1, after=listed[0].id)
        assert (page.data, page.has_more) == ([listed[1]], True)
        for bad in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "none"}):
            with pytest.raises(openai.BadRequestError):
                await sdk.responses.input_items.list(second.id, **bad)
        await sdk.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(first.id)
        reference: Any = {"type": "item_reference", "id": first.output[0].id}
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.create(model=CLAUDE, input=[reference])
        assert (await sdk.responses.retrieve(second.id)).output_text == "Rain."
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
            await sdk.responses.cancel(second.id)


async def test_an_answer_told_once_more_as_a_stream(provider: FakeProvider, house: House) -> None:
    provider.answer(script(Think("Hm."), "It rains.", Use("look", '{"at": "Rome"}'), tokens=Tokens(7, 0, 0, 3)))
    async with client(house) as sdk:
        answer = await ask(sdk, True, model=CLAUDE, input="How is it?", tools=TOOLS)
        events = [event async for event in await sdk.responses.retrieve(answer.id, stream=True)]
        assert events[0].type == "response.created"
        assert events[-1].type == "response.completed"
        told, kept = events[-1].response, await sdk.responses.retrieve(answer.id)
        assert (told.output, told.usage, told.id) == (kept.output, kept.usage, kept.id)
        numbers = [event.sequence_number for event in events]
        assert numbers == list(range(len(events)))
        rest = await sdk.responses.retrieve(answer.id, stream=True, starting_after=numbers[4])
        assert [event.sequence_number async for event in rest] == numbers[5:]
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.retrieve(answer.id, stream=True, extra_query={"starting_after": "x"})


async def test_what_needs_more_state_than_there_is(provider: FakeProvider, house: House) -> None:
    async with client(house) as sdk:
        for more in ({"background": True}, {"conversation": "conv_1"}, {"conversation": {"id": "conv_1"}}):
            with pytest.raises(openai.InternalServerError) as refused:
                await sdk.responses.create(model=CLAUDE, input="Hi.", **more)
            assert (refused.value.status_code, refused.value.param) == (501, next(iter(more)))
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.create(model=CLAUDE, input="Hi.", conversation="a", previous_response_id="b")
        for wrong in ({"previous_response_id": 5}, {"store": "yes"}):
            with pytest.raises(openai.BadRequestError):
                await sdk.responses.create(model=CLAUDE, input="Hi.", extra_body=wrong)
        await sdk.responses.create(model=CLAUDE, input="Hi.", background=False)
    assert len(provider.requests) == 1


async def test_a_provider_that_keeps_state_itself_is_left_alone(provider: FakeProvider, house: House) -> None:
    async with client(house) as sdk:
        first = await sdk.responses.create(model="theirs", input="Hi.")
        await sdk.responses.create(model="theirs", input="More.", previous_response_id=first.id, store=True)
        assert provider.last.json["previous_response_id"] == first.id
        assert provider.last.json["input"] == "More."
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(first.id)


async def test_a_route_that_keeps_nothing(provider: FakeProvider, house: House) -> None:
    async with client(house) as sdk:
        first = await sdk.responses.create(model="none", input="Hi.")
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(first.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.create(model="none", input="More.", previous_response_id=first.id)


DISK: Final = "stores: {disk: {kind: sqlite, path: state.db}}\ndefaults: {responses: {store: disk}}\n"


async def test_a_restart(provider: FakeProvider, tmp_path: Path) -> None:
    provider.answer(script("My name is Max."), script("Max."))
    async with gateway(provider, tmp_path, DISK) as house, client(house) as sdk:
        first = await ask(sdk, True, model=CLAUDE, input="Who are you?")
    async with gateway(provider, tmp_path, DISK) as house, client(house) as sdk:
        second = await ask(sdk, False, model=CLAUDE, input="Again?", previous_response_id=first.id)
        assert second.output_text == "Max."
        assert len(provider.last.json["messages"]) == 3
        async with client(house, "other") as other:
            with pytest.raises(openai.NotFoundError):
                await other.responses.retrieve(first.id)


@pytest.mark.parametrize("more", ["", DISK], ids=["memory", "sqlite"])
async def test_a_reload(provider: FakeProvider, tmp_path: Path, more: str) -> None:
    async with gateway(provider, tmp_path, more) as house, client(house) as sdk:
        first = await ask(sdk, False, model=CLAUDE, input="Hi.")
        for _ in range(3):
            await house.gateway.reload()
        await ask(sdk, False, model=CLAUDE, input="More.", previous_response_id=first.id)
        assert len(provider.last.json["messages"]) == 3


async def test_an_answer_expires(provider: FakeProvider, tmp_path: Path) -> None:
    more = "defaults: {responses: {ttl: 20ms}}\n"
    async with gateway(provider, tmp_path, more) as house, client(house) as sdk:
        first = await ask(sdk, False, model=CLAUDE, input="Hi.")
        policy = house.gateway.plan.routes[-1].responses
        assert policy is not None
        assert policy.ttl_s == 0.02
        await asyncio.sleep(0.03)
        with pytest.raises(openai.NotFoundError):
            await ask(sdk, False, model=CLAUDE, input="More.", previous_response_id=first.id)


async def test_another_providers_reasoning_is_left_out_where_it_is_of_no_use(
    provider: FakeProvider, house: House
) -> None:
    provider.answer(script(Think("Hm."), "Hello."), script("Hi."), script("Hi."))
    async with client(house) as sdk:
        first = await ask(sdk, False, model=CLAUDE, input="Hi.")
        assert "signed:" in json.dumps(first.model_dump(mode="json"))
        for model in ("gpt-x", "chat-x"):
            await ask(sdk, False, model=model, input="More.", previous_response_id=first.id)
            assert "signed:" not in json.dumps(provider.last.json)
            assert "Hello." in json.dumps(provider.last.json)


async def test_another_providers_reasoning_that_a_client_brings_itself(provider: FakeProvider, house: House) -> None:
    provider.answer(script(Think("Hm."), "Hello."), script("Hi."), script("Hi."))
    async with client(house) as sdk:
        first = await ask(sdk, False, model=CLAUDE, input="Hi.", store=False)
        told = [item.model_dump(mode="json", exclude_none=True) for item in first.output]
        assert "signed:" in json.dumps(told)
        said = [{"role": "user", "content": "Hi."}, *told, {"role": "user", "content": "More."}]
        for model in ("gpt-x", "theirs"):
            await ask(sdk, False, model=model, input=said, store=False)
            assert "signed:" not in json.dumps(provider.last.json)
            assert "Hello." in json.dumps(provider.last.json)


async def test_the_whole_conversation_must_fit(provider: FakeProvider, tmp_path: Path) -> None:
    async with gateway(provider, tmp_path, "server: {max_body: 2KB}\n") as house, client(house) as sdk:
        first = await ask(sdk, False, model=CLAUDE, input="x" * 1500)
        with pytest.raises(openai.APIStatusError) as refused:
            await ask(sdk, False, model=CLAUDE, input="y" * 1500, previous_response_id=first.id)
        assert refused.value.status_code == 413


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_response_repeats_what_was_asked(provider: FakeProvider, house: House, stream: bool) -> None:
    provider.answer(script("One."), script("Two."))
    asked: dict[str, Any] = {
        "model": CLAUDE,
        "instructions": "Be terse.",
        "metadata": {"ticket": "42"},
        "max_output_tokens": 500,
        "temperature": 0.5,
        "tools": TOOLS,
        "tool_choice": "auto",
        "truncation": "disabled",
        "store": True,
    }
    async with client(house) as sdk:
        first = await ask(sdk, stream, input="a", **asked)
        second = await ask(sdk, stream, input="b", previous_response_id=first.id, **asked)
        found = await sdk.responses.retrieve(second.id)
    del asked["model"]
    for response in (second, found):
        told = response.model_dump(mode="json", exclude_unset=True)
        assert {name: told.get(name) for name in asked} == asked
        assert response.previous_response_id == first.id


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_caller_with_one_request_id_for_all(provider: FakeProvider, house: House, stream: bool) -> None:
    """Items are found by their ids: those of two answers must differ, whatever the caller calls its requests."""
    provider.answer(script("One."), script("Two."), script("Three."))
    async with client(house) as sdk:
        mine = {"x-request-id": "session-7"}
        first, second = [await ask(sdk, stream, model="chat-m", input=word, extra_headers=mine) for word in "ab"]
        assert first.output[0].id != second.output[0].id
        reference: Any = {"type": "item_reference", "id": first.output[0].id}
        await sdk.responses.create(model="chat-m", input=[reference, {"role": "user", "content": "c"}])
    assert "One." in json.dumps(provider.last.json)
