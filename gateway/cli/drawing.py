"""A plan as a drawing: what stands in it and which way requests go, in words that no language of pictures has touched yet.

From left to right: the callers' formats, the routes in order, the chains they run through, the targets, the upstreams. What
no route leads to is not in it. ``mermaid`` and ``dot`` write it down.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from msgspec import Struct

from ..doors import APART, DOORS
from ..errors import ErrorKind
from ..rules import Plan, Route, Upstream
from ..rules.condition import literals
from ..rules.match import compile_condition
from ..rules.target import Aim, Case, Hedge, Leaf, Shadow, Split, Target
from ..units import Percent
from .show import demands, visible

Kind: TypeAlias = Literal["format", "route", "chain", "target", "upstream"]

MAX_LINE: Final = 44
"""Characters of a line, after which it is cut off, or goes on in the next if it is a list."""
MAX_DEMANDS: Final = 5
"""Conditions of a match that are shown; of further ones only how many there are."""
_KINDS: Final = {kind: at for at, kind in enumerate(get_args(ErrorKind))}


class Node(Struct):
    """A box. ``key`` is made of letters and digits; ``off`` says that nothing goes there at present."""

    key: str
    kind: Kind
    lines: tuple[str, ...]
    off: bool = False


class Edge(Struct):
    """A way from one box to another; ``on_failure``: one that is taken only after an error, or besides."""

    start: str
    end: str
    lines: tuple[str, ...] = ()
    on_failure: bool = False


class Drawing(Struct):
    """The nodes, by kind and in the order of the file, and the edges between them."""

    nodes: list[Node]
    edges: list[Edge]

    def of(self, kind: Kind) -> list[Node]:
        """Return the nodes of one kind."""
        return [node for node in self.nodes if node.kind == kind]


def draw(plan: Plan) -> Drawing:
    """Return the drawing of ``plan``."""
    artist = _Artist()
    for at, route in enumerate(plan.routes, 1):
        artist.route(f"{at} {route.name}", route)
    formats = artist.formats(plan.routes)
    nodes = [node for kind in get_args(Kind) for node in artist.nodes.values() if node.kind == kind]
    return Drawing(nodes, [*formats, *artist.ways(), *artist.choices])


class _Way(NamedTuple):
    """How the requests of one route go on: through a chain, if it has one, to ``end``."""

    route: str
    title: str
    chain: str | None
    end: str
    lines: tuple[str, ...]


class _Artist:
    def __init__(self) -> None:
        self.nodes: dict[tuple[Kind, str], Node] = {}
        self.choices: list[Edge] = []
        """Where targets lead."""
        self._ways: list[_Way] = []

    def route(self, title: str, route: Route) -> None:
        """Draw a route, its chain, and all that it leads to."""
        key = self._node("route", route.name, title, *_few(demands(route.conditions, route.when)), off=route.off).key
        chain = None
        if route.own_chain:
            named = f"{route.chain_name}: " if route.chain_name else ""
            # names of chains have no space: a chain without one is its route's alone
            name = route.chain_name or f"the route {route.name}"
            chain = self._node("chain", name, *_wrapped(route.own_chain, named)).key
        self._ways.append(_Way(key, title, chain, self._aim(route.aim), _lines(*_renamed(route.aim))))

    def ways(self) -> Iterable[Edge]:
        """Yield the edges from routes onwards; behind a chain that several share, with the routes whose way it is."""
        behind: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
        through: dict[str, int] = {}
        for way in self._ways:
            if way.chain is None:
                yield Edge(way.route, way.end, way.lines)
            else:
                yield Edge(way.route, way.chain)
                through[way.chain] = through.get(way.chain, 0) + 1
                behind.setdefault((way.chain, way.end, way.lines), []).append(way.title)
        for (chain, end, lines), titles in behind.items():
            yield Edge(chain, end, (*_lines(*_wrapped(titles)), *lines) if through[chain] > 1 else lines)

    def formats(self, routes: Iterable[Route]) -> list[Edge]:
        """Draw the formats, of which those stand in one box whose requests may take the same routes; return their edges."""
        alike: dict[tuple[str, ...], list[str]] = {}
        routes = tuple(routes)
        for format in sorted(DOORS.keys() | _named_operations(routes)):
            taking = tuple(self.nodes["route", route.name].key for route in routes if _takes(route, format))
            alike.setdefault(taking, []).append(format)
        edges = []
        for taking, formats in alike.items():
            node = self._node("format", formats[0], *formats, *(() if taking else ("no route takes it",)))
            edges += [Edge(node.key, key) for key in taking]
        return edges

    def _aim(self, aim: Aim) -> str:
        """Draw what an aim leads to, unless it is there already; return its key."""
        if isinstance(aim, Leaf):
            return self._upstream(aim.upstream)
        known = self.nodes.get(("target", aim.spelled))
        if known is not None:
            return known.key
        key = self._node("target", aim.spelled, aim.spelled, off=aim.off).key
        for at, case in enumerate(aim.select):
            self._case(key, _case_lines(aim, case, is_first=at == 0), case)
        for entry in aim.on_failure:
            kinds = _wrapped(sorted(entry.kinds, key=_KINDS.__getitem__))
            lines = _lines(_place(aim, entry.place), *kinds, *_renamed(entry.aim))
            self.choices.append(Edge(key, self._aim(entry.aim), lines, on_failure=True))
        for beside in aim.beside:
            lines = _lines(_place(aim, beside.place), *_when(beside), *_renamed(beside.aim))
            self.choices.append(Edge(key, self._aim(beside.aim), lines, on_failure=True))
        return key

    def _case(self, target: str, said: list[str], case: Case) -> None:
        if not isinstance(case.goes, Split):
            self.choices.append(Edge(target, self._aim(case.goes), _lines(*said, *_renamed(case.goes))))
            return
        sticky = [] if case.goes.fact is None else [f"sticky: {case.goes.fact}"]
        for share in case.goes.shares:
            lines = _lines(*said, f"weight {share.weight:g}", *sticky, *_renamed(share.aim))
            self.choices.append(Edge(target, self._aim(share.aim), lines))

    def _upstream(self, upstream: Upstream) -> str:
        chain = _wrapped(upstream.chain_names, "chain: ") if upstream.chain_names else []
        adapter = f"adapter: {upstream.adapter_name}"
        accounts = [] if upstream.accounts is None else [f"accounts: {upstream.accounts.name}"]
        return self._node("upstream", upstream.name, upstream.name, adapter, *accounts, *chain, off=upstream.off).key

    def _node(self, kind: Kind, name: str, *lines: str, off: str | None = None) -> Node:
        """Return the node of that name, made if need be; ``off`` is why it is."""
        if (kind, name) not in self.nodes:
            key = f"{kind}{sum(other == kind for other, _ in self.nodes) + 1}"
            why = [] if off is None else textwrap.wrap(f"off: {off}", MAX_LINE)
            self.nodes[kind, name] = Node(key, kind, _lines(*lines, *why), off is not None)
        return self.nodes[kind, name]


def _named_operations(routes: Iterable[Route]) -> set[str]:
    """Return those of what is no conversation that a route speaks of: few files have anything to do with them."""
    conditions = [condition for route in routes if (condition := route.conditions.get("format")) is not None]
    return {format for condition in conditions for format in literals(condition) if format in APART}


def _takes(route: Route, format: str) -> bool:
    """Whether the route's match may hold of a request in ``format``."""
    condition = route.conditions.get("format")
    return condition is None or compile_condition(condition)(format)


def _case_lines(target: Target, case: Case, *, is_first: bool) -> list[str]:
    """Return what must hold for a case to be taken; nothing to say of the only case of all."""
    asked = _few(demands(case.conditions, case.when))
    if not asked and is_first:
        return []
    return [_place(target, case.place), *(asked or ["otherwise"])]


def _place(target: Target, place: str) -> str:
    """Return where a case or entry stands within its target: what decision records say, without the target's name."""
    return place.removeprefix(f"{target.spelled}.")


def _when(beside: Hedge | Shadow) -> list[str]:
    """Return when a call goes there besides."""
    if isinstance(beside, Shadow):
        return [f"copies of {Percent(beside.share)}"]
    return [f"after {beside.after_s:g} s without content", f"extra calls: {Percent(beside.allowance.share)} at most"]


def _renamed(aim: Aim) -> list[str]:
    return [] if aim.model is None else [f"as {aim.model}"]


def _few(said: list[str]) -> list[str]:
    if len(said) <= MAX_DEMANDS:
        return said
    return [*said[: MAX_DEMANDS - 1], f"and {len(said) - MAX_DEMANDS + 1} more conditions"]


def _wrapped(names: Iterable[str], line: str = "") -> list[str]:
    """Return lines, of which the first begins with ``line``, that list ``names``."""
    lines, is_empty = [], True
    for name in names:
        if not is_empty and len(line) + len(name) + 3 > MAX_LINE:
            lines.append(f"{line},")
            line, is_empty = "", True
        line, is_empty = (line + name if is_empty else f"{line}, {name}"), False
    return [*lines, line]


def _lines(*texts: str) -> tuple[str, ...]:
    shown = (visible(text) for text in texts)
    return tuple(text if len(text) <= MAX_LINE else f"{text[: MAX_LINE - 1]}…" for text in shown)
