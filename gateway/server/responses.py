"""What the Responses API serves besides calls: a response that was kept, its input, its end. ``auth`` runs as for any call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Final, NamedTuple

from aiohttp import web

from .. import registry
from ..call import Call, Decision
from ..codecs.base import Codec, Peek, RequestFacts
from ..errors import GatewayError
from ..facts import Principal
from ..ir.loss import Ledger
from ..relay.scope import Scope, as_gateway_error
from ..responses import errors, pages
from ..responses.kept import Kept, forget
from ..rules.plan import Plan
from ..stores.base import Store
from .calls import Calls
from .gateway import Gateway
from .intake import abandon_body, read_headers, request_id_of
from .states import FORMAT, find, principal_of
from .visible import Views

_ROOTS: Final = ("/v1/responses/", "/responses/")
_JSON: Final = "application/json"
_identity: Final = id


class _Found(NamedTuple):
    """A response and where it is kept."""

    id: str
    kept: Kept
    store: Store
    tenant: str


class ResponsePages:
    """Serves what is kept of the answers of one gateway."""

    def __init__(self, gateway: Gateway, views: Views, calls: Calls) -> None:
        self.gateway = gateway
        self._views = views
        self._calls = calls

    def handler(self, path: str, method: str) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None:
        """Return what serves ``method`` at ``path``; None if that is none of ours."""
        root = next((root for root in _ROOTS if path.startswith(root)), None)
        if root is None:
            return None
        id, _, action = path.removeprefix(root).partition("/")
        does = _ACTIONS.get((method, action)) if id else None
        return None if does is None else partial(self._serve, id=id, does=does)

    async def _serve(self, request: web.BaseRequest, id: str, does: _Action) -> web.StreamResponse:
        abandon_body(request)
        codec = registry.codec(FORMAT)
        request_id = request_id_of(request.headers.get("x-request-id"))
        scope, plan = self.gateway.open_scope()
        try:
            facts = RequestFacts(request.path, dict(request.query), read_headers(request, plan.server.max_header))
            found = await _find(plan, codec, facts, scope, request_id, id)
            body, content_type = does(found, codec, facts)
            headers = self._views.of(request).headers(None, {"x-request-id": request_id})
            headers["content-type"] = content_type
            return web.Response(body=body, headers=headers)
        except Exception as fault:  # as in Calls.serve: an authenticator or a store may be a stranger's
            return self._calls.refuse(codec, as_gateway_error(fault), request_id, self._views.of(request))
        finally:
            scope.close()


async def _find(plan: Plan, codec: Codec, facts: RequestFacts, scope: Scope, request_id: str, id: str) -> _Found:
    """Look where any route that accepts this caller keeps its answers.

    Raises the first refusal when no chain accepts, NotFound for a response that is not there.
    """
    began = monotonic()
    call = Call(codec, b"", Peek(), facts, scope, request_id, began, time.time(), "", Decision(request_id), Ledger())
    verdicts: dict[tuple[int, ...], Principal | GatewayError] = {}
    seen: set[tuple[int, str]] = set()
    for route in plan.routes:
        policy = route.responses
        if policy is None or policy.state != "gateway":
            continue
        chain = tuple(map(_identity, route.authenticators))
        if chain not in verdicts:
            try:
                verdicts[chain] = await principal_of(route, call)
            except GatewayError as refusal:
                verdicts[chain] = refusal
        who = verdicts[chain]
        if isinstance(who, GatewayError) or (_identity(policy.store), who.tenant) in seen:
            continue
        seen.add((_identity(policy.store), who.tenant))
        if (kept := await find(policy.store, who.tenant, id)) is not None:
            return _Found(id, kept, policy.store, who.tenant)
    refusals = [who for who in verdicts.values() if isinstance(who, GatewayError)]
    if refusals and len(refusals) == len(verdicts):
        raise refusals[0]
    raise errors.not_found(id)


_Action = Callable[[_Found, Codec, RequestFacts], tuple[bytes, str]]


def _retrieve(found: _Found, codec: Codec, facts: RequestFacts) -> tuple[bytes, str]:
    if facts.query.get("stream") != "true":
        return bytes(found.kept.response), _JSON
    return pages.replay(found.kept, codec, pages.starting_after(facts.query)), codec.stream_content_type


def _delete(found: _Found, codec: Codec, facts: RequestFacts) -> tuple[bytes, str]:
    forget(found.store, found.tenant, found.id, found.kept)
    return pages.deleted(found.id), _JSON


def _input_items(found: _Found, codec: Codec, facts: RequestFacts) -> tuple[bytes, str]:
    return pages.input_items(found.id, found.kept, facts.query), _JSON


def _cancel(found: _Found, codec: Codec, facts: RequestFacts) -> tuple[bytes, str]:
    raise errors.not_in_background()


_ACTIONS: Final[dict[tuple[str, str], _Action]] = {
    ("GET", ""): _retrieve,
    ("DELETE", ""): _delete,
    ("GET", "input_items"): _input_items,
    ("POST", "cancel"): _cancel,
}
