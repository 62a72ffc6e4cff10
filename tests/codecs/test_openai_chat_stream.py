"""Streams of Chat Completions: bytes to events, cut anywhere, and events to bytes."""

from __future__ import annotations

import msgspec
import pytest
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.openai_chat import CODEC
from headgate.gateway.codecs.openai_chat.stream_decoder import ChatStreamDecoder
from headgate.gateway.errors import Cancelled, Cut, RateLimited
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
from headgate.gateway.ir.message import Citation, Media, Opaque, Reasoning, Refusal, Text, ToolCall
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from .openai_chat_cases import CONTEXT, CORPUS, events_of, feed, frames, load, payloads

F = "openai.chat"
STREAMS = sorted(path.name for path in CORPUS.glob("*.sse"))
WHOLES = sorted(path.stem for path in CORPUS.glob("*.json") if path.stem != "agent_request")
START = ResponseStart("c1", "m", 5, format=F)


def start(id: str = "chatcmpl-123", model: str = "gpt-4o-mini") -> ResponseStart:
    return ResponseStart(id, model, 1694268190, format=F)


@pytest.mark.parametrize("name", STREAMS)
def test_any_cut_gives_the_same_events_and_bytes(name: str) -> None:
    data = load(name)
    whole, error = feed(data)
    assert error is None
    assert b"".join(chunk.raw or b"" for chunk in whole) == data
    for size in (1, 7):
        pieces, error = feed(data, [size] * (len(data) // size))
        assert error is None
        assert events_of(pieces) == events_of(whole)
        assert b"".join(chunk.raw or b"" for chunk in pieces) == data
    crlf = data.replace(b"\n", b"\r\n")
    pieces, error = feed(crlf, [len(crlf) // 3])
    assert error is None and events_of(pieces) == events_of(whole)
    assert b"".join(chunk.raw or b"" for chunk in pieces) == crlf


@settings(max_examples=60)
@given(st.sampled_from(STREAMS), st.lists(st.integers(1, 200), max_size=20))
def test_random_cuts(name: str, sizes: list[int]) -> None:
    data = load(name)
    pieces, error = feed(data, sizes)
    assert error is None and events_of(pieces) == events_of(feed(data)[0])


@pytest.mark.parametrize("name", STREAMS)
def test_a_partial_frame_after_the_end_is_harmless(name: str) -> None:
    chunks, error = feed(load(name) + b"data: {")
    assert error is None and events_of(chunks) == events_of(feed(load(name))[0])


@pytest.mark.parametrize("name", STREAMS)
def test_events_are_in_order(name: str) -> None:
    """PartStart, deltas, PartStop; all of a choice before its stop; ResponseStop and Terminator last."""
    told = events_of(feed(load(name))[0])
    assert isinstance(told[0], ResponseStart)
    assert told[-2:] == [ResponseStop(), Terminator()]
    started: list[int] = []
    open_parts: set[int] = set()
    stopped: set[int] = set()
    for event in told:
        if isinstance(event, PartStart):
            started.append(event.index)
            open_parts.add(event.index)
            assert event.choice not in stopped
        elif isinstance(event, (PartDelta, PartPatch)):
            assert event.index in open_parts
        elif isinstance(event, PartStop):
            open_parts.remove(event.index)
        elif isinstance(event, ChoiceStop):
            assert event.choice not in stopped
            stopped.add(event.choice)
    assert started == list(range(len(started))) and not open_parts and stopped


TABLE: list[tuple[str, list[Event]]] = [
    (
        "tools.sse",
        [
            start(),
            PartStart(0, ToolCall("call_a", "get_weather")),
            PartDelta(0, '{"loc'),
            PartDelta(0, 'ation": "Paris", "n": 1.0}'),
            PartStop(0),
            PartStart(1, ToolCall("call_b", "get_time")),
            PartDelta(1, "{}"),
            PartStop(1),
            ChoiceStop("tool_calls", "tool_calls"),
        ],
    ),
    (
        "refusal.sse",
        [
            start(),
            PartStart(0, Refusal("")),
            PartDelta(0, "I cannot"),
            PartDelta(0, " help."),
            PartStop(0),
            ChoiceStop("stop", "stop"),
            ResponseStop(),
            Terminator(),
        ],
    ),
    (
        "choices.sse",
        [
            start(),
            PartStart(0, Text("")),
            PartDelta(0, "a"),
            PartStart(1, Text(""), 1),
            PartDelta(1, "x", 1),
            PartDelta(0, "b"),
            PartStop(1, 1),
            ChoiceStop("length", "length", 1),
            PartStop(0),
            ChoiceStop("stop", "stop"),
        ],
    ),
    (
        "audio.sse",
        [
            start(),
            PartStart(0, Media("audio", extra={"id": Raw(b'"audio_1"')})),
            PartPatch(0, transcript="Hi"),
            PartDelta(0, "UklG"),
            PartDelta(0, "Rg=="),
            PartPatch(0, transcript=" you"),
            PartPatch(0, extra={"expires_at": Raw(b"1729018505")}),
            PartStop(0),
            ChoiceStop("stop", "stop"),
        ],
    ),
    (
        "legacy.sse",
        [
            start(),
            PartStart(0, ToolCall("function_call_0", "f", extra={"id": Raw(b"null")})),
            PartDelta(0, '{"a":'),
            PartDelta(0, "1}"),
            PartStop(0),
            ChoiceStop("tool_calls", "function_call"),
        ],
    ),
    (
        "deepseek.sse",
        [
            start("ds-1", "deepseek-reasoner"),
            PartStart(0, Reasoning(origin="openai.chat:reasoning_content")),
            PartDelta(0, "Let me"),
            PartDelta(0, " think"),
            PartStop(0),
            PartStart(1, Text("")),
            PartDelta(1, "42"),
            PartStop(1),
            ChoiceStop("stop", "stop"),
        ],
    ),
    (
        "mistral.sse",
        [
            start("m1", "magistral-small"),
            PartStart(0, Reasoning(origin="openai.chat:thinking")),
            PartDelta(0, "Two"),
            PartDelta(0, " and two"),
            PartStop(0),
            PartStart(1, Text("")),
            PartDelta(1, "4"),
            PartStop(1),
            ChoiceStop("stop", "stop"),
        ],
    ),
    (
        "gemini.sse",
        [
            start("g1", "gemini-3-flash"),
            PartStart(
                0,
                ToolCall(
                    "function-call-1",
                    "f",
                    extra={"extra_content": Raw(b'{"google":{"thought_signature":"c2ln"}}')},
                ),
            ),
            PartDelta(0, '{"a":1}'),
            PartStop(0),
            PartStart(1, ToolCall("function-call-2", "f")),
            PartDelta(1, '{"a":2}'),
            PartStop(1),
            ChoiceStop("tool_calls", "tool_calls"),
        ],
    ),
]


@pytest.mark.parametrize(("name", "expected"), TABLE, ids=[name for name, _ in TABLE])
def test_the_table(name: str, expected: list[Event]) -> None:
    assert events_of(feed(load(name))[0])[: len(expected)] == expected


def test_text_with_usage_and_padding() -> None:
    told = events_of(feed(load("text.sse"))[0])
    first = told[0]
    assert isinstance(first, ResponseStart)
    assert (first.service_tier, dict(first.extra)) == ("default", {"system_fingerprint": Raw(b'"fp_44709d6fcb"')})
    report = told[-3]
    assert isinstance(report, UsageReport)
    usage = report.usage
    assert (usage.input_tokens, usage.uncached_input_tokens, usage.cache_read_input_tokens) == (19, 15, 4)
    assert (usage.output_tokens, usage.reasoning_output_tokens, usage.format) == (10, 0, F)


def test_reasoning_details_grow_into_whole_entries() -> None:
    told = events_of(feed(load("openrouter.sse"))[0])
    patch = next(event for event in told if isinstance(event, PartPatch))
    (detail,) = msgspec.json.decode(patch.extra["reasoning_details"])
    assert (detail["text"], detail["signature"], detail["index"]) == ("One two", "c2ln", 0)
    stop = next(event for event in told if isinstance(event, ChoiceStop))
    assert dict(stop.extra) == {"native_finish_reason": Raw(b'"end_turn"')}


@pytest.mark.parametrize(
    ("name", "read", "written", "cached"),
    [("groq.sse", 7, 3, None), ("moonshot.sse", 8, 2, 5), ("deepseek.sse", 10, 20, 6)],
)
def test_usage_wherever_a_vendor_puts_it(name: str, read: int, written: int, cached: int | None) -> None:
    usage = fold(events_of(feed(load(name))[0])).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens) == (read, written, cached)


def test_azure_says_its_filter_results_first() -> None:
    told = events_of(feed(load("azure.sse"))[0])
    first = told[0]
    assert isinstance(first, ResponseStart) and first.id == "chatcmpl-123" and "prompt_filter_results" in first.extra
    assert sum(isinstance(event, ResponseStart) for event in told) == 1


def test_citations_and_logprobs() -> None:
    told = events_of(feed(load("citations.sse"))[0])
    (patch,) = (event for event in told if isinstance(event, PartPatch))
    assert patch.citation is not None
    assert (patch.citation.url, patch.citation.start, patch.citation.end) == ("https://nasa.gov/x", 0, 4)
    told = events_of(feed(load("logprobs.sse"))[0])
    pieces = [event.logprobs for event in told if isinstance(event, PartDelta)]
    assert [msgspec.json.decode(piece)["content"][0]["token"] for piece in pieces if piece] == ["Hi", "!"]


@pytest.mark.parametrize("name", WHOLES)
def test_whole_answers_fold_to_what_their_streams_do(name: str) -> None:
    streamed = fold(events_of(feed(load(f"{name}.sse"))[0]))
    whole = fold(CODEC.decode_response(load(f"{name}.json")))
    # How log probabilities came apart is the stream's own; that they join to the same is tested with the writer.
    strip = [msgspec.structs.replace(choice, logprobs=()) for choice in streamed.choices]
    assert strip == [msgspec.structs.replace(choice, logprobs=()) for choice in whole.choices]
    assert whole.start.id == streamed.start.id and whole.start.extra == streamed.start.extra
    if whole.usage is not None:
        assert whole.usage == streamed.usage


def tool(index: int | None = 0, id: str | None = None, name: str | None = None, arguments: str | None = None) -> dict:
    call: dict[str, object] = {"function": {"name": name, "arguments": arguments}}
    call |= {} if index is None else {"index": index}
    return {"tool_calls": [call | ({} if id is None else {"id": id, "type": "function"})]}


TOOLS: list[tuple[str, list[dict], list[tuple[str, str, str]]]] = [
    (
        "interleaved",
        [tool(0, "a", "f", '{"x"'), tool(1, "b", "g", '{"y"'), tool(0, arguments=":1}"), tool(1, arguments=":2}")],
        [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')],
    ),
    ("id repeated", [tool(0, "a", "f", "{"), tool(0, "a", None, "}")], [("a", "f", "{}")]),
    ("a new id with each fragment", [tool(0, "a", "f", "{"), tool(0, "b", None, "}")], [("a", "f", "{}")]),
    ("late id", [tool(0, None, "f", "{"), tool(0, "a", None, "}")], [("a", "f", "{}")]),
    ("no id at all", [tool(0, None, "f", "{"), tool(0, None, None, "}")], [("", "f", "{}")]),
    (
        "no index",
        [tool(None, "a", "f", "{"), tool(None, None, None, "}"), tool(None, "b", "g", "{}")],
        [("a", "f", "{}"), ("b", "g", "{}")],
    ),
    ("no index, no id", [tool(None, None, "f", "{}"), tool(None, None, "g", "{}")], [("", "f", "{}"), ("", "g", "{}")]),
    ("index always 0", [tool(0, "a", "f", "{}"), tool(0, "b", "f", "{}")], [("a", "f", "{}"), ("b", "f", "{}")]),
    ("without arguments", [tool(0, "a", "f", ""), tool(1, "b", "g", "{}")], [("a", "f", ""), ("b", "g", "{}")]),
    ("text between", [tool(0, "a", "f", "{"), {"content": "x"}, tool(0, arguments="}")], [("a", "f", "{}")]),
]


@pytest.mark.parametrize(("deltas", "expected"), [case[1:] for case in TOOLS], ids=[case[0] for case in TOOLS])
def test_tool_calls_however_vendors_number_them(deltas: list[dict], expected: list[tuple[str, str, str]]) -> None:
    chunks, error = feed(frames(*deltas, {"delta": {}, "finish_reason": "tool_calls"}))
    assert error is None
    (choice,) = fold(events_of(chunks)).choices
    calls = [part for part in choice.parts if isinstance(part, ToolCall)]
    assert [(call.id, call.name, call.arguments) for call in calls] == expected


def test_a_call_closes_when_it_is_complete_and_stays_open_when_not() -> None:
    deltas = [tool(0, "a", "f", "{}"), tool(1, "b", "g", "{"), {"content": "x"}, tool(1, arguments="}")]
    told = events_of(feed(frames(*deltas, {"delta": {}, "finish_reason": "stop"}))[0])
    assert told.index(PartStop(0)) < told.index(PartStart(1, ToolCall("b", "g")))
    assert told.index(PartStop(1)) > told.index(PartStart(2, Text("")))


def test_unknown_members_are_kept() -> None:
    data = frames(
        {"delta": {"content": "a", "mood": 1.0}, "token_ids": [1, 2]},
        {"delta": {}, "finish_reason": "eos", "matched_stop": 7},
        extra_thing={"x": 1},
    )
    told = events_of(feed(data)[0])
    assert told == [
        ResponseStart("c1", "m", 5, extra={"extra_thing": Raw(b'{"x":1}')}, format=F),
        PartStart(0, Text("")),
        PartDelta(0, "a"),
        ChoicePatch(0, {"mood": Raw(b"1.0")}),
        PartStop(0),
        ChoiceStop("stop", "eos", extra={"token_ids": Raw(b"[1,2]"), "matched_stop": Raw(b"7")}),
        ResponseStop(),
        Terminator(),
    ]


def test_unknown_frames_are_aliens_and_comments_are_pings() -> None:
    data = b': ping\n\nevent: note\ndata: {"a":1}\n\ndata: [1]\n\n' + frames({"delta": {}, "finish_reason": "stop"})
    chunks, error = feed(data)
    assert error is None
    told = [event for chunk in chunks for event in chunk.events]
    assert told[:3] == [Keepalive(), Alien(F, "note", b'{"a":1}'), Alien(F, "", b"[1]")]


def test_what_changes_in_the_envelope() -> None:
    one = frames({"content": "a"}, done=False, service_tier="auto", system_fingerprint="x")
    two = frames({"delta": {}, "finish_reason": "stop"}, service_tier="default", system_fingerprint="x")
    told = events_of(feed(one + two)[0])
    assert told[3] == ResponsePatch({"service_tier": Raw(b'"default"')})
    assert sum(isinstance(event, ResponsePatch) for event in told) == 1


def test_content_after_the_finish_reason_is_not_swallowed() -> None:
    data = frames({"delta": {"content": "a"}, "finish_reason": "stop"}, {"content": "late"})
    told = events_of(feed(data)[0])
    assert [type(event) for event in told[-4:]] == [ChoiceStop, Alien, ResponseStop, Terminator]


FINISHES = [
    ("stop", "stop"),
    ("eos", "stop"),
    ("length", "length"),
    ("model_length", "context_window"),
    ("tool_calls", "tool_calls"),
    ("function_call", "tool_calls"),
    ("content_filter", "content_filter"),
    ("load", "other"),
]


@pytest.mark.parametrize(("word", "reason"), FINISHES)
def test_finish_reasons(word: str, reason: str) -> None:
    told = events_of(feed(frames({"delta": {}, "finish_reason": word}))[0])
    assert told[1] == ChoiceStop(reason, word)


# Ends and faults


def test_an_end_without_done_after_the_finish_reason_is_clean() -> None:
    data = frames({"delta": {"content": "a"}, "finish_reason": "stop"}, done=False)
    chunks, error = feed(data)
    assert error is None and events_of(chunks)[-1] == ResponseStop()
    encoder = CODEC.stream_encoder(CONTEXT)
    assert b"".join(encoder.encode(chunk) for chunk in chunks) == data
    assert encoder.close(None) == b"data: [DONE]\n\n"


def test_a_last_frame_without_its_blank_line_counts() -> None:
    data = frames({"delta": {"content": "a"}, "finish_reason": "stop"})
    chunks, error = feed(data[:-2])
    assert error is None and events_of(chunks)[-1] == Terminator()


@pytest.mark.parametrize("name", STREAMS)
def test_every_cut_before_the_finish_reason_is_an_error(name: str) -> None:
    data = load(name)
    end = data.index(b'"finish_reason":"')
    whole = events_of(feed(data)[0])
    for size in range(0, end, 37):
        chunks, error = feed(data[:size])
        assert error is not None and error.kind == "cut"
        told = events_of(chunks)
        assert told == whole[: len(told)]


def test_nothing_but_done_is_malformed() -> None:
    assert feed(b"data: [DONE]\n\n")[1].kind == "malformed"


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {nonsense\n\n",
        b'data: {"choices": 3, "id": "x"}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":7}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\\q"}}]}\n\n',
        b'data: {"choices":' + b"[" * 5000 + b"\n\n",
    ],
)
def test_malformed_frames(bad: bytes) -> None:
    before = frames({"content": "a"}, done=False)
    decoder = CODEC.stream_decoder()
    chunk = decoder.feed(before + bad + before)
    assert chunk is not None and chunk.raw == before
    assert events_of([chunk]) == [START, PartStart(0, Text("")), PartDelta(0, "a")]
    assert decoder.error is not None and decoder.error.kind == "malformed"
    assert decoder.feed(before) is None and decoder.close() is None


def test_an_oversized_frame_is_malformed() -> None:
    decoder = ChatStreamDecoder(max_frame_bytes=1000)
    assert decoder.feed(b"data: " + b"x" * 600) is None and decoder.error is None
    assert decoder.feed(b"x" * 600) is None
    assert decoder.error is not None and decoder.error.kind == "malformed"


IN_BAND = [
    (b'{"error":{"message":"Slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}', "rate_limit", 429),
    (
        b'{"id":"g","object":"chat.completion.chunk","created":1,"model":"m","provider":"p","error":{"code":502,'
        b'"message":"Provider disconnected"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}',
        "upstream_error",
        502,
    ),
    (b'{"choices":[{"index":0,"delta":{},"error":{"code":503,"message":"overloaded"}}]}', "overloaded", 503),
    (b'{"object":"error","message":"boom","type":"InternalServerError","code":500}', "upstream_error", 500),
    (b'{"error":"it broke"}', "upstream_error", 502),
    (b'{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}', "upstream_error", 502),
    (b'{"choices":[],"x_groq":{"error":"over capacity"}}', "upstream_error", 502),
]


@pytest.mark.parametrize(("payload", "kind", "status"), IN_BAND)
def test_errors_inside_a_stream(payload: bytes, kind: str, status: int) -> None:
    before = frames({"content": "a"}, done=False)
    frame = b"data: " + payload + b"\n\n"
    for sizes in ((), [1] * len(before + frame)):
        chunks, error = feed(before + frame + b"data: [DONE]\n\n", sizes)
        assert error is not None and (error.kind, error.status) == (kind, status)
        assert b"".join(chunk.raw or b"" for chunk in chunks) == before
        assert events_of(chunks)[-1] == PartDelta(0, "a")
        out = CODEC.stream_encoder(CONTEXT).close(error)
        assert b"[DONE]" not in out and payloads(out)[0]["error"]
        if error.raw is not None:
            assert error.raw == out == frame


# Usage that only we asked for


@pytest.mark.parametrize("size", [10_000, 60, 1])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_usage_frame_can_be_hidden(size: int, line_end: bytes) -> None:
    data = load("text.sse").replace(b"\n", line_end)
    chunks, error = feed(data, [size] * (len(data) // size), hide_usage=True)
    assert error is None
    frame = next(f for f in data.split(line_end * 2) if b'"choices":[]' in f)
    left = b"".join(chunk.raw or b"" for chunk in chunks)
    assert left.rstrip() == data.replace(frame + line_end * 2, b"").rstrip()
    assert any(isinstance(event, UsageReport) for event in events_of(chunks))


def test_usage_beside_a_choice_is_not_hidden() -> None:
    data = load("deepseek.sse")
    assert b"".join(chunk.raw or b"" for chunk in feed(data, hide_usage=True)[0]) == data


# The encoder


@pytest.mark.parametrize("name", STREAMS)
def test_untouched_bytes_pass(name: str) -> None:
    data = load(name)
    chunks, _ = feed(data, [100] * (len(data) // 100))
    encoder = CODEC.stream_encoder(CONTEXT)
    assert b"".join(encoder.encode(chunk) for chunk in chunks) == data
    assert encoder.close(None) == b"" and encoder.losses == []
    assert encoder.close(Cut("late")) == b""


def rewrite(chunks: list[Chunk], context: AnswerContext = CONTEXT, passing: int = 0) -> bytes:
    """Encode; chunks from number ``passing`` on have lost their bytes."""
    encoder = CODEC.stream_encoder(context)
    out = [encoder.encode(chunk if number < passing else Chunk(chunk.events)) for number, chunk in enumerate(chunks)]
    return b"".join((*out, encoder.close(None)))


@pytest.mark.parametrize("name", STREAMS)
def test_rewritten_streams_say_the_same(name: str) -> None:
    data = load(name)
    for cut in (len(data), 90):
        chunks, _ = feed(data, [cut] * (len(data) // cut))
        for passing in range(0, len(chunks), 3):
            out = rewrite(chunks, passing=passing)
            again, error = feed(out)
            assert error is None and out.endswith(b"data: [DONE]\n\n")
            mine, theirs = fold(events_of(again)), fold(events_of(chunks))
            if name == "openrouter.sse" and passing:
                # Half of reasoning_details may have passed already; what must not happen is that a text comes twice.
                assert [p.text for p in mine.choices[0].parts] == [p.text for p in theirs.choices[0].parts]
                continue
            assert mine.choices == theirs.choices
            assert mine.start.id == theirs.start.id and mine.usage == theirs.usage


ELSEWHERE: list[Event] = [
    ResponseStart(
        "msg_1", "claude", service_tier="standard", extra={"container": Raw(b"{}")}, format="anthropic.messages"
    ),
    PartStart(0, Reasoning(origin="anthropic.messages")),
    PartDelta(0, "hm"),
    PartPatch(0, signature="c2ln"),
    PartStop(0),
    PartStart(1, Reasoning(redacted="xx", origin="anthropic.messages")),
    PartStop(1),
    PartStart(2, Text("")),
    PartDelta(2, "Hé\n"),
    PartPatch(2, citation=Citation("anthropic.messages", "web", b"{}", url="https://a.b", title="T", cited_text="q")),
    PartStop(2),
    PartStart(3, ToolCall("srv", "web_search", server="server_tool_use")),
    PartDelta(3, "{}"),
    PartStop(3),
    PartStart(4, Opaque("anthropic.messages", "web_search_tool_result", b"{}")),
    PartStop(4),
    PartStart(5, ToolCall("toolu_1", "f")),
    PartStart(6, ToolCall("toolu_2", "g")),
    PartDelta(6, '{"b":'),
    PartDelta(6, "2}"),
    PartStop(5),
    PartStop(6),
    ChoiceStop("tool_calls", "tool_use"),
    UsageReport(Usage(120, 20, 90, 10, 7)),
    Keepalive(),
    ResponseStop(),
    Terminator(),
]


def test_an_answer_of_another_format() -> None:
    encoder = CODEC.stream_encoder(CONTEXT)
    out = encoder.encode(Chunk(tuple(ELSEWHERE)))
    assert encoder.close(None) == b""
    told = payloads(out)
    assert {(p["id"], p["model"], p["created"]) for p in told} == {("msg_1", "claude", 1700000000)}
    deltas = [p["choices"][0]["delta"] for p in told if p["choices"]]
    assert deltas == [
        {"role": "assistant"},
        {"reasoning_content": "hm"},
        {"content": "Hé\n"},
        {"tool_calls": [{"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": '{"b":'}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": "2}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {
            "annotations": [
                {
                    "type": "url_citation",
                    "url_citation": {"url": "https://a.b", "title": "T", "start_index": 0, "end_index": 3},
                }
            ]
        },
        {},
    ]
    assert told[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert told[-1]["usage"] == {
        "prompt_tokens": 120,
        "completion_tokens": 7,
        "total_tokens": 127,
        "prompt_tokens_details": {"cached_tokens": 90, "cache_write_tokens": 10},
    }
    lost = {(loss.kind, loss.what) for loss in encoder.losses}
    assert lost == {
        ("minted", "created"),
        ("lost", "standard"),
        ("lost", "signature"),
        ("lost", "redacted"),
        ("lost", "cited_text"),
        ("emulated", "start_index"),
        ("lost", "server_tool_use"),
        ("lost", "web_search_tool_result"),
        ("minted", "arguments"),
    }


def test_one_event_at_a_time_writes_the_same_bytes() -> None:
    encoder = CODEC.stream_encoder(CONTEXT)
    single = b"".join(encoder.encode(Chunk((event,))) for event in ELSEWHERE)
    assert single == CODEC.stream_encoder(CONTEXT).encode(Chunk(tuple(ELSEWHERE)))


def test_usage_goes_only_to_who_asked() -> None:
    quiet = AnswerContext(request_id="r1", created=1)
    assert b'"usage"' not in CODEC.stream_encoder(quiet).encode(Chunk(tuple(ELSEWHERE)))


def test_what_is_demanded_and_missing_is_minted() -> None:
    encoder = CODEC.stream_encoder(AnswerContext(request_id="r9", created=7, model="asked"))
    out = encoder.encode(Chunk((ResponseStart(), PartStart(0, Text("")), PartDelta(0, "x"))))
    out += encoder.close(None)
    told = payloads(out)
    assert (told[0]["id"], told[0]["created"], told[0]["model"]) == ("chatcmpl-r9", 7, "asked")
    assert told[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert told[-1]["choices"][0]["finish_reason"] == "stop" and out.endswith(b"data: [DONE]\n\n")
    assert {loss.path for loss in encoder.losses} == {"id", "created", "choices[0].finish_reason"}


REASONS = [
    (("stop_sequence", "stop_sequence"), "stop"),
    (("refusal", "refusal"), "content_filter"),
    (("pause", "pause_turn"), "stop"),
    (("context_window", "model_context_window_exceeded"), "length"),
    (("length", "max_tokens"), "length"),
    (("error", "MALFORMED_FUNCTION_CALL"), "error"),
]


@pytest.mark.parametrize(("reason", "word"), REASONS)
def test_reasons_of_other_formats(reason: tuple, word: str) -> None:
    encoder = CODEC.stream_encoder(CONTEXT)
    events = (ResponseStart("x", "m", 1, format="anthropic.messages"), ChoiceStop(*reason))
    (told,) = payloads(encoder.encode(Chunk(events)))
    assert told["choices"][0]["finish_reason"] == word


def test_errors_end_a_stream_without_a_clean_end() -> None:
    encoder = CODEC.stream_encoder(CONTEXT)
    encoder.encode(Chunk((START, PartStart(0, Text("")), PartDelta(0, "x"))))
    out = encoder.close(Cut("the connection ended before the answer did"))
    assert b"[DONE]" not in out
    assert payloads(out)[0]["error"] == {
        "message": "the connection ended before the answer did",
        "type": "server_error",
        "param": None,
        "code": "cut",
        "request_id": "r1",
    }
    assert encoder.close(None) == b""


def test_an_error_body_of_this_format_becomes_a_frame_and_nothing_follows_a_cancel() -> None:
    body = b'{\n  "error": {"message": "slow", "type": "x"}\n}'
    error = RateLimited("slow", format=F, raw=body)
    out = CODEC.stream_encoder(CONTEXT).close(error)
    assert out == b'data: {"error":{"message":"slow","type":"x"}}\n\n'
    assert CODEC.stream_encoder(CONTEXT).close(Cancelled("gone")) == b""


def test_citations_of_several_texts_come_in_one_chunk() -> None:
    """OpenAI's SDK cannot join two arrays of annotations."""
    events: list[Event] = [ResponseStart("x", "m", 1, format="anthropic.messages")]
    for index, text in enumerate(("one", "two")):
        cited = Citation("anthropic.messages", "web", b"{}", url=f"https://{text}")
        events += [
            PartStart(index, Text("")),
            PartPatch(index, citation=cited),
            PartDelta(index, text),
            PartStop(index),
        ]
    events += [ChoiceStop("stop"), Terminator()]
    told = payloads(CODEC.stream_encoder(CONTEXT).encode(Chunk(tuple(events))))
    (notes,) = [p["choices"][0]["delta"]["annotations"] for p in told if "annotations" in p["choices"][0]["delta"]]
    spots = [note["url_citation"] for note in notes]
    assert [(spot["url"], spot["start_index"], spot["end_index"]) for spot in spots] == [
        ("https://one", 0, 3),
        ("https://two", 3, 6),
    ]


NOTE = b'{"type":"url_citation","url_citation":{"url":"https://a.b","title":"T","start_index":0,"end_index":1}}'
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_annotations_after_a_call_belong_to_the_text_before_it() -> None:
    data = frames({"content": "x"}, {"tool_calls": [CALL]}, {"annotations": [msgspec.json.decode(NOTE)]})
    chunks, error = feed(data)
    assert error is None
    parts = fold(events_of(chunks)).choices[0].parts
    assert [type(part) for part in parts] == [Text, ToolCall]
    assert isinstance(parts[0], Text) and [citation.url for citation in parts[0].citations] == ["https://a.b"]
    told, error = feed(CODEC.stream_encoder(CONTEXT).encode(Chunk(tuple(events_of(chunks)))))
    assert error is None
    whole = CODEC.decode_response(CODEC.encode_response(events_of(chunks), CONTEXT).body)
    assert fold(events_of(told)).choices[0].parts == fold(whole).choices[0].parts == parts


def test_a_late_citation_of_another_format_is_an_annotation_without_a_place() -> None:
    cited = PartPatch(0, citation=Citation("x", "web", b"{}", "https://a.b", "T"))
    stray = PartPatch(7, citation=Citation("x", "web", b"{}", "https://c.d", "T"))
    events = (START, PartStart(0, Text("")), PartDelta(0, "x"), PartStop(0), cited, stray, ChoiceStop("stop", "stop"))
    told = payloads(CODEC.stream_encoder(CONTEXT).encode(Chunk((*events, Terminator()))))
    assert [p["choices"][0]["delta"] for p in told if p["choices"] and "annotations" in p["choices"][0]["delta"]] == [
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.b", "title": "T"}}]}
    ]


@pytest.mark.parametrize(
    "rest", [b"d", b"data", b"data: ", b"data: [DON", b'data: {"id":"c1","cho', b": pin", b"event: x"]
)
def test_half_a_frame_after_the_finish_reason_goes_nowhere(rest: bytes) -> None:
    data = frames({"content": "x"}, done=False)
    data += b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    chunks, error = feed(data + rest)
    assert error is None
    assert b"".join(chunk.raw or b"" for chunk in chunks) == data
    assert isinstance(events_of(chunks)[-1], ResponseStop)


def test_another_provider_may_go_on_with_the_answer() -> None:
    """Its words are written under the first one's id; its extras are of its own format."""
    encoder = CODEC.stream_encoder(CONTEXT)
    first, _ = feed(frames({"content": "one "}, done=False))
    out = b"".join(encoder.encode(chunk) for chunk in first)
    more = (
        ResponseStart("msg_1", "other", 9, extra={"container": Raw(b"1")}, format="anthropic.messages"),
        PartDelta(0, "two"),
        PartStop(0),
        PartStart(1, ToolCall("t", "f", extra={"caller": Raw(b'"x"')})),
        PartStop(1),
        ChoiceStop("tool_calls", "tool_use", extra={"stop_details": Raw(b"1")}),
        ResponseStop(),
        Terminator(),
    )
    out += encoder.encode(Chunk(more)) + encoder.close(None)
    again, error = feed(out)
    assert error is None
    answer = fold(events_of(again))
    assert answer.choices[0].parts == (Text("one two"), ToolCall("t", "f", "{}"))
    assert answer.choices[0].raw_reason == "tool_calls" and answer.choices[0].stop_extra == {}
    assert {p["id"] for p in payloads(out)} == {"c1"} and b"container" not in out


def test_a_pretty_printed_answer_fits_into_frames() -> None:
    body = msgspec.json.format(load("openrouter.json"), indent=2)
    events = CODEC.decode_response(body)
    out = CODEC.stream_encoder(CONTEXT).encode(Chunk(events))
    again, error = feed(out)
    assert error is None
    assert [p.text for p in fold(events_of(again)).choices[0].parts] == ["One two", "Yes"]


def test_losses_are_bounded() -> None:
    encoder = CODEC.stream_encoder(CONTEXT)
    for index in range(300):
        encoder.encode(Chunk((PartStart(index, Opaque("x", "y", b"{}")), PartStop(index))))
    assert len(encoder.losses) == 100
