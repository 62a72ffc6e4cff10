"""What several want to know of one answer: told to each, once, and nobody kept alive by it."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway.call import Call
from headgate.gateway.errors import GatewayError, Malformed, upstream_error
from headgate.gateway.ir.event import ChoiceStop, Chunk, PartDelta, ResponseStart, Usage, UsageReport, Wire
from headgate.gateway.relay.hearing import Hearing
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.server.gateway import Gateway

ANSWER = (
    Chunk((ResponseStart("id", "model"),)),
    Chunk((PartDelta(0, "one "), PartDelta(0, "two"))),
    Chunk((ChoiceStop("other", "tired"), ChoiceStop("length", choice=1))),
    Chunk((UsageReport(Usage(input_tokens=3, output_tokens=2)),)),
)
RULES = """
version: 1
prices: {models: {"*": {input: 1, output: 2}}}
upstreams: {sim: {adapter: simulator}}
chains: {main: [log, {limit: {per: all, tokens: 1000000k/min, budget: 1000 USD/day}}, log, cache]}
routes: [{name: left-behind, chain: main, to: sim}]
"""


class Ear:
    def __init__(self, fault: Exception | None = None) -> None:
        self.told: list[tuple[Hearing, GatewayError | None]] = []
        self.fault = fault

    def over(self, heard: Hearing, error: GatewayError | None, /) -> None:
        self.told.append((heard, error))
        if self.fault is not None:
            raise self.fault


class Through:
    def feed(self, chunk: Chunk, /) -> Chunk:
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """Nothing was held back."""


async def test_what_is_heard(call_of: Any) -> None:
    call, ear = call_of(), Ear()
    reply = Reply(Listed(ANSWER), call.scope)
    heard = reply.hearing(call, ear)
    await reply.collect()
    assert ear.told == [(heard, None)]
    assert heard.usage == Usage(input_tokens=3, output_tokens=2)
    assert heard.letters == 7 and heard.first_s is not None and heard.answered
    assert (heard.response_id, heard.response_model) == ("id", "model")
    assert heard.stops == {0: "tired", 1: "length"}


async def test_neighbours_share_one(call_of: Any) -> None:
    call, ears = call_of(), [Ear(), Ear(), Ear()]
    reply = Reply(Listed(ANSWER), call.scope)
    first, second = (reply.hearing(call, ear) for ear in ears[:2])
    third = reply.through(Through()).hearing(call, ears[2])
    assert first is second and first is not third
    await reply.collect()
    assert [len(ear.told) for ear in ears] == [1, 1, 1]


async def test_who_comes_when_it_was_heard_already_is_told_as_well(call_of: Any) -> None:
    call, early, late = call_of(), Ear(), Ear()
    reply = Reply(Listed(ANSWER), call.scope)
    reply.hearing(call, early)
    await reply.opened()
    reply.hearing(call, late)
    await reply.collect()
    assert len(early.told) == len(late.told) == 1
    assert late.told[0][0].letters == 7


async def test_one_who_fails_keeps_nobody_from_hearing(call_of: Any) -> None:
    call, ears = call_of(), [Ear(upstream_error("cut", "an ear failed")), Ear()]
    reply = Reply(Listed(ANSWER), call.scope)
    for ear in ears:
        reply.hearing(call, ear)
    with pytest.raises(GatewayError, match="an ear failed"):
        await reply.collect()
    assert [error and error.kind for _, error in (*ears[0].told, *ears[1].told)] == [None, "cut"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("heard", [True, False])
async def test_a_call_leaves_nothing_behind(tmp_path: Path, stream: bool, heard: bool) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(RULES)
    async with Gateway.load(path) as gateway:
        gc.collect()
        gc.disable()
        try:
            for number in range(20):
                messages = [{"role": "user", "content": f"call {number}"}]
                body = json.dumps({"model": "m", "stream": stream, "messages": messages}).encode()
                reply = await gateway.handle("openai.chat", body, {})
                if heard:
                    await reply.collect()
                else:
                    reply.abort()
                del reply
            calls = [each for each in gc.get_objects() if type(each) is Call]
            left = sum(each.decision.route == "left-behind" for each in calls)  # others may be other tests'
        finally:
            gc.enable()
    assert left < 5


# -- an answer that is there already, whole


class Louder:
    """A stage that changes what it is given."""

    def feed(self, chunk: Chunk, /) -> Chunk:
        return Chunk((*chunk.events, PartDelta(0, "!")), None, WHOLE)

    def close(self, error: GatewayError | None, /) -> None:
        """Nothing was held back."""


class Out:
    def __init__(self) -> None:
        self.ends = 0

    def push(self, chunk: Chunk, /) -> None:
        """Nobody reads."""

    def end(self, error: GatewayError | None, /) -> None:
        self.ends += 1


WHOLE = Wire("openai.chat", "json")


def body_of(usage: Usage | None = None, decode: Any = None) -> Chunk:
    events = (PartDelta(0, "said"), *(() if usage is None else (UsageReport(usage),)))
    return Chunk(None if decode else events, b"{}", WHOLE, decode)


@pytest.mark.parametrize("taken", ["collected", "connected", "held up"])
@pytest.mark.parametrize("stage", [False, True], ids=["alone", "before a stage"])
async def test_a_whole_answer_is_heard_where_its_listener_stands(call_of: Any, taken: str, stage: bool) -> None:
    call, first, second, third = call_of(), Ear(), Ear(), Ear()
    chunk = body_of(Usage(input_tokens=3, output_tokens=2))
    reply = Reply.whole(chunk, call.scope)
    heard = reply.hearing(call, first)
    assert reply.hearing(call, second) is heard
    assert reply.settled is None, "somebody wants to see it"
    if stage:
        reply.through(Louder())
    later = reply.hearing(call, third)
    assert (later is heard) is not stage
    if taken == "collected":
        chunks = await reply.collect()
        assert (chunks == [chunk]) is not stage
    else:
        out = Out()
        if taken == "held up":
            reply.pause()
        reply.connect(out)
        assert out.ends == (taken == "connected")
        reply.resume()
        assert out.ends == 1
    assert first.told == second.told == [(heard, None)]
    assert third.told == [(later, None)]
    assert heard.whole is chunk and heard.usage == Usage(input_tokens=3, output_tokens=2)
    assert stage is (later.whole is not chunk)
    assert heard.listeners == [] == later.listeners


@pytest.mark.parametrize("stage", [False, True], ids=["alone", "before a stage"])
async def test_who_hears_a_whole_answer_that_nobody_takes(call_of: Any, stage: bool) -> None:
    call, ear = call_of(), Ear()
    reply = Reply.whole(body_of(), call.scope)
    heard = reply.hearing(call, ear)
    if stage:
        reply.through(Louder())
    reply.abort()
    reply.abort()
    ((told, error),) = ear.told
    assert told is heard and error is not None and error.kind == "cancelled"


async def test_a_whole_answer_that_cannot_be_heard(call_of: Any) -> None:
    """What it tells of its usage is no sense, or somebody who heard it failed: the others are told, and so is the caller."""

    def broken(raw: bytes) -> Any:
        raise Malformed("not what it says")

    call, ear = call_of(), Ear()
    reply = Reply.whole(body_of(decode=broken), call.scope)
    reply.hearing(call, ear)
    with pytest.raises(Malformed):
        await reply.collect()
    assert [error.kind for _, error in ear.told if error is not None] == ["malformed"]

    failing, other = Ear(ValueError("bug")), Ear()
    reply = Reply.whole(body_of(), call.scope)
    reply.hearing(call, failing)
    reply.hearing(call, other)
    with pytest.raises(GatewayError):
        await reply.collect()
    assert len(failing.told) == len(other.told) == 1
    assert other.told[0][1] is not None
