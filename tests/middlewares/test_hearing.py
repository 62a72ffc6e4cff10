"""What several want to know of one answer: told to each, once, and nobody kept alive by it."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway.call import Call
from headgate.gateway.errors import GatewayError, upstream_error
from headgate.gateway.ir.event import ChoiceStop, Chunk, PartDelta, ResponseStart, Usage, UsageReport
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
