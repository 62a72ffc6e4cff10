"""A whole answer in one write.

aiohttp prepares a response in several steps, for the sake of everything a response might be. Most answers here are a
status, a few headers and a body that is complete. ``WholeAnswer`` is a web.Response in every respect that a host's
middlewares and access log can see, until it is prepared: then it writes itself, by public API, or lets aiohttp do it
wherever something stands in the way that this short way would skip.
"""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE

_MAX_BYTES: Final = 64 * 1024
"""Above this the body waits for the client to read, which is aiohttp's to arrange."""
_GRACE_S: Final = 30.0
_SLOWEST_READER: Final = 8 * 1024
"""Bytes a second, after the grace: a client that reads slower than this has its connection closed."""
_NO_BODY: Final = frozenset({204, 304})
_OURS: Final = (hdrs.CONTENT_LENGTH, hdrs.DATE, hdrs.SERVER, hdrs.CONNECTION, hdrs.TRANSFER_ENCODING)
_dates: dict[int, str] = {}


class WholeAnswer(web.Response):
    """``body`` must be bytes, ``headers`` complete but for Content-Length, Date, Server and Connection."""

    _written: int | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the answer if nothing stands in the way; else as aiohttp does."""
        self._transport = transport = request.transport
        body = self.body
        if (
            self._written is not None
            or transport is None
            or transport.is_closing()
            or transport.get_write_buffer_size()  # a client that does not read: aiohttp waits for it
            or not isinstance(body, bytes)
            or len(body) > _MAX_BYTES
            or request.version != HttpVersion11
            or request.method == "HEAD"
            or self.status in _NO_BODY
            or self.compression
            or self.chunked
            or self.cookies
            or _has_signals(request)
        ):
            return await super().prepare(request)
        headers = self.headers
        for ours in _OURS:
            if ours in headers:  # a middleware of the host set it
                return await super().prepare(request)
        lines = [f"HTTP/1.1 {self.status} {self.reason}\r\n"]
        for name, value in headers.items():
            lines.append(f"{name}: {value}\r\n")
        head, count = "".join(lines), len(lines)
        if head.count("\n") != count or head.count("\r") != count or "\0" in head:
            return await super().prepare(request)  # which refuses it
        head += f"Content-Length: {len(body)}\r\nDate: {_date()}\r\nServer: {SERVER_SOFTWARE}\r\n"
        if not request.keep_alive or self.keep_alive is False:
            self.force_close()
            head += "Connection: close\r\n\r\n"
        else:
            self._stays_open = True
            head += "\r\n"
        transport.write(head.encode("utf-8", "surrogateescape") + body)
        self._written = len(body)
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}>"  # aiohttp's wants the request that its own prepare() remembers

    _stays_open = False
    _transport: asyncio.Transport | None = None

    @property
    def prepared(self) -> bool:
        """Whether the headers are out."""
        return self._written is not None or super().prepared

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may serve another request."""
        return True if self._stays_open else super().keep_alive

    @property
    def body_length(self) -> int:
        """Bytes of the body that were sent, for access logs."""
        return super().body_length if self._written is None else self._written

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is owed after one write; a longer body waits for its reader, but not for one that stands still."""
        if self._written is not None:
            return
        size = len(self.body) if isinstance(self.body, bytes) else 0
        try:
            async with asyncio.timeout(_GRACE_S + size / _SLOWEST_READER):
                await super().write_eof(data)
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()


def _has_signals(request: web.BaseRequest) -> bool:
    """Whether any application around this request wants to see responses before they go out."""
    if not isinstance(request, web.Request):
        return False
    for app in request.match_info.apps:  # noqa: SIM110  # any() of a generator costs twice as much
        if app.on_response_prepare:
            return True
    return False


def _date() -> str:
    """Return the Date header's value, made once a second."""
    now = int(time.time())
    date = _dates.get(now)
    if date is None:
        _dates.clear()
        _dates[now] = date = formatdate(now, usegmt=True)
    return date
