"""A transcript as a line of JSON: masked, media by their length, bounded. Slow, and meant for a thread of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ..codecs.base import AnswerContext, Codec, UpstreamFacts
from ..errors import GatewayError
from ..ir.event import Chunk, PartDelta
from ..redaction.json_text import redact_json
from ..redaction.redactor import Redactor
from .transcript import Take

_MEDIA: Final = re.compile(rb"(?:data:[a-z0-9.+/;=\-]{1,100},)?(?:[A-Za-z0-9+/_\-]|\\/){1024,}={0,2}")
"""No text has a word like this: it is a picture, a sound or a file in base64."""
_LEFT_OUT: Final = Raw(b"null")


class Line(Struct, omit_defaults=True):
    """Bodies as they are written. Those that were cut, or are no JSON, are texts; ``request_bytes`` and ``answer_bytes`` tell
    the whole size of what was cut, as far as it is known."""

    time: float
    request_id: str
    route: str
    upstream: str
    model: str
    format: str
    outcome: str
    request: Raw
    answer: Raw = _LEFT_OUT
    answer_format: str = ""
    request_bytes: int | None = None
    answer_bytes: int | None = None
    answer_cut: bool = False


class Written(Struct, frozen=True):
    """What a line is made of. ``masks`` is what its texts pass besides, ``max_body`` in bytes for each of the two."""

    time: float
    request_id: str
    route: str
    upstream: str
    model: str
    outcome: str
    codec: Codec
    take: Take
    masks: Redactor
    max_body: int

    @property
    def size(self) -> int:
        """Bytes that it holds until it is written, about."""
        asked = self.take.body
        return 1000 + (0 if asked is None else len(asked)) + sum(chunk.size for chunk in self.take.chunks)

    def line(self) -> bytes:
        """Return the line, with its end."""
        take, codec = self.take, self.codec
        request, request_bytes = self._bounded(_asked(take, codec))
        line = Line(
            self.time,
            self.request_id,
            self.route,
            self.upstream,
            self.model,
            codec.format,
            self.outcome,
            request,
            request_bytes=request_bytes,
            answer_cut=take.is_cut,
        )
        if take.chunks:
            format, body = _answered(take.chunks, codec)
            line.answer, line.answer_bytes = self._bounded(body)
            line.answer_format = format if format != codec.format else ""
        return msgspec.json.encode(line) + b"\n"

    def _bounded(self, body: bytes) -> tuple[Raw, int | None]:
        """Return a body as it stands in the line, and its size if it is cut."""
        short = _MEDIA.sub(_length, body)
        # Masked before it is cut: half a secret is none that anybody would find.
        text = short[: 2 * self.max_body].decode("utf-8", "replace")
        text = redact_json(text, self.masks.session(restore=False), "")
        data = text.encode("utf-8", "replace")
        if len(short) <= 2 * self.max_body and len(data) <= self.max_body:
            try:
                msgspec.json.decode(data, type=Raw)
            except msgspec.DecodeError:
                return Raw(msgspec.json.encode(text)), None
            return Raw(data.replace(b"\n", b" ").replace(b"\r", b" ")), None
        cut = data[: self.max_body].decode("utf-8", "ignore")
        return Raw(msgspec.json.encode(cut)), len(body)


def _length(found: re.Match[bytes]) -> bytes:
    media = found[0].rpartition(b",")[2]
    return b"<%d characters of base64>" % len(media)


def _asked(take: Take, codec: Codec) -> bytes:
    if take.body is not None or take.request is None:
        return take.body or b""
    try:
        return codec.encode_request(take.request, UpstreamFacts()).body
    except GatewayError:  # what this format cannot say; another target's could
        return msgspec.json.encode(take.request)


def _answered(chunks: Sequence[Chunk], codec: Codec) -> tuple[str, bytes]:
    """Return an answer whole, and its format: as the provider wrote it, or, of a stream, as the caller's format would."""
    first = chunks[0]
    if len(chunks) == 1 and first.is_whole and first.raw is not None and first.wire is not None:
        return first.wire.format, first.raw
    events = [event for chunk in chunks for event in chunk.events]
    try:
        return codec.format, codec.encode_response(events, AnswerContext()).body
    except GatewayError:  # it broke off where no answer can end
        return "text", "".join(event.text for event in events if isinstance(event, PartDelta)).encode(
            "utf-8", "replace"
        )
