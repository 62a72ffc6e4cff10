"""Untouched bytes stay untouched: same format in and out, over sockets; and arguments keep theirs across formats."""

from __future__ import annotations

import io
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from ..fakes.gateway import CALLER_KEY, Served
from ..fakes.provider import FakeProvider
from ..fakes.script import Use, script
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, Talk

PATHS = {OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}
HEADERS = {
    "Authorization": f"Bearer {CALLER_KEY}",
    "Content-Type": "application/json",
    "anthropic-version": "2023-06-01",
}
RENAMED = {OPENAI: ("renamed-gpt", "gpt-other"), ANTHROPIC: ("renamed-claude", "claude-fake-4-5")}
WATCHED = {OPENAI: ("x-gpt-5.4", "gpt-x"), ANTHROPIC: ("x-claude-1", "claude-fake-4-5")}
from_each = pytest.mark.parametrize("caller", PATHS)

# Odd on purpose: spacing, key order, escapes, numbers that a parser would respell, members nobody knows, doubled keys
# in a place nobody reads, and the word "model" where it is not the model.
ODD = (
    '{ "x_future" : {"b":1.0,"a":1e3, "model":"no", "deep":[[],{"":null}]},\n'
    '\t"messages":[ {"role" :"user","content":[{"type":"text","text":"model: \\u00fc \\/ \U0001f44b", "x_new": [1.50]}]} ],'
    '"model":  "%s" , "max_completion_tokens":\t64, "x_last":"\\"model\\"", "stream": %s }\r\n'
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


def odd(caller: str, model: str, stream: bool) -> bytes:
    text = ODD % (model, "true" if stream else "false")
    if caller == ANTHROPIC:
        text = text.replace("max_completion_tokens", "max_tokens").replace(', "x_new": [1.50]', "")
    else:
        text = text.replace(', "x_new": [1.50]', "")
    return text.encode()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["same", "renamed"])
@from_each
async def test_requests_are_sent_as_they_came(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, kind: str, stream: bool
) -> None:
    provider.extra = frozenset({"x_future", "x_last"})
    asked, sent = (MODELS[caller], MODELS[caller]) if kind == "same" else RENAMED[caller]
    response = await http.post(served.base + PATHS[caller], data=odd(caller, asked, stream), headers=HEADERS)
    assert response.status == 200, await response.text()
    assert provider.last.raw == odd(caller, sent, stream)
    assert await response.read() == provider.last.body


@from_each
async def test_asking_for_usage_changes_nothing_else(
    served: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str
) -> None:
    """A chain that watches usage has OpenAI's provider asked for it; the caller, who did not ask, never sees it."""
    provider.extra = frozenset({"x_future", "x_last"})
    asked, sent = WATCHED[caller]
    response = await http.post(served.base + PATHS[caller], data=odd(caller, asked, True), headers=HEADERS)
    answer = await response.read()
    if caller == ANTHROPIC:
        assert provider.last.raw == odd(caller, sent, True)
        assert answer == provider.last.body
        return
    before = provider.last.raw.partition(b'"stream_options"')[0]
    assert json.loads(provider.last.raw)["stream_options"] == {"include_usage": True}
    assert odd(caller, sent, True).rstrip()[:-1].startswith(before.rstrip(b" ,"))
    frames = provider.last.sent
    usage = [frame for frame in frames if b'"choices":[]' in frame]
    assert len(usage) == 1
    assert answer == b"".join(frame for frame in frames if frame not in usage)


NOISE: dict[str, list[bytes]] = {
    OPENAI: [b": keep-alive\n\n", b'data: {"object":"chat.completion.chunk","choices":[],"x_news":1.0}\n\n', b":\n\n"],
    ANTHROPIC: [b": hello\n\n", b'event: x_future\ndata: {"type": "x_future",  "v": 1.0}\n\n', b"id: 7\nretry: 10\n\n"],
}


def _noisy(provider: FakeProvider, caller: str) -> bytes:
    """A stream with comments, unknown events and unknown members in it."""
    from ..fakes import anthropic_api, openai_api

    play = script("Grüße 👋 und mehr", Use("look", '{"a":  1.0}'))
    if caller == OPENAI:
        frames = openai_api.frames(play, 1, "m", include_usage=True)
    else:
        frames = anthropic_api.frames(play, 1, "m", provider.issued)
    frames = [frame.replace(b'"index":0', b'"x_unknown" : [1.50, {}],"index":0') for frame in frames]
    for place, noise in zip((1, 3, 5), NOISE[caller], strict=True):
        frames.insert(place, noise)
    return b"".join(frames)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("piece", [0, 1, 3, 17, 100])
@from_each
async def test_streams_are_passed_on_as_they_came(
    standalone: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, piece: int, line_end: bytes
) -> None:
    wire = _noisy(provider, caller).replace(b"\n", line_end)
    provider.answer(script(wire=wire, piece=piece))
    body = {"model": MODELS[caller], "messages": [{"role": "user", "content": "hi"}], "stream": True}
    body |= {"max_tokens": 64} if caller == ANTHROPIC else {"stream_options": {"include_usage": True}}
    response = await http.post(standalone.base + PATHS[caller], json=body, headers=HEADERS)
    assert response.content_type == "text/event-stream"
    assert await response.read() == wire
    assert provider.last.body == wire


def _large_arguments() -> str:
    """1 MiB of JSON whose spelling a parser would not keep."""
    random.seed(7)
    alphabet = ["ä", "\\u00e4", "\\n", '\\"', "\\\\", "x", " ", "👋", "\\ud83d\\udc4b", "\u2028", "/", "\\/", "1"]
    text = "".join(random.choices(alphabet, k=600_000))
    arguments = '{"z": 1.0,  "a": 1e3, "n": 12345678901234567890, "text" :"' + text + '"}'
    assert len(arguments.encode()) > 1 << 20
    return arguments


LARGE = _large_arguments()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("to", MODELS)
@from_each
async def test_large_arguments_keep_their_bytes(
    standalone: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, to: str, stream: bool
) -> None:
    """Out with the answer, and back with the next turn: 1 MiB of arguments, byte for byte, for every pair of formats."""
    provider.answer(script(Use("write", LARGE, pieces=500), piece=0 if not stream else 9000))
    body: dict[str, Any] = {"model": MODELS[to], "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    schema = {"type": "object"}
    if caller == ANTHROPIC:
        body |= {"max_tokens": 64, "tools": [{"name": "write", "input_schema": schema}]}
    else:
        body |= {"tools": [{"type": "function", "function": {"name": "write", "parameters": schema}}]}
    response = await http.post(standalone.base + PATHS[caller], json=body, headers=HEADERS)
    answer = await response.read()
    assert response.status == 200
    call_id, arguments = (_openai_call if caller == OPENAI else _anthropic_call)(answer, stream)
    assert arguments == LARGE

    # Back: spliced into the body as text, since a JSON library would respell it.
    mark = '"%ARGUMENTS%"'
    if caller == OPENAI:
        call = {"id": call_id, "type": "function", "function": {"name": "write", "arguments": "%ARGUMENTS%"}}
        turns = [{"role": "assistant", "content": None, "tool_calls": [call]}]
        turns.append({"role": "tool", "tool_call_id": call_id, "content": "written"})
        spelled = json.dumps(LARGE)
    else:
        use = {"type": "tool_use", "id": call_id, "name": "write", "input": "%ARGUMENTS%"}
        turns = [{"role": "assistant", "content": [use]}]
        turns.append(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": "written"}]}
        )
        spelled = LARGE
    body["messages"] += turns
    sent = json.dumps(body).replace(mark, spelled).encode()
    response = await http.post(standalone.base + PATHS[caller], data=io.BytesIO(sent), headers=HEADERS)
    assert response.status == 200, await response.text()
    await response.read()
    turn = provider.last.json["messages"][-2]
    if to == OPENAI:
        assert turn["tool_calls"][0]["function"]["arguments"] == LARGE
    else:
        assert LARGE.encode() in provider.last.raw


def _frames(answer: bytes) -> list[dict[str, Any]]:
    lines = [line[5:] for line in answer.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line) for line in lines if line.strip() != b"[DONE]"]


def _openai_call(answer: bytes, stream: bool) -> tuple[str, str]:
    if not stream:
        call = json.loads(answer)["choices"][0]["message"]["tool_calls"][0]
        return call["id"], call["function"]["arguments"]
    deltas = [
        call
        for frame in _frames(answer)
        if frame["choices"]
        for call in frame["choices"][0]["delta"].get("tool_calls", [])
    ]
    return deltas[0]["id"], "".join(delta["function"].get("arguments", "") for delta in deltas)


def _anthropic_call(answer: bytes, stream: bool) -> tuple[str, str]:
    if not stream:
        block = json.loads(answer)["content"][0]
        start = answer.index(LARGE.encode())
        return block["id"], answer[start : start + len(LARGE.encode())].decode()
    frames = _frames(answer)
    start = next(frame for frame in frames if frame["type"] == "content_block_start")
    deltas = [frame["delta"] for frame in frames if frame["type"] == "content_block_delta"]
    return start["content_block"]["id"], "".join(delta["partial_json"] for delta in deltas)


Begin = Callable[..., Talk]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("to", MODELS)
async def test_ids_survive_a_change_of_provider(provider: FakeProvider, talk: Begin, caller: str, to: str) -> None:
    """A conversation that moves to the other provider: calls made by the first are history for the second."""
    other = ANTHROPIC if to == OPENAI else OPENAI
    provider.answer(script(Use("look", '{"at": "Rome"}', id="call:strange id/1"), Use("look", '{"at": "Oslo"}')))
    conversation: Any = talk(caller, MODELS[to], stream=False)
    conversation.tools("look")
    conversation.say("Go.")
    heard = await conversation.hear()
    conversation.give({id: "warm" for id, _, _ in heard.calls})
    if caller == ANTHROPIC and other == ANTHROPIC:
        pytest.skip("the same format passes an id that its provider refuses: nothing is rewritten there")
    conversation.model = MODELS[other]
    assert (await conversation.hear()).text == "Hello!"
