"""What a stranger's distribution may hold: a middleware and an adapter, by public names of headgate alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

from headgate import Adapter, AdapterContext, Call, Chunk, Middleware, Next, Reply
from headgate.gateway.ir.event import (
    ChoiceStop,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    Terminator,
)
from headgate.gateway.ir.message import Text
from msgspec import Struct
from msgspec.structs import replace


class ShoutOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``mark`` stands after each piece."""

    mark: str = "!"


class Shout:
    """Says everything louder."""

    Options: ClassVar[type[Struct]] = ShoutOptions

    def __init__(self, options: ShoutOptions) -> None:
        self.options = options

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        reply = await call_next(call)
        reply.headers = {**reply.headers, "x-shout": self.options.mark}
        return reply.through(_Louder(self.options.mark))


class _Louder:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def feed(self, chunk: Chunk, /) -> Chunk:
        events = tuple(
            replace(event, text=event.text.upper() + self.mark) if isinstance(event, PartDelta) else event
            for event in chunk.events
        )
        return Chunk(events)

    def close(self, error: Exception | None, /) -> None:
        pass


class EchoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``times`` it is said."""

    times: int = 1


class Echo:
    """Answers with the model's name."""

    Options: ClassVar[type[Struct]] = EchoOptions

    def __init__(self, options: EchoOptions, context: AdapterContext) -> None:
        self.options = options
        self.context = context

    async def __call__(self, call: Call, /) -> Reply:
        return Reply.pump(self._answer(call), call.scope)

    async def _answer(self, call: Call) -> AsyncIterator[Chunk]:
        yield Chunk((ResponseStart("echo", call.model), PartStart(0, Text(""))))
        for _ in range(self.options.times):
            yield Chunk((PartDelta(0, f"{call.model} "),))
        yield Chunk((PartStop(0), ChoiceStop("stop", "stop"), ResponseStop(), Terminator()))


_: tuple[type[Middleware], type[Adapter]] = (Shout, Echo)
