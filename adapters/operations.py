"""What adapters over HTTP do for calls that are no conversation: their services' requests are sent, several side by side.

The other half of ``http``: which headers pass and what an error says is the same for every call, and stands there.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Final
from urllib.parse import urlencode

from msgspec import Raw, Struct
from msgspec.structs import replace

from ..gateway.call import Attempt, Call
from ..gateway.chain import AdapterContext
from ..gateway.codecs.anthropic_messages.threads import refuse_thread
from ..gateway.codecs.base import Codec, Encoded, UpstreamFacts
from ..gateway.codecs.limits import for_caller
from ..gateway.codecs.operations.base import Errand, Service
from ..gateway.errors import GatewayError, LossRefused, Malformed, UpstreamError
from ..gateway.ir.event import Chunk, UsageReport
from ..gateway.ir.loss import Loss
from ..gateway.operations import side_by_side
from ..gateway.relay.reply import Reply
from ..gateway.transport.base import Deadlines, Exchange, RequestHead, Standing
from ..gateway.units import seconds
from ..gateway.wire.sifting import Sifted

_RESPONSE_HEADERS: Final = frozenset({"retry-after", "retry-after-ms", "x-should-retry", "request-id"})
_RESPONSE_PREFIXES: Final = ("openai-", "x-ratelimit-", "anthropic-")
_passing: Final = Sifted(lambda name: name in _RESPONSE_HEADERS or name.startswith(_RESPONSE_PREFIXES))
_LONG_BYTES: Final = 1024 * 1024
"""Answers above this are put together in a thread: the event loop would stand still for tens of milliseconds."""
BARRED_PARAMETERS: Final = (
    "key",
    "api_key",
    "api-key",
    "access_token",
    "oauth_token",
    "token",
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "callback",
    "$callback",
)
"""Parameters of a query, in lower case, that hold a credential, or that make a script of an answer."""
_MOST_NAMED: Final = 50
"""Losses that a refusal names."""
_MOST_ANSWERS: Final = 4
"""All answers of one call together are at most so many times what one may be."""


class _Way(Struct):
    """How the requests of one call are sent, and what they brought. ``ends_at`` is a time of the loop's clock."""

    attempt: Attempt
    headers: Mapping[str, str]
    standing: Standing | None
    credential: str | None
    ends_at: float
    passed_back: Mapping[str, str] = {}
    bytes_read: int = 0


class Operations(ABC):
    """The part of ``HttpAdapter`` that serves operations. ``root`` is the URL below which its services' paths are."""

    context: AdapterContext
    root: str
    operations: frozenset[str]
    _overdue: str
    _services: dict[str, Service]

    def services(self) -> tuple[Service, ...]:
        """Return how this provider serves what is no conversation: embeddings, reranking, moderation."""
        return ()

    def _serve(self, services: Sequence[Service]) -> None:
        self._services = {service.operation: service for service in services}
        self.operations = frozenset(self._services)

    async def operate(self, call: Call, /) -> Reply:
        """Have the service for the caller's operation answer ``call``: with one request, or several side by side.

        Raises UpstreamError, the first of several, and CallerError on refusal.
        """
        service, errand = self._errand(call)
        context = self.context
        now = monotonic()
        ends_at = now + context.timeouts.total
        if call.deadline is not None and call.deadline < ends_at:
            ends_at = call.deadline
        way = self._way(call, ends_at)
        attempt = way.attempt
        attempt.calls = len(errand.requests)
        if service.format != call.format:
            attempt.format = service.format
        try:
            bodies = await side_by_side(call.scope, [partial(self._fetch, call, each, way) for each in errand.requests])
            if sum(map(len, bodies)) > _LONG_BYTES:  # vectors by the thousand: others wait meanwhile
                finished = await asyncio.to_thread(errand.finish, bodies)
            else:
                finished = errand.finish(bodies)
        except GatewayError as error:
            attempt.error = error.kind
            raise
        finally:
            attempt.ended_s = seconds(monotonic() - call.began)
        call.ledger.add_answer(finished.losses)
        events = () if finished.usage is None else (UsageReport(finished.usage),)
        return Reply.whole(Chunk(events, finished.body, call.codec.whole), call.scope, 200, way.passed_back)

    async def _fetch(self, call: Call, request: Encoded, way: _Way) -> bytes:
        """Send one request of an operation; return the body of its answer."""
        context, timeouts, attempt = self.context, self.context.timeouts, way.attempt
        deadlines = Deadlines(timeouts.pool, timeouts.connect, timeouts.write, way.ends_at, "timeout.total")
        head = RequestHead("POST", self.root + request.path, dict(way.headers), way.standing)
        exchange = await context.transport.submit(head, request.body, deadlines, call.scope)
        attempt.request_id = provider_request_id(exchange.headers)
        codec = self._errors
        if exchange.status >= 300 or exchange.status < 200:
            attempt.status = exchange.status
            raise await self._refused(exchange, codec, way.credential)
        attempt.status = attempt.status or exchange.status
        whole = exchange.ready(context.max_answer_bytes)
        if whole is None:
            with call.scope.limit(way.ends_at, "timeout.total", self._overdue):
                whole = await exchange.read(context.max_answer_bytes)
        self._told_usage(whole, exchange, codec, way.credential)
        way.passed_back = passed_back(exchange.headers)
        way.bytes_read += len(whole)
        if way.bytes_read > context.max_answer_bytes * _MOST_ANSWERS:
            raise Malformed(f"the answers of upstream {context.name} are larger than {way.bytes_read} bytes together")
        return whole

    def _errand(self, call: Call) -> tuple[Service, Errand]:
        """Return the service for the operation of ``call`` and what it will send. Raises CallerError on refusal."""
        service = self._services[call.format]
        body = call.codec.encode_request(call.request, UpstreamFacts()).body if call.body is None else call.body
        errand = service.errand(body, call.model)
        note_losses(call, errand.losses)
        if call.facts.query and service.format == call.format:
            errand = _with_query(errand, call.facts.query)
        return service, errand

    def _passed_on(self, call: Call) -> dict[str, str]:
        """Return the caller's headers that may pass."""
        return {name: value for name, value in call.headers.items() if self._passes(name)}

    def _way(self, call: Call, ends_at: float) -> _Way:
        context, standing = self.context, self._standing_of(call)
        headers = self._passed_on(call)
        credential = context.credential if call.account is None else call.account.credential
        attempt = call.attempt(context.name, headers)
        headers["x-request-id"] = call.request_id
        if context.pass_credential:
            credential = call.credential or call.presented_key() or credential
            if credential is not None:
                headers = {**standing.headers, **headers, **self.credential_headers(credential)}
                return _Way(attempt, headers, None, credential, ends_at)
        return _Way(attempt, headers, standing, credential, ends_at)

    # -- what ``http`` has

    @abstractmethod
    def credential_headers(self, credential: str) -> dict[str, str]:
        """Return the headers that show ``credential`` to this provider."""

    @property
    @abstractmethod
    def _errors(self) -> Codec:
        """The codec that reads this provider's errors."""

    @abstractmethod
    def _standing_of(self, call: Call) -> Standing: ...

    @abstractmethod
    def _passes(self, name: str) -> bool: ...

    @abstractmethod
    async def _refused(self, exchange: Exchange, codec: Codec, credential: str | None) -> UpstreamError: ...

    @abstractmethod
    def _told_usage(self, body: bytes, exchange: Exchange, codec: Codec, credential: str | None) -> Raw: ...


def _with_query(errand: Errand, query: Mapping[str, str]) -> Errand:
    """Return an errand whose requests have the caller's query, such as Azure's ``api-version``, but no credential in it."""
    kept = {name: value for name, value in query.items() if name.lower() not in BARRED_PARAMETERS}
    if not kept:
        return errand
    asked = f"?{urlencode(kept)}"
    return replace(errand, requests=tuple(replace(each, path=each.path + asked) for each in errand.requests))


def note_losses(call: Call, losses: Iterable[Loss]) -> None:
    """Note what a request loses. Raises LossRefused where the route refuses that, Unsupported where nothing is left that makes
    sense."""
    refuse_thread(call.format, call.request.extra)
    call.ledger.add_request(losses)
    if call.refuse_loss and (lost := call.ledger.lost):
        named = [f"{loss.path} ({loss.why})" for loss in lost[:_MOST_NAMED]]
        if len(lost) > len(named):
            named.append(f"and {len(lost) - len(named)} more")
        said = "this route refuses what would be lost on the way to the provider: " + "; ".join(named)
        raise LossRefused(said, param=lost[0].path)


def provider_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a request."""
    return headers.get("x-request-id") or headers.get("request-id")


def passed_back(headers: Mapping[str, str], format: str = "") -> dict[str, str]:
    """Return the provider's headers that the caller may see, limits in the words of ``format`` if it is another."""
    passed: dict[str, str] = {}
    if names := _passing[tuple(headers)]:
        passed = {name: headers[name] for name in names}
        if format:
            passed = for_caller(passed, format)
    if (provider_id := headers.get("x-request-id")) is not None:
        passed["headgate-upstream-request-id"] = provider_id
    return passed
