"""The output items of an answer while they grow, and what the events of a stream say of them.

An item is a message, a call, reasoning, or Opaque; its contents are what deltas add to. Each value is written twice: as it
begins, empty, and as it came to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Raw

from ...ir.message import Citation
from ...wire.members import encode_json
from .item_reader import ITEM

_BLANKS: Final = bytes.maketrans(b"\r\n", b"  ")
_DELTAS: Final = {
    "text": b"response.output_text.delta",
    "refusal": b"response.refusal.delta",
    "summary": b"response.reasoning_summary_text.delta",
    "words": b"response.reasoning_text.delta",
    "arguments": b"response.function_call_arguments.delta",
    "input": b"response.custom_tool_call_input.delta",
}
"""What deltas of a content are called, by its growth."""

Told = tuple[str, dict[str, Any]]
"""An event: its type, and its members but for that and its number."""


def line(value: object) -> bytes:
    """``value`` as JSON on one line. Bytes that came from elsewhere may be indented; in JSON a line end is only white space."""
    data = encode_json(value)
    return data.translate(_BLANKS) if b"\n" in data or b"\r" in data else data


class Item:
    """An output item while it grows. ``number`` is its index; ``open`` counts its open parts."""

    __slots__ = ("closing", "contents", "data", "extra", "id", "kind", "members", "number", "open", "status")

    def __init__(self, kind: str, number: int, id: str) -> None:
        self.kind = kind
        self.number = number
        self.id = id
        self.members: dict[str, Any] = {}
        self.extra: dict[str, Raw] = {}
        self.contents: list[Content] = []
        self.open = 0
        self.closing = False
        self.status = "completed"
        self.data = b""

    def value(self, status: str, *, empty: bool = False) -> Any:
        """The item as JSON data; ``empty`` as it begins."""
        if self.kind == "opaque":
            return Raw(self.data)
        value: dict[str, Any] = {"id": self.id, "type": self.kind}
        if self.kind == "message":
            value |= {
                "status": status,
                "role": "assistant",
                "content": [] if empty else [part.value() for part in self.contents],
            }
        elif self.kind == "reasoning":
            value["summary"] = [] if empty else [p.value() for p in self.contents if p.growth == "summary"]
            words = [] if empty else [part.value() for part in self.contents if part.growth == "words"]
            if words:
                value["content"] = words
        else:
            if self.kind == "function_call":
                value["status"] = status
            value |= self.members
            said = "" if empty or not self.contents else self.contents[0].text()
            value["arguments" if self.kind == "function_call" else "input"] = said
        if self.kind == "reasoning" and not empty:
            value |= self.members
        for name, raw in self.extra.items():
            if name.startswith(f"{ITEM}."):
                value.setdefault(name.removeprefix(f"{ITEM}."), raw)
        if not empty and (told := self.extra.get("kept.status")) is not None:
            value["status"] = told
        return value


class Content:
    """A part of an item. ``growth`` is what its deltas are.

    A frame of a delta is ``before``, its number, ``where``, the text, ``after``. ``pending`` are citations of another format,
    which are told when the length of the text is known; ``origin`` is that of reasoning.
    """

    __slots__ = (
        *("annotations", "extra", "growth", "index", "item", "logprobs", "origin", "pending", "raw", "texts"),
        *("after", "before", "where"),
    )

    def __init__(self, item: Item, growth: str, index: int, origin: str = "") -> None:
        self.item = item
        self.origin = origin
        self.growth = growth
        self.index = index
        self.texts: list[str] = []
        self.annotations: list[Any] = []
        self.pending: list[Citation] = []
        self.logprobs: list[Raw] = []
        self.extra: dict[str, Raw] = {}
        self.raw: bytes | None = None
        self.before = b""
        self.where = b""
        self.after = b""

    def text(self) -> str:
        """All that was said."""
        if len(self.texts) > 1:
            self.texts = ["".join(self.texts)]
        return self.texts[0] if self.texts else ""

    @property
    def length(self) -> int:
        """How many characters were said."""
        return len(self.text())

    def value(self, *, empty: bool = False) -> Any:
        """The content as JSON data."""
        if self.raw is not None:
            return Raw(self.raw)
        text = "" if empty else self.text()
        value: dict[str, Any]
        if self.growth == "text":
            value = {
                "type": "output_text",
                "annotations": [] if empty else self.annotations,
                "logprobs": [] if empty else self.logprobs,
                "text": text,
            }
        elif self.growth == "refusal":
            value = {"type": "refusal", "refusal": text}
        else:
            value = {"type": "summary_text" if self.growth == "summary" else "reasoning_text", "text": text}
        if not empty:
            for name, raw in self.extra.items():
                value.setdefault(name, raw)
        return value

    def at(self) -> dict[str, Any]:
        """Where it stands: the members that all of its events share."""
        at: dict[str, Any] = {"item_id": self.item.id, "output_index": self.item.number}
        if self.growth == "summary":
            at["summary_index"] = self.index
        elif self.item.kind in ("message", "reasoning"):
            at["content_index"] = self.index
        return at

    def begun(self) -> Told | None:
        """The event that says that it begins; None where none does."""
        if self.growth in ("text", "refusal", "words"):
            return "response.content_part.added", {**self.at(), "part": self.value(empty=True)}
        if self.growth == "summary":
            return "response.reasoning_summary_part.added", {**self.at(), "part": self.value(empty=True)}
        return None

    def delta(self, number: int, text: str, logprobs: bytes = b"") -> bytes:
        """Return the frame of more words, ``logprobs`` a JSON array."""
        if not self.before:
            kind = _DELTAS[self.growth]
            self.before = b'event: %b\ndata: {"type":"%b","sequence_number":' % (kind, kind)
            self.after = b',"logprobs":[]}\n\n' if self.growth == "text" else b"}\n\n"
            self.where = b',%b,"delta":' % encode_json(self.at())[1:-1]
        if logprobs:
            after = b',"logprobs":%b}\n\n' % logprobs
            return b"%b%d%b%b%b" % (self.before, number, self.where, encode_json(text), after)
        return b"%b%d%b%b%b" % (self.before, number, self.where, encode_json(text), self.after)

    def done(self) -> Iterator[Told]:
        """The events that say that it is whole."""
        at, text = self.at(), self.text()
        if self.growth == "text":
            yield "response.output_text.done", {**at, "text": text, "logprobs": self.logprobs}
        elif self.growth == "refusal":
            yield "response.refusal.done", {**at, "refusal": text}
        elif self.growth == "summary":
            yield "response.reasoning_summary_text.done", {**at, "text": text}
            yield "response.reasoning_summary_part.done", {**at, "part": self.value()}
        elif self.growth == "words":
            yield "response.reasoning_text.done", {**at, "text": text}
        elif self.growth == "arguments":
            yield "response.function_call_arguments.done", {**at, "arguments": text}
        elif self.growth == "input":
            yield "response.custom_tool_call_input.done", {**at, "input": text}
        if self.item.kind == "message" or self.growth == "words":
            yield "response.content_part.done", {**at, "part": self.value()}
