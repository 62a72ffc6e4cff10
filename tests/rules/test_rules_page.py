"""docs/rules.md says what the types say, and its steps are rule files that work."""

import re

import msgspec
import pytest
from headgate.gateway import rules
from headgate.gateway.rules import schema

from .rules_page import PAGE, SECTIONS, page

STEPS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_reference_is_what_the_types_say():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.rules.rules_page"


def test_the_picture_is_in_the_page():
    assert page().count("```mermaid\nflowchart LR\n") == 1


def test_every_struct_of_a_rule_file_has_its_section():
    structs = {each for each in vars(schema).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)}
    missing = structs - {kind for _, kind in SECTIONS} - {msgspec.Struct}
    assert {each.__name__ for each in missing if each.__module__ == schema.__name__} == set()


@pytest.mark.parametrize("step", STEPS, ids=range(len(STEPS)))
def test_a_step_of_the_tutorial_is_in_order(step, tmp_path, monkeypatch):
    for name in re.findall(r"env:(\w+)\?", step):
        monkeypatch.setenv(name, "a-secret")
    path = tmp_path / "routes.yaml"
    path.write_text(step)
    assert rules.check(path) == []
    trials, _ = rules.try_out(path)
    assert all(trial.passed for trial in trials)
    assert len(trials) == step.count("given:")
