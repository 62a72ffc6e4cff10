"""What completes the text of a part: after it comes no more that could belong to what was held back of it."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.event import ChoiceStop, Event, PartDelta, PartPatch, PartStop


def ends_part(event: PartStop | PartPatch) -> bool:
    """Whether nothing of the part's text follows: its stop, and its signature; other facts come between words."""
    return isinstance(event, PartStop) or event.signature is not None


def ended_by(event: Event, held: Mapping[int, PartDelta]) -> list[PartDelta]:
    """Return what is complete now that a choice has stopped, or the answer: other choices go on after a ChoiceStop."""
    if isinstance(event, ChoiceStop):
        return [each for each in held.values() if each.choice == event.choice]
    return list(held.values())
