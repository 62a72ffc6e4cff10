"""Generated answers, streams and requests of gemini: requests from google-genai's types, in both spellings of their members."""

from __future__ import annotations

import base64
import enum
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any, Final, Union, get_args, get_origin

import msgspec
from google.genai import types
from headgate.gateway import registry
from headgate.gateway.codecs.base import Codec, RequestFacts
from headgate.gateway.codecs.gemini import ARRAY_CODEC
from headgate.gateway.codecs.gemini.usage import FINISH_REASONS
from headgate.gateway.ir.event import (
    ChoicePatch,
    ChoiceStop,
    Event,
    PartDelta,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.message import Media, Opaque, Part, Reasoning, Text, ToolCall
from hypothesis import strategies as st
from msgspec import Raw
from pydantic import BaseModel

from .answers import IDS, OBJECTS, WORDS, Answer
from .common import CODECS, streamed
from .sdk_requests import Marks, _Drawing

GEMINI: Final = "gemini"
ARRAY: Final = "gemini, as an array"
"""Not a format but its other framing; here it goes by a name of its own, so that every law holds for it as well."""
FRAMINGS: Final[dict[str, Codec]] = {GEMINI: registry.codec(GEMINI), ARRAY: ARRAY_CODEC}
CODECS.update(FRAMINGS)

MODEL: Final = "gemini-3-pro"
PIXEL: Final = "iVBORw0KGgo="
FACTS: Final = RequestFacts(f"/v1beta/models/{MODEL}:generateContent")
SIGNED: Final = "thoughtSignature"


# -- answers


def _part(kind: str, number: int, draw: Any) -> tuple[Part, str]:
    """A part at its start, and the words that follow."""
    if kind == "text":
        return Text(""), draw(WORDS)
    if kind == "thought":
        return Reasoning(origin=GEMINI), draw(WORDS)
    signature = draw(IDS)
    extra = {SIGNED: Raw(json.dumps(signature).encode())}
    if kind == "signed text":
        return Text(draw(WORDS), extra=extra), ""
    if kind == "signed thought":
        return Reasoning(draw(WORDS), signature, origin=GEMINI), ""
    if kind == "call":
        call = ToolCall(draw(st.sampled_from(["", f"call_{number}"])), draw(IDS))
        return msgspec.structs.replace(call, extra=extra if draw(st.booleans()) else {}), draw(OBJECTS)
    if kind == "image":
        return Media("image", "image/png", data=PIXEL), ""
    code = {"executableCode": {"language": "PYTHON", "code": draw(WORDS)}}
    return Opaque(GEMINI, "executableCode", json.dumps(code).encode()), ""


_KINDS: Final = ("text", "text", "thought", "call", "call", "signed text", "signed thought", "image", "code")


def _kinds(draw: Any) -> list[str]:
    """Kinds of parts; neighbours of plain words are one part, as they are in any stream."""
    some = draw(st.lists(st.sampled_from(_KINDS), max_size=5))
    return [kind for i, kind in enumerate(some) if kind not in ("text", "thought") or some[i - 1 : i] != [kind]]


@st.composite
def answers(draw: Any) -> Answer:
    """Answers of a provider of gemini."""
    envelope = {"x_envelope": Raw(b'{"a" :1.0}')} if draw(st.booleans()) else {}
    start = ResponseStart(draw(IDS), f"model-{draw(IDS)}", draw(st.sampled_from([None, 1_700_000_001])), extra=envelope)
    events: list[Event] = [msgspec.structs.replace(start, format=GEMINI)]
    index = 0
    for choice in range(draw(st.integers(1, 2))):
        kinds = _kinds(draw)
        for kind in kinds:
            part, words = _part(kind, index, draw)
            places = sorted(draw(st.lists(st.integers(0, len(words)), max_size=3)))
            pieces = [words[start:end] for start, end in itertools.pairwise([0, *places, len(words)])]
            deltas = (PartDelta(index, piece, choice) for piece in pieces if piece)
            events += [PartStart(index, part, choice), *deltas, PartStop(index, choice)]
            index += 1
        if draw(st.integers(0, 3)) == 0:
            events.append(ChoicePatch(choice, {"groundingMetadata": Raw(b'{"webSearchQueries": ["x"]}')}))
        word = draw(st.sampled_from(sorted(FINISH_REASONS)))
        reason = "tool_calls" if word == "STOP" and "call" in kinds else FINISH_REASONS[word]
        extra = {"finishMessage": Raw(b'"why"')} if draw(st.integers(0, 3)) == 0 else {}
        events.append(ChoiceStop(reason, word, choice, extra=extra))
    if draw(st.integers(0, 3)) == 0:
        events.append(ResponsePatch({"modelStatus": Raw(b'{"modelStage":"STABLE"}')}))
    if draw(st.booleans()):
        read, written = draw(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
        thought, cached = draw(st.sampled_from([None, 0, 17])), draw(st.sampled_from([None, 1]))
        usage = Usage(read, read - (cached or 0), cached, None, written + (thought or 0), thought, format=GEMINI)
        events.append(UsageReport(usage))
    events += [ResponseStop(), Terminator()]
    return Answer(GEMINI, tuple(events), tuple(draw(st.lists(st.integers(1, 6), max_size=8))))


_ODDITIES: Final = [
    (b'"candidates":', b'"x_unknown" : [1.50, {}], "candidates" : '),
    (b'"finishReason":', b'"finishReason"  :\t'),
    (b'"usageMetadata":', b'"usage_metadata":'),
    (b'"modelVersion":', b'"model_version" :'),
]
_EXTRA_FRAME: Final = b'{"x_unheard_of" : [1.50, {"model":"no"}]}'


@st.composite
def wires(draw: st.DrawFn, framing: str) -> bytes:
    """Streams of a provider that spells things its own way: other names, unknown members, frames of nothing, blanks."""
    answer = draw(answers())
    wire, _ = streamed(GEMINI, answer.events, answer.sizes)
    frames = [frame.removeprefix(b"data: ") for frame in wire.split(b"\n\n")[:-1]]
    for old, new in draw(st.lists(st.sampled_from(_ODDITIES), unique=True)):
        # Within texts a quotation mark is escaped, so that no member of this name begins there.
        frames = [frame.replace(old, new) if b"\\" not in frame else frame for frame in frames]
    if draw(st.booleans()):
        frames.insert(draw(st.integers(0, len(frames) - 1)), _EXTRA_FRAME)
    if framing == ARRAY:
        between = draw(st.sampled_from([b",", b"\r\n,\r\n", b",\n"]))
        return b"[" + between.join(frames) + draw(st.sampled_from([b"]", b"\n]\n"]))
    noise = draw(st.lists(st.sampled_from([b"\n", b": hm\n\n", b"retry: 10\n\n"]), max_size=3))
    told = [b"data: " + frame + b"\n\n" for frame in frames]
    for piece in noise:
        told.insert(draw(st.integers(0, len(told) - 1)), piece)
    return b"".join(told).replace(b"\n", draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))


# -- requests

_CAPITAL: Final = re.compile(r"(?<=.)([A-Z])")


def snake(name: str) -> str:
    """The other spelling of a member's name."""
    return _CAPITAL.sub(lambda letter: f"_{letter[1].lower()}", name)


_MAIN: Final = {
    "text": 6,
    "functionCall": 3,
    "functionResponse": 3,
    "inlineData": 2,
    "fileData": 2,
    "executableCode": 1,
    "codeExecutionResult": 1,
    "toolCall": 1,
    "toolResponse": 1,
}
"""Members that say what a part is, one of which is there, and how often."""
_APART: Final = {
    ("FunctionCall", "partialArgs"),  # what models say while they stream, and no caller
    ("FunctionCall", "willContinue"),
}


def _schema(marks: Marks) -> dict[str, object]:
    """One of Google's own schemas: its types in capitals, 64-bit numbers as strings."""
    word = {"type": "STRING", "description": marks.word(), "maxLength": str(marks.number())}
    return {"type": "OBJECT", "properties": {marks.word(): word, marks.word(): {"type": "INTEGER", "nullable": True}}}


def _json_schema(marks: Marks) -> dict[str, object]:
    return {"type": "object", "properties": {marks.word(): {"type": "string", "maxLength": marks.number()}}}


class GeminiDrawing(_Drawing):
    """Draws from google-genai's models, whose members are spelled as the API has them or, in some requests, in snake_case."""

    def __init__(self, draw: Any) -> None:
        super().__init__(draw)
        self.snake = draw(st.sampled_from([False, False, True]))

    def value(self, kind: Any, depth: int) -> Any:
        if get_origin(kind) is Union:
            inner = [it for it in get_args(kind) if it is not type(None)]
            models = [it for it in inner if isinstance(it, type) and issubclass(it, BaseModel)]
            return self.value(models[0] if models else inner[0], depth)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return self.members(kind, depth)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return self.random.choice([it.value for it in kind if not it.value.endswith("UNSPECIFIED")] or ["X"])
        if kind is bytes:
            return self._data()
        if kind is Any or kind in (dict, Mapping):
            return {self.marks.word(): self.marks.word()}
        return super().value(kind, depth)

    def members(self, kind: Any, depth: int) -> Any:
        name = kind.__name__
        shape = getattr(self, f"_{name}", None)
        told: dict[str, Any] = self._some(kind, depth) if shape is None else shape(kind, depth)
        return told

    def _some(self, kind: Any, depth: int, *without: str) -> dict[str, Any]:
        """Some members, or none, of a model: each is optional in these types."""
        told = {}
        for name, field in kind.model_fields.items():
            said = field.alias or name
            if said in without or (kind.__name__, said) in _APART:
                continue
            if depth <= 6 and self.random.random() < self.share:
                told[self.spelled(said)] = self._member(kind.__name__, said, field.annotation, depth + 1)
        return told

    def _member(self, kind: str, name: str, hint: Any, depth: int) -> Any:
        if name in ("parametersJsonSchema", "responseJsonSchema"):
            return _json_schema(self.marks)
        if name == "topK":
            return self.marks.number()
        if (kind, name) == ("ThinkingConfig", "thinkingBudget"):
            return self.random.choice([0, -1, self.marks.number()])
        return self.value(hint, depth)

    def spelled(self, name: str) -> str:
        return snake(name) if self.snake else name

    def _data(self) -> str:
        return base64.b64encode(self.marks.word().encode()).decode()

    # By the name of the model: what its type alone does not tell.

    def _Content(self, kind: Any, depth: int) -> dict[str, Any]:
        parts = [self.members(types.Part, depth + 1) for _ in range(self.random.choice([1, 1, 2, 3]))]
        return {"role": self.random.choice(["user", "user", "model"]), "parts": parts}

    def _Part(self, kind: Any, depth: int) -> dict[str, Any]:
        main = self.random.choices(list(_MAIN), weights=list(_MAIN.values()))[0]
        fields = {field.alias: field.annotation for field in types.Part.model_fields.values()}
        apart = [*_MAIN, "thought", SIGNED]
        told = {self.spelled(main): self.value(fields[main], depth + 1)}
        if main == "text" and self.random.random() < 0.15:
            told["thought"] = True
        if self.random.random() < 0.15:
            told[self.spelled(SIGNED)] = self._data()
        return told | self._some(types.Part, depth, *apart)

    def _FunctionCall(self, kind: Any, depth: int) -> dict[str, Any]:
        told = self._some(kind, depth, "name", "args")
        return told | {"name": self.marks.word(), "args": {self.marks.word(): self.marks.number()}}

    def _FunctionResponse(self, kind: Any, depth: int) -> dict[str, Any]:
        name = self.random.choice(["output", "error", self.marks.word()])
        told = self._some(kind, depth, "name", "response", "parts")
        if self.random.random() < 0.3:
            told["parts"] = [self.members(types.FunctionResponsePart, depth + 1)]
        return told | {"name": self.marks.word(), "response": {name: self.marks.word()}}

    def _FunctionResponsePart(self, kind: Any, depth: int) -> dict[str, Any]:
        return {self.spelled("inlineData"): self.members(types.Blob, depth + 1)}

    def _Blob(self, kind: Any, depth: int) -> dict[str, Any]:
        told = self._some(kind, depth, "data", "mimeType")
        mime = self.random.choice(["image/png", "image/jpeg", "application/pdf", "audio/wav", "video/mp4"])
        return told | {self.spelled("mimeType"): mime, "data": self._data()}

    def _FileData(self, kind: Any, depth: int) -> dict[str, Any]:
        told = self._some(kind, depth, "fileUri", "mimeType")
        uri = self.random.choice(["https://{}.example/a.png", "gs://{}/a.png", "files/{}"]).format(self.marks.word())
        mime = {self.spelled("mimeType"): "image/png"} if self.random.random() < 0.7 else {}
        return told | mime | {self.spelled("fileUri"): uri}

    def _Schema(self, kind: Any, depth: int) -> dict[str, Any]:
        return _schema(self.marks)

    def _Tool(self, kind: Any, depth: int) -> dict[str, Any]:
        told = self._some(kind, depth, "functionDeclarations") if self.random.random() < 0.3 else {}
        if not told or self.random.random() < 0.5:
            functions = [self.members(types.FunctionDeclaration, depth + 1) for _ in range(self.random.choice([1, 2]))]
            told[self.spelled("functionDeclarations")] = functions
        return told

    def _FunctionDeclaration(self, kind: Any, depth: int) -> dict[str, Any]:
        apart = self.random.choice(["parameters", "parametersJsonSchema"])
        return {"name": self.marks.word()} | self._some(kind, depth, "name", apart)

    def _FunctionCallingConfig(self, kind: Any, depth: int) -> dict[str, Any]:
        told = self._some(kind, depth, "mode", "allowedFunctionNames")
        mode = self.random.choice(["AUTO", "ANY", "NONE", "VALIDATED"])
        if mode in ("ANY", "VALIDATED") and self.random.random() < 0.5:
            told[self.spelled("allowedFunctionNames")] = [self.marks.word() for _ in range(self.random.choice([1, 2]))]
        return told | {"mode": mode}

    def _GenerationConfig(self, kind: Any, depth: int) -> dict[str, Any]:
        schemas = ("responseSchema", "responseJsonSchema", "responseMimeType")
        told = self._some(kind, depth, *schemas)
        mime = self.random.choice([None, "text/plain", "text/x.enum", "application/json", "application/json"])
        if mime is not None:
            told[self.spelled("responseMimeType")] = mime
        if mime == "application/json":
            schema = self.random.choice(["responseSchema", "responseJsonSchema", None])
            if schema is not None:
                shape = _schema if schema == "responseSchema" else _json_schema
                told[self.spelled(schema)] = shape(self.marks)
        return told


_TOP: Final[dict[str, Any]] = {
    "systemInstruction": types.Content,
    "tools": list[types.Tool],
    "toolConfig": types.ToolConfig,
    "safetySettings": list[types.SafetySetting],
    "generationConfig": types.GenerationConfig,
    "cachedContent": str,
    "labels": dict[str, str],
    "serviceTier": types.ServiceTier,
    "store": bool,
    "modelArmorConfig": types.ModelArmorConfig,
}
"""What google-genai puts at the top of a body; all other settings of its ``GenerateContentConfig`` are generationConfig's."""


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests of gemini as google-genai's types allow them."""
    drawing = GeminiDrawing(draw)
    body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": drawing.marks.word()}]}]}
    if draw(st.integers(0, 2)):
        # Else the one thing said is what every format has room for, so that what stands around it is seen.
        body["contents"] = [drawing.members(types.Content, 0) for _ in range(draw(st.integers(1, 4)))]
        body["contents"][0]["role"] = "user"
    for name, hint in _TOP.items():
        if drawing.random.random() < max(drawing.share, 0.3):
            value = drawing.value(hint, 1)
            if name == "systemInstruction":
                value = {"parts": [{"text": drawing.marks.word()}]}
            body[drawing.spelled(name)] = value
    return body


def known_members() -> set[str]:
    """Return the members that google-genai knows in a request's config."""
    return {field.alias or name for name, field in types.GenerateContentConfig.model_fields.items()}
