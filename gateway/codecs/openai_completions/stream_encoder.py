"""Chunks into the bytes of one client's stream of the legacy Completions."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from ...errors import GatewayError, UpstreamError
from ...ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    Terminator,
    UsageReport,
)
from ...ir.loss import Loss
from ...ir.message import Refusal, Text
from ...wire.members import encode_json
from ...wire.sse import PING, one_line
from ..base import AnswerContext
from ..event_writer import EventWriter
from .answer_writer import finish_reason, foreign, lose_details, lose_part, write_envelope
from .errors import error_frame
from .logprobs import OFFSETS, write_logprobs
from .stream_decoder import STREAMED
from .usage import write_usage
from .words import FORMAT

DONE: Final = b"data: [DONE]\n\n"
_HERE: Final = Raw(b"\0")
"""Stands for the text in a frame whose beginning and end are wanted."""


class CompletionsStreamEncoder(EventWriter):
    """One client's stream."""

    ping = PING
    watches_words = True

    def __init__(self, context: AnswerContext) -> None:
        super().__init__(context, STREAMED)
        self._running: dict[str, Any] | None = None
        self._envelope: dict[str, Any] = {}
        self._open: set[int] = set()
        self._stopped: dict[int, bool] = {}
        self._length: dict[int, int] = {}
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def _watch(self, event: Event) -> None:
        """Keep track of what goes out as it came."""
        if isinstance(event, PartStart):
            self._open.add(event.index)
            self._stopped.setdefault(event.choice, False)
        elif isinstance(event, PartDelta):
            self._length[event.choice] = self._length.get(event.choice, 0) + len(event.text)
        elif isinstance(event, ChoiceStop):
            self._stopped[event.choice] = True
        elif isinstance(event, ResponseStart):
            self._start(event)
        elif isinstance(event, Terminator):
            self._done = True

    def _report(self, event: UsageReport) -> None:
        """Keep usage for the end; where it is told while the answer runs, every frame from here on carries it."""
        if not event.running:
            self._usage = event.usage
        if event.running or self._running is not None:
            losses: list[Loss] = []
            self._running = write_usage(event.usage, losses)
            self._around.clear()
            if event.usage.estimated:
                self._running = {**self._running, "estimated": True}
                losses.append(Loss("minted", "usage", "usage estimate", "counted by the gateway while the answer runs"))
            self._lose(losses)

    def _start(self, event: ResponseStart) -> None:
        """Begin; when another provider goes on with the answer, its extras count from here, its id and model do not."""
        self._own = event.format == FORMAT
        if self._started:
            return
        self._started = True
        losses: list[Loss] = []
        self._envelope = write_envelope(event, self._context, losses)
        self._around.clear()
        self._lose(losses)

    def _response_patch(self, event: ResponsePatch) -> None:
        if self._own:
            self._envelope.update(event.extra)
            self._around.clear()
        else:
            self._lose(foreign(event.extra, ""))

    def _choice_patch(self, event: ChoicePatch, out: list[bytes]) -> None:
        if self._own:
            out.append(self._frame(event.choice, "", event.extra))
        else:
            self._lose(foreign(event.extra, f"choices[{event.choice}]"))

    def _alien(self, event: Alien) -> bytes:
        return b"data: %b\n\n" % event.data.replace(b"\n", b"\ndata: ")

    def _error(self, error: GatewayError) -> bytes:
        return error_frame(error, self._context.request_id)

    def _frame(
        self, number: int, text: str | Raw, more: Any = None, logprobs: Any = None, reason: str | None = None
    ) -> bytes:
        if not self._started:
            self._start(ResponseStart())
        choice = {"text": text, "index": number, "logprobs": logprobs, "finish_reason": reason, **(more or {})}
        usage = {} if self._running is None else {"usage": self._running}
        return b"data: %b\n\n" % one_line({**self._envelope, "choices": (choice,), **usage})

    def _part_start(self, event: PartStart, out: list[bytes]) -> None:
        self._stopped.setdefault(event.choice, False)
        part, path = event.part, f"choices[{event.choice}].parts[{event.index}]"
        if not isinstance(part, (Text, Refusal)):
            self._lose([lose_part(part, path)])
            return
        self._lose(lose_details(part, self._own, path))
        self._open.add(event.index)
        if part.text:
            out.append(self._delta(PartDelta(event.index, part.text, event.choice)))

    def _delta(self, event: PartDelta) -> bytes:
        if event.index not in self._open:
            return b""
        choice, text = event.choice, event.text
        start = self._length.get(choice, 0)
        self._length[choice] = start + len(text)
        if event.logprobs is not None:
            return self._frame(choice, text, None, write_logprobs((event.logprobs,), None, start))
        around = self._around.get(choice)
        if around is None:
            # What stands around the words is the same each time. No other letter of a frame is spelled as a NUL.
            before, _, after = self._frame(choice, _HERE).rpartition(b"\0")
            around = self._around[choice] = before, after
        return around[0] + encode_json(text) + around[1]

    def _part_patch(self, event: PartPatch, out: list[bytes]) -> None:
        path = f"choices[{event.choice}].parts[{event.index}]"
        if event.citation is not None:
            self._lose([Loss("lost", f"{path}.citations", event.citation.kind, "a text has no citations here")])
        if event.index in self._open:
            self._lose(foreign(event.extra, path))

    def _part_stop(self, event: PartStop, out: list[bytes]) -> None:
        self._open.discard(event.index)

    def _stop(self, event: ChoiceStop, out: list[bytes]) -> None:
        if self._stopped.get(event.choice):
            return
        self._stopped[event.choice] = True
        losses: list[Loss] = []
        try:
            reason = finish_reason(event.reason, event.raw_reason, self._own, event.choice, losses)
        except UpstreamError as error:
            self._done = True
            out.append(error_frame(error, self._context.request_id))
            return
        extra: dict[str, Raw] = {}
        if self._own:
            extra = {name: raw for name, raw in event.extra.items() if name != OFFSETS}
            if OFFSETS in event.extra:
                path = f"choices[{event.choice}].{OFFSETS}"
                losses.append(Loss("emulated", path, "text_offset", "counted from the start of the answer"))
        else:
            losses += foreign(event.extra, f"choices[{event.choice}]")
        self._lose(losses)
        out.append(self._frame(event.choice, "", extra, None, reason))

    def _end(self, out: list[bytes]) -> None:
        for number, stopped in self._stopped.items():
            if not stopped:
                self._lose([Loss("minted", f"choices[{number}].finish_reason", "stop", "the provider gave no reason")])
                out.append(self._frame(number, "", None, None, "stop"))
        if self._usage is not None and self._context.stream_usage and self._started:
            losses: list[Loss] = []
            usage = write_usage(self._usage, losses)
            self._lose(losses)
            out.append(b"data: %b\n\n" % one_line({**self._envelope, "choices": (), "usage": usage}))
        out.append(DONE)
