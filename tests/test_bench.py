"""The benchmark still runs and its answers are complete. What it measures is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent / "bench/run.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads CPU times from /proc")
def test_the_benchmark_runs(tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, str(RUN), "--rounds", "1", "--seconds", "0.01", "--only", "openai to anthropic"]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed == json.loads(out.read_text())
    assert printed["errors"] == 0
    assert {row["load"] for row in printed["cases"]} == {"request", "request, 50 KB", "burst", "paced", "first chunk"}
    assert all(row["ratio"] > 0 and row["qps"] > 0 for row in printed["cases"])
    assert set(printed["rss_mb"]) == {"idle", "loaded"}
    assert set(printed["import_s"]) >= {"headgate", "aiohttp.web"}


def test_the_benchmark_of_the_rules_runs(tmp_path):
    out = tmp_path / "rules.json"
    subprocess.run(
        [sys.executable, RUN.with_name("rules.py"), "--out", out], check=True, timeout=60, capture_output=True
    )
    assert all(value > 0 for value in json.loads(out.read_text()).values())
