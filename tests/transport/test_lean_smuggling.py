"""No answer reaches a request that it does not belong to, and none is taken for more, or for less, than it is.

test_lean_answers.py has the framings that are refused; here is what must never happen afterwards.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport.lean import LeanTransport
from headgate.gateway.transport.session import SessionTransport

from .calls import MB, Memory, fails, flow, send
from .conftest import Serve
from .fed import Fed
from .player import Play, Stage, Way, stage
from .servers import CHUNKED, Peer, answers, chunk, then_close, whole

OK = b"HTTP/1.1 200 OK\r\n"
ABC = b"Content-Length: 3\r\n\r\nabc"


@pytest.fixture
async def lean() -> AsyncIterator[LeanTransport]:
    transport = LeanTransport()
    yield transport
    await transport.aclose()


@pytest.fixture
def fed() -> Iterator[Fed]:
    opened = Fed()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def both() -> Iterator[Stage]:
    with stage() as opened:
        yield opened


# --- what comes unasked, after an answer of any framing, in the same read or a later one

COMPLETE = {
    "length": OK + ABC,
    "no body": OK + b"Content-Length: 0\r\n\r\n",
    "chunks": CHUNKED + chunk(b"abc") + chunk(b""),
    "trailers": CHUNKED + chunk(b"abc") + b"0\r\nX-T: 1\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + ABC,
    "after an interim answer": b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + ABC,
    "gzip": whole(gzip.compress(b"abc"), "Content-Encoding: gzip"),
}
UNASKED = {
    "an answer": whole(b"evil"),
    "an answer in chunks": CHUNKED + chunk(b"evil") + chunk(b""),
    "half an answer": whole(b"evil")[:20],
    "one byte of an answer": b"H",
    "408": b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching\r\n\r\n",
    "a chunk": chunk(b"evil"),
    "garbage": b"\x00\xff\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("unasked", UNASKED)
@pytest.mark.parametrize("complete", COMPLETE)
def test_connection_is_not_lent_again(fed: Fed, complete: str, unasked: str) -> None:
    answer, more = COMPLETE[complete], UNASKED[unasked]
    alone = fed.outcome([answer])
    assert alone.error is None and alone.reused
    said = answer + more
    for place in range(len(answer) - 1, len(said) + 1):
        found = fed.outcome([said[:place], said[place:]] if place < len(said) else [said])
        assert not found.reused, f"cut at byte {place}"
        assert replace(found, reused=True) == alone, f"cut at byte {place}"


@pytest.mark.parametrize("way", ["read", "flow"])
@pytest.mark.parametrize("unasked", UNASKED)
@pytest.mark.parametrize("complete", COMPLETE)
def test_next_request_gets_its_own_answer(both: Stage, complete: str, unasked: str, way: Way) -> None:
    for pieces in ((COMPLETE[complete] + UNASKED[unasked],), (COMPLETE[complete], UNASKED[unasked])):
        found = both.outcome("lean", Play(pieces), way)
        assert found.own and not found.reused and found.error is None


def test_upgrade_within_trailers(fed: Fed) -> None:
    said = CHUNKED + chunk(b"abc") + b"0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    for place in range(len(said)):
        found = fed.outcome([piece for piece in (said[:place], said[place:]) if piece])
        assert (found.status, found.body, found.error) == (200, b"abc", None)


@pytest.mark.parametrize(
    "trailer",
    ["Connection: close", "Proxy-Connection: close", "Connection: x, close", "Connection: upgrade\r\nUpgrade: x"],
)
def test_trailer_that_speaks_of_the_connection(both: Stage, trailer: str) -> None:
    """The parser heeds it, so the next answer would be refused, for which the next caller has paid."""
    said = CHUNKED + chunk(b"abc") + f"0\r\n{trailer}\r\n\r\n".encode()
    for pieces in ((said,), tuple(said[n : n + 1] for n in range(len(said)))):
        found = both.outcome("lean", Play(pieces))
        assert (found.body, found.error, found.own) == (b"abc", None, True)


@pytest.mark.parametrize(
    "trailer", ["Content-Type: c/d", "Host: x", "Set-Cookie: a", "Authorization: b", "X-Request-Id: 2", "Date: now"]
)
def test_trailers_are_dropped(fed: Fed, trailer: str) -> None:
    found = fed.outcome([CHUNKED, chunk(b"abc"), f"0\r\n{trailer}\r\n\r\n".encode()])
    assert (found.headers, found.body, found.error, found.reused) == (
        (("transfer-encoding", "chunked"),),
        b"abc",
        None,
        True,
    )


@pytest.mark.parametrize("short_way", [True, False])
async def test_session_gives_no_unasked_answer_to_the_next_request(serve: Serve, scope: Scope, short_way: bool) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.say(whole(b"good"), gap=0.01)
            await peer.say(whole(b"evil"), gap=0.01)

    upstream = await serve(script)
    transport = SessionTransport(short_way=short_way)
    try:
        for _ in range(3):
            assert await (await send(transport, scope, upstream.url)).read(9) == b"good"
            await asyncio.sleep(0.03)
    finally:
        await transport.aclose()


# --- an answer is neither more nor less than it is


@pytest.mark.parametrize("status", [b"099", b"000", b"001"])
async def test_status_below_100_is_no_interim_answer(
    lean: LeanTransport, serve: Serve, scope: Scope, status: bytes
) -> None:
    upstream = await serve(answers(b"HTTP/1.1 %b Odd\r\nContent-Length: 2\r\n\r\n{}" % status + whole(b"evil")))
    error = await fails(send(lean, scope, upstream.url), "malformed")
    assert status.decode() in str(error)
    await upstream.drained()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
@pytest.mark.parametrize("framing", ["Content-Length: 40", "Transfer-Encoding: chunked"])
async def test_coded_answer_that_breaks_off_before_its_first_byte(
    lean: LeanTransport, serve: Serve, scope: Scope, coding: str, framing: str
) -> None:
    """Its length is taken off with its coding: it says all the same that something is missing."""
    upstream = await serve(then_close(OK + f"Content-Encoding: {coding}\r\n{framing}\r\n\r\n".encode()))
    await fails((await send(lean, scope, upstream.url)).read(MB), "cut")
    sunk = await flow(await send(lean, scope, upstream.url))
    assert sunk.error is not None and sunk.error.kind == "cut" and not sunk.items


@pytest.mark.parametrize("size", [1, 10, 30])
async def test_coded_answer_that_breaks_off_later(lean: LeanTransport, serve: Serve, scope: Scope, size: int) -> None:
    """A connection that was lost is a connection that was lost, whatever is missing of the coding."""
    packed = gzip.compress(bytes(range(99)))
    upstream = await serve(then_close(whole(packed, "Content-Encoding: gzip")[: size - len(packed)]))
    await fails((await send(lean, scope, upstream.url)).read(MB), "cut")


# --- floods that the limits of test_lean_answers.py do not name

FLOODS = {
    "one header again and again": (OK, b"X-A: b\r\n" * 100),
    "cookies": (OK, b"Set-Cookie: " + b"c" * 100 + b"\r\n"),
    "a status line": (b"HTTP/1.1 200 ", b"x" * 1000),
    "a name": (OK, b"x" * 1000),
    "interim headers": (b"HTTP/1.1 103 Early Hints\r\n", b"Link: </a>\r\n"),
    "interim answers a byte each": (b"", b"HTTP/1.1 100 x\r\n\r\n"),
    "zeros of a chunk": (CHUNKED, b"0" * 1000),
    "names of trailers": (CHUNKED + chunk(b"abc") + b"0\r\n", b"x" * 1000),
    "empty lines": (b"", b"\r\n" * 500),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_flood(lean: LeanTransport, serve: Serve, scope: Scope, flood: str) -> None:
    first, more = FLOODS[flood]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(first, gap=0.005)
        while True:
            await peer.say(more)

    upstream = await serve(script)

    async def ask() -> None:
        await (await send(lean, scope, upstream.url)).read(MB)

    with Memory() as memory:
        await fails(ask(), "malformed")
    assert memory.peak < 12 * MB
    await upstream.drained()
    assert upstream.peers[0].sent < 16 * MB


async def test_headers_of_interim_answers_do_not_add_up(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a>\r\n" * 100 + b"\r\n"
    upstream = await serve(answers(interim * 3 + OK + b"X-A: b\r\n" * 100 + ABC))
    for _ in range(2):
        exchange = await send(lean, scope, upstream.url)
        assert exchange.headers == {"x-a": ", ".join(["b"] * 100), "content-length": "3"}
        assert await exchange.read(9) == b"abc"
    assert len(upstream.peers) == 1
