"""A process of its own: ``python -m headgate serve``, its sockets, its signals, its workers."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..fakes.gateway import ENVIRONMENT
from .house import CHAT, MESSAGES, begin, body_of, until

OPEN = """
server: {{drain: {drain}, workers: {workers}}}
upstreams: {{sim: {{adapter: simulator}}}}
routes: [{{name: {name}, to: sim}}]
"""


def rules(*, name: str = "all", drain: str = "5s", workers: int = 1, more: str = "") -> str:
    return "version: 1\n" + OPEN.format(name=name, drain=drain, workers=workers).replace(
        "server: {", "server: {" + more
    )


class Process:
    """The command, and what it said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""
        self._reader = begin(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.said += line.decode()

    async def says(self, pattern: str, within_s: float = 20.0) -> re.Match[str]:
        """Wait until it said something that matches."""
        await until(lambda: re.search(pattern, self.said) or self.process.returncode is not None, within_s)
        found = re.search(pattern, self.said)
        assert found is not None, self.said
        return found

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def code(self, within_s: float = 20.0) -> int:
        """Wait for its end."""
        async with asyncio.timeout(within_s):
            code = await self.process.wait()
            await self._reader
        return code

    async def end(self) -> None:
        """End it, whatever it is at."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await self.code(5)
            except TimeoutError:
                self.process.kill()
        await self._reader


@asynccontextmanager
async def serve(directory: Path, text: str, *options: str, listen: str = "127.0.0.1:0") -> AsyncIterator[Process]:
    """Run the command on the rule file ``text``."""
    path = directory / "routes.yaml"
    path.write_text(textwrap.dedent(text))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headgate",
        "serve",
        str(path),
        "--listen",
        listen,
        *options,
        cwd=directory,
        env={**os.environ, **ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    running = Process(process)
    try:
        yield running
    finally:
        await running.end()


async def address_of(running: Process) -> str:
    """Return where it says that it listens."""
    return (await running.says(r" on (https?://[^\s:]+:\d+): "))[1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def ask(http: aiohttp.ClientSession, base: str, text: str = "Hello", **more: Any) -> aiohttp.ClientResponse:
    return await http.post(base + CHAT, json=json.loads(body_of(text, **more)))


async def test_it_serves_where_it_says_and_ends_on_a_signal(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serve(tmp_path, rules()) as running:
        base = await address_of(running)
        assert str(tmp_path / "routes.yaml") in running.said
        assert not base.endswith(":0")
        response = await ask(http, base)
        assert (await response.json())["choices"][0]["message"]["content"] == "You said: Hello"
        running.send(signal.SIGINT)
        assert await running.code() == 0
    assert "Traceback" not in running.said


async def test_sigterm_drains(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serve(tmp_path, rules()) as running, aiohttp.ClientSession() as probe:
        base = await address_of(running)
        assert (await (await probe.get(base + "/readyz")).json())["ready"]
        stream = await ask(http, base, "/sim delay 100ms\none two three four five six seven", stream=True)
        first = await stream.content.readany()
        assert first
        running.send(signal.SIGTERM)
        await running.says("draining: 1 calls")
        response = await probe.get(base + "/readyz")  # on a connection that stands already
        assert response.status == 503
        with pytest.raises(aiohttp.ClientConnectorError):
            async with aiohttp.ClientSession() as stranger:
                await stranger.get(base + "/readyz")
        rest = await stream.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b"seven" in rest
        assert await running.code(3) == 0


async def test_a_drain_has_an_end(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serve(tmp_path, rules(drain="300ms")) as running:
        base = await address_of(running)
        stream = await ask(http, base, "/sim delay 5s\none two", stream=True)
        running.send(signal.SIGTERM)
        assert await running.code(5) == 0
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.read()
    assert "did not finish in time" in running.said


async def test_a_second_signal_ends_at_once(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serve(tmp_path, rules(drain="60s")) as running:
        base = await address_of(running)
        stream = await ask(http, base, "/sim delay 30s\none two", stream=True)
        running.send(signal.SIGTERM)
        await running.says("draining")
        running.send(signal.SIGTERM)
        assert await running.code(5) == 0
        try:
            answer = await stream.read()
        except aiohttp.ClientPayloadError:
            answer = b""
        assert b"[DONE]" not in answer
    assert "Traceback" not in running.said


async def test_sighup_reloads(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with serve(tmp_path, rules(name="before")) as running:
        base = await address_of(running)
        assert (await ask(http, base)).headers["headgate-route"] == "before"
        (tmp_path / "routes.yaml").write_text(rules(name="after"))
        running.send(signal.SIGHUP)
        await running.says("rules reloaded")
        assert (await ask(http, base)).headers["headgate-route"] == "after"
        (tmp_path / "routes.yaml").write_text("version: 2")
        running.send(signal.SIGHUP)
        await running.says("old rules stay")
        assert (await ask(http, base)).headers["headgate-route"] == "after"
        health = await (await http.get(base + "/healthz")).json()
        assert (health["reloads"]["succeeded"], health["reloads"]["failed"]) == (1, 1)
        assert health["reloads"]["last"]["codes"] == ["E014"]


async def test_it_refuses_to_be_open_to_the_network(tmp_path: Path) -> None:
    for listen in ("0.0.0.0:0", "[::]:0"):
        async with serve(tmp_path, rules(), listen=listen) as running:
            assert await running.code() == 1
            assert "E051" in running.said
            assert "auth" in running.said
            assert "Traceback" not in running.said


async def test_it_may_be_told_to_be_open(tmp_path: Path) -> None:
    async with serve(tmp_path, rules(more="anonymous: allow, "), listen="0.0.0.0:0") as running:
        assert (await address_of(running)).startswith("http://0.0.0.0:")


async def test_a_broken_file_and_a_taken_port(tmp_path: Path) -> None:
    async with serve(tmp_path, "version: 1\nroutes: [{name: x}]") as running:
        assert await running.code() == 1
        assert "routes.yaml:2" in running.said
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with serve(tmp_path, rules(), listen=f"127.0.0.1:{taken.getsockname()[1]}") as running:
            assert await running.code() == 1
            assert "Traceback" not in running.said
            assert "in use" in running.said


# --- TLS


def certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "headgate.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / "cert.pem", directory / "key.pem"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


async def test_tls(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    cert, _ = certificate(tmp_path)
    async with serve(tmp_path, rules(more="tls: {cert: cert.pem, key: key.pem}, ")) as running:
        base = await address_of(running)
        assert base.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(cert))
        for stream in (False, True):
            response = await http.post(base + CHAT, json=json.loads(body_of(stream=stream)), ssl=trusting)
            assert response.status == 200
            answer = await response.read()
            assert answer.endswith(b"[DONE]\n\n") is stream
        with pytest.raises(aiohttp.ClientError):
            await http.get(base.replace("https", "http") + "/healthz")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(base + "/healthz")


# --- unix sockets


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    async with serve(tmp_path, rules(), listen=f"unix:{path}") as running:
        await running.says(f" on unix:{path}: ")
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as http:
            response = await http.post("http://x" + MESSAGES, json=json.loads(body_of()))
            assert response.status == 200
            assert (await response.json())["content"][0]["text"] == "You said: Hello"
        running.send(signal.SIGTERM)
        assert await running.code() == 0
    assert not path.exists()


async def test_a_socket_that_a_dead_process_left(tmp_path: Path) -> None:
    path = tmp_path / "gate.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serve(tmp_path, rules(), listen=f"unix:{path}") as running:
        await running.says(f" on unix:{path}: ")


# --- workers

PID = """
import os, msgspec
class Pid:
    class Options(msgspec.Struct):
        pass
    def __init__(self, options): pass
    async def __call__(self, call, call_next, /):
        reply = await call_next(call)
        reply.headers = {**reply.headers, "openai-pid": str(os.getpid())}
        return reply
"""


async def test_workers_share_a_port_and_survive_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pid_middleware.py").write_text(PID)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    text = rules(workers=2).replace("to: sim", "chain: [{use: 'pid_middleware:Pid'}], to: sim")

    async def pid() -> int:
        async with aiohttp.ClientSession() as http:  # a connection each: the kernel deals them out
            response = await ask(http, base)
            assert response.status == 200
            return int(response.headers["openai-pid"])

    async def pids(count: int, within_s: float = 8.0) -> set[int]:
        found: set[int] = set()
        async with asyncio.timeout(within_s):
            while len(found) < count:
                try:
                    found.add(await pid())
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        return found

    async with serve(tmp_path, text, listen=f"127.0.0.1:{port}") as running:
        first = await pids(2)
        assert running.process.pid not in first
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        await running.says(f"worker {victim} ended with code -9: starting another")
        await until(lambda: running.said.count(" serves ") == 3, 8)
        survivors = await pids(2)
        assert victim not in survivors
        assert len(survivors & first) == 1
        running.send(signal.SIGHUP)
        await until(lambda: running.said.count("rules reloaded") == 2, 5)
        running.send(signal.SIGTERM)
        assert await running.code() == 0
        for each in survivors:
            with pytest.raises(ProcessLookupError):
                os.kill(each, 0)


async def test_workers_that_cannot_start_end_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with serve(tmp_path, rules(workers=2), listen=f"127.0.0.1:{port}") as running:
            assert await running.code(20) == 1
            assert "giving up" in running.said


@pytest.mark.parametrize("after_s", [0.3, 0.5, 0.7, 0.9])
async def test_workers_that_are_stopped_while_they_start(tmp_path: Path, after_s: float) -> None:
    """Whenever the signal comes, no worker is left behind: one that were would keep our end of the pipe open."""
    async with serve(tmp_path, rules(workers=2), listen=f"127.0.0.1:{free_port()}") as running:
        await asyncio.sleep(after_s)
        running.send(signal.SIGTERM)
        assert await running.code() in (0, -signal.SIGTERM)  # the latter before it began


async def test_workers_need_a_port_of_their_own_choice(tmp_path: Path) -> None:
    """Port 0 would give each worker another port."""
    async with serve(tmp_path, rules(workers=2), listen="127.0.0.1:0") as running:
        await until(lambda: running.said.count(" serves ") == 2 or running.process.returncode is not None, 10)
        ports = set(re.findall(r" on http://127\.0\.0\.1:(\d+): ", running.said))
        assert len(ports) == 1, running.said
