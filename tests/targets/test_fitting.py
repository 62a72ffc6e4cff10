"""Second calls and copies of what is no conversation: only to upstreams that serve it; and that nothing is left behind."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import pytest
from headgate.gateway import registry, rules
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import GatewayError
from headgate.gateway.rules.explain import explain
from headgate.gateway.rules.given import pose_bytes

from ..fakes.provider import FakeProvider
from ..fakes.script import script

RULES = """
version: 1
upstreams:
  gpt: {adapter: openai, base_url: "http://127.0.0.1:9/v1"}
  gpt2: {adapter: openai, base_url: "http://127.0.0.1:9/v1"}
  claude: {adapter: anthropic, base_url: "http://127.0.0.1:9"}
targets:
  t:
    select: [{split: [{use: claude, weight: 9}, {use: gpt/e}, {use: gpt2/f}]}]
    hedge: {after: 1s, use: HEDGE}
    shadow: {use: SHADOW}
routes: [{name: r, to: t}]
"""
EMBEDDINGS = "openai.embeddings"


@pytest.mark.parametrize(
    ("hedge", "shadow", "found"),
    [
        ("claude", "claude", ((), ())),
        ("gpt2/h", "claude", (("gpt2",), ())),
        ("claude", "gpt2/h", ((), ("gpt2",))),
    ],
)
def test_who_does_not_serve_an_operation_is_not_asked(hedge: str, shadow: str, found: Any) -> None:
    plan = rules.loads(RULES.replace("HEDGE", hedge).replace("SHADOW", shadow))
    body = json.dumps({"model": "m", "input": "x"}).encode()
    posed = pose_bytes(registry.codec(EMBEDDINGS), body, RequestFacts("/v1/embeddings", {}, {}))
    told = explain(plan, posed)
    beside = told.verdict.hedges, told.verdict.shadows
    assert tuple(tuple(each.leaf.upstream.name for each in kind) for kind in beside) == found  # type: ignore[union-attr]
    assert told.verdict.leaf is not None and told.verdict.leaf.upstream.name == "gpt"
    (drawn,) = [each for each in told.drawn if each.place == "t.select[0]"]
    assert [share.aim.spelled for share in drawn.split.shares] == ["gpt/e", "gpt2/f"]


CYCLES = """
    upstreams:
      first: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}
      second: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}
    targets:
      plain: {select: [{use: first/a}], on_failure: [{kinds: [rate_limit], use: second/b}]}
      hedged:
        select: [{use: first/a}]
        hedge: {after: 20ms, use: second/b, max_extra: 100%}
        on_failure: [{kinds: [rate_limit], use: second/c}]
    routes: [{name: h, match: {model: hedged}, to: hedged}, {name: r, to: plain}]
"""


@pytest.mark.parametrize("model", ["plain", "hedged"])
async def test_errors_leave_no_cycles(asking: Callable[..., Any], provider: FakeProvider, model: str) -> None:
    """An error holds the frames it went through, and with them the call."""
    plays = [script(status=429), script("Hi.")]
    if model == "hedged":
        plays = [script(status=429, wait_s=0.06), *plays]
    async with asking(CYCLES) as ask:
        await ask(model=model)
        gc.collect()
        gc.disable()
        try:
            provider.answer(*plays)
            served = await ask(model=model, stream=True)
            assert served.error is None
            del served
            found = [each for each in gc.get_objects() if isinstance(each, GatewayError)]
            left = [each for each in found if each.message.startswith("Rate limit reached")]
            del found
        finally:
            gc.enable()
        assert left == []
