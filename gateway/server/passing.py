"""Calls that nobody translates: the request goes through the chain of its route as it comes in, and so does the answer.

Neither is ever held whole: a body is read while the provider takes it, an answer while the client does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Final, Protocol

from aiohttp import web
from msgspec.structs import replace

from .. import registry
from ..call import Call, Decision, presented_key
from ..codecs.base import Codec, Peek, RequestFacts
from ..errors import CallerError, GatewayError, Unsupported, UpstreamTimeout
from ..ir.loss import Ledger
from ..passing.paths import GEMINI, Place, api_of, is_never_passed, place_of, unserved
from ..passing.request import Passed
from ..relay.reply import Reply
from ..relay.scope import Scope, as_gateway_error
from ..rules.plan import Plan, Route
from .body import Body, passed_of
from .calls import Calls
from .edge import Presence
from .gateway import Gateway
from .intake import abandon_body, read_headers, remote_of, request_id_of
from .passing_sockets import serve_socket
from .uploads import Uploads
from .visible import Views

_log = logging.getLogger("headgate.server")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_DOUBLED: Final = "//ws/"
"""Google's SDK joins its base URL, which ends with a slash, and the path of its socket, which begins with one."""
_UNHELD: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""What keeps a proxy before us from holding events back."""
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Ends(Protocol):
    """A socket that is open."""

    def stop(self) -> None:
        """End it."""
        ...


class Passing:
    """Serves what one gateway passes on."""

    def __init__(self, gateway: Gateway, views: Views, calls: Calls) -> None:
        self.gateway = gateway
        self._views = views
        self._calls = calls
        self._uploads = Uploads()
        self.sockets: set[Ends] = set()
        """Those that are open."""
        gateway.drains.append(self.end_sockets)

    async def shut(self, _: object = None) -> None:
        """End every socket: a host ends."""
        self.end_sockets()

    def end_sockets(self) -> None:
        """End every socket: nobody knows when a session is over."""
        for socket in list(self.sockets):
            socket.stop()

    def handler(self, path: str, method: str) -> Handler | None:
        """Return what serves ``method`` at ``path``; None where nothing of this kind is asked for."""
        if path.startswith(_DOUBLED):
            path = path[1:]
        if method not in METHODS or (place_of(path) is None and not is_never_passed(path)):
            return None
        return partial(self._serve, path=path)

    async def _serve(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Pass on one call, whatever happens to it."""
        place = place_of(path, api_of(request.headers, request.query))
        if place is None:
            return self.never(request, path)
        if request.method == "GET" and request.headers.get("Upgrade", "").strip().lower() == "websocket":
            return await serve_socket(self, request, path, place)
        codec, visible = registry.codec(place.format), self._views.of(request)
        request_id = request_id_of(request.headers.get("x-request-id"))
        scope, plan = self.gateway.open_scope()
        body = Body(request, plan.server.receive, plan.server.max_upload)
        call: Call | None = None
        presence: Presence | None = None
        reply: Reply | None = None
        response: web.StreamResponse | None = None
        try:
            presence = Presence(request, scope)
            presence.deadline = monotonic() + plan.server.receive
            began, headers = monotonic(), read_headers(request, plan.server.max_header)
            # A page may send a form with a file anywhere, and its browser asks nobody before.
            self.check(request)
            if place.format == GEMINI and presented_key(headers, request.query.get("key")) is None:
                self._uploads.vouch(path, request.query, headers, began)
            passed = passed_of(request, path, place, headers, plan.server.networks)
            passed = replace(passed, upload=await body.begin(headers))
            call, route = self.prepare(plan, codec, passed, place, request, headers, scope, request_id, began)
            presence.deadline = call.deadline
            reply = await route.entry(call)
            if place.format == GEMINI:
                self._uploads.note(request.query, reply.headers, call.presented_key(), began)
            scope.committed = True
            response = web.StreamResponse(status=reply.status, headers=visible.headers(call, reply.headers))
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                response.headers.update(_UNHELD)
            if self.gateway.draining:
                response.force_close()
            await response.prepare(request)
            async for chunk in reply:
                assert chunk.raw is not None, "what is passed on has bytes"
                await response.write(chunk.raw)
            await response.write_eof()
            return response
        except asyncio.CancelledError:
            if presence is None or not presence.overdue:
                raise  # the client left, or the process ends
            presence.forgive()
            fault: BaseException = _overdue(call, plan)
        except ConnectionResetError as left:
            fault = left
            if response is not None:
                return response
        except Exception as caught:  # the server's edge: every failure becomes an answer
            fault = caught
        finally:
            if reply is not None:
                reply.abort()  # nothing, if it is over
            scope.close()
            await body.stop()
        error = as_gateway_error(fault)
        abandon_body(request)
        if response is not None:  # no clean end after a failure: the client must not take this for the whole
            if request.transport is not None:
                request.transport.abort()
            return response
        if call is None:
            _log.info("%s %s refused: %s (%s)", request.method, path, error.kind, request_id)
        return self._calls.refuse(codec, error, request_id, visible, call)

    def check(self, request: web.BaseRequest) -> None:
        """Raise PermissionDenied for a page of a foreign origin."""
        self._views.check_origin(request)

    def never(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Refuse what no route opens."""
        abandon_body(request)
        theirs = "anthropic-version" in request.headers or path.startswith("/v1/organizations")
        codec = registry.codec("anthropic.passthrough" if theirs else "openai.passthrough")
        said = f"{path[:200]} is the administration of an account, which is not passed on"
        request_id = request_id_of(request.headers.get("x-request-id"))
        return self._calls.refuse(codec, Unsupported(said, status=501), request_id, self._views.of(request))

    def refuse(
        self, request: web.BaseRequest, codec: Codec, error: GatewayError, request_id: str, call: Call | None
    ) -> web.StreamResponse:
        """Return ``error`` as an answer."""
        return self._calls.refuse(codec, error, request_id, self._views.of(request), call)

    def seen(self, request: web.BaseRequest, call: Call) -> dict[str, str]:
        """Return our headers for an answer."""
        return self._views.of(request).headers(call)

    def prepare(
        self,
        plan: Plan,
        codec: Codec,
        passed: Passed,
        place: Place,
        request: web.BaseRequest,
        headers: dict[str, str],
        scope: Scope,
        request_id: str,
        began: float,
    ) -> tuple[Call, Route]:
        """Choose the route. Raises Unsupported where none takes it."""
        facts = RequestFacts(place.path, dict(request.query), headers)
        peek = Peek(passed.model)
        wire = plan.facts(codec, peek, facts, b"")
        wire.tokens = (passed.upload.length or len(passed.upload.head)) // 4
        route = plan.match(wire)
        if route is None:
            raise unserved(place)
        model = route.model or peek.model
        call = Call(
            codec,
            b"",
            peek,
            facts,
            scope,
            request_id,
            began,
            time.time(),
            model,
            Decision(request_id, route.name, route.chain_names, route.to, route.aim.upstream_name, model),
            Ledger(),
            deadline=began + route.total_s,
            show_loss=route.loss != "ignore",
            remote=remote_of(request, headers, plan.server.networks),
            wire=wire,
            passed=passed,
        )
        return call, route


def _overdue(call: Call | None, plan: Plan) -> GatewayError:
    if call is None:
        limit = f"{plan.server.receive:g} s, the limit of this gateway (server.receive)"
        return CallerError(f"the request did not begin within {limit}", status=408)
    return UpstreamTimeout("the call took longer than its total time-out", kind="timeout.total")
