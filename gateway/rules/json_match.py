"""``match:`` as JSON Schema: the facts, and what each can be compared with, as ``read_match`` has it."""

from __future__ import annotations

import re
from typing import Final

from .json_types import Schema, Types
from .match import FACT_NAMES, PRINCIPAL_FACTS, Fact, find_fact
from .read_match import FITS
from .targets import STICKY

_SCALARS: Final = {"text": ["string"], "number": ["number"], "bool": ["boolean"], "list": [],
                   "any": ["string", "number", "boolean"]}  # fmt: skip
_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_NUMBER: Final[Schema] = {"type": "number"}
_OPERATORS: Final[dict[str, tuple[Schema, str]]] = {
    "prefix": (_TEXT, "It begins so."),
    "suffix": (_TEXT, "It ends so."),
    "regex": (_TEXT, "It matches somewhere; the syntax is RE2's. Needs the extra re2."),
    "gt": (_NUMBER, "It is greater."),
    "lt": (_NUMBER, "It is less."),
    "has": (_TEXT, "It is a text with this in it, or a list with this among its items."),
    "exists": ({"type": "boolean"}, "Whether the request has it at all."),
}


def match_schema(types: Types, *, principal: bool) -> Schema:
    """Return a reference to the schema of a ``match:``; ``principal``: one that sees who calls."""
    properties: dict[str, Schema] = {}
    patterns: dict[str, Schema] = {}
    for name in (*FACT_NAMES, *PRINCIPAL_FACTS) if principal else FACT_NAMES:
        fact = find_fact(name)
        assert fact is not None
        group, dot, key = name.partition(".")
        if dot and key == "NAME":
            patterns[f"^{re.escape(group)}\\.[\\s\\S]"] = _condition(types, fact)
        else:
            properties[name] = _condition(types, fact)
    said = "Conditions on facts, all of which must hold. A text is a glob, a list is any of its values, a mapping operators."
    schema = {
        "type": "object",
        "description": said,
        "properties": properties,
        "patternProperties": patterns,
        "additionalProperties": False,
    }
    return types.define("case-match" if principal else "route-match", schema)


def sticky_schema() -> Schema:
    """Return the schema of the name of a fact that requests can be told apart by."""
    names: list[str] = []
    patterns: list[str] = []
    for name in (*FACT_NAMES, *PRINCIPAL_FACTS):
        fact = find_fact(name)
        if fact is not None and fact.kind in STICKY:
            group, dot, key = name.partition(".")
            (patterns if dot and key == "NAME" else names).append(group if key == "NAME" else name)
    return {
        "type": "string",
        "anyOf": [{"enum": names}, {"pattern": f"^({'|'.join(map(re.escape, patterns))})\\.[\\s\\S]"}],
    }


def _condition(types: Types, fact: Fact) -> Schema:
    """Return a reference to the schema of what a fact of this kind can be compared with."""
    name = f"condition-on-{fact.kind}" + ("" if fact.always else "-if-there")
    reference = {"$ref": f"#/$defs/{name}"}
    if name in types.definitions:
        return reference
    scalars: list[Schema] = [{"type": kind} for kind in _SCALARS[fact.kind]]
    fits = [each for each in FITS[fact.kind] if each != "exists" or not fact.always]
    operators: dict[str, Schema] = {}
    for each in fits:
        if each == "not":
            operators[each] = {**reference, "description": "It is not so."}
        else:
            schema, said = _OPERATORS[each]
            if each == "has" and fact.kind == "any":
                schema = {"anyOf": [_TEXT, _NUMBER, {"type": "boolean"}]}
            operators[each] = {**schema, "description": said}
    mapping: Schema = {"type": "object", "minProperties": 1, "properties": operators, "additionalProperties": False}
    any_of: Schema = {"type": "array", "minItems": 1, "items": {"anyOf": [*scalars, mapping]}}
    return types.define(name, {"anyOf": [*scalars, any_of, mapping]})
