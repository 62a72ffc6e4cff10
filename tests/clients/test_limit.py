"""Limits, as each SDK's users meet them: what is left, the refusal and when to come back, a place that is free again."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import Tokens, script
from ..server.house import House, serving, until
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI

RULES = """
server: {{anonymous: allow}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: [{upstream}]}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, chain: [{upstream}]}}
chains: {{base: [{{auth: {{keys: [{{name: test, key: env:TEST_CALLER_KEY}}]}}}}, {{limit: {limit}}}]}}
routes:
  - {{name: gpt, match: {{model: "gpt-*"}}, chain: base, to: openai}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: base, to: anthropic}}
"""
PREFIX = {OPENAI: ("x-ratelimit-{fact}-{unit}"), ANTHROPIC: "anthropic-ratelimit-{unit}-{fact}"}
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
from_each = pytest.mark.parametrize("caller", CALLERS)
to_each = pytest.mark.parametrize("to", MODELS)


def rules(provider: FakeProvider, limit: str, upstream: str = "") -> str:
    return RULES.format(base=provider.base, limit=limit, upstream=upstream)


class Asked:
    """An answer: its headers and, of a stream, the rest of it."""

    def __init__(self, caller: str, house: House, tls: ssl.SSLContext) -> None:
        options: dict[str, Any] = {"api_key": CALLER_KEY, "max_retries": 0, "timeout": 10}
        self.caller = caller
        self.client: Any
        if caller == OPENAI:
            http = openai.DefaultAsyncHttpxClient(verify=tls)
            self.client = openai.AsyncOpenAI(base_url=house.base + "/v1", http_client=http, **options)
        else:
            self.client = anthropic.AsyncAnthropic(
                base_url=house.base, http_client=anthropic.DefaultAsyncHttpxClient(verify=tls), **options
            )

    async def begin(self, to: str, stream: bool) -> tuple[Any, Any]:
        """Return the headers and the parsed answer."""
        resource = self.client.chat.completions if self.caller == OPENAI else self.client.messages
        cap = "max_completion_tokens" if self.caller == OPENAI else "max_tokens"
        raw = await resource.with_raw_response.create(
            model=MODELS[to], messages=[{"role": "user", "content": "Hi."}], stream=stream, **{cap: 500}
        )
        parsed = raw.parse()
        return raw.headers, await parsed if asyncio.iscoroutine(parsed) else parsed

    async def ask(self, to: str, stream: bool) -> dict[str, str]:
        """Hear an answer to its end; return its figures, by the names of OpenAI without the prefix."""
        headers, answer = await self.begin(to, stream)
        if stream:
            async for _ in answer:
                pass
        return self.figures(headers)

    def figures(self, headers: Any) -> dict[str, str]:
        names = [(fact, unit) for fact in ("limit", "remaining") for unit in ("requests", "tokens")]
        found = {
            f"{fact}-{unit}": headers.get(PREFIX[self.caller].format(fact=fact, unit=unit)) for fact, unit in names
        }
        return {name: value for name, value in found.items() if value is not None}


@both
@to_each
@from_each
async def test_what_is_left_and_a_refusal(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str, to: str, stream: bool
) -> None:
    provider.answer(*[script("Well.", tokens=Tokens(fresh=900, output=100))] * 2)
    options = "{requests: 2/h, tokens: 100k/h, reserve: 1000}"
    async with serving(tmp_path, rules(provider, options)) as house:
        asked = Asked(caller, house, tls)
        async with asked.client:
            first = await asked.ask(to, stream)
            await house.idle()
            second = await asked.ask(to, stream)
            with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as caught:
                await asked.ask(to, stream)
    assert (first["limit-requests"], first["remaining-requests"], second["remaining-requests"]) == ("2", "1", "0")
    assert first["limit-tokens"] == "100000"
    # In the end it was charged the 1000 of its usage, not the estimate.
    assert int(first["remaining-tokens"]) - int(second["remaining-tokens"]) == pytest.approx(1000, abs=30)
    refusal = caught.value.response
    assert refusal.status_code == 429
    assert 1700 < int(refusal.headers["retry-after"]) <= 1800
    assert refusal.headers["headgate-error"] == "rate_limit"
    assert asked.figures(refusal.headers)["remaining-requests"] == "0"
    assert "the limit of 2 requests/h for this key is reached" in str(caught.value)
    assert len(provider.requests) == 2


@from_each
@both
async def test_the_providers_own_figures_stand(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str, stream: bool
) -> None:
    names = [PREFIX[caller].format(fact=fact, unit="requests") for fact in ("limit", "remaining")]
    provider.answer(script("Well.", headers=dict(zip(names, ("77", "76"), strict=True))))
    async with serving(tmp_path, rules(provider, "{requests: 5/h}")) as house:
        asked = Asked(caller, house, tls)
        async with asked.client:
            assert await asked.ask(caller, stream) == {"limit-requests": "77", "remaining-requests": "76"}


@from_each
async def test_who_leaves_in_the_middle_gives_the_place_back(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str
) -> None:
    provider.answer(script("One two three four.", stall_after=3), script("Well."))
    async with serving(tmp_path, rules(provider, "{concurrency: 1}")) as house:
        asked = Asked(caller, house, tls)
        async with asked.client:
            _, answer = await asked.begin(caller, True)
            await anext(aiter(answer))
            with pytest.raises((openai.RateLimitError, anthropic.RateLimitError), match="1 calls are under way"):
                await asked.ask(caller, False)
            await answer.close()
            await until(lambda: house.gateway.in_flight == 0)
            await asked.ask(caller, False)


@both
async def test_an_upstreams_pace(provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, stream: bool) -> None:
    provider.answer(*[script("Well.")] * 5)
    upstream = "{limit: {per: all, requests: 100/s, burst: 1, wait: 2s, headers: false}}"
    async with serving(tmp_path, rules(provider, "{requests: 100/h}", upstream)) as house:
        asked = Asked(OPENAI, house, tls)
        async with asked.client:
            left = await asyncio.gather(*(asked.ask(OPENAI, stream) for _ in range(5)))
    assert {each["limit-requests"] for each in left} == {"100"}
    assert len(provider.requests) == 5
