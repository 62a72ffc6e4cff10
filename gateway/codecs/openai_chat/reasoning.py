"""The spellings of reasoning in an API that has no official one.

``reasoning_content`` (DeepSeek, Moonshot, vLLM, Qwen) and ``reasoning`` (Groq, Together, OpenRouter) are text;
``reasoning_details`` (OpenRouter) are objects of type ``reasoning.text``, ``reasoning.summary`` or
``reasoning.encrypted`` beside the text; Mistral writes ``{"type": "thinking", "thinking": [{"type": "text", "text"}]}``
among the content. Which one was used stands in ``Reasoning.origin`` after a colon.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from ...ir.message import Reasoning
from ...wire.members import BAD_JSON, encode_json, is_string
from .members import FORMAT

REASONING_FIELDS: Final = ("reasoning_content", "reasoning")
"""The text fields, the commoner first; who sends both sends the same text twice."""

DEFAULT_FIELD: Final = "reasoning_content"
"""What clients get whose answer comes from a format with reasoning of its own: the field that most of them read."""

_GROWING: Final = ("text", "summary", "data")


def field_of(part: Reasoning) -> str:
    """Return the spelling that ``part`` came in, the empty string if it is of another format."""
    format, _, field = part.origin.partition(":")
    return field if format == FORMAT else ""


class _Detail(Struct):
    text: str | None = None
    summary: str | None = None


class _Thought(Struct):
    text: str = ""


def text_of_details(details: Iterable[Raw]) -> str:
    """Return the readable text in ``reasoning_details``."""
    texts: list[str] = []
    for raw in details:
        try:
            detail = msgspec.json.decode(raw, type=_Detail)
        except BAD_JSON:
            continue
        texts.append(detail.text or detail.summary or "")
    return "".join(texts)


def text_of_thinking(raw: Raw | None) -> str | None:
    """Return the text of Mistral's ``thinking`` member, None if it holds anything but text."""
    if raw is None:
        return None
    try:
        if is_string(raw):
            return msgspec.json.decode(raw, type=str)
        return "".join(thought.text for thought in msgspec.json.decode(raw, type=list[_Thought]))
    except BAD_JSON:
        return None


def thinking_block(text: str) -> dict[str, Any]:
    """Return Mistral's block for ``text``."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def join_details(details: list[Raw]) -> Raw:
    """Return the array of ``reasoning_details`` that their pieces from a stream make.

    Pieces of the same type and index are one entry: its text grows, other members are replaced. Whole entries keep their
    bytes.
    """
    read: list[dict[str, Any]] = []
    for raw in details:
        try:
            value = msgspec.json.decode(raw)
        except BAD_JSON:
            value = None
        read.append(value if isinstance(value, dict) else {})
    keys = [(value.get("type"), value.get("index")) for value in read]
    if len({repr(key) for key in keys if key[1] is not None}) == sum(key[1] is not None for key in keys):
        return Raw(b"[" + b",".join(bytes(raw) for raw in details) + b"]")
    joined: list[dict[str, Any]] = []
    places: dict[str, dict[str, Any]] = {}
    for key, value in zip(keys, read, strict=True):
        whole = places.get(repr(key)) if key[1] is not None else None
        if whole is None:
            places[repr(key)] = value
            joined.append(value)
            continue
        for name, new in value.items():
            old = whole.get(name)
            if name in _GROWING and isinstance(old, str) and isinstance(new, str):
                whole[name] = old + new
            elif new is not None:
                whole[name] = new
    return Raw(encode_json(joined))
