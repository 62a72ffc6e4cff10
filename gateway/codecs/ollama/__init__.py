"""Ollama's own API, both sides: ``ollama.chat`` (``/api/chat``) and ``ollama.generate`` (``/api/generate``).

Two formats, since their bodies differ; one package, since all else is the same: options, answers line by line, usage,
errors. Streams are newline-delimited JSON, and a request that does not say ``stream`` asks for one.
"""

from __future__ import annotations

from typing import Final

from .codec import Ollama
from .words import CHAT as CHAT_FORMAT
from .words import GENERATE as GENERATE_FORMAT

CHAT: Final = Ollama(CHAT_FORMAT)
GENERATE: Final = Ollama(GENERATE_FORMAT)

__all__ = ["CHAT", "GENERATE", "Ollama"]
