"""No request that two readers could read differently is served, and every answer goes to the request it belongs to.

Both ways in are tried: as ``headgate serve`` does it, and aiohttp's server alone, as where httptools is not installed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from headgate.gateway.server.handlers import Surface

from .house import CHAT, House, body_of, load, serving, until, wire

ONE, TWO, EVIL = body_of("one"), body_of("two"), body_of("evil")
HEADS = ("front", "aiohttp")


class Reply(NamedTuple):
    """An answer as it came; ``said`` is the simulator's echo."""

    status: int
    said: str


@asynccontextmanager
async def served(directory: Path, way: str, text: str | None = None) -> AsyncIterator[House]:
    """Serve as ``way`` says; ``house.calls`` are the bodies that a call was made of."""
    if way == "front":
        async with serving(directory, *(() if text is None else (text,))) as house:
            yield house
        return
    gateway = load(directory, *(() if text is None else (text,)))
    await gateway.start()
    server = web.Server(Surface(gateway).alone, access_log=None, handler_cancellation=True)
    runner: Any = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield House(f"http://127.0.0.1:{runner.addresses[0][1]}", gateway, runner, directory / "routes.yaml")
    finally:
        await runner.cleanup()
        await gateway.aclose()


def calls_of(house: House) -> list[bytes]:
    """Return what will be the bodies of all calls."""
    bodies: list[bytes] = []
    original = house.gateway.prepare

    def counting(*arguments: Any, **more: Any) -> Any:
        bodies.append(arguments[2])
        return original(*arguments, **more)

    house.gateway.prepare = counting  # type: ignore[method-assign]
    return bodies


def request(
    body: bytes, lines: bytes = b"", *, sized: bool = True, target: bytes = CHAT.encode(), first: bytes | None = None
) -> bytes:
    """A request whose head has ``lines`` besides what it needs."""
    first = b"POST " + target + b" HTTP/1.1\r\n" if first is None else first
    length = b"content-length: %d\r\n" % len(body) if sized else b""
    return first + b"host: x\r\ncontent-type: application/json\r\n" + length + lines + b"\r\n" + body


def chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def chunked(raw: bytes, lines: bytes = b"transfer-encoding: chunked\r\n") -> bytes:
    """A request whose body is ``raw``, chunks in all likelihood."""
    return request(raw, lines, sized=False)


async def everything(house: House, *pieces: bytes, quiet_s: float = 0.15, gap_s: float = 0.0) -> tuple[bytes, bool]:
    """Send ``pieces``; return what comes back, and whether the connection was closed."""
    got = b""
    async with wire(house) as client:
        try:
            for piece in pieces:
                client.send(piece)
                await asyncio.sleep(gap_s)
            while True:
                async with asyncio.timeout(quiet_s):
                    data = await client.reader.read(65536)
                if not data:
                    return got, True
                got += data
        except ConnectionError:
            return got, True
        except TimeoutError:
            return got, False


def replies(raw: bytes) -> list[Reply]:
    """Take answers with a length, or chunks, apart; nothing may be between or after them."""
    found: list[Reply] = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 "), head[:80]
        status = int(head.split(b" ")[1])
        if status == 100:
            found.append(Reply(100, ""))
            continue
        if (length := re.search(rb"(?i)\r\ncontent-length: (\d+)", head)) is not None:
            body, raw = raw[: int(length[1])], raw[int(length[1]) :]
        else:
            body = b""
            while True:
                size, _, raw = raw.partition(b"\r\n")
                count = int(size, 16)
                body, raw = body + raw[:count], raw[count + 2 :]
                if not count:
                    break
        found.append(Reply(status, echo(body)))
    return found


def echo(body: bytes) -> str:
    """Return what the simulator repeats, in an answer or a stream."""
    text = "".join(re.findall(r'"content":\s*"([^"]*)"', body.decode()))
    return text.removeprefix("You said: ")


# --- what two readers could read differently

SIZE = len(ONE)
AMBIGUOUS = {
    "length and chunks": request(chunks(ONE), b"transfer-encoding: chunked\r\n"),
    "chunks and length": chunked(chunks(ONE), b"transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
    "the same length twice": request(ONE, b"content-length: %d\r\n" % SIZE),
    "two lengths": request(ONE + request(EVIL), b"content-length: %d\r\n" % SIZE),
    "two lengths in one": request(ONE, b"content-length: %d, %d\r\n" % (SIZE, SIZE), sized=False),
    "length with a plus": request(ONE, b"content-length: +%d\r\n" % SIZE, sized=False),
    "length below zero": request(ONE, b"content-length: -5\r\n", sized=False),
    "length of nothing": request(ONE, b"content-length:\r\n", sized=False),
    "length 0x10": request(ONE, b"content-length: 0x10\r\n", sized=False),
    "length 1_0": request(ONE, b"content-length: 1_0\r\n", sized=False),
    "length above 64 bits": request(ONE, b"content-length: 99999999999999999999\r\n", sized=False),
    "length in other digits": request(ONE, "content-length: ١٢\r\n".encode(), sized=False),
    "space before the length's colon": request(ONE, b"content-length : %d\r\n" % SIZE, sized=False),
    "space before the chunks' colon": chunked(chunks(ONE), b"transfer-encoding : chunked\r\n"),
    "folded header": request(ONE, b"x-a: a\r\n b\r\n"),
    "folded length": request(ONE, b"content-length:\r\n %d\r\n" % SIZE, sized=False),
    "folded transfer coding": chunked(chunks(ONE), b"transfer-encoding:\r\n chunked\r\n"),
    "folded first line": request(ONE, first=b"POST /v1/chat/completions HTTP/1.1\r\n x: y\r\n"),
    "bare line feed": request(ONE, b"x-a: a\nx-b: c\r\n"),
    "bare line feed before chunked": request(ONE, b"x-a: a\ntransfer-encoding: chunked\r\n"),
    "bare line feed after the first line": request(ONE, first=b"POST /v1/chat/completions HTTP/1.1\n"),
    "bare line feed ends the head": request(ONE).replace(b"\r\n\r\n", b"\r\n\n", 1),
    "bare line feeds alone": request(ONE).replace(b"\r\n", b"\n"),
    "bare carriage return": request(ONE, b"x-a: a\rx-b: c\r\n"),
    "chunked, identity": chunked(chunks(ONE), b"transfer-encoding: chunked, identity\r\n"),
    "identity": request(ONE, b"transfer-encoding: identity\r\n", sized=False),
    "identity and a length": request(ONE, b"transfer-encoding: identity\r\n"),
    "gzip, chunked": chunked(chunks(ONE), b"transfer-encoding: gzip, chunked\r\n"),
    "xchunked": chunked(chunks(ONE), b"transfer-encoding: xchunked\r\n"),
    "chunked;a=b": chunked(chunks(ONE), b"transfer-encoding: chunked;a=b\r\n"),
    "comma before chunked": chunked(chunks(ONE), b"transfer-encoding: ,chunked\r\n"),
    "chunked in quotes": chunked(chunks(ONE), b'transfer-encoding: "chunked"\r\n'),
    "chunked with a Kelvin sign": chunked(chunks(ONE), "transfer-encoding: chun\u212aed\r\n".encode()),
    "chunked after a vertical tab": chunked(chunks(ONE), b"transfer-encoding: \x0bchunked\r\n"),
    "chunked twice": chunked(chunks(ONE), b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
    "chunked, chunked": chunked(chunks(ONE), b"transfer-encoding: chunked, chunked\r\n"),
    "no transfer coding": request(ONE, b"transfer-encoding:\r\n", sized=False),
    "chunks in HTTP/1.0": chunked(chunks(ONE)).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "space after a chunk's size": chunked(b"%x \r\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "line feed after a chunk's size": chunked(b"%x\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "line feed after an extension": chunked(b"%x;a\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "chunk 0x": chunked(b"0x%x\r\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "chunk above 64 bits": chunked(b"1%016x\r\n%b\r\n0\r\n\r\n" % (SIZE, ONE)),
    "line feed after a chunk": chunked(b"%x\r\n%b\n0\r\n\r\n" % (SIZE, ONE)),
    "nothing after a chunk": chunked(b"%x\r\n%b0\r\n\r\n" % (SIZE, ONE)),
    "line feed ends the chunks": chunked(b"%x\r\n%b\r\n0\r\n\n" % (SIZE, ONE)),
    "trailer Content-Length": chunked(b"%x\r\n%b\r\n0\r\ncontent-length: 5\r\n\r\n" % (SIZE, ONE)),
    "line feed in a trailer": chunked(b"%x\r\n%b\r\n0\r\nx: y\n\r\n" % (SIZE, ONE)),
    "NUL in a value": request(ONE, b"x-a: a\0b\r\n"),
    "NUL in a name": request(ONE, b"x-a\0: b\r\n"),
    "NUL in the target": request(ONE, target=CHAT.encode() + b"\0"),
    "control byte in a value": request(ONE, b"x-a: a\x01b\r\n"),
    "no name": request(ONE, b": a\r\n"),
    "no colon": request(ONE, b"xa\r\n"),
    "parenthesis in a name": request(ONE, b"x(a: b\r\n"),
    "two hosts": request(ONE, b"host: y\r\n"),
    "no host": request(ONE).replace(b"host: x\r\n", b""),
    "space in the target": request(ONE, target=CHAT.encode() + b" x"),
    "space after the version": request(ONE, first=b"POST /v1/chat/completions HTTP/1.1 \r\n"),
    "version 1.2": request(ONE, first=b"POST /v1/chat/completions HTTP/1.2\r\n"),
    "http": request(ONE, first=b"POST /v1/chat/completions http/1.1\r\n"),
    "odd method": request(ONE, first=b"P@ST /v1/chat/completions HTTP/1.1\r\n"),
    "tab after the method": request(ONE, first=b"POST\t/v1/chat/completions HTTP/1.1\r\n"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
}


@pytest.mark.parametrize("way", HEADS)
@pytest.mark.parametrize("gap_s", [0.0, 0.01], ids=["at once", "later"])
async def test_ambiguous_request_is_not_served(
    tmp_path: Path, way: str, gap_s: float, log: pytest.LogCaptureFixture
) -> None:
    """400 and closed, whatever follows; what is in it, or behind it, is no call."""
    async with served(tmp_path, way) as house:
        bodies = calls_of(house)
        wrong: dict[str, object] = {}
        for name, raw in AMBIGUOUS.items():
            bodies.clear()
            got, closed = await everything(house, raw, request(EVIL), gap_s=gap_s)
            statuses = re.findall(rb"HTTP/1\.[01] (\d+)", got)
            if bodies or not closed or statuses not in ([b"400"], [b"501"], []):
                wrong[name] = (statuses, closed, bodies)
        assert wrong == {}
