"""Pools of accounts: made from their section, secrets read, and handed to the upstreams that name them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Final

from ..accounts.affinity import Session, Sessions, session_by, session_of
from ..accounts.options import AffinityRules, PoolRules
from ..accounts.pool import AccountPool, Member, member_of
from ..call import Call
from ..chain import Middleware, UsesAccounts
from .document import Entry, Items, Node, Table
from .fail_open import inner_of
from .match import FACT_NAMES, PRINCIPAL_FACTS, find_fact
from .named import NAME
from .plan import Route
from .problems import Spot, nearest
from .read import Reader
from .schema import UpstreamRules
from .stores import DEFAULT, Stores
from .targets import STICKY

_SESSION: Final = "session"
_UNLESS_SET: Final = "to leave the account out while it is unset"


class Accounts:
    """The pools of one file. ``used`` are the names that an upstream refers to."""

    def __init__(self, reader: Reader, entries: Mapping[str, Entry], stores: Stores) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._entries = entries
        self._stores = stores
        self.named: dict[str, AccountPool] = {}
        self.used: set[str] = set()

    def build_all(self) -> None:
        """Make every pool, so that mistakes in unused ones are found too."""
        for name, entry in self._entries.items():
            if not NAME.fullmatch(name):
                hint = "letters, digits, dot, dash and underscore"
                self._problems.add("E015", entry.spot, f'"{name}" is no name for one of accounts', hint)
            if (pool := self._build(name, entry.value)) is not None:
                self.named[name] = pool

    def of(
        self, rules: UpstreamRules, node: Table, where: str, middlewares: Iterable[Middleware]
    ) -> AccountPool | None:
        """Return the pool of an upstream, handed to what rotates in its chain; None, and a note, if something is wrong."""
        rotating = [each for each in map(inner_of, middlewares) if isinstance(each, UsesAccounts)]
        if rules.accounts is None:
            if rotating:
                said = f"{where}: rotate is in its chain, but there are no accounts to take turns with"
                self._problems.add("E052", _spot(node, "chain"), said, "add accounts: POOL, or take rotate out")
            return None
        spot = _spot(node, "accounts")
        self.used.add(rules.accounts)
        for key, said in (("key", "key"), ("credential", "credential: pass-through")):
            if rules.key is not None if key == "key" else rules.credential == "pass-through":
                self._problems.add("E052", spot, f'{where} has both "accounts" and "{said}"', "remove one of the two")
        if not rotating:
            said = f"{where}: accounts take turns by rotate, which is not in its chain"
            self._problems.add("E052", spot, said, "such as chain: [retry, rotate]")
        pool = self.named.get(rules.accounts)
        if pool is None and rules.accounts not in self._entries:
            hint = nearest(rules.accounts, self._entries) or "define it in accounts"
            self._problems.add("E033", spot, f'{where}.accounts: there is no pool "{rules.accounts}"', hint)
        if pool is not None:
            for each in rotating:
                each.pools[where.partition(".")[2]] = pool
        return pool

    def astray(self, route: Route, spot: Spot, where: str) -> None:
        """Note what rotates in the chain of a route: which upstream a call goes to is not known there."""
        theirs = {id(each) for leaf in route.aim.leaves() for each in leaf.upstream.middlewares}
        if any(isinstance(inner_of(each), UsesAccounts) for each in route.middlewares if id(each) not in theirs):
            said = f"{where}: rotate belongs in the chain of an upstream, whose accounts it takes turns with"
            self._problems.add("E052", spot, said, "move it there")

    def _build(self, name: str, node: Node) -> AccountPool | None:
        where = f"accounts.{name}"
        rules = self._reader.struct(node, PoolRules, where)
        if rules is None or not isinstance(node, Table):
            return None
        store = self._stores.of(rules.store or DEFAULT, _spot(node, "store"), f"{where}.store")
        members = self._members(rules, node, where)
        session = self._session(rules.affinity, node, where)
        if store is None or members is None or (session is None and rules.affinity is not None):
            return None
        affinity = rules.affinity or AffinityRules()
        sessions = Sessions(affinity.ttl, affinity.max_entries)
        return AccountPool(name, members, rules.pick, rules.cooldown, store, rules.store or DEFAULT, session, sessions)

    def _members(self, rules: PoolRules, node: Table, where: str) -> list[Member] | None:
        written = node.get("members")
        nodes = written.items if isinstance(written, Items) else ()
        members: dict[str, Member] = {}
        whole = True
        for at, (member, item) in enumerate(zip(rules.members, nodes, strict=True)):
            place = f"{where}.members[{at}]"
            if member.id in members:
                said = f'{place}: there is an account "{member.id}" in this pool already'
                self._problems.add("E016", _spot(item, "id"), said, "logs tell accounts by id")
                whole = False
            value, off = self._reader.secret(member.key, _spot(item, "key"), f"{place}.key", _UNLESS_SET)
            whole = whole and (value is not None or off is not None)
            members[member.id] = member_of(
                member.id, value, member.weight, member.priority, off, optional=member.key.optional
            )
        return list(members.values()) if whole else None

    def _session(self, rules: AffinityRules | None, node: Table, where: str) -> Callable[[Call], Session | None] | None:
        if rules is None:
            return None
        if rules.by == _SESSION:
            return session_of
        fact = find_fact(rules.by)
        if fact is None or fact.kind not in STICKY:
            known = (_SESSION, *FACT_NAMES, *PRINCIPAL_FACTS)
            said = f'{where}.affinity.by: no fact to tell sessions by: "{rules.by}"'
            self._problems.add("E040", _spot(node, "affinity", "by"), said, nearest(rules.by, known))
            return None
        if rules.by in PRINCIPAL_FACTS:
            return session_by(attrgetter(rules.by))  # of the call: its facts know of nobody before a target chooses
        get = fact.get

        def read(call: Call) -> Any:
            return None if call.wire is None else get(call.wire)

        return session_by(read)


def off_because(pool: AccountPool) -> str | None:
    """Return why no account of a pool is on; None if one is."""
    return (
        None if pool.members else ", ".join(dict.fromkeys(member.off for member in pool.all if member.off is not None))
    )


def _spot(node: Node, *keys: str) -> Spot:
    """Return where the innermost of ``keys`` stands below ``node`` that is there."""
    for key in keys:
        value = node.get(key) if isinstance(node, Table) else None
        if value is None:
            break
        node = value
    return node.spot
