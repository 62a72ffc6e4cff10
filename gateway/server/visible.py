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
from .gateway import Gateway
from .intake import Arrived

REQUEST_ID_HEADERS: Final = {"anthropic.messages": "request-id", "anthropic.passthrough": "request-id"}
"""Where the SDKs of a format look for the request id, if not in x-request-id; a provider's own stands there first."""
_NO_HEADERS: Final[Mapping[str, str]] = {}
_VARIES: Final[Mapping[str, str]] = {"Vary": "Origin"}


class Visible:
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
            if own := REQUEST_ID_HEADERS.get(call.codec.format):
                headers.setdefault(own, call.request_id)
            headers["headgate-route"] = _header_safe(decision.route)
            if attempts := len(decision.attempts):
                headers["headgate-upstream"] = decision.upstream
                headers["headgate-attempts"] = str(attempts)
            if decision.cache:
                headers["headgate-cache"] = decision.cache
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

    def of(self, request: web.BaseRequest | Arrived, plan: Plan | None = None) -> Visible:
        """Return what the caller of ``request`` sees of an answer."""
        plan = plan or self._gateway.plan
        if plan.server.cors is not None and not isinstance(request, Arrived):
            return Visible(plan.server.hidden_headers, self.cors_headers(request))
        if self._alike.hidden is not plan.server.hidden_headers:
            self._alike = Visible(plan.server.hidden_headers, _NO_HEADERS)
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
