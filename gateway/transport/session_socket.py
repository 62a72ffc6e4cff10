"""A WebSocket to a provider, over ClientSession: whole messages both ways, pings answered, its end told as it was."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Literal

import aiohttp
from aiohttp import ClientRequest, ClientResponse, ClientWebSocketResponse, WSMsgType
from yarl import URL

from ..errors import ConnectFailed, Cut, Malformed, upstream_error
from ..relay.scope import Abortable, Scope
from .base import NoSocket
from .slots import Slots

_HEARTBEAT_S: Final = 30.0
"""Silence after which the provider is pinged; half of it later it counts as gone."""
_CLOSE_S: Final = 2.0
_ERROR_BYTES: Final = 64 * 1024
_ABNORMAL: Final = 1006
_UNSAID: Final = 1005
_SPOKEN: Final = (aiohttp.ClientError, OSError, RuntimeError)


class Handshake:
    """Watches one: whatever is no switch of protocols, a redirect too, ends it, before anything is sent elsewhere."""

    def __init__(self) -> None:
        self.response: ClientResponse | None = None

    async def watch(
        self, request: ClientRequest, send: Callable[[ClientRequest], Awaitable[ClientResponse]]
    ) -> ClientResponse:
        """Client middleware. Raises NoSocket."""
        self.response = response = await send(request)
        if response.status == 101:
            return response
        try:
            async with asyncio.timeout(_CLOSE_S):
                body = await response.content.read(_ERROR_BYTES)
        except (TimeoutError, *_SPOKEN):
            body = b""
        finally:
            response.close()
        raise NoSocket(response.status, {name.lower(): value for name, value in response.headers.items()}, body)


async def open_line(
    session: aiohttp.ClientSession,
    handshake: Handshake,
    url: URL,
    headers: Mapping[str, str],
    protocols: Sequence[str],
    max_bytes: int,
    connect_s: float | None,
) -> SessionLine:
    """Open a WebSocket by ``session``, which ``handshake`` watches and which is of no more use afterwards.

    Raises NoSocket, UpstreamError, and what ClientSession raises when it cannot connect.
    """
    try:
        async with asyncio.timeout(connect_s):
            socket = await session.ws_connect(
                url,
                headers=headers,
                protocols=protocols,
                autoclose=False,
                heartbeat=_HEARTBEAT_S,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                max_msg_size=max_bytes + 1,  # aiohttp refuses what is as large as this
                decode_text=False,
            )
    except TimeoutError as fault:
        place = f"{url.host}:{url.port}"
        raise upstream_error("timeout.connect", f"cannot connect to {place}: no WebSocket in time") from fault
    except aiohttp.WSServerHandshakeError as fault:
        raise Malformed(f"{url.host}:{url.port} answers a WebSocket's handshake with something else") from fault
    finally:
        session.detach()
    assert handshake.response is not None
    return SessionLine(socket, handshake.response)


class SessionLine:
    """See Line. Holds a slot of the pool until it is closed, broken or aborted."""

    def __init__(self, socket: ClientWebSocketResponse[Literal[False]], response: ClientResponse) -> None:
        self.protocol = socket.protocol
        self._socket = socket
        self._response = response
        self._place = ""
        self._scope: Scope | None = None
        self._slots: Slots | None = None
        self._live: set[Abortable] | None = None
        self._said: tuple[int, str] | None = None
        self._leaving = False

    def own(self, place: str, scope: Scope, slots: Slots, live: set[Abortable]) -> None:
        """Belong to a call. Raises ConnectFailed if it is over."""
        self._place, self._scope, self._slots, self._live = place, scope, slots, live
        live.add(self)
        scope.items.add(self)
        if scope.closed:
            self.abort()
            raise ConnectFailed("the call is over")

    async def receive(self) -> tuple[bytes, bool] | None:
        """Return a message, and whether it is text; None at the end. Raises Cut, Malformed."""
        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            return message.data, message.type is WSMsgType.TEXT
        if message.type is WSMsgType.CLOSE:
            self._said = message.data or _UNSAID, message.extra or ""
            return None
        if self._leaving:
            return None
        if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
            raise Malformed(f"{self._place} broke the WebSocket protocol: {str(message.data)[:200]}")
        raise Cut(f"{self._place} closed the connection in the middle of its WebSocket")

    async def send(self, message: bytes, is_text: bool) -> None:
        """Send a message; wait while the provider has enough to read. Raises Cut."""
        try:
            await self._socket.send_frame(message, WSMsgType.TEXT if is_text else WSMsgType.BINARY)
        except _SPOKEN as fault:
            raise Cut(f"{self._place} closed the connection in the middle of its WebSocket") from fault

    @property
    def ended(self) -> tuple[int, str]:
        """The provider's code and reason."""
        return self._said or (_ABNORMAL, "")

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, and let go of the connection. Whoever waits for a message hears that there is none."""
        self._leaving = True
        try:
            await self._socket.close(code=code, message=reason.encode())
        except _SPOKEN:
            pass  # it is gone already
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the connection now."""
        slots, self._slots = self._slots, None
        if slots is None or self._scope is None or self._live is None:
            return
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()
        self._scope.items.discard(self)
        self._live.discard(self)
        slots.give_back()
