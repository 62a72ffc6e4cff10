"""What a provider counts and another format has no figure for: predictions, searches, prices, tokens by kind of media."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from ..ir.event import Usage
from ..ir.loss import Loss
from ..wire.members import BAD_JSON

_CHAT: Final = frozenset(
    {
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cached_tokens",
        "prompt_cache_hit_tokens",
        "prompt_cache_miss_tokens",
        "reasoning_tokens",
        "prompt_tokens_details.cached_tokens",
        "prompt_tokens_details.cache_write_tokens",
        "completion_tokens_details.reasoning_tokens",
    }
)
_OLLAMA: Final = frozenset(
    {"prompt_eval_count", "eval_count", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}
)
_FIGURES: Final[Mapping[str, frozenset[str]]] = {
    "anthropic.messages": frozenset(
        {
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "output_tokens_details.thinking_tokens",
        }
    ),
    "gemini": frozenset(
        {
            "promptTokenCount",
            "candidatesTokenCount",
            "totalTokenCount",
            "cachedContentTokenCount",
            "thoughtsTokenCount",
            "toolUsePromptTokenCount",
        }
    ),
    "ollama.chat": _OLLAMA,
    "ollama.generate": _OLLAMA,
    "openai.chat": _CHAT,
    "openai.completions": _CHAT,
    "openai.responses": frozenset(
        {
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "input_tokens_details.cached_tokens",
            "input_tokens_details.cache_write_tokens",
            "output_tokens_details.reasoning_tokens",
        }
    ),
}
"""The members that the figures of ``Usage`` hold. Durations are told in their own format alone, and nobody misses them."""
_MOST: Final = 16


def usage_losses(usage: Usage, where: str = "usage") -> tuple[Loss, ...]:
    """Return the losses of ``usage`` where it is written in another format than its own, as the object at ``where``."""
    figures = _FIGURES.get(usage.format)
    if figures is None or figures.issuperset(usage.raw):
        return ()
    told = tuple([(name, bytes(raw)) for name, raw in usage.raw.items() if name not in figures])
    return _losses(usage.format, where, told)


@lru_cache(256)
def _losses(format: str, where: str, members: tuple[tuple[str, bytes], ...]) -> tuple[Loss, ...]:
    figures, lost = _FIGURES[format], []
    for name, raw in members:
        try:
            value = msgspec.json.decode(raw)
        except BAD_JSON:
            value = True
        inner = {f"{name}.{word}": one for word, one in value.items()} if isinstance(value, dict) else {name: value}
        lost += [path for path, one in inner.items() if path not in figures and _counts(one)]
    return tuple(Loss("lost", f"{where}.{path}", path, "is counted by its provider alone") for path in lost[:_MOST])


def _counts(value: Any) -> bool:
    """Whether it is anything at all. Gemini tells the tokens of each modality: those of text are all there are, or the rest."""
    if isinstance(value, list):
        return any(not isinstance(one, dict) or one.get("modality") != "TEXT" for one in value)
    if isinstance(value, dict):
        return any(_counts(one) for one in value.values())
    return bool(value)
