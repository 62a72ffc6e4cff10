"""A caller's Messages request into the IR.

Every member has either a word in the IR or its bytes in an ``extra``; what stands for a default (``null``, ``is_error:
false``) is kept there too, so that the same request comes out again. ``system`` becomes the first message.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.message import (
    NO_EXTRA,
    Message,
    ReasoningOptions,
    Request,
    ResponseFormat,
    Role,
    Tool,
    ToolChoice,
)
from . import typed_request
from .blocks import read_content, take_cache
from .members import FORMAT, NULL, Members, is_object, says
from .typed_request import SPELLED_OUT

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_CHOICES: dict[str, ToolChoice] = {
    "auto": ToolChoice("auto"),
    "any": ToolChoice("required"),
    "none": ToolChoice("none"),
}
_SUMMARIZED = b'"summarized"'
"""A ``display`` that other formats have a word for. They have none for ``omitted``, which hides thinking that is there."""
IN_PLACE = Raw(b'"system"')
"""Marks, as its extra member ``role``, a first message that was no ``system`` parameter but stood in ``messages``."""


def decode_request(body: bytes) -> Request:
    """Read a request body. Raises DecodeError with the path of what is wrong."""
    if (common := typed_request.read_request(body)) is not None:
        return common
    it = Members(body, "")
    model = it.need_string("model")
    system = it.take("system")
    messages: list[Message] = []
    if system is not None:
        parts, brief = read_content(system, "system")
        messages.append(Message("system", parts, brief=brief))
    raws = it.take_array("messages")
    if raws is None:
        raise DecodeError("messages", "expected an array, but it is missing")
    for i, raw in enumerate(raws):
        messages.append(_message(raw, f"messages[{i}]", first=not messages))
    tools = tuple(_tool(raw, f"tools[{i}]") for i, raw in enumerate(_filled_array(it, "tools")))
    tool_choice, parallel = _tool_choice(it)
    reasoning, response_format = _output(it)
    stream = _stream(it)
    return Request(
        FORMAT,
        model,
        tuple(messages),
        tools,
        tool_choice,
        parallel,
        max_output_tokens=it.take_integer("max_tokens"),
        temperature=it.take_number("temperature"),
        top_p=it.take_number("top_p"),
        top_k=it.take_integer("top_k"),
        stop=_stop(it),
        response_format=response_format,
        reasoning=reasoning,
        cache=take_cache(it),
        service_tier=it.take_string("service_tier"),
        stream=stream,
        # Every stream of this format tells its usage: another format's provider must be asked for it.
        stream_usage=stream or None,
        user=_user(it),
        extra=it.extra(),
    )


def _message(raw: Raw, path: str, *, first: bool) -> Message:
    if (common := typed_request.read_message(raw)) is not None:
        return common
    it = Members(raw, path)
    word = it.need_string("role")
    role = _ROLES.get(word)
    if role is None:
        raise DecodeError(it.at("role"), f'expected "user", "assistant" or "system", got "{word[:40]}"')
    content = it.take("content")
    if content is None:
        if role != "system":
            raise DecodeError(it.at("content"), "expected a string or an array of blocks, but it is missing")
        # A beta system message may carry settings alone.
        return Message(role, brief=True, extra=it.extra())
    parts, brief = read_content(content, it.at("content"))
    if first and role == "system":
        it.rest["role"] = IN_PLACE
    return Message(role, parts, brief=brief, extra=it.extra())


def _tool(raw: Raw, path: str) -> Tool:
    it = Members(raw, path)
    word = it.take_string("type")
    if word is not None and word != "custom":
        return Tool(it.take_string("name") or "", kind=word, cache=take_cache(it), raw=bytes(raw))
    if word is not None:
        it.rest["type"] = SPELLED_OUT
    name = it.need_string("name")
    schema = it.take("input_schema")
    if schema is None or not is_object(schema):
        raise DecodeError(it.at("input_schema"), "expected an object")
    return Tool(
        name,
        bytes(schema),
        it.take_string("description"),
        strict=it.take_boolean("strict"),
        cache=take_cache(it),
        extra=it.extra(),
    )


def _tool_choice(it: Members) -> tuple[ToolChoice | None, bool | None]:
    raw = it.rest.get("tool_choice")
    choice = it.take_object("tool_choice")
    if choice is None:
        return None, None
    word = choice.need_string("type")
    disable = choice.take_boolean("disable_parallel_tool_use")
    parallel = None if disable is None else not disable
    if word == "tool":
        names = (choice.need_string("name"),)
        return ToolChoice("tool", names, extra=choice.extra()), parallel
    known = _CHOICES.get(word)
    if known is None:
        assert raw is not None
        it.rest["tool_choice"] = raw
        return None, None
    return msgspec.structs.replace(known, extra=choice.extra()) if choice.rest else known, parallel


def _output(it: Members) -> tuple[ReasoningOptions | None, ResponseFormat | None]:
    """``thinking`` and ``output_config`` with its older spelling ``output_format``.

    That spelling is remembered as an extra member ``output_format: null``.
    """
    mode = budget = effort = summary = response_format = None
    extra = NO_EXTRA
    if (thinking := it.take_object("thinking")) is not None:
        mode = thinking.need_string("type")
        budget = thinking.take_integer("budget_tokens")
        if bytes(thinking.rest.get("display", b"")) == _SUMMARIZED:
            del thinking.rest["display"]
            summary = "auto"
        extra = thinking.extra()
    raw = it.rest.get("output_config")
    if (config := it.take_object("output_config")) is not None:
        assert raw is not None
        effort = config.take_string("effort")
        response_format = _format(config, "format")
        if config.rest or (effort is None and response_format is None):
            it.rest["output_config"] = Raw(msgspec.json.encode(config.rest))
    if response_format is None and (response_format := _format(it, "output_format")) is not None:
        it.rest["output_format"] = Raw(NULL)
    if mode is None and effort is None:
        return None, response_format
    return ReasoningOptions(mode, effort, budget, summary, extra=extra), response_format


def _format(it: Members, name: str) -> ResponseFormat | None:
    raw = it.rest.get(name)
    spec = it.take_object(name)
    if spec is None:
        return None
    if spec.need_string("type") != "json_schema":
        assert raw is not None
        it.rest[name] = raw
        return None
    schema = spec.take("schema")
    if schema is None:
        raise DecodeError(spec.at("schema"), "expected an object, but it is missing")
    return ResponseFormat("json_schema", schema=bytes(schema), extra=spec.extra())


def _stream(it: Members) -> bool:
    return says(it.rest.get("stream"), b"false") and bool(it.take_boolean("stream"))


def _user(it: Members) -> str | None:
    metadata = it.take_object("metadata")
    if metadata is None:
        return None
    user = metadata.take_string("user_id")
    if metadata.rest or user is None:
        it.rest["metadata"] = Raw(msgspec.json.encode(metadata.rest))
    return user


def _stop(it: Members) -> tuple[str, ...]:
    return (it.take_strings("stop_sequences") or ()) if says(it.rest.get("stop_sequences"), b"[]") else ()


def _filled_array(it: Members, name: str) -> Sequence[Raw]:
    """An array; one that is empty stays behind, since the caller spelled it."""
    return (it.take_array(name) or ()) if says(it.rest.get(name), b"[]") else ()
