"""Gemini's ``models.batchEmbedContents``, as its provider is asked.

Sources: ``models.batchEmbedContents`` of the REST reference (ai.google.dev/api/embeddings), the converters of google-genai
3.4 for what a request holds; "at most 100 requests can be in one batch" is what the API says to more. It has no base64.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from ...ir.embedding import EmbeddingAnswer, EmbeddingRequest
from ...ir.event import Usage
from ...ir.loss import Loss
from ...wire.members import encode_json
from ..base import Encoded
from .base import lost, read_answer
from .embeddings import texts_of

_PROVIDER: Final = "Gemini"
_TASKS: Final = {
    "search_query": "RETRIEVAL_QUERY",
    "query": "RETRIEVAL_QUERY",
    "search_document": "RETRIEVAL_DOCUMENT",
    "document": "RETRIEVAL_DOCUMENT",
    "passage": "RETRIEVAL_DOCUMENT",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
_OWN_TASKS: Final = frozenset(
    {"RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT", "SEMANTIC_SIMILARITY", "CLASSIFICATION", "CLUSTERING"}
    | {"QUESTION_ANSWERING", "FACT_VERIFICATION", "CODE_RETRIEVAL_QUERY"}
)


class _Vector(Struct):
    values: Raw


class _Usage(Struct, rename="camel"):
    prompt_token_count: int | None = None


class _Answer(Struct, rename="camel"):
    embeddings: list[_Vector] = []
    usage_metadata: _Usage | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class GeminiEmbeddings:
    """The wire."""

    format = "gemini.embeddings"
    most = 100
    most_tokens: int | None = None

    def encode_request(self, request: EmbeddingRequest) -> Encoded:
        """Write a request; every input names the model once more."""
        losses = list(lost(request.extra, _PROVIDER))
        if request.user is not None:
            losses.append(Loss("lost", "user", "user", f"{_PROVIDER} has no such parameter"))
        if request.encoding == "base64":
            losses.append(Loss("emulated", "encoding_format", "base64", "the gateway packs the numbers"))
        purpose = request.purpose
        task = None if purpose is None else purpose if purpose in _OWN_TASKS else _TASKS.get(purpose)
        if purpose is not None and task is None:
            losses.append(Loss("lost", "input_type", purpose[:80], f"{_PROVIDER} has no such task"))
        model = request.model if request.model.startswith(("models/", "tunedModels/")) else f"models/{request.model}"
        options: dict[str, object] = {}
        if task is not None:
            options["taskType"] = task
        if request.dimensions is not None:
            options["outputDimensionality"] = request.dimensions
        requests = [
            {"model": model, "content": {"parts": [{"text": text}]}, **options} for text in texts_of(request, _PROVIDER)
        ]
        path = f"/v1beta/{quote(model, safe='/')}:batchEmbedContents"
        return Encoded(encode_json({"requests": requests}), path, losses=tuple(losses))

    def decode_response(self, body: bytes) -> EmbeddingAnswer:
        """Read an answer. Raises Malformed."""
        told = read_answer(_ANSWER, body)
        tokens = None if told.usage_metadata is None else told.usage_metadata.prompt_token_count
        usage = None if tokens is None else Usage(input_tokens=tokens, uncached_input_tokens=tokens)
        return EmbeddingAnswer(tuple(vector.values for vector in told.embeddings), "", usage, format=self.format)


WIRE: Final = GeminiEmbeddings()
