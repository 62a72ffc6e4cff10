"""Why an answer ended, read cheaply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import GatewayError
from ..ir.event import ChoiceStop, Chunk

_WORDS: Final[Mapping[str, bytes]] = {
    "openai.chat": b'"length"',
    "openai.completions": b'"length"',
    "openai.responses": b'"incomplete"',
    "anthropic.messages": b'"max_tokens"',
    "gemini": b"MAX_TOKENS",
    "ollama.chat": b'"length"',
    "ollama.generate": b'"length"',
}
"""What stands in every whole body of a format that ended for want of tokens: without it nothing need be decoded."""


def is_cut_short(chunk: Chunk) -> bool:
    """Whether choice 0 of a whole answer ended as ``length``. A body that cannot be decoded did not."""
    if chunk.plain is not None:
        return chunk.plain.stop.reason == "length"
    if chunk.wire is not None and chunk.raw is not None:
        word = _WORDS.get(chunk.wire.format)
        if word is not None and word not in chunk.raw:
            return False
    try:
        events = chunk.events
    except GatewayError:
        return False
    return any(type(event) is ChoiceStop and event.reason == "length" and not event.choice for event in events)
