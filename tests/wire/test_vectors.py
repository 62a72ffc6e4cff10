"""Vectors as numbers and as base64, one into the other."""

from __future__ import annotations

import base64
import json
import struct

import pytest
from headgate.gateway.wire.vectors import is_packed, pack, unpack
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=50)


@given(FLOATS)
def test_there_and_back(numbers: list[float]) -> None:
    packed = pack(Raw(json.dumps(numbers).encode()))
    data = base64.b64decode(json.loads(bytes(packed)))
    assert list(struct.unpack(f"<{len(numbers)}f", data)) == numbers
    assert json.loads(bytes(unpack(packed))) == numbers
    assert is_packed(packed) and not is_packed(unpack(packed))


def test_what_a_float32_cannot_hold_is_rounded() -> None:
    assert json.loads(bytes(unpack(pack(Raw(b"[0.1, 1]"))))) == [0.10000000149011612, 1.0]


@pytest.mark.parametrize("vector", [b'["a"]', b"{}", b"null", b'"x"', b"[[1]]"])
def test_what_is_no_numbers(vector: bytes) -> None:
    with pytest.raises(ValueError, match="no vector"):
        pack(Raw(vector))


@pytest.mark.parametrize("vector", [b'"AAA"', b'"AAAAAAA="', b'"????"', b"[1]", b"null"])
def test_what_is_no_base64(vector: bytes) -> None:
    with pytest.raises(ValueError, match="no vector"):
        unpack(Raw(vector))
