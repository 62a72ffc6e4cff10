"""Voyage's ``/v1/rerank``, as its provider is asked: the callers' shape in other words, ``top_k`` and ``data``.

Source: docs.voyageai.com/reference/reranker-api: 1,000 texts in a request; it cuts what is too long unless ``truncation`` says
otherwise.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from ...ir.event import Usage
from ...ir.loss import Loss
from ...ir.rerank import Ranked, RerankAnswer, RerankRequest
from ..base import Encoded
from .base import read_answer, write_members
from .rerank import texts_of_documents

_PROVIDER: Final = "Voyage"


class _Usage(Struct):
    total_tokens: int | None = None


class _Result(Struct):
    index: int
    relevance_score: float


class _Answer(Struct):
    data: list[_Result]
    usage: _Usage | None = None


_FALSE: Final = Raw(b"false")
_ANSWER: Final = msgspec.json.Decoder(_Answer)


class VoyageRerank:
    """The wire."""

    format = "voyage.rerank"
    most = 1000

    def encode_request(self, request: RerankRequest) -> Encoded:
        """Write a request; the caller's own ``truncation`` and ``top_k``, in Voyage's words, pass."""
        extra = dict(request.extra)
        truncation, top_k = extra.pop("truncation", None), extra.pop("top_k", None)
        documents, losses = texts_of_documents(replace(request, extra=extra), _PROVIDER)
        if request.max_tokens_per_doc is not None:
            losses += (Loss("lost", "max_tokens_per_doc", "max_tokens_per_doc", f"{_PROVIDER} has no such parameter"),)
        known = {
            "model": request.model,
            "query": request.query,
            "documents": documents,
            "top_k": top_k if request.top_n is None else min(request.top_n, len(documents)),
            "truncation": _FALSE if truncation is None else truncation,
        }
        return Encoded(write_members(known, {}), "/rerank", losses=losses)

    def decode_response(self, body: bytes) -> RerankAnswer:
        """Read an answer. Raises Malformed."""
        told = read_answer(_ANSWER, body)
        tokens = None if told.usage is None else told.usage.total_tokens
        return RerankAnswer(
            tuple(Ranked(each.index, each.relevance_score) for each in told.data),
            usage=None if tokens is None else Usage(input_tokens=tokens, uncached_input_tokens=tokens),
        )
