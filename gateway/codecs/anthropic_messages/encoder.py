"""An answer of any format as this format's event stream, for one caller.

The order is the API's own: message_start, blocks one after the other, message_delta, message_stop. What other formats do
differently is put in order here: parts that are open at the same time (parallel tool calls in turn) wait for each other
and lose nothing, blocks are numbered without gaps, the reason to stop waits for the usage that comes after it.
Only message_start cannot wait: it says zero where the usage is not known yet, and message_delta tells all of it.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from ...errors import GatewayError, Malformed, upstream_error
from ...ir.event import (
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
)
from ...ir.loss import Loss
from ...ir.message import NO_EXTRA, Part, ToolCall
from ..base import AnswerContext
from .answer import AnswerRenderer, Growth, json_text
from .errors import error_frame
from .members import FORMAT
from .stream import BESIDE, WIRE

PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP: Final = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

MAX_HELD_BYTES: Final = 8 * 1024 * 1024
"""What parts may amount to that wait for the open one. Above it the answer fails: nothing may be dropped silently."""

_DELTAS: Final[dict[Growth, bytes]] = {
    "text": b'{"type":"text_delta","text":',
    "thinking": b'{"type":"thinking_delta","thinking":',
    "input": b'{"type":"input_json_delta","partial_json":',
    "custom": b'{"type":"input_json_delta","partial_json":',
}
_BLANKS: Final = bytes.maketrans(b"\r\n", b"  ")
_encode = msgspec.json.encode


class MessagesStreamEncoder:
    """Encodes one stream; see StreamEncoder."""

    __slots__ = (
        "_ahead",
        "_answer",
        "_calls",
        "_context",
        "_diverged",
        "_ended",
        "_failed",
        "_finished",
        "_growth",
        "_head",
        "_held",
        "_held_bytes",
        "_next",
        "_number",
        "_open",
        "_patch",
        "_start",
        "_started",
        "_stop",
        "_usage",
        "losses",
    )

    ping = PING

    def __init__(self, context: AnswerContext) -> None:
        self._context = context
        self._answer = AnswerRenderer("", context)
        self.losses: list[Loss] = self._answer.losses
        self._start: ResponseStart | None = None
        self._started = False
        self._finished = False
        self._ended = False
        self._failed: GatewayError | None = None
        self._diverged = False
        self._open: int | None = None
        self._number = 0
        self._next = 0
        self._growth: Growth = ""
        self._head = b""
        self._held: dict[int, list[Event]] = {}
        self._held_bytes = 0
        self._calls: list[Part] = []
        self._stop: ChoiceStop | None = None
        self._usage: Usage | None = None
        self._ahead: Usage | None = None
        self._patch: dict[str, Raw] = {}

    def encode(self, chunk: Chunk) -> bytes:
        """Return the bytes for ``chunk``. Raises Malformed when parts that wait are above MAX_HELD_BYTES."""
        if chunk.raw is not None and chunk.wire == WIRE and self._follow(chunk):
            return chunk.raw
        if self._ended or self._failed is not None:
            return b""
        events = chunk.events
        if len(events) == 1 and type(event := events[0]) is PartDelta and event.index == self._open and event.text:
            if event.logprobs is not None:
                self._lose_logprobs()
            return b"%b%b}}\n\n" % (self._head, self._words(event.text))
        if not self._started:
            self._ahead = next((event.usage for event in events if isinstance(event, UsageReport)), None)
        out: list[bytes] = []
        for event in events:
            if type(event) is PartDelta and event.index == self._open:
                if event.text:
                    out.append(b"%b%b}}\n\n" % (self._head, self._words(event.text)))
                    if event.logprobs is not None:
                        self._lose_logprobs()
            else:
                self._write(event, out)
        if self._start is not None and not self._started:
            self._begin(out)
        return b"".join(out)

    def close(self, error: GatewayError | None) -> bytes:
        """Return what is still owed: the rest of a clean end, or the error event and nothing after it."""
        if self._ended:
            return b""
        self._ended = True
        error = error or self._failed
        if error is not None:
            return b"" if error.kind == "cancelled" else error_frame(error, self._context.request_id)
        out: list[bytes] = []
        self._finish(out)
        out.append(STOP)
        return b"".join(out)

    def _follow(self, chunk: Chunk) -> bool:
        """Keep track of a chunk of our own wire; False when it must be written anew because of what went before."""
        if self._diverged or self._stop is not None or self._failed is not None:
            return False
        marks = [event for event in chunk.events if type(event) is not PartDelta]
        if self._started and any(isinstance(event, ResponseStart) for event in marks):
            self._diverged = True
            return False
        for event in marks:
            if isinstance(event, PartStart):
                opening = self._answer.opening(event.part, event.index)
                self._set_open(event.index, event.index, opening.growth if opening is not None else "")
                if isinstance(event.part, ToolCall):
                    self._calls.append(event.part)
            elif isinstance(event, PartStop):
                if event.index == self._open:
                    self._open = None
            elif isinstance(event, ResponseStart):
                self._started = True
                self._answer.format = FORMAT
            elif isinstance(event, UsageReport):
                self._usage = event.usage
            elif isinstance(event, ChoiceStop):
                self._finished = True
            elif isinstance(event, Terminator):
                self._ended = True
        return True

    def _set_open(self, index: int, number: int, growth: Growth) -> None:
        self._open, self._number, self._growth, self._next = index, number, growth, number + 1
        if growth:
            head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b'
            self._head = head % (number, _DELTAS[growth])

    def _words(self, text: str) -> bytes:
        """``text`` as the JSON string of a delta."""
        return _encode(json_text(text).decode()) if self._growth == "custom" else _encode(text)

    def _write(self, event: Event, out: list[bytes]) -> None:
        """Write one event, or keep it until it may stand."""
        if isinstance(event, (PartStart, PartDelta, PartPatch, PartStop)):
            self._write_part(event, out)
        elif isinstance(event, ResponseStart):
            if self._start is not None or self._started:
                self._diverged = True
            else:
                self._start = event
                self._answer.format = event.format
        elif isinstance(event, UsageReport):
            self._usage = event.usage
        elif isinstance(event, ChoiceStop):
            self._write_stop(event)
        elif isinstance(event, ResponsePatch):
            self._patch.update(self._answer.own_extra(event.extra, ""))
        elif isinstance(event, ChoicePatch):
            self._answer.drop_extra(event.extra, f"choices[{event.choice}].message")
        elif isinstance(event, Keepalive):
            out.append(PING)
        elif isinstance(event, Alien):
            if event.format != FORMAT:
                self._answer.lose("lost", "", event.kind or "frame", "a frame of another format")
            else:
                self._begin(out)
                out.append(b"event: %b\ndata: %b\n\n" % (" ".join(event.kind.split()).encode(), _line(Raw(event.data))))
        elif not self._ended and self._failed is None:
            self._finish(out)
            if isinstance(event, Terminator):
                out.append(STOP)
                self._ended = True

    def _write_stop(self, event: ChoiceStop) -> None:
        if event.choice:
            self._lose_choice(event.choice)
        elif event.reason == "error":
            word = event.raw_reason or "error"
            self._failed = upstream_error("upstream_error", f"the provider ended the answer with an error ({word})")
        else:
            self._stop = event

    def _write_part(self, event: PartStart | PartDelta | PartPatch | PartStop, out: list[bytes]) -> None:
        if event.choice:
            self._lose_choice(event.choice)
            return
        index = event.index
        if isinstance(event, PartDelta) and event.logprobs is not None:
            self._lose_logprobs()
        if isinstance(event, PartStart):
            self._begin(out)
            if self._open is None:
                self._open_block(event, out)
            else:
                self._held[index] = [event]
                self._diverged = True
        elif index == self._open:
            self._write_open(event, out)
        elif (waiting := self._held.get(index)) is not None:
            # A citation may come after its part's stop: a part that waits takes it still.
            waiting.insert(len(waiting) - isinstance(waiting[-1], PartStop), event)
            self._held_bytes += _size(event)
            if self._held_bytes > MAX_HELD_BYTES:
                raise Malformed(f"the provider interleaves parts of more than {MAX_HELD_BYTES} bytes")
        elif isinstance(event, PartPatch) and event.citation is not None:
            self._answer.lose(
                "lost", f"content[{index}].citations", "citations", "they came after their text was closed"
            )

    def _open_block(self, event: PartStart, out: list[bytes]) -> None:
        number = self._next
        opening = self._answer.opening(event.part, number)
        if opening is None:
            self._diverged = True
            return
        if number != event.index:
            self._diverged = True
        self._set_open(event.index, number, opening.growth)
        if isinstance(event.part, ToolCall):
            self._calls.append(event.part)
        start = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
        out.append(start % (number, _line(opening.block)))
        if opening.growth == "custom":
            out.append(b"%b%b}}\n\n" % (self._head, _encode('{"input":"')))
        if opening.text:
            out.append(b"%b%b}}\n\n" % (self._head, self._words(opening.text)))

    def _write_open(self, event: PartDelta | PartPatch | PartStop, out: list[bytes]) -> None:
        if isinstance(event, PartDelta):
            if event.text and self._growth:
                out.append(b"%b%b}}\n\n" % (self._head, self._words(event.text)))
        elif isinstance(event, PartPatch):
            self._write_patch(event, out)
        else:
            self._close_block(out)
            self._next_held(out)

    def _close_block(self, out: list[bytes]) -> None:
        if self._growth == "custom":
            out.append(b"%b%b}}\n\n" % (self._head, _encode('"}')))
        stop = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
        out.append(stop % self._number)
        self._open = None

    def _next_held(self, out: list[bytes]) -> None:
        """Write the parts that waited, up to one that is still open."""
        while self._open is None and self._held:
            index = next(iter(self._held))
            events = self._held.pop(index)
            self._held_bytes -= sum(_size(event) for event in events[1:])
            start = events[0]
            assert isinstance(start, PartStart)
            self._open_block(start, out)
            for event in events[1:]:
                if self._open != index:
                    break
                assert isinstance(event, (PartDelta, PartPatch, PartStop))
                if isinstance(event, PartStop):
                    self._close_block(out)
                else:
                    self._write_open(event, out)

    def _write_patch(self, event: PartPatch, out: list[bytes]) -> None:
        deltas: list[object] = []
        path = f"content[{self._number}]"
        if event.signature is not None:
            # Only what this API signed may stand as its signature.
            if self._answer.format == FORMAT and self._growth == "thinking":
                deltas.append({"type": "signature_delta", "signature": event.signature})
            else:
                self._answer.lose("lost", path, "reasoning signature", "belongs to another provider")
        if event.citation is not None:
            if event.citation.format == FORMAT:
                deltas.append({"type": "citations_delta", "citation": Raw(event.citation.raw)})
            else:
                self._answer.lose("lost", f"{path}.citations", "citations", "of another format")
        if event.transcript is not None:
            self._answer.lose("lost", path, "transcript", "there is no audio here")
        extra = self._answer.own_extra(event.extra, path)
        deltas += [raw for name, raw in extra.items() if name != BESIDE]
        frame = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n'
        out += [frame % (self._number, _line(delta)) for delta in deltas]
        if BESIDE in extra and self._growth:
            # Unknown members of an event need one to stand in: a delta of no words.
            out.append(b'%b""},%b\n\n' % (self._head, _line(extra[BESIDE]).lstrip()[1:].rstrip()))

    def _begin(self, out: list[bytes]) -> None:
        """Write message_start, once: when something stands after it, or at the end of the chunk it came in."""
        if self._started:
            return
        self._started = True
        start = self._start or ResponseStart()
        message: dict[str, object] = {
            **self._answer.envelope(start),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._answer.usage(self._usage or self._told_ahead()),
        }
        for name, raw in self._answer.own_extra(start.extra, "").items():
            message.setdefault(name, raw)
        frame = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n'
        out.append(frame % _line(message))

    def _told_ahead(self) -> Usage | None:
        """What a usage further on in this very chunk says of the input; the output has only begun."""
        if self._ahead is None:
            return None
        return replace(self._ahead, output_tokens=0, reasoning_output_tokens=None, format="", raw=NO_EXTRA)

    def _finish(self, out: list[bytes]) -> None:
        """Close what is open and write message_delta, once."""
        self._begin(out)
        if self._finished:
            return
        self._finished = True
        while self._open is not None or self._held:
            if self._open is not None:
                self._close_block(out)
            self._next_held(out)
        stop = self._stop
        delta = self._answer.stop(
            self._calls,
            stop.reason if stop else None,
            stop.raw_reason if stop else "",
            stop.stop_sequence if stop else None,
        )
        if stop is not None:
            for name, raw in self._answer.own_extra(stop.extra, "").items():
                delta.setdefault(name, raw)
        body: dict[str, object] = {"type": "message_delta", "delta": delta, "usage": self._answer.usage(self._usage)}
        for name, raw in self._patch.items():
            body.setdefault(name, raw)
        out.append(b"event: message_delta\ndata: %b\n\n" % _line(body))
        self._stop = None

    def _lose_logprobs(self) -> None:
        self._answer.lose("lost", "choices[0].logprobs", "logprobs", "this format has none")

    def _lose_choice(self, number: int) -> None:
        self._answer.lose("lost", f"choices[{number}]", "choices", "this format has one answer")


def _size(event: Event) -> int:
    """Bytes that a waiting event keeps alive, about."""
    return 64 + (len(event.text) if isinstance(event, PartDelta) else 0)


def _line(value: object) -> bytes:
    """``value`` as JSON on one line. Bytes that came from elsewhere may be indented; in JSON a line end is only white space."""
    data = _encode(value)
    return data.translate(_BLANKS) if b"\n" in data or b"\r" in data else data
