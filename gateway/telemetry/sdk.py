"""Exporters of OpenTelemetry's SDK: its own over OTLP/HTTP, or the span processors of the application around us.

The only module that imports the SDK. Spans go to the OTLP exporter as bytes that were written here, by the way on which it
sends its own (``_client``, as SDK 1.45 has it); an SDK without that gets ``ReadableSpan`` objects, which cost some twenty
times as much to write.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, cast
from urllib.parse import urlsplit

import requests
from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event as SdkEvent
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from ..version import VERSION
from .otlp import Envelope, int64
from .outlet import Destination, Exporter, Nowhere, is_off
from .span import Span, Value

SCOPE: Final = "headgate"
_KINDS: Final = {1: SpanKind.INTERNAL, 2: SpanKind.SERVER, 3: SpanKind.CLIENT}
_ITS_LOG: Final = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
"""Speaks up at every batch of an outage."""
_PROVIDES_SESSION: Final = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
)
"""What names a plug-in of the SDK's that brings its own session."""
_MAX_ANSWER: Final = 64 * 1024
_COMPRESSION: Final = {"gzip": Compression.Gzip, "none": Compression.NoCompression}


def open_exporter(destination: Destination) -> Exporter:
    """Return what spans go to: the application's provider, if there is one and no endpoint is named; else OTLP over HTTP."""
    if is_off():
        return Nowhere()
    if destination.endpoint is None and (provider := hosts_provider()) is not None:
        return ToProvider(provider)
    return OverHttp(destination)


def hosts_provider() -> TracerProvider | None:
    """Return the TracerProvider that the application has set, if it is the SDK's."""
    provider = otel_trace.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def current_parent() -> tuple[str, str, int, str, bool] | None:
    """Return trace id, span id, flags and tracestate of the span that the application is in, if it is in one, and whether
    that is another process's, which the application has only read of."""
    found = otel_trace.get_current_span().get_span_context()
    if not found.is_valid:
        return None
    ids = f"{found.trace_id:032x}", f"{found.span_id:016x}"
    return *ids, int(found.trace_flags), found.trace_state.to_header(), found.is_remote


class OverHttp:
    """Posts to a collector. An Exporter."""

    def __init__(self, destination: Destination) -> None:
        named = dict(destination.resource)
        if destination.service is not None:
            named[SERVICE_NAME] = destination.service
        elif not _is_named() and SERVICE_NAME not in named:
            named[SERVICE_NAME] = SCOPE
        self._resource = Resource.create(cast("dict[str, Any]", named))
        self._exporter = OTLPSpanExporter(
            endpoint=destination.endpoint,
            headers=dict(destination.headers) or None,
            timeout=destination.timeout_s,
            compression=None if destination.compression is None else _COMPRESSION[destination.compression],
            session=None if any(map(os.environ.get, _PROVIDES_SESSION)) else _Session(),
        )
        url = urlsplit(str(getattr(self._exporter, "_endpoint", destination.endpoint or "the collector")))
        self.where = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
        resource = {key: _plain(value) for key, value in self._resource.attributes.items()}
        self._envelope = Envelope(resource, SCOPE, VERSION)
        client = getattr(self._exporter, "_client", None)
        self._send: Callable[[bytes], object] | None = getattr(client, "export", None)
        self.takes_bytes = self._send is not None
        self._scope = InstrumentationScope(SCOPE, VERSION)
        self._quiet = _Quiet()
        self._busy = self._closed = False
        _ITS_LOG.addFilter(self._quiet)

    def export(self, spans: Iterable[Span | bytes]) -> str:
        """Send them; return "", or why that failed."""
        self._quiet.thread = threading.get_ident()
        self._busy = True
        token = otel_context.attach(
            otel_context.set_value(
                otel_context._SUPPRESS_INSTRUMENTATION_KEY, True
            )  # the application traces its requests
        )
        try:
            if self._send is None:
                made = [as_sdk(span, self._resource, self._scope) for span in spans if isinstance(span, Span)]
                return "" if self._exporter.export(made) is SpanExportResult.SUCCESS else "it was refused"
            result = self._send(self._envelope.around(spans))
        finally:
            otel_context.detach(token)
            self._busy = False
            if self._closed:
                _ITS_LOG.removeFilter(self._quiet)
        status, error = getattr(result, "status_code", None), getattr(result, "error", None)
        # To the SDK a redirect is a success, although it follows none.
        if getattr(result, "success", False) and (status is None or status < 300):
            return ""
        if status is not None:
            return f"HTTP {status}"
        return "no answer in time" if error is None else type(error).__name__

    def close(self) -> None:
        """End, and break off what is still tried."""
        self._closed = True
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK's own
        if not self._busy:
            _ITS_LOG.removeFilter(self._quiet)


class _Session(requests.Session):
    """Reads a collector's answer no further than it must: nobody looks at what stands in it, and the SDK would take all."""

    def request(self, *args: Any, **options: Any) -> requests.Response:
        """Send a request; the answer's body is read in part, and the connection used again if that was all of it."""
        response = super().request(*args, **{**options, "stream": True})
        try:
            if len(response.raw.read(_MAX_ANSWER)) < _MAX_ANSWER:
                response.raw.release_conn()
        finally:
            response.close()
        return response


class ToProvider:
    """Hands spans to the processors of an application's provider, as if its own tracers had ended them. An Exporter.

    What is used of the provider is its resource and, since there is no public way to give it a span with an id of one's own,
    its member ``_active_span_processor``. Its sampler is not asked, and processors are told the end of a span alone.
    """

    where = "the application's TracerProvider"
    takes_bytes = False

    def __init__(self, provider: TracerProvider) -> None:
        self._resource = provider.resource
        self._processor: SpanProcessor = provider._active_span_processor
        self._scope = InstrumentationScope(SCOPE, VERSION)

    def export(self, spans: Iterable[Span | bytes]) -> str:
        """Hand them over."""
        for span in spans:
            assert isinstance(span, Span), "they are not written ahead"
            self._processor.on_end(as_sdk(span, self._resource, self._scope))
        return ""

    def close(self) -> None:
        """The provider is the application's, who ends it."""


def as_sdk(span: Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    """Return a span as the SDK has them."""
    trace_id = int(span.trace_id, 16)
    # What was chosen for export is sampled, whatever was said to others before it was known how the call would end.
    flags, state = TraceFlags(span.flags | TraceFlags.SAMPLED), TraceState.from_header([span.state])
    parent = None
    if span.parent_id:
        parent = SpanContext(trace_id, int(span.parent_id, 16), span.remote, flags, state)
    return ReadableSpan(
        _unicode(span.name),
        SpanContext(trace_id, int(span.span_id, 16), False, flags, state),
        parent,
        resource,
        {key: _clean(value) for key, value in (*span.fixed.pairs, *span.own)},
        [
            SdkEvent(event.name, {key: _clean(value) for key, value in event.attributes}, event.at_ns)
            for event in span.events
        ],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR) if span.failed else Status(),
        start_time=span.started_ns,
        end_time=span.ended_ns,
        instrumentation_scope=scope,
    )


def _is_named() -> bool:
    """Whether the environment says what the service is called."""
    return "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _clean(value: Value) -> Value:
    if isinstance(value, str):
        return _unicode(value)
    if type(value) is int:
        return int64(value)
    return tuple(map(_unicode, value)) if isinstance(value, tuple) else value


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _plain(value: object) -> Value:
    if isinstance(value, str | bool | int | float):
        return value
    return tuple(map(str, value)) if isinstance(value, tuple | list) else str(value)


class _Quiet(logging.Filter):
    """Keeps what the exporter logs in our thread out of the log: it is told there once, by us."""

    thread = -1

    def filter(self, record: logging.LogRecord) -> bool:
        """Let pass what others say."""
        return record.thread != self.thread
