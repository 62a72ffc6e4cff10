from __future__ import annotations

import json

import msgspec
import pytest
from headgate.gateway.wire.surrogates import mend_halves


@pytest.mark.parametrize(
    "data",
    [
        rb'"plain"',
        rb'"\u00fc \n \" \\ \/"',
        rb'"\ud83d\udc4b"',
        rb'"\uD83D\uDC4B \uDBFF\uDFFF"',
        rb'"\\ud83d"',  # a backslash, and letters
        rb'"\\\\ud83d \\\ud83d\udc4b"',
        '"👋"'.encode(),
    ],
)
def test_whole_letters_stay(data: bytes) -> None:
    assert mend_halves(data) is data
    assert msgspec.json.decode(data) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (rb'"\ud83d"', "�"),
        (rb'"\udc4b"', "�"),
        (rb'"a\ud83dx"', "a�x"),
        (rb'"\ud83d\ud83d\udc4b"', "�👋"),
        (rb'"\udc4b\ud83d"', "��"),
        (rb'"\ud83d\n"', "�\n"),
        (rb'"\\\ud83d"', "\\�"),
        (rb'"\ud83d\\udc4b"', "�\\udc4b"),
    ],
)
def test_halves_are_replaced(data: bytes, text: str) -> None:
    assert msgspec.json.decode(mend_halves(data)) == text
