"""What the Messages API refuses side by side, or refuses at all, and other formats allow: thinking, sampling, schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway.codecs.anthropic_messages import compose
from headgate.gateway.codecs.base import UpstreamFacts
from headgate.gateway.errors import DecodeError
from headgate.gateway.ir.message import (
    Message,
    Part,
    Reasoning,
    ReasoningOptions,
    Request,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

_USER = Message("user", (Text("a"),), brief=True)
_TOOL = Tool("look", b'{"type":"object"}')


def written(**fields: Any) -> tuple[dict[str, Any], list[str]]:
    """The body for a request of another format, and what its ledger says."""
    encoded = compose.encode_request(Request("gemini", "m", (_USER,), **fields), UpstreamFacts())
    return json.loads(encoded.body), [f"{loss.kind} {loss.what}" for loss in encoded.losses]


@pytest.mark.parametrize(
    ("most", "asked", "max_tokens", "budget", "losses"),
    [
        (None, 8192, 4096 + 8192, 8192, ["minted max_tokens", "minted max_tokens"]),
        (None, 10, 4096 + 1024, 1024, ["minted max_tokens", "minted max_tokens", "emulated budget_tokens"]),
        (9000, 8192, 9000, 8192, []),
        (8192, 8192, 8192, 8191, ["emulated budget_tokens"]),
        (2000, 8192, 2000, 1999, ["emulated budget_tokens"]),
        (1025, 8192, 1025, 1024, ["emulated budget_tokens"]),
        (1024, 8192, 1024, None, ["lost budget_tokens"]),
        (100, 50, 100, None, ["lost budget_tokens"]),
    ],
)
def test_thinking_leaves_room_for_words(
    most: int | None, asked: int, max_tokens: int, budget: int | None, losses: list[str]
) -> None:
    body, noted = written(max_output_tokens=most, reasoning=ReasoningOptions(budget_tokens=asked))
    assert body["max_tokens"] == max_tokens
    assert body.get("thinking") == (None if budget is None else {"type": "enabled", "budget_tokens": budget})
    assert noted == losses


@pytest.mark.parametrize(
    ("asked", "sent", "losses"), [(0.0, 0.0, []), (1.0, 1.0, []), (1.7, 1, ["emulated temperature"])]
)
def test_the_hottest_temperature(asked: float, sent: float, losses: list[str]) -> None:
    body, noted = written(max_output_tokens=9, temperature=asked)
    assert body["temperature"] == sent
    assert noted == losses


@pytest.mark.parametrize("reasoning", [ReasoningOptions(budget_tokens=2000), ReasoningOptions("adaptive")])
@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("tool", ("look",))])
def test_a_forced_tool_leaves_no_thinking(reasoning: ReasoningOptions, choice: ToolChoice) -> None:
    body, noted = written(max_output_tokens=9000, reasoning=reasoning, tools=(_TOOL,), tool_choice=choice)
    assert "thinking" not in body
    assert body["tool_choice"]["type"] in ("any", "tool")
    assert [loss.split()[0] for loss in noted] == ["lost"]


@pytest.mark.parametrize("reasoning", [ReasoningOptions(budget_tokens=2000), ReasoningOptions("adaptive")])
@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        ({"temperature": 0.2}, {}),
        ({"temperature": 1.0}, {"temperature": 1.0}),
        ({"top_k": 64, "top_p": 0.95}, {"top_p": 0.95}),
        ({"top_p": 0.5}, {}),
    ],
)
def test_sampling_that_goes_with_no_thinking(
    reasoning: ReasoningOptions, sampling: dict[str, Any], kept: dict[str, Any]
) -> None:
    body, noted = written(max_output_tokens=9000, reasoning=reasoning, **sampling)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == kept
    assert noted == [f"lost {name}" for name in sampling if name not in kept]


@pytest.mark.parametrize(
    ("before", "thinks"),
    [
        ((), False),
        ((Text("I look."),), False),
        ((Reasoning("Hm.", origin="gemini"),), False),
        ((Reasoning("Hm.", "signed", origin="anthropic.messages"),), True),
    ],
)
def test_thinking_does_not_begin_within_a_turn(before: tuple[Part, ...], thinks: bool) -> None:
    turns = (
        _USER,
        Message("assistant", (*before, ToolCall("c", "look", "{}"))),
        Message("tool", (ToolResult("c", (Text("x"),)),)),
    )
    request = Request("gemini", "m", turns, max_output_tokens=9000, reasoning=ReasoningOptions(budget_tokens=2000))
    encoded = compose.encode_request(request, UpstreamFacts())
    assert ("thinking" in json.loads(encoded.body)) is thinks
    assert ("budget_tokens" in [loss.what for loss in encoded.losses]) is not thinks


def test_thinking_begins_with_a_new_turn() -> None:
    turns = (
        _USER,
        Message("assistant", (ToolCall("c", "look", "{}"),)),
        Message("tool", (ToolResult("c", (Text("x"),)),)),
        Message("assistant", (Text("It is x."),)),
        _USER,
    )
    request = Request("gemini", "m", turns, max_output_tokens=9000, reasoning=ReasoningOptions(budget_tokens=2000))
    assert "thinking" in json.loads(compose.encode_request(request, UpstreamFacts()).body)


def test_without_thinking_sampling_stays() -> None:
    body, noted = written(max_output_tokens=9, temperature=0.2, top_k=3, reasoning=ReasoningOptions(effort="low"))
    assert (body["temperature"], body["top_k"], noted) == (0.2, 3, [])


_CLOSED = {"type": "object", "properties": {"at": {"type": "string"}}, "additionalProperties": False}
_OPEN = {"type": "object", "properties": {"at": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "sent", "losses"),
    [
        (_CLOSED, _CLOSED, []),
        (_OPEN, _CLOSED, ["emulated additionalProperties"]),
        (
            {"type": "array", "items": _OPEN, "maxItems": 3, "minItems": 1},
            {"type": "array", "items": _CLOSED, "minItems": 1, "description": "(maxItems: 3)"},
            ["emulated additionalProperties", "emulated maxItems"],
        ),
        (
            {"$ref": "#/$defs/Place", "$defs": {"Place": _OPEN}},
            {"$ref": "#/$defs/Place", "$defs": {"Place": _CLOSED}},
            ["emulated additionalProperties"],
        ),
        ({"oneOf": [_OPEN, {"type": "null"}]}, {"anyOf": [_CLOSED, {"type": "null"}]}, None),
        (
            {"type": "integer", "description": "How many.", "minimum": 1, "maximum": 9},
            {"type": "integer", "description": "How many.\n\n(minimum: 1, maximum: 9)"},
            ["emulated maximum", "emulated minimum"],
        ),
        (
            {**_OPEN, "propertyOrdering": ["at"]},
            _CLOSED,
            ["emulated additionalProperties", "emulated propertyOrdering"],
        ),
        (
            {"type": "object", "additionalProperties": {"type": "integer"}},
            {"type": "object", "additionalProperties": False},
            ["lost additionalProperties"],
        ),
        # A member may be called what a word of the language is.
        (
            {"type": "object", "properties": {"minimum": {"type": "string"}}, "additionalProperties": False},
            {"type": "object", "properties": {"minimum": {"type": "string"}}, "additionalProperties": False},
            [],
        ),
        ({"const": {"minimum": 1}}, {"const": {"minimum": 1}}, []),
    ],
)
def test_schemas_of_other_formats(schema: Any, sent: Any, losses: list[str] | None) -> None:
    wanted = ResponseFormat("json_schema", schema=json.dumps(schema).encode())
    body, noted = written(max_output_tokens=9, response_format=wanted)
    assert body["output_config"]["format"]["schema"] == sent
    if losses is not None:
        assert sorted(noted) == losses


def test_a_schema_that_needs_nothing_keeps_its_bytes() -> None:
    schema = b'{"type": "object",  "additionalProperties":false, "properties": {"n": {"const": 1.0}}}'
    request = Request("gemini", "m", (_USER,), response_format=ResponseFormat("json_schema", schema=schema))
    assert schema in compose.encode_request(request, UpstreamFacts()).body


def test_an_own_schema_is_nobodys_to_change() -> None:
    schema = b'{"type":"object","minProperties":1}'
    wanted = ResponseFormat("json_schema", schema=schema)
    request = Request("anthropic.messages", "m", (_USER,), max_output_tokens=9, response_format=wanted)
    assert schema in compose.encode_request(request, UpstreamFacts()).body


def test_a_schema_without_an_end() -> None:
    schema = b'{"items":' * 5000 + b"1" + b"}" * 5000
    wanted = ResponseFormat("json_schema", schema=schema)
    with pytest.raises(DecodeError):
        compose.encode_request(Request("gemini", "m", (_USER,), response_format=wanted), UpstreamFacts())
