"""What goes into a ledger, and where: losses that are found in the IR, told in the words of the caller's format.

Writers of requests name what they lose by its place in the IR, ``messages[1].content[0].cache`` or ``reasoning.mode``; the
caller knows it as ``messages[0].content[0].cache_control`` and ``thinking.type``. A format that is not listed here keeps
the places of the IR.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Raw

from ..errors import DecodeError, Unsupported
from ..ir.loss import Loss
from ..ir.message import (
    CacheMark,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolCall,
    ToolResult,
)

MAX_LOSSES: Final = 100
"""A ledger takes no more; an answer of a thousand foreign blocks must not grow a list that does."""

KEPT: Final = "kept."
"""How the names of extra members begin that a reader notes down for its own format alone: an item's id, the echo of the
request in an answer. Their meaning is told elsewhere in the IR, or has none for anybody else."""

_NULL: Final = b"null"
_NOTHING: Final = frozenset({_NULL, b"false", b"[]", b'""'})
_EMPTY: Final = frozenset(
    [
        *("logit_bias", "metadata", "prompt_cache_options", "stream_options", "output_config", "container"),
        *("content_filter_results", "stop_details", "options", "generationConfig", "toolConfig"),
    ]
)
"""Objects that say nothing while they are empty. Of others nobody knows: ``web_search_options: {}`` asks for a search."""

_PART: Final = re.compile(r"messages\[(\d+)\]\.content\[(\d+)\](.*)", re.DOTALL)
_MESSAGE: Final = re.compile(r"messages\[(\d+)\](.*)", re.DOTALL)
_INNER: Final = re.compile(r"\.content\[(\d+)\](.*)", re.DOTALL)
_TOOL: Final = re.compile(r"tools\[(\d+)\](.*)", re.DOTALL)
_HEAD: Final = re.compile(r"([^.\[]*)(.*)", re.DOTALL)


def says_something(name: str, raw: Raw) -> bool:
    """Whether an unknown member means anything, so that another format loses something without it."""
    value = bytes(raw)
    return value not in _NOTHING and not (value == b"{}" and name in _EMPTY) and not name.startswith(KEPT)


def in_the_callers_words(request: Request, losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """Return the losses of ``request``, whose paths are places in the IR, with the paths that its caller knows."""
    words = _WORDS.get(request.format)
    if words is None:
        return tuple(losses)
    caller = words(request)
    return tuple(Loss(loss.kind, caller.path(loss.path), loss.what, loss.why) for loss in losses)


def refused(request: Request, loss: Loss) -> Unsupported:
    """Return the error that says, in the words of its caller, what of ``request`` a format cannot say at all."""
    (told,) = in_the_callers_words(request, (loss,))
    what = f"{told.what}: " if told.what else ""
    return Unsupported(f"{told.path}: {what}{told.why}", param=told.path)


def in_place(request: Request, fault: DecodeError) -> DecodeError:
    """Return ``fault``, found at a place of the IR while ``request`` was written, with the path that its caller knows."""
    (told,) = in_the_callers_words(request, (Loss("lost", fault.path, "", fault.why),))
    return DecodeError(told.path, fault.why, kind=fault.kind)


class _Caller(ABC):
    """The paths of one request of a format. ``places`` remembers where the parts of a message stand."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.places: dict[int, Sequence[str]] = {}

    def path(self, path: str) -> str:
        """Return the caller's path for a place in the IR."""
        request = self.request
        if path in request.extra:
            return path
        if (found := _PART.fullmatch(path)) and int(found[1]) < len(request.messages):
            number, position = int(found[1]), int(found[2])
            message = request.messages[number]
            if number not in self.places:
                self.places[number] = self.parts(message, self.message(number))
            if position < len(message.parts):
                return self._within(message.parts[position], self.places[number][position], found[3])
        if (found := _MESSAGE.fullmatch(path)) and int(found[1]) < len(request.messages):
            return self.message(int(found[1])) + found[2]
        if (found := _TOOL.fullmatch(path)) and int(found[1]) < len(request.tools):
            return self.tool(int(found[1]), found[2])
        return self.setting(path)

    def _within(self, part: Part, place: str, rest: str) -> str:
        """Where ``rest`` of a part is that stands at ``place``."""
        inner = _INNER.fullmatch(rest) if isinstance(part, ToolResult) else None
        if inner is not None and isinstance(part, ToolResult) and int(inner[1]) < len(part.content):
            at = f"{place}.content" if part.brief else f"{place}.content[{inner[1]}]"
            return self._within(part.content[int(inner[1])], at, inner[2])
        head, dot, tail = rest.removeprefix(".").partition(".")
        if not isinstance(part, Opaque) and bytes(part.extra.get(f"{head}{dot}{tail}", _NULL)) != _NULL:
            return place + rest
        if head == "cache" and not isinstance(part, (Reasoning, Refusal)):
            head = self.mark(part.cache)
        elif head:
            head = self.member(part, head)
        return f"{place}.{head}{dot}{tail}" if head else place

    @abstractmethod
    def message(self, number: int) -> str:
        """The path of a message."""

    @abstractmethod
    def parts(self, message: Message, at: str) -> Sequence[str]:
        """The paths of the parts of a message that stands at ``at``."""

    @abstractmethod
    def member(self, part: Part, name: str) -> str:
        """The caller's name for what the IR calls ``name`` in a part."""

    @abstractmethod
    def mark(self, cache: CacheMark | None) -> str:
        """The name of a cache mark."""

    @abstractmethod
    def tool(self, number: int, rest: str) -> str:
        """The path of ``rest`` of a tool."""

    @abstractmethod
    def setting(self, path: str) -> str:
        """The path of a setting."""


class _OpenAIChat(_Caller):
    """Chat Completions: calls, reasoning and refusals are members of a message, a result is a message of its own."""

    def message(self, number: int) -> str:
        return f"messages[{number}]"

    def parts(self, message: Message, at: str) -> Sequence[str]:
        places: list[str] = []
        contents = calls = 0
        for part in message.parts:
            if isinstance(part, ToolResult):
                places.append(at)
            elif isinstance(part, ToolCall) and part.id and "id" in part.extra:
                places.append(f"{at}.function_call")
            elif isinstance(part, ToolCall):
                places.append(f"{at}.tool_calls[{calls}]")
                calls += 1
            elif isinstance(part, Reasoning):
                places.append(f"{at}.{part.origin.partition(':')[2] or 'reasoning_content'}")
            elif isinstance(part, Refusal) and "refusal" in part.extra:
                places.append(f"{at}.refusal")
            elif isinstance(part, Media) and part.kind == "audio" and part.file_id is not None:
                places.append(f"{at}.audio")
            else:
                places.append(f"{at}.content" if message.brief else f"{at}.content[{contents}]")
                contents += 1
        return places

    def _within(self, part: Part, place: str, rest: str) -> str:
        if isinstance(part, Reasoning) and rest.removeprefix(".") in part.extra:
            return place.rpartition(".")[0] + rest  # it stands beside the words, in the message
        return super()._within(part, place, rest)

    def member(self, part: Part, name: str) -> str:
        if isinstance(part, ToolCall) and name == "arguments":
            if part.id and "id" in part.extra:
                return name
            return "custom.input" if part.kind == "custom" else "function.arguments"
        if isinstance(part, ToolResult) and name == "id":
            return "tool_call_id"
        # What kind of image it is stands in its address, data:image/png.
        in_media = {"detail": "image_url.detail", "media_type": "image_url.url", "name": "file.filename"}
        return in_media.get(name, name) if isinstance(part, Media) else name

    def mark(self, cache: CacheMark | None) -> str:
        spelled = cache is not None and "prompt_cache_breakpoint" in cache.extra
        return "prompt_cache_breakpoint" if spelled else "cache_control"

    def tool(self, number: int, rest: str) -> str:
        older = self._is_spelled("functions")
        if rest == ".cache":
            rest = f".{self.mark(self.request.tools[number].cache)}"
        elif rest == ".input_schema":
            rest = ".parameters" if older else ".function.parameters"
        elif rest == ".strict" and not older:
            rest = ".function.strict"
        return f"{'functions' if older else 'tools'}[{number}]{rest}"

    def setting(self, path: str) -> str:
        head, rest = _split(path)
        if head == "cache":
            return self.mark(self.request.cache) + rest
        if head == "reasoning":
            return "reasoning_effort"
        if path == "max_output_tokens":
            return "max_tokens" if self._is_spelled("max_tokens") else "max_completion_tokens"
        if head == "tool_choice" and self._is_spelled("function_call"):
            return f"function_call{rest}"
        if path == "tools" and self._is_spelled("functions"):
            return "functions"
        if path == "user" and self._is_spelled("safety_identifier"):
            return "safety_identifier"
        if path in _OF_A_SCHEMA:
            return f"{head}.json_schema{rest}"
        return path

    def _is_spelled(self, name: str) -> bool:
        """Whether the reader marked that this older spelling was used."""
        return bytes(self.request.extra.get(name, b"")) == _NULL


_OF_A_SCHEMA: Final = frozenset(f"response_format.{name}" for name in ("name", "description", "strict", "schema"))


class _AnthropicMessages(_Caller):
    """The Messages API: the first message of the IR is mostly the parameter ``system``."""

    def message(self, number: int) -> str:
        first = self.request.messages[0]
        if first.role != "system" or "role" in first.extra:
            return f"messages[{number}]"
        return f"messages[{number - 1}]" if number else "system"

    def parts(self, message: Message, at: str) -> Sequence[str]:
        content = at if at == "system" else f"{at}.content"
        return [content if message.brief else f"{content}[{j}]" for j in range(len(message.parts))]

    def member(self, part: Part, name: str) -> str:
        if isinstance(part, ToolCall) and name == "arguments":
            return "input"
        if isinstance(part, ToolResult) and name == "id":
            return "tool_use_id"
        in_media = {"media_type": "source.media_type", "name": "title"}
        return in_media.get(name, name) if isinstance(part, Media) else name

    def mark(self, cache: CacheMark | None) -> str:
        return "cache_control"

    def tool(self, number: int, rest: str) -> str:
        return f"tools[{number}]{'.cache_control' if rest == '.cache' else rest}"

    def setting(self, path: str) -> str:
        if (whole := _ANTHROPIC.get(path)) is not None:
            return whole
        head, rest = _split(path)
        if head == "response_format" and "output_format" in self.request.extra:
            return f"output_format{rest}"
        return _ANTHROPIC.get(head, head) + rest


_ANTHROPIC: Final = {
    "cache": "cache_control",
    "max_output_tokens": "max_tokens",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "reasoning": "thinking",
    "reasoning.effort": "output_config.effort",
    "reasoning.mode": "thinking.type",
    "reasoning.summary": "thinking.display",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
    "user": "metadata.user_id",
}


class _OllamaChat(_Caller):
    """Ollama's chat: text, thinking, images and calls are members of a message, a result is a message of its own."""

    settings = {
        **{name: f"options.{name}" for name in ("temperature", "top_p", "top_k", "seed", "stop")},
        **{name: f"options.{name}" for name in ("frequency_penalty", "presence_penalty")},
        "max_output_tokens": "options.num_predict",
        "reasoning": "think",
        "reasoning.effort": "think",
        "reasoning.mode": "think",
        "response_format": "format",
        "response_format.schema": "format",
    }

    def message(self, number: int) -> str:
        return f"messages[{number}]"

    def parts(self, message: Message, at: str) -> Sequence[str]:
        places: list[str] = []
        images = calls = 0
        for part in message.parts:
            if isinstance(part, Media):
                places.append(self.within(at, f"images[{images}]"))
                images += 1
            elif isinstance(part, ToolCall):
                places.append(f"{at}.tool_calls[{calls}]")
                calls += 1
            elif isinstance(part, Reasoning):
                places.append(f"{at}.thinking")
            else:
                places.append(at if isinstance(part, ToolResult) else self.within(at, "content"))
        return places

    def _within(self, part: Part, place: str, rest: str) -> str:
        inner = _INNER.fullmatch(rest) if isinstance(part, ToolResult) else None
        if inner is None or not isinstance(part, ToolResult) or int(inner[1]) >= len(part.content):
            return super()._within(part, place, rest)
        # The images of a result stand beside its words, as those of any message do, and are read first.
        number = int(inner[1])
        is_image = isinstance(part.content[number], Media)
        at = self.within(place, f"images[{number}]" if is_image else "content")
        return super()._within(part.content[number], at, inner[2])

    def within(self, at: str, name: str) -> str:
        """The path of a member of a message."""
        return f"{at}.{name}"

    def member(self, part: Part, name: str) -> str:
        if isinstance(part, ToolCall) and name == "arguments":
            return "function.arguments"
        if isinstance(part, ToolResult) and name in ("id", "name"):
            return "tool_call_id" if name == "id" else "tool_name"
        return name

    def mark(self, cache: CacheMark | None) -> str:
        return "cache"  # there are none

    def tool(self, number: int, rest: str) -> str:
        return f"tools[{number}]{'.function.parameters' if rest == '.input_schema' else rest}"

    def setting(self, path: str) -> str:
        if (whole := self.settings.get(path)) is not None:
            return whole
        head, rest = _split(path)
        return self.settings.get(head, head) + rest


class _OllamaGenerate(_OllamaChat):
    """Ollama's generate: a message is the parameter ``system``, or ``prompt`` with the images beside it."""

    settings = {**_OllamaChat.settings, "messages": "prompt"}

    def message(self, number: int) -> str:
        return "system" if self.request.messages[number].role == "system" else "prompt"

    def within(self, at: str, name: str) -> str:
        return at if name == "content" else name


class _OpenAICompletions(_OllamaGenerate):
    """The legacy Completions: all that is said is the prompt."""

    settings = {"max_output_tokens": "max_tokens", "messages": "prompt", "top_logprobs": "logprobs"}


class _Gemini(_Caller):
    """generateContent: the first message of the IR is ``systemInstruction``, settings stand in ``generationConfig``."""

    def message(self, number: int) -> str:
        first = self.request.messages[0]
        if first.role != "system":
            return f"contents[{number}]"
        return f"contents[{number - 1}]" if number else "systemInstruction"

    def parts(self, message: Message, at: str) -> Sequence[str]:
        return [f"{at}.parts[{j}]" for j in range(len(message.parts))]

    def _within(self, part: Part, place: str, rest: str) -> str:
        inner = _INNER.fullmatch(rest) if isinstance(part, ToolResult) else None
        if inner is None or not isinstance(part, ToolResult) or int(inner[1]) >= len(part.content):
            return super()._within(part, place, rest)
        number = int(inner[1])
        words = sum(isinstance(item, Text) for item in part.content)
        if isinstance(part.content[number], Text):
            return f"{place}.functionResponse.response"
        at = f"{place}.functionResponse.parts[{number - words}]"
        return super()._within(part.content[number], at, inner[2])

    def member(self, part: Part, name: str) -> str:
        if isinstance(part, Reasoning) and name == "signature":
            return "thoughtSignature"
        if isinstance(part, (ToolCall, ToolResult)) and name in ("id", "name", "arguments", "is_error"):
            told = {"arguments": "args", "is_error": "response.error"}.get(name, name)
            return f"function{'Call' if isinstance(part, ToolCall) else 'Response'}.{told}"
        if isinstance(part, Media) and name in ("name", "media_type"):
            blob = "inlineData" if part.data is not None else "fileData"
            return f"{blob}.{'displayName' if name == 'name' else 'mimeType'}"
        return name

    def mark(self, cache: CacheMark | None) -> str:
        return "cachedContent"

    def tool(self, number: int, rest: str) -> str:
        """Functions share an object, as the writer puts them: ``tools[0].functionDeclarations[1]``."""
        outer = inner = -1
        functions = False
        for tool in self.request.tools[: number + 1]:
            apart = "tools" in tool.extra
            if tool.kind == "function":
                if not functions or apart:
                    outer, inner = outer + 1, -1
                functions, inner = True, inner + 1
            elif not apart:
                outer, functions = outer + 1, False
        tool = self.request.tools[number]
        if tool.kind != "function":
            return f"tools[{outer}].{tool.kind}{rest}"
        if rest == ".input_schema":
            rest = ".parameters"
        return f"tools[{outer}].functionDeclarations[{inner}]{rest}"

    def setting(self, path: str) -> str:
        head, rest = _split(path)
        if path == "reasoning.summary":
            return "generationConfig.thinkingConfig.includeThoughts"
        if path == "reasoning.effort":
            return "generationConfig.thinkingConfig.thinkingLevel"
        if path in ("reasoning.mode", "reasoning.budget_tokens"):
            return "generationConfig.thinkingConfig.thinkingBudget"
        if head == "response_format":
            if rest in ("", ".name", ".strict", ".schema"):
                wanted = self.request.response_format
                older = wanted is not None and "responseSchema" in wanted.extra
                schema = "responseSchema" if older else "responseJsonSchema"
                return f"generationConfig.{schema if rest else 'responseMimeType'}"
            return f"generationConfig{rest}"
        if head == "tool_choice" and path not in self.request.extra:
            return f"toolConfig.functionCallingConfig{rest}"
        return _GEMINI.get(head, head) + rest


_GEMINI: Final = {
    "cache": "cachedContent",
    "max_output_tokens": "generationConfig.maxOutputTokens",
    "max_tokens": "generationConfig.maxOutputTokens",
    "messages": "contents",
    "metadata": "labels",
    "n": "generationConfig.candidateCount",
    "reasoning": "generationConfig.thinkingConfig",
    "service_tier": "serviceTier",
    "stop": "generationConfig.stopSequences",
    "temperature": "generationConfig.temperature",
    "top_p": "generationConfig.topP",
    "top_k": "generationConfig.topK",
    "seed": "generationConfig.seed",
    "frequency_penalty": "generationConfig.frequencyPenalty",
    "presence_penalty": "generationConfig.presencePenalty",
    "logprobs": "generationConfig.responseLogprobs",
    "top_logprobs": "generationConfig.logprobs",
}


class _OpenAIResponses(_Caller):
    """Responses: the input is a list of items, and a turn of the assistant is several of them."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        taken = {int(name.rpartition(".")[2]) for name in request.extra if name.startswith("kept.input.")}
        self._items: dict[tuple[int, int], tuple[int, int]] = {}
        """The item of each part, and its place in there."""
        number, inner = -1, 0
        for position, message in enumerate(request.messages):
            if "kept.instructions" in message.extra:
                continue
            for place, part in enumerate(message.parts or (Opaque("", "", b""),)):
                whole = message.role != "assistant" or "kept.alone" in message.extra
                if place == 0 or not (whole or (not isinstance(part, Opaque) and "item" not in part.extra)):
                    number, inner = number + 1, -1
                    while number in taken:
                        number += 1
                inner += 1
                self._items[position, place] = number, inner

    def message(self, number: int) -> str:
        if "kept.instructions" in self.request.messages[number].extra:
            return "instructions"
        if bytes(self.request.extra.get("input", b"")) == _NULL:
            return "input"
        return f"input[{self._items[number, 0][0]}]"

    def parts(self, message: Message, at: str) -> Sequence[str]:
        if not at.startswith("input["):
            return [at] * len(message.parts)
        number = next(i for i, other in enumerate(self.request.messages) if other is message)
        places: list[str] = []
        for place, part in enumerate(message.parts):
            item, inner = self._items[number, place]
            path = f"input[{item}]"
            if isinstance(part, (Text, Media, Refusal)):
                brief = message.brief or "kept.brief" in part.extra
                path += ".content" if brief else f".content[{inner}]"
            elif isinstance(part, Opaque) and "kept.item" not in message.extra and message.role != "assistant":
                path += f".content[{inner}]"
            places.append(path)
        return places

    def _within(self, part: Part, place: str, rest: str) -> str:
        if rest.startswith(".item."):
            return place.partition(".content")[0] + rest.removeprefix(".item")
        inner = _INNER.fullmatch(rest) if isinstance(part, ToolResult) else None
        if inner is not None and isinstance(part, ToolResult) and int(inner[1]) < len(part.content):
            at = f"{place}.output" if part.brief else f"{place}.output[{inner[1]}]"
            return self._within(part.content[int(inner[1])], at, inner[2])
        return super()._within(part, place, rest)

    def member(self, part: Part, name: str) -> str:
        if isinstance(part, (ToolCall, ToolResult)) and name == "id":
            return "call_id"
        if isinstance(part, ToolCall) and name == "arguments":
            return "input" if part.kind == "custom" else name
        if isinstance(part, Reasoning) and name == "signature":
            return "encrypted_content"
        if isinstance(part, Media) and name == "name":
            return "filename"
        return "annotations" if name == "citations" else name

    def mark(self, cache: CacheMark | None) -> str:
        return "prompt_cache_breakpoint"

    def tool(self, number: int, rest: str) -> str:
        # One that stands among the input items has its path with it, a JSON string.
        told = self.request.tools[number].extra.get("kept.hoisted")
        at = f"tools[{number}]" if told is None else bytes(told).strip(b'"').decode()
        return f"{at}{'.parameters' if rest == '.input_schema' else rest}"

    def setting(self, path: str) -> str:
        head, rest = _split(path)
        if path == "messages":
            return "input"
        if head == "response_format":
            return f"text.format{rest}"
        if path == "reasoning.mode" and "mode" not in (self.request.reasoning.extra if self.request.reasoning else ()):
            return "reasoning.effort"
        if path == "user" and bytes(self.request.extra.get("safety_identifier", b"")) == _NULL:
            return "safety_identifier"
        if path == "logprobs":
            extra = self.request.extra
            return "include" if "include" in extra or "kept.include" in extra else "top_logprobs"
        return ("text.verbosity" if head == "verbosity" else head) + rest


_WORDS: Final[dict[str, Callable[[Request], _Caller]]] = {
    "anthropic.messages": _AnthropicMessages,
    "gemini": _Gemini,
    "ollama.chat": _OllamaChat,
    "ollama.generate": _OllamaGenerate,
    "openai.chat": _OpenAIChat,
    "openai.completions": _OpenAICompletions,
    "openai.responses": _OpenAIResponses,
}


def _split(path: str) -> tuple[str, str]:
    """The first name of a path, and the rest with its dot or bracket."""
    found = _HEAD.fullmatch(path)
    assert found is not None
    return found[1], found[2]
