"""One file by a URL that a caller gave: from allowed hosts, at allowed addresses, of a bounded size, in bounded time.

The address is judged where the socket is made, so that what was checked is what is connected to: a name that resolves
otherwise a moment later gains nothing. Nothing of the caller goes with the request, no proxy or cookie stands in between.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp
from msgspec import Struct
from yarl import URL

from .addresses import is_allowed

MAX_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"accept-encoding": "identity", "user-agent": "headgate"}
_PIECE: Final = 64 * 1024


class NotFetched(Exception):
    """A URL was not fetched; the words are for the caller, and say nothing of what stands behind the host."""


class NotAllowed(NotFetched):
    """It leads to a host that its rules do not allow."""


class Fetched(Struct, frozen=True):
    """A file: ``media_type`` is what the server calls it, in lower case, without parameters."""

    media_type: str
    data: bytes


class Bounds(Protocol):
    """What may be fetched, see ``media.options.FetchRules``."""

    @property
    def max_size(self) -> int:
        """The largest file in bytes."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds for a file, redirects included."""
        ...

    @property
    def private(self) -> str:
        """``allow`` or ``refuse`` addresses that are not public."""
        ...

    def allows(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether a host may be asked."""
        ...


def is_fetchable(url: str, bounds: Bounds) -> bool:
    """Whether ``url`` is one that ``bounds`` allow, as far as can be said without asking anybody."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return bounds.allows(parts.scheme.lower(), host, port)


async def fetch(url: str, bounds: Bounds) -> Fetched:
    """Return what stands at ``url``. Raises NotFetched."""
    try:
        async with asyncio.timeout(bounds.timeout):
            return await _fetch(url, bounds)
    except TimeoutError:
        raise NotFetched(f"it was not there within {bounds.timeout:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as fault:
        raise NotFetched("its server could not be reached, or its address is not allowed") from fault


async def _fetch(url: str, bounds: Bounds) -> Fetched:
    connector = aiohttp.TCPConnector(
        # Names are the system's to resolve, as for everything else on this machine.
        resolver=aiohttp.ThreadedResolver(),
        use_dns_cache=False,
        force_close=True,
        socket_factory=_guarded(private=bounds.private == "allow"),
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        trust_env=False,
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        for _ in range(MAX_REDIRECTS + 1):
            target = URL(_without_fragment(urlsplit(url))) if is_fetchable(url, bounds) else None
            # Two parsers may read an odd address differently: the one that connects is asked too.
            if target is None or not bounds.allows(target.scheme, target.host or "", target.explicit_port):
                raise NotAllowed("it leads to a host that media.fetch.hosts does not allow")
            async with session.get(target, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await _read(response, bounds)
                if not (where := response.headers.get("location")):
                    raise NotFetched("it is a redirect to nowhere")
                url = urljoin(url, where)
        raise NotFetched(f"it is redirected more than {MAX_REDIRECTS} times")


async def _read(response: aiohttp.ClientResponse, bounds: Bounds) -> Fetched:
    if response.status != 200:
        raise NotFetched(f"its server answered with HTTP {response.status}")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise NotFetched("its server sent it compressed, unasked")
    too_large = NotFetched(f"it is larger than {bounds.max_size} bytes")
    if response.content_length is not None and response.content_length > bounds.max_size:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_chunked(_PIECE):
        size += len(piece)
        if size > bounds.max_size:
            raise too_large
        pieces.append(piece)
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return Fetched(media_type, b"".join(pieces))


def _without_fragment(parts: SplitResult) -> str:
    return parts._replace(fragment="").geturl()


def _guarded(*, private: bool) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
    """Return what makes sockets, for allowed addresses alone."""

    def make(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = address
        if not is_allowed(str(where[0]), private=private):
            raise OSError("this address is not allowed")
        return socket.socket(family, kind, protocol)

    return make
