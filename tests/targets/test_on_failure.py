"""``on_failure`` over a provider: which failures lead on, and that none of them shows once another upstream has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway import registry, rules
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import KINDS, ErrorKind
from headgate.gateway.rules.decide import decide
from headgate.gateway.rules.given import pose_bytes

from ..fakes.provider import FakeProvider
from ..fakes.script import Script, Think, script
from ..server.house import CHAT, begin, body_of, serving, until

RULES = """
    defaults: {timeout: {first_token: 200ms, idle: 300ms}}
    upstreams:
      first: {adapter: %(adapter)s, base_url: "{base}%(v1)s", key: env:TEST_PROVIDER_KEY}
      second: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}
    targets:
      t:
        select: [{use: first/%(model)s}]
        on_failure: [{kinds: [%(kinds)s], use: second/gpt-other}]
    routes: [{name: r, to: t}]
"""
OPENAI = {"adapter": "openai", "v1": "/v1", "model": "gpt-fake"}
ANTHROPIC = {"adapter": "anthropic", "v1": "", "model": "claude-fake-4-5"}
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
first_is = pytest.mark.parametrize("first", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])

STATUSES: list[tuple[Script, ErrorKind]] = [
    (script(status=400), "invalid_request"),
    (script(status=401), "auth"),
    (script(status=403), "permission"),
    (script(status=404), "not_found"),
    (script(status=413), "too_large"),
    (script(status=429), "rate_limit"),
    (script(status=429, headers={"retry-after": "1000000000"}), "rate_limit"),
    (script(status=429, headers={"retry-after": "-7"}), "rate_limit"),
    (script(status=429, headers={"retry-after": "tomorrow"}), "rate_limit"),
    (script(status=429, headers={"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}), "rate_limit"),
    (script(status=500), "upstream_error"),
]


@both
@first_is
@pytest.mark.parametrize(
    ("play", "kind"), STATUSES, ids=[f"{play.status}-{at}" for at, (play, _) in enumerate(STATUSES)]
)
async def test_a_refusal_leads_on_at_once_if_it_is_named(
    asking: Callable[..., Any],
    provider: FakeProvider,
    first: dict[str, str],
    play: Script,
    kind: ErrorKind,
    stream: bool,
) -> None:
    async with asking(RULES % {**first, "kinds": kind}) as ask:
        provider.answer(play, script("From the second."))
        served = await ask(stream=stream)
        assert (served.error, served.said) == (None, "From the second.")
        assert served.tries == [("first", kind, ""), ("second", None, "fallback")]
    others = ", ".join(each for each in KINDS if each != kind)
    async with asking(RULES % {**first, "kinds": others}) as ask:
        provider.answer(play)
        served = await ask(stream=stream)
        assert (served.error.kind, len(served.tries)) == (kind, 1)


@first_is
@pytest.mark.parametrize("half", [False, True])
async def test_a_stream_that_is_cut_before_its_first_words_leads_on(
    asking: Callable[..., Any], provider: FakeProvider, first: dict[str, str], half: bool
) -> None:
    """Cut after each of its events: before the first content elsewhere, after it the caller hears of the cut."""
    led_on = []
    async with asking(RULES % {**first, "kinds": "cut"}) as ask:
        for at in range(30):
            provider.answer(script("From the first.", "More.", cut_after=at, half=half), script("From the second."))
            served = await ask(stream=True)
            if served.error is None and len(served.tries) == 1:
                provider._queue.clear()
                break  # it has no more events
            if len(served.tries) == 2:
                assert served.said == "From the second."
                assert served.tries[0][1] == "cut"
                led_on.append(at)
            else:
                assert served.error.kind == "cut"
                provider._queue.clear()
        else:
            raise AssertionError("it never ends")
    assert led_on
    assert led_on == list(range(len(led_on)))


@first_is
async def test_an_error_event_that_comes_first_leads_on(
    asking: Callable[..., Any], provider: FakeProvider, first: dict[str, str]
) -> None:
    """Within an answer of status 200; after the first words it is the caller's."""
    async with asking(RULES % {**first, "kinds": "overloaded, upstream_error, rate_limit"}) as ask:
        provider.answer(
            script("x", status=200, error_after=0, error_kind="overloaded_error"), script("From the second.")
        )
        served = await ask(stream=True)
        assert served.said == "From the second."
        assert [each.status for each in served.decision.attempts] == [200, 200]
        assert served.tries[0][1] is not None
        provider.answer(script("Words.", "And more of them.", error_after=6, error_kind="overloaded_error"))
        served = await ask(stream=True)
        assert served.error is not None
        assert len(served.tries) == 1


@first_is
@pytest.mark.parametrize("stall", [{"stall_before": True}, {"stall_after": 0}], ids=["headers", "content"])
async def test_a_stream_that_stalls_before_its_first_words_leads_on(
    asking: Callable[..., Any], provider: FakeProvider, first: dict[str, str], stall: dict[str, Any]
) -> None:
    async with asking(RULES % {**first, "kinds": "timeout.first_token"}) as ask:
        provider.answer(script("x", **stall), script("From the second."))
        served = await ask(stream=True)
        assert served.said == "From the second."
        assert served.tries[0] == ("first", "timeout.first_token", "")
        await provider.requests[0].over.wait()
        assert provider.requests[0].outcome == "aborted"


async def test_one_that_stalls_after_its_first_words_is_the_callers(
    asking: Callable[..., Any], provider: FakeProvider
) -> None:
    async with asking(RULES % {**OPENAI, "kinds": "timeout.idle"}) as ask:
        provider.answer(script("Words that stop.", stall_after=3))
        served = await ask(stream=True)
        assert (served.error.kind, len(served.tries)) == ("timeout.idle", 1)


@both
async def test_thinking_is_content(asking: Callable[..., Any], provider: FakeProvider, stream: bool) -> None:
    """What was thought aloud was heard: nobody begins anew after it."""
    async with asking(RULES % {**ANTHROPIC, "kinds": "cut"}) as ask:
        provider.answer(script(Think("Hm."), "Hi.", cut_after=4 if stream else 1), script("From the second."))
        served = await ask(stream=stream)
        assert len(served.tries) == (1 if stream else 2)
        provider._queue.clear()


async def test_a_storm_of_refusals_asks_each_once(tmp_path: Path, provider: FakeProvider) -> None:
    """Twenty calls at once, all upstreams refusing: each entry is tried once per call, and nobody waits."""
    text = (RULES % {**OPENAI, "kinds": "rate_limit"}).replace("{base}", provider.base)
    provider.answer(*[script(status=429, headers={"retry-after": "86400"})] * 40)
    async with serving(tmp_path, text) as house, aiohttp.ClientSession() as client:

        async def one() -> tuple[int, str | None]:
            async with client.post(house.base + CHAT, data=body_of(stream=True)) as response:
                await response.read()
                return response.status, response.headers.get("headgate-attempts")

        assert set(await asyncio.gather(*[one() for _ in range(20)])) == {(429, "2")}
    assert len(provider.requests) == 40


async def test_a_reload_in_between_changes_nothing_for_a_call_under_way(tmp_path: Path, provider: FakeProvider) -> None:
    text = (RULES % {**OPENAI, "kinds": "rate_limit"}).replace("{base}", provider.base).replace("200ms", "5s")
    provider.answer(script(status=429, wait_s=0.2), script("From the second."), script(status=429))
    async with serving(tmp_path, text) as house, aiohttp.ClientSession() as client:

        async def ask() -> tuple[int, str]:
            async with client.post(house.base + CHAT, data=body_of(stream=True)) as response:
                return response.status, await response.text()

        asked = begin(ask())
        await until(lambda: len(provider.requests) == 1)
        house.rewrite(text.replace("on_failure: [{kinds: [rate_limit], use: second/gpt-other}]", "on_failure: []"))
        await house.gateway.reload()
        assert (await asked)[0] == 200
        assert (await ask())[0] == 429
    assert len(provider.requests) == 3


async def test_keep_alives_commit_to_the_first(tmp_path: Path, provider: FakeProvider) -> None:
    """Once a comment went out the caller has its headers: what fails then is told in the stream."""
    text = (RULES % {**OPENAI, "kinds": "timeout.first_token"}).replace("{base}", provider.base)
    text = text.replace("200ms", "1500ms").replace("defaults:", "server: {keep_alive: 250ms}\n    defaults:")
    provider.answer(script(stall_before=True))
    async with (
        serving(tmp_path, text) as house,
        aiohttp.ClientSession() as client,
        client.post(house.base + CHAT, data=body_of(stream=True)) as response,
    ):
        assert response.status == 200
        said = await response.text()
    assert "error" in said
    assert len(provider.requests) == 1


def test_each_kind_leads_on_where_it_is_named() -> None:
    for kind in KINDS:
        loaded = rules.loads(
            "version: 1\nupstreams: {a: {adapter: simulator}, b: {adapter: simulator}}\n"
            f"targets: {{t: {{select: [use: a], on_failure: [{{kinds: [{kind}], use: b}}]}}}}\n"
            "routes: [{name: r, to: t}]\n"
        )
        posed = pose_bytes(registry.codec("openai.chat"), body_of(), RequestFacts("", {}, {}))
        for other in KINDS:
            leaf = decide(loaded, posed.wire, failures=[other]).leaf
            assert (leaf is not None) == (other == kind)
