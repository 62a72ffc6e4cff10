"""The loss ledger: no entry twice, and no more than its cap."""

from __future__ import annotations

from headgate.gateway.ir.loss import Ledger, Loss


def loss(number: int, kind: str = "lost") -> Loss:
    return Loss(kind, f"messages[{number}]", "image", "the format has none")  # type: ignore[arg-type]


def test_request_and_answer_are_kept_apart() -> None:
    ledger = Ledger()
    ledger.add_request([loss(1)])
    ledger.add_answer([loss(1), loss(2)])
    assert (ledger.request, ledger.answer, ledger.dropped) == ([loss(1)], [loss(1), loss(2)], 0)


def test_a_retry_that_notes_the_same_again_adds_nothing() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.add_request([loss(1), loss(2), loss(1)])
    assert ledger.request == [loss(1), loss(2)]


def test_only_what_was_lost_of_the_request_counts_as_lost() -> None:
    ledger = Ledger()
    ledger.add_request([loss(1), loss(2, "minted"), loss(3, "emulated"), loss(4)])
    ledger.add_answer([loss(5)])
    assert ledger.lost == [loss(1), loss(4)]


def test_at_the_cap_the_rest_is_counted() -> None:
    ledger = Ledger(cap=3)
    ledger.add_request(loss(number) for number in range(3))
    assert ledger.dropped == 0
    ledger.add_request(loss(number) for number in range(5))
    ledger.add_answer([loss(9)])
    assert ledger.request == [loss(0), loss(1), loss(2)]
    assert ledger.answer == [loss(9)]
    assert ledger.dropped == 2


def test_the_default_cap() -> None:
    ledger = Ledger()
    ledger.add_request(loss(number) for number in range(1000))
    assert (len(ledger.request), ledger.dropped) == (100, 900)


def test_ledgers_share_nothing() -> None:
    one, other = Ledger(), Ledger()
    one.add_request([loss(1)])
    one.add_answer([loss(1)])
    assert (other.request, other.answer, one == other) == ([], [], False)
