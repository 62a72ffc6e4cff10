"""What a grammar says, as the events of one choice of an answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from ..ir.event import Event, PartDelta, PartStart, PartStop
from ..ir.loss import Loss
from ..ir.message import Part, Reasoning, Text, ToolCall
from .markers import Markers

MAX_BLANK: Final = 4096
"""White space that may wait for what follows it. A longer run is text, whatever follows."""


class Numbers:
    """Numbers parts over a whole response."""

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = 0

    def take(self) -> int:
        """Return the next number."""
        self.next += 1
        return self.next - 1


class Voice:
    """Says the parts that stand in one text part ``first`` of a provider; what of it is not its text goes to the first text.

    White space between a marker and what it marks belongs to the format, not to the answer, if ``trims``: it goes out only
    within a text. After ``stopped``, the stop string that was met, nothing is said any more.
    """

    __slots__ = (
        "_blank",
        "_first",
        "_kind",
        "_last",
        "_note",
        "_numbers",
        "_said",
        "_stop_held",
        "_stops",
        "choice",
        "called",
        "index",
        "out",
        "stopped",
        "text_index",
        "trims",
    )

    def __init__(
        self,
        first: Text,
        choice: int,
        numbers: Numbers,
        stops: Markers | None,
        note: Callable[[Loss], None],
    ) -> None:
        self.out: list[Event] = []
        self.choice = choice
        self.index = -1
        self.text_index = -1
        self.called = False
        self.stopped: str | None = None
        self.trims = True
        self._first: Text | None = replace(first, text="") if first.text else first
        self._numbers = numbers
        self._stops = stops
        self._note = note
        self._kind = ""
        self._last = ""
        self._blank = ""
        self._said = False
        self._stop_held = ""

    @property
    def is_open(self) -> bool:
        """Whether a part is open, numbered ``index``."""
        return bool(self._kind)

    def text(self, words: str) -> None:
        """Say words of the answer."""
        if not words or self.stopped is not None:
            return
        if self._kind != "text":
            if self.trims and self._last == "reasoning":
                words = words.lstrip()
            elif self.trims:
                words = self._blank + words
                self._blank = ""
                if len(words) <= MAX_BLANK and words.isspace():
                    self._blank = words
                    return
            if not words:
                return
            self.open_text()
        if self._stops is not None:
            words = self._until_stop(words, self._stops)
        if words:
            self.out.append(PartDelta(self.index, words, self.choice))

    def think(self, words: str) -> None:
        """Say words of reasoning."""
        if not words or self.stopped is not None:
            return
        blank = ""
        if self.trims:
            words = self._blank + words if self._kind == "reasoning" else words.lstrip()
            end = max(len(words.rstrip()), len(words) - MAX_BLANK)
            words, blank = words[:end], words[end:]
        if words and self._kind != "reasoning":
            self._open("reasoning", Reasoning())
        if words:
            self.out.append(PartDelta(self.index, words, self.choice))
        self._blank = blank

    def thought(self) -> None:
        """End the reasoning, if there was any: what follows the tag is text."""
        self.shut()
        self._last = "reasoning"

    def call(self, id: str, name: str) -> None:
        """Begin a call. An empty ``id`` says that the model gave none: the caller's format mints one."""
        if self._flush():
            self._open("call", ToolCall(id, name))
            self._said = False
            self.called = True

    def arguments(self, words: str) -> None:
        """Say more of the open call's arguments."""
        if words and self.stopped is None:
            self._said = True
            self.out.append(PartDelta(self.index, words, self.choice))

    def call_end(self) -> None:
        """End the open call."""
        if self.stopped is not None:
            return
        if not self._said:
            what = f"choices[{self.choice}].parts[{self.index}].arguments"
            self.lose(Loss("minted", what, "arguments", "a call without arguments has {} here"))
            self.arguments("{}")
        self.shut()

    def lose(self, loss: Loss) -> None:
        """Note what the text says and an answer cannot."""
        self._note(loss)

    def open_text(self) -> None:
        """Begin a text, unless one is open."""
        if self._kind != "text":
            part, self._first = self._first or Text(""), None
            self._open("text", part)
            self.text_index = self.index

    def shut(self) -> None:
        """End the open part."""
        if self._flush() and self._kind:
            self.out.append(PartStop(self.index, self.choice))
            self._kind = ""

    def finish(self) -> None:
        """The text is over: say what was held back, end what is open. A text that says nothing is told as it was."""
        if self.index < 0 and self.stopped is None:
            blank = self._blank
            self.open_text()
            self.text(blank)
        self.shut()

    def _open(self, kind: str, part: Part) -> None:
        self.shut()
        self._blank = ""
        self._kind = self._last = kind
        self.index = self._numbers.take()
        self.out.append(PartStart(self.index, part, self.choice))

    def _until_stop(self, words: str, stops: Markers) -> str:
        """Return what may be said of ``words``; the end of them may be the beginning of a stop string."""
        words = self._stop_held + words
        self._stop_held = ""
        found = stops.find(words)
        if found is None:
            keep = stops.begun(words)
            self._stop_held = words[keep:]
            return words[:keep]
        self.stopped = words[found[0] : found[1]]
        return words[: found[0]]

    def _flush(self) -> bool:
        """Say what waited for the rest of a stop string that did not come. Return whether the choice goes on."""
        if self._stop_held:
            self.out.append(PartDelta(self.index, self._stop_held, self.choice))
            self._stop_held = ""
        return self.stopped is None
