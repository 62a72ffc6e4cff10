"""What the section ``accounts:`` of a rule file says of a pool."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ..units import Duration, Secret

Pick = Literal["round_robin", "fill_first", "least_used", "weighted", "priority"]
Source = Literal["reset-header", "retry-after"]


class MemberRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Its name, in logs and for ``headgate accounts``."""
    key: Secret
    """Its key, by reference. ``env:NAME?`` leaves the account out while NAME is unset."""
    weight: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    """Its share, against the weights of the others, where ``pick`` is weighted, least_used or priority."""
    priority: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Where ``pick`` is priority: the lowest number goes first."""


class AffinityRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls that belong together go out with the same account, so that the provider's prompt cache stays warm."""

    by: str = "session"
    """``session``: the session that the client names in a header, else how the conversation begins; or a fact such as
    ``principal.key`` or ``header.x-conversation``."""
    ttl: Duration = Duration(3600)
    """How long a session that says nothing is remembered."""
    max_entries: Annotated[int, Meta(ge=1)] = 10_000
    """How many sessions are remembered; the one that was heard of longest ago makes room."""

    def __post_init__(self) -> None:
        if self.ttl <= 0:
            raise ValueError("ttl must be above zero")


class CooldownRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an account is left alone after a failure that speaks of it."""

    scope: Literal["account", "account+model"] = "account+model"
    """What a rate limit closes: the account, or the account for that model alone. An empty purse and a refused key always
    close the whole account."""
    until: tuple[Source, ...] = ("retry-after", "reset-header")
    """Where the provider's word is looked for, in this order. A reset may be when a limit is whole again, long after the next
    call would be served."""
    else_: Duration = msgspec.field(default=Duration(30), name="else")
    """After a rate limit, where the provider says nothing."""
    quota: Duration = Duration(3600)
    """After an empty purse (``quota``), where the provider says nothing."""
    auth: Duration | None = Duration(3600)
    """After a refused key or account (``auth``, ``account_disabled``, ``permission``); null: until ``headgate accounts reset``,
    or another key."""
    max: Duration = Duration(6 * 3600)
    """The longest that a provider is believed."""
    probe: Annotated[int, Meta(ge=0, le=1000)] = 1
    """How many calls at once find out whether the account is back, before the others follow; 0: all go at once."""

    def __post_init__(self) -> None:
        for name, value in (("else", self.else_), ("quota", self.quota), ("auth", self.auth), ("max", self.max)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above zero")


class PoolRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Several credentials of one provider, which calls take turns with. Upstreams name it with ``accounts``, and have
    ``rotate`` in their chain."""

    pick: Pick = "round_robin"
    """``round_robin``: one after the other; ``fill_first``: the first of the list that can be used; ``least_used``: the one
    with the fewest calls under way; ``weighted``: by weight; ``priority``: the lowest ``priority`` that can be used."""
    affinity: AffinityRules | None = None
    """None unless given: each call is picked for by itself."""
    cooldown: CooldownRules = CooldownRules()
    """How long an account is left alone."""
    store: str | None = None
    """The name of a store that cooldowns are kept in: with a ``sqlite`` store they outlive the process and are shared by
    ``workers``, and ``headgate accounts`` sees them. Built in: ``default``."""
    members: Annotated[tuple[MemberRules, ...], Meta(min_length=1, max_length=1000)]
    """The accounts."""

    def __post_init__(self) -> None:
        for at, member in enumerate(self.members):
            if member.priority and self.pick != "priority":
                raise ValueError(f"members[{at}].priority counts only with pick: priority")
            if member.weight != 1 and self.pick in ("round_robin", "fill_first"):
                raise ValueError(f"members[{at}].weight does not count with pick: {self.pick}")
