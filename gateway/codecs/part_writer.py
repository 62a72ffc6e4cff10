"""How the parts of a request are written, for formats whose messages are lists of blocks: which part goes where, and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from ..ir.loss import Loss, LossKind
from ..ir.message import Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult

_B = TypeVar("_B")


class PartWriter(ABC, Generic[_B]):
    """Writes the parts of one request; ``own`` says that they came from this format. Collects ``losses``."""

    __slots__ = ("losses", "own")

    def __init__(self, own: bool) -> None:
        self.own = own
        self.losses: list[Loss] = []

    def lose(self, kind: LossKind, path: str, what: str, why: str) -> None:
        """Note a loss."""
        self.losses.append(Loss(kind, path, what, why))

    def block(self, part: Part, path: str) -> _B | None:
        """Return ``part`` written; None, with a loss noted, where it has no place. Raises DecodeError."""
        if isinstance(part, Text):
            return self._text(part, path)
        if isinstance(part, ToolCall):
            return self._tool_call(part, path)
        if isinstance(part, ToolResult):
            return self._tool_result(part, path)
        if isinstance(part, Reasoning):
            return self._reasoning(part, path)
        if isinstance(part, Media):
            return self._media(part, path)
        if isinstance(part, Refusal):
            self.lose("emulated", path, "refusal", "stands as text")
            return self._text(Text(part.text, extra=part.extra), path)
        return self._opaque(part, path)

    @abstractmethod
    def _text(self, part: Text, path: str) -> _B | None: ...

    @abstractmethod
    def _tool_call(self, part: ToolCall, path: str) -> _B | None: ...

    @abstractmethod
    def _tool_result(self, part: ToolResult, path: str) -> _B | None: ...

    @abstractmethod
    def _reasoning(self, part: Reasoning, path: str) -> _B | None: ...

    @abstractmethod
    def _media(self, part: Media, path: str) -> _B | None: ...

    @abstractmethod
    def _opaque(self, part: Opaque, path: str) -> _B | None: ...
