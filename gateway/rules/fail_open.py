"""``fail: open``: a middleware whose own faults cost it its place in a call, not the caller the answer.

Only before it passed the call on: after that, to go on without it would send the request twice, or an answer half changed.
What it refuses by a GatewayError is refused.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Final

from msgspec import Struct

from ..call import Call
from ..chain import Middleware, Next
from ..errors import GatewayError
from ..relay.reply import Reply

_log: Final = logging.getLogger("headgate.chain")


class FailOpen:
    """Stands in a chain around ``inner``, which the rules call ``name``; starting, stopping and reloads are the inner one's."""

    Options: ClassVar[type[Struct]] = Struct

    def __init__(self, inner: Middleware, name: str) -> None:
        self.inner = inner
        self.needs_usage = bool(getattr(inner, "needs_usage", False))
        self.may_retry = bool(getattr(inner, "may_retry", False))
        self.needs_prices = bool(getattr(inner, "needs_prices", False))
        self._name = name

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Let the inner one serve a copy of ``call``, of which nothing is left if it fails before it passed it on."""
        onward = _Onward(call_next)
        try:
            return await self.inner(call.replace(), onward)
        except GatewayError:
            raise
        except Exception as fault:  # a stranger's code may raise anything
            if onward.taken:
                raise
            _log.warning("%s failed, and the call goes on without it: %r", self._name, fault, exc_info=fault)
        call.decision.notes.append(f"{self._name}: failed, went on without it")
        return await call_next(call)


class _Onward:
    """The rest of the chain. ``taken`` once the call was passed on."""

    __slots__ = ("taken", "_call_next")

    def __init__(self, call_next: Next) -> None:
        self.taken = False
        self._call_next = call_next

    def __call__(self, call: Call, /) -> Any:
        self.taken = True
        return self._call_next(call)


def inner_of(member: object) -> object:
    """Return what is started, stopped and carried over in the place of ``member``."""
    return member.inner if isinstance(member, FailOpen) else member
