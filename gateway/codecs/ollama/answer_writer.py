"""What an answer looks like in Ollama's API: shared by the stream encoder and the writer of whole answers.

There is one choice. Borders between parts have no place: texts run together, and so does thinking. Calls are objects and
come whole. Minted where nobody gave it: ``created_at``, from the time of the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Raw

from ...errors import Malformed, upstream_error
from ...ir.event import Event, ResponseStart, StopReason
from ...ir.fold import fold
from ...ir.loss import Loss
from ...ir.message import Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from ...wire.members import ARRAY, BAD_JSON, NULL, OBJECT, encode_json, json_object, put_extra
from ...wire.ndjson import one_line
from ..base import AnswerContext, Encoded
from ..ledger import says_something
from .usage import write_usage
from .words import CHAT, DONE_REASONS, INEXACT, date


def write_envelope(start: ResponseStart, context: AnswerContext, own: bool, losses: list[Loss]) -> dict[str, Any]:
    """Return the members that every line begins with."""
    created = start.created
    if created is None:
        created = context.created
        losses.append(Loss("minted", "created_at", "created_at", "the provider gave no date"))
    value: dict[str, Any] = {"model": start.model or context.model, "created_at": date(created)}
    if own:
        return {**value, **start.extra}
    if start.id:
        losses.append(Loss("lost", "id", "id", "answers have none here"))
    if start.service_tier is not None:
        losses.append(Loss("lost", "service_tier", start.service_tier, "answers tell no tier here"))
    losses += foreign(start.extra, "")
    return value


def words(format: str, text: str | Raw = "", **more: Any) -> dict[str, Any]:
    """Return the members that hold what is said: in a message, or beside it."""
    if format == CHAT:
        return {"message": {"role": "assistant", "content": text, **more}}
    return {"response": text, **more}


def done_reason(reason: StopReason, raw: str, own: bool, losses: list[Loss]) -> str:
    """Return the ``done_reason``: the provider's own word if it was of this API. Raises UpstreamError for a failure."""
    if reason == "error":
        raise upstream_error("upstream_error", "the provider ended the answer with a failure", code=raw or None)
    if own and raw:
        return raw
    if reason in INEXACT and not own:
        losses.append(Loss("emulated", "done_reason", raw or reason, INEXACT[reason]))
    return DONE_REASONS[reason]


def tool_call(part: ToolCall, ordinal: int, own: bool, path: str, losses: list[Loss]) -> dict[str, Any]:
    """Return the object for a call that is complete. Raises Malformed for arguments that are not a JSON object."""
    function: dict[str, Any] = {"name": part.name}
    if part.kind == "custom":
        losses.append(Loss("emulated", path, "custom", "free text goes as an object's member input"))
        function["arguments"] = {"input": part.arguments}
    elif own and "function.spelled" in part.extra:
        function["arguments"] = part.arguments
    elif not part.arguments.strip():
        function["arguments"] = {}
    elif json_object(part.arguments):
        # As a stream's lines have them: an answer is the same, whole or streamed.
        function["arguments"] = Raw(one_line(part.arguments.encode()))
    else:
        raise Malformed(f"the provider called {part.name} with arguments that are not a JSON object")
    call: dict[str, Any] = {"function": function}
    if part.id:
        call = {"id": part.id, **call}
    if not own:
        losses += foreign(part.extra, path)
        return call
    if part.extra.get("type") == NULL:
        call["type"] = "function"
    if part.extra.get("function.index") == NULL:
        function["index"] = ordinal
    put_extra(call, {name: raw for name, raw in part.extra.items() if raw != NULL})
    return call


def is_written(part: Part, format: str) -> bool:
    """Whether the format has room for ``part`` in an answer."""
    if isinstance(part, ToolCall):
        return not part.server
    if isinstance(part, Media):
        return part.kind == "image" and part.data is not None
    return isinstance(part, (Text, Refusal)) or (isinstance(part, Reasoning) and part.redacted is None)


def lose_part(part: Part, path: str) -> Loss:
    """The loss of a part that is not written."""
    if isinstance(part, Opaque):
        return Loss("lost", path, part.kind, f"a block of {part.format}")
    if isinstance(part, ToolCall):
        return Loss("lost", path, part.server, f"a call of the provider's own tool {part.name}")
    if isinstance(part, Reasoning):
        return Loss("lost", path, "redacted", "encrypted reasoning has no field")
    if isinstance(part, Media):
        return Loss("lost", path, part.kind, "answers carry images alone")
    return Loss("lost", path, type(part).__name__, "no block of this kind in an answer")


def lose_details(part: Part, own: bool, path: str) -> Iterable[Loss]:
    """The losses within a part that is written."""
    if isinstance(part, Refusal):
        yield Loss("emulated", path, "refusal", "stands as text")
    if isinstance(part, Reasoning) and part.signature:
        yield Loss("lost", f"{path}.signature", "signature", "thinking has no room for a signature")
    if isinstance(part, Text):
        for citation in part.citations:
            yield Loss("lost", f"{path}.citations", citation.kind, "a text has no citations here")
    if not own and not isinstance(part, (Opaque, ToolCall)):
        yield from foreign(part.extra, path)


def foreign(extra: Extra, path: str) -> Iterable[Loss]:
    """The losses of members that belong to another format."""
    for name, raw in extra.items():
        if says_something(name, raw):
            yield Loss("lost", f"{path}.{name}" if path else name, name, "unknown to Ollama's answers")


def token_logprobs(pieces: Iterable[Raw]) -> list[Raw]:
    """Return the entries of log probabilities in the shape that the IR has them in, of several pieces one after the other."""
    entries: list[Raw] = []
    for piece in pieces:
        try:
            entries += ARRAY.decode(OBJECT.decode(piece).get("content", b"[]"))
        except BAD_JSON:
            continue
    return entries


def encode_response(events: Sequence[Event], context: AnswerContext, format: str) -> Encoded:
    """Write a whole answer. Raises UpstreamError for a failure, or for a call whose arguments are no object."""
    losses: list[Loss] = []
    answer = fold(events)
    own = answer.start.format == format
    value = write_envelope(answer.start, context, own, losses)
    texts: list[str] = []
    thinking: list[str] = []
    images: list[str] = []
    calls: list[dict[str, Any]] = []
    choice = answer.choices[0] if answer.choices else None
    for number in range(1, len(answer.choices)):
        losses.append(Loss("lost", f"choices[{number}]", "choice", "an answer has one choice here"))
    for index, part in enumerate(choice.parts if choice is not None else ()):
        path = f"parts[{index}]"
        if not is_written(part, format):
            losses.append(lose_part(part, path))
            continue
        losses += lose_details(part, own, path)
        if isinstance(part, (Text, Refusal)):
            texts.append(part.text)
        elif isinstance(part, Reasoning):
            thinking.append(part.text)
        elif isinstance(part, Media) and part.data is not None:
            images.append(part.data)
        elif isinstance(part, ToolCall):
            calls.append(tool_call(part, len(calls), own, path, losses))
    more: dict[str, Any] = {"thinking": "".join(thinking)} if thinking else {}
    if images and format == CHAT:
        more["images"] = images
    elif images:
        more["image"] = images[-1]
        losses += (Loss("lost", "parts", "image", "a response has one image") for _ in images[1:])
    if calls:
        more["tool_calls"] = calls
    value.update(words(format, "".join(texts), **more))
    value["done"] = True
    if choice is None or choice.reason is None:
        losses.append(Loss("minted", "done_reason", "stop", "the provider gave no reason"))
        value["done_reason"] = "stop"
    elif not own or choice.raw_reason or choice.reason == "error":
        value["done_reason"] = done_reason(choice.reason, choice.raw_reason, own, losses)
    value.update(write_usage(answer.usage, losses))
    if choice is not None and (entries := token_logprobs(choice.logprobs)):
        value["logprobs"] = entries
    if own:
        value.update(answer.extra)
        if choice is not None:
            value.update(choice.stop_extra)
            if format == CHAT:
                put_extra(value["message"], choice.extra)
    else:
        losses += foreign(answer.extra, "")
        if choice is not None:
            losses += (*foreign(choice.extra, "message"), *foreign(choice.stop_extra, ""))
        losses += (Loss("lost", "events", alien.kind, f"an event of {alien.format}") for alien in answer.aliens)
    return Encoded(encode_json(value), losses=tuple(losses))
