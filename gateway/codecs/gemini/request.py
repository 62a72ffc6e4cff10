"""A caller's generateContent request into the IR.

Every member has either a word in the IR or its bytes in an ``extra``; what is left of ``generationConfig`` and ``toolConfig``
stands there under dotted names. ``systemInstruction`` becomes the first message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from ...errors import DecodeError
from ...ir.message import (
    Message,
    Part,
    ReasoningOptions,
    Request,
    ResponseFormat,
    Role,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from ...wire.members import BAD_JSON, NULL
from ..base import RequestFacts
from .members import FORMAT, ID, Fields, is_object
from .parts import NAMELESS, read_part
from .paths import read_path
from .schema import to_json_schema

_ROLES: Final[dict[str, Role]] = {"user": "user", "model": "assistant", "function": "user"}
_PLAIN_ROLES: Final = frozenset({"user", "model"})
JOINED: Final = "tools"
"""With the value null in a tool's ``extra``: it does not stand where a neighbour of its kind would by itself. A function
begins an object of its own, a built-in tool shares the object before it."""
JSON: Final = "application/json"


def decode_request(body: bytes, facts: RequestFacts) -> Request:
    """Read a request body, whose model and method are in the path. Raises DecodeError with the path of what is wrong."""
    it = Fields(body, "")
    target = read_path(facts.path)
    if target is None:
        # Without a path, as a request is handed over inside a program: the body names the model.
        model, stream = it.need_string("model"), bool(it.boolean("stream"))
    else:
        model, stream = target
    messages: list[Message] = []
    ids = _Ids()
    if (system := it.object("systemInstruction")) is not None:
        messages.append(_content(system, ids, "system"))
    raws = it.array("contents")
    if raws is None:
        raise DecodeError("contents", "expected an array, but it is missing")
    for i, raw in enumerate(raws):
        messages.append(_content(Fields(raw, f"contents[{i}]"), ids, None))
    tools = _tools(it)
    tool_choice = _tool_choice(it)
    settings = _settings(it)
    return Request(
        FORMAT,
        model,
        tuple(messages),
        tools,
        tool_choice,
        service_tier=it.string("serviceTier"),
        stream=stream,
        # Every stream of this format tells its usage: another format's provider must be asked for it.
        stream_usage=stream or None,
        metadata=_labels(it),
        **settings,
        extra=it.extra(),
    )


class _Ids:
    """Finds the call of each result. Ids are optional here: without them results are told by name and order."""

    def __init__(self) -> None:
        self._open: list[ToolCall] = []
        self._made = 0

    def call(self, part: ToolCall) -> ToolCall:
        """Return the call with an id."""
        if not part.id:
            part = replace(part, id=self._make(), extra={**part.extra, ID: NULL})
        self._open.append(part)
        return part

    def result(self, part: ToolResult) -> ToolResult:
        """Return the result with the id of its call."""
        same = next((call for call in self._open if part.id and call.id == part.id), None)
        if same is None:
            # An id that no call has may be the caller's own, for a call that came without.
            same = next((c for c in self._open if c.name == part.name and (not part.id or ID in c.extra)), None)
        if same is not None:
            self._open.remove(same)
            if part.name is None:
                part = replace(part, extra={**part.extra, NAMELESS: NULL})
            elif part.name == same.name:
                part = replace(part, name=None)  # which its call says, too: other formats have no room for it
        id = part.id if same is None else same.id
        if id and id == part.id:
            return part
        given = Raw(msgspec.json.encode(part.id)) if part.id else NULL
        return replace(part, id=id or self._make(), extra={**part.extra, ID: given})

    def _make(self) -> str:
        self._made += 1
        return f"call_{self._made - 1}"


def _content(it: Fields, ids: _Ids, role: Role | None) -> Message:
    if role is None:
        word = it.string("role")
        if word is None:
            it.rest["role"], word = NULL, "user"
        elif word not in _PLAIN_ROLES:
            it.rest["role"] = Raw(msgspec.json.encode(word))
        role = _ROLES.get(word)
        if role is None:
            raise DecodeError(it.at("role"), f'expected "user" or "model", got "{word[:40]}"')
    raws = it.array("parts")
    parts: list[Part] = []
    for j, raw in enumerate(raws or ()):
        part = read_part(raw, f"{it.at('parts')}[{j}]")
        if isinstance(part, ToolCall):
            part = ids.call(part)
        elif isinstance(part, ToolResult):
            part = ids.result(part)
        parts.append(part)
    if bytes(it.rest.get("role", b"")) == b'"function"' and all(isinstance(part, ToolResult) for part in parts):
        del it.rest["role"]
        role = "tool"
    return Message(role, tuple(parts), brief=raws is None, extra=it.extra())


# Tools


def _tools(it: Fields) -> tuple[Tool, ...]:
    raws = it.array("tools")
    if raws == []:
        it.rest["tools"] = Raw(b"[]")
    tools: list[Tool] = []
    for i, raw in enumerate(raws or ()):
        tools += _tool_object(raw, f"tools[{i}]", tools[-1] if tools else None)
    return tuple(tools)


def _tool_object(raw: Raw, path: str, before: Tool | None) -> Sequence[Tool]:
    """The tools of one object: its functions, then each of its other members as a built-in tool."""
    it = Fields(raw, path)
    functions = it.array("functionDeclarations")
    if not functions and len(it.rest) < 2:
        return (Tool("", kind=next(iter(it.rest), "tool"), raw=bytes(raw)),)
    found = [_function(f, f"{it.at('functionDeclarations')}[{j}]") for j, f in enumerate(functions or ())]
    if found and before is not None and (before.kind == "function" or JOINED in before.extra):
        found[0] = replace(found[0], extra={**found[0].extra, JOINED: NULL})
    for name, inner in it.rest.items():
        joined = {JOINED: NULL} if found else {}
        found.append(Tool("", kind=name, raw=msgspec.json.encode({name: inner}), extra=joined))
    return found


def _function(raw: Raw, path: str) -> Tool:
    it = Fields(raw, path)
    name, description = it.need_string("name"), it.string("description")
    schema = b""
    if (whole := it.take("parametersJsonSchema")) is not None:
        schema = bytes(whole)
    elif (own := it.take("parameters")) is not None:
        if not is_object(own):
            raise DecodeError(it.at("parameters"), "expected an object")
        schema, it.rest["parameters"] = to_json_schema(own)
    return Tool(name, schema, description, extra=it.extra())


def _tool_choice(it: Fields) -> ToolChoice | None:
    raw = it.raw("toolConfig")
    config = it.object("toolConfig")
    if config is None:
        return None
    calling = config.raw("functionCallingConfig")
    choice = None if calling is None else _calling(Fields(calling, config.at("functionCallingConfig")))
    if choice is not None:
        config.take("functionCallingConfig")
    it.adopt("toolConfig", config)
    if choice is None and not config.rest:
        assert raw is not None
        it.rest["toolConfig"] = raw
    return choice


def _calling(it: Fields) -> ToolChoice | None:
    """The choice of a functionCallingConfig; None for one that has no word here, which is kept whole."""
    mode, listed = it.string("mode") or "", it.raw("allowedFunctionNames")
    names = tuple(it.strings("allowedFunctionNames") or ())
    choice: ToolChoice
    if mode and mode == mode.lower():
        it.rest["mode"] = NULL  # Google reads words of a list in small letters, too
    match mode.upper():
        case "ANY" if len(names) == 1:
            choice = ToolChoice("tool", names)
        case "ANY" if names:
            choice = ToolChoice("allowed", names, required=True)
        case "ANY":
            choice = ToolChoice("required")
        case "VALIDATED":
            it.rest["mode"] = Raw(b'"%b"' % mode.encode())
            choice = ToolChoice("allowed", names) if names else ToolChoice("auto")
        case "AUTO" if not names:
            choice = ToolChoice("auto")
        case "NONE" if not names:
            choice = ToolChoice("none")
        case _:
            return None
    if listed is not None and not names:
        it.rest["allowedFunctionNames"] = listed
    return replace(choice, extra=it.extra())


# Settings


def _settings(it: Fields) -> dict[str, Any]:
    """What ``generationConfig`` says, as fields of Request."""
    raw = it.raw("generationConfig")
    config = it.object("generationConfig")
    if config is None:
        return {}
    if not config.rest:
        assert raw is not None
        it.rest["generationConfig"] = raw
    listed = config.raw("stopSequences")
    stop = tuple(config.strings("stopSequences") or ())
    if listed is not None and not stop:
        config.rest["stopSequences"] = listed
    found = {
        "max_output_tokens": config.integer("maxOutputTokens"),
        "temperature": config.number("temperature"),
        "top_p": config.number("topP"),
        "top_k": config.integer("topK"),
        "stop": stop,
        "seed": config.integer("seed"),
        "n": config.integer("candidateCount"),
        "frequency_penalty": config.number("frequencyPenalty"),
        "presence_penalty": config.number("presencePenalty"),
        "logprobs": config.boolean("responseLogprobs"),
        "top_logprobs": config.integer("logprobs"),
        "response_format": _response_format(config),
        "reasoning": _reasoning(config),
    }
    it.adopt("generationConfig", config)
    return found


def _response_format(config: Fields) -> ResponseFormat | None:
    spelled = config.raw("responseMimeType")
    word = config.string("responseMimeType")
    if word == "text/plain":
        return ResponseFormat("text")
    if word != JSON:
        # An enum, or a schema that stands there alone: as it came.
        if spelled is not None:
            config.rest["responseMimeType"] = spelled
        return None
    if (schema := config.take("responseJsonSchema")) is not None:
        return ResponseFormat("json_schema", schema=bytes(schema))
    if (own := config.raw("responseSchema")) is not None and is_object(own):
        config.take("responseSchema")
        converted, mark = to_json_schema(own)
        return ResponseFormat("json_schema", schema=converted, extra={"responseSchema": mark})
    return ResponseFormat("json_object")


def _reasoning(config: Fields) -> ReasoningOptions | None:
    raw = config.raw("thinkingConfig")
    thinking = config.object("thinkingConfig")
    if thinking is None:
        return None
    if not thinking.rest:
        assert raw is not None
        config.rest["thinkingConfig"] = raw
        return None
    shown = thinking.raw("includeThoughts")
    if thinking.boolean("includeThoughts") is False and shown is not None:
        thinking.rest["includeThoughts"] = shown
    summary = "auto" if shown is not None and bytes(shown) == b"true" else None
    level = thinking.string("thinkingLevel")
    if level is not None and level != level.upper():
        thinking.rest["thinkingLevel"] = NULL
    budget = thinking.integer("thinkingBudget")
    mode = None if budget is None else "disabled" if budget == 0 else "adaptive" if budget < 0 else "enabled"
    return ReasoningOptions(
        mode,
        None if level is None else level.lower(),
        budget if budget is not None and budget > 0 else None,
        summary,
        thinking.extra(),
    )


def _labels(it: Fields) -> dict[str, str] | None:
    raw = it.take("labels")
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=dict[str, str])
    except BAD_JSON as error:
        raise DecodeError("labels", "expected an object of strings") from error
