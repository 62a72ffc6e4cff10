"""A request of any format into a generateContent body: own requests as they came, foreign ones by this API's rules.

The body begins with what does not change from turn to turn (systemInstruction, tools), then the contents in their order, then
the settings: turn n+1 begins with the bytes of turn n, which is what a provider's implicit cache lives on. The model and the
method are in the path.

Switches a profile may set in ``UpstreamFacts.options``:

- ``thinking``: ``level`` or ``budget``, in what a foreign reasoning effort is told; by default what the model's name asks for
  (before Gemini 3 it was a budget).
- ``unsigned_calls``: ``skip`` writes the documented stand-in for a thought signature on foreign calls, which Gemini 3 refuses
  without one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.loss import Loss
from ...ir.message import Message, ReasoningOptions, Request, ResponseFormat, Text, Tool, plain_text
from ...wire.members import NULL, put_extra
from ..base import Encoded, UpstreamFacts
from ..ledger import in_place, in_the_callers_words, refused
from .members import FORMAT
from .paths import write_path
from .render import Block, Renderer
from .request import JOINED, JSON
from .schema import from_json_schema

_SPEAKERS: Final = {"user": "user", "assistant": "model"}
_LEVELS: Final = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
"""Source: "OpenAI compatibility", the table of reasoning_effort."""
_OLD: Final = re.compile(r"gemini-[12](\D|\Z)")
_TIERS: Final = {"default": "standard", "flex": "flex", "priority": "priority", "standard_only": "standard"}
_LABEL: Final = re.compile(r"[a-z0-9_-]{1,63}\Z")
_MAX_STOPS: Final = 5
"""Source: ``stopSequences``, "up to 5"."""


def encode_request(request: Request, facts: UpstreamFacts) -> Encoded:
    """Write ``request``. Raises CallerError for what cannot be said at all: broken arguments, a turn of audio alone."""
    try:
        return _encoded(request, facts)
    except DecodeError as fault:
        raise in_place(request, fault) from fault


def _encoded(request: Request, facts: UpstreamFacts) -> Encoded:
    own = request.format == FORMAT
    renderer = Renderer(own, skip=not own and facts.options.get("unsigned_calls") == "skip")
    body: dict[str, Any] = {}
    head = _leading(request)
    if head and (system := _system(request.messages[:head], renderer)) is not None:
        body["systemInstruction"] = system
    if request.tools and (tools := _tools(request, renderer)):
        body["tools"] = tools
    if own:
        body["contents"] = [
            _own_content(it, f"messages[{head + i}]", renderer) for i, it in enumerate(request.messages[head:])
        ]
    else:
        body["contents"] = _Turns(renderer, request).write(head)
    _tool_choice(request, renderer, body)
    config = _config(request, facts, renderer)
    if config:
        body["generationConfig"] = config
    _rest(request, renderer, body)
    losses = in_the_callers_words(request, renderer.losses) if renderer.losses else ()
    return Encoded(msgspec.json.encode(body), write_path(request.model, request.stream), {}, losses)


def _leading(request: Request) -> int:
    """How many messages make up ``systemInstruction``."""
    messages, count = request.messages, 0
    while count < len(messages) and messages[count].role in ("system", "developer"):
        count += 1
    # A conversation needs a content: of nothing but instructions, the last one is what is asked.
    return count - 1 if count and count == len(messages) and request.format != FORMAT else count


def _system(messages: tuple[Message, ...], renderer: Renderer) -> dict[str, Any] | None:
    if renderer.own and len(messages) == 1:
        return _own_content(messages[0], "messages[0]", renderer)
    parts: list[Block] = []
    for i, message in enumerate(messages):
        _note_message(message, f"messages[{i}]", renderer)
        parts += _texts(message, f"messages[{i}]", renderer)
    return {"parts": parts} if parts else None


def _texts(message: Message, path: str, renderer: Renderer) -> list[Block]:
    """The parts of an instruction, which may be texts only."""
    parts: list[Block] = []
    for j, part in enumerate(message.parts):
        at = f"{path}.content[{j}]"
        if not isinstance(part, Text):
            renderer.lose("lost", at, type(part).__name__.lower(), "instructions are texts only")
        elif (written := renderer.block(part, at)) is not None:
            parts.append(written)
    return parts


def _own_content(message: Message, path: str, renderer: Renderer) -> dict[str, Any]:
    role = _SPEAKERS.get(message.role)
    written: dict[str, Any] = {}
    extra = message.extra
    if "role" in extra:
        if extra["role"] != NULL:
            written["role"] = extra["role"]
        extra = {name: raw for name, raw in extra.items() if name != "role"}
    elif role is not None or message.role == "tool":
        written["role"] = role or "function"
    if message.parts or not message.brief:
        parts = (renderer.block(part, f"{path}.content[{j}]") for j, part in enumerate(message.parts))
        written["parts"] = [part for part in parts if part is not None]
    return renderer.add_extra(extra, path, written)


def _note_message(message: Message, path: str, renderer: Renderer) -> None:
    if message.name is not None:
        renderer.lose("lost", f"{path}.name", "name", "messages have no name here")
    renderer.add_extra({n: raw for n, raw in message.extra.items() if n != "role"}, path, {})


class _Turns:
    """Foreign messages as contents: neighbours of one role become one, results stand first in theirs.

    The API wants the results of all calls of a turn in the one content that follows it.
    """

    def __init__(self, renderer: Renderer, request: Request) -> None:
        self._renderer = renderer
        self._request = request
        self._turns: list[tuple[str, list[Block]]] = []

    def write(self, head: int) -> list[dict[str, Any]]:
        messages = self._request.messages
        for i in range(head, len(messages)):
            message = messages[i]
            role = _SPEAKERS.get(message.role)
            if role is not None and (text := plain_text(message)):
                self._extend(role, ({"text": text},))
            else:
                self._add(message, f"messages[{i}]")
        if not self._turns:
            raise refused(self._request, Loss("lost", "messages", "", "nothing is left to send to this format"))
        return [{"role": role, "parts": parts} for role, parts in self._ordered()]

    def _add(self, message: Message, path: str) -> None:
        _note_message(message, path, self._renderer)
        if message.role in ("system", "developer"):
            if parts := _texts(message, path, self._renderer):
                self._renderer.lose(
                    "emulated", path, f"{message.role} message", "stands as a user's text, in its place"
                )
                self._extend("user", parts)
            return
        if message.role == "assistant" and not (self._turns and self._turns[-1][0] == "model"):
            self._renderer.called = False
        noted = len(self._renderer.losses)
        written = (self._renderer.block(part, f"{path}.content[{j}]") for j, part in enumerate(message.parts))
        if blocks := [block for block in written if block is not None]:
            self._extend("model" if message.role == "assistant" else "user", blocks)
        elif message.role != "assistant" and message.parts:
            lost = [loss for loss in self._renderer.losses[noted:] if loss.kind == "lost"]
            if lost:
                raise refused(self._request, lost[0])

    def _extend(self, role: str, parts: Iterable[Block]) -> None:
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(parts)
        else:
            self._turns.append((role, list(parts)))

    def _ordered(self) -> Iterable[tuple[str, list[Block]]]:
        for role, parts in self._turns:
            if role == "user" and any(map(_is_result, parts)):
                # Stable, so that nothing moves where the order is right already.
                parts.sort(key=lambda part: not _is_result(part))
            yield role, parts


def _is_result(part: Block) -> bool:
    return isinstance(part, dict) and "functionResponse" in part


# Tools


def _tools(request: Request, renderer: Renderer) -> list[Block]:
    """Functions that stand next to each other share an object, as they do in what Google writes."""
    written: list[Block] = []
    functions: list[dict[str, Any]] | None = None
    shared: dict[str, Any] | None = None
    for i, tool in enumerate(request.tools):
        joined = JOINED in tool.extra
        if tool.kind != "function":
            if not renderer.own or tool.raw is None:
                renderer.lose("lost", f"tools[{i}]", tool.kind, "a tool that only its own format knows")
                renderer.cache(tool.cache, f"tools[{i}]")
            elif joined and shared is not None:
                shared.update(msgspec.json.decode(tool.raw, type=dict[str, Raw]))
            else:
                following = request.tools[i + 1 : i + 2]
                is_shared = any(other.kind != "function" and JOINED in other.extra for other in following)
                shared = {**msgspec.json.decode(tool.raw, type=dict[str, Raw])} if is_shared else None
                written.append(Raw(tool.raw) if shared is None else shared)
                functions = None
            continue
        if functions is None or joined:
            functions = []
            shared = {"functionDeclarations": functions}
            written.append(shared)
        functions.append(_function(tool, f"tools[{i}]", renderer))
    return written


def _function(tool: Tool, path: str, renderer: Renderer) -> dict[str, Any]:
    value: dict[str, Any] = {"name": tool.name}
    extra = tool.extra
    if tool.description is not None:
        value["description"] = tool.description
    if tool.schema:
        if renderer.own and (mark := extra.get("parameters")) is not None:
            value["parameters"] = from_json_schema(tool.schema, mark)
        else:
            value["parametersJsonSchema"] = Raw(tool.schema)
    if not renderer.own and tool.strict:
        renderer.lose("lost", f"{path}.strict", "strict", "functions have no such setting here")
    renderer.cache(tool.cache, path)
    return renderer.add_extra({name: raw for name, raw in extra.items() if name != JOINED}, path, value)


def _tool_choice(request: Request, renderer: Renderer, body: dict[str, Any]) -> None:
    choice = request.tool_choice
    if request.parallel_tool_calls is False:
        renderer.lose("lost", "parallel_tool_calls", "parallel_tool_calls", "this format has no such setting")
    if choice is None:
        return
    path, config = "tool_choice", dict[str, Any]()
    if not renderer.own and choice.mode in ("required", "tool", "allowed") and "tools" not in body:
        renderer.lose("lost", path, path, "there is no tool to choose")
        return
    if not renderer.own and choice.kind == "custom":
        renderer.lose("lost", path, choice.names[0] if choice.names else path, "this tool could not be declared")
        return
    match choice.mode:
        case "auto":
            config["mode"] = "AUTO"
        case "none":
            config["mode"] = "NONE"
        case "allowed" if not choice.required:
            # The mode that takes a list and leaves the model its choice; it also keeps to the schemas.
            config["mode"] = "VALIDATED"
            if not renderer.own:
                renderer.lose("emulated", path, "allowed tools", "the mode VALIDATED stands for auto with a list")
        case _:
            config["mode"] = "ANY"
    if choice.names:
        config["allowedFunctionNames"] = list(choice.names)
    if renderer.own and (spelled := choice.extra.get("mode")) is not None:
        config["mode"] = config["mode"].lower() if spelled == NULL else spelled
    body["toolConfig"] = {"functionCallingConfig": renderer.add_extra(choice.extra, path, config)}


# Settings


def _config(request: Request, facts: UpstreamFacts, renderer: Renderer) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, value in (
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("topK", request.top_k),
        ("candidateCount", request.n),
        ("maxOutputTokens", request.max_output_tokens),
        ("seed", request.seed),
        ("presencePenalty", request.presence_penalty),
        ("frequencyPenalty", request.frequency_penalty),
        ("responseLogprobs", request.logprobs),
        ("logprobs", request.top_logprobs),
    ):
        if value is not None:
            config[name] = value
    if request.stop:
        stop = list(request.stop)
        if not renderer.own and len(stop) > _MAX_STOPS:
            for i in range(_MAX_STOPS, len(stop)):
                renderer.lose("lost", f"stop[{i}]", "stop", f"no more than {_MAX_STOPS} are taken")
            stop = stop[:_MAX_STOPS]
        config["stopSequences"] = stop
    if request.response_format is not None:
        _response_format(request.response_format, renderer, config)
    if (options := request.reasoning) is not None:
        if renderer.own:
            thinking = _own_thinking(options)
        else:
            thinking = _foreign_thinking(options, request.model, facts, renderer)
        if thinking:
            config["thinkingConfig"] = thinking
    return config


def _response_format(spec: ResponseFormat, renderer: Renderer, config: dict[str, Any]) -> None:
    if spec.kind == "text":
        if renderer.own:
            config["responseMimeType"] = "text/plain"
        return
    config["responseMimeType"] = JSON
    if spec.kind == "json_object":
        return
    if spec.schema is None:
        raise DecodeError("response_format.schema", "expected an object, but it is missing")
    if renderer.own and (mark := spec.extra.get("responseSchema")) is not None:
        config["responseSchema"] = from_json_schema(spec.schema, mark)
        return
    config["responseJsonSchema"] = Raw(spec.schema)
    if renderer.own:
        return
    if spec.name is not None:
        renderer.lose("emulated", "response_format.name", "name", "the schema stands without it")
    if spec.description is not None:
        renderer.lose("lost", "response_format.description", "description", "a format has none here")
    if spec.strict is False:
        renderer.lose("emulated", "response_format.strict", "strict", "a schema is always kept to")
    renderer.add_extra(spec.extra, "response_format", {})


def _own_thinking(options: ReasoningOptions) -> dict[str, Any]:
    thinking: dict[str, Any] = {}
    if options.summary is not None:
        thinking["includeThoughts"] = True
    if options.mode in ("disabled", "adaptive"):
        thinking["thinkingBudget"] = 0 if options.mode == "disabled" else -1
    elif options.budget_tokens is not None:
        thinking["thinkingBudget"] = options.budget_tokens
    if options.effort is not None:
        small = "thinkingLevel" in options.extra
        thinking["thinkingLevel"] = options.effort if small else options.effort.upper()
    put_extra(thinking, options.extra)
    return thinking


def _foreign_thinking(
    options: ReasoningOptions, model: str, facts: UpstreamFacts, renderer: Renderer
) -> dict[str, Any]:
    thinking: dict[str, Any] = {}
    effort, mode, budget = options.effort, options.mode, options.budget_tokens
    old = facts.options.get("thinking", "budget" if _OLD.search(model) else "level") == "budget"
    if options.summary is not None or mode in ("enabled", "adaptive"):
        # Who asks for thinking there is shown the thoughts.
        thinking["includeThoughts"] = True
    if effort == "none" or mode == "disabled":
        thinking["thinkingBudget"] = 0
        if effort not in (None, "none"):
            renderer.lose("lost", "reasoning.effort", effort or "", "thinking is switched off")
    elif budget is not None:
        thinking["thinkingBudget"] = budget
        if effort is not None:
            renderer.lose("lost", "reasoning.effort", effort, "the budget stands, and there is room for one of them")
    elif effort is not None and old:
        if effort in _BUDGETS:
            thinking["thinkingBudget"] = _BUDGETS[effort]
            renderer.lose(
                "emulated", "reasoning.effort", effort, f"a budget of {_BUDGETS[effort]} tokens stands for it"
            )
        else:
            renderer.lose("lost", "reasoning.effort", effort, "this model knows no such effort")
    elif effort is not None:
        if effort not in _LEVELS and effort not in _BUDGETS:
            renderer.lose("lost", "reasoning.effort", effort, "this model knows no such effort")
        else:
            thinking["thinkingLevel"] = _LEVELS.get(effort, "HIGH")
            if effort not in _LEVELS:
                renderer.lose("emulated", "reasoning.effort", effort, "the most here is HIGH")
    elif mode in ("adaptive", "enabled") and old:
        thinking["thinkingBudget"] = -1
        if mode == "enabled":
            renderer.lose("emulated", "reasoning.mode", mode, "how much, the model decides")
    elif mode in ("adaptive", "enabled"):
        renderer.lose("emulated", "reasoning.mode", mode, "this model thinks unless told otherwise")
    elif mode is not None:
        renderer.lose("lost", "reasoning.mode", mode, "no such mode of thinking here")
    renderer.add_extra(options.extra, "reasoning", {})
    return thinking


def _rest(request: Request, renderer: Renderer, body: dict[str, Any]) -> None:
    """What stands at the top of a body, and what this API has no setting for; defaults are no loss."""
    if (tier := request.service_tier) is not None:
        if renderer.own:
            body["serviceTier"] = tier
        elif (word := _TIERS.get(tier)) is not None:
            body["serviceTier"] = word
            if word != tier:
                renderer.lose("emulated", "service_tier", tier, f"said as {word}")
        elif tier != "auto":
            renderer.lose("lost", "service_tier", "service_tier", f"{tier} has no counterpart")
    if request.metadata is not None:
        pairs = request.metadata
        if renderer.own or (pairs and all(_LABEL.match(word) for pair in pairs.items() for word in pair)):
            body["labels"] = dict(pairs)
        elif pairs:
            renderer.lose("lost", "metadata", "metadata", "labels here are small letters, digits, _ and - only")
    renderer.cache(request.cache, "")
    if renderer.own:
        for name in ("generationConfig", "toolConfig"):
            if any(key.startswith(f"{name}.") for key in request.extra):
                body.setdefault(name, {})
        put_extra(body, request.extra)
        return
    renderer.add_extra(request.extra, "", {})
    missing = {
        "user": request.user,
        "verbosity": request.verbosity,
        "logit_bias": None if request.logit_bias in (None, b"{}") else request.logit_bias,
    }
    for name, value in missing.items():
        if value is not None:
            renderer.lose("lost", name, name, "this format has no such setting")
