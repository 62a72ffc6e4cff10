"""What adapters over HTTP do for calls that nobody translates: the request goes out as it comes in, and so does the answer.

The other half of ``http``. Headers pass by list; the path stands below the upstream's base URL, the query goes along but for
credentials; errors are read as any of this provider's, so that no secret of ours comes back in their words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from time import monotonic
from typing import ClassVar, Final
from urllib.parse import urlsplit

from ..gateway.call import Attempt, Call
from ..gateway.chain import AdapterContext, Preview
from ..gateway.codecs.base import Codec
from ..gateway.errors import GatewayError, UpstreamError
from ..gateway.ir.event import Chunk, Wire
from ..gateway.passing.leading import Leading, led_back
from ..gateway.passing.paths import is_below
from ..gateway.passing.request import Line, Passed, Upload, is_named
from ..gateway.relay.decoding import Decoder, Decoding, StreamDeadlines
from ..gateway.relay.pull import Pump
from ..gateway.relay.reply import Reply
from ..gateway.relay.scope import Scope
from ..gateway.transport.base import Deadlines, Exchange, NoSocket, RequestHead
from ..gateway.units import seconds
from .operations import BARRED_PARAMETERS, passed_back, provider_request_id

_REQUEST_HEADERS: Final = frozenset({"content-type", "accept", "accept-language", "range", "if-range"})
_RESPONSE_HEADERS: Final = frozenset(
    {"content-type", "content-length", "content-disposition", "content-language", "content-range", "accept-ranges"}
    | {"etag", "last-modified"}
)
_UPLOAD_URL: Final = "x-goog-upload-url"
_UPLOAD_PREFIX: Final = "x-goog-upload-"


class Passing(ABC):
    """The part of ``HttpAdapter`` that passes calls on. ``passed`` is the format of those, or ""."""

    passed: ClassVar[str] = ""
    passed_below: ClassVar[str] = ""
    """What of the paths stands in the base URL already, as its vendor's SDK spells it."""
    default_base_url: ClassVar[str]
    same_format_headers: ClassVar[Mapping[str, str]]
    context: AdapterContext
    base_url: str
    passes: str
    _roots: tuple[str, ...]

    def _pass(self, which: bool | tuple[str, ...] | None) -> None:
        """Take what the rule file says of it: all paths or none, those listed; None: all at the vendor's own address."""
        if which is None:
            own, host = urlsplit(self.default_base_url).hostname or "", urlsplit(self.base_url).hostname or ""
            which = host == own or host.endswith(f".{own}")
        self._roots = ("/",) if which is True else () if which is False else tuple(root.rstrip("/") for root in which)
        self.passes = self.passed if self._roots else ""

    def passes_path(self, path: str, /) -> bool:
        """Whether the rule file lets ``path`` pass here."""
        return any(root == "/" or is_below(path, root) for root in self._roots)

    async def pass_on(self, call: Call, /) -> Reply:
        """Send ``call`` as it came; return at the provider's response headers. Raises UpstreamError, CallerError."""
        passed, context = call.passed, self.context
        assert passed is not None
        if call.model and call.model != call.peek.model:
            passed = passed.renamed(call.model)
        headers, credential = self._headers_of(call, passed)
        timeouts = context.timeouts
        now = monotonic()
        total_at = now + timeouts.total
        if call.deadline is not None and call.deadline < total_at:
            total_at = call.deadline
        deadlines = Deadlines(timeouts.pool, timeouts.connect, timeouts.write, total_at, "timeout.total")
        attempt = call.attempt(context.name, headers)
        head = RequestHead(passed.method, self._url_of(passed), headers)
        try:
            if passed.socket is not None:
                return await self._open(call, passed, head, deadlines, attempt, credential)
            body: bytes | Upload = passed.upload if passed.upload.reader is not None else passed.upload.head
            exchange = await context.transport.submit(head, body, deadlines, call.scope)
            attempt.status = exchange.status
            attempt.request_id = provider_request_id(exchange.headers)
            if exchange.status >= 300 or exchange.status < 200:
                raise await self._refused(exchange, self._errors, credential)
            answer = {**passed_back(exchange.headers), **self._answer_headers(exchange.headers, passed)}
            pieces = self._pieces(passed, answer, call.codec.whole)
            source = _Bytes(exchange, pieces, call.scope, context.name, timeouts.idle, total_at)
            return Reply.begun(source, call.scope, exchange.status, answer)
        except GatewayError as error:
            attempt.error = error.kind
            raise
        finally:
            attempt.ended_s = seconds(monotonic() - call.began)

    async def _open(
        self,
        call: Call,
        passed: Passed,
        head: RequestHead,
        deadlines: Deadlines,
        attempt: Attempt,
        credential: str | None,
    ) -> Reply:
        """Open a WebSocket. Its messages are the chunks of the answer; ``passed.socket.line`` takes the caller's."""
        socket = passed.socket
        assert socket is not None
        try:
            line = await self.context.transport.open_socket(
                head, socket.protocols, socket.max_bytes, deadlines, call.scope
            )
        except NoSocket as refusal:
            attempt.status = refusal.status
            if 200 <= refusal.status < 400:
                said = f"upstream {self.context.name} answered a WebSocket's handshake with HTTP {refusal.status}"
                raise UpstreamError(said) from None
            secret = b"" if credential is None else credential.encode()
            body = refusal.body.replace(secret, b"***") if secret else refusal.body
            error = self._errors.decode_error(refusal.status, refusal.headers, body)
            error.headers = error.limits = passed_back(refusal.headers)
            raise error from None
        attempt.status = 101
        socket.line = line
        messages = _messages(line, Wire(call.format, "message"), call.codec.whole)
        return Reply.begun(Pump(messages, call.scope), call.scope, 101)

    def preview_passed(self, call: Call) -> Preview:
        """Return the request that ``call``, which may hold no more than a path and a body, would become."""
        passed = call.passed
        if passed is None:
            body = call.body or b""
            passed = Passed(
                "POST", call.facts.path, upload=Upload(body, None, len(body)), media_type="application/json"
            )
        if call.model and call.model != call.peek.model:
            passed = passed.renamed(call.model)
        headers, credential = self._headers_of(call, passed)
        shown = frozenset(() if credential is None else self.credential_headers(credential))
        return Preview(passed.method, self._url_of(passed), headers, passed.upload.head, shown)

    def _url_of(self, passed: Passed) -> str:
        """Return where a request goes: without credentials, and below the base URL."""
        query = "&".join(each for each in passed.query.split("&") if each and not is_named(each, *BARRED_PARAMETERS))
        path = passed.path.removeprefix(self.passed_below)
        return f"{self.base_url}{path}?{query}" if query else self.base_url + path

    def _headers_of(self, call: Call, passed: Passed) -> tuple[dict[str, str], str | None]:
        """Return the headers, and the credential that stands in them."""
        context = self.context
        headers = {"user-agent": "headgate", "accept-encoding": "identity"}
        headers.update((name.lower(), value) for name, value in context.headers.items())
        for name, value in call.headers.items():
            passes = name in _REQUEST_HEADERS or name.startswith(_UPLOAD_PREFIX) or self._passes(name)
            if passes and name not in headers:
                headers[name] = value
        if passed.socket is not None or not (passed.upload.head or passed.upload.reader):
            headers.pop("content-type", None)
        for name, value in self.same_format_headers.items():
            headers.setdefault(name, value)
        credential = context.credential if call.account is None else call.account.credential
        if context.pass_credential:
            credential = call.credential or call.presented_key() or credential
        if credential is not None:
            headers.update(self.credential_headers(credential))
        headers["x-request-id"] = call.request_id
        return headers, credential

    def _answer_headers(self, headers: Mapping[str, str], passed: Passed) -> dict[str, str]:
        """Return what the caller sees of a provider's headers, besides those of any answer."""
        seen = {name: headers[name] for name in headers if name in _RESPONSE_HEADERS}
        for name in headers:
            if name.startswith(_UPLOAD_PREFIX):
                value = headers[name]
                if name == _UPLOAD_URL or name == "x-goog-upload-control-url":
                    back = led_back(value, self._root_url, passed.base)
                    if back is None:
                        continue  # it would lead past us, with what is a credential there
                    value = back
                seen[name] = value
        # Where a new thing is, such as a realtime call, whose id the SDKs find nowhere else.
        if (place := headers.get("location")) is not None and (back := led_back(place, self._root_url, passed.base)):
            seen["location"] = back
        return seen

    @property
    def _root_url(self) -> str:
        """The base URL, below which stand paths with their version."""
        return self.base_url.removesuffix(self.passed_below)

    def address_in(self, path: str) -> str:
        """Return the member of an answer's JSON whose URL a client follows, "" where there is none."""
        return ""

    def _pieces(self, passed: Passed, headers: dict[str, str], wire: Wire) -> Decoder:
        """Return what makes chunks of an answer's bytes; its ``headers`` lose a length that may be another."""
        member = self.address_in(passed.path)
        if not member or not headers.get("content-type", "").startswith("application/json"):
            return _Pieces(wire)
        headers.pop("content-length", None)

        def lead(url: str) -> str:
            return led_back(url, self._root_url, passed.base) or passed.base + urlsplit(url).path

        return Leading(member, lead, wire)

    # -- what ``http`` has

    @abstractmethod
    def credential_headers(self, credential: str) -> dict[str, str]:
        """Return the headers that show ``credential`` to this provider."""

    @property
    @abstractmethod
    def _errors(self) -> Codec:
        """The codec that reads this provider's errors."""

    @abstractmethod
    def _passes(self, name: str) -> bool: ...

    @abstractmethod
    async def _refused(self, exchange: Exchange, codec: Codec, credential: str | None) -> UpstreamError: ...


class _Pieces:
    """Each piece of an answer is a chunk, in which nobody looks for anything. A Decoder."""

    __slots__ = ("_wire", "error")

    def __init__(self, wire: Wire) -> None:
        self.error: UpstreamError | None = None
        self._wire = wire

    def feed(self, data: bytes) -> Chunk:
        """Make it a chunk."""
        return Chunk((), data, self._wire)

    def close(self) -> None:
        """Nothing is left."""


class _Bytes(Decoding):
    """The bytes of an answer as chunks, ended by silence or when time is up."""

    def __init__(
        self, exchange: Exchange, pieces: Decoder, scope: Scope, upstream: str, idle_s: float, total_at: float
    ) -> None:
        super().__init__(exchange, pieces, scope, StreamDeadlines(upstream, total_at, idle_s, total_at))
        self._has_content = True  # whatever comes: silence counts from the headers on


async def _messages(line: Line, text: Wire, binary: Wire) -> AsyncIterator[Chunk]:
    """Yield what a provider says on a socket. Raises UpstreamError."""
    while (said := await line.receive()) is not None:
        message, is_text = said
        yield Chunk((), message, text if is_text else binary)
