"""What aiohttp's client raises, as the errors of this house. Messages name host and port, never a URL or a header."""

from __future__ import annotations

import ssl

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.http_exceptions import ContentLengthError, HttpProcessingError

from ..errors import ConnectFailed, Cut, GatewayError, HouseError, Malformed, upstream_error
from .faults import MAYBE_DONE, NOT_WHOLE, first_line, reason, tls_reason, tls_refusal


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
        return ConnectFailed(f"cannot connect to {place}: {tls_reason(fault.certificate_error)}")
    if isinstance(fault, aiohttp.ClientHttpProxyError):
        return ConnectFailed(f"cannot connect to {place}: the proxy answered {fault.status} {fault.message}".rstrip())
    if isinstance(fault, aiohttp.ClientResponseError):
        return Malformed(f"{place} does not answer in HTTP: {first_line(fault.message)}")
    if isinstance(fault, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return HouseError("the URL of the upstream is not an http or https URL")
    if isinstance(fault, ValueError):
        return HouseError(f"the request to {place} cannot be written: {fault}")
    if (refusal := tls_refusal(fault)) is not None:
        return ConnectFailed(f"cannot connect to {place}: {tls_reason(refusal)}")
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
            return Malformed(f"the answer of {place} is malformed: {first_line(str(seen.message))}")
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
    if isinstance(fault, ssl.SSLError) or (isinstance(fault, OSError) and fault.errno is not None and fault.errno > 0):
        return reason(fault)
    if isinstance(fault, aiohttp.ClientError):
        return "connection lost"  # its text may hold the URL
    if isinstance(fault, HttpProcessingError):
        return first_line(fault.message)
    return reason(fault)


def _root(fault: BaseException) -> BaseException:
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return fault
