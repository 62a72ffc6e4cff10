"""How a stream becomes messages on a WebSocket: one for each event, the JSON text that stands in the event's data.

Comments, and the pings among them, become nothing: a WebSocket has its own. What only a socket says, the end of a chat's
stream, the lane, an error's status, is written here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from msgspec import Raw

from ..codecs.base import MAX_FRAME_BYTES
from ..ir.event import Wire
from ..responses.errors import FORMAT as RESPONSES
from ..wire.members import BAD_JSON, OBJECT, encode_json
from ..wire.ndjson import NdjsonFramer
from ..wire.sse import SseFramer, parse_frame
from .outlet import HIGH_BYTES

DONE: Final[Mapping[str, bytes]] = {
    "openai.chat": b'{"object":"chat.completion.done"}',
    "openai.completions": b'{"object":"text_completion.done"}',
}
"""What stands for ``[DONE]``, so that every message is a JSON object."""
_NUMBER: Final = re.compile(rb'("sequence_number"\s*:\s*)(\d+)')


class Line:
    """The way to the client of one socket: whole messages, as many turns as like.

    Text frames are written to the transport in one piece, in the stead of aiohttp, whose way would cost a task switch for
    each. Nothing is compressed. ``stall_s``: how long a client that has enough waiting may take nothing.
    """

    __slots__ = ("transport", "_socket", "_writer", "_stall_s")

    def __init__(
        self,
        socket: web.WebSocketResponse[Any],
        transport: asyncio.Transport,
        writer: AbstractStreamWriter,
        stall_s: float,
    ) -> None:
        self.transport = transport
        self._socket = socket
        self._writer = writer
        self._stall_s = stall_s

    @property
    def gone(self) -> bool:
        """Whether nothing more can be said."""
        return self._socket.closed or self.transport.is_closing()

    def say(self, messages: Iterable[bytes]) -> bool:
        """Send ``messages``. True: nothing more, please, before it is drained."""
        data = b"".join(map(_frame, messages))
        if data and not self.gone:
            self.transport.write(data)
        return self.transport.get_write_buffer_size() > HIGH_BYTES

    async def drain(self) -> None:
        """Wait until the client has taken most of what was sent; cut off one that stands still. Raises ConnectionResetError."""
        try:
            async with asyncio.timeout(self._stall_s):
                await self._writer.drain()
        except TimeoutError:
            self.transport.abort()
            raise ConnectionResetError("the client does not read") from None


def _frame(message: bytes) -> bytes:
    """One text message in one frame, unmasked, as a server sends it (RFC 6455, 5.2)."""
    size = len(message)
    if size < 126:
        return b"\x81%c%b" % (size, message)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), message)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), message)


class SocketOutlet:
    """The outlet of one turn: the stream's bytes go out as messages. ``failed``: the stream told an error."""

    __slots__ = ("transport", "failed", "_line", "_format", "_framer", "_stream_id")

    def __init__(self, line: Line, wire: Wire, stream_id: Raw | None = None) -> None:
        self.transport = line.transport
        self.failed = False
        self._line = line
        self._format = wire.format
        self._framer = SseFramer(MAX_FRAME_BYTES) if wire.framing == "sse" else NdjsonFramer(MAX_FRAME_BYTES)
        self._stream_id = stream_id

    @property
    def answer(self) -> SocketOutlet:
        """What whoever serves the turn must know of its end."""
        return self

    async def open(self, status: int, headers: Mapping[str, str], closes: bool) -> None:
        """Nothing to say: a turn has no headers of its own. Raises ConnectionResetError."""
        if self._line.gone:
            raise ConnectionResetError

    def write(self, data: bytes) -> bool:
        """Send the events that are whole now."""
        return self._line.say(self._messages(self._framer.feed(data)[1]))

    def flush(self) -> None:
        """Nothing waits."""

    async def drain(self) -> None:
        """Wait for the client."""
        await self._line.drain()

    async def close(self) -> None:
        """Send an event that nothing ended. The socket stays open for the next turn."""
        framer = self._framer
        self._line.say(self._messages(framer.close()[1] if isinstance(framer, SseFramer) else [framer.close()]))

    def _messages(self, frames: list[bytes]) -> list[bytes]:
        messages = []
        left_out = 0
        events = isinstance(self._framer, SseFramer)
        for frame in frames:
            name, data = parse_frame(frame) if events else (b"", frame)
            if data is None or not data.strip():
                continue
            if data == b"[DONE]":
                data = DONE.get(self._format, data)
            elif self._format == RESPONSES:
                if name == b"error":
                    # The failed response comes behind it and says the same. A client that took this for the end of the
                    # turn would take that for the beginning of the next.
                    left_out += 1
                    continue
                if name == b"response.failed":
                    self.failed = True
                    data = _earlier(data, left_out)
                data = in_lane(data, self._stream_id)
            messages.append(data)
        return messages


def _earlier(event: bytes, by: int) -> bytes:
    """Return ``event`` numbered lower, ``by`` as many events as were left out before it."""
    return _NUMBER.sub(lambda found: b"%b%d" % (found[1], int(found[2]) - by), event, count=1) if by else event


def in_lane(event: bytes, stream_id: Raw | None) -> bytes:
    """Return ``event``, a JSON object with members, with the lane in it from which the turn came."""
    return event if stream_id is None else b'{"stream_id":%b,%b' % (bytes(stream_id), event.lstrip()[1:])


def refusal(format: str, status: int, headers: Mapping[str, str], body: bytes, stream_id: Raw | None = None) -> bytes:
    """Return the message for an error response: its body, with the ``status`` in it.

    For openai.responses it is the event ``error`` (ResponseWsError of OpenAI's SDK 3.52), with the headers in it.
    """
    try:
        members: dict[str, Any] = dict(OBJECT.decode(body))
    except BAD_JSON:
        members = {"error": {"message": body.decode("utf-8", "replace")}}
    if format != RESPONSES:
        return encode_json({**members, "status": status})
    try:
        error: dict[str, Any] = dict(OBJECT.decode(members["error"]))
    except (*BAD_JSON, KeyError, TypeError):
        error = {"type": "server_error", "message": body.decode("utf-8", "replace")}
    error["headers"] = {name.lower(): value for name, value in headers.items() if name.lower() != "content-type"}
    return in_lane(encode_json({"type": "error", "status": status, "error": error}), stream_id)
