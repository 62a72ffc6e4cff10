"""Stages: what a middleware does to a running answer, sync and sans-IO."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from ..errors import GatewayError
from ..ir.event import Chunk


class Stop(Struct, frozen=True, gc=False):
    """What a stage returns to end the answer early: the chunk goes out, the source is closed, the end is clean."""

    chunk: Chunk | None = None


class Stage(Protocol):
    """Looks at or changes the chunks of one answer. Must not read ContextVars: it runs in the provider's callback.

    A chunk that is returned as it came keeps its bytes; one that was changed must be a new Chunk without ``raw``.
    """

    def feed(self, chunk: Chunk, /) -> Chunk | Stop | None:
        """Take a chunk; return what goes on, or None to hold it back."""
        ...

    def close(self, error: GatewayError | None, /) -> Chunk | None:
        """Called exactly once: at the end, at a failure, at an abort (kind ``cancelled``). Return what was held back.

        Accounting belongs here, since nothing else runs in every case.
        """
        ...


class Ending(Protocol):
    """Hears of the end alone: nothing of it stands in the way of chunks."""

    def close(self, error: GatewayError | None, /) -> None:
        """As a stage's."""
        ...
