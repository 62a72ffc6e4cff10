"""An answer of any format as output items, and as the events that tell of them, in this API's own order.

Texts and refusals that follow each other are the contents of one message; reasoning of another format is a summary, the
form in which clients read it. Items may be open side by side. Everything that was told stands again in the last event, so
that the words of an answer are kept until its end.

Minted where nobody gave them, since clients demand them: ``id``, ``created_at``, the ids of items and calls, and the echo
of the request that every response has (``tools``, ``tool_choice``, ``parallel_tool_calls``).
"""

from __future__ import annotations

from collections.abc import Iterable
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
    Usage,
    UsageReport,
)
from ...ir.loss import Loss, LossKind
from ...ir.message import NO_EXTRA, Citation, Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from ...wire.members import ARRAY, BAD_JSON, OBJECT, encode_json, json_object
from ..base import AnswerContext
from ..ledger import MAX_LOSSES
from .content import own_members, write_citation
from .item_reader import ITEM
from .members import FORMAT, foreign
from .output_reader import UNKNOWN_CONTENT
from .usage import write_usage
from .words import CONTENT, INCOMPLETE, INEXACT, REASONS, carry

_ID_HEADS: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
}
_BLANKS: Final = bytes.maketrans(b"\r\n", b"  ")
_PENDING: Final = frozenset({"queued", "in_progress", "cancelled"})
Out = list[bytes] | None
"""Where the frames go; None when nobody wants them, but the items."""


class _Item:
    """An output item while it grows. ``number`` is its index; ``open`` counts its open parts."""

    __slots__ = ("closing", "contents", "data", "extra", "id", "kind", "members", "number", "open", "status")

    def __init__(self, kind: str, number: int, id: str) -> None:
        self.kind = kind
        self.number = number
        self.id = id
        self.members: dict[str, Any] = {}
        self.extra: dict[str, Raw] = {}
        self.contents: list[_Part] = []
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


class _Part:
    """A part of an item. ``growth`` is what its deltas are.

    A frame of a delta is ``before``, its number, ``where``, the text, ``after``. ``pending`` are citations of another format,
    which are told when the length of the text is known; ``origin`` is that of reasoning.
    """

    __slots__ = (
        *("after", "annotations", "before", "extra", "growth", "index", "item", "logprobs", "pending", "raw", "texts"),
        *("length", "origin", "where"),
    )

    def __init__(self, item: _Item, growth: str, index: int, origin: str = "") -> None:
        self.item = item
        self.origin = origin
        self.growth = growth
        self.index = index
        self.texts: list[str] = []
        self.length = 0
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


class OutputWriter:
    """Writes one answer. ``add`` takes its events in order, ``finish`` ends it, ``response`` is the whole of it.

    ``losses`` holds each loss once, no more than MAX_LOSSES. ``failed`` is the provider's word for an answer that ended
    with an error. ``sequence`` numbers the events.
    """

    def __init__(self, context: AnswerContext) -> None:
        self.losses: list[Loss] = []
        self.failed: str | None = None
        self.sequence = 0
        self.started = False
        self.finished = False
        self.announced: set[str] = set()
        self.open: dict[int, _Part] = {}
        self._context = context
        self._own = False
        self._start: ResponseStart | None = None
        self._envelope: dict[str, Any] = {}
        self._patch: dict[str, Raw] = {}
        self._items: list[_Item] = []
        self._unsaid: list[_Item] = []
        self._closed: dict[int, _Part] = {}
        self._message: _Item | None = None
        self._thought: _Item | None = None
        self._stop: ChoiceStop | None = None
        self._usage: Usage | None = None

    @property
    def pending(self) -> bool:
        """Whether the answer has begun, and nothing was written of it yet."""
        return self._start is not None and not self.started

    def add(self, event: Event, out: Out) -> None:
        """Take one event. Terminator and ResponseStop are the caller's."""
        if isinstance(event, PartDelta):
            self._delta(event, out)
        elif isinstance(event, (PartStart, PartPatch, PartStop)):
            self._part(event, out)
        elif isinstance(event, ResponseStart):
            self._begin_with(event)
        elif isinstance(event, UsageReport):
            self._usage = event.usage
        elif isinstance(event, ChoiceStop):
            self._end_choice(event)
        elif isinstance(event, ResponsePatch):
            if self._own:
                self._patch.update(event.extra)
            else:
                self.lose(foreign(event.extra, ""))
        elif isinstance(event, ChoicePatch):
            self.lose(foreign(event.extra, "output"))
        elif isinstance(event, Alien):
            self._alien(event, out)
        elif isinstance(event, Keepalive) and out is not None:
            out.append(b": ping\n\n")

    def lose(self, losses: Iterable[Loss]) -> None:
        """Note losses; a stream loses the same thing many times and says so once."""
        for loss in losses:
            if len(self.losses) < MAX_LOSSES and loss not in self.losses:
                self.losses.append(loss)

    def _note(self, kind: LossKind, path: str, what: str, why: str) -> None:
        self.lose([Loss(kind, path, what, why)])

    def _end_choice(self, event: ChoiceStop) -> None:
        if event.choice:
            self._note("lost", f"choices[{event.choice}]", "choices", "this format has one answer")
        elif event.reason == "error":
            self.failed = event.raw_reason or "error"
        else:
            self._stop = event

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
                out.append(b"event: %b\ndata: %b\n\n" % (" ".join(event.kind.split()).encode(), _line(Raw(event.data))))
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
        out.append(b"event: %b\ndata: %b\n\n" % (" ".join(kind.split()).encode(), _line(value)))

    def begin(self, out: Out) -> None:
        """Write ``response.created`` and ``response.in_progress``, once."""
        if self.started:
            return
        self.started = True
        if self._start is None:
            self._begin_with(ResponseStart())
        if out is not None:
            response = self._response("in_progress", [], None)
            self._frame(out, "response.created", {"response": response})
            self._frame(out, "response.in_progress", {"response": response})

    def finish(self, out: Out) -> None:
        """Close what is open and write the last event, once."""
        self.begin(out)
        if self.finished:
            return
        for index in list(self.open):
            self._part_stop(index, out)
        # What was being said when the answer was cut short is incomplete itself.
        last = self._items[-1] if self._items else None
        if last is not None and last is self._message and self._status() == "incomplete":
            last.status = "incomplete"
        self.finished = True
        self._settle(out)
        if self.failed is None:
            kind = "response.incomplete" if self._status() == "incomplete" else "response.completed"
            self._frame(out, kind, {"response": self.response()} if out is not None else {})

    def fail(self, error: dict[str, object], out: list[bytes]) -> None:
        """Write ``response.failed``, with what was told so far."""
        self.begin(out)
        response = self._response("failed", [item.value("incomplete") for item in self._items], self._usage)
        self._frame(out, "response.failed", {"response": {**response, "error": error}})

    # The envelope

    def _begin_with(self, event: ResponseStart) -> None:
        """Begin; when another provider goes on with the answer, its extras count from here, its id and model do not."""
        self._own = event.format == FORMAT
        if self._start is not None:
            return
        self._start = event
        id, created = event.id, event.created
        if not id:
            id = f"resp_{self._context.request_id}"
            self._note("minted", "id", "id", "the provider gave none")
        if created is None:
            created = self._context.created
            self._note("minted", "created_at", "created_at", "the provider gave no date")
        value: dict[str, Any] = {"id": id, "object": "response", "created_at": created}
        value |= {"status": "", "error": None, "incomplete_details": None, "model": event.model or self._context.model}
        value["output"] = []
        if self._own:
            if event.service_tier is not None:
                value["service_tier"] = event.service_tier
            _add_kept(value, event.extra)
        else:
            if event.service_tier is not None:
                tier = f"a tier of {event.format or 'another format'}"
                self._note("lost", "service_tier", event.service_tier, tier)
            self.lose(foreign(event.extra, ""))
        if "tools" not in value and "tool_choice" not in value:
            self._note("minted", "tools", "tools", "the echo of the request: demanded here, and not known")
        for name, usual in (("parallel_tool_calls", True), ("tool_choice", "auto"), ("tools", [])):
            value.setdefault(name, usual)
        self._envelope = value

    def _status(self) -> str:
        stop = self._stop
        if stop is None:
            return "completed"
        if self._own and stop.raw_reason:
            if stop.raw_reason in _PENDING:
                return stop.raw_reason
            if stop.raw_reason == "completed":
                return "completed"
            if INCOMPLETE.get(stop.raw_reason) == stop.reason or stop.reason == "other":
                return "incomplete"
        if stop.reason == "refusal" and self._has_refused():
            return "completed"
        return "incomplete" if stop.reason in REASONS else "completed"

    def _has_refused(self) -> bool:
        return any(part.growth == "refusal" for item in self._items for part in item.contents)

    def response(self) -> dict[str, Any]:
        """The response object, whole."""
        status = self._status()
        stop = self._stop
        if stop is None:
            self._note("minted", "status", "status", "the provider told none")
        elif stop.reason in INEXACT and not self._own and not (stop.reason == "refusal" and self._has_refused()):
            self._note("emulated", "status", stop.raw_reason or stop.reason, INEXACT[stop.reason])
        value = self._response(status, [item.value(item.status) for item in self._items], self._usage)
        if status == "incomplete" and stop is not None:
            word = stop.raw_reason if self._own and stop.raw_reason else REASONS.get(stop.reason, "max_output_tokens")
            if word != "incomplete":
                details: dict[str, Any] = {"reason": word}
                if self._own:
                    for name, raw in stop.extra.items():
                        details[name.removeprefix("incomplete_details.")] = raw
                value["incomplete_details"] = details
        if stop is not None and not self._own:
            self.lose(foreign(stop.extra, ""))
        return value

    def _response(self, status: str, output: list[Any], usage: Usage | None) -> dict[str, Any]:
        value = {**self._envelope, "status": status, "output": output}
        if status != "in_progress" or self.finished:
            patch: dict[str, Any] = {}
            _add_kept(patch, self._patch)
            value |= patch
        losses: list[Loss] = []
        value["usage"] = None if usage is None else write_usage(usage, losses)
        self.lose(losses)
        return value

    def check_arguments(self) -> None:
        """Raise Malformed for a call of another format whose arguments are no JSON object."""
        for item in self._items:
            if item.kind != "function_call" or self._own or not item.contents:
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
        if part is None or event.choice:
            return
        words = b""
        if event.logprobs is not None:
            words = self._logprobs(part, event.logprobs)
        if not event.text and not words:
            return
        part.texts.append(event.text)
        part.length += len(event.text)
        if out is not None:
            out.append(self.delta(part, event.text, words))

    def delta(self, part: _Part, text: str, logprobs: bytes = b"") -> bytes:
        """Return the frame of more words."""
        number = self.sequence
        self.sequence = number + 1
        after = part.after if not logprobs else b',"logprobs":%b}\n\n' % logprobs
        return b"%b%d%b%b%b" % (part.before, number, part.where, encode_json(text), after)

    def _logprobs(self, part: _Part, raw: Raw) -> bytes:
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
        return _line(entries) if entries else b""

    def _part_start(self, index: int, part: Part, out: Out) -> None:
        item: _Item
        path = f"output[{len(self._items)}]"
        it: _Part
        if isinstance(part, (Text, Refusal)):
            found = self._message
            if found is None or found.closing or (self._own and ITEM in part.extra):
                found = self._message = self._new_item("message", part, out)
            item = found
            it = _Part(item, "text" if isinstance(part, Text) else "refusal", len(item.contents))
        elif isinstance(part, Reasoning):
            found = self._thought
            if found is None or found.closing or not self._own or ITEM in part.extra:
                found = self._thought = self._new_item("reasoning", part, out)
            item = found
            growth = "words" if part.origin == CONTENT else "summary"
            it = _Part(item, growth, sum(p.growth == growth for p in item.contents), part.origin)
        elif isinstance(part, ToolCall) and not part.server:
            item = self._call_item(part, out)
            it = _Part(item, "input" if part.kind == "custom" else "arguments", 0)
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
            if self._own:
                it.extra.update(own_members(part.extra))
            self._announce(it, out)
        if not self._own:
            self.lose(foreign(part.extra, path))
        if isinstance(part, Reasoning) and part.signature and part.redacted is None:
            self._sign(item, part.origin, part.signature, redacted=False)
        text = part.arguments if isinstance(part, ToolCall) else part.text
        if text and it in item.contents:
            self._delta(PartDelta(index, text), out)
        if isinstance(part, Text):
            for citation in part.citations:
                self._cite(it, citation, out)

    def _new_item(self, kind: str, part: Part, out: Out) -> _Item:
        """Begin an item; the message or the thought before it is at its end."""
        for before in (self._message, self._thought):
            if before is not None:
                before.closing = True
        self._settle(out)
        number = len(self._items)
        extra: Extra = NO_EXTRA if isinstance(part, Opaque) or not self._own else part.extra
        id = _string(extra.get("kept.id"))
        if id is None:
            id = f"{_ID_HEADS[kind]}_{self._context.request_id}_{number}"
            self._note("minted", f"output[{number}].id", "id", "an item demands one")
        item = _Item(kind, number, id)
        item.extra = {name: raw for name, raw in extra.items() if name.startswith(("kept.", f"{ITEM}."))}
        self._items.append(item)
        self._unsaid.append(item)
        if kind in ("message", "reasoning"):
            self._item_added(item, out)
        return item

    def _item_added(self, item: _Item, out: Out) -> None:
        if item.id in self.announced or out is None:
            return
        value = item.value("in_progress", empty=True)
        self._frame(out, "response.output_item.added", {"output_index": item.number, "item": value})

    def _call_item(self, part: ToolCall, out: Out) -> _Item:
        kind = "custom_tool_call" if part.kind == "custom" else "function_call"
        item = self._new_item(kind, part, out)
        id = part.id
        if not id or "id" in part.extra:
            id = f"call_{self._context.request_id}_{item.number}"
            self._note("minted", f"output[{item.number}].call_id", "call_id", "the provider gave the call none")
        item.members = {"call_id": id, "name": part.name}
        self._item_added(item, out)
        return item

    def _announce(self, it: _Part, out: Out) -> None:
        """Say that a part begins, and make the frame of its deltas."""
        if out is not None and it.growth in ("text", "refusal"):
            self._frame(out, "response.content_part.added", {**_at(it), "part": it.value(empty=True)})
        elif out is not None and it.growth == "summary":
            self._frame(out, "response.reasoning_summary_part.added", {**_at(it), "part": it.value(empty=True)})
        kind = _DELTAS[it.growth]
        it.before = b'event: %b\ndata: {"type":"%b","sequence_number":' % (kind, kind)
        it.after = b',"logprobs":[]}\n\n' if it.growth == "text" else b"}\n\n"
        it.where = b',%b,"delta":' % encode_json(_at(it))[1:-1]

    def _opaque(self, index: int, part: Opaque, out: Out) -> None:
        if part.kind.startswith(UNKNOWN_CONTENT) and self._message is not None:
            it = _Part(self._message, "", len(self._message.contents))
            it.raw = part.data
            self._message.contents.append(it)
            self._message.open += 1
            self.open[index] = it
            if out is not None:
                self._frame(out, "response.content_part.added", {**_at(it), "part": Raw(part.data)})
            return
        for before in (self._message, self._thought):
            if before is not None:
                before.closing = True
        self._settle(out)
        item = _Item("opaque", len(self._items), "")
        item.data = part.data
        item.open = 1
        self._items.append(item)
        self._unsaid.append(item)
        it = self.open[index] = _Part(item, "", 0)
        if out is not None:
            self._frame(out, "response.output_item.added", {"output_index": item.number, "item": Raw(part.data)})

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
        it = self.open.get(event.index)
        if it is None:
            late = self._closed.get(event.index)
            if late is not None and event.citation is not None:
                self._cite(late, event.citation, out)
                self._flush_citations(late, out)
            return
        item = it.item
        if event.signature is not None:
            self._sign(item, it.origin, event.signature, redacted=False)
        if event.citation is not None:
            self._cite(it, event.citation, out)
        if event.transcript is not None:
            self._note("lost", f"output[{item.number}]", "transcript", "there is no audio here")
        if not self._own:
            self.lose(foreign(event.extra, f"output[{item.number}]"))
            return
        for name, raw in event.extra.items():
            if item.kind == "opaque" and name == "data":
                item.data = bytes(raw)
            elif name.startswith(("kept.", f"{ITEM}.")):
                item.extra[name] = raw
            else:
                it.extra[name] = raw

    def _sign(self, item: _Item, origin: str, signature: str, *, redacted: bool) -> None:
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

    def _cite(self, it: _Part, citation: Citation, out: Out) -> None:
        if it.growth != "text":
            return
        if citation.format == FORMAT:
            self._annotate(it, Raw(citation.raw), out)
        else:
            it.pending.append(citation)

    def _flush_citations(self, it: _Part, out: Out) -> None:
        for citation in it.pending:
            note, losses = write_citation(citation, it.length, f"output[{it.item.number}].content[{it.index}]")
            self.lose(losses)
            if note is not None:
                self._annotate(it, note, out)
        it.pending.clear()

    def _annotate(self, it: _Part, note: Any, out: Out) -> None:
        if out is not None:
            at = {**_at(it), "annotation_index": len(it.annotations), "annotation": note}
            self._frame(out, "response.output_text.annotation.added", at)
        it.annotations.append(note)

    def _part_stop(self, index: int, out: Out) -> None:
        it = self.open.pop(index, None)
        if it is None:
            return
        item = it.item
        item.open -= 1
        self._flush_citations(it, out)
        if it.growth == "text":
            self._closed[index] = it
        if it.growth == "arguments" and not it.text() and not self._own:
            # Formats with object arguments say nothing for an empty one; clients of this one parse a string.
            self._note(
                "minted", f"output[{item.number}].arguments", "arguments", "a call without arguments has {} here"
            )
            it.texts = ["{}"]
            if out is not None:
                out.append(self.delta(it, "{}"))
        if out is not None and (it in item.contents):
            self._say_done(it, out)
        if item.kind in ("function_call", "custom_tool_call", "opaque"):
            item.closing = True
            self._settle(out)
        elif item.closing:
            self._settle(out)

    def _say_done(self, it: _Part, out: list[bytes]) -> None:
        at, text = _at(it), it.text()
        if it.growth == "text":
            self._frame(out, "response.output_text.done", {**at, "text": text, "logprobs": it.logprobs})
        elif it.growth == "refusal":
            self._frame(out, "response.refusal.done", {**at, "refusal": text})
        elif it.growth == "summary":
            self._frame(out, "response.reasoning_summary_text.done", {**at, "text": text})
            self._frame(out, "response.reasoning_summary_part.done", {**at, "part": it.value()})
        elif it.growth == "words":
            self._frame(out, "response.reasoning_text.done", {**at, "text": text})
        elif it.growth == "arguments":
            self._frame(out, "response.function_call_arguments.done", {**at, "arguments": text})
        elif it.growth == "input":
            self._frame(out, "response.custom_tool_call_input.done", {**at, "input": text})
        if it.item.kind == "message":
            self._frame(out, "response.content_part.done", {**at, "part": it.value()})

    def _settle(self, out: Out) -> None:
        """Say that items are done which are at their end; at the end of the answer, all of them."""
        waiting: list[_Item] = []
        for item in self._unsaid:
            if item.open or not (item.closing or self.finished):
                waiting.append(item)
            elif out is not None:
                value = {"output_index": item.number, "item": item.value(item.status)}
                self._frame(out, "response.output_item.done", value)
        self._unsaid = waiting


_DELTAS: Final = {
    "text": b"response.output_text.delta",
    "refusal": b"response.refusal.delta",
    "summary": b"response.reasoning_summary_text.delta",
    "words": b"response.reasoning_text.delta",
    "arguments": b"response.function_call_arguments.delta",
    "input": b"response.custom_tool_call_input.delta",
}


def _at(it: _Part) -> dict[str, Any]:
    """Where a part stands."""
    at: dict[str, Any] = {"item_id": it.item.id, "output_index": it.item.number}
    if it.growth == "summary":
        at["summary_index"] = it.index
    elif it.item.kind in ("message", "reasoning"):
        at["content_index"] = it.index
    return at


def _add_kept(value: dict[str, Any], extra: Extra) -> None:
    """Write the members of an envelope, without the codec's own prefix."""
    for name, raw in extra.items():
        value[name.removeprefix("kept.")] = raw


def _string(raw: Raw | None) -> str | None:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except BAD_JSON:
        return None


def _line(value: object) -> bytes:
    """``value`` as JSON on one line. Bytes that came from elsewhere may be indented; in JSON a line end is only white space."""
    data = encode_json(value)
    return data.translate(_BLANKS) if b"\n" in data or b"\r" in data else data
