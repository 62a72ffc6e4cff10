"""Signed reasoning for callers whose format has no room for it: kept by the gateway, and back in its place on the next turn."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import aiohttp
import openai
import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import Redacted, Say, Script, Think, Use, script
from ..server.house import House, serving
from .talk import OpenAITalk

RULES: Final = """
upstreams:
  claude: {adapter: anthropic, base_url: "%(base)s", key: env:TEST_PROVIDER_KEY}
  twin: {adapter: anthropic, base_url: "%(base)s", key: env:TEST_PROVIDER_KEY, reasoning: {remember: false}}
  google: {adapter: gemini, base_url: "%(base)s", key: env:TEST_PROVIDER_KEY}
  native: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY, formats: [openai.responses]}
chains:
  base: [{auth: {keys: [{name: one, key: env:KEY_ONE}, {name: other, key: env:KEY_OTHER}]}}]
%(more)s
routes:
  - {name: silent, match: {model: silent}, chain: base, to: claude/claude-fake-4-5, remember_reasoning: false}
  - {name: twin, match: {model: twin}, chain: base, to: twin/claude-fake-4-5}
  - {name: google, match: {model: "gemini-*"}, chain: base, to: google}
  - {name: native, match: {model: "gpt-*"}, chain: base, to: native}
  - {name: claude, chain: base, to: claude}
"""
CLAUDE: Final = "claude-fake-4-5"
GEMINI: Final = "gemini-3-fake"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONE", "OTHER"):
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


def talk(sdk: openai.AsyncOpenAI, model: str, stream: bool = False) -> OpenAITalk:
    conversation = OpenAITalk(sdk, model, stream)
    conversation.tools("look", "now")
    conversation.options["reasoning_effort"] = "high"
    if model in (CLAUDE, "silent", "twin"):
        conversation.options["max_completion_tokens"] = 64_000
    return conversation


def turns(provider: FakeProvider) -> list[list[Any]]:
    return [message["content"] for message in provider.last.json["messages"] if message["role"] == "assistant"]


def kinds(provider: FakeProvider) -> list[list[str]]:
    return [[block["type"] for block in blocks] for blocks in turns(provider)]


def forget_reasoning(conversation: OpenAITalk) -> None:
    """As clients do that keep nothing but the words."""
    plain = []
    for message in conversation.messages:
        told = message if isinstance(message, dict) else message.model_dump(exclude_none=True)
        plain.append({name: value for name, value in told.items() if name != "reasoning_content"})
    conversation.messages = plain


@pytest.mark.parametrize("more", ["", "stores: {default: {kind: sqlite, path: state.db}}\n"], ids=["memory", "sqlite"])
@pytest.mark.parametrize("brings", [True, False], ids=["with words", "without"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_three_turns_over_anthropic(
    provider: FakeProvider, tmp_path: Path, stream: bool, brings: bool, more: str
) -> None:
    provider.answer(
        script(
            Think("Two things."),
            Say("First. "),
            Think("And."),
            Use("look", '{"at": "Köln"}'),
            Use("now", '{"at": "a"}'),
        ),
        script(Redacted("b3BhcXVl"), Use("look", '{"at": "Rome"}')),
        script(Think("Now I know."), "Rain."),
        script("Bye."),
    )
    async with gateway(provider, tmp_path, more) as house, client(house) as sdk:
        conversation = talk(sdk, CLAUDE, stream)
        conversation.say("How is it?")
        heard = await conversation.hear()
        for results in ("one", "two"):
            conversation.give({id: f"{results} {id}" for id, _, _ in heard.calls})
            if not brings:
                forget_reasoning(conversation)
            heard = await conversation.hear()
        conversation.say("Bye.")
        if not brings:
            forget_reasoning(conversation)
        await conversation.hear()
    assert kinds(provider) == [
        ["thinking", "text", "thinking", "tool_use", "tool_use"],
        ["redacted_thinking", "tool_use"],
        ["thinking", "text"],
    ]
    bodies = [received.json["messages"] for received in provider.requests]
    for earlier, later in pairwise(bodies):
        assert later[: len(earlier)] == earlier
    signed = [block for blocks in turns(provider) for block in blocks if block["type"] == "thinking"]
    assert {block["signature"]: block["thinking"] for block in signed} == provider.issued.signatures


async def asked(house: House, body: dict[str, Any], key: str = "one") -> dict[str, str]:
    """Send a request that need not come from an SDK; return the headers of the answer."""
    headers = {"Authorization": f"Bearer secret-{key}-000000"}
    async with aiohttp.ClientSession() as http:
        response = await http.post(house.base + "/v1/chat/completions", json=body, headers=headers)
        assert response.status == 200, await response.text()
        await response.read()
        return dict(response.headers)


HISTORY: Final[list[Any]] = [
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "More."},
]


async def began(provider: FakeProvider, house: House, model: str = CLAUDE) -> None:
    """One turn of a conversation that goes on as HISTORY."""
    provider.answer(script(Think("Polite."), "Hello."))
    assert "headgate-loss" not in await asked(house, {"model": model, "messages": HISTORY[:1]})


async def test_the_same_caller_and_model(provider: FakeProvider, house: House) -> None:
    await began(provider, house)
    assert "headgate-loss" not in await asked(house, {"model": CLAUDE, "messages": HISTORY})
    assert kinds(provider) == [["thinking", "text"]]


async def test_another_model_is_not_told_and_the_ledger_says_so(provider: FakeProvider, house: House) -> None:
    await began(provider, house)
    headers = await asked(house, {"model": "claude-other-4-5", "messages": HISTORY})
    assert headers["headgate-loss"] == "messages[1]"
    assert "signature" not in json.dumps(provider.last.json)
    assert turns(provider) in (["Hello."], [[{"type": "text", "text": "Hello."}]])


async def test_another_tenant_is_not_told(provider: FakeProvider, house: House) -> None:
    await began(provider, house)
    assert "headgate-loss" not in await asked(house, {"model": CLAUDE, "messages": HISTORY}, "other")
    assert "signature" not in json.dumps(provider.last.json)


async def test_words_that_were_changed_are_another_turn(provider: FakeProvider, house: House) -> None:
    await began(provider, house)
    changed = [HISTORY[0], {"role": "assistant", "content": "Good day."}, HISTORY[2]]
    await asked(house, {"model": CLAUDE, "messages": changed})
    assert "signature" not in json.dumps(provider.last.json)


@pytest.mark.parametrize("model", ["silent", "twin"])
async def test_routes_and_upstreams_may_do_without(provider: FakeProvider, house: House, model: str) -> None:
    await began(provider, house, model)
    await asked(house, {"model": model, "messages": HISTORY})
    assert "signature" not in json.dumps(provider.last.json)


async def test_what_broke_off_is_not_kept(provider: FakeProvider, house: House) -> None:
    provider.answer(script(Think("Polite."), "Hello.", cut_after=8))
    await asked(house, {"model": CLAUDE, "messages": HISTORY[:1], "stream": True})
    await asked(house, {"model": CLAUDE, "messages": HISTORY})
    assert "signature" not in json.dumps(provider.last.json)


async def test_a_caller_of_the_same_format_is_not_looked_at(provider: FakeProvider, house: House) -> None:
    await began(provider, house)
    body = b'{"model": "claude-fake-4-5", "max_tokens": 9,  "messages": %b}' % json.dumps(HISTORY).encode()
    headers = {"x-api-key": "secret-one-000000", "content-type": "application/json"}
    async with aiohttp.ClientSession() as http:
        response = await http.post(house.base + "/v1/messages", data=body, headers=headers)
        assert await response.read() == provider.last.body
    assert provider.last.raw == body


# -- Gemini, whose signatures stand on calls and texts


def gemini(*parts: dict[str, Any], stream: bool) -> Script:
    """An answer of Gemini's, as "Thought signatures" shows it (published example, 2026-11-21)."""
    pieces = [[part] for part in parts] if stream else [list(parts)]
    answers = [
        {
            "candidates": [{"content": {"parts": piece, "role": "model"}, "index": 0}],
            "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 5, "totalTokenCount": 10},
            "modelVersion": GEMINI,
            "responseId": "r1",
        }
        for piece in pieces
    ]
    answers[-1]["candidates"][0]["finishReason"] = "STOP"  # type: ignore[index]
    if not stream:
        return Script(wire=json.dumps(answers[0]).encode())
    wire = b"".join(b"data: %b\r\n\r\n" % json.dumps(answer).encode() for answer in answers)
    return Script(wire=wire, content_type="text/event-stream")


def call(name: str, signature: str | None = None) -> dict[str, Any]:
    told: dict[str, Any] = {"functionCall": {"name": name, "args": {"at": "Köln"}}}
    return told if signature is None else {**told, "thoughtSignature": signature}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_three_turns_over_gemini(provider: FakeProvider, house: House, stream: bool) -> None:
    provider.answer(
        gemini({"text": "Hm.", "thought": True}, call("look", "c2lnMQ=="), call("now"), stream=stream),
        gemini(call("look", "c2lnMg=="), stream=stream),
        gemini({"text": "Rain."}, {"text": "", "thoughtSignature": "c2lnMw=="}, stream=stream),
        gemini({"text": "Bye."}, stream=stream),
    )
    async with client(house) as sdk:
        conversation = talk(sdk, GEMINI, stream)
        conversation.say("How is it?")
        heard = await conversation.hear()
        assert len(heard.calls) == 2
        for _ in range(2):
            conversation.give({id: "rain" for id, _, _ in heard.calls})
            heard = await conversation.hear()
        assert heard.text == "Rain."
        conversation.say("Bye.")
        await conversation.hear()
    contents = provider.last.json["contents"]
    told = [part for content in contents if content["role"] == "model" for part in content["parts"]]
    assert [part.get("thoughtSignature") for part in told if not part.get("thought")] == [
        "c2lnMQ==",
        None,
        "c2lnMg==",
        None,
        "c2lnMw==",
    ]
    assert "skip_thought_signature_validator" not in provider.last.raw.decode()
    bodies = [received.json["contents"] for received in provider.requests]
    for earlier, later in pairwise(bodies):
        assert later[: len(earlier)] == earlier


THOUGHT: Final[dict[str, Any]] = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}],
    "encrypted_content": "gAAAA-secret",
}


def thinks_and_calls(*thoughts: dict[str, Any]) -> Script:
    """An answer of openai.responses that calls a tool."""
    called = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "look"}
    answer = {
        "id": "resp_1",
        "object": "response",
        "created_at": 5,
        "status": "completed",
        "model": "gpt-x",
        "output": [*thoughts, {**called, "arguments": "{}"}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    return Script(wire=json.dumps(answer).encode())


async def test_encrypted_reasoning_of_openai(provider: FakeProvider, house: House) -> None:
    provider.answer(thinks_and_calls(THOUGHT), script("Rain."))
    async with client(house) as sdk:
        conversation = talk(sdk, "gpt-x")
        conversation.say("How is it?")
        heard = await conversation.hear()
        conversation.give({id: "rain" for id, _, _ in heard.calls})
        assert (await conversation.hear()).text == "Rain."
    kinds_sent = [item.get("type", "message") for item in provider.last.json["input"]]
    assert kinds_sent[-3:] == ["reasoning", "function_call", "function_call_output"]
    back = provider.last.json["input"][-3]
    assert (back["encrypted_content"], back["summary"]) == (THOUGHT["encrypted_content"], THOUGHT["summary"])
    for received in provider.requests:  # else there would be nothing to put back, and the answer would be stored
        assert received.json["include"] == ["reasoning.encrypted_content"]
        assert received.json["store"] is False


@pytest.mark.parametrize("summary", [[], THOUGHT["summary"][:1], THOUGHT["summary"]], ids=["none", "one", "two"])
async def test_encrypted_reasoning_of_openai_for_callers_of_anthropic(
    provider: FakeProvider, house: House, summary: list[Any]
) -> None:
    thought = THOUGHT | {"summary": summary}
    provider.answer(thinks_and_calls(thought), script("Rain."), script("Bye."))
    look = {"name": "look", "input_schema": {"type": "object"}}
    thinking = {"type": "enabled", "budget_tokens": 2000}
    asked: dict[str, Any] = {"model": "gpt-x", "max_tokens": 8000, "tools": [look], "thinking": thinking}
    messages: list[Any] = [{"role": "user", "content": "How is it?"}]
    result = [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}]
    async with aiohttp.ClientSession(headers={"x-api-key": "secret-one-000000"}) as http:
        for said in (result, "Thanks.", None):
            async with http.post(house.base + "/v1/messages", json=asked | {"messages": messages}) as response:
                assert response.status == 200
                content = (await response.json())["content"]
            assert "gAAAA-secret" not in json.dumps(content)  # a field of Anthropic's is for what Anthropic signed
            messages += [{"role": "assistant", "content": content}, {"role": "user", "content": said}]
    bodies = [received.json["input"] for received in provider.requests]
    back = [item for item in bodies[2] if item.get("type") == "reasoning"]
    assert back == [{name: thought[name] for name in ("type", "summary", "encrypted_content")}]
    for earlier, later in pairwise(bodies):
        assert later[: len(earlier)] == earlier


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_caller_of_responses_over_gemini(provider: FakeProvider, house: House, stream: bool) -> None:
    """Its own state carries what was said; the signature of a call has no room in it."""
    provider.answer(gemini(call("look", "c2lnMQ=="), stream=stream), gemini({"text": "Rain."}, stream=stream))
    tools: list[Any] = [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}]
    async with client(house) as sdk:
        arguments: dict[str, Any] = {"model": GEMINI, "tools": tools}
        if stream:
            async with sdk.responses.stream(input="How is it?", **arguments) as events:
                first: Any = await events.get_final_response()
        else:
            first = await sdk.responses.create(input="How is it?", **arguments)
        result: Any = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "rain"}
        second = await sdk.responses.create(input=[result], previous_response_id=first.id, **arguments, stream=stream)
        if stream:
            assert [event.type async for event in second][-1] == "response.completed"
    told = [part for content in provider.last.json["contents"] for part in content["parts"]]
    assert [part.get("thoughtSignature") for part in told if "functionCall" in part] == ["c2lnMQ=="]
