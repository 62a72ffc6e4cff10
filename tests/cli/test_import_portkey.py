"""``headgate import portkey``: strategies become targets, conditions cases, and what came out serves as it did."""

from __future__ import annotations

import json

import pytest
import yaml
from aiohttp import ClientSession
from headgate.gateway import rules
from headgate.gateway.errors import KINDS
from headgate.gateway.importers import convert

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .importing import CORPUS, MESSAGES, ask, imported, serving_file

SOURCE = CORPUS / "portkey.json"
VARIABLES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_PROD_1A2B_API_KEY")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def of(config):
    """The rule file's data and the report of a config."""
    made = convert("portkey", json.dumps(config), "config.json", {})
    rules.loads(made.text)
    return yaml.safe_load(made.text), made.entries


def test_the_file_passes_check_and_its_tests(tmp_path, capsys):
    target, entries = imported("portkey", SOURCE, tmp_path, capsys)
    assert [problem for problem in rules.check(target) if problem.severity == "error"] == []
    trials, _ = rules.try_out(target)
    assert len(trials) == 3 and all(trial.passed for trial in trials)
    assert [entry["path"] for entry in entries if entry["outcome"] == "left out"] == [
        "strategy.conditions[2]",
        "cache",
        "targets[0].targets[0].override_params.temperature",
    ]
    assert "sk-" not in target.read_text() and "portkey-example" not in str(entries)


async def test_it_serves_as_it_did(tmp_path, capsys, monkeypatch):
    async with FakeProvider() as first, FakeProvider() as claude, FakeProvider() as groq, ClientSession() as session:
        source = tmp_path / "portkey.json"
        text = SOURCE.read_text().replace("http://openai.example", first.base).replace("http://groq.example", groq.base)
        source.write_text(text.replace("http://anthropic.example", claude.base))
        target, _ = imported("portkey", source, tmp_path, capsys)
        for name in VARIABLES:
            monkeypatch.setenv(name, first.key)

        async with serving_file(target) as base:

            async def call(**members):
                body = {"model": "whatever", "messages": MESSAGES, **members}
                status, _, answer = await ask(session, base, "/v1/chat/completions", body, None)
                assert status == 200, answer

            await call(metadata={"plan": "paid"})
            assert first.last.json["model"] == "gpt-4o" and not claude.requests

            first.answer(script(status=429))
            await call(metadata={"plan": "paid"})
            assert [each.json["model"] for each in claude.requests] == ["claude-sonnet-4-5"]

            first.requests.clear()
            for number in range(300):
                await call(model=("fastest", "gpt-5-mini", "other")[number % 3])
            assert {each.json["model"] for each in first.requests} == {"gpt-4o-mini"}
            assert {each.json["model"] for each in groq.requests} == {"llama-3.3-70b"}
            assert 175 < len(first.requests) < 275 and len(first.requests) + len(groq.requests) == 300

            # a status that is not listed ends the call
            first.answer(script(status=500))
            body = {"model": "whatever", "messages": MESSAGES, "metadata": {"plan": "paid"}}
            status, _, _ = await ask(session, base, "/v1/chat/completions", body, None)
            assert status >= 500 and len(claude.requests) == 1


OPENAI = {"provider": "openai", "api_key": "a-key"}
CLAUDE = {"provider": "anthropic", "api_key": "another-key"}


def test_one_provider():
    data, entries = of({**OPENAI, "override_params": {"model": "gpt-4o"}})
    assert data["upstreams"] == {"openai": {"adapter": "openai", "key": "env:OPENAI_API_KEY?"}}
    assert data["routes"] == [{"name": "all", "chain": "base", "to": "openai/gpt-4o"}]
    assert [(entry.outcome, entry.path) for entry in entries] == [("secret", "api_key")]


def test_without_a_key_the_callers_own_passes():
    data, _ = of({"provider": "openai"})
    assert data["upstreams"] == {"openai": {"adapter": "openai", "credential": "pass-through"}}


@pytest.mark.parametrize(
    ("codes", "kinds"),
    [
        (None, [kind for kind in KINDS if kind not in ("cancelled", "internal")]),
        ([429], ["rate_limit", "quota"]),
        ([429, 529], ["rate_limit", "quota", "overloaded"]),
        ([401, 299], ["auth"]),
    ],
)
def test_status_codes_become_kinds(codes, kinds):
    strategy = {"mode": "fallback", **({} if codes is None else {"on_status_codes": codes})}
    data, _ = of({"strategy": strategy, "targets": [OPENAI, CLAUDE]})
    assert data["targets"]["main"] == {
        "select": [{"use": "openai"}],
        "on_failure": [{"kinds": kinds, "use": "anthropic"}],
    }


def test_retries_go_down_the_tree_and_camel_case_is_read():
    config = {
        "strategy": {"mode": "fallback"},
        "retry": {"attempts": 3, "onStatusCodes": [429]},
        "requestTimeout": 2500,
        "targets": [OPENAI, {**CLAUDE, "retry": {"attempts": 0}, "overrideParams": {"model": "claude-x"}}],
    }
    data, _ = of(config)
    assert data["upstreams"]["openai"]["chain"] == [{"retry": {"tries": 4, "on": ["quota", "rate_limit"]}}]
    assert "chain" not in data["upstreams"]["anthropic"]
    assert data["upstreams"]["anthropic"]["timeout"] == {"first_token": "2500ms"}
    assert data["targets"]["main"]["on_failure"][0]["use"] == "anthropic/claude-x"


def test_strategies_within_strategies():
    pair = {"strategy": {"mode": "loadbalance"}, "targets": [{**OPENAI, "weight": 2}, CLAUDE]}
    data, _ = of({"strategy": {"mode": "fallback"}, "targets": [pair, {"provider": "groq", "api_key": "k"}]})
    assert data["targets"]["main-1"]["select"] == [
        {"split": [{"use": "openai", "weight": 2}, {"use": "anthropic", "weight": 1}]}
    ]
    assert data["targets"]["main"]["select"] == [{"use": "main-1"}] and data["routes"][0]["to"] == "main"


def test_a_provider_that_nobody_serves_is_left_out_alone():
    config = {"strategy": {"mode": "fallback"}, "targets": [{"provider": "bedrock", "aws_region": "x"}, OPENAI]}
    data, entries = of(config)
    assert data["routes"][0]["to"] == "openai"
    assert ("left out", "targets[0]") in {(entry.outcome, entry.path) for entry in entries}


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ({"metadata.plan": "paid"}, [{"metadata.plan": "paid"}]),
        ({"metadata.plan": {"$eq": "paid"}}, [{"metadata.plan": "paid"}]),
        ({"metadata.plan": {"$ne": "paid"}}, [{"metadata.plan": {"not": "paid"}}]),
        ({"metadata.plan": {"$in": ["a", "b"]}}, [{"metadata.plan": ["a", "b"]}]),
        ({"metadata.plan": {"$nin": ["a", "b"]}}, [{"metadata.plan": {"not": ["a", "b"]}}]),
        ({"metadata.age": {"$gt": 5, "$lt": 9}}, [{"metadata.age": {"gt": 5, "lt": 9}}]),
        ({"metadata.age": {"$gte": 5}}, [{"metadata.age": {"exists": True, "not": {"lt": 5}}}]),
        ({"params.model": {"$regex": "^gpt-4"}}, [{"model": {"prefix": "gpt-4"}}]),
        ({"params.model": {"$regex": "mini$"}}, [{"model": {"suffix": "mini"}}]),
        ({"params.model": {"$regex": "^gpt-4\\.1$"}}, [{"model": "gpt-4.1"}]),
        ({"params.stream": True}, [{"request.stream": True}]),
        ({"url.pathname": "/v1/chat/completions"}, [{"path": "/v1/chat/completions"}]),
        (
            {"$and": [{"metadata.plan": "paid"}, {"params.model": "x"}]},
            [{"metadata.plan": "paid", "model": "x"}],
        ),
        ({"$or": [{"metadata.plan": "paid"}, {"params.model": "x"}]}, [{"metadata.plan": "paid"}, {"model": "x"}]),
        ({"params.temperature": {"$gt": 0.7}}, None),
        ({"params.model": {"$regex": "a|b"}}, None),
        ({"params.model": {"$length": 3}}, None),
        ({"params.model": "gpt-*"}, None),
        ({"$and": [{"metadata.n": {"$gt": 1}}, {"metadata.n": {"$lt": 9}}]}, None),
        ({}, None),
    ],
)
def test_conditions(query, matches):
    config = {
        "strategy": {"mode": "conditional", "conditions": [{"query": query, "then": "a"}], "default": "b"},
        "targets": [{"name": "a", **OPENAI}, {"name": "b", **CLAUDE}],
    }
    data, entries = of(config)
    cases = data["targets"]["main"]["select"]
    assert cases[-1] == {"use": "anthropic"}
    assert [case["match"] for case in cases[:-1]] == (matches or [])
    left = [entry.path for entry in entries if entry.outcome == "left out"]
    assert left == ([] if matches else ["strategy.conditions[0]"])


def test_a_virtual_key_tells_its_provider_and_an_at_name_too():
    config = {
        "strategy": {"mode": "loadbalance"},
        "targets": [{"virtual_key": "mistral-ai-eu"}, {"provider": "@groq-prod"}],
    }
    data, _ = of(config)
    assert data["upstreams"]["mistral"]["key"] == "env:MISTRAL_AI_EU_API_KEY?"
    assert data["upstreams"]["groq"]["base_url"] == "https://api.groq.com/openai/v1"


@pytest.mark.parametrize(
    "config", [{}, {"strategy": {"mode": "fallback"}, "targets": []}, {"strategy": {"mode": "dice"}}]
)
def test_nothing_to_serve(config):
    data, _ = of(config)
    assert "routes" not in data
