"""What hears an answer for the sake of its spans, and what of a call is kept when it is over."""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ..call import Call, TraceContext
from ..errors import GatewayError
from ..ir.event import ChoiceStop, Chunk, Event, PartDelta, ResponseStart, Usage, UsageReport
from ..ir.message import Request
from .names import reason_of
from .reading import Told
from .record import Record

MAX_CAPTURED: Final = 1024 * 1024
"""Of requests and answers whose content is captured, so many bytes are kept."""
MAX_CHOICES: Final = 128
"""As many as formats allow."""
RECORD: Final = 2048
"""About what a record takes, without request and answer."""


class Over(Struct, gc=False):
    """A call that is over, and how: ``error`` is the kind of what it ended with, "" for none. Requests above ``most_asked``
    bytes and whole answers above ``most_told`` are not read. Until ``record`` is asked for nothing is copied: what
    came in late, such as the cost of a hedge's loser, is told too."""

    noting: Noting
    place: Place
    ended_s: float
    status: int
    error: str
    most_asked: int
    most_told: int

    @property
    def keeps_body(self) -> bool:
        """Whether the request is read for its settings."""
        body = self.noting.call.body
        return body is not None and len(body) <= self.most_asked

    @property
    def size(self) -> int:
        """About how many bytes it holds on to."""
        body, whole = self.noting.call.body, self.noting.whole
        asked, told = 0 if body is None else len(body), 0 if whole is None else whole.size
        size = RECORD if asked > self.most_asked else RECORD + asked
        return size + self.noting.heard_bytes + (told if told <= self.most_told else 0)

    def record(self) -> Record:
        """Return all that its spans tell, as values that nobody changes."""
        return self.noting.record(self)


class Notes(Protocol):
    """Is told when a call is over."""

    def note(self, noting: Noting, error: GatewayError | None) -> None:
        """Hear it."""
        ...


class Place(TraceContext, frozen=True):
    """The call's own span, and what it is below: ``parent`` is the id of that span, "" for none, ``remote`` says that it is
    another process's."""

    parent: str = ""
    remote: bool = False


class Noting(Struct, gc=False):
    """Hears an answer: when its content begins, what it is called, what it used. ``attempts`` and ``steps`` are how many there
    were before. Outermost, the call begins with its request (``started_s`` 0); inside a retry or a round, with that one."""

    trace: Notes
    call: Call
    attempts: int
    steps: int
    started_s: float
    status: int = 0
    first_s: float | None = None
    usage: Usage | None = None
    response_id: str = ""
    response_model: str = ""
    whole: Chunk | None = None
    last: Chunk | None = None
    choices: dict[int, str] | None = None
    heard: list[Event] | None = None
    heard_bytes: int = 0

    keeps: ClassVar[bool] = False
    """Whether its content is kept."""

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Look at a chunk."""
        if chunk.is_whole:
            self.whole = chunk
            return chunk
        self.last = chunk
        for event in chunk.events:
            kind = type(event)
            if kind is PartDelta:
                if self.first_s is None:
                    self.first_s = self.call.scope.loop.time() - self.call.began
            elif kind is UsageReport:
                self.usage = event.usage  # type: ignore[union-attr]  # here and below tested by exact type
            elif kind is ChoiceStop:
                if self.choices is None:
                    self.choices = {}
                reason = event.reason  # type: ignore[union-attr]
                if reason == "other":
                    reason = event.raw_reason or reason  # type: ignore[union-attr]
                if len(self.choices) < MAX_CHOICES:
                    self.choices[event.choice] = reason_of(reason)  # type: ignore[union-attr]
            elif kind is ResponseStart and not self.response_id:
                self.response_id, self.response_model = event.id, event.model  # type: ignore[union-attr]
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over. One that was broken off may have told its usage beside the events."""
        if error is not None and self.last is not None:
            self.usage = self.last.usage or self.usage
        self.trace.note(self, error)

    def record(self, over: Over) -> Record:
        """Return what spans are made of."""
        call, place = self.call, over.place
        decision, ledger, passed, whole, body = call.decision, call.ledger, call.passed, self.whole, call.body
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
            if (told := whole.size) > over.most_told:
                self.usage, whole = whole.usage, None
            else:
                size += told
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
            self.first_s,
            over.status,
            over.error,
            self.usage,
            self.response_id,
            self.response_model,
            self.reasons,
            whole,
            body,
            settings,
            decision.cost_usd,
            size,
        )
        self.keep(record)
        return record

    @property
    def told(self) -> Told:
        """What its stream said of itself."""
        return Told(self.response_id, self.response_model, self.reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why its choices ended, in their order."""
        reasons = self.choices
        return () if reasons is None else tuple(reasons[choice] for choice in sorted(reasons))

    def keep(self, record: Record) -> None:
        """Add content to the record: there is none."""


class Passing(Noting, gc=False):
    """The same for what is passed on as it came, in which nobody looks for anything."""

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Note the first."""
        if self.first_s is None:
            self.first_s = self.call.scope.loop.time() - self.call.began
        return chunk


class Keeping(Noting, gc=False):
    """Keeps what is said as well, up to MAX_CAPTURED."""

    keeps: ClassVar[bool] = True

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Look at a chunk, and keep it."""
        Noting.feed(self, chunk)
        if not chunk.is_whole and self.heard_bytes <= MAX_CAPTURED:
            self.heard_bytes += chunk.size
            if self.heard is None:
                self.heard = []
            self.heard += chunk.events
        return chunk

    def keep(self, record: Record) -> None:
        """Add content to the record."""
        call = self.call
        record.facts = call.facts
        record.request = call.request if call.body is None else None
        record.events = None if self.heard is None else tuple(self.heard)
        record.size += self.heard_bytes


def _without_words(request: Request) -> Request:
    """Return what a request asks for, without what it holds on to."""
    return replace(request, messages=(), tools=(), extra={}, logit_bias=None)
