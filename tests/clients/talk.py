"""A conversation as users of each SDK hold it: the same few verbs, so that one test serves both formats of callers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import anthropic
import openai

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Begin ``work``; the caller awaits it."""
    return asyncio.get_running_loop().create_task(work)


OPENAI, ANTHROPIC = "openai", "anthropic"
CALLERS = (OPENAI, ANTHROPIC)
MODELS = {OPENAI: "gpt-5.4", ANTHROPIC: "claude-fake-4-5"}
"""A model of each provider; the gateway chooses the provider by it."""

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"], "additionalProperties": False}


@dataclass
class Heard:
    """An answer as the SDK understood it. ``tokens`` are all input, the cached part of it, output. ``calls``: id, name and
    arguments, parsed."""

    text: str
    stop: str | None
    tokens: tuple[int, int, int] | None
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    thinking: str = ""
    signatures: list[str] = field(default_factory=list)
    raw: Any = None


class Talk(Protocol):
    """A conversation. ``hear`` sends it and appends the answer exactly as the SDK gave it."""

    messages: list[Any]
    options: dict[str, Any]

    def say(self, text: str) -> None: ...

    def show(self, text: str, *, data: str | None = None, url: str | None = None) -> None: ...

    def give(self, results: Mapping[str, str]) -> None: ...

    def tools(self, *names: str) -> None: ...

    async def hear(self) -> Heard: ...


class OpenAITalk:
    """Chat Completions."""

    def __init__(self, client: openai.AsyncOpenAI, model: str, stream: bool) -> None:
        self.client = client
        self.model = model
        self.stream = stream
        self.messages: list[Any] = [{"role": "system", "content": "You are terse."}]
        self.options: dict[str, Any] = {}

    def say(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def show(self, text: str, *, data: str | None = None, url: str | None = None) -> None:
        image = url or f"data:image/png;base64,{data}"
        parts = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image}}]
        self.messages.append({"role": "user", "content": parts})

    def give(self, results: Mapping[str, str]) -> None:
        self.messages += [{"role": "tool", "tool_call_id": id, "content": text} for id, text in results.items()]

    def tools(self, *names: str) -> None:
        self.options["tools"] = [
            {"type": "function", "function": {"name": name, "description": "Looks.", "parameters": SCHEMA}}
            for name in names
        ]

    async def hear(self) -> Heard:
        arguments: dict[str, Any] = {"model": self.model, "messages": self.messages, **self.options}
        if self.stream:
            arguments["stream_options"] = {"include_usage": True}
            async with self.client.chat.completions.stream(**arguments) as stream:
                completion: Any = await stream.get_final_completion()
        else:
            completion = await self.client.chat.completions.create(**arguments)
        choice = completion.choices[0]
        message = choice.message
        self.messages.append(_turn(message) if self.stream else message)
        usage = completion.usage
        tokens = None
        if usage is not None:
            details = usage.prompt_tokens_details
            cached = details.cached_tokens if details is not None else None
            tokens = (usage.prompt_tokens, cached or 0, usage.completion_tokens)
        return Heard(
            message.content or "",
            choice.finish_reason,
            tokens,
            [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()],
            getattr(message, "reasoning_content", None) or "",
            [],
            completion,
        )


def _turn(message: Any) -> dict[str, Any]:
    """The turn without what the streaming helper added to it, for itself (``parsed`` and the like)."""
    turn: dict[str, Any] = {"role": "assistant", "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": call.function.model_dump(include={"name", "arguments"})}
            for call in message.tool_calls
        ]
    if getattr(message, "reasoning_content", None):
        turn["reasoning_content"] = message.reasoning_content
    return turn


class AnthropicTalk:
    """Messages."""

    def __init__(self, client: anthropic.AsyncAnthropic, model: str, stream: bool) -> None:
        self.client = client
        self.model = model
        self.stream = stream
        self.messages: list[Any] = []
        self.options: dict[str, Any] = {"max_tokens": 4096, "system": "You are terse."}

    def say(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def show(self, text: str, *, data: str | None = None, url: str | None = None) -> None:
        source = {"type": "url", "url": url} if url else {"type": "base64", "media_type": "image/png", "data": data}
        self.messages.append(
            {"role": "user", "content": [{"type": "text", "text": text}, {"type": "image", "source": source}]}
        )

    def give(self, results: Mapping[str, str]) -> None:
        blocks = [{"type": "tool_result", "tool_use_id": id, "content": text} for id, text in results.items()]
        self.messages.append({"role": "user", "content": blocks})

    def tools(self, *names: str) -> None:
        self.options["tools"] = [{"name": name, "description": "Looks.", "input_schema": SCHEMA} for name in names]

    async def hear(self) -> Heard:
        arguments: dict[str, Any] = {"model": self.model, "messages": self.messages, **self.options}
        if self.stream:
            async with self.client.messages.stream(**arguments) as stream:
                message: Any = await stream.get_final_message()
        else:
            message = await self.client.messages.create(**arguments)
        self.messages.append({"role": "assistant", "content": message.content})
        blocks, usage = message.content, message.usage
        cached = usage.cache_read_input_tokens or 0
        everything = usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0)
        return Heard(
            "".join(block.text for block in blocks if block.type == "text"),
            message.stop_reason,
            (everything, cached, usage.output_tokens),
            [(block.id, block.name, block.input) for block in blocks if block.type == "tool_use"],
            "".join(block.thinking for block in blocks if block.type == "thinking"),
            [block.signature for block in blocks if block.type == "thinking"],
            message,
        )
