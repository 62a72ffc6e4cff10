"""What spans tell of a request and an answer that nobody decoded: their settings and ids, read beside everything else."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct, field

from ..errors import GatewayError
from ..ir.event import ChoiceStop, Chunk, Event, ResponseStart
from ..ir.message import Request
from ..wire.members import BAD_JSON
from .names import reason_of
from .span import Attributes

MAX_TEXT: Final = 256


def short(text: str) -> str:
    """Return a text that somebody else chose, cut to a length that a span can bear."""
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT]


class _Gemini(Struct, frozen=True):
    max_tokens: int | None = field(default=None, name="maxOutputTokens")
    temperature: float | None = None
    top_p: float | None = field(default=None, name="topP")
    top_k: float | None = field(default=None, name="topK")
    seed: int | None = None
    n: int | None = field(default=None, name="candidateCount")
    stop: tuple[str, ...] | None = field(default=None, name="stopSequences")
    frequency_penalty: float | None = field(default=None, name="frequencyPenalty")
    presence_penalty: float | None = field(default=None, name="presencePenalty")
    media_type: str | None = field(default=None, name="responseMimeType")


class _Ollama(Struct, frozen=True):
    max_tokens: int | None = field(default=None, name="num_predict")
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | str | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


class _Effort(Struct, frozen=True):
    effort: str | None = None


class _Kind(Struct, frozen=True):
    type: str | None = None


class Asked(Struct, frozen=True):
    """The settings of every format's request. None is alike in two formats and means something else."""

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    seed: int | None = None
    n: int | None = None
    stop: tuple[str, ...] | str | None = None
    stop_sequences: tuple[str, ...] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    reasoning_effort: str | None = None
    reasoning: _Effort | None = None
    output_config: _Effort | None = None
    response_format: _Kind | None = None
    previous_response_id: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    gemini: _Gemini | None = field(default=None, name="generationConfig")
    gemini_snake: _Gemini | None = field(default=None, name="generation_config")
    ollama: _Ollama | None = field(default=None, name="options")


_REQUEST: Final = msgspec.json.Decoder(Asked)
_NOTHING_ASKED: Final = Asked()
_JSON: Final = ("json", "json_object", "json_schema", "application/json")


def read_asked(body: bytes) -> Asked | None:
    """Return what a request asks for besides its words; None of one that is no request."""
    try:
        return _REQUEST.decode(body)
    except BAD_JSON:
        return None


def settings_of(body: bytes) -> Attributes:
    """Return the same as attributes. Nothing of one that is no request."""
    asked = read_asked(body)
    return [] if asked is None else settings_asked(asked)


def settings_asked(asked: Asked) -> Attributes:
    """Return what a request asks for, as attributes."""
    if asked == _NOTHING_ASKED:
        return []
    inner = asked.gemini or asked.gemini_snake or asked.ollama
    found: Attributes = []
    if inner is not None:
        kind = inner.media_type if isinstance(inner, _Gemini) else None
        count = inner.n if isinstance(inner, _Gemini) else None
        _add(found, inner, inner.max_tokens, inner.stop, count, None, kind)
        return found
    most = asked.max_completion_tokens or asked.max_output_tokens or asked.max_tokens
    thinks = asked.reasoning or asked.output_config
    level = asked.reasoning_effort or (None if thinks is None else thinks.effort)
    kind = None if asked.response_format is None else asked.response_format.type
    _add(found, asked, most, asked.stop or asked.stop_sequences, asked.n, level, kind)
    if asked.previous_response_id is not None:
        found.append(("gen_ai.request.previous_response.id", short(asked.previous_response_id)))
    if asked.encoding_format is not None:
        found.append(("gen_ai.request.encoding_formats", (short(asked.encoding_format),)))
    if asked.dimensions is not None:
        found.append(("gen_ai.embeddings.dimension.count", asked.dimensions))
    return found


def settings_in(request: Request) -> Attributes:
    """Return the same of a request that was decoded, and changed."""
    found: Attributes = []
    level = None if request.reasoning is None else request.reasoning.effort
    kind = None if request.response_format is None else request.response_format.kind
    _add(found, request, request.max_output_tokens, tuple(request.stop), request.n, level, kind)
    return found


def _add(
    found: Attributes,
    asked: Any,
    most: int | None,
    stop: tuple[str, ...] | str | None,
    count: int | None,
    level: str | None,
    kind: str | None,
) -> None:
    if most is not None:
        found.append(("gen_ai.request.max_tokens", most))
    for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty"):
        if (number := getattr(asked, name)) is not None:
            found.append((f"gen_ai.request.{name}", float(number)))
    if asked.top_k is not None:
        found.append(("gen_ai.request.top_k", int(asked.top_k)))
    if asked.seed is not None:
        found.append(("gen_ai.request.seed", asked.seed))
    if stop:
        stops = (stop,) if isinstance(stop, str) else stop[:16]
        found.append(("gen_ai.request.stop_sequences", tuple(map(short, stops))))
    if count is not None and count != 1:
        found.append(("gen_ai.request.choice.count", count))
    if level is not None:
        found.append(("gen_ai.request.reasoning.level", short(level)))
    if kind is not None:
        found.append(("gen_ai.output.type", "json" if kind in _JSON else short(kind)))


class _ChatChoice(Struct, frozen=True):
    finish_reason: str | None = None


class _Chat(Struct):
    id: str = ""
    model: str = ""
    choices: tuple[_ChatChoice, ...] = ()


class _Message(Struct):
    id: str = ""
    model: str = ""
    stop_reason: str | None = None


_CHAT: Final = msgspec.json.Decoder(_Chat)
_MESSAGE: Final = msgspec.json.Decoder(_Message)


class _Reasons(dict[tuple[_ChatChoice, ...], tuple[str, ...]]):
    """Why choices ended, by what the provider says: of one choice, the same few words again and again."""

    def __missing__(self, choices: tuple[_ChatChoice, ...]) -> tuple[str, ...]:
        reasons = tuple([reason_of(choice.finish_reason) for choice in choices if choice.finish_reason])
        if len(choices) == 1 and len(choices[0].finish_reason or "") < MAX_TEXT and len(self) < _MAX_REASONS:
            self[choices] = reasons
        return reasons


_MAX_REASONS: Final = 100
_REASONS: Final = _Reasons()


class Told(Struct, frozen=True):
    """What an answer says of itself."""

    id: str = ""
    model: str = ""
    reasons: tuple[str, ...] = ()


_NOTHING: Final = Told()


def told_by(chunk: Chunk) -> Told:
    """Return what a whole answer says of itself: of the two formats that most speak, without decoding the rest."""
    if (plain := chunk.plain) is not None:
        return Told(plain.start.id, plain.start.model, (reason_of(plain.stop.reason),))
    format = "" if chunk.wire is None else chunk.wire.format
    try:
        if chunk._events is None and chunk.raw is not None:
            if format in ("openai.chat", "openai.completions"):
                chat = _CHAT.decode(chunk.raw)
                return Told(chat.id, chat.model, _REASONS[chat.choices])
            if format == "anthropic.messages":
                message = _MESSAGE.decode(chunk.raw)
                reason = message.stop_reason
                return Told(message.id, message.model, (reason_of(reason),) if reason else ())
        return told_in(chunk.events)
    except (*BAD_JSON, GatewayError):
        return _NOTHING  # the caller has it as it is


def told_in(events: tuple[Event, ...]) -> Told:
    """Return what events say of their answer."""
    id = model = ""
    reasons: dict[int, str] = {}
    for event in events:
        if isinstance(event, ResponseStart):
            id, model = event.id or id, event.model or model
        elif isinstance(event, ChoiceStop):
            reasons[event.choice] = reason_of(event.reason if event.reason != "other" else event.raw_reason or "other")
    return Told(id, model, tuple(reasons[choice] for choice in sorted(reasons)))
