"""A request for a provider that speaks Ollama's API, from the IR, with its losses.

A request that came in this format goes out the same, value by value. Between the two formats of the API the options pass
as they are. Messages stand first after the model, so that the bytes of a longer conversation begin with those of a
shorter one. ``stream`` is always said to a server whose caller came in another format: it streams unless told otherwise.

Switches a profile may set in ``UpstreamFacts.options``:

- ``num_ctx``: the context to ask for where the caller named none; the server cuts longer prompts without a word;
- ``keep_alive``: how long the model is to stay loaded, where the caller did not say.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from ...errors import DecodeError
from ...ir.loss import Loss, LossKind
from ...ir.message import Extra, Request, ResponseFormat, Tool
from ...wire.members import NULL, encode_json, put_extra
from ..base import UpstreamFacts
from ..ledger import in_place, in_the_callers_words, says_something
from .message_writer import MessageWriter, write_prompt
from .words import CHAT, FAMILY, GENERATE

SUFFIX_FORMATS: Final = frozenset({GENERATE, "openai.completions"})
"""Formats whose ``suffix`` is the text after the gap: it has no word in the IR and means the same in both."""

_SHARED: Final = frozenset({"options", "keep_alive", "truncate", "shift", "stream", "_debug_render_only"})
"""Members without a word in the IR that both formats of this API have."""


def encode_request(request: Request, facts: UpstreamFacts, format: str) -> tuple[bytes, tuple[Loss, ...]]:
    """Return body and losses. Raises CallerError for what the format cannot say at all."""
    writer = _Writer(request, facts, format)
    try:
        body = encode_json(writer.body())
    except DecodeError as fault:
        raise in_place(request, fault) from fault
    return body, in_the_callers_words(request, writer.losses) if writer.losses else ()


class _Writer:
    def __init__(self, request: Request, facts: UpstreamFacts, format: str) -> None:
        self.request = request
        self.facts = facts
        self.format = format
        self.own = request.format == format
        self.losses: list[Loss] = []

    def body(self) -> dict[str, Any]:
        request = self.request
        value: dict[str, Any] = {"model": request.model}
        if self.format == CHAT:
            value["messages"] = MessageWriter(CHAT, self.own, self.losses).write(request)
            self._tools(value)
        else:
            value.update(write_prompt(request, self.own, self.losses))
        if request.response_format is not None:
            self._format(value, request.response_format)
        self._think(value)
        self._options(value)
        if request.logprobs is not None:
            value["logprobs"] = request.logprobs
        if request.top_logprobs is not None:
            value["top_logprobs"] = request.top_logprobs
        self._extra(value)
        self._stream(value)
        self._note_missing()
        if not value.get("options", True) and request.extra.get("options") is None:
            del value["options"]
        return value

    def _lose(self, kind: LossKind, path: str, what: str, why: str) -> None:
        self.losses.append(Loss(kind, path, what, why))

    def _stream(self, value: dict[str, Any]) -> None:
        unsaid = self.own and self.request.extra.get("stream") == NULL
        value.pop("stream", None)
        if not (unsaid and self.request.stream):
            value["stream"] = self.request.stream

    def _extra(self, value: dict[str, Any]) -> None:
        request = self.request
        kin = request.format in FAMILY
        passed: dict[str, Raw] = {}
        for name, raw in request.extra.items():
            shared = kin and name.partition(".")[0] in _SHARED
            suffix = name == "suffix" and self.format == GENERATE and request.format in SUFFIX_FORMATS
            if self.own or shared or suffix:
                passed[name] = raw
            elif says_something(name, raw) and not (kin and name in ("messages", "prompt")):
                self._lose("lost", name, name, f"unknown to {self.format}")
        put_extra(value, passed)
        for name in ("num_ctx", "keep_alive"):
            wanted = self.facts.options.get(name)
            place = value["options"] if name == "num_ctx" else value
            if wanted is not None and name not in place:
                place[name] = wanted

    # Tools

    def _tools(self, value: dict[str, Any]) -> None:
        request, choice = self.request, self.request.tool_choice
        if choice is not None and not self.own:
            if choice.mode == "none":
                if request.tools:
                    self._lose("emulated", "tool_choice", "none", "no tool is declared")
                    self._lose("emulated", "tools", "tools", "none may be called: none is declared")
                return
            if choice.mode == "allowed":
                self._lose("emulated", "tool_choice", "allowed tools", "only these are declared")
            if choice.mode in ("required", "tool") or choice.required:
                self._lose("lost", "tool_choice", choice.mode, "nothing here makes a model call a tool")
        allowed = set(choice.names) if choice is not None and choice.mode == "allowed" else None
        tools = []
        for position, tool in enumerate(request.tools):
            path = f"tools[{position}]"
            if allowed is not None and tool.name not in allowed:
                self._lose("emulated", path, tool.name or tool.kind, "not among those that may be called: not declared")
            elif (written := self._tool(tool, path)) is not None:
                tools.append(written)
        if tools:
            value["tools"] = tools

    def _tool(self, tool: Tool, path: str) -> Any:
        if self.own and tool.raw is not None:
            return Raw(tool.raw)
        if tool.kind != "function":
            self._lose("lost", path, tool.kind, "tools are functions here")
            return None
        function: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.schema:
            function["parameters"] = Raw(tool.schema)
        elif not self.own:
            self._lose("minted", f"{path}.input_schema", "parameters", "none was given: an object without members")
            function["parameters"] = {"type": "object", "properties": {}}
        if tool.strict:
            self._lose("lost", f"{path}.strict", "strict", "no promise of strict arguments")
        if tool.cache is not None:
            self._lose("lost", f"{path}.cache", "cache mark", "prefixes are cached by themselves")
        written: dict[str, Any] = {"type": "function", "function": function}
        if self.own and tool.extra.get("type") == NULL:
            del written["type"]
        self._member_extra(written, tool.extra, path, ("type",))
        return written

    def _member_extra(self, written: dict[str, Any], extra: Extra, path: str, marks: tuple[str, ...] = ()) -> None:
        if self.own:
            put_extra(written, {name: raw for name, raw in extra.items() if name not in marks or raw != NULL})
            return
        for name, raw in extra.items():
            if says_something(name, raw):
                self._lose("lost", f"{path}.{name}", name, f"unknown to {self.format}")

    # Settings

    def _format(self, value: dict[str, Any], wanted: ResponseFormat) -> None:
        if wanted.kind == "json_object":
            value["format"] = "json"
        elif wanted.kind == "json_schema":
            value["format"] = Raw(wanted.schema) if wanted.schema is not None else "json"
            if wanted.schema is None:
                self._lose("emulated", "response_format", "json_schema", "without a schema: any JSON")
            if wanted.name is not None:
                self._lose("emulated", "response_format.name", "name", "the schema stands without it")
            if wanted.description is not None:
                self._lose("lost", "response_format.description", "description", "a format has none here")
            if wanted.strict is False:
                self._lose("emulated", "response_format.strict", "strict", "a schema is always kept to")
        if not self.own:
            for name, raw in wanted.extra.items():
                if says_something(name, raw):
                    self._lose("lost", f"response_format.{name}", name, f"unknown to {self.format}")

    def _think(self, value: dict[str, Any]) -> None:
        wanted = self.request.reasoning
        if wanted is None:
            return
        if wanted.mode == "disabled" or wanted.effort == "none":
            value["think"] = False
            if wanted.effort not in (None, "none"):
                self._lose("lost", "reasoning.effort", "effort", "thinking is switched off")
        elif wanted.effort is not None:
            effort = wanted.effort
            if self.request.format not in FAMILY and effort not in _EFFORTS:
                effort = _NEAREST.get(effort, "high")
                self._lose("emulated", "reasoning.effort", wanted.effort, f"the nearest effort is {effort}")
            value["think"] = effort
        elif wanted.mode is not None or wanted.budget_tokens is not None:
            value["think"] = True
        if wanted.mode == "adaptive":
            self._lose("emulated", "reasoning.mode", "adaptive", "a model thinks or does not: it thinks")
        if wanted.budget_tokens is not None:
            self._lose("lost", "reasoning.budget_tokens", "budget_tokens", "thinking has no budget here")
        if wanted.summary is not None:
            self._lose("lost", "reasoning.summary", "summary", "thinking is shown as it is")
        for name, raw in wanted.extra.items():
            if says_something(name, raw):
                self._lose("lost", f"reasoning.{name}", name, f"unknown to {self.format}")

    def _options(self, value: dict[str, Any]) -> None:
        request = self.request
        stop: Any = list(request.stop) or None
        if self.own and len(request.stop) == 1 and request.extra.get("options.stop") == NULL:
            stop = request.stop[0]
        said = {
            "num_predict": request.max_output_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "seed": request.seed,
            "frequency_penalty": request.frequency_penalty,
            "presence_penalty": request.presence_penalty,
            "stop": stop,
        }
        value["options"] = {name: setting for name, setting in said.items() if setting is not None}

    def _note_missing(self) -> None:
        """Settings that this API does not have; their defaults are no loss."""
        request = self.request
        missing: list[str] = []
        if request.n is not None and request.n != 1:
            missing.append("n")
        if request.logit_bias is not None and request.logit_bias != b"{}":
            missing.append("logit_bias")
        if request.verbosity is not None:
            missing.append("verbosity")
        if request.metadata:
            missing.append("metadata")
        if request.user is not None:
            missing.append("user")
        if request.service_tier is not None and request.service_tier != "auto":
            missing.append("service_tier")
        if request.parallel_tool_calls is False:
            missing.append("parallel_tool_calls")
        if self.format == GENERATE and request.tools:
            missing.append("tools")
        choice = request.tool_choice
        if self.format == GENERATE and choice is not None and choice.mode not in ("none", "auto"):
            missing.append("tool_choice")
        for name in missing:
            self._lose("lost", name, name, f"{self.format} has no such setting")
        if request.tool_choice is not None and not self.own:
            self._member_extra({}, request.tool_choice.extra, "tool_choice")
        if request.cache is not None:
            self._lose("lost", "cache", "cache mark", "prefixes are cached by themselves")


_EFFORTS: Final = frozenset({"low", "medium", "high"})
_NEAREST: Final = {"minimal": "low"}
