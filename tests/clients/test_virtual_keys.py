"""Virtual keys and tokens, as each SDK's users meet them: answers, refusals of the right class, and their own models."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from google.genai import errors as genai_errors
from headgate.gateway.identity.database import KeyDatabase, Wanted

from ..fakes.issuer import AUDIENCE, Issuer
from ..fakes.provider import FakeProvider
from ..fakes.script import script
from ..server.house import House, serving
from .voices import gemini_client

RULES = """
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, models: [gpt-a, gpt-b]}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, models: [claude-fake-4-5]}}
chains:
  base: [{{auth: {{database: keys.db, jwt: {{issuer: "{issuer}", audience: {audience}}}}}}}, log]
routes:
  - {{name: gpt, match: {{model: "gpt-*"}}, chain: base, to: openai}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: base, to: anthropic}}
"""
CLAUDE = "claude-fake-4-5"
HELLO: list[Any] = [{"role": "user", "content": "Hi."}]
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as each:
        yield each


@pytest.fixture
def database(tmp_path: Path) -> KeyDatabase:
    return KeyDatabase(tmp_path / "keys.db")


@pytest.fixture
def keys(database: KeyDatabase) -> dict[str, str]:
    made = {
        "good": database.create(Wanted("good")),
        "gpt": database.create(Wanted("gpt", models=("gpt-*",))),
        "claude": database.create(Wanted("claude", routes=("claude",))),
        "gone": database.create(Wanted("gone")),
    }
    database.revoke("gone")
    return {**made, "unknown": "hg-" + "x" * 43}


@pytest.fixture
async def house(provider: FakeProvider, issuer: Issuer, keys: dict[str, str], tmp_path: Path) -> AsyncIterator[House]:
    text = RULES.format(base=provider.base, issuer=issuer.url, audience=AUDIENCE)
    async with serving(tmp_path, text) as each:
        yield each
        await each.idle()


@pytest.fixture
async def clients(house: House, tls: ssl.SSLContext) -> AsyncIterator[Any]:
    """Return a function that makes a client of each vendor with a key."""
    async with AsyncExitStack() as stack:

        async def make(vendor: str, key: str) -> Any:
            options: dict[str, Any] = {"api_key": key, "max_retries": 0, "timeout": 10}
            if vendor == "openai":
                http: Any = openai.DefaultAsyncHttpxClient(verify=tls)
                return await stack.enter_async_context(
                    openai.AsyncOpenAI(base_url=house.base + "/v1", http_client=http, **options)
                )
            http = anthropic.DefaultAsyncHttpxClient(verify=tls)
            return await stack.enter_async_context(
                anthropic.AsyncAnthropic(base_url=house.base, http_client=http, **options)
            )

        yield make


async def ask(client: Any, model: str, stream: bool) -> str:
    """What the answer says."""
    if isinstance(client, openai.AsyncOpenAI):
        answer: Any = await client.chat.completions.create(model=model, messages=HELLO, stream=stream)
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join([part.choices[0].delta.content or "" async for part in answer if part.choices])
    answer = await client.messages.create(model=model, messages=HELLO, max_tokens=100, stream=stream)
    if not stream:
        return str(answer.content[0].text)
    return "".join([part.delta.text async for part in answer if part.type == "content_block_delta"])


@both
@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
@pytest.mark.parametrize("model", ["gpt-a", CLAUDE])
async def test_answers(
    provider: FakeProvider, clients: Any, keys: dict[str, str], issuer: Issuer, vendor: str, model: str, stream: bool
) -> None:
    for key in (keys["good"], issuer.token()):
        provider.answer(script("Hello there."))
        assert await ask(await clients(vendor, key), model, stream) == "Hello there."
        assert key not in str(provider.last.headers)
        assert key not in provider.last.raw.decode()


REFUSED = [
    ("gone", "gpt-a", 401, "revoked"),
    ("unknown", "gpt-a", 401, "not known"),
    ("gpt", CLAUDE, 403, f"model '{CLAUDE}'"),
    ("claude", "gpt-a", 403, "route 'gpt'"),
]


@both
@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
@pytest.mark.parametrize(("name", "model", "status", "why"), REFUSED)
async def test_refusals(
    provider: FakeProvider,
    clients: Any,
    keys: dict[str, str],
    vendor: str,
    name: str,
    model: str,
    status: int,
    why: str,
    stream: bool,
) -> None:
    sdk: Any = openai if vendor == "openai" else anthropic
    kind = sdk.AuthenticationError if status == 401 else sdk.PermissionDeniedError
    with pytest.raises(kind, match=why) as caught:
        await ask(await clients(vendor, keys[name]), model, stream)
    assert keys[name] not in str(caught.value)
    assert provider.requests == []


async def test_expired_tokens(clients: Any, issuer: Issuer) -> None:
    for vendor, sdk in (("openai", openai), ("anthropic", anthropic)):
        with pytest.raises(sdk.AuthenticationError, match="token has expired"):
            await ask(await clients(vendor, issuer.token(exp=1)), "gpt-a", False)


async def test_each_sees_its_models(clients: Any, keys: dict[str, str], house: House) -> None:
    expected = {"good": ["gpt-a", "gpt-b", CLAUDE], "gpt": ["gpt-a", "gpt-b"], "claude": [CLAUDE]}
    for name, models in expected.items():
        for vendor in ("openai", "anthropic"):
            listed = (await clients(vendor, keys[name])).models.list()
            assert [each.id async for each in listed] == models
    client = ollama.AsyncClient(house.base, headers={"authorization": f"Bearer {keys['gpt']}"})
    assert [each.model for each in (await client.list()).models] == ["gpt-a", "gpt-b"]
    await client.close()


async def ask_gemini(house: House, key: str, tls: ssl.SSLContext, stream: bool) -> str:
    async with gemini_client(house.base, key, tls) as client:
        if not stream:
            return (await client.models.generate_content(model="gpt-a", contents="Hi.")).text or ""
        parts = await client.models.generate_content_stream(model="gpt-a", contents="Hi.")
        return "".join([part.text or "" async for part in parts])


@both
async def test_gemini(
    house: House, keys: dict[str, str], provider: FakeProvider, tls: ssl.SSLContext, stream: bool
) -> None:
    provider.answer(script("Hello there."))
    assert await ask_gemini(house, keys["good"], tls, stream) == "Hello there."
    for name, status in (("gone", 401), ("claude", 403)):
        with pytest.raises(genai_errors.APIError) as caught:
            await ask_gemini(house, keys[name], tls, stream)
        assert caught.value.code == status
