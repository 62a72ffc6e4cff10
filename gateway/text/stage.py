"""The relay stage that reads the texts of an answer: one grammar for each text part, and one numbering for all parts.

A chunk in which nothing changed goes on as it came, with its bytes. Law 1 holds by construction: what a chunk is cut from
never reaches a grammar, only the text does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import Raw
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
    ResponseStop,
    Terminator,
)
from ..ir.loss import Loss
from ..ir.message import Text
from ..relay.stage import Stop
from .markers import Markers
from .reader import Reader, Steps
from .voice import Numbers, Voice

Grammar: TypeAlias = Callable[[Reader, Voice, bool], Steps[None]]
"""Reads a text; the bool says that it is the first of its choice."""

MAX_LOGPROBS: Final = 4096
"""Pieces of log probabilities that may wait for a part to stand in. More of them are lost, and the ledger says so."""


class _Text:
    """A text part of the provider, while it is read."""

    __slots__ = ("_reader", "_steps", "done", "voice")

    def __init__(self, voice: Voice, grammar: Grammar | None, first: bool) -> None:
        self.voice = voice
        self.done = False
        self._reader = Reader()
        self._steps = self._reader.rest(voice.text) if grammar is None else grammar(self._reader, voice, first)

    def feed(self, words: str) -> list[Event]:
        """Return what more words come to say."""
        if words and not self.done:
            self._reader.feed(words)
            next(self._steps, None)
        return self._said()

    def end(self) -> list[Event]:
        """Return what is left to say."""
        if not self.done:
            self.done = True
            self._reader.ended = True
            for _ in self._steps:
                pass
            self.voice.finish()
        return self._said()

    def _said(self) -> list[Event]:
        said, self.voice.out = self.voice.out, []
        return said


class TextStage:
    """Reads one answer. ``choices`` is how many the request asked for: only when all have stopped the provider may."""

    __slots__ = (
        "_choices",
        "_grammar",
        "_closed",
        "_logprobs",
        "_note",
        "_numbers",
        "_others",
        "_over",
        "_spoken",
        "_stopped",
        "_stops",
        "_texts",
        "_theirs",
        "_called",
    )

    def __init__(
        self, grammar: Grammar | None, stops: tuple[str, ...], choices: int, note: Callable[[Loss], None]
    ) -> None:
        self._grammar = grammar
        self._stops = Markers(*stops) if stops else None
        self._choices = choices
        self._note = note
        self._numbers = Numbers()
        self._texts: dict[int, _Text] = {}
        self._others: dict[int, tuple[int, int]] = {}
        self._closed: dict[int, int] = {}
        self._logprobs: dict[int, list[Raw]] = {}
        self._spoken: set[int] = set()
        self._called: set[int] = set()
        self._stopped: set[int] = set()
        self._theirs: set[int] = set()
        self._over = False

    def feed(self, chunk: Chunk, /) -> Chunk | Stop | None:
        """Return what the chunk comes to say; Stop when every choice met a stop string before its end."""
        events = chunk.events
        out: list[Event] = []
        for event in events:
            self._event(event, out)
        open_ended = self._stopped - self._theirs
        if open_ended and not self._over and len(self._stopped | self._theirs) >= self._choices:
            self._over = True
            out += (ResponseStop(), Terminator())
            return Stop(Chunk(tuple(out), None, chunk.wire))
        changed = tuple(out)
        if changed == events:
            return chunk
        return Chunk(changed, None, chunk.wire) if changed else None

    def close(self, error: GatewayError | None, /) -> Chunk | None:
        """Return what was held back, unless nobody wants it any more."""
        if error is not None and error.kind == "cancelled":
            return None
        out: list[Event] = []
        self._end_texts(None, out)
        return Chunk(tuple(out)) if out else None

    def _event(self, event: Event, out: list[Event]) -> None:
        if type(event) is PartDelta:
            assert isinstance(event, PartDelta)
            if event.choice not in self._stopped:
                self._delta(event, out)
        elif isinstance(event, (PartStart, PartPatch, PartStop, ChoicePatch)):
            if event.choice in self._stopped:
                return
            if isinstance(event, PartStart):
                self._start(event, out)
            elif isinstance(event, PartPatch):
                self._patch(event, out)
            elif isinstance(event, PartStop):
                self._stop(event, out)
            else:
                out.append(event)
        elif isinstance(event, ChoiceStop):
            self._choice_stop(event, out)
        else:
            if isinstance(event, (ResponseStop, Terminator)):
                self._end_texts(None, out)
                self._over = True
            out.append(event)

    def _start(self, event: PartStart, out: list[Event]) -> None:
        part, choice = event.part, event.choice
        if not isinstance(part, Text):
            number = self._numbers.take()
            self._others[event.index] = number, choice
            out.append(event if number == event.index else replace(event, index=number))
            return
        voice = Voice(part, choice, self._numbers, self._stops, self._note)
        first = choice not in self._spoken
        self._spoken.add(choice)
        text = self._texts[event.index] = _Text(voice, self._grammar, first)
        if self._grammar is None:
            voice.open_text()  # nothing that is told can be anything else
        self._say(text, text.feed(part.text), out)

    def _delta(self, event: PartDelta, out: list[Event]) -> None:
        text = self._texts.get(event.index)
        if text is None:
            number, _ = self._others.get(event.index, (event.index, 0))
            out.append(event if number == event.index else replace(event, index=number))
            return
        said = text.feed(event.text)
        if event.logprobs is not None:
            if len(said) == 1 and isinstance(only := said[0], PartDelta) and only.text == event.text:
                said = [replace(only, logprobs=event.logprobs)]
            else:
                waiting = self._logprobs.setdefault(event.choice, [])
                waiting.append(event.logprobs)
                if len(waiting) > MAX_LOGPROBS:
                    self._lose_logprobs(event.choice)
        elif not event.text and not said and text.voice.is_open:
            said = [PartDelta(text.voice.index, "", event.choice)]
        self._say(text, said, out)

    def _patch(self, event: PartPatch, out: list[Event]) -> None:
        text = self._texts.get(event.index)
        if text is not None:
            if text.voice.text_index < 0:
                text.voice.open_text()
                self._say(text, text.feed(""), out)
            number = text.voice.text_index
        elif event.index in self._others:
            number, _ = self._others[event.index]
        else:
            number = self._closed.get(event.index, -1)
        if number >= 0:
            out.append(event if number == event.index else replace(event, index=number))
        else:
            path = f"choices[{event.choice}].parts[{event.index}]"
            self._note(Loss("lost", path, "citation", "no text was left to stand on"))

    def _stop(self, event: PartStop, out: list[Event]) -> None:
        text = self._texts.pop(event.index, None)
        if text is not None:
            self._say(text, text.end(), out)
            self._closed[event.index] = text.voice.text_index
        elif (other := self._others.pop(event.index, None)) is not None:
            number, _ = other
            self._closed[event.index] = number
            out.append(event if number == event.index else replace(event, index=number))

    def _say(self, text: _Text, said: list[Event], out: list[Event]) -> None:
        """Tell what a text says; if it met a stop string, that was the end of its choice."""
        voice = text.voice
        out += said
        if voice.called:
            self._called.add(voice.choice)
        waiting = self._logprobs.get(voice.choice)
        if waiting and voice.is_open:
            out += (PartDelta(voice.index, "", voice.choice, each) for each in waiting)
            waiting.clear()
        if voice.stopped is not None and voice.choice not in self._stopped:
            text.done = True
            self._stopped.add(voice.choice)
            self._logprobs.pop(voice.choice, None)  # those of words that are not told
            out.append(PartStop(voice.index, voice.choice))
            self._end_texts(voice.choice, out)
            out += (PartStop(number, choice) for number, choice in self._others.values() if choice == voice.choice)
            out.append(ChoiceStop("stop_sequence", "", voice.choice, voice.stopped))

    def _choice_stop(self, event: ChoiceStop, out: list[Event]) -> None:
        self._theirs.add(event.choice)
        self._end_texts(event.choice, out)
        self._lose_logprobs(event.choice)
        if event.choice in self._stopped:
            return
        if event.choice in self._called and event.reason == "stop":
            event = replace(event, reason="tool_calls", raw_reason="")
        out.append(event)

    def _lose_logprobs(self, choice: int) -> None:
        if self._logprobs.pop(choice, None):
            path = f"choices[{choice}].logprobs"
            self._note(Loss("lost", path, "logprobs", "they are those of marks, and no part was open to carry them"))

    def _end_texts(self, choice: int | None, out: list[Event]) -> None:
        for index, text in list(self._texts.items()):
            if choice is None or text.voice.choice == choice:
                self._stop(PartStop(index, text.voice.choice), out)
