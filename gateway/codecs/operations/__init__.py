"""Embeddings, reranking and moderation: what callers ask of a model that is no conversation.

Callers speak ``openai.embeddings``, ``rerank`` or ``openai.moderations``; each of these is a codec, though nothing in it
streams. Providers are spoken to by services, which make of one call the requests that it takes and of their answers one.
"""

from __future__ import annotations

from .moderations import CODEC as MODERATIONS
from .openai_embeddings import CODEC as EMBEDDINGS
from .rerank import CODEC as RERANK

__all__ = ["EMBEDDINGS", "MODERATIONS", "RERANK"]
