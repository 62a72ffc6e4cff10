"""What routes see of a request, and conditions on it compiled to closures.

Routes match before any chain runs: a request is its wire facts, and nobody knows yet who calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from ..facts import WireFacts
from ..globs import Test, any_of
from .condition import Above, AllOf, AnyOf, Below, Condition, Equal, Exists, Has, Is, Not, Regex, Text
from .regex import compile_regex

Matcher: TypeAlias = "Callable[[WireFacts], bool]"
Holds: TypeAlias = Callable[[object], bool]
"""A condition on the value of a fact; None is a fact that is not there."""


class Fact(Struct, frozen=True):
    """A fact that a condition can be about.

    ``kind`` is what it is compared with; ``always`` says that every request has it; ``fold`` that case does not matter;
    ``cost`` orders the conditions of a route, the cheap first.
    """

    name: str
    kind: Literal["text", "number", "bool", "list", "any"]
    get: Callable[[WireFacts], Any]
    always: bool = True
    fold: bool = False
    cost: int = 0


_FACTS: Final = {
    fact.name: fact
    for fact in (
        Fact("format", "text", attrgetter("format")),
        Fact("model", "text", attrgetter("model")),
        Fact("path", "text", attrgetter("path")),
        Fact("request.tokens", "number", attrgetter("tokens")),
        Fact("request.stream", "bool", attrgetter("stream")),
        Fact("request.tools", "bool", attrgetter("tools"), cost=2),
        Fact("request.has_image", "bool", attrgetter("has_image"), cost=4),
    )
}
_PRINCIPAL: Final = {
    fact.name: fact
    for fact in (
        Fact("principal.key", "text", attrgetter("principal.key")),
        Fact("principal.team", "text", attrgetter("principal.team"), always=False),
        Fact("principal.tenant", "text", attrgetter("principal.tenant")),
        Fact("principal.tags", "list", attrgetter("principal.tags")),
    )
}
"""Known once auth has run: the cases of a target see them, routes do not."""

FACT_NAMES: Final = (*_FACTS, "query.NAME", "header.NAME", "metadata.NAME")
PRINCIPAL_FACTS: Final = tuple(_PRINCIPAL)


def find_fact(name: str) -> Fact | None:
    """Return the fact called ``name``, or None. Header names come out in lower case."""
    if name in _FACTS:
        return _FACTS[name]
    if name in _PRINCIPAL:
        return _PRINCIPAL[name]
    group, _, key = name.partition(".")
    if not key:
        return None
    if group == "header":
        key = key.lower()
        return Fact(f"header.{key}", "text", _header(key), always=False, fold=True, cost=1)
    if group == "query":
        return Fact(name, "text", _query(key), always=False, cost=1)
    if group == "metadata":
        return Fact(name, "any", _metadata(key), always=False, cost=3)
    return None


def _header(key: str) -> Callable[[WireFacts], Any]:
    return lambda facts: facts.headers.get(key)


def _query(key: str) -> Callable[[WireFacts], Any]:
    return lambda facts: facts.query.get(key)


def _metadata(key: str) -> Callable[[WireFacts], Any]:
    return lambda facts: facts.metadata.get(key)


def compile_match(conditions: Mapping[str, Condition]) -> Matcher:
    """Return the test of a whole ``match``: every fact's condition holds. An empty one always does."""
    ordered = sorted(((find_fact(name), condition) for name, condition in conditions.items()), key=_cost)
    tests = tuple(_about(fact, condition) for fact, condition in ordered if fact is not None)
    if not tests:
        return lambda facts: True
    if len(tests) == 1:
        return tests[0]

    def matches(facts: WireFacts) -> bool:
        for test in tests:  # noqa: SIM110  a generator within all() costs as much as two conditions
            if not test(facts):
                return False
        return True

    return matches


def _cost(item: tuple[Fact | None, Condition]) -> int:
    return 0 if item[0] is None else item[0].cost


def _about(fact: Fact, condition: Condition) -> Matcher:
    get = fact.get
    if fact.kind == "bool" and isinstance(condition, Is):
        return get if condition.value else lambda facts: not get(facts)
    if fact.kind == "number" and isinstance(condition, Above):
        least = condition.bound
        return lambda facts: get(facts) > least
    texts = _texts(condition, fact.fold) if fact.kind == "text" else None
    if texts is None:
        holds = compile_condition(condition, fold=fact.fold)
        return lambda facts: holds(get(facts))
    if fact.always:
        return lambda facts: texts(get(facts))
    if fact.name.startswith("header.") and isinstance(condition, Text) and (only := condition.glob.literal) is not None:
        name, literal = fact.name.removeprefix("header."), only.lower()
        return lambda facts: (text := facts.headers.get(name)) is not None and text.lower() == literal
    if fact.fold:
        return lambda facts: (text := get(facts)) is not None and texts(text.lower())
    return lambda facts: (text := get(facts)) is not None and texts(text)


def compile_condition(condition: Condition, *, fold: bool = False) -> Holds:
    """Return the test of one value; ``fold`` compares texts without regard to case. Raises NoRe2, ValueError."""
    texts = _texts(condition, fold)
    if texts is not None:
        return _text(texts, fold)
    if isinstance(condition, Equal):
        number = condition.value
        return lambda value: value == number and not isinstance(value, bool)
    if isinstance(condition, Is):
        flag = condition.value
        return lambda value: value is flag
    if isinstance(condition, Above):
        least = condition.bound
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value > least
    if isinstance(condition, Below):
        most = condition.bound
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value < most
    if isinstance(condition, Regex):
        return _text(compile_regex(condition.pattern), False)
    if isinstance(condition, Has):
        return _has(condition, fold)
    if isinstance(condition, Exists):
        wanted = condition.wanted
        return lambda value: (value is not None) is wanted
    if isinstance(condition, Not):
        inner = compile_condition(condition.condition, fold=fold)
        return lambda value: not inner(value)
    assert isinstance(condition, AnyOf | AllOf)
    return _several(condition, fold)


def _text(test: Callable[[str], bool], fold: bool) -> Holds:
    if fold:
        return lambda value: isinstance(value, str) and test(value.lower())
    return lambda value: isinstance(value, str) and test(value)


def _has(condition: Has, fold: bool) -> Holds:
    element = condition.element
    if not isinstance(element, str):
        inner = compile_condition(element)
        return lambda value: isinstance(value, list | tuple) and any(map(inner, value))
    wanted = element.lower() if fold else element

    def has(value: object) -> bool:
        if isinstance(value, str):
            return wanted in (value.lower() if fold else value)
        return isinstance(value, list | tuple) and wanted in value

    return has


def _several(condition: AnyOf | AllOf, fold: bool) -> Holds:
    tests = tuple(compile_condition(each, fold=fold) for each in condition.conditions)
    if isinstance(condition, AnyOf):
        return lambda value: any(test(value) for test in tests)
    return lambda value: all(test(value) for test in tests)


def _texts(condition: Condition, fold: bool) -> Test | None:
    """Return one test of a text for a glob or a list of globs; None for anything else. ``fold``: of a lower-case text."""
    alternatives = condition.conditions if isinstance(condition, AnyOf) else (condition,)
    globs = [each.glob.lower() if fold else each.glob for each in alternatives if isinstance(each, Text)]
    if not globs or len(globs) < len(alternatives):
        return None
    return any_of(globs)
