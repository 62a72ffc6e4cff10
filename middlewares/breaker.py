"""Leave an upstream alone that keeps failing, and ask it now and then whether it is back. It does not try anything again.

Where a call goes out with an account (see ``rotate``), each account of an upstream is watched by itself.

Closed: calls pass, and how they end is counted. Open: calls are refused at once, so that ``on_failure`` goes elsewhere.
Half-open: one call at a time is let through as a probe; its first content closes the circuit, its failure opens it again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from time import monotonic
from typing import Annotated, ClassVar, Final, TypeAlias

from msgspec import Meta, Struct

from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.errors import Avoided, ErrorKind, GatewayError, UpstreamError, UpstreamTimeout
from ..gateway.relay.reply import Reply
from ..gateway.units import Duration

_log: Final = logging.getLogger("headgate.breaker")
_SILENT: Final[frozenset[ErrorKind]] = frozenset(
    {
        "connect",
        "timeout.connect",
        "timeout.pool",
        "timeout.write",
        "timeout.first_token",
        "timeout.idle",
        "timeout.total",
    }
)
"""Kinds in which no word of the provider came: where they are no failures, they say nothing about it either."""
_BY_DEFAULT: Final[tuple[ErrorKind, ...]] = tuple(
    sorted((_SILENT - {"timeout.pool"}) | {"overloaded", "unavailable", "upstream_error", "cut", "malformed"})
)
"""Not ``rate_limit`` and ``quota``: they are about one account, which need not be the only one."""
_BUCKETS: Final = 10
"""In how many steps the window moves on."""
_MAX_CIRCUITS: Final = 1000
"""Upstreams, or accounts of them, that are watched at most; the one that was met first makes room."""
_Whom: TypeAlias = "str | tuple[str, str, float]"
"""An upstream, or its account since that was reset: then it begins anew."""
_PROBED_S: Final = 1.0
"""When to come back while a probe is under way: nobody knows how long it takes."""


class BreakerOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The upstream is left alone when at least ``failures`` calls failed within ``window`` with an error of ``kinds``, and they
    are at least the share ``rate`` of the calls that ended in that time. It is left alone for ``open``, or for as long as its
    Retry-After says if that is longer, at most ``max_open``; then one call at a time is let through until one is answered."""

    failures: Annotated[int, Meta(ge=1, le=100_000)] = 5
    rate: Annotated[float, Meta(ge=0, le=1)] = 0.5
    window: Duration = Duration(60)
    open: Duration = Duration(30)
    max_open: Duration = Duration(600)
    kinds: Annotated[tuple[ErrorKind, ...], Meta(min_length=1)] = _BY_DEFAULT

    def __post_init__(self) -> None:
        for name in ("window", "open"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero")
        if self.max_open < self.open:
            raise ValueError("max_open must not be shorter than open")


class Breaker:
    """Passes calls on, or refuses them, by how those before them ended."""

    Options: ClassVar[type[Struct]] = BreakerOptions

    def __init__(self, options: BreakerOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.options = options
        self._clock = clock
        self._kinds = frozenset(options.kinds)
        self._width = options.window / _BUCKETS
        self._circuits: dict[_Whom, _Circuit] = {}

    def carry_over(self, old: Breaker, /) -> None:
        """Share what ``old`` knows. Where the window changed, the counts move on in the new steps from now on."""
        self._circuits = old._circuits

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Pass the call on. Raises Avoided while its upstream is left alone."""
        account, upstream = call.account, call.decision.upstream
        whom = upstream if account is None else (upstream, account.id, account.reset_at)
        circuit = self._circuits.get(whom) or self._watch(whom)
        if circuit.until is not None:
            return await self._ask(circuit, call, call_next)
        epoch = circuit.epoch
        try:
            reply = await call_next(call)
        except BaseException as fault:
            self.ended(circuit, epoch, _as_error(fault, call))
            raise
        return reply.until(_Ending(self, circuit, epoch))

    def count(self, circuit: _Circuit) -> None:
        """Count a call that ended; all that it takes where it ended well."""
        if (now := self._clock()) >= circuit.turn:
            circuit.move(now, self._width)
        circuit.calls[circuit.at] += 1

    def ended(self, circuit: _Circuit, epoch: int, error: GatewayError | None) -> None:
        """Count a call that ended, and open the circuit if that is one failure too many.

        A call that began before the circuit opened last says nothing new: at most how long to stay away.
        """
        failed = self._failed(error)
        if failed is None:
            return
        now = self._clock()
        if epoch != circuit.epoch:
            if error is not None and failed and circuit.until is not None:
                circuit.until = max(circuit.until, self._asked(now, error))
            return
        if circuit.turn - now > 2 * self._width:  # the clock went back: its time would not come
            circuit.move(now, self._width)
        self.count(circuit)
        if error is not None and failed:
            circuit.failures[circuit.at] += 1
            circuit.asked_until = max(circuit.asked_until, self._asked(now, error))
            failures, calls = sum(circuit.failures), sum(circuit.calls)
            if failures >= self.options.failures and failures >= self.options.rate * calls:
                self._open(circuit, now, error, f"{failures} of {calls} calls failed")

    async def _ask(self, circuit: _Circuit, call: Call, call_next: Next) -> Reply:
        """Refuse the call, or send it as the probe."""
        assert circuit.until is not None
        left = circuit.until - self._clock()
        if left > self.options.max_open:  # the clock went back, or a reload brought a shorter time
            left = 0.0
        if left > 0 or circuit.probing:
            raise _refusal(circuit, call, left if left > 0 else _PROBED_S)
        circuit.probing = True
        if not circuit.half_open:
            circuit.half_open = True
            _log.info("upstream %s: half-open, one call at a time finds out whether it is back", circuit.name)
        try:
            reply = await (await call_next(call)).opened()
        except BaseException as fault:
            error = _as_error(fault, call)
            failed = self._failed(error)
            if failed:
                now = self._clock()
                circuit.asked_until = self._asked(now, error)
                self._open(circuit, now, error, "it failed again")
            elif failed is False:
                self._close(circuit)
            raise
        finally:
            circuit.probing = False
        self._close(circuit)
        return reply.until(_Ending(self, circuit, circuit.epoch))

    def _failed(self, error: GatewayError | None) -> bool | None:
        """Return whether the upstream failed; None where the end of the call says nothing about it."""
        if error is None:
            return False
        if not isinstance(error, UpstreamError) or isinstance(error, Avoided):
            return None
        if error.kind in self._kinds:
            return True
        return None if error.kind in _SILENT else False

    def _asked(self, now: float, error: GatewayError) -> float:
        """Return until when the provider asks to be left alone, capped; a number that is none asks for nothing."""
        wait = error.retry_after_s
        return now + min(wait, self.options.max_open) if wait is not None and wait > 0 else now

    def _open(self, circuit: _Circuit, now: float, error: GatewayError, why: str) -> None:
        circuit.until = min(max(now + self.options.open, circuit.asked_until), now + self.options.max_open)
        circuit.epoch += 1
        circuit.forget()
        left = circuit.until - now
        _log.warning("upstream %s: open for %.1f s, %s, the last with %s", circuit.name, left, why, error.kind)

    def _close(self, circuit: _Circuit) -> None:
        circuit.until = None
        circuit.forget()
        _log.info("upstream %s: closed, it answers again", circuit.name)

    def _watch(self, whom: _Whom) -> _Circuit:
        circuits = self._circuits
        if len(circuits) >= _MAX_CIRCUITS:
            del circuits[next(iter(circuits))]
        circuits[whom] = circuit = _Circuit(whom if isinstance(whom, str) else f"{whom[0]} with account {whom[1]}")
        return circuit


class _Circuit:
    """What is known of an upstream. ``until`` is None while it is closed, else when the first probe may go; ``asked_until``
    is the longest that its errors asked for. ``epoch`` counts how often it opened."""

    __slots__ = (
        "name",
        "until",
        "asked_until",
        "epoch",
        "half_open",
        "probing",
        "calls",
        "failures",
        "at",
        "turn",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.until: float | None = None
        self.epoch = 0
        self.probing = False
        self.forget()

    def forget(self) -> None:
        """Begin anew with what is counted."""
        self.asked_until = -math.inf
        self.half_open = False
        self.calls = [0] * _BUCKETS
        self.failures = [0] * _BUCKETS
        self.at = 0
        self.turn = -math.inf  # when the next bucket's turn is

    def move(self, now: float, width: float) -> None:
        """Go to the bucket of ``now``; ``width`` is the time of one."""
        late = now - self.turn
        if not 0 <= late < width * (_BUCKETS - 1):  # nothing of the window is left, or the clock went back
            self.calls = [0] * _BUCKETS
            self.failures = [0] * _BUCKETS
            self.turn = now + width
            return
        while self.turn <= now:
            self.at = (self.at + 1) % _BUCKETS
            self.calls[self.at] = self.failures[self.at] = 0
            self.turn += width


class _Ending:
    """Hears how an answer ends. A caller who leaves (``cancelled``) is not the upstream's failure."""

    __slots__ = ("_breaker", "_circuit", "_epoch")

    def __init__(self, breaker: Breaker, circuit: _Circuit, epoch: int) -> None:
        self._breaker = breaker
        self._circuit = circuit
        self._epoch = epoch

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        if error is None and self._circuit.epoch == self._epoch:
            self._breaker.count(self._circuit)
        else:
            self._breaker.ended(self._circuit, self._epoch, error)


def _as_error(fault: BaseException, call: Call) -> GatewayError:
    """Return what ``fault`` says of the upstream. What cancels a call after its deadline is that deadline."""
    if isinstance(fault, GatewayError):
        return fault
    overdue = call.deadline is not None and monotonic() >= call.deadline
    if overdue and isinstance(fault, asyncio.CancelledError):
        return UpstreamTimeout("the call took longer than its total time-out", kind="timeout.total")
    return GatewayError("not the upstream's failure")


def _refusal(circuit: _Circuit, call: Call, wait: float) -> Avoided:
    """Return the error, and put the try that was not made into the record: as one of no requests."""
    upstream = call.decision.upstream
    attempt = call.attempt(upstream)
    attempt.ended_s, attempt.error, attempt.calls = attempt.started_s, "unavailable", 0
    what = f"upstream {upstream} failed too often lately and is not asked for now"
    return Avoided(what, kind="unavailable", retry_after_s=wait)
