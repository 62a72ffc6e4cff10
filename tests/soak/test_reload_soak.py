"""Reloads by the hundred under load: no call is lost, nothing stays behind, and every answer came from one plan alone.

The gateway is a process of its own. Every version of the rules has a number, which stands in the route's name, the
upstream's name, the upstream's base URL, the model that it is asked for and a middleware's options; so it comes back in the
answer's headers and body and in the log line, and all must agree.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

RULES = """
version: 1
server: {{listen: "127.0.0.1:0", watch: 500ms}}
upstreams:
  up{n}: {{adapter: openai, base_url: "http://127.0.0.1:{port}/g{n}/v1", key: env:SOAK_KEY, chain: [retry]}}
  same: {{adapter: openai, base_url: "http://127.0.0.1:{port}/same/v1", key: env:SOAK_KEY, transport: aiohttp}}
chains:
  base: [{{log: {{to: "{log}"}}}}, {{use: "soak_parts:Probe", with: {{number: {n}}}}}]
routes:
  - {{name: same{n}, match: {{model: same}}, chain: base, to: same/model-{n}}}
  - {{name: g{n}, chain: base, to: up{n}/model-{n}}}
tests:
  - {{name: it goes there, given: {{model: any}}, expect: {{route: g{n}, upstream: up{n}}}}}
"""
BREAKS = [
    ("version: 1", "version: 2"),
    ("routes:\n", "routes: [\n"),
    ("to: same/model", "to: nowhere/model"),
    ("expect: {route: g", "expect: {route: h"),
    ('listen: "127.0.0.1:0"', 'listen: "127.0.0.1:1"'),
    ("number: ", "numbre: "),
    ("with: {number: ", "with: {fault: true, number: "),
]
PROBE = """
import asyncio
import weakref
import msgspec

ALIVE = weakref.WeakSet()

class Shared:
    calls = 0
    users = 0

class Probe:
    '''One for each plan that is alive. Says so, and goes on counting where the one before it was.'''
    class Options(msgspec.Struct, forbid_unknown_fields=True):
        number: int
        fault: bool = False
    def __init__(self, options):
        self.options = options
        self.shared = Shared()
        ALIVE.add(self)
    def carry_over(self, old):
        self.shared = old.shared
    async def start(self):
        if self.options.fault:
            raise OSError("asked to fail")
        self.shared.users += 1
    async def stop(self):
        self.shared.users -= 1
    async def __call__(self, call, call_next, /):
        assert self.shared.users > 0
        self.shared.calls += 1
        reply = await call_next(call)
        state = {"number": self.options.number, "calls": self.shared.calls, "users": self.shared.users,
                 "alive": len(ALIVE), "tasks": len(asyncio.all_tasks())}
        reply.headers = {**reply.headers, "x-probe": msgspec.json.encode(state).decode()}
        return reply
"""


class Provider:
    """Says by which path and for which model it was asked: whole, or in a stream of ten pieces some 5 ms apart."""

    def __init__(self) -> None:
        self.port = 0
        self.open = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Provider]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=500)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
                asked = json.loads(await reader.readexactly(length))
                words = [head.split(b"/")[1].decode(), asked["model"]]
                if asked.get("stream"):
                    await self._stream(writer, words)
                else:
                    choice = {
                        "index": 0,
                        "message": {"role": "assistant", "content": " ".join(words)},
                        "finish_reason": "stop",
                    }
                    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                    body = json.dumps(_object("chat.completion", words, choice) | {"usage": usage}).encode()
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
                    )
                    writer.write(body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    @staticmethod
    async def _stream(writer: asyncio.StreamWriter, words: list[str]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

        def event(data: str) -> None:
            frame = f"data: {data}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))

        for piece in [f"{words[0]} ", *["."] * 8, f" {words[1]}"]:
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            event(json.dumps(_object("chat.completion.chunk", words, choice)))
            await writer.drain()
            await asyncio.sleep(0.005)
        event(json.dumps(_object("chat.completion.chunk", words, {"index": 0, "delta": {}, "finish_reason": "stop"})))
        event("[DONE]")
        writer.write(b"0\r\n\r\n")


def _object(kind: str, words: list[str], choice: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c", "object": kind, "created": 1, "model": words[1], "choices": [choice]}


@dataclass
class House:
    """The gateway process, and what its clients saw. ``seen`` is the number of the plan by request id."""

    process: asyncio.subprocess.Process
    base: str
    folder: Path
    provider: Provider
    http: aiohttp.ClientSession
    seen: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    @property
    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def sockets(self) -> int:
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sum(link.is_symlink() and "socket" in str(link.readlink()) for link in links)

    @property
    def files(self) -> int:
        """Open files of the access log."""
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sum(link.is_symlink() and str(link.readlink()).endswith("access.jsonl") for link in links)

    async def health(self) -> Any:
        return await (await self.http.get(self.base + "/healthz")).json()

    async def call(self, model: str, stream: bool, anthropic: bool) -> dict[str, Any]:
        """Make a call, check that its answer is of one piece, and return what the probe says."""
        body = {"model": model, "stream": stream, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        path = "/v1/messages" if anthropic else "/v1/chat/completions"
        async with self.http.post(self.base + path, json=body) as response:
            answer = await response.text()
        assert response.status == 200, answer
        if stream:
            assert ("message_stop" if anthropic else "data: [DONE]") in answer
            answer = "".join(re.findall(r'"(?:text|content)":"([^"]*)"', answer.replace('": "', '":"')))
        probe: dict[str, Any] = json.loads(response.headers["x-probe"])
        number = probe["number"]
        name = "same" if model == "same" else "g"
        assert response.headers["headgate-route"] == f"{name}{number}"
        assert response.headers["headgate-upstream"] == ("same" if model == "same" else f"up{number}")
        assert ("same" if model == "same" else f"g{number}") in re.split(r"[\s.\"]+", answer)
        assert f"model-{number}" in re.split(r"[\s.\"]+", answer)
        request_id = response.headers["x-request-id"]
        assert request_id not in self.seen
        self.seen[request_id] = number
        return probe

    async def load(self, over: asyncio.Event, worker: int) -> None:
        """Call without a pause until it is over: whole and streamed, in both formats, to both upstreams."""
        turn = worker
        while not over.is_set():
            turn += 1
            try:
                await self.call("same" if turn % 3 == 0 else "m", turn % 2 == 0, turn % 5 == 0)
            except (aiohttp.ClientError, AssertionError, KeyError, TimeoutError) as fault:
                self.lost.append(repr(fault)[:500])
                return

    def write(self, number: int, broken: bool) -> None:
        """Put version ``number`` of the rules in place, by renaming or in place."""
        text = RULES.format(n=number, port=self.provider.port, log=self.folder / "access.jsonl")
        if broken:
            old, new = BREAKS[number // 5 % len(BREAKS)]
            assert old in text
            text = text.replace(old, new)
        path = self.folder / "routes.yaml"
        if number % 3:
            (self.folder / "routes.new").write_text(text)
            os.replace(self.folder / "routes.new", path)
        else:
            path.write_text(text)

    async def reload(self, number: int) -> None:
        """Put the next version in force, every twentieth by its change alone; every fifth is broken, and changes nothing."""
        broken = number % 5 == 0
        counted = "failed" if broken else "succeeded"
        before = (await self.health())["reloads"].get(counted, 0)
        self.write(number, broken)
        if number % 20 != 7:
            self.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(20):
            while (await self.health())["reloads"].get(counted, 0) == before:
                await asyncio.sleep(0.005)

    async def idle(self) -> dict[str, Any]:
        """Wait until no call is under way and what ended is gone; return what the probe says then."""
        for _ in range(40):
            if (await self.health())["in_flight"] == 0:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.3)
        return await self.call("m", False, False)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "access.jsonl").read_text().splitlines()]


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    (folder / "soak_parts.py").write_text(PROBE)
    said = folder / "stderr.txt"
    async with Provider().serving() as provider, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as http:
        text = RULES.format(n=1, port=provider.port, log=folder / "access.jsonl")
        (folder / "routes.yaml").write_text(text)
        with said.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headgate", "serve", "routes.yaml"),
                stderr=log,
                env={**os.environ, "SOAK_KEY": "sk-soak", "PYTHONPATH": str(folder)},
                cwd=folder,
            )
        async with asyncio.timeout(20):
            while (found := re.search(r" on (http://127\.0\.0\.1:\d+): ", said.read_text())) is None:
                await asyncio.sleep(0.05)
        try:
            yield House(process, found[1], folder, provider, http)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                code = await asyncio.wait_for(process.wait(), 40)
    assert code == 0
    assert "Traceback" not in said.read_text(), said.read_text()[-3000:]


async def reload_under_load(folder: Path, reloads: int, workers: int) -> None:
    async with house(folder) as served:
        over = asyncio.Event()
        at_rest = await served.idle()
        load = asyncio.gather(*(served.load(over, worker) for worker in range(workers)))
        warm = 0.0
        for number in range(2, reloads + 2):
            await served.reload(number)
            assert served.lost == []
            if number == max(reloads // 5, 2):
                warm = served.rss_mb
        over.set()
        await load
        assert served.lost == []
        probe = await served.idle()
        health = await served.health()
        good = max(number for number in range(2, reloads + 2) if number % 5)
        assert probe["number"] == good
        assert health["reloads"]["failed"] >= reloads // 5
        assert health["reloads"]["succeeded"] >= reloads - reloads // 5 - 1
        assert health["generation"] == health["reloads"]["succeeded"] + 1
        # Nothing stays behind: of all the plans one is alive, and holds what all of them held.
        assert (probe["alive"], probe["users"], probe["calls"]) == (1, 1, len(served.seen))
        assert probe["tasks"] <= at_rest["tasks"] + workers
        assert served.files == 1
        async with asyncio.timeout(30):
            while served.provider.open > 2 * workers:
                await asyncio.sleep(0.1)
        assert served.sockets <= 3 * workers + 8
        cold = served.rss_mb
        print(
            f"{reloads} reloads ({health['reloads']['failed']} refused), {len(served.seen)} calls on"
            f" {len(set(served.seen.values()))} plans, RSS {warm:.1f} -> {cold:.1f} MB,"
            f" {served.sockets} sockets, {probe['tasks']} tasks"
        )
        if reloads >= 1000:
            assert cold < warm + 5, f"{warm:.1f} MB -> {cold:.1f} MB"
    # Each call has its one line, which agrees with what the caller saw.
    lines = served.lines()
    assert Counter(line["request_id"] for line in lines) == Counter(list(served.seen))
    for line in lines:
        number = served.seen[line["request_id"]]
        name = "same" if line["model"] == "same" else "g"
        assert line["route"] == f"{name}{number}"
        assert line["upstream"] == ("same" if name == "same" else f"up{number}")
        assert line["upstream_model"] == f"model-{number}"
        assert (line["outcome"], line["status"]) == ("ok", 200)


@pytest.mark.timeout(60)
async def test_thirty_reloads(tmp_path: Path) -> None:
    await reload_under_load(tmp_path, reloads=30, workers=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_thousand_reloads(tmp_path: Path) -> None:
    await reload_under_load(tmp_path, reloads=1000, workers=8)
