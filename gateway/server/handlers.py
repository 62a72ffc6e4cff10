"""The HTTP surface: calls in each format, the model list, health, and typed errors for everything else."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import msgspec
from aiohttp import web

from ..call import Call
from ..codecs.base import AnswerContext, Codec, Peek, RequestFacts
from ..errors import CallerError, GatewayError, NotFound, Unsupported, UpstreamTimeout
from ..relay.reply import Reply
from ..relay.scope import as_gateway_error
from ..rules.plan import Plan, Route
from .edge import Edge, Presence
from .gateway import Gateway
from .intake import (
    Arrived,
    abandon_body,
    buffered_body,
    is_oddly_framed,
    read_body,
    read_headers,
    remote_of,
    request_id_of,
)
from .models import list_models
from .whole import WholeAnswer, is_looked_at

_log = logging.getLogger("headgate.server")
_PATHS: Final = {
    "openai.chat": ("/v1/chat/completions", "/chat/completions"),
    "anthropic.messages": ("/v1/messages", "/messages"),
}
_MODELS: Final = ("/v1/models", "/models")
_REQUEST_ID_HEADERS: Final = {"anthropic.messages": "request-id"}
"""Where the SDKs of a format look for the request id, if not in x-request-id; a provider's own stands there first."""
_NO_HEADERS: Final[Mapping[str, str]] = {}
_VARIES: Final[Mapping[str, str]] = {"Vary": "Origin"}
GATEWAY: Final = web.AppKey("headgate", Gateway)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def make_app(gateway: Gateway) -> web.Application:
    """Return an application that serves ``gateway``, on its own or as a sub-application."""
    # Our own limit counts, while the body is read; aiohttp's would be the host's when mounted.
    app = web.Application(client_max_size=1 << 40)
    app[GATEWAY] = gateway
    app.router.add_route("*", "/{path:.*}", Surface(gateway).mounted)

    async def run(_: web.Application) -> object:
        await gateway.start()
        yield
        await gateway.aclose()

    app.cleanup_ctx.append(run)  # type: ignore[arg-type]  # an async generator function, as aiohttp documents
    return app


def make_server(gateway: Gateway, **limits: Any) -> web.Server:
    """Return a server for ``gateway`` alone: without an Application around it, and behind a front where that is there.

    ``limits`` are those of aiohttp's protocol. Whoever runs it starts and closes the gateway.
    """
    surface = Surface(gateway)
    options: dict[str, Any] = {"access_log": None, "handler_cancellation": True, **limits}
    if find_spec("httptools") is None or sys.platform == "win32":  # whose loop reads while others parse
        return web.Server(surface.alone, **options)
    from .front import FrontServer  # needs httptools, which is an extra

    return FrontServer(
        surface.alone,
        paths=surface.paths,
        route=surface.arrived,
        max_head=gateway.plan.server.max_header,
        **options,
    )


class Surface:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._codecs = {path: gateway.codecs[format] for format, paths in _PATHS.items() for path in paths}
        self._calls: dict[str, Any] = {path: partial(self.serve, codec=codec) for path, codec in self._codecs.items()}
        self._alike = _Visible(frozenset(), _NO_HEADERS)
        self._pages: dict[str, Handler] = {"/healthz": self.healthz, "/readyz": self.readyz, "/": self.root}
        self._pages.update(dict.fromkeys(_MODELS, self.models))

    # -- which handler

    @property
    def paths(self) -> Iterable[str]:
        """Where calls are served."""
        return self._calls

    async def mounted(self, request: web.Request) -> web.StreamResponse:
        """Serve a request that an Application has routed to us."""
        if is_oddly_framed(request):
            answer: web.StreamResponse = self._misframed(request)
        else:
            answer = await self._handler("/" + request.match_info["path"], request.method)(request)
        return answer.opened() if isinstance(answer, WholeAnswer) and is_looked_at(request) else answer

    def alone(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Serve a request for which nothing stands before us."""
        path = request.raw_path
        if (
            request.method == "POST"
            and (serve := self._calls.get(path)) is not None
            and "Expect" not in request.headers
            and "Transfer-Encoding" not in request.headers
        ):
            return serve(request)  # type: ignore[no-any-return]  # a partial, of which mypy forgets what it is
        return self._expected(request)

    async def _expected(self, request: web.BaseRequest) -> web.StreamResponse:
        if is_oddly_framed(request):
            return self._misframed(request)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await self._handler(request.path, request.method)(request)

    def _misframed(self, request: web.BaseRequest) -> WholeAnswer:
        """Refuse a request of whose end we cannot be sure; nothing after it on its connection is read."""
        error = Unsupported("this transfer-encoding is not served here: send chunked alone, or a length", status=501)
        request_id = request_id_of(request.headers.get("x-request-id"))
        answer = self.refuse(self._codec_for(request), error, request_id, self._visible(request))
        answer.force_close()
        return answer

    def _handler(self, path: str, method: str) -> Handler:
        """Return what serves ``method`` at ``path``, which begins with a slash."""
        if method == "POST":
            serve: Handler | None = self._calls.get(path)
            if serve is not None:
                return serve
        elif method in ("GET", "HEAD"):
            found = self._pages.get(path)
            if found is not None:
                return found
            for models in _MODELS:
                if path.startswith(models + "/") and len(path) > len(models) + 1:
                    return partial(self.models, wanted=path[len(models) + 1 :])
        return partial(self.nowhere, path=path)

    # -- calls

    def arrived(self, request: Arrived) -> Callable[[Arrived], Awaitable[WholeAnswer]] | None:
        """Return what serves a request that came by the front; None if it is better served as any other is."""
        options, codec = self.gateway.plan.server, self._codecs[request.path]
        if options.cors is not None or len(request.body) > options.max_body:
            return None
        try:
            request.peek = peek = codec.peek(request.body, RequestFacts(request.path, _NO_HEADERS, request.headers))
        except GatewayError:
            return None
        return None if peek.stream else self._calls[request.path]

    async def serve(self, request: web.BaseRequest | Arrived, codec: Codec) -> web.StreamResponse:
        """Serve one call, whatever happens to it."""
        scope, plan = self.gateway.open_scope()
        request_id = request_id_of(request.headers.get("x-request-id"))
        visible = self._visible(request, plan)
        call: Call | None = None
        edge: Edge | None = None
        presence: Presence | None = None
        reply: Reply | None = None
        try:
            presence = Presence(request, scope)
            presence.deadline = scope.loop.time() + plan.server.receive
            began, options = scope.loop.time(), plan.server
            peek: Peek | None = None
            if isinstance(request, Arrived):
                headers, body, peek = request.headers, request.body, request.peek
                facts = RequestFacts(request.path, _NO_HEADERS, headers)
            else:
                headers = read_headers(request, options.max_header)
                buffered = buffered_body(request, headers, options.max_body)
                body = await read_body(request, headers, options.max_body) if buffered is None else buffered
                facts = _facts(request, headers)
            remote = remote_of(request, headers, options.networks)
            call, route = self.gateway.prepare(plan, codec, body, facts, scope, request_id, began, remote, peek)
            presence.deadline = call.deadline
            if not call.peek.stream:
                return await self._whole(call, route, visible)
            assert not isinstance(request, Arrived), "streams do not come by the front"
            edge = Edge(request, presence, scope, plan.server.keep_alive, codec.stream_encoder(_context(call)))
            edge.closes = self.gateway.draining
            edge.early_headers = partial(visible.headers, call)
            edge.early_content_type = codec.stream_content_type
            reply = await route.entry(call)
            await edge.commit(reply.status, visible.headers(call, reply.headers), codec.stream_content_type)
            await edge.run(reply)
            if edge.encoder.losses:
                call.ledger.add_answer(edge.encoder.losses)
            return edge.sent
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
            if reply is not None:
                reply.abort()  # nothing, if it is over; else its stages hear of the end, for what they account
            scope.close()
        error = as_gateway_error(fault)
        if not isinstance(request, Arrived):
            abandon_body(request)
        if edge is not None and edge.response is not None:
            await edge.finish(error)
            return edge.response
        if call is None:
            _log.info("%s %s refused: %s (%s)", request.method, request.path, error.kind, request_id)
        return self.refuse(codec, error, request_id, visible, call)

    async def _whole(self, call: Call, route: Route, visible: _Visible) -> WholeAnswer:
        codec = call.codec
        reply = await route.entry(call)
        chunks = reply.gathered()
        if chunks is None:
            chunks = await reply.collect()
        if len(chunks) == 1 and chunks[0].wire == codec.whole and chunks[0].raw is not None:
            body = chunks[0].raw
        else:
            encoded = codec.encode_response([event for chunk in chunks for event in chunk.events], _context(call))
            body = encoded.body
            if encoded.losses:
                call.ledger.add_answer(encoded.losses)
        headers = visible.headers(call, reply.headers)
        headers["content-type"] = codec.content_type
        return self._last_words(WholeAnswer(body, reply.status, headers))

    def _last_words(self, answer: WholeAnswer) -> WholeAnswer:
        """While draining, a connection ends with the answer under way: else its client could keep the drain from ending."""
        if self.gateway.draining:
            answer.force_close()
        return answer

    def refuse(
        self, codec: Codec, error: GatewayError, request_id: str, visible: _Visible, call: Call | None = None
    ) -> WholeAnswer:
        """Return ``error`` as a response in the caller's format."""
        status, own, body = codec.encode_error(error, request_id)
        # A provider's own error body may pass as it came: the header says our word for it all the same.
        ours = {"x-request-id": request_id, "headgate-error": error.kind}
        headers = visible.headers(call, {**error.headers, **ours})
        headers.update({name.lower(): value for name, value in own.items()})
        if name := _REQUEST_ID_HEADERS.get(codec.format):
            headers.setdefault(name, request_id)
        headers.setdefault("content-type", "application/json")
        return self._last_words(WholeAnswer(body, status, headers))

    # -- everything else

    def _codec_for(self, request: web.BaseRequest) -> Codec:
        """Return the format in which to talk to a caller whose path does not say."""
        anthropic = "anthropic-version" in request.headers or request.path.endswith("/messages")
        return self.gateway.codecs["anthropic.messages" if anthropic else "openai.chat"]

    async def models(self, request: web.BaseRequest, wanted: str | None = None) -> web.StreamResponse:
        """List the models this caller may use, in the shape of the asking client."""
        abandon_body(request)
        codec = self._codec_for(request)
        request_id = request_id_of(request.headers.get("x-request-id"))
        scope, plan = self.gateway.open_scope()
        try:
            headers = read_headers(request, plan.server.max_header)
            facts = RequestFacts(request.path, dict(request.query), headers)
            anthropic = codec.format == "anthropic.messages"
            body = await list_models(plan, codec, facts, scope, request_id, wanted, anthropic, self.gateway.loaded_at)
            answer = self._visible(request).headers(None, {"x-request-id": request_id})
            answer["content-type"] = "application/json"
            return web.Response(body=body, headers=answer)
        except Exception as fault:  # as in serve: an authenticator may be a stranger's
            return self.refuse(codec, as_gateway_error(fault), request_id, self._visible(request))
        finally:
            scope.close()

    async def healthz(self, request: web.BaseRequest) -> web.StreamResponse:
        """Say how the gateway is; answers 200 as long as it runs."""
        return web.Response(body=msgspec.json.encode(self.gateway.health()), content_type="application/json")

    async def readyz(self, request: web.BaseRequest) -> web.StreamResponse:
        """Say whether new calls are welcome: 503 while draining."""
        ready = not self.gateway.draining
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def root(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the HEAD or GET by which clients look whether anybody is there."""
        return web.json_response({"service": "headgate"})

    async def nowhere(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Refuse a path or method that nothing serves; answer a browser's preflight where CORS is on."""
        if request.method == "OPTIONS" and len(allowed := self._cors_headers(request)) > 1:
            return web.Response(status=204, headers=allowed)
        abandon_body(request)
        codec = self._codec_for(request)
        request_id = request_id_of(request.headers.get("x-request-id"))
        if path in self._calls:
            error: GatewayError = CallerError(f"{request.method} is not served at {path}: send POST", status=405)
            error.headers = {"Allow": "POST"}
        else:
            error = NotFound(f"nothing is served at {request.method} {path[:200]}")
        return self.refuse(codec, error, request_id, self._visible(request))

    # -- CORS

    def _visible(self, request: web.BaseRequest | Arrived, plan: Plan | None = None) -> _Visible:
        plan = plan or self.gateway.plan
        if plan.server.cors is not None and not isinstance(request, Arrived):
            return _Visible(plan.server.hidden_headers, self._cors_headers(request))
        if self._alike.hidden is not plan.server.hidden_headers:
            self._alike = _Visible(plan.server.hidden_headers, _NO_HEADERS)
        return self._alike

    def _cors_headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """Return the headers that let a browser of a configured origin read the answer; none while CORS is off."""
        cors = self.gateway.plan.server.cors
        if cors is None:
            return _NO_HEADERS
        origin = request.headers.get("Origin")
        if "*" in cors.origins:
            origin = "*"
        elif origin is None or origin not in cors.origins:
            return _VARIES  # or a cache would give this answer to a browser that may read it
        headers = {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Expose-Headers": "*"}
        if request.method == "OPTIONS":
            asked = request.headers.get("Access-Control-Request-Headers", "authorization, content-type")
            headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
            headers["Access-Control-Allow-Headers"] = asked
            headers["Access-Control-Max-Age"] = "600"
        return headers


class _Visible:
    """Which of our headers this caller sees, and what a browser must see besides."""

    __slots__ = ("hidden", "_always")

    def __init__(self, hidden: frozenset[str], always: Mapping[str, str]) -> None:
        self.hidden = hidden
        self._always = always

    def headers(self, call: Call | None = None, passed: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the response headers, names in lower case: the provider's that may pass, and ours."""
        headers = dict(passed) if passed else {}
        if call is not None:
            decision = call.decision
            headers["x-request-id"] = call.request_id
            if own := _REQUEST_ID_HEADERS.get(call.codec.format):
                headers.setdefault(own, call.request_id)
            headers["headgate-route"] = _header_safe(decision.route)
            if attempts := len(decision.attempts):
                headers["headgate-upstream"] = decision.upstream
                headers["headgate-attempts"] = str(attempts)
            if call.ledger.request and call.show_loss and (lost := call.ledger.lost):
                headers["headgate-loss"] = ", ".join(_header_safe(loss.path) for loss in lost)[:1000]
        for name in self.hidden:
            headers.pop(name, None)
        if self._always:
            headers.update(self._always)
        return headers


def _context(call: Call) -> AnswerContext:
    peek = call.peek
    return AnswerContext(call.request_id, int(call.began_unix), peek.model, bool(peek.stream_usage), call.headers)


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


def _header_safe(text: str) -> str:
    if text.isascii() and text.isprintable() and "," not in text:
        return text
    return "".join(letter if " " < letter < "\x7f" and letter != "," else "_" for letter in text)
