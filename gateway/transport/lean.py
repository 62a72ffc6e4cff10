"""The lean transport: HTTP/1.1 on connections of our own, parsed by llhttp; half of ClientSession's price and less.

Plain and TLS connections straight to the provider. Forward proxies and unix sockets are SessionTransport's, and so are
bodies that are read while they are sent, and WebSockets: a LeanTransport has one for these, with a pool of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Final

from ..errors import Cancelled, ConnectFailed
from ..passing.request import Line, Upload
from ..relay.scope import Scope
from .base import Deadlines, Exchange, RequestHead
from .lean_exchange import LeanExchange
from .lean_pool import LeanPool
from .lean_request import Target
from .options import TransportOptions

if TYPE_CHECKING:
    from .session import SessionTransport

URL_LIMIT: Final = 1024


class LeanTransport:
    """A pool of connections to one upstream. Making one opens nothing; raises ValueError for options that cannot be."""

    def __init__(self, options: TransportOptions | None = None) -> None:
        options = TransportOptions() if options is None else options
        if options.proxy is not None:
            raise ValueError("proxy is beyond the lean transport")
        if options.unix_socket is not None:
            raise ValueError("unix_socket is beyond the lean transport")
        self._pool = LeanPool(options)
        self._targets = _Targets()
        self._options = options
        self._session: SessionTransport | None = None

    async def submit(self, head: RequestHead, body: bytes | Upload, deadlines: Deadlines, scope: Scope) -> Exchange:
        """Send a request; return at the response headers. See Transport.submit for what is raised."""
        pool = self._pool
        if scope.closed:
            raise Cancelled("the call is over")
        if pool.is_closed:
            raise ConnectFailed("this transport is closed")
        if not isinstance(body, bytes):
            return await self._other().submit(head, body, deadlines, scope)
        target = self._targets[head.url]
        method = head.method
        text = target.head(method, head.headers, len(body), head.standing)
        exchange = LeanExchange(pool, target, deadlines, scope, method == "HEAD")
        scope.items.add(exchange)
        scope.watched.append(exchange)
        try:
            slots = pool.slots
            if slots.free > 0:
                slots.free -= 1
                exchange.slot = True
            else:
                await exchange.stand_in_line()
            connection = pool.take(target.origin)
            if connection is None:
                connection = await exchange.dial(target)
            else:
                exchange.connection = connection
            exchange.waiter = waiter = scope.loop.create_future()
            connection.begin(exchange, text, body)
            await waiter
        except BaseException:
            exchange.waiter = None  # nobody waits any more
            exchange.abort()
            raise
        return exchange

    def open_socket(
        self, head: RequestHead, protocols: Sequence[str], max_bytes: int, deadlines: Deadlines, scope: Scope
    ) -> Awaitable[Line]:
        """Open a WebSocket. See Transport.open_socket for what is raised."""
        return self._other().open_socket(head, protocols, max_bytes, deadlines, scope)

    async def aclose(self) -> None:
        """Abort what is still running and close every connection. Idempotent."""
        await self._pool.aclose()
        if self._session is not None:
            await self._session.aclose()

    def _other(self) -> SessionTransport:
        if self._pool.is_closed:
            raise ConnectFailed("this transport is closed")
        if self._session is None:
            from .session import SessionTransport  # few ever need it

            self._session = SessionTransport(self._options)
        return self._session


class _Targets(dict[str, Target]):
    """Where URLs lead: an upstream is asked at a few, again and again."""

    def __missing__(self, url: str) -> Target:
        if len(self) >= URL_LIMIT:
            self.clear()
        self[url] = target = Target(url)
        return target
