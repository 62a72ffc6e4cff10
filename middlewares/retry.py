"""Try again, when the same request may well succeed a moment later. It does not choose another upstream or account.

Only before the commit: once anything of an answer, or a keep-alive, went to the caller, the first failure stands.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.errors import RETRYABLE, Avoided, ErrorKind, GatewayError
from ..gateway.relay.reply import Reply
from ..gateway.units import Duration

_log = logging.getLogger("headgate.retry")
_BY_DEFAULT: Final = tuple(sorted(RETRYABLE))


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

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Return the first reply that has content; raise the last error."""
        options = self.options
        ends = None if options.within is None else self._clock() + options.within
        for attempt in range(1, options.tries + 1):
            try:
                return await (await call_next(call)).opened()
            except GatewayError as error:
                if (attempts := call.decision.attempts) and attempts[-1].error is None:
                    attempts[-1].error = error.kind  # it failed inside its stream
                wait = self._wait_s(error, attempt)
                if wait is None or call.is_final or self._too_late(call, wait, ends):
                    raise
                _log.info(
                    "%s failed with %s, try %d of %d in %.1f s",
                    call.decision.upstream or "the upstream",
                    error.kind,
                    attempt + 1,
                    options.tries,
                    wait,
                )
                failed = error
            await asyncio.sleep(wait)
            if call.is_final:
                raise failed
            if attempt == 1:
                call = call.replace(cause="retry")
        raise AssertionError("unreachable: the last try raised")

    def _wait_s(self, error: GatewayError, attempt: int) -> float | None:
        """Return the seconds before the next try, or None if there is none."""
        options = self.options
        if error.kind not in self._kinds or attempt >= options.tries or isinstance(error, Avoided):
            return None  # where a breaker is open, nobody waits for it: on_failure knows a better place
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= options.max_wait else None
        return self._choose(0.0, min(options.max_wait, options.backoff * 2 ** (attempt - 1)))

    def _too_late(self, call: Call, wait: float, ends: float | None) -> bool:
        if ends is not None and self._clock() + wait > ends:
            return True
        return call.deadline is not None and call.scope.loop.time() + wait >= call.deadline
