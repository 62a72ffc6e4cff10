"""Copies of calls: that the caller notices nothing of them, what is said of them, and that they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway.call import Call
from headgate.gateway.errors import upstream_error
from headgate.gateway.ir.event import Chunk, PartDelta, PartStart, ResponseStart
from headgate.gateway.ir.message import Text
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.targets.shadow import Shadows

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from ..server.house import CHAT, body_of, serving, until

RULES = """
    upstreams:
      first: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}
      second: {adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}
      third: {adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}
    targets:
      t:
        select: [{use: first/gpt-fake}]
        shadow: {use: second/claude-fake-4-5, share: 100%}
        on_failure: [{kinds: [rate_limit], use: third/gpt-other}]
    routes: [{name: r, to: t}]
"""
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that returns the lines about copies."""
    caplog.set_level("INFO", "headgate.shadow")

    def lines() -> list[dict[str, Any]]:
        texts = [each.getMessage() for each in caplog.records if each.name == "headgate.shadow"]
        return [json.loads(text) for text in texts if text[0] == "{"]

    return lines


@both
async def test_a_copy_goes_elsewhere_and_is_told_of(
    asking: Callable[..., Any], provider: FakeProvider, said: Callable[[], list[dict[str, Any]]], stream: bool
) -> None:
    provider.answer(script("The answer."), script("Of the copy."))
    async with asking(RULES) as ask:
        served = await ask(stream=stream, logprobs=True)
        await until(said)
        assert served.tries == [("first", None, "")]
        assert (served.decision.upstream, served.decision.notes, served.ledger.lost) == ("first", [], [])
        assert {each.api for each in provider.requests} == {"openai", "anthropic"}
        assert served.said in ("The answer.", "Of the copy.")  # which was asked first is a matter of tasks
    (line,) = said()
    assert (line["upstream"], line["model"], line["outcome"]) == ("second", "claude-fake-4-5", "ok")
    assert (line["request_id"], line["route"], line["target"], line["shadow"]) == ("req_1", "r", "t", True)
    assert (line["input_tokens"], line["output_tokens"]) == (10, 5)
    assert "logprobs" in line["lost"]
    assert [each["cause"] for each in line["attempts"]] == ["shadow"]
    assert ("first_token_ms" in line) == stream


@both
async def test_a_copy_that_stalls_touches_nothing_and_ends_with_the_gateway(
    asking: Callable[..., Any], provider: FakeProvider, said: Callable[[], list[dict[str, Any]]], stream: bool
) -> None:
    text = RULES.replace('base_url: "{base}", key', 'base_url: "{base}", timeout: {first_token: 50s}, key')
    async with asking(text) as ask:
        provider.answer(script("Hi.", wait_s=0.01))
        provider.answer(script(stall_before=True))
        served = await ask(stream=stream)
        # whichever of the two the provider stalled: the answer came, or the copy did
        if served.error is None:
            await until(lambda: len(provider.requests) == 2)
            assert not said()
    async with asyncio.timeout(1):
        for each in provider.requests:
            await each.over.wait()
    assert "aborted" in [each.outcome for each in provider.requests]
    assert said()[0]["outcome"] == "cancelled"


async def test_what_goes_wrong_is_told_of_the_copy_alone(
    asking: Callable[..., Any], provider: FakeProvider, said: Callable[[], list[dict[str, Any]]]
) -> None:
    text = RULES.replace('adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY', "adapter: simulator")
    for fault, kind in ((["error 429"], "rate_limit"), (["fail 2 overloaded"], "overloaded"), (["cut 1"], "cut")):
        staged = text.replace("adapter: simulator", f"adapter: simulator, script: {json.dumps(fault)}")
        async with asking(staged) as ask:
            served = await ask(stream=True)
            await until(lambda: said() and said()[-1]["outcome"] == kind)  # noqa: B023
            assert (served.error, served.said, len(served.tries)) == (None, "Hello!", 1)


async def test_a_call_is_copied_once_however_often_it_is_sent(
    asking: Callable[..., Any], provider: FakeProvider, said: Callable[[], list[dict[str, Any]]]
) -> None:
    text = RULES.replace("chain", "x").replace("name: r, to", "name: r, chain: [{retry: {backoff: 1ms}}], to")
    text = text.replace("second/claude-fake-4-5", "sim").replace(
        "upstreams:", "upstreams:\n      sim: {adapter: simulator}"
    )
    provider.answer(script(status=503), script(status=429), script(status=503), script("Hi."))
    async with asking(text.replace("      second", "      x-second").replace("x-second", "second")) as ask:
        served = await ask(stream=True)
        assert (served.error, served.said) == (None, "Hi.")
        assert len(served.tries) == 4
        await until(said)
    assert len(said()) == 1


async def test_copies_are_not_counted_as_calls_and_ended_by_a_reload(
    tmp_path: Path, provider: FakeProvider, said: Callable[[], list[dict[str, Any]]]
) -> None:
    text = RULES.replace("{base}", provider.base).replace("second/claude-fake-4-5", "slow")
    text = text.replace("upstreams:", 'upstreams:\n      slow: {adapter: simulator, script: ["start 50s"]}')
    async with serving(tmp_path, text) as house:
        async with aiohttp.ClientSession() as client, client.post(house.base + CHAT, data=body_of()) as response:
            assert (response.status, response.headers["headgate-attempts"]) == (200, "1")
        await house.idle()
        (shadows,) = [each for each in house.gateway.plan.members.values() if isinstance(each, Shadows)]
        assert (shadows.made, said()) == (1, [])
        house.rewrite(text.replace("name: r", "name: s"))
        await house.gateway.reload()
        await until(said)
    assert said()[0]["outcome"] == "cancelled"


WORDS = (Chunk((ResponseStart(),)), Chunk((PartStart(0, Text("")),)), Chunk((PartDelta(0, "hi"),)))


async def test_no_more_than_so_many_and_only_a_share(
    call_of: Callable[..., Call], caplog: pytest.LogCaptureFixture
) -> None:
    drawn = [0.5]
    shadows = Shadows(0.1, 2, 5.0, lambda: drawn[0])
    call = call_of(stream=True)
    assert not shadows.wants(call)
    drawn[0] = 0.0999
    assert shadows.wants(call)
    assert not shadows.wants(call.replace(cause="retry"))
    assert not shadows.wants(call.replace(counts=True))
    let_go = asyncio.Event()

    async def serve(copy: Call) -> Reply:
        assert copy.scope is not call.scope
        assert (copy.payer, copy.trace, copy.decision is call.decision) == (None, None, False)
        await let_go.wait()
        return Reply(Listed(WORDS), copy.scope)

    for _ in range(2):
        assert shadows.wants(call)
        shadows.begin(call, serve)
    assert not shadows.wants(call)
    assert not shadows.wants(call)
    assert (shadows.made, shadows.left_out) == (2, 2)
    assert len([each for each in caplog.records if "copies are under way" in each.getMessage()]) == 1
    call.scope.close()
    let_go.set()
    await until(lambda: shadows.wants(call))
    await shadows.stop()
    assert not shadows.wants(call)


async def test_time_is_up(call_of: Callable[..., Call], said: Callable[[], list[dict[str, Any]]]) -> None:
    shadows = Shadows(1.0, 2, 0.01)

    async def serve(copy: Call) -> Reply:
        await asyncio.Event().wait()
        raise upstream_error("overloaded", "x")

    shadows.begin(call_of(), serve)
    await until(said)
    assert said()[0]["outcome"] == "timeout.total"
    await shadows.stop()


class Flood:
    """A source that says more and more, for as long as it is let. ``most`` is as much as it ever says."""

    def __init__(self, most: int) -> None:
        self.said = 0
        self.pauses = 0
        self._most = most
        self._paused = False
        self._sink: Any = None
        self._chunk = Chunk((PartDelta(0, 0, "x"),), b"x" * 64 * 1024)

    def connect(self, sink: Any) -> None:
        self._sink = sink
        self._run()

    def pause(self) -> None:
        self._paused = True
        self.pauses += 1

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._run()

    def abort(self) -> None:
        self._paused = True

    def _run(self) -> None:
        while not self._paused and self.said < self._most:
            self.said += 1
            self._sink.push(self._chunk)
        if not self._paused:
            self._sink.end(None)


async def test_a_flood_is_read_in_its_time_by_all_copies_together(
    call_of: Callable[..., Call], said: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its chunks would take the event loop from the calls of others."""
    shadows = Shadows(1.0, 2, 60.0)
    sources = [Flood(1000), Flood(1000)]

    async def serve(copy: Call) -> Reply:
        return Reply(sources[shadows.made - 1], copy.scope)  # type: ignore[arg-type]

    for source in sources:
        shadows.begin(call_of(stream=True), serve)
        await until(lambda source=source: source.pauses)
    assert [source.said for source in sources] == [5, 1]  # what may come at once, and the chunk that was too much
    monkeypatch.setattr("headgate.gateway.targets.shadow.RATE", 1 << 40)
    await until(lambda: len(said()) == 2)
    assert [source.said for source in sources] == [1000, 1000]
    assert [line["outcome"] for line in said()] == ["ok", "ok"]
    await shadows.stop()


async def test_one_of_ours_that_breaks_is_logged(
    call_of: Callable[..., Call], caplog: pytest.LogCaptureFixture, said: Callable[[], list[dict[str, Any]]]
) -> None:
    shadows = Shadows(1.0, 2, 1.0)

    async def serve(copy: Call) -> Reply:
        raise ZeroDivisionError

    shadows.begin(call_of(), serve)
    await until(said)
    await until(lambda: any("a task of a call failed" in each.getMessage() for each in caplog.records))
    assert said()[0]["outcome"] == "internal"
    await shadows.stop()
