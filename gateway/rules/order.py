"""The order of a chain: what stands too far out sees what another middleware was to hide, or does not know yet who calls.

These are warnings: a cache in memory may well hold what must not leave the house.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..chain import Middleware
from .fail_open import inner_of
from .problems import Problems, Spot


def note_order(
    problems: Problems, names: Sequence[str], middlewares: Sequence[Middleware], spots: Mapping[int, Spot]
) -> None:
    """Note what stands in the wrong place of a whole chain, from the route's first to the upstream's last.

    ``spots`` says where each middleware is written, by its identity.
    """
    inners = [inner_of(each) for each in middlewares]
    hides = [getattr(inner, "hides_content", False) for inner in inners]
    admits = [getattr(inner, "authenticates", False) for inner in inners]
    for at, inner in enumerate(inners):
        spot = spots.get(id(inner))
        if spot is None:
            continue
        name = names[at]
        if getattr(inner, "keeps_content", False) and True in hides[at:] and True not in hides[:at]:
            other = names[hides.index(True)]
            said = f"{name} stands in front of {other}, and keeps the values that {other} hides from the provider"
            problems.add("W106", spot, said, f"put {name} behind {other}")
        if getattr(inner, "asks_who_calls", False) and True in admits[at:] and True not in admits[:at]:
            other = names[admits.index(True)]
            said = f"{name} stands in front of {other}, and does not know yet who calls"
            problems.add("W106", spot, said, f"put {name} behind {other}")
