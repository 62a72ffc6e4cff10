"""A provider's event stream into chunks.

Source: "Streaming Messages": message_start, then per block content_block_start, content_block_delta*, content_block_stop,
then message_delta and message_stop, with ping and error anywhere. What an event is, its JSON ``type`` says.

A block that is ``Opaque`` here is given out at its stop, frames and all, with its deltas put into it: it has no words
that could be sent ahead. Frames of the common types decode into typed Structs that refuse unknown members; a refused
frame is read member by member, and what nobody knows is kept.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from ...errors import Cut, DecodeError, Malformed, UpstreamError
from ...ir.event import (
    Alien,
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStop,
    Terminator,
    UsageReport,
    Wire,
)
from ...ir.message import NO_EXTRA, Extra, Opaque, ToolCall
from ...wire.sse import FrameTooLarge, SseFramer, parse_frame, spans
from ...wire.surrogates import mend_halves
from ..base import MAX_FRAME_BYTES
from .blocks import read_citation
from .errors import in_band_error
from .members import BAD_JSON, FORMAT, Members, json_object
from .response import TELLS_LATE, TELLS_STOP, read_answer_block, read_start, take_told
from .usage import read_usage, stop_reason

WIRE: Final = Wire(FORMAT, "sse")
BESIDE: Final = "content_block_delta"
"""Names, in the extra of a PartPatch, unknown members beside ``delta``; every other name is that of an unknown delta."""


class _TextDelta(Struct, tag="text_delta", forbid_unknown_fields=True, gc=False):
    text: str


class _ThinkingDelta(Struct, tag="thinking_delta", forbid_unknown_fields=True, gc=False):
    thinking: str


class _InputDelta(Struct, tag="input_json_delta", forbid_unknown_fields=True, gc=False):
    partial_json: str


class _Delta(Struct, tag="content_block_delta", forbid_unknown_fields=True, gc=False):
    index: int
    delta: _TextDelta | _ThinkingDelta | _InputDelta


_DELTA: Final = b"event: content_block_delta\ndata: "
_COMMON: Final = msgspec.json.Decoder(_Delta)


class _Held:
    """An opaque block on its way: its JSON at the start, and what its deltas add."""

    __slots__ = ("fragments", "members", "part")

    def __init__(self, part: Opaque) -> None:
        self.part = part
        self.members: dict[str, Raw] = {}
        self.fragments: list[str] = []

    def add(self, delta: Members, kind: str) -> None:
        if kind == "input_json_delta":
            self.fragments.append(delta.take_string("partial_json") or "")
            return
        for name, raw in delta.rest.items():
            if bytes(raw) != b"null":
                self.members[name] = raw

    def done(self) -> Opaque:
        members = dict(self.members)
        if text := "".join(self.fragments):
            members["input"] = Raw(text.encode())
        if not members:
            return self.part
        whole = msgspec.json.decode(self.part.data, type=dict[str, Raw]) | members
        try:
            data = msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(whole), type=dict[str, Raw]))
        except BAD_JSON:
            # Input that was cut short: no JSON could hold it.
            return self.part
        return replace(self.part, data=data)


class MessagesStreamDecoder:
    """Decodes one stream; see StreamDecoder. After ``error`` is set nothing more comes out."""

    __slots__ = ("_bare", "_ended", "_framer", "_held", "_kept", "_kept_raw", "_usage", "error")

    def __init__(self) -> None:
        self.error: UpstreamError | None = None
        self._framer = SseFramer(MAX_FRAME_BYTES)
        self._ended = False
        self._usage: Extra = NO_EXTRA
        self._held: dict[int, _Held] = {}
        self._kept: list[Event] = []
        self._kept_raw: list[bytes] = []
        self._bare: dict[int, str] = {}

    def feed(self, data: bytes) -> Chunk | None:
        """Decode the whole frames in ``data``; see StreamDecoder.feed."""
        if self.error is not None:
            return None
        # Most reads are one whole frame of words. A line end before the blank line, or a CR anywhere: not so simple.
        if (
            data.startswith(_DELTA)
            and data.endswith(b"}\n\n")
            and 13 not in data
            and 10 not in (payload := data[len(_DELTA) : -2])
            and not self._framer.tail
            and not self._held
        ):
            try:
                common = _COMMON.decode(payload)
            except BAD_JSON:
                pass
            else:
                delta = common.delta
                if type(delta) is _TextDelta:
                    text = delta.text
                elif type(delta) is _InputDelta:
                    text = delta.partial_json
                    if text:
                        self._bare.pop(common.index, None)
                else:
                    assert isinstance(delta, _ThinkingDelta)
                    text = delta.thinking
                if text:
                    return Chunk((PartDelta(common.index, text),), data, WIRE)
        try:
            raw, frames = self._framer.feed(data)
        except FrameTooLarge as error:
            # The frames before it are gone with it only when they came in the same read.
            self.error = Malformed(f"the provider sent {error}")
            return None
        return self._decode(raw, frames) if frames else None

    def close(self) -> Chunk | None:
        """The bytes ended; without ``message_stop`` the answer is cut, and so is a frame that breaks off."""
        half = self._framer.half
        raw, frames = self._framer.close() if self.error is None else (b"", [])
        if frames and half and not json_object(parse_frame(frames[0])[1] or b""):
            # The connection ended in a frame. What is left of it no client could read.
            raw, frames = b"", []
        chunk = self._decode(raw, frames) if frames else None
        if not self._ended and self.error is None:
            self.error = Cut("the provider's stream ended without message_stop")
        if chunk is None and (self._kept or self._kept_raw):
            chunk = self._release(b"", [])
        return chunk

    def _decode(self, raw: bytes, frames: list[bytes]) -> Chunk | None:
        events: list[Event] = []
        mark = (0, 0) if self._held else None
        for number, frame in enumerate(frames):
            # A line end within the data: to a JSON reader white space, here the end of the line.
            if (
                frame.startswith(_DELTA)
                and 10 not in (data := frame[len(_DELTA) :])
                and 13 not in data
                and not self._held
            ):
                try:
                    common = _COMMON.decode(data)
                except BAD_JSON:
                    pass
                else:
                    delta = common.delta
                    if type(delta) is _TextDelta:
                        text = delta.text
                    elif type(delta) is _InputDelta:
                        text = delta.partial_json
                        if text:
                            self._bare.pop(common.index, None)
                    else:
                        assert isinstance(delta, _ThinkingDelta)
                        text = delta.thinking
                    if text:
                        events.append(PartDelta(common.index, text))
                    continue
            before = len(events)
            self._try_frame(frame, events)
            if self.error is not None:
                start, end = spans(raw, frames)[number]
                if self.error.format == FORMAT:
                    self.error.raw = raw[start:end]
                return self._release(raw[:start], events) if start or self._kept_raw else None
            if not self._held:
                mark = None
            elif mark is None:
                mark = number, before
        if mark is None:
            return self._release(raw, events)
        start = spans(raw, frames)[mark[0]][0]
        head = self._release(raw[:start], events[: mark[1]]) if start else None
        self._kept += events[mark[1] :]
        self._kept_raw.append(raw[start:])
        if sum(map(len, self._kept_raw)) > MAX_FRAME_BYTES:
            self.error = Malformed(f"the provider sent a block above {MAX_FRAME_BYTES} bytes")
        return head

    def _release(self, raw: bytes, events: list[Event]) -> Chunk:
        """A chunk of ``events``, and of what was kept before them."""
        if self._kept_raw:
            raw = b"".join((*self._kept_raw, raw))
            events = self._kept + events
            self._kept, self._kept_raw = [], []
        return Chunk(tuple(events), raw, WIRE)

    def _try_frame(self, frame: bytes, events: list[Event]) -> None:
        try:
            self._frame(frame, events)
        except DecodeError as error:
            self.error = Malformed(f"a stream event is malformed: {error.message}", details=error.path)
        except UpstreamError as error:
            self.error = error

    def _frame(self, frame: bytes, events: list[Event]) -> None:
        """Decode any frame. Raises DecodeError for one that makes no sense, UpstreamError for an in-band error."""
        name, data = parse_frame(frame)
        if data is None or not data.strip():
            # A comment, or a name without words: nothing was said.
            events.append(Keepalive())
            return
        if name == b"error":
            raise in_band_error(data, b"") or Malformed("the provider sent an error event that is no error object")
        it = Members(mend_halves(data), "")
        kind = it.take_string("type")
        match kind:
            case "content_block_delta":
                self._delta(it, events)
            case "content_block_start":
                self._start_block(it, events)
            case "content_block_stop":
                self._stop_block(_index(it), events)
            case "message_start":
                self._start(it, events)
            case "message_delta":
                self._message_delta(it, events)
            case "message_stop":
                self._ended = True
                _patch(it, events)
                events += (ResponseStop(), Terminator())
            case "ping":
                events.append(Keepalive())
            case "error":
                raise in_band_error(data, b"") or Malformed("the provider sent an error event that is no error object")
            case None if it.has("error"):
                raise in_band_error(data, b"") or Malformed("the provider sent an error event that is no error object")
            case _:
                events.append(Alien(FORMAT, kind or name.decode(errors="replace"), data))

    def _start(self, it: Members, events: list[Event]) -> None:
        message = it.take_object("message")
        if message is None:
            raise DecodeError("message", "expected an object, but it is missing")
        usage = message.take("usage")
        late = take_told(message, TELLS_LATE)
        for name in TELLS_STOP:
            if not message.has(name):
                message.rest.pop(name, None)
        events.append(read_start(message))
        self._report(usage, events)
        if late:
            events.append(ResponsePatch(late))
        _patch(it, events)

    def _start_block(self, it: Members, events: list[Event]) -> None:
        index = _index(it)
        raw = it.take("content_block")
        if raw is None:
            raise DecodeError("content_block", "expected an object, but it is missing")
        part = read_answer_block(raw, "content_block")
        if isinstance(part, Opaque):
            self._held[index] = _Held(part)
            return
        if isinstance(part, ToolCall):
            # Arguments come as deltas; what stands here counts only when none do.
            self._bare[index] = part.arguments or "{}"
            part = replace(part, arguments="")
        events.append(PartStart(index, part))
        _beside(it, index, events)

    def _delta(self, it: Members, events: list[Event]) -> None:
        index = _index(it)
        raw = it.rest.get("delta")
        delta = it.take_object("delta")
        if delta is None or raw is None:
            raise DecodeError("delta", "expected an object, but it is missing")
        kind = delta.need_string("type")
        if (held := self._held.get(index)) is not None:
            held.add(delta, kind)
            return
        if (member := _WORDS.get(kind)) is not None:
            text = delta.need_string(member)
            if text:
                self._bare.pop(index, None)
                events.append(PartDelta(index, text))
            _beside(it, index, events)
            if not delta.rest:
                return
            raw = Raw(msgspec.json.encode({"type": kind, member: "", **delta.rest}))
        elif kind == "signature_delta" and len(delta.rest) == 1:
            events.append(PartPatch(index, signature=delta.need_string("signature")))
            return
        elif kind == "citations_delta" and delta.has("citation"):
            citation = delta.take("citation")
            assert citation is not None
            events.append(PartPatch(index, citation=read_citation(citation, "delta.citation")))
            return
        events.append(PartPatch(index, extra={kind: raw}))

    def _stop_block(self, index: int, events: list[Event]) -> None:
        if (held := self._held.pop(index, None)) is not None:
            events.append(PartStart(index, held.done()))
        elif (text := self._bare.pop(index, None)) is not None:
            events.append(PartDelta(index, text))
        events.append(PartStop(index))

    def _message_delta(self, it: Members, events: list[Event]) -> None:
        delta = it.take_object("delta")
        if delta is not None:
            word, sequence = delta.take_string("stop_reason"), delta.take_string("stop_sequence")
            extra = {name: raw for name, raw in delta.rest.items() if bytes(raw) != b"null"}
            if word is not None:
                events.append(ChoiceStop(stop_reason(word), word, stop_sequence=sequence, extra=extra or NO_EXTRA))
            elif extra:
                events.append(ResponsePatch(extra))
        self._report(it.take("usage"), events)
        _patch(it, events)

    def _report(self, raw: Raw | None, events: list[Event]) -> None:
        usage = read_usage(raw, self._usage) if raw is not None else None
        if usage is not None:
            self._usage = usage.raw
            events.append(UsageReport(usage))


_WORDS: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def _index(it: Members) -> int:
    index = it.take_integer("index")
    if index is None or index < 0:
        raise DecodeError("index", "expected the number of a block")
    return index


def _beside(it: Members, index: int, events: list[Event]) -> None:
    """Keep the unknown members of a block's event, as those of the event ``content_block_delta``."""
    if it.rest:
        events.append(PartPatch(index, extra={BESIDE: Raw(msgspec.json.encode(it.rest))}))


def _patch(it: Members, events: list[Event]) -> None:
    told = {name: raw for name, raw in it.rest.items() if bytes(raw) != b"null"}
    if told:
        events.append(ResponsePatch(told))
