"""A provider's answer as events: frames of a stream and whole bodies go through the same reader, having the same shape.

Source: ``Completion`` of OpenAI's SDK 3.52. Vendors add members to a choice (vLLM: ``stop_reason``, ``prompt_logprobs``);
they are kept with its stop.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ...errors import DecodeError, Malformed, upstream_error
from ...ir.event import (
    Alien,
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
from ...ir.message import NO_EXTRA, Text
from ...wire.members import BAD_JSON, NULL, Members, encode_json
from ...wire.surrogates import mend_halves
from .errors import error_in
from .logprobs import OFFSETS, read_logprobs
from .usage import read_usage
from .words import FORMAT, STOP_REASONS

_NOTHING: Final = Raw(b"")


class _WordsChoice(Struct, forbid_unknown_fields=True, gc=False):
    index: int = 0
    text: str = ""
    logprobs: None = None
    finish_reason: None = None
    stop_reason: UnsetType | None = UNSET


class _Words(Struct, forbid_unknown_fields=True, gc=False):
    """Words of one choice and nothing besides: what most frames of most streams are. The order of members is vLLM's."""

    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    choices: tuple[_WordsChoice] = (_WordsChoice(),)
    usage: None = None
    system_fingerprint: Raw = _NOTHING


_WORDS: Final = msgspec.json.Decoder(_Words)


class _Growing:
    """A choice while it grows. ``index`` is the number of its text, -1 before the first word."""

    __slots__ = ("extra", "index", "number", "offsets", "open", "stopped")

    def __init__(self, number: int) -> None:
        self.number = number
        self.index = -1
        self.open = False
        self.stopped = False
        self.extra: dict[str, Raw] = {}
        self.offsets: list[Raw] = []


class AnswerReader:
    """Reads the frames of one answer. ``usage_only`` says of the last frame that it carried nothing but usage."""

    __slots__ = ("_choices", "_envelope", "_next", "started", "usage_only")

    def __init__(self) -> None:
        self.started = False
        self.usage_only = False
        self._envelope: dict[str, Raw] = {}
        self._choices: dict[int, _Growing] = {}
        self._next = 0

    @property
    def finished(self) -> bool:
        """Whether every choice seen, and there was one, has its finish reason."""
        return bool(self._choices) and all(choice.stopped for choice in self._choices.values())

    def frame(self, data: bytes, name: bytes, out: list[Event]) -> None:
        """Append the events of one frame's payload. Raises UpstreamError: malformed, or the error the frame tells."""
        self.usage_only = False
        if not name and (words := self.words(data)) is not None:
            out.append(words)
            return
        data = mend_halves(data)
        try:
            it = Members(data, "")
        except DecodeError as error:
            if isinstance(error.__cause__, msgspec.ValidationError):
                out.append(Alien(FORMAT, name.decode("utf-8", "replace"), data))
                return
            raise Malformed("a frame of the stream is not valid JSON", format=FORMAT) from error
        told = it.raw("error") is not None or name == b"error" or it.raw("object") == Raw(b'"error"')
        if told and (failure := error_in(data)) is not None:
            raise failure
        if it.raw("choices") is None and "usage" not in it.rest:
            kind = name.decode("utf-8", "replace") or next(iter(it.rest), "")
            out.append(Alien(FORMAT, kind, data))
            return
        self._read(it, data, out)

    def words(self, data: bytes) -> PartDelta | None:
        """Return what the payload says if it is more of a choice's open text and nothing else; else change nothing."""
        try:
            frame = _WORDS.decode(data)
        except BAD_JSON:
            return None
        it = frame.choices[0]
        choice, fingerprint = self._choices.get(it.index), frame.system_fingerprint
        if (
            choice is None
            or not choice.open
            or not it.text
            or (it.stop_reason is None and choice.extra.get("stop_reason") != NULL)
            or (fingerprint is not _NOTHING and fingerprint != self._envelope.get("system_fingerprint"))
            or frame.object == "error"
        ):
            return None
        return PartDelta(choice.index, it.text, it.index)

    def whole(self, body: bytes) -> tuple[Event, ...]:
        """Return the events of a whole answer. Raises UpstreamError: malformed, or the error that it tells."""
        out: list[Event] = []
        body = mend_halves(body)
        try:
            it = Members(body, "")
        except DecodeError as error:
            raise Malformed("the provider's answer is not a JSON object", format=FORMAT) from error
        if it.raw("choices") is None:
            raise error_in(body) or Malformed("the provider's answer has no choices", format=FORMAT)
        self._read(it, body, out)
        self.end(out)
        return tuple(out)

    def end(self, out: list[Event], *, terminator: bool = True) -> None:
        """The provider said that this was all, or ended so that it is."""
        for choice in self._choices.values():
            self._close(choice, out)
        out.append(ResponseStop())
        if terminator:
            out.append(Terminator())

    def _read(self, it: Members, data: bytes, out: list[Event]) -> None:
        try:
            late = self._members(it, out)
        except (DecodeError, *BAD_JSON) as error:
            raise Malformed(f"the provider's answer: {error}", format=FORMAT) from error
        if late:
            # Words after their end have no place among the events, yet they are not ours to swallow.
            out.append(Alien(FORMAT, "late", data))

    def _members(self, it: Members, out: list[Event]) -> bool:
        id, model, created = it.string("id") or "", it.string("model") or "", it.number("created")
        usage, choices = it.take("usage"), it.array("choices") or []
        for name in ("object", "id", "model", "created", "usage", "choices", "error"):
            it.rest.pop(name, None)
        if not self.started:
            self.started = True
            self._envelope = it.rest
            moment = None if created is None else int(created)
            out.append(ResponseStart(id, model, moment, None, dict(it.rest) or NO_EXTRA, FORMAT))
        elif patch := {name: raw for name, raw in it.rest.items() if self._envelope.get(name) != raw}:
            self._envelope.update(patch)
            out.append(ResponsePatch(patch))
        late = False
        for position, raw in enumerate(choices):
            late = self._choice(Members(raw, f"choices[{position}]"), position, out) or late
        if usage is not None and (figures := read_usage(usage)) is not None:
            out.append(UsageReport(figures))
            self.usage_only = not choices
        return late

    def _choice(self, it: Members, position: int, out: list[Event]) -> bool:
        """Read what a choice says; whether it says more after its end."""
        index = it.integer("index")
        number = position if index is None else index
        choice = self._choices.get(number)
        if choice is None:
            choice = self._choices[number] = _Growing(number)
        text, reason = it.string("text") or "", it.string("finish_reason")
        arrays = it.take("logprobs")
        for name in ("index", "text", "finish_reason", "logprobs"):
            it.rest.pop(name, None)
        if choice.stopped:
            patch = {name: raw for name, raw in it.rest.items() if raw != NULL and choice.extra.get(name) != raw}
            if patch:
                choice.extra.update(patch)
                out.append(ChoicePatch(number, patch))
            return bool(text)
        logprobs = None if arrays is None else read_logprobs(arrays, choice.offsets)
        if text or logprobs is not None:
            if not choice.open:
                choice.open = True
                choice.index = self._next
                self._next += 1
                out.append(PartStart(choice.index, Text(""), number))
            out.append(PartDelta(choice.index, text, number, logprobs))
        choice.extra.update(it.rest)
        if reason:
            self._stop(choice, reason, out)
        return False

    def _stop(self, choice: _Growing, reason: str, out: list[Event]) -> None:
        if reason == "error":
            message = 'the provider ended the answer with finish_reason "error"'
            raise upstream_error("upstream_error", message, code="error", format=FORMAT)
        self._close(choice, out)
        choice.stopped = True
        if choice.offsets:
            choice.extra[OFFSETS] = Raw(encode_json(choice.offsets))
        word = STOP_REASONS.get(reason, "other")
        out.append(ChoiceStop(word, reason, choice.number, extra=choice.extra or NO_EXTRA))

    def _close(self, choice: _Growing, out: list[Event]) -> None:
        if choice.open:
            choice.open = False
            out.append(PartStop(choice.index, choice.number))
