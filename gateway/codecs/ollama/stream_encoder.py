"""Chunks into the lines of one client's stream.

The last line tells reason and usage together, so it is written at the end; calls come whole here, so one that grows is held
back until it is complete.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw
from msgspec.structs import replace

from ...errors import GatewayError, Malformed, UpstreamError
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
    Wire,
)
from ...ir.loss import Loss
from ...ir.message import Media, Part, Reasoning, Refusal, Text, ToolCall
from ...wire.members import encode_json
from ...wire.ndjson import line, one_line
from ..base import AnswerContext
from ..event_writer import EventWriter
from .answer_writer import (
    done_reason,
    foreign,
    is_written,
    lose_details,
    lose_part,
    token_logprobs,
    tool_call,
    words,
    write_envelope,
)
from .errors import error_line
from .usage import write_usage
from .words import CHAT

MAX_HELD_BYTES: Final = 8 * 1024 * 1024
"""Letters of calls that are held back until they are complete, together; more is no call that anybody could run."""
_HERE: Final = Raw(b"\0")
"""Stands for the text in a line whose beginning and end are wanted."""


class _Part:
    """An open part. ``words`` are the letters of a call or an image, which go out together.

    A line of more words is ``before``, the text as a JSON string, ``after``; no ``before``: it is not known yet.
    """

    __slots__ = ("after", "before", "part", "words", "written")

    def __init__(self, part: Part, written: bool) -> None:
        self.part = part
        self.written = written
        self.words: list[str] = []
        self.before = b""
        self.after = b""


class OllamaStreamEncoder(EventWriter):
    """One client's stream of ``format``. ``ping`` is a line without words: an empty one is none that clients can read."""

    def __init__(self, context: AnswerContext, format: str) -> None:
        super().__init__(context, Wire(format, "ndjson"))
        self._format = format
        self._held = 0
        self._calls = 0
        self._stopped: ChoiceStop | None = None
        self._last: dict[str, Any] = {}
        self._parts: dict[int, _Part] = {}
        self._envelope: dict[str, Any] = write_envelope(ResponseStart(), context, True, [])
        self.ping = self._line(words(format))

    def _watch(self, event: Event) -> None:
        """Keep track of what goes out as it came."""
        if isinstance(event, ResponseStart):
            self._start(event)
        elif isinstance(event, PartStart):
            self._parts[event.index] = _Part(event.part, is_written(event.part, self._format))
            self._calls += isinstance(event.part, ToolCall)
        elif isinstance(event, PartStop):
            self._parts.pop(event.index, None)
        elif isinstance(event, ChoiceStop):
            self._stopped = event
        elif isinstance(event, Terminator):
            self._done = True

    def _start(self, event: ResponseStart) -> None:
        """Begin; when another provider goes on with the answer, its extras count from here, its model does not."""
        self._own = event.format == self._format
        if self._started:
            return
        self._started = True
        losses: list[Loss] = []
        self._envelope = write_envelope(event, self._context, self._own, losses)
        self.ping = self._line(words(self._format))
        self._forget_lines()
        self._lose(losses)

    def _response_patch(self, event: ResponsePatch) -> None:
        if self._own:
            self._envelope.update(event.extra)
            self._forget_lines()
        else:
            self._lose(foreign(event.extra, ""))

    def _choice_patch(self, event: ChoicePatch, out: list[bytes]) -> None:
        if self._own and not event.choice:
            more: dict[str, Any] = dict(event.extra)
            out.append(self._line(words(self._format, "", **more)))
        else:
            self._lose(foreign(event.extra, "message"))

    def _alien(self, event: Alien) -> bytes:
        return line(event.data)

    def _line(self, said: dict[str, Any], **more: Any) -> bytes:
        return line(encode_json({**self._envelope, **said, "done": False, **more}))

    def _forget_lines(self) -> None:
        """The envelope is another one now."""
        for part in self._parts.values():
            part.before = b""

    # Parts

    def _part_start(self, event: PartStart, out: list[bytes]) -> None:
        path = f"parts[{event.index}]"
        if not self._started:
            self._start(ResponseStart())
        if event.choice:
            self._lose([Loss("lost", f"choices[{event.choice}]", "choice", "an answer has one choice here")])
            return
        part = event.part
        written = is_written(part, self._format) or (isinstance(part, Media) and part.kind == "image")
        self._parts[event.index] = _Part(part, written)
        if not written:
            self._lose([lose_part(part, path)])
            return
        self._lose(lose_details(part, self._own, path))
        if isinstance(part, (Text, Reasoning, Refusal)) and part.text:
            out.append(self._delta(PartDelta(event.index, part.text)))

    def _delta(self, event: PartDelta) -> bytes:
        it = self._parts.get(event.index)
        if it is None or not it.written or event.choice:
            return b""
        part, text = it.part, event.text
        if event.logprobs is None and it.before:
            said = encode_json(text)
            return it.before + (said if text.isascii() else one_line(said)) + it.after
        if isinstance(part, (ToolCall, Media)):
            self._hold(it, text)
            return b""
        if event.logprobs is not None and (entries := token_logprobs((event.logprobs,))):
            return self._line(self._said(part, text), logprobs=entries)
        # What stands around the words is the same each time. No other letter of a line is spelled as a NUL.
        it.before, _, it.after = self._line(self._said(part, _HERE)).rpartition(b"\0")
        return self._line(self._said(part, text))

    def _said(self, part: Part, text: str | Raw) -> dict[str, Any]:
        return words(self._format, thinking=text) if isinstance(part, Reasoning) else words(self._format, text)

    def _hold(self, it: _Part, text: str) -> None:
        it.words.append(text)
        self._held += len(text)
        if self._held > MAX_HELD_BYTES:
            raise Malformed(f"the provider sends calls of more than {MAX_HELD_BYTES} letters")

    def _part_patch(self, event: PartPatch, out: list[bytes]) -> None:
        it = self._parts.get(event.index)
        if event.choice or (it is not None and not it.written):
            return
        path = f"parts[{event.index}]"
        if event.signature:
            self._lose([Loss("lost", f"{path}.signature", "signature", "thinking has no room for a signature")])
        if event.citation is not None:
            self._lose([Loss("lost", f"{path}.citations", event.citation.kind, "a text has no citations here")])
        if it is not None and isinstance(it.part, ToolCall) and self._own:
            it.part = replace(it.part, extra={**it.part.extra, **event.extra})
        elif event.extra:
            self._lose(foreign(event.extra, path))

    def _part_stop(self, event: PartStop, out: list[bytes]) -> None:
        it = self._parts.pop(event.index, None)
        if it is None or not it.written:
            return
        part, text, path = it.part, "".join(it.words), f"parts[{event.index}]"
        self._held -= len(text)
        if isinstance(part, ToolCall):
            losses: list[Loss] = []
            whole = replace(part, arguments=part.arguments + text)
            call = tool_call(whole, self._calls, self._own, path, losses)
            self._calls += 1
            self._lose(losses)
            out.append(self._line(words(self._format, tool_calls=[call])))
        elif isinstance(part, Media):
            data = (part.data or "") + text
            if not data:
                self._lose([lose_part(part, path)])
                return
            image: dict[str, Any] = {"images": [data]} if self._format == CHAT else {"image": data}
            out.append(self._line(words(self._format, **image)))

    # Ends

    def _stop(self, event: ChoiceStop, out: list[bytes]) -> None:
        if event.choice:
            return
        self._stopped = event
        if self._own:
            self._last = dict(event.extra)
        else:
            self._lose(foreign(event.extra, ""))

    def _error(self, error: GatewayError) -> bytes:
        return error_line(error)

    def _end(self, out: list[bytes]) -> None:
        losses: list[Loss] = []
        stop = self._stopped
        value: dict[str, Any] = {**self._envelope, **words(self._format), "done": True}
        try:
            if stop is None:
                losses.append(Loss("minted", "done_reason", "stop", "the provider gave no reason"))
                value["done_reason"] = "stop"
            elif not self._own or stop.raw_reason or stop.reason == "error":
                value["done_reason"] = done_reason(stop.reason, stop.raw_reason, self._own, losses)
        except UpstreamError as error:
            out.append(error_line(error))
            return
        value.update(write_usage(self._usage, losses))
        value.update(self._last)
        self._lose(losses)
        out.append(line(encode_json(value)))
