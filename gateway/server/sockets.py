"""WebSockets at the doors of calls: each message of the client is a turn, served as any call, its events are messages.

A socket is one reader, which never waits for a turn, and a task for each turn under way: turns of one lane one after the
other, which is all that formats other than openai.responses have. Everything about it is bounded, see ``Limits``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from aiohttp import WSMsgType, web
from msgspec import Struct

from .. import registry
from ..codecs.base import Codec, RequestFacts
from ..doors import EXACT
from ..errors import CallerError, GatewayError, Overloaded
from ..relay.outbox import outbox_of
from ..relay.scope import as_gateway_error
from ..responses.errors import FORMAT as RESPONSES
from ..responses.memory import Lane, Memory
from .calls import Calls
from .gateway import Gateway
from .intake import abandon_body, read_headers, request_id_of, without_subprotocols
from .messages import Line, refusal
from .models import admit
from .pages import Pages
from .turns import Steer, Turn, lifetime_over, read_message, too_many_lanes, unsteered
from .visible import Views
from .whole import WholeAnswer

_log: Final = logging.getLogger("headgate.server")
_NORMAL, _GOING_AWAY, _BINARY, _POLICY, _INTERNAL = 1000, 1001, 1003, 1008, 1011
_CALM_BYTES: Final = 16 * 1024
"""With more than this waiting to be taken, a ping or a pong would wait behind it, and so would the reader."""
_HANDSHAKE: Final = frozenset({"connection", "upgrade", "content-length", "content-type", "x-request-id", "origin"})
"""Headers of the handshake that say nothing of its turns."""


class Limits(Struct, frozen=True):
    """What one socket may take. Times are in seconds."""

    heartbeat_s: float = 30.0
    """Silence of the client after which it is pinged."""
    pong_s: float = 30.0
    """How long it may take to answer that; a client with a turn under way may be busy, and has the call's deadline."""
    idle_s: float = 900.0
    """How long it may ask for nothing, alive or not."""
    life_s: float = 3600.0
    """The age at which no turn begins any more, as at OpenAI."""
    stall_s: float = 300.0
    """How long a client may take nothing of what waits for it."""
    close_s: float = 2.0
    """How long it may take to say goodbye."""
    running: int = 16
    """Turns under way, each in a lane of its own, as at OpenAI."""
    lanes: int = 32
    """Lanes with a name, as at OpenAI."""
    waiting: int = 16
    """Messages that wait for their turn; together no larger than ``server.max_body``."""


LIMITS: Limits = Limits()
Work = Callable[[], Awaitable[None]]


class Sockets:
    """Opens the sockets of one gateway, and knows those that are open."""

    def __init__(self, gateway: Gateway, views: Views, calls: Calls, pages: Pages) -> None:
        self.gateway = gateway
        self.calls = calls
        self._views = views
        self._pages = pages
        self._open: set[Socket] = set()
        self._shut = False
        gateway.drains.append(self._look)

    @property
    def closing(self) -> bool:
        """Whether sockets close as soon as no turn is under way."""
        return self._shut or self.gateway.draining

    async def shut(self, _: object = None) -> None:
        """Close every socket, those with a turn under way after it: a host ends."""
        self._shut = True
        self._look()

    def _look(self) -> None:
        for socket in self._open:
            socket.wake()

    async def serve(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Serve the GET of a door: as a socket if that is what it asks for."""
        if request.headers.get("Upgrade", "").strip().lower() != "websocket":
            return await self._pages.nowhere(request, path)
        codec, limits = registry.codec(EXACT[path]), LIMITS
        presented = request.headers.get("x-request-id")
        request_id = request_id_of(presented)
        visible = self._views.of(request)
        scope, plan = self.gateway.open_scope()
        try:
            headers = read_headers(request, plan.server.max_header)
            if self.closing:
                raise Overloaded("this gateway is about to end: connect anew", kind="unavailable")
            self._views.check_origin(request)
            facts = RequestFacts(request.path, dict(request.query), headers)
            await admit(plan, codec, facts, scope, request_id)
            response: web.WebSocketResponse[Any] = web.WebSocketResponse(
                timeout=limits.close_s,
                autoping=False,
                compress=False,
                max_msg_size=plan.server.max_body + 1,  # aiohttp refuses what is as large as this
                decode_text=False,
            )
            bare = without_subprotocols(request)
            if not response.can_prepare(bare):
                error = CallerError("this is no WebSocket handshake of version 13", status=426)
                error.headers = {"Sec-WebSocket-Version": "13", "Upgrade": "websocket"}
                raise error
        except Exception as fault:  # as in Calls.serve: an authenticator may be a stranger's
            abandon_body(request)
            return self.calls.refuse(codec, as_gateway_error(fault), request_id, visible)
        finally:
            scope.close()
        response.headers.update(visible.headers(None, {"x-request-id": request_id}))
        writer = await response.prepare(bare)
        transport = request.transport
        if transport is None:
            return response
        line = Line(response, transport, writer, limits.stall_s)
        socket = Socket(self, codec, response, line, facts, request.remote, request_id, limits, plan.server.max_body)
        self._open.add(socket)
        try:
            await socket.run()
        finally:
            self._open.discard(socket)
        return response


class Socket:
    """One client, from the handshake to the last word."""

    def __init__(
        self,
        sockets: Sockets,
        codec: Codec,
        response: web.WebSocketResponse[Any],
        line: Line,
        facts: RequestFacts,
        remote: str | None,
        request_id: str,
        limits: Limits,
        max_bytes: int,
    ) -> None:
        self._sockets = sockets
        self._codec = codec
        self._response = response
        self._line = line
        self._facts = facts
        self._headers = _headers_of_turns(facts.headers)
        self._remote = remote
        self._request_id = request_id
        self._limits = limits
        self._max_bytes = max_bytes
        self._memory = Memory(max_bytes)
        self._lanes: set[str] = set()
        self._turns = 0
        self._running: dict[str, asyncio.Task[None]] = {}
        self._waiting: deque[tuple[str, Work, int]] = deque()
        self._waiting_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._opened = self._heard = self._pinged = self._idle_since = self._loop.time()
        self._alarm: asyncio.Timeout | None = None
        self._ending: tuple[int, str] | None = None

    async def run(self) -> None:
        """Serve the client until either side ends it. Nothing is left open."""
        try:
            while (message := await self._receive()) is not None:
                self._take(message)
        except ConnectionResetError:
            pass  # the client left while it was answered
        finally:
            await self._end()

    def wake(self) -> None:
        """Have the reader look at the time, and at whether it is to go on."""
        if self._alarm is not None and not self._alarm.expired():
            self._alarm.reschedule(self._loop.time())

    def _close(self, code: int, reason: str) -> None:
        """End the socket, the turns under way included."""
        if self._ending is None:
            self._ending = code, reason
            self.wake()

    async def _end(self) -> None:
        self._waiting.clear()
        turns = list(self._running.values())
        for turn in turns:
            turn.cancel()
        if turns:
            await asyncio.wait(turns)
        code, reason = self._ending or (_GOING_AWAY, "")
        try:
            async with asyncio.timeout(2 * self._limits.close_s):
                if not self._line.gone:
                    await self._response.close(code=code, message=reason.encode())
        except TimeoutError:
            pass
        finally:
            if self._line.transport.get_write_buffer_size():  # a client that does not read would never let it end
                self._line.transport.abort()

    # -- the reader

    async def _receive(self) -> bytes | None:
        """Return the next message, None once there is none."""
        while self._ending is None:
            try:
                async with asyncio.timeout_at(self._due()) as self._alarm:
                    heard = await self._response.receive()
            except TimeoutError:
                await self._look()
                continue
            finally:
                self._alarm = None
            self._heard = self._loop.time()
            if heard.type is WSMsgType.TEXT:
                return heard.data  # type: ignore[no-any-return]  # bytes, since decode_text is off
            if heard.type is WSMsgType.BINARY:
                self._close(_BINARY, "send text messages")
            elif heard.type is WSMsgType.PING:
                if self._is_calm():
                    await self._response.pong(heard.data)
            elif heard.type is not WSMsgType.PONG:
                return None
        return None

    def _is_calm(self) -> bool:
        return not self._line.gone and self._line.transport.get_write_buffer_size() < _CALM_BYTES

    def _due(self) -> float:
        """When to look at the time next."""
        limits = self._limits
        due = self._pinged + limits.pong_s if self._pinged > self._heard else self._heard + limits.heartbeat_s
        if self._running:
            return due
        return min(due, self._idle_since + limits.idle_s, self._opened + limits.life_s)

    async def _look(self) -> None:
        """Look at the time."""
        now, limits = self._loop.time(), self._limits
        if not self._running:
            if self._sockets.closing:
                return self._close(_GOING_AWAY, "the gateway is about to end")
            if now >= self._opened + limits.life_s:
                self._tell(lifetime_over(limits.life_s / 60))
                return self._close(_NORMAL, "the connection is too old")
            if now >= self._idle_since + limits.idle_s:
                return self._close(_NORMAL, "idle")
        waits = self._pinged > self._heard
        if now < (self._pinged + limits.pong_s if waits else self._heard + limits.heartbeat_s):
            return None
        if waits and not self._running:
            self._line.transport.abort()
            return self._close(_GOING_AWAY, "")
        self._pinged = now
        if self._is_calm():
            await self._response.ping()
        return None

    # -- turns

    def _take(self, message: bytes) -> None:
        """Begin what ``message`` asks for, or let it wait."""
        if self._sockets.closing:
            self._close_when_over()
            return
        lane, work = "", None
        try:
            asked = read_message(self._codec.format, message)
            if isinstance(asked, Steer):
                self._line.say([unsteered(asked)])
                return
            lane = asked.lane
            self._check_room(lane)
        except GatewayError as error:
            work = partial(self._refuse, error)
        else:
            self._turns += 1
            headers = {**self._headers, "x-request-id": f"{self._request_id}-{self._turns}"}
            turn = Turn(
                self._line.transport,
                self._facts.path,
                headers,
                asked.body,
                self._remote,
                False,
                self._line.drain,
                outbox_of(self._loop),
                facts=RequestFacts(self._facts.path, self._facts.query, headers),
                line=self._line,
                lane=Lane(self._memory, lane, asked.warms) if self._codec.format == RESPONSES else None,
                stream_id=asked.stream_id,
                previous=asked.previous,
            )
            work = partial(self._serve, turn)
        if lane not in self._running and len(self._running) < self._limits.running:
            self._start(lane, work)
        elif len(self._waiting) < self._limits.waiting and self._waiting_bytes + len(message) <= self._max_bytes:
            self._waiting.append((lane, work, len(message)))
            self._waiting_bytes += len(message)
        else:
            self._close(_POLICY, "too many messages while a turn is under way")

    def _check_room(self, lane: str) -> None:
        """Raise CallerError if no turn may begin any more, or not in one lane more."""
        if self._loop.time() >= self._opened + self._limits.life_s:
            raise lifetime_over(self._limits.life_s / 60)
        if lane and lane not in self._lanes:
            if len(self._lanes) >= self._limits.lanes:
                raise too_many_lanes(self._limits.lanes)
            self._lanes.add(lane)

    def _start(self, lane: str, work: Work) -> None:
        task = self._loop.create_task(_run(work))
        self._running[lane] = task
        task.add_done_callback(partial(self._over, lane))

    def _over(self, lane: str, task: asyncio.Task[None]) -> None:
        """A turn is over: begin those that waited for it."""
        del self._running[lane]
        self._idle_since = self._loop.time()
        if not task.cancelled() and (fault := task.exception()) is not None:
            if not isinstance(fault, ConnectionResetError):
                _log.error("a turn on a socket failed: %r", fault, exc_info=fault)
            self._close(_INTERNAL, "internal error")
        if self._ending is None and not self._sockets.closing:
            self._begin_waiting()
        if not self._running:
            self._close_when_over()
            self.wake()

    def _begin_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for lane, work, size in waiting:
            if lane in self._running or len(self._running) >= self._limits.running:
                self._waiting.append((lane, work, size))
            else:
                self._waiting_bytes -= size
                self._start(lane, work)

    def _close_when_over(self) -> None:
        if self._sockets.closing and not self._running:
            self._close(_GOING_AWAY, "the gateway is about to end")

    async def _serve(self, turn: Turn) -> None:
        answer = await self._sockets.calls.serve(turn, self._codec)
        if isinstance(answer, WholeAnswer):
            status, failed = answer.status, answer.status >= 400
            if failed:
                body = refusal(self._codec.format, status, answer.headers, answer.content, turn.stream_id)
            else:
                body = answer.content
            self._line.say([body])
            await self._line.drain()
            if status == 401 and not await self._is_welcome():
                self._close(_POLICY, "this caller is not accepted any more")
        else:
            failed = answer.failed
        if failed and turn.previous:
            self._memory.forget(turn.previous)

    async def _is_welcome(self) -> bool:
        """Whether the rules in force still accept this caller."""
        scope, plan = self._sockets.gateway.open_scope()
        try:
            await admit(plan, self._codec, self._facts, scope, self._request_id)
        except GatewayError:
            return False
        finally:
            scope.close()
        return True

    async def _refuse(self, error: GatewayError) -> None:
        self._tell(error)
        await self._line.drain()

    def _tell(self, error: GatewayError) -> None:
        status, headers, body = self._codec.encode_error(error, self._request_id)
        self._line.say([refusal(self._codec.format, status, headers, body)])


async def _run(work: Work) -> None:
    await work()


def _headers_of_turns(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that the requests of a socket have: those of its handshake, but for what makes it one."""
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _HANDSHAKE and not name.startswith("sec-websocket-")
    }
    return {**kept, "content-type": "application/json"}
