"""What the relay suite stands on: a scripted source, a remembering sink, stages that can be made to misbehave."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import pytest
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
    Wire,
)
from headgate.gateway.ir.fold import Response, fold
from headgate.gateway.ir.message import Text
from headgate.gateway.relay.reply import Decide, Reply
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.relay.source import Listed, Sink
from headgate.gateway.relay.splice import End
from headgate.gateway.relay.stage import Stop

WIRE = Wire("test", "sse")


def say(text: str, index: int = 0, raw: bool = True) -> Chunk:
    """A chunk of one delta, with bytes that say the same."""
    return Chunk((PartDelta(index, text),), text.encode() if raw else None, WIRE)


def of(*events: Event, raw: bytes | None = b"raw") -> Chunk:
    return Chunk(events, raw, WIRE)


START = of(PartStart(0, Text("")), raw=b"<start>")
STOP = of(PartStop(0), ChoiceStop("stop", "stop"), raw=b"<stop>")


class Script:
    """A source that a test drives by hand, and that notes what is asked of it. ``early`` is said inside connect()."""

    def __init__(self, *early: Chunk | GatewayError | None) -> None:
        self.early = early
        self.sink: Sink[Chunk] | None = None
        self.heard: list[str] = []
        self.paused = False
        self.aborted = False
        self.on_resume: Callable[[], object] = lambda: None

    def connect(self, sink: Sink[Chunk], /) -> None:
        assert self.sink is None and not self.aborted, "connect() twice, or after abort()"
        self.heard.append("connect")
        self.sink = sink
        for item in self.early:
            if isinstance(item, Chunk):
                self.push(item)
            else:
                self.end(item)

    def pause(self) -> None:
        self.heard.append("pause")
        self.paused = True

    def resume(self) -> None:
        self.heard.append("resume")
        self.paused = False
        self.on_resume()

    def abort(self) -> None:
        self.heard.append("abort")
        self.aborted = True
        self.sink = None

    def push(self, *chunks: Chunk) -> None:
        for chunk in chunks:
            if self.sink is not None:
                self.sink.push(chunk)

    def end(self, error: GatewayError | None = None) -> None:
        if self.sink is not None:
            sink, self.sink = self.sink, None
            sink.end(error)


class Ear:
    """A sink that remembers, checks the contract, and may act on each push."""

    def __init__(self, on_push: Callable[[Chunk], object] = lambda chunk: None) -> None:
        self.chunks: list[Chunk] = []
        self.ends = 0
        self.error: GatewayError | None = None
        self.on_push = on_push
        self.deaf = False

    def push(self, chunk: Chunk, /) -> None:
        assert not self.ends, "push after end"
        assert not self.deaf, "push after abort"
        self.chunks.append(chunk)
        self.on_push(chunk)

    def end(self, error: GatewayError | None, /) -> None:
        assert not self.deaf, "end after abort"
        self.ends += 1
        self.error = error

    @property
    def events(self) -> list[Event]:
        return [event for chunk in self.chunks for event in chunk.events]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, PartDelta))

    @property
    def raw(self) -> bytes:
        return b"".join(chunk.raw or b"?" for chunk in self.chunks)

    @property
    def answer(self) -> Response:
        return fold(self.events)


class Mark:
    """A stage that appends its name to every delta; may hold back, raise, stop, or leave a tail."""

    def __init__(
        self,
        name: str,
        *,
        tail: str = "",
        hold: bool = False,
        raise_on: str = "",
        raise_in_close: bool = False,
        stop_on: str = "",
        stop_empty: bool = False,
        fault: Exception | None = None,
    ) -> None:
        self.name = name
        self.tail = tail
        self.hold = hold
        self.raise_on = raise_on
        self.raise_in_close = raise_in_close
        self.stop_on = stop_on
        self.stop_empty = stop_empty
        self.fault = fault or ValueError(name)
        self.fed = 0
        self.closed: list[str] = []

    def feed(self, chunk: Chunk, /) -> Chunk | Stop | None:
        assert not self.closed, "feed after close"
        self.fed += 1
        text = "".join(event.text for event in chunk.events if isinstance(event, PartDelta))
        if self.raise_on and self.raise_on in text:
            raise self.fault
        if self.hold:
            return None
        out = (
            say(text + self.name)
            if any(isinstance(event, PartDelta) for event in chunk.events) and self.name
            else chunk
        )
        if self.stop_on and self.stop_on in text:
            return Stop() if self.stop_empty else Stop(out)
        return out

    def close(self, error: GatewayError | None, /) -> Chunk | None:
        self.closed.append("clean" if error is None else error.kind)
        if self.raise_in_close:
            raise self.fault
        return say(self.tail) if self.tail else None


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock(tick_s=0.01)
    yield made
    made.close()


@pytest.fixture
async def scope(clock: Clock) -> AsyncIterator[Scope]:
    made = Scope(clock)
    yield made
    await made.aclose()


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """Every test ends without a task of its own and without an unhandled error of the loop."""
    before = asyncio.all_tasks()
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    yield
    await settle()
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
    gc.collect(1)
    assert unhandled == []


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(8):
        await asyncio.sleep(0)


async def soon(work: Awaitable[object]) -> object:
    """Await ``work``, which must not take long."""
    async with asyncio.timeout(2):
        return await work


# -- rounds of an answer, for then()


def text(words: str, index: int = 0, choice: int = 0) -> list[Event]:
    return [PartStart(index, Text(""), choice), PartDelta(index, words, choice), PartStop(index, choice)]


def answer(
    *parts: Sequence[Event], reason: StopReason = "stop", used: Usage | None = None, name: str = "a"
) -> list[Event]:
    """The events of one round, as a provider would tell them."""
    usage = [] if used is None else [UsageReport(used)]
    said = [event for part in parts for event in part]
    return [ResponseStart(name), *said, ChoiceStop(reason, reason), *usage, ResponseStop(), Terminator()]


def each(events: Sequence[Event]) -> list[Chunk]:
    """One chunk for each event, with bytes of its own."""
    return [Chunk((event,), f"<{type(event).__name__}>".encode(), WIRE) for event in events]


def together(events: Sequence[Event]) -> list[Chunk]:
    return [of(*events)]


def rounds(scope: Scope, *following: list[Chunk], error: GatewayError | None = None) -> Decide:
    """Decide in favour of each of ``following`` in turn; the first of them ends with ``error``."""
    left = list(following)

    def decide(end: End) -> Awaitable[Reply | None] | None:
        if not left:
            return None
        chunks = left.pop(0)

        async def go_on() -> Reply:
            return Reply(Listed(chunks, error), scope)

        return go_on()

    return decide


async def spliced(
    scope: Scope,
    *of_rounds: Sequence[Event],
    cut: Callable[[Sequence[Event]], list[Chunk]] = each,
    first_error: GatewayError | None = None,
) -> Ear:
    """Run rounds through a splice and check what every reader relies on."""
    ear = Ear()
    first, *rest = (cut(events) for events in of_rounds)
    Reply(Listed(first, first_error), scope).then(rounds(scope, *rest)).connect(ear)
    async with asyncio.timeout(2):
        while not ear.ends:
            await asyncio.sleep(0)
    well_formed(ear.events, clean=ear.error is None)
    return ear


def well_formed(events: Sequence[Event], *, clean: bool = True) -> None:
    """Assert the order that gateway/ir/event.py promises."""
    open_parts: dict[int, int] = {}
    started: list[int] = []
    stopped: set[int] = set()
    for event in events:
        if isinstance(event, PartStart):
            assert event.index == len(started), "parts are numbered on"
            assert event.choice not in stopped
            started.append(event.index)
            open_parts[event.index] = event.choice
        elif isinstance(event, PartDelta | PartPatch):
            assert event.index in open_parts, f"{event} outside its part"
        elif isinstance(event, PartStop):
            del open_parts[event.index]
        elif isinstance(event, ChoiceStop):
            assert event.choice not in stopped, "one end for each choice"
            assert event.choice not in open_parts.values(), "the parts of a choice stop before it does"
            stopped.add(event.choice)
    assert sum(isinstance(event, ResponseStart) for event in events) <= 1
    assert sum(isinstance(event, Terminator) for event in events) <= 1
    assert not any(isinstance(event, Terminator) for event in events[:-1]), "the terminator is last"
    if clean:
        assert open_parts == {}
