"""Everything that ``explain`` says of a request, as data: the verdict, why it is none of the others, and what would be sent.

The verdict is that of ``decide``, which asks what live calls ask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from msgspec import Struct

from ..errors import ErrorKind
from ..facts import WireFacts
from .decide import Verdict, decide, preferring
from .given import Posed
from .plan import Plan
from .preview import Outgoing, outgoing
from .target import Share, Split, Target, likeliest
from .tries import Try, tries
from .why_not import PassedBy, cases_passed_by, routes_passed_by


class Drawn(Struct, frozen=True, eq=False):
    """A split that was come to, and the branch that is shown. ``bound`` says that the request is bound to it.

    ``place`` is its case, such as ``smart.select[0]``.
    """

    place: str
    split: Split
    share: Share
    bound: bool


class Explanation(Struct, frozen=True, eq=False):
    """What would become of a request. ``routes`` and ``cases`` are those passed by, ``tries`` all that may be tried."""

    posed: Posed
    verdict: Verdict
    routes: tuple[PassedBy, ...]
    cases: tuple[PassedBy, ...]
    drawn: tuple[Drawn, ...]
    tries: tuple[Try, ...]
    outgoing: Outgoing


def explain(
    plan: Plan, posed: Posed, branches: Collection[str] = (), failures: Sequence[ErrorKind] = ()
) -> Explanation:
    """Return what ``plan`` does with a request whose tries end with ``failures``.

    Of a split it is the branch named among ``branches``, else the one that the request is bound to, else the heaviest.
    """
    drawn: dict[int, Drawn] = {}
    draw = preferring(branches, likeliest)

    def noted(split: Split, facts: WireFacts) -> Share:
        share = draw(split, facts)
        drawn.setdefault(id(split), Drawn("", split, share, share is split.bound(facts)))
        return share

    verdict = decide(plan, posed.wire, noted, failures)
    places = {} if verdict.route is None else dict(_places(verdict.route.aim))
    return Explanation(
        posed,
        verdict,
        routes_passed_by(plan, posed.wire, verdict),
        cases_passed_by(verdict, posed.wire),
        tuple(Drawn(places[at], each.split, each.share, each.bound) for at, each in drawn.items()),
        () if verdict.route is None else tries(verdict.route.aim, posed.wire, draw),
        outgoing(verdict, posed, failures),
    )


def _places(aim: object) -> Iterator[tuple[int, str]]:
    """Yield the identity and the case of every split below ``aim``."""
    if not isinstance(aim, Target):
        return
    for case in aim.cases:
        if isinstance(case.goes, Split):
            yield id(case.goes), case.place
        for inner in case.aims:
            yield from _places(inner)
    for fallback in aim.fallbacks:
        yield from _places(fallback.aim)
