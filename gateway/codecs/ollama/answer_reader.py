"""A provider's answer as events: lines of a stream and whole bodies go through the same reader.

A whole answer is a line that says everything and is ``done``: that is why the fold of a stream and a whole answer cannot
differ. In ``/api/chat`` the words stand in ``message``, in ``/api/generate`` beside it: ``response``, ``thinking``.
``created_at`` is another in each line; the first one counts, to the second. What nobody knows is kept: of the last line
with the stop, of others with the envelope.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...errors import DecodeError, Malformed
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
from ...ir.message import NO_EXTRA, Media, Part, Reasoning, Text
from ...wire.members import BAD_JSON, Members
from ...wire.surrogates import mend_halves
from .errors import error_in
from .request_reader import read_call
from .usage import METRICS, usage_of
from .words import CHAT, STOP_REASONS, media_type, seconds

_ENVELOPE: Final = ("remote_model", "remote_host")
"""Members of every line that are told once: where a model runs that the server only passes on."""


class _Message(Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: str
    thinking: str = ""


class _ChatWords(Struct, forbid_unknown_fields=True, gc=False):
    """A line of words and nothing besides: what most lines of most streams are."""

    model: str
    created_at: str
    message: _Message
    done: bool = False


class _GenerateWords(Struct, forbid_unknown_fields=True, gc=False):
    """The same of ``/api/generate``."""

    model: str
    created_at: str
    response: str
    thinking: str = ""
    done: bool = False


_CHAT_WORDS: Final = msgspec.json.Decoder(_ChatWords)
_GENERATE_WORDS: Final = msgspec.json.Decoder(_GenerateWords)


class AnswerReader:
    """Reads the lines of one answer of ``format``. ``done`` once the last one was read."""

    __slots__ = ("_calls", "_envelope", "_index", "_kind", "_next", "_patch", "_started", "done", "format")

    def __init__(self, format: str) -> None:
        self.format = format
        self.done = False
        self._started = False
        self._envelope: dict[str, Raw] = {}
        self._patch: dict[str, Raw] = {}
        self._kind = ""
        self._index = -1
        self._next = 0
        self._calls = 0

    def line(self, data: bytes, out: list[Event]) -> None:
        """Append the events of one line. Raises UpstreamError: malformed, or the error that the line tells."""
        if (words := self.words(data)) is not None:
            out.append(words)
            return
        self._read(mend_halves(data), out, whole=False)

    def words(self, data: bytes) -> PartDelta | None:
        """Return what a line says if it is more of the open text or thought and nothing else; else change nothing."""
        if not self._kind:
            return None
        try:
            if self.format == CHAT:
                line = _CHAT_WORDS.decode(data)
                text, thought, done = line.message.content, line.message.thinking, line.done
            else:
                short = _GENERATE_WORDS.decode(data)
                text, thought, done = short.response, short.thinking, short.done
        except BAD_JSON:
            return None
        if done or (text and thought):
            return None
        said = text if self._kind == "text" else thought
        return PartDelta(self._index, said) if said else None

    def whole(self, body: bytes) -> tuple[Event, ...]:
        """Return the events of a whole answer. Raises UpstreamError: malformed, or the error that it tells."""
        out: list[Event] = []
        self._read(mend_halves(body), out, whole=True)
        if not self.done:
            raise Malformed("the provider's answer is not one, or says that it is not done", format=self.format)
        return tuple(out)

    def _read(self, data: bytes, out: list[Event], *, whole: bool) -> None:
        try:
            it = Members(data, "")
        except DecodeError as error:
            what = "the provider's answer" if whole else "a line of the stream"
            raise Malformed(f"{what} is not a JSON object", format=self.format) from error
        if it.raw("error") is not None and (told := error_in(data, self.format)) is not None:
            raise told
        words = "message" if self.format == CHAT else "response"
        if it.raw(words) is None and it.raw("done") is None:
            if not whole:
                out.append(Alien(self.format, next(iter(it.rest), ""), data))
            return
        try:
            self._members(it, out, whole)
        except (DecodeError, *BAD_JSON) as error:
            raise Malformed(f"the provider's answer: {error}", format=self.format) from error

    def _members(self, it: Members, out: list[Event], whole: bool) -> None:
        model, created = it.string("model") or "", seconds(it.string("created_at"))
        self._start(model, created, {name: it.rest.pop(name) for name in _ENVELOPE if it.raw(name) is not None}, out)
        done, reason = it.boolean("done"), it.string("done_reason") or ""
        if done is None:
            done = whole  # servers exist that leave it out where nothing else could follow
        metrics = {name: raw for name in METRICS if (raw := it.take(name)) is not None}
        raw_logprobs = it.take("logprobs")
        logprobs = None if raw_logprobs is None or bytes(raw_logprobs) == b"[]" else _shaped(raw_logprobs)
        message = it.object("message") if self.format == CHAT else it
        if message is not None:
            self._message(message, logprobs, out)
        for name in ("model", "created_at", "message", "response", "thinking", "tool_calls", "images", "image"):
            it.rest.pop(name, None)
        for name in ("done", "done_reason", "logprobs", *METRICS, "error", *_ENVELOPE):
            it.rest.pop(name, None)
        if done:
            self._stop(reason, it.rest, metrics, out)
        elif patch := {name: raw for name, raw in it.rest.items() if self._envelope.get(name) != raw}:
            self._envelope.update(patch)
            out.append(ResponsePatch(patch))

    def _start(self, model: str, created: int | None, envelope: dict[str, Raw], out: list[Event]) -> None:
        if not self._started:
            self._started = True
            self._envelope = envelope
            out.append(ResponseStart("", model, created, None, dict(envelope) or NO_EXTRA, self.format))
        elif patch := {name: raw for name, raw in envelope.items() if self._envelope.get(name) != raw}:
            self._envelope.update(patch)
            out.append(ResponsePatch(patch))

    def _message(self, it: Members, logprobs: Raw | None, out: list[Event]) -> None:
        chat = self.format == CHAT
        thinking, text = it.string("thinking"), it.string("content" if chat else "response")
        images = (it.strings("images") or []) if chat else [it.string("image") or ""]
        calls = it.array("tool_calls") or []
        if thinking:
            self._say("reasoning", thinking, None if text else logprobs, out)
        if text or (logprobs is not None and not thinking):
            self._say("text", text or "", logprobs, out)
        for data in images:
            if data:
                self._whole_part(Media("image", media_type(data), data=data), "", out)
        for position, raw in enumerate(calls):
            call = read_call(Members(raw, it.at(f"tool_calls[{position}]")), self._calls)
            self._calls += 1
            self._whole_part(msgspec.structs.replace(call, arguments=""), call.arguments, out)
        if not chat:
            return
        for name in ("role", "content", "thinking", "images", "tool_calls"):
            it.rest.pop(name, None)
        if patch := {name: raw for name, raw in it.rest.items() if self._patch.get(name) != raw}:
            self._patch.update(patch)
            out.append(ChoicePatch(0, patch))

    def _say(self, kind: str, text: str, logprobs: Raw | None, out: list[Event]) -> None:
        if self._kind != kind:
            self._close(out)
            self._kind, self._index = kind, self._number()
            part: Part = Text("") if kind == "text" else Reasoning(origin=self.format)
            out.append(PartStart(self._index, part))
        out.append(PartDelta(self._index, text, 0, logprobs))

    def _whole_part(self, part: Part, text: str, out: list[Event]) -> None:
        """A call or an image: never in pieces."""
        self._close(out)
        index = self._number()
        out.append(PartStart(index, part))
        if text:
            out.append(PartDelta(index, text))
        out.append(PartStop(index))

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _close(self, out: list[Event]) -> None:
        if self._kind:
            out.append(PartStop(self._index))
            self._kind = ""

    def _stop(self, word: str, rest: dict[str, Raw], metrics: dict[str, Raw], out: list[Event]) -> None:
        self._close(out)
        reason = STOP_REASONS.get(word, "other") if word else "stop"
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        extra = {name: raw for name, raw in rest.items() if self._envelope.get(name) != raw}
        out.append(ChoiceStop(reason, word, extra=extra or NO_EXTRA))
        if (usage := usage_of(metrics, self.format)) is not None:
            out.append(UsageReport(usage))
        out += (ResponseStop(), Terminator())
        self.done = True


def _shaped(logprobs: Raw) -> Raw:
    """Return an array of token log probabilities as the IR has them; the entries are the same as OpenAI's."""
    return Raw(b'{"content":%b}' % bytes(logprobs))
