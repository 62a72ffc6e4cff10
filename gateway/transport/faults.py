"""How a broken connection reads in a sentence: what the operating system and TLS say, and what it means for the request."""

from __future__ import annotations

import os
import ssl
from typing import Final

MAYBE_DONE: Final = "the request had been sent, so it may have been processed"
NOT_WHOLE: Final = "the request had not been sent whole, so it was not processed"

_CERT_ALERTS: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "UNKNOWN_CA")
"""How servers say that they want a client certificate, or another one (RFC 8446, 6.2)."""

_UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})
"""OpenSSL's X509_V_ERR codes for a certificate, or a chain, whose root nobody here knows."""


def reason(fault: BaseException) -> str:
    """Return why a connection failed, without addresses."""
    if isinstance(fault, ssl.SSLError):
        return tls_reason(fault)
    if isinstance(fault, OSError) and fault.errno is not None and fault.errno > 0:
        return os.strerror(fault.errno)
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return first_line(str(fault)) or type(fault).__name__


def tls_reason(fault: BaseException) -> str:
    """Return why TLS failed, with a hint where there is one."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        hint = ""
        if fault.verify_code in _UNKNOWN_AUTHORITY:
            hint = "; if its authority is to be trusted, name it in the transport's ca_bundle"
        return f"certificate verify failed: {fault.verify_message.rstrip('.')}{hint}"
    if isinstance(fault, ssl.CertificateError):
        return f"certificate verify failed: {fault}"
    if isinstance(fault, ssl.SSLError):
        why = fault.reason or "no reason given"
        hint = "; does the server ask for a client certificate (client_cert)?" if why.endswith(_CERT_ALERTS) else ""
        return f"TLS failed ({why}){hint}"
    return str(fault)


def tls_refusal(fault: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS alert behind ``fault``, if there is one.

    With TLS 1.3 a server refuses a missing client certificate only after our side is done with the handshake.
    """
    while fault is not None:
        if isinstance(fault, ssl.SSLError) and "ALERT" in (fault.reason or ""):
            return fault
        fault = fault.__cause__
    return None


def first_line(text: str) -> str:
    """Return the sentence of a parser's complaint, without the bytes that it quotes."""
    return text.strip().split("\n", 1)[0].partition(": b'")[0].strip().rstrip(":")[:120]
