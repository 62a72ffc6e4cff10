"""What the lean transport makes of answers that a parser alone would let pass, or that come at the wrong time."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from headgate.gateway.errors import GatewayError
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport.lean import LeanTransport
from headgate.gateway.transport.lean_coding import PIECE, Inflate
from headgate.gateway.transport.lean_connection import HEAD_LIMIT, HEADER_LIMIT

from .calls import MB, STREAM, Sunk, fails, flow, send
from .conftest import Serve
from .servers import CHUNKED, Peer, Script, answers, chunk, then_close, whole


@pytest.fixture
async def lean() -> AsyncIterator[LeanTransport]:
    transport = LeanTransport()
    yield transport
    await transport.aclose()


async def ask(lean: LeanTransport, scope: Scope, url: str, method: str = "POST") -> bytes:
    return await (await send(lean, scope, url, method=method)).read(MB)


# --- framing that two readers could read differently

AMBIGUOUS = {
    "length and chunks": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths in one": b"Content-Length: 3, 3\r\n\r\nabc",
    "length with a sign": b"Content-Length: +3\r\n\r\nabc",
    "length too large to count": b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "folded header": b"X-A: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
    "bare line feed": b"X-A: a\nContent-Length: 3\r\n\r\nabc",
    "bare carriage return": b"X-A: a\rb\r\nContent-Length: 3\r\n\r\nabc",
    "space before the colon": b"Content-Length : 3\r\n\r\nabc",
    "no name": b": a\r\nContent-Length: 3\r\n\r\nabc",
    "NUL": b"X-A: a\0b\r\nContent-Length: 3\r\n\r\nabc",
    "another coding over chunks": b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "another coding after chunks": b"Transfer-Encoding: chunked, gzip\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "no coding we know": b"Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "switched protocols": b"",
}


@pytest.mark.parametrize("how", AMBIGUOUS)
async def test_ambiguous_framing(lean: LeanTransport, serve: Serve, scope: Scope, how: str) -> None:
    status = b"101 Switching" if how == "switched protocols" else b"200 OK"
    said = b"HTTP/1.1 " + status + b"\r\n" + (AMBIGUOUS[how] or b"\r\n")
    upstream = await serve(answers(said))
    for _ in range(2):
        await fails(ask(lean, scope, upstream.url), "malformed")
    assert len(upstream.peers) == 2, "what is behind it belongs to nobody"
    await upstream.drained()


@pytest.mark.parametrize("size", [b"0x3", b"3 ", b"+3", b"", b"3;\0", b"FFFFFFFFFFFFFFFFF"])
async def test_ambiguous_chunk_size(lean: LeanTransport, serve: Serve, scope: Scope, size: bytes) -> None:
    upstream = await serve(answers(CHUNKED + size + b"\r\nabc\r\n0\r\n\r\n"))
    error = await fails(ask(lean, scope, upstream.url), "malformed")
    assert "127.0.0.1" in str(error)
    await upstream.drained()


async def test_head_is_told_before_a_body_that_makes_no_sense(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    """However the network cuts it: here both come in one read."""
    upstream = await serve(answers(CHUNKED.replace(b"200 OK", b"429 Slow Down") + chunk(b"abc") + b"zz\r\n"))
    exchange = await send(lean, scope, upstream.url)
    assert exchange.status == 429
    sunk = await flow(exchange)
    assert sunk.data == b"abc" and sunk.error is not None and sunk.error.kind == "malformed"


# --- limits


async def test_header_limit(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    def lines(count: int) -> list[str]:  # Content-Length is one, too
        return [f"X-{n % 50}: {n}" for n in range(count - 1)]

    good, bad = await serve(answers(whole(b"a", *lines(HEADER_LIMIT)))), await serve(answers(whole(b"a", *lines(129))))
    assert await ask(lean, scope, good.url) == b"a"
    assert "128 headers" in str(await fails(ask(lean, scope, bad.url), "malformed"))


@pytest.mark.parametrize("pieces", [1, 40])
async def test_head_limit(lean: LeanTransport, serve: Serve, scope: Scope, pieces: int) -> None:
    def said(size: int) -> list[bytes]:
        lines = [f"X-{n}: " for n in range(8)]
        left = size - len(whole(b"", *lines))
        lines = [line + "y" * (left // 8 + (n < left % 8)) for n, line in enumerate(lines)]
        answer = whole(b"", *lines)[:-2] + b"\r\n"
        assert len(answer) == size
        step = -(-size // pieces)
        return [answer[n : n + step] for n in range(0, size, step)]

    good = await serve(answers(*said(HEAD_LIMIT)))
    bad = await serve(answers(*said(HEAD_LIMIT + 1)))
    assert await ask(lean, scope, good.url) == b""
    assert "65536 bytes" in str(await fails(ask(lean, scope, bad.url), "malformed"))


async def endless(peer: Peer, piece: bytes) -> None:
    while True:
        await peer.say(piece)


FLOODS = {
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 50),
    "chunk extension": (CHUNKED + chunk(b"abc") + b"3;a=", b"b" * 1000),
    "chunk extensions": (CHUNKED, (b"1;a=" + b"b" * 200 + b"\r\nx\r\n") * 20),
    "one trailer": (CHUNKED + chunk(b"abc") + b"0\r\nX-A: ", b"b" * 1000),
    "trailers": (CHUNKED + chunk(b"abc") + b"0\r\n", b"X-A: b\r\n" * 30),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_flood(lean: LeanTransport, serve: Serve, scope: Scope, flood: str) -> None:
    first, more = FLOODS[flood]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(first, gap=0.01)
        await endless(peer, more)

    upstream = await serve(script)
    await fails(ask(lean, scope, upstream.url), "malformed")
    await upstream.drained()
    assert upstream.peers[0].sent < 16 * MB


async def test_tiny_chunks_are_no_flood(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    body = bytes(range(256)) * 400
    tiny = b"".join(b"%s\r\n%c\r\n" % (b"0" * 13 + b"1", byte) for byte in body)
    upstream = await serve(answers(CHUNKED, tiny, chunk(b"")))
    assert await ask(lean, scope, upstream.url) == body


# --- one answer for one request


async def test_interim_answers_leave_nothing(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    interim = b"HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-B: 2\r\nX-A: 3\r\n\r\n"
    upstream = await serve(answers(interim, whole(b"{}", "X-B: 4"), gap=0.005))
    for _ in range(2):
        exchange = await send(lean, scope, upstream.url)
        assert exchange.headers == {"content-length": "2", "x-b": "4"}
        assert await exchange.read(9) == b"{}"
    assert len(upstream.peers) == 1


async def test_trailers_change_no_header(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    upstream = await serve(
        answers(CHUNKED[:-2] + b"Content-Type: a/b\r\n\r\n" + chunk(b"abc") + b"0\r\nContent-Type: c/d\r\nX: y\r\n\r\n")
    )
    for _ in range(2):
        exchange = await send(lean, scope, upstream.url)
        assert await exchange.read(9) == b"abc"
        assert exchange.headers == {"transfer-encoding": "chunked", "content-type": "a/b"}
    assert len(upstream.peers) == 1


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
UNASKED = {
    "an answer": EVIL,
    "half an answer": EVIL[:10],
    "garbage": b"\x00\xff",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("gap", [0.0, 0.01])
@pytest.mark.parametrize("unasked", UNASKED)
@pytest.mark.parametrize("way", ["read", "flow"])
async def test_what_comes_after_the_answer_is_nobodys(
    lean: LeanTransport, serve: Serve, scope: Scope, unasked: str, gap: float, way: str
) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            if gap:
                await peer.say(whole(b"{}"), UNASKED[unasked], gap=gap)
            else:
                await peer.say(whole(b"{}") + UNASKED[unasked])

    upstream = await serve(script)
    for _ in range(3):
        exchange = await send(lean, scope, upstream.url)
        assert (await exchange.read(9) if way == "read" else (await flow(exchange)).data) == b"{}"
        await asyncio.sleep(2 * gap)
    assert len(upstream.peers) == 3


async def test_unasked_bytes_while_the_answer_is_unread(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(whole(b"{}"), EVIL, gap=0.005))
    exchange = await send(lean, scope, upstream.url)
    await asyncio.sleep(0.02)
    assert await exchange.read(9) == b"{}"
    assert await ask(lean, scope, upstream.url) == b"{}"
    assert len(upstream.peers) == 2


async def test_idle_connection_that_speaks_is_closed(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(whole(b"{}"), gap=0.01)
        await peer.say(EVIL)
        await peer.gone()

    upstream = await serve(script)
    for _ in range(2):
        assert await ask(lean, scope, upstream.url) == b"{}"
        await asyncio.sleep(0.03)
        await upstream.drained()
    assert len(upstream.peers) == 2


async def test_server_that_speaks_first(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    async def script(peer: Peer) -> None:
        await peer.say(EVIL)
        await peer.gone()

    upstream = await serve(script)
    for _ in range(2):  # before the request is written, or after
        try:
            told: object = await ask(lean, scope, upstream.url)
        except GatewayError as error:
            told = error.kind
        assert told in ("connect", b"evil")
        await asyncio.sleep(0.01)
    await upstream.drained()


# --- methods and endings of their own


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked", "X: no framing"])
async def test_head_has_no_body(lean: LeanTransport, serve: Serve, scope: Scope, framing: str) -> None:
    upstream = await serve(answers(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode()))
    for _ in range(2):
        assert await ask(lean, scope, upstream.url, "HEAD") == b""
    assert len(upstream.peers) == (2 if "X" in framing else 1)


async def test_body_of_an_answer_to_head_is_nobodys(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(EVIL))
    assert await ask(lean, scope, upstream.url, "HEAD") == b""
    assert await ask(lean, scope, upstream.url) == b"evil"
    assert len(upstream.peers) == 2


@pytest.mark.parametrize("line", ["204 No Content\r\nContent-Length: 3", "304 Not Modified\r\nContent-Length: 3"])
async def test_status_without_a_body(lean: LeanTransport, serve: Serve, scope: Scope, line: str) -> None:
    upstream = await serve(answers(f"HTTP/1.1 {line}\r\n\r\n".encode()))
    for _ in range(2):
        assert await ask(lean, scope, upstream.url) == b""
    assert len(upstream.peers) == 1


@pytest.mark.parametrize(("line", "peers"), [("Connection: keep-alive", 1), ("X: y", 2)])
async def test_http_1_0(lean: LeanTransport, serve: Serve, scope: Scope, line: str, peers: int) -> None:
    upstream = await serve(answers(whole(b"{}", line).replace(b"1.1", b"1.0")))
    for _ in range(2):
        assert await ask(lean, scope, upstream.url) == b"{}"
    assert len(upstream.peers) == peers


ANSWER = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Empty:\r\nX-A:  a b \t\r\nTransfer-Encoding: chunked\r\nx-a: c\r\n\r\n"
    b"5;x=y\r\nabcde\r\n3\r\nfgh\r\n0\r\nX-T: 1\r\n\r\n"
)


async def test_answer_cut_anywhere(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    cuts = iter(range(1, len(ANSWER)))

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            cut = next(cuts)
            await peer.say(ANSWER[:cut], ANSWER[cut:], gap=0.0005)

    upstream = await serve(script)
    for _ in range(1, len(ANSWER)):
        exchange = await send(lean, scope, upstream.url)
        assert exchange.headers == {"x-empty": "", "x-a": "a b, c", "transfer-encoding": "chunked"}
        assert await exchange.read(99) == b"abcdefgh"
    assert len(upstream.peers) == 1


async def test_answer_byte_by_byte(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(*(ANSWER[n : n + 1] for n in range(len(ANSWER))), gap=0.0005))
    sunk = await flow(await send(lean, scope, upstream.url))
    assert (sunk.data, sunk.error) == (b"abcdefgh", None)
    assert await ask(lean, scope, upstream.url) == b"abcdefgh"
    assert len(upstream.peers) == 1


@pytest.mark.parametrize("end", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nX-A: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_cut_within_the_head(lean: LeanTransport, serve: Serve, scope: Scope, end: bytes) -> None:
    upstream = await serve(then_close(end))
    assert "may have been processed" in str(await fails(ask(lean, scope, upstream.url), "cut"))


@pytest.mark.parametrize("said", [CHUNKED + b"3\r\nabc\r\n0\r\n", CHUNKED + b"3\r\nabc\r\n0\r\nX-T: 1\r\n"])
async def test_cut_within_the_trailers(lean: LeanTransport, serve: Serve, scope: Scope, said: bytes) -> None:
    upstream = await serve(then_close(said))
    sunk = await flow(await send(lean, scope, upstream.url))
    assert sunk.data == b"abc" and sunk.error is not None and sunk.error.kind == "cut"


# --- codings


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


CODED = {
    "gzip": ("GZip", gzip.compress(STREAM)),
    "gzip joined": ("gzip", gzip.compress(STREAM[:99]) + gzip.compress(STREAM[99:])),
    "deflate": ("deflate", zlib.compress(STREAM)),
    "bare deflate": ("deflate", deflated(STREAM)),
}


@pytest.mark.parametrize("coded", CODED)
async def test_coding_in_small_pieces(lean: LeanTransport, serve: Serve, scope: Scope, coded: str) -> None:
    name, packed = CODED[coded]
    head = CHUNKED[:-2] + f"Content-Encoding: {name}\r\n\r\n".encode()
    upstream = await serve(
        answers(head, *(chunk(packed[n : n + 7]) for n in range(0, len(packed), 7)), chunk(b""), gap=0.0005)
    )
    exchange = await send(lean, scope, upstream.url)
    sunk = Sunk(lambda item: (exchange.pause(), scope.loop.call_soon(exchange.resume)))
    exchange.connect(sunk)
    async with asyncio.timeout(5):
        await sunk.ended.wait()
    assert (sunk.data, sunk.error) == (STREAM, None)
    assert await ask(lean, scope, upstream.url) == STREAM
    assert len(upstream.peers) == 1


@pytest.mark.parametrize(("body", "good"), [(gzip.compress(STREAM)[:-9], False), (b"", True)])
async def test_coding_that_breaks_off(lean: LeanTransport, serve: Serve, scope: Scope, body: bytes, good: bool) -> None:
    upstream = await serve(answers(whole(body, "Content-Encoding: gzip")))
    if good:
        assert await ask(lean, scope, upstream.url) == b""
    else:
        await fails(ask(lean, scope, upstream.url), "malformed")
        sunk = await flow(await send(lean, scope, upstream.url))
        assert STREAM.startswith(sunk.data) and sunk.error is not None and sunk.error.kind == "malformed"


async def test_head_of_a_coded_answer_keeps_its_headers(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: br\r\n\r\n"))
    exchange = await send(lean, scope, upstream.url, method="HEAD")
    assert exchange.headers == {"content-length": "9", "content-encoding": "br"}
    assert await exchange.read(1) == b""


def test_inflate_gives_no_more_than_a_piece() -> None:
    inflate = Inflate("gzip")
    inflate.feed(gzip.compress(bytes(10 * PIECE)))
    sizes = []
    while data := inflate.next():
        sizes.append(len(data))
    assert max(sizes) <= PIECE and sum(sizes) == 10 * PIECE and inflate.complete


# --- back-pressure: the slow reader's bytes stay in the socket, whoever it is

STALLS: dict[str, Script] = {
    "length": answers(whole(b"x" * (8 * MB))),
    "chunks": answers(CHUNKED, *[chunk(b"x" * 65536)] * 128, chunk(b"")),
}


@pytest.mark.parametrize("stall", STALLS)
async def test_many_pauses(lean: LeanTransport, serve: Serve, scope: Scope, stall: str) -> None:
    upstream = await serve(STALLS[stall])
    exchange = await send(lean, scope, upstream.url)
    size = 0

    def paused(item: bytes) -> None:
        nonlocal size
        size += len(item)
        sunk.items.clear()
        exchange.pause()
        scope.loop.call_later(0.0005, exchange.resume)

    sunk = Sunk(paused)
    exchange.connect(sunk)
    async with asyncio.timeout(10):
        await sunk.ended.wait()
    assert (size, sunk.error) == (8 * MB, None)
