"""The short way from a common whole answer to its events: one decoding into Structs that forbid what they do not know.

It refuses (None) whatever is not plainly one choice of words or function calls; ``answer_reader`` is right about everything,
and what both can read they read alike.
"""

from __future__ import annotations

from typing import Final, Literal

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
    Terminator,
    UsageReport,
)
from ...ir.message import NO_EXTRA, Reasoning, Text, ToolCall
from ...wire.members import BAD_JSON, NULL
from .growing import NOTHING, is_complete
from .members import FORMAT
from .usage import read_usage
from .words import STOP_REASONS


class _Strict(Struct, forbid_unknown_fields=True, gc=False):
    """What all of these have in common."""


class _Function(_Strict):
    name: str
    arguments: str | None = None


class _Call(_Strict):
    id: str
    function: _Function
    type: Literal["function"] | None = None
    index: int | None = None


class _Message(_Strict):
    role: str | None = None
    content: str | None = None
    refusal: None = None
    annotations: tuple[()] | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: None = None
    audio: None = None


class _Choice(_Strict):
    message: _Message
    finish_reason: str
    index: Literal[0] = 0
    logprobs: None = None


class _Answer(_Strict):
    choices: tuple[_Choice]
    id: str | None = None
    object: Literal["chat.completion"] | None = None
    created: int | None = None
    model: str | None = None
    usage: Raw = NULL
    service_tier: str | None = None
    system_fingerprint: Raw = NOTHING


_ANSWER: Final = msgspec.json.Decoder(_Answer)

_REASONING: Final = PartStart(0, Reasoning(origin=f"{FORMAT}:reasoning_content"))
_TEXT: Final = (PartStart(0, Text("")), PartStart(1, Text("")))
_STOP: Final = (PartStop(0), PartStop(1))
_NO_END: Final = ("", "error")
_END: Final = (ResponseStop(), Terminator())


class _Stops(dict[str, ChoiceStop]):
    """How a choice stops, by the word for it."""

    def __missing__(self, word: str) -> ChoiceStop:
        return ChoiceStop("other", word)


_STOPS: Final = _Stops({word: ChoiceStop(reason, word) for word, reason in STOP_REASONS.items()})


def read_answer(body: bytes) -> tuple[Event, ...] | None:
    """Return the events of a whole answer if it is a common one."""
    if (it := _common(body)) is None:
        return None
    message = it.choices[0].message
    out: list[Event] = [_start(it)]
    index = 0
    if message.reasoning_content:
        out += (_REASONING, PartDelta(0, message.reasoning_content), _STOP[0])
        index = 1
    if message.content:
        out += (_TEXT[index], PartDelta(index, message.content), _STOP[index])
        index += 1
    if message.tool_calls and not _calls(message.tool_calls, index, out):
        return None
    out.append(_STOPS[it.choices[0].finish_reason])
    if it.usage != NULL and (usage := read_usage(it.usage)) is not None:
        out.append(UsageReport(usage))
    out += _END
    return tuple(out)


def read_plain(body: bytes) -> PlainAnswer | None:
    """Return a whole answer if it is one text."""
    if (it := _common(body)) is None:
        return None
    choice = it.choices[0]
    message = choice.message
    text = message.content
    if not text or message.reasoning_content or message.tool_calls:
        return None
    usage = None if it.usage == NULL else read_usage(it.usage)
    return PlainAnswer(_start(it), text, _STOPS[choice.finish_reason], usage)


def _common(body: bytes) -> _Answer | None:
    """Decode an answer if it is a common one."""
    try:
        it = _ANSWER.decode(body)
    except BAD_JSON:
        return None
    # Nobody has looked at all of these: escapes and what is beyond ASCII may be faulty, and want mending.
    unread = b"%b%b" % (it.usage, it.system_fingerprint)
    if b"\\" in unread or not unread.isascii() or it.choices[0].finish_reason in _NO_END:
        return None
    return it


def _start(it: _Answer) -> ResponseStart:
    fingerprint = it.system_fingerprint
    return ResponseStart(
        it.id or "",
        it.model or "",
        it.created,
        it.service_tier,
        NO_EXTRA if fingerprint is NOTHING else {"system_fingerprint": fingerprint},
        FORMAT,
    )


def _calls(calls: list[_Call], index: int, out: list[Event]) -> bool:
    """Append the events of the calls; False if one of them has to be looked at twice."""
    for number, call in enumerate(calls, index):
        name, arguments = call.function.name, call.function.arguments
        # A call that could grow on is left open beside the next one.
        if not call.id or not name or (len(calls) > 1 and not is_complete(arguments or "")):
            return False
        out.append(PartStart(number, ToolCall(call.id, name)))
        if arguments:
            out.append(PartDelta(number, arguments))
        out.append(PartStop(number))
    return True
