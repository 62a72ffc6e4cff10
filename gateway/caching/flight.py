"""One upstream call that several callers share: who joins late hears first what was told so far.

A stream belongs to nobody from its headers on: it lives in a scope of its own, which rides in that of one of its callers, so
that the gateway's clock looks at it, and moves to another when that one leaves. With the last of them it is closed. Before
its headers it runs in the task of the caller who began it, since a task for every call is not for nothing; where that one has
left already and others wait, the call that they ask anew is launched: in a task of its own, nobody's from the start.

Everything told is remembered up to a bound, so that others can join. Above it nobody joins any more, and what all have heard is
forgotten; the provider is held back only if all callers are slow, and one who falls behind by more than the bound is let go.
"""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from ..call import Call
from ..chain import Next
from ..errors import Cancelled, GatewayError, upstream_error
from ..ir.event import Chunk
from ..relay.reply import Reply
from ..relay.scope import Scope, ending_of
from ..relay.source import Sink
from .landing import OWN, Name, Tower, again, replayed, wait, wake

_FREE: Final = 16 * 1024
"""Bytes that each may remember without asking: most answers are no longer."""
_STEP: Final = 64 * 1024
"""Bytes that are reserved at a time of what all calls under way may remember."""


class Flight(Struct, eq=False):
    """``name`` is what others find it by, ``call`` what is sent: in a scope of its own. A Sink[Chunk] of the answer.

    ``told`` is how many chunks there were; the last of them are ``chunks``.
    """

    _tower: Tower
    name: Name
    call: Call
    _max_bytes: int
    good: bool = True
    chunks: list[Chunk] = []
    told: int = 0
    over: bool = False
    error: GatewayError | None = None
    _scope: _Shared | None = None
    _room: int = _FREE
    _reserved: int = 0
    _size: int = 0
    _joinable: bool = True
    _launched: bool = False
    _begun: bool = False
    _reply: Reply | None = None
    _seats: list[Seat] = []
    _alone: Seat | None = None
    _waiting: list[asyncio.Future[None]] = []
    _flowing: bool = False
    _held: bool = False

    def __post_init__(self) -> None:
        self._scope = scope = _Shared(self, self.call.scope)
        self.call = self.call.replace()
        self.call.scope = scope
        if self._max_bytes < _FREE:
            self._room = self._max_bytes

    def __repr__(self) -> str:
        return f"Flight({self.call!r})"  # a Struct would show what was said

    @property
    def scope(self) -> _Shared:
        """That of what is sent."""
        assert self._scope is not None
        return self._scope

    # -- how it begins

    def launch(self, call_next: Next) -> None:
        """Send the call in a task of its own. Each of those who wait keeps its own time, so the call has none."""
        self._launched = True
        self.call.deadline = None
        _ = self.scope.spawn(self._fly(call_next), name="shared call")

    async def _fly(self, call_next: Next) -> None:
        try:
            reply = await call_next(self.call)
            chunks = reply.gathered()
            if chunks is None and not self.call.peek.stream:
                chunks = await reply.collect()
        except BaseException as fault:
            self.fail(fault)
            if not isinstance(fault, GatewayError):
                raise
            return
        if chunks is None:
            self.begin(reply)
        else:
            self.complete(chunks, reply.status == 200)

    def begin(self, reply: Reply) -> None:
        """Take an answer that begins."""
        self._begun = True
        self.good = reply.status == 200
        if self.over:  # its scope was closed meanwhile
            reply.abort()
        else:
            self._reply = reply
        if self._waiting:
            wake(self._waiting)

    def complete(self, chunks: list[Chunk], good: bool) -> None:
        """Take an answer that is there already."""
        self.good = good
        self.chunks = chunks
        self.told = len(chunks)
        self._begun = True
        self._finish(None)

    def fail(self, fault: BaseException) -> None:
        """There is no answer."""
        self._finish(ending_of(fault))

    # -- who hears it

    def board(self, scope: Scope) -> Seat:
        """Return a source of all that is told, from the beginning, for the caller with ``scope``."""
        seat = Seat(self, scope)
        self._seats.append(seat)
        self._alone = seat if len(self._seats) == 1 else None
        return seat

    async def join(self, call: Call, /) -> Reply | None:
        """Wait until the answer begins, and return it; None if it must be asked for anew. Raises GatewayError."""
        seat = self.board(call.scope)
        try:
            if not self._begun and not self.over:
                await wait(self._waiting, call)
            if self._begun:
                if self.over and self.error is None:
                    seat.abort()
                    return replayed(self.chunks, call.scope)
                return Reply(seat, call.scope)
        except BaseException:
            seat.abort()
            raise
        seat.abort()
        assert self.error is not None
        if self.error.kind in OWN and not self._launched:
            return None
        raise again(self.error)

    def leave(self, seat: Seat) -> None:
        """A caller needs no more; the last one ends it."""
        seats = self._seats
        if seat not in seats:
            return
        seats.remove(seat)
        self._alone = seats[0] if len(seats) == 1 else None
        if self.over or not (self._begun or self._launched):
            return
        if not seats:
            self._drop()
        else:
            host = self.scope.host
            if host is seat.scope and all(each.scope is not host for each in seats):
                self.moved()
            self.balance()

    def moved(self) -> None:
        """The scope that this one rides in is no more: ride in another, or end."""
        for seat in self._seats:
            if not seat.scope.closed and seat.scope is not self.scope.host:
                self.scope.ride(seat.scope)
                return
        self._drop()

    def _drop(self) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.abort()
        self._finish(Cancelled("nobody wanted the rest of the answer"))  # who forgot to leave hears of it

    # -- a sink of the answer

    def push(self, chunk: Chunk, /) -> None:
        """Tell everybody."""
        self.chunks.append(chunk)
        told = self.told
        self.told = told + 1
        raw = chunk.raw
        self._size += chunk.size if raw is None else len(raw) + 64
        seat = self._alone
        if seat is not None and seat.at == told and not seat.paused and not seat.busy and seat.sink is not None:
            seat.at = told + 1
            seat.sink.push(chunk)
        else:
            for each in tuple(self._seats):
                each.run()
        if self._size > self._room:
            self._full()

    def end(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self._finish(error)

    def _finish(self, error: GatewayError | None) -> None:
        if not self.over:
            self._close(error)
            for seat in tuple(self._seats):
                seat.run()
            if self._waiting:
                wake(self._waiting)

    def _close(self, error: GatewayError | None) -> None:
        self.over = True
        self.error = error
        self._reply = None
        self._tower.left(self)
        if self._reserved:
            self._tower.reserve(-self._reserved)
        if error is None and self._joinable and self.good:
            self._tower.landed(self, self.chunks)
        self.scope.close()

    def _full(self) -> None:
        """Get room for more, or forget what all have heard."""
        if self._joinable:
            if self._size <= self._max_bytes and self._tower.reserve(_STEP):
                self._reserved += _STEP
                self._room = min(self._reserved, self._max_bytes)
                return
            self._joinable = False
            self._room = 0
            self._tower.left(self)
        self._forget()
        while self._size > self._max_bytes and len(self._seats) > 1:
            slowest = min(self._seats, key=lambda seat: seat.at)
            if slowest.at == self.told:
                return
            slowest.give_up()
            self._forget()

    def _forget(self) -> None:
        heard = min((seat.at for seat in self._seats), default=self.told) - self.told + len(self.chunks)
        if heard > 0:
            self._size -= sum(chunk.size for chunk in self.chunks[:heard])
            del self.chunks[:heard]

    # -- for its seats

    def flow(self) -> None:
        """Let the answer flow, now that somebody listens."""
        if self._flowing or self._reply is None:
            self.balance()
            return
        self._flowing = True
        if self._alone is None or self._alone.paused:
            self.balance()
        self._reply.connect(self)

    def balance(self) -> None:
        """Pause the provider if nobody can hear it, or let it go on."""
        if self._reply is None or not self._flowing:
            return
        held = bool(self._seats) and not any(seat.listens for seat in self._seats)
        if held != self._held:
            self._held = held
            if held:
                self._reply.pause()
            else:
                self._reply.resume()


class Seat:
    """What one caller hears of a flight: a Source[Chunk]. ``at`` is how many chunks it has heard; ``busy`` while it hears one
    after another."""

    __slots__ = ("scope", "at", "sink", "paused", "busy", "_flight", "_lost")

    def __init__(self, flight: Flight, scope: Scope) -> None:
        self.scope = scope
        self.at = 0
        self._flight = flight
        self.sink: Sink[Chunk] | None = None
        self.paused = False
        self.busy = False
        self._lost = False

    @property
    def listens(self) -> bool:
        """Whether something can be told here at the moment."""
        return not self.paused and self.sink is not None

    def connect(self, sink: Sink[Chunk], /) -> None:
        """Tell what was told so far, then follow."""
        if self._lost:
            sink.end(_too_slow())
            return
        self.sink = sink
        flight = self._flight
        if flight.told or flight.over:
            self.run()
        flight.flow()

    def pause(self) -> None:
        """Tell nothing."""
        self.paused = True
        self._flight.balance()

    def resume(self) -> None:
        """Go on."""
        self.paused = False
        self.run()
        self._flight.balance()

    def abort(self) -> None:
        """Leave."""
        self.sink = None
        self._flight.leave(self)

    def run(self) -> None:
        """Tell what is new."""
        if self.busy:  # resume() from inside push: the loop below goes on by itself
            return
        self.busy = True
        flight = self._flight
        try:
            while self.sink is not None and not self.paused and self.at < flight.told:
                chunk = flight.chunks[self.at - flight.told]
                self.at += 1
                self.sink.push(chunk)
        finally:
            self.busy = False
        if flight.over and not self.paused and self.at == flight.told and self.sink is not None:
            sink, self.sink = self.sink, None
            flight.leave(self)
            sink.end(None if flight.error is None else again(flight.error))

    def give_up(self) -> None:
        """End here: the others are too far ahead."""
        sink, self.sink = self.sink, None
        self._lost = True
        self._flight.leave(self)
        if sink is not None:
            sink.end(_too_slow())


def _too_slow() -> GatewayError:
    return upstream_error("cut", "this answer is shared with other calls, and was read far slower than by them")


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
        self.commits_at = host.commits_at
        self.closed = False
        self._on_close = None
        self.loop = host.loop
        self._flight: Flight | None = flight
        self.host: Scope | None = host
        host.items.add(self)
        host.watched.append(self)

    def ride(self, host: Scope) -> None:
        """Be watched and closed as part of ``host`` from here on."""
        self._get_off()
        self.host = host
        host.items.add(self)
        host.watched.append(self)

    def abort(self) -> None:
        """Hear from the host that it closes."""
        if self._flight is not None:
            self._flight.moved()

    def close(self) -> None:
        """End all that is still open."""
        if not self.closed:
            self._get_off()
            super().close()
            self._flight = None  # or every stream would leave a reference cycle to the garbage collector

    def _get_off(self) -> None:
        host, self.host = self.host, None
        if host is not None and not host.closed:
            host.items.discard(self)
            host.watched.remove(self)
