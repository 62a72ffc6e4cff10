"""Items into parts and messages: the input of a request, and the output of an answer.

An item's members that have no word in the IR stand in the extra of its first part under ``item.``, those that say nothing
elsewhere (``id``, ``status``) under ``kept.``; a null named ``item`` marks where an item begins. An item that is told in
no part, a built-in tool's call among them, is Opaque as a whole.

Items of the assistant that follow each other (reasoning, messages, calls) are one message of the IR: it is one turn, and
formats exist that want its calls side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from ...errors import DecodeError
from ...ir.message import (
    NO_EXTRA,
    Extra,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from ...wire.members import NULL, Members, encode_json, is_string, string_of
from .content import ContentPart, read_parts
from .members import FORMAT
from .words import CONTENT, SUMMARY, carried

ITEM: Final = "item"
"""Marks the first part of an item; with a dot, the members of that item."""
BRIEF: Final = "kept.brief"
"""Marks a text that was the plain string ``content`` of its message."""
TYPED: Final = "kept.message"
"""Marks a message of the assistant that names its type, which it need not."""
ALONE: Final = "kept.alone"
"""Marks a message of the assistant that is one item, and no turn of several."""
ITSELF: Final[Extra] = {"kept.item": NULL}
"""Marks a message that is an item of another type: its Opaque is not content."""
CUSTOM: Final = "kept.custom"
"""Marks the result of a custom tool."""
SUMMARY_LESS: Final = "kept.no_summary"
"""Marks reasoning without the member ``summary``, which it should have."""

_KEPT: Final = frozenset({"id", "status"})
_KEPT_OF_CALLER: Final = _KEPT | {"phase"}
"""A phase says what a message of the assistant's is for; of another's it says nothing."""
_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
}
_BY_CALLER: Final = frozenset({"item_reference", "mcp_approval_response"})


def item_extra(rest: Extra, **marks: Raw) -> dict[str, Raw]:
    """Return the extra of an item's first part."""
    extra = {ITEM: NULL, **marks}
    for name, raw in rest.items():
        extra[f"kept.{name}" if name in _KEPT else f"{ITEM}.{name}"] = raw
    return extra


def read_input(raws: Iterable[Raw], hoist: Callable[[Members, int, Raw], None]) -> tuple[Message, ...]:
    """Return the messages of the array ``input``; ``hoist`` takes an item of tools. Raises DecodeError."""
    reader = _Input(hoist)
    for position, raw in enumerate(raws):
        reader.read(raw, position)
    reader.end_turn()
    return tuple(reader.done)


class _Input:
    def __init__(self, hoist: Callable[[Members, int, Raw], None]) -> None:
        self.done: list[Message] = []
        self._turn: list[Part] = []
        self._hoist = hoist

    def read(self, raw: Raw, position: int) -> None:
        it = Members(raw, f"input[{position}]")
        kind = it.string("type")
        if kind == "message" or (kind is None and it.raw("role") is not None):
            self._message(it, kind)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            self._add("tool", _result(it, kind, raw))
        elif kind == "additional_tools":
            self._hoist(it, position, raw)
        elif kind is None and it.raw("id") is not None:
            self._add("user", Opaque(FORMAT, "item_reference", bytes(raw)), ITSELF)
        elif kind is None:
            raise DecodeError(it.at("type"), "expected the type of an item, or a message with its role")
        elif (parts := _ITEMS.get(kind, _opaque)(it, kind, raw)) and isinstance(parts[0], Opaque):
            outside: Role | None = "user" if kind in _BY_CALLER else "tool" if kind.endswith("_output") else None
            if outside is None:
                self._turn += parts
            else:
                self._add(outside, parts[0], ITSELF)
        else:
            self._turn += parts

    def end_turn(self) -> None:
        """Write down the assistant's turn."""
        if self._turn:
            self.done.append(Message("assistant", tuple(self._turn)))
            self._turn = []

    def _add(self, role: Role, part: Part, extra: Extra = NO_EXTRA) -> None:
        self.end_turn()
        self.done.append(Message(role, (part,), brief=isinstance(part, ToolResult) and part.brief, extra=extra))

    def _message(self, it: Members, kind: str | None) -> None:
        word = it.need_string("role")
        role = _ROLES.get(word)
        if role is None:
            raise DecodeError(it.at("role"), f"unknown role {word[:40]!r}")
        content = it.take("content")
        if content is None:
            raise DecodeError(it.at("content"), "expected a string or an array of content parts, but it is missing")
        brief = is_string(content)
        parts: tuple[ContentPart, ...]
        if brief:
            parts = (Text(string_of(content, it.at("content"))),)
        else:
            usual = "output_text" if role == "assistant" else "input_text"
            parts = read_parts(content, it.at("content"), usual)
        if role == "assistant" and parts and not any(isinstance(part, Opaque) for part in parts):
            marks = {BRIEF: NULL} if brief else {}
            if kind is not None:
                marks[TYPED] = NULL
            self._turn += marked(parts, item_extra(it.rest, **marks))
            return
        self.end_turn()
        quiet = _KEPT if role == "assistant" else _KEPT_OF_CALLER
        extra = {f"kept.{name}" if name in quiet else name: raw for name, raw in it.rest.items()}
        if not parts:
            extra["content"] = content
        if kind is not None:
            extra["kept.type"] = NULL
        if role == "assistant":
            extra[ALONE] = NULL
        self.done.append(Message(role, parts, brief=brief, extra=extra))


def marked(parts: Iterable[Text | Media | Refusal | Reasoning | Opaque], extra: dict[str, Raw]) -> list[Part]:
    """Return the parts of an item, the first with the item's extra."""
    first, *rest = parts
    assert not isinstance(first, Opaque)
    return [replace(first, extra={**first.extra, **extra}), *rest]


# Items


def read_call(it: Members, kind: str, raw: Raw) -> list[Part]:
    """Read a call of one of the caller's tools. Raises DecodeError."""
    id, name = it.need_string("call_id"), it.need_string("name")
    if kind == "custom_tool_call":
        return [ToolCall(id, name, it.string("input") or "", "custom", extra=item_extra(it.rest))]
    return [ToolCall(id, name, it.string("arguments") or "", extra=item_extra(it.rest))]


def read_reasoning(it: Members, kind: str, raw: Raw) -> list[Part]:
    """Read a reasoning item: a part for each of its texts, the last with the signature; Opaque if it says nothing.

    Raises DecodeError.
    """
    marks: dict[str, Raw] = {}
    told: list[Reasoning] = []
    for name, entry_type, origin in (("summary", "summary_text", SUMMARY), ("content", "reasoning_text", CONTENT)):
        entries = it.array(name)
        if entries is None and name == "summary":
            marks[SUMMARY_LESS] = NULL
        if entries == [] and name == "content":
            it.rest[name] = Raw(b"[]")
        for position, entry in enumerate(entries or ()):
            inner = Members(entry, it.at(f"{name}[{position}]"))
            if inner.string("type") != entry_type:
                return _opaque(it, kind, raw)
            told.append(Reasoning(inner.need_string("text"), origin=origin, extra=inner.extra()))
    signature = it.string("encrypted_content")
    extra = item_extra(it.rest, **marks)
    if told:
        if signature is not None:
            told[-1] = replace(told[-1], signature=signature)
        return marked(told, extra)
    if signature is None:
        return _opaque(it, kind, raw)
    return [Reasoning(redacted=signature, origin=SUMMARY, extra=extra)]


def _carried_reasoning(it: Members, kind: str, raw: Raw) -> list[Part]:
    """The same in a request, to which a client may bring back what another format signed."""
    parts = read_reasoning(it, kind, raw)
    last = parts[-1]
    if not isinstance(last, Reasoning) or (found := carried(last.signature or last.redacted or "")) is None:
        return parts
    told = [part for part in parts if isinstance(part, Reasoning)]
    origin, signature, redacted = found
    text = "".join(part.text for part in told)
    if redacted:
        return [Reasoning(text, redacted=signature, origin=origin, extra=told[0].extra)]
    return [Reasoning(text, signature, origin=origin, extra=told[0].extra)]


def _opaque(it: Members, kind: str, raw: Raw) -> list[Part]:
    return [Opaque(FORMAT, kind, bytes(raw))]


_ITEMS: Final[dict[str, Callable[[Members, str, Raw], list[Part]]]] = {
    "function_call": read_call,
    "custom_tool_call": read_call,
    "reasoning": _carried_reasoning,
}


def _result(it: Members, kind: str, raw: Raw) -> ToolResult:
    id, name = it.string("call_id") or "", it.string("name")
    output = it.take("output")
    if output is None:
        raise DecodeError(it.at("output"), "expected a string or an array of content parts, but it is missing")
    brief = is_string(output)
    content: tuple[Text | Media | Opaque, ...]
    if brief:
        content = (Text(string_of(output, it.at("output"))),)
    else:
        content = tuple(_in_result(part) for part in read_parts(output, it.at("output"), "input_text"))
        if not content:
            it.rest["output"] = output
    marks = {CUSTOM: NULL} if kind == "custom_tool_call_output" else {}
    return ToolResult(id, content, name=name, extra=item_extra(it.rest, **marks), brief=brief)


def _in_result(part: ContentPart) -> Text | Media | Opaque:
    if isinstance(part, Refusal):
        data = encode_json({"type": "refusal", "refusal": part.text, **part.extra})
        return Opaque(FORMAT, "refusal", data)
    return part
