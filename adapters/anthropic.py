"""Anthropic's Messages API."""

from __future__ import annotations

from typing import ClassVar, Final

from msgspec import Struct

from ..gateway.codecs.anthropic_messages import CODEC
from ..gateway.codecs.base import Codec
from ..gateway.passing.paths import is_below
from .http import HttpAdapter, PassingOptions

_DEFAULT_VERSION: Final = "2023-06-01"
"""The version every model answers to; a caller of the same format brings its own."""


class AnthropicAdapter(HttpAdapter):
    """``base_url`` is spelled without ``/v1``, as the vendor's SDK does: ``https://api.anthropic.com``."""

    Options: ClassVar[type[Struct]] = PassingOptions
    codec: ClassVar[Codec] = CODEC
    default_base_url = "https://api.anthropic.com"
    # x-app and the session id: the vendor's contract for gateways in front of its coding agent.
    request_headers = frozenset({"x-app", "x-claude-code-session-id"})
    request_prefixes = ("anthropic-",)
    passed = "anthropic.passthrough"
    same_format_headers = {"anthropic-version": _DEFAULT_VERSION}  # a request without one would be refused

    def address_in(self, path: str) -> str:
        """Return that of a batch's results, which its SDK follows."""
        return "results_url" if is_below(path, "/v1/messages/batches") and not path.endswith("/results") else ""

    def credential_headers(self, credential: str) -> dict[str, str]:
        """x-api-key, or Bearer for an OAuth token (they begin with ``sk-ant-oat``)."""
        if credential.startswith("sk-ant-oat"):
            return {"authorization": f"Bearer {credential}"}
        return {"x-api-key": credential}
