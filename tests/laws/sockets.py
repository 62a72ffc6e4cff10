"""What the laws over real sockets share: a client that sees bytes, and the two formats as a caller spells them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..fakes.gateway import CALLER_KEY, Mode, Served, serving
from ..fakes.provider import FakeProvider
from ..fakes.script import Script
from .common import ANTHROPIC, OPENAI

PATHS: Final = {OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}
MODELS: Final = {OPENAI: "gpt-5.4", ANTHROPIC: "claude-fake-4-5"}
CLEAN_END: Final = {OPENAI: b"[DONE]", ANTHROPIC: b"event: message_stop"}


def ask(caller: str, to: str, *, stream: bool, **more: Any) -> bytes:
    """A request body of ``caller``'s format for a model of ``to``'s."""
    body: dict[str, Any] = {
        "model": more.pop("prefix", "") + MODELS[to],
        "messages": [{"role": "user", "content": "hi"}],
        "stream": stream,
    }
    if caller == ANTHROPIC:
        body["max_tokens"] = 99
    return json.dumps(body | more).encode()


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    """Whether the HTTP body ended as HTTP says it should."""


class Client:
    """One connection to the gateway, byte by byte: no library decides what is an error."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, served: Served, *, limit: int = 1 << 16) -> Client:
        """Connect to a gateway."""
        return cls(*await asyncio.open_connection("127.0.0.1", served.port, limit=limit))

    def send(self, caller: str, body: bytes, served: Served, headers: dict[str, str] | None = None) -> None:
        """Send a request."""
        prefix = "/llm" if served.mode == "mounted" else ""
        known = {"authorization": f"Bearer {CALLER_KEY}", "content-type": "application/json", "connection": "close"}
        lines = [f"{name}: {value}" for name, value in (known | (headers or {})).items()]
        head = "\r\n".join(
            [f"POST {prefix}{PATHS[caller]} HTTP/1.1", "host: x", f"content-length: {len(body)}", *lines, "", ""]
        )
        self.writer.write(head.encode() + body)

    async def answer(self) -> Answer:
        """Read the answer to its end."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            rest = await self.reader.read()
        status = int(head.split(" ", 2)[1])
        pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, *_unchunk(rest))
        return Answer(status, headers, rest, len(rest) == int(headers.get("content-length", len(rest))))

    def leave(self) -> None:
        """Hang up."""
        self.writer.transport.abort()


def _unchunk(data: bytes) -> tuple[bytes, bool]:
    out: list[bytes] = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return b"".join(out), True
        out.append(data[:length])
        data = data[length + 2 :]
    return b"".join(out), False


async def call(served: Served, caller: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    """Send a request and return the answer."""
    client = await Client.connect(served)
    try:
        client.send(caller, body, served, headers)
        return await client.answer()
    finally:
        client.leave()


class World(NamedTuple):
    """A provider and a gateway of its own before it."""

    provider: FakeProvider
    served: Served


@asynccontextmanager
async def world(directory: Path, *plays: Script, mode: Mode = "standalone", **settings: Any) -> AsyncIterator[World]:
    """Serve a gateway before a provider that answers ``plays``."""
    directory.mkdir(parents=True, exist_ok=True)
    async with FakeProvider() as provider:
        provider.answer(*plays)
        async with serving(provider, directory, mode, **settings) as served:
            yield World(provider, served)
