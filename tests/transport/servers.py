"""Scripted servers on loopback that may say malformed things; no HTTP library between the test and the socket."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from socket import IPPROTO_TCP, SO_LINGER, SOL_SOCKET, TCP_NODELAY, socket


@dataclass
class Request:
    """What a server read. ``headers`` in order, names as they came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        return found[0] if found else None


class Peer:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.sent = 0
        raw = self.socket
        if raw.family.name != "AF_UNIX":
            raw.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)

    @property
    def socket(self) -> socket:
        found: socket = self.writer.get_extra_info("socket")
        return found

    async def head(self) -> Request | None:
        """Read a request's head alone; None if the connection ended instead."""
        try:
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return None
        first, *lines = text.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Request(method, target, headers, b"")

    async def request(self) -> Request | None:
        """Read a whole request."""
        found = await self.head()
        if found is not None and (length := found.header("content-length")) is not None:
            found.body = await self.reader.readexactly(int(length))
        return found

    async def say(self, *pieces: bytes, gap: float = 0.0) -> None:
        """Write ``pieces``, one TCP write each."""
        for piece in pieces:
            if self.writer.transport.is_closing():  # uvloop's own write would raise a RuntimeError
                raise ConnectionResetError
            self.writer.write(piece)
            await self.writer.drain()
            self.sent += len(piece)
            await asyncio.sleep(gap)

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Upstream:
    """A server that runs a script for each connection, and counts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.open = 0
        self.peak = 0
        self.url = ""
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError
            ):
                await self.script(peer)
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError, ssl.SSLError, TimeoutError):
                async with asyncio.timeout(0.2):
                    await writer.wait_closed()
            writer.transport.abort()
            self.tasks.discard(task)

    async def drained(self) -> None:
        """Wait until no connection is open; law 7 gives a second."""
        async with asyncio.timeout(1):
            while self.open:
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        for task in list(self.tasks):
            task.cancel()
        while self.tasks:
            await asyncio.sleep(0.005)


def answers(*texts: bytes, gap: float = 0.0) -> Script:
    """Return a script that gives the same answer to every request on a connection."""

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.say(*texts, gap=gap)

    return script


def whole(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    """Return an answer with Content-Length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def chunk(data: bytes) -> bytes:
    """Return one chunk of the chunked coding; of no data, the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def then_reset(*said: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*said)
        await asyncio.sleep(0.05)  # ClientSession drops what it has not read when a reset comes in the same turn
        peer.reset()

    return script


def then_close(*said: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(*said)
        await asyncio.sleep(0.05)

    return script


async def silent(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def lively(peer: Peer) -> None:
    """Answers, and goes on for ever."""
    await peer.request()
    reading = asyncio.ensure_future(peer.gone())  # noqa: TID251
    try:
        await peer.say(CHUNKED)
        while not reading.done():
            await peer.say(chunk(b"data: x\n\n"), gap=0.005)
    finally:
        reading.cancel()
        await asyncio.wait([reading])
