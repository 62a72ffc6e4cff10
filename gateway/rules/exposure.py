"""Whether a plan may be reached from the network: not while a route is open to strangers, unless the file says so."""

from __future__ import annotations

from .listen import Listen, parse_listen
from .plan import Plan
from .problems import Problem


def check_exposure(plan: Plan, listen: str | Listen) -> Problem | None:
    """Return why the gateway must not listen on that address, or None. Routes that are off at present count too."""
    address = parse_listen(listen) if isinstance(listen, str) else listen
    if address.is_local or plan.server.anonymous == "allow":
        return None
    for route in plan.routes:
        if not route.authenticates:
            return Problem(
                "E051",
                "error",
                plan.source,
                route.line,
                1,
                f'{address} can be reached from the network, and the route "{route.name}" has no auth in its chain',
                "add auth to the chain, listen on 127.0.0.1, or set server.anonymous: allow",
            )
    return None
