"""One look at a whole JSON answer: is it an object, does it tell an error, what does it say of usage.

A third of the price of decoding it, and often all that anybody needs to know of it.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from .surrogates import mend_halves

NULL: Final = Raw(b"null")


class Outline(Struct):
    """Members as they are spelled, ``null`` where there is none."""

    error: Raw = NULL
    usage: Raw = NULL


_OUTLINE: Final = msgspec.json.Decoder(Outline)


def outline(body: bytes) -> Outline:
    """Return what ``body`` says. Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError for what is no JSON object."""
    try:
        return _OUTLINE.decode(body)
    except msgspec.DecodeError:
        mended = mend_halves(body)
        if mended is body:
            raise
        return _OUTLINE.decode(mended)
