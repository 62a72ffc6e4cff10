"""Whole answers, both ways. Reading one is the stream reader's work; writing one is done from the fold of its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Raw
from msgspec.structs import replace

from ...errors import Malformed
from ...ir.event import Event, PlainAnswer
from ...ir.fold import Choice, fold, plain_answer
from ...ir.loss import Loss
from ...ir.message import Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from ...wire.members import ARRAY, encode_json, json_object
from ..base import AnswerContext, Encoded
from .answer_reader import AnswerReader
from .answer_writer import (
    annotation,
    finish_reason,
    is_legacy,
    is_written,
    join_logprobs,
    lose_details,
    lose_part,
    reasoning_delta,
    shared_members,
    tool_call,
    tool_extra,
    write_audio,
    write_envelope,
)
from .members import FORMAT, foreign
from .reasoning import field_of, thinking_block
from .typed_answer import read_answer
from .usage import write_usage

_PLAIN_STOPS: Final = frozenset({"stop", "length"})


def decode_response(body: bytes) -> tuple[Event, ...]:
    """Return the events of a whole answer. Raises UpstreamError: malformed, or the error that a 200 told."""
    return read_answer(body) or AnswerReader().whole(body)


def encode_response(events: Sequence[Event], context: AnswerContext) -> Encoded:
    """Write a whole answer. Raises Malformed when another format's tool call has arguments that are not JSON."""
    if (plain := plain_answer(events)) is not None and (short := encode_plain(plain, context)) is not None:
        return short
    losses: list[Loss] = []
    answer = fold(events)
    own = answer.start.format == FORMAT
    value = write_envelope(answer.start, context, "chat.completion", losses)
    value["choices"] = [_choice(choice, number, own, context, losses) for number, choice in enumerate(answer.choices)]
    if answer.usage is not None:
        value["usage"] = write_usage(answer.usage, losses)
    value.update(shared_members(answer.extra, answer.start.format, losses))
    if not own:
        losses += (Loss("lost", "events", alien.kind, f"an event of {alien.format}") for alien in answer.aliens)
    return Encoded(encode_json(value), losses=tuple(losses))


def encode_plain(plain: PlainAnswer, context: AnswerContext) -> Encoded | None:
    """Write one text, member by member as the long way does; None where the reason that it ended has no word here."""
    start, stop = plain.start, plain.stop
    if stop.reason not in _PLAIN_STOPS:
        return None
    losses: list[Loss] = []
    value = write_envelope(start, context, "chat.completion", losses)
    own = start.format == FORMAT
    reason = finish_reason(stop.reason, stop.raw_reason, own, refused=False, choice=0, losses=losses)
    message = {"role": "assistant", "content": plain.text, "refusal": None}
    value["choices"] = ({"index": 0, "message": message, "logprobs": None, "finish_reason": reason},)
    if plain.usage is not None:
        value["usage"] = write_usage(plain.usage, losses)
    return Encoded(encode_json(value), losses=tuple(losses))


def _choice(choice: Choice, number: int, own: bool, context: AnswerContext, losses: list[Loss]) -> dict[str, Any]:
    message = _Message(number, own, context, losses)
    for index, part in enumerate(choice.parts):
        message.add(part, f"choices[{number}].parts[{index}]")
    value = message.value()
    reason = "tool_calls" if message.calls else "stop"
    if choice.reason is None:
        losses.append(Loss("minted", f"choices[{number}].finish_reason", reason, "the provider gave no reason"))
    else:
        refused = value["refusal"] is not None
        reason = finish_reason(choice.reason, choice.raw_reason, own, refused=refused, choice=number, losses=losses)
    whole = {
        "index": number,
        "message": value,
        "logprobs": join_logprobs(choice.logprobs),
        "finish_reason": reason,
    }
    if own:
        value.update(choice.extra)
        whole.update(choice.stop_extra)
    else:
        losses += foreign(choice.extra, f"choices[{number}].message")
        losses += foreign(choice.stop_extra, f"choices[{number}]")
    return whole


class _Message:
    """The ``message`` of a choice while its parts are gathered."""

    def __init__(self, number: int, own: bool, context: AnswerContext, losses: list[Loss]) -> None:
        self.number = number
        self.own = own
        self.context = context
        self.losses = losses
        self.texts: list[str] = []
        self.length = 0
        self.blocks: list[Any] = []
        self.has_blocks = False
        self.refusals: list[str] = []
        self.reasoning: dict[str, str] = {}
        self.details: list[Raw] = []
        self.annotations: list[Any] = []
        self.calls: list[dict[str, Any]] = []
        self.other: dict[str, Any] = {}

    def add(self, part: Part, path: str) -> None:
        """Take the next part. Raises Malformed for arguments of another format's call that are not JSON."""
        if not is_written(part, self.own):
            self.losses.append(lose_part(part, path))
            return
        self.losses += lose_details(part, self.own, path)
        if isinstance(part, Text):
            self._text(part, path)
        elif isinstance(part, Reasoning):
            self._reasoning(part)
        elif isinstance(part, Refusal):
            self.refusals.append(part.text)
        elif isinstance(part, Media):
            self.other["audio"] = {**self.other.get("audio", {}), **write_audio(part, self.own)}
        elif isinstance(part, Opaque):
            self.has_blocks = True
            self.blocks.append(Raw(part.data))
        elif isinstance(part, ToolCall):
            self._call(part, path)

    def value(self) -> dict[str, Any]:
        """The message. Content is an array only where it was one, among blocks that are more than text."""
        text = "".join(self.texts)
        value: dict[str, Any] = {
            "role": "assistant",
            "content": self.blocks if self.has_blocks else text if self.texts else None,
            "refusal": "".join(self.refusals) if self.refusals else None,
            **self.reasoning,
        }
        if self.details:
            value["reasoning_details"] = self.details
        if self.annotations:
            value["annotations"] = self.annotations
        value.update(self.other)
        if self.calls:
            value["tool_calls"] = self.calls
        return value

    def _text(self, part: Text, path: str) -> None:
        start = self.length
        self.length += len(part.text)
        self.texts.append(part.text)
        self.blocks.append({"type": "text", "text": part.text})
        for citation in part.citations:
            note = annotation(citation, start, self.length, path, self.losses)
            if note is not None:
                self.annotations.append(note)

    def _reasoning(self, part: Reasoning) -> None:
        field = reasoning_delta(part)
        if field:
            self.reasoning[field] = self.reasoning.get(field, "") + part.text
        elif field_of(part) == "thinking":
            self.has_blocks = True
            self.blocks.append(thinking_block(part.text))
        if self.own and (details := part.extra.get("reasoning_details")) is not None:
            self.details += ARRAY.decode(details)

    def _call(self, part: ToolCall, path: str) -> None:
        arguments = part.arguments
        if not self.own and part.kind == "function":
            if not arguments:
                arguments = "{}"
                self.losses.append(Loss("minted", f"{path}.arguments", "arguments", _NO_ARGUMENTS))
            elif not json_object(arguments.encode()):
                raise Malformed(f"the provider called {part.name} with arguments that are not a JSON object")
        if is_legacy(part):
            self.other["function_call"] = {"name": part.name, "arguments": arguments}
            return
        if not part.id:
            part = replace(part, id=f"call_{self.context.request_id}_{len(self.calls)}")
            self.losses.append(Loss("minted", f"{path}.id", "id", "the provider gave the call none"))
        call = tool_call(part, arguments)
        if self.own:
            tool_extra(call, part.extra)
        self.calls.append(call)


_NO_ARGUMENTS = "a call without arguments has {} here"
