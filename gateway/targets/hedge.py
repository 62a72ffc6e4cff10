"""A second call beside one whose first content is late: whichever has content first is the answer, the other is ended at once.

Each of the two has a record and a ledger of its own, since what stands in the chains of upstreams reads there what it does
itself. The call's own record is that of the first; when they are two no more, it is told of both, the answer's try last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from ..call import Call, Decision
from ..errors import Cancelled, GatewayError
from ..ir.loss import Ledger
from ..passing.paths import is_kept
from ..relay.reply import Reply
from ..units import seconds

_log: Final = logging.getLogger("headgate.targets")
GRACE_S: Final = 0.1
"""How long the answer waits for the other call to be over, so that the record has all of it; it was cancelled before."""

Serve: TypeAlias = Callable[[Call], Coroutine[Any, Any, Reply]]
"""Returns a reply that has content, or raises GatewayError."""
_Task: TypeAlias = "asyncio.Task[Reply]"


def may_be_doubled(call: Call) -> bool:
    """Whether a call may be sent twice side by side: all of its request is here, and it leaves nothing behind at a provider.

    What only asks for a count of tokens is not worth it.
    """
    if call.counts or call.is_final:
        return False
    passed = call.passed
    return passed is None or (passed.socket is None and passed.upload.reader is None and not is_kept(passed.path))


def branch_of(call: Call, cause: str, ledger: Ledger) -> Call:
    """Return the call with a record of its own, which has no tries yet."""
    decision = replace(
        call.decision,
        upstream="",
        chosen=[],
        attempts=[],
        notes=[],
        steps=[],
        rounds=0,
        cost_usd=None,
        cost_known=None,
        cost_estimated=False,
    )
    return call.replace(decision=decision, ledger=ledger, cause=cause)


def copied(ledger: Ledger) -> Ledger:
    """Return a ledger with the same entries, which goes its own way."""
    new = Ledger(ledger.cap)
    new.request, new.answer, new.dropped, new.served = (
        [*ledger.request],
        [*ledger.answer],
        ledger.dropped,
        ledger.served,
    )
    return new


async def hedged(call: Call, first: Serve, second: Serve, after_s: float, may_begin: Callable[[], bool]) -> Reply:
    """Serve ``call`` by ``first``; if that has nothing after ``after_s`` and ``may_begin()``, by ``second`` too.

    Where both fail the error is that of the first.
    """
    race = _Race(call)
    try:
        return await race.run(first, second, after_s, may_begin)
    except BaseException:
        race.winner = None
        race.drop()
        await race.over()
        raise
    finally:
        race.forget()


class _Race:
    __slots__ = ("_call", "_branch", "_first", "_second", "_tries", "_ledger", "winner")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._tries = len(call.decision.attempts)
        self._ledger = copied(call.ledger)
        self._branch: Call | None = None
        self._first: _Task | None = None
        self._second: _Task | None = None
        self.winner: _Task | None = None

    async def run(self, first: Serve, second: Serve, after_s: float, may_begin: Callable[[], bool]) -> Reply:
        call = self._call
        self._first = call.scope.spawn(first(call))
        await asyncio.wait((self._first,), timeout=after_s)
        if self._first.done() or not may_be_doubled(call) or _is_too_late(call) or not may_begin():
            if not self._first.done():
                await asyncio.wait((self._first,))
            return _result(self._first)
        self._branch = branch = branch_of(call, "hedge", self._ledger)
        self._second = call.scope.spawn(second(branch))
        _log.info("%s: no content from %s after %g s: a second call", call.request_id, call.decision.upstream, after_s)
        while not (_has_won(self._first) or _has_won(self._second)):
            running = [task for task in (self._first, self._second) if not task.done()]
            if not running:
                break
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            del running
        second_won = _has_won(self._second) and not _has_won(self._first)
        self.winner = self._second if second_won else self._first
        reply = _result(self.winner)  # raises the first's error where both failed
        self.drop()
        await self.over()
        if second_won:
            self._take_over(branch)
            reply.until(_Late(call.decision, branch.decision))
        return reply

    def forget(self) -> None:
        """Let go of the tasks: with the errors in them and the frames that those hold they would be a cycle."""
        self._first = self._second = self.winner = None

    def drop(self) -> None:
        """End what is not the answer."""
        for task in (self._first, self._second):
            if task is None or task is self.winner:
                continue
            if task.done():
                _abort(task)
            else:
                task.cancel()
                task.add_done_callback(_abort)

    async def over(self) -> None:
        """Wait until what was dropped is over, for a moment; then let the call's record tell of both."""
        tasks = [task for task in (self._first, self._second) if task is not None and not task.done()]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=GRACE_S)
        finally:  # a caller that leaves may cancel this, too
            self._tell()

    def _tell(self) -> None:
        """Let the call's record tell of both. Both may have an answer, of which one is dropped."""
        branch, self._branch = self._branch, None
        if branch is None:
            return
        decision, other = self._call.decision, branch.decision
        own = decision.attempts[self._tries :]
        first, second = self._first, self._second
        if first is not None and first is not self.winner:
            self._end(decision, self._tries)
        if second is not None and second is not self.winner:
            self._end(other, 0)
        if first is not None and first is self.winner and own:
            decision.attempts[-1:-1] = other.attempts  # what answered is the last
        else:
            decision.attempts += other.attempts
        decision.chosen += other.chosen
        decision.notes += other.notes
        decision.steps += other.steps
        add_costs(decision, other)

    def _end(self, decision: Decision, since: int) -> None:
        """Note that the tries of a call that was given up were not finished."""
        call = self._call
        now = seconds(monotonic() - call.began)
        for attempt in decision.attempts[since:]:
            if attempt.error is None:
                attempt.error, attempt.ended_s = "cancelled", now

    def _take_over(self, branch: Call) -> None:
        """Let the record of the call say where the second call went, and what was lost there."""
        decision, won, ledger, its = self._call.decision, branch.decision, self._call.ledger, branch.ledger
        decision.upstream, decision.model, decision.chain = won.upstream, won.model, won.chain
        decision.cache = won.cache
        # The same lists: its stages go on noting what of the answer is lost.
        ledger.request, ledger.answer, ledger.dropped = its.request, its.answer, its.dropped


class _Late:
    """Adds to a call's record what its second call's chain notes after it became the answer."""

    __slots__ = ("_whole", "_part", "_counts")

    def __init__(self, whole: Decision, part: Decision) -> None:
        self._whole = whole
        self._part = part
        self._counts = len(part.attempts), len(part.notes), len(part.steps)

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over, and what it cost is known."""
        whole, part, (attempts, notes, steps) = self._whole, self._part, self._counts
        whole.attempts += part.attempts[attempts:]
        whole.notes += part.notes[notes:]
        whole.steps += part.steps[steps:]
        whole.rounds += part.rounds
        add_costs(whole, part)


def add_costs(whole: Decision, part: Decision) -> None:
    """Add what ``part`` cost to ``whole``; ``part`` is told of then."""
    if part.cost_known is False:
        whole.cost_known, whole.cost_usd = False, None
    elif part.cost_known and part.cost_usd is not None:
        if whole.cost_known is None:
            whole.cost_known, whole.cost_usd = True, part.cost_usd
        elif whole.cost_usd is not None:
            whole.cost_usd = round(whole.cost_usd + part.cost_usd, 12)
    whole.cost_estimated = whole.cost_estimated or part.cost_estimated
    part.cost_known = part.cost_usd = None
    part.cost_estimated = False


def _is_too_late(call: Call) -> bool:
    return call.deadline is not None and monotonic() >= call.deadline


def _has_won(task: _Task) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _result(task: _Task) -> Reply:
    if task.cancelled():
        raise Cancelled("the call is over")  # its scope was closed
    try:
        return task.result()
    finally:
        del task  # it holds the error that holds this frame: a cycle otherwise


def _abort(task: _Task) -> None:
    """Close an answer that came in spite of everything."""
    if _has_won(task):
        task.result().abort()
