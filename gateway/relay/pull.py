"""The edges to async code: iterate or collect an answer, or feed one from an async iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final, Generic, TypeVar

from ..errors import Cancelled, GatewayError, Malformed
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
    """An async iterator as a source: one task, owned by the scope. The iterator is closed in every case, if it can be."""

    __slots__ = ("_items", "_scope", "_sink", "_task", "_begun", "_gate", "_paused", "_dead")

    def __init__(self, items: AsyncIterator[T], scope: Scope) -> None:
        self._items = items
        self._scope = scope
        self._sink: Sink[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._gate: asyncio.Future[None] | None = None
        self._paused = False
        self._dead = False
        scope.items.add(self)

    def connect(self, sink: Sink[T], /) -> None:
        """Start the task."""
        if not self._dead:
            self._sink = sink
            self._task = self._scope.spawn(self._run(), name="pump")

    def pause(self) -> None:
        """Take no further item from the iterator."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)

    def abort(self) -> None:
        """Cancel the task, which closes the iterator; start one that does if none has begun."""
        if self._dead:
            return
        self._close()
        if self._task is not None and self._task is not asyncio.current_task(self._scope.loop):
            self._task.cancel()
        if not self._begun:
            _ = self._scope.spawn(_aclose(self._items), name="pump", cleanup=True)

    def _close(self) -> None:
        self._dead = True
        self._sink = None
        self._scope.items.discard(self)

    async def _run(self) -> None:
        self._begun = True
        error: GatewayError | None = None
        try:
            try:
                await self._feed()
            finally:
                await _aclose(self._items)
        except asyncio.CancelledError as fault:
            if self._sink is not None:  # not our doing: the iterator's own, or the loop is closing
                self._end(as_gateway_error(fault))
            raise
        except Exception as fault:  # a stranger's iterator: whatever it raises ends the answer, nothing else
            error = as_gateway_error(fault)
        self._end(error)

    async def _feed(self) -> None:
        if self._paused:
            await self._resumed()
        async for item in self._items:
            if self._paused:
                await self._resumed()
            if self._sink is None:
                return
            self._sink.push(item)
            if self._paused:
                await self._resumed()
            if self._dead:
                return

    async def _resumed(self) -> None:
        while self._paused and not self._dead:
            self._gate = self._scope.loop.create_future()
            await self._gate

    def _end(self, error: GatewayError | None) -> None:
        sink = self._sink
        if sink is not None:
            self._close()
            sink.end(error)


async def _aclose(items: AsyncIterator[object]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


class _Reader:
    """Waits for something to happen to a reply; woken with Cancelled when the reply's scope closes."""

    __slots__ = ("reply", "size", "over", "error", "waiter")

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.size = 0
        self.over = False
        self.error: GatewayError | None = None
        self.waiter: asyncio.Future[None] | None = None

    def end(self, error: GatewayError | None, /) -> None:
        """Note the end."""
        self.over = True
        self.error = error
        self.wake()

    def abort(self) -> None:
        """Hear from the scope that it closes."""
        if not self.over:
            self.end(Cancelled("the call is over"))

    async def wait(self) -> None:
        """Wait until woken."""
        scope = self.reply.scope
        if scope.closed:
            self.abort()
            return
        self.waiter = scope.loop.create_future()
        scope.items.add(self)
        try:
            await self.waiter
        finally:
            self.waiter = None
            scope.items.discard(self)

    def wake(self) -> None:
        """Let wait() return."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def check(self) -> None:
        """Raise the error of the end, if it was one; once, since an error that stays here would hold its own frame."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error


class _Puller(_Reader):
    """Buffers what a reader has not taken yet, and pauses the reply above HIGH_BYTES."""

    __slots__ = ("chunks", "stopped")

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.chunks: deque[Chunk] = deque()
        self.stopped = False

    def push(self, chunk: Chunk, /) -> None:
        self.chunks.append(chunk)
        self.size += chunk.size
        if self.size > HIGH_BYTES and not self.stopped:
            self.stopped = True
            self.reply.pause()
        self.wake()

    def take(self) -> Chunk:
        chunk = self.chunks.popleft()
        self.size -= chunk.size
        if self.stopped and self.size < HIGH_BYTES // 4:
            self.stopped = False
            self.reply.resume()
        return chunk


async def iterate(reply: Reply) -> AsyncIterator[Chunk]:
    """Yield the chunks of ``reply``; raises the error it ended with; closes it when the reader leaves early."""
    puller = _Puller(reply)
    try:
        reply.resume()  # whoever paused it before is not the reader
        reply.connect(puller)
        while True:
            if puller.chunks:
                yield puller.take()
            elif puller.over:
                puller.check()
                return
            else:
                await puller.wait()
    finally:
        reply.abort()


class _Collector(_Reader):
    """Keeps everything, up to COLLECT_BYTES; wakes the waiter once, at the end."""

    __slots__ = ("chunks",)

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.chunks: list[Chunk] = []

    def push(self, chunk: Chunk, /) -> None:
        self.chunks.append(chunk)
        self.size += chunk.size
        if self.size > COLLECT_BYTES:
            self.chunks.clear()
            self.reply.abort()
            self.end(Malformed(f"the answer is larger than {COLLECT_BYTES} bytes"))


async def collect(reply: Reply) -> list[Chunk]:
    """Return all chunks of ``reply``, run in push form. Raises the error it ended with."""
    collector = _Collector(reply)
    try:
        reply.resume()  # as in iterate
        reply.connect(collector)
        if not collector.over:
            await collector.wait()
        collector.check()
    finally:
        reply.abort()
    return collector.chunks
