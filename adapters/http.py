"""What adapters over HTTP share: which bytes and headers go to a provider, and how its response becomes a reply.

An adapter says which formats it speaks, how it shows its credential, and which headers may pass. A caller of one of its
formats is passed on in it, any other is translated to the first. Headers pass by allow-list both ways; hop-by-hop headers,
cookies, Host, credentials and content-encoding never do.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlencode, urlsplit

from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from ..gateway.call import Account, Attempt, Call
from ..gateway.chain import AdapterContext, Preview
from ..gateway.codecs.base import Codec, Encoded, UpstreamFacts
from ..gateway.codecs.ledger import in_the_callers_words
from ..gateway.counting import ENDPOINTS, asked
from ..gateway.errors import ErrorKind, GatewayError, Malformed, UpstreamError
from ..gateway.ir.event import Chunk, Event
from ..gateway.ir.loss import Loss
from ..gateway.relay.decoding import Decoding, StreamDeadlines
from ..gateway.relay.reply import Reply
from ..gateway.text.profile import TextProfile
from ..gateway.transport.base import Deadlines, Exchange, RequestHead, Standing
from ..gateway.units import seconds
from ..gateway.wire.members import BAD_JSON
from ..gateway.wire.outline import NULL
from ..gateway.wire.sifting import Sifted
from .operations import Operations, note_losses, passed_back
from .passing import Passing

_log = logging.getLogger("headgate.upstream")
MAX_ERROR_BYTES: Final = 1024 * 1024
"""An error body above this is not read: its status says enough."""
_MAX_LEARNT: Final = 1000
_MAX_TYPES: Final = 64
_MAX_TYPE: Final = 200
"""Letters of a content type that is remembered."""
_NO_SECRETS_IN_QUERY: Final = frozenset({"key", "api_key", "api-key", "access_token", "oauth_token", "token"})
_COMMON_REQUEST_HEADERS: Final = frozenset({"idempotency-key", "traceparent", "tracestate"})


class HttpOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Options of every adapter over HTTP. ``max_output_tokens`` is what is asked for where the caller said nothing and
    the provider's format demands a number. ``text`` is what the models write into their text instead of into fields.
    ``max_inputs`` is how many texts go in one request for embeddings, or documents for reranking, where that is less than
    the provider is known to take: a call with more becomes several requests."""

    max_output_tokens: Annotated[int, Meta(ge=1)] = 4096
    text: TextProfile | None = None
    max_inputs: Annotated[int, Meta(ge=1)] | None = None


class PassingOptions(HttpOptions, frozen=True, forbid_unknown_fields=True):
    """``passthrough`` is what this provider serves of files, audio, images, batches and the like, which nobody translates:
    true is every path that is known, a list names some, such as ``/v1/audio``, each with all below it. Unless said, every
    path at the vendor's own address, none at any other ``base_url``."""

    passthrough: bool | tuple[Annotated[str, Meta(pattern="^/.")], ...] | None = None


class HttpAdapter(Operations, Passing, ABC):
    """The end of a chain, over HTTP. Subclasses set the class attributes and ``credential_headers``."""

    Options: ClassVar[type[Struct]] = HttpOptions
    codec: ClassVar[Codec]
    """Of the format that callers of others are translated to."""
    default_base_url: ClassVar[str]
    ours_in_query: ClassVar[frozenset[str]] = frozenset()
    """Query parameters, in lower case, that are not the caller's to set."""
    request_headers: ClassVar[frozenset[str]] = frozenset()
    request_prefixes: ClassVar[tuple[str, ...]] = ()
    same_format_headers: ClassVar[Mapping[str, str]] = {}
    """Sent with a request whose bytes the codec did not write, unless the caller sent its own."""

    def __init__(self, options: Any, context: AdapterContext) -> None:
        self.options = options
        self.context = context
        self.base_url = (context.base_url or self.default_base_url).rstrip("/")
        if urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ValueError(f"base_url must begin with http:// or https://, got {self.base_url!r}")
        if "@" in urlsplit(self.base_url).netloc:
            raise ValueError("base_url must hold no credentials: name them with key")
        self._overdue = f"upstream {context.name} did not finish in time"
        fixed = {"content-type": "application/json", "user-agent": "headgate", "accept-encoding": "identity"}
        fixed.update({name.lower(): value for name, value in context.headers.items()})
        if context.credential is not None and not context.pass_credential:
            fixed.update(self.credential_headers(context.credential))
        for name in ("x-request-id", "traceparent", "tracestate"):  # each call has its own
            fixed.pop(name, None)
        self._fixed = fixed
        self._codecs = codecs = self.codecs()
        spoken = {codec.format for codec in codecs}
        self._ways = _Ways(codecs)
        self._own = _Dress(fixed, codecs, self.same_format_headers)
        self._whole = self._own.whole
        self._of_accounts: dict[str, _Dress] = {}
        self.counts = frozenset(ENDPOINTS.keys() & spoken)
        self.root = self.base_url
        self._serve(self.services())
        self._pass(getattr(options, "passthrough", False) if self.passed else False)
        self._passing = Sifted(self._passes)
        # An adapter of a stranger may have options of its own.
        self._text: TextProfile | None = getattr(options, "text", None)

    def codecs(self) -> tuple[Codec, ...]:
        """Return those of the formats that this provider speaks; the first is what other callers are translated to."""
        return (self.codec,)

    @abstractmethod
    def credential_headers(self, credential: str) -> dict[str, str]:
        """Return the headers that show ``credential`` to this provider."""

    def upstream_facts(self, call: Call, headers: Mapping[str, str]) -> UpstreamFacts:
        """Return what the codec must know to write the request."""
        return UpstreamFacts(
            max_output_tokens=self.options.max_output_tokens, stream_usage=call.wants_usage, headers=headers
        )

    async def __call__(self, call: Call, /) -> Reply:
        """Send ``call``; return at the provider's response headers. Raises UpstreamError, or CallerError on refusal."""
        way = self._ways[call.codec.format]
        codec, another = way.codec, way.another
        headers, standing, body, path, hide_usage = self._write(call, way)
        context, account = self.context, call.account
        credential = context.credential if account is None else account.credential
        if context.pass_credential:
            # Without auth in the chain nobody has looked for the caller's key yet.
            credential = call.credential or call.presented_key() or credential
            if credential is not None:
                headers = {**({} if standing is None else standing.headers), **headers}
                headers.update(self.credential_headers(credential))
                standing = None
        headers["x-request-id"] = call.request_id

        timeouts, deadline = context.timeouts, call.deadline
        now = monotonic()
        total_at = now + timeouts.total
        if deadline is not None and deadline < total_at:
            total_at = deadline
        head_at: float = total_at
        head_kind: ErrorKind = "timeout.total"
        if call.peek.stream and now + timeouts.first_token < total_at:
            head_at, head_kind = now + timeouts.first_token, "timeout.first_token"
        deadlines = Deadlines(timeouts.pool, timeouts.connect, timeouts.write, head_at, head_kind)

        attempt = call.attempt(context.name, headers)
        if another:
            attempt.format = codec.format
        try:
            exchange = await context.transport.submit(
                RequestHead("POST", self.base_url + path, headers, standing), body, deadlines, call.scope
            )
            told = exchange.headers
            attempt.status = status = exchange.status
            attempt.request_id = told.get("x-request-id") or told.get("request-id")
            if status >= 300 or status < 200:
                raise await self._refused(exchange, codec, credential, another)
            if way.streams[told.get("content-type", "")]:
                decoder = codec.stream_decoder(hide_usage=hide_usage)
                limits = StreamDeadlines(context.name, now + timeouts.first_token, timeouts.idle, total_at)
                noted = partial(_note, attempt, credential)
                source = Decoding(exchange, decoder, call.scope, limits, noted)
                return self._read_text(Reply(source, call.scope, status, passed_back(told, another)), call)
            whole = exchange.ready(context.max_answer_bytes)
            if whole is None:
                with call.scope.limit(total_at, "timeout.total", self._overdue):
                    whole = await exchange.read(context.max_answer_bytes)
            if call.counts:
                self._told_usage(whole, exchange, codec, credential)
                chunk = Chunk((), whole, codec.whole)
                return Reply.whole(chunk, call.scope, status, passed_back(told, another))
            if another:
                wording = codec.wording
                plain = None if wording is None or call.codec.wording is None else wording.read_answer(whole)
                if plain is not None:
                    chunk = Chunk(None, whole, codec.whole, codec.decode_response, plain=plain)
                else:
                    chunk = Chunk(self._events(whole, exchange, codec, credential), whole, codec.whole)
            else:
                usage = self._told_usage(whole, exchange, codec, credential)
                chunk = Chunk(None, whole, codec.whole, codec.decode_response, codec.read_usage, usage)
            reply = Reply.whole(chunk, call.scope, status, passed_back(told, another))
            return reply if self._text is None else self._read_text(reply, call)
        except GatewayError as error:
            attempt.error = error.kind
            raise
        finally:
            attempt.ended_s = seconds(monotonic() - call.began)
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug(
                    "%s POST %s%s: %s in %.0f ms",
                    call.request_id,
                    self.base_url,
                    path.partition("?")[0],
                    attempt.error or attempt.status or "cancelled",
                    (attempt.ended_s - attempt.started_s) * 1000,
                )

    def preview(self, call: Call, /) -> Preview:
        """Return the request that ``call`` would become, the first of several. Raises CallerError on refusal."""
        if call.format == self.passes:
            return self.preview_passed(call)
        standing: Standing | None
        root = self.base_url
        if call.format in self._services:
            first = self._errand(call)[1].requests[0]
            root, body, path = self.root, first.body, first.path
            headers, standing = self._passed_on(call), self._standing_of(call)
        else:
            headers, standing, body, path, _ = self._write(call, self._ways[call.codec.format])
        if standing is not None:
            headers = {**standing.headers, **headers}
        context = self.context
        shown: dict[str, str] = {}
        if context.pass_credential:
            credential = call.credential or call.presented_key() or context.credential
            if credential is not None:
                headers.update(shown := self.credential_headers(credential))
        elif call.account is not None:
            shown = self.credential_headers(call.account.credential)
        elif context.credential is not None:
            shown = self.credential_headers(context.credential)
        headers["x-request-id"] = call.request_id
        return Preview("POST", root + path, headers, body, frozenset(shown))

    # -- the way out

    def _write(self, call: Call, way: _Way) -> tuple[dict[str, str], Standing | None, bytes, str, bool]:
        """Return headers, those they stand beside, body, path, and whether only we asked for usage in the stream."""
        if self._text is not None:
            call = _with_stops_taken(call, self._text)
        codec, peek, facts, model = way.codec, call.peek, call.facts, call.model
        stream, dress = peek.stream, self._dress_of(call)
        common = dress.streams[codec.format] if stream else dress.whole
        standing: Standing | None = common
        given = facts.headers
        headers: dict[str, str] = {}
        for name in self._passing[tuple(given)]:
            headers[name] = given[name]
        same_format = not way.another
        hide_usage = same_format and stream and call.wants_usage and not peek.stream_usage
        if same_format and (sent_body := call.body) is not None:
            body = sent_body
            if stream or model != peek.model:
                renamed = model if model != peek.model else None
                body = codec.patch_request(body, peek, model=renamed, stream_usage=call.wants_usage)
            path = codec.request_path(model, stream)
            if dress.unless_sent:
                for name, value in dress.unless_sent:
                    headers.setdefault(name, value)
        else:
            sent = {**common.headers, **headers}
            encoded = self._translated(call, way, self.upstream_facts(call, sent))
            body, path = encoded.body, encoded.path
            if not common.headers.keys().isdisjoint(encoded.headers):
                headers, standing = sent, None
            headers.update(encoded.headers)
            if encoded.losses:
                note_losses(call, encoded.losses)
        if call.counts:
            body, path = asked(codec.format, body, path, written=call.body is None)
        if same_format and facts.query:
            barred = _NO_SECRETS_IN_QUERY | self.ours_in_query
            kept = {name: value for name, value in facts.query.items() if name.lower() not in barred}
            if kept:
                path += ("&" if "?" in path else "?") + urlencode(kept)
        return headers, standing, body, path, hide_usage

    def _translated(self, call: Call, way: _Way, facts: UpstreamFacts) -> Encoded:
        """Return the request in another format than the caller's, or changed. Raises DecodeError, CallerError."""
        codec = way.codec
        if (wording := codec.wording) is not None and way.another and (words := call.words):
            if words.model != call.model:
                words = replace(words, model=call.model)
            if (short := wording.write(words, facts)) is not None:
                return short
        request = call.request
        if request.model != call.model:
            request = replace(request, model=call.model)
        return codec.encode_request(request, facts)

    def _dress(self, account: Account) -> _Dress:
        """Return the headers that requests of an account have in common, and remember them."""
        if self.context.pass_credential:
            return self._own
        if len(self._of_accounts) >= _MAX_LEARNT:
            self._of_accounts.clear()
        fixed = {**self._fixed, **self.credential_headers(account.credential)}
        dress = _Dress(fixed, self._codecs, self.same_format_headers)
        self._of_accounts[account.credential] = dress
        return dress

    def _dress_of(self, call: Call) -> _Dress:
        account = call.account
        return self._own if account is None else self._of_accounts.get(account.credential) or self._dress(account)

    def _standing_of(self, call: Call) -> Standing:
        return self._dress_of(call).whole

    def _passes(self, name: str) -> bool:
        asked = (
            name in _COMMON_REQUEST_HEADERS or name in self.request_headers or name.startswith(self.request_prefixes)
        )
        return asked and name not in self._whole.headers  # what the rule file says is not the caller's to change

    # -- the way back

    def _read_text(self, reply: Reply, call: Call) -> Reply:
        """Let the answer pass the stage that reads its text, if the upstream has one."""
        if self._text is not None:
            stage = self._text.stage(
                lambda: call.request, _has_tools(call), lambda loss: call.ledger.add_answer((loss,))
            )
            if stage is not None:
                reply.through(stage)
        return reply

    async def _refused(
        self, exchange: Exchange, codec: Codec, credential: str | None, another: str = ""
    ) -> UpstreamError:
        """Read an error response; no secret of ours may come back in its words."""
        try:
            body = await exchange.read(MAX_ERROR_BYTES)
        except UpstreamError:
            body = b""
        if 200 <= exchange.status < 400:
            return UpstreamError(
                f"upstream {self.context.name} answered with a redirect (HTTP {exchange.status}); redirects are not "
                "followed: set base_url to where it points"
            )
        error = codec.decode_error(exchange.status, exchange.headers, _without(credential, body))
        error.limits = passed_back(exchange.headers)
        error.headers = passed_back(exchange.headers, another) if another else error.limits
        return error

    def _events(self, body: bytes, exchange: Exchange, codec: Codec, credential: str | None) -> tuple[Event, ...]:
        """Read a whole answer. Raises as ``_told_usage`` does, and UpstreamError for what else is wrong with it."""
        # An error in it may repeat our key, and lives as long as its traceback does.
        body = _without(credential, body)
        try:
            return codec.decode_response(body)
        except UpstreamError:
            self._told_usage(body, exchange, codec, None)  # it has the better words
            raise

    @property
    def _errors(self) -> Codec:
        return self._codecs[0]

    def _told_usage(self, body: bytes, exchange: Exchange, codec: Codec, credential: str | None) -> Raw:
        """Return what an answer says of its usage. Raises the error that it tells, Malformed if it is no JSON object."""
        try:
            told = codec.outline(body)
        except BAD_JSON:
            content_type = exchange.headers.get("content-type", "no content type")
            what = f"{len(body)} bytes of {content_type}" if body else "an empty body"
            raise Malformed(f"upstream {self.context.name} answered {exchange.status} with {what}, not JSON") from None
        if told.error is not NULL and bytes(told.error) != b"null":
            # An error inside a 200, as routers of providers send them: reading the body raises it.
            codec.decode_response(_without(credential, body))
        return told.usage


class _Way:
    """How calls of one format go to the provider: with ``codec``. ``another`` is the caller's format where it is not the
    provider's. ``streams[content_type]`` says whether an answer of that type is a stream."""

    __slots__ = ("codec", "another", "streams")

    def __init__(self, codec: Codec, another: str) -> None:
        self.codec = codec
        self.another = another
        self.streams = _Streams(_stream_type(codec))


class _Ways(dict[str, _Way]):
    """The ways of callers, by their format; those whose format the provider does not speak are translated to the first."""

    def __init__(self, codecs: Sequence[Codec]) -> None:
        super().__init__((codec.format, _Way(codec, "")) for codec in codecs)
        self._first = codecs[0]

    def __missing__(self, format: str) -> _Way:
        self[format] = way = _Way(self._first, format)
        return way


class _Streams(dict[str, bool]):
    """Whether a content type is that of a stream; providers say the same one again and again."""

    def __init__(self, stream_type: str) -> None:
        self._stream_type = stream_type

    def __missing__(self, content_type: str) -> bool:
        found = content_type.lower().startswith(self._stream_type)
        if len(content_type) <= _MAX_TYPE:
            if len(self) >= _MAX_TYPES:
                self.clear()
            self[content_type] = found
        return found


class _Dress:
    """The headers that all requests with one credential have in common: for whole answers, and for streams by format.
    ``unless_sent`` go with a request whose bytes the codec did not write, unless the caller sent its own."""

    __slots__ = ("whole", "streams", "unless_sent")

    def __init__(self, fixed: Mapping[str, str], codecs: Sequence[Codec], unless_sent: Mapping[str, str]) -> None:
        self.whole = Standing({"accept": "application/json", **fixed})
        self.streams = {codec.format: Standing({"accept": _stream_type(codec), **fixed}) for codec in codecs}
        self.unless_sent = [item for item in unless_sent.items() if item[0] not in self.whole.headers]


def _stream_type(codec: Codec) -> str:
    """Return what streams of a format call themselves."""
    return codec.stream_content_type.partition(";")[0]


def _with_stops_taken(call: Call, text: TextProfile) -> Call:
    """Return the call without the stop strings that the provider does not take: the gateway watches for them."""
    if text.stops is None:
        return call
    request = call.request
    fewer = text.request(request)
    if fewer is request:
        return call
    loss = Loss("emulated", "stop", "stop", "the gateway stops the answer: the provider takes fewer stop strings")
    call.ledger.add_request(in_the_callers_words(request, (loss,)))
    return call.with_request(fewer)


def _has_tools(call: Call) -> bool:
    """Whether the request has tools; decoded only where a middleware changed it."""
    if call.body is None:
        return bool(call.request.tools)
    return call.peek.tools is not None and bytes(call.peek.tools).strip() not in (b"[]", b"null")


def _note(attempt: Attempt, credential: str | None, error: GatewayError) -> None:
    """Note that a stream failed after its start; its words must not repeat our key either."""
    attempt.error = error.kind
    if credential is None:
        return
    if credential in error.message or credential in str(error.details) or credential in (error.code or ""):
        error.message = error.message.replace(credential, "***")
        error.args = (error.message,)
        error.code = error.details = None
    if error.raw is not None:
        error.raw = _without(credential, error.raw)


def _without(credential: str | None, body: bytes) -> bytes:
    """Return an error body in which the provider does not repeat our key."""
    if credential is not None and (secret := credential.encode()) in body:
        return body.replace(secret, b"***")
    return body


__all__ = ["ErrorKind", "HttpAdapter", "HttpOptions", "PassingOptions"]
