"""What one connection remembers: the last response of each lane, of its tenant, in bounded space."""

from __future__ import annotations

import json

from headgate.gateway.responses.kept import conversation
from headgate.gateway.responses.memory import Memory
from msgspec import Raw


def response(id: str, text: str = "") -> bytes:
    return json.dumps({"id": id, "output": [{"type": "message", "text": text}]}).encode()


def test_a_lane_remembers_its_last_response() -> None:
    memory = Memory(1000)
    memory.keep("", "red", response("r1", "one"), (Raw(b'{"role":"user"}'),))
    kept = memory.find("red", "r1")
    assert kept is not None
    assert [json.loads(bytes(item)) for item in conversation(kept)] == [
        {"role": "user"},
        {"type": "message", "text": "one"},
    ]
    assert memory.find("blue", "r1") is None
    memory.keep("", "red", response("r2"), ())
    assert memory.find("red", "r1") is None
    assert memory.find("red", "r2") is not None


def test_lanes_are_apart_and_find_one_another() -> None:
    memory = Memory(1000)
    memory.keep("a", "red", response("r1"), ())
    memory.keep("b", "red", response("r2"), ())
    assert memory.find("red", "r1") is not None
    memory.forget("r1")
    assert memory.find("red", "r1") is None
    assert memory.find("red", "r2") is not None


def test_what_spoke_longest_ago_goes_first() -> None:
    memory = Memory(300)
    memory.keep("a", "red", response("r1", "x" * 50), ())
    memory.keep("b", "red", response("r2", "x" * 50), ())
    memory.keep("a", "red", response("r3", "x" * 50), ())
    memory.keep("c", "red", response("r4", "x" * 50), ())
    assert [memory.find("red", id) is not None for id in ("r1", "r2", "r3", "r4")] == [False, False, True, True]
    memory.keep("a", "red", response("r5", "x" * 400), ())
    assert memory.find("red", "r5") is None
    assert memory.find("red", "r3") is None
    assert memory.find("red", "r4") is not None


def test_what_has_no_id_is_not_kept() -> None:
    memory = Memory(1000)
    for nothing in (b"{}", b"{", b'{"id": 1}', b'{"id": ""}'):
        memory.keep("", "red", nothing, ())
    assert memory.find("red", "") is None
