"""``headgate new middleware``: what it writes is in order, installs, and passes its own tests."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path

import pytest
from headgate.gateway import registry
from headgate.gateway.cli.main import main
from headgate.gateway.cli.template import class_of, files_of

from ..fakes.distribution import lay, python

ASK = """
import asyncio, sys
from headgate import Gateway

async def main():
    assert "headgate_quiet_hours" not in sys.modules
    async with Gateway.load("routes.yaml") as gateway:
        body = b'{"model": "demo", "messages": [{"role": "user", "content": "x"}], "stream": true}'
        reply = await gateway.handle("openai.chat", body)
        await reply.collect()
        print(gateway.plan.routes[0].chain_names, reply.headers["x-quiet-hours"])

asyncio.run(main())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_in(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_what_is_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "middleware", "quiet-hours"]) == 0
    assert files_in(here / "headgate-quiet-hours") == {
        "pyproject.toml",
        "README.md",
        "routes.yaml",
        "headgate_quiet_hours/__init__.py",
        "headgate_quiet_hours/py.typed",
        "tests/test_headgate_quiet_hours.py",
    }
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "wrote headgate-quiet-hours: the middleware quiet-hours is QuietHours in headgate_quiet_hours/__init__.py"
    )
    assert second.startswith("next: cd headgate-quiet-hours; pip install")


def test_its_own_tests_pass(here: Path) -> None:
    """Before it is installed anywhere, and with warnings as errors."""
    assert main(["new", "middleware", "quiet-hours"]) == 0
    options = ("-q", "-p", "no:cacheprovider", "-W", "error")
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = python(here / "nowhere", here / "headgate-quiet-hours", "-m", "pytest", *options, **alone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_rules_name_it_once_it_is_installed(here: Path) -> None:
    assert main(["new", "middleware", "quiet-hours", "--dir", "mine"]) == 0
    (here / "mine" / "ask.py").write_text(ASK)
    about = lay(here / "mine", here / "site")
    assert about["name"] == "headgate-quiet-hours"
    for run in (("-m", "headgate", "check", "routes.yaml"), ("ask.py",)):
        done = python(here / "site", here / "mine", *run)
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "('log', 'quiet-hours') 1\n"
    schema = json.loads(python(here / "site", here, "-m", "headgate", "schema").stdout)
    assert list(schema["$defs"]["middleware-quiet-hours"]["properties"]) == ["header"]
    missing = python(here / "nowhere", here / "mine", "-m", "headgate", "check", "routes.yaml")
    assert (missing.returncode, "E031" in missing.stdout) == (1, True)


@pytest.mark.parametrize("name", ["a", "reply", "none", "x2-y-3z", "class-var", "meta", "struct", "w" * 50])
def test_any_name_makes_modules(name: str) -> None:
    files = files_of(name)
    for path, text in files.items():
        assert "$" not in path
        if path.endswith(".py"):
            tree = ast.parse(text)
            classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
            imported = {
                alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
            }
            assert not (classes & imported)
            assert class_of(name) in classes | imported
    entries = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]["headgate.middlewares"]
    assert entries == {name: f"headgate_{name.replace('-', '_')}:{class_of(name)}"}


def test_the_distributions_prefix_is_not_doubled(here: Path) -> None:
    assert main(["new", "middleware", "headgate-stamp"]) == 0
    assert (here / "headgate-stamp" / "headgate_stamp").is_dir()


REFUSED = [
    ("auth", "of Headgate already"),
    ("chain", "something else"),
    ("no", "something else"),
    ("Quiet", "lower-case"),
    ("quiet hours", "lower-case"),
    ("quiet_hours", "lower-case"),
    ("../../etc", "lower-case"),
    ("-x", ""),
    ("", "lower-case"),
    ("a--b", "lower-case"),
    ("9a", "lower-case"),
    ("w" * 51, "lower-case"),
]


@pytest.mark.parametrize(("name", "why"), REFUSED)
def test_names_that_are_refused(here: Path, capsys: pytest.CaptureFixture[str], name: str, why: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["new", "middleware", name])
    assert left.value.code == 2
    assert why in capsys.readouterr().err
    assert files_in(here) == set()


def test_all_of_ours_are_refused(here: Path) -> None:
    for name in set(registry.names("middlewares")) - set(registry.installed("middlewares")):
        with pytest.raises(SystemExit):
            main(["new", "middleware", name])


@pytest.mark.parametrize("taken", ["a file", "a full directory", "below a file"])
def test_nothing_is_overwritten(here: Path, capsys: pytest.CaptureFixture[str], taken: str) -> None:
    where = here / "mine"
    if taken == "a full directory":
        where.mkdir()
        (where / "pyproject.toml").write_text("precious")
    else:
        where.write_text("precious")
    before = files_in(here)
    directory = "mine/below" if taken == "below a file" else "mine"
    assert main(["new", "middleware", "quiet-hours", "--dir", directory]) == 1
    said = capsys.readouterr().err
    assert "cannot write" in said if taken == "below a file" else "exists and stays as it is" in said
    assert files_in(here) == before
    assert all((here / name).read_text() == "precious" for name in before)


def test_an_empty_directory_will_do(here: Path) -> None:
    (here / "mine").mkdir()
    assert main(["new", "middleware", "quiet-hours", "--dir", "mine"]) == 0
    assert (here / "mine" / "README.md").is_file()


@pytest.mark.parametrize("arguments", [["new"], ["new", "adapter", "x"], ["new", "middleware"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: headgate new" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["new", "middleware", "--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Nothing that exists is overwritten." in said
    assert "--dir DIR" in said
