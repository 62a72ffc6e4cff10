"""The bytes of a request: where its URL leads, and a head in which every header is one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from yarl import URL

from ..errors import HouseError
from .base import Standing

_TARGET: Final = re.compile(r"[!-~]+")
_BLANK: Final = re.compile(r"[\x00-\x20\x7f]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"})
_MEANT_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
"""Their requests say their length even if it is zero (RFC 9110, 8.6)."""
_BROKEN: Final = "a header's value has a line break or a NUL in it"
_MAX_KINDS: Final = 64


class Target:
    """Where a URL leads. ``origin`` is what a connection is good for: scheme, host and port."""

    __slots__ = ("origin", "tls", "host", "port", "place", "_rest", "_kinds")

    def __init__(self, text: str) -> None:
        if _BLANK.search(text):  # a parser of URLs would drop some of them without a word
            raise HouseError("the URL of the upstream is not encoded")
        try:
            url = URL(text, encoded=True)
            host, port, path = url.raw_host, url.port, url.raw_path_qs or "/"
        except ValueError as fault:
            raise HouseError("the URL of the upstream cannot be read") from fault
        if url.scheme not in ("http", "https") or not host or port is None:
            raise HouseError("the URL of the upstream is not an http or https URL")
        if url.raw_user is not None or url.raw_password is not None:
            raise HouseError("the URL of the upstream holds credentials")
        if not _TARGET.fullmatch(path) or not _TARGET.fullmatch(host):
            raise HouseError("the URL of the upstream is not encoded")
        self.tls = url.scheme == "https"
        self.host = host
        self.port = port
        self.place = f"{host}:{port}"
        self.origin = (self.tls, host, port)
        self._rest = f" {path} HTTP/1.1\r\nhost: {url.host_port_subcomponent}\r\n"
        self._kinds: dict[tuple[str | Standing | None, ...], str] = {}

    def head(self, method: str, headers: Mapping[str, str], length: int, standing: Standing | None = None) -> bytes:
        """Return the head of a request. Raises HouseError for one that could be read as something else."""
        kind = self._kinds.get((method, standing, *headers)) or self._learn(method, standing, headers)
        values = (*headers.values(),)
        said = "".join(values)
        if "\n" in said or "\r" in said or "\0" in said:
            raise self._refusal(_BROKEN)
        try:
            if not length and method not in _MEANT_WITH_BODY:
                return f"{kind % values}\r\n".encode("utf-8", "surrogateescape")
            return f"{kind % values}content-length: {length}\r\n\r\n".encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as fault:
            raise self._refusal("a header's value is no text") from fault

    def _learn(self, method: str, standing: Standing | None, headers: Mapping[str, str]) -> str:
        """Return what is the same in all requests of a kind, with a ``%s`` for each value that is not."""
        if not _TOKEN.fullmatch(method) or method == "CONNECT":
            raise self._refusal("not a method")
        start = method + self._rest
        if standing is not None:
            self._check(standing.headers)
            said = "".join(standing.headers.values())
            if "\n" in said or "\r" in said or "\0" in said:
                raise self._refusal(_BROKEN)
            start += "".join([f"{name}: {value}\r\n" for name, value in standing.headers.items()])
        self._check(headers)
        kind = start.replace("%", "%%") + "".join([f"{name.replace('%', '%%')}: %s\r\n" for name in headers])
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()  # reloads bring new ones
        self._kinds[(method, standing, *headers)] = kind
        return kind

    def _check(self, names: Iterable[str]) -> None:
        for name in names:
            if not _TOKEN.fullmatch(name):
                raise self._refusal("not a header's name")
            if name.lower() in _FRAMING:
                raise self._refusal(f"{name.lower()} is the transport's to say")

    def _refusal(self, why: str) -> HouseError:
        return HouseError(f"the request to {self.place} cannot be written: {why}")
