"""An answer on its way to one client's socket: the last sink of a stream, and what watches the client meanwhile.

``commit`` is the moment headers go out. Before it a failure is an HTTP error; after it, the format's own error frame and
never a clean end. The clock looks at every edge: it notices clients that left (the host's runner may not cancel
handlers), writes keep-alives into the silence, and ends what is over its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final

from aiohttp import web

from ..codecs.base import StreamEncoder
from ..errors import Cancelled, GatewayError, UpstreamTimeout
from ..ir.event import Chunk
from ..relay.reply import Reply
from ..relay.scope import TICK_S, Scope
from .intake import Arrived
from .outlet import Outlet

GRACE_S: Final = TICK_S + 0.1
"""How long after a call's deadline the presence steps in: adapters keep the same deadline, and know better what was late. They
look at the same clock, so it is never the same tick."""


class Presence:
    """Watches for one client, before and while it is answered: whether it is still there, and whether its time is up.

    What it does about it is to cancel the handler, or to tell the ``edge`` once there is one.
    """

    __slots__ = ("transport", "deadline", "overdue", "edge", "_task")

    def __init__(self, request: web.BaseRequest | Arrived, scope: Scope, deadline: float | None = None) -> None:
        transport, task = request.transport, asyncio.current_task(scope.loop)
        assert task is not None
        if transport is None:
            raise Cancelled("the client left")
        self.transport = transport
        self.deadline = deadline
        self.overdue = False
        self.edge: Edge | None = None
        self._task: asyncio.Task[Any] = task
        scope.watched.append(self)

    def forgive(self) -> None:
        """Take back the cancellation by which an overdue handler was woken: it is about to answer."""
        self._task.uncancel()

    def tick(self, now: float, /) -> None:
        """Look at the socket and at the time."""
        edge = self.edge
        if self.transport.is_closing():
            if edge is None or not edge.leave():
                self._task.cancel()
        elif self.deadline is not None and now >= self.deadline + GRACE_S:
            first, self.overdue = not self.overdue, True
            if (edge is None or not edge.expire()) and first:
                self._task.cancel()
        elif edge is not None:
            edge.tick(now)


class Edge:
    """One client that waits for, or reads, a streamed answer. A Sink[Chunk]."""

    __slots__ = (
        "outlet",
        "scope",
        "encoder",
        "committed",
        "early_headers",
        "early_content_type",
        "closes",
        "keep_alive_s",
        "error",
        "over",
        "_transport",
        "_reply",
        "_committing",
        "_waiter",
        "_full",
        "_wrote",
        "_last_write",
        "_left",
    )

    def __init__(
        self,
        outlet: Outlet,
        presence: Presence,
        scope: Scope,
        keep_alive_s: float,
        encoder: StreamEncoder,
    ) -> None:
        self.outlet = outlet
        self.scope = scope
        self.encoder = encoder
        self.committed = False
        self.early_headers: Callable[[], Mapping[str, str]] = dict
        """Says the headers, if a keep-alive must send them before the provider's are there."""
        self.early_content_type = ""
        self.closes = False
        self.keep_alive_s = keep_alive_s
        self.error: GatewayError | None = None
        self.over = False
        self._transport = presence.transport
        self._reply: Reply | None = None
        self._committing: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._full = False
        self._wrote = True  # since the last tick: asking for the time at each write would cost more
        self._last_write = 0.0
        self._left = False
        scope.commits_at = monotonic() + keep_alive_s
        presence.edge = self

    # -- the commit

    async def commit(self, status: int, headers: Mapping[str, str], content_type: str) -> None:
        """Send the response headers, unless a keep-alive already has."""
        if self._committing is not None:
            await self._committing
        if not self.committed:
            await self._prepare(status, headers, content_type)

    async def _prepare(self, status: int, headers: Mapping[str, str], content_type: str) -> None:
        self.scope.committed = True
        said = {**headers, "content-type": content_type, "cache-control": "no-cache", "x-accel-buffering": "no"}
        try:
            await self.outlet.open(status, said, self.closes)
        except ConnectionResetError:
            self._left = True
            raise Cancelled("the client left") from None
        self.committed = True  # not before: while a signal of the host waits, the call may end another way
        self._wrote = True

    # -- a sink

    def push(self, chunk: Chunk, /) -> None:
        """Encode a chunk and write it at once."""
        data = self.encoder.encode(chunk)
        if data:
            self._write(data)

    def end(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self.over = True
        self.error = error
        self._wake()

    def _write(self, data: bytes) -> None:
        if self._transport.is_closing():
            self.leave()
            return
        self._wrote = True
        if self.outlet.write(data) and not self._full:
            self._full = True
            if self._reply is not None:
                self._reply.pause()
            self._wake()

    async def run(self, reply: Reply) -> None:
        """Let ``reply`` flow to the client until it is over, then write the end. Never raises for the client's sake."""
        self._reply = reply
        self.scope.items.add(self)
        try:
            reply.connect(self)
            self.outlet.flush()
            await self._keep_up(reply)
        except ConnectionResetError:
            self.leave()
        finally:
            self.scope.items.discard(self)
        await self.finish(self.error)

    async def _keep_up(self, reply: Reply) -> None:
        """Wait for the end; in between, wait for a slow client on the provider's behalf."""
        while True:
            if self._full and not self._left:
                await self.outlet.drain()
                self._full = False
                if not self.over:
                    reply.resume()
            elif self.over:
                return
            else:
                self._waiter = self.scope.loop.create_future()
                await self._waiter

    async def finish(self, error: GatewayError | None) -> None:
        """Write what the format owes at its end, and close the response; cut it off if the client must not trust it."""
        if self._left:
            return
        if data := self.encoder.close(error):
            self._write(data)
        try:
            if self._full and not self._left:
                await self.outlet.drain()
            if not self._left:
                await self.outlet.close()
        except ConnectionResetError:
            self.leave()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what the clock sees

    def tick(self, now: float, /) -> None:
        """Write a keep-alive into a silence that is too long; into the first one, the headers too."""
        if self._wrote:
            self._wrote = False
            self._last_write = now
        if self._full or self.over or now - self._last_write < self.keep_alive_s:
            return
        if self.committed:
            self._write(self.encoder.ping)
        elif self._committing is None:
            self._committing = self.scope.spawn(self._commit_in_silence())

    async def settle(self) -> None:
        """Let a commit that a keep-alive began come to its end: a signal of the host may hold it half way."""
        if self._committing is not None:
            await asyncio.wait((self._committing,))

    async def _commit_in_silence(self) -> None:
        await self._prepare(200, self.early_headers(), self.early_content_type)
        self._write(self.encoder.ping)

    def expire(self) -> bool:
        """The call's time is up: end a running answer; at the next tick, drop a client that does not take the end.

        False if none runs yet.
        """
        if self._reply is None:
            return False
        if self.over:
            self._transport.abort()
        else:
            self._stop(UpstreamTimeout("the call took longer than its total time-out", kind="timeout.total"))
        return True

    def abort(self) -> None:
        """Hear from the scope that it closes under a running answer: the gateway ends."""
        if not self.over:
            self._stop(Cancelled("the gateway is closing"))

    def _stop(self, error: GatewayError) -> None:
        assert self._reply is not None
        self._reply.abort()
        self.end(error)

    def leave(self) -> bool:
        """The client left: close what feeds a running answer. False if none runs yet."""
        if self._reply is None:
            return False
        if not self._left:
            self._left = True
            if not self.over:
                self._stop(Cancelled("the client left"))
            self._wake()
        return True
