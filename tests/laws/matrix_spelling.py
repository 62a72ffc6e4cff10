"""How the formats spell what a request asks for, and how that is found again in what was read.

Each feature is spelled as the API reference and the SDK types of its format spell it. ``read`` finds it in a decoded
request, ``said`` is what it must find there whichever format said it: so a decoder that does not hear a feature, or an
encoder and a decoder that agree on a spelling of their own, are seen.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from headgate.gateway.ir.message import (
    Media,
    Opaque,
    Part,
    Reasoning,
    Request,
    Text,
    ToolCall,
    ToolResult,
)

from .common import ANTHROPIC, COMPLETIONS, GENERATE, OLLAMA, OPENAI, RESPONSES
from .gemini_format import GEMINI

Body = dict[str, Any]
STREAM: Final = "$stream"
"""A member that stands for the method in a path: where gemini says that it wants a stream."""


class Feature(NamedTuple):
    """Something to ask for, and how the formats say it.

    ``odd`` is what some of them mean by it in other words, ``beside`` what their examples must say besides: what becomes of
    that is not the question.
    """

    name: str
    read: Callable[[Request], object]
    said: object
    bodies: Mapping[str, Body]
    odd: Mapping[str, object] = {}
    beside: tuple[str, ...] = ()

    def expected(self, format: str) -> object:
        """What a request of ``format`` that says this must be read as."""
        return self.odd.get(format, self.said)


BASES: Final[dict[str, Body]] = {
    OPENAI: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    RESPONSES: {"model": "m", "input": "hi"},
    ANTHROPIC: {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]},
    GEMINI: {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    OLLAMA: {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False},
    GENERATE: {"model": "m", "prompt": "hi", "stream": False},
    COMPLETIONS: {"model": "m", "prompt": "hi"},
}
ALL: Final = tuple(BASES)

# -- how the formats spell it

PNG: Final = "iVBORw0KGgo="
PDF: Final = "JVBERi0="
WAV: Final = "UklGRg=="
LINK: Final = "https://a.example/p.png"
SCHEMA: Final = {"type": "object", "properties": {"at": {"type": "integer"}}}
SIGN: Final = "U2lnbg=="
ASK: Final = {"role": "user", "content": "hi"}
ASKED: Final = {"role": "user", "parts": [{"text": "hi"}]}


def chat(*messages: Any) -> Body:
    return {"messages": list(messages)}


def user(*blocks: Any) -> Body:
    """A message of a user, of blocks."""
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def replied(*blocks: Any, **more: Any) -> Body:
    """A conversation: asked, answered with these blocks, asked again."""
    spoken: Body = {"role": "assistant", **({"content": list(blocks)} if blocks else {}), **more}
    return {"messages": [ASK, spoken, {"role": "user", "content": "go on"}]}


def items(*items: Any) -> Body:
    return {"input": list(items)}


def given(*parts: Any) -> Body:
    """A message of a user, of Responses' parts."""
    return items({"role": "user", "content": list(parts)})


def turns(*between: Any) -> Body:
    """A conversation of items: asked, these, asked again."""
    return items(ASK, *between, {"role": "user", "content": "go on"})


def contents(*contents: Any) -> Body:
    return {"contents": list(contents)}


def parts(*parts: Any) -> Body:
    return {"contents": [{"role": "user", "parts": list(parts)}]}


def modelled(*parts: Any) -> Body:
    """A conversation of contents: asked, answered with these parts, asked again."""
    again = {"role": "user", "parts": [{"text": "go on"}]}
    return contents(ASKED, {"role": "model", "parts": list(parts)}, again)


def config(**settings: Any) -> Body:
    return {"generationConfig": settings}


def options(**settings: Any) -> Body:
    return {"options": settings}


def function(name: str = "look", **more: Any) -> Body:
    inner = {"name": name, "description": "Looks.", "parameters": SCHEMA}
    return {"type": "function", "function": {**inner, **more}}


def flat(name: str = "look", **more: Any) -> Body:
    told = {"type": "function", "name": name, "description": "Looks.", "parameters": SCHEMA, "strict": False}
    return {**told, **more}


def block(name: str = "look", **more: Any) -> Body:
    return {"name": name, "description": "Looks.", "input_schema": SCHEMA, **more}


def declared(*names: str) -> Body:
    inner = [{"name": name, "description": "Looks.", "parametersJsonSchema": SCHEMA} for name in names or ("look",)]
    return {"tools": [{"functionDeclarations": inner}]}


CHAT_TOOLS: Final[Body] = {"tools": [function()]}
FLAT_TOOLS: Final[Body] = {"tools": [flat()]}
BLOCK_TOOLS: Final[Body] = {"tools": [block()]}
DECLARED: Final = declared()
TWO_CHAT: Final[Body] = {"tools": [function(), function("hear")]}
TWO_FLAT: Final[Body] = {"tools": [flat(), flat("hear")]}
TWO_DECLARED: Final = declared("look", "hear")


def calling(**choice: Any) -> Body:
    return {"toolConfig": {"functionCallingConfig": choice}}


def called(number: int, name: str) -> Body:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": f'{{"at":{number}}}'}}


def item(number: int, name: str) -> Body:
    return {"type": "function_call", "call_id": f"call_{number}", "name": name, "arguments": f'{{"at":{number}}}'}


def used(number: int, name: str) -> Body:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {"at": number}}


def line_call(number: int, name: str) -> Body:
    return {"function": {"name": name, "arguments": {"at": number}}}


def chat_results(*contents: Any) -> Body:
    """A conversation of calls, and what came of each."""
    calls = [called(number, "look") for number in range(len(contents))]
    told = [{"role": "tool", "tool_call_id": f"call_{number}", "content": it} for number, it in enumerate(contents)]
    return {**CHAT_TOOLS, **chat(ASK, {"role": "assistant", "content": None, "tool_calls": calls}, *told)}


def item_results(*outputs: Any) -> Body:
    calls = [item(number, "look") for number in range(len(outputs))]
    told = [
        {"type": "function_call_output", "call_id": f"call_{number}", "output": it} for number, it in enumerate(outputs)
    ]
    return {**FLAT_TOOLS, **items(ASK, *calls, *told)}


def block_results(*contents: Any, **more: Any) -> Body:
    calls = [used(number, "look") for number in range(len(contents))]
    told = [
        {"type": "tool_result", "tool_use_id": f"toolu_{number}", "content": it, **more}
        for number, it in enumerate(contents)
    ]
    return {
        **BLOCK_TOOLS,
        **chat(ASK, {"role": "assistant", "content": calls}, {"role": "user", "content": told}),
    }


def part_results(*responses: Body) -> Body:
    calls = [{"functionCall": {"name": "look", "args": {"at": number}}} for number in range(len(responses))]
    told = [{"functionResponse": {"name": "look", **it}} for it in responses]
    return {**DECLARED, **contents(ASKED, {"role": "model", "parts": calls}, {"role": "user", "parts": told})}


def line_results(*messages: Body) -> Body:
    calls = [line_call(number, "look") for number in range(len(messages))]
    told = [{"role": "tool", "tool_name": "look", **it} for it in messages]
    return {**CHAT_TOOLS, **chat(ASK, {"role": "assistant", "content": "", "tool_calls": calls}, *told)}


def everywhere(name: str, value: Any, *formats: str) -> dict[str, Body]:
    """A setting that these formats spell alike, at the top, among ollama's options or in gemini's config."""
    told: dict[str, Body] = {}
    for format in formats:
        if format in (OLLAMA, GENERATE):
            told[format] = options(**{name: value})
        elif format == GEMINI:
            head, *rest = name.split("_")
            told[format] = config(**{head + "".join(map(str.capitalize, rest)): value})
        else:
            told[format] = {name: value}
    return told


# -- how it is found in what was read


def every(request: Request) -> Iterator[Part]:
    """All parts of all messages."""
    for message in request.messages:
        yield from message.parts


def conversation(request: Request) -> object:
    """Who said which words."""
    roles = {"developer": "system"}
    return [(roles.get(it.role, it.role), p.text) for it in request.messages for p in it.parts if isinstance(p, Text)]


def instructions(request: Request) -> object:
    return [
        p.text for it in request.messages if it.role in ("system", "developer") for p in it.parts if isinstance(p, Text)
    ]


def media(*fields: str) -> Callable[[Request], object]:
    """The media of a request, by these fields."""
    return lambda request: [tuple(getattr(it, n) for n in fields) for it in every(request) if isinstance(it, Media)]


def plain_documents(request: Request) -> object:
    """Documents of plain text, which some formats have in base64 as any other."""
    found = [it for it in every(request) if isinstance(it, Media) and it.media_type in (None, "text/plain")]
    return [base64.b64decode(it.data).decode() if it.data else it.text for it in found]


def setting(*names: str) -> Callable[[Request], object]:
    """Fields of the request."""
    if len(names) == 1:
        return lambda request: getattr(request, names[0])
    return lambda request: tuple(getattr(request, name) for name in names)


def own(*names: str) -> Callable[[Request], object]:
    """Members without a word in the IR, by the names they are kept under."""
    return lambda request: {name: json.loads(bytes(request.extra[name])) for name in names if name in request.extra}


def tools(request: Request) -> object:
    return [(it.name, it.description, json.loads(it.schema)) for it in request.tools if it.kind == "function"]


def tools_of(kind: str) -> Callable[[Request], object]:
    return lambda request: [it.name for it in request.tools if it.kind == kind]


def built_in(request: Request) -> object:
    return [it.kind for it in request.tools if it.kind not in ("function", "custom")]


def calls(request: Request) -> object:
    """The caller's calls, and which of them each result answers, told by its place: ids are a format's own."""
    found = [it for it in every(request) if isinstance(it, ToolCall) and not it.server]
    places = {it.id: number for number, it in enumerate(found)}
    answered = [places.get(it.id) for it in every(request) if isinstance(it, ToolResult)]
    spoken = [(it.name, it.arguments if it.kind == "custom" else json.loads(it.arguments)) for it in found]
    return spoken, answered


def results(request: Request) -> object:
    """What the results say: words, images, and whether it went wrong."""
    told = []
    for it in every(request):
        if isinstance(it, ToolResult):
            inner = [str(p.text if isinstance(p, Text) else getattr(p, "data", None)) for p in it.content]
            told.append((sorted(inner), it.is_error))
    return told


def choice(request: Request) -> object:
    it = request.tool_choice
    return None if it is None else (it.mode, it.names, it.required)


def free(request: Request) -> object:
    """Whether the model chooses: that is so where nothing is said, too."""
    return request.tool_choice is None or request.tool_choice.mode == "auto"


def barred(request: Request) -> object:
    """Whether no tool may be called: that is so where there is none, too."""
    return not request.tools or (request.tool_choice is not None and request.tool_choice.mode == "none")


def format_of(request: Request) -> object:
    it = request.response_format
    return None if it is None else (it.kind, None if it.schema is None else json.loads(it.schema))


def format_name(request: Request) -> object:
    return None if request.response_format is None else request.response_format.name


def thinking(name: str) -> Callable[[Request], object]:
    return lambda request: None if request.reasoning is None else getattr(request.reasoning, name)


def thought(*fields: str) -> Callable[[Request], object]:
    return lambda request: [tuple(getattr(it, n) for n in fields) for it in every(request) if isinstance(it, Reasoning)]


def marked(request: Request) -> object:
    """How many parts have a cache mark."""
    return sum(getattr(it, "cache", None) is not None for it in every(request))


def aliens(request: Request) -> object:
    kinds = [it.kind for it in every(request) if isinstance(it, Opaque)]
    return kinds + [it.server for it in every(request) if isinstance(it, ToolCall) and it.server]


def member(name: str) -> Callable[[Request], object]:
    """A member of a part that has no word in the IR."""

    def read(request: Request) -> object:
        holders = [it.extra for it in every(request) if not isinstance(it, Opaque)]
        return [json.loads(bytes(it[name])) for it in holders if name in it]

    return read


TWO_CALLS: Final = [("look", {"at": 0}), ("look", {"at": 1})]
PIXEL_URL: Final = f"data:image/png;base64,{PNG}"
