"""What was asked and answered, as the GenAI conventions write it: only where the rule file says so, and bounded.

A text that is cut has a member ``truncated``; of a conversation that is too long the latest turns stand. Source:
open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-{input,output}-messages.json (read 2026-11-21).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from ..errors import GatewayError
from ..ir.fold import fold
from ..ir.message import Media, Opaque, Part, Reasoning, Refusal, Request, Text, ToolCall, ToolResult
from .names import reason_of
from .record import Record
from .span import Attributes

_APART: Final = frozenset({"anthropic.messages", "gemini", "openai.responses"})
"""Formats whose instructions stand apart from the conversation."""
_LEAST: Final = 64
"""What a part counts besides its text, in bytes."""
Member = dict[str, Any]


class _Room:
    """What may still be written, in characters."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, part: Member, name: str, text: str) -> Member:
        """Put into ``part`` what there is room for of ``text``."""
        if len(text) > self.left:
            text = text[: max(0, self.left)]
            part["truncated"] = True
        self.left -= len(text)
        part[name] = text
        return part


def input_of(record: Record, most: int) -> Attributes:
    """Return the messages that a call was made with, and its instructions where the format keeps them apart."""
    request = record.request
    if request is None:
        assert record.facts is not None
        if record.body is None or record.passed or record.codec.format not in _CONVERSATIONS:
            return []
        try:
            request = record.codec.decode_request(record.body, record.facts)
        except GatewayError:
            return []
    return _messages(request, most, record.codec.format in _APART)


_CONVERSATIONS: Final = frozenset(
    {"openai.chat", "openai.responses", "openai.completions", "anthropic.messages", "gemini", "ollama.chat"}
    | {"ollama.generate"}
)


def _messages(request: Request, most: int, apart: bool) -> Attributes:
    found: Attributes = []
    messages = list(request.messages)
    room = _Room(most)
    if apart:
        leading: list[Part] = []
        while messages and messages[0].role in ("system", "developer"):
            leading += messages.pop(0).parts
        if leading:
            found.append(("gen_ai.system_instructions", _written(_parts(leading, room))))
    turns: list[Member] = []
    for message in reversed(messages):
        if room.left <= 0:
            break
        turn: Member = {"role": "system" if message.role == "developer" else message.role}
        turn["parts"] = _parts(message.parts, room)
        if message.name:
            turn["name"] = message.name
        turns.append(turn)
    turns.reverse()
    if turns:
        found.append(("gen_ai.input.messages", _written(turns)))
    return found


def output_of(record: Record, most: int) -> Attributes:
    """Return what was answered, one message for each choice."""
    events = record.events
    try:
        if events is None:
            if record.whole is None or record.passed or record.codec.format not in _CONVERSATIONS:
                return []
            events = record.whole.events
        response = fold(events)
    except GatewayError:
        return []
    room = _Room(most)
    said: list[Member] = []
    for choice in response.choices:
        reason = "error" if choice.reason is None else reason_of(choice.reason)
        said.append({"role": "assistant", "parts": _parts(choice.parts, room), "finish_reason": reason})
    return [("gen_ai.output.messages", _written(said))] if said else []


def _parts(parts: Iterable[Part], room: _Room) -> list[Member]:
    written: list[Member] = []
    for part in parts:
        if room.left <= 0:
            break
        room.left -= _LEAST
        written.append(_part(part, room))
    return written


def _part(part: Part, room: _Room) -> Member:
    if isinstance(part, Text):
        return room.take({"type": "text"}, "content", part.text)
    if isinstance(part, Reasoning):
        return room.take({"type": "reasoning"}, "content", part.text)
    if isinstance(part, Refusal):
        return room.take({"type": "text"}, "content", part.text)
    if isinstance(part, ToolCall):
        call = room.take({"type": "tool_call", "id": part.id, "name": part.name}, "arguments", part.arguments)
        if "truncated" not in call:
            try:
                call["arguments"] = msgspec.json.decode(part.arguments)
            except msgspec.DecodeError:
                pass  # as it came
        return call
    if isinstance(part, ToolResult):
        texts = [each.text for each in part.content if isinstance(each, Text)]
        return room.take({"type": "tool_call_response", "id": part.id}, "response", "\n".join(texts))
    if isinstance(part, Media):
        return _media(part)
    assert isinstance(part, Opaque)
    return {"type": part.kind}


def _media(part: Media) -> Member:
    """Return where a medium is to be found; its bytes are left out, they would fill a span by themselves."""
    about: Member = {"modality": part.kind}
    if part.media_type is not None:
        about["mime_type"] = part.media_type
    if part.file_id is not None:
        return {"type": "file", **about, "file_id": part.file_id}
    if part.uri is not None and not part.uri.startswith("data:"):
        return {"type": "uri", **about, "uri": part.uri.partition("?")[0][:2048]}
    return {"type": "blob", **about, "content": "", "truncated": True}


def _written(value: object) -> str:
    return msgspec.json.encode(value).decode()
