"""The answer of a call: a source of chunks with stages, itself a source, so that it nests.

States, and what is legal in each:

========  ======================  =================================================================
state     entered by              legal
========  ======================  =================================================================
new       the constructor         through, then, opened, connect, collect, pause, abort
opening   ``opened()``            the same; chunks pass the stages so far into a buffer, bounded
flowing   ``connect()``           pause, resume, abort, also from inside push; nothing is held any more
over      the source's end        pause, resume, abort (nothing happens): stages were closed, links are dropped
closed    ``abort()``             the same: the sink hears nothing, stages heard ``cancelled``; opened() raises
========  ======================  =================================================================

A source may run while neither the reader (``pause``) nor the bound on what is held objects: two reasons, kept apart.
Whoever waits for a reply is woken with ``Cancelled`` when its scope closes.

``connect``, ``opened``, ``collect`` and iteration are for the one consumer; ``through`` and ``then`` for whoever holds the
reply before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ..errors import Cancelled, GatewayError
from ..ir.event import CONTENT, Chunk
from .hearing import Hearing, Listener
from .scope import Scope, as_gateway_error
from .source import GONE, Listed, Sink, Source
from .stage import Ending, Stage, Stop

if TYPE_CHECKING:
    from ..call import Call
    from .splice import End

HOLD_BYTES: Final = 256 * 1024
"""What ``opened`` may hold back while it waits for content: beyond this the answer counts as opened (law 8)."""

Decide = Callable[["End"], "Awaitable[Reply | None] | None"]


class _State(Enum):
    NEW = "new"
    OPENING = "opening"
    FLOWING = "flowing"
    OVER = "over"
    CLOSED = "closed"


_NEW, _OPENING, _FLOWING, _OVER, _CLOSED = _State


class _GoneSink:
    """Stands where a sink was."""

    def push(self, chunk: Chunk, /) -> None:
        """Nobody listens."""

    def end(self, error: GatewayError | None, /) -> None:
        """Nobody listens."""


GONE_SINK: Final = _GoneSink()
EMPTY: Final[deque[Chunk]] = deque(maxlen=0)


class Reply(Struct, eq=False):
    """An answer on its way back. ``status`` and ``headers`` are what the caller will see of the provider's. ``complete`` is the
    whole answer as the provider gave it, if it is there already: what stages make of it is yet to come.

    A Struct, since there is one for every call, and one more for much of what stands in its chain.
    """

    _source: Source[Chunk]
    scope: Scope
    status: int = 200
    headers: Mapping[str, str] = {}
    complete: Chunk | None = None
    _has_content: bool = False
    _hearing: Hearing | None = None
    """What hears a complete answer before all stages. It becomes the first of them unless the answer is taken as it is."""
    _stages: list[Stage | Ending] = []
    _feeds: list[Callable[[Chunk], Chunk | Stop | None]] = []
    _state: _State = _NEW
    _sink: Sink[Chunk] = GONE_SINK
    _holding: bool = False
    _held: deque[Chunk] = EMPTY
    _held_bytes: int = 0
    _passed: int = 0  # stages, and feeds of stages, that opened() lets everything pass
    _fed: int = 0
    _ended: bool = False
    _error: GatewayError | None = None
    _waiter: asyncio.Future[None] | None = None
    _paused: bool = False
    _full: bool = False
    _flushing: bool = False

    @classmethod
    def whole(cls, chunk: Chunk, scope: Scope, status: int = 200, headers: Mapping[str, str] = {}) -> Reply:
        """Return a reply that is complete already: the same events at once, without the machinery of a stream."""
        return cls(GONE, scope, status, headers, chunk, True)

    @classmethod
    def begun(cls, source: Source[Chunk], scope: Scope, status: int = 200, headers: Mapping[str, str] = {}) -> Reply:
        """Return a reply whose headers are all that anybody waits for: nobody reads in it when its content begins."""
        return cls(source, scope, status, headers, None, True)

    @classmethod
    def pump(cls, chunks: AsyncIterator[Chunk], scope: Scope, status: int = 200) -> Reply:
        """Return a reply fed by an async iterator, for middlewares and adapters written in pull form."""
        from .pull import Pump

        return cls(Pump(chunks, scope), scope, status)

    def __repr__(self) -> str:
        # A Struct would show the words of the conversation to whoever logs it.
        return f"Reply({self.status}, {self._state.value})"

    # -- before the flow

    @property
    def settled(self) -> Chunk | None:
        """What is complete, if no stage so far wants to see it."""
        return None if self._stages or self._hearing is not None else self.complete

    def through(self, stage: Stage) -> Reply:
        """Let every chunk from here on pass ``stage``, after the stages so far. Returns self."""
        assert self._state in (_NEW, _OPENING), f"through() on a reply that is {self._state.value}"
        self._stages.append(stage)
        self._feeds.append(stage.feed)
        return self

    def until(self, ending: Ending) -> Reply:
        """Let ``ending`` know when the answer is over, after the stages so far. Returns self."""
        assert self._state in (_NEW, _OPENING), f"until() on a reply that is {self._state.value}"
        self._stages.append(ending)
        return self

    def hearing(self, call: Call, listener: Listener) -> Hearing:
        """Return what hears the answer after the stages so far, and tells ``listener`` when it is over."""
        stages, first = self._stages, self._hearing
        if not stages:
            if first is not None:
                first.listeners.append(listener)
                return first
            if self.complete is not None and self._state is _NEW:
                self._hearing = first = Hearing(call, [listener])
                return first
        elif type(last := stages[-1]) is Hearing and len(stages) > self._passed:
            last.listeners.append(listener)
            return last
        assert self._state in (_NEW, _OPENING), f"hearing() on a reply that is {self._state.value}"
        hearing = Hearing(call, [listener])
        stages.append(hearing)
        self._feeds.append(hearing.feed)
        return hearing

    def then(self, decide: Decide) -> Reply:
        """Return a new reply that asks ``decide`` at the end of this one whether, and with what, to go on."""
        from .splice import Splice

        assert self._state in (_NEW, _OPENING), f"then() on a reply that is {self._state.value}"
        return Reply(Splice(self, decide), self.scope, self.status, self.headers)

    async def opened(self) -> Reply:
        """Wait for the first content. Raises the error that came instead, and the reply is closed then.

        Raises Cancelled when somebody closed the reply, or its scope, meanwhile.
        """
        assert self._state in (_NEW, _OPENING, _CLOSED), f"opened() on a reply that is {self._state.value}"
        if self.complete is not None:
            return self
        if self._state is _NEW:
            self._state = _OPENING
            self._holding = True
            self._passed, self._fed = len(self._stages), len(self._feeds)
            self._held = deque()
            self._source.connect(self)
        # The source may have ended inside connect(): look before waiting, or nobody would ever wake us.
        if not self._has_content and not self._ended and self._state is _OPENING:
            await self._wait()
        if self._ended and self._error is not None and not self._has_content:
            error, self._error = self._error, None
            self.abort()
            try:
                raise error
            finally:
                del error  # it holds this frame: a cycle otherwise
        if self._state is _CLOSED:
            raise Cancelled("the answer was closed before it began")
        return self

    async def _wait(self) -> None:
        items = self.scope.items
        if self.scope.closed:
            self.abort()
            return
        self._waiter = self.scope.loop.create_future()
        items.add(self)
        try:
            await self._waiter
        except BaseException:
            self.abort()
            raise
        finally:
            self._waiter = None
            items.discard(self)

    # -- a source, outward

    def connect(self, sink: Sink[Chunk], /) -> None:
        """Let it flow to ``sink``, held chunks first."""
        assert self._state in (_NEW, _OPENING), f"connect() on a reply that is {self._state.value}"
        self._sink = sink
        if self._hearing is not None:
            self._hear_first(self._hearing)
        if self.complete is not None:
            self._source, self.complete = Listed((self.complete,)), None
            if self._paused:
                self._source.pause()
        opening = self._state is _OPENING
        self._state = _FLOWING
        if opening:
            self._flush()
        else:
            self._source.connect(self)

    def pause(self) -> None:
        """Ask the source for silence."""
        self._paused = True
        self._source.pause()

    def resume(self) -> None:
        """Go on: held chunks first, then the source."""
        self._paused = False
        if self._holding and self._state is _FLOWING:
            self._flush()  # which lets the source go on, once nothing is held
        elif not self._full:
            self._source.resume()

    def abort(self) -> None:
        """Close the provider's connection and let the stages know. Idempotent."""
        if self._state in (_OVER, _CLOSED):
            self._sink = GONE_SINK  # it may be in the middle of hearing the stages' tails
            return
        self._state = _CLOSED
        self._holding = True
        if self._hearing is not None:
            self._hear_first(self._hearing)
        source, self._source = self._source, GONE
        self._sink = GONE_SINK
        self._held = EMPTY
        self.complete = None
        source.abort()
        self._wake()
        # Stages that opened() let everything pass were closed when the source ended.
        first = self._passed if self._ended else 0
        self._close_stages(Cancelled("nobody wanted the rest of the answer"), first, len(self._stages), None)

    async def aclose(self) -> None:
        """The same as abort, for ``async with`` and ``contextlib.aclosing``."""
        self.abort()

    # -- a sink, inward

    def push(self, chunk: Chunk, /) -> None:
        """Take a chunk from the source."""
        if self._holding:
            self._hold(chunk)
            return
        stopped = False
        try:
            for feed in self._feeds:
                passed = feed(chunk)
                if passed is chunk:
                    continue
                if type(passed) is Stop:
                    stopped = True
                    passed = passed.chunk
                if passed is None:
                    break
                chunk = passed  # type: ignore[assignment]  # not a Stop: tested by exact type above
            else:
                self._sink.push(chunk)
        except Exception as fault:
            self._break(fault)
            return
        if stopped:
            self._stop_early()

    def end(self, error: GatewayError | None, /) -> None:
        """Hear from the source that it is over."""
        if self._ended or self._state in (_OVER, _CLOSED):
            return
        if not self._holding:
            self._finish(error, 0)
            return
        self._ended = True
        self._source = GONE
        self._error = error = self._close_stages(error, 0, self._passed, self._held.append)
        if self._state is _OPENING:
            if error is None:
                self._has_content = True
            self._wake()
        else:
            self._flush()

    # -- inside

    def _hold(self, chunk: Chunk) -> None:
        if self._state in (_OVER, _CLOSED):
            return
        stopped = False
        try:
            for feed in self._feeds[: self._fed]:
                passed = feed(chunk)
                if type(passed) is Stop:
                    stopped = True
                    passed = passed.chunk
                if passed is None:
                    break
                chunk = passed  # type: ignore[assignment]  # as in push
            else:
                self._held.append(chunk)
                self._held_bytes += chunk.size
                if self._held_bytes > HOLD_BYTES:
                    self._full = True
                    self._source.pause()
                if not self._has_content and (self._full or any(isinstance(event, CONTENT) for event in chunk.events)):
                    self._has_content = True
                    self._wake()
        except Exception as fault:
            self._break(fault)
            return
        if stopped and self._state is not _CLOSED:
            self._source.abort()
            self.end(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _flush(self) -> None:
        """Give what opened() held to the stages added since and to the sink, honouring pause after each chunk.

        Meanwhile the source may push and end, when the sink resumes it: that queues up behind.
        """
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._held and not self._paused:
                chunk = self._held.popleft()
                self._held_bytes -= chunk.size
                if self._pass_on(chunk):
                    self._stop_early()
        except Exception as fault:
            self._break(fault, now=True)
        finally:
            self._flushing = False
        if self._held or self._paused or self._state is not _FLOWING:
            return
        if self._ended:
            self._finish(self._error, self._passed)
        else:
            self._holding = False
            self._full = False
            self._source.resume()

    def _pass_on(self, chunk: Chunk) -> bool:
        """Give a held chunk to the stages that have not seen it, and to the sink. Return whether one has seen enough."""
        stopped = False
        for feed in self._feeds[self._fed :]:
            passed = feed(chunk)
            if type(passed) is Stop:
                stopped = True
                passed = passed.chunk
            if passed is None:
                return stopped
            chunk = passed  # type: ignore[assignment]  # as in push
        self._sink.push(chunk)
        return stopped

    def _stop_early(self) -> None:
        """A stage has seen enough: close the source and end cleanly."""
        if self._state is not _FLOWING:
            return
        self._source.abort()
        self._finish(None, self._passed if self._ended else 0)

    def _finish(self, error: GatewayError | None, first: int) -> None:
        self._state = _OVER
        self._holding = True
        self._held = EMPTY
        # Not to one and the same sink: it may abort in the middle, and hears nothing more then.
        error = self._close_stages(error, first, len(self._stages), lambda tail: self._sink.push(tail))
        # Both links go, or every request would leave a reference cycle to the garbage collector.
        sink, self._sink = self._sink, GONE_SINK
        self._source = GONE
        self._error = None
        sink.end(error)

    def _close_stages(
        self, error: GatewayError | None, first: int, last: int, out: Callable[[Chunk], object] | None
    ) -> GatewayError | None:
        """Close stages [first, last) in order; the tail of each flows through those after it, then to ``out``.

        Return how the answer ends now: a stage that raises spoils a clean end.
        """
        stages = self._stages
        for number in range(first, last):
            try:
                tail: Chunk | Stop | None = stages[number].close(error)
                if tail is None:
                    continue
                for feed in [stage.feed for stage in stages[number + 1 : last] if hasattr(stage, "feed")]:
                    if type(tail) is Stop:
                        tail = tail.chunk
                    if tail is None:
                        break
                    tail = feed(tail)  # type: ignore[arg-type]  # not a Stop any more
                if type(tail) is Stop:
                    tail = tail.chunk
                if tail is not None and out is not None:
                    out(tail)  # type: ignore[arg-type]  # as above
            except Exception as fault:
                spoilt = as_gateway_error(fault)
                error = error or spoilt
        return error

    def _break(self, fault: Exception, *, now: bool = False) -> None:
        """A stage or the sink raised: nothing escapes into the provider's callback. What is held goes out before."""
        error = as_gateway_error(fault)
        self._source.abort()
        if self._state is _FLOWING and (now or not self._holding):
            self._finish(error, self._passed if self._ended else 0)
        else:
            self.end(error)

    # -- pull form

    def __aiter__(self) -> AsyncIterator[Chunk]:
        from .pull import iterate

        return iterate(self)

    def gathered(self) -> list[Chunk] | None:
        """Return every chunk if the answer is complete already, None if it must be waited for: see ``collect``."""
        if self.complete is not None and self._state is _NEW and not self._paused:
            return self._collect_whole(self.complete)
        return None

    async def collect(self) -> list[Chunk]:
        """Return every chunk. Raises the error the stream ended with."""
        if (chunks := self.gathered()) is not None:
            return chunks
        from .pull import collect

        return await collect(self)

    def _collect_whole(self, chunk: Chunk) -> list[Chunk]:
        if self._hearing is not None:
            if not self._stages:
                return self._hear_alone(self._hearing, chunk)
            self._hear_first(self._hearing)
        elif not self._stages:
            self._state = _OVER
            return [chunk]
        # What connect and a source of one chunk would do, without either.
        self.complete, self._state = None, _FLOWING
        error: GatewayError | None = None
        chunks = [chunk]
        try:
            for feed in self._feeds:
                passed = feed(chunk)
                if passed is chunk:
                    continue
                if type(passed) is Stop:
                    passed = passed.chunk
                if passed is None:
                    chunks.clear()
                    break
                chunks[0] = chunk = passed  # type: ignore[assignment]  # not a Stop: tested by exact type above
        except Exception as fault:
            error = as_gateway_error(fault)
            chunks.clear()
        if self._state is _FLOWING:
            self._state, self._holding = _OVER, True
            error = self._close_stages(error, 0, len(self._stages), chunks.append)
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame: a cycle otherwise
        return chunks

    def _hear_first(self, hearing: Hearing) -> None:
        """Let ``hearing`` be a stage, before all others."""
        self._hearing = None
        self._stages.insert(0, hearing)
        self._feeds.insert(0, hearing.feed)

    def _hear_alone(self, hearing: Hearing, chunk: Chunk) -> list[Chunk]:
        """Tell ``hearing``, the only one that wants to know, of an answer that is taken whole."""
        self._hearing = self.complete = None
        self._state = _OVER
        error: GatewayError | None = None
        try:
            hearing.feed(chunk)
        except Exception as fault:
            error = as_gateway_error(fault)
        try:
            hearing.close(error)
        except Exception as fault:
            error = error or as_gateway_error(fault)
        if error is not None:
            try:
                raise error
            finally:
                del error  # it holds this frame: a cycle otherwise
        return [chunk]
