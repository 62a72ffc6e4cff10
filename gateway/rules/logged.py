"""What the access log says of a call, as facts that rules can be asked about again, and the decision that it tells of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from msgspec import Struct

from ..codecs.base import Peek, RequestFacts
from ..errors import ErrorKind
from ..facts import Principal, WireFacts
from .decide import Verdict, decide
from .plan import Plan
from .target import Draw, Share, Split, likeliest


class Unsaid(Exception):
    """A rule asks for a fact that the log does not hold; the text is the fact's name."""


class LoggedAttempt(Struct, frozen=True):
    """One try, as the log has it."""

    upstream: str
    model: str
    error: ErrorKind | None = None
    cause: str = ""


class LoggedCall(Struct, frozen=True):
    """The members of a log line that a decision can be told by. ``tokens`` None: the line does not say; ``exact_tokens``
    None: nobody had counted them."""

    request_id: str
    path: str
    format: str
    model: str
    route: str
    upstream: str
    key: str
    stream: bool
    tokens: int | None = None
    exact_tokens: int | None = None
    chain: tuple[str, ...] = ()
    team: str | None = None
    tenant: str = ""
    tags: tuple[str, ...] = ()
    attempts: tuple[LoggedAttempt, ...] = ()

    def tries(self) -> list[LoggedAttempt]:
        """Return the tries, the last attempt of each: a middleware may have sent one several times.

        Second calls beside late ones are none of them: when a call is late is nothing that rules decide."""
        found: list[LoggedAttempt] = []
        for each in self.attempts:
            if each.cause == "hedge":
                continue
            if found and (found[-1].upstream, found[-1].model) == (each.upstream, each.model):
                found.pop()
            found.append(each)
        return found


class Decided(Struct, frozen=True):
    """What was decided: the tries in order, as upstream and model. What is None is not known, or there is none."""

    route: str | None
    upstream: tuple[str, ...] | None
    model: tuple[str, ...] | None
    chain: tuple[str, ...] | None


class _Unsaid(Mapping[str, Any]):
    """Headers, query or metadata that nobody wrote down."""

    def __init__(self, group: str) -> None:
        self._group = group

    def __getitem__(self, key: str) -> NoReturn:
        raise Unsaid(f"{self._group}.{key}")

    def get(self, key: str, default: object = None) -> NoReturn:
        raise Unsaid(f"{self._group}.{key}")

    def __iter__(self) -> Iterator[str]:
        raise Unsaid(self._group)

    def __len__(self) -> int:
        raise Unsaid(self._group)


class _LoggedFacts(WireFacts):
    """The facts of a logged call. Raises Unsaid for those that its line does not hold."""

    __slots__ = ("_tokens", "_unsaid")

    def __init__(self, line: LoggedCall, exact: bool) -> None:
        self._tokens: int | None = None
        around = RequestFacts(line.path, _Unsaid("query"), _Unsaid("header"))
        super().__init__(line.format, Peek(model=line.model, stream=line.stream), around, b"")
        self._tokens = line.exact_tokens if exact else line.tokens
        self._unsaid = "request.tokens, counted exactly" if exact else "request.tokens"
        self._metadata = _Unsaid("metadata")
        self.principal = Principal(line.key, line.team, line.tenant, line.tags)

    @property
    def tokens(self) -> int:
        """The size of the request."""
        if self._tokens is None:
            raise Unsaid(self._unsaid)
        return self._tokens

    @tokens.setter
    def tokens(self, value: int) -> None:
        self._tokens = value

    @property
    def tools(self) -> bool:
        """Not in the log."""
        raise Unsaid("request.tools")

    @property
    def has_image(self) -> bool:
        """Not in the log."""
        raise Unsaid("request.has_image")


def logged_decision(line: LoggedCall) -> Decided:
    """Return the decision that a line tells of. A call refused before a target chose has neither upstream nor model."""
    tries = line.tries()
    if not tries:
        return Decided(line.route, (line.upstream,) if line.upstream else None, None, line.chain)
    chain = None if line.attempts[-1].cause == "hedge" else line.chain  # else it is that of the second call
    return Decided(line.route, tuple(each.upstream for each in tries), tuple(each.model for each in tries), chain)


def decide_again(plan: Plan, line: LoggedCall) -> Decided:
    """Return what ``plan`` decides about a logged call, given the luck it had: the same draws, the same errors.

    Raises Unsaid.
    """
    tries = line.tries()
    failures = [each.error for each in tries[:-1] if each.error is not None]
    verdict = decide(plan, _LoggedFacts(line, plan.exact_tokens), _lucky(tries), failures)
    decided = decided_by(verdict, line.model)
    if verdict.route is not None and not line.upstream:
        return Decided(decided.route, None, None, verdict.route.chain_names)
    return decided if tries else Decided(decided.route, decided.upstream, None, decided.chain)


def decided_by(verdict: Verdict, asked: str) -> Decided:
    """Return the verdict about a request for the model ``asked``."""
    if verdict.route is None:
        return Decided(None, None, None, None)
    leaves = [*verdict.tried, *(() if verdict.leaf is None else (verdict.leaf,))]
    return Decided(
        verdict.route.name,
        tuple(leaf.upstream.name for leaf in leaves),
        tuple(asked if leaf.model is None else leaf.model for leaf in leaves),
        verdict.chain,
    )


def _lucky(tries: list[LoggedAttempt]) -> Draw:
    """Return a draw that takes the branch that was taken, where there still is one."""
    seen = {(each.upstream, each.model) for each in tries}
    names = {each.upstream for each in tries}

    def draw(split: Split, facts: WireFacts) -> Share:
        bound = split.bound(facts)
        if bound is not None:
            return bound
        for share in split.shares:
            if any((leaf.upstream.name, leaf.model or facts.model) in seen for leaf in share.aim.leaves()):
                return share
        for share in split.shares:
            if any(leaf.upstream.name in names for leaf in share.aim.leaves()):
                return share
        return likeliest(split, facts)

    return draw
