"""Streams of gemini in both framings: frames into events, events into frames, cut anywhere, ends and failures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import errors as google_errors
from headgate.gateway import registry
from headgate.gateway.codecs.gemini import ARRAY_CODEC, CODEC, encoder
from headgate.gateway.codecs.gemini.stream import ARRAY, SSE
from headgate.gateway.errors import Cancelled, Cut, GatewayError, Malformed, Overloaded
from headgate.gateway.ir.event import (
    Alien,
    ChoicePatch,
    ChoiceStop,
    Chunk,
    Event,
    Keepalive,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponsePatch,
    ResponseStart,
    ResponseStop,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import Media, Opaque, Reasoning, Refusal, Text, ToolCall
from headgate.gateway.wire.array import ArrayFramer, NotAnArray
from headgate.gateway.wire.sse import FrameTooLarge
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from .gemini_cases import (
    CONTEXT,
    FRAMINGS,
    STREAMS,
    as_array,
    decode,
    encode,
    events_of,
    heard,
    payloads,
    pieces,
    plain,
    stream,
)

OWN = "gemini"
CLEAN = [name for name in STREAMS if name != "error"]
framed = pytest.mark.parametrize("framing", ["sse", "array"])


def frame(*parts: Any, finish: str | None = None, **more: Any) -> bytes:
    """A frame of one candidate."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return b"data: " + json.dumps({"candidates": [candidate], **more}).encode() + b"\n\n"


def signed(text: str, signature: str) -> dict[str, Any]:
    return {"text": text, "thoughtSignature": signature}


EVENTS: dict[str, tuple[Event, ...]] = {
    "text": (
        PartStart(0, Text("")),
        PartDelta(0, "AI works"),
        PartDelta(0, " by learning. Grüße 🌍"),
        PartDelta(0, " Done."),
        PartStop(0),
        ChoiceStop("stop", "STOP"),
        ResponseStop(),
        Terminator(),
    ),
    "thinking": (
        PartStart(0, Reasoning(origin=OWN)),
        PartDelta(0, "First "),
        PartDelta(0, "I count."),
        PartStop(0),
        PartStart(1, Text("")),
        PartDelta(1, "Th"),
        PartDelta(1, "ree."),
        PartStop(1),
        PartStart(2, Opaque(OWN, "thoughtSignature", b'{"text": "", "thoughtSignature": "AY89a18iOc/+"}')),
        PartStop(2),
        ChoiceStop("stop", "STOP"),
        ResponseStop(),
        Terminator(),
    ),
    "tools": (
        PartStart(0, Text("")),
        PartDelta(0, "I look."),
        PartStop(0),
        PartStart(1, ToolCall("fc1", "check_flight", extra={"thoughtSignature": Raw(b'"EjQKMgEM/+8="')})),
        PartDelta(1, '{"flight": "AA100", "n": 1.5}'),
        PartStop(1),
        PartStart(2, ToolCall("", "check_flight")),
        PartDelta(2, "{}"),
        PartStop(2),
        ChoiceStop("tool_calls", "STOP"),
        ResponseStop(),
        Terminator(),
    ),
    "blocked": (
        ChoiceStop(
            "content_filter",
            "PROHIBITED_CONTENT",
            extra={
                "promptFeedback": Raw(
                    b'{"blockReason": "PROHIBITED_CONTENT", "safetyRatings": '
                    b'[{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]}'
                )
            },
        ),
        ResponseStop(),
        Terminator(),
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_events_of_a_stream(name: str) -> None:
    chunks, error = decode(CODEC, [stream(name, "sse")])
    assert error is None
    told = tuple(e for e in events_of(chunks) if not isinstance(e, Keepalive | ResponseStart | UsageReport))
    assert told == EVENTS[name]
    start = events_of(chunks)[0]
    assert start == ResponseStart("mAitaLmkHPPlz7IPvtfUqQ4", "gemini-3-pro-preview", format=OWN)


@framed
@pytest.mark.parametrize("name", STREAMS)
def test_every_cut_tells_the_same(name: str, framing: str) -> None:
    codec, data = FRAMINGS[framing], stream(name, framing)
    whole, error = decode(codec, [data])
    for size in (1, 2, 3, 7, 50):
        chunks, fault = decode(codec, pieces(data, size))
        assert events_of(chunks) == events_of(whole)
        assert type(fault) is type(error)
        assert b"".join(chunk.raw or b"" for chunk in chunks) == b"".join(chunk.raw or b"" for chunk in whole)
    if error is None:
        assert b"".join(chunk.raw or b"" for chunk in whole) == data


@framed
@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("size", [1, 40, 100_000])
def test_an_untouched_stream_goes_out_as_it_came(name: str, framing: str, size: int) -> None:
    codec, data = FRAMINGS[framing], stream(name, framing)
    chunks, _ = decode(codec, pieces(data, size))
    assert encode(codec, *chunks) == data


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@framed
@pytest.mark.parametrize("name", CLEAN)
def test_the_other_framing_holds_the_same_frames(name: str, framing: str, line_end: bytes) -> None:
    here, there = (CODEC, ARRAY_CODEC) if framing == "sse" else (ARRAY_CODEC, CODEC)
    data = stream(name, framing).replace(b"\n", line_end)
    chunks, _ = decode(here, pieces(data, 30))
    out = encode(there, *chunks)
    assert payloads(out) == payloads(data.replace(line_end, b"\n"))
    assert out.endswith(b"]" if framing == "sse" else b"\n\n")


@framed
@pytest.mark.parametrize("name", CLEAN)
def test_events_written_anew_tell_the_same(name: str, framing: str) -> None:
    codec = FRAMINGS[framing]
    events = events_of(decode(codec, [stream(name, framing)])[0])
    out = encode(codec, Chunk(tuple(events)))
    again, error = decode(codec, [out])
    assert error is None
    assert plain(fold(events_of(again))) == plain(fold(events))


@pytest.mark.parametrize("name", CLEAN)
def test_the_sdk_hears_the_same(name: str) -> None:
    data = stream(name, "sse")
    events = events_of(decode(CODEC, [data])[0])
    first, again = heard(data), heard(encode(CODEC, Chunk(tuple(events))))
    for answers in (first, again):
        assert answers
    text = ["".join(part.text or "" for a in answers for c in a.candidates or () if c.content for part in c.content.parts or ())
            for answers in (first, again)]  # fmt: skip
    assert text[0] == text[1]
    assert first[-1].usage_metadata == again[-1].usage_metadata
    assert first[-1].model_version == again[-1].model_version
    ends = [
        [c.finish_reason for a in answers for c in a.candidates or () if c.finish_reason] for answers in (first, again)
    ]
    assert sorted(ends[0]) == sorted(ends[1])


def test_texts_merge_and_signed_parts_do_not() -> None:
    data = (
        frame({"text": "a"})
        + frame({"text": "b"}, signed("c", "S"))
        + frame({"text": "d"}, {"text": ""}, finish="STOP")
    )
    events = events_of(decode(CODEC, [data])[0])
    parts = fold(events).choices[0].parts
    assert [(part.text, sorted(part.extra)) for part in parts if isinstance(part, Text)] == [
        ("ab", []),
        ("c", ["thoughtSignature"]),
        ("d", []),
    ]


def test_members_that_come_late_are_patches() -> None:
    data = frame({"text": "a"}, x=1) + frame({"text": "b"}, x=1, y=2) + frame(finish="STOP", x=3)
    events = events_of(decode(CODEC, [data])[0])
    assert [e.extra for e in events if isinstance(e, ResponsePatch)] == [{"y": Raw(b"2")}, {"x": Raw(b"3")}]
    assert events[0] == ResponseStart(extra={"x": Raw(b"1")}, format=OWN)


# -- ends


@framed
@pytest.mark.parametrize("name", ["text", "tools", "candidates", "thinking", "vertex"])
def test_a_stream_that_breaks_off_is_cut(name: str, framing: str) -> None:
    codec, frames = FRAMINGS[framing], payloads(stream(name, framing))
    for count in range(len(frames)):
        some = b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in frames[:count])
        data = some if framing == "sse" else as_array(some).rstrip(b"]\n") + b"\n,"
        chunks, error = decode(codec, [data])
        assert isinstance(error, Cut), count
        assert not any(isinstance(event, Terminator | ResponseStop) for event in events_of(chunks))
        out = encode(codec, *chunks, error=error)
        assert payloads(out)[:count] == frames[:count]
        assert payloads(out)[-1]["error"]["status"] == "INTERNAL"


def test_an_array_that_ends_without_a_reason_is_cut() -> None:
    chunks, error = decode(ARRAY_CODEC, [b'[{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n]'])
    assert isinstance(error, Cut)
    assert b"".join(chunk.raw or b"" for chunk in chunks) == b'[{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}'
    assert isinstance(decode(ARRAY_CODEC, [b"[]"])[1], Cut)
    assert isinstance(decode(ARRAY_CODEC, [b""])[1], Cut)
    assert isinstance(decode(CODEC, [b""])[1], Cut)


def test_a_frame_that_lacks_its_blank_line() -> None:
    whole = frame({"text": "a"}, finish="STOP")
    chunks, error = decode(CODEC, [whole.rstrip()])
    assert error is None
    assert b"".join(chunk.raw or b"" for chunk in chunks) == whole
    assert isinstance(decode(CODEC, [whole.rstrip()[:-3]])[1], Cut)


@pytest.mark.parametrize("rest", [b"\n", b"\r\n", b"\r", b" \n", b"\n\n\n"])
@pytest.mark.parametrize("size", [1, 1000])
def test_line_ends_after_the_last_frame(rest: bytes, size: int) -> None:
    data = frame({"text": "a"}) + frame({"text": "b"}, finish="STOP") + rest
    chunks, error = decode(CODEC, pieces(data, size))
    assert error is None
    assert b"".join(chunk.raw or b"" for chunk in chunks) == data
    assert isinstance(events_of(chunks)[-1], Terminator)
    assert encode(CODEC, *chunks) == data
    assert payloads(encode(ARRAY_CODEC, *chunks)) == payloads(data)


@framed
def test_a_call_told_in_fragments(framing: str) -> None:
    """As Vertex AI documents ``streamFunctionCallArguments``: the last fragment has no member at all."""
    fragments: list[dict[str, Any]] = [
        {"name": "dim", "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.level", "numberValue": 50}], "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.colour", "stringValue": "wa", "willContinue": True}], "willContinue": True},
        {"partialArgs": [{"jsonPath": "$.colour", "stringValue": "rm"}], "willContinue": True},
        {"id": "fc1"},
        {},
    ]
    data = b"".join(frame({"functionCall": it}) for it in fragments) + frame(finish="STOP")
    codec, data = FRAMINGS[framing], data if framing == "sse" else as_array(data)
    chunks, error = decode(codec, pieces(data, 50))
    assert error is None
    assert encode(codec, *chunks) == data
    told = fold(events_of(chunks)).choices[0].parts
    assert [json.loads(part.data)["functionCall"] for part in told if isinstance(part, Opaque)] == fragments
    bad = b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"args":{}}}]}}]}\n\n'
    assert isinstance(decode(CODEC, [bad])[1], Malformed)


@framed
@pytest.mark.parametrize(
    "bad",
    [
        b"{nonsense",
        b"7",
        b"[]",
        b'{"candidates":7}',
        b'{"candidates":[{"content":7}]}',
        b'{"candidates":[{"finishReason":7}]}',
        b'{"error":{}}',
    ],
)
def test_a_frame_that_makes_no_sense(bad: bytes, framing: str) -> None:
    good = frame({"text": "a"})
    data = good + b"data: %b\n\n" % bad
    if framing == "array":
        data = b"[" + good.strip()[6:] + b"\n," + bad + b"]"
    chunks, error = decode(FRAMINGS[framing], [data])
    assert isinstance(error, GatewayError)
    assert any(isinstance(event, PartDelta) for event in events_of(chunks))
    raw = b"".join(chunk.raw or b"" for chunk in chunks)
    assert raw == (good if framing == "sse" else b"[" + good.strip()[6:])


@framed
def test_an_error_in_a_stream(framing: str) -> None:
    codec = FRAMINGS[framing]
    chunks, error = decode(codec, [stream("error", framing)])
    assert isinstance(error, Overloaded)
    assert error.code == "UNAVAILABLE"
    out = encode(codec, *chunks, error=error)
    assert payloads(out) == payloads(stream("error", framing))
    if framing == "sse":
        with pytest.raises(google_errors.ServerError) as caught:
            heard(out)
        assert caught.value.code == 503


@framed
def test_an_error_of_ours(framing: str) -> None:
    codec = FRAMINGS[framing]
    chunks, _ = decode(codec, [stream("text", framing)[:400]])
    out = encode(codec, *chunks, error=Cut("the connection broke"))
    told = payloads(out)[-1]["error"]
    assert told["code"] == 502
    assert told["details"][0]["reason"] == "cut"
    assert payloads(encode(codec, error=Cut("x")))[-1]["error"]["message"] == "x"
    assert encode(codec, error=Cancelled("gone")) == b""


# -- events of others

START = ResponseStart("i", "m", 1, format="elsewhere")
END: tuple[Event, ...] = (ResponseStop(), Terminator())


def texts(data: bytes) -> list[Any]:
    """The parts of a stream, frame by frame."""
    return [c["content"]["parts"] for value in payloads(data) for c in value.get("candidates", ())]


@framed
def test_words_go_out_as_they_come(framing: str) -> None:
    written = FRAMINGS[framing].stream_encoder(CONTEXT)
    assert written.encode(Chunk((START,))) == b""
    assert written.encode(Chunk((PartStart(0, Text("")),))) == b""
    first = written.encode(Chunk((PartDelta(0, "Hel"),)))
    second = written.encode(Chunk((PartDelta(0, "lo"), PartStop(0))))
    rest = written.encode(Chunk((ChoiceStop("stop", "stop"), UsageReport(Usage(3, 3, output_tokens=2)), *END)))
    assert written.close(None) == b""
    assert texts(first + (b"]" if framing == "array" else b"")) == [[{"text": "Hel"}]]
    whole = first + second + rest
    assert texts(whole) == [[{"text": "Hel"}], [{"text": "lo"}], [{"text": ""}]]
    last = payloads(whole)[-1]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"]["totalTokenCount"] == 5
    assert all(value["modelVersion"] == "m" and value["responseId"] == "i" for value in payloads(whole))


@framed
def test_parallel_calls_come_whole_and_in_order(framing: str) -> None:
    events = (
        START,
        PartStart(0, Text("")),
        PartStart(1, ToolCall("a", "f")),
        PartStart(2, ToolCall("b", "g")),
        PartDelta(2, '{"y":'),
        PartDelta(1, '{"x":'),
        PartDelta(2, "2.0}"),
        PartStop(2),
        PartDelta(0, "words"),
        PartDelta(1, "1}"),
        PartStop(1),
        PartStop(0),
        ChoiceStop("tool_calls", "tool_calls"),
        *END,
    )
    out = b""
    written = FRAMINGS[framing].stream_encoder(CONTEXT)
    for event in events:
        out += written.encode(Chunk((event,)))
    out += written.close(None)
    assert texts(out)[:-1] == [
        [{"text": "words"}],
        [{"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}}],
        [{"functionCall": {"id": "b", "name": "g", "args": {"y": 2.0}}}],
    ]
    assert b'{"y":2.0}' in out
    if framing == "sse":
        calls = [call for answer in heard(out) for call in answer.function_calls or ()]
        assert [(call.id, call.args) for call in calls] == [("a", {"x": 1}), ("b", {"y": 2.0})]


@framed
def test_arguments_that_are_no_object_fail_the_stream(framing: str) -> None:
    events = (START, PartStart(0, Text("x")), PartStop(0), PartStart(1, ToolCall("a", "f")), PartDelta(1, '{"x":'))
    out = encode(FRAMINGS[framing], Chunk((*events, PartStop(1), ChoiceStop("tool_calls"), *END)))
    assert texts(out) == [[{"text": "x"}]]
    assert payloads(out)[-1]["error"]["details"][0]["reason"] == "malformed"


@framed
def test_a_reason_that_means_a_failure_is_no_end(framing: str) -> None:
    out = encode(
        FRAMINGS[framing], Chunk((START, PartStart(0, Text("x")), PartStop(0), ChoiceStop("error", "error"), *END))
    )
    assert "error" in payloads(out)[-1]
    assert b"finishReason" not in out


def test_proofs_that_come_after_the_words() -> None:
    own = ResponseStart(format=OWN)
    steps = (PartDelta(0, "hm"), PartPatch(0, signature="UQ=="), PartStop(0))
    out = encode(CODEC, Chunk((own, PartStart(0, Reasoning(origin=OWN)), *steps, ChoiceStop("stop", "STOP"), *END)))
    assert texts(out)[:2] == [
        [{"text": "hm", "thought": True}],
        [{"text": "", "thought": True, "thoughtSignature": "UQ=="}],
    ]
    written = CODEC.stream_encoder(CONTEXT)
    alien = PartStart(0, Reasoning(origin="anthropic.messages"))
    out = written.encode(Chunk((START, alien, *steps, ChoiceStop("stop"), *END)))
    assert b"thoughtSignature" not in out
    assert [loss.what for loss in written.losses] == ["reasoning signature"]


def test_what_a_stream_loses_is_noted_once() -> None:
    written = CODEC.stream_encoder(CONTEXT)
    events = [START, Alien("elsewhere", "odd", b"{}"), ChoicePatch(0, {"x": Raw(b"1")})]
    for index in range(3):
        events += [PartStart(index, Refusal("")), PartDelta(index, "no"), PartStop(index)]
    events += [PartStart(9, Opaque("elsewhere", "block", b"{}")), PartStop(9), ChoiceStop("refusal")]
    out = written.encode(Chunk((*events, *END)))
    assert texts(out)[:3] == [[{"text": "no"}]] * 3
    assert [(loss.kind, loss.what) for loss in written.losses] == [
        ("lost", "odd"),
        ("lost", "x"),
        ("emulated", "refusal"),
        ("lost", "block"),
    ]


def test_files_come_whole() -> None:
    media = (PartStart(0, Media("audio", "audio/wav")), PartDelta(0, "Ukl"), PartDelta(0, "G"), PartStop(0))
    out = encode(CODEC, Chunk((START, *media, ChoiceStop("stop"), *END)))
    assert texts(out)[0] == [{"inlineData": {"mimeType": "audio/wav", "data": "UklG"}}]


def test_log_probabilities_both_ways() -> None:
    events = events_of(decode(CODEC, [stream("logprobs", "sse")])[0])
    chat = registry.codec("openai.chat")
    body = json.loads(chat.encode_response(events, CONTEXT).body)
    content = body["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in content] == ["He", "l", "lo"]
    assert content[0]["top_logprobs"][1] == {"token": "x", "logprob": -1.25, "bytes": None, "token_id": 9}
    back = chat.decode_response(json.dumps(body).encode())
    told = json.loads(CODEC.encode_response(back, CONTEXT).body)["candidates"][0]["logprobsResult"]
    assert told["chosenCandidates"][2] == {"token": "lo", "logProbability": -0.5, "tokenId": 3}


@framed
def test_a_ping_between_frames(framing: str) -> None:
    codec = FRAMINGS[framing]
    written = codec.stream_encoder(CONTEXT)
    chunks, _ = decode(codec, pieces(stream("text", framing), 100))
    out = b"".join(written.ping + written.encode(chunk) for chunk in chunks) + written.close(None)
    assert payloads(out) == payloads(stream("text", framing))
    assert decode(codec, [out])[1] is None
    if framing == "sse":
        anew = CODEC.stream_encoder(CONTEXT)
        out = b"".join(anew.encode(Chunk((event,))) + anew.ping for event in events_of(chunks))
        assert "".join(answer.text or "" for answer in heard(anew.ping + out)) == "AI works by learning. Grüße 🌍 Done."


def test_raw_frames_and_new_ones_mix() -> None:
    """A stage that changes one chunk leaves the others as they are."""
    data = stream("tools", "sse")
    chunks, _ = decode(CODEC, pieces(data, 60))
    for number in range(len(chunks)):
        mixed = [Chunk(c.events) if i == number else c for i, c in enumerate(chunks)]
        again = events_of(decode(CODEC, [encode(CODEC, *mixed)])[0])
        assert plain(fold(again)) == plain(fold(events_of(chunks)))


def test_parts_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "MAX_HELD_BYTES", 1000)
    written = CODEC.stream_encoder(CONTEXT)
    written.encode(Chunk((START, PartStart(0, ToolCall("a", "f")))))
    for _ in range(30):
        written.encode(Chunk((PartDelta(0, "x" * 100),)))
    assert b"malformed" in written.close(None)


# -- the array framer


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text('a"\\[]{},🌍', max_size=3), st.text('"\\[]{},\n', max_size=5), max_size=3), max_size=4
    ),
    st.integers(1, 9),
    st.sampled_from([",", "\r\n,\r\n", " , "]),
)
def test_elements_of_an_array(values: list[dict[str, str]], size: int, comma: str) -> None:
    data = ("[" + comma.join(json.dumps(value, ensure_ascii=False) for value in values) + "] \n").encode()
    framer = ArrayFramer(10_000)
    fed = [framer.feed(piece) for piece in pieces(data, size)]
    assert b"".join(raw for raw, _ in fed) == data
    assert [json.loads(element) for _, elements in fed for element in elements] == values
    assert framer.ended


@pytest.mark.parametrize("data", [b"7", b"[7]", b'["x"]', b"[]]", b"[] x", b"}", b"]", b"[{}] {}", b"nonsense"])
def test_what_is_no_array(data: bytes) -> None:
    framer = ArrayFramer(1000)
    with pytest.raises(NotAnArray):
        _ = [framer.feed(data) for _ in range(2)]


def test_an_element_above_the_cap() -> None:
    framer = ArrayFramer(100)
    framer.feed(b"[{")
    with pytest.raises(FrameTooLarge):
        framer.feed(b'"' + b"x" * 200)


def test_a_lone_object_in_place_of_an_array() -> None:
    chunks, error = decode(ARRAY_CODEC, [b'{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}'])
    assert error is not None
    assert error.kind == "rate_limit"
    assert chunks == []


def test_the_wires_differ() -> None:
    assert (CODEC.streamed, ARRAY_CODEC.streamed) == (SSE, ARRAY)
    assert CODEC.whole == ARRAY_CODEC.whole
    assert ARRAY_CODEC.stream_content_type.startswith("application/json")


def test_a_bad_frame_is_malformed() -> None:
    assert isinstance(decode(CODEC, [b"data: {nonsense\n\n"])[1], Malformed)
