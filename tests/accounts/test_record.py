"""Records that several processes write: merged in any order, they say the same; and what is kept is read, or is nothing."""

from __future__ import annotations

import pytest
from headgate.gateway.accounts.record import (
    MAX_EVENTS,
    MAX_SCOPES,
    Cooldown,
    Counts,
    Event,
    Record,
    Reset,
    later,
    mark_of,
    merge,
    read_record,
    read_reset,
    standing,
)
from hypothesis import given
from hypothesis import strategies as st

TIMES = st.integers(1, 20).map(float)
WORDS = st.builds(Cooldown, at=TIMES, until=st.sampled_from([0.0, None]) | TIMES)


def essence(word: Cooldown) -> tuple[float, float | None]:
    return word.at, word.until


@given(WORDS, WORDS)
def test_the_order_of_two_words_does_not_matter(one: Cooldown, other: Cooldown) -> None:
    assert essence(later(one, other)) == essence(later(other, one))
    assert later(one, one) == one
    assert later(None, one) == one


@given(WORDS, WORDS)
def test_a_cooldown_is_never_shortened_by_another(one: Cooldown, other: Cooldown) -> None:
    if one.until == 0 or other.until == 0:
        return
    until = later(one, other).until
    ends = [each.until for each in (one, other) if each.until is not None]
    assert until == (None if len(ends) < 2 else max(ends))


def test_the_later_word_decides_between_cooldown_and_none() -> None:
    parked, back = Cooldown(5.0, 100.0), Cooldown(6.0, 0.0)
    assert later(parked, back) is back
    again = Cooldown(7.0, 50.0)
    assert later(back, again) is again


def test_records_of_two_processes() -> None:
    one = Record("m", {"": Cooldown(1.0, 50.0)}, (Event(1.0, "parked"),), {"p": Counts(1.0, 3, 1, 0)})
    two = Record(
        "m", {"": Cooldown(2.0, 40.0), "x": Cooldown(2.0, 9.0)}, (Event(2.0, "parked"),), {"q": Counts(2.0, 5, 0, 1)}
    )
    both = merge(one, two)
    assert (both.cooldowns[""].until, both.cooldowns["x"].until) == (50.0, 9.0)
    assert [event.at for event in both.events] == [1.0, 2.0]
    assert both.counts == {"p": Counts(1.0, 3, 1, 0), "q": Counts(2.0, 5, 0, 1)}
    assert merge(both, one) == both == merge(both, both)
    assert merge(one, None) == one
    assert merge(one, Record("another key", two.cooldowns)) == one


def test_records_are_bounded() -> None:
    many = Record(
        "m",
        {f"m{at}": Cooldown(float(at), 1e9) for at in range(2 * MAX_SCOPES)},
        tuple(Event(float(at), "parked") for at in range(100)),
        {f"p{at}": Counts(float(at), 1, 0, 0) for at in range(100)},
    )
    kept = merge(Record("m"), many)
    assert (len(kept.cooldowns), len(kept.events), len(kept.counts)) == (MAX_SCOPES, MAX_EVENTS, 32)
    assert f"m{2 * MAX_SCOPES - 1}" in kept.cooldowns and "p99" in kept.counts and kept.events[-1].at == 99.0
    old = {"a": Cooldown(1.0, 0.0), "b": Cooldown(1e7, 0.0), "c": Cooldown(1.0, None)}
    assert merge(Record("m"), Record("m", old)).cooldowns.keys() == {"b", "c"}


def test_what_stands() -> None:
    words = {
        "": Cooldown(5.0, None), "a": Cooldown(5.0, 100.0), "b": Cooldown(5.0, 9.0), "c": Cooldown(5.0, 0.0),
        "d": Cooldown(1.0, 100.0),
    }  # fmt: skip
    assert standing(Record("m", words), 2.0, 10.0).keys() == {"", "a"}
    assert standing(Record("m", words), 5.0, 10.0) == {}


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b'{"mark": 4}', b'{"mark":"m","cooldowns":{"":{"at":"x"}}}'])
def test_what_is_no_record(data: bytes | None) -> None:
    assert read_record(data) is None
    assert read_reset(data) == 0.0


def test_what_is_written_is_read() -> None:
    record = Record(
        "m", {"": Cooldown(1.0, None, "auth", "no", None)}, (Event(1.0, "parked"),), {"p": Counts(1.0, 1, 1, 1)}
    )
    assert read_record(record.encode()) == record
    assert read_reset(Reset(4.5).encode()) == 4.5
    assert read_reset(b'{"at": 1e999}') == 0.0


def test_a_mark_tells_keys_apart_and_leads_back_to_none() -> None:
    assert len({mark_of(f"sk-{at}") for at in range(1000)}) == 1000
    assert len(mark_of("sk-secret")) == 8 and mark_of("sk-secret") == mark_of("sk-secret")
