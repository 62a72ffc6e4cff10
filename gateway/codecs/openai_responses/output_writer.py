"""An answer of any format as output items, and as the events that tell of them, in this API's own order.

Texts and refusals that follow each other are the contents of one message; reasoning of another format is a summary, the
form in which clients read it. Items may be open side by side. Everything that was told stands again in the last event, so
that the words of an answer are kept until its end. Items and calls that have no id get one, since clients demand it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from ...errors import Malformed
from ...ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Event,
    Keepalive,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    UsageReport,
)
from ...ir.loss import Loss
from ...ir.message import NO_EXTRA, Citation, Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from ...wire.members import ARRAY, BAD_JSON, OBJECT, json_object
from ..base import AnswerContext
from .content import own_members, write_citation
from .envelope import Envelope, Noted
from .item_reader import ITEM
from .members import FORMAT, foreign
from .output_items import Content, Item, Told, line
from .output_reader import UNKNOWN_CONTENT
from .words import CONTENT, carry

_ID_HEADS: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
}
Out = list[bytes] | None
"""Where the frames go; None when nobody wants them, but the items."""


class OutputWriter:
    """Writes one answer. ``add`` takes its events in order, ``finish`` ends it, ``response`` is the whole of it.

    ``losses`` holds each loss once, no more than MAX_LOSSES. ``failed`` is the provider's word for an answer that ended
    with an error. ``sequence`` numbers the events.
    """

    def __init__(self, context: AnswerContext) -> None:
        self._noted = Noted()
        self.losses: list[Loss] = self._noted.losses
        self._note = self._noted.note
        self._lose = self._noted.lose
        self.failed: str | None = None
        self.sequence = 0
        self.started = False
        self.finished = False
        self.announced: set[str] = set()
        self.open: dict[int, Content] = {}
        self._context = context
        self._envelope = Envelope(context, self._noted)
        self._items: list[Item] = []
        self._unsaid: list[Item] = []
        self._closed: dict[int, Content] = {}
        self._message: Item | None = None
        self._thought: Item | None = None

    @property
    def pending(self) -> bool:
        """Whether the answer has begun, and nothing was written of it yet."""
        return self._envelope.begun and not self.started

    def add(self, event: Event, out: Out) -> None:
        """Take one event. Terminator and ResponseStop are the caller's."""
        if isinstance(event, PartDelta):
            self._delta(event, out)
        elif isinstance(event, (PartStart, PartPatch, PartStop)):
            self._part(event, out)
        elif isinstance(event, ResponseStart):
            self._envelope.begin(event)
        elif isinstance(event, UsageReport):
            self._envelope.usage = event.usage
        elif isinstance(event, ChoiceStop):
            self._end_choice(event)
        elif isinstance(event, ResponsePatch):
            self._envelope.patch(event)
        elif isinstance(event, ChoicePatch):
            self._lose(foreign(event.extra, "output"))
        elif isinstance(event, Alien):
            self._alien(event, out)
        elif isinstance(event, Keepalive) and out is not None:
            out.append(b": ping\n\n")

    def _end_choice(self, event: ChoiceStop) -> None:
        if event.choice:
            self._note("lost", f"choices[{event.choice}]", "choices", "this format has one answer")
        elif event.reason == "error":
            self.failed = event.raw_reason or "error"
        else:
            self._envelope.stop = event

    def _alien(self, event: Alien, out: Out) -> None:
        if event.format != FORMAT:
            self._note("lost", "", event.kind or "frame", "a frame of another format")
        elif out is None:
            self._note("lost", "", event.kind or "frame", "a frame of a stream has no place in a whole answer")
        else:
            self.begin(out)
            try:
                value = OBJECT.decode(event.data)
            except BAD_JSON:
                out.append(b"event: %b\ndata: %b\n\n" % (" ".join(event.kind.split()).encode(), line(Raw(event.data))))
                return
            name = event.kind
            value.pop("type", None)
            value.pop("sequence_number", None)
            self._frame(out, name, value)

    # Frames

    def _frame(self, out: Out, kind: str, members: dict[str, Any]) -> None:
        if out is None:
            return
        value = {"type": kind, "sequence_number": self.sequence, **members}
        self.sequence += 1
        out.append(b"event: %b\ndata: %b\n\n" % (" ".join(kind.split()).encode(), line(value)))

    def _tell(self, told: Told | None, out: Out) -> None:
        if told is not None:
            self._frame(out, *told)

    def begin(self, out: Out) -> None:
        """Write ``response.created`` and ``response.in_progress``, once."""
        if self.started:
            return
        self.started = True
        if not self._envelope.begun:
            self._envelope.begin(ResponseStart())
        if out is not None:
            response = self._envelope.started()
            self._frame(out, "response.created", {"response": response})
            self._frame(out, "response.in_progress", {"response": response})

    def finish(self, out: Out) -> None:
        """Close what is open and write the last event, once."""
        self.begin(out)
        if self.finished:
            return
        for index in list(self.open):
            self._part_stop(index, out)
        # What was being said when the answer was cut short is incomplete itself; a provider of this format says so.
        last = self._items[-1] if self._items and not self._envelope.own else None
        if last is not None and last is self._message and self._envelope.status() == "incomplete":
            last.status = "incomplete"
        self.finished = True
        self._settle(out)
        if self.failed is None:
            kind = "response.incomplete" if self._envelope.status() == "incomplete" else "response.completed"
            self._frame(out, kind, {"response": self.response()} if out is not None else {})

    def fail(self, error: dict[str, object], out: list[bytes]) -> None:
        """Write ``response.failed``, with what was told so far."""
        self.begin(out)
        response = self._envelope.response("failed", [item.value("incomplete") for item in self._items])
        self._frame(out, "response.failed", {"response": {**response, "error": error}})

    # The whole

    def response(self) -> dict[str, Any]:
        """The response object, whole."""
        return self._envelope.ended([item.value(item.status) for item in self._items])

    def check_arguments(self) -> None:
        """Raise Malformed for a call of another format whose arguments are no JSON object."""
        for item in self._items:
            if item.kind != "function_call" or self._envelope.own or not item.contents:
                continue
            if not json_object(item.contents[0].text().encode()):
                name = item.members.get("name")
                raise Malformed(f"the provider called {name} with arguments that are not a JSON object")

    # Parts

    def _part(self, event: PartStart | PartPatch | PartStop, out: Out) -> None:
        if event.choice:
            self._note("lost", f"choices[{event.choice}]", "choices", "this format has one answer")
        elif isinstance(event, PartStart):
            self.begin(out)
            self._part_start(event.index, event.part, out)
        elif isinstance(event, PartPatch):
            self._part_patch(event, out)
        else:
            self._part_stop(event.index, out)

    def _delta(self, event: PartDelta, out: Out) -> None:
        part = self.open.get(event.index)
        if event.choice:
            self._note("lost", f"choices[{event.choice}]", "choices", "this format has one answer")
        if part is None or event.choice or not part.growth:
            return
        words = b""
        if event.logprobs is not None:
            words = self._logprobs(part, event.logprobs)
        if not event.text and not words:
            return
        part.texts.append(event.text)
        if out is not None:
            out.append(self.delta(part, event.text, words))

    def delta(self, part: Content, text: str, logprobs: bytes = b"") -> bytes:
        """Return the frame of more words."""
        number = self.sequence
        self.sequence = number + 1
        return part.delta(number, text, logprobs)

    def _logprobs(self, part: Content, raw: Raw) -> bytes:
        """Note log probabilities; return them as they stand in a delta."""
        try:
            found = OBJECT.decode(raw).get("content")
            entries = ARRAY.decode(found) if found is not None else []
        except BAD_JSON:
            entries = []
        if part.growth != "text":
            if entries:
                self._note("lost", f"output[{part.item.number}].logprobs", "logprobs", "of texts alone here")
            return b""
        part.logprobs += entries
        return line(entries) if entries else b""

    def _part_start(self, index: int, part: Part, out: Out) -> None:
        item: Item
        path = f"output[{len(self._items)}]"
        it: Content
        if isinstance(part, (Text, Refusal)):
            found = self._message
            if found is None or found.closing or (self._envelope.own and ITEM in part.extra):
                found = self._message = self._new_item("message", part, out)
            item = found
            it = Content(item, "text" if isinstance(part, Text) else "refusal", len(item.contents))
            self._envelope.refused |= isinstance(part, Refusal)
        elif isinstance(part, Reasoning):
            found = self._thought
            if found is None or found.closing or not self._envelope.own or ITEM in part.extra:
                found = self._thought = self._new_item("reasoning", part, out)
            item = found
            growth = "words" if part.origin == CONTENT else "summary"
            it = Content(item, growth, sum(p.growth == growth for p in item.contents), part.origin)
        elif isinstance(part, ToolCall) and not part.server:
            item = self._call_item(part, out)
            it = Content(item, "input" if part.kind == "custom" else "arguments", 0)
        elif isinstance(part, Opaque) and part.format == FORMAT:
            self._opaque(index, part, out)
            return
        else:
            self._lose_part(part, path)
            return
        item.open += 1
        self.open[index] = it
        if isinstance(part, Reasoning) and part.redacted is not None:
            self._sign(item, part.origin, part.redacted, redacted=True)
        else:
            item.contents.append(it)
            if self._envelope.own:
                it.extra.update(own_members(part.extra))
            self._tell(it.begun(), out)
        if not self._envelope.own:
            self._lose(foreign(part.extra, path))
        if isinstance(part, Reasoning) and part.signature and part.redacted is None:
            self._sign(item, part.origin, part.signature, redacted=False)
        text = part.arguments if isinstance(part, ToolCall) else part.text
        if text and it in item.contents:
            self._delta(PartDelta(index, text), out)
        if isinstance(part, Text):
            for citation in part.citations:
                self._cite(it, citation, out)

    def _new_item(self, kind: str, part: Part, out: Out) -> Item:
        """Begin an item."""
        self._end_items(out)
        number = len(self._items)
        extra: Extra = NO_EXTRA if isinstance(part, Opaque) or not self._envelope.own else part.extra
        id = _text_of(extra.get("kept.id"))
        if id is None:
            id = f"{_ID_HEADS[kind]}_{self._context.request_id}_{number}"
            self._note("minted", f"output[{number}].id", "id", "an item demands one")
        item = Item(kind, number, id)
        item.extra = {name: raw for name, raw in extra.items() if name.startswith(("kept.", f"{ITEM}."))}
        self._items.append(item)
        self._unsaid.append(item)
        if kind in ("message", "reasoning"):
            self._item_added(item, out)
        return item

    def _end_items(self, out: Out) -> None:
        """The message, or the thought, that takes more parts is at its end: an item of another kind begins."""
        for before in (self._message, self._thought):
            if before is not None:
                before.closing = True
        self._settle(out)

    def _item_added(self, item: Item, out: Out) -> None:
        if out is None or (item.id and item.id in self.announced):
            return
        value = item.value("in_progress", empty=True)
        self._frame(out, "response.output_item.added", {"output_index": item.number, "item": value})

    def _call_item(self, part: ToolCall, out: Out) -> Item:
        kind = "custom_tool_call" if part.kind == "custom" else "function_call"
        item = self._new_item(kind, part, out)
        id = part.id
        if not id or "id" in part.extra:
            id = f"call_{self._context.request_id}_{item.number}"
            self._note("minted", f"output[{item.number}].call_id", "call_id", "the provider gave the call none")
        item.members = {"call_id": id, "name": part.name}
        self._item_added(item, out)
        return item

    def _opaque(self, index: int, part: Opaque, out: Out) -> None:
        if part.kind.startswith(UNKNOWN_CONTENT) and self._message is not None:
            it = Content(self._message, "", len(self._message.contents))
            it.raw = part.data
            self._message.contents.append(it)
            self._message.open += 1
            self.open[index] = it
            if out is not None:
                self._frame(out, "response.content_part.added", {**it.at(), "part": Raw(part.data)})
            return
        self._end_items(out)
        item = Item("opaque", len(self._items), _id_of(part.data))
        item.data = part.data
        item.open = 1
        self._items.append(item)
        self._unsaid.append(item)
        self.open[index] = Content(item, "", 0)
        self._item_added(item, out)

    def _lose_part(self, part: Part, path: str) -> None:
        if isinstance(part, Opaque):
            self._note("lost", path, part.kind, f"a block of {part.format}")
        elif isinstance(part, ToolCall):
            self._note("lost", path, part.server, f"a call of the provider's own tool {part.name}")
        elif isinstance(part, Media):
            self._note("lost", path, part.kind, "answers carry no such content here")
        elif isinstance(part, ToolResult):
            self._note("lost", path, "tool result", "an answer of this format cannot hold it")

    # What comes after the start of a part

    def _part_patch(self, event: PartPatch, out: Out) -> None:
        # Citations may come after the end of their part, and what an item is may be known at its own end only.
        it = self.open.get(event.index) or self._closed.get(event.index)
        if it is None:
            return
        item = it.item
        if event.signature:
            self._sign(item, it.origin, event.signature, redacted=False)
        if event.citation is not None:
            self._cite(it, event.citation, out)
            if event.index in self._closed:
                self._flush_citations(it, out)
        if event.transcript is not None:
            self._note("lost", f"output[{item.number}]", "transcript", "there is no audio here")
        if not self._envelope.own:
            self._lose(foreign(event.extra, f"output[{item.number}]"))
            return
        for name, raw in event.extra.items():
            if item.kind == "opaque" and name == "data":
                item.data = bytes(raw)
            elif name.startswith(("kept.", f"{ITEM}.")):
                item.extra[name] = raw
            else:
                it.extra[name] = raw

    def _sign(self, item: Item, origin: str, signature: str, *, redacted: bool) -> None:
        """Put a signature into an item: OpenAI's as it is, another's so that the client brings it back."""
        before = item.members.get("encrypted_content")
        own = origin.partition(":")[0] == FORMAT
        if before is not None:
            item.members["encrypted_content"] = before + signature
        else:
            item.members["encrypted_content"] = signature if own else carry(origin, signature, redacted=redacted)
        if own:
            return
        path = f"output[{item.number}].encrypted_content"
        self._note("emulated", path, "signature", "carried for the next turn, in this format's member for its own")

    def _cite(self, it: Content, citation: Citation, out: Out) -> None:
        if it.growth != "text":
            return
        if citation.format == FORMAT:
            self._annotate(it, Raw(citation.raw), out)
        else:
            it.pending.append(citation)

    def _flush_citations(self, it: Content, out: Out) -> None:
        for citation in it.pending:
            note, losses = write_citation(citation, it.length, f"output[{it.item.number}].content[{it.index}]")
            self._lose(losses)
            if note is not None:
                self._annotate(it, note, out)
        it.pending.clear()

    def _annotate(self, it: Content, note: Any, out: Out) -> None:
        if out is not None:
            at = {**it.at(), "annotation_index": len(it.annotations), "annotation": note}
            self._frame(out, "response.output_text.annotation.added", at)
        it.annotations.append(note)

    def _part_stop(self, index: int, out: Out) -> None:
        it = self.open.pop(index, None)
        if it is None:
            return
        item = it.item
        item.open -= 1
        self._flush_citations(it, out)
        self._closed[index] = it
        if it.growth == "arguments" and not it.text() and not self._envelope.own:
            # Formats with object arguments say nothing for an empty one; clients of this one parse a string.
            self._note(
                "minted", f"output[{item.number}].arguments", "arguments", "a call without arguments has {} here"
            )
            it.texts = ["{}"]
            if out is not None:
                out.append(self.delta(it, "{}"))
        if out is not None and it in item.contents:
            for told in it.done():
                self._tell(told, out)
        if item.kind in ("function_call", "custom_tool_call", "opaque"):
            item.closing = True
            self._settle(out)
        elif item.closing:
            self._settle(out)

    def _settle(self, out: Out) -> None:
        """Say that items are done which are at their end; at the end of the answer, all of them."""
        waiting: list[Item] = []
        for item in self._unsaid:
            if item.open or not (item.closing or self.finished):
                waiting.append(item)
            elif out is not None:
                value = {"output_index": item.number, "item": item.value(item.status)}
                self._frame(out, "response.output_item.done", value)
        self._unsaid = waiting


def _text_of(raw: Raw | None) -> str | None:
    try:
        return None if raw is None else msgspec.json.decode(raw, type=str)
    except BAD_JSON:
        return None


def _id_of(item: bytes) -> str:
    """The id of an item that is kept verbatim, empty if it has none."""
    try:
        return _text_of(OBJECT.decode(item).get("id")) or ""
    except BAD_JSON:
        return ""
