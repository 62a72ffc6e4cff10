"""OpenAI, and every provider that speaks its Chat Completions wire."""

from __future__ import annotations

from typing import ClassVar

from ..gateway.codecs.base import Codec
from ..gateway.codecs.openai_chat import CODEC
from .http import HttpAdapter


class OpenAIAdapter(HttpAdapter):
    """``base_url`` is spelled with its version, as the vendor's SDK does: ``https://api.openai.com/v1``."""

    codec: ClassVar[Codec] = CODEC
    default_base_url = "https://api.openai.com/v1"
    request_prefixes = ("openai-",)

    def credential_headers(self, credential: str) -> dict[str, str]:
        """Bearer."""
        return {"authorization": f"Bearer {credential}"}
