"""Decoding: bytes of an exchange into chunks, a decoder's error as the end, and a stream's deadlines."""

from __future__ import annotations

import pytest
from headgate.gateway.errors import Cut, GatewayError, HouseError, Malformed, UpstreamError, UpstreamTimeout
from headgate.gateway.ir.event import Chunk, Event, Keepalive, PartDelta, ResponseStart, Terminator
from headgate.gateway.relay.decoding import LINGER_S, Decoding, StreamDeadlines
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.relay.source import Sink

from .conftest import WIRE, Ear


class Exchange:
    """Bytes by hand."""

    def __init__(self, *early: bytes | GatewayError | None) -> None:
        self.early = early
        self.sink: Sink[bytes] | None = None
        self.heard: list[str] = []

    def connect(self, sink: Sink[bytes], /) -> None:
        self.heard.append("connect")
        self.sink = sink
        for item in self.early:
            if self.sink is None:
                return
            if isinstance(item, bytes):
                self.sink.push(item)
            else:
                self.end(item)

    def push(self, data: bytes) -> None:
        if self.sink is not None:
            self.sink.push(data)

    def end(self, error: GatewayError | None = None) -> None:
        if self.sink is not None:
            sink, self.sink = self.sink, None
            sink.end(error)

    def pause(self) -> None:
        self.heard.append("pause")

    def resume(self) -> None:
        self.heard.append("resume")

    def abort(self) -> None:
        self.heard.append("abort")
        self.sink = None


_SIGNS: dict[str, Event] = {".": Keepalive(), "<": ResponseStart(), "#": Terminator()}


class Letters:
    """A decoder: a letter is a delta, ``.`` a ping, ``<`` the start, ``!`` an in-band error, ``?`` and a last ``%`` a bug.

    ``_`` is a frame that stays partial, ``#`` the end mark. The last letter must be ``$`` or ``#``.
    """

    def __init__(self) -> None:
        self.error: UpstreamError | None = None
        self.last = ""
        self.tail = ""

    def feed(self, data: bytes) -> Chunk | None:
        assert self.error is None, "feed after an error"
        events: list[Event] = []
        for letter in data.decode():
            self.last = letter
            if letter == "?":
                raise ValueError("bug")
            if letter == "!":
                self.error = Malformed("in-band")
                break
            if letter == "_":
                self.tail = "tail"
                continue
            events.append(_SIGNS.get(letter) or PartDelta(0, letter))
        return Chunk(tuple(events), data, WIRE) if events else None

    def close(self) -> Chunk | None:
        if self.last == "%":
            raise ValueError("bug")
        if self.last not in "$#":
            self.error = Cut("no end")
        return Chunk((PartDelta(0, self.tail),)) if self.tail else None


def deadlines(scope: Scope, first: float = 10.0, idle: float = 5.0, total: float = 100.0) -> StreamDeadlines:
    now = scope.loop.time()
    return StreamDeadlines("upstream", now + first, idle, now + total)


def start(
    scope: Scope, *early: bytes | GatewayError | None, limits: StreamDeadlines | None = None
) -> tuple[Exchange, Decoding, Ear]:
    exchange, ear = Exchange(*early), Ear()
    decoding = Decoding(exchange, Letters(), scope, limits)
    decoding.connect(ear)
    return exchange, decoding, ear


@pytest.mark.parametrize("inside", [True, False])
async def test_bytes_become_chunks_and_the_end_is_clean(scope: Scope, inside: bool) -> None:
    items: list[bytes | GatewayError | None] = [b"<ab", b"_", b"c$", None]
    exchange, _, ear = start(scope, *(items if inside else ()), limits=deadlines(scope))
    if not inside:
        for item in items:
            if isinstance(item, bytes):
                exchange.push(item)
        exchange.end()
    assert (ear.text, ear.ends, ear.error) == ("abc$tail", 1, None)
    assert len(ear.chunks) == 3, "no chunk without a whole frame"
    assert scope.watched == []
    assert "abort" not in exchange.heard


@pytest.mark.parametrize("inside", [True, False])
async def test_an_in_band_error_is_the_end_after_what_came_before_it(scope: Scope, inside: bool) -> None:
    exchange, _, ear = start(scope, *([b"ab!c", b"d"] if inside else []), limits=deadlines(scope))
    exchange.push(b"ab!c")
    exchange.push(b"d")
    assert (ear.text, ear.ends) == ("ab", 1)
    assert isinstance(ear.error, Malformed)
    assert exchange.heard == ["connect", "abort"], "the provider's connection is closed"
    assert scope.watched == []


async def test_an_end_without_a_terminator_is_cut_after_the_tail(scope: Scope) -> None:
    _, _, ear = start(scope, b"a_", None)
    assert (ear.text, ear.ends) == ("atail", 1)
    assert isinstance(ear.error, Cut)


async def test_the_exchange_s_own_error_stands(scope: Scope) -> None:
    error = Cut("reset")
    _, _, ear = start(scope, b"a_", error)
    assert (ear.text, ear.ends) == ("a", 1), "half a frame is not told"
    assert ear.error is error


@pytest.mark.parametrize("how", ["feed", "close"])
async def test_a_decoder_that_raises_ends_the_answer(scope: Scope, how: str) -> None:
    exchange, _, ear = start(scope, b"a", limits=deadlines(scope))
    exchange.push(b"?" if how == "feed" else b"%")
    exchange.end()
    assert ear.ends == 1
    assert isinstance(ear.error, HouseError)
    assert scope.watched == []


async def test_abort_from_inside_push(scope: Scope) -> None:
    exchange, ear = Exchange(), Ear()
    decoding = Decoding(exchange, Letters(), scope, deadlines(scope))

    def leave(chunk: Chunk) -> None:
        decoding.abort()
        ear.deaf = True

    ear.on_push = leave
    decoding.connect(ear)
    exchange.push(b"a!")
    exchange.end()
    decoding.abort()
    assert (ear.text, exchange.heard) == ("a", ["connect", "abort"])
    assert scope.watched == []


async def test_abort_from_inside_the_tail(scope: Scope) -> None:
    exchange, ear = Exchange(), Ear()
    decoding = Decoding(exchange, Letters(), scope, deadlines(scope))

    def leave(chunk: Chunk) -> None:
        decoding.abort()
        ear.deaf = True

    decoding.connect(ear)
    exchange.push(b"_")
    ear.on_push = leave
    exchange.end()
    assert (ear.text, ear.ends) == ("tail", 0)


async def test_a_reply_that_is_never_connected_can_be_dropped(scope: Scope) -> None:
    """A retry or a hedge drops replies that nobody ever read."""
    exchange = Exchange()
    reply = Reply(Decoding(exchange, Letters(), scope, deadlines(scope)), scope)
    reply.abort()
    assert exchange.heard == ["abort"]


async def test_a_decoding_that_was_aborted_does_not_connect(scope: Scope) -> None:
    exchange, ear = Exchange(b"a"), Ear()
    decoding = Decoding(exchange, Letters(), scope, deadlines(scope))
    decoding.abort()
    decoding.connect(ear)
    assert (ear.chunks, exchange.heard, scope.watched) == ([], ["abort"], [])


async def test_closing_the_scope_first_is_fine(clock: Clock) -> None:
    scope = Scope(clock)
    exchange, decoding, _ = start(scope, b"a", limits=deadlines(scope))
    scope.close()
    decoding.abort()
    assert exchange.heard == ["connect", "abort"]


async def test_pause_and_resume_reach_the_exchange_also_before_connect(scope: Scope) -> None:
    exchange, ear = Exchange(), Ear()
    decoding = Decoding(exchange, Letters(), scope, deadlines(scope))
    decoding.pause()
    decoding.resume()
    decoding.connect(ear)
    decoding.pause()
    decoding.resume()
    decoding.abort()
    decoding.pause()
    decoding.resume()
    assert exchange.heard == ["pause", "resume", "connect", "pause", "resume", "abort"]


# -- deadlines; a deadline is compared with the time that tick() is told, so no test waits


async def test_the_first_token_is_content_and_not_a_ping(scope: Scope) -> None:
    exchange, decoding, ear = start(scope, b"<..", limits=deadlines(scope, first=10))
    now = scope.loop.time()
    decoding.tick(now + 9)
    assert ear.ends == 0, "the idle time does not count before the first token"
    exchange.push(b".")
    decoding.tick(now + 11)
    assert isinstance(ear.error, UpstreamTimeout)
    assert (ear.error.kind, ear.ends, exchange.heard[-1]) == ("timeout.first_token", 1, "abort")
    assert "upstream" in ear.error.message
    decoding.tick(now + 12)
    assert scope.watched == []


async def test_after_the_first_token_silence_counts_whatever_breaks_it(scope: Scope) -> None:
    exchange, decoding, ear = start(scope, b"<a", limits=deadlines(scope, first=1, idle=5))
    now = scope.loop.time()
    decoding.tick(now + 4)
    exchange.push(b".")
    decoding.tick(scope.loop.time() + 4)
    assert ear.ends == 0
    decoding.tick(scope.loop.time() + 6)
    assert ear.error is not None
    assert ear.error.kind == "timeout.idle"
    assert "5 s" in ear.error.message


async def test_the_total_holds_whatever_comes(scope: Scope) -> None:
    _, decoding, ear = start(scope, b"<a", limits=deadlines(scope, total=100))
    decoding.tick(scope.loop.time() + 101)
    assert ear.error is not None
    assert ear.error.kind == "timeout.total"


async def test_a_provider_that_we_do_not_read_is_not_idle_but_its_total_goes_by(scope: Scope) -> None:
    _, decoding, ear = start(scope, b"<a", limits=deadlines(scope, idle=5, total=100))
    decoding.pause()
    decoding.tick(scope.loop.time() + 50)
    assert ear.ends == 0
    decoding._last -= 50  # as if time had passed
    decoding.resume()
    decoding.tick(scope.loop.time() + 1)
    assert ear.ends == 0, "resuming starts the silence anew"
    decoding.pause()
    decoding.tick(scope.loop.time() + 101)
    assert ear.error is not None
    assert ear.error.kind == "timeout.total"


async def test_resume_without_pause_does_not_extend_the_silence(scope: Scope) -> None:
    _, decoding, ear = start(scope, b"<a", limits=deadlines(scope, idle=5))
    decoding._last -= 6
    decoding.resume()
    decoding.tick(scope.loop.time())
    assert ear.error is not None
    assert ear.error.kind == "timeout.idle"


async def test_the_clock_of_the_scope_ticks_it(scope: Scope) -> None:
    exchange, ear = Exchange(), Ear()
    reply = Reply(Decoding(exchange, Letters(), scope, deadlines(scope, first=0.01)), scope)
    with pytest.raises(UpstreamTimeout) as caught:
        await reply.opened()
    assert caught.value.kind == "timeout.first_token"
    assert exchange.heard == ["connect", "abort"]
    assert ear.ends == 0


async def test_without_deadlines_nothing_is_watched(scope: Scope) -> None:
    exchange, decoding, ear = start(scope, b"a")
    assert scope.watched == []
    decoding.tick(1e12)
    assert ear.ends == 0
    exchange.push(b"$")
    exchange.end()
    assert ear.ends == 1


# -- after the end mark the answer is complete, whatever becomes of the connection


async def test_an_end_mark_without_an_end_is_an_end(scope: Scope) -> None:
    exchange, decoding, ear = start(scope, b"<a#", limits=deadlines(scope, idle=0.1))
    decoding.tick(scope.loop.time() + LINGER_S / 2)
    assert (ear.ends, exchange.heard) == (0, ["connect"]), "the provider may still end it, and the connection live on"
    decoding.tick(scope.loop.time() + LINGER_S + 0.1)
    assert (ear.text, ear.ends, ear.error) == ("a", 1, None)
    assert exchange.heard == ["connect", "abort"]
    assert scope.watched == []


async def test_a_connection_that_breaks_after_the_end_mark_is_an_end(scope: Scope) -> None:
    exchange, _, ear = start(scope, b"<a#", limits=deadlines(scope))
    exchange.end(Cut("reset"))
    assert (ear.text, ear.ends, ear.error) == ("a", 1, None)
    assert scope.watched == []
