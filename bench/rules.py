"""What the rules cost: matching, loading, and how far down the file a route may stand. CPU time, medians.

python bench/rules.py [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from headgate.gateway import rules
from headgate.gateway.codecs.base import Peek, RequestFacts

ROUTES = 1000
FIVE = "{format: openai.chat, model: 'team%d-*', header.x-team: [t%d, u%d], request.stream: false, request.tokens: {lt: 1000}}"
HEAD = "version: 1\nupstreams: {sim: {adapter: simulator}}\nchains: {base: [retry]}\n"


def file_of(count: int) -> str:
    """Return a rule file of ``count`` routes with five conditions each."""
    return (
        HEAD
        + "routes:\n"
        + "".join(
            f"  - {{name: r{at}, match: {FIVE % (at, at, at)}, chain: base, to: sim/m{at}}}\n" for at in range(count)
        )
    )


def request(at: int) -> rules.WireFacts:
    """Return a request that route ``at`` takes, and no other."""
    headers = {"x-team": f"t{at}", "user-agent": "bench", "content-type": "application/json", "accept": "*/*"}
    facts = RequestFacts("/v1/chat/completions", {}, headers)
    return rules.WireFacts("openai.chat", Peek(model=f"team{at}-large"), facts, b"x" * 600)


def cpu_us(work: Callable[[], object], times: int) -> float:
    """Return the median CPU time of one ``work`` over seven runs, in microseconds."""
    taken = []
    for _ in range(7):
        began = time.process_time()
        for _ in range(times):
            work()
        taken.append((time.process_time() - began) / times * 1e6)
    return statistics.median(taken)


def measure() -> dict[str, float]:
    """Return the figures by name."""
    one, many = rules.loads(file_of(1)), rules.loads(file_of(ROUTES))
    first, last = request(0), request(ROUTES - 1)
    found = many.match(last)
    assert found is not None and found.name == f"r{ROUTES - 1}"
    matches = one.routes[0].matches
    return {
        "five conditions, us": cpu_us(lambda: matches(first), 20_000),
        f"load {ROUTES} routes, s": cpu_us(lambda: rules.loads(file_of(ROUTES)), 1) / 1e6,
        "one route: find it, us": cpu_us(lambda: one.match(first), 20_000),
        f"{ROUTES} routes: find the last, us": cpu_us(lambda: many.match(last), 20_000),
    }


def main() -> None:
    """Print the figures; write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description="What the rules cost, in CPU time.")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    figures = measure()
    for name, value in figures.items():
        print(f"{name:36} {value:8.3f}")
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
