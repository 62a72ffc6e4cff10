"""What the laws that need sockets stand on: the environment of the rule files, and a provider on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ..fakes.gateway import ENVIRONMENT
from ..fakes.provider import FakeProvider


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rule files refer to."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """A provider that speaks both formats."""
    async with FakeProvider() as fake:
        yield fake
