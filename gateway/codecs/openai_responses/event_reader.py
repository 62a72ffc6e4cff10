"""The events of a stream, one by one, as events of the IR.

Deltas are the words; the ``done`` events repeat them, and count where a provider left deltas out. A message's part begins
with its content, a call's with its item; an item without a word here is Opaque from its start, and tells at its end what
it came to be. ``response.completed`` (or ``incomplete``) is the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from ...errors import DecodeError
from ...ir.event import (
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    Terminator,
    UsageReport,
)
from ...ir.message import NO_EXTRA, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from ...wire.members import NULL, Members, encode_json
from .content import read_citation
from .item_reader import item_extra, read_call
from .members import FORMAT
from .output_reader import (
    UNKNOWN_CONTENT,
    Piece,
    drop_status,
    expect_object,
    message_extra,
    read_content,
    read_ending,
    read_item,
    read_start,
    shared_logprobs,
    stop_of,
    unfold,
    with_extra,
)
from .usage import read_usage
from .words import CONTENT, SUMMARY

Key = tuple[str, int]
"""What a part is within its item, and its number there."""


class _Told:
    """A part while it is told: its number in the IR, the part as it began, and how many of its characters came."""

    __slots__ = ("citations", "index", "length", "part")

    def __init__(self, index: int, part: Part) -> None:
        self.index = index
        self.part = part
        self.length = 0
        self.citations = 0


class _Item:
    """An item while it is told. ``extra`` is for its first part; ``open`` is the part that has not stopped."""

    __slots__ = ("extra", "held", "kind", "open", "parts")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.extra: dict[str, Raw] = {}
        self.parts: dict[Key, _Told] = {}
        self.open: _Told | None = None
        self.held = False


class EventReader:
    """Reads one answer. ``read`` takes its events in order; ``ended`` is set by the last."""

    __slots__ = ("_items", "_kinds", "_next", "_start", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._start: ResponseStart | None = None
        self._items: dict[int, _Item] = {}
        self._kinds: list[Part] = []
        self._next = 0

    def read(self, kind: str, it: Members, events: list[Event]) -> bool:
        """Add what an event of this ``kind`` says to ``events``; False for a kind that has no word here.

        Raises DecodeError for one that makes no sense, UpstreamError for a response that failed.
        """
        handler = _HANDLERS.get(kind)
        if handler is None:
            return False
        handler(self, it, events)
        return True

    def words(self, output_index: int, key: Key, text: str) -> PartDelta | None:
        """More words of a part that is open; None if it is not."""
        item = self._items.get(output_index)
        told = None if item is None else item.parts.get(key)
        if told is None or item is None or told is not item.open or item.held or isinstance(told.part, Opaque):
            return None
        told.length += len(text)
        return PartDelta(told.index, text)

    # The response

    def _begin(self, it: Members, events: list[Event]) -> None:
        response = expect_object(it, "response")
        if self._start is None:
            self._start, late = read_start(response)
            events.append(self._start)
            if late:
                events.append(ResponsePatch(late))

    def _end(self, it: Members, events: list[Event]) -> None:
        response = expect_object(it, "response")
        ending = read_ending(response)
        usage, output = response.take("usage"), response.array("output") or []
        start, late = read_start(response)
        if self._start is None:
            self._start = start
            events.append(start)
        for position, raw in enumerate(output):
            if position not in self._items:
                self._items[position] = _Item("")
                self._unfold(read_item(raw, f"response.output[{position}]"), events)
        for item in self._items.values():
            self._stop(item, events)
        before = self._start.extra
        late |= {name: raw for name, raw in start.extra.items() if before.get(name) != raw}
        if start.service_tier != self._start.service_tier and start.service_tier is not None:
            late["service_tier"] = Raw(encode_json(start.service_tier))
        if late:
            events.append(ResponsePatch(late))
        events.append(stop_of(ending, self._kinds))
        if usage is not None and (report := read_usage(usage)) is not None:
            events.append(UsageReport(report))
        events += (ResponseStop(), Terminator())
        self.ended = True

    # Items

    def _add_item(self, it: Members, events: list[Event]) -> None:
        number = _index(it, "output_index", len(self._items))
        raw = it.raw("item")
        if raw is None:
            return  # some servers announce an item that they do not know yet
        inner = expect_object(it, "item")
        kind = inner.need_string("type")
        item = self._items[number] = _Item(kind)
        if kind == "message":
            inner.take("content")
            item.extra = message_extra(inner)
        elif kind == "reasoning":
            for name in ("summary", "content", "encrypted_content"):
                inner.rest.pop(name, None)
            drop_status(inner)
            item.extra = item_extra({name: raw for name, raw in inner.rest.items() if raw != NULL})
        elif kind in ("function_call", "custom_tool_call"):
            drop_status(inner)
            call = read_call(inner, kind, raw)[0]
            assert isinstance(call, ToolCall)
            item.extra = dict(call.extra)
            told = self._open(item, ("call", 0), replace(call, arguments=""), events)
            self._say(told, call.arguments, events)
        else:
            self._open(item, ("item", 0), Opaque(FORMAT, kind, bytes(raw)), events)

    def _end_item(self, it: Members, events: list[Event]) -> None:
        number = _index(it, "output_index", len(self._items))
        raw = it.raw("item")
        if raw is None:
            raise DecodeError("item", "expected an object, but it is missing")
        item = self._items.get(number)
        pieces = read_item(raw, "item")
        if item is None or not item.parts:
            # Nothing was told of it so far.
            if item is None:
                self._items[number] = item = _Item("")
            self._unfold(pieces, events)
            item.held = True
            return
        first = next(iter(item.parts.values()))
        if isinstance(first.part, Opaque) and len(pieces) == 1 and isinstance(whole := pieces[0].part, Opaque):
            if whole.data != first.part.data:
                events.append(PartPatch(first.index, extra={"data": Raw(whole.data)}))
        else:
            self._compare(item, pieces, events)
        self._stop(item, events)

    def _compare(self, item: _Item, pieces: list[Piece], events: list[Event]) -> None:
        """Tell what an item has at its end and was not told yet."""
        counts: dict[str, int] = {}
        for piece in pieces:
            part = piece.part
            place = _place(part)
            key = place, counts.get(place, 0)
            counts[place] = key[1] + 1
            told = item.parts.get(key)
            if told is None:
                if isinstance(part, (Text, Refusal, Reasoning)):
                    told = self._open(item, key, replace(part, text="", **_bare(part)), events)
                else:
                    continue
            self._complete(told, part, events)
            if isinstance(part, Reasoning) and part.signature is not None:
                events.append(PartPatch(told.index, signature=part.signature))
        first = next(iter(item.parts.values()))
        whole = pieces[0].part
        if not isinstance(whole, Opaque):
            changed = {name: raw for name, raw in whole.extra.items() if item.extra.get(name) != raw}
            if isinstance(first.part, Opaque):
                return
            changed = {name: raw for name, raw in changed.items() if first.part.extra.get(name) != raw}
            if changed:
                events.append(PartPatch(first.index, extra=changed))

    # Parts

    def _open(self, item: _Item, key: Key, part: Part, events: list[Event]) -> _Told:
        """Begin a part of an item; the one before it is over."""
        self._stop(item, events)
        if not item.parts and not isinstance(part, (Opaque, ToolCall)):
            part = with_extra(part, item.extra)
        told = item.parts[key] = item.open = _Told(self._next, part)
        self._next += 1
        self._kinds.append(part)
        events.append(PartStart(told.index, part))
        return told

    def _stop(self, item: _Item, events: list[Event]) -> None:
        if item.open is not None:
            events.append(PartStop(item.open.index))
            item.open = None

    def _unfold(self, pieces: list[Piece], events: list[Event]) -> None:
        for piece in pieces:
            self._kinds.append(piece.part)
            events += unfold(piece, self._next)
            self._next += 1

    def _say(self, told: _Told, text: str, events: list[Event], logprobs: Raw | None = None) -> None:
        if isinstance(told.part, Opaque):
            return  # words of something that has no word here
        told.length += len(text)
        if text or logprobs is not None:
            events.append(PartDelta(told.index, text, logprobs=logprobs))

    def _complete(self, told: _Told, part: Part, events: list[Event]) -> None:
        """Tell the words, and the citations, that the whole part has beyond what came."""
        text = part.arguments if isinstance(part, ToolCall) else "" if _has_no_words(part) else _words_of(part)
        if len(text) > told.length:
            self._say(told, text[told.length :], events)
        if isinstance(part, Text):
            for citation in part.citations[told.citations :]:
                told.citations += 1
                events.append(PartPatch(told.index, citation=citation))

    def _item(self, it: Members, kind: str = "message") -> _Item | None:
        """The item that an event speaks of, the last one if it does not say; None if it is told as a whole at its end.

        Compatible servers leave out that an item began: the first of its words say so, and that it is of this ``kind``.
        """
        number = _index(it, "output_index", max(self._items, default=0))
        item = self._items.get(number)
        if item is None and kind:
            item = self._items[number] = _Item(kind)
            item.extra = item_extra({})
        return None if item is None or item.held else item

    def _content_added(self, it: Members, events: list[Event]) -> None:
        item = self._item(it)
        raw = it.raw("part")
        if item is None or raw is None or item.kind != "message":
            return  # reasoning begins with its first words
        key = "content", _index(it, "content_index")
        piece = read_content(raw, "part")
        if piece is None:
            # Told when it is whole, alone or with its item.
            item.held = not item.parts
        elif key not in item.parts:
            part = piece.part
            assert isinstance(part, (Text, Refusal))
            told = self._open(item, key, replace(part, text="", **_bare(part)), events)
            self._complete(told, part, events)

    def _content_done(self, it: Members, events: list[Event]) -> None:
        item = self._item(it)
        raw = it.raw("part")
        if item is None or raw is None or item.kind != "message":
            return
        key = "content", _index(it, "content_index")
        piece, told = read_content(raw, "part"), item.parts.get(key)
        if piece is None:
            kind = Members(raw, "part").string("type") or "content"
            self._open(item, key, Opaque(FORMAT, f"{UNKNOWN_CONTENT}{kind}", bytes(raw)), events)
        elif told is not None:
            self._complete(told, piece.part, events)
            before = NO_EXTRA if isinstance(told.part, Opaque) else told.part.extra
            assert not isinstance(piece.part, Opaque)
            changed = {name: raw for name, raw in piece.part.extra.items() if before.get(name) != raw}
            if changed:
                events.append(PartPatch(told.index, extra=changed))

    def _part(self, it: Members, place: str, events: list[Event]) -> _Told | None:
        """The part that an event of words belongs to, begun if nobody did that; None when it is not told part by part."""
        item = self._item(it, _KINDS[place])
        if item is None:
            return None
        number = 0 if place == "call" else _index(it, "summary_index" if place == "summary" else "content_index")
        told = item.parts.get((place, number))
        if told is None and place != "call":
            new: Part = Text("") if place == "content" else Reasoning(origin=SUMMARY if place == "summary" else CONTENT)
            if place == "refusal":
                new = Refusal("")
            key = "content" if place == "refusal" else place, number
            told = item.parts.get(key) or self._open(item, key, new, events)
        return told

    def _text_delta(self, it: Members, events: list[Event]) -> None:
        if (told := self._part(it, "content", events)) is not None:
            self._say(told, it.string("delta") or "", events, shared_logprobs(it.take("logprobs")))

    def _delta(self, it: Members, place: str, events: list[Event]) -> None:
        if (told := self._part(it, place, events)) is not None:
            self._say(told, it.string("delta") or "", events)

    def _done(self, it: Members, place: str, member: str, events: list[Event]) -> None:
        text = it.string(member) or ""
        if text and (told := self._part(it, place, events)) is not None and len(text) > told.length:
            self._say(told, text[told.length :], events)

    def _summary_part(self, it: Members, events: list[Event]) -> None:
        self._part(it, "summary", events)

    def _annotation(self, it: Members, events: list[Event]) -> None:
        raw = it.raw("annotation")
        if raw is not None and (told := self._part(it, "content", events)) is not None:
            told.citations += 1
            events.append(PartPatch(told.index, citation=read_citation(raw, "annotation")))

    def _nothing(self, it: Members, events: list[Event]) -> None:
        """An event that says nothing new."""


Handler = Callable[[EventReader, Members, list[Event]], None]


def _words_at(place: str) -> Handler:
    return lambda self, it, events: self._delta(it, place, events)


def _all_at(place: str, member: str) -> Handler:
    return lambda self, it, events: self._done(it, place, member, events)


_D = EventReader
_HANDLERS: Final[dict[str, Handler]] = {
    "response.created": _D._begin,
    "response.queued": _D._begin,
    "response.in_progress": _D._begin,
    "response.output_item.added": _D._add_item,
    "response.output_item.done": _D._end_item,
    "response.content_part.added": _D._content_added,
    "response.content_part.done": _D._content_done,
    "response.output_text.delta": _D._text_delta,
    "response.output_text.done": _all_at("content", "text"),
    "response.output_text.annotation.added": _D._annotation,
    "response.refusal.delta": _words_at("refusal"),
    "response.refusal.done": _all_at("refusal", "refusal"),
    "response.function_call_arguments.delta": _words_at("call"),
    "response.function_call_arguments.done": _all_at("call", "arguments"),
    "response.custom_tool_call_input.delta": _words_at("call"),
    "response.custom_tool_call_input.done": _all_at("call", "input"),
    "response.reasoning_summary_part.added": _D._summary_part,
    "response.reasoning_summary_part.done": _D._nothing,
    "response.reasoning_summary_text.delta": _words_at("summary"),
    "response.reasoning_summary_text.done": _all_at("summary", "text"),
    "response.reasoning_text.delta": _words_at("words"),
    "response.reasoning_text.done": _all_at("words", "text"),
    "response.completed": _D._end,
    "response.incomplete": _D._end,
}


_KINDS: Final = {"content": "message", "refusal": "message", "summary": "reasoning", "words": "reasoning", "call": ""}
"""The kind of the item that holds such words."""


def _place(part: Part) -> str:
    """What a part is within its item."""
    if isinstance(part, Reasoning):
        return "words" if part.origin == CONTENT else "summary"
    return "call" if isinstance(part, ToolCall) else "content"


def _bare(part: Text | Refusal | Reasoning) -> dict[str, object]:
    """The members of ``part`` to forget when it begins, since they are told after it."""
    if isinstance(part, Text):
        return {"citations": ()}
    return {"signature": None} if isinstance(part, Reasoning) else {}


def _has_no_words(part: Part) -> bool:
    return not isinstance(part, (Text, Refusal, Reasoning))


def _words_of(part: Part) -> str:
    assert isinstance(part, (Text, Refusal, Reasoning))
    return part.text


def _index(it: Members, name: str, missing: int = 0) -> int:
    index = it.integer(name)
    if index is not None and index < 0:
        raise DecodeError(name, "expected a number that is not negative")
    return missing if index is None else index
