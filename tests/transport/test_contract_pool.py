"""How every Transport shares its connections: limit, order, time-out, slots that come back."""

from __future__ import annotations

import asyncio

import pytest
from headgate.gateway.errors import Cancelled, UpstreamError
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport.options import TransportOptions

from .calls import fails, send
from .conftest import Make, Serve
from .servers import CHUNKED, Peer, Script, answers, lively, silent, then_close, whole


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
