"""What a ``match`` demands of one fact, as values: they can be compared, compiled, and shown to include one another."""

from __future__ import annotations

import operator
from typing import TypeAlias

from msgspec import Struct

from ..globs import Glob


class Text(Struct, frozen=True, tag=True):
    """The fact is a text that ``glob`` matches."""

    glob: Glob


class Equal(Struct, frozen=True, tag=True):
    """The fact is this number; true is not 1."""

    value: int | float


class Is(Struct, frozen=True, tag=True):
    """The fact is this truth value."""

    value: bool


class Above(Struct, frozen=True, tag=True):
    """The fact is a number greater than ``bound``."""

    bound: int | float


class Below(Struct, frozen=True, tag=True):
    """The fact is a number less than ``bound``."""

    bound: int | float


class Regex(Struct, frozen=True, tag=True):
    """The fact is a text in which ``pattern`` is found somewhere (RE2 syntax)."""

    pattern: str


class Has(Struct, frozen=True, tag=True):
    """The fact is a list with this element, or a text that contains this one."""

    element: str | Equal | Is


class Exists(Struct, frozen=True, tag=True):
    """The fact is there (or not)."""

    wanted: bool


class Not(Struct, frozen=True, tag=True):
    """The fact is missing, or ``condition`` does not hold of it."""

    condition: Condition


class AnyOf(Struct, frozen=True, tag=True):
    """One of several holds."""

    conditions: tuple[Condition, ...]


class AllOf(Struct, frozen=True, tag=True):
    """All of several hold."""

    conditions: tuple[Condition, ...]


Condition: TypeAlias = Text | Equal | Is | Above | Below | Regex | Has | Exists | Not | AnyOf | AllOf


def literals(condition: Condition) -> tuple[str, ...]:
    """Return the texts that ``condition`` names outright, without a wildcard and not within a Not."""
    if isinstance(condition, Text):
        literal = condition.glob.literal
        return () if literal is None else (literal,)
    if isinstance(condition, AnyOf):
        return tuple(text for inner in condition.conditions for text in literals(inner))
    return ()


def spell(condition: Condition) -> object:
    """Return the condition as a rule file would say it."""
    if isinstance(condition, Text):
        # a * that prefix or suffix took literally cannot be said as a glob
        return _as_operator(condition) if condition.glob.has_literal_wildcard else str(condition.glob)
    if isinstance(condition, Equal | Is):
        return condition.value
    if isinstance(condition, AnyOf):
        return [spell(each) for each in condition.conditions]
    if isinstance(condition, Not):
        return {"not": spell(condition.condition)}
    if isinstance(condition, AllOf):
        return {name: value for each in condition.conditions for name, value in _as_operator(each).items()}
    return _as_operator(condition)


def _as_operator(condition: Condition) -> dict[str, object]:
    if isinstance(condition, Text):
        glob = condition.glob
        return {"prefix": glob.prefix} if glob.prefix is not None else {"suffix": str(glob)[1:]}
    if isinstance(condition, Above):
        return {"gt": condition.bound}
    if isinstance(condition, Below):
        return {"lt": condition.bound}
    if isinstance(condition, Regex):
        return {"regex": condition.pattern}
    if isinstance(condition, Exists):
        return {"exists": condition.wanted}
    if isinstance(condition, Has):
        element = condition.element
        return {"has": element if isinstance(element, str) else element.value}
    return {"not": spell(condition.condition)} if isinstance(condition, Not) else {}


def covers(wide: Condition, narrow: Condition) -> bool:
    """Whether it is certain that ``wide`` holds wherever ``narrow`` does. False also means: cannot tell."""
    if wide == narrow:
        return True
    if isinstance(narrow, AnyOf):
        return all(covers(wide, each) for each in narrow.conditions)
    if isinstance(wide, AllOf):
        return all(covers(each, narrow) for each in wide.conditions)
    if isinstance(wide, AnyOf):
        return any(covers(each, narrow) for each in wide.conditions)
    if isinstance(narrow, AllOf):
        return any(covers(wide, each) for each in narrow.conditions)
    return _covers_one(wide, narrow)


def _covers_one(wide: Condition, narrow: Condition) -> bool:
    if isinstance(wide, Exists):
        return wide.wanted and not isinstance(narrow, Not | Exists)
    if isinstance(wide, Text) and isinstance(narrow, Text):
        return wide.glob.covers(narrow.glob)
    for kind, within in ((Above, operator.gt), (Below, operator.lt)):
        if isinstance(wide, kind):
            if isinstance(narrow, kind):
                return bool(not within(wide.bound, narrow.bound))
            return isinstance(narrow, Equal) and bool(within(narrow.value, wide.bound))
    return False
