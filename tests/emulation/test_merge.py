"""Several answers as one: what is told of each, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from headgate.gateway.emulation.merge import merged
from headgate.gateway.errors import Cut, GatewayError
from headgate.gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import Text
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.relay.source import Listed


@pytest.fixture
async def scope() -> Iterator[Scope]:
    """The scope of a call."""
    clock = Clock()
    yield Scope(clock)
    clock.close()


def said(text: str, choice: int = 0) -> list[Event]:
    """A whole answer, event by event."""
    return [
        ResponseStart(f"id-{text}"),
        PartStart(0, Text(""), choice),
        PartDelta(0, text, choice),
        PartStop(0, choice),
        ChoiceStop("stop", "", choice),
        UsageReport(Usage(3, output_tokens=len(text))),
        ResponseStop(),
        Terminator(),
    ]


def reply(scope: Scope, *chunks: list[Event], error: GatewayError | None = None) -> Reply:
    """A reply that tells ``chunks``."""
    return Reply(Listed([Chunk(tuple(chunk)) for chunk in chunks], error), scope)


async def test_choices_parts_and_usage(scope: Scope) -> None:
    one, two = said("one"), said("three")
    whole = merged([reply(scope, one[:3], one[3:]), Reply.whole(Chunk(tuple(two)), scope)])
    events = [event for chunk in await whole.collect() for event in chunk.events]
    answer = fold(events)
    assert [choice.parts for choice in answer.choices] == [(Text("one"),), (Text("three"),)]
    assert answer.start.id == "id-one" and answer.usage == Usage(6, output_tokens=8)
    assert [type(event) for event in events[-2:]] == [ResponseStop, Terminator]
    assert sum(isinstance(event, (ResponseStart, Terminator)) for event in events) == 2
    assert {event.index for event in events if isinstance(event, PartStart)} == {0, 1}


async def test_other_choices_of_a_branch_are_left_out(scope: Scope) -> None:
    """A provider that gives more than was asked for does not get into another's way."""
    whole = merged([reply(scope, said("one"), said("more", choice=1)), reply(scope, said("two"), [Keepalive()])])
    answer = fold([event for chunk in await whole.collect() for event in chunk.events])
    assert [choice.parts for choice in answer.choices] == [(Text("one"),), (Text("two"),)]


async def test_a_failure_ends_all(scope: Scope) -> None:
    ended: list[str] = []

    class Watch:
        def __init__(self, name: str) -> None:
            self.name = name

        def feed(self, chunk: Chunk) -> Chunk:
            return chunk

        def close(self, error: GatewayError | None) -> None:
            ended.append(f"{self.name} {error.kind if error else 'well'}")

    replies = [reply(scope, said("one")), reply(scope, error=Cut("gone")), reply(scope, said("three"))]
    whole = merged([each.through(Watch(str(number))) for number, each in enumerate(replies)])
    with pytest.raises(Cut):
        await whole.collect()
    assert ended == ["0 well", "1 cut", "2 cancelled"]


async def test_whoever_loses_interest_closes_all(scope: Scope) -> None:
    whole = merged([reply(scope, said("one")), reply(scope, said("two"))])
    async for chunk in whole:
        assert chunk.events
        break
    await whole.aclose()
    assert not scope.tasks
