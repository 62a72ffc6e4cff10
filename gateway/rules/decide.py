"""What is decided about a request, without sending it: for in-file tests, ``explain`` and ``replay``.

Routes and targets are asked by the very code that serves calls; only what live calls draw at random is fixed here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable
from typing import TypeAlias

from msgspec import Struct

from ..errors import ErrorKind
from ..facts import WireFacts
from .plan import Plan, Route
from .target import LOSS, Copied, Doubled, Draw, Ending, Hedge, Leaf, Shadow, Share, Split, Walk, attempts, heaviest

Loses: TypeAlias = Callable[[Route, Leaf], bool]
"""Whether a route refuses a request for what would be lost of it at an upstream."""


class Beside(Struct, frozen=True, eq=False):
    """What stands beside the tries of a target: a second call if the first is late, or copies. ``leaf`` is where that goes
    first, None: no case of it applies."""

    what: Hedge | Shadow
    leaf: Leaf | None


class Verdict(Struct, frozen=True, eq=False):
    """The decision about one request: ``leaf`` is what would be tried after the given failures, if none is late.

    ``route`` None: no route matches. ``leaf`` None: no case applies, or nothing is left to try. ``tried`` are the tries
    that failed before it, ``skipped`` those passed by for what would be lost there, ``chosen`` the branches that targets took.
    ``hedges`` are those under way beside ``leaf``, the outermost first; ``shadows`` all that were come to.
    """

    route: Route | None
    leaf: Leaf | None
    tried: tuple[Leaf, ...] = ()
    chosen: tuple[str, ...] = ()
    skipped: tuple[Leaf, ...] = ()
    hedges: tuple[Beside, ...] = ()
    shadows: tuple[Beside, ...] = ()

    @property
    def chain(self) -> tuple[str, ...]:
        """The middlewares in order, the upstream's last."""
        if self.route is None:
            return ()
        return self.route.chain_names if self.leaf is None else self.route.chains[self.leaf.upstream.name]

    def model(self, asked: str) -> str:
        """Return what the upstream is asked for when the caller ``asked``."""
        return asked if self.leaf is None or self.leaf.model is None else self.leaf.model


def decide(
    plan: Plan,
    facts: WireFacts,
    draw: Draw = heaviest,
    failures: Iterable[ErrorKind] = (),
    loses: Loses | None = None,
) -> Verdict:
    """Return what ``plan`` decides about a request whose tries end with ``failures``, one after the other.

    ``facts.principal`` is who calls, as auth would say. Nothing of the chain runs. ``loses`` is asked where the route refuses
    losses and a target may go elsewhere; None: nobody knows what would be lost.
    """
    route = plan.match(facts)
    if route is None:
        return Verdict(None, None)
    asked = route.loss == "refuse" and loses is not None and not isinstance(route.aim, Leaf)

    def passed_by(leaf: Leaf) -> bool:
        return asked and loses is not None and loses(route, leaf)

    chosen: list[str] = []
    tried: list[Leaf] = []
    order = _Order(passed_by)
    steps = order.leaves(attempts(route.aim, facts, draw, chosen))
    leaf = next(steps, None)
    for kind in failures:
        if leaf is None:
            break
        tried.append(leaf)
        try:
            leaf = steps.send(kind)
        except StopIteration:
            leaf = None
    hedges = order.hedges if leaf is not None else []
    return Verdict(
        route,
        leaf,
        tuple(tried),
        tuple(chosen),
        tuple(order.skipped),
        tuple(Beside(each.hedge, order.first(each.second([]))) for each in hedges),
        tuple(Beside(each.shadow, order.first(each.walk([]))) for each in order.shadows),
    )


class _Order:
    """Steps one after the other, as if no call were late. ``hedges`` are those that are under way."""

    def __init__(self, passed_by: Callable[[Leaf], bool]) -> None:
        self.hedges: list[Doubled] = []
        self.shadows: list[Copied] = []
        self.skipped: list[Leaf] = []
        self._passed_by = passed_by

    def leaves(self, steps: Walk) -> Generator[Leaf, Ending, Ending]:
        """Yield the upstreams to try; send how each try ended; return how the last did."""
        ended: Ending = None
        try:
            while True:
                step = steps.send(ended)
                ended = None
                if isinstance(step, Copied):
                    self.shadows.append(step)
                elif isinstance(step, Doubled):
                    self.hedges.append(step)
                    ended = yield from self.leaves(step.first)
                    self.hedges.remove(step)
                elif self._passed_by(step):
                    self.skipped.append(step)
                    ended = LOSS
                else:
                    ended = yield step
        except StopIteration as stop:
            over: Ending = stop.value
            return over

    def first(self, steps: Walk) -> Leaf | None:
        """Return where a walk begins."""
        return next(_Order(self._passed_by).leaves(steps), None)


def preferring(branches: Collection[str], otherwise: Draw = heaviest) -> Draw:
    """Return a draw that takes a branch whose ``use`` is among ``branches``."""

    def draw(split: Split, facts: WireFacts) -> Share:
        for share in split.shares:
            if share.aim.spelled in branches:
                return share
        return otherwise(split, facts)

    return draw
