"""Every middleware at once, by the thousand calls: what a call took is given back, and nothing of it stays.

The gateway is a process of its own, and counts what is alive in it when it is at rest: before and after as many calls, of
all sorts. Its callers leave at random moments, its providers fail at random events.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from ..clients.talk import ANTHROPIC, MODELS
from ..clients.test_whole_chain import FRAMES, KEYS, Ask, Narrator, mixed, some_at_a_time
from ..fakes.collector import collecting
from ..server.house import until
from .test_soak import Process

RULES: Final = """
version: 1
server: {{listen: "127.0.0.1:0"}}
defaults: {{timeout: {{connect: 5s, first_token: 5s, idle: 300ms, total: 20s}}}}
stores:
  answers: {{kind: sqlite, path: answers.db, max_size: 100MB}}
  limits: {{kind: sqlite, path: limits.db}}
  state: {{kind: sqlite, path: state.db}}
prices:
  models: {{"*": {{input: 1000, output: 2000}}}}
accounts:
  pool:
    cooldown: {{else: 30ms, auth: null}}
    affinity: {{by: principal.key}}
    store: state
    members:
      - {{id: dead, key: env:TEST_ACCOUNT_DEAD}}
      - {{id: a, key: env:TEST_ACCOUNT_A}}
      - {{id: b, key: env:TEST_ACCOUNT_B}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", accounts: pool, chain: steady, pool: {{max_connections: {connections}}}}}
  anthropic: {{adapter: anthropic, base_url: "{base}", accounts: pool, chain: steady, pool: {{max_connections: {connections}}}}}
chains:
  steady: [{{retry: {{tries: 8, backoff: 10ms, max_wait: 2s}}}}, rotate, {{breaker: {{failures: 200, rate: 0.9}}}}]
  main:
    - {{use: "census:Census", with: {{to: "{census}"}}}}
    - trace: {{endpoint: "{collector}", sample: 0.5}}
    - log: {{to: "{log}", bodies: redacted, bodies_in: bodies}}
    - auth:
        keys:
          - {{name: ann, key: env:TEST_ANN, tenant: us}}
          - {{name: bob, key: env:TEST_BOB, tenant: us}}
    - limit: {{requests: 100k/s, concurrency: 10, wait: 10s, queue: 1000}}
    - limit: {{per: all, budget: 1000000 USD/month, tokens: 1000M/min, store: limits, name: all}}
    - redact: {{kinds: [email, secret], restore: true}}
    - cache: {{store: answers}}
    - continue: {{rounds: 5}}
routes:
  - {{name: gpt, match: {{model: "gpt-*"}}, chain: main, to: openai}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: main, to: anthropic}}
"""
SOME: Final = 200
"""Strings, numbers and the like that come with first times, whatever the number of calls."""
CONNECTIONS: Final = 10
AT_ONCE: Final = 24
"""Callers: more than places, and more than connections."""
OURS: Final = ("headgate.", "asyncio.", "_asyncio.", "uvloop.", "httptools.", "builtins.coroutine", "builtins.frame")


class Chain:
    """The gateway process, its callers, and what became of their calls."""

    def __init__(self, process: Process, provider: Narrator, folder: Path) -> None:
        self.process = process
        self.provider = provider
        self.folder = folder
        self.ended: Counter[str] = Counter()
        self.asked = 0

    async def round(self, calls: int, chance: random.Random) -> dict[str, Any]:
        """Make calls; return the census once all of them are over."""
        asks = [replace(ask, case=ask.case + self.asked) for ask in mixed(calls, chance)]
        self.asked += calls
        before = self.ended.total()
        limits = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(30)) as http:
            await some_at_a_time((self.call(http, ask, chance.random(), chance.random()) for ask in asks), AT_ONCE)
        assert self.ended.total() == before + calls
        return await self.census()

    async def call(self, http: aiohttp.ClientSession, ask: Ask, kind: float, when: float) -> None:
        """Make a call. One in five callers hangs up after some of the answer, and one in five after some time."""
        leave_after = int(when * FRAMES) if kind < 0.2 else None
        try:
            async with asyncio.timeout(when * 0.1 if 0.2 <= kind < 0.4 else None):
                self.ended[await self.hear(http, ask, leave_after)] += 1
        except TimeoutError:
            self.ended["left"] += 1

    async def hear(self, http: aiohttp.ClientSession, ask: Ask, leave_after: int | None) -> str:
        theirs = ask.caller == ANTHROPIC
        path = "/v1/messages" if theirs else "/v1/chat/completions"
        body = {
            "model": MODELS[ask.to],
            "max_tokens" if theirs else "max_completion_tokens": 4000,
            "stream": ask.stream,
            "messages": [{"role": "user", "content": ask.prompt}],
        }
        key = {"authorization": f"Bearer {KEYS[f'TEST_{ask.who.upper()}']}"}
        url = f"http://127.0.0.1:{self.process.port}{path}"
        async with http.post(url, json=body, headers=key) as response:
            pieces = 0
            async for _ in response.content.iter_any():
                if pieces == leave_after:
                    response.close()
                    return "left"
                pieces += 1
            return str(response.status)

    async def census(self) -> dict[str, Any]:
        """Return what is alive, once the gateway is at rest."""
        made = self.folder / "census.json"
        made.unlink(missing_ok=True)
        async with asyncio.timeout(20):
            while await self.process.in_flight():
                await asyncio.sleep(0.05)
        await until(lambda: self.provider.running == 0, 5)
        await until(lambda: len(self.lines()) >= self.ended.total() - self.ended["left"], 10)
        self.provider.hang_up()  # how many connections are idle is chance
        await asyncio.sleep(0.5)  # for what is written behind, and told to the collector
        self.process.process.send_signal(signal.SIGUSR1)
        await until(made.exists, 30)
        found: dict[str, Any] = json.loads(made.read_text())
        return found

    def lines(self) -> list[bytes]:
        return (self.folder / "access.jsonl").read_bytes().splitlines()


@asynccontextmanager
async def chain(folder: Path) -> AsyncIterator[Chain]:
    async with Narrator() as provider, collecting() as collector:
        rules, said = folder / "routes.yaml", folder / "stderr.txt"
        files = {"log": folder / "access.jsonl", "census": folder / "census.json", "connections": CONNECTIONS}
        rules.write_text(RULES.format(base=provider.base, collector=collector.base, **files))
        with said.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headgate", "serve", str(rules)),
                stderr=log,
                env={**os.environ, **KEYS, "PYTHONPATH": str(Path(__file__).parent)},
                cwd=folder,
            )
        try:
            await until(lambda: b"http://127.0.0.1:" in said.read_bytes() or process.returncode is not None, 20)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", said.read_text())
            assert found is not None, said.read_text()
            yield Chain(Process(process, int(found[1])), provider, folder)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(process.wait(), 40) == 0
        assert "Traceback" not in said.read_text(), said.read_text()[-3000:]


def grown(before: dict[str, Any], after: dict[str, Any], calls: int) -> dict[str, int]:
    """Return of what there is more than one for every fiftieth call; of what is nobody's own, more than for every fifth.

    Weak references go up and down by the hundred, and keep nothing alive.
    """
    more = {name: count - before["alive"].get(name, 0) for name, count in after["alive"].items()}
    more.pop("weakref.ReferenceType", None)
    return {
        name: count
        for name, count in more.items()
        if count > (calls // 50 if name.startswith(OURS) else SOME + calls // 5)
    }


def check_at_rest(held: dict[str, int]) -> None:
    """Nothing of a call is held; the slots of both upstreams are free."""
    assert {what: count for what, count in held.items() if count and what not in ("free", "tasks")} == {}
    assert held["free"] == 2 * CONNECTIONS


def check_all_was_there(lines: list[bytes]) -> None:
    """The calls were of all sorts."""
    seen: Counter[str] = Counter()
    for line in map(json.loads, lines):
        causes = {attempt.get("cause") for attempt in line.get("attempts", ())}
        seen.update([line["outcome"], line.get("cache", ""), f"{line['format']} to {line['upstream']}"])
        seen.update(cause for cause in causes if cause)
    sorts = {"ok", "cancelled", "malformed", "hit", "miss", "retry", "rotate", "continue"}
    sorts |= {f"{format} to {to}" for format in ("openai.chat", "anthropic.messages") for to in MODELS}
    assert sorts - seen.keys() == set(), seen


@pytest.mark.parametrize(
    ("warm", "rounds", "calls"),
    [(100, 1, 200), pytest.param(2000, 4, 2500, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
async def test_nothing_of_a_call_stays(tmp_path: Path, warm: int, rounds: int, calls: int) -> None:
    chance = random.Random(calls)
    async with chain(tmp_path) as house:
        before = await house.round(warm, chance)
        check_at_rest(before["held"])
        rss_mb = house.process.rss_mb
        for _ in range(rounds):
            after = await house.round(calls, chance)
            check_at_rest(after["held"])
            assert after["held"]["tasks"] <= before["held"]["tasks"]
            assert house.process.sockets <= 8  # what listens, the loop's own, and to the collector
        for _ in range(3):
            if not grown(before, after, rounds * calls):
                break
            await asyncio.sleep(1)  # spans may wait to be told
            after = await house.census()
        assert grown(before, after, rounds * calls) == {}
        assert house.process.rss_mb < rss_mb + 8, f"{rss_mb:.1f} MB -> {house.process.rss_mb:.1f} MB"
        check_all_was_there(house.lines())
