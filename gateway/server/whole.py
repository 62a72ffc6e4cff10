"""A whole answer in one write.

aiohttp prepares a response in several steps, for the sake of everything a response might be. Most answers here are a
status, a few headers and a body that is complete. ``WholeAnswer`` writes itself, by public API, or lets aiohttp do it
wherever something stands in the way that this short way would skip. Whatever of a host looks at answers before they go
out, a middleware or a signal, is given an ordinary web.Response instead: see ``opened``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict

_MAX_BYTES: Final = 64 * 1024
"""Above this the body waits for the client to read, which is aiohttp's to arrange."""
_GRACE_S: Final = 30.0
_SLOWEST_READER: Final = 8 * 1024
"""Bytes a second, after the grace: a client that reads slower than this has its connection closed."""
_NO_BODY: Final = frozenset({204, 304})
_LINE: Final = ": ".join


class _Starts(dict[int, str]):
    """Status lines."""

    def __missing__(self, status: int) -> str:
        self[status] = start = f"HTTP/1.1 {status} {_phrase(status)}\r\n"
        return start


class _Ends(dict[int, tuple[str, str]]):
    """What the headers of an answer of this second end with, if the connection closes and if it stays open."""

    def __missing__(self, now: int) -> tuple[str, str]:
        end = f"date: {formatdate(now, usegmt=True)}\r\nserver: {SERVER_SOFTWARE}\r\n"
        self.clear()
        self[now] = ends = f"{end}connection: close\r\n\r\n", f"{end}\r\n"
        return ends


_STARTS: Final = _Starts()
_ENDS: Final = _Ends()


class WholeAnswer(web.StreamResponse):
    """``content`` is the body; ``headers`` are complete but for Content-Length, Date, Server and Connection."""

    _written = False
    _stays_open = False
    closes = False
    _opened: OpenAnswer | None = None
    _multi: CIMultiDict[str] | None = None

    def __init__(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        # Not StreamResponse's: all that it sets up is for what aiohttp does when it prepares a response.
        self.content = content
        self._code = status
        self._given = headers

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the answer if nothing stands in the way; else as aiohttp does."""
        transport, body = request.transport, self.content
        if (
            transport is None
            or transport.is_closing()
            or len(body) > _MAX_BYTES
            or transport.get_write_buffer_size()  # a client that does not read: aiohttp waits for it
            or request.version != HttpVersion11
            or request.method == "HEAD"
            or self._code in _NO_BODY
            or self._written
        ):
            return await self.opened().prepare(request)
        self._stays_open = stays_open = request.keep_alive and not self.closes
        transport.write(self.written(stays_open))
        self._written = True
        return None

    def written(self, stays_open: bool) -> bytes:
        """Return all the bytes of the answer, for a client of HTTP/1.1 that may have a body."""
        if self._code in _NO_BODY:
            return head_of(self._code, self._given, "", stays_open)
        body = self.content
        return head_of(self._code, self._given, f"content-length: {len(body)}\r\n", stays_open) + body

    def opened(self) -> OpenAnswer:
        """Return the same answer as a response that may be looked at and changed, and is written by aiohttp."""
        response = self._opened
        if response is None:
            self._opened = response = OpenAnswer(body=self.content, status=self._code, headers=self._given)
            if self.closes:
                response.force_close()
        return response

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._code}>"

    def force_close(self) -> None:
        """End the connection with this answer."""
        self.closes = True

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is owed after one write."""
        if self._opened is not None:
            await self._opened.write_eof(data)

    # -- what aiohttp and access logs ask for

    @property
    def prepared(self) -> bool:
        """Whether the headers are out."""
        return self._written or (self._opened is not None and self._opened.prepared)

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection may serve another request."""
        return self._stays_open if self._opened is None else self._opened.keep_alive

    @property
    def body_length(self) -> int:
        """Bytes of the body that were sent."""
        return len(self.content) if self._opened is None else self._opened.body_length

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._code

    @property
    def reason(self) -> str:
        """What the status is called."""
        return _phrase(self._code)

    @property
    def headers(self) -> CIMultiDict[str]:
        """The headers that were given; once aiohttp writes them, its own too."""
        if self._opened is not None:
            return self._opened.headers
        if self._multi is None:
            self._multi = CIMultiDict(self._given)
        return self._multi


class OpenAnswer(web.Response):
    """A whole answer that aiohttp writes: a longer body waits for its reader, but not for one that stands still."""

    _transport: asyncio.Transport | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Prepare as aiohttp does."""
        self._transport = request.transport
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write the body, in bounded time."""
        try:
            async with asyncio.timeout(grace_s(len(self.body) if isinstance(self.body, bytes) else 0)):
                await super().write_eof(data)
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status}>"  # aiohttp's wants the request that its own prepare() remembers


def head_of(status: int, headers: Mapping[str, str], framing: str, stays_open: bool) -> bytes:
    """Return status line and headers, with what says how the body is framed. Raises ValueError for a line break in one."""
    lines = [*map(_LINE, headers.items()), ""]
    text = "".join(lines)
    if not text.isprintable() and ("\n" in text or "\r" in text or "\0" in text):
        raise ValueError("a header of the answer has a line break or a NUL in it")
    head = _STARTS[status] + "\r\n".join(lines) + framing + _ENDS[int(time())][stays_open]
    return head.encode("utf-8", "surrogateescape")


def is_bodiless(status: int) -> bool:
    """Whether an answer of ``status`` has no body, whatever its headers say."""
    return status in _NO_BODY


def grace_s(size: int) -> float:
    """Return how long a client may take to read ``size`` bytes."""
    return _GRACE_S + size / _SLOWEST_READER


def is_looked_at(request: web.Request) -> bool:
    """Whether any application around this request wants to see responses before they go out."""
    for app in request.match_info.apps:  # noqa: SIM110  # any() of a generator costs twice as much
        if app.middlewares or app.on_response_prepare:
            return True
    return False


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a provider's own, such as 529
        return ""
