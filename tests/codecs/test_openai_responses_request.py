"""Requests of openai.responses: own ones come out as they went in, others by this API's rules, with what is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from headgate.gateway.codecs.openai_responses import CODEC
from headgate.gateway.errors import DecodeError, Unsupported
from headgate.gateway.ir.message import (
    CacheMark,
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
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

CORPUS = Path(__file__).parent.parent / "corpus" / "openai_responses" / "requests"
NAMES = sorted(path.stem for path in CORPUS.glob("*.json"))
ANTHROPIC = registry.codec("anthropic.messages")
CHAT = registry.codec("openai.chat")
OWN = "openai.responses"


def read(name: str) -> bytes:
    return (CORPUS / f"{name}.json").read_bytes().split(b"\n", 1)[1]


def decode(body: dict[str, Any]) -> Request:
    return CODEC.decode_request(json.dumps({"model": "m", "input": "hi"} | body).encode(), RequestFacts())


def of(*items: Any) -> Request:
    return decode({"input": list(items)})


def written(request: Request, **options: object) -> dict[str, Any]:
    return json.loads(CODEC.encode_request(request, UpstreamFacts(options=options)).body)


def losses(request: Request, **options: object) -> list[tuple[str, str]]:
    return [(it.kind, it.path) for it in CODEC.encode_request(request, UpstreamFacts(options=options)).losses]


def foreign(*messages: Message, **more: Any) -> Request:
    return Request("elsewhere", "m", messages, **more)


# -- the same format


@pytest.mark.parametrize("name", NAMES)
def test_an_own_request_comes_out_as_it_went_in(name: str) -> None:
    request = CODEC.decode_request(read(name), RequestFacts())
    encoded = CODEC.encode_request(request, UpstreamFacts())
    assert json.loads(encoded.body) == json.loads(read(name))
    assert encoded.losses == ()
    assert encoded.path == "/responses" == CODEC.request_path("m", True)


@pytest.mark.parametrize(
    "members",
    [
        {"input": []},
        {"input": [{"role": "user", "content": []}]},
        {"input": [{"type": "message", "role": "user", "content": "x", "status": "completed", "id": "msg_1"}]},
        {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}], "phase": None}]},
        {"input": [{"role": "assistant", "content": [{"type": "x_new"}], "id": "msg_1", "type": "message"}]},
        {"input": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b", "type": "message"}]},
        {"input": [{"type": "reasoning", "id": "rs", "encrypted_content": "E"}]},
        {"input": [{"type": "reasoning", "id": "rs", "summary": [{"type": "x_new"}], "encrypted_content": "E"}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "refusal", "refusal": "n"}]}]},
        {"input": [{"type": "function_call_output", "name": "look", "output": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "detail": "low"}, {"type": "input_file"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "data:,x"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x", "prompt_cache_breakpoint": {}}]}]},
        {"text": {}, "reasoning": {}, "include": [], "tools": [], "metadata": {}},
        {"text": {"format": None}, "reasoning": {"effort": None}, "include": None, "metadata": {"a": 1}},
        {"text": {"format": {"type": "grammar", "x": 1}}, "reasoning": {"mode": "pro"}},
        {"text": {"x": 1}, "tool_choice": {"type": "web_search_preview"}},
        {"tool_choice": {"type": "custom", "name": "run"}, "user": "u", "safety_identifier": "s"},
        {"stream": None, "instructions": None, "temperature": None},
    ],
)
def test_an_odd_request_comes_out_as_it_went_in(members: dict[str, Any]) -> None:
    body = {"model": "m", "input": "hi"} | members
    request = decode(members)
    assert written(request) == body
    assert losses(request) == []


def test_what_is_asked_is_read() -> None:
    request = CODEC.decode_request(read("everything"), RequestFacts())
    assert request.messages[0].role == "system"
    assert request.max_output_tokens == 99
    assert request.top_logprobs == 2
    assert request.logprobs is True
    assert request.user == "s"
    assert request.metadata == {"a": "b"}
    assert request.service_tier == "flex"
    assert request.verbosity == "high"
    assert request.response_format == ResponseFormat("json_schema", "r", b'{\n    "type": "object"\n   }', "d", True)
    assert request.tool_choice is not None
    assert (request.tool_choice.mode, request.tool_choice.names) == ("allowed", ("look", "file_search"))
    assert [tool.kind for tool in request.tools] == ["file_search", "mcp", "function"]
    assert {"previous_response_id", "conversation", "background", "prompt", "max_tool_calls"} <= request.extra.keys()
    text, image, kept, file, address, sound = request.messages[1].parts
    assert isinstance(text, Text)
    assert text.cache == CacheMark("12h")
    assert image == Media("image", "image/png", data="iVBORw0KGgo=", detail="low")
    assert kept == Media("image", file_id="file-1", detail="auto")
    assert file == Media("document", "application/pdf", data="JVBERi0=", name="a.pdf")
    assert address == Media("document", uri="https://a.example/a.pdf")
    assert isinstance(sound, Opaque)


def test_items_of_the_assistant_are_one_turn() -> None:
    request = CODEC.decode_request(read("agent"), RequestFacts())
    assert [message.role for message in request.messages] == ["developer", "user", "assistant", "tool", "tool"]
    thought, text, call, patch = request.messages[2].parts
    assert isinstance(thought, Reasoning)
    assert (thought.text, thought.signature, thought.origin) == ("**Think**", "gAAA", f"{OWN}:summary")
    assert isinstance(text, Text)
    assert isinstance(call, ToolCall)
    assert (call.id, call.name, call.arguments) == ("call_1", "shell", '{"cmd":"ls"}')
    assert isinstance(patch, ToolCall)
    assert (patch.id, patch.kind, patch.arguments) == ("call_2", "custom", "*** Begin")
    assert request.reasoning == ReasoningOptions(None, "high", summary="auto")
    assert request.stream_usage is True


def test_tools_among_the_items_are_tools() -> None:
    request = CODEC.decode_request(read("hoisted"), RequestFacts())
    assert [tool.name for tool in request.tools] == ["shell"]
    assert len(request.messages) == 1
    encoded = CHAT.encode_request(request, UpstreamFacts())
    assert json.loads(encoded.body)["tools"][0]["function"]["name"] == "shell"
    assert encoded.losses == ()


def test_a_signature_of_another_format_comes_back() -> None:
    request = of(
        {"role": "user", "content": "hi"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "signed:anthropic.messages:Sig==",
        },
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "redacted:anthropic.messages:Ab:c"},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
    )
    encoded = ANTHROPIC.encode_request(request, UpstreamFacts())
    assert json.loads(encoded.body)["messages"][1]["content"][:2] == [
        {"type": "thinking", "thinking": "hm", "signature": "Sig=="},
        {"type": "redacted_thinking", "data": "Ab:c"},
    ]
    # OpenAI would refuse what it did not sign.
    assert [item.get("type") for item in written(request)["input"]] == [None, "function_call", "function_call_output"]
    assert losses(request) == [("lost", "input[1]"), ("lost", "input[2]")]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{nonsense", ""),
        (b"[]", ""),
        (b'{"input":"x"}', "model"),
        (b'{"model":"m","input":7}', "input"),
        (b'{"model":"m","input":[7]}', "input[0]"),
        (b'{"model":"m","input":[{}]}', "input[0].type"),
        (b'{"model":"m","input":[{"role":"critic","content":"x"}]}', "input[0].role"),
        (b'{"model":"m","input":[{"role":"user"}]}', "input[0].content"),
        (b'{"model":"m","input":[{"role":"user","content":7}]}', "input[0].content"),
        (b'{"model":"m","input":[{"role":"user","content":[{"type":"input_text"}]}]}', "input[0].content[0].text"),
        (b'{"model":"m","input":[{"type":"function_call","name":"f"}]}', "input[0].call_id"),
        (b'{"model":"m","input":[{"type":"function_call_output","call_id":"c"}]}', "input[0].output"),
        (b'{"model":"m","input":[{"type":"reasoning","summary":7}]}', "input[0].summary"),
        (b'{"model":"m","instructions":7}', "instructions"),
        (b'{"model":"m","tools":[{"type":"function"}]}', "tools[0].name"),
        (b'{"model":"m","tools":[{"type":"function","name":"f","parameters":7}]}', "tools[0].parameters"),
        (b'{"model":"m","tool_choice":"maybe"}', "tool_choice"),
        (b'{"model":"m","tool_choice":{"type":"allowed_tools","mode":"x"}}', "tool_choice.mode"),
        (b'{"model":"m","text":{"format":{}}}', "text.format.type"),
        (b'{"model":"m","include":[7]}', "include"),
        (b'{"model":"m","metadata":[]}', "metadata"),
        (b'{"model":"m","stream":"yes"}', "stream"),
    ],
)
def test_a_broken_request_is_refused_by_its_path(body: bytes, path: str) -> None:
    with pytest.raises(DecodeError) as refused:
        CODEC.decode_request(body, RequestFacts())
    assert refused.value.path == path


# -- what routing needs


def test_peek() -> None:
    peek = CODEC.peek(b'{"model":"m","stream":true,"tools":[1],"metadata":{"a":"b"},"input":"x"}', RequestFacts())
    assert (peek.model, peek.stream, bytes(peek.tools or b""), bytes(peek.metadata or b"")) == (
        "m",
        True,
        b"[1]",
        b'{"a":"b"}',
    )
    assert CODEC.peek(b'{"model":"m","stream":null,"tools":null}', RequestFacts()).tools is None


@pytest.mark.parametrize(
    ("body", "path"),
    [(b"{", ""), (b"[]", ""), (b"{}", "model"), (b'{"model":7}', "model"), (b'{"model":"m","stream":1}', "stream")],
)
def test_peek_refuses(body: bytes, path: str) -> None:
    with pytest.raises(DecodeError) as refused:
        CODEC.peek(body, RequestFacts())
    assert refused.value.path == path


def test_a_new_model_changes_one_member() -> None:
    body = b'{ "input":"\\"model\\":\\"x\\"", "model" : "old","stream":true }'
    peek = CODEC.peek(body, RequestFacts())
    assert CODEC.patch_request(body, peek, model="new", stream_usage=True) == body.replace(b'"old"', b'"new"')
    assert CODEC.patch_request(body, peek, model=None, stream_usage=True) is body


# -- from another format


def test_a_conversation_of_another_format() -> None:
    request = foreign(
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("see"), Media("image", "image/png", data="iVBO"))),
        Message(
            "assistant",
            (Text("Looking."), Text("Now."), ToolCall("c1", "look", '{"at":1}'), ToolCall("c2", "run", "x", "custom")),
        ),
        Message("tool", (ToolResult("c1", (Text("a"), Media("image", uri="https://a.example/"))),)),
        Message("tool", (ToolResult("c2", (Text("b"),)),)),
        Message("user", (Text("again"),)),
        tools=(Tool("look", b'{"type":"object"}'), Tool("run", kind="custom")),
        tool_choice=ToolChoice("tool", ("look",)),
        max_output_tokens=90,
        response_format=ResponseFormat("json_schema", None, b"{}"),
        stream=True,
    )
    body = written(request)
    assert body == {
        "model": "m",
        "instructions": "Be brief.",
        "tools": [
            {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False},
            {"type": "custom", "name": "run"},
        ],
        "tool_choice": {"type": "function", "name": "look"},
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "auto"},
                ],
            },
            {"role": "assistant", "content": "Looking."},
            {"role": "assistant", "content": "Now."},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at":1}'},
            {"type": "custom_tool_call", "call_id": "c2", "name": "run", "input": "x"},
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [
                    {"type": "input_text", "text": "a"},
                    {"type": "input_image", "image_url": "https://a.example/", "detail": "auto"},
                ],
            },
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "b"},
            {"role": "user", "content": "again"},
        ],
        "max_output_tokens": 90,
        "text": {"format": {"type": "json_schema", "name": "response", "schema": {}}},
        "store": False,
        "stream": True,
    }
    assert losses(request) == [("minted", "response_format.name")]
    TypeAdapter(ResponseCreateParamsNonStreaming).validate_python(body | {"stream": False})


def test_a_refusal_of_another_format() -> None:
    request = foreign(Message("user", (Text("a"),)), Message("assistant", (Refusal("no"),)))
    assert written(request)["input"][1] == {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}


@pytest.mark.parametrize(
    ("parts", "noted"),
    [
        ((Reasoning("hm", "sig", origin="elsewhere"), Text("x")), [("lost", "messages[1].content[0]")]),
        (
            (ToolCall("", "look"),),
            [("minted", "messages[1].content[0].id"), ("minted", "messages[1].content[0].arguments")],
        ),
        ((ToolCall("c", "search", server="server_tool_use"), Text("x")), [("lost", "messages[1].content[0]")]),
        ((Opaque("elsewhere", "block", b"{}"), Text("x")), [("lost", "messages[1].content[0]")]),
        ((Media("image", uri="https://a.example/"), Text("x")), [("lost", "messages[1].content[0]")]),
        ((Text("x", cache=CacheMark()),), [("lost", "messages[1].content[0].cache")]),
    ],
)
def test_what_of_a_turn_is_lost(parts: tuple[Any, ...], noted: list[tuple[str, str]]) -> None:
    request = foreign(Message("user", (Text("a"),)), Message("assistant", parts))
    assert losses(request) == noted


@pytest.mark.parametrize(
    ("part", "noted"),
    [
        (Media("audio", "audio/wav", data="UklG"), [("lost", "messages[0].content[0]")]),
        (Media("document", "text/plain", text="words"), [("emulated", "messages[0].content[0]")]),
        (Media("document", "application/pdf", data="JVBE"), [("minted", "messages[0].content[0]")]),
        (Media("image", data="iVBO"), [("minted", "messages[0].content[0]")]),
        (Media("image", file_id="f"), [("lost", "messages[0].content[0]")]),
        (ToolResult("c", (Text("x"),), is_error=True), [("lost", "messages[0].content[0].is_error")]),
    ],
)
def test_what_of_a_user_is_lost(part: Any, noted: list[tuple[str, str]]) -> None:
    assert losses(foreign(Message("user", (part, Text("x"))))) == noted


@pytest.mark.parametrize(
    ("members", "noted"),
    [
        ({"top_k": 1}, [("lost", "top_k")]),
        ({"stop": ("a",)}, [("lost", "stop")]),
        ({"seed": 1, "n": 2}, [("lost", "seed"), ("lost", "n")]),
        ({"n": 1, "frequency_penalty": 0.0, "logit_bias": b"{}"}, []),
        ({"tool_choice": ToolChoice("required")}, [("lost", "tool_choice")]),
        ({"parallel_tool_calls": True}, [("lost", "parallel_tool_calls")]),
        ({"reasoning": ReasoningOptions("enabled", budget_tokens=5000)}, [("emulated", "reasoning.budget_tokens")]),
        ({"reasoning": ReasoningOptions("disabled")}, [("lost", "reasoning.mode")]),
        ({"max_output_tokens": 1}, [("emulated", "max_output_tokens")]),
        ({"max_output_tokens": 16}, []),
        ({"service_tier": "standard_only"}, [("emulated", "service_tier")]),
        ({"service_tier": "x"}, [("lost", "service_tier")]),
        ({"cache": CacheMark()}, [("lost", "cache")]),
    ],
)
def test_what_of_the_settings_is_lost(members: dict[str, Any], noted: list[tuple[str, str]]) -> None:
    assert losses(foreign(Message("user", (Text("x"),)), **members)) == noted


def test_what_an_upstream_wants_otherwise() -> None:
    marked = Message("user", (Text("x", cache=CacheMark("5m")),))
    request = foreign(Message("system", (Text("s"),)), Message("developer", (Text("d"),)), marked)
    body = written(request, prompt_cache_breakpoint=True, instructions=False, developer_role="system", store=False)
    assert body["input"][0] == {"role": "system", "content": "s"}
    assert body["input"][1] == {"role": "system", "content": "d"}
    assert body["input"][2]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit", "ttl": "30m"}
    assert body["store"] is False
    assert "instructions" not in body


def test_a_limit_that_is_too_low_here() -> None:
    request = foreign(Message("user", (Text("x"),)), max_output_tokens=1)
    assert written(request)["max_output_tokens"] == 16
    assert written(request, min_output_tokens=1)["max_output_tokens"] == 1
    assert written(decode({"max_output_tokens": 1}))["max_output_tokens"] == 1


SIGNED = Message("assistant", (Reasoning(redacted="gAAAA", origin=OWN), Text("x")))
SEVERAL = Message("assistant", (Opaque(OWN, "reasoning", b'{"type":"reasoning","summary":[]}'), Text("x")))
LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"


@pytest.mark.parametrize(
    ("request_", "options", "wanted"),
    [
        (foreign(Message("user", (Text("x"),))), {}, (False, None)),
        (foreign(Message("user", (Text("x"),))), {"store": None}, (None, None)),
        (foreign(SIGNED), {}, (False, [ENCRYPTED])),
        (foreign(SEVERAL), {}, (False, [ENCRYPTED])),
        (foreign(SEVERAL), {"encrypted_reasoning": False}, (False, None)),
        (foreign(reasoning=ReasoningOptions(effort="low"), logprobs=True), {}, (False, [LOGPROBS, ENCRYPTED])),
        (foreign(reasoning=ReasoningOptions(summary="auto")), {}, (False, [ENCRYPTED])),
        (foreign(reasoning=ReasoningOptions("enabled", budget_tokens=2000)), {}, (False, [ENCRYPTED])),
        (foreign(reasoning=ReasoningOptions("disabled", "none")), {}, (False, None)),
        (foreign(reasoning=ReasoningOptions("disabled")), {}, (False, None)),
        (foreign(reasoning=ReasoningOptions("adaptive")), {}, (False, None)),
        (decode({"reasoning": {"effort": "low"}}), {}, (None, None)),
        (decode({"reasoning": {"effort": "low"}, "store": True, "include": [LOGPROBS]}), {}, (True, [LOGPROBS])),
    ],
)
def test_nothing_is_stored_and_reasoning_comes_back(
    request_: Request, options: dict[str, Any], wanted: tuple[Any, Any]
) -> None:
    body = written(request_, **options)
    assert (body.get("store"), body.get("include")) == wanted


def test_a_caller_of_chat_may_have_its_answer_stored() -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], "store": True}
    request = CHAT.decode_request(json.dumps(asked).encode(), RequestFacts())
    assert written(request)["store"] is True


def test_a_result_that_answers_no_call() -> None:
    with pytest.raises(DecodeError):
        CODEC.encode_request(foreign(Message("tool", (ToolResult("", (Text("x"),)),))), UpstreamFacts())


# -- to another format


def test_the_turns_of_an_agent_in_other_words() -> None:
    request = CODEC.decode_request(read("agent"), RequestFacts())
    chat = json.loads(CHAT.encode_request(request, UpstreamFacts()).body)
    assert [message["role"] for message in chat["messages"]] == ["developer", "user", "assistant", "tool", "tool"]
    assert [call["id"] for call in chat["messages"][2]["tool_calls"]] == ["call_1", "call_2"]
    encoded = ANTHROPIC.encode_request(request, UpstreamFacts())
    turns = json.loads(encoded.body)["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [(it.kind, it.path) for it in encoded.losses] == [
        ("lost", "tools[1]"),
        ("lost", "tools[2]"),
        ("lost", "tools[3]"),
        ("lost", "input[2]"),
        ("lost", "input[3].phase"),
        ("emulated", "input[5]"),
        ("minted", "max_tokens"),
        ("lost", "reasoning.summary"),
        ("lost", "text.verbosity"),
        ("lost", "prompt_cache_key"),
        ("lost", "client_metadata"),
    ]


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}])
def test_what_stands_for_words_elsewhere_is_refused(item: dict[str, str]) -> None:
    with pytest.raises(Unsupported, match=r"input\[1\]"):
        ANTHROPIC.encode_request(of({"role": "user", "content": "hi"}, item), UpstreamFacts())


def test_losses_are_told_in_the_callers_words() -> None:
    request = decode(
        {
            "instructions": "s",
            "input": [
                {"type": "additional_tools", "role": "developer", "tools": []},
                {"role": "user", "content": [{"type": "input_text", "text": "x", "y": 1}, {"type": "z"}]},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "a", "w": 1}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x", "v": 1}]},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "", "namespace": "n"},
                {"type": "local_shell_call", "id": "l"},
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_text", "text": "x", "u": 1}],
                },
                {"role": "user", "content": "x", "t": 1},
            ],
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "description": "d"}, "s": 1},
            "truncation": "auto",
        }
    )
    assert [(it.kind, it.path) for it in ANTHROPIC.encode_request(request, UpstreamFacts()).losses] == [
        ("lost", "input[1].content[0].y"),
        ("lost", "input[1].content[1]"),
        ("lost", "input[2]"),
        ("lost", "input[3].content[0].v"),
        ("minted", "input[4].arguments"),
        ("lost", "input[4].namespace"),
        ("lost", "input[5]"),
        ("lost", "input[6].output[0].u"),
        ("lost", "input[7].t"),
        ("minted", "max_tokens"),
        ("emulated", "text.format.name"),
        ("lost", "text.format.description"),
        ("lost", "truncation"),
        ("lost", "text.s"),
    ]
