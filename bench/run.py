"""What a call through Headgate costs, as ratios to a bare aiohttp proxy in one interleaved run. See bench/README.md.

python -m bench.run [--quick] [--rounds N] [--seconds S] [--only WORD] [--out FILE]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from . import certificate, stopped
from .cases import CASES, HEADERS, KEY, LOADS, PATHS, PROVIDER_KEY, WARM_UP, Case, rules
from .result import CROWDED, Figures, Machine, Memory, Result, Row, System, file_name, text, write
from .servers import HERE, Generator, Server, free_port, generating, serving

RESULTS = HERE / "results"
ENOUGH_ROUNDS = 5
"""A run of fewer is not kept."""
IMPORTS = {
    "aiohttp.web": "import aiohttp.web",
    "headgate": "import headgate",
    "headgate.Gateway": "import headgate; headgate.Gateway",
    "headgate serve": "import headgate.gateway.server.standalone",
}
PACKAGES = ("aiohttp", "httptools", "msgspec", "uvloop", "headgate")
Run: TypeAlias = dict[str, float]
"""What the load generator says, ``cost``, ``busy`` besides."""


@dataclass(frozen=True)
class Job:
    """What is measured at a time: ``case`` on ``system``. Raw has one for all cases of a load and a provider."""

    case: Case
    system: System

    @property
    def key(self) -> tuple[str, str, str, System]:
        """Under what its runs are found."""
        chain = "" if self.system == "raw" else self.case.chain
        return self.case.load, self.case.provider, chain, self.system


class Bench:
    """The servers of a run, all up and warm."""

    def __init__(self, stack: ExitStack, transports: Sequence[System], cores: Sequence[int]) -> None:
        self.transports = transports
        self.load_core, self.core = cores[0], cores[-1]
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-bench-")))
        tls = certificate.make(home)
        self.providers = ("http", "https") if tls else ("http",)
        port, tls_port = free_port(), free_port()
        doors = [str(port), *([str(tls_port), *map(str, tls)] if tls else [])]
        self.provider = stack.enter_context(serving(self.load_core, port, str(HERE / "provider.py"), *doors))
        self.generator: Generator = stack.enter_context(generating(self.load_core))
        self.servers: dict[tuple[System, str], Server] = {}

        for provider in self.providers:
            own, url = free_port(), f"{provider}://127.0.0.1:{port if provider == 'http' else tls_port}"
            command = (str(HERE / "raw.py"), str(own), url, *([str(tls[0])] if tls and provider == "https" else []))
            self.servers["raw", provider] = stack.enter_context(serving(self.core, own, *command))
        for transport in transports:
            own, file = free_port(), home / f"{transport}.yaml"
            file.write_text(rules(transport, port, tls_port, tls and tls[0], home / f"{transport}.jsonl"))
            command = ("-m", "headgate", "serve", str(file), "--listen", f"127.0.0.1:{own}")
            keys = {"BENCH_KEY": KEY, "BENCH_PROVIDER_KEY": PROVIDER_KEY}
            server = stack.enter_context(serving(self.core, own, *command, **keys))
            self.servers.update({(transport, provider): server for provider in self.providers})

        self.idle: dict[tuple[System, str], float] = {}
        for (system, provider), server in self.servers.items():
            body = str(LOADS["request, c=1"].order("pass", "openai", server.port, 0)["body"])
            server.wait_until_up(PATHS["openai"], body, HEADERS)
            self.idle.setdefault((system, provider), server.rss_mb())
        for (_, provider), server in self.servers.items():  # what is made once, on first use, is no part of the price
            model = "full" if provider == "http" else "full-tls"
            self.generator.run(WARM_UP.order(model, "openai", server.port, 0.2))

    def measure(self, job: Job, seconds: float) -> Run:
        """Put the load on the server; return what came of it."""
        case, load = job.case, LOADS[job.case.load]
        server = self.servers[job.system, case.provider]
        format = "openai" if job.system == "raw" else case.format
        before, others_before = server.cpu_s(), self.provider.cpu_s()
        found = self.generator.run(load.order(case.model, format, server.port, seconds))
        cpu_s, others_s = server.cpu_s() - before, self.provider.cpu_s() - others_before + found["cpu_s"]
        if load.per == "first":
            cost = found["first_p50_ms"] * 1000
        else:
            cost = cpu_s * 1e6 / max(1, found["chunks" if load.per == "chunk" else "requests"])
        return {**found, "cost": cost, "busy": others_s / found["seconds"]}

    def memory(self, seconds: float) -> dict[str, Memory]:
        """Return what the servers' memory is and was, under clients that stop reading at last."""
        loaded = {key: server.peak_rss_mb() for key, server in self.servers.items()}
        found = {}
        for key, server in self.servers.items():
            system, provider = key
            name = f"{system} over TLS" if provider == "https" else system
            model = "full" if provider == "http" else "full-tls"
            held = stopped.rss_mb(server, model, max(0.4, min(6, 12 * seconds)))
            found[name] = Memory(self.idle[key], loaded[key], *held)
        return found


def jobs(cases: Sequence[Case], transports: Sequence[System]) -> list[Job]:
    """Return what one round measures: for each load and provider raw, then all that is compared with it."""
    found: dict[tuple[str, str], list[Job]] = {}
    for case in cases:
        group = found.setdefault((case.load, case.provider), [Job(case, "raw")])
        group += [Job(case, transport) for transport in transports]
    return [job for group in found.values() for job in group]


def compare(cases: Sequence[Case], rounds: int, seconds: float) -> Result:
    """Measure ``cases`` against the bare proxy, in turn, ``rounds`` times over; every other round backwards."""
    date, load_before = datetime.now(UTC), os.getloadavg()
    cores = sorted(os.sched_getaffinity(0))
    notes = []
    transports: list[System] = ["lean", "aiohttp"]
    if importlib.util.find_spec("httptools") is None:
        transports.remove("lean")
        notes.append("SKIPPED: transport lean; httptools is not installed")
    imports = import_times(2 * rounds - 1)
    with ExitStack() as stack:
        bench = Bench(stack, transports, cores)
        if "https" not in bench.providers:
            cases = [case for case in cases if case.provider == "http"]
            notes.append("SKIPPED: the provider with TLS; the command openssl is not installed")
        order = jobs(cases, transports)
        runs: dict[tuple[str, str, str, System], list[Run]] = {job.key: [] for job in order}
        for number in range(rounds):
            for job in order[::-1] if number % 2 else order:
                runs[job.key].append(bench.measure(job, seconds))
            print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        memory = bench.memory(seconds)

    rows = [row(case, transports, runs) for case in cases]
    errors = int(sum(run["errors"] for found in runs.values() for run in found))
    if errors:
        notes.append(f"{errors} answers were wrong or incomplete: the figures mean nothing")
    if len(cores) < 2:
        notes.append("only one core: server, provider and load generator were in each other's way")
    if load_before[0] > len(cores) / 2:
        notes.append(f"the machine was not idle: load {load_before[0]:.1f} before the run")
    crowded = sum(row.held_up for row in rows)
    if crowded:
        notes.append(f"in {crowded} rows provider and load generator took more than {CROWDED:.0%} of their core")
    first = rows[0].systems[transports[0]]
    return Result(
        date=date.isoformat(timespec="seconds"),
        versions=versions(),
        machine=Machine(cpu_model(), len(cores), load_before, os.getloadavg()),
        rounds=rounds,
        seconds=seconds,
        errors=errors,
        notes=notes,
        qps=first.qps,
        p99_ms=first.p99_ms,
        rows=rows,
        memory=memory,
        import_s=imports,
    )


def row(case: Case, transports: Sequence[System], runs: dict[tuple[str, str, str, System], list[Run]]) -> Row:
    """Return medians over the rounds."""
    load = LOADS[case.load]
    bare = runs[Job(case, "raw").key]
    systems: dict[System, Figures] = {}
    times = "first" if load.per == "first" else "delay" if load.pace_ms else ""
    for system in ("raw", *transports):
        found = runs[Job(case, system).key]
        ratios = [our["cost"] / raw["cost"] for raw, our in zip(bare, found, strict=True)]
        systems[system] = Figures(
            us=median("cost", found),
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            qps=median("qps", found),
            p50_ms=median(f"{times}_p50_ms".lstrip("_"), found),
            p99_ms=median(f"{times}_p99_ms".lstrip("_"), found),
            pace_held=median("pace_held", found) if load.pace_ms else None,
            generator_busy=median("busy", found),
        )
    return Row(case.load, case.provider, case.chain, load.per, systems)


def median(name: str, runs: Sequence[Run]) -> float:
    """Return the median of one figure."""
    return statistics.median(run[name] for run in runs)


def import_times(times: int) -> dict[str, float]:
    """Return the seconds that imports take in a fresh interpreter: the median of ``times``."""
    found = {}
    for name, statement in IMPORTS.items():
        code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
        runs = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(times)]
        found[name] = statistics.median(runs)
    return found


def versions() -> dict[str, str]:
    """Return what ran: of packages those that are there, so uvloop only where Headgate runs on it."""
    found = {"python": sys.version.split()[0], "openssl": ssl.OPENSSL_VERSION.split()[1]}
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            found[package] = importlib.metadata.version(package)
    return found


def cpu_model() -> str:
    """Return the processor's name, as the kernel gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine


def allow_many_files() -> None:
    """Let this process and those it starts open as many files as they may: 500 streams are 1,000 sockets."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    """Run the benchmark. Returns 1 if any answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look, in two minutes: --rounds 2 --seconds 0.4")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how often each case is measured ({ENOUGH_ROUNDS})")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each time (1.2)")
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose load, provider or chain has this word")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there, and do not keep the run")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise SystemExit("the benchmark reads CPU times from /proc: it needs Linux")
    cases = [case for case in CASES if options.only in case.name]
    if not cases:
        raise SystemExit(f"no case has {options.only!r} in its name")
    rounds = options.rounds or (2 if options.quick else ENOUGH_ROUNDS)
    seconds = options.seconds or (0.4 if options.quick else 1.2)
    allow_many_files()
    result = compare(cases, rounds, seconds)
    print(text(result))
    print(msgspec.json.encode(result).decode())
    if options.out:
        write(result, options.out)
    elif rounds >= ENOUGH_ROUNDS and not options.only and not result.errors:
        kept = RESULTS / file_name(result)
        write(result, kept)
        print(f"kept as {kept}", file=sys.stderr)
    else:
        print("not kept: too few rounds, some cases only, or wrong answers (--out FILE writes it)", file=sys.stderr)
    return 1 if result.errors else 0


if __name__ == "__main__":
    sys.exit(main())
