"""Answers that hypothesis makes up, each with what any reader must make of it; and the same with a few bytes wrong."""

from __future__ import annotations

import gzip
import string
import zlib
from dataclasses import dataclass, field, replace
from itertools import pairwise

from hypothesis import strategies as st

from .player import End, Outcome
from .servers import whole

_TOKEN = "!#$%&'*+-.^_`|~" + string.ascii_letters + string.digits
_OURS = frozenset(
    {
        "content-length",
        "transfer-encoding",
        "connection",
        "proxy-connection",
        "upgrade",
        "content-encoding",
        "set-cookie",
        "keep-alive",
    }
)
"""Headers that mean something to a transport: written where they are meant, never by chance."""

_names = st.one_of(
    st.sampled_from(["Content-Type", "content-type", "X-Request-Id", "x-request-id", "Date", "Retry-After", "TE", "A"]),
    st.text(_TOKEN, min_size=1, max_size=12).filter(lambda name: name.lower() not in _OURS),
)
_text = st.characters(min_codepoint=0x21, exclude_characters="\x7f", exclude_categories=["Cs"])
_values = st.one_of(
    st.text(_text, max_size=12).map(lambda text: text.encode()),
    st.binary(max_size=8).map(lambda data: bytes(byte | 0x80 for byte in data)),
    st.lists(st.sampled_from([b"a", b"\t", b" ", b",", b'"', b":", b";"]), max_size=9).map(b"".join),
    st.integers(100, 4000).map(lambda size: b"v" * size),  # all of them below HEAD_LIMIT
)
_blanks = st.sampled_from([b"", b" ", b" ", b"\t", b"  \t "])
_lines = st.tuples(_names, _blanks, _values, _blanks)
_bodies = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"{}", b'data: {"a":1}\n\n' * 3, b"data: [DONE]\n\n", whole(b"evil")]),
    st.integers(1000, 200_000).map(lambda size: bytes(range(251)) * (size // 251)),
)
_extensions = st.sampled_from([b"", b"", b"", b";a", b";a=b", b";a=", b';a="b;c"', b';a="\\""', b";a=b;c=d"])


@dataclass(frozen=True)
class Answer:
    """``before`` ends with the blank line of the answer's head; ``after`` is what nobody asked for.

    ``expected`` is what is heard of ``before + body`` when all of it arrives and nothing after it.
    """

    before: bytes
    body: bytes
    after: bytes
    end: End
    expected: Outcome
    to_the_end: bool
    """Whether the body is as long as the connection."""
    coded: bool
    cuts: tuple[int, ...] = field(default=())

    def __repr__(self) -> str:
        shown = [
            repr(part if len(part) < 2000 else part[:2000] + b"...") for part in (self.before, self.body, self.after)
        ]
        return f"Answer({', '.join(shown)}, {self.end!r}, cuts={self.cuts}, expected={str(self.expected)[:500]})"

    @property
    def said(self) -> bytes:
        return self.before + self.body + self.after

    def pieces(self) -> tuple[bytes, ...]:
        """Return what is said, cut where it shall be, and where the body and what is after it begin."""
        return sliced(self.said, {*self.cuts, len(self.before), len(self.before) + len(self.body)})


def sliced(said: bytes, places: set[int]) -> tuple[bytes, ...]:
    """Cut ``said`` at ``places``; no piece is empty."""
    borders = sorted({0, len(said), *(place for place in places if 0 < place < len(said))})
    return tuple(said[start:end] for start, end in pairwise(borders))


def _written(lines: list[tuple[str, bytes, bytes, bytes]]) -> bytes:
    return b"".join(b"%b:%b%b%b\r\n" % (name.encode(), left, value, right) for name, left, value, right in lines)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """A well-formed answer, and perhaps more after it."""
    interim = b"".join(
        b"HTTP/1.1 %d x\r\n%b\r\n" % (draw(st.sampled_from([100, 102, 103, 199])), _written(draw(_few)))
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3])))
    )
    old = draw(st.sampled_from([False, False, False, True]))
    status = draw(st.sampled_from([200, 200, 201, 400, 404, 413, 429, 500, 503, 529, 599, 999, 204, 304]))
    lines = draw(_some)
    connection = draw(st.sampled_from([b"", b"", b"close", b"keep-alive", b"Keep-Alive", b"CLOSE", b"x, close", b"x"]))
    stays = connection.lower() == b"keep-alive" if old else b"close" not in connection.lower()
    if connection:
        lines.insert(draw(st.integers(0, len(lines))), ("connection", b" ", connection, b""))
    body = draw(_bodies)
    coding = draw(st.sampled_from(["", "", "", "gzip", "GZip", "deflate", "bare"])) if body else ""
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if old and framing == "chunked":
        framing = "length"
    if status in (204, 304):
        framing, body, coding = draw(st.sampled_from(["none", "a length"])), b"", ""
    shown = dict[str, str]()
    packed = body
    if coding:
        packed = _packed(coding, body)
        lines.append(("Content-Encoding", b" ", b"deflate" if coding == "bare" else coding.encode(), b""))
    said = packed
    if framing == "length":
        lines.insert(draw(st.integers(0, len(lines))), ("Content-Length", b" ", b"%d" % len(packed), draw(_blanks)))
    elif framing == "a length":
        lines.append(("content-length", b"", b"7", b""))
    elif framing == "chunked":
        lines.insert(draw(st.integers(0, len(lines))), ("transfer-encoding", b" ", b"Chunked", b""))
        said = _chunked(draw, packed)
    else:
        stays = stays and framing == "none"
    for name, _, value, _ in lines:
        known, text = name.lower(), value.decode("utf-8", "surrogateescape").strip(" \t")
        shown[known] = f"{shown[known]}, {text}" if known in shown else text
    if coding:
        del shown["content-encoding"]
        shown.pop("content-length", None)
    first = b"HTTP/1.%d %d%b" % (not old, status, draw(st.sampled_from([b" OK", b" ", b"", b" a b", b" \xc3\xbc"])))
    before = interim + first + b"\r\n" + _written(lines) + b"\r\n"
    to_the_end = framing == "close"
    after = b"" if to_the_end else draw(_afters)
    end = draw(st.sampled_from(_CLOSING)) if to_the_end else draw(st.sampled_from(_ANY))
    expected = Outcome(status, tuple(sorted(shown.items())), body, None, stays and end == "keep")
    cuts = draw(st.lists(st.integers(1, len(before) + len(said)), max_size=8))
    return Answer(before, said, after, end, expected, to_the_end, bool(coding), tuple(cuts))


_few = st.lists(_lines, max_size=2)
_some = st.lists(_lines, max_size=5)
_afters = st.one_of(
    st.just(b""),
    st.just(b""),
    st.just(b""),
    st.just(whole(b"evil")),
    st.binary(min_size=1, max_size=5),
    st.just(b"\r\n"),
)
_CLOSING: tuple[End, ...] = ("close", "half")
_ANY: tuple[End, ...] = ("keep", "keep", "close", "half", "reset")


def _packed(coding: str, body: bytes) -> bytes:
    if coding.lower() == "gzip":
        return gzip.compress(body, mtime=0)
    return zlib.compress(body) if coding == "deflate" else zlib.compress(body)[2:-4]


def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    places = draw(st.sets(st.integers(1, max(1, len(body) - 1)), max_size=6))
    sizes = draw(st.sampled_from([b"%x", b"%X", b"%04x", b"%018X"]))
    chunks = [
        (sizes % len(piece)) + draw(_extensions) + b"\r\n" + piece + b"\r\n" for piece in sliced(body, places) if piece
    ]
    trailers = draw(st.one_of(st.just([]), _few))
    return b"".join(chunks) + b"0" + draw(_extensions) + b"\r\n" + _written(trailers) + b"\r\n"


@st.composite
def broken_off(draw: st.DrawFn) -> Answer:
    """An answer that ends early, at any byte."""
    answer = draw(answers())
    whole_size = len(answer.before) + len(answer.body)
    size = draw(st.one_of(st.integers(0, whole_size), st.integers(len(answer.before), whole_size)))
    end = draw(st.sampled_from(_ANY))
    said = answer.said[:size]
    return replace(answer, before=said[: len(answer.before)], body=said[len(answer.before) :], after=b"", end=end)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """What an answer becomes when a few bytes of it are changed, lost, doubled or added."""
    said = bytearray(draw(answers().filter(lambda answer: len(answer.said) < 700)).said)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(said) - 1)))
        how = draw(st.sampled_from(["change", "lose", "add", "double"]))
        stuff = draw(st.one_of(st.sampled_from(_STUFF), st.binary(min_size=1, max_size=2)))
        size = draw(st.integers(1, 12))
        if how == "change":
            said[place : place + len(stuff)] = stuff
        elif how == "lose":
            del said[place : place + size]
        elif how == "add":
            said[place:place] = stuff
        else:
            said[place:place] = said[place : place + size]
    return bytes(said)


_STUFF = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b":",
    b"0",
    b"\r\n\r\n",
    b"\r\n ",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"HTTP/1.1 100 x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"0\r\n\r\n",
    b"-",
    b"+",
    b",",
    b";",
    b"\xff",
]
