"""Middlewares and adapters that the rule tests name with ``use:`` and ``adapter:``; the tests see them as ``rule_parts``."""

from __future__ import annotations

from typing import Annotated, ClassVar

from headgate.gateway.errors import AuthError
from headgate.gateway.units import Duration, Secret
from msgspec import Meta, Struct

HISTORY: list[str] = []
"""What was started and stopped, in order; a fixture empties it."""


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to set."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """A Struct within options."""

    tries: Annotated[int, Meta(ge=1, le=9)] = 3
    wait: Duration = Duration(1)


class MarkOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of every shape that the reader walks."""

    name: str = "mark"
    limits: Limits = Limits()
    steps: tuple[Limits, ...] = ()
    secret: Secret | None = None
    refuse: bool = False


class Mark:
    """Writes its name into the decision's notes on the way in."""

    Options: ClassVar[type[Struct]] = MarkOptions

    def __init__(self, options: MarkOptions) -> None:
        if options.refuse:
            raise ValueError("refuse was asked for")
        self.options = options

    async def __call__(self, call, call_next, /):
        call.decision.notes.append(self.options.name)
        return await call_next(call)


class Retrying(Mark):
    may_retry = True


class Counting(Mark):
    needs_usage = True


class Gatekeeper(Mark):
    authenticates = True

    async def identify(self, call, /):
        raise AuthError("nobody gets in")


class Deaf(Mark):
    """Says that it authenticates, but cannot say who calls."""

    authenticates = True


class Living(Mark):
    async def start(self):
        HISTORY.append(f"start {self.options.name}")

    async def stop(self):
        HISTORY.append(f"stop {self.options.name}")


class Stillborn(Mark):
    async def start(self):
        raise RuntimeError("cannot start")


class Bare:
    """A class without Options."""


class EchoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    voice: str = "low"
    pause: Duration = Duration(0)


class Echo:
    """An adapter that answers with what it was asked for."""

    Options: ClassVar[type[Struct]] = EchoOptions

    def __init__(self, options: EchoOptions, context) -> None:
        if options.voice == "none":
            raise ValueError("no voice")
        self.options = options
        self.context = context

    async def __call__(self, call, /):
        return (self.context.name, call.model)
