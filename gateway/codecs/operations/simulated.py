"""What the simulator answers to calls that are no conversation: vectors made of a hash, ranks by the words that are shared.

Deterministic: the same text has the same vector. Similar texts have no similar vectors.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from ...errors import CallerError
from ...wire.members import encode_json
from . import openai_embeddings, rerank
from .base import Service
from .embeddings import FORMAT, Embeddings
from .rerank import SameRerank, text_of_document

SERVICES: Final[tuple[Service, ...]] = (Embeddings(openai_embeddings.WIRE, openai_embeddings.read), SameRerank())
_DIMENSIONS: Final = 16
_MOST: Final = 4096
"""Numbers of a vector: as many as the largest of real models have."""


def answer(operation: str, body: bytes) -> bytes:
    """Return the answer to one request of ``SERVICES``. Raises CallerError for what it cannot do."""
    return _embedded(body) if operation == FORMAT else _ranked(body)


def _embedded(body: bytes) -> bytes:
    asked = openai_embeddings.read(body)
    count = asked.dimensions or _DIMENSIONS
    if count > _MOST:
        raise CallerError(f"the simulator makes vectors of {_MOST} numbers at most", param="dimensions")
    inputs: Sequence[str | tuple[int, ...]] = asked.texts or asked.tokens
    data = [{"object": "embedding", "index": at, "embedding": _vector(each, count)} for at, each in enumerate(inputs)]
    tokens = sum(len(each.split()) if isinstance(each, str) else len(each) for each in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode_json({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _vector(given: str | tuple[int, ...], count: int) -> list[float]:
    """Return ``count`` numbers whose squares sum to 1."""
    seed = hashlib.shake_256(msgspec.json.encode(given)).digest(2 * count)
    numbers = [int.from_bytes(seed[at : at + 2], "big") - 32767.5 for at in range(0, len(seed), 2)]
    length = math.sqrt(sum(number * number for number in numbers))
    return [round(number / length, 6) for number in numbers]


def _ranked(body: bytes) -> bytes:
    asked = rerank.read(body)
    wanted = set(asked.query.lower().split())
    scores = [(_score(wanted, raw), at) for at, raw in enumerate(asked.documents)]
    scores.sort(key=lambda each: -each[0])
    results: list[dict[str, object]] = []
    for score, at in scores[: asked.top_n]:
        told: dict[str, object] = {"index": at, "relevance_score": score}
        if asked.returns:
            raw = asked.documents[at]
            told["document"] = raw if bytes(raw)[:1] == b"{" else {"text": raw}
        results.append(told)
    tokens = sum(len(bytes(raw).split()) for raw in asked.documents) + len(asked.query.split())
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode_json({"model": asked.model, "results": results, "usage": usage})


def _score(wanted: set[str], document: Raw) -> float:
    words = set(text_of_document(document)[0].lower().split())
    return round(len(wanted & words) / len(wanted), 6) if wanted else 0.0
