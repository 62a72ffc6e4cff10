"""Taking a content-coding off an answer that nobody wanted coded, never more than a piece at a time."""

from __future__ import annotations

import zlib
from typing import Final

PIECE: Final = 64 * 1024
"""Bytes that come out at once: a small answer may hold any number of them."""


class Inflate:
    """Gzip or deflate, fed as it comes. ``zlib.error`` is raised for bytes that are neither."""

    __slots__ = ("_zlib", "_gzip", "_left", "_begun")

    def __init__(self, coding: str) -> None:
        self._gzip = coding == "gzip"
        self._zlib = zlib.decompressobj(31 if self._gzip else 15)
        self._left = b""
        self._begun = False

    @property
    def complete(self) -> bool:
        """Whether the coding's own end was read (or nothing at all: an empty body is no error)."""
        return self._zlib.eof or not self._begun

    @property
    def waiting(self) -> int:
        """How many coded bytes are still to be decoded."""
        return len(self._left)

    def feed(self, data: bytes) -> None:
        """Take coded bytes."""
        if not self._begun and data:
            self._begun = True
            if not self._gzip and data[0] & 0x0F != 8:  # "deflate" without zlib's header, as some servers mean it
                self._zlib = zlib.decompressobj(-15)
        self._left += data

    def next(self) -> bytes:
        """Return up to PIECE decoded bytes; none when there is no more to be had from what was fed."""
        while True:
            if self._zlib.eof:
                if not self._left:
                    return b""
                if not self._gzip:
                    raise zlib.error("more data after the end of a deflate stream")
                self._zlib = zlib.decompressobj(31)  # gzip files may be joined (RFC 1952, 2.2)
            data = self._zlib.decompress(self._left, PIECE)
            self._left = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
            if data or not self._zlib.eof:
                return data
