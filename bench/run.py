"""What a call through Headgate costs, as ratios to a bare aiohttp proxy in one interleaved run. See bench/README.md.

python bench/run.py [--quick] [--rounds N] [--seconds S] [--only WORD] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

HERE = Path(__file__).parent
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
KEY = "bench-key-0123456789"
RULES = """
version: 1
upstreams:
  openai: {{adapter: openai, base_url: "http://127.0.0.1:{provider}/v1", key: "env:BENCH_PROVIDER_KEY"}}
  anthropic: {{adapter: anthropic, base_url: "http://127.0.0.1:{provider}", key: "env:BENCH_PROVIDER_KEY"}}
chains:
  auth: [{{auth: {{keys: [{{name: bench, key: "env:BENCH_KEY"}}]}}}}]
  full: [{{chain: auth}}, {{log: {{to: "{log}"}}}}]
routes:
  - {{name: pass, match: {{model: pass}}, chain: auth, to: openai}}
  - {{name: full, match: {{model: full}}, chain: full, to: openai}}
  - {{name: to-anthropic, match: {{model: to-anthropic}}, chain: full, to: anthropic}}
  - {{name: to-openai, match: {{model: to-openai}}, chain: full, to: openai}}
"""
FILLER = 'The quick brown fox jumps over the lazy dog; "quoted" words\n and a tab.\t' * 14


class Row(TypedDict):
    """A case, in medians over the rounds. ``us`` are microseconds per what the load counts."""

    load: str
    what: str
    per: str
    ratio: float
    us: float
    raw_us: float
    qps: float
    raw_qps: float
    p50_ms: float
    p99_ms: float


class Result(TypedDict):
    """What is printed as JSON. ``qps`` and ``p99_ms`` are those of the first case."""

    qps: float
    p99_ms: float
    errors: int
    cases: list[Row]
    rss_mb: dict[str, dict[str, float]]
    import_s: dict[str, float]
    machine: dict[str, object]


@dataclass(frozen=True)
class Load:
    """A kind of traffic, and what is counted of it: CPU per request, CPU per chunk, or time to the first chunk."""

    per: str
    connections: int = 16
    chunks: int = 0
    pace_ms: int = 0
    prompt_kb: int = 0

    def order(self, model: str, format: str, port: int, seconds: float) -> dict[str, object]:
        """Return the order for the load generator."""
        turns = [
            {"role": "assistant" if at % 2 else "user", "content": f"{at} {FILLER}"} for at in range(self.prompt_kb)
        ]
        turns.append({"role": "user", "content": f"bench chunks={self.chunks} pace={self.pace_ms}"})
        body = {"model": model, "max_tokens": 1000, "stream": self.chunks > 0, "messages": turns}
        return {
            "port": port,
            "path": PATHS[format],
            "body": json.dumps(body),
            "headers": {"Authorization": f"Bearer {KEY}"},
            "connections": self.connections,
            "seconds": seconds,
            "stream": self.chunks > 0,
            "chunks": self.chunks,
        }


LOADS = {
    "request": Load("request"),
    "request, 50 KB": Load("request", prompt_kb=50),
    "burst": Load("chunk", chunks=200),
    "paced": Load("chunk", chunks=100, pace_ms=5),
    "first chunk": Load("first", connections=1, chunks=1),
}
CASES = (  # load, what, model, format of the client
    ("request", "auth", "pass", "openai"),
    ("request", "auth, log", "full", "openai"),
    ("request", "auth, log; openai to anthropic", "to-anthropic", "openai"),
    ("request", "auth, log; anthropic to openai", "to-openai", "anthropic"),
    ("request, 50 KB", "auth, log", "full", "openai"),
    ("request, 50 KB", "auth, log; openai to anthropic", "to-anthropic", "openai"),
    ("burst", "auth, log", "full", "openai"),
    ("burst", "auth, log; openai to anthropic", "to-anthropic", "openai"),
    ("paced", "auth, log", "full", "openai"),
    ("paced", "auth, log; openai to anthropic", "to-anthropic", "openai"),
    ("first chunk", "auth, log", "full", "openai"),
    ("first chunk", "auth, log; openai to anthropic", "to-anthropic", "openai"),
)
IMPORTS = {
    "aiohttp.web": "import aiohttp.web",
    "headgate": "import headgate",
    "headgate.Gateway": "import headgate; headgate.Gateway",
    "headgate serve": "import headgate.gateway.server.standalone",
}


class Server:
    """A process that serves, on a core of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.pid = process.pid
        self.port = port

    def check_alive(self) -> None:
        """Raise SystemExit if it ended."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self.process.args!r} ended with code {self.process.returncode}")

    def cpu_s(self) -> float:
        """Return the CPU time of all its threads so far, in seconds (nanosecond counters of the scheduler)."""
        self.check_alive()
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def rss_mb(self) -> float:
        """Return its resident memory in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6

    def wait_until_up(self, order: dict[str, object]) -> None:
        """Return once it answers ``order``. Raises SystemExit if it ended or does not."""
        url = f"http://127.0.0.1:{self.port}{order['path']}"
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        why: object = "it did not listen"
        for _ in range(100):
            self.check_alive()
            try:
                urllib.request.urlopen(
                    urllib.request.Request(url, str(order["body"]).encode(), headers), timeout=5
                ).read()
                return
            except OSError as fault:
                why = fault
                time.sleep(0.1)
        raise SystemExit(f"{self.process.args!r} does not answer: {why}")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on, below those that the kernel hands out to others meanwhile."""
    for port in random.sample(range(20000, 30000), 100):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise SystemExit("no port is free")


@contextmanager
def serving(core: int, port: int, *command: str, **environment: str) -> Iterator[Server]:
    """Run a Python command pinned to ``core`` as a server."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **environment},
            stderr=errors,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        try:
            yield Server(process, port)
        except BaseException:
            errors.seek(0)
            sys.stderr.write(errors.read().decode("utf-8", "replace"))
            raise
        finally:
            process.kill()
            process.wait()


def generate(order: dict[str, object], core: int) -> dict[str, float]:
    """Run the load generator pinned to ``core``; return its result."""
    done = subprocess.run(
        [sys.executable, str(HERE / "load.py")],
        input=json.dumps(order).encode(),
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(server: Server, load: Load, model: str, format: str, core: int, seconds: float) -> dict[str, float]:
    """Put ``load`` on ``server``; return what came of it, with ``cost``: microseconds per what the load counts."""
    before = server.cpu_s()
    result = generate(load.order(model, format, server.port, seconds), core)
    cpu_us = (server.cpu_s() - before) * 1e6
    if load.per == "first":
        return {**result, "cost": result["first_p50_ms"] * 1000}
    return {**result, "cost": cpu_us / max(1, result["chunks" if load.per == "chunk" else "requests"])}


def import_times(times: int) -> dict[str, float]:
    """Return the seconds that imports take in a fresh interpreter: the median of ``times``."""
    found = {}
    for name, statement in IMPORTS.items():
        code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
        runs = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(times)]
        found[name] = statistics.median(runs)
    return found


def compare(
    cases: Sequence[tuple[str, str, str, str]], rounds: int, seconds: float, imports: dict[str, float]
) -> Result:
    """Measure ``cases`` against the bare proxy, in turn, ``rounds`` times over."""
    cores = sorted(os.sched_getaffinity(0))
    load_core, core = cores[0], cores[-1]
    provider_port, raw_port, our_port = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-bench-")))
        rules = home / "routes.yaml"
        rules.write_text(RULES.format(provider=provider_port, log=home / "access.jsonl"))
        provider = f"http://127.0.0.1:{provider_port}"
        stack.enter_context(serving(load_core, provider_port, str(HERE / "provider.py"), str(provider_port)))
        raw = stack.enter_context(serving(core, raw_port, str(HERE / "raw.py"), str(raw_port), provider))
        command = ("-m", "headgate", "serve", str(rules), "--listen", f"127.0.0.1:{our_port}")
        ours = stack.enter_context(
            serving(core, our_port, *command, BENCH_KEY=KEY, BENCH_PROVIDER_KEY="provider-key-0123456789")
        )
        servers = {"raw": raw, "headgate": ours}
        for server in servers.values():
            server.wait_until_up(LOADS["request"].order("pass", "openai", server.port, 0))
        idle = {name: server.rss_mb() for name, server in servers.items()}
        for server in servers.values():  # what is made once, on first use, is not what a request costs
            generate(LOADS["burst"].order("full", "openai", server.port, 0.3), load_core)

        raw_runs: dict[str, list[dict[str, float]]] = {load: [] for load, *_ in cases}
        our_runs: list[list[dict[str, float]]] = [[] for _ in cases]
        for number in range(rounds):
            for load in raw_runs:
                raw_runs[load].append(measure(raw, LOADS[load], "pass", "openai", load_core, seconds))
                for case, runs in zip(cases, our_runs, strict=True):
                    if case[0] == load:
                        runs.append(measure(ours, LOADS[load], case[2], case[3], load_core, seconds))
            print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        loaded = {name: server.rss_mb() for name, server in servers.items()}

    rows = [summary(case, raw_runs[case[0]], runs) for case, runs in zip(cases, our_runs, strict=True)]
    everything = [run for runs in (*raw_runs.values(), *our_runs) for run in runs]
    return {
        "qps": rows[0]["qps"],
        "p99_ms": rows[0]["p99_ms"],
        "errors": int(sum(run["errors"] for run in everything)),
        "cases": rows,
        "rss_mb": {"idle": idle, "loaded": loaded},
        "import_s": imports,
        "machine": {"python": sys.version.split()[0], "cores": len(cores), "load": os.getloadavg()[0]},
    }


def summary(case: tuple[str, str, str, str], raw: list[dict[str, float]], ours: list[dict[str, float]]) -> Row:
    """Return medians over the rounds; a ratio is the median of the rounds' ratios."""

    def median(name: str, runs: list[dict[str, float]]) -> float:
        return statistics.median(run[name] for run in runs)

    return {
        "load": case[0],
        "what": case[1],
        "per": LOADS[case[0]].per,
        "ratio": statistics.median(our["cost"] / bare["cost"] for bare, our in zip(raw, ours, strict=True)),
        "us": median("cost", ours),
        "raw_us": median("cost", raw),
        "qps": median("qps", ours),
        "raw_qps": median("qps", raw),
        "p50_ms": median("p50_ms", ours),
        "p99_ms": median("p99_ms", ours),
    }


def show(result: Result) -> None:
    """Print the figures as a table."""
    units = {"request": "CPU us/request", "chunk": "CPU us/chunk", "first": "us to it"}
    columns = ("load", "chain", "ratio", "headgate", "raw", "", "calls/s", "raw", "p50 ms", "p99 ms")
    form = "{:15} {:31}{:>8}{:>9}{:>8}  {:15}{:>8}{:>7}{:>8}{:>8}"
    print(form.format(*columns))
    for row in result["cases"]:
        costs = (f"{row['ratio']:.2f}x", f"{row['us']:.1f}", f"{row['raw_us']:.1f}", units[row["per"]])
        rates = (f"{row['qps']:.0f}", f"{row['raw_qps']:.0f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}")
        print(form.format(row["load"], row["what"], *costs, *rates))
    for state, sizes in result["rss_mb"].items():
        print(f"memory, {state}: headgate {sizes['headgate']:.0f} MB, raw {sizes['raw']:.0f} MB")
    print("import: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in result["import_s"].items()))
    if result["errors"]:
        print(f"{result['errors']} answers were wrong or incomplete: the figures mean nothing")


def main() -> int:
    """Run the benchmark. Returns 1 if any answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a look, in under a minute: --rounds 2 --seconds 0.6")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each case is measured (default: 5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each time (default: 1.5)")
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose load or chain has this word")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there too")
    options = parser.parse_args()
    if not sys.platform.startswith("linux"):
        raise SystemExit("the benchmark reads CPU times from /proc: it needs Linux")
    cases = [case for case in CASES if options.only in f"{case[0]} {case[1]}"]
    if not cases:
        raise SystemExit(f"no case has {options.only!r} in its name")
    rounds = options.rounds or (2 if options.quick else 5)
    seconds = options.seconds or (0.6 if options.quick else 1.5)
    result = compare(cases, rounds, seconds, import_times(2 * rounds - 1))
    show(result)
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if result["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
