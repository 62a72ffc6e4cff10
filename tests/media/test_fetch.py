"""Fetching a caller's URL: what is allowed, and everything that a server or a name may try."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from headgate.gateway.media.options import FetchRules
from headgate.gateway.transport.fetch import Fetched, NotFetched, fetch, is_fetchable
from headgate.gateway.units import Duration, Size


class Files:
    """A server of files on loopback; ``asked`` are the paths that were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.port = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer by path."""
        self.asked.append(request.path)
        self.headers.append(dict(request.headers))
        name = request.path.removeprefix("/")
        if name.startswith("to/"):
            return web.Response(status=302, headers={"location": request.query["at"]})
        if name == "loop":
            return web.Response(status=307, headers={"location": "/loop"})
        if name == "nowhere":
            return web.Response(status=302)
        if name == "slow":
            await asyncio.sleep(5)
        if name == "gone":
            return web.Response(status=404)
        if name == "gzip":
            return web.Response(body=b"\x1f\x8b", headers={"content-encoding": "gzip"})
        if name == "endless":
            response = web.StreamResponse(headers={"content-type": "image/png"})
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65536)
        size = 5000 if name == "large" else 100
        return web.Response(body=b"x" * size, content_type="image/png")


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    made = Files()
    app = web.Application()
    app.router.add_get("/{name:.*}", made.serve)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def rules(*hosts: str, **more: Any) -> FetchRules:
    """Bounds that suit a test."""
    return FetchRules(hosts=hosts, max_size=Size(1000), timeout=Duration(2), **{"private": "allow", **more})


async def test_a_file(files: Files) -> None:
    at = f"127.0.0.1:{files.port}"
    assert await fetch(f"http://{at}/a.png?q=1#part", rules(at)) == Fetched("image/png", b"x" * 100)
    names = {name.lower() for name in files.headers[0]}
    assert not names & {"cookie", "authorization", "referer"}
    assert files.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_addresses_that_are_not_public(files: Files, host: str) -> None:
    """Written out, or what a name turns out to be."""
    at = f"{host}:{files.port}"
    with pytest.raises(NotFetched, match="not allowed"):
        await fetch(f"http://{at}/a.png", rules(at, private="refuse"))
    assert files.asked == []


async def test_a_name_that_changes_its_mind(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is judged is the address of the connection: an earlier, better answer of the resolver is worth nothing."""
    answers = ["93.184.216.34", "127.0.0.1"]

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0) if len(answers) > 1 else answers[0], port))]

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    assert (await loop.getaddrinfo("files.example", files.port))[0][4][0] == "93.184.216.34"
    at = f"files.example:{files.port}"
    with pytest.raises(NotFetched, match="not allowed"):
        await fetch(f"http://{at}/a.png", rules(at, private="refuse"))
    assert files.asked == []
    assert (await fetch(f"http://{at}/a.png", rules(at))).data


async def test_redirects(files: Files) -> None:
    at = f"127.0.0.1:{files.port}"
    assert (await fetch(f"http://{at}/to/x?at=/a.png", rules(at))).data
    for where in (
        "http://localhost:1/a",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        f"http://a:b@{at}/a.png",
        "//else",
    ):
        with pytest.raises(NotFetched, match="hosts does not allow"):
            await fetch(f"http://{at}/to/x?at={where}", rules(at))
    with pytest.raises(NotFetched, match="more than 3 times"):
        await fetch(f"http://{at}/loop", rules(at))
    with pytest.raises(NotFetched, match="nowhere"):
        await fetch(f"http://{at}/nowhere", rules(at))
    other = f"localhost:{files.port}"
    with pytest.raises(NotFetched, match="not allowed"):
        await fetch(f"http://{at}/a.png", rules(at, other, private="refuse"))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("large", "larger than 1000 bytes"),
        ("endless", "larger than 1000 bytes"),
        ("gone", "HTTP 404"),
        ("gzip", "compressed"),
    ],
)
async def test_what_a_server_may_try(files: Files, path: str, why: str) -> None:
    at = f"127.0.0.1:{files.port}"
    with pytest.raises(NotFetched, match=why):
        await fetch(f"http://{at}/{path}", rules(at))


async def test_time(files: Files) -> None:
    at = f"127.0.0.1:{files.port}"
    with pytest.raises(NotFetched, match=r"within 0\.05 s"):
        await fetch(f"http://{at}/slow", FetchRules(hosts=(at,), timeout=Duration(0.05), private="allow"))


async def test_nobody_there() -> None:
    with pytest.raises(NotFetched, match="could not be reached"):
        await fetch("http://127.0.0.1:9/a", rules("127.0.0.1:9"))


@pytest.mark.parametrize(
    ("url", "hosts", "allowed"),
    [
        ("https://images.example/a", ["images.example"], True),
        ("https://IMAGES.example./a", ["Images.example"], True),
        ("https://images.example:443/a", ["images.example"], True),
        ("http://images.example/a", ["images.example"], True),
        ("https://images.example:8443/a", ["images.example"], False),
        ("https://images.example:8443/a", ["images.example:8443"], True),
        ("https://images.example/a", ["images.example:8443"], False),
        ("https://evil-images.example/a", ["images.example"], False),
        ("https://images.example.evil/a", ["images.example"], False),
        ("https://a.b.cdn.example/a", ["*.cdn.example"], True),
        ("https://cdn.example/a", ["*.cdn.example"], False),
        ("https://evilcdn.example/a", ["*.cdn.example"], False),
        ("https://anything/a", ["*"], True),
        ("https://anything:81/a", ["*"], False),
        ("https://[2606:4700::1]/a", ["[2606:4700::1]"], True),
        ("https://images.example@evil/a", ["images.example"], False),
        ("https://evil/@images.example", ["images.example"], False),
        ("https://user:pass@images.example/a", ["images.example"], False),
        ("ftp://images.example/a", ["images.example"], False),
        ("gs://images.example/a", ["*"], False),
        ("data:image/png;base64,AAAA", ["*"], False),
        ("https://", ["*"], False),
        ("https://images.example:nonsense/a", ["*"], False),
        ("https://images.example:0/a", ["*"], False),
        ("", ["*"], False),
    ],
)
def test_hosts(url: str, hosts: list[str], allowed: bool) -> None:
    assert is_fetchable(url, FetchRules(hosts=tuple(hosts))) is allowed
