"""The HTTP surface: calls in each format, the model list, health, and typed errors for everything else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from ..call import Call
from ..codecs.base import AnswerContext, Codec, RequestFacts
from ..errors import CallerError, Cancelled, GatewayError, NotFound
from ..relay.reply import Reply
from ..relay.scope import as_gateway_error
from .edge import Edge
from .gateway import Gateway
from .intake import read_body, read_headers, remote_of, request_id_of
from .models import list_models

_log = logging.getLogger("headgate.server")
_PATHS: Final = {
    "openai.chat": ("/v1/chat/completions", "/chat/completions"),
    "anthropic.messages": ("/v1/messages", "/messages"),
}
GATEWAY: Final = web.AppKey("headgate", Gateway)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(gateway: Gateway) -> web.Application:
    """Return an application that serves ``gateway``, on its own or as a sub-application."""
    # Our own limit counts, while the body is read; aiohttp's would be the host's when mounted.
    app = web.Application(client_max_size=1 << 40)
    app[GATEWAY] = gateway
    surface = Surface(gateway)
    for format, paths in _PATHS.items():
        serve = surface.calls(gateway.codecs[format])
        for path in paths:
            app.router.add_post(path, serve)
    for path in ("/v1/models", "/models", "/v1/models/{model:.+}", "/models/{model:.+}"):
        app.router.add_get(path, surface.models)
    app.router.add_get("/healthz", surface.healthz)
    app.router.add_get("/readyz", surface.readyz)
    app.router.add_get("/", surface.root)
    app.router.add_route("*", "/{path:.*}", surface.nowhere)
    app.on_response_prepare.append(surface.add_cors)

    async def run(_: web.Application) -> object:
        await gateway.start()
        yield
        await gateway.aclose()

    app.cleanup_ctx.append(run)  # type: ignore[arg-type]  # an async generator function, as aiohttp documents
    return app


class Surface:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    # -- calls

    def calls(self, codec: Codec) -> Handler:
        """Return the handler for requests of one format."""

        async def serve(request: web.Request) -> web.StreamResponse:
            return await self.serve(request, codec)

        return serve

    async def serve(self, request: web.Request, codec: Codec) -> web.StreamResponse:
        """Serve one call, whatever happens to it."""
        scope, plan = self.gateway.open_scope()
        began = scope.loop.time()
        request_id = request_id_of(request.headers.get("x-request-id"))
        edge: Edge | None = None
        hidden: frozenset[str] = frozenset()
        call: Call | None = None
        try:
            edge = Edge(request, scope, plan.server.keep_alive)
            options = plan.server
            hidden = options.hidden_headers
            headers = read_headers(request, options.max_header)
            body = await read_body(request, headers, options.max_body)
            query = dict(request.query) if request.query_string else {}
            remote = remote_of(request, headers, options.networks)
            facts = RequestFacts(request.path, query, headers)
            call, route = self.gateway.prepare(plan, codec, body, facts, scope, request_id, began, remote)
            context = AnswerContext(
                request_id, int(call.began_unix), call.peek.model, bool(call.peek.stream_usage), headers
            )
            if not call.stream:
                return await self._whole(call, route.entry(call), context, hidden)
            edge.encoder = codec.stream_encoder(context)
            edge.deadline = call.deadline
            edge.early_headers = self._headers(call, hidden)
            edge.early_content_type = codec.stream_content_type
            with scope.limit(call.deadline, "timeout.total", "the call took longer than its total time-out"):
                reply = await route.entry(call)
            headers_out = self._headers(call, hidden, reply.headers)
            await edge.commit(reply.status, headers_out, codec.stream_content_type)
            await edge.run(reply)
            if edge.encoder.losses:
                call.ledger.add_answer(edge.encoder.losses)
            assert edge.response is not None
            return edge.response
        except asyncio.CancelledError:
            raise
        except Exception as fault:  # the server's edge: every failure becomes an answer
            error = as_gateway_error(fault)
            if edge is not None and edge.response is not None:
                await edge.finish(error)
                return edge.response
            if call is None and not isinstance(error, Cancelled):
                _log.info("%s %s refused: %s (%s)", request.method, request.path, error.kind, request_id)
            return self.refuse(codec, error, request_id, call, hidden)
        finally:
            scope.close()

    async def _whole(
        self, call: Call, entry: Awaitable[Reply], context: AnswerContext, hidden: frozenset[str]
    ) -> web.Response:
        codec = call.codec
        with call.scope.limit(call.deadline, "timeout.total", "the call took longer than its total time-out"):
            reply = await entry
            chunks = await reply.collect()
        if len(chunks) == 1 and chunks[0].wire == codec.whole and chunks[0].raw is not None:
            body = chunks[0].raw
        else:
            encoded = codec.encode_response([event for chunk in chunks for event in chunk.events], context)
            body = encoded.body
            if encoded.losses:
                call.ledger.add_answer(encoded.losses)
        headers = self._headers(call, hidden, reply.headers)
        headers["Content-Type"] = codec.content_type
        return web.Response(body=body, status=reply.status, headers=headers)

    def _headers(self, call: Call, hidden: frozenset[str], passed: Mapping[str, str] | None = None) -> CIMultiDict[str]:
        """Return the response headers: the provider's that may pass, and ours."""
        headers: CIMultiDict[str] = CIMultiDict(passed) if passed else CIMultiDict()
        decision = call.decision
        headers["x-request-id"] = call.request_id
        headers["headgate-route"] = decision.route
        headers["headgate-upstream"] = decision.upstream
        if decision.attempts:
            headers["headgate-attempts"] = str(len(decision.attempts))
        if call.ledger.request and (lost := call.ledger.lost):
            headers["headgate-loss"] = ", ".join(_header_safe(loss.path) for loss in lost)[:1000]
        for name in hidden:
            headers.popall(name, None)
        return headers

    def refuse(
        self,
        codec: Codec,
        error: GatewayError,
        request_id: str,
        call: Call | None = None,
        hidden: frozenset[str] = frozenset(),
    ) -> web.Response:
        """Return ``error`` as a response in the caller's format."""
        status, own, body = codec.encode_error(error, request_id)
        headers: CIMultiDict[str] = CIMultiDict(error.headers)
        headers.update(own)
        if call is not None:
            headers.update(self._headers(call, hidden))
        headers["x-request-id"] = request_id
        headers.setdefault("Content-Type", "application/json")
        return web.Response(body=body, status=status, headers=headers)

    # -- everything else

    def _codec_for(self, request: web.Request) -> Codec:
        """Return the format in which to talk to a caller whose path does not say."""
        anthropic = "anthropic-version" in request.headers or request.path.endswith("/messages")
        return self.gateway.codecs["anthropic.messages" if anthropic else "openai.chat"]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """List the models this caller may use, in the shape of the asking client."""
        codec = self._codec_for(request)
        request_id = request_id_of(request.headers.get("x-request-id"))
        scope, plan = self.gateway.open_scope()
        try:
            headers = read_headers(request, plan.server.max_header)
            facts = RequestFacts(request.path, dict(request.query), headers)
            wanted = request.match_info.get("model")
            anthropic = codec.format == "anthropic.messages"
            body = await list_models(plan, codec, facts, scope, request_id, wanted, anthropic, self.gateway.loaded_at)
            return web.Response(body=body, headers={"Content-Type": "application/json", "x-request-id": request_id})
        except GatewayError as error:
            return self.refuse(codec, error, request_id)
        finally:
            scope.close()

    async def healthz(self, request: web.Request) -> web.StreamResponse:
        """Say how the gateway is; answers 200 as long as it runs."""
        return web.Response(body=msgspec.json.encode(self.gateway.health()), content_type="application/json")

    async def readyz(self, request: web.Request) -> web.StreamResponse:
        """Say whether new calls are welcome: 503 while draining."""
        ready = not self.gateway.draining
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def root(self, request: web.Request) -> web.StreamResponse:
        """Answer the HEAD or GET by which clients look whether anybody is there."""
        return web.json_response({"service": "headgate"})

    async def nowhere(self, request: web.Request) -> web.StreamResponse:
        """Refuse a path or method that nothing serves; answer a browser's preflight where CORS is on."""
        if request.method == "OPTIONS" and self._allowed_origin(request) is not None:
            return web.Response(status=204)
        codec = self._codec_for(request)
        request_id = request_id_of(request.headers.get("x-request-id"))
        path = "/" + request.match_info["path"]
        if any(path in paths for paths in _PATHS.values()):
            error: GatewayError = CallerError(f"{request.method} is not served at {path}: send POST", status=405)
            error.headers = {"Allow": "POST"}
        else:
            error = NotFound(f"nothing is served at {request.method} {path[:200]}")
        return self.refuse(codec, error, request_id)

    # -- CORS

    def _allowed_origin(self, request: web.BaseRequest) -> str | None:
        cors = self.gateway.plan.server.cors
        origin = request.headers.get("Origin")
        if cors is None or origin is None:
            return None
        if "*" in cors.origins:
            return "*"
        return origin if origin in cors.origins else None

    async def add_cors(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let browsers of the configured origins read the answer. Nothing is sent while CORS is off."""
        origin = self._allowed_origin(request)
        if origin is None:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers.add("Vary", "Origin")
        response.headers["Access-Control-Expose-Headers"] = "*"
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
            response.headers["Access-Control-Allow-Headers"] = request.headers.get(
                "Access-Control-Request-Headers", "authorization, content-type"
            )
            response.headers["Access-Control-Max-Age"] = "600"


def _header_safe(text: str) -> str:
    return "".join(letter if " " < letter < "\x7f" and letter != "," else "_" for letter in text)
