"""Whole answers: a GenerateContentResponse into events, and events into a GenerateContentResponse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ...errors import DecodeError, Malformed, upstream_error
from ...ir.event import ChoiceStop, Event
from ...ir.fold import Choice, fold
from ...wire.members import ARRAY, BAD_JSON, put_extra
from ..base import AnswerContext, Encoded
from .answer import FEEDBACK, AnswerRenderer, Block
from .members import BLANKS, FORMAT
from .reader import AnswerReader


def decode_response(body: bytes) -> tuple[Event, ...]:
    """Read a whole answer. Raises UpstreamError: malformed, or the error that a 200 carries.

    An array of frames, as a streaming call answers with, is read as what they make together.
    """
    reader = AnswerReader()
    events: list[Event] = []
    try:
        for frame in _frames(body):
            events += reader.read(frame)
    except DecodeError as error:
        raise Malformed(f"the answer makes no sense: {error.message}", details=error.path) from error
    if not reader.has_answer:
        raise Malformed("the answer has neither candidates nor a reason why there are none")
    return (*events, *reader.end(mark=False))


def _frames(body: bytes) -> list[bytes]:
    if not body.lstrip().startswith(b"["):
        return [body]
    try:
        return [bytes(raw) for raw in ARRAY.decode(body)]
    except BAD_JSON as error:
        raise Malformed(f"the answer is not valid JSON: {error}") from error


def encode_response(events: Sequence[Event], context: AnswerContext) -> Encoded:
    """Write a whole answer. Raises UpstreamError(malformed) for tool arguments that are no JSON object."""
    whole = fold(events)
    answer = AnswerRenderer(whole.start.format, context)
    body: dict[str, Any] = {}
    candidates = [
        told
        for number, choice in enumerate(whole.choices or (Choice(),))
        if (told := _candidate(number, choice, answer, body)) is not None
    ]
    if candidates:
        body["candidates"] = candidates
    if whole.usage is not None and (usage := answer.usage(whole.usage)):
        body["usageMetadata"] = usage
    body |= answer.envelope(whole.start)
    for extra in (whole.extra, whole.start.extra):
        put_extra(body, answer.own_extra(extra, ""))
    for alien in whole.aliens:
        answer.lose("lost", "", alien.kind or "frame", "a frame of a stream has no place in a whole answer")
    # Line ends between the members of arguments become blanks, as in a stream's frames: one answer, whole or streamed.
    return Encoded(msgspec.json.encode(body).translate(BLANKS), losses=tuple(answer.losses))


def _candidate(number: int, choice: Choice, answer: AnswerRenderer, body: dict[str, Any]) -> dict[str, Any] | None:
    path = f"candidates[{number}].content"
    parts: list[Block] = []
    for part in choice.parts:
        if (written := answer.part(part, f"{path}.parts[{len(parts)}]")) is not None:
            parts.append(written)
    if answer.format == FORMAT and FEEDBACK in choice.stop_extra and not parts:
        body[FEEDBACK] = choice.stop_extra[FEEDBACK]
        return None
    if choice.reason is None:
        stop = answer.unsaid_stop(number)
    else:
        stop = ChoiceStop(choice.reason, choice.raw_reason, number, choice.stop_sequence, choice.stop_extra)
        refuse(stop, answer.format)
    return answer.candidate(number, parts, stop, choice.logprobs, choice.extra)


def refuse(stop: ChoiceStop, format: str) -> None:
    """Raise UpstreamError for a reason that means a failure, of another format: this one's words say what went wrong."""
    if stop.reason == "error" and format != FORMAT:
        word = stop.raw_reason or "error"
        raise upstream_error("upstream_error", f"the provider ended the answer with an error ({word})")
