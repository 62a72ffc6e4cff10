"""The lean transport's connections: how they are made, lent, kept and closed; and what it does not write."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
from headgate.gateway.errors import Cancelled, GatewayError, HouseError
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport import lean_pool
from headgate.gateway.transport.lean import URL_LIMIT, LeanTransport
from headgate.gateway.transport.lean_connection import LeanConnection
from headgate.gateway.transport.lean_request import Target
from headgate.gateway.transport.options import TransportOptions
from headgate.gateway.units import Duration

from .calls import MB, fails, open_sockets, send
from .conftest import Certs, Make, Serve
from .servers import CHUNKED, Peer, Request, answers, silent, whole

OK = whole(b"{}")


@pytest.fixture
async def lean() -> AsyncIterator[LeanTransport]:
    transport = LeanTransport()
    yield transport
    await transport.aclose()


async def ask(lean: LeanTransport, scope: Scope, url: str) -> bytes:
    return await (await send(lean, scope, url)).read(99)


# --- lending


async def test_last_in_first_out(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    asked: list[int] = []

    async def script(peer: Peer) -> None:
        number = len(upstream.peers)
        while await peer.request() is not None:
            asked.append(number)
            await peer.say(OK)

    upstream = await serve(script)
    held = [await send(lean, scope, upstream.url) for _ in range(3)]
    assert sorted(asked) == [1, 2, 3]
    for exchange in held:
        await exchange.read(9)
    asked.clear()
    for _ in range(4):
        await ask(lean, scope, upstream.url)
    assert asked == [3, 3, 3, 3]


async def test_idle_connections_are_closed(serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(OK))
    lean = LeanTransport(TransportOptions(keep_alive=Duration(0.1)))
    held = [await send(lean, scope, upstream.url) for _ in range(3)]
    await held[0].read(9)
    await asyncio.sleep(0.05)
    await held[1].read(9)
    await held[2].read(9)
    assert upstream.open == 3
    while upstream.open == 3:
        await asyncio.sleep(0.005)
    assert upstream.open == 2, "one at a time, as they came back"
    await upstream.drained()
    assert await ask(lean, scope, upstream.url) == b"{}"
    await lean.aclose()


async def test_old_connections_are_not_kept(
    lean: LeanTransport, serve: Serve, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = await serve(answers(OK))
    await ask(lean, scope, upstream.url)
    monkeypatch.setattr(lean_pool, "MAX_AGE_S", 0.01)
    await asyncio.sleep(0.02)
    for _ in range(2):
        await ask(lean, scope, upstream.url)
        await asyncio.sleep(0.02)
    assert len(upstream.peers) == 2


async def test_origins_do_not_mix(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    one, two = await serve(answers(whole(b"1"))), await serve(answers(whole(b"2")))
    for _ in range(3):
        assert await ask(lean, scope, one.url) == b"1"
        assert await ask(lean, scope, two.url) == b"2"
    assert (len(one.peers), len(two.peers)) == (1, 1)


async def test_any_number_of_urls(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(OK))
    for n in range(URL_LIMIT + 3):
        assert await ask(lean, scope, f"{upstream.url}?n={n}") == b"{}"
    assert len(upstream.peers) == 1


async def test_refused_answer_stops_the_upload(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    """The rest of a body that the provider has refused is not sent into its closing connection."""
    got = 0

    async def script(peer: Peer) -> None:
        nonlocal got
        await peer.head()
        await peer.say(CHUNKED.replace(b"200 OK", b"413 Too Large"), gap=0.05)
        while data := await peer.reader.read(MB):
            got += len(data)

    upstream = await serve(script)
    exchange = await send(lean, scope, upstream.url, b"x" * (48 * MB))
    assert exchange.status == 413
    await asyncio.sleep(0.2)
    exchange.abort()
    await upstream.drained()
    assert got < 24 * MB


@pytest.mark.parametrize("when", ["in line", "connecting"])
@pytest.mark.parametrize("way", ["aclose", "scope", "head deadline"])
async def test_end_before_anything_was_sent(serve: Serve, scope: Scope, when: str, way: str) -> None:
    upstream = await serve(silent)
    lean = LeanTransport(TransportOptions(max_connections=1))
    url = upstream.url.replace("http:", "https:")
    other = Scope(scope.clock)
    if when == "in line":
        held = asyncio.ensure_future(send(lean, scope, upstream.url))  # noqa: TID251
        await asyncio.sleep(0.01)
    before = open_sockets()
    head_s = 0.05 if way == "head deadline" else 5.0
    waiting = asyncio.ensure_future(send(lean, other, url, head_s=head_s))  # noqa: TID251
    await asyncio.sleep(0.02)
    if way == "aclose":
        await asyncio.wait_for(lean.aclose(), 1)
    elif way == "scope":
        other.close()
    await fails(waiting, "timeout.first_token" if way == "head deadline" else "cancelled")
    await asyncio.sleep(0.02)
    assert open_sockets() <= before + 1
    assert not other.items and not other.watched
    other.close()
    await lean.aclose()
    if when == "in line":
        with pytest.raises(Cancelled):
            await held


async def test_many_leave_the_line_at_once(serve: Serve, scope: Scope) -> None:
    upstream = await serve(answers(OK))
    lean = LeanTransport(TransportOptions(max_connections=2))
    held = [await send(lean, scope, upstream.url) for _ in range(2)]
    waiting = [asyncio.ensure_future(ask(lean, scope, upstream.url)) for _ in range(20)]  # noqa: TID251
    await asyncio.sleep(0)
    for each in waiting[::2]:
        each.cancel()
    for exchange in held:  # in the same turn: the cancelled ones stand in line still
        exchange.abort()
    done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
    assert [isinstance(each, asyncio.CancelledError) for each in done] == [True, False] * 10
    assert [await ask(lean, scope, upstream.url) for _ in range(2)] == [b"{}"] * 2
    await lean.aclose()


@pytest.mark.parametrize("way", ["scope", "cancel", "scope, then cancel", "cancel, then scope"])
async def test_leaving_the_line_as_ones_turn_comes(serve: Serve, scope: Scope, way: str) -> None:
    """The slot is given in the very turn of the loop in which its owner goes: it must not go with him."""
    upstream = await serve(answers(OK))
    lean = LeanTransport(TransportOptions(max_connections=1))
    for _ in range(3):
        held = await send(lean, scope, upstream.url)
        other = Scope(scope.clock)
        waiting = other.spawn(ask(lean, other, upstream.url))
        await asyncio.sleep(0)
        held.abort()
        for step in way.split(", then "):
            if step == "scope":
                other.close()
            else:
                waiting.cancel()
        await asyncio.wait((waiting,))
        await other.aclose()
        assert lean._pool.slots.free == 1
    assert await ask(lean, scope, upstream.url) == b"{}"
    await lean.aclose()


# --- names and addresses


class Names:
    """Stands in for getaddrinfo."""

    def __init__(self, *addresses: str, fault: Exception | None = None) -> None:
        self.addresses = addresses
        self.fault = fault
        self.asked = 0

    def lookup(self, host: str, port: int, flags: int = 0) -> list[object]:
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names("127.0.0.1")
    monkeypatch.setattr(lean_pool, "_lookup", made.lookup)
    return made


def named(url: str) -> str:
    return url.replace("127.0.0.1", "provider.test")


async def test_name_is_asked_once_for_all(lean: LeanTransport, serve: Serve, scope: Scope, names: Names) -> None:
    seen: list[str | None] = []

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request.header("host"))
            await peer.say(OK)

    upstream = await serve(script)
    url = named(upstream.url)
    held = await asyncio.gather(*(send(lean, scope, url) for _ in range(5)))
    assert (names.asked, len(upstream.peers)) == (1, 5)
    assert set(seen) == {url.split("/")[2]}
    for exchange in held:
        exchange.abort()
    assert await ask(lean, scope, url) == b"{}"
    assert names.asked == 1


async def test_who_asked_first_may_leave(lean: LeanTransport, serve: Serve, scope: Scope, names: Names) -> None:
    upstream = await serve(answers(OK))
    first, second = (
        asyncio.ensure_future(ask(lean, scope, named(upstream.url)))  # noqa: TID251
        for _ in range(2)
    )
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"{}"
    assert names.asked == 1


async def test_name_without_trust(serve: Serve, scope: Scope, names: Names) -> None:
    upstream = await serve(answers(OK))
    lean = LeanTransport(TransportOptions(dns_ttl=Duration(0)))
    for _ in range(3):
        (await send(lean, scope, named(upstream.url))).abort()
    assert names.asked == 3
    await lean.aclose()


async def test_next_address_is_tried(lean: LeanTransport, serve: Serve, scope: Scope, names: Names) -> None:
    upstream = await serve(answers(OK))
    names.addresses = ("127.99.99.99", "127.0.0.1")  # nobody listens at the first
    assert await ask(lean, scope, named(upstream.url)) == b"{}"


async def test_address_is_forgotten_when_nobody_is_there(
    lean: LeanTransport, serve: Serve, scope: Scope, names: Names
) -> None:
    upstream = await serve(answers(OK))
    names.addresses = ("127.99.99.99",)
    assert "refused" in str(await fails(ask(lean, scope, named(upstream.url)), "connect"))
    names.addresses = ("127.0.0.1",)
    assert await ask(lean, scope, named(upstream.url)) == b"{}"


@pytest.mark.parametrize("fault", [socket.gaierror(-2, "Name not known"), UnicodeError("label too long")])
async def test_name_that_nobody_knows(lean: LeanTransport, scope: Scope, names: Names, fault: Exception) -> None:
    names.fault = fault
    for asked in (1, 2):
        error = await fails(ask(lean, scope, "http://provider.test/"), "connect")
        assert "provider.test" in str(error)
        assert names.asked == (asked if isinstance(fault, OSError) else names.asked)


# --- TLS


async def test_server_is_told_name_and_protocol(serve: Serve, scope: Scope, certs: Certs, names: Names) -> None:
    context = certs.server_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    told: list[str | None] = []
    context.sni_callback = lambda _, name, __: told.append(name)
    spoken: list[str | None] = []

    async def script(peer: Peer) -> None:
        spoken.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        while await peer.request() is not None:
            await peer.say(OK)

    upstream = await serve(script, tls=context)
    lean = LeanTransport(TransportOptions(verify=False))
    assert await ask(lean, scope, named(upstream.url)) == b"{}"
    assert await ask(lean, scope, named(upstream.url).replace(".test", ".test.")) == b"{}"
    assert (told, spoken) == (["provider.test"] * 2, ["http/1.1"] * 2)
    await lean.aclose()


def test_usual_context_checks() -> None:
    context = lean_pool._usual_tls()
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


async def test_big_bodies_over_tls(serve: Serve, scope: Scope, certs: Certs) -> None:
    sizes: list[int] = []

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            sizes.append(len(request.body))
            await peer.say(whole(request.body[::-1]))

    upstream = await serve(script, tls=certs.server_context())
    lean = LeanTransport(TransportOptions(ca_bundle=certs.authority))
    body = bytes(range(251)) * (4 * MB // 251)
    for _ in range(2):
        assert await (await send(lean, scope, upstream.url, body)).read(5 * MB) == body[::-1]
    assert sizes == [len(body)] * 2 and len(upstream.peers) == 1
    await lean.aclose()


# --- requests that are not written

BAD_HEADERS = [
    {"x-a": "b\r\nx-evil: c"},
    {"x-a": "b\nx-evil: c"},
    {"x-a": "b\rc"},
    {"x-a": "b\0c"},
    {"x-a\r\nx-evil": "c"},
    {"x-a: b\r\nx-evil": "c"},
    {"x a": "b"},
    {"x-a:": "b"},
    {"": "b"},
    {"x-ä": "b"},
    {"x-a": "\ud800"},
    {"Host": "elsewhere"},
    {"content-length": "1"},
    {"Transfer-Encoding": "chunked"},
    {"connection": "close"},
]


@pytest.mark.parametrize("headers", BAD_HEADERS, ids=str)
async def test_header_that_is_not_one_line(
    lean: LeanTransport, serve: Serve, scope: Scope, headers: dict[str, str]
) -> None:
    upstream = await serve(answers(OK))
    for _ in range(2):  # what was refused once is not learnt
        error = await fails(send(lean, scope, upstream.url, headers={"x-good": "y", **headers}), "internal")
        assert "cannot be written" in str(error) and "evil" not in str(error)
    assert not upstream.peers and not scope.items and not scope.watched


@pytest.mark.parametrize("headers", [{"x-a": "b\r\nx-evil: c"}, {"x-a": "b\0c"}, {"x-a\r\nx-evil": "c"}], ids=str)
async def test_every_transport_refuses_line_breaks(
    make: Make, serve: Serve, scope: Scope, headers: dict[str, str]
) -> None:
    upstream = await serve(answers(OK))
    await fails(send(make(), scope, upstream.url, headers=headers), "internal")
    assert not scope.items and not scope.watched


async def test_header_that_is_no_text_goes_out_as_it_came(lean: LeanTransport, serve: Serve, scope: Scope) -> None:
    """What a caller sends need not be UTF-8 (RFC 9110, 5.5); a server's decoder hands it on like this.

    aiohttp's client leaves such bytes out without a word.
    """
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.reader.readuntil(b"\r\n\r\n"))
        await peer.say(OK)

    upstream = await serve(script)
    value = b"a\xff\xfe\x80b".decode("utf-8", "surrogateescape")
    exchange = await send(lean, scope, upstream.url, b"", headers={"x-a": value})
    assert await exchange.read(9) == b"{}"
    assert b"\r\nx-a: a\xff\xfe\x80b\r\n" in heads[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a b",
        "http://127.0.0.1:1/a\r\nx-evil: b",
        "http://127.0.0.1:1/?a=\n",
        "http://127.0.0.1:1/ä",
        "ftp://127.0.0.1/",
        "http:///a",
        "http://127.0.0.1:port/",
        "/v1/x",
        "http://user:hunter2@127.0.0.1:1/",
    ],
)
async def test_url_that_is_none(lean: LeanTransport, scope: Scope, url: str) -> None:
    error = await fails(send(lean, scope, url), "internal")
    assert "hunter2" not in str(error) and "evil" not in str(error)


@pytest.mark.parametrize("method", ["", "GET /", "G\r\n", "CONNECT"])
async def test_method_that_is_none(lean: LeanTransport, scope: Scope, method: str) -> None:
    await fails(send(lean, scope, "http://127.0.0.1:1/", method=method), "internal")


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("http://a.test", "POST / HTTP/1.1", "a.test"),
        ("http://a.test:80/x#y", "POST /x HTTP/1.1", "a.test"),
        ("https://a.test:443/x", "POST /x HTTP/1.1", "a.test"),
        ("https://a.test:80/?b=%2F", "POST /?b=%2F HTTP/1.1", "a.test:80"),
        ("http://[::1]:8080/x", "POST /x HTTP/1.1", "[::1]:8080"),
    ],
)
def test_first_lines(url: str, line: str, host: str) -> None:
    assert Target(url).head("POST", {"a": "b"}, 3).decode().split("\r\n") == [
        line,
        f"host: {host}",
        "a: b",
        "content-length: 3",
        "",
        "",
    ]


def test_length_of_nothing() -> None:
    target = Target("http://a.test/")
    assert b"content-length: 0\r\n" in target.head("POST", {}, 0)
    assert b"content-length" not in target.head("GET", {}, 0)


async def test_ipv6(lean: LeanTransport, scope: Scope) -> None:
    seen: list[Request] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await Peer(reader, writer).request()
        assert request is not None
        seen.append(request)
        writer.write(OK)
        await reader.read()
        writer.close()

    try:
        server = await asyncio.start_server(serve_one, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    port = server.sockets[0].getsockname()[1]
    assert await ask(lean, scope, f"http://[::1]:{port}/") == b"{}"
    assert seen[0].header("host") == f"[::1]:{port}"
    await lean.aclose()
    server.close()


async def test_message_of_a_lost_scope(lean: LeanTransport, scope: Scope) -> None:
    scope.close()
    with pytest.raises(GatewayError) as caught:
        await send(lean, scope, "http://127.0.0.1:1/")
    assert not isinstance(caught.value, HouseError) and caught.value.kind == "cancelled"


def test_transports_of_other_loops_will_do() -> None:
    """uvloop's transports are no asyncio.Transport by class."""

    class Transport:
        def is_closing(self) -> bool:
            return False

    loop = asyncio.new_event_loop()
    connection = LeanConnection(lean_pool.LeanPool(TransportOptions()), "here", loop, memoryview(bytearray(9)))
    connection.connection_made(Transport())  # type: ignore[arg-type]
    assert connection.usable
    loop.close()
