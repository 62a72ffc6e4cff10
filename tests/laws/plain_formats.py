"""Generated answers, streams and requests of the formats that say less than a chat: one choice, one prompt, or text alone."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin

from headgate.gateway.codecs.ollama.words import STOP_REASONS as OLLAMA_STOPS
from headgate.gateway.codecs.openai_completions.words import STOP_REASONS as COMPLETIONS_STOPS
from headgate.gateway.ir.event import (
    ChoiceStop,
    Event,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.message import Part, Reasoning, Text, ToolCall
from hypothesis import strategies as st
from ollama import Options
from ollama._types import ChatRequest, GenerateRequest
from openai.types.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import BaseModel

from .answers import IDS, OBJECTS, WORDS, Answer
from .common import COMPLETIONS, GENERATE, OLLAMA, streamed
from .sdk_requests import Marks, _Drawing, _members

PIXEL: Final = "iVBORw0KGgo="
_STOPS: Final[dict[str, Mapping[str, StopReason]]] = {
    OLLAMA: OLLAMA_STOPS,
    GENERATE: OLLAMA_STOPS,
    COMPLETIONS: COMPLETIONS_STOPS,
}
_PARTS: Final = {OLLAMA: "rtc", GENERATE: "rt", COMPLETIONS: "t"}


def _deltas(text: str, index: int, choice: int, draw: Any) -> list[Event]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    pieces = (text[start:end] for start, end in itertools.pairwise([0, *places, len(text)]))
    return [PartDelta(index, piece, choice) for piece in pieces if piece]


@st.composite
def answers(draw: Any, format: str) -> Answer:
    """Answers of a provider of ``format``, their parts in the order that a whole answer tells."""
    id = f"cmpl-{draw(IDS)}" if format == COMPLETIONS else ""  # Ollama's answers have none
    events: list[Event] = [ResponseStart(id, f"model-{draw(IDS)}", 1_700_000_001, format=format)]
    index = 0
    for choice in range(draw(st.integers(1, 2)) if format == COMPLETIONS else 1):
        some = draw(st.lists(st.sampled_from(_PARTS[format]), max_size=4))
        kinds = sorted(set(some) - {"c"}) + ["c"] * some.count("c")
        for kind in kinds:
            part: Part = Text("")
            text = draw(WORDS)
            if kind == "r":
                part = Reasoning(origin=format)
            elif kind == "c":
                part = ToolCall(draw(st.sampled_from(["", f"call_{index}"])), draw(IDS))
                text = draw(OBJECTS)
            events += [PartStart(index, part, choice), *_deltas(text, index, choice, draw), PartStop(index, choice)]
            index += 1
        word = draw(st.sampled_from(sorted(_STOPS[format])))
        reason = "tool_calls" if word == "stop" and "c" in kinds else _STOPS[format][word]
        events.append(ChoiceStop(reason, word, choice))
    if draw(st.booleans()):
        read, written = draw(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
        events.append(UsageReport(Usage(read, read, None, None, written, None, format=format)))
    events += [ResponseStop(), Terminator()]
    return Answer(format, tuple(events), tuple(draw(st.lists(st.integers(1, 6), max_size=8))))


_NOISE: Final = {
    "ndjson": [b"\n", b'{"x_unheard_of" : [1.50, {"model":"no"}]}\n', b"  \n"],
    "sse": [b": hm\n\n", b"retry: 10\n\n", b'data: {"x_unheard_of" : [1.50, {"model":"no"}]}\n\n'],
}
_ODDITIES: Final = [
    (b'{"model"', b'{ "x_unknown" : [1.50, {}], "model"'),
    (b'"done":', b'"done" : '),
    (b'{"id"', b'{ "id"'),
]


@st.composite
def wires(draw: st.DrawFn, format: str) -> bytes:
    """Streams of a provider that spells things its own way: noise between frames, unknown members, blanks, CRLF."""
    answer: Answer = draw(answers(format))
    wire, _ = streamed(format, answer.events, answer.sizes)
    lines = format != COMPLETIONS
    end = b"\n" if lines else b"\n\n"
    frames = [frame + end for frame in wire.split(end)[:-1]]
    for old, new in draw(st.lists(st.sampled_from(_ODDITIES), unique=True)):
        frames = [new + frame.removeprefix(old) if frame.startswith(old) else frame for frame in frames]
    for noise in draw(st.lists(st.sampled_from(_NOISE["ndjson" if lines else "sse"]), max_size=3)):
        frames.insert(draw(st.integers(0, len(frames) - 1)), noise)
    ends = [b"\n", b"\r\n"] if lines else [b"\n", b"\r\n", b"\r"]
    return b"".join(frames).replace(b"\n", draw(st.sampled_from(ends)))


# -- requests, drawn from the types of Ollama's client and of OpenAI's SDK

TYPES: Final[dict[str, tuple[Any, ...]]] = {
    OLLAMA: (ChatRequest,),
    GENERATE: (GenerateRequest,),
    COMPLETIONS: (CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming),
}


def _image(marks: Marks) -> str:
    return base64.b64encode(marks.word().encode()).decode()


def _schema(marks: Marks) -> dict[str, object]:
    return {"type": "object", "properties": {marks.word(): {"type": "string", "description": marks.word()}}}


class _ModelDrawing(_Drawing):
    """Draws from pydantic's models, in which Ollama's client writes its requests down."""

    def value(self, kind: Any, depth: int) -> Any:
        if get_origin(kind) is Union:
            # Besides its models the client takes any mapping: those would be requests that nobody understands.
            models = [inner for inner in get_args(kind) if isinstance(inner, type) and issubclass(inner, BaseModel)]
            if models:
                return self.value(models[0], depth)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return self.members(kind, depth)
        return super().value(kind, depth)

    def members(self, kind: Any, depth: int) -> Any:
        if not issubclass(kind, BaseModel):
            return super().members(kind, depth)
        if kind.__name__ == "Image":
            return _image(self.marks)
        if kind.__name__ == "Parameters":
            return _schema(self.marks)
        chosen: dict[str, Any] = {}
        for name, field in kind.model_fields.items():
            said = name in ("messages", "function", "name", "content", "prompt") or field.is_required()
            if not said and (depth > 8 or self.random.random() > self.share):
                continue
            chosen[field.alias or name] = self.member(kind.__qualname__, name, field.annotation, depth)
        return chosen

    def member(self, kind: str, name: str, hint: Any, depth: int) -> Any:
        if (kind, name) == ("Message", "role"):
            return self.random.choice(["system", "user", "user", "assistant", "tool"])
        if (kind, name) == ("Tool", "type"):
            return "function"
        if name == "format":
            return self.random.choice(["json", _schema(self.marks)])
        if name == "arguments":
            return {self.marks.word(): self.marks.number()}
        if name == "think":
            return self.random.choice([True, False, "low", "medium", "high"])
        if name == "options":
            return self.members(Options, depth + 1)
        return self.value(_said(hint), depth + 1)


def _said(hint: Any) -> Any:
    """A type without its None."""
    inner = [kind for kind in get_args(hint) if kind is not type(None)]
    return inner[0] if get_origin(hint) is Union and len(inner) == 1 else hint


@st.composite
def requests(draw: st.DrawFn, format: str) -> dict[str, Any]:
    """Requests of ``format`` as its client's types allow them."""
    kind = draw(st.sampled_from(TYPES[format]))
    drawing = _ModelDrawing(draw) if format != COMPLETIONS else _Drawing(draw)
    body: dict[str, Any] = drawing.members(kind, 0)
    if format == COMPLETIONS and "logprobs" in body:
        body["logprobs"] = drawing.marks.number()
    return body


def known_members(format: str) -> set[str]:
    """Return the top-level members that the client knows."""
    if format == COMPLETIONS:
        return {name for kind in TYPES[format] for name in _members(kind)}
    return {name for kind in TYPES[format] for name in kind.model_fields}
