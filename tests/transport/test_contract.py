"""What every Transport makes of a whole answer: requests as given, framings, content codings, limits."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest
from headgate.gateway.relay.scope import Scope

from .calls import EVENTS, MB, STREAM, Memory, Sunk, fails, flow, open_sockets, send
from .conftest import Make, Serve
from .servers import CHUNKED, Peer, Request, answers, chunk, whole


async def test_request_and_answer_are_what_was_given(make: Make, serve: Serve, scope: Scope) -> None:
    seen: list[Request] = []

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.say(whole(b'{"a":1}', "Content-Type: application/json", "X-Request-Id: r1"))

    upstream = await serve(script)
    transport = make()
    headers = {"Content-Type": "application/json", "authorization": "Bearer k", "X-Name": "ü"}
    exchange = await send(transport, scope, upstream.url + "?a=%2F&b=c+d", b'{"m":"x"}', headers=headers)
    assert exchange.status == 200
    assert exchange.headers == {"content-length": "7", "content-type": "application/json", "x-request-id": "r1"}
    assert await exchange.read(100) == b'{"a":1}'
    [request] = seen
    assert (request.method, request.target, request.body) == ("POST", "/v1/x?a=%2F&b=c+d", b'{"m":"x"}')
    sent = {name.lower(): value for name, value in request.headers}
    host = upstream.url.split("/")[2]
    assert sent == {
        "host": host,
        "content-type": "application/json",
        "authorization": "Bearer k",
        "x-name": "ü",
        "content-length": "9",
    }
    assert not scope.items and not scope.watched


@pytest.mark.parametrize("headers", [{}, {"accept": "text/event-stream"}])
async def test_no_header_is_added(make: Make, serve: Serve, scope: Scope, headers: dict[str, str]) -> None:
    seen: list[Request] = []

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.say(whole(b""))

    upstream = await serve(script)
    transport = make()
    for body in (b"x", b""):
        await (await send(transport, scope, upstream.url, body, headers=headers)).read(10)
    for request in seen:
        assert {name.lower() for name, _ in request.headers} == {"host", "content-length", *headers}


ENDINGS = {
    "length": [whole(STREAM)],
    "length in pieces": [whole(STREAM)[n : n + 7] for n in range(0, len(whole(STREAM)), 7)],
    "chunks": [CHUNKED + b"".join(map(chunk, EVENTS)) + chunk(b"")],
    "chunk by chunk": [CHUNKED, *map(chunk, EVENTS), chunk(b"")],
    "chunks across writes": [CHUNKED, *(chunk(STREAM)[n : n + 5] for n in range(0, len(chunk(STREAM)), 5)), chunk(b"")],
    "chunk with extension and trailer": [CHUNKED, b"%x;a=b\r\n%s\r\n" % (len(STREAM), STREAM), b"0\r\nX-T: 1\r\n\r\n"],
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_whole_body_by_both_ways(make: Make, serve: Serve, scope: Scope, ending: str) -> None:
    upstream = await serve(answers(*ENDINGS[ending]))
    transport = make()
    assert await (await send(transport, scope, upstream.url)).read(len(STREAM)) == STREAM
    sunk = await flow(await send(transport, scope, upstream.url))
    assert (sunk.data, sunk.error, sunk.ends) == (STREAM, None, 1)
    assert len(upstream.peers) == 1, "the connection was not used again"
    assert not scope.items and not scope.watched


@pytest.mark.parametrize("half", [False, True])
async def test_body_up_to_the_end_of_the_connection(make: Make, serve: Serve, scope: Scope, half: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\n", *EVENTS)
        if half:
            peer.writer.write_eof()
            await peer.gone()

    upstream = await serve(script)
    transport = make()
    assert await (await send(transport, scope, upstream.url)).read(MB) == STREAM
    sunk = await flow(await send(transport, scope, upstream.url))
    assert (sunk.data, sunk.error) == (STREAM, None)
    await upstream.drained()


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", 200),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("POST", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304),
        ("POST", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + whole(b""), 200),
        ("POST", whole(b"", "Location: http://127.0.0.1:1/elsewhere", status="307 Moved"), 307),
        ("GET", whole(b"", "Location: /elsewhere", status="302 Found"), 302),
        ("POST", whole(b"", status="599 Odd"), 599),
    ],
)
async def test_no_body(make: Make, serve: Serve, scope: Scope, method: str, answer: bytes, status: int) -> None:
    upstream = await serve(answers(answer))
    transport = make(needs="" if method == "POST" else "any_method")
    for _ in range(2):
        exchange = await send(transport, scope, upstream.url, b"", method=method)
        assert exchange.status == status
        assert "link" not in exchange.headers
        assert await exchange.read(10) == b""
    sunk = await flow(await send(transport, scope, upstream.url, b"", method=method))
    assert (sunk.items, sunk.error) == ([], None)
    assert len(upstream.peers) == 1


async def test_repeated_headers_are_joined_and_cookies_dropped(make: Make, serve: Serve, scope: Scope) -> None:
    lines = ("X-A: 1", "Set-Cookie: s=1; a, b", "x-a: 2", "Set-Cookie: t=2", "X-B: 3")
    upstream = await serve(answers(whole(b"", *lines)))
    exchange = await send(make(), scope, upstream.url)
    assert exchange.headers == {"content-length": "0", "x-a": "1, 2", "x-b": "3"}
    await exchange.read(10)


async def test_no_cookie_comes_back(make: Make, serve: Serve, scope: Scope) -> None:
    seen: list[Request] = []

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.say(whole(b"", "Set-Cookie: s=1; Path=/"))

    upstream = await serve(script)
    transport = make()
    for _ in range(2):
        await (await send(transport, scope, upstream.url)).read(10)
    assert [request.header("cookie") for request in seen] == [None, None]


@pytest.mark.parametrize("how", ["close header", "http 1.0", "garbage after the body"])
async def test_connection_that_may_not_be_used_again(make: Make, serve: Serve, scope: Scope, how: str) -> None:
    answer = {
        "close header": whole(b"{}", "Connection: close"),
        "http 1.0": whole(b"{}").replace(b"1.1", b"1.0"),
        "garbage after the body": whole(b"{}") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    }[how]
    upstream = await serve(answers(answer))
    transport = make()
    for _ in range(3):
        assert await (await send(transport, scope, upstream.url)).read(10) == b"{}"
        await asyncio.sleep(0.01)
    assert len(upstream.peers) == 3


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1, 3 * MB])
async def test_big_request_body(make: Make, serve: Serve, scope: Scope, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    seen: list[Request] = []

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            await peer.say(whole(b"{}"))

    upstream = await serve(script)
    transport = make()
    for _ in range(2):
        assert await (await send(transport, scope, upstream.url, body)).read(10) == b"{}"
    assert [request.body == body for request in seen] == [True, True]
    assert len(upstream.peers) == 1


@pytest.mark.parametrize("stays", [False, True])
async def test_answer_before_the_request_was_sent(make: Make, serve: Serve, scope: Scope, stays: bool) -> None:
    async def script(peer: Peer) -> None:
        if await peer.head() is not None:
            peer.writer.transport.pause_reading()
            await peer.say(whole(b'{"error":"too large"}', status="413 Too Large"))
            await asyncio.sleep(0.1)
            if stays:  # reads no further and closes nothing
                await asyncio.Event().wait()

    upstream = await serve(script)
    before = open_sockets()
    exchange = await send(make(), scope, upstream.url, b"x" * (16 * MB))
    assert exchange.status == 413
    assert await exchange.read(100) == b'{"error":"too large"}'
    await asyncio.sleep(0.02)
    assert open_sockets() <= before + 1, "a connection with half a request on it is of no more use"


async def test_body_above_the_limit(make: Make, serve: Serve, scope: Scope) -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        while True:
            await peer.say(chunk(b"x" * 65536))

    declared = await serve(answers(whole(b"x" * (4 * MB))))
    unsaid = await serve(endless)
    transport = make()
    for upstream in (declared, unsaid):
        error = await fails((await send(transport, scope, upstream.url)).read(1000), "malformed")
        assert "1000 bytes" in str(error)
        await upstream.drained()
    exact = await serve(answers(whole(b"x" * 1000)))
    assert len(await (await send(transport, scope, exact.url)).read(1000)) == 1000


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_unasked_compression_is_taken_off(
    make: Make, serve: Serve, scope: Scope, coding: str, chunked: bool
) -> None:
    packed = gzip.compress(STREAM) if coding == "gzip" else zlib.compress(STREAM)
    line = f"Content-Encoding: {coding}"
    said = whole(packed, line)
    if chunked:
        said = CHUNKED[:-2] + line.encode() + b"\r\n\r\n" + chunk(packed) + chunk(b"")
    upstream = await serve(answers(said))
    transport = make(needs="coding")
    exchange = await send(transport, scope, upstream.url)
    assert not exchange.headers.keys() & {"content-encoding", "content-length"}
    assert await exchange.read(MB) == STREAM
    assert (await flow(await send(transport, scope, upstream.url))).data == STREAM


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"(", "Content-Encoding: snappy"),
        whole(b"this is no gzip", "Content-Encoding: gzip"),
    ],
)
async def test_undecodable_compression(make: Make, serve: Serve, scope: Scope, answer: bytes) -> None:
    upstream = await serve(answers(answer))

    async def whole_call() -> None:
        await (await send(make(), scope, upstream.url)).read(100)

    await fails(whole_call(), "malformed")
    assert not scope.items


BOMB = 200 * MB


@pytest.fixture(scope="module")
def bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(bytes(MB)) for _ in range(BOMB // MB)]
    return whole(b"".join(pieces) + packer.flush(), "Content-Encoding: gzip")


async def test_bomb_is_read_no_further_than_the_limit(make: Make, serve: Serve, scope: Scope, bomb: bytes) -> None:
    upstream = await serve(answers(bomb))
    exchange = await send(make(needs="coding"), scope, upstream.url)
    with Memory() as memory:
        await fails(exchange.read(MB), "malformed")
    assert memory.peak < 8 * MB
    await upstream.drained()


async def test_bomb_obeys_pause(make: Make, serve: Serve, scope: Scope, bomb: bytes) -> None:
    upstream = await serve(answers(bomb))
    exchange = await send(make(needs="coding"), scope, upstream.url)
    sunk = Sunk(lambda item: exchange.pause())
    with Memory() as memory:
        exchange.connect(sunk)
        await asyncio.wait_for(sunk.pushed.wait(), 2)
        await asyncio.sleep(0.1)
    assert memory.peak < 8 * MB
    assert len(sunk.data) < 4 * MB
    exchange.abort()
    await upstream.drained()
