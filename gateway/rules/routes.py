"""Routes: conditions compiled, targets resolved, chains composed, and proof that no route hides behind an earlier one."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

from ..call import Call
from ..chain import Next, compose
from ..relay.reply import Reply
from .chains import Chain, Chains
from .condition import Condition, Text, covers, literals
from .document import Node, Table
from .match import compile_condition, compile_match
from .plan import Authenticator, Route, ServedModel, Upstream
from .problems import Problems, Spot, nearest
from .read import Reader
from .read_match import read_match
from .schema import Defaults, RouteRules

_ALWAYS: Final = ("format", "model", "path")
"""Facts of text that every request has: there, a glob * demands nothing."""


class Routes:
    """Builds the routes of one file in order. ``used`` are the upstreams that something leads to."""

    def __init__(
        self,
        reader: Reader,
        chains: Chains,
        defaults: Defaults,
        known: Sequence[str],
        upstreams: Mapping[str, Upstream],
    ) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._chains = chains
        self._defaults = defaults
        self._known = known
        self._upstreams = upstreams
        self._names: dict[str, int] = {}
        self._earlier: list[tuple[str, Spot, Mapping[str, Condition]]] = []
        self.used: set[str] = set()

    def build(self, node: Node, where: str) -> Route | None:
        """Return the route, or None when something in it is wrong (and noted), or its upstream is."""
        rules = self._reader.struct(node, RouteRules, where, keep=("match", "chain"))
        if not isinstance(node, Table):
            return None
        match = node.get("match")
        conditions = {} if match is None else read_match(match, f"{where}.match", self._problems)
        chain = self._chains.of(node.get("chain"), f"{where}.chain")
        if rules is None:
            return None
        self._unique(rules.name, node)
        upstream, model = self._aim(rules.to, node, where)
        if conditions is None:
            return None
        self._reachable(rules.name, node, conditions, may_be_off=upstream is None or upstream.optional)
        if upstream is None:
            return None
        whole = chain + Chain(upstream.chain_names, upstream.middlewares)
        return Route(
            rules.name,
            compile_match(conditions),
            compose(chain.middlewares, upstream.entry if model is None else _asking_for(model, upstream.entry)),
            rules.to,
            upstream,
            model,
            rules.loss or self._defaults.loss,
            float(upstream.timeouts.total if rules.timeout is None else rules.timeout),
            whole.names,
            whole.middlewares,
            conditions,
            may_retry=any(getattr(each, "may_retry", False) for each in whole.middlewares),
            needs_usage=any(getattr(each, "needs_usage", False) for each in whole.middlewares),
            authenticates=any(getattr(each, "authenticates", False) for each in whole.middlewares),
            authenticators=tuple(
                each
                for each in whole.middlewares
                if getattr(each, "authenticates", False) and isinstance(each, Authenticator)
            ),
            line=node.spot.line,
        )

    def _unique(self, name: str, node: Table) -> None:
        spot = node.entries["name"].value.spot
        if name in self._names:
            self._problems.add(
                "E016",
                spot,
                f'there is a route "{name}" on line {self._names[name]} already',
                "logs tell routes by name",
            )
        self._names.setdefault(name, spot.line)

    def _aim(self, to: str, node: Table, where: str) -> tuple[Upstream | None, str | None]:
        name, slash, model = to.partition("/")
        spot = node.entries["to"].value.spot
        if name not in self._known:
            hint = nearest(name, self._known) or "define it in upstreams"
            self._problems.add("E033", spot, f'{where}.to: there is no upstream "{name}"', hint)
        elif slash and not model:
            self._problems.add("E011", spot, f"{where}.to: no model after the slash", f"write {name}, or {name}/MODEL")
        self.used.add(name)
        return self._upstreams.get(name), model or None

    def _reachable(self, name: str, node: Table, conditions: Mapping[str, Condition], *, may_be_off: bool) -> None:
        for earlier, spot, wide in self._earlier:
            if _covers(wide, conditions):
                self._problems.add(
                    "E045",
                    node.spot,
                    f'the route "{name}" is never reached: "{earlier}" on line {spot.line} takes everything it matches',
                    "move it up, or remove it",
                )
                break
        # a route whose upstream may be off lets requests through to later ones
        if not may_be_off:
            self._earlier.append((name, node.spot, conditions))


def _covers(wide: Mapping[str, Condition], narrow: Mapping[str, Condition]) -> bool:
    for fact, condition in wide.items():
        if fact in _ALWAYS and isinstance(condition, Text) and condition.glob.is_universal:
            continue
        if fact not in narrow or not covers(condition, narrow[fact]):
            return False
    return True


def _asking_for(model: str, entry: Next) -> Next:
    def serve(call: Call) -> Awaitable[Reply]:
        return entry(call if call.model == model else call.replace(model=model))

    return serve


def served_models(routes: Sequence[Route]) -> list[ServedModel]:
    """Return the names that a route says outright: in its match, after its ``to:``, or among its upstream's ``models``.

    A name that the route's own match refuses, or that an earlier route takes by model alone, is left out.
    """
    found: list[ServedModel] = []
    taken: list[Route] = []
    for route in routes:
        if route.off is not None:
            continue
        condition = route.conditions.get("model")
        names = list(literals(condition)) if condition is not None else []
        names += route.upstream.models if route.model is None else [route.model]
        for name in dict.fromkeys(names):
            if name and _accepts(route, name) and not any(_accepts(earlier, name) for earlier in taken):
                found.append(ServedModel(name, route))
        if set(route.conditions) <= {"model"}:
            taken.append(route)
    return found


def _accepts(route: Route, model: str) -> bool:
    condition = route.conditions.get("model")
    return condition is None or compile_condition(condition)(model)


def note_unused(problems: Problems, kind: str, spots: Mapping[str, Spot], used: set[str]) -> None:
    """Note the names that nothing refers to."""
    for name, spot in spots.items():
        if name not in used:
            problems.add("W101", spot, f"the {kind} {name} is defined and never used", "use it, or remove it")
