"""What would be sent to a provider, without sending it: for ``explain``.

The call is made as the gateway makes it and handed to the upstream's adapter, which writes the request as it would for a
live call. The middlewares of the chain do not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from ..call import Call, Decision
from ..chain import Preview, Previews
from ..counting import Counts
from ..errors import ErrorKind, GatewayError, LossRefused, NotFound, upstream_error
from ..ir.loss import Ledger, Loss
from ..operations import cannot
from ..passing.paths import Place, unserved
from ..relay.scope import Clock, Scope
from .decide import Loses, Verdict
from .given import Posed
from .plan import Route
from .target import Leaf

REQUEST_ID: Final = "req_explain"


class Outgoing(Struct, frozen=True, eq=False):
    """What would become of a request. ``preview`` is what would be sent, or None: nothing, or nobody knows.

    ``refusal`` is the error that the caller would get instead; ``in_process`` says that the adapter answers by itself.
    ``losses`` are what of the request is lost, minted or emulated on the way.
    """

    decision: Decision
    preview: Preview | None = None
    refusal: GatewayError | None = None
    in_process: bool = False
    losses: tuple[Loss, ...] = ()


class _NoClock(Clock):
    """Watches nothing. Its loop is closed: to start anything raises RuntimeError."""

    def start(self) -> asyncio.AbstractEventLoop:
        """Return a loop that cannot do anything, and opens nothing."""
        loop = asyncio.BaseEventLoop()
        loop.close()
        return loop


def outgoing(verdict: Verdict, posed: Posed, failures: Sequence[ErrorKind] = ()) -> Outgoing:
    """Return what would be sent for a request about which ``verdict`` was reached, after ``failures``."""
    route, leaf, wire = verdict.route, verdict.leaf, posed.wire
    if route is None:
        if posed.passed is not None:
            return Outgoing(Decision(REQUEST_ID), refusal=unserved(Place(posed.codec.format, wire.path, True)))
        said = f"no route serves the model {wire.model!r} in the format {posed.codec.format}"
        return Outgoing(Decision(REQUEST_ID), refusal=NotFound(said, param="model"))
    # the record of a call that failed tells of its last try, of one that lost too much wherever it went of the first
    last = leaf or (verdict.tried[-1] if verdict.tried else next(iter(verdict.skipped), None))
    model = (None if last is None else last.model) or wire.model
    decision = Decision(REQUEST_ID, route.name, route.chain_names, route.to, route.aim.upstream_name, model)
    if last is not None:
        decision.chain, decision.upstream = route.chains[last.upstream.name], last.upstream.name
    decision.chosen.extend(verdict.chosen)
    if last is None:
        said = f"no case of the target {route.to} applies to this request"
        return Outgoing(decision, refusal=NotFound(said, param="model"))
    if leaf is None and verdict.tried:
        kind = failures[len(verdict.tried) - 1]
        return Outgoing(decision, refusal=upstream_error(kind, f"nothing is left to try after {kind}"))
    call = _call(route, last, posed, decision)
    preview: Preview | None = None
    refusal: GatewayError | None = None
    try:
        preview = _preview(last, call)
    except GatewayError as error:
        refusal = error
    in_process = isinstance(last.upstream.adapter, Previews) and preview is None and refusal is None
    return Outgoing(decision, preview, refusal, in_process, tuple(call.ledger.request))


def lost_at(posed: Posed) -> Loses:
    """Return what tells whether a route refuses the request for what would be lost of it at an upstream."""

    def loses(route: Route, leaf: Leaf) -> bool:
        try:
            _preview(leaf, _call(route, leaf, posed, Decision(REQUEST_ID)))
        except LossRefused:
            return True
        except GatewayError:
            return False
        return False

    return loses


def _call(route: Route, leaf: Leaf, posed: Posed, decision: Decision) -> Call:
    """Return the call as the gateway makes it, aimed at ``leaf``."""
    return Call(
        posed.codec,
        posed.body,
        posed.peek,
        posed.facts,
        Scope(_NoClock()),
        REQUEST_ID,
        0.0,
        0.0,
        leaf.model or posed.wire.model,
        decision,
        Ledger(),
        principal=posed.wire.principal,
        wants_usage=route.needs_usage or leaf.upstream.needs_usage,
        refuse_loss=route.loss == "refuse",
        show_loss=route.loss != "ignore",
        wire=posed.wire,
        counts=posed.counts,
        passed=posed.passed,
    )


def _preview(leaf: Leaf, call: Call) -> Preview | None:
    """Return what the adapter would send; None: nothing, or nobody knows. Raises what it would raise."""
    upstream = leaf.upstream
    adapter = upstream.adapter
    if not upstream.serves(call.format):
        raise cannot(upstream.name, call.format)
    counted_here = call.counts and not (isinstance(adapter, Counts) and call.format in adapter.counts)
    if not isinstance(adapter, Previews) or counted_here:
        return None
    if (accounts := upstream.accounts) is not None and accounts.members:
        call = call.replace(account=accounts.members[0].account)  # live calls take turns
    return adapter.preview(call if upstream.ask is None else upstream.ask(call))
