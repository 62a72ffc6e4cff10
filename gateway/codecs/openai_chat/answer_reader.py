"""A provider's answer as events: frames of a stream and whole bodies go through the same reader.

A whole answer's ``message`` has the members of a ``delta``, so it is read as one big delta: that is why the fold of a
stream and a whole answer cannot differ. The common frames fit the typed Structs below, which forbid what they do not
know; what they refuse is read member by member and the rest kept.

Sources: ``ChatCompletionChunk`` and ``ChatCompletion`` of OpenAI's SDK 3.52. Vendors add: ``reasoning_content`` (DeepSeek,
Moonshot, vLLM), ``reasoning`` (Groq, Together, OpenRouter), ``reasoning_details`` (OpenRouter), content as an array with
``thinking`` (Mistral), ``choices[].usage`` (Moonshot), ``x_groq.usage``, errors inside chunks (OpenRouter).
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError, Malformed, upstream_error
from ...ir.event import (
    Alien,
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
    Terminator,
    UsageReport,
)
from ...ir.message import NO_EXTRA, Citation, Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from ...wire.members import BAD_JSON, NULL, OBJECT, Members, encode_json, is_string, string_of
from ...wire.surrogates import mend_halves
from .errors import error_in
from .growing import FRAME, NOTHING, USAGE_FRAME, GrowingAnswer, GrowingTool, groq_usage, says, which
from .members import FORMAT
from .more import MoreReader
from .reasoning import REASONING_FIELDS, join_details, text_of_details, text_of_thinking
from .usage import read_usage
from .words import LEGACY_CALL, MINTED_ID, STOP_REASONS

_EMPTY: Final = Raw(b'""')
_ERROR_OBJECT: Final = Raw(b'"error"')
_CHUNK_OBJECT: Final = Raw(b'"chat.completion.chunk"')
_ENVELOPE_NULLS: Final = ("id", "model", "service_tier", "created")
_CONTENT: Final = ("content", *REASONING_FIELDS, "refusal", "audio", "tool_calls", "function_call")
_DELTA_NULLS: Final = ("role", "annotations", "reasoning_details", *_CONTENT)


class AnswerReader(MoreReader):
    """Reads the frames of one answer. ``usage_only`` says of the last frame that it carried nothing but usage."""

    __slots__ = (
        "_answers",
        "_early",
        "_envelope",
        "_late",
        "_next",
        "started",
        "usage_only",
    )

    def __init__(self) -> None:
        super().__init__()
        self.started = False
        self.usage_only = False
        self._answers: dict[int, GrowingAnswer] = {}
        self._next = 0
        self._envelope: dict[str, Raw] = {}
        self._early: dict[str, Raw] = {}
        self._late = False

    @property
    def finished(self) -> bool:
        """Whether every choice seen, and there was one, has its finish reason."""
        return bool(self._answers) and all(answer.stopped for answer in self._answers.values())

    def frame(self, data: bytes, name: bytes, out: list[Event]) -> None:
        """Append the events of one frame's payload. Raises UpstreamError: malformed, or the error the frame tells."""
        self.usage_only = False
        try:
            frame = FRAME.decode(data)
        except BAD_JSON:
            if not self._usage(data, out):
                self._generic(data, name, out)
            return
        if not self.started:
            if not frame.id and not frame.choices:
                self._generic(data, name, out)
                return
            extra: dict[str, Raw] = {}
            for member, word in (("system_fingerprint", frame.system_fingerprint), ("provider", frame.provider)):
                if word is not None:
                    extra[member] = Raw(encode_json(word))
            self._fingerprint, self._provider = frame.system_fingerprint, frame.provider
            self._start(frame.id, frame.model, frame.created, frame.service_tier, extra, out)
        elif (
            frame.system_fingerprint != self._fingerprint
            or frame.service_tier != self._tier
            or frame.provider != self._provider
        ):
            self._changed(frame.service_tier, frame.system_fingerprint, frame.provider, out)
        for choice in frame.choices:
            number = choice.index
            answer = self._answers.get(number)
            if answer is None:
                answer = self._answer(number)
            elif answer.stopped:
                self._generic(data, name, out)
                return
            delta = choice.delta
            if delta.reasoning_content:
                self._say(answer, "reasoning", delta.reasoning_content, out, "reasoning_content")
            elif delta.reasoning:
                self._say(answer, "reasoning", delta.reasoning, out, "reasoning")
            text = delta.content
            if text:
                if answer.kind == "text":
                    out.append(PartDelta(answer.index, text, number))
                else:
                    self._say(answer, "text", text, out)
            if delta.refusal:
                self._say(answer, "refusal", delta.refusal, out)
            if delta.tool_calls:
                for call in delta.tool_calls:
                    function = call.function
                    kind = call.type or ""
                    self._call(answer, call.index, call.id or "", function.name, function.arguments, kind, out)
            if choice.content_filter_results is not NOTHING:
                answer.stop_extra["content_filter_results"] = choice.content_filter_results
            if choice.finish_reason:
                self._stop(answer, choice.finish_reason, out)
        if self._late:
            self._alien(data, out)

    def _usage(self, data: bytes, out: list[Event]) -> bool:
        """Read a frame that tells usage and nothing else, as the last one of a stream does; False: it is another."""
        try:
            frame = USAGE_FRAME.decode(data)
        except BAD_JSON:
            return False
        # What may want mending, or is not to be told this way, is looked at in full.
        if frame.choices or not self.started or self._late or frame.usage == NULL:
            return False
        if b"\\" in data or not data.isascii():
            return False
        if (figures := read_usage(frame.usage)) is None:
            return False
        self._changed(frame.service_tier, frame.system_fingerprint, frame.provider, out)
        out.append(UsageReport(figures))
        self.usage_only = True
        return True

    def whole(self, body: bytes) -> tuple[Event, ...]:
        """Return the events of a whole answer. Raises UpstreamError: malformed, or the error that it tells."""
        out: list[Event] = []
        body = mend_halves(body)
        try:
            members = OBJECT.decode(body)
        except BAD_JSON as error:
            raise Malformed("the provider's answer is not a JSON object", format=FORMAT) from error
        if members.get("choices", NULL) == NULL:
            raise error_in(body) or Malformed("the provider's answer has no choices", format=FORMAT)
        self._generic(body, b"", out, whole=True)
        self.end(out)
        return tuple(out)

    def end(self, out: list[Event], *, terminator: bool = True) -> None:
        """The provider said that this was all, or ended so that it is."""
        for answer in self._answers.values():
            self._close(answer, out)
        out.append(ResponseStop())
        if terminator:
            out.append(Terminator())

    # The envelope

    def _start(
        self, id: str, model: str, created: int | None, tier: str | None, extra: dict[str, Raw], out: list[Event]
    ) -> None:
        self.started = True
        self._tier = tier
        self._envelope = {**self._early, **extra}
        out.append(ResponseStart(id, model, created, tier, dict(self._envelope) or NO_EXTRA, FORMAT))

    def _changed(self, tier: str | None, fingerprint: str | None, provider: str | None, out: list[Event]) -> None:
        patch: dict[str, Raw] = {}
        if tier is not None and tier != self._tier:
            self._tier = tier
            patch["service_tier"] = Raw(encode_json(tier))
        if fingerprint is not None and fingerprint != self._fingerprint:
            self._fingerprint = fingerprint
            patch["system_fingerprint"] = Raw(encode_json(fingerprint))
        if provider is not None and provider != self._provider:
            self._provider = provider
            patch["provider"] = Raw(encode_json(provider))
        self._patch_envelope(patch, out)

    def _patch_envelope(self, members: dict[str, Raw], out: list[Event]) -> None:
        patch = {name: raw for name, raw in members.items() if self._envelope.get(name) != raw}
        if patch:
            self._envelope.update(patch)
            out.append(ResponsePatch(patch))

    def _generic(self, data: bytes, name: bytes, out: list[Event], *, whole: bool = False) -> None:
        """The same, for frames that the typed reader refuses."""
        data = mend_halves(data)
        try:
            members = Members(data, "")
        except DecodeError as error:
            if isinstance(error.__cause__, msgspec.ValidationError):
                out.append(Alien(FORMAT, name.decode("utf-8", "replace"), data))
                return
            raise Malformed("a frame of the stream is not valid JSON", format=FORMAT) from error
        if members.raw("error") is not None or name == b"error" or members.raw("object") == _ERROR_OBJECT:
            told = error_in(data)
            if told is not None:
                raise told
        try:
            self._members(members, data, name, out, whole)
        except DecodeError as error:
            raise Malformed(f"the provider's answer: {error.message}", format=FORMAT) from error
        if self._late:
            self._alien(data, out)

    def _members(self, it: Members, data: bytes, name: bytes, out: list[Event], whole: bool) -> None:
        known = it.raw("choices") is not None or "usage" in it.rest or it.raw("object") == _CHUNK_OBJECT
        if not known:
            kind = name.decode("utf-8", "replace") or it.string("object") or it.string("type") or ""
            out.append(Alien(FORMAT, kind, data))
            return
        id, model, tier = it.string("id") or "", it.string("model") or "", it.string("service_tier")
        created = it.number("created")
        usage = it.take("usage")
        choices = it.array("choices") or []
        for word in ("object", "obfuscation", "choices", "usage", "error", *_ENVELOPE_NULLS):
            it.rest.pop(word, None)
        groq = it.rest.get("x_groq")
        if groq is not None and (told := groq_usage(groq)) is not None:
            usage = usage if usage is not None else told
        if not self.started and not id and not choices and usage is None:
            # Azure's first frame: results of its prompt filter, before the answer has an id.
            self._early.update(it.rest)
            return
        if not self.started:
            self._start(id, model, None if created is None else int(created), tier, it.rest, out)
            self._fingerprint, self._provider = _word(it, "system_fingerprint"), _word(it, "provider")
        else:
            self._changed(tier, _word(it, "system_fingerprint"), _word(it, "provider"), out)
            self._patch_envelope(it.rest, out)
        for position, raw in enumerate(choices):
            choice = Members(raw, f"choices[{position}]")
            own_usage = choice.take("usage")
            usage = usage if usage is not None else own_usage
            self._choice(choice, position, out, whole)
        if usage is not None and (figures := read_usage(usage)) is not None:
            out.append(UsageReport(figures))
            self.usage_only = not choices

    def _choice(self, it: Members, position: int, out: list[Event], whole: bool) -> None:
        index = it.integer("index")
        number = position if index is None else index
        answer = self._answers.get(number) or self._answer(number)
        if it.raw("error") is not None and (told := error_in(b'{"error":%b}' % bytes(it.rest["error"]))) is not None:
            # Clients look for an error at the top alone, so the frame cannot pass for one.
            told.raw = None
            raise told
        reason = it.string("finish_reason")
        delta = it.object("message" if whole else "delta") or it.object("message")
        logprobs = it.take("logprobs")
        for word in ("error", "finish_reason", "logprobs", "usage", "delta", "message"):
            it.rest.pop(word, None)
        if delta is not None:
            if answer.stopped:
                self._late = self._late or any(delta.raw(word) not in (None, _EMPTY) for word in _CONTENT)
            else:
                self._delta(answer, delta, logprobs if says(logprobs) else None, out, whole)
        if answer.stopped:
            patch = {n: raw for n, raw in it.rest.items() if raw != NULL and answer.stop_extra.get(n) != raw}
            if patch:
                answer.stop_extra.update(patch)
                out.append(ChoicePatch(number, patch))
            return
        answer.stop_extra.update(it.rest)
        if reason:
            self._stop(answer, reason, out)

    # What a choice says

    def _delta(self, answer: GrowingAnswer, it: Members, logprobs: Raw | None, out: list[Event], whole: bool) -> None:
        self._reason(answer, it, out)
        content = it.take("content")
        if content is not None and not is_string(content):
            self._blocks(answer, content, it.at("content"), out)
        elif content is not None and (text := string_of(content, it.at("content"))):
            self._say(answer, "text", text, out, logprobs=logprobs)
            logprobs = None
        for raw in it.array("annotations") or ():
            self._annotate(answer, raw, out)
        if refusal := it.string("refusal"):
            self._say(answer, "refusal", refusal, out, logprobs=logprobs)
            logprobs = None
        if logprobs is not None:
            self._say(answer, answer.kind or "text", "", out, logprobs=logprobs)
        if (audio := it.object("audio")) is not None:
            self._audio(answer, audio, out)
        for position, raw in enumerate(it.array("tool_calls") or ()):
            call = Members(raw, it.at(f"tool_calls[{position}]"))
            self._tool_call(answer, call, position if whole else None, out)
        if (legacy := it.object("function_call")) is not None:
            id = f"{LEGACY_CALL}{answer.number}"
            self._call(answer, None, id, legacy.string("name"), legacy.string("arguments"), "function", out, MINTED_ID)
        for word in _DELTA_NULLS:
            it.rest.pop(word, None)
        patch = {name: raw for name, raw in it.rest.items() if answer.patch.get(name) != raw}
        if patch:
            answer.patch.update(patch)
            out.append(ChoicePatch(answer.number, patch))

    def _reason(self, answer: GrowingAnswer, it: Members, out: list[Event]) -> None:
        details = it.array("reasoning_details")
        texts = [(name, it.string(name)) for name in REASONING_FIELDS]
        spoken = next(((name, text) for name, text in texts if text), None)
        if spoken is None and details and (answer.kind != "reasoning" or answer.field == "reasoning_details"):
            # While a text field tells the reasoning, what its details say is the same again.
            spoken = "reasoning_details", text_of_details(details)
        if spoken is not None:
            origin, text = spoken
            self._say(answer, "reasoning", text, out, origin)
        if details:
            answer.details += details

    def _blocks(self, answer: GrowingAnswer, content: Raw, path: str, out: list[Event]) -> None:
        """Content as an array: Mistral's way to mix thinking with text."""
        holder = Members(b'{"content":%b}' % bytes(content), path.rpartition(".")[0])
        for position, raw in enumerate(holder.array("content") or ()):
            block = Members(raw, f"{path}[{position}]")
            kind = block.string("type")
            if kind == "text":
                self._say(answer, "text", block.string("text") or "", out)
            elif kind == "thinking" and (text := text_of_thinking(block.raw("thinking"))) is not None:
                self._say(answer, "reasoning", text, out, "thinking")
            else:
                self._close(answer, out, tools=False)
                index = self._number()
                out.append(PartStart(index, Opaque(FORMAT, kind or "", bytes(raw)), answer.number))
                out.append(PartStop(index, answer.number))

    def _say(
        self,
        answer: GrowingAnswer,
        kind: str,
        text: str,
        out: list[Event],
        field: str = "",
        logprobs: Raw | None = None,
    ) -> None:
        if answer.kind != kind:
            part: Part
            if kind == "reasoning":
                answer.field = field
                part = Reasoning(origin=f"{FORMAT}:{field}")
            elif kind == "refusal":
                part = Refusal("")
            elif kind == "audio":
                part = Media("audio")
            else:
                part = Text("")
            self._open(answer, kind, part, out)
            if kind == "text":
                answer.text = answer.index
        if text or logprobs is not None:
            out.append(PartDelta(answer.index, text, answer.number, logprobs))

    def _annotate(self, answer: GrowingAnswer, raw: Raw, out: list[Event]) -> None:
        it = Members(raw, "annotations")
        kind = it.string("type") or ""
        spot = it.object(kind) if kind else None
        url = title = start = end = None
        if spot is not None:
            url, title = spot.string("url"), spot.string("title")
            start, end = spot.integer("start_index"), spot.integer("end_index")
        if answer.text < 0:
            self._say(answer, "text", "", out)
        # They come at the end of a stream, when tool calls may have followed the text that they are about.
        citation = Citation(FORMAT, kind, bytes(raw), url, title, start=start, end=end)
        out.append(PartPatch(answer.text, answer.number, citation=citation))

    def _audio(self, answer: GrowingAnswer, it: Members, out: list[Event]) -> None:
        data, transcript = it.string("data"), it.string("transcript")
        extra = {name: raw for name, raw in it.rest.items() if raw != NULL and answer.audio.get(name) != raw}
        if answer.kind != "audio":
            answer.audio = dict(extra)
            self._open(answer, "audio", Media("audio", extra=extra or NO_EXTRA), out)
            extra = {}
        if data:
            out.append(PartDelta(answer.index, data, answer.number))
        if transcript or extra:
            answer.audio.update(extra)
            out.append(PartPatch(answer.index, answer.number, transcript=transcript, extra=extra or NO_EXTRA))

    # Tool calls

    def _tool_call(self, answer: GrowingAnswer, it: Members, position: int | None, out: list[Event]) -> None:
        """A call or a fragment; ``position`` is its place in a whole answer, where every entry is a call of its own."""
        index, id, kind = it.integer("index"), it.string("id") or "", it.string("type") or ""
        index = index if position is None else position
        body = it.object("function") or it.object("custom")
        name: str | None = None
        arguments: str | None = None
        if body is not None:
            name = body.string("name")
            raw = body.raw("arguments")
            if raw is not None and not is_string(raw):
                # Ollama's likes give arguments as an object; its bytes are the text.
                del body.rest["arguments"]
                arguments = bytes(raw).decode()
            else:
                arguments = body.string("arguments")
            if arguments is None:
                arguments = body.string("input")
            for word in ("name", "arguments", "input"):
                body.rest.pop(word, None)
            it.adopt(kind if kind == "custom" else "function", body)
        for word in ("id", "type", "function", "custom", "index"):
            it.rest.pop(word, None)
        self._call(answer, index, id, name, arguments, kind, out, it.extra())

    def _call(
        self,
        answer: GrowingAnswer,
        key: int | None,
        id: str,
        name: str | None,
        arguments: str | None,
        kind: str,
        out: list[Event],
        extra: Extra = NO_EXTRA,
    ) -> None:
        tool = which(answer.tools, key, id, name)
        if tool is None:
            self._close(answer, out, tools=False)
            tool = GrowingTool(key)
            answer.tools.append(tool)
        elif tool.closed:
            self._late = self._late or bool(arguments and arguments.strip())
            return
        if kind == "custom":
            tool.kind = "custom"
        tool.id = tool.id or id
        tool.name = tool.name or name or ""
        if arguments:
            tool.arguments.append(arguments)
        if tool.index >= 0:
            if arguments:
                out.append(PartDelta(tool.index, arguments, answer.number))
            if fresh := {name: raw for name, raw in extra.items() if tool.extra.get(name) != raw}:
                tool.extra = {**tool.extra, **fresh}
                out.append(PartPatch(tool.index, answer.number, extra=fresh))
            return
        if extra:
            tool.extra = {**tool.extra, **extra}
        if tool.id and tool.name:
            self._start_tool(answer, tool, out)

    def _start_tool(self, answer: GrowingAnswer, tool: GrowingTool, out: list[Event]) -> None:
        tool.index = self._number()
        out.append(PartStart(tool.index, ToolCall(tool.id, tool.name, kind=tool.kind, extra=tool.extra), answer.number))
        if tool.arguments:
            out.append(PartDelta(tool.index, "".join(tool.arguments), answer.number))

    # Borders

    def _answer(self, number: int) -> GrowingAnswer:
        answer = self._answers[number] = GrowingAnswer(number)
        if number == 0:
            self._first = answer
        return answer

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _open(self, answer: GrowingAnswer, kind: str, part: Part, out: list[Event]) -> None:
        self._close(answer, out, tools=False)
        answer.kind = kind
        answer.index = self._number()
        out.append(PartStart(answer.index, part, answer.number))

    def _close(self, answer: GrowingAnswer, out: list[Event], *, tools: bool = True) -> None:
        """Close what is open; of the tool calls those alone that are complete, unless ``tools``."""
        if answer.details:
            extra = {"reasoning_details": join_details(answer.details)}
            answer.details = []
            out.append(PartPatch(answer.index, answer.number, extra=extra))
        if answer.kind:
            out.append(PartStop(answer.index, answer.number))
            answer.kind = ""
        for tool in answer.tools:
            if not tool.closed and (tools or tool.complete):
                if tool.index < 0:
                    self._start_tool(answer, tool, out)
                out.append(PartStop(tool.index, answer.number))
                tool.closed = True
                tool.arguments = []

    def _stop(self, answer: GrowingAnswer, reason: str, out: list[Event]) -> None:
        if reason == "error":
            # The model broke off; that is a failure, and a clean end after it would hide it.
            message = 'the provider ended the answer with finish_reason "error"'
            raise upstream_error("upstream_error", message, code="error", format=FORMAT)
        self._close(answer, out)
        extra = answer.stop_extra
        out.append(ChoiceStop(STOP_REASONS.get(reason, "other"), reason, answer.number, extra=extra or NO_EXTRA))
        answer.stopped = True

    def _alien(self, data: bytes, out: list[Event]) -> None:
        """Content after its end: it has no place among the events, yet it is not ours to swallow."""
        self._late = False
        out.append(Alien(FORMAT, "late", data))


def _word(it: Members, name: str) -> str | None:
    """Take an envelope's word if it is one; anything else stays among the unknown."""
    raw = it.raw(name)
    return it.string(name) if raw is not None and is_string(raw) else None
