"""Server-sent events: any split gives the same frames, and the bytes of the frames are the bytes that came.

The examples of parse_frame are those of WHATWG HTML, section 9.2.6 "Interpreting an event stream", read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from headgate.gateway.wire import sse
from headgate.gateway.wire.sse import PING, FrameTooLarge, SseFramer, parse_frame
from hypothesis import example, given, settings
from hypothesis import strategies as st

MAX = 1 << 20


def framed(pieces: Iterable[bytes], maximum: int = MAX) -> tuple[bytes, list[bytes], bytes, list[bytes]]:
    """Return the bytes and frames of all reads, and those of close()."""
    framer = SseFramer(maximum)
    raw, frames = b"", []
    for piece in pieces:
        more, whole = framer.feed(piece)
        assert bool(more) == bool(whole), "bytes come with frames"
        raw += more
        frames += whole
    return raw, frames, *framer.close()


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


# -- frames


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (b"", []),
        (b"data: a\n\n", [b"data: a"]),
        (b"data: a\r\n\r\n", [b"data: a"]),
        (b"data: a\r\r", [b"data: a"]),
        (b"data: a\r\n\n", [b"data: a"]),
        (b"data: a\n\r\n", [b"data: a"]),
        (b"data: a\n\r", [b"data: a"]),
        (b"data: a\r\r\ndata: b\n\n", [b"data: a", b"data: b"]),
        (b"data: a\n\ndata: b\r\n\r\ndata: c\r\r", [b"data: a", b"data: b", b"data: c"]),
        (b"event: x\ndata: a\n\n: ping\n\ndata: b\n\n", [b"event: x\ndata: a", b": ping", b"data: b"]),
        (b"\n\ndata: a\n\n", [b"", b"data: a"]),
        (b"data: a\n\n\ndata: b\n\n", [b"data: a", b"\ndata: b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"\xef\xbb\xbfdata: a"]),
        ("data: \u2028\u0085é\n\n".encode(), ["data: \u2028\u0085é".encode()]),
    ],
)
def test_frames(data: bytes, frames: list[bytes]) -> None:
    for pieces in ([data], bytewise(data), [data[:1], data[1:]], [data[:-1], data[-1:]]):
        raw, whole, rest, last = framed(pieces)
        assert whole + last == frames
        assert raw + rest == data


@pytest.mark.parametrize(
    ("data", "rest", "frames"),
    [
        (b"", b"", []),
        (b"\n", b"\n", []),
        (b" \r\n", b" \r\n", []),
        (b"data: a", b"data: a\n\n", [b"data: a"]),
        (b"data: a\n", b"data: a\n\n", [b"data: a"]),
        (b"data: a\r\n", b"data: a\r\n\r\n", [b"data: a"]),
        (b"event: x\r\ndata: a", b"event: x\r\ndata: a\r\n\r\n", [b"event: x\r\ndata: a"]),
        (b"data: a\r\n\r", b"data: a\r\n\r", [b"data: a"]),
        (b"data: a\r\r", b"data: a\r\r", [b"data: a"]),
    ],
)
def test_close_closes_off_what_is_left(data: bytes, rest: bytes, frames: list[bytes]) -> None:
    for pieces in ([data], bytewise(data)):
        assert framed(pieces) == (b"", [], rest, frames)


def test_close_leaves_nothing_behind() -> None:
    framer = SseFramer(MAX)
    framer.feed(b"data: a")
    framer.close()
    assert framer.close() == (b"", [])
    assert framer.feed(b"data: b\n\n") == (b"data: b\n\n", [b"data: b"])


_BYTES = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"data: a", b": c", b"x", b"\xc3\xa9"]), max_size=14)


@settings(max_examples=300, deadline=None)
@given(_BYTES.map(b"".join), st.data())
@example(b"a\r\r\nb\n\n", None)
def test_any_split_gives_the_same_frames(data: bytes, draw: Any) -> None:
    pieces = bytewise(data)
    if draw is not None:
        cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
        pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    raw, frames, rest, last = framed(pieces)
    whole_raw, whole_frames, whole_rest, whole_last = framed([data])
    assert frames + last == whole_frames + whole_last
    assert raw + rest == whole_raw + whole_rest
    assert data.startswith(raw)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([b"data: a", b"event: b\ndata", b": c", b"id: 7"]), st.integers(0, 2)), max_size=6
    )
)
def test_whole_frames_come_back_byte_for_byte(frames: list[tuple[bytes, int]]) -> None:
    data = b"".join(frame + (b"\n\n", b"\r\n\r\n", b"\n\r\n")[end] for frame, end in frames)
    for pieces in ([data], bytewise(data)):
        raw, whole, rest, last = framed(pieces)
        assert whole + last == [frame for frame, _ in frames]
        assert raw + rest == data


def test_an_empty_read_is_nothing() -> None:
    assert framed([b"", b"data: a\r\n", b"", b"\r", b"", b"\n", b""])[1] == [b"data: a"]


def test_a_frame_is_not_delayed_where_its_end_is_plain() -> None:
    for end in (b"\n\n", b"\r\n\r\n", b"\r\n\n"):
        framer = SseFramer(MAX)
        assert framer.feed(b"data: a" + end) == (b"data: a" + end, [b"data: a"])


# -- the cap


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_frame_above_the_cap_is_refused(line_end: bytes) -> None:
    framer = SseFramer(20)
    assert framer.feed(b"data: " + b"x" * 14) == (b"", [])
    with pytest.raises(FrameTooLarge, match="20 bytes"):
        framer.feed(b"x" + line_end)
    with pytest.raises(FrameTooLarge):
        SseFramer(20).feed(b"data: " + b"x" * 14 + line_end)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_frames_before_the_one_that_is_too_large_come_out(line_end: bytes) -> None:
    framer, first = SseFramer(20), b"data: a" + line_end * 2
    assert framer.feed(first + b"data: " + b"x" * 30) == (first, [b"data: a"])
    with pytest.raises(FrameTooLarge):
        framer.feed(b"x")


def test_the_cap_is_for_one_frame() -> None:
    framer = SseFramer(20)
    for _ in range(10):
        assert framer.feed(b"data: aaaaaa")[1] == []
        assert framer.feed(b"\n\n")[1] == [b"data: aaaaaa"]


# -- the cost


class _Counting(bytes):
    """Bytes that count how often, and over how many bytes, somebody looks at them or copies them."""

    looked = 0

    def __add__(self, other: object) -> _Counting:
        assert isinstance(other, bytes)
        _Counting.looked += len(self) + len(other)
        return _Counting(bytes(self) + bytes(other))

    def __radd__(self, other: bytes) -> _Counting:
        _Counting.looked += len(self) + len(other)
        return _Counting(other + bytes(self))

    def __contains__(self, other: object) -> bool:
        _Counting.looked += len(self)
        return bytes.__contains__(self, other)  # type: ignore[operator]

    def __getitem__(self, at: Any) -> Any:
        piece = bytes.__getitem__(self, at)
        if isinstance(piece, bytes):
            _Counting.looked += len(piece)
            return _Counting(piece)
        return piece


class _Pattern:
    """Counts the bytes that a search may have to look at."""

    def __init__(self, pattern: Any) -> None:
        self.pattern = pattern
        self.looked = 0

    def search(self, data: bytes) -> Any:
        self.looked += len(data)
        return self.pattern.search(data)

    def finditer(self, data: bytes) -> Any:
        self.looked += len(data)
        return self.pattern.finditer(data)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("lines", [False, True], ids=["one line", "many lines"])
def test_a_huge_frame_over_many_small_reads_is_linear(
    monkeypatch: pytest.MonkeyPatch, line_end: bytes, lines: bool
) -> None:
    pattern = _Pattern(sse._BLANK_LINE)
    monkeypatch.setattr(sse, "_BLANK_LINE", pattern)
    data = (b"data: " + b"x" * 10 + line_end) * 400 if lines else b"data: " + b"x" * 6000 + line_end
    data += line_end
    framer = SseFramer(MAX)
    _Counting.looked = 0
    whole: list[bytes] = []
    for piece in bytewise(data):
        whole += framer.feed(_Counting(piece))[1]
    whole += framer.close()[1]
    assert len(whole) == 1
    assert _Counting.looked + pattern.looked <= 16 * len(data)


def test_many_frames_in_one_read_are_cut_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = _Pattern(sse._BLANK_LINE)
    monkeypatch.setattr(sse, "_BLANK_LINE", pattern)
    data = b"data: a\r\n\r\n" * 1000
    assert len(SseFramer(MAX).feed(data)[1]) == 1000
    assert pattern.looked == len(data)


# -- what stands in a frame


@pytest.mark.parametrize(
    ("frame", "name", "data"),
    [
        (b"data: a", b"", b"a"),
        (b"data:a", b"", b"a"),
        (b"data:  a ", b"", b" a "),
        (b"data", b"", b""),
        (b"data:", b"", b""),
        (b"data: ", b"", b""),
        (b"data\ndata", b"", b"\n"),
        (b"data: YHOO\ndata: +2\ndata: 10", b"", b"YHOO\n+2\n10"),
        (b"data: a\r\ndata: b\rdata: c\ndata: d", b"", b"a\nb\nc\nd"),
        (b": test stream", b"", None),
        (b":", b"", None),
        (b"", b"", None),
        (b"\n", b"", None),
        (b": c\ndata: first event\nid: 1", b"", b"first event"),
        (b"data:second event\nid", b"", b"second event"),
        (b"event: add\ndata: 73857293", b"add", b"73857293"),
        (b"data: 1\nevent:x\nevent: y", b"y", b"1"),
        (b"event: lonely", b"lonely", None),
        (b"retry: 10\nid: 3\nunknown: x\ndatax: no", b"", None),
        (b" data: no", b"", None),
        (b"\ndata: a", b"", b"a"),
        (b"\xef\xbb\xbfdata: a", b"", b"a"),
        (b"\xef\xbb\xbfevent: e\ndata: a", b"e", b"a"),
        (b'data: {"a": "x: y"}', b"", b'{"a": "x: y"}'),
        ("data: \u2028é".encode(), b"", "\u2028é".encode()),
    ],
)
def test_parse_frame(frame: bytes, name: bytes, data: bytes | None) -> None:
    assert parse_frame(frame) == (name, data)


def test_the_ping_is_a_comment_frame() -> None:
    assert SseFramer(MAX).feed(PING) == (PING, [PING[:-2]])
    assert parse_frame(PING[:-2]) == (b"", None)
