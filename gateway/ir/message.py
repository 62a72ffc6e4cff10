"""A request as a value: messages made of parts, tools, and the settings of the call.

Names follow OpenTelemetry's GenAI attributes where one exists. ``extra`` holds the members of a JSON object that have no
word here, each as the bytes it came in; they are the source format's own and are written back by that format only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Raw, Struct

Extra: TypeAlias = Mapping[str, Raw]
NO_EXTRA: Final[Extra] = {}
"""Shared and never written to; Structs are frozen and decoders build a new dict when there is something to keep."""

Role = Literal["system", "developer", "user", "assistant", "tool"]


class CacheMark(Struct, frozen=True, omit_defaults=True, gc=False):
    """A prompt-cache breakpoint after the part it stands on. ``ttl`` is as spelled, for instance ``5m`` or ``1h``."""

    ttl: str | None = None
    extra: Extra = NO_EXTRA


class Citation(Struct, frozen=True, omit_defaults=True):
    """Where a text comes from. ``kind`` and ``raw`` are the source format's own; the rest is what formats share.

    ``start`` and ``end`` are character offsets in the cited answer text, where the format gives them.
    """

    format: str
    kind: str
    raw: bytes
    url: str | None = None
    title: str | None = None
    cited_text: str | None = None
    start: int | None = None
    end: int | None = None


class Text(Struct, frozen=True, omit_defaults=True, tag="text"):
    """Words of a message."""

    text: str
    citations: tuple[Citation, ...] = ()
    cache: CacheMark | None = None
    extra: Extra = NO_EXTRA


class Reasoning(Struct, frozen=True, omit_defaults=True, tag="reasoning"):
    """Thinking. ``signature`` proves it to the provider that wrote it; ``redacted`` is its encrypted form instead of text.

    ``origin`` names the format that made the signature (and the field, where a format has several spellings).
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    origin: str = ""
    extra: Extra = NO_EXTRA


class Refusal(Struct, frozen=True, omit_defaults=True, tag="refusal"):
    """What the model says when it declines, in formats that keep it apart from the text."""

    text: str
    extra: Extra = NO_EXTRA


class Media(Struct, frozen=True, omit_defaults=True, tag="media"):
    """An image, audio, document or video: exactly one of ``data`` (base64 text), ``uri``, ``file_id``, ``text`` is set.

    ``media_type`` is a MIME type, or None where the format does not tell. ``text`` is a plain-text document.
    """

    kind: Literal["image", "audio", "document", "video"]
    media_type: str | None = None
    data: str | None = None
    uri: str | None = None
    file_id: str | None = None
    text: str | None = None
    name: str | None = None
    detail: str | None = None
    cache: CacheMark | None = None
    extra: Extra = NO_EXTRA


class ToolCall(Struct, frozen=True, omit_defaults=True, tag="tool_call"):
    """A tool to run. ``arguments`` is JSON text as it came (free text when ``kind`` is ``custom``).

    ``server`` is empty for the caller's tools, else the format's name for a tool the provider runs itself. A null ``id`` in
    ``extra``, here and in the result, says that nobody gave the id: the decoder made it up so that the two find each other.
    """

    id: str
    name: str
    arguments: str = ""
    kind: Literal["function", "custom"] = "function"
    server: str = ""
    cache: CacheMark | None = None
    extra: Extra = NO_EXTRA


class Opaque(Struct, frozen=True, omit_defaults=True, tag="opaque"):
    """A block we have no word for, verbatim: the JSON ``data`` of format ``format``, whose own name for it is ``kind``."""

    format: str
    kind: str
    data: bytes
    cache: CacheMark | None = None


class ToolResult(Struct, frozen=True, omit_defaults=True, tag="tool_result"):
    """What a tool returned. ``id`` is that of its ToolCall; ``server`` as there; ``brief`` as in Message."""

    id: str
    content: tuple[Text | Media | Opaque, ...] = ()
    is_error: bool = False
    name: str | None = None
    server: str = ""
    cache: CacheMark | None = None
    extra: Extra = NO_EXTRA
    brief: bool = False


Part: TypeAlias = Text | Reasoning | Refusal | Media | ToolCall | ToolResult | Opaque


class Message(Struct, frozen=True, omit_defaults=True):
    """One turn. ``brief`` says that the format spelled the content as a plain string, so that it can again."""

    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None
    brief: bool = False
    extra: Extra = NO_EXTRA


class Tool(Struct, frozen=True, omit_defaults=True):
    """A tool the model may call. ``schema`` is JSON Schema bytes as they came.

    ``kind`` is ``function``, ``custom`` (free text, ``schema`` empty), or the format's own word for a built-in tool, whose
    whole definition is then ``raw``.
    """

    name: str
    schema: bytes = b""
    description: str | None = None
    kind: str = "function"
    strict: bool | None = None
    cache: CacheMark | None = None
    raw: bytes | None = None
    extra: Extra = NO_EXTRA


class ToolChoice(Struct, frozen=True, omit_defaults=True):
    """``tool`` forces ``names[0]``; ``allowed`` restricts to ``names`` and, when ``required``, forces one of them."""

    mode: Literal["auto", "none", "required", "tool", "allowed"]
    names: tuple[str, ...] = ()
    kind: Literal["function", "custom"] = "function"
    required: bool = False
    extra: Extra = NO_EXTRA


class ResponseFormat(Struct, frozen=True, omit_defaults=True):
    """Structured output. ``schema`` is JSON Schema bytes as they came, for ``json_schema``."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: bytes | None = None
    description: str | None = None
    strict: bool | None = None
    extra: Extra = NO_EXTRA


class ReasoningOptions(Struct, frozen=True, omit_defaults=True):
    """How hard to think. ``mode`` is enabled, disabled, adaptive, or the format's own word; ``budget_tokens`` its cap."""

    mode: str | None = None
    effort: str | None = None
    budget_tokens: int | None = None
    summary: str | None = None
    extra: Extra = NO_EXTRA


class Request(Struct, frozen=True, omit_defaults=True):
    """A call's request. None and empty mean that the caller did not say. ``format`` is where ``extra`` belongs."""

    format: str
    model: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: bytes | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    reasoning: ReasoningOptions | None = None
    cache: CacheMark | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    stream: bool = False
    stream_usage: bool | None = None
    user: str | None = None
    metadata: Mapping[str, str] | None = None
    extra: Extra = NO_EXTRA


def plain_text(message: Message) -> str | None:
    """The words of a message that is one text and nothing besides: no name, no marks, no unknown members. Else None."""
    parts = message.parts
    if len(parts) != 1 or message.extra or message.name is not None:
        return None
    part = parts[0]
    if type(part) is not Text or part.extra or part.cache is not None or part.citations:
        return None
    return part.text
