"""The section ``accounts:`` and the upstreams that name a pool: what a plan holds, what is off, what a reload keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from headgate.gateway import rules
from headgate.gateway.accounts.pool import AccountPool
from headgate.gateway.cli.main import main
from headgate.gateway.rules.plan import Plan
from headgate.gateway.stores.memory import MemoryStore
from headgate.gateway.stores.sqlite import SqliteStore

POOL = """
accounts:
  pool:
    members: [{id: a, key: "env:TEST_A?"}, {id: b, key: "env:TEST_B?"}]
"""
REST = """
upstreams:
  one: {adapter: openai, accounts: pool, chain: turns}
  two: {adapter: anthropic, accounts: pool, chain: turns}
chains: {turns: [rotate]}
routes:
  - {name: two, match: {model: "claude-*"}, to: two}
  - {name: one, to: one}
"""


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_A", "sk-of-account-a")
    monkeypatch.setenv("TEST_B", "sk-of-account-b")


def load(directory: Path, text: str, previous: Plan | None = None) -> Plan:
    path = directory / "routes.yaml"
    path.write_text("version: 1\n" + text)
    return rules.load(path, previous=previous)


def pool_of(plan: Plan, upstream: str = "one") -> AccountPool:
    pool = plan.upstreams[upstream].accounts
    assert pool is not None
    return pool


def test_every_key_of_a_pool(tmp_path: Path) -> None:
    text = """
stores: {disk: {kind: sqlite, path: a.db}}
accounts:
  pool:
    pick: priority
    affinity: {by: header.x-conversation, ttl: 30m, max_entries: 5}
    cooldown: {scope: account, until: [retry-after], else: 10s, quota: 2h, auth: null, max: 1h, probe: 0}
    store: disk
    members:
      - {id: a, key: env:TEST_A, weight: 3, priority: 2}
      - {id: b, key: env:TEST_B}
"""
    plan = load(tmp_path, text + REST)
    pool = pool_of(plan)
    cooldown = pool.rules
    assert (pool.name, pool.pick, pool.store_name, type(pool.store)) == ("pool", "priority", "disk", SqliteStore)
    assert (cooldown.scope, cooldown.until, cooldown.else_, cooldown.quota) == ("account", ("retry-after",), 10, 7200)
    assert (cooldown.auth, cooldown.max, cooldown.probe) == (None, 3600, 0)
    assert (pool._sessions.ttl_s, pool._sessions.most) == (1800, 5)
    assert [(each.id, each.account.credential, each.share, each.priority) for each in pool.members] == [
        ("a", "sk-of-account-a", 1 / 3, 2), ("b", "sk-of-account-b", 1.0, 0),
    ]  # fmt: skip
    places = [place.owner for place in plan.members]
    assert places.index("stores.disk") < places.index("accounts.pool") < places.index("chains.turns")


def test_two_upstreams_share_a_pool_and_a_middleware(tmp_path: Path) -> None:
    plan = load(tmp_path, POOL + REST)
    assert pool_of(plan, "one") is pool_of(plan, "two")
    (rotate,) = plan.upstreams["one"].middlewares
    assert rotate is plan.upstreams["two"].middlewares[0]
    assert rotate.pools == {"one": pool_of(plan), "two": pool_of(plan)}  # type: ignore[attr-defined]
    assert type(pool_of(plan).store) is MemoryStore
    assert plan.warnings == ()


def test_an_account_without_its_key_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_B")
    plan = load(tmp_path, POOL + REST)
    assert [member.id for member in pool_of(plan).members] == ["a"]
    assert [member.off for member in pool_of(plan).all] == [None, "TEST_B is not set"]
    assert plan.upstreams["one"].off is None and plan.upstreams["one"].optional


def test_without_any_key_the_upstream_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_A")
    monkeypatch.delenv("TEST_B")
    plan = load(tmp_path, POOL + REST)
    assert plan.upstreams["one"].off == "TEST_A is not set, TEST_B is not set"
    assert plan.upstreams["one"].adapter is None
    assert [problem.code for problem in plan.warnings] == ["W102", "W102"]
    assert all(route.off for route in plan.routes)


def test_one_key_that_must_be_there_keeps_it_on(tmp_path: Path) -> None:
    plan = load(tmp_path, POOL.replace("env:TEST_A?", "env:TEST_A") + REST)
    assert not plan.upstreams["one"].optional


@pytest.mark.parametrize(
    "by", ["session", "principal.key", "principal.team", "header.X-Chat", "metadata.user", "query.c"]
)
def test_what_sessions_may_be_told_by(tmp_path: Path, by: str) -> None:
    pool = pool_of(load(tmp_path, POOL + f"    affinity: {{by: {by}}}\n" + REST))
    assert pool.session is not None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("    pick: round_robin\n", "members[1].weight does not count with pick: round_robin"),
        ("    pick: fill_first\n", "members[1].weight does not count with pick: fill_first"),
    ],
)
def test_what_would_not_count_is_refused(tmp_path: Path, more: str, said: str) -> None:
    text = POOL.replace('TEST_B?"', 'TEST_B?", weight: 2')
    with pytest.raises(rules.RulesError, match="weight does not count") as caught:
        load(tmp_path, text + more + REST)
    assert said in str(caught.value)
    with pytest.raises(rules.RulesError, match="priority counts only with pick: priority"):
        load(tmp_path, POOL.replace('TEST_B?"', 'TEST_B?", priority: 2') + REST)


async def test_a_reload_keeps_states_by_the_pools_name(tmp_path: Path) -> None:
    old = load(tmp_path, POOL + REST)
    await old.start()
    pool_of(old).members[0].state.park("", 0.0, 0.0, 1e9, "quota", "empty")
    new = load(tmp_path, POOL + "    pick: fill_first\n" + REST, old)
    new.carry_over(old)
    await new.start()
    assert pool_of(new) is not pool_of(old)
    assert pool_of(new).members[0].state is pool_of(old).members[0].state
    await old.retire(new)
    await new.aclose()


def test_no_secret_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(tmp_path, POOL + REST)
    file = str(tmp_path / "routes.yaml")
    for command in (
        ["explain", file, "--model", "claude-x"],
        ["explain", file, "--model", "claude-x", "--json"],
        ["explain", file, "--model", "m", "--header", "x-note: sk-of-account-b"],
        ["graph", file],
        ["routes", file, "--json"],
    ):
        assert main(command) == 0
    shown = capsys.readouterr().out
    assert "sk-of-account" not in shown
    assert "accounts  pool, by round_robin: a, b; shown is a" in shown
    assert '"accounts": "pool"' in shown
    assert "x-api-key: ***" in shown and "authorization: ***" in shown
    assert "accounts: pool" in shown
    assert "sk-of-account" not in repr(pool_of(load(tmp_path, POOL + REST)).members)


def test_trials_need_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_A")
    monkeypatch.delenv("TEST_B")
    tests = "tests: [{name: t, given: {model: claude-x}, expect: {upstream: two}}]\n"
    text = POOL.replace("?", "") + REST + tests
    (tmp_path / "routes.yaml").write_text("version: 1\n" + text)
    (trial,), problems = rules.try_out(tmp_path / "routes.yaml")
    assert trial.passed and problems == []
