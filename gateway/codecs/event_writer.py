"""Chunks into the bytes of one client's stream, for formats in which words flow and little else does.

A chunk of this very wire goes out as it came, and is only watched: what was opened and what has ended, so that the end,
an error, or chunks that someone changed are written rightly after it. Once something was written anew, everything is.
What an event looks like is the format's own; in which order they are asked for, and what becomes of losses, stands here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from ..errors import GatewayError
from ..ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    Terminator,
    Usage,
    UsageReport,
    Wire,
)
from ..ir.loss import Loss
from .base import AnswerContext
from .ledger import MAX_LOSSES


class EventWriter(ABC):
    """One client's stream; see StreamEncoder. ``_own``: the provider that speaks just now speaks this format."""

    ping: bytes
    watches_words: ClassVar[bool] = False
    """Whether ``_watch`` is told of words, too."""

    def __init__(self, context: AnswerContext, wire: Wire) -> None:
        self.losses: list[Loss] = []
        self._context = context
        self._wire = wire
        self._own = False
        self._started = False
        self._rewriting = False
        self._passed = False
        self._done = False
        self._usage: Usage | None = None

    def encode(self, chunk: Chunk) -> bytes:
        """Return the bytes for ``chunk``: its own ``raw`` while nothing was rewritten yet, else its events, anew."""
        if not self._rewriting and chunk.raw is not None and chunk.wire == self._wire:
            self._passed = True
            for event in chunk.events:
                if type(event) is not PartDelta or self.watches_words:
                    self._watch(event)
            return chunk.raw
        self._rewriting = True
        events = chunk.events
        if len(events) == 1 and type(event := events[0]) is PartDelta:
            return self._delta(event)
        out: list[bytes] = []
        for event in events:
            if type(event) is PartDelta:
                out.append(self._delta(event))
            else:
                self._event(event, out)
        return b"".join(out)

    def close(self, error: GatewayError | None) -> bytes:
        """Return what is still owed: the end, or the error and no clean end."""
        if self._done:
            return b""
        self._done = True
        if error is not None:
            return b"" if error.kind == "cancelled" else self._error(error)
        out: list[bytes] = []
        self._end(out)
        return b"".join(out)

    def _event(self, event: Event, out: list[bytes]) -> None:
        """Write any event but a delta."""
        if isinstance(event, PartStart):
            self._part_start(event, out)
        elif isinstance(event, PartPatch):
            self._part_patch(event, out)
        elif isinstance(event, PartStop):
            self._part_stop(event, out)
        elif isinstance(event, ChoiceStop):
            self._stop(event, out)
        elif isinstance(event, ResponseStart):
            self._start(event)
        elif isinstance(event, UsageReport):
            self._report(event)
        elif isinstance(event, ResponsePatch):
            self._response_patch(event)
        elif isinstance(event, ChoicePatch):
            self._choice_patch(event, out)
        elif isinstance(event, Terminator):
            if not self._done:
                self._done = True
                self._end(out)
        elif isinstance(event, Keepalive):
            out.append(self.ping)
        elif isinstance(event, Alien):
            if event.format == self._wire.format:
                out.append(self._alien(event))
            else:
                self._lose([Loss("lost", "stream", event.kind, f"an event of {event.format}")])

    def _lose(self, losses: Iterable[Loss]) -> None:
        """Note losses: each once, no more than MAX_LOSSES. A stream loses the same thing many times."""
        for loss in losses:
            if len(self.losses) < MAX_LOSSES and loss not in self.losses:
                self.losses.append(loss)

    def _report(self, event: UsageReport) -> None:
        """Keep usage for the end."""
        self._usage = event.usage

    @abstractmethod
    def _watch(self, event: Event) -> None:
        """Keep track of what goes out as it came."""

    @abstractmethod
    def _start(self, event: ResponseStart) -> None:
        """Begin; when another provider goes on with the answer, its extras count from here, its id and model do not."""

    @abstractmethod
    def _response_patch(self, event: ResponsePatch) -> None:
        """Take members of the envelope that came late."""

    @abstractmethod
    def _choice_patch(self, event: ChoicePatch, out: list[bytes]) -> None:
        """Write members of a choice."""

    @abstractmethod
    def _part_start(self, event: PartStart, out: list[bytes]) -> None:
        """Open a part, or note that it has no place."""

    @abstractmethod
    def _delta(self, event: PartDelta) -> bytes:
        """Return the bytes of more words; none for a part that is not written."""

    @abstractmethod
    def _part_patch(self, event: PartPatch, out: list[bytes]) -> None:
        """Write what else is told of a part."""

    @abstractmethod
    def _part_stop(self, event: PartStop, out: list[bytes]) -> None:
        """Close a part."""

    @abstractmethod
    def _stop(self, event: ChoiceStop, out: list[bytes]) -> None:
        """Write why a choice ended, or keep it for the end."""

    @abstractmethod
    def _alien(self, event: Alien) -> bytes:
        """Return the bytes of an event of this format for which nobody has a word."""

    @abstractmethod
    def _error(self, error: GatewayError) -> bytes:
        """Return the bytes that tell an error in the place of the end."""

    @abstractmethod
    def _end(self, out: list[bytes]) -> None:
        """Write what is owed when all is said, and the format's end mark."""
