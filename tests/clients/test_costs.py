"""Costs and budgets, as each SDK's users meet them: what an answer cost, to the last cached token, and the end of the money."""

from __future__ import annotations

import asyncio
import json
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
stores: {{limits: {{kind: sqlite, path: limits.db}}}}
prices:
  models:
    gpt-*: {{input: 2.5, output: 10, cache_read: 1.25, reasoning: 20}}
    claude-*: {{input: 3, output: 15, cache_read: 0.3, cache_write: 3.75}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: [{{retry: {{backoff: 1ms}}}}]}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, chain: [{{retry: {{backoff: 1ms}}}}]}}
targets:
  either: {{select: [{{match: {{model: "gpt-*"}}, use: openai}}, {{use: anthropic}}]}}
chains: {{base: [{{log: {{to: "{log}"}}}}, {{auth: {{keys: [{{name: test, key: env:TEST_CALLER_KEY}}]}}}}{more}]}}
routes: [{{name: all, chain: base, to: either}}]
"""
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
from_each = pytest.mark.parametrize("caller", CALLERS)
to_each = pytest.mark.parametrize("to", MODELS)


def rules(provider: FakeProvider, directory: Path, *more: str) -> str:
    items = "".join(f", {item}" for item in more)
    return RULES.format(base=provider.base, log=directory / "access.log", more=items)


async def lines(house: House, directory: Path, count: int = 1) -> list[dict[str, Any]]:
    """The access log, once it has so many lines."""
    await house.idle()
    path = directory / "access.log"
    await until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count)
    return [json.loads(line) for line in path.read_text().splitlines()]


class Caller:
    """Asks, and returns the headers of the answer, heard to its end."""

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
        resource = self.client.chat.completions if self.caller == OPENAI else self.client.messages
        cap = "max_completion_tokens" if self.caller == OPENAI else "max_tokens"
        raw = await resource.with_raw_response.create(
            model=MODELS[to], messages=[{"role": "user", "content": "Hi."}], stream=stream, **{cap: 500}
        )
        parsed = raw.parse()
        return raw.headers, await parsed if asyncio.iscoroutine(parsed) else parsed

    async def ask(self, to: str, stream: bool) -> Any:
        headers, answer = await self.begin(to, stream)
        if stream:
            async for _ in answer:
                pass
        return headers


SPENT = Tokens(fresh=1000, cached=8000, written=1000, output=500)
COSTS = {
    # 9,000 fresh or written at 2.5, no more is known of writing there; the rest read from the cache at 1.25
    OPENAI: (Tokens(fresh=2000, cached=8000, output=500, reasoning=100), 0.005 + 0.01 + 0.004 + 0.002),
    ANTHROPIC: (SPENT, 0.01665),
}


@both
@to_each
@from_each
async def test_what_an_answer_cost(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str, to: str, stream: bool
) -> None:
    tokens, cost = COSTS[to]
    provider.answer(script("Well.", tokens=tokens))
    async with serving(tmp_path, rules(provider, tmp_path)) as house:
        asked = Caller(caller, house, tls)
        async with asked.client:
            headers = await asked.ask(to, stream)
        (line,) = await lines(house, tmp_path)
    assert line["cost_usd"] == pytest.approx(cost, abs=1e-12)
    assert line["attempts"][0]["cost_usd"] == line["cost_usd"]
    assert "cost_estimated" not in line
    if stream:  # its headers are gone before anybody knows
        assert "headgate-cost" not in headers
    else:
        assert float(headers["headgate-cost"]) == line["cost_usd"]


@both
@from_each
async def test_a_try_that_failed_costs_nothing(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str, stream: bool
) -> None:
    provider.answer(script(status=503), script("Well.", tokens=SPENT))
    async with serving(tmp_path, rules(provider, tmp_path)) as house:
        asked = Caller(caller, house, tls)
        async with asked.client:
            await asked.ask(ANTHROPIC, stream)
        (line,) = await lines(house, tmp_path)
    assert line["cost_usd"] == 0.01665
    assert [attempt["cost_usd"] for attempt in line["attempts"]] == [0, 0.01665]


@from_each
async def test_who_leaves_pays_for_what_was_said(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str
) -> None:
    provider.answer(script("One two three four.", stall_after=3, tokens=Tokens(fresh=100, output=50)))
    async with serving(tmp_path, rules(provider, tmp_path, "{limit: {budget: 1 USD/day}}")) as house:
        asked = Caller(caller, house, tls)
        async with asked.client:
            _, answer = await asked.begin(ANTHROPIC, True)
            await anext(aiter(answer))
            await answer.close()
        (line,) = await lines(house, tmp_path)
    assert line["outcome"] == "cancelled"
    assert 0.0003 <= line["cost_usd"] < 0.0003 + 50 * 15e-6
    assert line["cost_estimated"] is True


@from_each
async def test_who_leaves_while_more_is_asked_for_pays_for_that_too(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str
) -> None:
    cut = script("One two three.", stop="length", tokens=Tokens(fresh=100, output=50))
    provider.answer(cut, script(stall_before=True))
    async with serving(tmp_path, rules(provider, tmp_path, "{limit: {budget: 1 USD/day}}", "continue")) as house:
        asked = Caller(caller, house, tls)
        async with asked.client:
            _, answer = await asked.begin(ANTHROPIC, True)
            await anext(aiter(answer))
            await provider.received(2)
            await answer.close()
        (line,) = await lines(house, tmp_path)
    assert line["outcome"] == "cancelled"
    first, second = line["attempts"]
    assert second["cause"] == "continue" and second["ended_s"] > second["started_s"]
    assert first["cost_usd"] == pytest.approx(0.0003 + 50 * 15e-6)
    assert 0 < second["cost_usd"] < first["cost_usd"]  # its request, which the provider may well have read
    assert line["cost_usd"] == pytest.approx(first["cost_usd"] + second["cost_usd"])


@both
@from_each
async def test_the_end_of_the_money_and_a_restart(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str, stream: bool
) -> None:
    provider.answer(*[script("Well.", tokens=SPENT)] * 2)
    limit = "{{limit: {{budget: {budget} USD/month, store: limits, name: month, reserve: 100}}}}"
    async with serving(tmp_path, rules(provider, tmp_path, limit.format(budget=0.034))) as house:
        asked = Caller(caller, house, tls)
        async with asked.client:
            for _ in range(2):
                await asked.ask(ANTHROPIC, stream)
            await refused(asked, ANTHROPIC, stream)
    async with serving(tmp_path, rules(provider, tmp_path, limit.format(budget=0.034))) as house:
        asked = Caller(caller, house, tls)
        async with asked.client:
            await refused(asked, ANTHROPIC, stream)
    provider.answer(script("Well.", tokens=SPENT))
    async with serving(tmp_path, rules(provider, tmp_path, limit.format(budget=1))) as house:
        asked = Caller(caller, house, tls)
        async with asked.client:
            await asked.ask(ANTHROPIC, stream)


async def refused(asked: Caller, to: str, stream: bool) -> None:
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as caught:
        await asked.ask(to, stream)
    response = caught.value.response
    assert (response.status_code, response.headers["headgate-error"]) == (429, "quota")
    assert 0 < int(response.headers["retry-after"]) <= 31 * 86400
    assert "the budget of 0.034 USD/month for this key is spent" in str(caught.value)


@both
async def test_a_hundred_at_once_do_not_spend_more_than_there_is(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, stream: bool
) -> None:
    # Each is held 0.003 USD and a little for its answer and its request, and costs 0.003.
    provider.answer(*[script("Well.", tokens=Tokens(fresh=500, output=100), wait_s=0.05)] * 5)
    limit = "{limit: {budget: 0.0165 USD/day, reserve: 200}}"
    async with serving(tmp_path, rules(provider, tmp_path, limit)) as house:
        asked = Caller(OPENAI, house, tls)
        async with asked.client:
            done = await asyncio.gather(*(asked.ask(ANTHROPIC, stream) for _ in range(100)), return_exceptions=True)
        said = await lines(house, tmp_path, 100)
    assert sum(not isinstance(each, BaseException) for each in done) == 5
    assert all(isinstance(each, openai.RateLimitError) for each in done if isinstance(each, BaseException))
    assert sum(line.get("cost_usd", 0) for line in said) == pytest.approx(0.015)


@both
@from_each
async def test_no_prices_no_costs(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, caller: str, stream: bool
) -> None:
    provider.answer(script("Well."))
    text = rules(provider, tmp_path)
    text = text.replace("gpt-*: {", "other: {").replace("claude-*: {", "else: {")
    async with serving(tmp_path, text) as house:
        asked = Caller(caller, house, tls)
        async with asked.client:
            assert "headgate-cost" not in await asked.ask(caller, stream)
        (line,) = await lines(house, tmp_path)
    assert "cost_usd" not in line
    assert line["notes"] == [f"cost: nobody knows the price of {MODELS[caller]} at {caller}"]
