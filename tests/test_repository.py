"""What the repository promises about itself: what is at its root, what the package has, what importing it does."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
PACKAGES = ("gateway", "middlewares", "adapters")
MODULES = sorted(path for place in PACKAGES for path in (ROOT / place).rglob("*.py"))


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))


# -- the package


def test_the_root_has_no_other_modules():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_every_package_is_listed():
    found = {"headgate"} | {
        ".".join(("headgate", *path.parent.relative_to(ROOT).parts)) for path in MODULES if path.name == "__init__.py"
    }
    assert set(SETUPTOOLS["packages"]) == found


def test_every_module_stands_in_a_package():
    assert [str(path) for path in MODULES if not (path.parent / "__init__.py").exists()] == []


def test_the_wheel_has_the_files_that_are_no_modules():
    listed = {
        "/".join((*package.split(".")[1:], name))
        for package, names in SETUPTOOLS["package-data"].items()
        for name in names
    }
    ours = {
        str(path.relative_to(ROOT))
        for place in PACKAGES
        for path in (ROOT / place).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert listed == ours | {"py.typed"}
    assert all((ROOT / name).is_file() for name in listed)


def test_changelog_begins_with_this_version():
    entries = re.findall(r"^## \[(.+?)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert entries[0][0] == PROJECT["project"]["version"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in entries[1:]), "released versions have a date"


def test_the_link_tree_is_what_the_package_is():
    tree = re.search(r"^TREE\s*:=\s*(.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert tree is not None
    assert set(tree[1].split()) == {"__init__.py", "__main__.py", "py.typed", *PACKAGES}


# -- imports

BELOW_CALL = ("errors.py", "units.py", "version.py", "ir", "wire", "codecs", "relay", "call.py")


def imported(path: Path) -> set[str]:
    """The top-level names of what a module imports absolutely."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_below_call_stand_msgspec_and_the_standard_library_alone():
    strangers = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == "gateway" and path.relative_to(ROOT).parts[1] in BELOW_CALL
        for name in imported(path) - sys.stdlib_module_names - {"msgspec"}
    }
    assert strangers == set()


def test_the_package_imports_what_it_requires():
    required = {re.match(r"[\w-]+", text)[0].lower() for text in PROJECT["project"]["dependencies"]}
    extras = {
        re.match(r"[\w-]+", text)[0].lower()
        for texts in PROJECT["project"]["optional-dependencies"].values()
        for text in texts
    }
    packages = {
        "yaml": "pyyaml",
        "re2": "google-re2",
        "opentelemetry": "opentelemetry-sdk",
        "genai_prices": "genai-prices",
    }
    # aiohttp's own values: its public signatures are made of them, and it pins the versions that fit.
    of_aiohttp = {"multidict", "yarl"}
    used = {name for path in MODULES for name in imported(path)} - sys.stdlib_module_names - of_aiohttp
    assert {packages.get(name, name) for name in used} <= required | extras


# -- the public surface


def surface() -> ast.Module:
    return ast.parse((ROOT / "__init__.py").read_text())


def test_what_type_checkers_see_is_what_there_is():
    import headgate

    guarded = next(node for node in surface().body if isinstance(node, ast.If))
    homes = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(homes) == set(headgate.__all__)
    for name, (module, attribute) in homes.items():
        __import__(f"headgate.{module}")
        assert getattr(headgate, name) is getattr(sys.modules[f"headgate.{module}"], attribute), name


def test_unknown_names_are_attribute_errors():
    import headgate

    with pytest.raises(AttributeError, match="no attribute 'Getaway'"):
        headgate.Getaway  # noqa: B018
    assert set(headgate.__all__) <= set(dir(headgate))


IMPORT = """
import json, logging, signal, sys, threading

before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
logger = logging.getLogger()
seen = []

def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.posix_spawn", "os.putenv")) or (
        event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    ):
        seen.append(f"{event} {arguments!r}")

sys.dont_write_bytecode = True
sys.addaudithook(watch)
import headgate

alone = "aiohttp" in sys.modules
for name in headgate.__all__:
    getattr(headgate, name)
print(json.dumps({
    "seen": seen,
    "aiohttp at import": alone,
    "threads": threading.active_count(),
    "signals changed": any(signal.getsignal(number) is not handler for number, handler in before.items()),
    "log handlers": len(logger.handlers) + len(logging.getLogger("headgate").handlers),
    "extras": sorted({"re2", "uvloop", "headgate.adapters.openai", "headgate.middlewares.auth"} & set(sys.modules)),
}))
"""


def test_importing_opens_and_starts_nothing():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == {
        "seen": [],
        "aiohttp at import": False,
        "threads": 1,
        "signals changed": False,
        "log handlers": 0,
        "extras": [],
    }


# -- the machinery around


def test_hooks_are_the_projects_own_commands():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [
        (repo["repo"], hook["language"], hook["entry"].split()) for repo in config["repos"] for hook in repo["hooks"]
    ]
    assert hooks
    for repo, language, (command, *wanted) in hooks:
        assert (repo, language, command) == ("local", "system", "make")
        assert set(wanted) <= targets()


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_workflows_run_the_same_commands_as_a_developer(path):
    workflow = yaml.safe_load(path.read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    for command, *wanted in map(str.split, commands):
        assert command == "make"
        assert set(wanted) <= targets()


def test_ci_runs_what_developers_run():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111 == 0o111
    assert "make test" in script.read_text().splitlines()
