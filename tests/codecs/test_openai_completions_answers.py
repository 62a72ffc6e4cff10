"""Answers of the legacy Completions: whole ones and streams into events and back, cut anywhere, broken off; its errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from headgate.gateway.codecs.openai_chat import CODEC as OPENAI
from headgate.gateway.codecs.openai_completions import CODEC
from headgate.gateway.codecs.openai_completions.logprobs import OFFSETS
from headgate.gateway.codecs.openai_completions.stream_decoder import CompletionsStreamDecoder
from headgate.gateway.errors import Cancelled, Cut, GatewayError, Malformed, Overloaded, RateLimited, UpstreamError
from headgate.gateway.ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
    Wire,
)
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import Citation, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from msgspec import Raw
from msgspec.structs import replace
from openai.types import Completion

from .openai_completions_cases import CONTEXT, CORPUS, events_of, feed, load, payloads, raw_of, stream

NAMES = sorted(path.name for path in CORPUS.glob("*.sse"))
CLEAN = [name for name in NAMES if name != "error.sse"]
PAIRS = [name.removesuffix(".sse") for name in CLEAN]
END = (ResponseStop(), Terminator())


def told(events: Sequence[Event]) -> Any:
    """What events come to, log probabilities joined."""
    folded = fold(events)
    entries = [
        [entry for piece in choice.logprobs for entry in json.loads(bytes(piece))["content"]]
        for choice in folded.choices
    ]
    return replace(folded, choices=tuple(replace(choice, logprobs=()) for choice in folded.choices)), entries


# -- streams in


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("name", NAMES)
def test_cut_at_every_byte(name: str, line_end: bytes) -> None:
    wire = load(name).replace(b"\n", line_end)
    whole, error = feed(wire)
    cuts = [[1] * (len(wire) - 1), [7] * (len(wire) // 7), *([place] for place in range(1, len(wire)))]
    for sizes in cuts:
        chunks, fault = feed(wire, sizes)
        assert events_of(chunks) == events_of(whole)
        assert raw_of(chunks) == raw_of(whole)
        assert repr(fault) == repr(error)
    if name in CLEAN:
        assert raw_of(whole) == wire and error is None
        assert {chunk.wire for chunk in whole} == {Wire("openai.completions", "sse")}


@pytest.mark.parametrize("name", PAIRS)
def test_a_stream_comes_to_the_whole_answer(name: str) -> None:
    assert told(events_of(feed(load(f"{name}.sse"))[0])) == told(CODEC.decode_response(load(f"{name}.json")))


def test_events_of_a_stream() -> None:
    usage = {"prompt_tokens": Raw(b"5"), "completion_tokens": Raw(b"7"), "total_tokens": Raw(b"12")}
    extra = {"system_fingerprint": Raw(b'"fp_1"')}
    assert events_of(feed(load("choices.sse"))[0]) == [
        ResponseStart("cmpl-7iA7", "gpt-3.5-turbo-instruct", 1690759702, None, extra, "openai.completions"),
        PartStart(0, Text("")),
        PartDelta(0, "One"),
        PartStart(1, Text(""), 1),
        PartDelta(1, "Two", 1),
        PartDelta(0, " more"),
        PartStop(0),
        ChoiceStop("stop", "stop"),
        PartDelta(1, " more", 1),
        PartStop(1, 1),
        ChoiceStop("length", "length", 1),
        UsageReport(Usage(5, 5, None, None, 7, None, False, "openai.completions", usage)),
        *END,
    ]


def test_usage_that_only_we_asked_for_is_hidden() -> None:
    for name in ("text.sse", "choices.sse", "vllm.sse"):
        wire = load(name)
        chunks, _ = feed(wire, [60] * 20, hide_usage=True)
        kept = [frame for frame in wire.split(b"\n\n") if b'"usage"' not in frame]
        assert raw_of(chunks) == b"\n\n".join(kept)
        assert any(isinstance(event, UsageReport) for event in events_of(chunks))


@pytest.mark.parametrize("name", CLEAN)
def test_broken_off_anywhere(name: str) -> None:
    wire = load(name)
    done = wire.index(b"data: [DONE]")
    # Vendors exist that never send [DONE]: after the last finish reason the answer is whole.
    last = max(
        sum(len(frame) + 2 for frame in wire.split(b"\n\n")[: number + 1])
        for number, frame in enumerate(wire.split(b"\n\n"))
        if b'"finish_reason":"' in frame
    )
    for place in range(len(wire)):
        chunks, error = feed(wire[:place])
        # What was half sent is left out, and a frame may lack its blank line alone.
        if place < last - 2:
            assert isinstance(error, Cut), place
        elif place >= last:
            assert error is None
            assert any(isinstance(event, Terminator) for event in events_of(chunks)) is (place >= done + 12)
        if error is not None:
            assert b"[DONE]" not in stream(events_of(chunks), error)


@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        (load("error.sse"), "overloaded"),
        (b"data: {nonsense\n\n", "malformed"),
        (b'data: {"choices":7}\n\n', "malformed"),
        (b'data: {"choices":[{"index":0,"text":7}]}\n\n', "malformed"),
        (b'data: {"choices":[{"index":0,"text":"x","logprobs":{"tokens":7}}]}\n\n', "malformed"),
        (b'data: {"choices":[{"text":"x","finish_reason":"error"}]}\n\n', "upstream_error"),
        (b'data: {"object":"error","message":"no such model","type":"NotFoundError","code":404}\n\n', "not_found"),
        (b'event: error\ndata: {"message":"broken"}\n\n', "upstream_error"),
        (b"data: [DONE]\n\n", "malformed"),
        (b": ping\n\n", "cut"),
        (b"", "cut"),
    ],
)
def test_a_stream_that_fails(wire: bytes, kind: str) -> None:
    chunks, error = feed(wire)
    assert error is not None and error.kind == kind
    sent = stream(events_of(chunks), error)
    assert b"[DONE]" not in sent
    told = payloads(sent)[-1]["error"]
    assert isinstance(told, dict) and told["message"]


def test_a_frame_above_the_cap() -> None:
    decoder = CompletionsStreamDecoder(max_frame_bytes=1000)
    for _ in range(1001):
        assert decoder.error is None
        decoder.feed(b":")
    assert isinstance(decoder.error, Malformed)
    assert decoder.feed(b"\n\n") is None and decoder.close() is None


def test_what_nobody_knows_is_kept() -> None:
    odd = b'data: {"x_news" : [1.50]}\n\n'
    late = b'data: {"id":"c","x":1,"choices":[{"index":0,"text":"late","x_c":2,"finish_reason":null}]}\n\n'
    wire = load("text.sse").replace(b"data: [DONE]", b": hm\n\n" + odd + late + b"data: [DONE]")
    chunks, error = feed(wire)
    assert error is None and raw_of(chunks) == wire
    events = events_of(chunks)
    assert Alien("openai.completions", "x_news", b'{"x_news" : [1.50]}') in events
    assert Alien("openai.completions", "late", late[6:-2]) in events
    assert ResponsePatch({"x": Raw(b"1")}) in events
    assert ChoicePatch(0, {"x_c": Raw(b"2")}) in events
    assert Keepalive() in events
    sent = stream(events)
    assert odd in sent and late in sent
    assert payloads(sent)[-1]["x"] == 1


# -- answers out


@pytest.mark.parametrize("name", PAIRS)
def test_answers_come_back(name: str) -> None:
    body = load(f"{name}.json")
    encoded = CODEC.encode_response(CODEC.decode_response(body), CONTEXT)
    assert json.loads(encoded.body) == json.loads(body)
    assert encoded.losses == ()
    events = events_of(feed(load(f"{name}.sse"))[0])
    again, error = feed(stream(events))
    assert error is None
    (first, before), (second, after) = told(events), told(events_of(again))
    assert before == after
    if name == "logprobs":
        # Offsets that count from the start of the prompt are known at the end alone.
        assert bytes(second.choices[0].stop_extra[OFFSETS]) == b"[0,3]"
        choices = tuple(replace(choice, stop_extra={}) for choice in first.choices)
        first, second = replace(first, choices=choices), replace(second, choices=choices)
    assert first == second


@pytest.mark.parametrize("name", CLEAN)
def test_untouched_chunks_go_out_as_they_came(name: str) -> None:
    wire = load(name)
    encoder = CODEC.stream_encoder(CONTEXT)
    assert b"".join(encoder.encode(chunk) for chunk in feed(wire, [80] * 9)[0]) + encoder.close(None) == wire


def test_a_change_in_the_middle_of_a_stream() -> None:
    wire = load("choices.sse")
    encoder = CODEC.stream_encoder(CONTEXT)
    chunks, _ = feed(wire, [len(frame) + 2 for frame in wire.split(b"\n\n")[:-1]])
    sent = encoder.encode(chunks[0]) + encoder.encode(chunks[1]) + encoder.encode(Chunk((PartDelta(0, "!"),)))
    sent += b"".join(encoder.encode(chunk) for chunk in chunks[3:]) + encoder.close(None)
    events = events_of(feed(sent)[0])
    assert [choice.parts for choice in fold(events).choices] == [(Text("One!"),), (Text("Two more"),)]
    assert sent.endswith(b"data: [DONE]\n\n") and sent.count(b"[DONE]") == 1
    assert sent.count(b'"usage":{') == 1


START = ResponseStart("", "", None, "default", {"x": Raw(b"1")}, "elsewhere")
SAID: list[tuple[Part, str, list[tuple[str, str]]]] = [
    (Text("a"), "a", []),
    (Text("a", (Citation("f", "c", b"{}"),)), "a", [("lost", "choices[0].parts[0].citations")]),
    (Refusal("No."), "No.", [("emulated", "choices[0].parts[0]")]),
    (Reasoning("hm"), "", [("lost", "choices[0].parts[0]")]),
    (ToolCall("c", "f", "{}"), "", [("lost", "choices[0].parts[0]")]),
    (Opaque("f", "thing", b"{}"), "", [("lost", "choices[0].parts[0]")]),
]
AROUND = {("minted", "id"), ("minted", "created"), ("lost", "service_tier"), ("lost", "x")}


@pytest.mark.parametrize(("part", "text", "losses"), SAID)
def test_parts_of_another_format(part: Part, text: str, losses: list[tuple[str, str]]) -> None:
    events = (START, PartStart(0, part), PartStop(0), ChoiceStop("stop", "x"), *END)
    encoded = CODEC.encode_response(events, CONTEXT)
    head = {"id": "cmpl-r1", "object": "text_completion", "created": 1700000000, "model": "asked"}
    assert json.loads(encoded.body) == {
        **head,
        "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": "stop"}],
    }
    encoder = CODEC.stream_encoder(CONTEXT)
    sent = payloads(encoder.encode(Chunk(events)))
    spoken = {**head, "choices": [{"text": text, "index": 0, "logprobs": None, "finish_reason": None}]}
    last = {**head, "choices": [{"text": "", "index": 0, "logprobs": None, "finish_reason": "stop"}]}
    assert sent == ([spoken, last] if text else [last])
    for noted in (encoded.losses, encoder.losses):
        found = {(loss.kind, loss.path) for loss in noted}
        assert found - AROUND == set(losses)
        assert found >= AROUND


@pytest.mark.parametrize(
    ("reason", "word", "noted"),
    [
        ("stop", "stop", False),
        ("length", "length", False),
        ("content_filter", "content_filter", False),
        ("tool_calls", "stop", True),
        ("stop_sequence", "stop", True),
        ("refusal", "content_filter", True),
        ("pause", "stop", True),
        ("context_window", "length", True),
        ("other", "stop", True),
    ],
)
def test_reasons_of_another_format(reason: StopReason, word: str, noted: bool) -> None:
    events = (START, PartStart(0, Text("a")), PartStop(0), ChoiceStop(reason, "x"), *END)
    encoded = CODEC.encode_response(events, CONTEXT)
    encoder = CODEC.stream_encoder(CONTEXT)
    sent: Any = payloads(encoder.encode(Chunk(events)))
    assert json.loads(encoded.body)["choices"][0]["finish_reason"] == word
    assert sent[-1]["choices"][0]["finish_reason"] == word
    for losses in (encoded.losses, encoder.losses):
        assert (("emulated", "choices[0].finish_reason") in [(loss.kind, loss.path) for loss in losses]) is noted


def test_no_reason_and_half_a_usage() -> None:
    events = (START, PartStart(0, Text("a")), PartStop(0), UsageReport(Usage(output_tokens=3)))
    encoded = CODEC.encode_response(events, CONTEXT)
    encoder = CODEC.stream_encoder(CONTEXT)
    sent: Any = payloads(encoder.encode(Chunk(events)) + encoder.close(None))
    whole = json.loads(encoded.body)
    assert whole["choices"][0]["finish_reason"] == sent[-2]["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"] == sent[-1]["usage"] == {"prompt_tokens": 0, "completion_tokens": 3, "total_tokens": 3}
    for losses in (encoded.losses, encoder.losses):
        minted = {loss.path for loss in losses if loss.kind == "minted"}
        assert minted == {"id", "created", "choices[0].finish_reason", "usage.prompt_tokens"}


def test_a_failure_is_no_answer() -> None:
    events = (START, PartStart(0, Text("a")), PartStop(0), ChoiceStop("error", "x"), *END)
    with pytest.raises(UpstreamError):
        CODEC.encode_response(events, CONTEXT)
    sent = stream(events)
    assert b"[DONE]" not in sent and "error" in payloads(sent)[-1]


def test_log_probabilities_cross() -> None:
    events = events_of(feed(load("logprobs.sse"))[0])
    chat = json.loads(OPENAI.encode_response(events, CONTEXT).body)["choices"][0]["logprobs"]["content"]
    assert chat == [
        {
            "token": "The",
            "logprob": -0.5,
            "top_logprobs": [{"token": "The", "logprob": -0.5}, {"token": "A", "logprob": -2.25}],
        },
        {"token": " sky", "logprob": -0.5, "top_logprobs": [{"token": " sky", "logprob": -0.5}]},
    ]
    body = json.loads(OPENAI.encode_response(events, CONTEXT).body)
    back = CODEC.encode_response(OPENAI.decode_response(json.dumps(body).encode()), CONTEXT)
    assert json.loads(back.body)["choices"][0]["logprobs"] == {
        "tokens": ["The", " sky"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"The": -0.5, "A": -2.25}, {" sky": -0.5}],
        "text_offset": [0, 3],
    }


def test_the_first_token_of_an_echo_has_no_probability() -> None:
    arrays = {"tokens": ["Say", " it"], "token_logprobs": [None, -1.5], "top_logprobs": [None, {" it": -1.5}]}
    choice = {"text": "Say it", "index": 0, "logprobs": {**arrays, "text_offset": [0, 3]}, "finish_reason": "length"}
    body = {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    encoded = CODEC.encode_response(CODEC.decode_response(json.dumps(body).encode()), CONTEXT)
    assert json.loads(encoded.body) == body


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b'{"choices":7}', "malformed"),
        (b'{"choices":[{"text":7}]}', "malformed"),
        (b'{"error":{"message":"busy","code":"engine_overloaded"}}', "overloaded"),
        (b'{"choices":[{"text":"x","finish_reason":"error"}]}', "upstream_error"),
    ],
)
def test_an_answer_that_is_none(body: bytes, kind: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_response(body)
    assert caught.value.kind == kind


# -- as OpenAI's SDK reads them


@pytest.mark.parametrize("name", PAIRS)
def test_the_sdk_reads_our_answers(name: str) -> None:
    events = CODEC.decode_response(load(f"{name}.json"))
    whole = Completion.model_validate_json(CODEC.encode_response(events, CONTEXT).body)
    frames: Any = [Completion.construct(**payload) for payload in payloads(stream(events))]
    for number, choice in enumerate(whole.choices):
        pieces = [it.text for frame in frames for it in frame.choices if it.index == number]
        assert "".join(pieces) == choice.text
        reasons = [it.finish_reason for frame in frames for it in frame.choices if it.index == number]
        assert [reason for reason in reasons if reason] == [choice.finish_reason]
    if whole.usage is not None:
        assert frames[-1].usage == whole.usage


# -- errors


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            404,
            b'{"error":{"message":"The model x does not exist","type":"invalid_request_error","code":null}}',
            "not_found",
        ),
        (400, b'{"error":{"message":"This model\'s maximum context length is 4097 tokens"}}', "context_length"),
        (429, b'{"error":{"message":"quota","type":"insufficient_quota","code":"insufficient_quota"}}', "quota"),
        (429, b'{"error":{"message":"slow"}}', "rate_limit"),
        (401, b'{"error":{"message":"bad key sk-abcdefghijk","code":"invalid_api_key"}}', "auth"),
        (400, b'{"object":"error","message":"nope","type":"BadRequestError","code":400}', "invalid_request"),
        (404, b'{"error":{"message":"This is a chat model","type":"invalid_request_error","code":"x"}}', "not_found"),
        (500, b"<html>", "upstream_error"),
        (503, b"", "unavailable"),
        (422, b'{"detail":[{"msg":"field required"}]}', "invalid_request"),
        (500, b"[" * 100_000, "upstream_error"),
    ],
)
def test_what_an_error_means(status: int, body: bytes, kind: str) -> None:
    error = CODEC.decode_error(status, {"x-request-id": "p1"}, body)
    assert (error.kind, error.status, error.request_id) == (kind, status, "p1")
    _, _, sent = CODEC.encode_error(error, "r1")
    assert b"abcdefghijk" not in sent
    if body.startswith(b'{"error":{') and b"sk-" not in body:
        assert sent == body
    else:
        assert set(json.loads(sent)["error"]) == {"message", "type", "param", "code", "request_id"}


@pytest.mark.parametrize(("error", "owed"), [(Cancelled("left"), False), (Overloaded("busy"), True)])
def test_what_is_owed_after_an_error(error: GatewayError, owed: bool) -> None:
    encoder = CODEC.stream_encoder(CONTEXT)
    encoder.encode(Chunk((START,)))
    sent = encoder.close(error)
    assert bool(sent) is owed
    assert encoder.close(None) == b""


def test_our_errors() -> None:
    status, headers, body = CODEC.encode_error(RateLimited("slow", retry_after_s=1.5), "r1")
    assert (status, headers["retry-after"]) == (429, "2")
    assert json.loads(body)["error"] == {
        "message": "slow",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit",
        "request_id": "r1",
    }
