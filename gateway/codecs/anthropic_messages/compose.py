"""A request of any format into a Messages body: own requests as they came, foreign ones by this API's rules.

The body begins with what does not change from turn to turn (model, system, tools), then the messages in their order,
then the settings: turn n+1 begins with the bytes of turn n, which is what a provider's prompt cache lives on.

Switches a profile may set in ``UpstreamFacts.options``:

- ``anthropic_version``: the API version for foreign requests without sampling parameters; default 2023-06-01, which
  every compatible provider speaks. With temperature, top_p or top_k it is always 2023-06-01, the last that takes them.
- ``system_in_messages``: the model takes ``role: system`` after a user turn (Claude Opus 4.8 and later, no beta needed).
- ``thinking``: ``adaptive`` asks for adaptive thinking with a foreign reasoning effort.
- ``effort``: false when the model knows no ``output_config.effort`` (before Claude Opus 4.5).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw

from ...errors import DecodeError
from ...ir.loss import Loss
from ...ir.message import Media, Message, Request, ResponseFormat, Text, Tool, plain_text
from ...ir.words import words_of
from ..base import Encoded, UpstreamFacts
from ..ledger import in_place, in_the_callers_words, refused, says_something
from .members import FORMAT, is_object
from .render import Block, Renderer
from .schemas import closed
from .thinking import foreign_reasoning
from .version import HOTTEST, OLD_VERSION, version_for
from .wording import PATH, WORDING

_SPEAKERS: Final = frozenset({"user", "assistant"})


def encode_request(request: Request, facts: UpstreamFacts) -> Encoded:
    """Write ``request``. Raises CallerError for what cannot be said at all: broken arguments, a turn of audio alone."""
    try:
        return _encoded(request, facts)
    except DecodeError as fault:
        raise in_place(request, fault) from fault


def _encoded(request: Request, facts: UpstreamFacts) -> Encoded:
    if request.format != FORMAT and (short := _in_words(request, facts)) is not None:
        return short
    renderer = Renderer(own=request.format == FORMAT)
    body: dict[str, object] = {"model": request.model}
    head = _leading(request, renderer.own)
    if head:
        system = _system(request.messages[:head], renderer)
        if system is not None:
            body["system"] = system
    tools = _tools(request, renderer) if request.tools or request.tool_choice is not None else []
    if tools:
        body["tools"] = tools
    if renderer.own:
        body["messages"] = [
            {"role": it.role, "content": text}
            if it.brief and it.role in _SPEAKERS and (text := plain_text(it)) is not None
            else _own_message(it, head + i, renderer)
            for i, it in enumerate(request.messages[head:])
        ]
    else:
        body["messages"] = _Turns(request, renderer, facts).write(head)
    _settings(request, facts, renderer, body, bool(tools))
    if request.extra:
        renderer.add_extra(request.extra, "", body if renderer.own else {})
    losses = in_the_callers_words(request, renderer.losses) if renderer.losses else ()
    return Encoded(msgspec.json.encode(body), PATH, _headers(request, facts, renderer.own), losses)


def _in_words(request: Request, facts: UpstreamFacts) -> Encoded | None:
    """The short way, for a request of words alone that loses nothing here."""
    if any(says_something(name, raw) for name, raw in request.extra.items()):
        return None
    words = words_of(request)
    return None if words is None else WORDING.write(words, facts)


def _leading(request: Request, own: bool) -> int:
    """How many messages make up the ``system`` parameter."""
    messages = request.messages
    if own:
        first = messages[0] if messages else None
        return int(first is not None and first.role == "system" and "role" not in first.extra)
    count = 0
    while count < len(messages) and messages[count].role in ("system", "developer"):
        count += 1
    # A conversation needs a message: of nothing but instructions, the last one is what is asked.
    return count - 1 if count and count == len(messages) else count


def _system(messages: tuple[Message, ...], renderer: Renderer) -> object:
    if renderer.own:
        return _content(messages[0], "system", renderer)
    blocks: list[Block] = []
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        _note_message(message, path, renderer)
        blocks += _texts(message, path, renderer)
    if not blocks:
        return None
    only = blocks[0]
    if len(blocks) == 1 and isinstance(only, dict) and only.keys() == {"type", "text"}:
        return only["text"]
    return blocks


def _texts(message: Message, path: str, renderer: Renderer) -> list[Block]:
    """The blocks of a system message, which may hold texts only."""
    blocks: list[Block] = []
    for j, part in enumerate(message.parts):
        if not isinstance(part, Text):
            renderer.lose("lost", f"{path}.content[{j}]", type(part).__name__.lower(), "instructions are texts only")
        elif (block := renderer.block(part, f"{path}.content[{j}]")) is not None:
            blocks.append(block)
    return blocks


def _content(message: Message, path: str, renderer: Renderer) -> object:
    """The content of an own message, in its own spelling."""
    parts = message.parts
    if message.brief and len(parts) == 1 and isinstance(text := parts[0], Text) and text == Text(text.text):
        return text.text
    blocks = (renderer.block(part, f"{path}[{j}]") for j, part in enumerate(parts))
    return [block for block in blocks if block is not None]


def _own_message(message: Message, index: int, renderer: Renderer) -> dict[str, object]:
    path = f"messages[{index}]"
    role = {"developer": "system", "tool": "user"}.get(message.role, message.role)
    written: dict[str, object] = {"role": role}
    if message.parts or not message.brief:
        written["content"] = _content(message, f"{path}.content", renderer)
    return renderer.add_extra(message.extra, path, written)


def _note_message(message: Message, path: str, renderer: Renderer) -> None:
    if message.name is not None:
        renderer.lose("lost", f"{path}.name", "name", "messages have no name here")
    # A role is another format's word for the one that is written anyway.
    renderer.add_extra({name: raw for name, raw in message.extra.items() if name != "role"}, path, {})


class _Turns:
    """Foreign messages as turns: neighbours of one role become one turn, tool results stand first in theirs."""

    def __init__(self, request: Request, renderer: Renderer, facts: UpstreamFacts) -> None:
        self._request = request
        self._renderer = renderer
        self._system = facts.options.get("system_in_messages") is True
        self._turns: list[tuple[str, list[Block]]] = []

    def write(self, head: int) -> list[dict[str, object]]:
        messages = self._request.messages
        for i in range(head, len(messages)):
            message = messages[i]
            text = plain_text(message) if message.role in _SPEAKERS else None
            if text and not text.isspace():
                # Most messages are one text: what the long way makes of it, at a fraction of the price.
                self._extend(message.role, ({"type": "text", "text": text},))
            else:
                self._add(message, f"messages[{i}]")
        if not self._turns:
            raise refused(self._request, Loss("lost", "messages", "", "nothing is left to send to this format"))
        return [{"role": role, "content": blocks} for role, blocks in self._ordered()]

    def _add(self, message: Message, path: str) -> None:
        _note_message(message, path, self._renderer)
        if message.role in ("system", "developer"):
            self._add_system(message, path)
            return
        noted = len(self._renderer.losses)
        blocks: list[Block] = []
        for j, part in enumerate(message.parts):
            if message.role == "assistant" and isinstance(part, Media):
                self._renderer.lose("lost", f"{path}.content[{j}]", part.kind, "the model's own turns hold no files")
            elif (block := self._renderer.block(part, f"{path}.content[{j}]")) is not None:
                blocks.append(block)
        if blocks:
            self._extend("assistant" if message.role == "assistant" else "user", blocks)
        elif message.role != "assistant" and message.parts:
            lost = [loss for loss in self._renderer.losses[noted:] if loss.kind == "lost"]
            if lost:
                raise refused(self._request, lost[0])

    def _add_system(self, message: Message, path: str) -> None:
        blocks = _texts(message, path, self._renderer)
        if not blocks:
            return
        before = self._turns[-1][0] if self._turns else ""
        if self._system and before in ("user", "system"):
            self._extend("system", blocks)
            return
        self._renderer.lose("emulated", path, f"{message.role} message", "stands as a user's text, in its place")
        self._extend("user", blocks)

    def _extend(self, role: str, blocks: Iterable[Block]) -> None:
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(blocks)
        else:
            self._turns.append((role, list(blocks)))

    def _ordered(self) -> Iterable[tuple[str, list[Block]]]:
        for role, blocks in self._turns:
            if role == "user" and any(map(_is_result, blocks)):
                # Stable, so that nothing moves where the order is right already.
                blocks.sort(key=lambda block: not _is_result(block))
            yield role, blocks


def _is_result(block: Block) -> bool:
    return isinstance(block, dict) and block["type"] == "tool_result"


def _tools(request: Request, renderer: Renderer) -> list[Block]:
    written: list[Block] = []
    choice = request.tool_choice
    allowed = set(choice.names) if choice is not None and choice.mode == "allowed" else None
    for i, tool in enumerate(request.tools):
        path = f"tools[{i}]"
        if allowed is not None and tool.name not in allowed:
            renderer.lose("emulated", path, tool.name or tool.kind, "not among those that may be called: not declared")
            continue
        block = _tool(tool, path, renderer)
        if block is not None:
            written.append(block)
    if allowed is not None:
        renderer.lose("emulated", "tool_choice", "allowed tools", "only these are declared")
    return written


def _tool(tool: Tool, path: str, renderer: Renderer) -> Block | None:
    if tool.kind != "function":
        if renderer.own and tool.raw is not None:
            return Raw(tool.raw)
        renderer.lose("lost", path, tool.kind, "a tool that only its own format knows")
        return None
    block: dict[str, object] = {"name": tool.name}
    if renderer.own and "type" in tool.extra:
        block["type"] = "custom"
    if tool.description is not None:
        block["description"] = tool.description
    if tool.schema:
        block["input_schema"] = Raw(tool.schema)
    else:
        renderer.lose("minted", f"{path}.input_schema", "input_schema", "none was given: an object without members")
        block["input_schema"] = {"type": "object", "properties": {}}
    if tool.strict is not None:
        block["strict"] = tool.strict
    renderer.cache(tool.cache, path, block)
    return renderer.add_extra(tool.extra, path, block)


def _settings(
    request: Request, facts: UpstreamFacts, renderer: Renderer, body: dict[str, object], has_tools: bool
) -> None:
    if request.max_output_tokens is not None:
        body["max_tokens"] = request.max_output_tokens
    else:
        renderer.lose("minted", "max_tokens", "max_tokens", f"demanded here: {facts.max_output_tokens}, by the profile")
        body["max_tokens"] = facts.max_output_tokens
    if request.stream:
        body["stream"] = True
    if request.temperature is not None:
        body["temperature"] = request.temperature
        if request.temperature > HOTTEST and not renderer.own:
            body["temperature"] = HOTTEST
            renderer.lose("emulated", "temperature", "temperature", f"this API goes up to {HOTTEST}")
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.top_k is not None:
        body["top_k"] = request.top_k
    if request.stop:
        stop = [word for word in request.stop if renderer.own or word.strip()]
        if stop:
            body["stop_sequences"] = stop
        if len(stop) < len(request.stop):
            renderer.lose("lost", "stop", "stop", "a stop sequence of nothing but white space is refused")
    if request.tool_choice is not None or request.parallel_tool_calls is not None:
        _tool_choice(request, renderer, body, has_tools)
    if request.reasoning is not None or request.response_format is not None:
        _output(request, facts, renderer, body)
    if request.user is not None:
        metadata: dict[str, object] = {"user_id": request.user}
        body["metadata"] = _with(metadata, request, "metadata", renderer)
    if request.service_tier is not None:
        tier = request.service_tier if renderer.own else _TIERS.get(request.service_tier)
        if tier is not None:
            body["service_tier"] = tier
            if tier != request.service_tier:
                renderer.lose("emulated", "service_tier", request.service_tier, f"said as {tier}")
        else:
            renderer.lose("lost", "service_tier", "service_tier", f"{request.service_tier} has no counterpart")
    renderer.cache(request.cache, "", body)
    _note_missing(request, renderer)


_TIERS: Final = {"auto": "auto", "default": "standard_only", "standard": "standard_only"}


def _with(written: dict[str, object], request: Request, name: str, renderer: Renderer) -> dict[str, object]:
    """Add the unknown members of an own object that the reader left in ``extra``."""
    rest = request.extra.get(name)
    if renderer.own and rest is not None and is_object(rest):
        for key, raw in msgspec.json.decode(rest, type=dict[str, Raw]).items():
            written.setdefault(key, raw)
    return written


def _tool_choice(request: Request, renderer: Renderer, body: dict[str, object], has_tools: bool) -> None:
    choice, parallel = request.tool_choice, request.parallel_tool_calls
    if choice is None and parallel is not False and not renderer.own:
        return  # parallel calls are what this API does unless told otherwise
    if choice is None and parallel is None:
        return
    if not has_tools and not renderer.own:
        if choice is not None and choice.mode not in ("auto", "none"):
            renderer.lose("lost", "tool_choice", "tool_choice", "there is no tool to choose")
        elif choice is not None:
            renderer.add_extra(choice.extra, "tool_choice", {})
        return
    written: dict[str, object]
    if choice is None or choice.mode == "auto":
        written = {"type": "auto"}
    elif choice.mode == "none":
        written = {"type": "none"}
    elif choice.mode == "tool":
        written = {"type": "tool", "name": choice.names[0]}
        if not renderer.own and choice.kind == "custom":
            renderer.lose("lost", "tool_choice", choice.names[0], "this tool could not be declared")
            return
    elif choice.mode == "allowed" and not choice.required:
        written = {"type": "auto"}
    else:
        written = {"type": "any"}
    if parallel is not None and (renderer.own or (not parallel and written["type"] != "none")):
        written["disable_parallel_tool_use"] = not parallel
    body["tool_choice"] = renderer.add_extra(choice.extra, "tool_choice", written) if choice is not None else written


def _output(request: Request, facts: UpstreamFacts, renderer: Renderer, body: dict[str, object]) -> None:
    """``thinking``, and ``output_config`` with effort and format."""
    config: dict[str, object] = {}
    if request.reasoning is not None:
        if renderer.own:
            _own_reasoning(request, renderer, body, config)
        else:
            foreign_reasoning(request, facts, renderer, body, config)
    if request.response_format is not None:
        spec = _format(request.response_format, renderer)
        if spec is not None and renderer.own and "output_format" in request.extra:
            body["output_format"] = spec
        elif spec is not None:
            config["format"] = spec
    if config:
        body["output_config"] = _with(config, request, "output_config", renderer)


def _own_reasoning(request: Request, renderer: Renderer, body: dict[str, object], config: dict[str, object]) -> None:
    options = request.reasoning
    assert options is not None
    if options.mode is not None:
        thinking: dict[str, object] = {"type": options.mode}
        if options.budget_tokens is not None:
            thinking["budget_tokens"] = options.budget_tokens
        if options.summary is not None:
            thinking["display"] = "summarized"
        body["thinking"] = renderer.add_extra(options.extra, "thinking", thinking)
    if options.effort is not None:
        config["effort"] = options.effort


def _format(spec: ResponseFormat, renderer: Renderer) -> dict[str, object] | None:
    if spec.kind == "text":
        return None
    if spec.kind == "json_object":
        renderer.lose("lost", "response_format", "json_object", "JSON is promised for a schema only")
        return None
    if spec.schema is None:
        raise DecodeError("response_format.schema", "expected an object, but it is missing")
    if not renderer.own:
        if spec.name is not None:
            renderer.lose("emulated", "response_format.name", "name", "the schema stands without it")
        if spec.description is not None:
            renderer.lose("lost", "response_format.description", "description", "a format has none here")
        if spec.strict is False:
            renderer.lose("emulated", "response_format.strict", "strict", "a schema is always kept to")
    schema = spec.schema if renderer.own else closed(spec.schema, renderer)
    written: dict[str, object] = {"type": "json_schema", "schema": Raw(schema)}
    return renderer.add_extra(spec.extra, "response_format", written)


def _note_missing(request: Request, renderer: Renderer) -> None:
    """Settings that this API does not have; their defaults are no loss."""
    missing: list[str] = []
    if request.seed is not None:
        missing.append("seed")
    if request.n is not None and request.n != 1:
        missing.append("n")
    if request.frequency_penalty:
        missing.append("frequency_penalty")
    if request.presence_penalty:
        missing.append("presence_penalty")
    if request.logit_bias is not None and request.logit_bias != b"{}":
        missing.append("logit_bias")
    if request.logprobs:
        missing.append("logprobs")
    if request.top_logprobs:
        missing.append("top_logprobs")
    if request.verbosity is not None:
        missing.append("verbosity")
    if request.metadata:
        missing.append("metadata")
    for name in missing:
        renderer.lose("lost", name, name, "this format has no such setting")


def _headers(request: Request, facts: UpstreamFacts, own: bool) -> dict[str, str]:
    sampling = request.temperature is not None or request.top_p is not None or request.top_k is not None
    if own:
        headers = {"anthropic-version": facts.headers.get("anthropic-version", OLD_VERSION)}
        if (beta := facts.headers.get("anthropic-beta")) is not None:
            headers["anthropic-beta"] = beta
        return headers
    return {"anthropic-version": version_for(facts, sampling)}
