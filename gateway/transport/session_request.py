"""What we have aiohttp's client do differently with one request: less.

A ClientRequest is made for everything a request might be. Ours has complete headers and, mostly, a small body in memory.
Before Python 3.12 aiohttp writes even that in a task of its own; here it goes out with the headers, in one write.
``request_class`` and ``response_class`` are documented doors of ClientSession; the methods overridden are public.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp
from aiohttp import ClientRequest, ClientResponse, HttpVersion11, hdrs
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict
from yarl import URL

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


class ShortRequest(SmallRequest):
    """A small POST without anything that a ClientRequest is otherwise asked for; made in a third of the time."""

    def __init__(
        self,
        url: URL,
        headers: Mapping[str, str],
        body: bytes,
        loop: asyncio.AbstractEventLoop,
        session: aiohttp.ClientSession,
    ) -> None:
        self.original_url = self.url = url
        self.method = hdrs.METH_POST
        self.headers = CIMultiDict(headers)
        self.headers[hdrs.HOST] = url.host_port_subcomponent or ""
        self.headers[hdrs.CONTENT_LENGTH] = str(len(body))
        self.version = HttpVersion11
        self.loop = loop
        self.response_class = ImmediateResponse
        self.proxy = self.proxy_auth = self.proxy_headers = self.server_hostname = None
        self.chunked = self.compress = self.length = None
        self._session = session
        self._ssl = True
        self._timer = _NO_TIMER
        self._traces = []
        self._small = body


_NO_TIMER: Final = TimerNoop()
SHORT_WAY: Final = aiohttp.__version__.startswith("3.14.")
"""``send_small`` calls what ClientSession.request calls; those names are public but not documented, so that it is for the
versions it was tried with. Others go through ClientSession.request, with the same result."""
NOT_ADDED: Final = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)
"""Headers that aiohttp adds unless told not to."""
READ_SIZE: Final = 64 * 1024
"""aiohttp stops reading a socket when twice this is unread, and decompresses no more than this at a time."""
HEAD_LIMIT: Final = 64 * 1024
"""Bytes of a status line or of one header; aiohttp counts lines, at most HEADER_LIMIT of them, not their sum."""
HEADER_LIMIT: Final = 128


async def send_small(
    session: aiohttp.ClientSession,
    connector: aiohttp.BaseConnector,
    url: URL,
    headers: Mapping[str, str],
    body: bytes,
    limits: aiohttp.ClientTimeout,
    loop: asyncio.AbstractEventLoop,
) -> ClientResponse:
    """Post a small body on a connection of ``connector``; return at the response headers. Raises as ClientSession does.

    Left out is what a request of ours never has: redirects, cookies, proxies, authentication, traces, timers. That is a
    fifth of the price of a request.
    """
    request = ShortRequest(url, headers, body, loop, session)
    try:
        connection = await connector.connect(request, traces=[], timeout=limits)
    except TimeoutError as fault:
        raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {url.host}") from fault
    assert connection.protocol is not None
    connection.protocol.set_response_params(
        read_until_eof=True,
        read_bufsize=READ_SIZE,
        max_line_size=HEAD_LIMIT,
        max_field_size=HEAD_LIMIT,
        max_headers=HEADER_LIMIT,
    )
    try:
        response = await request.send(connection)
        try:
            return await response.start(connection)
        except BaseException:
            response.close()
            raise
    except BaseException:
        connection.close()
        raise


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
