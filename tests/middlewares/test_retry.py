"""When it tries again, how long it waits, and when the first failure stands."""

from __future__ import annotations

import asyncio
import doctest
import email.utils
import gc
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway.call import Attempt, Call
from headgate.gateway.errors import KINDS, RETRYABLE, Avoided, ErrorKind, GatewayError, upstream_error
from headgate.gateway.ir.event import Chunk, PartDelta, PartStart, ResponseStart
from headgate.gateway.ir.message import Text
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.units import Duration
from headgate.middlewares import retry as module
from headgate.middlewares.retry import Retry, RetryOptions

from ..fakes.provider import FakeProvider
from ..fakes.script import Script, script
from ..server.house import CHAT, MESSAGES, begin, body_of, serving

WORDS = (Chunk((ResponseStart(),)), Chunk((PartStart(0, Text("")),)), Chunk((PartDelta(0, "hi"),)))
Play = GatewayError | tuple[tuple[Chunk, ...], GatewayError | None]
GOOD: tuple[tuple[Chunk, ...], GatewayError | None] = (WORDS, None)


class Upstream:
    """The rest of a chain: raises, or answers, in turn."""

    def __init__(self, *plays: Play) -> None:
        self.plays = list(plays)
        self.calls = 0

    async def __call__(self, call: Call) -> Reply:
        self.calls += 1
        call.decision.attempts.append(Attempt("upstream", "m", 0.0))
        play = self.plays.pop(0)
        if isinstance(play, GatewayError):
            call.decision.attempts[-1].error = play.kind
            raise play
        call.decision.attempts[-1].status = 200
        return Reply(Listed(*play), call.scope)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it would have waited."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        found.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", noted)
    return found


def retrying(**options: Any) -> tuple[Retry, list[tuple[float, float]]]:
    """A Retry that always takes the longest wait, and what it chose between."""
    chosen: list[tuple[float, float]] = []

    def choose(low: float, high: float) -> float:
        chosen.append((low, high))
        return high

    return Retry(RetryOptions(**options), choose), chosen


@pytest.mark.parametrize(
    ("within", "took", "calls"),
    [(None, 1000, 4), (6.9, 0, 3), (7.0, 0, 4), (7.0, 1.0, 3), (0.0, 0, 1), (100.0, 101, 1)],
)
async def test_the_time_budget(
    call_of: Callable[..., Call], monkeypatch: pytest.MonkeyPatch, within: float | None, took: float, calls: int
) -> None:
    """The waits are 1, 2 and 4 s; each try takes ``took``. A wait that leads beyond the budget is not begun."""
    now, waits = [50.0], list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    options = RetryOptions(tries=4, within=None if within is None else Duration(within))
    retry = Retry(options, lambda low, high: high, lambda: now[0])
    upstream = Upstream(*[upstream_error("overloaded", "x")] * 4)

    async def slow(call: Call) -> Reply:
        now[0] += took
        return await upstream(call)

    with pytest.raises(GatewayError):
        await retry(call_of(), slow)
    assert upstream.calls == calls
    assert waits == [1.0, 2.0, 4.0][: calls - 1]


async def test_the_time_budget_holds_for_what_the_provider_asks(
    call_of: Callable[..., Call], waits: list[float]
) -> None:
    for asked, calls in ((4.0, 2), (6.0, 1)):
        retry = Retry(RetryOptions(within=Duration(5)), clock=lambda: 0.0)
        upstream = Upstream(upstream_error("rate_limit", "x", retry_after_s=asked), GOOD)
        if calls == 1:
            with pytest.raises(GatewayError):
                await retry(call_of(), upstream)
        else:
            await retry(call_of(), upstream)
        assert upstream.calls == calls


async def test_nobody_waits_for_what_is_avoided(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, _ = retrying(tries=3)
    upstream = Upstream(Avoided("x", kind="unavailable", retry_after_s=0.1), GOOD)
    with pytest.raises(Avoided):
        await retry(call_of(), upstream)
    assert (upstream.calls, waits) == (1, [])


async def test_the_first_that_works(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, chosen = retrying(tries=3, backoff=Duration(1))
    upstream = Upstream(upstream_error("overloaded", "x"), upstream_error("connect", "x"), GOOD)
    reply = await retry(call_of(stream=True), upstream)
    assert [chunk.events[0] for chunk in await reply.collect()] == [chunk.events[0] for chunk in WORDS]
    assert (upstream.calls, chosen, waits) == (3, [(0.0, 1.0), (0.0, 2.0)], [1.0, 2.0])


async def test_the_last_error_is_raised(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, _ = retrying(tries=3)
    kinds: list[ErrorKind] = ["overloaded", "connect", "rate_limit"]
    upstream = Upstream(*(upstream_error(kind, kind) for kind in kinds))
    with pytest.raises(GatewayError) as caught:
        await retry(call_of(), upstream)
    assert (caught.value.kind, upstream.calls, len(waits)) == ("rate_limit", 3, 2)


async def test_the_backoff_is_bounded(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, chosen = retrying(tries=8, backoff=Duration(1), max_wait=Duration(5))
    with pytest.raises(GatewayError):
        await retry(call_of(), Upstream(*[upstream_error("overloaded", "x")] * 8))
    assert chosen == [(0.0, high) for high in (1, 2, 4, 5, 5, 5, 5)]


async def test_by_default_chance_decides(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry = Retry(RetryOptions(tries=20, backoff=Duration(0.5), max_wait=Duration(2)))
    with pytest.raises(GatewayError):
        await retry(call_of(), Upstream(*[upstream_error("overloaded", "x")] * 20))
    assert len(set(waits)) > 10
    assert all(0 <= wait <= 2 for wait in waits)


@pytest.mark.parametrize("kind", KINDS)
async def test_which_kinds(call_of: Callable[..., Call], waits: list[float], kind: ErrorKind) -> None:
    for options, tried in (({}, kind in RETRYABLE), ({"on": (kind,)}, True), ({"on": ()}, False)):
        retry, _ = retrying(**options)
        upstream = Upstream(upstream_error(kind, "x"), GOOD)
        if tried:
            await retry(call_of(), upstream)
        else:
            with pytest.raises(GatewayError):
                await retry(call_of(), upstream)
        assert upstream.calls == (2 if tried else 1)


async def test_one_try_is_none_again(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, _ = retrying(tries=1)
    upstream = Upstream(upstream_error("overloaded", "x"))
    with pytest.raises(GatewayError):
        await retry(call_of(), upstream)
    assert (upstream.calls, waits) == (1, [])


@pytest.mark.parametrize(("asked", "waited"), [(0.0, 0.0), (2.5, 2.5), (30.0, 30.0), (30.1, None), (1e9, None)])
async def test_what_the_provider_asks_for(
    call_of: Callable[..., Call], waits: list[float], asked: float, waited: float | None
) -> None:
    retry, chosen = retrying(tries=2, max_wait=Duration(30))
    upstream = Upstream(upstream_error("rate_limit", "x", retry_after_s=asked), GOOD)
    if waited is None:
        with pytest.raises(GatewayError):
            await retry(call_of(), upstream)
    else:
        await retry(call_of(), upstream)
    assert waits == ([] if waited is None else [waited])
    assert chosen == []


async def test_the_deadline_is_respected(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, _ = retrying(tries=2, backoff=Duration(5))
    call = call_of()
    for room, calls in ((4.0, 1), (60.0, 2)):
        upstream = Upstream(upstream_error("overloaded", "x"), GOOD)
        late = call.replace(deadline=call.scope.loop.time() + room)
        if calls == 1:
            with pytest.raises(GatewayError):
                await retry(late, upstream)
        else:
            await retry(late, upstream)
        assert upstream.calls == calls


async def test_nothing_is_tried_again_after_the_commit(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, _ = retrying(tries=3)
    call = call_of(stream=True)
    call.scope.committed = True
    upstream = Upstream(upstream_error("overloaded", "x"), GOOD)
    with pytest.raises(GatewayError):
        await retry(call, upstream)
    assert (upstream.calls, waits) == (1, [])


async def test_a_commit_during_the_wait(call_of: Callable[..., Call]) -> None:
    retry, _ = retrying(tries=3, backoff=Duration(0.05))
    call = call_of(stream=True)
    upstream = Upstream(upstream_error("overloaded", "the first"), GOOD)
    task = begin(retry(call, upstream))
    await asyncio.sleep(0.01)
    call.scope.committed = True
    with pytest.raises(GatewayError, match="the first"):
        await task
    assert upstream.calls == 1


async def test_cancelled_while_it_waits(call_of: Callable[..., Call]) -> None:
    retry, _ = retrying(tries=3, backoff=Duration(20))
    upstream = Upstream(upstream_error("overloaded", "x"), GOOD)
    task = begin(retry(call_of(), upstream))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert upstream.calls == 1


async def test_an_error_before_the_first_words_of_a_stream(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, _ = retrying(tries=3)
    call = call_of(stream=True)
    upstream = Upstream((WORDS[:1], upstream_error("overloaded", "x")), ((), upstream_error("cut", "x")), GOOD)
    reply = await retry(call, upstream)
    assert len(await reply.collect()) == 3
    assert [(each.status, each.error) for each in call.decision.attempts] == [
        (200, "overloaded"),
        (200, "cut"),
        (200, None),
    ]


async def test_an_error_after_the_first_words_stands(call_of: Callable[..., Call], waits: list[float]) -> None:
    retry, _ = retrying(tries=3)
    upstream = Upstream((WORDS, upstream_error("overloaded", "x")))
    reply = await retry(call_of(stream=True), upstream)
    with pytest.raises(GatewayError):
        await reply.collect()
    assert upstream.calls == 1


async def test_what_is_no_gateway_error_is_not_its_business(call_of: Callable[..., Call], waits: list[float]) -> None:
    async def broken(call: Call) -> Reply:
        raise ZeroDivisionError

    retry, _ = retrying()
    with pytest.raises(ZeroDivisionError):
        await retry(call_of(), broken)
    assert waits == []


async def test_a_try_that_was_none_leaves_the_record_of_the_last_one(
    call_of: Callable[..., Call], waits: list[float]
) -> None:
    """A limit inside refused the second round of a call whose first went well: nothing was sent, so nothing failed."""
    call = call_of()
    call.decision.attempts.append(Attempt("upstream", "m", 0.0, 1.0, 200))

    async def refusing(call: Call) -> Reply:
        raise upstream_error("rate_limit", "the limit is reached")

    retry, _ = retrying(tries=2)
    with pytest.raises(GatewayError):
        await retry(call, refusing)
    assert [each.error for each in call.decision.attempts] == [None]


async def test_it_marks_its_own_attempt(call_of: Callable[..., Call], waits: list[float]) -> None:
    """Meanwhile, a hedge began at another upstream, and goes on."""
    call = call_of(stream=True)
    retry, _ = retrying(tries=1)

    async def failing(call: Call) -> Reply:
        call.decision.attempts.append(Attempt("upstream", "m", 0.0, status=200))
        call.decision.attempts.append(Attempt("another", "m", 0.5))
        return Reply(Listed(WORDS[:1], upstream_error("overloaded", "x")), call.scope)

    with pytest.raises(GatewayError):
        await retry(call, failing)
    assert [(each.upstream, each.error) for each in call.decision.attempts] == [
        ("upstream", "overloaded"),
        ("another", None),
    ]


async def test_in_a_routes_chain_nobody_knows_the_upstream_before(
    call_of: Callable[..., Call], waits: list[float]
) -> None:
    call = call_of(stream=True)
    call.decision.upstream = ""
    retry, _ = retrying(tries=2)
    await (await retry(call, Upstream((WORDS[:1], upstream_error("overloaded", "x")), GOOD))).collect()
    assert [each.error for each in call.decision.attempts] == ["overloaded", None]


async def test_nothing_is_sent_for_a_call_that_ended_meanwhile(
    call_of: Callable[..., Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = call_of()

    async def sleep(seconds: float) -> None:
        call.scope.close()

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    retry, _ = retrying(tries=3)
    upstream = Upstream(upstream_error("overloaded", "the first"), GOOD)
    with pytest.raises(GatewayError, match="the first"):
        await retry(call, upstream)
    assert upstream.calls == 1


async def test_errors_leave_no_cycles(call_of: Callable[..., Call], waits: list[float]) -> None:
    """An error holds the frames it went through, and with them the call."""
    retry, _ = retrying(tries=3)
    calls = 0

    async def upstream(call: Call) -> Reply:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise upstream_error("overloaded", "in a cycle")
        return Reply(Listed(*GOOD), call.scope)

    gc.collect()
    gc.disable()
    try:
        await (await retry(call_of(), upstream)).collect()
        left = [each for each in gc.get_objects() if isinstance(each, GatewayError) and each.message == "in a cycle"]
    finally:
        gc.enable()
    assert left == []


SAYS_NO: list[tuple[dict[str, str], int]] = [
    ({"x-should-retry": "false"}, 1),
    ({"x-should-retry": "False "}, 1),
    ({"x-should-retry": "true"}, 2),
    ({"x-should-retry": "maybe"}, 2),
    ({}, 2),
]


@pytest.mark.parametrize(("headers", "calls"), SAYS_NO)
async def test_a_provider_that_says_not_to(
    call_of: Callable[..., Call], waits: list[float], headers: dict[str, str], calls: int
) -> None:
    retry, _ = retrying(tries=2)
    upstream = Upstream(*[upstream_error("rate_limit", "x", headers=headers)] * 2)
    with pytest.raises(GatewayError):
        await retry(call_of(), upstream)
    assert upstream.calls == calls


# --- without a gateway


def test_the_example_of_the_module() -> None:
    tried = doctest.testmod(module)
    assert (tried.failed, tried.attempted >= 5) == (0, True)


@pytest.mark.parametrize(
    ("faults", "calls", "ends"),
    [
        ([ConnectionResetError()], 2, "fine"),
        ([TimeoutError(), upstream_error("overloaded", "x")], 3, "fine"),
        ([upstream_error("overloaded", "x")] * 3, 3, GatewayError),
        ([upstream_error("auth", "x")], 1, GatewayError),
        ([ZeroDivisionError()], 1, ZeroDivisionError),
        ([FileNotFoundError()], 1, FileNotFoundError),
        ([upstream_error("rate_limit", "x", retry_after_s=1e9)], 1, GatewayError),
        ([upstream_error("rate_limit", "x", retry_after_s=2.0)], 2, "fine"),
    ],
)
async def test_any_work(waits: list[float], faults: list[Exception], calls: int, ends: str | type[Exception]) -> None:
    left, made = list(faults), 0

    async def work() -> str:
        nonlocal made
        made += 1
        if left:
            raise left.pop(0)
        return "fine"

    retry, _ = retrying(tries=3)
    if isinstance(ends, str):
        assert await retry.run(work) == ends
    else:
        with pytest.raises(ends):
            await retry.run(work)
    assert (made, len(waits)) == (calls, calls - 1)


async def test_any_work_within_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    retry = Retry(RetryOptions(tries=9, within=Duration(5)), lambda low, high: high, lambda: now[0])
    made: list[float] = []

    async def work() -> None:
        made.append(now[0])
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await retry.run(work)
    assert made == [0.0, 1.0, 3.0]


# --- with a provider

RULES = """
upstreams: {{openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: [{{retry: {{{options}}}}}]}}}}
routes: [{{name: all, to: openai}}]
"""


def date(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


AFTER: list[tuple[dict[str, str], tuple[float, float] | None]] = [
    ({"retry-after": "2"}, (2, 2)),
    ({"retry-after": "0"}, (0, 0)),
    ({"retry-after": "1.5"}, (1.5, 1.5)),
    ({"retry-after-ms": "250"}, (0.25, 0.25)),
    ({"retry-after-ms": "250", "retry-after": "9"}, (0.25, 0.25)),
    ({"retry-after": "<date>"}, (2, 5)),
    ({"retry-after": "Sat, 01 Jan 2000 00:00:00 GMT"}, (0, 0)),
    ({"retry-after": "soon"}, (0, 0.001)),
    ({"retry-after": "-5"}, (0, 0.001)),
    ({"retry-after": "nan"}, (0, 0.001)),
    ({"retry-after": ""}, (0, 0.001)),
    ({"retry-after": " 2 "}, (2, 2)),
    ({"retry-after": "inf"}, (0, 0.001)),
    ({"retry-after": "1" + "0" * 400}, (0, 0.001)),
    ({"retry-after": "Sat, 99 Foo 2026 00:00:00 GMT"}, (0, 0.001)),
    ({"retry-after-ms": "-1"}, (0, 0)),
    ({"retry-after-ms": "soon", "retry-after": "2"}, (2, 2)),
    # Where nobody says when to come back: when a limit that is used up is whole again, if that is soon.
    ({"x-ratelimit-reset-requests": "7s", "x-ratelimit-remaining-requests": "0"}, (7, 7)),
    ({"x-ratelimit-reset-requests": "7s", "x-ratelimit-remaining-requests": "1"}, (0, 0.001)),
    ({"x-ratelimit-reset-requests": "7s", "x-ratelimit-remaining-requests": "0", "retry-after": "2"}, (2, 2)),
    ({"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-remaining-tokens": "0"}, (0, 0.001)),
    ({"x-ratelimit-reset": "1e300", "x-ratelimit-remaining": "0"}, (0, 0.001)),
    ({"x-ratelimit-reset": "-5", "x-ratelimit-remaining": "0"}, (0, 0.001)),
    ({"x-ratelimit-reset": "nan", "x-ratelimit-remaining": "0"}, (0, 0.001)),
    ({"anthropic-ratelimit-requests-reset": "<iso>", "anthropic-ratelimit-requests-remaining": "0"}, (2, 9)),
    ({"anthropic-ratelimit-requests-reset": "soon", "anthropic-ratelimit-requests-remaining": "0"}, (0, 0.001)),
    ({"retry-after": "60"}, None),
    ({"retry-after": "1000000000"}, None),
    ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, None),
    ({"retry-after-ms": "1e12"}, None),
]


@pytest.mark.parametrize(("headers", "bounds"), AFTER)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_headers_that_say_when(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    waits: list[float],
    headers: dict[str, str],
    bounds: tuple[float, float] | None,
    stream: bool,
) -> None:
    moments = {"<date>": date(5), "<iso>": datetime.fromtimestamp(time.time() + 8, UTC).isoformat()}
    headers = {name: moments.get(value, value) for name, value in headers.items()}
    provider.answer(script(status=429, headers=headers), *([script("Second.")] if bounds else []))
    text = RULES.format(base=provider.base, options="tries: 2, backoff: 1ms")
    async with serving(tmp_path, text) as house:
        response = await http.post(
            house.base + CHAT, data=body_of(stream=stream), headers={"Content-Type": "application/json"}
        )
        await response.read()
    if bounds is None:
        assert response.status == 429
        # To a caller of the provider's own format as the provider said it; milliseconds become seconds.
        told = headers.get("retry-after") or str(int(float(headers["retry-after-ms"]) / 1000))
        assert response.headers["retry-after"] == told
        assert waits == [0] * waits.count(0)
    else:
        assert response.status == 200
        assert response.headers["headgate-attempts"] == "2"
        assert bounds[0] <= max(waits) <= bounds[1]


STREAMS: dict[str, Script] = {
    "an error event at once": script("x", error_after=0),
    "an error after the role": script("x", error_after=1),
    "cut before the words": script("x", cut_after=1),
    "an error of HTTP": script(status=503),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_streams_that_fail_before_their_words(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, name: str, path: str
) -> None:
    provider.answer(STREAMS[name], script("Second."))
    text = RULES.format(base=provider.base, options="tries: 2, backoff: 1ms")
    async with serving(tmp_path, text) as house:
        response = await http.post(
            house.base + path, data=body_of(stream=True), headers={"Content-Type": "application/json"}
        )
        answer = await response.read()
    assert response.status == 200
    assert b"error" not in answer
    assert len(provider.requests) == 2
    if path == CHAT:
        assert answer == provider.last.body


TWO_RULES = """
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: again}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY, chain: again}}
chains: {{again: [{{retry: {{tries: 2, backoff: 1ms}}}}]}}
routes:
  - {{name: claude, match: {{model: claude-*}}, to: anthropic}}
  - {{name: rest, to: openai}}
"""
ERROR_BODY = (
    b'{"error": {"message": "no capacity", "type": "server_error", "code": "server_overloaded", "param": null}}'
)
ANTHROPIC_BODY = b'{"type": "error", "error": {"type": "overloaded_error", "message": "no capacity"}}'


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("model", ["m", "claude-fake-4-5"])
async def test_an_error_as_the_whole_answer_of_a_200(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, path: str, model: str
) -> None:
    provider.answer(script(wire=ERROR_BODY if model == "m" else ANTHROPIC_BODY), script("Second."))
    text = TWO_RULES.format(base=provider.base)
    async with serving(tmp_path, text) as house:
        response = await http.post(
            house.base + path, data=body_of(model=model), headers={"Content-Type": "application/json"}
        )
        answer = await response.read()
    assert (response.status, b"Second." in answer, len(provider.requests)) == (200, True, 2)


async def test_the_second_request_is_the_first_one_again(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    provider.answer(script(status=503), script(status=503), script("Third."))
    text = RULES.format(base=provider.base, options="tries: 3, backoff: 1ms")
    async with serving(tmp_path, text) as house:
        for path in (CHAT,):
            response = await http.post(
                house.base + path, data=body_of(), headers={"Content-Type": "application/json", "x-request-id": "mine"}
            )
            assert response.status == 200
    assert len({received.raw for received in provider.requests}) == 1
    assert {received.headers["x-request-id"] for received in provider.requests} == {"mine"}


def words_of(answer: bytes, path: str) -> str:
    """The words of a stream."""
    found = []
    for line in answer.decode().splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            if path == CHAT:
                found += [choice["delta"].get("content") or "" for choice in event.get("choices") or ()]
            else:
                found.append(event.get("delta", {}).get("text", ""))
    return "".join(found)


FIRST, SECOND = "One two three.", "Four five six."


@pytest.mark.parametrize("how", ["cut_after", "error_after"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("model", ["m", "claude-fake-4-5"])
async def test_broken_at_every_event(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, path: str, model: str, how: str
) -> None:
    """Either nobody notices, or the words so far stand and an error follows: never a word lost, doubled or mixed."""
    tried, text = [], TWO_RULES.format(base=provider.base)
    async with serving(tmp_path, text) as house:

        async def ask() -> tuple[str, bool]:
            body, headers = body_of(stream=True, model=model), {"Content-Type": "application/json"}
            async with http.post(house.base + path, data=body, headers=headers) as response:
                assert response.status == 200
                answer = await response.read()
            return words_of(answer, path), b'"error"' in answer

        for after in range(12):
            provider.answer(script(FIRST, **{how: after}), script(SECOND))
            before = len(provider.requests)
            said, failed = await ask()
            asked = len(provider.requests) - before
            tried.append(asked)
            if asked == 1:
                assert FIRST.startswith(said) and (failed or said == FIRST), after
                said, failed = await ask()
            assert (said, failed) == (SECOND, False), after
    assert tried == sorted(tried, reverse=True)
    assert (tried[0], tried[-1]) == (2, 1)


async def test_a_stall_before_the_words_is_tried_again_where_asked_to(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    timeouts = "defaults: {timeout: {first_token: 150ms}}\n"
    rules = RULES.format(base=provider.base, options='tries: 2, backoff: 1ms, "on": [timeout.first_token]').lstrip()
    for stall in ({"stall_before": True}, {"stall_after": 1}):
        provider.answer(script("x", **stall), script(SECOND))
        async with serving(tmp_path, timeouts + rules) as house:
            response = await http.post(
                house.base + CHAT, data=body_of(stream=True), headers={"Content-Type": "application/json"}
            )
            assert words_of(await response.read(), CHAT) == SECOND


async def test_a_storm_of_429(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, waits: list[float]
) -> None:
    """Every caller is tried so often and no more, waits as told, and hears when to come back."""
    callers, tries = 20, 3
    provider.answer(*[script(status=429, headers={"retry-after": "3"})] * (callers * tries))
    text = RULES.format(base=provider.base, options=f"tries: {tries}")

    async with serving(tmp_path, text) as house:

        async def ask() -> tuple[int, str]:
            url, headers = house.base + CHAT, {"Content-Type": "application/json"}
            async with http.post(url, data=body_of(), headers=headers) as response:
                await response.read()
                return response.status, response.headers["retry-after"]

        answers = await asyncio.gather(*[ask() for _ in range(callers)])
    assert answers == [(429, "3")] * callers
    assert len(provider.requests) == callers * tries
    assert waits.count(3.0) == callers * (tries - 1)
