"""The bytes of a request: where its URL leads, and a head in which every header is one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
_LINE: Final = ": ".join
_MAX_LEARNT: Final = 1000
_MAX_STARTS: Final = 16

_known: Final[set[str]] = set()
"""Header names seen to be well-formed. Clients and rule files use the same few again and again."""


class Target:
    """Where a URL leads. ``origin`` is what a connection is good for: scheme, host and port."""

    __slots__ = ("origin", "tls", "host", "port", "place", "_rest", "_starts")

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
        self._starts: dict[tuple[str, Standing | None], str] = {}

    def head(self, method: str, headers: Mapping[str, str], length: int, standing: Standing | None = None) -> bytes:
        """Return the head of a request. Raises HouseError for one that could be read as something else."""
        start = self._starts.get((method, standing)) or self._start(method, standing)
        text = "\r\n".join([*map(_LINE, headers.items()), ""])
        self._check(headers, text)
        try:
            if not length and method not in _MEANT_WITH_BODY:
                return f"{start}{text}\r\n".encode("utf-8", "surrogateescape")
            return f"{start}{text}content-length: {length}\r\n\r\n".encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as fault:
            raise self._refusal("a header's value is no text") from fault

    def _start(self, method: str, standing: Standing | None) -> str:
        if not _TOKEN.fullmatch(method) or method == "CONNECT":
            raise self._refusal("not a method")
        start = method + self._rest
        if standing is not None:
            text = "\r\n".join([*map(_LINE, standing.headers.items()), ""])
            self._check(standing.headers, text)
            start += text
        if len(self._starts) >= _MAX_STARTS:
            self._starts.clear()  # reloads bring new ones
        self._starts[(method, standing)] = start
        return start

    def _check(self, headers: Mapping[str, str], text: str) -> None:
        if not _known.issuperset(headers):
            self._learn(headers)
        lines = len(headers)
        if text.count("\n") != lines or text.count("\r") != lines or "\0" in text:
            raise self._refusal("a header's value has a line break or a NUL in it")

    def _learn(self, headers: Mapping[str, str]) -> None:
        for name in headers:
            if not _TOKEN.fullmatch(name):
                raise self._refusal("not a header's name")
            if name.lower() in _FRAMING:
                raise self._refusal(f"{name.lower()} is the transport's to say")
            if len(_known) < _MAX_LEARNT:
                _known.add(name)

    def _refusal(self, why: str) -> HouseError:
        return HouseError(f"the request to {self.place} cannot be written: {why}")
