"""``headgate fmt`` and ``headgate schema``: what they write, what they leave alone, and their exit codes."""

import json
import os
import stat

import pytest
from headgate.gateway.cli import replace
from headgate.gateway.cli.main import main

MESSY = "version: 1\nroutes:\n- {name: a,to: sim}   # first\n"
NEAT = "version: 1\nroutes:\n  - {name: a, to: sim}  # first\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_is_formatted_in_place_and_keeps_its_mode(here, capsys):
    path = here / "routes.yaml"
    path.write_text(MESSY)
    path.chmod(0o640)
    assert main(["fmt"]) == 0
    assert path.read_text() == NEAT and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert capsys.readouterr().out == "routes.yaml: formatted\n"
    before = path.stat()
    assert main(["fmt"]) == 0
    assert path.stat() == before, "a file in order is not written again"
    assert capsys.readouterr().out == "routes.yaml: in order\n"
    assert os.listdir(here) == ["routes.yaml"]


def test_a_link_stays_a_link(here):
    (here / "real.yaml").write_text(MESSY)
    (here / "routes.yaml").symlink_to("real.yaml")
    assert main(["fmt"]) == 0
    assert (here / "routes.yaml").is_symlink() and (here / "real.yaml").read_text() == NEAT


def test_check_prints_the_difference_and_changes_nothing(here, capsys):
    (here / "a.yaml").write_text(MESSY)
    (here / "b.yaml").write_text(NEAT)
    assert main(["fmt", "--check", "a.yaml", "b.yaml"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "-- {name: a,to: sim}   # first" in lines and "+  - {name: a, to: sim}  # first" in lines
    assert lines[-1] == "b.yaml: in order"
    assert (here / "a.yaml").read_text() == MESSY
    assert main(["fmt", "--check", "b.yaml"]) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"routes: [\n", "E002"),
        (b"a: 1\na:   2\n", "E004"),
        (b"a:   on\n", "E005"),
        (b"a: \xe9\n", "not UTF-8"),
        (b"? a\n:   1\n", "question mark"),
    ],
)
def test_what_is_not_in_order_is_never_touched(content, said, here, capsys):
    path = here / "routes.yaml"
    path.write_bytes(content)
    assert main(["fmt"]) == 1
    assert path.read_bytes() == content
    shown = capsys.readouterr()
    assert said in shown.err and shown.out == ""


def test_a_missing_file(here, capsys):
    assert main(["fmt", "gone.yaml"]) == 1
    assert "cannot read gone.yaml: No such file" in capsys.readouterr().err


def test_a_write_that_fails_leaves_the_old_file_and_no_other(here, monkeypatch, capsys):
    (here / "routes.yaml").write_text(MESSY)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replace.os, "replace", refuse)
    assert main(["fmt"]) == 1
    assert (here / "routes.yaml").read_text() == MESSY and os.listdir(here) == ["routes.yaml"]
    assert "No space left" in capsys.readouterr().err


def test_a_mark_of_byte_order_and_carriage_returns_go(here):
    (here / "routes.yaml").write_bytes(b"\xef\xbb\xbf" + NEAT.replace("\n", "\r\n").encode())
    assert main(["fmt"]) == 0
    assert (here / "routes.yaml").read_bytes() == NEAT.encode()


def test_the_schema_is_printed(capsys):
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["$schema"].endswith("2020-12/schema") and "routes" in printed["properties"]


def test_the_schema_of_a_part_asks_for_no_version(capsys):
    assert main(["schema", "--part"]) == 0
    part = json.loads(capsys.readouterr().out)
    assert main(["schema"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole.pop("required") == ["version"] and part.pop("required") == []
    assert (whole.pop("type"), part.pop("type")) == ("object", ["object", "null"])
    assert part.pop("title") == whole.pop("title") + " that others include"
    assert part == whole


def test_the_schema_is_written_with_what_to_do_next(here, capsys):
    assert main(["schema", "--write", "routes.schema.json"]) == 0
    assert "# yaml-language-server: $schema=./routes.schema.json" in capsys.readouterr().out
    assert json.loads((here / "routes.schema.json").read_text())["title"]
    assert main(["schema", "--write", "gone/routes.schema.json"]) == 1
    assert "cannot write gone/routes.schema.json: No such file" in capsys.readouterr().err
