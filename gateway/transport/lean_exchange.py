"""One conversation of the lean transport, from its place in the line to the last byte of its answer."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ..errors import Cancelled, ErrorKind, GatewayError, Malformed, upstream_error
from ..relay.scope import Scope
from ..relay.source import Sink
from .base import Deadlines
from .lean_coding import Inflate
from .lean_connection import LeanConnection

if TYPE_CHECKING:
    from .lean_pool import LeanPool
    from .lean_request import Target

HIGH: Final = 64 * 1024
"""Bytes of a body that nobody has asked for yet; above this the connection is not read."""

_log = logging.getLogger("headgate.transport")


class LeanExchange(Struct, eq=False):
    """See Exchange. Holds a slot of the pool until the body's end, an error or abort; the submission waits with it.

    What the submission waits for is ``waiter``: a slot, a connection, the response headers. Deadlines and abort end the
    wait by an exception of the waiter, so nothing here cancels a task that is not its own. ``bodiless``: its answer has no
    body, whatever its headers say. ``slot``: whether it has one. A Struct, since every call has one.
    """

    _pool: LeanPool
    _target: Target
    _deadlines: Deadlines
    _scope: Scope
    bodiless: bool = False
    status: int = 0
    headers: Mapping[str, str] = {}
    answered: bool = False
    waiter: asyncio.Future[None] | None = None
    connection: LeanConnection | None = None
    slot: bool = False
    _late_at: float | None = None
    _late: tuple[ErrorKind, str] = ("timeout.pool", "")
    _dialling: asyncio.Task[LeanConnection] | None = None
    _over: bool = False
    _whole: bytes | None = None  # an answer that came at once, and nobody has read of yet
    _sink: Sink[bytes] | None = None
    _paused: bool = False
    _busy: bool = False
    _held: list[bytes] = []
    _size: int = 0
    _ended: bool = False
    _error: GatewayError | None = None
    _limit: int = -1
    _coding: Inflate | None = None

    def __repr__(self) -> str:
        return f"LeanExchange({self.place!r}, {self.status})"  # a Struct would show headers, and what has come

    @property
    def place(self) -> str:
        """Host and port."""
        return self._target.place

    # -- before the response headers

    async def stand_in_line(self) -> None:
        """Wait for a slot. Raises as submit does."""
        pool, loop = self._pool, self._scope.loop
        self.waiter = turn = loop.create_future()
        self._late = ("timeout.pool", "every connection to the provider is busy")
        self._late_at = None if self._deadlines.pool_s is None else monotonic() + self._deadlines.pool_s
        pool.pending.add(self)
        pool.slots.join(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # It came in the moment of the cancellation; abort gives it back, unless there was one already.
                self.slot = not self._over
                if self._over:
                    pool.slots.give_back()
            else:
                pool.slots.leave(turn)
            raise
        finally:
            pool.pending.discard(self)
            self._late_at = None
        if self._over:  # it came in the moment of an abort, which knew nothing of it
            pool.slots.give_back()
            raise Cancelled("the call is over")
        self.slot = True

    async def dial(self, target: Target) -> LeanConnection:
        """Return a new connection, which is usable. Raises as submit does."""
        pool, scope = self._pool, self._scope
        self.waiter = waiter = scope.loop.create_future()
        self._late = ("timeout.connect", f"cannot connect to {target.place}: no connection in time")
        connect_s = self._deadlines.connect_s
        self._late_at = None if connect_s is None else monotonic() + connect_s
        pool.pending.add(self)
        self._dialling = task = scope.spawn(pool.connect(target, scope.loop), name="lean connect")
        task.add_done_callback(self._dialled)
        try:
            await waiter
        finally:
            pool.pending.discard(self)
            self._late_at = self._dialling = None
            task.cancel()  # no more than a word if it is done
        connection = self.connection
        if connection is None:  # aborted in the moment of the connection
            raise Cancelled("the call is over")
        if not connection.usable:
            raise connection.gone(target)
        return connection

    def _dialled(self, task: asyncio.Task[LeanConnection]) -> None:
        """The attempt to connect is over: hand the connection to who waits for it, or keep it for the next."""
        waiter = self.waiter
        failed = task.cancelled() or task.exception() is not None
        if self._over or waiter is None or waiter.done():
            if not failed:
                connection = task.result()
                if connection.usable:
                    self._pool.put(connection)
                else:
                    connection.close()
        elif task.cancelled():
            waiter.set_exception(Cancelled("the call is over"))
        elif (fault := task.exception()) is not None:
            waiter.set_exception(fault)
        else:
            self.connection = task.result()
            waiter.set_result(None)

    def tick(self, now: float, /) -> None:
        """Give up once a deadline has passed. Only called until the response headers are there."""
        deadlines, connection = self._deadlines, self.connection
        if self._late_at is not None and now >= self._late_at:
            self.fail(upstream_error(*self._late))
        elif deadlines.head_at is not None and now >= deadlines.head_at:
            self.fail(upstream_error(deadlines.head_kind, "the provider sent no response headers in time"))
        elif deadlines.write_s is not None and connection is not None and connection.stalled(now, deadlines.write_s):
            self.fail(upstream_error("timeout.write", "the provider stopped reading the request"))

    def fail(self, error: GatewayError) -> None:
        """End the submission with ``error``."""
        waiter = self.waiter
        self._close()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def answer(self, status: int, headers: dict[str, str]) -> None:
        """The response headers are there."""
        headers.pop("set-cookie", None)  # it cannot be joined, and no provider's cookie is anybody's business here
        if (coding := headers.get("content-encoding")) is not None and not self.bodiless:
            if (folded := coding.lower()) in ("gzip", "deflate"):
                del headers["content-encoding"]
                headers.pop("content-length", None)
                self._coding = Inflate(folded)
            elif folded != "identity":
                self.fail(Malformed(f"the answer is in a content-encoding that nobody asked for: {coding[:40]!r}"))
                return
        self.answered = True
        self.status = status
        self.headers = headers
        scope, waiter = self._scope, self.waiter
        if not scope.closed:
            scope.watched.remove(self)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the body, as the connection brings it

    def arrived(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """The answer is here from its first byte to its last: what ``answer`` and ``take`` come to."""
        if "content-encoding" in headers:
            self.answer(status, headers)
            self.take(body, True, None)
            return
        headers.pop("set-cookie", None)
        self.answered = True
        self.status = status
        self.headers = headers
        self._whole = body
        scope, waiter = self._scope, self.waiter
        if not scope.closed:
            scope.watched.remove(self)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _spread(self) -> None:
        """Hold an answer that came at once like any other: somebody does not want it at once, or not that much."""
        whole, self._whole = self._whole, None
        if whole is not None:
            self._ended = True
            if whole:
                self._held.append(whole)
                self._size = len(whole)

    def take(self, data: bytes, ended: bool, error: GatewayError | None) -> None:
        """Take a piece of the body, not empty unless ``ended``; the last call has ``ended``."""
        if self._over:
            return
        sink = self._sink
        if sink is not None and not ended and not (self._paused or self._busy or self._held or self._coding):
            # The middle of a stream that flows: what _run does with it, without asking again.
            self._busy = True
            try:
                sink.push(data)
            except Exception:  # as there
                _log.exception("a reader of an answer failed")
                self.abort()
            finally:
                self._busy = False
            return
        if ended:
            self._ended, self._error = True, error
        if self._coding is not None:
            self._feed(self._coding, data)
        elif data:
            self._held.append(data)
            self._size += len(data)
        if self._sink is not None:
            self._run()
        elif self._limit < 0:
            if not self._ended and self._waiting > HIGH:
                self._hold()
        elif self._ended or self._coding is not None or self._size > self._limit:
            self._wake()

    def _feed(self, coding: Inflate, data: bytes) -> None:
        try:
            coding.feed(data)
        except zlib.error as fault:
            self._miscoded(fault)

    @property
    def _waiting(self) -> int:
        return self._size if self._coding is None else self._coding.waiting

    def _next(self) -> bytes:
        """Return some of the body that is here, b"" if there is none."""
        if self._coding is None:
            held = self._held
            if not held:
                return b""
            data = b"".join(held)
            held.clear()
            self._size = 0
            return data
        try:
            data = self._coding.next()
        except zlib.error as fault:
            self._miscoded(fault)
            return b""
        if not data and self._ended and self._error is None and not self._coding.complete:
            self._error = Malformed(f"the answer of {self.place} is malformed: its content-encoding breaks off")
        return data

    def _miscoded(self, fault: zlib.error) -> None:
        self._coding = None
        self._held.clear()
        self._ended = True
        self._error = Malformed(f"the answer of {self.place} is malformed: {fault}")
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.close()

    # -- the body, as it goes on

    def connect(self, sink: Sink[bytes], /) -> None:
        """Start the flow of body bytes."""
        assert self._sink is None, "connected twice"
        if self._over:
            return
        self._spread()
        self._sink = sink
        self._run()

    def pause(self) -> None:
        """Push nothing more. The connection is read once more at the most."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        if self._paused:
            self._paused = False
            if self._sink is not None:
                self._run()

    def _run(self) -> None:
        """Push what is here, unless paused. Never inside itself: a sink may resume from inside push."""
        if self._busy:
            return
        self._busy = True
        try:
            while (sink := self._sink) is not None and not self._paused:
                if data := self._next():
                    sink.push(data)
                elif self._ended:
                    error = self._error
                    self._finish()
                    sink.end(error)
                    return
                else:
                    break
        except Exception:  # a sink's own fault must not end in the loop's hands, nor the answer stay open
            _log.exception("a reader of an answer failed")
            self.abort()
            return
        finally:
            self._busy = False
        if self._paused:
            if self._waiting:
                self._hold()
        elif self.connection is not None:
            self.connection.flow()

    def _hold(self) -> None:
        if self.connection is not None and not self._ended:
            self.connection.hold()

    def ready(self, max_bytes: int) -> bytes | None:
        """Return the whole body if it is here already, which takes no deadline and no waiting. None: see ``read``."""
        whole = self._whole
        if whole is None or len(whole) > max_bytes:
            return self._gathered(max_bytes)
        # As _finish: an answer that came at once has nothing else to put away.
        self._over = True
        self._whole = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.release()
        self._scope.items.discard(self)
        slots = self._pool.slots
        if slots.line:
            slots.give_back()
        else:
            slots.free += 1
        return whole

    def _gathered(self, max_bytes: int) -> bytes | None:
        """Return a body that came bit by bit, and is here now."""
        if not self._ended or self._over or self._error is not None or self._coding is not None:
            return None
        if self._size > max_bytes:
            return None
        data = self._next()
        self._finish()
        return data

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body. Raises Cut, or Malformed above ``max_bytes``; closed in any case."""
        if self._over:
            raise Cancelled("the exchange is over")
        self._spread()
        try:
            if not self._ended and int(self.headers.get("content-length", 0)) > max_bytes:
                raise self._too_large(max_bytes)
            if self._coding is None:
                self._limit = max_bytes
                if not self._ended and self._size <= max_bytes:
                    await self._more()
                if self._size > max_bytes:
                    raise self._too_large(max_bytes)
                data = self._next()
            else:
                data = await self._decoded(max_bytes)
        except BaseException:
            self.waiter = None
            self.abort()
            raise
        error = self._error
        self._finish()
        if error is not None:
            raise error
        return data

    async def _decoded(self, max_bytes: int) -> bytes:
        self._limit = max_bytes
        pieces: list[bytes] = []
        size = 0
        while True:
            while data := self._next():
                pieces.append(data)
                size += len(data)
                if size > max_bytes:
                    raise self._too_large(max_bytes)
            if self._ended:
                return b"".join(pieces)
            await self._more()

    async def _more(self) -> None:
        """Wait until take says that there is something to look at."""
        self.waiter = self._scope.loop.create_future()
        if self.connection is not None:
            self.connection.flow()
        await self.waiter

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def _too_large(self, max_bytes: int) -> Malformed:
        return Malformed(f"the answer of {self.place} is larger than {max_bytes} bytes")

    # -- the end

    def abort(self) -> None:
        """Close the connection now."""
        if not self._over:
            self.fail(Cancelled("the exchange was aborted" if self.answered else "the call is over"))

    def _finish(self) -> None:
        """The answer was taken to its end: the connection is free."""
        if self._over:
            return
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.release()
        self._close()

    def _close(self) -> None:
        if self._over:
            return
        self._over = True
        self._sink = self._whole = None
        self._held.clear()
        self._coding = None
        scope = self._scope
        if not scope.closed:
            scope.items.discard(self)
            if not self.answered:
                scope.watched.remove(self)
        if self._dialling is not None:
            self._dialling.cancel()
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.close()
        if self.slot:
            self.slot = False
            self._pool.slots.give_back()
