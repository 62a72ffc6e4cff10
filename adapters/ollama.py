"""Ollama, and servers that speak its own API."""

from __future__ import annotations

from typing import ClassVar

from ..gateway.codecs.base import Codec
from ..gateway.codecs.ollama import CHAT, GENERATE
from .http import HttpAdapter


class OllamaAdapter(HttpAdapter):
    """``base_url`` is spelled without ``/api``: ``http://127.0.0.1:11434``. A local server wants no key."""

    codec: ClassVar[Codec] = CHAT
    default_base_url = "http://127.0.0.1:11434"
    needs_bytes = frozenset({"image"})

    def codecs(self) -> tuple[Codec, ...]:
        """Both of its formats."""
        return CHAT, GENERATE

    def credential_headers(self, credential: str) -> dict[str, str]:
        """Bearer, as its cloud and proxies before a server have it."""
        return {"authorization": f"Bearer {credential}"}
