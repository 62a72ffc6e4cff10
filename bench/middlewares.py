"""What each middleware costs: CPU time per call and per chunk, beside a chain with nothing in it.

python bench/middlewares.py [--only a,b] [--rounds N] [--calls N] [--out FILE]

A rule file for each row, loaded as any other, and calls through its chain in this process: no socket, no codec, and a provider
that is a plain function. Rows are measured in turn, round by round, every other round backwards; a figure is the median of what
a round's row took more than its empty chain, and the ratio to that. A new middleware is a line in ROWS.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final, Literal, NamedTuple

from headgate import AdapterContext, Call, Chunk, Gateway, GatewayError, Reply
from headgate.gateway import registry, rules
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.relay.source import Sink
from headgate.gateway.rules.plan import Route
from msgspec import Struct

KEY: Final = "a-key-of-the-benchmark"
SHORT, LONG = 10, 110
"""Chunks of the two streams: what the longer one takes more is what chunks take."""
Kind = Literal["whole", "short", "long"]


class Row(NamedTuple):
    """A chain, by the items of the route's and of the upstream's; what else stands in the upstream, and in the file."""

    route: Sequence[str] = ()
    upstream: Sequence[str] = ()
    keys: str = ""
    file: str = ""

    @property
    def needs(self) -> set[str]:
        """The names of its middlewares."""
        return {item.strip("{ ").partition(":")[0] for item in (*self.route, *self.upstream)}


AUTH: Final = "{auth: {keys: [{name: bench, key: env:HEADGATE_BENCH_KEY}]}}"
LIMIT: Final = "{limit: {requests: 10M/s, tokens: 10000M/min}}"
LOG: Final = "{log: {to: /dev/null}}"
MEMBERS: Final = "[{id: a, key: env:HEADGATE_BENCH_KEY}, {id: b, key: env:HEADGATE_BENCH_OTHER}]"
POOL: Final = f"accounts: {{pool: {{members: {MEMBERS}}}}}"
TRACE: Final = '{trace: {endpoint: "http://127.0.0.1:9", timeout: 100ms}}'

ROWS: Final[dict[str, Row]] = {
    "auth": Row([AUTH]),
    "limit": Row([LIMIT]),
    "log": Row([LOG]),
    "cache, a miss": Row(["cache"]),
    "continue": Row(["continue"]),
    "redact, nothing found": Row(["redact"]),
    "retry": Row((), ["retry"]),
    "breaker": Row((), ["breaker"]),
    "rotate": Row((), ["rotate"], "accounts: pool", POOL),
    "trace": Row([TRACE]),
    "auth, log": Row([AUTH, LOG]),
    "auth, limit, log, cache, retry, rotate": Row(
        [AUTH, LIMIT, LOG, "cache"], ["retry", "rotate"], "accounts: pool", POOL
    ),
    "the same, traced": Row([TRACE, AUTH, LIMIT, LOG, "cache"], ["retry", "rotate"], "accounts: pool", POOL),
}


class Plain:
    """The provider: it has the answers ready, as a codec would have read them."""

    class Options(Struct, frozen=True):
        """Nothing to set."""

    answers: ClassVar[dict[Kind, tuple[Chunk, ...]]] = {}
    kind: ClassVar[Kind] = "whole"
    last: ClassVar[Reads]

    def __init__(self, options: Options, context: AdapterContext, /) -> None:
        self.name = context.name

    async def __call__(self, call: Call, /) -> Reply:
        """Answer."""
        attempt = call.attempt(self.name)
        attempt.status, attempt.ended_s = 200, attempt.started_s
        chunks = self.answers[self.kind]
        if self.kind == "whole":
            return Reply.whole(chunks[0], call.scope)
        Plain.last = Reads(chunks)
        return Reply(Plain.last, call.scope)


class Reads:
    """A stream as it comes: its first words at once, the rest when ``flow`` says that the network had more."""

    __slots__ = ("_chunks", "_sink")

    def __init__(self, chunks: tuple[Chunk, ...]) -> None:
        self._chunks = chunks
        self._sink: Sink[Chunk] | None = None

    def connect(self, sink: Sink[Chunk], /) -> None:
        """Push the first words."""
        self._sink = sink
        for chunk in self._chunks[:2]:
            sink.push(chunk)

    def flow(self) -> None:
        """Push the rest, each as a read of its own."""
        assert self._sink is not None
        for chunk in self._chunks[2:]:
            self._sink.push(chunk)
        self._sink.end(None)

    def pause(self) -> None:
        """Nobody is slow here."""

    def resume(self) -> None:
        """As above."""

    def abort(self) -> None:
        """Nobody leaves."""


class Ear:
    """Where an answer ends up."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def push(self, chunk: Chunk, /) -> None:
        """Count it."""
        self.count += 1

    def end(self, error: GatewayError | None, /) -> None:
        """Hear the end. Raises the error."""
        if error is not None:
            raise error


def answers() -> dict[Kind, tuple[Chunk, ...]]:
    """Return what the provider says, read once: a whole answer, and streams of so many chunks."""
    codec = registry.codec("openai.chat")
    usage = '{"prompt_tokens":120,"completion_tokens":60,"total_tokens":180}'
    text = "".join(f" word{n}" for n in range(60))
    whole = (
        '{"id":"chatcmpl-1","object":"chat.completion","created":1741569952,"model":"m","choices":[{"index":0,"message":'
        f'{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{usage}}}'
    ).encode()
    outline = codec.outline(whole)
    frame = '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1741569952,"model":"m","choices":'

    def stream(count: int) -> tuple[Chunk, ...]:
        deltas = ['{"role":"assistant","content":""}', *(f'{{"content":" word{n}"}}' for n in range(count - 3))]
        lines = [f'{frame}[{{"index":0,"delta":{delta},"finish_reason":null}}]}}' for delta in deltas]
        lines += [f'{frame}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}', f'{frame}[],"usage":{usage}}}']
        reads = [f"data: {line}\n\n".encode() for line in lines]
        reads[-1] += b"data: [DONE]\n\n"
        decoder = codec.stream_decoder()
        return tuple(chunk for read in reads if (chunk := decoder.feed(read)) is not None)

    chunk = Chunk(None, whole, codec.whole, codec.decode_response, codec.read_usage, outline.usage)
    return {"whole": (chunk,), "short": stream(SHORT), "long": stream(LONG)}


def rules_of(row: Row) -> str:
    """Return the rule file of a row."""
    keys = f", {row.keys}" if row.keys else ""
    return (
        f"version: 1\n{row.file}\n"
        f'upstreams: {{plain: {{adapter: "{__name__}:Plain", chain: [{", ".join(row.upstream)}]{keys}}}}}\n'
        f"routes: [{{name: all, chain: [{', '.join(row.route)}], to: plain}}]\n"
    )


class Bench:
    """A row that is measured: its gateway, and the number of the next call, so that no two ask the same."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.number = 0

    async def cost_us(self, kind: Kind, count: int) -> float:
        """Return the CPU time of one call, in microseconds, of ``count`` calls."""
        Plain.kind = kind
        ready = [self._call(kind != "whole") for _ in range(count)]
        gc.collect()
        gc.disable()
        began = time.process_time_ns()
        for call, route in ready:
            reply = await route.entry(call)
            if kind == "whole":
                chunks = reply.gathered()
                assert chunks is not None
            else:
                reply.connect(ear := Ear())
                Plain.last.flow()
                assert ear.count >= SHORT
            call.scope.close()
        took = time.process_time_ns() - began
        gc.enable()
        await asyncio.sleep(0)
        return took / count / 1000

    def _call(self, stream: bool) -> tuple[Call, Route]:
        self.number += 1
        said = f"Question {self.number}: " + "what do you know about the sea? " * 12
        body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": said}]}
        scope, plan = self.gateway.open_scope()
        codec, data = registry.codec("openai.chat"), json.dumps(body).encode()
        facts = RequestFacts("/v1/chat/completions", {}, {"authorization": f"Bearer {KEY}", "user-agent": "bench"})
        return self.gateway.prepare(plan, codec, data, facts, scope, f"req_{self.number}", scope.loop.time())


@asynccontextmanager
async def started(row: Row) -> AsyncIterator[Bench]:
    """Serve by the rules of a row."""
    async with Gateway(rules.loads(rules_of(row))) as gateway:
        yield Bench(gateway)


class Figures(NamedTuple):
    """Microseconds that a row takes more than the empty chain, and what it takes in all as a ratio to that."""

    whole_us: float
    whole_ratio: float
    stream_us: float
    stream_ratio: float
    chunk_us: float


async def measure(rows: dict[str, Row], rounds: int, calls: int) -> dict[str, Figures]:
    """Return the figures of every row that can be served here."""
    async with _all(rows) as benches:
        costs: dict[tuple[str, Kind], list[float]] = {}
        kinds: tuple[Kind, ...] = ("whole", "short", "long")
        for turn in range(rounds + 1):
            order = list(benches.items())
            for name, bench in order if turn % 2 else reversed(order):
                for kind in kinds:
                    cost = await bench.cost_us(kind, calls if kind != "long" else max(1, calls // 4))
                    if turn:  # the first round warms up
                        costs.setdefault((name, kind), []).append(cost)
    return {name: _figures(costs, name) for name in benches if name}


def _figures(costs: dict[tuple[str, Kind], list[float]], name: str) -> Figures:
    def more(kind: Kind) -> float:
        return statistics.median(mine - none for mine, none in zip(costs[name, kind], costs["", kind], strict=True))

    def ratio(kind: Kind) -> float:
        return statistics.median(mine / none for mine, none in zip(costs[name, kind], costs["", kind], strict=True))

    chunk = (more("long") - more("short")) / (LONG - SHORT)
    return Figures(more("whole"), ratio("whole"), more("short"), ratio("short"), chunk)


@asynccontextmanager
async def _all(rows: dict[str, Row]) -> AsyncIterator[dict[str, Bench]]:
    """Serve by every row at once, and by an empty chain, called "". What cannot be served here is skipped, and said."""
    known = set(registry.names("middlewares"))
    async with AsyncExitStack() as stack:
        benches = {"": await stack.enter_async_context(started(Row()))}
        for name, row in rows.items():
            if missing := row.needs - known:
                print(f"NOTE: SKIPPED {name}: there is no {', '.join(sorted(missing))} here", file=sys.stderr)
                continue
            try:
                benches[name] = await stack.enter_async_context(started(row))
            except (rules.RulesError, ImportError) as fault:
                print(f"NOTE: SKIPPED {name}: {fault}", file=sys.stderr)
        yield benches


def text(figures: dict[str, Figures]) -> str:
    """Return the table."""
    width = max(map(len, figures), default=0)
    lines = [
        "CPU in us beyond an empty chain (ratio to it): a whole answer, a stream of ten chunks, each further chunk",
        f"{''.ljust(width)}  {'whole'.rjust(14)}  {'stream'.rjust(14)}  {'chunk'.rjust(7)}",
    ]
    for name, row in figures.items():
        whole, stream = f"{row.whole_us:.2f} ({row.whole_ratio:.2f})", f"{row.stream_us:.2f} ({row.stream_ratio:.2f})"
        lines.append(f"{name.ljust(width)}  {whole.rjust(14)}  {stream.rjust(14)}  {row.chunk_us:7.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description="CPU time of each middleware, per call and per chunk.")
    parser.add_argument("--only", help="comma-separated: rows whose name begins with one of these")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=300, help="calls of a row in a round (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args(arguments)
    logging.getLogger("headgate").setLevel(logging.CRITICAL)
    os.environ.update({"HEADGATE_BENCH_KEY": KEY, "HEADGATE_BENCH_OTHER": f"{KEY}-too"})
    begin = tuple(options.only.split(",")) if options.only else ("",)
    Plain.answers = answers()
    figures = asyncio.run(
        measure({name: row for name, row in ROWS.items() if name.startswith(begin)}, options.rounds, options.calls)
    )
    print(text(figures))
    if options.out is not None:
        options.out.write_text(json.dumps({name: row._asdict() for name, row in figures.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
