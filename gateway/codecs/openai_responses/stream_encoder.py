"""An answer of any format as this format's event stream, for one caller.

A chunk of this very wire goes out as it came, and is only followed: what was said so far, so that chunks that someone
changed, the end, or an error are written rightly after it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Struct

from ...errors import GatewayError, upstream_error
from ...ir.event import Chunk, PartDelta, ResponseStop, Terminator, Wire
from ...ir.loss import Loss
from ...wire.members import BAD_JSON, encode_json
from ...wire.sse import PING, SseFramer, parse_frame
from ..base import MAX_FRAME_BYTES, AnswerContext
from .errors import failure, own_frame
from .members import FORMAT
from .output_writer import OutputWriter

STREAMED: Final = Wire(FORMAT, "sse")
_ADDED: Final = b"response.output_item.added"
_FAILED: Final = b"response.failed"
_NUMBER: Final = re.compile(rb'"sequence_number"\s*:\s*(\d+)')


class _Added(Struct, tag_field="type", tag="response.output_item.added"):
    item: _Named


class _Named(Struct):
    id: str = ""


_ADDED_ITEM: Final = msgspec.json.Decoder(_Added)


class ResponsesStreamEncoder:
    """Encodes one stream; see StreamEncoder."""

    __slots__ = ("_context", "_ended", "_last", "_rewriting", "_writer", "losses")

    ping: bytes = PING

    def __init__(self, context: AnswerContext) -> None:
        self._context = context
        self._writer = OutputWriter(context)
        self.losses: list[Loss] = self._writer.losses
        self._rewriting = False
        self._ended = False
        self._last = b""

    def encode(self, chunk: Chunk) -> bytes:
        """Return the bytes for ``chunk``: its own ``raw`` while nothing was rewritten yet, else its events, anew."""
        if not self._rewriting and chunk.raw is not None and chunk.wire == STREAMED:
            self._follow(chunk, chunk.raw)
            return chunk.raw
        if self._ended:
            return b""
        if not self._rewriting:
            self._rewrite()
        writer = self._writer
        events = chunk.events
        if len(events) == 1 and type(event := events[0]) is PartDelta and event.logprobs is None:
            part = writer.open.get(event.index)
            text = event.text
            if part is not None and text and part.growth:
                part.texts.append(text)
                number = writer.sequence
                writer.sequence = number + 1
                if part.before:
                    return b"%b%d%b%b%b" % (part.before, number, part.where, encode_json(text), part.after)
                return part.delta(number, text)
        out: list[bytes] = []
        for event in events:
            if isinstance(event, (ResponseStop, Terminator)):
                if writer.failed is None:
                    writer.finish(out)
                    self._ended = self._ended or isinstance(event, Terminator)
            elif not writer.finished:
                writer.add(event, out)
        if writer.pending:
            writer.begin(out)
        return b"".join(out)

    def close(self, error: GatewayError | None) -> bytes:
        """Return what is still owed: the rest of a clean end, or ``response.failed`` and nothing after it."""
        if self._ended:
            return b""
        self._ended = True
        if error is None and self._writer.failed is not None:
            word = self._writer.failed
            error = upstream_error("upstream_error", f"the provider ended the answer with an error ({word})")
        self._rewrite()
        out: list[bytes] = []
        if error is None:
            self._writer.finish(out)
        elif error.kind != "cancelled":
            self._fail(error, out)
        return b"".join(out)

    def _fail(self, error: GatewayError, out: list[bytes]) -> None:
        frame = own_frame(error)
        if frame is not None and self._writer.started:
            self._last = frame
            self._number()
        if frame is not None and _FAILED in frame:
            out.append(frame)
            return
        # Clients exist that look for the failed response alone, and take its absence for a broken connection.
        begins = not self._writer.started
        self._writer.begin(out)
        if frame is not None and begins:
            frame = _NUMBER.sub(b'"sequence_number":%d' % self._writer.sequence, frame, count=1)
            self._writer.sequence += 1
        if frame is not None:
            out.append(frame)
        self._writer.fail(failure(error), out)

    def _follow(self, chunk: Chunk, raw: bytes) -> None:
        """Keep track of a chunk that goes out as it came."""
        writer = self._writer
        self._last = raw
        if _ADDED in raw:
            self._note_items(raw)
        for event in chunk.events:
            if type(event) is PartDelta and event.logprobs is None:
                part = writer.open.get(event.index)
                if part is not None:
                    part.texts.append(event.text)
            elif isinstance(event, (ResponseStop, Terminator)):
                self._ended = True
            else:
                writer.add(event, None)
        if not writer.started and writer.pending:
            writer.begin(None)

    def _note_items(self, raw: bytes) -> None:
        """Remember the items that were announced: one whose first part comes later must not be announced again."""
        for frame in SseFramer(MAX_FRAME_BYTES).feed(raw + b"\n")[1]:
            try:
                self._writer.announced.add(_ADDED_ITEM.decode(parse_frame(frame)[1] or b"").item.id)
            except BAD_JSON:
                continue

    def _rewrite(self) -> None:
        """From here on nothing goes out as it came: go on with the numbers of what did."""
        if not self._rewriting:
            self._rewriting = True
            self._number()

    def _number(self) -> None:
        numbers = _NUMBER.findall(self._last)
        if numbers:
            self._writer.sequence = max(self._writer.sequence, int(numbers[-1]) + 1)
