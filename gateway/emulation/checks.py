"""JSON that a model wrote, against the schema that its caller gave; in bounded time, and without asking the network.

A schema comes from a caller and must cost no more than an answer does. The library's patterns take linear time and it follows
no reference to another document; how often references fan out is counted here before it is asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from typing import Any, Final

import msgspec

from ..errors import DecodeError

MODULE: Final = "jsonschema_rs"
MAX_SCHEMA_BYTES: Final = 256 * 1024
MAX_STEPS: Final = 100_000
"""Subschemas that meet a value in one check. A schema of a kilobyte can ask for more than there is time."""
MAX_KEPT: Final = 64
_MAX_FAULTS: Final = 5
_MAX_WORDS: Final = 300
_PATTERN_BYTES: Final = 4 * 1024 * 1024
AT: Final = "response_format.schema"
"""Where the schema stands in a request."""

_HERE: Final = ("not", "if", "then", "else")
_HERE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_HERE_NAMED: Final = ("dependentSchemas", "dependencies")
_EACH: Final = ("items", "contains", "additionalItems", "unevaluatedItems")
_EACH_MEMBER: Final = ("additionalProperties", "unevaluatedProperties")
_UNCOUNTED: Final = ("$dynamicRef", "$recursiveRef")


def is_installed() -> bool:
    """Whether the extra ``structured`` is here."""
    return find_spec(MODULE) is not None


class Check:
    """One schema. Raises DecodeError when it is none, or leads out of itself."""

    def __init__(self, schema: bytes) -> None:
        if len(schema) > MAX_SCHEMA_BYTES:
            raise DecodeError(AT, f"a schema has at most {MAX_SCHEMA_BYTES} bytes")
        try:
            told = msgspec.json.decode(schema)
        except (msgspec.DecodeError, RecursionError) as fault:
            raise DecodeError(AT, f"expected JSON Schema: {fault}") from fault
        if not isinstance(told, dict):
            raise DecodeError(AT, "expected an object")
        _refuse_ways_out(told)
        library = importlib.import_module(MODULE)
        patterns = library.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)
        try:
            self._validator = library.validator_for(told, pattern_options=patterns, offline=True)
        except (library.ValidationError, library.ReferencingError, ValueError, RecursionError) as fault:
            raise DecodeError(AT, _short(str(fault).partition("\n")[0])) from fault
        self._schema: Mapping[str, Any] = told

    def fault(self, text: str) -> str | None:
        """Return what is wrong with ``text``, in words for the model; None if it keeps to the schema.

        Raises DecodeError when the schema asks for more steps than an answer is worth.
        """
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as fault:
            return _short(f"it is not JSON: {fault}")
        self._count(value)
        found = islice(self._validator.iter_errors(value), _MAX_FAULTS)
        return "; ".join(f"{_place(each.instance_path)}: {_short(each.message)}" for each in found) or None

    def _count(self, value: object) -> None:
        """Walk as the library will, counting only."""
        steps = 0
        waiting: list[tuple[object, object]] = [(self._schema, value)]
        while waiting:
            schema, value = waiting.pop()
            if isinstance(schema, dict):
                waiting.extend(self._below(schema, value))
                steps += 1
                if steps + len(waiting) > MAX_STEPS:
                    raise DecodeError(AT, "no answer can be checked against it: its references fan out too far")

    def _below(self, schema: Mapping[str, Any], value: object) -> Iterator[tuple[object, object]]:
        """Yield what ``schema`` makes of ``value``: each pair of a subschema and the value that it looks at."""
        if isinstance(name := schema.get("$ref"), str):
            yield self._named(name), value
        for word in _HERE:
            if word in schema:
                yield schema[word], value
        for word in _HERE_LISTS:
            for each in _items(schema.get(word)):
                yield each, value
        for word in _HERE_NAMED:
            for each in _members(schema.get(word)).values():
                yield each, value
        if isinstance(value, dict):
            yield from self._of_members(schema, value)
        elif isinstance(value, list):
            for word in _EACH:
                each = schema.get(word)
                # In older drafts a list here is what prefixItems is in newer ones.
                yield from (
                    zip(each, value, strict=False) if isinstance(each, list) else ((each, item) for item in value)
                )
            yield from zip(_items(schema.get("prefixItems")), value, strict=False)

    @staticmethod
    def _of_members(schema: Mapping[str, Any], value: Mapping[str, object]) -> Iterator[tuple[object, object]]:
        for name, each in _members(schema.get("properties")).items():
            if name in value:
                yield each, value[name]
        for each in (*_members(schema.get("patternProperties")).values(), *(schema.get(word) for word in _EACH_MEMBER)):
            if isinstance(each, dict):
                yield from ((each, member) for member in value.values())
        if "propertyNames" in schema:
            yield from ((schema["propertyNames"], name) for name in value)

    def _named(self, reference: str) -> object:
        """Return what a reference within the schema leads to; the library has made sure that it is there."""
        node: Any = self._schema
        for step in reference.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list):
                node = node[int(step)] if step.isdecimal() and int(step) < len(node) else None
            else:
                node = node.get(step) if isinstance(node, dict) else None
        return node


class Checks:
    """The schemas of one upstream's callers, the last few of them kept ready."""

    def __init__(self) -> None:
        self._known: dict[bytes, Check] = {}

    def of(self, schema: bytes) -> Check:
        """Return the check for a schema. Raises DecodeError."""
        check = self._known.pop(schema, None) or Check(schema)
        while len(self._known) >= MAX_KEPT:
            self._known.pop(next(iter(self._known)))
        self._known[schema] = check
        return check


def _refuse_ways_out(root: Mapping[str, Any]) -> None:
    """Refuse what cannot be counted, or leads elsewhere: only ``#`` and ``#/…`` are followed."""
    nodes: list[object] = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        if not isinstance(node, dict):
            continue
        if isinstance(name := node.get("$ref"), str) and (name[:1] != "#" or name[1:2] not in ("", "/") or "%" in name):
            raise DecodeError(AT, f"the reference {_short(name)!r}: only #/… within the schema is followed")
        for word in _UNCOUNTED if node is root else (*_UNCOUNTED, "$id"):
            if isinstance(node.get(word), str):
                raise DecodeError(AT, f"{word} is not read here")
        nodes += node.values()


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _members(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _place(path: list[str | int]) -> str:
    """Return where in the answer something is: ``$.steps[2].name``."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _short(text: str) -> str:
    """Return a text without its middle, if it is long: what is wrong stands at its end."""
    half = _MAX_WORDS // 2
    return text if len(text) <= _MAX_WORDS else f"{text[:half]}…{text[-half:]}"
