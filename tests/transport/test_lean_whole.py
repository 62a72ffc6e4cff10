"""An answer that comes at once, head and body in one read, goes a shorter way: whoever takes it must not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from headgate.gateway.errors import GatewayError
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport.base import Standing
from headgate.gateway.transport.lean import LeanTransport
from headgate.gateway.transport.lean_request import Target
from headgate.gateway.transport.options import TransportOptions

from .calls import MB, Sunk, send
from .conftest import Serve
from .servers import answers, chunk

LENGTH = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nX-A: 1 \t\r\nContent-Length: 5\r\n\r\nwhole"
CHUNKS = (
    b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nx-a: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(b"who")
    + chunk(b"le")
    + b"0\r\nx-a: 2\r\n\r\n"
)
EMPTY = b"HTTP/1.1 200 OK\r\nx-a: 1\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
async def lean() -> AsyncIterator[LeanTransport]:
    transport = LeanTransport(TransportOptions(max_connections=1))
    yield transport
    await transport.aclose()


@pytest.mark.parametrize("way", ["ready", "read", "flow", "paused"])
@pytest.mark.parametrize("said", [LENGTH, CHUNKS, EMPTY], ids=["length", "chunks", "empty"])
async def test_every_way_to_take_it(lean: LeanTransport, serve: Serve, scope: Scope, said: bytes, way: str) -> None:
    upstream = await serve(answers(said))
    for _ in range(2):
        exchange = await send(lean, scope, upstream.url)
        assert exchange.status == 200 and exchange.headers["x-a"] == "1" and "set-cookie" not in exchange.headers
        assert lean._pool.slots.free == 0 and scope.items == {exchange} and not scope.watched
        if way == "ready":
            body = exchange.ready(5)
        elif way == "read":
            body = await exchange.read(5)
        else:
            sunk = Sunk()
            if way == "paused":
                exchange.pause()
            exchange.connect(sunk)
            if way == "paused":
                assert not sunk.items and not sunk.ends
                exchange.resume()
            assert sunk.ends == 1 and sunk.error is None
            body = sunk.data
        assert body == (b"" if said is EMPTY else b"whole")
        assert lean._pool.slots.free == 1 and not scope.items
        assert exchange.ready(5) is None  # it is over
    assert len(upstream.peers) == 1


@pytest.mark.parametrize("way", ["abort", "scope", "too large", "too large to read"])
async def test_nobody_takes_it(lean: LeanTransport, serve: Serve, scope: Scope, way: str) -> None:
    upstream = await serve(answers(LENGTH))
    own = Scope(scope.clock)
    exchange = await send(lean, own, upstream.url)
    if way == "abort":
        exchange.abort()
    elif way == "scope":
        own.close()
    elif way == "too large":
        assert exchange.ready(4) is None
        assert exchange.ready(5) == b"whole"
    else:
        assert exchange.ready(4) is None
        with pytest.raises(GatewayError, match="larger than 4 bytes"):
            await exchange.read(4)
    assert exchange.ready(5) is None
    assert lean._pool.slots.free == 1 and not own.items
    own.close()
    assert await (await send(lean, scope, upstream.url)).read(MB) == b"whole"
    assert len(upstream.peers) == (1 if way == "too large" else 2)


async def test_slot_goes_to_who_waits(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(LENGTH))
    first = await send(lean, scope, upstream.url)
    second = scope.spawn(send(lean, scope, upstream.url))
    while not lean._pool.pending:
        await asyncio.sleep(0)
    assert first.ready(MB) == b"whole"
    assert lean._pool.slots.free == 0
    assert await (await second).read(MB) == b"whole"
    assert lean._pool.slots.free == 1 and len(upstream.peers) == 1


# --- what is the same in all requests of a kind is written once


def test_percent_signs_are_no_places() -> None:
    target = Target("http://a.test/x%20y?q=%s")
    standing = Standing({"x-%s": "100%", "x-d": "%d"})
    for value in ("%s", "b%%"):
        head = target.head("POST", {"x-%d": value, "b": "%(b)s"}, 3, standing)
        assert head == (
            b"POST /x%20y?q=%s HTTP/1.1\r\nhost: a.test\r\nx-%s: 100%\r\nx-d: %d\r\n"
            b"x-%d: " + value.encode() + b"\r\nb: %(b)s\r\ncontent-length: 3\r\n\r\n"
        )


@pytest.mark.parametrize("bad", ["a\r\nb: c", "a\n", "\r", "\0"])
def test_values_are_looked_at_each_time(bad: str) -> None:
    target = Target("http://a.test/")
    for value in ("good", bad, "good"):
        for headers in ({"a": value, "b": "c"}, {"b": "c", "a": value}):
            if value == bad:
                with pytest.raises(GatewayError, match="has a line break or a NUL in it"):
                    target.head("POST", headers, 3)
            else:
                assert b"\r\na: good\r\n" in target.head("POST", headers, 3)
    with pytest.raises(GatewayError, match="has a line break or a NUL in it"):
        target.head("POST", {}, 3, Standing({"a": bad}))


def test_kinds_are_forgotten() -> None:
    target = Target("http://a.test/")
    for number in range(1000):
        assert f"\r\nx-{number}: 1\r\n".encode() in target.head("GET", {f"x-{number}": "1"}, 0)
    assert len(target._kinds) <= 64
