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
    PlainAnswer,
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
    if (it := _common(body)) is None:
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
            arguments = bytes(block.input)
            if not arguments.startswith(b"{") or b"\\" in arguments:  # a faulty escape would want mending
                return None
            try:
                words = arguments.decode()
            except UnicodeDecodeError:
                return None
            out.append(PartStart(number, ToolCall(block.id, block.name)))
        if words:
            out.append(PartDelta(number, words))
        out.append(PartStop(number))
    if it.stop_reason is not None:
        out.append(_stop(it, it.stop_reason))
    if it.usage != _NOTHING and (usage := read_usage(it.usage, NO_EXTRA)) is not None:
        out.append(UsageReport(usage))
    out.append(_STOP)
    return tuple(out)


def read_plain(body: bytes) -> PlainAnswer | None:
    """Return a whole answer if it is one text."""
    if (it := _common(body)) is None or len(it.content) != 1 or it.stop_reason is None:
        return None
    block = it.content[0]
    if type(block) is not _Text or not block.text:
        return None
    usage = None if it.usage == _NOTHING else read_usage(it.usage, NO_EXTRA)
    return PlainAnswer(ResponseStart(it.id, it.model, format=FORMAT), block.text, _stop(it, it.stop_reason), usage)


def _common(body: bytes) -> _Answer | None:
    """Decode an answer if it is a common one."""
    try:
        it = _ANSWER.decode(body)
    except BAD_JSON:
        return None
    return None if _is_odd(it.usage) or bytes(it.usage) == NULL else it


def _stop(it: _Answer, reason: str) -> ChoiceStop:
    return ChoiceStop(stop_reason(reason), reason, stop_sequence=it.stop_sequence)


def _is_odd(raw: Raw) -> bool:
    """Whether nobody has looked at all of ``raw``: escapes and what is beyond ASCII may be faulty, and want mending."""
    text = bytes(raw)
    return b"\\" in text or not text.isascii()
