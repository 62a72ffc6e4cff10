"""Who may call, however the client spells its key; and where that key goes afterwards: nowhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway.call import Call, Principal, presented_key
from headgate.gateway.errors import AuthError
from headgate.gateway.relay.reply import Reply
from headgate.gateway.rules import RulesError
from headgate.gateway.units import MissingSecret, Secret
from headgate.middlewares.auth import Auth, AuthOptions, Key

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import KEY, FakeProvider
from ..server.house import CHAT, MESSAGES, body_of, load, serving

SPELLINGS: dict[str, dict[str, str]] = {
    "bearer": {"Authorization": f"Bearer {CALLER_KEY}"},
    "bearer in lower case": {"authorization": f"bearer {CALLER_KEY}"},
    "bearer with blanks": {"Authorization": f"Bearer   {CALLER_KEY}  "},
    "x-api-key": {"X-Api-Key": CALLER_KEY},
    "api-key": {"api-key": CALLER_KEY},
    "x-goog-api-key": {"x-goog-api-key": CALLER_KEY},
    "two alike": {"x-api-key": CALLER_KEY, "Authorization": f"Bearer {CALLER_KEY}"},
    "an empty bearer beside it": {"x-api-key": CALLER_KEY, "Authorization": "Bearer "},
    "an empty header beside it": {"x-api-key": CALLER_KEY, "api-key": ""},
}
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "none": ({}, "no API key"),
    "an empty one": ({"x-api-key": ""}, "no API key"),
    "an empty bearer": ({"Authorization": "Bearer "}, "no API key"),
    "bearer alone": ({"Authorization": "Bearer"}, "no API key"),
    "another": ({"x-api-key": CALLER_KEY + "x"}, "not known"),
    "a shorter one": ({"x-api-key": CALLER_KEY[:-1]}, "not known"),
    "in upper case": ({"x-api-key": CALLER_KEY.upper()}, "not known"),
    "basic": ({"Authorization": f"Basic {CALLER_KEY}"}, "must be 'Bearer'"),
    "no scheme": ({"Authorization": CALLER_KEY}, "must be 'Bearer'"),
    "two": ({"x-api-key": CALLER_KEY, "Authorization": "Bearer other"}, "two different"),
    "in another header": ({"x-key": CALLER_KEY}, "no API key"),
    "the digest": ({"x-api-key": hashlib.sha256(CALLER_KEY.encode()).hexdigest()}, "not known"),
    "the digest as written": ({"x-api-key": "sha256:" + hashlib.sha256(CALLER_KEY.encode()).hexdigest()}, "not known"),
    "the reference": ({"x-api-key": "env:TEST_CALLER_KEY"}, "not known"),
}
RULES = """
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
  passing: {{adapter: openai, base_url: "{base}/v1", credential: pass-through}}
  passing-claude: {{adapter: anthropic, base_url: "{base}", credential: pass-through}}
chains:
  guarded: [{{auth: {{keys: [{{name: me, key: env:TEST_CALLER_KEY}}, {{name: own, key: env:TEST_PROVIDER_KEY}}]}}}}]
routes:
  - {{name: passing, match: {{model: passing}}, to: passing}}
  - {{name: passing-claude, match: {{model: passing-claude}}, to: passing-claude}}
  - {{name: guarded-passing, match: {{model: guarded-passing}}, chain: guarded, to: passing}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: guarded, to: anthropic}}
  - {{name: all, chain: guarded, to: openai}}
"""


async def _post(
    http: aiohttp.ClientSession, url: str, headers: dict[str, str], model: str = "m"
) -> aiohttp.ClientResponse:
    return await http.post(url, data=body_of(model=model), headers={**headers, "Content-Type": "application/json"})


@pytest.mark.parametrize("name", SPELLINGS)
async def test_a_known_key(tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, name: str) -> None:
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        for path in (CHAT, MESSAGES):
            for model in ("m", "claude-fake-4-5"):
                response = await _post(http, house.base + path, SPELLINGS[name], model)
                assert response.status == 200, await response.text()
                assert CALLER_KEY not in str(provider.last.headers)
                assert CALLER_KEY not in provider.last.raw.decode()


@pytest.mark.parametrize("name", REFUSED)
async def test_an_unknown_key(tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, name: str) -> None:
    headers, why = REFUSED[name]
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        for path in (CHAT, MESSAGES):
            response = await _post(http, house.base + path, headers)
            assert response.status == 401
            parsed = await response.json()
            assert why in parsed["error"]["message"]
            assert CALLER_KEY not in str(parsed)
            assert (parsed.get("type") == "error") is (path == MESSAGES)
    assert provider.requests == []


async def test_what_was_seen_of_callers_lets_nobody_else_in(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    """In one gateway, in any order: a header that stood beside a good key is not a good one for that."""
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        for _ in range(2):
            for headers in SPELLINGS.values():
                assert (await _post(http, house.base + CHAT, headers)).status == 200
            for name, (headers, why) in REFUSED.items():
                response = await _post(http, house.base + CHAT, headers)
                assert response.status == 401, name
                assert why in await response.text()


@pytest.mark.parametrize("model", ["passing", "passing-claude", "guarded-passing"])
async def test_pass_through(tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, model: str) -> None:
    """The provider sees the caller's key, spelled its own way, whether or not somebody here knows it."""
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        for headers in ({"x-goog-api-key": KEY}, {"Authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
            response = await _post(http, house.base + MESSAGES, headers, model)
            assert response.status == 200, await response.text()
            sent = provider.last.headers
            assert (sent.get("x-api-key") == KEY) is ("claude" in model)
            assert (sent.get("Authorization") == f"Bearer {KEY}") is ("claude" not in model)
            assert "x-goog-api-key" not in sent


async def test_pass_through_of_a_key_that_the_provider_refuses(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    provider.expected_refusals = ["Incorrect API key provided.", "You didn't provide an API key."]
    async with serving(tmp_path, RULES.format(base=provider.base)) as house:
        for headers in ({"x-api-key": "sk-nobody"}, {}):
            response = await _post(http, house.base + CHAT, headers, "passing")
            assert response.status == 401
            assert "sk-nobody" not in await response.text()


# --- without a server


def options_of(*keys: Key) -> AuthOptions:
    return AuthOptions(keys)


def digest(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


async def _served_as(auth: Auth, call: Call) -> Call:
    seen: list[Call] = []

    async def end(call: Call) -> Reply:
        seen.append(call)
        return Reply.pump(aiter_of(), call.scope)

    await auth(call, end)
    return seen[0]


async def aiter_of() -> Any:
    return
    yield


async def test_principals(call_of: Callable[..., Call]) -> None:
    auth = Auth(
        options_of(
            Key("plain", hash=digest("one")),
            Key("full", hash=digest("two"), team="research", tenant="acme", tags=("a", "b")),
        )
    )
    seen = await _served_as(auth, call_of({"x-api-key": "one"}))
    assert seen.principal == Principal("plain", None, "plain", ())
    assert seen.credential == "one"
    seen = await _served_as(auth, call_of({"x-api-key": "two"}))
    assert seen.principal == Principal("full", "research", "acme", ("a", "b"))
    assert await auth.identify(call_of({"api-key": "two"})) == seen.principal
    for wrong in ("", "three", digest("one")):
        with pytest.raises(AuthError):
            await _served_as(auth, call_of({"x-api-key": wrong}))
        with pytest.raises(AuthError):
            await auth.identify(call_of({"x-api-key": wrong}))


async def test_the_original_call_stays_as_it_was(call_of: Callable[..., Call]) -> None:
    call = call_of({"x-api-key": "one"})
    await _served_as(Auth(options_of(Key("a", hash=digest("one")))), call)
    assert call.credential is None
    assert call.principal.key == "anonymous"


async def test_keys_with_any_letters(call_of: Callable[..., Call]) -> None:
    auth = Auth(options_of(Key("umlaut", hash=digest("schlüssel"))))
    assert (await auth.identify(call_of({"x-api-key": "schlüssel"}))).key == "umlaut"
    with pytest.raises(AuthError):
        await auth.identify(call_of({"x-api-key": "schl\udcfcssel"}))  # as aiohttp hands on what is not UTF-8


async def test_an_unset_optional_key_lets_nobody_in(call_of: Callable[..., Call], unset: str) -> None:
    auth = Auth(options_of(Key("ghost", key=Secret(f"env:{unset}?"))))
    for value in ("", "None", "?", f"env:{unset}?", unset):
        with pytest.raises(AuthError):
            await auth.identify(call_of({"x-api-key": value}))


def test_a_missing_key_is_a_mistake(unset: str) -> None:
    with pytest.raises(MissingSecret, match=unset):
        Auth(options_of(Key("ghost", key=Secret(f"env:{unset}"))))


TWICE = [
    (Key("a", hash=digest("x")), Key("b", hash=digest("x"))),
    (Key("a", key=Secret("env:TEST_CALLER_KEY")), Key("b", hash=digest(CALLER_KEY))),
    (Key("a", key=Secret("env:TEST_CALLER_KEY")), Key("b", key=Secret("env:TEST_CALLER_KEY"))),
]


@pytest.mark.parametrize("keys", TWICE)
def test_the_same_secret_twice(keys: tuple[Key, ...]) -> None:
    with pytest.raises(ValueError, match="'a' and 'b' are the same secret") as caught:
        Auth(options_of(*keys))
    assert CALLER_KEY not in str(caught.value)


@pytest.mark.parametrize("key", [Key("a"), Key("a", key=Secret("env:TEST_CALLER_KEY"), hash=digest("x"))])
def test_a_key_has_one_spelling(key: Key) -> None:
    with pytest.raises(ValueError, match="'a' needs either key"):
        Auth(options_of(key))


WRONG = [
    "keys: []",
    "keys: [{name: a, key: sk-the-secret-itself-0123}]",
    "keys: [{name: '', key: env:TEST_CALLER_KEY}]",
    "keys: [{name: a, hash: 'sha256:abc'}]",
    "keys: [{name: a, hash: 'md5:0123456789abcdef0123456789abcdef'}]",
    "keys: [{key: env:TEST_CALLER_KEY}]",
    "keys: [{name: a, key: env:TEST_CALLER_KEY, admin: true}]",
    "",
]


@pytest.mark.parametrize("options", WRONG)
def test_mistakes_in_a_rule_file(tmp_path: Path, options: str) -> None:
    text = f"""
        upstreams: {{sim: {{adapter: simulator}}}}
        routes: [{{name: all, chain: [{{auth: {{{options}}}}}], to: sim}}]
    """
    with pytest.raises(RulesError) as caught:
        load(tmp_path, text)
    assert "sk-the-secret" not in str(caught.value)


def test_two_keys_are_no_key() -> None:
    with pytest.raises(AuthError):
        presented_key({"x-api-key": "a", "x-goog-api-key": "b"})
    assert presented_key({"x-api-key": "a", "x-goog-api-key": "a"}) == "a"
    assert presented_key({}) is None
