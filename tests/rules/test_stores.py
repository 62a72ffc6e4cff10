"""The section ``stores:`` and who refers to it: what a plan holds, what it shares with the next, what starts and ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from headgate.gateway import rules
from headgate.gateway.reasoning.memory import ReasoningMemory
from headgate.gateway.rules import stores as stores_section
from headgate.gateway.rules.plan import Plan
from headgate.gateway.stores.base import Key, get_one
from headgate.gateway.stores.memory import MemoryStore
from headgate.gateway.stores.sqlite import SqliteStore

KEY = Key("s", "t", "a")
UPSTREAMS = """
upstreams:
  sim: {adapter: simulator}
  claude: {adapter: anthropic, base_url: "http://127.0.0.1:9"}
  chat: {adapter: openai, base_url: "http://127.0.0.1:9/v1"}
"""
ROUTES = """
routes:
  - {name: a, match: {model: a}, to: claude}
  - {name: b, match: {model: b}, to: chat}
  - {name: c, to: sim}
"""


def load(directory: Path, text: str) -> Plan:
    path = directory / "routes.yaml"
    path.write_text("version: 1\n" + text)
    return rules.load(path)


def of(plan: Plan, name: str) -> rules.Route:
    return next(route for route in plan.routes if route.name == name)


def test_without_a_word_there_is_one_store_in_memory(tmp_path: Path) -> None:
    plan = load(tmp_path, UPSTREAMS + ROUTES)
    found = [member for member in plan.members.values() if isinstance(member, MemoryStore)]
    assert [(store.max_entries, store.max_bytes, store.ttl_s) for store in found] == [(10_000, 64 * 2**20, 30 * 86400)]
    for route in plan.routes:
        policy = route.responses
        assert policy is not None
        assert (policy.state, policy.store, policy.ttl_s) == ("gateway", found[0], 30 * 86400)
    assert plan.warnings == ()


def test_what_a_route_leaves_out_comes_from_the_defaults(tmp_path: Path) -> None:
    text = """
stores: {disk: {kind: sqlite, path: a.db, max_size: 1GB}, default: {max_entries: 5}}
defaults: {responses: {store: disk, ttl: 1h}}
routes:
  - {name: a, match: {model: a}, to: sim, responses: {ttl: 5m}}
  - {name: b, match: {model: b}, to: sim, responses: {store: default}}
  - {name: c, to: sim, responses: {state: none}}
"""
    plan = load(tmp_path, "upstreams: {sim: {adapter: simulator}}" + text)
    told = []
    for route in plan.routes:
        policy = route.responses
        assert policy is not None
        told.append((policy.state, type(policy.store), policy.ttl_s))
    assert told == [
        ("gateway", SqliteStore, 300),
        ("gateway", MemoryStore, 3600),
        ("none", SqliteStore, 3600),
    ]
    disk = of(plan, "a").responses.store
    assert (disk.path, disk.max_bytes) == (tmp_path / "a.db", 10**9)
    assert not disk.path.exists()  # nothing is opened before the start


def test_who_signs_is_remembered(tmp_path: Path) -> None:
    plan = load(tmp_path, UPSTREAMS + ROUTES)
    memories = {name: upstream.memory for name, upstream in plan.upstreams.items()}
    assert isinstance(memories["claude"], ReasoningMemory)
    assert memories["chat"] is memories["sim"] is None
    off = load(tmp_path, "defaults: {reasoning: {remember: false}}" + UPSTREAMS + ROUTES)
    assert off.upstreams["claude"].memory is None
    own = UPSTREAMS.replace('127.0.0.1:9"}', '127.0.0.1:9", reasoning: {remember: true}}', 1)
    again = load(tmp_path, "defaults: {reasoning: {remember: false}}" + own + ROUTES)
    assert again.upstreams["claude"].memory is not None
    silent = load(tmp_path, UPSTREAMS + ROUTES.replace("to: claude}", "to: claude, remember_reasoning: false}"))
    assert silent.upstreams["claude"].memory.silent == {"a"}


async def test_stores_start_first_end_last_and_carry_over_by_name(tmp_path: Path) -> None:
    text = "stores: {disk: {kind: sqlite, path: a.db}}\ndefaults: {responses: {store: disk}}" + UPSTREAMS + ROUTES
    old = load(tmp_path, text)
    await old.start()
    disk, memory = (
        next(member for member in old.members.values() if isinstance(member, kind))
        for kind in (SqliteStore, MemoryStore)
    )
    assert next(iter(old.members.values())) is disk
    disk.put(KEY, b"on disk")
    memory.put(KEY, b"in memory")
    new = load(tmp_path, text.replace("path: a.db", "path: a.db, max_entries: 7"))
    new.carry_over(old)
    await new.start()
    await old.retire(new)
    try:
        again = of(new, "a").responses.store
        assert again.max_entries == 7
        assert await get_one(again, KEY) == b"on disk"
        other = next(member for member in new.members.values() if isinstance(member, MemoryStore))
        assert await get_one(other, KEY) == b"in memory"
    finally:
        await new.aclose()


def test_a_store_without_its_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores_section, "find_spec", lambda name: None)
    with pytest.raises(rules.RulesError) as refused:
        load(tmp_path, "stores: {disk: {kind: sqlite, path: a.db}}\n" + UPSTREAMS + ROUTES)
    (problem,) = [each for each in refused.value.problems if each.severity == "error"]
    assert (problem.code, problem.line) == ("E056", 2)
    assert "headgate[sqlite]" in problem.hint


def test_two_files_may_name_stores_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("stores: {disk: {kind: sqlite, path: a.db}}\n")
    plan = load(tmp_path, "include: more.yaml\ndefaults: {responses: {store: disk}}" + UPSTREAMS + ROUTES)
    assert isinstance(of(plan, "a").responses.store, SqliteStore)
    (tmp_path / "more.yaml").write_text("stores: {default: {}}\n")
    with pytest.raises(rules.RulesError, match="E016"):
        load(tmp_path, "include: more.yaml\nstores: {default: {}}" + UPSTREAMS + ROUTES)
