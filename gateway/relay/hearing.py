"""What several want to know of one answer, heard once: when its content began, what it is called, what it used, how it ended.

Log, limits, prices and traces all ask the same. Between two stages that may change something they share one of these.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from ..errors import GatewayError
from ..ir.event import ChoiceStop, Chunk, PartDelta, ResponseStart, Usage, UsageReport
from .scope import as_gateway_error

if TYPE_CHECKING:
    from ..call import Call


class Listener(Protocol):
    """Wants to know how an answer was, once it is over."""

    def over(self, heard: Hearing, error: GatewayError | None, /) -> None:
        """Called exactly once: at the end, at a failure, at an abort (kind ``cancelled``)."""
        ...


class Hearing(Struct):
    """A stage that changes nothing. ``first_s`` is when the content began, in seconds since the call did; ``letters`` how much
    was said, of a whole that tells no usage its bytes; ``whole`` the answer that came as one, ``last`` the last chunk of a
    stream. ``stops`` are why choices ended, in the provider's word where we have none."""

    call: Call
    listeners: list[Listener]
    first_s: float | None = None
    usage: Usage | None = None
    letters: int = 0
    whole: Chunk | None = None
    last: Chunk | None = None
    response_id: str = ""
    response_model: str = ""
    stops: dict[int, str] | None = None

    def __repr__(self) -> str:
        return f"Hearing({self.call!r})"  # a Struct would show what was said

    @property
    def answered(self) -> bool:
        """Whether anything came."""
        return self.last is not None or self.whole is not None

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Hear a chunk."""
        wire = chunk.wire
        if wire is not None and wire[1] == "json":
            self.whole = chunk
            self.usage = usage = chunk.usage
            if usage is None:
                self.letters = len(chunk.raw or b"")
            return chunk
        self.last = chunk
        for event in chunk.events:
            kind = type(event)
            if kind is PartDelta:
                self.letters += len(event.text)  # type: ignore[union-attr]  # here and below tested by exact type
                if self.first_s is None:
                    self.first_s = monotonic() - self.call.began
            elif kind is UsageReport:
                self.usage = event.usage  # type: ignore[union-attr]
            elif kind is ChoiceStop:
                if self.stops is None:
                    self.stops = {}
                reason = event.reason  # type: ignore[union-attr]
                self.stops[event.choice] = (event.raw_reason or reason) if reason == "other" else reason  # type: ignore[union-attr]
            elif kind is ResponseStart and not self.response_id:
                self.response_id, self.response_model = event.id, event.model  # type: ignore[union-attr]
        return chunk

    def break_off(self) -> None:
        """Look for usage beside the events: an answer that was broken off may have told it there."""
        if self.last is not None:
            self.usage = self.last.usage or self.usage

    def close(self, error: GatewayError | None, /) -> None:
        """Tell everybody, and let go of them: some hold on to what they hear, which would be a cycle for every call."""
        if error is not None:
            self.break_off()
        fault: Exception | None = None
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            try:
                listener.over(self, error)
            except Exception as caught:  # the others are to hear of the end all the same
                fault = caught
                error = error or as_gateway_error(caught)
        if fault is not None:
            try:
                raise fault
            finally:
                del fault  # it holds this frame: a cycle otherwise
