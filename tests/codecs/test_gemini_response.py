"""Whole answers of gemini: into events and out again, to and from the other formats, and what fails."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.gemini import ARRAY_CODEC, CODEC
from headgate.gateway.errors import Malformed, Overloaded, UpstreamError
from headgate.gateway.ir.event import (
    ChoicePatch,
    ChoiceStop,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import Citation, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from msgspec import Raw

from .gemini_cases import ANSWERS, CONTEXT, decode, events_of, load, plain, stream, told

OWN = "gemini"


def joined(value: Any) -> Any:
    """A fold with its pieces of log probabilities put together."""
    for choice in value["choices"]:
        choice["logprobs"] = [token for piece in choice["logprobs"] for token in piece["content"]]
    return value


@pytest.mark.parametrize("framing", ["sse", "array"])
@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_folds_into_the_whole(name: str, framing: str) -> None:
    codec = CODEC if framing == "sse" else ARRAY_CODEC
    chunks, error = decode(codec, [stream(name, framing)])
    assert error is None
    whole = fold(CODEC.decode_response(load(f"answers/{name}.json")))
    assert joined(plain(fold(events_of(chunks)))) == joined(plain(whole))


@pytest.mark.parametrize("name", ANSWERS)
def test_an_array_in_place_of_a_whole_answer_is_read(name: str) -> None:
    whole = fold(CODEC.decode_response(load(f"answers/{name}.json")))
    assert joined(plain(fold(CODEC.decode_response(stream(name, "array"))))) == joined(plain(whole))


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_comes_out_again(name: str) -> None:
    body = load(f"answers/{name}.json")
    written = CODEC.encode_response(CODEC.decode_response(body), CONTEXT)
    expected = json.loads(body)
    for number, candidate in enumerate(expected.get("candidates", ())):
        candidate["index"] = number
    if name == "tools":
        expected["candidates"][0]["content"]["parts"][2]["functionCall"]["args"] = {}
    assert json.loads(written.body) == expected
    assert written.losses == ()


@pytest.mark.parametrize("name", ANSWERS)
def test_the_sdk_reads_what_we_write(name: str) -> None:
    body = load(f"answers/{name}.json")
    again = told(CODEC.encode_response(CODEC.decode_response(body), CONTEXT).body)
    first = told(body)
    for answer in (again, first):
        answer.sdk_http_response = None
        for candidate in answer.candidates or ():
            candidate.index = None
    assert again == first


def test_bytes_of_arguments_and_signatures_are_kept() -> None:
    body = (
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"b" :1.0, "a":[ ]}},'
        b'"thoughtSignature":"A\\/+="}]},"finishReason":"STOP"}]}'
    )
    out = CODEC.encode_response(CODEC.decode_response(body), CONTEXT).body
    assert b'{"b" :1.0, "a":[ ]}' in out
    assert b'"thoughtSignature":"A\\/+="' in out


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        *((word, "content_filter") for word in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")),
        *((word, "error") for word in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MISSING_THOUGHT_SIGNATURE")),
        ("OTHER", "other"),
        ("SOMETHING_NEW", "other"),
    ],
)
def test_finish_reasons(word: str, reason: str) -> None:
    body = json.dumps({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": word}]}).encode()
    events = CODEC.decode_response(body)
    stop = next(event for event in events if isinstance(event, ChoiceStop))
    assert (stop.reason, stop.raw_reason) == (reason, word)
    assert json.loads(CODEC.encode_response(events, CONTEXT).body)["candidates"][0]["finishReason"] == word


def test_every_reason_that_the_sdk_knows_has_a_word() -> None:
    from google.genai.types import FinishReason
    from headgate.gateway.codecs.gemini.usage import FINISH_REASONS

    assert {reason.value for reason in FinishReason} <= FINISH_REASONS.keys()


def test_a_stop_after_a_call_is_one_for_tools() -> None:
    events = CODEC.decode_response(load("answers/tools.json"))
    assert [e.reason for e in events if isinstance(e, ChoiceStop)] == ["tool_calls"]
    chat = json.loads(registry.codec("openai.chat").encode_response(events, CONTEXT).body)["choices"][0]
    assert chat["finish_reason"] == "tool_calls"
    assert [call["id"] for call in chat["message"]["tool_calls"]] == ["fc1", "call_r1_1"]
    assert json.loads(chat["message"]["tool_calls"][0]["function"]["arguments"]) == {"flight": "AA100", "n": 1.5}
    claude = json.loads(registry.codec("anthropic.messages").encode_response(events, CONTEXT).body)
    assert claude["stop_reason"] == "tool_use"
    assert [block["type"] for block in claude["content"]] == ["text", "tool_use", "tool_use"]


def test_a_blocked_prompt_is_filtered_content() -> None:
    events = CODEC.decode_response(load("answers/blocked.json"))
    chat = json.loads(registry.codec("openai.chat").encode_response(events, CONTEXT).body)
    assert chat["choices"][0]["finish_reason"] == "content_filter"
    assert "candidates" not in json.loads(CODEC.encode_response(events, CONTEXT).body)


def test_usage_counts_as_the_api_does() -> None:
    usage = {"promptTokenCount": 100, "cachedContentTokenCount": 40, "candidatesTokenCount": 7}
    usage |= {"thoughtsTokenCount": 5, "toolUsePromptTokenCount": 30, "totalTokenCount": 142}
    found = CODEC.read_usage(Raw(json.dumps(usage).encode()))
    assert found is not None
    assert (found.input_tokens, found.uncached_input_tokens, found.cache_read_input_tokens) == (130, 90, 40)
    assert (found.output_tokens, found.reasoning_output_tokens) == (12, 5)
    assert CODEC.read_usage(Raw(b'{"trafficType":"ON_DEMAND"}')) is None
    assert CODEC.read_usage(Raw(b"7")) is None


def answer(*events: Event, usage: Usage | None = None, reason: Any = "stop", format: str = "elsewhere") -> Any:
    report = () if usage is None else (UsageReport(usage),)
    whole = (ResponseStart("i", "m", 1, format=format), *events, ChoiceStop(reason, "x"), *report, ResponseStop())
    return CODEC.encode_response(whole, CONTEXT)


def one(part: Part, *steps: Event) -> tuple[Event, ...]:
    return (PartStart(0, part), *steps, PartStop(0))


def test_usage_of_others() -> None:
    told = answer(usage=Usage(120, 90, 20, 10, 50, 30, format="elsewhere"))
    assert json.loads(told.body)["usageMetadata"] == {
        "promptTokenCount": 120,
        "cachedContentTokenCount": 20,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "totalTokenCount": 170,
    }
    assert [loss.what for loss in told.losses] == ["tokens written to a cache"]
    half = json.loads(answer(usage=Usage(output_tokens=3)).body)["usageMetadata"]
    assert half == {"candidatesTokenCount": 3}
    fresh = json.loads(answer(usage=Usage(uncached_input_tokens=3, cache_read_input_tokens=4, output_tokens=1)).body)
    assert fresh["usageMetadata"]["promptTokenCount"] == 7


@pytest.mark.parametrize(
    ("events", "parts", "losses"),
    [
        (one(Text("a"), PartDelta(0, "b")), [{"text": "ab"}], []),
        (one(Reasoning("hm", origin="openai.chat:reasoning")), [{"text": "hm", "thought": True}], []),
        (
            one(Reasoning("hm", "SIG", origin="anthropic.messages")),
            [{"text": "hm", "thought": True}],
            [("lost", "reasoning signature")],
        ),
        (one(Reasoning(redacted="x", origin="anthropic.messages")), [], [("lost", "reasoning signature")]),
        (one(Refusal("no")), [{"text": "no"}], [("emulated", "refusal")]),
        (
            one(ToolCall("c", "f"), PartDelta(0, '{"a": 1.0}')),
            [{"functionCall": {"id": "c", "name": "f", "args": {"a": 1.0}}}],
            [],
        ),
        (one(ToolCall("", "f")), [{"functionCall": {"name": "f", "args": {}}}], []),
        (
            one(ToolCall("c", "f", "x y", kind="custom")),
            [{"functionCall": {"id": "c", "name": "f", "args": {"input": "x y"}}}],
            [("emulated", "custom tool call")],
        ),
        (one(ToolCall("c", "f", "{}", server="web")), [], [("lost", "web")]),
        (
            one(Media("audio", "audio/wav", data="UklG")),
            [{"inlineData": {"mimeType": "audio/wav", "data": "UklG"}}],
            [],
        ),
        (one(Media("audio", data="????")), [], [("lost", "audio")]),
        (one(Opaque("elsewhere", "block", b"{}")), [], [("lost", "block")]),
        (one(ToolResult("c")), [], [("lost", "tool result")]),
        (one(Text("a", extra={"x": Raw(b"1")})), [{"text": "a"}], [("lost", "x")]),
        (
            one(Text("a"), PartPatch(0, citation=Citation("openai.chat", "url_citation", b"{}"))),
            [{"text": "a"}],
            [("lost", "citations")],
        ),
    ],
)
def test_parts_of_others(events: tuple[Event, ...], parts: list[Any], losses: list[tuple[str, str]]) -> None:
    written = answer(*events)
    assert json.loads(written.body)["candidates"][0]["content"]["parts"] == parts
    assert [(loss.kind, loss.what) for loss in written.losses] == losses
    told(written.body)


def test_the_envelope_of_others() -> None:
    written = json.loads(answer(*one(Text("a"))).body)
    assert written["modelVersion"] == "m"
    assert written["responseId"] == "i"
    assert written["createTime"] == "1970-01-01T00:00:01Z"
    bare = CODEC.encode_response((ResponseStart(), *one(Text("a")), ResponseStop()), CONTEXT)
    told = json.loads(bare.body)
    assert told["modelVersion"] == "asked"
    assert told.keys() == {"candidates", "modelVersion"}
    assert [(loss.kind, loss.path) for loss in bare.losses] == [("minted", "candidates[0].finishReason")]


def test_reasons_of_others() -> None:
    for reason, word, kinds in (
        ("tool_calls", "STOP", []),
        ("content_filter", "SAFETY", []),
        ("refusal", "SAFETY", ["emulated"]),
        ("context_window", "MAX_TOKENS", ["emulated"]),
        ("pause", "OTHER", ["emulated"]),
    ):
        written = answer(reason=reason)
        assert json.loads(written.body)["candidates"][0]["finishReason"] == word
        assert [loss.kind for loss in written.losses] == kinds
    with pytest.raises(UpstreamError):
        answer(reason="error")


def test_arguments_that_are_no_object_are_no_answer() -> None:
    for arguments in ("{", "[]", "7", '{"a":1} x'):
        with pytest.raises(Malformed):
            answer(*one(ToolCall("c", "f", arguments)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{nonsense",
        b"[]",
        b"7",
        b"<html>",
        b"{}",
        b'{"candidates":7}',
        b'{"candidates":[]}',
        b'{"candidates":[7]}',
        b'{"candidates":[{"index":-1}]}',
        b'{"candidates":[{"content":{"parts":[{"text":7}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"args":{}}}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":7}}]}}]}',
        b'{"error":7}',
        b"[" * 2000,
        b'{"candidates":' * 2000,
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_response(body)
    assert caught.value.kind == "malformed"


def test_an_error_in_a_200() -> None:
    body = b'{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}'
    for spelled in (body, b"[" + body + b"]"):
        with pytest.raises(Overloaded) as caught:
            CODEC.decode_response(spelled)
        assert caught.value.format == OWN


def test_what_the_ir_has_no_word_for_stays() -> None:
    frame = {
        "candidates": [
            {
                "content": {"parts": [{"text": "x"}], "role": "model", "x_in": 1.0},
                "finishReason": "STOP",
                "index": 0,
                "urlContextMetadata": {"urlMetadata": []},
                "tokenCount": 3,
            }
        ],
        "modelStatus": {"modelStage": "PREVIEW"},
        "x_new": 1.50,
    }
    body = json.dumps(frame).encode()
    events = CODEC.decode_response(body)
    assert any(isinstance(event, ChoicePatch) for event in events)
    out = CODEC.encode_response(events, AnswerContext()).body
    assert json.loads(out) == frame
    assert b'"x_new":1.5' in out
