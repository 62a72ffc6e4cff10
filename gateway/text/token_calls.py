"""Calls between tokens of their own: Kimi K2, and DeepSeek in V3 and V3.1.

The tokens cannot stand in arguments, so arguments go out as they are spelled up to the next token, whatever it is. Tokens
around a group of calls say nothing and go nowhere.

Sources: the chat templates of Kimi-K2-Instruct, DeepSeek-V3-0324 (``function``, the name, a fenced block) and
DeepSeek-V3.1 (the name, bare arguments).
"""

from __future__ import annotations

import re
from typing import Final

from .json_calls import closing
from .markers import Markers
from .reader import MAX_NAME, NotThis, Reader, Steps
from .voice import Voice

KIMI_BEGIN: Final = ("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>", "<|tool_call_begin|>")
DEEPSEEK_BEGIN: Final = ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>")
_KIMI_END: Final = ("<|tool_calls_section_end|>", "<|tool_call_section_end|>", "<|tool_call_end|>")
_KIMI_ARGUMENTS: Final = "<|tool_call_argument_begin|>"
_KIMI: Final = Markers(*KIMI_BEGIN, *_KIMI_END)
_KIMI_HEAD: Final = Markers(_KIMI_ARGUMENTS, *KIMI_BEGIN, *_KIMI_END)
_KIMI_NAME: Final = re.compile(r"(?:functions\.)?(.+?)(?::\d+)?")

_DEEPSEEK_END: Final = ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>")
_DEEPSEEK_NAME: Final = "<｜tool▁sep｜>"
_DEEPSEEK: Final = Markers(*DEEPSEEK_BEGIN, *_DEEPSEEK_END)
_DEEPSEEK_HEAD: Final = Markers(_DEEPSEEK_NAME, *DEEPSEEK_BEGIN, *_DEEPSEEK_END)
_FENCE: Final = Markers("\n```json\n", *DEEPSEEK_BEGIN, *_DEEPSEEK_END)
_FENCED: Final = Markers("\n```", *DEEPSEEK_BEGIN, *_DEEPSEEK_END)


def kimi_k2(it: Reader, voice: Voice) -> Steps[None]:
    """Read a text with Kimi's calls: ``<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{…}<|tool_call_end|>``."""
    while marker := (yield from it.words(_KIMI, voice.text)):
        if marker != "<|tool_call_begin|>":
            continue
        id = yield from it.attempt(_before(it, _KIMI_HEAD, _KIMI_ARGUMENTS))
        name = None if id is None else _KIMI_NAME.fullmatch(id)
        if id is None or name is None:
            voice.text(marker)
            continue
        voice.call(id, name[1])
        yield from _arguments(it, voice, _KIMI, "<|tool_call_end|>")
        voice.call_end()


def deepseek_call(it: Reader, voice: Voice, marker: str) -> Steps[None]:
    """Read DeepSeek's call after ``marker``: a name, a token, arguments. Give ``marker`` back as text if there is none."""
    name = yield from it.attempt(_before(it, _DEEPSEEK_HEAD, _DEEPSEEK_NAME))
    if name is None:
        voice.text(marker)
        return
    fenced = None
    if name == "function":
        fenced = yield from it.attempt(_before(it, _FENCE, "\n```json\n"))
    voice.call("", name if fenced is None else fenced)
    if fenced is not None:
        yield from _arguments(it, voice, _FENCED, "\n```")
        _ = yield from it.attempt(closing(it, "<｜tool▁call▁end｜>"))
    else:
        yield from _arguments(it, voice, _DEEPSEEK, "<｜tool▁call▁end｜>")
    voice.call_end()


def _before(it: Reader, markers: Markers, wanted: str) -> Steps[str]:
    """Return the text before the first marker, which is read. Raises NotThis if it is not ``wanted``, or the text blank."""
    text, marker = yield from it.until(markers, limit=MAX_NAME)
    if marker != wanted or not text.strip():
        raise NotThis
    return text.strip()


def _arguments(it: Reader, voice: Voice, markers: Markers, end: str) -> Steps[None]:
    """Say arguments up to the first marker; read it if it is their end."""
    found = yield from it.words(markers, voice.arguments)
    if found != end:
        it.back(found)
