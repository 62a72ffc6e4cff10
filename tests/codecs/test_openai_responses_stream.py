"""Streams of openai.responses: frames into events, events into frames, in the order the API keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.openai_chat import CODEC as CHAT
from headgate.gateway.codecs.openai_responses import CODEC
from headgate.gateway.errors import Cancelled, Cut, Malformed, Overloaded, RateLimited, UpstreamError
from headgate.gateway.ir.event import (
    Alien,
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
from headgate.gateway.ir.message import Citation, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from msgspec import Raw
from msgspec.structs import replace
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

CORPUS = Path(__file__).parent.parent / "corpus" / "openai_responses" / "streams"
NAMES = sorted(path.stem for path in CORPUS.glob("*.sse"))
CLEAN = [name for name in NAMES if name not in ("error", "failed")]
OWN = "openai.responses"
WIRE = Wire(OWN, "sse")
CONTEXT = AnswerContext(request_id="r1", created=1_700_000_000, model="asked")
SDK_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MARK = {"item": Raw(b"null")}


def read(name: str) -> bytes:
    return (CORPUS / f"{name}.sse").read_bytes()


def decode(*pieces: bytes) -> tuple[list[Event], UpstreamError | None]:
    decoder = CODEC.stream_decoder()
    chunks = [decoder.feed(piece) for piece in pieces] + [decoder.close()]
    return [event for chunk in chunks if chunk is not None for event in chunk.events], decoder.error


def frames(data: bytes) -> list[dict[str, Any]]:
    """The payloads of a stream, each checked to be named as its type says and numbered in turn."""
    found = []
    for frame in data.split(b"\n\n"):
        name, _, payload = frame.partition(b"\ndata: ")
        if not payload:
            continue
        value = json.loads(payload)
        assert name.rpartition(b"event: ")[2].decode() == value["type"]
        found.append(value)
    assert [value["sequence_number"] for value in found] == list(range(len(found)))
    return found


def encode(events: Iterable[Event], *, size: int = 0) -> bytes:
    encoder = CODEC.stream_encoder(CONTEXT)
    rest = list(events)
    size = size or len(rest)
    out = [encoder.encode(Chunk(tuple(rest[i : i + size]))) for i in range(0, len(rest), size)]
    return b"".join([*out, encoder.close(None)])


def types(data: bytes) -> list[str]:
    return [value["type"].removeprefix("response.") for value in frames(data)]


def event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}).encode())


def told(part: Part, *steps: PartDelta | PartPatch, index: int = 0) -> list[Event]:
    return [PartStart(index, part), *(replace(step, index=index) for step in steps), PartStop(index)]


def around(*parts: Sequence[Event], format: str = "elsewhere", stop: ChoiceStop = ChoiceStop("stop")) -> list[Event]:
    start = ResponseStart("id_1", "m", 7, format=format)
    usage = UsageReport(Usage(5, 5, output_tokens=3, format="elsewhere"))
    return [start, *(step for steps in parts for step in steps), stop, usage, ResponseStop(), Terminator()]


def by_the_sdk(data: bytes) -> Any:
    """The response that the SDK gathers from a stream; each event is valid by its types."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for value in frames(data):
        state.handle_event(SDK_EVENT.validate_python(value))
    return state._completed_response


# -- reading


@pytest.mark.parametrize("name", CLEAN)
def test_the_bytes_go_through(name: str) -> None:
    decoder, encoder = CODEC.stream_decoder(), CODEC.stream_encoder(CONTEXT)
    data, out = read(name), b""
    for start in range(0, len(data), 700):
        chunk = decoder.feed(data[start : start + 700])
        if chunk is not None:
            assert chunk.wire == WIRE
            out += encoder.encode(chunk)
    assert decoder.close() is None
    assert decoder.error is None
    assert out + encoder.close(None) == data


@pytest.mark.parametrize("name", NAMES)
def test_any_cut_gives_the_same_events(name: str) -> None:
    data = read(name)
    events, error = decode(data)
    by_byte, same = decode(*(data[i : i + 1] for i in range(len(data))))
    assert by_byte == events
    assert str(same) == str(error)


def test_words_and_their_order() -> None:
    events, error = decode(read("text"))
    assert error is None
    assert [type(event) for event in events] == [
        *(ResponseStart, PartStart, PartDelta, PartDelta, PartDelta, PartStop),
        *(ResponsePatch, ChoiceStop, UsageReport, ResponseStop, Terminator),
    ]
    assert (
        "".join(event.text for event in events if isinstance(event, PartDelta))
        == "Hi there! How can I assist you today?"
    )


def test_calls_side_by_side() -> None:
    events, _ = decode(read("reasoning_and_calls"))
    deltas = [(event.index, event.text) for event in events if isinstance(event, PartDelta)]
    assert deltas[-4:] == [(3, '{"city":'), (4, '{"ci'), (3, '"Rome"}'), (4, 'ty":"Oslo"}')]
    signatures = [event for event in events if isinstance(event, PartPatch) and event.signature]
    assert [(event.index, event.signature) for event in signatures] == [(1, "gAAAAABo3nd")]


def test_a_tool_of_the_providers_own() -> None:
    events, _ = decode(read("web_search"))
    aliens = [event.kind for event in events if isinstance(event, Alien)]
    assert aliens == [f"response.web_search_call.{word}" for word in ("in_progress", "searching", "completed")]
    search, text = fold(events).choices[0].parts
    assert isinstance(search, Opaque)
    assert json.loads(search.data)["action"] == {"type": "search", "query": "news"}
    assert isinstance(text, Text)
    assert [citation.kind for citation in text.citations] == ["url_citation", "file_citation"]


def test_what_the_deltas_left_out_is_told_at_the_end() -> None:
    """Servers exist that send no deltas, or not all of them."""
    data = b"".join(
        [
            event("response.created", response={"id": "r", "model": "m"}),
            event(
                "response.output_item.added", item={"type": "message", "id": "a", "role": "assistant"}, output_index=0
            ),
            event("response.output_text.delta", delta="He", output_index=0, content_index=0),
            event("response.output_text.done", text="Hello", output_index=0, content_index=0),
            event(
                "response.output_item.added",
                item={"type": "function_call", "id": "f", "call_id": "c", "name": "look", "arguments": ""},
                output_index=1,
            ),
            event("response.function_call_arguments.done", arguments='{"a":1}', output_index=1),
            event(
                "response.output_item.done",
                item={
                    "type": "message",
                    "id": "a",
                    "role": "assistant",
                    "content": [
                        {"type": "output_text", "text": "Hello", "annotations": []},
                        {"type": "refusal", "refusal": "n"},
                    ],
                },
                output_index=0,
            ),
            event(
                "response.completed",
                response={
                    "output": [
                        {"type": "message"},
                        {"type": "function_call", "call_id": "x", "name": "x"},
                        {"type": "reasoning", "id": "z", "summary": [], "encrypted_content": "E"},
                    ]
                },
            ),
        ]
    )
    events, error = decode(data)
    assert error is None
    text, call, refusal, thought = fold(events).choices[0].parts
    assert isinstance(text, Text)
    assert text.text == "Hello"
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"a":1}'
    assert isinstance(refusal, Refusal)
    assert refusal.text == "n"
    assert isinstance(thought, Reasoning)
    assert thought.redacted == "E"


def test_words_that_nobody_announced() -> None:
    data = b"".join(
        [
            event("response.created", response={"id": "r"}),
            event("response.reasoning_summary_text.delta", delta="hm"),
            event("response.output_text.delta", delta="Hi", output_index=1),
            event("response.function_call_arguments.delta", delta="{}", output_index=7),
            event("response.completed", response={"id": "r"}),
            b"data: [DONE]\n\n",
        ]
    )
    events, error = decode(data)
    assert error is None
    assert isinstance(events[-1], Keepalive)
    assert [type(part) for part in fold(events).choices[0].parts] == [Reasoning, Text]


def test_content_that_nobody_knows() -> None:
    item = {"type": "message", "id": "a", "role": "assistant", "status": "completed"}
    news = {"type": "x_new", "y": 1}
    at = {"item_id": "a", "output_index": 0, "content_index": 0}
    known = {"type": "refusal", "refusal": "n"}
    start = event("response.created", response={"id": "r"})
    start += event("response.output_item.added", item={**item, "content": []}, output_index=0)
    end = event("response.completed", response={"id": "r"})
    alone = (
        start + event("response.content_part.added", part=news, **at) + event("response.x_new.delta", delta="d", **at)
    )
    alone += event("response.content_part.done", part=news, **at)
    alone += event("response.output_item.done", item={**item, "content": [news]}, output_index=0) + end
    (part,) = fold(decode(alone)[0]).choices[0].parts
    assert isinstance(part, Opaque)
    assert part.kind == "message"
    second = {**at, "content_index": 1}
    after = (
        start
        + event("response.content_part.added", part=known, **at)
        + event("response.content_part.done", part=known, **at)
    )
    after += event("response.content_part.added", part=news, **second) + event(
        "response.content_part.done", part=news, **second
    )
    after += event("response.output_item.done", item={**item, "content": [known, news]}, output_index=0) + end
    refusal, part = fold(decode(after)[0]).choices[0].parts
    assert isinstance(refusal, Refusal)
    assert isinstance(part, Opaque)
    assert part.kind == "content.x_new"
    written = encode(decode(after)[0])
    assert frames(written)[-1]["response"]["output"] == [{**item, "content": [known, news]}]


@pytest.mark.parametrize(
    "data",
    [
        b"data: {nonsense\n\n",
        b"data: []\n\n",
        event("response.created"),
        event("response.created", response=7),
        event("response.output_item.added", item={"x": 1}),
        event("response.output_item.done", output_index=0),
        event("response.output_text.delta", delta=7, output_index=0, content_index=0),
        event("response.output_text.delta", delta="x", output_index=-1),
        event("response.completed"),
        b"data: [DONE]\n\n",
    ],
)
def test_a_frame_that_makes_no_sense(data: bytes) -> None:
    start = event("response.created", response={"id": "r"})
    decoder = CODEC.stream_decoder()
    chunk = decoder.feed(start + data + start)
    assert isinstance(decoder.error, Malformed)
    assert chunk is not None
    assert chunk.raw == start
    assert decoder.feed(start) is None
    assert decoder.close() is None


@pytest.mark.parametrize("name", CLEAN)
def test_a_stream_that_breaks_off(name: str) -> None:
    data = read(name)
    end = data.rindex(b"event: response.")
    for cut in (end, end + 30, len(data) - 3):
        events, error = decode(data[:cut])
        assert isinstance(error, Cut)
        assert not any(isinstance(event, Terminator) for event in events)
    assert decode(data[:-1])[1] is None  # the blank line alone is missing


@pytest.mark.parametrize(
    ("name", "kind", "code"), [("error", RateLimited, "rate_limit_exceeded"), ("failed", UpstreamError, "server_error")]
)
def test_an_error_in_the_stream(name: str, kind: type[UpstreamError], code: str) -> None:
    data = read(name)
    decoder = CODEC.stream_decoder()
    chunk = decoder.feed(data)
    error = decoder.error
    assert isinstance(error, kind)
    assert error.code == code
    assert chunk is not None
    assert error.raw is not None
    assert (chunk.raw or b"") + error.raw == data


def test_a_frame_above_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.gateway.codecs.openai_responses.stream_decoder.MAX_FRAME_BYTES", 50)
    decoder = CODEC.stream_decoder()
    assert decoder.feed(b"data: " + b"x" * 60) is None
    assert isinstance(decoder.error, Malformed)


# -- writing


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("name", [name for name in CLEAN if name not in ("done_only", "odd")])
def test_what_is_read_is_written_in_the_same_order(name: str, size: int) -> None:
    events = [event for event in decode(read(name))[0] if not isinstance(event, Keepalive)]
    written = encode(events, size=size)
    old, new = frames(read(name)), frames(written)
    assert [value["type"] for value in new] == [value["type"] for value in old]
    assert {k: v for k, v in new[-1]["response"].items() if v is not None} == {
        k: v for k, v in old[-1]["response"].items() if v is not None
    }
    again = [event for event in decode(written)[0] if not isinstance(event, Keepalive)]
    assert json.loads(CODEC.encode_response(again, CONTEXT).body) == json.loads(
        CODEC.encode_response(events, CONTEXT).body
    )


@pytest.mark.parametrize("name", CLEAN)
def test_the_sdk_gathers_what_is_written(name: str) -> None:
    events = decode(read(name))[0]
    response = by_the_sdk(encode(events))
    if name == "incomplete":
        assert response is None  # it knows response.completed alone
        return
    whole = json.loads(CODEC.encode_response(events, CONTEXT).body)
    assert [item.type for item in response.output] == [item["type"] for item in whole["output"]]
    assert response.usage.total_tokens == 123


def test_an_answer_of_another_format() -> None:
    events = around(
        told(Reasoning(origin="anthropic.messages"), PartDelta(0, "hm"), PartPatch(0, signature="Sig")),
        told(Text(""), PartDelta(0, "on"), PartDelta(0, "e"), index=1),
        told(Text(""), PartDelta(0, "two"), index=2),
        told(ToolCall("c1", "look"), PartDelta(0, '{"a"'), PartDelta(0, ":1}"), index=3),
        told(ToolCall("c2", "run", kind="custom"), PartDelta(0, "x"), index=4),
        stop=ChoiceStop("tool_calls"),
    )
    data = encode(events)
    assert types(data) == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done"),
        *("content_part.added", "output_text.delta", "output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        *("output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"),
        "completed",
    ]
    response = by_the_sdk(data)
    assert response.output_text == "onetwo"
    assert response.output[0].encrypted_content == "signed:anthropic.messages:Sig"
    assert [item.id for item in response.output] == ["rs_r1_0", "msg_r1_1", "fc_r1_2", "ctc_r1_3"]
    assert frames(data)[-1]["response"] == json.loads(CODEC.encode_response(events, CONTEXT).body)


def test_parts_that_are_open_at_the_same_time() -> None:
    first, second = (
        told(ToolCall("a", "f"), PartDelta(0, "{}"), index=1),
        told(ToolCall("b", "g"), PartDelta(0, "{}"), index=2),
    )
    mixed = [event for pair in zip(first, second, strict=True) for event in pair]
    events = around([PartStart(0, Text("")), PartDelta(0, "x")], mixed, [PartDelta(0, "y"), PartStop(0)])
    data = encode(events)
    at = [(value["type"], value.get("output_index")) for value in frames(data)]
    assert at.index(("response.function_call_arguments.delta", 2)) < at.index(("response.output_item.done", 1))
    assert by_the_sdk(data).output_text == "xy"


def test_citations_of_another_format() -> None:
    cited = Citation("x", "page", b"{}", "https://a.example/", "A")
    late = Citation("x", "page", b"{}", "https://b.example/", "B", start=0, end=1)
    text = told(Text(""), PartDelta(0, "words"), PartPatch(0, citation=cited))
    data = encode(around(text, told(ToolCall("c", "f"), PartDelta(0, "{}"), index=1), [PartPatch(0, citation=late)]))
    notes = [value["annotation"] for value in frames(data) if value["type"].endswith("annotation.added")]
    assert [(note["url"], note["start_index"], note["end_index"]) for note in notes] == [
        ("https://a.example/", 0, 5),
        ("https://b.example/", 0, 1),
    ]
    assert frames(data)[-1]["response"]["output"][0]["content"][0]["annotations"] == notes
    by_stream = fold(decode(data)[0]).choices[0].parts[0]
    assert isinstance(by_stream, Text)
    assert [citation.url for citation in by_stream.citations] == ["https://a.example/", "https://b.example/"]


def test_log_probabilities() -> None:
    logprobs = Raw(b'{"content":[{"token":"x","logprob":-0.5,"bytes":[120],"top_logprobs":[]}]}')
    data = encode(around(told(Text(""), PartDelta(0, "x", logprobs=logprobs), PartDelta(0, "y"))))
    first, second = [value for value in frames(data) if value["type"] == "response.output_text.delta"]
    assert first["logprobs"] == [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}]
    assert second["logprobs"] == []
    assert frames(data)[-1]["response"]["output"][0]["content"][0]["logprobs"] == first["logprobs"]


def test_what_was_said_at_the_start_of_a_part() -> None:
    data = encode(around(told(Text("one")), told(ToolCall("c", "f", "{}"), index=1)))
    response = by_the_sdk(data)
    assert response.output_text == "one"
    assert response.output[1].arguments == "{}"


def test_a_call_without_arguments() -> None:
    data = encode(around(told(ToolCall("c", "f"))))
    assert by_the_sdk(data).output[0].arguments == "{}"


def test_pings_and_frames_of_the_format() -> None:
    alien = Alien(OWN, "response.x_new", b'{"type":"response.x_new","sequence_number":99,"v" : 1.50}')
    encoder = CODEC.stream_encoder(CONTEXT)
    out = encoder.encode(Chunk((ResponseStart("i", "m", 1, format=OWN), Keepalive(), alien, Alien("x", "y", b"{}"))))
    assert b": ping\n\n" in out
    assert b'"sequence_number":2,"v":1.50}' in out
    assert [loss.what for loss in encoder.losses if loss.kind == "lost"] == ["y"]


def test_what_an_item_is_may_be_told_when_its_first_part_is_closed() -> None:
    item = {"type": "message", "id": "a", "role": "assistant"}
    content = [
        {"type": "output_text", "annotations": [], "logprobs": [], "text": "Half"},
        {"type": "refusal", "refusal": "n"},
    ]
    data = event("response.created", response={"id": "r", "model": "m", "created_at": 1})
    data += event("response.output_item.added", item={**item, "status": "in_progress", "content": []}, output_index=0)
    for number, part in enumerate(content):
        at = {"item_id": "a", "output_index": 0, "content_index": number}
        data += event("response.content_part.added", part=part, **at) + event(
            "response.content_part.done", part=part, **at
        )
    whole = {**item, "status": "incomplete", "content": content}
    data += event("response.output_item.done", item=whole, output_index=0)
    details = {"reason": "max_output_tokens"}
    ended = {"id": "r", "model": "m", "status": "incomplete", "incomplete_details": details, "output": [whole]}
    data += event("response.incomplete", response=ended)
    events, error = decode(data)
    assert error is None
    last = frames(encode(events, size=1))[-1]["response"]
    assert last["output"] == [whole]
    assert last["incomplete_details"] == details


# -- what someone changed


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("step", [1, 5])
def test_a_stream_that_is_changed_on_the_way(name: str, step: int) -> None:
    """From any chunk on written anew: what went before counts, numbers go on, and the whole is the same."""
    data = read(name)
    wanted = json.loads(CODEC.encode_response(decode(data)[0], CONTEXT).body)
    pieces = [piece + b"\n\n" for piece in data.split(b"\n\n")[:-1]]
    for changed in range(0, len(pieces), step):
        decoder, encoder = CODEC.stream_decoder(), CODEC.stream_encoder(CONTEXT)
        out = []
        for number, piece in enumerate(pieces):
            chunk = decoder.feed(piece)
            assert chunk is not None
            out.append(encoder.encode(chunk if number < changed else Chunk(chunk.events)))
        out.append(encoder.close(None))
        values = [
            json.loads(frame.partition(b"data: ")[2]) for frame in b"".join(out).split(b"\n\n") if b"data: " in frame
        ]
        assert [value["sequence_number"] for value in values] == list(range(len(values)))
        assert len([value for value in values if value["type"] == "response.created"]) == 1
        added = [value["output_index"] for value in values if value["type"] == "response.output_item.added"]
        assert len(added) == len(set(added))
        last = values[-1]["response"]
        assert {k: v for k, v in last.items() if v is not None} == {k: v for k, v in wanted.items() if v is not None}


# -- the end


def test_an_answer_without_an_end_mark_ends() -> None:
    data = encode(around(told(Text(""), PartDelta(0, "x")))[:-2])
    assert types(data)[-1] == "completed"
    encoder = CODEC.stream_encoder(CONTEXT)
    assert types(encoder.encode(Chunk(())) + encoder.close(None)) == ["created", "in_progress", "completed"]


@pytest.mark.parametrize("started", [False, True])
def test_a_failure_is_told_and_nothing_ends_well(started: bool) -> None:
    encoder = CODEC.stream_encoder(CONTEXT)
    events = around(told(Text(""), PartDelta(0, "half")))[:3] if started else []
    data = encoder.encode(Chunk(tuple(events))) + encoder.close(Overloaded("busy"))
    last = frames(data)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert last["response"]["error"]["message"] == "busy"
    assert bool(last["response"]["output"]) is started
    assert b"response.completed" not in data
    assert by_the_sdk(data) is None
    assert encoder.close(None) == b""
    assert encoder.encode(Chunk((PartDelta(0, "x"),))) == b""


def test_the_caller_left() -> None:
    encoder = CODEC.stream_encoder(CONTEXT)
    assert encoder.close(Cancelled("gone")) == b""


def test_an_answer_that_ends_with_an_error() -> None:
    data = encode(around(told(Text("x")), stop=ChoiceStop("error", "boom")))
    assert types(data)[-1] == "failed"


@pytest.mark.parametrize("name", ["error", "failed"])
def test_the_providers_own_error_goes_through(name: str) -> None:
    data = read(name)
    decoder, encoder = CODEC.stream_decoder(), CODEC.stream_encoder(CONTEXT)
    chunk = decoder.feed(data)
    assert chunk is not None
    out = encoder.encode(chunk) + encoder.close(decoder.error)
    assert out.startswith(data)
    rest = out[len(data) :]
    # An error event alone is not the end of a response.
    assert (b"response.failed" in rest) is (name == "error")
    frames(out)


def test_an_error_before_anything_else_is_numbered_behind_the_beginning() -> None:
    decoder, encoder = CODEC.stream_decoder(), CODEC.stream_encoder(CONTEXT)
    assert decoder.feed(event("error", sequence_number=0, code="server_error", message="No.", param=None)) is None
    values = frames(encoder.close(decoder.error))
    assert [value["type"] for value in values] == [
        *("response.created", "response.in_progress", "error", "response.failed"),
    ]


def test_words_of_content_that_nobody_knows_are_left_out() -> None:
    message = {"id": "m", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    data = (
        event("response.created", response={"id": "r", "model": "m", "created_at": 7, "output": []})
        + event("response.output_item.added", output_index=0, item=message)
        + event("response.output_text.delta", output_index=0, content_index=0, delta="a")
        + event("response.content_part.done", output_index=0, content_index=1, part={"type": "hologram"})
        + event("response.output_text.delta", output_index=0, content_index=1, delta="b")
    )
    events, _ = decode(data)
    assert [each.text for each in events if isinstance(each, PartDelta)] == ["a"]
    assert b'"b"' not in encode([*events, PartDelta(1, "b")], size=1)


# -- the tier, which Chat Completions spells the same


def test_the_tier_is_told_to_callers_of_chat() -> None:
    response = {"id": "r", "model": "m", "created_at": 7, "output": [], "status": "in_progress", "service_tier": "auto"}
    done = response | {"status": "completed", "service_tier": "flex", "usage": {"input_tokens": 1, "output_tokens": 1}}
    events, error = decode(
        event("response.created", response=response)
        + event("response.output_text.delta", output_index=0, content_index=0, delta="a")
        + event("response.completed", response=done)
    )
    assert error is None
    encoder = CHAT.stream_encoder(AnswerContext("r1", stream_usage=True))
    data = encoder.encode(Chunk(tuple(events))) + encoder.close(None)
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in data.split(b"\n\n") if frame[6:7] == b"{"]
    assert [chunk["service_tier"] for chunk in chunks] == ["auto", "auto", "flex", "flex"]
    whole = CHAT.encode_response(events, CONTEXT)
    assert json.loads(whole.body)["service_tier"] == "flex"
    of_one = CHAT.encode_response(CODEC.decode_response(json.dumps(done).encode()), CONTEXT)
    assert json.loads(of_one.body)["service_tier"] == "flex"
    assert [loss.path for loss in (*encoder.losses, *whole.losses, *of_one.losses) if "tier" in loss.path] == []


def test_the_tier_of_chat_is_told_here() -> None:
    start = ResponseStart("id_1", "m", 7, "auto", format="openai.chat")
    text = told(Text(""), PartDelta(0, "a"))
    patch = ResponsePatch({"service_tier": Raw(b'"flex"'), "system_fingerprint": Raw(b'"fp"')})
    events = [start, *text, patch, ChoiceStop("stop"), ResponseStop(), Terminator()]
    encoder = CODEC.stream_encoder(CONTEXT)
    values = frames(encoder.encode(Chunk(tuple(events))) + encoder.close(None))
    assert values[0]["response"]["service_tier"] == "auto"
    assert values[-1]["response"]["service_tier"] == "flex"
    assert json.loads(CODEC.encode_response(events, CONTEXT).body)["service_tier"] == "flex"
    assert [loss.path for loss in encoder.losses if loss.kind == "lost"] == ["system_fingerprint"]
