"""The words of OpenTelemetry's GenAI conventions for what is called otherwise here.

Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md and client-embeddings.md (read
2026-11-21). All of it has the status Development there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OPERATIONS: Final[Mapping[str, str]] = {
    "openai.chat": "chat",
    "openai.responses": "chat",
    "anthropic.messages": "chat",
    "ollama.chat": "chat",
    "gemini": "generate_content",
    "openai.completions": "text_completion",
    "ollama.generate": "text_completion",
    "openai.embeddings": "embeddings",
}
"""What callers of a format ask for. The formats that are missing have operations without a word there."""
COUNTING: Final = "count_tokens"
PASSING: Final = "passthrough"

_ADAPTERS: Final[Mapping[str, str]] = {"gemini": "gcp.gemini"}
_HOSTS: Final[tuple[tuple[str, str], ...]] = (
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("amazonaws.com", "aws.bedrock"),
    ("api.cohere.com", "cohere"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.moonshot.cn", "moonshot_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
)
_MAX_REASON: Final = 100
_REASONS: Final[Mapping[str, str]] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "context_window": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_call",
    "tool_use": "tool_call",
    "function_call": "tool_call",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "error": "error",
}


def operation_of(format: str, counts: bool, passed: bool) -> str:
    """Return what a call does."""
    if counts:
        return COUNTING
    return PASSING if passed else OPERATIONS.get(format) or format.rpartition(".")[2]


def provider_of(adapter: str, host: str) -> str:
    """Return who answers at ``host``, or whose API an adapter speaks where nobody knows the host."""
    for ending, provider in _HOSTS:
        if host == ending or host.endswith(f".{ending}"):
            return provider
    return _ADAPTERS.get(adapter, adapter)


def provider_by_format(format: str) -> str:
    """Return whose format it is, for an upstream of which no more is known."""
    vendor = format.partition(".")[0]
    return _ADAPTERS.get(vendor, vendor)


def reason_of(word: str) -> str:
    """Return why an answer ended, from our word or a provider's."""
    return _REASONS.get(word) or word[:_MAX_REASON]
