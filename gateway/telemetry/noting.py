"""What hears an answer for the sake of its spans, and what of a call is kept when it is over."""

from __future__ import annotations

from time import monotonic
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ..call import Call, TraceContext
from ..errors import GatewayError
from ..ir.event import Chunk, Event
from ..ir.message import Request
from ..relay.hearing import Hearing
from .names import reason_of
from .reading import Told, told_by
from .record import Record

MAX_CAPTURED: Final = 1024 * 1024
"""Of requests and answers whose content is captured, so many bytes are kept."""
MAX_CHOICES: Final = 128
"""As many as formats allow."""
RECORD: Final = 2048
"""About what a record takes, without request and answer."""
_NOTHING: Final = Told()


class Over(Struct, gc=False):
    """A call that is over, and how: ``error`` is the kind of what it ended with, "" for none. Requests above ``most_asked``
    bytes and whole answers above ``most_told`` are not read. Until ``record`` is asked for nothing is copied: what
    came in late, such as the cost of a hedge's loser, is told too."""

    noting: Noting
    heard: Hearing
    place: Place
    ended_s: float
    status: int
    error: str
    most_asked: int
    most_told: int

    @property
    def size(self) -> int:
        """About how many bytes it holds on to."""
        noting, whole = self.noting, self.heard.whole
        body, kept = noting.call.body, noting.kept
        size = RECORD
        if body is not None and len(body) <= self.most_asked:
            size += len(body)
        if whole is not None and (told := len(whole.raw or b"") or whole.size) <= self.most_told:
            size += told
        return size if kept is None else size + kept.size

    @property
    def told(self) -> Told:
        """What the answer said of itself."""
        heard = self.heard
        if heard.whole is not None:
            return told_by(heard.whole)
        stops = heard.stops
        if stops is None:
            return Told(heard.response_id, heard.response_model, ())
        reasons = [reason_of(stops[choice]) for choice in sorted(stops)[:MAX_CHOICES]]
        return Told(heard.response_id, heard.response_model, tuple(reasons))

    def record(self) -> Record:
        """Return all that its spans tell, as values that nobody changes."""
        return self.noting.record(self)


class Notes(Protocol):
    """Is told when a call is over."""

    def note(self, noting: Noting, heard: Hearing, error: GatewayError | None) -> None:
        """Hear it."""
        ...


class Place(TraceContext, frozen=True):
    """The call's own span, and what it is below: ``parent`` is the id of that span, "" for none, ``remote`` says that it is
    another process's."""

    parent: str = ""
    remote: bool = False


class Noting(Struct, gc=False):
    """What is known of a call when it goes out; hears how its answer was. A Listener. ``attempts`` and ``steps`` are how many
    there were before. Outermost, the call begins with its request (``started_s`` 0); inside a retry or a round, with that one.
    ``kept`` is its content, where that is kept."""

    trace: Notes
    call: Call
    place: Place
    attempts: int
    steps: int
    started_s: float
    status: int = 0
    kept: Kept | None = None

    def over(self, heard: Hearing, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self.trace.note(self, heard, error)

    def fail(self, error: GatewayError) -> None:
        """There is no answer."""
        self.trace.note(self, Hearing(self.call, []), error)

    def record(self, over: Over) -> Record:
        """Return what spans are made of."""
        call, place = self.call, over.place
        heard, kept = over.heard, self.kept
        decision, ledger, passed, whole, body = call.decision, call.ledger, call.passed, heard.whole, call.body
        size = RECORD
        settings = None
        if passed is not None:
            body = None
        elif body is None:
            settings = _without_words(call.request)
        elif len(body) > over.most_asked:
            body = None
        else:
            size += len(body)
        if whole is not None:
            if (length := whole.size) > over.most_told:
                whole = None
            else:
                size += length
        told = _NOTHING if whole is not None else over.told
        record = Record(
            place,
            place.parent,
            place.remote,
            call.codec,
            call.counts,
            "" if passed is None else passed.method,
            call.facts.path,
            call.peek.model,
            call.peek.stream,
            call.request_id,
            decision.caller or call.principal,
            decision.route,
            decision.upstream,
            decision.chain,
            decision.cache,
            decision.rounds,
            tuple(decision.attempts[self.attempts :]),
            tuple(decision.steps[self.steps :]),
            tuple(ledger.request),
            tuple(ledger.answer),
            call.began_unix,
            self.started_s,
            over.ended_s,
            heard.first_s,
            over.status,
            over.error,
            heard.usage,
            told.id,
            told.model,
            told.reasons,
            whole,
            body,
            settings,
            decision.cost_usd,
            size,
        )
        if kept is not None:
            record.facts = call.facts
            record.request = call.request if call.body is None else None
            record.events = tuple(kept.events) if kept.events else None
            record.size += kept.size
        return record


class Passing:
    """Hears what is passed on as it came, in which nobody looks for anything but its beginning. A Stage."""

    __slots__ = ("_noting", "_heard")

    def __init__(self, noting: Noting) -> None:
        self._noting = noting
        self._heard = Hearing(noting.call, [noting])

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Note the first."""
        heard = self._heard
        if heard.first_s is None:
            heard.first_s = monotonic() - heard.call.began
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self._heard.close(error)


class Kept(Struct, gc=False):
    """Keeps what is said, up to MAX_CAPTURED. A Stage."""

    events: list[Event] = []
    size: int = 0

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Keep a chunk."""
        if not chunk.is_whole and self.size <= MAX_CAPTURED:
            self.size += chunk.size
            self.events += chunk.events
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """Whoever notes the call has it."""


def _without_words(request: Request) -> Request:
    """Return what a request asks for, without what it holds on to."""
    return replace(request, messages=(), tools=(), extra={}, logit_bias=None)
