"""What every Transport does, told by scripted servers on loopback: answers, ends of every kind, back-pressure, abort."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib

import pytest
from headgate.gateway.errors import Cancelled, GatewayError, UpstreamError
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport.base import Exchange
from headgate.gateway.transport.options import TransportOptions

from .conftest import CHUNKED, Make, Peer, Request, Script, Serve, Sunk, answers, chunk, flow, send, whole

MB = 1024 * 1024
EVENTS = [f'data: {{"n":{n}}}\n\n'.encode() for n in range(50)]
STREAM = b"".join(EVENTS)


async def fails(work: object, kind: str) -> GatewayError:
    """Await ``work``; return the error, which must be of ``kind``."""
    with pytest.raises(GatewayError) as caught:
        async with asyncio.timeout(5):
            await work  # type: ignore[misc]
    assert caught.value.kind == kind, caught.value
    return caught.value


class Memory:
    """The most that Python objects made inside the block took at one time, in bytes."""

    peak = 0

    def __enter__(self) -> Memory:
        tracemalloc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


# --- answers


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
            await peer.say(whole(b'{"error":"too large"}', "Connection: close", status="413 Too Large"))
            await asyncio.sleep(0.1)
            if stays:  # reads no further, closes nothing: the client must
                peer.writer.transport.resume_reading()
                await peer.gone()

    upstream = await serve(script)
    exchange = await send(make(), scope, upstream.url, b"x" * (16 * MB))
    assert exchange.status == 413
    assert await exchange.read(100) == b'{"error":"too large"}'
    await upstream.drained()


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


# --- content codings


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


# --- ends that are none


def then_reset(*said: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*said)
        await asyncio.sleep(0.05)  # ClientSession drops what it has not read when a reset comes in the same turn
        peer.reset()

    return script


def then_close(*said: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*said)
        await asyncio.sleep(0.05)

    return script


CUTS = {
    "length, close": then_close(whole(STREAM)[:-1]),
    "length, reset": then_reset(whole(STREAM)[:-1]),
    "in a chunk": then_close(CHUNKED, chunk(STREAM)[:-3]),
    "between chunks, close": then_close(CHUNKED, chunk(STREAM)),
    "between chunks, reset": then_reset(CHUNKED, chunk(STREAM)),
    "before any byte, close": then_close(CHUNKED),
    "before any byte, reset": then_reset(CHUNKED),
    "no length, reset": then_reset(b"HTTP/1.1 200 OK\r\n\r\n", STREAM),
}


@pytest.mark.parametrize("cut", CUTS)
async def test_cut_body(make: Make, serve: Serve, scope: Scope, cut: str) -> None:
    upstream = await serve(CUTS[cut])
    transport = make(needs="eof_reset" if cut.startswith("no length") else "")
    error = await fails((await send(transport, scope, upstream.url)).read(MB), "cut")
    assert "127.0.0.1" in str(error)
    sunk = await flow(await send(transport, scope, upstream.url))
    assert sunk.error is not None and sunk.error.kind == "cut"
    assert STREAM.startswith(sunk.data)
    if "before" not in cut:
        assert len(sunk.data) >= len(STREAM) - len(EVENTS[-1])
    assert not scope.items and not scope.watched


@pytest.mark.parametrize("reset", [False, True])
async def test_lost_before_the_answer(make: Make, serve: Serve, scope: Scope, reset: bool) -> None:
    requests: list[Request] = []

    async def script(peer: Peer) -> None:
        if (request := await peer.request()) is not None:
            requests.append(request)
            if reset:
                peer.reset()

    upstream = await serve(script)
    error = await fails(send(make(), scope, upstream.url), "cut")
    assert "may have been processed" in str(error)
    assert len(requests) == 1


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
@pytest.mark.parametrize("reset", [False, True])
async def test_used_connection_lost_before_the_answer(
    make: Make, serve: Serve, scope: Scope, reset: bool, method: str
) -> None:
    requests: list[Request] = []

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            requests.append(request)
            if len(requests) == 2:
                if reset:
                    peer.reset()
                return
            await peer.say(whole(b"{}"))

    upstream = await serve(script)
    transport = make(needs="" if method == "POST" else "any_method")
    await (await send(transport, scope, upstream.url, method=method)).read(10)
    error = await fails(send(transport, scope, upstream.url, method=method), "cut")
    assert "may have been processed" in str(error)
    assert (len(requests), len(upstream.peers)) == (2, 1), "nothing is sent twice behind our back"
    assert await (await send(transport, scope, upstream.url, method=method)).read(10) == b"{}"


async def test_lost_while_the_request_is_written(make: Make, serve: Serve, scope: Scope) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(0.05)
        peer.reset()

    upstream = await serve(script)
    error = await fails(send(make(), scope, upstream.url, b"x" * (32 * MB)), "cut")
    assert "not processed" in str(error)


async def test_idle_connection_closed_by_the_server(make: Make, serve: Serve, scope: Scope) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(whole(b"{}"))

    upstream = await serve(script)
    transport = make()
    for _ in range(3):
        assert await (await send(transport, scope, upstream.url)).read(10) == b"{}"
        await asyncio.sleep(0.02)
    assert len(upstream.peers) == 3


async def header_flood(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n")
    while True:
        await peer.say(b"".join(b"X-%d: %s\r\n" % (n, b"y" * 100) for n in range(100)))


async def one_endless_header(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nX-A: ")
    while True:
        await peer.say(b"y" * 10_000)


BAD_HEADS: dict[str, Script] = {
    "not http": then_close(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "no status": then_close(b"HTTP/1.1 \r\n\r\n"),
    "bad header": then_close(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
    "header flood": header_flood,
    "endless header": one_endless_header,
    "two lengths": then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    "length is no number": then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\nab"),
    "negative length": then_close(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nab"),
    "switched protocols": then_close(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
}


@pytest.mark.parametrize("bad", BAD_HEADS)
async def test_malformed_head(make: Make, serve: Serve, scope: Scope, bad: str) -> None:
    upstream = await serve(BAD_HEADS[bad])
    with Memory() as memory:
        await fails(send(make(), scope, upstream.url), "malformed")
    assert memory.peak < 12 * MB
    await upstream.drained()
    assert not scope.items and not scope.watched


@pytest.mark.parametrize("bad", [b"zz\r\nabc\r\n", b"-3\r\nabc\r\n", b"3\r\nabcdef\r\n", b"f" * 17 + b"\r\nabc\r\n"])
async def test_malformed_chunk(make: Make, serve: Serve, scope: Scope, bad: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED, chunk(STREAM), gap=0.02)
        await peer.say(bad)
        await peer.gone()

    upstream = await serve(script)
    transport = make()
    await fails((await send(transport, scope, upstream.url)).read(MB), "malformed")
    sunk = await flow(await send(transport, scope, upstream.url))
    assert sunk.error is not None and sunk.error.kind == "malformed"
    assert sunk.data.startswith(STREAM)
    await upstream.drained()


# --- deadlines


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


@pytest.mark.parametrize("kind", ["timeout.first_token", "timeout.total"])
async def test_no_head_in_time(make: Make, serve: Serve, scope: Scope, kind: str) -> None:
    upstream = await serve(silent)
    await fails(send(make(), scope, upstream.url, head_s=0.05, head_kind=kind), kind)
    await upstream.drained()
    assert not scope.items and not scope.watched


async def test_deadline_leaves_the_task_usable(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(silent)
    await fails(send(make(), scope, upstream.url, head_s=0.01), "timeout.first_token")
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await asyncio.sleep(0)


async def test_connection_refused(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(silent)
    await upstream.close()
    error = await fails(send(make(), scope, upstream.url), "connect")
    assert upstream.url.split("/")[2] in str(error) and "refused" in str(error).lower()


async def test_no_connection_in_time(make: Make, serve: Serve, scope: Scope) -> None:
    async def mute(peer: Peer) -> None:  # accepts, but never says a word of TLS
        await peer.gone()

    upstream = await serve(mute)
    url = upstream.url.replace("http:", "https:")
    await fails(send(make(needs="tls"), scope, url, connect_s=0.05), "timeout.connect")
    await upstream.drained()


async def test_server_stops_reading(make: Make, serve: Serve, scope: Scope) -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()
        await release.wait()
        peer.writer.transport.resume_reading()
        await peer.gone()

    upstream = await serve(script)
    await fails(send(make(), scope, upstream.url, b"x" * (32 * MB), write_s=0.1), "timeout.write")
    release.set()
    await upstream.drained()


async def test_slow_reading_is_no_time_out(make: Make, serve: Serve, scope: Scope) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.head()
        assert request is not None
        left = int(request.header("content-length") or 0)
        while left:
            left -= len(await peer.reader.read(MB))
            await asyncio.sleep(0.01)
        await peer.say(whole(b"{}"))

    upstream = await serve(script)
    exchange = await send(make(), scope, upstream.url, b"x" * (24 * MB), write_s=0.2)
    assert await exchange.read(10) == b"{}"


# --- flow


async def test_back_pressure(make: Make, serve: Serve, scope: Scope) -> None:
    size = 24 * MB
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        piece = b"x" * 65536
        for _ in range(size // 65536):
            await peer.say(piece)
        await peer.gone()

    upstream = await serve(script)
    exchange = await send(make(), scope, upstream.url)
    counted = 0

    def count(item: bytes) -> None:
        nonlocal counted
        counted += len(item)
        sunk.items.clear()
        if not sunk.pauses:
            sunk.pauses = 1
            exchange.pause()

    sunk = Pausing(count)
    with Memory() as memory:
        exchange.connect(sunk)
        said = -1
        async with asyncio.timeout(5):
            while said != peers[0].sent:
                said = peers[0].sent
                await asyncio.sleep(0.1)
    assert said < 16 * MB, "the server got rid of more than the sockets hold"
    assert memory.peak < 3 * MB
    assert counted < MB
    exchange.resume()
    await asyncio.wait_for(sunk.ended.wait(), 5)
    assert (counted, sunk.error) == (size, None)


class Pausing(Sunk):
    """Remembers that it paused."""

    pauses = 0


async def test_unconnected_body_is_bounded(make: Make, serve: Serve, scope: Scope) -> None:
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await peer.request()
        await peer.say(CHUNKED)
        for _ in range(24 * 16):
            await peer.say(chunk(b"x" * 65536))

    upstream = await serve(script)
    with Memory() as memory:
        exchange = await send(make(), scope, upstream.url)
        await asyncio.sleep(0.2)
    assert peers[0].sent < 16 * MB
    assert memory.peak < 3 * MB
    exchange.abort()


async def test_pause_before_connect_and_no_end_while_paused(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(whole(STREAM)))
    exchange = await send(make(), scope, upstream.url)
    exchange.pause()
    exchange.pause()
    sunk = Sunk()
    exchange.connect(sunk)
    await asyncio.sleep(0.02)
    assert (sunk.items, sunk.ends) == ([], 0)
    exchange.resume()
    exchange.resume()
    await asyncio.wait_for(sunk.ended.wait(), 2)
    assert sunk.data == STREAM
    exchange.pause()
    exchange.resume()
    exchange.abort()


async def test_pause_and_resume_from_inside_push(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(CHUNKED, *map(chunk, EVENTS), chunk(b""), gap=0.001))
    exchange = await send(make(), scope, upstream.url)
    depth = 0

    def again(item: bytes) -> None:
        nonlocal depth
        assert depth == 0, "resume() nested a push"
        depth += 1
        exchange.pause()
        exchange.resume()
        exchange.pause()
        scope.loop.call_soon(exchange.resume)
        depth -= 1

    sunk = Sunk(again)
    exchange.connect(sunk)
    await asyncio.wait_for(sunk.ended.wait(), 5)
    assert (sunk.data, sunk.error) == (STREAM, None)


async def test_sink_that_raises(make: Make, serve: Serve, scope: Scope, caplog: pytest.LogCaptureFixture) -> None:
    upstream = await serve(lively)
    exchange = await send(make(), scope, upstream.url)

    def broken(item: bytes) -> None:
        raise ConnectionResetError("the sink's own fault")

    sunk = Sunk(broken)
    exchange.connect(sunk)
    await upstream.drained()
    assert sunk.ends == 0 and not scope.items
    caplog.clear()


# --- abort, cancellation, scopes


async def lively(peer: Peer) -> None:
    """Answers, and goes on for ever."""
    await peer.request()
    reading = asyncio.ensure_future(peer.gone())  # noqa: TID251
    try:
        await peer.say(CHUNKED)
        while not reading.done():
            await peer.say(chunk(b"data: x\n\n"), gap=0.005)
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def deaf(peer: Peer) -> None:
    """Takes the head, then reads only once the test lets it."""
    await peer.head()
    peer.writer.transport.pause_reading()
    await asyncio.sleep(0.2)
    peer.writer.transport.resume_reading()
    await peer.gone()


WAYS = ["abort", "scope"]


def end(way: str, exchange: Exchange, scope: Scope) -> None:
    for _ in range(2):
        if way == "abort":
            exchange.abort()
        else:
            scope.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", ["head", "reading", "flowing", "paused", "inside push", "connected just now"])
async def test_abort(make: Make, serve: Serve, scope: Scope, way: str, phase: str) -> None:
    upstream = await serve(lively)
    exchange = await send(make(), scope, upstream.url)
    sunk = Sunk()
    reading: asyncio.Task[bytes] | None = None
    if phase == "reading":
        reading = asyncio.ensure_future(exchange.read(MB))  # noqa: TID251
        await asyncio.sleep(0.02)
    elif phase == "inside push":
        sunk.on_push = lambda item: end(way, exchange, scope)
    if phase not in ("head", "reading"):
        exchange.connect(sunk)
    if phase not in ("head", "reading", "connected just now"):
        await asyncio.wait_for(sunk.pushed.wait(), 2)
    if phase == "paused":
        exchange.pause()
        await asyncio.sleep(0.02)
    heard = len(sunk.items)
    end(way, exchange, scope)
    await upstream.drained()
    exchange.resume()
    await asyncio.sleep(0.02)
    assert (len(sunk.items), sunk.ends) == (heard, 0)
    assert not scope.items and not scope.watched
    if reading is not None:
        await fails(reading, "cancelled")


@pytest.mark.parametrize("way", WAYS)
async def test_abort_after_the_end(make: Make, serve: Serve, scope: Scope, way: str) -> None:
    upstream = await serve(answers(whole(b"{}")))
    transport = make()
    exchange = await send(transport, scope, upstream.url)
    sunk = await flow(exchange)
    read = await send(transport, scope, upstream.url)
    await read.read(10)
    for each in (exchange, read):
        end(way, each, scope)
    assert sunk.ends == 1
    assert upstream.open == 1, "the connection stays in the pool"
    if way == "abort":
        assert await (await send(transport, scope, upstream.url)).read(10) == b"{}"
        assert len(upstream.peers) == 1


@pytest.mark.parametrize("script", [silent, deaf], ids=["no head", "body half sent"])
@pytest.mark.parametrize("way", ["scope", "cancel", "aclose"])
async def test_end_while_submitting(make: Make, serve: Serve, scope: Scope, way: str, script: Script) -> None:
    upstream = await serve(script)
    transport = make()
    body = b"x" * (16 * MB) if script is deaf else b"{}"
    submitting = asyncio.ensure_future(send(transport, scope, upstream.url, body))  # noqa: TID251
    while not upstream.open:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    if way == "cancel":
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
    else:
        if way == "scope":
            scope.close()
        else:
            await asyncio.wait_for(transport.aclose(), 1)
        await fails(submitting, "cancelled")
        assert submitting.cancelling() == 0
    await upstream.drained()
    assert not scope.items and not scope.watched


async def test_cancel_while_connecting(make: Make, serve: Serve, scope: Scope) -> None:
    async def mute(peer: Peer) -> None:
        await peer.gone()

    upstream = await serve(mute)
    submitting = asyncio.ensure_future(  # noqa: TID251
        send(make(needs="tls"), scope, upstream.url.replace("http:", "https:"))
    )
    while not upstream.open:
        await asyncio.sleep(0.005)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    await upstream.drained()


@pytest.mark.parametrize("turns", range(12))
async def test_cancel_at_any_turn(make: Make, serve: Serve, scope: Scope, turns: int) -> None:
    """Whenever it is cancelled, a call gives its slot back and leaves nothing open in its scope."""
    upstream = await serve(answers(whole(b"{}")))
    transport = make(TransportOptions(max_connections=1))

    async def call() -> bytes:
        return await (await send(transport, scope, upstream.url)).read(10)

    first, second = asyncio.ensure_future(call()), asyncio.ensure_future(call())  # noqa: TID251
    for _ in range(turns):
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first, second])
    assert not scope.items and not scope.watched
    for _ in range(2):
        assert await asyncio.wait_for(call(), 2) == b"{}"


async def test_cancelled_read(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(lively)
    exchange = await send(make(), scope, upstream.url)
    reading = asyncio.ensure_future(exchange.read(MB))  # noqa: TID251
    await asyncio.sleep(0.02)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await upstream.drained()
    assert not scope.items


async def test_closed_scope_starts_nothing(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(silent)
    scope.close()
    await fails(send(make(), scope, upstream.url), "cancelled")
    assert not upstream.peers


async def test_aclose(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(lively)
    transport = make()
    await transport.aclose()  # never used: nothing to close
    transport = make()
    exchange = await send(transport, scope, upstream.url)
    sunk = Sunk()
    exchange.connect(sunk)
    await asyncio.wait_for(sunk.pushed.wait(), 2)
    await asyncio.wait_for(transport.aclose(), 1)
    await upstream.drained()
    await transport.aclose()
    assert sunk.ends == 0
    await fails(send(transport, scope, upstream.url), "connect")


# --- the pool


async def silent_after_head(peer: Peer) -> None:
    await peer.request()
    await peer.say(CHUNKED)
    await peer.gone()


async def test_pool_limit_and_reuse(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(whole(b"{}"), gap=0.001))
    transport = make(TransportOptions(max_connections=10))

    async def call() -> bytes:
        return await (await send(transport, scope, upstream.url)).read(10)

    assert set(await asyncio.gather(*(call() for _ in range(200)))) == {b"{}"}
    assert upstream.peak <= 10
    assert len(upstream.peers) <= 20


async def test_pool_timeout_and_order(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(whole(b"{}")))
    transport = make(TransportOptions(max_connections=1))
    held = await send(transport, scope, upstream.url)
    await fails(send(transport, scope, upstream.url, pool_s=0.05), "timeout.pool")
    order: list[int] = []

    async def call(number: int) -> None:
        exchange = await send(transport, scope, upstream.url)
        order.append(number)
        await exchange.read(10)

    waiting = [asyncio.ensure_future(call(number)) for number in range(5)]  # noqa: TID251
    await asyncio.sleep(0.01)
    waiting[1].cancel()
    await held.read(10)
    await asyncio.wait(waiting)
    assert order == [0, 2, 3, 4]
    assert len(upstream.peers) == 1


@pytest.mark.parametrize("how", ["read", "cut", "abort", "refused head", "timeout"])
async def test_slot_comes_back(make: Make, serve: Serve, scope: Scope, how: str) -> None:
    scripts: dict[str, Script] = {
        "read": answers(whole(b"{}")),
        "cut": then_close(whole(b"{}")[:-1]),
        "abort": lively,
        "refused head": then_close(b"nonsense\r\n\r\n"),
        "timeout": silent,
    }
    upstream = await serve(scripts[how])
    transport = make(TransportOptions(max_connections=1))
    kinds: set[str] = set()
    for _ in range(3):
        try:
            exchange = await send(transport, scope, upstream.url, pool_s=1.0, head_s=0.05 if how == "timeout" else 5.0)
            if how == "abort":
                exchange.abort()
                exchange.abort()
            else:
                await exchange.read(10)
        except UpstreamError as error:
            kinds.add(error.kind)
    assert "timeout.pool" not in kinds
    good = await serve(silent_after_head)
    held = await send(transport, scope, good.url, pool_s=0.5)
    await fails(send(transport, scope, good.url, pool_s=0.05), "timeout.pool")  # else one came back twice
    held.abort()


async def test_scope_closed_while_waiting_for_a_slot(make: Make, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(whole(b"{}")))
    transport = make(TransportOptions(max_connections=1))
    held = await send(transport, scope, upstream.url)
    other = Scope(scope.clock)
    waiting = asyncio.ensure_future(send(transport, other, upstream.url))  # noqa: TID251
    await asyncio.sleep(0.01)
    other.close()
    with pytest.raises(Cancelled):
        await waiting
    await held.read(10)
    assert await (await send(transport, scope, upstream.url, pool_s=0.5)).read(10) == b"{}"
