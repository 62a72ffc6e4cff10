"""Why a route, or a case of a target, did not take a request: asked of the very tests that decided so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from ..facts import WireFacts
from .condition import Condition, spell
from .decide import Verdict
from .match import Matcher, compile_match, find_fact
from .plan import Plan
from .target import Aim, Case, Target


class Unmet(Struct, frozen=True):
    """A condition that does not hold: the ``fact``, what is expected of it as a rule file says it, and what it is.

    The fact ``when`` is an expression; nothing is ``got`` of it.
    """

    fact: str
    expected: object
    got: object


class PassedBy(Struct, frozen=True, eq=False):
    """A route or case that came before, and why it was not taken: it is ``off``, or something is ``unmet``, or both.

    ``place`` is the route's name, or such as ``smart.select[0]``; ``source`` and ``line`` are where a route stands.
    """

    place: str
    off: str | None
    unmet: tuple[Unmet, ...]
    source: str = ""
    line: int = 0


def routes_passed_by(plan: Plan, facts: WireFacts, verdict: Verdict) -> tuple[PassedBy, ...]:
    """Return the routes before the one that took the request, in order; all of them when none did."""
    found = []
    for route in plan.routes:
        if route is verdict.route:
            break
        unmet = _unmet(route.conditions, route.when, route.matches, facts)
        if not unmet and (lacking := route.lacks(facts)) is not None:
            unmet = (Unmet("path", lacking, facts.path),)
        found.append(PassedBy(route.name, route.off, unmet, route.source, route.line))
    return tuple(found)


def cases_passed_by(verdict: Verdict, facts: WireFacts) -> tuple[PassedBy, ...]:
    """Return the cases before those that took the request, of every target that was asked."""
    if verdict.route is None:
        return ()
    return tuple(_cases(verdict.route.aim, facts, frozenset(verdict.chosen)))


def _cases(aim: Aim, facts: WireFacts, steps: frozenset[str]) -> Iterator[PassedBy]:
    if not isinstance(aim, Target):
        return
    left = sum(_is_taken(case, steps) for case in aim.select)
    for case in aim.select:
        if _is_taken(case, steps):
            for inner in case.aims:
                if f"{case.place} {inner.spelled}" in steps:
                    yield from _cases(inner, facts, steps)
            left -= 1
            if not left:
                break
            continue  # what it leads to would lose something: a later one was taken
        yield PassedBy(case.place, _off(case), _unmet(case.conditions, case.when, case.matches, facts))
    for fallback in aim.on_failure:
        if any(step.startswith(f"{fallback.place} ") for step in steps):
            yield from _cases(fallback.aim, facts, steps)


def _is_taken(case: Case, steps: frozenset[str]) -> bool:
    return any(f"{case.place} {inner.spelled}" in steps for inner in case.aims)


def _off(case: Case) -> str | None:
    """Return why nothing that a case leads to is on, or None."""
    reasons = [aim.off for aim in case.aims]
    return None if None in reasons else ", ".join(dict.fromkeys(reason for reason in reasons if reason is not None))


def _unmet(
    conditions: Mapping[str, Condition], when: str | None, matches: Matcher, facts: WireFacts
) -> tuple[Unmet, ...]:
    found = [
        Unmet(name, spell(condition), _got(name, facts))
        for name, condition in conditions.items()
        if not compile_match({name: condition})(facts)
    ]
    if not found and when is not None and not matches(facts):
        found.append(Unmet("when", when, None))
    return tuple(found)


def _got(name: str, facts: WireFacts) -> Any:
    fact = find_fact(name)
    return None if fact is None else fact.get(facts)
