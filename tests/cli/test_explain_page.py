"""docs/explain.md shows what the commands print."""

import re
import shlex
from pathlib import Path

import pytest
from headgate.gateway.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explain.md").read_text()
SHOWN = re.findall(r"^```console\n\$ headgate (.*?)\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command.split()[0] for command, _ in SHOWN])
def test_the_page_shows_what_is_printed(command, output, tmp_path, monkeypatch, capsys):
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    rules = (ROOT / "examples/routes/two-with-fallback.yaml").read_text().partition("tests:")[0]
    (tmp_path / "new.yaml").write_text(rules.replace("use: openai/gpt-5.4}", "use: openai/gpt-5.5}"))
    (tmp_path / "calls.log").write_text(re.findall(r"^```json\n(.*?)^```", PAGE, re.M | re.S)[0])
    main(shlex.split(command))
    assert capsys.readouterr().out == output


def test_the_page_shows_both_commands():
    assert {command.split()[0] for command, _ in SHOWN} == {"explain", "replay"}
