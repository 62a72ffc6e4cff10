"""Ollama's ``/api/embed``, as its server is asked.

Sources: ``POST /api/embed`` of docs.ollama.com/api, ``EmbedRequest`` and ``EmbedResponse`` of the official client. Unless
told otherwise the server cuts inputs that are too long, and says nothing: OpenAI refuses them, and so its callers expect.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from ...ir.embedding import EmbeddingAnswer, EmbeddingRequest
from ...ir.event import Usage
from ...ir.loss import Loss
from ..base import Encoded
from .base import lost, read_answer, write_members
from .embeddings import texts_of

PATH: Final = "/api/embed"
_PROVIDER: Final = "Ollama"
_FALSE: Final = Raw(b"false")


class _Answer(Struct):
    embeddings: list[Raw]
    model: str = ""
    prompt_eval_count: int | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class OllamaEmbeddings:
    """The wire. The server names no limit; it works through a request input by input."""

    format = "ollama.embed"
    most = 512
    most_tokens: int | None = None

    def encode_request(self, request: EmbeddingRequest) -> Encoded:
        """Write a request; the caller's own ``truncate`` passes, being the same word in both formats' servers."""
        extra = dict(request.extra)
        truncate = extra.pop("truncate", _FALSE)
        losses = list(lost(extra, _PROVIDER))
        for name, value in (("user", request.user), ("input_type", request.purpose)):
            if value is not None:
                losses.append(Loss("lost", name, name, f"{_PROVIDER} has no such parameter"))
        if request.encoding == "base64":
            losses.append(Loss("emulated", "encoding_format", "base64", "the gateway packs the numbers"))
        known = {
            "model": request.model,
            "input": texts_of(request, _PROVIDER),
            "truncate": truncate,
            "dimensions": request.dimensions,
        }
        return Encoded(write_members(known, {}), PATH, losses=tuple(losses))

    def decode_response(self, body: bytes) -> EmbeddingAnswer:
        """Read an answer. Raises Malformed."""
        told = read_answer(_ANSWER, body)
        tokens = told.prompt_eval_count
        usage = None if tokens is None else Usage(input_tokens=tokens, uncached_input_tokens=tokens)
        return EmbeddingAnswer(tuple(told.embeddings), told.model, usage, format=self.format)


WIRE: Final = OllamaEmbeddings()
