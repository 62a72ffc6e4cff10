"""Five turns of a client of Responses that keeps all state itself, with a provider of another format and back.

The client sends ``store: false`` and asks for encrypted reasoning; each turn it sends the whole input again: what it said,
every item of every answer, and what its two tools returned. The provider, who speaks Messages, must be sent the blocks that
it wrote, its signatures on them, as if it had been asked by a client of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.base import AnswerContext, RequestFacts, UpstreamFacts
from headgate.gateway.ir.event import Chunk, Event
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

RESPONSES = registry.codec("openai.responses")
ANTHROPIC = registry.codec("anthropic.messages")
CHAT = registry.codec("openai.chat")
SDK_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": f"{name} it",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"what": {"type": "string"}},
            "required": ["what"],
            "additionalProperties": False,
        },
    }
    for name in ("look", "keep")
]
HEAD = {
    "model": "m",
    "instructions": "Be brief.",
    "tools": TOOLS,
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "reasoning": {"effort": "medium"},
    "parallel_tool_calls": True,
    "max_output_tokens": 2000,
}


def thinking(text: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": signature}


def use(id: str, name: str, **input: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": input}


TURNS: list[tuple[list[dict[str, Any]], str]] = [
    ([thinking("Which city?", "Sig1=="), use("toolu_1", "look", what="Rome")], "tool_use"),
    (
        [
            thinking("Both at once.", "Sig2=="),
            {"type": "text", "text": "Looking on."},
            use("toolu_2a", "look", what="Oslo"),
            use("toolu_2b", "keep", what='"Rome"\n: 21°'),
        ],
        "tool_use",
    ),
    ([{"type": "redacted_thinking", "data": "Red3=="}, {"type": "text", "text": "Rome: 21°."}], "end_turn"),
    ([thinking("One more.", "Sig4a"), thinking("Or two.", "Sig4b"), use("toolu_4", "keep", what="x")], "tool_use"),
    ([{"type": "text", "text": "Kept."}], "end_turn"),
]
"""What the provider answers, turn by turn, and why it stops."""

ASKED = "And then?"


def as_whole(blocks: list[dict[str, Any]], reason: str) -> list[Event]:
    body: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": blocks}
    body |= {"stop_reason": reason, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 5}}
    return list(ANTHROPIC.decode_response(json.dumps(body, ensure_ascii=False).encode()))


def as_stream(blocks: list[dict[str, Any]], reason: str) -> list[Event]:
    """The same, told in the provider's own events."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    frames: list[dict[str, Any]] = [{"type": "message_start", "message": {**start, "usage": usage}}]
    for index, block in enumerate(blocks):
        deltas: list[dict[str, Any]] = []
        if block["type"] == "thinking":
            deltas.append({"type": "thinking_delta", "thinking": block["thinking"]})
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            block = thinking("", "")
        elif block["type"] == "text":
            deltas += [{"type": "text_delta", "text": sign} for sign in block["text"]]
            block = {"type": "text", "text": ""}
        elif block["type"] == "tool_use":
            spelled = json.dumps(block["input"], ensure_ascii=False)
            deltas += [{"type": "input_json_delta", "partial_json": piece} for piece in ("", spelled[:7], spelled[7:])]
            block = {**block, "input": {}}
        frames.append({"type": "content_block_start", "index": index, "content_block": block})
        frames += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        frames.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": reason, "stop_sequence": None}
    frames += [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}}, {"type": "message_stop"}]
    wire = b"".join(b"event: %b\ndata: %b\n\n" % (f["type"].encode(), json.dumps(f).encode()) for f in frames)
    decoder = ANTHROPIC.stream_decoder()
    chunks = [decoder.feed(wire), decoder.close()]
    assert decoder.error is None
    return [event for chunk in chunks if chunk is not None for event in chunk.events]


def heard_whole(events: list[Event], context: AnswerContext) -> list[dict[str, Any]]:
    """The output items of a whole answer, as a client of the SDK gets them."""
    body = RESPONSES.encode_response(events, context).body
    return items_of(Response.model_validate_json(body))


def heard_stream(events: list[Event], context: AnswerContext) -> list[dict[str, Any]]:
    """The same of a stream, each event of which is valid by the SDK's types."""
    encoder = RESPONSES.stream_encoder(context)
    wire = b"".join(encoder.encode(Chunk((event,))) for event in events) + encoder.close(None)
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for frame in wire.split(b"\n\n")[:-1]:
        state.handle_event(SDK_EVENT.validate_json(frame.partition(b"data: ")[2]))
    return items_of(state._completed_response)


def items_of(response: Any) -> list[dict[str, Any]]:
    return [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in response.output]


def results(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the client's tools return, or what its user says next."""
    calls = [item for item in items if item["type"] == "function_call"]
    told = [
        {"type": "function_call_output", "call_id": call["call_id"], "output": f"{call['name']}: {call['arguments']}"}
        for call in calls
    ]
    return told or [{"role": "user", "content": ASKED}]


def expected(turns: int) -> list[dict[str, Any]]:
    """The messages that a client of the provider's own format would send after so many turns."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "Compare."}]}]
    for blocks, _ in TURNS[:turns]:
        messages.append({"role": "assistant", "content": blocks})
        told: list[dict[str, Any]] = [
            {
                "type": "tool_result",
                "tool_use_id": block["id"],
                "content": f"{block['name']}: {json.dumps(block['input'], ensure_ascii=False)}",
            }
            for block in blocks
            if block["type"] == "tool_use"
        ]
        messages.append({"role": "user", "content": told or [{"type": "text", "text": ASKED}]})
    return messages


@pytest.mark.parametrize(("told", "heard"), [(as_whole, heard_whole), (as_stream, heard_stream)])
def test_five_turns_with_a_provider_of_messages(
    told: Callable[[list[dict[str, Any]], str], list[Event]],
    heard: Callable[[list[Event], AnswerContext], list[dict[str, Any]]],
) -> None:
    said: list[dict[str, Any]] = [{"role": "user", "content": "Compare."}]
    before = b""
    for number, (blocks, reason) in enumerate(TURNS):
        request = RESPONSES.decode_request(json.dumps(HEAD | {"input": said}).encode(), RequestFacts())
        encoded = ANTHROPIC.encode_request(request, UpstreamFacts())
        sent = json.loads(encoded.body)
        assert sent["messages"] == expected(number)
        assert [tool["name"] for tool in sent["tools"]] == ["look", "keep"]
        assert [loss.path for loss in encoded.losses if loss.kind == "lost"] == []
        # What was sent before is sent again, byte for byte, so that the provider's cache holds it.
        assert encoded.body.startswith(before)
        before, end, _ = encoded.body.partition(b'],"max_tokens":')
        assert end

        items = heard(told(blocks, reason), AnswerContext(request_id=f"r{number}", created=7, model="m"))
        ids = [item["id"] for item in said if "id" in item]
        assert not {item["id"] for item in items} & set(ids)
        said += [*items, *results(items)]
    assert [item["type"] for item in said if "type" in item].count("reasoning") == 5


def test_streamed_and_whole_answers_are_the_same_items() -> None:
    context = AnswerContext(request_id="r", created=7, model="m")
    for blocks, reason in TURNS:
        assert heard_stream(as_stream(blocks, reason), context) == heard_whole(as_whole(blocks, reason), context)
