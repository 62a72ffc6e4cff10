"""What is served besides calls: the model list, health, and typed errors for everything else."""

from __future__ import annotations

import msgspec
from aiohttp import web

from .. import registry
from ..codecs.base import Codec, RequestFacts
from ..doors import format_at
from ..errors import CallerError, GatewayError, NotFound, Unsupported
from ..relay.scope import as_gateway_error
from .calls import Calls
from .gateway import Gateway
from .intake import abandon_body, read_headers, request_id_of
from .models import list_models
from .visible import Views
from .whole import WholeAnswer


class Pages:
    """The other handlers of one gateway."""

    def __init__(self, gateway: Gateway, views: Views, calls: Calls) -> None:
        self.gateway = gateway
        self._views = views
        self._calls = calls

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
            answer = self._views.of(request).headers(None, {"x-request-id": request_id})
            answer["content-type"] = "application/json"
            return web.Response(body=body, headers=answer)
        except Exception as fault:  # as in serve: an authenticator may be a stranger's
            return self._calls.refuse(codec, as_gateway_error(fault), request_id, self._views.of(request))
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
        if request.method == "OPTIONS" and len(allowed := self._views.cors_headers(request)) > 1:
            return web.Response(status=204, headers=allowed)
        abandon_body(request)
        codec = self._codec_for(request)
        request_id = request_id_of(request.headers.get("x-request-id"))
        if format_at(path) is not None:
            error: GatewayError = CallerError(f"{request.method} is not served at {path}: send POST", status=405)
            error.headers = {"Allow": "POST"}
        else:
            error = NotFound(f"nothing is served at {request.method} {path[:200]}")
        return self._calls.refuse(codec, error, request_id, self._views.of(request))

    def misframed(self, request: web.BaseRequest) -> WholeAnswer:
        """Refuse a request of whose end we cannot be sure; nothing after it on its connection is read."""
        error = Unsupported("this transfer-encoding is not served here: send chunked alone, or a length", status=501)
        request_id = request_id_of(request.headers.get("x-request-id"))
        answer = self._calls.refuse(self._codec_for(request), error, request_id, self._views.of(request))
        answer.force_close()
        return answer

    def _codec_for(self, request: web.BaseRequest) -> Codec:
        """Return the format in which to talk to a caller whose path does not say."""
        anthropic = "anthropic-version" in request.headers or request.path.endswith("/messages")
        return registry.codec("anthropic.messages" if anthropic else "openai.chat")
