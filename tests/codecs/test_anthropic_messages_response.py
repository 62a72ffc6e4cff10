"""Whole answers of anthropic.messages, and that a stream is the same answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from anthropic.types import Message
from headgate.gateway.codecs.anthropic_messages import CODEC
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.errors import Malformed, Overloaded, UpstreamError
from headgate.gateway.ir.event import ChoiceStop, Chunk, Event, ResponseStart, Usage, UsageReport
from headgate.gateway.ir.fold import fold, unfold_parts
from headgate.gateway.ir.message import Citation, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from msgspec import Raw
from pydantic import TypeAdapter

CORPUS = Path(__file__).parent.parent / "corpus" / "anthropic_messages"
NAMES = sorted(path.stem for path in (CORPUS / "messages").glob("*.json"))
CONTEXT = AnswerContext(request_id="r1", model="asked")


def read(name: str) -> bytes:
    return (CORPUS / "messages" / f"{name}.json").read_bytes().split(b"\n", 1)[1]


def streamed(data: bytes) -> list[Event]:
    decoder = CODEC.stream_decoder()
    chunks = (decoder.feed(data), decoder.close())
    assert decoder.error is None
    return [event for chunk in chunks if chunk is not None for event in chunk.events]


def plain(value: object) -> object:
    """Opaque blocks and extras by what they say: a stream spells its JSON without blanks."""
    if isinstance(value, bytes | Raw):
        return json.loads(bytes(value))
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if hasattr(value, "__struct_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return value


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_folds_into_the_whole(name: str) -> None:
    stream = streamed((CORPUS / "streams" / f"{name}.sse").read_bytes())
    assert plain(fold(stream)) == plain(fold(CODEC.decode_response(read(name))))


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_comes_out_again(name: str) -> None:
    written = CODEC.encode_response(CODEC.decode_response(read(name)), CONTEXT)
    expected = {k: v for k, v in json.loads(read(name)).items() if not (name == "stop_details" and k == "content")}
    got = json.loads(written.body)
    assert {k: got[k] for k in expected} == expected and written.losses == ()
    if name != "compaction":
        TypeAdapter(Message).validate_json(written.body)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_of_the_whole_and_a_whole_of_the_stream(name: str) -> None:
    events = CODEC.decode_response(read(name))
    encoder = CODEC.stream_encoder(CONTEXT)
    stream = encoder.encode(Chunk(events)) + encoder.close(None)
    assert plain(fold(streamed(stream))) == plain(fold(events))
    assert fold(CODEC.decode_response(CODEC.encode_response(streamed(stream), CONTEXT).body)) == fold(streamed(stream))


def test_arguments_keep_their_bytes() -> None:
    spelled = b'{"location": "San Francisco, CA", "days": 1.0}'
    assert spelled in read("tool_use")
    assert spelled in CODEC.encode_response(CODEC.decode_response(read("tool_use")), CONTEXT).body


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "malformed"),
        (b"<html>", "malformed"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b'{"content":"a"}', "malformed"),
        (b'{"content":[{"type":"text"}]}', "malformed"),
        (b'{"content":' + b"[" * 100_000, "malformed"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}', "overloaded"),
        (b'{"error":{"message":"m","code":3}}', "upstream_error"),
    ],
)
def test_what_is_no_answer(body: bytes, kind: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        CODEC.decode_response(body)
    assert caught.value.kind == kind


def test_an_error_in_a_200_keeps_its_body() -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}'
    with pytest.raises(Overloaded) as caught:
        CODEC.decode_response(body)
    assert caught.value.raw == body


def answer(*parts: Part, reason: str = "stop", usage: Usage | None = None, format: str = "openai.chat") -> list[Event]:
    events: list[Event] = [ResponseStart("id", "m", format=format), *unfold_parts(parts, 0, 0)]
    events.append(ChoiceStop(reason, reason))  # type: ignore[arg-type]
    return [*events, UsageReport(usage)] if usage is not None else events


def test_a_foreign_answer() -> None:
    events = answer(
        Reasoning("hm", "theirs", origin="gemini"),
        Text("a", citations=(Citation("openai.chat", "url_citation", b"{}"),), extra={"x": Raw(b"1")}),
        Refusal("no"),
        Media("audio", data="aaaa"),
        Opaque("gemini", "codeExecutionResult", b"{}"),
        ToolCall("c1", "f", '{"a": 1.0}'),
        ToolCall("", "g", ""),
        ToolCall("c3", "h", "free", kind="custom"),
        usage=Usage(120, None, 20, None, 9),
    )
    encoded = CODEC.encode_response(events, CONTEXT)
    assert json.loads(encoded.body) == {
        "id": "id",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "a"},
            {"type": "text", "text": "no"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1.0}},
            {"type": "tool_use", "id": "toolu_r1_4", "name": "g", "input": {}},
            {"type": "tool_use", "id": "c3", "name": "h", "input": {"input": "free"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "cache_read_input_tokens": 20, "output_tokens": 9},
    }
    TypeAdapter(Message).validate_json(encoded.body)
    assert [f"{loss.kind} {loss.what}" for loss in encoded.losses] == [
        "lost reasoning signature",
        "lost citations",
        "lost x",
        "emulated refusal",
        "lost audio",
        "lost codeExecutionResult",
        "minted tool call id",
        "emulated custom tool call",
        "emulated tool_use",
    ]


def test_foreign_and_streamed_is_foreign_and_whole() -> None:
    events = answer(Text("a"), ToolCall("c1", "f", '{"a":1}'), reason="tool_calls", usage=Usage(7, output_tokens=2))
    encoder = CODEC.stream_encoder(CONTEXT)
    stream = b"".join(encoder.encode(Chunk((event,))) for event in events) + encoder.close(None)
    whole = CODEC.decode_response(CODEC.encode_response(events, CONTEXT).body)
    assert fold(streamed(stream)) == fold(whole)


@pytest.mark.parametrize("arguments", ["{", "[1]", "nonsense"])
def test_broken_arguments_are_malformed(arguments: str) -> None:
    with pytest.raises(Malformed):
        CODEC.encode_response(answer(ToolCall("a", "f", arguments)), CONTEXT)


def test_no_answer_at_all_is_minted_and_said() -> None:
    encoded = CODEC.encode_response([], CONTEXT)
    body = json.loads(encoded.body)
    assert (body["id"], body["model"], body["content"]) == ("msg_r1", "asked", [])
    assert (body["stop_reason"], body["usage"]) == ("end_turn", {"input_tokens": 0, "output_tokens": 0})
    assert [loss.what for loss in encoded.losses] == ["id", "stop_reason", "usage"]


def test_an_answer_that_ended_with_an_error_is_one() -> None:
    with pytest.raises(UpstreamError):
        CODEC.encode_response(answer(Text("a"), reason="error"), CONTEXT)


def test_one_answer_of_several() -> None:
    events = [*answer(Text("a")), *unfold_parts((Text("b"),), 1, 1), ChoiceStop("stop", choice=1)]
    encoded = CODEC.encode_response(events, CONTEXT)
    assert json.loads(encoded.body)["content"] == [{"type": "text", "text": "a"}]
    assert ("lost", "choices") in {(loss.kind, loss.what) for loss in encoded.losses}
