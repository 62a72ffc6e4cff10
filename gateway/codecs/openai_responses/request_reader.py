"""A client's Responses request into the IR.

Every member has a word in the IR or its bytes in an ``extra``; state (``previous_response_id``, ``conversation``,
``store``) is among the latter. ``instructions`` become the first message. How something was spelled, where the format has
several ways, is remembered by a null: ``input`` (a plain string), ``safety_identifier`` (not user).

Source: ``ResponseCreateParams`` and the item types of OpenAI's SDK 3.52.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.message import Message, ReasoningOptions, Request, ResponseFormat, Text, Tool, ToolChoice
from ...wire.members import BAD_JSON, NULL, Members, encode_json, is_string, string_of
from .item_reader import read_input
from .members import FORMAT

INSTRUCTIONS: Final = "kept.instructions"
"""Marks the message that was the member ``instructions``."""
AT: Final = "kept.input."
"""With a number: an item that is told elsewhere in the IR, and where it stands in ``input``."""
HOISTED: Final = "kept.hoisted"
"""Marks a tool that stands in such an item, with its path there."""

_METADATA: Final = msgspec.json.Decoder(dict[str, str])
_STRINGS: Final = msgspec.json.Decoder(list[str])
_FALSE: Final = Raw(b"false")
_LOGPROBS: Final = "message.output_text.logprobs"
_TOLD_ANYWAY: Final = frozenset({"reasoning.encrypted_content", _LOGPROBS})
"""What ``include`` may ask for that other formats give by themselves, or that has a word in the IR."""


def decode_request(body: bytes) -> Request:
    """Read a request body. Raises DecodeError with the path of what is wrong."""
    it = Members(body, "")
    model = it.need_string("model")
    messages: list[Message] = []
    instructions = it.take("instructions")
    if instructions is not None:
        if not is_string(instructions):
            raise DecodeError("instructions", "expected a string")
        text = Text(string_of(instructions, "instructions"))
        messages.append(Message("system", (text,), brief=True, extra={INSTRUCTIONS: NULL}))
    tools = _tools(it)
    messages += _input(it, tools)
    format, verbosity = _text(it)
    tool_choice = _tool_choice(it)
    top_logprobs, logprobs = it.integer("top_logprobs"), _include(it)
    if top_logprobs and logprobs is None:
        logprobs = True
    elif top_logprobs == 0 and logprobs is None:
        # Nobody asked for any, and of none there are no alternatives.
        it.rest["kept.top_logprobs"], top_logprobs = Raw(b"0"), None
    stream = it.rest.get("stream") != _FALSE and bool(it.boolean("stream"))
    return Request(
        FORMAT,
        model,
        tuple(messages),
        tuple(tools),
        tool_choice,
        parallel_tool_calls=it.boolean("parallel_tool_calls"),
        max_output_tokens=it.integer("max_output_tokens"),
        temperature=it.number("temperature"),
        top_p=it.number("top_p"),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        response_format=format,
        reasoning=_reasoning(it),
        service_tier=it.string("service_tier"),
        verbosity=verbosity,
        stream=stream,
        # Streams of this format always tell their usage.
        stream_usage=stream or None,
        user=_user(it),
        metadata=_metadata(it),
        extra=it.extra(),
    )


def _input(it: Members, tools: list[Tool]) -> tuple[Message, ...]:
    raw = it.take("input")
    if raw is None:
        # A stored prompt, or a response before this one, may say all there is.
        return ()
    if is_string(raw):
        it.rest["input"] = NULL
        return (Message("user", (Text(string_of(raw, "input")),), brief=True),)

    def hoist(item: Members, position: int, whole: Raw) -> None:
        for i, tool in enumerate(item.array("tools") or ()):
            path = item.at(f"tools[{i}]")
            found = _tool(tool, path)
            tools.append(msgspec.structs.replace(found, extra={**found.extra, HOISTED: Raw(encode_json(path))}))
        it.rest[f"{AT}{position}"] = whole

    if not bytes(raw).startswith(b"["):
        raise DecodeError("input", "expected a string or an array of items")
    it.rest["input"] = raw
    raws = it.array("input") or []
    messages = read_input(raws, hoist)
    if not raws:
        it.rest["input"] = raw
    return messages


# Tools


def _tools(it: Members) -> list[Tool]:
    raws = it.array("tools")
    if raws == []:
        it.rest["tools"] = Raw(b"[]")
    return [_tool(raw, f"tools[{i}]") for i, raw in enumerate(raws or ())]


def _tool(raw: Raw, path: str) -> Tool:
    it = Members(raw, path)
    kind = it.need_string("type")
    if kind == "function":
        name, description, strict = it.need_string("name"), it.string("description"), it.boolean("strict")
        schema = it.take("parameters")
        if schema is not None and not bytes(schema).startswith(b"{"):
            raise DecodeError(it.at("parameters"), "expected an object")
        return Tool(name, b"" if schema is None else bytes(schema), description, strict=strict, extra=it.extra())
    if kind == "custom":
        return Tool(it.need_string("name"), description=it.string("description"), kind="custom", extra=it.extra())
    label = it.raw("name") or it.raw("server_label")
    named = string_of(label, path) if label is not None and is_string(label) else kind
    return Tool(named, kind=kind, raw=bytes(raw))


def _tool_choice(outer: Members) -> ToolChoice | None:
    raw = outer.take("tool_choice")
    if raw is None:
        return None
    if is_string(raw):
        word = string_of(raw, "tool_choice")
        if word in ("none", "auto", "required"):
            return ToolChoice("none" if word == "none" else "auto" if word == "auto" else "required")
        raise DecodeError("tool_choice", f'expected "none", "auto", "required" or an object, got {word[:40]!r}')
    it = Members(raw, "tool_choice")
    kind = it.need_string("type")
    if kind == "function":
        return ToolChoice("tool", (it.need_string("name"),), extra=it.extra())
    if kind == "custom":
        return ToolChoice("tool", (it.need_string("name"),), "custom", extra=it.extra())
    if kind == "allowed_tools":
        return _allowed(it)
    outer.rest["tool_choice"] = raw
    return None


def _allowed(it: Members) -> ToolChoice:
    mode = it.need_string("mode")
    if mode not in ("auto", "required"):
        raise DecodeError(it.at("mode"), f'expected "auto" or "required", got {mode[:40]!r}')
    raw, names, plain = it.raw("tools"), [], True
    for position, entry in enumerate(it.array("tools") or ()):
        tool = Members(entry, it.at(f"tools[{position}]"))
        kind, name = tool.string("type"), tool.string("name")
        plain = plain and kind == "function" and name is not None and not tool.rest
        names.append(name or kind or "")
    if raw is not None and not plain:
        it.rest["kept.tools"] = raw
    return ToolChoice("allowed", tuple(names), required=mode == "required", extra=it.extra())


# Settings


def _text(it: Members) -> tuple[ResponseFormat | None, str | None]:
    raw = it.raw("text")
    text = it.object("text")
    if text is None:
        return None, None
    format, verbosity = _format(text), text.string("verbosity")
    if format is None and verbosity is None and raw is not None:
        it.rest[_named("text", text)] = raw
    else:
        it.adopt("text", text)
    return format, verbosity


def _named(name: str, it: Members) -> str:
    """The name under which an object is kept whose members have no word here: it may say nothing at all."""
    return name if any(member != NULL for member in it.rest.values()) else f"kept.{name}"


def _format(text: Members) -> ResponseFormat | None:
    raw = text.raw("format")
    spec = text.object("format")
    if spec is None:
        return None
    kind = spec.need_string("type")
    if kind == "text":
        return ResponseFormat("text", extra=spec.extra())
    if kind == "json_object":
        return ResponseFormat("json_object", extra=spec.extra())
    if kind != "json_schema":
        assert raw is not None
        text.rest["format"] = raw
        return None
    name, schema = spec.string("name"), spec.take("schema")
    description, strict = spec.string("description"), spec.boolean("strict")
    data = None if schema is None else bytes(schema)
    return ResponseFormat("json_schema", name, data, description, strict, spec.extra())


def _reasoning(it: Members) -> ReasoningOptions | None:
    raw = it.raw("reasoning")
    wanted = it.object("reasoning")
    if wanted is None:
        return None
    effort, summary = wanted.string("effort"), wanted.string("summary")
    if effort is None and summary is None and raw is not None:
        it.rest[_named("reasoning", wanted)] = raw
        return None
    return ReasoningOptions("disabled" if effort == "none" else None, effort, summary=summary, extra=wanted.extra())


def _include(it: Members) -> bool | None:
    """Whether log probabilities are asked for."""
    raw = it.take("include")
    if raw is None:
        return None
    try:
        asked = _STRINGS.decode(raw)
    except BAD_JSON as error:
        raise DecodeError("include", "expected an array of strings") from error
    it.rest["kept.include" if _TOLD_ANYWAY.issuperset(asked) else "include"] = raw
    return True if _LOGPROBS in asked else None


def _user(it: Members) -> str | None:
    user = it.string("user")
    if user is None and (user := it.string("safety_identifier")) is not None:
        it.rest["safety_identifier"] = NULL
    return user


def _metadata(it: Members) -> Mapping[str, str] | None:
    raw = it.take("metadata")
    if raw is None:
        return None
    if not bytes(raw).startswith(b"{"):
        raise DecodeError("metadata", "expected an object")
    try:
        found = _METADATA.decode(raw)
    except BAD_JSON:
        # Proxies that speak this format take more than strings here; it means something to them alone.
        found = {}
    if not found:
        it.rest["metadata"] = raw
        return None
    return found
