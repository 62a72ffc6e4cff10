"""An upstream that keeps failing, as users of each SDK meet it: answers from elsewhere, or a clear error; then it is back."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from headgate.middlewares import breaker as module

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import Say, script
from ..server.house import House, serving
from .talk import ANTHROPIC, CALLERS, OPENAI, AnthropicTalk, OpenAITalk, Talk

RULES = """
upstreams:
  first: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: again}}
  second: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, chain: [{breaker}]}}
chains: {{again: [{{retry: {{tries: 2, backoff: 1ms}}}}, {breaker}]}}
targets:
  both:
    select: [{{use: first/gpt-fake}}]
    on_failure: [{{kinds: [unavailable, cut], use: second/claude-fake-4-5}}]
routes:
  - {{name: both, match: {{model: both}}, to: both}}
  - {{name: first, to: first}}
"""
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
from_each = pytest.mark.parametrize("caller", CALLERS)
SDK: dict[str, Any] = {OPENAI: openai, ANTHROPIC: anthropic}


@pytest.fixture
async def house(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[House]:
    """A gateway with breakers that open at the second failure."""
    text = RULES.format(base=provider.base, breaker="{breaker: {failures: 2, open: 30s}}")
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


def talk_of(sdk_of: dict[str, Any], caller: str, model: str, stream: bool) -> Talk:
    talk: Talk = (
        OpenAITalk(sdk_of[caller], model, stream) if caller == OPENAI else AnthropicTalk(sdk_of[caller], model, stream)
    )
    talk.say("Hi.")
    return talk


@both
@from_each
async def test_answers_come_from_elsewhere(
    provider: FakeProvider, sdk_of: dict[str, Any], caller: str, stream: bool
) -> None:
    said = Say("From the second.")
    provider.answer(script(status=503), script("x", cut_after=1), script(said), script(said), script(said))
    for _ in range(3):
        heard = await talk_of(sdk_of, caller, "both", stream).hear()
        assert heard.text == "From the second."
    # Both tries of the first call failed, which was enough.
    assert [each.api for each in provider.requests] == ["openai", "openai", *["anthropic"] * 3]


@both
@from_each
async def test_one_clear_error_and_then_it_is_back(
    provider: FakeProvider,
    sdk_of: dict[str, Any],
    house: House,
    log: pytest.LogCaptureFixture,
    caller: str,
    stream: bool,
) -> None:
    (breaker,) = (
        each for each in house.gateway.plan.upstreams["first"].middlewares if isinstance(each, module.Breaker)
    )
    ahead = [0.0]
    steady = breaker._clock
    breaker._clock = lambda: steady() + ahead[0]
    provider.answer(script(status=503), script(status=503, headers={"retry-after": "50"}))
    for _ in range(3):
        with pytest.raises(SDK[caller].APIStatusError) as caught:
            await talk_of(sdk_of, caller, "gpt-fake", stream).hear()
        assert caught.value.status_code in (503, 529)
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 50
    assert "failed too often lately" in str(caught.value)
    assert len(provider.requests) == 2
    ahead[0] = 51.0
    provider.answer(script("Back."), script("Back."))
    for _ in range(2):
        assert (await talk_of(sdk_of, caller, "gpt-fake", stream).hear()).text == "Back."
    said = [each.getMessage() for each in log.records if each.name == "headgate.breaker"]
    assert [line.split()[2].strip(":,") for line in said] == ["open", "half-open", "closed"]
