"""The ``match:`` of a route: nodes into conditions, every mistake with its place."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from .. import registry
from ..globs import ANY_TEXT, Glob
from .condition import Above, AllOf, AnyOf, Below, Condition, Equal, Exists, Has, Is, Not, Regex, Text
from .document import Items, Node, Scalar, Table, kind_of
from .match import FACT_NAMES, PRINCIPAL_FACTS, Fact, find_fact
from .problems import Problems, Spot, nearest
from .regex import NoRe2, compile_regex

FITS: Final = {
    "text": ("prefix", "suffix", "regex", "has", "not", "exists"),
    "number": ("gt", "lt", "not"),
    "bool": ("not",),
    "list": ("has", "not"),
    "any": ("prefix", "suffix", "regex", "has", "not", "exists", "gt", "lt"),
}
_EXPECTED: Final = {
    "text": "a text: quote it",
    "number": "a number, such as 1000 or {gt: 1000}",
    "bool": "true or false",
    "list": "{has: VALUE}",
    "any": "a value",
}
_GROUPS: Final = {"headers": "header", "queries": "query", "params": "query", "meta": "metadata"}


def read_match(node: Node, where: str, problems: Problems, *, principal: bool = False) -> dict[str, Condition] | None:
    """Return the condition on each fact by the fact's name; None if anything in it is wrong (and noted).

    ``principal`` says that it is asked after auth, when it is known who calls.
    """
    if not isinstance(node, Table):
        problems.add(
            "E011", node.spot, f"{where}: expected a mapping of facts, got {kind_of(node)}", "such as {model: gpt-*}"
        )
        return None
    reader = _MatchReader(where, problems, principal)
    found: dict[str, Condition] = {}
    whole = True
    for key, entry in node.entries.items():
        fact = reader.fact(key, entry.spot)
        condition = None if fact is None else reader.condition(fact, entry.value)
        if fact is None or condition is None:
            whole = False
        elif fact.name in found:
            problems.add("E004", entry.spot, f'"{fact.name}" is written twice in {where}', "header names have no case")
            whole = False
        else:
            found[fact.name] = condition
    return found if whole else None


class _MatchReader:
    def __init__(self, where: str, problems: Problems, principal: bool) -> None:
        self._where = where
        self._problems = problems
        self._principal = principal

    def fact(self, name: str, spot: Spot) -> Fact | None:
        fact = find_fact(name)
        group, _, key = name.partition(".")
        if fact is not None and (self._principal or group != "principal"):
            return fact
        if group == "principal" and not self._principal:
            self._problems.add(
                "E042",
                spot,
                f"{self._where} asks for {name}, but routes match before anybody knows who calls: they see wire facts only",
                "ask in the select of a target: it sees the principal",
            )
            return None
        if group in ("header", "query", "metadata") and not key:
            hint = f"name one after a dot, such as {group}.{'user-agent' if group == 'header' else 'team'}"
        elif key and (meant := _GROUPS.get(group) or next(iter(get_close_matches(group, _GROUPS.values(), 1)), None)):
            hint = f'did you mean "{meant}.{key}"?'
        elif group == "when":
            hint = "write when beside match, not in it"
        elif group in ("and", "or", "any", "all"):
            hint = "all facts must hold; write a list for any of several values, a second route for either-or"
        else:
            hint = nearest(name, (*FACT_NAMES, *PRINCIPAL_FACTS) if self._principal else FACT_NAMES)
        self._problems.add("E040", spot, f'unknown fact "{name}" in {self._where}', hint)
        return None

    def condition(self, fact: Fact, node: Node) -> Condition | None:
        if isinstance(node, Scalar):
            return self._scalar(fact, node)
        if isinstance(node, Items):
            if not node.items:
                self._wrong(fact, node, "an empty list matches nothing", "leave the fact out, or list values")
                return None
            each = [self._element(fact, item) for item in node.items]
            return AnyOf(tuple(known)) if len(known := [one for one in each if one is not None]) == len(each) else None
        if not node.entries:
            self._wrong(fact, node, "an empty mapping", "leave the fact out")
            return None
        parts = [self._operator(fact, name, entry.spot, entry.value) for name, entry in node.entries.items()]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return known[0] if len(known) == 1 else AllOf(tuple(known))

    def _element(self, fact: Fact, node: Node) -> Condition | None:
        if isinstance(node, Items):
            self._wrong(fact, node, "a list within a list", "one list says any of them")
            return None
        return self.condition(fact, node)

    def _scalar(self, fact: Fact, node: Scalar) -> Condition | None:
        value = node.value
        if value is None:
            self._wrong(fact, node, "nothing to compare with", "write a value, or {exists: false}")
            return None
        if isinstance(value, bool) and fact.kind in ("bool", "any"):
            return Is(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and fact.kind in ("number", "any"):
            return Equal(value)
        if isinstance(value, str) and fact.kind in ("text", "any"):
            glob = Glob.parse(value)
            return self._format(glob, node) if fact.name == "format" else Text(glob)
        self._wrong(fact, node, f"got {kind_of(node)}", f"compare with {_EXPECTED[fact.kind]}")
        return None

    def _format(self, glob: Glob, node: Scalar) -> Condition | None:
        known = registry.names("codecs")
        if not any(map(glob.compile(), known)):
            self._problems.add(
                "E046", node.spot, f'unknown format "{node.text}" in {self._where}', nearest(node.text, known)
            )
            return None
        return Text(glob)

    def _wrong(self, fact: Fact, node: Node, what: str, hint: str = "") -> None:
        self._problems.add("E011", node.spot, f"{self._where}, {fact.name}: {what}", hint)

    def _operator(self, fact: Fact, name: str, spot: Spot, node: Node) -> Condition | None:
        read = _OPERATORS.get(name)
        fits = [each for each in FITS[fact.kind] if each != "exists" or not fact.always]
        if read is None:
            hint = nearest(name, fits)
            self._problems.add("E041", spot, f'unknown operator "{name}" for {fact.name} in {self._where}', hint)
            return None
        if name not in fits:
            why = "every request has it" if name == "exists" else f"it takes {', '.join(fits)}"
            self._problems.add("E041", spot, f'"{name}" does not fit {fact.name} in {self._where}', why)
            return None
        return read(self, fact, node)

    def _affix(self, fact: Fact, node: Node, *, at_start: bool) -> Condition | None:
        text = self._text(fact, node)
        if text is None:
            return None
        return Text(Glob((*text, ANY_TEXT) if at_start else (ANY_TEXT, *text)))

    def _text(self, fact: Fact, node: Node) -> str | None:
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
            return node.value
        self._wrong(fact, node, f"expected a text, got {kind_of(node)}", "quote it if it looks like something else")
        return None

    def _prefix(self, fact: Fact, node: Node) -> Condition | None:
        return self._affix(fact, node, at_start=True)

    def _suffix(self, fact: Fact, node: Node) -> Condition | None:
        return self._affix(fact, node, at_start=False)

    def _regex(self, fact: Fact, node: Node) -> Condition | None:
        pattern = self._text(fact, node)
        if pattern is None:
            return None
        try:
            compile_regex(pattern)
        except NoRe2:
            self._problems.add(
                "E043",
                node.spot,
                f"{self._where}: regex needs the extra re2",
                'pip install "headgate[re2]", or use a glob',
            )
            return None
        except ValueError as fault:
            self._problems.add("E044", node.spot, f"{self._where}: malformed regex: {fault}", "the syntax is RE2's")
            return None
        return Regex(pattern)

    def _not(self, fact: Fact, node: Node) -> Condition | None:
        inner = self.condition(fact, node)
        return None if inner is None else Not(inner)

    def _number(self, fact: Fact, node: Node) -> int | float | None:
        if isinstance(node, Scalar) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return node.value
        self._wrong(fact, node, f"expected a number, got {kind_of(node)}", "write it out, such as 100000")
        return None

    def _above(self, fact: Fact, node: Node) -> Condition | None:
        bound = self._number(fact, node)
        return None if bound is None else Above(bound)

    def _below(self, fact: Fact, node: Node) -> Condition | None:
        bound = self._number(fact, node)
        return None if bound is None else Below(bound)

    def _has(self, fact: Fact, node: Node) -> Condition | None:
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
            return Has(node.value)
        if not isinstance(node, Scalar):
            self._wrong(fact, node, f"expected one value, got {kind_of(node)}")
            return None
        if node.value == "":
            self._wrong(fact, node, "every text has an empty text in it", "leave the fact out, or write {exists: true}")
            return None
        inner = self._scalar(fact, node)
        return Has(inner) if isinstance(inner, Equal | Is) else None

    def _exists(self, fact: Fact, node: Node) -> Condition | None:
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return Exists(node.value)
        self._wrong(fact, node, f"expected true or false, got {kind_of(node)}")
        return None


_OPERATORS: Final = {
    "prefix": _MatchReader._prefix,
    "suffix": _MatchReader._suffix,
    "regex": _MatchReader._regex,
    "not": _MatchReader._not,
    "gt": _MatchReader._above,
    "lt": _MatchReader._below,
    "has": _MatchReader._has,
    "exists": _MatchReader._exists,
}
