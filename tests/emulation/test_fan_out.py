"""Several choices of a provider that gives one: as many calls, told as one answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import Say, Tokens, Use, script
from ..server.house import CHAT, House, begin, until

ASK: list[Any] = [{"role": "user", "content": "Say something."}]
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


async def heard(chat: openai.AsyncOpenAI, stream: bool, **asked: Any) -> Any:
    """Ask for several choices; the completion, as the SDK joins it."""
    if not stream:
        return await chat.chat.completions.create(model="fanned", messages=ASK, **asked)
    more = {"stream_options": {"include_usage": True}, **asked}
    async with chat.chat.completions.stream(model="fanned", messages=ASK, **more) as events:
        return await events.get_final_completion()


@both
async def test_three_choices(provider: FakeProvider, chat: openai.AsyncOpenAI, stream: bool) -> None:
    provider.answer(*(script(Say(text, 4), tokens=Tokens(10, output=5)) for text in ("one", "two", "three")))
    completion = await heard(chat, stream, n=3, seed=7)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert sorted(choice.message.content for choice in completion.choices) == ["one", "three", "two"]
    assert [choice.finish_reason for choice in completion.choices] == ["stop"] * 3
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (30, 15)
    assert [received.json.get("n") for received in provider.requests] == [None] * 3
    assert sorted(received.json["seed"] for received in provider.requests) == [7, 8, 9]


@both
async def test_calls_in_choices(provider: FakeProvider, chat: openai.AsyncOpenAI, stream: bool) -> None:
    """Parts are numbered through, and each choice has its own."""
    one = script("Let me.", Use("look", '{"at": "a"}', id="call_1"), Use("look", '{"at": "b"}', id="call_2"))
    provider.answer(one, one)
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    completion = await heard(chat, stream, n=2, tools=[tool])
    for choice in completion.choices:
        assert (choice.message.content, choice.finish_reason) == ("Let me.", "tool_calls")
        assert [call.function.arguments for call in choice.message.tool_calls] == ['{"at": "a"}', '{"at": "b"}']


async def test_streams_are_interleaved(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    provider.answer(*(script(Say("a b c d e f", 6), pause_s=0.01) for _ in range(2)))
    order: list[int] = []
    async for chunk in await chat.chat.completions.create(model="fanned", messages=ASK, n=2, stream=True):
        order += [choice.index for choice in chunk.choices if choice.delta.content]
    assert order.index(1) < len(order) - 1 - order[::-1].index(0), "the second began before the first ended"


async def test_more_than_the_cap(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="at most 4 choices") as caught:
        await chat.chat.completions.create(model="fanned", messages=ASK, n=5)
    assert (caught.value.param, provider.requests) == ("n", [])


@both
async def test_the_first_failure_ends_all(provider: FakeProvider, house: House, stream: bool) -> None:
    """Before the headers: the status is the failure's, and what still runs is closed."""
    provider.answer(script("one", stall_after=1), script("two", stall_after=1), script(status=401))
    call = {"model": "fanned", "messages": ASK, "n": 3, "stream": stream}
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, json=call)
    assert response.status_code == 502 or response.status_code == 401
    assert response.headers["headgate-error"] == "auth"
    await until(lambda: sorted(each.outcome for each in provider.requests) == ["aborted", "aborted", "done"])


async def test_a_failure_in_the_middle(provider: FakeProvider, house: House) -> None:
    """After the headers: the error stands in the stream, which has no clean end, and the others are closed."""
    provider.answer(
        script(Say("a b c d", 4), stall_after=4),
        script(Say("a b c d", 4), cut_after=4, cut="reset", pause_s=0.01),
    )
    call = {"model": "fanned", "messages": ASK, "n": 2, "stream": True}
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, json=call)
    frames = response.text.strip().split("\n\n")
    assert "error" in json.loads(frames[-1].removeprefix("data: ")) and "[DONE]" not in response.text
    await until(lambda: sorted(each.outcome for each in provider.requests) == ["aborted", "broken off"])


async def test_each_call_is_retried_by_itself(provider: FakeProvider, house: House) -> None:
    provider.answer(script("one"), script(status=503), script("two"), script("three"))
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, json={"model": "fanned", "messages": ASK, "n": 3})
    answers = response.json()["choices"]
    assert sorted(choice["message"]["content"] for choice in answers) == ["one", "three", "two"]
    assert response.headers["headgate-attempts"] == "4" and len(provider.requests) == 4


@both
@pytest.mark.parametrize("stalls", [{"stall_before": True}, {"stall_after": 2}], ids=["no headers", "half way"])
async def test_a_client_that_leaves(provider: FakeProvider, house: House, stream: bool, stalls: dict[str, Any]) -> None:
    provider.answer(*(script("Hello there", **stalls) for _ in range(3)))
    call = {"model": "fanned", "messages": ASK, "n": 3, "stream": stream}
    async with httpx.AsyncClient() as client:
        asking = begin(client.post(house.base + CHAT, json=call))
        for number in (1, 2, 3):
            await (await provider.received(number)).answering.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await until(lambda: [each.outcome for each in provider.requests] == ["aborted"] * 3)


async def test_one_choice_is_one_call_as_it_came(provider: FakeProvider, house: House) -> None:
    sent = json.dumps({"model": "fanned", "messages": ASK, "n": 1}, indent=1).encode()
    async with httpx.AsyncClient() as client:
        response = await client.post(house.base + CHAT, content=sent, headers={"content-type": "application/json"})
    assert provider.last.raw == sent and response.content == provider.last.body


async def test_a_slow_reader_pauses_all(provider: FakeProvider, chat: openai.AsyncOpenAI) -> None:
    """Nothing is lost between several sources that are paused and resumed."""
    words = "0123456789" * 4000
    provider.answer(*(script(Say(words, 400), piece=0) for _ in range(3)))
    got = ["", "", ""]
    async for chunk in await chat.chat.completions.create(model="fanned", messages=ASK, n=3, stream=True):
        for choice in chunk.choices:
            got[choice.index] += choice.delta.content or ""
            if len(got[choice.index]) % 20_000 == 0:
                await asyncio.sleep(0.01)
    assert got == [words] * 3
