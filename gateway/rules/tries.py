"""The tries that a request may come to: the first, and where each kind of error leads.

A listing for people. What is tried after which errors is decided by ``target.attempts``; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from ..errors import ErrorKind
from ..facts import WireFacts
from .target import Aim, Draw, Leaf, Split, Target, fitting


class Try(Struct, frozen=True, eq=False):
    """An upstream that may be tried. ``place`` is what leads there, such as ``smart.on_failure[0]``, if a target does.

    ``kinds`` are the errors after which it is tried; None: it is tried first. ``after`` is the target within which the error
    must have come. ``leaf`` None: a fallback of which no case applies to the request, or which is ``off``, and then why.
    """

    leaf: Leaf | None
    place: str = ""
    kinds: frozenset[ErrorKind] | None = None
    after: str = ""
    off: str | None = None


def tries(aim: Aim, facts: WireFacts, draw: Draw) -> tuple[Try, ...]:
    """Return what may be tried, the first try first, then as the entries of ``on_failure`` stand, inner targets' first."""
    return tuple(_tries(aim, facts, draw, Try(None)))


def _tries(aim: Aim, facts: WireFacts, draw: Draw, come: Try) -> Iterator[Try]:
    """Yield the tries below ``aim``; ``come`` says how it was reached."""
    aim = fitting(aim, facts.format, facts.path)
    if isinstance(aim, Leaf):
        yield Try(aim, come.place, come.kinds, come.after)
        return
    case = next((case for case in aim.cases if case.matches(facts)), None)
    if case is None:
        yield Try(None, come.place or aim.spelled, come.kinds, come.after)
        return
    inner = draw(case.goes, facts).aim if isinstance(case.goes, Split) else case.goes
    yield from _tries(inner, facts, draw, Try(None, come.place or case.place, come.kinds, come.after))
    yield from _fallbacks(aim, facts, draw)


def _fallbacks(target: Target, facts: WireFacts, draw: Draw) -> Iterator[Try]:
    for entry in target.on_failure:
        if entry.aim.off is not None:
            yield Try(None, entry.place, entry.kinds, target.spelled, f"{entry.aim.spelled} is off: {entry.aim.off}")
            continue
        yield from _tries(entry.aim, facts, draw, Try(None, entry.place, entry.kinds, target.spelled))
