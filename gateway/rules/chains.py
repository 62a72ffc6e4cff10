"""Chains: the items of a list into middlewares, ready to be composed.

A named chain is built once: routes that name the same chain share its middlewares and their state. An item that is written
twice is built twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from .. import registry
from ..chain import Middleware, UsesStore
from .document import Entry, Items, Node, Scalar, Table, kind_of
from .fail_open import FailOpen
from .named import BUILD_FAULTS, PYTHON_NAME, describe, find_class
from .plan import Authenticator
from .problems import Spot, nearest
from .read import Reader
from .stores import Stores


class Chain(Struct, frozen=True, eq=False):
    """Middlewares in order, and what the file calls them; ``name`` is that of the whole, if it has one."""

    names: tuple[str, ...] = ()
    middlewares: tuple[Middleware, ...] = ()
    name: str = ""

    def __add__(self, other: Chain) -> Chain:
        return Chain(self.names + other.names, self.middlewares + other.middlewares)


EMPTY: Final = Chain()
_FAIL: Final = ("closed", "open")
"""What becomes of a call on which a middleware of one's own fails: it fails too, or goes on without it."""


class Chains:
    """The chains of one file. ``used`` are the names that something refers to, ``spots`` where each middleware is written, by
    its identity."""

    def __init__(self, reader: Reader, entries: Mapping[str, Entry], stores: Stores, priced: bool = True) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._entries = entries
        self._stores = stores
        self._priced = priced
        self._built: dict[str, Chain] = {}
        self._building: list[str] = []
        self.used: set[str] = set()
        self.spots: dict[int, Spot] = {}

    def build_all(self) -> None:
        """Build every chain, so that mistakes in unused ones are found too."""
        for name, entry in self._entries.items():
            self._named(name, entry.spot)

    @property
    def named(self) -> Mapping[str, Chain]:
        """The named chains that were built; one that others contain comes before them."""
        return self._built

    def of(self, node: Node | None, where: str) -> Chain:
        """Return the chain that ``node`` names or lists; what is wrong in it is noted and left out."""
        if node is None:
            return EMPTY
        if isinstance(node, Items):
            return self._list(node.items, where)
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return self._refer(node.value, node.spot, where)
        self._problems.add(
            "E011", node.spot, f"{where}: expected a chain, got {kind_of(node)}", "write a chain's name, or a list"
        )
        return EMPTY

    def _refer(self, name: str, spot: Spot, where: str) -> Chain:
        if name in self._entries:
            self.used.add(name)
            return self._named(name, spot)
        hint = f"a single middleware is a list: [{name}]" if name in registry.names("middlewares") else ""
        self._problems.add(
            "E033",
            spot,
            f'{where}: there is no chain "{name}"',
            hint or nearest(name, self._entries) or "define it in chains",
        )
        return EMPTY

    def _named(self, name: str, spot: Spot) -> Chain:
        if name in self._building:
            circle = " → ".join([*self._building[self._building.index(name) :], name])
            self._problems.add("E034", spot, f"the chain {name} contains itself: {circle}", "take one of them out")
            return EMPTY
        if name not in self._built:
            self._building.append(name)
            where = f"chains.{name}"
            chain = self._list(self._reader.items(self._entries[name].value, where), where)
            self._built[name] = Chain(chain.names, chain.middlewares, name)
            self._building.pop()
        return self._built[name]

    def _list(self, nodes: Iterable[Node], where: str) -> Chain:
        chain = EMPTY
        for at, node in enumerate(nodes):
            chain += self._item(node, f"{where}[{at}]")
        return chain

    def _item(self, node: Node, where: str) -> Chain:
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return self._middleware(node.value, node, None, where)
        if not isinstance(node, Table) or not node.entries:
            hint = "write a middleware's name, {name: {option: value}} or {chain: name}"
            self._problems.add("E035", node.spot, f"{where}: expected a middleware, got {kind_of(node)}", hint)
            return EMPTY
        if "use" in node.entries:
            return self._python(node, where)
        name, entry = next(iter(node.entries.items()))
        if len(node.entries) > 1:
            options = entry.value
            empty = isinstance(options, Scalar) and options.value is None
            hint = f"indent the options below {name}:" if empty else "begin each middleware with a dash of its own"
            others = ", ".join(list(node.entries)[1:])
            self._problems.add("E035", node.spot, f"{where}: one item names several things: {name}, {others}", hint)
            return EMPTY
        if name == "chain":
            if isinstance(entry.value, Scalar) and isinstance(entry.value.value, str):
                return self._refer(entry.value.value, entry.value.spot, where)
            self._problems.add(
                "E035", entry.value.spot, f"{where}: expected a chain's name, got {kind_of(entry.value)}"
            )
            return EMPTY
        return self._middleware(name, node, entry.value, where)

    def _python(self, node: Table, where: str) -> Chain:
        known = ("use", "with", "fail")
        for key, entry in node.entries.items():
            if key not in known:
                self._problems.add("E012", entry.spot, f'unknown key "{key}" in {where}', nearest(key, known))
        name = node.get("use")
        if (
            not isinstance(name, Scalar)
            or not isinstance(name.value, str)
            or not (PYTHON_NAME.fullmatch(name.value) or name.value in registry.installed("middlewares"))
        ):
            spot = node.spot if name is None else name.spot
            hint = 'such as "package.module:Class", or an installed name'
            self._problems.add("E035", spot, f"{where}: use names a class", hint)
            return EMPTY
        chain = self._middleware(name.value, name, node.get("with"), where)
        return self._failing_open(chain, node, where) if "fail" in node.entries else chain

    def _failing_open(self, chain: Chain, node: Table, where: str) -> Chain:
        """Return ``chain``, of one middleware, as the key ``fail`` wants it."""
        how = node.entries["fail"].value
        if not isinstance(how, Scalar) or how.value not in _FAIL:
            said = f'"{how.text}"' if isinstance(how, Scalar) else kind_of(how)
            hint = "closed, which is the default, or open"
            self._problems.add("E011", how.spot, f"{where}.fail: expected one of {', '.join(_FAIL)}, got {said}", hint)
            return EMPTY
        if how.value == "closed" or not chain.middlewares:
            return chain
        (name,), (middleware,) = chain.names, chain.middlewares
        if getattr(middleware, "authenticates", False):
            said = f"{where}: {name} authenticates, and cannot fail open"
            self._problems.add("E032", how.spot, said, "whoever makes it fail would be let in: take fail: open out")
            return EMPTY
        return Chain(chain.names, (FailOpen(middleware, name),))

    def _middleware(self, name: str, node: Node, options: Node | None, where: str) -> Chain:
        kind = self._class(name, node.spot, where)
        if kind is None:
            return EMPTY
        if options is None or (isinstance(options, Scalar) and options.value is None):
            options = Table(node.spot, {})
        before = len(self._reader.references)
        decoded = self._reader.struct(options, kind.Options, f"{where} {name}")
        if decoded is None or not self._secrets_are_there(before):
            return EMPTY
        try:
            made = kind(decoded)
        except BUILD_FAULTS as fault:
            self._problems.add("E032", node.spot, f"{where}: {name} cannot be built: {describe(fault)}")
            return EMPTY
        if getattr(made, "authenticates", False) and not isinstance(made, Authenticator):
            self._problems.add(
                "E032", node.spot, f"{where}: {name} says that it authenticates, but has no identify(call)"
            )
            return EMPTY
        if getattr(made, "needs_prices", False) and not self._priced:
            at = options.get("budget") if isinstance(options, Table) else None
            said = f"{where}: {name} counts money, and the file has no prices"
            self._problems.add("E065", node.spot if at is None else at.spot, said, "add prices, or an upstream's")
        if isinstance(made, UsesStore) and made.store_name is not None:
            at = options.get("store") if isinstance(options, Table) else None
            store = self._stores.of(made.store_name, node.spot if at is None else at.spot, f"{where} {name}.store")
            if store is None:
                return EMPTY
            made.store = store
        self.spots[id(made)] = node.spot
        return Chain((name,), (made,))

    def _secrets_are_there(self, since: int) -> bool:
        """Note every secret that a middleware will miss, where its reference stands."""
        there = True
        for secret, spot, where in self._reader.references[since:]:
            value, off = self._reader.secret(secret, spot, where, "to go without it while it is unset")
            there = there and (value is not None or off is not None)
        return there

    def _class(self, name: str, spot: Spot, where: str) -> type[Middleware] | None:
        if name in self._entries and name not in registry.names("middlewares"):
            self._problems.add(
                "E031", spot, f'{where}: "{name}" is a chain, not a middleware', f"write {{chain: {name}}}"
            )
            return None
        return find_class(registry.middleware, name, "E031", spot, where, self._problems)
