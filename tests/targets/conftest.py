"""What the suite of targets stands on, and calls served by a rule file without a socket of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from headgate.gateway import registry
from headgate.gateway.call import Decision
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import Chunk
from headgate.gateway.ir.loss import Ledger
from headgate.gateway.server.gateway import Gateway

from ..fakes.provider import FakeProvider
from ..middlewares.conftest import call_of, clock, environment, http, provider  # noqa: F401  # fixtures
from ..server.house import body_of, load


class Served(NamedTuple):
    """What became of a call. ``text`` is the answer's, as bytes went out."""

    decision: Decision
    ledger: Ledger
    error: GatewayError | None
    chunks: list[Chunk]

    @property
    def said(self) -> str:
        """The words of the answer."""
        return "".join(
            event.text
            for chunk in self.chunks
            for event in chunk.events
            if type(event).__name__ == "PartDelta" and event.choice == 0
        )

    @property
    def tries(self) -> list[tuple[str, str | None, str]]:
        """Upstream, error and cause of each attempt."""
        return [(each.upstream, each.error, each.cause) for each in self.decision.attempts]


class Asking:
    """A gateway that is asked without a socket."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def __call__(self, *, format: str = "openai.chat", stream: bool = False, **more: Any) -> Served:
        """Serve one call to its end."""
        codec, body = registry.codec(format), body_of(stream=stream, **more)
        scope, plan = self.gateway.open_scope()
        call, route = self.gateway.prepare(
            plan, codec, body, RequestFacts("/v1/x", {}, {}), scope, "req_1", scope.loop.time()
        )
        error, chunks = None, list[Chunk]()
        try:
            chunks = await (await route.entry(call)).collect()
        except GatewayError as fault:
            error = fault
        assert not scope.tasks, "a task goes on after its call"
        scope.close()
        # what is written down is read again by whoever shows it
        assert msgspec.json.decode(msgspec.json.encode(call.decision.attempts), type=list) is not None
        return Served(call.decision, call.ledger, error, chunks)


@pytest.fixture
def asking(tmp_path: Path, provider: FakeProvider) -> Callable[..., Any]:  # noqa: F811
    """Return a context manager of a rule file in which ``{base}`` is the provider."""

    @asynccontextmanager
    async def opened(text: str) -> AsyncIterator[Asking]:
        async with load(tmp_path, text.replace("{base}", provider.base)) as gateway:
            yield Asking(gateway)
            assert gateway.in_flight == 0

    return opened
