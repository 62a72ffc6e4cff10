"""A collector of traces on loopback that reads OTLP over HTTP with the official protobuf classes."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}


@dataclass(frozen=True)
class Seen:
    """A span that arrived."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, int, Mapping[str, Any]], ...]
    failed: bool
    flags: int
    state: str
    resource: Mapping[str, Any]
    scope: str

    @property
    def happened(self) -> list[str]:
        """The names of its events."""
        return [name for name, _, _ in self.events]


@dataclass
class Collector:
    """What listens. ``status`` is what it answers; ``stalled`` holds its answers back."""

    base: str = ""
    spans: list[Seen] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    status: int = 200
    stalled: asyncio.Event | None = None

    @property
    def calls(self) -> list[Seen]:
        """The spans of calls, as they came."""
        return [span for span in self.spans if span.kind == "SERVER"]

    def below(self, parent: Seen) -> list[Seen]:
        """The children of a span, by when they began."""
        found = [span for span in self.spans if span.parent_id == parent.span_id and span.trace_id == parent.trace_id]
        return sorted(found, key=lambda span: span.started_ns)

    def attempts(self, call: Seen) -> list[Seen]:
        """The attempts at providers of a call; what middlewares did is left out."""
        return [span for span in self.below(call) if span.kind == "CLIENT"]

    async def until(self, count: int, within_s: float = 5.0) -> list[Seen]:
        """Return the spans of calls once there are ``count``."""
        async with asyncio.timeout(within_s):
            while len(self.calls) < count:
                await asyncio.sleep(0.005)
        assert len(self.calls) == count
        return self.calls

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp has undone the compression
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.paths.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.stalled is not None:
            await self.stalled.wait()
        if self.status != 200:
            return web.Response(status=self.status)
        self.raw.append(body)
        self.spans += read(body)
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def read(body: bytes) -> list[Seen]:
    """Return the spans of an export."""
    message = ExportTraceServiceRequest.FromString(body)
    message.DiscardUnknownFields()
    assert message.ByteSize() == len(body), "what the official classes do not know, or would not write so"
    return [
        Seen(
            span.name,
            KINDS[span.kind],
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            _attributes(span.attributes),
            tuple((event.name, event.time_unix_nano, _attributes(event.attributes)) for event in span.events),
            span.status.code == 2,
            span.flags,
            span.trace_state,
            _attributes(of_resource.resource.attributes),
            of_scope.scope.name,
        )
        for of_resource in message.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        assert pair.key not in found, f"{pair.key} stands twice"
        found[pair.key] = _value(pair.value)
    return found


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Listen on an ephemeral port."""
    collector = Collector()
    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/{path:.*}", collector._take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        if collector.stalled is not None:
            collector.stalled.set()
        await runner.cleanup()
