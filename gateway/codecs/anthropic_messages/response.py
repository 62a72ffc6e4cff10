"""Whole answers: a Message object into events, and events into a Message object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from ...errors import DecodeError, Malformed, upstream_error
from ...ir.event import (
    ChoiceStop,
    Event,
    PlainAnswer,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    StopReason,
    UsageReport,
)
from ...ir.fold import Choice, fold, plain_answer, unfold_parts
from ...ir.loss import Loss
from ...ir.message import NO_EXTRA, Part, Text
from ...wire.surrogates import mend_halves
from ..answer_losses import NO_PLACE
from ..base import AnswerContext, Encoded
from ..ledger import MAX_LOSSES, says_something
from ..usage_losses import usage_losses
from .answer import AnswerRenderer
from .blocks import read_block
from .errors import in_band_error
from .members import FORMAT, NULL, Members
from .typed_answer import read_answer
from .usage import read_usage, stop_reason, stop_word, write_usage

_PLAIN_STOPS = frozenset({"stop", "length", "stop_sequence"})
"""Reasons that every format has: no loss goes with them."""
TELLS_STOP = ("stop_details", "container")
"""Members that a stream tells in ``message_delta.delta``."""
TELLS_LATE = ("context_management", "input_transformations")
"""Members that a stream tells beside ``message_delta.delta``."""


def decode_response(body: bytes) -> tuple[Event, ...]:
    """Read a whole answer. Raises UpstreamError: malformed, or the error that a 200 carries."""
    if (common := read_answer(body)) is not None:
        return common
    try:
        return _decode(body)
    except DecodeError as error:
        raise Malformed(f"the answer is not a message: {error.message}", details=error.path) from error


def _decode(body: bytes) -> tuple[Event, ...]:
    it = Members(mend_halves(body), "")
    if it.has("error") and not it.has("content"):
        told = in_band_error(body, body)
        if told is not None:
            raise told
    parts: list[Part] = []
    content = it.take_array("content")
    if content is None:
        raise DecodeError("content", "expected an array, but it is missing")
    for i, raw in enumerate(content):
        parts.append(read_answer_block(raw, f"content[{i}]"))
    word, sequence = it.take_string("stop_reason"), it.take_string("stop_sequence")
    usage = it.take("usage")
    late = take_told(it, TELLS_LATE)
    stop = take_told(it, TELLS_STOP)
    events: list[Event] = [read_start(it)]
    events += unfold_parts(parts, 0, 0)
    if word is not None:
        events.append(ChoiceStop(stop_reason(word), word, stop_sequence=sequence, extra=stop))
    if usage is not None and (report := read_usage(usage, {})) is not None:
        events.append(UsageReport(report))
    if late:
        events.append(ResponsePatch(late))
    events.append(ResponseStop())
    return tuple(events)


def read_answer_block(raw: Raw, path: str) -> Part:
    """Read a block of an answer. A text without citations may say so in three spellings, one of them for streams."""
    part = read_block(raw, path)
    if isinstance(part, Text) and "citations" in part.extra:
        extra = {name: raw for name, raw in part.extra.items() if name != "citations"}
        return replace(part, extra=extra or NO_EXTRA)
    return part


def take_told(it: Members, names: tuple[str, ...]) -> dict[str, Raw]:
    """Take the members ``names`` that tell something; those that are null are dropped."""
    return {name: raw for name in names if (raw := it.rest.pop(name, None)) is not None and bytes(raw) != NULL}


def read_start(it: Members) -> ResponseStart:
    """The start of the answer whose envelope is ``it``, everything else taken out."""
    for name in ("type", "role", "stop_reason", "stop_sequence", "content"):
        it.rest.pop(name, None)
    id, model = it.take_string("id") or "", it.take_string("model") or ""
    return ResponseStart(id, model, extra=it.extra(), format=FORMAT)


def encode_response(events: Sequence[Event], context: AnswerContext) -> Encoded:
    """Write a whole answer. Raises UpstreamError(malformed) for tool arguments that are no JSON object."""
    if (plain := plain_answer(events)) is not None and (short := encode_plain(plain, context)) is not None:
        return short
    whole = fold(events)
    answer = AnswerRenderer(whole.start.format, context)
    choice = whole.choices[0] if whole.choices else Choice()
    if len(whole.choices) > 1:
        answer.lose("lost", "choices[1]", "choices", "this format has one answer")
    if choice.reason == "error":
        raise upstream_error("upstream_error", f"the provider ended the answer with an error ({choice.raw_reason})")
    if choice.logprobs:
        answer.lose("lost", "choices[0].logprobs", "logprobs", "this format has none")
    answer.drop_extra(choice.extra, "choices[0].message")
    content: list[object] = []
    for part in choice.parts:
        if (block := answer.block(part, len(content))) is not None:
            content.append(block)
    body: dict[str, object] = {**answer.envelope(whole.start), "content": content}
    body |= answer.stop(choice.parts, choice.reason, choice.raw_reason, choice.stop_sequence)
    body["usage"] = answer.usage(whole.usage)
    for extra in (choice.stop_extra, whole.extra, whole.start.extra):
        for name, raw in answer.own_extra(extra, "").items():
            body.setdefault(name, raw)
    for alien in whole.aliens:
        answer.lose("lost", "", alien.kind or "frame", "a frame of a stream has no place in a whole answer")
    return Encoded(msgspec.json.encode(body), losses=tuple(answer.losses))


_encode: Final = msgspec.json.Encoder().encode


class _Text(Struct, gc=False):
    type: str
    text: str


class _Counts(Struct, gc=False):
    input_tokens: int
    output_tokens: int


class _Plain(Struct):
    id: object
    type: str
    role: str
    model: object
    content: tuple[_Text]
    stop_reason: str
    stop_sequence: str | None
    usage: object


_PLAIN_MEMBERS: Final = frozenset(_Plain.__struct_fields__)


class _PlainStops(dict[tuple[StopReason, str], str | None]):
    """The ``stop_reason`` to write, by our word and the provider's; None for one that other formats may have no word for."""

    def __missing__(self, stop: tuple[StopReason, str]) -> str | None:
        reason, raw_reason = stop
        word = stop_word(reason, raw_reason) if reason in _PLAIN_STOPS else None
        if len(raw_reason) <= _USUAL and len(self) < _MOST:
            self[stop] = word
        return word


class _Lost(dict[tuple[str | bytes, ...], tuple[Loss, ...]]):
    """``_LOST[*names, *values]``: the losses of unknown members of an answer, by their names and then what they came as.
    Providers send the same few in each, and mostly with the same values."""

    def __missing__(self, members: tuple[str | bytes, ...]) -> tuple[Loss, ...]:
        names = [name for name in members if isinstance(name, str)]
        values = [value for value in members if isinstance(value, bytes)]
        told = zip(names, values, strict=True)
        lost = tuple([Loss("lost", name, name, NO_PLACE) for name, raw in told if says_something(name, Raw(raw))])
        if sum(map(len, members)) <= _USUAL:
            if len(self) >= _MOST:
                self.clear()
            self[members] = lost
        return lost


_MOST: Final = 256
_USUAL: Final = 1000
"""Letters and bytes beyond which nothing is remembered of what a provider says."""
_STOPS: Final = _PlainStops()
_LOST: Final = _Lost()


def encode_plain(plain: PlainAnswer, context: AnswerContext) -> Encoded | None:
    """Write one text, member by member as the long way does; None where the reason that it ended has no word here."""
    start, text, stop, told = plain
    word = _STOPS[stop.reason, stop.raw_reason]
    if word is None:
        return None
    content = (_Text("text", text),)
    if (
        told is not None
        and (read := told.uncached_input_tokens) is not None
        and (written := told.output_tokens) is not None
        and FORMAT not in (told.format, start.format)
        and start.id
        and start.model
        and start.service_tier is None
        and not told.estimated
        and len(extra := start.extra) <= MAX_LOSSES
    ):
        # The commonest of these: another format's answer that leaves nothing to make up.
        usage: object = _Counts(read, written)
        if (
            told.cache_read_input_tokens is not None
            or told.cache_creation_input_tokens is not None
            or told.reasoning_output_tokens is not None
        ):
            usage = write_usage(told)
        message = _Plain(start.id, "message", "assistant", start.model, content, word, stop.stop_sequence, usage)
        losses = _LOST[*extra, *map(bytes, extra.values())] if extra else ()
        if counted := usage_losses(told):
            names = {loss.what for loss in counted}
            losses = (*counted, *[loss for loss in losses if loss.what not in names])[:MAX_LOSSES]
        return Encoded(_encode(message), losses=losses)
    answer = AnswerRenderer(start.format, context)
    envelope = answer.envelope(start)
    usage = answer.usage(told)
    message = _Plain(
        envelope["id"], "message", "assistant", envelope["model"], content, word, stop.stop_sequence, usage
    )
    body = _encode(message)
    if start.extra and (own := answer.own_extra(start.extra, "")):
        rest = {name: raw for name, raw in own.items() if name not in _PLAIN_MEMBERS}
        if rest:
            body = b"%b,%b" % (body[:-1], _encode(rest)[1:])
    return Encoded(body, losses=tuple(answer.losses))
