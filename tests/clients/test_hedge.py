"""A late provider as users of each SDK meet it: the answer is the second's, and nothing in it tells that there were two."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Use, script
from ..server.house import House, serving
from .talk import ANTHROPIC, CALLERS, OPENAI, AnthropicTalk, OpenAITalk, Talk

RULES = """
upstreams:
  first: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  second: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
targets:
  t:
    select: [{{use: first/gpt-fake}}]
    hedge: {{after: 50ms, use: second/claude-fake-4-5, max_extra: 100%}}
    shadow: {{use: sim, share: 100%}}
routes:
  - {{name: t, to: t}}
"""
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
from_each = pytest.mark.parametrize("caller", CALLERS)


@pytest.fixture
async def house(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[House]:
    text = RULES.format(base=provider.base).replace("upstreams:", "upstreams:\n  sim: {adapter: simulator}")
    async with serving(tmp_path, text) as house:
        yield house


@pytest.fixture
async def sdk_of(house: House, tls: ssl.SSLContext) -> AsyncIterator[dict[str, Any]]:
    """Both SDKs, pointed at that gateway."""
    ours = openai.DefaultAsyncHttpxClient(verify=tls)
    theirs = anthropic.DefaultAsyncHttpxClient(verify=tls)
    async with (
        openai.AsyncOpenAI(
            api_key=CALLER_KEY, base_url=house.base + "/v1", max_retries=0, timeout=10, http_client=ours
        ) as chat,
        anthropic.AsyncAnthropic(
            api_key=CALLER_KEY, base_url=house.base, max_retries=0, timeout=10, http_client=theirs
        ) as claude,
    ):
        yield {OPENAI: chat, ANTHROPIC: claude}


def talk_of(sdk_of: dict[str, Any], caller: str, stream: bool) -> Talk:
    talk: Talk = (
        OpenAITalk(sdk_of[caller], "any", stream) if caller == OPENAI else AnthropicTalk(sdk_of[caller], "any", stream)
    )
    talk.say("Hi.")
    return talk


@both
@from_each
@pytest.mark.parametrize("stalls", ["first", "second"])
async def test_whoever_is_not_late_answers(
    provider: FakeProvider, sdk_of: dict[str, Any], caller: str, stream: bool, stalls: str
) -> None:
    answer = script(Say("Here."), wait_s=0.15 if stalls == "second" else 0.0)
    late = script(stall_before=True)
    provider.answer(*((late, answer) if stalls == "first" else (answer, late)))
    heard = await talk_of(sdk_of, caller, stream).hear()
    assert heard.text == "Here."
    assert [each.api for each in provider.requests] == ["openai", "anthropic"]
    stalled = provider.requests[0 if stalls == "first" else 1]
    async with asyncio.timeout(1):
        await stalled.over.wait()
    assert stalled.outcome == "aborted"


@both
@from_each
async def test_tool_calls_of_the_second(
    provider: FakeProvider, sdk_of: dict[str, Any], caller: str, stream: bool
) -> None:
    provider.answer(script(stall_before=True), script(Use("look", '{"at": 1.0}')))
    heard = await talk_of(sdk_of, caller, stream).hear()
    assert [each[1:] for each in heard.calls] == [("look", '{"at": 1.0}' if caller == OPENAI else {"at": 1.0})]
    await provider.requests[0].over.wait()


async def test_turns_over_a_websocket(provider: FakeProvider, house: House) -> None:
    """What the second said is what the next turn goes on from."""
    provider.answer(script("One."), script(stall_before=True), script("Two."), script("Three."))
    async with (
        openai.AsyncOpenAI(api_key=CALLER_KEY, base_url=house.base + "/v1", max_retries=0, timeout=10) as sdk,
        sdk.responses.connect() as connection,
    ):
        last = None
        for said in ("One.", "Two.", "Three."):
            await connection.response.create(model="any", input=f"Say {said}", previous_response_id=last)  # type: ignore[arg-type]
            async for event in connection:
                if event.type == "response.completed":
                    assert event.response.output_text == said
                    last = event.response.id
                    break
    assert [each.api for each in provider.requests] == ["openai", "openai", "anthropic", "openai"]
    assert [each["content"] for each in provider.last.json["messages"]] == [
        "Say One.",
        "One.",
        "Say Two.",
        "Two.",
        "Say Three.",
    ]
    await provider.requests[1].over.wait()
    assert provider.requests[1].outcome == "aborted"
