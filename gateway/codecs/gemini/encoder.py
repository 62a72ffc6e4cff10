"""An answer of any format as this format's stream, for one caller: server-sent events, or an array that grows.

Words go out as they come. Everything else goes out whole: a call with all of its arguments, a file, a part with a signature.
Parts that are open at the same time wait for the one before them, so that a stream and a whole answer tell the same order.
The reasons to stop and the usage come in the last frame, as this API has it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from ...errors import GatewayError, Malformed, UpstreamError
from ...ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    Terminator,
    Usage,
    UsageReport,
    Wire,
)
from ...ir.fold import Fold
from ...ir.loss import Loss
from ...ir.message import NO_EXTRA, Opaque, Part, Reasoning, Refusal, Text
from ...wire.members import ARRAY as ITEMS
from ...wire.members import put_extra
from ...wire.sse import parse_frame
from ..base import AnswerContext
from .answer import FEEDBACK, AnswerRenderer, Block
from .errors import error_body
from .members import BLANKS, FORMAT
from .response import refuse
from .stream import ARRAY, SSE

PING: Final = b"\n"
"""White space between frames, in either framing. Google's SDK takes a comment for the beginning of an error."""
MAX_HELD_BYTES: Final = 32 * 1024 * 1024
"""What parts that go out whole may amount to. Above it the answer fails: nothing may be dropped silently."""

_EMPTY: Final[Block] = {"text": ""}
_HERE: Final = Raw(b"\0")
"""Stands for the text in a frame whose beginning and end are wanted."""
_encode: Final = msgspec.json.Encoder().encode


class _Part:
    """A part on its way. ``flows`` is whether its words may go out one by one."""

    __slots__ = ("done", "flows", "fold", "logprobs", "texts", "thought")

    def __init__(self, start: PartStart, *, flows: bool) -> None:
        self.flows = flows
        self.thought = isinstance(start.part, Reasoning)
        self.texts: list[str] = []
        self.logprobs: list[Raw] = []
        self.fold = Fold()
        if flows and isinstance(start.part, (Text, Reasoning, Refusal)):
            self.texts.append(start.part.text)
            start = replace(start, part=replace(start.part, text=""))
        self.fold.add(start)
        self.done = False


class GeminiStreamEncoder:
    """Encodes one stream; see StreamEncoder."""

    __slots__ = (
        "_after",
        "_answer",
        "_before",
        "_begun",
        "_choice",
        "_context",
        "_ended",
        "_failed",
        "_first",
        "_held_bytes",
        "_numbers",
        "_open",
        "_owed",
        "_passing",
        "_patch",
        "_patches",
        "_parts",
        "_stops",
        "_tail",
        "_told",
        "_usage",
        "_wire",
        "losses",
    )

    ping = PING

    def __init__(self, context: AnswerContext, wire: Wire) -> None:
        self._context = context
        self._wire = wire
        self._answer = AnswerRenderer("", context)
        self.losses: list[Loss] = self._answer.losses
        self._begun = False
        self._ended = False
        self._failed: GatewayError | None = None
        self._tail = b""
        self._first: dict[str, Raw] = {}
        self._owed = True  # the last frame, or what it would tell
        self._parts: dict[int, dict[int, _Part]] = {}
        self._numbers: dict[int, int] = {}
        self._held_bytes = 0
        self._stops: dict[int, ChoiceStop] = {}
        self._told: set[int] = set()
        self._usage: Usage | None = None
        self._patch: dict[str, Raw] = {}
        self._patches: dict[int, dict[str, Raw]] = {}
        # The part whose words were the last thing that went out, if nothing of it waits; a frame of more of its words is
        # ``before``, the text as a JSON string, ``after``.
        self._open = -1
        self._passing = False  # frames of words go out as they came, and change nothing
        self._choice = 0
        self._before = b""
        self._after = b""
        self._set_start(ResponseStart())

    def encode(self, chunk: Chunk) -> bytes:
        """Return the bytes for ``chunk``; after a fault, nothing more until ``close`` tells it."""
        if chunk.raw is not None and chunk.wire in (SSE, ARRAY):
            if self._passing and chunk.raw and chunk.wire == self._wire:
                events = chunk.events
                if len(events) == 1 and type(events[0]) is PartDelta:
                    return chunk.raw
            if self._follow(chunk):
                raw = self._reframed(chunk)
                self._passing = self._begun and not self._ended and not any(map(self._holding, self._parts))
                return raw
        if self._ended and chunk.wire == self._wire and not chunk.events:
            return chunk.raw or b""  # a line end after the bracket
        events = chunk.events
        if (
            len(events) == 1
            and type(event := events[0]) is PartDelta
            and event.index == self._open
            and event.choice == self._choice
            and event.logprobs is None
            and event.text
        ):
            if not self._before:
                self._look_around()
            return self._before + _encode(event.text) + self._after
        self._open, self._passing = -1, False
        out: list[bytes] = []
        for event in events:
            if self._ended or self._failed is not None:
                break
            try:
                self._write(event, out)
            except UpstreamError as error:
                self._failed = error
        if self._ended or self._failed is not None:
            self._open = -1
        return b"".join(out)

    def close(self, error: GatewayError | None) -> bytes:
        """Return what is still owed: the last frame and the end of the framing, or the error and nothing after it."""
        if self._ended:
            return b""
        self._open, self._passing = -1, False
        error = error or self._failed
        out: list[bytes] = []
        if error is None:
            try:
                self._finish(out)
            except UpstreamError as fault:
                error = fault
        self._ended = True
        if error is not None:
            if error.kind == "cancelled":
                return b""
            self._put(error_body(error), out)
        out.append(self._end_mark())
        return b"".join(out)

    # -- framing

    def _put(self, data: bytes, out: list[bytes]) -> None:
        if b"\n" in data or b"\r" in data:
            data = data.translate(BLANKS)
        if self._wire == SSE:
            out.append(b"data: %b\n\n" % data)
        else:
            out.append((b",\n" if self._begun else b"[") + data)
        self._begun = True

    def _end_mark(self) -> bytes:
        if self._wire == SSE:
            return b""
        return b"]" if self._begun else b"[]"

    def _reframed(self, chunk: Chunk) -> bytes:
        """The bytes of a provider's frames in the caller's framing: as they came where it is the same."""
        raw = chunk.raw or b""
        if chunk.wire == self._wire:
            self._begun = self._begun or bool(raw)
            return raw
        out: list[bytes] = []
        if chunk.wire == SSE:
            frames = [
                parse_frame(frame)[1] for frame in raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
            ]
            items = [frame for frame in frames if frame is not None and frame.strip()]
        else:
            text = raw.strip(b" \t\r\n\xef\xbb\xbf")
            items = [bytes(item) for item in ITEMS.decode(b"[%b]" % text.lstrip(b"[, \t\r\n").rstrip(b"] \t\r\n"))]
        for item in items:
            self._put(item, out)
        if self._ended:
            out.append(self._end_mark())
        return b"".join(out)

    def _follow(self, chunk: Chunk) -> bool:
        """Keep track of a chunk of our own format; False when it must be written anew because of what went before."""
        if self._failed is not None or self._ended or self._stops or any(self._holding(n) for n in self._parts):
            return False
        for event in chunk.events:
            if isinstance(event, PartStart):
                self._start_part(event)
                self._numbers[event.choice] = self._numbers.get(event.choice, 0) + 1
            elif isinstance(event, PartStop):
                self._parts.get(event.choice, {}).pop(event.index, None)
            elif isinstance(event, ResponseStart):
                self._set_start(event)
                self._first = {}
            elif isinstance(event, ChoiceStop):
                self._told.add(event.choice)
            elif isinstance(event, UsageReport):
                self._usage = None
            elif isinstance(event, Terminator):
                self._ended = True
        self._open = -1
        # All that these events say has gone out with the bytes.
        for parts in self._parts.values():
            for part in parts.values():
                part.texts.clear()
        self._held_bytes = 0
        self._owed = not self._told
        return True

    def _holding(self, choice: int) -> bool:
        parts = self._parts[choice]
        return len(parts) > 1 or any(not part.flows for part in parts.values())

    # -- events

    def _write(self, event: Event, out: list[bytes]) -> None:
        if isinstance(event, PartDelta):
            self._delta(event, out)
        elif isinstance(event, PartStart):
            self._start_part(event)
            self._flow(event.choice, out)
        elif isinstance(event, PartPatch):
            self._patch_part(event)
        elif isinstance(event, PartStop):
            if (part := self._parts.get(event.choice, {}).get(event.index)) is not None:
                part.done = True
                self._flow(event.choice, out)
        elif isinstance(event, ResponseStart):
            self._set_start(event)
        elif isinstance(event, UsageReport):
            self._usage, self._owed = event.usage, True
        elif isinstance(event, ChoiceStop):
            refuse(event, self._answer.format)
            self._stops[event.choice], self._owed = event, True
        elif isinstance(event, ResponsePatch):
            self._patch.update(self._answer.own_extra(event.extra, ""))
        elif isinstance(event, ChoicePatch):
            extra = self._answer.own_extra(event.extra, f"candidates[{event.choice}]")
            self._patches.setdefault(event.choice, {}).update(extra)
        elif isinstance(event, Keepalive):
            out.append(PING)
        elif isinstance(event, Alien):
            self._answer.lose("lost", "", event.kind or "frame", "a frame of another format")
        else:
            self._finish(out)
            if isinstance(event, Terminator):
                out.append(self._end_mark())
                self._ended = True

    def _set_start(self, start: ResponseStart) -> None:
        self._answer.format = start.format
        self._first = dict(self._answer.own_extra(start.extra, ""))
        told = _encode(self._answer.envelope(start))[1:-1]
        self._tail = b"," + told if told else b""

    def _start_part(self, event: PartStart) -> None:
        part = event.part
        flows = isinstance(part, (Text, Refusal)) or (isinstance(part, Reasoning) and part.redacted is None)
        if self._answer.format == FORMAT and _proves(part):
            flows = False
        if flows:
            # What is lost of it is noted once, here; the words need no more looking at.
            self._answer.part(part, f"candidates[{event.choice}].content")
        self._parts.setdefault(event.choice, {})[event.index] = _Part(event, flows=flows)

    def _delta(self, event: PartDelta, out: list[bytes]) -> None:
        part = self._parts.get(event.choice, {}).get(event.index)
        if part is None:
            return
        if event.logprobs is not None:
            part.logprobs.append(event.logprobs)
        if part.flows:
            part.texts.append(event.text)
        else:
            part.fold.add(event)
        self._held_bytes += len(event.text)
        self._flow(event.choice, out)
        if self._held_bytes > MAX_HELD_BYTES:
            raise Malformed(f"the provider sent parts that go out whole, of more than {MAX_HELD_BYTES} bytes")

    def _patch_part(self, event: PartPatch) -> None:
        path = f"candidates[{event.choice}].content"
        own = self._answer.format == FORMAT
        if event.citation is not None:
            self._answer.citation(path)
        if event.transcript is not None:
            self._answer.lose("lost", path, "transcript", "a file has no words beside it here")
        if event.signature and not own:
            self._answer.lose("lost", path, "reasoning signature", "belongs to another provider")
        self._answer.own_extra(event.extra, path)
        part = self._parts.get(event.choice, {}).get(event.index)
        if part is not None and own and (event.signature is not None or event.extra):
            # The proof comes after the words: a part of its own holds it, as this API has it.
            part.fold.add(event)

    def _flow(self, choice: int, out: list[bytes]) -> None:
        """Write what may stand now: the words of the first part, and parts that are whole, in their order."""
        parts = self._parts[choice]
        while parts:
            index = next(iter(parts))
            part = parts[index]
            if part.flows:
                self._words(part, choice, out)
            if not part.done:
                return
            self._rest(part, choice, out)
            del parts[index]
        if not any(self._parts.values()):
            self._held_bytes = 0

    def _words(self, part: _Part, choice: int, out: list[bytes]) -> None:
        text = "".join(part.texts)
        part.texts.clear()
        if not text and not part.logprobs:
            return
        self._held_bytes = max(0, self._held_bytes - len(text))
        block: dict[str, Any] = {"text": text, "thought": True} if part.thought else {"text": text}
        candidate = self._answer.candidate(choice, (block,), None, part.logprobs)
        part.logprobs.clear()
        self._numbers.setdefault(choice, 0)
        self._frame({"candidates": [candidate]}, out)
        if not part.done:
            self._open, self._choice, self._before = next(iter(self._parts[choice])), choice, b""

    def _look_around(self) -> None:
        """Find what stands around the words of the open part; no other letter of a frame is spelled as a NUL."""
        thought = self._parts[self._choice][self._open].thought
        block: dict[str, Any] = {"text": _HERE, "thought": True} if thought else {"text": _HERE}
        out: list[bytes] = []
        self._frame({"candidates": [self._answer.candidate(self._choice, (block,))]}, out)
        self._before, _, self._after = b"".join(out).partition(b"\0")

    def _rest(self, part: _Part, choice: int, out: list[bytes]) -> None:
        """Write a part that is whole; of one whose words went out, what is left to prove it."""
        number = self._numbers.get(choice, 0)
        self._numbers[choice] = number + 1
        folded = part.fold.done().choices[-1].parts[-1]
        if part.flows and not _proves(folded):
            return
        written = self._answer.part(folded, f"candidates[{choice}].content.parts[{number}]")
        if written is not None:
            self._frame({"candidates": [self._answer.candidate(choice, (written,), None, part.logprobs)]}, out)

    def _frame(self, told: dict[str, Any], out: list[bytes]) -> None:
        """Write a frame: what it tells, and what every frame has."""
        if self._first:
            put_extra(told, self._first)
            self._first = {}
        self._put(_encode(told)[:-1] + self._tail + b"}", out)

    def _finish(self, out: list[bytes]) -> None:
        """Write the last frame, once: why each candidate ended, and the usage."""
        if not self._owed:
            return
        self._owed = False
        for choice, parts in self._parts.items():
            for part in parts.values():
                part.done = True
            self._flow(choice, out)
        told: dict[str, Any] = {}
        candidates: list[dict[str, Any]] = []
        for choice in sorted({*self._numbers, *self._stops, *self._patches} - self._told) or (
            [] if self._told else [0]
        ):
            stop = self._stops.get(choice)
            if (
                stop is not None
                and self._answer.format == FORMAT
                and FEEDBACK in stop.extra
                and choice not in self._numbers
            ):
                told[FEEDBACK] = stop.extra[FEEDBACK]
                continue
            stop = stop or self._answer.unsaid_stop(choice)
            patch = self._patches.get(choice, NO_EXTRA)
            candidates.append(self._answer.candidate(choice, (_EMPTY,), stop, (), patch))
        self._told.update(self._stops)
        self._stops.clear()
        if candidates:
            told["candidates"] = candidates
        if self._usage is not None and (usage := self._answer.usage(self._usage)):
            told["usageMetadata"] = usage
        put_extra(told, self._patch)
        if told:
            self._frame(told, out)


def _proves(part: Part) -> bool:
    """Whether a part whose words went out has anything left that belongs to them."""
    return (isinstance(part, Reasoning) and bool(part.signature)) or (not isinstance(part, Opaque) and bool(part.extra))
