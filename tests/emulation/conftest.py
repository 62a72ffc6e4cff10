"""Upstreams that lack something, seen by the official SDKs over real sockets."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anthropic
import openai
import pytest

from ..fakes.gateway import CALLER_KEY, ENVIRONMENT
from ..fakes.provider import FakeProvider
from ..server.house import House, serving

# Models name their upstream: the API that it speaks, and how structured output is had there.
RULES = """
server: {{anonymous: allow}}
defaults: {{timeout: {{first_token: 5s, idle: 5s, total: 10s}}}}
upstreams:
  chat: &chat {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  chat-tool: {{<<: *chat, emulate: {{structured_output: tool}}}}
  chat-instruction: {{<<: *chat, emulate: {{structured_output: instruction}}}}
  messages-tool:
    {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, emulate: {{structured_output: tool, n: fan_out}}}}
  messages-instruction:
    {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, emulate: {{structured_output: instruction}}}}
  ollama-tool: {{adapter: ollama, base_url: "{base}", key: env:TEST_PROVIDER_KEY, emulate: {{structured_output: tool}}}}
  ollama-instruction:
    {{adapter: ollama, base_url: "{base}", key: env:TEST_PROVIDER_KEY, emulate: {{structured_output: instruction}}}}
  fanned: {{<<: *chat, emulate: {{n: 4}}, chain: [{{retry: {{tries: 2, backoff: 1ms}}}}]}}
  tells: {{<<: *chat, emulate: {{stream: tell}}}}
  gathers: {{<<: *chat, emulate: {{stream: gather}}}}
  counts: {{<<: *chat, emulate: {{usage_every_chunk: true}}}}
  messages-counts:
    {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, emulate: {{usage_every_chunk: true}}}}
  everything:
    {{<<: *chat, emulate: {{n: fan_out, structured_output: tool, stream: gather, usage_every_chunk: true}}}}
routes:
  - {{name: chat-tool, match: {{model: chat-tool}}, to: chat-tool}}
  - {{name: chat-instruction, match: {{model: chat-instruction}}, to: chat-instruction}}
  - {{name: messages-tool, match: {{model: messages-tool}}, to: messages-tool}}
  - {{name: messages-instruction, match: {{model: messages-instruction}}, to: messages-instruction}}
  - {{name: ollama-tool, match: {{model: ollama-tool}}, to: ollama-tool}}
  - {{name: ollama-instruction, match: {{model: ollama-instruction}}, to: ollama-instruction}}
  - {{name: fanned, match: {{model: fanned}}, to: fanned}}
  - {{name: tells, match: {{model: tells}}, to: tells}}
  - {{name: gathers, match: {{model: gathers}}, to: gathers}}
  - {{name: counts, match: {{model: counts}}, to: counts}}
  - {{name: messages-counts, match: {{model: messages-counts}}, to: messages-counts}}
  - {{name: everything, match: {{model: everything}}, to: everything}}
  - {{name: rest, to: chat}}
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rule file refers to."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """No failure here is one of the gateway's own."""
    caplog.set_level(logging.DEBUG, "headgate")
    yield caplog
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """The provider; at the end nothing was refused there, and nothing is left to say."""
    async with FakeProvider() as fake:
        yield fake
        assert fake.unanswered == 0 and fake.refusals == fake.expected_refusals


@pytest.fixture
async def house(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[House]:
    """The gateway; at the end no call is under way."""
    async with serving(tmp_path, RULES.format(base=provider.base)) as made:
        yield made
        await made.idle()


@pytest.fixture(scope="package")
def tls() -> ssl.SSLContext:
    """Building one is most of what a client costs."""
    return ssl.create_default_context()


@pytest.fixture
async def chat(house: House, tls: ssl.SSLContext) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK."""
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    async with openai.AsyncOpenAI(
        api_key=CALLER_KEY, base_url=house.base + "/v1", max_retries=0, timeout=10, http_client=http
    ) as made:
        yield made


@pytest.fixture
async def claude(house: House, tls: ssl.SSLContext) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's SDK."""
    http = anthropic.DefaultAsyncHttpxClient(verify=tls)
    async with anthropic.AsyncAnthropic(
        api_key=CALLER_KEY, base_url=house.base, max_retries=0, timeout=10, http_client=http
    ) as made:
        yield made
