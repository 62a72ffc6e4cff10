"""What is served besides calls: the model list, health, and typed errors for everything else."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from aiohttp import web

from .. import registry
from ..codecs.base import Codec, RequestFacts
from ..doors import counted_at, format_at, format_below
from ..errors import CallerError, GatewayError, NotFound, Unsupported
from ..relay.scope import as_gateway_error
from ..wire.members import BAD_JSON
from .calls import Calls
from .gateway import Gateway
from .intake import abandon_body, read_body, read_headers, request_id_of
from .listing import OLLAMA_VERSION, bare_name, list_body, model_body
from .models import models_for
from .visible import Views
from .whole import WholeAnswer


class _Show(msgspec.Struct):
    model: str = ""
    name: str = ""


_OLLAMA: Final = re.compile(r"/api/[a-z]+|/api/blobs/.*", re.DOTALL)
"""Where Ollama's clients knock, served or not. Its ``/api/embeddings`` ends like OpenAI's path."""
_SHOW: Final = msgspec.json.Decoder(_Show)


class Pages:
    """The other handlers of one gateway."""

    def __init__(self, gateway: Gateway, views: Views, calls: Calls) -> None:
        self.gateway = gateway
        self._views = views
        self._calls = calls

    async def models(self, request: web.BaseRequest, path: str, wanted: str | None = None) -> web.StreamResponse:
        """List the models this caller may use, or the one that is ``wanted``, in the shape of the asking client.

        Ollama's clients say in the body of a POST which one they want.
        """
        if request.method != "POST":
            abandon_body(request)
        codec = self._codec_for(request, path)
        request_id = request_id_of(request.headers.get("x-request-id"))
        scope, plan = self.gateway.open_scope()
        try:
            headers = read_headers(request, plan.server.max_header)
            if request.method == "POST":
                wanted = _shown(await read_body(request, headers, plan.server.max_body))
            facts = RequestFacts(request.path, dict(request.query), headers)
            names = await models_for(plan, codec, facts, scope, request_id)
            if wanted is None:
                body = list_body(codec.format, names, self.gateway.loaded_at, facts.query)
            elif (name := bare_name(codec.format, wanted)) in names:
                body = model_body(codec.format, name, self.gateway.loaded_at)
            else:
                raise NotFound(f"the model {wanted!r} is not listed here", param="model")
            answer = self._views.of(request).headers(None, {"x-request-id": request_id})
            answer["content-type"] = "application/json"
            return web.Response(body=body, headers=answer)
        except Exception as fault:  # as in serve: an authenticator may be a stranger's
            abandon_body(request)
            return self._calls.refuse(codec, as_gateway_error(fault), request_id, self._views.of(request))
        finally:
            scope.close()

    async def version(self, request: web.BaseRequest) -> web.StreamResponse:
        """Say which version of Ollama's API this is; its clients ask before they do anything."""
        return web.json_response({"version": OLLAMA_VERSION})

    async def running(self, request: web.BaseRequest) -> web.StreamResponse:
        """Say which models Ollama's clients would find in memory here: none, since they run elsewhere."""
        return web.json_response({"models": []})

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
        codec = self._codec_for(request, path)
        request_id = request_id_of(request.headers.get("x-request-id"))
        if (format_at(path) or counted_at(path)) is not None:
            error: GatewayError = CallerError(f"{request.method} is not served at {path}: send POST", status=405)
            error.headers = {"Allow": "POST"}
        elif path == "/v2" or path.startswith("/v2/"):
            error = Unsupported(f"{path[:200]}: no version 2 of any API is served here; use /v1", status=501)
        else:
            error = NotFound(f"nothing is served at {request.method} {path[:200]}")
        return self._calls.refuse(codec, error, request_id, self._views.of(request))

    def misframed(self, request: web.BaseRequest, path: str) -> WholeAnswer:
        """Refuse a request of whose end we cannot be sure; nothing after it on its connection is read."""
        error = Unsupported("this transfer-encoding is not served here: send chunked alone, or a length", status=501)
        request_id = request_id_of(request.headers.get("x-request-id"))
        answer = self._calls.refuse(self._codec_for(request, path), error, request_id, self._views.of(request))
        answer.force_close()
        return answer

    def _codec_for(self, request: web.BaseRequest, path: str) -> Codec:
        """Return the format in which to talk to a caller whose ``path`` is no door, or is not served by this method."""
        headers = request.headers
        if _OLLAMA.fullmatch(path):
            return registry.codec("ollama.chat")
        if (format := counted_at(path) or format_below(path)) is not None:
            return registry.codec(format)
        if path.startswith(("/v1beta", "/v1alpha")):
            return registry.codec("gemini")
        if "anthropic-version" in headers:
            return registry.codec("anthropic.messages")
        if "x-goog-api-key" in headers or "key" in request.query:
            return registry.codec("gemini")
        return registry.codec("openai.chat")


def _shown(body: bytes) -> str:
    """Return the model that Ollama's clients want to be shown; older ones call it name. Raises CallerError."""
    try:
        told = _SHOW.decode(body)
    except BAD_JSON as fault:
        raise CallerError(f"the request body is no JSON object that names a model: {fault}") from fault
    return told.model or told.name
