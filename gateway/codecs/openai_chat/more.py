"""Frames that say more of what is open and nothing besides: what most frames of most streams are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from ...ir.event import PartDelta
from ...wire.members import BAD_JSON
from .growing import Envelope, GrowingAnswer

_T = TypeVar("_T")


class _Words(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    role: str | None = None
    content: str
    reasoning_content: None = None
    refusal: None = None
    tool_calls: None = None


class _Thought(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    role: str | None = None
    content: Literal[""] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: None = None
    tool_calls: None = None


class _Function(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    name: Literal[""] | None = None
    arguments: str


class _Call(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    index: int
    id: Literal[""] | None = None
    type: Literal["function"] | None = None
    function: _Function


class _Arguments(Struct, forbid_unknown_fields=True, gc=False, kw_only=True):
    role: str | None = None
    content: Literal[""] | None = None
    reasoning_content: None = None
    refusal: None = None
    tool_calls: tuple[_Call]


class _Choice(Struct, Generic[_T], forbid_unknown_fields=True, gc=False, kw_only=True):
    index: Literal[0] = 0
    delta: _T
    logprobs: None = None
    finish_reason: None = None


class _Frame(Envelope, Generic[_T], forbid_unknown_fields=True, gc=False, kw_only=True):
    choices: tuple[_Choice[_T]]
    usage: None = None
    obfuscation: str | None = None


_WORDS: Final = msgspec.json.Decoder(_Frame[_Words]).decode
_OTHER: Final[dict[str, Callable[[bytes], _Frame[_Thought] | _Frame[_Arguments]]]] = {
    "reasoning": msgspec.json.Decoder(_Frame[_Thought]).decode,
    "": msgspec.json.Decoder(_Frame[_Arguments]).decode,
}
"""What reads more of an open part that is no text, by its kind; none is open beside calls."""
_PATIENCE: Final = 4


class MoreReader:
    """Reads what is more of choice 0 of one answer; the reader of all frames is built on it.

    It gives up with a provider that says something else in every frame: two looks at each cost more than one.
    """

    __slots__ = ("_fingerprint", "_first", "_patience", "_provider", "_tier")

    def __init__(self) -> None:
        self._first: GrowingAnswer | None = None
        self._fingerprint: str | None = None
        self._provider: str | None = None
        self._tier: str | None = None
        self._patience = _PATIENCE

    def words(self, data: bytes) -> PartDelta | None:
        """Return what the payload says if it is more of the first choice's open part and nothing else; else change nothing."""
        answer = self._first
        if answer is None or not self._patience:
            return None
        try:
            if answer.kind != "text":
                return self._other(answer, data)
            frame = _WORDS(data)
        except BAD_JSON:
            self._patience -= 1
            return None
        text = frame.choices[0].delta.content
        if (
            text
            and frame.system_fingerprint == self._fingerprint
            and frame.service_tier == self._tier
            and frame.provider == self._provider
        ):
            return PartDelta(answer.index, text)
        return None

    def _other(self, answer: GrowingAnswer, data: bytes) -> PartDelta | None:
        """The same for more of what is no text. Raises one of BAD_JSON for other frames."""
        read = _OTHER.get(answer.kind)
        if read is None:
            return None
        frame = read(data)
        if (
            frame.system_fingerprint != self._fingerprint
            or frame.service_tier != self._tier
            or frame.provider != self._provider
        ):
            return None
        self._patience = _PATIENCE
        delta = frame.choices[0].delta
        if isinstance(delta, _Thought):
            text = delta.reasoning_content or delta.reasoning
            return PartDelta(answer.index, text) if text else None
        if not answer.tools:
            return None
        call, tool = delta.tool_calls[0], answer.tools[-1]
        text = call.function.arguments
        if call.index != tool.key or tool.closed or tool.index < 0 or not text:
            return None
        tool.arguments.append(text)
        return PartDelta(tool.index, text)
