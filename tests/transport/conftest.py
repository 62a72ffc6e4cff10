"""What the transport suite stands on: scripted servers on loopback that may say malformed things, and the candidates.

A candidate is a Transport implementation under test. Nothing here or in test_contract.py knows what it is made of.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from headgate.gateway.relay.scope import Clock, Scope
from headgate.gateway.transport.base import Transport
from headgate.gateway.transport.lean import LeanTransport
from headgate.gateway.transport.options import TransportOptions
from headgate.gateway.transport.session import SessionTransport

from ..loops import factories
from .servers import Script, Upstream


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Any]:
    """Which loops a test runs on."""
    return factories(item, {"test_contract_flow", "test_lean_dialling"})


# --- the candidates


@dataclass(frozen=True)
class Candidate:
    """A transport under test. ``features`` are the optional abilities it has; tests for others are skipped."""

    name: str
    build: Callable[[TransportOptions], Transport]
    features: frozenset[str]


SESSION_FEATURES = frozenset({"tls", "proxy", "unix", "coding", "eof_reset", "any_method"})
CANDIDATES = [
    Candidate("session", SessionTransport, SESSION_FEATURES),
    # What versions of aiohttp get that the short way was not tried with.
    Candidate("session-long", partial(SessionTransport, short_way=False), SESSION_FEATURES),
    Candidate("lean", LeanTransport, SESSION_FEATURES - {"proxy", "unix"}),
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


@pytest.fixture
async def scope() -> AsyncIterator[Scope]:
    """A call; its clock ticks faster than the real one."""
    clock = Clock(tick_s=0.02)
    made = Scope(clock)
    yield made
    await made.aclose()
    clock.close()


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
