"""Targets: which upstream a request goes to, and where it goes when that fails.

``attempts`` says it as a generator: it yields an upstream to try and is sent the kind of error that came. Live calls, in-file
tests and ``explain`` all walk it, so that they cannot disagree.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from ..call import Call
from ..doors import APART
from ..errors import ErrorKind, GatewayError, NotFound
from ..facts import WireFacts
from ..relay.reply import Reply
from .condition import Condition
from .match import Matcher
from .upstream import Upstream

Draw: TypeAlias = Callable[["Split", WireFacts], "Share"]
"""Picks a branch of a split for a request."""


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
    """Branches that share the requests by weight. ``sticky`` reads the fact whose value binds a request to a branch."""

    shares: tuple[Share, ...]
    fact: str | None = None
    sticky: Callable[[WireFacts], Any] | None = None

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


class Target(Struct, frozen=True, eq=False):
    """A named choice between upstreams. ``cases`` and ``fallbacks`` are those that are on; ``dormant`` the cases that
    lead only to upstreams that are off. ``select`` and ``on_failure`` are all as the file has them, for pictures."""

    spelled: str
    cases: tuple[Case, ...]
    fallbacks: tuple[Fallback, ...] = ()
    dormant: tuple[Case, ...] = ()
    select: tuple[Case, ...] = ()
    on_failure: tuple[Fallback, ...] = ()
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

    def leaves(self) -> Iterator[Leaf]:
        """Yield every upstream it may lead to, as often as it does."""
        for case in self.cases:
            for aim in case.aims:
                yield from aim.leaves()
        for fallback in self.fallbacks:
            yield from fallback.aim.leaves()

    async def serve(self, call: Call, chains: Mapping[str, tuple[str, ...]]) -> Reply:
        """Send the call where the cases say; while nothing reached the caller, go on as ``on_failure`` says.

        ``chains`` are the names of all middlewares around a try, by the upstream's name: the record says those of the last.
        """
        facts = call.wire
        assert facts is not None, "a call without its wire facts cannot be aimed"
        facts.principal = call.principal
        decision, has_fallbacks = call.decision, bool(self.fallbacks) or any(self._inner_fallbacks())
        steps = attempts(self, facts, at_random, decision.chosen)
        leaf = await _asked(facts, partial(next, steps, None))
        if leaf is None:
            raise NotFound(f"no case of the target {self.spelled} applies to this request", param="model")
        while True:
            decision.upstream, decision.model = leaf.upstream.name, leaf.model or call.model
            decision.chain = chains[leaf.upstream.name]
            if leaf.upstream.needs_usage and not call.wants_usage:
                call = call.replace(wants_usage=True)
            try:
                reply = await leaf.serve(call)
                return await reply.opened() if has_fallbacks else reply
            except GatewayError as error:
                tries = decision.attempts
                if tries and tries[-1].error is None:
                    tries[-1].error = error.kind  # it failed inside its stream
                if call.is_final or (call.deadline is not None and call.scope.loop.time() >= call.deadline):
                    raise
                leaf = await _asked(facts, partial(_send, steps, error.kind))
                if leaf is None:
                    raise
                call = call.replace(cause="fallback")
                call.ledger.request.clear()  # what the first upstream's format could not say, the next one's may

    def _inner_fallbacks(self) -> Iterator[bool]:
        for case in self.cases:
            for aim in case.aims:
                if isinstance(aim, Target):
                    yield bool(aim.fallbacks) or any(aim._inner_fallbacks())


Aim: TypeAlias = Leaf | Target


def attempts(aim: Aim, facts: WireFacts, draw: Draw, chosen: list[str]) -> Generator[Leaf, ErrorKind, ErrorKind | None]:
    """Yield the upstreams to try; send the kind of error that each attempt ended with.

    Ends when nothing is left to try, with the kind of the last error; without having yielded when no case applies.
    ``chosen`` is told each branch as it is taken.
    """
    aim = fitting(aim, facts.format, facts.path)
    if isinstance(aim, Leaf):
        return (yield aim)
    case = next((case for case in aim.cases if case.matches(facts)), None)
    if case is None:
        return None
    inner = draw(case.goes, facts).aim if isinstance(case.goes, Split) else case.goes
    chosen.append(f"{case.place} {inner.spelled}")
    kind = yield from attempts(inner, facts, draw, chosen)
    left = list(aim.fallbacks)
    while kind is not None:
        fallback = next((each for each in left if kind in each.kinds), None)
        if fallback is None:
            break
        left.remove(fallback)
        chosen.append(f"{fallback.place} {fallback.aim.spelled} after {kind}")
        kind = (yield from attempts(fallback.aim, facts, draw, chosen)) or kind
    return kind


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
    return replace(aim, cases=tuple(cases), fallbacks=fallbacks, on_failure=fallbacks + listed) if cases else None


async def _asked(facts: WireFacts, step: Callable[[], Leaf | None]) -> Leaf | None:
    """Take a step, off the event loop where the cases may have a long request counted."""
    return await asyncio.to_thread(step) if facts.slow else step()


def _send(steps: Generator[Leaf, ErrorKind, ErrorKind | None], kind: ErrorKind) -> Leaf | None:
    try:
        return steps.send(kind)
    except StopIteration:
        return None


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
