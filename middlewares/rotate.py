"""Send each call out with one of several accounts, and with another one when the first may not be used just now.

Which account is whose turn, and how long one is left alone after a failure, the pool knows that the upstream names. It does
not wait, and tries nothing again with the same account: that is for ``retry``, which stands before it.
"""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import Annotated, ClassVar, Final, NamedTuple

from msgspec import Meta, Struct

from ..gateway.accounts.pool import AccountPool, Member
from ..gateway.call import Call, Step
from ..gateway.chain import Next
from ..gateway.errors import Avoided, ErrorKind, GatewayError, HouseError, UpstreamError
from ..gateway.passing.paths import is_kept
from ..gateway.relay.reply import Reply
from ..gateway.units import seconds

_log: Final = logging.getLogger("headgate.rotate")
_KINDS: Final[frozenset[ErrorKind]] = frozenset({"rate_limit", "quota", "auth", "account_disabled", "permission"})
"""Kinds after which another account may do better."""
_RETRY_AFTER: Final = frozenset({"retry-after", "retry-after-ms"})


class RotateOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``tries``: how many accounts a call is sent out with at most. One that an open ``breaker`` keeps away does not count."""

    tries: Annotated[int, Meta(ge=1, le=100)] = 5


class Rotate:
    """Gives each call an account. ``pools`` are those of the upstreams in whose chain it stands, by the upstream's name."""

    Options: ClassVar[type[Struct]] = RotateOptions
    may_retry = True

    def __init__(self, options: RotateOptions) -> None:
        self.options = options
        self.pools: dict[str, AccountPool] = {}

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Return the first reply that has content; raise the last error, or why no account can be used."""
        pool = self.pools.get(call.decision.upstream)
        if pool is None:
            raise HouseError(f"rotate has no accounts for upstream {call.decision.upstream}")
        is_bound = call.passed is not None and is_kept(call.passed.path)
        use = pool.at_home(call) if is_bound else pool.take(call)
        if use is None:
            raise _refusal(pool, call)
        try:
            sent = call.copy()
            sent.account = use.member.account
            reply = await call_next(sent)
            whole = reply.complete
            if whole is None and (use.probed or not use.alone):
                await reply.opened()
        except GatewayError as error:
            use.fail(error)
            if is_bound or not _speaks_of_account(error):
                raise
            failed = error
        except BaseException as fault:
            use.fail(fault)
            raise
        else:
            if use.probed:
                use.confirm()
            if whole is None:
                return use.attend(reply)
            use.close(None)  # the account has done all that was asked of it
            return reply
        try:
            return await self._go_on(call, call_next, pool, use.member, failed)
        finally:
            del failed  # it holds this frame: a cycle otherwise

    async def _go_on(
        self, call: Call, call_next: Next, pool: AccountPool, member: Member, error: GatewayError
    ) -> Reply:
        """Try other accounts than ``member``, whose try ended with ``error``."""
        failures = [last := _Failure(member, error)]
        try:
            while True:
                if (attempts := call.decision.attempts) and attempts[-1].error is None:
                    attempts[-1].error = last.error.kind  # it failed inside its stream
                tried = sum(not isinstance(each.error, Avoided) for each in failures)
                if not _speaks_of_account(last.error) or tried >= self.options.tries or _is_too_late(call):
                    raise _truest(pool, call, failures)
                use = pool.take(call, [each.member for each in failures])
                if use is None:
                    raise _truest(pool, call, failures)
                call = _moved(call, last, use.member)
                try:
                    reply = await call_next(call)
                    if not use.alone or use.probed or any(each.error.kind == "permission" for each in failures):
                        await reply.opened()
                except GatewayError as fault:
                    use.fail(fault)
                    failures.append(last := _Failure(use.member, fault))
                    continue
                except BaseException as fault:
                    use.fail(fault)
                    raise
                if use.probed:
                    use.confirm()
                _settle(pool, call, failures)
                return use.attend(reply)
        finally:
            failures.clear()
            del error, last  # they hold this frame: a cycle otherwise


class _Failure(NamedTuple):
    member: Member
    error: GatewayError


def _speaks_of_account(error: GatewayError) -> bool:
    return isinstance(error, Avoided) or (isinstance(error, UpstreamError) and error.kind in _KINDS)


def _settle(pool: AccountPool, call: Call, failures: list[_Failure]) -> None:
    """What one account may do and another may not is about the account."""
    for member, error in failures:
        if error.kind == "permission":
            pool.park(member, call, error)


def _is_too_late(call: Call) -> bool:
    return call.is_final or (call.deadline is not None and monotonic() >= call.deadline)


def _moved(call: Call, last: _Failure, member: Member) -> Call:
    """Return the call for another account, and note why."""
    upstream, kind = call.decision.upstream, last.error.kind
    _log.info("%s: account %s failed with %s, on to %s", upstream, last.member.id, kind, member.id)
    at = seconds(monotonic() - call.began)
    facts = {"from": last.member.id, "to": member.id, "kind": kind}
    call.decision.steps.append(Step("rotate", "moved", at, at, facts))
    return call.replace(account=member.account, cause="rotate")


def _refusal(pool: AccountPool, call: Call) -> UpstreamError:
    """Return the error, and put the try that was not made into the record: as one of no requests."""
    error = pool.refusal(call)
    attempt = call.attempt(call.decision.upstream)
    attempt.ended_s, attempt.error, attempt.calls = attempt.started_s, error.kind, 0
    return error


def _truest(pool: AccountPool, call: Call, failures: list[_Failure]) -> GatewayError:
    """Return the error of the account that is back first, and say when that is."""
    last = failures[-1].error
    if not _speaks_of_account(last):
        return last
    refused = [each.error for each in failures if not isinstance(each.error, Avoided)]
    avoided = [each.error for each in failures if isinstance(each.error, Avoided)]
    soonest = min(avoided, key=lambda error: error.retry_after_s or 0.0, default=None)
    # Those that are not left alone would do no better than they just did.
    unmoved = [each.member for each in failures if isinstance(each.error, Avoided) or each.error.kind == "permission"]
    wait, parked = pool.first_back(call.model, unmoved)
    if soonest is not None and (not refused or (soonest.retry_after_s or 0.0) < wait):
        return soonest
    if math.isinf(wait):
        return last
    kind = last.kind if parked is None else parked.kind
    error = next((error for error in reversed(refused) if error.kind == kind), None)
    if error is None:
        return pool.refusal(call, unmoved)
    error.retry_after_s = wait
    error.headers = {name: value for name, value in error.headers.items() if name not in _RETRY_AFTER}
    return error
