"""The front: what it serves itself, what it leaves to aiohttp, and that nobody can tell which it was."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from headgate.gateway.relay.outbox import ALONE, Outbox
from headgate.gateway.server import front as fronts
from headgate.gateway.server.front import Front, FrontServer

from .house import CHAT, MESSAGES, House, Wire, body_of, head_of, serving, until, wire

SLOW = """
    upstreams: {sim: {adapter: simulator, script: ['start 5s', 'text late']}}
    routes: [{name: all, to: sim}]
"""
LONG = """
    upstreams: {sim: {adapter: simulator, script: ['text %s']}}
    routes: [{name: all, to: sim}]
"""


def server_of(house: House) -> FrontServer:
    runner: Any = house.runner
    assert isinstance(runner, web.ServerRunner)
    assert isinstance(runner.server, FrontServer)
    return runner.server


def by_front(house: House) -> bool:
    """Whether the one connection there is has not been handed over."""
    server = server_of(house)
    assert len(server.fronts) + len(server.connections) == 1
    return bool(server.fronts)


async def answer(client: Wire) -> tuple[int, dict[str, str], Any]:
    status, headers = await client.head()
    body = (
        await client.pieces() if "transfer-encoding" in headers else await client.read(int(headers["content-length"]))
    )
    return status, headers, json.loads(body) if body.startswith(b"{") else body


def said(body: Any) -> str:
    return str(body["choices"][0]["message"]["content"])


@pytest.mark.parametrize("path", [CHAT, "/chat/completions", MESSAGES, "/messages"])
async def test_small_requests_one_after_the_other(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as house, wire(house) as client:
        for number in range(3):
            body = body_of(f"number {number}")
            client.send(head_of(house, len(body), path=path) + body)
            status, headers, told = await answer(client)
            assert status == 200
            assert f"number {number}" in json.dumps(told)
            assert headers["headgate-route"] == "all"
            assert {"date", "server", "x-request-id"} <= set(headers)
            assert "connection" not in headers
            assert by_front(house)
        await house.idle()


STREAM = """
    upstreams: {sim: {adapter: simulator, script: ['text Hello world', 'delay 10ms']}}
    routes: [{name: all, to: sim}]
"""
SAME: dict[str, Any] = {"x-request-id": "same"}


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_stream_is_the_one_that_aiohttp_would_write(tmp_path: Path, path: str) -> None:
    body = body_of(stream=True)
    async with serving(tmp_path, STREAM) as house:
        told: list[tuple[int, dict[str, str], bytes]] = []
        for query in ("", "?x=1"):
            async with wire(house) as client:
                for _ in range(2):
                    client.send(head_of(house, len(body), SAME, path=path + query) + body)
                    status, headers = await client.head()
                    del headers["date"]
                    told.append((status, headers, re.sub(rb'"created":\d+', b"", await client.pieces())))
                    assert by_front(house) is (query == "")
            await until(lambda: not server_of(house).fronts and not server_of(house).connections)
        assert told[0] == told[1] == told[2] == told[3]
        assert told[0][0] == 200
        assert told[0][1]["transfer-encoding"] == "chunked"
        assert b"Hello" in told[0][2]
        await house.idle()


async def test_the_headers_of_a_stream_do_not_wait_for_its_first_token(tmp_path: Path) -> None:
    body = body_of(stream=True)
    text = STREAM.replace("10ms", "5s")
    async with serving(tmp_path, text) as house, wire(house) as client:
        client.send(head_of(house, len(body)) + body)
        assert (await client.head())[0] == 200
        assert by_front(house)
        client.leave()
        await house.idle()


@pytest.mark.parametrize("drains", [True, False])
async def test_a_stream_ends_a_connection_that_shall_close(tmp_path: Path, drains: bool) -> None:
    body = body_of(stream=True)
    async with serving(tmp_path, STREAM) as house, wire(house) as client:
        house.gateway.draining = drains
        client.send(head_of(house, len(body), None if drains else {"connection": "close"}) + body)
        status, headers = await client.head()
        assert (status, headers["connection"]) == (200, "close")
        assert (await client.pieces()).endswith(b"data: [DONE]\n\n")
        assert await client.rest(1) == b""


async def test_a_stream_whose_client_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = body_of(stream=True)
    text = STREAM.replace("10ms", "5s").replace("to: sim", "chain: [log], to: sim")
    with caplog.at_level("INFO", "headgate.access"):
        async with serving(tmp_path, text) as house, wire(house) as client:
            client.send(head_of(house, len(body)) + body)
            assert (await client.head())[0] == 200
            client.leave()
            await house.idle()
            await until(lambda: not server_of(house).fronts)
        line = json.loads(caplog.records[-1].getMessage())
    assert (line["outcome"], line["status"]) == ("cancelled", 499)


async def test_a_stream_that_fails_after_its_start(tmp_path: Path) -> None:
    body = body_of(stream=True)
    text = STREAM.replace("'delay", "'cut 3', 'delay")
    async with serving(tmp_path, text) as house, wire(house) as client:
        for _ in range(2):
            client.send(head_of(house, len(body)) + body)
            assert (await client.head())[0] == 200
            told = await client.pieces()
            assert b"Hello" in told
            assert b"[DONE]" not in told
            assert b'"error"' in told
            assert by_front(house)


async def test_errors_are_answered_in_the_callers_format(tmp_path: Path) -> None:
    async with serving(tmp_path) as house, wire(house) as client:
        body = b'{"model":"m","messages":"none","max_tokens":1}'
        client.send(head_of(house, len(body), path=MESSAGES) + body)
        status, headers, told = await answer(client)
        assert (status, told["type"], headers["headgate-error"]) == (400, "error", "invalid_request")
        assert by_front(house)
        body = body_of()
        client.send(head_of(house, len(body)) + body)
        assert (await answer(client))[0] == 200


async def test_a_request_in_pieces(tmp_path: Path) -> None:
    body = body_of("word " * 2000)
    whole = b""
    async with serving(tmp_path) as house, wire(house) as client:
        whole = head_of(house, len(body)) + body
        for start in range(0, len(whole), 999):
            client.send(whole[start : start + 999])
            await asyncio.sleep(0)
        status, _, told = await answer(client)
        assert status == 200
        assert said(told).startswith("You said: word word")
        assert by_front(house)


async def test_cut_at_every_byte(tmp_path: Path) -> None:
    """Straight into the protocol, as asyncio would: a socket may join what was sent apart."""
    body = body_of("x")
    async with serving(tmp_path) as house:
        whole = head_of(house, len(body), {"User-Agent": "  spaced \t"}) + body
        for place in range(1, len(whole)):
            transport = Tape()
            front = Front(server_of(house))
            front.connection_made(transport)
            feed(front, whole[:place])
            assert front.task is None
            feed(front, whole[place:])
            await until(lambda transport=transport: transport.written)
            assert transport.written[0].startswith(b"HTTP/1.1 200 OK\r\n"), place
            front.connection_lost(None)


SECOND: dict[str, Callable[[bytes], bytes]] = {
    "the same": lambda raw: raw,
    "a body of another length": lambda raw: raw.replace(b"length: 102", b"length: 104") + b"  ",
    "a name in other letters": lambda raw: raw.replace(b"content-length", b"CONTENT-Length"),
    "another header": lambda raw: raw.replace(b"host: x", b"host: x\r\nx-request-id: other"),
    "another place of the length": lambda raw: raw.replace(b"content-length: 102\r\n", b"").replace(
        b"host: x", b"Content-Length:102\r\nhost: x"
    ),
    "no length": lambda raw: raw.replace(b"length: 102", b"length: "),
    "a length that is no number": lambda raw: raw.replace(b"length: 102", b"length: +102"),
    "a length in other digits": lambda raw: raw.replace(b"length: 102", "length: 7\u0663".encode()),
    "two numbers": lambda raw: raw.replace(b"length: 102", b"length: 102, 102"),
    "a length twice": lambda raw: raw.replace(b"length: 102", b"length: 102\r\ncontent-length: 102"),
    "a length and chunks": lambda raw: raw.replace(b"length: 102", b"length: 102\r\ntransfer-encoding: chunked"),
    "a line feed alone": lambda raw: raw.replace(b"length: 102\r\n", b"length: 102\n"),
    "two at once": lambda raw: raw + raw,
    "one and a half": lambda raw: raw + raw[:50],
    "no JSON": lambda raw: raw.replace(b'{"model"', b'["model"'),
}
FINE: frozenset[str] = frozenset([*list(SECOND)[:5], "two at once", "one and a half"])


@pytest.mark.parametrize("case", SECOND)
async def test_the_second_request_of_a_connection_is_read_as_the_first(tmp_path: Path, case: str) -> None:
    """Its head is not parsed again if it is the same: whatever differs, the answer is that of a connection of its own."""
    body = body_of("hello")
    async with serving(tmp_path) as house:
        raw = head_of(house, len(body)) + body
        second = SECOND[case](raw)
        told = []
        for before in range(3):
            async with wire(house) as client:
                for _ in range(before):
                    client.send(raw)
                    assert (await answer(client))[0] == 200
                client.send(second)
                for _ in range(1 + (case == "two at once")):
                    status, _, text = await answer(client)
                    told.append((status, re.sub(r"(chatcmpl-|req_|created\W+)\w+", "", str(text))))
                client.leave()
            await house.idle()
        assert told[: len(told) // 3] * 3 == told
        assert told[0][0] == (200 if case in FINE else 400)


async def test_a_head_that_is_known_belongs_to_nobody(tmp_path: Path) -> None:
    body = body_of("x")
    async with serving(tmp_path) as house:
        front = Front(server_of(house))
        seen: list[dict[str, str]] = []
        route = server_of(house).route

        def spoil(request: Any) -> Any:
            seen.append(dict(request.headers))
            serve = route(request)
            request.headers["x-spoilt"] = "yes"
            return serve

        server_of(house).route = spoil
        for text in ("x", "longer"):
            transport = Tape()
            front.connection_made(transport)
            body = body_of(text)
            feed(front, head_of(house, len(body)) + body)
            await until(lambda transport=transport: transport.written)
            assert "x-spoilt" not in seen[-1]
            assert seen[-1]["content-length"] == str(len(body))
        front.connection_lost(None)


def feed(front: Front, data: bytes) -> None:
    """Give ``data`` to a connection as a loop would that read it."""
    front.get_buffer(-1)[: len(data)] = data
    front.buffer_updated(len(data))


class Tape(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.on_write: Callable[[], object] = lambda: None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 5) if name == "peername" else default

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))
        self.on_write()

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Nothing is read here."""

    resume_reading = pause_reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """The test looks for it at the server."""


ODD: dict[str, tuple[dict[str, Any], int]] = {
    "a query": ({"path": f"{CHAT}?x=1"}, 200),
    "another path": ({"path": "/v1/nothing"}, 404),
    "another method": ({"method": "PUT"}, 405),
    "a chunked body": ({"chunked": True}, 200),
    "HTTP/1.0": ({"version": "1.0"}, 200),
    "an origin": ({"headers": {"origin": "http://evil.example"}}, 200),
    "a charset": ({"headers": {"content-type": "application/json; charset=utf-8"}}, 200),
    "text": ({"headers": {"content-type": "text/plain"}}, 415),
    "no JSON": ({"body": b"{"}, 400),
    "an empty body": ({"body": b""}, 400),
    "bad gzip": ({"headers": {"content-encoding": "gzip"}}, 400),
    "unknown coding": ({"headers": {"content-encoding": "rot13"}}, 415),
    "a large body": ({"body": body_of("x" * 300_000)}, 200),
    "large headers": ({"headers": {"x-large": "y" * 70_000}}, 431),
    "many headers": ({"headers": {f"x-{number}": "1" for number in range(70)}}, 200),
}


@pytest.mark.parametrize("case", ODD)
async def test_what_is_odd_is_handed_over(tmp_path: Path, case: str) -> None:
    given, expected = ODD[case]
    body = given.get("body", body_of())
    limits = {"max_line_size": 2**18, "max_field_size": 2**18}
    async with serving(tmp_path, **limits) as house, wire(house) as client:
        head = head_of(
            house,
            None if given.get("chunked") else len(body),
            given.get("headers"),
            path=given.get("path", CHAT),
            method=given.get("method", "POST"),
            version=given.get("version", "1.1"),
        )
        client.send(head + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if given.get("chunked") else body))
        await until(lambda: not server_of(house).fronts)
        status, headers, _ = await answer(client)
        assert status == expected
        if headers.get("connection") == "close" or given.get("version") == "1.0" or status >= 400:
            return
        # The connection goes on as aiohttp's.
        body = body_of("again")
        client.send(head_of(house, len(body)) + body)
        assert said((await answer(client))[2]) == "You said: again"
        assert not server_of(house).fronts


@pytest.mark.parametrize(
    ("first", "second"),
    [("host: x", "host: y"), ("x-api-key: a", "x-api-key: b"), ("content-type: application/json",) * 2],
)
async def test_repeated_headers_are_not_for_here(tmp_path: Path, first: str, second: str) -> None:
    body = body_of()
    lines = [f"POST {CHAT} HTTP/1.1", first, second, f"content-length: {len(body)}"]
    for needed in ("host: x", "content-type: application/json"):
        if needed.partition(":")[0] not in first:
            lines.append(needed)
    async with serving(tmp_path) as house, wire(house) as client:
        client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await client.head()
        assert not server_of(house).fronts


TWICE = ["User-Agent: outer/1", "user-agent: inner/2"]
"""As SDKs send it that wrap another: aiohttp answers 400 to it."""


@pytest.mark.parametrize("path", [CHAT, f"{CHAT}?x=1", "/v1beta/models/m:generateContent"])
async def test_two_user_agents_are_no_fault(tmp_path: Path, path: str) -> None:
    body = body_of() if path.startswith(CHAT) else b'{"contents":[{"parts":[{"text":"hi"}]}]}'
    lines = [f"POST {path} HTTP/1.1", "host: x", *TWICE, "content-type: application/json", "connection: keep-alive"]
    async with serving(tmp_path) as house, wire(house) as client:
        client.send("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
        status, headers, _ = await answer(client)
        assert status == 200
        # What aiohttp reads itself it would refuse: it gets one request, and no other.
        assert (headers.get("connection") == "close") == (path != CHAT)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["upgrade: websocket", "connection: Upgrade", *TWICE], 400),
        ([*TWICE, " folded: x"], 400),
        ([TWICE[0], "x-other: 1\n" + TWICE[1]], 400),
    ],
)
async def test_two_user_agents_beside_what_is_odd(tmp_path: Path, lines: list[str], status: int) -> None:
    body = body_of()
    head = [f"POST {CHAT} HTTP/1.1", "host: x", f"content-length: {len(body)}", *lines, "", ""]
    async with serving(tmp_path) as house, wire(house) as client:
        client.send("\r\n".join(head).encode() + body)
        assert (await client.head())[0] == status


async def test_expect_is_answered(tmp_path: Path) -> None:
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client:
        client.send(head_of(house, len(body), {"expect": "100-continue"}))
        assert (await client.head())[0] == 100
        client.send(body)
        assert (await answer(client))[0] == 200


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    bodies = [body_of(f"number {number}", stream=number == 2) for number in range(5)]
    async with serving(tmp_path) as house, wire(house) as client:
        client.send(b"".join(head_of(house, len(body)) + body for body in bodies))
        for number in range(5):
            if number == 2:
                assert (await client.head())[0] == 200
                assert b"number" in await client.pieces()
            else:
                assert said((await answer(client))[2]) == f"You said: number {number}"


async def test_a_second_request_that_comes_too_early_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where tasks begin at once the simulator has answered before the next request is there.
    monkeypatch.setattr(fronts, "_begin", lambda work, loop, name: loop.create_task(work, name=name))
    bodies = [body_of(f"number {number}") for number in range(3)]
    async with serving(tmp_path) as house:
        transport = Tape()
        front = Front(server_of(house))
        front.connection_made(transport)
        feed(front, head_of(house, len(bodies[0])) + bodies[0])
        assert front.task is not None
        feed(front, head_of(house, len(bodies[1])) + bodies[1])
        feed(front, (head_of(house, len(bodies[2])) + bodies[2])[:40])
        feed(front, (head_of(house, len(bodies[2])) + bodies[2])[40:])
        assert not transport.written
        # The last two are found together, which is aiohttp's to sort out.
        await until(lambda: b"".join(transport.written).count(b"HTTP/1.1 200 OK") == 3)
        written = b"".join(transport.written)
        assert written.index(b"number 0") < written.index(b"number 1") < written.index(b"number 2")
        transport.closed = True
        server_of(house).connections[0].connection_lost(None)


class Later:
    """A loop whose next turn is long in coming."""

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Not now."""


async def gathered(house: House, stream: bool = False, **headers: str) -> tuple[Front, Tape]:
    """Return a connection whose first request is answered, while its answer waits for others of the same turn."""
    server, body = server_of(house), body_of("number 0", stream=stream)
    server.outbox = Outbox(cast(asyncio.AbstractEventLoop, Later()))
    for _ in range(ALONE):
        server.outbox.write(Tape(), b"")
    transport, front = Tape(), Front(server)
    front.connection_made(transport)
    feed(front, head_of(house, len(body), headers=headers) + body)
    await until(lambda: front.task is None)
    return front, transport


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_connection_that_shall_close_has_its_answer_first(tmp_path: Path, stream: bool) -> None:
    async with serving(tmp_path) as house:
        _, transport = await gathered(house, stream, Connection="close")
        assert transport.closed
        written = b"".join(transport.written)
        assert b"number" in written  # a stream says it in pieces
        assert not stream or written.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("second", ["whole", "stream", "handed over"])
async def test_an_answer_that_waits_for_others_is_not_overtaken(tmp_path: Path, second: str) -> None:
    """By the next one of its connection, whose client did not wait: written by us, in one piece or many, or by aiohttp."""
    async with serving(tmp_path) as house:
        front, transport = await gathered(house)
        assert not transport.written
        body = body_of("number 1", stream=second == "stream")
        request = head_of(house, len(body)) + body
        if second == "handed over":
            request = request.replace(b"POST", b"PUT", 1)
        feed(front, request)
        server = server_of(house)

        def both() -> bool:
            if second != "handed over":  # of that nobody here sees what is written, nor when
                server.outbox.flush()
            return b"".join(transport.written).count(b"HTTP/1.1 ") == 2

        await until(both)
        written = b"".join(transport.written)
        assert written.index(b"number 0") < written.rindex(b"HTTP/1.1 ")
        transport.closed = True
        if server.connections:
            server.connections[0].connection_lost(None)


async def test_a_client_that_says_no_more_has_the_answer_that_waits(tmp_path: Path) -> None:
    """It is as good as gone, and asyncio closes the connection: with what was written before."""
    async with serving(tmp_path) as house:
        front, transport = await gathered(house)
        assert not transport.written
        assert not front.eof_received()
        assert b"number 0" in b"".join(transport.written)


async def test_the_end_of_the_server_sends_what_waits(tmp_path: Path) -> None:
    async with serving(tmp_path) as house:
        _, transport = await gathered(house)
        assert not transport.written
        server_of(house).pre_shutdown()
        assert b"number 0" in b"".join(transport.written)


async def test_nothing_is_sent_to_a_client_that_left_meanwhile(tmp_path: Path) -> None:
    async with serving(tmp_path) as house:
        front, transport = await gathered(house)
        transport.closed = True
        front.connection_lost(None)
        server_of(house).outbox.flush()
        assert not transport.written


async def test_a_client_that_leaves_ends_its_call(tmp_path: Path) -> None:
    body = body_of()
    async with serving(tmp_path, SLOW) as house, wire(house) as client:
        client.send(head_of(house, len(body)) + body)
        await until(lambda: house.gateway.in_flight == 1)
        client.leave()
        await house.idle()
        await until(lambda: not server_of(house).fronts)


async def test_a_connection_that_shall_close_closes(tmp_path: Path) -> None:
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client:
        client.send(head_of(house, len(body), {"connection": "close"}) + body)
        status, headers, _ = await answer(client)
        assert (status, headers["connection"]) == (200, "close")
        assert await client.rest(1) == b""
        assert not server_of(house).fronts


async def test_a_draining_gateway_ends_connections_with_their_answer(tmp_path: Path) -> None:
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client:
        house.gateway.draining = True
        client.send(head_of(house, len(body)) + body)
        status, headers, _ = await answer(client)
        assert (status, headers["connection"]) == (200, "close")
        assert await client.rest(1) == b""


async def test_half_a_request_goes_to_those_who_have_deadlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "SWEEP_S", 0.05)
    body = body_of("late")
    async with serving(tmp_path) as house, wire(house) as client:
        whole = head_of(house, len(body)) + body
        client.send(whole[:-5])
        await until(lambda: server_of(house).connections)
        assert not server_of(house).fronts
        client.send(whole[-5:])
        assert said((await answer(client))[2]) == "You said: late"


async def test_idle_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "SWEEP_S", 0.05)
    monkeypatch.setattr(fronts, "KEEP_ALIVE_S", 0.2)
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client, wire(house) as silent:
        client.send(head_of(house, len(body)) + body)
        assert (await answer(client))[0] == 200
        assert await client.rest(2) == b""
        assert await silent.rest(2) == b""


async def test_a_client_that_does_not_read_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "grace_s", lambda size: 0.05)
    body = body_of()
    async with serving(tmp_path) as house:
        for reads in (True, False):
            transport = Tape()
            front = Front(server_of(house))
            front.connection_made(transport)
            transport.on_write = front.pause_writing
            feed(front, head_of(house, len(body)) + body)
            await until(lambda transport=transport: transport.written)
            assert front.task is not None
            if reads:
                front.resume_writing()
            await until(lambda front=front: front.task is None)
            assert transport.closed is not reads
            front.connection_lost(None)


async def test_a_large_answer_waits_for_its_reader(tmp_path: Path) -> None:
    body = body_of()
    async with serving(tmp_path, LONG % ("z" * 900_000)) as house, wire(house, receive_buffer=8192) as client:
        for _ in range(2):
            client.send(head_of(house, len(body)) + body)
            assert len(said((await answer(client))[2])) == 900_000
            assert by_front(house)


async def test_the_end_of_the_server(tmp_path: Path) -> None:
    """Idle connections close at once, an answer under way comes to its end, and no task is left."""
    body = body_of()
    async with closing_house(tmp_path) as (house, client, idle):
        client.send(head_of(house, len(body)) + body)
        await until(lambda: house.gateway.in_flight == 1)
        server = server_of(house)
        server.pre_shutdown()
        assert await idle.rest(1) == b""
        status, headers, _ = await answer(client)
        assert (status, headers["connection"]) == (200, "close")
        await server.shutdown(1)
        assert not server.fronts


async def test_shutdown_does_not_wait_for_ever(tmp_path: Path) -> None:
    body = body_of()
    async with serving(tmp_path, SLOW) as house, wire(house) as client:
        client.send(head_of(house, len(body)) + body)
        await until(lambda: house.gateway.in_flight == 1)
        await server_of(house).shutdown(0.05)
        assert await client.rest(1) == b""
        await house.idle()


@asynccontextmanager
async def closing_house(tmp_path: Path) -> AsyncIterator[tuple[House, Wire, Wire]]:
    text = SLOW.replace("start 5s", "start 200ms")
    async with serving(tmp_path, text) as house, wire(house) as client, wire(house) as idle:
        await until(lambda: len(server_of(house).fronts) == 2)
        yield house, client, idle


async def test_headers_that_do_not_come_have_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "SWEEP_S", 0.05)
    monkeypatch.setattr(fronts, "HEAD_S", 0.3)
    async with serving(tmp_path) as house, wire(house) as slow, wire(house) as odd:
        slow.send(f"POST {CHAT} HTTP/1.1\r\n".encode())
        odd.send(f"POST {CHAT} HTTP/1.1\r\ntransfer-encoding: chunked\r\n".encode())
        for client in (slow, odd):
            status, headers = await client.head()
            assert (status, headers["connection"]) == (408, "close")
            assert (await client.read(int(headers["content-length"]))).endswith(b"in time\n")
            assert await client.rest(1) == b""
        assert not server_of(house).fronts


async def test_what_is_no_http_is_a_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "headgate.server"):
        async with serving(tmp_path) as house:
            for junk in (b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"):
                async with wire(house) as client:
                    client.send(junk)
                    assert (await client.head())[0] == 400
    said = [record for record in caplog.records if record.name.startswith(("headgate.server", "aiohttp"))]
    assert said  # aiohttp says nothing of a method that is none
    assert all(record.exc_info is None and record.levelname == "INFO" for record in said)
    assert all("refused" in record.getMessage() for record in said)
