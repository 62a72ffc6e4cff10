"""The section ``media`` of a rule file."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from ..units import Duration, Size

_HOST: Final = re.compile(
    r"(?:\*|(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
)


class FetchRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which URLs of callers may be fetched. Without this section none is."""

    hosts: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Such as ``images.example``, ``*.cdn.example``, ``files.internal:8080`` or ``"*"`` for any. Without a port it is the usual
    one of http and https. Redirects are followed to these hosts alone."""
    max_size: Size = Size(10 * 1024 * 1024)
    """The largest file; a larger one is refused before it is read."""
    timeout: Duration = Duration(10)
    """For one file, its redirects included."""
    private: Literal["refuse", "allow"] = "refuse"
    """``allow``: hosts may have addresses of the own network or machine. Addresses of a link and those where clouds hand out
    credentials are refused all the same."""

    def __post_init__(self) -> None:
        for name in ("max_size", "timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero")
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f'hosts: expected a host such as "images.example" or "*.cdn.example", got "{host}"')

    def allows(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether a URL with this scheme, host (no brackets) and port may be fetched."""
        usual = {"http": 80, "https": 443}.get(scheme)
        if usual is None:
            return False
        asked, port = host.lower().rstrip("."), usual if port is None else port
        return any(_covers(rule.lower(), asked, port, usual) for rule in self.hosts)


class MediaRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images and files that a request gives by URL, for upstreams that take bytes alone."""

    fetch: FetchRules | None = None
    """Which of them the gateway fetches."""


def _covers(rule: str, host: str, port: int, usual: int) -> bool:
    name, colon, wanted = rule.rpartition(":") if not rule.endswith("]") else (rule, "", "")
    if not colon:
        name, wanted = rule, str(usual)
    name = name.strip("[]")
    if str(port) != wanted:
        return False
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]) and host != name[2:])
