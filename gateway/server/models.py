"""Which models a caller may ask for by name."""

from __future__ import annotations

import time
from time import monotonic
from typing import TypeAlias

from ..call import Call, Decision
from ..codecs.base import Codec, Peek, RequestFacts
from ..errors import GatewayError
from ..facts import Grant
from ..ir.loss import Ledger
from ..relay.scope import Scope
from ..rules.plan import Plan, Route

Verdicts: TypeAlias = "dict[tuple[int, ...], GatewayError | tuple[Grant, ...]]"
"""Why each distinct set of authenticators refuses a caller; or what it lets the caller's key be used for."""


async def models_for(plan: Plan, codec: Codec, facts: RequestFacts, scope: Scope, request_id: str) -> list[str]:
    """Return the names of the models, each once, in the order of the rules.

    The authentication of each distinct chain runs; a model is listed if a route that serves it accepts this caller, and its
    key may be used for both.
    Raises the first refusal when no chain accepts.
    """
    call = _asking(codec, facts, scope, request_id)
    verdicts = await _admit(plan, call)
    names: dict[str, None] = {}
    for name, route in plan.models():
        verdict = await _verdict(route, call, verdicts)
        if not isinstance(verdict, GatewayError) and all(grant.allows(route.name, name) for grant in verdict):
            names[name] = None
    return list(names)


async def admit(plan: Plan, codec: Codec, facts: RequestFacts, scope: Scope, request_id: str) -> None:
    """Let the caller of ``facts`` in if any route's chain accepts it. Raises the first refusal when none does."""
    await _admit(plan, _asking(codec, facts, scope, request_id))


async def _admit(plan: Plan, call: Call) -> Verdicts:
    verdicts: Verdicts = {}
    for route in plan.routes:
        await _verdict(route, call, verdicts)
    refusals = [verdict for verdict in verdicts.values() if isinstance(verdict, GatewayError)]
    if refusals and len(refusals) == len(verdicts):
        raise refusals[0]
    return verdicts


def _asking(codec: Codec, facts: RequestFacts, scope: Scope, request_id: str) -> Call:
    return Call(
        codec, b"", Peek(), facts, scope, request_id, monotonic(), time.time(), "", Decision(request_id), Ledger()
    )


async def _verdict(route: Route, call: Call, verdicts: Verdicts) -> GatewayError | tuple[Grant, ...]:
    """Return why the route's chain refuses this caller, or what bounds it; each set of authenticators is asked once."""
    key = tuple(id(middleware) for middleware in route.authenticators)
    if key not in verdicts:
        grants: list[Grant] = []
        verdicts[key] = ()
        for authenticator in route.authenticators:
            try:
                principal = await authenticator.identify(call)
            except GatewayError as error:
                verdicts[key] = error
                break
            if principal.grant is not None:
                grants.append(principal.grant)
        else:
            verdicts[key] = tuple(grants)
    return verdicts[key]
