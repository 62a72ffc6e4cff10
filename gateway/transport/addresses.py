"""Which addresses a URL of a caller may lead to.

Whatever a name resolves to, what is looked at is the address that is about to be connected to.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_TRANSLATED: Final = (
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("::ffff:0:0:0/96"),  # not ::ffff:0:0/96, which is the mapped one
)
_SPECIAL: Final = (
    ip_network("fec0::/10"),  # of a site, from before fc00::/7
    ip_network("5f00::/16"),
    ip_network("3fff::/20"),
    ip_network("192.0.0.0/24"),
)
"""Not public either, though some versions of Python call them global. Source: IANA's registries of special addresses."""
_NEVER: Final = (
    ip_network("169.254.0.0/16"),  # of the link, and where most clouds hand out credentials
    ip_network("fe80::/10"),
    ip_network("100.100.100.200/32"),  # the same at Alibaba
    ip_network("192.0.0.192/32"),  # at Oracle
    ip_network("168.63.129.16/32"),  # Azure's own, though it looks public
    ip_network("fd00:ec2::254/128"),  # at Amazon
    ip_network("fd20:ce::254/128"),  # at Google
)


def is_allowed(text: str, *, private: bool) -> bool:
    """Whether a connection to the address ``text`` may be made; ``private``: also to one that is not public."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return _is_allowed(address, private)


def _is_allowed(address: IPv4Address | IPv6Address, private: bool) -> bool:
    if isinstance(address, IPv6Address):
        if (inner := _inner(address)) is not None:
            return _is_allowed(inner, private)
        if address.teredo is not None:
            return False
    if address.is_multicast or address.is_unspecified or any(address in network for network in _NEVER):
        return False
    if isinstance(address, IPv4Address) and (address.is_reserved or address in ip_network("0.0.0.0/8")):
        return False
    return private or (address.is_global and not any(address in network for network in _SPECIAL))


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 one stands for; None if it stands for itself."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _TRANSLATED) or (0 < int(address) >> 1 < 1 << 31):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None
