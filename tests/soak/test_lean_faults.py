"""Thousands of calls to a provider that misbehaves in every way, by callers that leave at any moment: nothing is left over.

What a call must get is in its request, so that an answer to somebody else is seen. Slow: run by ``make soak``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import logging
import os
import random
import re
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Final, NamedTuple

import pytest
from headgate.gateway.errors import GatewayError
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.transport.base import Deadlines, Exchange, RequestHead, Transport
from headgate.gateway.transport.lean import LeanTransport
from headgate.gateway.transport.options import TransportOptions
from headgate.gateway.transport.session import SessionTransport

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CALLS: Final = 5000
AT_ONCE: Final = 48
CONNECTIONS: Final = 40
HEAD_S: Final = 0.25
"""A call waits no longer for the headers of its answer, and as long between two pieces of its body."""
BIG: Final = 400_000


def answer_to(number: int, size: int) -> bytes:
    """The body that belongs to a request."""
    return (f"<{number}>".encode() * (size // 3 + 1))[:size] + f"<end {number}>".encode()


class Told(NamedTuple):
    """What a request tells the provider to do."""

    number: int
    what: str
    size: int
    seed: int


GOOD: Final = ("length", "chunks", "until the end", "gzip", "interim", "dribbled", "closing", "closes after")
"""The answer is right. ``closes after`` says nothing of it and closes: the next request may meet a closing door."""
BAD: Final = ("reset", "stall", "stall in the body", "half closed", "too short", "malformed", "no HTTP", "silent end")
EARLY: Final = ("early", "early and stays")
"""A big request is refused before it was read."""
SPOILING: Final = ("too long", "one more answer", "one more answer later")
"""The answer is right; what comes after it is nobody's."""


class Provider:
    """Does what each request tells it."""

    def __init__(self) -> None:
        self.open = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Provider]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000, limit=2**20)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x"
        try:
            yield self
        finally:
            server.close()
            for task in list(self.tasks):
                task.cancel()
            while self.tasks:
                await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.open += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._one(reader, writer):
                    pass
        finally:
            self.open -= 1
            writer.transport.abort() if task.cancelling() else writer.close()
            self.tasks.discard(task)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
        number, what, size, seed = json.loads(re.search(rb"x-told: (.*)\r\n", head)[1])  # type: ignore[index]
        chance = random.Random(seed)
        body = answer_to(number, size)
        if what in EARLY:
            await say(writer, whole(b"no" + body, "413 Too Large"))
            if what == "early and stays":
                await asyncio.sleep(chance.random() * 0.1)
            return False
        asked = await reader.readexactly(length)
        assert asked.startswith(f"[{number}]".encode())
        if what == "length":
            await say(writer, *cut(whole(body), chance))
        elif what == "chunks":
            await say(writer, *cut(chunked(body, chance), chance))
        elif what == "until the end":
            await say(writer, *cut(b"HTTP/1.1 200 OK\r\n\r\n" + body, chance))
            return False
        elif what == "gzip":
            await say(writer, *cut(whole(gzip.compress(body, 1), more="Content-Encoding: gzip\r\n"), chance))
        elif what == "interim":
            await say(writer, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nX: y\r\n\r\n", whole(body))
        elif what == "dribbled":
            said = whole(body)
            await say(writer, *(said[n : n + 1] for n in range(30)), said[30:])
        elif what == "closing":
            await say(writer, whole(body, more="Connection: close\r\n"))
            return False
        elif what == "closes after":
            await say(writer, whole(body))
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.005]))
            return False
        elif what == "reset":
            said = whole(body) if chance.random() < 0.5 else chunked(body, chance)
            await say(writer, said[: chance.randrange(len(said))])
            raw = writer.get_extra_info("socket")
            raw.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        elif what == "stall":
            await say(writer, whole(body)[: chance.randrange(10)])
            await reader.read(1)
            return False
        elif what == "stall in the body":
            await say(writer, whole(body)[:-3])
            await reader.read(1)
            return False
        elif what == "half closed":
            await say(writer, whole(body)[:-3])
            writer.write_eof()
            await reader.read(1)
            return False
        elif what == "too short":
            await say(writer, whole(body)[:-1])
            return False
        elif what == "malformed":
            await say(writer, *cut(chunked(body, chance)[:-5] + b"zz\r\n", chance))
            return False
        elif what == "no HTTP":
            await say(writer, b"SSH-2.0-x\r\n\r\n")
            return False
        elif what == "silent end":
            return False
        elif what == "too long":
            await say(writer, whole(body) + b"<and more>")
        elif what == "one more answer":
            await say(writer, whole(body) + whole(b"evil"))
        else:
            await say(writer, whole(body))
            await say(writer, whole(b"evil"))
        return True


async def say(writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        if len(pieces) > 1:
            await asyncio.sleep(0)


def whole(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def chunked(body: bytes, chance: random.Random) -> bytes:
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in cut(body, chance)]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    places = sorted({0, len(data), *(chance.randrange(len(data)) for _ in range(chance.choice([0, 1, 4])))})
    return [data[start:end] for start, end in pairwise(places)]


class Reader:
    """A sink; ``acts`` may pause, resume or abort."""

    def __init__(self, acts: Callable[[], object]) -> None:
        self.pieces: list[bytes] = []
        self.acts = acts
        self.over: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()
        self.moved = True

    def push(self, item: bytes, /) -> None:
        assert not self.over.done(), "push after end"
        self.moved = True
        self.pieces.append(item)
        self.acts()

    def end(self, error: GatewayError | None, /) -> None:
        assert not self.over.done(), "two ends"
        self.over.set_result(error)


async def body_of(exchange: Exchange, chance: random.Random) -> bytes:
    """Read the body in one of the ways there are. Raises GatewayError; TimeoutError for one that stalls."""
    if chance.random() < 0.5:
        async with asyncio.timeout(HEAD_S):
            return await exchange.read(1_000_000)
    loop = asyncio.get_running_loop()

    def acts() -> None:
        if chance.random() < 0.2:
            exchange.pause()
            loop.call_later(chance.choice([0, 0.001, 0.01]), exchange.resume)

    reader = Reader(acts)
    exchange.connect(reader)
    try:
        while not reader.over.done():
            reader.moved = False
            await asyncio.wait((reader.over,), timeout=HEAD_S)
            if not reader.over.done() and not reader.moved:
                raise TimeoutError
    except BaseException:
        exchange.abort()
        raise
    if (error := reader.over.result()) is not None:
        raise error
    return b"".join(reader.pieces)


async def call(transport: Transport, clock: Clock, url: str, told: Told, fate: str) -> str:
    """Make one call; return how it ended. ``fate`` is when the caller leaves, if at all."""
    chance = random.Random(told.seed + 1)
    scope = Scope(clock)
    body = f"[{told.number}]".encode() + b"x" * (BIG if told.what in EARLY else chance.choice([0, 10, 5000]))
    head = RequestHead("POST", url, {"x-told": json.dumps(told)})
    loop = scope.loop
    limits = Deadlines(pool_s=20, connect_s=5, write_s=5, head_at=loop.time() + 20 + HEAD_S)

    async def work() -> str:
        exchange = await transport.submit(head, body, limits, scope)
        if fate == "aborts":
            exchange.abort()
            return "aborted"
        try:
            data = await body_of(exchange, chance)
        except TimeoutError:
            return "stalled"
        if told.what in EARLY:
            assert (exchange.status, data) == (413, b"no" + answer_to(told.number, told.size))
            return "refused"
        assert exchange.status == 200
        assert data == answer_to(told.number, told.size), (told, data[:60])
        return "good"

    task = scope.spawn(work())
    if fate == "leaves":
        loop.call_later(chance.choice([0, 0, 0.0005, 0.002, 0.01]), scope.close)
    elif fate == "is cancelled":
        loop.call_later(chance.choice([0, 0, 0.0005, 0.002, 0.01]), task.cancel)
    elif told.what == "stall":
        loop.call_later(HEAD_S, scope.close)
    try:
        return await task
    except GatewayError as error:
        return error.kind
    except asyncio.CancelledError:
        return "cancelled"
    finally:
        await scope.aclose()
        assert not scope.items and not scope.tasks


def sockets() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return found


ENDS: Final[dict[str, set[str]]] = {
    **{what: {"good"} for what in (*GOOD, *SPOILING)},
    "reset": {"cut", "malformed"},
    "stall": {"cancelled", "malformed"},
    "stall in the body": {"stalled"},
    "half closed": {"cut"},
    "too short": {"cut"},
    "malformed": {"malformed"},
    "no HTTP": {"malformed"},
    "silent end": {"cut"},
    "early": {"refused", "cut"},
    "early and stays": {"refused", "cut"},
}
"""How a call may end whose caller stays. Besides ``cut``, before the answer: the connection was closed when it was lent."""


@pytest.mark.parametrize("name", ["lean", "session"])
async def test_nothing_is_left_of_thousands_of_faults(name: str, caplog: pytest.LogCaptureFixture) -> None:
    unhandled: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    before_tasks, before_sockets = asyncio.all_tasks(), sockets()
    chance = random.Random(11)
    # What comes unasked later is given to the next request by aiohttp's client.
    what = [*GOOD * 3, *BAD, *EARLY, *(SPOILING if name == "lean" else ())]
    fates = ["stays"] * 6 + ["leaves", "is cancelled", "aborts"]
    ends: Counter[tuple[str, str]] = Counter()
    wrong: list[tuple[Told, str]] = []
    clock = Clock(0.02)
    async with Provider().serving() as provider:
        options = TransportOptions(max_connections=CONNECTIONS)
        transport: Transport = LeanTransport(options) if name == "lean" else SessionTransport(options)
        todo = iter(range(CALLS))

        async def worker() -> None:
            for number in todo:
                told = Told(number, chance.choice(what), chance.choice([1, 50, 3000, 100_000]), chance.getrandbits(30))
                fate = chance.choice(fates)
                end = await call(transport, clock, provider.url, told, fate)
                ends[told.what if fate == "stays" else fate, end] += 1
                if fate == "stays" and end not in ENDS[told.what] | {"cut"}:
                    wrong.append((told, end))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(worker())

        assert wrong == []
        good = sum(count for (what, end), count in ends.items() if what in GOOD and end == "good")
        closed = sum(count for (what, end), count in ends.items() if what in GOOD and end == "cut")
        assert good > CALLS / 4 and closed < good / 5, ends
        # Nothing is in use; what is open is idle, and no more than the limit.
        await asyncio.sleep(0.3)
        gc.collect()
        assert len(clock) == 0
        if isinstance(transport, LeanTransport):
            pool = transport._pool
            assert (pool.slots.free, pool.slots.waiting, pool.pending) == (CONNECTIONS, 0, set())
            idle = [connection for held in pool._idle.values() for connection in held]
            assert set(idle) == pool._open and all(each.usable and each.exchange is None for each in idle)
            assert len(idle) <= CONNECTIONS
        else:
            assert isinstance(transport, SessionTransport)
            assert transport._slots.free == CONNECTIONS and not transport._live
        assert provider.open <= CONNECTIONS
        await transport.aclose()
        async with asyncio.timeout(5):
            while provider.open:
                await asyncio.sleep(0.01)
    clock.close()
    await asyncio.sleep(0.05)
    gc.collect()
    assert asyncio.all_tasks() == before_tasks
    assert sockets() <= before_sockets
    assert unhandled == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    print(name, sorted(ends.items()))
