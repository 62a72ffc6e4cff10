"""What we have aiohttp's client do differently with one request: less.

A ClientRequest is made for everything a request might be. Ours has complete headers and, mostly, a small body in memory.
Before Python 3.12 aiohttp writes even that in a task of its own; here it goes out with the headers, in one write.
``request_class`` and ``response_class`` are documented doors of ClientSession; the methods overridden are public.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import aiohttp
from aiohttp import ClientRequest, ClientResponse, hdrs
from aiohttp.connector import Connection
from aiohttp.http_writer import StreamWriter

from .session_faults import NotRepeated


class SmallRequest(ClientRequest):
    """A request whose headers are complete, and whose body is bytes that a socket takes at once, or a payload."""

    _small: bytes | None = None
    response: ClientResponse | None = None  # type: ignore[assignment]  # aiohttp declares None alone

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Add nothing, without finding out header by header. Without a Content-Type of ours, the list is needed later."""
        if hdrs.CONTENT_TYPE not in self.headers:
            super().update_auto_headers(skip_auto_headers)

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        """Keep bytes as they are; hand anything else on."""
        if type(body) is bytes and body:
            self._small = body
            self.headers[hdrs.CONTENT_LENGTH] = str(len(body))
        else:
            super().update_body_from_data(body, _stacklevel)

    async def send(self, conn: Connection) -> ClientResponse:
        """Write head and small body at once; return the response that will be read."""
        body, protocol = self._small, conn.protocol
        if body is None or protocol is None or self.response_class is None:
            return await super().send(conn)
        target = str(self.url) if self.proxy is not None and not self.is_ssl() else self.url.raw_path_qs
        writer = StreamWriter(protocol, self.loop)
        await writer.write_headers(f"{self.method} {target} HTTP/1.1", self.headers)
        await writer.write_eof(body)
        protocol.start_timeout()
        response = self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=[],
            loop=self.loop,
            session=self.session,
            stream_writer=writer,
        )
        self.response = response
        return response


class ImmediateResponse(ClientResponse):
    """A response whose close is immediate: aiohttp's own would first wait for a peer to read what is still unsent."""

    def close(self) -> None:
        """Drop the connection."""
        connection = self.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        super().close()


async def _once(request: ClientRequest, send: Callable[[ClientRequest], Awaitable[ClientResponse]]) -> ClientResponse:
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as fault:
        raise NotRepeated from fault


ONCE: Final = (_once,)
"""Client middleware that keeps aiohttp from sending a repeatable method a second time by itself."""
