"""An encoder that listens: the last event of a stream tells the whole response, as the caller is sent it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from ..codecs.base import MAX_FRAME_BYTES, StreamEncoder
from ..errors import GatewayError
from ..ir.event import Chunk
from ..ir.loss import Loss
from ..wire.members import BAD_JSON, NULL
from ..wire.sse import SseFramer, parse_frame

_ENDS: Final = frozenset({"response.completed", "response.incomplete"})
_MARKS: Final = (b"response.completed", b"response.incomplete")


class _Event(Struct):
    type: str = ""
    response: Raw = NULL


_EVENT: Final = msgspec.json.Decoder(_Event)


class Recorder:
    """A StreamEncoder around another; ``heard`` is called with the response object once the answer is complete.

    ``losses`` are the encoder's own list, which grows.
    """

    __slots__ = ("losses", "ping", "_encoder", "_heard")

    def __init__(self, encoder: StreamEncoder, heard: Callable[[bytes], object]) -> None:
        self.ping = encoder.ping
        self.losses: list[Loss] = encoder.losses
        self._encoder = encoder
        self._heard: Callable[[bytes], object] | None = heard

    def encode(self, chunk: Chunk) -> bytes:
        """Encode as the encoder does."""
        data = self._encoder.encode(chunk)
        if _MARKS[0] in data or _MARKS[1] in data:
            self._listen(data)
        return data

    def close(self, error: GatewayError | None) -> bytes:
        """Close as the encoder does."""
        data = self._encoder.close(error)
        if data and error is None:
            self._listen(data)
        return data

    def _listen(self, data: bytes) -> None:
        for frame in SseFramer(MAX_FRAME_BYTES).feed(data)[1]:
            try:
                event = _EVENT.decode(parse_frame(frame)[1] or b"")
            except BAD_JSON:
                continue
            if event.type in _ENDS and event.response != NULL and self._heard is not None:
                heard, self._heard = self._heard, None
                heard(bytes(event.response))
