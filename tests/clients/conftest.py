"""Official SDKs, unmodified, over real sockets, through a gateway, to a provider that refuses what the real one would."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import anthropic
import openai
import pytest

from ..fakes.gateway import CALLER_KEY, ENVIRONMENT, Served, serving
from ..fakes.provider import FakeProvider
from .talk import OPENAI, AnthropicTalk, OpenAITalk, Talk


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rule file refers to; nothing of the developer's own."""
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """No failure here is one of the gateway's own, and no key stands in a log."""
    caplog.set_level(logging.DEBUG, "headgate")
    yield caplog
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert "sk-" not in caplog.text


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """The provider. At the end, nothing may still run there, and nothing may have been refused unnoticed."""
    async with FakeProvider() as fake:
        yield fake
        assert fake.unanswered == 0, f"{fake.unanswered} answers were never asked for"
        assert fake.refusals == fake.expected_refusals


@pytest.fixture(params=["standalone", "mounted"])
async def served(request: pytest.FixtureRequest, provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Served]:
    """The gateway, once with handlers that aiohttp cancels when the client leaves, once inside a host without."""
    async with serving(provider, tmp_path, request.param) as gateway:
        yield gateway
        assert gateway.gateway.in_flight == 0


@pytest.fixture
async def standalone(provider: FakeProvider, tmp_path: Path) -> AsyncIterator[Served]:
    """The gateway on its own, for what cannot depend on how it is run."""
    async with serving(provider, tmp_path) as gateway:
        yield gateway
        assert gateway.gateway.in_flight == 0


@pytest.fixture(scope="session")
def tls() -> ssl.SSLContext:
    """One TLS context for all clients: building it is most of what a client costs."""
    return ssl.create_default_context()


def openai_client(served: Served, tls: ssl.SSLContext) -> openai.AsyncOpenAI:
    """The SDK, pointed at the gateway as its users point it."""
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    return openai.AsyncOpenAI(
        api_key=CALLER_KEY, base_url=served.base + "/v1", max_retries=0, timeout=10, http_client=http
    )


def anthropic_client(served: Served, tls: ssl.SSLContext) -> anthropic.AsyncAnthropic:
    """The SDK, pointed at the gateway as its users point it."""
    http = anthropic.DefaultAsyncHttpxClient(verify=tls)
    return anthropic.AsyncAnthropic(
        api_key=CALLER_KEY, base_url=served.base, max_retries=0, timeout=10, http_client=http
    )


@pytest.fixture
async def chat(served: Served, tls: ssl.SSLContext) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK."""
    async with openai_client(served, tls) as client:
        yield client


@pytest.fixture
async def claude(served: Served, tls: ssl.SSLContext) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's SDK."""
    async with anthropic_client(served, tls) as client:
        yield client


@pytest.fixture
def talk(chat: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic) -> Callable[..., Talk]:
    """Begin a conversation: ``talk("openai", model, stream=True)``."""

    def begin(caller: str, model: str, *, stream: bool) -> Talk:
        return OpenAITalk(chat, model, stream) if caller == OPENAI else AnthropicTalk(claude, model, stream)

    return begin
