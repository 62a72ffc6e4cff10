"""Budgets: what is held for a call, what it is charged in the end, when there is more, and what a restart remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway import registry
from headgate.gateway.call import Call
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.errors import GatewayError, HouseError, QuotaExceeded, Unsupported, upstream_error
from headgate.gateway.facts import Principal, WireFacts
from headgate.gateway.ir.event import ChoiceStop, Chunk, Event, PartDelta, PartStart, ResponseStart, Usage, UsageReport
from headgate.gateway.ir.message import Text
from headgate.gateway.limits import keeping
from headgate.gateway.limits.payment import window
from headgate.gateway.metering import Metering
from headgate.gateway.pricing.price import PICO, PriceRules
from headgate.gateway.pricing.table import Prices
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.server.gateway import Gateway
from headgate.gateway.stores.memory import MemoryStore
from headgate.gateway.stores.sqlite import SqliteStore
from headgate.gateway.units import Budget, Rate
from headgate.middlewares.limit import Limit, LimitOptions

from ..server.house import CHAT, MESSAGES, begin, body_of, serving

CallOf = Callable[..., Call]
Rest = Callable[[Call], Any]
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()  # a Friday
WORDS: tuple[Event, ...] = (ResponseStart(), PartStart(0, Text("")), PartDelta(0, "x" * 40), ChoiceStop("stop"))
# A dollar for a million read or written, a tenth for what is cached: 100 tokens are 0.0001 USD.
PRICES = Prices(({"free": PriceRules(input=0), "m*": PriceRules(input=1, output=1, cache_read=0.1)},), None, None)


class Time:
    """Both clocks, which the test sets."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clocked() -> Time:
    return Time()


def limiting(time: Time, budget: str = "0.001 USD/day", **options: Any) -> Limit:
    for name in ("requests", "tokens"):
        if name in options:
            options[name] = Rate.parse(options[name])
    return Limit(LimitOptions(budget=Budget.parse(budget), **options), time, wall=time)


def used(read: int, said: int, cached: int | None = None) -> UsageReport:
    return UsageReport(Usage(input_tokens=read, cache_read_input_tokens=cached, output_tokens=said))


def answering(*events: Event, error: GatewayError | None = None, upstream: str = "up") -> Rest:
    """A provider that was asked."""

    async def serve(call: Call) -> Reply:
        attempt = call.attempt(upstream)
        attempt.status = 200
        chunks = tuple(Chunk((event,)) for event in events or (*WORDS, used(70, 30)))
        return Reply(Listed(chunks, error), call.scope)

    return serve


def failing(fault: BaseException) -> Rest:
    async def serve(call: Call) -> Reply:
        call.attempt("up")
        raise fault

    return serve


def at(rest: Rest, prices: Prices = PRICES, name: str = "up") -> Rest:
    """An upstream with that provider at its end."""
    metering = Metering(name, prices, rest)
    return metering.gate(metering)


def sized(call: Call, tokens: int, **changes: Any) -> Call:
    wire = WireFacts(call.format, call.peek, call.facts, b"x" * (4 * tokens))
    return call.replace(wire=wire, **changes)


async def passes(limit: Limit, call: Call, rest: Rest | None = None) -> Call:
    await (await limit(call, rest or at(answering()))).collect()
    return call


async def refused(limit: Limit, call: Call) -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as caught:
        await limit(call, at(failing(AssertionError("it was let through"))))
    assert (caught.value.kind, caught.value.status) == ("quota", 429)
    return caught.value


def spent(limit: Limit) -> tuple[float, float]:
    """What all subjects have spent and hold, in millionths of a dollar."""
    subjects = limit._book.subjects.values()
    return sum(each.spent for each in subjects) * 1e6 / PICO, sum(each.held for each in subjects) * 1e6 / PICO


# --- how much, and until when


async def test_so_much_and_then_no_more_until_midnight(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.00025 USD/day", reserve=50)
    for _ in range(2):  # each is held 100 and costs 100
        await passes(limit, sized(call_of(), 50))
    error = await refused(limit, sized(call_of(), 50))
    assert error.retry_after_s == 12 * 3600
    assert error.message == (
        "the budget of 0.00025 USD/day for this key is spent, or held for calls under way: it begins anew in 43200 s"
    )
    await passes(limit, sized(call_of(), 0), at(answering(used(0, 50))))  # what is left is enough for less
    assert "is spent: " in (await refused(limit, sized(call_of(), 0))).message
    clocked.now += 12 * 3600 - 1
    assert (await refused(limit, sized(call_of(), 50))).retry_after_s == 1
    clocked.now += 1
    await passes(limit, sized(call_of(), 50))
    assert spent(limit) == (100, 0)


WINDOWS = [
    ("h", "2026-11-20T12:59:59", "2026-11-20T12:00", "2026-11-20T13:00"),
    ("day", "2026-11-20T00:00:00", "2026-11-20T00:00", "2026-11-21T00:00"),
    ("day", "2026-12-31T23:59:59", "2026-12-31T00:00", "2027-01-01T00:00"),
    ("week", "2026-11-22T23:59:59", "2026-11-16T00:00", "2026-11-23T00:00"),
    ("week", "2026-11-23T00:00:00", "2026-11-23T00:00", "2026-11-30T00:00"),
    ("month", "2028-02-29T10:00:00", "2028-02-01T00:00", "2028-03-01T00:00"),
    ("month", "2026-12-01T00:00:00", "2026-12-01T00:00", "2027-01-01T00:00"),
]


@pytest.mark.parametrize(("period", "now", "start", "end"), WINDOWS)
def test_windows_are_the_calendars(period: str, now: str, start: str, end: str) -> None:
    unix = [datetime.fromisoformat(f"{text}+00:00").timestamp() for text in (now, start, end)]
    assert window(period, unix[0]) == (unix[1], unix[2])


async def test_each_has_its_own(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.0001 USD/h", reserve=50, per=("tenant", "model"))
    call = sized(call_of(principal=Principal("a", tenant="acme")), 50)
    await passes(limit, call)
    await refused(limit, call.replace(principal=Principal("b", tenant="acme")))
    await passes(limit, call.replace(principal=Principal("a", tenant="other")))
    await passes(limit, call.replace(model="m2"))


async def test_what_costs_more_than_all_of_it_passes_while_nothing_is_spent(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.0001 USD/day")
    await passes(limit, sized(call_of(), 5000), at(answering(used(20, 20))))
    assert spent(limit) == (40, 0)
    await refused(limit, sized(call_of(), 5000))


async def test_what_is_free_is_free_where_all_is_spent(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.0001 USD/day")
    await passes(limit, call_of(), at(answering(used(500, 500))))
    await refused(limit, call_of())
    await passes(limit, call_of().replace(model="free"))
    assert spent(limit) == (1000, 0)


# --- what a call is charged


CHARGED: dict[str, tuple[Rest, float, bool]] = {
    "what is told": (answering(), 100, False),
    "cached tokens by their price": (answering(*WORDS, used(70, 30, cached=60)), 10 + 6 + 30, False),
    "nothing told": (answering(*WORDS), 50 + 10, True),
    "cut": (answering(*WORDS, error=upstream_error("cut", "x")), 50 + 10, True),
    "cut after usage began": (answering(used(70, 1), *WORDS, error=upstream_error("cut", "x")), 70 + 10, True),
    "input told by its parts": (
        answering(UsageReport(Usage(uncached_input_tokens=5, cache_read_input_tokens=20, output_tokens=5))),
        5 + 2 + 5,
        False,
    ),
    "more than was held": (answering(used(600, 200)), 800, False),
    "told by a guess": (answering(UsageReport(Usage(input_tokens=3, output_tokens=4, estimated=True))), 7, True),
    "refused": (failing(upstream_error("overloaded", "x")), 0, False),
    "no connection": (failing(upstream_error("connect", "x")), 0, False),
    "a fault of ours": (failing(HouseError("x")), 0, False),
    "perhaps read": (failing(upstream_error("timeout.first_token", "x")), 50, True),
}


@pytest.mark.parametrize("name", CHARGED)
async def test_what_a_call_is_charged(call_of: CallOf, clocked: Time, name: str) -> None:
    rest, charged, estimated = CHARGED[name]
    limit, held = limiting(clocked, reserve=150), []

    async def looking(call: Call) -> Reply:
        held.append(spent(limit))
        return await rest(call)  # type: ignore[no-any-return]

    call = sized(call_of(stream=True), 50)
    try:
        await passes(limit, call, at(looking))
    except GatewayError:
        pass
    assert (held, spent(limit)) == ([(0, 200)], (charged, 0))
    decision = call.decision
    assert (decision.cost_usd, decision.cost_estimated) == (pytest.approx(charged / 1e6), estimated)
    assert decision.attempts[0].cost_usd == decision.cost_usd


async def test_every_cut_of_a_stream_is_charged_what_was_said(call_of: CallOf, clocked: Time) -> None:
    events = (used(20, 1), *WORDS[:2], *(PartDelta(0, "x" * 40) for _ in range(5)))
    for seen in range(1, len(events) + 1):
        limit = limiting(clocked)
        with pytest.raises(GatewayError):
            await passes(
                limit, sized(call_of(stream=True), 50), at(answering(*events[:seen], error=upstream_error("cut", "x")))
            )
        assert spent(limit) == (20 + max(1, 10 * max(0, seen - 3)), 0)


async def test_an_abort_is_charged_what_was_said(call_of: CallOf, clocked: Time) -> None:
    limit, call = limiting(clocked), sized(call_of(stream=True), 50)

    async def chunks() -> AsyncIterator[Chunk]:
        for event in WORDS[:3]:
            yield Chunk((event,))
        await asyncio.sleep(60)

    async def rest(call: Call) -> Reply:
        call.attempt("up")
        return Reply.pump(chunks(), call.scope)

    reply = await limit(call, at(rest))
    seen = 0
    async for _ in reply:
        seen += 1
        if seen == 3:
            break
    reply.abort()
    assert spent(limit) == (60, 0)
    assert call.decision.cost_estimated


@pytest.mark.parametrize("how", ["aborted", "scope closed", "cancelled"])
async def test_nothing_stays_held(call_of: CallOf, clocked: Time, how: str) -> None:
    limit, call = limiting(clocked), sized(call_of(), 50)
    if how == "cancelled":

        async def rest(call: Call) -> Reply:
            call.attempt("up")
            await asyncio.sleep(60)
            raise AssertionError

        task = begin(limit(call, at(rest)))
        await asyncio.sleep(0)
        assert spent(limit) == (0, 1000)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        reply = await limit(call, at(answering()))
        if how == "aborted":
            reply.abort()
        else:
            call.scope.close()
    assert spent(limit) == (50, 0)  # the provider may have read it


async def test_every_try_is_charged(call_of: CallOf, clocked: Time) -> None:
    limit, tries = (
        limiting(clocked, reserve=100),
        [answering(used(70, 0), error=upstream_error("cut", "x")), answering()],
    )

    async def retrying(call: Call) -> Reply:
        upstream = at(lambda call: tries.pop(0)(call))
        with pytest.raises(GatewayError):
            await (await upstream(call)).opened()
        return await upstream(call.replace(cause="retry"))

    call = await passes(limit, sized(call_of(), 50), retrying)
    assert spent(limit) == (170, 0)
    assert [attempt.cost_usd for attempt in call.decision.attempts] == pytest.approx([70e-6, 100e-6])
    assert call.decision.cost_usd == pytest.approx(170e-6)


async def test_rounds_are_held_and_charged_one_by_one(call_of: CallOf, clocked: Time) -> None:
    limit, seen = limiting(clocked, "0.0005 USD/day", reserve=100), []

    async def continuing(call: Call) -> Reply:
        upstream = at(answering())
        reply = await upstream(call)

        def decide(end: Any) -> Any:
            seen.append(spent(limit))
            return upstream(call.replace(cause="continue")) if len(seen) < 3 else None

        return reply.then(decide)

    await passes(limit, sized(call_of(), 50), continuing)
    assert (seen, spent(limit)) == ([(100, 50), (200, 50), (300, 50)], (300, 0))


async def test_both_of_a_hedge_are_held_and_charged(call_of: CallOf, clocked: Time) -> None:
    limit, held = limiting(clocked, reserve=50), []

    async def hedging(call: Call) -> Reply:
        one, other = at(answering(*WORDS)), at(answering(upstream="other"), name="other")
        slow = await one(call)
        fast = await other(call.replace(cause="hedge"))
        held.append(spent(limit))
        slow.abort()
        return fast

    call = await passes(limit, sized(call_of(), 50), hedging)
    assert held == [(0, 200)]
    assert spent(limit) == (150, 0)  # the loser: its request
    assert [(each.upstream, each.cost_usd) for each in call.decision.attempts] == [
        ("up", pytest.approx(50e-6)),
        ("other", pytest.approx(100e-6)),
    ]


async def test_what_a_cache_answers_costs_nothing(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.0001 USD/day")
    await passes(limit, call_of(), at(answering(used(100, 100))))

    async def kept(call: Call) -> Reply:
        call.decision.cache = "hit"
        return Reply(Listed((Chunk((*WORDS, used(70, 30))),)), call.scope)

    call = await passes(limit, call_of(), kept)  # although all is spent
    assert (spent(limit), call.decision.cost_usd) == ((200, 0), None)


async def test_a_try_that_ends_after_its_call_is_charged_all_the_same(call_of: CallOf, clocked: Time) -> None:
    limit, shared = limiting(clocked), call_of().scope
    replies: list[Reply] = []

    async def sharing(call: Call) -> Reply:
        replies.append(await at(answering())(call.replace(scope=shared)))
        return Reply(Listed((Chunk(WORDS),)), call.scope)

    await passes(limit, sized(call_of(), 50), sharing)
    assert spent(limit) == (0, 0)
    await replies[0].collect()
    assert spent(limit) == (100, 0)


async def test_two_budgets_are_kept_at_once(call_of: CallOf, clocked: Time) -> None:
    key, everybody = limiting(clocked, reserve=50), limiting(clocked, "0.00015 USD/day", reserve=50, per="all")

    async def inner(call: Call) -> Reply:
        return await everybody(call, at(answering()))

    await passes(key, sized(call_of(), 50), inner)
    with pytest.raises(QuotaExceeded, match="for all together"):
        await key(sized(call_of(), 50), inner)
    assert spent(key) == spent(everybody) == (100, 0)


async def test_a_call_past_the_end_of_its_window_is_charged_to_the_next(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.0003 USD/day", reserve=50)
    reply = await limit(sized(call_of(), 50), at(answering(used(70, 130))))
    clocked.now += 86400
    second = await limit(sized(call_of(), 50), at(answering()))
    assert spent(limit) == (0, 200)
    await reply.collect()
    await second.collect()
    assert spent(limit) == (300, 0)


# --- at once


async def test_five_hundred_at_once(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.001 USD/day", reserve=50)
    done = await asyncio.gather(*(passes(limit, sized(call_of(), 50)) for _ in range(500)), return_exceptions=True)
    assert sum(isinstance(each, Call) for each in done) == 10
    assert all(isinstance(each, Call | QuotaExceeded) for each in done)
    assert spent(limit) == (1000, 0)


async def test_five_hundred_at_once_exceed_it_by_the_error_of_the_estimates_alone(
    call_of: CallOf, clocked: Time
) -> None:
    limit, free = limiting(clocked, "0.001 USD/day", reserve=50), asyncio.Event()

    async def rest(call: Call) -> Reply:
        await free.wait()
        return await answering(used(50, 80))(call)  # type: ignore[no-any-return]

    tasks = [begin(passes(limit, sized(call_of(), 50), at(rest))) for _ in range(500)]
    await asyncio.sleep(0)
    free.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, Call) for each in done) == 10
    assert spent(limit) == (1300, 0)  # ten that each said 30 more than was reserved
    await refused(limit, sized(call_of(), 1))


# --- no price


async def test_a_model_without_a_price_is_refused(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked)
    with pytest.raises(Unsupported, match="the model new has no price here, and a budget is kept for this key"):
        await limit(call_of().replace(model="new"), at(failing(AssertionError())))
    assert spent(limit) == (0, 0)
    await passes(limit, call_of())


async def test_or_passes_where_that_is_wanted_and_its_cost_is_unknown(call_of: CallOf, clocked: Time) -> None:
    call = await passes(limiting(clocked, unpriced="pass"), call_of().replace(model="new"))
    decision = call.decision
    assert (decision.cost_usd, decision.cost_known) == (None, False)
    assert decision.notes == ["cost: nobody knows the price of new at up"]


async def test_a_cost_of_which_a_part_is_unknown_is_unknown(call_of: CallOf) -> None:
    call = call_of()
    for model in ("m", "new", "m"):
        await (await at(answering())(call.replace(model=model))).collect()
    assert (call.decision.cost_usd, call.decision.cost_known) == (None, False)
    assert [each.cost_usd for each in call.decision.attempts] == [pytest.approx(1e-4), None, pytest.approx(1e-4)]
    assert len(call.decision.notes) == 1


async def test_calls_that_count_cost_nothing(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked)
    await passes(limit, call_of(counts=True).replace(model="new"), at(answering()))
    assert spent(limit) == (0, 0)


# --- what is kept


async def test_clocks_that_jump(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.0001 USD/day")
    await passes(limit, call_of(), at(answering(used(100, 0))))
    clocked.now -= 3 * 86400
    assert (await refused(limit, call_of())).retry_after_s == 12 * 3600
    clocked.now += 12 * 3600
    await passes(limit, call_of(), at(answering(used(100, 0))))
    clocked.now += 1e9
    await passes(limit, call_of(), at(answering(used(100, 0))))
    clocked.now -= 1e9
    assert 0 < (await refused(limit, call_of())).retry_after_s <= 86400  # type: ignore[operator]


async def test_a_reload_goes_on_where_it_was(call_of: CallOf, clocked: Time) -> None:
    old = limiting(clocked, "0.0003 USD/day", reserve=50)
    await passes(old, sized(call_of(), 50))
    under_way = await old(sized(call_of(), 50), at(answering()))
    new = limiting(clocked, "0.0002 USD/day", reserve=50)
    new.carry_over(old)
    await refused(new, sized(call_of(), 50))
    await under_way.collect()
    assert spent(new) == (200, 0)


async def test_a_reload_to_another_period(call_of: CallOf, clocked: Time) -> None:
    month = limiting(clocked, "0.0003 USD/month", reserve=50)
    await passes(month, sized(call_of(), 50))
    under_way = await month(sized(call_of(), 50), at(answering()))
    day = limiting(clocked, "0.0003 USD/day", reserve=50)
    day.carry_over(month)
    await passes(day, sized(call_of(), 50))
    await under_way.collect()  # paid by the old rules, and counted by the new
    assert spent(day) == (200, 0)
    clocked.now += 86400
    for _ in range(3):
        await passes(day, sized(call_of(), 50))
    again = limiting(clocked, "0.0004 USD/month", reserve=50)
    again.carry_over(day)
    await passes(again, sized(call_of(), 50))
    await refused(again, sized(call_of(), 50))


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield MemoryStore(100, 10**6, 10**6)
        return
    made = SqliteStore(tmp_path / "limits.db", 100, 10**6, 10**6)
    await made.start()
    yield made
    await made.stop()


async def kept(time: Time, store: Any, budget: str = "0.0003 USD/day", **options: Any) -> Limit:
    limit = limiting(time, budget, store="limits", name="alice", reserve=50, **options)
    limit.store = store
    await limit.start()
    return limit


async def test_a_restart_remembers(call_of: CallOf, clocked: Time, store: Any) -> None:
    one = await kept(clocked, store, requests="10/h", tokens="1000/h")
    await passes(one, sized(call_of(), 50))
    await passes(one, sized(call_of(principal=Principal("other")), 50), at(answering(used(1, 1))))
    await one.stop()
    await store.settled()
    clocked.now += 36  # a tenth of a request, and ten tokens, come back
    two = await kept(clocked, store, requests="10/h", tokens="1000/h")
    reply = await two(sized(call_of(), 50), at(answering()))
    assert spent(two) == (100, 100)
    assert reply.headers["x-ratelimit-remaining-requests"] == "8"
    assert 800 <= int(reply.headers["x-ratelimit-remaining-tokens"]) <= 811
    await reply.collect()
    await passes(two, sized(call_of(), 50))
    await refused(two, sized(call_of(), 50))
    await two.stop()
    clocked.now += 86400
    three = await kept(clocked, store)
    await passes(three, sized(call_of(), 50))
    assert spent(three) == (100, 0)
    await three.stop()


async def test_a_restart_while_an_answer_is_awaited(call_of: CallOf, clocked: Time, store: Any) -> None:
    """What calls under way held is not written: their scopes close before the limit stops, whoever still awaits."""
    one, asked, call = await kept(clocked, store, tokens="1000/h"), asyncio.Event(), sized(call_of(), 50)

    async def rest(call: Call) -> Reply:
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError

    task = begin(one(call, at(rest)))
    await asked.wait()
    assert spent(one) == (0, 100)
    call.scope.close()
    await one.stop()
    await store.settled()
    two = await kept(clocked, store, tokens="1000/h")
    reply = await two(sized(call_of(), 50), at(answering()))
    assert spent(two) == (0, 100)
    assert reply.headers["x-ratelimit-remaining-tokens"] == "900"
    await reply.collect()
    await two.stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_restart_after_a_clock_that_was_ahead(call_of: CallOf, clocked: Time, store: Any) -> None:
    clocked.now += 10**8
    one = await kept(clocked, store)
    await passes(one, sized(call_of(), 50))
    await one.stop()
    await store.settled()
    clocked.now -= 10**8
    two = await kept(clocked, store)
    await passes(two, sized(call_of(), 50))
    assert spent(two) == (200, 0)
    clocked.now += 86400
    await passes(two, sized(call_of(), 50))
    assert spent(two) == (100, 0)
    await two.stop()


async def test_a_crash_counts_what_was_held(call_of: CallOf, clocked: Time, store: Any) -> None:
    one = await kept(clocked, store)
    await one(sized(call_of(), 50), at(answering()))
    assert one._keeper is not None
    one._keeper.flush()  # the timer's turn; then the process is gone
    await store.settled()
    two = await kept(clocked, store)
    await passes(two, sized(call_of(), 50))
    assert spent(two) == (200, 0)
    await two.stop()
    await one.stop()


async def test_changes_are_written_after_a_while_and_together(
    call_of: CallOf, clocked: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_S", 0.02)
    store, puts = MemoryStore(100, 10**6, 10**6), []
    put = store.put
    monkeypatch.setattr(store, "put", lambda *given: (puts.append(given[0]), put(*given))[1])
    limit = await kept(clocked, store, "1 USD/day")
    for _ in range(20):
        await passes(limit, sized(call_of(), 50))
    assert puts == []
    async with asyncio.timeout(2):
        while not puts:
            await asyncio.sleep(0.01)
    assert len(puts) == 1
    await limit.stop()


async def test_an_absurd_figure_costs_nobody_what_is_known(call_of: CallOf, clocked: Time, store: Any) -> None:
    one = await kept(clocked, store, "0.0001 USD/day")
    other = call_of(principal=Principal("other", tenant="other"))
    await passes(one, sized(call_of(), 50), at(answering(used(10**400, 30))))
    await passes(one, sized(other, 50))
    await one.stop()
    await store.settled()
    two = await kept(clocked, store, "0.0001 USD/day")
    await refused(two, sized(call_of(), 50))
    await refused(two, sized(other, 50))
    await two.stop()


async def test_five_hundred_at_once_after_a_restart(call_of: CallOf, clocked: Time, store: Any) -> None:
    one = await kept(clocked, store, "0.001 USD/day")
    for _ in range(4):
        await passes(one, sized(call_of(), 50))
    await one.stop()
    await store.settled()
    two = await kept(clocked, store, "0.001 USD/day")
    done = await asyncio.gather(*(passes(two, sized(call_of(), 50)) for _ in range(500)), return_exceptions=True)
    assert sum(isinstance(each, Call) for each in done) == 6
    assert spent(two) == (1000, 0)
    await two.stop()


async def test_a_store_that_cannot_be_read(
    call_of: CallOf, clocked: Time, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limit = await kept(clocked, SqliteStore(tmp_path / "limits.db", 100, 10**6, 10**6))  # never opened
    await passes(limit, sized(call_of(), 50))
    assert spent(limit) == (100, 0)
    assert "it counts anew" in caplog.text
    await limit.stop()


async def test_a_reload_goes_on_writing(call_of: CallOf, clocked: Time) -> None:
    store = MemoryStore(100, 10**6, 10**6)
    old = await kept(clocked, store)
    under_way = await old(sized(call_of(), 50), at(answering()))
    new = limiting(clocked, "0.0003 USD/day", store="limits", name="alice", reserve=50)
    new.store = store
    new.carry_over(old)
    await new.start()
    await under_way.collect()
    await old.stop()
    await passes(new, sized(call_of(), 50))
    await new.stop()
    after = await kept(clocked, store)
    await passes(after, sized(call_of(), 50))
    assert spent(after) == (300, 0)
    await after.stop()


async def test_rules_that_do_not_start_leave_the_old_ones_writing(call_of: CallOf, clocked: Time) -> None:
    store = MemoryStore(100, 10**6, 10**6)
    old = await kept(clocked, store)
    new = limiting(clocked, "0.0003 USD/day", reserve=50)
    new.carry_over(old)
    await new.start()
    await new.stop()
    await passes(old, sized(call_of(), 50))
    await old.stop()
    after = await kept(clocked, store)
    await passes(after, sized(call_of(), 50))
    assert spent(after) == (200, 0)
    await after.stop()


async def test_what_is_spent_is_not_forgotten_for_newcomers(call_of: CallOf, clocked: Time) -> None:
    limit = limiting(clocked, "0.0001 USD/day", per="model", subjects=2, reserve=50)
    for model in ("m1", "m2", "m3"):
        await passes(limit, sized(call_of(), 50).replace(model=model))
    await refused(limit, sized(call_of(), 50).replace(model="m4"))  # m3 and it are one
    for model in ("m1", "m2"):
        await refused(limit, sized(call_of(), 50).replace(model=model))
    clocked.now += 86400
    await passes(limit, sized(call_of(), 50).replace(model="m4"))
    assert "m4" in limit._book.subjects


RULES = """
server: {{anonymous: allow}}
stores: {{limits: {{kind: sqlite, path: limits.db}}}}
prices: {{models: {{m: {{input: 1, output: 2}}}}}}
upstreams: {{sim: {{adapter: simulator}}}}
routes:
  - {{name: all, chain: [{{limit: {options}}}], to: sim}}
"""


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_over_a_socket_a_reload_and_a_restart(
    tmp_path: Path, http: aiohttp.ClientSession, path: str, stream: bool
) -> None:
    async def ask(base: str) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json"}
        response = await http.post(base + path, data=body_of(stream=stream), headers=headers)
        await response.read()
        return response

    text = RULES.format(options="{budget: 0.001 USD/month, reserve: 400, store: limits, name: a}")
    async with serving(tmp_path, text) as house:
        first = await ask(house.base)
        assert first.status == 200
        assert ("headgate-cost" in first.headers) is not stream
        if not stream:
            assert 0 < float(first.headers["headgate-cost"]) < 0.0005
    less = RULES.format(options="{budget: 0.00082 USD/month, reserve: 400, store: limits, name: a}")
    async with serving(tmp_path, less) as house:
        refusal = await ask(house.base)
        assert (refusal.status, refusal.headers["headgate-error"]) == (429, "quota")
        assert 0 < int(refusal.headers["retry-after"]) <= 31 * 86400
        body = await refusal.json()
        assert body["error"]["type"] == ("insufficient_quota" if path == CHAT else "billing_error")
        house.rewrite(RULES.format(options="{budget: 10 USD/month, reserve: 400, store: limits, name: a}"))
        await house.gateway.reload()
        assert (await ask(house.base)).status == 200


TARGETS = """
version: 1
prices: {models: {dear: {input: 1, output: 1}, own: {input: 0}}}
upstreams: {big: {adapter: simulator}, local: {adapter: simulator}}
targets: {first: {select: [{use: big/dear}], on_failure: [{kinds: [quota], use: local/own}]}}
routes:
  - {name: new, match: {model: new}, chain: [{limit: {per: all, budget: 1 USD/day}}], to: big}
  - {name: all, chain: [{limit: {per: all, budget: 0.0002 USD/day, reserve: 100}}], to: first}
"""


async def test_a_target_goes_to_a_free_model_when_the_money_is_gone(tmp_path: Path) -> None:
    (tmp_path / "routes.yaml").write_text(TARGETS)
    asked: list[str] = []
    async with Gateway.load(tmp_path / "routes.yaml") as gateway:
        (limit,) = (each for each in gateway.plan.routes[1].middlewares if isinstance(each, Limit))
        for _ in range(40):
            codec = registry.codec("openai.chat")
            scope, plan = gateway.open_scope()
            call, route = gateway.prepare(
                plan, codec, body_of(), RequestFacts(CHAT, {}, {}), scope, "r", scope.loop.time()
            )
            await (await route.entry(call)).collect()
            scope.close()
            asked.append(call.decision.model)
            assert len(call.decision.attempts) == 1  # what is too dear is not sent
        with pytest.raises(Unsupported, match="the model new has no price"):
            await gateway.handle("openai.chat", body_of(model="new"))
    paid = asked.index("own")
    assert 1 <= paid < 40 and asked == ["dear"] * paid + ["own"] * (40 - paid)
    assert 0 < spent(limit)[0] <= 200


async def test_equal_calls_under_way_are_paid_once(tmp_path: Path) -> None:
    text = TARGETS.replace(
        "chain: [{limit: {per: all, budget: 0.0002 USD/day, reserve: 100}}]",
        "chain: [{limit: {per: all, budget: 1 USD/day}}, cache]",
    )
    (tmp_path / "routes.yaml").write_text(
        text.replace("big: {adapter: simulator}", "big: {adapter: simulator, delay: 1ms}")
    )
    async with Gateway.load(tmp_path / "routes.yaml") as gateway:
        (limit,) = (each for each in gateway.plan.routes[1].middlewares if isinstance(each, Limit))

        async def one(stream: bool, text: str = "Hello") -> None:
            await (await gateway.handle("openai.chat", body_of(text, stream=stream))).collect()

        await one(True)
        once, _ = spent(limit)
        assert once > 0
        for number, (text, stream) in enumerate((("Hello", True), ("Hello", False), ("Other", True), ("Third", False))):
            await asyncio.gather(*(one(stream, text) for _ in range(20)))  # one of them asks, if any, the others listen
            assert spent(limit) == ((1, 1, 2, 3)[number] * once, 0)
