"""A provider's event stream into chunks.

What an event is, its JSON ``type`` says; what it means, ``event_reader``. Here frames are found, and faults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from ...errors import Cut, DecodeError, Malformed, UpstreamError
from ...ir.event import (
    Alien,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
)
from ...wire.members import BAD_JSON, Members, json_object
from ...wire.sse import FrameTooLarge, SseFramer, parse_frame, spans
from ...wire.surrogates import mend_halves
from ..base import MAX_FRAME_BYTES
from .errors import error_in
from .event_reader import EventReader
from .members import FORMAT
from .stream_encoder import STREAMED


class _Delta(Struct, forbid_unknown_fields=True, tag_field="type", gc=False, kw_only=True):
    """More words and nothing besides. The order is OpenAI's, since the decoder looks for the next member first."""

    sequence_number: int = 0
    item_id: str = ""
    output_index: int


class _TextDelta(_Delta, tag="response.output_text.delta", gc=False, kw_only=True):
    content_index: int
    delta: str
    logprobs: tuple[()] = ()
    obfuscation: str = ""


class _SummaryDelta(_Delta, tag="response.reasoning_summary_text.delta", gc=False, kw_only=True):
    summary_index: int
    delta: str
    obfuscation: str = ""


class _ReasoningDelta(_Delta, tag="response.reasoning_text.delta", gc=False, kw_only=True):
    content_index: int
    delta: str
    obfuscation: str = ""


class _ArgumentsDelta(_Delta, tag="response.function_call_arguments.delta", gc=False, kw_only=True):
    delta: str
    obfuscation: str = ""


_DATA: Final = b"\ndata: "
_TEXT: Final = b"event: response.output_text.delta\ndata: "
_BEHIND: Final = len(_TEXT)
_TEXT_DELTA: Final = msgspec.json.Decoder(_TextDelta)
_Other: TypeAlias = _SummaryDelta | _ReasoningDelta | _ArgumentsDelta
_OTHER: Final[dict[bytes, Callable[[bytes], _Other]]] = {
    b"event: response.reasoning_summary_text.delta": msgspec.json.Decoder(_SummaryDelta).decode,
    b"event: response.reasoning_text.delta": msgspec.json.Decoder(_ReasoningDelta).decode,
    b"event: response.function_call_arguments.delta": msgspec.json.Decoder(_ArgumentsDelta).decode,
}
"""What reads words that are no text, by the line before them."""


class ResponsesStreamDecoder:
    """Decodes one stream; see StreamDecoder. After ``error`` is set nothing more comes out."""

    __slots__ = ("_framer", "_reader", "error")

    def __init__(self) -> None:
        self.error: UpstreamError | None = None
        self._framer = SseFramer(MAX_FRAME_BYTES)
        self._reader = EventReader()

    def feed(self, data: bytes) -> Chunk | None:
        """Decode the whole frames in ``data``; see StreamDecoder.feed."""
        if self.error is not None:
            return None
        # Most reads are one whole frame of words.
        if data.endswith(b"}\n\n") and not self._framer.tail:
            words = self._words(data[_BEHIND:-2]) if data.startswith(_TEXT) else self._other_words(data[:-2])
            if words is not None:
                return Chunk((words,), data, STREAMED)
        try:
            raw, frames = self._framer.feed(data)
        except FrameTooLarge as error:
            self.error = Malformed(f"the provider sent {error}", format=FORMAT)
            return None
        return self._decode(raw, frames) if frames else None

    def close(self) -> Chunk | None:
        """The bytes ended; without the last event the answer is cut, and so is a frame that breaks off."""
        if self.error is not None:
            return None
        half = self._framer.half
        raw, frames = self._framer.close()
        if frames and half and not json_object(parse_frame(frames[0])[1] or b""):
            # The connection ended in a frame. What is left of it no client could read.
            raw, frames = b"", []
        chunk = self._decode(raw, frames) if frames else None
        if not self._reader.ended and self.error is None:
            self.error = Cut("the provider's stream ended before the response was complete", format=FORMAT)
        return chunk

    def _words(self, data: bytes) -> PartDelta | None:
        """What the data of an event with the name of a text's delta says, if it is more of an open text and nothing besides."""
        if 10 in data or 13 in data:
            return None  # in JSON a line end is white space, here it would end the line
        try:
            found = _TEXT_DELTA.decode(data)
        except BAD_JSON:
            return None
        text = found.delta
        return self._reader.words(found.output_index, ("content", found.content_index), text) if text else None

    def _other_words(self, frame: bytes) -> PartDelta | None:
        """The same for more of a thought or of arguments, of a frame with its name."""
        name, _, data = frame.partition(_DATA)
        read = _OTHER.get(name)
        if read is None or 10 in data or 13 in data:
            return None
        try:
            found = read(data)
        except BAD_JSON:
            return None
        key = ("call", 0)
        if isinstance(found, _SummaryDelta):
            key = ("summary", found.summary_index)
        elif isinstance(found, _ReasoningDelta):
            key = ("words", found.content_index)
        return self._reader.words(found.output_index, key, found.delta) if found.delta else None

    def _decode(self, raw: bytes, frames: list[bytes]) -> Chunk | None:
        events: list[Event] = []
        for number, frame in enumerate(frames):
            words = self._words(frame[_BEHIND:]) if frame.startswith(_TEXT) else self._other_words(frame)
            if words is not None:
                events.append(words)
                continue
            mark = len(events)
            try:
                self._frame(frame, events)
            except DecodeError as error:
                self.error = Malformed(f"a stream event is malformed: {error.message}", details=error.path)
            except UpstreamError as error:
                self.error = error
            if self.error is not None:
                del events[mark:]
                start, end = spans(raw, frames)[number]
                if self.error.raw is not None:
                    self.error.raw = raw[start:end]
                return Chunk(tuple(events), raw[:start], STREAMED) if start else None
        return Chunk(tuple(events), raw, STREAMED)

    def _frame(self, frame: bytes, events: list[Event]) -> None:
        """Decode any frame. Raises DecodeError for one that makes no sense, UpstreamError for an in-band error."""
        name, data = parse_frame(frame)
        if data is None or not data.strip() or (data == b"[DONE]" and self._reader.ended):
            events.append(Keepalive())
            return
        data = mend_halves(data)
        it = Members(data, "")
        kind = it.string("type") or name.decode(errors="replace")
        if self._reader.ended:
            events.append(Keepalive())
        elif self._reader.read(kind, it, events):
            return
        elif kind in ("error", "response.failed") or name == b"error" or (not kind and it.raw("error") is not None):
            raise error_in(data) or Malformed("the provider sent an error event that is no error object", format=FORMAT)
        else:
            events.append(Alien(FORMAT, kind, data))
