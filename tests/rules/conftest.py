"""The parts that rule files of these tests name, importable as ``rule_parts``."""

import importlib.util
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from headgate.gateway import rules
from headgate.gateway.codecs.base import Peek, RequestFacts


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rule_parts", Path(__file__).with_name("parts.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["rule_parts"] = module
    spec.loader.exec_module(module)
    return module


PARTS = sys.modules.get("rule_parts") or _load()


@pytest.fixture
def parts():
    PARTS.HISTORY.clear()
    return PARTS


@pytest.fixture
def plan_of(parts, tmp_path):
    """Return a function from a rule file's text, without its version line, to the plan."""

    def load(text: str, previous: rules.Plan | None = None) -> rules.Plan:
        return rules.loads("version: 1\n" + textwrap.dedent(text), directory=tmp_path, previous=previous)

    return load


@pytest.fixture
def facts():
    """Return a function that makes the wire facts of a request."""

    def make(
        model="m", *, format="openai.chat", path="/v1/chat/completions", body=b"{}", query=None, headers=None, **peek
    ) -> rules.WireFacts:
        return rules.WireFacts(format, Peek(model=model, **peek), RequestFacts(path, query or {}, headers or {}), body)

    return make


@pytest.fixture
def problems_of(tmp_path, monkeypatch, parts):
    """Return a function from a rule file's text to its problems; ``parts/a.yaml`` is there to be included."""
    monkeypatch.setenv("HEADGATE_TEST_KEY", "a-secret")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.yaml").write_text("version: 1\n")

    def found(text):
        path = tmp_path / "routes.yaml"
        path.write_text(text)
        return rules.check(path)

    return found
