"""Server-sent events: where a frame ends, and what stands in it.

Source: WHATWG HTML, "9.2 Server-sent events": lines end with LF, CRLF or CR, a blank line ends an event, lines that begin
with a colon are comments, several data lines are joined by LF. It does not interpret retry and id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_encode: Final = msgspec.json.Encoder().encode
_BOM: Final = b"\xef\xbb\xbf"
PING: Final = b": ping\n\n"


class FrameTooLarge(ValueError):
    """A frame grew past the cap before its blank line came."""


class SseFramer:
    """Cuts bytes into whole frames; keeps the partial one, up to ``max_frame_bytes``.

    While ``tail`` is empty, nothing is kept: a read that is known to be one whole frame need not be fed.
    """

    __slots__ = ("tail", "_size", "_max")

    def __init__(self, max_frame_bytes: int) -> None:
        self.tail: list[bytes] = []
        self._size = 0
        self._max = max_frame_bytes

    def feed(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """Return the bytes of the frames that are whole now, and those frames without their blank lines.

        A frame whose blank line ends with CR waits for the next byte, which may be the LF of a CRLF.
        Raises FrameTooLarge when the partial frame is above the cap; the framer is of no use after that. It is raised by
        itself: frames that became whole in the same read are returned, and the next read raises.
        """
        if self.tail:
            tail = self.tail[-1]
            # A long frame over many reads: look at the new bytes alone (and a border of three), join once it is whole.
            if not _ends_inside(tail[-3:] + data):
                return self._keep(data) if data else (b"", [])  # the last piece is what the next look needs
            self.tail.append(data)
            data = b"".join(self.tail)
            self.tail.clear()
            self._size = 0
        if b"\r" in data:
            return self._feed_any_line_end(data)
        frames = data.split(b"\n\n")
        rest = frames.pop()
        if rest:
            if not frames:
                return self._keep(rest)
            self.tail.append(rest)
            self._size = len(rest)
            data = data[: len(data) - len(rest)]
        return data, frames

    @property
    def half(self) -> bool:
        """Whether bytes are kept that no blank line ends: if nothing more comes, they broke off, or left it out."""
        return bool(self.tail) and _BLANK_LINE.search(b"".join(self.tail)) is None

    def close(self) -> tuple[bytes, list[bytes]]:
        """Return the last frame if the bytes ended without its blank line, closed off as if it had come.

        White space that nothing followed is no frame; its bytes are returned without one.
        """
        rest = b"".join(self.tail)
        self.tail.clear()
        self._size = 0
        if not rest.strip():
            return rest, []
        if (blank := _BLANK_LINE.search(rest)) is not None:  # it waited for an LF
            return rest, [rest[: blank.start()]]
        end = b"\r\n\r\n" if b"\r\n" in rest else b"\n\n"
        return rest.rstrip(b"\r\n") + end, [rest.rstrip(b"\r\n")]

    def _feed_any_line_end(self, data: bytes) -> tuple[bytes, list[bytes]]:
        frames, start = [], 0
        for blank in _BLANK_LINE.finditer(data):
            if blank.end() == len(data) and data.endswith(b"\r"):
                break
            frames.append(data[start : blank.start()])
            start = blank.end()
        if start < len(data):
            if not frames:
                return self._keep(data)
            self.tail.append(data[start:])
            self._size = len(data) - start
        return data[:start], frames

    def _keep(self, rest: bytes) -> tuple[bytes, list[bytes]]:
        self.tail.append(rest)
        self._size += len(rest)
        if self._size > self._max:
            raise FrameTooLarge(f"a frame above {self._max} bytes")
        return b"", []


def _ends_inside(data: bytes) -> bool:
    if b"\r" in data:
        return _BLANK_LINE.search(data) is not None
    return b"\n\n" in data


def spans(raw: bytes, frames: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return where each of ``frames`` stands in the bytes ``raw`` they were cut from, its blank line included."""
    found, start = [], 0
    for frame in frames:
        end = start + len(frame)
        if blank := _BLANK_LINE.match(raw, end):
            end = blank.end()
        found.append((start, end))
        start = end
    return found


def one_line(value: object) -> bytes:
    """Return ``value`` as JSON without line ends: what was kept of a pretty-printed answer would break the frame.

    A line end in JSON is white space; within a string it is escaped.
    """
    text = _encode(value)
    if b"\n" in text or b"\r" in text:
        return text.replace(b"\n", b" ").replace(b"\r", b" ")
    return text


def parse_frame(frame: bytes) -> tuple[bytes, bytes | None]:
    """Return the event name (empty if none) and the data of a frame; None where it has no data line (a comment)."""
    if frame.startswith(b"data: ") and b"\n" not in frame and b"\r" not in frame:
        return b"", frame[6:]
    name, data = b"", None
    for line in _LINE_END.split(frame.removeprefix(_BOM)):
        field, colon, value = line.partition(b":")
        if colon and not field:
            continue
        value = value.removeprefix(b" ")
        if field == b"data":
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            name = value
    return name, data
