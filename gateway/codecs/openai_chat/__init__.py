"""OpenAI's Chat Completions, ``openai.chat``: requests, whole answers, streams and errors, for clients and providers.

Vendors that speak it with an accent (DeepSeek, Moonshot, Mistral, Groq, Together, OpenRouter, Azure, vLLM) are read by the
same code; what an upstream wants to be written differently are the options that ``request_writer`` lists.
"""

from __future__ import annotations

from typing import Final

from .codec import OpenAIChat

CODEC: Final = OpenAIChat()

__all__ = ["CODEC", "OpenAIChat"]
