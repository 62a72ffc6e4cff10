"""The short way into the IR for the common request: one decoding into Structs that forbid what they do not know.

It refuses (None) whatever is not plainly one of these shapes, null members and faults included; ``request_reader`` is right
about everything, and what both can read they read alike.
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
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from ...wire.members import BAD_JSON, NULL
from .content import DATA_URL
from .members import FORMAT

_FALSE: Final = Raw(b"false")
_EPHEMERAL: Final = Raw(b'"ephemeral"')
_NO_CONTENT: Final[Extra] = {"content": NULL}
_CHOICES: Final[dict[str, ToolChoice]] = {
    "none": ToolChoice("none"),
    "auto": ToolChoice("auto"),
    "required": ToolChoice("required"),
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


class _Url(_Strict):
    url: str
    detail: str | UnsetType = UNSET


class _Image(_Strict, tag="image_url"):
    image_url: _Url


class _Speaker(_Strict, tag_field="role"):
    content: str | list[_Text | _Image]
    name: str | UnsetType = UNSET


class _System(_Speaker, tag="system"):
    pass


class _Developer(_Speaker, tag="developer"):
    pass


class _User(_Speaker, tag="user"):
    pass


class _Function(_Strict):
    name: str
    arguments: str = ""


class _Call(_Strict):
    function: _Function
    id: str = ""
    type: Literal["function"] = "function"


@final
class _Assistant(_Strict, tag="assistant", tag_field="role"):
    content: str | list[_Text] | UnsetType | None = UNSET
    tool_calls: list[_Call] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


@final
class _Result(_Strict, tag="tool", tag_field="role"):
    tool_call_id: str
    content: str | list[_Text]
    name: str | UnsetType = UNSET


_Message = _System | _Developer | _User | _Assistant | _Result
_ROLES: Final[dict[type[_Speaker], Role]] = {_System: "system", _Developer: "developer", _User: "user"}


class _Definition(_Strict):
    name: str
    description: str | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class _Tool(_Strict):
    type: Literal["function"]
    function: _Definition


class _Name(_Strict):
    name: str


class _Named(_Strict):
    type: Literal["function"]
    function: _Name


class _Schema(_Strict):
    name: str
    schema: Raw
    strict: bool | UnsetType = UNSET
    description: str | UnsetType = UNSET


class _Format(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | UnsetType = UNSET


class _StreamOptions(_Strict):
    include_usage: bool


class _Body(_Strict):
    model: str
    messages: list[_Message]
    max_tokens: int | UnsetType = UNSET
    max_completion_tokens: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    stream_options: _StreamOptions | UnsetType = UNSET
    stop: str | list[str] | UnsetType = UNSET
    tools: list[_Tool] | UnsetType = UNSET
    tool_choice: Literal["none", "auto", "required"] | _Named | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    response_format: _Format | UnsetType = UNSET
    reasoning_effort: str | UnsetType = UNSET
    user: str | UnsetType = UNSET


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
    messages = tuple([_message(message) for message in it.messages])
    limit = it.max_completion_tokens
    extra: dict[str, Raw] = {}
    if it.stream is False:
        extra["stream"] = _FALSE
    if it.max_tokens is not UNSET:
        if limit is not UNSET:
            raise _Refused
        limit = it.max_tokens
        extra["max_tokens"] = NULL
    tools: tuple[Tool, ...] = ()
    if it.tools is not UNSET:
        if not it.tools:
            raise _Refused
        tools = tuple([_tool(tool.function) for tool in it.tools])
    choice: ToolChoice | None = None
    if isinstance(it.tool_choice, str):
        choice = _CHOICES[it.tool_choice]
    elif it.tool_choice is not UNSET:
        choice = ToolChoice("tool", (it.tool_choice.function.name,))
    stop: tuple[str, ...] = ()
    if isinstance(it.stop, str):
        stop = (it.stop,)
        extra["stop"] = NULL
    elif it.stop is not UNSET:
        if not it.stop:
            raise _Refused
        stop = tuple(it.stop)
    effort = it.reasoning_effort
    return Request(
        FORMAT,
        it.model,
        messages,
        tools,
        choice,
        None if it.parallel_tool_calls is UNSET else it.parallel_tool_calls,
        None if limit is UNSET else limit,
        None if it.temperature is UNSET else it.temperature,
        None if it.top_p is UNSET else it.top_p,
        stop=stop,
        response_format=None if it.response_format is UNSET else _format(it.response_format),
        reasoning=None if effort is UNSET else ReasoningOptions("disabled" if effort == "none" else None, effort),
        stream=it.stream is True,
        stream_usage=None if it.stream_options is UNSET else it.stream_options.include_usage,
        user=None if it.user is UNSET else it.user,
        extra=extra or NO_EXTRA,
    )


def _message(it: _Message) -> Message:
    if type(it) is _Assistant:
        return _assistant(it)
    if type(it) is _Result:
        return _result(it)
    content, name = it.content, None if it.name is UNSET else it.name
    if isinstance(content, str):
        return Message(_ROLES[type(it)], (Text(content),), name, True)
    if not content:
        raise _Refused
    return Message(
        _ROLES[type(it)], tuple([_text(part) if type(part) is _Text else _image(part) for part in content]), name
    )


def _assistant(it: _Assistant) -> Message:
    content, name = it.content, None if it.name is UNSET else it.name
    plain = it.tool_calls is UNSET and it.reasoning_content is UNSET
    if plain and isinstance(content, str):
        return Message("assistant", (Text(content),), name, True)
    parts: list[Part] = []
    if it.reasoning_content is not UNSET:
        parts.append(Reasoning(it.reasoning_content, origin=f"{FORMAT}:reasoning_content"))
    if isinstance(content, str):
        parts.append(Text(content))
    elif content:
        parts += [_text(part) for part in content]
    elif content is not None and content is not UNSET:
        raise _Refused
    if it.tool_calls is not UNSET:
        if not it.tool_calls:
            raise _Refused
        parts += [ToolCall(call.id, call.function.name, call.function.arguments) for call in it.tool_calls]
    extra = _NO_CONTENT if content is None else NO_EXTRA
    return Message("assistant", tuple(parts), name, isinstance(content, str), extra)


def _result(it: _Result) -> Message:
    content = it.content
    brief = isinstance(content, str)
    texts: tuple[Text, ...]
    if isinstance(content, str):
        texts = (Text(content),)
    elif content:
        texts = tuple([_text(part) for part in content])
    else:
        raise _Refused
    name = None if it.name is UNSET else it.name
    return Message("tool", (ToolResult(it.tool_call_id, texts, name=name, brief=brief),), brief=brief)


def _text(part: _Text) -> Text:
    mark = part.cache_control
    if mark is UNSET:
        return Text(part.text)
    if mark.type != _EPHEMERAL:
        raise _Refused
    return Text(part.text, cache=CacheMark(None if mark.ttl is UNSET else mark.ttl))


def _image(part: _Image) -> Media:
    url, detail = part.image_url.url, None if part.image_url.detail is UNSET else part.image_url.detail
    if found := DATA_URL.match(url):
        return Media("image", found[1], data=found[2], detail=detail)
    return Media("image", uri=url, detail=detail)


def _tool(it: _Definition) -> Tool:
    schema = b"" if it.parameters is UNSET else bytes(it.parameters)
    if it.parameters is not UNSET and not schema.startswith(b"{"):
        raise _Refused
    description = None if it.description is UNSET else it.description
    return Tool(it.name, schema, description, strict=None if it.strict is UNSET else it.strict)


def _format(it: _Format) -> ResponseFormat:
    spec = it.json_schema
    if (spec is UNSET) is (it.type == "json_schema"):
        raise _Refused
    if spec is UNSET:
        return ResponseFormat(it.type)
    if spec.schema == NULL:
        raise _Refused
    description = None if spec.description is UNSET else spec.description
    strict = None if spec.strict is UNSET else spec.strict
    return ResponseFormat("json_schema", spec.name, bytes(spec.schema), description, strict)
