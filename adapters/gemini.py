"""Google's Gemini API."""

from __future__ import annotations

from typing import ClassVar

from ..gateway.codecs.base import Codec
from ..gateway.codecs.gemini import CODEC
from .http import HttpAdapter


class GeminiAdapter(HttpAdapter):
    """``base_url`` is spelled without its version, as the vendor's SDK does: ``https://generativelanguage.googleapis.com``.

    Streams are always asked for as server-sent events; a caller who wants the array gets it made of them.
    """

    codec: ClassVar[Codec] = CODEC
    default_base_url = "https://generativelanguage.googleapis.com"
    # What the vendor's SDKs say of themselves. Not x-goog-user-project: who pays is not the caller's to choose.
    request_headers = frozenset({"x-goog-api-client", "x-server-timeout"})
    ours_in_query = frozenset({"alt", "$alt", "callback", "$callback"})

    def credential_headers(self, credential: str) -> dict[str, str]:
        """x-goog-api-key, or Bearer for an OAuth token (they begin with ``ya29.``)."""
        if credential.startswith("ya29."):
            return {"authorization": f"Bearer {credential}"}
        return {"x-goog-api-key": credential}
