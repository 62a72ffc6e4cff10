"""When it tries again, how long it waits, and when the first failure stands."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable
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
GOOD: Play = (WORDS, None)


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
    ({"x-ratelimit-reset-requests": "7s", "x-ratelimit-remaining-requests": "0"}, (0, 0.001)),
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
    headers = {name: date(5) if value == "<date>" else value for name, value in headers.items()}
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
