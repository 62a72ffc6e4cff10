"""Streams of anthropic.messages: frames into events, events into frames, cut anywhere, in the order the API keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic._models import construct_type
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from headgate.gateway.codecs.anthropic_messages import CODEC, encoder
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.errors import Cancelled, Cut, GatewayError, Malformed, Overloaded, UpstreamError
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
    Wire,
)
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import Citation, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace
from pydantic import TypeAdapter

CORPUS = Path(__file__).parent.parent / "corpus" / "anthropic_messages" / "streams"
NAMES = sorted(path.stem for path in CORPUS.glob("*.sse"))
CLEAN = [name for name in NAMES if name != "error"]
OWN = "anthropic.messages"
WIRE = Wire(OWN, "sse")
CONTEXT = AnswerContext(request_id="r1", model="asked")


def read(name: str) -> bytes:
    return (CORPUS / f"{name}.sse").read_bytes()


def pieces(data: bytes, size: int) -> Iterable[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def decode(parts: Iterable[bytes]) -> tuple[list[Event], bytes, UpstreamError | None]:
    decoder = CODEC.stream_decoder()
    events: list[Event] = []
    raw = b""
    for part in (*parts, None):
        chunk = decoder.feed(part) if part is not None else decoder.close()
        if chunk is not None:
            assert chunk.wire == WIRE and chunk.raw is not None
            events += chunk.events
            raw += chunk.raw
    return events, raw, decoder.error


def encode(*chunks: Chunk | tuple[Event, ...], error: GatewayError | None = None) -> bytes:
    written = CODEC.stream_encoder(CONTEXT)
    out = [written.encode(chunk if isinstance(chunk, Chunk) else Chunk(chunk)) for chunk in chunks]
    return b"".join((*out, written.close(error)))


def frames(data: bytes) -> list[dict[str, Any]]:
    out = []
    for frame in data.split(b"\n\n")[:-1]:
        name, text = frame.split(b"\n")
        parsed = json.loads(text.removeprefix(b"data: "))
        assert name == b"event: " + parsed["type"].encode()
        out.append(parsed)
    return out


def kinds(data: bytes) -> list[str]:
    """Event types in short, with the number of their block."""
    short = {"content_block_start": "start", "content_block_delta": "delta", "content_block_stop": "stop"}
    return [short.get(f["type"], f["type"]) + (str(f["index"]) if "index" in f else "") for f in frames(data)]


def accumulated(data: bytes) -> dict[str, Any]:
    """What the SDK makes of a stream; every event must be one that it knows."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for frame in frames(data):
        if frame["type"] != "ping":
            event: Any = construct_type(type_=RawMessageStreamEvent, value=frame)
            TypeAdapter(type(event)).validate_python(frame)
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    result: dict[str, Any] = snapshot.to_dict()
    return result


START = ResponseStart("msg_01", "claude-opus-5-5", format=OWN)
DECODED: dict[str, tuple[Event, ...]] = {
    "text": (
        START,
        PartStart(0, Text("")),
        Keepalive(),
        PartDelta(0, "Hello"),
        PartDelta(0, "! Grüße 🌍"),
        PartStop(0),
        ChoiceStop("stop", "end_turn"),
        ResponseStop(),
        Terminator(),
    ),
    "compaction": (
        START,
        Keepalive(),
        PartStart(0, Opaque(OWN, "compaction", b'{"type":"compaction","content":"Summary of it all"}')),
        PartStop(0),
        PartStart(1, Text("")),
        PartDelta(1, "ok"),
        PartStop(1),
        ChoiceStop("pause", "compaction"),
        ResponsePatch({"context_management": Raw(b'{"applied_edits":[]}')}),
        ResponseStop(),
        Terminator(),
    ),
    "thinking": (
        START,
        PartStart(0, Reasoning("", "", origin=OWN)),
        PartDelta(0, "I need the GCD"),
        PartDelta(0, " of 1071 and 462."),
        PartPatch(0, signature="EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds=="),
        PartStop(0),
        PartStart(1, Reasoning(redacted="EmwKAhgBEgy3va3pzix=", origin=OWN)),
        PartStop(1),
        PartStart(2, Text("")),
        PartDelta(2, "21"),
        PartStop(2),
        ChoiceStop("stop", "end_turn"),
        ResponseStop(),
        Terminator(),
    ),
    "tool_use": (
        ResponseStart("msg_014p7gG3wDgGV9EUtLvnow3U", "claude-opus-5-5", format=OWN),
        PartStart(0, Text("")),
        Keepalive(),
        PartDelta(0, "Okay, let's check the weather:"),
        PartStop(0),
        PartStart(1, ToolCall("toolu_01T1x1fJ34qAmk2tNTrN7Up6", "get_weather")),
        PartDelta(1, '{"location":'),
        PartDelta(1, ' "San Francisco, CA", "days": 1.0}'),
        PartStop(1),
        PartStart(2, ToolCall("toolu_02", "now", extra={"caller": Raw(b'{"type":"direct"}')})),
        PartDelta(2, "{}"),
        PartStop(2),
        ChoiceStop("tool_calls", "tool_use"),
        ResponseStop(),
        Terminator(),
    ),
    "unknown": (
        START,
        PartStart(0, Text("", extra={"mood": Raw(b'"calm"')})),
        PartDelta(0, "a"),
        PartPatch(0, extra={"content_block_delta": Raw(b'{"p":1.0}')}),
        PartDelta(0, "b"),
        PartPatch(0, extra={"text_delta": Raw(b'{"type":"text_delta","text":"","logit":[1.0,2]}')}),
        PartPatch(0, extra={"mood_delta": Raw(b'{"type":"mood_delta","mood":"glad"}')}),
        PartStop(0),
        Alien(OWN, "weather_report", b'{"type":"weather_report","sky":{"blue":true}}'),
        Keepalive(),
        PartStart(1, Opaque(OWN, "hologram", b'{"type":"hologram","depth":3}')),
        PartStop(1),
        ChoiceStop("other", "a_new_reason"),
        ResponseStop(),
        Terminator(),
    ),
}


@pytest.mark.parametrize("name", sorted(DECODED))
def test_events(name: str) -> None:
    events, raw, error = decode([read(name)])
    assert error is None
    assert raw == read(name)
    assert tuple(event for event in events if not isinstance(event, UsageReport)) == DECODED[name]


@pytest.mark.parametrize("name", NAMES)
def test_cut_anywhere(name: str) -> None:
    data = read(name)
    whole = decode([data])
    for changed in (data, data.replace(b"\n", b"\r\n")):
        for size in (1, 2, 7, 64):
            events, raw, error = decode(pieces(changed, size))
            assert events == whole[0]
            assert raw == changed[: len(raw)] and (error is None or name == "error")
            assert type(error) is type(whole[2])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_any_two_cuts(name: str, data: st.DataObject) -> None:
    body = read(name)
    a, b = sorted(data.draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    assert decode([body[:a], body[a:b], body[b:]])[0] == decode([body])[0]


def test_usage_is_cumulative() -> None:
    reports = [event.usage for event in decode([read("tool_use")])[0] if isinstance(event, UsageReport)]
    assert [(u.input_tokens, u.uncached_input_tokens, u.cache_read_input_tokens, u.output_tokens) for u in reports] == [
        (600, 472, 128, 2),
        (600, 472, 128, 89),
    ]
    assert set(reports[-1].raw) >= {"cache_creation", "service_tier"}
    assert decode([read("thinking")])[0][-3].usage.reasoning_output_tokens == 33  # type: ignore[union-attr]


@pytest.mark.parametrize("name", CLEAN)
def test_an_end_before_message_stop_is_cut(name: str) -> None:
    data = read(name)
    for end in range(0, data.rindex(b"event: message_stop"), 7):
        error = decode([data[:end]])[2]
        assert isinstance(error, Cut), data[max(0, end - 40) : end]
    # The blank line after message_stop may be missing, its words may not.
    assert decode([data.rstrip()])[2] is None
    assert isinstance(decode([data.rstrip()[:-1]])[2], Cut)


def test_error_in_band() -> None:
    data = read("error")
    events, raw, error = decode([data])
    at = data.index(b"event: error")
    assert raw == data[:at]
    assert isinstance(error, Overloaded) and error.raw == data[at:] and error.format == OWN
    assert events[-1] == PartDelta(0, "Hel")
    written = CODEC.stream_encoder(CONTEXT)
    assert written.encode(Chunk(tuple(events), raw, WIRE)) + written.close(error) == data


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (b"event: content_block_delta\ndata: {nonsense", "malformed"),
        (b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"x"}}', "malformed"),
        (b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}', "malformed"),
        (b'event: message_start\ndata: {"type":"message_start"}', "malformed"),
        (b'event: content_block_start\ndata: {"type":"content_block_start","index":-1}', "malformed"),
        (b"data: [DONE]", "malformed"),
        (b"event: error\ndata: oops", "malformed"),
        (b'data: {"error":{"message":"busy","type":"overloaded_error"}}', "overloaded"),
        (b'event: error\ndata: {"type":"error","error":{"type":"rate_limit_error","message":"m"}}', "rate_limit"),
        (b'event: error\ndata: {"type":"error","error":{"type":"new_error","message":"m"}}', "upstream_error"),
    ],
)
def test_faults(frame: bytes, kind: str) -> None:
    good = read("text").split(b"event: message_delta")[0]
    for size in (1, 10_000):
        events, raw, error = decode(pieces(good + frame + b"\n\n" + good, size))
        assert error is not None and error.kind == kind
        assert raw == good
        assert events == decode([good])[0]


def test_nothing_comes_after_a_fault() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed(b"data: x\n\n")
    error = decoder.error
    assert decoder.feed(read("text")) is None and decoder.close() is None and decoder.error is error


def test_input_that_was_cut_short_stays_as_it_came() -> None:
    data = read("tool_use").replace(b', \\"days\\": 1.0}', b"")
    call = fold(decode([data])[0]).choices[0].parts[1]
    assert isinstance(call, ToolCall) and call.arguments == '{"location": "San Francisco, CA"'


def test_input_at_the_start_counts_when_no_delta_comes() -> None:
    start = (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use",'
    )
    start += b'"id":"a","name":"f","input":{"x": 1.0}}}\n\n'
    stop = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    assert decode([start + stop])[0] == [PartStart(0, ToolCall("a", "f")), PartDelta(0, '{"x": 1.0}'), PartStop(0)]


def test_a_block_above_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.gateway.codecs.anthropic_messages.stream.MAX_FRAME_BYTES", 2000)
    start = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"hologram"}}\n\n'
    delta = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"h","%d":1}}\n\n'
    error = decode([start, *(delta % i for i in range(100))])[2]
    assert isinstance(error, Malformed)


@pytest.mark.parametrize("name", CLEAN)
def test_own_stream_passes_as_it_came(name: str) -> None:
    data = read(name)
    for size in (1, 100, 10_000):
        decoder, written = CODEC.stream_decoder(), CODEC.stream_encoder(CONTEXT)
        out = b""
        for piece in pieces(data, size):
            if (chunk := decoder.feed(piece)) is not None:
                out += written.encode(chunk)
        assert out + written.close(None) == data
        assert written.losses == []


@pytest.mark.parametrize("name", CLEAN)
def test_own_stream_written_anew_says_the_same(name: str) -> None:
    events = decode([read(name)])[0]
    for chunks in ([(event,) for event in events], [tuple(events)]):
        written = encode(*chunks)
        again, _, error = decode([written])
        assert error is None
        assert fold(again) == fold(events)
        if name not in ("unknown", "compaction", "stop_details") and len(chunks) == 1:
            assert accumulated(written) == accumulated(strip(read(name)))


def strip(data: bytes) -> bytes:
    return data.split(b"\n", 1)[1]


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("turn", [0, 1])
def test_a_chunk_that_was_changed_in_between(name: str, turn: int) -> None:
    """Every other chunk has lost its bytes, as after a redaction: the caller sees one stream all the same."""
    decoder, written = CODEC.stream_decoder(), CODEC.stream_encoder(CONTEXT)
    out = b""
    for i, piece in enumerate(pieces(read(name), 150)):
        if (chunk := decoder.feed(piece)) is not None:
            out += written.encode(Chunk(chunk.events) if i % 2 == turn else chunk)
    out += written.close(None)
    assert fold(decode([out])[0]) == fold(decode([read(name)])[0])
    if name != "unknown":  # where the pieces of unknown members go has its own test
        assert borders(out[out.index(b"event:") :]) == borders(strip(read(name)))


def borders(data: bytes) -> list[str]:
    return [kind for kind in kinds(data) if kind != "ping" and not kind.startswith("delta")]


def chat(*events: Event, usage: Usage | None = None, reason: str = "stop") -> list[tuple[Event, ...]]:
    """A foreign stream, one event a chunk; the usage comes after the reason to stop."""
    end: tuple[Event, ...] = (ChoiceStop(reason, reason),)  # type: ignore[arg-type]
    if usage is not None:
        end += (UsageReport(usage),)
    every = (ResponseStart("chatcmpl-1", "gpt", format="openai.chat"), *events, *end, ResponseStop(), Terminator())
    return [(event,) for event in every]


def test_a_foreign_stream() -> None:
    usage = Usage(input_tokens=120, cache_read_input_tokens=20, output_tokens=9, reasoning_output_tokens=4)
    out = encode(
        *chat(
            PartStart(0, Reasoning("", origin="openai.chat")),
            PartDelta(0, "hm"),
            PartStop(0),
            PartStart(1, Text("")),
            PartDelta(1, ""),
            PartDelta(1, 'a "quoted"\n'),
            PartStop(1),
            PartStart(2, ToolCall("call_1", "f")),
            PartDelta(2, '{"x":'),
            PartDelta(2, "1.0}"),
            PartStop(2),
            usage=usage,
            reason="tool_calls",
        )
    )
    assert " ".join(kinds(out)) == (
        "message_start start0 delta0 stop0 start1 delta1 stop1 start2 delta2 delta2 stop2 message_delta message_stop"
    )
    first, last = frames(out)[0], frames(out)[-2]
    assert first["message"] == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
    assert last == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {
            "input_tokens": 100,
            "cache_read_input_tokens": 20,
            "output_tokens": 9,
            "output_tokens_details": {"thinking_tokens": 4},
        },
    }
    message = accumulated(out)
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": 'a "quoted"\n'},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1.0}},
    ]
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (100, 9)


def test_usage_in_the_same_read_is_told_at_the_start() -> None:
    events = tuple(event for chunk in chat(PartStart(0, Text("a")), usage=Usage(5, output_tokens=7)) for event in chunk)
    out = encode(events)
    assert frames(out)[0]["message"]["usage"] == {"input_tokens": 5, "output_tokens": 0}
    assert frames(out)[-2]["usage"] == {"input_tokens": 5, "output_tokens": 7}


def test_calls_that_grow_at_the_same_time_lose_nothing() -> None:
    events: list[Event] = [PartStart(0, Text("t"))]
    events += [PartStart(i, ToolCall(f"c{i}", "f", "{")) for i in (1, 2, 3)]
    for k in range(3):
        events += [PartDelta(i, f'"{k}":{i}{"," if k < 2 else ""}') for i in (3, 1, 2, 0)]
    events += [PartDelta(i, "}") for i in (1, 2, 3)]
    for stops in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], []):
        out = encode(*chat(*events, *(PartStop(i) for i in stops), reason="tool_calls"))
        order = kinds(out)
        assert [kind for kind in order if kind.startswith("st")] == [
            kind for i in range(4) for kind in (f"start{i}", f"stop{i}")
        ]
        message = accumulated(out)
        assert message["content"][0]["text"] == 't"0":0,"1":0,"2":0'
        assert [block["input"] for block in message["content"][1:]] == [{"0": i, "1": i, "2": i} for i in (1, 2, 3)]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "MAX_HELD_BYTES", 1000)
    written = CODEC.stream_encoder(CONTEXT)
    written.encode(Chunk((PartStart(0, Text("")), PartStart(1, Text("")))))
    more = Chunk((PartDelta(1, "x" * 100),) * 10)
    with pytest.raises(Malformed):
        written.encode(more)


def test_a_citation_that_comes_late_is_kept_while_its_text_waits_and_noted_when_it_is_gone() -> None:
    cited = Citation(OWN, "char_location", b'{"type":"char_location"}')
    writer = CODEC.stream_encoder(CONTEXT)
    events: list[Event] = [ResponseStart("a", "m"), PartStart(0, ToolCall("c", "f")), PartStart(1, Text("x"))]
    events += [PartStop(1), PartPatch(1, citation=cited), PartStop(0), PartPatch(1, citation=cited)]
    out = writer.encode(Chunk(tuple(events)))
    assert out.count(b"citations_delta") == 1
    assert out.index(b"citations_delta") < out.rindex(b"content_block_stop")
    assert [(loss.path, loss.what) for loss in writer.losses if loss.kind == "lost"] == [
        ("content[1].citations", "citations")
    ]


@pytest.mark.parametrize("rest", [b"eve", b"event: message_stop", b"event: message_stop\ndata: {", b": pin"])
def test_half_a_frame_goes_nowhere(rest: bytes) -> None:
    frame = b'event: ping\ndata: {"type": "ping"}\n\n'
    events, raw, error = decode([frame + rest])
    assert (events, raw) == ([Keepalive()], frame)
    assert isinstance(error, Cut)


def test_losses_are_noted_once() -> None:
    other = Citation("openai.chat", "url_citation", b"{}")
    written = CODEC.stream_encoder(CONTEXT)
    chunks = chat(
        PartStart(0, Refusal("")),
        PartDelta(0, "no", logprobs=Raw(b"{}")),
        PartDelta(0, "pe", logprobs=Raw(b"{}")),
        PartPatch(0, citation=other),
        PartPatch(0, extra={"x": Raw(b"1")}),
        PartStop(0),
        PartStart(1, Text(""), choice=1),
        PartDelta(1, "second", choice=1),
        PartStop(1, choice=1),
        PartStart(2, Media("audio")),
        PartDelta(2, "UklG"),
        PartStop(2),
        PartStart(3, Opaque("openai.chat", "annotation", b"{}")),
        PartStop(3),
        PartStart(4, ToolResult("a", server="web_search_call")),
        PartStop(4),
        PartStart(5, ToolCall("", "apply", kind="custom")),
        PartDelta(5, 'a "b"'),
        PartDelta(5, "\n"),
        PartStop(5),
        PartStart(6, Reasoning("", origin="gemini")),
        PartDelta(6, "t"),
        PartPatch(6, signature="theirs"),
        PartStop(6),
        ChoicePatch(0, {"annotations": Raw(b"[1]")}),
        ChoiceStop("stop", choice=1),
        Alien("openai.chat", "odd", b"{}"),
    )
    out = b"".join(written.encode(Chunk(chunk)) for chunk in chunks) + written.close(None)
    message = accumulated(out)
    assert message["content"] == [
        {"type": "text", "text": "nope"},
        {"type": "tool_use", "id": "toolu_r1_1", "name": "apply", "input": {"input": 'a "b"\n'}},
        {"type": "thinking", "thinking": "t", "signature": ""},
    ]
    assert message["stop_reason"] == "tool_use"
    assert [f"{loss.kind} {loss.what}" for loss in written.losses] == [
        "minted usage",
        "emulated refusal",
        "lost logprobs",
        "lost citations",
        "lost x",
        "lost choices",
        "lost audio",
        "lost annotation",
        "lost tool result",
        "minted tool call id",
        "emulated custom tool call",
        "lost reasoning signature",
        "lost annotations",
        "lost odd",
        "emulated tool_use",
    ]


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("stop_sequence", "stop_sequence"),
        ("content_filter", "refusal"),
        ("refusal", "refusal"),
        ("pause", "pause_turn"),
        ("context_window", "model_context_window_exceeded"),
    ],
)
def test_stop_reasons(reason: str, word: str) -> None:
    assert frames(encode(*chat(PartStart(0, Text("a")), reason=reason)))[-2]["delta"]["stop_reason"] == word


def test_an_answer_that_ended_with_an_error_has_no_clean_end() -> None:
    out = encode(*chat(PartStart(0, Text("a")), reason="error"))
    assert kinds(out)[-1] == "error" and "message_stop" not in kinds(out)


def test_close_writes_what_is_owed_once() -> None:
    events = (START, PartStart(0, Text("a")), ChoiceStop("length", "length"))
    written = CODEC.stream_encoder(CONTEXT)
    first = written.encode(Chunk(events))
    assert kinds(first) == ["message_start", "start0", "delta0"]
    assert kinds(written.close(None)) == ["stop0", "message_delta", "message_stop"]
    assert written.close(None) == written.close(Cut("late")) == written.encode(Chunk((PartDelta(0, "x"),))) == b""


def test_close_with_an_error_never_ends_clean() -> None:
    events = (START, PartStart(0, Text("a")), ChoiceStop("length", "length"))
    out = encode(events, error=Cut("the line broke"))
    assert kinds(out)[-1] == "error" and "message_delta" not in kinds(out)
    assert frames(out)[-1]["error"] == {"type": "api_error", "message": "the line broke", "code": "cut"}
    assert (
        encode(events, error=Cancelled("gone")) == encode(events)[: encode(events).index(b"event: content_block_stop")]
    )


def test_an_empty_answer_is_a_whole_stream() -> None:
    out = encode()
    assert kinds(out) == ["message_start", "message_delta", "message_stop"]
    message = frames(out)[0]["message"]
    assert (message["id"], message["model"]) == ("msg_r1", "asked")


def test_a_second_start_is_the_same_answer() -> None:
    """After a splice another provider goes on: its frames do not pass as they came."""
    first, second = read("text"), read("tool_use")
    cut = first.index(b"event: message_delta")
    decoder, written = CODEC.stream_decoder(), CODEC.stream_encoder(CONTEXT)
    chunk = decoder.feed(first[:cut])
    assert chunk is not None
    out = written.encode(chunk)
    assert out == first[:cut]
    follow = CODEC.stream_decoder().feed(second)
    assert follow is not None
    out = strip(out) + written.encode(follow) + written.close(None)
    starts = [kind for kind in kinds(out) if kind.startswith("start") or kind == "message_start"]
    assert starts == ["message_start", "start0", "start1", "start2", "start3"]
    assert accumulated(out)["content"][1]["text"] == "Okay, let's check the weather:"


def test_no_name_and_no_block_can_break_a_frame() -> None:
    """JSON from elsewhere may be indented, and an event's name may be anything: neither may end a line."""
    events: tuple[Event, ...] = (
        START,
        PartStart(0, Opaque(OWN, "x", b'{\r\n "type": "x",\n\n "y": "a\\nb"}')),
        PartStop(0),
        Alien(OWN, "a\n\ndata: b", b'{"type":"a",\n\n"z":1}'),
        ChoiceStop("stop", "end_turn"),
    )
    out = encode(events)
    assert out.count(b"\n\n") == 6 and b"\r" not in out
    assert b'event: a data: b\ndata: {"type":"a",  "z":1}\n\n' in out


def test_ping() -> None:
    written = CODEC.stream_encoder(CONTEXT)
    assert written.ping == b'event: ping\ndata: {"type": "ping"}\n\n'
    assert written.encode(Chunk((Keepalive(),))) == written.ping


def test_the_sdk_reads_our_stream() -> None:
    body = encode(*chat(PartStart(0, Text("")), PartDelta(0, "Hi"), PartStop(0), usage=Usage(3, output_tokens=2)))
    body = body.replace(b"event: message_delta", encoder.PING + b"event: message_delta")

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as http,
        anthropic.Anthropic(api_key="k", base_url="http://localhost", http_client=http) as client,
        client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "a"}]) as stream,
    ):
        message = stream.get_final_message()
    assert (message.content[0].text, message.stop_reason) == ("Hi", "end_turn")  # type: ignore[union-attr]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 2)


PARTS = st.one_of(
    st.builds(Text, st.text('ab\n"é', max_size=6)),
    st.builds(lambda text: Reasoning(text, origin="openai.chat"), st.text("xy", max_size=6)),
    st.builds(lambda n: ToolCall("c", "f", json.dumps({"k": "v" * n})), st.integers(0, 9)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(PARTS, max_size=5), st.data())
def test_any_order_of_open_parts_gives_the_same_message(parts: list[Part], data: st.DataObject) -> None:
    """However a provider interleaves its parts, the stream and the whole answer are one message."""
    steps: list[list[Event]] = []
    for i, part in enumerate(parts):
        words = part.arguments if isinstance(part, ToolCall) else part.text  # type: ignore[union-attr]
        cut = data.draw(st.integers(0, len(words)))
        empty = replace(part, arguments="") if isinstance(part, ToolCall) else replace(part, text="")
        steps.append([PartStart(i, empty), PartDelta(i, words[:cut]), PartDelta(i, words[cut:]), PartStop(i)])
    events: list[Event] = [ResponseStart("id", "m", format="openai.chat")]
    started = 0
    while any(steps):
        ready = [i for i, rest in enumerate(steps) if rest and i <= started]
        turn = data.draw(st.sampled_from(ready))
        started = max(started, turn + 1)
        events.append(steps[turn].pop(0))
    events += [ChoiceStop("stop", "stop"), UsageReport(Usage(5, output_tokens=1)), ResponseStop(), Terminator()]
    size = data.draw(st.integers(1, len(events)))
    out = encode(*(tuple(events[i : i + size]) for i in range(0, len(events), size)))
    again, _, error = decode([out])
    assert error is None
    assert fold(again) == fold(CODEC.decode_response(CODEC.encode_response(events, CONTEXT).body))
