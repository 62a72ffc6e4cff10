"""``headgate import claude-code-router``: providers, scenes and models by name, served as they were."""

from __future__ import annotations

import json

import pytest
import yaml
from aiohttp import ClientSession
from headgate.gateway import rules
from headgate.gateway.importers import convert

from ..fakes.provider import FakeProvider
from .importing import CORPUS, MESSAGES, ask, imported, serving_file

SOURCE = CORPUS / "claude-code-router.json"
VARIABLES = ("CCR_APIKEY", "OPENROUTER_API_KEY", "DEEPSEEK_API_KEY", "OLLAMA_API_KEY")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def of(**config):
    """The rule file's data and the report of a configuration."""
    made = convert("claude-code-router", json.dumps(config), "config.json", {})
    rules.loads(made.text)
    return yaml.safe_load(made.text), made.entries


def test_the_file_passes_check_and_its_tests(tmp_path, capsys):
    target, entries = imported("claude-code-router", SOURCE, tmp_path, capsys)
    assert [problem for problem in rules.check(target) if problem.severity == "error"] == []
    trials, _ = rules.try_out(target)
    assert len(trials) == 6 and all(trial.passed for trial in trials)
    assert "your-secret-key" not in target.read_text()
    assert [(entry["outcome"], entry["path"]) for entry in entries] == [
        ("secret", "APIKEY"),
        ("left out", "NON_INTERACTIVE_MODE"),
        ("secret", "Providers[0].api_key"),
        ("left out", "Providers[2].api_key"),
        ("left out", "Providers[2].transformer.use[0]"),
        ("left out", "Router.think"),
        ("changed", "Router.longContextThreshold"),
        ("left out", "Router.webSearch"),
    ]
    data = yaml.safe_load(target.read_text())
    assert data["server"] == {"listen": "127.0.0.1:3456"} and data["defaults"] == {"timeout": {"total": "10m"}}


async def test_it_serves_as_it_did(tmp_path, capsys, monkeypatch):
    async with (
        FakeProvider() as router,
        FakeProvider() as deepseek,
        FakeProvider() as ollama,
        ClientSession() as session,
    ):
        text = SOURCE.read_text().replace("http://openrouter.example", router.base)
        text = text.replace("http://deepseek.example", deepseek.base).replace("http://localhost:11434", ollama.base)
        source = tmp_path / "config.json"
        source.write_text(text.replace('"ollama",\n      "models"', '"sk-ollama",\n      "models"'))
        target, _ = imported("claude-code-router", source, tmp_path, capsys)
        for name in VARIABLES:
            monkeypatch.setenv(name, router.key)
        monkeypatch.setenv("CCR_APIKEY", "your-secret-key")
        async with serving_file(target) as base:

            async def call(model, content="Hello", key="your-secret-key"):
                body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": content}]}
                status, _, answer = await ask(session, base, "/v1/messages", body, key)
                return status, answer

            assert (await call("claude-sonnet-4-5", key=None))[0] == 401
            status, answer = await call("claude-sonnet-4-5")
            assert status == 200 and answer["type"] == "message" and deepseek.last.json["model"] == "deepseek-chat"
            assert (await call("claude-haiku-4-5"))[0] == 200
            assert ollama.last.json["model"] == "qwen2.5-coder:latest"
            assert (await call("claude-sonnet-4-5", "x" * 250_000))[0] == 200
            assert router.last.json["model"] == "google/gemini-2.5-pro-preview"
            assert (await call("deepseek,deepseek-reasoner"))[0] == 200
            assert deepseek.last.json["model"] == "deepseek-reasoner"
            # other formats were never served
            body = {"model": "gpt-4o", "messages": MESSAGES}
            assert (await ask(session, base, "/v1/chat/completions", body, "your-secret-key"))[0] == 404


PROVIDER = {"name": "a", "api_base_url": "https://a.example/v1/chat/completions", "api_key": "k", "models": ["m", "n"]}


@pytest.mark.parametrize(
    ("settings", "listen"),
    [
        ({}, "127.0.0.1:3456"),
        ({"PORT": 8080}, "127.0.0.1:8080"),
        ({"HOST": "0.0.0.0"}, "127.0.0.1:3456"),
        ({"HOST": "0.0.0.0", "APIKEY": "k"}, "0.0.0.0:3456"),
        ({"HOST": "127.0.0.1", "PORT": 99999}, "127.0.0.1:3456"),
    ],
)
def test_where_it_listens(settings, listen):
    data, _ = of(**settings)
    assert data["server"]["listen"] == listen


@pytest.mark.parametrize(
    ("provider", "upstream"),
    [
        ({}, {"adapter": "openai", "base_url": "https://a.example/v1", "key": "env:A_API_KEY?"}),
        ({"api_key": "${MY_KEY}"}, {"adapter": "openai", "base_url": "https://a.example/v1", "key": "env:MY_KEY?"}),
        ({"api_key": ""}, {"adapter": "openai", "base_url": "https://a.example/v1"}),
        (
            {"api_base_url": "https://api.anthropic.com/v1/messages", "transformer": {"use": ["Anthropic"]}},
            {"adapter": "anthropic", "base_url": "https://api.anthropic.com", "key": "env:A_API_KEY?"},
        ),
        (
            {"name": "gemini", "api_base_url": "https://generativelanguage.googleapis.com/v1beta/models/"},
            {
                "adapter": "openai",
                "base_url": "https://generativelanguage.googleapis.com/v1beta/openai",
                "key": "env:GEMINI_API_KEY?",
            },
        ),
    ],
)
def test_providers(provider, upstream):
    data, _ = of(Providers=[{**PROVIDER, **provider}], Router={"default": "a,m"})
    assert list(data["upstreams"].values()) == [upstream]


def test_scenes_in_the_order_of_its_router():
    router = {name: "a,m" for name in ("default", "image", "think", "background", "longContext", "webSearch")}
    data, entries = of(Providers=[PROVIDER], Router=router)
    names = [route["name"] for route in data["routes"]]
    assert names == ["a,m", "a,n", "longContext", "background", "image", "default"]
    assert [entry.path for entry in entries if entry.outcome == "left out"] == ["Router.think", "Router.webSearch"]


def test_fallbacks_of_a_scene():
    data, _ = of(Providers=[PROVIDER], Router={"default": "a,m"}, fallback={"default": ["a,n", "gone,x"]})
    assert [entry["use"] for entry in data["targets"]["default"]["on_failure"]] == ["a/n"]


def test_a_proxy():
    data, _ = of(Providers=[PROVIDER], Router={"default": "a,m"}, PROXY_URL="http://127.0.0.1:7890")
    assert data["upstreams"]["a"]["pool"] == {"proxy": "http://127.0.0.1:7890"}
    data, entries = of(Providers=[PROVIDER], Router={"default": "a,m"}, PROXY_URL="http://u:word@127.0.0.1:7890")
    assert "pool" not in data["upstreams"]["a"] and "word" not in str(entries)


def test_a_scene_without_its_provider():
    data, entries = of(Providers=[PROVIDER], Router={"default": "gone,m", "background": "a,m"})
    assert [route["name"] for route in data["routes"]] == ["a,m", "a,n", "background"]
    assert ("left out", "Router.default") in {(entry.outcome, entry.path) for entry in entries}
