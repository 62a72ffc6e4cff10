"""Texts through a profile, cut as one likes, and what they come to say in short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from headgate.gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    Terminator,
    Wire,
)
from headgate.gateway.ir.fold import Response, fold
from headgate.gateway.ir.loss import Loss
from headgate.gateway.ir.message import Part, Reasoning, Request, Text, Tool, ToolCall
from headgate.gateway.relay.stage import Stop
from headgate.gateway.text.profile import TextProfile
from headgate.gateway.text.stage import TextStage

WIRE = Wire("openai.chat", "sse")
SCHEMA = (
    b'{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"},"far":{"type":"number"},'
    b'"ok":{"type":"boolean"},"list":{"type":"array"},"more":{"type":"object"},"any":{},'
    b'"maybe":{"type":["string","integer"]},"either":{"anyOf":[{"type":"integer"},{"type":"null"}]}}}'
)
REQUEST = Request("openai.chat", "m", tools=(Tool("weather", SCHEMA), Tool("f"), Tool("g")))


def make(
    profile: dict[str, Any], request: Request = REQUEST, losses: list[Loss] | None = None, tools: bool = True
) -> TextStage | None:
    found = [] if losses is None else losses
    return TextProfile(**profile).stage(lambda: request, tools, found.append)


def streamed(pieces: Iterable[str], reason: str = "stop") -> list[Chunk]:
    """The chunks of a stream whose text comes in ``pieces``."""
    events: list[list[Event]] = [[ResponseStart("r")], [PartStart(0, Text(""))]]
    events += [[PartDelta(0, piece)] for piece in pieces]
    events += [[PartStop(0), ChoiceStop(reason, reason)], [ResponseStop(), Terminator()]]  # type: ignore[arg-type]
    return [Chunk(tuple(each), b"<%d>" % number, WIRE) for number, each in enumerate(events)]


def whole(text: str, reason: str = "stop") -> list[Chunk]:
    """One chunk with everything, as a whole answer is told."""
    events = [event for chunk in streamed([text] if text else [], reason) for event in chunk.events]
    return [Chunk(tuple(events), b"<whole>", Wire("openai.chat", "json"))]


def told(stage: TextStage, chunks: Iterable[Chunk]) -> list[Event]:
    """What comes out; the stage is closed at the end, and hears nothing after it stopped."""
    out: list[Event] = []
    for chunk in chunks:
        passed = stage.feed(chunk)
        if isinstance(passed, Stop):
            passed, stopped = passed.chunk, True
        else:
            stopped = False
        if passed is not None:
            out += passed.events
        if stopped:
            break
    tail = stage.close(None)
    return out + (list(tail.events) if tail is not None else [])


def joined(events: Sequence[Event]) -> list[Event]:
    """The same with deltas of a part run together: how words are cut is no matter."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, PartDelta) and isinstance(last, PartDelta) and last.index == event.index:
            out[-1] = PartDelta(event.index, last.text + event.text, event.choice)
        elif not isinstance(event, PartDelta) or event.text:
            out.append(event)
    return out


def brief(part: Part) -> str | tuple[str, ...]:
    """A text as it is; thinking and calls as tuples."""
    if isinstance(part, Text):
        return part.text
    if isinstance(part, Reasoning):
        return ("think", part.text)
    assert isinstance(part, ToolCall)
    return (part.name, part.arguments, part.id) if part.id else (part.name, part.arguments)


def answer(events: Iterable[Event]) -> Response:
    return fold(list(events))


def parts(events: Iterable[Event]) -> list[str | tuple[str, ...]]:
    """The parts of the first choice, in brief."""
    return [brief(part) for part in answer(events).choices[0].parts]
