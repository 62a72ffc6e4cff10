"""Python types as JSON Schema (draft 2020-12): what ``read`` accepts for a field, said to an editor.

Knows no rule file: Structs, their field docs and defaults, msgspec's limits, and the units.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ..units import Budget, Duration, FilePath, Percent, Rate, Secret, Size
from .docstrings import field_docs

Schema: TypeAlias = "dict[str, Any]"

NOTES: Final[Schema] = {"^x-": {}}
"""Keys that are free for anchors and notes."""

_PLAIN: Final[dict[Any, str]] = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
_UNITS: Final[dict[Any, Schema]] = {
    Duration: {
        "type": "string",
        "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d))+$",
        "description": "A duration such as 500ms, 30s, 5m, 1h30m or 7d.",
    },
    Size: {
        "type": "string",
        "pattern": "^[0-9]+(\\.[0-9]+)?\\s*(B|KB|MB|GB|KiB|MiB|GiB)$",
        "description": "A size such as 64KB, 10MiB or 1GB.",
    },
    Rate: {
        "type": "string",
        "pattern": "^[0-9]+(\\.[0-9]+)?[kM]?/(s|min|h|day)$",
        "description": "A rate such as 5/s, 60/min, 100k/h or 2M/day.",
    },
    Budget: {
        "type": "string",
        "pattern": "^[0-9]+(\\.[0-9]+)? *USD/(h|day|week|month)$",
        "description": "An amount of money for a calendar hour, day, week or month, such as 20 USD/day.",
    },
    Percent: {
        "type": "string",
        "pattern": "^(?!0{1,2}(\\.0+)?%)(100(\\.0+)?|[0-9]{1,2}(\\.[0-9]+)?)%$",
        "description": "A share above 0% and up to 100%, such as 5% or 0.5%.",
    },
    FilePath: {
        "type": "string",
        "minLength": 1,
        "description": "The path of a file, relative to the rule file.",
    },
    Secret: {
        "type": "string",
        "pattern": "^(env|file):[\\s\\S]*[^?]",
        "description": "A secret by reference: env:NAME, env:NAME? (may be unset) or file:path.",
    },
}
_BOUNDS: Final = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
_MEASURES: Final = {"string": "Length", "array": "Items", "object": "Properties"}
_ARRAYS: Final = (list, tuple, set, frozenset)


class Types:
    """Writes schemas; Structs go into ``definitions`` and are referred to."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._names: dict[Any, str] = {}

    def define(self, name: str, schema: Schema) -> Schema:
        """Add a definition; return the reference to it."""
        self.definitions[name] = schema
        return {"$ref": f"#/$defs/{name}"}

    def of(self, kind: Any) -> Schema:
        """Return the schema of a type. What it cannot say of a stranger's type it leaves open."""
        origin, arguments = get_origin(kind), get_args(kind)
        if kind in _PLAIN:
            return {"type": _PLAIN[kind]}
        if kind in _UNITS:
            return self._once(kind, kind.__name__.lower(), lambda: _UNITS[kind])
        if origin is Annotated:
            return _limited(self.of(arguments[0]), arguments[1:])
        if origin is UnionType or origin is Union:
            options = [self.of(each) for each in arguments if each is not UnsetType]
            return options[0] if len(options) == 1 else {"anyOf": options}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in _ARRAYS:
            return self._array(origin, arguments)
        if origin is dict or origin is Mapping:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if isinstance(kind, type) and issubclass(kind, Struct):
            return {"type": "object"} if kind.__struct_config__.tag is not None else self.struct(kind)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"enum": [each.value for each in kind]}
        return {"type": "array"} if kind in _ARRAYS else {"type": "object"} if kind is dict else {}

    def struct(self, kind: type[Struct]) -> Schema:
        """Return a reference to the schema of a Struct."""
        return self._once(kind, kind.__name__, lambda: self.table(kind))

    def table(self, kind: type[Struct], special: Mapping[str, Schema] | None = None) -> Schema:
        """Return the schema of a mapping with the fields of ``kind``; those in ``special`` have a schema of their own."""
        fields = msgspec.structs.fields(kind)
        required = [field.encode_name for field in fields if field.required]
        either: tuple[str, ...] = getattr(kind, "needs_one_of", ())
        return {
            "type": "object",
            "description": _words(inspect.cleandoc(kind.__doc__ or "")),
            "properties": self.properties(kind, special or {}),
            **({"required": required} if required else {}),
            **({"anyOf": [{"required": [name]} for name in either]} if either else {}),
            "patternProperties": NOTES,
            "additionalProperties": False,
        }

    def properties(self, kind: type[Struct], special: Mapping[str, Schema]) -> dict[str, Schema]:
        """Return the schema of each field, with its description and default."""
        docs, found = field_docs(kind), {}
        for field in msgspec.structs.fields(kind):
            name = field.encode_name
            schema = dict(special[name] if name in special else self.of(field.type))
            if field.name in docs:
                schema["description"] = _words(docs[field.name])
            default = _default(field)
            found[name] = schema if default is None else {**schema, "default": default}
        return found

    def _array(self, origin: Any, arguments: tuple[Any, ...]) -> Schema:
        if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
            exact = {"minItems": len(arguments), "maxItems": len(arguments)}
            return {"type": "array", "prefixItems": [self.of(each) for each in arguments], **exact}
        return {"type": "array", "items": self.of(arguments[0])}

    def _once(self, kind: Any, name: str, write: Any) -> Schema:
        if kind not in self._names:
            taken: Collection[str] = self._names.values()
            # two modules may call their Structs alike
            name = f"{kind.__module__}.{name}" if name in taken else name
            self._names[kind] = name
            self.define(name, write())
        return {"$ref": f"#/$defs/{self._names[kind]}"}


def _limited(schema: Schema, limits: tuple[Any, ...]) -> Schema:
    """Return ``schema`` with what msgspec's Meta says of it."""
    schema = dict(schema)
    for limit in limits:
        if not isinstance(limit, Meta):
            continue
        for name, key in _BOUNDS.items():
            if (bound := getattr(limit, name)) is not None:
                schema[key] = bound
        if limit.multiple_of is not None:
            schema["multipleOf"] = limit.multiple_of
        if limit.pattern is not None:
            schema["pattern"] = limit.pattern
        measure = _MEASURES.get(schema.get("type", ""), "Length")
        if limit.min_length is not None:
            schema[f"min{measure}"] = limit.min_length
        if limit.max_length is not None:
            schema[f"max{measure}"] = limit.max_length
    return schema


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """Return a default worth showing, spelled as in the file; None if there is none."""
    value = field.default
    if isinstance(value, Duration):
        return f"{float(value):g}s" if value >= 1 or not value else f"{value * 1000:g}ms"
    if isinstance(value, Size):
        unit, name = next(
            ((size, name) for size, name in ((2**20, "MiB"), (2**10, "KiB")) if value % size == 0), (1, "B")
        )
        return f"{value // unit}{name}"
    if isinstance(value, Percent | FilePath):
        return str(value)
    if value is UNSET or value is msgspec.NODEFAULT or not isinstance(value, str | int | float) or value == "":
        return None
    return value


def _words(text: str) -> str:
    return text.replace("``", "`")
