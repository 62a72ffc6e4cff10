"""The whole chain at once, as a user of it meets it: every middleware on, faults at every event, callers that leave.

What a call must get is in its request: a provider tells each case its own words, and cuts, stalls or garbles the first
answer where the case says so. So a character too many or too few is seen, and an answer to somebody else too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import anthropic
import openai
import pytest
from aiohttp import web
from headgate.gateway.accounts.pool import AccountPool
from headgate.gateway.pricing.price import PICO
from headgate.middlewares.cache import Cache
from headgate.middlewares.limit import Limit

from ..fakes.collector import Collector, collecting
from ..fakes.provider import FakeProvider, Received
from ..fakes.script import Say, Script, Tokens, script
from ..server.house import House, serving, until
from .talk import CALLERS, MODELS, OPENAI, start

RULES: Final = """
    server: {{listen: "127.0.0.1:0"}}
    defaults: {{timeout: {{connect: 2s, first_token: 2s, idle: 1s, total: 20s}}}}
    stores:
      answers: {{kind: sqlite, path: answers.db}}
      limits: {{kind: sqlite, path: limits.db}}
      state: {{kind: sqlite, path: state.db}}
    prices:
      models: {{"*": {{input: 1000, output: 2000}}}}
    accounts:
      pool:
        cooldown: {{else: 30ms, auth: null}}
        store: state
        members:
          - {{id: dead, key: env:TEST_ACCOUNT_DEAD}}
          - {{id: a, key: env:TEST_ACCOUNT_A}}
          - {{id: b, key: env:TEST_ACCOUNT_B}}
    upstreams:
      openai: {{adapter: openai, base_url: "{base}/v1", accounts: pool, chain: steady}}
      anthropic: {{adapter: anthropic, base_url: "{base}", accounts: pool, chain: steady}}
    chains:
      steady: [{{retry: {{tries: 8, backoff: 10ms, max_wait: 2s}}}}, rotate, {{breaker: {{failures: 200, rate: 0.9}}}}]
      main:
        - trace: {{endpoint: "{collector}"}}
        - auth:
            keys:
              - {{name: ann, key: env:TEST_ANN, tenant: us}}
              - {{name: bob, key: env:TEST_BOB, tenant: us}}
        - limit: {{requests: 100k/s, concurrency: {most}, wait: 10s, queue: 1000}}
        - limit: {{per: all, budget: 1000000 USD/month, tokens: 1000M/min, store: limits, name: all}}
        - log: {{to: "{log}", bodies: redacted, bodies_in: bodies}}
        - redact: {{kinds: [email, secret], restore: true}}
        - cache: {{store: answers, single_flight: {share}}}
        - continue: {{rounds: 5}}
    routes:
      - {{name: gpt, match: {{model: "gpt-*"}}, chain: main, to: openai}}
      - {{name: claude, match: {{model: "claude-*"}}, chain: main, to: anthropic}}
"""
KEYS: Final = {
    "TEST_ACCOUNT_DEAD": "sk-account-dead-0123456789",
    "TEST_ACCOUNT_A": "sk-account-a-0123456789",
    "TEST_ACCOUNT_B": "sk-account-b-0123456789",
    "TEST_ANN": "sk-caller-ann-0123456789",
    "TEST_BOB": "sk-caller-bob-0123456789",
}
PIECES: Final = 6
FRAMES: Final = PIECES + 6
AT_FRAMES: Final = ("cut", "reset", "half", "eof", "stall", "error", "length", "garbage")
"""Faults that a stream has at any frame; at a whole answer's first and only piece they are what they can be there."""
AT_ONCE: Final = ("fine", "429", "500", "503", "nothing", "html")
AT_WHOLE: Final = ("cut", "reset", "length", *AT_ONCE)
HEALED: Final = {"fine", "429", "500", "503", "cut", "reset", "half", "eof", "length"}
"""What the chain makes good, so that the caller has the whole answer all the same."""
TOKENS: Final = Tokens(fresh=100, output=10)


def words_of(case: int) -> str:
    """What the provider says: no twelve characters of it stand there twice, but for the placeholders."""
    counted = " ".join(f"{case}.{at}:{'abcdefghij'[at % 10] * (at % 5 + 1)}" for at in range(24))
    return f"Case {case} is for <EMAIL_1>, ünd 👋 {counted} with <SECRET_1>; copy to <EMAIL_1>. The end of {case}!"


@dataclass
class Ask:
    """A call: who sends it, in which format, to which model; what is to go wrong with its first answer, and where."""

    case: int
    caller: str
    to: str
    stream: bool
    fault: str
    at: int
    who: str = "ann"

    @property
    def email(self) -> str:
        return f"{self.who}.{self.case}@corp.example"

    @property
    def secret(self) -> str:
        return f"AKIA{'QQQQWWWWEEEE'[: 16 - len(str(self.case))]}{self.case:0{4}d}"[:20].ljust(20, "Z")

    @property
    def prompt(self) -> str:
        return f"Case {self.case}: {self.fault}@{self.at}. I am {self.email}, and my key is {self.secret}."

    @property
    def words(self) -> str:
        return words_of(self.case).replace("<EMAIL_1>", self.email).replace("<SECRET_1>", self.secret)


@dataclass
class Heard:
    """What a caller has: the text so far, and how it ended."""

    text: str = ""
    stop: str | None = None
    error: str | None = None
    cache: str = ""


class Narrator(FakeProvider):
    """Tells each case its words, and goes on with them where a further round asks for that. The first answer to a case in
    each format goes wrong as the case says."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[tuple[int, str, bool]] = Counter()
        self.wrong: list[str] = []
        for name, key in KEYS.items():
            if name.startswith("TEST_ACCOUNT"):
                self.accounts[key] = script(status=401) if "DEAD" in name else None

    def _next(self, received: Received) -> Script:
        if (standing := self.accounts.get(received.presented)) is not None:
            return standing
        asked = received.raw.decode()
        if "corp.example" in asked or "AKIA" in asked:
            self.wrong.append(f"the provider read a secret: {asked}")
        found = re.search(r"Case (\d+): (\w+)@(\d+)\.", asked)
        assert found is not None, asked
        case, fault, at = int(found[1]), found[2], int(found[3])
        words = words_of(case)
        said = _said(received.json["messages"])
        if said and not words.startswith(said):
            self.wrong.append(f"case {case}: a round goes on after {said!r}")
        self.times[case, received.api, bool(received.json.get("stream"))] += 1
        first = self.times[case, received.api, bool(received.json.get("stream"))] == 1
        rest = words[len(said) :]
        if said and case % 2:
            rest = words[max(0, len(said) - 20) :]  # repeats the last words, as models do
        return _play(rest, fault if first else "fine", at)

    async def _perform(
        self,
        request: web.Request,
        received: Received,
        play: Script,
        headers: dict[str, str],
        frames: list[bytes],
        error_frame: bytes,
        streams: str | None = None,
    ) -> web.StreamResponse:
        if play.error_kind == "garbage":
            error_frame = b'data: {"choices": [{"del\x00}\n\n'
        return await super()._perform(request, received, play, headers, frames, error_frame, streams)

    @property
    def running(self) -> int:
        """How many requests wait for the rest of their answer."""
        return sum(1 for received in self.requests if received.outcome == "running")


def _said(messages: list[Any]) -> str:
    """What the assistant said before the last message."""
    if len(messages) < 2 or messages[-2]["role"] != "assistant":
        return ""
    content = messages[-2]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _play(text: str, fault: str, at: int) -> Script:
    say = Say(text, PIECES)
    whole: dict[str, dict[str, Any]] = {
        "fine": {},
        "429": {"status": 429},
        "500": {"status": 500},
        "503": {"status": 503},
        "nothing": {"wire": b""},
        "html": {"wire": b"<html>It works!</html>", "content_type": "text/html"},
        "cut": {"cut_after": at},
        "reset": {"cut_after": at, "cut": "reset"},
        "half": {"cut_after": at, "half": True},
        "eof": {"cut_after": at, "cut": "eof"},
        "stall": {"stall_after": at},
        "error": {"error_after": at},
    }
    if fault == "length":
        return script(Say(text[: (at + 1) * len(text) // (FRAMES + 2)], PIECES), stop="length", tokens=TOKENS)
    if fault == "garbage":
        return script(say, tokens=TOKENS, error_after=at, error_kind=fault)
    return script(say, tokens=TOKENS, **whole[fault])


class Callers:
    """Both SDKs, as ann and as bob."""

    def __init__(self, tls: ssl.SSLContext, base: str) -> None:
        self._clients: dict[tuple[str, str], Any] = {}
        for who in ("ann", "bob"):
            options: dict[str, Any] = {"api_key": KEYS[f"TEST_{who.upper()}"], "max_retries": 0, "timeout": 20}
            http = openai.DefaultAsyncHttpxClient(verify=tls)
            self._clients[who, OPENAI] = openai.AsyncOpenAI(base_url=f"{base}/v1", http_client=http, **options)
            theirs = anthropic.DefaultAsyncHttpxClient(verify=tls)
            self._clients[who, "anthropic"] = anthropic.AsyncAnthropic(base_url=base, http_client=theirs, **options)

    async def hear(self, ask: Ask, heard: Heard | None = None, leave_after: int | None = None) -> Heard:
        """Ask, and listen: to the end, or to so many events. What was heard so far is in ``heard`` at any moment."""
        heard = Heard() if heard is None else heard
        client = self._clients[ask.who, ask.caller]
        resource = client.chat.completions if ask.caller == OPENAI else client.messages
        cap = "max_completion_tokens" if ask.caller == OPENAI else "max_tokens"
        messages = [{"role": "user", "content": ask.prompt}]
        try:
            raw = await resource.with_raw_response.create(
                model=MODELS[ask.to], messages=messages, stream=ask.stream, **{cap: 4000}
            )
            heard.cache = raw.headers.get("headgate-cache", "")
            answer = raw.parse()
            answer = await answer if asyncio.iscoroutine(answer) else answer
            if not ask.stream:
                _note(heard, answer, ask.caller)
                return heard
            count = 0
            async for event in answer:
                _note_event(heard, event, ask.caller)
                count += 1
                if count == leave_after:
                    break
            await answer.close()
        except (openai.APIError, anthropic.APIError) as error:
            heard.error = str(error)
        return heard

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()


def _note(heard: Heard, answer: Any, caller: str) -> None:
    if caller == OPENAI:
        heard.text, heard.stop = answer.choices[0].message.content, answer.choices[0].finish_reason
    else:
        heard.text = "".join(block.text for block in answer.content if block.type == "text")
        heard.stop = answer.stop_reason


def _note_event(heard: Heard, event: Any, caller: str) -> None:
    if caller == OPENAI:
        for choice in event.choices:
            heard.text += choice.delta.content or ""
            heard.stop = choice.finish_reason or heard.stop
    elif event.type == "content_block_delta":
        heard.text += event.delta.text
    elif event.type == "message_delta":
        heard.stop = event.delta.stop_reason


@dataclass
class Stand:
    """All that is up."""

    house: House
    callers: Callers
    provider: Narrator
    collector: Collector
    directory: Path
    reloads: int = 0

    def members(self, kind: type[Any]) -> list[Any]:
        """The parts of the plan in force."""
        return [member for member in self.house.gateway.plan.members.values() if isinstance(member, kind)]

    def spent(self) -> int:
        """What the budget says was spent, in the units it counts in."""
        return int(sum(subject.spent for limit in self.members(Limit) for subject in limit._book.subjects.values()))

    async def settled(self) -> None:
        """Nothing is under way, nor held, nor remembered as if it were."""
        await self.house.idle(5)
        await until(lambda: self.provider.running == 0, 5)
        subjects = [subject for limit in self.members(Limit) for subject in limit._book.subjects.values()]
        assert subjects
        assert [each.under_way for each in subjects] == [0] * len(subjects)
        assert [each.held for each in subjects] == [0] * len(subjects)
        assert [len(each.line or ()) for each in subjects] == [0] * len(subjects)
        (pool,) = self.members(AccountPool)
        assert [member.state.in_flight for member in pool.all] == [0, 0, 0]
        (cache,) = self.members(Cache)
        assert cache._flights == {}
        assert cache._room == cache.options.max_size
        assert self.provider.wrong == []

    def logged(self) -> int:
        """What the lines of the log say that it cost, likewise."""
        return round(sum(line.get("cost_usd", 0.0) for line in self.lines()) * PICO)

    async def told(self, calls: int) -> None:
        """Each call has one line in the log, and one span."""
        await until(lambda: len(self.lines()) >= calls, 5)
        assert len(self.lines()) == calls
        assert len({line["request_id"] for line in self.lines()}) == calls
        await self.collector.until(calls)

    def lines(self) -> list[dict[str, Any]]:
        """The access log."""
        return [json.loads(line) for line in (self.directory / "access.jsonl").read_text().splitlines()]


@asynccontextmanager
async def standing(
    directory: Path, provider: Narrator, collector: Collector, tls: ssl.SSLContext, most: int = 1000, share: bool = True
) -> AsyncIterator[Stand]:
    rules = RULES.format(
        base=provider.base,
        collector=collector.base,
        log=directory / "access.jsonl",
        most=most,
        share=str(share).lower(),
    )
    async with serving(directory, rules) as house:
        callers = Callers(tls, house.base)
        try:
            yield Stand(house, callers, provider, collector, directory)
        finally:
            await callers.close()


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)


def every_fault(to: Iterable[str] = MODELS) -> list[Ask]:
    """A call for each fault at each event, of each format to each, as streams; and as whole answers."""
    cases = itertools.count(1000)
    asks = []
    for caller, model in itertools.product(CALLERS, to):
        asks += [Ask(next(cases), caller, model, True, fault, at) for fault in AT_FRAMES for at in range(FRAMES)]
        asks += [Ask(next(cases), caller, model, True, fault, 0) for fault in AT_ONCE]
        asks += [Ask(next(cases), caller, model, False, fault, 1) for fault in AT_WHOLE]
    return asks


async def some_at_a_time(work: Iterable[Any], most: int = 16) -> list[Any]:
    """Await each of ``work``, so many at once."""
    places = asyncio.Semaphore(most)

    async def one(each: Any) -> Any:
        async with places:
            return await each

    return await asyncio.gather(*(one(each) for each in work))


def check(ask: Ask, heard: Heard) -> str | None:
    """Return what is wrong with what a caller heard."""
    if not ask.words.startswith(heard.text):
        return f"{ask}: lost, doubled or changed: {heard}"
    if heard.error is not None:
        said_its_end = heard.stop is not None and heard.text != ask.words
        return f"{ask}: a clean end of half an answer, then an error: {heard}" if said_its_end else None
    if heard.text != ask.words:
        return f"{ask}: a clean end of half an answer: {heard}"
    return None if heard.stop in ("stop", "end_turn") else f"{ask}: no end: {heard}"


async def test_every_fault_at_every_event(tmp_path: Path, tls: ssl.SSLContext) -> None:
    async with Narrator() as provider, collecting() as collector:
        async with standing(tmp_path, provider, collector, tls) as stand:
            asks = every_fault()
            # those that stall all wait at once, beside the others
            slow = [start(stand.callers.hear(ask)) for ask in asks if ask.fault == "stall"]
            heard = await some_at_a_time(stand.callers.hear(ask) for ask in asks if ask.fault != "stall")
            heard += await asyncio.gather(*slow)
            asks.sort(key=lambda ask: ask.fault == "stall")
            assert [why for ask, each in zip(asks, heard, strict=True) if (why := check(ask, each))] == []
            assert [
                (ask, each) for ask, each in zip(asks, heard, strict=True) if each.error and ask.fault in HEALED
            ] == []
            assert sum(each.error is not None for each in heard) > 30
            await stand.settled()
            again = [replace(ask, who="bob") for ask, each in zip(asks, heard, strict=True) if each.error is None]
            told = len(provider.requests)
            once_more = await some_at_a_time(stand.callers.hear(ask) for ask in again)
            # the same but for what was redacted: out of the cache, and with his own address
            assert [why for ask, each in zip(again, once_more, strict=True) if (why := check(ask, each))] == []
            assert {each.cache for each in once_more} == {"hit"}
            assert len(provider.requests) == told
            await stand.settled()
            await stand.told(len(asks) + len(again))
            assert stand.spent() == stand.logged()
        await quiet(provider)
    nothing_secret(tmp_path, collector)


@pytest.mark.parametrize(
    ("calls", "share"),
    [(300, True), (60, False), pytest.param(5000, True, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
async def test_callers_that_leave_reloads_and_a_restart(
    tmp_path: Path, tls: ssl.SSLContext, calls: int, share: bool, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(calls)
    before = asyncio.all_tasks()
    async with Narrator() as provider, collecting() as collector:
        asks = mixed(calls, chance)
        async with standing(tmp_path, provider, collector, tls, 16, share) as stand:
            reloading = start(reloads(stand, calls // 60))
            outcomes = await some_at_a_time(one_of_many(stand, ask, chance.random(), chance.random()) for ask in asks)
            await reloading
            assert [why for why in outcomes if why] == []
            assert stand.reloads == calls // 60
            await stand.settled()
            # all places are free again
            fine = [Ask(900 + at, OPENAI, OPENAI, True, "fine", 0) for at in range(16)]
            assert [each.error for each in await some_at_a_time(stand.callers.hear(ask) for ask in fine)] == [None] * 16
            await stand.settled()
            spent = stand.spent()
            ended = provider.times.copy()
            told = len(provider.requests)
        await quiet(provider)
        # what others heard to its end when the first of them had left is in no line
        assert spent == stand.logged() if not share else spent >= stand.logged() > 0
        async with standing(tmp_path, provider, collector, tls, 16, share) as stand:
            heard = await some_at_a_time(stand.callers.hear(replace(ask, who="bob")) for ask in fine)
            assert [each.cache for each in heard] == ["hit"] * 16
            assert [each.text for each in heard] == [replace(ask, who="bob").words for ask in fine]
            assert provider.times == ended
            await stand.settled()
            assert stand.spent() == spent
            fresh = [Ask(980 + at, OPENAI, OPENAI, False, "fine", 0) for at in range(4)]
            assert [(await stand.callers.hear(ask)).text for ask in fresh] == [ask.words for ask in fresh]
            # what is known of an account outlives the process
            dead = [each for each in provider.requests if each.presented == KEYS["TEST_ACCOUNT_DEAD"]]
            assert 1 <= len(dead) < 20
            assert not any(each.number > told for each in dead)
        await quiet(provider)
    async with asyncio.timeout(5):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)
    nothing_secret(tmp_path, collector)
    assert not [name for name, key in KEYS.items() if key in caplog.text]


def mixed(calls: int, chance: random.Random) -> list[Ask]:
    """Calls of all sorts; one in three is equal to one before it, but for who asks."""
    asks: list[Ask] = []
    for number in range(calls):
        if asks and chance.random() < 0.33:
            asks.append(replace(chance.choice(asks[-30:]), who=chance.choice(["ann", "bob"])))
            continue
        stream = chance.random() < 0.7
        fault = chance.choice((*AT_FRAMES, *AT_ONCE) if stream else AT_WHOLE) if chance.random() < 0.5 else "fine"
        asks.append(
            Ask(
                1000 + number,
                chance.choice(CALLERS),
                chance.choice(list(MODELS)),
                stream,
                fault,
                chance.randrange(FRAMES),
            )
        )
    return asks


async def one_of_many(stand: Stand, ask: Ask, kind: float, when: float) -> str | None:
    """Make a call. One in five callers stops reading, and one in five hangs up; return what is wrong with what they had."""
    heard = Heard()
    work = stand.callers.hear(ask, heard, leave_after=1 + int(when * FRAMES) if kind < 0.2 else None)
    if 0.2 <= kind < 0.4:
        task = start(work)
        await asyncio.wait([task], timeout=when * 0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    else:
        await work
    if heard.stop is None and heard.error is None and kind < 0.4:
        return None if ask.words.startswith(heard.text) else f"{ask}: lost, doubled or changed: {heard}"
    return check(ask, heard)


async def reloads(stand: Stand, times: int) -> None:
    """Change the rules under way: what is chosen by them stays."""
    text = stand.house.path.read_text()
    for turn in range(times):
        await asyncio.sleep(0.15)
        stand.house.path.write_text(text + f"x-turn: {turn}\n")
        await stand.house.gateway.reload()
        stand.reloads += 1


async def quiet(provider: Narrator) -> None:
    """The gateway is gone: no connection of its is open."""
    await until(lambda: provider.connections == 0, 5)
    assert provider.wrong == []


def nothing_secret(directory: Path, collector: Collector) -> None:
    """Nobody's address, nobody's key: not in the log, bodies, stores or spans."""
    held = {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    held["spans"] = b"".join(collector.raw)
    assert {"access.jsonl", "answers.db", "limits.db", "state.db"} <= set(held)
    assert any(name.startswith("bodies-") and b"<EMAIL_1>" in data for name, data in held.items())
    assert b"<EMAIL_1>" in b"".join(data for name, data in held.items() if name.startswith("answers.db"))
    for name, data in held.items():
        for secret in ("corp.example", "AKIA", *KEYS.values()):
            assert secret.encode() not in data, f"{secret} stands in {name}"
