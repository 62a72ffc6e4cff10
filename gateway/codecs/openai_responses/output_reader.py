"""What a whole answer and a streamed one have in common when they are read: envelope, output items, end.

Members of the envelope that repeat the request (``tools``, ``instructions``) are kept under ``kept.``: no caller loses
anything without them. A message whose first content nobody knows is Opaque as a whole; unknown content after a known one is
Opaque by itself, its kind beginning with ``content.``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from ...errors import DecodeError, UpstreamError, upstream_error
from ...ir.event import ChoiceStop, Event, PartDelta, PartStart, PartStop, ResponseStart, StopReason
from ...ir.message import Extra, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from ...wire.members import NULL, Members, encode_json
from .content import read_citation
from .errors import error_in
from .item_reader import item_extra, read_call, read_reasoning
from .members import FORMAT
from .words import INCOMPLETE

UNKNOWN_CONTENT: Final = "content."
"""How the kind of an Opaque part begins that is content of a message, and no item."""

_ECHOES: Final = frozenset(
    {
        *("background", "conversation", "image", "include", "instructions", "max_output_tokens", "max_tool_calls"),
        *("metadata", "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key"),
        *("prompt_cache_options", "prompt_cache_retention", "reasoning", "safety_identifier", "store", "temperature"),
        *("text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user", "access_programs"),
        *("frequency_penalty", "presence_penalty"),
    }
)
_LATE: Final = frozenset(
    {"completed_at", "input_transformations", "moderation", "prompt_cache_diagnostics", "tool_usage"}
)
"""Members that are known at the end only."""
_QUIET_LATE: Final = frozenset({"completed_at"})


class Piece(NamedTuple):
    """A part of an output item, whole, and the log probabilities of its words."""

    part: Part
    logprobs: Raw | None = None


class Ending(NamedTuple):
    """How an answer ended: the word of the provider, its meaning unless the parts say more, and members kept beside."""

    word: str
    reason: StopReason
    extra: Extra


def read_start(it: Members) -> tuple[ResponseStart, dict[str, Raw]]:
    """Return the start of the answer whose envelope is ``it``, and the members that are told at the end."""
    for name in ("object", "output", "status", "error", "incomplete_details", "usage"):
        it.rest.pop(name, None)
    id, model = it.string("id") or "", it.string("model") or ""
    created, tier = it.number("created_at"), it.string("service_tier")
    extra: dict[str, Raw] = {}
    late: dict[str, Raw] = {}
    for name, raw in it.rest.items():
        if raw == NULL:
            continue
        if name in _LATE:
            late[f"kept.{name}" if name in _QUIET_LATE else name] = raw
        else:
            extra[f"kept.{name}" if name in _ECHOES else name] = raw
    return ResponseStart(id, model, None if created is None else int(created), tier, extra, FORMAT), late


def read_ending(it: Members) -> Ending:
    """Read ``status`` and ``incomplete_details``. Raises UpstreamError for a response that failed."""
    status = it.string("status") or "completed"
    if status == "failed" or (it.raw("error") is not None and it.raw("output") is None):
        raise error_in(encode_json(it.rest)) or failed()
    details = it.object("incomplete_details")
    if details is None or status == "completed":
        return Ending(status, _STATUSES.get(status, "other"), {})
    word = details.string("reason") or status
    extra = {f"incomplete_details.{name}": raw for name, raw in details.rest.items() if raw != NULL}
    return Ending(word, INCOMPLETE.get(word, "other"), extra)


_STATUSES: Final[dict[str, StopReason]] = {"completed": "stop", "incomplete": "length"}


def failed() -> UpstreamError:
    """The error of a response that failed and does not say why."""
    return upstream_error("upstream_error", "the provider says that the response failed", format=FORMAT)


def stop_of(ending: Ending, parts: Iterable[Part]) -> ChoiceStop:
    """Return the stop of an answer with these parts: a completed one stops for its calls, or its refusal."""
    reason = ending.reason
    if reason == "stop":
        kinds = {type(part) for part in parts}
        reason = "tool_calls" if ToolCall in kinds else "refusal" if Refusal in kinds else "stop"
    return ChoiceStop(reason, ending.word, extra=ending.extra)


def read_item(raw: Raw, path: str) -> list[Piece]:
    """Return the parts of an output item. Raises DecodeError."""
    it = Members(raw, path)
    kind = it.need_string("type")
    if kind == "message":
        return _message(it, raw)
    if kind in ("function_call", "custom_tool_call"):
        drop_status(it)
        return [Piece(part) for part in read_call(it, kind, raw)]
    if kind == "reasoning":
        drop_status(it)
        return [Piece(part) for part in read_reasoning(it, kind, raw)]
    return [Piece(Opaque(FORMAT, kind, bytes(raw)))]


def drop_status(it: Members) -> None:
    """Forget a status that says no more than that the item is there."""
    if it.rest.get("status") in _USUAL:
        del it.rest["status"]
    if it.rest.get("content") == NULL:
        del it.rest["content"]
    if it.rest.get("encrypted_content") == NULL:
        del it.rest["encrypted_content"]


_USUAL: Final = (NULL, Raw(b'"completed"'), Raw(b'"in_progress"'))


def _message(it: Members, raw: Raw) -> list[Piece]:
    contents = it.array("content") or []
    extra = message_extra(it)
    pieces: list[Piece] = []
    for position, content in enumerate(contents):
        piece = read_content(content, it.at(f"content[{position}]"))
        if piece is None and not pieces:
            break
        if piece is None:
            kind = Members(content, it.path).string("type") or "content"
            piece = Piece(Opaque(FORMAT, f"{UNKNOWN_CONTENT}{kind}", bytes(content)))
        elif not pieces:
            piece = piece._replace(part=with_extra(piece.part, extra))
        pieces.append(piece)
    return pieces or [Piece(Opaque(FORMAT, "message", bytes(raw)))]


def message_extra(it: Members) -> dict[str, Raw]:
    """The extra of a message's first part; ``content`` is taken out already."""
    for name in ("type", "role"):
        it.rest.pop(name, None)
    drop_status(it)
    return item_extra({name: raw for name, raw in it.rest.items() if raw != NULL})


def read_content(raw: Raw, path: str) -> Piece | None:
    """Read an output text or a refusal, or the text of a reasoning item; None for what has no word. Raises DecodeError."""
    it = Members(raw, path)
    kind = it.need_string("type")
    if kind == "refusal":
        return Piece(Refusal(it.need_string("refusal"), _told(it)))
    if kind != "output_text":
        return None
    text = it.need_string("text")
    citations = tuple(
        read_citation(raw, it.at(f"annotations[{i}]")) for i, raw in enumerate(it.array("annotations") or ())
    )
    logprobs = it.take("logprobs")
    return Piece(Text(text, citations, extra=_told(it)), shared_logprobs(logprobs))


def shared_logprobs(raw: Raw | None) -> Raw | None:
    """Return a list of log probabilities as the object that the IR shares with Chat Completions; None for an empty one."""
    return None if raw is None or bytes(raw).strip(b"[ \t\r\n]") == b"" else Raw(b'{"content":%b}' % bytes(raw))


def _told(it: Members) -> dict[str, Raw]:
    return {name: raw for name, raw in it.rest.items() if raw != NULL}


def with_extra(part: Part, extra: Extra) -> Part:
    """``part`` with more members."""
    assert not isinstance(part, Opaque)
    return replace(part, extra={**part.extra, **extra})


def unfold(piece: Piece, index: int) -> list[Event]:
    """The events that say a piece at once."""
    part, text = piece.part, ""
    if isinstance(part, (Text, Reasoning, Refusal)):
        text, part = part.text, replace(part, text="") if part.text else part
    elif isinstance(part, ToolCall):
        text, part = part.arguments, replace(part, arguments="") if part.arguments else part
    events: list[Event] = [PartStart(index, part)]
    if text or piece.logprobs is not None:
        events.append(PartDelta(index, text, logprobs=piece.logprobs))
    return [*events, PartStop(index)]


def expect_object(it: Members, name: str) -> Members:
    """The object ``name``, which must be there."""
    value = it.object(name)
    if value is None:
        raise DecodeError(it.at(name), "expected an object, but it is missing")
    return value
