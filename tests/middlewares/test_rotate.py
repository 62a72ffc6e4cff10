"""Which account a call goes out with, what a failure says of it, when it is used again, and what never gets in its way."""

from __future__ import annotations

import asyncio
import email.utils
import gc
import logging
import random
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from headgate.gateway.accounts.affinity import Sessions, session_by, session_of
from headgate.gateway.accounts.options import CooldownRules
from headgate.gateway.accounts.pool import AccountPool, Member, member_of
from headgate.gateway.call import Call
from headgate.gateway.codecs.headers import retry_after_s
from headgate.gateway.errors import (
    KINDS,
    Avoided,
    CallerError,
    ErrorKind,
    GatewayError,
    HouseError,
    UpstreamError,
    upstream_error,
)
from headgate.gateway.ir.event import Chunk, PartDelta, PartStart, ResponseStart
from headgate.gateway.ir.message import Text
from headgate.gateway.passing.request import Passed
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed, Sink
from headgate.gateway.units import Duration
from headgate.middlewares.breaker import Breaker, BreakerOptions
from headgate.middlewares.retry import Retry, RetryOptions
from headgate.middlewares.rotate import Rotate, RotateOptions

from ..server.house import begin

WORDS = (Chunk((ResponseStart(),)), Chunk((PartStart(0, Text("")),)), Chunk((PartDelta(0, "hi"),)))
ABOUT_ACCOUNT: tuple[ErrorKind, ...] = ("rate_limit", "quota", "auth", "account_disabled")
Make = Callable[..., Call]


class Hands:
    """Clocks that tests set."""

    now = 1000.0
    unix = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.unix

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.unix += seconds


@pytest.fixture
def hands() -> Hands:
    return Hands()


def failure(kind: ErrorKind, message: str = "no", **fields: Any) -> UpstreamError:
    return upstream_error(kind, message, **fields)


def duration(value: float | None) -> Duration | None:
    return None if value is None else Duration(value)


class Provider:
    """The rest of a chain: each account plays its part, an error to raise, or (chunks, error) of an answer; "ok" at first."""

    def __init__(self, **plays: Any) -> None:
        self.plays = plays
        self.sent: list[str] = []
        self.causes: list[str] = []
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> Reply:
        assert call.account is not None and call.account.credential == f"sk-{call.account.id}"
        self.sent.append(call.account.id)
        self.causes.append(call.cause)
        self.calls.append(call)
        attempt = call.attempt(call.decision.upstream)
        play = self.plays.get(call.account.id, (WORDS, None))
        if isinstance(play, list):
            play = play.pop(0) if play else (WORDS, None)
        if callable(play):
            play = await play(call)
        if isinstance(play, BaseException):
            if isinstance(play, GatewayError):
                attempt.error = play.kind
            try:
                raise play
            finally:
                del play  # it holds this frame
        return Reply(Listed(*play), call.scope)


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


class House:
    """A pool of accounts behind rotate."""

    def __init__(self, hands: Hands, call_of: Make, provider: Provider, ids: str = "abc", **options: Any) -> None:
        self.hands = hands
        self.provider = provider
        self._call_of = call_of
        tries = options.pop("tries", 5)
        members = options.pop("members", None) or [member_of(id, f"sk-{id}") for id in ids]
        names = {field.name for field in msgspec.structs.fields(CooldownRules)}
        rules = {name: options.pop(name) for name in names & options.keys()}
        for name in ("else_", "quota", "auth", "max"):
            if name in rules:
                rules[name] = duration(rules[name])
        self.pool = AccountPool("pool", members, rules=CooldownRules(**rules), clock=hands, wall=hands.wall, **options)
        self.rotate = Rotate(RotateOptions(tries=tries))
        self.rotate.pools["upstream"] = self.pool
        self.last: Call | None = None

    def member(self, id: str) -> Member:
        return next(each for each in self.pool.all if each.id == id)

    async def ask(self, headers: dict[str, str] | None = None, **more: Any) -> str:
        """Make a call to its end; return the account that answered, or the kind of error."""
        body = more.pop("body", b"")
        self.last = call = self._call_of(headers, stream=True, **more)
        if body is None:
            self.last = call = call.replace(body=None)
        try:
            await (await self.rotate(call, self.provider)).collect()
        except GatewayError as error:
            return error.kind
        finally:
            call.scope.close()
        return self.provider.sent[-1]

    async def refused(self, **more: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.rotate(self._call_of(stream=True, **more), self.provider)
        return caught.value


@pytest.fixture
def house_of(hands: Hands, call_of: Make) -> Callable[..., House]:
    def make(provider: Provider | None = None, ids: str = "abc", **options: Any) -> House:
        return House(hands, call_of, provider or Provider(), ids, **options)

    return make


# -- whose turn it is


@pytest.mark.parametrize(
    ("pick", "members", "expected"),
    [
        ("round_robin", [("a", 1, 0), ("b", 1, 0), ("c", 1, 0)], {"a": 20, "b": 20, "c": 20}),
        ("fill_first", [("a", 1, 0), ("b", 1, 0), ("c", 1, 0)], {"a": 60}),
        ("weighted", [("a", 3, 0), ("b", 2, 0), ("c", 1, 0)], {"a": 30, "b": 20, "c": 10}),
        ("least_used", [("a", 2, 0), ("b", 1, 0)], {"a": 40, "b": 20}),
        ("priority", [("a", 1, 7), ("b", 1, 2), ("c", 1, 2)], {"b": 30, "c": 30}),
    ],
)
async def test_turns(house_of: Callable[..., House], pick: str, members: Any, expected: dict[str, int]) -> None:
    made = [member_of(id, f"sk-{id}", weight, priority) for id, weight, priority in members]
    house = house_of(members=made, pick=pick)
    assert Counter([await house.ask() for _ in range(60)]) == expected


async def test_turns_are_evenly_spread(house_of: Callable[..., House]) -> None:
    house = house_of()
    assert "".join([await house.ask() for _ in range(7)]) == "abcabca"
    weighted = house_of(members=[member_of("a", "sk-a", 3), member_of("b", "sk-b")], pick="weighted")
    assert "".join([await weighted.ask() for _ in range(16)]).count("bb") == 0


@pytest.mark.parametrize("ids", ["a", "ab", "abcde"])
@pytest.mark.parametrize("pick", ["round_robin", "weighted"])
async def test_turns_come_as_they_do_the_long_way(
    house_of: Callable[..., House], call_of: Make, pick: str, ids: str
) -> None:
    """Where only turns count and all can be used, they are found at once: as where each account is asked."""
    houses = []
    for _ in range(2):
        weights = [1.0] * len(ids) if pick == "round_robin" else [1.0 + number % 3 for number in range(len(ids))]
        members = [member_of(id, f"sk-{id}", weight) for id, weight in zip(ids, weights, strict=True)]
        houses.append(house_of(members=members, pick=pick))
    short, long = (house.pool for house in houses)
    assert short._by_turn
    long._by_turn = False
    error = failure("rate_limit")
    dice, found = random.Random(7), []
    for _ in range(300):
        parks, rests, skips = dice.random() < 0.05, dice.random() < 0.05, dice.random() < 0.1
        uses = []
        for pool in (short, long):
            call, skip = call_of(), pool.members[:1] if skips else ()
            use = pool.take(call, skip)
            uses.append(None if use is None else (use.member.id, use.alone, len(use.probed or ())))
            if use is not None:
                use.close(error if parks else None)
        assert uses[0] == uses[1]
        found.append(uses[0])
        if rests:
            houses[0].hands.now += 40.0
            for pool in (short, long):
                for member in pool.members:
                    pool.back(member, "m")
    assert len(set(found)) >= len(ids)
    assert {member.id: member.state.turn for member in short.members} == {
        member.id: member.state.turn for member in long.members
    }
    assert all(member.state.in_flight == 0 for pool in (short, long) for member in pool.members)


async def test_a_scope_that_closes_while_the_answer_is_awaited(house_of: Callable[..., House], call_of: Make) -> None:
    """What comes back to a closed scope is read by nobody: the account is not busy with it."""
    go, call, house = asyncio.Event(), call_of(stream=True), house_of(None, "a")

    async def late(call: Call) -> Reply:
        await go.wait()
        return Reply(Running(), call.scope)

    task = begin(house.rotate(call, late))
    await asyncio.sleep(0)
    assert house.member("a").state.in_flight == 1
    call.scope.close()
    go.set()
    reply = await task
    assert house.member("a").state.in_flight == 0
    reply.abort()
    assert house.member("a").state.in_flight == 0


async def test_least_used_looks_at_calls_under_way(house_of: Callable[..., House], call_of: Make) -> None:
    async def runs(call: Call) -> Any:
        return Reply(Running(), call.scope)

    house = house_of(pick="least_used")

    async def begin() -> str:
        async def rest(call: Call) -> Reply:
            assert call.account is not None
            began.append(call.account.id)
            return Reply(Running(), call.scope)

        open_.append(await house.rotate(call_of(stream=True), rest))
        return began[-1]

    began: list[str] = []
    open_: list[Reply] = []
    assert sorted([await begin() for _ in range(6)]) == list("aabbcc")
    for reply, id in zip(open_, began, strict=True):
        if id == "b":
            reply.abort()
    assert [await begin(), await begin()] == ["b", "b"]
    for reply in open_:
        reply.abort()
    assert [member.state.in_flight for member in house.pool.members] == [0, 0, 0]


async def test_who_was_away_has_no_arrears(house_of: Callable[..., House], hands: Hands) -> None:
    provider = Provider(a=[failure("rate_limit", retry_after_s=100.0)])
    house = house_of(provider, "ab")
    assert [await house.ask() for _ in range(21)] == ["b"] * 21
    hands.pass_(101)
    assert [await house.ask() for _ in range(6)].count("a") in (3, 4)


async def test_a_member_that_is_off_is_left_out(house_of: Callable[..., House]) -> None:
    house = house_of(members=[member_of("a", "sk-a"), member_of("b", None, off="B is not set")])
    assert {await house.ask() for _ in range(4)} == {"a"}


# -- what a failure says


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inside", [False, True], ids=["status", "in a 200"])
async def test_which_kinds_move_a_call_on(house_of: Callable[..., House], kind: ErrorKind, inside: bool) -> None:
    error = failure(kind)
    house = house_of(Provider(a=((WORDS[0],), error) if inside else error))
    moves = kind in (*ABOUT_ACCOUNT, "permission")
    assert await house.ask() == ("b" if moves else kind)
    assert house.provider.sent == (["a", "b"] if moves else ["a"])
    assert house.provider.causes == (["", "rotate"] if moves else [""])
    house.provider.sent.clear()
    house.provider.plays.clear()
    await house.ask()
    await house.ask()
    await house.ask()
    assert ("a" in house.provider.sent) is not moves


@pytest.mark.parametrize("error", [CallerError("yours", kind="auth"), HouseError("ours"), ValueError("odd")])
async def test_what_is_not_the_providers_moves_nothing(
    house_of: Callable[..., House], call_of: Make, error: Exception
) -> None:
    house = house_of(Provider(a=error))
    with pytest.raises(type(error)):
        await house.rotate(call_of(stream=True), house.provider)
    assert house.provider.sent == ["a"]
    assert house.member("a").state.in_flight == 0 and not house.member("a").state.cooling


async def test_the_record_says_what_was_tried(house_of: Callable[..., House]) -> None:
    house = house_of(Provider(a=((WORDS[0],), failure("quota")), b=failure("auth")))
    assert await house.ask() == "c"
    assert house.last is not None
    decision = house.last.decision
    assert [(each.account, each.cause, each.error) for each in decision.attempts] == [
        ("a", "", "quota"), ("b", "rotate", "auth"), ("c", "rotate", None),
    ]  # fmt: skip
    assert [(step.middleware, step.what, dict(step.facts)) for step in decision.steps] == [
        ("rotate", "moved", {"from": "a", "to": "b", "kind": "quota"}),
        ("rotate", "moved", {"from": "b", "to": "c", "kind": "auth"}),
    ]


async def test_a_call_that_went_well_leaves_no_step(house_of: Callable[..., House]) -> None:
    house = house_of()
    await house.ask()
    assert house.last is not None and house.last.decision.steps == []


@pytest.mark.parametrize(
    ("kind", "scope", "others"),
    [
        ("rate_limit", "account+model", True),
        ("rate_limit", "account", False),
        ("quota", "account+model", False),
        ("auth", "account+model", False),
        ("account_disabled", "account+model", False),
    ],
)
async def test_what_a_failure_closes(
    house_of: Callable[..., House], call_of: Make, kind: ErrorKind, scope: str, others: bool
) -> None:
    house = house_of(Provider(a=[failure(kind)]), scope=scope, pick="fill_first")
    assert await house.ask() == "b"
    call = call_of(stream=True).replace(model="another")
    await (await house.rotate(call, house.provider)).collect()
    assert house.provider.sent[-1] == ("a" if others else "b")


async def test_permission_is_about_the_account_if_another_one_has_it(house_of: Callable[..., House]) -> None:
    no = failure("permission")
    house = house_of(Provider(a=no, b=no, c=no), pick="fill_first")
    assert await house.ask() == "permission"
    assert house.provider.sent == ["a", "b", "c"]
    assert not any(member.state.cooling for member in house.pool.members)
    house.provider.plays = {"a": no}
    assert await house.ask() == "b"
    assert await house.ask() == "b"
    assert house.provider.sent[3:] == ["a", "b", "b"]
    assert house.member("a").state.cooling.keys() == {"m"}


async def test_one_request_that_is_too_large_closes_no_account(house_of: Callable[..., House]) -> None:
    message = "Request too large for gpt-x in organization org-x on tokens per min (TPM): Limit 30000, Requested 40000."
    error = failure("rate_limit", message)
    house = house_of(Provider(a=error, b=error, c=error))
    assert await house.ask() == "rate_limit"
    assert sorted(house.provider.sent) == ["a", "b", "c"]
    assert not any(member.state.cooling for member in house.pool.members)


async def test_tries_are_counted(house_of: Callable[..., House]) -> None:
    no = failure("rate_limit")
    house = house_of(Provider(**{id: no for id in "abcdef"}), "abcdefg", tries=3)
    error = await house.refused()
    assert house.provider.sent == ["a", "b", "c"]
    assert (error.kind, error.retry_after_s) == ("rate_limit", 0.0)  # others are free: at once
    assert await house.ask() == "rate_limit"
    assert await house.ask() == "g"


async def test_nothing_is_sent_twice_after_the_commit(house_of: Callable[..., House], call_of: Make) -> None:
    async def commits(call: Call) -> Any:
        call.scope.committed = True
        return failure("rate_limit")

    house = house_of(Provider(a=commits))
    assert await house.ask() == "rate_limit"
    assert house.provider.sent == ["a"]


async def test_nothing_is_sent_after_the_deadline(house_of: Callable[..., House]) -> None:
    house = house_of(Provider(a=failure("rate_limit")))
    assert await house.ask(deadline=0.0) == "rate_limit"
    assert house.provider.sent == ["a"]


async def test_a_failure_inside_an_answer_is_remembered(house_of: Callable[..., House]) -> None:
    house = house_of(Provider(a=[(WORDS, failure("rate_limit"))]), pick="fill_first")
    assert await house.ask() == "rate_limit"
    assert house.provider.sent == ["a"]
    assert await house.ask() == "b"
    assert house.provider.sent == ["a", "b"]


# -- how long


@pytest.mark.parametrize(
    ("kind", "fields", "length"),
    [
        ("rate_limit", {}, 30.0),
        ("rate_limit", {"retry_after_s": 12.5}, 12.5),
        ("rate_limit", {"retry_after_s": 0.0}, 30.0),
        ("rate_limit", {"retry_after_s": -5.0}, 30.0),
        ("rate_limit", {"retry_after_s": float("nan")}, 30.0),
        ("rate_limit", {"retry_after_s": float("inf")}, 30.0),
        ("rate_limit", {"retry_after_s": 1e9}, 21600.0),
        ("quota", {}, 3600.0),
        ("quota", {"retry_after_s": 7.0}, 7.0),
        ("auth", {"retry_after_s": 7.0}, 3600.0),
        ("account_disabled", {}, 3600.0),
    ],
)
async def test_how_long(
    house_of: Callable[..., House], hands: Hands, kind: ErrorKind, fields: dict[str, Any], length: float
) -> None:
    house = house_of(Provider(a=[failure(kind, **fields)]), "a")
    error = await house.refused()
    assert (error.kind, error.retry_after_s) == (kind, length)
    hands.pass_(length - 0.001)
    assert await house.ask() == kind
    assert house.provider.sent == ["a"]
    hands.pass_(0.002)
    assert await house.ask() == "a"
    assert not house.member("a").state.cooling


@pytest.mark.parametrize(
    ("spelled", "length"),
    [
        ("5", 5.0), ("1000000000", 21600.0), ("-3", 30.0), ("nan", 30.0), ("soon", 30.0), ("", 30.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 30.0), ("Fri, 01 Jan 9999 00:00:00 GMT", 21600.0), ("1e400", 30.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 30.0),
    ],
)  # fmt: skip
async def test_any_retry_after(house_of: Callable[..., House], spelled: str, length: float) -> None:
    told = retry_after_s({"retry-after": spelled})
    house = house_of(Provider(a=failure("rate_limit", retry_after_s=told)), "a")
    assert (await house.refused()).retry_after_s == length


async def test_a_date_is_a_wait(house_of: Callable[..., House]) -> None:
    told = retry_after_s({"retry-after": email.utils.formatdate(time.time() + 100, usegmt=True)})
    house = house_of(Provider(a=failure("rate_limit", retry_after_s=told)), "a")
    wait = (await house.refused()).retry_after_s
    assert wait is not None and 98 < wait <= 100


async def test_the_providers_reset(house_of: Callable[..., House]) -> None:
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s", "retry-after": "2"}
    error = failure("rate_limit", retry_after_s=2.0, headers=headers)
    house = house_of(Provider(a=[error]), "a", until=("reset-header", "retry-after"))
    refused = await house.refused()
    assert refused.retry_after_s == 360.0
    assert "retry-after" not in refused.headers  # ours stands in its place
    for told, wait in (({"retry_after_s": 2.0}, 2.0), ({}, 360.0)):
        by_default = house_of(Provider(a=[failure("rate_limit", headers=headers, **told)]), "a")
        assert (await by_default.refused()).retry_after_s == wait


async def test_a_shorter_wait_never_shortens(house_of: Callable[..., House], hands: Hands) -> None:
    house = house_of(Provider())
    call = house._call_of(stream=True)
    member = house.member("a")
    for wait in (100.0, 5.0, 0.5):
        house.pool.park(member, call, failure("rate_limit", retry_after_s=wait))
    hands.pass_(50)
    house.pool.park(member, call, failure("rate_limit", retry_after_s=1.0))
    hands.pass_(49)
    assert [await house.ask() for _ in range(4)] == ["b", "c", "b", "c"]
    house.pool.park(member, call, failure("rate_limit", retry_after_s=60.0))
    hands.pass_(2)
    assert "a" not in [await house.ask() for _ in range(4)]
    hands.pass_(59)
    assert "a" in [await house.ask() for _ in range(4)]


async def test_until_somebody_resets_it(house_of: Callable[..., House], hands: Hands) -> None:
    house = house_of(Provider(a=[failure("auth")]), "a", auth=None)
    assert (await house.refused()).kind == "auth"
    hands.pass_(1e9)
    error = await house.refused()
    assert (error.kind, error.retry_after_s) == ("auth", None)
    assert "refuses each of them" in error.message
    assert house.provider.sent == ["a"]
    house.member("a").state.reset(hands.unix)
    assert await house.ask() == "a"


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
async def test_the_wall_clock_may_jump(house_of: Callable[..., House], hands: Hands, jump: float) -> None:
    house = house_of(Provider(a=[failure("rate_limit", retry_after_s=60.0)]), "a")
    await house.ask()
    hands.unix += jump
    hands.now += 59
    assert await house.ask() == "rate_limit"
    hands.now += 2
    assert await house.ask() == "a"


async def test_a_monotonic_clock_that_goes_back_locks_nobody_out(house_of: Callable[..., House], hands: Hands) -> None:
    house = house_of(Provider(a=[failure("rate_limit", retry_after_s=60.0)]), "a")
    await house.ask()
    hands.now -= 500
    assert await house.ask() == "a"


# -- half-open


async def test_one_call_finds_out(house_of: Callable[..., House], hands: Hands) -> None:
    gate = asyncio.Event()
    sent: list[str] = []

    async def waits(call: Call) -> Any:
        assert call.account is not None
        sent.append(call.account.id)
        await gate.wait()
        return (WORDS, None)

    house = house_of(Provider(a=[failure("rate_limit")]), "ab", pick="fill_first")
    assert await house.ask() == "b"
    hands.pass_(31)
    house.provider.plays = {"a": waits}
    asked = [asyncio.get_running_loop().create_task(house.ask()) for _ in range(20)]
    await asyncio.sleep(0)
    assert (sent, house.provider.sent.count("b")) == (["a"], 20)
    gate.set()
    await asyncio.gather(*asked)
    assert [await house.ask() for _ in range(3)] == ["a"] * 3


async def test_no_herd_after_a_cooldown(house_of: Callable[..., House], hands: Hands) -> None:
    """100 calls at once on a pool that is back in a moment: one is sent to each account, which fails again, and that is all."""
    no = failure("rate_limit", retry_after_s=10.0)

    async def refuses(call: Call) -> Any:
        await asyncio.sleep(0)
        return failure("rate_limit", retry_after_s=10.0)

    house = house_of(Provider(a=no, b=no, c=no))
    await house.ask()
    house.provider.sent.clear()
    house.provider.plays = dict.fromkeys("abc", refuses)
    hands.pass_(11)
    kinds = await asyncio.gather(*(house.ask() for _ in range(100)))
    assert set(kinds) == {"rate_limit"}
    assert sorted(house.provider.sent) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("kind", "then"),
    [("rate_limit", "closed"), ("unavailable", "asked again"), ("connect", "asked again"), ("invalid_request", "open")],
)
async def test_what_the_probe_finds(house_of: Callable[..., House], hands: Hands, kind: ErrorKind, then: str) -> None:
    house = house_of(Provider(a=[failure("rate_limit")]), "a")
    await house.ask()
    hands.pass_(31)
    house.provider.plays["a"] = [failure(kind)]
    assert await house.ask() == kind
    assert bool(house.member("a").state.cooling) is (then != "open")
    assert await house.ask() == ("rate_limit" if then == "closed" else "a")


async def test_a_probe_that_is_given_up_makes_room(house_of: Callable[..., House], call_of: Make, hands: Hands) -> None:
    async def hangs(call: Call) -> Any:
        await asyncio.Event().wait()

    house = house_of(Provider(a=[failure("rate_limit"), hangs]), "a")
    await house.ask()
    hands.pass_(31)
    task = asyncio.get_running_loop().create_task(house.ask())
    await asyncio.sleep(0)
    error = await house.refused()
    assert (error.kind, error.retry_after_s) == ("rate_limit", 1.0)
    task.cancel()
    await asyncio.wait([task])
    assert await house.ask() == "a"


async def test_a_slow_probe_keeps_the_others_for_a_second_alone(house_of: Callable[..., House], hands: Hands) -> None:
    """A refusal comes at once, an answer may take minutes: who was told to come back in a second is served then."""
    gate = asyncio.Event()

    async def thinks(call: Call) -> Any:
        await gate.wait()
        return (WORDS, None)

    house = house_of(Provider(a=[failure("rate_limit")]), "a")
    await house.ask()
    hands.pass_(31)
    house.provider.plays["a"] = thinks
    asked = [asyncio.get_running_loop().create_task(house.ask())]
    await asyncio.sleep(0)
    hands.pass_(0.75)
    assert (await house.refused()).retry_after_s == 0.25
    hands.pass_(0.25)
    asked += [asyncio.get_running_loop().create_task(house.ask()) for _ in range(5)]
    await asyncio.sleep(0)
    assert house.provider.sent == ["a"] * 7
    gate.set()
    assert await asyncio.gather(*asked) == ["a"] * 6
    assert house.member("a").state.cooling == {}


async def test_who_comes_after_the_probe_waits_for_it_not_for_the_next(
    house_of: Callable[..., House], hands: Hands
) -> None:
    """Accounts that come back one after the other are for one call each: nobody is sent from the one to the next."""
    gate = asyncio.Event()

    async def thinks(call: Call) -> Any:
        await gate.wait()
        return (WORDS, None)

    waits = {"a": 10.0, "b": 10.125, "c": 10.25}
    house = house_of(Provider(**{id: failure("rate_limit", retry_after_s=wait) for id, wait in waits.items()}))
    await house.ask()
    house.provider.plays = dict.fromkeys("abc", thinks)
    hands.pass_(10)
    asked = [asyncio.get_running_loop().create_task(house.ask())]
    await asyncio.sleep(0)
    assert (await house.refused()).retry_after_s == 1.0
    hands.pass_(1)
    asked += [asyncio.get_running_loop().create_task(house.ask()) for _ in range(9)]
    gate.set()
    assert "rate_limit" not in await asyncio.gather(*asked)


async def test_what_is_said_during_a_probe_stands(house_of: Callable[..., House], hands: Hands) -> None:
    async def meanwhile(call: Call) -> Any:
        house.pool.park(house.member("a"), call, failure("rate_limit", retry_after_s=60.0))  # by a call from before
        return (WORDS, None)

    house = house_of(Provider(a=[failure("rate_limit"), meanwhile]), "a")
    await house.ask()
    hands.pass_(31)
    assert await house.ask() == "a"
    assert await house.ask() == "rate_limit"
    hands.pass_(61)
    assert [await house.ask(), await house.ask()] == ["a", "a"]


async def test_without_probes_all_go_at_once(house_of: Callable[..., House], hands: Hands) -> None:
    house = house_of(Provider(a=[failure("rate_limit")]), "a", probe=0)
    await house.ask()
    hands.pass_(31)
    assert await asyncio.gather(*(house.ask() for _ in range(5))) == ["a"] * 5


# -- all of them


async def test_100_calls_while_one_of_five_is_dead(house_of: Callable[..., House]) -> None:
    house = house_of(Provider(c=failure("auth", "invalid x-api-key")), "abcde")
    answered = Counter([await house.ask() for _ in range(100)])
    assert answered.keys() == set("abde") and answered.total() == 100
    assert max(answered.values()) - min(answered.values()) <= 1
    assert house.provider.sent.count("c") == 1
    (event,) = house.member("c").state.events
    assert (event.what, event.kind, event.why) == ("parked", "auth", "invalid x-api-key")


async def test_100_calls_at_once_while_one_is_limited_and_one_is_broke(house_of: Callable[..., House]) -> None:
    house = house_of(Provider(a=failure("rate_limit", retry_after_s=60.0), b=failure("quota", status=402)))
    assert await asyncio.gather(*(house.ask() for _ in range(100))) == ["c"] * 100
    assert [member.state.in_flight for member in house.pool.members] == [0, 0, 0]
    assert [member.state.errors for member in house.pool.members][2] == 0


async def test_a_storm_on_all(house_of: Callable[..., House], hands: Hands) -> None:
    waits = {"a": 50.0, "b": 20.0, "c": 90.0}
    house = house_of(Provider(**{id: failure("rate_limit", retry_after_s=wait) for id, wait in waits.items()}))
    assert await asyncio.gather(*(house.ask() for _ in range(50))) == ["rate_limit"] * 50
    assert sorted(house.provider.sent) == ["a", "b", "c"]
    hands.pass_(5)
    error = await house.refused()
    assert (error.kind, error.status, error.retry_after_s) == ("rate_limit", 429, 15.0)
    assert "the first is back in 15 s" in error.message
    assert house.last is not None
    assert [(each.account, each.error, each.calls) for each in house.last.decision.attempts] == [("", "rate_limit", 0)]


@pytest.mark.parametrize(
    ("plays", "kind", "wait"),
    [
        ({"a": failure("auth"), "b": failure("rate_limit", retry_after_s=40.0)}, "rate_limit", 40.0),
        ({"a": failure("rate_limit", retry_after_s=40.0), "b": failure("auth")}, "rate_limit", 40.0),
        ({"a": failure("quota", retry_after_s=5.0), "b": failure("rate_limit", retry_after_s=40.0)}, "quota", 5.0),
        ({"a": failure("auth"), "b": failure("account_disabled")}, "auth", 3600.0),
    ],
)
async def test_the_truest_error(house_of: Callable[..., House], plays: Any, kind: ErrorKind, wait: float) -> None:
    house = house_of(Provider(**plays), "ab")
    for _ in range(2):  # the first is the provider's own word, the second ours
        error = await house.refused()
        assert (error.kind, error.retry_after_s) == (kind, wait)
        assert isinstance(error, UpstreamError)
    assert len(house.provider.sent) == 2


async def test_the_answer_of_the_only_account_left_is_not_held(house_of: Callable[..., House], call_of: Make) -> None:
    """Nobody else could be asked, so its headers may go to the caller at once."""

    class Silent(Running):
        def connect(self, sink: Sink[Chunk], /) -> None: ...

    async def silent(call: Call) -> Reply:
        return Reply(Silent(), call.scope)

    house = house_of(Provider(b=failure("rate_limit")), "ab")
    await house.ask()
    await house.ask()
    async with asyncio.timeout(1):
        reply = await house.rotate(call_of(stream=True), silent)
    reply.abort()
    alone = house_of(None, "a")
    async with asyncio.timeout(1):
        reply = await alone.rotate(call_of(stream=True), silent)
    assert alone.member("a").state.in_flight == 1
    reply.scope.close()  # nobody ever read it
    assert alone.member("a").state.in_flight == 0


async def test_no_pool_is_the_houses_fault(call_of: Make) -> None:
    with pytest.raises(HouseError):
        await Rotate(RotateOptions())(call_of(), Provider())


# -- sessions


def by_session(**more: Any) -> dict[str, Any]:
    return {"session": session_of, "sessions": Sessions(3600.0, 100), **more}


async def test_a_session_stays(house_of: Callable[..., House]) -> None:
    house = house_of(**by_session())
    mine = {"x-claude-code-session-id": "one"}
    other = {"session-id": "two"}
    assert [await house.ask(mine) for _ in range(5)] == ["a"] * 5
    assert [await house.ask(other) for _ in range(5)] == ["b"] * 5
    assert await house.ask(mine) == "a"
    assert {await house.ask({"session-id": str(at)}) for at in range(9)} == {"a", "b", "c"}


async def test_a_session_moves_when_it_must_and_stays_there(house_of: Callable[..., House], hands: Hands) -> None:
    house = house_of(**by_session())
    mine = {"session-id": "one"}
    assert await house.ask(mine) == "a"
    house.provider.plays["a"] = [failure("rate_limit", retry_after_s=10.0)]
    new = await house.ask(mine)
    assert new in ("b", "c")
    hands.pass_(11)
    assert {await house.ask({"session-id": f"x{at}"}) for at in range(6)} == {"a", "b", "c"}
    assert [await house.ask(mine) for _ in range(6)] == [new] * 6


async def test_conversations_are_told_apart_by_how_they_begin(house_of: Callable[..., House], call_of: Make) -> None:
    house = house_of(**by_session())

    async def say(*texts: str) -> str:
        roles = ("user", "assistant")
        messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]
        body = msgspec.json.encode({"model": "m", "messages": messages, "stream": True})
        call = call_of(stream=True)
        await (await house.rotate(call.replace(body=body), house.provider)).collect()
        return house.provider.sent[-1]

    first = await say("Hi")
    second = await say("Hello")
    assert first != second
    assert await say("Hi", "Hello!", "Go on.") == first
    assert await say("Hello", "Hi!", "Go on.") == second
    assert await say("Hi", "Hello!", "Go on.", "I do.", "More.") == first


async def test_by_a_fact(house_of: Callable[..., House]) -> None:
    house = house_of(session=session_by(lambda call: call.facts.headers.get("x-conversation")))
    assert [await house.ask({"x-conversation": "1"}) for _ in range(4)] == ["a"] * 4
    assert {await house.ask() for _ in range(6)} == {"a", "b", "c"}


async def test_sessions_are_forgotten_and_bounded(house_of: Callable[..., House], hands: Hands) -> None:
    house = house_of(session=session_of, sessions=Sessions(60.0, 3))
    mine = {"session-id": "mine"}
    assert await house.ask(mine) == "a"
    hands.pass_(59)
    assert await house.ask(mine) == "a"
    hands.pass_(59)
    assert await house.ask(mine) == "a"  # it was heard of meanwhile
    hands.pass_(61)
    assert await house.ask(mine) == "b"
    for at in range(10):
        await house.ask({"session-id": str(at)})
    assert len(house.pool._sessions.known) == 3


# -- with others in the chain


async def test_retry_around_it(house_of: Callable[..., House], call_of: Make) -> None:
    house = house_of(Provider(a=[failure("rate_limit"), failure("unavailable")], b=[failure("unavailable")]), "ab")
    retry = Retry(RetryOptions(tries=3, backoff=Duration(0.0)), lambda low, high: 0.0)
    call = call_of(stream=True)
    await (await retry(call, lambda call: house.rotate(call, house.provider))).collect()
    assert house.provider.sent == ["a", "b", "b"]
    assert house.provider.causes == ["", "rotate", "retry"]


async def test_breakers_watch_each_account(house_of: Callable[..., House], call_of: Make, hands: Hands) -> None:
    house = house_of(Provider(a=failure("unavailable", "down")), "ab", pick="fill_first")
    breaker = Breaker(BreakerOptions(failures=2), hands)

    async def ask() -> str:
        call = call_of(stream=True)
        try:
            await (await house.rotate(call, lambda call: breaker(call, house.provider))).collect()
        except GatewayError as error:
            return error.kind
        finally:
            attempts.extend((each.account, each.calls) for each in call.decision.attempts)
        return house.provider.sent[-1]

    attempts: list[tuple[str, int]] = []
    assert [await ask(), await ask()] == ["unavailable"] * 2
    attempts.clear()
    assert [await ask(), await ask()] == ["b", "b"]
    assert attempts == [("a", 0), ("b", 1)] * 2
    assert not house.member("a").state.cooling
    house.provider.plays = {"b": failure("unavailable")}
    assert [await ask(), await ask()] == ["unavailable"] * 2
    with pytest.raises(Avoided) as caught:
        await house.rotate(call_of(), lambda call: breaker(call, house.provider))
    assert caught.value.retry_after_s == 30.0
    hands.pass_(31)
    assert await ask() == "a"


async def test_avoided_accounts_are_no_tries(house_of: Callable[..., House]) -> None:
    away = Avoided("away", kind="unavailable", retry_after_s=9.0)
    house = house_of(Provider(a=away, b=away), "abc", tries=1)
    assert await house.ask() == "c"


async def test_who_is_back_first_an_avoided_or_a_limited_one(house_of: Callable[..., House]) -> None:
    for away, wait, kind in ((9.0, 50.0, "unavailable"), (50.0, 9.0, "rate_limit")):
        plays = {
            "a": Avoided("away", kind="unavailable", retry_after_s=away),
            "b": failure("rate_limit", retry_after_s=wait),
        }
        error = await house_of(Provider(**plays), "ab").refused()
        assert (error.kind, error.retry_after_s) == (kind, 9.0)


# -- calls that are passed on


@pytest.mark.parametrize(
    ("path", "stays"), [("/v1/files", True), ("/v1/batches/b_1", True), ("/v1/audio/speech", False)]
)
async def test_what_stays_at_the_provider_is_of_the_first_account(
    house_of: Callable[..., House], path: str, stays: bool
) -> None:
    house = house_of(Provider(a=failure("rate_limit")))
    passed = Passed("POST", path)
    answered = [await house.ask(passed=passed, body=None) for _ in range(3)]
    if stays:
        assert (answered, house.provider.sent) == (["rate_limit"] * 3, ["a"] * 3)
        assert await house.ask() == "b"  # others do take turns
    else:
        assert (answered, house.provider.sent) == (["b", "c", "b"], ["a", "b", "c", "b"])
    assert [member.state.in_flight for member in house.pool.members] == [0, 0, 0]


# -- reload, secrets, leaks


async def test_a_reload_keeps_what_is_known(house_of: Callable[..., House], hands: Hands) -> None:
    old = house_of(Provider(a=failure("rate_limit", retry_after_s=100.0)), **by_session(pick="fill_first"))
    assert await old.ask({"session-id": "1"}) == "b"
    members = [member_of("z", "sk-z"), member_of("a", "sk-a"), member_of("b", "sk-b")]
    new = house_of(Provider(), members=members, **by_session(pick="fill_first"))
    new.pool.carry_over(old.pool)
    assert await new.ask({"session-id": "1"}) == "b"
    assert await new.ask({"session-id": "2"}) == "z"
    assert new.member("a").state is old.member("a").state
    old.provider.plays = {"b": failure("rate_limit", retry_after_s=100.0), "c": failure("quota")}
    assert await old.ask() == "rate_limit"  # the old rules' last call tells the new ones
    new.provider.plays = {"z": failure("quota")}
    error = await new.refused()
    assert (error.kind, len(new.provider.sent)) == ("rate_limit", 3)


async def test_another_key_has_no_past(house_of: Callable[..., House], hands: Hands) -> None:
    old = house_of(Provider(a=failure("auth")), "ab", pick="fill_first")
    assert await old.ask() == "b"
    new = house_of(None, members=[member_of("a", "sk-new"), member_of("b", "sk-b")], pick="fill_first")
    new.pool.carry_over(old.pool)
    assert not new.member("a").state.cooling
    new.pool.carry_over("something else")


async def test_no_credential_is_told(
    house_of: Callable[..., House], caplog: pytest.LogCaptureFixture, hands: Hands
) -> None:
    caplog.set_level(logging.DEBUG)
    house = house_of(Provider(a=failure("auth", "your key sk-a is unknown")), "ab")
    assert await house.ask() == "b"
    record = house.member("a").state.record(house.member("a").mark, "w", hands.now, hands.unix)
    assert b"sk-a" not in record.encode() and b"your key *** is unknown" in record.encode()
    assert "sk-a" not in caplog.text + repr(house.member("a"))
    assert [each.getMessage() for each in caplog.records if each.name.startswith("headgate")] == [
        "account a of pool: left alone for 3600.0 s after auth",
        "upstream: account a failed with auth, on to b",
    ]


async def test_events_are_few_and_cooldowns_bounded(
    house_of: Callable[..., House], call_of: Make, hands: Hands
) -> None:
    house = house_of()
    member = house.member("a")
    for _ in range(50):  # calls that were under way together
        house.pool.park(member, call_of(), failure("rate_limit"))
    assert len(member.state.events) == 1
    for at in range(600):
        house.pool.park(member, call_of().replace(model=f"m{at}"), failure("rate_limit"))
    assert len(member.state.events) == 20
    assert len(member.state.cooling) == 256


async def test_rotation_leaves_no_garbage(house_of: Callable[..., House]) -> None:
    seen: list[weakref.ref[UpstreamError]] = []

    async def refuses(call: Call) -> Any:
        seen.append(weakref.ref(error := failure("rate_limit")))
        return error

    house = house_of(Provider(a=refuses, b=refuses, c=refuses))
    gc.collect()
    gc.disable()
    try:
        house.provider.plays.pop("c")
        assert await house.ask() == "c"
        house.provider.plays["c"] = refuses
        assert await house.ask() == "rate_limit"
        assert len(seen) == 3 and [each() for each in seen] == [None] * 3
    finally:
        gc.enable()
