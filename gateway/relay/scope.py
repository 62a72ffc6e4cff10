"""The owner of everything one call has open, and the clock that watches all calls of a gateway.

Whatever a middleware forgets, closing the scope ends: abort is sync, so this needs no await and cannot be cancelled.
One tick over the live calls stands in for a timer per await: it notices deadlines and clients that left.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from time import monotonic
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

from ..errors import Cancelled, ErrorKind, GatewayError, HouseError, upstream_error

T = TypeVar("T")
TICK_S: Final = 0.25
"""How late a deadline or a client's leaving may be noticed. Law 7 gives a second."""

_log = logging.getLogger("headgate.relay")


class Abortable(Protocol):
    """Something open that can be ended at once."""

    def abort(self) -> None:
        """End it, synchronously."""


class Watched(Protocol):
    """Something the clock looks at while its call lives."""

    def tick(self, now: float, /) -> None:
        """Look at the time, in seconds of the loop's clock."""


class Clock:
    """One timer for all the scopes of a gateway; runs only while there are any. ``scopes`` are those it watches until they are
    closed, on ``loop``, which is None while it does not run: to ask asyncio for the loop costs a system call (Python 3.11)."""

    __slots__ = ("scopes", "loop", "_timer", "tick_s")

    def __init__(self, tick_s: float = TICK_S) -> None:
        self.scopes: set[Scope] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.tick_s = tick_s

    def __len__(self) -> int:
        return len(self.scopes)

    def start(self) -> asyncio.AbstractEventLoop:
        """Begin to run. Returns the loop."""
        self.loop = loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.tick_s, self._tick)
        return loop

    def close(self) -> None:
        """Close every scope that is left, and the timer."""
        for scope in list(self.scopes):
            scope.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self.loop = None

    def _tick(self) -> None:
        loop, now = self.loop, monotonic()
        assert loop is not None
        for scope in list(self.scopes):
            scope.tick(now)
        if self.scopes:
            self.loop, self._timer = loop, loop.call_later(self.tick_s, self._tick)
        else:
            self._timer = self.loop = None


class Scope:
    """What one call has open: sources, tasks, and what must be watched. ``committed`` once headers went to the client.

    ``commits_at`` is when silence alone will have them sent, in seconds of the loop's clock. ``on_close`` is called once, when
    the scope closes.
    """

    __slots__ = ("clock", "loop", "items", "tasks", "watched", "committed", "commits_at", "closed", "_on_close")

    def __init__(self, clock: Clock, on_close: Callable[[], object] | None = None) -> None:
        self.clock = clock
        self.items: set[Abortable] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.watched: list[Watched] = []
        self.committed = False
        self.commits_at = math.inf
        self.closed = False
        self._on_close = on_close
        clock.scopes.add(self)
        loop = clock.loop
        self.loop = clock.start() if loop is None else loop

    def spawn(self, work: Coroutine[Any, Any, T], name: str | None = None, *, cleanup: bool = False) -> asyncio.Task[T]:
        """Run ``work`` as a task of this call. A failure that nobody awaits is logged, not lost.

        In a closed scope nothing begins any more, except a ``cleanup``, which ends what somebody else opened.
        """
        task = self.loop.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        if self.closed and not cleanup:
            task.cancel()
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None and not isinstance(fault, GatewayError):
            _log.error("a task of a call failed: %r", fault, exc_info=fault)

    def limit(self, deadline: float | None, kind: ErrorKind, message: str) -> Limit:
        """Return a context manager that ends the await inside it at ``deadline`` with an UpstreamError of ``kind``."""
        return Limit(self, deadline, kind, message)

    def tick(self, now: float) -> None:
        """Let everything watched look at the time."""
        for watched in list(self.watched):
            if self.closed:
                break
            try:
                watched.tick(now)
            except Exception:  # the clock must go on: it keeps the deadlines of everybody else
                _log.exception("%r failed at a tick", watched)

    def close(self) -> None:
        """End all that is still open. Idempotent; a scope is not reopened."""
        if self.closed:
            return
        self.closed = True
        self.clock.scopes.discard(self)
        self.watched.clear()
        for task in list(self.tasks):
            task.cancel()
        # After the tasks, since an item may start one that cleans up behind it.
        while self.items:
            item = self.items.pop()
            try:
                item.abort()
            except Exception:  # the others must be closed all the same
                _log.exception("could not abort %r", item)
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()

    async def aclose(self) -> None:
        """Close, and wait until the tasks are gone."""
        self.close()
        while tasks := self.tasks - {asyncio.current_task(self.loop)}:
            await asyncio.wait(tasks)


class Limit:
    """A deadline on an await, kept by the clock: no timer of its own. None as the deadline means none."""

    __slots__ = ("_scope", "_deadline", "_kind", "_message", "_task", "_fired", "_cancelling")

    def __init__(self, scope: Scope, deadline: float | None, kind: ErrorKind, message: str) -> None:
        self._scope = scope
        self._deadline = deadline
        self._kind: ErrorKind = kind
        self._message = message
        self._task: asyncio.Task[Any] | None = None
        self._fired = False
        self._cancelling = 0

    def __enter__(self) -> Limit:
        if self._deadline is not None:
            self._task = task = asyncio.current_task(self._scope.loop)
            assert task is not None
            self._cancelling = task.cancelling()
            self._scope.watched.append(self)
        return self

    def tick(self, now: float, /) -> None:
        """Cancel the await once its time is over."""
        assert self._deadline is not None and self._task is not None
        if now >= self._deadline and not self._fired:
            self._fired = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        if not self._scope.closed:
            self._scope.watched.remove(self)
        if self._fired and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise upstream_error(self._kind, self._message) from fault


def as_gateway_error(fault: BaseException) -> GatewayError:
    """Return ``fault`` as the error that may travel through a relay; a stranger's exception becomes ``internal``."""
    if isinstance(fault, GatewayError):
        return fault
    if isinstance(fault, asyncio.CancelledError):
        return Cancelled("the call was cancelled")
    error = HouseError("an internal error")
    error.__cause__ = fault
    _log.error("unexpected %r", fault, exc_info=fault)
    return error


def ending_of(fault: BaseException) -> GatewayError:
    """Return how a call ended for those who account for it, where ``fault`` is raised on and logged by somebody else."""
    if isinstance(fault, GatewayError):
        return fault
    if isinstance(fault, asyncio.CancelledError):
        return Cancelled("the call was cancelled")
    return HouseError("an internal error")
