"""A load generator: keep-alive connections that ask again as soon as they were answered.

    echo '{"port": 8080, "path": "/v1/messages", "headers": {}, "body": "…", "connections": 16, "seconds": 2,
           "stream": false, "chunks": 0}' | python bench/load.py

Prints one line of JSON: requests, chunks, errors, seconds, and latencies in milliseconds. An answer that is not complete
(a status other than 200, chunks missing, no terminator) is an error.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import dataclass, field

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
ENDS = (b"[DONE]", b"message_stop")
MARK = b" @ "


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


@dataclass
class Tally:
    """What came of it. Latencies in seconds."""

    requests: int = 0
    chunks: int = 0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection. ``done`` is set when it was told to stop and its last answer is complete, or it was closed."""

    def __init__(self, order: Order, tally: Tally, request: bytes, until: float) -> None:
        self.order, self.tally, self.request, self.until = order, tally, request, until
        self.done = asyncio.get_running_loop().create_future()

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
        self.expected: int | None = None  # bytes of the whole response; None: chunked, or not known yet
        self.seen_first = False
        self.asked = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.got = got = self.got + data if self.got else data
        if self.expected is None and not self.order.stream:
            end = got.find(b"\r\n\r\n") + 4
            length = LENGTH.search(got, 0, end) if end > 3 else None
            if length:
                self.expected = end + int(length[1])
        if not self.seen_first and MARK in got:
            self.seen_first = True
            self.tally.firsts.append(time.perf_counter() - self.asked)
        if got.endswith(b"\r\n0\r\n\r\n") or (self.expected is not None and len(got) >= self.expected):
            self.answered(got)

    def answered(self, got: bytes) -> None:
        tally, now = self.tally, time.perf_counter()
        tally.requests += 1
        tally.latencies.append(now - self.asked)
        chunks = got.count(MARK)
        complete = (
            any(end in got[-200:] for end in ENDS) and chunks == self.order.chunks if self.order.stream else chunks
        )
        if not got.startswith(b"HTTP/1.1 200") or not complete:
            tally.errors += 1
            if tally.errors == 1:
                print(got[:600].decode("utf-8", "replace"), file=sys.stderr)
        elif self.order.stream:
            tally.chunks += chunks
        if now < self.until:
            self.ask()
        elif not self.done.done():
            self.done.set_result(None)
            self.transport.close()


async def run(order: Order) -> dict[str, object]:
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
    tally, loop, began = Tally(), asyncio.get_running_loop(), time.perf_counter()
    clients = [
        (
            await loop.create_connection(
                lambda: Client(order, tally, request, began + order.seconds), "127.0.0.1", order.port
            )
        )[1]
        for _ in range(order.connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), order.seconds + 30)
    seconds = time.perf_counter() - began
    return {
        "requests": tally.requests,
        "chunks": tally.chunks,
        "errors": tally.errors,
        "seconds": seconds,
        "qps": tally.requests / seconds,
        "p50_ms": at(tally.latencies, 0.50),
        "p99_ms": at(tally.latencies, 0.99),
        "first_p50_ms": at(tally.firsts, 0.50),
    }


def at(values: list[float], share: float) -> float:
    """Return the value below which ``share`` of ``values`` lie, in milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else 0.0


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Order(**json.load(sys.stdin))))))
