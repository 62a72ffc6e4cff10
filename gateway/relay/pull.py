"""The edges to async code: iterate or collect an answer, or feed one from an async iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Generic, TypeVar

from ..errors import GatewayError, Malformed
from ..ir.event import Chunk
from .reply import Reply
from .scope import Scope, as_gateway_error
from .source import Sink

T = TypeVar("T")
HIGH_BYTES: Final = 64 * 1024
"""An iterated answer is paused when this much waits for the loop that reads it."""
COLLECT_BYTES: Final = 64 * 1024 * 1024
"""What ``collect`` may hold."""


class Pump(Generic[T]):
    """An async iterator as a source: one task, owned by the scope."""

    __slots__ = ("_items", "_scope", "_sink", "_task", "_gate", "_paused", "_dead")

    def __init__(self, items: AsyncIterator[T], scope: Scope) -> None:
        self._items = items
        self._scope = scope
        self._sink: Sink[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._gate: asyncio.Future[None] | None = None
        self._paused = False
        self._dead = False
        scope.items.add(self)

    def connect(self, sink: Sink[T], /) -> None:
        """Start the task."""
        self._sink = sink
        self._task = self._scope.spawn(self._run())

    def pause(self) -> None:
        """Take no further item from the iterator."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)

    def abort(self) -> None:
        """Cancel the task, or close an iterator that was never started."""
        if self._dead:
            return
        self._close()
        if self._task is None:
            if not self._scope.closed:
                self._task = self._scope.spawn(_aclose(self._items))
        elif self._task is not asyncio.current_task():
            self._task.cancel()

    def _close(self) -> None:
        self._dead = True
        self._scope.items.discard(self)

    async def _run(self) -> None:
        error: GatewayError | None = None
        assert self._sink is not None
        try:
            async for item in self._items:
                if self._dead:
                    return
                self._sink.push(item)
                while self._paused and not self._dead:
                    self._gate = asyncio.get_running_loop().create_future()
                    await self._gate
                if self._dead:
                    return
        except Exception as fault:  # a stranger's iterator: whatever it raises ends the answer, nothing else
            error = as_gateway_error(fault)
        finally:
            await _aclose(self._items)
        if not self._dead:
            self._close()
            self._sink.end(error)


async def _aclose(items: AsyncIterator[object]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


class _Puller:
    """Buffers what a reader has not taken yet, and pauses the reply above HIGH_BYTES."""

    __slots__ = ("reply", "chunks", "size", "over", "error", "waiter", "stopped")

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.chunks: deque[Chunk] = deque()
        self.size = 0
        self.over = False
        self.error: GatewayError | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.stopped = False

    def push(self, chunk: Chunk, /) -> None:
        self.chunks.append(chunk)
        self.size += chunk.size
        if self.size > HIGH_BYTES and not self.stopped:
            self.stopped = True
            self.reply.pause()
        self._wake()

    def end(self, error: GatewayError | None, /) -> None:
        self.over = True
        self.error = error
        self._wake()

    def take(self) -> Chunk:
        chunk = self.chunks.popleft()
        self.size -= chunk.size
        if self.stopped and self.size < HIGH_BYTES // 4:
            self.stopped = False
            self.reply.resume()
        return chunk

    async def wait(self) -> None:
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


async def iterate(reply: Reply) -> AsyncIterator[Chunk]:
    """Yield the chunks of ``reply``; raises the error it ended with; closes it when the reader leaves early."""
    puller = _Puller(reply)
    try:
        reply.connect(puller)
        while True:
            if puller.chunks:
                yield puller.take()
            elif puller.over:
                if puller.error is not None:
                    raise puller.error
                return
            else:
                await puller.wait()
    finally:
        reply.abort()


class _Collector:
    """Keeps everything, up to COLLECT_BYTES; wakes the waiter once, at the end."""

    __slots__ = ("reply", "chunks", "size", "over", "error", "waiter")

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.chunks: list[Chunk] = []
        self.size = 0
        self.over = False
        self.error: GatewayError | None = None
        self.waiter: asyncio.Future[None] | None = None

    def push(self, chunk: Chunk, /) -> None:
        self.chunks.append(chunk)
        self.size += chunk.size
        if self.size > COLLECT_BYTES:
            self.chunks.clear()
            self.reply.abort()
            self.end(Malformed(f"the answer is larger than {COLLECT_BYTES} bytes"))

    def end(self, error: GatewayError | None, /) -> None:
        self.over = True
        self.error = error
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


async def collect(reply: Reply) -> list[Chunk]:
    """Return all chunks of ``reply``, run in push form. Raises the error it ended with."""
    collector = _Collector(reply)
    reply.connect(collector)
    if not collector.over:
        collector.waiter = asyncio.get_running_loop().create_future()
        try:
            await collector.waiter
        except BaseException:
            reply.abort()
            raise
    if collector.error is not None:
        raise collector.error
    return collector.chunks
