"""``headgate migrate`` and the steps behind it: what changes, what stays, and what is refused."""

from __future__ import annotations

import pytest
from headgate.gateway import rules
from headgate.gateway.cli.main import main
from headgate.gateway.rules import migrations
from headgate.gateway.rules.migrations import CannotMigrate, Edits, Step, migrate

OLD = """\
# My rules.

# Providers.
upstreams:   # here
  sim: {adapter: simulator}  # a demo
routes:
- {name: all,to: sim}
"""
NEW = """\
# My rules.

version: 1

# Providers.
upstreams:   # here
  sim: {adapter: simulator}  # a demo
routes:
- {name: all,to: sim}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routes.yaml").write_text(OLD)
    return tmp_path


def test_the_difference_is_printed_and_nothing_changed(here, capsys):
    assert main(["migrate"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "routes.yaml: version 0 to 1: the file says its version" and "+version: 1" in shown
    assert main(["migrate", "--check"]) == 1
    assert (here / "routes.yaml").read_text() == OLD


def test_written_it_loads_and_there_is_nothing_left_to_do(here, capsys):
    assert "E010" in {problem.code for problem in rules.check("routes.yaml")}
    assert main(["migrate", "--write"]) == 0
    assert (here / "routes.yaml").read_text() == NEW
    assert rules.check("routes.yaml") == []
    capsys.readouterr()
    assert main(["migrate", "--check"]) == 0
    assert capsys.readouterr().out == "routes.yaml: in the present version\n"
    assert main(["migrate", "--write"]) == 0 and (here / "routes.yaml").read_text() == NEW


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a: 1\n", "version: 1\na: 1\n"),
        ("# of a\na: 1\n", "# of a\nversion: 1\na: 1\n"),
        ("# file\n\n# of a\na: 1\n", "# file\n\nversion: 1\n\n# of a\na: 1\n"),
        ("  a: 1\n  b: 2\n", "  version: 1\n  a: 1\n  b: 2\n"),
        ("{a: 1}\n", "{version: 1, a: 1}\n"),
        ("---\na: 1\n", "---\nversion: 1\na: 1\n"),
        ("a: 1\nversion:\n", "a: 1\nversion: 1\n"),
        ('version: "1"  # said\na: 1\n', "version: 1  # said\na: 1\n"),
        ("version: 1.0\n", "version: 1\n"),
        ("version: v1\n", "version: 1\n"),
        ("version: 0\n", "version: 1\n"),
    ],
)
def test_from_version_0(old, new):
    migrated = migrate(old, "routes.yaml")
    assert migrated.text == new and [step.since for step in migrated.steps] == [0]
    assert migrate(new, "routes.yaml").steps == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version: 7\n",
            "routes.yaml:1:10 error E014 version 7 is not known here, 1 is the latest (this build is too old",
        ),
        ("version: -1\n", "E014"),
        ("version: soon\n", "E014"),
        ("version: [1]\n", "E014"),
        ("version: true\n", "E014"),
        ("- a\n", "E011"),
        ("", "E011"),
        ("a: [\n", "E002"),
        ("a: 1\na: 2\n", "E004"),
        ("a: on\n", "E005"),
    ],
)
def test_what_is_refused(text, said, here, capsys):
    with pytest.raises(CannotMigrate, match="error"):
        migrate(text, "routes.yaml")
    (here / "routes.yaml").write_text(text)
    assert main(["migrate", "--write"]) == 1
    assert said in capsys.readouterr().err and (here / "routes.yaml").read_text() == text


def test_a_file_of_a_later_version_is_refused_by_the_loader_with_what_to_do(here):
    (here / "routes.yaml").write_text(OLD.replace("upstreams:", "version: 2\nupstreams:", 1))
    (problem,) = rules.check("routes.yaml")
    assert problem.code == "E014" and "update Headgate" in problem.hint


def test_files_that_cannot_be_read(here, capsys):
    (here / "latin.yaml").write_bytes(b"a: \xe9\n")
    assert main(["migrate", "--write", "gone.yaml", "latin.yaml", "routes.yaml"]) == 1
    shown = capsys.readouterr().err
    assert "cannot read gone.yaml" in shown.replace("migrate", "read") and "latin.yaml: not UTF-8" in shown
    assert (here / "routes.yaml").read_text() == NEW


# -- a step of a later version, by the same means

V1 = """\
version: 1   # of the language
upstreams:
  a: {adapter: simulator, "headers": {x: y}}   # headers stays in here
  # the second
  b:
    adapter: simulator
    headers: {x: y}
targets:
  t:
    select:
      - use: a      # first
      - {match: {model: 'x: y'}, use: "b"}
    on_failure: [{kinds: [connect], use: b}]
"""
V2 = """\
version: 2   # of the language
upstreams:
  a: {adapter: simulator, send: {x: y}}   # headers stays in here
  # the second
  b:
    adapter: simulator
    send: {x: y}
targets:
  t:
    select:
      - to: a      # first
      - {match: {model: 'x: y'}, to: "b"}
    on_failure: [{kinds: [connect], use: b}]
"""


def to_v2(edits: Edits) -> None:
    for found in edits.find("upstreams", "*", "headers"):
        edits.rename(found, "send")
    for found in edits.find("targets", "*", "select", "*", "use"):
        assert found.keys[:3] == ("targets", "t", "select") and found.value in ("a", "b")
        edits.rename(found, "to")
    for found in edits.find("version"):
        edits.respell(found, "2")


STEPS = (*migrations.STEPS, Step(1, "use of a case is called to", to_v2))


def test_from_version_1_to_2_comments_and_layout_stay():
    assert migrate(V1, "routes.yaml", STEPS).text == V2
    assert migrate(V2, "routes.yaml", STEPS).steps == ()


def test_steps_follow_one_another(here, monkeypatch, capsys):
    monkeypatch.setattr(migrations, "STEPS", STEPS)
    (here / "routes.yaml").write_text(V1.removeprefix("version: 1   # of the language\n"))
    assert main(["migrate", "--write"]) == 0
    assert (here / "routes.yaml").read_text() == V2.replace("   # of the language", "")
    assert capsys.readouterr().out.splitlines()[:2] == [
        "routes.yaml: version 0 to 1: the file says its version",
        "routes.yaml: version 1 to 2: use of a case is called to",
    ]


def test_an_anchor_is_edited_once_where_it_stands():
    old = "version: 1\nupstreams:\n  a: &a {adapter: s, headers: {x: y}}\n  b: *a\n  c: {<<: *a}\n"
    assert migrate(old, "routes.yaml", STEPS).text == old.replace("headers", "send").replace("version: 1", "version: 2")


def test_the_steps_are_without_a_gap():
    assert [step.since for step in migrations.STEPS] == list(range(rules.schema.VERSION))
