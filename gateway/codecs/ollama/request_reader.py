"""A client's request to Ollama into the IR.

Every member has a word in the IR or its bytes in an ``extra``. How something was spelled, where the API has several ways,
is remembered by a null in an ``extra``, which loses nothing elsewhere: ``stream`` (left out, which asks for a stream),
``options.stop`` (a string), ``id`` of a call or a result (none was given: the two are paired by name, then by order),
``function.index`` of a call (its place among the calls).
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from ...errors import DecodeError
from ...ir.message import (
    NO_EXTRA,
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
    ToolResult,
)
from ...wire.members import NULL, Members, is_string, string_of
from .words import CHAT, GENERATE, media_type

_ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_EMPTY: Final = Raw(b'""')
_UNGIVEN: Final[Extra] = {"id": NULL}
"""Marks the calls and results whose id nobody gave: the reader made it up so that the two find each other."""


def decode_chat(body: bytes) -> Request:
    """Read a body of ``/api/chat``. Raises DecodeError with the path of what is wrong."""
    it = Members(body, "")
    model = it.need_string("model")
    messages = _Messages()
    raws = it.array("messages")
    for position, raw in enumerate(raws or ()):
        messages.read(Members(raw, f"messages[{position}]"))
    if raws == []:
        it.rest["messages"] = Raw(b"[]")
    return _settings(it, Request(CHAT, model, tuple(messages.done), _tools(it)))


def decode_generate(body: bytes) -> Request:
    """Read a body of ``/api/generate``: one system text, and one prompt with its images. Raises DecodeError."""
    it = Members(body, "")
    model = it.need_string("model")
    messages: list[Message] = []
    system = it.string("system")
    if system:
        messages.append(Message("system", (Text(system),), brief=True))
    elif system is not None:
        it.rest["system"] = _EMPTY
    prompt = it.string("prompt")
    parts: list[Part] = _images(it)
    if prompt:
        parts.append(Text(prompt))
    elif prompt is not None:
        it.rest["prompt"] = _EMPTY
    if parts:
        messages.append(Message("user", tuple(parts), brief=True))
    return _settings(it, Request(GENERATE, model, tuple(messages)))


class _Messages:
    """Reads messages in their order; calls and results without ids get them here."""

    def __init__(self) -> None:
        self.done: list[Message] = []
        self._calls = 0
        self._open: list[ToolCall] = []

    def read(self, it: Members) -> None:
        word = it.need_string("role")
        role = _ROLES.get(word.lower())
        if role is None:
            raise DecodeError(it.at("role"), f"unknown role {word[:40]!r}")
        content = it.string("content")
        if role == "tool":
            self.done.append(self._result(it, content))
            return
        parts: list[Part] = []
        if thinking := it.string("thinking"):
            parts.append(Reasoning(thinking, origin=CHAT))
        elif thinking is not None:
            it.rest["thinking"] = _EMPTY
        parts += _images(it)
        calls = it.array("tool_calls")
        if content or (content is not None and not parts and not calls):
            parts.append(Text(content))
        elif content is not None:
            # Beside calls an empty text is how Ollama says that there is none.
            it.rest["content"] = _EMPTY
        if calls == []:
            it.rest["tool_calls"] = Raw(b"[]")
        self._open = [] if role == "user" else self._open
        for position, raw in enumerate(calls or ()):
            parts.append(self._call(Members(raw, it.at(f"tool_calls[{position}]")), position))
        self.done.append(Message(role, tuple(parts), brief=True, extra=it.extra()))

    def _call(self, it: Members, position: int) -> ToolCall:
        call = read_call(it, position)
        if not call.id:
            call = replace(call, id=f"call_{self._calls}", extra={**call.extra, **_UNGIVEN})
        self._calls += 1
        self._open.append(call)
        return call

    def _result(self, it: Members, content: str | None) -> Message:
        name, id = it.string("tool_name"), it.string("tool_call_id")
        if not name and (older := it.string("name")):
            # The first releases that had tools said name.
            it.rest["name"] = NULL
            name = older
        extra = NO_EXTRA
        if not id:
            extra = _UNGIVEN
            id = self._answered(name) or f"call_{max(0, self._calls - 1)}"
        elif all(call.id != id for call in self._open):
            self._name_call(name, id)
        self._open = [call for call in self._open if call.id != id]
        images = [part for part in _images(it) if isinstance(part, Media)]
        words = () if content is None else (Text(content),)
        result = ToolResult(id, (*images, *words), name=name, extra=extra, brief=not images)
        return Message("tool", (result,), brief=True, extra=it.extra())

    def _name_call(self, name: str | None, id: str) -> None:
        """Give the call that this result answers the result's ``id``, if it came without one of its own."""
        unnamed = [call for call in self._open if "id" in call.extra]
        if not unnamed:
            return
        call = next((call for call in unnamed if call.name == name), unnamed[0])
        self._open = [other for other in self._open if other is not call]
        for position, message in reversed(tuple(enumerate(self.done))):
            if any(part is call for part in message.parts):
                parts = tuple(replace(call, id=id) if part is call else part for part in message.parts)
                self.done[position] = replace(message, parts=parts)
                return

    def _answered(self, name: str | None) -> str:
        """The id of the call that a result without one answers: the oldest open one of its name, else the oldest."""
        found = next((call for call in self._open if call.name == name), None)
        return found.id if found is not None else self._open[0].id if self._open else ""


def read_call(it: Members, position: int) -> ToolCall:
    """Return a tool call, its arguments as the JSON text they came in, its id empty where none was given."""
    id = it.string("id") or ""
    kind = it.string("type")
    if kind is not None:
        it.rest["type"] = NULL if kind == "function" else Raw(b'"%b"' % kind.encode())
    body = it.need_object("function")
    name = body.need_string("name")
    arguments = body.take("arguments")
    text = ""
    if arguments is not None:
        text = string_of(arguments, body.at("arguments")) if is_string(arguments) else bytes(arguments).decode()
        if is_string(arguments):
            body.rest["spelled"] = NULL  # as a string, which is other APIs' way
        elif not text.startswith("{"):
            raise DecodeError(body.at("arguments"), "expected an object")
    index = body.integer("index")
    if index is not None:
        body.rest["index"] = NULL if index == position else Raw(b"%d" % index)
    it.adopt("function", body)
    return ToolCall(id, name, text, extra=it.extra())


def _images(it: Members) -> list[Part]:
    images = it.strings("images")
    if images == []:
        it.rest["images"] = Raw(b"[]")
    return [Media("image", media_type(data), data=data) for data in images or ()]


def _tools(it: Members) -> tuple[Tool, ...]:
    raws = it.array("tools")
    if raws == []:
        it.rest["tools"] = Raw(b"[]")
    return tuple(_tool(raw, f"tools[{position}]") for position, raw in enumerate(raws or ()))


def _tool(raw: Raw, path: str) -> Tool:
    it = Members(raw, path)
    kind = it.string("type")
    if kind is None:
        it.rest["type"] = NULL  # left out, as a client may
    elif kind != "function":
        return Tool(kind, kind=kind, raw=bytes(raw))
    body = it.need_object("function")
    name, description = body.need_string("name"), body.string("description")
    schema = body.take("parameters")
    if schema is not None and not bytes(schema).startswith(b"{"):
        raise DecodeError(body.at("parameters"), "expected an object")
    it.adopt("function", body)
    return Tool(name, b"" if schema is None else bytes(schema), description, extra=it.extra())


# Settings


def _settings(it: Members, request: Request) -> Request:
    """Return ``request`` with all that is not said: the settings, which both formats have, and what nobody knows."""
    stream = it.boolean("stream")
    if stream is None:
        it.rest["stream"] = NULL
    wanted, thought = _format(it), _think(it)
    logprobs, top_logprobs = it.boolean("logprobs"), it.integer("top_logprobs")
    raw = it.raw("options")
    options = it.object("options") or Members(b"{}", "options")
    if raw is not None and not options.rest:
        it.rest["options"] = raw
    most = options.integer("num_predict")
    if most is not None and most < 0:
        # -1: without end, -2: until the context is full. Others have no number for that.
        options.rest["num_predict"] = Raw(b"%d" % most)
        most = None
    request = replace(
        request,
        max_output_tokens=most,
        temperature=options.number("temperature"),
        top_p=options.number("top_p"),
        top_k=options.integer("top_k"),
        stop=_stop(options),
        seed=options.integer("seed"),
        frequency_penalty=options.number("frequency_penalty"),
        presence_penalty=options.number("presence_penalty"),
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        response_format=wanted,
        reasoning=thought,
        stream=stream is not False,
        # The last line of a stream tells it, whether asked for or not.
        stream_usage=True if stream is not False else None,
    )
    it.adopt("options", options)
    return replace(request, extra=it.extra())


def _stop(options: Members) -> tuple[str, ...]:
    raw = options.raw("stop")
    if raw is not None and is_string(raw):
        word = options.need_string("stop")
        options.rest["stop"] = NULL
        return (word,)
    words = options.strings("stop")
    if words == [] and raw is not None:
        options.rest["stop"] = raw
    return tuple(words or ())


def _format(it: Members) -> ResponseFormat | None:
    raw = it.take("format")
    if raw is None:
        return None
    if not is_string(raw):
        if not bytes(raw).startswith(b"{"):
            raise DecodeError("format", 'expected "json" or a JSON schema')
        return ResponseFormat("json_schema", schema=bytes(raw))
    word = string_of(raw, "format")
    if word == "json":
        return ResponseFormat("json_object")
    if word:
        raise DecodeError("format", f'expected "json" or a JSON schema, got {word[:40]!r}')
    it.rest["format"] = raw
    return None


def _think(it: Members) -> ReasoningOptions | None:
    raw = it.raw("think")
    if raw is None:
        return None
    if is_string(raw):
        return ReasoningOptions(effort=it.need_string("think"))
    return ReasoningOptions("enabled" if it.boolean("think") else "disabled")
