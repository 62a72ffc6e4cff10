"""Calls over HTTP: one request in, one answer or one stream out, whatever happens in between."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, Final

from aiohttp import web
from msgspec.structs import replace

from .. import registry
from ..call import Call
from ..codecs.base import AnswerContext, Codec, Encoded, Peek, RequestFacts, StreamEncoder, peek_words
from ..counting import as_request
from ..doors import EXACT
from ..errors import CallerError, GatewayError, UpstreamTimeout
from ..ir.event import Chunk
from ..relay.reply import Reply
from ..relay.scope import as_gateway_error
from ..responses.recorder import Recorder
from ..rules.plan import Plan, Route
from ..rules.schema import ServerOptions
from .edge import Edge, Presence
from .gateway import Gateway
from .intake import Arrived, abandon_body, buffered_body, read_body, read_headers, remote_of, request_id_of
from .outlet import FrontOutlet, Outlet, ResponseOutlet
from .states import FORMAT as RESPONSES
from .states import State, begin, principal_of
from .turns import Turn, warmed
from .visible import REQUEST_ID_HEADERS, Views, Visible
from .whole import WholeAnswer

_log = logging.getLogger("headgate.server")
_NO_HEADERS: Final[Mapping[str, str]] = {}


class Calls:
    """Serves the calls of one gateway."""

    def __init__(self, gateway: Gateway, views: Views) -> None:
        self.gateway = gateway
        self._views = views
        self._serving: dict[str, partial[Any]] = {}
        self._doors: dict[str, partial[Any]] = {}
        self._translated: dict[str, bool] = {}
        """Whether the last call of each format was: then the next is read whole at once, if it is words alone."""

    def of(self, format: str) -> partial[Any]:
        """Return the handler for requests of one format, whose codec is imported when the first comes."""
        serve = self._serving.get(format)
        if serve is None:
            self._serving[format] = serve = partial(self.serve, codec=registry.codec(format))
        return serve

    def counting(self, format: str) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """Return the handler for those that ask how many tokens a request of one format has."""
        return partial(self.serve, codec=registry.codec(format), counts=True)

    def arrived(self, request: Arrived) -> Callable[[Arrived], Awaitable[WholeAnswer | FrontOutlet]] | None:
        """Return what serves a request that came by the front; None if it is better served as any other is."""
        options, body = self.gateway.plan.server, request.body
        if options.cors is not None or len(body) > options.max_body:
            return None
        serve = self._doors.get(request.path) or self._door(request.path)
        codec = serve.keywords["codec"]
        request.facts = facts = RequestFacts(request.path, _NO_HEADERS, request.headers)
        try:
            if self._translated.get(codec.format):
                request.peek = peek_words(codec, body) or codec.peek(body, facts)
            else:
                request.peek = codec.peek(body, facts)
        except GatewayError:
            return None
        return serve  # a partial: mypy forgets its type

    def _door(self, path: str) -> partial[Any]:
        self._doors[path] = serve = self.of(EXACT[path])
        return serve

    async def serve(self, request: web.BaseRequest | Arrived, codec: Codec, counts: bool = False) -> Any:
        """Serve one call, whatever happens to it; ``counts``: it asks for the tokens of its request alone."""
        scope, plan = self.gateway.open_scope()
        request_id = request_id_of(request.headers.get("x-request-id"))
        visible = self._views.of(request, plan)
        call: Call | None = None
        edge: Edge | None = None
        presence: Presence | None = None
        try:
            began, options = monotonic(), plan.server
            presence = Presence(request, scope, began + options.receive)
            peek: Peek | None = None
            if isinstance(request, Arrived):
                body, facts, peek = request.body, request.facts, request.peek
            else:
                body, facts = await _received(request, options)
            if counts:
                body, facts = as_request(codec.format, body, facts)
                peek = replace(codec.peek(body, facts), stream=False)
            remote = remote_of(request, facts.headers, options.networks) if options.networks else request.remote
            if plan.exact_tokens:
                call, route = await self.gateway.prepare_counting(
                    plan, codec, body, facts, scope, request_id, began, remote, peek
                )
            else:
                call, route = self.gateway.prepare(plan, codec, body, facts, scope, request_id, began, remote, peek)
            call.counts = counts
            codec = call.codec  # in the framing that this caller asked for
            presence.deadline = call.deadline
            state: State | None = None
            turn = request if isinstance(request, Turn) else None
            if codec.format == RESPONSES:
                call, state = await begin(call, route, plan, None if turn is None else turn.lane)
            if not call.peek.stream:
                reply = await route.entry(call)
                chunks = reply.gathered()
                if chunks is None:
                    chunks = await reply.collect()
                whole = self._whole(call, reply, chunks, visible, body)
                if state is not None:
                    state.keep(whole.content)
                return whole
            edge = self._edge(request, call, presence, plan, visible, state, body)
            return await self._stream(call, route, edge, visible, turn)
        except asyncio.CancelledError:
            if presence is None or not presence.overdue:
                raise  # the client left, or the process ends
            presence.forgive()
            fault: BaseException = _overdue(call, plan)
        except Exception as caught:  # the server's edge: every failure becomes an answer
            fault = caught
            if edge is not None:
                await edge.settle()
        finally:
            scope.close()
        error = as_gateway_error(fault)
        if not isinstance(request, Arrived):
            abandon_body(request)
        if edge is not None and edge.committed:
            await edge.finish(error)
            return edge.outlet.answer
        if call is None:
            _log.info("%s %s refused: %s (%s)", request.method, request.path, error.kind, request_id)
        return self.refuse(codec, error, request_id, visible, call)

    def _whole(self, call: Call, reply: Reply, chunks: list[Chunk], visible: Visible, asked: bytes) -> WholeAnswer:
        codec = call.codec
        self._learn(call)
        if len(chunks) == 1 and chunks[0].wire == codec.whole and chunks[0].raw is not None:
            body = chunks[0].raw
        else:
            encoded = _encoded(codec, chunks, _context(call, asked))
            body = encoded.body
            if encoded.losses:
                call.ledger.add_answer(encoded.losses)
        headers = visible.headers(call, reply.headers)
        headers["content-type"] = codec.content_type
        answer = WholeAnswer(body, reply.status, headers)
        return self._last_words(answer) if self.gateway.draining else answer

    def _learn(self, call: Call) -> None:
        """Remember whether requests of this format are translated."""
        if attempts := call.decision.attempts:
            self._translated[call.codec.format] = attempts[-1].format is not None

    def _edge(
        self,
        request: web.BaseRequest | Arrived,
        call: Call,
        presence: Presence,
        plan: Plan,
        visible: Visible,
        state: State | None,
        asked: bytes,
    ) -> Edge:
        """Return what writes a stream to this client, and watches it meanwhile."""
        codec = call.codec
        keep_alive_s: float = plan.server.keep_alive
        outlet: Outlet
        if isinstance(request, Turn):
            outlet = request.outlet(codec.streamed)
            keep_alive_s = math.inf  # a socket has its own heartbeat
        elif isinstance(request, Arrived):
            outlet = FrontOutlet(request)
        else:
            outlet = ResponseOutlet(request, presence.transport)
        encoder: StreamEncoder = codec.stream_encoder(_context(call, asked))
        if state is not None:
            encoder = Recorder(encoder, state.keep)
        edge = Edge(outlet, presence, call.scope, keep_alive_s, encoder)
        edge.closes = self.gateway.draining
        edge.early_headers = partial(visible.headers, call)
        edge.early_content_type = codec.stream_content_type
        return edge

    async def _stream(self, call: Call, route: Route, edge: Edge, visible: Visible, turn: Turn | None) -> Any:
        """Let the answer flow to the client until it is over."""
        reply: Reply | None = None
        try:
            if turn is not None and turn.warms:
                await principal_of(route, call)
                reply = warmed(call.scope, call.model)
            else:
                reply = await route.entry(call)
                self._learn(call)
            await edge.commit(reply.status, visible.headers(call, reply.headers), call.codec.stream_content_type)
            await edge.run(reply)
        finally:
            if reply is not None:
                reply.abort()  # nothing, if it is over; else its stages hear of the end, for what they account
        if edge.encoder.losses:
            call.ledger.add_answer(edge.encoder.losses)
        return edge.outlet.answer

    def _last_words(self, answer: WholeAnswer) -> WholeAnswer:
        """While draining, a connection ends with the answer under way: else its client could keep the drain from ending."""
        if self.gateway.draining:
            answer.force_close()
        return answer

    def refuse(
        self, codec: Codec, error: GatewayError, request_id: str, visible: Visible, call: Call | None = None
    ) -> WholeAnswer:
        """Return ``error`` as a response in the caller's format."""
        status, own, body = codec.encode_error(error, request_id)
        # A provider's own error body may pass as it came: the header says our word for it all the same.
        ours = {"x-request-id": request_id, "headgate-error": error.kind}
        headers = visible.headers(call, {**error.headers, **ours})
        headers.update({name.lower(): value for name, value in own.items()})
        if name := REQUEST_ID_HEADERS.get(codec.format):
            headers.setdefault(name, request_id)
        headers.setdefault("content-type", "application/json")
        return self._last_words(WholeAnswer(body, status, headers))


def _encoded(codec: Codec, chunks: list[Chunk], context: AnswerContext) -> Encoded:
    """Write a whole answer in the caller's format, the short way if there is one."""
    plain = chunks[0].plain if len(chunks) == 1 else None
    if plain is not None and codec.wording is not None:
        short = codec.wording.write_answer(plain, context)
        if short is not None:
            return short
    return codec.encode_response([event for chunk in chunks for event in chunk.events], context)


def _context(call: Call, asked: bytes) -> AnswerContext:
    peek, seed, headers = call.peek, call.request_id, call.headers
    if headers.get("x-request-id") == seed:
        # The caller's own word: it may say the same in all its calls, and what is minted must be told apart.
        seed = f"{seed}_{random.getrandbits(32):08x}"  # no secret
    return AnswerContext(seed, int(call.began_unix), peek.model, bool(peek.stream_usage), headers, asked)


async def _received(request: web.BaseRequest, options: ServerOptions) -> tuple[bytes, RequestFacts]:
    """Read a request: its body, and what stands around it. Raises CallerError."""
    headers = read_headers(request, options.max_header)
    body = buffered_body(request, headers, options.max_body)
    if body is None:
        body = await read_body(request, headers, options.max_body)
    return body, _facts(request, headers)


def _facts(request: web.BaseRequest, headers: dict[str, str]) -> RequestFacts:
    path = request.raw_path
    if "?" in path or "%" in path or "#" in path or path[:1] != "/":
        return RequestFacts(request.path, dict(request.query), headers)
    return RequestFacts(path, _NO_HEADERS, headers)


def _overdue(call: Call | None, plan: Plan) -> GatewayError:
    """Return what to say when time is up: the caller's fault while its request is still coming in."""
    if call is None:
        limit = f"{plan.server.receive:g} s, the limit of this gateway (server.receive)"
        return CallerError(f"the request was not there whole within {limit}", status=408)
    return UpstreamTimeout("the call took longer than its total time-out", kind="timeout.total")
