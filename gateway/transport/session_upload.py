"""A request body that comes in while it goes out, in aiohttp's words: a payload."""

from __future__ import annotations

import asyncio
from time import monotonic

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from ..errors import GatewayError
from ..passing.request import Upload


class StreamedUpload(Payload):
    """Holds one piece at a time: the next is read when the socket has taken most of the one before.

    ``whole`` once the last one was; ``fault`` is what kept the caller's end from giving it.
    """

    def __init__(self, upload: Upload, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(b"")
        self._upload = upload
        self._loop = loop
        self._writing_since: float | None = None
        self.whole = False
        self.fault: GatewayError | None = None

    @property
    def size(self) -> int | None:
        """The Content-Length; None for chunks."""
        return self._upload.length

    @property
    def autoclose(self) -> bool:
        """There is nothing to close."""
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Never whole: the pieces are gone once they are written."""
        raise TypeError("a body that is read while it is sent is no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write piece by piece. A failure or a cancellation closes the connection: the provider must see no clean end."""
        reader = self._upload.reader
        piece = self._upload.head
        try:
            while True:
                if piece:
                    self._writing_since = monotonic()
                    await writer.write(piece)
                    await writer.drain()
                    self._writing_since = None
                piece = b"" if reader is None else await reader.read()
                if not piece:
                    break
        except BaseException as fault:
            if isinstance(fault, GatewayError):
                self.fault = fault
            if writer.transport is not None:
                writer.transport.abort()
            raise
        self.whole = True

    def stalled(self, now: float, limit_s: float) -> bool:
        """Whether the provider has let a piece wait for ``limit_s``. That the caller sends none is not its fault."""
        return self._writing_since is not None and now - self._writing_since >= limit_s
