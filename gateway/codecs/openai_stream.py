"""Bytes of a stream that ends with ``data: [DONE]`` into chunks: the one decoder of both Completions APIs.

Source: OpenAI's streaming reference: frames of one ``data:`` line each, after the last choice's finish reason possibly
one with usage and no choices, then ``data: [DONE]``. Some vendors never send ``[DONE]``: an end after the finish reason of
every choice seen is a clean one here, without a Terminator; any other end is ``cut``. With several prompts or ``n`` the first
choice may end before another one is heard of; that end cannot be told from a whole one.
"""

from __future__ import annotations

from typing import Protocol

from ..errors import Cut, Malformed, UpstreamError
from ..ir.event import Chunk, Event, Keepalive, PartDelta, Wire
from ..wire.members import json_object
from ..wire.sse import FrameTooLarge, SseFramer, parse_frame, spans


class FrameReader(Protocol):
    """What reads the payloads of one answer, in their order."""

    started: bool
    usage_only: bool
    """Whether the last frame carried usage and nothing besides."""

    @property
    def finished(self) -> bool:
        """Whether every choice seen, and there was one, has its finish reason."""
        ...

    def words(self, data: bytes, /) -> PartDelta | None:
        """Return what a payload says if it is more of an open text and nothing else; else change nothing."""
        ...

    def frame(self, data: bytes, name: bytes, out: list[Event]) -> None:
        """Append the events of a payload. Raises UpstreamError: malformed, or the error it tells."""
        ...

    def end(self, out: list[Event], *, terminator: bool = True) -> None:
        """Append what the end of the answer says."""
        ...


class DoneStreamDecoder:
    """One stream of ``wire``. ``hide_usage`` drops the bytes, not the events, of a frame that carries usage alone."""

    __slots__ = ("_done", "_framer", "_hide_usage", "_reader", "_wire", "error")

    def __init__(self, wire: Wire, reader: FrameReader, *, hide_usage: bool, max_frame_bytes: int) -> None:
        self.error: UpstreamError | None = None
        self._wire = wire
        self._framer = SseFramer(max_frame_bytes)
        self._reader = reader
        self._hide_usage = hide_usage
        self._done = False

    def feed(self, data: bytes) -> Chunk | None:
        """Decode the whole frames in ``data``. Never raises: the frames before a fault come out, then ``error`` is set."""
        if self.error is not None:
            return None
        # Most reads are whole frames of words. A CR anywhere, or something kept: not so simple.
        if data.startswith(b"data: {") and data.endswith(b"}\n\n") and 13 not in data and not self._framer.tail:
            payload = data[6:-2]
            if 10 not in payload:
                if (words := self._reader.words(payload)) is not None:
                    return Chunk((words,), data, self._wire)
            elif (many := self._all_words(payload)) is not None:
                return Chunk(many, data, self._wire)
        try:
            raw, frames = self._framer.feed(data)
        except FrameTooLarge as error:
            self.error = Malformed(f"the provider sent {error}", format=self._wire.format)
            return None
        return self._decode(raw, frames) if frames else None

    def close(self) -> Chunk | None:
        """The bytes ended: decode what is left, and say whether the answer was whole."""
        if self.error is not None:
            return None
        half = self._framer.half
        raw, frames = self._framer.close()
        if frames and half and not _is_whole(frames[0]):
            # The connection ended in a frame. What is left of it no client could read.
            raw, frames = b"", []
        chunk = self._decode(raw, frames) if raw else None
        if self._done or self.error is not None:
            return chunk
        if not self._reader.finished:
            self.error = Cut("the connection ended before the answer did", format=self._wire.format)
            return chunk
        self._done = True
        out: list[Event] = list(chunk.events) if chunk is not None else []
        self._reader.end(out, terminator=False)
        return Chunk(tuple(out), chunk.raw if chunk is not None else b"", self._wire)

    def _all_words(self, payloads: bytes) -> tuple[Event, ...] | None:
        """The events of whole frames if each is one line, and all of them are words; nothing has changed if not."""
        words, events = self._reader.words, []
        for payload in payloads.split(b"\n\ndata: "):
            # In JSON a line end is white space, here it would end the line.
            if 10 in payload or (event := words(payload)) is None:
                return None
            events.append(event)
        return tuple(events)

    def _decode(self, raw: bytes, frames: list[bytes]) -> Chunk | None:
        out: list[Event] = []
        hidden: list[int] = []
        reader = self._reader
        # Nearly every frame is one data line: told apart here without a call, CRs looked for once a read.
        plain = b"\r" not in raw
        number = mark = 0
        data: bytes | None
        try:
            for number, frame in enumerate(frames):
                mark = len(out)
                if plain and frame.startswith(b"data: ") and b"\n" not in frame:
                    name, data = b"", frame[6:]
                else:
                    name, data = parse_frame(frame)
                if data is None or not data:
                    out.append(Keepalive())
                elif self._done:
                    continue
                elif data == b"[DONE]":
                    self._finish(out)
                else:
                    reader.frame(data, name, out)
                    if reader.usage_only and self._hide_usage:
                        hidden.append(number)
        except UpstreamError as error:
            del out[mark:]
            start, end = spans(raw, frames)[number]
            if error.raw is not None:
                error.raw = raw[start:end]
            self.error = error
            raw = raw[:start]
            if not raw and not out:
                return None
        if hidden:
            places = enumerate(spans(raw, frames))
            raw = b"".join(raw[start:end] for number, (start, end) in places if number not in hidden)
        return Chunk(tuple(out), raw, self._wire)

    def _finish(self, out: list[Event]) -> None:
        if not self._reader.started:
            raise Malformed("the stream ended before it began", format=self._wire.format)
        self._reader.end(out)
        self._done = True


def _is_whole(frame: bytes) -> bool:
    """Whether a frame without its blank line says all it was to say."""
    _, data = parse_frame(frame)
    return data is not None and (data == b"[DONE]" or json_object(data))
