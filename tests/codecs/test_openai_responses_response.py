"""Whole answers of openai.responses, and that a stream is the same answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.openai_responses import CODEC
from headgate.gateway.errors import Malformed, RateLimited, UpstreamError
from headgate.gateway.ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.fold import fold, unfold_parts
from headgate.gateway.ir.message import Citation, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from msgspec import Raw, Struct
from openai.types.responses import Response

CORPUS = Path(__file__).parent.parent / "corpus" / "openai_responses"
NAMES = sorted(path.stem for path in (CORPUS / "responses").glob("*.json"))
OWN = "openai.responses"
CONTEXT = AnswerContext(request_id="r1", created=1_700_000_000, model="asked")


def read(name: str) -> bytes:
    return (CORPUS / "responses" / f"{name}.json").read_bytes().split(b"\n", 1)[1]


def streamed(data: bytes) -> list[Event]:
    decoder = CODEC.stream_decoder()
    chunks = (decoder.feed(data), decoder.close())
    assert decoder.error is None
    return [event for chunk in chunks if chunk is not None for event in chunk.events]


def told(value: object) -> object:
    """``value`` without what only says that nothing is there."""
    if isinstance(value, dict):
        return {name: told(inner) for name, inner in value.items() if inner is not None}
    return [told(inner) for inner in value] if isinstance(value, list) else value


def plain(value: object) -> object:
    """Members and blocks that were kept as they came, by what they say."""
    if isinstance(value, bytes | Raw):
        return json.loads(bytes(value))
    if isinstance(value, Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, tuple) else value


def encode(events: Sequence[Event]) -> tuple[Any, list[tuple[str, str]]]:
    encoded = CODEC.encode_response(tuple(events), CONTEXT)
    return json.loads(encoded.body), [(loss.kind, loss.path) for loss in encoded.losses]


def answer(*parts: Part, format: str = "elsewhere", stop: ChoiceStop = ChoiceStop("stop", "end")) -> list[Event]:
    start = ResponseStart("id_1", "m", 7, format=format)
    usage = UsageReport(Usage(5, 5, output_tokens=3, format="elsewhere"))
    return [start, *unfold_parts(parts, 0, 0), stop, usage]


@pytest.mark.parametrize("name", NAMES)
def test_an_own_answer_comes_out_as_it_went_in(name: str) -> None:
    encoded = CODEC.encode_response(CODEC.decode_response(read(name)), CONTEXT)
    assert told(json.loads(encoded.body)) == told(json.loads(read(name)))
    assert encoded.losses == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_is_the_same_answer(name: str) -> None:
    events = streamed((CORPUS / "streams" / f"{name}.sse").read_bytes())
    by_stream = json.loads(CODEC.encode_response(events, CONTEXT).body)
    assert told(by_stream) == told(json.loads(read(name)))
    one, other = fold(events), fold(CODEC.decode_response(read(name)))
    (choice,), (same,) = one.choices, other.choices
    for by_stream, whole in ((one.usage, other.usage), (choice.parts, same.parts), (one.start, other.start)):
        assert plain(by_stream) == plain(whole)
    assert (choice.reason, choice.raw_reason, plain(one.extra)) == (same.reason, same.raw_reason, plain(other.extra))


@pytest.mark.parametrize("name", NAMES)
def test_the_sdk_reads_what_is_written(name: str) -> None:
    Response.model_validate(json.loads(CODEC.encode_response(CODEC.decode_response(read(name)), CONTEXT).body))


def test_what_an_answer_tells() -> None:
    events = CODEC.decode_response(read("reasoning_and_calls"))
    whole = fold(events)
    assert (whole.start.id, whole.start.model, whole.start.created) == ("resp_68af", "gpt-5.4-2026-03-05", 1741476542)
    assert whole.start.service_tier == "default"
    (choice,) = whole.choices
    assert (choice.reason, choice.raw_reason) == ("tool_calls", "completed")
    first, second, text, rome, oslo = choice.parts
    assert isinstance(first, Reasoning)
    assert isinstance(second, Reasoning)
    assert (first.text, first.signature, first.origin) == ("**Looking up**\n\nTwo cities.", None, f"{OWN}:summary")
    assert (second.text, second.signature) == ("**Calling**", "gAAAAABo3nd")
    assert isinstance(text, Text)
    assert bytes(text.extra["item.phase"]) == b'"commentary"'
    assert isinstance(rome, ToolCall)
    assert (rome.id, rome.name, rome.arguments) == ("call_Ax1", "get_weather", '{"city":"Rome"}')
    assert isinstance(oslo, ToolCall)
    assert bytes(oslo.extra["item.namespace"]) == b'"weather"'
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.uncached_input_tokens, whole.usage.cache_read_input_tokens) == (
        36,
        24,
        12,
    )
    assert (whole.usage.output_tokens, whole.usage.reasoning_output_tokens) == (87, 40)


@pytest.mark.parametrize(
    ("name", "reason", "word"),
    [
        ("text", "stop", "completed"),
        ("refusal", "refusal", "completed"),
        ("incomplete", "length", "max_output_tokens"),
        ("custom_tool", "tool_calls", "completed"),
    ],
)
def test_why_an_answer_ended(name: str, reason: str, word: str) -> None:
    stops = [event for event in CODEC.decode_response(read(name)) if isinstance(event, ChoiceStop)]
    assert [(stop.reason, stop.raw_reason) for stop in stops] == [(reason, word)]


@pytest.mark.parametrize("format", ["openai.chat", "anthropic.messages"])
@pytest.mark.parametrize("name", NAMES)
def test_the_echo_of_the_request_is_no_loss_elsewhere(format: str, name: str) -> None:
    encoded = registry.codec(format).encode_response(CODEC.decode_response(read(name)), CONTEXT)
    assert not {"tools", "text", "reasoning", "store", "status", "id"} & {
        loss.path.rpartition(".")[2] for loss in encoded.losses
    }


@pytest.mark.parametrize(
    ("output", "kinds"),
    [
        ([{"type": "message", "id": "m", "role": "assistant", "content": []}], ["message"]),
        ([{"type": "message", "id": "m", "role": "assistant", "content": [{"type": "x_new"}]}], ["message"]),
        (
            [
                {
                    "type": "message",
                    "id": "m",
                    "role": "assistant",
                    "status": "completed",
                    "content": [{"type": "refusal", "refusal": "n"}, {"type": "x_new", "y": 1}],
                }
            ],
            ["", "content.x_new"],
        ),
        ([{"type": "reasoning", "id": "r", "summary": [{"type": "x_new"}]}], ["reasoning"]),
        ([{"type": "x_new", "y": [1.50]}], ["x_new"]),
    ],
)
def test_what_nobody_knows_is_kept(output: list[Any], kinds: list[str]) -> None:
    body = json.loads(read("text")) | {"output": output}
    events = CODEC.decode_response(json.dumps(body).encode())
    starts = [event.part for event in events if isinstance(event, PartStart)]
    assert [part.kind if isinstance(part, Opaque) else "" for part in starts] == kinds
    assert encode(events)[0]["output"] == output


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{nonsense", Malformed),
        (b"[]", Malformed),
        (b"{}", Malformed),
        (b'{"output":7}', Malformed),
        (b'{"output":[{}]}', Malformed),
        (b'{"output":[{"type":"function_call"}]}', Malformed),
        (b'{"error":{"code":"rate_limit_exceeded","message":"slow"}}', RateLimited),
        (b'{"output":[],"status":"failed","error":{"code":"rate_limit_exceeded","message":"slow"}}', RateLimited),
        (b'{"output":[],"status":"failed"}', UpstreamError),
    ],
)
def test_what_is_no_answer(body: bytes, kind: type[UpstreamError]) -> None:
    with pytest.raises(kind):
        CODEC.decode_response(body)


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_an_answer_that_is_not_there_yet(status: str) -> None:
    body = json.loads(read("text")) | {"status": status, "output": [], "usage": None}
    events = CODEC.decode_response(json.dumps(body).encode())
    assert encode(events)[0]["status"] == status
    assert [event.reason for event in events if isinstance(event, ChoiceStop)] == ["other"]


# -- from another format


def test_an_answer_of_another_format() -> None:
    value, losses = encode(
        answer(
            Reasoning("hm", "Sig", origin="anthropic.messages"),
            Reasoning(redacted="Abc", origin="anthropic.messages"),
            Text("one", (Citation("x", "y", b"{}", "https://a.example/", "A", start=0, end=2),)),
            Text("two"),
            ToolCall("c1", "look", '{"at":1}'),
            ToolCall("c2", "run", "x", "custom"),
            stop=ChoiceStop("tool_calls", "tool_use"),
        )
    )
    assert value == {
        "id": "id_1",
        "object": "response",
        "created_at": 7,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "m",
        "output": [
            {
                "id": "rs_r1_0",
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "encrypted_content": "signed:anthropic.messages:Sig",
            },
            {
                "id": "rs_r1_1",
                "type": "reasoning",
                "summary": [],
                "encrypted_content": "redacted:anthropic.messages:Abc",
            },
            {
                "id": "msg_r1_2",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {
                        "type": "output_text",
                        "text": "one",
                        "logprobs": [],
                        "annotations": [
                            {
                                "type": "url_citation",
                                "url": "https://a.example/",
                                "title": "A",
                                "start_index": 0,
                                "end_index": 2,
                            }
                        ],
                    },
                    {"type": "output_text", "text": "two", "logprobs": [], "annotations": []},
                ],
            },
            {
                "id": "fc_r1_3",
                "type": "function_call",
                "status": "completed",
                "call_id": "c1",
                "name": "look",
                "arguments": '{"at":1}',
            },
            {"id": "ctc_r1_4", "type": "custom_tool_call", "call_id": "c2", "name": "run", "input": "x"},
        ],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 5,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 8,
        },
    }
    assert losses == [
        ("minted", "tools"),
        ("minted", "output[0].id"),
        ("emulated", "output[0].encrypted_content"),
        ("minted", "output[1].id"),
        ("emulated", "output[1].encrypted_content"),
        ("minted", "output[2].id"),
        ("minted", "output[3].id"),
        ("minted", "output[4].id"),
    ]
    Response.model_validate(value)


@pytest.mark.parametrize(
    ("stop", "status", "details", "noted"),
    [
        (ChoiceStop("stop"), "completed", None, []),
        (ChoiceStop("length"), "incomplete", "max_output_tokens", []),
        (ChoiceStop("content_filter"), "incomplete", "content_filter", []),
        (ChoiceStop("context_window"), "incomplete", "max_output_tokens", [("emulated", "status")]),
        (ChoiceStop("refusal"), "incomplete", "content_filter", [("emulated", "status")]),
        (ChoiceStop("pause"), "completed", None, [("emulated", "status")]),
        (None, "completed", None, [("minted", "status")]),
    ],
)
def test_the_end_in_this_formats_words(
    stop: ChoiceStop | None, status: str, details: str | None, noted: list[tuple[str, str]]
) -> None:
    events = [
        event for event in answer(Text("x"), stop=stop or ChoiceStop("stop")) if stop or event != ChoiceStop("stop")
    ]
    value, losses = encode(events)
    assert value["status"] == value["output"][0]["status"] == status
    assert (value["incomplete_details"] or {}).get("reason") == details
    assert losses[2:] == noted


def test_a_refusal_of_its_own_is_an_answer() -> None:
    value, losses = encode(answer(Refusal("no"), stop=ChoiceStop("refusal")))
    assert value["status"] == "completed"
    assert value["output"][0]["content"] == [{"type": "refusal", "refusal": "no"}]
    assert losses[2:] == []


@pytest.mark.parametrize(
    ("part", "noted"),
    [
        (Opaque("elsewhere", "block", b"{}"), [("lost", "output[0]")]),
        (ToolCall("c", "search", server="server_tool_use"), [("lost", "output[0]")]),
        (Media("audio", data="UklG"), [("lost", "output[0]")]),
        (ToolResult("c"), [("lost", "output[0]")]),
        (ToolCall("", "look", "{}"), [("minted", "output[0].id"), ("minted", "output[0].call_id")]),
        (ToolCall("c", "look"), [("minted", "output[0].id"), ("minted", "output[0].arguments")]),
        (Text("x", extra={"y": Raw(b"1")}), [("minted", "output[0].id"), ("lost", "output[0].y")]),
        (
            Text("x", (Citation("z", "place", b"{}", cited_text="c"),)),
            [("minted", "output[0].id"), ("lost", "output[0].content[0].annotations")],
        ),
        (
            Text("x", (Citation("z", "page", b"{}", "https://a.example/"),)),
            [("minted", "output[0].id"), ("emulated", "output[0].content[0].annotations")],
        ),
    ],
)
def test_what_of_an_answer_is_lost(part: Part, noted: list[tuple[str, str]]) -> None:
    assert encode(answer(part))[1] == [("minted", "tools"), *noted]


@pytest.mark.parametrize(
    ("event", "noted"),
    [
        (PartDelta(0, "x", choice=1), ("lost", "choices[1]")),
        (PartStart(1, Text(""), choice=1), ("lost", "choices[1]")),
        (ChoiceStop("stop", choice=1), ("lost", "choices[1]")),
        (ChoicePatch(extra={"x": Raw(b"1")}), ("lost", "output.x")),
        (ResponsePatch({"x": Raw(b"1")}), ("lost", "x")),
        (Alien("elsewhere", "x", b"{}"), ("lost", "")),
        (Alien(OWN, "x", b"{}"), ("lost", "")),
        (PartPatch(0, transcript="t"), ("lost", "output[0]")),
        (PartPatch(0, extra={"x": Raw(b"1")}), ("lost", "output[0].x")),
    ],
)
def test_what_of_the_rest_is_lost(event: Event, noted: tuple[str, str]) -> None:
    start, opened, *rest = answer(Text("x"))
    assert noted in encode([start, opened, event, *rest])[1]


def test_words_of_another_format_that_are_no_arguments() -> None:
    with pytest.raises(Malformed):
        encode(answer(ToolCall("c", "look", "{nonsense")))
    assert encode(answer(ToolCall("c", "look", "{nonsense"), format=OWN))[0]["output"][0]["arguments"] == "{nonsense"


def test_an_answer_that_ended_with_an_error() -> None:
    with pytest.raises(UpstreamError):
        encode(answer(Text("x"), stop=ChoiceStop("error", "boom")))


def test_an_item_that_is_still_open_is_told() -> None:
    events: list[Event] = [
        ResponseStart("i", "m", 1),
        PartStart(0, Text("")),
        PartDelta(0, "x"),
        PartDelta(9, "y"),
        PartStop(9),
    ]
    assert encode(events)[0]["output"][0]["content"][0]["text"] == "x"
