"""Law 5, prefix-stable: the request of turn n+1 begins with the bytes of turn n, as far as the conversation did."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from hypothesis import given
from hypothesis import strategies as st

from .answers import IDS, OBJECTS, WORDS
from .common import ANTHROPIC, CODECS, OPENAI, RESPONSES, ROADS, law

Turn = list[dict[str, Any]]
"""What one exchange adds to the messages: an answer, and what the user or the tools say to it."""
SAID = WORDS.map(lambda text: f"x{text}")
"""Words that are more than white space."""
PIXEL = "iVBORw0KGgo="
PICTURE = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "low"}


@st.composite
def openai_turn(draw: st.DrawFn, number: int) -> Turn:
    calls = [
        {"id": f"call_{number}_{i}", "type": "function", "function": {"name": draw(IDS), "arguments": draw(OBJECTS)}}
        for i in range(draw(st.integers(0, 3)))
    ]
    answer: dict[str, Any] = {"role": "assistant", "content": draw(SAID)}
    if draw(st.integers(0, 3)) == 0:
        answer["reasoning_content"] = draw(SAID)
    if calls:
        answer["tool_calls"] = calls
        if draw(st.booleans()):
            answer["content"] = None
    turn = [answer, *({"role": "tool", "tool_call_id": call["id"], "content": draw(SAID)} for call in calls)]
    if not calls or draw(st.booleans()):
        turn.append({"role": "user", "content": draw(_openai_content())})
    if draw(st.integers(0, 3)) == 0:
        turn.append({"role": draw(st.sampled_from(["system", "developer"])), "content": draw(SAID)})
    return turn


@st.composite
def _openai_content(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        return draw(SAID)
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}}
    return [image, {"type": "text", "text": draw(SAID)}]


@st.composite
def anthropic_turn(draw: st.DrawFn, number: int) -> Turn:
    blocks: list[dict[str, Any]] = []
    if draw(st.booleans()):
        blocks.append({"type": "thinking", "thinking": draw(SAID), "signature": draw(IDS)})
    if draw(st.booleans()):
        blocks.append({"type": "text", "text": draw(SAID)})
    uses: list[dict[str, Any]] = [
        {"type": "tool_use", "id": f"toolu_{number}_{i}", "name": draw(IDS), "input": json.loads(draw(OBJECTS))}
        for i in range(draw(st.integers(0, 3)))
    ]
    content: list[Any] = []
    for use in uses:
        result: dict[str, Any] = {"type": "tool_result", "tool_use_id": use["id"], "content": draw(SAID)}
        if draw(st.integers(0, 2)) == 0:
            image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
            result["content"] = [{"type": "text", "text": draw(SAID)}, image]
        content.append(result)
    if not uses or draw(st.booleans()):
        content.append({"type": "text", "text": draw(SAID)})
    said: Any = [*blocks, *uses]
    answer = {"role": "assistant", "content": said or draw(SAID)}
    plain = len(content) == 1 and content[0]["type"] == "text" and draw(st.booleans())
    turn = [answer, {"role": "user", "content": content[0]["text"] if plain else content}]
    if draw(st.integers(0, 4)) == 0:
        turn.append({"role": "system", "content": draw(SAID)})
    return turn


@st.composite
def responses_turn(draw: st.DrawFn, number: int) -> Turn:
    """Items, as a client without stored state sends them: all that an answer was, then what is said to it."""
    turn: Turn = []
    if draw(st.booleans()):
        summary = [{"type": "summary_text", "text": draw(SAID)} for _ in range(draw(st.integers(0, 2)))]
        # What this API encrypted, or what the gateway carries of another's: ``carry`` in words.py.
        signature = draw(st.sampled_from(["", "signed:anthropic.messages:"])) + draw(IDS)
        turn.append({"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": signature})
    if draw(st.booleans()):
        said = [{"type": "output_text", "text": draw(SAID), "annotations": []}]
        more = {"id": f"msg_{number}", "status": "completed"}
        turn.append({"type": "message", "role": "assistant", "content": said, **more})
    calls: Turn = []
    results: Turn = []
    for i in range(draw(st.integers(0, 3))):
        id, custom = f"call_{number}_{i}", draw(st.integers(0, 4)) == 0
        call: dict[str, Any] = {"call_id": id, "name": draw(IDS), "id": f"fc_{number}_{i}"}
        call |= {"type": "custom_tool_call", "input": draw(SAID)} if custom else {"arguments": draw(OBJECTS)}
        calls.append({"type": "function_call", "status": "completed", **call})
        output: Any = draw(SAID)
        if draw(st.integers(0, 2)) == 0:
            output = [{"type": "input_text", "text": output}, dict(PICTURE)]
        results.append({"type": f"{calls[-1]['type']}_output", "call_id": id, "output": output})
    turn += [*calls, *results]
    brief = not turn or draw(st.integers(0, 5)) == 0
    if brief:
        turn.append({"role": "assistant", "content": draw(SAID)})
    if not results or brief or draw(st.booleans()):
        content: Any = draw(SAID)
        if draw(st.booleans()):
            content = [dict(PICTURE), {"type": "input_text", "text": content}]
        turn.append({"role": "user", "content": content})
    if draw(st.integers(0, 4)) == 0:
        turn.append({"role": draw(st.sampled_from(["system", "developer"])), "content": draw(SAID)})
    return turn


@st.composite
def conversations(draw: st.DrawFn, format: str) -> tuple[dict[str, Any], list[Turn]]:
    """A request without messages, and the turns of a conversation."""
    some = draw(st.lists(st.sampled_from(["tools", "system", "settings"]), unique=True))
    head: dict[str, Any] = {"model": "m"}
    first: Turn = [{"role": "user", "content": draw(SAID)}]
    schema = {"type": "object", "properties": {}}
    if format == OPENAI:
        if "tools" in some:
            head["tools"] = [{"type": "function", "function": {"name": "look", "parameters": schema}}]
        if "system" in some:
            first.insert(0, {"role": draw(st.sampled_from(["system", "developer"])), "content": draw(SAID)})
        if "settings" in some:
            head |= {"temperature": 0.5, "stop": ["END"], "max_tokens": 99, "response_format": {"type": "json_object"}}
        turn: Any = openai_turn
    elif format == RESPONSES:
        head |= {"store": False, "include": ["reasoning.encrypted_content"]}
        if "tools" in some:
            head["tools"] = [{"type": "function", "name": "look", "parameters": schema, "strict": False}]
        if "system" in some:
            head["instructions"] = draw(SAID)
        if "settings" in some:
            head |= {"temperature": 0.5, "max_output_tokens": 99, "reasoning": {"effort": "low", "summary": "auto"}}
        turn = responses_turn
    else:
        head["max_tokens"] = 99
        if "tools" in some:
            head["tools"] = [{"name": "look", "input_schema": schema}]
        if "system" in some:
            text = draw(SAID)
            head["system"] = draw(st.sampled_from([text, [{"type": "text", "text": text}]]))
        if "settings" in some:
            head |= {"top_k": 5, "stop_sequences": ["END"], "thinking": {"type": "enabled", "budget_tokens": 2000}}
        turn = anthropic_turn
    return head, [first, *(draw(turn(number)) for number in range(draw(st.integers(1, 4))))]


def translated(here: str, there: str, head: dict[str, Any], turns: Sequence[Turn]) -> bytes:
    """Return the request that a provider of ``there`` is sent for the conversation so far."""
    said = "input" if here == RESPONSES else "messages"
    body = head | {said: [message for turn in turns for message in turn]}
    request = CODECS[here].decode_request(json.dumps(body).encode(), RequestFacts())
    return CODECS[there].encode_request(request, UpstreamFacts()).body


def conversation_of(body: bytes) -> bytes:
    """Return ``body`` up to the end of the last thing said: of the last block, or of the last message that has none."""
    name = b'"messages":[' if b'"messages":[' in body else b'"input":['
    start = body.index(name) + len(name)
    decoder = json.JSONDecoder()
    text, place, last = body[start:].decode(), 0, 0
    while text[place] != "]":
        _, place = decoder.raw_decode(text, place + (text[place] == ","))
        last = place
    said = body[:start] + text[:last].encode()
    return said.removesuffix(b"}").removesuffix(b"]") if said.endswith(b"]}") else said


@pytest.mark.parametrize(("here", "there"), ROADS)
@law
@given(st.data())
def test_the_next_turn_begins_with_this_one(here: str, there: str, data: st.DataObject) -> None:
    head, turns = data.draw(conversations(here))
    before = translated(here, there, head, turns[:1])
    for count in range(2, len(turns) + 1):
        after = translated(here, there, head, turns[:count])
        assert after.startswith(conversation_of(before))
        before = after


@pytest.mark.parametrize(("here", "there"), ROADS)
@law
@given(st.data())
def test_the_same_request_is_the_same_bytes(here: str, there: str, data: st.DataObject) -> None:
    head, turns = data.draw(conversations(here))
    assert translated(here, there, head, turns) == translated(here, there, head, turns)


def test_what_stands_before_the_messages_does_not_change() -> None:
    """Anthropic's caches are keyed on tools and system first: both stand before the messages there."""
    ask = {"role": "user", "content": "hi"}
    head = {"model": "m", "tools": [{"type": "function", "function": {"name": "look"}}]}
    body = translated(OPENAI, ANTHROPIC, head, [[{"role": "system", "content": "Be brief."}, ask]])
    assert body.index(b'"system"') < body.index(b'"messages"')
    assert body.index(b'"tools"') < body.index(b'"messages"')
