"""Law 2, untouched bytes stay untouched: same wire in and out, cut anywhere; a new model name changes one value alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from headgate.gateway.codecs.base import RequestFacts, StreamEncoder
from headgate.gateway.errors import GatewayError
from headgate.gateway.ir.event import Chunk
from headgate.gateway.relay.decoding import Decoding
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.relay.source import Listed
from headgate.gateway.wire.outline import outline
from hypothesis import given
from hypothesis import strategies as st

from .answers import IDS, JSON, Answer, answers
from .common import ANTHROPIC, CODECS, CONTEXT, OPENAI, PLACES, RESPONSES, SPOKEN, cut, law, streamed


class Idle:
    """A stage that looks and does nothing."""

    def feed(self, chunk: Chunk, /) -> Chunk:
        assert chunk.events is not None
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        pass


class Client:
    """Takes what goes to a client's socket."""

    def __init__(self, encoder: StreamEncoder) -> None:
        self.encoder = encoder
        self.received: list[bytes] = []

    def push(self, chunk: Chunk, /) -> None:
        self.received.append(self.encoder.encode(chunk))

    def end(self, error: GatewayError | None, /) -> None:
        self.received.append(self.encoder.close(error))


async def _relay(format: str, pieces: Sequence[bytes], hide_usage: bool) -> bytes:
    clock = Clock()
    scope = Scope(clock)
    decoder = CODECS[format].stream_decoder(hide_usage=hide_usage)
    reply = Reply(Decoding(Listed(pieces), decoder, scope), scope).through(Idle()).through(Idle())
    client = Client(CODECS[format].stream_encoder(CONTEXT))
    reply.connect(client)
    scope.close()
    clock.close()
    return b"".join(client.received)


def relayed(format: str, pieces: Sequence[bytes], *, hide_usage: bool = False) -> bytes:
    """Return what a client receives when these pieces come from a provider of the same format."""
    return asyncio.run(_relay(format, pieces, hide_usage))


NOISE = {
    OPENAI: [
        b": keep-alive\n\n",
        b":\n\n",
        b"retry: 10\n\n",
        b'data: {"object":"chat.completion.chunk","choices":[],"x_news":1.0}\n\n',
        b'data: {"x_unheard_of" : [1.50, {"model":"no"}]}\n\n',
    ],
    ANTHROPIC: [
        b": hello\n\n",
        b"id: 7\nretry: 10\n\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b'event: x_future\ndata: {"type": "x_future",  "v": 1.0}\n\n',
    ],
    RESPONSES: [
        b": hello\n\n",
        b"retry: 10\n\n",
        b'event: keepalive\ndata: {"type": "keepalive"}\n\n',
        b'event: response.x_future\ndata: {"type": "response.x_future",  "v": 1.0, "sequence_number":0}\n\n',
    ],
}
ODDITIES = [
    (b'"index":0', b'"x_unknown" : [1.50, {}],"index":0'),
    (b'{"', b'{ "'),
    (b'":', b'" : '),
    (b"}\n", b"}   \n"),
    (b"data: ", b"data:"),
]


@st.composite
def wires(draw: st.DrawFn, format: str) -> bytes:
    """Streams of a provider that spells things its own way: noise between frames, unknown members, blanks, CRLF."""
    answer: Answer = draw(answers(format))
    wire, _ = streamed(format, answer.events, answer.sizes)
    frames = [frame + b"\n\n" for frame in wire.split(b"\n\n")[:-1]]
    for old, new in draw(st.lists(st.sampled_from(ODDITIES), unique=True, max_size=3)):
        # Not inside texts: what looks like JSON there is escaped, but arguments and words may hold anything.
        frames = [frame.replace(old, new) if b"delta" not in frame or old == b"data: " else frame for frame in frames]
    for noise in draw(st.lists(st.sampled_from(NOISE[format]), max_size=3)):
        frames.insert(draw(st.integers(1, len(frames) - 1)), noise)
    return b"".join(frames).replace(b"\n", draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])))


@pytest.mark.parametrize("format", SPOKEN)
@law
@given(st.data())
def test_a_stream_that_nobody_changed_goes_out_as_it_came(format: str, data: st.DataObject) -> None:
    wire = data.draw(wires(format))
    assert relayed(format, cut(wire, data.draw(PLACES))) == wire


@law
@given(st.data())
def test_usage_that_only_we_asked_for_is_all_that_is_missing(data: st.DataObject) -> None:
    wire = data.draw(wires(OPENAI))
    end = b"\r\n\r\n" if b"\r\n" in wire else b"\r\r" if b"\r" in wire else b"\n\n"
    frames = [frame + end for frame in wire.split(end)[:-1]]
    kept = [frame for frame in frames if not _is_usage(frame)]
    assert len(frames) - len(kept) <= 1
    assert relayed(OPENAI, cut(wire, data.draw(PLACES)), hide_usage=True) == b"".join(kept)


def _is_usage(frame: bytes) -> bool:
    payload = frame.strip().removeprefix(b"data:").strip()
    return payload.startswith(b"{") and json.loads(payload).get("usage") is not None


@pytest.mark.parametrize("format", SPOKEN)
@law
@given(st.data())
def test_a_whole_answer_that_nobody_changed_is_read_without_being_changed(format: str, data: st.DataObject) -> None:
    answer: Answer = data.draw(answers(format))
    codec = CODECS[format]
    body = codec.encode_response(answer.events, CONTEXT).body
    spelled = json.dumps(json.loads(body, parse_float=str), indent=data.draw(st.sampled_from([None, 1]))).encode()
    chunk = Chunk(None, spelled, codec.whole, codec.decode_response, codec.read_usage, outline(spelled).usage)
    assert chunk.usage is not None or b'"usage": {' not in spelled
    assert chunk.events
    assert chunk.raw == spelled


# -- requests

BLANKS = st.sampled_from(["", " ", "\t", "\r\n  "])
NAMES = st.one_of(
    IDS, st.sampled_from(["x_model", "Model", "models", "a\\u0062", "\u00e9", "model\\n", "stream_optionz"])
)


@st.composite
def bodies(draw: st.DrawFn, *, stream: bool) -> tuple[bytes, bytes]:
    """A request body in somebody's own spelling, and the same with ``NEW`` in place of the value of ``model``."""
    members: dict[str, tuple[str, str]] = {}
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        value = json.dumps({"model": draw(IDS), "": draw(JSON)}, ensure_ascii=draw(st.booleans()))
        members[name] = (value, value)
    old = '"' + draw(st.sampled_from(["gpt", "m\\u006f/1", "\u00fc", 'a\\"b', ""])) + '"'
    members["model"] = (old, '"NEW"')
    members["messages"] = ('[ {"role" :"user","content":"\\"model\\":\\"x\\"" } ]',) * 2
    if stream:
        members["stream"] = ("true", "true")
    names = draw(st.permutations(sorted(members)))
    before = after = "{"
    for position, name in enumerate(names):
        blanks = [draw(BLANKS) for _ in range(4)]
        head = f'{"," if position else ""}{blanks[0]}"{name}"{blanks[1]}:{blanks[2]}'
        before += head + members[name][0] + blanks[3]
        after += head + members[name][1] + blanks[3]
    end = draw(BLANKS)
    return (before + "}" + end).encode(), (after + "}" + end).encode()


@pytest.mark.parametrize("format", SPOKEN)
@law
@given(st.data())
def test_a_new_model_name_changes_that_value_alone(format: str, data: st.DataObject) -> None:
    codec, (before, after) = CODECS[format], data.draw(bodies(stream=False))
    peek = codec.peek(before, RequestFacts())
    assert codec.patch_request(before, peek, model="NEW", stream_usage=True) == after
    assert codec.patch_request(before, peek, model=None, stream_usage=True) is before
    assert codec.patch_request(before, peek, model=peek.model, stream_usage=False) is before


@law
@given(st.data())
def test_asking_for_usage_adds_one_member_at_the_end(data: st.DataObject) -> None:
    codec, (before, after) = CODECS[OPENAI], data.draw(bodies(stream=True))
    asked = codec.patch_request(before, codec.peek(before, RequestFacts()), model="NEW", stream_usage=True)
    end = after.rindex(b"}")
    assert asked == after[:end] + b',"stream_options":{"include_usage":true}' + after[end:]
    again = codec.patch_request(asked, codec.peek(asked, RequestFacts()), model="NEW", stream_usage=True)
    assert again == asked
