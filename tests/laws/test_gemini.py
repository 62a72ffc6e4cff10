"""The laws that need no sockets, for gemini: in both framings of its streams, against every other format, both ways.

Untouched bytes, cut anywhere, one path, no silent loss, nothing invented, prefix-stable, bounded, no clean end.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import pytest
from headgate.gateway.codecs.base import AnswerContext, Encoded, RequestFacts, UpstreamFacts
from headgate.gateway.codecs.gemini import encoder, stream
from headgate.gateway.codecs.ledger import MAX_LOSSES
from headgate.gateway.errors import CallerError, Malformed, Overloaded, UpstreamError
from headgate.gateway.ir.event import (
    ChoiceStop,
    Chunk,
    Event,
    PartDelta,
    PartStart,
    PartStop,
    ResponseStart,
    Terminator,
    UsageReport,
)
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.loss import Loss
from headgate.gateway.ir.message import Opaque, Text, ToolCall
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from .common import ANTHROPIC, CODECS, CONTEXT, OLLAMA, OPENAI, PLACES, PLAIN, SPOKEN, cut, decoded, few, law, streamed
from .gemini_format import ARRAY, FACTS, FRAMINGS, GEMINI, MODEL, SIGNED, answers, known_members, requests, snake, wires
from .sdk_requests import Leaf, leaves
from .test_no_silent_loss import RAW, UNSAID, _spelled, arrives, names
from .test_nothing_invented import BARE, check_claims, derived, figures
from .test_plain_formats import answer_of as other_answer
from .test_plain_formats import counts, heard, ollama_turn, tells_logprobs, whole
from .test_plain_formats import request_of as other_request
from .test_plain_formats import unnamed as other_unnamed
from .test_prefix_stable import SAID, anthropic_turn, conversation_of, openai_turn
from .test_untouched_bytes import relayed

OTHERS: Final = (*SPOKEN, *PLAIN)
CROSSED: Final = (*((GEMINI, there) for there in OTHERS), *((here, GEMINI) for here in OTHERS))
ASKED: Final = tuple((here, there) for here, there in CROSSED if here in (GEMINI, OPENAI, ANTHROPIC, *PLAIN))
"""Roads of requests: those whose callers' requests are drawn."""
framed = pytest.mark.parametrize("framing", FRAMINGS)
roads = pytest.mark.parametrize(("here", "there"), [(GEMINI, GEMINI), *CROSSED])
asked = pytest.mark.parametrize(("here", "there"), ASKED)


def answer_of(format: str) -> st.SearchStrategy[Any]:
    return answers() if format == GEMINI else other_answer(format)


def request_of(format: str) -> st.SearchStrategy[dict[str, Any]]:
    return requests() if format == GEMINI else other_request(format)


def decode(format: str, body: Any) -> Any:
    """Read a request; gemini's model and method are in its path."""
    facts = FACTS if format == GEMINI else RequestFacts()
    return CODECS[format].decode_request(json.dumps(body).encode(), facts)


def bodies(format: str, wire: bytes) -> list[Any]:
    """The JSON values of a stream's frames."""
    framing = CODECS[format].streamed.framing
    if framing == "array":
        told = json.loads(wire)
        assert isinstance(told, list)
        return told
    payloads = re.findall(rb"^data: (.*)$", wire, re.M) if framing == "sse" else wire.splitlines()
    return [json.loads(payload) for payload in payloads if payload != b"[DONE]"]


# -- untouched bytes, cut anywhere


@framed
@law
@given(st.data())
def test_a_stream_that_nobody_changed_goes_out_as_it_came(framing: str, data: st.DataObject) -> None:
    wire = data.draw(wires(framing))
    assert relayed(framing, cut(wire, data.draw(PLACES))) == wire


@pytest.mark.parametrize(("here", "there"), [(GEMINI, ARRAY), (ARRAY, GEMINI)])
@law
@given(st.data())
def test_frames_that_nobody_changed_are_the_same_in_the_other_framing(
    here: str, there: str, data: st.DataObject
) -> None:
    """A provider's events for a caller who did not say ``alt=sse``, and the other way about."""
    wire = data.draw(wires(here))
    reader, writer = CODECS[here].stream_decoder(), CODECS[there].stream_encoder(CONTEXT)
    chunks = [reader.feed(piece) for piece in cut(wire, data.draw(PLACES))] + [reader.close()]
    out = b"".join(writer.encode(chunk) for chunk in chunks if chunk is not None) + writer.close(None)
    plain = wire.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert bodies(there, out) == bodies(here, plain if here == GEMINI else wire)
    assert decoded(there, [out])[2] is None


@framed
@law
@given(st.data())
def test_any_split_of_any_stream(framing: str, data: st.DataObject) -> None:
    wire = data.draw(wires(framing))
    wire = wire[: data.draw(st.one_of(st.just(len(wire)), st.integers(0, len(wire))))]
    assert decoded(framing, cut(wire, data.draw(PLACES))) == decoded(framing, [wire] if wire else [])


CORPUS: Final = sorted((Path(__file__).parent.parent / "corpus/gemini/streams").glob("*.sse"))


@framed
@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_every_split_of_the_corpus(path: Path, framing: str) -> None:
    wire = path.read_bytes().partition(b"\n")[2]
    if framing == ARRAY:
        wire = b"[" + b",\r\n".join(json.dumps(frame, indent=1).encode() for frame in bodies(GEMINI, wire)) + b"\n]"
    told = decoded(framing, [wire])
    assert decoded(framing, [wire[place : place + 1] for place in range(len(wire))]) == told
    for place in range(1, len(wire), 5):
        assert decoded(framing, [wire[:place], wire[place:]]) == told, f"cut at byte {place}"


@law
@given(st.data())
def test_a_whole_answer_that_nobody_changed_is_read_without_being_changed(data: st.DataObject) -> None:
    codec = CODECS[GEMINI]
    body = codec.encode_response(data.draw(answers()).events, CONTEXT).body
    spelled = json.dumps(json.loads(body, parse_float=str), indent=data.draw(st.sampled_from([None, 1]))).encode()
    seen = codec.outline(spelled)
    chunk = Chunk(None, spelled, codec.whole, codec.decode_response, codec.read_usage, seen.usage)
    assert (chunk.usage is None) is (b"usageMetadata" not in spelled)
    assert chunk.usage == next((e.usage for e in codec.decode_response(spelled) if isinstance(e, UsageReport)), None)
    assert chunk.events
    assert chunk.raw == spelled


@law
@given(requests())
def test_a_new_model_name_changes_no_byte_of_the_body(body: dict[str, Any]) -> None:
    codec, before = CODECS[GEMINI], json.dumps(body).encode()
    peek = codec.peek(before, FACTS)
    assert peek.model == MODEL
    assert codec.patch_request(before, peek, model="NEW", stream_usage=True) is before


# -- one path


@framed
@law
@given(st.data())
def test_the_fold_of_a_stream_is_the_whole_answer(framing: str, data: st.DataObject) -> None:
    answer = data.draw(answers())
    body = CODECS[GEMINI].encode_response(answer.events, CONTEXT).body
    by_stream = heard(framing, streamed(framing, answer.events, answer.sizes)[0], data.draw(PLACES))
    assert whole(GEMINI, by_stream) == whole(GEMINI, CODECS[GEMINI].decode_response(body))
    told, again = fold(answer.events), fold(by_stream)
    blanks = str.maketrans("\r\n", "  ")
    said = [
        tuple(replace(it, arguments=it.arguments.translate(blanks)) if isinstance(it, ToolCall) else it for it in parts)
        for parts in (choice.parts for choice in told.choices)
    ]
    assert said == [choice.parts for choice in again.choices]
    assert [(it.reason, it.raw_reason, it.stop_extra, it.extra) for it in told.choices] == [
        (it.reason, it.raw_reason, it.stop_extra, it.extra) for it in again.choices
    ]
    assert (told.start.id, told.start.created) == (again.start.id, again.start.created)
    # What one frame tells, no frame tells later.
    assert {**told.start.extra, **told.extra} == {**again.start.extra, **again.extra}


def read_again(format: str, events: Sequence[Event]) -> Any:
    """Return the whole answer that a client of ``format`` makes of these events, or the error that it is."""
    try:
        again = CODECS[format].decode_response(CODECS[format].encode_response(events, CONTEXT).body)
    except UpstreamError as error:
        return error.kind
    # Neighbouring texts of gemini are one to whoever reads them, whole or streamed.
    return whole(format, again if format == GEMINI else events)


@roads
@few
@given(st.data())
def test_every_road_leads_to_the_same_answer(here: str, there: str, data: st.DataObject) -> None:
    answer = data.draw(answer_of(here))
    by_body = CODECS[here].decode_response(CODECS[here].encode_response(answer.events, CONTEXT).body)
    by_stream = heard(here, streamed(here, answer.events, answer.sizes)[0], data.draw(PLACES))
    expected = read_again(there, by_body)
    assert read_again(there, by_stream) == expected
    if isinstance(expected, str):
        return
    for events in (by_body, by_stream):
        for framing in FRAMINGS if there == GEMINI else (there,):
            wire, _ = streamed(framing, events, data.draw(st.lists(st.integers(1, 6), max_size=8)))
            assert whole(there, heard(framing, wire, data.draw(PLACES))) == expected


# -- no silent loss

_CONFIG: Final = r"generationConfig\."
_MODE: Final = r"toolConfig\.functionCallingConfig\.mode"
MEANT: Final[tuple[tuple[str, object, bytes], ...]] = (
    (r".*", False, b""),
    (_MODE, "AUTO", b""),
    (_MODE, "ANY", b'"tool_choice"'),
    (_CONFIG + "responseMimeType", "text/plain", b""),
    (_CONFIG + r"thinkingConfig\.thinkingBudget", -1, b""),  # the model decides, which it does unless told otherwise
    (_CONFIG + "responseMimeType", "application/json", b'format"'),
    (_CONFIG + r"thinkingConfig\.includeThoughts", True, b'"summary"'),
    (_CONFIG + r"thinkingConfig\.includeThoughts", True, b'"summarized"'),
    (r".*\.nullable", True, b'"null"]'),
    (r".*\.mimeType", "audio/wav", b'"wav"'),
)
"""Values that say what holds anyway, or that arrive in the other words that must then be there."""

ELSEWHERE: Final[tuple[tuple[str, object, bytes], ...]] = (
    ("logprobs", True, b'"responseLogprobs":true'),
    ("think", True, b'"includeThoughts":true'),
    (r"thinking\.display", "summarized", b'"includeThoughts":true'),
    (r"tool_choice\.allowed_tools\.mode", "required", b'"ANY"'),
    (r".*\.is_error", True, b'{"error":'),
    (r".*\.input_audio\.format", "mp3", b"audio/mpeg"),
)
"""The same for callers of gemini's providers."""


def is_meant(table: Sequence[tuple[str, object, bytes]], leaf: Leaf, path: str, body: bytes) -> bool:
    return any(re.fullmatch(it, path) and value == leaf.value and words in body for it, value, words in table)


def camel(name: str | int) -> str | int:
    """A member's name as the ledger spells it."""
    return re.sub(r"(?<=[a-z])_([a-z])", lambda it: it[1].upper(), name) if isinstance(name, str) else name


def blobs(value: object) -> Iterator[dict[str, str]]:
    """Yield the files in a body."""
    if isinstance(value, list):
        for each in value:
            yield from blobs(each)
    if isinstance(value, dict):
        for name, each in value.items():
            yield from (each,) if name == "inlineData" else blobs(each)


def plain(data: str) -> bytes:
    """The bytes of base64, none if it is nothing of the kind."""
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        return b""


def unnamed(here: str, body: dict[str, Any], encoded: Encoded, there: str = "") -> list[Leaf]:
    """Return what is neither in the translated request nor in the ledger."""
    out = encoded.body + (encoded.path or "").encode()
    if here != GEMINI:
        missing = other_unnamed(here, body, encoded.body, encoded.losses)
        missing = [leaf for leaf in missing if leaf.path != ("model",) or str(leaf.value) not in out.decode()]
        missing = [it for it in missing if not is_meant(ELSEWHERE, it, ".".join(map(str, it.path)), encoded.body)]
        # The words of enums are capitals there; what a document of plain text says stands in base64.
        words = set(re.findall(rb"[\w+/=]+", out))
        files = b"\n".join(plain(it["data"]) for it in blobs(json.loads(encoded.body)))
        return [
            it
            for it in missing
            if not isinstance(it.value, str)
            or (it.value.upper().encode() not in words and it.value.encode() not in files)
        ]
    told = list(leaves(json.loads(encoded.body)))
    missing = []
    for leaf in leaves(body):
        place = tuple(camel(step) for step in leaf.path)
        path = ".".join(map(str, place))
        if place[-1] in (*UNSAID, "thought") or leaf.value is None or leaf.value == "":
            continue
        if is_meant(MEANT, leaf, path, encoded.body):
            continue
        if re.fullmatch(_MODE, path) and leaf.value == "NONE" and b'"tools"' not in encoded.body:
            continue  # no tool, no call of one
        if isinstance(leaf.value, str) and leaf.value.isupper() and leaf.value.lower().encode() in encoded.body:
            continue  # an enum's word, which others write in small letters
        if path == "generationConfig.responseLogprobs" and tells_logprobs(encoded.body):
            continue
        named = [replace(loss, path=re.sub(r"\w+", lambda it: str(camel(it[0])), loss.path)) for loss in encoded.losses]
        if not arrives(leaf, out, told) and not any(names(loss, place) for loss in named):
            missing.append(leaf)
    return missing


@asked
@few
@given(st.data())
def test_what_does_not_arrive_is_named(here: str, there: str, data: st.DataObject) -> None:
    body = data.draw(request_of(here))
    try:
        encoded = CODECS[there].encode_request(decode(here, body), UpstreamFacts())
    except CallerError:
        assume(False)
    assert unnamed(here, body, encoded) == [], [loss.path for loss in encoded.losses]


def with_unknown(value: Any, random: Random, spelled: list[str]) -> Any:
    """Return ``value`` with members that nobody knows; their values are marks, to be replaced by ``spelled``."""
    if isinstance(value, list):
        return [with_unknown(inner, random, spelled) for inner in value]
    if not isinstance(value, dict):
        return value
    # Every member of labels is known: a text.
    more = {name: i if name == "labels" else with_unknown(i, random, spelled) for name, i in value.items()}
    if random.random() < 0.3:
        spelled.append(random.choice(RAW))
        more[f"x_{len(spelled)}"] = f"<{len(spelled) - 1}>"
    return more


@few
@given(requests(), st.randoms(use_true_random=True))
def test_unknown_members_survive_the_same_format(asked: dict[str, Any], random: Random) -> None:
    spelled: list[str] = []
    body = json.dumps(with_unknown(asked, random, spelled))
    for number, text in enumerate(spelled):
        body = body.replace(f'"<{number}>"', text)
    encoded = CODECS[GEMINI].encode_request(CODECS[GEMINI].decode_request(body.encode(), FACTS), UpstreamFacts())
    assert encoded.losses == ()
    assert respelled(_spelled(encoded.body)) == respelled(_spelled(body.encode()))
    for number, text in enumerate(spelled, 1):
        assert re.search(rf'"x_{number}": ?{re.escape(text)}', encoded.body.decode()), (number, text)


def respelled(value: Any) -> Any:
    """JSON data with the names of members in one spelling: known ones go out in camelCase."""
    if isinstance(value, list):
        return [respelled(inner) for inner in value]
    if isinstance(value, dict):
        return {camel(name): respelled(inner) for name, inner in value.items()}
    return value


def in_snake(value: Any) -> Any:
    """The same request in the other spelling; schemas are left alone, whose names are their author's."""
    if isinstance(value, list):
        return [in_snake(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        snake(name): inner if re.search("schema|parameters|response$", name, re.I) else in_snake(inner)
        for name, inner in value.items()
    }


@pytest.mark.parametrize("there", OTHERS)
@few
@given(requests())
def test_both_spellings_of_a_request_are_the_same_request(there: str, body: dict[str, Any]) -> None:
    """What is said elsewhere, and what is lost, does not hang on how names are spelled."""
    told = []
    for spelled in (respelled(body), in_snake(respelled(body))):
        try:
            encoded = CODECS[there].encode_request(decode(GEMINI, spelled), UpstreamFacts())
        except CallerError as error:
            told.append((type(error), 0))
        else:
            told.append((_spelled(encoded.body), len(encoded.losses)))
    assert told[0] == told[1]


def test_the_types_of_the_client_are_drawn() -> None:
    assert {"temperature", "tools", "systemInstruction", "thinkingConfig", "safetySettings"} <= known_members()


# -- nothing invented

CLAIMS: Final = frozenset({"responseId", SIGNED, "modelVersion", "fileUri"})
"""Members that only a provider, or a caller, can know; others share their names with other formats."""


def check_claimed(told: str, out: Any, losses: Sequence[Loss]) -> None:
    """Fail for what ``out`` claims that is neither in what was ``told`` nor in the ledger."""
    check_claims(told, out, losses)
    for leaf in leaves(out):
        if leaf.path[-1] in CLAIMS:
            made = {re.sub(r".*\.", "", loss.path) for loss in losses if loss.kind == "minted"}
            assert str(leaf.value) in told or leaf.path[-1] in made, leaf


def tokens(value: Any) -> set[int]:
    """The figures of a ``usageMetadata``, and of any other format's usage."""
    own = {leaf.value for leaf in leaves(value) if "usageMetadata" in leaf.path and isinstance(leaf.value, int)}
    return own | figures(value) | counts(value)


def figured(events: Sequence[Event]) -> set[int]:
    """The figures that follow from those that the provider told: output is told without what was thought."""
    known = derived(events)
    for event in events:
        if isinstance(event, UsageReport) and event.usage.output_tokens is not None:
            known.add(event.usage.output_tokens - (event.usage.reasoning_output_tokens or 0))
    return known


@roads
@few
@given(st.data())
def test_answers_claim_nothing_that_was_not_said(here: str, there: str, data: st.DataObject) -> None:
    answer = data.draw(answer_of(here))
    events, _, _ = decoded(here, cut(streamed(here, answer.events, answer.sizes)[0], data.draw(PLACES)))
    try:
        encoded = CODECS[there].encode_response(events, CONTEXT)
    except UpstreamError:
        assume(False)
    wire, losses = streamed(there, events, answer.sizes)
    for out, noted in ((json.loads(encoded.body), encoded.losses), (bodies(there, wire), losses)):
        check_claimed(repr(events) + msgspec.json.encode(fold(events)).decode(), out, noted)
        assert tokens(out) <= figured(events) | figured(answer.events)
    assert CODECS[there].encode_response(events, CONTEXT) == encoded
    assert streamed(there, events, answer.sizes) == (wire, losses)


@asked
@few
@given(st.data())
def test_requests_claim_nothing_that_was_not_said(here: str, there: str, data: st.DataObject) -> None:
    body = data.draw(request_of(here))
    request, facts = decode(here, body), UpstreamFacts(max_output_tokens=7)
    try:
        encoded = CODECS[there].encode_request(request, facts)
    except CallerError:
        assume(False)
    made = [loss for loss in encoded.losses if loss.kind != "lost"]
    # A call's id is rewritten wherever it stands, a result has the name of its call, a plain text goes as base64.
    ids = ("tool_use_id", "tool_call_id", "call_id", "id", "name", "data")
    noted = [*made, *(Loss("minted", name, "", "") for name in ids if made)]
    told = json.dumps(body) + MODEL
    texts = "".join(base64.b64encode(str(leaf.value).encode()).decode() for leaf in leaves(body))
    check_claimed(told + texts, json.loads(encoded.body), noted)
    assert CODECS[there].encode_request(request, facts) == encoded


def test_a_bare_answer_has_what_is_demanded() -> None:
    """Nothing but the reason: neither ids nor dates nor counts are demanded here."""
    encoded = CODECS[GEMINI].encode_response(BARE, CONTEXT)
    for framing in FRAMINGS:
        wire, losses = streamed(framing, BARE)
        for out, noted in ((json.loads(encoded.body), encoded.losses), (bodies(framing, wire), losses)):
            assert {loss.path for loss in noted if loss.kind == "minted"} == {"candidates[0].finishReason"}
            assert tokens(out) == set()
            assert "req_1" not in json.dumps(out)


@framed
def test_the_same_answer_is_the_same_bytes_for_another_call(framing: str) -> None:
    again = AnswerContext("req_2", CONTEXT.created, CONTEXT.model, CONTEXT.stream_usage)
    assert streamed(framing, BARE, context=again) == streamed(framing, BARE)


# -- prefix-stable


@st.composite
def gemini_turn(draw: st.DrawFn, number: int) -> list[dict[str, Any]]:
    calls = [
        {"functionCall": {"name": draw(st.sampled_from("abc")), "args": {"n": number}}}
        for _ in range(draw(st.integers(0, 3)))
    ]
    said: list[dict[str, Any]] = [{"text": draw(SAID)}] if not calls or draw(st.booleans()) else []
    if calls and draw(st.booleans()):
        calls[0][SIGNED] = "c2lnbmVk"
    results: list[dict[str, Any]] = [
        {"functionResponse": {"name": call["functionCall"]["name"], "response": {"output": draw(SAID)}}}
        for call in calls
    ]
    if not calls or draw(st.booleans()):
        results.append({"text": draw(SAID)})
    return [{"role": "model", "parts": [*said, *calls]}, {"role": "user", "parts": results}]


_TURNS: Final[dict[str, Any]] = {
    GEMINI: gemini_turn,
    OLLAMA: ollama_turn,
    OPENAI: openai_turn,
    ANTHROPIC: anthropic_turn,
}


def said_in(format: str, body: bytes) -> bytes:
    """``body`` up to the end of the last thing said."""
    if format != GEMINI:
        return conversation_of(body)
    start = body.index(b'"contents":[') + len(b'"contents":[')
    decoder, text, place, last = json.JSONDecoder(), body[start:].decode(), 0, 0
    while text[place] != "]":
        _, last = decoder.raw_decode(text, place + (text[place] == ","))
        place = last
    return (body[:start] + text[:last].encode()).removesuffix(b"]}")


@pytest.mark.parametrize(
    ("here", "there"),
    [
        *((here, GEMINI) for here in (GEMINI, OPENAI, ANTHROPIC, OLLAMA)),
        *((GEMINI, there) for there in (OPENAI, ANTHROPIC, OLLAMA)),
    ],
)
@law
@given(st.data())
def test_the_next_turn_begins_with_this_one(here: str, there: str, data: st.DataObject) -> None:
    first: dict[str, Any] = {"role": "user"}
    words = data.draw(SAID)
    turns: list[Any] = [[first | ({"parts": [{"text": words}]} if here == GEMINI else {"content": words})]]
    turns += [data.draw(_TURNS[here](number)) for number in range(data.draw(st.integers(1, 4)))]
    head: dict[str, Any] = {} if here == GEMINI else {"model": "m"}
    if here == GEMINI and data.draw(st.booleans()):
        head = {"systemInstruction": {"parts": [{"text": data.draw(SAID)}]}, "generationConfig": {"topK": 4}}
    if here == ANTHROPIC:
        head["max_tokens"] = 99
    before = b""
    for count in range(1, len(turns) + 1):
        said = [message for turn in turns[:count] for message in turn]
        body = head | {"contents" if here == GEMINI else "messages": said}
        after = CODECS[there].encode_request(decode(here, body), UpstreamFacts()).body
        if before:
            assert after.startswith(said_in(there, before))
        before = after


# -- bounded, no clean end


@framed
def test_the_losses_of_an_answer(framing: str) -> None:
    writer = CODECS[framing].stream_encoder(CONTEXT)
    writer.encode(Chunk((ResponseStart("id", "m", format="elsewhere"),)))
    for index in range(1000):
        part = Opaque("elsewhere", f"kind-{index % 300}", b"{}")
        writer.encode(Chunk((PartStart(index, part), PartStop(index))))
    assert len(writer.losses) == MAX_LOSSES


@framed
def test_what_is_held_back_has_a_cap(framing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call goes out whole, and words that stand behind one wait for it."""
    monkeypatch.setattr(encoder, "MAX_HELD_BYTES", 1000)
    writer = CODECS[framing].stream_encoder(CONTEXT)
    writer.encode(Chunk((ResponseStart("id", "m"), PartStart(0, ToolCall("c", "look")), PartStart(1, Text("")))))
    out = b"".join(writer.encode(Chunk((PartDelta(index % 2, " " * 90),))) for index in range(20))
    assert out == b""
    _, _, kind = decoded(framing, [writer.close(None)])
    assert kind is not None


@framed
@pytest.mark.parametrize("piece", [1, 7, 5000])
def test_a_frame_at_the_cap(framing: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_FRAME_BYTES", 1000)
    frame = b'{"candidates":[{"content":{"parts":[{"text":"' + b"x" * 3000 + b'"}]}}]}'
    data = b"[" + frame + b"]" if framing == ARRAY else b"data: " + frame + b"\n\n"
    reader = CODECS[framing].stream_decoder()
    fed = 0
    for start in range(0, len(data), piece):
        fed += 0 if reader.error is not None else piece
        reader.feed(data[start : start + piece])
    if piece < 1000:
        assert isinstance(reader.error, Malformed)
        assert fed <= 1100


@roads
@few
@given(st.data())
def test_no_clean_end_after_a_failure(here: str, there: str, data: st.DataObject) -> None:
    """Wherever a stream breaks off, the caller's has an error at its end and no end mark."""
    if there != GEMINI:
        return
    answer = data.draw(answer_of(here))
    wire, _ = streamed(here, answer.events, answer.sizes)
    events, _, error = decoded(here, [wire[: data.draw(st.integers(0, len(wire)))]])
    if error is None:
        return
    assert not any(isinstance(event, Terminator) for event in events)
    for framing in FRAMINGS:
        writer = CODECS[framing].stream_encoder(CONTEXT)
        sent = writer.encode(Chunk(tuple(events))) + writer.close(Overloaded("broke off"))
        told = bodies(framing, sent)
        assert not any("finishReason" in json.dumps(frame) for frame in told[-1:])
        assert told[-1]["error"]["code"] and "broke off" in json.dumps(told[-1]["error"])
        again, _, kind = decoded(framing, [sent])
        assert kind is not None
        assert not any(isinstance(event, Terminator) for event in again)


@pytest.mark.parametrize(("here", "there"), [(GEMINI, ARRAY), (ARRAY, GEMINI), (GEMINI, GEMINI), (ARRAY, ARRAY)])
@law
@given(st.data())
def test_a_stream_of_our_own_that_breaks_off(here: str, there: str, data: st.DataObject) -> None:
    """Bytes that go out as they came have no clean end either."""
    wire = data.draw(wires(here))
    wire = wire[: data.draw(st.integers(0, len(wire)))]
    reader, writer = CODECS[here].stream_decoder(), CODECS[there].stream_encoder(CONTEXT)
    chunks = [reader.feed(piece) for piece in cut(wire, data.draw(PLACES))] + [reader.close()]
    out = b"".join(writer.encode(chunk) for chunk in chunks if chunk is not None)
    if reader.error is None:
        return
    out += writer.close(reader.error)
    plain = out.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if there == GEMINI else out
    assert "error" in bodies(there, plain)[-1]
    assert decoded(there, [out])[2] is not None


@framed
def test_an_error_is_no_answer(framing: str) -> None:
    events = (*BARE[:4], ChoiceStop("error", "error"), *BARE[-2:])
    with pytest.raises(UpstreamError):
        CODECS[GEMINI].encode_response(events, CONTEXT)
    assert b'"finishReason"' not in streamed(framing, events)[0]
    assert "error" in bodies(framing, streamed(framing, events)[0])[-1]
