"""Law 8, no clean end after a failure: wherever an answer breaks off, the caller is told so in its own format."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, Final

import pytest

from ..fakes import anthropic_api, openai_api
from ..fakes.anthropic_checks import Issued
from ..fakes.script import Say, Script, Use, script
from .common import ANTHROPIC, OPENAI, PAIRS
from .sockets import CLEAN_END, Answer, ask, call, world

PARTS: Final = (Say("One two three", 3), Use("look", '{"at": "Rome"}', pieces=2))
pairs = pytest.mark.parametrize(("caller", "to"), PAIRS)


def told_of(caller: str, body: bytes) -> dict[str, Any]:
    """Return the error object of a body of the caller's format; fails where it is none."""
    value = json.loads(body)
    error = value["error"]
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str) and error["type"]
    if caller == ANTHROPIC:
        assert value["type"] == "error"
    else:
        assert "code" in error
        assert "param" in error
    assert isinstance(error, dict)
    return error


def check_failed(caller: str, stream: bool, answer: Answer) -> None:
    """Fail unless ``answer`` is one of a call that failed."""
    assert CLEAN_END[caller] not in answer.body
    assert answer.complete
    if answer.status != 200:
        assert 400 <= answer.status < 600
        assert answer.headers["content-type"].startswith("application/json")
        told_of(caller, answer.body)
        return
    assert stream, "a whole answer failed and says 200"
    frames = whole_frames(answer)
    assert (b"event: error" in frames[-1]) is (caller == ANTHROPIC)
    told_of(caller, frames[-1].partition(b"data: ")[2])
    assert not any(b'"error":{' in frame for frame in frames[:-1])


def whole_frames(answer: Answer) -> list[bytes]:
    """Return the frames of a stream; fails for one that breaks off, which no client could read."""
    assert answer.body.endswith(b"\n\n")
    frames = answer.body.removesuffix(b"\n\n").split(b"\n\n")
    for frame in frames:
        _, mark, data = frame.partition(b"data: ")
        assert mark or frame.startswith(b":"), frame
        if mark and data != b"[DONE]":
            assert isinstance(json.loads(data), dict)
    return frames


def frames_of(to: str) -> int:
    """How many frames the provider's stream of PARTS has."""
    if to == OPENAI:
        return len(openai_api.frames(script(*PARTS), 1, "m", include_usage=False))
    return len(anthropic_api.frames(script(*PARTS), 1, "m", Issued()))


@pairs
async def test_a_stream_breaks_off_after_any_frame(tmp_path: Path, caller: str, to: str) -> None:
    cuts: tuple[Any, ...] = ("fin", "reset", "eof")
    cases = list(itertools.product(range(frames_of(to)), cuts, (False, True)))
    plays = [script(*PARTS, cut_after=after, cut=cut, half=half) for after, cut, half in cases]
    async with world(tmp_path, *plays) as (provider, served):
        for after, cut, half in cases:
            answer = await call(served, caller, ask(caller, to, stream=True))
            # Vendors exist that never send [DONE]: a body that ends, by HTTP, after the finish reason is whole there.
            if to == OPENAI and cut == "eof" and after == frames_of(to) - 1:
                assert answer.body.count(CLEAN_END[caller]) == 1
                assert CLEAN_END[caller] in whole_frames(answer)[-1]
                continue
            try:
                check_failed(caller, True, answer)
            except AssertionError as fault:
                raise AssertionError(f"cut after {after} by {cut}, half a frame: {half}: {answer}") from fault
        assert len(provider.requests) == len(cases)


@pairs
async def test_an_error_comes_in_place_of_any_frame(tmp_path: Path, caller: str, to: str) -> None:
    count = frames_of(to) - 1
    async with world(tmp_path, *(script(*PARTS, error_after=after) for after in range(count))) as (_, served):
        for _ in range(count):
            check_failed(caller, True, await call(served, caller, ask(caller, to, stream=True)))


MALFORMED: Final[dict[str, list[bytes]]] = {
    OPENAI: [
        b"data: {nonsense\n\n",
        b'data: {"choices": 7}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":7},"finish_reason":null}]}\n\n',
        b"data: [DONE]\n\n",
        b"",
    ],
    ANTHROPIC: [
        b"event: message_start\ndata: {nonsense\n\n",
        b'event: content_block_start\ndata: {"type":"content_block_start","index":"x","content_block":7}\n\n',
        b'event: message_start\ndata: {"type":"message_start"}\n\n',
        b"",
    ],
}
WHOLE: Final[tuple[dict[str, Any], ...]] = (
    *({"status": status} for status in (302, 400, 401, 403, 404, 413, 429, 500, 502, 503, 529)),
    *({"wire": wire} for wire in (b"", b"{nonsense", b"[]", b"<html>", b"{}")),
    {"wire": b'{"error": {"message": "Overloaded", "type": "overloaded_error"}, "type": "error"}'},
    *({"cut_after": 1, "cut": cut} for cut in ("fin", "reset")),
)


@pairs
async def test_a_stream_that_makes_no_sense(tmp_path: Path, caller: str, to: str) -> None:
    wires = MALFORMED[to]
    async with world(tmp_path, *(script(wire=wire) for wire in wires)) as (_, served):
        for wire in wires:
            answer = await call(served, caller, ask(caller, to, stream=True))
            try:
                check_failed(caller, True, answer)
            except AssertionError as fault:
                raise AssertionError(f"{wire!r}: {answer}") from fault


@pytest.mark.parametrize("prefix", ["", "x-"], ids=["plain", "watched"])
@pairs
async def test_a_whole_answer_fails(tmp_path: Path, caller: str, to: str, prefix: str) -> None:
    plays: list[Script] = [script("One two three", **fields) for fields in WHOLE]
    if prefix:
        plays = [play for play in plays for _ in range(2)]  # a retry may ask again
    async with world(tmp_path, *plays) as (provider, served):
        for fields in WHOLE:
            before = len(provider.requests)
            answer = await call(served, caller, ask(caller, to, stream=False, prefix=prefix))
            for _ in range(2 - (len(provider.requests) - before) if prefix else 0):
                provider._queue.popleft()
            if fields == {"wire": b"{}"} and caller == to:
                continue  # an object, passed on as it came: nobody read it, the caller's SDK does
            try:
                check_failed(caller, False, answer)
            except AssertionError as fault:
                raise AssertionError(f"{fields}: {answer}") from fault


@pairs
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_nobody_listens(tmp_path: Path, caller: str, to: str, stream: bool) -> None:
    async with world(tmp_path) as (provider, served):
        await provider.__aexit__(None, None, None)
        answer = await call(served, caller, ask(caller, to, stream=stream))
        assert answer.status == 502
        check_failed(caller, stream, answer)
