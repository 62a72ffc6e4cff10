"""Answers of Ollama: whole ones and streams into events and back, cut anywhere, broken off, and as its client reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from headgate.gateway.codecs.anthropic_messages import CODEC as ANTHROPIC
from headgate.gateway.codecs.ollama import CHAT, GENERATE, Ollama, stream_encoder
from headgate.gateway.codecs.ollama.answer_writer import token_logprobs
from headgate.gateway.codecs.openai_chat import CODEC as OPENAI
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
    StopReason,
    Terminator,
    Usage,
    UsageReport,
    Wire,
)
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.message import Citation, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from msgspec import Raw
from msgspec.structs import replace
from ollama import ChatResponse, GenerateResponse, ResponseError

from .ollama_cases import CONTEXT, CORPUS, DATE, client, codec_of, events_of, feed, load, stream

NAMES = sorted(path.name for path in CORPUS.glob("*.ndjson"))
CLEAN = [name for name in NAMES if not name.startswith("error")]
PAIRS = [name.removesuffix(".ndjson") for name in CLEAN if (CORPUS / name).with_suffix(".json").exists()]
END = (ResponseStop(), Terminator())
PNG = "iVBORw0KGgo="


def lines(data: bytes) -> list[dict[str, Any]]:
    """The JSON values of a stream; fails for one that does not end with a line."""
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.decode().splitlines()]


def told(events: Sequence[Event]) -> Any:
    """What events come to, save how the unknown members of their lines fell on the envelope; log probabilities joined."""
    folded = fold(events)
    entries = [entry for choice in folded.choices for entry in token_logprobs(choice.logprobs)]
    choices = [replace(choice, logprobs=()) for choice in folded.choices]
    return folded.start, choices, folded.usage, folded.aliens, [bytes(entry) for entry in entries]


# -- streams in


@pytest.mark.parametrize("name", NAMES)
def test_cut_at_every_byte(name: str) -> None:
    codec, wire = codec_of(name), load(name)
    whole, error = feed(codec, wire)
    for sizes in ([1] * (len(wire) - 1), [7] * (len(wire) // 7)):
        chunks, fault = feed(codec, wire, sizes)
        assert events_of(chunks) == events_of(whole)
        assert b"".join(chunk.raw or b"" for chunk in chunks) == b"".join(chunk.raw or b"" for chunk in whole)
        assert repr(fault) == repr(error)
    for place in range(1, len(wire)):
        assert events_of(feed(codec, wire, [place])[0]) == events_of(whole)


@pytest.mark.parametrize("name", CLEAN)
def test_raw_is_what_came(name: str) -> None:
    codec, wire = codec_of(name), load(name)
    chunks, error = feed(codec, wire.replace(b"\n", b"\r\n"), [50] * 10)
    assert error is None
    assert b"".join(chunk.raw or b"" for chunk in chunks) == wire.replace(b"\n", b"\r\n")
    assert {chunk.wire for chunk in chunks} == {Wire(codec.format, "ndjson")}
    assert events_of(chunks) == events_of(feed(codec, wire)[0])


@pytest.mark.parametrize("name", PAIRS)
def test_a_stream_comes_to_the_whole_answer(name: str) -> None:
    codec = codec_of(name)
    assert told(events_of(feed(codec, load(f"{name}.ndjson"))[0])) == told(codec.decode_response(load(f"{name}.json")))


def test_events_of_a_stream() -> None:
    usage = {
        "total_duration": Raw(b"4883583458"),
        "load_duration": Raw(b"1334875"),
        "prompt_eval_count": Raw(b"26"),
        "prompt_eval_duration": Raw(b"342546000"),
        "eval_count": Raw(b"282"),
        "eval_duration": Raw(b"4535599000"),
    }
    assert events_of(feed(CHAT, load("tools.ndjson"))[0]) == [
        ResponseStart("", "llama3.2", 1691164339, None, {}, "ollama.chat"),
        PartStart(0, Reasoning(origin="ollama.chat")),
        PartDelta(0, "Let me"),
        PartDelta(0, " look."),
        PartStop(0),
        PartStart(1, Text("")),
        PartDelta(1, "One moment."),
        PartStop(1),
        PartStart(2, ToolCall("call_a1", "get_weather", extra={"function.index": Raw(b"null")})),
        PartDelta(2, '{"city":"Paris","at":1.50,"days":[1,{"z":0,"a":null}]}'),
        PartStop(2),
        PartStart(3, ToolCall("", "get_time", extra={"function.index": Raw(b"null")})),
        PartDelta(3, "{}"),
        PartStop(3),
        ChoiceStop("tool_calls", "stop"),
        UsageReport(Usage(26, 26, None, None, 282, None, False, "ollama.chat", usage)),
        *END,
    ]


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        ("load.json", ChoiceStop("other", "load")),
        ("generate_unload.json", ChoiceStop("other", "unload")),
        ("old.json", ChoiceStop("stop", "")),
        ("logprobs.json", ChoiceStop("length", "length")),
        ("generate.json", ChoiceStop("stop", "stop", extra={"context": Raw(b"[1,2,3]")})),
        ("cloud.json", ChoiceStop("stop", "stop", extra={"x_new": Raw(b"[1.5]")})),
    ],
)
def test_why_an_answer_ended(name: str, stop: ChoiceStop) -> None:
    events = codec_of(name).decode_response(load(name))
    assert [event for event in events if isinstance(event, ChoiceStop)] == [stop]


def test_images_say_what_they_are() -> None:
    events = GENERATE.decode_response(load("generate_image.json"))
    assert PartStart(0, Media("image", "image/png", data=PNG)) in events
    body = b'{"message":{"role":"assistant","content":"","images":["/9j/4AAQSkZJRg==","?"]},"done":true}'
    parts = [event.part for event in CHAT.decode_response(body) if isinstance(event, PartStart)]
    assert parts == [Media("image", "image/jpeg", data="/9j/4AAQSkZJRg=="), Media("image", data="?")]


def test_log_probabilities_have_the_shape_of_the_ir() -> None:
    (delta,) = [event for event in CHAT.decode_response(load("logprobs.json")) if isinstance(event, PartDelta)]
    assert delta.logprobs is not None
    assert [entry["token"] for entry in json.loads(bytes(delta.logprobs))["content"]] == ["The", " sky"]
    chat = json.loads(OPENAI.encode_response(CHAT.decode_response(load("logprobs.json")), CONTEXT).body)
    entries = json.loads(load("logprobs.json"))["logprobs"]
    assert chat["choices"][0]["logprobs"] == {"content": entries}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"{}", "malformed"),
        (b"{nonsense", "malformed"),
        (b'{"message":7,"done":true}', "malformed"),
        (b'{"message":{"content":7},"done":true}', "malformed"),
        (b'{"message":{"content":"x"},"done":"yes"}', "malformed"),
        (b'{"message":{"content":"x"},"done":false}', "malformed"),
        (b'{"message":{"tool_calls":[{}]},"done":true}', "malformed"),
        (b'{"message":{"content":"x"},"done":true,"eval_count":"many"}', "malformed"),
        (b'{"error":"model \\"x\\" not found, try pulling it first"}', "not_found"),
    ],
)
def test_an_answer_that_is_none(body: bytes, kind: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        CHAT.decode_response(body)
    assert caught.value.kind == kind


def test_halves_of_letters_are_mended() -> None:
    body = b'{"message":{"role":"assistant","content":"a\\ud83d"},"done":true}'
    assert PartDelta(0, "a\ufffd") in CHAT.decode_response(body)
    assert PartDelta(0, "a\ufffd") in events_of(feed(CHAT, body + b"\n")[0])


# -- where a stream breaks off


@pytest.mark.parametrize("name", CLEAN)
def test_broken_off_anywhere(name: str) -> None:
    codec, wire = codec_of(name), load(name)
    for place in range(len(wire)):
        chunks, error = feed(codec, wire[:place])
        # A line whose end alone is missing is whole, the last one too.
        ended = wire[place : place + 1] == b"\n"
        whole = ended and place == len(wire) - 1
        assert isinstance(error, Cut) is not whole, place
        kept = wire[: place + 1] if ended else wire[: wire[:place].rfind(b"\n") + 1]
        assert b"".join(chunk.raw or b"" for chunk in chunks) == kept
        assert any(isinstance(event, Terminator) for event in events_of(chunks)) is whole


@pytest.mark.parametrize(
    ("wire", "kind", "raw"),
    [
        (load("error.ndjson"), "upstream_error", True),
        (b'{"error":"server busy, please try again.  maximum pending requests exceeded"}\n', "overloaded", True),
        (b'{"error":{"message":"no such model","code":"x"}}\n', "upstream_error", False),
        (b"{nonsense\n", "malformed", False),
        (b"[]\n", "malformed", False),
        (b'{"message":{"content":[]},"done":false}\n', "malformed", False),
        (b"", "cut", False),
        (b"\n\n", "cut", False),
        (b'{"x":1}\n', "cut", False),
    ],
)
def test_a_stream_that_fails(wire: bytes, kind: str, raw: bool) -> None:
    chunks, error = feed(CHAT, wire)
    assert error is not None and error.kind == kind
    assert (error.raw is not None) is raw
    sent = stream(CHAT, events_of(chunks), error)
    assert "done" not in lines(sent)[-1]
    assert isinstance(lines(sent)[-1]["error"], str)
    if raw:
        assert sent.splitlines()[-1] == wire.splitlines()[-1]


def test_a_line_above_the_cap() -> None:
    from headgate.gateway.codecs.ollama.stream_decoder import OllamaStreamDecoder

    decoder = OllamaStreamDecoder("ollama.chat", max_frame_bytes=1000)
    for _ in range(1001):
        assert decoder.error is None
        decoder.feed(b" ")
    assert isinstance(decoder.error, Malformed)
    assert decoder.feed(b"\n") is None and decoder.close() is None


def test_what_nobody_knows_is_kept() -> None:
    odd = b'{"x_news" : [1.50]}\n'
    later = b'{"model":"m","message":{"role":"assistant","content":"","x_m":1},"x_top":2,"done":false}\n'
    wire = load("text.ndjson")
    chunks, error = feed(CHAT, b"\n" + odd + later + wire + later)
    assert error is None
    events = events_of(chunks)
    assert events[:2] == [Keepalive(), Alien("ollama.chat", "x_news", odd.strip())]
    assert ChoicePatch(0, {"x_m": Raw(b"1")}) in events
    assert ResponsePatch({"x_top": Raw(b"2")}) in events
    sent = stream(CHAT, events)
    assert odd in sent
    assert {"x_m": 1, "role": "assistant", "content": ""} in [line.get("message") for line in lines(sent)[1:]]
    assert lines(sent)[-1]["x_top"] == 2


# -- answers out


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.glob("*.json")))
def test_whole_answers_come_back(name: str) -> None:
    codec, body = codec_of(name), load(name)
    encoded = codec.encode_response(codec.decode_response(body), CONTEXT)
    value = json.loads(body)
    value["created_at"] = "2023-08-04T15:52:19Z"  # to the second, in UTC
    if codec is CHAT:
        value["message"] = {name: said for name, said in value["message"].items() if said is not None}
        value["message"].setdefault("content", "")
    else:
        value.setdefault("response", "")
    assert json.loads(encoded.body) == value
    assert encoded.losses == ()


@pytest.mark.parametrize("name", CLEAN)
def test_streams_come_back(name: str) -> None:
    codec = codec_of(name)
    events = events_of(feed(codec, load(name))[0])
    again, error = feed(codec, stream(codec, events))
    assert error is None
    assert told(events_of(again)) == told(events)


@pytest.mark.parametrize("name", CLEAN)
def test_untouched_chunks_go_out_as_they_came(name: str) -> None:
    codec, wire = codec_of(name), load(name)
    chunks, _ = feed(codec, wire, [80] * 5)
    encoder = codec.stream_encoder(CONTEXT)
    assert b"".join(encoder.encode(chunk) for chunk in chunks) + encoder.close(None) == wire


def test_a_change_in_the_middle_of_a_stream() -> None:
    wire = load("text.ndjson")
    encoder = CHAT.stream_encoder(CONTEXT)
    chunks, _ = feed(CHAT, wire, [len(line) for line in wire.splitlines(keepends=True)])
    sent = encoder.encode(chunks[0])
    sent += encoder.encode(Chunk((PartDelta(0, " sea "),)))
    sent += b"".join(encoder.encode(chunk) for chunk in chunks[2:]) + encoder.close(None)
    assert "".join(line["message"]["content"] for line in lines(sent)) == "The sea is blü"
    assert lines(sent)[-1]["eval_count"] == 282
    assert sum("done_reason" in line for line in lines(sent)) == 1


START = ResponseStart("id1", "m", None, "default", {"x": Raw(b"1")}, "elsewhere")


def answer(*parts: Part, reason: StopReason = "stop", raw: str = "r", usage: Usage | None = None) -> tuple[Event, ...]:
    """An answer of another format."""
    out: list[Event] = [START]
    for index, part in enumerate(parts):
        out += (PartStart(index, part), PartStop(index))
    out.append(ChoiceStop(reason, raw, extra={"y": Raw(b"1")}))
    if usage is not None:
        out.append(UsageReport(usage))
    return (*out, *END)


SAID: list[tuple[Part, dict[str, Any], list[tuple[str, str]]]] = [
    (Text("a"), {"content": "a"}, []),
    (Text("a", (Citation("f", "c", b"{}"),)), {"content": "a"}, [("lost", "parts[0].citations")]),
    (Refusal("No."), {"content": "No."}, [("emulated", "parts[0]")]),
    (Reasoning("hm"), {"content": "", "thinking": "hm"}, []),
    (Reasoning("hm", "sig"), {"content": "", "thinking": "hm"}, [("lost", "parts[0].signature")]),
    (Reasoning(redacted="x"), {"content": ""}, [("lost", "parts[0]")]),
    (
        ToolCall("c", "f", '{"b" : 1.50}'),
        {"content": "", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"b": 1.5}}}]},
        [],
    ),
    (ToolCall("", "f"), {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, []),
    (
        ToolCall("c", "f", "x", "custom"),
        {"content": "", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"input": "x"}}}]},
        [("emulated", "parts[0]")],
    ),
    (ToolCall("c", "f", "", server="web"), {"content": ""}, [("lost", "parts[0]")]),
    (Media("image", "image/png", data=PNG), {"content": "", "images": [PNG]}, []),
    (Media("audio", data="UklG"), {"content": ""}, [("lost", "parts[0]")]),
    (Opaque("f", "thing", b"{}"), {"content": ""}, [("lost", "parts[0]")]),
]
AROUND = {("lost", "id"), ("lost", "service_tier"), ("lost", "x"), ("lost", "y"), ("minted", "created_at")}


@pytest.mark.parametrize(("part", "message", "losses"), SAID)
def test_parts_of_another_format(part: Part, message: dict[str, Any], losses: list[tuple[str, str]]) -> None:
    events = answer(part)
    encoded = CHAT.encode_response(events, CONTEXT)
    assert json.loads(encoded.body) == {
        "model": "m",
        "created_at": DATE,
        "message": {"role": "assistant", **message},
        "done": True,
        "done_reason": "stop",
    }
    encoder = CHAT.stream_encoder(CONTEXT)
    sent = lines(encoder.encode(Chunk(events)) + encoder.close(None))
    assert sent[-1] == {
        "model": "m",
        "created_at": DATE,
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
    }
    if set(message) - {"content"} or message["content"]:
        assert sent[0]["message"] == {"role": "assistant", **message}
    assert len(sent) <= 2
    for noted in (encoded.losses, encoder.losses):
        found = [(loss.kind, loss.path) for loss in noted]
        assert set(found) - AROUND == set(losses)
        assert set(found) >= AROUND


@pytest.mark.parametrize(
    ("reason", "word", "noted"),
    [
        ("stop", "stop", False),
        ("length", "length", False),
        ("tool_calls", "stop", False),
        ("stop_sequence", "stop", True),
        ("content_filter", "stop", True),
        ("refusal", "stop", True),
        ("pause", "stop", True),
        ("context_window", "length", True),
        ("other", "stop", True),
    ],
)
def test_reasons_of_another_format(reason: StopReason, word: str, noted: bool) -> None:
    events = answer(Text("a"), reason=reason)
    encoded = CHAT.encode_response(events, CONTEXT)
    encoder = CHAT.stream_encoder(CONTEXT)
    sent = lines(encoder.encode(Chunk(events)))
    assert json.loads(encoded.body)["done_reason"] == sent[-1]["done_reason"] == word
    for losses in (encoded.losses, encoder.losses):
        assert (("emulated", "done_reason") in [(loss.kind, loss.path) for loss in losses]) is noted


def test_no_reason_and_no_usage() -> None:
    events = (START, PartStart(0, Text("a")), PartStop(0))
    encoded = CHAT.encode_response(events, CONTEXT)
    encoder = CHAT.stream_encoder(CONTEXT)
    sent = lines(encoder.encode(Chunk(events)) + encoder.close(None))
    for value, losses in ((json.loads(encoded.body), encoded.losses), (sent[-1], encoder.losses)):
        assert (value["done"], value["done_reason"]) == (True, "stop")
        assert "eval_count" not in value
        assert ("minted", "done_reason") in [(loss.kind, loss.path) for loss in losses]


def test_a_failure_is_no_answer() -> None:
    events = answer(Text("a"), reason="error")
    with pytest.raises(UpstreamError):
        CHAT.encode_response(events, CONTEXT)
    sent = lines(stream(CHAT, events))
    assert "error" in sent[-1]
    assert not any(line.get("done") for line in sent)


@pytest.mark.parametrize("arguments", ["{nonsense", "[1]", '"x"', '{"a":1}{'])
def test_a_call_that_nobody_can_run(arguments: str) -> None:
    events = answer(ToolCall("c", "f", arguments))
    with pytest.raises(Malformed):
        CHAT.encode_response(events, CONTEXT)
    with pytest.raises(Malformed):
        stream(CHAT, events)


def test_calls_are_held_back_until_they_are_whole() -> None:
    encoder = CHAT.stream_encoder(CONTEXT)
    started = (START, PartStart(0, ToolCall("a", "f")), PartStart(1, ToolCall("b", "g")))
    grows = (PartDelta(0, '{"a":'), PartDelta(1, "{"), PartDelta(0, "1}"), PartPatch(0))
    assert encoder.encode(Chunk((*started, *grows))) == b""
    (first,) = lines(encoder.encode(Chunk((PartStop(0),))))
    assert first["message"]["tool_calls"] == [{"id": "a", "function": {"name": "f", "arguments": {"a": 1}}}]
    (second,) = lines(encoder.encode(Chunk((PartDelta(1, "}"), PartStop(1)))))
    assert second["message"]["tool_calls"] == [{"id": "b", "function": {"name": "g", "arguments": {}}}]


def test_what_is_held_back_has_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_encoder, "MAX_HELD_BYTES", 1000)
    encoder = CHAT.stream_encoder(CONTEXT)
    encoder.encode(Chunk((START, PartStart(0, ToolCall("a", "f")), PartDelta(0, "x" * 900))))
    with pytest.raises(Malformed):
        encoder.encode(Chunk((PartDelta(0, "x" * 101),)))


def test_more_than_one_choice() -> None:
    events = (START, PartStart(0, Text("a"), 0), PartStop(0, 0), PartStart(1, Text("b"), 1), PartDelta(1, "c", 1))
    events += (PartStop(1, 1), ChoiceStop("stop", "", 1), ChoiceStop("length", "", 0), *END)
    encoded = CHAT.encode_response(events, CONTEXT)
    encoder = CHAT.stream_encoder(CONTEXT)
    sent = lines(encoder.encode(Chunk(events)))
    assert json.loads(encoded.body)["message"]["content"] == "".join(line["message"]["content"] for line in sent) == "a"
    assert sent[-1]["done_reason"] == json.loads(encoded.body)["done_reason"] == "length"
    for losses in (encoded.losses, encoder.losses):
        assert ("lost", "choices[1]") in [(loss.kind, loss.path) for loss in losses]


@pytest.mark.parametrize(
    ("usage", "members"),
    [
        (Usage(5, output_tokens=3), {"prompt_eval_count": 5, "eval_count": 3}),
        (Usage(None, 2, 3, 4, 1), {"prompt_eval_count": 9, "eval_count": 1}),
        (Usage(output_tokens=3), {"eval_count": 3}),
        (Usage(5, output_tokens=3, format="ollama.generate", raw={"eval_count": Raw(b"9")}), {"eval_count": 9}),
        (
            Usage(5, output_tokens=3, format="openai.chat", raw={"x": Raw(b"9")}),
            {"prompt_eval_count": 5, "eval_count": 3},
        ),
    ],
)
def test_usage(usage: Usage, members: dict[str, int]) -> None:
    events = answer(Text("a"), usage=usage)
    for value in (json.loads(CHAT.encode_response(events, CONTEXT).body), lines(stream(CHAT, events))[-1]):
        assert {name: value[name] for name in ("prompt_eval_count", "eval_count") if name in value} == members


@pytest.mark.parametrize("name", ["text.json", "old.json", "generate.json", "load.json"])
def test_usage_is_read_from_the_body(name: str) -> None:
    codec, body = codec_of(name), load(name)
    reports = [event.usage for event in codec.decode_response(body) if isinstance(event, UsageReport)]
    assert codec.read_usage(Raw(body)) == (reports[0] if reports else None)
    assert codec.read_usage(Raw(b"null")) is None


def test_a_ping_says_nothing() -> None:
    for codec in (CHAT, GENERATE):
        encoder = codec.stream_encoder(CONTEXT)
        assert lines(encoder.ping)[0]["model"] == "asked"
        encoder.encode(Chunk((START,)))
        (ping,) = lines(encoder.ping)
        assert (ping["model"], ping["done"]) == ("m", False)
        again = events_of(feed(codec, encoder.ping)[0])
        assert [type(event) for event in again] == [ResponseStart]
        assert encoder.encode(Chunk((Keepalive(),))) == encoder.ping


@pytest.mark.parametrize(("error", "owed"), [(Cancelled("left"), b""), (Overloaded("busy"), b'{"error":"busy"}\n')])
def test_what_is_owed_after_an_error(error: GatewayError, owed: bytes) -> None:
    encoder = CHAT.stream_encoder(CONTEXT)
    encoder.encode(Chunk((START,)))
    assert encoder.close(error) == owed
    assert encoder.close(None) == b""


# -- as Ollama's own client reads them

WORDS = 'a\u2028b\u0085c\u2029d\n\r\t"\\é👋\x00'


@pytest.mark.parametrize("name", ["text.ndjson", "tools.ndjson", "logprobs.ndjson", "cloud.ndjson", "old.ndjson"])
def test_its_client_reads_our_chats(name: str) -> None:
    events = events_of(feed(CHAT, load(name))[0])
    for origin in (events, through(OPENAI, events), through(ANTHROPIC, events)):
        body = stream(CHAT, origin)
        parts = list(client(lambda _, body=body: (200, {}, body)).chat("m", [], stream=True))
        assert all(isinstance(part, ChatResponse) for part in parts)
        whole = CHAT.encode_response(origin, CONTEXT).body
        read = client(lambda _, whole=whole: (200, {}, whole)).chat("m", [])
        assert "".join(part.message.content or "" for part in parts) == read.message.content
        assert "".join(part.message.thinking or "" for part in parts) == (read.message.thinking or "")
        calls = [call for part in parts for call in part.message.tool_calls or ()]
        assert calls == list(read.message.tool_calls or ())
        assert parts[-1].done is read.done is True
        assert parts[-1].eval_count == read.eval_count == json.loads(load(name).splitlines()[-1])["eval_count"]


def through(codec: Any, events: Sequence[Event]) -> list[Event]:
    """The same answer, as a provider of another format would have told it."""
    encoder = codec.stream_encoder(CONTEXT)
    decoder = codec.stream_decoder()
    chunks = [decoder.feed(encoder.encode(Chunk(tuple(events))) + encoder.close(None)), decoder.close()]
    assert decoder.error is None
    return [event for chunk in chunks if chunk is not None for event in chunk.events]


def test_its_client_reads_our_generations() -> None:
    events = events_of(feed(GENERATE, load("generate.ndjson"))[0])
    body = stream(GENERATE, events)
    parts = list(client(lambda _: (200, {}, body)).generate("m", "x", stream=True))
    assert all(isinstance(part, GenerateResponse) for part in parts)
    assert "".join(part.response or "" for part in parts) == "The sky"
    assert "".join(part.thinking or "" for part in parts) == "Hm."
    assert list(parts[-1].context or ()) == [1, 2, 3]


def test_no_letter_ends_a_line() -> None:
    """Its client cuts lines where Python does, at letters that JSON need not escape."""
    events = answer(Text(WORDS), ToolCall("c", "f", json.dumps({WORDS: [WORDS]}, ensure_ascii=False, indent=1)))
    for codec in (CHAT, GENERATE):
        body = stream(codec, events)
        assert len(body.decode().splitlines()) == body.count(b"\n") == 3
    parts = list(client(lambda _: (200, {}, stream(CHAT, events))).chat("m", [], stream=True))
    assert parts[0].message.content == WORDS
    assert [dict(call.function.arguments) for call in parts[1].message.tool_calls or ()] == [{WORDS: [WORDS]}]


def test_its_client_reads_our_errors() -> None:
    error = Overloaded("busy now")
    status, headers, body = CHAT.encode_error(error, "r1")
    with pytest.raises(ResponseError) as caught:
        client(lambda _: (status, headers, body)).chat("m", [])
    assert (caught.value.status_code, caught.value.error) == (503, "busy now")
    broken = stream(CHAT, [START, PartStart(0, Text("a"))], error)
    with pytest.raises(ResponseError) as caught:
        list(client(lambda _: (200, {}, broken)).chat("m", [], stream=True))
    assert caught.value.error == "busy now"


def test_codecs_have_two_formats() -> None:
    assert (CHAT.format, GENERATE.format) == ("ollama.chat", "ollama.generate")
    assert isinstance(CHAT, Ollama) and CHAT.streamed.framing == "ndjson" and CHAT.whole.framing == "json"
