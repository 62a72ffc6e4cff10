"""Google's own schemas, an OpenAPI subset, into JSON Schema and back: ``{"type": "STRING", "nullable": true}``.

Newer members (``parametersJsonSchema``, ``responseJsonSchema``) hold JSON Schema and need none of this. Types are spelled in
capitals by Google's SDKs and in small letters by many callers; small ones are JSON Schema already, save ``nullable``.
Everything else, numbers and order included, keeps its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from ...wire.members import ARRAY, BAD_JSON, NULL, OBJECT
from .members import is_object

AS_CAME: Final = NULL
"""Marks a schema that was JSON Schema already: it is written as its bytes are."""
CONVERTED: Final = Raw(b"false")
"""Marks a schema that was converted, and is converted back."""

_ONE: Final = ("items", "additionalProperties", "not")
_MANY: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties", "$defs", "defs", "definitions")
_TRUE: Final = b"true"
_encode: Final = msgspec.json.Encoder().encode
_Members = dict[str, Raw]


def to_json_schema(schema: Raw) -> tuple[bytes, Raw]:
    """Return ``schema`` as JSON Schema, and the mark by which ``from_json_schema`` undoes it."""
    try:
        converted = _walk(schema, _small)
    except BAD_JSON:
        return bytes(schema), AS_CAME
    return (bytes(schema), AS_CAME) if converted is schema else (bytes(converted), CONVERTED)


def from_json_schema(schema: bytes, mark: Raw) -> Raw:
    """Return the schema as its caller spelled it."""
    return Raw(schema) if mark == AS_CAME else _walk(Raw(schema), _capital)


def _walk(schema: Raw, change: Callable[[_Members], bool]) -> Raw:
    """Apply ``change`` to a schema and those within; the same object where nothing changed."""
    if not is_object(schema):
        return schema
    members = OBJECT.decode(schema)
    changed = change(members)
    for name in _ONE:
        if (raw := members.get(name)) is not None and (new := _walk(raw, change)) is not raw:
            members[name], changed = new, True
    for name in _MANY:
        if (raw := members.get(name)) is not None and bytes(raw)[:1] == b"[":
            items = ARRAY.decode(raw)
            new_items = [_walk(item, change) for item in items]
            if any(new is not old for new, old in zip(new_items, items, strict=True)):
                members[name], changed = Raw(_encode(new_items)), True
    for name in _NAMED:
        if (raw := members.get(name)) is not None and is_object(raw):
            inner = OBJECT.decode(raw)
            new_inner = {key: _walk(value, change) for key, value in inner.items()}
            if any(new_inner[key] is not inner[key] for key in inner):
                members[name], changed = Raw(_encode(new_inner)), True
    return Raw(_encode(members)) if changed else schema


def _small(members: _Members) -> bool:
    kind = members.get("type")
    nullable = members.get("nullable")
    if kind is None or bytes(kind)[:1] != b'"':
        return False
    small = Raw(bytes(kind).lower())
    changed = small != kind
    if bytes(small) == b'"type_unspecified"':
        del members["type"]
        return True
    if nullable is not None and bytes(nullable) == _TRUE:
        # In the place of type: a schema reads better with its type first.
        for name in list(members):
            raw = members.pop(name)
            if name == "type":
                members["type"] = Raw(b'[%b,"null"]' % bytes(small))
            elif name != "nullable":
                members[name] = raw
        return True
    members["type"] = small
    return changed


def _capital(members: _Members) -> bool:
    kind = members.get("type")
    if kind is None:
        return False
    spelled = bytes(kind)
    if spelled.startswith(b"[") and spelled.endswith(b',"null"]') and spelled.count(b",") == 1:
        members["type"] = Raw(spelled[1:].partition(b",")[0].upper())
        members["nullable"] = Raw(_TRUE)
        return True
    if spelled[:1] != b'"':
        return False
    members["type"] = Raw(spelled.upper())
    return True
