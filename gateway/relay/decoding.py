"""Bytes of an exchange into chunks: the seam between a transport and a reply, and the keeper of a stream's deadlines."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from ..errors import ErrorKind, GatewayError, UpstreamError, upstream_error
from ..ir.event import CONTENT, Chunk, Terminator
from .scope import Scope, as_gateway_error
from .source import GONE, Sink, Source

LINGER_S: Final = 0.5
"""How long a provider may take to end the HTTP body after the format's own end mark; then the connection is closed, and
not used again. The answer is complete: neither silence nor a broken connection after the mark is a failure of it."""


class Decoder(Protocol):
    """The part of a codec's StreamDecoder that this seam needs."""

    error: UpstreamError | None

    def feed(self, data: bytes) -> Chunk | None:
        """Decode what is whole."""
        ...

    def close(self) -> Chunk | None:
        """Decode the rest."""
        ...


class StreamDeadlines:
    """When a stream has been silent for too long. Absolute times are seconds of the loop's clock.

    ``first_token_at`` holds until the first content event: pings do not move it. ``idle_s`` is the longest gap between two
    reads after that, whatever they carry. ``total_at`` is the end of the attempt.
    """

    __slots__ = ("first_token_at", "idle_s", "total_at", "upstream")

    def __init__(self, upstream: str, first_token_at: float, idle_s: float, total_at: float) -> None:
        self.upstream = upstream
        self.first_token_at = first_token_at
        self.idle_s = idle_s
        self.total_at = total_at


class Decoding:
    """A Source[Chunk] over a Source[bytes]. A decoder's error (a fault, an in-band error event, a missing end) is its end.

    ``on_error`` hears of the failure before anybody else, and may mask what its words must not say.
    """

    __slots__ = (
        "_exchange",
        "_decoder",
        "_scope",
        "_sink",
        "_deadlines",
        "_on_error",
        "_last",
        "_has_content",
        "_paused",
        "_dead",
        "_complete",
        "_time",
    )

    def __init__(
        self,
        exchange: Source[bytes],
        decoder: Decoder,
        scope: Scope,
        deadlines: StreamDeadlines | None = None,
        on_error: Callable[[GatewayError], None] | None = None,
    ) -> None:
        self._exchange = exchange
        self._decoder = decoder
        self._scope = scope
        self._sink: Sink[Chunk] | None = None
        self._deadlines = deadlines
        self._on_error = on_error
        self._last = 0.0
        self._has_content = False
        self._paused = False
        self._dead = False
        self._complete = False
        self._time = scope.loop.time  # asked at every read

    def connect(self, sink: Sink[Chunk], /) -> None:
        """Let the bytes flow."""
        if self._dead:
            return
        self._sink = sink
        if self._deadlines is not None:
            self._last = monotonic()
            self._scope.watched.append(self)
        self._exchange.connect(self)

    def pause(self) -> None:
        """Pause the exchange."""
        self._paused = True
        self._exchange.pause()

    def resume(self) -> None:
        """Resume the exchange."""
        if self._paused:
            self._paused = False
            self._last = monotonic()
        self._exchange.resume()

    def abort(self) -> None:
        """Close the exchange."""
        self._dead = True
        self._unwatch()
        self._sink = None
        exchange, self._exchange = self._exchange, GONE
        exchange.abort()

    def push(self, data: bytes, /) -> None:
        """Take bytes from the exchange."""
        try:
            chunk = self._decoder.feed(data)
        except Exception as fault:  # it never should: but then the reader must not wait for ever
            self._fail(as_gateway_error(fault))
            return
        if self._deadlines is not None:
            self._last = self._time()
        if chunk is not None:
            events = chunk.events
            if not self._has_content:
                self._has_content = any(isinstance(event, CONTENT) for event in events)
            if events and type(events[-1]) is Terminator:
                self._complete = True
            if self._sink is not None:
                self._sink.push(chunk)
        if self._decoder.error is not None:
            self._fail(self._decoder.error)

    def end(self, error: GatewayError | None, /) -> None:
        """Hear that the exchange is over."""
        self._exchange = GONE
        if self._complete:
            error = None
        if error is None and self._sink is not None:
            try:
                tail = self._decoder.close()
                error = self._decoder.error
            except Exception as fault:  # as in push
                tail, error = None, as_gateway_error(fault)
            if tail is not None:
                self._sink.push(tail)
        self._over(error)

    def tick(self, now: float, /) -> None:
        """Compare the time with the deadlines. A provider that we do not read is not idle, but its time goes by."""
        limits = self._deadlines
        if limits is None:
            return
        if self._complete:
            if now - self._last >= LINGER_S:
                self._fail(None)
            return
        kind: ErrorKind
        if now >= limits.total_at:
            kind, what = "timeout.total", "did not finish in time"
        elif self._paused:
            return
        elif not self._has_content:
            if now < limits.first_token_at:
                return
            kind, what = "timeout.first_token", "sent no content in time"
        elif now - self._last >= limits.idle_s:
            kind, what = "timeout.idle", f"sent nothing for {limits.idle_s:g} s in the middle of an answer"
        else:
            return
        self._fail(upstream_error(kind, f"upstream {limits.upstream} {what}"))

    def _fail(self, error: GatewayError | None) -> None:
        """Close the exchange and tell the end."""
        exchange, self._exchange = self._exchange, GONE
        exchange.abort()
        self._over(error)

    def _over(self, error: GatewayError | None) -> None:
        self._unwatch()
        sink, self._sink = self._sink, None
        on_error, self._on_error = self._on_error, None
        if sink is not None:
            if error is not None and on_error is not None:
                on_error(error)
            sink.end(error)

    def _unwatch(self) -> None:
        if self._deadlines is not None:
            self._deadlines = None
            if self._sink is not None and not self._scope.closed:  # watched since connect, if there was one
                self._scope.watched.remove(self)
