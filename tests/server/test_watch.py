"""Files that change under a gateway: saved, replaced, linked elsewhere, half written, gone for a moment, or not at all."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from headgate import Gateway
from headgate.gateway.server import watch as watch_module
from headgate.gateway.server.watch import Watch

from .house import until

EVERY = 0.1
"""Seconds between looks, the shortest that the rules allow."""
RULES = """version: 1
server: {{watch: 100ms}}
{more}
upstreams: {{sim: {{adapter: simulator}}}}
routes: [{{name: {name}, to: sim}}]
"""


def rules(name: str, more: str = "") -> str:
    return RULES.format(name=name, more=more)


def age(*paths: Path) -> None:
    """Make files as old as those that nobody has just written."""
    for path in paths:
        os.utime(path, (time.time() - 60,) * 2)


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[Gateway]:
    """A gateway that watches its files, and has looked once."""
    age(path)
    async with Gateway.load(path, watch=True) as gateway:
        await asyncio.sleep(EVERY * 2)
        assert gateway.generation == 1
        yield gateway


def route(gateway: Gateway) -> str:
    return gateway.plan.routes[0].name


async def settled(gateway: Gateway) -> None:
    """Wait as long as a change would take to be seen."""
    await asyncio.sleep(EVERY + 5 * watch_module.SETTLE_S)


# --- ways in which files change


def write(path: Path, text: str) -> None:
    path.write_text(text)


def replace(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text)
    os.replace(beside, path)


def remove_and_write(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def as_vim_does(path: Path, text: str) -> None:
    (path.parent / ".routes.yaml.swp").write_text("x")
    os.rename(path, path.with_name("routes.yaml~"))
    path.write_text(text)
    path.with_name("routes.yaml~").unlink()
    (path.parent / ".routes.yaml.swp").unlink()


def with_the_old_time(path: Path, text: str) -> None:
    """As rsync and tar do; the size is the same too."""
    state = path.stat()
    replace(path, text)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def in_place_with_the_old_time(path: Path, text: str) -> None:
    state = path.stat()
    path.write_text(text)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


WAYS = [write, replace, remove_and_write, as_vim_does, with_the_old_time, in_place_with_the_old_time]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_change_is_seen_however_it_is_made(tmp_path: Path, way: Callable[[Path, str], None]) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        for name in ("after", "later"):  # as long as each other
            way(path, rules(name))
            await until(lambda name=name: route(gateway) == name)
        await settled(gateway)
        assert gateway.generation == 3
        assert gateway.reloads.failed == 0


async def test_a_config_map_that_is_swapped(tmp_path: Path) -> None:
    """Kubernetes: each file is a link to ..data/file, ..data a link to a directory; an update turns ..data alone."""

    def publish(number: int) -> None:
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "routes.yaml").write_text(f"version: 1\nserver: {{watch: 100ms}}\ninclude: [part{number}.yaml]\n")
        (folder / "part1.yaml").write_text(f"routes: [{{name: first{number}, to: sim}}]\n" + SIM)
        (folder / "part2.yaml").write_text(f"routes: [{{name: second{number}, to: sim}}]\n" + SIM)
        age(*folder.iterdir())
        (tmp_path / "..tmp").symlink_to(folder.name)
        os.replace(tmp_path / "..tmp", tmp_path / "..data")

    publish(1)
    for name in ("routes.yaml", "part1.yaml", "part2.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    async with Gateway.load(tmp_path / "routes.yaml", watch=True) as gateway:
        assert route(gateway) == "first1"
        publish(2)
        await until(lambda: route(gateway) == "second2")
        await settled(gateway)
        assert (gateway.generation, gateway.reloads.failed) == (2, 0)


SIM = "upstreams: {sim: {adapter: simulator}}\n"


# --- what must not happen


async def test_a_file_that_is_saved_unchanged_reloads_nothing(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        path.touch()
        replace(path, rules("first"))
        (tmp_path / "routes.yaml~").write_text("a copy of an editor's")
        await settled(gateway)
        assert gateway.generation == 1


async def test_a_half_written_file_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        text = rules("second", more="x-note: " + "n" * 400)
        with path.open("w") as file:
            for at in range(0, len(text), 20):  # for longer than a look takes, shorter than what counts as rest
                file.write(text[at : at + 20])
                file.flush()
                await asyncio.sleep(0.03)
        await until(lambda: route(gateway) == "second")
        assert (gateway.generation, gateway.reloads.failed) == (2, 0)


async def test_a_file_that_is_gone_for_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        path.unlink()
        await asyncio.sleep(0.6)
        path.write_text(rules("second"))
        await until(lambda: route(gateway) == "second")
        assert (gateway.generation, gateway.reloads.failed) == (2, 0)


async def test_a_file_that_is_gone_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "SETTLE_LOOKS", 3)
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        path.unlink()
        await until(lambda: gateway.reloads.failed == 1)
        await settled(gateway)
        assert (gateway.reloads.failed, route(gateway)) == (1, "first"), "tried again without a change"
        path.write_text(rules("first"))
        await until(lambda: gateway.generation == 2)
        assert gateway.reload_error is None


async def test_a_broken_file_is_tried_once_for_each_change(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        for number, broken in enumerate(("routes: [", rules("x").replace("to: sim", "to: nowhere")), 1):
            replace(path, broken)
            await until(lambda number=number: gateway.reloads.failed == number)
            await settled(gateway)
            assert gateway.reloads.failed == number
            assert (gateway.generation, route(gateway)) == (1, "first")
        replace(path, rules("mended"))
        await until(lambda: route(gateway) == "mended")


# --- which files


async def test_included_files_globs_and_secrets(tmp_path: Path) -> None:
    path, secret = tmp_path / "routes.yaml", tmp_path / "secret.txt"
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "a.yaml").write_text("routes: [{name: a, match: {model: a}, chain: guard, to: sim}]\n")
    secret.write_text("sk-first")
    auth = "{auth: {keys: [{name: a, key: file:secret.txt}]}}"
    chains = f"include: parts/*.yaml\nchains: {{guard: [{auth}]}}"
    path.write_text(rules("last", more=chains).replace("name: last", "name: last, match: {model: z}"))
    age(secret, parts / "a.yaml", parts)
    async with watching(path) as gateway:
        names = lambda: [each.name for each in gateway.plan.routes]  # noqa: E731
        assert names() == ["last", "a"]
        (parts / "b.yaml").write_text("routes: [{name: b, match: {model: b}, to: sim}]\n")
        await until(lambda: names() == ["last", "a", "b"])
        replace(parts / "b.yaml", "routes: [{name: c, match: {model: b}, to: sim}]\n")
        await until(lambda: names() == ["last", "a", "c"])
        (parts / "b.yaml").unlink()
        await until(lambda: names() == ["last", "a"], 4)
        generation = gateway.generation
        secret.write_text("sk-second")
        await until(lambda: gateway.generation == generation + 1)
        secret.unlink()
        await until(lambda: gateway.reloads.failed == 1, 4)
        assert gateway.reloads.last is not None
        assert gateway.reloads.last.codes == ("E021",)
        secret.write_text("sk-third")
        await until(lambda: gateway.generation == generation + 2)


async def test_what_a_broken_file_names_is_watched_too(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        replace(path, rules("second", more="include: new.yaml"))
        await until(lambda: gateway.reloads.failed == 1)
        (tmp_path / "new.yaml").write_text("x-note: here\n")
        await until(lambda: route(gateway) == "second")


async def test_how_often_can_change_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        replace(path, rules("idle").replace("100ms", "false"))
        await until(lambda: route(gateway) == "idle")
        replace(path, rules("unseen"))
        await settled(gateway)
        assert route(gateway) == "idle"
        gateway.reload_soon()
        await until(lambda: route(gateway) == "unseen")
        replace(path, rules("seen"))
        await until(lambda: route(gateway) == "seen")


async def test_a_reload_by_hand_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with watching(path) as gateway:
        replace(path, rules("second"))
        await gateway.reload()
        assert route(gateway) == "second"
        await settled(gateway)
        assert gateway.generation == 2
        for _ in range(5):
            gateway.reload_soon()  # a burst of signals is one reload, or two if one was under way
        await until(lambda: gateway.generation > 2)
        await settled(gateway)
        assert gateway.generation in (3, 4)


async def test_only_who_asks_for_it_watches(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(rules("first"))
    async with Gateway.load(path) as gateway:
        replace(path, rules("second"))
        await settled(gateway)
        assert route(gateway) == "first"
        with pytest.raises(ValueError, match="does not watch"):
            gateway.reload_soon()
    before = len(asyncio.all_tasks())
    gateway = Gateway.load(path, watch=True)
    await gateway.start()
    await gateway.start()
    assert len(asyncio.all_tasks()) == before + 1
    await gateway.aclose()
    assert len(asyncio.all_tasks()) == before


# --- the looking itself


async def test_a_change_between_loading_and_the_first_look_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    began = time.time()
    path.write_text("one")
    watch = Watch([path], began)
    async with asyncio.timeout(1):
        await watch.due(lambda: 0.01)
    await watch.took(await watch.look(), [path], time.time())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await watch.due(lambda: 0.01)


async def test_an_old_file_is_not_read_at_each_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("one")
    monkeypatch.setattr(watch_module, "_FRESH_S", 0.0)
    await asyncio.sleep(0.05)
    reads: list[Path] = []
    content = watch_module._content
    monkeypatch.setattr(watch_module, "_content", lambda path, mode: (reads.append(path), content(path, mode))[1])
    watch = Watch([path], time.time() + 1)
    for _ in range(5):
        await watch.look()
    assert len(reads) == 1
    path.write_text("two")
    await watch.look()
    assert len(reads) == 2


async def test_a_pipe_is_left_alone(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    watch = Watch([pipe, tmp_path / "gone"], time.time() + 1)
    async with asyncio.timeout(1):
        assert (await watch.look())[tmp_path / "gone"] is None
