"""One answer made of several: at the end of each, a plain function decides whether another follows.

What the reader sees is one response (see ``rounds``). Closing events are held back until it is known whether they are the
last; if they are, they go out as they came. After the first seam ``raw`` is dropped for good, since every frame of a later
round carries its own id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Final

from msgspec import Struct

from ..errors import Cancelled, GatewayError
from ..ir.event import Chunk, Event, StopReason, Usage
from .reply import HOLD_BYTES, Decide, Reply
from .rounds import Rounds
from .scope import as_gateway_error
from .source import Sink

_log: Final = logging.getLogger("headgate.relay")


class End(Struct, frozen=True):
    """How a round ended: the error or None, why choice 0 stopped, and the usage summed so far."""

    error: GatewayError | None
    reason: StopReason | None
    usage: Usage | None
    round: int


class Splice:
    """The Source[Chunk] behind ``Reply.then``.

    Held are the chunks from the one that begins the end of a round, and one that ends a text until the next goes on. What
    comes after the first of them is bounded by HOLD_BYTES: a round that says more after its end is the last.
    """

    __slots__ = (
        "_reply",
        "_decide",
        "_scope",
        "_sink",
        "_deciding",
        "_error",
        "_paused",
        "_dead",
        "_held",
        "_held_bytes",
        "_rounds",
    )

    def __init__(self, first: Reply, decide: Decide) -> None:
        self._reply: Reply | None = first
        self._decide: Decide | None = decide
        self._scope = first.scope
        self._sink: Sink[Chunk] | None = None
        self._deciding: asyncio.Future[Reply | None] | None = None
        self._error: GatewayError | None = None
        self._paused = False
        self._dead = False
        self._held: list[Chunk] = []
        self._held_bytes = 0
        self._rounds = Rounds()

    def connect(self, sink: Sink[Chunk], /) -> None:
        """Start with the first reply."""
        assert self._reply is not None
        self._sink = sink
        self._reply.connect(self)

    def pause(self) -> None:
        """Pause the round that runs; remembered for the next."""
        self._paused = True
        if self._reply is not None:
            self._reply.pause()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if self._reply is not None:
            self._reply.resume()

    def abort(self) -> None:
        """Close the round that runs, or cancel the decision; a reply that it yields all the same is closed, too."""
        self._dead = True
        self._sink = self._decide = None
        self._held = []
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.abort()
        if self._deciding is not None and self._deciding is not asyncio.current_task(self._scope.loop):
            self._deciding.cancel()

    # -- a sink of each round

    def push(self, chunk: Chunk, /) -> None:
        """Take a chunk of the current round."""
        rounds = self._rounds
        events = chunk.events
        if rounds.number:
            events = tuple(rounds.retell(events))
            chunk = Chunk(events)
        was_closing = rounds.closing
        spoke = rounds.watch(events)
        if self._held and spoke and not was_closing:
            # What looked like the end of the last part was the border between two.
            self._release()
        if (rounds.closing or rounds.pausing) and self._decide is not None:
            self._hold(chunk)
        elif (events or chunk.raw) and self._sink is not None:
            self._sink.push(chunk)

    def end(self, error: GatewayError | None, /) -> None:
        """Hear that a round is over; ask what follows."""
        self._reply = None
        rounds = self._rounds
        following: Awaitable[Reply | None] | None = None
        if self._decide is not None:
            try:
                following = self._decide(End(error, rounds.reason, rounds.usage, rounds.number))
            except Exception as fault:
                self._unfollowed(fault)
        if following is None:
            self._last(error)
            return
        self._error = error
        # The task is the decision itself: cancelled before it began, it still counts as awaited.
        if isinstance(following, asyncio.Future):
            self._deciding = following
        elif isinstance(following, Coroutine):
            self._deciding = self._scope.spawn(following)
        else:
            self._deciding = self._scope.spawn(_awaited(following))
        self._deciding.add_done_callback(self._decided)

    # -- inside

    def _decided(self, deciding: asyncio.Future[Reply | None]) -> None:
        self._deciding = None
        error, self._error = self._error, None
        reply: Reply | None = None
        fault: BaseException | None = Cancelled("the decision what follows was cancelled")
        if not deciding.cancelled() and (fault := deciding.exception()) is None:
            reply = deciding.result()
        if self._dead or self._scope.closed:
            if reply is not None:
                reply.abort()
            self._last(error or Cancelled("the call is over"))
            return
        if fault is not None:
            self._unfollowed(fault)
        if reply is None:
            self._last(error)
            return
        try:
            self._go_on(reply)
        except Exception as misuse:  # a reply that was used already, for instance
            reply.abort()
            self._last(as_gateway_error(misuse))

    def _unfollowed(self, fault: BaseException) -> None:
        """A decision that fails counts as None: the end that is there stands, and is clean only if it was clean."""
        _log.warning("nothing follows round %d of an answer: %r", self._rounds.number, fault)

    def _go_on(self, reply: Reply) -> None:
        events = self._rounds.seam(self._take_held())
        self._reply = reply
        if events and self._sink is not None:
            self._sink.push(Chunk(tuple(events)))
        if self._dead:
            return
        if self._paused:
            reply.pause()
        reply.connect(self)

    def _last(self, error: GatewayError | None) -> None:
        if self._rounds.number:
            events = self._rounds.ending(self._take_held(), clean=error is None)
            if events and self._sink is not None:
                self._sink.push(Chunk(tuple(events)))
        else:
            self._release()
        sink, self._sink, self._decide = self._sink, None, None
        if sink is not None:
            sink.end(error)

    def _hold(self, chunk: Chunk) -> None:
        if self._held:
            self._held_bytes += chunk.size
        self._held.append(chunk)
        if self._held_bytes > HOLD_BYTES:
            if self._rounds.closing and self._decide is not None:
                self._decide = None
                _log.warning("an answer goes on for more than %d bytes after its end: nothing follows it", HOLD_BYTES)
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        self._held_bytes = 0
        for chunk in held:
            if self._sink is not None:
                self._sink.push(chunk)

    def _take_held(self) -> list[Event]:
        held, self._held = self._held, []
        self._held_bytes = 0
        return [event for chunk in held for event in chunk.events]


async def _awaited(following: Awaitable[Reply | None]) -> Reply | None:
    return await following
