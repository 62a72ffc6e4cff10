"""The JSON Schema of rule files, for editors: written from the types that read them, so that the two cannot disagree.

It says what can be said without looking anything up: keys, types, units, limits, facts and operators, and the options of the
middlewares and adapters that are installed here. References, secrets, covered routes and contradictions are the loader's.
Options Structs are imported to be written down, nothing else of a middleware or adapter is.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from .. import registry
from ..accounts.options import AffinityRules, PoolRules
from .json_match import match_schema, sticky_schema
from .json_types import NOTES, Schema, Types
from .named import NAME, PYTHON_NAME
from .schema import (
    CaseRules,
    ExpectRules,
    RouteRules,
    RuleFile,
    ShareRules,
    StoreRules,
    TargetRules,
    TrialRules,
    UpstreamRules,
)

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

VISIBLE: Final = frozenset(
    {"E010", "E011", "E012", "E013", "E014", "E015", "E030", "E031", "E035", "E040", "E041", "E042"}
)
"""Codes of the loader whose mistakes of shape the schema refuses too. Some of E010 and E011 are more than shape: a value that
a Struct or the operating system refuses; of E030 and E031 a class that cannot be imported. E020 is refused where a reference
is due, not where a text merely looks like a key."""

_PYTHON: Final = f"^{PYTHON_NAME.pattern}$".replace("\\w", "[A-Za-z0-9_]")


def json_schema(*, part: bool = False) -> Schema:
    """Return the schema of a rule file as JSON-able data. What is installed but broken is left out.

    ``part``: of a file that others include. It need not say its version, and may be empty.
    """
    types = Types()
    chain = types.define("chain", {"type": "array", "items": _chain_item(types)})
    chain_or_name = {"anyOf": [{"type": "string"}, chain]}
    sees = match_schema(types, principal=True)
    nullable_sticky = {"anyOf": [sticky_schema(), {"type": "null"}]}
    case = types.table(CaseRules, {"match": sees, "split": _some(types.of(ShareRules)), "sticky": nullable_sticky})
    case["anyOf"] = [{"required": ["use"]}, {"required": ["split"]}]
    target = types.table(TargetRules, {"select": _some(types.define("case", case))})
    route = types.table(RouteRules, {"match": match_schema(types, principal=False), "chain": chain_or_name})
    expect = {**types.table(ExpectRules), "minProperties": 1}
    trial = types.table(TrialRules, {"expect": types.define("expect", expect)})
    file = types.table(
        RuleFile,
        {
            "include": _include(),
            "stores": _named(types.of(StoreRules)),
            "accounts": _named(_pool(types)),
            "upstreams": _named(_upstream(types, chain_or_name)),
            "chains": _named(chain),
            "targets": _named(types.define("target", target)),
            "routes": {"type": "array", "items": types.define("route", route)},
            "tests": {"type": "array", "items": types.define("test", trial)},
        },
    )
    title = "A rule file of Headgate"
    if part:
        title += " that others include"
        file["type"] = [file["type"], "null"]
        file["required"].remove("version")
    return {"$schema": DRAFT, "title": title, **file, "$defs": types.definitions}


def _some(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _named(schema: Schema) -> Schema:
    return {"type": "object", "propertyNames": {"pattern": f"^{NAME.pattern}$"}, "additionalProperties": schema}


def _include() -> Schema:
    path: Schema = {"type": "string", "minLength": 1}
    return {"anyOf": [path, {"type": "array", "items": path}]}


def _chain_item(types: Types) -> Schema:
    """Return the schema of a chain's item: a name, {name: options}, {chain: name}, {use: class, with: options, fail: how}."""
    bare: list[str] = []
    named: dict[str, Schema] = {"chain": {"type": "string", "description": "The name of another chain, for its items."}}
    for name in registry.names("middlewares"):
        try:
            kind = registry.middleware(name)
            options = kind.Options
        except (registry.UnknownName, AttributeError):
            continue  # installed, but broken: the loader says why to whoever uses it
        schema = types.define(f"middleware-{name}", _options(types, options))
        optional = not any(field.required for field in msgspec.structs.fields(options))
        optional = optional and not getattr(options, "needs_one_of", ())
        bare += [name] if optional else []
        said = (kind.__doc__ or "").partition("\n")[0]
        named[name] = {"anyOf": [schema, {"type": "null"}] if optional else [schema], "description": said}
    by_class = {
        "type": "object",
        "properties": {
            "use": {
                "type": "string",
                "anyOf": [{"pattern": _PYTHON}, {"enum": registry.installed("middlewares")}],
                "description": "A class of your own, package.module:Class, or the name of one that is installed.",
            },
            "with": {"type": ["object", "null"], "description": "Its options."},
            "fail": {
                "enum": ["closed", "open"],
                "default": "closed",
                "description": "What becomes of a call on which it fails: it fails too, or goes on without it.",
            },
        },
        "additionalProperties": False,
    }
    by_name = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "properties": named,
        "patternProperties": {_PYTHON: {"type": ["object", "null"]}},
        "additionalProperties": False,
    }
    text = {"type": "string", "anyOf": [{"enum": bare}, {"pattern": _PYTHON}]}
    is_class = {"type": "object", "required": ["use"]}
    item = {"if": {"type": "string"}, "then": text, "else": {"if": is_class, "then": by_class, "else": by_name}}
    return types.define("chain-item", item)


def _upstream(types: Types, chain: Schema) -> Schema:
    """Return the schema of an upstream: which keys stand beside the common ones depends on the adapter."""
    common = types.table(UpstreamRules, {"chain": chain})
    known: list[str] = []
    cases: list[Schema] = []
    for name in registry.names("adapters"):
        try:
            options = registry.adapter(name).Options
        except (registry.UnknownName, AttributeError):
            continue
        known.append(name)
        own = _options(types, options)
        whole = {
            **common,
            "properties": {**own["properties"], **common["properties"]},
            "required": [*common["required"], *own.get("required", ())],
        }
        asked = {"properties": {"adapter": {"const": name}}, "required": ["adapter"]}
        cases.append({"if": asked, "then": types.define(f"upstream-{name}", whole)})
    asked = {"properties": {"adapter": {"pattern": _PYTHON}}, "required": ["adapter"]}
    free = {**common, "additionalProperties": True}
    cases.append({"if": asked, "then": types.define("upstream-by-class", free)})
    adapter = {**common["properties"]["adapter"], "anyOf": [{"enum": known}, {"pattern": _PYTHON}]}
    schema = {
        "type": "object",
        "description": common["description"],
        "properties": {"adapter": adapter},
        "required": ["adapter"],
        "allOf": cases,
    }
    return types.define("upstream", schema)


def _pool(types: Types) -> Schema:
    by = {"anyOf": [{"const": "session"}, sticky_schema()]}
    affinity = types.define("affinity", types.table(AffinityRules, {"by": by}))
    pool = types.table(PoolRules, {"affinity": {"anyOf": [affinity, {"type": "null"}]}})
    return types.define("pool-of-accounts", pool)


def _options(types: Types, options: type[Struct]) -> Schema:
    return {**types.table(options), "patternProperties": NOTES}
