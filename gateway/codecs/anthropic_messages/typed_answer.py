"""The short way from a common whole answer to its events: one decoding into Structs that forbid what they do not know.

It refuses (None) whatever is not plainly texts, thinking and the caller's own tool calls; ``response`` is right about
everything, and what both can read they read alike.
"""

from __future__ import annotations

from typing import Final, final

import msgspec
from msgspec import Raw, Struct

from ...ir.event import (
    ChoiceStop,
    Event,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    UsageReport,
)
from ...ir.message import NO_EXTRA, Reasoning, Text, ToolCall
from .members import BAD_JSON, FORMAT, NULL
from .usage import read_usage, stop_reason

_NOTHING: Final = Raw(b"")


class _Strict(Struct, forbid_unknown_fields=True, gc=False):
    """What all of these have in common; members typed None are null in a common answer."""


@final
class _Text(_Strict, tag="text"):
    text: str
    citations: None = None


@final
class _Thinking(_Strict, tag="thinking"):
    thinking: str
    signature: str


@final
class _ToolUse(_Strict, tag="tool_use"):
    id: str
    name: str
    input: Raw


class _Answer(_Strict):
    content: list[_Text | _Thinking | _ToolUse]
    id: str = ""
    type: str | None = None
    role: str | None = None
    model: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Raw = _NOTHING
    container: None = None
    stop_details: None = None
    context_management: None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_NO_TEXT: Final = Text("")
_STOP: Final = ResponseStop()


def read_answer(body: bytes) -> tuple[Event, ...] | None:
    """Return the events of a whole answer if it is a common one."""
    try:
        it = _ANSWER.decode(body)
    except BAD_JSON:
        return None
    if _has_escapes(it.usage) or bytes(it.usage) == NULL:
        return None
    out: list[Event] = [ResponseStart(it.id, it.model, format=FORMAT)]
    for number, block in enumerate(it.content):
        if type(block) is _Text:
            words = block.text
            out.append(PartStart(number, _NO_TEXT))
        elif type(block) is _Thinking:
            words = block.thinking
            out.append(PartStart(number, Reasoning("", block.signature, origin=FORMAT)))
        else:
            if not bytes(block.input).startswith(b"{") or _has_escapes(block.input):
                return None
            try:
                words = bytes(block.input).decode()
            except UnicodeDecodeError:
                return None
            out.append(PartStart(number, ToolCall(block.id, block.name)))
        if words:
            out.append(PartDelta(number, words))
        out.append(PartStop(number))
    if it.stop_reason is not None:
        out.append(ChoiceStop(stop_reason(it.stop_reason), it.stop_reason, stop_sequence=it.stop_sequence))
    if it.usage != _NOTHING and (usage := read_usage(it.usage, NO_EXTRA)) is not None:
        out.append(UsageReport(usage))
    out.append(_STOP)
    return tuple(out)


def _has_escapes(raw: Raw) -> bool:
    """Whether there are escapes in what nobody decodes: they may be faulty ones, which want mending."""
    return b"\\" in bytes(raw)
