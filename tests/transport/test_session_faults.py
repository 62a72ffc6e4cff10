"""How aiohttp's exceptions read as errors of this house, where no server on loopback can cause them at will."""

from __future__ import annotations

import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from headgate.gateway.transport.session_faults import NotRepeated, submit_error

KEY = ConnectionKey("api.example", 443, True, True, None, None, None)


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


def caused(fault: BaseException, cause: BaseException) -> BaseException:
    fault.__cause__ = cause
    return fault


TABLE: list[tuple[BaseException, str, str]] = [
    (aiohttp.ClientConnectorDNSError(KEY, OSError(None, "no such name")), "connect", "address of api.example: no such"),
    (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "Name not known")), "connect", "Name not known"),
    (aiohttp.ClientConnectorError(KEY, OSError(113, "")), "connect", "No route to host"),
    (aiohttp.ClientConnectorSSLError(KEY, tls_error("WRONG_VERSION_NUMBER")), "connect", "WRONG_VERSION_NUMBER"),
    (aiohttp.ClientConnectorSSLError(KEY, tls_error("SSLV3_ALERT_HANDSHAKE_FAILURE")), "connect", "client_cert"),
    (
        caused(aiohttp.ClientOSError(1, "alert"), tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED")),
        "connect",
        "client certificate",
    ),
    (aiohttp.ConnectionTimeoutError("https://api.example/?key=secret"), "timeout.connect", "api.example:443"),
    (aiohttp.ServerDisconnectedError(), "cut", "may have been processed"),
    (caused(NotRepeated(), aiohttp.ServerDisconnectedError()), "cut", "may have been processed"),
    (aiohttp.ClientOSError(104, "reset"), "cut", "Connection reset by peer"),
    (aiohttp.ClientConnectionResetError("Cannot write to closing transport"), "cut", "not processed"),
    (
        caused(
            aiohttp.ClientOSError(None, "Can not write request body for https://api.example/?key=secret"),
            aiohttp.ClientConnectionResetError("Cannot write to closing transport"),
        ),
        "cut",
        "not processed",
    ),
    (aiohttp.InvalidURL("https://u:secret@"), "internal", "URL"),
    (ValueError("Forbidden control character"), "internal", "Forbidden control"),
]


@pytest.mark.parametrize(("fault", "kind", "said"), TABLE)
def test_submit_error(fault: BaseException, kind: str, said: str) -> None:
    error = submit_error(fault, "api.example:443", None)
    assert error.kind == kind
    assert said in str(error)
    assert "secret" not in str(error)
