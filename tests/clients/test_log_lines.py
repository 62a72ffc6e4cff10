"""One line for each call, whatever became of it, with the figures that it has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from headgate.middlewares import log

from ..fakes.gateway import Served
from ..fakes.provider import FakeProvider
from ..fakes.script import Script, Tokens, script
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, Talk, start

Begin = Callable[..., Talk]
pytestmark = pytest.mark.parametrize("caller", CALLERS)
FORMATS = {OPENAI: "openai.chat", ANTHROPIC: "anthropic.messages"}
SDK: dict[str, Any] = {OPENAI: openai, ANTHROPIC: anthropic}
to_each = pytest.mark.parametrize("to", MODELS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written in batches; here nobody waits for one to fill."""
    monkeypatch.setattr(log, "FLUSH_S", 0.0)


async def lines_of(served: Served, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines, once every call is over."""
    async with asyncio.timeout(2):
        while served.gateway.in_flight:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.02)
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "headgate.access"]


def _say(talk: Begin, caller: str, to: str, stream: bool) -> Talk:
    conversation = talk(caller, "x-" + MODELS[to], stream=stream)
    conversation.say("Hi.")
    return conversation


@both
@to_each
async def test_a_call_that_went_well(
    served: Served,
    provider: FakeProvider,
    talk: Begin,
    caplog: pytest.LogCaptureFixture,
    caller: str,
    to: str,
    stream: bool,
) -> None:
    provider.answer(script("Well.", tokens=Tokens(fresh=90, cached=20, written=10, output=7)))
    await _say(talk, caller, to, stream).hear()
    (line,) = await lines_of(served, caplog)
    assert line["outcome"] == "ok"
    assert line["status"] == 200
    assert line["format"] == FORMATS[caller]
    assert line["stream"] is stream
    assert line["key"] == "test"
    assert line["model"] == "x-" + MODELS[to]
    assert line["input_tokens"] == 120
    assert line["output_tokens"] == 7
    assert line["cache_read_input_tokens"] == 20
    assert line["attempts"][0]["request_id"] == provider.last.request_id
    assert line["request_id"] == provider.last.headers["x-request-id"]
    assert ("first_token_ms" in line) is stream


FAILURES: dict[str, tuple[list[Script], str, set[int], bool]] = {
    "refused": ([script(status=400)], "invalid_request", {400}, False),
    "overloaded twice": ([script(status=503), script(status=503)], "", {503, 529}, False),
    "cut": ([script("One two three", cut_after=4)], "cut", {200, 502}, True),
    "told in the stream": ([script("One two three", error_after=4)], "", {200, 500, 502, 503, 529}, True),
}


@pytest.mark.parametrize("how", FAILURES)
@to_each
async def test_a_call_that_failed(
    served: Served,
    provider: FakeProvider,
    talk: Begin,
    caplog: pytest.LogCaptureFixture,
    caller: str,
    to: str,
    how: str,
) -> None:
    plays, outcome, statuses, stream = FAILURES[how]
    provider.answer(*plays)
    with pytest.raises(SDK[caller].APIError):
        await _say(talk, caller, to, stream).hear()
    (line,) = await lines_of(served, caplog)
    assert line["outcome"] != "ok"
    assert outcome in line["outcome"]
    assert line["status"] in statuses
    assert line["error"]
    if len(plays) > 1:
        assert len(line["attempts"]) == len(plays)


@pytest.mark.parametrize("when", ["before", "in the middle"])
@both
async def test_a_client_that_left(
    served: Served,
    provider: FakeProvider,
    talk: Begin,
    caplog: pytest.LogCaptureFixture,
    caller: str,
    stream: bool,
    when: str,
) -> None:
    provider.answer(
        script("One two three", stall_before=True) if when == "before" else script("One two three", stall_after=4)
    )
    task = start(_say(talk, caller, OPENAI, stream).hear())
    await (await provider.received(1)).answering.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(provider.last.over.wait(), 2)
    (line,) = await lines_of(served, caplog)
    assert line["outcome"] == "cancelled"


async def test_a_call_without_a_known_key_is_no_call(
    served: Served, provider: FakeProvider, talk: Begin, caplog: pytest.LogCaptureFixture, caller: str
) -> None:
    conversation: Any = _say(talk, caller, OPENAI, False)
    conversation.client = conversation.client.with_options(api_key="sk-nobody-at-all")
    with pytest.raises(SDK[caller].AuthenticationError):
        await conversation.hear()
    assert "nobody-at-all" not in caplog.text
