"""What an answer looks like in the legacy Completions: shared by the stream encoder and the writer of whole answers.

There is text, and nothing besides: thinking, calls and other blocks are losses. Minted where nobody gave them: ``id``,
``created``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Raw

from ...errors import upstream_error
from ...ir.event import Event, ResponseStart, StopReason
from ...ir.fold import Choice, fold
from ...ir.loss import Loss
from ...ir.message import Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from ...wire.members import encode_json
from ..base import AnswerContext, Encoded
from ..ledger import says_something
from ..openai_settings import shares_fingerprint
from .logprobs import OFFSETS, write_logprobs
from .usage import write_usage
from .words import FINISH_REASONS, FORMAT, INEXACT


def write_envelope(start: ResponseStart, context: AnswerContext, losses: list[Loss]) -> dict[str, Any]:
    """Return what stands around the choices. A provider's id is kept, whatever its format."""
    id, created = start.id, start.created
    if not id:
        id = f"cmpl-{context.request_id}"
        losses.append(Loss("minted", "id", "id", "the provider gave none"))
    if created is None:
        created = context.created
        losses.append(Loss("minted", "created", "created", "the provider gave no date"))
    value = {"id": id, "object": "text_completion", "created": created, "model": start.model or context.model}
    if start.format == FORMAT:
        return {**value, **start.extra}
    if start.service_tier is not None:
        losses.append(Loss("lost", "service_tier", start.service_tier, "answers tell no tier here"))
    extra = dict(start.extra)
    if shares_fingerprint(start.format) and (fingerprint := extra.pop("system_fingerprint", None)) is not None:
        value["system_fingerprint"] = fingerprint
    losses += foreign(extra, "")
    return value


def finish_reason(reason: StopReason, raw: str, own: bool, choice: int, losses: list[Loss]) -> str:
    """Return the ``finish_reason``: the provider's own word if it was of this format. Raises UpstreamError for a failure."""
    if reason == "error":
        raise upstream_error("upstream_error", "the provider ended the answer with a failure", code=raw or None)
    if own and raw:
        return raw
    if reason in INEXACT:
        losses.append(Loss("emulated", f"choices[{choice}].finish_reason", raw or reason, INEXACT[reason]))
    return FINISH_REASONS[reason]


def lose_part(part: Part, path: str) -> Loss:
    """The loss of a part that is no text."""
    if isinstance(part, (Opaque, Media)):
        return Loss("lost", path, part.kind, "an answer is text here")
    if isinstance(part, ToolCall):
        return Loss("lost", path, part.server or "tool call", f"an answer calls no tools here: {part.name}")
    if isinstance(part, Reasoning):
        return Loss("lost", path, "reasoning", "an answer has no room for thinking here")
    return Loss("lost", path, type(part).__name__, "an answer is text here")


def lose_details(part: Text | Refusal, own: bool, path: str) -> Iterable[Loss]:
    """The losses within a text."""
    if isinstance(part, Refusal):
        yield Loss("emulated", path, "refusal", "stands as text")
    for citation in part.citations if isinstance(part, Text) else ():
        yield Loss("lost", f"{path}.citations", citation.kind, "a text has no citations here")
    if not own:
        yield from foreign(part.extra, path)


def foreign(extra: Extra, path: str) -> Iterable[Loss]:
    """The losses of members that belong to another format."""
    for name, raw in extra.items():
        if says_something(name, raw):
            yield Loss("lost", f"{path}.{name}" if path else name, name, "unknown to the legacy Completions")


def encode_response(events: Sequence[Event], context: AnswerContext) -> Encoded:
    """Write a whole answer. Raises UpstreamError for one that ended with a failure."""
    losses: list[Loss] = []
    answer = fold(events)
    own = answer.start.format == FORMAT
    value = write_envelope(answer.start, context, losses)
    value["choices"] = [_choice(choice, number, own, losses) for number, choice in enumerate(answer.choices)]
    if answer.usage is not None:
        value["usage"] = write_usage(answer.usage, losses)
    if own:
        value.update(answer.extra)
    else:
        losses += foreign(answer.extra, "")
        losses += (Loss("lost", "events", alien.kind, f"an event of {alien.format}") for alien in answer.aliens)
    return Encoded(encode_json(value), losses=tuple(losses))


def _choice(choice: Choice, number: int, own: bool, losses: list[Loss]) -> dict[str, Any]:
    texts: list[str] = []
    for index, part in enumerate(choice.parts):
        path = f"choices[{number}].parts[{index}]"
        if isinstance(part, (Text, Refusal)):
            texts.append(part.text)
            losses += lose_details(part, own, path)
        else:
            losses.append(lose_part(part, path))
    reason = "stop"
    if choice.reason is None:
        losses.append(Loss("minted", f"choices[{number}].finish_reason", reason, "the provider gave no reason"))
    else:
        reason = finish_reason(choice.reason, choice.raw_reason, own, number, losses)
    offsets: Raw | None = choice.stop_extra.get(OFFSETS) if own else None
    value: dict[str, Any] = {
        "text": "".join(texts),
        "index": number,
        "logprobs": write_logprobs(choice.logprobs, offsets, 0),
        "finish_reason": reason,
    }
    for extra in (choice.stop_extra, choice.extra):
        if own:
            value.update((name, raw) for name, raw in extra.items() if name != OFFSETS)
        else:
            losses += foreign(extra, f"choices[{number}]")
    return value
