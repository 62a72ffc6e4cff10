"""What the middleware suite stands on: calls without a gateway, rule files without a socket, a provider."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from headgate.gateway import registry
from headgate.gateway.call import Call, Decision
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.ir.loss import Ledger
from headgate.gateway.relay.scope import Clock, Scope

from ..fakes.gateway import ENVIRONMENT
from ..fakes.provider import FakeProvider
from ..server.house import body_of


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rule files refer to."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock(tick_s=0.01)
    yield clock
    clock.close()


@pytest.fixture
async def call_of(clock: Clock) -> Callable[..., Call]:
    """Return a function that makes a call: ``call_of(headers, stream=True)``."""

    def make(
        headers: dict[str, str] | None = None, *, format: str = "openai.chat", stream: bool = False, **more: Any
    ) -> Call:
        codec, body = registry.codec(format), body_of(stream=stream)
        facts = RequestFacts("/v1/x", {}, headers or {})
        scope = Scope(clock)
        began = scope.loop.time()
        return Call(
            codec,
            body,
            codec.peek(body, facts),
            facts,
            scope,
            "req_test",
            began,
            time.time(),
            "m",
            Decision("req_test", "route", (), "target", "upstream", "m", [], []),
            Ledger(),
            **more,
        )

    return make


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake
        assert fake.unanswered == 0, f"{fake.unanswered} answers were never asked for"
        assert fake.refusals == fake.expected_refusals


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an environment variable that is not set."""
    monkeypatch.delenv("TEST_UNSET_KEY", raising=False)
    return "TEST_UNSET_KEY"
