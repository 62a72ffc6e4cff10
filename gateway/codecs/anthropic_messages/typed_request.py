"""The short way into the IR for the common request: one decoding into Structs that forbid what they do not know.

It refuses (None) whatever is not plainly one of these shapes, null members and faults included; ``request`` is right about
everything, and what both can read they read alike.
"""

from __future__ import annotations

from typing import Final, Literal, final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ...ir.message import (
    NO_EXTRA,
    CacheMark,
    Extra,
    Media,
    Message,
    Part,
    Reasoning,
    ReasoningOptions,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from .members import BAD_JSON, FORMAT, NULL

SPELLED_OUT: Final = Raw(NULL)
"""Stands in a tool's extra for ``type: custom``, which says no more than no type at all: no other format misses it."""

_FALSE: Final = Raw(b"false")
_EPHEMERAL: Final = Raw(b'"ephemeral"')
_NOT_STREAMED: Final[Extra] = {"stream": _FALSE}
_NO_ERROR: Final[Extra] = {"is_error": _FALSE}
_CUSTOM: Final[Extra] = {"type": SPELLED_OUT}
_CHOICES: Final[dict[str, ToolChoice]] = {
    "auto": ToolChoice("auto"),
    "any": ToolChoice("required"),
    "none": ToolChoice("none"),
}


class _Strict(Struct, forbid_unknown_fields=True, gc=False):
    """What all of these have in common."""


class _Cache(_Strict):
    type: Raw
    ttl: str | UnsetType = UNSET


@final
class _Text(_Strict, tag="text"):
    text: str
    cache_control: _Cache | UnsetType = UNSET


class _Thinking(_Strict, tag="thinking"):
    thinking: str
    signature: str


class _ToolUse(_Strict, tag="tool_use"):
    id: str
    name: str
    input: Raw
    cache_control: _Cache | UnsetType = UNSET


class _Source(_Strict):
    type: Literal["base64"]
    media_type: str
    data: str


class _Image(_Strict, tag="image"):
    source: _Source
    cache_control: _Cache | UnsetType = UNSET


class _ToolResult(_Strict, tag="tool_result"):
    tool_use_id: str
    content: str | list[_Text | _Image] | UnsetType = UNSET
    is_error: bool | UnsetType = UNSET
    cache_control: _Cache | UnsetType = UNSET


_Block = _Text | _Thinking | _ToolUse | _Image | _ToolResult


class _Message(_Strict):
    role: Literal["user", "assistant"]
    content: str | list[_Block]


class _Tool(_Strict):
    name: str
    input_schema: Raw
    description: str | UnsetType = UNSET
    type: Literal["custom"] | UnsetType = UNSET
    strict: bool | UnsetType = UNSET
    cache_control: _Cache | UnsetType = UNSET


class _Choice(_Strict):
    type: Literal["auto", "any", "none", "tool"]
    name: str | UnsetType = UNSET
    disable_parallel_tool_use: bool | UnsetType = UNSET


class _Mode(_Strict):
    type: str
    budget_tokens: int | UnsetType = UNSET


class _Metadata(_Strict):
    user_id: str


class _Body(_Strict):
    model: str
    messages: list[_Message]
    max_tokens: int | UnsetType = UNSET
    system: str | list[_Text] | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    stop_sequences: list[str] | UnsetType = UNSET
    tools: list[_Tool] | UnsetType = UNSET
    tool_choice: _Choice | UnsetType = UNSET
    thinking: _Mode | UnsetType = UNSET
    metadata: _Metadata | UnsetType = UNSET


_BODY: Final = msgspec.json.Decoder(_Body)
_MESSAGE: Final = msgspec.json.Decoder(_Message)


class _Refused(Exception):
    """A value that fits the Structs and is read otherwise all the same."""


def read_request(body: bytes) -> Request | None:
    """Return the request if it is a common one."""
    try:
        return _request(_BODY.decode(body))
    except (*BAD_JSON, _Refused):
        return None


def read_message(raw: Raw) -> Message | None:
    """Return one message of a request that is not common, if the message is."""
    try:
        return _message(_MESSAGE.decode(raw))
    except (*BAD_JSON, _Refused):
        return None


def _request(it: _Body) -> Request:
    messages = [_message(message) for message in it.messages]
    if isinstance(it.system, str):
        messages.insert(0, Message("system", (Text(it.system),), brief=True))
    elif it.system is not UNSET:
        messages.insert(0, Message("system", tuple([_text(part) for part in it.system])))
    tools: tuple[Tool, ...] = ()
    if it.tools is not UNSET:
        if not it.tools:
            raise _Refused
        tools = tuple([_tool(tool) for tool in it.tools])
    choice: ToolChoice | None = None
    parallel: bool | None = None
    if it.tool_choice is not UNSET:
        choice = _choice(it.tool_choice)
        disable = it.tool_choice.disable_parallel_tool_use
        parallel = None if disable is UNSET else not disable
    stop: tuple[str, ...] = ()
    if it.stop_sequences is not UNSET:
        if not it.stop_sequences:
            raise _Refused
        stop = tuple(it.stop_sequences)
    streamed = it.stream is True
    return Request(
        FORMAT,
        it.model,
        tuple(messages),
        tools,
        choice,
        parallel,
        None if it.max_tokens is UNSET else it.max_tokens,
        None if it.temperature is UNSET else it.temperature,
        None if it.top_p is UNSET else it.top_p,
        None if it.top_k is UNSET else it.top_k,
        stop,
        reasoning=None if it.thinking is UNSET else _reasoning(it.thinking),
        stream=streamed,
        stream_usage=streamed or None,
        user=None if it.metadata is UNSET else it.metadata.user_id,
        extra=_NOT_STREAMED if it.stream is False else NO_EXTRA,
    )


def _message(it: _Message) -> Message:
    content = it.content
    if isinstance(content, str):
        return Message(it.role, (Text(content),), None, True)
    return Message(it.role, tuple([_part(block) for block in content]))


def _part(it: _Block) -> Part:
    if type(it) is _Text:
        return _text(it)
    if type(it) is _ToolUse:
        arguments = bytes(it.input)
        if not arguments.startswith(b"{"):
            raise _Refused
        return ToolCall(it.id, it.name, arguments.decode(), cache=_cache(it.cache_control))
    if type(it) is _ToolResult:
        return _result(it)
    if type(it) is _Thinking:
        return Reasoning(it.thinking, it.signature, origin=FORMAT)
    if type(it) is _Image:
        return _image(it)
    raise _Refused


def _text(it: _Text) -> Text:
    return Text(it.text) if it.cache_control is UNSET else Text(it.text, cache=_cache(it.cache_control))


def _image(it: _Image) -> Media:
    return Media("image", it.source.media_type, data=it.source.data, cache=_cache(it.cache_control))


def _result(it: _ToolResult) -> ToolResult:
    content = it.content
    parts: tuple[Text | Media, ...] = ()
    if isinstance(content, str):
        parts = (Text(content),)
    elif content is not UNSET:
        if not content:
            raise _Refused
        parts = tuple([_text(part) if type(part) is _Text else _image(part) for part in content])
    return ToolResult(
        it.tool_use_id,
        parts,
        it.is_error is True,
        cache=_cache(it.cache_control),
        extra=_NO_ERROR if it.is_error is False else NO_EXTRA,
        brief=isinstance(content, str),
    )


def _cache(mark: _Cache | UnsetType) -> CacheMark | None:
    if mark is UNSET:
        return None
    if mark.type != _EPHEMERAL:
        raise _Refused
    return CacheMark(None if mark.ttl is UNSET else mark.ttl)


def _tool(it: _Tool) -> Tool:
    schema = bytes(it.input_schema)
    if not schema.startswith(b"{"):
        raise _Refused
    return Tool(
        it.name,
        schema,
        None if it.description is UNSET else it.description,
        strict=None if it.strict is UNSET else it.strict,
        cache=_cache(it.cache_control),
        extra=NO_EXTRA if it.type is UNSET else _CUSTOM,
    )


def _choice(it: _Choice) -> ToolChoice:
    if (it.name is UNSET) is (it.type == "tool"):
        raise _Refused
    return _CHOICES[it.type] if it.name is UNSET else ToolChoice("tool", (it.name,))


def _reasoning(it: _Mode) -> ReasoningOptions:
    return ReasoningOptions(it.type, None, None if it.budget_tokens is UNSET else it.budget_tokens)
