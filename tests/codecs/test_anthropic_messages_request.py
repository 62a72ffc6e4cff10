"""Requests of anthropic.messages: what comes in goes out again, and what other formats say comes out as this API wants it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from headgate.gateway.codecs.anthropic_messages import CODEC
from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from headgate.gateway.errors import CallerError, DecodeError, Unsupported
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
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

CORPUS = Path(__file__).parent.parent / "corpus" / "anthropic_messages" / "requests"
OWN = "anthropic.messages"
OTHER = "openai.chat"


def read(name: str) -> bytes:
    return (CORPUS / f"{name}.json").read_bytes().split(b"\n", 1)[1]


def decode(body: bytes | dict[str, object]) -> Request:
    return CODEC.decode_request(body if isinstance(body, bytes) else json.dumps(body).encode(), RequestFacts())


def encode(request: Request, **facts: object) -> tuple[dict[str, object], tuple[Loss, ...], Mapping[str, str]]:
    encoded = CODEC.encode_request(request, UpstreamFacts(**facts))  # type: ignore[arg-type]
    return json.loads(encoded.body), encoded.losses, encoded.headers


def foreign(*messages: Message, **fields: object) -> Request:
    fields.setdefault("max_output_tokens", 10)
    return Request(OTHER, "m", messages, **fields)  # type: ignore[arg-type]


def user(*parts: Part | str) -> Message:
    return Message("user", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def kinds(losses: tuple[Loss, ...]) -> list[tuple[str, str, str]]:
    return [(loss.kind, loss.path, loss.what) for loss in losses]


NAMES = sorted(path.stem for path in CORPUS.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_own_request_comes_out_again(name: str) -> None:
    body = read(name)
    written, losses, _ = encode(decode(body))
    assert written == json.loads(body)
    assert losses == ()
    once = CODEC.encode_request(decode(body), UpstreamFacts()).body
    assert decode(once) == decode(body)
    assert CODEC.encode_request(decode(once), UpstreamFacts()).body == once


@pytest.mark.parametrize(
    "verbatim",
    [
        b'{"command": "ls",  "timeout":1.0, "z":1e2}',
        b'{"type":"object","properties":{"n":{"type":"number","default":1.0},"cache_control":{"type":"string"}}, '
        b'"required": []}',
    ],
)
def test_arguments_and_schemas_keep_their_bytes(verbatim: bytes) -> None:
    body = read("agent")
    assert verbatim in body
    assert verbatim in CODEC.encode_request(decode(body), UpstreamFacts()).body


def test_unknown_members_keep_their_bytes() -> None:
    spelled = b'{ "a" : 1.0,"b":[1e3 , "\\u0041"] }'
    block = b'{"type":"text","text":"t","zz":%b}' % spelled
    body = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[%b],"yy":%b}],"xx":%b}'
    written = CODEC.encode_request(decode(body % (block, spelled, spelled)), UpstreamFacts()).body
    assert written.count(spelled) == 3


def test_words_of_the_ir() -> None:
    request = decode(read("agent"))
    assert request.messages[0].role == "system"
    assert request.messages[0].parts[1] == Text("You are an agent.", cache=CacheMark())
    assert isinstance(scoped := request.messages[0].parts[2], Text)
    assert scoped.cache == CacheMark("1h", {"scope": Raw(b'"global"')})
    assert [message.role for message in request.messages[1:4]] == ["user", "system", "assistant"]
    thinking, redacted, _, call = request.messages[3].parts
    assert thinking == Reasoning("hm", "EqQB==", origin=OWN)
    assert redacted == Reasoning(redacted="Emw=", origin=OWN)
    assert isinstance(call, ToolCall) and call.arguments == '{"command": "ls",  "timeout":1.0, "z":1e2}'
    result = request.messages[4].parts[0]
    assert isinstance(result, ToolResult) and result.brief and result.content == (Text("a.py"),)
    assert [tool.kind for tool in request.tools] == [
        "function",
        "function",
        "web_search_20260318",
        "browser_toolset_20260801",
    ]
    assert request.tools[0].strict is True
    assert request.tools[1].extra == {"type": Raw(b"null")}  # "custom" spelled out: nothing that another format misses
    assert request.tool_choice == ToolChoice("required") and request.parallel_tool_calls is False
    assert request.reasoning == ReasoningOptions("enabled", budget_tokens=31999)
    assert request.user == '{"device_id":"d"}'
    assert set(request.extra) == {"context_management", "betas_unknown"}


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        [{"type": "text", "text": "x", "citations": []}],
    ],
)
def test_a_search_result_that_says_more_than_a_document_is_kept_whole(content: list[object]) -> None:
    block = {"type": "search_result", "source": "https://e.com", "title": "t", "content": content}
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [block]}]}
    request = decode(json.dumps(body).encode())
    assert [type(part) for part in request.messages[0].parts] == [Opaque]
    assert encode(request)[0]["messages"] == body["messages"]


def test_documents_in_the_ir() -> None:
    request = decode(read("documents"))
    parts = request.messages[1].parts
    assert [(p.kind, p.media_type, p.data, p.uri, p.file_id, p.text) for p in parts if isinstance(p, Media)] == [
        ("image", "image/png", "iVBORw0KGgo=", None, None, None),
        ("image", None, None, "https://example.com/a.png", None, None),
        ("image", None, None, None, "file_1", None),
        ("document", "application/pdf", "JVBERi0=", None, None, None),
        ("document", "text/plain", None, None, None, "plain"),
        ("document", None, None, "https://example.com/a.pdf", None, None),
        ("document", None, None, None, "file_2", None),
        ("document", "text/plain", None, None, None, "t\nhttps://e.com\nx"),
    ]
    assert [p.kind for p in parts if isinstance(p, Opaque)] == ["image", "document", "container_upload"]
    answer = request.messages[2].parts
    assert isinstance(answer[0], Text)
    assert (answer[0].citations[0].kind, answer[0].citations[0].title) == ("page_location", "Paper")
    assert [p.server for p in answer if isinstance(p, ToolCall)][:2] == ["server_tool_use", "mcp_tool_use"]
    assert isinstance(answer[5], Opaque) and answer[5].cache == CacheMark()
    assert request.response_format == ResponseFormat("json_schema", schema=b'{\n    "type": "object"\n   }')
    assert request.reasoning == ReasoningOptions("adaptive", "high", extra={"display": Raw(b'"omitted"')})
    assert request.parallel_tool_calls is True
    assert request.cache == CacheMark("5m")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"[]", ""),
        (b"{", ""),
        (b'{"messages":[]}', "model"),
        (b'{"model":1,"messages":[]}', "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":{}}', "messages"),
        (b'{"model":"m","messages":[3]}', "messages[0]"),
        (b'{"model":"m","messages":[{"content":"a"}]}', "messages[0].role"),
        (b'{"model":"m","messages":[{"role":"tool","content":"a"}]}', "messages[0].role"),
        (b'{"model":"m","messages":[{"role":"user"}]}', "messages[0].content"),
        (b'{"model":"m","messages":[{"role":"user","content":3}]}', "messages[0].content"),
        (b'{"model":"m","messages":[{"role":"user","content":["a"]}]}', "messages[0].content[0]"),
        (b'{"model":"m","messages":[{"role":"user","content":[{"text":"a"}]}]}', "messages[0].content[0].type"),
        (b'{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}', "messages[0].content[0].text"),
        (
            b'{"model":"m","messages":[{"role":"user","content":[{"type":"tool_use","id":"a","name":"f","input":3}]}]}',
            "messages[0].content[0].input",
        ),
        (
            b'{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"url"}}]}]}',
            "messages[0].content[0].source.url",
        ),
        (
            b'{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a",'
            b'"content":[{"type":"text","text":3}]}]}]}',
            "messages[0].content[0].content[0].text",
        ),
        (
            b'{"model":"m","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a",'
            b'"content":[{"type":"tool_result","tool_use_id":"b"}]}]}]}',
            "messages[0].content[0].content[0].type",
        ),
        (b'{"model":"m","messages":[],"max_tokens":"9"}', "max_tokens"),
        (b'{"model":"m","messages":[],"temperature":"9"}', "temperature"),
        (b'{"model":"m","messages":[],"stream":"yes"}', "stream"),
        (b'{"model":"m","messages":[],"stop_sequences":"a"}', "stop_sequences"),
        (b'{"model":"m","messages":[],"tools":[{"name":"f"}]}', "tools[0].input_schema"),
        (b'{"model":"m","messages":[],"tool_choice":"auto"}', "tool_choice"),
        (b'{"model":"m","messages":[],"thinking":{"type":"enabled","budget_tokens":1.5}}', "thinking.budget_tokens"),
        (b'{"model":"m","messages":[],"system":[{"type":"text","text":3}]}', "system[0].text"),
        (b'{"model":"m","messages":[],"cache_control":{"ttl":5}}', "cache_control.ttl"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert caught.value.path == path


@pytest.mark.parametrize("deep", [b'{"model":"m","x":' + b"[" * 100_000, b'{"model":"m","messages":[' + b"[" * 100_000])
def test_depth_bombs_are_the_callers_fault(deep: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(deep)
    with pytest.raises(DecodeError):
        CODEC.peek(deep, RequestFacts())


def test_peek() -> None:
    peek = CODEC.peek(read("agent"), RequestFacts())
    assert (peek.model, peek.stream, peek.stream_usage) == ("claude-sonnet-4-5", True, None)
    assert peek.tools is not None and peek.metadata is not None
    for body, path in (
        (b"{}", "model"),
        (b'{"model":3}', "model"),
        (b'{"model":"m","stream":3}', "stream"),
        (b"x", ""),
    ):
        with pytest.raises(DecodeError) as caught:
            CODEC.peek(body, RequestFacts())
        assert caught.value.path == path


def test_patch_changes_the_model_alone() -> None:
    body = read("agent")
    peek = CODEC.peek(body, RequestFacts())
    patched = CODEC.patch_request(body, peek, model="claude-x", stream_usage=True)
    assert patched == body.replace(b'"claude-sonnet-4-5"', b'"claude-x"', 1)
    assert CODEC.patch_request(body, peek, model=None, stream_usage=True) is body
    assert CODEC.patch_request(body, peek, model=peek.model, stream_usage=False) is body


@pytest.mark.parametrize(
    ("request_", "facts", "headers"),
    [
        (decode(read("simple")), {}, {"anthropic-version": "2023-06-01"}),
        (
            decode(read("simple")),
            {"headers": {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "x-app": "cli"}},
            {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b"},
        ),
        (foreign(user("a")), {"headers": {"anthropic-version": "x"}}, {"anthropic-version": "2023-06-01"}),
        (
            foreign(user("a")),
            {"options": {"anthropic_version": "2026-10-21"}},
            {"anthropic-version": "2026-10-21"},
        ),
        (
            foreign(user("a"), temperature=1.0),
            {"options": {"anthropic_version": "2026-10-21"}},
            {"anthropic-version": "2023-06-01"},
        ),
    ],
)
def test_version_headers(request_: Request, facts: dict[str, object], headers: dict[str, str]) -> None:
    assert encode(request_, **facts)[2] == headers


def test_a_foreign_conversation() -> None:
    request = foreign(
        Message("system", (Text("S"),), brief=True),
        Message("developer", (Text("D", cache=CacheMark("1h")),)),
        user("hi"),
        Message("assistant", (Text("ok"), ToolCall("call.1", "f", '{"a": 1.0}'), ToolCall("call_2", "g", ""))),
        Message("tool", (ToolResult("call.1", (Text("r1"),)),)),
        Message("tool", (ToolResult("call_2", (Text("r2"), Text("r3")), is_error=True),)),
        user("and?"),
        Message("developer", (Text("mid"),)),
        Message("assistant", (Refusal("no"),)),
    )
    body, losses, _ = encode(request)
    renamed = body["messages"][1]["content"][1]["id"]  # type: ignore[index]
    assert isinstance(renamed, str) and renamed.startswith("toolu_") and renamed.replace("_", "").isalnum()
    assert body == {
        "model": "m",
        "system": [
            {"type": "text", "text": "S"},
            {"type": "text", "text": "D", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "ok"},
                    {"type": "tool_use", "id": renamed, "name": "f", "input": {"a": 1.0}},
                    {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": renamed, "content": "r1"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "call_2",
                        "content": [{"type": "text", "text": "r2"}, {"type": "text", "text": "r3"}],
                        "is_error": True,
                    },
                    {"type": "text", "text": "and?"},
                    {"type": "text", "text": "mid"},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
        ],
        "max_tokens": 10,
    }
    assert kinds(losses) == [
        ("minted", "messages[3].tool_calls[0].id", "id"),
        ("minted", "messages[3].tool_calls[1].function.arguments", "input"),
        ("minted", "messages[4].tool_call_id", "id"),
        ("emulated", "messages[7]", "developer message"),
        ("emulated", "messages[8].content[0]", "refusal"),
    ]


def test_a_system_message_stays_where_it_stands() -> None:
    request = foreign(user("a"), Message("system", (Text("s"),)), user("b"), Message("assistant", (Text("c"),)))
    body, losses, _ = encode(request, options={"system_in_messages": True})
    assert [m["role"] for m in body["messages"]] == ["user", "system", "user", "assistant"]  # type: ignore[attr-defined]
    assert losses == ()
    late = foreign(user("a"), Message("assistant", (Text("c"),)), Message("system", (Text("s"),)))
    body, losses, _ = encode(late, options={"system_in_messages": True})
    assert body["messages"][2]["role"] == "user"  # type: ignore[index]
    assert kinds(losses) == [("emulated", "messages[2]", "system message")]


def test_nothing_but_instructions_asks_with_the_last() -> None:
    body, losses, _ = encode(foreign(Message("system", (Text("a"),)), Message("system", (Text("b"),))))
    assert body["system"] == "a"
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "b"}]}]
    assert kinds(losses) == [("emulated", "messages[1]", "system message")]


def test_tool_results_stand_first_in_their_turn() -> None:
    request = foreign(
        user("q"),
        Message("assistant", (ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))),
        Message("developer", (Text("note"),)),
        Message("tool", (ToolResult("a"),)),
        user("x"),
        Message("tool", (ToolResult("b"),)),
    )
    content = encode(request)[0]["messages"][2]["content"]  # type: ignore[index]
    assert [block.get("tool_use_id") or block["text"] for block in content] == ["a", "b", "note", "x"]


PNG = "iVBORw0KGgoAAAANSUhEUg=="


@pytest.mark.parametrize(
    ("part", "block", "loss"),
    [
        (Media("image", "image/png", data=PNG), {"type": "base64", "media_type": "image/png", "data": PNG}, None),
        (Media("image", data=PNG), {"type": "base64", "media_type": "image/png", "data": PNG}, "minted"),
        (
            Media("image", uri=f"data:image/png;base64,{PNG}"),
            {"type": "base64", "media_type": "image/png", "data": PNG},
            None,
        ),
        (Media("image", uri="https://e.com/a", detail="auto"), {"type": "url", "url": "https://e.com/a"}, None),
        (Media("image", uri="https://e.com/a", detail="high"), {"type": "url", "url": "https://e.com/a"}, "lost"),
        (
            Media("document", data="JVBERi0="),
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "minted",
        ),
        (
            Media("document", "text/markdown", data="IyBo"),
            {"type": "text", "media_type": "text/plain", "data": "# h"},
            "emulated",
        ),
        (Media("document", text="t"), {"type": "text", "media_type": "text/plain", "data": "t"}, None),
        (Media("document", file_id="file-1"), None, "lost"),
        (Media("document", "application/msword", data="aaaa"), None, "lost"),
        (Media("document", "text/plain", data="/w=="), None, "lost"),
        (Media("image", "image/png", uri="ftp+data:"), {"type": "url", "url": "ftp+data:"}, "emulated"),
        (Media("audio", "audio/wav", data="aaaa"), None, "lost"),
        (Media("video", uri="https://e.com/v"), None, "lost"),
    ],
)
def test_foreign_media(part: Media, block: dict[str, object] | None, loss: str | None) -> None:
    body, losses, _ = encode(foreign(user("look", part)))
    content = body["messages"][0]["content"]  # type: ignore[index]
    assert content[1:] == ([] if block is None else [{"type": part.kind, "source": block}])
    assert [entry.kind for entry in losses] == ([] if loss is None else [loss])
    if block is None:
        with pytest.raises(Unsupported) as caught:
            encode(foreign(user("a"), user(part)))
        assert caught.value.param == "messages[1].content[0]"


@pytest.mark.parametrize(
    ("fields", "written", "losses"),
    [
        ({}, {}, []),
        ({"n": 1, "logprobs": False, "presence_penalty": 0.0, "logit_bias": b"{}"}, {}, []),
        (
            {"n": 2, "seed": 1, "logprobs": True, "frequency_penalty": 0.5, "logit_bias": b'{"1":2}'},
            {},
            ["lost seed", "lost n", "lost frequency_penalty", "lost logit_bias", "lost logprobs"],
        ),
        ({"stop": ("a", "\n")}, {"stop_sequences": ["a"]}, ["lost stop"]),
        ({"temperature": 0.5, "top_p": 0.5, "top_k": 3}, {"temperature": 0.5, "top_p": 0.5, "top_k": 3}, []),
        ({"user": "u", "metadata": {"a": "b"}}, {"metadata": {"user_id": "u"}}, ["lost metadata"]),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}, ["emulated default"]),
        ({"service_tier": "auto"}, {"service_tier": "auto"}, []),
        ({"service_tier": "flex"}, {}, ["lost service_tier"]),
        ({"stream": True, "stream_usage": True}, {"stream": True}, []),
        ({"verbosity": "low"}, {}, ["lost verbosity"]),
        ({"response_format": ResponseFormat("text")}, {}, []),
        ({"response_format": ResponseFormat("json_object")}, {}, ["lost json_object"]),
        (
            {"response_format": ResponseFormat("json_schema", "r", b'{"a":1.0}', strict=True)},
            {"output_config": {"format": {"type": "json_schema", "schema": {"a": 1.0}}}},
            ["emulated name"],
        ),
        ({"reasoning": ReasoningOptions(effort="high")}, {"output_config": {"effort": "high"}}, []),
        ({"reasoning": ReasoningOptions(effort="minimal")}, {"output_config": {"effort": "low"}}, ["emulated minimal"]),
        ({"reasoning": ReasoningOptions(effort="none")}, {"thinking": {"type": "disabled"}}, []),
        ({"reasoning": ReasoningOptions(effort="huge")}, {}, ["lost huge"]),
        ({"reasoning": ReasoningOptions(summary="auto")}, {}, ["lost summary"]),
        ({"reasoning": ReasoningOptions("disabled")}, {"thinking": {"type": "disabled"}}, []),
        ({"reasoning": ReasoningOptions("enabled")}, {}, ["lost enabled"]),
        (
            {"reasoning": ReasoningOptions("adaptive", summary="auto")},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            [],
        ),
        (
            {"reasoning": ReasoningOptions(budget_tokens=100), "max_output_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            ["emulated budget_tokens"],
        ),
        ({"tool_choice": ToolChoice("required")}, {}, ["lost tool_choice"]),
        ({"parallel_tool_calls": False}, {}, []),
        ({"extra": {"store": Raw(b"true"), "nil": Raw(b"null"), "no": Raw(b"false")}}, {}, ["lost store"]),
    ],
)
def test_foreign_settings(fields: dict[str, object], written: dict[str, object], losses: list[str]) -> None:
    body, noted, _ = encode(foreign(user("a"), **fields))
    for name in ("model", "messages", "max_tokens"):
        del body[name]
    assert body == written
    assert [f"{loss.kind} {loss.what}" for loss in noted] == losses


def test_reasoning_by_profile() -> None:
    request = foreign(user("a"), reasoning=ReasoningOptions(effort="high", summary="auto"))
    body, losses, _ = encode(request, options={"thinking": "adaptive"})
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "high"} and losses == ()
    body, losses, _ = encode(request, options={"effort": False})
    assert "output_config" not in body and "thinking" not in body
    assert [loss.what for loss in losses] == ["high", "summary"]


def test_max_tokens_come_from_the_profile() -> None:
    body, losses, _ = encode(foreign(user("a"), max_output_tokens=None), max_output_tokens=77)
    assert body["max_tokens"] == 77
    assert kinds(losses) == [("minted", "max_tokens", "max_tokens")]


F = Tool("f", b'{"type":"object"}', "d", strict=True)


@pytest.mark.parametrize(
    ("choice", "parallel", "written", "names"),
    [
        (None, None, None, ["f", "g"]),
        (None, True, None, ["f", "g"]),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}, ["f", "g"]),
        (ToolChoice("auto"), None, {"type": "auto"}, ["f", "g"]),
        (ToolChoice("none"), False, {"type": "none"}, ["f", "g"]),
        (ToolChoice("required"), None, {"type": "any"}, ["f", "g"]),
        (
            ToolChoice("tool", ("f",)),
            False,
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            ["f", "g"],
        ),
        (ToolChoice("tool", ("c",), "custom"), None, None, ["f", "g"]),
        (ToolChoice("allowed", ("g",)), None, {"type": "auto"}, ["g"]),
        (ToolChoice("allowed", ("g",), required=True), None, {"type": "any"}, ["g"]),
    ],
)
def test_tools(choice: ToolChoice | None, parallel: bool | None, written: object, names: list[str]) -> None:
    tools = (F, Tool("g"), Tool("c", kind="custom"), Tool("w", kind="web_search", raw=b"{}"))
    body, losses, _ = encode(foreign(user("a"), tools=tools, tool_choice=choice, parallel_tool_calls=parallel))
    assert body.get("tool_choice") == written
    tools_written = {tool["name"]: tool for tool in body["tools"]}  # type: ignore[attr-defined]
    assert list(tools_written) == names
    assert tools_written["g"]["input_schema"] == {"type": "object", "properties": {}}
    if "f" in tools_written:
        assert tools_written["f"] == {
            "name": "f",
            "description": "d",
            "input_schema": {"type": "object"},
            "strict": True,
        }
    if choice is None or choice.mode != "allowed":
        assert {("lost", "tools[2]", "custom"), ("lost", "tools[3]", "web_search")} <= set(kinds(losses))


def test_what_belongs_to_others_is_lost_by_name() -> None:
    citation = Citation("openai.chat", "url_citation", b"{}")
    request = foreign(
        Message("user", (Text("a", extra={"x": Raw(b"1")}),), name="bob"),
        Message(
            "assistant",
            (
                Reasoning("t", "sig", origin="gemini"),
                Reasoning("mine", "sig", origin=OWN),
                Reasoning("unsigned", origin=OWN),
                Text("b", citations=(citation,)),
                ToolCall("w", "web_search", "{}", server="web_search_call"),
                Opaque("openai.chat", "audio", b"{}"),
                Opaque(OWN, "compaction", b'{"type":"compaction","content":"s"}'),
                Media("image", uri="https://e.com/a"),
            ),
        ),
        user(Text(" "), "c"),
    )
    body, losses, _ = encode(request)
    assert body["messages"][1]["content"] == [  # type: ignore[index]
        {"type": "thinking", "thinking": "mine", "signature": "sig"},
        {"type": "text", "text": "b"},
        {"type": "compaction", "content": "s"},
    ]
    assert kinds(losses) == [
        ("lost", "messages[0].name", "name"),
        ("lost", "messages[0].content[0].x", "x"),
        ("lost", "messages[1].reasoning_content", "reasoning"),
        ("lost", "messages[1].reasoning_content", "reasoning"),
        ("lost", "messages[1].content[0]", "citations"),
        ("lost", "messages[1].tool_calls[0]", "web_search_call"),
        ("lost", "messages[1].content[1]", "audio"),
        ("lost", "messages[1].content[3]", "image"),
        ("lost", "messages[2].content[0]", "text"),
    ]


@pytest.mark.parametrize("arguments", ["{", "[1]", '"a"', "nonsense"])
def test_broken_arguments_are_never_an_empty_object(arguments: str) -> None:
    request = foreign(user("a"), Message("assistant", (ToolCall("a", "f", arguments),)))
    with pytest.raises(CallerError) as caught:
        encode(request)
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


def test_nothing_left_to_send() -> None:
    with pytest.raises(Unsupported):
        encode(foreign(Message("assistant", (Text(""),))))


def test_a_caller_of_this_format_may_have_policy_on_top() -> None:
    request = decode(read("documents"))
    changed = replace(
        request,
        stream=True,
        user="someone",
        reasoning=ReasoningOptions("disabled"),
        response_format=None,
        messages=(*request.messages, Message("developer", (Text("policy"),))),
    )
    body, losses, _ = encode(changed)
    assert losses == ()
    assert body["stream"] is True and body["metadata"] == {"user_id": "someone"}
    assert body["thinking"] == {"type": "disabled"}
    assert body["output_config"] == {"task_budget": {"type": "tokens", "total": 9}}
    assert body["messages"][-1] == {"role": "system", "content": [{"type": "text", "text": "policy"}]}  # type: ignore[index]


TURNS = st.lists(
    st.one_of(
        st.text("ab ", min_size=1, max_size=4).map(lambda text: user(text or "x", "y")),
        st.text("ab", min_size=1, max_size=4).map(lambda text: Message("assistant", (Text(text),))),
        st.text("ab.", min_size=1, max_size=3).map(
            lambda id: Message("assistant", (ToolCall(id, "f", '{"a":1.0}'), Text("t")))
        ),
        st.text("ab", min_size=1, max_size=3).map(lambda id: Message("developer", (Text(id),))),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(TURNS, TURNS, st.booleans())
def test_a_longer_conversation_begins_with_the_shorter_one(
    before: list[Message], after: list[Message], sys: bool
) -> None:
    head = (Message("system", (Text("S"),)), user("first"))
    options = {"system_in_messages": sys}
    short = CODEC.encode_request(foreign(*head, *before, user=None), UpstreamFacts(options=options)).body
    long = CODEC.encode_request(foreign(*head, *before, *after, stream=True), UpstreamFacts(options=options)).body
    end = short.rindex(b'],"max_tokens"')
    # As far as the conversation went: up to the last block, which a further message of the same role may follow.
    assert long.startswith(short[:end].removesuffix(b"]}"))
