"""Reads a curl command line as the request that curl would send. The options are those of curl 8."""

from __future__ import annotations

import base64
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

_ALIASES: Final = {
    "-X": "--request",
    "-H": "--header",
    "-d": "--data",
    "--data-ascii": "--data",
    "-A": "--user-agent",
    "-e": "--referer",
    "-b": "--cookie",
    "-u": "--user",
}
_TAKEN: Final = frozenset(
    {*_ALIASES.values(), "--data-raw", "--data-binary", "--json", "--url", "--oauth2-bearer"}
)  # fmt: skip
_IGNORED_WITH_VALUE: Final = frozenset(
    {"-o", "--output", "-m", "--max-time", "--connect-timeout", "--retry", "--retry-delay", "--retry-max-time"}
    | {"-w", "--write-out", "-x", "--proxy", "-U", "--proxy-user", "--cacert", "--capath", "-E", "--cert", "--key"}
    | {"--resolve", "--connect-to", "-D", "--dump-header", "--limit-rate", "-y", "--speed-time", "-Y", "--speed-limit"}
    | {"--unix-socket", "--interface", "--keepalive-time", "--stderr", "-c", "--cookie-jar", "--trace", "--trace-ascii"}
)
_IGNORED: Final = frozenset(
    {"-s", "--silent", "-S", "--show-error", "-v", "--verbose", "-i", "--include", "--show-headers", "-k", "--insecure"}
    | {"-L", "--location", "-N", "--no-buffer", "-f", "--fail", "--fail-with-body", "--fail-early", "-g", "--globoff"}
    | {"--compressed", "-0", "--http1.0", "--http1.1", "--http2", "--http2-prior-knowledge", "--http3", "-q", "-#"}
    | {"--progress-bar", "--no-progress-meter", "-4", "--ipv4", "-6", "--ipv6", "--tcp-nodelay", "--no-keepalive", "-O"}
    | {"--remote-name", "--ssl-reqd", "--tlsv1.2", "--tlsv1.3", "--raw", "--retry-connrefused", "--retry-all-errors"}
)


class CurlFault(Exception):
    """A command line that cannot be read; the text says why and never repeats a value."""


class CurlRequest(NamedTuple):
    """What curl would send. Header names are as written, repeated ones stay repeated."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def read_curl(words: Sequence[str]) -> CurlRequest:
    """Return the request of a command line, in words or in one text. Raises CurlFault."""
    if len(words) == 1:
        try:
            words = shlex.split(words[0].replace("\\\r\n", " ").replace("\\\n", " "))
        except ValueError as fault:
            raise CurlFault(f"the command line cannot be read: {fault}") from fault
    reading = _Reading()
    left = list(words[1:] if words and Path(words[0]).name in ("curl", "curl.exe") else words)
    while left:
        word = left.pop(0)
        if word == "--":
            for url in left:
                reading.address(url)
            break
        if word == "-" or not word.startswith("-"):
            reading.address(word)
        elif word.startswith("--"):
            _long(word, left, reading)
        else:
            _short(word, left, reading)
    return reading.request()


def _long(word: str, left: list[str], reading: _Reading) -> None:
    if word in _IGNORED:
        return
    name = _ALIASES.get(word, word)
    if name not in _TAKEN and name not in _IGNORED_WITH_VALUE:
        raise CurlFault(f"curl's option {word.partition('=')[0]} is not understood here: leave it out")
    if not left:
        raise CurlFault(f"curl's option {word} needs a value")
    value = left.pop(0)
    if name in _TAKEN:
        reading.take(name, value)


def _short(word: str, left: list[str], reading: _Reading) -> None:
    """Read short options in one word, such as ``-sSXPOST``."""
    for at, letter in enumerate(word[1:], 2):
        option = f"-{letter}"
        if option in _IGNORED:
            continue
        if option in _ALIASES or option in _IGNORED_WITH_VALUE:
            value = [word[at:]] if word[at:] else left[:1]
            left[: 0 if word[at:] else 1] = []
            _long(option, value, reading)
            return
        raise CurlFault(f"curl's option {option} is not understood here: leave it out")


class _Reading:
    def __init__(self) -> None:
        self.method: str | None = None
        self.urls: list[str] = []
        self.headers: list[tuple[str, str]] = []
        self.removed: set[str] = set()
        self.body: bytes | None = None
        self.is_json = False
        self.own: dict[str, str] = {"User-Agent": "curl/8", "Accept": "*/*"}

    def address(self, url: str) -> None:
        self.urls.append(url)

    def take(self, name: str, value: str) -> None:
        if name == "--request":
            self.method = value
        elif name == "--url":
            self.address(value)
        elif name == "--header":
            self._header(value)
        elif name == "--user-agent":
            self.own["User-Agent"] = value
        elif name == "--referer":
            self.own["Referer"] = value
        elif name == "--cookie":
            self.own["Cookie"] = value
        elif name == "--user":
            self.own["Authorization"] = f"Basic {base64.b64encode(value.encode()).decode()}"
        elif name == "--oauth2-bearer":
            self.own["Authorization"] = f"Bearer {value}"
        elif name == "--json":
            self.is_json = True
            self.body = (self.body or b"") + _content(value, name)
        else:
            piece = value.encode() if name == "--data-raw" else _content(value, name)
            if name == "--data" and value.startswith("@"):
                piece = piece.translate(None, b"\r\n\0")
            self.body = piece if self.body is None else self.body + b"&" + piece

    def _header(self, text: str) -> None:
        if text.startswith("@"):
            raise CurlFault("curl's -H @FILE is not understood here: write the headers out")
        name, colon, value = text.partition(":")
        if colon and value.strip():
            self.headers.append((name.strip(), value.strip()))
        elif colon:
            self.removed.add(name.strip().lower())
        elif text.endswith(";"):
            self.headers.append((text[:-1].strip(), ""))
        else:
            raise CurlFault("a header needs a colon: -H 'name: value'")

    def request(self) -> CurlRequest:
        if len(self.urls) != 1:
            raise CurlFault("there is no URL" if not self.urls else f"there are {len(self.urls)} URLs: give one")
        url = self.urls[0] if "://" in self.urls[0] else f"http://{self.urls[0]}"
        own = dict(self.own)
        if self.body is not None:
            own["Content-Type"] = "application/json" if self.is_json else "application/x-www-form-urlencoded"
        if self.is_json:
            own["Accept"] = "application/json"
        said = {name.lower() for name, _ in self.headers} | self.removed
        headers = [(name, value) for name, value in own.items() if name.lower() not in said]
        method = self.method or ("GET" if self.body is None else "POST")
        return CurlRequest(method, url, (*headers, *self.headers), self.body or b"")


def _content(value: str, name: str) -> bytes:
    if not value.startswith("@"):
        return value.encode()
    if value == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(value[1:]).read_bytes()
    except OSError as fault:
        raise CurlFault(f"cannot read the file of curl's {name}: {fault.strerror or fault}") from fault
