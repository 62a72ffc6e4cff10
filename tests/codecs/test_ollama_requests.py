"""Requests of Ollama: round trips, requests of other formats, faults with their paths, the two cheap looks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway.codecs.base import Peek, RequestFacts, UpstreamFacts
from headgate.gateway.codecs.ollama import CHAT, GENERATE, Ollama
from headgate.gateway.errors import CallerError, DecodeError, Unsupported
from headgate.gateway.ir.message import (
    CacheMark,
    Citation,
    Media,
    Message,
    Opaque,
    Reasoning,
    ReasoningOptions,
    Refusal,
    Request,
    ResponseFormat,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from msgspec import Raw

from .ollama_cases import client

PNG = "iVBORw0KGgo="
JPEG = "/9j/4AAQSkZJRg=="
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}}
TOOL = {"type": "function", "function": {"name": "look", "description": "d", "parameters": SCHEMA}}
HI = [{"role": "user", "content": "hi"}]
CALL = {"function": {"name": "look", "arguments": {"b": 1, "a": [None]}}}


def decode(value: object, codec: Ollama = CHAT) -> Request:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return codec.decode_request(body, RequestFacts())


def encode(request: Request, codec: Ollama = CHAT, **options: object) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    encoded = codec.encode_request(request, UpstreamFacts(options=options))
    assert encoded.path == codec.request_path("m", True) == ("/api/chat" if codec is CHAT else "/api/generate")
    return json.loads(encoded.body), [(loss.kind, loss.path) for loss in encoded.losses]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"stream": True},
    {"stream": False},
    {"options": {}},
    {"options": {"num_predict": 7, "temperature": 0.5, "top_k": 20, "top_p": 0.9, "min_p": 0.25, "seed": 42}},
    {"options": {"stop": "END"}},
    {"options": {"stop": ["END"]}},
    {"options": {"stop": ["\n", "user:"], "num_ctx": 1024, "repeat_penalty": 1.25, "numa": False, "mirostat": 1}},
    {"options": {"stop": []}},
    {"options": {"num_predict": -1}},
    {"options": {"num_predict": -2, "presence_penalty": 1.5, "frequency_penalty": 1.0}},
    {"options": {"unheard_of": {"a": [1.5]}}},
    {"format": "json"},
    {"format": ""},
    {"format": SCHEMA},
    {"think": True},
    {"think": False},
    {"think": "low"},
    {"think": "high"},
    {"keep_alive": "5m"},
    {"keep_alive": 0},
    {"keep_alive": -1.5},
    {"logprobs": True, "top_logprobs": 3},
    {"logprobs": False},
    {"truncate": True, "shift": False, "_debug_render_only": True, "x_new": [1]},
]
CHATS: list[dict[str, Any]] = [
    {"messages": []},
    {"messages": HI},
    {"messages": HI, "tools": []},
    {"messages": HI, "tools": [TOOL]},
    {"messages": HI, "tools": [{"function": {"name": "look"}}]},
    {"messages": HI, "tools": [{"type": "web_search", "x": 1}]},
    {"messages": HI, "tools": [{**TOOL, "x": 1, "function": {**TOOL["function"], "y": 2}}]},  # type: ignore[dict-item]
    {"messages": [{"role": "system", "content": "s"}, *HI, {"role": "developer", "content": "d"}]},
    {"messages": [{"role": "user", "content": "", "images": [PNG, JPEG]}]},
    {"messages": [{"role": "user", "content": "", "images": []}]},
    {"messages": [{"role": "user", "content": "what", "images": [PNG], "x": 1.5}]},
    {"messages": [{"role": "user"}]},
    {"messages": [*HI, {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL, CALL]}]},
    {"messages": [*HI, {"role": "assistant", "tool_calls": [CALL], "thinking": ""}]},
    {"messages": [*HI, {"role": "assistant", "content": "x", "tool_calls": []}]},
    {
        "messages": [
            *HI,
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", **CALL, "x": 1}]},
            {"role": "tool", "content": "11", "tool_name": "look", "tool_call_id": "c1"},
        ]
    },
    {
        "messages": [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"function": {"index": 0, "name": "a", "arguments": {}}},
                    {"function": {"index": 7, "name": "b", "arguments": '{"a":1}', "y": 1}},
                    {"function": {"name": "c"}},
                ],
            },
            {"role": "tool", "content": "x", "tool_name": "b"},
            {"role": "tool", "content": "y", "name": "a"},
            {"role": "tool", "content": "z", "images": [PNG], "x": 1},
        ]
    },
]
GENERATIONS: list[dict[str, Any]] = [
    {},
    {"prompt": ""},
    {"prompt": "", "system": ""},
    {"prompt": "Why?"},
    {"prompt": "Why?", "system": "s"},
    {"prompt": "def f(", "suffix": "return x"},
    {"prompt": "what", "images": [PNG, JPEG]},
    {"images": [PNG]},
    {"prompt": "[INST] x", "raw": True, "template": "t", "context": [1, 2, 3]},
    {"prompt": "a rose", "width": 512, "height": 512, "steps": 4},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_settings_come_back_as_they_came(options: dict[str, Any]) -> None:
    for codec, body in ((CHAT, {"messages": HI}), (GENERATE, {"prompt": "hi"})):
        value = {"model": "m", **body, **options}
        assert encode(decode(value, codec), codec) == (value, [])


@pytest.mark.parametrize("value", CHATS)
def test_chats_come_back_as_they_came(value: dict[str, Any]) -> None:
    value = {"model": "m", **value}
    assert encode(decode(value)) == (value, [])


@pytest.mark.parametrize("value", GENERATIONS)
def test_prompts_come_back_as_they_came(value: dict[str, Any]) -> None:
    value = {"model": "m", **value}
    assert encode(decode(value, GENERATE), GENERATE) == (value, [])


def test_a_chat_in_the_ir() -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "what", "images": [PNG]},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL, {**CALL, "id": "mine"}]},
        {"role": "tool", "content": "11", "tool_name": "look"},
        {"role": "tool", "content": "12", "tool_call_id": "mine"},
    ]
    settings = {"options": {"num_predict": 5, "min_p": 0.5, "stop": "x"}, "think": "low", "format": SCHEMA}
    request = decode({"model": "m", "messages": messages, "tools": [TOOL], **settings})
    ungiven, arguments = {"id": Raw(b"null")}, '{"b": 1, "a": [null]}'
    assert request == Request(
        "ollama.chat",
        "m",
        (
            Message("system", (Text("s"),), brief=True),
            Message("user", (Media("image", "image/png", data=PNG), Text("what")), brief=True),
            Message(
                "assistant",
                (
                    Reasoning("hm", origin="ollama.chat"),
                    ToolCall("call_0", "look", arguments, extra=ungiven),
                    ToolCall("mine", "look", arguments),
                ),
                brief=True,
                extra={"content": Raw(b'""')},
            ),
            Message("tool", (ToolResult("call_0", (Text("11"),), name="look", extra=ungiven, brief=True),), brief=True),
            Message("tool", (ToolResult("mine", (Text("12"),), brief=True),), brief=True),
        ),
        (Tool("look", json.dumps(SCHEMA).encode(), "d"),),
        max_output_tokens=5,
        stop=("x",),
        response_format=ResponseFormat("json_schema", schema=json.dumps(SCHEMA).encode()),
        reasoning=ReasoningOptions(effort="low"),
        stream=True,
        stream_usage=True,
        extra={"stream": Raw(b"null"), "options.min_p": Raw(b"0.5"), "options.stop": Raw(b"null")},
    )


def test_arguments_keep_their_spelling() -> None:
    text = b'{"z" : 1.50, "a":1e3,"n":12345678901234567890}'
    body = b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":%b}}]}]}'
    request = decode(body % text)
    (call,) = request.messages[0].parts
    assert isinstance(call, ToolCall) and call.arguments.encode() == text
    assert text in CHAT.encode_request(request, UpstreamFacts()).body
    other = Request("elsewhere", "m", (Message("assistant", (ToolCall("c", "f", text.decode()),)),))
    assert text in CHAT.encode_request(other, UpstreamFacts()).body


@pytest.mark.parametrize(
    ("names", "answers"),
    [
        (["a", "b"], [("a", 0), ("b", 1)]),
        (["a", "b"], [("b", 1), ("a", 0)]),
        (["a", "a"], [("a", 0), ("a", 1)]),
        (["a", "b"], [(None, 0), (None, 1)]),
        (["a"], [("other", 0)]),
        (["a"], [("a", 0), ("a", 0)]),
    ],
)
def test_results_without_ids_find_their_calls(names: list[str], answers: list[tuple[str | None, int]]) -> None:
    calls = [{"function": {"name": name, "arguments": {}}} for name in names]
    turn: list[dict[str, Any]] = [{"role": "assistant", "content": "", "tool_calls": calls}]
    turn += [{"role": "tool", "content": "x", **({"tool_name": name} if name else {})} for name, _ in answers]
    request = decode({"model": "m", "messages": [*turn, *HI, *turn]})
    first, second = request.messages[: len(turn)], request.messages[len(turn) + 1 :]
    for offset, messages in ((0, first), (len(names), second)):
        found = [part.id for message in messages[1:] for part in message.parts if isinstance(part, ToolResult)]
        assert found == [f"call_{offset + number}" for _, number in answers]


@pytest.mark.parametrize(
    ("calls", "results", "expected"),
    [
        ([("a", None)], [("a", "x")], ["x"]),
        ([("a", None)], [(None, "x")], ["x"]),
        ([("a", None), ("b", None)], [("b", "y"), ("a", "x")], ["x", "y"]),
        ([("a", None), ("a", None)], [(None, "x"), (None, "y")], ["x", "y"]),
        ([("a", "own"), ("b", None)], [(None, "own"), (None, "y")], ["own", "y"]),
        ([("a", None), ("b", None)], [("b", "y"), ("a", None)], ["call_0", "y"]),
        ([("a", "own")], [("a", "x")], ["own"]),
    ],
)
def test_a_call_without_an_id_takes_that_of_its_result(
    calls: list[tuple[str, str | None]], results: list[tuple[str | None, str | None]], expected: list[str]
) -> None:
    """Clients that keep the ids of results and drop those of calls, which Ollama itself does not ask for."""
    turn: list[dict[str, Any]] = [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": name, "arguments": {}}, **({"id": id} if id else {})} for name, id in calls
            ],
        }
    ]
    for name, id in results:
        given = {"tool_name": name, "tool_call_id": id}
        turn.append({"role": "tool", "content": "x", **{key: value for key, value in given.items() if value}})
    body = {"model": "m", "messages": [*HI, *turn]}
    request = decode(body)
    assert [part.id for part in request.messages[1].parts if isinstance(part, ToolCall)] == expected
    found = [part.id for message in request.messages[2:] for part in message.parts if isinstance(part, ToolResult)]
    assert found == [id or "call_0" for _, id in results]
    assert encode(request)[0]["messages"] == body["messages"]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, "model"),
        ({"model": 1}, "model"),
        ({"model": "m", "messages": 1}, "messages"),
        ({"model": "m", "messages": [{}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "images": ["a", 1]}]}, "messages[0].images"),
        ({"model": "m", "messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
        (
            {"model": "m", "messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {
                "model": "m",
                "messages": [{"role": "user", "tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}],
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"model": "m", "tools": [{"type": "function"}]}, "tools[0].function"),
        ({"model": "m", "tools": [{"function": {"name": "f", "parameters": []}}]}, "tools[0].function.parameters"),
        ({"model": "m", "options": []}, "options"),
        ({"model": "m", "options": {"temperature": "hot"}}, "options.temperature"),
        ({"model": "m", "options": {"stop": [1]}}, "options.stop"),
        ({"model": "m", "format": "yaml"}, "format"),
        ({"model": "m", "format": []}, "format"),
        ({"model": "m", "think": 1}, "think"),
        ({"model": "m", "stream": "yes"}, "stream"),
        ([], ""),
    ],
)
def test_faults_are_named(value: object, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(value)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("value", "path"), [({"prompt": ["a"]}, "prompt"), ({"system": 1}, "system"), ({"images": PNG}, "images")]
)
def test_faults_of_a_prompt_are_named(value: dict[str, Any], path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode({"model": "m", **value}, GENERATE)
    assert caught.value.path == path


# -- requests of other formats

LOOK = Tool("look", b'{"type":"object"}', "d", strict=True, cache=CacheMark())
FOREIGN: list[tuple[Request, dict[str, Any], list[tuple[str, str]]]] = [
    (Request("f", "m"), {}, []),
    (Request("f", "m", stream=True), {"stream": True}, []),
    (
        Request("f", "m", max_output_tokens=3, temperature=0.5, top_p=0.5, top_k=4, stop=("a", "b"), seed=1),
        {"options": {"num_predict": 3, "temperature": 0.5, "top_p": 0.5, "top_k": 4, "seed": 1, "stop": ["a", "b"]}},
        [],
    ),
    (
        Request("f", "m", frequency_penalty=0.5, presence_penalty=0.25, logprobs=True, top_logprobs=2),
        {
            "options": {"frequency_penalty": 0.5, "presence_penalty": 0.25},
            "logprobs": True,
            "top_logprobs": 2,
        },
        [],
    ),
    (
        Request("f", "m", n=2, logit_bias=b'{"1":1}', verbosity="low", metadata={"a": "b"}, user="u"),
        {},
        [("lost", name) for name in ("n", "logit_bias", "verbosity", "metadata", "user")],
    ),
    (
        Request("f", "m", service_tier="flex", parallel_tool_calls=False, cache=CacheMark()),
        {},
        [("lost", "service_tier"), ("lost", "parallel_tool_calls"), ("lost", "cache")],
    ),
    (Request("f", "m", n=1, service_tier="auto", parallel_tool_calls=True, logit_bias=b"{}"), {}, []),
    (Request("f", "m", response_format=ResponseFormat("text")), {}, []),
    (Request("f", "m", response_format=ResponseFormat("json_object")), {"format": "json"}, []),
    (
        Request("f", "m", response_format=ResponseFormat("json_schema", "n", b"{}", "d", False)),
        {"format": {}},
        [
            ("emulated", "response_format.name"),
            ("lost", "response_format.description"),
            ("emulated", "response_format.strict"),
        ],
    ),
    (Request("f", "m", reasoning=ReasoningOptions("disabled", "none")), {"think": False}, []),
    (Request("f", "m", reasoning=ReasoningOptions("enabled")), {"think": True}, []),
    (Request("f", "m", reasoning=ReasoningOptions(effort="medium")), {"think": "medium"}, []),
    (
        Request("f", "m", reasoning=ReasoningOptions(effort="minimal")),
        {"think": "low"},
        [("emulated", "reasoning.effort")],
    ),
    (
        Request("f", "m", reasoning=ReasoningOptions(effort="xhigh")),
        {"think": "high"},
        [("emulated", "reasoning.effort")],
    ),
    (
        Request("f", "m", reasoning=ReasoningOptions("adaptive", None, 2000, "auto")),
        {"think": True},
        [("emulated", "reasoning.mode"), ("lost", "reasoning.budget_tokens"), ("lost", "reasoning.summary")],
    ),
    (
        Request(
            "f", "m", tools=(LOOK, Tool("run", kind="custom"), Tool("w", kind="web_search", raw=b"{}"), Tool("bare"))
        ),
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "look", "description": "d", "parameters": {"type": "object"}},
                },
                {"type": "function", "function": {"name": "bare", "parameters": {"type": "object", "properties": {}}}},
            ]
        },
        [
            ("lost", "tools[0].strict"),
            ("lost", "tools[0].cache"),
            ("lost", "tools[1]"),
            ("lost", "tools[2]"),
            ("minted", "tools[3].input_schema"),
        ],
    ),
    (
        Request("f", "m", tools=(Tool("a", b"{}"),), tool_choice=ToolChoice("none")),
        {},
        [("emulated", "tool_choice"), ("emulated", "tools")],
    ),
    (
        Request("f", "m", tools=(Tool("a", b"{}"), Tool("b", b"{}")), tool_choice=ToolChoice("allowed", ("b",))),
        {"tools": [{"type": "function", "function": {"name": "b", "parameters": {}}}]},
        [("emulated", "tool_choice"), ("emulated", "tools[0]")],
    ),
    (
        Request("f", "m", tools=(Tool("a", b"{}"),), tool_choice=ToolChoice("tool", ("a",))),
        {"tools": [{"type": "function", "function": {"name": "a", "parameters": {}}}]},
        [("lost", "tool_choice")],
    ),
    (Request("f", "m", extra={"x": Raw(b"1"), "y": Raw(b"null")}), {}, [("lost", "x")]),
]


@pytest.mark.parametrize(("request_", "expected", "losses"), FOREIGN)
def test_settings_of_another_format(request_: Request, expected: dict[str, Any], losses: list[tuple[str, str]]) -> None:
    hi = (Message("user", (Text("hi"),)),)
    request = Request(**{name: getattr(request_, name) for name in Request.__struct_fields__} | {"messages": hi})
    assert encode(request) == ({"model": "m", "messages": HI, "stream": False, **expected}, losses)


CITED = Citation("f", "c", b"{}")
TURNS: list[tuple[Message, list[dict[str, Any]], list[tuple[str, str]]]] = [
    (Message("user", (Text("a"),)), [{"role": "user", "content": "a"}], []),
    (
        Message("user", (Text("a"), Text("b", (CITED,), CacheMark(), {"x": Raw(b"1")})), name="ann"),
        [{"role": "user", "content": "a\nb"}],
        [
            ("lost", "messages[0].content[1].citations"),
            ("lost", "messages[0].content[1].cache"),
            ("lost", "messages[0].content[1].x"),
            ("lost", "messages[0].name"),
            ("emulated", "messages[0].content"),
        ],
    ),
    (
        Message("developer", (Text("a"),)),
        [{"role": "system", "content": "a"}],
        [("emulated", "messages[0].role")],
    ),
    (
        Message("user", (Media("image", "image/png", data=PNG, detail="low"), Text("a"), Media("image", data=JPEG))),
        [{"role": "user", "content": "a", "images": [PNG, JPEG]}],
        [("lost", "messages[0].content[0].detail"), ("emulated", "messages[0].content[2]")],
    ),
    (
        Message("user", (Text("a"), Media("image", uri="https://a.example/"), Media("audio", data="UklG"))),
        [{"role": "user", "content": "a"}],
        [("lost", "messages[0].content[1]"), ("lost", "messages[0].content[2]")],
    ),
    (
        Message("user", (Media("document", text="words", name="t"), Opaque("f", "thing", b"{}"))),
        [{"role": "user", "content": "t\nwords"}],
        [("emulated", "messages[0].content[0]"), ("lost", "messages[0].content[1]")],
    ),
    (
        Message(
            "assistant",
            (
                Reasoning("hm", "sig"),
                Reasoning(redacted="x"),
                Refusal("No."),
                ToolCall("c", "f", '{"a":1}'),
                ToolCall("d", "g", "", server="web"),
                ToolCall("e", "run", "x", "custom"),
                ToolCall("", "h"),
            ),
        ),
        [
            {
                "role": "assistant",
                "content": "No.",
                "thinking": "hm",
                "tool_calls": [
                    {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}},
                    {"id": "e", "function": {"name": "run", "arguments": {"input": "x"}}},
                    {"function": {"name": "h", "arguments": {}}},
                ],
            }
        ],
        [
            ("lost", "messages[0].content[0].signature"),
            ("lost", "messages[0].content[1]"),
            ("emulated", "messages[0].content[2]"),
            ("lost", "messages[0].content[4]"),
            ("emulated", "messages[0].content[5]"),
        ],
    ),
    (Message("assistant", (Opaque("f", "thing", b"{}"),)), [], [("lost", "messages[0].content[0]")]),
]


@pytest.mark.parametrize(("message", "expected", "losses"), TURNS)
def test_turns_of_another_format(message: Message, expected: list[Any], losses: list[tuple[str, str]]) -> None:
    last = Message("user", (Text("end"),))
    body, noted = encode(Request("f", "m", (message, last)))
    assert body["messages"] == [*expected, {"role": "user", "content": "end"}]
    assert noted == losses


def test_results_of_another_format_stand_first_and_tell_their_tool() -> None:
    messages = (
        Message("assistant", (ToolCall("c1", "look", "{}"), ToolCall("c2", "run", "{}"))),
        Message(
            "user",
            (
                Text("and?"),
                ToolResult("c2", (Text("a"), Text("b"), Media("image", data=PNG)), True),
                ToolResult("c1", (Text("x"),)),
                ToolResult("s", (), server="web"),
            ),
        ),
    )
    body, losses = encode(Request("f", "m", messages))
    assert body["messages"][1:] == [
        {"role": "tool", "content": "a\nb", "images": [PNG], "tool_name": "run", "tool_call_id": "c2"},
        {"role": "tool", "content": "x", "tool_name": "look", "tool_call_id": "c1"},
        {"role": "user", "content": "and?"},
    ]
    assert ("lost", "messages[1].content[1].is_error") in losses
    assert ("lost", "messages[1].content[3]") in losses


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ((), "messages"),
        ((Message("user", (Media("image", uri="u"),)),), "messages[0].content[0]"),
        ((Message("assistant", (ToolCall("c", "f", "[1]"),)),), "messages[0].content[0].arguments"),
        ((Message("assistant", (ToolCall("c", "f", "{nonsense"),)),), "messages[0].content[0].arguments"),
    ],
)
def test_what_cannot_be_said_is_refused(messages: tuple[Message, ...], param: str) -> None:
    with pytest.raises(CallerError) as caught:
        encode(Request("f", "m", messages))
    assert caught.value.param == param


def test_what_the_profile_says_stands_in() -> None:
    request = decode({"model": "m", "messages": HI})
    assert encode(request, num_ctx=8192, keep_alive="1h")[0] == {
        "model": "m",
        "messages": HI,
        "options": {"num_ctx": 8192},
        "keep_alive": "1h",
    }
    own = {"model": "m", "messages": HI, "options": {"num_ctx": 1}, "keep_alive": 0}
    assert encode(decode(own), num_ctx=8192, keep_alive="1h")[0] == own


# -- one prompt


def test_a_chat_of_one_turn_is_a_prompt() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "what", "images": [PNG]}]
    shared = {"options": {"num_ctx": 3, "seed": 1}, "keep_alive": "5m", "think": True, "stream": False}
    body, losses = encode(decode({"model": "m", "messages": messages, **shared}), GENERATE)
    assert body == {"model": "m", "system": "s", "prompt": "what", "images": [PNG], **shared}
    assert losses == []
    back, losses = encode(decode({**body, "suffix": "z", "raw": True}, GENERATE))
    assert back == {"model": "m", "messages": messages, **shared}
    assert losses == [("lost", "suffix"), ("lost", "raw")]


@pytest.mark.parametrize("codec", [CHAT, GENERATE])
def test_loading_a_model_is_the_same_in_both(codec: Ollama) -> None:
    asked: dict[str, Any] = {"model": "m", "keep_alive": 0}
    other = GENERATE if codec is CHAT else CHAT
    body, losses = encode(decode(asked | ({"messages": []} if codec is CHAT else {}), codec), other)
    assert body == asked | {"stream": True} | ({"messages": []} if other is CHAT else {})
    assert losses == []


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (
            [Message("user", (Text("a"),)), Message("assistant", (Text("b"),)), Message("user", (Text("c"),))],
            "messages[1]",
        ),
        ([Message("assistant", (Text("b"),))], "messages[0]"),
        ([Message("user", (ToolResult("c", (Text("x"),)),))], "messages[0]"),
        ([Message("user", (Text("a"),)), Message("system", (Text("b"),))], "messages[1]"),
        ([Message("user", (Opaque("openai.completions", "several prompts", b"[]"),))], "messages[0].content[0]"),
        ([], "messages"),
    ],
)
def test_a_conversation_is_no_prompt(messages: list[Message], param: str) -> None:
    with pytest.raises(Unsupported) as caught:
        encode(Request("f", "m", tuple(messages)), GENERATE)
    assert caught.value.param == param


def test_instructions_alone_are_the_prompt() -> None:
    messages = (Message("system", (Text("a"),)), Message("developer", (Text("b"),)))
    body, losses = encode(Request("f", "m", messages), GENERATE)
    assert body == {"model": "m", "system": "a", "prompt": "b", "stream": False}
    assert losses == [("emulated", "messages[1]")]


def test_a_prompt_has_no_tools() -> None:
    request = Request("f", "m", (Message("user", (Text("a"),)),), (LOOK,), ToolChoice("required"))
    body, losses = encode(request, GENERATE)
    assert body == {"model": "m", "prompt": "a", "stream": False}
    assert losses == [("lost", "tools"), ("lost", "tool_choice")]


def test_a_suffix_goes_to_the_legacy_completions_and_back() -> None:
    from headgate.gateway.codecs.openai_completions import CODEC as COMPLETIONS

    asked = {"model": "m", "prompt": "def f(", "suffix": "return x", "stream": False}
    there = json.loads(COMPLETIONS.encode_request(decode(asked, GENERATE), UpstreamFacts()).body)
    assert there == {"model": "m", "prompt": "def f(", "suffix": "return x", "max_tokens": 4096}
    back = COMPLETIONS.decode_request(json.dumps(there).encode(), RequestFacts())
    assert encode(back, GENERATE) == (asked | {"options": {"num_predict": 4096}}, [])


# -- the two cheap looks


@pytest.mark.parametrize(
    ("body", "peek"),
    [
        (b'{"model":"m"}', Peek("m", True)),
        (b'{"model":"m","stream":null}', Peek("m", True)),
        (b'{"model":"m","stream":true}', Peek("m", True)),
        (b'{"model":"m","stream":false}', Peek("m", False)),
        (b'{"model":"m","tools":null,"messages":[{"x":[1.50]}]}', Peek("m", True)),
    ],
)
def test_peek(body: bytes, peek: Peek) -> None:
    for codec in (CHAT, GENERATE):
        assert codec.peek(body, RequestFacts()) == peek


def test_peek_at_tools() -> None:
    tools = CHAT.peek(b'{"model":"m","tools":[ 1 ]}', RequestFacts()).tools
    assert tools is not None and bytes(tools) == b"[ 1 ]"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}", b'{"model":1}', b'{"model":"m","stream":1}', b"[" * 100_000])
def test_peek_names_the_fault(body: bytes) -> None:
    with pytest.raises(DecodeError):
        CHAT.peek(body, RequestFacts())


def test_a_new_name_changes_that_value_alone() -> None:
    body = b'{"options" : {"model":1.50},  "model" : "old" }'
    peek = CHAT.peek(body, RequestFacts())
    assert CHAT.patch_request(body, peek, model="new", stream_usage=True) == body.replace(b'"old"', b'"new"')
    assert CHAT.patch_request(body, peek, model=None, stream_usage=True) is body


def test_what_ollamas_own_client_sends_is_read() -> None:
    seen: list[bytes] = []

    def answer(body: bytes) -> tuple[int, dict[str, str], bytes]:
        seen.append(body)
        return 200, {}, b'{"model":"m","message":{"role":"assistant","content":""},"done":true}'

    def look(at: str) -> str:
        """Look.

        Args:
            at: where
        """
        return at

    called = {"function": {"name": "look", "arguments": {"at": "Rome"}}}
    asked = client(answer)
    asked.chat(
        "m",
        [
            {"role": "user", "content": "hi", "images": [b"\x89PNG\r\n\x1a\n"]},
            {"role": "assistant", "tool_calls": [called]},
            {"role": "tool", "tool_name": "look", "content": "x"},
        ],
        tools=[look],
        think="low",
        format=SCHEMA,
        options={"num_ctx": 5, "temperature": 0.5},
        keep_alive="1m",
    )
    asked.generate("m", "Why?", suffix="z", system="s", context=[1, 2], raw=False)
    chat, generate = (json.loads(body) for body in seen)
    assert encode(decode(seen[0])) == (chat, [])
    assert encode(decode(seen[1], GENERATE), GENERATE) == (generate, [])
    request = decode(seen[0])
    assert request.tools[0].name == "look" and request.stream is False
    assert [part.id for part in request.messages[2].parts if isinstance(part, ToolResult)] == ["call_0"]
