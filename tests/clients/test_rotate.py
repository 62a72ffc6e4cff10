"""Several accounts, as each SDK's users meet them: one is limited, one has no money left, and nobody notices."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import Script, script
from ..server.house import House, serving
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, AnthropicTalk, OpenAITalk, Talk

RULES = """
accounts:
  pool:
    {more}
    members: [{members}]
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", accounts: pool, chain: turns}}
  anthropic: {{adapter: anthropic, base_url: "{base}", accounts: pool, chain: turns}}
chains: {{turns: [{{retry: {{tries: 2, backoff: 1ms, max_wait: 1s}}}}, rotate, breaker]}}
routes:
  - {{name: gpt, match: {{model: "gpt-*"}}, chain: [log], to: openai}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: [log], to: anthropic}}
"""
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
from_each = pytest.mark.parametrize("caller", CALLERS)
to_each = pytest.mark.parametrize("to", MODELS)
SDK: dict[str, Any] = {OPENAI: openai, ANTHROPIC: anthropic}
BROKE: dict[str, Script] = {
    OPENAI: script(status=429, error_kind="insufficient_quota", error_message="You exceeded your current quota."),
    ANTHROPIC: script(status=402, error_message="Your credit balance is too low."),
}


@pytest.fixture
async def sdk_of(tls: ssl.SSLContext) -> AsyncIterator[Any]:
    """A function that points both SDKs at a gateway."""
    open_: list[Any] = []

    def make(house: House, caller: str) -> Any:
        options: dict[str, Any] = {"api_key": CALLER_KEY, "max_retries": 0, "timeout": 10}
        if caller == OPENAI:
            http = openai.DefaultAsyncHttpxClient(verify=tls)
            open_.append(openai.AsyncOpenAI(base_url=house.base + "/v1", http_client=http, **options))
        else:
            theirs = anthropic.DefaultAsyncHttpxClient(verify=tls)
            open_.append(anthropic.AsyncAnthropic(base_url=house.base, http_client=theirs, **options))
        return open_[-1]

    yield make
    for each in open_:
        await each.close()


def rules(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, ids: str = "abc", more: str = "pick: round_robin"
) -> str:
    members = []
    for id in ids:
        monkeypatch.setenv(f"TEST_ACCOUNT_{id.upper()}", f"sk-the-key-of-{id}")
        provider.accounts[f"sk-the-key-of-{id}"] = None
        members.append(f"{{id: {id}, key: env:TEST_ACCOUNT_{id.upper()}}}")
    return RULES.format(base=provider.base, members=", ".join(members), more=more)


def used(provider: FakeProvider) -> list[str]:
    """The accounts of all requests so far."""
    return [each.presented.removeprefix("sk-the-key-of-") for each in provider.requests]


def talk_of(client: Any, caller: str, to: str, stream: bool, said: str = "Hi.") -> Talk:
    kind = OpenAITalk if caller == OPENAI else AnthropicTalk
    talk: Talk = kind(client, MODELS[to], stream)
    talk.say(said)
    return talk


@both
@to_each
@from_each
async def test_one_limited_one_broke_one_good(
    provider: FakeProvider,
    sdk_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caller: str,
    to: str,
    stream: bool,
) -> None:
    async with serving(tmp_path, rules(provider, monkeypatch)) as house:
        provider.accounts["sk-the-key-of-a"] = script(status=429, headers={"retry-after": "60"})
        provider.accounts["sk-the-key-of-b"] = BROKE[to]
        client = sdk_of(house, caller)
        heard = [(await talk_of(client, caller, to, stream).hear()).text for _ in range(5)]
        more = await asyncio.gather(*(talk_of(client, caller, to, stream).hear() for _ in range(20)))
    assert heard + [each.text for each in more] == ["Hello!"] * 25
    assert Counter(used(provider)) == {"a": 1, "b": 1, "c": 25}


@both
@from_each
async def test_an_error_within_the_answer_moves_on_too(
    provider: FakeProvider, sdk_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caller: str, stream: bool
) -> None:
    async with serving(tmp_path, rules(provider, monkeypatch, "ab")) as house:
        words = {"type": "rate_limit_error", "message": "Number of requests has exceeded your rate limit."}
        told = json.dumps({"error": {**words, "code": "rate_limit_exceeded"}}).encode()
        kind = "text/event-stream" if stream else "application/json"
        provider.accounts["sk-the-key-of-a"] = script(
            wire=b"data: %b\n\n" % told if stream else told, content_type=kind
        )
        client = sdk_of(house, caller)
        heard = [(await talk_of(client, caller, OPENAI, stream).hear()).text for _ in range(3)]
    assert heard == ["Hello!"] * 3
    assert used(provider) == ["a", "b", "b", "b"]


@both
@from_each
async def test_all_are_left_alone(
    provider: FakeProvider, sdk_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caller: str, stream: bool
) -> None:
    async with serving(tmp_path, rules(provider, monkeypatch, "ab")) as house:
        provider.accounts["sk-the-key-of-a"] = script(status=429, headers={"retry-after": "500"})
        provider.accounts["sk-the-key-of-b"] = script(status=429, headers={"retry-after": "1000000000"})
        client = sdk_of(house, caller)
        for _ in range(3):
            with pytest.raises(SDK[caller].RateLimitError) as caught:
                await talk_of(client, caller, OPENAI, stream).hear()
            assert 498 <= int(caught.value.response.headers["retry-after"]) <= 500
            assert caught.value.response.headers["headgate-error"] == "rate_limit"
    assert sorted(used(provider)) == ["a", "b"]
    assert "no account of upstream openai can be used now: the first is back in" in str(caught.value)


@from_each
async def test_a_dead_key_is_found_once_and_never_told(
    provider: FakeProvider,
    sdk_of: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    caller: str,
) -> None:
    async with serving(tmp_path, rules(provider, monkeypatch, "abcde")) as house:
        del provider.accounts["sk-the-key-of-c"]
        client = sdk_of(house, caller)
        for _ in range(20):
            assert (await talk_of(client, caller, caller, False).hear()).text == "Hello!"
        await house.idle()
    provider.expected_refusals = provider.refusals
    assert used(provider).count("c") == 1 and len(provider.refusals) == 1
    assert set(Counter(used(provider)).values()) == {1, 5}
    assert any("account c of pool: left alone for 3600.0 s after auth" in each.getMessage() for each in log.records)


async def test_the_only_dead_key_is_the_callers_to_hear(
    provider: FakeProvider, sdk_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serving(tmp_path, rules(provider, monkeypatch, "a")) as house:
        provider.accounts["sk-the-key-of-a"] = script(status=401, error_message="Bad key sk-the-key-of-a, sorry.")
        client = sdk_of(house, OPENAI)
        for _ in range(2):
            with pytest.raises(openai.AuthenticationError) as caught:
                await talk_of(client, OPENAI, OPENAI, False).hear()
            assert "sk-the-key" not in str(caught.value) + str(caught.value.response.headers)
    assert used(provider) == ["a"]


@from_each
async def test_no_key_in_an_error_within_a_stream(
    provider: FakeProvider, sdk_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caller: str
) -> None:
    async with serving(tmp_path, rules(provider, monkeypatch, "a")) as house:
        choice = {"index": 0, "delta": {"role": "assistant", "content": "One"}, "finish_reason": None}
        first = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        error = {"error": {"message": "sk-the-key-of-a is overloaded", "type": "server_error"}}
        frames = "".join(f"data: {json.dumps(each)}\n\n" for each in (first, error))
        provider.accounts["sk-the-key-of-a"] = script(wire=frames.encode(), content_type="text/event-stream")
        with pytest.raises(SDK[caller].APIError) as caught:
            await talk_of(sdk_of(house, caller), caller, OPENAI, True).hear()
    assert "sk-the-key" not in str(caught.value) + str(caught.value.body)
    assert "overloaded" in str(caught.value) + str(caught.value.body)


@both
@from_each
async def test_conversations_stay_with_their_account(
    provider: FakeProvider, sdk_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caller: str, stream: bool
) -> None:
    text = rules(provider, monkeypatch, more="affinity: {by: session}")
    async with serving(tmp_path, text) as house:
        client = sdk_of(house, caller)
        talks = [talk_of(client, caller, caller, stream, f"I am number {at}.") for at in range(3)]
        for turn in range(3):
            for talk in talks:
                if turn:
                    talk.say(f"Turn {turn}.")
                assert (await talk.hear()).text == "Hello!"
        assert used(provider) == ["a", "b", "c"] * 3
        provider.accounts["sk-the-key-of-b"] = script(status=429, headers={"retry-after": "60"})
        for talk in talks * 2:
            talk.say("More.")
            assert (await talk.hear()).text == "Hello!"
    after = used(provider)[9:]
    assert after[:2] == ["a", "b"] and after[3:] == ["c", "a", after[2], "c"]
    assert after[2] in ("a", "c")


async def test_a_reload_keeps_cooldowns(
    provider: FakeProvider, sdk_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = rules(provider, monkeypatch, "ab", "pick: fill_first")
    async with serving(tmp_path, text) as house:
        provider.accounts["sk-the-key-of-a"] = script(status=429, headers={"retry-after": "60"})
        client = sdk_of(house, OPENAI)
        for _ in range(3):
            assert (await talk_of(client, OPENAI, OPENAI, False).hear()).text == "Hello!"
            house.rewrite(text + "x-note: changed\n")
            await house.gateway.reload()
    assert used(provider) == ["a", "b", "b", "b"]


async def test_the_log_says_which_account(
    provider: FakeProvider, sdk_of: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "access.jsonl"
    text = rules(provider, monkeypatch, "ab").replace("[log]", f"[{{log: {{to: {log}}}}}]")
    async with serving(tmp_path, text) as house:
        provider.accounts["sk-the-key-of-a"] = script(status=429)
        assert (await talk_of(sdk_of(house, OPENAI), OPENAI, OPENAI, False).hear()).text == "Hello!"
        await house.idle()
    (line,) = [json.loads(each) for each in log.read_text().splitlines()]
    assert [(each["account"], each.get("cause"), each.get("error")) for each in line["attempts"]] == [
        ("a", None, "rate_limit"), ("b", "rotate", None),
    ]  # fmt: skip
    assert "sk-the-key" not in log.read_text()


async def test_a_reset_counts_where_the_callers_format_has_no_word_for_it(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as http, serving(tmp_path, rules(provider, monkeypatch, "a")) as house:
        told = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}
        provider.accounts["sk-the-key-of-a"] = script(status=429, headers=told)
        asked = {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}
        for _ in range(2):
            url = f"{house.base}/v1beta/models/gpt-5.4:generateContent"
            async with http.post(url, json=asked, headers={"x-goog-api-key": CALLER_KEY}) as answer:
                assert answer.status == 429
                assert "x-ratelimit-reset-requests" not in answer.headers
                assert 300 < float(answer.headers["retry-after"]) <= 360
    assert len(provider.requests) == 1
