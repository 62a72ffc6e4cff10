"""WebSockets at the doors of calls: the same events as SSE, several turns on a socket, and what a bad client may not do."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from headgate.gateway.server import sockets
from headgate.gateway.server.calls import Calls
from headgate.gateway.server.sockets import Limits
from headgate.gateway.wire.sse import SseFramer, parse_frame

from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Script, Think, Use, script
from .house import CHAT, MESSAGES, House, Wire, begin, body_of, head_of, serving, until, wire

RESPONSES: Final = "/v1/responses"
RULES: Final = """
    server: {anonymous: allow, max_body: 64KiB%(server)s}
    defaults: {timeout: {total: %(total)s}}
    chains: {again: [{retry: {tries: 2, backoff: 10ms}}]}
    upstreams:
      claude: {adapter: anthropic, base_url: "%(base)s", key: env:TEST_PROVIDER_KEY, chain: again}
      chat: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY}
      native: {adapter: openai, base_url: "%(base)s/v1", key: env:TEST_PROVIDER_KEY, formats: [openai.responses]}
    routes:
      - {name: claude, match: {model: "claude-*"}, chain: [log], to: claude}
      - {name: chat, match: {model: "gpt-*"}, to: chat}
      - {name: native, match: {model: "native-*"}, to: native}
"""
CLAUDE: Final = "claude-fake-4-5"
Socket = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def house_of(
    directory: Path, provider: FakeProvider, *, server: str = "", total: str = "20s", **how: Any
) -> AsyncIterator[House]:
    """Serve RULES; at the end nothing is under way, and no task is left."""
    before = asyncio.all_tasks()
    async with serving(directory, RULES % {"base": provider.base, "server": server, "total": total}, **how) as house:
        yield house
        await house.idle()
        await until(lambda: not _sockets_of(before))


def _sockets_of(before: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """The tasks of turns that are still there."""
    return [task for task in asyncio.all_tasks() - before if "sockets" in repr(task.get_coro())]


@pytest.fixture(params=["standalone", "mounted"])
async def house(request: pytest.FixtureRequest, tmp_path: Path, provider: FakeProvider) -> AsyncIterator[House]:
    host = web.Application() if request.param == "mounted" else None
    async with house_of(tmp_path, provider, host=host, cancels=host is None) as each:
        yield each


@pytest.fixture
async def alone(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[House]:
    async with house_of(tmp_path, provider) as each:
        yield each


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set limits of the sockets that are opened from now on: ``limit(idle_s=0.1)``."""

    def set_limits(**limits: Any) -> None:
        monkeypatch.setattr(sockets, "LIMITS", Limits(**limits))

    return set_limits


def connect(
    http: aiohttp.ClientSession, house: House, path: str = CHAT, headers: Mapping[str, str] | None = None, **how: Any
) -> Any:
    return http.ws_connect(house.base + path, headers=headers, **how)


def asking(path: str, model: str, text: str = "Hello", **more: Any) -> dict[str, Any]:
    """A request of the format that is served at ``path``."""
    if path == RESPONSES:
        return {"type": "response.create", "model": model, "input": text, **more}
    body: dict[str, Any] = json.loads(body_of(text, model=model))
    del body["stream"]
    return {**body, **more}


async def message(ws: Socket) -> Any:
    heard = await ws.receive(5)
    assert heard.type is WSMsgType.TEXT, heard
    return json.loads(heard.data)


def is_last(path: str, event: Any) -> bool:
    if path == CHAT:
        return "error" in event or event.get("object") == "chat.completion.done"
    return event["type"] in (
        *("message_stop", "error"),
        *("response.completed", "response.failed", "response.incomplete"),
    )


async def events(ws: Socket, path: str = CHAT) -> list[Any]:
    """The messages of one turn."""
    heard = [await message(ws)]
    while not is_last(path, heard[-1]):
        heard.append(await message(ws))
    return heard


async def ask(ws: Socket, path: str = CHAT, model: str = "gpt-x", **more: Any) -> list[Any]:
    await ws.send_json(asking(path, model, **more))
    return await events(ws, path)


def said(heard: list[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or "" for event in heard for choice in event.get("choices", ()) if event
    )


def told(path: str, heard: list[Any]) -> str:
    """The words of an answer in any format."""
    if path == CHAT:
        return said(heard)
    if path == MESSAGES:
        return "".join(event["delta"].get("text", "") for event in heard if event["type"] == "content_block_delta")
    return "".join(event["delta"] for event in heard if event["type"] == "response.output_text.delta")


async def closed(ws: Socket, within_s: float = 5.0) -> int | None:
    """The code by which the other side closes; what it says before is skipped."""
    async with asyncio.timeout(within_s):
        while (await ws.receive()).type in (WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG):
            pass
    return ws.close_code


# --- the law: the same events as SSE

ANSWERS: Final[Mapping[str, Script]] = {
    "words": script("One two three"),
    "long": script(Say("äöü€ " * 4000, pieces=40)),
    "tools": script("I look.", Use("look", '{"at": "Köln"}'), Use("now", '{"at":  "x\\n"}')),
    "length": script("One tw", stop="length"),
    "cut": script("One two three", cut_after=5),
    "error inside": script("One two three", error_after=5),
}
_VARY: Final = frozenset(
    {"id", "item_id", "created", "created_at", "call_id", "request_id", "signature", "completed_at"}
)


def alike(value: Any) -> Any:
    """``value`` without what differs between any two calls."""
    if isinstance(value, dict):
        return {name: "*" if name in _VARY else alike(member) for name, member in value.items()}
    return [alike(member) for member in value] if isinstance(value, list) else value


async def sse_of(http: aiohttp.ClientSession, house: House, path: str, body: dict[str, Any]) -> list[Any]:
    """What the same request hears as a stream."""
    body = {name: member for name, member in body.items() if name != "type"}
    async with http.post(house.base + path, json={**body, "stream": True}) as response:
        assert response.status == 200
        frames = SseFramer(1 << 20).feed(await response.read())[1]
    told = [data for data in (parse_frame(frame)[1] for frame in frames) if data is not None]
    return [{"object": "chat.completion.done"} if data == b"[DONE]" else json.loads(data) for data in told]


@pytest.mark.parametrize("play", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("model", [CLAUDE, "gpt-x", "native-x"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_the_same_events_as_sse(
    http: aiohttp.ClientSession, alone: House, provider: FakeProvider, path: str, model: str, play: Script
) -> None:
    provider.answer(play, play)
    more: dict[str, Any] = {}
    if path == RESPONSES:
        more = {"reasoning": {"effort": "high"}} if model == CLAUDE else {}
    body = asking(path, model, **more)
    streamed = await sse_of(http, alone, path, body)
    if path == RESPONSES and any(event["type"] == "error" for event in streamed):
        # A socket tells a failure once: who takes the first of the two for the end would find the other in the next turn.
        assert [event["type"] for event in streamed[-2:]] == ["error", "response.failed"]
        streamed[-1]["sequence_number"] = streamed.pop(-2)["sequence_number"]
    async with connect(http, alone, path, max_msg_size=0) as ws:
        await ws.send_json(body)
        heard = [await message(ws) for _ in streamed]
        provider.answer(script("More."))
        assert len(await ask(ws, path, model)) > 1  # nothing else came, and the socket is good for more
    assert alike(heard) == alike(streamed)
    assert provider.requests[0].json == provider.requests[1].json


async def test_reasoning_and_signatures_pass(http: aiohttp.ClientSession, alone: House, provider: FakeProvider) -> None:
    provider.answer(script(Think("Hm.", signature="c2ln"), "Yes."), script(Think("Hm.", signature="c2ln"), "Yes."))
    body = asking(MESSAGES, CLAUDE, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048)
    streamed = await sse_of(http, alone, MESSAGES, body)
    async with connect(http, alone, MESSAGES) as ws:
        await ws.send_json(body)
        heard = await events(ws, MESSAGES)
    assert alike(heard) == alike(streamed)
    assert {"type": "signature_delta", "signature": "c2ln"} in [event.get("delta") for event in heard]


# --- turns


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_several_requests_on_one_socket(
    http: aiohttp.ClientSession, house: House, provider: FakeProvider, path: str
) -> None:
    provider.answer(*(script(f"Answer {number}.") for number in range(4)))
    async with connect(http, house, path) as ws:
        for number in range(3):
            assert f"Answer {number}." in told(path, await ask(ws, path))
        await ws.close()
        assert ws.close_code == 1000
    async with connect(http, house, path) as ws:
        assert "Answer 3." in told(path, await ask(ws, path))
    assert len(provider.requests) == 4


async def test_a_whole_answer_is_one_message(http: aiohttp.ClientSession, house: House, provider: FakeProvider) -> None:
    provider.answer(script("All."), script("Streamed."))
    async with connect(http, house) as ws:
        await ws.send_json(asking(CHAT, "gpt-x", stream=False))
        assert (await message(ws))["choices"][0]["message"]["content"] == "All."
        assert said(await ask(ws)) == "Streamed."


async def test_other_formats_are_served_too(http: aiohttp.ClientSession, alone: House, provider: FakeProvider) -> None:
    provider.answer(script("One two three"), script("One two three"))
    async with connect(http, alone, "/v1/completions") as ws:
        await ws.send_json({"model": "gpt-x", "prompt": "Hello"})
        heard = [await message(ws)]
        while heard[-1]["object"] != "text_completion.done":
            heard.append(await message(ws))
        assert "".join(choice["text"] for event in heard for choice in event.get("choices", ())) == "One two three"
    async with connect(http, alone, "/api/chat") as ws:
        await ws.send_json({"model": "gpt-x", "messages": [{"role": "user", "content": "Hello"}]})
        heard = [await message(ws)]
        while not heard[-1]["done"]:
            heard.append(await message(ws))
        assert "".join(event["message"]["content"] for event in heard) == "One two three"


async def test_messages_wait_for_their_turn(http: aiohttp.ClientSession, alone: House, provider: FakeProvider) -> None:
    provider.answer(script("First.", wait_s=0.1), script("Second."), script("Third."))
    async with connect(http, alone) as ws:
        for _ in range(2):
            await ws.send_json(asking(CHAT, "gpt-x"))
        await ws.send_str("{")
        await ws.send_json(asking(CHAT, "gpt-x"))
        heard = [await events(ws) for _ in range(4)]
    assert [said(each) for each in heard] == ["First.", "Second.", "", "Third."]
    assert heard[2][0]["status"] == 400


async def test_the_chain_runs_for_each_turn(
    http: aiohttp.ClientSession, alone: House, provider: FakeProvider, log: pytest.LogCaptureFixture
) -> None:
    provider.answer(script(status=529), script("After all."), script("Again."))
    async with connect(http, alone, headers={"x-request-id": "mine"}) as ws:
        assert said(await ask(ws, model=CLAUDE)) == "After all."
        assert said(await ask(ws, model=CLAUDE)) == "Again."

    def lines() -> list[Any]:
        return [json.loads(record.getMessage()) for record in log.records if record.name == "headgate.access"]

    await until(lambda: len(lines()) == 2)
    assert [line["request_id"] for line in lines()] == ["mine-1", "mine-2"]
    assert [[attempt["status"] for attempt in line["attempts"]] for line in lines()] == [[529, 200], [200]]
    assert {line["path"] for line in lines()} == {CHAT}
    assert len({json.dumps(received.json) for received in provider.requests}) == 1


async def test_rules_see_the_handshake(http: aiohttp.ClientSession, tmp_path: Path, provider: FakeProvider) -> None:
    rules = f"""
    upstreams:
      chat: {{adapter: openai, base_url: "{provider.base}/v1", key: env:TEST_PROVIDER_KEY}}
    routes:
      - {{name: a, match: {{header.x-team: red, format: openai.chat, path: /v1/chat/completions}}, to: chat/gpt-red}}
      - {{name: b, to: chat/gpt-rest}}
    """
    async with serving(tmp_path, rules) as house:
        for headers, model in (({"x-team": "red"}, "gpt-red"), ({}, "gpt-rest")):
            async with connect(http, house, headers=headers) as ws:
                await ask(ws)
            assert provider.last.json["model"] == model
        house.rewrite(rules.replace("gpt-rest", "gpt-new"))
        async with connect(http, house) as ws:
            await ask(ws)
            assert provider.last.json["model"] == "gpt-rest"
            await house.gateway.reload()
            await ask(ws)
            assert provider.last.json["model"] == "gpt-new"


# --- errors

WRONG: Final[Mapping[str, tuple[str, int]]] = {
    "no JSON": ("{", 400),
    "no object": ("[1]", 400),
    "no such model": ('{"model": "nobody", "messages": []}', 404),
    "wrong member": ('{"model": "native-x", "messages": 1, "max_tokens": 1}', 400),
}


@pytest.mark.parametrize(("text", "status"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_errors_are_messages(
    http: aiohttp.ClientSession, house: House, provider: FakeProvider, path: str, text: str, status: int
) -> None:
    provider.answer(script("Fine."))
    async with connect(http, house, path) as ws:
        await ws.send_str(text)
        error = await message(ws)
        assert error["status"] == status and error["error"]["message"] and error["error"]["type"]
        assert error.get("type") == ("error" if path == MESSAGES else None)
        assert len(await ask(ws, path)) > 1


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"type": 1}', '{"type":"response.cancel"}', '{"type":"response.create","stream_id":""}']
)
async def test_events_that_are_none(http: aiohttp.ClientSession, alone: House, text: str) -> None:
    async with connect(http, alone, RESPONSES) as ws:
        await ws.send_str(text)
        error = await message(ws)
        assert (error["type"], error["status"], error["error"]["type"]) == ("error", 400, "invalid_request_error")


async def test_an_answer_that_fails_has_no_clean_end(
    http: aiohttp.ClientSession, house: House, provider: FakeProvider
) -> None:
    provider.answer(script("One two three", cut_after=4), script("Fine."))
    async with connect(http, house) as ws:
        heard = await ask(ws)
        assert "error" in heard[-1]
        assert said(await ask(ws)) == "Fine."


HANDSHAKES: Final[Mapping[str, tuple[dict[str, str], int]]] = {
    "no version": (
        {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="},
        426,
    ),
    "no key": ({"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}, 426),
    "no upgrade": ({"upgrade": "websocket", "sec-websocket-version": "13"}, 426),
    "another protocol": ({"upgrade": "h2c", "connection": "upgrade"}, 405),
    "a plain GET": ({}, 405),
}


@pytest.mark.parametrize(("headers", "status"), HANDSHAKES.values(), ids=HANDSHAKES)
async def test_what_is_no_handshake(house: House, headers: dict[str, str], status: int) -> None:
    async with wire(house) as raw:
        raw.send(head_of(house, 0, {**headers, "content-length": "0"}, method="GET"))
        answered, said_back = await raw.head()
        assert answered == status and "content-type" in said_back
        assert json.loads(await raw.read(int(said_back["content-length"])))["error"]["message"]


async def test_pages_of_foreign_origins_are_refused(
    http: aiohttp.ClientSession, tmp_path: Path, provider: FakeProvider
) -> None:
    async with house_of(tmp_path, provider, server=', cors: {origins: ["https://ours.example"]}') as house:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(http, house, headers={"Origin": "https://evil.example"})
        assert refused.value.status == 403
        for origin in ("https://ours.example", house.base):
            async with connect(http, house, headers={"Origin": origin}) as ws:
                assert len(await ask(ws)) > 1


async def test_a_caller_that_is_not_accepted_any_more(
    http: aiohttp.ClientSession, tmp_path: Path, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_ONE", "secret-one-000000")
    monkeypatch.setenv("KEY_TWO", "secret-two-000000")
    rules = f"""
    upstreams: {{chat: {{adapter: openai, base_url: "{provider.base}/v1", key: env:TEST_PROVIDER_KEY}}}}
    routes: [{{name: all, chain: [{{auth: {{keys: [{{name: one, key: env:KEY_ONE}}]}}}}], to: chat}}]
    """
    async with serving(tmp_path, rules) as house:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(http, house, headers={"authorization": "Bearer secret-two-000000"})
        assert refused.value.status == 401
        async with connect(http, house, headers={"authorization": "Bearer secret-one-000000"}) as ws:
            assert len(await ask(ws)) > 1
            house.rewrite(rules.replace("KEY_ONE", "KEY_TWO"))
            await house.gateway.reload()
            await ws.send_json(asking(CHAT, "gpt-x"))
            assert (await message(ws))["status"] == 401
            assert await closed(ws) == 1008
        await house.idle()


async def test_a_fault_of_ours_closes_the_socket(
    http: aiohttp.ClientSession, alone: House, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Calls, "serve", broken)
    async with connect(http, alone) as ws:
        await ws.send_json(asking(CHAT, "gpt-x"))
        assert await closed(ws) == 1011
    assert "broken" in log.text
    log.clear()


# --- what is too much


async def test_binary_messages_close(http: aiohttp.ClientSession, house: House) -> None:
    async with connect(http, house) as ws:
        await ws.send_bytes(b"{}")
        assert await closed(ws) == 1003


def padded(size: int) -> str:
    text = json.dumps(asking(CHAT, "gpt-x", text=""))
    return text.replace('"content": ""', '"content": "%s"' % ("x" * (size - len(text))))


async def test_messages_up_to_max_body(http: aiohttp.ClientSession, house: House, provider: FakeProvider) -> None:
    provider.answer(script("Long."))
    async with connect(http, house) as ws:
        await ws.send_str(padded(64 * 1024))
        assert said(await events(ws)) == "Long."
        await ws.send_str(padded(64 * 1024 + 1))
        assert await closed(ws) == 1009


HANDSHAKE: Final = (
    "Host: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@asynccontextmanager
async def raw_socket(house: House, path: str = CHAT, **how: Any) -> AsyncIterator[Wire]:
    """A socket whose frames the test writes itself."""
    async with wire(house, **how) as raw:
        raw.send(f"GET {house.prefix}{path} HTTP/1.1\r\n{HANDSHAKE}\r\n".encode())
        assert (await raw.head())[0] == 101
        yield raw


def frame(opcode: int, data: bytes, *, final: bool = True) -> bytes:
    """A frame as a client sends it, masked with zeros."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size)
    return bytes([(0x80 if final else 0) | opcode]) + length + bytes(4) + data


async def answered(raw: Wire) -> tuple[int, bytes]:
    """A frame of the server: opcode and data."""
    first, size = await raw.read(2)
    if size == 126:
        size = struct.unpack(">H", await raw.read(2))[0]
    elif size == 127:
        size = struct.unpack(">Q", await raw.read(8))[0]
    return first & 0x0F, await raw.read(size)


async def test_fragments_over_the_limit(house: House) -> None:
    async with raw_socket(house) as raw:
        raw.send(frame(1, b"x" * 16_000, final=False))
        for _ in range(4):
            raw.send(frame(0, b"x" * 16_000, final=False))
        raw.send(frame(0, b"x" * 16_000))
        opcode, data = await answered(raw)
        assert (opcode, struct.unpack(">H", data[:2])[0]) == (8, 1009)
        await raw.rest()


async def test_a_message_in_fragments(house: House, provider: FakeProvider) -> None:
    body = json.dumps(asking(CHAT, "gpt-x")).encode()
    async with raw_socket(house) as raw:
        raw.send(frame(1, body[:10], final=False) + frame(9, b"there?"))
        assert await answered(raw) == (10, b"there?")
        raw.send(frame(0, body[10:-1], final=False) + frame(0, body[-1:]))
        opcode, data = await answered(raw)
        assert opcode == 1 and json.loads(data)["object"] == "chat.completion.chunk"
        while data != b'{"object":"chat.completion.done"}':
            opcode, data = await answered(raw)


@pytest.mark.parametrize(
    "bad", [frame(1, b"\xff\xfe"), frame(3, b"x"), b"\x81\x05hello"], ids=["UTF-8", "opcode", "mask"]
)
async def test_frames_that_are_wrong(house: House, bad: bytes) -> None:
    async with raw_socket(house) as raw:
        raw.send(bad)
        opcode, data = await answered(raw)
        if opcode == 1:
            assert json.loads(data)["status"] == 400
        else:
            assert opcode == 8 and struct.unpack(">H", data[:2])[0] in (1002, 1007)


async def test_a_flood_is_cut_off(
    http: aiohttp.ClientSession, house: House, provider: FakeProvider, limit: Any
) -> None:
    limit(waiting=3)
    provider.answer(script("x", stall_before=True))
    async with connect(http, house) as ws:
        for _ in range(4):
            await ws.send_json(asking(CHAT, "gpt-x"))
        received = await provider.received(1)
        assert not ws.closed
        await ws.send_json(asking(CHAT, "gpt-x"))
        assert await closed(ws) == 1008
    await until(lambda: received.outcome == "aborted")
    assert len(provider.requests) == 1


async def test_a_flood_in_bytes(http: aiohttp.ClientSession, alone: House, provider: FakeProvider) -> None:
    provider.answer(script("x", stall_before=True))
    async with connect(http, alone) as ws:
        for _ in range(2):
            await ws.send_str(padded(60 * 1024))
        await provider.received(1)
        assert not ws.closed
        await ws.send_str(padded(60 * 1024))
        assert await closed(ws) == 1008


async def test_turns_and_lanes_are_bounded(
    http: aiohttp.ClientSession, alone: House, provider: FakeProvider, limit: Any
) -> None:
    limit(running=2, lanes=3)
    provider.answer(*(script("x", wait_s=0.1) for _ in range(3)))
    async with connect(http, alone, RESPONSES) as ws:
        for lane in "abcd":
            await ws.send_json(asking(RESPONSES, "native-x", stream_id=lane))
        heard = [await message(ws)]
        while [event["type"] for event in heard].count("response.completed") < 3:
            heard.append(await message(ws))
            assert len(provider.requests) - [event["type"] for event in heard].count("response.completed") <= 2
    errors = [event["error"]["code"] for event in heard if event["type"] == "error"]
    assert errors == ["websocket_stream_limit_reached"]
    assert {event["stream_id"] for event in heard if event["type"] != "error"} == {"a", "b", "c"}


async def test_a_slow_reader_pauses_the_provider(house: House, provider: FakeProvider) -> None:
    big = script(Say("x" * 16_000_000, pieces=1000))
    provider.answer(big)
    async with raw_socket(house, receive_buffer=4096) as raw:
        raw.send(frame(1, json.dumps(asking(CHAT, "gpt-x")).encode()))
        received = await provider.received(1)
        sent = -1
        while sent != (sent := len(received.body)) or not sent:
            await asyncio.sleep(0.3)
        assert received.outcome == "running" and sent < 16_000_000
        size, data = 0, b""
        while data != b'{"object":"chat.completion.done"}':
            _, data = await answered(raw)
            size += len(data)
        assert size > 16_000_000 and received.outcome == "done"


async def test_a_reader_that_stands_still_meets_the_deadline(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script(Say("x" * 16_000_000, pieces=1000)))
    async with house_of(tmp_path, provider, total="500ms") as house, raw_socket(house, receive_buffer=4096) as raw:
        raw.send(frame(1, json.dumps(asking(CHAT, "gpt-x")).encode()))
        received = await provider.received(1)
        await until(lambda: received.outcome == "aborted", 5)
        await house.idle()


async def test_a_reader_that_does_not_take_the_goodbye(tmp_path: Path, provider: FakeProvider, limit: Any) -> None:
    limit(close_s=0.1)
    provider.answer(script(Say("x" * 16_000_000, pieces=1000)))
    async with house_of(tmp_path, provider) as house, raw_socket(house, receive_buffer=4096) as raw:
        raw.send(frame(1, json.dumps(asking(CHAT, "gpt-x")).encode()))
        received = await provider.received(1)
        sent = -1
        while sent != (sent := len(received.body)) or not sent:
            await asyncio.sleep(0.2)
        raw.send(frame(2, b"binary"))
        await until(lambda: received.outcome == "aborted")
        assert house.runner.server is not None
        await until(lambda: not house.runner.server.connections)  # type: ignore[union-attr]


async def test_a_reader_that_stands_still_after_an_error(tmp_path: Path, limit: Any) -> None:
    """An error has no call's deadline around it."""
    limit(stall_s=0.2, waiting=10_000)
    rules = """
    upstreams: {sim: {adapter: simulator}}
    routes: [{name: only, match: {model: m}, to: sim}]
    """
    async with serving(tmp_path, rules) as house, raw_socket(house, receive_buffer=4096) as raw:
        for _ in range(600):
            raw.send(frame(1, b'{"model": "%b", "messages": []}' % (b"n" * 16_000)))  # the error repeats it
        assert house.runner.server is not None
        await until(lambda: house.runner.server.connections)  # type: ignore[union-attr]
        await until(lambda: not house.runner.server.connections, 5)  # type: ignore[union-attr]
        await house.idle()


# --- silence and age


async def test_a_client_that_answers_pings_is_idle_all_the_same(
    http: aiohttp.ClientSession, house: House, limit: Any
) -> None:
    limit(heartbeat_s=0.05, pong_s=0.2, idle_s=0.5)
    async with connect(http, house, autoping=False) as ws:
        pings = 0
        while (heard := await ws.receive(5)).type is WSMsgType.PING:
            pings += 1
            await ws.pong(heard.data)
        assert pings > 2
        assert (heard.type, ws.close_code) == (WSMsgType.CLOSE, 1000)


async def test_a_client_that_is_not_there_any_more(house: House, limit: Any) -> None:
    limit(heartbeat_s=0.05, pong_s=0.1)
    async with raw_socket(house) as raw:
        assert await answered(raw) == (9, b"")
        assert await raw.rest() == b""


async def test_a_client_with_a_turn_under_way_need_not_answer_pings(
    house: House, provider: FakeProvider, limit: Any
) -> None:
    limit(heartbeat_s=0.05, pong_s=0.05, idle_s=0.1)
    provider.answer(script("Late.", wait_s=0.6))
    async with raw_socket(house) as raw:
        raw.send(frame(1, json.dumps(asking(CHAT, "gpt-x")).encode()))
        pings = 0
        while (heard := await answered(raw)) == (9, b""):
            pings += 1
        assert pings > 1 and heard[0] == 1


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_a_socket_grows_old(
    http: aiohttp.ClientSession, house: House, provider: FakeProvider, limit: Any, path: str
) -> None:
    limit(life_s=0.3)
    provider.answer(script("One.", wait_s=0.6))
    async with connect(http, house, path) as ws:
        heard = await ask(ws, path)
        assert is_last(path, heard[-1]) and "error" not in heard[-1]
        error = await message(ws)
        assert error["status"] == 400
        if path == RESPONSES:
            assert error["error"]["code"] == "websocket_connection_limit_reached"
        assert await closed(ws) == 1000


# --- ends


@pytest.mark.parametrize("play", [{"stall_before": True}, {"stall_after": 3}], ids=["thinking", "talking"])
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_that_leaves_ends_the_call(
    house: House, provider: FakeProvider, play: dict[str, Any], how: str
) -> None:
    provider.answer(script("One two three", **play))
    async with raw_socket(house) as raw:
        raw.send(frame(1, json.dumps(asking(CHAT, "gpt-x")).encode()))
        received = await provider.received(1)
        await received.answering.wait()
        if how == "close":
            raw.send(frame(8, struct.pack(">H", 1000)))
        else:
            raw.leave()
        async with asyncio.timeout(1):
            await received.over.wait()
    assert received.outcome == "aborted"
    await house.idle(1)


async def test_draining(http: aiohttp.ClientSession, house: House, provider: FakeProvider) -> None:
    provider.answer(script("To the end.", wait_s=0.2))
    async with connect(http, house) as idle, connect(http, house) as busy:
        await busy.send_json(asking(CHAT, "gpt-x"))
        await busy.send_json(asking(CHAT, "gpt-x"))
        await provider.received(1)
        house.gateway.draining = True
        assert await closed(idle) == 1001
        assert said(await events(busy)) == "To the end."
        assert await closed(busy) == 1001
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(http, house)
        assert refused.value.status == 503
    assert len(provider.requests) == 1


async def test_a_host_that_ends(http: aiohttp.ClientSession, tmp_path: Path, provider: FakeProvider) -> None:
    async with house_of(tmp_path, provider, host=web.Application(), shutdown_timeout=5) as house:
        provider.answer(script("To the end.", wait_s=0.2))
        async with connect(http, house) as idle, connect(http, house) as busy:
            await busy.send_json(asking(CHAT, "gpt-x"))
            await provider.received(1)
            ending = begin(house.runner.cleanup())
            assert await closed(idle) == 1001
            assert said(await events(busy)) == "To the end."
            assert await closed(busy) == 1001
            async with asyncio.timeout(4):
                await ending


async def test_a_gateway_that_is_closed(http: aiohttp.ClientSession, house: House, provider: FakeProvider) -> None:
    provider.answer(script("x", stall_before=True))
    async with connect(http, house) as ws:
        await ws.send_json(asking(CHAT, "gpt-x"))
        received = await provider.received(1)
        await house.gateway.aclose()
        await until(lambda: received.outcome == "aborted")


async def test_nothing_is_left_behind(http: aiohttp.ClientSession, alone: House, provider: FakeProvider) -> None:
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with connect(http, alone) as ws:
        assert len(await ask(ws)) > 1
    await until(lambda: provider.connections <= 1)
    before = files()
    for number in range(10):
        provider.answer(script("One two three", **({"stall_after": 2} if number % 2 else {})))
        async with connect(http, alone) as ws:
            await ws.send_json(asking(CHAT, "gpt-x"))
            await message(ws)
    await alone.idle()
    await until(lambda: files() <= before + 2)
    assert provider.connections <= 2


async def test_who_hangs_up_during_the_handshake(alone: House) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", alone.port)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(f"GET {CHAT} HTTP/1.1\r\n{HANDSHAKE}\r\n".encode())
    await asyncio.sleep(0.05)
    await alone.idle()
