"""Every shipped rule file loads without an error or a warning, and its own tests pass; none is without tests."""

import re
import shutil
from pathlib import Path

import pytest
from headgate.gateway import rules
from headgate.gateway.server.gateway import Gateway

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "routes").glob("*.yaml"))
SECRET = re.compile(r"env:([A-Z0-9_]+)(\??)")


@pytest.fixture
def keys(monkeypatch):
    """Set every variable that an example needs; an optional one too."""
    for path in EXAMPLES:
        for name, _ in SECRET.findall(path.read_text()):
            monkeypatch.setenv(name, f"a-secret-for-{name}")


def test_there_are_twelve_examples():
    assert len(EXAMPLES) == 12


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_in_order_and_does_what_it_says(path, keys):
    trials, problems = rules.try_out(path)
    assert not problems
    assert len(trials) >= 2
    assert all(trial.passed for trial in trials)
    assert rules.load(path).routes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_which_key_is_missing(path, monkeypatch):
    needed = {name for name, optional in SECRET.findall(path.read_text()) if not optional}
    for name in needed:
        monkeypatch.delenv(name, raising=False)
    missing = [problem for problem in rules.check(path) if problem.code == "E021"]
    assert {name for name in needed if any(name in problem.message for problem in missing)} == needed


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_starts(path, keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # stores and logs are made there
    async with Gateway.load(shutil.copy(path, tmp_path)) as gateway:
        assert gateway.health().status == "ok"
