"""The benchmark still runs, its answers are complete and its results are kept and drawn. What it measures is nobody's
business here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from headgate.bench import certificate, middlewares, plot, result
from headgate.bench.cases import CASES, LOADS
from headgate.gateway import registry

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"
KEPT = sorted((ROOT / "bench/results").glob("*.json"))
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads CPU times from /proc")


def bench(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as the Makefile does."""
    command = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@linux
def test_a_run_is_measured_told_and_drawn(tmp_path):
    """The smallest run there is: nearly every load, one chain, one round."""
    out, picture = tmp_path / "result.json", tmp_path / "picture.svg"
    done = bench("run", "--rounds", 1, "--seconds", 0.01, "--only", "anthropic to openai", "--out", out)
    assert done.returncode == 0, done.stderr
    found = result.read(out)
    assert msgspec.json.decode(done.stdout.splitlines()[-1], type=result.Result) == found
    assert result.text(found) in done.stdout
    check_run(found)

    drawn = bench("plot", out, picture)
    assert drawn.returncode == 0, drawn.stderr
    assert picture.read_text() == plot.draw(found)
    check_picture(picture.read_text(), found)


def check_run(found: result.Result) -> None:
    """Raise if a case, a server or a version is missing, or a figure makes no sense."""
    assert (found.errors, found.rounds, found.seconds) == (0, 1, 0.01)
    cases = [case for case in CASES if "anthropic to openai" in case.chain]
    assert [(row.load, row.provider, row.chain) for row in found.rows] == [
        (case.load, case.provider, case.chain) for case in cases
    ]
    for row in found.rows:
        assert set(row.systems) == {"raw", "lean", "aiohttp"}, row
        assert row.systems["raw"].ratio == 1
        for figures in row.systems.values():
            assert figures.us > 0 and figures.qps > 0 and figures.generator_busy > 0, row
            assert figures.ratio_low <= figures.ratio <= figures.ratio_high, row
            assert 0 < figures.p50_ms <= figures.p99_ms, row
            assert (figures.pace_held is not None) == bool(LOADS[row.load].pace_ms), row
        told = re.findall(rf"^{re.escape(row.load)} +{row.provider} +{row.chain} ", result.text(found), re.M)
        assert len(told) == 2
    assert set(found.memory) == {f"{name}{tls}" for name in ("raw", "lean", "aiohttp") for tls in ("", " over TLS")}
    assert all(0 < memory.idle <= memory.loaded and memory.stopped_then > 0 for memory in found.memory.values())
    assert {"python", "aiohttp", "httptools", "msgspec", "openssl"} <= set(found.versions)
    assert found.machine.cpu and found.machine.cores > 0
    assert set(found.import_s) >= {"headgate", "aiohttp.web"}


def check_picture(text: str, shown: result.Result) -> None:
    """Raise if ``text`` is no XML, or lacks something of ``shown``."""
    rows = [group for group in ElementTree.fromstring(text).iter(f"{SVG}g") if group.get("class") == "row"]
    assert len(rows) == len(shown.rows)
    for group, row in zip(rows, shown.rows, strict=True):
        title = group.findtext(f"{SVG}title", "")
        ours = {name: figures.ratio for name, figures in row.systems.items() if name != "raw"}
        assert row.load in title and row.chain in title and ("TLS" in title) == (row.provider == "https")
        assert all(f"{name} {ratio:.2f}" in title for name, ratio in ours.items())
        assert len(group.findall(f"{SVG}rect")) == len(ours)


def test_a_result_that_misses_something_is_none(tmp_path):
    figures = result.Figures(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, None, 0.5)
    row = result.Row("burst", "https", "a < b", "chunk", {"raw": figures, "lean": figures})
    machine = result.Machine("a & b", 2, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    some = result.Result(
        date="2026-11-21T07:08:09+00:00",
        versions={"python": "3.11.7"},
        machine=machine,
        rounds=5,
        seconds=1.0,
        errors=0,
        notes=[],
        qps=1.0,
        p99_ms=1.0,
        rows=[row],
        memory={},
        import_s={},
    )
    kept = tmp_path / "results" / result.file_name(some)
    assert kept.name == "2026-11-21-0708-python3.11.7.json"
    result.write(some, kept)
    assert result.read(kept) == some
    check_picture(plot.draw(some), some)
    for broken in (kept.read_text().replace('"rows"', '"lines"'), kept.read_text().replace('"chunk"', '"word"')):
        kept.write_text(broken)
        with pytest.raises(msgspec.ValidationError):
            result.read(kept)


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.name)
def test_what_is_kept_is_whole(kept):
    found = result.read(kept)
    assert kept.name == result.file_name(found)
    assert found.rounds >= 5 and found.errors == 0


def test_the_picture_in_the_docs_is_of_a_run():
    drawn = ElementTree.fromstring((ROOT / "docs/performance.svg").read_text())
    assert [group for group in drawn.iter(f"{SVG}g") if group.get("class") == "row"]
    assert not KEPT or (ROOT / "docs/performance.svg").read_text() in {plot.draw(result.read(kept)) for kept in KEPT}


def test_without_openssl_there_is_no_certificate(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert certificate.make(tmp_path) is None


@linux
def test_a_wish_that_names_no_case_is_refused():
    done = bench("run", "--only", "nothing of the kind")
    assert done.returncode == 1
    assert "no case has 'nothing of the kind' in its name" in done.stderr


def test_a_python_that_is_not_there_is_skipped_loudly():
    command = ["make", "--no-print-directory", "bench", "PYTHON=python3.99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "SKIPPED: nothing was measured, python3.99" in done.stderr


def test_the_benchmark_of_the_rules_runs(tmp_path):
    out = tmp_path / "rules.json"
    subprocess.run([sys.executable, ROOT / "bench/rules.py", "--out", out], check=True, timeout=60, capture_output=True)
    found = msgspec.json.decode(out.read_bytes(), type=dict[str, float])
    assert all(value > 0 for value in found.values())


def test_the_benchmark_of_the_middlewares_runs(tmp_path):
    out = tmp_path / "figures.json"
    command = [sys.executable, ROOT / "bench/middlewares.py", "--rounds", "1", "--calls", "4", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    figures = msgspec.json.decode(out.read_bytes())
    skipped = re.findall(r"^NOTE: SKIPPED (.+?): there is no|^NOTE: SKIPPED (.+?):", done.stderr, re.M)
    assert set(figures) | {first or second for first, second in skipped} == set(middlewares.ROWS)
    assert {"auth", "limit", "log", "retry", "breaker", "auth, log"} <= set(figures)
    for name, row in figures.items():
        assert row["whole_ratio"] > 0 and row["stream_ratio"] > 0, name
        assert f"\n{name} " in done.stdout


def test_every_middleware_has_a_row_of_its_own():
    ours = set(registry.names("middlewares")) - set(registry.installed("middlewares"))
    alone = [row.needs for row in middlewares.ROWS.values() if len(row.needs) == 1]
    assert ours <= set().union(*alone)
