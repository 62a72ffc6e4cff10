"""Several answers as the choices of one: interleaved as they come, parts numbered through, usage summed.

The first start that comes is that of the whole. The answer ends when all have ended, and fails when the first of them fails,
which closes the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from ..errors import GatewayError
from ..ir.event import (
    ChoicePatch,
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
    Terminator,
    Usage,
    UsageReport,
)
from ..relay.reply import Reply
from ..relay.rounds import add_usage
from ..relay.source import Sink


def merged(replies: Sequence[Reply]) -> Reply:
    """Return one reply whose choice i is what the i-th of ``replies`` answers. Status and headers are the first's."""
    first = replies[0]
    return Reply(Merged(replies), first.scope, first.status, first.headers)


class _Branch:
    """Hears one of the answers. ``told`` are the numbers of its parts in the whole."""

    __slots__ = ("choice", "over", "told", "usage", "_whole")

    def __init__(self, whole: Merged, choice: int) -> None:
        self._whole = whole
        self.choice = choice
        self.told: dict[int, int] = {}
        self.usage: Usage | None = None
        self.over = False

    def push(self, chunk: Chunk, /) -> None:
        """Take a chunk of it."""
        self._whole.heard(self, chunk)

    def end(self, error: GatewayError | None, /) -> None:
        """Hear that it is over."""
        self.over = True
        self._whole.ended(error)


class Merged:
    """The Source[Chunk] behind ``merged``."""

    __slots__ = ("_branches", "_dead", "_lead", "_next", "_replies", "_sink")

    def __init__(self, replies: Iterable[Reply]) -> None:
        self._replies = list(replies)
        self._branches = [_Branch(self, choice) for choice in range(len(self._replies))]
        self._sink: Sink[Chunk] | None = None
        self._lead: _Branch | None = None
        self._next = 0
        self._dead = False

    def connect(self, sink: Sink[Chunk], /) -> None:
        """Let all of them flow."""
        self._sink = sink
        for reply, branch in zip(self._replies, self._branches, strict=True):
            if self._dead:
                return
            reply.connect(branch)

    def pause(self) -> None:
        """Pause all."""
        for reply in self._replies:
            reply.pause()

    def resume(self) -> None:
        """Resume all."""
        for reply in self._replies:
            reply.resume()

    def abort(self) -> None:
        """Close all."""
        self._dead = True
        self._sink = None
        for reply in self._replies:
            reply.abort()

    # -- from the branches

    def heard(self, branch: _Branch, chunk: Chunk) -> None:
        """Tell what one of them says."""
        events = tuple(self._retold(branch, chunk.events))
        if events and self._sink is not None:
            self._sink.push(Chunk(events))

    def ended(self, error: GatewayError | None) -> None:
        """End the whole, if this was the last of them, or a failure."""
        sink = self._sink
        if sink is None:
            return
        if error is not None:
            self.abort()
            sink.end(error)
        elif all(branch.over for branch in self._branches):
            self._dead = True
            usage = self._usage()
            report = () if usage is None else (UsageReport(usage),)
            sink.push(Chunk((*report, ResponseStop(), Terminator())))
            if (sink := self._sink) is not None:
                self._sink = None
                sink.end(None)

    def _usage(self) -> Usage | None:
        total: Usage | None = None
        for branch in self._branches:
            if branch.usage is not None:
                total = add_usage(total, branch.usage)
        return total

    def _retold(self, branch: _Branch, events: Iterable[Event]) -> Iterator[Event]:
        choice, told = branch.choice, branch.told
        if self._lead is None:
            self._lead = branch
        for event in events:
            if isinstance(event, (PartDelta, PartPatch, PartStop)):
                if (index := told.get(event.index)) is not None:
                    yield replace(event, index=index, choice=choice)
            elif isinstance(event, PartStart):
                told.pop(event.index, None)
                if not event.choice:  # nothing but that was asked for
                    told[event.index] = self._next
                    yield replace(event, index=self._next, choice=choice)
                    self._next += 1
            elif isinstance(event, (ChoiceStop, ChoicePatch)):
                if not event.choice:
                    yield replace(event, choice=choice)
            elif isinstance(event, (ResponseStart, ResponsePatch)):
                if branch is self._lead:
                    yield event
            elif isinstance(event, UsageReport):
                branch.usage = event.usage
                if (total := self._usage()) is not None:
                    yield UsageReport(total)
            elif not isinstance(event, (ResponseStop, Terminator)):
                yield event
