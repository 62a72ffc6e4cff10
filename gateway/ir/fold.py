"""The fold of an answer's events into one value: what a non-stream answer is, and what a caller of ``collect`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Raw, Struct
from msgspec.structs import replace

from .event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    PlainAnswer,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
)
from .message import NO_EXTRA, Citation, Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult

MAX_CHOICES: Final = 1024
"""Gaps are filled below this number of a choice. Formats allow 128; a provider's nonsense must not cost a billion choices."""


_NO_START: Final = ResponseStart()
_TEXT_START: Final = PartStart(0, Text(""))
_PLAIN: Final = frozenset({Text, Reasoning, Refusal, ToolCall})


class Choice(Struct, frozen=True, omit_defaults=True):
    """One answer of a response. ``reason`` is None when the stream ended without one.

    ``logprobs`` are the pieces as they came, in order; a codec joins them the way its format does.
    """

    parts: tuple[Part, ...] = ()
    reason: StopReason | None = None
    raw_reason: str = ""
    stop_sequence: str | None = None
    logprobs: tuple[Raw, ...] = ()
    stop_extra: Extra = NO_EXTRA
    extra: Extra = NO_EXTRA


class Response(Struct, frozen=True, omit_defaults=True):
    """A whole answer. ``choices`` are in the order of their numbers; one that said nothing is there, empty."""

    start: ResponseStart = ResponseStart()
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    extra: Extra = NO_EXTRA
    aliens: tuple[Alien, ...] = ()


class _Open:
    """A part while it grows: list appends instead of string copies, so that a megabyte of arguments stays linear."""

    __slots__ = ("part", "choice", "texts", "signature", "citations", "transcripts", "extra")

    def __init__(self, part: Part, choice: int) -> None:
        self.part = part
        self.choice = choice
        self.texts: list[str] = []
        self.signature: list[str] = []
        self.citations: list[Citation] = []
        self.transcripts: list[str] = []
        self.extra: dict[str, Raw] = {}

    def done(self) -> Part:
        part, text = self.part, "".join(self.texts)
        if isinstance(part, Text):
            part = replace(part, text=part.text + text, citations=part.citations + tuple(self.citations))
        elif isinstance(part, Reasoning):
            signature = (part.signature or "") + "".join(self.signature)
            part = replace(part, text=part.text + text, signature=signature or part.signature)
        elif isinstance(part, Refusal):
            part = replace(part, text=part.text + text)
        elif isinstance(part, ToolCall):
            part = replace(part, arguments=part.arguments + text)
        elif isinstance(part, Media):
            transcript = "".join(self.transcripts)
            data = (part.data or "") + text or part.data
            part = replace(part, data=data, text=(part.text or "") + transcript or part.text)
        elif isinstance(part, ToolResult) and text:
            part = replace(part, content=(*part.content, Text(text)))
        elif isinstance(part, Opaque) and (became := self.extra.get("data")) is not None:
            part = replace(part, data=bytes(became))
        if self.extra and not isinstance(part, Opaque):
            part = replace(part, extra={**part.extra, **self.extra})
        return part


class Fold:
    """Takes events one by one; ``done`` is the Response so far."""

    __slots__ = ("_start", "_parts", "_stops", "_logprobs", "_patches", "_usage", "_extra", "_aliens", "_seen")

    def __init__(self) -> None:
        self._start = ResponseStart()
        self._parts: dict[int, _Open] = {}
        self._stops: dict[int, ChoiceStop] = {}
        self._logprobs: dict[int, list[Raw]] = {}
        self._patches: dict[int, dict[str, Raw]] = {}
        self._usage: Usage | None = None
        self._extra: dict[str, Raw] = {}
        self._aliens: list[Alien] = []
        self._seen: set[int] = set()

    def add(self, event: Event) -> None:
        """Take one event; deltas of a part that never started are ignored."""
        kind = type(event)
        if kind is PartDelta:
            assert isinstance(event, PartDelta)
            if (part := self._parts.get(event.index)) is not None:
                part.texts.append(event.text)
            if event.logprobs is not None:
                self._seen.add(event.choice)
                self._logprobs.setdefault(event.choice, []).append(event.logprobs)
        elif isinstance(event, PartStart):
            self._parts[event.index] = _Open(event.part, event.choice)
            self._seen.add(event.choice)
        elif isinstance(event, PartPatch):
            if (part := self._parts.get(event.index)) is not None:
                if event.signature is not None:
                    part.signature.append(event.signature)
                if event.citation is not None:
                    part.citations.append(event.citation)
                if event.transcript is not None:
                    part.transcripts.append(event.transcript)
                part.extra.update(event.extra)
        elif isinstance(event, ChoiceStop):
            self._stops[event.choice] = event
            self._seen.add(event.choice)
        elif isinstance(event, ChoicePatch):
            self._seen.add(event.choice)
            self._patches.setdefault(event.choice, {}).update(event.extra)
        elif isinstance(event, UsageReport):
            self._usage = event.usage
        elif isinstance(event, ResponseStart):
            self._start = event
        elif isinstance(event, ResponsePatch):
            self._extra.update(event.extra)
        elif isinstance(event, Alien):
            self._aliens.append(event)

    def done(self) -> Response:
        """Return the Response of the events taken so far."""
        parts: dict[int, list[Part]] = {}
        for index in sorted(self._parts):
            part = self._parts[index]
            parts.setdefault(part.choice, []).append(part.done())
        return Response(
            self._start,
            tuple(self._choice(number, parts.get(number, [])) for number in self._numbers()),
            self._usage,
            self._extra or NO_EXTRA,
            tuple(self._aliens),
        )

    def _numbers(self) -> Iterable[int]:
        seen = sorted(self._seen)
        return range(seen[-1] + 1) if seen and seen[-1] < MAX_CHOICES else seen

    def _choice(self, number: int, parts: list[Part]) -> Choice:
        stop = self._stops.get(number)
        return Choice(
            tuple(parts),
            stop.reason if stop else None,
            stop.raw_reason if stop else "",
            stop.stop_sequence if stop else None,
            tuple(self._logprobs.get(number, ())),
            stop.extra if stop else NO_EXTRA,
            self._patches.get(number, NO_EXTRA),
        )


def fold(events: Iterable[Event]) -> Response:
    """Return the whole answer that ``events`` tell, up to where they end."""
    if isinstance(events, (tuple, list)) and (plain := _fold_plain(events)) is not None:
        return plain
    whole = Fold()
    for event in events:
        whole.add(event)
    return whole.done()


def plain_answer(events: Sequence[Event]) -> PlainAnswer | None:
    """Return the answer if it is one text; what an encoder asks before it takes the long way through ``fold``."""
    if not 6 <= len(events) <= 8:
        return None
    start, opened, delta, closed, stop, last = events[:6]
    if (
        type(start) is not ResponseStart
        or type(opened) is not PartStart
        or type(delta) is not PartDelta
        or type(closed) is not PartStop
        or type(stop) is not ChoiceStop
        or opened != _TEXT_START
        or delta.index
        or delta.logprobs is not None
        or closed.index
        or stop.choice
        or stop.extra
    ):
        return None
    usage, rest = (last.usage, events[6:]) if type(last) is UsageReport else (None, events[5:])
    for event in rest:
        if type(event) is not ResponseStop and type(event) is not Terminator:
            return None
    return PlainAnswer(start, delta.text, stop, usage)


def _fold_plain(events: tuple[Event, ...] | list[Event]) -> Response | None:
    """The same for the commonest answer, in a third of the time: one choice, its parts of words or calls one by one.

    None for any other, and for all that is odd: the long way is right about everything.
    """
    start, usage, stop = _NO_START, None, None
    parts: list[Part] = []
    part: Part | None = None
    words = ""
    index = -1
    for event in events:
        kind = type(event)
        if kind is PartDelta:
            assert isinstance(event, PartDelta)
            if part is None or words or event.index != index or event.logprobs is not None:
                return None
            words = event.text
        elif kind is PartStart:
            assert isinstance(event, PartStart)
            if part is not None or event.index <= index or event.choice or type(event.part) not in _PLAIN:
                return None
            part, words, index = event.part, "", event.index
        elif kind is PartStop:
            if part is None:
                return None
            parts.append(_with_words(part, words) if words else part)
            part = None
        elif kind is ChoiceStop:
            assert isinstance(event, ChoiceStop)
            if event.choice:
                return None
            stop = event
        elif kind is UsageReport:
            assert isinstance(event, UsageReport)
            usage = event.usage
        elif kind is ResponseStart:
            assert isinstance(event, ResponseStart)
            start = event
        elif kind is not ResponseStop and kind is not Terminator:
            return None
    if stop is None or part is not None:
        return None
    choice = Choice(tuple(parts), stop.reason, stop.raw_reason, stop.stop_sequence, (), stop.extra)
    return Response(start, (choice,), usage)


def _with_words(part: Part, words: str) -> Part:
    if type(part) is Text:
        return Text(part.text + words, part.citations, part.cache, part.extra)
    if isinstance(part, ToolCall):
        return replace(part, arguments=part.arguments + words)
    assert isinstance(part, (Reasoning, Refusal))
    return replace(part, text=part.text + words)


def unfold_parts(parts: Iterable[Part], choice: int, first: int) -> Iterable[Event]:
    """Yield the events that say ``parts`` at once, numbered from ``first``: how a whole answer becomes a stream."""
    for index, part in enumerate(parts, first):
        text = ""
        if isinstance(part, (Text, Reasoning, Refusal)) and part.text:
            text, part = part.text, replace(part, text="")
        elif isinstance(part, ToolCall) and part.arguments:
            text, part = part.arguments, replace(part, arguments="")
        yield PartStart(index, part, choice)
        if text:
            yield PartDelta(index, text, choice)
        yield PartStop(index, choice)
