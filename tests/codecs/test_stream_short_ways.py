"""The short ways of streams, decoders and encoders: a chunk that is only more of an open part.

Whatever is read the short way is read as by the long one, and what is written the short way has the same bytes; and the
common chunk takes the short way, since one that refuses too much is only slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import pytest
from headgate.gateway.codecs import (
    anthropic_messages,
    gemini,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
)
from headgate.gateway.codecs.anthropic_messages import stream as messages
from headgate.gateway.codecs.base import AnswerContext, Codec
from headgate.gateway.codecs.gemini import encoder as gemini_encoder
from headgate.gateway.codecs.gemini.reader import AnswerReader as GeminiReader
from headgate.gateway.codecs.ollama.answer_reader import AnswerReader as OllamaReader
from headgate.gateway.codecs.openai_chat.answer_reader import AnswerReader as ChatReader
from headgate.gateway.codecs.openai_completions.answer_reader import AnswerReader as CompletionsReader
from headgate.gateway.codecs.openai_responses.stream_decoder import ResponsesStreamDecoder
from headgate.gateway.ir.event import (
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
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.message import Reasoning, Text
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from .short_ways import told

CONTEXT: Final = AnswerContext("r", 1_700_000_000, "asked", True)
NEVER: Final = msgspec.json.Decoder(Literal["never"])


class Spoken(NamedTuple):
    """A format's streams: how one begins, frames that are common, others that are not, and how to do without short ways."""

    codec: Codec
    head: str
    common: Sequence[str]
    odd: Sequence[str]
    without: Callable[[pytest.MonkeyPatch], object]
    reader: tuple[type, str]
    """What reads a frame the long way."""


def chat(delta: str, more: str = "") -> str:
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}'
    return f'data: {{"id":"c","object":"chat.completion.chunk","created":5,"model":"m","choices":[{choice}]{more}}}\n\n'


def block(delta: str, number: int = 0) -> str:
    data = f'{{"type":"content_block_delta","index":{number},"delta":{delta}}}'
    return f"event: content_block_delta\ndata: {data}\n\n"


def event(kind: str, members: str, number: int = 0) -> str:
    data = f'{{"type":"response.{kind}","sequence_number":3,"item_id":"i","output_index":{number},{members}}}'
    return f"event: response.{kind}\ndata: {data}\n\n"


def part(members: str, more: str = "", index: int = 0, end: str = "\r\n\r\n") -> str:
    candidate = f'{{"content": {{"parts": [{{{members}}}],"role": "model"}},"index": {index}}}'
    return f'data: {{"candidates": [{candidate}]{more}}}{end}'


def count(tokens: int) -> str:
    return f',"usageMetadata": {{"promptTokenCount": 3,"candidatesTokenCount": {tokens}}},"modelVersion": "m"'


def line(members: str, more: str = "") -> str:
    return f'{{"model":"m","created_at":"2026-08-04T08:52:19.1Z",{members},"done":false{more}}}\n'


def completion(text: str, choice: str = "", more: str = "") -> str:
    first = f'{{"index":0,"text":{text},"logprobs":null,"finish_reason":null{choice}}}'
    return f'data: {{"id":"c","object":"text_completion","created":5,"model":"m","choices":[{first}]{more}}}\n\n'


CALL = '{"tool_calls":[{"index":0,"id":"k","type":"function","function":{"name":"f","arguments":""}}]}'
MORE = '{"tool_calls":[{"index":%d,"function":{"arguments":"%s"}}]}'
ITEM = 'event: response.output_item.added\ndata: {"type":"response.output_item.added","output_index":%d,"item":%s}\n\n'
SPOKEN: Final = {
    "openai.chat": Spoken(
        openai_chat.CODEC,
        chat('{"role":"assistant","content":""}'),
        (
            chat('{"content":"a"}'),
            chat('{"content":"b"}', ',"usage":null,"obfuscation":"x"'),
            chat('{"reasoning_content":"c","content":null}'),
            chat('{"reasoning":"d"}'),
            chat(CALL),
            chat(MORE % (0, "e")),
        ),
        (
            chat(MORE % (1, "f")),
            chat('{"tool_calls":[{"index":1,"id":"l","function":{"name":"g","arguments":"{}"}}]}'),
            chat('{"tool_calls":[{"index":0,"id":"l","function":{"name":"g","arguments":"{}"}}]}'),
            chat('{"tool_calls":[{"function":{"arguments":"g"}}]}'),
            chat('{"tool_calls":[{"index":0,"function":{"name":"h","arguments":"g"}}]}'),
            chat('{"tool_calls":[{"index":0,"type":"custom","function":{"arguments":"g"}}]}'),
            chat('{"tool_calls":[{"index":0,"function":{"arguments":""}}]}'),
            chat('{"content":"h"}', ',"system_fingerprint":"fp"'),
            chat('{"content":"i","reasoning_content":"j"}'),
            chat('{"reasoning_content":"k","x":1}'),
            chat('{"content":"\\ud83d"}'),
            chat('{\n"content":"l"}'),
            chat('{"content":"m"}').replace('"index":0', '"index":1'),
            chat('{"reasoning_content":"n"}').replace('"index":0', '"index":1'),
            chat('{"content":"o"}').replace('"finish_reason":null', '"finish_reason":"stop"'),
        ),
        lambda patched: patched.setattr(ChatReader, "words", lambda self, data: None),
        (ChatReader, "frame"),
    ),
    "anthropic.messages": Spoken(
        anthropic_messages.CODEC,
        'event: message_start\ndata: {"type":"message_start","message":{"id":"m","role":"assistant","content":[],'
        '"model":"m","usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
        'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
        '\n\nevent: content_block_start\ndata: {"type":"content_block_start","index":1,"content_block":{"type":"thinking",'
        '"thinking":"","signature":""}}\n\nevent: content_block_start\ndata: {"type":"content_block_start","index":2,'
        '"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}\n\n',
        (
            block('{"type":"text_delta","text":"a"}'),
            block('{"type":"thinking_delta","thinking":"b"}', 1),
            block('{"type":"input_json_delta","partial_json":"{}"}', 2),
        ),
        (
            block('{"type":"input_json_delta","partial_json":""}', 2),
            block('{"type":"text_delta","text":""}'),
            block('{"type":"text_delta","text":"c","x":1}'),
            block('{"type":"text_delta",\n"text":"d"}'),
            block('{"type":"text_delta","text":"\\ud83d"}'),
            'event: content_block_stop\ndata: {"type":"content_block_stop","index":2}\n\n',
        ),
        lambda patched: patched.setattr(messages, "_COMMON", NEVER),
        (messages.MessagesStreamDecoder, "_frame"),
    ),
    "openai.responses": Spoken(
        openai_responses.CODEC,
        'event: response.created\ndata: {"type":"response.created","response":{"id":"r","model":"m","output":[]}}\n\n'
        + ITEM % (0, '{"id":"i","type":"message","role":"assistant","content":[]}')
        + event("content_part.added", '"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}')
        + ITEM % (1, '{"id":"j","type":"reasoning","summary":[]}')
        + event("reasoning_summary_text.delta", '"summary_index":0,"delta":"a"', 1)
        + ITEM % (2, '{"id":"k","type":"function_call","call_id":"c","name":"f","arguments":""}')
        + ITEM % (3, '{"id":"l","type":"reasoning","summary":[]}')
        + event("reasoning_text.delta", '"content_index":0,"delta":"b"', 3),
        (
            event("output_text.delta", '"content_index":0,"delta":"c","logprobs":[],"obfuscation":"x"'),
            event("reasoning_summary_text.delta", '"summary_index":0,"delta":"d","obfuscation":"x"', 1),
            event("function_call_arguments.delta", '"delta":"{}","obfuscation":"x"', 2),
            event("reasoning_text.delta", '"content_index":0,"delta":"e"', 3),
        ),
        (
            event("output_text.delta", '"content_index":0,"delta":"f","logprobs":[{"token":"f","logprob":-1}]'),
            event("output_text.delta", '"content_index":1,"delta":"g"'),
            event("output_text.delta", '"content_index":0,\n"delta":"h"'),
            event("output_text.delta", '"content_index":0,"delta":"i","x":1'),
            event("output_text.delta", '"content_index":0,"delta":""'),
            event("output_text.delta", '"content_index":0,"delta":"\\ud83d"'),
            event("reasoning_summary_text.delta", '"summary_index":1,"delta":"j"', 1),
            event("function_call_arguments.delta", '"delta":"k"', 0),
            event("function_call_arguments.delta", '"delta":"l"', 7),
            event("reasoning_text.delta", '"content_index":-1,"delta":"m"', 3),
            event("function_call_arguments.delta", '"delta":"n"', 2).replace(
                '"type":"response.f', '"type":"response.g'
            ),
            ITEM.replace("added", "done") % (0, '{"id":"i","type":"message","role":"assistant","content":[]}'),
        ),
        lambda patched: [
            patched.setattr(ResponsesStreamDecoder, short, lambda self, data: None)
            for short in ("_words", "_other_words")
        ],
        (ResponsesStreamDecoder, "_frame"),
    ),
    "gemini": Spoken(
        gemini.CODEC,
        part('"text": "a"', count(1)),
        (
            part('"text": "b"', count(2)),
            part('"text": "c"', count(3), end="\n\n"),
            part('"text": "d"'),
            part('"text": "e","thought": true', count(4)),
            part('"text": "f","thought": true', ',"usageMetadata": {"promptTokenCount": 3,"totalTokenCount": 5}'),
        ),
        (
            part('"text": "g","thought": false', count(5)),
            part('"text": "h","thoughtSignature": "s"', count(6)),
            part('"text": "","thought": true', count(7)),
            part('"text": "i"', count(8), 1),
            part('"text": "j"},{"text": "k"', count(9)),
            part('"text": "l"', ',"usageMetadata": null'),
            part('"text": "m"', ',"usageMetadata": {"trafficType": "ON_DEMAND"}'),
            part('"text": "n"', ',"createTime": "2026-01-01T00:00:00Z","x": 1'),
            part('"text": "o"', ',"usage_metadata": {"promptTokenCount": 4}'),
            part('"text": \r\n"p"'),
            part('"text": "\\ud83d"', count(10)),
            part('"functionCall": {"name": "f","args": {}}', count(11)),
            part('"text": "q"', count(12)).replace('"index": 0', '"finishReason": "STOP","index": 0'),
            part('"text": "r"', count(13)).replace('"index": 0', '"index": "0"'),
            'data: {"error": {"code": 503,"message": "x","status": "UNAVAILABLE"}}\r\n\r\n',
        ),
        lambda patched: patched.setattr(GeminiReader, "words", lambda self, data: None),
        (GeminiReader, "read"),
    ),
    "ollama.chat": Spoken(
        ollama.CHAT,
        line('"message":{"role":"assistant","content":"a"}'),
        (
            line('"message":{"role":"assistant","content":"b"}'),
            line('"message":{"role":"assistant","content":"","thinking":"c"}'),
        ),
        (
            line('"message":{"role":"assistant","content":"d","thinking":"e"}'),
            line('"message":{"role":"assistant","content":"","thinking":""}'),
            line('"message":{"role":"assistant","content":"f","thinking":null}'),
            line('"message":{"role":"assistant","content":"g","x":1}'),
            line('"message":{"role":"assistant","content":"h"}', ',"remote_model":"n"'),
            line('"message":{"role":"assistant","content":"\\ud83d"}'),
            line('"message":{"role":"assistant","content":"i"}').replace("\n", "\r\n"),
            line('"message":{"role":"assistant","content":"j"}').replace("false", "true"),
            "\n",
        ),
        lambda patched: patched.setattr(OllamaReader, "words", lambda self, data: None),
        (OllamaReader, "_read"),
    ),
    "ollama.generate": Spoken(
        ollama.GENERATE,
        line('"response":"a"'),
        (line('"response":"b"'), line('"response":"","thinking":"c"')),
        (
            line('"response":"d","thinking":"e"'),
            line('"response":""'),
            line('"response":"f","thinking":null'),
            line('"response":"g"', ',"x":1'),
            line('"response":"h"').replace("false", "true"),
        ),
        lambda patched: patched.setattr(OllamaReader, "words", lambda self, data: None),
        (OllamaReader, "_read"),
    ),
    "openai.completions": Spoken(
        openai_completions.CODEC,
        completion('"a"', ',"stop_reason":null', ',"system_fingerprint":"fp"'),
        (
            completion('"b"', ',"stop_reason":null', ',"usage":null'),
            completion('"c"', "", ',"system_fingerprint":"fp"'),
        ),
        (
            completion('"d"', "", ',"system_fingerprint":"fq"'),
            completion('"e"', "", ',"system_fingerprint":null'),
            completion('"f"').replace('"index":0', '"index":1'),
            completion('"g"', ',"stop_reason":null').replace('"index":0', '"index":1'),
            completion('"h"').replace("text_completion", "error"),
            completion('"i"', ',"x":1'),
            completion('""'),
            completion('"\\ud83d"'),
            completion('\n"j"'),
            completion('"k"').replace('"finish_reason":null', '"finish_reason":"stop"'),
            "event: error\n" + completion('"l"'),
            "data: [DONE]\n\n",
        ),
        lambda patched: patched.setattr(CompletionsReader, "words", lambda self, data: None),
        (CompletionsReader, "_read"),
    ),
}
spoken = pytest.mark.parametrize("format", SPOKEN)


def decoded(codec: Codec, reads: Sequence[str]) -> object:
    """All that comes out: the events, the bytes, the usage at the end, the fault."""
    decoder = codec.stream_decoder()
    chunks = [
        chunk for chunk in [*(decoder.feed(read.encode()) for read in reads), decoder.close()] if chunk is not None
    ]
    events = [told(event) for chunk in chunks for event in chunk.events]
    return events, b"".join(chunk.raw or b"" for chunk in chunks), repr(decoder.error)


@spoken
@settings(max_examples=100)
@given(st.data())
def test_frames_are_read_alike_apart_and_together(format: str, data: st.DataObject) -> None:
    it = SPOKEN[format]
    any_of = st.one_of(st.sampled_from(it.common), st.sampled_from([*it.common, *it.odd]))
    reads = [it.head, *data.draw(st.lists(any_of, max_size=8))]
    with pytest.MonkeyPatch.context() as patched:
        it.without(patched)
        want = decoded(it.codec, reads)
    assert decoded(it.codec, reads) == want
    assert decoded(it.codec, ["".join(reads)]) == want


@spoken
def test_a_common_frame_is_read_the_short_way(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    it = SPOKEN[format]
    for number, frame in enumerate(it.common):
        if '"name":' in frame:
            continue  # a call begins
        decoder = it.codec.stream_decoder()
        for read in (it.head, *it.common[: number + 1]):
            decoder.feed(read.encode())
        with monkeypatch.context() as patched:
            patched.setattr(*it.reader, None)
            chunk = decoder.feed(frame.encode())
        assert chunk is not None
        assert chunk.raw == frame.encode()


TEXT: Final = st.sampled_from(["a", " word", 'é"\n', "\u2028x\x85", "\0", "\U0001f600", ""])
OWN: Final = {
    "openai.responses": openai_responses.CODEC,
    "gemini": gemini.CODEC,
    "gemini array": gemini.ARRAY_CODEC,
    "ollama.chat": ollama.CHAT,
    "ollama.generate": ollama.GENERATE,
    "openai.completions": openai_completions.CODEC,
}
NO_LOGPROBS: Final = Raw(b'{"content":[]}')
"""Say nothing, and are written nowhere; an event that has them is no common one."""


def written(codec: Codec, chunks: Sequence[tuple[Event, ...]]) -> list[bytes]:
    encoder = codec.stream_encoder(CONTEXT)
    return [*(encoder.encode(Chunk(events)) for events in chunks), encoder.close(None)]


@st.composite
def answers(draw: st.DrawFn, format: str) -> list[tuple[Event, ...]]:
    """An answer in chunks, most of which are one delta."""
    extra = {"x": Raw(b'"\\u0000"')}
    chunks: list[tuple[Event, ...]] = []
    if draw(st.booleans()):
        chunks.append((ResponseStart("i", "m\0", 5, extra=extra, format=draw(st.sampled_from([format, "other"]))),))
    index, choice = 0, 0
    chunks.append((PartStart(0, Text("")),))
    for step in draw(st.lists(st.sampled_from(["delta"] * 6 + ["two", "part", "choice", "patch", "ping", "usage"]))):
        delta = PartDelta(index, draw(TEXT), choice)
        if step == "two":
            chunks.append((delta, PartDelta(index, "z", choice)))
        elif step == "part":
            following = draw(st.sampled_from([Text(""), Text("t"), Reasoning("", origin="x")]))
            chunks.append((PartStop(index, choice), PartStart(index + 1, following, choice)))
            index += 1
        elif step == "choice":
            choice, index = 1 - choice, index + 1
            chunks.append((PartStart(index, Text(""), choice),))
        elif step == "patch":
            chunks.append((ResponsePatch({"y": Raw(b"2")}),))
        elif step == "ping":
            chunks.append((Keepalive(),))
        elif step == "usage":
            chunks.append((UsageReport(Usage(1, 1, output_tokens=draw(st.integers(0, 9)))), delta))
        else:
            chunks.append((delta,))
    chunks.append((PartStop(index, choice), ChoiceStop("stop"), ResponseStop(), Terminator()))
    return chunks


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=100)
@given(st.data())
def test_chunks_are_written_alike(name: str, data: st.DataObject) -> None:
    codec = OWN[name]
    chunks = data.draw(answers(codec.format))
    long = [
        tuple(
            # Gemini's has a part for log probabilities without words.
            msgspec.structs.replace(event, logprobs=NO_LOGPROBS)
            if isinstance(event, PartDelta) and (event.text or codec.format != "gemini")
            else event
            for event in events
        )
        for events in chunks
    ]
    assert written(codec, chunks) == written(codec, long)


@pytest.mark.parametrize("name", OWN)
def test_a_common_chunk_is_written_the_short_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = OWN[name].stream_encoder(CONTEXT)
    for events in ((ResponseStart("i", "m", 5), PartStart(0, Text(""))), (PartDelta(0, "a"),), (PartDelta(0, "b"),)):
        encoder.encode(Chunk(events))
    for long in ("_line", "_frame", "_write", "_event"):
        monkeypatch.setattr(type(encoder), long, None, raising=False)
    assert b'"c"' in encoder.encode(Chunk((PartDelta(0, "c"),)))


def test_frames_of_words_pass_through_gemini_unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, encoder = gemini.CODEC.stream_decoder(), gemini.CODEC.stream_encoder(CONTEXT)
    assert isinstance(encoder, gemini_encoder.GeminiStreamEncoder)
    head, *more = [chunk for text in "abc" if (chunk := decoder.feed(part(f'"text": "{text}"', count(1)).encode()))]
    assert encoder.encode(head) == head.raw
    with monkeypatch.context() as patched:
        patched.setattr(gemini_encoder.GeminiStreamEncoder, "_follow", None)
        assert [encoder.encode(chunk) for chunk in more] == [chunk.raw for chunk in more]
    assert b'"text":"d"' in encoder.encode(Chunk((PartDelta(0, "d"),)))


@pytest.mark.parametrize("more", ["", ',"usageMetadata": null'])
def test_a_frame_without_usage_takes_none_away(more: str) -> None:
    frames = [part('"text": "a"', count(1)), part('"text": "b"', count(2)), part('"text": "c"', more)]
    decoder = gemini.CODEC.stream_decoder()
    chunks = [*(decoder.feed(frame.encode()) for frame in frames), decoder.close()]
    assert [chunk and chunk.usage and chunk.usage.output_tokens for chunk in chunks] == [1, 2, 2, 2]
    whole = gemini.CODEC.stream_decoder().feed("".join(frames).encode())
    assert whole is not None
    assert whole.usage is not None
    assert whole.usage.output_tokens == 2


def test_gemini_counts_in_every_chunk_and_reports_once() -> None:
    decoder = gemini.CODEC.stream_decoder()
    first, second = (decoder.feed(part('"text": "a"', count(tokens)).encode()) for tokens in (1, 2))
    assert first is not None
    assert second is not None
    assert [type(event) for event in second.events] == [PartDelta]
    assert [chunk.usage and chunk.usage.output_tokens for chunk in (first, second)] == [1, 2]
    last = decoder.close()
    assert decoder.error is not None
    assert last is not None
    assert [type(event) for event in last.events] == [UsageReport]
    assert last.usage == second.usage
