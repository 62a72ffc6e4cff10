"""Another format's JSON Schema as this API takes one for an answer: closed objects, and no bounds.

The API keeps to a schema by a grammar, and refuses what that cannot say. Bounds are told to the model in the description
instead, as the SDK does it. Source: "JSON Schema limitations" in the API's guide to structured outputs, November 2026.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec

from ...errors import DecodeError
from ...ir.loss import LossKind
from .members import BAD_JSON
from .render import Renderer

Changes: TypeAlias = dict[str, tuple[LossKind, str]]
"""What was changed: a word of JSON Schema, and why."""

_AT: Final = "response_format.schema"
_BOUNDS: Final = frozenset(
    [
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties"),
    ]
)
_OTHERS: Final = "additionalProperties"
_ORDER: Final = "propertyOrdering"
"""Google's own word. Members are written in the order of ``properties`` here."""
_EACH: Final = ("properties", "$defs", "definitions")
_LISTS: Final = ("anyOf", "allOf", "oneOf", "prefixItems")


def closed(schema: bytes, renderer: Renderer) -> bytes:
    """Return ``schema`` as this API takes it, the same bytes if nothing is to be done. Raises DecodeError."""
    try:
        whole = msgspec.json.decode(schema)
        changes: Changes = {}
        written = _walk(whole, changes)
    except BAD_JSON as error:
        raise DecodeError(_AT, f"no schema that can be read: {error}") from error
    if not changes:
        return schema
    for what, (kind, why) in changes.items():
        renderer.lose(kind, _AT, what, why)
    return msgspec.json.encode(written)


def _walk(schema: Any, changes: Changes) -> Any:
    """Return ``schema`` and all within it as the API takes them; ``changes`` takes what was changed, and why."""
    if not isinstance(schema, dict):
        return schema
    bounds: dict[str, Any] = {}
    written: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _BOUNDS and not (name == "minItems" and value in (0, 1)):
            bounds[name] = value
        elif name == _ORDER and isinstance(value, list):
            changes[name] = "emulated", "members come in the order of properties"
        elif name in _EACH and isinstance(value, dict):
            written[name] = {key: _walk(inner, changes) for key, inner in value.items()}
        elif name in _LISTS and isinstance(value, list):
            if name == "oneOf":
                changes[name] = "emulated", "said as anyOf"
            written["anyOf" if name == "oneOf" else name] = [_walk(inner, changes) for inner in value]
        else:
            written[name] = _walk(value, changes) if name == "items" else value
    if _is_object(schema) and schema.get(_OTHERS) is not False:
        if schema.get(_OTHERS) is not None:
            changes[_OTHERS] = "lost", "objects of any members cannot be asked for"
        else:
            changes.setdefault(_OTHERS, ("emulated", "an object has no members but those of its schema"))
        written[_OTHERS] = False
    if bounds:
        changes.update((name, ("emulated", "told in the description")) for name in bounds)
        said = ", ".join(f"{name}: {msgspec.json.encode(value).decode()}" for name, value in bounds.items())
        about = written.get("description")
        written["description"] = f"{about}\n\n({said})" if isinstance(about, str) and about else f"({said})"
    return written


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return (
        kind == "object" or (isinstance(kind, list) and "object" in kind) or (kind is None and "properties" in schema)
    )
