"""No request that two readers could read differently is served, and every answer goes to the request it belongs to.

Both ways in are tried: as ``headgate serve`` does it, and aiohttp's server alone, as where httptools is not installed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from headgate.gateway.rules import RulesError
from headgate.gateway.server.handlers import Surface

from .house import CHAT, House, body_of, load, serving, wire

ONE, EVIL = body_of("one"), body_of("evil")
WAYS = ("front", "aiohttp")


class Reply(NamedTuple):
    """An answer as it came; ``said`` is the simulator's echo."""

    status: int
    said: str


@asynccontextmanager
async def served(directory: Path, way: str, text: str | None = None) -> AsyncIterator[House]:
    """Serve as ``way`` says; ``house.calls`` are the bodies that a call was made of."""
    if way == "front":
        async with serving(directory, *(() if text is None else (text,))) as house:
            yield house
        return
    gateway = load(directory, *(() if text is None else (text,)))
    await gateway.start()
    server = web.Server(Surface(gateway).alone, access_log=None, handler_cancellation=True)
    runner: Any = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield House(f"http://127.0.0.1:{runner.addresses[0][1]}", gateway, runner, directory / "routes.yaml")
    finally:
        await runner.cleanup()
        await gateway.aclose()


def expect_complaints(log: pytest.LogCaptureFixture) -> None:
    """aiohttp logs a request that it cannot parse as an error; nobody else may."""
    assert {record.name for record in log.records if record.levelno >= logging.ERROR} <= {"aiohttp.server"}
    log.clear()


def calls_of(house: House) -> list[bytes]:
    """Return what will be the bodies of all calls."""
    bodies: list[bytes] = []
    original = house.gateway.prepare

    def counting(*arguments: Any, **more: Any) -> Any:
        bodies.append(arguments[2])
        return original(*arguments, **more)

    house.gateway.prepare = counting  # type: ignore[method-assign]
    return bodies


def request(
    body: bytes, lines: bytes = b"", *, sized: bool = True, target: bytes = CHAT.encode(), first: bytes | None = None
) -> bytes:
    """A request whose head has ``lines`` besides what it needs."""
    first = b"POST " + target + b" HTTP/1.1\r\n" if first is None else first
    length = b"content-length: %d\r\n" % len(body) if sized else b""
    return first + b"host: x\r\ncontent-type: application/json\r\n" + length + lines + b"\r\n" + body


def chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def chunked(raw: bytes, lines: bytes = b"transfer-encoding: chunked\r\n") -> bytes:
    """A request whose body is ``raw``, chunks in all likelihood."""
    return request(raw, lines, sized=False)


async def everything(house: House, *pieces: bytes, quiet_s: float = 0.15, gap_s: float = 0.0) -> tuple[bytes, bool]:
    """Send ``pieces``; return what comes back, and whether the connection was closed."""
    got = b""
    async with wire(house) as client:
        try:
            for piece in pieces:
                client.send(piece)
                await asyncio.sleep(gap_s)
            while True:
                async with asyncio.timeout(quiet_s):
                    data = await client.reader.read(65536)
                if not data:
                    return got, True
                got += data
        except ConnectionError:
            return got, True
        except TimeoutError:
            return got, False


def replies(raw: bytes) -> list[Reply]:
    """Take answers with a length, or chunks, apart; nothing may be between or after them."""
    found: list[Reply] = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 400 ")), head[:80]
        status = int(head.split(b" ")[1])
        if status == 100:
            found.append(Reply(100, ""))
            continue
        if (length := re.search(rb"(?i)\r\ncontent-length: (\d+)", head)) is not None:
            body, raw = raw[: int(length[1])], raw[int(length[1]) :]
        else:
            body = b""
            while True:
                size, _, raw = raw.partition(b"\r\n")
                count = int(size, 16)
                body, raw = body + raw[:count], raw[count + 2 :]
                if not count:
                    break
        found.append(Reply(status, echo(body) if status == 200 else ""))
    return found


def echo(body: bytes) -> str:
    """Return what the simulator repeats, in an answer or a stream."""
    text = "".join(re.findall(r'"content":\s*"([^"]*)"', body.decode()))
    return text.removeprefix("You said: ")


# --- what two readers could read differently

SIZE = len(ONE)
AMBIGUOUS = {
    "length and chunks": request(chunks(ONE), b"transfer-encoding: chunked\r\n"),
    "chunks and length": chunked(chunks(ONE), b"transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
    "the same length twice": request(ONE, b"content-length: %d\r\n" % SIZE),
    "two lengths": request(ONE + request(EVIL), b"content-length: %d\r\n" % SIZE),
    "two lengths in one": request(ONE, b"content-length: %d, %d\r\n" % (SIZE, SIZE), sized=False),
    "length with a plus": request(ONE, b"content-length: +%d\r\n" % SIZE, sized=False),
    "length below zero": request(ONE, b"content-length: -5\r\n", sized=False),
    "length of nothing": request(ONE, b"content-length:\r\n", sized=False),
    "length 0x10": request(ONE, b"content-length: 0x10\r\n", sized=False),
    "length 1_0": request(ONE, b"content-length: 1_0\r\n", sized=False),
    "length above 64 bits": request(ONE, b"content-length: 99999999999999999999\r\n", sized=False),
    "length in other digits": request(ONE, "content-length: ١٢\r\n".encode(), sized=False),
    "space before the length's colon": request(ONE, b"content-length : %d\r\n" % SIZE, sized=False),
    "space before the chunks' colon": chunked(chunks(ONE), b"transfer-encoding : chunked\r\n"),
    "folded header": request(ONE, b"x-a: a\r\n b\r\n"),
    "folded length": request(ONE, b"content-length:\r\n %d\r\n" % SIZE, sized=False),
    "folded transfer coding": chunked(chunks(ONE), b"transfer-encoding:\r\n chunked\r\n"),
    "folded first line": request(ONE, first=b"POST /v1/chat/completions HTTP/1.1\r\n x: y\r\n"),
    "bare line feed": request(ONE, b"x-a: a\nx-b: c\r\n"),
    "bare line feed before chunked": request(ONE, b"x-a: a\ntransfer-encoding: chunked\r\n"),
    "bare line feed after the first line": request(ONE, first=b"POST /v1/chat/completions HTTP/1.1\n"),
    "bare line feed ends the head": request(ONE).replace(b"\r\n\r\n", b"\r\n\n", 1),
    "bare line feeds alone": request(ONE).replace(b"\r\n", b"\n"),
    "bare carriage return": request(ONE, b"x-a: a\rx-b: c\r\n"),
    "chunked, identity": chunked(chunks(ONE), b"transfer-encoding: chunked, identity\r\n"),
    "identity": request(ONE, b"transfer-encoding: identity\r\n", sized=False),
    "identity and a length": request(ONE, b"transfer-encoding: identity\r\n"),
    "gzip, chunked": chunked(chunks(ONE), b"transfer-encoding: gzip, chunked\r\n"),
    "xchunked": chunked(chunks(ONE), b"transfer-encoding: xchunked\r\n"),
    "chunked;a=b": chunked(chunks(ONE), b"transfer-encoding: chunked;a=b\r\n"),
    "comma before chunked": chunked(chunks(ONE), b"transfer-encoding: ,chunked\r\n"),
    "chunked in quotes": chunked(chunks(ONE), b'transfer-encoding: "chunked"\r\n'),
    "chunked with a Kelvin sign": chunked(chunks(ONE), "transfer-encoding: chun\u212aed\r\n".encode()),
    "chunked after a vertical tab": chunked(chunks(ONE), b"transfer-encoding: \x0bchunked\r\n"),
    "chunked twice": chunked(chunks(ONE), b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
    "chunked, chunked": chunked(chunks(ONE), b"transfer-encoding: chunked, chunked\r\n"),
    "no transfer coding": request(ONE, b"transfer-encoding:\r\n", sized=False),
    "chunks in HTTP/1.0": chunked(chunks(ONE)).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "chunks in HTTP/1.0 that stays": chunked(
        chunks(ONE), b"connection: keep-alive\r\ntransfer-encoding: chunked\r\n"
    ).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "space after a chunk's size": chunked(b"%x \r\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "line feed after a chunk's size": chunked(b"%x\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "line feed after an extension": chunked(b"%x;a\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "chunk 0x": chunked(b"0x%x\r\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "chunk above 64 bits": chunked(b"1%016x\r\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "line feed after a chunk": chunked(b"%x\r\n%b\n0\r\n\r\n" % (SIZE, ONE)),
    "nothing after a chunk": chunked(b"%x\r\n%b0\r\n\r\n" % (SIZE, ONE)),
    "line feed ends the chunks": chunked(b"%x\r\n%b\r\n0\r\n\n" % (SIZE, ONE)),
    "trailer Content-Length": chunked(b"%x\r\n%b\r\n0\r\ncontent-length: 5\r\n\r\n" % (SIZE, ONE)),
    "line feed in a trailer": chunked(b"%x\r\n%b\r\n0\r\nx: y\n\r\n" % (SIZE, ONE)),
    "NUL in a value": request(ONE, b"x-a: a\0b\r\n"),
    "NUL in a name": request(ONE, b"x-a\0: b\r\n"),
    "NUL in the target": request(ONE, target=CHAT.encode() + b"\0"),
    "control byte in a value": request(ONE, b"x-a: a\x01b\r\n"),
    "no name": request(ONE, b": a\r\n"),
    "no colon": request(ONE, b"xa\r\n"),
    "parenthesis in a name": request(ONE, b"x(a: b\r\n"),
    "two hosts": request(ONE, b"host: y\r\n"),
    "no host": request(ONE).replace(b"host: x\r\n", b""),
    "space in the target": request(ONE, target=CHAT.encode() + b" x"),
    "space after the version": request(ONE, first=b"POST /v1/chat/completions HTTP/1.1 \r\n"),
    "version 1.2": request(ONE, first=b"POST /v1/chat/completions HTTP/1.2\r\n"),
    "http": request(ONE, first=b"POST /v1/chat/completions http/1.1\r\n"),
    "odd method": request(ONE, first=b"P@ST /v1/chat/completions HTTP/1.1\r\n"),
    "tab after the method": request(ONE, first=b"POST\t/v1/chat/completions HTTP/1.1\r\n"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("gap_s", [0.0, 0.01], ids=["at once", "later"])
@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_ambiguous_request_is_not_served(
    tmp_path: Path, way: str, name: str, gap_s: float, log: pytest.LogCaptureFixture
) -> None:
    """400 or 501, and closed, whatever follows: what is in it, or behind it, is no call."""
    async with served(tmp_path, way) as house:
        bodies = calls_of(house)
        got, closed = await everything(house, AMBIGUOUS[name], request(EVIL), gap_s=gap_s)
        assert closed
        assert re.findall(rb"HTTP/1\.[01] (\d+)", got) in ([b"400"], [b"501"], [])
        assert bodies == []
    expect_complaints(log)


async def test_oddly_framed_request_to_a_mounted_gateway(tmp_path: Path) -> None:
    async with serving(tmp_path, host=web.Application()) as house:
        bodies = calls_of(house)
        for name in ("gzip, chunked", "comma before chunked"):
            raw = AMBIGUOUS[name].replace(b"POST /v1", b"POST /llm/v1")
            got, closed = await everything(house, raw, request(EVIL, target=b"/llm" + CHAT.encode()))
            assert closed and [reply.status for reply in replies(got)] == [501]
        assert bodies == []


# --- requests one after the other


PAGE = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


LAST = request(b"{}", b"connection: close\r\n", target=b"/nowhere")


def ask(text: str, *, stream: bool = False) -> bytes:
    return request(body_of(text, stream=stream))


LINES: dict[str, tuple[list[bytes], list[Reply]]] = {
    "whole answers": ([ask("a"), ask("b"), ask("c")], [Reply(200, "a"), Reply(200, "b"), Reply(200, "c")]),
    "streams": (
        [ask("a", stream=True), ask("b", stream=True), ask("c", stream=True)],
        [Reply(200, "a"), Reply(200, "b"), Reply(200, "c")],
    ),
    "a stream first": (
        [ask("a", stream=True), ask("b"), ask("c")],
        [Reply(200, "a"), Reply(200, "b"), Reply(200, "c")],
    ),
    "a stream last": ([ask("a"), ask("b"), ask("c", stream=True)], [Reply(200, "a"), Reply(200, "b"), Reply(200, "c")]),
    "a stream between": (
        [ask("a"), ask("b", stream=True), ask("c")],
        [Reply(200, "a"), Reply(200, "b"), Reply(200, "c")],
    ),
    "a refusal between": ([ask("a"), request(b"{"), ask("c")], [Reply(200, "a"), Reply(400, ""), Reply(200, "c")]),
    "a body for a page": (
        [ask("a"), request(EVIL, first=b"GET /healthz HTTP/1.1\r\n"), ask("c")],
        [Reply(200, "a"), Reply(200, ""), Reply(200, "c")],
    ),
    "a request in a body for nobody": (
        [ask("a"), request(ask("evil"), target=b"/nowhere"), ask("c")],
        [Reply(200, "a"), Reply(404, ""), Reply(200, "c")],
    ),
    "a request in chunks for nobody": (
        [chunked(chunks(ask("evil"))).replace(b"/v1/chat/completions", b"/nowhere", 1), ask("c")],
        [Reply(404, ""), Reply(200, "c")],
    ),
    "a request in the body of a wrong method": (
        [request(ask("evil"), first=b"GET /v1/chat/completions HTTP/1.1\r\n"), ask("c")],
        [Reply(405, ""), Reply(200, "c")],
    ),
    "a request in the body of a wrong type": (
        [request(ask("evil")).replace(b"application/json", b"text/plain", 1), ask("c")],
        [Reply(415, ""), Reply(200, "c")],
    ),
    "chunks": ([chunked(chunks(body_of("a"))), ask("b")], [Reply(200, "a"), Reply(200, "b")]),
    "chunks and trailers": (
        [chunked(chunks(body_of("a"))[:-2] + b"x-api-key: evil\r\nx-evil: evil\r\n\r\n"), ask("b")],
        [Reply(200, "a"), Reply(200, "b")],
    ),
    "expectations": (
        [request(ONE, b"expect: 100-continue\r\n"), ask("b")],
        [Reply(100, ""), Reply(200, "one"), Reply(200, "b")],
    ),
    "empty lines between": ([b"\r\n" + ask("a"), b"\r\n" + ask("b")], [Reply(200, "a"), Reply(200, "b")]),
    "pages between": ([ask("a"), PAGE, ask("c")], [Reply(200, "a"), Reply(200, ""), Reply(200, "c")]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("line", LINES)
async def test_each_is_answered_once_in_order(tmp_path: Path, way: str, line: str) -> None:
    requests, expected = LINES[line]
    first, together = len(requests[0]), b"".join([*requests, LAST])
    deliveries = [
        ([together], 0.0),
        ([*requests, LAST], 0.003),
        (cut(together, *range(50, len(together), 50)), 0.0005),
        (cut(together, first + 30), 0.005),
        (cut(together, first - 5), 0.005),
    ]
    async with served(tmp_path, way) as house:
        bodies = calls_of(house)
        for pieces, gap_s in deliveries:
            got, closed = await everything(house, *pieces, gap_s=gap_s, quiet_s=2)
            assert replies(got) == [*expected, Reply(404, "")] and closed
        assert not any(b"evil" in body for body in bodies)


def cut(data: bytes, *places: int) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *places, len(data)])]


@pytest.mark.parametrize("way", WAYS)
async def test_one_byte_at_a_time(tmp_path: Path, way: str) -> None:
    together = ask("a") + ask("b", stream=True) + chunked(chunks(body_of("c"))) + ask("d")
    async with served(tmp_path, way) as house, wire(house) as client:
        for n in range(len(together)):
            client.send(together[n : n + 1])
            await asyncio.sleep(0)
        client.send(LAST)
        assert replies(await client.rest()) == [Reply(200, text) for text in "abcd"] + [Reply(404, "")]


SLOW = """
    upstreams: {sim: {adapter: simulator, script: ["start 30s", "text hello"]}}
    routes: [{name: all, to: sim}]
"""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("more", [b"", ask("b"), ask("b", stream=True), PAGE, ask("b")[:50], b"garbage"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
async def test_client_that_leaves_midway(
    tmp_path: Path, way: str, more: bytes, stream: bool, together: bool, log: pytest.LogCaptureFixture
) -> None:
    """What it had asked for ends within a second, also when something waits behind it."""
    async with served(tmp_path, way, SLOW) as house:
        async with wire(house) as client:
            if together:
                client.send(ask("a", stream=stream) + more)
            else:
                client.send(ask("a", stream=stream))
                await asyncio.sleep(0.02)
                client.send(more)
            await asyncio.sleep(0.05)
            assert house.gateway.in_flight == (0 if together and more == b"garbage" else 1)
            client.leave()
        await house.idle(1.0)
        await asyncio.sleep(0.02)
        assert house.gateway.in_flight == 0, "nor does what waited behind it begin"
    expect_complaints(log)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("garbage", [b"garbage", b"\0", b"\r\n \r\n", b"GET", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_garbage_after_a_body(
    tmp_path: Path, way: str, stream: bool, garbage: bytes, log: pytest.LogCaptureFixture
) -> None:
    """The request before it has its own answer, or none; what follows is refused, or waits for more of it."""
    async with served(tmp_path, way) as house:
        for gap_s in (0.0, 0.02):
            got, closed = await everything(house, ask("a", stream=stream), garbage, gap_s=gap_s)
            told = replies(got)
            assert told in ([Reply(200, "a")], [Reply(200, "a"), Reply(400, "")], [Reply(400, "")])
            assert closed or garbage == b"GET"
    expect_complaints(log)


# --- floods

FLOODS = {
    "many headers": request(ONE, b"x-a: b\r\n" * 5000),
    "many different headers": request(ONE, b"".join(b"x-%d: b\r\n" % n for n in range(5000))),
    "a header of 600 KB": request(ONE, b"x: " + b"a" * 600_000 + b"\r\n"),
    "headers of 500 KB": request(ONE, b"".join(b"x-%d: %b\r\n" % (n, b"a" * 1000) for n in range(500))),
    "a name of 600 KB": request(ONE, b"a" * 600_000 + b": b\r\n"),
    "a target of 600 KB": request(ONE, target=b"/" + b"a" * 600_000),
    "a query of 600 KB": request(ONE, target=CHAT.encode() + b"?" + b"a" * 600_000),
    "a method of 600 KB": request(ONE, first=b"A" * 600_000 + b" / HTTP/1.1\r\n"),
    "many trailers": chunked(chunks(ONE)[:-2] + b"x-t: 1\r\n" * 20_000 + b"\r\n"),
    "no end of a header": b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"a" * 600_000,
    "no end of the first line": b"POST /" + b"a" * 600_000,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flood", FLOODS)
async def test_flood(tmp_path: Path, way: str, flood: str, log: pytest.LogCaptureFixture) -> None:
    async with served(tmp_path, way) as house:
        bodies = calls_of(house)
        got, closed = await everything(house, FLOODS[flood], request(EVIL))
        assert closed, got[:300]
        assert re.findall(rb"HTTP/1\.[01] (\d+)", got)[:1] in ([b"400"], [b"431"], [b"414"], [])
        assert bodies == []
    expect_complaints(log)


# --- what the rule file and the caller put into the request to the provider


@asynccontextmanager
async def provider_of(requests: list[bytes]) -> AsyncIterator[int]:
    """A provider that notes every byte it gets, at this port."""

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            requests.append(data)
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


BAD_RULES = {
    "line break in a header": 'headers: {x-a: "b\\r\\nx-evil: c"}',
    "line feed in a header": 'headers: {x-a: "b\\nx-evil: c"}',
    "NUL in a header": 'headers: {x-a: "b\\0c"}',
    "line break in a name": 'headers: {"x-a: b\\r\\nx-evil": c}',
    "length": "headers: {content-length: '3'}",
    "transfer coding": "headers: {Transfer-Encoding: chunked}",
    "host": "headers: {host: elsewhere}",
    "line break in the key": "key: env:BROKEN_KEY",
}
BAD_URLS = {
    "line break in the path": '"http://127.0.0.1:%d/v1\\r\\nx-evil: c"',
    "space in the path": '"http://127.0.0.1:%d/v1 HTTP/1.1"',
    "NUL in the path": '"http://127.0.0.1:%d/v1\\0"',
    "line break in the query": '"http://127.0.0.1:%d/v1?a=b\\r\\nx-evil: c"',
}


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
@pytest.mark.parametrize("bad", [*BAD_RULES, *BAD_URLS])
async def test_nothing_of_a_rule_breaks_out_of_its_line(
    tmp_path: Path, bad: str, transport: str, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    """Refused when the rules are read, or when the request is written; before the provider sees a byte of it."""
    monkeypatch.setenv("BROKEN_KEY", "sk-1\r\nx-evil: c")
    seen: list[bytes] = []
    more = BAD_RULES.get(bad, "key: env:TEST_PROVIDER_KEY")
    if "key" not in more:
        more += ", key: env:TEST_PROVIDER_KEY"
    async with provider_of(seen) as port:
        url = BAD_URLS[bad] % port if bad in BAD_URLS else f"http://127.0.0.1:{port}/v1"
        text = f"""
        upstreams: {{p: {{adapter: openai, base_url: {url}, transport: {transport}, {more}}}}}
        routes: [{{name: all, to: p}}]
        """
        try:
            async with served(tmp_path, "front", text) as house:
                got, _ = await everything(house, ask("a"), quiet_s=0.5)
                assert [reply.status for reply in replies(got)] == [500]
        except RulesError:
            pass
    assert seen == []
    log.clear()
