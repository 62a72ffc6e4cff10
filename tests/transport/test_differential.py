"""The same answer of a provider, by either transport, gives the same; where they part on purpose, it is said how and why."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp.compression_utils import HAS_ZSTD
from hypothesis import HealthCheck, given, settings

from .fed import Fed
from .generated import Answer, answers, broken_off, mutated
from .oddities import PARTINGS, SAME, Got
from .player import End, Outcome, Play, Stage, Way, stage
from .servers import chunk

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
"""Of an answer that makes a test fail, which that warning would hide."""

CORPUS = Path(__file__).parent.parent / "corpus"
FIXTURES = sorted(
    path for path in CORPUS.rglob("*") if path.suffix in (".sse", ".json") and path.parent.name != "requests"
)


@pytest.fixture(scope="module")
def both() -> Iterator[Stage]:
    with stage() as opened:
        yield opened


def bytewise(said: bytes) -> tuple[bytes, ...]:
    """Each byte by itself: nothing depends on what came together. What is large comes at once."""
    return tuple(said[n : n + 1] for n in range(len(said))) if len(said) < 800 else (said,)


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    places = sorted(chance.sample(range(1, len(data)), min(len(data) - 1, chance.choice([1, 3, 10, 40]))))
    return [data[start:end] for start, end in pairwise([0, *places, len(data)])]


# --- the corpus


def framed(body: bytes, kind: str, framing: str, chance: random.Random) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nDate: Thu, 01 Oct 2026 10:00:00 GMT\r\nContent-Type: {kind}\r\n"
    if framing == "length":
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    if framing == "close":
        return f"{head}\r\n".encode() + body
    chunks = b"".join(map(chunk, cut(body, chance)))
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + chunk(b"")


@pytest.mark.parametrize("way", ["read", "flow"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_corpus(both: Stage, fixture: Path, framing: str, way: Way) -> None:
    chance = random.Random(f"{fixture.name} {framing}")
    body = fixture.read_bytes()
    said = framed(body, "text/event-stream" if fixture.suffix == ".sse" else "application/json", framing, chance)
    for pieces in ([said], cut(said, chance)):
        play = Play(tuple(pieces), "close" if framing == "close" else "keep")
        lean, session = (both.outcome(name, play, way) for name in ("lean", "session"))
        assert lean == session
        assert (lean.status, lean.body, lean.error, lean.reused) == (200, body, None, framing != "close")


# --- oddities


@pytest.mark.parametrize("end", ["keep", "close", "half", "reset"])
@pytest.mark.parametrize("odd", SAME)
def test_odd_answers_that_are_read_alike(both: Stage, odd: str, end: End) -> None:
    ways: tuple[Way, ...] = ("read", "flow")
    for way in ways:
        play = Play(bytewise(SAME[odd]), end)
        lean, session = (both.outcome(name, play, way) for name in ("lean", "session"))
        assert lean == session
        assert lean.own


def got(outcome: Outcome) -> Got:
    error = None if outcome.error is None else ": ".join(outcome.error)
    return Got(outcome.body, error, outcome.status, outcome.reused, outcome.own)


@pytest.mark.parametrize("odd", PARTINGS)
def test_odd_answers_where_they_part(both: Stage, odd: str) -> None:
    if odd == "zstd" and not HAS_ZSTD:
        pytest.skip("aiohttp undoes zstd only with backports.zstd, or in Python 3.14")
    parting = PARTINGS[odd]
    play = Play(bytewise(parting.said))
    assert got(both.outcome("lean", play, "flow")) == parting.lean
    assert got(both.outcome("session", play, "flow")) == parting.session
    assert parting.lean != parting.session and parting.why


# --- however the network cuts it


@pytest.fixture(scope="module")
def fed() -> Iterator[Fed]:
    opened = Fed()
    yield opened
    opened.close()


ODD = {**SAME, **{name: parting.said for name, parting in PARTINGS.items()}}
LINE_ENDS = {"line end after the body", "line end after the chunks", "line feed after the body"}
"""Their connection lives if the parser saw the line end in the read that ended the answer: it is no message."""
SMALL = [name for name, said in ODD.items() if 1 < len(said) < 500]


@pytest.mark.parametrize("odd", SMALL)
def test_odd_answers_cut_anywhere(fed: Fed, odd: str) -> None:
    """What came before is pushed, whole or not; the rest is the same at every cut, the connection's fate too."""
    said = ODD[odd]
    canonical = fed.outcome(bytewise(said))
    for place in range(len(said)):
        found = fed.outcome([piece for piece in (said[:place], said[place:]) if piece])
        if odd in LINE_ENDS:
            found = replace(found, reused=False)
        assert found == canonical, f"cut at byte {place}"


# --- answers made up


def examples(count: int) -> settings:
    """``count`` examples, the same at every run; with HEADGATE_EXAMPLES=n that many, others at each run."""
    asked = os.environ.get("HEADGATE_EXAMPLES")
    return settings(
        max_examples=int(asked or count),
        derandomize=asked is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def check_whole(both: Stage, answer: Answer, way: Way) -> None:
    play = Play(answer.pieces(), answer.end)
    lean, session, python = (both.outcome(name, play, way) for name in ("lean", "session", "python"))
    assert lean == replace(answer.expected, reused=answer.expected.reused and not answer.after)
    if answer.after:  # what session does about it is in PARTINGS
        assert session.error is not None or (session.status, session.body) == (lean.status, lean.body)
    else:
        assert session == lean
        assert python == lean


@pytest.mark.parametrize("way", ["read", "flow"])
@examples(100)
@given(answer=answers())
def test_any_answer(both: Stage, way: Way, answer: Answer) -> None:
    check_whole(both, answer, way)


BROKEN = ("malformed", "is malformed")


def check_broken_off(both: Stage, answer: Answer, way: Way) -> None:
    play = Play(answer.pieces(), answer.end)
    lean, session, python = (both.outcome(name, play, way) for name in ("lean", "session", "python"))
    for other in (session, python):
        if answer.coded and lean.error is not None and other != lean:
            # As in PARTINGS, what is wrong when a coding's own end is missing; and what a decoder still held of it.
            assert lean.error == BROKEN or other.error == BROKEN
            assert (other.status, other.headers) == (lean.status, lean.headers)
            assert other.body.startswith(lean.body)
        else:
            assert other == lean
    assert answer.expected.body.startswith(lean.body)
    if lean.error is None and not answer.to_the_end:
        assert lean.body == answer.expected.body


@pytest.mark.parametrize("way", ["read", "flow"])
@examples(100)
@given(answer=broken_off())
def test_any_answer_that_breaks_off(both: Stage, way: Way, answer: Answer) -> None:
    check_broken_off(both, answer, way)


def check_mutated(both: Stage, said: bytes) -> None:
    play = Play(bytewise(said))
    lean, session = (both.outcome(name, play, "flow") for name in ("lean", "session"))
    assert lean.own
    if lean.error is None or lean.error[0] != "malformed":
        assert replace(session, reused=lean.reused, own=True) == lean


@examples(150)
@given(said=mutated())
def test_any_answer_with_wrong_bytes(both: Stage, said: bytes) -> None:
    """The lean transport is the stricter: what it takes, both take, and as the same."""
    check_mutated(both, said)


# --- the long run: make soak


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", ["read", "flow"])
@examples(2500)
@given(answer=answers())
def test_any_answer_at_length(both: Stage, way: Way, answer: Answer) -> None:
    check_whole(both, answer, way)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", ["read", "flow"])
@examples(2500)
@given(answer=broken_off())
def test_any_answer_that_breaks_off_at_length(both: Stage, way: Way, answer: Answer) -> None:
    check_broken_off(both, answer, way)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@examples(5000)
@given(said=mutated())
def test_any_answer_with_wrong_bytes_at_length(both: Stage, said: bytes) -> None:
    check_mutated(both, said)
