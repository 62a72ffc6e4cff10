"""Who is let through, who is refused and until when, who waits; what a call takes and what it is charged in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway import registry, rules
from headgate.gateway.call import Call
from headgate.gateway.errors import Cancelled, ErrorKind, GatewayError, HouseError, RateLimited, upstream_error
from headgate.gateway.facts import ANONYMOUS, Principal, WireFacts
from headgate.gateway.ir.event import ChoiceStop, Chunk, Event, PartDelta, PartStart, ResponseStart, Usage, UsageReport
from headgate.gateway.ir.message import Text
from headgate.gateway.limits.book import Book, Subject
from headgate.gateway.limits.pace import Pace
from headgate.gateway.limits.told import Told, family_of
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.units import Duration, Rate
from headgate.middlewares.limit import Limit, LimitOptions, Per
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from ..server.house import CHAT, MESSAGES, begin, body_of, serving

CallOf = Callable[..., Call]
WORDS: tuple[Event, ...] = (ResponseStart(), PartStart(0, Text("")), PartDelta(0, "x" * 40), ChoiceStop("stop"))
USED = UsageReport(Usage(input_tokens=70, output_tokens=30))


class Time:
    """A clock that the test sets, and a sleep that does not wait for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.wake = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.wake.wait()


@pytest.fixture
async def clocked() -> Time:
    return Time()


def limiting(time: Time, **options: Any) -> Limit:
    for name in ("requests", "tokens"):
        if name in options:
            options[name] = Rate.parse(options[name])
    return Limit(LimitOptions(**options), time, time.sleep)


def answering(
    *events: Event, error: GatewayError | None = None, headers: Mapping[str, str] = {}
) -> Callable[[Call], Any]:
    """The rest of a chain."""

    async def serve(call: Call) -> Reply:
        chunks = [Chunk((event,)) for event in events or (*WORDS, USED)]
        return Reply(Listed(tuple(chunks), error), call.scope, 200, headers)

    return serve


def failing(fault: BaseException) -> Callable[[Call], Any]:
    async def serve(call: Call) -> Reply:
        raise fault

    return serve


def sized(call: Call, tokens: int, **changes: Any) -> Call:
    """The call with a body of so many tokens, by its size."""
    wire = WireFacts(call.format, call.peek, call.facts, b"x" * (4 * tokens))
    return call.replace(wire=wire, **changes)


async def passes(limit: Limit, call: Call, rest: Callable[[Call], Any] | None = None) -> Reply:
    """Serve a call to its end."""
    reply = await limit(call, rest or answering())
    await reply.collect()
    return reply


async def refused(limit: Limit, call: Call) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await limit(call, failing(AssertionError("it was let through")))
    assert (caught.value.kind, caught.value.status) == ("rate_limit", 429)
    return caught.value


# --- requests


async def test_so_many_and_then_one_at_a_time(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="3/min")
    for _ in range(3):
        await passes(limit, call_of())
    error = await refused(limit, call_of())
    assert error.retry_after_s == pytest.approx(20, abs=0.1)
    assert error.message == "the limit of 3 requests/min for this key is reached: try again in 20 s"
    clocked.now += 19
    await refused(limit, call_of())  # what is refused costs nothing
    clocked.now += 1
    await passes(limit, call_of())
    await refused(limit, call_of())
    clocked.now += 3600
    for _ in range(3):
        await passes(limit, call_of())
    await refused(limit, call_of())


async def test_a_burst(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="60/min", burst=2)
    for _ in range(2):
        await passes(limit, call_of())
    assert (await refused(limit, call_of())).retry_after_s == pytest.approx(1, abs=0.01)
    clocked.now += 1
    await passes(limit, call_of())
    await refused(limit, call_of())


@given(
    st.integers(1, 50),
    st.sampled_from(["s", "min", "h"]),
    st.integers(1, 20),
    st.lists(st.floats(0, 30), min_size=1, max_size=80),
)
@settings(max_examples=100, deadline=None)
def test_no_window_has_more_than_the_rate_and_the_burst(count: int, period: str, burst: int, gaps: list[float]) -> None:
    pace, full_at, now = Pace(Rate(count, period), burst), 0.0, 1e6
    taken: list[float] = []
    for gap in gaps:
        now += gap
        after = max(full_at, now) + pace.interval
        assert (after - now <= pace.depth) == (pace.left(full_at, now) >= 1)
        if after - now <= pace.depth:
            full_at = after
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - start) / pace.interval + 0.01


WHO = Principal("a", team="red", tenant="acme")
OTHERS: list[tuple[Per | tuple[Per, ...], dict[str, Any], bool]] = [
    ("key", {"principal": Principal("b", team="red", tenant="acme")}, False),
    ("key", {"principal": Principal("a", team="red", tenant="other")}, False),
    ("key", {"model": "n"}, True),
    ("team", {"principal": Principal("b", team="red", tenant="acme")}, True),
    ("team", {"principal": Principal("b", team="red", tenant="other")}, False),
    ("team", {"principal": Principal("red", tenant="acme")}, False),
    ("tenant", {"principal": Principal("b", team="blue", tenant="acme")}, True),
    ("tenant", {"principal": ANONYMOUS}, False),
    ("model", {"model": "n"}, False),
    ("model", {"principal": ANONYMOUS}, True),
    ("route", {"principal": ANONYMOUS, "model": "n"}, True),
    ("all", {"principal": ANONYMOUS, "model": "n"}, True),
    (("key", "model"), {"model": "n"}, False),
    (("key", "model"), {"principal": Principal("b", tenant="acme")}, False),
    (("key", "model"), {}, True),
]


@pytest.mark.parametrize(("per", "other", "shared"), OTHERS)
async def test_who_shares_a_limit(
    call_of: CallOf, clocked: Time, per: Per | tuple[Per, ...], other: dict[str, Any], shared: bool
) -> None:
    limit = limiting(clocked, per=per, requests="1/h")
    call = call_of(principal=WHO)
    await passes(limit, call)
    if shared:
        await refused(limit, call.replace(**other))
    else:
        await passes(limit, call.replace(**other))
    await refused(limit, call)


async def test_keys_without_a_tenant_share_their_teams_limit(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, per="team", requests="1/h")
    await passes(limit, call_of(principal=Principal("a", team="red", tenant="a")))
    await refused(limit, call_of(principal=Principal("b", team="red", tenant="b")))


# --- calls at once


async def test_five_hundred_at_once(call_of: CallOf, clocked: Time) -> None:
    limit, free = limiting(clocked, concurrency=8), asyncio.Event()
    now = most = 0

    async def rest(call: Call) -> Reply:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await free.wait()
        return Reply(Listed((Chunk(WORDS),), None), call.scope)

    async def one() -> str:
        try:
            await passes(limit, call_of(), rest)
        except RateLimited as error:
            return f"{error.message} ({error.retry_after_s:g} s)"
        return "served"

    tasks = [begin(one()) for _ in range(500)]
    await asyncio.sleep(0)
    free.set()
    said = await asyncio.gather(*tasks)
    assert (most, said.count("served")) == (8, 8)
    assert set(said) == {"served", "8 calls are under way already, the limit for this key (1 s)"}
    await passes(limit, call_of())


async def test_five_hundred_at_once_at_a_limit_of_tokens(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, tokens="1000/min", reserve=50)
    done = await asyncio.gather(*(passes(limit, sized(call_of(), 50)) for _ in range(500)), return_exceptions=True)
    assert sum(isinstance(each, Reply) for each in done) == 10


async def test_five_hundred_at_once_at_a_limit_of_requests(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="60/min", burst=7)
    done = await asyncio.gather(*(passes(limit, call_of()) for _ in range(500)), return_exceptions=True)
    assert sum(isinstance(each, Reply) for each in done) == 7
    assert all(isinstance(each, Reply | RateLimited) for each in done)


ENDS: dict[str, Callable[[Limit, Call], Any]] = {}


def end(function: Callable[[Limit, Call], Any]) -> Callable[[Limit, Call], Any]:
    ENDS[function.__name__] = function
    return function


@end
async def well(limit: Limit, call: Call) -> None:
    await passes(limit, call)


@end
async def refused_by_the_provider(limit: Limit, call: Call) -> None:
    with pytest.raises(GatewayError):
        await limit(call, failing(upstream_error("overloaded", "x")))


@end
async def cancelled_before_the_answer(limit: Limit, call: Call) -> None:
    async def rest(call: Call) -> Reply:
        await asyncio.sleep(60)
        raise AssertionError

    task = begin(limit(call, rest))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@end
async def a_fault_of_ours(limit: Limit, call: Call) -> None:
    with pytest.raises(ZeroDivisionError):
        await limit(call, failing(ZeroDivisionError()))


@end
async def aborted(limit: Limit, call: Call) -> None:
    (await limit(call, answering())).abort()


@end
async def dropped_by_whoever_held_it(limit: Limit, call: Call) -> None:
    await limit(call, answering())
    call.scope.close()


@end
async def cut(limit: Limit, call: Call) -> None:
    for number in range(len(WORDS)):
        with pytest.raises(GatewayError):
            await passes(limit, call, answering(*WORDS[: number + 1], error=upstream_error("cut", "x")))


@pytest.mark.parametrize("name", ENDS)
async def test_a_place_is_given_back_however_a_call_ends(call_of: CallOf, clocked: Time, name: str) -> None:
    limit = limiting(clocked, concurrency=1, tokens="100k/min")
    for _ in range(3):
        await ENDS[name](limit, call_of())
    reply = await limit(call_of(), answering())
    await refused(limit, call_of())
    await reply.collect()
    await passes(limit, call_of())


# --- tokens


async def left(limit: Limit, call: Call) -> int:
    """How many tokens are left, as a caller of OpenAI's is told; asking costs none."""
    reply = await limit(call.replace(counts=True), answering())
    reply.abort()
    return int(reply.headers["x-ratelimit-remaining-tokens"])


def from_the_cache() -> Callable[[Call], Any]:
    rest = answering()

    async def serve(call: Call) -> Reply:
        call.decision.cache = "hit"
        return await rest(call)  # type: ignore[no-any-return]

    return serve


def sent(rest: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """With the record of a try, as adapters begin one."""

    async def serve(call: Call) -> Reply:
        call.attempt("upstream")
        return await rest(call)  # type: ignore[no-any-return]

    return serve


CHARGED: dict[str, tuple[Callable[[Call], Any], int]] = {
    "what is told": (answering(), 100),
    "nothing told: what was said": (answering(*WORDS), 50 + 10),
    "cut: what was said": (answering(*WORDS, error=upstream_error("cut", "x")), 50 + 10),
    "cut after usage began": (
        answering(UsageReport(Usage(input_tokens=70, output_tokens=1)), *WORDS, error=upstream_error("cut", "x")),
        70 + 10,
    ),
    "input told by its parts": (
        answering(UsageReport(Usage(uncached_input_tokens=5, cache_read_input_tokens=20, output_tokens=5))),
        30,
    ),
    "more than was taken": (answering(UsageReport(Usage(input_tokens=600, output_tokens=200))), 800),
    "less than nothing": (answering(UsageReport(Usage(input_tokens=-1, output_tokens=-1))), 0),
    "refused": (failing(upstream_error("overloaded", "x")), 0),
    "no connection": (failing(upstream_error("connect", "x")), 0),
    "a fault of ours": (failing(HouseError("x")), 0),
    "an answer that was made before": (from_the_cache(), 0),
    "perhaps read": (sent(failing(upstream_error("timeout.first_token", "x"))), 50),
    "left while it was sent": (sent(failing(Cancelled("x"))), 50),
    "left before it was sent": (failing(Cancelled("x")), 0),
    "its time was up before it was sent": (failing(upstream_error("timeout.total", "x")), 0),
}


@pytest.mark.parametrize("name", CHARGED)
async def test_what_a_call_is_charged(call_of: CallOf, clocked: Time, name: str) -> None:
    rest, charged = CHARGED[name]
    limit = limiting(clocked, tokens="1000/min", reserve=150)
    call = sized(call_of(stream=True), 50)
    held: list[int] = []

    async def looking(call: Call) -> Reply:
        held.append(await left(limit, call))
        return await rest(call)  # type: ignore[no-any-return]

    try:
        await passes(limit, call, looking)
    except GatewayError:
        pass
    assert (held, await left(limit, call)) == ([800], 1000 - charged)


# What each try ended with, how many rounds the answer had, and how often the request counts beside what is told.
TRIES: list[tuple[list[ErrorKind | None], int, int]] = [
    ([None], 0, 0),
    (["rate_limit", None], 0, 0),
    (["connect", "overloaded", None], 0, 0),
    (["timeout.first_token", None], 0, 1),
    (["cut", "timeout.idle", None], 0, 2),
    ([None, None], 0, 1),  # a hedge: one of them lost
    ([None, None, None], 2, 0),  # a continuation, which told of all
    (["cut", None], 1, 0),
    (["overloaded", None, "cut", None], 2, 0),
]


@pytest.mark.parametrize(("tries", "rounds", "further"), TRIES)
async def test_tries_beside_the_one_that_answered(
    call_of: CallOf, clocked: Time, tries: list[ErrorKind | None], rounds: int, further: int
) -> None:
    async def rest(call: Call) -> Reply:
        for error in tries:
            call.attempt("up").error = error
        call.decision.rounds = rounds
        return await answering()(call)  # type: ignore[no-any-return]

    limit = limiting(clocked, tokens="1000/min")
    await passes(limit, sized(call_of(), 50), rest)
    assert await left(limit, call_of()) == 1000 - 100 - 50 * further


async def test_tries_in_front_of_a_limit_are_not_its_own(call_of: CallOf, clocked: Time) -> None:
    limit, call = limiting(clocked, tokens="1000/min"), sized(call_of(), 50)
    for _ in range(3):
        call.attempt("up").error = "timeout.idle"

    async def rest(call: Call) -> Reply:
        call.attempt("up")
        return await answering()(call)  # type: ignore[no-any-return]

    await passes(limit, call, rest)
    assert await left(limit, call_of()) == 900


async def test_a_whole_answer_tells_its_usage_undecoded(call_of: CallOf, clocked: Time) -> None:
    body = b'{"choices":[],"usage":{}}'
    codec = registry.codec("openai.chat")

    async def rest(call: Call) -> Reply:
        usage = Raw(b'{"prompt_tokens":70,"completion_tokens":30,"total_tokens":100}')
        return Reply.whole(Chunk(None, body, codec.whole, undecoded, codec.read_usage, usage), call.scope)

    def undecoded(body: bytes) -> tuple[Event, ...]:
        raise AssertionError("it was decoded")

    limit = limiting(clocked, tokens="1000/min")
    await passes(limit, sized(call_of(), 50), rest)
    assert await left(limit, call_of()) == 900


@pytest.mark.parametrize("after_s", [0.0, 1.0, 9.0, 600.0])
@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=70, output_tokens=30),
        Usage(input_tokens=400, output_tokens=300),
        Usage(input_tokens=0, output_tokens=0),
        Usage(input_tokens=-1, output_tokens=-1),
        Usage(input_tokens=10**400, output_tokens=1),
        Usage(input_tokens=70),
        None,
    ],
)
async def test_an_answer_at_once_is_settled_as_a_stream_is(
    call_of: CallOf, clocked: Time, usage: Usage | None, after_s: float
) -> None:
    """All at once or bit by bit: the same is taken and given back, and nothing stays under way."""
    events = (*WORDS, UsageReport(usage)) if usage else WORDS
    found = []
    for at_once in (True, False):
        limit, time = limiting(clocked, requests="60/min", tokens="6k/min", reserve=450), clocked.now

        async def rest(call: Call, at_once: bool = at_once) -> Reply:
            call.attempt("up")
            clocked.now += after_s
            return Reply.whole(Chunk(events), call.scope) if at_once else Reply(Listed((Chunk(events),)), call.scope)

        call = sized(call_of(), 50)
        reply = await limit(call, rest)
        await reply.collect()
        assert not call.scope.items
        call.scope.close()
        (subject,) = limit._book.subjects.values()
        found.append((subject.requests, subject.tokens, subject.under_way))
        clocked.now = time
    assert found[0] == pytest.approx(found[1])
    assert found[0][2] == 0


async def test_a_malformed_whole_answer_is_charged(call_of: CallOf, clocked: Time) -> None:
    def malformed(body: bytes) -> tuple[Event, ...]:
        raise upstream_error("malformed", "x")

    async def rest(call: Call) -> Reply:
        call.attempt("up")
        codec = registry.codec("openai.chat")
        return Reply.whole(Chunk(None, b"{" * 40, codec.whole, malformed), call.scope)

    limit = limiting(clocked, tokens="1000/min")
    with pytest.raises(GatewayError):
        await limit(sized(call_of(), 50), rest)
    assert await left(limit, call_of()) == 950


async def test_a_place_whose_scope_closes_while_the_answer_is_awaited(call_of: CallOf, clocked: Time) -> None:
    """What awaits the answer ends, or comes back with one that nobody will read: neither keeps the place."""
    limit, go, call = limiting(clocked, concurrency=1, tokens="1000/min"), asyncio.Event(), call_of()

    async def rest(call: Call) -> Reply:
        await go.wait()
        return await answering()(call)  # type: ignore[no-any-return]

    task = begin(limit(call, rest))
    await asyncio.sleep(0)
    await refused(limit, call_of())
    call.scope.close()
    go.set()
    await task
    await passes(limit, call_of())


async def test_an_abort_is_charged_what_was_said(call_of: CallOf, clocked: Time) -> None:
    limit, call = limiting(clocked, tokens="1000/min"), sized(call_of(stream=True), 50)

    async def chunks() -> AsyncIterator[Chunk]:
        for event in WORDS[:3]:
            yield Chunk((event,))
        await asyncio.sleep(60)

    async def rest(call: Call) -> Reply:
        return Reply.pump(chunks(), call.scope)

    reply = await limit(call, rest)
    seen = 0
    async for _ in reply:
        seen += 1
        if seen == 3:
            break
    reply.abort()
    assert await left(limit, call) == 1000 - 50 - 10


async def test_more_than_there_is_is_owed(call_of: CallOf, clocked: Time) -> None:
    limit, call = limiting(clocked, tokens="600/min", reserve=0), sized(call_of(), 1)
    await passes(limit, call, answering(UsageReport(Usage(input_tokens=1000, output_tokens=200))))
    assert await left(limit, call) == 0
    error = await refused(limit, call)
    assert error.retry_after_s == pytest.approx(60.1, abs=0.1)
    assert "600 tokens/min" in error.message
    clocked.now += 61
    await passes(limit, call)


async def test_what_is_larger_than_the_limit_passes_a_rested_one(call_of: CallOf, clocked: Time) -> None:
    limit, call = limiting(clocked, tokens="100/min"), sized(call_of(), 5000)
    await passes(limit, call, answering(UsageReport(Usage(input_tokens=5, output_tokens=5))))
    assert await left(limit, call) == 90
    assert (await refused(limit, call)).retry_after_s == pytest.approx(6, abs=0.2)


async def test_what_flowed_back_is_not_given_twice(call_of: CallOf, clocked: Time) -> None:
    limit, call = limiting(clocked, tokens="60/min", reserve=29), sized(call_of(), 1)
    long = await limit(call, answering(UsageReport(Usage(input_tokens=0, output_tokens=0))))
    clocked.now += 30  # its 30 are back
    reply = await limit(sized(call, 31), answering(UsageReport(Usage(input_tokens=60, output_tokens=0))))
    await reply.collect()
    assert await left(limit, call) == 0
    await long.collect()
    assert await left(limit, call) == 0


NO_TOKENS: dict[str, dict[str, Any]] = {"counting": {"counts": True}, "passed on": {"passed": object()}}


@pytest.mark.parametrize("name", NO_TOKENS)
async def test_calls_without_tokens_are_requests_all_the_same(call_of: CallOf, clocked: Time, name: str) -> None:
    limit = limiting(clocked, tokens="100/min", requests="2/min")
    for _ in range(2):
        await passes(limit, sized(call_of(), 90, **NO_TOKENS[name]), answering(*WORDS))
    await refused(limit, call_of(**NO_TOKENS[name]))
    clocked.now += 30
    assert await left(limit, call_of()) == 100


async def test_embeddings_reserve_no_answer(call_of: CallOf, clocked: Time) -> None:
    limit, codec = limiting(clocked, tokens="100/min", headers=True), registry.codec("openai.embeddings")
    call = sized(call_of(), 90).replace(codec=codec)
    reply = await limit(call, answering(UsageReport(Usage(input_tokens=20))))
    assert reply.headers["x-ratelimit-remaining-tokens"] == "10"
    await reply.collect()
    assert await left(limit, call) == 80


def test_usage_is_asked_for_where_it_is_needed() -> None:
    assert Limit(LimitOptions(tokens=Rate(1, "s"))).needs_usage
    assert not Limit(LimitOptions(requests=Rate(1, "s"))).needs_usage


# --- waiting


async def test_calls_wait_in_order_of_arrival(call_of: CallOf, clocked: Time) -> None:
    limit, served = limiting(clocked, requests="1/s", wait=Duration(2)), []

    async def one(number: int) -> None:
        await passes(limit, call_of())
        served.append(number)

    tasks = [begin(one(number)) for number in range(4)]
    await asyncio.sleep(0.01)
    assert clocked.slept == pytest.approx([1, 2], abs=0.01)
    assert served == [0]
    with pytest.raises(RateLimited) as caught:
        await tasks[3]
    assert caught.value.retry_after_s == pytest.approx(3, abs=0.01)
    clocked.now += 2
    clocked.wake.set()
    await asyncio.gather(*tasks[:3])
    assert served == [0, 1, 2]


async def test_who_waited_has_a_step_for_the_trace(call_of: CallOf, clocked: Time) -> None:
    limit, calls = limiting(clocked, requests="1/s", concurrency=1, wait=Duration(5)), [call_of(), call_of(), call_of()]
    clocked.wake.set()
    first = await limit(calls[0], answering())
    task = begin(passes(limit, calls[1]))
    await asyncio.sleep(0.01)
    await first.collect()
    await task
    assert calls[0].decision.steps == []
    steps = calls[1].decision.steps
    assert [(step.middleware, step.what) for step in steps] == [
        ("limit", "waited for a place"),
        ("limit", "waited for its turn"),
    ]
    assert all(0 <= step.started_s <= step.ended_s < 5 for step in steps)
    assert steps[0].ended_s - steps[0].started_s > 0


async def test_who_leaves_while_waiting_takes_nothing(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="1/s", tokens="1000/s", wait=Duration(2), concurrency=3)
    await passes(limit, call_of())
    call = call_of()
    task = begin(limit(call, answering()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    clocked.now += 1
    reply = await limit(call_of(), answering())
    assert reply.headers["x-ratelimit-remaining-requests"] == "0"
    assert clocked.slept == pytest.approx([1], abs=0.01)
    await reply.collect()


async def test_nobody_waits_past_its_deadline(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="1/min", wait=Duration(100))
    await passes(limit, call_of())
    call = call_of()
    await refused(limit, call.replace(deadline=call.scope.loop.time() + 30))
    assert clocked.slept == []
    clocked.now += 60
    await passes(limit, call_of())  # the refused one gave back what it had taken


async def test_the_line_is_bounded(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="1/s", wait=Duration(100), queue=3)
    tasks = [begin(passes(limit, call_of())) for _ in range(10)]
    await asyncio.sleep(0.01)
    assert len(clocked.slept) == 3
    assert sum(task.done() and isinstance(task.exception(), RateLimited) for task in tasks) == 6
    clocked.wake.set()
    assert sum(isinstance(each, Reply) for each in await asyncio.gather(*tasks, return_exceptions=True)) == 4


async def test_a_line_for_a_place(call_of: CallOf, clocked: Time) -> None:
    limit, served = limiting(clocked, concurrency=1, wait=Duration(20), queue=3), []
    first = await limit(call_of(), answering())

    async def one(number: int) -> None:
        await passes(limit, call_of())
        served.append(number)

    tasks = [begin(one(number)) for number in range(5)]
    await asyncio.sleep(0.01)
    assert served == []
    tasks[1].cancel()
    await asyncio.sleep(0)
    await first.collect()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert served == [0, 2]
    assert [type(each) for each in done] == [
        type(None),
        asyncio.CancelledError,
        type(None),
        RateLimited,
        RateLimited,
    ]
    await passes(limit, call_of())


async def test_a_place_that_comes_while_its_call_is_let_go(call_of: CallOf, clocked: Time) -> None:
    """Given up and given a place in the same turn of the loop: no error of ours, and the place is the next one's."""
    limit = limiting(clocked, concurrency=1, wait=Duration(30))
    first = await limit(call_of(), answering())
    leaving, staying = begin(passes(limit, call_of())), begin(passes(limit, call_of()))
    await asyncio.sleep(0)
    leaving.cancel()
    first.abort()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    async with asyncio.timeout(2):
        await staying
    (subject,) = limit._book.subjects.values()
    assert (subject.under_way, subject.waiting, len(subject.line or ())) == (0, 0, 0)


async def test_a_place_that_does_not_come(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, concurrency=1, wait=Duration(0.02))
    first = await limit(call_of(), answering())
    await refused(limit, call_of())
    await first.collect()
    await passes(limit, call_of())


# --- headers


@pytest.mark.parametrize("format", ["openai.chat", "anthropic.messages"])
async def test_an_absurd_figure_of_a_provider_is_no_fault_of_ours(call_of: CallOf, clocked: Time, format: str) -> None:
    limit = limiting(clocked, tokens="1/day")
    await passes(limit, call_of(), answering(UsageReport(Usage(input_tokens=10**400, output_tokens=1))))
    await refused(limit, call_of(format=format))


async def test_what_callers_are_told(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="10/min", tokens="6k/min", reserve=950)
    reply = await limit(sized(call_of(), 50), answering(headers={"x-own": "1"}))
    assert reply.headers == {
        "x-own": "1",
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "6s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5000",
        "x-ratelimit-reset-tokens": "10s",
    }
    call = sized(call_of(format="anthropic.messages"), 50)
    reply = await limit(call.replace(began_unix=1_800_000_000.0, began=call.scope.loop.time() + 0.5), answering())
    assert reply.headers == {
        "anthropic-ratelimit-requests-limit": "10",
        "anthropic-ratelimit-requests-remaining": "8",
        "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:12Z",
        "anthropic-ratelimit-tokens-limit": "6000",
        "anthropic-ratelimit-tokens-remaining": "4000",
        "anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:20Z",
    }
    assert (await limit(call_of(format="gemini"), answering())).headers == {}


@pytest.mark.parametrize("format", ["openai.chat", "anthropic.messages"])
@pytest.mark.parametrize("standing", [{}, {"x-own": "1"}, {"x-ratelimit-limit-tokens": "7"}])
async def test_all_that_is_left_is_told_as_less_is(call_of: CallOf, format: str, standing: dict[str, str]) -> None:
    """The short way comes to what is written word by word, second after second."""
    told = Told(Pace(Rate.parse("10/min")), Pace(Rate.parse("6k/min")))
    family = family_of(format)
    assert family is not None
    for began_unix in (1_800_000_000.5, 1_800_000_000.5, 1_800_000_005.5):
        call = call_of(format=format).replace(began_unix=began_unix)
        headers = told.add(call, Subject(), standing, 1.0)
        unix = int(began_unix) + 1
        assert headers == told._write(family, Subject(), standing, 1.0, unix)
        assert headers.items() >= standing.items()


async def test_what_the_provider_tells_stands(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="10/min", tokens="6k/min")
    theirs = {"x-ratelimit-limit-tokens": "7", "x-ratelimit-remaining-tokens": "5"}
    reply = await limit(call_of(), answering(headers=theirs))
    assert reply.headers["x-ratelimit-limit-requests"] == "10"
    assert {name: value for name, value in reply.headers.items() if name.endswith("tokens")} == theirs


async def test_the_refused_are_told_too(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="1/h")
    await passes(limit, call_of())
    assert (await refused(limit, call_of())).headers == {
        "x-ratelimit-limit-requests": "1",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1h0m0s",
    }


async def test_nobody_is_told_if_nobody_is_to_be(call_of: CallOf, clocked: Time) -> None:
    limit, headers = limiting(clocked, requests="1/h", headers=False), {"x-own": "1"}
    reply = await limit(call_of(), answering(headers=headers))
    assert reply.headers is headers
    assert (await refused(limit, call_of())).headers == {}


# --- what is kept


async def test_a_clock_that_jumps(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, requests="2/min")
    await passes(limit, call_of())
    clocked.now -= 900
    await passes(limit, call_of())
    assert (await refused(limit, call_of())).retry_after_s == pytest.approx(30, abs=0.1)
    clocked.now += 30
    await passes(limit, call_of())
    clocked.now += 1e9
    for _ in range(2):
        await passes(limit, call_of())
    clocked.now -= 1e9
    assert (await refused(limit, call_of())).retry_after_s == pytest.approx(30, abs=0.1)


def test_the_table_is_bounded_and_forgets_nothing_in_use() -> None:
    book = Book()
    for number in range(100):
        book.subject(number, 0.0, 100).requests = 50.0
    assert book.subject("new", 49.0, 100) is book.beyond
    assert book.subject("newer", 49.0, 100) is book.beyond
    assert len(book.subjects) == 100
    for number in range(100):
        assert book.subject(number, 49.0, 100).requests == 50.0
    for number in range(1000):
        book.subject(f"then {number}", 51.0, 100).requests = 52.0
    assert len(book.subjects) == 100
    held = Book()
    held.subject("busy", 0.0, 1).under_way = 1
    assert held.subject("new", 9.0, 1) is held.beyond


async def test_invented_names_neither_fill_the_table_nor_pass_a_limit(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, per="model", requests="1/h", subjects=5)
    done = await asyncio.gather(
        *(passes(limit, call_of().replace(model=f"m{number}")) for number in range(500)), return_exceptions=True
    )
    assert sum(isinstance(each, Reply) for each in done) == 6  # five, and one for all others


async def test_a_reload_goes_on_where_it_was(call_of: CallOf, clocked: Time) -> None:
    old = limiting(clocked, requests="4/min", concurrency=2)
    for _ in range(2):
        await passes(old, call_of())
    under_way = await old(call_of(), answering())
    new = limiting(clocked, requests="2/min", concurrency=1)
    new.carry_over(old)
    assert "calls are under way" in (await refused(new, call_of())).message
    await under_way.collect()
    assert (await refused(new, call_of())).retry_after_s == pytest.approx(
        15, abs=0.1
    )  # 3/4 of the old is 3/4 of a minute
    other = limiting(clocked, per="all", requests="2/min")
    other.carry_over(old)
    await passes(other, call_of())


RULES = """
upstreams: {{sim: {{adapter: simulator}}}}
routes: [{{name: all, chain: [{{limit: {options}}}], to: sim}}]
"""


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_over_a_socket_and_a_reload(tmp_path: Path, http: aiohttp.ClientSession, path: str, stream: bool) -> None:
    async with serving(tmp_path, RULES.format(options="{requests: 2/h, tokens: 1M/day}")) as house:

        async def ask() -> aiohttp.ClientResponse:
            headers = {"Content-Type": "application/json"}
            response = await http.post(house.base + path, data=body_of(stream=stream), headers=headers)
            await response.read()
            return response

        first = await ask()
        assert first.status == 200
        name = "x-ratelimit-remaining-requests" if path == CHAT else "anthropic-ratelimit-requests-remaining"
        assert first.headers[name] == "1"
        house.rewrite(RULES.format(options="{requests: 2/h, burst: 2, concurrency: 4}"))
        await house.gateway.reload()
        assert (await ask()).headers[name] == "0"
        refusal = await ask()
        assert (refusal.status, refusal.headers["headgate-error"]) == (429, "rate_limit")
        assert 1790 <= int(refusal.headers["retry-after"]) <= 1800
        assert refusal.headers[name] == "0"
        body = await refusal.json()
        assert body["error"]["type"] == "rate_limit_error"


WRONG = {
    "{}": "needs one of requests, tokens, concurrency and budget",
    "{concurrency: 2, burst: 2}": "burst is of requests",
    "{requests: 60}": 'such as "5/s"',
    "{requests: 60/m}": 'such as "5/s"',
    "{tokens: 100K/min}": 'such as "5/s"',
    "{concurrency: 0}": ">= 1",
    "{requests: 1/s, per: user}": "per",
    "{requests: 1/s, per: []}": "per",
    "{budget: 5}": 'such as "20 USD/day"',
    "{budget: 5 EUR/day}": 'such as "20 USD/day"',
    "{requests: 1/s, store: default}": "store and name belong together",
}


@pytest.mark.parametrize("options", WRONG)
def test_options_that_are_wrong(tmp_path: Path, options: str) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("version: 1\nserver: {anonymous: allow}" + RULES.format(options=options))
    (problem,) = rules.check(file)
    assert WRONG[options] in str(problem)
    assert ":4:" in str(problem)


def test_every_option_loads(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    options = (
        "{per: [team, model], requests: 0.5k/min, tokens: 1.5M/day, concurrency: 8, burst: 3, reserve: 10, wait: 2s,"
        " queue: 5, headers: false, subjects: 10}"
    )
    file.write_text("version: 1\nserver: {anonymous: allow}" + RULES.format(options=options))
    assert [str(problem) for problem in rules.check(file)] == []
