"""How a streamed answer gets to a client: through aiohttp's response, or by the connection of a front."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from .intake import Arrived
from .whole import grace_s, head_of, is_bodiless

HIGH_BYTES: Final = 64 * 1024
"""What may wait in the client's socket buffer before the provider is paused."""


class Outlet(Protocol):
    """The way to one client. It is opened once, written to, drained when ``write`` says so, and closed."""

    transport: asyncio.Transport

    @property
    def answer(self) -> Any:
        """What the handler returns to the server."""
        ...

    async def open(self, status: int, headers: Mapping[str, str], closes: bool) -> None:
        """Say status and headers; ``closes`` ends the connection with the answer. Raises ConnectionResetError."""
        ...

    def write(self, data: bytes) -> bool:
        """Write a piece of the body. True: nothing more, please, before it is drained."""
        ...

    def flush(self) -> None:
        """Let nothing wait for the next piece."""
        ...

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written. Raises ConnectionResetError."""
        ...

    async def close(self) -> None:
        """Write the end. Raises ConnectionResetError."""
        ...


class StreamedAnswer(web.StreamResponse):
    """A streamed response whose chunks we write to the transport ourselves; it counts them for the access log."""

    written = 0

    @property
    def body_length(self) -> int:
        """Bytes of the body sent so far, framing included, as aiohttp counts them."""
        return self.written + super().body_length


class ResponseOutlet:
    """An aiohttp response, as hosts and their middlewares expect one. Its chunks go straight to the transport."""

    __slots__ = ("transport", "answer", "_request", "_writer", "_chunked", "_held")

    def __init__(self, request: web.BaseRequest, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.answer: StreamedAnswer | None = None
        self._request = request
        self._writer: AbstractStreamWriter | None = None
        self._chunked = False
        self._held: list[bytes] | None = None

    async def open(self, status: int, headers: Mapping[str, str], closes: bool) -> None:
        """Prepare the response: signals of a host may change it, or wait."""
        request, response = self._request, StreamedAnswer(status=status, headers=headers)
        if closes or request.version != HttpVersion11:
            response.force_close()  # in HTTP/1.0 the end of the connection is the end of the answer
        self._writer = await response.prepare(request)
        self._chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if request.method == "HEAD" or "Content-Encoding" in response.headers or response.compression:
            # Somebody in front of us changes the body: aiohttp must write it.
            self._held = []
        self.answer = response

    def write(self, data: bytes) -> bool:
        """Write in aiohttp's stead, where nothing else is to be done with the bytes."""
        if self._held is not None:
            self._held.append(data)
            return True
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.transport.write(data)
        assert self.answer is not None
        self.answer.written += len(data)
        return self.transport.get_write_buffer_size() > HIGH_BYTES

    def flush(self) -> None:
        """The headers are out."""

    async def drain(self) -> None:
        """Let aiohttp write what it must, and wait."""
        assert self._writer is not None and self.answer is not None
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            await self.answer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        """Let aiohttp end its response."""
        assert self.answer is not None
        await self.answer.write_eof()


class FrontOutlet:
    """The connection of a request that came by the front: HTTP/1.1, chunked."""

    __slots__ = ("transport", "stays_open", "_arrived", "_head", "_bodiless")

    def __init__(self, arrived: Arrived) -> None:
        self.transport = arrived.transport
        self.stays_open = False
        self._arrived = arrived
        self._head = b""
        self._bodiless = False

    @property
    def answer(self) -> FrontOutlet:
        """What the front must know of the answer: whether the connection ``stays_open``."""
        return self

    async def open(self, status: int, headers: Mapping[str, str], closes: bool) -> None:
        """Spell the headers; they go out with the first piece of the body, or by ``flush``."""
        if self.transport.is_closing():
            raise ConnectionResetError
        self.stays_open = self._arrived.stays_open and not closes
        self._bodiless = is_bodiless(status)
        framing = "" if self._bodiless else "transfer-encoding: chunked\r\n"
        self._head = head_of(status, headers, framing, self.stays_open)

    def write(self, data: bytes) -> bool:
        """Write a chunk."""
        transport = self.transport
        if self._bodiless:
            data = b""
        elif self._head:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
            self._head = b""
        else:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._arrived.outbox.write(transport, data)
        return transport.get_write_buffer_size() > HIGH_BYTES

    def flush(self) -> None:
        """Send the headers alone, if nothing has taken them along."""
        if self._head:
            head, self._head = self._head, b""
            self._arrived.outbox.write(self.transport, head)

    async def drain(self) -> None:
        """Wait for the client."""
        await self._arrived.drain()

    async def close(self) -> None:
        """Write the last chunk. A client that stands still has its connection cut."""
        self.flush()
        if not self._bodiless:
            self._arrived.outbox.write(self.transport, b"0\r\n\r\n")
        left = self.transport.get_write_buffer_size()
        if left:
            try:
                async with asyncio.timeout(grace_s(left)):
                    await self._arrived.drain()
            except TimeoutError:
                self.transport.abort()
