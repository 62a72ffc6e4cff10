"""Stores: made from their section, and found by name for routes and upstreams."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ..reasoning import memory as reasoning
from ..responses import kept as responses
from ..stores.base import Store
from ..stores.memory import MemoryStore
from .document import Entry, Node, Table
from .named import NAME
from .problems import Spot, nearest
from .read import Reader
from .schema import Defaults, ReasoningRules, ResponsesRules, StoreRules

DEFAULT: Final = "default"
_RESPONSES_TTL_S: Final = 30 * 86400.0
"""As long as OpenAI keeps them."""
_REASONING_TTL_S: Final = 86400.0


class Stores:
    """The stores of one file. ``used`` are the names that something refers to; ``node`` is where ``defaults`` stand."""

    def __init__(self, reader: Reader, entries: Mapping[str, Entry], defaults: Defaults, node: Node | None) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._entries = entries
        self._defaults = defaults
        self._node = node
        self._files: dict[Path, tuple[str, Spot]] = {}
        self.named: dict[str, Store] = {}
        self.used: set[str] = set()

    def build_all(self) -> None:
        """Make every store, and the default one. Opens none."""
        for name, entry in self._entries.items():
            if not NAME.fullmatch(name):
                hint = "letters, digits, dot, dash and underscore"
                self._problems.add("E015", entry.spot, f'"{name}" is no name for one of stores', hint)
            if (store := self._build(f"stores.{name}", entry)) is not None:
                self.named[name] = store
        if DEFAULT not in self._entries:
            self.named[DEFAULT] = _in_memory(StoreRules())
        for section in ("responses", "reasoning"):
            usual: str | None = getattr(self._defaults, section).store
            if usual is not None and self._node is not None:
                self.of(usual, _spot(self._node, section, "store"), f"defaults.{section}.store")

    def _build(self, where: str, entry: Entry) -> Store | None:
        rules = self._reader.struct(entry.value, StoreRules, where)
        if rules is None:
            return None
        if rules.kind == "memory":
            return _in_memory(rules)
        assert rules.path is not None
        spot = _spot(entry.value, "path")
        path = Path(self._reader.path(rules.path, spot))
        if path in self._files:
            other, there = self._files[path]
            said = f"{where}.path: {other} {there.seen_from(spot)} has this file already"
            self._problems.add("E052", spot, said, "two stores would clear out each other's values")
            return None
        self._files[path] = (where, spot)
        if self._reader.assumed == "none" and (path.is_dir() or not path.parent.is_dir()):
            said = "is a directory" if path.is_dir() else "stands in no directory that is there"
            self._problems.add("E056", spot, f"{where}.path: {path} {said}", "paths start at the rule file")
            return None
        if find_spec("aiosqlite") is None:
            self._problems.add(
                "E056", _spot(entry.value, "kind"), f"{where}: aiosqlite is missing", 'pip install "headgate[sqlite]"'
            )
            return None
        from ..stores.sqlite import SqliteStore  # needs aiosqlite, which is an extra

        return SqliteStore(path, rules.max_entries, rules.max_size, rules.ttl)

    def of(self, name: str, spot: Spot, where: str) -> Store | None:
        """Return the store called ``name``; None, and a note, if there is none."""
        self.used.add(name)
        store = self.named.get(name)
        if store is None and name not in self._entries:
            self._problems.add("E033", spot, f'{where}: there is no store "{name}"', nearest(name, self.named))
        return store

    def _either(self, name: str | None, usual: str | None, spot: Spot, where: str) -> Store | None:
        """Return the store of a section's own, else the usual one, about which everything was said at its own place."""
        if name is not None:
            return self.of(name, spot, where)
        self.used.add(usual or DEFAULT)
        return self.named.get(usual or DEFAULT)

    def responses(self, rules: ResponsesRules, node: Node, where: str) -> responses.Policy | None:
        """Return who keeps the responses of a route whose own say is ``rules``; None if its store is missing (and noted)."""
        usual = self._defaults.responses
        store = self._either(rules.store, usual.store, _spot(node, "responses", "store"), f"{where}.responses.store")
        if store is None:
            return None
        state = rules.state or usual.state or "gateway"
        return responses.Policy(state, store, rules.ttl or usual.ttl or _RESPONSES_TTL_S)

    def reasoning(self, rules: ReasoningRules, node: Node, where: str) -> reasoning.Policy | None:
        """Return where the reasoning of an upstream is kept; None if it is not, or its store is missing (and noted)."""
        usual = self._defaults.reasoning
        remember = usual.remember if rules.remember is None else rules.remember
        store = self._either(rules.store, usual.store, _spot(node, "reasoning", "store"), f"{where}.reasoning.store")
        if store is None or remember is False:
            return None
        return reasoning.Policy(store, rules.ttl or usual.ttl or _REASONING_TTL_S)


def _in_memory(rules: StoreRules) -> MemoryStore:
    return MemoryStore(rules.max_entries, rules.max_size, rules.ttl)


def _spot(node: Node, *keys: str) -> Spot:
    """Return where the innermost of ``keys`` stands below ``node`` that is there."""
    for key in keys:
        value = node.get(key) if isinstance(node, Table) else None
        if value is None:
            break
        node = value
    return node.spot
