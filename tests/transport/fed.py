"""The lean transport without sockets: its connection is handed bytes as a loop would; so cuts are exact, and cheap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from headgate.gateway.errors import GatewayError
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.transport.base import Deadlines, RequestHead
from headgate.gateway.transport.lean import LeanTransport
from headgate.gateway.transport.lean_connection import LeanConnection
from headgate.gateway.transport.lean_exchange import LeanExchange
from headgate.gateway.transport.lean_pool import READ_SIZE, LeanPool
from headgate.gateway.transport.lean_request import Target

from .calls import Sunk
from .player import End, Outcome, sentence, turns


class _Wire:
    """What a connection needs of asyncio's transport."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Fed:
    """A lean transport whose connections are ``wires``."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = Clock(0.02)
        self.transport = LeanTransport()
        self.wires: list[tuple[LeanConnection, _Wire]] = []
        pool: LeanPool = self.transport._pool
        pool._loop = self.loop
        pool.connect = self._connect  # type: ignore[method-assign]

    async def _connect(self, target: Target, loop: asyncio.AbstractEventLoop) -> LeanConnection:
        connection = LeanConnection(self.transport._pool, target.origin, loop, memoryview(bytearray(READ_SIZE)))
        wire = _Wire()
        connection.connection_made(cast(asyncio.Transport, wire))
        self.wires.append((connection, wire))
        return connection

    def outcome(self, pieces: Sequence[bytes], end: End = "keep") -> Outcome:
        """Return what becomes of an answer that is read in ``pieces``, each at most READ_SIZE; the body flows."""
        return self.loop.run_until_complete(self._outcome(pieces, end))

    async def _outcome(self, pieces: Sequence[bytes], end: End) -> Outcome:
        scope = Scope(self.clock)
        head = RequestHead("POST", "http://provider.test/", {})
        before = len(self.wires)

        async def ask() -> LeanExchange:
            return await self.transport.submit(head, b"{}", Deadlines(), scope)

        asking = scope.spawn(ask())
        while not (self.wires and self.wires[-1][0].exchange is not None) and not asking.done():
            await asyncio.sleep(0)
        connection, wire = self.wires[-1]
        assert len(self.wires) <= before + 1
        sunk = Sunk()

        def go_on() -> None:
            if asking.done() and asking.exception() is None and not sunk.items and not sunk.ends:
                exchange = asking.result()
                if exchange._sink is None:
                    exchange.connect(sunk)

        for piece in pieces:
            if wire.closed:
                break
            assert wire.reading
            buffer = connection.get_buffer(-1)
            buffer[: len(piece)] = piece
            connection.buffer_updated(len(piece))
            if not asking.done():
                await turns(1)
            go_on()
        if not wire.closed:
            if end in ("close", "half"):
                connection.eof_received()
            elif end == "reset":
                wire.closed = True
                connection.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
            await turns(1)
            go_on()
        if wire.closed and connection._transport is not None:
            connection.connection_lost(None)
            await turns(1)
            go_on()
        error: GatewayError | None
        if not asking.done():
            asking.cancel()
            await asyncio.wait((asking,))
            await scope.aclose()
            return Outcome(error=("waiting", "for the head"))
        if (fault := asking.exception()) is not None:
            assert isinstance(fault, GatewayError)
            await scope.aclose()
            return Outcome(error=(fault.kind, sentence(fault)), reused=connection.usable)
        exchange = asking.result()
        error, ended = sunk.error, sunk.ends == 1
        fate: tuple[str, str] | None = None if error is None else (error.kind, sentence(error))
        if not ended:
            fate = ("waiting", "for the body")
        found = Outcome(exchange.status, tuple(sorted(exchange.headers.items())), sunk.data, fate, connection.usable)
        await scope.aclose()
        assert not scope.items
        return found

    def close(self) -> None:
        """Close everything."""
        self.loop.run_until_complete(self.transport.aclose())
        self.clock.close()
        assert self.transport._pool.slots.free == 1000
        self.loop.close()
