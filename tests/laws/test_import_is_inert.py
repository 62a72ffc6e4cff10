"""Law 13, import is inert: nothing is opened or started, and two gateways in one process know nothing of each other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .common import FORMATS, law
from .sockets import ask, call
from .test_no_secret_leaves import served

WATCH = """
import sys

opened = []


def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn")):
        opened.append((event, str(arguments)))
    elif event in ("os.mkdir", "os.remove", "os.rename", "os.putenv", "os.chdir", "signal.pthread_kill"):
        opened.append((event, str(arguments)))
    elif event == "open":
        path, mode, flags = arguments
        writes = isinstance(mode, str) and set(mode) & set("wax+")
        if writes and not str(path).endswith(".pyc") and "__pycache__" not in str(path):
            opened.append((event, str(arguments)))


import asyncio, logging, os, signal, threading

loops = []
real_loop = asyncio.new_event_loop
asyncio.new_event_loop = lambda: loops.append(1) or real_loop()
before = dict(os.environ), threading.active_count(), signal.getsignal(signal.SIGTERM), len(logging.getLogger().handlers)
sys.addaudithook(watch)
"""
CHECK = """
after = dict(os.environ), threading.active_count(), signal.getsignal(signal.SIGTERM), len(logging.getLogger().handlers)
assert opened == [], opened
assert loops == [] and before == after, (loops, before, after)
assert not [name for name in logging.root.manager.loggerDict if logging.getLogger(name).handlers and "headgate" in name]
"""


def run(code: str, *flags: str) -> str:
    """Run code in a process of its own, away from here; return what it printed."""
    command = [sys.executable, "-W", "error", "-B", *flags, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_opens_and_starts_nothing() -> None:
    run(WATCH + "import headgate\nfor name in headgate.__all__: getattr(headgate, name)\n" + CHECK)


def test_loading_rules_opens_and_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("a"))
    run(WATCH + f"import headgate\nheadgate.Gateway.load({str(path)!r})\n" + CHECK)


def test_what_no_rule_names_is_not_imported() -> None:
    loaded = set(run("import sys, headgate\nprint(*sys.modules)").split())
    assert "headgate" in loaded
    assert not {name for name in loaded if name.startswith(("headgate.middlewares.", "headgate.adapters."))}
    assert "aiohttp" not in loaded
    assert "yaml" not in loaded


def test_tables_do_not_grow(tmp_path: Path) -> None:
    """What a module holds after two gateways have served is what it held before; memory of the Date header apart."""
    paths = [tmp_path / f"{name}.yaml" for name in "ab"]
    for name, path in zip("ab", paths, strict=True):
        path.write_text(rules(name))
    code = f"""
import asyncio, headgate, importlib, pkgutil
from headgate.gateway.server.handlers import make_app

names = [it.name for it in pkgutil.walk_packages(headgate.__path__, "headgate.") if "__main__" not in it.name]
modules = [importlib.import_module(name) for name in names if name.split(".")[1] in ("gateway", "middlewares", "adapters")]


def state():
    found = {{}}
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, (list, dict, set, bytearray)) and not name.startswith("__"):
                found[module.__name__, name] = len(value), repr(value)
    return found


async def serve(path):
    async with headgate.Gateway.load(path) as gateway:
        for format in ("openai.chat", "anthropic.messages"):
            model = b"m-" + path[-6:-5].encode()
            body = b'{{"model": "' + model + b'", "max_tokens": 9, "messages": [{{"role": "user", "content": "hi"}}]}}'
            await (await gateway.handle(format, body, {{"x-new": "1"}})).collect()


async def both():
    await asyncio.gather(*(serve(path) for path in {[str(path) for path in paths]!r}))

asyncio.run(both())
before = state()
asyncio.run(both())
after = state()
print([key for key in before if before[key] != after[key]])
"""
    assert run(code).strip() == "[]"


def rules(name: str) -> str:
    """A rule file whose answers say whose they are."""
    return (
        f'version: 1\nupstreams: {{up-{name}: {{adapter: simulator, script: ["text I am {name}"]}}}}\n'
        f"routes: [{{name: route-{name}, match: {{model: m-{name}}}, to: up-{name}}}]\n"
    )


@law
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.sampled_from(FORMATS), st.booleans())))
def test_gateways_of_one_process_do_not_mix(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, str, str, bool]]
) -> None:
    directory = tmp_path_factory.getbasetemp()
    asyncio.run(_mix(directory, calls))


async def _mix(directory: Path, calls: Iterable[tuple[str, str, str, bool]]) -> None:
    for name in "ab":
        (directory / f"mix-{name}.yaml").write_text(rules(name))
    async with served(directory / "mix-a.yaml") as a, served(directory / "mix-b.yaml") as b:
        gateways = {"a": a, "b": b}

        async def one(gateway: str, model: str, format: str, stream: bool) -> None:
            answer = await call(gateways[gateway], format, ask(format, format, stream=stream, model=f"m-{model}"))
            if gateway != model:
                assert answer.status == 404
                return
            assert answer.status == 200
            assert answer.headers["headgate-route"] == f"route-{gateway}"
            assert (b"a" if gateway == "a" else b"b") in answer.body
            assert f"up-{gateway}" == answer.headers["headgate-upstream"]

        await asyncio.gather(*(one(*it) for it in calls))
        assert a.gateway.in_flight == b.gateway.in_flight == 0
        assert a.gateway.clock is not b.gateway.clock
