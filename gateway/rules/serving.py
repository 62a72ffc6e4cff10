"""Targets over live calls: the steps that ``target.attempts`` yields, done. While nothing reached the caller, one goes on
where it says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple

from ..call import Call
from ..errors import GatewayError, LossRefused, NotFound
from ..facts import WireFacts
from ..ir.loss import Loss
from ..relay.reply import Reply
from ..targets.hedge import hedged, may_be_doubled
from .target import LOSS, Copied, Doubled, Ending, Leaf, Step, Target, Walk, at_random, attempts

_NOTHING: Final = "no case of the target {} applies to this request"


class _NoCase(NotFound):
    """No case of what was tried applies to the request."""


async def serve(call: Call, target: Target, chains: Mapping[str, tuple[str, ...]], waits: bool) -> Reply:
    """Send the call where the cases of ``target`` say, and on.

    ``chains`` are the names of all middlewares around a try, by the upstream's name: the record says those of the last.
    ``waits``: something may still be tried until an answer has content.
    """
    facts = call.wire
    assert facts is not None, "a call without its wire facts cannot be aimed"
    facts.principal = call.principal
    way = _Way(target, facts, chains, waits)
    return await way.walk(attempts(target, facts, at_random, call.decision.chosen), call)


class _Try(NamedTuple):
    """What the record says of where a call went."""

    upstream: str
    model: str
    chain: tuple[str, ...]


class _Way:
    """The way of one call through a target."""

    __slots__ = ("_target", "_facts", "_chains", "_waits")

    def __init__(self, target: Target, facts: WireFacts, chains: Mapping[str, tuple[str, ...]], waits: bool) -> None:
        self._target = target
        self._facts = facts
        self._chains = chains
        self._waits = waits

    async def walk(self, steps: Walk, call: Call) -> Reply:
        """Return the first answer; raise the last error. Where every way would lose something, it is that of the first."""
        decision, ledger = call.decision, call.ledger
        noted = len(ledger.request)
        step = await self._next(steps, None, call)
        last: GatewayError | None = None
        where: _Try | None = None
        lost: list[Loss] = []
        try:
            while step is not None:
                ended: Ending = None
                tries = len(decision.attempts)
                try:
                    return await self._do(step, call)
                except _NoCase:
                    pass
                except LossRefused as error:
                    if last is None:
                        last, where, lost = error, _where(call), ledger.request[noted:]
                    ended = LOSS
                except GatewayError as error:
                    last, where, ended = error, _where(call), error.kind
                    lost = ledger.request[noted:]
                    if len(decision.attempts) > tries and decision.attempts[-1].error is None:
                        decision.attempts[-1].error = error.kind  # it failed inside its stream
                if ended is not None and _is_over(call):
                    break
                step = await self._next(steps, ended, call)
                if step is not None and ended is not None:
                    if ended != LOSS:
                        call = call.replace(cause="fallback")
                    del ledger.request[noted:]  # what the first upstream's format could not say, the next one's may
            if last is None or where is None:
                raise _NoCase(_NOTHING.format(self._target.spelled), param="model")
            # A try that was passed by is not the one whose error is told.
            decision.upstream, decision.model, decision.chain = where
            ledger.request[noted:] = lost
            raise last
        finally:
            del last  # it holds this frame: a cycle otherwise

    async def _do(self, step: Leaf | Doubled, call: Call) -> Reply:
        if isinstance(step, Leaf):
            return await self._try(step, call)
        hedge, walk = step.hedge, self.walk
        hedge.allowance.count()
        if not may_be_doubled(call):
            return await walk(step.first, call)
        first, second = partial(walk, step.first), partial(self._second, step)
        return await hedged(call, first, second, hedge.after_s, hedge.allowance.take)

    async def _try(self, leaf: Leaf, call: Call) -> Reply:
        decision, upstream = call.decision, leaf.upstream
        decision.upstream, decision.model = upstream.name, leaf.model or call.model
        decision.chain = self._chains[upstream.name]
        if upstream.needs_usage and not call.wants_usage:
            call = call.replace(wants_usage=True)
        reply = await leaf.serve(call)
        return await reply.opened() if self._waits else reply

    async def _next(self, steps: Walk, ended: Ending, call: Call) -> Leaf | Doubled | None:
        """Return the next step that may bring an answer, None if there is none; copies are begun on the way."""
        while True:
            if self._facts.slow:  # cases may have a long request counted
                step = await asyncio.to_thread(_send, steps, ended)
            else:
                step = _send(steps, ended)
            if not isinstance(step, Copied):
                return step
            if step.shadow.shadows.wants(call):
                step.shadow.shadows.begin(call, partial(self._copy, step))
            ended = None

    def _copy(self, step: Copied, copy: Call) -> Coroutine[Any, Any, Reply]:
        return self.walk(step.walk(copy.decision.chosen), copy)

    def _second(self, step: Doubled, branch: Call) -> Coroutine[Any, Any, Reply]:
        return self.walk(step.second(branch.decision.chosen), branch)


def _send(steps: Walk, ended: Ending) -> Step | None:
    try:
        return steps.send(ended)
    except StopIteration:
        return None


def _where(call: Call) -> _Try:
    return _Try(call.decision.upstream, call.decision.model, call.decision.chain)


def _is_over(call: Call) -> bool:
    return call.is_final or (call.deadline is not None and monotonic() >= call.deadline)
