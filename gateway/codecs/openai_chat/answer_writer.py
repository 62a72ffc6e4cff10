"""What an answer's parts look like in Chat Completions: shared by the stream encoder and the writer of whole answers.

Borders between parts have no place in the format: texts run together, and so do pieces of reasoning. Blocks that the
format has no word for (a provider's own tools, redacted thinking, signatures, images) are losses.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from ...ir.event import ResponseStart, StopReason
from ...ir.loss import Loss
from ...ir.message import Citation, Extra, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from ..base import AnswerContext
from ..openai_settings import shares_fingerprint, shares_tiers
from .members import FORMAT, foreign
from .reasoning import DEFAULT_FIELD, field_of
from .words import FINISH_REASONS, INEXACT, LEGACY_CALL


def finish_reason(reason: StopReason, raw: str, own: bool, *, refused: bool, choice: int, losses: list[Loss]) -> str:
    """Return the ``finish_reason``: the provider's own word if it was of this format.

    A refusal is ``content_filter``, as OpenAI calls an answer that its filters left out or cut short. Only where the
    refusal's words go into the ``refusal`` field (``refused``) it is ``stop``, which is how OpenAI ends those.
    """
    if own and raw:
        return raw
    if reason in INEXACT and not (reason == "refusal" and refused):
        losses.append(Loss("emulated", f"choices[{choice}].finish_reason", raw or reason, INEXACT[reason]))
    return "stop" if reason == "refusal" and refused else FINISH_REASONS[reason]


def is_written(part: Part, own: bool) -> bool:
    """Whether the format has room for ``part`` in an answer."""
    if isinstance(part, ToolCall):
        return not part.server
    if isinstance(part, Media):
        return part.kind == "audio"
    if isinstance(part, Opaque):
        return part.format == FORMAT
    if isinstance(part, Reasoning):
        return part.redacted is None or own
    return isinstance(part, (Text, Refusal))


def lose_part(part: Part, path: str) -> Loss:
    """The loss of a part that is not written."""
    if isinstance(part, Opaque):
        return Loss("lost", path, part.kind, f"a block of {part.format}")
    if isinstance(part, ToolCall):
        return Loss("lost", path, part.server, f"a call of the provider's own tool {part.name}")
    if isinstance(part, Reasoning):
        return Loss("lost", path, "redacted", "encrypted reasoning has no field")
    if isinstance(part, Media):
        return Loss("lost", path, part.kind, "answers carry audio alone")
    return Loss("lost", path, type(part).__name__, "no block of this kind in an answer")


def lose_details(part: Part, own: bool, path: str) -> list[Loss]:
    """The losses within a part that is written."""
    losses: list[Loss] = []
    if isinstance(part, Reasoning) and part.signature is not None:
        losses.append(Loss("lost", f"{path}.signature", "signature", "reasoning has no room for a signature"))
    if not own and not isinstance(part, Opaque):
        losses += foreign(part.extra, path)
    return losses


def reasoning_delta(part: Reasoning) -> str:
    """Return the text field that ``part`` belongs into, the empty string for one of blocks or of details alone."""
    field = field_of(part) or DEFAULT_FIELD
    return "" if field in ("thinking", "reasoning_details") else field


def tool_call(part: ToolCall, arguments: str) -> dict[str, Any]:
    """Return the object for a call, without its index."""
    if part.kind == "custom":
        value: dict[str, Any] = {"id": part.id, "type": "custom", "custom": {"name": part.name, "input": arguments}}
    else:
        function = {"name": part.name, "arguments": arguments}
        value = {"id": part.id, "type": "function", "function": function}
    return value


def tool_extra(call: dict[str, Any], extra: Extra) -> None:
    """Write what this format's decoder kept of a call back into it; dotted names belong to its nested object."""
    for name, raw in extra.items():
        outer, dot, inner = name.partition(".")
        if dot and outer in ("function", "custom"):
            call.setdefault(outer, {})[inner] = raw
        else:
            call[name] = raw


def write_audio(part: Media, own: bool) -> dict[str, Any]:
    """Return the audio object for what is known of ``part``."""
    value: dict[str, Any] = dict(part.extra) if own else {}
    if part.data:
        value["data"] = part.data
    if part.text:
        value["transcript"] = part.text
    return value


def write_envelope(start: ResponseStart, context: AnswerContext, kind: str, losses: list[Loss]) -> dict[str, Any]:
    """Return what stands around the choices; ``kind`` is the ``object``. A provider's id is kept, whatever its format."""
    id, created = start.id, start.created
    if not id:
        id = f"chatcmpl-{context.request_id}"
        losses.append(Loss("minted", "id", "id", "the provider gave none"))
    if created is None:
        created = context.created
        losses.append(Loss("minted", "created", "created", "the provider gave no date"))
    value = {"id": id, "object": kind, "created": created, "model": start.model or context.model}
    if start.service_tier is not None:
        if shares_tiers(start.format):
            value["service_tier"] = start.service_tier
        else:
            tier = f"a tier of {start.format or 'another format'}"
            losses.append(Loss("lost", "service_tier", start.service_tier, tier))
    return {**value, **shared_members(start.extra, start.format, losses)}


def shared_members(extra: Extra, format: str, losses: list[Loss]) -> Extra:
    """Return those members of the envelope that a provider of ``format`` means as this format does."""
    if format == FORMAT or not extra:
        return extra
    shared = {"service_tier": shares_tiers(format), "system_fingerprint": shares_fingerprint(format)}
    told = {name: raw for name, raw in extra.items() if shared.get(name)}
    losses += foreign({name: raw for name, raw in extra.items() if name not in told}, "")
    return told


def is_legacy(part: ToolCall) -> bool:
    """Whether the call is a ``function_call`` of the time before tools."""
    return part.id.startswith(LEGACY_CALL) and part.id[len(LEGACY_CALL) :].isdigit()


def annotation(citation: Citation, start: int | None, end: int | None, path: str, losses: list[Loss]) -> Any:
    """Return the annotation for ``citation``, None when the format cannot say it; ``start`` and ``end`` span the text."""
    if citation.format == FORMAT:
        return Raw(citation.raw)
    if citation.url is None:
        losses.append(Loss("lost", f"{path}.citations", citation.kind, "annotations cite URLs alone"))
        return None
    if citation.cited_text is not None:
        losses.append(Loss("lost", f"{path}.citations", "cited_text", "an annotation does not quote its source"))
    spot: dict[str, Any] = {"url": citation.url, "title": citation.title or ""}
    if start is not None and end is not None:
        spot["start_index"] = start + citation.start if citation.start is not None else start
        spot["end_index"] = start + citation.end if citation.end is not None else end
        if citation.start is None:
            losses.append(Loss("emulated", f"{path}.citations", "start_index", "the whole block is marked as cited"))
    return {"type": "url_citation", "url_citation": spot}


def join_logprobs(pieces: tuple[Raw, ...]) -> Any:
    """Return the ``logprobs`` of a whole answer: lists run on, of other members the last one counts."""
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    joined: dict[str, Any] = {}
    for piece in pieces:
        for name, value in msgspec.json.decode(piece).items():
            if isinstance(value, list) and isinstance(joined.get(name), list):
                joined[name] += value
            elif value is not None or name not in joined:
                joined[name] = value
    return joined
