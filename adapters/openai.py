"""OpenAI, and every provider that speaks its Chat Completions wire."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from ..gateway import registry
from ..gateway.codecs.base import Codec
from ..gateway.codecs.openai_chat import CODEC
from .http import HttpAdapter, HttpOptions

_VENDOR: Final = "api.openai.com"
_CHAT: Final = ("openai.chat",)
_VENDORS_OWN: Final = ("openai.chat", "openai.responses")
"""Nearly all of its models refuse /v1/completions: whoever uses one that does not says so in ``formats``."""


class OpenAIOptions(HttpOptions, frozen=True, forbid_unknown_fields=True):
    """Options of the adapter ``openai``. ``formats``: what the provider speaks. A caller of one of them is passed on as it
    came, any other is translated to the first. Unless said, these are ``openai.chat`` and ``openai.responses`` for OpenAI
    itself, and ``openai.chat`` for any other ``base_url``."""

    formats: (
        Annotated[
            tuple[Literal["openai.chat", "openai.responses", "openai.completions"], ...],
            Meta(min_length=1),
        ]
        | None
    ) = None


class OpenAIAdapter(HttpAdapter):
    """``base_url`` is spelled with its version, as the vendor's SDK does: ``https://api.openai.com/v1``."""

    Options: ClassVar[type[Struct]] = OpenAIOptions
    codec: ClassVar[Codec] = CODEC
    default_base_url = "https://api.openai.com/v1"
    request_prefixes = ("openai-",)

    def codecs(self) -> tuple[Codec, ...]:
        """Those of ``formats``."""
        host = urlsplit(self.base_url).hostname or ""
        # eu.api.openai.com and its likes keep the data in their region.
        usual = _VENDORS_OWN if host == _VENDOR or host.endswith(f".{_VENDOR}") else _CHAT
        return tuple(registry.codec(format) for format in self.options.formats or usual)

    def credential_headers(self, credential: str) -> dict[str, str]:
        """Bearer."""
        return {"authorization": f"Bearer {credential}"}
