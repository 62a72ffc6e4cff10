"""Virtual keys and tokens in front of a gateway: every format's way to show one, what it may be used for, and reloads."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from headgate.gateway.call import Call
from headgate.gateway.errors import AuthError, HouseError, PermissionDenied
from headgate.gateway.facts import Grant, Principal
from headgate.gateway.identity import book as book_module
from headgate.gateway.identity.database import KeyDatabase, Wanted
from headgate.gateway.identity.keys import digest_of
from headgate.gateway.identity.options import JwtRules
from headgate.gateway.relay.reply import Reply
from headgate.gateway.rules import RulesError
from headgate.gateway.server import passing_sockets
from headgate.gateway.server.gateway import Gateway
from headgate.middlewares.auth import Auth, AuthOptions, Key

from ..fakes.files_api import FilesProvider
from ..fakes.gateway import CALLER_KEY
from ..fakes.issuer import AUDIENCE, Issuer, make_key
from ..server.house import CHAT, MESSAGES, House, begin, body_of, load, serving, until
from ..server.test_standalone import free_port, serve

RULES = """
upstreams: {{sim: {{adapter: simulator, models: [gpt-a, gpt-b, claude-a]}}}}
chains:
  base: [{{auth: {{database: keys.db{more}}}}}, log]
routes:
  - {{name: closed, match: {{model: closed-a}}, chain: base, to: sim}}
  - {{name: open, chain: base, to: sim}}
"""
ANSWERS: dict[str, tuple[str, bytes, Callable[[str], dict[str, str]]]] = {
    "openai.chat": (CHAT, body_of(model="gpt-a"), lambda key: {"Authorization": f"Bearer {key}"}),
    "openai.responses": (
        "/v1/responses",
        json.dumps({"model": "gpt-a", "input": "Hi."}).encode(),
        lambda key: {"api-key": key},
    ),
    "anthropic.messages": (MESSAGES, body_of(model="gpt-a"), lambda key: {"x-api-key": key}),
    "gemini": (
        "/v1beta/models/gpt-a:generateContent",
        json.dumps({"contents": [{"parts": [{"text": "Hi."}]}]}).encode(),
        lambda key: {"x-goog-api-key": key},
    ),
    "ollama.chat": ("/api/chat", body_of(model="gpt-a"), lambda key: {"Authorization": f"Bearer {key}"}),
}
by_format = pytest.mark.parametrize("format", ANSWERS)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway looks at its keys more often than a test can wait."""
    init = book_module.KeyBook.__init__

    def hurried(self: Any, path: Path, *arguments: Any, **more: Any) -> None:
        init(self, path, *arguments, **{"look_every_s": 0.02, **more})

    monkeypatch.setattr(book_module.KeyBook, "__init__", hurried)


@pytest.fixture
def database(tmp_path: Path) -> KeyDatabase:
    return KeyDatabase(tmp_path / "keys.db")


def rules(more: str = "") -> str:
    return RULES.format(more=more)


def said(answer: Any) -> str:
    """The message of an error, in any format."""
    error = answer["error"]
    return str(error if isinstance(error, str) else error["message"])


async def ask(
    http: aiohttp.ClientSession, house: House, key: str, format: str = "openai.chat", **asked: Any
) -> tuple[int, Any]:
    path, body, show = ANSWERS[format]
    if asked:
        body = body_of(**asked)
    headers = {**show(key), "Content-Type": "application/json"}
    async with http.post(house.base + path, data=body, headers=headers) as response:
        text = await response.text()
        return response.status, json.loads(text.splitlines()[-1] if format == "ollama.chat" else text)


async def settled(http: aiohttp.ClientSession, house: House, key: str, status: int) -> Any:
    """Ask until the answer has ``status``."""
    async with asyncio.timeout(2):
        while (found := await ask(http, house, key))[0] != status:
            await asyncio.sleep(0.01)
    return found[1]


@by_format
async def test_every_format(tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession, format: str) -> None:
    good, late, gone = (database.create(Wanted(name)) for name in ("good", "late", "gone"))
    narrow = database.create(Wanted("narrow", models=("claude-*",)))
    database.rotate("late")
    database.revoke("gone")
    async with serving(tmp_path, rules()) as house:
        assert (await ask(http, house, good, format))[0] == 200
        for key, why in ((late, "replaced"), (gone, "revoked"), ("hg-unknown", "not known"), (good + "x", "not known")):
            status, answer = await ask(http, house, key, format)
            assert status == 401
            assert why in said(answer)
            assert key not in str(answer)
        status, answer = await ask(http, house, narrow, format)
        assert status == 403
        assert "'gpt-a'" in said(answer)


async def test_a_key_made_by_the_command_while_it_runs(
    tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession
) -> None:
    database.create(Wanted("first"))
    async with serving(tmp_path, rules()) as house:

        async def command(*arguments: str) -> str:
            running = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "headgate", "keys", *arguments, "--file", str(house.path), stdout=-1
            )
            out, _ = await running.communicate()
            assert running.returncode == 0
            return out.decode().strip()

        key = await command("create", "alice")
        await settled(http, house, key, 200)
        await command("revoke", "alice")
        assert "revoked" in said(await settled(http, house, key, 401))


async def test_changes_reach_every_gateway(tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession) -> None:
    database.create(Wanted("first"))
    async with serving(tmp_path, rules()) as one, serving(tmp_path, rules()) as two:
        key = database.create(Wanted("alice"))
        for house in (one, two):
            await settled(http, house, key, 200)
        newer = database.rotate("alice", grace_s=3600)
        for house in (one, two):
            await settled(http, house, newer, 200)
            assert (await ask(http, house, key))[0] == 200
        newest = database.rotate("alice")
        for house in (one, two):
            assert "replaced" in said(await settled(http, house, newer, 401))
            assert (await ask(http, house, key))[0] == 401
            await settled(http, house, newest, 200)
        database.revoke("alice")
        for house in (one, two):
            assert "revoked" in said(await settled(http, house, newest, 401))


async def test_what_a_key_may_be_used_for(tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession) -> None:
    key = database.create(Wanted("a", routes=("open",), models=("gpt-*", "closed-*")))
    async with serving(tmp_path, rules()) as house:
        for stream in (False, True):
            headers = {"Authorization": f"Bearer {key}"}
            response = await http.post(house.base + CHAT, data=body_of(model="gpt-a", stream=stream), headers=headers)
            assert response.status == 200
            await response.read()
            for model, named in (("closed-a", "route 'closed'"), ("claude-a", "model 'claude-a'")):
                status, answer = await ask(http, house, key, model=model, stream=stream)
                assert (status, answer["error"]["code"]) == (403, "permission")
                assert named in said(answer)


async def test_the_list_of_models(tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession) -> None:
    grants = {
        "all": (("*",), ("*",)),
        "gpt": (("*",), ("gpt-*",)),
        "open": (("open",), ("*",)),
        "closed": (("closed",), ("*",)),
        "both": (("closed",), ("gpt-*",)),
    }
    keys = {name: database.create(Wanted(name, None, "", (), *grant)) for name, grant in grants.items()}
    own = ["gpt-a", "gpt-b", "claude-a"]
    expected = {"all": ["closed-a", *own], "gpt": own[:2], "open": own, "closed": ["closed-a"], "both": []}
    async with serving(tmp_path, rules()) as house:
        for name, key in keys.items():
            headers = {"x-api-key": key}
            listed = await (await http.get(house.base + "/v1/models", headers=headers)).json()
            # An open route serves "closed-a" to nobody: the route before it takes that model.
            assert [each["id"] for each in listed["data"]] == expected[name], name
            told = await (await http.get(house.base + "/api/tags", headers=headers)).json()
            assert [each["name"] for each in told["models"]] == expected[name]
            for model in ("closed-a", *own):
                response = await http.get(f"{house.base}/v1/models/{model}", headers=headers)
                assert (response.status == 200) is (model in expected[name])
        assert (await http.get(house.base + "/v1/models", headers={"x-api-key": "hg-no"})).status == 401


async def test_a_call_that_names_no_model(
    tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is passed on may do anything with any model: that is for keys which may use them all."""
    monkeypatch.setenv("TEST_KEY", "sk-x")
    text = """
    upstreams: {openai: {adapter: openai, base_url: "http://127.0.0.1:9/v1", key: env:TEST_KEY, passthrough: true}}
    routes: [{name: all, match: {path: "/v1/*"}, chain: [{auth: {database: keys.db}}], to: openai}]
    """
    narrow, wide = database.create(Wanted("a", models=("gpt-*",))), database.create(Wanted("b"))
    async with serving(tmp_path, text) as house:
        response = await http.get(house.base + "/v1/files", headers={"Authorization": f"Bearer {narrow}"})
        assert response.status == 403
        assert "names none" in said(await response.json())
        response = await http.get(house.base + "/v1/files", headers={"Authorization": f"Bearer {wide}"})
        assert response.status == 502


async def test_a_database_that_goes_and_comes_back(
    tmp_path: Path,
    database: KeyDatabase,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(book_module, "TRUSTED_S", 0.1)
    monkeypatch.setenv("STATIC", "static-key-0000")
    key = database.create(Wanted("alice"))
    async with serving(tmp_path, rules(", keys: [{name: me, key: env:STATIC}]")) as house:
        await settled(http, house, key, 200)
        saved = database.path.read_bytes()
        database.path.unlink()
        answer = await settled(http, house, key, 503)
        assert "cannot be read" in said(answer)
        assert str(tmp_path) not in str(answer)
        assert (await ask(http, house, "hg-unknown"))[0] == 503
        assert (await ask(http, house, "sk-unknown"))[0] == 401
        assert (await ask(http, house, "static-key-0000"))[0] == 200
        database.path.write_bytes(saved)
        await settled(http, house, key, 200)
    caplog.clear()


async def test_a_gateway_starts_before_its_first_key(
    tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession
) -> None:
    async with serving(tmp_path, rules()) as house:
        assert (await ask(http, house, "hg-unknown"))[0] == 503
        await settled(http, house, database.create(Wanted("alice")), 200)


async def test_a_restart(tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession) -> None:
    key = database.create(Wanted("alice"))
    for _ in range(2):
        async with serving(tmp_path, rules()) as house:
            assert (await ask(http, house, key))[0] == 200


async def test_a_reload_goes_on_with_the_same_keys(
    tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession
) -> None:
    key = database.create(Wanted("alice"))
    async with serving(tmp_path, rules()) as house:
        assert (await ask(http, house, key))[0] == 200
        (before,) = [each for each in house.gateway.plan.members.values() if isinstance(each, Auth)]
        house.rewrite(rules(", keys: [{name: me, hash: 'sha256:" + "0" * 64 + "'}]"))
        await house.gateway.reload()
        (after,) = [each for each in house.gateway.plan.members.values() if isinstance(each, Auth)]
        assert after is not before
        assert after._book is before._book
        assert (await ask(http, house, key))[0] == 200
        database.revoke("alice")
        await settled(http, house, key, 401)
        other = KeyDatabase(tmp_path / "other.db").create(Wanted("bob"))
        house.rewrite(rules().replace("keys.db", "other.db"))
        await house.gateway.reload()
        assert (await ask(http, house, other))[0] == 200
    assert before._book is not None
    assert before._book._watching is None


async def test_calls_in_process(tmp_path: Path, database: KeyDatabase) -> None:
    key = database.create(Wanted("alice", models=("gpt-*",)))
    async with load(tmp_path, rules()) as gateway:
        assert isinstance(gateway, Gateway)
        reply = await gateway.handle("openai.chat", body_of(model="gpt-a"), {"authorization": f"Bearer {key}"})
        assert await reply.collect()
        for model, shown, kind in (("x", key, PermissionDenied), ("gpt-a", "hg-no", AuthError)):
            with pytest.raises(kind):
                await gateway.handle("openai.chat", body_of(model=model), {"authorization": f"Bearer {shown}"})


async def test_a_web_socket(tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession) -> None:
    """The key is asked at the handshake and again for each turn."""
    key = database.create(Wanted("alice", models=("gpt-*",)))
    async with serving(tmp_path, rules()) as house:
        url = house.base + "/v1/responses"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url, headers={"Authorization": "Bearer hg-no"})
        assert refused.value.status == 401
        async with http.ws_connect(url, headers={"Authorization": f"Bearer {key}"}) as socket:

            async def turn(model: str) -> Any:
                await socket.send_json({"type": "response.create", "model": model, "input": "Hi."})
                while True:
                    event = await socket.receive_json(timeout=5)
                    if event["type"] in ("response.completed", "error"):
                        return event

            assert (await turn("gpt-a"))["type"] == "response.completed"
            event = await turn("claude-a")
            assert (event["type"], event["status"]) == ("error", 403)
            database.revoke("alice")
            async with asyncio.timeout(2):
                while (event := await turn("gpt-a"))["type"] != "error":
                    await asyncio.sleep(0.01)
            assert "revoked" in said(event)


CHANGES: dict[str, tuple[Callable[[KeyDatabase], object], str]] = {
    "revoked": (lambda database: database.revoke("alice"), "revoked"),
    "replaced": (lambda database: database.rotate("alice"), "replaced"),
    "replaced a while ago": (lambda database: database.rotate("alice", grace_s=0.2), "replaced"),
}
by_change = pytest.mark.parametrize("change", CHANGES)


@by_change
async def test_what_runs_when_a_key_is_taken_back(tmp_path: Path, database: KeyDatabase, change: str) -> None:
    """A stream goes on to its end; the next call is refused, also over a connection that stands."""
    key = database.create(Wanted("alice"))
    take_back, why = CHANGES[change]
    async with serving(tmp_path, rules()) as house, aiohttp.ClientSession() as http:
        streams = [aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) for _ in range(3)]
        body, headers = body_of("/sim text a b c d\n/sim delay 200ms", model="gpt-a", stream=True), {"x-api-key": key}
        answers = [await each.post(house.base + CHAT, data=body, headers=headers) for each in streams]
        take_back(database)
        assert why in said(await settled(http, house, key, 401))
        assert all(not each.content.at_eof() for each in answers), "they still run"
        for session, answer in zip(streams, answers, strict=True):
            text = await answer.text()
            assert text.endswith("data: [DONE]\n\n")
            assert "error" not in text
            assert (await ask(session, house, key))[0] == 401
            await session.close()


async def test_what_every_worker_does_with_a_key_that_is_taken_back(tmp_path: Path, database: KeyDatabase) -> None:
    key = database.create(Wanted("alice"))
    port = free_port()
    house: Any = type("Address", (), {"base": f"http://127.0.0.1:{port}"})
    headers = {"x-api-key": key}
    text = "version: 1\nserver: {workers: 2}\n" + rules()
    async with serve(tmp_path, text, listen=f"127.0.0.1:{port}") as running, aiohttp.ClientSession() as http:
        await until(lambda: running.said.count(" serves ") == 2, 20)
        # A connection each, that stays: the kernel deals them out.
        standing = [aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) for _ in range(8)]
        for each in standing:
            assert (await ask(each, house, key))[0] == 200
        body = body_of("/sim text a b c d\n/sim delay 600ms", model="gpt-a", stream=True)
        streams = [await http.post(house.base + CHAT, data=body, headers=headers) for _ in range(8)]
        sockets = [await http.ws_connect(house.base + "/v1/responses", headers=headers) for _ in range(8)]
        database.revoke("alice")
        for each in standing:
            assert "revoked" in said(await settled(each, house, key, 401))
        for socket in sockets:
            for turn in ({}, {"generate": False}):
                await socket.send_json({"type": "response.create", "model": "gpt-a", "input": "Hi.", **turn})
            event = await socket.receive_json(timeout=5)
            assert (event["status"], "revoked" in said(event)) == (401, True)
            while not socket.closed:
                message = await socket.receive(timeout=5)
                assert message.type is not aiohttp.WSMsgType.TEXT or json.loads(message.data)["type"] == "error"
            assert socket.close_code == 1008
        for stream in streams:
            assert (await stream.text()).endswith("data: [DONE]\n\n")
        for each in standing:
            await each.close()


REALTIME = """
upstreams: {{openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, passthrough: true}}}}
chains: {{base: [{{auth: {{database: keys.db, keys: [{{name: me, key: env:TEST_CALLER_KEY}}]}}}}]}}
routes:
  - {{name: open, match: {{header.x-way: open}}, to: openai}}
  - {{name: closed, match: {{path: "/v1/*"}}, chain: base, to: openai}}
"""


@pytest.fixture
async def realtime(tmp_path: Path, database: KeyDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A gateway in front of a provider that has realtime sessions, and that provider."""
    monkeypatch.setattr(passing_sockets, "_LOOK_S", 0.02)
    async with FilesProvider() as provider, serving(tmp_path, REALTIME.format(base=provider.base)) as house:
        yield house, provider


async def goodbye(socket: Any) -> tuple[int, str]:
    """Code and reason with which a socket closes; an answer that was under way may come before."""
    async with asyncio.timeout(5):
        while (message := await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
            assert message.type is aiohttp.WSMsgType.TEXT
    return message.data, message.extra


@by_change
async def test_a_session_that_is_passed_on_ends_with_its_key(
    realtime: Any,
    database: KeyDatabase,
    http: aiohttp.ClientSession,
    change: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No turn of it is begun any more: nobody knows where in it one begins, so that all of it ends."""
    caplog.set_level("DEBUG")
    house, provider = realtime
    take_back, why = CHANGES[change]
    key, other = database.create(Wanted("alice")), database.create(Wanted("bob"))
    url = house.base + "/v1/realtime?model=x"
    for each in (key, other):
        await until_accepted(http, url, each)
    async with (
        http.ws_connect(url, headers={"x-api-key": other}, autoclose=False) as stays,
        http.ws_connect(url, protocols=["realtime", f"openai-insecure-api-key.{key}"], autoclose=False) as goes,
    ):
        await goes.send_str("a")
        assert [await goes.receive_str(), await goes.receive_str()][1] == "a"
        theirs = provider.sockets[-1]
        take_back(database)
        code, reason = await goodbye(goes)
        assert (code, why in reason) == (1008, True)
        assert f"a session is ended: this API key was {why}" in caplog.text
        assert key not in reason + "".join(each.getMessage() for each in caplog.records if "headgate" in each.name)
        await goes.close()
        await until(lambda: theirs.closed)
        await stays.receive_str()
        await stays.send_str("b")
        assert await stays.receive_str() == "b"
    await house.idle()


async def until_accepted(http: aiohttp.ClientSession, url: str, key: str) -> None:
    """Wait until a key is known."""
    async with asyncio.timeout(2):
        while True:
            try:
                await (await http.ws_connect(url, headers={"x-api-key": key})).close()
                return
            except aiohttp.WSServerHandshakeError:
                await asyncio.sleep(0.01)


async def test_a_session_goes_on_while_nobody_can_say(
    realtime: Any, database: KeyDatabase, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "TRUSTED_S", 0.1)
    house, _ = realtime
    key = database.create(Wanted("alice"))
    url, headers = house.base + "/v1/realtime?model=x", {"x-api-key": key}
    await until_accepted(http, url, key)
    async with http.ws_connect(url, headers=headers, autoclose=False) as socket:
        saved = database.path.read_bytes()
        database.path.unlink()
        async with asyncio.timeout(2):
            while (await http.get(house.base + "/v1/files", headers=headers)).status != 503:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await socket.receive_str()
        await socket.send_str("a")
        assert await socket.receive_str() == "a"
        database.path.write_bytes(saved)
        database.revoke("alice")
        assert (await goodbye(socket))[0] == 1008


@pytest.mark.parametrize("gone", ["key", "route"])
async def test_a_session_ends_with_the_rules_that_let_it_in(
    realtime: Any, http: aiohttp.ClientSession, gone: str
) -> None:
    """Who may call, the rules in force say; a session whose route they lack stays if any route would take its caller."""
    house, _ = realtime
    url, headers = house.base + "/v1/realtime?model=x", {"x-api-key": CALLER_KEY}
    before = house.path.read_text().removeprefix("version: 1\n")
    async with http.ws_connect(url, headers=headers, autoclose=False) as socket:
        without_open = before.replace("  - {name: open, match: {header.x-way: open}, to: openai}\n", "")
        house.rewrite(without_open.replace("name: closed", "name: renamed"))
        await house.gateway.reload()
        await asyncio.sleep(0.1)
        await socket.receive_str()
        await socket.send_str("a")
        assert await socket.receive_str() == "a"
        changed = before if gone == "key" else without_open.replace("name: closed", "name: renamed")
        house.rewrite(changed.replace("env:TEST_CALLER_KEY", "env:TEST_PROVIDER_KEY"))
        await house.gateway.reload()
        code, reason = await goodbye(socket)
        assert (code, "not known" in reason) == (1008, True)


async def test_a_key_in_a_url_is_in_no_log(
    tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = database.create(Wanted("alice"))
    body = ANSWERS["gemini"][1]
    async with serving(tmp_path, rules()) as house:
        for shown, path, status in (
            (key, "/v1beta/models/gpt-a:generateContent", 200),
            (key, "/v1beta/models/gpt-a:streamGenerateContent", 200),
            (key, "/v1beta/models/gpt-a:nonsense", 404),
            (key, "/v1beta/nowhere", 404),
            (key + "x", "/v1beta/models/gpt-a:generateContent", 401),
            (key, "/v1/chat/completions", 400),
        ):
            async with http.post(f"{house.base}{path}?key={shown}", data=body) as response:
                assert response.status == status, await response.text()
                assert key not in await response.text()
                assert key not in str(response.headers)
        async with http.get(f"{house.base}/v1beta/models?key={key}") as response:
            assert response.status == 200
        async with http.post(f"{house.base}/v1beta/models/gpt-a:generateContent?key={key}", data=b"{") as response:
            assert response.status == 400
    assert '"key":"alice"' in caplog.text, "the access log is there"
    ours = [each.getMessage() for each in caplog.records if each.name.startswith(("headgate", "aiohttp"))]
    assert key not in "\n".join(ours)


async def test_unknown_keys_cost_no_look(tmp_path: Path, database: KeyDatabase, call_of: Callable[..., Call]) -> None:
    database.create(Wanted("alice"))
    auth = Auth(AuthOptions(database=database.path))  # type: ignore[arg-type]
    assert auth._book is not None
    auth._book._look_every_s = 3600
    await auth.start()
    database.path.unlink()
    size = len(auth._book)
    for at in range(200):
        with pytest.raises(AuthError):
            await auth.identify(call_of({"x-api-key": f"hg-{at}"}))
    assert len(auth._book) == size
    await auth.stop()


# --- tokens, and several kinds at once


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as each:
        yield each


@by_format
async def test_tokens_in_every_format(tmp_path: Path, http: aiohttp.ClientSession, issuer: Issuer, format: str) -> None:
    KeyDatabase(tmp_path / "keys.db").create(Wanted("alice"))
    jwt = f", jwt: {{issuer: '{issuer.url}', audience: {AUDIENCE}, models: ['gpt-*'], claims: {{tenant: org}}}}"
    async with serving(tmp_path, rules(jwt)) as house:
        good = issuer.token(org="acme")
        for _ in range(2):
            status, answer = await ask(http, house, good, format)
            assert status == 200, answer
        for wrong, why in (
            (issuer.token(exp=1), "expired"),
            (issuer.token(aud="x"), "audience"),
            (issuer.token(make_key("one")), "not signed"),
            ("eyJhbGciOiJub25lIn0.e30.", "'none'"),
        ):
            status, answer = await ask(http, house, wrong, format)
            assert (status, why in said(answer)) == (401, True), answer
            assert wrong not in str(answer)
        assert (await ask(http, house, good, model="claude-a"))[0] == 403
        await house.gateway.reload()
        issuer.answer, asked = None, len(issuer.asked)
        assert (await ask(http, house, good, format))[0] == 200
        assert len(issuer.asked) == asked, "keys and tokens survive a reload"


async def test_other_rules_for_tokens_of_the_same_issuer(
    tmp_path: Path, http: aiohttp.ClientSession, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may use what changes at once, also while the issuer is away: its keys are known. What was checked is not."""
    KeyDatabase(tmp_path / "keys.db").create(Wanted("alice"))
    jwt = f", jwt: {{issuer: '{issuer.url}', audience: {AUDIENCE}, models: ['MODELS']}}"
    async with serving(tmp_path, rules(jwt.replace("MODELS", "gpt-*"))) as house:
        token = issuer.token()
        assert (await ask(http, house, token))[0] == 200
        issuer.answer = web.Response(status=500)
        house.rewrite(rules(jwt.replace("MODELS", "claude-*")))
        await house.gateway.reload()
        for each in (token, issuer.token(sub="bob")):
            assert (await ask(http, house, each))[0] == 403
            assert (await ask(http, house, each, model="claude-a"))[0] == 200
        house.rewrite(rules(jwt.replace("MODELS", "claude-*").replace(issuer.url, issuer.url + "/")))
        await house.gateway.reload()
        assert (await ask(http, house, token))[0] == 503
    caplog.clear()


class Time:
    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


async def served_as(auth: Auth, call: Call) -> Call:
    seen: list[Call] = []

    async def end(call: Call) -> Reply:
        seen.append(call)
        return Reply.pump(nothing(), call.scope)

    await auth(call, end)
    return seen[0]


async def nothing() -> Any:
    return
    yield


def hashed(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


async def test_static_keys_have_bounds_too(call_of: Callable[..., Call]) -> None:
    clock = Time()
    bounded = Key("a", hash=hashed("one"), routes=("route",), models=("m",), expires="2033-05-18T03:33:21Z")
    elsewhere = Key("b", hash=hashed("two"), routes=("other-*",))
    nowhere = Key("c", hash=hashed("three"), models=())
    auth = Auth(AuthOptions((bounded, elsewhere, nowhere)), clock)
    call = call_of({"x-api-key": "one"})
    assert (await served_as(auth, call)).principal == Principal("a", None, "a", (), Grant(("route",), ("m",)))
    for shown, why in (("two", "route 'route'"), ("three", "model 'm'")):
        with pytest.raises(PermissionDenied, match=why):
            await served_as(auth, call_of({"x-api-key": shown}))
    clock.now += 1
    for ask in (served_as(auth, call), auth.identify(call)):
        with pytest.raises(AuthError, match="has expired"):
            await ask
    clock.now -= 1  # a clock that goes back
    assert (await auth.identify(call)).key == "a"


async def test_a_token_expires_although_it_is_known(call_of: Callable[..., Call], issuer: Issuer) -> None:
    clock = Time()
    auth = Auth(AuthOptions(jwt=JwtRules(issuer=issuer.url, audience=AUDIENCE)), clock)
    await auth.start()
    now = int(clock.now)
    token = issuer.token(iat=now, exp=now + 100)
    call = call_of({"authorization": f"Bearer {token}"})
    seen = await served_as(auth, call)
    assert (seen.principal.key, seen.credential) == ("jwt:alice", token)
    assert auth._tokens is not None
    assert auth._tokens.find(digest_of(token)) is not None
    clock.now += 129
    await served_as(auth, call)
    for jump in (1, 10**9):
        clock.now += jump
        with pytest.raises(AuthError, match="token has expired"):
            await served_as(auth, call)
    await auth.stop()


async def test_without_a_start_nobody_is_let_in(database: KeyDatabase, call_of: Callable[..., Call]) -> None:
    key = database.create(Wanted("alice"))
    auth = Auth(AuthOptions(database=database.path))  # type: ignore[arg-type]
    with pytest.raises(HouseError):
        await served_as(auth, call_of({"x-api-key": key}))


async def test_what_is_carried_over(tmp_path: Path, issuer: Issuer) -> None:
    def made(path: str, **rules: Any) -> Auth:
        jwt = JwtRules(issuer=issuer.url, audience=AUDIENCE, **rules)
        return Auth(AuthOptions(database=str(tmp_path / path), jwt=jwt))  # type: ignore[arg-type]

    old, same, other = made("a.db"), made("a.db"), made("b.db", name="x")
    same.carry_over(old)
    other.carry_over(old)
    assert (same._book is old._book, same._tokens is old._tokens) == (True, True)
    assert (other._book is old._book, other._tokens is old._tokens) == (False, False)
    await old.start()
    await same.start()
    await old.stop()
    assert same._tokens is not None
    assert same._tokens.signers._watching is not None
    await same.stop()
    assert same._tokens.signers._watching is None
    keyless = Auth(AuthOptions((Key("a", hash=hashed("x")),)))
    keyless.carry_over(old)
    old.carry_over(keyless)


async def test_a_start_that_is_given_up_leaves_nothing(database: KeyDatabase, issuer: Issuer) -> None:
    issuer.stalls = asyncio.Event()
    jwt = JwtRules(issuer=issuer.url, audience=AUDIENCE)
    auth = Auth(AuthOptions(database=database.path, jwt=jwt))  # type: ignore[arg-type]
    starting = begin(auth.start())
    await until(lambda: issuer.asked)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert auth._book is not None
    assert auth._tokens is not None
    assert auth._book._watching is None
    assert (auth._tokens.signers._watching, auth._tokens.signers._looking) == (None, None)
    issuer.stalls.set()
    await auth.start()
    await auth.stop()


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joserfc", None)
    for name in ("tokens", "signers"):
        monkeypatch.delitem(sys.modules, f"headgate.gateway.identity.{name}", raising=False)
    text = """
        upstreams: {sim: {adapter: simulator}}
        routes: [{name: all, chain: [{auth: {jwt: {issuer: "https://a.example", audience: a}}}], to: sim}]
    """
    with pytest.raises(RulesError, match=r"headgate\[oidc\]"):
        load(tmp_path, text)


WRONG = [
    ("{database: ''}", "path"),
    ("{database: 7}", "database"),
    ("{keys: [{name: a, key: env:X, expires: soon}]}", "expires"),
    ("{keys: [{name: a, key: env:X, expires: 30d}]}", "expires"),
    ("{keys: [{name: a, key: env:X, routes: all}]}", "routes"),
    ("{jwt: {issuer: 'https://a.example'}}", "audience"),
    ("{jwt: {issuer: 'https://a.example', audience: a, algorithms: [none]}}", "algorithms"),
    ("{jwt: {issuer: 'https://a.example', audience: a, algorithms: [HS256]}}", "algorithms"),
    ("{jwt: {issuer: 'https://a.example', audience: a, algorithms: []}}", "algorithms"),
    ("{jwt: {issuer: 'https://a.example', audience: a, jwks_url: 'http://a.example/k'}}", "jwks_url"),
    ("{jwt: {issuer: 'https://a.example', audience: a, refresh: 1s}}", "refresh"),
    ("{jwt: {issuer: 'https://a.example', audience: a, claims: {user: sub}}}", "user"),
    ("{}", "keys, database or jwt"),
]


@pytest.mark.parametrize(("options", "why"), WRONG)
def test_mistakes_in_a_rule_file(tmp_path: Path, options: str, why: str) -> None:
    text = f"""
        upstreams: {{sim: {{adapter: simulator}}}}
        routes: [{{name: all, chain: [{{auth: {options}}}], to: sim}}]
    """
    with pytest.raises(RulesError, match=why) as caught:
        load(tmp_path, text)
    assert all(problem.line > 1 for problem in caught.value.problems)


def test_yaml_dates_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X", "x-secret-000")
    text = """
        upstreams: {sim: {adapter: simulator}}
        routes:
          - {name: all, to: sim, chain: [{auth: {database: sub/keys.db, keys: [{name: a, key: env:X, expires: "2033-01-01"}]}}]}
    """
    gateway = load(tmp_path, text)
    (auth,) = [each for each in gateway.plan.members.values() if isinstance(each, Auth)]
    assert auth.key_database == str(tmp_path / "sub" / "keys.db")
    (caller,) = auth._static.values()
    assert caller.expires == 1_988_150_400.0


async def test_many_at_once(tmp_path: Path, database: KeyDatabase, http: aiohttp.ClientSession) -> None:
    """Keys made by several at once are all known soon."""
    database.create(Wanted("first"))
    async with serving(tmp_path, rules()) as house:
        made = await asyncio.gather(
            *(asyncio.to_thread(database.create, Wanted(f"key {at}", tenant="one")) for at in range(12))
        )
        for key in made:
            await settled(http, house, key, 200)
        await until(lambda: house.gateway.in_flight == 0)
