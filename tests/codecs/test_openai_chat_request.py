"""Requests of Chat Completions: round trips, requests of other formats, faults with their paths, the two cheap looks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway.codecs.base import Peek, RequestFacts, UpstreamFacts
from headgate.gateway.codecs.openai_chat import CODEC
from headgate.gateway.errors import DecodeError
from headgate.gateway.ir.loss import Loss
from headgate.gateway.ir.message import (
    CacheMark,
    Citation,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    ReasoningOptions,
    Refusal,
    Request,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from .openai_chat_cases import load

F = "openai.chat"
FACTS = RequestFacts()
PLAIN = UpstreamFacts()
HI = [{"role": "user", "content": "hi"}]


def decode(value: object) -> Request:
    return CODEC.decode_request(json.dumps(value).encode(), FACTS)


def encode(request: Request, **options: object) -> tuple[dict[str, Any], list[Loss]]:
    encoded = CODEC.encode_request(request, UpstreamFacts(options=options))
    assert encoded.path == "/chat/completions"
    return json.loads(encoded.body), list(encoded.losses)


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"max_tokens": 3},
    {"max_completion_tokens": 3},
    {"max_tokens": 2, "max_completion_tokens": 3},
    {"stop": "a"},
    {"stop": ["a"]},
    {"stop": ["a", "b"]},
    {"stop": []},
    {"stop": None, "temperature": None, "tools": None, "user": None, "stream": None, "stream_options": None},
    {"stream": False},
    {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    {"stream": True, "stream_options": {}},
    {"stream": True, "stream_options": {"include_usage": None}},
    {"stream": True, "stream_options": {"include_obfuscation": True}},
    {"tools": []},
    {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [{**FUNCTION, "cache_control": {"type": "ephemeral"}, "x": 1}], "tool_choice": "none"},
    {"tools": [{"type": "function", "function": {"name": "f", "strict": None, "x": {"y": 1}}}]},
    {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "f", "x": 1}, "y": 2}},
    {
        "tools": [{"type": "custom", "custom": {"name": "g", "description": "d", "format": {"type": "text"}}}],
        "tool_choice": {"type": "custom", "custom": {"name": "g"}},
    },
    {
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}],
            },
        }
    },
    {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "mcp"}]}}},
    {"tool_choice": {"type": "new_thing", "x": 1}},
    {"tool_choice": "any"},
    {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
    {"functions": [{"name": "f", "parameters": {}, "x": 1}], "function_call": {"name": "f"}},
    {"functions": [{"name": "f"}], "function_call": "auto"},
    {"functions": []},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "json_object"}},
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True, "description": "d", "y": 1},
            "z": 1,
        }
    },
    {"response_format": {"type": "grammar", "grammar": "x"}},
    {"metadata": {"a": "b"}},
    {"metadata": {"a": {"b": 1}}},
    {"metadata": {}},
    {"user": "u"},
    {"safety_identifier": "s"},
    {"user": "u", "safety_identifier": "s"},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "xhigh", "verbosity": "low", "service_tier": "flex"},
    {"reasoning": {"effort": "high", "exclude": True}, "thinking": {"type": "enabled"}},
    {"temperature": 0.2, "top_p": 0.9, "n": 2, "seed": 5, "top_k": 40},
    {"logprobs": True, "top_logprobs": 2, "logit_bias": {"50256": -100}},
    {"presence_penalty": 0.5, "frequency_penalty": -0.5},
    {
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    },
    {"store": True, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
    {"prediction": {"type": "content", "content": "x"}, "web_search_options": {}, "moderation": {"model": "m"}},
    {"cache_control": {"type": "ephemeral", "ttl": "1h"}, "models": ["a", "b"], "provider": {"only": ["x"]}},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: ",".join(s) or "bare")
def test_settings_round_trip(settings: dict[str, Any]) -> None:
    body = {"model": "m", "messages": HI, **settings}
    assert encode(decode(body)) == (body, [])


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a": 1.0}'}}
MESSAGES: list[list[dict[str, Any]]] = [
    [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "developer", "content": [{"type": "text", "text": "x"}]},
    ],
    [{"role": "user", "content": ""}, {"role": "user", "content": []}],
    [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}, {"type": "text", "text": "b"}]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}}]}],
    [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "z": 1}, "y": 2}],
        }
    ],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg/>"}}]}],
    [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}}]}],
    [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "flac"}}]}],
    [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}],
    [
        {
            "role": "user",
            "content": [{"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a"}}],
        }
    ],
    [{"role": "user", "content": [{"type": "file", "file": {"file_data": "AA", "filename": "a.pdf"}}]}],
    [{"role": "user", "content": [{"type": "file", "file": {"file_data": "https://x/y.pdf"}}]}],
    [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "u"}}]}],
    [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}},
                {"type": "text", "text": "b", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "text", "text": "b", "prompt_cache_breakpoint": {"ttl": "30m"}},
                {"type": "text", "text": "b", "prompt_cache_breakpoint": {"mode": "new", "x": 1}},
                {"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "d", "cache_control": {"type": "ephemeral", "ttl": "1h", "x": 1}},
                {"type": "text", "text": "e", "cache_control": {"type": "persistent"}},
                {"type": "text", "text": "f", "cache_control": {}},
            ],
        }
    ],
    [{"role": "system", "content": "x", "cache_control": {"type": "ephemeral"}}],
    [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL, {**CALL, "id": "b", "extra_content": {"google": {"s": 1}}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "r"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "r"}], "name": "f"},
        {"role": "tool", "tool_call_id": "c", "content": []},
        {"role": "tool", "tool_call_id": "d", "content": ""},
    ],
    [
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"id": "b", "type": "custom", "custom": {"name": "g", "input": "x"}}],
        }
    ],
    [{"role": "assistant", "content": "a", "refusal": None, "audio": {"id": "au"}, "annotations": []}],
    [{"role": "assistant", "refusal": "no"}, {"role": "assistant", "content": None, "refusal": "no"}],
    [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]}],
    [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
    [{"role": "assistant", "content": [{"type": "text", "text": "a"}], "refusal": "no"}],
    [
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": []},
        {"role": "assistant", "tool_calls": []},
    ],
    [
        {"role": "assistant", "content": "x", "reasoning_content": "r"},
        {"role": "assistant", "content": "x", "reasoning": "r"},
    ],
    [
        {"role": "assistant", "content": "x", "reasoning_content": ""},
        {"role": "assistant", "content": "x", "reasoning": None},
    ],
    [{"role": "assistant", "content": "x", "reasoning": "r", "reasoning_content": "r"}],
    [
        {
            "role": "assistant",
            "content": "x",
            "reasoning": "r",
            "reasoning_details": [{"type": "reasoning.text", "text": "r"}],
        }
    ],
    [{"role": "assistant", "content": "x", "reasoning_details": [{"type": "reasoning.encrypted", "data": "r"}]}],
    [{"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "x"}]}]}],
    [{"role": "assistant", "content": "{", "partial": True}],
    [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}", "x": 1}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "not json"}},
        {"role": "function", "name": "f", "content": None},
    ],
]


@pytest.mark.parametrize("messages", MESSAGES)
def test_messages_round_trip(messages: list[dict[str, Any]]) -> None:
    body = {"model": "m", "messages": messages}
    assert encode(decode(body)) == (body, [])


def test_the_published_agent_request_round_trips() -> None:
    body = load("agent_request.json")
    assert json.loads(CODEC.encode_request(CODEC.decode_request(body, FACTS), PLAIN).body) == json.loads(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80)
@given(
    st.dictionaries(st.from_regex(r"\Ax_[a-z]{1,5}\Z"), JSON, max_size=3),
    st.sampled_from(MESSAGES),
    st.sampled_from(SETTINGS),
)
def test_unknown_members_round_trip(unknown: dict[str, Any], messages: list[Any], settings: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{**message, **unknown} for message in messages], **settings, **unknown}
    assert encode(decode(body)) == (body, [])


TWO_SPELLINGS: list[dict[str, Any]] = [
    {"functions": [{"name": "old"}], "tools": [{"type": "function", "function": {"name": "new"}}]},
    {"function_call": "auto", "tool_choice": "none"},
    {"function_call": {"name": "old"}, "tool_choice": "required", "functions": [{"name": "old"}]},
    {"functions": [{"name": "old", "x": 1}], "tools": [{"type": "web_search"}], "function_call": "auto"},
]


@pytest.mark.parametrize("both", TWO_SPELLINGS)
def test_an_older_spelling_beside_the_newer_one_stays(both: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **both}
    encoded = CODEC.encode_request(CODEC.decode_request(json.dumps(body).encode(), RequestFacts()), UpstreamFacts())
    assert json.loads(encoded.body) == body
    assert encoded.losses == ()


def test_bytes_are_kept() -> None:
    body = (
        b'{"model":"m","zz":{"n": 1.0,  "m":1e3},"messages":[{"role":"assistant","content":"a","yy":[1,  2.50],"tool_calls":'
        b'[{"id":"a","type":"function","function":{"name":"f","arguments":"{\\"b\\": 1.0,  \\"a\\":2}"}}]}],"tools":[{"type":'
        b'"function","function":{"name":"f","parameters":{"b": 1.0,  "a":12345678901234567890}}}],"response_format":{"type":'
        b'"json_schema","json_schema":{"name":"s","schema":{"y": 1,  "x":2.0}}}}'
    )
    out = CODEC.encode_request(CODEC.decode_request(body, FACTS), PLAIN).body
    for piece in (
        b'"zz":{"n": 1.0,  "m":1e3}',
        b'"yy":[1,  2.50]',
        b'"arguments":"{\\"b\\": 1.0,  \\"a\\":2}"',
        b'"parameters":{"b": 1.0,  "a":12345678901234567890}',
        b'"schema":{"y": 1,  "x":2.0}',
    ):
        assert piece in out


def test_what_a_request_says() -> None:
    request = decode(
        {
            "model": "m",
            "messages": [
                {"role": "developer", "content": "d"},
                {
                    "role": "user",
                    "name": "bob",
                    "content": [
                        {"type": "text", "text": "t", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
                        {"type": "input_audio", "input_audio": {"data": "BB", "format": "mp3"}},
                        {"type": "file", "file": {"file_data": "data:application/pdf;base64,CC", "filename": "a.pdf"}},
                        {"type": "odd", "x": 1},
                    ],
                },
                {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "a", "content": "ok"},
            ],
            "tools": [FUNCTION],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "max_tokens": 9,
            "stop": "x",
            "reasoning_effort": "none",
            "safety_identifier": "u",
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    developer, user, assistant, tool = request.messages
    assert developer == Message("developer", (Text("d"),), brief=True)
    assert user.name == "bob" and user.parts == (
        Text("t", cache=CacheMark("30m", {"prompt_cache_breakpoint": Raw(b"null")})),
        Media("image", "image/png", data="AA", detail="low"),
        Media("audio", "audio/mpeg", data="BB"),
        Media("document", "application/pdf", data="CC", name="a.pdf"),
        Opaque(F, "odd", b'{"type": "odd", "x": 1}'),
    )
    assert assistant.parts == (Reasoning("r", origin=f"{F}:reasoning_content"), ToolCall("a", "f", '{"a": 1.0}'))
    assert tool == Message("tool", (ToolResult("a", (Text("ok"),), brief=True),), brief=True)
    assert request.tools == (Tool("f", b'{"type": "object"}', strict=True),)
    assert request.tool_choice == ToolChoice("tool", ("f",))
    assert (request.max_output_tokens, request.stop, request.user) == (9, ("x",), "u")
    assert request.reasoning == ReasoningOptions("disabled", "none")
    assert request.stream and request.stream_usage is True
    # What is left in extra only remembers spellings, and is no loss anywhere.
    assert set(map(bytes, request.extra.values())) == {b"null"}


FAULTS: list[tuple[bytes, str]] = [
    (b"", ""),
    (b"[]", ""),
    (b"{", ""),
    (b'{"messages":[]}', "model"),
    (b'{"model":3,"messages":[]}', "model"),
    (b'{"model":"m"}', "messages"),
    (b'{"model":"m","messages":{}}', "messages"),
    (b'{"model":"m","messages":[3]}', "messages[0]"),
    (b'{"model":"m","messages":[{"content":"x"}]}', "messages[0].role"),
    (b'{"model":"m","messages":[{"role":"pope","content":"x"}]}', "messages[0].role"),
    (b'{"model":"m","messages":[{"role":"user"}]}', "messages[0].content"),
    (b'{"model":"m","messages":[{"role":"user","content":3}]}', "messages[0].content"),
    (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', ""),
    (b'{"model":"m","messages":[{"role":"user","content":[{"text":"x"}]}]}', "messages[0].content[0].type"),
    (b'{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}', "messages[0].content[0].text"),
    (
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":"u"}]}]}',
        "messages[0].content[0].image_url",
    ),
    (
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{}}]}]}',
        "messages[0].content[0].file",
    ),
    (b'{"model":"m","messages":[{"role":"tool","content":"x"}]}', "messages[0].tool_call_id"),
    (b'{"model":"m","messages":[{"role":"function","content":"x"}]}', "messages[0].name"),
    (
        b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function"}]}]}',
        "messages[0].tool_calls[0].function",
    ),
    (
        b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f",'
        b'"arguments":{}}}]}]}',
        "messages[0].tool_calls[0].function.arguments",
    ),
    (b'{"model":"m","messages":[],"temperature":"hot"}', "temperature"),
    (b'{"model":"m","messages":[],"max_tokens":1.5}', "max_tokens"),
    (b'{"model":"m","messages":[],"stream":"yes"}', "stream"),
    (b'{"model":"m","messages":[],"stream_options":[]}', "stream_options"),
    (b'{"model":"m","messages":[],"stop":3}', "stop"),
    (b'{"model":"m","messages":[],"metadata":[]}', "metadata"),
    (b'{"model":"m","messages":[],"tools":[{"type":"function","function":{}}]}', "tools[0].function.name"),
    (
        b'{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]}',
        "tools[0].function.parameters",
    ),
    (b'{"model":"m","messages":[],"tool_choice":"maybe"}', "tool_choice"),
    (b'{"model":"m","messages":[],"tool_choice":{"type":"function"}}', "tool_choice.function"),
    (
        b'{"model":"m","messages":[],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"x"}}}',
        "tool_choice.allowed_tools.mode",
    ),
    (b'{"model":"m","messages":[],"response_format":{"type":"json_schema"}}', "response_format.json_schema"),
    (b'{"model":"m","messages":[],"x":' + b"[" * 20000, ""),
    (b'{"model":"m","messages":' + b"[" * 20000 + b"]" * 20000 + b"}", ""),
]


@pytest.mark.parametrize(("body", "path"), FAULTS)
def test_faults_have_a_path(body: bytes, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.decode_request(body, FACTS)
    assert caught.value.path == path and caught.value.status == 400


# Requests of other formats

OTHER = "anthropic.messages"
TURN = (
    Message("system", (Text("sys", cache=CacheMark("5m")),)),
    Message("user", (Text("hi"),), brief=True),
    Message(
        "assistant",
        (
            Reasoning("hm", signature="c2ln", origin=OTHER),
            Reasoning(redacted="xx", origin=OTHER),
            Text("let me", citations=(Citation(OTHER, "page_location", b"{}"),)),
            ToolCall("toolu_1", "f", '{"a": 1.0}'),
            ToolCall("toolu_2", "g", ""),
            ToolCall("srv_1", "web_search", "{}", server="server_tool_use"),
            Opaque(OTHER, "web_search_tool_result", b"{}"),
        ),
    ),
    Message(
        "user",
        (
            ToolResult("toolu_1", (Text("one"), Media("image", "image/png", data="AA"), Text("two")), is_error=True),
            ToolResult("toolu_2"),
            Text("go on"),
        ),
    ),
)


def test_a_conversation_of_another_format() -> None:
    body, losses = encode(Request(OTHER, "m", TURN))
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "sys"},
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "let me",
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1.0}'}},
                    {"id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            {
                "role": "tool",
                "tool_call_id": "toolu_1",
                "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
            },
            {"role": "tool", "tool_call_id": "toolu_2", "content": ""},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                    {"type": "text", "text": "go on"},
                ],
            },
        ],
    }
    assert [(loss.kind, loss.path, loss.what) for loss in losses] == [
        ("lost", "system[0].cache_control", "cache mark"),
        ("lost", "messages[1].content[0].signature", "signature"),
        ("lost", "messages[1].content[0]", "reasoning"),
        ("lost", "messages[1].content[1]", "redacted"),
        ("minted", "messages[1].content[4].input", "arguments"),
        ("lost", "messages[1].content[5]", "server_tool_use"),
        ("lost", "messages[1].content[2].citations", "page_location"),
        ("lost", "messages[1].content[6]", "web_search_tool_result"),
        ("emulated", "messages[2].content[0].content[1]", "image"),
        ("lost", "messages[2].content[0].is_error", "is_error"),
    ]


def test_the_next_turn_begins_with_this_ones_bytes() -> None:
    conversation = (*TURN, Message("assistant", (Text("done"),)), *TURN[1:], Message("assistant", ()))
    for count in range(1, len(conversation)):
        now = CODEC.encode_request(Request(OTHER, "m", conversation[:count], max_output_tokens=count), PLAIN).body
        later = CODEC.encode_request(Request(OTHER, "m", conversation, temperature=1.0), PLAIN).body
        assert later.startswith(now[: now.index(b'],"max_completion_tokens"')])


EXPLICIT = {"prompt_cache_breakpoint": True}


@pytest.mark.parametrize(
    ("ttl", "options", "mark", "kinds"),
    [
        (None, EXPLICIT, {"prompt_cache_breakpoint": {"mode": "explicit"}}, []),
        (
            "5m",
            {"prompt_cache_breakpoint": True},
            {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}},
            ["emulated"],
        ),
        (
            "1h",
            {"prompt_cache_breakpoint": True},
            {"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}},
            ["emulated"],
        ),
        ("1h", {"cache_control": True}, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}, []),
        ("1h", {}, {}, ["lost"]),
    ],
)
def test_cache_marks(ttl: str | None, options: dict[str, object], mark: dict[str, Any], kinds: list[str]) -> None:
    request = Request(OTHER, "m", (Message("user", (Text("a", cache=CacheMark(ttl)), Text("b"))),))
    body, losses = encode(request, **options)
    assert body["messages"][0]["content"] == [{"type": "text", "text": "a", **mark}, {"type": "text", "text": "b"}]
    assert [loss.kind for loss in losses] == kinds


def test_reasoning_goes_back_where_an_upstream_takes_it() -> None:
    body, losses = encode(Request(OTHER, "m", TURN[2:3]), reasoning_field="reasoning_content")
    assert body["messages"][0]["reasoning_content"] == "hm"
    assert {loss.what for loss in losses} >= {"signature", "redacted"} and "reasoning" not in {
        loss.what for loss in losses
    }


MEDIA: list[tuple[Media, dict[str, Any] | None, list[str]]] = [
    (Media("image", uri="https://x/y"), {"type": "image_url", "image_url": {"url": "https://x/y"}}, []),
    (Media("image", data="AA"), {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}, ["minted"]),
    (Media("image", file_id="f"), None, ["lost"]),
    (
        Media("audio", "audio/wav", data="AA"),
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        [],
    ),
    (
        Media("document", "application/pdf", data="AA"),
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "document.pdf"}},
        ["minted"],
    ),
    (Media("document", uri="https://x/y.pdf"), None, ["lost"]),
    (Media("document", file_id="file_1"), None, ["lost"]),
    (Media("document", "text/plain", text="abc", name="T"), {"type": "text", "text": "T\nabc"}, ["emulated"]),
    (Media("video", "video/mp4", data="AA"), None, ["lost"]),
]


@pytest.mark.parametrize(("media", "block", "kinds"), MEDIA)
def test_media_of_other_formats(media: Media, block: dict[str, Any] | None, kinds: list[str]) -> None:
    body, losses = encode(Request(OTHER, "m", (Message("user", (media, Text("x"))),)))
    content = body["messages"][0]["content"]
    text = {"type": "text", "text": "x"}
    assert content == ("x" if block is None else [block, text])
    assert [loss.kind for loss in losses] == kinds


SAID: list[tuple[Request, dict[str, Any], list[tuple[str, str]]]] = [
    (Request(OTHER, "m", max_output_tokens=5, temperature=0.5), {"max_completion_tokens": 5, "temperature": 0.5}, []),
    (Request(OTHER, "m", top_k=3), {}, [("lost", "top_k")]),
    (
        Request(OTHER, "m", stop=("a", "b", "c", "d", "e")),
        {"stop": ["a", "b", "c", "d"]},
        [("lost", "stop_sequences[4]")],
    ),
    (
        Request(
            OTHER, "m", tools=(Tool("f", b'{"a": 1}', "d", cache=CacheMark()),), tool_choice=ToolChoice("required")
        ),
        {
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"a": 1}}}],
            "tool_choice": "required",
        },
        [("lost", "tools[0].cache_control")],
    ),
    (
        Request(
            OTHER,
            "m",
            tools=(Tool("web_search", kind="web_search_20250305", raw=b"{}"),),
            tool_choice=ToolChoice("auto"),
            parallel_tool_calls=False,
        ),
        {},
        [("lost", "tools[0]"), ("lost", "tool_choice"), ("lost", "tool_choice.disable_parallel_tool_use")],
    ),
    (
        Request(OTHER, "m", tools=(Tool("f", b"{}"),), tool_choice=ToolChoice("allowed", ("f",), required=True)),
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        },
        [],
    ),
    (
        Request(OTHER, "m", response_format=ResponseFormat("json_schema", schema=b'{"a": 1.0}')),
        {"response_format": {"type": "json_schema", "json_schema": {"name": "response", "schema": {"a": 1.0}}}},
        [("minted", "output_config.format.name")],
    ),
    (
        Request(OTHER, "m", reasoning=ReasoningOptions("enabled", budget_tokens=1024)),
        {"reasoning_effort": "low"},
        [("emulated", "thinking.budget_tokens")],
    ),
    (
        Request(OTHER, "m", reasoning=ReasoningOptions("enabled", budget_tokens=31999)),
        {"reasoning_effort": "high"},
        [("emulated", "thinking.budget_tokens")],
    ),
    (
        Request(OTHER, "m", reasoning=ReasoningOptions("adaptive", "medium")),
        {"reasoning_effort": "medium"},
        [],
    ),
    (Request(OTHER, "m", reasoning=ReasoningOptions("adaptive")), {}, [("emulated", "thinking.type")]),
    (Request(OTHER, "m", reasoning=ReasoningOptions("disabled")), {}, [("lost", "thinking.type")]),
    *(
        (Request(OTHER, model, reasoning=ReasoningOptions("disabled")), {"reasoning_effort": "none"}, [])
        for model in ("gpt-5.1", "gpt-5.4-mini", "openai/gpt-5.2-2025-12-11")
    ),
    *(
        (Request(OTHER, model, reasoning=ReasoningOptions("disabled")), {}, [("lost", "thinking.type")])
        for model in ("gpt-5", "gpt-5-mini", "gpt-5.1-codex", "gpt-5.2-pro", "gpt-5.1-chat-latest", "gpt-4.1", "o3")
    ),
    (Request(OTHER, "m", service_tier="standard_only"), {"service_tier": "default"}, [("emulated", "service_tier")]),
    (Request(OTHER, "m", service_tier="fancy"), {}, [("lost", "service_tier")]),
    (Request(OTHER, "m", user="u", metadata={"a": "b"}), {"user": "u", "metadata": {"a": "b"}}, []),
    (Request(OTHER, "m", cache=CacheMark()), {}, [("lost", "cache_control")]),
    (
        Request(OTHER, "m", extra={"container": Raw(b'"c"'), "stream": Raw(b"false"), "mcp": Raw(b"[]")}),
        {},
        [("lost", "container")],
    ),
    (
        Request(OTHER, "m", stream=True, stream_usage=True),
        {"stream": True, "stream_options": {"include_usage": True}},
        [],
    ),
    (Request(OTHER, "m", stream=True), {"stream": True}, []),
]


@pytest.mark.parametrize(("request_", "expected", "kinds"), SAID)
def test_settings_of_another_format(request_: Request, expected: dict[str, Any], kinds: list[tuple[str, str]]) -> None:
    body, losses = encode(request_)
    assert body == {"model": request_.model, "messages": [], **expected}
    assert [(loss.kind, loss.path) for loss in losses] == kinds


def test_options_of_an_upstream() -> None:
    request = Request(
        OTHER,
        "m",
        (Message("developer", (Text("a"),)), Message("user", (Text("b"), Text("c")))),
        max_output_tokens=5,
        top_k=3,
        user="u",
    )
    body, losses = encode(
        request,
        max_tokens_field="max_tokens",
        top_k=True,
        user_field="safety_identifier",
        developer_role="system",
        string_content=True,
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b\nc"}],
        "max_tokens": 5,
        "top_k": 3,
        "safety_identifier": "u",
    }
    assert [loss.kind for loss in losses] == ["emulated", "emulated"]


def test_options_for_a_request_of_this_format() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    body = {"model": "m", "messages": [call], "max_tokens": 5, "seed": None}
    out, losses = encode(decode(body), max_tokens_field="max_completion_tokens")
    assert out == {"model": "m", "messages": [call], "max_completion_tokens": 5, "seed": None} and not losses
    out, losses = encode(decode(body), drop_nulls=True)
    assert (
        out == {"model": "m", "messages": [{"role": "assistant", "tool_calls": [CALL]}], "max_tokens": 5} and not losses
    )


def test_a_call_without_an_id_gets_one_and_its_result_finds_it() -> None:
    messages = (
        Message("assistant", (ToolCall("", "f", "{}"), ToolCall("", "g", "{}"))),
        Message("tool", (ToolResult("", (Text("2"),), name="g"), ToolResult("", (Text("1"),)))),
    )
    body, _ = encode(Request("ollama", "m", messages))
    one, two = (call["id"] for call in body["messages"][0]["tool_calls"])
    assert one != two and [m["tool_call_id"] for m in body["messages"][1:]] == [two, one]


def test_a_message_of_which_nothing_is_left_is_not_sent() -> None:
    messages = (Message("assistant", (Reasoning("x"),)), Message("user", (Refusal("no"), Opaque("x", "y", b"{}"))))
    body, losses = encode(Request(OTHER, "m", messages))
    assert [m["role"] for m in body["messages"]] == ["user"] and len(losses) == 2


@pytest.mark.parametrize(
    ("after", "content", "calls"),
    [
        ([("assistant", (Text(""),))], None, ["c1"]),
        ([("assistant", (Text("Wait."),))], "Wait.", ["c1"]),
        ([("assistant", (ToolCall("c2", "b", "{}"),))], None, ["c1", "c2"]),
        (
            [("assistant", (Text("Wait."),)), ("assistant", (ToolCall("c2", "b", "{}"), Text("So.")))],
            None,
            ["c1", "c2"],
        ),
    ],
)
def test_nothing_stands_between_calls_and_their_results(
    after: list[tuple[Role, tuple[Part, ...]]], content: str | None, calls: list[str]
) -> None:
    """Other formats take several messages of the model in a row: a client that keeps each chunk of a stream sends them."""
    turns = [Message("assistant", (ToolCall("c1", "a", "{}"),)), *(Message(role, parts) for role, parts in after)]
    results = [Message("tool", (ToolResult(id, (Text("x"),)),)) for id in calls]
    body, losses = encode(Request("gemini", "m", (Message("user", (Text("hi"),)), *turns, *results)))
    said, *told = body["messages"][1:]
    assert said["role"] == "assistant"
    assert [call["id"] for call in said["tool_calls"]] == calls
    assert [(each["role"], each["tool_call_id"]) for each in told] == [("tool", id) for id in calls]
    words = said["content"]
    if len(after) == 2:
        assert [block["text"] for block in words] == ["Wait.", "So."]
    else:
        assert words == content
    assert not losses


def test_a_message_after_the_results_is_one_of_its_own() -> None:
    turns = (
        Message("assistant", (ToolCall("c1", "a", "{}"),)),
        Message("tool", (ToolResult("c1", (Text("x"),)),)),
        Message("assistant", (Text("So."),)),
        Message("assistant", (Text("Well."),)),
    )
    body, _ = encode(Request("gemini", "m", (Message("user", (Text("hi"),)), *turns)))
    assert [each["role"] for each in body["messages"]] == ["user", "assistant", "tool", "assistant", "assistant"]


def test_the_media_of_several_results_follow_them_all() -> None:
    image = Media("image", uri="https://x")
    results = [Message("tool", (ToolResult(str(n), (image,)),)) for n in range(2)]
    body, _ = encode(Request("openai.responses", "m", (*results, Message("assistant", (Text("a"),)))))
    assert [m["role"] for m in body["messages"]] == ["tool", "tool", "user", "assistant"]
    assert len(body["messages"][2]["content"]) == 2


def test_usage_is_asked_for_when_the_gateway_needs_it() -> None:
    facts = UpstreamFacts(stream_usage=True)
    body = {"model": "m", "messages": HI, "stream": True, "stream_options": {"include_obfuscation": False}}
    out = json.loads(CODEC.encode_request(decode(body), facts).body)
    assert out["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert b"stream_options" not in CODEC.encode_request(decode({"model": "m", "messages": HI}), facts).body


# The cheap looks


def test_peek() -> None:
    body = (
        b'{"model":"m","stream":true,"stream_options":{"include_usage":false},"tools":[{"a":1}],"metadata":{"k":"v"}}'
    )
    seen = CODEC.peek(body, FACTS)
    assert (seen.model, seen.stream, seen.stream_usage) == ("m", True, False)
    assert seen.tools == Raw(b'[{"a":1}]') and seen.metadata == Raw(b'{"k":"v"}')
    assert CODEC.peek(b'{"model":"m","stream":null,"tools":null,"x":[1,{"y":2}]}', FACTS) == Peek("m")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", ""),
        (b"nope", ""),
        (b"[]", ""),
        (b"{}", "model"),
        (b'{"model":null}', "model"),
        (b'{"model":3}', "model"),
        (b'{"model":"m","stream":"true"}', "stream"),
        (b'{"model":"m","stream_options":3}', "stream_options"),
        (b'{"model":"m","stream_options":{"include_usage":1}}', "stream_options.include_usage"),
        (b'{"model":"\xff"}', ""),
        (b'{"model":"m","x":' + b"[" * 100_000, ""),
        (b'{"model":"m","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, ""),
    ],
)
def test_peek_refuses(body: bytes, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.peek(body, FACTS)
    assert caught.value.path == path and caught.value.kind == "invalid_request"


PATCHES: list[tuple[bytes, str | None, bool, bytes]] = [
    (b'{"model": "a",  "n":1.0}', "b", True, b'{"model": "b",  "n":1.0}'),
    (
        b'{"model":"a","stream":true}',
        None,
        True,
        b'{"model":"a","stream":true,"stream_options":{"include_usage":true}}',
    ),
    (
        b'{"stream_options": {"include_obfuscation":false} ,"stream":true,"model":"a"}',
        "b",
        True,
        b'{"stream_options": {"include_obfuscation":false,"include_usage":true} ,"stream":true,"model":"b"}',
    ),
    (
        b'{"model":"a","stream":true,"stream_options":{"include_usage":false}}',
        None,
        True,
        b'{"model":"a","stream":true,"stream_options":{"include_usage":true}}',
    ),
    (
        b'{"model":"a","stream":true,"stream_options":null}',
        None,
        True,
        b'{"model":"a","stream":true,"stream_options":{"include_usage":true}}',
    ),
]


@pytest.mark.parametrize(("body", "model", "usage", "expected"), PATCHES)
def test_patches(body: bytes, model: str | None, usage: bool, expected: bytes) -> None:
    assert CODEC.patch_request(body, CODEC.peek(body, FACTS), model=model, stream_usage=usage) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","stream":true,"stream_options":{"include_usage":true}}',
        b'{"model":"a","stream":false}',
        b'{"model":"a"}',
    ],
)
def test_nothing_to_patch_is_the_same_object(body: bytes) -> None:
    assert CODEC.patch_request(body, CODEC.peek(body, FACTS), model="a", stream_usage=True) is body
