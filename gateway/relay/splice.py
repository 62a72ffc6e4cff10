"""One answer made of several: at the end of each, a plain function decides whether another follows.

What the reader sees is one response: the starts of later rounds are hidden, their parts numbered on, usage summed, and
only the last end is told. Closing events are held back until it is known whether they are the last; if they are, they go
out as they came. After the first seam ``raw`` is dropped for good, since every frame of a later round carries its own id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ..errors import GatewayError
from ..ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
)
from ..ir.message import Reasoning, Refusal, Text
from .reply import Decide, Reply
from .scope import as_gateway_error
from .source import Sink

_CLOSING: Final = (ChoiceStop, UsageReport, ResponseStop, Terminator)
_JOINED: Final = (Text, Reasoning, Refusal)
"""Kinds of parts that a later round may go on with, so that the reader sees one part."""


class End(Struct, frozen=True):
    """How a round ended: the error or None, why choice 0 stopped, and the usage summed so far."""

    error: GatewayError | None
    reason: StopReason | None
    usage: Usage | None
    round: int


class Splice:
    """The Source[Chunk] behind ``Reply.then``."""

    __slots__ = (
        "_reply",
        "_decide",
        "_scope",
        "_sink",
        "_task",
        "_paused",
        "_dead",
        "_held",
        "_round",
        "_next_index",
        "_base",
        "_open",
        "_resume_in",
        "_reason",
        "_usage",
        "_spent",
    )

    def __init__(self, first: Reply, decide: Decide) -> None:
        self._reply: Reply | None = first
        self._decide: Decide | None = decide
        self._scope = first.scope
        self._sink: Sink[Chunk] | None = None
        self._task: asyncio.Task[None] | None = None
        self._paused = False
        self._dead = False
        self._held: list[Chunk] = []
        self._round = 0
        self._next_index = 0
        self._base = 0
        self._open: PartStart | None = None
        self._resume_in: PartStart | None = None
        self._reason: StopReason | None = None
        self._usage: Usage | None = None
        self._spent: Usage | None = None

    def connect(self, sink: Sink[Chunk], /) -> None:
        """Start with the first reply."""
        self._sink = sink
        assert self._reply is not None
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
        """Close the round that runs, or cancel the decision."""
        self._dead = True
        self._sink = None
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.abort()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def push(self, chunk: Chunk, /) -> None:
        """Take a chunk of the current round."""
        if self._round:
            chunk = Chunk(tuple(self._renumbered(chunk.events)))
        events = chunk.events
        closing = bool(self._held)
        for event in events:
            if isinstance(event, PartStart):
                self._open = event
                self._next_index = max(self._next_index, event.index + 1)
            elif isinstance(event, ChoiceStop):
                if event.choice == 0:
                    self._reason = event.reason
                closing = True
            elif isinstance(event, UsageReport):
                self._usage = event.usage
        if closing and self._held and not self._is_closing(self._held) and isinstance(_first(events), PartStart):
            # What looked like the end of the last part was the border between two.
            self._release()
            closing = any(isinstance(event, ChoiceStop) for event in events)
        if closing or (events and isinstance(events[-1], PartStop)):
            self._held.append(chunk)
        elif (events or chunk.raw) and self._sink is not None:
            self._sink.push(chunk)

    def end(self, error: GatewayError | None, /) -> None:
        """Hear that a round is over; ask what follows."""
        self._reply = None
        decide = self._decide
        following: Awaitable[Reply | None] | None = None
        if decide is not None:
            try:
                following = decide(End(error, self._reason, self._usage, self._round))
            except Exception as fault:  # the first end stands; it is clean only if it was clean
                error = error or as_gateway_error(fault)
        if following is None:
            self._last(error)
        else:
            self._task = self._scope.spawn(self._follow(following, error))

    async def _follow(self, following: Awaitable[Reply | None], error: GatewayError | None) -> None:
        reply: Reply | None = None
        try:
            reply = await following
        except Exception as fault:  # as in end()
            error = error or as_gateway_error(fault)
        if self._dead:
            if reply is not None:
                reply.abort()
        elif reply is None:
            self._last(error)
        else:
            self._go_on(reply)

    def _go_on(self, reply: Reply) -> None:
        held, self._held = self._held, []
        events = [event for chunk in held for event in chunk.events if not isinstance(event, _CLOSING)]
        # The last part stays open if the next round may go on in it; its stop is owed until then.
        self._resume_in = None
        if events and isinstance(events[-1], PartStop) and self._open is not None:
            if isinstance(self._open.part, _JOINED) and events[-1].index == self._open.index:
                events.pop()
                self._resume_in = self._open
        elif self._open is not None and not events and isinstance(self._open.part, _JOINED):
            self._resume_in = self._open  # the round broke off inside the part
        self._base = self._next_index
        self._spent = self._usage
        self._reason = None
        self._round += 1
        self._reply = reply
        if events and self._sink is not None:
            self._sink.push(Chunk(tuple(events)))
        if self._paused:
            reply.pause()
        if not self._dead:
            reply.connect(self)

    def _renumbered(self, events: Iterable[Event]) -> Iterable[Event]:
        for event in events:
            if isinstance(event, ResponseStart | ResponsePatch):
                continue
            if isinstance(event, PartStart):
                owed, self._resume_in = self._resume_in, None
                if owed is not None and type(event.part) is type(owed.part) and event.index == 0:
                    self._base = owed.index
                    continue
                if owed is not None:
                    yield PartStop(owed.index, owed.choice)
                yield replace(event, index=event.index + self._base)
            elif isinstance(event, PartDelta | PartPatch | PartStop):
                yield replace(event, index=event.index + self._base)
            elif isinstance(event, UsageReport):
                yield UsageReport(add_usage(self._spent, event.usage))
            elif isinstance(event, ChoiceStop) and self._resume_in is not None:
                owed, self._resume_in = self._resume_in, None
                yield PartStop(owed.index, owed.choice)
                yield event
            else:
                yield event

    def _last(self, error: GatewayError | None) -> None:
        self._release()
        sink, self._sink, self._decide = self._sink, None, None
        if sink is not None:
            sink.end(error)

    def _release(self) -> None:
        held, self._held = self._held, []
        for chunk in held:
            if self._sink is not None:
                self._sink.push(chunk)

    @staticmethod
    def _is_closing(chunks: list[Chunk]) -> bool:
        return any(isinstance(event, ChoiceStop) for chunk in chunks for event in chunk.events)


def _first(events: tuple[Event, ...]) -> Event | None:
    return events[0] if events else None


_COUNTS: Final = (
    "input_tokens",
    "uncached_input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
)


def add_usage(one: Usage | None, other: Usage) -> Usage:
    """Return the sum of two usages; a figure that neither gave stays unknown. Provider members are dropped: they are stale."""
    if one is None:
        return other
    counts: dict[str, int] = {}
    for name in _COUNTS:
        values = [value for usage in (one, other) if (value := getattr(usage, name)) is not None]
        if values:
            counts[name] = sum(values)
    return replace(Usage(estimated=one.estimated or other.estimated), **counts)
