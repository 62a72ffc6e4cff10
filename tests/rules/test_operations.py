"""Rules about what is no conversation: matched, decided, explained and tried as everything else is."""

from __future__ import annotations

from typing import Any

import pytest
from headgate.gateway import rules
from headgate.gateway.rules.decide import decide
from headgate.gateway.rules.given import pose
from headgate.gateway.rules.preview import outgoing
from headgate.gateway.rules.schema import GivenRules
from headgate.gateway.rules.target import heaviest
from headgate.gateway.rules.tries import tries

RULES = """
version: 1
server: {anonymous: allow}
upstreams:
  claude: {adapter: anthropic}
  second: {adapter: anthropic}
  local: {adapter: ollama}
  cohere: {adapter: cohere}
  "off": {adapter: openai, key: "env:HEADGATE_NOT_SET?"}
targets:
  cases: {select: [{match: {request.tokens: {gt: 99}}, use: claude}, {use: inner}], on_failure: [{kinds: [quota], use: second}]}
  inner: {select: [{split: [{use: claude, weight: 9}, {use: local/x, weight: 1}]}]}
  fallback: {select: [{use: claude}], on_failure: [{kinds: [quota], use: second}, {kinds: [quota], use: cohere}]}
  nobody: {select: [{match: {model: x}, use: claude}, {use: second}]}
routes:
  - {name: maybe, match: {format: openai.embeddings, model: maybe}, to: "off"}
  - {name: cases, match: {model: cases}, to: cases}
  - {name: fallback, match: {model: fallback}, to: fallback}
  - {name: nobody, match: {model: nobody}, to: nobody}
  - {name: ranked, match: {format: rerank}, to: cohere}
  - {name: rest, to: claude}
tests:
  - {name: ranked, given: {format: rerank, model: m}, expect: {route: ranked, upstream: cohere}}
  - {name: passed by, given: {format: openai.embeddings, model: cases}, expect: {upstream: local, model: x}}
  - {name: chat, given: {model: cases}, expect: {upstream: claude}}
"""


@pytest.fixture(scope="module")
def plan() -> Any:
    return rules.loads(RULES)


CASES = [
    ("openai.embeddings", "cases", ["local"]),
    ("openai.embeddings", "fallback", ["cohere"]),
    ("openai.embeddings", "nobody", ["second"]),
    ("openai.chat", "cases", ["claude", "second"]),
    ("openai.chat", "fallback", ["claude", "second", "cohere"]),
    ("rerank", "other", ["cohere"]),
    ("openai.moderations", "other", ["claude"]),
]


@pytest.mark.parametrize(("format", "model", "upstreams"), CASES)
def test_who_is_tried(plan: Any, format: str, model: str, upstreams: list[str]) -> None:
    posed = pose(GivenRules(format=format, model=model), plan)
    verdict = decide(plan, posed.wire)
    assert verdict.leaf is not None
    assert verdict.route is not None
    assert verdict.leaf.upstream.name == upstreams[0]
    listed = tries(verdict.route.aim, posed.wire, heaviest)
    assert [each.leaf.upstream.name for each in listed if each.leaf is not None] == upstreams


def test_explain_says_what_would_be_sent(plan: Any) -> None:
    posed = pose(GivenRules(format="openai.embeddings", model="cases"), plan)
    told = outgoing(decide(plan, posed.wire), posed)
    assert told.preview is not None
    assert told.preview.url == "http://127.0.0.1:11434/api/embed"
    assert told.preview.body == b'{"model":"x","input":["Hello"],"truncate":false}'
    posed = pose(GivenRules(format="openai.moderations", model="m"), plan)
    told = outgoing(decide(plan, posed.wire), posed)
    assert told.refusal is not None
    assert (told.refusal.status, told.refusal.kind) == (501, "unsupported")
    posed = pose(GivenRules(format="openai.embeddings", model="nobody"), plan)
    told = outgoing(decide(plan, posed.wire), posed)
    assert (told.refusal is not None, told.in_process) == (True, False)


def test_cohere_serves_conversations_too() -> None:
    plan = rules.loads(RULES.replace("{format: rerank}, to", "{model: command-a}, to").partition("tests:")[0])
    posed = pose(GivenRules(format="openai.chat", model="command-a"), plan)
    told = outgoing(decide(plan, posed.wire), posed)
    assert told.preview is not None
    assert told.preview.url == "https://api.cohere.com/compatibility/v1/chat/completions"


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("match: {format: rerank}, to: local", "is for rerank, which local does not serve"),
        ("match: {format: [openai.chat, openai.moderations]}, to: nobody", "which claude or second does not serve"),
        ("match: {format: openai.embeddings}, to: fallback", None),
        ("match: {format: 'openai.*'}, to: claude", None),
        ("match: {format: {not: rerank}}, to: claude", None),
    ],
)
def test_a_route_for_what_nobody_behind_it_serves(route: str, fault: str | None) -> None:
    text = RULES.partition("  - {name: cases")[0] + f"  - {{name: new, {route}}}\n"
    try:
        rules.loads(text)
        found = []
    except rules.RulesError as error:
        found = [problem.message for problem in error.problems if problem.code == "E061"]
    assert len(found) == (fault is not None)
    assert fault is None or fault in found[0]
