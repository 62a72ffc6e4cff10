"""Usage in every chunk of a stream: what the provider told, what is estimated until then, and the end as it told it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from headgate.gateway.emulation.running import RunningUsage
from headgate.gateway.ir.event import Chunk, PartDelta, PartStart, Usage, UsageReport
from headgate.gateway.ir.message import Text

from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Tokens, Use, script
from ..server.house import CHAT, House

ASK: list[Any] = [{"role": "user", "content": "Say something."}]
WORDS = "twelve words. " * 12


async def frames(house: House, path: str, **asked: Any) -> list[Any]:
    """The chunks of a stream."""
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + path, json={"stream": True, **asked})
    told = response.text.strip().split("\n\n")
    assert told[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in told[:-1] if not frame.startswith(":")]


@pytest.mark.parametrize("model", ["counts", "messages-counts"])
async def test_every_chunk_carries_usage(provider: FakeProvider, house: House, model: str) -> None:
    provider.answer(script(Say(WORDS, 6), tokens=Tokens(11, output=50), pause_s=0.005))
    told = await frames(house, CHAT, model=model, messages=ASK, stream_options={"include_usage": True})
    usages = [frame["usage"] for frame in told]
    assert all(usages), "each of them"
    assert usages[-1]["prompt_tokens"] == 11 and usages[-1]["completion_tokens"] == 50
    assert "estimated" not in usages[-1]
    written = [usage["completion_tokens"] for usage in usages]
    assert written == sorted(written) and len(set(written)) > 3, "it grows"
    assert all(usage["estimated"] for usage in usages[1:5])
    if model == "messages-counts":  # which tells the prompt's size at the start
        assert {usage["prompt_tokens"] for usage in usages} == {11}


async def test_completions(provider: FakeProvider, house: House) -> None:
    provider.answer(script(Say(WORDS, 4), tokens=Tokens(11, output=50)))
    asked = {"model": "counts", "prompt": "Say", "stream_options": {"include_usage": True}}
    told = await frames(house, "/v1/completions", **asked)
    assert all(frame["usage"] for frame in told) and told[-1]["usage"]["completion_tokens"] == 50


async def test_the_sdk_reads_it(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(script(Say(WORDS, 6), tokens=Tokens(11, output=50)))
    async with chat.chat.completions.stream(
        model="counts", messages=ASK, stream_options={"include_usage": True}
    ) as events:
        completion: Any = await events.get_final_completion()
    assert completion.choices[0].message.content == WORDS and completion.usage.completion_tokens == 50


async def test_who_does_not_ask_gets_the_providers_bytes(provider: FakeProvider, house: House) -> None:
    provider.answer(script(Say(WORDS, 6)))
    async with httpx.AsyncClient() as client:
        call = {"model": "counts", "messages": ASK, "stream": True}
        response = await client.post(house.base + CHAT, json=call)
    assert response.content == provider.last.body


def test_a_provider_that_tells_it_itself_is_believed() -> None:
    """As vLLM does with continuous_usage_stats: its figures stand, however long the words are."""
    stage = RunningUsage(3)
    said = Usage(input_tokens=5, output_tokens=2)
    chunk = stage.feed(Chunk((PartStart(0, Text("")), PartDelta(0, "x" * 100), UsageReport(said))))
    assert chunk.events[0] == UsageReport(said, running=True)


def test_an_estimate_is_marked_and_never_shrinks() -> None:
    stage = RunningUsage(3)
    first = stage.feed(Chunk((UsageReport(Usage(input_tokens=9, output_tokens=6)), PartStart(0, Text("")))))
    assert first.events[0] == UsageReport(Usage(input_tokens=9, output_tokens=6), running=True)
    second = stage.feed(Chunk((PartDelta(0, "é" * 20),)))
    assert second.events[0] == UsageReport(Usage(input_tokens=9, output_tokens=10, estimated=True), running=True)
    nothing = Chunk((UsageReport(Usage(9, output_tokens=11)),))
    assert stage.feed(nothing) is nothing, "a report alone passes as it came"


async def test_all_of_it_together(provider: FakeProvider, house: House) -> None:
    """Two choices, each structured, of a provider that only streams, told as a stream with usage in every chunk."""
    provider.answer(*(script(Use("number", '{"n": 1}'), tokens=Tokens(7, output=9)) for _ in range(2)))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    asked = {"model": "everything", "messages": ASK, "n": 2, "response_format": wanted}
    told = await frames(house, CHAT, **asked, stream_options={"include_usage": True})
    said = ["", ""]
    for frame in told:
        for choice in frame["choices"]:
            said[choice["index"]] += choice["delta"].get("content") or ""
    assert said == ['{"n": 1}'] * 2
    assert (told[-1]["usage"]["prompt_tokens"], told[-1]["usage"]["completion_tokens"]) == (14, 18)
    assert all(frame["usage"] for frame in told)
    async with httpx.AsyncClient() as client:
        provider.answer(*(script(Use("number", '{"n": 1}')) for _ in range(2)))
        whole = await client.post(house.base + CHAT, json=asked)
    assert [choice["message"]["content"] for choice in whole.json()["choices"]] == ['{"n": 1}'] * 2
