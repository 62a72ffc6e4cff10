"""Which event loop a process takes, and that everything that touches a socket works on uvloop, in real processes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from headgate.gateway import rules
from headgate.gateway.server.loops import Loop, choose_loop, loop_factory

from ..fakes.provider import KEY, FakeProvider
from ..fakes.script import Say, script
from .house import CHAT, MESSAGES, begin, body_of, until
from .test_standalone import Process, address_of, certificate, free_port, serve

pytest.importorskip("uvloop")

# --- which


class Far:
    """An adapter of somebody's own, by WebSocket."""

    class Options(msgspec.Struct):
        """It has none."""

    base_url = "wss://far.example"

    def __init__(self, options: object, context: object) -> None:
        """Take no options."""

    async def __call__(self, call: object, /) -> Any:
        """Serve nothing."""


class Near(Far):
    """The same in the process."""

    base_url = ""


PLAIN: Final = "adapter: openai, key: env:TEST_PROVIDER_KEY, base_url: 'http://127.0.0.1:9/v1'"
TLS: Final = "adapter: openai, key: env:TEST_PROVIDER_KEY, base_url: 'https://127.0.0.1:9/v1'"
UPSTREAMS: Final = {
    "in process": ("adapter: simulator", "uvloop", "nothing is reached over TLS"),
    "plain": (PLAIN, "uvloop", "nothing is reached over TLS"),
    "plain by default": ("adapter: ollama", "uvloop", "nothing is reached over TLS"),
    "tls": (TLS, "asyncio", "the upstream it is reached over TLS"),
    "tls by default": ("adapter: openai, key: env:TEST_PROVIDER_KEY", "asyncio", "the upstream it is reached over TLS"),
    "tls to a proxy": (
        f"{PLAIN}, pool: {{proxy: 'https://127.0.0.1:9'}}",
        "asyncio",
        "the upstream it is reached over TLS",
    ),
    "tls by a proxy": (
        f"{TLS}, pool: {{proxy: 'http://127.0.0.1:9'}}",
        "asyncio",
        "the upstream it is reached over TLS",
    ),
    "unix socket": (f"{PLAIN}, pool: {{unix_socket: /nowhere}}", "uvloop", "nothing is reached over TLS"),
    "off": ("adapter: openai, key: 'env:TEST_NOT_SET?'", "uvloop", "nothing is reached over TLS"),
    "own, far": (f"adapter: '{__name__}:Far'", "asyncio", "the upstream it is reached over TLS"),
    "own, near": (f"adapter: '{__name__}:Near'", "uvloop", "nothing is reached over TLS"),
}


def plan_of(upstream: str, server: str = "") -> rules.Plan:
    text = f"version: 1\nserver: {{{server}}}\nupstreams:\n  sim: {{adapter: simulator}}\n  it: {{{upstream}}}\n"
    return rules.loads(text + "routes: [{name: it, match: {model: x}, to: it}, {name: sim, to: sim}]\n")


@pytest.mark.parametrize("case", UPSTREAMS)
async def test_upstreams_decide(case: str) -> None:
    upstream, name, why = UPSTREAMS[case]
    plan = plan_of(upstream)
    assert choose_loop(plan) == Loop(name, why)
    await plan.aclose()


async def test_the_server_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path)
    listener = f"tls: {{cert: {cert}, key: {key}}}"
    assert choose_loop(plan_of(PLAIN, listener)) == Loop("asyncio", "server.tls is given")
    assert choose_loop(plan_of(TLS, f"loop: uvloop, {listener}")) == Loop("uvloop", "server.loop: uvloop")
    assert choose_loop(plan_of(PLAIN, "loop: asyncio")) == Loop("asyncio", "server.loop: asyncio")
    assert choose_loop(plan_of(PLAIN, "loop: auto")).name == "uvloop"
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert choose_loop(plan_of(PLAIN)) == Loop("asyncio", "uvloop is not installed")
    with pytest.raises(rules.RulesError, match="E066"):
        plan_of(PLAIN, "loop: uvloop")


def test_each_kind_is_made() -> None:
    assert loop_factory(Loop("asyncio", "")) is None
    make = loop_factory(Loop("uvloop", ""))
    assert make is not None
    loop = make()
    assert type(loop).__module__ == "uvloop"
    loop.close()


# --- processes

WHERE = """
import asyncio, os, sys, msgspec
class Where:
    class Options(msgspec.Struct):
        pass
    def __init__(self, options): pass
    async def __call__(self, call, call_next, /):
        reply = await call_next(call)
        kind = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        reply.headers = {**reply.headers, "openai-loop": f"{kind} {os.getpid()} {'uvloop' in sys.modules}"}
        return reply
"""
SIM: Final = (
    "upstreams: {sim: {adapter: simulator}}\nroutes: [{name: all, chain: [{use: 'where_am_i:Where'}], to: sim}]\n"
)


def serve_rules(
    directory: Path, text: str, server: str = "", **how: Any
) -> contextlib.AbstractAsyncContextManager[Process]:
    (directory / "where_am_i.py").write_text(WHERE)
    return serve(directory, f"version: 1\nserver: {{drain: 5s{server}}}\n{text}", **how)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the middleware is found that says what it runs on."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


async def whereabouts(http: aiohttp.ClientSession, base: str, **how: Any) -> list[str]:
    async with http.post(base + CHAT, json=json.loads(body_of()), **how) as response:
        assert (await response.json())["choices"][0]["message"]["content"] == "You said: Hello"
        return response.headers["openai-loop"].split()


async def test_a_process_that_is_told_to_leaves_uvloop_alone(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serve_rules(tmp_path, SIM, ", loop: asyncio") as running:
        kind, _, loaded = await whereabouts(http, await address_of(running))
        assert (kind, loaded) == ("asyncio", "False")
        assert "the event loop is asyncio (server.loop: asyncio)" in running.said


async def test_a_process_that_lacks_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvloop'] = None\n")
    async with serve_rules(tmp_path, SIM, ", loop: uvloop") as running:
        assert await running.code() == 1
    assert re.search(r"routes.yaml:2:\d+.*E066", running.said)
    assert 'pip install "headgate[uvloop]"' in running.said
    async with serve_rules(tmp_path, SIM) as running:
        await running.says(r"the event loop is asyncio \(uvloop is not installed\)")


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
async def test_signals(tmp_path: Path, http: aiohttp.ClientSession, loop: str) -> None:
    """A reload that would choose another loop is one like any other; a drain lets a stream end."""
    kind, why = ("uvloop", "nothing is reached over TLS") if loop == "auto" else (loop, "server.loop: asyncio")
    async with serve_rules(tmp_path, SIM, f", loop: {loop}") as running:
        base = await address_of(running)
        assert (await whereabouts(http, base))[0] == kind
        assert f"the event loop is {kind} ({why})" in running.said
        path = tmp_path / "routes.yaml"
        path.write_text(path.read_text().replace("upstreams: {", f"upstreams: {{far: {{{TLS}}}, "))
        running.send(signal.SIGHUP)
        await running.says("rules reloaded")
        said = "the event loop stays uvloop, a restart would choose asyncio (the upstream far is reached over TLS)"
        assert (said in running.said) is (loop == "auto")
        assert (await whereabouts(http, base))[0] == kind
        text = "/sim delay 50ms\none two three four five six seven"
        stream = await http.post(base + CHAT, json=json.loads(body_of(text, stream=True)))
        assert await stream.content.readany()
        running.send(signal.SIGTERM)
        await running.says("draining: 1 calls")
        rest = await stream.read()
        assert b"seven" in rest and rest.endswith(b"data: [DONE]\n\n")
        assert await running.code() == 0
    assert "Traceback" not in running.said


async def test_workers(tmp_path: Path) -> None:
    port = free_port()
    async with serve_rules(tmp_path, SIM, ", workers: 2", listen=f"127.0.0.1:{port}") as running:
        await until(lambda: running.said.count("the event loop is uvloop") == 2, 20)
        seen: set[str] = set()
        async with asyncio.timeout(10):
            while len(seen) < 2:
                async with aiohttp.ClientSession() as http:  # a connection each: the kernel deals them out
                    kind, pid, _ = await whereabouts(http, f"http://127.0.0.1:{port}")
                    assert kind == "uvloop"
                    seen.add(pid)
        running.send(signal.SIGTERM)
        assert await running.code() == 0
    assert "Traceback" not in running.said


async def test_a_unix_socket_on_uvloop(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    async with serve_rules(tmp_path, SIM, listen=f"unix:{path}") as running:
        await running.says(f" on unix:{path}: ")
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http:
            assert (await whereabouts(http, "http://x"))[0] == "uvloop"
        running.send(signal.SIGTERM)
        assert await running.code() == 0
    assert not path.exists()
    assert "Traceback" not in running.said


# --- the front's connections, whole and in pieces

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def connected(base: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(base.rpartition(":")[2]), limit=1 << 22)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.transport.abort()


async def answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert found is not None, head
    body = json.loads(await reader.readexactly(int(found[1])))
    return int(head.split()[1]), str(body["choices"][0]["message"]["content"]) if "choices" in body else str(body)


def spoken(text: str, *headers: str, body: bytes | None = None, length: bool = True) -> bytes:
    body = body_of(text) if body is None else body
    lines = [f"POST {CHAT} HTTP/1.1", "host: x", "content-type: application/json", *headers]
    if length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_requests_however_they_come(tmp_path: Path) -> None:
    async with serve_rules(tmp_path, SIM) as running:
        base = await address_of(running)

        async with connected(base) as (reader, writer):  # several on one connection, then one that is handed over
            for number in range(3):
                writer.write(spoken(f"number {number}"))
                assert await answer(reader) == (200, f"You said: number {number}")
            writer.write(spoken("first") + spoken("second") + spoken("third"))
            for text in ("first", "second", "third"):
                assert await answer(reader) == (200, f"You said: {text}")

        async with connected(base) as (reader, writer):  # in small pieces, slower than the front waits
            said = spoken("piecemeal")
            for start in range(0, len(said), 40):
                writer.write(said[start : start + 40])
                await asyncio.sleep(0.001 if start else 1.2)
            assert await answer(reader) == (200, "You said: piecemeal")
            writer.write(spoken("again"))
            assert await answer(reader) == (200, "You said: again")

        long = "x" * 700_000
        async with connected(base) as (reader, writer):  # larger than the front takes
            writer.write(spoken(long))
            assert await answer(reader) == (200, f"You said: {long}")
            writer.write(spoken("small"))
            assert await answer(reader) == (200, "You said: small")

        async with connected(base) as (reader, writer):  # chunked
            body = body_of(long)
            writer.write(spoken("", "transfer-encoding: chunked", body=b"", length=False))
            for start in range(0, len(body), 100_000):
                piece = body[start : start + 100_000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await asyncio.sleep(0.002)
            writer.write(b"0\r\n\r\n")
            assert await answer(reader) == (200, f"You said: {long}")

        async with connected(base) as (reader, writer):  # a client that waits to be asked
            said = spoken("asked", "expect: 100-continue")
            writer.write(said[: said.index(b"\r\n\r\n") + 4])
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            writer.write(said[said.index(b"\r\n\r\n") + 4 :])
            assert await answer(reader) == (200, "You said: asked")

        for half in (spoken("half")[:30], spoken("half")[:-5]):  # a client that says no more, and one that is gone
            async with connected(base) as (reader, writer):
                writer.write(half)
                writer.write_eof()
                assert await reader.read() == b""
            async with connected(base) as (_, writer):
                writer.write(half)
                await asyncio.sleep(0.01)

        async with connected(base) as (reader, writer):
            writer.write(b"POST nonsense\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
    assert "Traceback" not in running.said


# --- providers

BODY: Final = b"".join(b'data: {"choices":[{"index":0,"delta":{"content":"%064d"}}]}\n\n' % n for n in range(100_000))
"""Some 12 MB: more than sockets hold between provider and client."""


class Bulk:
    """A provider that streams much, or reads slowly."""

    def __init__(self) -> None:
        self.sent = 0
        self.left = asyncio.Event()
        self.reading = asyncio.Event()
        self.digest = ""
        self.base = ""

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert found is not None
        size = int(found[1])
        if size > 1 << 20:
            await self.reading.wait()
        body = await reader.readexactly(size)
        self.digest = hashlib.sha256(json.loads(body)["messages"][0]["content"].encode()).hexdigest()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for start in range(0, len(BODY), 50_000):
            piece = BODY[start : start + 50_000]
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()


@asynccontextmanager
async def bulk() -> AsyncIterator[Bulk]:
    provider = Bulk()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)  # as its connections will have
    sock.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(provider.run, sock=sock)
    provider.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield provider


def one(base: str, more: str = "") -> str:
    return (
        f"upstreams: {{one: {{adapter: openai, base_url: '{base}/v1', key: env:TEST_PROVIDER_KEY{more}}}}}\n"
        "routes: [{name: all, to: one}]\n"
    )


def narrow(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket in which little waits for its reader."""
    sock = socket.socket(address[0], address[1], address[2])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    return sock


async def large(http: aiohttp.ClientSession, base: str, body: bytes) -> aiohttp.ClientResponse:
    return await http.post(base + CHAT, data=io.BytesIO(body), headers={"content-type": "application/json"})


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
async def test_pressure(tmp_path: Path, transport: str) -> None:
    connector = aiohttp.TCPConnector(socket_factory=narrow)
    async with (
        bulk() as provider,
        serve_rules(tmp_path, one(provider.base, f", transport: {transport}")) as running,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        base = await address_of(running)
        assert "the event loop is uvloop" in running.said

        # A client that does not read stops the provider; when it does, nothing is missing.
        stream = await http.post(base + CHAT, json=json.loads(body_of(stream=True)))
        seen = -1
        async with asyncio.timeout(10):
            while seen != provider.sent or not seen:
                seen = provider.sent
                await asyncio.sleep(0.3)
        assert seen < len(BODY)
        told = await stream.read()
        words = re.findall(rb'"content":"(\d{64})"', told)
        assert [int(word) for word in words] == list(range(100_000))
        assert told.endswith(b"data: [DONE]\n\n")

        # One that leaves ends the provider's work.
        stream = await http.post(base + CHAT, json=json.loads(body_of(stream=True)))
        assert await stream.content.readany()
        stream.close()
        async with asyncio.timeout(5):
            await provider.left.wait()

        # A provider that does not read stops nobody else, and gets all of a large request in the end.
        text = os.urandom(5_000_000).hex()
        sending = begin(large(http, base, body_of(text, stream=True)))
        await asyncio.sleep(0.3)
        assert (await http.get(base + "/healthz")).status == 200
        provider.reading.set()
        stream = await sending
        assert stream.status == 200
        assert await stream.content.readany()
        assert provider.digest == hashlib.sha256(text.encode()).hexdigest()
        stream.close()
    assert "Traceback" not in running.said


async def test_tls_on_either_side(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """On uvloop only where the rules insist."""
    cert, key = certificate(tmp_path)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=str(cert))
    cut: list[bool] = []

    async def provider(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                assert found is not None
                body = json.loads(await reader.readexactly(int(found[1])))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for start in range(0, 3_000_000, 16_000):
                    piece = BODY[start : min(start + 16_000, 3_000_000)]
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
                    if body["model"] == "cut" and start > 100_000:
                        cut.append(True)
                        writer.transport.abort()
                        return
                writer.write(b"10\r\n\n\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    server = await asyncio.start_server(provider, "127.0.0.1", 0, ssl=own)
    far = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    both = ", loop: uvloop, tls: {cert: cert.pem, key: key.pem}"
    async with server, serve_rules(tmp_path, one(far, ", pool: {ca_bundle: cert.pem}"), both) as running:
        base = await address_of(running)
        assert base.startswith("https://")
        assert "the event loop is uvloop (server.loop: uvloop)" in running.said
        for _ in range(2):  # the second on the same connections
            async with http.post(base + CHAT, json=json.loads(body_of(stream=True)), ssl=trusting) as stream:
                told = await stream.read()
                words = re.findall(rb'"content":"(\d{64})"', told)
                assert [int(word) for word in words] == list(range(len(words))) and len(words) > 20_000
        async with http.post(base + CHAT, json=json.loads(body_of(stream=True, model="cut")), ssl=trusting) as stream:
            told = await stream.read()
        assert cut and b'"error"' in told and not told.endswith(b"[DONE]\n\n")
        async with http.post(base + CHAT, json=json.loads(body_of(stream=True)), ssl=trusting) as stream:
            assert await stream.content.readany()  # and it leaves
        with pytest.raises(aiohttp.ClientError):
            await http.get(base.replace("https", "http") + "/healthz")
        running.send(signal.SIGTERM)
        assert await running.code() == 0
    assert "Traceback" not in running.said


async def test_the_provider_is_not_trusted_or_not_there(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    cert, key = certificate(tmp_path)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(cert, key)

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # the request is out, or a handshake begun: else either may be what was seen first
        writer.close()

    server = await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=own)
    plain = await asyncio.start_server(nothing, "127.0.0.1", 0)
    ports = [each.sockets[0].getsockname()[1] for each in (server, plain)]
    bases = {
        "strange": f"https://127.0.0.1:{ports[0]}",
        "plain": f"https://127.0.0.1:{ports[1]}",
        "ends": f"http://127.0.0.1:{ports[1]}",
        "gone": f"http://127.0.0.1:{free_port()}",
        "nobody": "http://nobody.invalid",
    }
    upstreams = ", ".join(
        f"{name}: {{adapter: openai, base_url: '{base}/v1', key: env:TEST_PROVIDER_KEY}}"
        for name, base in bases.items()
    )
    routes = ", ".join(f"{{name: to-{name}, match: {{model: {name}}}, to: {name}}}" for name in bases)
    text = f"upstreams: {{{upstreams}}}\nroutes: [{routes}]\n"
    async with server, plain, serve_rules(tmp_path, text, ", loop: uvloop") as running:
        base = await address_of(running)
        for name, said in {
            "strange": "certificate",
            "plain": "cannot connect",
            "ends": "closed the connection before its answer",
            "gone": "cannot connect",
            "nobody": "cannot find the address",
        }.items():
            async with http.post(base + CHAT, json=json.loads(body_of(model=name))) as response:
                assert response.status == 502, name
                assert said in (await response.json())["error"]["message"]
    assert "Traceback" not in running.said


async def test_sockets_and_both_formats(tmp_path: Path, http: aiohttp.ClientSession, provider: FakeProvider) -> None:
    async with serve_rules(tmp_path, one(provider.base)) as running:
        base = await address_of(running)
        assert "the event loop is uvloop" in running.said
        async with http.ws_connect(base + CHAT) as ws:
            body = json.loads(body_of(model="gpt-x"))
            del body["stream"]
            for _ in range(2):
                provider.answer(script(Say("äöü€ " * 4000, pieces=40)))
                await ws.send_json(body)
                heard = [json.loads((await ws.receive(5)).data)]
                while heard[-1].get("object") != "chat.completion.done":
                    heard.append(json.loads((await ws.receive(5)).data))
                deltas = [choice["delta"] for event in heard for choice in event.get("choices", ())]
                assert "".join(delta.get("content") or "" for delta in deltas) == "äöü€ " * 4000
            await ws.close()
            assert ws.close_code == 1000
        provider.answer(script("whole"), script("streamed"), script("cut off", cut_after=2))
        async with http.post(base + MESSAGES, json=json.loads(body_of())) as response:
            assert (await response.json())["content"][0]["text"] == "whole"
        async with http.post(base + MESSAGES, json=json.loads(body_of(stream=True))) as response:
            assert (await response.read()).rstrip().endswith(b'{"type":"message_stop"}')
        async with http.post(base + MESSAGES, json=json.loads(body_of(stream=True))) as response:
            told = await response.read()
        assert b"event: error" in told and b"message_stop" not in told
        assert KEY not in running.said
    assert "Traceback" not in running.said
