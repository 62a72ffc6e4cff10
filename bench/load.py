"""A load generator: keep-alive connections that ask again as soon as they were answered.

    echo '{"port": 8080, "path": "/v1/messages", "headers": {}, "body": "…", "connections": 16, "seconds": 2,
           "stream": false, "chunks": 0, "pace_ms": 0, "ramp_s": 0}' | python bench/load.py

Takes one order a line and prints one line of JSON for each: requests, chunks, errors, seconds, the CPU seconds that it
took itself, latencies in milliseconds, and for paced streams how late the chunks were: from the moment the provider wrote
one, which stands in its text, to the moment it was read here. An answer that is not complete (a status other than 200,
chunks missing, no terminator) is an error. Connections are opened over ``ramp_s``; each asks once at least.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from dataclasses import dataclass, field

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
ENDS = (b"[DONE]", b"message_stop")
MARK = b" @ "
STAMP = re.compile(rb"(\d{16}) @ ")
"""Microseconds of the machine's monotonic clock, which all processes share."""


@dataclass
class Order:
    """What to do; see above."""

    port: int
    path: str
    body: str
    headers: dict[str, str]
    connections: int
    seconds: float
    stream: bool
    chunks: int
    pace_ms: int
    ramp_s: float


@dataclass
class Tally:
    """What came of it. Latencies in seconds, delays in microseconds; ``flowing_s``: first chunk to last, of all streams."""

    requests: int = 0
    chunks: int = 0
    errors: int = 0
    flowing_s: float = 0.0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection. ``done`` is set when it was told to stop and its last answer is complete, or it was closed."""

    def __init__(self, order: Order, tally: Tally, request: bytes, until: float) -> None:
        self.order, self.tally, self.request, self.until = order, tally, request, until
        self.done = asyncio.get_running_loop().create_future()
        self.took = self.piece if order.stream else self.part

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.tally.errors += 1
            self.done.set_result(None)

    def ask(self) -> None:
        self.got = b""
        self.expected: int | None = None  # bytes of the whole response, once known
        self.status = b""
        self.chunks = 0
        self.asked = self.first_at = self.last_at = time.monotonic()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.got = got = self.got + data if self.got else data
        self.status = self.status or got[:12]
        self.took(got)

    def part(self, got: bytes) -> None:
        """Look whether an answer that is no stream is whole."""
        if self.expected is None:
            end = got.find(b"\r\n\r\n") + 4
            length = LENGTH.search(got, 0, end) if end > 3 else None
            if length:
                self.expected = end + int(length[1])
        if got.endswith(b"\r\n0\r\n\r\n") or (self.expected is not None and len(got) >= self.expected):
            self.answered(complete=MARK in got)

    def piece(self, got: bytes) -> None:
        """Count the chunks that came, and keep only what follows the last of them."""
        count = got.count(MARK)
        if count:
            self.last_at = now = time.monotonic()
            if not self.chunks:
                self.first_at = now
                self.tally.firsts.append(now - self.asked)
            self.chunks += count
            if self.order.pace_ms:
                now_us = int(now * 1e6)
                self.tally.delays += [now_us - int(stamp) for stamp in STAMP.findall(got)]
            self.got = got = got[got.rfind(MARK) + len(MARK) :]
        if got.endswith(b"\r\n0\r\n\r\n"):
            self.answered(complete=self.chunks == self.order.chunks and any(end in got for end in ENDS))

    def answered(self, *, complete: bool) -> None:
        tally, now = self.tally, time.monotonic()
        tally.requests += 1
        tally.latencies.append(now - self.asked)
        if complete and self.status == b"HTTP/1.1 200":
            tally.chunks += self.chunks
            tally.flowing_s += self.last_at - self.first_at
        else:
            tally.errors += 1
            if tally.errors == 1:
                print(self.status.decode("latin-1"), self.got[:600].decode("utf-8", "replace"), file=sys.stderr)
        if now < self.until:
            self.ask()
        elif not self.done.done():
            self.done.set_result(None)
            self.transport.close()


async def run(order: Order) -> dict[str, float]:
    """Do what ``order`` says; return the result."""
    body = order.body.encode()
    head = {
        "Host": f"127.0.0.1:{order.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **order.headers,
    }
    lines = [f"POST {order.path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    request = "\r\n".join(lines).encode() + body
    tally, loop = Tally(), asyncio.get_running_loop()
    began, cpu_began = time.monotonic(), time.process_time()
    clients = []
    for number in range(order.connections):
        ahead = began + order.ramp_s * number / order.connections - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        _, client = await loop.create_connection(
            lambda: Client(order, tally, request, began + order.seconds), "127.0.0.1", order.port
        )
        clients.append(client)
    longest = order.chunks * order.pace_ms / 1000
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), order.seconds + 2 * longest + 30)
    seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
    asked_s = tally.chunks / max(1, order.chunks) * (order.chunks - 1) * order.pace_ms / 1000
    return {
        "requests": tally.requests,
        "chunks": tally.chunks,
        "errors": tally.errors,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "qps": tally.requests / seconds,
        "p50_ms": at(tally.latencies, 0.50) * 1e3,
        "p99_ms": at(tally.latencies, 0.99) * 1e3,
        "first_p50_ms": at(tally.firsts, 0.50) * 1e3,
        "first_p99_ms": at(tally.firsts, 0.99) * 1e3,
        "delay_p50_ms": at(tally.delays, 0.50) / 1e3,
        "delay_p99_ms": at(tally.delays, 0.99) / 1e3,
        "pace_held": asked_s / tally.flowing_s if tally.flowing_s else 0.0,
    }


def at(values: list[float] | list[int], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


if __name__ == "__main__":
    gc.disable()  # a collection here would be counted as a delay there
    for line in sys.stdin:
        print(json.dumps(asyncio.run(run(Order(**json.loads(line))))), flush=True)
        gc.collect()
