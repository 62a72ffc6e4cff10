"""Law 3 on every road: each feature of each format arrives in every other, or the ledger names it, or it is refused.

What one caller's format can say is asked of a provider of each format, and what each provider's can is told to a caller of
each, whole and streamed. docs/formats.md shows the cells.
"""

from __future__ import annotations

from collections import Counter

import pytest
from headgate.gateway.ir.fold import fold

from .common import decoded, streamed
from .matrix import FEATURES, UNSAID, Cell, answer_of, asked, body_of, decode, head, heard, resolves, told
from .matrix_answers import ANSWERED, ANSWERS, Answer
from .matrix_spelling import BASES, Feature
from .matrix_streams import stream_of
from .test_plain_formats import whole

requests = pytest.mark.parametrize("feature", FEATURES, ids=lambda it: it.name.replace(" ", "-"))
answers = pytest.mark.parametrize("answer", ANSWERS, ids=lambda it: it.name.replace(" ", "-"))


def test_a_feature_has_one_name() -> None:
    for names in ([it.name for it in FEATURES], [it.name for it in ANSWERS]):
        assert [name for name, count in Counter(names).items() if count > 1] == []


@requests
def test_every_format_is_heard(feature: Feature) -> None:
    """What a format says in its own words is read as what it means."""
    for format, example in feature.bodies.items():
        assert feature.read(decode(format, body_of(format, example))) == feature.expected(format), format


@requests
def test_what_is_asked_arrives_or_is_named_or_refused(feature: Feature) -> None:
    for here in feature.bodies:
        for there in BASES:
            check_asked(asked(here, there, feature), body_of(here, feature.bodies[here]))


def check_asked(cell: Cell, body: dict[str, object]) -> None:
    assert cell.verdict in ("lossless", "ledgered", "refused"), cell
    if cell.here == cell.there:
        assert cell.verdict == "lossless", cell
    if cell.verdict == "refused":
        assert cell.why and resolves(body, cell.path), cell
    for loss in cell.losses:
        assert loss.why, cell
        # What was made up stands nowhere in the caller's words, but below something that does.
        assert resolves(body, head(loss.path) if loss.kind == "minted" else loss.path), (cell, loss)


@answers
def test_every_provider_is_heard(answer: Answer) -> None:
    for format in answer.bodies:
        for events in heard(format, answer):
            assert answer.read(fold(events)) == answer.expected(format), format


@answers
def test_what_is_answered_arrives_or_is_named_or_refused(answer: Answer) -> None:
    for here in answer.bodies:
        events = heard(here, answer)
        for there in ANSWERED:
            by_whole, by_stream = told(here, there, answer, events)
            for cell in (by_whole, by_stream):
                assert cell.verdict in ("lossless", "ledgered", "refused") or cell.feature in UNSAID, cell
                assert cell.held or cell.verdict in ("refused", "unsaid") or is_named(cell), cell
            if here == there:
                # Of a stream the frames are written anew here, which they are not where nothing was changed.
                assert by_whole.held and by_stream.held, (by_whole, by_stream)
                assert by_whole.verdict == "lossless", by_whole
            else:
                assert kinds(by_whole) == kinds(by_stream), (by_whole, by_stream)


def is_named(cell: Cell) -> bool:
    """Whether a loss tells what is missing; what is missing may also be that something was not said."""
    return any(loss.kind != "minted" for loss in cell.losses) or (cell.feature == "no usage" and bool(cell.losses))


def kinds(cell: Cell) -> tuple[str, bool, set[str]]:
    """What a caller must know of a cell: it is the same whether the answer is streamed or not."""
    return cell.verdict, cell.held, {loss.kind for loss in cell.losses}


@answers
def test_the_fold_of_a_stream_is_the_whole_answer(answer: Answer) -> None:
    for here in answer.bodies:
        by_whole, by_stream = heard(here, answer)
        for there in ANSWERED:
            expected = whole(there, by_whole)
            assert whole(there, by_stream) == expected, (here, there)
            if isinstance(expected, str):
                continue
            for events in (by_whole, by_stream):
                wire, _ = streamed(there, events)
                again, _, error = decoded(there, [wire])
                # A failure is one in every format, but in its own it is the word for it.
                assert (error is not None) == (answer.name == "ends: failed" and there != here), (here, there)
                if error is None:
                    assert whole(there, again) == expected, (here, there)


@answers
def test_a_stream_may_be_cut_at_any_byte(answer: Answer) -> None:
    for format in answer.bodies:
        wire = stream_of(format, answer_of(format, answer.bodies[format]))
        assert decoded(format, [wire[i : i + 1] for i in range(len(wire))]) == decoded(format, [wire])
