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
from ..errors import ErrorKind, GatewayError, NotFound, upstream_error
from ..ir.loss import Ledger, Loss
from ..operations import cannot
from ..passing.paths import Place, unserved
from ..relay.scope import Clock, Scope
from .decide import Verdict
from .given import Posed

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

    def add(self, scope: Scope) -> asyncio.AbstractEventLoop:
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
    last = leaf or (
        verdict.tried[-1] if verdict.tried else None
    )  # the record of a call that failed tells of its last try
    model = (None if last is None else last.model) or wire.model
    decision = Decision(REQUEST_ID, route.name, route.chain_names, route.to, route.aim.upstream_name, model)
    if last is not None:
        decision.chain, decision.upstream = route.chains[last.upstream.name], last.upstream.name
    decision.chosen.extend(verdict.chosen)
    if leaf is None:
        if verdict.tried:
            kind = failures[len(verdict.tried) - 1]
            return Outgoing(decision, refusal=upstream_error(kind, f"nothing is left to try after {kind}"))
        said = f"no case of the target {route.to} applies to this request"
        return Outgoing(decision, refusal=NotFound(said, param="model"))
    call = Call(
        posed.codec,
        posed.body,
        posed.peek,
        posed.facts,
        Scope(_NoClock()),
        REQUEST_ID,
        0.0,
        0.0,
        model,
        decision,
        Ledger(),
        principal=wire.principal,
        wants_usage=route.needs_usage or leaf.upstream.needs_usage,
        refuse_loss=route.loss == "refuse",
        show_loss=route.loss != "ignore",
        wire=wire,
        counts=posed.counts,
        passed=posed.passed,
    )
    adapter = leaf.upstream.adapter
    preview: Preview | None = None
    refusal: GatewayError | None = None
    previews = isinstance(adapter, Previews)
    counted_here = call.counts and not (isinstance(adapter, Counts) and call.format in adapter.counts)
    try:
        if not leaf.upstream.serves(call.format):
            raise cannot(leaf.upstream.name, call.format)
        if isinstance(adapter, Previews) and not counted_here:
            preview = adapter.preview(call if leaf.upstream.ask is None else leaf.upstream.ask(call))
    except GatewayError as error:
        refusal = error
    in_process = previews and preview is None and refusal is None
    return Outgoing(decision, preview, refusal, in_process, tuple(call.ledger.request))
