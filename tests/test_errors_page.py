"""docs/errors.md says what the codecs do."""

from __future__ import annotations

from headgate.gateway.errors import KINDS

from .errors_page import OURS, PAGE, written


def test_the_tables_are_what_the_code_does() -> None:
    assert written(PAGE.read_text()) == PAGE.read_text(), "run python -m tests.errors_page"


def test_every_kind_is_somebodys() -> None:
    assert OURS.keys() == set(KINDS)
