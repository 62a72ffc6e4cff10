"""Requests of the legacy Completions: round trips, what crosses and what is refused, faults, the two cheap looks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway.codecs.anthropic_messages import CODEC as ANTHROPIC
from headgate.gateway.codecs.base import Codec, Peek, RequestFacts, UpstreamFacts
from headgate.gateway.codecs.ollama import CHAT, GENERATE
from headgate.gateway.codecs.openai_chat import CODEC as OPENAI
from headgate.gateway.codecs.openai_completions import CODEC
from headgate.gateway.errors import DecodeError, Unsupported
from headgate.gateway.ir.message import (
    CacheMark,
    Citation,
    Media,
    Message,
    Opaque,
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


def decode(value: object) -> Request:
    return CODEC.decode_request(json.dumps(value).encode(), RequestFacts())


def encode(request: Request, **options: object) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    encoded = CODEC.encode_request(request, UpstreamFacts(options=options))
    assert encoded.path == "/completions" == CODEC.request_path("m", False)
    return json.loads(encoded.body), [(loss.kind, loss.path) for loss in encoded.losses]


OWN: list[dict[str, Any]] = [
    {},
    {"prompt": None},
    {"prompt": ""},
    {"prompt": "Say this is a test"},
    {"prompt": []},
    {"prompt": ["one"]},
    {"prompt": ["one", "two"]},
    {"prompt": [1212, 318]},
    {"prompt": [[1, 2], [3]]},
    {"prompt": "x", "suffix": "z", "echo": True, "best_of": 3, "n": 2, "logprobs": 5, "logit_bias": {"50256": -100}},
    {"prompt": "x", "logprobs": 0},
    {"prompt": "x", "max_tokens": 7, "temperature": 0.5, "top_p": 0.5, "seed": 3, "user": "u", "stream": False},
    {"prompt": "x", "frequency_penalty": 0.5, "presence_penalty": 0.5, "stop": "END"},
    {"prompt": "x", "stop": ["END"], "stream": True},
    {"prompt": "x", "stop": []},
    {"prompt": "x", "stop": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}},
    {"prompt": "x", "stream": True, "stream_options": {}},
    {"prompt": "x", "stream": True, "stream_options": {"include_obfuscation": False, "x": 1}},
    {"prompt": "x", "top_k": 4, "min_p": 0.5, "repetition_penalty": 1.5, "guided_json": {"a": [1.5]}},
]


@pytest.mark.parametrize("value", OWN)
def test_requests_come_back_as_they_came(value: dict[str, Any]) -> None:
    value = {"model": "m", **value}
    assert encode(decode(value)) == (value, [])


def test_a_prompt_in_the_ir() -> None:
    request = decode({"model": "m", "prompt": "x", "max_tokens": 7, "logprobs": 2, "stop": "E", "echo": True})
    assert request == Request(
        "openai.completions",
        "m",
        (Message("user", (Text("x"),), brief=True),),
        max_output_tokens=7,
        stop=("E",),
        logprobs=True,
        top_logprobs=2,
        extra={"stop": Raw(b"null"), "echo": Raw(b"true")},
    )


@pytest.mark.parametrize("codec", [OPENAI, ANTHROPIC, CHAT, GENERATE], ids=lambda codec: codec.format)
@pytest.mark.parametrize("prompt", [["one", "two"], [1212, 318], [[1, 2], [3]]])
def test_many_prompts_and_tokens_stay_in_their_format(codec: Codec, prompt: Any) -> None:
    with pytest.raises(Unsupported) as caught:
        codec.encode_request(decode({"model": "m", "prompt": prompt}), UpstreamFacts())
    assert caught.value.param == "prompt"
    assert caught.value.message.startswith("prompt: ")


@pytest.mark.parametrize("prompt", ["Say this", ["Say this"]])
def test_one_prompt_crosses(prompt: Any) -> None:
    asked = {"model": "m", "prompt": prompt, "max_tokens": 7, "logprobs": 2, "stop": "E", "seed": 1, "echo": True}
    request = decode(asked)
    chat = OPENAI.encode_request(request, UpstreamFacts())
    assert json.loads(chat.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Say this"}],
        "max_completion_tokens": 7,
        "seed": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "stop": ["E"],
    }
    assert [(loss.kind, loss.path) for loss in chat.losses] == [("lost", "echo")]
    messages = ANTHROPIC.encode_request(request, UpstreamFacts())
    assert json.loads(messages.body)["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Say this"}]}
    ]
    assert {loss.path for loss in messages.losses} == {"logprobs", "seed", "echo"}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, "model"),
        ({"model": "m", "prompt": 1}, "prompt"),
        ({"model": "m", "prompt": ["a", 1]}, "prompt"),
        ({"model": "m", "prompt": [1, [2]]}, "prompt"),
        ({"model": "m", "prompt": {}}, "prompt"),
        ({"model": "m", "logprobs": True}, "logprobs"),
        ({"model": "m", "stop": 1}, "stop"),
        ({"model": "m", "n": "2"}, "n"),
        ({"model": "m", "stream": 1}, "stream"),
        ({"model": "m", "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ([], ""),
    ],
)
def test_faults_are_named(value: object, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(value)
    assert caught.value.path == path


# -- requests of other formats

HI = (Message("user", (Text("hi"),)),)
MINTED = ("minted", "max_output_tokens")
FOREIGN: list[tuple[dict[str, Any], dict[str, Any], list[tuple[str, str]]]] = [
    ({}, {"max_tokens": 4096}, [MINTED]),
    ({"max_output_tokens": 7, "stream": True, "stream_usage": True}, {"stream_options": {"include_usage": True}}, []),
    ({"max_output_tokens": 7, "stream_usage": True}, {}, []),
    ({"max_output_tokens": 7, "logprobs": True}, {"logprobs": 0}, []),
    ({"max_output_tokens": 7, "logprobs": False}, {}, []),
    ({"max_output_tokens": 7, "logprobs": True, "top_logprobs": 3}, {"logprobs": 3}, []),
    ({"max_output_tokens": 7, "top_logprobs": 3}, {}, [("lost", "top_logprobs")]),
    ({"max_output_tokens": 7, "stop": tuple("abcde")}, {"stop": list("abcd")}, [("lost", "stop[4]")]),
    ({"max_output_tokens": 7, "top_k": 3}, {}, [("lost", "top_k")]),
    (
        {"max_output_tokens": 7, "temperature": 0.5, "top_p": 0.5, "seed": 1, "n": 2, "user": "u", "logit_bias": b"{}"},
        {"temperature": 0.5, "top_p": 0.5, "seed": 1, "n": 2, "user": "u", "logit_bias": {}},
        [],
    ),
    (
        {
            "max_output_tokens": 7,
            "tools": (Tool("f"),),
            "tool_choice": ToolChoice("required"),
            "parallel_tool_calls": False,
            "response_format": ResponseFormat("json_object"),
            "reasoning": ReasoningOptions("enabled"),
            "verbosity": "low",
            "metadata": {"a": "b"},
            "service_tier": "flex",
            "cache": CacheMark(),
            "extra": {"x": Raw(b"1"), "y": Raw(b"[]")},
        },
        {},
        [
            *(("lost", name) for name in ("x", "tools", "tool_choice", "parallel_tool_calls", "response_format")),
            *(("lost", name) for name in ("verbosity", "metadata", "service_tier", "cache", "reasoning.mode")),
        ],
    ),
]


@pytest.mark.parametrize(("settings", "expected", "losses"), FOREIGN)
def test_settings_of_another_format(
    settings: dict[str, Any], expected: dict[str, Any], losses: list[tuple[str, str]]
) -> None:
    body, noted = encode(Request("f", "m", HI, **settings))
    stream = {"stream": True} if settings.get("stream") else {}
    assert body == {"model": "m", "prompt": "hi", "max_tokens": 7, **stream, **expected}
    assert noted == losses


def test_what_the_profile_says() -> None:
    request = Request("f", "m", HI, max_output_tokens=7, top_k=3, stop=("a", "b"))
    assert encode(request, top_k=True, max_stop=1)[0] == {
        "model": "m",
        "prompt": "hi",
        "max_tokens": 7,
        "top_k": 3,
        "stop": ["a"],
    }
    asked = CODEC.encode_request(Request("f", "m", HI, stream=True), UpstreamFacts(9, stream_usage=True)).body
    assert json.loads(asked)["stream_options"] == {"include_usage": True}
    assert json.loads(asked)["max_tokens"] == 9


PROMPTS: list[tuple[tuple[Message, ...], str, list[tuple[str, str]]]] = [
    (
        (Message("system", (Text("Be brief."),)), Message("developer", (Text("x"),)), *HI),
        "Be brief.\n\nx\n\nhi",
        [("emulated", "messages[0]"), ("emulated", "messages[1]")],
    ),
    ((Message("system", (Text("Be brief."),)),), "Be brief.", [("emulated", "messages[0]")]),
    (
        (
            Message(
                "user",
                (
                    Text("a", (Citation("f", "c", b"{}"),), CacheMark(), {"x": Raw(b"1")}),
                    Refusal("No."),
                    Media("document", text="words", name="t"),
                    Media("image", data="x"),
                ),
                name="ann",
                extra={"y": Raw(b"1")},
            ),
        ),
        "a\nNo.\nt\nwords",
        [
            ("lost", "messages[0].name"),
            ("lost", "messages[0].y"),
            ("lost", "messages[0].content[0].cache"),
            ("lost", "messages[0].content[0].citations"),
            ("lost", "messages[0].content[0].x"),
            ("emulated", "messages[0].content[1]"),
            ("emulated", "messages[0].content[2]"),
            ("lost", "messages[0].content[3]"),
            ("emulated", "messages[0].content"),
        ],
    ),
]


@pytest.mark.parametrize(("messages", "prompt", "losses"), PROMPTS)
def test_one_thing_said_is_a_prompt(messages: Any, prompt: str, losses: list[tuple[str, str]]) -> None:
    body, noted = encode(Request("f", "m", messages, max_output_tokens=7))
    assert body["prompt"] == prompt
    assert noted == losses


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ((), "messages"),
        ((*HI, Message("assistant", (Text("b"),))), "messages[1]"),
        ((*HI, *HI), "messages[1]"),
        ((*HI, Message("system", (Text("b"),))), "messages[1]"),
        ((Message("assistant", (Text("b"),)),), "messages[0]"),
        ((Message("assistant", (ToolCall("c", "f"),)),), "messages[0]"),
        ((Message("user", (Text("a"), ToolResult("c", (Text("x"),)))),), "messages[0].content[1]"),
        ((Message("user", (Media("image", data="x"),)),), "messages[0].content[0]"),
        ((Message("user", (Opaque("f", "thing", b"{}"),)),), "messages[0].content[0]"),
    ],
)
def test_a_conversation_is_refused(messages: tuple[Message, ...], param: str) -> None:
    with pytest.raises(Unsupported) as caught:
        encode(Request("f", "m", messages))
    assert caught.value.param == param


def test_a_refusal_speaks_as_the_caller_does() -> None:
    asked = {"model": "m", "max_tokens": 9, "system": "s", "messages": [{"role": "assistant", "content": "x"}]}
    with pytest.raises(Unsupported) as caught:
        encode(ANTHROPIC.decode_request(json.dumps(asked).encode(), RequestFacts()))
    assert caught.value.param == "messages[0]"


# -- the two cheap looks


@pytest.mark.parametrize(
    ("body", "peek"),
    [
        (b'{"model":"m","prompt":[1,2]}', Peek("m")),
        (b'{"model":"m","stream":null,"stream_options":null}', Peek("m")),
        (b'{"model":"m","stream":true,"stream_options":{"include_usage":false}}', Peek("m", True, False)),
    ],
)
def test_peek(body: bytes, peek: Peek) -> None:
    assert CODEC.peek(body, RequestFacts()) == peek


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model":1}', b'{"model":"m","stream":1}', b"[" * 100_000])
def test_peek_names_the_fault(body: bytes) -> None:
    with pytest.raises(DecodeError):
        CODEC.peek(body, RequestFacts())


def test_one_member_changes() -> None:
    body = b'{"prompt" : "\\"model\\"",  "model" : "old", "stream":true }'
    peek = CODEC.peek(body, RequestFacts())
    named = CODEC.patch_request(body, peek, model="new", stream_usage=False)
    assert named == body.replace(b'"old"', b'"new"')
    asked = CODEC.patch_request(body, peek, model=None, stream_usage=True)
    assert asked == body[:-1] + b',"stream_options":{"include_usage":true}}'
    assert CODEC.patch_request(body, peek, model="old", stream_usage=False) is body
    kept = b'{"model":"m","stream":true,"stream_options":{ "x":1.50 }}'
    patched = CODEC.patch_request(kept, CODEC.peek(kept, RequestFacts()), model=None, stream_usage=True)
    assert patched == b'{"model":"m","stream":true,"stream_options":{ "x":1.50 ,"include_usage":true}}'
