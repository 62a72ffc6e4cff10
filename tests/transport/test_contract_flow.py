"""How every Transport flows and stops: back-pressure, pause, abort in each phase, cancellation."""

from __future__ import annotations

import asyncio

import pytest
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport.base import Exchange
from headgate.gateway.transport.options import TransportOptions

from .calls import EVENTS, MB, STREAM, Memory, Sunk, fails, flow, open_sockets, send
from .conftest import Make, Serve
from .servers import CHUNKED, Peer, Script, answers, chunk, lively, silent, whole


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


async def deaf(peer: Peer) -> None:
    """Takes the head and reads no more: what the client has written stays unsent."""
    await peer.head()
    peer.writer.transport.pause_reading()
    await asyncio.Event().wait()


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
    before = open_sockets()
    submitting = asyncio.ensure_future(send(transport, scope, upstream.url, body))  # noqa: TID251
    while not upstream.open:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert open_sockets() == before + 2
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
    await asyncio.sleep(0.02)
    assert open_sockets() <= before + 1, "our end is still open, waiting for a peer that does not read"
    if script is silent:
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
