"""A condition of Portkey's conditional routing as ``match``: the operators that both have, on the facts that both know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .source import Cursor

Match = dict[str, object]

_LITERAL: Final = re.compile(r"(\^?)((?:[A-Za-z0-9 _/:,@=-]|\\[.*?+()\[\]{}|/-])+)(\$?)")
_FACTS: Final[Mapping[str, str]] = {
    "params.model": "model",
    "params.stream": "request.stream",
    "url.pathname": "path",
}
_METADATA: Final = re.compile(r"metadata\.([A-Za-z0-9_-]+)")
_MOST: Final = 16


def alternatives(query: Cursor) -> list[Match] | None:
    """Return the matches any of which must hold for ``query``; None if it asks what ``match`` cannot."""
    return _alternatives(query.value)


def _alternatives(query: object) -> list[Match] | None:
    if not isinstance(query, dict) or not query:
        return None
    found: list[Match] = [{}]
    for key, value in query.items():
        parts: list[Match] | None
        if key == "$or":
            parts = _any(value)
        elif key == "$and":
            parts = _all(value)
        else:
            parts = _fact(key, value)
        joined = None if parts is None else _product(found, parts)
        if joined is None:
            return None
        found = joined
    return found


def _any(queries: object) -> list[Match] | None:
    found: list[Match] = []
    for query in queries if isinstance(queries, list) else [None]:
        parts = _alternatives(query)
        if parts is None:
            return None
        found += parts
    return found if 0 < len(found) <= _MOST else None


def _all(queries: object) -> list[Match] | None:
    found: list[Match] | None = [{}]
    for query in queries if isinstance(queries, list) else [None]:
        parts = _alternatives(query)
        found = None if parts is None or found is None else _product(found, parts)
    return found


def _product(left: list[Match], right: list[Match]) -> list[Match] | None:
    joined: list[Match] = []
    for one in left:
        for other in right:
            if set(one) & set(other):
                return None  # two conditions on one fact
            joined.append({**one, **other})
    return joined if 0 < len(joined) <= _MOST else None


def _fact(key: str, value: object) -> list[Match] | None:
    metadata = _METADATA.fullmatch(key)
    fact = _FACTS.get(key) or (f"metadata.{metadata[1]}" if metadata else None)
    condition = None if fact is None else _condition(value)
    return None if condition is None or fact is None else [{fact: condition}]


def _condition(value: object) -> object | None:
    """Return a condition, None where there is none."""
    if not isinstance(value, dict):
        return _plain(value)
    if not value:
        return None
    found: dict[str, object] = {}
    for operator, operand in value.items():
        piece = _operator(operator, operand)
        if piece is None:
            return None
        if not isinstance(piece, dict):
            return piece if len(value) == 1 else None
        if set(found) & set(piece):
            return None
        found |= piece
    return found


def _operator(operator: str, operand: object) -> object | None:
    if operator == "$eq":
        return _plain(operand)
    if operator in ("$in", "$nin", "$ne"):
        operands = operand if isinstance(operand, list) else [operand]
        values = [each for each in map(_plain, operands) if each is not None]
        if not values or len(values) < len(operands) or (operator == "$in" and not isinstance(operand, list)):
            return None
        listed: object = values[0] if len(values) == 1 else values
        return listed if operator == "$in" else {"not": listed}
    if (
        operator in ("$gt", "$lt", "$gte", "$lte")
        and isinstance(operand, int | float)
        and not isinstance(operand, bool)
    ):
        if operator in ("$gt", "$lt"):
            return {operator[1:]: operand}
        return {"exists": True, "not": {"lt" if operator == "$gte" else "gt": operand}}
    if operator == "$regex" and isinstance(operand, str) and (found := _LITERAL.fullmatch(operand)) is not None:
        begins, text, ends = found[1], re.sub(r"\\(.)", r"\1", found[2]), found[3]
        if begins and ends:
            return _plain(text)
        return {"prefix" if begins else "suffix" if ends else "has": text}
    return None


def _plain(value: object) -> object | None:
    """Return a value that a condition may equal; texts in which a glob would see more than letters are none."""
    if isinstance(value, str):
        return value if value and not set(value) & set("*?") else None
    return value if isinstance(value, bool | int | float) else None
