"""A request for a provider that speaks Responses, from the IR, with its losses.

A request that came in this format goes out the same, value by value. What an upstream wants otherwise is said by
``UpstreamFacts.options``:

- ``prompt_cache_breakpoint``: true if it has cache marks;
- ``instructions``: false if a system message must stay among the input items;
- ``developer_role``: the role it has instead, ``system``;
- ``store``: what requests of other formats say of it, false by default; nothing is said if it is None;
- ``min_output_tokens``: the least limit that it takes (16);
- ``encrypted_reasoning``: false if requests of other formats must not ask for it.

Other formats store no answer unless they say so, this one does: for them it is said that it must not. Reasoning comes back
encrypted then, or not at all, so it is asked for wherever the request has to do with reasoning; models without any refuse to
be asked.

What does not change from turn to turn stands before the input, so that the bytes of a longer conversation begin with those
of a shorter one.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from ...ir.loss import Loss, LossKind
from ...ir.message import ReasoningOptions, Request, ResponseFormat, Tool, ToolChoice
from ...wire.members import BAD_JSON, NULL, OBJECT, encode_json
from ..base import UpstreamFacts
from ..ledger import in_the_callers_words, refused
from ..openai_settings import effort_of, schema_of, tier_of
from .item_writer import ItemWriter
from .members import FORMAT, write_extra
from .request_reader import AT, HOISTED

_MIN_OUTPUT: Final = 16
"""OpenAI refuses a lower limit (seen from August 2025 on), which other formats' clients give to see if a model is there."""
_CHAT: Final = "openai.chat"
_SHARED: Final = frozenset(
    [
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
        *("moderation", "safety_identifier", "store"),
    ]
)
"""Members without a word in the IR that Chat Completions spells the same, and means the same by."""

_CHATS_FORMAT: Final = "custom.format"

_INCLUDE_LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDE_REASONING: Final = "reasoning.encrypted_content"


def encode_request(request: Request, facts: UpstreamFacts) -> tuple[bytes, tuple[Loss, ...]]:
    """Return body and losses. Raises CallerError for what the format cannot say at all."""
    writer = _Writer(request, facts)
    body = encode_json(writer.body())
    return body, in_the_callers_words(request, writer.losses) if writer.losses else ()


class _Writer:
    def __init__(self, request: Request, facts: UpstreamFacts) -> None:
        self.request = request
        self.options = facts.options
        self.own = request.format == FORMAT
        self.losses: list[Loss] = []

    def body(self) -> dict[str, Any]:
        request = self.request
        value: dict[str, Any] = {"model": request.model}
        items = ItemWriter(self.own, self.options, self.losses)
        items.write(request.messages)
        if items.instructions is not None:
            value["instructions"] = items.instructions
        self._tools(value)
        self._input(value, items.items)
        self._sampling(value)
        self._output(value)
        self._include(value, items)
        self._caller(value)
        if request.stream:
            value["stream"] = True
        extra = request.extra
        if self.own:
            extra = {
                name.removeprefix("kept."): raw
                for name, raw in extra.items()
                if not name.startswith(AT) and not (name == "input" and raw == NULL)
            }
        elif request.format == _CHAT:
            value |= {name: raw for name, raw in extra.items() if name in _SHARED and raw != NULL}
            extra = {name: raw for name, raw in extra.items() if name not in _SHARED}
        write_extra(value, extra, self.own, "", self.losses)
        return value

    def _input(self, value: dict[str, Any], items: list[Any]) -> None:
        request = self.request
        if self.own:
            for name, raw in request.extra.items():
                if name.startswith(AT):
                    items.insert(int(name.removeprefix(AT)), raw)
            if request.extra.get("input") == NULL and len(items) == 1 and isinstance(items[0], dict):
                value["input"] = items[0]["content"]
                return
        lost = next((loss for loss in self.losses if loss.kind == "lost"), None)
        if request.messages and lost is not None and not items and not self.own:
            raise refused(request, lost)  # of all that was said, nothing is left
        if items or not self.own:
            value["input"] = items

    def _lose(self, kind: LossKind, path: str, what: str, why: str) -> None:
        self.losses.append(Loss(kind, path, what, why))

    # Tools

    def _tools(self, value: dict[str, Any]) -> None:
        request = self.request
        tools = [
            written
            for position, tool in enumerate(request.tools)
            if not (self.own and HOISTED in tool.extra)
            and (written := self._tool(tool, f"tools[{position}]")) is not None
        ]
        if tools:
            value["tools"] = tools
        if (choice := request.tool_choice) is not None:
            if tools or self.own:
                value["tool_choice"] = self._tool_choice(choice)
            else:
                self._lose("lost", "tool_choice", choice.mode, "there are no tools to choose from")
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
        written: dict[str, Any] = {"type": tool.kind, "name": tool.name}
        if tool.description is not None:
            written["description"] = tool.description
        if tool.kind == "function":
            if tool.schema:
                written["parameters"] = Raw(tool.schema)
            elif not self.own:
                written["parameters"] = None
            if tool.strict is not None:
                written["strict"] = tool.strict
            elif not self.own:
                # Here a schema is kept to unless the caller says otherwise; elsewhere it is the other way round.
                written["strict"] = False
        if tool.cache is not None and not self.own:
            self._lose("lost", f"{path}.cache", "cache mark", "tools carry none")
        extra = tool.extra
        told = extra.get(_CHATS_FORMAT) if self.request.format == _CHAT else None
        if told is not None and (flat := _flat_format(told)) is not None:
            written["format"] = flat
            extra = {name: raw for name, raw in extra.items() if name != _CHATS_FORMAT}
        write_extra(written, extra, self.own, path, self.losses)
        return written

    def _tool_choice(self, choice: ToolChoice) -> Any:
        if choice.mode == "tool":
            written: Any = {"type": choice.kind, "name": choice.names[0]}
        elif choice.mode == "allowed":
            kept = choice.extra.get("kept.tools") if self.own else None
            named = [{"type": "function", "name": name} for name in choice.names]
            mode = "required" if choice.required else "auto"
            written = {"type": "allowed_tools", "mode": mode, "tools": named if kept is None else kept}
        else:
            if not self.own:
                write_extra({}, choice.extra, False, "tool_choice", self.losses)
            return choice.mode
        extra = {name: raw for name, raw in choice.extra.items() if name != "kept.tools"}
        write_extra(written, extra, self.own, "tool_choice", self.losses)
        return written

    # Settings

    def _sampling(self, value: dict[str, Any]) -> None:
        request = self.request
        if (most := request.max_output_tokens) is not None:
            least = self.options.get("min_output_tokens", _MIN_OUTPUT)
            if not self.own and isinstance(least, int) and most < least:
                self._lose("emulated", "max_output_tokens", str(most), f"less than {least} is refused here")
                most = least
            value["max_output_tokens"] = most
        if request.temperature is not None:
            value["temperature"] = request.temperature
        if request.top_p is not None:
            value["top_p"] = request.top_p
        if request.top_logprobs is not None:
            value["top_logprobs"] = request.top_logprobs
        if self.own:
            return
        missing = {
            "top_k": request.top_k is not None,
            "stop": bool(request.stop),
            "seed": request.seed is not None,
            "n": request.n is not None and request.n != 1,
            "frequency_penalty": bool(request.frequency_penalty),
            "presence_penalty": bool(request.presence_penalty),
            "logit_bias": request.logit_bias is not None and request.logit_bias != b"{}",
        }
        for name, is_said in missing.items():
            if is_said:
                self._lose("lost", name, name, "unknown to Responses")

    def _output(self, value: dict[str, Any]) -> None:
        request = self.request
        text: dict[str, Any] = {}
        if request.response_format is not None:
            text["format"] = self._format(request.response_format)
        if request.verbosity is not None:
            text["verbosity"] = request.verbosity
        if text:
            value["text"] = text
        if request.reasoning is not None:
            self._reasoning(value, request.reasoning)
        if request.cache is not None:
            self._lose("lost", "cache", "cache mark", "this upstream caches prefixes by itself")

    def _include(self, value: dict[str, Any], items: ItemWriter) -> None:
        """Ask for what this format tells on request only. What a caller of this format asks for stands in its extra."""
        if self.own:
            return
        asked = [_INCLUDE_LOGPROBS] if self.request.logprobs else []
        reasoning = value.get("reasoning")
        reasons = items.reasons or (reasoning is not None and reasoning.get("effort") != "none")
        if reasons and self.options.get("encrypted_reasoning") is not False:
            asked.append(_INCLUDE_REASONING)
        if asked:
            value["include"] = asked

    def _format(self, wanted: ResponseFormat) -> dict[str, Any]:
        written: dict[str, Any] = {"type": wanted.kind}
        if wanted.kind == "json_schema":
            written |= schema_of(wanted, self.own, self.losses)
        write_extra(written, wanted.extra, self.own, "response_format", self.losses)
        return written

    def _reasoning(self, value: dict[str, Any], wanted: ReasoningOptions) -> None:
        written: dict[str, Any] = {}
        effort = wanted.effort if self.own else effort_of(self.request.model, wanted, self.losses)
        if effort is not None:
            written["effort"] = effort
        if wanted.summary is not None:
            written["summary"] = wanted.summary
        write_extra(written, wanted.extra, self.own, "reasoning", self.losses)
        if written:
            value["reasoning"] = written

    def _caller(self, value: dict[str, Any]) -> None:
        request = self.request
        if request.user is not None:
            safety = self.own and request.extra.get("safety_identifier") == NULL
            value["safety_identifier" if safety else "user"] = request.user
        if request.metadata is not None:
            value["metadata"] = dict(request.metadata)
        if not self.own and (store := self.options.get("store", False)) is not None:
            value["store"] = store
        if (tier := tier_of(request, self.losses)) is not None:
            value["service_tier"] = tier


def _flat_format(raw: Raw) -> dict[str, Raw] | None:
    """Return the format of a custom tool, whose grammar Chat Completions nests one deeper; None for one of another shape."""
    try:
        told = OBJECT.decode(raw)
        grammar = OBJECT.decode(told.pop("grammar", b"{}"))
    except BAD_JSON:
        return None
    return None if told.keys() & grammar.keys() else told | grammar
