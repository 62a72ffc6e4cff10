"""A whole answer that its first caller waits for, and maybe others: the least that one call under way costs.

It runs in the first caller's task. If that one leaves, there is nothing to be had here, and the others must ask anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

from ..call import Call
from ..errors import Cancelled, GatewayError
from ..ir.event import Chunk
from ..relay.reply import Reply
from ..relay.scope import Scope, ending_of
from ..relay.source import Listed
from ..stores.base import Key

OWN: Final = frozenset({"cancelled", "timeout.total"})
"""How a call fails for its caller's sake: no failure of those who wait for the same answer."""
_OVERDUE: Final = "the call took longer than its total time-out"


Name: TypeAlias = Key
"""Under which an answer is kept, but for the space, which says how it is delivered: calls that differ in that do not follow
one another."""


class Tower(Protocol):
    """Who knows which calls are under way."""

    def left(self, call: Shared, /) -> None:
        """Hear that nobody may join ``call`` any more. Called once or more."""

    def landed(self, call: Shared, chunks: list[Chunk], /) -> None:
        """Hear that an answer is complete: these are its chunks."""

    def reserve(self, size: int, /) -> bool:
        """Return whether so many bytes more may be remembered of answers under way; less than 0 gives them back."""
        ...


class Shared(Protocol):
    """A call under way that others may share; ``call`` is the one that is asked."""

    name: Name
    call: Call

    async def join(self, call: Call, /) -> Reply | None:
        """Wait until the answer begins, and return it; None if it must be asked for anew. Raises GatewayError."""
        ...


class Landing(Struct, eq=False):
    """The first caller's call, and a stage of its answer. What is not good enough to be kept is shared all the same."""

    _tower: Tower
    name: Name
    call: Call
    good: bool = True
    waiting: list[asyncio.Future[None]] | None = None
    _chunks: list[Chunk] = []
    _error: GatewayError | None = None
    _over: bool = False

    def __repr__(self) -> str:
        return f"Landing({self.call!r})"  # a Struct would show what was said

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Remember."""
        self._chunks.append(chunk)
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is there, or will not be."""
        if not self._over:
            self._over = True
            self._error = error
            self.call.scope.items.discard(self)
            self._tower.left(self)
            if error is None and self.good:
                self._tower.landed(self, self._chunks)
            if self.waiting is not None:
                wake(self.waiting)

    def complete(self, chunks: list[Chunk]) -> None:
        """Tell an answer that is there already, and kept if it is to be."""
        self._chunks = chunks
        self._over = True
        if self.waiting is not None:
            wake(self.waiting)

    def fail(self, fault: BaseException) -> None:
        """There is no answer."""
        self.close(ending_of(fault))

    def abort(self) -> None:
        """The scope closes, and nobody has read the answer to its end."""
        self.close(Cancelled("nobody wanted the rest of the answer"))

    async def join(self, call: Call, /) -> Reply | None:
        """Wait for the answer."""
        if self.waiting is None:
            self.waiting = []
        await wait(self.waiting, call)
        if self._error is None:
            return replayed(self._chunks, call.scope)
        if self._error.kind in OWN:
            return None
        raise again(self._error)


async def wait(waiting: list[asyncio.Future[None]], call: Call) -> None:
    """Wait among others until woken, as long as ``call`` has time. Raises UpstreamTimeout, Cancelled."""
    scope = call.scope
    waiter = scope.loop.create_future()
    leaver = _Leaver(waiter)
    if scope.closed:
        leaver.abort()
    waiting.append(waiter)
    scope.items.add(leaver)
    try:
        with scope.limit(call.deadline, "timeout.total", _OVERDUE):
            await waiter
    finally:
        scope.items.discard(leaver)
        if waiter in waiting:
            waiting.remove(waiter)


class _Leaver:
    """Ends the wait of a call that is over, whoever cancels its task or does not."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = waiter

    def abort(self) -> None:
        """The scope closes."""
        if not self._waiter.done():
            self._waiter.set_exception(Cancelled("the call was over before the answer that it waited for"))


def wake(waiting: list[asyncio.Future[None]]) -> None:
    """Let all who wait go on."""
    for waiter in waiting:
        if not waiter.done():
            waiter.set_result(None)
    waiting.clear()


def replayed(chunks: Sequence[Chunk], scope: Scope, status: int = 200, headers: Mapping[str, str] = {}) -> Reply:
    """Return an answer that is all there."""
    if len(chunks) == 1 and chunks[0].is_whole:
        return Reply.whole(chunks[0], scope, status, headers)
    return Reply(Listed(chunks), scope, status, headers)


def again(error: GatewayError) -> GatewayError:
    """Return the same error for somebody else: one that is raised remembers who raised it."""
    new: GatewayError = type(error).__new__(type(error))
    new.args = error.args
    new.__dict__.update(error.__dict__)
    new.__cause__ = error.__cause__
    return new
