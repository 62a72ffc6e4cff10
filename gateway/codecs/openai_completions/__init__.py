"""OpenAI's legacy Completions, ``openai.completions``: a prompt in, text out, for clients and providers.

vLLM, SGLang, llama.cpp, Together, Fireworks and DeepSeek (for filling gaps) still speak it.
"""

from __future__ import annotations

from typing import Final

from .codec import OpenAICompletions

CODEC: Final = OpenAICompletions()

__all__ = ["CODEC", "OpenAICompletions"]
