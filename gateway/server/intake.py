"""What a request may look like before any rule sees it: header limits, body limits, gzip, ids, the caller's address."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError
from msgspec import Struct

from ..codecs.base import Peek, RequestFacts
from ..doors import format_below
from ..errors import CallerError, TooLarge, Unsupported
from ..ids import request_id as new_request_id
from ..relay.outbox import Outbox

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}")
_ENCODINGS: Final = frozenset({"", "identity", "gzip", "deflate", "br", "zstd"})
_MAYBE_JSON: Final = frozenset({"application/json", "application/octet-stream"})
"""Types that a body is read under. Bytes of whatever kind are what HTTP clients say that know no better: no page may
post them unasked either."""
_FORM: Final = "application/x-www-form-urlencoded"
_BROWSERS: Final = frozenset({"origin", "sec-fetch-site"})
"""Headers by which a browser says for whose page it asks."""
_SINGLE: Final = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "content-type", "x-request-id"})
"""Headers whose meaning a repetition would leave to chance."""


class Arrived(Struct):
    """A request that was here, whole, when it was first looked at. ``headers`` have lower-case names; ``facts`` and ``peek``
    are what was read of it already.

    ``stays_open``: the client wants its connection back; ``drain`` waits until it has taken most of what it was sent;
    what is written to ``transport`` goes by ``outbox``.
    """

    transport: asyncio.Transport
    path: str
    headers: dict[str, str]
    body: bytes
    remote: str | None
    stays_open: bool
    drain: Callable[[], Awaitable[None]]
    outbox: Outbox
    method: str = "POST"
    facts: RequestFacts = RequestFacts("", {}, {})
    peek: Peek | None = None


def request_id_of(presented: str | None) -> str:
    """Return the caller's own id if it is safe to repeat in headers and logs, else a new one."""
    if presented is not None and _REQUEST_ID.fullmatch(presented):
        return presented
    return new_request_id()


def read_headers(request: web.BaseRequest, max_bytes: int) -> dict[str, str]:
    """Return the headers under lower-case names; repeated ones joined by ", ". Raises TooLarge, CallerError."""
    given = request.headers
    headers = {name.lower(): value for name, value in given.items()}
    if len(headers) != len(given):
        headers = _joined(given)
    if len("".join(headers)) + len("".join(headers.values())) + 4 * len(given) > max_bytes:
        raise TooLarge(f"the request headers are larger than {max_bytes} bytes", status=431)
    return headers


def _joined(given: Mapping[str, str]) -> dict[str, str]:
    """The same where a header is repeated."""
    headers: dict[str, str] = {}
    for name, value in given.items():
        name = name.lower()
        if name in headers:
            if name in _SINGLE and headers[name] != value:
                raise CallerError(f"the header {name} is there twice with different values: send it once", param=name)
            if name not in _SINGLE:
                value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def without_subprotocols(request: web.BaseRequest, kept: Sequence[str] = ()) -> web.BaseRequest:
    """Return the handshake of a WebSocket with no other subprotocols than ``kept``.

    One of them may be a key, and aiohttp logs them all where the server knows none (3.14.5).
    """
    headers = request.headers.copy()
    headers.popall("Sec-WebSocket-Protocol", None)
    if kept:
        headers["Sec-WebSocket-Protocol"] = ", ".join(kept)
    return request.clone(headers=headers)


def is_oddly_framed(request: web.BaseRequest) -> bool:
    """Whether the body came in a transfer coding other than chunked alone, or in HTTP/1.0, which knows none.

    aiohttp takes "gzip, chunked" and ",chunked" for chunked, and undoes no gzip. What stands before us may see no chunks
    there, and another request in the body (RFC 9112, 6.1).
    """
    coding = request.headers.get("Transfer-Encoding")
    return coding is not None and (coding.lower() != "chunked" or request.version < aiohttp.HttpVersion11)


def buffered_body(request: web.BaseRequest, headers: dict[str, str], max_bytes: int) -> bytes | None:
    """Return the body of the commonest request, plain JSON that is here already; None: see ``read_body``."""
    content = request.content
    if not content.is_eof() or headers.get("content-type") != "application/json" or "content-encoding" in headers:
        return None
    if content.exception() is not None:
        return None
    body = content.read_nowait()
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


async def read_body(request: web.BaseRequest, headers: dict[str, str], max_bytes: int) -> bytes:
    """Return the request body, unpacked. Raises TooLarge, Unsupported for a media type or encoding, CallerError."""
    # Any web page may post text/plain, a form, or nothing at all, to a loopback address without asking. Insisting on JSON
    # makes a browser ask first.
    content_type = headers.get("content-type", "application/json" if "origin" not in headers else "")
    media_type = content_type.partition(";")[0].strip().lower()
    if (
        media_type not in _MAYBE_JSON
        and not media_type.endswith("+json")
        and not _is_curls(request, headers, media_type)
    ):
        hint = " (curl -d says so by itself: add -H 'content-type: application/json')" if "form" in media_type else ""
        raise Unsupported(
            f"content-type {media_type[:80]!r} is not served here: send application/json{hint}", status=415
        )
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in _ENCODINGS:
        raise Unsupported(f"content-encoding {encoding[:40]!r} is not served here: send gzip or none", status=415)
    # aiohttp unpacks while we read, a bounded piece at a time, so that the limit holds for what a packed body becomes.
    content = request.content
    try:
        body = await content.readany()
        if not content.at_eof():
            pieces, size = [body], len(body)
            while size <= max_bytes and not content.at_eof():
                piece = await content.readany()
                pieces.append(piece)
                size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            body = b"".join(pieces)
    except (web.RequestPayloadError, aiohttp.ClientError, ContentEncodingError) as fault:
        raise CallerError(f"the request body cannot be read (content-encoding {encoding}): {fault}") from fault
    if len(body) > max_bytes:
        raise _too_large(max_bytes)
    return body


def _is_curls(request: web.BaseRequest, headers: Mapping[str, str], media_type: str) -> bool:
    """Whether this is how ``curl -d`` posts to Ollama, whose documentation says no type. A browser tells where it is."""
    return (
        media_type == _FORM
        and _BROWSERS.isdisjoint(headers)
        and ((format_below(request.path) or "").startswith("ollama.") or request.path.endswith("/api/show"))
    )


def abandon_body(request: web.BaseRequest) -> None:
    """Let nobody read what is left of a packed body that was refused.

    aiohttp would read on for ten seconds, to let the answer arrive, and unpack it all: 10 MB may be 10 GB (3.14.5). Its
    loop ends at a TimeoutError; the connection is closed then.
    """
    content = request.content
    if "Content-Encoding" in request.headers and not content.at_eof() and content.exception() is None:
        content.set_exception(TimeoutError("the body was refused"))


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the request body is larger than {max_bytes} bytes, the limit of this gateway (server.max_body)")


def remote_of(request: web.BaseRequest | Arrived, headers: Mapping[str, str], trusted: Sequence[Network]) -> str | None:
    """Return the caller's address; X-Forwarded-For counts only as far as trusted proxies wrote it."""
    peer = request.remote
    if not trusted:
        return peer
    if peer is None or "x-forwarded-for" not in headers or not _inside(peer, trusted):
        return peer
    for hop in reversed([hop.strip() for hop in headers["x-forwarded-for"].split(",")]):
        if not _is_address(hop):
            return peer
        peer = hop
        if not _inside(hop, trusted):
            break
    return peer


def scheme_of(request: web.BaseRequest, headers: Mapping[str, str], trusted: Sequence[Network]) -> str:
    """Return ``https`` or ``http``, by which the caller came; X-Forwarded-Proto counts where a trusted proxy wrote it."""
    told = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    peer = request.remote
    believed = told in ("http", "https") and peer is not None and bool(trusted) and _inside(peer, trusted)
    return told if believed else request.scheme


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _inside(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
