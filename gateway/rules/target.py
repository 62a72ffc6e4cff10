"""Targets: which upstream a request goes to, and where it goes when that fails. What is decided; ``serving`` does it.

``attempts`` says it as a generator: it yields what to do next and is sent how that ended. Live calls, in-file tests and
``explain`` all walk it, so that they cannot disagree.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from ..call import Call
from ..doors import APART
from ..errors import ErrorKind
from ..facts import WireFacts
from ..relay.reply import Reply
from ..targets.allowance import Allowance
from ..targets.shadow import Shadows
from .condition import Condition
from .match import Matcher
from .upstream import Upstream

Draw: TypeAlias = Callable[["Split", WireFacts], "Share"]
"""Picks a branch of a split for a request."""
LOSS: Final = "loss"
"""How a try ends that was not made: the request would lose something there, and its route refuses that."""
Ending: TypeAlias = ErrorKind | Literal["loss"] | None
"""How a try ended; None: no case of what was tried applies to the request."""


class Leaf(Struct, frozen=True, eq=False):
    """An upstream, and the model it is asked for in place of the caller's, or None. ``spelled`` is what the file says."""

    spelled: str
    upstream: Upstream
    model: str | None = None

    @property
    def off(self) -> str | None:
        """Why it cannot be used, or None."""
        return self.upstream.off

    @property
    def optional(self) -> bool:
        """Whether it may be off another time."""
        return self.upstream.optional

    @property
    def upstream_name(self) -> str:
        """The upstream's name."""
        return self.upstream.name

    def leaves(self) -> Iterator[Leaf]:
        """Yield itself."""
        yield self

    def shaded(self) -> Iterator[Leaf]:
        """Yield nothing: no copies are made here."""
        return iter(())

    def targets(self) -> Iterator[Target]:
        """Yield nothing."""
        return iter(())

    @property
    def waits(self) -> bool:
        """Whether anything may still be tried elsewhere."""
        return False

    def serve(self, call: Call) -> Awaitable[Reply]:
        """Send the call to the upstream, under the model's name there."""
        model, upstream = self.model, self.upstream
        if model is not None and call.model != model:
            call = call.replace(model=model)
        return upstream.entry(call)


class Share(Struct, frozen=True, eq=False):
    """A branch of a split with its weight."""

    aim: Aim
    weight: float


class Split(Struct, frozen=True, eq=False):
    """Branches that share the requests by weight. ``sticky`` reads the fact whose value binds a request to a branch.
    ``place`` is its case."""

    shares: tuple[Share, ...]
    fact: str | None = None
    sticky: Callable[[WireFacts], Any] | None = None
    place: str = ""

    def bound(self, facts: WireFacts) -> Share | None:
        """Return the branch that a request is bound to; None when nothing is sticky, or the request lacks the fact."""
        value = None if self.sticky is None else self.sticky(facts)
        if value is None or value == "":
            return None
        return max(self.shares, key=lambda share: _attraction(share, str(value)))


def _attraction(share: Share, value: str) -> float:
    """Return how strongly a value is drawn to a branch (weighted rendezvous hashing).

    When weights change, or a branch goes off, only as many requests move as must.
    """
    digest = blake2b(f"{share.aim.spelled}\0{value}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return -share.weight / math.log((int.from_bytes(digest, "big") + 1) / (2**64 + 2))


class Case(Struct, frozen=True, eq=False):
    """One case of a target: ``place`` is where it stands, ``conditions`` and ``when`` what ``matches`` was compiled from."""

    place: str
    matches: Matcher
    goes: Aim | Split
    conditions: Mapping[str, Condition] = {}
    when: str | None = None

    @property
    def aims(self) -> tuple[Aim, ...]:
        """Where it may lead."""
        return tuple(share.aim for share in self.goes.shares) if isinstance(self.goes, Split) else (self.goes,)


class Fallback(Struct, frozen=True, eq=False):
    """Where to go after an error of one of ``kinds``."""

    place: str
    kinds: frozenset[ErrorKind]
    aim: Aim


class Hedge(Struct, frozen=True, eq=False):
    """A second call beside one that has no content after ``after_s``, where ``allowance`` lets it."""

    place: str
    aim: Aim
    after_s: float
    allowance: Allowance


class Shadow(Struct, frozen=True, eq=False):
    """Copies of the ``share`` of the calls, which ``shadows`` makes."""

    place: str
    aim: Aim
    share: float
    shadows: Shadows


class Target(Struct, frozen=True, eq=False):
    """A named choice between upstreams. ``cases``, ``fallbacks``, ``hedge`` and ``shadow`` are those that are on; ``dormant``
    the cases that lead only to upstreams that are off. ``select``, ``on_failure`` and ``beside`` are all as the file has them,
    for pictures."""

    spelled: str
    cases: tuple[Case, ...]
    fallbacks: tuple[Fallback, ...] = ()
    dormant: tuple[Case, ...] = ()
    select: tuple[Case, ...] = ()
    on_failure: tuple[Fallback, ...] = ()
    hedge: Hedge | None = None
    shadow: Shadow | None = None
    beside: tuple[Hedge | Shadow, ...] = ()
    model: None = None
    upstream_name: str = ""

    @property
    def off(self) -> str | None:
        """Why it cannot be used, or None."""
        if self.cases:
            return None
        reasons = dict.fromkeys(aim.off for case in self.dormant for aim in case.aims if aim.off is not None)
        return ", ".join(reasons) or "no case is on"

    @property
    def optional(self) -> bool:
        """Whether it may be off another time."""
        return all(aim.optional for case in (*self.cases, *self.dormant) for aim in case.aims)

    def inner(self) -> Iterator[Aim]:
        """Yield what answers may come from: the aims of cases, of the hedge and of fallbacks."""
        for case in self.cases:
            yield from case.aims
        if self.hedge is not None:
            yield self.hedge.aim
        for fallback in self.fallbacks:
            yield fallback.aim

    def leaves(self) -> Iterator[Leaf]:
        """Yield every upstream whose answer a caller may get, as often as it may."""
        for aim in self.inner():
            yield from aim.leaves()

    def shaded(self) -> Iterator[Leaf]:
        """Yield every upstream that copies may go to."""
        if self.shadow is not None:
            yield from self.shadow.aim.leaves()
            yield from self.shadow.aim.shaded()
        for aim in self.inner():
            yield from aim.shaded()

    def targets(self) -> Iterator[Target]:
        """Yield itself and every target that calls may pass."""
        yield self
        for aim in (*self.inner(), *(() if self.shadow is None else (self.shadow.aim,))):
            yield from aim.targets()

    @property
    def waits(self) -> bool:
        """Whether anything may still be tried elsewhere until an answer has content."""
        return bool(self.fallbacks) or self.hedge is not None or any(aim.waits for aim in self.inner())


Aim: TypeAlias = Leaf | Target


class Doubled(Struct, frozen=True, eq=False):
    """A step: walk ``first``; if that is late, walk beside it what ``second`` returns, which tells its branches to a list."""

    hedge: Hedge
    first: Walk
    second: Callable[[list[str]], Walk]


class Copied(Struct, frozen=True, eq=False):
    """A step: maybe make a copy, which is served by walking what ``walk`` returns, and go on at once."""

    shadow: Shadow
    walk: Callable[[list[str]], Walk]


Step: TypeAlias = Leaf | Doubled | Copied
Walk: TypeAlias = Generator[Step, Ending, Ending]
"""Yields steps; is sent how each ended; returns how the last ended."""


def attempts(aim: Aim, facts: WireFacts, draw: Draw, chosen: list[str]) -> Walk:
    """Yield what to try; send how each step ended: the kind of its error, LOSS, or None where no case of it applied.

    Ends when nothing is left to try. An upstream at which the request would lose what its route refuses to lose counts as one
    that is not there: another branch of the split is taken, another case that applies, and where none is left the first
    entry of ``on_failure``, whatever its kinds. ``chosen`` is told each branch as it is taken.
    """
    aim = fitting(aim, facts.format, facts.path)
    if isinstance(aim, Leaf):
        return (yield aim)
    for first in aim.cases:
        if first.matches(facts):
            break
    else:
        return None
    if (shadow := aim.shadow) is not None:
        yield Copied(shadow, lambda told: _beside(shadow, facts, draw, told))
    if (hedge := aim.hedge) is not None:
        kind = yield Doubled(
            hedge, _selected(aim, first, facts, draw, chosen), lambda told: _beside(hedge, facts, draw, told)
        )
    else:
        kind = yield from _selected(aim, first, facts, draw, chosen)
    left = list(aim.fallbacks)
    while kind is not None:
        fallback = next((each for each in left if kind == LOSS or kind in each.kinds), None)
        if fallback is None:
            break
        left.remove(fallback)
        chosen.append(f"{fallback.place} {fallback.aim.spelled} after {kind}")
        ended = yield from attempts(fallback.aim, facts, draw, chosen)
        if ended is not None and ended != LOSS:
            kind = ended
    return kind


def _selected(target: Target, first: Case, facts: WireFacts, draw: Draw, chosen: list[str]) -> Walk:
    """Yield what ``first`` says, the first case that applies; the others only where that would lose something."""
    kind: Ending = None
    for case in target.cases[target.cases.index(first) :]:
        if case is not first and not case.matches(facts):
            continue
        goes = case.goes
        while True:
            taken = draw(goes, facts) if isinstance(goes, Split) else goes
            aim = taken.aim if isinstance(taken, Share) else taken
            chosen.append(f"{case.place} {aim.spelled}")
            ended = yield from attempts(aim, facts, draw, chosen)
            if ended != LOSS:
                return kind if ended is None else ended
            kind = LOSS
            if not isinstance(goes, Split) or len(goes.shares) == 1:
                break
            goes = replace(goes, shares=tuple(each for each in goes.shares if each is not taken))
    return kind


def _beside(beside: Hedge | Shadow, facts: WireFacts, draw: Draw, chosen: list[str]) -> Walk:
    chosen.append(f"{beside.place} {beside.aim.spelled}")
    return (yield from attempts(beside.aim, facts, draw, chosen))


def fitting(aim: Aim, format: str, path: str = "") -> Aim:
    """Return ``aim`` without the upstreams that do not serve ``format``, or not at ``path``; itself where none does, so that
    one may say so.

    Where no case is left, a fallback stands in for them.
    """
    if format not in APART:
        return aim
    return _fitting(aim, format, path) or aim


def _fitting(aim: Aim, format: str, path: str) -> Aim | None:
    if isinstance(aim, Leaf):
        return aim if aim.upstream.serves(format, path) else None
    fallbacks = tuple(
        replace(each, aim=inner) for each in aim.fallbacks if (inner := _fitting(each.aim, format, path)) is not None
    )
    hedge, shadow = aim.hedge, aim.shadow
    if hedge is not None:
        inner = _fitting(hedge.aim, format, path)
        hedge = None if inner is None else replace(hedge, aim=inner)
    if shadow is not None:
        inner = _fitting(shadow.aim, format, path)
        shadow = None if inner is None else replace(shadow, aim=inner)
    cases: list[Case] = []
    for case in aim.cases:
        goes: Aim | Split | None
        if isinstance(case.goes, Split):
            found = ((share, _fitting(share.aim, format, path)) for share in case.goes.shares)
            shares = tuple(replace(share, aim=inner) for share, inner in found if inner is not None)
            goes = replace(case.goes, shares=shares) if shares else None
        else:
            goes = _fitting(case.goes, format, path)
        if goes is not None:
            cases.append(replace(case, goes=goes))
    listed = tuple(each for each in aim.on_failure if each.aim.off is not None)
    if not cases and fallbacks:
        cases, fallbacks = [Case(fallbacks[0].place, lambda facts: True, fallbacks[0].aim)], fallbacks[1:]
    if not cases:
        return None
    beside = tuple(each for each in (hedge, shadow) if each is not None)
    return replace(
        aim,
        cases=tuple(cases),
        fallbacks=fallbacks,
        on_failure=fallbacks + listed,
        hedge=hedge,
        shadow=shadow,
        beside=beside,
    )


def at_random(split: Split, facts: WireFacts) -> Share:
    """Take the branch that the request is bound to, else draw one by weight: what live calls do."""
    bound = split.bound(facts)
    if bound is not None:
        return bound
    return random.choices(split.shares, [share.weight for share in split.shares])[0]  # noqa: S311  # no secrets


def likeliest(split: Split, facts: WireFacts) -> Share:
    """Take the branch that the request is bound to, else the heaviest: what ``explain`` does unless told otherwise."""
    return split.bound(facts) or heaviest(split, facts)


def heaviest(split: Split, facts: WireFacts) -> Share:
    """Take the heaviest branch, the first of several: what tests do unless told otherwise."""
    return max(split.shares, key=lambda share: share.weight)
