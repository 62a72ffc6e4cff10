"""The Anthropic Messages API, ``POST /v1/messages``, as clients and providers speak it.

``request`` and ``compose`` read and write requests, ``blocks`` and ``render`` their content; ``response`` whole answers,
``stream`` and ``encoder`` streamed ones, ``answer`` what both have in common; ``usage`` and ``errors`` the rest.
"""

from __future__ import annotations

from typing import Final

from ..base import Codec
from .codec import AnthropicMessages

CODEC: Final[Codec] = AnthropicMessages()

__all__ = ["CODEC"]
