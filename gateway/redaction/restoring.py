"""Placeholders in an answer, back into what they stand for: in text, reasoning and tool arguments, however it is cut.

Of each part at most the beginning of one placeholder is held back. What stands in JSON is written as JSON. Names that the
session did not give stay as they are.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw
from msgspec.structs import replace

from ..errors import GatewayError
from ..ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    Terminator,
)
from ..ir.message import Extra, Media, Opaque, Reasoning, Refusal, Text, ToolCall, ToolResult
from .ends import ended_by, ends_part
from .json_text import escaped
from .redactor import Session

_OPENING: Final = re.compile(r"\\u003[cC]")
_CLOSING: Final = re.compile(r"\\u003[eE]")
_HALF_ESCAPE: Final = re.compile(r"\\(?:u(?:0(?:03?)?)?)?\Z")
_TEXTUAL: Final = frozenset({"json", "sse", "ndjson", "array", "message"})
"""Framings whose frames are JSON as it is."""
_LONGEST_MARKS: Final = 12
"""Characters of both brackets at most, spelled as escapes."""


class _Places:
    """The placeholders of one session, in both spellings. Made when the first answer comes."""

    __slots__ = ("values", "_literal", "_in_json", "_in_bytes", "_longest", "_spelled")

    def __init__(self, session: Session) -> None:
        self.values = session.values
        self._literal = session.redactor.literal
        name = self._literal.pattern.strip("<>")
        self._in_json = re.compile(rf"\\(?:u003[cC]{name}(?:>|\\u003[eE])|.)|<{name}(?:>|\\u003[eE])", re.DOTALL)
        self._in_bytes = re.compile(name.encode())
        self._longest = max(map(len, self.values)) + _LONGEST_MARKS
        self._spelled = sorted(f"<{each}>" for each in self.values)

    def any_in(self, data: bytes) -> bool:
        """Whether a name of this session stands in the bytes of a frame."""
        return any(found[1].decode() in self.values for found in self._in_bytes.finditer(data))

    def text(self, text: str) -> str:
        """Return ``text`` with values."""
        if "<" not in text:
            return text
        return self._literal.sub(lambda found: self.values.get(found[1], found[0]), text)

    def json(self, text: str) -> str:
        """Return JSON ``text`` with values, as JSON writes them."""
        return self._in_json.sub(self._in_string, text) if "<" in text or "\\u003" in text else text

    def _in_string(self, found: re.Match[str]) -> str:
        value = self.values.get(found[1] or found[2] or "")
        return found[0] if value is None else escaped(value)

    def raw(self, raw: Raw) -> Raw:
        """The same for a member of an object."""
        data = bytes(raw)
        return Raw(self.json(data.decode()).encode()) if self.any_in(data) else raw

    def open_at(self, text: str) -> int:
        """Return where a placeholder begins that ``text`` ends in the middle of; its length if none does."""
        at = text.rfind("<", max(0, len(text) - self._longest))
        return at if at >= 0 and self._may_become(text[at:]) else len(text)

    def open_in_json_at(self, text: str) -> int:
        """The same for JSON."""
        at = max(0, len(text) - self._longest)
        before = len(text[:at]) - len(text[:at].rstrip("\\"))
        escape = before % 2 == 1
        while at < len(text):
            each = text[at]
            if escape:
                escape = False
            elif each == "<" or each == "\\":
                tail = _CLOSING.sub(">", _OPENING.sub("<", text[at:]))
                half = _HALF_ESCAPE.sub("", tail)
                if (half == "" or half[0] == "<") and self._may_become(half, half is not tail and half != tail):
                    return at
                escape = each == "\\"
            at += 1
        return len(text)

    def _may_become(self, tail: str, closing: bool = False) -> bool:
        if closing and tail:
            return self._begins(f"{tail}>", whole=True)
        return self._begins(tail)

    def _begins(self, tail: str, whole: bool = False) -> bool:
        """Whether a placeholder is ``tail``, or begins with it and goes on; by bisection, since there may be thousands."""
        at = bisect_left(self._spelled, tail)
        if at < len(self._spelled) and self._spelled[at] == tail:
            if whole:
                return True
            at += 1
        return not whole and at < len(self._spelled) and self._spelled[at].startswith(tail)


def _is_plain(chunk: Chunk, raw: bytes) -> bool:
    """Whether no placeholder, nor the beginning of one in any spelling, can stand in a chunk: what most are."""
    if b"<" in raw or chunk.wire is None or chunk.wire.framing not in _TEXTUAL:
        return False
    return b"\\" not in raw or (b"\\u00" not in raw and b"\\\\" not in raw)


class Restoring:
    """A stage. ``json_text`` says that the answer's text is JSON, too, since the caller asked for that."""

    __slots__ = ("_places", "_json_text", "_json", "_held")

    def __init__(self, session: Session, json_text: bool = False) -> None:
        self._places = _Places(session)
        self._json_text = json_text
        self._json: set[int] = set()
        self._held: dict[int, PartDelta] = {}

    def feed(self, chunk: Chunk, /) -> Chunk | None:
        """Take a chunk. One without a placeholder, or a part of one, goes on as it is."""
        places, raw = self._places, chunk.raw
        if raw is not None:
            if chunk.is_whole:
                if not places.any_in(raw):
                    return chunk
            elif not self._held and _is_plain(chunk, raw):
                self._note_starts(chunk)
                return chunk
        events: list[Event] = []
        changed = False
        for event in chunk.events:
            before = len(events)
            self._take(event, events)
            changed = changed or len(events) != before + 1 or events[-1] is not event
        if not changed and (raw is None or not places.any_in(raw)):
            return chunk
        return Chunk(tuple(events), None, chunk.wire) if events else None

    def close(self, error: GatewayError | None, /) -> Chunk | None:
        """The answer is over: what looked like the beginning of a placeholder was none."""
        tails = tuple(self._held.values())
        self._held.clear()
        return Chunk(tails) if tails else None

    def _take(self, event: Event, out: list[Event]) -> None:
        kind = type(event)
        if kind is PartDelta:
            assert isinstance(event, PartDelta)
            self._delta(event, out)
        elif kind is PartStart:
            assert isinstance(event, PartStart)
            if self._is_json(event.part):
                self._json.add(event.index)
            self._start(event, out)
        elif kind is PartStop or kind is PartPatch:
            assert isinstance(event, (PartStop, PartPatch))
            if ends_part(event) and (held := self._held.pop(event.index, None)) is not None:
                out.append(held)
            out.append(self._patch(event) if isinstance(event, PartPatch) else event)
        elif kind is ChoiceStop or kind is ResponseStop or kind is Terminator:
            if self._held:
                out += [self._held.pop(each.index) for each in ended_by(event, self._held)]
            if isinstance(event, ChoiceStop) and event.stop_sequence and "<" in event.stop_sequence:
                event = replace(event, stop_sequence=self._places.text(event.stop_sequence))
            out.append(event)
        elif isinstance(event, (ResponseStart, ResponsePatch, ChoicePatch)):
            extra = self._extra(event.extra)
            out.append(event if extra is event.extra else replace(event, extra=extra))
        elif isinstance(event, Alien) and self._places.any_in(event.data):
            out.append(replace(event, data=bytes(self._places.raw(Raw(event.data)))))
        else:
            out.append(event)

    def _note_starts(self, chunk: Chunk) -> None:
        for event in chunk.events:
            if type(event) is PartStart and self._is_json(event.part):
                self._json.add(event.index)

    def _is_json(self, part: object) -> bool:
        if isinstance(part, ToolCall):
            return part.kind == "function"
        return self._json_text and isinstance(part, Text)

    def _cut(self, index: int, text: str) -> tuple[str, str]:
        """Return what of a part's text can go on, with values, and what must wait for more."""
        places = self._places
        if index in self._json:
            at = places.open_in_json_at(text) if "<" in text or "\\" in text else len(text)
            return places.json(text[:at]), text[at:]
        at = places.open_at(text) if "<" in text else len(text)
        return places.text(text[:at]), text[at:]

    def _delta(self, event: PartDelta, out: list[Event]) -> None:
        held = self._held.pop(event.index, None)
        text = event.text if held is None else held.text + event.text
        ready, rest = self._cut(event.index, text)
        if rest:
            self._held[event.index] = PartDelta(event.index, rest, event.choice)
        if ready == event.text:
            out.append(event)
        elif ready or event.logprobs is not None:
            out.append(PartDelta(event.index, ready, event.choice, event.logprobs))

    def _start(self, event: PartStart, out: list[Event]) -> None:
        part = event.part
        if isinstance(part, (Text, Reasoning, Refusal)):
            ready, rest = self._cut(event.index, part.text) if part.text else ("", "")
            new: Any = part if ready == part.text else replace(part, text=ready)
            if isinstance(new, Text) and new.citations:
                new = self._cited(new)
        elif isinstance(part, ToolCall):
            ready, rest = self._cut(event.index, part.arguments) if part.arguments else ("", "")
            new = part if ready == part.arguments else replace(part, arguments=ready)
        else:
            rest, new = "", self._other(part)
        out.append(event if new is part else PartStart(event.index, new, event.choice))
        if rest:
            self._held[event.index] = PartDelta(event.index, rest, event.choice)

    def _cited(self, part: Text) -> Text:
        patches = [self._patch(PartPatch(0, 0, citation=each)) for each in part.citations]
        new = tuple(each.citation for each in patches if each.citation is not None)
        return part if new == part.citations else replace(part, citations=new)

    def _other(self, part: object) -> object:
        places = self._places
        if isinstance(part, ToolResult):
            content = tuple(
                replace(each, text=places.text(each.text)) if isinstance(each, Text) and "<" in each.text else each
                for each in part.content
            )
            return part if content == part.content else replace(part, content=content)
        if isinstance(part, Opaque) and places.any_in(part.data):
            return replace(part, data=bytes(places.raw(Raw(part.data))))
        if isinstance(part, Media) and part.text and "<" in part.text:
            return replace(part, text=places.text(part.text))
        return part

    def _patch(self, event: PartPatch) -> PartPatch:
        places, citation = self._places, event.citation
        new: dict[str, Any] = {}
        if citation is not None and places.any_in(citation.raw):
            say: Callable[[str | None], str | None] = lambda text: None if text is None else places.text(text)  # noqa: E731
            new["citation"] = replace(
                citation,
                raw=bytes(places.raw(Raw(citation.raw))),
                title=say(citation.title),
                cited_text=say(citation.cited_text),
            )
        if event.transcript is not None and "<" in event.transcript:
            new["transcript"] = places.text(event.transcript)
        if (extra := self._extra(event.extra)) is not event.extra:
            new["extra"] = extra
        return replace(event, **new) if new else event

    def _extra(self, extra: Extra) -> Extra:
        if not extra or not any(self._places.any_in(bytes(raw)) for raw in extra.values()):
            return extra
        return {name: self._places.raw(raw) for name, raw in extra.items()}
