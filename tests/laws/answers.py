"""Generated answers, as the events of a provider of one format."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from headgate.gateway.codecs.anthropic_messages.usage import STOP_REASONS as ANTHROPIC_STOPS
from headgate.gateway.codecs.openai_chat.words import STOP_REASONS as OPENAI_STOPS
from headgate.gateway.codecs.openai_responses.words import CONTENT, INCOMPLETE, SUMMARY
from headgate.gateway.ir.event import (
    ChoiceStop,
    Event,
    PartDelta,
    PartPatch,
    PartStart,
    PartStop,
    ResponseStart,
    ResponseStop,
    StopReason,
    Terminator,
    Usage,
    UsageReport,
)
from headgate.gateway.ir.message import Citation, Opaque, Part, Reasoning, Refusal, Text, ToolCall
from hypothesis import strategies as st

from .common import ANTHROPIC, OPENAI, RESPONSES

Draw = Callable[[st.SearchStrategy[Any]], Any]

LETTERS: Final = st.sampled_from([*'aé\u2028👋"\\/\n\r\t {}[]:,\x00\x7f\ufeff', "data: ", "\n\n", "[DONE]", "event:"])
WORDS: Final = st.lists(LETTERS, min_size=1, max_size=6).map("".join)
IDS: Final = st.text("abcXYZ019_-", min_size=1, max_size=12)
JSON: Final[st.SearchStrategy[Any]] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.sampled_from([0.5, 1.0, 1e300]), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=6,
)
OBJECTS: Final = st.builds(
    lambda value, indent, ascii: json.dumps(value, indent=indent, ensure_ascii=ascii),
    st.dictionaries(WORDS, JSON, max_size=3),
    st.sampled_from([None, None, 1]),
    st.booleans(),
)
"""JSON text of an object, spelled in several ways."""


class Piece(NamedTuple):
    """A part, and what comes of it after its start, numbered 0."""

    part: Part
    steps: tuple[PartDelta | PartPatch, ...]


class Answer(NamedTuple):
    """An answer. ``sizes`` is how its events fall into chunks."""

    format: str
    events: tuple[Event, ...]
    sizes: tuple[int, ...]


def _deltas(text: str, draw: Draw) -> tuple[PartDelta, ...]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    borders = [0, *places, len(text)]
    pieces = (text[start:end] for start, end in itertools.pairwise(borders))
    return tuple(PartDelta(0, piece) for piece in pieces if piece)


def _citation(format: str, draw: Draw) -> Citation:
    title = draw(WORDS)
    raw: dict[str, object]
    if format == OPENAI:
        spot = {"start_index": 0, "end_index": 1, "url": "https://a.example/", "title": title}
        raw = {"type": "url_citation", "url_citation": spot}
        return Citation(OPENAI, "url_citation", _json(raw), "https://a.example/", title, start=0, end=1)
    if format == RESPONSES:
        raw = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "https://a.example/", "title": title}
        return Citation(RESPONSES, "url_citation", _json(raw), "https://a.example/", title, start=0, end=1)
    if draw(st.booleans()):
        raw = {"type": "web_search_result_location", "url": "https://a.example/", "title": title, "cited_text": "c"}
        raw["encrypted_index"] = "Eo8=="
        return Citation(ANTHROPIC, str(raw["type"]), _json(raw), "https://a.example/", title, "c")
    raw = {"type": "char_location", "cited_text": "c", "document_index": 0, "document_title": title}
    raw |= {"start_char_index": 0, "end_char_index": 1}
    return Citation(ANTHROPIC, "char_location", _json(raw), None, title, "c")


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _item(format: str, draw: Draw) -> dict[str, msgspec.Raw]:
    """The extra of a part that begins an item of Responses; the same id never comes twice."""
    if format != RESPONSES:
        return {}
    phase = {"item.phase": msgspec.Raw(b'"commentary"')} if draw(st.integers(0, 3)) == 0 else {}
    id = f"item_{draw(st.integers(0, 10**12))}"
    return {"item": msgspec.Raw(b"null"), "kept.id": msgspec.Raw(_json(id)), **phase}


def _text(format: str, draw: Draw) -> Piece:
    steps: list[PartDelta | PartPatch] = list(_deltas(draw(WORDS), draw))
    if draw(st.integers(0, 3)) == 0:
        steps.append(PartPatch(0, citation=_citation(format, draw)))
    return Piece(Text("", extra=_item(format, draw)), tuple(steps))


def _reasoning(format: str, draw: Draw, field: str) -> Piece:
    if format == OPENAI:
        return Piece(Reasoning(origin=f"{OPENAI}:{field}"), _deltas(draw(WORDS), draw))
    if format == RESPONSES:
        extra = _item(format, draw)
        if draw(st.integers(0, 4)) == 0:
            return Piece(Reasoning(redacted=draw(IDS), origin=SUMMARY, extra=extra), ())
        signature = (PartPatch(0, signature=draw(IDS)),) if draw(st.booleans()) else ()
        origin = draw(st.sampled_from([SUMMARY, CONTENT]))
        return Piece(Reasoning(origin=origin, extra=extra), (*_deltas(draw(WORDS), draw), *signature))
    if draw(st.integers(0, 4)) == 0:
        return Piece(Reasoning(redacted=draw(IDS), origin=ANTHROPIC), ())
    signed = PartPatch(0, signature=draw(IDS))
    return Piece(Reasoning(origin=ANTHROPIC), (*_deltas(draw(WORDS), draw), signed))


def _call(format: str, draw: Draw, number: int) -> Piece:
    id, name = f"call_{number}_{draw(IDS)}", draw(IDS)
    kind = draw(st.integers(0, 9))
    extra = _item(format, draw)
    if format in (OPENAI, RESPONSES) and kind == 0:
        return Piece(ToolCall(id, name, kind="custom", extra=extra), _deltas(draw(WORDS), draw))
    server = "server_tool_use" if format == ANTHROPIC and kind == 0 else ""
    return Piece(ToolCall(id, name, server=server, extra=extra), _deltas(draw(OBJECTS), draw))


def _opaque(format: str, draw: Draw) -> Piece:
    if format == RESPONSES:
        search = {"type": "web_search_call", "id": f"ws_{draw(IDS)}", "status": "completed"}
        return Piece(Opaque(RESPONSES, "web_search_call", _json(search)), ())
    found = {
        "type": "web_search_result",
        "url": "https://a.example/",
        "title": draw(WORDS),
        "encrypted_content": "Ab==",
    }
    block = {"type": "web_search_tool_result", "tool_use_id": draw(IDS), "content": [found]}
    return Piece(Opaque(ANTHROPIC, "web_search_tool_result", _json(block)), ())


def _pieces(format: str, draw: Draw, canonical: bool) -> list[Piece]:
    """Parts in an order that the format can tell: in whole answers of OpenAI's, that of its members is the only one."""
    some = draw(st.lists(st.sampled_from("rtcxo"), min_size=0, max_size=5))
    if format == OPENAI and canonical:
        some = sorted(set(some) & set("rtx"), key="rtx".index) + ["c"] * some.count("c")
    pieces: list[Piece] = []
    # A provider has one spelling; who sends both sends the same words twice.
    field = draw(st.sampled_from(["reasoning_content", "reasoning"]))
    for number, kind in enumerate(some):
        if kind == "r":
            pieces.append(_reasoning(format, draw, field))
        elif kind == "t":
            pieces.append(_text(format, draw))
        elif kind == "c":
            pieces.append(_call(format, draw, number))
        elif kind == "x" and format != ANTHROPIC:
            pieces.append(Piece(Refusal("", extra=_item(format, draw)), _deltas(draw(WORDS), draw)))
        elif kind == "o" and format != OPENAI:
            pieces.append(_opaque(format, draw))
    return pieces


def _woven(pieces: Sequence[Piece], first: int, choice: int, draw: Draw) -> list[Event]:
    """The events of ``pieces``: one after the other, or calls side by side with their fragments in turn."""
    out: list[Event] = []
    run: list[tuple[int, Piece]] = []

    def flush() -> None:
        out.extend(PartStart(index, piece.part, choice) for index, piece in run)
        queues = [[msgspec.structs.replace(step, index=i, choice=choice) for step in piece.steps] for i, piece in run]
        while any(queues):
            queue = draw(st.sampled_from([queue for queue in queues if queue]))
            out.append(queue.pop(0))
        out.extend(PartStop(index, choice) for index, _ in run)
        run.clear()

    side_by_side = draw(st.booleans())
    for index, piece in enumerate(pieces, first):
        if not (side_by_side and isinstance(piece.part, ToolCall) and run and isinstance(run[-1][1].part, ToolCall)):
            flush()
        run.append((index, piece))
    flush()
    return out


def _usage(format: str, draw: Draw) -> Usage:
    fresh, read, written, output = draw(st.tuples(*[st.integers(1, 10**6)] * 4))
    reasoning = draw(st.sampled_from([None, 0, 17]))
    cached, stored = draw(st.sampled_from([(None, None), (read, None), (read, written)]))
    return Usage(
        fresh + (cached or 0) + (stored or 0),
        fresh,
        cached,
        stored,
        output + (reasoning or 0),
        reasoning,
        format=format,
    )


_STOPS: Final[dict[str, dict[str, StopReason]]] = {
    OPENAI: dict(OPENAI_STOPS),
    ANTHROPIC: dict(ANTHROPIC_STOPS),
    RESPONSES: {"completed": "stop", **{word: INCOMPLETE[word] for word in ("max_output_tokens", "content_filter")}},
}


@st.composite
def answers(draw: Any, format: str, *, canonical: bool = True, choices: int = 2) -> Answer:
    """Answers of a provider of ``format``; ``canonical``: with their parts in an order that a whole answer can tell."""
    words = _STOPS[format]
    created = None if format == ANTHROPIC else 1_700_000_001
    tier = None if format == ANTHROPIC else draw(st.sampled_from([None, "default"]))
    events: list[Event] = [ResponseStart(f"id_{draw(IDS)}", f"model-{draw(IDS)}", created, tier, format=format)]
    first = 0
    for choice in range(draw(st.integers(1, choices)) if format == OPENAI else 1):
        pieces = _pieces(format, draw, canonical)
        events += _woven(pieces, first, choice, draw)
        first += len(pieces)
        word = draw(st.sampled_from(sorted(words)))
        reason = words[word]
        if word == "completed":
            kinds = {type(piece.part) for piece in pieces}
            reason = "tool_calls" if ToolCall in kinds else "refusal" if Refusal in kinds else "stop"
        sequence = draw(IDS) if format == ANTHROPIC and word == "stop_sequence" else None
        events.append(ChoiceStop(reason, word, choice, sequence))
    if format == ANTHROPIC or draw(st.booleans()):
        events.append(UsageReport(_usage(format, draw)))
    events += [ResponseStop(), Terminator()]
    return Answer(format, tuple(events), tuple(draw(st.lists(st.integers(1, 6), max_size=8))))
