"""``headgate replay``: logged and recorded requests decided once more, what is compared, and what cannot be told."""

import asyncio
import io
import json
import sys

import pytest
from headgate import Gateway
from headgate.gateway.cli import replay
from headgate.gateway.cli.main import main
from headgate.gateway.errors import GatewayError

RULES = """\
version: 1
upstreams:
  one: {adapter: simulator}
  two: {adapter: simulator}
  busy: {adapter: simulator, script: ["error 429"], chain: [{retry: {tries: 2, backoff: 1ms}}]}
chains:
  base: [log: {to: calls.log}]
targets:
  smart:
    select:
      - {match: {principal.team: red}, use: two/red}
      - {match: {model: busy}, use: busy}
      - split: [{use: one, weight: 50}, {use: two/t, weight: 50}]
    on_failure:
      - {kinds: [rate_limit], use: one/spare}
routes:
  - {name: long, match: {request.tokens: {gt: 100}}, chain: base, to: two}
  - {name: claude, match: {model: claude-*}, chain: base, to: one/renamed}
  - {name: rest, chain: base, to: smart}
"""
MODELS = ["m", "claude-1", "busy", *["m"] * 6]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routes.yaml").write_text(RULES)
    return tmp_path


@pytest.fixture
def logged(here):
    """What the middleware wrote of a few live calls."""

    async def serve():
        async with Gateway.load("routes.yaml") as gateway:
            for number, model in enumerate([*MODELS, "m"]):
                words = "w" * (600 if number == len(MODELS) else 1)
                body = json.dumps({"model": model, "messages": [{"role": "user", "content": words}]}).encode()
                try:
                    await (await gateway.handle("openai.chat", body, path="/v1/chat/completions")).collect()
                except GatewayError:
                    pytest.fail("nothing of this fails")

    asyncio.run(serve())
    return here / "calls.log"


@pytest.fixture
def replayed(here, capsys):
    """Return a function from new rules and arguments to exit code and data."""

    def run(rules: str, *arguments: str) -> tuple[int, dict]:
        (here / "new.yaml").write_text(rules)
        code = main(["replay", "--json", "--against", "new.yaml", *arguments])
        shown = capsys.readouterr()
        assert shown.err == ""
        return code, json.loads(shown.out)

    return run


def changes_of(data: dict) -> list[tuple[int, dict]]:
    return [
        (each["count"], {one["what"]: (one["before"], one["after"]) for one in each["changes"]})
        for each in data["changes"]
    ]


def test_the_same_rules_decide_the_same_whatever_chance_and_providers_did(replayed, logged):
    code, data = replayed(RULES, "calls.log")
    assert (code, data["ok"], data["read"], data["same"]) == (0, True, 10, 10)
    assert len({line["upstream"] for line in map(json.loads, logged.read_text().splitlines())}) > 1
    code, data = replayed(RULES, "calls.log", "routes.yaml")
    assert (code, data["same"]) == (0, 10)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("to: one/renamed", "to: two/renamed", [(1, {"upstream": ("one", "two")})]),
        ("to: one/renamed", "to: one/else", [(1, {"model": ("renamed", "else")})]),
        ("{name: claude,", "{name: anthropic,", [(1, {"route": ("claude", "anthropic")})]),
        ("gt: 100}", "gt: 1000}", [(1, {"route": ("long", "rest"), "model": ("m", "t")})]),
        ("use: one/spare", "use: two/spare", [(1, {"upstream": ("busy, one", "busy, two")})]),
        ("kinds: [rate_limit]", "kinds: [connect]", [(1, {"upstream": ("busy, one", "busy"), "model": ("busy, spare", "busy"),
                                                          "chain": ("log", "log")})]),
        ("model: claude-*", "model: nobody", None),
    ],
)  # fmt: skip
def test_what_changes_is_counted_with_examples(replayed, logged, old, new, expected):
    assert old in RULES
    code, data = replayed(RULES.replace(old, new), "calls.log")
    assert code == 1
    assert data["changed"] == 1
    assert data["same"] == 9
    (group,) = data["changes"]
    assert group["examples"][0]["about"].startswith("req_")
    if expected is not None:
        (_, found), (_, wanted) = changes_of(data)[0], expected[0]
        found.pop("chain", None)
        wanted.pop("chain", None)
        assert found == wanted


def test_a_chain_that_changes_is_told(replayed, logged):
    code, data = replayed(
        RULES.replace("base: [log: {to: calls.log}]", "base: [log: {to: calls.log}, retry]"), "calls.log"
    )
    assert code == 1
    assert data["changed"] == 10
    assert {"chain": ("log", "log, retry")} in [found for _, found in changes_of(data)]


def test_rules_that_ask_for_what_the_log_does_not_hold(replayed, logged):
    rules = RULES.replace("{model: claude-*}", "{model: claude-*, header.user-agent: curl*}")
    code, data = replayed(rules, "calls.log")
    assert (code, data["same"], data["changed"]) == (1, 9, 0)
    assert data["cannot_be_told"] == {"header.user-agent": 1}
    for fact in ("request.tools: true", "request.has_image: true", "metadata.a: b", "query.q: x"):
        _, data = replayed(RULES.replace("{model: claude-*}", f"{{model: claude-*, {fact}}}"), "calls.log")
        assert data["cannot_be_told"] == {fact.partition(":")[0]: 1}


def recorded(model: str, **more) -> dict:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return {"method": "POST", "path": "/v1/chat/completions", "headers": {"X-Team": "red"}, "body": body, **more}


def test_recorded_requests_are_decided_by_both_files(replayed, here, monkeypatch):
    lines = [json.dumps(recorded("claude-1")), json.dumps(recorded("m")), json.dumps(recorded("m"))]
    (here / "requests.jsonl").write_text("\n".join(lines))
    code, data = replayed(RULES.replace("model: claude-*", "header.x-team: red"), "requests.jsonl")
    assert (code, data["same"], data["changed"]) == (1, 1, 2)
    assert data["changes"][0]["examples"] == [
        {"line": 2, "about": "openai.chat m"},
        {"line": 3, "about": "openai.chat m"},
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert replayed(RULES, "-")[0] == 0


def test_recorded_requests_of_every_format(replayed, here):
    gemini = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    requests = [
        {"path": "/llm/v1beta/models/claude-1:streamGenerateContent?alt=sse&key=secret", "body": gemini},
        {"path": "/v1/responses", "body": {"model": "claude-1", "input": "Hello"}},
        {"path": "/v1/completions", "body": {"model": "claude-1", "prompt": "Hello"}},
        {"path": "/api/chat", "body": {"model": "claude-1", "messages": []}},
        {"path": "/api/generate", "body": {"model": "claude-1", "prompt": "Hello"}},
    ]
    (here / "routes.yaml").write_text(RULES)
    (here / "requests.jsonl").write_text("\n".join(map(json.dumps, requests)))
    code, data = replayed(RULES.replace("to: one/renamed", "to: two"), "requests.jsonl")
    assert (code, data["read"], data["changed"]) == (1, 5, 5), data
    assert "secret" not in json.dumps(data)


def test_lines_that_cannot_be_read_are_counted_and_shown(replayed, here, capsys, monkeypatch):
    monkeypatch.setattr(replay, "_LONGEST", 400)
    wrong = [
        "no JSON",
        "{",
        "{}",
        json.dumps(recorded("m", method="GET")),
        json.dumps(recorded("m", path="/v1/nowhere")),
        json.dumps({"body": {"model": 3}, "path": "/v1/messages"}),
        json.dumps(recorded("m" * 1000)),
    ]
    lines = [wrong[0], "", *wrong[1:], f"2026-01-01 INFO headgate.access: {json.dumps(recorded('m'))}"]
    (here / "mixed.log").write_text("\n".join(lines) + "\n")
    code, data = replayed(RULES, "mixed.log")
    assert (code, data["read"], data["same"], data["unreadable"]) == (1, 8, 1, 7)
    assert [each["line"] for each in data["unreadable_lines"]] == [1, 3, 4, 5, 6, 7, 8]
    assert main(["replay", "mixed.log", "--against", "new.yaml"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "line 1 cannot be read: no JSON object"
    assert out[-1] == "8 read: 1 the same, 0 changed, 0 cannot be told, 7 cannot be read"


def test_what_people_see(here, logged, capsys):
    (here / "new.yaml").write_text(RULES.replace("to: one/renamed", "to: two/renamed"))
    assert main(["replay", "calls.log", "--against", "new.yaml"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "1  upstream: one → two"
    assert out[1].startswith("      line 2: req_")
    assert out[1].endswith(" openai.chat claude-1")
    assert out[2] == "10 read: 9 the same, 1 changed, 0 cannot be told, 0 cannot be read"


def test_many_kinds_of_changes_take_bounded_memory(replayed, here, monkeypatch):
    monkeypatch.setattr(replay, "_MAX_GROUPS", 5)
    (here / "requests.jsonl").write_text("\n".join(json.dumps(recorded(f"m{at}")) for at in range(20)))
    rules = RULES.replace("{name: rest, chain: base, to: smart}", "{name: rest, chain: base, to: two/x}")
    _, data = replayed(RULES.replace("- {name: rest", "- {name: other") + "", "requests.jsonl")
    assert (data["changed"], len(data["changes"]), data["other_changes"]) == (20, 1, 0)
    (here / "routes.yaml").write_text(rules.replace("two/x", "one"))
    _, data = replayed(rules, "requests.jsonl")
    assert (data["changed"], len(data["changes"]), data["other_changes"]) == (20, 5, 15)


def test_files_that_are_not_there(here, capsys):
    assert main(["replay", "gone.log", "--against", "routes.yaml"]) == 1
    assert "cannot read gone.log: No such file" in capsys.readouterr().err
    (here / "calls.log").write_text("")
    assert main(["replay", "calls.log", "--against", "gone.yaml"]) == 1
    assert "E001" in capsys.readouterr().err
    assert main(["replay", "calls.log", "--against", "routes.yaml"]) == 0
    with pytest.raises(SystemExit) as raised:
        main(["replay", "calls.log"])
    assert raised.value.code == 2
