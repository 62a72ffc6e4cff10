"""The connections of one lean transport: lent last in, first out; closed when idle for too long, or old."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict
from functools import cache
from time import monotonic
from typing import Final
from weakref import WeakKeyDictionary

from aiohappyeyeballs import AddrInfoType, start_connection

from ..errors import ConnectFailed
from .faults import reason
from .lean_connection import LeanConnection
from .lean_exchange import LeanExchange
from .lean_request import Target
from .options import TransportOptions, ssl_context
from .slots import Slots

MAX_AGE_S: Final = 3600.0
"""A connection older than this is not lent again: a provider's addresses change, and an old one may be on its way out."""
READ_SIZE: Final = 64 * 1024
"""Bytes of one read."""
EYEBALLS_S: Final = 0.25
"""How long an address may take before the next is tried beside it (RFC 8305, 5)."""

_buffers: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview]] = WeakKeyDictionary()
"""What the connections of a loop read into."""


class LeanPool:
    """``slots`` bounds the exchanges, and with them the connections; ``pending`` are those who wait for either."""

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        self._ssl = ssl_context(options)
        self.slots = Slots(options.max_connections)
        self.pending: set[LeanExchange] = set()
        self.is_closed = False
        self._open: set[LeanConnection] = set()
        self._idle: defaultdict[object, list[LeanConnection]] = defaultdict(list)
        self._lookups: dict[tuple[str, int], tuple[float, asyncio.Future[list[AddrInfoType]]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffer = memoryview(b"")

    # -- lending

    def take(self, origin: object) -> LeanConnection | None:
        """Return the connection to ``origin`` that was used last, None if there is none."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return None

    def put(self, connection: LeanConnection) -> None:
        """Take a connection back that is ready for another request. ``take`` sees whether it still is."""
        now = monotonic()
        if self.is_closed or now - connection.made_at > MAX_AGE_S:
            connection.close()
            return
        connection.idle_since = now
        self._idle[connection.origin].append(connection)
        if self._timer is None:
            assert self._loop is not None
            self._timer = self._loop.call_later(self._options.keep_alive, self._reap)

    def opened(self, connection: LeanConnection) -> None:
        """A connection was made."""
        self._open.add(connection)

    def closed(self, connection: LeanConnection) -> None:
        """A connection is gone: forget it, if it was idle."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle is not None and connection in idle:
            idle.remove(connection)

    def _reap(self) -> None:
        """Close what has been idle for too long; come again when the next may be."""
        assert self._loop is not None
        keep_alive = self._options.keep_alive
        now = monotonic()
        oldest: float | None = None
        for origin, idle in list(self._idle.items()):
            old = 0  # those that were put back first stand first
            while old < len(idle) and now - idle[old].idle_since >= keep_alive:
                old += 1
            gone = idle[:old]
            del idle[:old]
            for connection in gone:
                connection.close()
            if not idle:
                del self._idle[origin]
            elif oldest is None or idle[0].idle_since < oldest:
                oldest = idle[0].idle_since
        self._timer = None
        if oldest is not None:
            self._timer = self._loop.call_later(max(0.01, oldest + keep_alive - now), self._reap)

    async def aclose(self) -> None:
        """End every exchange and close every connection. Idempotent."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in list(self.pending):
            exchange.abort()
        for connection in list(self._open):
            if connection.exchange is not None:
                connection.exchange.abort()
            connection.close()
        self._idle.clear()
        self._lookups.clear()
        await asyncio.sleep(0)  # aborted sockets are closed in the loop's next turn

    # -- connecting

    async def connect(self, target: Target, loop: asyncio.AbstractEventLoop) -> LeanConnection:
        """Return a new connection. Raises ConnectFailed."""
        if self._loop is not loop:
            self._loop = loop
            self._buffer = _buffers.get(loop) or _buffers.setdefault(loop, memoryview(bytearray(READ_SIZE)))
        addresses = await self._addresses(target, loop)
        connection = LeanConnection(self, target.origin, loop, self._buffer)
        try:
            sock = await start_connection(addresses, happy_eyeballs_delay=EYEBALLS_S, interleave=1, loop=loop)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a model may be silent for minutes
                tls = (self._ssl or _usual_tls()) if target.tls else None
                await loop.create_connection(
                    lambda: connection,
                    sock=sock,
                    ssl=tls,
                    server_hostname=target.host.rstrip(".") if target.tls else None,
                )
            except BaseException:
                # It may be made already, and nobody waits for it any more: uvloop would not even say that it is lost.
                self._open.discard(connection)
                connection.close()
                sock.close()
                raise
        except (OSError, ssl.CertificateError) as fault:
            self._lookups.pop((target.host, target.port), None)  # the next may find other addresses
            if target.tls and isinstance(fault, ConnectionError) and fault.errno is None:
                # asyncio's way of saying that the connection ended under the handshake
                raise ConnectFailed(f"cannot connect to {target.place}: the server ended the TLS handshake") from fault
            raise ConnectFailed(f"cannot connect to {target.place}: {reason(fault)}") from fault
        return connection

    async def _addresses(self, target: Target, loop: asyncio.AbstractEventLoop) -> list[AddrInfoType]:
        """Return the addresses of the target's host; asked once for all who ask at the same time."""
        key = (target.host, target.port)
        try:
            return _lookup(*key, socket.AI_NUMERICHOST)
        except OSError:
            pass  # a name
        now = monotonic()
        known = self._lookups.get(key)
        if known is None or now >= known[0]:
            # In a thread, and not a task: whoever began it may leave while others wait.
            lookup = loop.run_in_executor(None, _lookup, *key)
            lookup.add_done_callback(_heard)
            known = self._lookups[key] = (now + self._options.dns_ttl, lookup)
        lookup = known[1]
        if not lookup.done():
            await asyncio.wait([lookup])
        try:
            return lookup.result()
        except OSError as fault:
            if self._lookups.get(key) is known:
                del self._lookups[key]
            raise ConnectFailed(f"cannot find the address of {target.host}: {fault.strerror or fault}") from fault
        except UnicodeError as fault:
            raise ConnectFailed(f"cannot find the address of {target.host}: not a host's name") from fault


def _lookup(host: str, port: int, flags: int = 0) -> list[AddrInfoType]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def _heard(lookup: asyncio.Future[list[AddrInfoType]]) -> None:
    """Mark a failure as seen: all who waited may have left."""
    if not lookup.cancelled():
        lookup.exception()


@cache
def _usual_tls() -> ssl.SSLContext:
    """The context for upstreams without options about TLS. Reading the system's authorities takes a while: once."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
