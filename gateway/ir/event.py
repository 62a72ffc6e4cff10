"""An answer as a stream of typed steps, and the chunk that carries them.

Order within a choice: PartStart, (PartDelta | PartPatch)*, PartStop for each part, then ChoiceStop; a citation may come
after the stop of its part. Around them once: ResponseStart first; ResponseStop, then Terminator last. UsageReport is
cumulative, the last one counts. Parts are numbered by ``index`` over the whole response, in the order of their starts, and
may be open at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from msgspec import Raw, Struct

from .message import NO_EXTRA, Citation, Extra, Part


class Wire(NamedTuple):
    """How bytes are spelled: a format in a framing. ``raw`` bytes go out only to a client of the same wire."""

    format: str
    framing: Literal["json", "sse", "ndjson", "eventstream", "message", "array", "bytes"]


StopReason = Literal[
    "stop",
    "length",
    "tool_calls",
    "stop_sequence",
    "content_filter",
    "refusal",
    "pause",
    "context_window",
    "error",
    "other",
]


class Usage(Struct, frozen=True, omit_defaults=True):
    """Tokens of one response, cumulative. None means that the provider did not say.

    ``input_tokens`` counts everything read, cached or not, as OpenTelemetry and OpenAI count it;
    ``uncached_input_tokens`` is what Anthropic calls input_tokens. ``output_tokens`` includes reasoning.
    ``raw`` are the members of the provider's usage object as they came, of format ``format``; whoever changes a figure
    drops them.
    """

    input_tokens: int | None = None
    uncached_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    estimated: bool = False
    format: str = ""
    raw: Extra = NO_EXTRA

    @property
    def all_input(self) -> int | None:
        """``input_tokens``, or the sum of its parts where only they were told."""
        if self.input_tokens is not None or self.uncached_input_tokens is None:
            return self.input_tokens
        caches = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        return self.uncached_input_tokens + caches


class ResponseStart(Struct, frozen=True, gc=False):
    """The provider began. ``created`` is in Unix seconds. Empty strings mean that the provider did not say.

    ``format`` is where ``extra`` belongs, and that of every other event of the answer that has no format of its own.
    """

    id: str = ""
    model: str = ""
    created: int | None = None
    service_tier: str | None = None
    extra: Extra = NO_EXTRA
    format: str = ""


class PartStart(Struct, frozen=True, gc=False):
    """A part opens; ``part`` is what is known of it, its text or arguments mostly still empty."""

    index: int
    part: Part
    choice: int = 0


class PartDelta(Struct, frozen=True, gc=False):
    """More of the open part ``index``: words of text, reasoning or refusal, a fragment of arguments, base64 of media.

    ``logprobs`` are OpenAI-shaped token log probabilities for these words (a JSON object as it came).
    """

    index: int
    text: str
    choice: int = 0
    logprobs: Raw | None = None


class PartPatch(Struct, frozen=True, gc=False):
    """A fact about an open part that is not more of its text. ``transcript`` belongs to audio.

    A citation may come late, when the part is closed: OpenAI tells them at the end, after tool calls. In ``extra``, a
    member ``data`` is what an Opaque part came to be in the end, in place of its data at the start.
    """

    index: int
    choice: int = 0
    signature: str | None = None
    citation: Citation | None = None
    transcript: str | None = None
    extra: Extra = NO_EXTRA


class PartStop(Struct, frozen=True, gc=False):
    """The part is complete."""

    index: int
    choice: int = 0


class ChoiceStop(Struct, frozen=True, gc=False):
    """Why a choice ended: ``reason`` in our words, ``raw_reason`` in the provider's."""

    reason: StopReason
    raw_reason: str = ""
    choice: int = 0
    stop_sequence: str | None = None
    extra: Extra = NO_EXTRA


class ChoicePatch(Struct, frozen=True, gc=False):
    """Members of a choice's message that have no word here (format of the chunk), last one wins."""

    choice: int = 0
    extra: Extra = NO_EXTRA


class UsageReport(Struct, frozen=True, gc=False):
    """Usage so far. ``running`` says that it is told for the sake of the chunks that follow, and is none to be kept."""

    usage: Usage
    running: bool = False


class ResponsePatch(Struct, frozen=True, gc=False):
    """Members of the response envelope that came after its start, last one wins."""

    extra: Extra = NO_EXTRA


class ResponseStop(Struct, frozen=True, gc=False):
    """The response is complete; comes with the terminator frame."""


class Terminator(Struct, frozen=True, gc=False):
    """The format's own end mark went by (``[DONE]``, ``message_stop``)."""


class Keepalive(Struct, frozen=True, gc=False):
    """A ping or comment."""


class Alien(Struct, frozen=True, gc=False):
    """A frame we have no word for, verbatim: the payload ``data`` of format ``format``, named ``kind`` there."""

    format: str
    kind: str
    data: bytes


Event: TypeAlias = (
    ResponseStart
    | PartStart
    | PartDelta
    | PartPatch
    | PartStop
    | ChoiceStop
    | ChoicePatch
    | UsageReport
    | ResponsePatch
    | ResponseStop
    | Terminator
    | Keepalive
    | Alien
)

CONTENT: Final = (PartStart, PartDelta, ChoiceStop)
"""Events that are an answer rather than its announcement: what the commit waits for."""


class PlainAnswer(NamedTuple):
    """The commonest answer of all: one text, told at once, and nothing that a format might not have a word for."""

    start: ResponseStart
    text: str
    stop: ChoiceStop
    usage: Usage | None


class Chunk(Struct, gc=False):
    """The events of one network read, with the bytes they were read from.

    ``raw`` is whole frames only and None once anything was changed; ``wire`` says how ``raw`` is spelled. Never mutated by
    anyone but itself: ``events`` of a whole JSON body are decoded on first use, since often nobody reads them, and usage is
    read from the one member that tells it. Providers that count anew in every frame are not read each time: their chunks
    hold the usage beside the events, and the last one is an event. ``plain`` is a whole body that was read the short way, for
    who would write it in another format.
    """

    _events: tuple[Event, ...] | None
    raw: bytes | None = None
    wire: Wire | None = None
    _decode: Callable[[bytes], tuple[Event, ...]] | None = None
    _read_usage: Callable[[Raw], Usage | None] | None = None
    _usage: Raw | None = None
    plain: PlainAnswer | None = None
    _told: Usage | None = None

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, in order. Raises what the decoder raises when a whole body turns out to be malformed."""
        events = self._events
        if events is None:
            decode, raw = self._decode, self.raw
            assert decode is not None and raw is not None
            self._events = events = decode(raw)
        return events

    @property
    def usage(self) -> Usage | None:
        """The last usage told here; of a whole body that nobody decoded yet, read without decoding the rest."""
        if self.plain is not None:
            return self.plain.usage
        if self._told is not None:
            return self._told
        if self._read_usage is not None and self._usage is not None:
            usage = self._read_usage(self._usage)
            if usage is not None or self._events is None:
                self._told = usage  # limits, log and prices all ask
                return usage
        for event in reversed(self.events):
            if isinstance(event, UsageReport):
                return event.usage
        return None

    @property
    def is_whole(self) -> bool:
        """Whether this is a whole body: all of the answer at once."""
        return self.wire is not None and self.wire.framing == "json"

    @property
    def size(self) -> int:
        """Bytes this chunk stands for, for buffers that are bounded (an estimate where the bytes are gone)."""
        return len(self.raw) + 64 if self.raw is not None else 64 + 64 * len(self._events or ())
