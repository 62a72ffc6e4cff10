"""Callers' schemas: what is found, and what such a schema may try."""

from __future__ import annotations

import json
from typing import Any

import pytest
from headgate.gateway.emulation.checks import MAX_KEPT, MAX_SCHEMA_BYTES, Check, Checks
from headgate.gateway.errors import CallerError, DecodeError

TREE = {
    "$defs": {
        "node": {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    },
    "$ref": "#/$defs/node",
}


def check(schema: Any) -> Check:
    """A check for ``schema``."""
    return Check(json.dumps(schema).encode())


@pytest.mark.parametrize(
    ("schema", "text", "fault"),
    [
        ({"type": "object"}, "{}", None),
        ({"type": "object"}, " {} ", None),
        ({"type": "object"}, "[]", '$: [] is not of type "object"'),
        ({"type": "integer"}, "1.0", None),
        ({}, "NaN", "it is not JSON"),
        ({}, "", "it is not JSON"),
        ({}, '{"a": 1} and more', "it is not JSON"),
        ({"properties": {"a": {"items": {"type": "string"}}}}, '{"a": ["x", 1]}', "$.a[1]: 1 is not of type"),
        ({"pattern": "^a+$"}, '"aab"', "does not match"),
        (TREE, '{"below": [{"below": []}]}', None),
        (TREE, '{"below": [{"below": [3]}]}', "$.below[0].below[0]"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "null"}]}, "[1]", "$[0]"),
        ({"unevaluatedProperties": False, "properties": {"a": {}}}, '{"b": 1}', "Unevaluated"),
    ],
)
def test_faults(schema: Any, text: str, fault: str | None) -> None:
    found = check(schema).fault(text)
    assert found is None if fault is None else found is not None and fault in found


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ([], "expected an object"),
        ({"type": "nonsense"}, "is not valid"),
        ({"pattern": "("}, "regex"),
        ({"$ref": "http://127.0.0.1:9/x"}, "only #/…"),
        ({"$ref": "file:///etc/passwd"}, "only #/…"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "only #/…"),
        ({"$ref": "#/$defs/none"}, "does not exist"),
        ({"$dynamicRef": "#a"}, "is not read"),
        ({"properties": {"a": {"$id": "http://x.example/"}}}, "is not read"),
        ({"description": "x" * MAX_SCHEMA_BYTES}, "at most"),
    ],
)
def test_schemas_that_are_none(schema: Any, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        check(schema)


def test_a_member_may_be_called_as_a_keyword() -> None:
    assert check({"properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}}).fault('{"$ref": "a"}') is None


def doubling(levels: int) -> Any:
    """A schema that asks for two to the power of ``levels`` steps."""
    defs: dict[str, Any] = {
        f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}, {"$ref": f"#/$defs/a{i + 1}"}]} for i in range(levels)
    }
    return {"$defs": {**defs, f"a{levels}": {}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (doubling(60), "{}"),
        ({"$ref": "#"}, "{}"),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "1"),
        (
            {"$defs": {"n": {"items": {"allOf": [{"$ref": "#/$defs/n"}] * 2}}}, "$ref": "#/$defs/n"},
            "[" * 60 + "]" * 60,
        ),
        (
            {"$defs": {"n": {"additionalProperties": {"anyOf": [{"$ref": "#/$defs/n"}] * 2}}}, "$ref": "#/$defs/n"},
            '{"a":' * 60 + "1" + "}" * 60,
        ),
        ({"items": {"allOf": [{"minimum": 0}] * 1000}}, json.dumps([1] * 1000)),
    ],
    ids=["doubling", "itself", "twice itself", "by depth", "by members", "by length"],
)
def test_schemas_without_end(schema: Any, text: str) -> None:
    with pytest.raises(CallerError, match="fan out too far"):
        check(schema).fault(text)


def test_a_pattern_that_would_take_for_ever() -> None:
    for schema in ({"pattern": "^(a+)+$"}, {"patternProperties": {"^(a+)+$": {"type": "null"}}}):
        check(schema).fault(json.dumps({"a" * 5000 + "b": 1}))
    assert "does not match" in (check({"pattern": "^(a+)+$"}).fault(json.dumps("a" * 5000 + "b")) or "")


def test_the_last_few_are_kept() -> None:
    checks = Checks()
    first = checks.of(b"{}")
    assert checks.of(b"{}") is first
    for number in range(MAX_KEPT):
        checks.of(b'{"minimum":%d}' % number)
    assert checks.of(b"{}") is not first
