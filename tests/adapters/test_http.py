"""What goes to a provider over HTTP and what comes back: headers by allow-list, keys nowhere, odd answers refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ..fakes import openai_api
from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import KEY, FakeProvider
from ..fakes.script import Script, script
from ..server.house import CHAT, MESSAGES, body_of, serving

RULES = """
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY{more}}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY{more}}}
routes:
  - {{name: claude, match: {{model: "claude-*"}}, to: anthropic{loss}}}
  - {{name: rest, to: openai{loss}}}
"""
JSON = {"Content-Type": "application/json"}
MODELS = {"openai": "m", "anthropic": "claude-fake-4-5"}
PATHS = {"openai": CHAT, "anthropic": MESSAGES}
to_each = pytest.mark.parametrize("to", MODELS)
from_each = pytest.mark.parametrize("caller", PATHS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def rules(provider: FakeProvider, more: str = "", loss: str = "") -> str:
    return RULES.format(base=provider.base, more=more and f", {more}", loss=loss and f", loss: {loss}")


# --- the way out

NEVER = {
    "Cookie": "session=secret",
    "Authorization": f"Bearer {CALLER_KEY}",
    "Proxy-Authorization": "Basic c2VjcmV0",
    "X-Forwarded-For": "10.1.1.1",
    "X-Forwarded-Host": "inside",
    "X-Real-IP": "10.1.1.1",
    "Forwarded": "for=10.1.1.1",
    "Origin": "https://app.example",
    "Referer": "https://app.example/secret",
    "TE": "trailers",
    "Keep-Alive": "timeout=5",
    "Upgrade-Insecure-Requests": "1",
    "X-Custom": "private",
    "X-Stainless-Lang": "python",
    "User-Agent": "client/1",
    "Accept-Language": "de",
    "api-key": CALLER_KEY,
    "x-goog-api-key": CALLER_KEY,
}


@both
@from_each
@to_each
async def test_headers_that_never_pass(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, to: str, stream: bool
) -> None:
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(
            house.base + PATHS[caller], data=body_of(model=MODELS[to], stream=stream), headers={**JSON, **NEVER}
        )
        assert response.status == 200, await response.text()
    sent = provider.last.headers
    ours = {"Authorization": f"Bearer {KEY}"} if to == "openai" else {}
    for name, value in NEVER.items():
        assert sent.get(name) != value, name
        assert sent.get(name) in (None, ours.get(name), "headgate"), name
    assert sent["Host"] == provider.base.removeprefix("http://")
    assert sent["User-Agent"] == "headgate"
    assert sent["Accept-Encoding"] == "identity"
    assert sent["Accept"] == ("text/event-stream" if stream else "application/json")
    assert sent["Content-Type"] == "application/json"
    assert sent["x-request-id"] == response.headers["x-request-id"]
    assert int(sent["Content-Length"]) == len(provider.last.raw)
    assert len(set(sent.keys())) == len(sent)
    assert CALLER_KEY not in str(sent)


PASSES = [
    ("openai", "openai-organization", "org-1", True),
    ("openai", "openai-beta", "assistants=v2", True),
    ("openai", "idempotency-key", "abc", True),
    ("openai", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
    ("openai", "anthropic-beta", "x-2025", False),
    ("openai", "x-app", "cli", False),
    ("anthropic", "anthropic-beta", "context-1m-2025-08-07", True),
    ("anthropic", "x-app", "cli", True),
    ("anthropic", "x-claude-code-session-id", "s-1", True),
    ("anthropic", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
    ("anthropic", "openai-organization", "org-1", False),
]


@pytest.mark.parametrize(("to", "name", "value", "passes"), PASSES)
async def test_headers_that_pass(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, to: str, name: str, value: str, passes: bool
) -> None:
    async with serving(tmp_path, rules(provider)) as house:
        for _ in range(2):  # the second time from what the adapter has learnt
            response = await http.post(
                house.base + PATHS[to], data=body_of(model=MODELS[to]), headers={**JSON, name: value}
            )
            assert response.status == 200
            assert (provider.last.headers.get(name) == value) is passes


async def test_headers_of_the_rule_file(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_EXTRA", "from the environment")
    more = 'headers: {X-Extra: "env:TEST_EXTRA", User-Agent: mine, OpenAI-Organization: org-ours}'
    async with serving(tmp_path, rules(provider, more)) as house:
        await http.post(house.base + CHAT, data=body_of(), headers={**JSON, "X-Extra": "caller"})
    sent = provider.last.headers
    assert (sent["X-Extra"], sent["User-Agent"]) == ("from the environment", "mine")
    assert sent["OpenAI-Organization"] == "org-ours"


async def test_a_caller_does_not_overrule_the_rule_file(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    """Who pays is the operator's to say: a header that the rule file sets is not the caller's to change."""
    more = "headers: {OpenAI-Organization: org-ours}"
    async with serving(tmp_path, rules(provider, more)) as house:
        await http.post(house.base + CHAT, data=body_of(), headers={**JSON, "OpenAI-Organization": "org-theirs"})
    assert provider.last.headers.getall("OpenAI-Organization") == ["org-ours"]


VERSIONS: list[tuple[str, str | None, str]] = [
    ("anthropic", None, "2023-06-01"),
    ("anthropic", "2023-06-01", "2023-06-01"),
    ("anthropic", "2026-10-21", "2026-10-21"),
    ("openai", None, "2023-06-01"),
]


@pytest.mark.parametrize(("caller", "version", "sent"), VERSIONS)
async def test_the_version_of_anthropics_api(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, version: str | None, sent: str
) -> None:
    headers = JSON if version is None else {**JSON, "anthropic-version": version}
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(house.base + PATHS[caller], data=body_of(model=MODELS["anthropic"]), headers=headers)
        assert response.status == 200, await response.text()
    assert provider.last.headers.getall("anthropic-version") == [sent]


async def test_an_oauth_token_is_a_bearer(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.key = "sk-ant-oat01-abcdefgh"
    monkeypatch.setenv("TEST_PROVIDER_KEY", provider.key)
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(house.base + MESSAGES, data=body_of(model=MODELS["anthropic"]), headers=JSON)
        assert response.status == 200
    assert provider.last.headers["Authorization"] == f"Bearer {provider.key}"
    assert "x-api-key" not in provider.last.headers


QUERIES: list[tuple[str, dict[str, str]]] = [
    ("beta=true", {"beta": "true"}),
    ("beta=true&key=secret&x=a%20b%26c", {"beta": "true", "x": "a b&c"}),
    ("api_key=secret&api-key=secret&access_token=secret&token=secret", {}),
    ("KEY=secret&Api_Key=secret", {}),
    ("", {}),
]


@pytest.mark.parametrize(("query", "kept"), QUERIES)
async def test_queries(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, query: str, kept: dict[str, str]
) -> None:
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(f"{house.base}{MESSAGES}?{query}", data=body_of(model="claude-x"), headers=JSON)
        assert response.status == 200
        assert provider.last.query == kept
        # Another format's query means nothing to this provider.
        await http.post(f"{house.base}{MESSAGES}?{query}", data=body_of(model="m"), headers=JSON)
        assert provider.last.query == {}


@pytest.mark.parametrize("slash", ["", "/", "//"])
async def test_a_base_url_may_end_in_a_slash(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, slash: str
) -> None:
    text = rules(provider).replace(f"{provider.base}/v1", f"{provider.base}/v1{slash}")
    async with serving(tmp_path, text) as house:
        assert (await http.post(house.base + CHAT, data=body_of(), headers=JSON)).status == 200


# --- the way back


async def test_response_headers(tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    more = {
        "Set-Cookie": "a=b",
        "Server": "provider",
        "X-Internal": "secret",
        "Access-Control-Allow-Origin": "*",
        "Strict-Transport-Security": "max-age=1",
        "openai-version": "2020-10-01",
        "x-ratelimit-reset-tokens": "6m0s",
        "anthropic-priority-input-tokens-limit": "1",
        "retry-after": "3",
        "headgate-route": "forged",
        "headgate-upstream": "forged",
    }
    async with serving(tmp_path, rules(provider)) as house:
        for play in (script("x", headers=more), script(status=429, headers=more)):
            for stream in (False, True):
                provider.answer(play)
                response = await http.post(house.base + CHAT, data=body_of(stream=stream), headers=JSON)
                await response.read()
                for name in ("Set-Cookie", "X-Internal", "Access-Control-Allow-Origin", "Strict-Transport-Security"):
                    assert name not in response.headers
                assert response.headers["Server"] != "provider"
                for name in list(more)[5:9]:
                    assert response.headers.getall(name) == [more[name]]
                assert response.headers["headgate-route"] == "rest"
                assert response.headers["headgate-upstream"] == "openai"
                assert response.headers["headgate-upstream-request-id"] == provider.last.request_id
                assert response.headers.getall("x-request-id") == [provider.last.headers["x-request-id"]]


@to_each
async def test_the_providers_request_id(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, to: str
) -> None:
    """Under the name of its own API; what our callers' SDKs show is there in any case."""
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(house.base + PATHS[to], data=body_of(model=MODELS[to]), headers=JSON)
    name = "headgate-upstream-request-id" if to == "openai" else "request-id"
    assert response.headers[name] == provider.last.request_id


LOSSES: list[tuple[str, int, bool]] = [("report", 200, True), ("ignore", 200, False), ("refuse", 400, False)]


@pytest.mark.parametrize(("loss", "status", "named"), LOSSES)
async def test_the_loss_header(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, loss: str, status: int, named: bool
) -> None:
    async with serving(tmp_path, rules(provider, loss=loss)) as house:
        body = body_of(model=MODELS["anthropic"], logit_bias={"1": 1}, seed=7)
        response = await http.post(house.base + CHAT, data=body, headers=JSON)
        text = await response.text()
        assert response.status == status, text
        if named:
            assert {"logit_bias", "seed"} <= set(response.headers["headgate-loss"].split(", "))
        elif status == 200:
            assert "headgate-loss" not in response.headers
        else:
            assert "logit_bias" in text
        await http.post(house.base + MESSAGES, data=body_of(model=MODELS["anthropic"]), headers=JSON)
    assert len(provider.requests) == (1 if status == 400 else 2)


REDIRECTS = [301, 302, 303, 307, 308, 300, 304]


@both
@pytest.mark.parametrize("status", REDIRECTS)
async def test_redirects_are_not_followed(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, status: int, stream: bool
) -> None:
    """Another host must not get our key, nor the caller's words."""
    location = provider.base + "/v1/chat/completions?stolen=1"
    provider.answer(script(status=status, headers={"Location": location}, wire=b"" if status == 304 else None))
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(house.base + CHAT, data=body_of(stream=stream), headers=JSON, allow_redirects=False)
        assert response.status == 502
        assert "Location" not in response.headers
        message = (await response.json())["error"]["message"]
        assert "redirect" in message
        assert "stolen" not in message
    assert len(provider.requests) == 1


ECHOES: dict[str, Callable[[], Script]] = {
    "401": lambda: script(status=401, error_message=f"Incorrect API key provided: {KEY}."),
    "500 in HTML": lambda: script(status=500, wire=f"<html>{KEY}</html>".encode(), content_type="text/html"),
    "400 twice": lambda: script(status=400, error_message=f"{KEY} and {KEY}"),
    "an error inside a 200": lambda: script(
        wire=json.dumps({"error": {"message": f"bad key {KEY}", "code": 401}}).encode()
    ),
}


@from_each
@to_each
@pytest.mark.parametrize("name", ECHOES)
async def test_our_key_does_not_come_back(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    name: str,
    caller: str,
    to: str,
    log: pytest.LogCaptureFixture,
) -> None:
    provider.answer(ECHOES[name]())
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(house.base + PATHS[caller], data=body_of(model=MODELS[to]), headers=JSON)
        text = await response.text()
    assert response.status >= 400
    assert KEY not in text
    assert KEY not in log.text
    assert "error" in json.loads(text)


ODD: dict[str, tuple[bytes, str]] = {
    "HTML": (b"<!doctype html><title>Welcome</title>", "text/html"),
    "HTML that claims to be JSON": (b"<!doctype html>", "application/json"),
    "nothing": (b"", "application/json"),
    "nothing at all": (b"", ""),
    "text": (b"ok", "text/plain"),
    "half": (b'{"id": "x", "choices": [', "application/json"),
    "an array": (b"[]", "application/json"),
    "null": (b"null", "application/json"),
    "a string": (b'"hello"', "application/json"),
    "not UTF-8 inside": (b'{"id": "\xff\xfe", "choices": "x"', "application/json"),
    "deep": (b'{"a":' + b"[" * 100_000, "application/json"),
}


@both
@from_each
@to_each
@pytest.mark.parametrize("name", ODD)
async def test_answers_that_are_none(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, name: str, caller: str, to: str, stream: bool
) -> None:
    wire, content_type = ODD[name]
    provider.answer(script(wire=wire, content_type=content_type))
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(
            house.base + PATHS[caller], data=body_of(model=MODELS[to], stream=stream), headers=JSON
        )
        parsed = await response.json()
        assert response.status == 502, parsed
        assert (parsed.get("type") == "error") is (caller == "anthropic")
        assert len(parsed["error"]["message"]) < 300
        assert response.headers["headgate-error"] == "malformed"
        assert "Welcome" not in str(parsed)


@both
async def test_an_answer_in_the_other_framing(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, stream: bool
) -> None:
    """A stream for who asked for none, and the other way round: each caller gets what it asked for."""
    play = script("One two three")
    frames = b"".join(openai_api.frames(play, 1, "m", include_usage=True))
    wire, content_type = (
        (openai_api.whole(play, 1, "m"), "application/json") if stream else (frames, "text/event-stream")
    )
    provider.answer(script(wire=wire, content_type=content_type))
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(house.base + CHAT, data=body_of(stream=stream), headers=JSON)
        assert response.status == 200
        if stream:
            assert response.content_type == "text/event-stream"
            answer = await response.read()
            assert answer.endswith(b"data: [DONE]\n\n")
            text = "".join(
                json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                for line in answer.decode().splitlines()
                if line.startswith("data: {") and json.loads(line[6:])["choices"]
            )
        else:
            text = (await response.json())["choices"][0]["message"]["content"]
        assert text == "One two three"


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://user:pass@host/v1", ""])
def test_base_urls_that_cannot_be(url: str) -> None:
    from headgate.adapters.openai import OpenAIAdapter
    from headgate.gateway.chain import AdapterContext, Timeouts

    context: Any = AdapterContext("x", None, Timeouts(), base_url=url or "://")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="base_url"):
        OpenAIAdapter(OpenAIAdapter.Options(), context)
