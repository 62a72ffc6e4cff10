"""``headgate accounts``: what a running gateway does is seen from outside, and a reset is heard of inside."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway.accounts.pool import AccountPool
from headgate.gateway.accounts.record import Cooldown, Counts, Event, Record, Reset, read_reset, record_key, reset_key
from headgate.gateway.cli.main import main
from headgate.gateway.errors import GatewayError
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.stores.sqlite import SqliteStore

from ..fakes.provider import FakeProvider
from ..fakes.script import script

RULES = """
version: 1
stores: {disk: {kind: sqlite, path: state.db}}
accounts:
  pool:
    {pick: fill_first, store: disk, members: [{id: a, key: env:TEST_A}, {id: b, key: env:TEST_B}, {id: c, key: "env:TEST_C?"}]}
upstreams:
  chat: {adapter: openai, base_url: "%s/v1", accounts: pool, chain: [rotate]}
routes: [{name: all, to: chat}]
"""
KEYS = {"TEST_A": "sk-the-key-of-account-a", "TEST_B": "sk-the-key-of-account-b"}
HELLO = b'{"model": "gpt-fake", "messages": [{"role": "user", "content": "Hi."}]}'
NO_KEY = script(status=401, error_message="Incorrect API key provided: sk-the-key-of-account-a.")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TEST_C", raising=False)


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        fake.accounts = dict.fromkeys(KEYS.values())
        yield fake


@pytest.fixture
def file(tmp_path: Path, provider: FakeProvider) -> Path:
    path = tmp_path / "routes.yaml"
    path.write_text(RULES % provider.base)
    return path


async def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the command beside the gateway; return its code, and what it said."""
    capsys.readouterr()
    code = await asyncio.to_thread(main, ["accounts", *words])
    said = capsys.readouterr()
    assert "sk-the-key" not in said.out + said.err
    return code, said.out, said.err


async def ask(gateway: Gateway) -> str:
    try:
        await (await gateway.handle("openai.chat", HELLO)).collect()
    except GatewayError as error:
        return error.kind
    return "ok"


async def until(holds: Callable[[], Any], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.05)


async def test_seen_from_outside_and_reset_from_outside(
    file: Path, provider: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--file", str(file))
    provider.accounts[KEYS["TEST_A"]] = NO_KEY
    async with Gateway.load(file) as gateway:
        assert [await ask(gateway) for _ in range(3)] == ["ok"] * 3
        assert [each.presented for each in provider.requests] == [KEYS["TEST_A"], *[KEYS["TEST_B"]] * 3]

        async def is_told() -> bool:
            code, out, _ = await run(capsys, "list", *where)
            return code == 0 and "parked" in out

        await until(is_told)
        _, out, _ = await run(capsys, "list", *where)
        rows = [line.split() for line in out.splitlines()]
        assert rows[0] == ["pool", "account", "state", "running", "calls", "errors", "why"]
        assert rows[1][:3] == ["pool", "a", "parked"]
        assert "59m" in out.splitlines()[1] or "1h0m" in out.splitlines()[1]
        assert rows[2][:5] == ["pool", "b", "in", "use", "0"] and rows[2][5:7] == ["3", "0"]
        assert "off: TEST_C is not set" in out

        code, out, _ = await run(capsys, "why", "a", *where)
        assert code == 0
        assert out.splitlines()[0] == "pool/a" and "now: parked until" in out
        assert "parked for 1h0m after auth (gpt-fake): Incorrect API key provided" in out

        provider.accounts[KEYS["TEST_A"]] = None
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headgate", "accounts", "reset", "pool/a", *where, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await process.communicate()
        assert process.returncode == 0
        assert told.decode() == "pool/a is used again; running gateways know within two seconds\n"
        began = time.monotonic()

        async def is_used() -> bool:
            await ask(gateway)
            return provider.last.presented == KEYS["TEST_A"]

        await until(is_used)
        assert time.monotonic() - began < 4

    _, out, _ = await run(capsys, "why", "a", *where)
    assert "now: in use" in out
    assert [line.split()[2] for line in out.splitlines()[2:]] == ["reset", "parked"]
    async with Gateway.load(file) as gateway:
        assert await ask(gateway) == "ok"
        assert provider.last.presented == KEYS["TEST_A"]


async def test_a_reset_closes_a_breaker_that_keeps_an_account_away(
    file: Path, provider: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    """The account is tried at once, and what it does then counts anew; a reload in between changes nothing."""
    text = file.read_text().replace(
        "chain: [rotate]", "chain: [rotate, {breaker: {failures: 2, open: 1h, max_open: 1h}}]"
    )
    file.write_text(text)

    async def tried() -> int:
        """How many calls the account got, of three."""
        provider.requests.clear()
        assert len([await ask(gateway) for _ in range(3)]) == 3
        return [each.presented for each in provider.requests].count(KEYS["TEST_A"])

    async def reset() -> None:
        code, _, _ = await run(capsys, "reset", "a", "--file", str(file))
        assert code == 0
        (pool,) = [each for each in gateway.plan.members.values() if isinstance(each, AccountPool)]
        before = pool.members[0].account.reset_at

        async def is_heard() -> bool:
            return pool.members[0].account.reset_at > before

        await until(is_heard)

    provider.accounts[KEYS["TEST_A"]] = script(status=500)
    async with Gateway.load(file) as gateway:
        assert await tried() == 2, "then it is left alone"
        file.write_text(text + "  # the same")
        await gateway.reload()
        assert await tried() == 0
        await reset()
        file.write_text(text)
        await gateway.reload()
        assert await tried() == 2
        assert await tried() == 0
        provider.accounts[KEYS["TEST_A"]] = None
        await reset()
        assert await tried() == 3


async def test_a_restart_in_between_keeps_cooldowns(file: Path, provider: FakeProvider) -> None:
    provider.accounts[KEYS["TEST_A"]] = script(status=429, headers={"retry-after": "300"})
    for round_ in range(3):
        async with Gateway.load(file) as gateway:
            assert [await ask(gateway) for _ in range(2)] == ["ok"] * 2
        assert [each.presented for each in provider.requests].count(KEYS["TEST_A"]) == 1, round_


async def test_for_scripts(file: Path, provider: FakeProvider, capsys: pytest.CaptureFixture[str]) -> None:
    now = time.time()
    store = SqliteStore(file.parent / "state.db", 100, 10**6, 1e6)
    await store.start()
    record = Record(
        "00000000",
        {
            "gpt-x": Cooldown(now, now + 90, "rate_limit", "slow down", 90.0),
            "": Cooldown(now, None, "auth", "no", None),
        },
        (Event(now, "cooling", "gpt-x", "rate_limit", "slow down", 90.0),),
        {"p": Counts(now, 4, 2, 1), "gone": Counts(now - 500, 6, 0, 7)},
    )
    store.put(record_key("pool", "a"), record.encode())
    await store.stop()
    code, out, _ = await run(capsys, "list", "--json", "--file", str(file))
    told = json.loads(out)["accounts"]
    assert code == 0 and [each["account"] for each in told] == ["a", "b", "c"]
    assert (told[0]["running"], told[0]["calls"], told[0]["errors"], told[0]["seen"]) == (1, 10, 2, True)
    assert [(each["model"], each["kind"], each["until"]) for each in told[0]["cooldowns"]] == [
        (None, "auth", None), ("gpt-x", "rate_limit", now + 90),
    ]  # fmt: skip
    assert (told[1]["cooldowns"], told[2]["off"]) == ([], "TEST_C is not set")
    _, out, _ = await run(capsys, "list", "--file", str(file))
    assert "parked until it is reset, auth" in out and "gpt-x: cooling until" in out
    code, out, _ = await run(capsys, "reset", "a", "--json", "--file", str(file))
    assert code == 0 and json.loads(out)["reset"] == ["pool/a"]
    _, out, _ = await run(capsys, "why", "a", "--json", "--file", str(file))
    (told,) = json.loads(out)["accounts"]
    assert told["cooldowns"] == [] and [each["what"] for each in told["events"]] == ["cooling"]


async def test_a_reset_is_a_later_word_than_the_one_before(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the clock did: that one may have been made an hour ahead of now."""
    store = SqliteStore(file.parent / "state.db", 100, 10**6, 1e6)
    ahead = time.time() + 3600
    await store.start()
    store.put(reset_key("pool", "a"), Reset(ahead).encode())
    await store.stop()
    assert (await run(capsys, "reset", "a", "--file", str(file)))[0] == 0
    await store.start()
    (found,) = await store.get([reset_key("pool", "a")])
    await store.stop()
    assert read_reset(found) > ahead


async def test_looking_makes_no_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = await run(capsys, "list", "--file", str(file))
    assert code == 0 and out.count("in use ") == 2
    assert not (file.parent / "state.db").exists()


async def test_what_is_in_memory_is_seen_by_nobody_else(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(file.read_text().replace("store: disk, ", "").replace("stores: {disk", "x-stores: {disk"))
    code, out, _ = await run(capsys, "list", "--file", str(file))
    assert code == 0 and out.count("in memory") == 4
    for action in ("why", "reset"):
        code, out, err = await run(capsys, action, "a", "--file", str(file))
        assert (code, out) == (1, "")
        assert "the accounts of pool are kept in memory, by the store default" in err and "only through a file" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["why", "nobody"], 'there is no account "nobody"; known are pool/a, pool/b, pool/c'),
        (["reset", "other/a"], 'there is no account "other/a"'),
    ],
)
async def test_no_such_account(file: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    code, out, err = await run(capsys, *words, "--file", str(file))
    assert (code, out) == (1, "") and said in err


async def test_a_file_of_another_kind(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "state.db").write_bytes(b"no database" * 1000)
    code, _, err = await run(capsys, "list", "--file", str(file))
    assert code == 1 and "cannot read the store" in err


async def test_rules_with_mistakes_and_without_accounts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("version: 1\nupstreams: {sim: {adapter: simulator}}\nroutes: [{name: a, to: sim}]\n")
    code, _, err = await run(capsys, "list", "--file", str(path))
    assert code == 1 and "no upstream in" in err
    path.write_text("version: 1\nroutes: 4\n")
    code, _, err = await run(capsys, "list", "--file", str(path))
    assert code == 1 and "E011" in err
