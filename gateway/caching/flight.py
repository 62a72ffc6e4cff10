"""One upstream call that several callers share: who joins late hears first what was told so far.

Before a stream's headers, and until a whole answer is there, it runs in the task of the caller who began it: if that one
leaves, the others begin anew. From then on a stream belongs to nobody: it lives in a scope of its own, which rides in that of
one of its callers, so that the gateway's clock looks at it, and moves to another when that one leaves. With the last of them
it is closed.

Everything told is remembered up to a bound, so that others can join. Above it nobody joins any more, what all have heard is
forgotten, and the slowest of the callers holds the provider back; below it only if all of them are slow.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..call import Call
from ..errors import Cancelled, GatewayError
from ..ir.event import Chunk
from ..relay.reply import Reply
from ..relay.scope import Scope, as_gateway_error
from ..relay.source import Sink

_OWN = frozenset({"cancelled", "timeout.total"})
"""How a call fails for its caller's sake: no failure of those who wait for the same answer."""


class Tower(Protocol):
    """Who keeps the flights."""

    def left(self, flight: Flight) -> None:
        """Hear that nobody may join ``flight`` any more. Called once or more."""

    def landed(self, flight: Flight) -> None:
        """Hear that the answer is complete, and all of it is in ``flight.chunks``."""


class Flight:
    """``call`` is the first caller's; ``scope`` is where a stream is to run, None for a whole answer. A Sink[Chunk]."""

    __slots__ = (
        "call",
        "name",
        "scope",
        "chunks",
        "begun",
        "over",
        "error",
        "told",
        "_tower",
        "_max_bytes",
        "_size",
        "_joinable",
        "_reply",
        "_seats",
        "_waiting",
        "_flowing",
        "_held",
    )

    def __init__(self, call: Call, name: object, max_bytes: int, tower: Tower) -> None:
        self.call = call
        self.name = name
        self.scope = _Shared(self, call.scope) if call.peek.stream else None
        self.chunks: list[Chunk] = []
        self.begun = False
        self.over = False
        self.error: GatewayError | None = None
        self.told = 0
        """How many chunks there were; the last of them are ``chunks``."""
        self._tower = tower
        self._max_bytes = max_bytes
        self._size = 0
        self._joinable = True
        self._reply: Reply | None = None
        self._seats: list[Seat] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._flowing = False
        self._held = False

    # -- for the first caller

    def complete(self, chunks: list[Chunk]) -> None:
        """Take an answer that is there already."""
        self.chunks = chunks
        self.told = len(chunks)
        for chunk in chunks:
            self._size += chunk.size
        self.begun = self.over = True
        if self.scope is not None:
            self.scope.close()
        self._tower.left(self)
        if self._size <= self._max_bytes:
            self._tower.landed(self)
        if self._waiting:
            self._wake()

    def begin(self, reply: Reply) -> Reply:
        """Take an answer that begins; return it for the first caller."""
        self.begun = True
        if self.over:  # its scope was closed meanwhile
            reply.abort()
        else:
            self._reply = reply
        seat = self.board(self.call.scope)
        self._wake()
        return Reply(seat, self.call.scope, reply.status, reply.headers)

    def fail(self, fault: BaseException) -> None:
        """There is no answer."""
        error = fault if isinstance(fault, (GatewayError, asyncio.CancelledError)) else None
        self.error = Cancelled("the call was not answered") if error is None else as_gateway_error(error)
        self.over = True
        self._tower.left(self)
        if self.scope is not None:
            self.scope.close()
        self._wake()

    # -- for the others

    def board(self, scope: Scope) -> Seat:
        """Return a source of all that is told, from the beginning, for the caller with ``scope``."""
        seat = Seat(self, scope)
        self._seats.append(seat)
        return seat

    async def join(self, call: Call) -> Reply | None:
        """Wait until the answer begins, and return it; None if ``call`` must be sent after all. Raises GatewayError."""
        seat = self.board(call.scope)
        if not self.begun and not self.over:
            waiter = call.scope.loop.create_future()
            self._waiting.append(waiter)
            try:
                with call.scope.limit(call.deadline, "timeout.total", "the call took longer than its total time-out"):
                    await waiter
            except BaseException:
                seat.abort()
                raise
        if self.begun:
            chunks = self.chunks
            if self.over and len(chunks) == 1 and chunks[0].is_whole:
                seat.abort()
                return Reply.whole(chunks[0], call.scope)
            return Reply(seat, call.scope)
        seat.abort()
        assert self.error is not None
        if self.error.kind in _OWN:
            return None
        raise again(self.error)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    # -- a sink of the answer

    def push(self, chunk: Chunk, /) -> None:
        """Tell everybody."""
        self.chunks.append(chunk)
        self.told += 1
        self._size += chunk.size
        seats = self._seats
        if len(seats) == 1:
            seats[0].run()
        else:
            for seat in tuple(seats):
                seat.run()
        if self._size > self._max_bytes:
            if self._joinable:
                self._close_doors()
            if self._seats:
                heard = min(seat.at for seat in self._seats)
                del self.chunks[: heard - (self.told - len(self.chunks))]

    def end(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self.over = True
        self.error = error
        self._reply = None
        self._tower.left(self)
        if error is None and self._joinable:
            self._tower.landed(self)
        assert self.scope is not None
        self.scope.close()
        for seat in tuple(self._seats):
            seat.run()

    def _close_doors(self) -> None:
        self._joinable = False
        self._tower.left(self)
        self.balance()

    # -- for its seats

    def flow(self) -> None:
        """Let the answer flow, now that somebody listens."""
        if not self._flowing and self._reply is not None:
            self._flowing = True
            self._reply.connect(self)
        self.balance()

    def balance(self) -> None:
        """Pause the provider, or let it go on."""
        if self._reply is None:
            return
        deaf = [seat.deaf for seat in self._seats]
        held = bool(deaf) and (all(deaf) if self._joinable else any(deaf))
        if held != self._held:
            self._held = held
            if held:
                self._reply.pause()
            else:
                self._reply.resume()

    def leave(self, seat: Seat) -> None:
        """A caller needs no more; the last one ends it."""
        if seat not in self._seats:
            return
        self._seats.remove(seat)
        if self.over or not self.begun:
            return
        if self._seats:
            if self.scope is not None and self.scope.host is seat.scope:
                self.moved()
            self.balance()
        else:
            self._drop()

    def moved(self) -> None:
        """The scope that this one rides in is no more: ride in another, or end."""
        assert self.scope is not None
        for seat in self._seats:
            if not seat.scope.closed and seat.scope is not self.scope.host:
                self.scope.ride(seat.scope)
                return
        self._drop()

    def _drop(self) -> None:
        self._tower.left(self)
        reply, self._reply = self._reply, None
        if not self.over:
            self.over = True
            self.error = Cancelled("nobody wanted the rest of the answer")
        if reply is not None:
            reply.abort()
        assert self.scope is not None
        self.scope.close()


class Seat:
    """What one caller hears of a flight: a Source[Chunk]. ``at`` is how many chunks it has heard."""

    __slots__ = ("scope", "at", "_flight", "_sink", "_paused", "_busy")

    def __init__(self, flight: Flight, scope: Scope) -> None:
        self.scope = scope
        self.at = 0
        self._flight = flight
        self._sink: Sink[Chunk] | None = None
        self._paused = False
        self._busy = False

    @property
    def deaf(self) -> bool:
        """Whether nothing can be told here at the moment."""
        return self._paused or self._sink is None

    def connect(self, sink: Sink[Chunk], /) -> None:
        """Tell what was told so far, then follow."""
        self._sink = sink
        self.run()
        self._flight.flow()

    def pause(self) -> None:
        """Tell nothing."""
        self._paused = True
        self._flight.balance()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self.run()
        self._flight.balance()

    def abort(self) -> None:
        """Leave."""
        self._sink = None
        self._flight.leave(self)

    def run(self) -> None:
        """Tell what is new."""
        if self._busy:  # resume() from inside push: the loop below goes on by itself
            return
        self._busy = True
        flight = self._flight
        try:
            while self._sink is not None and not self._paused and self.at < flight.told:
                chunk = flight.chunks[self.at - flight.told]
                self.at += 1
                self._sink.push(chunk)
        finally:
            self._busy = False
        if flight.over and not self._paused and self.at == flight.told and self._sink is not None:
            sink, self._sink = self._sink, None
            flight.leave(self)
            sink.end(None if flight.error is None else again(flight.error))


class _Shared(Scope):
    """A scope that is not among the calls of the gateway: it rides in that of a call, and outlives it if it must."""

    __slots__ = ("host", "_flight")

    def __init__(self, flight: Flight, host: Scope) -> None:
        # Not Scope's own: it would be counted as a call, and watched twice.
        self.clock = host.clock
        self.items = set()
        self.tasks = set()
        self.watched = []
        self.committed = False
        self.closed = False
        self._on_close = None
        self.loop = host.loop
        self._flight = flight
        self.host: Scope | None = None
        self.ride(host)

    def ride(self, host: Scope) -> None:
        """Be watched and closed as part of ``host`` from here on."""
        self._get_off()
        self.host = host
        host.items.add(self)
        host.watched.append(self)

    def abort(self) -> None:
        """Hear from the host that it closes."""
        self._flight.moved()

    def close(self) -> None:
        """End all that is still open."""
        if not self.closed:
            self._get_off()
            super().close()

    def _get_off(self) -> None:
        host, self.host = self.host, None
        if host is not None and not host.closed:
            host.items.discard(self)
            host.watched.remove(self)


def again(error: GatewayError) -> GatewayError:
    """Return the same error for somebody else: one that is raised remembers who raised it."""
    new: GatewayError = type(error).__new__(type(error))
    new.args = error.args
    new.__dict__.update(error.__dict__)
    new.__cause__ = error.__cause__
    return new


__all__ = ["Flight", "Seat", "Tower", "again"]
