"""A gateway on an ephemeral port by any rule file, alone or in a host of the test's making; and clients that speak raw HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from aiohttp import web
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.server.handlers import make_app, make_server

T = TypeVar("T")
CHAT: Final = "/v1/chat/completions"
MESSAGES: Final = "/v1/messages"
SIMULATED: Final = """
    upstreams: {sim: {adapter: simulator}}
    routes: [{name: all, to: sim}]
"""


@dataclass(frozen=True)
class House:
    """A gateway that listens. ``base`` ends before ``/v1``; ``runner`` is that of the host, if there is one."""

    base: str
    gateway: Gateway
    runner: web.AppRunner
    path: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.runner.addresses[0][1])

    @property
    def prefix(self) -> str:
        """Where it is mounted."""
        return self.base.partition(f":{self.port}")[2]

    def rewrite(self, text: str) -> None:
        """Change the rule file; nothing is loaded."""
        write_rules(self.path, text)

    async def idle(self, within_s: float = 2.0) -> None:
        """Wait until no call is under way."""
        await until(lambda: self.gateway.in_flight == 0, within_s)


def write_rules(path: Path, text: str) -> None:
    """Write a rule file of ``text``, which needs no version line."""
    path.write_text("version: 1\n" + textwrap.dedent(text))


def load(directory: Path, text: str = SIMULATED) -> Gateway:
    """Return a gateway for ``text``, unserved."""
    path = directory / "routes.yaml"
    write_rules(path, text)
    return Gateway.load(path)


@asynccontextmanager
async def serving(
    directory: Path,
    text: str = SIMULATED,
    *,
    host: web.Application | None = None,
    cancels: bool = True,
    **runner_options: Any,
) -> AsyncIterator[House]:
    """Serve the rules ``text``, mounted in ``host`` if there is one, else as ``headgate serve`` does.

    ``cancels``: as handler_cancellation of aiohttp; False where nobody but an application can say so.
    """
    gateway = load(directory, text)
    runner: web.BaseRunner
    prefix = ""
    if host is None and cancels:
        await gateway.start()
        runner = web.ServerRunner(make_server(gateway, **runner_options), shutdown_timeout=0.1)
    else:
        options: dict[str, Any] = {"access_log": None, "shutdown_timeout": 0.1, **runner_options}
        if host is None:
            host = make_app(gateway)
        else:
            prefix = "/llm"
            gateway.mount(host, prefix)
        runner = web.AppRunner(host, handler_cancellation=cancels, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
        yield House(base, gateway, runner, directory / "routes.yaml")
    finally:
        await runner.cleanup()
        await gateway.aclose()


def begin(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run ``work`` meanwhile; the test awaits or cancels it."""
    return asyncio.get_running_loop().create_task(work)


async def until(holds: Callable[[], object], within_s: float = 2.0) -> None:
    """Wait until ``holds()``. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.005)


def body_of(text: str = "Hello", *, stream: bool = False, model: str = "m", **more: Any) -> bytes:
    """A request that every format reads."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": model, "messages": messages, "stream": stream, "max_tokens": 100, **more}).encode()


def head_of(
    house: House,
    length: int | None,
    headers: Mapping[str, str] | None = None,
    *,
    path: str = CHAT,
    method: str = "POST",
    version: str = "1.1",
) -> bytes:
    """The head of a raw request; without a length the body is chunked."""
    given = {"host": "x", "content-type": "application/json"}
    given |= {"transfer-encoding": "chunked"} if length is None else {"content-length": str(length)}
    given |= dict(headers or {})
    lines = [f"{method} {house.prefix}{path} HTTP/{version}", *(f"{name}: {value}" for name, value in given.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Wire:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.reason = ""

    def send(self, data: bytes) -> None:
        """Write."""
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer: status and headers under lower-case names, which must not be repeated."""
        async with asyncio.timeout(5):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.strip().split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} stands there twice"
            headers[name.lower()] = value
        _, status, self.reason = first.split(" ", 2)
        return int(status), headers

    async def piece(self) -> bytes:
        """Read one chunk of a chunked body; b"" is the last."""
        async with asyncio.timeout(5):
            size = int((await self.reader.readline()).strip(), 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def pieces(self) -> bytes:
        """Read a chunked body to its end mark."""
        whole = b""
        while piece := await self.piece():
            whole += piece
        return whole

    async def read(self, size: int) -> bytes:
        """Read exactly so much."""
        async with asyncio.timeout(5):
            return await self.reader.readexactly(size)

    async def rest(self, within_s: float = 5.0) -> bytes:
        """Read until the other side closes."""
        async with asyncio.timeout(within_s):
            return await self.reader.read()

    def leave(self) -> None:
        """Hang up."""
        self.writer.transport.abort()


@asynccontextmanager
async def wire(house: House, *, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    """Connect to the gateway. A small ``receive_buffer`` makes a slow reader felt soon."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", house.port))
    limit = 2**16 if receive_buffer is None else receive_buffer
    reader, writer = await asyncio.open_connection(sock=sock, limit=limit)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
