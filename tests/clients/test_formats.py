"""Every official SDK, unmodified, against a provider of every format: words, a call, refusals, a stream that breaks."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
from aiohttp import web
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.server.handlers import make_server

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import KEY, FakeProvider
from ..fakes.script import Tokens, Use, script
from .voices import CALLERS, WITHOUT_TOOLS, Refused

RULES: Final = """
version: 1
server: {anonymous: allow}
defaults: {timeout: {connect: 2s, first_token: 10s, idle: 10s, total: 20s}}
upstreams:
  openai.chat: {adapter: openai, base_url: "BASE/v1", key: env:TEST_PROVIDER_KEY}
  openai.responses: {adapter: openai, base_url: "BASE/v1", key: env:TEST_PROVIDER_KEY, formats: [openai.responses]}
  openai.completions: {adapter: openai, base_url: "BASE/v1", key: env:TEST_PROVIDER_KEY, formats: [openai.completions]}
  anthropic.messages: {adapter: anthropic, base_url: "BASE", key: env:TEST_PROVIDER_KEY}
  gemini: {adapter: gemini, base_url: "BASE", key: env:TEST_PROVIDER_KEY}
  ollama.chat: {adapter: ollama, base_url: "BASE", key: env:TEST_PROVIDER_KEY}
  many:
    adapter: openai
    base_url: "BASE/v1"
    key: env:TEST_PROVIDER_KEY
    formats: [openai.responses, openai.chat, openai.completions]
chains:
  base: [{auth: {keys: [{name: test, key: env:TEST_CALLER_KEY}]}}, log]
routes:
ROUTES
  - {name: own, match: {format: openai.chat, model: own}, chain: base, to: openai.chat}
"""
PROVIDERS: Final = {
    "openai.chat": "openai",
    "openai.responses": "responses",
    "openai.completions": "completions",
    "anthropic.messages": "anthropic",
    "gemini": "gemini",
    "ollama.chat": "ollama",
}
"""The upstreams, and what the fake calls the API that each of them is."""
OWN: Final = {**PROVIDERS, "ollama.generate": "generate"}
END: Final = {
    "openai.chat": "stop",
    "openai.responses": "completed",
    "openai.completions": "stop",
    "anthropic.messages": "end_turn",
    "gemini": "STOP",
    "ollama.chat": "stop",
    "ollama.generate": "stop",
}
CALL: Final = {**END, "openai.chat": "tool_calls", "anthropic.messages": "tool_use"}
WORDS: Final = "Grüße 👋 from the other side."
stream = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
caller = pytest.mark.parametrize("caller", CALLERS)
to = pytest.mark.parametrize("to", PROVIDERS)


@asynccontextmanager
async def served(provider: FakeProvider, directory: Path, *, mounted: bool = False) -> AsyncIterator[str]:
    """A gateway before ``provider``; yields its base. Models are named after the upstream that serves them."""
    names = [*PROVIDERS, "many"]
    routes = (f"  - {{name: {name}, match: {{model: [{name}, {name}/*]}}, chain: base, to: {name}}}" for name in names)
    rules = RULES.replace("BASE", provider.base).replace("ROUTES", "\n".join(routes))
    path = directory / "routes.yaml"
    path.write_text(rules)
    gateway = Gateway.load(path)
    runner: web.BaseRunner
    if mounted:
        app = web.Application()
        gateway.mount(app, "/llm")
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    else:
        await gateway.start()
        runner = web.ServerRunner(make_server(gateway), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{'/llm' if mounted else ''}"
        assert gateway.in_flight == 0
    finally:
        await runner.cleanup()
        await gateway.aclose()


@stream
@to
@caller
async def test_words(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, to: str, stream: bool
) -> None:
    provider.answer(script(WORDS, tokens=Tokens(fresh=12, output=7)))
    async with served(provider, tmp_path) as base:
        heard = await CALLERS[caller](base, to, stream, False, tls)
    assert (heard.text, heard.calls, heard.tokens, heard.stop) == (WORDS, [], (12, 7), END[caller])
    kind = PROVIDERS[to]
    assert provider.last.api == ("generate" if (caller, to) == ("ollama.generate", "ollama.chat") else kind)
    assert provider.last.outcome == "done"


@stream
@pytest.mark.parametrize("to", [name for name in PROVIDERS if name not in WITHOUT_TOOLS])
@pytest.mark.parametrize("caller", [name for name in CALLERS if name not in WITHOUT_TOOLS])
async def test_a_call(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, to: str, stream: bool
) -> None:
    provider.answer(script("Let me look.", Use("look", '{"at":"Köln"}')))
    async with served(provider, tmp_path) as base:
        heard = await CALLERS[caller](base, to, stream, True, tls)
    assert (heard.text, heard.calls, heard.stop) == ("Let me look.", [("look", {"at": "Köln"})], CALL[caller])
    assert "look" in provider.last.raw.decode()


@stream
@to
@caller
async def test_a_refusal(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, to: str, stream: bool
) -> None:
    provider.answer(script(status=429, error_message="Too many of you."))
    async with served(provider, tmp_path) as base:
        with pytest.raises(Refused) as refused:
            await CALLERS[caller](base, to, stream, False, tls)
    assert refused.value.status == 429
    assert "Too many of you." in refused.value.message


@to
@caller
async def test_a_stream_that_breaks(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, to: str
) -> None:
    provider.answer(script(WORDS, error_after=2))
    async with served(provider, tmp_path) as base:
        with pytest.raises(Refused):
            await CALLERS[caller](base, to, True, False, tls)


@stream
@caller
async def test_below_a_prefix(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, stream: bool
) -> None:
    provider.answer(script(WORDS))
    async with served(provider, tmp_path, mounted=True) as base:
        heard = await CALLERS[caller](base, "openai.chat", stream, False, tls)
    assert heard.text == WORDS


@stream
@caller
async def test_one_upstream_speaks_several_formats(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, stream: bool
) -> None:
    provider.answer(script(WORDS))
    async with served(provider, tmp_path) as base:
        heard = await CALLERS[caller](base, "many", stream, False, tls)
    assert heard.text == WORDS
    assert provider.last.api == (OWN[caller] if caller.startswith("openai.") else "responses")


BODIES: Final[dict[str, dict[str, Any]]] = {
    "openai.responses": {"input": "Hi.", "metadata": {"a": "b"}},
    "openai.completions": {"prompt": "Hi.", "max_tokens": 5},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}], "safetySettings": []},
    "ollama.chat": {"messages": [{"role": "user", "content": "Hi."}], "keep_alive": "5m"},
    "ollama.generate": {"prompt": "Hi.", "options": {"num_ctx": 4096}},
}
PATHS: Final = {
    "openai.responses": "/v1/responses",
    "openai.completions": "/v1/completions",
    "ollama.chat": "/api/chat",
    "ollama.generate": "/api/generate",
}


@stream
@pytest.mark.parametrize("format", BODIES)
async def test_untouched_bytes_stay_untouched(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, format: str, stream: bool
) -> None:
    provider.answer(script(WORDS))
    members = dict(BODIES[format])
    name = "ollama.chat" if format == "ollama.generate" else format
    path, query = PATHS.get(format, ""), {}
    if format == "gemini":
        path = f"/v1beta/models/{name}:" + ("streamGenerateContent" if stream else "generateContent")
        query = {"alt": "sse"} if stream else {}
    else:
        members |= {"model": name, "stream": stream}
    if format == "openai.completions" and stream:
        # Else the frame that the log asks for is kept from the caller.
        members["stream_options"] = {"include_usage": True}
    sent = json.dumps(members, indent=1).encode()
    headers = {"authorization": f"Bearer {CALLER_KEY}", "content-type": "application/json"}
    async with served(provider, tmp_path) as base, httpx.AsyncClient(verify=tls) as client:
        response = await client.post(base + path, content=sent, headers=headers, params=query)
    assert response.status_code == 200
    assert provider.last.raw == sent
    assert response.content == provider.last.body


# -- Gemini's own ways


def _hi(base: str, path: str, **more: Any) -> dict[str, Any]:
    return {"url": base + path, "json": BODIES["gemini"], **more}


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/openai.chat",
        "/v1/models/openai.chat",
        "/models/openai.chat",
        "/v1beta1/publishers/google/models/openai.chat",
        "/publishers/google/models/openai.chat",
        "/v1/projects/p/locations/l/publishers/google/models/openai.chat",
        "/v1beta/models/openai.chat/with:colon/and-slash",
        "/v1beta/models/openai.chat%2Fwith%3Acolon%2Fand-slash",
    ],
)
@pytest.mark.parametrize("mounted", [False, True], ids=["alone", "mounted"])
async def test_paths_of_gemini(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, path: str, mounted: bool
) -> None:
    async with served(provider, tmp_path, mounted=mounted) as base, httpx.AsyncClient(verify=tls) as client:
        response = await client.post(**_hi(base, f"{path}:generateContent?key={CALLER_KEY}"))
    assert (response.status_code, response.json()["candidates"][0]["finishReason"]) == (200, "STOP")
    wanted = "openai.chat/with:colon/and-slash" if "slash" in path else "openai.chat"
    assert provider.last.json["model"] == wanted


@to
async def test_a_stream_without_alt_is_an_array(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, to: str
) -> None:
    provider.answer(script(WORDS), script(WORDS, error_after=2))
    headers = {"x-goog-api-key": CALLER_KEY}
    async with served(provider, tmp_path) as base, httpx.AsyncClient(verify=tls) as client:
        path = f"/v1beta/models/{to}:streamGenerateContent"
        response = await client.post(**_hi(base, path, headers=headers))
        broken = await client.post(**_hi(base, path, headers=headers))
    assert response.headers["content-type"] == "application/json; charset=UTF-8"
    items = response.json()
    texts = [part.get("text", "") for item in items for part in item["candidates"][0]["content"]["parts"]]
    assert "".join(texts) == WORDS
    assert items[-1]["candidates"][0]["finishReason"] == "STOP"
    assert "error" in broken.json()[-1]


async def test_the_key_in_a_query_goes_nowhere(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = "/v1beta/models/gemini:streamGenerateContent"
    async with served(provider, tmp_path) as base, httpx.AsyncClient(verify=tls) as client:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # the caller's own log, which is not ours to keep
        query = {"key": CALLER_KEY, "alt": "sse", "$alt": "json", "prettyPrint": "false"}
        response = await client.post(**_hi(base, path, params=query))
        assert response.status_code == 200
        assert provider.last.query == {"alt": "sse", "prettyPrint": "false"}
        assert provider.last.headers["x-goog-api-key"] == KEY
        # Elsewhere than in Gemini's format a key in a query is none.
        refused = await client.post(
            base + f"/v1/chat/completions?key={CALLER_KEY}", json={"model": "own", "messages": []}
        )
        assert refused.status_code == 401
        two = await client.post(**_hi(base, path, params=query, headers={"x-goog-api-key": "another"}))
        assert (two.status_code, two.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert CALLER_KEY not in caplog.text
    assert CALLER_KEY not in str([(received.headers, received.query, received.raw) for received in provider.requests])


async def test_usage_is_logged_for_every_format(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "headgate.access")
    expected = []
    async with served(provider, tmp_path) as base:
        for format in OWN:
            for streams in (False, True):
                provider.answer(script("Hi.", tokens=Tokens(fresh=12, output=7)))
                name = "ollama.chat" if format == "ollama.generate" else format
                await CALLERS[format](base, name, streams, False, tls)
                expected.append((format, streams, 12, 7))
    lines = [msgspec.json.decode(record.getMessage()) for record in caplog.records if record.name == "headgate.access"]
    seen = [(each["format"], each["stream"], each.get("input_tokens"), each.get("output_tokens")) for each in lines]
    assert seen == expected


@pytest.mark.parametrize(
    ("to", "error"),
    [
        ("openai.responses", {"error": {"message": "Too many.", "type": "x", "code": "rate_limit_exceeded"}}),
        ("openai.completions", {"error": {"message": "Too many.", "type": "x", "code": "rate_limit_exceeded"}}),
        ("gemini", {"error": {"code": 429, "message": "Too many.", "status": "RESOURCE_EXHAUSTED"}}),
        ("ollama.chat", {"error": "Too many."}),
    ],
)
async def test_an_error_inside_a_200(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, to: str, error: dict[str, Any]
) -> None:
    answer = replace(script(), wire=json.dumps(error).encode())
    async with served(provider, tmp_path) as base:
        for caller in (to, "anthropic.messages"):
            provider.answer(answer)
            with pytest.raises(Refused, match="Too many") as refused:
                await CALLERS[caller](base, to, False, False, tls)
            assert refused.value.status >= 400
