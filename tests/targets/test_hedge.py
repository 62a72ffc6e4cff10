"""A second call beside a late one: which of them is the answer, what the record says, and that the other is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway.call import Call
from headgate.gateway.errors import GatewayError, upstream_error
from headgate.gateway.ir.event import Chunk, PartDelta, PartStart, ResponseStart
from headgate.gateway.ir.message import Text
from headgate.gateway.passing.request import Passed, Socket, Upload
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.targets.allowance import Allowance
from headgate.gateway.targets.hedge import hedged, may_be_doubled

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from ..server.house import CHAT, begin, body_of, serving, until

UPSTREAMS = """
    upstreams:
      first: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: [{retry: {tries: 1}}]}
      second: {adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}
      third: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}
"""
HEDGED = (
    UPSTREAMS
    + """
    targets:
      t:
        select: [{use: first/gpt-fake}]
        hedge: {after: 40ms, use: second/claude-fake-4-5, max_extra: 100%}
        on_failure: [{kinds: [rate_limit, cut], use: third/gpt-other}]
    routes: [{name: r, chain: [log], to: t}]
"""
)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@both
async def test_the_second_answers(asking: Callable[..., Any], provider: FakeProvider, stream: bool) -> None:
    provider.answer(script(stall_before=True), script("From the second."))
    async with asking(HEDGED) as ask:
        served = await ask(stream=stream, logprobs=True)
        assert (served.error, served.said) == (None, "From the second.")
        assert served.tries == [("first", "cancelled", ""), ("second", None, "hedge")]
        decision = served.decision
        assert (decision.upstream, decision.model, decision.chain) == ("second", "claude-fake-4-5", ("log",))
        assert decision.chosen == ["t.select[0] first/gpt-fake", "t.hedge second/claude-fake-4-5"]
        assert "logprobs" in [loss.path for loss in served.ledger.lost]
        first, second = provider.requests
        async with asyncio.timeout(1):
            await first.over.wait()
        assert (first.outcome, second.outcome) == ("aborted", "done")


@both
async def test_the_first_answers_after_all(asking: Callable[..., Any], provider: FakeProvider, stream: bool) -> None:
    provider.answer(script("From the first.", wait_s=0.2), script(stall_before=True))
    async with asking(HEDGED) as ask:
        served = await ask(stream=stream, logprobs=True)
        assert (served.error, served.said) == (None, "From the first.")
        assert served.tries == [("second", "cancelled", "hedge"), ("first", None, "")]
        decision = served.decision
        assert (decision.upstream, decision.model, decision.chain) == ("first", "gpt-fake", ("log", "retry"))
        assert served.ledger.lost == []
        async with asyncio.timeout(1):
            await provider.requests[1].over.wait()
        assert provider.requests[1].outcome == "aborted"


async def test_headers_and_a_role_are_no_content(asking: Callable[..., Any], provider: FakeProvider) -> None:
    provider.answer(script("Never.", stall_after=0), script("From the second."))
    async with asking(HEDGED) as ask:
        served = await ask(stream=True)
        assert served.said == "From the second."
        assert [(each.status, each.error) for each in served.decision.attempts] == [(200, "cancelled"), (200, None)]
        await provider.requests[0].over.wait()


@both
async def test_in_time_there_is_one_call(asking: Callable[..., Any], provider: FakeProvider, stream: bool) -> None:
    text = HEDGED.replace("40ms", "20s")
    provider.answer(script("Hi."), script(status=429), script("Then."), script(status=503))
    async with asking(text) as ask:
        assert (await ask(stream=stream)).tries == [("first", None, "")]
        assert (await ask(stream=stream)).tries == [("first", "rate_limit", ""), ("third", None, "fallback")]
        served = await ask(stream=stream)
        assert served.error.kind in ("unavailable", "overloaded")
        assert len(served.tries) == 1


@both
async def test_the_first_fails_while_the_second_runs(
    asking: Callable[..., Any], provider: FakeProvider, stream: bool
) -> None:
    provider.answer(script(status=429, wait_s=0.1), script("From the second.", wait_s=0.2))
    async with asking(HEDGED) as ask:
        served = await ask(stream=stream)
        assert served.said == "From the second."
        assert served.tries == [("first", "rate_limit", ""), ("second", None, "hedge")]


@both
async def test_the_second_fails_and_the_first_is_waited_for(
    asking: Callable[..., Any], provider: FakeProvider, stream: bool
) -> None:
    provider.answer(script("From the first.", wait_s=0.2), script(status=500))
    async with asking(HEDGED) as ask:
        served = await ask(stream=stream)
        assert served.said == "From the first."
        assert served.tries == [("second", "upstream_error", "hedge"), ("first", None, "")]


@both
async def test_both_fail(asking: Callable[..., Any], provider: FakeProvider, stream: bool) -> None:
    """The first's error says where to go on."""
    provider.answer(script(status=429, wait_s=0.15), script(status=500), script("From the third."))
    provider.answer(script(status=500, wait_s=0.15), script(status=429))
    async with asking(HEDGED) as ask:
        served = await ask(stream=stream)
        assert served.said == "From the third."
        assert [each[:2] for each in served.tries] == [
            ("first", "rate_limit"),
            ("second", "upstream_error"),
            ("third", None),
        ]
        served = await ask(stream=stream)
        assert (served.error.kind, served.decision.upstream) == ("upstream_error", "first")
        assert len(served.tries) == 2


@both
async def test_the_same_upstream_once_more(asking: Callable[..., Any], provider: FakeProvider, stream: bool) -> None:
    text = HEDGED.replace("second/claude-fake-4-5", "first/gpt-fake").replace(
        "targets:", "prices: {models: {gpt-fake: {input: 1, output: 1000}}}\n    targets:"
    )
    provider.answer(script(stall_before=True), script("Hi."), script("Hi.", wait_s=0.2), script(stall_before=True))
    async with asking(text) as ask:
        for tries in (["cancelled", None], ["cancelled", None]):
            served = await ask(stream=stream)
            attempts = served.decision.attempts
            assert [each.error for each in attempts] == tries
            # of the one that was given up at least what was asked may have been counted; the other told
            assert all(each.cost_usd is not None for each in attempts)
            assert attempts[0].cost_usd < attempts[1].cost_usd
            assert served.decision.cost_usd == pytest.approx(sum(each.cost_usd for each in attempts))


async def test_targets_within_targets(asking: Callable[..., Any], provider: FakeProvider) -> None:
    """The first of a hedge may be a target that fails over, the second as well, and each may be hedged."""
    text = (
        UPSTREAMS
        + """
    targets:
      outer: {select: [{use: inner}], hedge: {after: 150ms, use: other, max_extra: 100%}}
      inner:
        select: [{use: first/a}]
        hedge: {after: 20ms, use: third/b, max_extra: 100%}
        on_failure: [{kinds: [overloaded, unavailable], use: first/c}]
      other: {select: [{use: third/d}], on_failure: [{kinds: [rate_limit], use: third/e}]}
    routes: [{name: r, to: outer}]
"""
    )
    provider.answer(script(status=503, wait_s=0.05), script(status=503, wait_s=0.05), script(stall_before=True))
    provider.answer(script(status=429), script("From e."))
    async with asking(text) as ask:
        served = await ask(stream=True)
        assert served.said == "From e."
        assert [(each.model, each.error) for each in served.decision.attempts] == [
            ("a", served.decision.attempts[0].error),
            ("b", served.decision.attempts[1].error),
            ("c", "cancelled"),
            ("d", "rate_limit"),
            ("e", None),
        ]
        assert served.decision.model == "e"
        assert [json["model"] for json in (each.json for each in provider.requests)] == ["a", "b", "c", "d", "e"]
        await provider.requests[2].over.wait()


async def test_second_calls_are_a_share(asking: Callable[..., Any], provider: FakeProvider) -> None:
    text = HEDGED.replace("100%", "1%")
    async with asking(text) as ask:
        provider.answer(script("a", wait_s=0.15), script(stall_before=True), script("b", wait_s=0.1))
        assert len((await ask()).tries) == 2
        assert len((await ask()).tries) == 1


async def test_the_share_holds_over_a_reload(tmp_path: Path, provider: FakeProvider) -> None:
    text = HEDGED.replace("100%", "1%").replace("{base}", provider.base)
    provider.answer(script("a", wait_s=0.15), script(stall_before=True), script("b", wait_s=0.1))
    async with serving(tmp_path, text) as house:
        for calls in (2, 3):
            async with aiohttp.ClientSession() as client, client.post(house.base + CHAT, data=body_of()) as response:
                assert response.status == 200
            assert len(provider.requests) == calls
            house.rewrite(text.replace("name: r", "name: s"))
            await house.gateway.reload()
        await provider.requests[1].over.wait()


@both
async def test_a_caller_who_leaves_ends_both(tmp_path: Path, provider: FakeProvider, stream: bool) -> None:
    provider.answer(script(stall_before=True), script(stall_before=True))
    async with serving(tmp_path, HEDGED.replace("{base}", provider.base)) as house:
        async with aiohttp.ClientSession() as client:
            asked = begin(client.post(house.base + CHAT, data=body_of(stream=stream)).__aenter__())
            await until(lambda: len(provider.requests) == 2)
            asked.cancel()
        async with asyncio.timeout(1):
            for each in provider.requests:
                await each.over.wait()
        assert [each.outcome for each in provider.requests] == ["aborted", "aborted"]
        await house.idle()


async def test_the_headers_and_the_line_tell_of_the_second(
    tmp_path: Path, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.answer(script(stall_before=True), script("Hi."))
    with caplog.at_level("INFO", "headgate.access"):
        async with serving(tmp_path, HEDGED.replace("{base}", provider.base)) as house:
            async with aiohttp.ClientSession() as client, client.post(house.base + CHAT, data=body_of()) as response:
                headers = response.headers
                assert (headers["headgate-upstream"], headers["headgate-attempts"]) == ("second", "2")
            await provider.requests[0].over.wait()
    (line,) = [each.getMessage() for each in caplog.records if each.name == "headgate.access"]
    assert '"upstream":"second"' in line
    assert '"error":"cancelled"' in line
    assert '"cause":"hedge"' in line


# --- without a provider

WORDS = (Chunk((ResponseStart(),)), Chunk((PartStart(0, Text("")),)), Chunk((PartDelta(0, "hi"),)))


class Closing:
    """A source that never says anything."""

    def __init__(self) -> None:
        self.aborted = False

    def connect(self, sink: object, /) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


async def test_an_answer_that_comes_in_the_same_moment_is_closed(call_of: Callable[..., Call]) -> None:
    """The second has content too when the first is taken."""
    call, both_there = call_of(stream=True), asyncio.Event()
    source = Closing()

    async def first(call: Call) -> Reply:
        call.attempt("a")
        await both_there.wait()
        return Reply(Listed(WORDS), call.scope)

    async def second(call: Call) -> Reply:
        call.attempt("b")
        both_there.set()
        return Reply(source, call.scope)  # type: ignore[arg-type]

    reply = await hedged(call, first, second, 0.001, lambda: True)
    lost, won = call.decision.attempts
    assert {lost.upstream, won.upstream} == {"a", "b"}
    assert (lost.error, won.error) == ("cancelled", None)
    assert source.aborted == (won.upstream == "a")
    reply.abort()
    await call.scope.aclose()


async def test_nothing_begins_once_headers_went_out(call_of: Callable[..., Call]) -> None:
    call, begun = call_of(stream=True), []

    async def first(call: Call) -> Reply:
        call.scope.committed = True
        await asyncio.sleep(0.02)
        return Reply(Listed(WORDS), call.scope)

    async def second(call: Call) -> Reply:
        begun.append(call)
        raise upstream_error("overloaded", "x")

    await (await hedged(call, first, second, 0.001, lambda: True)).collect()
    assert begun == []


async def test_a_scope_that_closes_ends_the_race(call_of: Callable[..., Call]) -> None:
    call = call_of(stream=True)

    async def stalls(call: Call) -> Reply:
        call.attempt("x")
        await asyncio.Event().wait()
        raise AssertionError

    race = begin(hedged(call, stalls, stalls, 0.001, lambda: True))
    await until(lambda: len(call.scope.tasks) == 2)
    call.scope.close()
    with pytest.raises(GatewayError) as caught:
        await race
    assert caught.value.kind == "cancelled"
    assert [each.error for each in call.decision.attempts] == ["cancelled", "cancelled"]


async def test_a_race_that_is_cancelled_twice_tells_of_both(call_of: Callable[..., Call]) -> None:
    """The second time while it waits for what the first one ended."""
    call, begun = call_of(stream=True), asyncio.Event()

    async def stalls(call: Call) -> Reply:
        call.attempt(call.cause or "first")
        if call.cause:
            begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
        raise AssertionError

    race = begin(hedged(call, stalls, stalls, 0.001, lambda: True))
    await begun.wait()
    race.cancel()
    await asyncio.sleep(0.005)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert [(each.upstream, each.error) for each in call.decision.attempts] == [
        ("first", "cancelled"),
        ("hedge", "cancelled"),
    ]
    await call.scope.aclose()


async def test_what_may_be_sent_twice(call_of: Callable[..., Call]) -> None:
    class Reader:
        begun, count = False, 0

        async def read(self) -> bytes:
            return b""

    call = call_of()
    audio = Passed("POST", "/v1/audio/speech", upload=Upload(b"{}"))
    assert may_be_doubled(call)
    assert may_be_doubled(call.replace(passed=audio))
    assert not may_be_doubled(call.replace(counts=True))
    assert not may_be_doubled(call.replace(passed=Passed("POST", "/v1/files", upload=Upload(b"x"))))
    assert not may_be_doubled(call.replace(passed=Passed("POST", "/v1/audio/speech", upload=Upload(b"x", Reader()))))
    assert not may_be_doubled(call.replace(passed=Passed("GET", "/v1/realtime", socket=Socket((), 1))))
    call.scope.committed = True
    assert not may_be_doubled(call)


def test_the_allowance_is_a_share_of_the_last_minutes() -> None:
    now = [1000.0]
    allowance = Allowance(0.05, lambda: now[0])
    assert allowance.take()  # the first of all may be late
    assert not allowance.take()
    for _ in range(100):
        allowance.count()
    assert [allowance.take() for _ in range(6)] == [True] * 4 + [False] * 2
    now[0] += 540  # still within ten minutes
    assert not allowance.take()
    other = Allowance(0.5, lambda: now[0])
    other.carry_over(allowance)
    assert other.take()
    now[0] += 61
    assert [allowance.take() for _ in range(2)] == [False, False]  # the one of 540 s counts
    now[0] += 6000
    assert [allowance.take() for _ in range(2)] == [True, False]
    now[0] -= 5000  # a clock that goes back gives nothing away
    assert not allowance.take()
    now[0] += 5000
    assert not allowance.take()
    always = Allowance(1.0, lambda: now[0])
    for _ in range(50):
        always.count()
        assert always.take()
