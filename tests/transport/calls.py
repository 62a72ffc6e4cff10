"""Our side of a call, as the tests make it: submit, sinks, and what a test wants to know afterwards."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from headgate.gateway.errors import GatewayError
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport.base import Deadlines, Exchange, RequestHead, Transport

MB = 1024 * 1024
EVENTS = [f'data: {{"n":{n}}}\n\n'.encode() for n in range(50)]
STREAM = b"".join(EVENTS)


@dataclass
class Sunk:
    """A sink that remembers, and may act on each push."""

    on_push: Callable[[bytes], object] = lambda item: None
    items: list[bytes] = field(default_factory=list)
    error: GatewayError | None = None
    ends: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    pushed: asyncio.Event = field(default_factory=asyncio.Event)

    def push(self, item: bytes, /) -> None:
        assert not self.ends, "push after end"
        self.items.append(item)
        self.pushed.set()
        self.on_push(item)

    def end(self, error: GatewayError | None, /) -> None:
        self.error = error
        self.ends += 1
        self.ended.set()

    @property
    def data(self) -> bytes:
        return b"".join(self.items)


async def send(
    transport: Transport,
    scope: Scope,
    url: str,
    body: bytes = b"{}",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    pool_s: float | None = 5.0,
    connect_s: float | None = 5.0,
    write_s: float | None = 5.0,
    head_s: float | None = 5.0,
    head_kind: str = "timeout.first_token",
) -> Exchange:
    """Submit with deadlines that a healthy test never meets."""
    deadlines = Deadlines(
        pool_s=pool_s,
        connect_s=connect_s,
        write_s=write_s,
        head_at=None if head_s is None else scope.loop.time() + head_s,
        head_kind=head_kind,  # type: ignore[arg-type]
    )
    given = {"content-type": "application/json"} if headers is None else headers
    return await transport.submit(RequestHead(method, url, given), body, deadlines, scope)


async def flow(exchange: Exchange) -> Sunk:
    """Connect a sink and wait for the end."""
    sunk = Sunk()
    exchange.connect(sunk)
    async with asyncio.timeout(5):
        await sunk.ended.wait()
    return sunk


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


def open_sockets() -> int:
    """Return how many sockets this process has open, the servers' ends included."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:
            pass
    return found
