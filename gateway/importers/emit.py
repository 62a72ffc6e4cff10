"""A draft as the text of a rule file, in canonical layout, with what was not carried as comments at its top."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ..rules.layout import lay_out
from ..rules.schema import VERSION
from .draft import ANY_ERROR, PASSING_ERROR, Draft
from .report import Entry
from .text import Written, block, flow, wrapped

_WIDTH: Final = 118
_LONG: Final = 6
_SHOWN_ORIGINS: Final = 4


def emit(draft: Draft, entries: Sequence[Entry]) -> str:
    """Return the text of the rule file."""
    lines = [*_head(draft, entries), f"version: {VERSION}", ""]
    if draft.server:
        note = f"  # {draft.server_note}" if draft.server_note else ""
        lines += [f"server: {flow(draft.server)}{note}", ""]
    if draft.defaults:
        lines += [f"defaults: {flow(draft.defaults)}", ""]
    used: dict[str, tuple[str, ...]] = {}
    targets = {name: _with_anchors(target, used) for name, target in draft.targets.items()}
    if used:
        lines += ["# Kinds of error that several targets go on after.", "x-kinds:"]
        lines += [f"  - &{name} {wrapped(kinds, _WIDTH - 36)}" for name, kinds in used.items()] + [""]
    if draft.upstreams:
        lines += ["upstreams:"]
        for name, upstream in draft.upstreams.items():
            lines.append(f"  # {_origins(draft.origins[name])}")
            lines += block({name: upstream.rules()}, 2)
        lines.append("")
    if draft.chain and draft.routes:
        lines += ["chains:", *block({"base": draft.chain}, 2), ""]
    for section, value in (("targets", targets), ("routes", draft.routes), ("tests", draft.tests)):
        if value:
            lines += [f"{section}:", *block(value, 2), ""]
    return lay_out("\n".join(lines))


def _head(draft: Draft, entries: Sequence[Entry]) -> Iterable[str]:
    yield f"# Imported from a configuration of {draft.title}."
    if not entries:
        yield "# Everything in it was carried."
        return
    yield "# What was not carried, or means something else here; lines are those of that configuration:"
    for entry in entries:
        text = _printable(str(entry))
        wrapped = textwrap.wrap(text, _WIDTH - 4, break_long_words=False, break_on_hyphens=False)
        yield f"# - {wrapped[0]}"
        for rest in wrapped[1:]:
            yield f"#   {rest}"


def _origins(paths: Sequence[str]) -> str:
    shown = ", ".join(paths[:_SHOWN_ORIGINS])
    more = len(paths) - _SHOWN_ORIGINS
    return _printable(f"{shown} and {more} more" if more > 0 else shown)


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)


def _anchor(kinds: tuple[str, ...], used: Mapping[str, tuple[str, ...]]) -> str:
    """Return what a list of kinds is called in the file."""
    if kinds == PASSING_ERROR:
        return "passing_error"
    missing = [kind for kind in ANY_ERROR if kind not in kinds]
    if len(missing) <= 2:
        return "_".join(["any_error", *(["but"] if missing else []), *missing]).replace(".", "_")
    known = [name for name, each in used.items() if each == kinds]
    return known[0] if known else f"error_{len(used) + 1}"


def _with_anchors(value: object, used: dict[str, tuple[str, ...]]) -> object:
    """Return a target in which long lists of kinds are the alias of an anchor."""
    if isinstance(value, Mapping):
        return {key: _with_anchors(inner, used) for key, inner in value.items()}
    if isinstance(value, tuple) and len(value) > _LONG:
        name = _anchor(value, used)
        used[name] = value
        return Written(f"*{name}")
    if isinstance(value, list):
        return [_with_anchors(each, used) for each in value]
    return value
