"""The lean transport: HTTP/1.1 on connections of our own, parsed by llhttp; half of ClientSession's price and less.

Plain and TLS connections straight to the provider. Forward proxies and unix sockets are SessionTransport's.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from ..errors import Cancelled, ConnectFailed
from ..relay.scope import Scope
from .base import Deadlines, RequestHead
from .lean_exchange import LeanExchange
from .lean_pool import LeanPool
from .lean_request import Target
from .options import TransportOptions

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

    def submit(self, head: RequestHead, body: bytes, deadlines: Deadlines, scope: Scope) -> Awaitable[LeanExchange]:
        """Send a request; return at the response headers. See Transport.submit for what is raised."""
        if scope.closed:
            raise Cancelled("the call is over")
        if self._pool.is_closed:
            raise ConnectFailed("this transport is closed")
        target = self._targets.get(head.url) or self._target(head.url)
        text = target.head(head.method, head.headers, len(body), head.standing)
        return LeanExchange(self._pool, target, head.method, deadlines, scope).send(text, body)

    async def aclose(self) -> None:
        """Abort what is still running and close every connection. Idempotent."""
        await self._pool.aclose()

    def _target(self, url: str) -> Target:
        if len(self._targets) >= URL_LIMIT:
            self._targets.clear()
        self._targets[url] = target = Target(url)
        return target
