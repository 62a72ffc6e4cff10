"""What a provider was asked and answered. ``log`` puts a Transcript into the decision; each ``redact`` that a call passes
adds a Take to it, so that the innermost one's, of the try that succeeded, is the last that is complete.
"""

from __future__ import annotations

from typing import Final

from ..errors import GatewayError
from ..ir.event import Chunk
from ..ir.message import Request

MAX_TAKES: Final = 16
"""Of more tries than this, the ones in the middle are forgotten."""


class Take:
    """A request as it stood somewhere in the chain, and a stage that hears the answer there. Bounded by ``max_bytes``.

    ``body`` are the caller's bytes, or None: then ``request`` is what it became. ``complete``: the answer came to its end.
    """

    __slots__ = ("body", "request", "chunks", "complete", "is_cut", "_room")

    def __init__(self, body: bytes | None, request: Request | None, max_bytes: int) -> None:
        self.body = body
        self.request = request
        self.chunks: list[Chunk] = []
        self.complete = False
        self.is_cut = False
        self._room = max_bytes

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Remember a chunk, and pass it on. Of a whole answer the bytes are there anyhow: it counts as small."""
        if not self.is_cut:
            self.chunks.append(chunk)
            self._room -= 0 if chunk.is_whole else chunk.size
            self.is_cut = self._room < 0
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self.complete = error is None


class Transcript:
    """The takes of one call; the first is the log's own, where it stands in the chain."""

    __slots__ = ("takes", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.takes: list[Take] = []
        self._max_bytes = max_bytes

    def take(self, body: bytes | None, request: Request | None) -> Take:
        """Add a take of a call that is about to go on."""
        take = Take(body, request, self._max_bytes)
        if len(self.takes) >= MAX_TAKES:
            del self.takes[1]
        self.takes.append(take)
        return take

    @property
    def innermost(self) -> Take | None:
        """The take to write down, as the innermost ``redact`` left it; None where the call met none."""
        inner = self.takes[1:]
        return next((take for take in reversed(inner) if take.complete), inner[-1] if inner else None)
