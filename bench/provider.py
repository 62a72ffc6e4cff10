"""A provider that answers at once, or at a pace, in both formats: cheap enough not to be what is measured.

    python bench/provider.py PORT [TLS-PORT CERTIFICATE KEY]

Speaks just enough HTTP/1.1 for its two callers. The prompt gives the orders: ``bench chunks=200 pace=5`` asks a stream for
200 chunks, 5 ms apart, each with the time it was written in its text; with pace=0 they come as fast as they drain, four to
a write.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial

ORDERS = re.compile(rb"bench chunks=(\d+) pace=(\d+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
STREAM = re.compile(rb'"stream": ?true')
STAMP = "0" * 16
"""Where a paced chunk has the microseconds of the machine's monotonic clock."""
WORD = f"some words {STAMP} @ "
"""The text of one chunk. The load generator counts the @."""
BURST = 4
"""Chunks in one write when there is no pace."""


def sse(data: object, event: str = "") -> bytes:
    """Return one server-sent event."""
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def http_chunk(data: bytes) -> bytes:
    """Return ``data`` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class OpenAI:
    """Chat Completions."""

    envelope = {"id": "chatcmpl-bench0123456789", "created": 1767225600, "model": "bench-model"}
    usage = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}

    def whole(self) -> object:
        message = {"role": "assistant", "content": WORD * 8, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {**self.envelope, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    def event(self, delta: object, finish: str | None = None, **more: object) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return sse({**self.envelope, "object": "chat.completion.chunk", "choices": choices, **more})

    def head(self) -> bytes:
        return self.event({"role": "assistant", "content": ""})

    def chunk(self) -> bytes:
        return self.event({"content": WORD})

    def tail(self, usage: bool) -> bytes:
        last = sse({**self.envelope, "object": "chat.completion.chunk", "choices": [], "usage": self.usage})
        return self.event({}, "stop") + (last if usage else b"") + sse("[DONE]")


class Anthropic:
    """Messages."""

    def message(self, content: list[object], stop: str | None) -> dict[str, object]:
        return {
            "id": "msg_bench0123456789",
            "type": "message",
            "role": "assistant",
            "model": "bench-model",
            "content": content,
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {"input_tokens": 12, "output_tokens": 7},
        }

    def whole(self) -> object:
        return self.message([{"type": "text", "text": WORD * 8}], "end_turn")

    def event(self, kind: str, **more: object) -> bytes:
        return sse({"type": kind, **more}, kind)

    def head(self) -> bytes:
        start = self.event("message_start", message=self.message([], None))
        return start + self.event("content_block_start", index=0, content_block={"type": "text", "text": ""})

    def chunk(self) -> bytes:
        return self.event("content_block_delta", index=0, delta={"type": "text_delta", "text": WORD})

    def tail(self, usage: bool) -> bytes:
        stop = {"stop_reason": "end_turn", "stop_sequence": None}
        return (
            self.event("content_block_stop", index=0)
            + self.event("message_delta", delta=stop, usage={"output_tokens": 7})
            + self.event("message_stop")
        )


class Answers:
    """What a format says, made once."""

    def __init__(self, format: OpenAI | Anthropic) -> None:
        body = json.dumps(format.whole()).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n\r\n"
        self.whole = head % (b"application/json", b"Content-Length: %d" % len(body)) + body
        self.head = head % (b"text/event-stream", b"Transfer-Encoding: chunked") + http_chunk(format.head())
        self.chunk = http_chunk(format.chunk())
        self.before, self.after = self.chunk.split(STAMP.encode())
        self.burst = self.chunk * BURST
        self.tails = {usage: http_chunk(format.tail(usage)) + b"0\r\n\r\n" for usage in (False, True)}


class Provider(asyncio.Protocol):
    """One connection; one request after the other."""

    answers = {b"/v1/chat/completions": Answers(OpenAI()), b"/v1/messages": Answers(Anthropic())}

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.full = False
        self.waiting: Callable[[], None] | None = None

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self.waiting is not None:
            self.loop.call_soon(self.waiting)
            self.waiting = None

    def data_received(self, data: bytes) -> None:
        self.data = data = self.data + data if self.data else data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        length = LENGTH.search(data, 0, end)
        size = end + (int(length[1]) if length else 0)
        if len(data) >= size:
            self.data = data[size:]
            self.answer(self.answers[data.split(b" ", 2)[1].partition(b"?")[0]], data[end:size])

    def answer(self, answers: Answers, body: bytes) -> None:
        if not STREAM.search(body):
            self.transport.write(answers.whole)
            return
        orders = ORDERS.search(body)
        chunks, pace = (int(orders[1]), int(orders[2])) if orders else (1, 0)
        tail = answers.tails[b'"include_usage"' in body]
        self.transport.write(answers.head)
        if pace:
            self.paced(answers, chunks, pace / 1000, self.loop.time() + pace / 1000, tail)
        else:
            self.burst(answers, chunks, tail)

    def burst(self, answers: Answers, chunks: int, tail: bytes) -> None:
        if self.transport.is_closing():
            return
        if chunks <= 0:
            self.transport.write(tail)
            return
        self.transport.write(answers.burst if chunks >= BURST else answers.chunk * chunks)
        further = partial(self.burst, answers, chunks - BURST, tail)
        if self.full:
            self.waiting = further
        else:
            self.loop.call_soon(further)

    def paced(self, answers: Answers, chunks: int, pace_s: float, due: float, tail: bytes) -> None:
        """Write a chunk now and the next at ``due``: a timer that is late does not make the whole stream late."""
        if self.transport.is_closing():
            return
        if not chunks:
            self.transport.write(tail)
            return
        self.transport.write(b"%b%016d%b" % (answers.before, time.monotonic_ns() // 1000, answers.after))
        self.loop.call_at(due, self.paced, answers, chunks - 1, pace_s, due + pace_s, tail)


async def main(port: int, *tls: str) -> None:
    """Serve until killed. ``tls``: port, certificate and key of a second door."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Provider, "127.0.0.1", port, backlog=4096)
    if tls:
        tls_port, certificate, key = tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        await loop.create_server(Provider, "127.0.0.1", int(tls_port), ssl=context, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
