"""Google's Gemini API."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from ..gateway.codecs.base import Codec
from ..gateway.codecs.gemini import CODEC
from ..gateway.codecs.operations import openai_embeddings
from ..gateway.codecs.operations.base import Service
from ..gateway.codecs.operations.embeddings import Embeddings
from ..gateway.codecs.operations.gemini import WIRE
from .http import HttpAdapter, PassingOptions


class GeminiAdapter(HttpAdapter):
    """``base_url`` is spelled without its version, as the vendor's SDK does: ``https://generativelanguage.googleapis.com``.

    Streams are always asked for as server-sent events; a caller who wants the array gets it made of them.
    """

    Options: ClassVar[type[Struct]] = PassingOptions
    codec: ClassVar[Codec] = CODEC
    default_base_url = "https://generativelanguage.googleapis.com"
    # What the vendor's SDKs say of themselves. Not x-goog-user-project: who pays is not the caller's to choose.
    request_headers = frozenset({"x-goog-api-client", "x-server-timeout"})
    passed = "gemini.passthrough"
    ours_in_query = frozenset({"alt", "$alt", "callback", "$callback"})

    def services(self) -> tuple[Service, ...]:
        """Embeddings."""
        return (Embeddings(WIRE, openai_embeddings.read, self.options.max_inputs),)

    def credential_headers(self, credential: str) -> dict[str, str]:
        """x-goog-api-key, or Bearer for an OAuth token (they begin with ``ya29.``)."""
        if credential.startswith("ya29."):
            return {"authorization": f"Bearer {credential}"}
        return {"x-goog-api-key": credential}
