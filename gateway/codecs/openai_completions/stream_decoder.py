"""Bytes of a legacy Completions stream into chunks.

Frames of one ``data:`` line each, after the last choice's finish reason possibly one with usage and no choices, then
``data: [DONE]``. Some vendors never send ``[DONE]``: an end after the finish reason of every choice seen is a clean one here,
without a Terminator; any other end is ``cut``. With several prompts or ``n`` the first choice may end before another one is
heard of; that end cannot be told from a whole one.
"""

from __future__ import annotations

import re
from typing import Final

from ...errors import Cut, Malformed, UpstreamError
from ...ir.event import Chunk, Event, Keepalive, Wire
from ...wire.members import json_object
from ...wire.sse import FrameTooLarge, SseFramer, parse_frame
from ..base import MAX_FRAME_BYTES
from .answer_reader import AnswerReader
from .words import FORMAT

STREAMED: Final = Wire(FORMAT, "sse")
_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class CompletionsStreamDecoder:
    """One stream. ``hide_usage`` drops the bytes, not the events, of a frame that carries usage alone."""

    __slots__ = ("_done", "_framer", "_hide_usage", "_reader", "error")

    def __init__(self, *, hide_usage: bool = False, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.error: UpstreamError | None = None
        self._framer = SseFramer(max_frame_bytes)
        self._reader = AnswerReader()
        self._hide_usage = hide_usage
        self._done = False

    def feed(self, data: bytes) -> Chunk | None:
        """Decode the whole frames in ``data``. Never raises: the frames before a fault come out, then ``error`` is set."""
        if self.error is not None:
            return None
        # Most reads are one whole frame of words. A line end before the blank line, or a CR anywhere: not so simple.
        if (
            data.startswith(b"data: {")
            and data.endswith(b"}\n\n")
            and 13 not in data
            and 10 not in (payload := data[6:-2])
            and not self._framer.tail
            and (words := self._reader.words(payload)) is not None
        ):
            return Chunk((words,), data, STREAMED)
        try:
            raw, frames = self._framer.feed(data)
        except FrameTooLarge as error:
            self.error = Malformed(f"the provider sent {error}", format=FORMAT)
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
        chunk = self._decode(raw, frames) if frames else None
        if self._done or self.error is not None:
            return chunk
        if not self._reader.finished:
            self.error = Cut("the connection ended before the answer did", format=FORMAT)
            return chunk
        self._done = True
        out: list[Event] = list(chunk.events) if chunk is not None else []
        self._reader.end(out, terminator=False)
        return Chunk(tuple(out), chunk.raw if chunk is not None else b"", STREAMED)

    def _decode(self, raw: bytes, frames: list[bytes]) -> Chunk | None:
        out: list[Event] = []
        hidden: list[int] = []
        reader = self._reader
        number = mark = 0
        try:
            for number, frame in enumerate(frames):
                mark = len(out)
                name, data = parse_frame(frame)
                if not data:
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
            start, end = _spans(raw, frames)[number]
            if error.raw is not None:
                error.raw = raw[start:end]
            self.error = error
            raw = raw[:start]
            if not raw and not out:
                return None
        if hidden:
            spans = enumerate(_spans(raw, frames))
            raw = b"".join(raw[start:end] for number, (start, end) in spans if number not in hidden)
        return Chunk(tuple(out), raw, STREAMED)

    def _finish(self, out: list[Event]) -> None:
        if not self._reader.started:
            raise Malformed("the stream ended before it began", format=FORMAT)
        self._reader.end(out)
        self._done = True


def _is_whole(frame: bytes) -> bool:
    """Whether a frame without its blank line says all it was to say."""
    _, data = parse_frame(frame)
    return data is not None and (data == b"[DONE]" or json_object(data))


def _spans(raw: bytes, frames: list[bytes]) -> list[tuple[int, int]]:
    """Where each frame stands in ``raw``, its blank line included."""
    spans, start = [], 0
    for frame in frames:
        end = start + len(frame)
        if blank := _BLANK_LINE.match(raw, end):
            end = blank.end()
        spans.append((start, end))
        start = end
    return spans
