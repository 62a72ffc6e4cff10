"""The provider inside the process: every directive, always the same answer, and no difference between stream and whole."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate import Gateway
from headgate.gateway.errors import KINDS, CallerError, GatewayError
from headgate.gateway.ir.fold import Response, fold
from headgate.gateway.ir.message import Reasoning, Text, ToolCall
from headgate.gateway.rules import RulesError

from ..server.house import CHAT, MESSAGES, body_of, load, serving

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "kind": {"enum": ["sun", "rain"]},
        "tags": {"type": "array", "items": {"type": "boolean"}},
        "deep": {"type": "object", "properties": {"x": {"type": ["number", "null"]}}},
        "either": {"anyOf": [{"const": 7}, {"type": "null"}]},
    },
}
FITTING = {"city": "text", "days": 1, "kind": "sun", "tags": [True], "deep": {"x": 1.5}, "either": 7}
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with load(tmp_path) as gateway:
        yield gateway


async def play(gateway: Gateway, text: str = "hi", *, stream: bool = True, **more: Any) -> Response:
    reply = await gateway.handle("openai.chat", body_of(text, stream=stream, **more))
    return fold([event for chunk in await reply.collect() for event in chunk.events])


def text_of(response: Response) -> str:
    return "".join(part.text for part in response.choices[0].parts if isinstance(part, Text))


DIRECTIVES: list[tuple[str, str, str]] = [
    ("hi there", "You said: hi there", "stop"),
    ("", "Hello from the simulator.", "stop"),
    ("/sim text something else\nhi", "something else", "stop"),
    ("  /sim text indented", "indented", "stop"),
    ("/sim truncate 2\none two three four", "You said: ", "length"),
    ("/sim truncate 99\none two", "You said: one two", "stop"),
    ("/sim text a  b   c", "a  b   c", "stop"),
    ("keep\n/sim delay 1ms\nthe rest", "You said: keep\nthe rest", "stop"),
    ("/simulate this", "You said: /simulate this", "stop"),
    ("/sim start 1ms\nx", "You said: x", "stop"),
]


@both
@pytest.mark.parametrize(("asked", "said", "stop"), DIRECTIVES)
async def test_what_it_says(gateway: Gateway, asked: str, said: str, stop: str, stream: bool) -> None:
    response = await play(gateway, asked, stream=stream)
    assert text_of(response) == said
    assert response.choices[0].reason == stop


@both
async def test_thinking(gateway: Gateway, stream: bool) -> None:
    response = await play(gateway, "/sim think first this\n/sim think then that\nhi", stream=stream)
    *thoughts, said = response.choices[0].parts
    assert [part.text for part in thoughts if isinstance(part, Reasoning)] == ["first this", "then that"]
    assert all(isinstance(part, Reasoning) and part.signature for part in thoughts)
    assert isinstance(said, Text)


@both
async def test_tools(gateway: Gateway, stream: bool) -> None:
    asked = '/sim tool look {"at": "Rome"}\n/sim tool wait\n/sim tool look {"a": 1.0}'
    response = await play(gateway, asked, stream=stream)
    calls = [part for part in response.choices[0].parts if isinstance(part, ToolCall)]
    assert [(call.name, call.arguments) for call in calls] == [
        ("look", '{"at": "Rome"}'),
        ("wait", "{}"),
        ("look", '{"a": 1.0}'),
    ]
    assert len({call.id for call in calls}) == 3
    assert response.choices[0].reason == "tool_calls"
    assert text_of(response) == ""
    spoken = await play(gateway, "/sim text Let me see.\n" + asked, stream=stream)
    assert text_of(spoken) == "Let me see."
    assert spoken.choices[0].reason == "tool_calls"


ERRORS = [
    (400, "invalid_request"),
    (401, "auth"),
    (404, "not_found"),
    (429, "rate_limit"),
    (500, "upstream_error"),
    (529, "overloaded"),
    (418, "upstream_error"),
]


@both
@pytest.mark.parametrize(("status", "kind"), ERRORS)
async def test_refusals(gateway: Gateway, status: int, kind: str, stream: bool) -> None:
    with pytest.raises(GatewayError) as caught:
        await play(gateway, f"/sim error {status} too many words", stream=stream)
    assert (caught.value.status, caught.value.kind, caught.value.message) == (status, kind, "too many words")
    with pytest.raises(GatewayError, match=str(status)):
        await play(gateway, f"/sim error {status}", stream=stream)


@pytest.mark.parametrize("kind", KINDS)
async def test_failures_in_the_middle(gateway: Gateway, kind: str) -> None:
    with pytest.raises(GatewayError) as caught:
        await play(gateway, f"/sim fail 3 {kind}\none two three")
    assert caught.value.kind == kind


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_cuts(gateway: Gateway, count: int) -> None:
    reply = await gateway.handle("openai.chat", body_of(f"/sim cut {count}\none two three", stream=True))
    seen = 0
    with pytest.raises(GatewayError) as caught:  # noqa: PT012  # the loop is what raises
        async for _ in reply:
            seen += 1
    assert (seen, caught.value.kind) == (count, "cut")


NONSENSE = [
    "/sim dance", "/sim error", "/sim error abc", "/sim error 200", "/sim error 99999", "/sim error 302",
    "/sim delay 5", "/sim delay", "/sim start soon", "/sim truncate x", "/sim truncate -1", "/sim cut -1", "/sim cut",
    "/sim fail 3", "/sim fail 3 nonsense", "/sim fail x cut", "/sim fail -1 cut", "/sim fail 3 'cut", "/sim tool",
]  # fmt: skip


@pytest.mark.parametrize("asked", NONSENSE)
async def test_what_nobody_can_follow(gateway: Gateway, asked: str) -> None:
    with pytest.raises(CallerError, match="simulator cannot follow") as caught:
        await play(gateway, asked + "\nhi")
    assert caught.value.status == 400
    assert gateway.in_flight == 0


async def test_only_the_last_user_message_directs(gateway: Gateway) -> None:
    messages = [
        {"role": "user", "content": "/sim error 500"},
        {"role": "assistant", "content": "/sim error 500"},
        {"role": "user", "content": "hi"},
    ]
    assert text_of(await play(gateway, messages=messages)) == "You said: hi"


@both
async def test_a_tool_loop(gateway: Gateway, stream: bool) -> None:
    asked: list[dict[str, Any]] = [{"role": "user", "content": '/sim tool look {"at": "Rome"}'}]
    first = await play(gateway, stream=stream, messages=asked)
    (call,) = first.choices[0].parts
    assert isinstance(call, ToolCall)
    function = {"name": call.name, "arguments": call.arguments}
    asked += [
        {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    assert text_of(await play(gateway, stream=stream, messages=asked)) == "The tool said: sunny"


def tool(name: str, schema: Any = SCHEMA) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


@both
@pytest.mark.parametrize(
    ("choice", "name"),
    [("required", "one"), ({"type": "function", "function": {"name": "two"}}, "two"), ("auto", None), ("none", None)],
)
async def test_forced_tools(gateway: Gateway, choice: Any, name: str | None, stream: bool) -> None:
    response = await play(gateway, stream=stream, tools=[tool("one"), tool("two")], tool_choice=choice)
    calls = [part for part in response.choices[0].parts if isinstance(part, ToolCall)]
    assert [call.name for call in calls] == ([] if name is None else [name])
    for call in calls:
        assert json.loads(call.arguments) == FITTING


@both
async def test_structured_output(gateway: Gateway, stream: bool) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    assert json.loads(text_of(await play(gateway, stream=stream, response_format=shape))) == FITTING
    assert json.loads(text_of(await play(gateway, stream=stream, response_format={"type": "json_object"}))) == {}


ODD_SCHEMAS: list[Any] = [
    {}, True, {"type": []}, {"type": "nonsense"}, {"properties": []}, {"type": "array", "items": 5}, {"enum": []},
    {"anyOf": []}, {"anyOf": {"a": 1}}, {"$ref": "#"}, {"type": {"a": 1}}, {"type": "array", "items": {"type": "array"}},
]  # fmt: skip


@pytest.mark.parametrize("schema", ODD_SCHEMAS, ids=json.dumps)
async def test_odd_schemas_are_no_fault_of_ours(gateway: Gateway, schema: Any) -> None:
    try:
        response = await play(gateway, tools=[tool("one", schema)], tool_choice="required")
    except CallerError:
        return
    (call,) = response.choices[0].parts
    assert isinstance(call, ToolCall)
    json.loads(call.arguments)


async def test_a_schema_without_an_end(gateway: Gateway) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        schema = {"type": "object", "properties": {"deeper": schema}}
    assert await play(gateway, tools=[tool("one", schema)], tool_choice="required")


async def test_the_same_request_the_same_answer(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    asked = '/sim think a b\n/sim text c d\n/sim tool look {"x": 1}\nhi'
    async with serving(tmp_path) as house:
        for path in (CHAT, MESSAGES):
            answers = []
            for text in (asked, asked, asked + "!"):
                response = await http.post(
                    house.base + path, data=body_of(text), headers={"Content-Type": "application/json"}
                )
                answer = await response.json()
                answer.pop("created", None)
                answers.append(answer)
            assert answers[0] == answers[1]
            assert answers[0]["id"] != answers[2]["id"]


@pytest.mark.parametrize("words", [1, 2, 7])
async def test_a_stream_folds_to_the_whole(tmp_path: Path, words: int) -> None:
    text = f"upstreams: {{sim: {{adapter: simulator, words: {words}}}}}\nroutes: [{{name: all, to: sim}}]"
    async with load(tmp_path, text) as gateway:
        for asked in ("one two three four five", "/sim think a b c\n/sim tool x {}\n/sim text d e", ""):
            one, other = [await play(gateway, asked, stream=stream) for stream in (False, True)]
            assert one == other
            usage = one.usage
            assert usage is not None
            assert usage.input_tokens == usage.uncached_input_tokens == len(asked.split())
            assert usage.output_tokens


async def test_a_script_of_the_rule_file(tmp_path: Path) -> None:
    sim = "{adapter: simulator, script: ['text by rule', 'think hm'], delay: 1ms}"
    text = f"upstreams: {{sim: {sim}}}\nroutes: [{{name: all, to: sim}}]"
    async with load(tmp_path, text) as gateway:
        assert text_of(await play(gateway)) == "by rule"
        assert text_of(await play(gateway, "/sim text by the caller")) == "by the caller"


@pytest.mark.parametrize("options", ["words: 0", "delay: 5", "script: text", "scripts: []"])
def test_options_that_cannot_be(tmp_path: Path, options: str) -> None:
    text = f"upstreams: {{sim: {{adapter: simulator, {options}}}}}\nroutes: [{{name: all, to: sim}}]"
    with pytest.raises(RulesError):
        load(tmp_path, text)


async def test_delays(gateway: Gateway) -> None:
    began = time.monotonic()
    await play(gateway, "/sim start 60ms\n/sim delay 5ms\none two three four")
    assert time.monotonic() - began >= 0.1
