"""Generated requests with every field that the SDKs of a format know: drawn from their own types.

Each text and number in a request is its own mark, so that one which vanishes on the way is seen to be missing.
"""

from __future__ import annotations

import base64
import json
import types
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import typing_extensions
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from openai.types.responses import ResponseInputItemParam
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)

from .common import OPENAI, RESPONSES

_REQUIRED: Final[tuple[object, ...]] = (typing_extensions.Required,)
_WRAPPERS: Final = (typing_extensions.Required, typing_extensions.NotRequired, typing_extensions.Annotated)
TYPES: Final[dict[str, tuple[type, ...]]] = {
    OPENAI: (CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming),
    "anthropic.messages": (MessageCreateParamsNonStreaming, MessageCreateParamsStreaming),
    RESPONSES: (ResponseCreateParamsNonStreaming, ResponseCreateParamsStreaming),
}
Place = tuple[str | int, ...]


class Leaf(NamedTuple):
    """A value of a request that is neither object nor array, and where it stands."""

    path: Place
    value: str | int | float | bool | None


def leaves(value: object, path: Place = ()) -> Iterator[Leaf]:
    """Yield the leaves of a JSON value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    elif isinstance(value, str | int | float) or value is None:
        yield Leaf(path, value)


class Marks:
    """Makes texts and numbers that stand nowhere else."""

    def __init__(self) -> None:
        self._count = 0

    def number(self) -> int:
        self._count += 1
        return 70_000 + 7 * self._count

    def word(self) -> str:
        return f"w{self.number()}"


def _schema(marks: Marks) -> dict[str, object]:
    return {"type": "object", "properties": {marks.word(): {"type": "string", "maxLength": marks.number()}}}


def _url(marks: Marks) -> str:
    return f"https://{marks.word()}.example/picture.png"


def _data(marks: Marks) -> str:
    return base64.b64encode(marks.word().encode()).decode()


def _picture(marks: Marks) -> str:
    return _url(marks) if marks.number() % 2 else f"data:image/png;base64,{_data(marks)}"


# What a type alone does not tell: by the name of the TypedDict and the member.
_SHAPES: Final[Mapping[tuple[str, str], Callable[[Marks], object]]] = {
    ("Function", "arguments"): lambda marks: json.dumps({marks.word(): marks.number()}),
    ("FunctionCall", "arguments"): lambda marks: json.dumps({marks.word(): marks.number()}),
    ("ToolUseBlockParam", "input"): lambda marks: {marks.word(): marks.number()},
    ("ServerToolUseBlockParam", "input"): lambda marks: {marks.word(): marks.number()},
    ("Function", "parameters"): _schema,
    ("FunctionDefinition", "parameters"): _schema,
    ("ToolParam", "input_schema"): _schema,
    ("JSONSchema", "schema"): _schema,
    ("JSONOutputFormatParam", "schema"): _schema,
    ("ImageURL", "url"): _picture,
    ("InputAudio", "data"): _data,
    ("FileFile", "file_data"): lambda marks: f"data:application/pdf;base64,{_data(marks)}",
    ("Base64ImageSourceParam", "data"): _data,
    ("Base64PDFSourceParam", "data"): _data,
    ("ChatCompletionAllowedToolsParam", "tools"): lambda marks: [
        {"type": "function", "function": {"name": marks.word()}} for _ in range(2)
    ],
    ("ResponseFunctionToolCallParam", "arguments"): lambda marks: json.dumps({marks.word(): marks.number()}),
    ("FunctionToolParam", "parameters"): _schema,
    ("ResponseFormatTextJSONSchemaConfigParam", "schema"): _schema,
    ("ResponseInputImageParam", "image_url"): _picture,
    ("ResponseInputImageContentParam", "image_url"): _picture,
    ("ResponseInputFileParam", "file_data"): lambda marks: f"data:application/pdf;base64,{_data(marks)}",
    ("ResponseInputFileContentParam", "file_data"): lambda marks: f"data:application/pdf;base64,{_data(marks)}",
    ("ToolChoiceAllowedParam", "tools"): lambda marks: [{"type": "function", "name": marks.word()} for _ in range(2)],
    ("CompletionCreateParamsBase", "logit_bias"): lambda marks: {str(marks.number()): marks.number()},
}


@cache
def _members(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The members of a TypedDict: type, and whether it must be there."""
    # Which are required cannot be asked of the class itself where annotations are strings.
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    return {name: (hint, get_origin(hint) in _REQUIRED or name in ("type", "schema")) for name, hint in hints.items()}


@cache
def _is_said(kind: Any) -> bool:
    """Whether a type says something: not None, nor the classes of the SDK's answers, which it takes for convenience."""
    if get_origin(kind) in (Union, types.UnionType, *_WRAPPERS):
        return any(_is_said(inner) for inner in get_args(kind) if isinstance(inner, type) or get_origin(inner))
    return kind is not type(None) and not hasattr(kind, "model_fields")


class _Drawing:
    """One request while it is drawn."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.random = draw(st.randoms(use_true_random=False))
        self.marks = Marks()
        # How many of the optional members are there: a few, or nearly all.
        self.share = draw(st.sampled_from([0.1, 0.3, 0.3, 0.6]))

    def value(self, kind: Any, depth: int) -> Any:
        origin = get_origin(kind)
        if origin in _WRAPPERS:
            return self.value(get_args(kind)[0], depth)
        if origin is Union or origin is types.UnionType:
            return self.value(self.random.choice([inner for inner in get_args(kind) if _is_said(inner)]), depth)
        if typing_extensions.is_typeddict(kind):
            return self.members(kind, depth)
        if origin in (Literal, typing_extensions.Literal):
            return self.random.choice(get_args(kind))
        if origin in (dict, Mapping) or kind is object or getattr(origin, "__name__", "") == "Mapping":
            return {self.marks.word(): self.marks.word()}
        if origin is not None:
            # Blocks hold blocks: below some depth no more.
            count = self.random.choice([1, 1, 2]) if depth < 9 else 0
            return [self.value(get_args(kind)[0], depth + 1) for _ in range(count)]
        if kind is bool:
            return self.random.random() < 0.5
        if kind is int:
            return self.marks.number()
        if kind is float:
            return self.marks.number() / 128
        return self.marks.word()

    def members(self, kind: Any, depth: int) -> dict[str, Any]:
        chosen = {}
        for name, (hint, needed) in _members(kind).items():
            if not needed and (depth > 6 or self.random.random() > self.share):
                continue
            shape = _SHAPES.get((kind.__name__, name))
            chosen[name] = self.value(hint, depth + 1) if shape is None else shape(self.marks)
        if kind.__name__ == "FileFile" and "file_data" not in chosen:
            chosen["file_id"] = self.marks.word()  # one of the two must be there
        return chosen


@st.composite
def requests(draw: st.DrawFn, format: str) -> dict[str, Any]:
    """Requests of ``format`` as its SDK's types allow them."""
    kind = draw(st.sampled_from(TYPES[format]))
    drawing = _Drawing(draw)
    body = drawing.members(kind, 0)
    if format == RESPONSES:
        body.setdefault("model", drawing.marks.word())
        items = [drawing.value(ResponseInputItemParam, 2) for _ in range(draw(st.integers(0, 4)))]
        if items:
            body["input"] = items
        return body
    body["messages"] += [drawing.value(_members(kind)["messages"][0], 0)[0] for _ in range(draw(st.integers(0, 3)))]
    return body


def known_members(format: str) -> set[str]:
    """Return the top-level members that the SDK knows."""
    return {name for kind in TYPES[format] for name in _members(kind)}
