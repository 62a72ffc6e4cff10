"""What the server suite stands on: rule files, the keys they name, a provider, and a log without faults of ours."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
import pytest

from ..fakes.gateway import CALLER_KEY, ENVIRONMENT
from ..fakes.provider import FakeProvider
from ..loops import factories


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    """Which loops a test runs on."""
    return factories(item, {"test_front", "test_slow_request"})


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rule files refer to."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """No failure here is one of the gateway's own, unless the test says so by clearing the log."""
    caplog.set_level(logging.DEBUG, "headgate")
    yield caplog
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert CALLER_KEY not in caplog.text


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """The provider."""
    async with FakeProvider() as fake:
        yield fake
        assert fake.unanswered == 0, f"{fake.unanswered} answers were never asked for"
        assert fake.refusals == fake.expected_refusals


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that takes everything as it comes."""
    timeout = aiohttp.ClientTimeout(10)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        yield session
