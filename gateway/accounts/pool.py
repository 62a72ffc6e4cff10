"""A pool of accounts: which one a call goes out with, and what the end of a call says of it.

Picking looks at each account once and at nothing but numbers in memory. What is learnt of an account holds for all upstreams
that share the pool.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from ..call import Account, Call
from ..errors import Avoided, Cancelled, ErrorKind, GatewayError, UpstreamError, upstream_error
from ..relay.reply import Reply
from ..relay.scope import ending_of
from ..stores.base import Store
from .affinity import Session, Sessions
from .keeper import Keeper
from .options import CooldownRules, Pick
from .record import mark_of
from .resets import back_in_s
from .state import ALL, Parked, State

_log: Final = logging.getLogger("headgate.accounts")
_OF_THE_ACCOUNT: Final[frozenset[ErrorKind]] = frozenset({"rate_limit", "quota", "auth", "account_disabled"})
"""Kinds that say of the account that it cannot be used for now."""
_OF_THE_REQUEST: Final[frozenset[ErrorKind]] = frozenset(
    {"context_length", "content_filter", "invalid_request", "unsupported", "too_large", "not_found"}
)
"""Kinds in which the provider found fault with the request: it let the account in."""
_OVERSIZED: Final = "Request too large"
"""How OpenAI's refusal of a request begins that is larger than the account's limit in a minute, a 429 like any other (read
2026-11-21): no wait helps it, and the account is as good as before for all others."""
_MAX_WHY: Final = 200


class Member(Struct, frozen=True, eq=False):
    """An account of a pool, and its state. ``share`` is one over its weight; ``off`` says why it is left out, ``optional`` that
    it may be another time. ``mark`` tells its key from another."""

    id: str
    account: Account
    state: State
    mark: str = ""
    share: float = 1.0
    priority: int = 0
    off: str | None = None
    optional: bool = False


def member_of(
    id: str,
    credential: str | None,
    weight: float = 1.0,
    priority: int = 0,
    off: str | None = None,
    *,
    optional: bool = False,
) -> Member:
    """Return a member without a past."""
    credential = credential or ""
    return Member(id, Account(id, credential), State(), mark_of(credential), 1 / weight, priority, off, optional)


class AccountPool:
    """``all`` are the accounts in the order of the file, ``members`` those of them that are on.

    ``session`` tells the session of a call, None: of no call. ``clock`` is monotonic; ``wall`` tells Unix seconds.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        pick: Pick = "round_robin",
        rules: CooldownRules = CooldownRules(),
        store: Store | None = None,
        store_name: str = "",
        session: Callable[[Call], Session | None] | None = None,
        sessions: Sessions | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.all = tuple(members)
        self.members = tuple(member for member in members if member.off is None)
        self._is_single = len(self.members) == 1
        self.pick = pick
        self.rules = rules
        self.store = store
        self.store_name = store_name
        self.session = session
        self.clock = clock
        self.wall = wall
        self._sessions = sessions or Sessions(3600.0, 10_000)
        self._by_id = {member.id: member for member in self.members}
        self._rank = _RANKS[pick]
        self._by_turn = session is None and self._rank is _turn_of
        self._probes = rules.probe
        self._turn = 0.0
        self._keeper: Keeper | None = None
        self.writer = f"{random.getrandbits(48):012x}"  # no secret
        """What this process is called where several write down what they count."""

    # -- life

    def carry_over(self, old: Any, /) -> None:
        """Share the states of accounts whose key is the same, and the sessions."""
        if not isinstance(old, AccountPool):
            return
        before = {member.id: member for member in old.all}
        self.all = tuple(_with_past(member, before.get(member.id)) for member in self.all)
        self.members = tuple(member for member in self.all if member.off is None)
        self._is_single = len(self.members) == 1
        self._by_id = {member.id: member for member in self.members}
        self._sessions.known = old._sessions.known
        self._turn = old._turn
        self.writer = old.writer

    async def start(self) -> None:
        """Know what was known before, and keep what becomes known."""
        if self.store is not None and self.store.shared:
            keeper = Keeper(self, self.store)
            await keeper.start()
            self._keeper = keeper

    async def stop(self) -> None:
        """Keep what is known now."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.stop()

    # -- picking

    def take(self, call: Call, skip: Sequence[Member] = ()) -> Use | None:
        """Return the use of an account for ``call``, not of one in ``skip``; None where none can be used now."""
        chosen: Member | None = None
        alone, probed, least = self._is_single, None, math.inf
        if self._by_turn and not skip:
            for member in self.members:
                state = member.state
                if state.cooling:
                    chosen = None
                    break
                turn = state.turn
                if turn < least:
                    chosen, least = member, turn
        if chosen is None:
            picked = self._pick(call, skip)
            if picked is None:
                return None
            chosen, alone, probed = picked
        state = chosen.state
        self._turn = turn = state.turn if state.turn > self._turn else self._turn
        state.turn = turn + chosen.share
        state.calls += 1
        state.in_flight += 1
        use = Use(self, call, chosen, alone, probed)
        if self._keeper is not None:
            use.enter()
        return use

    def _pick(self, call: Call, skip: Sequence[Member]) -> tuple[Member, bool, list[Parked] | None] | None:
        """Return the account for a call, where it is more than whose turn it is, with what its ``Use`` says of it."""
        now, model = self.clock(), call.model
        session = None if self.session is None else self.session(call)
        chosen: Member | None = None
        if session is not None and (id := self._sessions.of(session, now)) is not None:
            chosen = self._by_id.get(id)
            if chosen is not None and not self._is_free(chosen, model, now, skip):
                chosen = None
        if chosen is not None:
            alone = not any(each is not chosen and self._is_free(each, model, now, skip) for each in self.members)
        else:
            chosen, alone = self._choose(model, now, skip)
            if chosen is None:
                return None
        probed: list[Parked] | None = None
        if chosen.state.cooling and (probed := chosen.state.closing(model)):
            for parked in probed:
                parked.probe(now)
        if session is not None:
            self._sessions.bind(session, chosen.id, now)
        return chosen, alone, probed

    def at_home(self, call: Call) -> Use:
        """Return the use of the first account: what stays at the provider is found again only with the same one."""
        member = self.members[0]
        member.state.calls += 1
        member.state.in_flight += 1
        use = Use(self, call, member, True, None)
        if self._keeper is not None:
            use.enter()
        return use

    def _choose(self, model: str, now: float, skip: Sequence[Member]) -> tuple[Member | None, bool]:
        """Return the account whose turn it is, and whether it is the only one that can be used."""
        best: Member | None = None
        least: Any = None
        free, rank, probes = 0, self._rank, self._probes
        for member in self.members:
            state = member.state
            if (state.cooling and state.is_closed(model, now, probes)) or (skip and member in skip):
                continue
            free += 1
            if rank is None:
                if best is None:
                    best = member
                    continue
                break
            value = rank(member)
            if best is None or value < least:
                best, least = member, value
        return best, free < 2

    def _is_free(self, member: Member, model: str, now: float, skip: Sequence[Member]) -> bool:
        state = member.state
        return not (state.cooling and state.is_closed(model, now, self._probes)) and member not in skip

    # -- what is learnt

    def ended(self, use: Use, error: GatewayError) -> None:
        """Hear that a call failed, before anything of the answer or within it."""
        if not isinstance(error, UpstreamError) or isinstance(error, Avoided):
            return
        use.member.state.errors += 1
        if error.kind in _OF_THE_ACCOUNT and not is_oversized(error):
            self.park(use.member, use.call, error)
        elif error.kind in _OF_THE_REQUEST:
            use.confirm()

    def park(self, member: Member, call: Call, error: GatewayError) -> None:
        """Leave an account alone for what ``error`` says of it."""
        rules, kind, unix = self.rules, error.kind, self.wall()
        told = back_in_s(error, rules.until, unix)
        if kind in ("auth", "account_disabled", "permission"):
            length = math.inf if rules.auth is None else float(rules.auth)
        elif told is not None:
            length = min(told, rules.max)
        else:
            length = float(rules.quota if kind == "quota" else rules.else_)
        by_model = kind == "permission" or (kind == "rate_limit" and rules.scope == "account+model")
        scope = call.model if by_model else ALL
        why = error.message.replace(member.account.credential, "***") if member.account.credential else error.message
        if member.state.park(scope, self.clock(), unix, length, kind, why[:_MAX_WHY], call.model):
            how_long = "until it is reset" if math.isinf(length) else f"for {length:.1f} s"
            where = f" for the model {scope}" if scope else ""
            _log.warning("account %s of %s: left alone%s %s after %s", member.id, self.name, where, how_long, kind)

    def back(self, member: Member, model: str) -> None:
        """Hear that an account answers again. A cooldown that was said meanwhile stands."""
        now, unix, cooling = self.clock(), self.wall(), member.state.cooling
        ended = [scope for scope in (ALL, model) if (each := cooling.get(scope)) is not None and each.left(now) == 0]
        for scope in ended:
            member.state.over(scope, unix)
        if ended:
            _log.info("account %s of %s: back, it answers again", member.id, self.name)

    # -- what is told

    def first_back(self, model: str, skip: Sequence[Member] = ()) -> tuple[float, Parked | None]:
        """Return in how many seconds the first account can be used, and what stands in its way until then, if anything.

        One that a call finds out about goes first, which soon is for all: the next to come back is for one call alone."""
        now = self.clock()
        soonest: tuple[bool, float, Parked | None] = (True, math.inf, None)
        for member in self.members:
            if member in skip:
                continue
            closing = member.state.closing(model) if member.state.is_closed(model, now, self._probes) else []
            if not closing:
                return 0.0, None
            last = max(closing, key=lambda parked: parked.wait(now))
            wait = last.wait(now)
            is_cooling = last.left(now) > 0
            if soonest[2] is None or (is_cooling, wait) < soonest[:2]:
                soonest = (is_cooling, wait, last)
        return soonest[1:]

    def refusal(self, call: Call, skip: Sequence[Member] = ()) -> UpstreamError:
        """Return the error where no account can be used: of the kind of the account that is back first."""
        wait, parked = self.first_back(call.model, skip)
        kind: Any = "rate_limit" if parked is None else parked.kind
        upstream = call.decision.upstream
        if math.isinf(wait):
            said = f"no account of upstream {upstream} can be used: the provider refuses each of them"
            return upstream_error(kind, said)
        said = f"no account of upstream {upstream} can be used now: the first is back in {math.ceil(wait)} s"
        return upstream_error(kind, said, retry_after_s=wait)


def _with_past(member: Member, before: Member | None) -> Member:
    if before is None or before.mark != member.mark:
        return member
    member.account.reset_at = before.account.reset_at
    return replace(member, state=before.state)


def _turn_of(member: Member) -> float:
    return member.state.turn


def _by_use(member: Member) -> tuple[float, float]:
    state = member.state
    return state.in_flight * member.share, state.turn


def _by_priority(member: Member) -> tuple[int, float]:
    return member.priority, member.state.turn


_RANKS: Final[dict[Pick, Callable[[Member], Any] | None]] = {
    "round_robin": _turn_of,
    "weighted": _turn_of,
    "least_used": _by_use,
    "priority": _by_priority,
    "fill_first": None,
}
"""What is least in the account whose turn it is. Turns are moments of a virtual time that each use moves on by the account's
share: so they come by weight, evenly spread, and who was away has no arrears to make up. None: the first of the list."""


def is_oversized(error: GatewayError) -> bool:
    """Whether a rate limit is about the size of the one request."""
    return error.kind == "rate_limit" and error.message.startswith(_OVERSIZED)


class Use(Struct, eq=False):
    """A call that goes out with an account: hears of its end, also when the scope closes and nobody read the answer.

    ``alone``: no other account could be used. ``probed``: the cooldowns of which the call finds out whether they are over.
    ``in_scope``: whether it hears of the scope's end. It does once the answer is on its way, before that only where calls
    under way are written down: whoever awaits the answer learns what happens.
    """

    pool: AccountPool
    call: Call
    member: Member
    alone: bool
    probed: list[Parked] | None
    in_scope: bool = False
    over: bool = False

    def enter(self) -> None:
        """Hear of the end of the scope."""
        self.in_scope = True
        self.call.scope.items.add(self)

    def attend(self, reply: Reply) -> Reply:
        """Hear when the answer is over, also where its scope was closed meanwhile. Returns ``reply``."""
        reply.until(self)
        self.enter()
        if self.call.scope.closed:
            self.abort()
        return reply

    def confirm(self) -> None:
        """The account answers."""
        if self.probed:
            self.pool.back(self.member, self.call.model)

    def close(self, error: GatewayError | None, /) -> None:
        """The call is over."""
        if self.over:
            return
        self.over = True
        if self.in_scope:
            self.call.scope.items.discard(self)
        self.member.state.in_flight -= 1
        if error is not None:
            self.pool.ended(self, error)
        if self.probed:
            for parked in self.probed:
                parked.probing -= 1

    def fail(self, fault: BaseException) -> None:
        """There is no answer."""
        self.close(ending_of(fault))

    def abort(self) -> None:
        """The scope closes."""
        self.close(Cancelled("the call is over"))
