"""What every Transport makes of answers that break off, make no sense or do not come."""

from __future__ import annotations

import asyncio
import socket

import pytest
from headgate.gateway.relay.scope import Scope

from .calls import EVENTS, MB, STREAM, Memory, Sunk, fails, flow, send
from .conftest import Make, Serve
from .servers import CHUNKED, Peer, Request, Script, chunk, silent, then_close, then_reset, whole

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


@pytest.mark.parametrize("paused_s", [0.0, 0.1])
@pytest.mark.parametrize("last", [b"zz\r\nabc\r\n", b"5\r\nab"])
async def test_end_while_paused(make: Make, serve: Serve, scope: Scope, last: bytes, paused_s: float) -> None:
    """The connection ends while nobody reads: whoever resumes hears of it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED, chunk(b"a"), gap=0.05)
        await peer.say(last)

    upstream = await serve(script)
    exchange = await send(make(), scope, upstream.url)
    sunk = Sunk(lambda item: exchange.pause())
    exchange.connect(sunk)
    await asyncio.wait_for(sunk.pushed.wait(), 2)
    await upstream.drained()
    await asyncio.sleep(paused_s)
    for _ in range(50):
        exchange.resume()
        await asyncio.sleep(0.01)
    assert sunk.error is not None and sunk.error.kind == ("malformed" if b"zz" in last else "cut")
    assert not scope.items and not scope.watched


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


async def test_no_connection_in_time(make: Make, scope: Scope) -> None:
    """A full backlog: Linux lets further connects wait."""
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(address)
            clients.append(client)
        await fails(send(make(), scope, f"http://127.0.0.1:{address[1]}/", connect_s=0.1), "timeout.connect")
    for client in clients:
        client.close()


async def test_no_handshake_in_time(make: Make, serve: Serve, scope: Scope) -> None:
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
