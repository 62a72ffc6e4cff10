"""WholeAnswer: one write where nothing stands in the way, aiohttp's own way wherever something does."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from headgate.gateway.server import whole
from headgate.gateway.server.whole import WholeAnswer

from .house import CHAT, SIMULATED, House, body_of, head_of, serving, until, wire

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Around = Callable[[web.Request, web.Response], Awaitable[None]]


def host_with(change: Around | None = None) -> web.Application:
    """A host whose middleware sees every answer before it goes out."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if change is not None:
            assert isinstance(response, web.Response)
            await change(request, response)
        return response

    return web.Application(middlewares=[around])


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every write to a server's socket, as asyncio gets it."""
    seen: list[bytes] = []
    kind = asyncio.selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    for name in ("write", "writelines"):
        original = getattr(kind, name)

        def spy(self: Any, data: Any, original: Any = original) -> Any:
            seen.append(data if isinstance(data, bytes) else b"".join(data))
            return original(self, data)

        monkeypatch.setattr(kind, name, spy)
    return seen


def answers(writes: list[bytes]) -> list[bytes]:
    return [data for data in writes if data.startswith(b"HTTP/1.1 ")]


async def test_one_write_and_the_connection_stays(tmp_path: Path, writes: list[bytes]) -> None:
    async with serving(tmp_path) as house, wire(house) as client:
        for number in range(3):
            body = body_of(f"number {number}")
            client.send(head_of(house, len(body)) + body)
            status, headers = await client.head()
            answer = await client.read(int(headers["content-length"]))
            assert status == 200
            assert json.loads(answer)["choices"][0]["message"]["content"] == f"You said: number {number}"
            assert {"date", "server", "content-type", "x-request-id"} <= set(headers)
            assert "connection" not in headers
            assert answers(writes)[-1].endswith(answer)
        assert len(answers(writes)) == 3


async def test_errors_are_written_so_too(tmp_path: Path, writes: list[bytes]) -> None:
    async with serving(tmp_path) as house, wire(house) as client:
        client.send(head_of(house, 2) + b"[]")
        status, headers = await client.head()
        assert status == 400
        assert answers(writes)[-1].endswith(await client.read(int(headers["content-length"])))


@pytest.mark.parametrize(("headers", "version"), [({"connection": "close"}, "1.1"), ({}, "1.0")])
async def test_a_connection_that_shall_close(tmp_path: Path, headers: dict[str, str], version: str) -> None:
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client:
        client.send(head_of(house, len(body), headers, version=version) + body)
        status, given = await client.head()
        assert status == 200
        assert given.get("connection", "close" if version == "1.0" else None) == "close"
        assert len(await client.rest(1)) == int(given["content-length"])


async def test_http_1_0_that_asks_to_stay(tmp_path: Path) -> None:
    body = body_of()
    async with serving(tmp_path) as house, wire(house) as client:
        for _ in range(2):
            client.send(head_of(house, len(body), {"connection": "keep-alive"}, version="1.0") + body)
            status, given = await client.head()
            assert (status, given["connection"]) == (200, "keep-alive")
            await client.read(int(given["content-length"]))


async def test_head_has_no_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as house, wire(house) as client:
        client.send(head_of(house, 0, method="HEAD"))
        status, _ = await client.head()
        assert status == 405
        client.send(head_of(house, 0, method="HEAD", path="/v1/models"))
        assert (await client.head())[0] == 200


async def cookie(request: web.Request, response: web.Response) -> None:
    response.set_cookie("session", "1")


async def compression(request: web.Request, response: web.Response) -> None:
    response.enable_compression()


async def chunking(request: web.Request, response: web.Response) -> None:
    response.enable_chunked_encoding()


async def own_gzip(request: web.Request, response: web.Response) -> None:
    assert isinstance(response.body, bytes)
    response.body = gzip.compress(response.body)
    response.headers["Content-Encoding"] = "gzip"


async def common_headers(request: web.Request, response: web.Response) -> None:
    """What hosts set that aiohttp would otherwise add: it must not stand there twice."""
    response.headers["Server"] = "the host"
    response.headers["Date"] = "Sat, 01 Jan 2000 00:00:00 GMT"


async def length(request: web.Request, response: web.Response) -> None:
    assert isinstance(response.body, bytes)
    response.headers["Content-Length"] = str(len(response.body))


async def another_status(request: web.Request, response: web.Response) -> None:
    response.set_status(202, "Fine")


async def closing(request: web.Request, response: web.Response) -> None:
    response.force_close()


async def text(request: web.Request, response: web.Response) -> None:
    response.text = "grüezi"


HOSTS: dict[str, tuple[Around, dict[str, str]]] = {
    "a cookie": (cookie, {"set-cookie": "session=1; Path=/"}),
    "compression": (compression, {"content-encoding": "gzip"}),
    "chunked": (chunking, {"transfer-encoding": "chunked"}),
    "its own gzip": (own_gzip, {"content-encoding": "gzip"}),
    "server and date": (common_headers, {"server": "the host", "date": "Sat, 01 Jan 2000 00:00:00 GMT"}),
    "content-length": (length, {}),
    "another status": (another_status, {}),
    "closing": (closing, {"connection": "close"}),
    "another text": (text, {}),
}


@pytest.mark.parametrize("name", HOSTS)
async def test_what_a_host_does_to_an_answer(tmp_path: Path, name: str) -> None:
    change, expected = HOSTS[name]
    body = body_of("word " * 200)
    async with serving(tmp_path, host=host_with(change)) as house, wire(house) as client:
        client.send(head_of(house, len(body), {"accept-encoding": "gzip"}) + body)
        status, headers = await client.head()
        assert (status, client.reason) == ((202, "Fine") if name == "another status" else (200, "OK"))
        assert {key: headers.get(key) for key in expected} == expected
        if "transfer-encoding" in headers:
            assert "content-length" not in headers
            answer = await client.pieces()
        else:
            answer = await client.read(int(headers["content-length"]))
        if headers.get("content-encoding") == "gzip":
            answer = gzip.decompress(answer)
        if name == "another text":
            assert answer.decode() == "grüezi"
        else:
            assert json.loads(answer)["choices"][0]["message"]["content"].startswith("You said: word")
        if name == "closing":
            assert await client.rest(1) == b""


@pytest.mark.parametrize("outer", [False, True], ids=["bare host", "host with a middleware"])
async def test_signals_of_the_host_are_sent(tmp_path: Path, http: aiohttp.ClientSession, outer: bool) -> None:
    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["x-signal"] = "seen"

    host = host_with() if outer else web.Application()
    host.on_response_prepare.append(prepare)
    async with serving(tmp_path, host=host) as house:
        for stream in (False, True):
            response = await http.post(house.base + CHAT, json=json.loads(body_of(stream=stream)))
            assert response.headers["x-signal"] == "seen"
            assert await response.read()


async def test_no_header_is_smuggled_in(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    async def inject(request: web.Request, response: web.Response) -> None:
        response.headers[request.headers.get("x-name", "x-fine")] = "a\r\nSet-Cookie: stolen=1"

    async def inject_name(request: web.Request, response: web.Response) -> None:
        response.headers["x-a: b\r\nSet-Cookie"] = "stolen=1"

    body = body_of()
    for change in (inject, inject_name):
        async with serving(tmp_path, host=host_with(change)) as house, wire(house) as client:
            client.send(head_of(house, len(body), {"connection": "close"}) + body)
            raw = await client.rest()
            assert b"Set-Cookie" not in raw
            assert not raw.startswith(b"HTTP/1.1 200")
    assert "injection" in log.text
    log.clear()


@pytest.mark.parametrize("bad", ["a\nb: c", "a\rb", "a\r\n", "\r\nx: y", "a\0", "\n"])
@pytest.mark.parametrize("where", ["name", "value", "beside a letter that is not printable"])
def test_a_break_is_found_wherever_it_stands(bad: str, where: str) -> None:
    headers = {"x-fine": "1", bad if where == "name" else "x-a": "1" if where == "name" else bad}
    if where.startswith("beside"):
        headers["x-tab"] = "a\tb"
    with pytest.raises(ValueError, match="line break or a NUL"):
        whole.head_of(200, headers, "content-length: 0\r\n", True)


@pytest.mark.parametrize("stays_open", [False, True])
@pytest.mark.parametrize(
    "headers",
    [{}, {"x-a": ""}, {"x-a": "b", "x-c": "d, e"}, {"x-a": "tab\there"}, {"x-a": "\udcff \x7f"}, {"x-a": "\u2028 ä"}],
)
def test_a_head_says_all_of_it_and_no_more(headers: dict[str, str], stays_open: bool) -> None:
    raw = whole.head_of(418, headers, "content-length: 2\r\n", stays_open)
    lines = raw.decode("utf-8", "surrogateescape").split("\r\n")
    count = 1 + len(headers)
    assert lines[:count] == ["HTTP/1.1 418 I'm a Teapot", *(f"{name}: {value}" for name, value in headers.items())]
    assert lines[count] == "content-length: 2"
    names = [line.partition(":")[0] for line in lines[count + 1 :]]
    assert names == ["date", "server", *([] if stays_open else ["connection"]), "", ""]


class Remembering(AbstractAccessLogger):
    """An access logger of a host."""

    lines: list[tuple[int, int, str | None, bool]] = []

    @property
    def enabled(self) -> bool:
        return True

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        kind = response.headers.get("Content-Type")
        self.lines.append((response.status, response.body_length, kind, response.prepared))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_hosts_access_log(tmp_path: Path, http: aiohttp.ClientSession, stream: bool) -> None:
    Remembering.lines.clear()
    options = {"access_log_class": Remembering, "access_log": logging.getLogger("host.access")}
    async with serving(tmp_path, host=web.Application(), **options) as house:
        response = await http.post(house.base + CHAT, json=json.loads(body_of(stream=stream)))
        size = len(await response.read())
        await until(lambda: Remembering.lines)
        missing = await http.post(house.base + "/nowhere", json={})
        missed = len(await missing.read())
        await until(lambda: len(Remembering.lines) == 2)
    (status, logged, kind, prepared), (other_status, other_logged, _, _) = Remembering.lines
    assert (status, kind, prepared) == (200, response.headers["Content-Type"], True)
    assert logged >= size if stream else logged == size  # of a stream, aiohttp counts the framing too
    assert (other_status, other_logged) == (404, missed)


async def test_a_client_that_asks_and_never_reads_is_not_asked_to_hold_it_all(tmp_path: Path) -> None:
    """Pipelined answers wait for their reader: what nobody reads is not answered any more."""
    text = SIMULATED.replace("{adapter: simulator}", f"{{adapter: simulator, script: ['text {'x' * 60_000}']}}")
    body = body_of()
    async with serving(tmp_path, text) as house, wire(house, receive_buffer=8192) as client:
        request = head_of(house, len(body)) + body
        served = 0
        original = house.gateway.prepare

        def counting(*arguments: Any, **more: Any) -> Any:
            nonlocal served
            served += 1
            return original(*arguments, **more)

        house.gateway.prepare = counting  # type: ignore[method-assign]
        for _ in range(400):
            client.send(request)
        last = -1
        while last != served:
            last = served
            await asyncio.sleep(0.1)
        waiting = max(
            connection.transport.get_write_buffer_size()
            for connection in _connections(house)
            if connection.transport is not None
        )
        assert waiting < 256 * 1024
        assert served < 400
        client.leave()


def _connections(house: House) -> list[Any]:
    assert house.runner.server is not None
    return list(house.runner.server.connections)


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body(status: int) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return WholeAnswer(b"{}", status, {})

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        raw = await asyncio.wait_for(reader.read(), 5)
        assert raw.startswith(b"HTTP/1.1 %d" % status)
        assert raw.endswith(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()


async def test_a_large_answer_waits_for_its_reader(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    text = SIMULATED.replace("{adapter: simulator}", f"{{adapter: simulator, script: ['text {'y' * 500_000}']}}")
    async with serving(tmp_path, text) as house:
        response = await http.post(house.base + CHAT, json=json.loads(body_of()))
        answer = await response.json()
        assert len(answer["choices"][0]["message"]["content"]) == 500_000
