"""A JSON array that arrives bit by bit: where an element ends and the next begins. Sans-IO.

An element is an object or an array; a lone object in the place of the array counts as its only element, which is how some
servers tell an error. Bytes between elements belong to the frame that they stand before, those of the end to the last one.
"""

from __future__ import annotations

import re
from typing import Final

from .sse import FrameTooLarge

_OUTSIDE: Final = re.compile(rb'["{}\[\]]')
_INSIDE: Final = re.compile(rb'["\\]')
_BETWEEN: Final = b" \t\r\n,\xef\xbb\xbf"
_OPENING: Final = b"{["


class NotAnArray(ValueError):
    """The bytes are no JSON array of objects."""


class ArrayFramer:
    """Cuts the bytes of an array into its elements; keeps the partial one, up to ``max_frame_bytes``.

    ``ended`` is set once the closing bracket came.
    """

    __slots__ = ("_buffer", "_depth", "_escaped", "_lone", "_max", "_opened", "_size", "_start", "_string", "ended")

    def __init__(self, max_frame_bytes: int) -> None:
        self.ended = False
        self._max = max_frame_bytes
        self._buffer: list[bytes] = []
        self._size = 0
        self._depth = 0  # of brackets that are open within an element
        self._start = -1  # of the element that is open, counted from the first byte kept
        self._opened = False
        self._lone = False
        self._string = False
        self._escaped = False

    def feed(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """Return the bytes up to the end of the last whole element, and the elements that are whole now.

        Raises NotAnArray for anything else than elements, commas and white space, FrameTooLarge when the partial element
        is above the cap; the framer is of no use after that. Elements that became whole before the fault are returned,
        and the next read raises.
        """
        spans: list[tuple[int, int]] = []
        end, fault = self._scan(data, spans)
        if fault and not spans:
            raise NotAnArray("expected an array of objects")
        if not end:
            if data:
                self._buffer.append(data)
                self._size += len(data)
            if self._size > self._max:
                raise FrameTooLarge(f"an element above {self._max} bytes")
            return b"", []
        raw = b"".join((*self._buffer, data[:end]))
        rest = data[end:]
        self._buffer = [rest] if rest else []
        self._size = len(rest)
        if self._start >= 0:
            self._start -= len(raw)
        return raw, [raw[start:stop] for start, stop in spans]

    def _scan(self, data: bytes, spans: list[tuple[int, int]]) -> tuple[int, bool]:
        """Note the spans of elements that end in ``data``; return where the last of them, or the array, ends in it.

        The second value is whether something stands there that is no array. It is found again at the next read, since
        what follows the last element is kept.
        """
        place = int(self._escaped)
        if data:
            self._escaped = False
        end = 0
        while True:
            if self._string:
                mark = _INSIDE.search(data, place)
                if mark is None:
                    return end, False
                place = mark.end()
                if mark.group() == b'"':
                    self._string = False
                elif place == len(data):
                    self._escaped = True
                    return end, False
                else:
                    place += 1
                continue
            mark = _OUTSIDE.search(data, place)
            until = len(data) if mark is None else mark.start()
            if not self._depth and data[place:until].strip(_BETWEEN):
                return end, True
            if mark is None:
                return (len(data), False) if self.ended else (end, False)
            token, place = mark.group(), mark.end()
            if self._depth:
                if token == b'"':
                    self._string = True
                elif token in _OPENING:
                    self._depth += 1
                else:
                    self._depth -= 1
                    if not self._depth:
                        spans.append((self._start, self._size + place))
                        self._start, end = -1, place
                        self.ended = self._lone
            elif self.ended or token == b'"' or token == b"}":
                return end, True
            elif token == b"]":
                if not self._opened:
                    return end, True
                self.ended, end = True, place
            elif token == b"[" and not self._opened:
                self._opened = True
            else:
                self._lone = not self._opened
                self._opened = True
                self._depth, self._start = 1, self._size + mark.start()
