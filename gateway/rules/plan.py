"""The plan: a rule file compiled to what the request path needs, with nothing left to look up.

A plan is immutable and inert until ``start``; many calls and, for the time of a reload, two plans run at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from ..call import Call, Principal
from ..chain import Adapter, Middleware, Next, Timeouts
from ..transport.base import Transport
from .condition import Condition
from .match import Matcher, WireFacts
from .problems import Problem
from .schema import Loss, ServerOptions


@runtime_checkable
class Authenticator(Protocol):
    """A middleware that refuses strangers, and can say who calls without serving anything."""

    async def identify(self, call: Call, /) -> Principal:
        """Return who calls. Raises AuthError."""
        ...


class Pool:
    """The connections of an upstream, shared by the plans of a reload; ``holders`` started plans use it."""

    __slots__ = ("holders", "transport")

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.holders = 0


class Upstream(Struct, frozen=True, eq=False):
    """A configured adapter with its own chain.

    ``off`` says why it is off, or None; it then has neither adapter nor pool. ``optional`` says that its key or a header is,
    so that it may be off another time. ``shared`` is what must be alike for a reload to keep the connections.
    """

    name: str
    adapter_name: str
    options: Struct | None
    timeouts: Timeouts
    entry: Next
    adapter: Adapter | None = None
    pool: Pool | None = None
    off: str | None = None
    optional: bool = False
    chain_names: tuple[str, ...] = ()
    middlewares: tuple[Middleware, ...] = ()
    models: tuple[str, ...] = ()
    shared: object = None

    @property
    def transport(self) -> Transport | None:
        """The way to the provider, or None when it is off."""
        return None if self.pool is None else self.pool.transport


class Route(Struct, frozen=True, eq=False):
    """One rule, compiled. ``entry`` runs the route's chain, the upstream's chain and its adapter.

    ``target`` is what the file says after ``to:``; ``model`` what the upstream is asked for in place of the caller's
    model, or None; ``total_s`` seconds for the whole call. ``chain_names`` are the middlewares in order, the upstream's
    last. ``conditions`` are what ``matches`` was compiled from, by fact.
    """

    name: str
    matches: Matcher
    entry: Next
    target: str
    upstream: Upstream
    model: str | None
    loss: Loss
    total_s: float
    chain_names: tuple[str, ...]
    middlewares: tuple[Middleware, ...]
    conditions: Mapping[str, Condition]
    may_retry: bool = False
    needs_usage: bool = False
    authenticates: bool = False
    authenticators: tuple[Authenticator, ...] = ()
    line: int = 0

    @property
    def off(self) -> str | None:
        """Why the route does not match at present, or None."""
        return self.upstream.off


class ServedModel(NamedTuple):
    """A name that a caller may ask for, and a route that serves it."""

    name: str
    route: Route


class Plan:
    """A compiled rule file. ``source`` is its name; ``warnings`` are what ``check`` would say of it."""

    def __init__(
        self,
        source: str,
        server: ServerOptions,
        routes: Iterable[Route],
        upstreams: Mapping[str, Upstream],
        models: Iterable[ServedModel],
        lifecycle: Iterable[object],
        warnings: Iterable[Problem],
    ) -> None:
        self.source = source
        self.server = server
        self.routes = tuple(routes)
        self.upstreams = dict(upstreams)
        self.lifecycle = tuple(lifecycle)
        self.warnings = tuple(warnings)
        self._models = tuple(models)
        self._live = tuple((route.matches, route) for route in self.routes if route.off is None)
        self._pools = tuple(upstream.pool for upstream in self.upstreams.values() if upstream.pool is not None)
        self._spared: frozenset[int] = frozenset()
        self._state: Literal["new", "started", "closed"] = "new"
        self._started = AsyncExitStack()

    def match(self, facts: WireFacts) -> Route | None:
        """Return the first route that matches and whose upstream is on."""
        for matches, route in self._live:
            if matches(facts):
                return route
        return None

    def models(self) -> tuple[ServedModel, ...]:
        """Return the models that can be listed without guessing, in the order of the file; a name may be there twice."""
        return self._models

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
            await self._close(pool for pool in self._pools if pool.holders == 0)
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
        await self._close(pool for pool in self._pools if pool.holders == 0 and id(pool) not in self._spared)

    @staticmethod
    async def _close(pools: Iterable[Pool]) -> None:
        async with AsyncExitStack() as stack:
            for pool in pools:
                stack.push_async_callback(pool.transport.aclose)


def has_lifecycle(member: object) -> bool:
    """Whether a middleware or adapter wants to be started or stopped: it has an async ``start`` or ``stop``."""
    return _hook(member, "start") is not None or _hook(member, "stop") is not None


def _hook(member: object, name: str) -> Callable[[], Awaitable[None]] | None:
    hook = getattr(member, name, None)
    return hook if inspect.iscoroutinefunction(hook) else None
