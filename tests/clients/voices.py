"""One question put by each official SDK, unmodified, and its answer in words that all of them share."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeAlias

import anthropic
import httpx
import ollama
import openai
from google import genai
from google.genai import errors as genai_errors
from google.genai import types
from google.genai.client import AsyncClient

from ..fakes.gateway import CALLER_KEY

SCHEMA: Final[dict[str, Any]] = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}
TIMEOUT_S: Final = 10


class Voice(NamedTuple):
    """What an SDK made of an answer. ``tokens`` are input and output; ``calls`` names and arguments."""

    text: str
    calls: list[tuple[str, Any]]
    tokens: tuple[int | None, int | None]
    stop: str | None


class Refused(Exception):
    """The SDK raised its own error for a refusal: ``status``, and the message that it shows."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


Ask: TypeAlias = Callable[[str, str, bool, bool, ssl.SSLContext], Awaitable[Voice]]
"""Takes the gateway's base, a model, whether to stream, whether to offer a tool."""

_TOOL: Final = {"name": "look", "description": "Looks.", "parameters": SCHEMA}
_WORDS: Final = "What do you see?"


@asynccontextmanager
async def _openai(base: str, tls: ssl.SSLContext) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    client = openai.AsyncOpenAI(
        api_key=CALLER_KEY, base_url=base + "/v1", max_retries=0, timeout=TIMEOUT_S, http_client=http
    )
    async with client:
        try:
            yield client
        except openai.APIStatusError as error:
            raise Refused(error.status_code, str(error.message)) from error
        except openai.APIError as error:
            raise Refused(200, str(error.message)) from error
        except RuntimeError as error:  # how the helper for streamed responses says that one was not completed
            raise Refused(200, str(error)) from error


async def ask_chat(base: str, model: str, stream: bool, tools: bool, tls: ssl.SSLContext) -> Voice:
    """OpenAI's SDK, Chat Completions."""
    more: dict[str, Any] = {"tools": [{"type": "function", "function": _TOOL}]} if tools else {}
    async with _openai(base, tls) as client:
        messages: Any = [{"role": "user", "content": _WORDS}]
        if stream:
            more["stream_options"] = {"include_usage": True}
            async with client.chat.completions.stream(model=model, messages=messages, **more) as running:
                answer: Any = await running.get_final_completion()
        else:
            answer = await client.chat.completions.create(model=model, messages=messages, **more)
    choice = answer.choices[0]
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]
    tokens = (answer.usage.prompt_tokens, answer.usage.completion_tokens) if answer.usage else (None, None)
    return Voice(choice.message.content or "", calls, tokens, choice.finish_reason)


async def ask_responses(base: str, model: str, stream: bool, tools: bool, tls: ssl.SSLContext) -> Voice:
    """OpenAI's SDK, Responses."""
    more: dict[str, Any] = {"tools": [{"type": "function", "strict": False, **_TOOL}]} if tools else {}
    async with _openai(base, tls) as client:
        if stream:
            async with client.responses.stream(model=model, input=_WORDS, **more) as running:
                answer: Any = await running.get_final_response()
        else:
            answer = await client.responses.create(model=model, input=_WORDS, **more)
    calls = [(item.name, json.loads(item.arguments)) for item in answer.output if item.type == "function_call"]
    tokens = (answer.usage.input_tokens, answer.usage.output_tokens) if answer.usage else (None, None)
    return Voice(answer.output_text, calls, tokens, answer.status)


async def ask_completions(base: str, model: str, stream: bool, tools: bool, tls: ssl.SSLContext) -> Voice:
    """OpenAI's SDK, the legacy Completions, which know no tools."""
    async with _openai(base, tls) as client:
        if not stream:
            answer = await client.completions.create(model=model, prompt=_WORDS)
            usage = answer.usage
            tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (None, None)
            return Voice(answer.choices[0].text, [], tokens, answer.choices[0].finish_reason)
        text, stop, tokens = "", None, (None, None)
        running = await client.completions.create(
            model=model, prompt=_WORDS, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in running:
            for choice in chunk.choices:
                text += choice.text
                stop = choice.finish_reason or stop
            if chunk.usage is not None:
                tokens = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        return Voice(text, [], tokens, stop)


async def ask_messages(base: str, model: str, stream: bool, tools: bool, tls: ssl.SSLContext) -> Voice:
    """Anthropic's SDK."""
    more: dict[str, Any] = {"tools": [{"name": "look", "input_schema": SCHEMA}]} if tools else {}
    http = anthropic.DefaultAsyncHttpxClient(verify=tls)
    client = anthropic.AsyncAnthropic(
        api_key=CALLER_KEY, base_url=base, max_retries=0, timeout=TIMEOUT_S, http_client=http
    )
    messages: Any = [{"role": "user", "content": _WORDS}]
    async with client:
        try:
            if stream:
                async with client.messages.stream(model=model, messages=messages, max_tokens=100, **more) as running:
                    answer: Any = await running.get_final_message()
            else:
                answer = await client.messages.create(model=model, messages=messages, max_tokens=100, **more)
        except anthropic.APIStatusError as error:
            raise Refused(error.status_code, str(error.message)) from error
    text = "".join(block.text for block in answer.content if block.type == "text")
    calls = [(block.name, block.input) for block in answer.content if block.type == "tool_use"]
    return Voice(text, calls, (answer.usage.input_tokens, answer.usage.output_tokens), answer.stop_reason)


@asynccontextmanager
async def gemini_client(base: str, key: str, tls: ssl.SSLContext) -> AsyncIterator[AsyncClient]:
    """Google's SDK, pointed at the gateway as its users point it."""
    sync, http = httpx.Client(verify=tls), httpx.AsyncClient(verify=tls, timeout=TIMEOUT_S)
    options = types.HttpOptions(
        base_url=base + "/",
        timeout=TIMEOUT_S * 1000,
        httpx_client=sync,
        httpx_async_client=http,
        retry_options=types.HttpRetryOptions(attempts=1),
    )
    async with http:  # the SDK closes only what it opened
        with sync:
            yield genai.Client(api_key=key, http_options=options).aio


async def ask_gemini(base: str, model: str, stream: bool, tools: bool, tls: ssl.SSLContext) -> Voice:
    """Google's SDK."""
    declared = types.FunctionDeclaration(name="look", description="Looks.", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])] if tools else None)
    async with gemini_client(base, CALLER_KEY, tls) as client:
        try:
            if stream:
                pieces = [
                    piece
                    async for piece in await client.models.generate_content_stream(
                        model=model, contents=_WORDS, config=config
                    )
                ]
            else:
                pieces = [await client.models.generate_content(model=model, contents=_WORDS, config=config)]
        except genai_errors.APIError as error:
            raise Refused(int(error.code), str(error.message)) from error
    parts = [
        part
        for piece in pieces
        for candidate in piece.candidates or ()
        for part in (candidate.content.parts if candidate.content else None) or ()
    ]
    calls = [(part.function_call.name or "", part.function_call.args) for part in parts if part.function_call]
    last = pieces[-1]
    usage, candidates = last.usage_metadata, last.candidates
    stop = candidates[0].finish_reason if candidates else None
    return Voice(
        "".join(part.text or "" for part in parts if not part.thought),
        calls,
        (usage.prompt_token_count, usage.candidates_token_count) if usage else (None, None),
        stop.value if stop else None,
    )


def _ollama(base: str, tls: ssl.SSLContext) -> ollama.AsyncClient:
    headers = {"authorization": f"Bearer {CALLER_KEY}"}
    return ollama.AsyncClient(base, headers=headers, verify=tls, timeout=TIMEOUT_S)


async def ask_ollama_chat(base: str, model: str, stream: bool, tools: bool, tls: ssl.SSLContext) -> Voice:
    """Ollama's SDK, chat."""
    tool: Any = {"type": "function", "function": _TOOL}
    messages = [{"role": "user", "content": _WORDS}]
    client = _ollama(base, tls)
    more: dict[str, Any] = {"tools": [tool]} if tools else {}
    try:
        if stream:
            pieces = [piece async for piece in await client.chat(model, messages, stream=True, **more)]
        else:
            pieces = [await client.chat(model, messages, **more)]
    except ollama.ResponseError as error:
        raise Refused(error.status_code, error.error) from error
    finally:
        await client._client.aclose()
    calls = [
        (call.function.name, dict(call.function.arguments)) for each in pieces for call in each.message.tool_calls or ()
    ]
    last = pieces[-1]
    assert last.done
    text = "".join(each.message.content or "" for each in pieces)
    return Voice(text, calls, (last.prompt_eval_count, last.eval_count), last.done_reason)


async def ask_ollama_generate(base: str, model: str, stream: bool, tools: bool, tls: ssl.SSLContext) -> Voice:
    """Ollama's SDK, generate, which knows no tools."""
    client = _ollama(base, tls)
    try:
        if stream:
            pieces = [piece async for piece in await client.generate(model, _WORDS, stream=True)]
        else:
            pieces = [await client.generate(model, _WORDS)]
    except ollama.ResponseError as error:
        raise Refused(error.status_code, error.error) from error
    finally:
        await client._client.aclose()
    last = pieces[-1]
    assert last.done
    text = "".join(each.response or "" for each in pieces)
    return Voice(text, [], (last.prompt_eval_count, last.eval_count), last.done_reason)


CALLERS: Final[dict[str, Ask]] = {
    "openai.chat": ask_chat,
    "openai.responses": ask_responses,
    "openai.completions": ask_completions,
    "anthropic.messages": ask_messages,
    "gemini": ask_gemini,
    "ollama.chat": ask_ollama_chat,
    "ollama.generate": ask_ollama_generate,
}
WITHOUT_TOOLS: Final = frozenset({"openai.completions", "ollama.generate"})
