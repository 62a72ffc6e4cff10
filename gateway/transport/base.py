"""The way to a provider: one interface, whatever carries the bytes.

A Transport serves one origin with one pool; ``submit`` sends a request and returns at the response headers with an
Exchange, which is a source of the body's bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from ..errors import ErrorKind
from ..passing.request import Line, Upload
from ..relay.scope import Scope
from ..relay.source import Sink


class Standing:
    """Headers that many requests have in common: checked and written once. Names are lower case."""

    __slots__ = ("headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers


class NoSocket(Exception):
    """A provider answered a WebSocket's handshake with ``status`` instead; header names are lower case."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers
        self.body = body


class RequestHead(Struct, frozen=True):
    """``url`` is absolute and already encoded. ``headers`` carry neither Host nor Content-Length, and no name that
    ``standing`` has."""

    method: str
    url: str
    headers: Mapping[str, str]
    standing: Standing | None = None

    def __repr__(self) -> str:
        return f"RequestHead({self.method}, {self.url.partition('?')[0]})"  # the headers show the credential


class Deadlines(Struct, frozen=True):
    """When to give up, as seconds of the loop's clock for the absolute ones (``_at``), as durations for the rest.

    ``head_at`` is when the response headers must be there (kind ``timeout.first_token`` or ``timeout.total``, as
    ``head_kind`` says). None means no such deadline.
    """

    pool_s: float | None = None
    connect_s: float | None = None
    write_s: float | None = None
    head_at: float | None = None
    head_kind: ErrorKind = "timeout.first_token"


class Exchange(Protocol):
    """One conversation with a provider, from its response headers on: a Source[bytes].

    ``headers`` have lower-case names (of a repeated header: values joined by ", "). The body is free of any
    content-encoding. After the last byte, an error or abort, the connection is back in the pool or closed.
    """

    status: int
    headers: Mapping[str, str]

    def connect(self, sink: Sink[bytes], /) -> None:
        """Start the flow of body bytes; ``end(error)`` says Cut for a body that broke off."""
        ...

    def pause(self) -> None:
        """Stop reading from the provider soon: TCP back-pressure does the rest."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    def abort(self) -> None:
        """Close the connection now."""
        ...

    def ready(self, max_bytes: int) -> bytes | None:
        """Return the whole body if it is here already, and the exchange is over; None: see ``read``."""
        ...

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body instead of connecting. Raises Cut, or Malformed above ``max_bytes``; closed then."""
        ...


class Transport(Protocol):
    """A pool of connections to one upstream."""

    def submit(
        self, head: RequestHead, body: bytes | Upload, deadlines: Deadlines, scope: Scope
    ) -> Awaitable[Exchange]:
        """Send a request; return at the response headers. ``scope`` owns the exchange.

        An Upload is read while it is sent, piece by piece; what its reader raises is raised here. Once there is an answer,
        nothing more of it is read than the provider takes until the exchange is over.

        Raises UpstreamError: connect (nothing was sent), timeout.connect, timeout.pool, timeout.write, head_kind, cut
        (sent, but the connection ended before the headers), malformed. Cancelling it closes the connection.
        """
        ...

    def open_socket(
        self, head: RequestHead, protocols: Sequence[str], max_bytes: int, deadlines: Deadlines, scope: Scope
    ) -> Awaitable[Line]:
        """Open a WebSocket with the headers of ``head``; messages are at most ``max_bytes``. ``scope`` owns it.

        Raises UpstreamError as ``submit`` does, and NoSocket for an answer that is none to a handshake.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
