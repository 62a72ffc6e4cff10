"""Requests of gemini: paths, into the IR and out again, to and from the other formats, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from google.genai import types
from headgate.gateway import registry
from headgate.gateway.codecs.base import Encoded, RequestFacts, UpstreamFacts
from headgate.gateway.codecs.gemini import ARRAY_CODEC, CODEC
from headgate.gateway.errors import CallerError, DecodeError, Unsupported
from headgate.gateway.ir.message import (
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
from msgspec.structs import replace

from .gemini_cases import REQUESTS, STREAM, WHOLE, client, load

OWN = "gemini"
FACTS = UpstreamFacts()
HI: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def decode(body: dict[str, Any] | bytes, facts: RequestFacts = WHOLE) -> Request:
    return CODEC.decode_request(body if isinstance(body, bytes) else json.dumps(body).encode(), facts)


def foreign(format: str, body: dict[str, Any], model: str = "gemini-3-pro", **options: object) -> tuple[Any, Encoded]:
    """What becomes of another format's request."""
    request = registry.codec(format).decode_request(json.dumps({"model": model, **body}).encode(), RequestFacts())
    encoded = CODEC.encode_request(request, UpstreamFacts(options=options))
    return json.loads(encoded.body), encoded


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages) or [{"role": "user", "content": "hi"}], **more}


def losses(encoded: Encoded) -> list[tuple[str, str]]:
    return [(loss.kind, loss.path) for loss in encoded.losses]


# -- paths


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/v1beta/models/gemini-3-pro:generateContent", "gemini-3-pro", False),
        ("/v1/models/gemini-3-pro:streamGenerateContent", "gemini-3-pro", True),
        ("/under/v1beta/models/a/b:generateContent", "a/b", False),
        ("/v1beta/models/llama3:8b:generateContent", "llama3:8b", False),
        ("/v1beta/tunedModels/mine-1:generateContent", "tunedModels/mine-1", False),
        (
            "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent",
            "gemini-2.5-pro",
            True,
        ),
    ],
)
def test_the_path_says_model_and_method(path: str, model: str, stream: bool) -> None:
    facts = RequestFacts(path)
    peek = CODEC.peek(b'{"contents":[],"model":"other","tools":[{}],"labels":{"a":"b"}}', facts)
    assert (peek.model, peek.stream) == (model, stream)
    assert peek.tools is not None
    assert bytes(peek.tools) == b"[{}]"
    assert peek.metadata is not None
    request = decode(b'{"contents":[]}', facts)
    assert (request.model, request.stream) == (model, stream)


def test_without_a_path_the_body_says_it() -> None:
    peek = CODEC.peek(b'{"model":"m","stream":true}', RequestFacts())
    assert (peek.model, peek.stream) == ("m", True)
    request = decode({**HI, "model": "m"}, RequestFacts())
    assert (request.model, request.stream, request.extra) == ("m", False, {})
    for bad in (b"{}", b'{"contents":[]}'):
        with pytest.raises(DecodeError, match="model"):
            CODEC.peek(bad, RequestFacts())


@pytest.mark.parametrize("path", ["/v1beta/models/m:countTokens", "/v1beta/models/m:embedContent"])
def test_other_methods_are_not_found(path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.peek(b"{}", RequestFacts(path))
    assert caught.value.kind == "not_found"


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b'"x"', b"[" * 5000, b'{"a":' * 5000, b'{"contents":[\xff]}'])
def test_what_is_no_body(body: bytes) -> None:
    with pytest.raises(DecodeError):
        CODEC.peek(body, WHOLE)
    with pytest.raises(DecodeError):
        decode(body)


def test_where_a_request_goes() -> None:
    assert CODEC.request_path("gemini-3-pro", False) == "/v1beta/models/gemini-3-pro:generateContent"
    assert CODEC.request_path("gemini-3-pro", True) == "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"
    assert CODEC.request_path("models/x", False) == "/v1beta/models/x:generateContent"
    assert CODEC.request_path("tunedModels/x", False) == "/v1beta/tunedModels/x:generateContent"
    assert CODEC.request_path("a b?c#d", False) == "/v1beta/models/a%20b%3Fc%23d:generateContent"
    for bad in ("", "../x", "a/../../b", ".", "a//b", "/a"):
        with pytest.raises(CallerError):
            CODEC.request_path(bad, False)


def test_a_new_name_changes_the_path_alone() -> None:
    body = b'{ "contents": [], "model":"models/old" }'
    peek = CODEC.peek(body, WHOLE)
    assert CODEC.patch_request(body, peek, model="new", stream_usage=True) is body


def test_the_framing_that_a_caller_asked_for() -> None:
    assert CODEC.for_caller(STREAM) is CODEC
    assert CODEC.for_caller(WHOLE) is ARRAY_CODEC
    assert ARRAY_CODEC.for_caller(STREAM) is CODEC
    assert CODEC.for_caller(RequestFacts(STREAM.path, {"$alt": "sse"})) is CODEC
    assert CODEC.for_caller(RequestFacts(STREAM.path, {"alt": "json"})) is ARRAY_CODEC


# -- the same format


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_comes_out_again(name: str) -> None:
    body = load(f"requests/{name}.json")
    encoded = CODEC.encode_request(decode(body), FACTS)
    assert json.loads(encoded.body) == json.loads(body)
    assert encoded.losses == ()
    assert encoded.path == "/v1beta/models/gemini-3-pro:generateContent"


def test_bytes_of_arguments_schemas_and_signatures_are_kept() -> None:
    body = (
        b'{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f","args":{"b" :1.0, "a":[ ]}},'
        b'"thoughtSignature":"A\\/+="},{"text":"x","thought":true,"thoughtSignature":"B=="}]}],'
        b'"tools":[{"functionDeclarations":[{"name":"f","parametersJsonSchema":{"type" : "object", "x":1.50}},'
        b'{"name":"g","parameters":{"type" : "object", "x":1.50}}]}],"x":{"y" :1e3}}'
    )
    out = CODEC.encode_request(decode(body), FACTS).body
    for spelled in (b'{"b" :1.0, "a":[ ]}', b'"A\\/+="', b'"B=="', b'{"y" :1e3}'):
        assert spelled in out
    assert out.count(b'{"type" : "object", "x":1.50}') == 2


def test_both_spellings_are_read() -> None:
    snake = {
        "system_instruction": {"parts": [{"text": "s"}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"inline_data": {"mime_type": "image/png", "data": "aaaa", "display_name": "n"}}],
            },
            {"role": "model", "parts": [{"function_call": {"name": "f", "args": {}}, "thought_signature": "S"}]},
            {"role": "user", "parts": [{"function_response": {"name": "f", "response": {"output": "x"}}}]},
            {"role": "user", "parts": [{"file_data": {"file_uri": "https://a.example/x", "mime_type": "video/mp4"}}]},
        ],
        "tools": [{"function_declarations": [{"name": "f", "parameters_json_schema": {"type": "object"}}]}],
        "tool_config": {"function_calling_config": {"mode": "ANY", "allowed_function_names": ["f"]}},
        "generation_config": {
            "top_p": 0.5,
            "top_k": "4",
            "max_output_tokens": 9.0,
            "stop_sequences": ["x"],
            "response_mime_type": "application/json",
            "response_json_schema": {"type": "object"},
            "thinking_config": {"include_thoughts": True, "thinking_budget": 5},
        },
        "cached_content": "c",
        "service_tier": "flex",
    }

    def camel(value: Any) -> Any:
        if isinstance(value, list):
            return [camel(item) for item in value]
        if not isinstance(value, dict):
            return value
        told = {}
        for name, inner in value.items():
            head, *rest = name.split("_")
            told[head + "".join(word.capitalize() for word in rest)] = camel(inner)
        return told

    request = decode(snake)
    same = replace(decode(camel(snake)), extra=request.extra)
    assert request == same
    out = json.loads(CODEC.encode_request(request, FACTS).body)
    expected = camel(snake)
    expected["generationConfig"] |= {"topK": 4, "maxOutputTokens": 9}
    expected["cached_content"] = expected.pop("cachedContent")  # nobody reads it: as it came
    assert out == expected


def test_one_object_stands_for_an_array() -> None:
    lone = {"contents": {"role": "user", "parts": {"text": "hi"}}, "tools": {"functionDeclarations": {"name": "f"}}}
    request = decode(lone)
    assert request.messages == (Message("user", (Text("hi"),)),)
    assert [tool.name for tool in request.tools] == ["f"]


def test_results_find_their_calls() -> None:
    def ids(*contents: tuple[str, list[dict[str, Any]]]) -> list[str]:
        request = decode({"contents": [{"role": role, "parts": parts} for role, parts in contents]})
        return [p.id for m in request.messages for p in m.parts if isinstance(p, ToolCall | ToolResult)]

    def call(name: str, **id: str) -> dict[str, Any]:
        return {"functionCall": {"name": name, **id}}

    def result(name: str, **id: str) -> dict[str, Any]:
        return {"functionResponse": {"name": name, "response": {}, **id}}

    turn = ("model", [call("f"), call("f"), call("g")])
    assert ids(turn, ("user", [result("g"), result("f"), result("f")])) == [
        *("call_0", "call_1", "call_2"),
        *("call_2", "call_0", "call_1"),
    ]
    again = ("model", [call("f")])
    assert ids(again, ("user", [result("f")]), again, ("user", [result("f")])) == [
        "call_0",
        "call_0",
        "call_1",
        "call_1",
    ]
    assert ids(
        ("model", [call("f", id="a"), call("f", id="b")]), ("user", [result("f", id="b"), result("f", id="a")])
    ) == [*("a", "b", "b", "a")]
    # The caller's own id, for a call that came without; a result without one, for a call that has one; and none at all.
    assert ids(again, ("user", [result("f", id="mine")])) == ["call_0", "call_0"]
    assert ids(("model", [call("f", id="a")]), ("user", [result("f")])) == ["a", "a"]
    assert ids(("user", [result("f"), result("f", id="x")])) == ["call_0", "x"]


def test_ids_that_nobody_gave_are_not_sent_back() -> None:
    body = load("requests/nameless.json")
    request = decode(body)
    assert b'"id"' not in CODEC.encode_request(request, FACTS).body
    own = {"contents": [{"role": "model", "parts": [{"functionCall": {"name": "f"}}]}]}
    own["contents"].append(
        {"role": "user", "parts": [{"functionResponse": {"id": "mine", "name": "f", "response": {}}}]}
    )
    assert json.loads(CODEC.encode_request(decode(own), FACTS).body) == own


def test_parts_as_values() -> None:
    request = decode(load("requests/media.json"))
    user, model, back = request.messages
    kinds = [(part.kind, part.data, part.uri, part.file_id) for part in user.parts if isinstance(part, Media)]
    assert kinds == [
        ("image", "iVBORw0KGgo=", None, None),
        ("video", None, "https://www.youtube.com/watch?v=x", None),
        ("document", None, None, "https://generativelanguage.googleapis.com/v1beta/files/abc"),
        ("audio", None, None, "gs://bucket/a.wav"),
        ("audio", "SUQz", None, None),
    ]
    assert [part.kind for part in model.parts if isinstance(part, Opaque)] == [
        *("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
    ]
    result = back.parts[0]
    assert isinstance(result, ToolResult)
    assert result.content == (Text("here"), Media("image", "image/jpeg", data="/9j/"))
    assert isinstance(back.parts[1], Opaque)
    thought, first, _ = decode(load("requests/tools.json")).messages[1].parts
    assert thought == Reasoning("Let me see.", origin=OWN)
    assert isinstance(first, ToolCall)
    assert first.extra == {"thoughtSignature": Raw(b'"EjQKMgEM/+8="')}
    bad = decode(load("requests/tools.json")).messages[2].parts[1]
    assert bad == ToolResult("fc2", (Text("no such flight"),), True)


def test_schemas_of_googles_own() -> None:
    request = decode(load("requests/settings.json"))
    old = json.loads(request.tools[1].schema)
    assert old["properties"]["n"] == {"type": ["integer", "null"], "minimum": 1.5}
    assert old["properties"]["tags"] == {"type": "array", "items": {"type": "string", "enum": ["A"]}}
    assert request.response_format is not None
    assert json.loads(request.response_format.schema or b"")["items"]["properties"]["name"] == {"type": "string"}
    chat_body = json.loads(registry.codec("openai.chat").encode_request(request, FACTS).body)
    assert chat_body["tools"][1]["function"]["parameters"] == old


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        ({"mode": "AUTO"}, ToolChoice("auto")),
        ({"mode": "NONE"}, ToolChoice("none")),
        ({"mode": "ANY"}, ToolChoice("required")),
        ({"mode": "ANY", "allowedFunctionNames": ["a"]}, ToolChoice("tool", ("a",))),
        ({"mode": "ANY", "allowedFunctionNames": ["a", "b"]}, ToolChoice("allowed", ("a", "b"), required=True)),
        ({"mode": "VALIDATED"}, ToolChoice("auto", extra={"mode": Raw(b'"VALIDATED"')})),
        ({"mode": "validated"}, ToolChoice("auto", extra={"mode": Raw(b'"validated"')})),
        ({"mode": "auto"}, ToolChoice("auto", extra={"mode": Raw(b"null")})),
        (
            {"mode": "any", "allowedFunctionNames": ["a"]},
            ToolChoice("tool", ("a",), extra={"mode": Raw(b"null")}),
        ),
        (
            {"mode": "VALIDATED", "allowedFunctionNames": ["a", "b"]},
            ToolChoice("allowed", ("a", "b"), extra={"mode": Raw(b'"VALIDATED"')}),
        ),
        ({"mode": "AUTO", "allowedFunctionNames": ["a"]}, None),
        ({"mode": "MODE_UNSPECIFIED"}, None),
        ({"streamFunctionCallArguments": True}, None),
        (
            {"mode": "ANY", "allowedFunctionNames": []},
            ToolChoice("required", extra={"allowedFunctionNames": Raw(b"[]")}),
        ),
    ],
)
def test_tool_choices(config: dict[str, Any], choice: ToolChoice | None) -> None:
    body = {**HI, "toolConfig": {"functionCallingConfig": config}}
    request = decode(body)
    assert request.tool_choice == choice
    assert json.loads(CODEC.encode_request(request, FACTS).body) == body


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ({"thinkingBudget": 0}, ReasoningOptions("disabled")),
        ({"thinkingBudget": -1}, ReasoningOptions("adaptive")),
        ({"thinkingBudget": 9}, ReasoningOptions("enabled", budget_tokens=9)),
        ({"thinkingLevel": "HIGH"}, ReasoningOptions(effort="high")),
        ({"thinkingLevel": "low"}, ReasoningOptions(effort="low", extra={"thinkingLevel": Raw(b"null")})),
        ({"includeThoughts": True}, ReasoningOptions(summary="auto")),
        (
            {"includeThoughts": False, "x": 1},
            ReasoningOptions(extra={"includeThoughts": Raw(b"false"), "x": Raw(b"1")}),
        ),
        ({}, None),
    ],
)
def test_thinking(config: dict[str, Any], options: ReasoningOptions | None) -> None:
    body = {**HI, "generationConfig": {"thinkingConfig": config}}
    request = decode(body)
    if options is not None and options.extra.keys() == {"includeThoughts", "x"}:
        assert request.reasoning is not None
        assert request.reasoning.extra.keys() == options.extra.keys()
    else:
        assert request.reasoning == options
    assert json.loads(CODEC.encode_request(request, FACTS).body) == body


@pytest.mark.parametrize(
    ("config", "spec"),
    [
        ({"responseMimeType": "text/plain"}, ResponseFormat("text")),
        ({"responseMimeType": "application/json"}, ResponseFormat("json_object")),
        (
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
            ResponseFormat("json_schema", schema=b'{"type": "object"}'),
        ),
        ({"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a"]}}, None),
        ({"responseJsonSchema": {"type": "object"}}, None),
        ({"responseMimeType": "application/json", "responseSchema": 7}, ResponseFormat("json_object")),
    ],
)
def test_response_formats(config: dict[str, Any], spec: ResponseFormat | None) -> None:
    body = {**HI, "generationConfig": config}
    request = decode(body)
    assert request.response_format == spec
    assert json.loads(CODEC.encode_request(request, FACTS).body) == body


@pytest.mark.parametrize(
    "body",
    [
        HI | {"tools": []},
        HI | {"tools": [{}]},
        HI | {"tools": [{"functionDeclarations": []}]},
        HI | {"tools": [{"functionDeclarations": [{"name": "a"}]}, {"functionDeclarations": [{"name": "b"}]}]},
        HI | {"tools": [{"googleSearch": {}}, {"functionDeclarations": [{"name": "b"}]}, {"codeExecution": {}}]},
        HI | {"generationConfig": {}, "toolConfig": {}},
        HI | {"generationConfig": {"stopSequences": [], "x": None}},
        {"contents": []},
        {"contents": [{"role": "model"}, {"role": "user", "parts": []}]},
        {"contents": [{"role": "function", "parts": [{"text": "x"}]}]},
        {"contents": [{"role": "user", "parts": [{}, {"text": "a", "inlineData": {"data": ""}}, {"thoughtSignature": "x"}]}]},
        {"contents": [{"role": "user", "parts": [{"text": "a", "thought": False, "partMetadata": {"a": 1}}]}]},
        {"contents": [{"role": "user", "parts": [{"functionResponse": {"id": "x", "response": {"output": 7}}}]}]},
        {"contents": [{"role": "user", "parts": [{"functionResponse": {"name": "x"}}]}]},
        {"contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "willContinue": True, "partialArgs": []}}]}]},
        {"systemInstruction": {"parts": [{"text": "a"}], "role": "system"}, **HI},
        {"systemInstruction": {"x": 1}, **HI},
    ],
)  # fmt: skip
def test_odd_requests_come_out_again(body: dict[str, Any]) -> None:
    assert json.loads(CODEC.encode_request(decode(body), FACTS).body) == body


@pytest.mark.parametrize(
    ("data", "meant"),
    [
        ("iVBORw0KGgo=", "iVBORw0KGgo="),
        ("iVBORw0KGgo", "iVBORw0KGgo="),
        ("__7-_w==", "//7+/w=="),
        ("__7-_w", "//7+/w=="),
        ("__7-", "//7+"),
        ("", ""),
        ("AAAAA", "AAAAA"),
    ],
)
def test_files_in_letters_for_urls(data: str, meant: str) -> None:
    """How Google's Python SDK writes the bytes of a file; no other API reads them."""
    file = {"inlineData": {"mimeType": "image/png", "data": data}}
    response = {"name": "f", "response": {"output": "x"}, "parts": [file]}
    body = {**HI, "contents": [{"role": "user", "parts": [file, {"functionResponse": response}]}]}
    request = decode(body)
    read, result = request.messages[0].parts
    assert isinstance(read, Media)
    assert read.data == meant
    assert isinstance(result, ToolResult)
    assert result.content[1] == read
    assert json.loads(CODEC.encode_request(request, FACTS).body) == body
    encoded = registry.codec("openai.chat").encode_request(decode({"contents": [{"parts": [file]}]}), FACTS)
    assert json.loads(encoded.body)["messages"][0]["content"][0]["image_url"]["url"] == f"data:image/png;base64,{meant}"
    assert encoded.losses == ()


def test_bytes_as_the_sdk_sends_them() -> None:
    data, sent = b"\x89PNG\xff\xfe\xfb\xff>>>???", []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200, json={"candidates": []})

    part = types.Part.from_bytes(data=data, mime_type="image/png")
    client(answer).models.generate_content(model="m", contents=[part, "what?"])
    assert b"_" in sent[0].partition(b'"data"')[2]
    file = decode(sent[0]).messages[0].parts[0]
    assert isinstance(file, Media)
    assert base64.b64decode(file.data or "", validate=True) == data


def test_a_sketch_is_no_image_of_the_answer() -> None:
    sketch = {"inlineData": {"mimeType": "image/png", "data": "/w=="}, "thought": True}
    body = {"contents": [{"role": "model", "parts": [sketch]}]}
    request = decode(body)
    assert isinstance(request.messages[0].parts[0], Opaque)
    assert json.loads(CODEC.encode_request(request, FACTS).body) == body


@pytest.mark.parametrize(("spelled", "value"), [('"0.5"', 0.5), ('"1"', 1.0), ("0.25", 0.25)])
def test_numbers_as_strings(spelled: str, value: float) -> None:
    body = b'{"contents":[],"generationConfig":{"temperature":%b,"maxOutputTokens":"12"}}' % spelled.encode()
    request = decode(body)
    assert (request.temperature, request.max_output_tokens) == (value, 12)


def test_an_instruction_with_a_role_loses_nothing() -> None:
    """Google's SDKs give the instruction the role of a user, which means nothing."""
    body = {"systemInstruction": {"role": "user", "parts": [{"text": "Be terse."}]}, **HI}
    request = decode(body)
    assert json.loads(CODEC.encode_request(request, FACTS).body) == body
    for format in ("openai.chat", "openai.responses", "anthropic.messages", "ollama.chat"):
        losses = registry.codec(format).encode_request(request, FACTS).losses
        assert [loss.path for loss in losses if loss.kind == "lost"] == [], format


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "contents"),
        ({"contents": 7}, "contents"),
        ({"contents": [7]}, "contents[0]"),
        ({"contents": [{"role": "system", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"role": 7}]}, "contents[0].role"),
        ({"contents": [{"parts": [7]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"text": 7}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "x"}}]}]}, "contents[0].parts[0].inlineData.data"),
        ({"contents": [{"parts": [{"fileData": {}}]}]}, "contents[0].parts[0].fileData.fileUri"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "contents[0].parts[0].functionCall.name"),
        ({"contents": [{"parts": [{"functionCall": {"name": "f", "args": 7}}]}]}, "contents[0].parts[0].functionCall.args"),
        ({"contents": [{"parts": [{"functionResponse": {"response": 7}}]}]}, "contents[0].parts[0].functionResponse.response"),
        (HI | {"systemInstruction": "s"}, "systemInstruction"),
        (HI | {"tools": 7}, "tools"),
        (HI | {"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
        (HI | {"tools": [{"functionDeclarations": [{"name": "f", "parameters": 7}]}]},
         "tools[0].functionDeclarations[0].parameters"),
        (HI | {"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        (HI | {"generationConfig": {"temperature": "NaN"}}, "generationConfig.temperature"),
        (HI | {"generationConfig": {"topK": 1.5}}, "generationConfig.topK"),
        (HI | {"generationConfig": {"seed": "x"}}, "generationConfig.seed"),
        (HI | {"generationConfig": {"stopSequences": "x"}}, "generationConfig.stopSequences"),
        (HI | {"toolConfig": {"functionCallingConfig": 7}}, "toolConfig.functionCallingConfig"),
        (HI | {"labels": {"a": 7}}, "labels"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(body: dict[str, Any], path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert caught.value.path == path


# -- requests of others


def test_a_chat_request() -> None:
    tool = {"type": "function", "function": {"name": "look", "description": "d", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1.0}'}}
    body, encoded = foreign(
        "openai.chat",
        chat(
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": "b", "tool_calls": [call, {**call, "id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": "two"},
            {"role": "user", "content": "c"},
            tools=[tool],
            tool_choice="required",
            max_tokens=9,
            temperature=0.5,
            top_p=0.25,
            stop=["x"],
            seed=3,
            n=2,
            logprobs=True,
            top_logprobs=2,
            stream=True,
        ),
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "tools": [
            {"functionDeclarations": [{"name": "look", "description": "d", "parametersJsonSchema": {"type": "object"}}]}
        ],
        "contents": [
            {"role": "user", "parts": [{"text": "a"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "b"},
                    {"functionCall": {"name": "look", "id": "c1", "args": {"at": 1.0}}},
                    {"functionCall": {"name": "look", "id": "c2", "args": {"at": 1.0}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "look", "id": "c1", "response": {"output": "one"}}},
                    {"functionResponse": {"name": "look", "id": "c2", "response": {"output": "two"}}},
                    {"text": "c"},
                ],
            },
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.25,
            "candidateCount": 2,
            "maxOutputTokens": 9,
            "seed": 3,
            "responseLogprobs": True,
            "logprobs": 2,
            "stopSequences": ["x"],
        },
    }
    assert b'{"at": 1.0}' in encoded.body
    assert encoded.path == "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"
    assert encoded.losses == ()


def test_a_messages_request() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    told = [{"type": "text", "text": "no"}, image]
    result = {"type": "tool_result", "tool_use_id": "t1", "is_error": True, "content": told}
    body, encoded = foreign(
        "anthropic.messages",
        {
            "max_tokens": 9,
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [image, document]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "S"}, use]},
                {"role": "user", "content": [{"type": "text", "text": "first"}, result]},
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "tool", "name": "f"},
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "top_k": 4,
        },
    )
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
        {"inlineData": {"mimeType": "text/plain", "data": "eA=="}},
    ]
    assert body["contents"][1]["parts"] == [{"functionCall": {"name": "f", "id": "t1", "args": {}}}]
    assert body["contents"][2]["parts"] == [
        {
            "functionResponse": {
                "name": "f",
                "id": "t1",
                "response": {"error": "no"},
                "parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}],
            }
        },
        {"text": "first"},
    ]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}
    assert body["generationConfig"]["thinkingConfig"] == {"includeThoughts": True, "thinkingBudget": 2000}
    assert body["generationConfig"]["topK"] == 4
    assert losses(encoded) == [("lost", "system[0].cache_control"), ("lost", "messages[1].content[0]")]


@pytest.mark.parametrize(
    ("model", "more", "thinking", "kinds"),
    [
        ("gemini-3-pro", {"reasoning_effort": "low"}, {"thinkingLevel": "LOW"}, []),
        ("gemini-3-pro", {"reasoning_effort": "xhigh"}, {"thinkingLevel": "HIGH"}, ["emulated"]),
        ("gemini-3-pro", {"reasoning_effort": "none"}, {"thinkingBudget": 0}, []),
        ("gemini-2.5-pro", {"reasoning_effort": "medium"}, {"thinkingBudget": 8192}, ["emulated"]),
        ("gemini-2.5-pro", {"reasoning_effort": "odd"}, None, ["lost"]),
        ("gemini-3-pro", {"reasoning_effort": "odd"}, None, ["lost"]),
    ],
)
def test_efforts_of_others(model: str, more: dict[str, Any], thinking: dict[str, Any] | None, kinds: list[str]) -> None:
    body, encoded = foreign("openai.chat", chat(**more), model)
    assert body.get("generationConfig", {}).get("thinkingConfig") == thinking
    assert [loss.kind for loss in encoded.losses] == kinds


def test_the_profile_says_how_effort_is_told() -> None:
    body, _ = foreign("openai.chat", chat(reasoning_effort="low"), "mine", thinking="budget")
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 1024}
    body, _ = foreign("openai.chat", chat(reasoning_effort="low"), "gemini-2.5-pro", thinking="level")
    assert body["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "LOW"}


CALLS = [{"id": c, "type": "function", "function": {"name": "f", "arguments": "{}"}} for c in "ab"]
TURN = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "a", "content": "1"},
    {"role": "tool", "tool_call_id": "b", "content": "2"},
    {"role": "assistant", "content": None, "tool_calls": [{**CALLS[0], "id": "c"}]},
]


def test_signatures_are_never_made_up() -> None:
    _, encoded = foreign("openai.chat", chat(*TURN))
    assert b"thoughtSignature" not in encoded.body


def test_the_stand_in_for_signatures_is_the_profiles_to_ask_for() -> None:
    body, encoded = foreign("openai.chat", chat(*TURN), unsigned_calls="skip")
    signs = [[part.get("thoughtSignature") for part in turn["parts"]] for turn in body["contents"]]
    assert signs == [
        [None],
        ["skip_thought_signature_validator", None],
        [None, None],
        ["skip_thought_signature_validator"],
    ]
    assert [loss.kind for loss in encoded.losses] == ["minted", "minted"]


def test_signatures_as_googles_own_translation_spells_them() -> None:
    signed = {**CALLS[0], "extra_content": {"google": {"thought_signature": "A/+="}}}
    turn = {"role": "assistant", "content": None, "tool_calls": [signed, CALLS[1]]}
    body, encoded = foreign("openai.chat", chat(turn), unsigned_calls="skip")
    parts = body["contents"][0]["parts"]
    assert parts[0]["thoughtSignature"] == "A/+="
    assert "thoughtSignature" not in parts[1]
    assert encoded.losses == ()
    odd = {**CALLS[0], "extra_content": {"google": 7}}
    _, encoded = foreign("openai.chat", chat({"role": "assistant", "content": None, "tool_calls": [odd]}))
    assert [loss.kind for loss in encoded.losses] == ["lost"]


def written(*parts: Any, role: Any = "user", **more: Any) -> tuple[Any, Encoded]:
    """A request of nowhere with these parts."""
    encoded = CODEC.encode_request(Request("elsewhere", "m", (Message(role, parts),), **more), FACTS)
    return json.loads(encoded.body)["contents"][0]["parts"], encoded


@pytest.mark.parametrize(
    ("part", "expected", "noted"),
    [
        (Refusal("no"), {"text": "no"}, ["emulated"]),
        (Media("image", uri="https://a.example/p.png?x=1"),
         {"fileData": {"mimeType": "image/png", "fileUri": "https://a.example/p.png?x=1"}}, ["minted"]),
        (Media("image", uri="https://a.example/p"), {"fileData": {"fileUri": "https://a.example/p"}}, []),
        (Media("image", uri="data:image/gif;base64,R0lGOD"), {"inlineData": {"mimeType": "image/gif", "data": "R0lGOD"}}, []),
        (Media("image", data="/9j/4"), {"inlineData": {"mimeType": "image/jpeg", "data": "/9j/4"}}, ["minted"]),
        (Media("document", "application/pdf", data="x", name="n"),
         {"inlineData": {"mimeType": "application/pdf", "data": "x"}}, ["lost"]),
        (Media("image", "image/png", data="x", detail="low"), {"inlineData": {"mimeType": "image/png", "data": "x"}}, ["lost"]),
        (ToolResult("a b", (Text("1"), Text("2"))),
         {"functionResponse": {"name": "a_b", "id": "a b", "response": {"output": "1\n2"}}}, ["minted", "emulated"]),
        (ToolResult("c", name="f"), {"functionResponse": {"name": "f", "id": "c", "response": {"output": ""}}}, []),
    ],
)  # fmt: skip
def test_parts_of_others(part: Any, expected: dict[str, Any], noted: list[str]) -> None:
    parts, encoded = written(part)
    assert parts == [expected]
    assert [loss.kind for loss in encoded.losses] == noted


@pytest.mark.parametrize(
    "part",
    [
        Media("image", uri="data:image/svg+xml,<svg/>"),
        Media("document", file_id="file-1"),
        Media("audio", data="????"),
        Opaque("elsewhere", "block", b"{}"),
        ToolResult("c", server="web"),
    ],
)
def test_a_turn_of_which_nothing_is_left_is_refused(part: Any) -> None:
    with pytest.raises(Unsupported):
        written(part)
    parts, encoded = written(Text("x"), part)
    assert parts == [{"text": "x"}]
    assert [loss.kind for loss in encoded.losses] == ["lost"]


def test_calls_of_others() -> None:
    parts, encoded = written(
        ToolCall("c", "f", "free text", kind="custom"), ToolCall("s", "web", server="web"), role="assistant"
    )
    assert parts == [{"functionCall": {"name": "f", "id": "c", "args": {"input": "free text"}}}]
    assert [loss.kind for loss in encoded.losses] == ["emulated", "lost"]
    with pytest.raises(DecodeError, match="arguments"):
        written(ToolCall("c", "f", "[1]"), role="assistant")


def test_settings_that_have_no_place() -> None:
    more = {
        "user": "u",
        "verbosity": "low",
        "logit_bias": b'{"1":2}',
        "parallel_tool_calls": False,
        "service_tier": "odd",
    }
    _, encoded = written(Text("x"), **more, metadata={"A": "b"}, stop=tuple("abcdef"))
    assert {loss.path for loss in encoded.losses} == {*more, "metadata", "stop[5]"}
    _, encoded = written(
        Text("x"), parallel_tool_calls=True, logit_bias=b"{}", service_tier="auto", metadata={"a": "b"}
    )
    assert encoded.losses == ()
    assert json.loads(encoded.body)["labels"] == {"a": "b"}


@pytest.mark.parametrize(
    ("choice", "config", "noted"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}, []),
        (ToolChoice("none"), {"mode": "NONE"}, []),
        (ToolChoice("allowed", ("f",)), {"mode": "VALIDATED", "allowedFunctionNames": ["f"]}, ["emulated"]),
        (ToolChoice("allowed", ("f", "g"), required=True), {"mode": "ANY", "allowedFunctionNames": ["f", "g"]}, []),
        (ToolChoice("tool", ("c",), kind="custom"), None, ["lost"]),
    ],
)
def test_choices_of_others(choice: ToolChoice, config: dict[str, Any] | None, noted: list[str]) -> None:
    _, encoded = written(Text("x"), tools=(Tool("f", b"{}"), Tool("g", b"{}")), tool_choice=choice)
    assert json.loads(encoded.body).get("toolConfig", {}).get("functionCallingConfig") == config
    assert [loss.kind for loss in encoded.losses] == noted


def test_instructions_stand_first_or_in_their_place() -> None:
    system = Message("system", (Text("a"),))
    later = Message("developer", (Text("b"),))
    user = Message("user", (Text("u"),))
    body = json.loads(CODEC.encode_request(Request("x", "m", (system, system, user, later, user)), FACTS).body)
    assert body["systemInstruction"] == {"parts": [{"text": "a"}, {"text": "a"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "u"}, {"text": "b"}, {"text": "u"}]}]
    alone = json.loads(CODEC.encode_request(Request("x", "m", (system, later)), FACTS).body)
    assert alone["contents"] == [{"role": "user", "parts": [{"text": "b"}]}]


# -- the ledger, in the caller's words


@pytest.mark.parametrize(
    ("body", "noted"),
    [
        (HI | {"generationConfig": {"topK": 4}}, [("lost", "generationConfig.topK")]),
        (HI | {"generationConfig": {"speechConfig": {"a": 1}}}, [("lost", "generationConfig.speechConfig")]),
        (HI | {"safetySettings": [{"category": "x"}]}, [("lost", "safetySettings")]),
        (HI | {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}},
         [("lost", "generationConfig.thinkingConfig.includeThoughts")]),
        (HI | {"tools": [{"googleSearch": {}}, {"functionDeclarations": [{"name": "f", "behavior": "B"}]}]},
         [("lost", "tools[0].googleSearch"), ("lost", "tools[1].functionDeclarations[0].behavior")]),
        (HI | {"toolConfig": {"retrievalConfig": {"a": 1}}}, [("lost", "toolConfig.retrievalConfig")]),
        ({"systemInstruction": {"parts": [{"text": "s", "x": 1}]},
          "contents": [{"role": "user", "parts": [{"text": "u", "y": 2}, {"executableCode": {}}]}]},
         [("lost", "systemInstruction.parts[0].x"), ("lost", "contents[0].parts[0].y"), ("lost", "contents[0].parts[1]")]),
    ],
)  # fmt: skip
def test_the_ledger_speaks_as_the_caller_does(body: dict[str, Any], noted: list[tuple[str, str]]) -> None:
    encoded = registry.codec("openai.chat").encode_request(decode(body), FACTS)
    assert [(loss.kind, loss.path) for loss in encoded.losses if loss.kind == "lost"] == noted


# -- the SDK


def test_the_sdks_requests_are_read() -> None:
    heard: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        return httpx.Response(
            200, json={"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]}
        )

    def look(at: str) -> str:
        """Look somewhere."""
        return at

    client(answer).models.generate_content(
        model="gemini-3-pro",
        contents=[
            types.Content(
                role="user", parts=[types.Part.from_bytes(data=b"x", mime_type="image/png"), types.Part(text="a")]
            ),
            types.Content(
                role="model",
                parts=[
                    types.Part(
                        function_call=types.FunctionCall(name="look", args={"at": "x"}), thought_signature=b"\x00\xff"
                    )
                ],
            ),
            types.Content(
                role="user",
                parts=[types.Part(function_response=types.FunctionResponse(name="look", response={"output": "y"}))],
            ),
        ],
        config=types.GenerateContentConfig(
            system_instruction="s",
            temperature=0.5,
            top_k=4,
            max_output_tokens=9,
            tools=[look],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            tool_config=types.ToolConfig(
                function_calling_config=types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY)
            ),
            thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.LOW, include_thoughts=True),
            response_mime_type="application/json",
            response_schema={"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
        ),
    )
    facts = RequestFacts(heard[0].url.path, dict(heard[0].url.params), dict(heard[0].headers))
    body = heard[0].content
    assert CODEC.peek(body, facts).model == "gemini-3-pro"
    request = decode(body, facts)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert (request.temperature, request.top_k, request.max_output_tokens) == (0.5, 4, 9)
    assert request.tools[0].name == "look"
    assert json.loads(request.tools[0].schema)["properties"]["at"]["type"] == "string"
    assert request.tool_choice == ToolChoice("required")
    assert request.reasoning is not None
    assert (request.reasoning.effort, request.reasoning.summary) == ("low", "auto")
    assert request.response_format is not None
    call, result = request.messages[2].parts[0], request.messages[3].parts[0]
    assert isinstance(call, ToolCall) and isinstance(result, ToolResult)
    assert call.id == result.id
    assert json.loads(bytes(call.extra["thoughtSignature"])) == "AP8="


@pytest.mark.parametrize("name", ["generationConfig", "toolConfig"])
def test_an_empty_object_of_settings_is_no_loss(name: str) -> None:
    request = decode({"contents": [{"role": "user", "parts": [{"text": "a"}]}], name: {}})
    encoded = registry.codec("openai.chat").encode_request(request, FACTS)
    assert [loss.path for loss in encoded.losses] == []
