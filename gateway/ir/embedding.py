"""Embeddings: what is asked for and what comes back, whichever format says it.

A vector stays as the provider spelled it, a JSON array of numbers or a JSON string of base64: it is converted only for a
caller who asked for the other spelling.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Raw, Struct

from .event import Usage
from .loss import Loss
from .message import NO_EXTRA, Extra

Encoding: TypeAlias = Literal["float", "base64"]
"""``base64`` is that of the numbers as little-endian float32."""


class EmbeddingRequest(Struct, frozen=True):
    """What to embed: ``texts``, or ``tokens`` of the model's own vocabulary, never both.

    ``purpose`` is what the vectors are for, in the caller's word (``search_query``, ``passage``), ``dimensions`` how many
    numbers each has. ``extra`` are the members that the format of the caller does not know.
    """

    model: str
    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    encoding: Encoding | None = None
    dimensions: int | None = None
    purpose: str | None = None
    user: str | None = None
    extra: Extra = NO_EXTRA

    @property
    def count(self) -> int:
        """How many vectors it asks for."""
        return len(self.texts) or len(self.tokens)


class EmbeddingAnswer(Struct, frozen=True):
    """The vectors, in the order of the inputs. ``usage`` is what the provider said, or None.

    ``beside`` are the members that stood beside each vector, ``extra`` those of the whole answer, ``spent`` those of its
    usage, all of ``format``.
    """

    vectors: tuple[Raw, ...]
    model: str = ""
    usage: Usage | None = None
    beside: tuple[Extra, ...] = ()
    extra: Extra = NO_EXTRA
    spent: Extra = NO_EXTRA
    format: str = ""
    losses: tuple[Loss, ...] = ()
