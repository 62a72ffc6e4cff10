"""Cohere: embeddings and reranking by its own API, conversations by the one that it keeps compatible with OpenAI's."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from msgspec import Struct

from ..gateway.chain import AdapterContext
from ..gateway.codecs.base import Codec
from ..gateway.codecs.openai_chat import CODEC
from ..gateway.codecs.operations import openai_embeddings
from ..gateway.codecs.operations.base import Service
from ..gateway.codecs.operations.cohere import CohereEmbeddings, CohereRerank
from ..gateway.codecs.operations.embeddings import Embeddings
from ..gateway.codecs.operations.rerank import Rerank
from .http import HttpAdapter, HttpOptions


class CohereOptions(HttpOptions, frozen=True, forbid_unknown_fields=True):
    """Options of the adapter ``cohere``. ``input_type``: what embeddings are for where the caller does not say so; Cohere
    demands to know, and the vectors of a query and of a document differ."""

    input_type: Literal["search_document", "search_query", "classification", "clustering"] = "search_document"


class CohereAdapter(HttpAdapter):
    """``base_url`` is spelled without a version, as the vendor's SDK does: ``https://api.cohere.com``."""

    Options: ClassVar[type[Struct]] = CohereOptions
    codec: ClassVar[Codec] = CODEC
    default_base_url = "https://api.cohere.com"

    def __init__(self, options: Any, context: AdapterContext) -> None:
        super().__init__(options, context)
        self.base_url += "/compatibility/v1"  # of conversations; ``root`` stays that of its own API

    def services(self) -> tuple[Service, ...]:
        """Embeddings and reranking."""
        most = self.options.max_inputs
        return (
            Embeddings(CohereEmbeddings(self.options.input_type), openai_embeddings.read, most),
            Rerank(CohereRerank(), most),
        )

    def credential_headers(self, credential: str) -> dict[str, str]:
        """Bearer."""
        return {"authorization": f"Bearer {credential}"}
