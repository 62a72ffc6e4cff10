"""Whoever leaves while a connection is made leaves none behind, on either event loop and in whichever turn of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.transport.lean import LeanTransport

from .calls import send
from .conftest import Serve
from .servers import answers, whole

TURNS = range(16)
"""More than it takes until the request is out."""


@pytest.mark.parametrize("leave", ["the task", "the scope"])
async def test_a_dial_that_is_broken_off(serve: Serve, leave: str) -> None:
    server = await serve(answers(whole(b"{}")))
    clock, lean = Clock(), LeanTransport()
    ours, pool, left = Scope(clock), lean._pool, []
    for turns in TURNS:
        scope = Scope(clock)
        task = ours.spawn(send(lean, scope, server.url))
        for _ in range(turns):
            await asyncio.sleep(0)
        go: Callable[[], object] = task.cancel if leave == "the task" else scope.close
        go()
        await asyncio.wait([task], timeout=5)
        assert task.done(), turns
        scope.close()
        for _ in range(200):
            idle = [each for some in pool._idle.values() for each in some]
            if set(pool._open) == set(idle):
                break
            await asyncio.sleep(0.005)
        else:
            left.append(turns)
        if not task.cancelled():
            task.exception()
    assert not left, f"left behind after {left} turns"
    ours.close()
    await lean.aclose()
    assert not pool._open
    clock.close()
