"""The model list: what a caller may ask for by name, in the shape of the client that asks."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from ..call import Call, Decision
from ..codecs.base import Codec, Peek, RequestFacts
from ..errors import GatewayError, NotFound
from ..ir.loss import Ledger
from ..relay.scope import Scope
from ..rules.plan import Plan, Route

_OWNER: Final = "headgate"


async def list_models(
    plan: Plan,
    codec: Codec,
    facts: RequestFacts,
    scope: Scope,
    request_id: str,
    wanted: str | None,
    anthropic: bool,
    created: float,
) -> bytes:
    """Return the JSON body of the list, or of the one model ``wanted``.

    The authentication of each distinct chain runs; a model is listed if a route that serves it accepts this caller.
    Raises the first refusal when no chain accepts, NotFound for a model that is not listed.
    """
    verdicts: dict[tuple[int, ...], GatewayError | None] = {}
    names: list[str] = []
    call = Call(
        codec, b"", Peek(), facts, scope, request_id, scope.loop.time(), time.time(), "", Decision(request_id), Ledger()
    )
    for route in plan.routes:
        await _verdict(route, call, verdicts)
    refusals = [error for error in verdicts.values() if error is not None]
    if refusals and len(refusals) == len(verdicts):
        raise refusals[0]
    for name, route in plan.models():
        if await _verdict(route, call, verdicts) is None and name not in names:
            names.append(name)
    entries = [_entry(name, anthropic, created) for name in names]
    if wanted is not None:
        for entry in entries:
            if entry["id"] == wanted:
                return msgspec.json.encode(entry)
        raise NotFound(f"the model {wanted!r} is not listed here", param="model")
    if anthropic:
        return msgspec.json.encode(
            {
                "data": entries,
                "has_more": False,
                "first_id": names[0] if names else None,
                "last_id": names[-1] if names else None,
            }
        )
    return msgspec.json.encode({"object": "list", "data": entries})


async def _verdict(
    route: Route, call: Call, verdicts: dict[tuple[int, ...], GatewayError | None]
) -> GatewayError | None:
    """Return why the route's chain refuses this caller, or None; each distinct set of authenticators is asked once."""
    key = tuple(id(middleware) for middleware in route.authenticators)
    if key not in verdicts:
        verdicts[key] = None
        for authenticator in route.authenticators:
            try:
                await authenticator.identify(call)
            except GatewayError as error:
                verdicts[key] = error
                break
    return verdicts[key]


def _entry(name: str, anthropic: bool, created: float) -> dict[str, object]:
    if anthropic:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created))
        return {"type": "model", "id": name, "display_name": name, "created_at": stamp}
    return {"id": name, "object": "model", "created": int(created), "owned_by": _OWNER}
