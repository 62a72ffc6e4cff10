"""``headgate keys``: what it prints, which database it takes, and what it says when that is not to be had."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway.cli.main import main
from headgate.gateway.identity.database import KeyDatabase
from headgate.gateway.identity.keys import digest_of

RULES = """\
version: 1
upstreams: {sim: {adapter: simulator, key: env:HEADGATE_NOT_SET}, other: {adapter: simulator, key: "env:HEADGATE_NOT_SET?"}}
chains: {base: [{auth: {database: sub/keys.db}}]}
routes:
  - {name: a, match: {model: a}, chain: base, to: other}
  - {name: b, chain: base, to: sim}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADGATE_NOT_SET", raising=False)
    (tmp_path / "sub").mkdir()
    (tmp_path / "routes.yaml").write_text(RULES)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(["keys", *arguments]) == code
    told = capsys.readouterr()
    return told.out, told.err


def test_a_life(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No secret of the rules is needed to manage keys."""
    out, err = run(capsys, "create", "alice", "--team", "red", "--tag", "x", "--tag", "y", "--expires", "30d")
    key = out.strip()
    assert out == key + "\n"
    assert "not shown again" in err
    assert key not in err
    database = KeyDatabase(here / "sub" / "keys.db")
    (found,) = database.every()
    assert (found.team, found.tenant, found.tags, found.routes) == ("red", "alice", ("x", "y"), ("*",))
    assert abs((found.expires or 0) - time.time() - 30 * 86400) < 60
    out, _ = run(capsys, "rotate", "alice", "--grace", "1h", "--expires", "never")
    newer = out.strip()
    out, _ = run(capsys, "list")
    head, line = out.splitlines()
    assert head.split() == ["name", "key", "state", "team", "tenant", "tags", "routes", "models", "expires"]
    assert line.split() == ["alice", f"{newer[:7]}…", "active", "red", "alice", "x,", "y", "*", "*", "never"]
    out, _ = run(capsys, "show", "alice")
    assert f"replaced  {key[:7]}…  good until" in out
    assert run(capsys, "revoke", "alice")[0] == "the key alice is revoked\n"
    assert "revoked" in run(capsys, "show", "alice")[0]
    news = database.read(None)
    assert news is not None
    assert {each.digest for each in news.known} == {digest_of(key), digest_of(newer)}


def test_for_scripts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*arguments: str) -> Any:
        out, err = run(capsys, *arguments, "--json")
        assert err == ""
        return json.loads(out)

    made = told("create", "bob", "--tenant", "acme", "--route", "chat*", "--model", "gpt-*", "--model", "o3")
    assert (made["tenant"], made["routes"], made["models"]) == ("acme", ["chat*"], ["gpt-*", "o3"])
    assert made["key"].startswith(made["prefix"])
    shown = told("show", "bob")
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert told("list") == {"keys": [shown]}
    newer = told("rotate", "bob")
    assert newer["key"] != made["key"]
    assert [secret["prefix"] for secret in newer["secrets"]] == [newer["prefix"], made["prefix"]]
    assert told("revoke", "bob")["state"] == "revoked"
    assert "key" not in told("show", "bob")


def test_another_database(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "create", "a", "--db", "own.db")
    assert "a " in run(capsys, "list", "--db", "own.db")[0]
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "rules.yaml").write_text(RULES.replace("sub/keys.db", "../own.db"))
    assert "a " in run(capsys, "list", "--file", "elsewhere/rules.yaml")[0]


WRONG: list[tuple[tuple[str, ...], str]] = [
    (("list",), "there is no"),
    (("revoke", "a"), "there is no"),
    (("create", "a", "--expires", "soon"), "expires"),
    (("create", "a", "--expires", "2020-01-01"), "expired already"),
    (("create", ""), "printable"),
    (("create", "a", "--db", "none/keys.db"), "none/keys.db"),
    (("list", "--db", "routes.yaml"), "not a database"),
    (("create", "a", "--db", "routes.yaml"), "not a database"),
    (("list", "--db", "sub"), "sub"),
    (("list", "--file", "none.yaml"), "E001"),
]


@pytest.mark.parametrize(("arguments", "why"), WRONG)
def test_what_cannot_be(here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str) -> None:
    out, err = run(capsys, *arguments, code=1)
    assert out == ""
    assert why in err
    assert "Traceback" not in err
    assert (here / "routes.yaml").read_text() == RULES


@pytest.mark.parametrize(
    "arguments", [(), ("create",), ("rotate", "a", "--grace", "soon"), ("list", "--db", "a", "--file", "b")]
)
def test_wrong_usage(here: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["keys", *arguments])
    assert left.value.code == 2


def test_rules_without_a_database_or_with_two(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "routes.yaml").write_text(RULES.replace("{auth: {database: sub/keys.db}}", ""))
    assert "--db PATH" in run(capsys, "list", code=1)[1]
    two = "[{auth: {database: a.db}}, {auth: {database: b.db}}]"
    (here / "routes.yaml").write_text(RULES.replace("[{auth: {database: sub/keys.db}}]", two))
    err = run(capsys, "list", code=1)[1]
    assert "a.db" in err
    assert "b.db" in err


@pytest.mark.parametrize("far", ["3000000d", "9999999d", "999999999999999999999d", "9999-12-31T23:59:59-10:00"])
def test_what_is_far_off_is_listed(here: Path, capsys: pytest.CaptureFixture[str], far: str) -> None:
    """One key that is good for long must not keep the others from being seen."""
    run(capsys, "create", "a", "--expires", far)
    run(capsys, "create", "b")
    run(capsys, "rotate", "b", "--grace", "9999999d")
    out, _ = run(capsys, "list")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["a", "b"]
    assert "after the year 9999" in out
    assert "after the year 9999" in run(capsys, "show", "b")[0]
    run(capsys, "list", "--json")


def test_a_locked_database(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.gateway.identity.database._WRITE_WAIT_S", 0.05)
    run(capsys, "create", "a")
    lock = sqlite3.connect(here / "sub" / "keys.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    assert "locked" in run(capsys, "create", "b", code=1)[1]
    lock.close()
    run(capsys, "create", "b")


def test_many_commands_at_once(here: Path) -> None:
    """Processes that begin with no file at all make one between them."""
    code = "import sys; from headgate.gateway.cli.main import main; sys.exit(main(sys.argv[1:]))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, "keys", "create", f"key {at}", "--db", "new.db"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for at in range(4)
    ]
    made = [each.communicate(timeout=30) for each in running]
    assert [each.returncode for each in running] == [0] * 4, made
    news = KeyDatabase(here / "new.db").read(None)
    assert news is not None
    assert {each.digest for each in news.known} == {digest_of(out.decode().strip()) for out, _ in made}
