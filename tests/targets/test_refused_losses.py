"""``loss: refuse`` passes by what would lose something of the request: live calls, in-file tests and explain say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.rules.explain import explain
from headgate.gateway.rules.given import pose_bytes
from headgate.gateway.server.gateway import Gateway

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from ..server.house import body_of

UPSTREAMS = """
    upstreams:
      claude: {adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}
      gemini: {adapter: gemini, base_url: "{base}", key: env:TEST_PROVIDER_KEY}
      gpt: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}
      gpt2: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}
"""
LOSING = {"logit_bias": {"1": 1}, "logprobs": True}
"""What Anthropic's format has no room for."""


def target(text: str, loss: str = "refuse") -> str:
    return f"{UPSTREAMS}\n    targets:\n      t: {text}\n    routes: [{{name: r, to: t, loss: {loss}}}]\n"


PLACES: list[tuple[str, list[str], str]] = [
    # what follows, whatever its kinds
    ("{select: [use: claude/c], on_failure: [{kinds: [connect], use: gpt/g}]}", ["gpt"], "on_failure"),
    (
        "{select: [use: claude/c], on_failure: [{kinds: [connect], use: claude/d}, {kinds: [auth], use: gpt/g}]}",
        ["gpt"],
        "",
    ),
    # another case that applies comes before that
    ("{select: [{match: {request.tokens: {lt: 1000}}, use: claude/c}, {use: gpt/g}]}", ["gpt"], "case"),
    (
        "{select: [{match: {model: m}, use: claude/c}, {match: {model: x}, use: gpt/x}],"
        " on_failure: [{kinds: [connect], use: gpt2/g}]}",
        ["gpt2"],
        "case",
    ),
    # another branch of the split before that
    ("{select: [{split: [{use: claude/c, weight: 99}, {use: gpt/g, weight: 1}]}]}", ["gpt"], "split"),
    (
        "{select: [{split: [{use: claude/c}, {use: claude/d}], sticky: model}],"
        " on_failure: [{kinds: [connect], use: gpt/g}]}",
        ["gpt"],
        "split",
    ),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("text", "upstreams", "by"), PLACES)
async def test_where_it_goes_instead(
    asking: Callable[..., Any], provider: FakeProvider, text: str, upstreams: list[str], by: str, stream: bool
) -> None:
    async with asking(target(text)) as ask:
        served = await ask(stream=stream, **LOSING)
        assert (served.error, served.said) == (None, "Hello!")
        assert [each.upstream for each in served.decision.attempts] == upstreams
        assert [each.cause for each in served.decision.attempts] == [""]  # nothing failed
        assert served.ledger.lost == []
        told = explained(ask.gateway, body_of(stream=stream, **LOSING))
        assert told.outgoing.decision.upstream == served.decision.upstream
        assert told.verdict.leaf.upstream.name == upstreams[-1]
        assert {leaf.upstream.name for leaf in told.verdict.skipped} == {"claude"}
        if by != "split":  # live calls draw
            assert list(told.verdict.chosen) == served.decision.chosen
        assert told.outgoing.refusal is None


def explained(gateway: Gateway, body: bytes, failures: tuple[str, ...] = ()) -> Any:
    posed = pose_bytes(registry.codec("openai.chat"), body, RequestFacts("/v1/chat/completions", {}, {}))
    return explain(gateway.plan, posed, failures=failures)  # type: ignore[arg-type]


async def test_where_all_lose_the_caller_hears_all_of_the_first(asking: Callable[..., Any]) -> None:
    text = "{select: [use: claude/c], on_failure: [{kinds: [connect], use: claude/d}, {kinds: [auth], use: gemini/x}]}"
    more = {**LOSING, "parallel_tool_calls": False, "tools": TOOLS}
    async with asking(target(text)) as ask:
        served = await ask(**more)
        assert (served.error.kind, served.error.status, served.decision.attempts) == ("unsupported", 400, [])
        assert (served.decision.upstream, served.decision.model) == ("claude", "c")
        lost = [loss.path for loss in served.ledger.lost]
        assert {"logit_bias", "logprobs"} <= set(lost)
        assert all(path in served.error.message for path in lost)
        told = explained(ask.gateway, body_of(**more))
        assert told.verdict.leaf is None
        assert told.outgoing.refusal.message == served.error.message
        assert (told.outgoing.decision.upstream, told.outgoing.decision.model) == ("claude", "c")
        assert list(told.verdict.chosen) == served.decision.chosen


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def test_after_a_failure_an_entry_that_would_lose_is_passed_by(
    asking: Callable[..., Any], provider: FakeProvider
) -> None:
    text = (
        "{select: [use: gpt/g], on_failure: [{kinds: [rate_limit], use: claude/c}, {kinds: [connect], use: gpt2/no},"
        " {kinds: [rate_limit], use: gpt2/g}]}"
    )
    async with asking(target(text)) as ask:
        provider.answer(script(status=429), script("From gpt2."))
        served = await ask(**LOSING)
        assert (served.said, served.tries) == (
            "From gpt2.",
            [("gpt", "rate_limit", ""), ("gpt2", None, "fallback")],
        )
        provider.answer(script(status=429), script(status=429))
        served = await ask(**LOSING)
        assert (served.error.kind, served.decision.upstream) == ("rate_limit", "gpt2")
    async with asking(target("{select: [use: gpt/g], on_failure: [{kinds: [rate_limit], use: claude/c}]}")) as ask:
        provider.answer(script(status=429))
        served = await ask(**LOSING)
        assert (served.error.kind, served.decision.upstream, served.ledger.lost) == ("rate_limit", "gpt", [])
        told = explained(ask.gateway, body_of(**LOSING), ("rate_limit",))
        assert (told.outgoing.decision.upstream, told.outgoing.refusal.kind) == ("gpt", "rate_limit")
        assert list(told.verdict.chosen) == served.decision.chosen


@pytest.mark.parametrize("loss", ["report", "ignore"])
async def test_elsewhere_nothing_is_passed_by(asking: Callable[..., Any], loss: str) -> None:
    async with asking(target("{select: [use: claude/c], on_failure: [{kinds: [connect], use: gpt/g}]}", loss)) as ask:
        assert (await ask(**LOSING)).tries == [("claude", None, "")]
        assert explained(ask.gateway, body_of(**LOSING)).verdict.skipped == ()


async def test_targets_within_targets_and_a_hedge(asking: Callable[..., Any], provider: FakeProvider) -> None:
    text = """
    targets:
      outer:
        select: [{use: inner}]
        on_failure: [{kinds: [auth], use: gpt/o}]
        hedge: {after: 30ms, use: claude/h, max_extra: 100%}
      inner: {select: [{use: claude/c}], on_failure: [{kinds: [auth], use: claude/d}]}
    routes: [{name: r, to: outer, loss: refuse}]
"""
    async with asking(UPSTREAMS + text) as ask:
        served = await ask(**LOSING)
        assert (served.tries, served.decision.model) == ([("gpt", None, "")], "o")
        assert list(explained(ask.gateway, body_of(**LOSING)).verdict.chosen) == served.decision.chosen
    late = text.replace("use: inner", "use: gpt/slow")
    async with asking(UPSTREAMS + late) as ask:
        provider.answer(script("After all.", wait_s=0.15))
        served = await ask(**LOSING)  # the second call would lose something: the first is waited for
        assert (served.said, served.tries) == ("After all.", [("gpt", None, "")])


def test_the_files_own_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = target(
        "{select: [use: claude/c], on_failure: [{kinds: [connect], use: gpt/g}], "
        "hedge: {after: 2s, use: gpt2/h}, shadow: {use: gemini/s, share: 1%}}"
    )
    body = {**json.loads(body_of()), **LOSING}
    tests = [
        {"name": "whole", "given": {}, "expect": {"upstream": "claude", "hedge": "gpt2", "shadow": "gemini"}},
        {"name": "losing", "given": {"body": body}, "expect": {"upstream": "gpt", "loss": [], "hedge": None}},
        {"name": "lost", "given": {"body": body, "down": ["gpt"]}, "expect": {"upstream": None}},
        {"name": "no shadow", "given": {"down": ["gemini", "gpt2"]}, "expect": {"shadow": None, "hedge": None}},
        {"name": "wrong", "given": {}, "expect": {"hedge": "gpt"}},
    ]
    path = tmp_path / "routes.yaml"
    path.write_text(
        "version: 1\n"
        + "\n".join(line[4:] for line in text.splitlines()).replace("{base}", "http://x")
        + f"\ntests: {json.dumps(tests)}\n"
    )
    trials, problems = rules.try_out(path)
    assert {trial.name: (trial.passed, trial.fault) for trial in trials} == {
        **{each["name"]: (True, None) for each in tests},
        "wrong": (False, None),
    }
    assert "expects hedge gpt, but it is gpt2" in str([each for each in problems if each.code == "E060"])
