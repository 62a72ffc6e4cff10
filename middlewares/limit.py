"""How much somebody may ask for: requests and tokens in a time, calls at once. It does not know prices or other processes.

What a call may need is taken before it is sent, and set right by what it used when it is over, however it ends. Each thing
is taken of one record per subject, without an await between looking and taking: concurrent calls cannot pass each other.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta, Struct

from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.doors import OPERATIONS
from ..gateway.errors import Cancelled, ErrorKind, GatewayError, HouseError, RateLimited
from ..gateway.ir.event import Chunk, PartDelta, Usage, UsageReport
from ..gateway.limits.book import Book, Subject, Waiting
from ..gateway.limits.pace import Pace
from ..gateway.limits.told import Told, family_of
from ..gateway.relay.reply import Reply
from ..gateway.units import Duration, Rate

Per = Literal["key", "team", "tenant", "model", "route", "all"]
_NO_LIMIT: Final = 1 << 62
_PLACE_S: Final = 1.0
"""When to come back for a place: nobody knows when a call ends."""
_MAY_HAVE_WORKED: Final[frozenset[ErrorKind]] = frozenset(
    {"cancelled", "timeout.first_token", "timeout.idle", "timeout.total", "cut", "malformed"}
)
"""Failures after which the provider may well have read the request, and counted it."""
_NO_USAGE: Final = Usage()


class LimitOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """At least one of ``requests``, ``tokens`` and ``concurrency``. Several limits are several items of a chain."""

    per: Per | Annotated[tuple[Per, ...], Meta(min_length=1)] = "key"
    """Who shares it: callers of one key, team or tenant, calls for one model or by one route, or all. A list: each
    combination has its own. A caller without a team is on its own."""
    requests: Rate | None = None
    """How many calls, such as ``60/min``."""
    tokens: Rate | None = None
    """How many tokens, input and output together, such as ``100k/min``."""
    concurrency: Annotated[int, Meta(ge=1)] | None = None
    """How many calls may be under way at once."""
    burst: Annotated[int, Meta(ge=1)] | None = None
    """How many ``requests`` may come at once, after a rest; left out: as many as the rate names."""
    reserve: Annotated[int, Meta(ge=0)] = 1000
    """Tokens that are taken for the answer before it is known how long it gets: the same for every request."""
    wait: Duration = Duration(0)
    """How long a call may wait for its turn, instead of being refused at once."""
    queue: Annotated[int, Meta(ge=1)] = 100
    """How many calls of a subject may wait."""
    headers: bool = True
    """Whether callers are told, in the headers of their format, what is left."""
    subjects: Annotated[int, Meta(ge=1)] = 10_000
    """How many subjects are known apart; beyond them, newcomers share what one may have."""


class Limit:
    """Refuses what is above the limit with ``rate_limit``, or lets it wait."""

    Options: ClassVar[type[Struct]] = LimitOptions

    def __init__(
        self,
        options: LimitOptions,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        if options.requests is None and options.tokens is None and options.concurrency is None:
            raise ValueError("it needs one of requests, tokens and concurrency")
        if options.burst is not None and options.requests is None:
            raise ValueError("burst is of requests, and there is no such limit")
        self.options = options
        self.needs_usage = options.tokens is not None
        self._parts = (options.per,) if isinstance(options.per, str) else options.per
        self._key = _subject_of(self._parts)
        self._requests = None if options.requests is None else Pace(options.requests, options.burst)
        self._tokens = None if options.tokens is None else Pace(options.tokens)
        self._told_requests = None if self._requests is None else Told("requests", self._requests)
        self._told_tokens = None if self._tokens is None else Told("tokens", self._tokens)
        self._tells = options.headers and not (self._requests is None and self._tokens is None)
        self._most = options.concurrency or _NO_LIMIT
        self._clock = clock
        self._sleep = sleep
        self._book = Book()

    def carry_over(self, old: Limit, /) -> None:
        """Go on with what ``old`` has counted, whatever the limits are now; anew only if it counts others together."""
        if old._parts == self._parts:
            self._book = old._book

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Take what the call may need, pass it on, and settle at its end. Raises RateLimited."""
        now = self._now(call)
        subject = self._book.subject(self._key(call), now, self.options.subjects)
        until = now + self.options.wait
        if subject.under_way >= self._most or subject.line:
            await self._line_up(call, subject, now)
            now = self._now(call)
        else:
            subject.under_way += 1
        counts_tokens = self._tokens is not None and call.passed is None and not call.counts
        ticket = _Spending(self, call, subject) if counts_tokens else _Place(call, subject)
        call.scope.items.add(ticket)
        try:
            wait = self._take(subject, ticket, now, until - now)
            if wait > 0:
                await self._wait(call, subject, ticket, now, wait, until)
            reply = await call_next(call)
        except BaseException as fault:
            ticket.fail(fault)
            raise
        if self._tells:
            reply.headers = self._tell(call, subject, reply.headers)
        return reply.through(ticket)

    # -- taking

    def _take(self, subject: Subject, ticket: _Place, now: float, patience: float) -> float:
        """Take a request and the ticket's tokens, and return how many seconds from now they are there.

        Nothing is taken if that is more than ``patience``. So those who wait are served in the order in which they came.
        """
        requests, tokens, wait = self._requests, self._tokens, 0.0
        after_request = after_tokens = 0.0
        if requests is not None:
            full_at = subject.requests
            after_request = (full_at if full_at > now else now) + requests.interval
            wait = after_request - now - requests.depth
        if tokens is not None and ticket.reserved:
            full_at = subject.tokens
            after_tokens = (full_at if full_at > now else now) + ticket.reserved * tokens.interval
            wait = max(wait, after_tokens - now - tokens.depth)
        if wait <= 0.0 or wait <= patience:
            if requests is not None:
                subject.requests = after_request
            if after_tokens:
                subject.tokens = ticket.until = after_tokens
        return wait

    async def _wait(self, call: Call, subject: Subject, ticket: _Place, now: float, wait: float, until: float) -> None:
        """Wait for the turn of a call that took what will be there then. Raises RateLimited where that is too late."""
        if now + wait > until:
            raise self._refusal(call, subject, now, wait)
        try:
            self._check_room(call, subject, now, wait)
            subject.waiting += 1
            try:
                await self._sleep(wait)
            finally:
                subject.waiting -= 1
            if call.scope.closed:
                raise Cancelled("the call was over before its turn came")
        except BaseException:
            if self._requests is not None:
                subject.requests -= self._requests.interval
            ticket.give_back()
            raise
        call.decision.notes.append("limit: waited for its turn")

    async def _line_up(self, call: Call, subject: Subject, now: float) -> None:
        """Wait for a place among the calls under way, and take it. Raises RateLimited."""
        patience = float(self.options.wait)
        if not patience:
            raise self._refusal(call, subject, now, None)
        self._check_room(call, subject, now, None)
        line = subject.line
        if line is None:
            subject.line = line = deque()
        place = Waiting(call.scope.loop.create_future(), self._most)
        line.append(place)
        subject.waiting += 1
        try:
            async with asyncio.timeout(patience):
                await place.future
            if call.scope.closed:
                raise Cancelled("the call was over before its turn came")
        except BaseException as fault:
            if place.future.done() and not place.future.cancelled():
                subject.leave()  # the place came at the same moment
            else:
                line.remove(place)
                subject.advance()
            if isinstance(fault, TimeoutError):
                raise self._refusal(call, subject, self._now(call), None) from None
            raise
        finally:
            subject.waiting -= 1
        call.decision.notes.append("limit: waited for a place")

    def _check_room(self, call: Call, subject: Subject, now: float, wait: float | None) -> None:
        """Raise RateLimited if no more may wait, or the call's own time would be over first."""
        late = call.deadline is not None and call.scope.loop.time() + (wait or 0.0) >= call.deadline
        if late or subject.waiting >= self.options.queue:
            raise self._refusal(call, subject, now, wait)

    # -- telling

    def _refusal(self, call: Call, subject: Subject, now: float, wait: float | None) -> RateLimited:
        """Return the error; ``wait`` is None where a place is missing."""
        whom = " and ".join(_WHOM[part] for part in self._parts)
        if wait is None:
            message = f"{self._most} calls are under way already, the limit for {whom}"
        else:
            requests, options = self._requests, self.options
            if requests is not None and requests.left(subject.requests, now) < 1:
                rate, unit = options.requests, "requests"
            else:
                rate, unit = options.tokens, "tokens"
            assert rate is not None
            message = f"the limit of {rate.count} {unit}/{rate.period} for {whom} is reached: try again in {math.ceil(wait)} s"
        headers = self._tell(call, subject, {}, now) if self._tells else None
        return RateLimited(message, retry_after_s=_PLACE_S if wait is None else wait, headers=headers)

    def _tell(
        self, call: Call, subject: Subject, standing: Mapping[str, str], now: float | None = None
    ) -> Mapping[str, str]:
        """Return ``standing`` with what is left, in the caller's format."""
        family = family_of(call.codec.format)
        if family is None:
            return standing
        if now is None:
            now = self._now(call)
        headers = {**standing}
        unix = 0.0 if family == "openai" else call.began_unix + (call.scope.loop.time() - call.began)
        if self._told_requests is not None:
            self._told_requests.add(headers, family, subject.requests, now, unix)
        if self._told_tokens is not None:
            self._told_tokens.add(headers, family, subject.tokens, now, unix)
        return headers

    # -- what tickets ask

    def reserve(self, call: Call, asked: int) -> int:
        """Return the tokens to take for a request of ``asked``: at most what may be taken at once, or it would never be."""
        assert self._tokens is not None
        total = asked if call.codec.format in OPERATIONS else asked + self.options.reserve
        most = self._tokens.burst
        return most if total > most else total or 1

    def settle(self, subject: Subject, ticket: _Place, spent: int) -> None:
        """Set right what ``ticket`` took. What has flown back meanwhile is not given twice."""
        assert self._tokens is not None
        now = self._now(ticket.call)
        change = (spent - ticket.reserved) * self._tokens.interval
        if change > 0:
            subject.tokens = max(subject.tokens, now) + change
        else:
            subject.tokens -= min(-change, max(0.0, ticket.until - now))

    def _now(self, call: Call) -> float:
        clock = self._clock
        return self._book.now(call.scope.loop.time() if clock is None else clock())


class _Place:
    """A call under way: a stage that gives its place back at the end, also when the scope closes and nobody read the answer."""

    __slots__ = ("call", "subject", "reserved", "until", "_over")

    def __init__(self, call: Call, subject: Subject) -> None:
        self.call = call
        self.subject = subject
        self.reserved = 0
        self.until = 0.0
        self._over = False

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Let it pass."""
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        if not self._over:
            self._over = True
            self.call.scope.items.discard(self)
            self.subject.leave()
            if self.until:
                self._settle(error)

    def fail(self, fault: BaseException) -> None:
        """There is no answer."""
        if isinstance(fault, GatewayError):
            self.close(fault)
        elif isinstance(fault, asyncio.CancelledError):
            self.close(Cancelled("the call was cancelled"))
        else:
            self.close(HouseError("an internal error"))

    def abort(self) -> None:
        """The scope closes."""
        self.close(Cancelled("the call is over"))

    def give_back(self) -> None:
        """Nothing was sent."""

    def _settle(self, error: GatewayError | None) -> None:
        """Nothing was taken beside the place."""


class _Spending(_Place):
    """The same for a call that took tokens: notes what it uses."""

    __slots__ = ("_limit", "_asked", "_usage", "_last", "_letters", "_answered")

    def __init__(self, limit: Limit, call: Call, subject: Subject) -> None:
        self.call = call  # as in _Place, whose constructor would cost a call more
        self.subject = subject
        self.until = 0.0
        self._over = False
        self._limit = limit
        self._asked = asked = 0 if call.wire is None else call.wire.by_size
        self.reserved = limit.reserve(call, asked)
        self._usage: Usage | None = None
        self._last: Chunk | None = None
        self._letters = 0
        self._answered = False

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Look at what is told, and how much is said."""
        self._answered = True
        if chunk.is_whole:
            self._usage = chunk.usage
            if self._usage is None and self.call.codec.format not in OPERATIONS:
                self._letters = len(chunk.raw or b"")
            return chunk
        self._last = chunk
        for event in chunk.events:
            kind = type(event)
            if kind is PartDelta:
                self._letters += len(event.text)  # type: ignore[union-attr]  # tested by exact type
            elif kind is UsageReport:
                self._usage = event.usage  # type: ignore[union-attr]  # as above
        return chunk

    def give_back(self) -> None:
        """Nothing was sent: the tokens are there again."""
        self._limit.settle(self.subject, self, 0)
        self.until = 0.0

    def _settle(self, error: GatewayError | None) -> None:
        if self.call.decision.cache == "hit":  # what it tells was spent when the answer was made
            self._limit.settle(self.subject, self, 0)
            return
        usage = self._usage
        if error is not None and self._last is not None:
            usage = self._last.usage or usage  # told beside the events
        if usage is None:
            usage = _NO_USAGE
            if error is not None and not self._answered and error.kind not in _MAY_HAVE_WORKED:
                self._limit.settle(self.subject, self, 0)
                return
        told, said = usage.all_input, usage.output_tokens
        if said is None or error is not None:  # what was told before the end may be less than was said
            said = max(said or 0, self._letters // 4)
        self._limit.settle(self.subject, self, (self._asked if told is None else told) + said)


# -- whom a limit is for


def _of_key(call: Call) -> Hashable:
    who = call.principal
    return who.tenant, who.key


def _of_team(call: Call) -> Hashable:
    who = call.principal
    if who.team is None:
        return who.tenant, who.key, "alone"
    # A key without a tenant is its own: that must not part the team.
    return ("" if who.tenant == who.key else who.tenant), who.team


def _of_tenant(call: Call) -> Hashable:
    return call.principal.tenant


def _of_model(call: Call) -> Hashable:
    return call.model


def _of_route(call: Call) -> Hashable:
    return call.decision.route


def _of_all(call: Call) -> Hashable:
    return None


_OF: Final[Mapping[Per, Callable[[Call], Hashable]]] = {
    "key": _of_key,
    "team": _of_team,
    "tenant": _of_tenant,
    "model": _of_model,
    "route": _of_route,
    "all": _of_all,
}
_WHOM: Final[Mapping[Per, str]] = {
    "key": "this key",
    "team": "this team",
    "tenant": "this tenant",
    "model": "this model",
    "route": "this route",
    "all": "all together",
}


def _subject_of(parts: tuple[Per, ...]) -> Callable[[Call], Hashable]:
    """Return what names the subject of a call."""
    if len(parts) == 1:
        return _OF[parts[0]]
    of_each = tuple(_OF[part] for part in parts)
    return lambda call: tuple([of(call) for of in of_each])


__all__ = ["Limit", "LimitOptions", "Per"]
