"""Frames of an answer into events: a whole answer is a stream of one frame.

Source: ``GenerateContentResponse``: each frame holds parts that are whole, fragments of text among them; a candidate has ended
when it has a ``finishReason``. Neighbouring texts that say nothing besides are one part, in whichever frames they came; a part
with a signature is one of its own, since it must be sent back as it is.

Usage is told anew in each frame. That of a frame that only goes on with words is kept unread, beside the events, until one
that says more, or the end: nobody needs both.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from msgspec import UNSET, Raw
from msgspec.structs import replace

from ...errors import DecodeError, Malformed
from ...ir.event import (
    ChoicePatch,
    ChoiceStop,
    Event,
    PartDelta,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    Terminator,
    UsageReport,
)
from ...ir.fold import unfold_parts
from ...ir.message import NO_EXTRA, Part, Reasoning, Text, ToolCall
from ...wire.members import BAD_JSON, NULL
from ...wire.surrogates import mend_halves, mend_raw
from .errors import in_band_error
from .logprobs import read_logprobs
from .members import FORMAT, Fields
from .more import MORE
from .parts import read_part
from .usage import finish_reason, read_usage

_TEXT: Final = Text("")
_THOUGHT: Final = Reasoning(origin=FORMAT)
_more: Final = MORE.decode


class _Candidate:
    """One candidate while it is read. ``open`` is the part that grows, and its index."""

    __slots__ = ("calls", "finished", "index", "open")

    def __init__(self) -> None:
        self.open: Text | Reasoning | None = None
        self.index = -1
        self.calls = False
        self.finished = False


class AnswerReader:
    """Reads the frames of one answer. What it raises is DecodeError for a frame that makes no sense, UpstreamError for an
    error in the place of one."""

    __slots__ = ("_candidates", "_next", "_started", "_told", "unread")

    def __init__(self) -> None:
        self._candidates: dict[int, _Candidate] = {}
        self._next = 0
        self._started = False
        self._told: dict[str, Raw] = {}
        self.unread: Raw | None = None
        """The usage that the last frame of words told, which is owed."""

    @property
    def is_complete(self) -> bool:
        """Whether there is an answer, and all of it was told: there is no end mark."""
        return bool(self._candidates) and all(it.finished for it in self._candidates.values())

    @property
    def has_answer(self) -> bool:
        """Whether there is an answer at all, or the word why there is none."""
        return bool(self._candidates)

    def words(self, data: bytes) -> PartDelta | None:
        """Return what a frame says if it is more of an open text or thought and nothing else; else change nothing."""
        try:
            frame = _more(data)
        except BAD_JSON:
            return None
        it = frame.candidates[0]
        part, candidate = it.content.parts[0], self._candidates.get(it.index)
        text, thought = part.text, part.thought
        if (
            candidate is None
            or candidate.open is not (_TEXT if thought is UNSET else _THOUGHT if thought else None)
            or candidate.open is None
            or not text
        ):
            return None
        usage = frame.usage_metadata
        if usage is not NULL and usage != NULL:
            self.unread = usage
        return PartDelta(candidate.index, text, it.index)

    def read(self, data: bytes) -> list[Event]:
        """Return the events of one frame."""
        it = Fields(mend_halves(data), "")
        if it.raw("error") is not None and it.raw("candidates") is None:
            raise in_band_error(data, data) or Malformed("the provider sent an error that is no error object")
        events: list[Event] = []
        candidates, usage, feedback = it.array("candidates"), it.take("usageMetadata"), it.raw("promptFeedback")
        blocked = None
        if feedback is not None and not candidates:
            blocked = Fields(feedback, "promptFeedback").string("blockReason")
            if blocked is not None:
                it.take("promptFeedback")
        self._envelope(it, events)
        for i, raw in enumerate(candidates or ()):
            self._candidate(Fields(raw, f"candidates[{i}]"), events)
        if blocked is not None and feedback is not None:
            self._candidates.setdefault(0, _Candidate()).finished = True
            # The prompt was refused: there is no candidate, and this is why.
            events.append(ChoiceStop("content_filter", blocked, extra={"promptFeedback": feedback}))
        if usage is not None:
            if events and all(type(event) is PartDelta for event in events):
                # The next frame tells it anew, and nobody needs both.
                self.unread = usage
            elif (report := read_usage(usage)) is not None:
                self.unread = None
                events.append(UsageReport(report))
        return events

    def owed(self) -> list[Event]:
        """Return the report of the last usage that was kept, if there is one that has not been given out."""
        usage, self.unread = self.unread, None
        report = None if usage is None else read_usage(mend_raw(usage))
        return [] if report is None else [UsageReport(report)]

    def end(self, *, mark: bool) -> list[Event]:
        """Return what is owed when no frame will follow; ``mark`` is whether this format's streams have an end of their own."""
        events: list[Event] = []
        for choice, candidate in self._candidates.items():
            self._close(candidate, choice, events)
        events += self.owed()
        events.append(ResponseStop())
        if mark:
            events.append(Terminator())
        return events

    def _envelope(self, it: Fields, events: list[Event]) -> None:
        id, model = it.string("responseId"), it.string("modelVersion")
        if not self._started:
            self._started = True
            created = _unix_time(it)
            self._told = {name: raw for name, raw in it.rest.items() if raw != NULL}
            events.append(ResponseStart(id or "", model or "", created, extra=self._told or NO_EXTRA, format=FORMAT))
            return
        it.take("createTime")
        news = {name: raw for name, raw in it.rest.items() if raw not in (NULL, self._told.get(name))}
        if news:
            self._told = {**self._told, **news}
            events.append(ResponsePatch(news))

    def _candidate(self, it: Fields, events: list[Event]) -> None:
        choice = it.integer("index") or 0
        if choice < 0:
            raise DecodeError(it.at("index"), "expected the number of a candidate")
        candidate = self._candidates.get(choice)
        if candidate is None:
            candidate = self._candidates[choice] = _Candidate()
        word, message, logprobs = it.string("finishReason"), it.take("finishMessage"), it.take("logprobsResult")
        first = len(events)
        if (content := it.object("content")) is not None:
            for j, raw in enumerate(content.array("parts") or ()):
                self._part(read_part(raw, f"{content.at('parts')}[{j}]", answered=True), candidate, choice, events)
            content.take("role")
            it.adopt("content", content)
        if logprobs is not None and not self._add_logprobs(logprobs, candidate, choice, first, events):
            it.rest["logprobsResult"] = logprobs
        patch = {name: raw for name, raw in it.rest.items() if raw != NULL}
        if patch:
            events.append(ChoicePatch(choice, patch))
        if word is not None:
            self._close(candidate, choice, events)
            candidate.finished = True
            extra = NO_EXTRA if message is None else {"finishMessage": message}
            events.append(ChoiceStop(finish_reason(word, calls=candidate.calls), word, choice, extra=extra))

    def _part(self, part: Part, candidate: _Candidate, choice: int, events: list[Event]) -> None:
        if isinstance(part, (Text, Reasoning)) and not part.extra and not getattr(part, "signature", None):
            if not part.text:
                return
            plain: Text | Reasoning = _TEXT if isinstance(part, Text) else _THOUGHT
            if candidate.open is not plain:
                self._close(candidate, choice, events)
                candidate.open, candidate.index = plain, self._next
                self._next += 1
                events.append(PartStart(candidate.index, plain, choice))
            events.append(PartDelta(candidate.index, part.text, choice))
            return
        self._close(candidate, choice, events)
        candidate.calls = candidate.calls or isinstance(part, ToolCall)
        events += unfold_parts((part,), choice, self._next)
        self._next += 1

    def _close(self, candidate: _Candidate, choice: int, events: list[Event]) -> None:
        if candidate.open is not None:
            events.append(PartStop(candidate.index, choice))
            candidate.open = None

    def _add_logprobs(self, raw: Raw, candidate: _Candidate, choice: int, first: int, events: list[Event]) -> bool:
        """Put log probabilities beside the last words of the frame, or the part that is open; False: nowhere."""
        shaped = read_logprobs(raw)
        if shaped is None:
            return False
        for place in range(len(events) - 1, first - 1, -1):
            event = events[place]
            if isinstance(event, PartDelta):
                events[place] = replace(event, logprobs=shaped)
                return True
        if candidate.open is None:
            return False
        events.append(PartDelta(candidate.index, "", choice, shaped))
        return True


def _unix_time(it: Fields) -> int | None:
    """Take ``createTime`` in Unix seconds; what is finer stays behind, as it came."""
    raw = it.raw("createTime")
    text = it.string("createTime")
    if text is None or raw is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError):
        it.rest["createTime"] = raw
        return None
    if write_time(seconds) != text:
        it.rest["createTime"] = raw
    return seconds


def write_time(seconds: int) -> str | None:
    """Return Unix ``seconds`` as a ``createTime``; None for a date that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None
