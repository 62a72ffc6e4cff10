"""Try again, when the same request may well succeed a moment later. It does not choose another upstream or account.

Only before the commit: once anything of an answer, or a keep-alive, went to the caller, the first failure stands.

Without any gateway, it tries whatever is given to ``run``:

>>> import asyncio
>>> from headgate.middlewares.retry import Retry, RetryOptions
>>> answers = iter([ConnectionResetError("not yet"), "here you are"])
>>> async def ask() -> str:
...     answer = next(answers)
...     if isinstance(answer, Exception):
...         raise answer
...     return answer
>>> asyncio.run(Retry(RetryOptions(tries=3, backoff=0.001)).run(ask))
'here you are'
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Annotated, ClassVar, Final, TypeVar

from msgspec import Meta, Struct

from ..gateway.accounts.resets import back_in_s
from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.errors import RETRYABLE, Avoided, ConnectFailed, ErrorKind, GatewayError, UpstreamTimeout
from ..gateway.relay.reply import Reply
from ..gateway.units import Duration

T = TypeVar("T")
_log = logging.getLogger("headgate.retry")
_BY_DEFAULT: Final = tuple(sorted(RETRYABLE))
_LIMITED: Final = frozenset({"rate_limit", "quota"})


class RetryOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``tries`` counts the first. The wait before try n+1 is random between 0 and ``backoff`` * 2**(n-1), at most
    ``max_wait``; a provider's Retry-After stands instead, unless it is longer than ``max_wait``: then nobody waits. No try
    begins later than ``within`` after the first did; one that runs is not cut short."""

    tries: Annotated[int, Meta(ge=1, le=20)] = 3
    backoff: Duration = Duration(1)
    max_wait: Duration = Duration(30)
    on: tuple[ErrorKind, ...] = _BY_DEFAULT
    within: Duration | None = None


class Retry:
    """Calls the rest of the chain up to ``tries`` times."""

    Options: ClassVar[type[Struct]] = RetryOptions
    may_retry = True

    def __init__(
        self,
        options: RetryOptions,
        choose: Callable[[float, float], float] = random.uniform,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self._choose = choose
        self._clock = clock
        self._kinds = frozenset(options.on)
        self._within = options.within

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Return the first reply that has content; raise the last error."""
        ends = None if self._within is None else self._clock() + self._within
        decision = call.decision
        attempts, upstream = decision.attempts, decision.upstream
        before, attempt = len(attempts), 1
        while True:
            try:
                reply = await call_next(call)
                return reply if reply.complete is not None else await reply.opened()
            except GatewayError as error:
                if new := attempts[before:]:
                    # One of a hedge may stand beside it; in a route's chain nobody knows the upstream before.
                    made = next((each for each in reversed(new) if each.upstream == upstream), new[-1])
                    if made.error is None:
                        made.error = error.kind  # it failed inside its stream
                wait = self._wait_s(error, attempt)
                if wait is None or call.is_final or self._too_late(call, wait, ends):
                    raise
                _log.info(
                    "%s failed with %s, try %d of %d in %.1f s",
                    decision.upstream or "the upstream",
                    error.kind,
                    attempt + 1,
                    self.options.tries,
                    wait,
                )
                failed = error
            try:
                await asyncio.sleep(wait)
                if call.scope.closed or call.is_final:
                    raise failed
            finally:
                del failed  # it holds this frame: a cycle otherwise
            if attempt == 1:
                call = call.replace(cause="retry")
            before, attempt = len(attempts), attempt + 1

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Return what ``work()`` comes to, tried as a call would be; raise its last error.

        Besides GatewayErrors, by their kind, ConnectionError counts as ``connect`` and TimeoutError as ``timeout.connect``.
        """
        ends = None if self._within is None else self._clock() + self._within
        for attempt in range(1, self.options.tries + 1):
            try:
                return await work()
            except (GatewayError, ConnectionError, TimeoutError) as fault:
                wait = self._wait_s(_as_error(fault), attempt)
                if wait is None or (ends is not None and self._clock() + wait > ends):
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last try raised")

    def _wait_s(self, error: GatewayError, attempt: int) -> float | None:
        """Return the seconds before the next try, or None if there is none."""
        options = self.options
        if error.kind not in self._kinds or attempt >= options.tries or isinstance(error, Avoided):
            return None  # where a breaker is open, nobody waits for it: on_failure knows a better place
        if error.headers.get("x-should-retry", "").strip().lower() == "false":
            return None  # what OpenAI and Anthropic tell their own SDKs
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= options.max_wait else None
        if error.kind in _LIMITED:
            # Some tell nothing but when a limit that is used up is whole again. That may be long after the next request
            # would be served, so that one far off says nothing.
            whole = back_in_s(error, ("reset-header",), time.time())
            if whole is not None and whole <= options.max_wait:
                return whole
        return self._choose(0.0, min(options.max_wait, options.backoff * 2 ** (attempt - 1)))

    def _too_late(self, call: Call, wait: float, ends: float | None) -> bool:
        if ends is not None and self._clock() + wait > ends:
            return True
        then = monotonic() + wait
        # Once a keep-alive went out nothing is tried again: better a plain refusal now than one in a stream then.
        return then >= call.scope.commits_at or (call.deadline is not None and then >= call.deadline)


def _as_error(fault: GatewayError | ConnectionError | TimeoutError) -> GatewayError:
    if isinstance(fault, GatewayError):
        return fault
    if isinstance(fault, TimeoutError):
        return UpstreamTimeout(str(fault), kind="timeout.connect")
    return ConnectFailed(str(fault))
