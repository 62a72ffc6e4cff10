"""Law 9, bounded: every buffer has a cap, and at the cap it does what it should."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from headgate import Gateway
from headgate.adapters import http
from headgate.adapters.openai import OpenAIAdapter
from headgate.gateway.chain import AdapterContext
from headgate.gateway.codecs.anthropic_messages import encoder, stream
from headgate.gateway.codecs.ledger import MAX_LOSSES
from headgate.gateway.codecs.openai_chat.stream_decoder import ChatStreamDecoder
from headgate.gateway.errors import GatewayError, Malformed
from headgate.gateway.ir.event import Chunk, Keepalive, PartDelta, PartStart, ResponseStart
from headgate.gateway.ir.fold import MAX_CHOICES, fold
from headgate.gateway.ir.loss import Ledger, Loss
from headgate.gateway.ir.message import Opaque, Text, ToolCall
from headgate.gateway.relay import pull
from headgate.gateway.relay.reply import HOLD_BYTES, Reply
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.relay.source import Listed
from headgate.gateway.wire.sse import FrameTooLarge, SseFramer
from headgate.middlewares import log as log_module
from msgspec.structs import replace

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .common import ANTHROPIC, CODECS, CONTEXT, FORMATS, OPENAI, PAIRS
from .sockets import Client, ask, call, world

# -- frames


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_a_frame_at_the_cap(piece: int) -> None:
    # The line end that begins the blank line counts with the frame when it comes first, alone.
    framer, fits = SseFramer(100), b"x" * 99
    raw = b"".join(framer.feed(byte)[0] for byte in _pieces(fits + b"\n\n", min(piece, 100)))
    assert raw == fits + b"\n\n"
    with pytest.raises(FrameTooLarge):
        _ = [framer.feed(part) for part in _pieces(b"x" * 101, piece)]


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_a_stream_at_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_FRAME_BYTES", 1000)
    for decoder in (ChatStreamDecoder(max_frame_bytes=1000), stream.MessagesStreamDecoder()):
        for _ in range(1001):
            assert decoder.error is None
            decoder.feed(b":")
        assert isinstance(decoder.error, Malformed)


def test_a_block_that_is_kept_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no words of its own waits for its end, no further than the cap."""
    monkeypatch.setattr(stream, "MAX_FRAME_BYTES", 10_000)
    decoder = stream.MessagesStreamDecoder()
    decoder.feed(b'data: {"type":"content_block_start","index":0,"content_block":{"type":"future"}}\n\n')
    delta = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"x","text":"' + b"x" * 900 + b'"}}\n\n'
    for _ in range(9):
        decoder.feed(delta)
        assert decoder.error is None
    decoder.feed(delta)
    decoder.feed(delta)
    assert isinstance(decoder.error, Malformed)


def test_parts_side_by_side_wait_no_further_than_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "MAX_HELD_BYTES", 1000)
    writer = encoder.MessagesStreamEncoder(CONTEXT)
    writer.encode(Chunk((PartStart(0, ToolCall("a", "a")), PartStart(1, ToolCall("b", "b")))))
    writer.encode(Chunk((PartDelta(1, "x" * 900),)))
    with pytest.raises(Malformed):
        writer.encode(Chunk((PartDelta(1, "x" * 100),)))


def test_choices_that_nobody_has() -> None:
    assert len(fold([PartStart(0, Text("x"), MAX_CHOICES - 1)]).choices) == MAX_CHOICES
    assert len(fold([PartStart(0, Text("x"), 10**9)]).choices) == 1


# -- ledgers


def test_a_ledger_at_the_cap() -> None:
    ledger = Ledger()
    ledger.add_request(Loss("lost", f"messages[{i}]", "x", "y") for i in range(250))
    ledger.add_request([Loss("lost", "messages[0]", "x", "y")])
    assert len(ledger.request) == ledger.cap == 100
    assert ledger.dropped == 150


@pytest.mark.parametrize("format", FORMATS)
def test_the_losses_of_an_answer(format: str) -> None:
    """A provider may think up as many names as it likes."""
    writer = CODECS[format].stream_encoder(CONTEXT)
    writer.encode(Chunk((ResponseStart("id", "m", format="elsewhere"),)))
    for index in range(1000):
        writer.encode(Chunk((PartStart(index, Opaque("elsewhere", f"kind-{index % 300}", b"{}")),)))
    assert len(writer.losses) == MAX_LOSSES


async def test_the_loss_header(provider: FakeProvider, tmp_path: Path) -> None:
    content = [{"type": "image_url", "image_url": {"url": "https://a.example/", "detail": "low"}}] * 300
    async with world(tmp_path) as (_, served):
        body = ask(OPENAI, ANTHROPIC, stream=False, messages=[{"role": "user", "content": content}])
        answer = await call(served, OPENAI, body)
        assert answer.status == 200
        assert 0 < len(answer.headers["headgate-loss"]) <= 1000


# -- what is held back


async def _opened(chunks: list[Chunk]) -> tuple[Reply, Listed[Chunk], Scope]:
    scope = Scope(Clock())
    source = Listed(chunks)
    return await Reply(source, scope).opened(), source, scope


async def test_what_opened_holds_back() -> None:
    """Without content, an answer counts as opened once the cap is reached; the source is paused then."""
    ping = Chunk((Keepalive(),), b": " + b"x" * 1022)
    chunks = [ping] * (4 * HOLD_BYTES // len(ping.raw or b""))
    reply, source, scope = await _opened(chunks)
    held = len(chunks) - len(source._items)
    assert HOLD_BYTES // ping.size <= held <= HOLD_BYTES // ping.size + 2
    assert len(await reply.collect()) == len(chunks)
    scope.close()
    scope.clock.close()


async def test_what_collect_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "COLLECT_BYTES", 10_000)
    chunk = Chunk((Keepalive(),), b"x" * 936)
    scope = Scope(Clock())
    assert len(await Reply(Listed([chunk] * 10), scope).collect()) == 10
    with pytest.raises(Malformed):
        await Reply(Listed([chunk] * 11), scope).collect()
    scope.close()
    scope.clock.close()


# -- requests and answers


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("caller", "to"), PAIRS)
async def test_a_request_at_the_limit(tmp_path: Path, caller: str, to: str, packed: bool) -> None:
    limit = 4096
    headers = {"content-encoding": "gzip"} if packed else {}
    pack: Callable[[bytes], bytes] = gzip.compress if packed else bytes
    async with world(tmp_path, max_body=f"{limit}B") as (provider, served):
        body = ask(caller, to, stream=False)
        fits = body + b" " * (limit - len(body))
        assert (await call(served, caller, pack(fits), headers)).status == 200
        answer = await call(served, caller, pack(fits + b" "), headers)
        assert answer.status == 413
        assert json.loads(answer.body)["error"]["message"]
        assert len(provider.requests) == 1


class SmallOpenAI(OpenAIAdapter):
    """Takes answers of a thousand bytes."""

    def __init__(self, options: Any, context: AdapterContext) -> None:
        super().__init__(options, replace(context, max_answer_bytes=1000))


async def test_an_answer_at_the_limit(provider: FakeProvider, tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text(
        f'version: 1\nupstreams: {{up: {{adapter: "{__name__}:SmallOpenAI", base_url: "{provider.base}/v1",'
        " key: env:TEST_PROVIDER_KEY}}\nroutes: [{name: all, to: up}]\n"
    )
    start = b'{"choices": []'
    for size in (1000, 1001):
        provider.answer(script(wire=start + b" " * (size - len(start) - 1) + b"}"))
    async with Gateway.load(path) as gateway:
        body = ask(OPENAI, OPENAI, stream=False)
        chunks = await (await gateway.handle(OPENAI, body)).collect()
        assert len(chunks[0].raw or b"") == 1000
        with pytest.raises(GatewayError) as caught:
            await gateway.handle(OPENAI, body)
        assert caught.value.kind in ("malformed", "too_large", "upstream_error")


@pytest.mark.parametrize(("caller", "to"), PAIRS)
async def test_an_error_body_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caller: str, to: str
) -> None:
    monkeypatch.setattr(http, "MAX_ERROR_BYTES", 1000)
    start = b'{"type": "error", "error": {"type": "api_error", "message": "Broken glass"}'
    plays = [script(status=500, wire=start + b" " * (size - len(start) - 1) + b"}") for size in (1000, 1001)]
    async with world(tmp_path, *plays) as (_, served):
        read, unread = [await call(served, caller, ask(caller, to, stream=False)) for _ in plays]
    assert b"Broken glass" in read.body
    assert b"Broken glass" not in unread.body
    assert unread.status == read.status
    assert json.loads(unread.body)["error"]["message"]


async def test_headers_that_an_adapter_remembers(
    provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which headers may pass is remembered by their names; callers choose the names."""
    monkeypatch.setattr("headgate.gateway.wire.sifting._MOST", 20)
    path = tmp_path / "routes.yaml"
    path.write_text(
        f'version: 1\nupstreams: {{up: {{adapter: "{__name__}:Watched", base_url: "{provider.base}/v1",'
        " key: env:TEST_PROVIDER_KEY}}\nroutes: [{name: all, to: up}]\n"
    )
    Watched.made.clear()
    async with Gateway.load(path) as gateway:
        for sent in range(30):
            few, many = {f"x-{sent}": "1"}, {f"x-{sent}-{number}": "1" for number in range(600)}
            for headers in (few, many):
                await (await gateway.handle(OPENAI, ask(OPENAI, OPENAI, stream=False), headers)).collect()
    (adapter,) = Watched.made
    assert 0 < len(adapter._passing) <= 20
    assert all(len(names) < 600 for names in adapter._passing)


class Watched(OpenAIAdapter):
    """Known to the test."""

    made: list[Watched] = []

    def __init__(self, options: Any, context: AdapterContext) -> None:
        super().__init__(options, context)
        self.made.append(self)


async def test_log_lines_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(log_module, "MAX_LINES", 5)
    monkeypatch.setattr(log_module, "FLUSH_S", 3600.0)
    caplog.set_level(logging.INFO, "headgate.access")
    path = tmp_path / "routes.yaml"
    path.write_text("version: 1\nupstreams: {up: {adapter: simulator}}\nroutes: [{name: all, chain: [log], to: up}]\n")
    async with Gateway.load(path) as gateway:
        for number in range(1, 8):
            await (await gateway.handle(OPENAI, ask(OPENAI, OPENAI, stream=False))).collect()
            await asyncio.sleep(0)
            assert len(caplog.records) == (0 if number < 5 else 5)
    assert len(caplog.records) == 7


# -- a reader that stops


def _memory() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("caller", "to"), PAIRS)
async def test_a_reader_that_stops(tmp_path: Path, caller: str, to: str) -> None:
    """The provider is paused, whatever the formats; when the caller reads on, all of it arrives."""
    frame = {
        OPENAI: b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n',
        ANTHROPIC: b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n',
    }[to] % (b"x" * 16_000)
    count = 2000
    head, tail = _around(to)
    wire = head + frame * count + tail
    async with world(tmp_path, script(wire=wire, piece=64 * 1024)) as (provider, served):
        client = await Client.connect(served)
        client.send(caller, ask(caller, to, stream=True), served)
        await client.reader.readuntil(b"xxxx")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads too
        received = provider.last
        await asyncio.sleep(0.3)
        sent, memory = len(received.sent), _memory()
        await asyncio.sleep(0.3)
        assert len(received.sent) == sent, "the provider is not paused"
        assert sent * 64 * 1024 < len(wire) / 2
        assert _memory() - memory < 1 << 20
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        answer = await client.reader.read()
        client.leave()
        assert received.outcome == "done"
        assert answer.count(b"x" * 16_000) >= count - 8  # those at the border of two HTTP chunks are in two pieces


def _around(to: str) -> tuple[bytes, bytes]:
    if to == OPENAI:
        end = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        return b"", end + b"data: [DONE]\n\n"
    start = (
        b'data: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m","content":[]}}\n\n'
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    )
    end = (
        b'data: {"type":"content_block_stop","index":0}\n\n'
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}\n\n'
        b'data: {"type":"message_stop"}\n\n'
    )
    return start, end
