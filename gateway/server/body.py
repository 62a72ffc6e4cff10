"""A request that is passed on, and its body: its beginning is read at once, the rest when whoever sends it asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError

from ..errors import CallerError, TooLarge
from ..passing.model import boundary_of
from ..passing.paths import Place, check_plain
from ..passing.request import HEAD_BYTES, Passed, Socket, Upload
from .intake import Network, scheme_of


class Body:
    """Of one request. A Reader. aiohttp stops reading the client's socket while nobody takes what came."""

    def __init__(self, request: web.BaseRequest, receive_s: float, max_bytes: int) -> None:
        self.begun = False
        self.count = 0
        self._request = request
        self._receive_s = receive_s
        self._max_bytes = max_bytes
        self._head = 0
        self._task: asyncio.Task[Any] | None = None

    async def begin(self, headers: Mapping[str, str]) -> Upload:
        """Read the first ``HEAD_BYTES``, or all there is. Raises CallerError, TooLarge."""
        request = self._request
        if not request.body_exists:
            return Upload()
        # aiohttp unpacks a body that is packed: nobody knows its length then.
        length = request.content_length if "content-encoding" not in headers else None
        if length is not None and length > self._max_bytes:
            raise self._too_large()
        pieces: list[bytes] = []
        while self._head < HEAD_BYTES:
            piece = await self._next()
            if not piece:
                return Upload(b"".join(pieces), None, self._head)
            pieces.append(piece)
            self._head += len(piece)
        if self._head > self._max_bytes:
            raise self._too_large()
        if request.content.at_eof():
            return Upload(b"".join(pieces), None, self._head)
        return Upload(b"".join(pieces), self, length)

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end. Raises CallerError, TooLarge."""
        self.begun = True
        self._task = asyncio.current_task()
        try:
            async with asyncio.timeout(self._receive_s):
                piece = await self._next()
        except TimeoutError as fault:
            said = f"nothing of the request body came for {self._receive_s:g} s, the limit of this gateway (server.receive)"
            raise CallerError(said, status=408) from fault
        finally:
            self._task = None
        self.count += len(piece)
        if self._head + self.count > self._max_bytes:
            raise self._too_large()
        return piece

    async def stop(self) -> None:
        """Let nobody read any more: what is left is the server's to throw away."""
        task = self._task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait((task,))

    async def _next(self) -> bytes:
        try:
            return await self._request.content.readany()
        except (web.RequestPayloadError, aiohttp.ClientError, ContentEncodingError, ConnectionError) as fault:
            raise CallerError(f"the request body cannot be read: {fault}") from fault

    def _too_large(self) -> TooLarge:
        limit = f"{self._max_bytes} bytes, the limit of this gateway (server.max_upload)"
        return TooLarge(f"the request body is larger than {limit}")


def passed_of(
    request: web.BaseRequest,
    path: str,
    place: Place,
    headers: Mapping[str, str],
    trusted: Sequence[Network],
    socket: Socket | None = None,
) -> Passed:
    """Return the request without its body. Raises CallerError for a path that is not plain."""
    raw, _, query = request.raw_path.partition("?")
    prefix = request.path.removesuffix(path)
    raw = "/" + raw.partition("://")[2].partition("/")[2] if "://" in raw else raw
    raw = raw.removeprefix(prefix).partition("#")[0]
    check_plain(raw)
    if place.path.endswith(path) and place.path != path:
        raw = place.path.removesuffix(path) + raw
    base = f"{scheme_of(request, headers, trusted)}://{request.host}{prefix}"
    content_type = headers.get("content-type", "")
    return Passed(
        request.method,
        raw,
        query.partition("#")[0],
        socket=socket,
        base=base,
        media_type=content_type.partition(";")[0].strip().lower(),
        boundary=boundary_of(content_type),
    )
