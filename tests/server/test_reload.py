"""What a reload keeps, what it refuses, when the old rules are let go, and what it says of itself."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import ssl
import sys
import weakref
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from headgate import Gateway
from headgate.gateway.rules import RulesError, ServerOptions
from headgate.gateway.server.generation import LastReload

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .house import CHAT, body_of, load, serving, until, write_rules
from .test_standalone import address_of, certificate, serve

PARTS = '''
"""Middlewares and an adapter that hold something."""
import asyncio
import msgspec
from headgate.adapters.simulator import SimulatorAdapter

HISTORY = []
FAULTS = {}

class State:
    def __init__(self):
        self.count = 0
        self.users = 0
        self.open = False

class Counts:
    """Counts calls; what it counts with is opened by the first that starts and closed by the last that stops."""
    class Options(msgspec.Struct):
        note: str = ""
    def __init__(self, options):
        self.note = options.note
        self.state = State()
    def carry_over(self, old):
        HISTORY.append(f"{self.note} after {old.note}")
        if fault := FAULTS.pop("carry_over", None):
            raise fault
        self.state = old.state
    async def start(self):
        HISTORY.append("start " + self.note)
        if fault := FAULTS.pop("start", None):
            raise fault
        self.state.users += 1
        self.state.open = True
    async def stop(self):
        HISTORY.append("stop " + self.note)
        self.state.users -= 1
        self.state.open = self.state.users > 0
    async def __call__(self, call, call_next, /):
        assert self.state.open
        self.state.count += 1
        reply = await call_next(call)
        reply.headers = {**reply.headers, "x-count": str(self.state.count), "x-note": self.note}
        return reply

class Others(Counts):
    """Another class of the same make."""

class Plain(Counts):
    carry_over = None

class Adapter(SimulatorAdapter):
    calls = 0
    def carry_over(self, old):
        self.calls = old.calls
    async def __call__(self, call, /):
        self.calls += 1
        reply = await super().__call__(call)
        reply.headers = {**reply.headers, "x-adapter": str(self.calls)}
        return reply
'''
AROUND = """
upstreams: {{sim: {{adapter: "reload_parts:Adapter"}}}}
{chains}
routes: [{{name: {route}, chain: {chain}, to: sim}}]
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "reload_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "reload_parts", raising=False)
    import reload_parts

    yield reload_parts
    sys.modules.pop("reload_parts", None)


def item(note: str, kind: str = "Counts") -> str:
    return f'{{use: "reload_parts:{kind}", with: {{note: {note}}}}}'


def inline(*items: str, route: str = "all") -> str:
    return AROUND.format(chains="", chain=f"[{', '.join(items)}]", route=route)


def named(*items: str, name: str = "base", route: str = "all") -> str:
    return AROUND.format(chains=f"chains: {{{name}: [{', '.join(items)}]}}", chain=name, route=route)


async def call(gateway: Gateway) -> dict[str, str]:
    """Make a call; return the reply's headers."""
    reply = await gateway.handle("openai.chat", body_of())
    await reply.collect()
    return dict(reply.headers)


async def reload(gateway: Gateway, path: Path, text: str) -> None:
    write_rules(path, text)
    await gateway.reload()


# --- carry_over

CARRIED = [
    pytest.param(inline(item("a")), inline(item("b")), "2", id="other options"),
    pytest.param(inline(item("a")), inline("log", item("b"), "retry"), "2", id="other neighbours"),
    pytest.param(named(item("a")), named(item("b"), route="renamed"), "2", id="a named chain, a renamed route"),
    pytest.param(named(item("a")), named(item("b"), name="other"), "1", id="a renamed chain"),
    pytest.param(inline(item("a")), inline(item("b"), route="renamed"), "1", id="a renamed route"),
    pytest.param(inline(item("a")), inline(item("b", "Others")), "1", id="another class"),
    pytest.param(inline(item("a", "Plain")), inline(item("b", "Plain")), "1", id="without carry_over"),
]


@pytest.mark.parametrize(("before", "after", "count"), CARRIED)
async def test_what_stands_in_the_same_place_goes_on(
    tmp_path: Path, parts: Any, before: str, after: str, count: str
) -> None:
    async with load(tmp_path, before) as gateway:
        assert (await call(gateway))["x-count"] == "1"
        await reload(gateway, tmp_path / "routes.yaml", after)
        headers = await call(gateway)
        assert (headers["x-count"], headers["x-note"]) == (count, "b")
        assert headers["x-adapter"] == "2"
        await until(lambda: "stop a" in parts.HISTORY)
        assert ("b after a" in parts.HISTORY) == (count == "2")
    assert parts.HISTORY[-1] == "stop b"


async def test_two_of_a_class_in_a_chain_keep_apart(tmp_path: Path, parts: Any) -> None:
    async with load(tmp_path, inline(item("a1"), item("a2"))) as gateway:
        await reload(gateway, tmp_path / "routes.yaml", inline(item("b1"), item("b2"), item("b3")))
        assert [each for each in parts.HISTORY if "after" in each] == ["b1 after a1", "b2 after a2"]


async def test_it_stays_open_while_anybody_uses_it(tmp_path: Path, parts: Any) -> None:
    async with load(tmp_path, inline(item("a"))) as gateway:
        slow = await gateway.handle("openai.chat", body_of("/sim delay 30ms\none two three", stream=True))
        (counts,) = gateway.plan.routes[0].middlewares
        state = counts.state  # type: ignore[attr-defined]
        for note in ("b", "c"):
            await reload(gateway, tmp_path / "routes.yaml", inline(item(note)))
        await until(lambda: "stop b" in parts.HISTORY)
        assert (state.users, state.open) == (2, True)
        await slow.collect()
        await until(lambda: "stop a" in parts.HISTORY)
        assert (state.users, state.open) == (1, True)
        assert (await call(gateway))["x-count"] == "2"
    assert (state.users, state.open) == (0, False)


@pytest.mark.parametrize("where", ["carry_over", "start"])
async def test_what_fails_refuses_the_new_rules_and_harms_nothing(tmp_path: Path, parts: Any, where: str) -> None:
    async with load(tmp_path, inline(item("a"))) as gateway:
        await call(gateway)
        parts.FAULTS[where] = RuntimeError("a full disk")
        with pytest.raises(RuntimeError, match="a full disk"):
            await reload(gateway, tmp_path / "routes.yaml", inline(item("b")))
        assert gateway.reloads.last is not None
        assert (gateway.reloads.last.ok, gateway.reloads.last.codes) == (False, ())
        assert (await call(gateway))["x-count"] == "2"
        await gateway.reload()
        assert (await call(gateway))["x-count"] == "3"


# --- when the old rules go


async def test_old_rules_are_let_go(tmp_path: Path, provider: FakeProvider, parts: Any) -> None:
    """After its last call nothing refers to a plan, not even a cycle: no collector is needed."""
    text = f"""
        upstreams: {{openai: {{adapter: openai, base_url: "{provider.base}/v1", key: env:TEST_PROVIDER_KEY, chain: [retry]}}}}
        targets: {{smart: {{select: [{{use: openai}}], on_failure: [{{kinds: [quota], use: openai/other}}]}}}}
        chains: {{base: [log, {item("a")}]}}
        routes: [{{name: all, chain: base, to: smart}}]
        tests: [{{name: t, given: {{}}, expect: {{route: all}}}}]
    """
    provider.answer(script("One two three", pause_s=0.05), *[script("x") for _ in range(3)])
    gc.collect()
    gc.disable()
    try:
        async with load(tmp_path, text) as gateway:
            plans = [weakref.ref(gateway.plan)]
            slow = await gateway.handle("openai.chat", body_of(stream=True))
            for _ in range(3):
                await gateway.reload()
                plans.append(weakref.ref(gateway.plan))
                await call(gateway)
            await until(lambda: [plan() is not None for plan in plans] == [True, False, False, True])
            await slow.collect()
            del slow
            await until(lambda: [plan() is not None for plan in plans] == [False, False, False, True])
    finally:
        gc.enable()


async def test_closing_during_a_reload(tmp_path: Path, parts: Any) -> None:
    gateway = load(tmp_path, inline(item("a")))
    await gateway.start()
    write_rules(tmp_path / "routes.yaml", inline(item("b")))
    results = await asyncio.gather(gateway.reload(), gateway.aclose(), return_exceptions=True)
    assert isinstance(results[0], RuntimeError)
    assert parts.HISTORY == ["start a", "stop a"]
    with pytest.raises(RuntimeError, match="closed"):
        await gateway.reload()


async def test_the_first_start_during_a_reload(tmp_path: Path, parts: Any) -> None:
    gateway = load(tmp_path, inline(item("a")))
    write_rules(tmp_path / "routes.yaml", inline(item("b")))
    await asyncio.gather(gateway.start(), gateway.reload())
    assert (await call(gateway))["x-note"] == "b"
    await gateway.aclose()
    assert sorted(parts.HISTORY) == sorted(["start a", "b after a", "start b", "stop a", "stop b"])


# --- tests in the file


async def test_a_file_whose_tests_fail_is_refused(tmp_path: Path) -> None:
    text = """
        upstreams: {sim: {adapter: simulator}}
        routes: [{name: NAME, to: sim}]
        tests: [{name: everything goes there, given: {model: x}, expect: {route: all}}]
    """
    async with load(tmp_path, text.replace("NAME", "all")) as gateway:
        with pytest.raises(RulesError, match="E060"):
            await reload(gateway, tmp_path / "routes.yaml", text.replace("NAME", "other"))
        assert (gateway.generation, gateway.plan.routes[0].name) == (1, "all")


# --- what needs a restart

RESTART = {
    "listen": ("127.0.0.1:8080", "127.0.0.1:9090", "127.0.0.1:8080 → 127.0.0.1:9090"),
    "max_header": ("64KiB", "32KiB", "65536 bytes → 32768 bytes"),
    "tls": ("{cert: a.pem, key: a.key}", "{cert: b.pem, key: a.key}", "/a.pem and "),
    "workers": ("1", "2", "1 → 2"),
    "loop": ("auto", "asyncio", "auto → asyncio"),
}
SERVER = "server: {{{more}}}\nupstreams: {{sim: {{adapter: simulator}}}}\nroutes: [{{name: {name}, to: sim}}]"


def test_every_key_that_needs_a_restart_is_tried_here() -> None:
    assert set(RESTART) == set(ServerOptions.restart)


@pytest.mark.parametrize("key", RESTART)
async def test_what_cannot_change_is_refused_with_the_reason(tmp_path: Path, key: str) -> None:
    before, after, said = RESTART[key]
    for name in ("a.pem", "b.pem", "a.key"):
        (tmp_path / name).write_text("never read")
    async with load(tmp_path, SERVER.format(more=f"{key}: {before}", name="first")) as gateway:
        with pytest.raises(RulesError) as caught:
            await reload(gateway, tmp_path / "routes.yaml", SERVER.format(more=f"{key}: {after}", name="second"))
        (problem,) = caught.value.problems
        assert (problem.code, problem.line) == ("E053", 2)
        assert f"server.{key} cannot change while the server runs" in problem.message
        assert said in problem.message
        assert problem.hint == "restart to apply it"
        assert gateway.plan.routes[0].name == "first"
        await reload(gateway, tmp_path / "routes.yaml", SERVER.format(more=f"{key}: {before}", name="third"))
        assert gateway.plan.routes[0].name == "third"
        if key != "tls":
            more = f"{key}: {before}, tls: {{cert: a.pem, key: a.key}}"
            with pytest.raises(RulesError, match="tls cannot change while the server runs: nothing → "):
                await reload(gateway, tmp_path / "routes.yaml", SERVER.format(more=more, name="fourth"))


LIVE = {
    "anonymous": "allow",
    "max_body": "1KB",
    "max_upload": "1KB",
    "receive": "3s",
    "keep_alive": "3s",
    "drain": "3s",
    "trusted_proxies": "[10.0.0.0/8]",
    "cors": '{origins: ["*"]}',
    "response_headers": "false",
    "watch": "7s",
}


def test_every_other_key_is_tried_here() -> None:
    assert {*LIVE, *RESTART} == set(ServerOptions.__struct_fields__)


@pytest.mark.parametrize("key", LIVE)
async def test_what_can_change_does(tmp_path: Path, key: str) -> None:
    async with load(tmp_path, SERVER.format(more="", name="first")) as gateway:
        before = getattr(gateway.plan.server, key)
        await reload(gateway, tmp_path / "routes.yaml", SERVER.format(more=f"{key}: {LIVE[key]}", name="second"))
        assert getattr(gateway.plan.server, key) != before


# --- what it says of itself


async def test_health_tells_how_it_went_and_no_secret(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serving(tmp_path) as house:

        async def health() -> Any:
            return await (await http.get(house.base + "/healthz")).json()

        assert (await health())["generation"] == 1
        assert (await health())["reloads"] == {}
        await house.gateway.reload()
        said = await health()
        assert (said["generation"], said["reloads"]["succeeded"]) == (2, 1)
        assert said["reloads"]["last"] == {"ok": True, "at": said["loaded_at"]}
        house.rewrite("upstreams: {o: {adapter: openai, key: secret-in-the-file}}\nroutes: [{name: x, to: nowhere}]")
        with pytest.raises(RulesError):
            await house.gateway.reload()
        said = await health()
        assert (said["generation"], said["reloads"]["failed"]) == (2, 1)
        assert (said["reloads"]["last"]["ok"], said["reloads"]["last"]["codes"]) == (False, ["E020", "E033"])
        text = json.dumps(said)
        for private in ("secret-in-the-file", "nowhere", "routes.yaml", str(tmp_path)):
            assert private not in text
        assert "E020" in str(house.gateway.reload_error)
        decoded = msgspec.convert(said["reloads"]["last"], LastReload)
        assert decoded == house.gateway.reloads.last


async def test_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with load(tmp_path) as gateway:
        with pytest.raises(RulesError):
            await reload(gateway, tmp_path / "routes.yaml", "routes: [{name: x, to: nowhere}]")
        assert "the old rules stay" in caplog.text
        assert "E033" in caplog.text


# --- access logs


async def test_no_line_is_lost_or_doubled_and_a_rotated_file_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    text = f"""
        upstreams: {{sim: {{adapter: simulator}}}}
        routes: [{{name: all, chain: [{{log: {{to: "{path}"}}}}], to: sim}}]
    """
    async with load(tmp_path, text) as gateway:
        slow = await gateway.handle(
            "openai.chat", body_of("/sim delay 20ms\none two", stream=True), {"x-request-id": "0"}
        )
        for number in range(1, 4):
            reply = await gateway.handle("openai.chat", body_of(), {"x-request-id": str(number)})
            await reply.collect()
            await gateway.reload()  # with the line still unwritten
        path.rename(tmp_path / "rotated.jsonl")
        await gateway.reload()
        await (await gateway.handle("openai.chat", body_of(), {"x-request-id": "4"})).collect()
        await slow.collect()
    ids = [
        [json.loads(line)["request_id"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("rotated.jsonl", "access.jsonl")
    ]
    assert sorted(ids[0]) == ["0", "1", "2", "3"]
    assert ids[1] == ["4"]


# --- connections


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
async def test_connections_stay_as_long_as_their_settings_do(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, transport: str
) -> None:
    text = """
        upstreams: {openai: {adapter: openai, base_url: "BASE/v1", key: env:TEST_PROVIDER_KEY, transport: KIND MORE}}
        routes: [{name: all, to: openai}]
    """
    text = text.replace("BASE", provider.base).replace("KIND", transport)
    async with serving(tmp_path, text.replace("MORE", "")) as house:
        used: list[object] = []
        for more in ("", ", timeout: {idle: 5s}, chain: [retry]", ", pool: {max_connections: 3}"):
            house.rewrite(text.replace("MORE", more))
            await house.gateway.reload()
            response = await http.post(house.base + CHAT, json=json.loads(body_of()))
            assert response.status == 200
            await response.read()
            await until(lambda: provider.connections == 1)
            used += provider.open_connections
        assert used[0] is used[1]
        assert used[1] is not used[2]


async def test_a_renewed_authority_makes_new_connections(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path)
    text = f'upstreams: {{o: {{adapter: openai, key: env:TEST_PROVIDER_KEY, pool: {{ca_bundle: "{cert}"}}}}}}'
    text += "\nroutes: [{name: all, to: o}]"
    async with load(tmp_path, text) as gateway:
        first = gateway.plan.upstreams["o"].pool
        assert cert in gateway.plan.sources
        await gateway.reload()
        assert gateway.plan.upstreams["o"].pool is first
        certificate(tmp_path)
        await gateway.reload()
        assert gateway.plan.upstreams["o"].pool is not first


# --- a process of its own


async def test_a_certificate_is_renewed_while_it_serves(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    text = """
        version: 1
        server: {tls: {cert: cert.pem, key: key.pem}, watch: 100ms}
        upstreams: {sim: {adapter: simulator}}
        routes: [{name: all, to: sim}]
    """

    async def trusted(base: str, context: ssl.SSLContext) -> bool:
        async with aiohttp.ClientSession() as http:
            try:
                return (await http.get(base + "/healthz", ssl=context)).status == 200
            except aiohttp.ClientConnectorCertificateError:
                return False

    async with serve(tmp_path, text) as running:
        base = await address_of(running)
        old = ssl.create_default_context(cafile=str(cert))
        assert await trusted(base, old)
        certificate(tmp_path)
        new = ssl.create_default_context(cafile=str(cert))
        assert not await trusted(base, new)
        await running.says("generation 2")
        assert await trusted(base, new)
        assert not await trusted(base, old)
        key.write_text("no key any more")
        await running.says("old rules stay")
        assert await trusted(base, new)
    assert "Traceback" not in running.said


async def test_a_change_reaches_every_worker_and_a_broken_file_none(tmp_path: Path) -> None:
    text = "version: 1\nserver: {workers: 2, watch: 100ms}\nupstreams: {sim: {adapter: simulator}}\n"
    text += "routes: [{name: NAME, to: sim}]\n"
    async with serve(tmp_path, text.replace("NAME", "before")) as running:
        base = await address_of(running)
        await until(lambda: running.said.count(" serves ") == 2, 10)
        (tmp_path / "routes.yaml").write_text(text.replace("NAME", "after"))
        await until(lambda: running.said.count("generation 2") == 2, 10)

        async def routes() -> set[str]:
            found = set()
            for _ in range(10):
                async with aiohttp.ClientSession() as each:  # a connection each: the kernel deals them out
                    response = await each.post(base + CHAT, json=json.loads(body_of()))
                    found.add(response.headers["headgate-route"])
            return found

        assert await routes() == {"after"}
        (tmp_path / "routes.yaml").write_text("routes: [")
        await until(lambda: running.said.count("old rules stay") == 2, 10)
        # A worker that dies now cannot be replaced: the other goes on.
        workers = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        os.kill(int(workers[0]), signal.SIGKILL)
        await running.says("starting another")
        await running.says("E002|E010")
        await asyncio.sleep(0.5)
        assert running.process.returncode is None
        assert await routes() == {"after"}
        assert "giving up" not in running.said
