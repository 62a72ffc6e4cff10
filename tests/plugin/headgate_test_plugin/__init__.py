"""What a stranger's distribution may hold: a middleware and an adapter, by public names of headgate alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar, TextIO

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


class TallyOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``to``: the file that each call adds a dot to."""

    to: str


class Tally:
    """Counts calls, over reloads too, and writes to one file that it never opens twice."""

    Options: ClassVar[type[Struct]] = TallyOptions

    def __init__(self, options: TallyOptions) -> None:
        self.options = options
        self.book = _Book(options.to)

    def carry_over(self, old: Tally) -> None:
        if old.options.to == self.options.to:
            self.book = old.book

    async def start(self) -> None:
        self.book.users += 1
        if self.book.file is None:
            self.book.opened += 1
            self.book.file = Path(self.options.to).open("a")  # noqa: SIM115  # until the last user stops

    async def stop(self) -> None:
        self.book.users -= 1
        if self.book.users == 0 and self.book.file is not None:
            self.book.file.close()
            self.book.file = None

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        assert self.book.file is not None
        self.book.calls += 1
        self.book.file.write(".")
        reply = await call_next(call)
        reply.headers = {**reply.headers, "x-tally": f"{self.book.calls} calls, opened {self.book.opened} times"}
        return reply


class _Book:
    """What one Tally hands to the next."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.file: TextIO | None = None
        self.users = 0
        self.calls = 0
        self.opened = 0


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
