"""Copies of calls that go elsewhere, beside the answer: read, told of in the log, and thrown away.

A copy has a scope, a record, a ledger and a deadline of its own: nothing of it is seen by the caller, its limits or its
trace, and it goes on when the caller has left. It is ended with the rules it was made by.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from time import monotonic
from typing import Final

import msgspec
from msgspec import Struct

from ..call import Aside, Attempt, Call
from ..errors import Cancelled, GatewayError, HouseError
from ..ir.event import CONTENT, Chunk, Usage, UsageReport
from ..relay.reply import Reply
from ..relay.scope import Clock, Scope
from ..units import milliseconds
from .hedge import Serve, branch_of, copied, may_be_doubled

_log: Final = logging.getLogger("headgate.shadow")
_NO_USAGE: Final = Usage()
CAUSE: Final = "shadow"
RATE: Final = 1024 * 1024
"""How many bytes a second of all the streams of a target's copies are read: some twenty times what a fast model says. A
provider that floods a copy is not to take the event loop from the calls that somebody waits for."""
BURST: Final = 256 * 1024
"""How many may come at once."""


class ShadowLine(Struct, omit_defaults=True):
    """What is said of a copy, under the request id of its call. ``time`` is Unix seconds when it began, ``outcome`` is ``ok``,
    ``cancelled`` or the kind of the error. ``lost`` are places of the request that did not reach the provider."""

    time: float
    shadow: bool
    request_id: str
    route: str
    target: str
    format: str
    stream: bool
    upstream: str
    model: str
    outcome: str
    duration_ms: float
    first_token_ms: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    usage_estimated: bool = False
    cost_usd: float | None = None
    attempts: list[Attempt] = []
    lost: list[str] = []


class Shadows:
    """Makes the copies of one target. ``made`` and ``left_out`` count them, those for which there was no room apart."""

    def __init__(
        self, share: float, at_once: int, timeout_s: float, choose: Callable[[], float] = random.random
    ) -> None:
        self.made = 0
        self.left_out = 0
        self._share = share
        self._at_once = at_once
        self._timeout_s = timeout_s
        self._choose = choose
        self._clock = Clock()
        self._pace = _Pace()
        self._scopes: dict[Scope, asyncio.Task[None]] = {}
        self._stopped = False
        self._full = False

    async def stop(self) -> None:
        """End those under way."""
        self._stopped = True
        for scope in list(self._scopes):
            await scope.aclose()
        self._clock.close()

    def wants(self, call: Call) -> bool:
        """Whether a copy of ``call`` is to be made. Not of what is sent once more already, and not of what cannot be."""
        if call.cause or self._choose() >= self._share or not may_be_doubled(call):
            return False
        if self._stopped:
            return False
        if len(self._scopes) >= self._at_once:
            if not self._full:
                _log.warning("%d copies are under way: no more are made until one is over", self._at_once)
            self._full = True
            self.left_out += 1
            return False
        self._full = False
        return True

    def begin(self, call: Call, serve: Serve) -> None:
        """Make a copy of ``call``, which ``serve`` answers."""
        scope = Scope(self._clock)
        self.made += 1
        now = monotonic()
        copy = branch_of(call, CAUSE, copied(call.ledger)).replace(
            scope=scope,
            began=now,
            began_unix=time.time(),
            deadline=now + self._timeout_s,
            wants_usage=True,
            trace=None,
            payer=None,
            aside=Aside(),
        )
        decision = copy.decision
        decision.notes.append(CAUSE)
        self._scopes[scope] = scope.spawn(self._serve(copy, serve))

    async def _serve(self, call: Call, serve: Serve) -> None:
        heard = _Heard(call, self._pace)
        scope = call.scope
        try:
            with scope.limit(call.deadline, "timeout.total", "the copy was not answered in time"):
                reply = await serve(call)
                await heard.all_of(reply)
        except GatewayError as error:
            heard.error = error
        except asyncio.CancelledError:
            heard.error = Cancelled("the rules it was made by are no more")
            raise
        except BaseException:
            heard.error = HouseError("an internal error")
            raise  # the scope logs it
        finally:
            self._scopes.pop(scope, None)
            _log.info("%s", _encoded(heard.line()))
            scope.loop.call_soon(scope.close)


def _encoded(line: ShadowLine) -> str:
    try:
        return msgspec.json.encode(line).decode()
    except UnicodeEncodeError:  # a provider's header that is no UTF-8
        return json.dumps(msgspec.to_builtins(line))


class _Pace:
    """A bucket of bytes, which fills by RATE up to BURST."""

    __slots__ = ("_full_at",)

    def __init__(self) -> None:
        self._full_at = 0.0

    def wait_s(self, size: int, now: float) -> float:
        """Return how long nothing more is to be read, after ``size`` bytes that came ``now``."""
        self._full_at = max(self._full_at, now) + size / RATE
        return self._full_at - now - BURST / RATE


class _Heard:
    """A Sink[Chunk] that keeps nothing but what the line says."""

    __slots__ = ("error", "_call", "_pace", "_reply", "_pausing", "_usage", "_last", "_first_s", "_ended")

    def __init__(self, call: Call, pace: _Pace) -> None:
        self.error: GatewayError | None = None
        self._call = call
        self._pace = pace
        self._reply: Reply | None = None
        self._pausing: asyncio.TimerHandle | None = None
        self._usage: Usage | None = None
        self._last: Chunk | None = None
        self._first_s: float | None = None
        self._ended: asyncio.Future[None] = call.scope.loop.create_future()

    async def all_of(self, reply: Reply) -> None:
        """Hear an answer to its end."""
        self._reply = reply
        try:
            reply.connect(self)
            await self._ended
        except BaseException:
            reply.abort()
            raise
        finally:
            self._reply = None
            if self._pausing is not None:
                self._pausing.cancel()

    def push(self, chunk: Chunk, /) -> None:
        """Look at a chunk."""
        if chunk.is_whole:
            self._usage = chunk.usage
            return
        self._last = chunk
        loop = self._call.scope.loop
        now = monotonic()
        for event in chunk.events:
            if self._first_s is None and isinstance(event, CONTENT):
                self._first_s = now
            if type(event) is UsageReport:
                self._usage = event.usage
        if (wait_s := self._pace.wait_s(chunk.size, now)) > 0 and self._reply is not None and self._pausing is None:
            self._reply.pause()
            self._pausing = loop.call_later(wait_s, self._go_on)

    def _go_on(self) -> None:
        self._pausing = None
        if self._reply is not None:
            self._reply.resume()

    def end(self, error: GatewayError | None, /) -> None:
        """The answer is over."""
        self.error = error
        if not self._ended.done():
            self._ended.set_result(None)

    def line(self) -> ShadowLine:
        """Return what is said of it."""
        call, error, usage = self._call, self.error, self._usage
        decision, began = call.decision, call.began
        if error is not None and self._last is not None:
            usage = self._last.usage or usage  # told beside the events
        spent = usage or _NO_USAGE
        return ShadowLine(
            call.began_unix,
            True,
            call.request_id,
            decision.route,
            decision.target,
            call.codec.format,
            call.peek.stream,
            decision.upstream,
            decision.model,
            "ok" if error is None else error.kind,
            milliseconds(monotonic() - began),
            None if self._first_s is None else milliseconds(self._first_s - began),
            spent.input_tokens,
            spent.output_tokens,
            spent.cache_read_input_tokens,
            spent.reasoning_output_tokens,
            spent.estimated,
            decision.cost_usd,
            decision.attempts,
            [loss.path for loss in call.ledger.lost],
        )
