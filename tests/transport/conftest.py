"""What the transport suite stands on: scripted servers on loopback that may say malformed things, and the candidates.

A candidate is a Transport implementation under test. Nothing here or in test_contract.py knows what it is made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from socket import IPPROTO_TCP, SO_LINGER, SOL_SOCKET, TCP_NODELAY, socket
from typing import Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from headgate.gateway.errors import GatewayError
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.transport.base import Deadlines, Exchange, RequestHead, Transport
from headgate.gateway.transport.options import TransportOptions
from headgate.gateway.transport.session import SessionTransport

# --- the candidates


@dataclass(frozen=True)
class Candidate:
    """A transport under test. ``features`` are the optional abilities it has; tests for others are skipped."""

    name: str
    build: Callable[[TransportOptions], Transport]
    features: frozenset[str]


CANDIDATES = [
    Candidate("session", SessionTransport, frozenset({"tls", "proxy", "unix", "coding", "eof_reset", "any_method"})),
]


class Make(Protocol):
    """Builds a transport that is closed when the test ends."""

    def __call__(self, options: TransportOptions | None = None, *, needs: str = "") -> Transport: ...


@pytest.fixture(params=CANDIDATES, ids=lambda candidate: candidate.name)
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    candidate: Candidate = request.param
    made: list[Transport] = []

    def build(options: TransportOptions | None = None, *, needs: str = "") -> Transport:
        if needs and needs not in candidate.features:
            pytest.skip(f"{candidate.name} has no {needs}")
        made.append(candidate.build(TransportOptions() if options is None else options))
        return made[-1]

    yield build
    for transport in made:
        await transport.aclose()


@pytest.fixture(autouse=True)
async def nothing_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Every test ends without a task, a log line above info or an unhandled error of the loop."""
    before = asyncio.all_tasks()
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    yield
    async with asyncio.timeout(2):
        while asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0.005)
    assert unhandled == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- our side of a call


@pytest.fixture
async def scope() -> AsyncIterator[Scope]:
    """A call; its clock ticks faster than the real one."""
    clock = Clock(tick_s=0.02)
    made = Scope(clock)
    yield made
    await made.aclose()
    clock.close()


@dataclass
class Sunk:
    """A sink that remembers, and may act on each push."""

    on_push: Callable[[bytes], object] = lambda item: None
    items: list[bytes] = field(default_factory=list)
    error: GatewayError | None = None
    ends: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    pushed: asyncio.Event = field(default_factory=asyncio.Event)

    def push(self, item: bytes, /) -> None:
        assert not self.ends, "push after end"
        self.items.append(item)
        self.pushed.set()
        self.on_push(item)

    def end(self, error: GatewayError | None, /) -> None:
        self.error = error
        self.ends += 1
        self.ended.set()

    @property
    def data(self) -> bytes:
        return b"".join(self.items)


async def send(
    transport: Transport,
    scope: Scope,
    url: str,
    body: bytes = b"{}",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    pool_s: float | None = 5.0,
    connect_s: float | None = 5.0,
    write_s: float | None = 5.0,
    head_s: float | None = 5.0,
    head_kind: str = "timeout.first_token",
) -> Exchange:
    """Submit with deadlines that a healthy test never meets."""
    deadlines = Deadlines(
        pool_s=pool_s,
        connect_s=connect_s,
        write_s=write_s,
        head_at=None if head_s is None else scope.loop.time() + head_s,
        head_kind=head_kind,  # type: ignore[arg-type]
    )
    given = {"content-type": "application/json"} if headers is None else headers
    return await transport.submit(RequestHead(method, url, given), body, deadlines, scope)


async def flow(exchange: Exchange) -> Sunk:
    """Connect a sink and wait for the end."""
    sunk = Sunk()
    exchange.connect(sunk)
    async with asyncio.timeout(5):
        await sunk.ended.wait()
    return sunk


# --- the other side


@dataclass
class Request:
    """What a server read. ``headers`` in order, names as they came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        return found[0] if found else None


class Peer:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.sent = 0
        raw = self.socket
        if raw.family.name != "AF_UNIX":
            raw.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)

    @property
    def socket(self) -> socket:
        found: socket = self.writer.get_extra_info("socket")
        return found

    async def head(self) -> Request | None:
        """Read a request's head alone; None if the connection ended instead."""
        try:
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return None
        first, *lines = text.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Request(method, target, headers, b"")

    async def request(self) -> Request | None:
        """Read a whole request."""
        found = await self.head()
        if found is not None and (length := found.header("content-length")) is not None:
            found.body = await self.reader.readexactly(int(length))
        return found

    async def say(self, *pieces: bytes, gap: float = 0.0) -> None:
        """Write ``pieces``, one TCP write each."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            self.sent += len(piece)
            await asyncio.sleep(gap)

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        while await self.reader.read(65536):
            pass

    def reset(self) -> None:
        """End the connection with RST."""
        self.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Upstream:
    """A server that runs a script for each connection, and counts."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.peers: list[Peer] = []
        self.open = 0
        self.peak = 0
        self.url = ""
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self.open += 1
        self.peak = max(self.peak, self.open)
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError
            ):
                await self.script(peer)
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError, ssl.SSLError, TimeoutError):
                async with asyncio.timeout(0.2):
                    await writer.wait_closed()
            writer.transport.abort()
            self.tasks.discard(task)

    async def drained(self) -> None:
        """Wait until no connection is open; law 7 gives a second."""
        async with asyncio.timeout(1):
            while self.open:
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        for task in list(self.tasks):
            task.cancel()
        while self.tasks:
            await asyncio.sleep(0.005)


class Serve(Protocol):
    """Starts a scripted server that is stopped when the test ends."""

    async def __call__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, path: Path | None = None
    ) -> Upstream: ...


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    started: list[Upstream] = []

    async def start(script: Script, *, tls: ssl.SSLContext | None = None, path: Path | None = None) -> Upstream:
        upstream = Upstream(script)
        if path is not None:
            upstream.server = await asyncio.start_unix_server(upstream.run, path)
            upstream.url = "http://localhost/v1/x"
        else:
            upstream.server = await asyncio.start_server(upstream.run, "127.0.0.1", 0, ssl=tls, limit=2**20)
            port = upstream.server.sockets[0].getsockname()[1]
            upstream.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}/v1/x"
        started.append(upstream)
        return upstream

    yield start
    for upstream in started:
        await upstream.close()


def answers(*texts: bytes, gap: float = 0.0) -> Script:
    """Return a script that gives the same answer to every request on a connection."""

    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.say(*texts, gap=gap)

    return script


def whole(body: bytes, *lines: str, status: str = "200 OK") -> bytes:
    """Return an answer with Content-Length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def chunk(data: bytes) -> bytes:
    """Return one chunk of the chunked coding; of no data, the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


# --- certificates


@dataclass(frozen=True)
class Certs:
    """Paths of PEM files: an authority, a server's chain for 127.0.0.1, a client's; keys beside them."""

    authority: str
    server: str
    server_key: str
    client: str
    client_key: str
    locked_key: str

    def server_context(self, *, client_required: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        if client_required:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    folder = tmp_path_factory.mktemp("certs")
    now = datetime.datetime.now(datetime.UTC)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def issue(
        subject: str, authority: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None
    ) -> ec.EllipticCurvePrivateKey:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer, signer = authority or (named(subject), key)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if authority is None:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        else:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        (folder / f"{subject}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        for suffix, lock in (
            ("key", serialization.NoEncryption()),
            ("locked", serialization.BestAvailableEncryption(b"secret")),
        ):
            text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
            (folder / f"{subject}.{suffix}").write_bytes(text)
        return key

    authority = (named("authority"), issue("authority", None))
    issue("server", authority)
    issue("client", authority)
    paths = ("authority.pem", "server.pem", "server.key", "client.pem", "client.key", "client.locked")
    return Certs(*(str(folder / path) for path in paths))
