"""Answers that are odd, or wrong: those of which both transports make the same, and those where they part, and why.

Every entry is a whole answer as a provider might write it. What they have in common is that somebody's reader takes it.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Final, NamedTuple

from .servers import CHUNKED, chunk, whole

_OK: Final = b"HTTP/1.1 200 OK\r\n"
_ABC: Final = b"Content-Length: 3\r\n\r\nabc"
_CHUNKS: Final = b"3\r\nabc\r\n0\r\n\r\n"


def _coded(coding: str, body: bytes) -> bytes:
    return whole(body, f"Content-Encoding: {coding}")


_GZIP: Final = gzip.compress(b"hello", mtime=0)
_DEFLATE: Final = zlib.compress(b"hello")

SAME: Final[dict[str, bytes]] = {
    # -- two ways to say how long
    "length and chunks": _OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS,
    "chunks and length": _OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + _CHUNKS,
    "identity and length": _OK + b"Transfer-Encoding: identity\r\n" + _ABC,
    "the same length twice": _OK + b"Content-Length: 3\r\n" + _ABC,
    "two lengths": _OK + b"Content-Length: 2\r\n" + _ABC,
    "two lengths in one": _OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "two lengths, a space between": _OK + b"Content-Length: 3 3\r\n\r\nabc",
    # -- lengths
    "length +3": _OK + b"Content-Length: +3\r\n\r\nabc",
    "length -3": _OK + b"Content-Length: -3\r\n\r\nabc",
    "length 0_3": _OK + b"Content-Length: 0_3\r\n\r\nabc",
    "length 0x3": _OK + b"Content-Length: 0x3\r\n\r\nabc",
    "length 003": _OK + b"Content-Length: 003\r\n\r\nabc",
    "length 3;": _OK + b"Content-Length: 3;\r\n\r\nabc",
    "length of nothing": _OK + b"Content-Length: \r\n\r\nabc",
    "length between blanks": _OK + b"Content-Length:\t 3 \t\r\n\r\nabc",
    "length in capitals": _OK + b"CONTENT-LENGTH: 3\r\n\r\nabc",
    "length above 64 bits": _OK + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "length just below 64 bits": _OK + b"Content-Length: 9999999999999999999\r\n\r\nabc",
    "length 0": _OK + b"Content-Length: 0\r\n\r\n",
    "length that is not reached": _OK + b"Content-Length: 9\r\n\r\nabc",
    # -- headers
    "bare carriage return": _OK + b"X-A: a\rb\r\n" + _ABC,
    "space before a colon": _OK + b"X-A : a\r\n" + _ABC,
    "no name": _OK + b": a\r\n" + _ABC,
    "no colon": _OK + b"XA\r\n" + _ABC,
    "NUL in a value": _OK + b"X-A: a\0b\r\n" + _ABC,
    "bytes that are no text": _OK + b"X-A: a\xff\xfeb\r\n" + _ABC,
    "UTF-8": _OK + "X-A: ü\r\n".encode() + _ABC,
    "@ in a name": _OK + b"X@A: a\r\n" + _ABC,
    "a name beyond ASCII": _OK + b"X\xe4: a\r\n" + _ABC,
    "parentheses in a name": _OK + b"X(a): a\r\n" + _ABC,
    "empty values": _OK + b"X-A:\r\nX-B: \t \r\n" + _ABC,
    "cookies": _OK + b"Set-Cookie: a\r\nset-cookie: b\r\n" + _ABC,
    "one name thrice": _OK + b"X: a\r\nx: b\r\nX:\r\n" + _ABC,
    "two types": _OK + b"Content-Type: a/b\r\nContent-Type: c/d\r\n" + _ABC,
    "127 headers": whole(b"abc", *[f"X{n}: a" for n in range(127)]),
    "129 headers": whole(b"abc", *[f"X{n}: a" for n in range(128)]),
    "130 headers": whole(b"abc", *[f"X{n}: a" for n in range(129)]),
    "a header of 8,190 bytes": whole(b"abc", "X: " + "a" * 8190),
    "a header of 65,000 bytes": whole(b"abc", "X: " + "a" * 65_000),
    "a header of 65,540 bytes": whole(b"abc", "X: " + "a" * 65_540),
    "a name of 70,000 bytes": _OK + b"X" * 70_000 + b": a\r\n" + _ABC,
    # -- transfer codings
    "Chunked": CHUNKED.replace(b"chunked", b"Chunked") + _CHUNKS,
    "chunked and a space": CHUNKED.replace(b"chunked", b"chunked ") + _CHUNKS,
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + _CHUNKS,
    "chunks after 204, without any": CHUNKED.replace(b"200", b"204"),
    "chunks after 204": CHUNKED.replace(b"200", b"204") + _CHUNKS,
    "chunks after 304, without any": CHUNKED.replace(b"200", b"304"),
    # -- chunks
    "chunk A": CHUNKED + b"A\r\n" + b"x" * 10 + b"\r\n0\r\n\r\n",
    "chunk 0003": CHUNKED + b"0003\r\nabc\r\n000\r\n\r\n",
    "chunk with 40 zeros": CHUNKED + b"0" * 40 + _CHUNKS,
    "chunk extension": CHUNKED + b"3;a=b\r\nabc\r\n0;x\r\n\r\n",
    "chunk extension in quotes": CHUNKED + b'3;a="b;c\\""\r\nabc\r\n0\r\n\r\n',
    "chunk extension, quotes open": CHUNKED + b'3;a="b\r\nabc\r\n0\r\n\r\n',
    "chunk extension after a space": CHUNKED + b"3; a=b\r\nabc\r\n0\r\n\r\n",
    "chunk extension, space before =": CHUNKED + b"3;a =b\r\nabc\r\n0\r\n\r\n",
    "chunk extension of nothing": CHUNKED + b"3;\r\nabc\r\n0\r\n\r\n",
    "chunk extension without a value": CHUNKED + b"3;a=\r\nabc\r\n0\r\n\r\n",
    "chunk extension, control byte": CHUNKED + b"3;a=\x01\r\nabc\r\n0\r\n\r\n",
    "chunk extension beyond ASCII": CHUNKED + b"3;a=\xff\r\nabc\r\n0\r\n\r\n",
    "chunk after a space": CHUNKED + b" " + _CHUNKS,
    "chunk 0x3": CHUNKED + b"0x" + _CHUNKS,
    "chunk +3": CHUNKED + b"+" + _CHUNKS,
    "chunk 0_3": CHUNKED + b"0_" + _CHUNKS,
    "chunk without a size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "chunk g": CHUNKED + b"g\r\nabc\r\n0\r\n\r\n",
    "chunk above 64 bits": CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    "chunk just below 64 bits": CHUNKED + b"FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    "chunk of 2**63": CHUNKED + b"8000000000000000\r\nabc\r\n0\r\n\r\n",
    "chunk size, bare line feed": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "chunk without its end": CHUNKED + b"3\r\nabc0\r\n\r\n",
    "chunk too long": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk end that is none": CHUNKED + b"3\r\nabc\rX0\r\n\r\n",
    "last chunk without its end": CHUNKED + b"3\r\nabc\r\n0\r\n",
    # -- trailers
    "trailer": CHUNKED + b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    "trailer Content-Length": CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 1\r\n\r\n",
    "trailer Transfer-Encoding": CHUNKED + b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer without a colon": CHUNKED + b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    # -- the first line
    "status 999": b"HTTP/1.1 999 OK\r\n" + _ABC,
    "status 20": b"HTTP/1.1 20 OK\r\n" + _ABC,
    "status 2000": b"HTTP/1.1 2000 OK\r\n" + _ABC,
    "status 2x0": b"HTTP/1.1 2x0 OK\r\n" + _ABC,
    "no reason": b"HTTP/1.1 200\r\n" + _ABC,
    "an empty reason": b"HTTP/1.1 200 \r\n" + _ABC,
    "reason beyond ASCII": "HTTP/1.1 200 Grüß\r\n".encode() + _ABC,
    "NUL in the reason": b"HTTP/1.1 200 a\0b\r\n" + _ABC,
    "a reason of 60,000 bytes": b"HTTP/1.1 200 " + b"a" * 60_000 + b"\r\n" + _ABC,
    "a reason of 70,000 bytes": b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n" + _ABC,
    "two spaces": b"HTTP/1.1  200 OK\r\n" + _ABC,
    "an empty line first": b"\r\n" + _OK + _ABC,
    "a line feed first": b"\n" + _OK + _ABC,
    "a space first": b" " + _OK + _ABC,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + _ABC,
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + _ABC,
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n" + _ABC,
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\n" + _ABC,
    "http": b"http/1.1 200 OK\r\n" + _ABC,
    "ICY": b"ICY 200 OK\r\n" + _ABC,
    "RTSP": b"RTSP/1.0 200 OK\r\n" + _ABC,
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a page": b"<html>",
    "an alert of TLS": b"\x15\x03\x01\x00\x02\x02\x50",
    "settings of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "nothing": b"",
    "half a line": b"HTTP/1.1 20",
    "half a head": _OK,
    # -- interim answers
    "100": b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + _ABC,
    "100 with a length": b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n" + _OK + _ABC,
    "100 with chunks": b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n" + _OK + _ABC,
    "100 that closes": b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n" + _OK + _ABC,
    "100 in HTTP/1.0": b"HTTP/1.0 100 Continue\r\n\r\n" + _OK + _ABC,
    "100 alone": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n" + _OK + _ABC,
    "103 thrice": b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 3 + _OK + _ABC,
    "199": b"HTTP/1.1 199 Odd\r\n\r\n" + _OK + _ABC,
    # -- upgrades that are only offered
    "101 that upgrades": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n",
    "an offer to upgrade": _OK + b"Connection: upgrade\r\nUpgrade: h2,h2c\r\n" + _ABC,
    "an offer in one header": _OK + b"Upgrade: h2c\r\n" + _ABC,
    "426": b"HTTP/1.1 426 Upgrade\r\nConnection: upgrade\r\nUpgrade: ws\r\n" + _ABC,
    # -- without a body
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 and a body": b"HTTP/1.1 204 No Content\r\n" + _ABC,
    "204 and more": b"HTTP/1.1 204 No Content\r\n\r\nmore",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
    "205": b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
    "205 without a length": b"HTTP/1.1 205 Reset\r\n\r\n",
    # -- how the connection goes on
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + _ABC,
    "HTTP/1.0, keep-alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + _ABC,
    "HTTP/1.0, no length": b"HTTP/1.0 200 OK\r\n\r\nabc",
    "close": _OK + b"Connection: close\r\n" + _ABC,
    "CLOSE": _OK + b"connection: CLOSE\r\n" + _ABC,
    "close in a list": _OK + b"Connection: foo, close\r\n" + _ABC,
    "keep-alive, close": _OK + b"Connection: keep-alive, close\r\n" + _ABC,
    "keep-alive and close": _OK + b"Connection: keep-alive\r\nConnection: close\r\n" + _ABC,
    "foo": _OK + b"Connection: foo\r\n" + _ABC,
    "Proxy-Connection": _OK + b"Proxy-Connection: close\r\n" + _ABC,
    "Keep-Alive": _OK + b"Keep-Alive: timeout=0\r\n" + _ABC,
    "no length": _OK + b"\r\nabc",
    "no length, keep-alive": _OK + b"Connection: keep-alive\r\n\r\nabc",
    # -- what comes after the body
    "an unasked answer": _OK + _ABC + _OK + _ABC,
    "an unasked interim answer": _OK + _ABC + b"HTTP/1.1 100 Continue\r\n\r\n",
    "garbage after": _OK + _ABC + b"garbage",
    "NUL after": _OK + _ABC + b"\0",
    "more after close": _OK + b"Connection: close\r\n" + _ABC + b"more",
    "more after chunks": CHUNKED + _CHUNKS + b"more",
    # -- content codings
    "identity": _OK + b"Content-Encoding: identity\r\n" + _ABC,
    "gzip twice": _OK + b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n" + _ABC,
    "x-gzip": _OK + b"Content-Encoding: x-gzip\r\n" + _ABC,
    "no coding": _OK + b"Content-Encoding:\r\n" + _ABC,
    "gzip": _coded("gzip", _GZIP),
    "GZIP": _coded("GZIP", _GZIP),
    "gzip of nothing": _coded("gzip", b""),
    "gzip joined": _coded("gzip", _GZIP * 2),
    "gzip and more": _coded("gzip", _GZIP + b"xx"),
    "gzip and zeros": _coded("gzip", _GZIP + bytes(4)),
    "gzip that is none": _coded("gzip", b"nonsense"),
    "gzip after 204": b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n",
    "gzip in chunks": CHUNKED[:-2]
    + b"Content-Encoding: gzip\r\n\r\n"
    + chunk(_GZIP[:9])
    + chunk(_GZIP[9:])
    + chunk(b""),
    "deflate": _coded("deflate", _DEFLATE),
    "deflate and more": _coded("deflate", _DEFLATE + b"zz"),
    "bare deflate": _coded("deflate", _DEFLATE[2:-4]),
    # -- statuses that some clients act upon
    "302": b"HTTP/1.1 302 Found\r\nLocation: /x\r\n" + _ABC,
    "401": b"HTTP/1.1 401 Who\r\nWWW-Authenticate: Digest x\r\n" + _ABC,
    "407": b"HTTP/1.1 407 Who\r\nProxy-Authenticate: x\r\n" + _ABC,
}


class Got(NamedTuple):
    """An outcome without its headers: see Outcome. ``error`` is one of the sentences below."""

    body: bytes = b"abc"
    error: str | None = None
    status: int | None = 200
    reused: bool = True
    own: bool = True


REFUSED: Final = Got(b"", "malformed: does not answer in HTTP", None, False)
UNCODED: Final = Got(b"", "malformed: is in a content-encoding that nobody asked for", None, False)
GOOD: Final = Got()


def _broken(body: bytes = b"abc", *, reused: bool = False) -> Got:
    return Got(body, "malformed: is malformed", reused=reused)


class Parting(NamedTuple):
    """An answer of which the transports make different things: each is said exactly."""

    said: bytes
    lean: Got
    session: Got
    why: str


_FOLD: Final = "a reader that does not unfold sees another header; RFC 9112, 5.2 lets us refuse it"
_LINE: Final = "a bare line feed ends a line for some readers only"
_BYTE: Final = "no control byte is part of a value (RFC 9110, 5.5)"
_CODING: Final = "the only transfer coding is chunked, once: another reader may frame the body otherwise"
_UNASKED: Final = "what comes unasked spoils the connection"
_SIZE: Final = "a chunk is a size, two bytes of line end, data, two bytes of line end"
_TRAILER: Final = "a trailer is a header as to its form"

PARTINGS: Final[dict[str, Parting]] = {
    "folded header": Parting(_OK + b"X-A: a\r\n b\r\n" + _ABC, REFUSED, GOOD, _FOLD),
    "folded by a tab": Parting(_OK + b"X-A: a\r\n\tb\r\n" + _ABC, REFUSED, GOOD, _FOLD),
    "folded length": Parting(_OK + b"Content-Length:\r\n 3\r\n\r\nabc", REFUSED, GOOD, _FOLD),
    "folded first line": Parting(_OK + b" X: y\r\n" + _ABC, REFUSED, GOOD, _FOLD),
    "bare line feed": Parting(_OK + b"X-A: a\n" + _ABC, REFUSED, GOOD, _LINE),
    "bare line feeds alone": Parting((_OK + _ABC).replace(b"\r\n", b"\n"), REFUSED, GOOD, _LINE),
    "bare line feed ends the head": Parting(_OK + b"Content-Length: 3\r\n\nabc", REFUSED, GOOD, _LINE),
    "space before the length's colon": Parting(
        _OK + b"Content-Length : 3\r\n\r\nabc", REFUSED, GOOD, "another reader sees no length"
    ),
    "control byte": Parting(_OK + b"X-A: a\x01b\r\n" + _ABC, REFUSED, GOOD, _BYTE),
    "vertical tab": Parting(_OK + b"X-A: a\x0b\r\n" + _ABC, REFUSED, GOOD, _BYTE),
    "delete": Parting(_OK + b"X-A: a\x7fb\r\n" + _ABC, REFUSED, GOOD, _BYTE),
    "gzip, chunked": Parting(CHUNKED.replace(b"chunked", b"gzip, chunked") + _CHUNKS, REFUSED, GOOD, _CODING),
    "chunked, gzip": Parting(
        CHUNKED.replace(b"chunked", b"chunked, gzip") + _CHUNKS, REFUSED, Got(_CHUNKS, reused=False), _CODING
    ),
    "chunked, identity": Parting(
        CHUNKED.replace(b"chunked", b"chunked, identity") + _CHUNKS, REFUSED, Got(_CHUNKS, reused=False), _CODING
    ),
    "xchunked": Parting(
        CHUNKED.replace(b"chunked", b"xchunked") + _CHUNKS, REFUSED, Got(_CHUNKS, reused=False), _CODING
    ),
    "chunked;a=b": Parting(
        CHUNKED.replace(b"chunked", b"chunked;a=b") + _CHUNKS, REFUSED, Got(_CHUNKS, reused=False), _CODING
    ),
    "transfer coding identity": Parting(
        _OK + b"Transfer-Encoding: identity\r\n\r\nabc", REFUSED, Got(reused=False), _CODING
    ),
    "empty transfer coding": Parting(_OK + b"Transfer-Encoding: \r\n\r\nabc", REFUSED, Got(reused=False), _CODING),
    "chunked twice": Parting(CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKS, REFUSED, GOOD, _CODING),
    "comma before chunked": Parting(CHUNKED.replace(b"chunked", b",chunked") + _CHUNKS, REFUSED, GOOD, _CODING),
    "101 without a word of upgrade": Parting(
        b"HTTP/1.1 101 Switching\r\n\r\n",
        Got(b"", "malformed: switched protocols, which nobody asked for", None, False),
        Got(b"", "malformed: switched protocols, which nobody asked for", None, True),
        "nobody knows what is spoken on it now",
    ),
    "status 099": Parting(b"HTTP/1.1 099 OK\r\n" + _ABC, REFUSED, Got(status=99), "no status is below 100"),
    "status 000": Parting(b"HTTP/1.1 000 OK\r\n" + _ABC, REFUSED, Got(status=0), "no status is below 100"),
    "zstd": Parting(
        _OK + b"Content-Encoding: zstd\r\n" + _ABC, UNCODED, _broken(b""), "we undo only what some servers do unasked"
    ),
    "gzip without its end": Parting(
        _coded("gzip", _GZIP[:-3]), _broken(b"hello", reused=True), Got(b"hello"), "its checksum was not seen"
    ),
    "deflate without its end": Parting(
        _coded("deflate", _DEFLATE[:-2]), _broken(b"hello", reused=True), _broken(b"hello"), "its framing was whole"
    ),
    "deflate twice": Parting(
        _coded("deflate", _DEFLATE * 2), _broken(b"hello"), Got(b"hellohello"), "only gzip knows joined streams"
    ),
    "bare deflate and more": Parting(
        _coded("deflate", _DEFLATE[2:-4] + b"zz"), _broken(b"hello"), _broken(b"hello\xe5"), "what follows is no data"
    ),
    "line end after the body": Parting(_OK + _ABC + b"\r\n", Got(reused=False), GOOD, _UNASKED),
    "line end after the chunks": Parting(CHUNKED + _CHUNKS + b"\r\n", Got(reused=False), GOOD, _UNASKED),
    "line feed after the body": Parting(_OK + _ABC + b"\n", Got(reused=False), GOOD, _UNASKED),
    "space after a chunk's size": Parting(CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", _broken(b""), GOOD, _SIZE),
    "space before an extension": Parting(CHUNKED + b"3 ;a=b\r\nabc\r\n0\r\n\r\n", _broken(b""), GOOD, _SIZE),
    "line feed after an extension": Parting(CHUNKED + b"3;a\nabc\r\n0\r\n\r\n", _broken(b""), GOOD, _SIZE),
    "line feed after a chunk": Parting(CHUNKED + b"3\r\nabc\n0\r\n\r\n", _broken(), GOOD, _SIZE),
    "line feeds after the last chunk": Parting(
        CHUNKED + b"3\r\nabc\r\n0\n\n",
        _broken(),
        Got(error="cut: closed the connection in the middle of its answer", reused=False),
        _SIZE,
    ),
    "line feed ends the chunks": Parting(CHUNKED + b"3\r\nabc\r\n0\r\n\n", _broken(), GOOD, _SIZE),
    "trailer Connection": Parting(
        CHUNKED + b"3\r\nabc\r\n0\r\nConnection: close\r\n\r\n",
        Got(reused=False),
        GOOD,
        "llhttp heeds it, so that the next answer would be refused",
    ),
    "folded trailer": Parting(CHUNKED + b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n", _broken(), GOOD, _TRAILER),
    "NUL in a trailer": Parting(CHUNKED + b"3\r\nabc\r\n0\r\nX: a\0b\r\n\r\n", _broken(), GOOD, _TRAILER),
    "line feed in a trailer": Parting(CHUNKED + b"3\r\nabc\r\n0\r\nX: a\n\r\n", _broken(), GOOD, _TRAILER),
    "a head above 64 KiB by little": Parting(
        whole(b"abc", "X: " + "a" * 65_530), REFUSED, GOOD, "our limit is for the whole head, aiohttp's for a line"
    ),
    "a head of 100 KB": Parting(
        whole(b"abc", *[f"X{n}: " + "a" * 10_000 for n in range(10)]),
        REFUSED,
        GOOD,
        "our limit is for the whole head, aiohttp's for a line",
    ),
}
"""Brotli is not among them: what aiohttp makes of it depends on whether its library is installed."""
