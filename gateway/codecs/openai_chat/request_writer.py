"""A request for a provider that speaks Chat Completions, from the IR, with its losses.

A request that came in this format goes out the same, value by value. What an upstream wants otherwise is said by
``UpstreamFacts.options``:

- ``max_tokens_field``: ``max_tokens`` where ``max_completion_tokens`` is unknown, or the other way round;
- ``reasoning_field``: where it takes reasoning of earlier turns back, for instance ``reasoning_content``;
- ``prompt_cache_breakpoint`` or ``cache_control``: true if it has cache marks of that spelling;
- ``top_k``: true if it has that; ``user_field``: ``user`` (default) or ``safety_identifier``;
- ``max_stop``: how many stop sequences it takes (4); ``string_content``: true if texts must be one string;
- ``developer_role``: the role it has instead, ``system``;
- ``drop_nulls``: true if it refuses members that are null, in the request and its messages.

Messages stand first after the model, so that the bytes of a longer conversation begin with those of a shorter one.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from ...errors import DecodeError
from ...ir.loss import Loss, LossKind
from ...ir.message import ReasoningOptions, Request, ResponseFormat, Tool, ToolChoice
from ...ir.words import words_of
from ...wire.members import NULL, encode_json
from ..base import Encoded, UpstreamFacts
from ..ledger import in_place, in_the_callers_words, refused
from ..openai_settings import effort_of, schema_of, tier_of
from .content import write_mark
from .members import FORMAT, foreign, write_extra
from .message_writer import MessageWriter
from .wording import WORDING


def encode_request(request: Request, facts: UpstreamFacts) -> tuple[bytes, tuple[Loss, ...]]:
    """Return body and losses. Raises CallerError for what the format cannot say at all."""
    if request.format != FORMAT and (short := _in_words(request, facts)) is not None:
        return short.body, ()
    writer = _Writer(request, facts)
    try:
        value = writer.body()
    except DecodeError as fault:
        raise in_place(request, fault) from fault
    if request.messages and not value["messages"] and writer.losses:
        raise refused(request, writer.losses[0])  # of all that was said nothing is left
    body = encode_json(value)
    return body, in_the_callers_words(request, writer.losses) if writer.losses else ()


def _in_words(request: Request, facts: UpstreamFacts) -> Encoded | None:
    """The short way, for a request of words alone that loses nothing here."""
    if request.extra and any(foreign(request.extra, "")):
        return None
    words = words_of(request)
    return None if words is None else WORDING.write(words, facts)


class _Writer:
    def __init__(self, request: Request, facts: UpstreamFacts) -> None:
        self.request = request
        self.facts = facts
        self.options = facts.options
        self.own = request.format == FORMAT
        self.losses: list[Loss] = []

    def body(self) -> dict[str, Any]:
        request = self.request
        value: dict[str, Any] = {"model": request.model}
        value["messages"] = MessageWriter(self.own, self.options, self.losses).write(request.messages)
        if request.tools or request.tool_choice is not None or request.parallel_tool_calls is not None:
            self._tools(value)
        self._limits(value)
        self._sampling(value)
        self._output(value)
        self._caller(value)
        if request.stream:
            value["stream"] = True
        if request.stream or self.own:
            self._stream_options(value)
        if request.extra:
            write_extra(value, request.extra, self.own, "", self.losses)
        return self._without_nulls(value) if self.own or self.options else value

    def _without_nulls(self, value: dict[str, Any]) -> dict[str, Any]:
        """Drop the nulls that only told how something was spelled which is now spelled otherwise, or all of them."""
        if self.options.get("drop_nulls"):
            value["messages"] = [_set(message) for message in value["messages"]]
            return _set(value)
        for name, said in (("max_tokens", self.request.max_output_tokens), ("functions", self.request.tools)):
            if said and value.get(name) == NULL:
                del value[name]
        return value

    def _lose(self, kind: LossKind, path: str, what: str, why: str) -> None:
        self.losses.append(Loss(kind, path, what, why))

    # Tools

    def _tools(self, value: dict[str, Any]) -> None:
        request = self.request
        legacy = self.own and request_says(request, "functions") and not any(tool.raw for tool in request.tools)
        tools: list[Any] = []
        for position, tool in enumerate(request.tools):
            if legacy:
                tools.append(self._function(tool))
            elif (written := self._tool(tool, f"tools[{position}]")) is not None:
                tools.append(written)
        if tools:
            value["functions" if legacy else "tools"] = tools
        if request.tool_choice is not None:
            self._tool_choice(value, request.tool_choice, bool(tools))
        if request.parallel_tool_calls is not None:
            if tools or self.own:
                value["parallel_tool_calls"] = request.parallel_tool_calls
            else:
                self._lose("lost", "parallel_tool_calls", "parallel_tool_calls", "there are no tools")

    def _tool(self, tool: Tool, path: str) -> Any:
        if tool.raw is not None or tool.kind not in ("function", "custom"):
            if self.own and tool.raw is not None:
                return Raw(tool.raw)
            self._lose("lost", path, tool.kind, "a tool that only its own provider runs")
            return None
        if tool.kind == "custom":
            custom: dict[str, Any] = {"name": tool.name}
            if tool.description is not None:
                custom["description"] = tool.description
            written: dict[str, Any] = {"type": "custom", "custom": custom}
        else:
            written = {"type": "function", "function": self._function(tool)}
        if tool.cache is not None and self.own:
            name, mark = write_mark(tool.cache)
            written[name] = mark
        elif tool.cache is not None and self.options.get("cache_control"):
            written["cache_control"] = {"type": "ephemeral", **({"ttl": tool.cache.ttl} if tool.cache.ttl else {})}
        elif tool.cache is not None:
            self._lose("lost", f"{path}.cache", "cache mark", "tools carry none")
        write_extra(written, tool.extra, self.own, path, self.losses)
        return written

    def _function(self, tool: Tool) -> dict[str, Any]:
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.schema:
            function["parameters"] = Raw(tool.schema)
        if tool.strict is not None:
            function["strict"] = tool.strict
        if self.own and request_says(self.request, "functions"):
            function.update(tool.extra)
        return function

    def _tool_choice(self, value: dict[str, Any], choice: ToolChoice, any_tools: bool) -> None:
        if not any_tools and not self.own:
            self._lose("lost", "tool_choice", choice.mode, "there are no tools to choose from")
            return
        if self.own and request_says(self.request, "function_call"):
            named = {"name": choice.names[0], **choice.extra} if choice.mode == "tool" else choice.mode
            value["function_call"] = named
            return
        if choice.mode == "tool":
            written: Any = {"type": choice.kind, choice.kind: {"name": choice.names[0]}}
        elif choice.mode == "allowed":
            tools = [{"type": "function", "function": {"name": name}} for name in choice.names]
            allowed: dict[str, Any] = {"mode": "required" if choice.required else "auto"}
            if not self.own or "allowed_tools.tools" not in choice.extra:
                allowed["tools"] = tools
            written = {"type": "allowed_tools", "allowed_tools": allowed}
        else:
            written = "any" if self.own and "any" in choice.extra else choice.mode
        if isinstance(written, dict):
            write_extra(written, choice.extra, self.own, "tool_choice", self.losses)
        elif not self.own:
            write_extra({}, choice.extra, False, "tool_choice", self.losses)
        value["tool_choice"] = written

    # Settings

    def _limits(self, value: dict[str, Any]) -> None:
        request = self.request
        if request.max_output_tokens is None:
            return
        spelled = "max_tokens" if self.own and request.extra.get("max_tokens") == NULL else "max_completion_tokens"
        field = self.options.get("max_tokens_field") or spelled
        value[str(field)] = request.max_output_tokens

    def _sampling(self, value: dict[str, Any]) -> None:
        request = self.request
        if request.temperature is not None:
            value["temperature"] = request.temperature
        if request.top_p is not None:
            value["top_p"] = request.top_p
        if request.seed is not None:
            value["seed"] = request.seed
        if request.n is not None:
            value["n"] = request.n
        if request.frequency_penalty is not None:
            value["frequency_penalty"] = request.frequency_penalty
        if request.presence_penalty is not None:
            value["presence_penalty"] = request.presence_penalty
        if request.logit_bias is not None:
            value["logit_bias"] = Raw(request.logit_bias)
        if request.logprobs is not None:
            value["logprobs"] = request.logprobs
        if request.top_logprobs is not None:
            value["top_logprobs"] = request.top_logprobs
        if request.verbosity is not None:
            value["verbosity"] = request.verbosity
        if request.top_k is not None:
            if self.own or self.options.get("top_k"):
                value["top_k"] = request.top_k
            else:
                self._lose("lost", "top_k", "top_k", "unknown to Chat Completions")
        if request.stop:
            self._stop(value, request.stop)

    def _stop(self, value: dict[str, Any], stop: tuple[str, ...]) -> None:
        if self.own:
            value["stop"] = stop[0] if len(stop) == 1 and request_says(self.request, "stop") else list(stop)
            return
        most = self.options.get("max_stop", 4)
        most = most if isinstance(most, int) else 4
        if len(stop) > most:
            self._lose("lost", f"stop[{most}]", "stop sequences", f"no more than {most} are taken")
        value["stop"] = list(stop[:most])

    def _output(self, value: dict[str, Any]) -> None:
        request = self.request
        if request.response_format is not None:
            value["response_format"] = self._response_format(request.response_format)
        if request.reasoning is not None:
            self._reasoning(value, request.reasoning)
        if request.cache is not None:
            if self.own:
                name, mark = write_mark(request.cache)
                value[name] = mark
            elif self.options.get("cache_control"):
                ttl = {} if request.cache.ttl is None else {"ttl": request.cache.ttl}
                value["cache_control"] = {"type": "ephemeral", **ttl}
            else:
                self._lose("lost", "cache", "cache mark", "this upstream caches prefixes by itself")

    def _response_format(self, wanted: ResponseFormat) -> dict[str, Any]:
        written: dict[str, Any] = {"type": wanted.kind}
        if wanted.kind == "json_schema":
            written["json_schema"] = schema_of(wanted, self.own, self.losses)
        write_extra(written, wanted.extra, self.own, "response_format", self.losses)
        return written

    def _reasoning(self, value: dict[str, Any], wanted: ReasoningOptions) -> None:
        if self.own:
            if wanted.effort is not None:
                value["reasoning_effort"] = wanted.effort
            write_extra(value, wanted.extra, True, "", self.losses)
            return
        if (effort := effort_of(self.request.model, wanted, self.losses)) is not None:
            value["reasoning_effort"] = effort
        if wanted.summary is not None:
            self._lose("lost", "reasoning.summary", "summary", "no summaries in Chat Completions")
        write_extra(value, wanted.extra, False, "reasoning", self.losses)

    def _caller(self, value: dict[str, Any]) -> None:
        request = self.request
        if request.user is not None:
            spelled = "safety_identifier" if self.own and request_says(request, "safety_identifier") else "user"
            field = spelled if self.own else self.options.get("user_field") or spelled
            value[str(field)] = request.user
        if request.metadata is not None:
            value["metadata"] = dict(request.metadata)
        if (tier := tier_of(request, self.losses)) is not None:
            value["service_tier"] = tier

    def _stream_options(self, value: dict[str, Any]) -> None:
        request = self.request
        asked = request.stream_usage
        if request.stream and self.facts.stream_usage:
            asked = True
        if asked is not None and (request.stream or self.own):
            value["stream_options"] = {"include_usage": asked}
        elif self.own and any(name.startswith("stream_options.") for name in request.extra):
            value["stream_options"] = {}


def request_says(request: Request, name: str) -> bool:
    """Whether the reader marked that this spelling was used."""
    return request.extra.get(name) == NULL


def _set(value: dict[str, Any]) -> dict[str, Any]:
    return {name: member for name, member in value.items() if member is not None and member != NULL}
