"""The transport on aiohttp's ClientSession: everything HTTP/1.1 asks for, TLS, proxies and unix sockets included.

Only public names of aiohttp are used. One session per transport; the pool's limit is ours, since aiohttp's has neither
order nor deadline. No timer per request: deadlines are kept by the clock of the call's scope.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import ClientResponse, hdrs
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from aiohttp.payload import Payload
from yarl import URL

from ..errors import Cancelled, ConnectFailed, GatewayError, HouseError, upstream_error
from ..passing.request import Upload
from ..relay.scope import Abortable, Scope
from .base import Deadlines, RequestHead
from .options import TransportOptions, proxy_credentials, ssl_context
from .session_exchange import SessionExchange, response_headers
from .session_faults import submit_error
from .session_request import (
    HEAD_LIMIT,
    HEADER_LIMIT,
    NOT_ADDED,
    ONCE,
    READ_SIZE,
    SHORT_WAY,
    ImmediateResponse,
    SmallRequest,
    send_small,
)
from .session_socket import Handshake, SessionLine, open_line
from .session_upload import StreamedUpload
from .slots import Slots

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

PIECE: Final = 64 * 1024
"""Bodies above this are written in pieces of it, so that a provider that stops reading is noticed."""
URL_LIMIT: Final = 1024

_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")
_REPEATABLE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that aiohttp would send twice by itself when a connection is lost. Whether to retry is for rules to say."""


class SessionTransport:
    """A pool of connections to one upstream. Making one opens nothing; raises ValueError for options that cannot be."""

    def __init__(self, options: TransportOptions | None = None, *, short_way: bool = SHORT_WAY) -> None:
        self._options = options = TransportOptions() if options is None else options
        self._ssl = ssl_context(options)
        self._proxy_headers: dict[str, str] | None = None
        if (login := proxy_credentials(options)) is not None:
            self._proxy_headers = {hdrs.PROXY_AUTHORIZATION: aiohttp.encode_basic_auth(*login)}
        self._short = short_way and options.proxy is None
        self._slots = Slots(options.max_connections)
        self._live: set[Abortable] = set()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[float | None, aiohttp.ClientTimeout] = {}

    async def submit(
        self, head: RequestHead, body: bytes | Upload, deadlines: Deadlines, scope: Scope
    ) -> SessionExchange:
        """Send a request; return at the response headers. See Transport.submit for what is raised."""
        session = self._session or self._open()
        url = self._urls.get(head.url) or self._parse(head.url)
        timeout = self._timeouts.get(deadlines.connect_s) or self._timeout(deadlines.connect_s)
        headers = head.headers if head.standing is None else {**head.standing.headers, **head.headers}
        if self._proxy_headers is not None and url.scheme == "http":
            headers = {**headers, **self._proxy_headers}  # no tunnel: the proxy reads the request itself
        upload: _Upload | StreamedUpload | None = None
        if not isinstance(body, bytes):
            upload = StreamedUpload(body, scope.loop)
        elif len(body) > PIECE:
            upload = _Upload(body, scope.loop)
        submission = _Submission(scope, deadlines, upload, self._live)
        slots = self._slots
        held = False
        response: ClientResponse | None = None
        try:
            if not slots.take():
                await slots.wait(scope, deadlines.pool_s)
            held = True
            if self._short and isinstance(body, bytes) and upload is None and body and head.method == "POST":
                connector = session.connector
                assert connector is not None
                response = await send_small(session, connector, url, headers, body, timeout, scope.loop)
            else:
                response = await session.request(
                    head.method,
                    url,
                    data=upload or body or None,
                    headers=headers,
                    allow_redirects=False,
                    timeout=timeout,
                    proxy_headers=self._proxy_headers,
                    middlewares=ONCE if head.method in _REPEATABLE else None,
                )
            answered = response_headers(response, self._options.proxy is not None)
        except BaseException as fault:
            if response is not None:
                response.close()
            if held:
                slots.give_back()
            if (error := submission.failed(fault, self._place(url))) is None:
                raise
            raise error from fault
        submission.over()
        return SessionExchange(response, answered, scope, slots, self._live)

    async def open_socket(
        self, head: RequestHead, protocols: Sequence[str], max_bytes: int, deadlines: Deadlines, scope: Scope
    ) -> SessionLine:
        """Open a WebSocket. See Transport.open_socket for what is raised."""
        url, handshake = self._parse(head.url), Handshake()
        session = aiohttp.ClientSession(
            connector=(self._session or self._open()).connector,
            connector_owner=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self._options.proxy,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=NOT_ADDED,
            middlewares=(handshake.watch,),
        )
        submission = _Submission(scope, deadlines, None, self._live)
        held = False
        try:
            if not self._slots.take():
                await self._slots.wait(scope, deadlines.pool_s)
            held = True
            line = await open_line(session, handshake, url, head.headers, protocols, max_bytes, deadlines.connect_s)
        except BaseException as fault:
            session.detach()
            if held:
                self._slots.give_back()
            if (error := submission.failed(fault, self._place(url))) is None:
                raise
            raise error from fault
        submission.over()
        line.own(self._place(url), scope, self._slots, self._live)
        return line

    async def aclose(self) -> None:
        """Abort what is still running and close every connection. Idempotent."""
        self._closed = True
        session, self._session = self._session, None
        for item in list(self._live):
            item.abort()
        # A request that is being sent ends when its task runs next; the session would wait for it for ever.
        while self._live:  # noqa: ASYNC110 - a matter of a few turns
            await asyncio.sleep(0)
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # aborted sockets are closed in the loop's next turn

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ConnectFailed("this transport is closed")
        options = self._options
        connector: aiohttp.BaseConnector
        if options.unix_socket is not None:
            connector = _UnixConnector(options.unix_socket, keepalive_timeout=options.keep_alive, limit=0)
        else:
            connector = _TCPConnector(
                limit=0,
                limit_per_host=0,
                ttl_dns_cache=int(options.dns_ttl),
                use_dns_cache=options.dns_ttl >= 1,
                keepalive_timeout=options.keep_alive,
                ssl=True if self._ssl is None else self._ssl,
            )
        self._session = session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=options.proxy,
            trust_env=False,
            auto_decompress=True,
            raise_for_status=False,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=NOT_ADDED,
            request_class=SmallRequest,
            response_class=ImmediateResponse,
            read_bufsize=READ_SIZE,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
            max_headers=HEADER_LIMIT,
        )
        return session

    def _parse(self, text: str) -> URL:
        if _BLANK.search(text):  # yarl drops some of them without a word, and leaves others in the request line
            raise HouseError("the URL of the upstream is not encoded")
        try:
            url = URL(text, encoded=True)
        except ValueError as fault:
            raise HouseError("the URL of the upstream cannot be read") from fault
        if self._options.unix_socket is not None and url.scheme == "https":
            raise ConnectFailed("a unix socket speaks plain http: let the upstream's URL begin with http://")
        if len(self._urls) >= URL_LIMIT:
            self._urls.clear()
        self._urls[text] = url
        return url

    def _timeout(self, connect_s: float | None) -> aiohttp.ClientTimeout:
        if len(self._timeouts) >= URL_LIMIT:
            self._timeouts.clear()
        # ``connect``, not ``sock_connect``: address lookup, all addresses, TLS and the proxy's CONNECT together.
        self._timeouts[connect_s] = timeout = aiohttp.ClientTimeout(total=None, connect=connect_s)
        return timeout

    def _place(self, url: URL) -> str:
        return self._options.unix_socket or f"{url.host}:{url.port}"


class _Unspoilt(aiohttp.BaseConnector):
    """Lends no connection on which anything came unasked while it was idle.

    aiohttp (3.14.5) keeps what came, an answer say, and gives it to the next request.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # its name
    ) -> Connection:
        """Return a connection, as aiohttp does."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or not protocol.should_close:  # a new one never should
                return connection
            connection.close()


class _TCPConnector(_Unspoilt, aiohttp.TCPConnector):
    pass


class _UnixConnector(_Unspoilt, aiohttp.UnixConnector):
    pass


class _Submission:
    """What watches over a request until its response headers are there: deadlines, abort, progress of a big body."""

    __slots__ = ("_scope", "_live", "_deadlines", "_upload", "_task", "_cancelling", "_verdict")

    def __init__(
        self, scope: Scope, deadlines: Deadlines, upload: _Upload | StreamedUpload | None, live: set[Abortable]
    ) -> None:
        task = asyncio.current_task(scope.loop)
        assert task is not None
        if scope.closed:
            raise Cancelled("the call is over")
        self._scope = scope
        self._live = live
        self._deadlines = deadlines
        self._upload = upload
        self._task = task
        self._cancelling = task.cancelling()
        self._verdict: GatewayError | None = None
        live.add(self)
        scope.items.add(self)
        scope.watched.append(self)

    def tick(self, now: float, /) -> None:
        """Give up once a deadline has passed."""
        deadlines = self._deadlines
        if deadlines.head_at is not None and now >= deadlines.head_at:
            self._stop(upstream_error(deadlines.head_kind, "the provider sent no response headers in time"))
        elif (
            self._upload is not None and deadlines.write_s is not None and self._upload.stalled(now, deadlines.write_s)
        ):
            self._stop(upstream_error("timeout.write", "the provider stopped reading the request"))

    def abort(self) -> None:
        """End the request that is being sent."""
        self._stop(Cancelled("the call is over"))

    def _stop(self, verdict: GatewayError) -> None:
        if self._verdict is None:
            self._verdict = verdict
            self._task.cancel()

    def over(self) -> None:
        """Stop watching."""
        scope = self._scope
        self._live.discard(self)
        scope.items.discard(self)
        if not scope.closed:
            scope.watched.remove(self)

    def failed(self, fault: BaseException, place: str) -> GatewayError | None:
        """Stop watching; return the error that ``fault`` means, None if it is not ours to translate."""
        self.over()
        verdict = self._verdict
        if verdict is not None:
            # Our own cancel is taken back; another one at the same moment goes on.
            others = self._task.uncancel() > self._cancelling
            return None if others and isinstance(fault, asyncio.CancelledError) else verdict
        if isinstance(self._upload, StreamedUpload) and self._upload.fault is not None:
            return self._upload.fault
        if isinstance(fault, (aiohttp.ClientError, OSError, ValueError)):
            return submit_error(fault, place, None if self._upload is None else self._upload.whole)
        return None


class _Upload(Payload):
    """A big body, written in pieces; knows when the last one was taken."""

    def __init__(self, body: bytes, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(body)
        self._body = body
        self._loop = loop
        self._moved_at: float | None = None
        self.whole = False

    @property
    def size(self) -> int:
        """The Content-Length."""
        return len(self._body)

    @property
    def autoclose(self) -> bool:
        """There is nothing to close."""
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the pieces, each when the socket has taken most of the one before."""
        view = memoryview(self._body)
        self._moved_at = monotonic()
        try:
            for start in range(0, len(view), PIECE):
                await writer.write(view[start : start + PIECE])
                await writer.drain()
                self._moved_at = monotonic()
        except asyncio.CancelledError:
            # The answer came first, or nobody wants it. A plain close would wait for the provider to read the rest.
            if writer.transport is not None:
                writer.transport.abort()
            raise
        self.whole = True

    def stalled(self, now: float, limit_s: float) -> bool:
        """Whether a piece has been waiting for ``limit_s``."""
        return not self.whole and self._moved_at is not None and now - self._moved_at >= limit_s
