"""Bytes of an Ollama stream into chunks: a JSON object a line, the last one ``done``.

Source: ``docs/api.md`` of ollama/ollama. An error may stand in place of any line. An end before the line that is done is
``cut``; that line is the end mark, nothing follows it.
"""

from __future__ import annotations

from ...errors import Cut, Malformed, UpstreamError
from ...ir.event import Chunk, Event, Keepalive, Wire
from ...wire.members import json_object
from ...wire.ndjson import NdjsonFramer
from ...wire.sse import FrameTooLarge
from ..base import MAX_FRAME_BYTES
from .answer_reader import AnswerReader


class OllamaStreamDecoder:
    """One stream of ``format``."""

    __slots__ = ("_framer", "_reader", "_wire", "error")

    def __init__(self, format: str, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self.error: UpstreamError | None = None
        self._wire = Wire(format, "ndjson")
        self._framer = NdjsonFramer(max_frame_bytes)
        self._reader = AnswerReader(format)

    def feed(self, data: bytes) -> Chunk | None:
        """Decode the whole lines in ``data``. Never raises: the lines before a fault come out, then ``error`` is set."""
        if self.error is not None:
            return None
        # Most reads are one whole line of words.
        if data.endswith(b"}\n") and not self._framer.tail:
            line = data[:-1]
            if 10 not in line and (words := self._reader.words(line)) is not None:
                return Chunk((words,), data, self._wire)
        try:
            raw, lines = self._framer.feed(data)
        except FrameTooLarge as error:
            self.error = Malformed(f"the provider sent {error}", format=self._wire.format)
            return None
        return self._decode(raw, lines) if lines else None

    def close(self) -> Chunk | None:
        """The bytes ended: decode what is left, and say whether the answer was whole."""
        if self.error is not None:
            return None
        rest, chunk = self._framer.close(), None
        if json_object(rest):  # else it broke off within a line: no client could read it
            chunk = self._decode(rest + b"\n", [rest])
        if self._reader.done or self.error is not None:
            return chunk
        self.error = Cut("the connection ended before the answer did", format=self._wire.format)
        return chunk

    def _decode(self, raw: bytes, lines: list[bytes]) -> Chunk | None:
        out: list[Event] = []
        reader = self._reader
        place = mark = 0
        line = b""
        try:
            for line in lines:
                mark = len(out)
                if reader.done:
                    break
                if line.strip():
                    reader.line(line, out)
                else:
                    out.append(Keepalive())
                place += len(line) + 1
        except UpstreamError as error:
            del out[mark:]
            if error.raw is not None:
                error.raw = line
            self.error = error
            raw = raw[:place]
            if not raw and not out:
                return None
        return Chunk(tuple(out), raw, self._wire)
