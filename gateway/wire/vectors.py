"""Vectors in JSON: an array of numbers, or a string of base64 over little-endian float32; one into the other."""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode, b64encode
from typing import Final

import msgspec
from msgspec import Raw

_NUMBERS: Final = msgspec.json.Decoder(list[float])
_TEXT: Final = msgspec.json.Decoder(str)
_encode: Final = msgspec.json.Encoder().encode
_FLOAT_BYTES: Final = 4


def is_packed(vector: Raw) -> bool:
    """Whether the vector is a string; numbers else, if it is a vector at all."""
    return bytes(memoryview(vector)[:1]) == b'"'


def pack(vector: Raw) -> Raw:
    """Return the numbers as base64; what a float32 cannot hold of them is rounded off. Raises ValueError."""
    try:
        numbers = array("f", _NUMBERS.decode(vector))
    except (msgspec.DecodeError, OverflowError) as fault:
        raise ValueError(f"no vector: {fault}") from fault
    if sys.byteorder == "big":
        numbers.byteswap()
    return Raw(b'"%b"' % b64encode(numbers.tobytes()))


def unpack(vector: Raw) -> Raw:
    """Return the numbers of a vector in base64, exactly as they are. Raises ValueError."""
    try:
        data = b64decode(_TEXT.decode(vector), validate=True)
    except (msgspec.DecodeError, ValueError) as fault:
        raise ValueError(f"no vector: {fault}") from fault
    if len(data) % _FLOAT_BYTES:
        raise ValueError(f"no vector: {len(data)} bytes are no numbers of {_FLOAT_BYTES} bytes")
    numbers = array("f")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return Raw(_encode(numbers.tolist()))
