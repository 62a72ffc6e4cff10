"""Strangers' code: an installed distribution found by its entry points, and a class of one's own by ``use:``."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from ..server.house import CHAT, MESSAGES, body_of, serving

PLUGIN = Path(__file__).parent.parent / "plugin"
BY_NAME = """
version: 1
upstreams: {echo: {adapter: echo, times: 2}}
routes: [{name: all, chain: [{shout: {mark: "?"}}, log], to: echo}]
"""
ASK = """
import asyncio, json, sys
from headgate import Gateway
from headgate.gateway import registry
from headgate.gateway.ir.fold import fold

async def main():
    assert "headgate_test_plugin" not in sys.modules
    async with Gateway.load("routes.yaml") as gateway:
        said = []
        for stream in (False, True):
            body = json.dumps({"model": "abc", "messages": [{"role": "user", "content": "x"}], "stream": stream})
            reply = await gateway.handle("openai.chat", body.encode())
            events = [event for chunk in await reply.collect() for event in chunk.events]
            said.append(fold(events).choices[0].parts[0].text)
        print(json.dumps([said, reply.headers["x-shout"], registry.names("middlewares"), registry.names("adapters")]))

asyncio.run(main())
"""


def install(directory: Path) -> None:
    """Lay the distribution into ``directory`` as an installer would: the package, its metadata and entry points."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    package = directory / "headgate_test_plugin"
    package.mkdir()
    (package / "__init__.py").write_text((PLUGIN / "headgate_test_plugin" / "__init__.py").read_text())
    info = directory / "headgate_test_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = configparser.ConfigParser()
    groups.read_dict(project["entry-points"])
    with (info / "entry_points.txt").open("w") as file:
        groups.write(file)


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the distribution is installed."""
    environment = {**os.environ, "PYTHONPATH": str(directory / "site")}
    return subprocess.run(
        [sys.executable, *command], cwd=directory, env=environment, capture_output=True, text=True, timeout=30
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site")
    (tmp_path / "routes.yaml").write_text(BY_NAME)
    (tmp_path / "ask.py").write_text(ASK)
    return tmp_path


def test_an_installed_distribution(installed: Path) -> None:
    done = run(installed, "ask.py")
    assert done.returncode == 0, done.stderr
    said, header, middlewares, adapters = json.loads(done.stdout)
    assert said == ["ABC ?ABC ?"] * 2
    assert header == "?"
    assert {"auth", "log", "retry", "shout"} <= set(middlewares)
    assert {"echo", "openai", "anthropic"} <= set(adapters)


COUNTED = """
version: 1
upstreams: {echo: {adapter: echo}}
routes: [{name: ROUTE, chain: [{shout: {mark: MARK}}, {tally: {to: FILE}}], to: echo}]
"""
COUNT = """
import asyncio, json
from pathlib import Path
from headgate import Gateway

BODY = json.dumps({"model": "abc", "messages": [{"role": "user", "content": "x"}]}).encode()

async def main():
    said = []
    async with Gateway.load("routes.yaml") as gateway:
        slow = await gateway.handle("openai.chat", BODY)
        for mark, file, route in (("a", "one", "all"), ("b", "one", "all"), ("c", "two", "all"), ("d", "two", "other")):
            Path("routes.yaml").write_text(TEXT.replace("MARK", mark).replace("FILE", file).replace("ROUTE", route))
            await gateway.reload()
            reply = await gateway.handle("openai.chat", BODY)
            await reply.collect()
            said.append(reply.headers["x-shout"] + ": " + reply.headers["x-tally"])
        await slow.collect()
    print(json.dumps([said, Path("one").read_text(), Path("two").read_text()]))

asyncio.run(main())
"""


def test_what_it_holds_outlives_a_reload(installed: Path) -> None:
    text = COUNTED.replace("MARK", "z").replace("FILE", "one").replace("ROUTE", "all")
    (installed / "routes.yaml").write_text(text)
    (installed / "count.py").write_text(f"TEXT = {COUNTED!r}\n{COUNT}")
    done = run(installed, "-W", "error", "count.py")  # a file left open is a warning
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said, one, two = json.loads(done.stdout)
    assert said == [
        "a: 2 calls, opened 1 times",
        "b: 3 calls, opened 1 times",
        "c: 1 calls, opened 1 times",
        "d: 1 calls, opened 1 times",
    ]
    assert (one, two) == ("...", "..")


def test_its_options_are_checked_where_they_stand(installed: Path) -> None:
    (installed / "routes.yaml").write_text(BY_NAME.replace("times: 2", "times: two").replace("mark:", "mrk:"))
    done = run(installed, "-m", "headgate", "check")
    assert done.returncode == 1
    assert "times" in done.stdout
    assert "mrk" in done.stdout
    assert "routes.yaml:3" in done.stdout


def test_without_it_the_names_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "routes.yaml").write_text(BY_NAME)
    done = run(tmp_path, "-m", "headgate", "check")
    assert done.returncode == 1
    assert "shout" in done.stdout
    assert "echo" in done.stdout


def test_a_broken_distribution_breaks_nobody_else(installed: Path) -> None:
    package = installed / "site" / "headgate_test_plugin" / "__init__.py"
    package.write_text("raise RuntimeError('broken at import')\n")
    (installed / "routes.yaml").write_text(
        "version: 1\nupstreams: {sim: {adapter: simulator}}\nroutes: [{name: all, to: sim}]\n"
    )
    assert run(installed, "-m", "headgate", "check").returncode == 0
    (installed / "routes.yaml").write_text(BY_NAME)
    done = run(installed, "-m", "headgate", "check")
    assert done.returncode == 1
    assert "broken at import" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


OWN = """
from headgate import Call, Chunk, Next, Reply
from headgate.gateway.ir.event import PartDelta
from msgspec import Struct
from msgspec.structs import replace

class Polite:
    class Options(Struct):
        pass
    def __init__(self, options): pass
    async def __call__(self, call, call_next, /):
        reply = await call_next(call)
        reply.headers = {**reply.headers, "x-polite": "yes"}
        return reply.through(self)
    def feed(self, chunk, /):
        if not any(isinstance(event, PartDelta) for event in chunk.events):
            return chunk
        return Chunk(tuple(replace(event, text=event.text.replace("damn", "darn")) if isinstance(event, PartDelta) else event
                           for event in chunk.events))
    def close(self, error, /): pass
"""
RULES = """
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
routes:
  - {{name: claude, match: {{model: "claude-*"}}, chain: [{{use: "polite_middleware:Polite"}}], to: anthropic}}
  - {{name: rest, chain: [{{use: "polite_middleware:Polite"}}], to: openai}}
"""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("model", ["m", "claude-fake-4-5"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_middleware_of_ones_own(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    model: str,
    stream: bool,
) -> None:
    """Written once, it sees whole answers and streams of every format alike."""
    (tmp_path / "polite_middleware.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "polite_middleware", raising=False)
    provider.answer(script("damn", "so it goes"))
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        request: dict[str, Any] = json.loads(body_of(model=model, stream=stream))
        response = await http.post(house.base + path, json=request)
        answer = await response.text()
    assert response.status == 200
    assert response.headers["x-polite"] == "yes"
    assert "damn" not in answer
    if stream:
        assert ["so", "it", "goes"][0] in answer
        pieces = [line for line in answer.splitlines() if "da" in line or "rn" in line]
        assert pieces
    else:
        assert "darn" in answer
