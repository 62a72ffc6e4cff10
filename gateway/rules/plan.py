"""The plan: a rule file compiled to what the request path needs, with nothing left to look up.

A plan is immutable and inert until ``start``; many calls and, for the time of a reload, two plans run at once.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from ..call import Call
from ..chain import CarriesOver, Middleware, Next
from ..codecs.base import Codec, Peek, RequestFacts
from ..counted import CountedFacts
from ..doors import PASSED
from ..facts import Principal, WireFacts
from ..passing.paths import is_kept
from ..responses.kept import Policy
from .condition import Condition
from .index import Index
from .match import Matcher
from .problems import Problem
from .schema import Loss, ServerOptions
from .target import Aim, Leaf
from .upstream import Pool, Upstream

_NAMED: Final = re.compile(r"\b(?:path|format)\b").search
_FEW: Final = 24
"""Up to so many routes, asking each is cheaper than looking up which to ask."""


@runtime_checkable
class Authenticator(Protocol):
    """A middleware that refuses strangers, and can say who calls without serving anything."""

    async def identify(self, call: Call, /) -> Principal:
        """Return who calls. Raises AuthError."""
        ...


class Route(Struct, frozen=True, eq=False):
    """One rule, compiled. ``entry`` runs the route's chain, then what ``aim`` leads to.

    ``to`` is what the file says after ``to:``; ``total_s`` seconds for the whole call. ``chain_names`` are the middlewares
    in order, the upstream's last if ``to:`` names one outright; ``chains`` the same by the name of each upstream it may lead
    to; ``own_chain`` the route's alone, ``chain_name`` what the file calls them, if anything. ``middlewares`` are those of
    every upstream it may lead to. ``conditions`` and ``when`` are what ``matches`` was compiled from. ``source`` and ``line``
    are where it stands. ``responses`` says who keeps the state of openai.responses.
    """

    name: str
    matches: Matcher
    entry: Next
    to: str
    aim: Aim
    loss: Loss
    total_s: float
    chain_names: tuple[str, ...]
    middlewares: tuple[Middleware, ...]
    conditions: Mapping[str, Condition]
    when: str | None = None
    needs_usage: bool = False
    authenticates: bool = False
    authenticators: tuple[Authenticator, ...] = ()
    line: int = 0
    source: str = ""
    chain_name: str = ""
    own_chain: tuple[str, ...] = ()
    chains: Mapping[str, tuple[str, ...]] = {}
    responses: Policy | None = None

    @property
    def off(self) -> str | None:
        """Why the route does not match at present, or None."""
        return self.aim.off

    def lacks(self, facts: WireFacts) -> str | None:
        """Return what keeps a call that is passed on from taking this route, which matches it; None: nothing.

        An upstream must serve its path. What leaves something behind at the provider, for everybody to find who comes with
        the same credential, takes only a route that speaks of a path or format: a catch-all opens no such thing by chance.
        """
        if facts.format not in PASSED:
            return None
        if (
            is_kept(facts.path)
            and self.conditions.keys().isdisjoint(("path", "format"))
            and not _NAMED(self.when or "")
        ):
            return "a match that speaks of path or format"
        if any(leaf.upstream.serves(facts.format, facts.path) for leaf in self.aim.leaves()):
            return None
        return "an upstream that passes it on"

    @property
    def upstream(self) -> Upstream | None:
        """The upstream that ``to:`` names outright; None where a target chooses."""
        return self.aim.upstream if isinstance(self.aim, Leaf) else None

    @property
    def model(self) -> str | None:
        """What the upstream is asked for in place of the caller's model; None: the caller's, or a target chooses."""
        return self.aim.model


class Place(NamedTuple):
    """Where a middleware or adapter stands: the ``nth`` of its class in a chain, or of an upstream or route.

    ``owner`` is the section and the name there, such as ``chains.base``: what other items stand beside it does not matter.
    """

    owner: str
    kind: type
    nth: int = 1


class ServedModel(NamedTuple):
    """A name that a caller may ask for, and a route that serves it."""

    name: str
    route: Route


class Plan:
    """A compiled rule file. ``source`` is its name; ``warnings`` are what ``check`` would say of it.

    ``sources`` are its files, included ones too, those that it refers to for secrets and certificates, and the directories
    where globs looked for files: a change of any of these may change the plan. ``members`` are its stores, middlewares and
    adapters, each once, upstreams' before the routes' that use them. ``exact_tokens`` says that rules see tokens as
    they are counted.
    """

    def __init__(
        self,
        source: str,
        server: ServerOptions,
        routes: Iterable[Route],
        upstreams: Mapping[str, Upstream],
        models: Iterable[ServedModel],
        members: Mapping[Place, object],
        warnings: Iterable[Problem],
        sources: Iterable[Path] = (),
        *,
        exact_tokens: bool = False,
    ) -> None:
        self.source = source
        self.exact_tokens = exact_tokens
        self.server = server
        self.routes = tuple(routes)
        self.upstreams = dict(upstreams)
        self.members = dict(members)
        self.lifecycle = tuple(member for member in self.members.values() if has_lifecycle(member))
        self.warnings = tuple(warnings)
        self.sources = tuple(sources)
        self._models = tuple(models)
        self._live = tuple((route.matches, route) for route in self.routes if route.off is None)
        self._index = _indexed(route.conditions for _, route in self._live) if len(self._live) > _FEW else None
        self._pools = tuple(upstream.pool for upstream in self.upstreams.values() if upstream.pool is not None)
        self._spared: frozenset[int] = frozenset()
        self._state: Literal["new", "started", "closed"] = "new"
        self._started = AsyncExitStack()

    def facts(self, codec: Codec, peek: Peek, around: RequestFacts, body: bytes) -> WireFacts:
        """Return what these rules see of a request: the one place where anybody gets it from."""
        if self.exact_tokens and codec.format not in PASSED:
            return CountedFacts(codec, peek, around, body)
        return WireFacts(codec.format, peek, around, body)

    def match(self, facts: WireFacts) -> Route | None:
        """Return the first route that matches and whose upstream is on; of what is passed on, one that also serves it."""
        apart = facts.format in PASSED
        live = self._live
        if self._index is not None:
            for at in self._index.candidates(lambda fact: fact.get(facts)):
                matches, route = live[at]
                if matches(facts) and (not apart or route.lacks(facts) is None):
                    return route
            return None
        for matches, route in live:
            if matches(facts) and (not apart or route.lacks(facts) is None):
                return route
        return None

    def models(self) -> tuple[ServedModel, ...]:
        """Return the models that can be listed without guessing, in the order of the file; a name may be there twice."""
        return self._models

    def carry_over(self, old: Plan) -> None:
        """Let each middleware and adapter take over what the one in its place in ``old`` holds, where it can.

        Call it before ``start``, while ``old`` serves. Raises what they raise.
        """
        for place, member in self.members.items():
            if place in old.members and isinstance(member, CarriesOver):
                member.carry_over(old.members[place])

    async def start(self) -> None:
        """Start what must be started, in order. When one fails, those before it are stopped and its error is raised."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._release)
            self._state = "started"
            for pool in self._pools:
                pool.holders += 1
            for member in self.lifecycle:
                if (start := _hook(member, "start")) is not None:
                    await start()
                if (stop := _hook(member, "stop")) is not None:
                    stack.push_async_callback(stop)
            self._started = stack.pop_all()

    async def aclose(self) -> None:
        """Stop everything, last started first; close every pool that no other started plan uses. Idempotent.

        When something fails to stop or close, the rest is stopped and closed all the same, and then the error is raised.
        """
        if self._state == "new":
            self._state = "closed"
            await self._close(self._unheld())
        await self._started.aclose()

    async def retire(self, successor: Plan) -> None:
        """Close what ``successor`` did not take over. Call it once no call runs on this plan any more.

        Pools live as long as the last plan that uses them: with several reloads in a row, plans may end in any order.
        """
        if successor._state == "new":
            self._spared = frozenset(map(id, successor._pools))
        await self.aclose()

    async def _release(self) -> None:
        self._state = "closed"
        for pool in self._pools:
            pool.holders -= 1
        await self._close(self._unheld())

    def _unheld(self) -> Iterable[Pool]:
        return [pool for pool in self._pools if pool.holders == 0 and id(pool) not in self._spared]

    @staticmethod
    async def _close(pools: Iterable[Pool]) -> None:
        async with AsyncExitStack() as stack:
            for pool in pools:
                stack.push_async_callback(pool.transport.aclose)


def _indexed(rules: Iterable[Mapping[str, Condition]]) -> Index:
    index = Index()
    for conditions in rules:
        index.add(conditions)
    return index


def has_lifecycle(member: object) -> bool:
    """Whether a middleware or adapter wants to be started or stopped: it has an async ``start`` or ``stop``."""
    return _hook(member, "start") is not None or _hook(member, "stop") is not None


def _hook(member: object, name: str) -> Callable[[], Awaitable[None]] | None:
    hook = getattr(member, name, None)
    return hook if inspect.iscoroutinefunction(hook) else None
