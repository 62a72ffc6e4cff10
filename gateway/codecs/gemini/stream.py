"""A provider's stream into chunks: server-sent events with ``alt=sse``, else a JSON array that grows.

Events have no end mark: an answer is whole when each candidate has its ``finishReason`` (or the prompt was blocked) and the
body ended; without one it is cut. An array has its bracket besides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from ...errors import Cut, DecodeError, Malformed, UpstreamError
from ...ir.event import Chunk, Event, Keepalive, Wire
from ...wire.array import ArrayFramer, NotAnArray
from ...wire.members import json_object
from ...wire.sse import FrameTooLarge, SseFramer, parse_frame, spans
from ..base import MAX_FRAME_BYTES
from .members import FORMAT
from .reader import AnswerReader
from .usage import read_usage

SSE: Final = Wire(FORMAT, "sse")
ARRAY: Final = Wire(FORMAT, "array")


class _StreamDecoder(ABC):
    """What both framings share. After ``error`` is set nothing more comes out."""

    __slots__ = ("_reader", "_wire", "error")

    def __init__(self, wire: Wire) -> None:
        self.error: UpstreamError | None = None
        self._wire = wire
        self._reader = AnswerReader()

    def _chunk(self, raw: bytes, frames: Sequence[bytes]) -> Chunk | None:
        """The chunk of these frames, or of those before the first that fails."""
        events: list[Event] = []
        for number, frame in enumerate(frames):
            data = self._payload(frame)
            if not data.strip():
                events.append(Keepalive())
                continue
            if (words := self._reader.words(data)) is not None:
                events.append(words)
                continue
            try:
                events += self._reader.read(data)
            except DecodeError as error:
                self.error = Malformed(f"a stream event is malformed: {error.message}", details=error.path)
            except UpstreamError as error:
                self.error = error
            if self.error is not None:
                start, end = self._span(raw, frames, number)
                if self.error.format == FORMAT:
                    self.error.raw = raw[start:end] if self._wire == SSE else data
                events += self._reader.owed()
                return Chunk(tuple(events), raw[:start], self._wire) if start or events else None
        return Chunk(tuple(events), raw, self._wire, None, read_usage, self._reader.unread)

    def _owed(self) -> Chunk | None:
        """What is left to say when the stream failed."""
        owed = self._reader.owed()
        return Chunk(tuple(owed), b"", self._wire) if owed else None

    @abstractmethod
    def _payload(self, frame: bytes) -> bytes:
        """Return the JSON in a frame; nothing for one without any."""

    @abstractmethod
    def _span(self, raw: bytes, frames: Sequence[bytes], number: int) -> tuple[int, int]:
        """Return where frame ``number`` stands in the bytes ``raw`` that the frames were cut from."""

    def _cut(self) -> Cut:
        what = "its finishReason" if self._reader.has_answer else "an answer"
        return Cut(f"the provider's stream ended without {what}")


class GeminiSseDecoder(_StreamDecoder):
    """Decodes a stream of server-sent events; see StreamDecoder."""

    __slots__ = ("_framer",)

    def __init__(self) -> None:
        super().__init__(SSE)
        self._framer = SseFramer(MAX_FRAME_BYTES)

    def feed(self, data: bytes) -> Chunk | None:
        """Decode the whole frames in ``data``; see StreamDecoder.feed."""
        if self.error is not None:
            return None
        # Most reads are one whole frame of words. A line end before the blank line: not so simple.
        if data.startswith(b"data: {") and not self._framer.tail:
            payload = data[6:-4] if data.endswith(b"}\r\n\r\n") else data[6:-2] if data.endswith(b"}\n\n") else b"\n"
            if 10 not in payload and 13 not in payload and (words := self._reader.words(payload)) is not None:
                return Chunk((words,), data, SSE, None, read_usage, self._reader.unread)
        try:
            raw, frames = self._framer.feed(data)
        except FrameTooLarge as error:
            self.error = Malformed(f"the provider sent {error}")
            return self._owed()
        return self._chunk(raw, frames) if frames else None

    def close(self) -> Chunk | None:
        """The bytes ended, which is the only end that there is; see StreamDecoder.close."""
        if self.error is not None:
            return None
        half = self._framer.half
        raw, frames = self._framer.close()
        if frames and half and not json_object(self._payload(frames[0])):
            # The connection ended in a frame. What is left of it no client could read.
            raw, frames = b"", []
        return self._last(self._chunk(raw, frames) if frames else None, raw)

    def _last(self, chunk: Chunk | None, raw: bytes) -> Chunk | None:
        """The last chunk, with the end that nothing in the bytes tells."""
        if self.error is None and not self._reader.is_complete:
            self.error = self._cut()
        if self.error is not None:
            owed = self._reader.owed()
            if not owed:
                return chunk
            return Chunk(tuple(owed), b"", SSE) if chunk is None else Chunk((*chunk.events, *owed), chunk.raw, SSE)
        events = () if chunk is None else chunk.events
        return Chunk((*events, *self._reader.end(mark=True)), raw, SSE)

    def _payload(self, frame: bytes) -> bytes:
        return parse_frame(frame)[1] or b""

    def _span(self, raw: bytes, frames: Sequence[bytes], number: int) -> tuple[int, int]:
        return spans(raw, frames)[number]


class GeminiArrayDecoder(_StreamDecoder):
    """Decodes a JSON array that grows; see StreamDecoder."""

    __slots__ = ("_ended", "_framer")

    def __init__(self) -> None:
        super().__init__(ARRAY)
        self._framer = ArrayFramer(MAX_FRAME_BYTES)
        self._ended = False

    def feed(self, data: bytes) -> Chunk | None:
        """Decode the whole elements in ``data``; see StreamDecoder.feed."""
        if self.error is not None:
            return None
        try:
            raw, frames = self._framer.feed(data)
        except (FrameTooLarge, NotAnArray) as error:
            self.error = Malformed(f"the provider sent {error}")
            return self._owed()
        if not raw:
            return None
        chunk = self._chunk(raw, frames)
        if chunk is None or not self._framer.ended or self._ended or self.error is not None:
            return chunk
        self._ended = True
        if not self._reader.is_complete:
            self.error = self._cut()
            # The bracket would be a clean end: it is kept back.
            end = self._span(raw, frames, len(frames) - 1)[1] if frames else 0
            events = (*chunk.events, *self._reader.owed())
            return Chunk(events, raw[:end], ARRAY) if end or events else None
        return Chunk((*chunk.events, *self._reader.end(mark=True)), raw, ARRAY)

    def close(self) -> Chunk | None:
        """The bytes ended; before the closing bracket the answer is cut."""
        if self.error is None and not self._ended:
            self.error = Cut("the provider's stream ended before its array did")
            return self._owed()
        return None

    def _payload(self, frame: bytes) -> bytes:
        return frame

    def _span(self, raw: bytes, frames: Sequence[bytes], number: int) -> tuple[int, int]:
        """Where element ``number`` stands in ``raw``: between elements there are only commas and white space."""
        end = 0
        for frame in frames[:number]:
            end = raw.index(frame, end) + len(frame)
        return end, raw.index(frames[number], end) + len(frames[number])
