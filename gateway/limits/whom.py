"""Whom a limit is for: which calls share it, and what a refusal calls them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from operator import attrgetter
from typing import Final, Literal

from ..call import Call

Per = Literal["key", "team", "tenant", "model", "route", "all"]


def _of_team(call: Call) -> Hashable:
    who = call.principal
    if who.team is None:
        return who.tenant, who.key, "alone"
    # A key without a tenant is its own: that must not part the team.
    return ("" if who.tenant == who.key else who.tenant), who.team


def _of_all(call: Call) -> Hashable:
    return None


_OF: Final[Mapping[Per, Callable[[Call], Hashable]]] = {
    "key": attrgetter("principal.tenant", "principal.key"),
    "team": _of_team,
    "tenant": attrgetter("principal.tenant"),
    "model": attrgetter("model"),
    "route": attrgetter("decision.route"),
    "all": _of_all,
}
_WHOM: Final[Mapping[Per, str]] = {
    "key": "this key",
    "team": "this team",
    "tenant": "this tenant",
    "model": "this model",
    "route": "this route",
    "all": "all together",
}


def subject_of(parts: tuple[Per, ...]) -> Callable[[Call], Hashable]:
    """Return what names the subject of a call: each combination of ``parts`` is one."""
    if len(parts) == 1:
        return _OF[parts[0]]
    of_each = tuple(_OF[part] for part in parts)
    return lambda call: tuple([of(call) for of in of_each])


def words_for(parts: tuple[Per, ...]) -> str:
    """Return what a message calls the subject: it never names another caller."""
    return " and ".join(_WHOM[part] for part in parts)
