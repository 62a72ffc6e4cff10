"""What the rule file may say about a transport, and what is refused before anything is opened."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
from headgate.gateway.transport.options import TransportOptions, ssl_context
from headgate.gateway.transport.session import SessionTransport
from headgate.gateway.units import Secret, decode_unit

from .conftest import Certs


def load(said: dict[str, Any]) -> TransportOptions:
    return msgspec.convert(said, TransportOptions, dec_hook=decode_unit)


def test_defaults() -> None:
    options = load({})
    assert options == TransportOptions()
    assert (options.max_connections, options.keep_alive, options.dns_ttl, options.verify) == (1000, 15.0, 60.0, True)
    assert ssl_context(options) is None


def test_everything() -> None:
    said = {
        "max_connections": 7,
        "keep_alive": "5s",
        "dns_ttl": "10m",
        "proxy": "http://proxy:3128",
        "proxy_auth": "env:LOGIN",
        "ca_bundle": "/ca.pem",
        "client_cert": "/c.pem",
        "client_key": "/k.pem",
    }
    options = load(said)
    assert (options.keep_alive, options.dns_ttl, options.proxy_auth) == (5.0, 600.0, Secret("env:LOGIN"))


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"max_conections": 1}, "max_conections"),
        ({"max_connections": 0}, "max_connections"),
        ({"keep_alive": "0s"}, "keep_alive"),
        ({"keep_alive": 15}, "duration"),
        ({"proxy": "proxy:3128"}, "http://host:port"),
        ({"proxy": "socks5://proxy:1080"}, "http://host:port"),
        ({"proxy": "http://"}, "http://host:port"),
        ({"proxy": "http://proxy:99999"}, "proxy is not a URL"),
        ({"proxy": "http://proxy:1/path"}, "after the port"),
        ({"proxy": "http://me:hunter2@proxy:1"}, "proxy_auth"),
        ({"proxy_auth": "env:X"}, "without proxy"),
        ({"proxy": "http://proxy:1", "unix_socket": "/s"}, "exclude"),
        ({"unix_socket": ""}, "unix_socket is empty"),
        ({"client_key": "/k.pem"}, "without client_cert"),
        ({"ca_bundle": "/ca.pem", "verify": False}, "choose one"),
    ],
)
def test_refused_when_loaded(said: dict[str, Any], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        load(said)
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_refused_when_built(certs: Certs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    monkeypatch.setenv("BAD_LOGIN", "nocolon")
    proxy = "http://proxy:1"
    table = [
        (TransportOptions(ca_bundle=str(tmp_path / "none.pem")), "No such file"),
        (TransportOptions(ca_bundle=str(garbage)), "PEM"),
        (TransportOptions(client_cert=str(garbage)), "PEM"),
        (TransportOptions(client_cert=certs.client), "PEM"),
        (TransportOptions(client_cert=certs.client, client_key=certs.server_key), "PEM"),
        (TransportOptions(client_cert=certs.client, client_key=certs.locked_key), "encrypted"),
        (TransportOptions(proxy=proxy, proxy_auth=Secret("env:NOT_SET_AT_ALL")), "NOT_SET_AT_ALL"),
        (TransportOptions(proxy=proxy, proxy_auth=Secret("env:BAD_LOGIN")), "user:password"),
    ]
    for options, complaint in table:
        with pytest.raises(ValueError) as caught:
            SessionTransport(options)
        assert complaint in str(caught.value)
        assert "nocolon" not in str(caught.value)


def test_contexts(certs: Certs) -> None:
    own = ssl_context(TransportOptions(ca_bundle=certs.authority))
    assert own is not None and own.verify_mode is ssl.CERT_REQUIRED and own.check_hostname
    assert len(own.get_ca_certs()) == 1, "the bundle stands in place of the system's"
    lax = ssl_context(TransportOptions(verify=False))
    assert lax is not None and lax.verify_mode is ssl.CERT_NONE


def test_making_one_needs_no_loop() -> None:
    SessionTransport()
