"""A call under way: gives back and sets right what was taken for it, once, however its answer ends.

While the answer is awaited, whatever happens comes to whoever awaits it. From then on tickets are in their call's scope, so
that they hear of the end also where nobody ever reads the answer. Where there is money or a store they are in it all the time:
what outlives the process is written down when the scopes have just been closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from ..call import Attempt, Call
from ..doors import OPERATIONS
from ..errors import Cancelled, GatewayError
from ..ir.event import Chunk, Usage
from ..metering import MAY_HAVE_WORKED
from ..relay.hearing import Hearing
from ..relay.reply import Reply
from ..relay.scope import ending_of
from .book import Subject
from .pace import Pace
from .payment import Payment

_NO_USAGE: Final = Usage()
_MOST: Final = 10**9
"""Tokens that one call is charged: whoever tells of more has slipped."""


class Ticket(Struct, eq=False):
    """The place of a call, and what it pays, if there is a budget. It may be sent in ``wait`` seconds, at once if that is not
    above 0. Of tokens it ``reserved`` none; ``until`` is the moment at which those that were taken are back, 0 if none were.
    Once it is ``in_scope`` others may close it, too: nothing is settled twice.
    """

    call: Call
    subject: Subject
    wait: float
    reserved: int
    until: float
    payment: Payment | None
    in_scope: bool
    closed: bool

    def enter(self) -> None:
        """Hear of the end of the scope."""
        self.in_scope = True
        self.call.scope.items.add(self)

    def complete(self, whole: Chunk, now: float) -> None:
        """The answer is there at once, all of it."""
        self.close(None)

    def attend(self, reply: Reply, call: Call) -> None:
        """The answer to ``call`` is on its way: hear when it is over, also where its scope was closed meanwhile."""
        self.listen(reply, call)
        self.enter()
        if call.scope.closed:
            self.abort()

    def listen(self, reply: Reply, call: Call) -> None:
        """Hear of the answer's end."""
        reply.until(self)

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        if self.closed:
            return
        self.closed = True
        if self.in_scope:
            self.call.scope.items.discard(self)
        subject = self.subject
        subject.under_way -= 1
        if subject.line:
            subject.advance()
        self.settle(error)
        if self.payment is not None:
            self.payment.close()

    def fail(self, fault: BaseException) -> None:
        """There is no answer."""
        self.close(ending_of(fault))

    def abort(self) -> None:
        """The scope closes."""
        self.close(Cancelled("the call is over"))

    def give_back(self) -> None:
        """Nothing was sent, and no turn is waited for any more."""

    def settle(self, error: GatewayError | None) -> None:
        """Set right what was taken beside the place."""


class Tokens:
    """A limit of tokens: ``reserve`` are taken for an answer before it is there. ``now`` tells the time."""

    __slots__ = ("pace", "reserve", "now")

    def __init__(self, pace: Pace, reserve: int, now: Callable[[], float]) -> None:
        self.pace = pace
        self.reserve = reserve
        self.now = now

    def settle(self, ticket: Spending, spent: int, now: float) -> None:
        """Set right what ``ticket`` took. What has flown back meanwhile is not given twice."""
        if not 0 <= spent <= _MOST:  # some providers say -1 for what they do not know
            spent = min(max(0, spent), _MOST)
        subject = ticket.subject
        change = (spent - ticket.reserved) * self.pace.interval
        if change > 0:
            full_at = subject.tokens
            subject.tokens = (full_at if full_at > now else now) + change
        elif ticket.until > now:
            back = ticket.until - now
            subject.tokens -= back if back < -change else -change
        book = subject.book
        if book is not None and book.keeper is not None:
            subject.touch()


class Spending(Ticket, eq=False):
    """The ticket of a call that takes tokens: ``asked`` in its request. ``first`` is the number of its first try."""

    tokens: Tokens
    asked: int
    first: int
    heard: Hearing | None = None

    def complete(self, whole: Chunk, now: float) -> None:
        """The answer is there at once, all of it. Mostly it is of one try, and tells what it used: no more than was taken and
        has flown back meanwhile."""
        subject, decision = self.subject, self.call.decision
        try:
            usage = whole.usage
        except GatewayError:
            usage = None  # it is malformed, but there: raised again when that was heard
        if (
            usage is None
            or (told := usage.input_tokens) is None
            or (said := usage.output_tokens) is None
            or len(decision.attempts) > self.first + 1
            or decision.cache == "hit"
            or subject.line
            or self.in_scope
        ):
            self.heard = Hearing(self.call, [])
            self.heard.feed(whole)
            self.close(None)
            return
        spent = told + said
        if not 0 <= spent <= self.reserved or self.until > now:
            self.tokens.settle(self, spent, now)
        subject.under_way -= 1

    def listen(self, reply: Reply, call: Call) -> None:
        """Hear the answer."""
        self.heard = reply.hearing(call, self)

    def over(self, heard: Hearing, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self.close(error)

    def abort(self) -> None:
        """The scope closes, before the answer was heard to its end."""
        if self.heard is not None:
            self.heard.break_off()
        super().abort()

    def give_back(self) -> None:
        """Nothing was sent: the tokens are there again."""
        self.tokens.settle(self, 0, self.tokens.now())
        self.until = 0.0

    def settle(self, error: GatewayError | None) -> None:
        """Charge what was used, by the provider's word where there is one."""
        if not self.until:
            return
        tokens = self.tokens
        decision, usage = self.call.decision, None if self.heard is None else self.heard.usage
        tries = decision.attempts
        if error is None and usage is not None and len(tries) <= self.first + 1 and decision.cache != "hit":
            told, said = usage.input_tokens, usage.output_tokens
            if told is not None and said is not None:
                tokens.settle(self, told + said, tokens.now())
                return
        tokens.settle(self, self._spent(error), tokens.now())

    def _spent(self, error: GatewayError | None) -> int:
        """Return the same where it is not that simple."""
        decision, heard = self.call.decision, self.heard
        if decision.cache == "hit":  # what it tells was spent when the answer was made
            return 0
        answered = heard is not None and heard.answered
        if not answered and len(decision.attempts) == self.first:
            return 0  # it left before its turn came further in, or while others' answer was awaited: nothing was sent
        more = self.asked * further(decision.attempts[self.first :], decision.rounds)
        usage = None if heard is None else heard.usage
        if usage is None:
            usage = _NO_USAGE
            if error is not None and not answered and error.kind not in MAY_HAVE_WORKED:
                return more
        told, said = usage.all_input, usage.output_tokens
        if said is None or error is not None:  # what was told before the end may be less than was said
            letters = 0 if heard is None or self.call.codec.format in OPERATIONS else heard.letters
            said = max(said or 0, letters // 4)
        return (self.asked if told is None else told) + said + more


def further(tries: Sequence[Attempt], rounds: int) -> int:
    """Return how many of ``tries`` a provider may have read, of which the answer's usage does not tell: those that failed late,
    and the loser of a hedge. A round of a continuation is told of."""
    read = sum(1 for each in tries if each.error is None or each.error in MAY_HAVE_WORKED)
    return max(0, read - 1 - rounds)
