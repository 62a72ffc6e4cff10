"""One conversation over ClientSession, from its response headers on: reads the body whole, or pumps it into a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import ClientResponse, hdrs

from ..errors import Cancelled, ConnectFailed, GatewayError, Malformed
from ..relay.scope import Abortable, Scope
from ..relay.source import Sink
from .session_faults import body_error
from .slots import Slots

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

_DECODED: Final = frozenset({"gzip", "deflate", "br", "zstd"})
"""Codings that aiohttp takes off (the last two where their libraries are installed, else it refuses the answer)."""


_LOST: Final = (aiohttp.ClientError, OSError, RuntimeError)
"""What reading a body raises; RuntimeError is how StreamReader says that the connection was gone before the call."""


class SessionExchange:
    """See Exchange. Holds a slot of the pool until the body's end, an error or abort."""

    __slots__ = (
        "status",
        "headers",
        "_response",
        "_protocol",
        "_scope",
        "_slots",
        "_live",
        "_sink",
        "_paused",
        "_wake",
        "_reading",
        "_over",
    )

    def __init__(
        self, response: ClientResponse, headers: dict[str, str], scope: Scope, slots: Slots, live: set[Abortable]
    ) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = headers
        self._response = response
        # The connection leaves the response at its end, but knows better than the body how that came about.
        connection = response.connection
        self._protocol: ResponseHandler | None = None if connection is None else connection.protocol
        self._scope = scope
        self._slots = slots
        self._live = live
        self._sink: Sink[bytes] | None = None
        self._paused = False
        self._wake: asyncio.Future[None] | None = None
        self._reading = False
        self._over = False
        live.add(self)
        scope.items.add(self)
        scope.watched.append(self)

    def connect(self, sink: Sink[bytes], /) -> None:
        """Start the flow of body bytes, as a task of the scope."""
        assert self._sink is None, "connected twice"
        if self._over:
            return
        self._sink = sink
        _ = self._scope.spawn(self._pump(sink), name="session exchange")

    def pause(self) -> None:
        """Push nothing more. What aiohttp's buffer holds stays there, and TCP does the rest."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self._wake_up()

    def tick(self, now: float, /) -> None:
        """Wake a reader whom aiohttp forgot.

        A faulty chunk size in the middle of a body closes the connection, but its parser in C (3.14.5) then lets go of
        the body without an end, and reading waits for ever.
        """
        protocol = self._protocol
        if self._reading and protocol is not None and not protocol.connected:
            content = self._response.content
            if content.exception() is None and not content.is_eof():
                content.set_exception(aiohttp.ClientPayloadError("the connection is gone"))

    def abort(self) -> None:
        """Close the connection now."""
        if not self._over:
            self._close()
            self._wake_up()

    def ready(self, max_bytes: int) -> bytes | None:
        """Never: aiohttp's reader is asked."""
        return None

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body. Raises Cut, or Malformed above ``max_bytes``; closed in any case."""
        if self._over:
            raise Cancelled("the exchange is over")
        try:
            length = self.headers.get("content-length")
            if length is not None and self._protocol is not None and int(length) > max_bytes:
                raise self._too_large(max_bytes)
            content = self._response.content
            self._reading = True
            data = await content.readany()
            size = len(data)
            if size <= max_bytes and not content.at_eof():
                pieces = [data]
                while size <= max_bytes and (data := await content.readany()):
                    pieces.append(data)
                    size += len(data)
                data = b"".join(pieces)
            self._reading = False
            if size > max_bytes:
                raise self._too_large(max_bytes)
        except _LOST as fault:
            raise self._fail(fault) or Cancelled("the exchange was aborted") from fault
        except BaseException:
            self.abort()
            raise
        if (error := self._complete()) is not None:
            raise error
        return data

    async def _pump(self, sink: Sink[bytes]) -> None:
        content = self._response.content
        error: GatewayError | None = None
        try:
            while True:
                try:
                    if self._paused:
                        await self._resumed()
                    self._reading = True
                    data = await content.readany()
                    self._reading = False
                    if self._paused:
                        await self._resumed()
                except _LOST as fault:
                    if (error := self._fail(fault)) is None:
                        return
                    break
                if self._over:
                    return
                if not data:
                    error = self._complete()
                    break
                sink.push(data)
                if self._over:
                    return
        except BaseException:
            self.abort()
            raise
        sink.end(error)

    async def _resumed(self) -> None:
        while self._paused and not self._over:
            self._wake = self._scope.loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def _wake_up(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _complete(self) -> GatewayError | None:
        """The body is at its end and aiohttp has the connection back. Return an error if the end was none."""
        if not self._response.closed:
            self._response.release()
        self._finish()
        headers = self.headers
        if "content-length" in headers or "transfer-encoding" in headers or self._protocol is None:
            return None
        # Ended by the connection's end, if the header was not just taken off with a coding: a reset is no end.
        fault = self._protocol.exception()
        if isinstance(fault, aiohttp.ClientOSError) and hdrs.CONTENT_LENGTH not in self._response.headers:
            return body_error(fault, None, self._place)
        return None

    def _fail(self, fault: BaseException) -> GatewayError | None:
        """Close; return what ``fault`` means, None after an abort."""
        if self._over:
            return None
        protocol_fault = None if self._protocol is None else self._protocol.exception()
        self._close()
        return body_error(fault, protocol_fault, self._place)

    def _close(self) -> None:
        self._over = True
        self._response.close()
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._sink = None
        self._live.discard(self)
        if not self._scope.closed:
            self._scope.items.discard(self)
            self._scope.watched.remove(self)
        self._slots.give_back()

    def _too_large(self, max_bytes: int) -> Malformed:
        return Malformed(f"the answer of {self._place} is larger than {max_bytes} bytes")

    @property
    def _place(self) -> str:
        url = self._response.url
        return f"{url.host}:{url.port}"


def response_headers(response: ClientResponse, proxied: bool) -> dict[str, str]:
    """Return the headers of an answer as Exchange promises them: lower-case, joined, true of the decoded body.

    Set-Cookie is left out: it cannot be joined, and no provider's cookie is anybody's business here.
    Raises Malformed for an answer that nobody can read, ConnectFailed if it is the proxy's refusal of us.
    """
    given = response.headers
    headers = {name.lower(): value for name, value in given.items()}
    if len(headers) != len(given):
        headers = {name: ", ".join(given.getall(name)) for name in headers}
    if "set-cookie" in headers:
        del headers["set-cookie"]
    if (coding := headers.get("content-encoding")) is not None and response.method != "HEAD":
        if coding.lower() in _DECODED:
            del headers["content-encoding"]
            headers.pop("content-length", None)
        elif coding.lower() != "identity":
            raise Malformed(f"the answer is in a content-encoding that nobody asked for: {coding[:40]!r}")
    if response.status == 101:
        raise Malformed("the provider switched protocols, which nobody asked for")
    if response.status == 407 and proxied:
        raise ConnectFailed("the proxy refuses us (407): proxy_auth is missing or wrong")
    return headers
