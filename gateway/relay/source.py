"""Sources and sinks: the two halves of every pipe here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

from ..errors import GatewayError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Protocol[T_contra]):
    """Takes items. All sync; may call pause, resume and abort of its source from inside."""

    def push(self, item: T_contra, /) -> None:
        """Take one item."""

    def end(self, error: GatewayError | None, /) -> None:
        """The last call, at most once, never after abort: complete, or failed with ``error``."""


class Source(Protocol[T_co]):
    """Gives items to one sink."""

    def connect(self, sink: Sink[T_co], /) -> None:
        """Attach the sink, once. It may hear push and end before this returns."""

    def pause(self) -> None:
        """Ask for silence: what was read already may still come. Legal in every state, also before connect; idempotent."""

    def resume(self) -> None:
        """Go on. Legal in every state; idempotent."""

    def abort(self) -> None:
        """Stop for good: whatever feeds this is closed on return, the sink hears nothing more. Idempotent."""


class _Gone:
    """Stands where a source was, so that a late pause, resume or abort meets nothing."""

    def connect(self, sink: Sink[Any], /) -> None:
        """Nothing will ever come."""
        raise AssertionError("this source has ended")

    def pause(self) -> None:
        """Nothing to pause."""

    def resume(self) -> None:
        """Nothing to resume."""

    def abort(self) -> None:
        """Nothing to abort."""


GONE: Final = _Gone()


class Listed(Generic[T]):
    """Items that are all there already, as a source: a replay, a whole answer, a test."""

    __slots__ = ("_items", "_error", "_sink", "_paused", "_busy", "_dead")

    def __init__(self, items: Iterable[T], error: GatewayError | None = None) -> None:
        self._items = deque(items)
        self._error = error
        self._sink: Sink[T] | None = None
        self._paused = False
        self._busy = False
        self._dead = False

    def connect(self, sink: Sink[T], /) -> None:
        """Push everything, unless paused."""
        if not self._dead:
            self._sink = sink
            self._run()

    def pause(self) -> None:
        """Stop after the current item."""
        self._paused = True

    def resume(self) -> None:
        """Go on pushing."""
        self._paused = False
        self._run()

    def abort(self) -> None:
        """Forget the rest."""
        self._dead = True
        self._sink = None
        self._items.clear()

    def _run(self) -> None:
        if self._busy:  # resume() from inside push: the loop below goes on by itself
            return
        self._busy = True
        try:
            while self._sink is not None and not self._paused and self._items:
                self._sink.push(self._items.popleft())
        finally:
            self._busy = False
        if self._sink is not None and not self._paused and not self._items:
            sink, self._sink = self._sink, None
            sink.end(self._error)
