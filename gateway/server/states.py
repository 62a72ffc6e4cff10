"""The state of openai.responses at the server: calls go on from answers that were kept, and their answers are kept in turn.

A call is written out in full before it goes to the chain, so that no middleware, target or provider knows of state. Whose
state it is says the ``auth`` of the route's chain, which is asked here first and in the chain again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from msgspec import Raw, Struct

from ..call import Call
from ..errors import AuthError, CallerError, GatewayError, TooLarge
from ..facts import ANONYMOUS, Principal
from ..redaction.sealing import sealed
from ..responses import errors
from ..responses.kept import Kept, Policy, conversation, dereferenced, keep, key_of, read, refers
from ..responses.memory import Lane
from ..responses.request import carries_foreign_reasoning, items_of, read_asked, with_encrypted_reasoning, write_out
from ..rules.plan import Plan, Route
from ..stores.base import Store, get_one

_log: Final = logging.getLogger("headgate.server")
FORMAT: Final = errors.FORMAT
_SERVED: Final = frozenset({"store"})
"""What of a request is done here, once its answer is kept: a provider that is not told misses nothing."""
_SECOND_LOOK_S: Final = 0.05
"""When another process may be about to write what is not there yet: the last event of a stream is out before its write."""


class State(Struct, frozen=True):
    """Where the answer of one call goes: the ``items`` are its whole input. ``policy`` is None if no store may have it."""

    policy: Policy | None
    tenant: str
    items: tuple[Raw, ...]
    lane: Lane | None = None
    call: Call | None = None

    def keep(self, response: bytes) -> None:
        """Keep the answer. In a store that outlives the process it has placeholders for what was redacted in the call."""
        items = self.items
        if self.lane is not None:
            self.lane.keep(self.tenant, response, items)
        if self.policy is None:
            return
        if self.call is not None and (sessions := self.call.aside.redactions) and self.policy.store.shared:
            response, items = sealed(self.call.codec, response, items, sessions)
        keep(self.policy, self.tenant, response, items)


async def begin(call: Call, route: Route, plan: Plan, lane: Lane | None = None) -> tuple[Call, State | None]:
    """Return the call as it goes to the chain, and where its answer is to be kept, if it is.

    ``lane`` remembers on behalf of the call's connection. Where the provider keeps the state, that is what it does not keep.
    Raises DecodeError, Unsupported, AuthError, TooLarge, and the API's own errors for a response or an item that is not there.
    """
    try:
        call, state = await _begin(call, route, plan, lane)
        if call.body is not None and carries_foreign_reasoning(call.body):
            # A provider of this format would be sent the body as it is, and refuse what another one signed.
            call = call.with_request(call.request)
        if state is not None and state.policy is not None:
            call.ledger.served = _SERVED
    except GatewayError as error:
        # No chain has seen the call, and none of its logs tells of it.
        _log.info("POST %s refused: %s (%s)", call.facts.path, error.kind, call.request_id)
        raise
    return call, state


async def _begin(call: Call, route: Route, plan: Plan, lane: Lane | None) -> tuple[Call, State | None]:
    policy = route.responses
    if policy is None or call.body is None:
        return call, None
    remembers = lane
    if policy.state != "upstream":
        asked = read_asked(call.body)
    elif lane is None:
        return call, None
    else:
        try:
            asked = read_asked(call.body)
        except CallerError:
            return call, None  # the provider's to refuse, or to serve
        if asked.stores and not lane.warms:
            remembers = None
    previous = asked.previous_response_id
    keeps = policy.state == "gateway" and asked.stores and not call.counts
    may_refer = policy.state == "gateway" and b'"id"' in bytes(asked.input)
    if previous is None and not may_refer and not keeps and remembers is None:
        return call, None
    items = items_of(asked)
    if remembers is not None and not remembers.warms:
        call = _with_body(call, with_encrypted_reasoning(call.body, asked), plan)
    goes_on = previous is not None or (may_refer and any(map(refers, items)))
    if not goes_on and not keeps and remembers is None:
        return call, None
    if not goes_on:
        try:
            principal = await principal_of(route, call)
        except AuthError:
            return call, None  # the chain refuses this caller itself, and its log says so
        return call, State(policy if keeps else None, principal.tenant, items, remembers, call)
    tenant = (await principal_of(route, call)).tenant
    if policy.state == "gateway":
        items = await dereferenced(policy.store, tenant, items)
    if previous is not None:
        kept = None if lane is None else lane.memory.find(tenant, previous)
        if kept is None and policy.state == "upstream":
            return call, None  # the provider knows it, or nobody does
        if kept is None and policy.state == "gateway":
            kept = await find(policy.store, tenant, previous)
        if kept is None:
            raise errors.previous_not_found(previous, 404 if lane is None else 400)
        items = conversation(kept) + items
    state = State(policy if keeps else None, tenant, items, remembers, call)
    return _written_out(call, items, plan), state if keeps or remembers is not None else None


async def principal_of(route: Route, call: Call) -> Principal:
    """Return who calls, as the route's chain says. Raises AuthError."""
    principal = ANONYMOUS
    for authenticator in route.authenticators:
        principal = await authenticator.identify(call)
    return principal


async def find(store: Store, tenant: str, id: str) -> Kept | None:
    """Return what is kept of the response ``id``, None if that is nothing. Raises HouseError."""
    value = await get_one(store, key_of(tenant, id))
    if value is None and store.shared:
        await asyncio.sleep(_SECOND_LOOK_S)
        value = await get_one(store, key_of(tenant, id))
    return None if value is None else read(value)


def _written_out(call: Call, items: tuple[Raw, ...], plan: Plan) -> Call:
    assert call.body is not None
    body = write_out(call.body, items)
    if len(body) > plan.server.max_body:
        limit = f"{plan.server.max_body} bytes, the limit of this gateway (server.max_body)"
        raise TooLarge(f"with the conversation before it the request is larger than {limit}")
    return _with_body(call, body, plan)


def _with_body(call: Call, body: bytes, plan: Plan) -> Call:
    if body is call.body:
        return call
    return call.replace(body=body, wire=plan.facts(call.codec, call.peek, call.facts, body), _request=None)
