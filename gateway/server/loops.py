"""Which event loop a process of its own runs on, as ``server.loop`` says. A gateway that is mounted runs on its host's.

uvloop reads and writes plain sockets for less than asyncio does. Its TLS costs more than asyncio's, a call and a chunk alike:
``auto`` takes it only where no connection of the rules is encrypted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeAlias

from ..rules.plan import Plan

LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]


class Loop(NamedTuple):
    """A kind of event loop, and why it is this one."""

    name: Literal["asyncio", "uvloop"]
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def choose_loop(plan: Plan) -> Loop:
    """Return what ``plan`` is to run on. A plan that insists on uvloop was not built without it."""
    wanted = plan.server.loop
    if wanted != "auto":
        return Loop(wanted, f"server.loop: {wanted}")
    if find_spec("uvloop") is None:
        return Loop("asyncio", "uvloop is not installed")
    if plan.server.tls is not None:
        return Loop("asyncio", "server.tls is given")
    encrypted = next((name for name, upstream in plan.upstreams.items() if upstream.tls), None)
    if encrypted is not None:
        return Loop("asyncio", f"the upstream {encrypted} is reached over TLS")
    return Loop("uvloop", "nothing is reached over TLS")


def loop_factory(loop: Loop) -> LoopFactory | None:
    """Return what makes such a loop, for ``asyncio.Runner``; None: what asyncio takes by itself."""
    if loop.name == "asyncio":
        return None
    from uvloop import new_event_loop  # an extra, and of no use to whoever has another loop

    return new_event_loop


__all__ = ["Loop", "LoopFactory", "choose_loop", "loop_factory"]
