"""WebSockets that are passed on, such as OpenAI's realtime: messages go both ways as they are, and so does the goodbye.

The provider is asked first, by way of the route's chain, so that whatever is wrong is an HTTP error of the caller's API.
A client shows its key as any does, or as browsers must: as the subprotocol ``openai-insecure-api-key.KEY``.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSMsgType, web

from .. import registry
from ..call import Call
from ..errors import AuthError, CallerError, Cancelled, GatewayError, Overloaded, PermissionDenied
from ..passing.paths import Place
from ..passing.request import Line, Socket
from ..relay.reply import Reply
from ..relay.scope import as_gateway_error
from .body import passed_of
from .intake import read_headers, request_id_of, without_subprotocols
from .models import admit
from .states import principal_of

if TYPE_CHECKING:
    from .gateway import Gateway
    from .passing import Passing

_log: Final = logging.getLogger("headgate.server")
_KEY: Final = "openai-insecure-api-key."
_OURS: Final = (_KEY, "openai-organization.", "openai-project.")
"""Subprotocols that say who calls."""
_HEARTBEAT_S: Final = 30.0
_CLOSE_S: Final = 2.0
_STALL_S: Final = 300.0
"""How long a client may take nothing of what waits for it."""
_LIFE_S: Final = 2 * 3600.0
"""OpenAI ends a session after an hour."""
_LOOK_S: Final = 1.0
"""How often to look whether the caller is still accepted."""
_NORMAL, _GOING_AWAY, _POLICY, _INTERNAL, _TRY_AGAIN = 1000, 1001, 1008, 1011, 1013
_UNSPOKEN: Final = {1005: _NORMAL, 1006: _INTERNAL, 1015: _INTERNAL}
"""Codes that say how a connection ended, and that no frame may carry (RFC 6455, 7.4.1)."""


async def serve_socket(passing: Passing, request: web.BaseRequest, path: str, place: Place) -> web.StreamResponse:
    """Serve one WebSocket, whatever happens to it."""
    codec, request_id = registry.codec(place.format), request_id_of(request.headers.get("x-request-id"))
    scope, plan = passing.gateway.open_scope()
    began, max_bytes = monotonic(), plan.server.max_body
    call: Call | None = None
    reply: Reply | None = None
    try:
        headers = read_headers(request, plan.server.max_header)
        passing.check(request)
        if passing.gateway.draining:
            raise Overloaded("this gateway is about to end: connect anew", kind="unavailable")
        offered = [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",") if each.strip()]
        headers = _headers_of_call(headers, offered)
        socket = Socket(tuple(each for each in offered if not each.startswith(_OURS)), max_bytes)
        bare = without_subprotocols(request, socket.protocols)
        if not web.WebSocketResponse[Any](protocols=socket.protocols).can_prepare(bare):
            error = CallerError("this is no WebSocket handshake of version 13", status=426)
            error.headers = {"Sec-WebSocket-Version": "13", "Upgrade": "websocket"}
            raise error
        passed = passed_of(request, path, place, headers, plan.server.networks, socket)
        call, route = passing.prepare(plan, codec, passed, place, request, headers, scope, request_id, began)
        reply = await route.entry(call)
        line = socket.line
        if line is None:
            raise Cancelled("a middleware answered a WebSocket by itself")
    except BaseException as fault:
        if reply is not None:
            reply.abort()
        scope.close()
        if not isinstance(fault, Exception):
            raise
        return passing.refuse(request, codec, as_gateway_error(fault), request_id, call)
    response: web.WebSocketResponse[Any] = web.WebSocketResponse(
        timeout=_CLOSE_S,
        heartbeat=_HEARTBEAT_S,
        protocols=() if line.protocol is None else (line.protocol,),
        compress=False,
        max_msg_size=max_bytes + 1,  # aiohttp refuses what is as large as this
        decode_text=False,
    )
    response.headers.update(passing.seen(request, call))
    scope.committed = True
    pair = _Pair(passing.gateway, call, response, socket, line, reply)
    passing.sockets.add(pair)
    try:
        await response.prepare(bare)
        await pair.run()
    finally:
        passing.sockets.discard(pair)
        reply.abort()
        scope.close()
        transport = request.transport
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()  # a client that does not read would never let it end
    return response


class _Pair:
    """A client's socket and a provider's. Either side ends both; so does it when the caller is not accepted any more."""

    def __init__(
        self,
        gateway: Gateway,
        call: Call,
        response: web.WebSocketResponse[Any],
        socket: Socket,
        line: Line,
        reply: Reply,
    ) -> None:
        self._gateway = gateway
        self._call = call
        self._response = response
        self._socket = socket
        self._line = line
        self._reply = reply
        self._said: tuple[int, str] | None = None
        """Code and reason for the client."""
        self._theirs: tuple[int, str] = _GOING_AWAY, ""
        """Code and reason for the provider."""
        self._parting = False
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Pass messages on until one side ends. Nothing is left open."""
        talk = self._reply.scope.spawn(self._talk(), name="socket")
        try:
            await asyncio.shield(talk)
        except asyncio.CancelledError:
            if not self._parting:  # else its client has said goodbye, and the server hears that its connection is gone
                talk.cancel()
            await asyncio.wait((talk,), timeout=3 * _CLOSE_S)
            raise

    async def _talk(self) -> None:
        scope = self._reply.scope
        up = scope.spawn(self._up(), name="socket up")
        down = scope.spawn(self._down(), name="socket down")
        self._tasks = [up, down, scope.spawn(self._watch(), name="socket watch")]
        try:
            await asyncio.wait(self._tasks, timeout=_LIFE_S, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not down.done():
                await self._tell_provider()  # whose side ends by that
                await asyncio.wait((down,), timeout=_CLOSE_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            await self._end()

    def stop(self) -> None:
        """End it: the gateway does."""
        self._said = self._said or (_GOING_AWAY, "the gateway is about to end")
        for task in self._tasks:
            task.cancel()

    async def _up(self) -> None:
        """From the client to the provider; a message is read when the one before is on its way."""
        response, line = self._response, self._line
        while True:
            heard = await response.receive()
            if heard.type is WSMsgType.TEXT or heard.type is WSMsgType.BINARY:
                self._socket.received += len(heard.data)
                await line.send(heard.data, heard.type is WSMsgType.TEXT)
                continue
            code = response.close_code
            if heard.type is WSMsgType.CLOSE and code is not None:
                self._parting, self._theirs = True, (_UNSPOKEN.get(code, code), str(heard.extra or ""))
            else:
                self._reply.abort()  # it left without a word
            return

    async def _down(self) -> None:
        """From the provider to the client."""
        response = self._response
        try:
            async for chunk in self._reply:
                assert chunk.raw is not None and chunk.wire is not None, "what is passed on has bytes"
                kind = WSMsgType.TEXT if chunk.wire.framing == "message" else WSMsgType.BINARY
                async with asyncio.timeout(_STALL_S):
                    await response.send_frame(chunk.raw, kind)
        except GatewayError as error:
            self._said = _INTERNAL, f"{error.kind}: the provider's connection ended"
        except (TimeoutError, ConnectionError, RuntimeError):
            return  # the client is gone, or does not read
        else:
            code, reason = self._line.ended
            self._said = self._said or (_UNSPOKEN.get(code, code), reason)

    async def _watch(self) -> None:
        """Wait until the caller is not accepted any more. While nobody can say, the session goes on."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self._accept()
            except Exception as fault:  # an authenticator may be a stranger's
                error = as_gateway_error(fault)
                if isinstance(error, AuthError | PermissionDenied):
                    _log.info("a session is ended: %s (%s)", error.message, self._call.request_id)
                    self._said = _POLICY, f"this caller is not accepted any more: {error.message}"
                    return

    async def _accept(self) -> None:
        """Raise why the rules in force do not accept the caller: those of the session's route, or of any if that is gone."""
        call = self._call
        scope, plan = self._gateway.open_scope()
        try:
            route = next((each for each in plan.routes if each.name == call.decision.route), None)
            if route is None:
                await admit(plan, call.codec, call.facts, scope, call.request_id)
            else:
                await principal_of(route, call)
        finally:
            scope.close()

    async def _end(self) -> None:
        code, reason = self._said or (_NORMAL, "")
        if not self._response.closed:
            try:
                async with asyncio.timeout(2 * _CLOSE_S):
                    await self._response.close(code=code, message=_short(reason))
            except (TimeoutError, ConnectionError):
                pass
        await self._tell_provider()

    async def _tell_provider(self) -> None:
        code, reason = self._theirs
        try:
            async with asyncio.timeout(2 * _CLOSE_S):
                await self._line.close(code, _short(reason).decode())
        except TimeoutError:
            pass  # the scope closes it


def _headers_of_call(headers: dict[str, str], offered: list[str]) -> dict[str, str]:
    """Return the headers without those that make a handshake, the key of a subprotocol among them as a header."""
    kept = {
        name: value
        for name, value in headers.items()
        if name not in ("connection", "upgrade") and not name.startswith("sec-websocket-")
    }
    key = next((each.removeprefix(_KEY) for each in offered if each.startswith(_KEY)), "")
    if key and not kept.get("authorization"):
        kept["authorization"] = f"Bearer {key}"
    return kept


def _short(reason: str) -> bytes:
    """Return a reason as a close frame may carry it: 123 bytes of whole letters."""
    return reason.encode()[:123].decode(errors="ignore").encode()
