"""The Gateway: a loaded rule file, ready to serve. It needs no socket; the HTTP surface stands in ``handlers``.

Nothing here is process-wide: any number of gateways live in one process, each with its rules, pools and clock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from .. import registry, rules
from ..call import Call, Decision
from ..codecs.base import Codec, Peek, RequestFacts
from ..counted import CountedFacts
from ..doors import DOORS, OPERATIONS
from ..errors import GatewayError, NotFound
from ..ir.loss import Ledger
from ..relay.reply import Reply
from ..relay.scope import Clock, Scope
from ..rules.plan import Plan, Route
from .generation import Generation, Reloads
from .intake import request_id_of
from .watch import Watch

if TYPE_CHECKING:
    from aiohttp import web

_log = logging.getLogger("headgate.server")


class Health(Struct, frozen=True, omit_defaults=True):
    """What ``/healthz`` says, to anybody: no text of the rules, no path. Times are Unix seconds."""

    status: str
    version: str
    generation: int
    loaded_at: float
    routes: int
    upstreams: Mapping[str, str]
    in_flight: int
    reloads: Reloads


class Gateway:
    """Serves calls by a rule file. ``async with gateway`` starts and closes it, as do ``mount`` and ``headgate serve``."""

    def __init__(self, plan: Plan, path: Path | None = None) -> None:
        self.path = path
        self.clock = Clock()
        self.drains: list[Callable[[], object]] = []
        """Told when ``draining`` begins: what is open without a call under way."""
        self._draining = False
        self.generation = 1
        """Which rules are in force: the first are 1, each reload adds one."""
        self.loaded_at = time.time()
        self.reloads = Reloads()
        """How reloads went."""
        self.reload_error: str | None = None
        """Why the last reload kept the old rules; None if it did not."""
        self.listening: str | None = None
        """Where a server of ours listens, so that a reload cannot open it to strangers."""
        self.adopting: list[Callable[[Plan], object]] = []
        """Asked about new rules before they are in force; who raises an OSError or a ValueError refuses them."""
        self._generation = Generation(plan, self._retire)
        self._watch: Watch | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._started = False
        self._closed = False
        self._starting = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @classmethod
    def load(cls, path: str | os.PathLike[str] = "routes.yaml", *, watch: bool = False) -> Gateway:
        """Return a gateway for the rule file at ``path``. Opens no connection. Raises RulesError, OSError.

        With ``watch``, once started it reloads when a file of the rules changed, as ``server.watch`` in them says.
        """
        began_unix = time.time()
        gateway = cls(rules.load(path), Path(path))
        if watch:
            gateway._watch = Watch(gateway.plan.sources, began_unix)
        return gateway

    @property
    def plan(self) -> Plan:
        """The rules in force."""
        return self._generation.plan

    # -- life

    async def start(self) -> None:
        """Start what the rules name. Idempotent. Raises RuntimeError after ``aclose``: closed pools do not open again."""
        if self._started:
            return
        if self._closed:
            raise RuntimeError("this gateway was closed: load another")
        async with self._starting:
            if not self._started:
                await self.plan.start()
                self._started = True
                if self._watch is not None:
                    self._keeper = asyncio.get_running_loop().create_task(
                        self._keep(self._watch), name="headgate reloads"
                    )

    async def aclose(self) -> None:
        """End every call, close every connection. For good."""
        self._closed = True
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))
        self.clock.close()
        await asyncio.sleep(0)
        async with self._reloading:  # one under way sees that it comes too late
            if self._retiring:
                await asyncio.gather(*self._retiring, return_exceptions=True)
            if self._started:
                self._started = False
                await self.plan.aclose()

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- reload

    async def reload(self) -> None:
        """Read the rule file again and swap the rules at once; calls under way keep the old ones.

        The file is checked, its tests run, and what it names is started before that. When anything of it fails, the old
        rules stay and the error is raised: RulesError, OSError, or what a part of the rules raised.
        """
        if self.path is None:
            raise ValueError("this gateway was not loaded from a file")
        async with self._reloading:
            if self._closed:
                raise RuntimeError("this gateway was closed: load another")
            began_unix = time.time()
            looks = {} if self._watch is None else await self._watch.look()
            sources = self.plan.sources
            try:
                plan = await asyncio.to_thread(rules.load, self.path, previous=self.plan)
                sources = plan.sources
                await self._adopt(plan)
            except Exception as fault:
                if isinstance(fault, rules.RulesError):
                    sources += fault.sources
                self.reload_error = str(fault)
                self.reloads = self.reloads.after(time.time(), fault)
                _log.warning("the rules could not be reloaded from %s, the old rules stay:\n%s", self.path, fault)
                raise
            finally:
                if self._watch is not None:
                    await self._watch.took(looks, sources, began_unix)

    async def _adopt(self, plan: Plan) -> None:
        """Put ``plan`` in force, or close it and raise what is against it."""
        try:
            exposed = None if self.listening is None else rules.check_exposure(plan, self.listening)
            if exposed is not None:
                raise rules.RulesError([exposed], plan.sources)
            async with self._starting:
                if self._closed:
                    raise RuntimeError("this gateway was closed meanwhile")
                for adopt in self.adopting:
                    adopt(plan)
                if self._started:
                    plan.carry_over(self.plan)
                    await plan.start()
                old, self._generation = self._generation, Generation(plan, self._retire)
                self.generation += 1
        except BaseException:
            await plan.retire(self.plan)
            raise
        self.loaded_at = time.time()
        self.reload_error = None
        self.reloads = self.reloads.after(self.loaded_at, None)
        _log.info("rules reloaded from %s: generation %d, %d routes", self.path, self.generation, len(plan.routes))
        old.replace()

    def reload_soon(self) -> None:
        """Have a gateway that watches reload, whether a file changed or not. How it went is logged."""
        if self._watch is None:
            raise ValueError("this gateway does not watch its files: await reload()")
        self._watch.ask()

    async def _keep(self, watch: Watch) -> None:
        while True:
            await watch.due(lambda: self.plan.server.watch_s)
            if self.draining:
                continue  # the file may be that of the next version already
            try:
                await self.reload()
            except Exception:  # noqa: S112  # whatever a stranger's part raised: it is logged, and the next change comes
                continue

    def _retire(self, generation: Generation) -> None:
        if self._started:  # else nothing of it was; and what the plan in force was started with stays open
            task = asyncio.get_running_loop().create_task(generation.plan.aclose())
            self._retiring.add(task)
            task.add_done_callback(self._retired)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.warning("rules that were replaced could not be closed cleanly: %r", fault)

    # -- calls

    @property
    def draining(self) -> bool:
        """Whether the process is about to end: calls under way may finish."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        if draining:
            for begin in self.drains:
                begin()

    @property
    def in_flight(self) -> int:
        """Calls that are under way."""
        return len(self.clock)

    def open_scope(self) -> tuple[Scope, Plan]:
        """Return the scope for a new call and the rules it runs by."""
        generation = self._generation
        generation.active += 1
        return Scope(self.clock, generation.leave), generation.plan

    def prepare(
        self,
        plan: Plan,
        codec: Codec,
        body: bytes,
        facts: RequestFacts,
        scope: Scope,
        request_id: str,
        began: float,
        remote: str | None = None,
        peek: Peek | None = None,
    ) -> tuple[Call, Route]:
        """Read what routing needs, unless that is done, and choose the route. Raises DecodeError, NotFound."""
        if peek is None:
            peek = codec.peek(body, facts)
        wire = plan.facts(codec, peek, facts, body)
        route = plan.match(wire)
        if route is None:
            raise NotFound(f"no route serves the model {peek.model!r} in the format {codec.format}", param="model")
        model = route.model or peek.model
        if peek.stream:
            codec = codec.for_caller(facts)
        call = Call(
            codec,
            body,
            peek,
            facts,
            scope,
            request_id,
            began,
            time.time(),
            model,
            Decision(request_id, route.name, route.chain_names, route.to, route.aim.upstream_name, model),
            Ledger(),
            deadline=began + route.total_s,
            wants_usage=route.needs_usage,
            refuse_loss=route.loss == "refuse",
            show_loss=route.loss != "ignore",
            remote=remote,
            wire=wire,
        )
        return call, route

    async def prepare_counting(
        self,
        plan: Plan,
        codec: Codec,
        body: bytes,
        facts: RequestFacts,
        scope: Scope,
        request_id: str,
        began: float,
        remote: str | None = None,
        peek: Peek | None = None,
    ) -> tuple[Call, Route]:
        """The same for rules that have tokens counted: off the event loop where a rule may make it wait."""
        if peek is None:
            peek = codec.peek(body, facts)
        ask = partial(self.prepare, plan, codec, body, facts, scope, request_id, began, remote, peek)
        call, route = await asyncio.to_thread(ask) if plan.facts(codec, peek, facts, body).slow else ask()
        if isinstance(call.wire, CountedFacts):
            call._request = call.wire.request  # decoded once is enough
        return call, route

    async def handle(
        self, format: str, body: bytes, headers: Mapping[str, str] | None = None, *, path: str = ""
    ) -> Reply:
        """Serve one request without a socket: ``body`` is what a client of ``format`` would post to ``path``.

        A format whose model stands in the path finds it in the body, too: without a path, ``model`` and ``stream`` count.
        Read the reply with ``async for``, ``collect`` or ``aclose``; each closes what the call has open. Raises
        GatewayError for what fails before the provider's headers.
        """
        if format not in DOORS and format not in OPERATIONS:
            raise NotFound(f"unknown format {format!r}, known are {', '.join(DOORS | OPERATIONS)}")
        codec = registry.codec(format)
        await self.start()
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        scope, plan = self.open_scope()
        try:
            request_id = request_id_of(lower.get("x-request-id"))
            where, _, query = path.partition("?")
            facts = RequestFacts(unquote(where), dict(parse_qsl(query, keep_blank_values=True)), lower)
            began = monotonic()
            if plan.exact_tokens:
                call, route = await self.prepare_counting(plan, codec, body, facts, scope, request_id, began)
            else:
                call, route = self.prepare(plan, codec, body, facts, scope, request_id, began)
            reply = await route.entry(call)
        except BaseException:
            scope.close()
            raise
        return reply.until(_Closing(scope))

    def health(self) -> Health:
        """Return the state of the gateway."""
        from ..version import VERSION

        plan = self.plan
        return Health(
            "draining" if self.draining else "ok",
            VERSION,
            self.generation,
            self.loaded_at,
            len(plan.routes),
            {name: upstream.off or "on" for name, upstream in plan.upstreams.items()},
            self.in_flight,
            self.reloads,
        )

    def mount(self, app: web.Application, prefix: str = "/llm") -> web.Application:
        """Serve this gateway inside ``app`` under ``prefix``; started and closed with it. Returns the sub-application."""
        from .handlers import make_app

        sub = make_app(self)
        app.add_subapp(prefix, sub)
        return sub


class _Closing:
    """Closes the scope of a call that has no server around it."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self._scope.loop.call_soon(self._scope.close)
