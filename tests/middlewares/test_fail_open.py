"""``fail: open`` and its contrary: what becomes of a call on which a stranger's middleware fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from headgate.gateway import registry
from headgate.gateway.call import Call
from headgate.gateway.chain import Next
from headgate.gateway.errors import GatewayError, HouseError, PermissionDenied
from headgate.gateway.ir.event import Chunk, PartDelta, ResponseStart
from headgate.gateway.relay.reply import Reply
from headgate.gateway.rules.fail_open import FailOpen
from headgate.gateway.server.gateway import Gateway
from msgspec import Struct

from ..server.house import CHAT, MESSAGES, body_of, serving

HELLO = b'{"model": "demo", "messages": [{"role": "user", "content": "Hello there"}], "stream": %s}'
HERE = __name__
LIVES: list[str] = []


class BrokenOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``at``: where it fails."""

    at: str = "before"


class Broken:
    """Fails where it is told to."""

    Options: ClassVar[type[Struct]] = BrokenOptions
    needs_usage = True

    def __init__(self, options: BrokenOptions) -> None:
        self.at = options.at
        self.calls = 0

    def carry_over(self, old: Broken) -> None:
        self.calls = old.calls
        LIVES.append(f"carried {old.calls}")

    async def start(self) -> None:
        LIVES.append("start")
        if self.at == "start":
            raise RuntimeError("it does not start")

    async def stop(self) -> None:
        LIVES.append("stop")

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        self.calls += 1
        match self.at:
            case "before":
                call.model = "half changed"
                raise KeyError("before")
            case "time-out":
                async with asyncio.timeout(0):
                    await asyncio.sleep(1)
            case "refused":
                raise PermissionDenied("not today")
            case "cancelled":
                raise asyncio.CancelledError
        reply = await call_next(call)
        if self.at == "after":
            raise KeyError("after")
        return reply.through(_Stage(self.at))


class _Stage:
    def __init__(self, at: str) -> None:
        self.at = at

    def feed(self, chunk: Chunk, /) -> Chunk:
        if self.at == "stage":
            raise KeyError("stage")
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        pass


@pytest.fixture(autouse=True)
def lives() -> list[str]:
    LIVES.clear()
    return LIVES


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Return a function that starts a gateway whose chain has a Broken: ``gateway("before", "open")``."""
    running: list[Gateway] = []

    async def begin(at: str, fail: str) -> Gateway:
        file = tmp_path / "routes.yaml"
        item = f'{{use: "{HERE}:Broken", with: {{at: {at}}}, fail: {fail}}}'
        file.write_text(
            "version: 1\nupstreams: {sim: {adapter: simulator}}\n"
            f"chains: {{base: [{item}]}}\nroutes: [{{name: all, chain: base, to: sim}}]\n"
        )
        found = Gateway.load(file)
        running.append(found)
        await found.start()
        return found

    yield begin
    for each in running:
        await each.aclose()


async def said(gateway: Gateway, stream: bool) -> str:
    reply = await gateway.handle("openai.chat", HELLO % (b"true" if stream else b"false"))
    chunks = await reply.collect()
    return "".join(event.text for chunk in chunks for event in chunk.events if isinstance(event, PartDelta))


FAULTS: list[tuple[str, type[Exception] | None]] = [
    ("before", KeyError),
    ("time-out", TimeoutError),
    ("after", KeyError),
    ("stage", HouseError),
    ("refused", PermissionDenied),
    ("none", None),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fail", ["closed", "open"])
@pytest.mark.parametrize(("at", "fault"), FAULTS)
async def test_what_becomes_of_the_call(
    gateway: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    at: str,
    fault: type[Exception] | None,
    fail: str,
    stream: bool,
) -> None:
    running = await gateway(at, fail)
    spared = fail == "open" and at in ("before", "time-out")
    with caplog.at_level(logging.WARNING, "headgate.chain"):
        if fault is None or spared:
            assert (await said(running, stream)).startswith("You said: Hello there")
        else:
            with pytest.raises(fault):
                await said(running, stream)
    told = [record.getMessage() for record in caplog.records if record.name == "headgate.chain"]
    assert len(told) == spared
    assert all(f"{HERE}:Broken failed, and the call goes on without it" in line for line in told)


async def test_nothing_of_what_it_began_is_left(gateway: Callable[..., Any]) -> None:
    """It had changed the model when it failed."""
    running = await gateway("before", "open")
    reply = await running.handle("openai.chat", HELLO % b"false")
    chunks = await reply.collect()
    assert [event.model for chunk in chunks for event in chunk.events if isinstance(event, ResponseStart)] == ["demo"]
    assert running.plan.routes[0].needs_usage


async def test_the_record_says_so(call_of: Callable[..., Call]) -> None:
    call = call_of()

    async def last(call: Call) -> Reply:
        return Reply.whole(Chunk(()), call.scope)

    await FailOpen(Broken(BrokenOptions("before")), "mine")(call, last)
    assert call.decision.notes == ["mine: failed, went on without it"]


async def test_a_caller_who_leaves_is_no_fault(gateway: Callable[..., Any]) -> None:
    running = await gateway("cancelled", "open")
    with pytest.raises(asyncio.CancelledError):
        await said(running, False)


async def test_its_life_goes_on_as_that_of_any_other(gateway: Callable[..., Any], lives: list[str]) -> None:
    running = await gateway("before", "open")
    assert lives == ["start"]
    await said(running, False)
    await running.reload()
    assert lives[:3] == ["start", "carried 1", "start"]
    await running.aclose()
    assert lives.count("stop") == 2


async def test_a_start_that_fails_is_not_passed_over(gateway: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match="does not start"):
        await gateway("start", "open")


async def test_an_installed_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_installed", lambda kind: {"broken": f"{HERE}:Broken"})
    file = tmp_path / "routes.yaml"
    file.write_text(
        "version: 1\nupstreams: {sim: {adapter: simulator}}\n"
        "routes: [{name: all, chain: [{use: broken, fail: open}], to: sim}]\n"
    )
    async with Gateway.load(file) as running:
        assert running.plan.routes[0].chain_names == ("broken",)
        assert (await said(running, True)).startswith("You said")


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("fail", ["closed", "open"])
@pytest.mark.parametrize("at", ["before", "after"])
async def test_what_callers_see(tmp_path: Path, http: aiohttp.ClientSession, at: str, fail: str, path: str) -> None:
    item = f'{{use: "{HERE}:Broken", with: {{at: {at}}}, fail: {fail}}}'
    log = tmp_path / "access.jsonl"
    text = f"""
    upstreams: {{sim: {{adapter: simulator}}}}
    routes: [{{name: all, chain: [{{log: {{to: "{log}"}}}}, {item}], to: sim}}]
    """
    async with serving(tmp_path, text) as house:
        response = await http.post(house.base + path, data=body_of(), headers={"Content-Type": "application/json"})
        answer = await response.text()
    line = json.loads(log.read_text())
    if (at, fail) == ("before", "open"):
        assert (response.status, line["outcome"]) == (200, "ok")
        assert f"{HERE}:Broken: failed, went on without it" in line["notes"]
    else:
        assert (response.status, response.headers["headgate-error"], line["outcome"]) == (500, "internal", "internal")
        assert "KeyError" not in answer
        assert at not in answer
