"""How several rounds become one response: what a splice has told its reader, and how the next round goes on from there.

Sans-IO. Later rounds are numbered on, their starts are hidden and their usage is added to what was spent before. A text that
the last round left off in goes on in the same part; reasoning and tool calls do not, since a signature or a call belongs to
one round alone. Only choice 0 goes on: what a later round says of other choices is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from ..ir.event import (
    ChoicePatch,
    ChoiceStop,
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
from ..ir.message import Refusal, Text

_MORE: Final = (PartDelta, PartPatch)
_NUMBERED: Final = (PartDelta, PartPatch, PartStop)
_HIDDEN: Final = (ResponseStart, ResponsePatch)
_OF_A_CHOICE: Final = (PartStart, ChoiceStop, ChoicePatch)
_LAST: Final = (ResponseStop, Terminator)
_JOINED: Final = (Text, Refusal)
"""Kinds of parts that a later round may go on with, so that the reader sees one part."""


class Rounds:
    """Follows the events of one round after another.

    ``number`` of the current round; ``reason`` why choice 0 stopped in it; ``usage`` so far, all rounds. ``closing``: the end
    of the round has begun. ``pausing``: the last that was heard of choice 0 is the stop of a part that could go on.
    """

    __slots__ = (
        "number",
        "reason",
        "usage",
        "closing",
        "pausing",
        "_spent",
        "_reported",
        "_next",
        "_told",
        "_open",
        "_last",
        "_owed",
        "_closers",
    )

    def __init__(self) -> None:
        self.number = 0
        self.reason: StopReason | None = None
        self.usage: Usage | None = None
        self.closing = False
        self.pausing = False
        self._spent: Usage | None = None
        self._reported = False
        self._next = 0
        self._told: dict[int, int] = {}
        self._open: dict[int, PartStart] = {}
        self._last: PartStart | None = None
        self._owed: PartStart | None = None
        self._closers: list[Event] = []

    def watch(self, events: Iterable[Event]) -> bool:
        """Follow events as the reader will see them. Return whether choice 0 said something."""
        spoke = False
        for event in events:
            if isinstance(event, _MORE):
                if not event.choice:
                    spoke, self.pausing = True, False
            elif isinstance(event, PartStart):
                self._open[event.index] = event
                self._next = max(self._next, event.index + 1)
                if not event.choice:
                    spoke, self.pausing, self._last = True, False, event
            elif isinstance(event, PartStop):
                if (started := self._open.pop(event.index, None)) is not None and started is self._last:
                    self.pausing = isinstance(started.part, _JOINED)
            elif isinstance(event, ChoiceStop):
                if not event.choice:
                    self.reason = event.reason
                    self.closing = True
            elif isinstance(event, UsageReport):
                self.usage = event.usage
                self._reported = True
            elif isinstance(event, _LAST):
                self.closing = True
        return spoke

    def seam(self, held: Iterable[Event]) -> list[Event]:
        """Begin the next round. Return what of the ``held`` events the reader must see before it."""
        events: list[Event] = []
        closers: list[Event] = []
        for event in held:
            if isinstance(event, _LAST) or (isinstance(event, ChoiceStop) and not event.choice):
                closers.append(event)
            elif not isinstance(event, UsageReport):
                events.append(event)
        # The last part stays open if the next round may go on in it; its stop is owed until then.
        self._owed = None
        last = self._last
        if last is not None and isinstance(last.part, _JOINED):
            stop = PartStop(last.index, last.choice)
            if stop in events:
                events.remove(stop)
                self._owed = last
            elif last.index in self._open:
                self._owed = last
        events += [PartStop(index, part.choice) for index, part in sorted(self._open.items()) if part is not self._owed]
        self._open = {} if self._owed is None else {self._owed.index: self._owed}
        self._closers = closers or self._closers
        self._told = {}
        self._spent = self.usage
        self._reported = False
        self.reason = None
        self.closing = self.pausing = False
        self.number += 1
        return events

    def retell(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events of a later round as the reader shall see them."""
        told = self._told
        for event in events:
            if isinstance(event, _NUMBERED):
                if (index := told.get(event.index)) is not None:
                    yield event if index == event.index else replace(event, index=index)
            elif isinstance(event, _HIDDEN):
                continue
            elif isinstance(event, UsageReport):
                yield UsageReport(add_usage(self._spent, event.usage))
            elif isinstance(event, _OF_A_CHOICE) and event.choice:
                continue
            elif isinstance(event, PartStart):
                owed = self._owed
                if owed is not None and type(event.part) is type(owed.part):
                    self._owed = None
                    told[event.index] = owed.index
                    yield from _words(event, owed.index)
                    continue
                yield from self._settle()
                told[event.index] = self._next
                yield replace(event, index=self._next)
                self._next += 1
            elif isinstance(event, ChoiceStop):
                yield from self._settle()
                yield event
            else:
                yield event

    def ending(self, held: Iterable[Event], *, clean: bool) -> list[Event]:
        """Return the last events of the last round, ``held`` among them, with what is still owed to the reader."""
        events = list(held)
        if clean:
            events[:0] = self._settle()
            if self.reason is None and not self.closing:
                events += self._closers  # the last round said nothing of its end: the one before stands
        if not self._reported and self.usage is not None:
            ends = (place for place, event in enumerate(events) if isinstance(event, _LAST))
            events.insert(next(ends, len(events)), UsageReport(self.usage))
        return events

    def _settle(self) -> Iterator[Event]:
        owed, self._owed = self._owed, None
        if owed is not None:
            yield PartStop(owed.index, owed.choice)


def _words(start: PartStart, index: int) -> Iterator[Event]:
    """Yield what the start of a part says already, as steps of the part ``index`` that it goes on in."""
    part = start.part
    assert isinstance(part, _JOINED)
    if part.text:
        yield PartDelta(index, part.text, start.choice)
    if isinstance(part, Text):
        for citation in part.citations:
            yield PartPatch(index, start.choice, citation=citation)
    if part.extra:
        yield PartPatch(index, start.choice, extra=part.extra)


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
