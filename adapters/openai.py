"""OpenAI, and every provider that speaks its Chat Completions wire."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from ..gateway import registry
from ..gateway.codecs.base import Codec
from ..gateway.codecs.openai_chat import CODEC
from ..gateway.codecs.operations import openai_embeddings
from ..gateway.codecs.operations.base import Service
from ..gateway.codecs.operations.embeddings import Embeddings
from ..gateway.codecs.operations.moderations import Moderations
from ..gateway.codecs.operations.rerank import Rerank, SameRerank
from ..gateway.codecs.operations.voyage import VoyageRerank
from .http import HttpAdapter, PassingOptions

_VENDOR: Final = "api.openai.com"
_VOYAGE: Final = ".voyageai.com"
_CHAT: Final = ("openai.chat",)
_VENDORS_OWN: Final = ("openai.chat", "openai.responses")
"""Nearly all of its models refuse /v1/completions: whoever uses one that does not says so in ``formats``."""


class OpenAIOptions(PassingOptions, frozen=True, forbid_unknown_fields=True):
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
    passed = "openai.passthrough"
    passed_below = "/v1"

    @property
    def _is_vendor(self) -> bool:
        host = urlsplit(self.base_url).hostname or ""
        # eu.api.openai.com and its likes keep the data in their region.
        return host == _VENDOR or host.endswith(f".{_VENDOR}")

    @property
    def _is_voyage(self) -> bool:
        return (urlsplit(self.base_url).hostname or "").endswith(_VOYAGE)

    def codecs(self) -> tuple[Codec, ...]:
        """Those of ``formats``."""
        usual = _VENDORS_OWN if self._is_vendor else _CHAT
        return tuple(registry.codec(format) for format in self.options.formats or usual)

    def services(self) -> tuple[Service, ...]:
        """Embeddings and moderation, and of others than OpenAI reranking, which many of its likes serve. Who has no such
        endpoint says so itself, with a 404."""
        embeddings = Embeddings(openai_embeddings.WIRE, openai_embeddings.read, self.options.max_inputs)
        services: tuple[Service, ...] = (embeddings, Moderations())
        if self._is_vendor:
            return services
        return (*services, Rerank(VoyageRerank(), self.options.max_inputs) if self._is_voyage else SameRerank())

    def credential_headers(self, credential: str) -> dict[str, str]:
        """Bearer."""
        return {"authorization": f"Bearer {credential}"}
