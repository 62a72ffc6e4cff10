"""Thinking in tags, at the beginning of an answer only: ``<think>…</think>``. In the middle of a text a tag is text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .markers import Markers
from .reader import Reader, Steps
from .voice import Voice

TAGS: Final[Mapping[str, str]] = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
}
"""What ``think: auto`` looks for. DeepSeek, Qwen, GLM, MiniMax and most others write the first; Seed-OSS, Magistral and
Kimi-VL the last three."""


def think(
    it: Reader, voice: Voice, tags: Mapping[str, str], *, opened: bool, ends: tuple[str, ...] = ()
) -> Steps[None]:
    """Read thinking if the text begins with it.

    ``opened`` says that the prompt has opened it already, so that only the closing tag comes; an opening tag may come all
    the same. ``ends`` are tokens that end the thinking too, since a call begins with them: they are not read.
    """
    tag = yield from it.attempt(_opening(it, tags))
    if tag is None and not opened:
        return
    closing = tags.values() if tag is None else (tags[tag],)
    found = yield from it.words(Markers(*closing, *ends), voice.think)
    if found in ends:
        it.back(found)
    voice.thought()


def _opening(it: Reader, tags: Mapping[str, str]) -> Steps[str]:
    yield from it.space()
    return (yield from it.either(*tags))
