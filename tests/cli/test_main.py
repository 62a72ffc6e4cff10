"""The command: what it prints, and its exit codes."""

import io
import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from headgate.gateway.cli.main import main
from headgate.gateway.cli.show import Screen
from headgate.gateway.rules import Problem
from headgate.gateway.version import VERSION

ROOT = Path(__file__).parents[2]
GOOD = """\
version: 1
upstreams:
  sim: {adapter: simulator}
  paid: {adapter: simulator, key: "env:HEADGATE_NOT_SET?"}
chains: {base: [log]}
routes:
  - {name: big, match: {model: [big-*, huge], request.tokens: {gt: 9}, request.stream: true}, chain: base, to: paid/x}
  - {name: rest, to: sim}
"""
BAD = GOOD.replace("name: rest", "nmae: rest")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADGATE_NOT_SET", raising=False)
    return tmp_path


def test_check_of_a_file_in_order(here, capsys):
    (here / "routes.yaml").write_text(GOOD)
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("routes.yaml:4:3 warning W102 ")
    assert lines[1:] == ["routes.yaml: 0 errors, 1 warning"]


def test_check_of_a_file_with_mistakes(here, capsys):
    (here / "other.yaml").write_text(BAD)
    assert main(["check", "other.yaml"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 3)[:3] for line in lines[1:3]] == [
        ["other.yaml:8:5", "error", "E010"],
        ["other.yaml:8:6", "error", "E012"],
    ]
    assert '(did you mean "name"?)' in lines[2]
    assert lines[-1] == "other.yaml: 2 errors, 1 warning"


def test_check_for_editors(here, capsys):
    (here / "routes.yaml").write_text(BAD)
    assert main(["check", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["file"], data["ok"]) == ("routes.yaml", False)
    assert data["problems"][-1] == {
        "code": "E012",
        "severity": "error",
        "source": "routes.yaml",
        "line": 8,
        "column": 6,
        "message": 'unknown key "nmae" in routes[1]',
        "hint": 'did you mean "name"?',
    }


@pytest.mark.parametrize("command", ["check", "routes", "serve"])
def test_a_missing_file_leads_to_init(command, here, capsys):
    assert main([command]) == 1
    assert "headgate init" in "".join(capsys.readouterr())


def test_routes_are_listed_in_order(here, capsys):
    (here / "routes.yaml").write_text(GOOD)
    assert main(["routes"]) == 0
    big = "model: [big-*, huge]  request.tokens: {gt: 9}  request.stream: true"
    assert capsys.readouterr().out.splitlines() == [
        f"#  route  {'match'.ljust(len(big))}  chain  to      state",
        f"1  big    {big}  log    paid/x  off: HEADGATE_NOT_SET is not set",
        f"2  rest   {'every request'.ljust(len(big))}  -      sim     on",
    ]


def test_routes_show_their_when(here, capsys):
    when = "when: |\n      request.tokens > 9\n      || request.has_image\n    to: sim"
    (here / "routes.yaml").write_text(
        GOOD.replace("  - {name: rest, to: sim}", f"  - name: rest\n    match: {{model: m}}\n    {when}")
    )
    assert main(["routes"]) == 0
    assert "rest   model: m  when: request.tokens > 9 || request.has_image " in capsys.readouterr().out
    assert main(["routes", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["routes"][1]["when"] == "request.tokens > 9\n|| request.has_image\n"


def test_routes_for_programs(here, capsys):
    (here / "routes.yaml").write_text(GOOD)
    assert main(["routes", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] and [route["name"] for route in data["routes"]] == ["big", "rest"]
    assert data["routes"][0] == {
        "name": "big",
        "source": "routes.yaml",
        "line": 7,
        "match": {"model": ["big-*", "huge"], "request.tokens": {"gt": 9}, "request.stream": True},
        "when": None,
        "chain": ["log"],
        "to": "paid/x",
        "upstream": "paid",
        "model": "x",
        "beside": [],
        "loss": "report",
        "timeout_s": 1800,
        "off": "HEADGATE_NOT_SET is not set",
    }
    assert data["upstreams"][0] == {"name": "sim", "adapter": "simulator", "off": None}


def test_routes_say_in_which_file_they_stand(here, capsys):
    (here / "parts").mkdir()
    (here / "parts" / "a.yaml").write_text("# one\nroutes:\n  - {name: a, to: sim}\n")
    text = GOOD.replace("version: 1\n", "version: 1\ninclude: parts/a.yaml\n").replace(
        "  - {name: rest, to: sim}\n", ""
    )
    (here / "routes.yaml").write_text(text)
    assert main(["routes", "--json"]) == 0
    found = [(route["name"], route["source"], route["line"]) for route in json.loads(capsys.readouterr().out)["routes"]]
    assert found == [("big", "routes.yaml", 8), ("a", "parts/a.yaml", 3)]


def test_routes_of_a_file_with_mistakes(here, capsys):
    (here / "routes.yaml").write_text(BAD)
    assert main(["routes", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]
    assert main(["routes"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and "E012" in shown.err


def test_init_writes_the_starter_and_never_overwrites(here, capsys):
    assert main(["init"]) == 0
    assert "headgate serve" in capsys.readouterr().out
    assert main(["check"]) == 0
    capsys.readouterr()
    (here / "routes.yaml").write_text("mine")
    assert main(["init"]) == 1
    assert (here / "routes.yaml").read_text() == "mine"
    assert "exists" in capsys.readouterr().err
    assert main(["init", "sub/routes.yaml"]) == 1
    assert "cannot write sub/routes.yaml: No such file" in capsys.readouterr().err


def test_the_rule_file_of_the_repository_is_the_starter():
    starter = (files("headgate.gateway.cli") / "starter.yaml").read_text(encoding="utf-8")
    assert (ROOT / "routes.yaml").read_text(encoding="utf-8") == starter


def test_the_starter_answers_without_any_key_and_brings_providers_alive(here, monkeypatch, capsys):
    keys = {"claude": "ANTHROPIC_API_KEY", "gpt": "OPENAI_API_KEY", "gemini": "GEMINI_API_KEY"}
    for name in keys.values():
        monkeypatch.delenv(name, raising=False)
    assert states(capsys) == {"demo": None, **{name: f"{key} is not set" for name, key in keys.items()}, "rest": None}
    for name in keys.values():
        monkeypatch.setenv(name, "k")
    assert states(capsys) == {"demo": None, **dict.fromkeys(keys), "rest": None}


def states(capsys):
    assert main(["routes", str(ROOT / "routes.yaml"), "--json"]) == 0
    return {route["name"]: route["off"] for route in json.loads(capsys.readouterr().out)["routes"]}


@pytest.mark.parametrize(
    "arguments", [[], ["frobnicate"], ["check", "--yaml"], ["serve", "--listen", "8080"], ["check", "a", "b"]]
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: headgate" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"headgate {VERSION}\n"


def test_serve_refuses_an_open_address_and_a_broken_file(here, capsys):
    (here / "routes.yaml").write_text(GOOD)
    assert main(["serve", "--listen", "0.0.0.0:0"]) == 1
    assert "E051" in capsys.readouterr().err
    (here / "routes.yaml").write_text(BAD)
    assert main(["serve"]) == 1
    assert "E012" in capsys.readouterr().err


def test_serve_says_which_address_is_taken(here, capsys):
    import socket

    (here / "routes.yaml").write_text(GOOD)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}"]) == 1
    assert "in use" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["explain", "--model", "x"], ["schema"], ["graph"], ["routes"]])
def test_who_reads_may_stop(here, command):
    (here / "routes.yaml").write_text(GOOD)
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as out:
        ran = subprocess.run(
            [sys.executable, "-m", "headgate", *command], stdout=out, stderr=subprocess.PIPE, check=False
        )
    assert (ran.returncode, ran.stderr) == (1, b"")


class _Terminal(io.StringIO):
    def isatty(self):
        return True


PROBLEM = Problem("E012", "error", "a\x1b[31m.yaml", 1, 2, "unknown", "hint")


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (_Terminal, {"TERM": "xterm"}, True),
        (_Terminal, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (_Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {"TERM": "xterm"}, False),
    ],
)
def test_colour_only_where_it_is_wanted(stream, environment, coloured, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = stream()
    Screen(out).problems([PROBLEM])
    mark = "\x1b[31merror E012\x1b[0m" if coloured else "error E012"
    assert out.getvalue() == f"a\\x1b[31m.yaml:1:2 {mark} unknown (hint)\n"


def test_a_terminal_that_cannot_show_a_letter_shows_the_rest():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Screen(stream).line("a → b")
    stream.flush()
    assert raw.getvalue() == b"a \\u2192 b\n"


def test_the_module_is_the_command(here):
    (here / "routes.yaml").write_text(BAD)
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "headgate", "check"], capture_output=True, text=True, env=environment, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "E012" in done.stdout and "\x1b" not in done.stdout


def test_commands_that_do_not_serve_do_not_load_the_server(here):
    (here / "routes.yaml").write_text(GOOD)
    code = "import sys; from headgate.gateway.cli.main import main; main(['check'])\n"
    code += "print('headgate.gateway.server' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("False\n"), done.stderr
