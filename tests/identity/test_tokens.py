"""Tokens: what is let in and as whom; every way to forge one; and an issuer that rotates, stalls, lies, or is gone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from headgate.gateway.errors import AuthError, HouseError, PermissionDenied
from headgate.gateway.facts import Grant, Principal
from headgate.gateway.identity import signers as signers_module
from headgate.gateway.identity import tokens as module
from headgate.gateway.identity.keys import Caller, digest_of
from headgate.gateway.identity.options import ClaimNames, JwtRules, may_be_asked
from headgate.gateway.identity.signers import AGAIN_S, Signers
from headgate.gateway.identity.tokens import Tokens
from headgate.gateway.units import Duration, FilePath
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jws import JWSRegistry

from ..fakes.issuer import AUDIENCE, Issuer, make_key, sign
from ..server.house import begin

Maker = Callable[..., Any]


class Time:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as each:
        yield each


@pytest.fixture
def wall() -> Time:
    return Time(time.time())


@pytest.fixture
def steady() -> Time:
    return Time(5000.0)


@pytest.fixture
async def made(issuer: Issuer, wall: Time, steady: Time) -> AsyncIterator[Maker]:
    """Return a function that makes the tokens of some rules, and starts to look for their keys."""
    async with AsyncExitStack() as stack:

        async def make(deadline_s: float = 2.0, **rules: Any) -> Tokens:
            given = {"issuer": issuer.url, "audience": AUDIENCE, "jwks_url": issuer.jwks_url, **rules}
            decided = JwtRules(**given)
            tokens = Tokens(decided, wall, Signers(decided, steady, deadline_s))
            await tokens.signers.start()
            stack.push_async_callback(tokens.signers.stop)
            return tokens

        yield make


async def check(tokens: Tokens, token: str) -> Caller:
    return await tokens.check(token, digest_of(token))


async def test_a_good_token(issuer: Issuer, made: Maker) -> None:
    tokens = await made()
    ends = int(time.time()) + 600
    token = issuer.token(exp=ends)
    caller = await check(tokens, token)
    assert caller.principal == Principal("jwt:alice", None, "jwt:alice", (), None)
    assert caller.expires == ends + 30
    assert tokens.find(digest_of(token)) is caller
    assert issuer.asked == ["/keys"]


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "EdDSA"])
async def test_algorithms(issuer: Issuer, made: Maker, algorithm: str) -> None:
    issuer.keys = [make_key("that", algorithm), make_key("another", "ES256")]
    tokens = await made(algorithms=(algorithm,))
    assert (await check(tokens, issuer.token(None, algorithm))).principal.key == "jwt:alice"
    with pytest.raises(AuthError):
        await check(tokens, issuer.token(make_key("that", algorithm), algorithm)[:-8] + "AAAAAAAA")


async def test_claims_that_say_who(issuer: Issuer, made: Maker) -> None:
    names = ClaimNames("email", "groups.main", "https://acme.example/org", "scope")
    tokens = await made(claims=names, models=("gpt-*",), name="acme")
    more = {"email": "a@b.example", "groups": {"main": "red"}, "https://acme.example/org": 7, "scope": "x y"}
    caller = await check(tokens, issuer.token(**more))
    assert caller.principal == Principal("acme:a@b.example", "red", "7", ("x", "y"), Grant(("*",), ("gpt-*",)))
    caller = await check(tokens, issuer.token(**{**more, "scope": ["x", 1, "y\n", "z"], "groups": "red", "sub": None}))
    assert caller.principal.tags == ("x", "z")
    assert caller.principal.team is None
    caller = await check(tokens, issuer.token(**{**more, "https://acme.example/org": ""}))
    assert caller.principal.tenant == "acme:a@b.example"  # of nobody's but its own


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"iss": "https://evil.example"}, "another issuer"),
    "no issuer": ({"iss": None}, "another issuer"),
    "issuers": ({"iss": ["x"]}, "another issuer"),
    "another audience": ({"aud": "x"}, "another audience"),
    "other audiences": ({"aud": ["x", "y"]}, "another audience"),
    "no audience": ({"aud": None}, "another audience"),
    "an audience that is an object": ({"aud": {AUDIENCE: AUDIENCE}}, "another audience"),
    "audiences that are lists": ({"aud": [[AUDIENCE], {"x": AUDIENCE}, None, 1]}, "another audience"),
    "expired": ({"exp": int(time.time()) - 31}, "expired"),
    "no end": ({"exp": None}, "never expires"),
    "an end in words": ({"exp": "tomorrow"}, "no time"),
    "an end that is true": ({"exp": True}, "no time"),
    "before the flood": ({"exp": -(10**400)}, "expired"),
    "not yet": ({"nbf": int(time.time()) + 86400}, "not valid yet"),
    "not for ever": ({"nbf": 10**400}, "not valid yet"),
    "of tomorrow": ({"iat": int(time.time()) + 86400}, "not valid yet"),
    "of nobody": ({"sub": None}, "'sub'"),
    "of an empty name": ({"sub": ""}, "'sub'"),
    "of a list": ({"sub": ["alice"]}, "'sub'"),
    "of truth": ({"sub": True}, "'sub'"),
    "of a book": ({"sub": "x" * 257}, "'sub'"),
    "of two lines": ({"sub": "alice\nERROR"}, "'sub'"),
    "of a terminal": ({"sub": "alice\x1b[2J"}, "'sub'"),
    "of a paragraph": ({"sub": "alice\u2029"}, "'sub'"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_claims_that_are_wrong(issuer: Issuer, made: Maker, name: str) -> None:
    claims, why = WRONG[name]
    tokens = await made()
    token = issuer.token(**claims)
    with pytest.raises(AuthError, match=why) as caught:
        await check(tokens, token)
    assert caught.value.status == 401
    assert tokens.find(digest_of(token)) is None


async def test_leeway(issuer: Issuer, made: Maker, wall: Time) -> None:
    now = int(wall.now)
    tokens = await made(leeway=Duration(5))
    await check(tokens, issuer.token(exp=now - 4, nbf=now + 4))
    for late in ({"exp": now - 6}, {"nbf": now + 7}):
        with pytest.raises(AuthError):
            await check(tokens, issuer.token(**late))
    assert (await check(tokens, issuer.token(exp=10**400))).expires > 1e11


async def test_required_claims(issuer: Issuer, made: Maker) -> None:
    tokens = await made(require={"verified": True, "roles.gate": ("user", "admin")})
    good = {"verified": True, "roles": {"gate": ["guest", "user"]}}
    assert (await check(tokens, issuer.token(**good))).principal.key == "jwt:alice"
    for wrong in (
        {"verified": 1},
        {"verified": "true"},
        {"verified": None},
        {"roles": {"gate": "guest"}},
        {"roles": {"gate": None}},
        {"roles": "user"},
    ):
        with pytest.raises(PermissionDenied, match=r"verified|roles\.gate") as caught:
            await check(tokens, issuer.token(**{**good, **wrong}))
        assert caught.value.status == 403


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def forgeries(issuer: Issuer) -> dict[str, str]:
    good, claims, key = issuer.token(), issuer.claims(sub="root"), issuer.keys[0]
    head, _, signature = good.split(".")
    secret = json.dumps(key.as_dict(private=False)).encode()
    public = key.as_pem(private=False)
    mine = make_key("one")
    made = {
        "none": f"{part({'alg': 'none', 'kid': 'one'})}.{part(claims)}.",
        "None": f"{part({'alg': 'None', 'kid': 'one'})}.{part(claims)}.{signature}",
        "other claims": f"{head}.{part(claims)}.{signature}",
        "no signature": f"{head}.{good.split('.')[1]}.",
        "my key of that name": sign(mine, claims),
        "my key within": sign(mine, claims, jwk=mine.as_dict(private=False)),
        "my key elsewhere": sign(mine, claims, jku="https://evil.example/keys", x5u="https://evil.example/cert"),
        "a key without name": sign(make_key(None), claims),
        "critical": sign(key, claims, crit=["x-what"], **{"x-what": 1}),
        "unencoded": sign(key, claims, crit=["b64"], b64=True).replace(".", ".x", 1),
        "no object": sign_raw(key, b"[1]"),
        "no JSON": sign_raw(key, b"alice"),
        "no head": f"ey.{part(claims)}.{signature}",
        "a head that is a list": f"{part(['ES256'])}.{part(claims)}.{signature}",
        "a number as kid": f"{part({'alg': 'ES256', 'kid': 7})}.{part(claims)}.{signature}",
        "nested": part(b'{"x": ' + b"[" * 6000) + ".a.b",
        "another algorithm": f"{part({'alg': 'ES384', 'kid': 'one'})}.{part(claims)}.{signature}",
        "five parts": good + ".x.y",
        "letters": "eyé.ü.ß",
        "bytes": "ey\udcff.a.b",
    }
    for name, bytes_ in (("the key as JSON", secret), ("the key as PEM", public)):
        unsigned = f"{part({'alg': 'HS256', 'kid': 'one', 'typ': 'JWT'})}.{part(claims)}"
        made[name] = f"{unsigned}.{part(hmac.new(bytes_, unsigned.encode(), hashlib.sha256).digest())}"
    return made


def sign_raw(key: Any, payload: bytes) -> str:
    text = f"{part({'alg': 'ES256', 'kid': 'one'})}.{part(payload)}"
    return f"{text}.{part(JWSRegistry.algorithms['ES256'].sign(text.encode(), key))}"


async def test_forgeries(issuer: Issuer, made: Maker) -> None:
    tokens = await made()
    for name, token in (await forgeries(issuer)).items():
        with pytest.raises(AuthError) as caught:
            await check(tokens, token)
        assert "root" not in str(caught.value), name
        assert tokens.find(digest_of(token)) is None
    assert set(issuer.asked) == {"/keys"}


async def test_keys_that_are_not_for_this(issuer: Issuer, made: Maker) -> None:
    """Of a set, only public keys for signatures count: no secret that somebody put there, no key to encrypt with."""
    key, weak = make_key("one"), make_key("rsa", "RS256").as_dict(private=False)
    told = key.as_dict(private=False)
    keys = [
        {"kty": "oct", "k": part(b"x" * 32), "kid": "one"},
        {**told, "use": "enc"},
        {**told, "key_ops": ["encrypt"]},
        {**told, "alg": "ES384"},
        {"kty": "lattice", "kid": "one"},
        {"kid": "one"},
        {**told, "x": "!"},
        {**weak, "kid": "weak", "n": part(b"\xc5" * 64)},
        7,
    ]
    issuer.answer = web.json_response({"keys": keys[:-1]})
    tokens = await made()
    for token in (issuer.token(key), issuer.token(make_key("weak", "RS256"), "RS256")):
        with pytest.raises(AuthError):
            await check(tokens, token)
    assert len(tokens.signers._keys) == 1  # the one for ES384, with which nobody signs here


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@cache
def announced(kind: str) -> dict[str, Any]:
    """A public key of each kind."""
    return dict(make_key("a", {"EC": "ES256", "OKP": "EdDSA", "RSA": "RS256"}[kind]).as_dict(private=False))


@given(
    st.dictionaries(st.sampled_from(["kty", "kid", "alg", "use", "key_ops", "n", "e", "crv", "x", "y", "k"]), JSON),
    st.sampled_from(["RSA", "EC", "OKP", None]),
)
@settings(max_examples=100, deadline=None)
def test_keys_of_any_shape(odd: dict[str, Any], kind: str | None) -> None:
    """An issuer may announce anything: it is no key then."""
    signers_module._public_key({**({} if kind is None else announced(kind)), **odd})


async def test_a_token_that_names_no_key(issuer: Issuer, made: Maker) -> None:
    key = make_key(None)
    issuer.keys = [key, make_key("rsa", "RS256")]
    issuer.answer = web.json_response(
        {"keys": [{k: v for k, v in each.as_dict(private=False).items() if k != "kid"} for each in issuer.keys]}
    )
    tokens = await made()
    unnamed = make_key(None)
    token = sign(key, issuer.claims())
    assert (await check(tokens, token)).principal.key == "jwt:alice"
    with pytest.raises(AuthError):
        await check(tokens, sign(unnamed, issuer.claims()))
    issuer.answer = web.json_response({"keys": [each.as_dict(private=False) for each in (key, make_key("two"))]})
    await tokens.signers.look()
    with pytest.raises(AuthError, match="kid"):
        await check(tokens, token)


async def test_rotation(issuer: Issuer, made: Maker, steady: Time) -> None:
    tokens = await made()
    before = issuer.token()
    await check(tokens, before)
    issuer.keys = [make_key("two")]
    steady.now += AGAIN_S
    fresh = [issuer.token(sub=f"user {at}") for at in range(20)]
    callers = await asyncio.gather(*(check(tokens, token) for token in fresh))
    assert [caller.principal.key for caller in callers] == [f"jwt:user {at}" for at in range(20)]
    assert issuer.asked == ["/keys"] * 2, "twenty callers cost one look"
    assert tokens.find(digest_of(before)) is None, "the key was taken back"
    with pytest.raises(AuthError, match="not its issuer's"):
        await check(tokens, before)


async def test_another_key_by_the_same_name(issuer: Issuer, made: Maker, steady: Time) -> None:
    """Names of keys should not be used again; of an issuer that does so, the new key is found as fast as any."""
    tokens = await made()
    before = issuer.token()
    await check(tokens, before)
    issuer.keys = [make_key("one")]
    with pytest.raises(AuthError, match="not signed by its issuer"):
        await check(tokens, issuer.token())
    steady.now += AGAIN_S
    fresh = [issuer.token(sub=f"user {at}") for at in range(20)]
    callers = await asyncio.gather(*(check(tokens, token) for token in fresh))
    assert [caller.principal.key for caller in callers] == [f"jwt:user {at}" for at in range(20)]
    for _ in range(3):
        with pytest.raises(AuthError, match="not signed by its issuer"):
            await check(tokens, before)
    assert issuer.asked == ["/keys"] * 2


async def test_unknown_keys_cost_one_look_at_a_time(issuer: Issuer, made: Maker, steady: Time) -> None:
    tokens = await made()
    steady.now += AGAIN_S
    for at in range(10):
        with pytest.raises(AuthError):
            await check(tokens, issuer.token(make_key(f"unknown {at}")))
    assert len(issuer.asked) == 2
    steady.now += AGAIN_S
    with pytest.raises(AuthError):
        await check(tokens, issuer.token(make_key("unknown")))
    assert len(issuer.asked) == 3


BROKEN: dict[str, web.Response] = {
    "an error": web.Response(status=500),
    "garbage": web.Response(body=b"<html>"),
    "nothing": web.Response(body=b""),
    "no keys": web.json_response({"keys": []}),
    "another shape": web.json_response({"keys": {"one": 1}}),
    "too much": web.Response(body=b'{"keys": [' + b" " * 300_000 + b"]}"),
    "a redirect": web.Response(status=302, headers={"location": "http://169.254.169.254/keys"}),
    "deep": web.Response(body=b'{"keys": ' + b"[" * 100_000),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_an_issuer_that_is_broken(
    issuer: Issuer, made: Maker, steady: Time, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Known keys stay good; without any nobody is let in, until it is mended."""
    tokens = await made()
    other = issuer.token()
    issuer.answer = BROKEN[name]
    later = await made()
    for _ in range(3):
        await tokens.signers.look()
        await later.signers.look()
    assert (await check(tokens, other)).principal.key == "jwt:alice"
    with pytest.raises(HouseError, match="cannot be had") as caught:
        await check(later, other)
    assert caught.value.status == 503
    assert (caught.value.retry_after_s or 0) > 0
    issuer.answer = None
    steady.now += AGAIN_S
    assert (await check(later, other)).principal.key == "jwt:alice"
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 2, "once each, not at every look"
    assert sum("1 known before stay" in each for each in said) == 1
    caplog.clear()


async def test_an_issuer_that_stalls(issuer: Issuer, made: Maker, steady: Time) -> None:
    tokens = await made()
    known = issuer.token()
    issuer.stalls = asyncio.Event()
    steady.now += AGAIN_S
    tokens.signers._bounds.timeout = 0.1
    strangers = [begin(check(tokens, issuer.token(make_key(f"n{at}")))) for at in range(5)]
    await asyncio.sleep(0.02)
    assert (await check(tokens, known)).principal.key == "jwt:alice", "who is known does not wait"
    for each in await asyncio.gather(*strangers, return_exceptions=True):
        assert isinstance(each, AuthError)
    assert len(issuer.asked) == 2


async def test_a_stall_at_the_start_ends_in_time(issuer: Issuer, made: Maker) -> None:
    issuer.stalls = asyncio.Event()
    tokens = await made(deadline_s=0.05)
    with pytest.raises(HouseError):
        await check(tokens, issuer.token())


async def test_who_leaves_does_not_end_the_look_of_others(issuer: Issuer, made: Maker, steady: Time) -> None:
    tokens = await made()
    issuer.keys = [make_key("two")]
    issuer.stalls = asyncio.Event()
    steady.now += AGAIN_S
    first = begin(check(tokens, issuer.token()))
    second = begin(check(tokens, issuer.token(sub="bob")))
    await asyncio.sleep(0.02)
    first.cancel()
    await asyncio.sleep(0)
    issuer.stalls.set()
    assert (await second).principal.key == "jwt:bob"
    assert first.cancelled()


async def test_an_end_in_the_middle_of_a_look(issuer: Issuer) -> None:
    rules = JwtRules(issuer=issuer.url, audience=AUDIENCE)
    tokens = Tokens(rules)
    issuer.stalls = asyncio.Event()
    starting = begin(tokens.signers.start())
    await asyncio.sleep(0.05)
    starting.cancel()
    await asyncio.sleep(0)
    await tokens.signers.left()
    assert starting.cancelled()
    assert tokens.signers._looking is None


async def test_discovery(issuer: Issuer, made: Maker) -> None:
    tokens = await made(jwks_url=None)
    assert (await check(tokens, issuer.token())).principal.key == "jwt:alice"
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    "told",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "http://10.0.0.1/keys"},
        {"jwks_uri": 7},
        {"jwks_uri": "file:///x"},
    ],
)
async def test_discovery_that_lies(
    issuer: Issuer, made: Maker, told: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    issuer.told = told
    tokens = await made(jwks_url=None)
    with pytest.raises(HouseError):
        await check(tokens, issuer.token())
    assert "/keys" not in issuer.asked
    caplog.clear()


async def test_discovery_says_which_issuer_it_is(issuer: Issuer, made: Maker, caplog: pytest.LogCaptureFixture) -> None:
    """A slash at the end is one of the letters that an issuer is compared by: who forgot it can read that in the log."""
    tokens = await made(issuer=issuer.url + "/", jwks_url=None)
    with pytest.raises(HouseError):
        await check(tokens, issuer.token(iss=issuer.url + "/"))
    assert issuer.asked[0] == "/.well-known/openid-configuration", "one slash between them"
    assert f"another issuer, '{issuer.url}'" in caplog.text
    caplog.clear()
    issuer.told = {"issuer": issuer.url + "/"}
    tokens = await made(issuer=issuer.url + "/", jwks_url=None)
    assert (await check(tokens, issuer.token(iss=issuer.url + "/"))).principal.key == "jwt:alice"
    with pytest.raises(AuthError, match="another issuer"):
        await check(tokens, issuer.token())


async def test_a_set_with_many_keys_of_other_kinds(issuer: Issuer, made: Maker) -> None:
    """What cannot sign a token takes no room of those that can."""
    odd = [{"kty": "oct", "k": "eHg", "kid": f"odd {at}"} for at in range(signers_module.MAX_KEYS)]
    issuer.answer = web.json_response({"keys": [*odd, *issuer.key_set()["keys"]]})
    assert (await check(await made(), issuer.token())).principal.key == "jwt:alice"
    one = issuer.keys[0].as_dict(private=False)
    many = [{**one, "kid": f"key {at}"} for at in range(signers_module.MAX_KEYS + 1)]
    issuer.answer = web.json_response({"keys": many})
    assert len((await made()).signers._keys) == signers_module.MAX_KEYS


async def test_a_file_of_keys(issuer: Issuer, made: Maker, tmp_path: Path, steady: Time) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(issuer.key_set()))
    tokens = await made(jwks_url=None, jwks=FilePath(path))
    before = issuer.token()
    assert (await check(tokens, before)).principal.key == "jwt:alice"
    issuer.keys = [make_key("two")]
    path.write_text(json.dumps(issuer.key_set()))
    steady.now += AGAIN_S
    assert (await check(tokens, issuer.token(sub="bob"))).principal.key == "jwt:bob"
    assert issuer.asked == []
    path.unlink()
    await tokens.signers.look()
    assert (await check(tokens, issuer.token(sub="eve"))).principal.key == "jwt:eve"
    path.write_bytes(b" " * 300_000)
    await tokens.signers.look()
    assert len(tokens.signers._keys) == 1


async def test_it_is_looked_up_again_by_itself(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signers_module, "AGAIN_S", 0.02)
    issuer.answer = BROKEN["an error"]
    rules = JwtRules(issuer=issuer.url, audience=AUDIENCE, jwks_url=issuer.jwks_url)
    tokens = Tokens(rules)
    await tokens.signers.start()
    issuer.answer = None
    async with asyncio.timeout(2):
        while not tokens.signers._keys:
            await asyncio.sleep(0.005)
    await tokens.signers.stop()


async def test_only_so_many_are_remembered(issuer: Issuer, made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 3)
    tokens = await made()
    shown = [issuer.token(sub=f"user {at}") for at in range(5)]
    for token in shown:
        await check(tokens, token)
    assert [tokens.find(digest_of(token)) is not None for token in shown] == [False, False, True, True, True]
    assert len(tokens) == 3


RULES: list[tuple[dict[str, Any], str]] = [
    ({"audience": ()}, "audience"),
    ({"audience": ""}, "audience"),
    ({"jwks": FilePath("x")}, "two places"),
    ({"jwks_url": "http://idp.example/keys"}, "jwks_url must begin"),
    ({"jwks_url": "ftp://localhost/keys"}, "jwks_url must begin"),
    ({"jwks_url": None, "issuer": "acme"}, "issuer must begin"),
    ({"refresh": Duration(1)}, "refresh"),
]


@pytest.mark.parametrize(("wrong", "why"), RULES)
def test_rules_that_are_wrong(wrong: dict[str, Any], why: str) -> None:
    given = {"issuer": "https://idp.example", "audience": "a", "jwks_url": "https://idp.example/keys", **wrong}
    with pytest.raises(ValueError, match=why):
        JwtRules(**given)


def test_who_may_be_asked() -> None:
    for good in ("https://idp.example", "http://localhost:1/x", "http://127.8.9.1/", "http://[::1]/"):
        assert may_be_asked(good)
    for bad in (
        "http://idp.example",
        "http://127.0.0.1.evil.example/",
        "https://",
        "x",
        "http://[",
        "http://localhost.x/",
    ):
        assert not may_be_asked(bad)
