"""Finds the rules that a request may match among many, without asking every one.

Each rule is filed under what one of its texts must be, begin with or end with; a rule without such a demand is asked always.
The index only leaves out: what it returns must still be asked, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

from ..globs import ANY_CHARACTER, ANY_TEXT, Glob
from .condition import AllOf, AnyOf, Condition, Text
from .match import Fact, find_fact

_Kind: TypeAlias = Literal["is", "begins", "ends"]
_RANK: Final = {"model": 0, "path": 2, "format": 3}
"""Which fact to file under where several are as empty; those that are not named stand between."""


class _Shelf:
    """The rules filed under one fact: by the text itself, and by beginnings and endings of each length."""

    __slots__ = ("fact", "exact", "beginnings", "endings")

    def __init__(self, fact: Fact) -> None:
        self.fact = fact
        self.exact: dict[str, list[int]] = {}
        self.beginnings: dict[int, dict[str, list[int]]] = {}
        self.endings: dict[int, dict[str, list[int]]] = {}

    def crowd(self, kind: _Kind, text: str) -> int:
        shelf = self.exact if kind == "is" else self._by_length(kind).get(len(text), {})
        return len(shelf.get(text, ()))

    def slot(self, kind: _Kind, text: str) -> list[int]:
        if kind == "is":
            return self.exact.setdefault(text, [])
        return self._by_length(kind).setdefault(len(text), {}).setdefault(text, [])

    def _by_length(self, kind: _Kind) -> dict[int, dict[str, list[int]]]:
        return self.beginnings if kind == "begins" else self.endings

    def found(self, text: str) -> Iterator[list[int]]:
        if (here := self.exact.get(text)) is not None:
            yield here
        for length, beginnings in self.beginnings.items():
            if (here := beginnings.get(text[:length])) is not None:
                yield here
        for length, endings in self.endings.items():
            if (here := endings.get(text[-length:])) is not None:
                yield here


class Index:
    """Rules by position, 0 for the first that was added."""

    __slots__ = ("_shelves", "_always", "_count")

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self._always: list[int] = []
        self._count = 0

    def add(self, conditions: Mapping[str, Condition]) -> None:
        """File the next rule, where the fewest others are."""
        at, best = self._count, None
        self._count += 1
        for name, condition in conditions.items():
            fact = find_fact(name)
            keys = None if fact is None or fact.kind not in ("text", "any") else _keys(condition, fact.fold)
            if fact is None or not keys:
                continue
            shelf = self._shelves.get(name) or _Shelf(fact)
            crowd = (max(shelf.crowd(kind, text) for kind, text in keys), _RANK.get(name, 1))
            if best is None or crowd < best[0]:
                best = (crowd, name, shelf, keys)
        if best is None:
            self._always.append(at)
            return
        _, name, shelf, keys = best
        self._shelves[name] = shelf
        for kind, text in dict.fromkeys(keys):
            shelf.slot(kind, text).append(at)

    def candidates(self, value: Callable[[Fact], object]) -> list[int]:
        """Return the positions of the rules that may match, in order; ``value`` tells the value of a fact."""
        found = [self._always] if self._always else []
        for shelf in self._shelves.values():
            text = value(shelf.fact)
            if isinstance(text, str):
                found += shelf.found(text.lower() if shelf.fact.fold else text)
        if len(found) == 1:
            return found[0]
        return sorted({at for positions in found for at in positions})

    def covering(self, conditions: Mapping[str, Condition]) -> list[int]:
        """Return the positions of the rules that may take everything that ``conditions`` match, in order.

        Such a rule would match one example as well as any other.
        """
        found = set(self._always)
        for name, shelf in self._shelves.items():
            condition = conditions.get(name)
            for text in () if condition is None else _examples(condition):
                for positions in shelf.found(text.lower() if shelf.fact.fold else text):
                    found.update(positions)
        return sorted(found)


def _keys(condition: Condition, fold: bool) -> list[tuple[_Kind, str]] | None:
    """Return demands of which each matching text meets one; None if there are none that could be looked up."""
    if isinstance(condition, Text):
        key = _key(condition.glob.lower() if fold else condition.glob)
        return None if key is None else [key]
    if isinstance(condition, AnyOf):
        each = [_keys(inner, fold) for inner in condition.conditions]
        known = [keys for keys in each if keys is not None]
        return [key for keys in known for key in keys] if len(known) == len(each) else None
    if isinstance(condition, AllOf):
        return next((keys for inner in condition.conditions if (keys := _keys(inner, fold)) is not None), None)
    return None


def _key(glob: Glob) -> tuple[_Kind, str] | None:
    if (literal := glob.literal) is not None:
        return ("is", literal)
    beginning = _run(glob.tokens)
    if beginning:
        return ("begins", beginning)
    ending = _run(glob.tokens[::-1])[::-1]
    return ("ends", ending) if ending else None


def _run(tokens: tuple[str | int, ...]) -> str:
    run = []
    for token in tokens:
        if not isinstance(token, str):
            break
        run.append(token)
    return "".join(run)


def _examples(condition: Condition) -> Iterator[str]:
    """Yield texts, of which a rule that covers ``condition`` matches one."""
    if isinstance(condition, Text):
        replaced = {ANY_TEXT: "", ANY_CHARACTER: "?"}
        yield "".join(token if isinstance(token, str) else replaced[token] for token in condition.glob.tokens)
    elif isinstance(condition, AnyOf):
        yield from _examples(condition.conditions[0])
    elif isinstance(condition, AllOf):
        for inner in condition.conditions:
            yield from _examples(inner)
