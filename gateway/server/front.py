"""The front: connections on which small requests are read and answered without a web server's machinery.

A request that is as nearly all of them are, a POST of plain JSON to one of our paths, whole and in one piece, is parsed by
llhttp and given to the handler as it is. Anything else, another path or method, a chunked or packed or large
body, ``Expect``, two headers of one name, a second request before the first is answered, a parse error, is aiohttp's: the
connection is handed over to its server with every byte of the request, for good. So there is one behaviour, and this file
knows only the case in which nothing is odd. A second User-Agent is not odd: some clients send one.

The handler must answer what is given to it here with a WholeAnswer, or through a FrontOutlet.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any, Final, TypeAlias, cast

from aiohttp import web
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

from ..relay.outbox import outbox_of
from .intake import Arrived
from .outlet import FrontOutlet
from .whole import WholeAnswer, grace_s

READ_SIZE: Final = 64 * 1024
"""Bytes of one read."""
PATIENCE: Final = 128 * 1024
"""Bytes of a request that may come in pieces; a larger one is aiohttp's to receive."""
HEADER_LIMIT: Final = 64
"""Headers of a request."""
KEEP_ALIVE_S: Final = 75.0
"""How long a connection may be idle."""
SWEEP_S: Final = 1.0
"""A body that is not there when the next sweep finds it is aiohttp's to wait for: the handler's readers have a deadline."""
HEAD_S: Final = 30.0
"""How long the headers of a request may take: aiohttp would wait for ever."""
_log: Final = logging.getLogger("headgate.server")
_MAX_LEARNT: Final = 1000
_ODD: Final = frozenset(
    {
        "transfer-encoding",
        "expect",
        "upgrade",
        "te",
        "trailer",
        "content-encoding",
        "origin",
        "proxy-connection",
        "access-control-request-method",
    }
)
"""Headers of requests that are not for here."""

_TOO_SLOW: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 48\r\n\r\nthe headers of the request did not come in time\n"
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})(?=\r\n)", re.IGNORECASE)
_names: Final[dict[bytes, str]] = {}
"""Header names as they came, to the same in lower case; "" for the odd ones."""


Serve: TypeAlias = Callable[[Arrived], Awaitable["WholeAnswer | FrontOutlet"]]
Route: TypeAlias = Callable[[Arrived], "Serve | None"]
"""Returns what serves a request, None if it is not for here."""


class FrontServer(web.Server):
    """aiohttp's server with a front before it. ``paths`` are served here if ``route`` finds somebody to do it.

    ``max_head`` is in bytes.
    """

    def __init__(self, handler: Any, *, paths: Iterable[str], route: Route, max_head: int, **options: Any) -> None:
        super().__init__(handler, **options)
        self.paths = {path.encode(): path for path in paths}
        self.route = route
        self.max_head = max_head
        self.fronts: set[Front] = set()
        self.buffer = memoryview(bytearray(READ_SIZE))
        """What all connections read into: a read is parsed at once."""
        self.loop = asyncio.get_running_loop()
        self.outbox = outbox_of(self.loop)
        self._closing = False
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def __call__(self) -> Any:
        """Return a protocol for a new connection."""
        return super().__call__() if self._closing else Front(self)

    def behind(self) -> asyncio.Protocol:
        """Return aiohttp's protocol, for a connection that is handed over."""
        return cast(asyncio.Protocol, super().__call__())

    def pre_shutdown(self) -> None:
        """Close what is idle, let the rest end with its answer."""
        super().pre_shutdown()
        self._closing = True
        self._sweeper.cancel()
        self.outbox.flush()
        for front in list(self.fronts):
            front.close_soon()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # aiohttp's signature
        """Wait for the answers under way, then close every connection."""
        self.pre_shutdown()
        tasks = [front.task for front in self.fronts if front.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
            self.outbox.flush()
        for front in list(self.fronts):
            front.abort()
        await super().shutdown(timeout)

    def _sweep(self) -> None:
        now = monotonic()
        for front in list(self.fronts):
            front.tick(now)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)


class _Head(Struct, frozen=True):
    """The head of a request that was served: what stands before the value of Content-Length, and from its end on; from where
    to where that value is, and where the body starts.

    The next of the connection has the same, as a rule, and need not be parsed again to know what it says.
    """

    before: bytes
    after: bytes
    began: int
    ended: int
    start: int
    path: str
    headers: dict[str, str]


class Front(asyncio.BufferedProtocol):
    """One connection. ``task`` answers the request at hand; ``transport`` is None once the connection is gone, or aiohttp's."""

    __slots__ = (
        "task",
        "_server",
        "transport",
        "_remote",
        "_parser",
        "_raw",
        "_since",
        "_url",
        "_headers",
        "_body",
        "_messages",
        "_headed",
        "_whole",
        "_odd",
        "_agents",
        "_keep",
        "_later",
        "_unwritable",
        "_last",
        "_known",
    )

    def __init__(self, server: FrontServer) -> None:
        self.task: asyncio.Task[None] | None = None
        self._server = server
        self.transport: asyncio.Transport | None = None
        self._remote: str | None = None
        self._parser = HttpRequestParser(self)
        self._raw = b""
        self._since = 0.0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = b""
        self._messages = 0
        self._agents = 0
        self._headed = self._whole = self._odd = self._keep = self._last = False
        self._later = b""
        self._unwritable: asyncio.Future[None] | None = None
        self._known: _Head | None = None

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who calls."""
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, (tuple, list)) else None if peer is None else str(peer)
        self._since = monotonic()
        self._server.fronts.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._server.fronts.discard(self)
        self.transport = None
        if self.task is not None:
            self.task.cancel()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The client does not read."""
        if self._unwritable is None:
            self._unwritable = self._server.loop.create_future()

    def resume_writing(self) -> None:
        """The client has read most of it."""
        waiter, self._unwritable = self._unwritable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def get_buffer(self, sizehint: int, /) -> memoryview:
        """Return where the next read goes."""
        return self._server.buffer

    def buffer_updated(self, nbytes: int, /) -> None:
        """Take what was read."""
        data = self._server.buffer[:nbytes]
        known = self._known
        if known is not None and self.task is None and not self._raw:
            raw = bytes(data)
            arrived = self._again(known, raw)
            if arrived is not None:
                if not self._serve(arrived):
                    self._raw = raw
                    self._hand_over()
                return
        self._take(data)

    def eof_received(self) -> None:
        """The client says no more. asyncio closes the connection, once what was written is out."""
        self._server.outbox.flush()

    def _take(self, data: memoryview) -> None:
        """Take a piece of a request, serve it once it is whole."""
        if self.task is not None:  # not before the one at hand is answered
            self._later += data
            if len(self._later) > PATIENCE and self.transport is not None:
                self.transport.pause_reading()  # not sooner: from here on nobody hears that the client leaves
            return
        if not self._raw:
            self._url = self._body = b""
            self._headers = {}
            self._messages = self._agents = 0
            self._headed = self._whole = self._odd = False
            self._since = monotonic()
        size = len(self._raw) + len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._odd = self._headed = True
        if self._whole and self._messages == 1 and not self._odd and size - len(self._body) <= self._server.max_head:
            self._known = None if self._raw else _head_of(bytes(data), self._server.paths[self._url], self._headers)
            if self._serve(self._arrived()):
                self._raw = b""
                return
        self._raw += data
        if (self._odd and self._headed) or self._whole or size > PATIENCE:
            self._hand_over()

    def _again(self, known: _Head, data: bytes) -> Arrived | None:
        """Return the request that ``data`` is, if it differs from the one before in its body alone."""
        ended = known.ended
        if not data.startswith(known.before) or not data.startswith(known.after, ended):
            return None
        body = data[known.start :]
        length = str(len(body))
        if data[known.began : ended] != length.encode():  # also of a body that is longer by a digit
            return None
        assert self.transport is not None
        headers = known.headers.copy()
        headers["content-length"] = length
        keep = self._keep and not self._last
        return Arrived(self.transport, known.path, headers, body, self._remote, keep, self._drain, self._server.outbox)

    def _serve(self, arrived: Arrived) -> bool:
        """Begin to answer, if somebody does."""
        serve = self._server.route(arrived)
        if serve is None:
            return False
        task = _begin(self._answer(serve, arrived), loop=self._server.loop, name="headgate-front")
        if not task.done():
            self.task = task
        return True

    # -- the parser's side

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._messages += 1

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers never get here, since no chunked body does."""
        known = _names.get(name)
        if known is None:
            known = _learn(name)
        headers = self._headers
        if known == "user-agent":
            # SDKs that wrap another leave its own in place: the last one is who really calls.
            self._agents += 1
        elif not known or known in headers:
            self._odd = True
            return
        headers[known] = value.decode("utf-8", "surrogateescape").rstrip(" \t")

    def on_headers_complete(self) -> None:
        """The end of the headers."""
        self._headed = True
        parser, headers = self._parser, self._headers
        self._keep = parser.should_keep_alive()
        if (
            "host" not in headers
            or headers.get("content-type") != "application/json"
            or "content-length" not in headers
            or len(headers) > HEADER_LIMIT
            or self._url not in self._server.paths
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or parser.should_upgrade()
        ):
            self._odd = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body = body if not self._body else self._body + body

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._whole = True

    # -- serving

    def _arrived(self) -> Arrived:
        assert self.transport is not None
        path = self._server.paths[self._url]
        keep = self._keep and not self._last
        return Arrived(
            self.transport, path, self._headers, self._body, self._remote, keep, self._drain, self._server.outbox
        )

    async def _drain(self) -> None:
        if self._unwritable is not None:
            await self._unwritable

    async def _answer(self, serve: Serve, arrived: Arrived) -> None:
        transport = arrived.transport
        try:
            answer = await serve(arrived)
            if transport.is_closing():
                return
            if isinstance(answer, FrontOutlet):
                keep = answer.stays_open and not self._last
            else:
                keep = self._keep and not self._last and not answer.closes
                self._server.outbox.write(transport, answer.written(keep))
                if self._unwritable is not None:
                    async with asyncio.timeout(grace_s(len(answer.content))):
                        await self._unwritable
            if not keep:
                self._server.outbox.flush()
                transport.close()
        except TimeoutError:  # a client that does not read
            transport.abort()
        except asyncio.CancelledError:
            transport.abort()
            raise
        except Exception:  # the server's edge: what the handler could not turn into an answer
            _log.exception("a request could not be answered")
            transport.abort()
        finally:
            self.task = None
            self._since = monotonic()
        if self._later and not transport.is_closing():
            later, self._later = self._later, b""
            transport.resume_reading()
            self._take(memoryview(later))

    def _hand_over(self) -> None:
        """Let aiohttp read the request from its beginning, and whatever comes after it."""
        transport = self.transport
        assert transport is not None
        server, raw = self._server, _with_one_agent(self._raw) if self._agents > 1 else self._raw
        server.outbox.flush()
        server.fronts.discard(self)
        self.transport = None
        self._raw = b""
        inner = server.behind()
        transport.set_protocol(inner)
        inner.connection_made(transport)
        inner.data_received(raw)

    # -- the end

    def tick(self, now: float) -> None:
        """Look at the time."""
        transport = self.transport
        if self.task is not None or transport is None:
            return
        if self._raw:
            if self._headed:
                if now - self._since >= SWEEP_S:
                    self._hand_over()
            elif now - self._since >= HEAD_S:
                transport.write(_TOO_SLOW)
                transport.close()
        elif now - self._since >= KEEP_ALIVE_S:
            transport.close()

    def close_soon(self) -> None:
        """Close when nothing is under way here, now or later."""
        self._last = True
        if self.task is None and self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close now."""
        if self.transport is not None:
            self.transport.abort()


def _head_of(raw: bytes, path: str, headers: dict[str, str]) -> _Head | None:
    """Return the head of ``raw``, a request that was parsed, unless that cannot be told from another by its bytes alone."""
    end = raw.find(b"\r\n\r\n") + 4
    length = _LENGTH.search(raw, 0, end - 2)
    if length is None:
        return None
    began, ended = length.span(1)
    return _Head(raw[:began], raw[ended:end], began, ended, end, path, headers.copy())


# Where asyncio can, a task has begun at once, so that the request need not wait for another turn of the loop.
_begin: Callable[..., asyncio.Task[None]] = asyncio.Task
if sys.version_info >= (3, 12):
    _begin = partial(asyncio.Task, eager_start=True)


def _with_one_agent(raw: bytes) -> bytes:
    """Return a request with the last of its User-Agent headers alone, since aiohttp refuses several.

    Its connection ends with it, as the next request would have them again. What is odd besides is left to be refused.
    """
    head, border, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    names = [line.partition(b":")[0].lower() for line in lines]
    if not border or b"upgrade" in names or any(b"\n" in line or line[:1] in b" \t" for line in lines):
        return raw
    agent = len(names) - 1 - names[::-1].index(b"user-agent")
    barred = (b"user-agent", b"connection")
    kept = [line for at, line in enumerate(lines) if at == agent or names[at] not in barred]
    return b"\r\n".join([first, *kept, b"Connection: close"]) + border + rest


def _learn(name: bytes) -> str:
    text = name.decode("latin-1").lower()
    known = "" if text in _ODD else text
    if len(_names) < _MAX_LEARNT:
        _names[name] = known
    return known
