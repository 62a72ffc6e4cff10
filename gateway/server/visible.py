"""Which response headers a caller sees: ours, the provider's that may pass, and what a browser must see besides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from ..call import Call
from ..errors import PermissionDenied
from ..pricing.price import spelled
from ..rules.plan import Plan
from ..rules.schema import ServerOptions
from .gateway import Gateway
from .intake import Arrived

REQUEST_ID_HEADERS: Final = {"anthropic.messages": "request-id", "anthropic.passthrough": "request-id"}
"""Where the SDKs of a format look for the request id, if not in x-request-id; a provider's own stands there first."""
_MOST: Final = 1000
_NO_HEADERS: Final[Mapping[str, str]] = {}
_VARIES: Final[Mapping[str, str]] = {"Vary": "Origin"}


class _Standing(dict[tuple[str, str, int, str], dict[str, str]]):
    """Headers that stand: of route, upstream, number of tries, and what the cache did. There are few of them."""

    def __missing__(self, where: tuple[str, str, int, str]) -> dict[str, str]:
        route, upstream, attempts, cache = where
        headers = {"headgate-route": _header_safe(route)}
        if attempts:
            headers["headgate-upstream"] = upstream
            headers["headgate-attempts"] = str(attempts)
        if cache:
            headers["headgate-cache"] = cache
        if len(self) >= _MOST:
            self.clear()  # reloads bring new ones
        self[where] = headers
        return headers


_STANDING: Final = _Standing()


class Visible:
    """Which of our headers this caller sees, and what a browser must see besides."""

    __slots__ = ("hidden", "_always")

    def __init__(self, hidden: frozenset[str], always: Mapping[str, str]) -> None:
        self.hidden = hidden
        self._always = always

    def headers(self, call: Call | None = None, passed: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the response headers, names in lower case: the provider's that may pass, and ours."""
        if call is None:
            headers = {**(passed or _NO_HEADERS)}
        else:
            decision, request_id = call.decision, call.request_id
            standing = _STANDING[decision.route, decision.upstream, len(decision.attempts), decision.cache]
            headers = {**(passed or _NO_HEADERS), "x-request-id": request_id, **standing}
            if own := REQUEST_ID_HEADERS.get(call.codec.format):
                headers.setdefault(own, request_id)
            if decision.rounds and not call.peek.stream:  # a stream's headers are gone before anybody knows
                headers["headgate-rounds"] = str(decision.rounds)
            if decision.cost_usd is not None and not call.peek.stream:
                headers["headgate-cost"] = spelled(decision.cost_usd)
            if call.ledger.request and call.show_loss and (lost := call.ledger.lost):
                headers["headgate-loss"] = ", ".join(_header_safe(loss.path) for loss in lost)[:1000]
        for name in self.hidden:
            headers.pop(name, None)
        if self._always:
            headers.update(self._always)
        return headers


class Views:
    """What each request's caller may see, by the rules in force."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._alike = Visible(frozenset(), _NO_HEADERS)
        self._server: ServerOptions | None = None
        """Whose callers all see ``_alike``."""

    def of(self, request: web.BaseRequest | Arrived, plan: Plan | None = None) -> Visible:
        """Return what the caller of ``request`` sees of an answer."""
        server = self._gateway.plan.server if plan is None else plan.server
        if server is self._server:
            return self._alike
        if server.cors is not None and not isinstance(request, Arrived):
            return Visible(server.hidden_headers, self.cors_headers(request))
        self._alike = Visible(server.hidden_headers, _NO_HEADERS)
        self._server = server if server.cors is None else None
        return self._alike

    def check_origin(self, request: web.BaseRequest) -> None:
        """Raise PermissionDenied for a page of a foreign origin, where a browser sends what it asks nobody about before."""
        origin = request.headers.get("Origin")
        if origin is None or urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower():
            return
        if "Access-Control-Allow-Origin" not in self.cors_headers(request):
            raise PermissionDenied(f"pages of {origin[:100]} may not connect here (server.cors)")

    def cors_headers(self, request: web.BaseRequest) -> Mapping[str, str]:
        """Return the headers that let a browser of a configured origin read the answer; none while CORS is off."""
        cors = self._gateway.plan.server.cors
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
            headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
            headers["Access-Control-Allow-Headers"] = asked
            headers["Access-Control-Max-Age"] = "600"
        return headers


@lru_cache(1024)
def _header_safe(text: str) -> str:
    if text.isascii() and text.isprintable() and "," not in text:
        return text
    return "".join(letter if " " < letter < "\x7f" and letter != "," else "_" for letter in text)
