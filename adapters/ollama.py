"""Ollama, and servers that speak its own API."""

from __future__ import annotations

from typing import ClassVar

from ..gateway.codecs.base import Codec
from ..gateway.codecs.ollama import CHAT, GENERATE
from ..gateway.codecs.operations import openai_embeddings
from ..gateway.codecs.operations.base import Service
from ..gateway.codecs.operations.embeddings import Embeddings
from ..gateway.codecs.operations.ollama import WIRE
from .http import HttpAdapter


class OllamaAdapter(HttpAdapter):
    """``base_url`` is spelled without ``/api``: ``http://127.0.0.1:11434``. A local server wants no key."""

    codec: ClassVar[Codec] = CHAT
    default_base_url = "http://127.0.0.1:11434"
    needs_bytes = frozenset({"image"})

    def codecs(self) -> tuple[Codec, ...]:
        """Both of its formats."""
        return CHAT, GENERATE

    def services(self) -> tuple[Service, ...]:
        """Embeddings."""
        return (Embeddings(WIRE, openai_embeddings.read, self.options.max_inputs),)

    def credential_headers(self, credential: str) -> dict[str, str]:
        """Bearer, as its cloud and proxies before a server have it."""
        return {"authorization": f"Bearer {credential}"}
