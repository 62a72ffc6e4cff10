"""The ways to an upstream beyond plain TCP: TLS, client certificates, forward proxies, unix sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from headgate.gateway.errors import GatewayError
from headgate.gateway.relay.scope import Scope
from headgate.gateway.transport.options import TransportOptions
from headgate.gateway.units import Secret

from .calls import flow, send
from .conftest import Certs, Make, Serve
from .servers import Peer, Request, Script, answers, whole

OK = whole(b"{}")


async def refused(work: object) -> str:
    """Await ``work``; return the message of the ConnectFailed that it must raise."""
    with pytest.raises(GatewayError) as caught:
        await work  # type: ignore[misc]
    assert caught.value.kind == "connect", caught.value
    return str(caught.value)


# --- TLS


@pytest.mark.parametrize("trusted", [False, True])
async def test_own_authority(make: Make, serve: Serve, scope: Scope, certs: Certs, trusted: bool) -> None:
    upstream = await serve(answers(OK), tls=certs.server_context())
    transport = make(TransportOptions(ca_bundle=certs.authority if trusted else None), needs="tls")
    if trusted:
        for _ in range(2):
            assert await (await send(transport, scope, upstream.url)).read(10) == b"{}"
        assert (await flow(await send(transport, scope, upstream.url))).data == b"{}"
        assert len(upstream.peers) == 1
    else:
        message = await refused(send(transport, scope, upstream.url))
        assert "certificate verify failed" in message and "ca_bundle" in message
        assert upstream.url.split("/")[2] in message


async def test_wrong_host_name(make: Make, serve: Serve, scope: Scope, certs: Certs) -> None:
    upstream = await serve(answers(OK), tls=certs.server_context())
    transport = make(TransportOptions(ca_bundle=certs.authority), needs="tls")
    url = upstream.url.replace("127.0.0.1", "localhost")
    assert "certificate verify failed" in await refused(send(transport, scope, url))


async def test_unverified(make: Make, serve: Serve, scope: Scope, certs: Certs) -> None:
    upstream = await serve(answers(OK), tls=certs.server_context())
    transport = make(TransportOptions(verify=False), needs="tls")
    assert await (await send(transport, scope, upstream.url)).read(10) == b"{}"


async def test_client_certificate(make: Make, serve: Serve, scope: Scope, certs: Certs) -> None:
    upstream = await serve(answers(OK), tls=certs.server_context(client_required=True))
    options = TransportOptions(ca_bundle=certs.authority, client_cert=certs.client, client_key=certs.client_key)
    assert await (await send(make(options, needs="tls"), scope, upstream.url)).read(10) == b"{}"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificate_missing(
    make: Make, serve: Serve, scope: Scope, certs: Certs, version: ssl.TLSVersion
) -> None:
    context = certs.server_context(client_required=True)
    context.maximum_version = version
    upstream = await serve(answers(OK), tls=context)
    with pytest.raises(GatewayError) as caught:
        await send(make(TransportOptions(ca_bundle=certs.authority), needs="tls"), scope, upstream.url)
    # With TLS 1.3 the request is under way when the server says no, and its reset may outrun the alert.
    assert caught.value.kind in ("connect", "cut" if version is ssl.TLSVersion.TLSv1_3 else "connect")


async def test_plain_server_behind_https(make: Make, serve: Serve, scope: Scope) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(100)
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    upstream = await serve(script)
    transport = make(needs="tls")
    message = await refused(send(transport, scope, upstream.url.replace("http:", "https:")))
    assert "TLS" in message


async def test_abort_over_tls(make: Make, serve: Serve, scope: Scope, certs: Certs) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await peer.gone()

    upstream = await serve(script, tls=certs.server_context())
    transport = make(TransportOptions(ca_bundle=certs.authority), needs="tls")
    (await send(transport, scope, upstream.url)).abort()
    await upstream.drained()


# --- proxies

LOGIN = "proxy-user:p:ss"


def proxy(seen: list[Request], *, answer: bytes | None = None) -> Script:
    """Return the script of a forward proxy that wants LOGIN."""
    wanted = "Basic " + base64.b64encode(LOGIN.encode()).decode()

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            seen.append(request)
            if answer is not None:
                return await peer.say(answer)
            if request.header("proxy-authorization") != wanted:
                await peer.say(whole(b"who?", "Proxy-Authenticate: Basic", status="407 Proxy Authentication Required"))
            elif request.method == "CONNECT":
                return await tunnel(peer, request.target)
            else:
                await peer.say(whole(b'{"by":"proxy"}'))
        return None

    return script


async def tunnel(peer: Peer, target: str) -> None:
    host, _, port = target.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await peer.say(b"HTTP/1.1 200 Connection established\r\n\r\n")

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
        sink.close()

    try:
        await asyncio.gather(copy(peer.reader, writer), copy(reader, peer.writer))
    finally:
        writer.close()


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Secret]:
    def give(value: str) -> Secret:
        monkeypatch.setenv("TEST_PROXY_LOGIN", value)
        return Secret("env:TEST_PROXY_LOGIN")

    return give


async def test_plain_http_through_a_proxy(
    make: Make, serve: Serve, scope: Scope, login: Callable[[str], Secret]
) -> None:
    seen: list[Request] = []
    middle = await serve(proxy(seen))
    address = middle.url.removesuffix("/v1/x")
    transport = make(TransportOptions(proxy=address, proxy_auth=login(LOGIN)), needs="proxy")
    for _ in range(2):
        exchange = await send(transport, scope, "http://provider.invalid/v1/x?a=b")
        assert await exchange.read(100) == b'{"by":"proxy"}'
    assert [(request.method, request.target) for request in seen] == [("POST", "http://provider.invalid/v1/x?a=b")] * 2
    assert len(middle.peers) == 1


async def test_https_through_a_proxy(
    make: Make, serve: Serve, scope: Scope, certs: Certs, login: Callable[[str], Secret]
) -> None:
    requests: list[Request] = []

    async def script(peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            requests.append(request)
            await peer.say(OK)

    upstream = await serve(script, tls=certs.server_context())
    seen: list[Request] = []
    middle = await serve(proxy(seen))
    options = TransportOptions(
        proxy=middle.url.removesuffix("/v1/x"), proxy_auth=login(LOGIN), ca_bundle=certs.authority
    )
    transport = make(options, needs="proxy")
    for _ in range(2):
        assert await (await send(transport, scope, upstream.url)).read(10) == b"{}"
    assert [(request.method, request.target) for request in seen] == [("CONNECT", upstream.url.split("/")[2])]
    assert [request.header("proxy-authorization") for request in requests] == [None, None]


@pytest.mark.parametrize("url", ["http://provider.invalid/x", "https://provider.invalid/x"])
async def test_proxy_refuses_us(
    make: Make, serve: Serve, scope: Scope, login: Callable[[str], Secret], url: str
) -> None:
    middle = await serve(proxy([]))
    options = TransportOptions(proxy=middle.url.removesuffix("/v1/x"), proxy_auth=login("proxy-user:wrong"))
    message = await refused(send(make(options, needs="proxy"), scope, url))
    assert "407" in message and "proxy-user" not in message


async def test_proxy_cannot_reach_the_provider(make: Make, serve: Serve, scope: Scope) -> None:
    middle = await serve(proxy([], answer=whole(b"", status="502 Bad Gateway")))
    options = TransportOptions(proxy=middle.url.removesuffix("/v1/x"))
    assert "502" in await refused(send(make(options, needs="proxy"), scope, "https://provider.invalid/x"))


async def test_proxy_is_down(make: Make, serve: Serve, scope: Scope) -> None:
    middle = await serve(proxy([]))
    await middle.close()
    options = TransportOptions(proxy=middle.url.removesuffix("/v1/x"))
    message = await refused(send(make(options, needs="proxy"), scope, "https://provider.invalid/x"))
    assert "proxy" in message and middle.url.split("/")[2] in message


async def test_environment_is_not_asked_for_a_proxy(
    make: Make, serve: Serve, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    upstream = await serve(answers(OK))
    assert await (await send(make(), scope, upstream.url)).read(10) == b"{}"


# --- unix sockets


async def test_unix_socket(make: Make, serve: Serve, scope: Scope, tmp_path: Path) -> None:
    path = tmp_path / "s"
    upstream = await serve(answers(OK), path=path)
    transport = make(TransportOptions(unix_socket=str(path)), needs="unix")
    for _ in range(2):
        assert await (await send(transport, scope, "http://anything/v1/x")).read(10) == b"{}"
    assert len(upstream.peers) == 1


async def test_unix_socket_that_is_not_there(make: Make, scope: Scope, tmp_path: Path) -> None:
    transport = make(TransportOptions(unix_socket=str(tmp_path / "s")), needs="unix")
    message = await refused(send(transport, scope, "http://anything/v1/x"))
    assert str(tmp_path / "s") in message and "No such file" in message


async def test_unix_socket_and_https(make: Make, scope: Scope, tmp_path: Path) -> None:
    transport = make(TransportOptions(unix_socket=str(tmp_path / "s")), needs="unix")
    assert "http://" in await refused(send(transport, scope, "https://anything/v1/x"))
