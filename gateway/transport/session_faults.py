"""What aiohttp's client raises, as the errors of this house. Messages name host and port, never a URL or a header."""

from __future__ import annotations

import os
import ssl
from typing import Final

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.http_exceptions import ContentLengthError, HttpProcessingError

from ..errors import ConnectFailed, Cut, GatewayError, HouseError, Malformed, upstream_error

MAYBE_DONE: Final = "the request had been sent, so it may have been processed"
NOT_WHOLE: Final = "the request had not been sent whole, so it was not processed"

_CERT_ALERTS: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "UNKNOWN_CA")
"""How servers say that they want a client certificate, or another one (RFC 8446, 6.2)."""

_UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})
"""OpenSSL's X509_V_ERR codes for a certificate, or a chain, whose root nobody here knows."""


class NotRepeated(aiohttp.ClientError):
    """Stands for its ``__cause__``, a lost connection, so that ClientSession does not send the request again."""


def submit_error(fault: BaseException, place: str, sent_whole: bool | None) -> GatewayError:
    """Return what kept ``submit`` from the response headers as one of our errors.

    ``sent_whole`` says whether all of the body went out, None where only ``fault`` itself may tell.
    """
    if isinstance(fault, NotRepeated) and fault.__cause__ is not None:
        fault = fault.__cause__
    if isinstance(fault, GatewayError):
        return fault
    if isinstance(fault, aiohttp.ConnectionTimeoutError):
        return upstream_error("timeout.connect", f"cannot connect to {place}: no connection in time")
    if isinstance(fault, aiohttp.ClientConnectorError):
        return _connect_error(fault, place)
    if isinstance(fault, aiohttp.ClientConnectorCertificateError):
        return ConnectFailed(f"cannot connect to {place}: {_tls_reason(fault.certificate_error)}")
    if isinstance(fault, aiohttp.ClientHttpProxyError):
        return ConnectFailed(f"cannot connect to {place}: the proxy answered {fault.status} {fault.message}".rstrip())
    if isinstance(fault, aiohttp.ClientResponseError):
        return Malformed(f"{place} does not answer in HTTP: {_first_line(fault.message)}")
    if isinstance(fault, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return HouseError("the URL of the upstream is not an http or https URL")
    if isinstance(fault, ValueError):
        return HouseError(f"the request to {place} cannot be written: {fault}")
    if (refusal := _tls_refusal(fault)) is not None:
        return ConnectFailed(f"cannot connect to {place}: {_tls_reason(refusal)}")
    root = _root(fault)
    if sent_whole is None:
        sent_whole = not isinstance(root, aiohttp.ClientConnectionResetError)
    how = MAYBE_DONE if sent_whole else NOT_WHOLE
    return Cut(f"{place} closed the connection before its answer ({_reason(root)}); {how}")


def body_error(fault: BaseException, protocol_fault: BaseException | None, place: str) -> GatewayError:
    """Return what ended a body early: Malformed where the bytes were wrong, else Cut.

    ``protocol_fault`` is what the connection as a whole says, which knows a parser's complaint when the body does not.
    """
    root = _root(fault)
    for seen in (protocol_fault, root):
        if isinstance(seen, ContentLengthError):
            break
        if isinstance(seen, HttpProcessingError) and "Not enough data" not in str(seen.message):
            return Malformed(f"the answer of {place} is malformed: {_first_line(str(seen.message))}")
    return Cut(f"{place} closed the connection in the middle of its answer ({_reason(root)})")


def _connect_error(fault: aiohttp.ClientConnectorError, place: str) -> ConnectFailed:
    if isinstance(fault, UnixClientConnectorError):
        return ConnectFailed(f"cannot connect to the socket {fault.path}: {_reason(fault.os_error)}")
    if isinstance(fault, aiohttp.ClientProxyConnectionError):
        return ConnectFailed(f"cannot connect to the proxy {fault.host}:{fault.port}: {_reason(fault.os_error)}")
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        return ConnectFailed(f"cannot find the address of {fault.host}: {_reason(fault.os_error)}")
    if isinstance(fault.os_error, ConnectionResetError) and fault.ssl is not False and fault.os_error.errno is None:
        # asyncio's way of saying that the connection ended under the handshake
        return ConnectFailed(f"cannot connect to {place}: the server ended the TLS handshake")
    return ConnectFailed(f"cannot connect to {place}: {_reason(fault.os_error)}")


def _reason(fault: BaseException) -> str:
    if isinstance(fault, ssl.SSLError):
        return _tls_reason(fault)
    if isinstance(fault, OSError) and fault.errno is not None and fault.errno > 0:
        return os.strerror(fault.errno)
    if isinstance(fault, aiohttp.ClientError):
        return "connection lost"  # its text may hold the URL
    if isinstance(fault, HttpProcessingError):
        return _first_line(fault.message)
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return _first_line(str(fault)) or type(fault).__name__


def _tls_reason(fault: BaseException) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        hint = ""
        if fault.verify_code in _UNKNOWN_AUTHORITY:
            hint = "; if its authority is to be trusted, name it in the transport's ca_bundle"
        return f"certificate verify failed: {fault.verify_message.rstrip('.')}{hint}"
    if isinstance(fault, ssl.CertificateError):
        return f"certificate verify failed: {fault}"
    if isinstance(fault, ssl.SSLError):
        reason = fault.reason or "no reason given"
        hint = "; does the server ask for a client certificate (client_cert)?" if reason.endswith(_CERT_ALERTS) else ""
        return f"TLS failed ({reason}){hint}"
    return str(fault)


def _tls_refusal(fault: BaseException) -> ssl.SSLError | None:
    """The TLS alert behind ``fault``, if there is one.

    With TLS 1.3 a server refuses a missing client certificate only after our side is done with the handshake.
    """
    seen: BaseException | None = fault
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and "ALERT" in (seen.reason or ""):
            return seen
        seen = seen.__cause__
    return None


def _root(fault: BaseException) -> BaseException:
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return fault


def _first_line(text: str) -> str:
    """The sentence of a parser's complaint, without the bytes that it quotes."""
    return text.strip().split("\n", 1)[0].partition(": b'")[0].strip().rstrip(":")[:120]
