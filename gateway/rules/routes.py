"""Routes: conditions compiled, targets resolved, chains composed, and proof that no route hides behind an earlier one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from ..chain import Middleware, Next, compose
from ..doors import PASSED
from ..passing.paths import place_of
from .cel import narrowed, read_when
from .chains import Chains
from .condition import Condition, literals
from .coverage import all_covered
from .document import Node, Table
from .index import Index
from .match import Fact, compile_condition, compile_match
from .order import note_order
from .plan import Authenticator, Route, ServedModel
from .problems import Problems, Spot
from .read import Reader
from .read_match import read_match
from .schema import Defaults, RouteRules
from .serving import serve as serve_target
from .stores import Stores
from .target import Aim, Leaf, Target
from .targets import Targets

T = TypeVar("T")


class Routes:
    """Builds the routes of one file in order."""

    def __init__(
        self,
        reader: Reader,
        chains: Chains,
        stores: Stores,
        defaults: Defaults,
        targets: Targets,
    ) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._chains = chains
        self._stores = stores
        self._defaults = defaults
        self._targets = targets
        self._names: dict[str, Spot] = {}
        self._earlier: list[tuple[str, Spot, Mapping[str, Condition]]] = []
        self._index = Index()

    def build(self, node: Node, where: str) -> Route | None:
        """Return the route, or None when something in it is wrong (and noted), or its upstream is."""
        rules = self._reader.struct(node, RouteRules, where, keep=("match", "when", "chain"))
        if not isinstance(node, Table):
            return None
        match = node.get("match")
        conditions = {} if match is None else read_match(match, f"{where}.match", self._problems)
        condition = node.get("when")
        when = None if condition is None else read_when(condition, f"{where}.when", self._problems)
        chain = self._chains.of(node.get("chain"), f"{where}.chain")
        if rules is None:
            return None
        self._unique(rules.name, node)
        responses = self._stores.responses(rules.responses, node, where)
        aim = self._targets.aim(rules.to, node.entries["to"].value.spot, f"{where}.to")
        if conditions is None:
            return None
        if aim is None or not _takes_what_is_passed_on(conditions, aim):
            self._unhidden(rules.name, node, conditions)
        # a route with a when, or whose upstream may be off, lets requests through to later ones
        if condition is None and aim is not None and not aim.optional:
            self._earlier.append((rules.name, node.spot, conditions))
            self._index.add(conditions)
        if aim is None or (condition is not None and when is None):
            return None
        leaves = list(aim.leaves())
        self._check_served(rules.name, match, conditions, leaves)
        reached = [*leaves, *aim.shaded()]
        middlewares = _each_once(
            [*chain.middlewares, *(each for leaf in reached for each in leaf.upstream.middlewares)]
        )
        outright = aim.upstream if isinstance(aim, Leaf) else None
        counted = chain.middlewares if outright is None else middlewares
        ways = [_authenticators([*chain.middlewares, *leaf.upstream.middlewares]) for leaf in reached]
        patience = [leaf.upstream.timeouts.total for leaf in leaves]
        chains = {leaf.upstream.name: chain.names + leaf.upstream.chain_names for leaf in reached}
        for leaf in reached:
            whole = (*chain.middlewares, *leaf.upstream.middlewares)
            note_order(self._problems, chains[leaf.upstream.name], whole, self._chains.spots)
        if not rules.remember_reasoning:
            for leaf in reached:
                if leaf.upstream.memory is not None:
                    leaf.upstream.memory.silent.add(rules.name)
        if isinstance(aim, Target):
            serve: Next = partial(serve_target, target=aim, chains=chains, waits=aim.waits)
        else:
            serve = aim.upstream.entry if aim.model is None else aim.serve
        return Route(
            rules.name,
            narrowed(compile_match(conditions), when),
            compose(chain.middlewares, serve),
            rules.to,
            aim,
            rules.loss or self._defaults.loss,
            float(max(patience, default=0) if rules.timeout is None else rules.timeout),
            chain.names if outright is None else chain.names + outright.chain_names,
            middlewares,
            conditions,
            None if when is None else when.text,
            needs_usage=any(getattr(each, "needs_usage", False) for each in counted),
            authenticates=all(ways) and (bool(ways) or bool(_authenticators(chain.middlewares))),
            authenticators=_each_once(each for way in ways for each in way) if all(ways) else (),
            line=node.spot.line,
            source=node.spot.source,
            chain_name=chain.name,
            own_chain=chain.names,
            chains=chains,
            responses=responses,
        )

    def _unique(self, name: str, node: Table) -> None:
        spot = node.entries["name"].value.spot
        if name in self._names:
            self._problems.add(
                "E016",
                spot,
                f'there is a route "{name}" {self._names[name].seen_from(spot)} already',
                "logs tell routes by name",
            )
        self._names.setdefault(name, spot)

    def _check_served(
        self, name: str, match: Node | None, conditions: Mapping[str, Condition], leaves: Sequence[Leaf]
    ) -> None:
        """Note a format that the route names and that none of its upstreams serves; one that is off may."""
        condition = conditions.get("format")
        if condition is None or not isinstance(match, Table) or any(leaf.off is not None for leaf in leaves):
            return
        for format in literals(condition):
            if leaves and not any(leaf.upstream.serves(format) for leaf in leaves):
                named = " or ".join(dict.fromkeys(leaf.upstream.name for leaf in leaves))
                said = f'the route "{name}" is for {format}, which {named} does not serve'
                hint = "lead it to an upstream that does, such as one with adapter: openai"
                if format in PASSED:
                    hint = "lead it to its vendor's adapter; for another base_url say there which paths, as passthrough: true"
                self._problems.add("E061", match.entries["format"].spot, said, hint)

    def _unhidden(self, name: str, node: Table, conditions: Mapping[str, Condition]) -> None:
        for at in self._index.covering(conditions):
            earlier, spot, wide = self._earlier[at]
            if all_covered(wide, conditions):
                place = spot.seen_from(node.spot)
                said = f'the route "{name}" is never reached: "{earlier}" {place} takes everything it matches'
                included = "included routes come after those of the file that includes them"
                hint = "move it up, or remove it" if spot.source == node.spot.source else included
                self._problems.add("E045", node.spot, said, hint)
                break


def _takes_what_is_passed_on(conditions: Mapping[str, Condition], aim: Aim) -> bool:
    """Whether a route may take calls that are passed on, which an earlier one that covers it lets through: it does not speak
    of them, or its upstream does not serve them."""
    format, path = conditions.get("format"), conditions.get("path")
    named = () if path is None else literals(path)
    if (format is None and path is None) or (named and all(place_of(each) is None for each in named)):
        return False
    admits = compile_condition(format) if format is not None else lambda value: True
    return any(admits(each) and any(leaf.upstream.serves(each) for leaf in aim.leaves()) for each in PASSED)


def _authenticators(middlewares: Iterable[Middleware]) -> tuple[Authenticator, ...]:
    return tuple(
        each for each in middlewares if getattr(each, "authenticates", False) and isinstance(each, Authenticator)
    )


def _each_once(members: Iterable[T]) -> tuple[T, ...]:
    return tuple({id(member): member for member in members}.values())


def served_models(routes: Sequence[Route]) -> list[ServedModel]:
    """Return the names that a route says outright: in its match, after its ``to:``, or among its upstream's ``models``.

    A name that the route's own match refuses, or that an earlier route takes by model alone, is left out.
    """
    found: list[ServedModel] = []
    taken: list[Route] = []
    index = Index()
    for route in routes:
        if route.off is not None:
            continue
        condition = route.conditions.get("model")
        names = list(literals(condition)) if condition is not None else []
        for leaf in route.aim.leaves():
            names += leaf.upstream.models if leaf.model is None else [leaf.model]
        for name in dict.fromkeys(names):
            # what is in the index demands a model alone
            rivals = (taken[at] for at in index.candidates(partial(_always, name)))
            if name and _accepts(route, name) and not any(_accepts(earlier, name) for earlier in rivals):
                found.append(ServedModel(name, route))
        if set(route.conditions) <= {"model"} and route.when is None:
            taken.append(route)
            index.add(route.conditions)
    return found


def _always(name: str, fact: Fact) -> str:
    return name


def _accepts(route: Route, model: str) -> bool:
    condition = route.conditions.get("model")
    return condition is None or compile_condition(condition)(model)


def note_unused(problems: Problems, kind: str, spots: Mapping[str, Spot], used: set[str]) -> None:
    """Note the names that nothing refers to."""
    for name, spot in spots.items():
        if name not in used:
            problems.add("W101", spot, f"the {kind} {name} is defined and never used", "use it, or remove it")
