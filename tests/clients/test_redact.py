"""Redaction as users of the SDKs see it: the provider reads placeholders, the caller its own words."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Use, script
from ..server.house import serving

RULES = """
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
chains:
  safe: [{{redact: {{kinds: [email, secret], restore: true}}}}]
routes:
  - {{name: gpt, match: {{model: "gpt-*"}}, chain: safe, to: openai}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: safe, to: anthropic}}
"""
ASK: Any = [{"role": "user", "content": "Write to ann@corp.example, my token is AKIAIOSFODNN7EXAMPLE."}]
TOOL: dict[str, Any] = {"type": "object", "properties": {"at": {"type": "string"}}}
SAID = ("Writing to <EMAIL_1>, not to <EMAIL_7>.", '{"at": "<EMAIL_1>"}')
HEARD = ("Writing to ann@corp.example, not to <EMAIL_7>.", {"at": "ann@corp.example"})


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", ["gpt-5.4", "claude-fake-4-5"])
@pytest.mark.parametrize("caller", ["chat", "messages", "responses"])
async def test_there_and_back(tmp_path: Path, provider: FakeProvider, caller: str, model: str, stream: bool) -> None:
    provider.answer(script(Say(SAID[0]), Use("mail", SAID[1])))
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        base = f"http://127.0.0.1:{house.port}"
        if caller == "messages":
            heard = await by_messages(base, model, stream)
        elif caller == "chat":
            heard = await by_chat(base, model, stream)
        else:
            heard = await by_responses(base, model, stream)
    assert heard == HEARD
    sent = json.dumps(provider.last.json)
    assert "ann@corp" not in sent and "AKIA" not in sent
    assert "Write to <EMAIL_1>, my token is <SECRET_1>." in sent


async def by_chat(base: str, model: str, stream: bool) -> tuple[str, Any]:
    tools: Any = [{"type": "function", "function": {"name": "mail", "parameters": TOOL}}]
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as client:
        if stream:
            async with client.chat.completions.stream(model=model, messages=ASK, tools=tools) as answer:
                completion: Any = await answer.get_final_completion()
        else:
            completion = await client.chat.completions.create(model=model, messages=ASK, tools=tools)
    message = completion.choices[0].message
    return message.content, json.loads(message.tool_calls[0].function.arguments)


async def by_messages(base: str, model: str, stream: bool) -> tuple[str, Any]:
    tools: Any = [{"name": "mail", "input_schema": TOOL}]
    async with anthropic.AsyncAnthropic(base_url=base, api_key="none", max_retries=0) as client:
        asked: dict[str, Any] = {"model": model, "max_tokens": 99, "messages": ASK, "tools": tools}
        if stream:
            async with client.messages.stream(**asked) as answer:
                message: Any = await answer.get_final_message()
        else:
            message = await client.messages.create(**asked)
    return message.content[0].text, message.content[1].input


async def by_responses(base: str, model: str, stream: bool) -> tuple[str, Any]:
    tools: Any = [{"type": "function", "name": "mail", "parameters": TOOL, "strict": False}]
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as client:
        if stream:
            async with client.responses.stream(model=model, input=ASK, tools=tools) as answer:
                response: Any = await answer.get_final_response()
        else:
            response = await client.responses.create(model=model, input=ASK, tools=tools)
    (call,) = [item for item in response.output if item.type == "function_call"]
    return response.output_text, json.loads(call.arguments)


ANN = "ann@corp.example"
SLOWLY = (
    "Now <b>I</b> write to <EMAIL_1> or <EMAIL_7>, 1 < 2: <EMAIL_1>!",
    '{"at": "<EMAIL_1>", "cc": "<b> <E> <EMAIL_1>"}',
)


class Lockstep:
    """Lets a provider go on when the caller has heard all that was told, but for what may become a placeholder."""

    def __init__(self) -> None:
        self.told = ["", ""]
        self.heard = ["", ""]
        self._came = asyncio.Condition()

    async def hear(self, text: str | None, arguments: str | None) -> None:
        """The caller has more."""
        async with self._came:
            self.heard = [self.heard[0] + (text or ""), self.heard[1] + (arguments or "")]
            self._came.notify_all()

    async def heed(self, frame: bytes) -> None:
        """The provider told ``frame``. Raises TimeoutError where that waits for more."""
        found = re.search(rb"^data: (\{.*)", frame, re.MULTILINE)
        told = {} if found is None else json.loads(found[1])
        delta = (told.get("choices") or [{}])[0].get("delta") or told.get("delta") or {}
        calls = delta.get("tool_calls") or [{}]
        text = delta.get("content") or delta.get("text") or ""
        arguments = calls[0].get("function", {}).get("arguments") or delta.get("partial_json") or ""
        self.told = [self.told[0] + text, self.told[1] + arguments]
        wanted = [re.sub(r"<[A-Z_0-9]*\Z", "", each).replace("<EMAIL_1>", ANN) for each in self.told]
        async with asyncio.timeout(5), self._came:
            await self._came.wait_for(lambda: self.heard == wanted)


@pytest.mark.parametrize("model", ["gpt-5.4", "claude-fake-4-5"])
@pytest.mark.parametrize("caller", ["chat", "messages", "responses"])
@pytest.mark.parametrize("size", [1, 3, 8])
async def test_no_word_waits_for_the_next(
    tmp_path: Path, provider: FakeProvider, caller: str, model: str, size: int
) -> None:
    both = Lockstep()
    text, arguments = SLOWLY
    say, use = Say(text, -(-len(text) // size)), Use("mail", arguments, pieces=-(-len(arguments) // size))
    provider.answer(script(say, use, heed=both.heed))
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        await SLOW[caller](f"http://127.0.0.1:{house.port}", model, both)
    assert both.told == list(SLOWLY)
    assert both.heard == [each.replace("<EMAIL_1>", ANN) for each in SLOWLY]


async def hear_chat(base: str, model: str, both: Lockstep) -> None:
    tools: Any = [{"type": "function", "function": {"name": "mail", "parameters": TOOL}}]
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(model=model, messages=ASK, tools=tools, stream=True)
        async for chunk in answer:
            for choice in chunk.choices:
                calls: Any = choice.delta.tool_calls
                await both.hear(choice.delta.content, calls[0].function.arguments if calls else None)


async def hear_messages(base: str, model: str, both: Lockstep) -> None:
    tools: Any = [{"name": "mail", "input_schema": TOOL}]
    async with anthropic.AsyncAnthropic(base_url=base, api_key="none", max_retries=0) as client:
        async for event in await client.messages.create(
            model=model, max_tokens=99, messages=ASK, tools=tools, stream=True
        ):
            if event.type == "content_block_delta":
                delta: Any = event.delta
                await both.hear(getattr(delta, "text", None), getattr(delta, "partial_json", None))


async def hear_responses(base: str, model: str, both: Lockstep) -> None:
    tools: Any = [{"type": "function", "name": "mail", "parameters": TOOL, "strict": False}]
    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as client:
        async for event in await client.responses.create(model=model, input=ASK, tools=tools, stream=True):
            if event.type == "response.output_text.delta":
                await both.hear(event.delta, None)
            elif event.type == "response.function_call_arguments.delta":
                await both.hear(None, event.delta)


SLOW = {"chat": hear_chat, "messages": hear_messages, "responses": hear_responses}

KEPT = """
stores: {{disk: {{kind: {kind}}}}}
defaults: {{responses: {{store: disk}}}}
"""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["memory", "sqlite, path: kept.db"], ids=["memory", "sqlite"])
async def test_conversations_that_are_kept(tmp_path: Path, provider: FakeProvider, kind: str, stream: bool) -> None:
    provider.answer(script("Hello <EMAIL_1>."), script("You are <EMAIL_1>, and <EMAIL_2> too."))
    text = KEPT.format(kind=kind) + RULES.format(base=provider.base)
    async with serving(tmp_path, text) as house:
        base = f"http://127.0.0.1:{house.port}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as client:

            async def ask(**asked: Any) -> Any:
                if not stream:
                    return await client.responses.create(model="claude-fake-4-5", **asked)
                async with client.responses.stream(model="claude-fake-4-5", **asked) as answer:
                    return await answer.get_final_response()

            parts = [{"type": "input_text", "text": "I am ann@corp.example, AKIAIOSFO"}]
            parts.append({"type": "input_text", "text": "DNN7EXAMPLE"})
            first = await ask(input=[{"role": "user", "content": parts}])
            assert first.output_text == "Hello ann@corp.example."
            sent = provider.last.json["messages"]
            second = await ask(input="And bob@corp.example?", previous_response_id=first.id)
            assert provider.last.json["messages"][: len(sent)] == sent  # the prompt cache of the provider hits
            kept = await client.responses.retrieve(first.id)
    if kind == "memory":
        assert kept.output_text == first.output_text
        assert second.output_text == "You are ann@corp.example, and bob@corp.example too."
        return
    # On a disk there is what the provider saw; nobody knows any more what the placeholders of earlier turns stood for.
    assert kept.output_text == "Hello <EMAIL_1>."
    assert second.output_text == "You are <EMAIL_1>, and bob@corp.example too."
    data = b"".join(path.read_bytes() for path in tmp_path.glob("kept.db*"))
    assert b"<EMAIL_1>" in data
    assert b"corp.example" not in data and b"AKIAIOSFO" not in data and b"DNN7EXAMPLE" not in data
