"""Addresses to listen on: what ``server.listen`` and ``--listen`` may say, and whether others than this machine reach them."""

from __future__ import annotations

import ipaddress

from msgspec import Struct


class Listen(Struct, frozen=True):
    """Either ``host`` and ``port`` (0: any free one), or the ``path`` of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it. A host name other than localhost counts as reachable."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Read an address. Raises ValueError that says how to spell one."""
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Listen(path=text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'listen: an IPv6 address stands in brackets, "[::1]:8080", got "{text}"')
    if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f'listen: expected "host:port", such as "127.0.0.1:8080", or "unix:/path", got "{text}"')
    return Listen(host, int(port))
