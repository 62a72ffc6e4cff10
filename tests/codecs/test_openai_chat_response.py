"""Whole answers of Chat Completions, both ways."""

from __future__ import annotations

import msgspec
import pytest
from headgate.gateway.codecs.openai_chat import CODEC
from headgate.gateway.errors import Malformed, UpstreamError
from headgate.gateway.ir.event import (
    Alien,
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.fold import fold, unfold_parts
from headgate.gateway.ir.message import Citation, Media, Opaque, Reasoning, Refusal, Text, ToolCall
from headgate.gateway.wire.outline import outline
from msgspec import Raw
from msgspec.structs import replace
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from .openai_chat_cases import CONTEXT, CORPUS, events_of, feed, load, payloads

WHOLES = sorted(path.stem for path in CORPUS.glob("*.json") if path.stem != "agent_request")
ELSEWHERE = ResponseStart("msg_1", "claude", format="anthropic.messages")


def answer(*parts: object, reason: str = "stop", raw: str = "", start: ResponseStart = ELSEWHERE) -> list[Event]:
    return [start, *unfold_parts(parts, 0, 0), ChoiceStop(reason, raw), ResponseStop(), Terminator()]  # type: ignore[arg-type]


def encode(events: list[Event]) -> tuple[dict, set[tuple[str, str]]]:
    encoded = CODEC.encode_response(events, CONTEXT)
    return msgspec.json.decode(encoded.body), {(loss.kind, loss.what) for loss in encoded.losses}


@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_answer_comes_out_as_it_came(name: str) -> None:
    body = load(f"{name}.json")
    encoded = CODEC.encode_response(CODEC.decode_response(body), CONTEXT)
    told, came = msgspec.json.decode(encoded.body), msgspec.json.decode(body)
    for choice in (*told["choices"], *came["choices"]):
        message = choice["message"]
        message.setdefault("refusal", None)
        if not message.get("annotations"):
            message.pop("annotations", None)
    assert told == came and encoded.losses == ()


@pytest.mark.parametrize("name", WHOLES)
def test_a_stream_gathered_is_the_whole_answer(name: str) -> None:
    """Law 1 within the format: what a client that did not ask for a stream gets."""
    gathered = encode(events_of(feed(load(f"{name}.sse"))[0]))[0]
    whole = encode(list(CODEC.decode_response(load(f"{name}.json"))))[0]
    assert gathered == whole


@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_answer_streamed_folds_to_itself(name: str) -> None:
    events = CODEC.decode_response(load(f"{name}.json"))
    encoder = CODEC.stream_encoder(CONTEXT)
    again, error = feed(encoder.encode(Chunk(events)) + encoder.close(None))
    assert error is None and fold(events_of(again)).choices == fold(events).choices


@pytest.mark.parametrize("name", [n for n in WHOLES if n not in ("legacy", "mistral")])
def test_the_official_types_take_what_is_written(name: str) -> None:
    events = CODEC.decode_response(load(f"{name}.json"))
    ChatCompletion.model_validate_json(CODEC.encode_response(events, CONTEXT).body)
    for payload in payloads(CODEC.stream_encoder(CONTEXT).encode(Chunk(events))):
        ChatCompletionChunk.model_validate(payload)


def test_unknown_members_keep_their_bytes() -> None:
    body = (
        b'{"id":"c","object":"chat.completion","created":1,"model":"m","provider":{"n":1.0},"choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"a","mood":[1,  2]},"finish_reason":"eos","seed":12345678901234567890}],'
        b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"cost":0.10}}'
    )
    out = CODEC.encode_response(CODEC.decode_response(body), CONTEXT).body
    for piece in (b'"provider":{"n":1.0}', b'"mood":[1,  2]', b'"seed":12345678901234567890', b'"cost":0.10', b'"eos"'):
        assert piece in out


def test_custom_calls_and_arguments_that_are_objects() -> None:
    body = msgspec.json.encode(
        {
            "id": "c",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "content": None,
                        "tool_calls": [
                            {"id": "a", "type": "custom", "custom": {"name": "g", "input": "free text"}},
                            {"id": "b", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
                        ],
                    },
                    "finish_reason": "tool_calls",
                }
            ],
        }
    )
    (choice,) = fold(CODEC.decode_response(body)).choices
    assert choice.parts == (ToolCall("a", "g", "free text", "custom"), ToolCall("b", "f", '{"x":1}'))
    told, _ = encode(list(CODEC.decode_response(body)))
    assert told["choices"][0]["message"]["tool_calls"][0]["custom"] == {"name": "g", "input": "free text"}


def test_two_calls_with_one_id_are_two() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = msgspec.json.encode({"choices": [{"message": {"tool_calls": [call, call]}, "finish_reason": "tool_calls"}]})
    assert len(fold(CODEC.decode_response(body)).choices[0].parts) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"3",
        b"{}",
        b'{"choices":null}',
        b'{"choices":[3]}',
        b'{"choices":[{"message":{"content":3}}]}',
        b'{"choices":[{"message":{"content":"\xff"}}]}',
        b'{"choices":' + b"[" * 9000,
    ],
)
def test_garbage_is_malformed(body: bytes) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_response(body)
    assert caught.value.kind == "malformed"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error":{"message":"no credit","code":402}}', "quota"),
        (b'{"choices":[{"index":0,"error":{"code":429,"message":"slow"},"message":{"content":""}}]}', "rate_limit"),
        (b'{"object":"error","message":"bad","type":"BadRequestError","code":400}', "invalid_request"),
        (b'{"choices":[{"index":0,"message":{"content":""},"finish_reason":"error"}]}', "upstream_error"),
    ],
)
def test_an_error_inside_a_200(body: bytes, kind: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_response(body)
    assert caught.value.kind == kind


def test_an_answer_of_another_format() -> None:
    cited = Citation("anthropic.messages", "web_search_result_location", b"{}", url="https://a.b", title="T")
    pointed = Citation("anthropic.messages", "page_location", b"{}", cited_text="q")
    events = answer(
        Reasoning("hm", signature="c2ln", origin="anthropic.messages"),
        Reasoning(redacted="xx", origin="anthropic.messages"),
        Text("Hi "),
        Text("you", citations=(cited, pointed)),
        ToolCall("toolu_1", "f", '{"a": 1.0}'),
        ToolCall("toolu_2", "g"),
        ToolCall("", "h", "{}"),
        ToolCall("s", "web_search", "{}", server="server_tool_use"),
        Opaque("anthropic.messages", "container", b"{}"),
        Media("image", "image/png", data="AA"),
        reason="tool_calls",
        raw="tool_use",
    )
    events.insert(-2, UsageReport(Usage(None, 20, 90, 10, 7, 3)))
    events.insert(-2, Alien("anthropic.messages", "odd", b"{}"))
    told, losses = encode(events)
    assert told == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi you",
                    "refusal": None,
                    "reasoning_content": "hm",
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {"url": "https://a.b", "title": "T", "start_index": 3, "end_index": 6},
                        }
                    ],
                    "tool_calls": [
                        {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1.0}'}},
                        {"id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                        {"id": "call_r1_2", "type": "function", "function": {"name": "h", "arguments": "{}"}},
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 120,
            "completion_tokens": 7,
            "total_tokens": 127,
            "prompt_tokens_details": {"cached_tokens": 90, "cache_write_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }
    assert losses >= {
        ("lost", "signature"),
        ("lost", "redacted"),
        ("lost", "page_location"),
        ("lost", "server_tool_use"),
        ("lost", "container"),
        ("lost", "image"),
        ("lost", "odd"),
        ("minted", "arguments"),
        ("minted", "id"),
        ("minted", "created"),
    }


def test_the_same_whole_and_streamed_from_another_format() -> None:
    """Law 1 across formats: gathering our own stream gives the whole answer we write."""
    events = answer(
        Reasoning("hm", origin="anthropic.messages"),
        Text("Hi "),
        ToolCall("toolu_1", "f", '{"a": 1}'),
        Text("you", citations=(Citation("x", "w", b"{}", url="https://a.b"),)),
        ToolCall("toolu_2", "g"),
        reason="tool_calls",
        raw="tool_use",
    )
    encoder = CODEC.stream_encoder(CONTEXT)
    streamed, error = feed(encoder.encode(Chunk(tuple(events))) + encoder.close(None))
    assert error is None
    assert encode(events_of(streamed))[0] == encode(events)[0]


def test_arguments_that_are_no_json_are_malformed() -> None:
    with pytest.raises(Malformed):
        CODEC.encode_response(answer(ToolCall("a", "f", "{nope")), CONTEXT)


def test_a_refusal_with_words_of_its_own() -> None:
    told, _ = encode(answer(Refusal("No."), reason="refusal", raw="refusal"))
    choice = told["choices"][0]
    assert (choice["finish_reason"], choice["message"]["refusal"]) == ("stop", "No.")
    told, _ = encode(answer(Text("I"), reason="refusal", raw="refusal"))
    assert told["choices"][0]["finish_reason"] == "content_filter"


def test_audio_goes_both_ways() -> None:
    events = [
        ELSEWHERE,
        PartStart(0, Media("audio")),
        PartDelta(0, "QUJD"),
        PartPatch(0, transcript="abc"),
        PartStop(0),
        ChoiceStop("stop"),
    ]
    told, _ = encode(events)
    assert told["choices"][0]["message"]["audio"] == {"data": "QUJD", "transcript": "abc"}


def test_foreign_extras_are_losses_and_ours_are_not() -> None:
    start = ResponseStart(
        "a", "m", 1, "standard", {"stop_details": Raw(b"{}"), "container": Raw(b"1")}, "anthropic.messages"
    )
    told, losses = encode(answer(Text("x", extra={"zz": Raw(b"1")}), start=start))
    assert "container" not in told
    assert losses == {("lost", "container"), ("lost", "standard"), ("lost", "zz")}


@pytest.mark.parametrize(
    "said",
    [
        '"prompt_tokens":3,"completion_tokens":2,"total_tokens":5',
        '"total_tokens":9,"completion_tokens":2,"prompt_tokens":3',
        '"prompt_tokens":0,"completion_tokens":0,"total_tokens":0',
        '"prompt_tokens":-1,"completion_tokens":2,"total_tokens":1',
        '"prompt_tokens":3,"completion_tokens":2,"total_tokens":null',
        '"prompt_tokens":null,"completion_tokens":2,"total_tokens":2',
        '"prompt_tokens":3,"completion_tokens":2,"cached_tokens":1',
        '"prompt_tokens":3,"completion_tokens":2,"total_tokens":9,"total_tokens":5',
    ],
)
def test_three_counts_are_read_like_three_among_others(said: str) -> None:
    alone = CODEC.read_usage(Raw(b"{%b}" % said.encode()))
    among = CODEC.read_usage(Raw(b'{%b,"x_own":1}' % said.encode()))
    assert alone is not None and among is not None
    assert alone.raw == {name: raw for name, raw in among.raw.items() if name != "x_own"}
    assert replace(alone, raw={}) == replace(among, raw={})


def test_a_missing_usage_figure_is_minted() -> None:
    told, losses = encode([*answer(Text("x")), UsageReport(Usage(output_tokens=3))])
    assert told["usage"] == {"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 3}
    assert ("minted", "prompt_tokens") in losses


@pytest.mark.parametrize("name", WHOLES)
def test_usage_is_read_without_the_rest(name: str) -> None:
    body = load(f"{name}.json")
    assert CODEC.read_usage(outline(body).usage) == fold(CODEC.decode_response(body)).usage


@pytest.mark.parametrize(
    "body", [b"{}", b'{"usage":null}', b'{"usage":3}', b'{"usage":{}}', b'{"usage":{"total_tokens":"x"}}']
)
def test_no_usage_to_be_read(body: bytes) -> None:
    assert CODEC.read_usage(outline(body).usage) is None


def test_xai_counts_reasoning_beside_the_completion() -> None:
    usage = b'{"prompt_tokens":10,"completion_tokens":5,"total_tokens":35,"completion_tokens_details":{"reasoning_tokens":20}}'
    body = b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":' + usage + b"}"
    found = fold(CODEC.decode_response(body)).usage
    assert found is not None and (found.output_tokens, found.reasoning_output_tokens) == (25, 20)
