"""The version of the API that a request asks for by header, and what goes with which."""

from __future__ import annotations

from typing import Final

from ..base import UpstreamFacts

OLD_VERSION: Final = "2023-06-01"
HOTTEST: Final = 1.0
"""The highest ``temperature``; above it the API answers 400, where OpenAI, Gemini and Ollama go to 2 and beyond."""


def version_for(facts: UpstreamFacts, sampling: bool) -> str:
    """Return the version for another format's request: the later one refuses sampling parameters."""
    version = facts.options.get("anthropic_version")
    return version if isinstance(version, str) and not sampling else OLD_VERSION
