"""``n`` choices where the provider gives one: as many calls at the same time, told as one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec.structs import replace

from ..call import Call
from ..chain import Next
from ..codecs.ledger import in_the_callers_words, refused
from ..ir.loss import Loss
from ..ir.message import Request
from ..relay.reply import Reply
from .merge import merged


async def fan_out(call: Call, call_next: Next, most: int) -> Reply:
    """Serve a call for several choices by as many calls of ``call_next``; any other is handed on.

    The first that fails ends the others, before their headers or in the middle of their streams. Raises Unsupported for more
    than ``most``, and what ``call_next`` raises.
    """
    if not is_wanted(call.request):
        return await call_next(call)
    scope = call.scope
    tasks = [scope.spawn(_one(call_next, each, call), name="choice") for each in _calls(call, most)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in tasks if task.done() and (task.cancelled() or task.exception() is not None)]
        return merged([task.result() for task in failed or tasks])  # of one that failed, this raises
    except BaseException:
        for task in tasks:
            task.cancel()
            task.add_done_callback(_close)
        raise


def ask(call: Call, most: int) -> Call:
    """Return the first of the calls that ``fan_out`` makes; the same if one choice is wanted. Raises Unsupported."""
    return next(_calls(call, most)) if is_wanted(call.request) else call


def is_wanted(request: Request) -> bool:
    """Whether a request wants several choices."""
    return request.n is not None and request.n > 1


def _calls(call: Call, most: int) -> Iterator[Call]:
    """Yield the calls, one for each choice."""
    request = call.request
    n = request.n
    assert n is not None
    if n > most:
        raise refused(request, Loss("lost", "n", str(n), f"at most {most} choices are asked for at this upstream"))
    losses = [Loss("emulated", "n", str(n), "the provider gives one choice: as many calls are made")]
    if request.seed is not None:
        losses.append(Loss("emulated", "seed", str(request.seed), "each choice has its own: the next number"))
    call.ledger.add_request(in_the_callers_words(request, losses))
    for choice in range(n):
        # One seed for all of them would give the same answer n times.
        seed = None if request.seed is None else request.seed + choice
        yield call.with_request(replace(request, n=None, seed=seed))


async def _one(call_next: Next, call: Call, whole: Call) -> Reply:
    """Serve one of the calls. Its tries are its own until it has an answer: who retries looks at the last of them."""
    call.decision = replace(whole.decision, attempts=[])
    try:
        return await call_next(call)
    finally:
        whole.decision.attempts += call.decision.attempts


def _close(task: asyncio.Task[Reply]) -> None:
    """Close an answer that came when nobody wanted it any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
