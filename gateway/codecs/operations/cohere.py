"""Cohere's ``/v2/embed`` and ``/v2/rerank``, as their provider is asked.

Sources: the v2 API reference (docs.cohere.com/reference/embed and /rerank) and the types of cohere-python: 96 texts in a
request, ``input_type`` demanded by every model since v3, "we recommend against sending more than 1,000 documents in a
single request" for rerank, whose documents are texts. What base64 vectors are made of it does not say: numbers are asked for.
Inputs that are too long it cuts unless told otherwise; OpenAI refuses them, and so its callers expect.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...ir.embedding import EmbeddingAnswer, EmbeddingRequest
from ...ir.event import Usage
from ...ir.loss import Loss
from ...ir.rerank import Ranked, RerankAnswer, RerankRequest
from ..base import Encoded
from .base import lost, read_answer, write_members
from .embeddings import texts_of
from .rerank import texts_of_documents

_PROVIDER: Final = "Cohere"
_PURPOSES: Final = {"query": "search_query", "document": "search_document", "passage": "search_document"}
_NONE: Final = Raw(b'"NONE"')


class _Units(Struct):
    input_tokens: float | None = None
    search_units: float | None = None


class _Meta(Struct):
    billed_units: _Units | None = None
    tokens: _Units | None = None


class _Vectors(Struct, rename={"numbers": "float"}):
    numbers: list[Raw]


class _Embedded(Struct):
    embeddings: _Vectors
    meta: _Meta | None = None


class _Result(Struct):
    index: int
    relevance_score: float


class _Reranked(Struct):
    results: list[_Result]
    id: str = ""
    meta: _Meta | None = None


_EMBEDDED: Final = msgspec.json.Decoder(_Embedded)
_RERANKED: Final = msgspec.json.Decoder(_Reranked)


class CohereEmbeddings:
    """The wire of embeddings. ``purpose`` is the ``input_type`` for callers who name none."""

    format = "cohere.embed"
    most = 96
    most_tokens: int | None = None

    def __init__(self, purpose: str) -> None:
        self._purpose = purpose

    def encode_request(self, request: EmbeddingRequest) -> Encoded:
        """Write a request; the caller's own ``truncate``, in Cohere's words, passes."""
        extra = dict(request.extra)
        truncate = extra.pop("truncate", _NONE)
        losses = list(lost(extra, _PROVIDER))
        if request.user is not None:
            losses.append(Loss("lost", "user", "user", f"{_PROVIDER} has no such parameter"))
        if request.encoding == "base64":
            losses.append(Loss("emulated", "encoding_format", "base64", "the gateway packs the numbers"))
        if request.purpose is None:
            losses.append(
                Loss("minted", "input_type", self._purpose, f"{_PROVIDER} demands one, and the caller named none")
            )
        asked = self._purpose if request.purpose is None else request.purpose
        known = {
            "model": request.model,
            "input_type": _PURPOSES.get(asked, asked),
            "texts": texts_of(request, _PROVIDER),
            "embedding_types": ["float"],
            "output_dimension": request.dimensions,
            "truncate": truncate,
        }
        return Encoded(write_members(known, {}), "/v2/embed", losses=tuple(losses))

    def decode_response(self, body: bytes) -> EmbeddingAnswer:
        """Read an answer. Raises Malformed."""
        told = read_answer(_EMBEDDED, body)
        return EmbeddingAnswer(tuple(told.embeddings.numbers), "", _usage(told.meta), format=self.format)


class CohereRerank:
    """The wire of reranking."""

    format = "cohere.rerank"
    most = 1000

    def encode_request(self, request: RerankRequest) -> Encoded:
        """Write a request; a document that is no text becomes one."""
        documents, losses = texts_of_documents(request, _PROVIDER)
        known = {
            "model": request.model,
            "query": request.query,
            "documents": documents,
            "top_n": None if request.top_n is None else min(request.top_n, len(documents)),
            "max_tokens_per_doc": request.max_tokens_per_doc,
        }
        return Encoded(write_members(known, {}), "/v2/rerank", losses=losses)

    def decode_response(self, body: bytes) -> RerankAnswer:
        """Read an answer. Raises Malformed."""
        told = read_answer(_RERANKED, body)
        units = None if told.meta is None else told.meta.billed_units
        return RerankAnswer(
            tuple(Ranked(each.index, each.relevance_score) for each in told.results),
            told.id,
            _usage(told.meta),
            None if units is None else units.search_units,
        )


def _usage(meta: _Meta | None) -> Usage | None:
    for units in (None, None) if meta is None else (meta.billed_units, meta.tokens):
        if units is not None and units.input_tokens is not None:
            tokens = int(units.input_tokens)
            return Usage(input_tokens=tokens, uncached_input_tokens=tokens)
    return None
