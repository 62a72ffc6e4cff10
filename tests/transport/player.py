"""A server that plays scripted bytes, and what a transport makes of them: fast enough for thousands of answers.

Client and server share a loop and loopback is synchronous, so a few turns of the loop after a write stand for "the client
has read it": pieces arrive one by one, without any time being waited for.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from socket import SO_LINGER, SOL_SOCKET
from typing import Final, Literal, cast
from unittest.mock import patch

from aiohttp import client_proto
from aiohttp.http_parser import HttpResponseParser, HttpResponseParserPy
from headgate.gateway.errors import GatewayError
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.transport.base import Deadlines, Exchange, RequestHead, Transport
from headgate.gateway.transport.lean import LeanTransport
from headgate.gateway.transport.session import SessionTransport

from .calls import Sunk
from .servers import whole

End = Literal["keep", "close", "half", "reset"]
Way = Literal["read", "flow"]
LIMIT: Final = 4 * 1024 * 1024
MINE: Final = whole(b"mine", "X-Second: 2")
"""What every second request is answered with."""
_GAP: Final = 2
"""Turns of the loop between two pieces: one in which the socket is seen to be readable, and one for what follows."""
_SETTLE: Final = 12
"""Turns after the last piece, before the connection ends or the next request goes out."""
_PATIENCE: Final = 200
"""Turns that a client may take to see the end of an answer on a connection that stays open."""


@dataclass(frozen=True)
class Play:
    """An answer as it is written, a piece at a time, and what becomes of the connection.

    ``keep`` ends it too, but only once the client has had its answer, or clearly waits for more.
    """

    pieces: tuple[bytes, ...]
    end: End = "keep"


@dataclass(frozen=True)
class Outcome:
    """What a caller got. Without a status, ``error`` is what ``submit`` raised.

    ``error`` is kind and sentence. Of the request that followed: ``reused``, whether it went out on the same connection,
    and ``own``, whether what it got was its own answer.
    """

    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    error: tuple[str, str] | None = None
    reused: bool = False
    own: bool = True


_SENTENCES: Final = (
    "closed the connection before its answer",
    "closed the connection in the middle of its answer",
    "is in a content-encoding that nobody asked for",
    "switched protocols, which nobody asked for",
    "is malformed",
    "does not answer in HTTP",
    "cannot connect to",
    "is larger than",
)


def sentence(error: GatewayError) -> str:
    """Return which of our sentences an error's message is, without what names a host or quotes a parser."""
    text = str(error)
    found = next((known for known in _SENTENCES if known in text), text)
    done = re.search(r"may have been processed|was not processed", text)
    return found if done is None else f"{found}; {done[0]}"


class Stage:
    """One loop with a server and the two transports, which stay open from one answer to the next."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.play = Play(())
        self.url = ""
        self.number = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.over = asyncio.Event()
        self.played = asyncio.Event()
        self.served: list[_Player] = []
        self.open: set[_Player] = set()
        self.unhandled: list[dict[str, object]] = []
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self.clock = Clock(0.02)
        self.transports: dict[str, Transport] = {}
        self.server = self.loop.run_until_complete(self._start())

    async def _start(self) -> asyncio.Server:
        server = await self.loop.create_server(lambda: _Player(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        self.transports = {name: kind() for name, kind in _KINDS.items()}
        return server

    def outcome(self, name: str, play: Play, way: Way = "read", method: str = "POST") -> Outcome:
        """Return what the transport called ``name`` makes of ``play``; as "python", aiohttp's with its parser in Python."""
        parser = HttpResponseParserPy if name == "python" else HttpResponseParser
        with patch.object(client_proto, "HttpResponseParser", parser):
            found = self.loop.run_until_complete(self._outcome(self.transports[name], play, way, method))
        if not found.own:  # the next answers are off by one
            self.loop.run_until_complete(self.transports[name].aclose())
            self.transports[name] = _KINDS[name]()
        return found

    async def _outcome(self, transport: Transport, play: Play, way: Way, method: str) -> Outcome:
        self.play = play
        self.over.clear()
        self.played.clear()
        self.served.clear()
        scope = Scope(self.clock)
        try:
            async with asyncio.timeout(10):
                first = await self._ask(transport, scope, way, method)
                self.over.set()
                await self.played.wait()
                await turns(_SETTLE)
                self.play = Play((MINE,))
                self.played.clear()
                second = await self._ask(transport, scope, "read", "POST")
                await self.played.wait()
        finally:
            await scope.aclose()
        assert len(self.served) == 2, "a request was repeated, or not sent"
        return replace(first, reused=self.served[0] is self.served[1], own=second == _OWN)

    async def _ask(self, transport: Transport, scope: Scope, way: Way, method: str) -> Outcome:
        head = RequestHead(method, self.url, {"content-type": "application/json"})
        try:
            exchange = await transport.submit(head, b"{}", Deadlines(), scope)
        except GatewayError as error:
            return Outcome(error=(error.kind, sentence(error)))
        status, headers = exchange.status, tuple(sorted(exchange.headers.items()))
        data, fault = await _body(exchange, way)
        return Outcome(status, headers, data, None if fault is None else (fault.kind, sentence(fault)))

    def close(self) -> None:
        """Close everything; nothing may be left of it."""
        self.loop.run_until_complete(self._close())
        self.loop.close()
        assert self.unhandled == []

    async def _close(self) -> None:
        for transport in self.transports.values():
            await transport.aclose()
        self.server.close()
        async with asyncio.timeout(2):
            while self.open or self.tasks:
                await asyncio.sleep(0.001)
        self.clock.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}


_KINDS: Final[dict[str, Callable[[], Transport]]] = {
    "lean": LeanTransport,
    "session": SessionTransport,
    "python": SessionTransport,
}
_OWN: Final = Outcome(200, (("content-length", "4"), ("x-second", "2")), b"mine")


async def _body(exchange: Exchange, way: Way) -> tuple[bytes, GatewayError | None]:
    if way == "read":
        try:
            return await exchange.read(LIMIT), None
        except GatewayError as error:
            return b"", error
    sunk = Sunk()
    exchange.connect(sunk)
    await sunk.ended.wait()
    return sunk.data, sunk.error


@contextmanager
def stage() -> Iterator[Stage]:
    """Open a stage, close it after."""
    opened = Stage()
    try:
        yield opened
    finally:
        opened.close()


async def turns(count: int) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


class _Player(asyncio.Protocol):
    """One connection of the server. Requests are read whole, whatever they say."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.unread = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self.stage.open.add(self)

    def connection_lost(self, fault: Exception | None) -> None:
        self.transport = None
        self.stage.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.unread += data
        if self.unread.endswith(b"\r\n\r\n{}"):
            self.unread = b""
            self.stage.served.append(self)
            task = self.stage.loop.create_task(self._play(self.stage.play))
            self.stage.tasks.add(task)
            task.add_done_callback(self.stage.tasks.discard)

    async def _play(self, play: Play) -> None:
        for piece in play.pieces:
            if self.transport is not None:
                self.transport.write(piece)
                await turns(_GAP)
        if play.end == "keep":
            for _ in range(_PATIENCE):
                if self.stage.over.is_set():
                    self.stage.played.set()
                    return
                await asyncio.sleep(0)
        await turns(_SETTLE)
        if self.transport is not None:
            if play.end == "reset":
                connection = self.transport.get_extra_info("socket")
                connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                self.transport.abort()
            elif play.end == "half":
                self.transport.write_eof()
            else:
                self.transport.close()
        await turns(_SETTLE)
        self.stage.played.set()
