"""Whole conversations for every pair of formats, streamed and whole: words, tools, images, thinking, usage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ..fakes.provider import FakeProvider
from ..fakes.script import Redacted, Stop, Think, Tokens, Use, script
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, Talk

Begin = Callable[..., Talk]
pytestmark = [
    pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"]),
    pytest.mark.parametrize("to", MODELS),
    pytest.mark.parametrize("caller", CALLERS),
]
standalone_only = pytest.mark.parametrize("served", ["standalone"], indirect=True)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.mark.parametrize("prefix", ["", "x-"], ids=["plain", "watched"])
async def test_text_and_usage(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool, prefix: str
) -> None:
    provider.answer(script("Grüße 👋 from the other side.", tokens=Tokens(100, 20, 0, 7)))
    conversation = talk(caller, prefix + MODELS[to], stream=stream)
    conversation.say("Say something, please.")
    heard = await conversation.hear()
    assert heard.text == "Grüße 👋 from the other side."
    assert heard.stop == {OPENAI: "stop", ANTHROPIC: "end_turn"}[caller]
    assert heard.tokens == (120, 20, 7)
    assert provider.last.api == to
    assert provider.last.outcome == "done"
    sent = provider.last.json["messages"]
    system = sent[0]["content"] if to == OPENAI else provider.last.json["system"]
    assert system == "You are terse."
    assert sent[-1]["role"] == "user"


@standalone_only
async def test_written_cache_tokens_are_input(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool
) -> None:
    provider.answer(script("Hi.", tokens=Tokens(fresh=3, cached=1000, written=200, output=2)))
    conversation = talk(caller, MODELS[to], stream=stream)
    conversation.say("Hi.")
    heard = await conversation.hear()
    assert heard.tokens == (1203, 1000, 2)


async def test_two_turns_of_parallel_tools(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool
) -> None:
    spaced = '{"at":  "Köln",\n "precise": 1.0, "b": {"z": 1, "a": [1e3, 2]}}'
    provider.answer(
        script("Let me look.", Use("look", spaced), Use("look", '{"at": "Rome"}'), Use("now")),
        script(Use("look", '{"at":"Oslo"}'), Use("now", "{}")),
        script("It is 21 °C everywhere."),
    )
    conversation = talk(caller, MODELS[to], stream=stream)
    conversation.tools("look", "now")
    conversation.say("How warm is it?")
    heard = await conversation.hear()
    assert heard.text == "Let me look."
    assert heard.stop == {OPENAI: "tool_calls", ANTHROPIC: "tool_use"}[caller]
    assert [name for _, name, _ in heard.calls] == ["look", "look", "now"]
    if caller == OPENAI:
        assert heard.calls[0][2] == spaced
        assert json.loads(heard.calls[2][2]) == {}
    else:
        assert heard.calls[0][2] == json.loads(spaced)
        assert heard.calls[2][2] == {}
    for count in (3, 2):
        assert len(heard.calls) == count
        assert len({id for id, _, _ in heard.calls}) == count
        conversation.give({id: f"21 °C ({number})" for number, (id, _, _) in enumerate(heard.calls)})
        heard = await conversation.hear()
    assert heard.text == "It is 21 °C everywhere."
    assert not provider.refusals
    assert len(provider.requests) == 3
    first, second, third = (json.dumps(received.json["messages"]) for received in provider.requests)
    # A prompt cache lives on this: what was sent stays as it was sent.
    assert second.startswith(first[:-1])
    assert third.startswith(second[:-1])


@standalone_only
@pytest.mark.parametrize("how", ["data", "url"])
async def test_images(provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool, how: str) -> None:
    image = {"data": PNG} if how == "data" else {"url": "https://images.example/cat.png?size=large&x=ü"}
    conversation = talk(caller, MODELS[to], stream=stream)
    conversation.show("What is this?", **image)
    heard = await conversation.hear()
    assert heard.text == "Hello!"
    content = provider.last.json["messages"][-1]["content"]
    assert content[0] == {"type": "text", "text": "What is this?"}
    if to == OPENAI:
        sent = content[1]["image_url"]["url"]
        assert sent == (f"data:image/png;base64,{PNG}" if how == "data" else image["url"])
    elif how == "data":
        assert content[1]["source"] == {"type": "base64", "media_type": "image/png", "data": PNG}
    else:
        assert content[1]["source"] == {"type": "url", "url": image["url"]}


def _ask_to_think(conversation: Talk, caller: str) -> None:
    if caller == OPENAI:
        conversation.options["reasoning_effort"] = "high"
    else:
        conversation.options["thinking"] = {"type": "enabled", "budget_tokens": 2048}


async def test_thinking_across_three_turns(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool
) -> None:
    provider.reasoning_field = True
    redacted = (Redacted("RWFzdGVyIGVnZw=="),) if (caller, to) == (ANTHROPIC, ANTHROPIC) else ()
    provider.answer(
        script(Think("First I look.\n"), *redacted, "Looking.", Use("look", '{"at": "Rome"}')),
        script(Think("Now again … 🤔"), Use("look", '{"at": "Oslo"}')),
        script(Think("Done."), "Both are warm."),
    )
    conversation = talk(caller, MODELS[to], stream=stream)
    conversation.tools("look")
    _ask_to_think(conversation, caller)
    conversation.say("Where is it warm?")
    thoughts = []
    heard = await conversation.hear()
    while heard.calls:
        thoughts.append(heard.thinking)
        conversation.give({heard.calls[0][0]: "warm"})
        heard = await conversation.hear()
    thoughts.append(heard.thinking)
    assert heard.text == "Both are warm."
    assert thoughts == ["First I look.\n", "Now again … 🤔", "Done."]
    assert not provider.refusals
    sent = provider.last.json["messages"]
    given = [block for message in sent for block in message["content"] or () if isinstance(block, dict)]
    signed = [block["signature"] for block in given if block.get("type") == "thinking"]
    if caller == to == ANTHROPIC:
        # The provider verified them; here: none went missing on the way.
        assert signed == list(provider.issued.signatures)[:2]
        assert [block["data"] for block in given if block.get("type") == "redacted_thinking"] == ["RWFzdGVyIGVnZw=="]
        assert set(heard.signatures) <= set(provider.issued.signatures)
    else:
        assert not any(heard.signatures), "a signature that nobody gave"


STOPS: list[tuple[Stop, dict[str, str]]] = [
    ("length", {OPENAI: "length", ANTHROPIC: "max_tokens"}),
    ("filter", {OPENAI: "content_filter", ANTHROPIC: "refusal"}),
]


@standalone_only
@pytest.mark.parametrize(("stop", "expected"), STOPS, ids=["length", "filter"])
async def test_stop_reasons(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool, stop: Stop, expected: dict[str, str]
) -> None:
    provider.answer(script("Well,", stop=stop))
    conversation: Any = talk(caller, MODELS[to], stream=stream)
    conversation.say("Go on.")
    if caller == OPENAI and stream:
        # The SDK's streaming helper raises for these; its plain stream tells them.
        chunks = await conversation.client.chat.completions.create(
            model=conversation.model, messages=conversation.messages, stream=True
        )
        reasons = [chunk.choices[0].finish_reason async for chunk in chunks if chunk.choices]
        assert reasons[-1] == expected[caller]
        return
    assert (await conversation.hear()).stop == expected[caller]


async def test_no_word_is_lost_at_any_split(
    provider: FakeProvider, talk: Begin, caller: str, to: str, stream: bool
) -> None:
    text = 'Zwölf Boxkämpfer 👨‍👩‍👧 jagen\r\n\tViktor \\ über "den" großen Sylter Deich.\u2028\x00'
    for piece in (0, 1, 5, 64):
        provider.answer(script(text, Use("look", '{"at": "x\\u00e4"}'), piece=piece))
        conversation = talk(caller, MODELS[to], stream=stream)
        conversation.tools("look")
        conversation.say("Go.")
        heard = await conversation.hear()
        assert heard.text == text
        assert heard.calls[0][1] == "look"
        arguments: Any = heard.calls[0][2]
        assert (json.loads(arguments) if caller == OPENAI else arguments) == {"at": "xä"}
