"""Structured output of a model that knows none: how a request asks for it, how the answer is read, and how it is mended.

Sans-IO. Two ways: a tool whose arguments are the answer, or words in the system prompt. The words stand where every turn of a
conversation has them, at the end of the first system message, so that a provider's prompt cache keeps its prefix.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from ..ir.fold import Choice
from ..ir.message import (
    Message,
    Part,
    Reasoning,
    ReasoningOptions,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from .options import Way

ANY_OBJECT: Final = b'{"type":"object"}'
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FENCED: Final = re.compile(r"```[\w-]*\s*\n(.*?)\n?\s*```", re.DOTALL)
_WRAPPED: Final = "answer"
_CALL: Final = "call_structured_output"
"""The id of a call whose provider gave none."""
_OPEN_ENDED: Final = frozenset({"length", "context_window", "content_filter", "refusal"})
"""Reasons to stop that say themselves that the answer is not what was asked for."""


class Found(NamedTuple):
    """What of an answer is the JSON: ``text``, or None where there is none to be looked for. ``parts`` are the others."""

    text: str | None
    parts: tuple[Part, ...]
    called: ToolCall | None = None


class Asking:
    """One request for structured output. ``schema`` is what the answer must keep to."""

    def __init__(self, request: Request, way: Way) -> None:
        wanted = request.response_format
        assert wanted is not None and is_wanted(request)
        self.schema = wanted.schema if wanted.kind == "json_schema" and wanted.schema else ANY_OBJECT
        self._tool: Tool | None = None
        self._wraps = False
        request = replace(request, response_format=None)
        choice = request.tool_choice
        demanded = choice is not None and (choice.mode in ("required", "tool") or choice.required)
        if way == "instruction":
            self.request = _instructed(request, _instruction(wanted, self.schema))
        elif demanded:
            self.request = request  # the answer is a call of the caller's own tool
        else:
            self._tool = self._made(request, wanted)
            self.request = self._offering(request, self._tool)

    def _made(self, request: Request, wanted: ResponseFormat) -> Tool:
        taken = {tool.name for tool in request.tools}
        name = wanted.name if wanted.name is not None and _NAME.fullmatch(wanted.name) else "structured_output"
        while name in taken:
            name = f"{name[:63]}_"
        schema, self._wraps = _of_a_tool(self.schema)
        said = "Gives the answer. An answer counts only if it is given by calling this tool."
        return Tool(name, schema, f"{wanted.description}\n\n{said}" if wanted.description else said)

    @staticmethod
    def _offering(request: Request, tool: Tool) -> Request:
        choice, names = request.tool_choice, (tool.name,)
        if choice is not None and choice.mode == "allowed":
            chosen = ToolChoice("allowed", (*choice.names, *names), required=True)
        elif request.tools and (choice is None or choice.mode == "auto"):
            chosen = ToolChoice("required")
        else:
            chosen = ToolChoice("tool", names)
        request = replace(request, tools=(*request.tools, tool), tool_choice=chosen)
        if _thinks(request.reasoning):
            # Anthropic refuses to force a tool on a model that thinks, and others think less of it.
            request = replace(request, tool_choice=ToolChoice("auto"))
            return _instructed(request, f"Give your answer by calling the tool {tool.name}, never as text.")
        return request

    def read(self, choice: Choice) -> Found:
        """Find the JSON in an answer."""
        tool = self._tool
        calls = [part for part in choice.parts if isinstance(part, ToolCall) and not part.server]
        ours = [call for call in calls if tool is not None and call.name == tool.name]
        others = tuple(
            part for part in choice.parts if not isinstance(part, Text) and not any(part is call for call in ours)
        )
        if ours:
            return Found(self._unwrapped(ours[0].arguments or "{}"), others, ours[0])
        texts = tuple(part.text for part in choice.parts if isinstance(part, Text))
        refused = any(isinstance(part, Refusal) for part in choice.parts)
        if calls or refused or choice.reason in _OPEN_ENDED:
            return Found(None, choice.parts)
        return Found(_bare("".join(texts)), others)

    def mend(self, request: Request, choice: Choice, found: Found, fault: str) -> Request:
        """Return the request that says what is wrong with the answer to ``request``."""
        said = f"This is not what was asked for: {fault}. Answer again, and answer with the corrected JSON alone."
        turn = Message("assistant", choice.parts)
        asking: Part = Text(said)
        if (called := found.called) is not None:
            call = called if called.id else replace(called, id=_CALL)
            kept = tuple(
                call if part is called else part
                for part in choice.parts
                if part is called or not isinstance(part, ToolCall) or part.server
            )
            turn, asking = Message("assistant", kept), ToolResult(call.id, (Text(said),), True, brief=True)
        elif self._tool is not None:
            asking = Text(f"{said} Give it by calling the tool {self._tool.name}.")
        if not turn.parts or all(isinstance(part, Reasoning) for part in turn.parts):
            turn = Message("assistant", (*turn.parts, Text("(no answer)")))
        role = Message("tool", (asking,)) if isinstance(asking, ToolResult) else Message("user", (asking,), brief=True)
        return replace(request, messages=(*request.messages, turn, role))

    def _unwrapped(self, arguments: str) -> str:
        """Return the answer within the arguments; the arguments, which no check lets pass, if it is not in there."""
        if not self._wraps:
            return arguments
        try:
            told = msgspec.json.decode(arguments, type=dict[str, Raw])
        except (msgspec.DecodeError, RecursionError):
            return arguments
        return bytes(told[_WRAPPED]).decode() if _WRAPPED in told else arguments


def is_wanted(request: Request) -> bool:
    """Whether a request wants structured output."""
    wanted = request.response_format
    return wanted is not None and wanted.kind != "text"


def _thinks(reasoning: ReasoningOptions | None) -> bool:
    if reasoning is None or reasoning.mode == "disabled":
        return False
    return reasoning.mode is not None or reasoning.effort not in (None, "none") or reasoning.budget_tokens is not None


def _of_a_tool(schema: bytes) -> tuple[bytes, bool]:
    """Return the schema of a tool's arguments, which are an object; and whether the answer is a member of it."""
    told = msgspec.json.decode(schema, type=dict[str, Raw])
    if bytes(told.get("type", b"")) == b'"object"':
        return schema, False
    # References start at the root, so what they lead to moves there.
    moved = {name: told[name] for name in ("$defs", "definitions") if name in told}
    members = {_WRAPPED: Raw(schema)}
    return msgspec.json.encode(
        {"type": "object", "properties": members, "required": [_WRAPPED], "additionalProperties": False, **moved}
    ), True


def _instruction(wanted: ResponseFormat, schema: bytes) -> str:
    value = "object" if schema == ANY_OBJECT else "value"
    words = (
        f"Whenever you answer in text, that text is one JSON {value} and nothing else: no words before or after it, no "
        "code fence."
    )
    if wanted.description:
        words += f" What it is: {wanted.description}"
    return words if schema == ANY_OBJECT else f"{words} It keeps to this JSON Schema:\n{schema.decode()}"


def _instructed(request: Request, words: str) -> Request:
    """Return the request with ``words`` at the end of its first system message."""
    messages = request.messages
    if not messages or messages[0].role not in ("system", "developer"):
        return replace(request, messages=(Message("system", (Text(words),), brief=True), *messages))
    first = messages[0]
    parts = first.parts
    if len(parts) == 1 and isinstance(only := parts[0], Text):
        parts = (replace(only, text=f"{only.text}\n\n{words}"),)
    else:
        parts = (*parts, Text(words))
    return replace(request, messages=(replace(first, parts=parts), *messages[1:]))


def _bare(text: str) -> str:
    """Return a text without white space around it, and out of the code fence that models like to put around JSON."""
    text = text.strip()
    fenced = _FENCED.fullmatch(text)
    return fenced[1].strip() if fenced else text
