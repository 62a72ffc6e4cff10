"""What a run found: the types of its JSON, the file it is kept in, and the tables that are printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from .cases import Per, Provider

System: TypeAlias = Literal["raw", "lean", "aiohttp"]
"""The yardstick, and Headgate by each of its transports."""
UNITS = {"request": "us/request", "chunk": "us/chunk", "first": "us to it"}
CROWDED = 0.9
"""Share of their core above which provider and load generator, and no longer the server, say how fast it goes."""


class Figures(Struct, frozen=True, forbid_unknown_fields=True):
    """One system in one case: medians over the rounds. ``us``: microseconds per what the load counts."""

    us: float
    ratio: float
    """To raw's in the same round."""
    ratio_low: float
    ratio_high: float
    """The lowest and the highest of the rounds."""
    qps: float
    p50_ms: float
    p99_ms: float
    """Of an answer; of a paced stream: how late a chunk is; of the first chunk: until it came."""
    pace_held: float | None
    """Of a paced stream: chunks per second received, as a share of those asked for."""
    generator_busy: float
    """CPU share that provider and load generator took of the core they have together."""


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """A case."""

    load: str
    provider: Provider
    chain: str
    per: Per
    systems: dict[System, Figures]

    @property
    def held_up(self) -> bool:
        """Whether rates and latencies are those of the generator, for some system."""
        return any(figures.generator_busy > CROWDED for figures in self.systems.values())


class Memory(Struct, frozen=True, forbid_unknown_fields=True):
    """Resident memory of a server, in MB."""

    idle: float
    """After its first answer."""
    loaded: float
    """At most, under all of the load."""
    before_stop: float
    stopped_first: float
    stopped_then: float
    """Just before clients with long streams stopped reading; then at most, in the first half of the time that they did
    not read and in the second. What is held for them is flat if the second is not above the first."""


class Machine(Struct, frozen=True, forbid_unknown_fields=True):
    """Where it ran. Load averages are those of one, five and fifteen minutes."""

    cpu: str
    cores: int
    """Those that the run might use."""
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float]


class Result(Struct, frozen=True, forbid_unknown_fields=True):
    """A run. ``qps`` and ``p99_ms`` are those of the first row's first transport; ``date`` is UTC, ISO 8601."""

    date: str
    versions: dict[str, str]
    machine: Machine
    rounds: int
    seconds: float
    errors: int
    notes: list[str]
    """What was left out, and what stands in the way of believing the figures."""
    qps: float
    p99_ms: float
    rows: list[Row]
    memory: dict[str, Memory]
    """By server; ``raw over TLS`` is a process of its own."""
    import_s: dict[str, float]


def read(path: Path) -> Result:
    """Return the result in ``path``. Raises msgspec.DecodeError if it is none."""
    return msgspec.json.decode(path.read_bytes(), type=Result)


def write(result: Result, path: Path) -> None:
    """Write ``result`` to ``path``, for people to read too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def file_name(result: Result) -> str:
    """Return the name a result is kept under: date, time and Python."""
    day, _, time = result.date.partition("T")
    return f"{day}-{time[:5].replace(':', '')}-python{result.versions['python']}.json"


def text(result: Result) -> str:
    """Return the figures as tables."""
    return "\n".join(line.rstrip() for line in lines(result)) + "\n"


def lines(result: Result) -> Iterator[str]:
    """Yield the lines of ``text``."""
    names: list[System] = ["raw", "lean", "aiohttp"]
    wide = "{:16}{:6}{:32}"
    yield "CPU time; first chunk: time on the clock. Ratios to raw: median of the rounds, lowest to highest."
    yield wide.format("load", "", "chain") + "".join(f"{name:>8}" + f"{'':20}" * (name != "raw") for name in names)
    for row in result.rows:
        line = wide.format(row.load, row.provider, row.chain)
        for name in names:
            found = row.systems.get(name)
            line += f"{found.us:8.1f}" if found else f"{'-':>8}"
            if name != "raw":
                line += f"{found.ratio:6.2f} ({found.ratio_low:.2f}-{found.ratio_high:.2f}) " if found else " " * 20
        yield line + f"  {UNITS[row.per]}"
    yield ""
    yield "Milliseconds, p50/p99: of an answer; paced: how late a chunk is; first chunk: until it came."
    yield (
        wide.format("load", "", "chain") + "".join(f"{name:>15}" for name in names) + "  calls/s, pace held, generator"
    )
    for row in result.rows:
        line = wide.format(row.load, row.provider, row.chain)
        found_all = [row.systems.get(name) for name in names]
        line += "".join(f"{f'{found.p50_ms:.2f}/{found.p99_ms:.2f}' if found else '-':>15}" for found in found_all)
        there = [found for found in found_all if found]
        line += "  " + "/".join(f"{found.qps:.0f}" for found in there)
        held = [f"{found.pace_held:.0%}" for found in there if found.pace_held is not None]
        line += ("  " + "/".join(held)) if held else ""
        line += "  " + "/".join(f"{found.generator_busy:.0%}" for found in there) + (" *" if row.held_up else "")
        yield line
    if any(row.held_up for row in result.rows):
        yield "* provider and load generator filled their core: calls/s and milliseconds are theirs, CPU times are not"
    yield ""
    for server, memory in result.memory.items():
        yield (
            f"memory, MB: {server:17} idle {memory.idle:.0f}, loaded {memory.loaded:.0f}; clients that stopped reading:"
            f" {memory.before_stop:.1f} before, then {memory.stopped_first:.1f}, then {memory.stopped_then:.1f}"
        )
    yield "import: " + ", ".join(f"{module} {seconds:.3f} s" for module, seconds in result.import_s.items())
    machine = result.machine
    before, after = (" ".join(f"{load:.1f}" for load in loads) for loads in (machine.load_before, machine.load_after))
    yield f"{machine.cpu}, {machine.cores} cores, load {before} before the run, {after} after"
    yield ", ".join(f"{package} {version}" for package, version in result.versions.items())
    yield from (f"NOTE: {note}" for note in result.notes)
