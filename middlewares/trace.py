"""OpenTelemetry traces: a span for every call, below it one for each attempt at a provider and for what middlewares did.

On the way of a call there is no more than a note of what was decided about it, taken when it is over; spans are built and
exported by the batch elsewhere. Tells the provider where it stands in the trace, and believes what the caller says of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Annotated, ClassVar, Final, Literal, Protocol

from msgspec import Meta, Struct

from ..gateway.call import Call
from ..gateway.chain import Next, Reached
from ..gateway.errors import GatewayError
from ..gateway.ids import span_id
from ..gateway.relay.hearing import Hearing
from ..gateway.relay.reply import Reply
from ..gateway.telemetry.build import Builder
from ..gateway.telemetry.context import read_traceparent, read_tracestate
from ..gateway.telemetry.ending import error_of, status_of
from ..gateway.telemetry.noting import MAX_CAPTURED, Kept, Noting, Over, Passing, Place
from ..gateway.telemetry.outlet import Destination, Exporter, Outlet, checked_endpoint, is_installed
from ..gateway.telemetry.usual import Usual
from ..gateway.units import Duration, Secret, Size

MAX_REQUEST: Final = 16 * 1024
"""Requests above this are not read for their settings: it would cost more than all the rest of their spans."""
MAX_ANSWER: Final = 64 * 1024
"""Whole answers above this are not read for their ids and reasons."""
_TAIL: Final = 1 << 64
_NOTHING_ABOVE: Final = ("", "", 0, "", False)


class TraceOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """All may be left out: then every call is exported to where the environment's ``OTEL_*`` variables say."""

    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Which part of the traces is exported, chosen by their ids."""
    errors: bool = True
    """Whether calls that fail are exported whatever ``sample`` says; those that the caller broke off are not meant."""
    slow: Duration | None = None
    """Calls that take longer are exported whatever ``sample`` says."""
    parent: Literal["follow", "join", "ignore"] = "follow"
    """What a caller's traceparent is worth: ``follow`` joins its trace and does as it does, exported or not; ``join`` joins
    it, and ``sample`` decides; ``ignore`` begins another."""
    content: bool = False
    """Whether messages are captured, as they are at this place of the chain."""
    max_content: Size = Size(16 * 1024)
    """How much of what was asked is captured, and as much of what was answered."""
    endpoint: str | None = None
    """The collector, such as ``http://127.0.0.1:4318``. Left out: the application's TracerProvider if it has set one, else
    ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
    headers: Mapping[str, Secret] = {}
    """Headers for the collector, each the reference of a secret."""
    timeout: Duration | None = None
    """How long an export may take, tries included."""
    compression: Literal["gzip", "none"] | None = None
    service: str | None = None
    """``service.name``; left out: ``OTEL_SERVICE_NAME``, else ``headgate``."""
    resource: Mapping[str, str] = {}
    """More attributes of the resource, such as ``deployment.environment.name``."""
    queue: Annotated[int, Meta(ge=1)] = 10_000
    """How many calls may wait for their export; beyond them, spans are dropped."""


class Trace:
    """Notes every call that passes. ``exported``, ``dropped`` and ``failed`` count calls."""

    Options: ClassVar[type[Struct]] = TraceOptions
    needs_usage = True

    def __init__(self, options: TraceOptions, exporter: Exporter | None = None) -> None:
        if exporter is None and not is_installed():
            raise ValueError('it needs the extra otel: pip install "headgate[otel]"')
        self.options = options
        self.keeps_content = options.content
        endpoint = None if options.endpoint is None else checked_endpoint(options.endpoint)
        headers = {name: secret.read() for name, secret in options.headers.items()}
        destination = Destination(
            endpoint,
            tuple((name, value) for name, value in sorted(headers.items()) if value is not None),
            None if options.timeout is None else float(options.timeout),
            options.compression,
            options.service,
            tuple(sorted(options.resource.items())),
            options.queue,
        )
        self.outlet = Outlet(destination, exporter)
        self._builder = Builder({}, int(options.max_content))
        self._usual = Usual(self._builder)
        self._bound = int(options.sample * _TAIL)
        self._half = span_id()
        """The first half of the trace ids that are made here: what is random, and sampled by, is the other."""
        self._slow_s = float("inf") if options.slow is None else float(options.slow)
        self._follows = options.parent == "follow"
        self._joins = options.parent != "ignore"
        self._most_asked = MAX_CAPTURED if options.content else MAX_REQUEST
        self._most_told = MAX_CAPTURED if options.content else MAX_ANSWER
        self._host: _Host | None = None

    def know(self, upstreams: Mapping[str, Reached], /) -> None:
        """Learn where upstreams are."""
        self._builder = Builder(upstreams, self._builder.max_content)
        self._usual = Usual(self._builder)

    def carry_over(self, old: Trace, /) -> None:
        """Export by the same way, if it is to the same place."""
        if old.outlet.destination == self.outlet.destination:
            self.outlet = old.outlet

    async def start(self) -> None:
        """Open the way out."""
        await self.outlet.open()
        if self._joins and self.outlet.destination.endpoint is None:
            self._host = await asyncio.to_thread(_host)

    async def stop(self) -> None:
        """Export what waits."""
        await self.outlet.close()

    @property
    def exported(self) -> int:
        """Calls whose spans arrived."""
        return self.outlet.exported

    @property
    def dropped(self) -> int:
        """Calls for whose spans there was no room."""
        return self.outlet.dropped

    @property
    def failed(self) -> int:
        """Calls whose spans the collector did not take."""
        return self.outlet.failed

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Pass the call on with its place in a trace, and note how it ends."""
        if call.trace is not None:
            return await call_next(call)  # one span for a call, however often this stands in its chains
        decision = call.decision
        tries = len(decision.attempts)
        started_s = monotonic() - call.began if tries else 0.0
        call = call.copy()
        call.trace = place = self._place(call)
        noting = Noting(self, call, place, tries, len(decision.steps), started_s)
        try:
            reply = await call_next(call)
        except BaseException as fault:
            noting.fail(error_of(fault, call))
            raise
        noting.status = reply.status
        if call.passed is not None:
            return reply.through(Passing(noting))
        if self.keeps_content:
            noting.kept = Kept()
            reply.through(noting.kept)
        reply.hearing(call, noting)
        return reply

    def _place(self, call: Call) -> Place:
        """Return a span for the call, below the caller's if it has one."""
        minted = span_id()
        trace_id, parent, flags, state, remote = self._above(call) if self._joins else _NOTHING_ABOVE
        if not parent:
            trace_id = self._half + minted
        if not parent or not self._follows:
            flags = 1 if self._bound == _TAIL or int(trace_id[16:], 16) < self._bound else 0
        return Place(trace_id, minted, flags & 1, state, parent, remote)

    def _above(self, call: Call) -> tuple[str, str, int, str, bool]:
        """Return the trace, the span, the flags and the tracestate that a call came with, and whether from elsewhere."""
        if self._host is not None and (here := self._host()) is not None:
            return here
        headers = call.facts.headers
        given = headers.get("traceparent")
        if given is None or (read := read_traceparent(given)) is None:
            return _NOTHING_ABOVE
        return *read, read_tracestate(headers.get("tracestate", "")), True

    def _wants(self, error: GatewayError | None) -> bool:
        return self.options.errors and error is not None and error.kind != "cancelled"

    def note(self, noting: Noting, heard: Hearing, error: GatewayError | None) -> None:
        """Note a call that is over, if it is one to be exported."""
        call, place = noting.call, noting.place
        ended_s = monotonic() - call.began
        if not place.flags and ended_s - noting.started_s <= self._slow_s and not self._wants(error):
            return
        if error is None:
            status, kind = noting.status, ""
        else:
            status, kind = _status(call, error, noting.status), error.kind
        self.outlet.add(
            self._usual, Over(noting, heard, place, ended_s, status, kind, self._most_asked, self._most_told)
        )


class _Host(Protocol):
    """Knows in which span the application around us is."""

    def __call__(self) -> tuple[str, str, int, str, bool] | None:
        """Return trace id, span id, flags, tracestate and whether it is another process's; None outside of any."""
        ...


def _host() -> _Host | None:
    """Return the way to an application's spans, if it has a provider for them."""
    from ..gateway.telemetry.sdk import current_parent, hosts_provider

    return None if hosts_provider() is None else current_parent


def _status(call: Call, error: GatewayError, said: int) -> int:
    """Return the HTTP status that the caller saw: ``said`` where it had been told before, 0 for none."""
    if call.scope.committed:
        return said or 200  # what keeps a connection alive is said with 200
    return 0 if error.kind == "cancelled" else status_of(call, error)


__all__ = ["Trace", "TraceOptions"]
