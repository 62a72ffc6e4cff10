"""What a rule file may say about the way to one upstream, and the TLS context that follows from it.

Values only: reading this opens no socket and needs no running loop. Paths are looked at when the context is built.
"""

from __future__ import annotations

import ssl
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from ..units import Duration, MissingSecret, Secret


class TransportOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How to reach one upstream. Every field is optional; a ValueError names the one that makes no sense."""

    max_connections: Annotated[int, Meta(ge=1)] = 1000
    """Exchanges at the same time with this upstream; further ones wait their turn, first come first served. A stream holds
    its connection for as long as it lasts, so this bounds the streams too."""

    keep_alive: Duration = Duration(15)
    """How long an idle connection is kept. Stay below the provider's own limit, or requests meet a closing door."""

    dns_ttl: Duration = Duration(60)
    """How long a looked-up address is believed; ``0s`` asks anew for each connection."""

    proxy: str | None = None
    """``http://host:port`` (or https) of a forward proxy. https upstreams are reached through CONNECT."""

    proxy_auth: Secret | None = None
    """Where to find ``user:password`` for the proxy (Basic)."""

    ca_bundle: str | None = None
    """PEM file of the authorities to trust, in place of the system's."""

    verify: bool = True
    """False trusts any certificate: for a laboratory, never for a provider."""

    client_cert: str | None = None
    """PEM file with our certificate (and chain), for upstreams that ask for one."""

    client_key: str | None = None
    """PEM file with its unencrypted key; not needed when ``client_cert`` holds it too."""

    unix_socket: str | None = None
    """Path of a socket on this machine to connect to, whatever host the URL names. Plain http only."""

    def __post_init__(self) -> None:
        if self.proxy is not None:
            _check_proxy(self.proxy)
            if self.unix_socket is not None:
                raise ValueError("proxy and unix_socket exclude each other")
        if self.proxy_auth is not None and self.proxy is None:
            raise ValueError("proxy_auth is given without proxy")
        if self.keep_alive <= 0:
            raise ValueError("keep_alive must be above zero")
        if self.unix_socket == "":
            raise ValueError("unix_socket is empty")
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key is given without client_cert")
        if self.ca_bundle is not None and not self.verify:
            raise ValueError("ca_bundle says whom to trust, verify: false says anybody: choose one")


def proxy_credentials(options: TransportOptions) -> tuple[str, str] | None:
    """Return user and password for the proxy. Raises ValueError if the secret is missing or not ``user:password``."""
    if options.proxy_auth is None:
        return None
    try:
        secret = options.proxy_auth.read()
    except (OSError, MissingSecret) as fault:
        raise ValueError(f"proxy_auth: {fault}") from fault
    if secret is None:
        return None
    user, colon, password = secret.partition(":")
    if not colon or not user:
        raise ValueError("proxy_auth: the secret must read user:password")
    return user, password


def ssl_context(options: TransportOptions) -> ssl.SSLContext | None:
    """Return the TLS context that ``options`` ask for; None where the usual one will do.

    Raises ValueError for a file that is missing, unreadable or no PEM.
    """
    if options.verify and options.ca_bundle is None and options.client_cert is None:
        return None
    if options.ca_bundle is None:
        context = ssl.create_default_context()
    else:
        try:
            context = ssl.create_default_context(cafile=options.ca_bundle)
        except OSError as fault:  # ssl.SSLError is one too
            raise ValueError(f"ca_bundle {options.ca_bundle!r}: {_reason(fault)}") from fault
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.client_cert is not None:
        _load_client_cert(context, options.client_cert, options.client_key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_client_cert(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    # Without a password callback, OpenSSL would ask the terminal for one and block.
    asked: list[bool] = []

    def no_password() -> str:
        asked.append(True)
        return ""

    try:
        context.load_cert_chain(cert, key, password=no_password)
    except (OSError, ValueError) as fault:
        why = "the key is encrypted: give it without a password" if asked else _reason(fault)
        raise ValueError(f"client_cert {cert!r}, client_key {key!r}: {why}") from fault


def _reason(fault: Exception) -> str:
    if isinstance(fault, ssl.SSLError):
        return f"not a usable PEM file ({fault.reason or fault})"
    if isinstance(fault, OSError):
        return fault.strerror or str(fault)
    return str(fault)


def _check_proxy(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a bad port raises on being read
    except ValueError as fault:
        raise ValueError(f"proxy is not a URL: {fault}") from fault
    if parts.username is not None or parts.password is not None:
        raise ValueError("proxy must not carry user:password: give it as proxy_auth")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"proxy {url!r} must read http://host:port or https://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"proxy {url!r} must end after the port")
