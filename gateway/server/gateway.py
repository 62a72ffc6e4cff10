"""The Gateway: a loaded rule file, ready to serve. It needs no socket; the HTTP surface stands in ``handlers``.

Nothing here is process-wide: any number of gateways live in one process, each with its rules, pools and clock.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from .. import registry, rules
from ..call import Call, Decision
from ..codecs.base import Codec, RequestFacts
from ..errors import GatewayError, NotFound
from ..facts import WireFacts
from ..ir.event import Chunk
from ..ir.loss import Ledger
from ..relay.reply import Reply
from ..relay.scope import Clock, Scope
from ..rules.plan import Plan, Route
from .intake import request_id_of

if TYPE_CHECKING:
    from aiohttp import web

_log = logging.getLogger("headgate.server")
FORMATS: Final = ("openai.chat", "anthropic.messages")
"""The formats that callers may speak."""


class Health(Struct, frozen=True, omit_defaults=True):
    """What ``/healthz`` says. Times are Unix seconds; ``reload_error`` is why the last reload kept the old rules."""

    status: str
    version: str
    loaded_at: float
    routes: int
    upstreams: Mapping[str, str]
    in_flight: int
    reload_error: str | None = None


class _Generation:
    """A plan and the calls that run on it. A plan that was replaced is retired when its last call is over."""

    __slots__ = ("plan", "active", "successor", "_retire")

    def __init__(self, plan: Plan, retire: Callable[[_Generation], None]) -> None:
        self.plan = plan
        self.active = 0
        self.successor: Plan | None = None
        self._retire = retire

    def leave(self) -> None:
        """One call less."""
        self.active -= 1
        if self.successor is not None and self.active == 0:
            self._retire(self)


class Gateway:
    """Serves calls by a rule file. ``async with gateway`` starts and closes it, as do ``mount`` and ``headgate serve``."""

    def __init__(self, plan: Plan, path: Path | None = None) -> None:
        self.path = path
        self.clock = Clock()
        self.codecs: dict[str, Codec] = {name: registry.codec(name) for name in FORMATS}
        self.draining = False
        self.loaded_at = time.time()
        self.reload_error: str | None = None
        self.listening: str | None = None
        """Where a server of ours listens, so that a reload cannot open it to strangers."""
        self._generation = _Generation(plan, self._retire)
        self._started = False
        self._closed = False
        self._starting = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @classmethod
    def load(cls, path: str | os.PathLike[str] = "routes.yaml") -> Gateway:
        """Return a gateway for the rule file at ``path``. Opens no connection. Raises RulesError, OSError."""
        return cls(rules.load(path), Path(path))

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

    async def aclose(self) -> None:
        """End every call, close every connection. For good."""
        self._closed = True
        self.clock.close()
        await asyncio.sleep(0)
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

    async def reload(self) -> None:
        """Read the rule file again and swap the rules at once; calls under way keep the old ones.

        Raises RulesError or OSError and keeps the old rules when the file is not in order.
        """
        if self.path is None:
            raise ValueError("this gateway was not loaded from a file")
        async with self._reloading:
            try:
                plan = await asyncio.to_thread(rules.load, self.path, previous=self.plan)
                exposed = None if self.listening is None else rules.check_exposure(plan, self.listening)
                if exposed is not None:
                    raise rules.RulesError([exposed])
                if self._started:
                    await plan.start()
            except Exception as fault:
                self.reload_error = str(fault)
                raise
            old, self._generation = self._generation, _Generation(plan, self._retire)
            old.successor = plan
            self.loaded_at = time.time()
            self.reload_error = None
            if old.active == 0:
                self._retire(old)
        _log.info("rules reloaded from %s: %d routes", self.path, len(plan.routes))

    def _retire(self, generation: _Generation) -> None:
        successor = generation.successor
        if successor is not None and self._started:
            task = asyncio.get_running_loop().create_task(generation.plan.retire(successor))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    # -- calls

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
    ) -> tuple[Call, Route]:
        """Read what routing needs and choose the route. Raises DecodeError, NotFound."""
        peek = codec.peek(body, facts)
        wire = WireFacts(codec.format, peek, facts, body)
        route = plan.match(wire)
        if route is None:
            raise NotFound(f"no route serves the model {peek.model!r} in the format {codec.format}", param="model")
        model = route.model or peek.model
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

    async def handle(
        self, format: str, body: bytes, headers: Mapping[str, str] | None = None, *, path: str = ""
    ) -> Reply:
        """Serve one request without a socket: ``body`` is what a client of ``format`` would post.

        Read the reply with ``async for``, ``collect`` or ``aclose``; each closes what the call has open. Raises
        GatewayError for what fails before the provider's headers.
        """
        codec = self.codecs.get(format)
        if codec is None:
            raise NotFound(f"unknown format {format!r}, known are {', '.join(self.codecs)}")
        await self.start()
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        scope, plan = self.open_scope()
        try:
            request_id = request_id_of(lower.get("x-request-id"))
            call, route = self.prepare(
                plan, codec, body, RequestFacts(path, {}, lower), scope, request_id, scope.loop.time()
            )
            reply = await route.entry(call)
        except BaseException:
            scope.close()
            raise
        return reply.through(_Closing(scope))

    def health(self) -> Health:
        """Return the state of the gateway."""
        from ..version import VERSION

        plan = self.plan
        return Health(
            "draining" if self.draining else "ok",
            VERSION,
            self.loaded_at,
            len(plan.routes),
            {name: upstream.off or "on" for name, upstream in plan.upstreams.items()},
            self.in_flight,
            self.reload_error,
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

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Nothing to look at."""
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self._scope.loop.call_soon(self._scope.close)
