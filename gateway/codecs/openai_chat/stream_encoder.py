"""Chunks into the bytes of one client's stream."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from ...errors import GatewayError
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
    Terminator,
    UsageReport,
)
from ...ir.loss import Loss
from ...ir.message import Citation, Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from ...wire.members import encode_json
from ...wire.sse import PING, one_line
from ..base import AnswerContext
from ..event_writer import EventWriter
from .answer_writer import (
    annotation,
    finish_reason,
    is_legacy,
    is_written,
    lose_details,
    lose_part,
    reasoning_delta,
    shared_members,
    tool_call,
    tool_extra,
    write_audio,
    write_envelope,
)
from .errors import error_frame
from .members import FORMAT, foreign
from .reasoning import field_of, thinking_block
from .stream_decoder import STREAMED
from .usage import write_usage

DONE: Final = b"data: [DONE]\n\n"
_UNSTOPPED: Final = b',"logprobs":null,"finish_reason":null}]'
_TAIL: Final = _UNSTOPPED + b"}\n\n"


class _Choice:
    """What was written of one choice; ``length`` counts the characters of its text, ``text`` is its last text's number."""

    __slots__ = ("annotations", "calls", "head", "length", "refused", "role", "stopped", "text")

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.annotations: list[Any] = []
        self.role = False
        self.calls = 0
        self.length = 0
        self.refused = False
        self.stopped = False
        self.text = -1


class _Part:
    """An open part. A delta of it is ``before``, its text as a JSON string, ``after``; no ``after``: it is not written.

    ``said`` is whether anything of a call's arguments has gone out, ``passed`` whether the part began in bytes that went
    out as they came; ``start`` is where a text begins in its choice.
    """

    __slots__ = ("after", "before", "choice", "citations", "ordinal", "part", "passed", "said", "start")

    def __init__(self, part: Part, choice: _Choice) -> None:
        self.part = part
        self.choice = choice
        self.start = choice.length
        self.said = False
        self.passed = False
        self.ordinal = 0
        self.citations: list[Citation] = []
        self.before = b""
        self.after = b""


class ChatStreamEncoder(EventWriter):
    """One client's stream."""

    ping = PING

    def __init__(self, context: AnswerContext) -> None:
        super().__init__(context, STREAMED)
        self._format = ""
        self._running = b""
        self._tail = _TAIL
        self._envelope: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._parts: dict[int, _Part] = {}

    def _watch(self, event: Event) -> None:
        """Keep track of what goes out as it came."""
        if isinstance(event, PartStart):
            it = self._open(event)
            it.said = it.passed = True
            self._choice(event.choice).role = True
        elif isinstance(event, PartStop):
            self._parts.pop(event.index, None)
        elif isinstance(event, ChoiceStop):
            self._choice(event.choice).stopped = True
        elif isinstance(event, ResponseStart):
            self._start(event)
        elif isinstance(event, Terminator):
            self._done = True

    def _report(self, event: UsageReport) -> None:
        """Keep usage for the end; where it is told while the answer runs, every chunk from here on carries it."""
        if not event.running:
            self._usage = event.usage
        if event.running or self._running:
            losses: list[Loss] = []
            usage = write_usage(event.usage, losses)
            if event.usage.estimated:
                usage["estimated"] = True
                losses.append(Loss("minted", "usage", "usage estimate", "counted by the gateway while the answer runs"))
            self._lose(losses)
            self._running = b',"usage":%b' % one_line(usage)
            self._tail = b"%b%b}\n\n" % (_UNSTOPPED, self._running)

    # The envelope

    def _start(self, event: ResponseStart) -> None:
        """Begin; when another provider goes on with the answer, its extras count from here, its id and model do not."""
        self._own = event.format == FORMAT
        self._format = event.format
        if self._started:
            return
        self._started = True
        self._envelope = write_envelope(event, self._context, "chat.completion.chunk", self.losses)

    def _response_patch(self, event: ResponsePatch) -> None:
        losses: list[Loss] = []
        extra = shared_members(event.extra, self._format, losses)
        self._lose(losses)
        if not extra:
            return
        self._envelope.update(extra)
        for number, choice in self._choices.items():
            choice.head = self._head(number)

    def _choice_patch(self, event: ChoicePatch, out: list[bytes]) -> None:
        if self._own:
            self._write(event.choice, dict(event.extra), out)
        else:
            self._lose(foreign(event.extra, f"choices[{event.choice}]"))

    def _alien(self, event: Alien) -> bytes:
        return b"data: %b\n\n" % event.data.replace(b"\n", b"\ndata: ")

    def _error(self, error: GatewayError) -> bytes:
        return error_frame(error, self._context.request_id)

    def _head(self, number: int) -> bytes:
        return b'data: %b,"choices":[{"index":%d,"delta":' % (one_line(self._envelope)[:-1], number)

    def _choice(self, number: int) -> _Choice:
        choice = self._choices.get(number)
        if choice is None:
            if not self._started:
                self._start(ResponseStart())
            choice = self._choices[number] = _Choice(self._head(number))
        return choice

    def _write(self, number: int, delta: dict[str, Any], out: list[bytes]) -> None:
        """Write a chunk of a choice that is more than words, with the role if it is the first."""
        choice = self._choice(number)
        if not choice.role:
            choice.role = True
            delta = {"role": "assistant", **delta}
        out.append(b"%b%b%b" % (choice.head, one_line(delta), self._tail))

    # Parts

    def _open(self, event: PartStart) -> _Part:
        part, choice = event.part, self._choice(event.choice)
        it = self._parts[event.index] = _Part(part, choice)
        if not is_written(part, self._own):
            return it
        it.after = b"}"
        if isinstance(part, Text):
            it.before = b'{"content":'
            choice.text = event.index
        elif isinstance(part, Refusal):
            it.before = b'{"refusal":'
            choice.refused = True
        elif isinstance(part, Reasoning):
            it.before = b"{%b:" % encode_json(reasoning_delta(part))
        elif isinstance(part, Media):
            it.before, it.after = b'{"audio":{"data":', b"}}"
        elif isinstance(part, ToolCall) and is_legacy(part):
            it.before, it.after = b'{"function_call":{"arguments":', b"}}"
        elif isinstance(part, ToolCall):
            it.ordinal = choice.calls
            choice.calls += 1
            body = b'"custom":{"input":' if part.kind == "custom" else b'"function":{"arguments":'
            it.before, it.after = b'{"tool_calls":[{"index":%d,%b' % (it.ordinal, body), b"}}]}"
        return it

    def _part_start(self, event: PartStart, out: list[bytes]) -> None:
        it = self._open(event)
        part, number = event.part, event.choice
        path = f"choices[{number}].parts[{event.index}]"
        if not it.after:
            self._lose([lose_part(part, path)])
            return
        self._lose(lose_details(part, self._own, path))
        delta: dict[str, Any] = {}
        if isinstance(part, ToolCall):
            delta = self._call_start(part, it, path)
        elif isinstance(part, Opaque):
            delta = {"content": [Raw(part.data)]}
        elif isinstance(part, Media):
            delta = {"audio": write_audio(part, self._own)}
        elif isinstance(part, Reasoning) and self._own:
            delta = dict(part.extra)
        elif isinstance(part, Text) and not self._choice(number).role:
            delta = {"content": ""}
        if delta or not self._choice(number).role:
            self._write(number, delta, out)
        if isinstance(part, (Text, Reasoning, Refusal)) and part.text:
            out.append(self._delta(PartDelta(event.index, part.text, number)))
        if isinstance(part, Text):
            for citation in part.citations:
                self._part_patch(PartPatch(event.index, number, citation=citation), out)

    def _call_start(self, part: ToolCall, it: _Part, path: str) -> dict[str, Any]:
        it.said = bool(part.arguments)
        if is_legacy(part):
            return {"function_call": {"name": part.name, "arguments": part.arguments}}
        if not part.id:
            part = msgspec.structs.replace(part, id=f"call_{self._context.request_id}_{it.ordinal}")
            self._lose([Loss("minted", f"{path}.id", "id", "the provider gave the call none")])
        call = tool_call(part, part.arguments)
        if self._own:
            tool_extra(call, part.extra)
        return {"tool_calls": [{"index": it.ordinal, **call}]}

    def _delta(self, event: PartDelta) -> bytes:
        it = self._parts.get(event.index)
        if it is None or not it.after:
            return b""
        part, choice = it.part, it.choice
        text, tail = event.text, self._tail
        if event.logprobs is not None:
            tail = b',"logprobs":%b,"finish_reason":null}]%b}\n\n' % (one_line(event.logprobs), self._running)
        if type(part) is Text:
            choice.length += len(text)
        elif type(part) is ToolCall:
            it.said = True
        elif it.before == _NO_FIELD and isinstance(part, Reasoning):
            out: list[bytes] = []
            if field_of(part) == "thinking":
                self._write(event.choice, {"content": [thinking_block(text)]}, out)
            return b"".join(out)
        return b"%b%b%b%b%b" % (choice.head, it.before, encode_json(text), it.after, tail)

    def _part_patch(self, event: PartPatch, out: list[bytes]) -> None:
        it = self._parts.get(event.index)
        if it is None and event.citation is not None:
            self._late_citation(event, event.citation)
        if it is None or not it.after:
            return
        part, path = it.part, f"choices[{event.choice}].parts[{event.index}]"
        if event.signature is not None:
            why = "reasoning has no room for a signature"
            self._lose([Loss("lost", f"{path}.signature", "signature", why)])
        if event.citation is not None and event.citation.format == FORMAT:
            it.choice.annotations.append(Raw(event.citation.raw))
        elif event.citation is not None:
            it.citations.append(event.citation)
        if event.transcript is not None and isinstance(part, Media):
            self._write(event.choice, {"audio": {"transcript": event.transcript}}, out)
        if event.extra and not self._own:
            self._lose(foreign(event.extra, path))
        elif event.extra:
            delta: dict[str, Any] = dict(event.extra)
            if isinstance(part, Reasoning) and it.passed:
                # The patch tells the details as a whole, of which the client already has the first pieces.
                self._lose([Loss("lost", path, "reasoning_details", "they were half sent when the stream was changed")])
                return
            if isinstance(part, Media):
                delta = {"audio": delta}
            elif isinstance(part, ToolCall) and not is_legacy(part):
                call: dict[str, Any] = {"index": it.ordinal}
                tool_extra(call, event.extra)
                delta = {"tool_calls": [call]}
            self._write(event.choice, delta, out)

    def _late_citation(self, event: PartPatch, citation: Citation) -> None:
        """Take a citation of a text that is closed already: annotations are written at the end of the choice anyway."""
        choice = self._choice(event.choice)
        if event.index == choice.text and not choice.stopped:
            losses: list[Loss] = []
            note = annotation(citation, None, None, f"choices[{event.choice}].parts[{event.index}]", losses)
            if note is not None:
                choice.annotations.append(note)
            self._lose(losses)

    def _part_stop(self, event: PartStop, out: list[bytes]) -> None:
        it = self._parts.get(event.index)
        if it is None:
            return
        part, path = it.part, f"choices[{event.choice}].parts[{event.index}]"
        unsaid = it.after and not it.said and not self._own
        if isinstance(part, ToolCall) and part.kind == "function" and unsaid:
            # Formats with object arguments say nothing for an empty one; clients of this one parse a string.
            self._lose([Loss("minted", f"{path}.arguments", "arguments", "a call without arguments has {} here")])
            out.append(self._delta(PartDelta(event.index, "{}", event.choice)))
        if it.citations:
            # Offsets are known as long as every character was counted.
            end = None if self._passed else it.choice.length
            losses: list[Loss] = []
            made = (annotation(c, None if end is None else it.start, end, path, losses) for c in it.citations)
            it.choice.annotations += [note for note in made if note is not None]
            self._lose(losses)
        del self._parts[event.index]

    # Ends

    def _stop(self, event: ChoiceStop, out: list[bytes]) -> None:
        choice = self._choice(event.choice)
        if choice.stopped:
            return
        choice.stopped = True
        losses: list[Loss] = []
        reason = finish_reason(
            event.reason, event.raw_reason, self._own, refused=choice.refused, choice=event.choice, losses=losses
        )
        self._lose(losses)
        extra: Extra = {}
        if self._own:
            extra = event.extra
        else:
            self._lose(foreign(event.extra, f"choices[{event.choice}]"))
        self._finish(choice, reason, extra, out)

    def _finish(self, choice: _Choice, reason: str, extra: Extra, out: list[bytes]) -> None:
        if choice.annotations:
            # All in one chunk, as OpenAI sends them: its SDK cannot join two arrays whose entries have no index.
            out.append(b"%b%b%b" % (choice.head, one_line({"annotations": choice.annotations}), self._tail))
        delta = b"{}" if choice.role else b'{"role":"assistant"}'
        choice.role = True
        body = one_line({"logprobs": None, "finish_reason": reason, **extra})
        out.append(b"%b%b,%b]%b}\n\n" % (choice.head, delta, body[1:], self._running))

    def _end(self, out: list[bytes]) -> None:
        for number, choice in self._choices.items():
            if not choice.stopped:
                choice.stopped = True
                reason = "tool_calls" if choice.calls else "stop"
                self._lose([Loss("minted", f"choices[{number}].finish_reason", reason, "the provider gave no reason")])
                self._finish(choice, reason, {}, out)
        if self._usage is not None and self._context.stream_usage and self._started:
            losses: list[Loss] = []
            usage = write_usage(self._usage, losses)
            self._lose(losses)
            out.append(b"data: %b\n\n" % one_line({**self._envelope, "choices": [], "usage": usage}))
        out.append(DONE)


_NO_FIELD: Final = b'{"":'
"""``before`` of reasoning that was not spelled as a text field."""
