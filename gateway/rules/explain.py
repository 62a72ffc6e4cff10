"""Everything that ``explain`` says of a request, as data: the verdict, why it is none of the others, and what would be sent.

The verdict is that of ``decide``, which asks what live calls ask.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from ..errors import ErrorKind
from ..facts import WireFacts
from .decide import Verdict, decide, preferring
from .given import Posed
from .plan import Plan
from .preview import Outgoing, lost_at, outgoing
from .target import Share, Split, likeliest
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
    drawn: dict[str, Drawn] = {}
    draw = preferring(branches, likeliest)

    def noted(split: Split, facts: WireFacts) -> Share:
        share = draw(split, facts)
        # drawn once more where the first branch would lose something
        first = drawn[split.place].split if split.place in drawn else split
        drawn[split.place] = Drawn(split.place, first, share, share is split.bound(facts))
        return share

    verdict = decide(plan, posed.wire, noted, failures, lost_at(posed))
    return Explanation(
        posed,
        verdict,
        routes_passed_by(plan, posed.wire, verdict),
        cases_passed_by(verdict, posed.wire),
        tuple(drawn.values()),
        () if verdict.route is None else tries(verdict.route.aim, posed.wire, draw),
        outgoing(verdict, posed, failures),
    )
