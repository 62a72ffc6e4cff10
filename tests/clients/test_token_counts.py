"""Counting tokens with the official SDKs over sockets: by the provider where it can, else by a tokenizer, else by size."""

from __future__ import annotations

import json
import ssl
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from aiohttp import web
from google.genai import errors as genai_errors
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.server.handlers import make_server

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import KEY
from .voices import gemini_client

FOX = "The quick brown fox jumps over the lazy dog."
"""Ten tokens, says Google's reference of countTokens."""
RULES = """
    version: 1
    server: {{anonymous: allow}}
    upstreams:
      claude: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, chain: again}}
      gpt: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, formats: [openai.chat, openai.responses]}}
      chat: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
      google: {{adapter: gemini, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
      own: {{adapter: simulator}}
    chains:
      again: [{{retry: {{tries: 2, backoff: 10ms}}}}]
      base: [{{auth: {{keys: [{{name: test, key: env:TEST_CALLER_KEY}}]}}}}, {{log: {{to: "{log}"}}}}]
    targets:
      first: {{select: [{{use: claude}}], on_failure: [{{kinds: [unavailable, overloaded], use: chat/gpt-4o}}]}}
    routes:
      - {{name: claude, match: {{model: "claude-*"}}, chain: base, to: claude}}
      - {{name: renamed, match: {{model: sonnet}}, chain: base, to: claude/claude-sonnet-4-5}}
      - {{name: first, match: {{model: first}}, chain: base, to: first}}
      - {{name: gpt, match: {{model: "gpt-*"}}, chain: base, to: gpt}}
      - {{name: google, match: {{model: "gemini-*"}}, chain: base, to: google}}
      - {{name: chat, match: {{model: "x-*"}}, chain: base, to: chat}}
      - {{name: own, match: {{model: own}}, chain: base, to: own}}
"""


@dataclass
class Counter:
    """A provider that only counts, and refuses what the real endpoints refuse. ``failing``: statuses of the next answers."""

    base: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    failing: list[int] = field(default_factory=list)

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.paths.append(request.path)
        self.bodies.append(body)
        if self.failing:
            return web.json_response({"error": {"message": "no", "type": "x"}}, status=self.failing.pop(0))
        shown = (request.headers.get(name, "") for name in ("x-api-key", "x-goog-api-key", "authorization"))
        assert KEY in "".join(shown) and CALLER_KEY not in str(request.headers)
        if request.path == "/v1/messages/count_tokens":
            assert request.headers["anthropic-version"]
            assert not body.keys() - {"model", "messages", "system", "tools", "tool_choice", "thinking"}, body
            return web.json_response({"input_tokens": 41, "context_management": {"original_input_tokens": 41}})
        if request.path == "/v1/responses/input_tokens":
            assert not body.keys() - {"model", "input", "instructions", "tools"}, body
            return web.json_response({"object": "response.input_tokens", "input_tokens": 42})
        assert request.path.endswith(":countTokens"), request.path
        assert len(body) == 1 and body.keys() <= {"contents", "generateContentRequest"}, body
        details = [{"modality": "TEXT", "tokenCount": 43}]
        return web.json_response({"totalTokens": 43, "promptTokensDetails": details, "cachedContentTokenCount": 3})


@dataclass
class House:
    """The gateway, what is behind it, and the lines of its log."""

    base: str
    counter: Counter
    log: Path

    async def lines(self) -> list[Any]:
        """Return what was logged; complete once the gateway is closed."""
        return [json.loads(line) for line in self.log.read_bytes().splitlines()]


@asynccontextmanager
async def listening(server: web.Server) -> AsyncIterator[str]:
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[House]:
    counter, path, log = Counter(), directory / "routes.yaml", directory / "log"
    async with listening(web.Server(counter.serve)) as counter.base:  # type: ignore[arg-type]
        path.write_text(textwrap.dedent(RULES).format(base=counter.base, log=log))
        async with Gateway.load(path) as gateway, listening(make_server(gateway)) as base:
            yield House(base, counter, log)
            assert gateway.in_flight == 0


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as house:
        yield house


@asynccontextmanager
async def anthropic_at(
    base: str, tls: ssl.SSLContext, key: str = CALLER_KEY
) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http = anthropic.DefaultAsyncHttpxClient(verify=tls)
    async with anthropic.AsyncAnthropic(api_key=key, base_url=base, max_retries=0, http_client=http) as client:
        yield client


@asynccontextmanager
async def openai_at(base: str, tls: ssl.SSLContext, key: str = CALLER_KEY) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    async with openai.AsyncOpenAI(api_key=key, base_url=base + "/v1", max_retries=0, http_client=http) as client:
        yield client


async def counted(client: Any, model: str, **more: Any) -> tuple[int, str]:
    """Ask as users of each SDK do; return the number and who counted."""
    if isinstance(client, anthropic.AsyncAnthropic):
        raw = await client.messages.with_raw_response.count_tokens(
            model=model, messages=[{"role": "user", "content": FOX}], **more
        )
        return (await raw.parse()).input_tokens, raw.headers["headgate-tokens"]
    if isinstance(client, openai.AsyncOpenAI):
        raw = await client.responses.input_tokens.with_raw_response.count(model=model, input=FOX, **more)
        found = raw.parse()
        assert found.object == "response.input_tokens"
        return found.input_tokens, raw.headers["headgate-tokens"]
    told = await client.models.count_tokens(model=model, contents=FOX)
    return told.total_tokens, told.sdk_http_response.headers["headgate-tokens"]


async def test_the_provider_is_asked_where_it_can_count(house: House, tls: ssl.SSLContext) -> None:
    async with (
        anthropic_at(house.base, tls) as claude,
        openai_at(house.base, tls) as gpt,
        gemini_client(house.base, CALLER_KEY, tls) as gemini,
    ):
        assert await counted(claude, "claude-sonnet-4-5", system="Be brief.") == (41, "provider")
        assert await counted(claude, "sonnet") == (41, "provider")
        assert await counted(gpt, "gpt-4o", instructions="Be brief.") == (42, "provider")
        assert await counted(gemini, "gemini-2.5-flash") == (43, "provider")
    assert house.counter.paths == [
        "/v1/messages/count_tokens",
        "/v1/messages/count_tokens",
        "/v1/responses/input_tokens",
        "/v1beta/models/gemini-2.5-flash:countTokens",
    ]
    first, renamed, responses, google = house.counter.bodies
    assert first["system"] == responses["instructions"] == "Be brief."
    assert renamed["model"] == "claude-sonnet-4-5"
    assert google == {"contents": [{"parts": [{"text": FOX}], "role": "user"}]}


@pytest.mark.parametrize("model", ["x-claude", "own"])
async def test_a_tokenizer_counts_where_the_provider_cannot(model: str, house: House, tls: ssl.SSLContext) -> None:
    async with (
        anthropic_at(house.base, tls) as claude,
        openai_at(house.base, tls) as gpt,
        gemini_client(house.base, CALLER_KEY, tls) as gemini,
    ):
        found = [await counted(client, model) for client in (claude, gpt, gemini)]
    assert found == [(10 + 4 + 3, "tokenizer")] * 3
    assert house.counter.paths == []


async def test_by_size_where_there_is_no_tokenizer(
    house: House, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "splintr", None)
    async with (
        anthropic_at(house.base, tls) as claude,
        openai_at(house.base, tls) as gpt,
        gemini_client(house.base, CALLER_KEY, tls) as gemini,
    ):
        assert [await counted(client, "own") for client in (claude, gpt, gemini)] == [(11, "estimate")] * 3


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_provider_without_the_endpoint(status: int, house: House, tls: ssl.SSLContext) -> None:
    house.counter.failing = [status]
    async with openai_at(house.base, tls) as gpt:
        assert await counted(gpt, "gpt-4o") == (17, "tokenizer")


async def test_retries_and_fallbacks_are_those_of_any_call(house: House, tls: ssl.SSLContext) -> None:
    house.counter.failing = [529]
    async with anthropic_at(house.base, tls) as claude:
        assert await counted(claude, "claude-x") == (41, "provider")
        house.counter.failing = [529, 529]
        assert await counted(claude, "first") == (17, "tokenizer")
    assert len(house.counter.paths) == 4


async def test_a_gemini_request_with_more_than_contents(house: House) -> None:
    """As Google's REST reference spells it, and flat, as its SDKs do towards Vertex AI."""
    contents = [{"role": "user", "parts": [{"text": FOX}]}]
    system = {"parts": [{"text": "Be brief."}]}
    bodies = [
        {"generateContentRequest": {"model": "models/other", "contents": contents, "systemInstruction": system}},
        {"contents": contents, "systemInstruction": system},
    ]
    headers = {"x-goog-api-key": CALLER_KEY}
    async with aiohttp.ClientSession(headers=headers) as http:
        for body in bodies:
            async with http.post(f"{house.base}/v1beta/models/gemini-2.5-pro:countTokens", json=body) as answer:
                assert answer.status == 200 and (await answer.json())["cachedContentTokenCount"] == 3
        async with http.post(f"{house.base}/v1beta/models/own:countTokens", json=bodies[0]) as answer:
            assert (await answer.json())["totalTokens"] > 17
    wanted = {"model": "models/gemini-2.5-pro", "contents": contents, "systemInstruction": system}
    assert house.counter.bodies == [{"generateContentRequest": wanted}] * 2


async def test_a_conversation_that_the_gateway_keeps_counts_whole(house: House, tls: ssl.SSLContext) -> None:
    async with openai_at(house.base, tls) as gpt:
        first = await gpt.responses.create(model="own", input=FOX)
        alone = await counted(gpt, "own")
        whole = await counted(gpt, "own", previous_response_id=first.id)
        assert whole[0] >= alone[0] * 2 and whole[1] == "tokenizer"
        with pytest.raises(openai.NotFoundError):
            await counted(gpt, "own", previous_response_id="resp_of_nobody")


async def test_what_is_not_text_makes_an_estimate_of_it(house: House, tls: ssl.SSLContext) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    async with anthropic_at(house.base, tls) as claude:
        raw = await claude.messages.with_raw_response.count_tokens(
            model="own",
            messages=[{"role": "user", "content": [image]}],  # type: ignore[typeddict-item]
        )
    assert raw.headers["headgate-tokens"] == "estimate" and (await raw.parse()).input_tokens > 500


async def test_strangers_and_bad_requests_hear_of_it_in_their_own_format(house: House, tls: ssl.SSLContext) -> None:
    async with anthropic_at(house.base, tls, "sk-wrong") as claude:
        with pytest.raises(anthropic.AuthenticationError):
            await counted(claude, "own")
    async with openai_at(house.base, tls, "sk-wrong") as gpt:
        with pytest.raises(openai.AuthenticationError):
            await counted(gpt, "own")
    async with gemini_client(house.base, "sk-wrong", tls) as gemini:
        with pytest.raises(genai_errors.ClientError) as refused:
            await counted(gemini, "own")
        assert refused.value.code == 401
    async with anthropic_at(house.base, tls) as claude:
        with pytest.raises(anthropic.NotFoundError):
            await counted(claude, "nobody-serves-this")
        with pytest.raises(anthropic.BadRequestError) as bad:
            await claude.messages.count_tokens(model="own", messages=7)  # type: ignore[arg-type]
        assert bad.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index,call-overload]
        house.counter.failing = [400]
        with pytest.raises(anthropic.BadRequestError):
            await counted(claude, "claude-x")
    async with openai_at(house.base, tls) as gpt:
        with pytest.raises(openai.BadRequestError):
            await counted(gpt, "own", tools=[{"type": "function"}])
    async with gemini_client(house.base, CALLER_KEY, tls) as gemini:
        with pytest.raises(genai_errors.ClientError) as missing:
            await counted(gemini, "nobody-serves-this")
        assert missing.value.code == 404


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"generateContentRequest": 7}', b'{"generateContentRequest": {}}']
)
async def test_no_json_object(body: bytes, house: House) -> None:
    headers = {"x-goog-api-key": CALLER_KEY, "content-type": "application/json"}
    url = f"{house.base}/v1beta/models/own:countTokens"
    async with aiohttp.ClientSession(headers=headers) as http, http.post(url, data=body) as answer:
        assert answer.status == 400 and (await answer.json())["error"]["status"] == "INVALID_ARGUMENT"


async def test_the_log_says_what_was_asked_for(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with opened(tmp_path) as house, anthropic_at(house.base, tls) as claude:
        await counted(claude, "claude-x")
        await counted(claude, "own", extra_body={"stream": True})
    first, second = await house.lines()
    assert first["counts"] is second["counts"] is True and not second["stream"]
    assert (first["upstream"], len(first["attempts"]), first["path"]) == ("claude", 1, "/v1/messages")
    assert second["route"] == "own" and "attempts" not in second and "input_tokens" not in second
