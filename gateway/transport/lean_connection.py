"""One connection to a provider: requests out, answers in, one after the other, parsed by llhttp.

llhttp refuses what is ambiguous (two lengths, length and chunks, bare line feeds, odd chunk sizes). It knows no limits, nor
that an answer may only come after a request: that is seen to here. A connection on which anything was out of order, or
came unasked, is closed and never lent again.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from ..errors import ConnectFailed, Cut, GatewayError, Malformed
from ..relay.outbox import outbox_of
from .faults import MAYBE_DONE, NOT_WHOLE, first_line, reason, tls_reason, tls_refusal

if TYPE_CHECKING:
    from .lean_exchange import LeanExchange
    from .lean_pool import LeanPool
    from .lean_request import Target

HEAD_LIMIT: Final = 64 * 1024
"""Bytes of a status line and headers with all interim answers before them; and of all that frames a body."""
HEADER_LIMIT: Final = 128
"""Headers of an answer, and trailers."""
PIECE: Final = 64 * 1024
"""Bodies above this are written in pieces of it, so that a provider that stops reading is noticed."""
_FRAME: Final = 24
"""Bytes around a chunk that count as its own: 16 digits and four ends of line at the most, with some to spare."""
_MAX_LEARNT: Final = 1000


class _Names(dict[bytes, str]):
    """Header names as they came, to the same in lower case."""

    def __missing__(self, name: bytes) -> str:
        text = name.decode("latin-1").lower()
        if len(self) < _MAX_LEARNT:
            self[name] = text
        return text


_names: Final = _Names()


class _Refused(Exception):
    """Raised in a callback, so that the parser stops."""


class LeanConnection(asyncio.BufferedProtocol):
    """``exchange`` is whose answer is read now, None while idle. ``idle_since`` is a time of the loop's clock.

    ``buffer`` is read into and parsed at once, so that all connections of a loop share one. A plain Protocol is handed
    bytes, for which asyncio asks the system for 256 KiB anew at each read: that costs as much as all of our own work.
    """

    __slots__ = (
        "exchange",
        "origin",
        "made_at",
        "idle_since",
        "on_body",
        "_pool",
        "_loop",
        "_buffer",
        "_outbox",
        "_transport",
        "_parser",
        "_parts",
        "_headers",
        "_status",
        "_doubles",
        "_trailers",
        "_read",
        "_framing",
        "_headed",
        "_interim",
        "_ended",
        "_chunked",
        "_bounded",
        "_keep",
        "_spoilt",
        "_complaint",
        "_fault",
        "_holding",
        "_unsent",
        "_writable",
        "_moved_at",
    )

    def __init__(self, pool: LeanPool, origin: object, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        self.exchange: LeanExchange | None = None
        self.origin = origin
        self.made_at = self.idle_since = monotonic()
        self._pool = pool
        self._loop = loop
        self._buffer = buffer
        self._outbox = outbox_of(loop)
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # called by the parser, with no frame of Python in between
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._status = self._doubles = self._trailers = self._read = self._framing = 0
        self._headed = self._interim = self._ended = self._chunked = self._bounded = False
        self._keep = self._spoilt = False
        self._complaint = ""
        self._fault: Exception | None = None
        self._holding = False
        self._unsent: memoryview | None = None
        self._writable = True
        self._moved_at = 0.0

    # -- requests

    @property
    def usable(self) -> bool:
        """Whether another request may go out here."""
        return not self._spoilt and self._transport is not None and not self._transport.is_closing()

    def gone(self, target: Target) -> ConnectFailed:
        """Return why a new connection is not usable."""
        refusal = tls_refusal(self._fault)
        why = "closed at once" if refusal is None else tls_reason(refusal)
        return ConnectFailed(f"cannot connect to {target.place}: {why}")

    def begin(self, exchange: LeanExchange, head: bytes, body: bytes) -> None:
        """Send a request whose answer goes to ``exchange``. The connection is usable."""
        transport = self._transport
        assert transport is not None
        self.exchange = exchange
        self._headers = {}
        self._read = 0
        self._headed = self._ended = False
        if len(body) <= PIECE:
            self._outbox.write(transport, head + body)
        else:
            self._unsent = memoryview(body)
            transport.write(head)
            self._send()

    def _send(self) -> None:
        """Write pieces until the socket takes no more. asyncio calls pause_writing from inside write."""
        transport, unsent = self._transport, self._unsent
        assert transport is not None
        self._moved_at = monotonic()
        while unsent is not None and self._writable and not transport.is_closing():
            piece = unsent[:PIECE]
            self._unsent = unsent = unsent[PIECE:] if len(unsent) > PIECE else None
            transport.write(piece)

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._writable = False

    def resume_writing(self) -> None:
        """The socket has taken most of what was written."""
        self._writable = True
        if self._unsent is not None:
            self._send()

    def stalled(self, now: float, limit_s: float) -> bool:
        """Whether a piece of a big request has been waiting for ``limit_s``."""
        return self._unsent is not None and now - self._moved_at >= limit_s

    # -- reading

    def hold(self) -> None:
        """Read nothing more for now. Idempotent."""
        if not self._holding and self._transport is not None and not self._transport.is_closing():
            self._holding = True
            self._transport.pause_reading()

    def flow(self) -> None:
        """Read on. Idempotent."""
        if self._holding:
            self._holding = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def close(self) -> None:
        """Close now, without waiting for anybody to take what is unsent."""
        self.exchange = self._unsent = None
        self._spoilt = True
        if self._transport is not None:
            self._transport.abort()

    def release(self) -> None:
        """The exchange is done with its answer: back to the pool, or closed if anything speaks against it."""
        self.exchange = None
        if self._ended and self._keep and not self._spoilt and self._unsent is None:
            if self._holding:
                self.flow()
            self._pool.put(self)
        else:
            self.close()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        if self._spoilt:  # whoever dialled left before
            transport.close()
        else:
            self._pool.opened(self)

    def get_buffer(self, sizehint: int, /) -> memoryview:
        """Return where the next read goes."""
        return self._buffer

    def buffer_updated(self, nbytes: int, /) -> None:
        """Parse what came, and hand it on in one piece: mostly an answer that is whole."""
        exchange = self.exchange
        if exchange is None or self._ended:  # unasked
            self._spoil()
            return
        error: GatewayError | None = None
        try:
            if self._headed or self._read + nbytes <= HEAD_LIMIT:
                self._parser.feed_data(self._buffer[:nbytes])
            else:
                self._feed_rest(nbytes)
        except (HttpParserError, HttpParserUpgrade, _Refused) as fault:
            self._spoilt = True
            if not self._ended:
                error = self._malformed(exchange, fault)
        parts = self._parts
        if self._ended and not (exchange.answered or exchange.bodiless):
            body = b"".join(parts)  # of one part it is that very part
            parts.clear()
            exchange.arrived(self._status, self._headers, body)
        else:
            self._hand_on(exchange, nbytes, error)

    def _feed_rest(self, nbytes: int) -> None:
        """Parse what goes beyond HEAD_LIMIT bytes, where the headers are not complete."""
        room = HEAD_LIMIT - self._read
        self._parser.feed_data(self._buffer[:room])
        if not self._headed:
            raise self._refuse(f"headers of more than {HEAD_LIMIT} bytes")
        self._parser.feed_data(self._buffer[room:nbytes])

    def _hand_on(self, exchange: LeanExchange, nbytes: int, error: GatewayError | None) -> None:
        """Hand on some of an answer, or the error in it. ``nbytes`` were read."""
        parts = self._parts
        body = b"".join(parts)
        if not exchange.answered:
            self._read += nbytes
            self._framing = 0  # what came with the headers is bounded by one read
            self._chunked = "transfer-encoding" in self._headers
            # Now: the exchange takes the length off together with a coding.
            self._bounded = self._chunked or "content-length" in self._headers
        elif self._chunked and error is None:
            # What of a chunked body is no body is counted: extensions and trailers have no limit of their own.
            framing = self._framing + nbytes - len(body) - _FRAME * len(parts)
            self._framing = framing if framing > 0 else 0
            if framing > HEAD_LIMIT:
                error = self._malformed(exchange, self._refuse(f"more than {HEAD_LIMIT} bytes around its chunks"))
        if parts:
            parts.clear()
            if exchange.bodiless:
                self._spoilt, body = True, b""
        if error is not None:
            self._ended = True
            self._spoil()
        if not self._headed:
            if error is not None:
                exchange.fail(error)
            return
        if not exchange.answered:
            exchange.answer(self._status, self._headers)
        if body or self._ended:
            exchange.take(body, self._ended, error)

    def eof_received(self) -> None:
        """The provider says no more. asyncio closes the connection; without waiting for what is unsent, if we do it."""
        if self._transport is not None:
            self._lose(None)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self._lose(exc)
        self._pool.closed(self)

    def _lose(self, exc: Exception | None) -> None:
        self._spoilt = True
        if self._fault is None:
            self._fault = exc
        exchange = self.exchange
        if exchange is None or self._ended:
            return
        self._ended = True
        if not self._headed:
            exchange.fail(self._unanswered(exchange, exc))
        elif exc is None and not self._bounded:
            exchange.take(b"", True, None)
        else:
            why = f"{exchange.place} closed the connection in the middle of its answer ({_why(exc)})"
            exchange.take(b"", True, Cut(why))

    def _unanswered(self, exchange: LeanExchange, exc: Exception | None) -> GatewayError:
        refusal = tls_refusal(exc)
        if refusal is not None:
            return ConnectFailed(f"cannot connect to {exchange.place}: {tls_reason(refusal)}")
        how = MAYBE_DONE if self._unsent is None else NOT_WHOLE
        return Cut(f"{exchange.place} closed the connection before its answer ({_why(exc)}); {how}")

    def _spoil(self) -> None:
        """What came was not asked for: whoever reads the answer before it may finish, nobody else comes here."""
        self._spoilt = True
        if self._transport is not None:
            self._transport.abort()

    def _malformed(self, exchange: LeanExchange, fault: Exception) -> Malformed:
        what = self._complaint or first_line(str(fault))
        if isinstance(fault, HttpParserUpgrade):
            what = "it switched protocols, which nobody asked for"
        if self._headed:
            return Malformed(f"the answer of {exchange.place} is malformed: {what}")
        return Malformed(f"{exchange.place} does not answer in HTTP: {what}")

    def _refuse(self, why: str) -> _Refused:
        self._complaint = why
        return _Refused(why)

    # -- the parser's side

    def on_message_begin(self) -> None:
        """The first byte of a message. Only one is expected, besides interim ones."""
        if self._ended:
            raise self._refuse("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer; nobody here reads those."""
        if self._headed:
            self._trailers += 1
            if self._trailers > HEADER_LIMIT:
                raise self._refuse(f"more than {HEADER_LIMIT} trailers")
            return
        known = _names[name]
        text = value.decode("utf-8", "surrogateescape").rstrip(" \t")
        headers = self._headers
        if known in headers:
            self._doubles += 1
            headers[known] = f"{headers[known]}, {text}"
        else:
            headers[known] = text

    def on_headers_complete(self) -> None:
        """The end of the headers, of the answer or of an interim one."""
        parser, headers = self._parser, self._headers
        self._status = status = parser.get_status_code()
        if self._doubles or len(headers) > HEADER_LIMIT:
            count, self._doubles = len(headers) + self._doubles, 0
            if count > HEADER_LIMIT:
                raise self._refuse(f"more than {HEADER_LIMIT} headers")
        if status < 200:
            if status == 101:
                raise self._refuse("it switched protocols, which nobody asked for")
            if status < 100:
                raise self._refuse(f"a status of {status:03}")
            self._interim = True
            self._headers = {}
            return
        if "transfer-encoding" in headers:
            coding = headers["transfer-encoding"]
            if coding.lower() != "chunked":
                raise self._refuse(f"a transfer-encoding of {coding[:40]!r}")
        self._keep = parser.should_keep_alive()
        self._headed = True
        if self._unsent is not None and status >= 400:
            self._unsent = None  # it does not want the rest; nor will anybody want the connection
            self._spoilt = True
        exchange = self.exchange
        if exchange is not None and exchange.bodiless:
            # The parser cannot be told that none of a body will follow, and is not asked again.
            self._ended = True
            self._parser = HttpResponseParser(self)

    def on_message_complete(self) -> None:
        """The end of the answer, or of an interim one."""
        if self._interim:
            self._interim = False
        else:
            self._ended = True
            if self._trailers:  # one may say Connection: close, and the parser believes it
                self._trailers = 0
                self._keep = self._keep and self._parser.should_keep_alive()


def _why(exc: Exception | None) -> str:
    return "connection lost" if exc is None else reason(exc)
