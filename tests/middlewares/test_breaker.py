"""When a circuit opens, what is said meanwhile, what closes it, and what does not count."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway import rules
from headgate.gateway.call import Call
from headgate.gateway.errors import (
    KINDS,
    Avoided,
    CallerError,
    Cancelled,
    ErrorKind,
    GatewayError,
    HouseError,
    upstream_error,
)
from headgate.gateway.ir.event import Chunk, PartDelta, PartStart, ResponseStart
from headgate.gateway.ir.message import Text
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed, Sink
from headgate.gateway.units import Duration
from headgate.middlewares import breaker as module
from headgate.middlewares.breaker import Breaker, BreakerOptions
from headgate.middlewares.retry import Retry, RetryOptions

from ..fakes.provider import FakeProvider
from ..fakes.script import Say, script
from ..server.house import CHAT, MESSAGES, begin, body_of, load, serving, wire, write_rules

WORDS = (Chunk((ResponseStart(),)), Chunk((PartStart(0, Text("")),)), Chunk((PartDelta(0, "hi"),)))
DOWN = upstream_error("unavailable", "down")
Make = Callable[..., Call]


class Hands:
    """A clock that tests set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines about circuits."""
    caplog.set_level(logging.DEBUG, "headgate.breaker")
    return lambda: [each.getMessage() for each in caplog.records if each.name == "headgate.breaker"]


class Upstream:
    """The rest of a chain: does what ``play`` says, an error to raise or (chunks, error) of an answer."""

    def __init__(self, play: Any = (WORDS, None)) -> None:
        self.play = play
        self.calls = 0

    async def __call__(self, call: Call) -> Reply:
        self.calls += 1
        if isinstance(self.play, BaseException):
            raise self.play
        if callable(self.play):
            answer: Reply = await self.play(call)
            return answer
        return Reply(Listed(*self.play), call.scope)


class Running:
    """An answer that began and does not end."""

    def __init__(self, chunks: tuple[Chunk, ...] = WORDS) -> None:
        self.chunks = chunks

    def connect(self, sink: Sink[Chunk], /) -> None:
        for chunk in self.chunks:
            sink.push(chunk)

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None: ...


def breaking(hands: Hands, **options: Any) -> Breaker:
    durations = {name: Duration(value) for name, value in options.items() if name in ("window", "open", "max_open")}
    return Breaker(BreakerOptions(**{**options, **durations}), hands)


def check_refusal(error: Avoided, call: Call) -> None:
    """It says when to come back; the record says that nothing was sent."""
    assert error.kind == "unavailable"
    assert error.retry_after_s is not None and error.retry_after_s > 0
    (attempt,) = call.decision.attempts
    assert (attempt.upstream, attempt.error, attempt.calls) == (call.decision.upstream, "unavailable", 0)


async def ask(breaker: Breaker, call_of: Make, play: Any = (WORDS, None), upstream: str = "upstream") -> str:
    """Make a call to its end; return ``ok``, ``refused`` or the kind of error."""
    call, rest = call_of(stream=True), Upstream(play)
    call.decision.upstream = upstream
    try:
        await (await breaker(call, rest)).collect()
    except Avoided as error:
        check_refusal(error, call)
        assert rest.calls == 0
        return "refused"
    except GatewayError as error:
        return error.kind
    return "ok"


async def refused_for(breaker: Breaker, call_of: Make) -> float:
    with pytest.raises(Avoided) as caught:
        await breaker(call_of(), Upstream())
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


async def test_a_life(hands: Hands, call_of: Make, told: Callable[[], list[str]]) -> None:
    breaker = breaking(hands, failures=3, window=60, open=30)
    assert [await ask(breaker, call_of, DOWN) for _ in range(3)] == ["unavailable"] * 3
    assert told() == ["upstream upstream: open for 30.0 s, 3 of 3 calls failed, the last with unavailable"]
    assert [await ask(breaker, call_of) for _ in range(5)] == ["refused"] * 5
    hands.now += 10
    assert await refused_for(breaker, call_of) == 20
    hands.now += 20
    assert await ask(breaker, call_of, DOWN) == "unavailable"  # the probe
    assert await ask(breaker, call_of) == "refused"
    hands.now += 30
    assert [await ask(breaker, call_of) for _ in range(3)] == ["ok"] * 3
    assert told()[1:] == [
        "upstream upstream: half-open, one call at a time finds out whether it is back",
        "upstream upstream: open for 30.0 s, it failed again, the last with unavailable",
        "upstream upstream: half-open, one call at a time finds out whether it is back",
        "upstream upstream: closed, it answers again",
    ]
    # What failed before is forgotten.
    assert [await ask(breaker, call_of, DOWN) for _ in range(2)] == ["unavailable"] * 2
    assert await ask(breaker, call_of) == "ok"


@pytest.mark.parametrize(
    ("options", "plays", "opens"),
    [
        ({"failures": 3}, "ff", False),
        ({"failures": 3}, "fff", True),
        ({"failures": 3}, "sssfff", True),
        ({"failures": 3}, "ssssfff", False),
        ({"failures": 3}, "ssssffff", True),
        ({"failures": 3, "rate": 0.0}, "ssssssssssfff", True),
        ({"failures": 1, "rate": 1.0}, "sfff", False),
        ({"failures": 1, "rate": 1.0}, "f", True),
    ],
)
async def test_number_and_share(hands: Hands, call_of: Make, options: dict[str, Any], plays: str, opens: bool) -> None:
    breaker = breaking(hands, **options)
    for each in plays:
        assert await ask(breaker, call_of, DOWN if each == "f" else (WORDS, None)) != "refused"
    assert (await ask(breaker, call_of) == "refused") is opens


@pytest.mark.parametrize(("apart", "opens"), [(1.0, True), (20.0, True), (31.0, False), (61.0, False), (1e9, False)])
async def test_the_window(hands: Hands, call_of: Make, apart: float, opens: bool) -> None:
    breaker = breaking(hands, failures=3, window=60)
    for _ in range(3):
        await ask(breaker, call_of, DOWN)
        hands.now += apart
    hands.now -= apart
    assert (await ask(breaker, call_of) == "refused") is opens


async def test_what_the_window_holds_is_bounded(hands: Hands, call_of: Make) -> None:
    breaker = breaking(hands, failures=100_000)
    for _ in range(300):
        await ask(breaker, call_of, DOWN)
        hands.now += 0.7
    circuit = breaker._circuits["upstream"]
    assert len(circuit.calls) == len(circuit.failures) == 10
    assert 75 <= sum(circuit.calls) <= 86


@pytest.mark.parametrize("kind", KINDS)
async def test_which_kinds(hands: Hands, call_of: Make, kind: ErrorKind) -> None:
    by_default = {
        *("connect", "timeout.connect", "timeout.write", "timeout.first_token", "timeout.idle", "timeout.total"),
        *("overloaded", "unavailable", "upstream_error", "cut", "malformed"),
    }
    for options, opens in (
        ({}, kind in by_default),
        ({"kinds": (kind,)}, True),
        ({"kinds": ("not_found",)}, kind == "not_found"),
    ):
        breaker = breaking(hands, failures=1, **options)
        assert await ask(breaker, call_of, upstream_error(kind, "x")) == kind
        assert (await ask(breaker, call_of) == "refused") is opens


@pytest.mark.parametrize(
    "fault",
    [
        CallerError("x", kind="too_large"),
        HouseError("x"),
        Cancelled("x"),
        Avoided("by another one further in", kind="unavailable", retry_after_s=1),
        ZeroDivisionError(),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
async def test_what_is_not_the_upstreams_fault(hands: Hands, call_of: Make, fault: BaseException) -> None:
    breaker = breaking(hands, failures=1, kinds=tuple(KINDS))
    with pytest.raises(type(fault)):
        await breaker(call_of(), Upstream(fault))
    assert sum(breaker._circuits["upstream"].calls) == 0
    assert await ask(breaker, call_of) == "ok"


async def test_a_call_that_is_cancelled_at_its_deadline(hands: Hands, call_of: Make) -> None:
    breaker = breaking(hands, failures=1)
    call = call_of()
    with pytest.raises(asyncio.CancelledError):
        await breaker(call.replace(deadline=call.scope.loop.time() - 1), Upstream(asyncio.CancelledError()))
    assert await ask(breaker, call_of) == "refused"


@pytest.mark.parametrize("after", range(len(WORDS) + 1))
async def test_cut_at_every_event(hands: Hands, call_of: Make, after: int) -> None:
    breaker = breaking(hands, failures=2)
    cut = (WORDS[:after], upstream_error("cut", "x"))
    assert [await ask(breaker, call_of, cut) for _ in range(3)] == ["cut", "cut", "refused"]


async def test_a_client_that_leaves_is_no_failure(hands: Hands, call_of: Make) -> None:
    breaker = breaking(hands, failures=1, kinds=tuple(KINDS))

    async def talking(call: Call) -> Reply:
        return Reply(Running(), call.scope)

    reply = await breaker(call_of(stream=True), talking)
    await reply.opened()
    reply.abort()
    assert sum(breaker._circuits["upstream"].calls) == 0
    assert await ask(breaker, call_of) == "ok"


async def test_a_whole_answer_and_chunks_pass_as_they_are(hands: Hands, call_of: Make) -> None:
    breaker = breaking(hands, failures=1)
    chunk = Chunk((ResponseStart(),), b"{}")

    async def whole(call: Call) -> Reply:
        return Reply.whole(chunk, call.scope)

    assert (await (await breaker(call_of(), whole)).collect())[0] is chunk
    assert all(a is b for a, b in zip(await (await breaker(call_of(), Upstream())).collect(), WORDS, strict=True))
    assert sum(breaker._circuits["upstream"].calls) == 2


# --- how long


@pytest.mark.parametrize(
    ("asked", "waits"),
    [(None, 30), (0.0, 30), (-5.0, 30), (5.0, 30), (45.0, 45), (1e9, 600), (float("inf"), 600), (float("nan"), 30)],
)
async def test_what_the_provider_asks_for(hands: Hands, call_of: Make, asked: float | None, waits: float) -> None:
    breaker = breaking(hands, failures=2, open=30, max_open=600)
    await ask(breaker, call_of, upstream_error("overloaded", "x", retry_after_s=asked))
    await ask(breaker, call_of, DOWN)
    assert await refused_for(breaker, call_of) == waits
    hands.now += waits
    assert await ask(breaker, call_of, upstream_error("overloaded", "x", retry_after_s=asked)) == "overloaded"
    assert await refused_for(breaker, call_of) == waits


async def test_a_longer_wait_is_never_shortened(hands: Hands, call_of: Make) -> None:
    breaker = breaking(hands, failures=2)
    for asked in (300.0, 40.0):
        await ask(breaker, call_of, upstream_error("overloaded", "x", retry_after_s=asked))
    assert await refused_for(breaker, call_of) == 300


async def test_calls_from_before_it_opened(hands: Hands, call_of: Make, told: Callable[[], list[str]]) -> None:
    """They may lengthen the wait, but neither close the circuit nor open it a second time."""
    breaker = breaking(hands, failures=1)
    ends: list[tuple[GatewayError | None, float]] = [
        (None, 30),
        (DOWN, 30),
        (upstream_error("overloaded", "x", retry_after_s=20), 30),
        (upstream_error("overloaded", "x", retry_after_s=90), 90),
    ]
    before = [await breaker(call_of(stream=True), Upstream((WORDS, error))) for error, _ in ends]
    late = await breaker(call_of(stream=True), Upstream((WORDS, DOWN)))
    await ask(breaker, call_of, DOWN)
    for reply, (error, waits) in zip(before, ends, strict=True):
        if error is None:
            await reply.collect()
        else:
            with pytest.raises(GatewayError):
                await reply.collect()
        assert await refused_for(breaker, call_of) == waits
    hands.now += 90
    assert await ask(breaker, call_of) == "ok"
    with pytest.raises(GatewayError):
        await late.collect()
    assert await ask(breaker, call_of) == "ok"
    assert len(told()) == 3


@pytest.mark.parametrize("jump", [-1e6, 1e6])
async def test_a_clock_that_jumps(hands: Hands, call_of: Make, jump: float) -> None:
    breaker = breaking(hands, failures=2, max_open=600)
    await ask(breaker, call_of, DOWN)
    hands.now += jump
    assert await ask(breaker, call_of, DOWN) == "unavailable"
    assert await ask(breaker, call_of, DOWN) == "unavailable"
    assert await ask(breaker, call_of) == "refused"
    hands.now += jump
    assert await ask(breaker, call_of) == "ok"


# --- half-open


async def test_one_probe_at_a_time(hands: Hands, call_of: Make, told: Callable[[], list[str]]) -> None:
    breaker = breaking(hands, failures=1)
    await ask(breaker, call_of, DOWN)
    hands.now += 30
    go = asyncio.Event()

    async def slow(call: Call) -> Reply:
        await go.wait()
        return Reply(Listed(WORDS, None), call.scope)

    probe = begin(ask(breaker, call_of, slow))
    await asyncio.sleep(0)
    assert [await ask(breaker, call_of) for _ in range(100)] == ["refused"] * 100
    assert await refused_for(breaker, call_of) == 1
    go.set()
    assert await probe == "ok"
    assert await ask(breaker, call_of) == "ok"
    assert len(told()) == 3


@pytest.mark.parametrize(
    ("play", "then"),
    [
        ((WORDS[:1], DOWN), "refused"),
        ((WORDS, DOWN), "ok"),  # its first words closed it; that failure is the first of a new count, of two
        (upstream_error("invalid_request", "x"), "ok"),
        (upstream_error("rate_limit", "x"), "ok"),
        (upstream_error("timeout.pool", "x"), "probed"),
        (CallerError("x"), "probed"),
        (asyncio.CancelledError(), "probed"),
        (ZeroDivisionError(), "probed"),
    ],
    ids=repr,
)
async def test_what_a_probe_says(
    hands: Hands, call_of: Make, told: Callable[[], list[str]], play: Any, then: str
) -> None:
    breaker = breaking(hands, failures=2)
    for _ in range(2):
        await ask(breaker, call_of, DOWN)
    hands.now += 30
    try:
        await ask(breaker, call_of, play)
    except (asyncio.CancelledError, ZeroDivisionError):
        pass
    half_open = [line for line in told() if "half-open" in line]
    assert len(half_open) == 1
    if then == "probed":
        assert await ask(breaker, call_of, DOWN) == "unavailable"
        assert await ask(breaker, call_of) == "refused"
        assert [line for line in told() if "half-open" in line] == half_open
    else:
        assert await ask(breaker, call_of) == then


async def test_a_probe_whose_caller_leaves_before_its_words(hands: Hands, call_of: Make) -> None:
    breaker = breaking(hands, failures=1)
    await ask(breaker, call_of, DOWN)
    hands.now += 30

    async def silent(call: Call) -> Reply:
        return Reply(Running(()), call.scope)

    call = call_of(stream=True)
    task = begin(breaker(call, silent))
    await asyncio.sleep(0)
    assert await ask(breaker, call_of) == "refused"
    call.scope.close()
    with pytest.raises(Cancelled):
        await task
    assert await ask(breaker, call_of) == "ok"


# --- whose state


async def test_each_upstream_has_its_own(hands: Hands, call_of: Make) -> None:
    breaker = breaking(hands, failures=1)
    await ask(breaker, call_of, DOWN, "one")
    assert [await ask(breaker, call_of, upstream=name) for name in ("one", "two")] == ["refused", "ok"]


async def test_bounded(hands: Hands, call_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CIRCUITS", 10)
    breaker = breaking(hands, failures=1)
    for number in range(50):
        await ask(breaker, call_of, DOWN, f"u{number}")
    assert list(breaker._circuits) == [f"u{number}" for number in range(40, 50)]


async def test_a_reload_changes_nothing_but_the_options(hands: Hands, call_of: Make) -> None:
    old = breaking(hands, failures=3, window=60)
    for _ in range(2):
        await ask(old, call_of, DOWN)
    new = breaking(hands, failures=3, window=600, open=10)
    new.carry_over(old)
    assert await ask(new, call_of, DOWN) == "unavailable"
    assert [await ask(each, call_of) for each in (old, new)] == ["refused", "refused"]
    hands.now += 10
    assert [await ask(each, call_of) for each in (old, new)] == ["ok", "ok"]


@pytest.mark.parametrize("options", [{"window": 0}, {"open": 0}, {"open": 30, "max_open": 10}])
def test_options_that_make_no_sense(hands: Hands, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"above zero|not be shorter"):
        breaking(hands, **options)


@pytest.mark.parametrize(
    ("item", "column"),
    [
        ("{failures: 0}", "failures"),
        ("{rate: 2}", "rate"),
        ("{window: 60}", "window"),
        ("{open: 30}", "open"),
        ("{max_open: soon}", "max_open"),
        ("{kinds: [sulking]}", "sulking"),
        ("{kinds: []}", "kinds"),
        ("{opne: 30s}", "opne"),
        ("{max_open: 1s}", "max_open must not be shorter"),
    ],
)
def test_mistakes_in_rules_have_a_place(tmp_path: Path, item: str, column: str) -> None:
    path = tmp_path / "routes.yaml"
    head = "upstreams: {sim: {adapter: simulator, chain: [{breaker: "
    write_rules(path, f"{head}{item}}}]}}}}\nroutes: [{{name: all, to: sim}}]\n")
    (problem,) = rules.check(path)
    assert "routes.yaml:2:" in str(problem)
    assert column in str(problem)


async def test_it_goes_round_retry(hands: Hands, call_of: Make) -> None:
    """Nobody waits for an open circuit, however short the wait would be."""
    breaker, calls = breaking(hands, failures=1, open=0.01), []

    async def inner(call: Call) -> Reply:
        calls.append(call)
        return await breaker(call, Upstream(DOWN))

    retry = Retry(RetryOptions(tries=5), lambda low, high: 0.0)
    with pytest.raises(Avoided):
        await retry(call_of(), inner)
    assert len(calls) == 2


# --- with a provider

RULES = """
upstreams:
  first: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: [{{breaker: {{{options}}}}}]}}
  second: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
targets:
  both:
    select: [{{use: first}}]
    on_failure: [{{kinds: [unavailable, overloaded, cut], use: second/claude-fake-4-5}}]
chains: {{base: [log]}}
routes:
  - {{name: both, match: {{model: both}}, chain: base, to: both}}
  - {{name: alone, chain: base, to: first}}
"""
JSON = {"Content-Type": "application/json"}
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@both
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_on_failure_goes_on_at_once(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, path: str, stream: bool
) -> None:
    text = RULES.format(base=provider.base, options="failures: 2")
    async with serving(tmp_path, text) as house:
        for number in range(4):
            provider.answer(*([script(status=503)] if number < 2 else []), script(Say("second", pieces=1)))
            response = await http.post(house.base + path, data=body_of(stream=stream, model="both"), headers=JSON)
            answer = await response.text()
            assert response.status == 200
            assert "second" in answer
            assert (response.headers["headgate-upstream"], response.headers["headgate-attempts"]) == ("second", "2")
    assert [each.api for each in provider.requests] == ["openai", "anthropic"] * 2 + ["anthropic"] * 2


@both
@pytest.mark.parametrize(
    ("after", "bounds"),
    [("120", (118, 120)), ("1000000000", (598, 600)), ("-5", (28, 30)), ("soon", (28, 30)), ("<date>", (115, 120))],
)
async def test_what_the_caller_sees_of_an_open_circuit(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    stream: bool,
    after: str,
    bounds: tuple[int, int],
) -> None:
    if after == "<date>":
        after = email.utils.formatdate(time.time() + 120, usegmt=True)
    provider.answer(script(status=503, headers={"retry-after": after}))
    async with serving(tmp_path, RULES.format(base=provider.base, options="failures: 1")) as house:
        for path in (CHAT, CHAT, MESSAGES):
            response = await http.post(house.base + path, data=body_of(stream=stream), headers=JSON)
            answer = await response.json()
            assert response.status in (503, 529)
        assert "first failed too often lately" in answer["error"]["message"]
        assert bounds[0] <= int(response.headers["retry-after"]) <= bounds[1]
    assert len(provider.requests) == 1


@pytest.mark.parametrize("failing", ["cut_after", "error_after"])
async def test_a_stream_that_fails_after_its_words_counts(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, failing: str
) -> None:
    provider.answer(*[script("Some words.", **{failing: 3})] * 2)
    async with serving(tmp_path, RULES.format(base=provider.base, options="failures: 2")) as house:
        statuses = []
        for _ in range(3):
            try:
                response = await http.post(house.base + CHAT, data=body_of(stream=True), headers=JSON)
                statuses.append(response.status)
                await response.read()
            except aiohttp.ClientPayloadError:
                pass
    assert statuses == [200, 200, 503]


@pytest.mark.parametrize(("stall", "counted"), [({"stall_before": True}, "first_token"), ({"stall_after": 3}, "idle")])
async def test_a_provider_that_stalls(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    told: Callable[[], list[str]],
    stall: dict[str, Any],
    counted: str,
) -> None:
    provider.answer(*[script("Some words.", **stall)] * 2)
    text = RULES.format(base=provider.base, options="failures: 2")
    text = f"defaults: {{timeout: {{{counted}: 150ms}}}}\n" + text.lstrip()
    async with serving(tmp_path, text) as house:
        for _ in range(3):
            response = await http.post(house.base + CHAT, data=body_of(stream=True), headers=JSON)
            await response.read()
    assert response.status == 503
    assert told() == [f"upstream first: open for 30.0 s, 2 of 2 calls failed, the last with timeout.{counted}"]


async def test_a_storm_of_429_opens_it_where_asked_to(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    for options, asked in (("failures: 3", 6), ("failures: 3, kinds: [rate_limit]", 3)):
        provider.answer(*[script(status=429, headers={"retry-after": "7"})] * asked)
        before = len(provider.requests)
        async with serving(tmp_path, RULES.format(base=provider.base, options=options)) as house:
            for _ in range(6):
                await (await http.post(house.base + CHAT, data=body_of(), headers=JSON)).read()
        assert len(provider.requests) - before == asked


async def test_a_client_that_hangs_up_is_no_failure(tmp_path: Path, provider: FakeProvider) -> None:
    async with serving(tmp_path, RULES.format(base=provider.base, options="failures: 1")) as house:
        provider.answer(script("x", stall_after=2), script("Hello."))
        for _ in range(2):
            async with wire(house) as client:
                body = body_of(stream=True)
                client.send(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%s" % (len(body), body)
                )
                status, _ = await client.head()
                assert status == 200
                await client.piece()
            await house.idle()


async def test_what_is_passed_on_is_counted_too(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, hands: Hands
) -> None:
    """The provider knows no such file; that is let count here, and goes for the rest of the upstream's calls."""
    text = RULES.format(base=provider.base, options="failures: 1, kinds: [not_found]")
    text = text.replace("first: {adapter: openai,", "first: {adapter: openai, passthrough: true,")
    text = text.replace("routes:", 'routes:\n  - {name: files, match: {path: "/v1/files*"}, to: first}')
    async with serving(tmp_path, text) as house:
        (breaker,) = house.gateway.plan.upstreams["first"].middlewares
        assert isinstance(breaker, Breaker)
        breaker._clock = hands
        statuses = []
        for method, path in (("GET", "/v1/files/file-none"), ("GET", "/v1/files/file-none"), ("POST", CHAT)):
            response = await http.request(
                method, house.base + path, data=body_of() if method == "POST" else None, headers=JSON
            )
            await response.read()
            statuses.append(response.status)
        hands.now += 30
        response = await http.get(house.base + "/v1/files/file-none")  # the probe
        await response.read()
    assert [*statuses, response.status] == [404, 503, 503, 404]


async def test_it_survives_a_reload(tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    provider.answer(script(status=503))
    async with serving(tmp_path, RULES.format(base=provider.base, options="failures: 1")) as house:
        statuses = []
        for options in ("failures: 1", "failures: 7, open: 20s", "window: 5s"):
            house.rewrite(RULES.format(base=provider.base, options=options))
            await house.gateway.reload()
            response = await http.post(house.base + CHAT, data=body_of(), headers=JSON)
            await response.read()
            statuses.append((response.status, len(provider.requests)))
    assert statuses == [(503, 1)] * 3
    # A restart knows of nothing.
    async with serving(tmp_path, RULES.format(base=provider.base, options="failures: 1")) as house:
        assert (await http.post(house.base + CHAT, data=body_of(), headers=JSON)).status == 200


async def test_the_page_says_what_the_types_say() -> None:
    text = (Path(__file__).parents[2] / "docs/retry.md").read_text()
    for name in BreakerOptions.__struct_fields__:
        assert f"| `{name}` |" in text
    for kind in BreakerOptions().kinds:
        assert f"`{kind}`" in text


def test_in_process(tmp_path: Path) -> None:
    gateway = load(
        tmp_path, "upstreams: {sim: {adapter: simulator, chain: [breaker]}}\nroutes: [{name: all, to: sim}]\n"
    )
    assert gateway.plan.upstreams["sim"].chain_names == ("breaker",)
