"""The HTTP surface: which handler serves a request, on its own port or mounted in an application."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ..doors import DOORS, EXACT, counted_at, format_at
from .calls import Calls
from .gateway import Gateway
from .intake import is_oddly_framed
from .pages import Pages
from .passing import Passing
from .responses import ResponsePages
from .sockets import Sockets
from .visible import Views
from .whole import WholeAnswer, is_looked_at

_MODELS: Final = ("/v1/models", "/models", "/v1beta/models", "/v1alpha/models")
"""Where models are listed, and each of them below."""
_TAGS: Final = "/api/tags"
_SHOW: Final = "/api/show"
"""Where Ollama's clients look for the list, and for one model."""
GATEWAY: Final = web.AppKey("headgate", Gateway)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class QuietAboutStrangers(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log of its server, in which a request that is no HTTP takes a line and no traceback: anybody can send one."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **kwargs: Any) -> None:
        """Log an exception; a client's fault as what it is."""
        if isinstance(exc_info, HttpProcessingError) and 400 <= exc_info.code < 500:
            self.logger.info("a request was refused: %s", str(exc_info.message).partition("\n")[0])
        else:
            self.logger.error(msg, *args, exc_info=exc_info, **kwargs)


_SERVER_LOG: Final = QuietAboutStrangers(logging.getLogger("headgate.server"), {})


def make_app(gateway: Gateway) -> web.Application:
    """Return an application that serves ``gateway``, on its own or as a sub-application."""
    # Our own limit counts, while the body is read; aiohttp's would be the host's when mounted.
    app = web.Application(client_max_size=1 << 40)
    app[GATEWAY] = gateway
    surface = Surface(gateway)
    app.router.add_route("*", "/{path:.*}", surface.mounted)
    app.on_shutdown.append(surface.sockets.shut)
    app.on_shutdown.append(surface.passing.shut)

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
    options: dict[str, Any] = {"access_log": None, "handler_cancellation": True, "logger": _SERVER_LOG, **limits}
    if find_spec("httptools") is None or sys.platform == "win32":  # whose loop reads while others parse
        return web.Server(surface.alone, **options)
    from .front import FrontServer  # needs httptools, which is an extra

    return FrontServer(
        surface.alone,
        paths=EXACT,
        route=surface.calls.arrived,
        max_head=gateway.plan.server.max_header,
        **options,
    )


class Surface:
    """The handlers of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        views = Views(gateway)
        self.calls = Calls(gateway, views)
        self._pages = pages = Pages(gateway, views, self.calls)
        self._responses = ResponsePages(gateway, views, self.calls)
        self.passing = Passing(gateway, views, self.calls)
        self.sockets = Sockets(gateway, views, self.calls, pages)
        self._served: dict[str, Handler] = {"/healthz": pages.healthz, "/readyz": pages.readyz, "/": pages.root}
        self._served.update((path, partial(pages.models, path=path)) for path in (*_MODELS, _TAGS))
        self._served |= {"/api/version": pages.version, "/api/ps": pages.running}

    async def mounted(self, request: web.Request) -> web.StreamResponse:
        """Serve a request that an Application has routed to us."""
        path = "/" + request.match_info["path"]
        if is_oddly_framed(request):
            answer: web.StreamResponse = self._pages.misframed(request, path)
        else:
            answer = await self._handler(path, request.method)(request)
        return answer.opened() if isinstance(answer, WholeAnswer) and is_looked_at(request) else answer

    def alone(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Serve a request for which nothing stands before us."""
        path = request.raw_path
        if (
            request.method == "POST"
            and path in EXACT
            and "Expect" not in request.headers
            and "Transfer-Encoding" not in request.headers
        ):
            return self.calls.of(EXACT[path])(request)  # type: ignore[no-any-return]  # a partial: mypy forgets its type
        return self._expected(request)

    async def _expected(self, request: web.BaseRequest) -> web.StreamResponse:
        if is_oddly_framed(request):
            return self._pages.misframed(request, request.path)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await self._handler(request.path, request.method)(request)

    def _handler(self, path: str, method: str) -> Handler:
        """Return what serves ``method`` at ``path``, which begins with a slash."""
        if method == "POST":
            if (format := format_at(path)) is not None:
                return self.calls.of(format)
            if (format := counted_at(path)) is not None:
                return self.calls.counting(format)
            if path == _SHOW:
                return partial(self._pages.models, path=path)
        elif method == "GET" and EXACT.get(path) in DOORS:
            return partial(self.sockets.serve, path=path)
        elif method in ("GET", "HEAD"):
            found = self._served.get(path)
            if found is not None:
                return found
            for models in _MODELS:
                if path.startswith(models + "/") and len(path) > len(models) + 1 and not is_asked_elsewhere(path):
                    return partial(self._pages.models, path=path, wanted=path[len(models) + 1 :])
        other = self._responses.handler(path, method) or self.passing.handler(path, method)
        return other or partial(self._pages.nowhere, path=path)


def is_asked_elsewhere(path: str) -> bool:
    """Whether a path below those of models is where a model is asked for something."""
    return format_at(path) is not None or "/operations" in path
