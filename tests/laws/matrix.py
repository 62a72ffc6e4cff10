"""What becomes of every feature on every road from one format to another: the cells of the matrix, and how each is judged.

A cell is ``lossless``, ``ledgered`` (which losses, and where, in the caller's words) or ``refused`` (by an error that says
why). It is ``silent`` if what was said is not to be found in what the other side reads and no loss tells of it: that is
what tests/laws/test_matrix.py looks for. ``unsaid`` are the few things of which nobody keeps a ledger, see UNSAID.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple

from headgate.gateway.codecs.base import RequestFacts, UpstreamFacts
from headgate.gateway.errors import CallerError, UpstreamError
from headgate.gateway.ir.event import Event
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.loss import Loss
from headgate.gateway.ir.message import Request

from .common import CODECS, CONTEXT, decoded, streamed
from .gemini_format import GEMINI
from .matrix_answers import ANSWERED, ANSWERS, GONE, Answer
from .matrix_content import CONTENT
from .matrix_settings import SETTINGS
from .matrix_spelling import BASES, STREAM, Body, Feature
from .matrix_streams import stream_of

Verdict = Literal["lossless", "ledgered", "refused", "unsaid", "silent"]
UNSAID: Final = {
    "date": "when an answer was made: where a format has no date, none is missed",
    "durations": "how long a server took stands among what it counts, and is told in its own format alone",
}
"""Features of answers that a format may lack without a word in the ledger, and why."""
FEATURES: Final = (*CONTENT, *SETTINGS)
_TOKEN: Final = re.compile(r"[^.\[\]]+")


class Cell(NamedTuple):
    """What became of a feature of ``here`` on its way to ``there``.

    ``held`` is whether the other side reads what was said, whatever else is in the ledger. ``path`` is what a refusal names,
    ``why`` what it says.
    """

    here: str
    there: str
    feature: str
    verdict: Verdict
    held: bool = False
    losses: tuple[Loss, ...] = ()
    path: str = ""
    why: str = ""


def body_of(format: str, example: Body) -> Body:
    """A request of ``format`` that says what ``example`` does, and what every request must."""
    return {**BASES[format], **example}


def decode(format: str, body: Body, path: str = "") -> Request:
    """Read a request; gemini's model and method are in its path."""
    said = {name: value for name, value in body.items() if name != STREAM}
    if format == GEMINI and not path:
        path = f"/v1beta/models/m:{'streamGenerateContent' if body.get(STREAM) else 'generateContent'}"
    return CODECS[format].decode_request(json.dumps(said).encode(), RequestFacts(path.partition("?")[0]))


def asked(here: str, there: str, feature: Feature) -> Cell:
    """What becomes of a request's feature."""
    request = decode(here, body_of(here, feature.bodies[here]))
    try:
        encoded = CODECS[there].encode_request(request, UpstreamFacts())
    except CallerError as error:
        return Cell(here, there, feature.name, "refused", path=error.param or "", why=error.message)
    usual = _usual(here, there)
    losses = tuple(it for it in encoded.losses if it not in usual and head(it.path) not in feature.beside)
    again = decode(there, json.loads(encoded.body), encoded.path)
    held = feature.read(again) == feature.read(request)
    if held and not losses:
        return Cell(here, there, feature.name, "lossless", held)
    tells = any(loss.kind != "minted" for loss in losses)
    return Cell(here, there, feature.name, "ledgered" if held or tells else "silent", held, losses)


@cache
def _usual(here: str, there: str) -> tuple[Loss, ...]:
    """What is noted of any request on this road: what had to be made up."""
    return CODECS[there].encode_request(decode(here, BASES[here]), UpstreamFacts()).losses


def head(path: str) -> str:
    """The first name of a path."""
    return path.partition(".")[0].partition("[")[0]


def resolves(body: Any, path: str) -> bool:
    """Whether ``path`` is the place of something in ``body``."""
    inner = body
    for token in _TOKEN.findall(path):
        if isinstance(inner, list) and token.isdigit() and int(token) < len(inner):
            inner = inner[int(token)]
        elif isinstance(inner, dict) and token in inner:
            inner = inner[token]
        else:
            return False
    return bool(path)


def cells(features: Sequence[Feature] = FEATURES) -> list[Cell]:
    """Every cell of the requests."""
    return [asked(here, there, feature) for feature in features for here in feature.bodies for there in BASES]


# -- answers: ``here`` is the provider's format, ``there`` the caller's


def answer_of(format: str, example: Body) -> Body:
    """An answer of ``format`` that says what ``example`` does, and what every answer must."""
    return {name: value for name, value in {**ANSWERED[format], **example}.items() if value is not GONE}


class Heard(NamedTuple):
    """The events of an answer: as its provider told it whole, and as it told it in a stream."""

    whole: Sequence[Event]
    stream: Sequence[Event]


def heard(format: str, answer: Answer) -> Heard:
    """Read an answer of ``format`` both ways."""
    body = answer_of(format, answer.bodies[format])
    events, _, error = decoded(format, [stream_of(format, body)])
    assert error is None, error
    return Heard(CODECS[format].decode_response(json.dumps(body).encode()), events)


def told(here: str, there: str, answer: Answer, events: Heard) -> tuple[Cell, Cell]:
    """What becomes of an answer's feature: of a whole one, and of a stream."""
    usual = _usually_told(here, there)
    whole = _whole(there, events.whole)
    stream = _stream(there, events.stream)
    return (
        _verdict(here, there, answer, events.whole, whole, usual[0]),
        _verdict(here, there, answer, events.stream, stream, usual[1]),
    )


class _Told(NamedTuple):
    """What a caller hears, or why nothing."""

    events: Sequence[Event]
    losses: tuple[Loss, ...]
    error: str = ""


def _whole(there: str, events: Sequence[Event]) -> _Told:
    try:
        encoded = CODECS[there].encode_response(events, CONTEXT)
        return _Told(CODECS[there].decode_response(encoded.body), tuple(encoded.losses))
    except UpstreamError as error:
        return _Told((), (), error.message)


def _stream(there: str, events: Sequence[Event]) -> _Told:
    wire, losses = streamed(there, events)
    again, _, error = decoded(there, [wire])
    return _Told(again, tuple(losses), error or "")


def _verdict(
    here: str, there: str, answer: Answer, events: Sequence[Event], told: _Told, usual: tuple[Loss, ...]
) -> Cell:
    if told.error:
        return Cell(here, there, answer.name, "refused", why=told.error)
    losses = tuple(loss for loss in told.losses if loss not in usual)
    held = answer.read(fold(told.events)) == answer.read(fold(events))
    if held and not losses:
        return Cell(here, there, answer.name, "lossless", held)
    if not losses and not answer.bodies[here]:
        # What is lost of every answer, its id among them, may be what is asked here.
        losses = tuple(loss for loss in told.losses if loss.kind != "minted")
    silent: Verdict = "unsaid" if answer.name in UNSAID else "silent"
    return Cell(here, there, answer.name, "ledgered" if losses else silent, held, losses)


@cache
def _usually_told(here: str, there: str) -> tuple[tuple[Loss, ...], tuple[Loss, ...]]:
    """What is noted of any answer on this road, whole or streamed."""
    events = heard(here, ANSWERS[0])
    return _whole(there, events.whole).losses, _stream(there, events.stream).losses


def answer_cells(answers: Sequence[Answer] = ANSWERS) -> list[tuple[Cell, Cell]]:
    """Every cell of the answers."""
    return [
        told(here, there, answer, heard(here, answer))
        for answer in answers
        for here in answer.bodies
        for there in ANSWERED
    ]
