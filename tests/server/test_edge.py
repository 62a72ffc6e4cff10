"""A stream on its way to one client: the commit, silence, slow and stopped readers, clients that leave, deadlines."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from headgate.gateway.relay.scope import TICK_S

from ..fakes.provider import FakeProvider
from ..fakes.script import Say, script
from .house import CHAT, MESSAGES, House, body_of, head_of, serving, until, wire

RULES = """
server: {{keep_alive: {keep_alive}}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, timeout: {{{timeout}}}}}
chains: {{seen: [{chain}]}}
routes: [{{name: all, chain: seen, to: openai}}]
"""
PING = b": ping\n\n"
both = pytest.mark.parametrize("cancels", [True, False], ids=["cancelling host", "host that does not cancel"])


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    """The lines of the log middleware, as they come."""
    found: list[dict[str, Any]] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(record.getMessage()))

    catch = Catch()
    logger = logging.getLogger("headgate.access")
    logger.addHandler(catch)
    yield found
    logger.removeHandler(catch)


@asynccontextmanager
async def edge(
    directory: Path,
    provider: FakeProvider,
    *,
    keep_alive: str = "15s",
    timeout: str = "total: 20s",
    chain: str = "log",
    host: web.Application | None = None,
    cancels: bool = True,
) -> AsyncIterator[House]:
    """The gateway, its clock running faster than in earnest so that tests need not wait."""
    text = RULES.format(base=provider.base, keep_alive=keep_alive, timeout=timeout, chain=chain)
    async with serving(directory, text, host=host, cancels=cancels) as house:
        house.gateway.clock.tick_s = 0.02
        yield house


def request(house: House, path: str = CHAT, version: str = "1.1", **headers: str) -> bytes:
    # The log asks for usage: a caller who does too gets the provider's bytes unchanged.
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if path == CHAT else {}
    body = body_of(stream=True, **more)
    return head_of(house, len(body), headers, path=path, version=version) + body


def errors_in(answer: bytes) -> list[dict[str, Any]]:
    """The errors that stand in a stream."""
    found = []
    for line in answer.splitlines():
        if line.startswith(b"data: {"):
            data = json.loads(line[6:])
            if "error" in data:
                found.append(data["error"])
    return found


# --- silence


async def test_comments_fill_the_silence_after_the_first_words(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("One two three", stall_after=3))
    async with edge(tmp_path, provider, keep_alive="50ms") as house, wire(house) as client:
        client.send(request(house))
        status, _ = await client.head()
        assert status == 200
        said = [await client.piece() for _ in range(8)]
        assert said[-4:] == [PING] * 4
        assert PING not in said[0]
        client.leave()


async def test_comments_in_the_first_silence_commit_the_headers(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("Late.", wait_s=0.3))
    async with edge(tmp_path, provider, keep_alive="50ms") as house, wire(house) as client:
        client.send(request(house))
        status, headers = await client.head()
        assert provider.last.outcome == "running"
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert headers["cache-control"] == "no-cache"
        answer = await client.pieces()
        assert answer.startswith(PING * 2)
        assert answer.replace(PING, b"") == provider.last.body


async def test_no_comments_while_words_flow(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("word " * 40, piece=200, pause_s=0.01))
    async with edge(tmp_path, provider, keep_alive="500ms") as house, wire(house) as client:
        client.send(request(house))
        await client.head()
        assert await client.pieces() == provider.last.body


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_failure_after_that_commit_is_written_in_band(
    tmp_path: Path, provider: FakeProvider, path: str, lines: list[dict[str, Any]]
) -> None:
    provider.answer(script(status=503, wait_s=0.2))
    async with edge(tmp_path, provider, keep_alive="50ms", chain="log, {retry: {tries: 3, backoff: 1ms}}") as house:
        async with wire(house) as client:
            client.send(request(house, path))
            assert (await client.head())[0] == 200
            answer = await client.pieces()
        assert len(provider.requests) == 1, "tried again after the commit"
        (error,) = errors_in(answer)
        assert error["message"]
        assert b"[DONE]" not in answer
        assert b"message_stop" not in answer
        assert (b"event: error" in answer) is (path == MESSAGES)
        await until(lambda: lines)
    assert (lines[0]["outcome"], lines[0]["stream"]) == ("overloaded", True)


async def test_without_silence_the_retry_runs(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script(status=503), script("Second."))
    async with edge(tmp_path, provider, chain="{retry: {tries: 3, backoff: 1ms}}") as house, wire(house) as client:
        client.send(request(house))
        assert (await client.head())[0] == 200
        assert await client.pieces() == provider.last.body
    assert len(provider.requests) == 2


async def test_no_retry_waits_for_longer_than_silence_lasts(tmp_path: Path, provider: FakeProvider) -> None:
    """A keep-alive in the middle of a back-off would commit: the caller hears of the failure at once, as an error of HTTP."""
    provider.answer(script(status=429, headers={"retry-after-ms": "900"}))
    async with (
        edge(tmp_path, provider, keep_alive="600ms", chain="{retry: {tries: 3}}") as house,
        wire(house) as client,
    ):
        client.send(request(house))
        status, headers = await client.head()
        assert (status, headers["retry-after"]) == (429, "1")
    assert len(provider.requests) == 1


async def test_a_providers_ping_is_no_content(tmp_path: Path, provider: FakeProvider) -> None:
    """Pings before the first words do not commit what may be tried again."""
    pings = b": ping\n\n" * 3
    provider.answer(script(wire=pings + b'data: {"error": {"message": "busy", "code": 529}}\n\n'), script("Second."))
    async with edge(tmp_path, provider, chain="{retry: {tries: 2, backoff: 1ms}}") as house, wire(house) as client:
        client.send(request(house))
        assert (await client.head())[0] == 200
        assert await client.pieces() == provider.last.body
    assert len(provider.requests) == 2


async def test_a_host_that_is_slow_to_prepare(tmp_path: Path, provider: FakeProvider) -> None:
    """A signal of the host may await; whatever ends meanwhile, the client gets one well-formed answer."""

    async def slow(_: web.Request, response: web.StreamResponse) -> None:
        await asyncio.sleep(0.2)

    host = web.Application()
    host.on_response_prepare.append(slow)
    provider.answer(script(status=503, wait_s=0.15))
    async with edge(tmp_path, provider, keep_alive="60ms", host=host) as house, wire(house) as client:
        client.send(request(house))
        status, headers = await client.head()
        if status == 200:
            assert len(errors_in(await client.pieces())) == 1
        else:
            assert status == 503
            assert "error" in json.loads(await client.read(int(headers["content-length"])))


# --- deadlines


BEFORE = {
    "first_token: 100ms": ("timeout.first_token", {"stall_before": True}),
    "first_token: 120ms": ("timeout.first_token", {"stall_after": 0}),
    "total: 100ms": ("timeout.total", {"stall_before": True}),
    "total: 120ms": ("timeout.total", {"stall_after": 0}),
}


@pytest.mark.parametrize("timeout", BEFORE)
@pytest.mark.parametrize("held", [True, False], ids=["retrying", "plain"])
async def test_time_is_up_before_the_first_words(
    tmp_path: Path, provider: FakeProvider, timeout: str, held: bool, lines: list[dict[str, Any]]
) -> None:
    kind, play = BEFORE[timeout]
    provider.answer(script("x", **play))
    chain = "log, {retry: {tries: 2, backoff: 1ms}}" if held else "log"
    async with edge(tmp_path, provider, timeout=timeout, chain=chain) as house, wire(house) as client:
        client.send(request(house))
        status, headers = await client.head()
        if held or "stall_before" in play:
            assert status == 504
            error = json.loads(await client.read(int(headers["content-length"])))["error"]
        else:
            (error,) = errors_in(await client.pieces())
        assert error["code"] == kind
        await house.idle()
        await asyncio.wait_for(provider.last.over.wait(), 1)
    assert provider.last.outcome == "aborted"
    assert [line["outcome"] for line in lines] == [kind]


AFTER = {"idle: 100ms": "timeout.idle", "total: 200ms": "timeout.total"}


@pytest.mark.parametrize("timeout", AFTER)
async def test_time_is_up_after_the_first_words(
    tmp_path: Path, provider: FakeProvider, timeout: str, lines: list[dict[str, Any]]
) -> None:
    provider.answer(script("One two three", stall_after=3))
    async with edge(tmp_path, provider, timeout=timeout) as house, wire(house) as client:
        client.send(request(house))
        assert (await client.head())[0] == 200
        answer = await client.pieces()
        (error,) = errors_in(answer)
        assert error["code"] == AFTER[timeout]
        assert b"[DONE]" not in answer
        await house.idle()
        await asyncio.wait_for(provider.last.over.wait(), 1)
    assert provider.last.outcome == "aborted"
    assert [line["outcome"] for line in lines] == [AFTER[timeout]]


async def test_time_is_up_for_a_whole_answer(
    tmp_path: Path, provider: FakeProvider, lines: list[dict[str, Any]]
) -> None:
    provider.answer(script("x", stall_before=True), script("x", stall_after=1))
    async with edge(tmp_path, provider, timeout="total: 100ms") as house, wire(house) as client:
        for _ in range(2):
            body = body_of()
            client.send(head_of(house, len(body)) + body)
            status, headers = await client.head()
            assert status == 504
            error = json.loads(await client.read(int(headers["content-length"])))["error"]
            assert error["code"] == "timeout.total"
    assert [(line["outcome"], line["status"]) for line in lines] == [("timeout.total", 504)] * 2
    assert [line["attempts"][0]["error"] for line in lines] == ["timeout.total"] * 2


async def test_the_chain_hears_of_the_deadline_before_the_call_is_ended(
    tmp_path: Path, provider: FakeProvider, lines: list[dict[str, Any]]
) -> None:
    """Both look at the same clock: what stands in the chain has a whole tick to make the best of it."""
    async with edge(tmp_path, provider, timeout="total: 120ms", chain="log, continue") as house:
        house.gateway.clock.tick_s = TICK_S
        for stream in (False, True):
            provider.answer(script("one two three", stop="length"), script("x", stall_before=True))
            sent = aiohttp.request("POST", house.base + CHAT, data=body_of(stream=stream))
            async with sent as response:
                answer = await response.text()
            assert '"finish_reason":"length"' in answer.replace(" ", "") and "error" not in answer
    assert [line["outcome"] for line in lines] == ["ok"] * 2
    assert [line["attempts"][1]["error"] for line in lines] == ["timeout.total"] * 2


async def test_a_middleware_that_hangs_is_ended_at_the_deadline(
    tmp_path: Path, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging_middleware.py").write_text(
        "import asyncio, msgspec\n"
        "class Hang:\n"
        "    class Options(msgspec.Struct):\n        pass\n"
        "    def __init__(self, options): pass\n"
        "    async def __call__(self, call, call_next, /):\n"
        "        await asyncio.Event().wait()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    chain = "{use: 'hanging_middleware:Hang'}"
    async with edge(tmp_path, provider, timeout="total: 100ms", chain=chain) as house, wire(house) as client:
        for stream in (False, True):
            body = body_of(stream=stream)
            client.send(head_of(house, len(body)) + body)
            status, headers = await client.head()
            assert status == 504
            error = json.loads(await client.read(int(headers["content-length"])))["error"]
            assert error["code"] == "timeout.total"
        await house.idle()


# --- slow readers

BIG = Say("x" * 20_000_000, pieces=2000)


async def test_a_slow_client_stops_the_provider(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script(BIG))
    async with edge(tmp_path, provider, keep_alive="50ms") as house, wire(house, receive_buffer=65536) as client:
        client.send(request(house))
        assert (await client.head())[0] == 200
        # Wait until everything between stands still.
        last = -1
        while last != (sent := len(provider.last.sent)):
            last = sent
            await asyncio.sleep(0.1)
        assert sent < 2000, "the provider sent it all to nobody"
        assert house.runner.server is not None
        fronts = getattr(house.runner.server, "fronts", ())
        connections = (*house.runner.server.connections, *fronts)
        transports = [each.transport for each in connections if each.transport is not None]
        assert max(transport.get_write_buffer_size() for transport in transports) < 512 * 1024
        # It reads on: everything comes, in order, with no comment in the middle of a frame.
        assert (await client.pieces()).replace(PING, b"") == provider.last.body
    assert provider.last.outcome == "done"


async def test_a_client_that_stops_reading_is_closed_at_the_deadline(
    tmp_path: Path, provider: FakeProvider, lines: list[dict[str, Any]]
) -> None:
    provider.answer(script(BIG))
    async with edge(tmp_path, provider, timeout="total: 500ms") as house, wire(house, receive_buffer=4096) as client:
        client.send(request(house))
        assert (await client.head())[0] == 200
        await until(lambda: house.gateway.in_flight == 1)
        await house.idle(3)
        await asyncio.wait_for(provider.last.over.wait(), 1)
        assert house.runner.server is not None
        await until(lambda: not house.runner.server.connections, 1)  # type: ignore[union-attr]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.pieces()
    assert provider.last.outcome == "aborted"
    assert [line["outcome"] for line in lines] == ["timeout.total"]


async def test_a_client_that_never_takes_the_end(tmp_path: Path, provider: FakeProvider) -> None:
    """The provider is done long since; what waits for the client is dropped when the call's time is up."""
    provider.answer(script("x" * 4_000_000, piece=0))
    async with edge(tmp_path, provider, timeout="total: 1s") as house, wire(house, receive_buffer=4096) as client:
        client.send(request(house))
        await client.head()
        await asyncio.sleep(0.3)
        assert house.gateway.in_flight == 1
        await house.idle(3)


# --- clients that leave


PHASES: dict[str, dict[str, Any]] = {
    "before headers": {"stall_before": True},
    "before a frame": {"stall_after": 0},
    "in the middle": {"stall_after": 3},
    "while it talks": {"pause_s": 0.01, "piece": 64},
}


@both
@pytest.mark.parametrize("silent", [True, False], ids=["kept alive", "silent"])
@pytest.mark.parametrize("retries", [True, False], ids=["retrying", "plain"])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_that_leaves(
    tmp_path: Path,
    provider: FakeProvider,
    cancels: bool,
    silent: bool,
    retries: bool,
    phase: str,
    lines: list[dict[str, Any]],
) -> None:
    provider.answer(script("word " * 300, **PHASES[phase]))
    chain = "log, {retry: {tries: 3, backoff: 1ms}}" if retries else "log"
    keep_alive = "15s" if silent else "30ms"
    async with (
        edge(tmp_path, provider, chain=chain, cancels=cancels, keep_alive=keep_alive) as house,
        wire(house) as client,
    ):
        client.send(request(house))
        received = await provider.received(1)
        await asyncio.sleep(0.1)
        assert received.outcome == "running"
        client.leave()
        left_at = time.monotonic()
        await asyncio.wait_for(received.over.wait(), 2)
        assert time.monotonic() - left_at < 1
        await house.idle()
    assert received.outcome == "aborted"
    assert len(provider.requests) == 1
    assert [line["outcome"] for line in lines] == ["cancelled"], "a call is one line, however it ended"
    assert lines[0]["status"] == 499


@both
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_that_leaves_just_before_the_answer(
    tmp_path: Path, provider: FakeProvider, cancels: bool, stream: bool, lines: list[dict[str, Any]]
) -> None:
    """Nobody was there to look: the answer comes before the next tick of the clock. That is no fault of ours."""
    provider.answer(script("Hello", wait_s=0.1))
    async with edge(tmp_path, provider, cancels=cancels) as house:
        house.gateway.clock.tick_s = 5.0
        async with wire(house) as client:
            body = body_of(stream=stream)
            client.send(head_of(house, len(body)) + body)
            await provider.received(1)
            await asyncio.sleep(0.03)
            client.leave()
            await house.idle()
    assert len(lines) == 1
    assert lines[0]["outcome"] in ("ok", "cancelled")


async def test_a_gateway_that_closes_ends_its_streams(tmp_path: Path, provider: FakeProvider) -> None:
    """Whoever mounted it may close it while calls run: they end, not cleanly, and nobody waits for ever."""
    provider.answer(script("One two three", stall_after=3))
    async with edge(tmp_path, provider, host=web.Application(), cancels=False) as house, wire(house) as client:
        client.send(request(house))
        assert (await client.head())[0] == 200
        await client.piece()
        await house.gateway.aclose()
        try:
            answer = await asyncio.wait_for(client.pieces(), 2)
        except TimeoutError:
            pytest.fail("the client was left hanging")
        except (ConnectionError, asyncio.IncompleteReadError):
            answer = b""
        assert b"[DONE]" not in answer


# --- other clients


@pytest.mark.parametrize("headers", [{}, {"connection": "keep-alive"}, {"connection": "close"}])
async def test_http_1_0(tmp_path: Path, provider: FakeProvider, headers: dict[str, str]) -> None:
    """Such a client knows the end by the end of the connection alone."""
    provider.answer(script("One two three"))
    async with edge(tmp_path, provider) as house, wire(house) as client:
        client.send(request(house, version="1.0", **headers))
        status, given = await client.head()
        assert status == 200
        assert "transfer-encoding" not in given
        assert await client.rest(1) == provider.last.body


async def test_http_1_0_in_a_silence(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("One", wait_s=0.2))
    async with edge(tmp_path, provider, keep_alive="50ms") as house, wire(house) as client:
        client.send(request(house, version="1.0"))
        await client.head()
        answer = await client.rest(1)
        assert answer.startswith(PING)
        assert answer.replace(PING, b"") == provider.last.body


async def test_a_compressing_host(tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    """Middlewares of the field: they compress what is not yet prepared, and leave alone what is."""

    @web.middleware
    async def compress(request: web.Request, handler: Any) -> web.StreamResponse:
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.enable_compression()
        return response

    host = web.Application(middlewares=[compress])
    provider.answer(script("word " * 100), script("word " * 100))
    async with edge(tmp_path, provider, host=host) as house, aiohttp.ClientSession() as client:
        headers = {"Content-Type": "application/json"}
        whole, streamed = body_of(), body_of(stream=True, stream_options={"include_usage": True})
        for stream in (True, False):
            response = await client.post(house.base + CHAT, data=whole if not stream else streamed, headers=headers)
            assert await response.read() == provider.last.body


async def test_a_host_that_encodes_streams(tmp_path: Path, provider: FakeProvider) -> None:
    """A signal that names another coding takes over the body: we write through aiohttp then."""

    async def identity(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Content-Encoding"] = "identity"

    host = web.Application()
    host.on_response_prepare.append(identity)
    provider.answer(script("word " * 100, pause_s=0.01))
    async with edge(tmp_path, provider, host=host, keep_alive="30ms") as house, wire(house) as client:
        client.send(request(house))
        assert (await client.head())[1]["content-encoding"] == "identity"
        assert (await client.pieces()).replace(PING, b"") == provider.last.body


async def test_two_streams_on_one_connection(tmp_path: Path, provider: FakeProvider) -> None:
    provider.answer(script("First."), script("Second.", error_after=2), script("Third."))
    async with edge(tmp_path, provider) as house, wire(house) as client:
        for number in range(3):
            client.send(request(house))
            assert (await client.head())[0] == 200
            assert await client.pieces() == provider.requests[number].body
