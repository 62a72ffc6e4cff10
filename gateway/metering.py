"""What a try at an upstream costs: noted at its end, for the record and for whoever pays.

Every try that a provider answered is counted where it was made, whatever becomes of its answer further out: one that was
retried, the loser of a hedge, a round of a continuation. What a cache answers is no try.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from msgspec.structs import replace

from .call import Attempt, Call
from .chain import Next
from .doors import OPERATIONS
from .errors import Cancelled, ErrorKind, GatewayError
from .ir.event import Usage
from .pricing.price import Price, dollars
from .pricing.table import Prices
from .relay.hearing import Hearing
from .relay.reply import Reply
from .relay.scope import ending_of

MAY_HAVE_WORKED: Final[frozenset[ErrorKind]] = frozenset(
    {"cancelled", "timeout.first_token", "timeout.idle", "timeout.total", "cut", "malformed"}
)
"""Failures after which the provider may well have read the request, and counted it."""
_NO_USAGE: Final = Usage()


class Metering:
    """Stands at the end of an upstream's chain, and (``gate``) in front of all of it. ``name`` is the upstream's."""

    __slots__ = ("_name", "_prices", "_serve")

    def __init__(self, name: str, prices: Prices, serve: Next) -> None:
        self._name = name
        self._prices = prices
        self._serve = serve

    def __call__(self, call: Call) -> Awaitable[Reply]:
        """Serve ``call``, and note what that cost."""
        if call.counts or call.passed is not None:
            return self._serve(call)
        return self._metered(call)

    def gate(self, serve: Next) -> Next:
        """Return ``serve``, the whole chain, with a question to who pays in front: may it cost what it may cost?"""
        prices = self._prices

        def entry(call: Call) -> Awaitable[Reply]:
            if call.payer is not None and not call.counts:
                call.payer.foresee(call, None if call.passed is not None else prices.of(call.model))
            return serve(call)

        return entry

    async def _metered(self, call: Call) -> Reply:
        tries = call.decision.attempts
        meter = _Meter(call, self._prices.of(call.model), self._name, len(tries))
        call.scope.items.add(meter)
        try:
            reply = await self._serve(call)
        except BaseException as fault:
            meter.fail(fault)
            raise
        meter.attempt = meter.find()  # now: when a second call beside it ends, what it tried is put in before
        meter.heard = reply.hearing(call, meter)
        return reply


class _Meter:
    """Listens to the answer of one try. A Listener."""

    __slots__ = ("attempt", "heard", "_call", "_price", "_name", "_first", "_over")

    def __init__(self, call: Call, price: Price | None, name: str, first: int) -> None:
        self.attempt: Attempt | None = None
        self.heard = Hearing(call, [])
        self._call = call
        self._price = price
        self._name = name
        self._first = first
        self._over = False

    def over(self, heard: Hearing, error: GatewayError | None, /) -> None:
        """The try is over."""
        if self._over:
            return
        self._over = True
        call = self._call
        call.scope.items.discard(self)
        if error is not None and not heard.answered and error.kind not in MAY_HAVE_WORKED:
            if self._price is not None:  # it was refused, or never got there
                self._note(0, False)
            return
        usage = heard.usage
        if usage is None or error is not None or usage.output_tokens is None or usage.all_input is None:
            usage = self._completed(heard, error)
        cost = None if self._price is None else self._price.of(usage)
        self._note(cost, usage.estimated)

    def _completed(self, heard: Hearing, error: GatewayError | None) -> Usage:
        """Return the usage of an answer that was not heard to its end, or of which not all was told: by the size of texts."""
        usage = heard.usage or _NO_USAGE
        call, asked, said = self._call, usage.all_input, usage.output_tokens or 0
        if call.codec.format in OPERATIONS:
            if asked is not None:
                return usage  # of embeddings nothing else is told
        elif usage.output_tokens is None or error is not None:  # what was told before the end may be less than was said
            said = max(said, heard.letters // 4)
        if asked is None:
            asked = 0 if call.wire is None else call.wire.by_size
            return Usage(input_tokens=asked, output_tokens=said, estimated=True)
        return replace(usage, output_tokens=said, estimated=True)

    def _note(self, cost: int | None, estimated: bool) -> None:
        call, decision = self._call, self._call.decision
        attempt = self.attempt or self.find()
        if attempt is None:
            return  # nothing was sent
        if cost is None:
            if decision.cost_known is not False:
                decision.cost_known, decision.cost_usd = False, None
                decision.notes.append(f"cost: nobody knows the price of {call.model} at {self._name}")
            return
        attempt.cost_usd = in_dollars = dollars(cost)
        if decision.cost_known is None:
            decision.cost_known, decision.cost_usd = True, in_dollars
        elif decision.cost_usd is not None:
            decision.cost_usd = round(decision.cost_usd + in_dollars, 12)
        if estimated:
            decision.cost_estimated = True
        if call.payer is not None:
            call.payer.pay(cost)

    def find(self) -> Attempt | None:
        """Return the record of this try: the first at this upstream since it began, others may run beside it."""
        tries, name = self._call.decision.attempts, self._name
        for number in range(self._first, len(tries)):
            if tries[number].upstream == name:
                return tries[number]
        return None

    def fail(self, fault: BaseException) -> None:
        """There is no answer."""
        self.over(self.heard, ending_of(fault))

    def abort(self) -> None:
        """The scope closes."""
        self.heard.break_off()
        self.over(self.heard, Cancelled("the call is over"))
