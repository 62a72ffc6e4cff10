"""``headgate test``: what it prints, its exit codes, and that it needs no secret."""

import json
import sys
from pathlib import Path

import msgspec
import pytest
from headgate.gateway import rules
from headgate.gateway.cli.main import main

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "routes").glob("*.yaml"))

SECRETS = """\
version: 1
server:
  tls: {cert: gone/cert.pem, key: gone/key.pem}
upstreams:
  paid:
    adapter: openai
    key: env:HEADGATE_NOT_SET
    headers: {x-team: file:gone/team.txt, x-other: "env:HEADGATE_NOT_SET"}
    pool: {proxy: "http://proxy.example:3128", proxy_auth: env:HEADGATE_NOT_SET_EITHER}
    chain: [retry]
  maybe: {adapter: anthropic, key: "env:HEADGATE_NOT_SET?"}
chains:
  base:
    - auth:
        keys:
          - {name: ada, key: env:HEADGATE_ADA}
          - {name: bob, key: file:gone/bob.txt}
          - {name: eve, key: "env:HEADGATE_EVE?"}
    - log
routes:
  - {name: claude, match: {model: claude-*}, chain: base, to: maybe}
  - {name: rest, chain: base, to: paid}
tests:
  - {name: paid, given: {model: x}, expect: {route: rest, upstream: paid, chain: [auth, log, retry]}}
  - {name: maybe, given: {model: claude-1}, expect: {upstream: maybe, chain: [auth, log]}}
  - {name: down, given: {model: claude-1, down: [maybe]}, expect: {upstream: paid}}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HEADGATE_NOT_SET", "HEADGATE_NOT_SET_EITHER", "HEADGATE_ADA", "HEADGATE_EVE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_tests_need_no_secret(here, capsys):
    (here / "routes.yaml").write_text(SECRETS)
    assert main(["test"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok    paid",
        "ok    maybe",
        "ok    down",
        "routes.yaml: 3 passed, 0 failed",
    ]


def test_check_and_serve_do(here, capsys):
    text = SECRETS.replace("  tls: {cert: gone/cert.pem, key: gone/key.pem}\n", "  workers: 1\n")
    (here / "routes.yaml").write_text(text)
    missing = [(each.line, each.code) for each in rules.check("routes.yaml") if each.severity == "error"]
    assert missing == [(7, "E021"), (8, "E021"), (8, "E021"), (9, "E011"), (16, "E021"), (17, "E021")]
    assert main(["serve"]) == 1
    assert "E021" in capsys.readouterr().err


def test_a_test_that_fails_fails_without_secrets_too(here, capsys):
    (here / "routes.yaml").write_text(SECRETS.replace("{upstream: maybe, chain", "{upstream: paid, chain"))
    assert main(["test", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [test["passed"] for test in data["tests"]] == [True, False, True] and data["problems"] == []


def test_a_mistake_of_another_kind_keeps_tests_from_running(here, capsys):
    (here / "routes.yaml").write_text(SECRETS.replace("to: paid}", "to: piad}"))
    assert main(["test"]) == 1
    shown = capsys.readouterr().out
    assert "E033" in shown and "E021" not in shown and "before the file is in order" in shown


def test_results_do_not_depend_on_what_is_set(here, monkeypatch, capsys):
    (here / "routes.yaml").write_text(SECRETS)
    assert main(["test", "--json"]) == 0
    without = capsys.readouterr().out
    for name in ("HEADGATE_NOT_SET", "HEADGATE_ADA", "HEADGATE_EVE"):
        monkeypatch.setenv(name, f"a-secret-for-{name}")
    monkeypatch.setenv("HEADGATE_NOT_SET_EITHER", "user:password")
    assert main(["test", "--json"]) == 0
    assert capsys.readouterr().out == without


class Strict:
    """An adapter that cannot do without a key."""

    Options = msgspec.defstruct("StrictOptions", [])

    def __init__(self, options, context):
        if context.credential is None:
            raise ValueError("no key")

    async def __call__(self, call, /):
        raise AssertionError("tests send nothing")


def test_an_adapter_that_needs_its_key_is_on_for_tests(here, monkeypatch):
    """Tests take every upstream as on: also one that cannot be built without its optional key."""
    monkeypatch.setitem(sys.modules, "trials_parts", sys.modules[__name__])
    text = (
        "version: 1\nupstreams:\n  a: {adapter: trials_parts:Strict, key: 'env:HEADGATE_NOT_SET?'}\n"
        "routes: [{name: r, to: a}]\ntests: [{name: t, given: {}, expect: {upstream: a}}]\n"
    )
    (here / "routes.yaml").write_text(text)
    trials, problems = rules.try_out("routes.yaml")
    assert [trial.passed for trial in trials] == [True], problems


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_tests_of_every_example_pass_without_any_secret(path, monkeypatch, capsys):
    monkeypatch.setattr("os.environ", {})
    assert main(["test", str(path)]) == 0, capsys.readouterr().out
