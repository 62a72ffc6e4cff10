"""Newline-delimited JSON: a frame is a line. Sans-IO.

A line ends with LF, before which a CR may stand; inside JSON a line end is always escaped, so the first one is the end.
"""

from __future__ import annotations

from typing import Final

from .sse import FrameTooLarge

_SPLITTERS: Final = (
    (b"\xc2\x85", rb"\u0085"),
    (b"\xe2\x80\xa8", rb"\u2028"),
    (b"\xe2\x80\xa9", rb"\u2029"),
)
"""Letters that many line readers, Python's ``splitlines`` and httpx's ``iter_lines`` among them, take for line ends."""


class NdjsonFramer:
    """Cuts bytes into whole lines; keeps the partial one, up to ``max_frame_bytes``.

    While ``tail`` is empty, nothing is kept: a read that is known to be one whole line need not be fed.
    """

    __slots__ = ("_max", "_size", "tail")

    def __init__(self, max_frame_bytes: int) -> None:
        self.tail: list[bytes] = []
        self._size = 0
        self._max = max_frame_bytes

    def feed(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """Return the bytes of the lines that are whole now, and those lines without their ends.

        Raises FrameTooLarge when the partial line is above the cap; the framer is of no use after that. It is raised by
        itself: lines that became whole in the same read are returned, and the next read raises.
        """
        end = data.rfind(b"\n") + 1
        if not end:
            return self._keep(data)
        whole, rest = data[:end], data[end:]
        if self.tail:
            whole = b"".join((*self.tail, whole))
            self.tail.clear()
        self._size = len(rest)
        if rest:
            self.tail.append(rest)
        return whole, whole[:-1].split(b"\n")

    def close(self) -> bytes:
        """Return the last line if the bytes ended without its end; whether it is whole, only its JSON can tell."""
        rest = b"".join(self.tail)
        self.tail.clear()
        self._size = 0
        return rest

    def _keep(self, rest: bytes) -> tuple[bytes, list[bytes]]:
        if rest:
            self.tail.append(rest)
            self._size += len(rest)
        if self._size > self._max:
            raise FrameTooLarge(f"a line above {self._max} bytes")
        return b"", []


def line(text: bytes) -> bytes:
    """Return JSON ``text`` as one line with its end, which no reader takes for two."""
    return one_line(text) + b"\n"


def one_line(text: bytes) -> bytes:
    """Return JSON ``text`` as a line holds it: the same value, without anything that some reader takes for a line's end."""
    if b"\n" in text or b"\r" in text:
        text = text.replace(b"\n", b" ").replace(b"\r", b" ")  # white space between members: within texts it is escaped
    for letter, escape in _SPLITTERS:
        if letter in text:
            text = text.replace(letter, escape)
    return text
