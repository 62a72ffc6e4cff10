"""Law 6, cut anywhere: any split of a stream's bytes gives the same events and the same raw bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .common import ANTHROPIC, OPENAI, PLACES, RESPONSES, SPOKEN, cut, decoded, law
from .test_untouched_bytes import wires

CORPUS = Path(__file__).parent.parent / "corpus"
STREAMS = {
    OPENAI: sorted((CORPUS / "openai_chat").glob("*.sse")),
    ANTHROPIC: sorted((CORPUS / "anthropic_messages/streams").glob("*.sse")),
    RESPONSES: sorted((CORPUS / "openai_responses/streams").glob("*.sse")),
}
CASES = [(format, path) for format, paths in STREAMS.items() for path in paths]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("format", "path"), CASES, ids=lambda value: getattr(value, "stem", value))
def test_every_split_of_the_corpus(format: str, path: Path, line_end: bytes) -> None:
    wire = path.read_bytes().replace(b"\n", line_end)
    whole = decoded(format, [wire])
    assert whole[0]
    assert decoded(format, [wire[place : place + 1] for place in range(len(wire))]) == whole
    # CRLF has twice as many places inside a blank line; elsewhere they are those of LF.
    # Long streams are those of Responses, whose frames repeat what a response is.
    for place in range(1, len(wire), 1 + len(wire) // 4000 if line_end == b"\n" else 7):
        assert decoded(format, [wire[:place], wire[place:]]) == whole, f"cut at byte {place}"


@pytest.mark.parametrize("format", SPOKEN)
@law
@given(st.data())
def test_any_split_of_any_stream(format: str, data: st.DataObject) -> None:
    wire = data.draw(wires(format))
    # A stream that breaks off is cut wherever it breaks off.
    wire = wire[: data.draw(st.one_of(st.just(len(wire)), st.integers(0, len(wire))))]
    assert decoded(format, cut(wire, data.draw(PLACES))) == decoded(format, [wire] if wire else [])
