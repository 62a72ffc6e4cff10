"""Strangers' distributions, laid where Python finds them as an installer would lay them: no network, no building."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any


def lay(project: Path, site: Path) -> dict[str, Any]:
    """Lay what ``project`` is, by its pyproject.toml, into ``site``: packages, metadata, entry points. Return [project]."""
    declared = tomllib.loads((project / "pyproject.toml").read_text())
    about: dict[str, Any] = declared["project"]
    for package in declared["tool"]["setuptools"]["packages"]:
        shutil.copytree(project / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    groups = configparser.ConfigParser()
    groups.read_dict(about["entry-points"])
    with (info / "entry_points.txt").open("w") as file:
        groups.write(file)
    return about


def python(site: Path, directory: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python in ``directory``, where what was laid into ``site`` is installed; ``more`` goes into its environment."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", **more}
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )
