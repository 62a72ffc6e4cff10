"""What is decided about a request, without sending it: for in-file tests, ``explain`` and ``replay``.

Routes and targets are asked by the very code that serves calls; only what live calls draw at random is fixed here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct

from ..errors import ErrorKind
from ..facts import WireFacts
from .plan import Plan, Route
from .target import Draw, Leaf, Share, Split, attempts, heaviest


class Verdict(Struct, frozen=True, eq=False):
    """The decision about one request: ``leaf`` is what would be tried after the given failures.

    ``route`` None: no route matches. ``leaf`` None: no case applies, or nothing is left to try. ``tried`` are the tries
    that failed before it, ``chosen`` the branches that targets took.
    """

    route: Route | None
    leaf: Leaf | None
    tried: tuple[Leaf, ...] = ()
    chosen: tuple[str, ...] = ()

    @property
    def chain(self) -> tuple[str, ...]:
        """The middlewares in order, the upstream's last."""
        if self.route is None:
            return ()
        return self.route.chain_names if self.leaf is None else self.route.chains[self.leaf.upstream.name]

    def model(self, asked: str) -> str:
        """Return what the upstream is asked for when the caller ``asked``."""
        return asked if self.leaf is None or self.leaf.model is None else self.leaf.model


def decide(plan: Plan, facts: WireFacts, draw: Draw = heaviest, failures: Iterable[ErrorKind] = ()) -> Verdict:
    """Return what ``plan`` decides about a request whose tries end with ``failures``, one after the other.

    ``facts.principal`` is who calls, as auth would say. Nothing of the chain runs.
    """
    route = plan.match(facts)
    if route is None:
        return Verdict(None, None)
    chosen: list[str] = []
    tried: list[Leaf] = []
    steps = attempts(route.aim, facts, draw, chosen)
    leaf = next(steps, None)
    for kind in failures:
        if leaf is None:
            break
        tried.append(leaf)
        try:
            leaf = steps.send(kind)
        except StopIteration:
            leaf = None
    return Verdict(route, leaf, tuple(tried), tuple(chosen))


def preferring(branches: Collection[str], otherwise: Draw = heaviest) -> Draw:
    """Return a draw that takes a branch whose ``use`` is among ``branches``."""

    def draw(split: Split, facts: WireFacts) -> Share:
        for share in split.shares:
            if share.aim.spelled in branches:
                return share
        return otherwise(split, facts)

    return draw
