"""How much somebody may ask for: requests, tokens and money in a time, calls at once. It does not know other processes.

What a call may need is taken before it is sent, and set right by what it used when it is over, however it ends. Each thing
is taken of one record per subject, without an await between looking and taking: concurrent calls cannot pass each other.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct

from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.doors import OPERATIONS
from ..gateway.errors import RateLimited
from ..gateway.limits import line
from ..gateway.limits.book import Book, Subject
from ..gateway.limits.keeping import Keeper
from ..gateway.limits.pace import Pace
from ..gateway.limits.payment import Payment, Purse
from ..gateway.limits.tickets import Spending, Ticket, Tokens
from ..gateway.limits.told import Told
from ..gateway.limits.whom import Per, subject_of, words_for
from ..gateway.relay.reply import Reply
from ..gateway.stores.base import Store
from ..gateway.stores.memory import MemoryStore
from ..gateway.units import Budget, Duration, Rate

_NO_LIMIT: Final = 1 << 62
_PLACE_S: Final = 1.0  # when to come back for a place: nobody knows when a call ends


class LimitOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """At least one of ``requests``, ``tokens``, ``concurrency`` and ``budget``. Several limits are several items of a chain."""

    per: Per | Annotated[tuple[Per, ...], Meta(min_length=1)] = "key"
    """Who shares it: callers of one key, team or tenant, calls for one model or by one route, or all. A list: each
    combination has its own. A caller without a team is on its own."""
    requests: Rate | None = None
    """How many calls, such as ``60/min``."""
    tokens: Rate | None = None
    """How many tokens, input and output together, such as ``100k/min``."""
    concurrency: Annotated[int, Meta(ge=1)] | None = None
    """How many calls may be under way at once."""
    budget: Budget | None = None
    """How much money, such as ``20 USD/day``, by the calendar of UTC. Needs ``prices``."""
    burst: Annotated[int, Meta(ge=1)] | None = None
    """How many ``requests`` may come at once, after a rest; left out: as many as the rate names."""
    reserve: Annotated[int, Meta(ge=0)] = 1000
    """Tokens that are taken for the answer before it is known how long it gets: the same for every request."""
    unpriced: Literal["refuse", "pass"] = "refuse"
    """What becomes of a call for a model without a price, where there is a ``budget``."""
    wait: Duration = Duration(0)
    """How long a call may wait for its turn, instead of being refused at once."""
    queue: Annotated[int, Meta(ge=1)] = 100
    """How many calls of a subject may wait."""
    headers: bool = True
    """Whether callers are told, in the headers of their format, what is left."""
    subjects: Annotated[int, Meta(ge=1)] = 10_000
    """How many subjects are known apart; beyond them, newcomers share what one may have."""
    store: str | None = None
    """The name of a store that keeps what was taken over a restart; left out: it is forgotten."""
    name: Annotated[str, Meta(min_length=1)] | None = None
    """What it is kept under there: no other limit in that store may have the same."""

    def __post_init__(self) -> None:
        if self.requests is None and self.tokens is None and self.concurrency is None and self.budget is None:
            raise ValueError("it needs one of requests, tokens, concurrency and budget")
        if self.burst is not None and self.requests is None:
            raise ValueError("burst is of requests, and there is no such limit")
        if (self.store is None) != (self.name is None):
            raise ValueError("store and name belong together: what is kept needs a name of its own")


class Limit:
    """Refuses what is above the limit with ``rate_limit``, of a budget with ``quota``, or lets it wait."""

    Options: ClassVar[type[Struct]] = LimitOptions

    def __init__(
        self,
        options: LimitOptions,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self.needs_usage = options.tokens is not None or options.budget is not None
        self.needs_prices = options.budget is not None
        self.store_name = options.store
        self.store: Store = MemoryStore(1, 1, 1)
        self._parts = (options.per,) if isinstance(options.per, str) else options.per
        self.asks_who_calls = not {"key", "team", "tenant"}.isdisjoint(self._parts)
        self._whom = words_for(self._parts)
        self._key = subject_of(self._parts)
        self._requests = None if options.requests is None else Pace(options.requests, options.burst)
        self._now: Callable[[], float] = monotonic if clock is None else lambda: self._book.now(clock())
        self._tokens: Tokens | None = None
        if options.tokens is not None:
            self._tokens = Tokens(Pace(options.tokens), options.reserve, self._now)
        self._purse: Purse | None = None
        if options.budget is not None:
            self._purse = Purse(options.budget, options.reserve, options.unpriced, self._whom, self._wall)
        self._told = Told(self._requests, None if self._tokens is None else self._tokens.pace)
        self._tells = options.headers and bool(self._told)
        self._most = options.concurrency or _NO_LIMIT
        self._patience: float = options.wait
        self._clock = clock
        self._sleep = sleep
        self._wall_clock = wall
        self._book = Book()
        self._keeper: Keeper | None = None
        self._before: Keeper | None = None

    def carry_over(self, old: Any, /) -> None:
        """Go on with what ``old`` has counted, whatever the limits are now; anew only if it counts others together."""
        if isinstance(old, Limit) and old._parts == self._parts:
            self._book = old._book

    async def start(self) -> None:
        """Keep what is taken from now on, if there is a store."""
        if self.store_name is not None:
            read = asyncio.get_running_loop().time if self._clock is None else self._clock
            name, book = f"{self.options.name}/{'+'.join(self._parts)}", self._book
            self._keeper = Keeper(self.store, name, lambda: book.now(read()), self._wall)
            for subject in book.subjects.values():
                self._keeper.touch(subject)
        self._before, self._book.keeper = self._book.keeper, self._keeper

    async def stop(self) -> None:
        """Write what was taken since the last time."""
        if self._keeper is not None:
            await self._keeper.stop()
        if self._book.keeper is self._keeper:  # else newer rules keep it; if those could not start, the ones before do
            self._book.keeper = self._before
        self._keeper = self._before = None

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Take what the call may need, pass it on, and settle at its end. Raises RateLimited, QuotaExceeded, Unsupported."""
        now = self._now()
        key = self._key(call)
        subject = self._book.subjects.get(key)
        if subject is None:
            wall = 0.0 if self._purse is None else self._wall()
            subject = self._book.subject(key, now, self.options.subjects, wall)
        if subject.coming is not None:
            await asyncio.shield(subject.coming)
            now = self._now()
        until = now + self._patience
        if subject.line or subject.under_way >= self._most:
            await self._line_up(call, subject, now)
            now = self._now()
        else:
            subject.under_way += 1
        ticket = self._take(call, subject, now, until)
        try:
            if ticket.wait > 0.0:
                await self._wait(call, subject, ticket, now, until)
            if self._purse is not None and not call.counts:
                ticket.payment = payment = Payment(self._purse, subject, call.payer)
                ticket.enter()
                call = call.replace(payer=payment)
            reply = await call_next(call)
            whole = reply.complete
            now = self._now()
            if whole is not None:
                ticket.complete(whole, now)
        except BaseException as fault:
            ticket.fail(fault)
            raise
        if whole is None:
            ticket.attend(reply, call)
        if self._tells:
            reply.headers = self._told.add(call, subject, reply.headers, now)
        return reply

    def _take(self, call: Call, subject: Subject, now: float, until: float) -> Ticket:
        """Take a request and the tokens that the call may need, and return the ticket, which says when they are there.

        Nothing is taken if that is after ``until``. So those who wait are served in the order in which they came. Of tokens
        at most what can be had at once is taken, or a call's turn would never come.
        """
        requests, tokens = self._requests, self._tokens
        wait = after_request = 0.0
        if requests is not None:
            full_at = subject.requests
            after_request = (full_at if full_at > now else now) + requests.interval
            wait = after_request - now - requests.depth
        if tokens is None or call.passed is not None or call.counts:
            ticket = Ticket(call, subject, wait, 0, 0.0, None, False, False)
        else:
            pace = tokens.pace
            asked = 0 if call.wire is None else call.wire.by_size
            wanted = asked if call.codec.format in OPERATIONS else asked + tokens.reserve
            reserved = pace.burst if wanted > pace.burst else wanted or 1
            full_at = subject.tokens
            after_tokens = (full_at if full_at > now else now) + reserved * pace.interval
            more = after_tokens - now - pace.depth
            if more > wait:
                wait = more
            first = len(call.decision.attempts)
            ticket = Spending(call, subject, wait, reserved, after_tokens, None, False, False, tokens, asked, first)
        if wait > 0.0 and now + wait > until:
            ticket.until = 0.0
            return ticket
        if requests is not None:
            subject.requests = after_request
        if ticket.reserved:
            subject.tokens = ticket.until
        if self._keeper is not None:
            subject.touch()
            ticket.enter()
        return ticket

    async def _wait(self, call: Call, subject: Subject, ticket: Ticket, now: float, until: float) -> None:
        """Wait for the turn of a call that took what will be there then. Raises RateLimited where that is too late."""
        wait = ticket.wait
        if now + wait > until:
            raise self._refusal(call, subject, now, wait)
        try:
            self._check_room(call, subject, now, wait)
            await line.turn(call, subject, self._sleep, wait)
        except BaseException:
            if self._requests is not None:
                subject.requests -= self._requests.interval
            ticket.give_back()
            raise

    async def _line_up(self, call: Call, subject: Subject, now: float) -> None:
        """Wait for a place among the calls under way, and take it. Raises RateLimited."""
        if not self.options.wait:
            raise self._refusal(call, subject, now, None)
        self._check_room(call, subject, now, None)
        if not await line.place(call, subject, self._most, self.options.wait):
            raise self._refusal(call, subject, self._now(), None)

    def _check_room(self, call: Call, subject: Subject, now: float, wait: float | None) -> None:
        """Raise RateLimited if no more may wait, or the call's own time would be over first."""
        late = call.deadline is not None and monotonic() + (wait or 0.0) >= call.deadline
        if late or subject.waiting >= self.options.queue:
            raise self._refusal(call, subject, now, wait)

    def _refusal(self, call: Call, subject: Subject, now: float, wait: float | None) -> RateLimited:
        """Return the error; ``wait`` is None where a place is missing."""
        if wait is None:
            message = f"{self._most} calls are under way already, the limit for {self._whom}"
        else:
            rate, unit = self.options.tokens, "tokens"
            if self._requests is not None and self._requests.left(subject.requests, now) < 1:
                rate, unit = self.options.requests, "requests"
            assert rate is not None
            what = f"{rate.count} {unit}/{rate.period}"
            message = f"the limit of {what} for {self._whom} is reached: try again in {math.ceil(wait)} s"
        headers = self._told.add(call, subject, {}, now) if self._tells else None
        return RateLimited(message, retry_after_s=_PLACE_S if wait is None else wait, headers=headers)

    def _wall(self) -> float:
        return self._book.wall(self._wall_clock())


__all__ = ["Limit", "LimitOptions", "Per"]
