"""One look at a whole JSON answer: is it an object, does it tell an error, what does it say of usage.

A third of the price of decoding it, and often all that anybody needs to know of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from .surrogates import mend_halves

NULL: Final = Raw(b"null")


class Outline(Struct):
    """Members as they are spelled, ``null`` where there is none. A format that spells them otherwise has its own."""

    error: Raw = NULL
    usage: Raw = NULL


Outliner: TypeAlias = Callable[[bytes], Outline]


def outliner(kind: type[Outline]) -> Outliner:
    """Return what reads a body as ``kind``.

    It raises msgspec.DecodeError, UnicodeDecodeError, RecursionError for what is no JSON object.
    """
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes) -> Outline:
        try:
            return decode(body)
        except msgspec.DecodeError:
            mended = mend_halves(body)
            if mended is body:
                raise
            return decode(mended)

    return read


outline: Final = outliner(Outline)
