"""A client's Chat Completions request into the IR.

Every member has a word in the IR or its bytes in an ``extra``. How something was spelled, where the format has several
ways, is remembered by a null in an ``extra``, which loses nothing elsewhere: ``max_tokens`` (not max_completion_tokens),
``safety_identifier`` (not user), ``stop`` (a string), ``functions`` and ``function_call`` (not tools and tool_choice),
``refusal`` (a field, not among the content), ``prompt_cache_breakpoint`` (not cache_control).

Source: ``CompletionCreateParams`` and the message types of OpenAI's SDK 3.52.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.message import (
    NO_EXTRA,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    ReasoningOptions,
    Refusal,
    Request,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from ...wire.members import BAD_JSON, NULL, Members, is_string, string_of
from ..openai_request import read_stop, read_stream_options
from . import typed_request
from .content import read_parts, take_cache
from .members import FORMAT
from .reasoning import REASONING_FIELDS, text_of_details
from .words import LEGACY_CALL, MINTED_ID

_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
AS_FIELD: Final = {"refusal": NULL}
"""Marks a refusal that stood in the message's own field, not among its content."""

_METADATA: Final = msgspec.json.Decoder(dict[str, str])
_FALSE: Final = Raw(b"false")


def decode_request(body: bytes) -> Request:
    """Read a request body. Raises DecodeError with the path of what is wrong."""
    if (common := typed_request.read_request(body)) is not None:
        return common
    it = Members(body, "")
    model = it.need_string("model")
    raws = it.array("messages")
    if raws is None:
        raise DecodeError("messages", "expected an array, but it is missing")
    messages = _Messages()
    for position, raw in enumerate(raws):
        messages.read(raw, f"messages[{position}]")
    stream_usage = read_stream_options(it)
    return Request(
        FORMAT,
        model,
        tuple(messages.done),
        _tools(it),
        _tool_choice(it),
        parallel_tool_calls=it.boolean("parallel_tool_calls"),
        max_output_tokens=_max_tokens(it),
        temperature=it.number("temperature"),
        top_p=it.number("top_p"),
        top_k=it.integer("top_k"),
        stop=read_stop(it),
        seed=it.integer("seed"),
        n=it.integer("n"),
        frequency_penalty=it.number("frequency_penalty"),
        presence_penalty=it.number("presence_penalty"),
        logit_bias=_bytes(it.take("logit_bias")),
        logprobs=it.boolean("logprobs"),
        top_logprobs=it.integer("top_logprobs"),
        response_format=_response_format(it),
        reasoning=_reasoning(it),
        cache=take_cache(it),
        service_tier=it.string("service_tier"),
        verbosity=it.string("verbosity"),
        stream=it.rest.get("stream") != _FALSE and bool(it.boolean("stream")),
        stream_usage=stream_usage,
        user=_user(it),
        metadata=_metadata(it),
        extra=it.extra(),
    )


# Messages


class _Messages:
    """Reads messages in their order; the function calls of the time before tools get ids by it, having none."""

    def __init__(self) -> None:
        self.done: list[Message] = []
        self._legacy = 0

    def read(self, raw: Raw, path: str) -> None:
        if (common := typed_request.read_message(raw)) is not None:
            self.done.append(common)
            return
        it = Members(raw, path)
        word = it.need_string("role")
        role = _ROLES.get(word)
        if role is None:
            raise DecodeError(it.at("role"), f"unknown role {word[:40]!r}")
        if role == "tool":
            self.done.append(self._result(it, word))
            return
        parts: list[Part] = []
        content = it.take("content")
        brief = content is not None and is_string(content)
        if content is not None:
            parts += (Text(string_of(content, it.at("content"))),) if brief else _parts(content, it)
        elif role != "assistant":
            raise DecodeError(it.at("content"), "expected a string or an array of content parts, but it is missing")
        if content is not None and not parts:
            it.rest["content"] = content
        if role == "assistant":
            parts = [*_spoken_reasoning(it), *parts, *self._assistant(it, content, brief)]
        self.done.append(Message(role, tuple(parts), it.string("name"), brief, it.extra()))

    def _assistant(self, it: Members, content: Raw | None, brief: bool) -> list[Part]:
        """What an assistant's message has beside its content."""
        parts: list[Part] = []
        refusal = it.raw("refusal")
        if refusal is not None and (content is None or brief):
            parts.append(Refusal(it.need_string("refusal"), AS_FIELD))
        if (audio := it.object("audio")) is not None:
            id = audio.need_string("id")
            it.adopt("audio", audio)
            parts.append(Media("audio", file_id=id))
        calls = it.array("tool_calls")
        if calls == []:
            it.rest["tool_calls"] = Raw(b"[]")
        for position, raw in enumerate(calls or ()):
            parts.append(_tool_call(Members(raw, it.at(f"tool_calls[{position}]"))))
        if (call := it.object("function_call")) is not None:
            name, arguments = call.need_string("name"), call.string("arguments") or ""
            it.adopt("function_call", call)
            parts.append(ToolCall(f"{LEGACY_CALL}{self._legacy}", name, arguments, extra=MINTED_ID))
            self._legacy += 1
        return parts

    def _result(self, it: Members, word: str) -> Message:
        name, extra = it.string("name"), NO_EXTRA
        if word == "function":
            extra = MINTED_ID
            if name is None:
                raise DecodeError(it.at("name"), "expected a string, but it is missing")
            id = f"{LEGACY_CALL}{max(0, self._legacy - 1)}"
        else:
            id = it.need_string("tool_call_id")
        raw = it.take("content")
        brief = raw is not None and is_string(raw)
        content: tuple[Text | Media | Opaque, ...] = ()
        if raw is not None and brief:
            content = (Text(string_of(raw, it.at("content"))),)
        elif raw is not None:
            content = tuple(_in_result(part) for part in _parts(raw, it))
            if not content:
                it.rest["content"] = raw
        elif word == "tool":
            raise DecodeError(it.at("content"), "expected a string or an array of content parts, but it is missing")
        return Message(
            "tool", (ToolResult(id, content, name=name, extra=extra, brief=brief),), brief=brief, extra=it.extra()
        )


def _parts(raw: Raw, it: Members) -> tuple[Text | Media | Refusal | Opaque, ...]:
    return read_parts(raw, it.at("content"))


def _in_result(part: Text | Media | Refusal | Opaque) -> Text | Media | Opaque:
    if isinstance(part, Refusal):
        return Opaque(FORMAT, "refusal", msgspec.json.encode({"type": "refusal", "refusal": part.text, **part.extra}))
    return part


def _spoken_reasoning(it: Members) -> list[Part]:
    """Reasoning that the client sends back. What is spelled twice is kept beside it under its own name."""
    field = next((name for name in REASONING_FIELDS if it.raw(name) is not None), None)
    details = it.raw("reasoning_details")
    if field is None and details is None:
        return []
    if field is not None:
        text = it.need_string(field)
    else:
        field = "reasoning_details"
        text = text_of_details(it.array(field) or ())
        assert details is not None
        it.rest[field] = details
    beside = {name: it.rest.pop(name) for name in ("reasoning_details", *REASONING_FIELDS) if it.raw(name) is not None}
    return [Reasoning(text, origin=f"{FORMAT}:{field}", extra=beside)]


def _tool_call(it: Members) -> ToolCall:
    id = it.string("id") or ""
    kind = it.string("type")
    if kind == "custom":
        body = _need_object(it, "custom")
        call = ToolCall(id, body.need_string("name"), body.string("input") or "", kind="custom")
        it.adopt("custom", body)
    elif kind in (None, "function"):
        body = _need_object(it, "function")
        call = ToolCall(id, body.need_string("name"), body.string("arguments") or "")
        it.adopt("function", body)
    else:
        raise DecodeError(it.at("type"), f'expected "function" or "custom", got {kind[:40]!r}')
    return msgspec.structs.replace(call, cache=take_cache(it), extra=it.extra())


def _need_object(it: Members, name: str) -> Members:
    value = it.object(name)
    if value is None:
        raise DecodeError(it.at(name), "expected an object, but it is missing")
    return value


# Tools


def _tools(it: Members) -> tuple[Tool, ...]:
    raws = it.array("tools")
    if raws:
        _drop_null(it, "functions")
        return tuple(_tool(raw, f"tools[{i}]") for i, raw in enumerate(raws))
    if raws is not None:
        it.rest["tools"] = Raw(b"[]")
    legacy = it.array("functions")
    if not legacy:
        if legacy is not None:
            it.rest["functions"] = Raw(b"[]")
        return ()
    it.rest["functions"] = NULL
    return tuple(_function(Members(raw, f"functions[{i}]"), "") for i, raw in enumerate(legacy))


def _tool(raw: Raw, path: str) -> Tool:
    it = Members(raw, path)
    kind = it.need_string("type")
    if kind == "function":
        body = _need_object(it, "function")
        tool = _function(body, "function")
        cache = take_cache(it)
        return msgspec.structs.replace(tool, cache=cache, extra={**tool.extra, **it.rest})
    if kind == "custom":
        body = _need_object(it, "custom")
        name, description = body.need_string("name"), body.string("description")
        it.adopt("custom", body)
        return Tool(name, description=description, kind="custom", cache=take_cache(it), extra=it.extra())
    return Tool(_name_of(it, kind), kind=kind, cache=take_cache(it), raw=bytes(raw))


def _name_of(it: Members, kind: str) -> str:
    """The name of a vendor's built-in tool, for logs: Moonshot's stands in ``function``, most have only a type."""
    for holder in (it.raw("function"), Raw(msgspec.json.encode(it.rest))):
        if holder is not None and bytes(holder).startswith(b"{"):
            name = Members(holder, it.path).raw("name")
            if name is not None and is_string(name):
                return string_of(name, it.path)
    return kind


def _function(it: Members, prefix: str) -> Tool:
    name, description, strict = it.need_string("name"), it.string("description"), it.boolean("strict")
    schema = it.take("parameters")
    if schema is not None and not bytes(schema).startswith(b"{"):
        raise DecodeError(it.at("parameters"), "expected an object")
    extra = {f"{prefix}.{key}" if prefix else key: raw for key, raw in it.rest.items()}
    return Tool(name, _bytes(schema) or b"", description, strict=strict, extra=extra)


def _tool_choice(it: Members) -> ToolChoice | None:
    raw = it.take("tool_choice")
    if raw is not None:
        _drop_null(it, "function_call")
        return _choice(raw, it)
    raw = it.take("function_call")
    if raw is None:
        return None
    it.rest["function_call"] = NULL
    if is_string(raw):
        return _named_mode(raw, "function_call")
    choice = Members(raw, "function_call")
    return ToolChoice("tool", (choice.need_string("name"),), extra=choice.extra())


def _choice(raw: Raw, outer: Members) -> ToolChoice | None:
    if is_string(raw):
        return _named_mode(raw, "tool_choice")
    it = Members(raw, "tool_choice")
    kind = it.need_string("type")
    if kind == "function":
        body = _need_object(it, "function")
        name = body.need_string("name")
        it.adopt("function", body)
        return ToolChoice("tool", (name,), extra=it.extra())
    if kind == "custom":
        body = _need_object(it, "custom")
        name = body.need_string("name")
        it.adopt("custom", body)
        return ToolChoice("tool", (name,), "custom", extra=it.extra())
    if kind == "allowed_tools":
        return _allowed(it)
    outer.rest["tool_choice"] = raw
    return None


def _named_mode(raw: Raw, path: str) -> ToolChoice:
    word = string_of(raw, path)
    if word == "none":
        return ToolChoice("none")
    if word == "auto":
        return ToolChoice("auto")
    if word in ("required", "any"):
        # Mistral says any; both force a call.
        return ToolChoice("required", extra={} if word == "required" else {"any": NULL})
    raise DecodeError(path, f'expected "none", "auto", "required" or an object, got {word[:40]!r}')


def _allowed(it: Members) -> ToolChoice:
    body = _need_object(it, "allowed_tools")
    mode = body.need_string("mode")
    if mode not in ("auto", "required"):
        raise DecodeError(body.at("mode"), f'expected "auto" or "required", got {mode[:40]!r}')
    raw = body.raw("tools")
    names: list[str] = []
    kinds: set[str] = set()
    plain = True
    for position, entry in enumerate(body.array("tools") or ()):
        tool = Members(entry, body.at(f"tools[{position}]"))
        kind = tool.need_string("type")
        named = tool.object(kind)
        plain = plain and named is not None and len(named.rest) == 1 and not tool.rest
        kinds.add(kind)
        names.append(kind if named is None else named.need_string("name"))
    if raw is not None and (not plain or kinds - {"function"}):
        body.rest["tools"] = raw
    it.adopt("allowed_tools", body)
    return ToolChoice("allowed", tuple(names), required=mode == "required", extra=it.extra())


# Settings


def _max_tokens(it: Members) -> int | None:
    newer = it.integer("max_completion_tokens")
    if newer is not None:
        _drop_null(it, "max_tokens")
        return newer
    older = it.integer("max_tokens")
    if older is not None:
        it.rest["max_tokens"] = NULL
    return older


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


def _response_format(it: Members) -> ResponseFormat | None:
    raw = it.raw("response_format")
    spec = it.object("response_format")
    if spec is None:
        return None
    kind = spec.need_string("type")
    if kind == "text":
        return ResponseFormat("text", extra=spec.extra())
    if kind == "json_object":
        return ResponseFormat("json_object", extra=spec.extra())
    if kind != "json_schema":
        assert raw is not None
        it.rest["response_format"] = raw
        return None
    body = _need_object(spec, "json_schema")
    name, schema = body.string("name"), _bytes(body.take("schema"))
    description, strict = body.string("description"), body.boolean("strict")
    spec.adopt("json_schema", body)
    return ResponseFormat("json_schema", name, schema, description, strict, spec.extra())


def _reasoning(it: Members) -> ReasoningOptions | None:
    effort = it.string("reasoning_effort")
    if effort is None:
        return None
    return ReasoningOptions("disabled" if effort == "none" else None, effort)


def _drop_null(it: Members, name: str) -> None:
    """Forget an older spelling that is there as a null beside the newer one: here it would say which was used."""
    if it.rest.get(name) == NULL:
        del it.rest[name]


def _bytes(raw: Raw | None) -> bytes | None:
    return None if raw is None else bytes(raw)
