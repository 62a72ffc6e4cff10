"""What the law tests share: the formats and their pairs, how many examples, and streams cut anywhere."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from headgate.gateway import registry
from headgate.gateway.codecs.base import AnswerContext, Codec
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import Chunk, Event
from headgate.gateway.ir.fold import fold
from headgate.gateway.ir.loss import Loss
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

OPENAI: Final = "openai.chat"
ANTHROPIC: Final = "anthropic.messages"
RESPONSES: Final = "openai.responses"
CODECS: Final[dict[str, Codec]] = {name: registry.codec(name) for name in (OPENAI, ANTHROPIC, RESPONSES)}
FORMATS: Final = (OPENAI, ANTHROPIC)
"""Those that the laws over sockets call a gateway in, and its provider."""
PAIRS: Final = tuple((here, there) for here in FORMATS for there in FORMATS)
SPOKEN: Final = tuple(CODECS)
"""All that the laws without sockets hold for."""
ROADS: Final = tuple((here, there) for here in SPOKEN for there in SPOKEN)
OLLAMA: Final = "ollama.chat"
GENERATE: Final = "ollama.generate"
COMPLETIONS: Final = "openai.completions"
PLAIN: Final = (OLLAMA, GENERATE, COMPLETIONS)
"""Those that say less than a chat: the same laws hold for them, in test_plain_formats."""
CODECS.update((name, registry.codec(name)) for name in PLAIN)
CONTEXT: Final = AnswerContext(request_id="req_1", created=1_700_000_000, model="asked-for", stream_usage=True)

_ASKED: Final = os.environ.get("HEADGATE_EXAMPLES")
law: Final = settings(
    max_examples=int(_ASKED or 60),
    derandomize=_ASKED is None,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
"""The same few examples every time; with HEADGATE_EXAMPLES=n that many, others at each run."""
few: Final = settings(law, max_examples=int(_ASKED or 8))
"""For a law of many roads, each of which is a test: as many examples as there is time for every day."""


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut ``data`` at ``places``; empty pieces are left out."""
    borders = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(borders) if start < end]


PLACES: Final = st.one_of(
    st.lists(st.integers(1, 4000), max_size=12),
    # Every n-th byte, the first of them being every byte.
    st.builds(lambda step: list(range(step, 20_000, step)), st.sampled_from([1, 2, 3, 7, 31])),
)
"""Where to cut a stream of a few thousand bytes."""


def decoded(format: str, pieces: Sequence[bytes], *, hide_usage: bool = False) -> tuple[list[Event], bytes, str | None]:
    """Return events, raw bytes and the kind of the error of a stream that arrives in ``pieces``."""
    decoder = CODECS[format].stream_decoder(hide_usage=hide_usage)
    chunks = [decoder.feed(piece) for piece in pieces]
    chunks.append(decoder.close())
    heard = [chunk for chunk in chunks if chunk is not None]
    error: GatewayError | None = decoder.error
    events = [event for chunk in heard for event in chunk.events]
    return events, b"".join(chunk.raw or b"" for chunk in heard), None if error is None else error.kind


def streamed(
    format: str, events: Sequence[Event], sizes: Sequence[int] = (), context: AnswerContext = CONTEXT
) -> tuple[bytes, list[Loss]]:
    """Return ``events`` as a stream of ``format``, and its losses; they come in chunks of these sizes, then at once."""
    encoder = CODECS[format].stream_encoder(context)
    out, rest = [], list(events)
    for size in sizes:
        out.append(encoder.encode(Chunk(tuple(rest[:size]))))
        rest = rest[size:]
    out.append(encoder.encode(Chunk(tuple(rest))))
    out.append(encoder.close(None))
    return b"".join(out), encoder.losses


def told(events: Iterable[Event]) -> Any:
    """Return what ``events`` tell in the end, as JSON data that compares by meaning."""
    return json.loads(msgspec.json.encode(fold(events)), parse_float=str)
