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
        self._targets: dict[str, Target] = {}
        self._options = options
        self._session: SessionTransport | None = None

    def submit(
        self, head: RequestHead, body: bytes | Upload, deadlines: Deadlines, scope: Scope
    ) -> Awaitable[Exchange]:
        """Send a request; return at the response headers. See Transport.submit for what is raised."""
        if scope.closed:
            raise Cancelled("the call is over")
        if self._pool.is_closed:
            raise ConnectFailed("this transport is closed")
        if not isinstance(body, bytes):
            return self._other().submit(head, body, deadlines, scope)
        target = self._targets.get(head.url) or self._target(head.url)
        text = target.head(head.method, head.headers, len(body), head.standing)
        return LeanExchange(self._pool, target, deadlines, scope, head.method == "HEAD").send(text, body)

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

    def _target(self, url: str) -> Target:
        if len(self._targets) >= URL_LIMIT:
            self._targets.clear()
        self._targets[url] = target = Target(url)
        return target
