"""What the commands say of second calls, of copies, and of upstreams that are passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from headgate.gateway.cli.main import main

RULES = """
version: 1
upstreams:
  gpt: {adapter: openai, key: env:HEADGATE_TEST_KEY}
  claude: {adapter: anthropic, key: env:HEADGATE_TEST_KEY}
  trial: {adapter: simulator}
  unset: {adapter: simulator, key: "env:HEADGATE_NOT_SET?"}
targets:
  t:
    select: [{use: claude/c}]
    on_failure: [{kinds: [connect], use: gpt/g}]
    hedge: {after: 1500ms, use: gpt/h, max_extra: 2.5%}
    shadow: {use: other, share: 0.5%}
  other: {select: [{split: [{use: trial/x, weight: 9}, {use: gpt/y}]}]}
  without: {select: [{use: gpt}], hedge: {after: 1s, use: unset}, shadow: {use: unset}}
routes:
  - {name: strict, match: {model: strict}, to: t, loss: refuse}
  - {name: without, match: {model: without}, to: without}
  - {name: all, to: t}
"""
LOSING = {"model": "strict", "messages": [{"role": "user", "content": "hi"}], "logit_bias": {"1": 1}}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HEADGATE_TEST_KEY", "a-secret")
    monkeypatch.delenv("HEADGATE_NOT_SET", raising=False)
    path = tmp_path / "routes.yaml"
    path.write_text(RULES)
    return str(path)


def test_explain_says_it(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", file, "--model", "m"]) == 0
    said = capsys.readouterr().out
    assert "hedge     after 1.5 s without content also gpt/h, for 2.5% of the calls at most  (t.hedge)" in said
    assert "shadow    copies of 0.5% of the calls to other: trial/x  (t.shadow)" in said
    assert main(["explain", file, "--model", "m", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["hedges"] == [
        {"place": "t.hedge", "use": "gpt/h", "upstream": "gpt", "after_s": 1.5, "max_extra": 0.025}
    ]
    assert data["shadows"] == [{"place": "t.shadow", "use": "other", "upstream": "trial", "share": 0.005}]
    assert data["passed_over"] == []
    assert main(["explain", file, "--model", "m", "--fail", "connect", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["upstream"], data["hedges"], len(data["shadows"])) == ("gpt", [], 1)  # what follows is not hedged
    assert main(["explain", file, "--model", "without", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["hedges"], data["shadows"]) == ([], [])


def test_explain_says_what_is_passed_over(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps(LOSING))
    assert main(["explain", file, str(request)]) == 0
    said = capsys.readouterr().out
    assert "claude/c would lose something (loss: refuse)" in said
    assert "t.on_failure[0] gpt/g after loss" in said
    assert main(["explain", file, str(request), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["upstream"], data["model"], data["passed_over"], data["loss"]) == ("gpt", "g", ["claude/c"], [])


def test_graph_draws_it(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for language, dotted in (("dot", "style=dotted"), ("mermaid", "-.->")):
        assert main(["graph", file, "--format", language]) == 0
        said = capsys.readouterr().out
        assert "after 1.5 s without content" in said
        assert "copies of 0.5" in said
        assert "extra calls: 2.5" in said
        assert said.count(dotted) >= 5


def test_routes_names_it(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["routes", file]) == 0
    assert "t (hedge gpt/h, shadow other)" in capsys.readouterr().out
    assert main(["routes", file, "--json"]) == 0
    routes = json.loads(capsys.readouterr().out)["routes"]
    assert [each["use"] for each in routes[0]["beside"]] == ["gpt/h", "other"]
    assert [each["off"] for each in routes[1]["beside"]] == ["HEADGATE_NOT_SET is not set"] * 2


def test_replay_takes_a_hedged_call_for_its_first(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {"upstream": "claude", "model": "c", "started_s": 0.1, "error": "cancelled"}
    second = {"upstream": "gpt", "model": "h", "started_s": 1.6, "status": 200, "cause": "hedge"}
    line = {
        "time": 1.0,
        "request_id": "req_1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "format": "openai.chat",
        "model": "m",
        "route": "all",
        "upstream": "gpt",
        "key": "anonymous",
        "stream": False,
        "status": 200,
        "outcome": "ok",
        "duration_ms": 5.0,
        "tokens": 10,
    }
    log = tmp_path / "log.jsonl"
    log.write_text(
        json.dumps({**line, "attempts": [first, second]})
        + "\n"
        + json.dumps({**line, "attempts": [second, first]})
        + "\n"
    )
    assert main(["replay", str(log), file, "--against", file, "--json"]) == 0
    print(capsys.readouterr().out)
