"""What only shows over time: aborts by the thousand, a client that stops reading, five hundred streams at once.

Slow by nature: run by ``make soak``. The gateway is a process of its own, so that its memory and sockets are its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RULES = """
version: 1
server: {{listen: "127.0.0.1:0"}}
upstreams:
  fake: {{adapter: openai, base_url: "http://127.0.0.1:{port}/v1", key: env:SOAK_KEY}}
chains:
  base: [{{log: {{to: "{log}"}}}}]
routes:
  - {{name: all, chain: base, to: fake}}
"""
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
    b'{"content":"%b"},"logprobs":null,"finish_reason":null}]}\n\n'
)
BODY = b'{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"soak ORDERS"}]}'
END = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},'
    b'"logprobs":null,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


class Provider:
    """Streams ``count`` events, ``pace_s`` apart, of ``size`` bytes; the prompt says which."""

    def __init__(self) -> None:
        self.open = 0
        self.sent = 0
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Provider]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2000)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
                body = await reader.readexactly(length)
                orders = re.search(rb"soak (\d+) (\d+) (\d+)", body)
                assert orders is not None
                count, pace_ms, size = map(int, orders.groups())
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                event = EVENT % (b"w" * size)
                for _ in range(count):
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await writer.drain()
                    self.sent += len(event)
                    if pace_ms:
                        await asyncio.sleep(pace_ms / 1000)
                writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(END), END))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


class Process:
    """A gateway process, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def sockets(self) -> int:
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sum(link.is_symlink() and "socket" in str(link.readlink()) for link in links)

    async def request(
        self, orders: str, path: str = "/v1/chat/completions"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        body = BODY.replace(b"ORDERS", orders.encode())
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (path.encode(), len(body), body)
        )
        return reader, writer

    async def in_flight(self) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        found = re.search(rb'"in_flight":(\d+)', await reader.read())
        writer.close()
        assert found is not None
        return int(found[1])


@asynccontextmanager
async def gateway(provider: Provider, folder: Path) -> AsyncIterator[Process]:
    rules = folder / "routes.yaml"
    rules.write_text(RULES.format(port=provider.port, log=folder / "access.jsonl"))
    said = folder / "stderr.txt"
    log = said.open("wb")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headgate",
        "serve",
        str(rules),
        stderr=log,
        env={**os.environ, "SOAK_KEY": "sk-soak"},
        cwd=folder,
    )
    log.close()
    async with asyncio.timeout(20):
        while (found := re.search(r"http://127\.0\.0\.1:(\d+)", said.read_text())) is None:
            await asyncio.sleep(0.05)
    try:
        yield Process(process, int(found[1]))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 40) == 0
    assert "Traceback" not in said.read_text(), said.read_text()[-3000:]


async def read_all(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while piece := await reader.read(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


async def test_aborts(tmp_path: Path) -> None:
    """10,000 calls, three in ten abandoned at a random moment: nothing of them stays."""
    chance = random.Random(7)
    async with Provider().serving() as provider, gateway(provider, tmp_path) as process:
        gate = asyncio.Semaphore(32)

        async def call(abort: bool) -> None:
            async with gate:
                reader, writer = await process.request(f"{20 if not abort else 400} {0 if not abort else 5} 40")
                try:
                    if abort:
                        async with asyncio.timeout(chance.choice([0.0, 0.001, 0.01, 0.05])):
                            await read_all(reader)
                    else:
                        assert (await read_all(reader)).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
                except TimeoutError:
                    writer.transport.abort()
                else:
                    writer.close()

        async def round(calls: int) -> None:
            await asyncio.gather(*(call(chance.random() < 0.3) for _ in range(calls)))
            for _ in range(40):
                if await process.in_flight() == 0:
                    break
                await asyncio.sleep(0.1)

        await round(2500)
        warm = process.rss_mb
        for _ in range(3):
            await round(2500)
        await asyncio.sleep(1)
        assert await process.in_flight() == 0
        assert process.rss_mb < warm + 5, f"{warm:.1f} MB -> {process.rss_mb:.1f} MB"
        # Idle connections to the provider are kept for 15 s, and looked after as often.
        for _ in range(40):
            if provider.open == 0:
                break
            await asyncio.sleep(1)
        assert provider.open == 0
        assert process.sockets < 8


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_stopped_reader(tmp_path: Path, path: str) -> None:
    """A client that stops reading stops the provider, and costs no memory."""
    async with Provider().serving() as provider, gateway(provider, tmp_path) as process:
        _, warm = await process.request("50 0 100", path)
        await asyncio.sleep(0.5)
        warm.close()
        before = process.rss_mb
        reader, writer = await process.request("40000 0 1000", path)  # 46 MB
        await reader.readexactly(10_000)
        for _ in range(30):
            await asyncio.sleep(0.1)
        stuck = provider.sent
        assert stuck < 30e6
        await asyncio.sleep(1)
        assert provider.sent == stuck
        assert process.rss_mb < before + 6, f"{before:.1f} MB -> {process.rss_mb:.1f} MB"
        rest = await read_all(reader)
        assert rest.rstrip().endswith(b"0")
        assert provider.sent > 40e6
        assert process.rss_mb < before + 6
        writer.close()


async def test_five_hundred_streams(tmp_path: Path) -> None:
    """500 streams of 20 chunks a second, translated, all held to their end."""
    async with Provider().serving() as provider, gateway(provider, tmp_path) as process:

        async def stream() -> bytes:
            reader, writer = await process.request("60 50 20", "/v1/messages")
            answer = await read_all(reader)
            writer.close()
            return answer

        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(stream() for _ in range(500)))
        assert all(answer.count(b"text_delta") == 60 and b"message_stop" in answer for answer in answers)
        assert await process.in_flight() == 0
