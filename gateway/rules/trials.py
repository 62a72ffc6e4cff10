"""The in-file tests: requests, and what the rules must decide about them.

They do not depend on where they run: every upstream counts as on, but for those that a test takes as off, and of a split the
heaviest branch is taken, but for those that a test names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from msgspec import UNSET, Struct, structs

from ..codecs.base import UpstreamFacts
from ..errors import DecodeError, GatewayError
from ..registry import UnknownName
from .decide import Beside, Verdict, decide, preferring
from .document import Entry, Node, Table
from .given import Posed, pose
from .include import numbered
from .plan import Plan
from .preview import lost_at
from .problems import Problems, Spot, nearest
from .read import Reader
from .schema import TrialRules

Rehearse: TypeAlias = Callable[[frozenset[str]], Plan | None]
"""Returns the plan with the named upstreams off and all others on."""

_NONE: Final = "none"


class Difference(Struct, frozen=True):
    """What a test expected of ``key``, and what it got. ``line`` and ``column`` are where it says so."""

    key: str
    expected: object
    got: object
    spot: Spot


class Trial(Struct, frozen=True, eq=False):
    """One in-file test and how it went; ``fault`` is why it could not be tried."""

    name: str
    spot: Spot
    verdict: Verdict | None
    differences: tuple[Difference, ...] = ()
    fault: str | None = None

    @property
    def passed(self) -> bool:
        """Whether everything came out as expected."""
        return self.fault is None and not self.differences


def read_trials(reader: Reader, nodes: tuple[Node, ...]) -> list[tuple[TrialRules, Table]]:
    """Return the tests of a file; what is wrong in them is noted."""
    found: list[tuple[TrialRules, Table]] = []
    names: dict[str, Spot] = {}
    for where, node in numbered(nodes, "tests"):
        rules = reader.struct(node, TrialRules, where)
        if rules is None or not isinstance(node, Table):
            continue
        spot = node.entries["name"].value.spot
        if rules.name in names:
            said = f'there is a test "{rules.name}" {names[rules.name].seen_from(spot)} already'
            reader.problems.add("E016", spot, said, "reports tell tests by name")
        names.setdefault(rules.name, spot)
        if not structs.asdict(rules.expect) or all(value is UNSET for value in structs.asdict(rules.expect).values()):
            reader.problems.add("E010", _spot(node, "expect"), f"{where}.expect expects nothing", "such as route: NAME")
        found.append((rules, node))
    return found


def run_trials(trials: list[tuple[TrialRules, Table]], plan: Plan, rehearse: Rehearse) -> Iterator[Trial]:
    """Run the tests of ``plan``, which serves where nothing has to be on or off for a test."""
    rehearsed: dict[frozenset[str], Plan | None] = {}
    if not any(upstream.optional for upstream in plan.upstreams.values()):
        rehearsed[frozenset()] = plan
    for rules, node in trials:
        off = frozenset(rules.given.down)
        unknown = sorted(off - plan.upstreams.keys())
        if unknown:
            hint = nearest(unknown[0], plan.upstreams)
            fault = f'given.down: there is no upstream "{unknown[0]}"' + (f" ({hint})" if hint else "")
            yield Trial(rules.name, _spot(node, "given", "down"), None, fault=fault)
            continue
        if off not in rehearsed:
            rehearsed[off] = rehearse(off)
        staged = rehearsed[off]
        yield _run(rules, node, plan if staged is None else staged)


def note_failures(trials: tuple[Trial, ...], problems: Problems) -> None:
    """Note every test that did not pass, at the expectation that does not hold."""
    for trial in trials:
        if trial.fault is not None:
            problems.add("E060", trial.spot, f'the test "{trial.name}" cannot be run: {trial.fault}')
        for each in trial.differences:
            said = f'the test "{trial.name}" expects {each.key} {show(each.expected)}, but it is {show(each.got)}'
            problems.add("E060", each.spot, said, "headgate test shows the whole decision")


def show(value: object) -> str:
    """Return a value as a report says it."""
    if value is None:
        return _NONE
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value)


def _run(rules: TrialRules, node: Table, plan: Plan) -> Trial:
    spot = node.entries["name"].value.spot
    try:
        posed = pose(rules.given, plan)
    except (UnknownName, DecodeError) as fault:
        return Trial(rules.name, _spot(node, "given"), None, fault=f"given: {fault}")
    given = rules.given
    branches = (given.branch,) if isinstance(given.branch, str) else given.branch
    verdict = decide(plan, posed.wire, preferring(branches), given.failures, lost_at(posed))
    differences = []
    for key, expected in structs.asdict(rules.expect).items():
        if expected is UNSET:
            continue
        try:
            got = _RESULTS[key](verdict, posed)
        except GatewayError as fault:
            return Trial(rules.name, _spot(node, "expect", key), verdict, fault=f"expect.{key}: {fault}")
        if got != expected:
            differences.append(Difference(key, expected, got, _spot(node, "expect", key)))
    return Trial(rules.name, spot, verdict, tuple(differences))


def _losses(verdict: Verdict, posed: Posed) -> tuple[str, ...]:
    """Return the places of the request that the upstream's format has no room for."""
    adapter = None if verdict.leaf is None else verdict.leaf.upstream.adapter
    codec = getattr(adapter, "codec", None)
    if codec is None or codec.format == posed.codec.format:
        return ()
    request = posed.codec.decode_request(posed.body, posed.facts)
    encoded = codec.encode_request(request, UpstreamFacts(headers=posed.facts.headers))
    return tuple(loss.path for loss in encoded.losses if loss.kind == "lost")


def _beside(found: tuple[Beside, ...]) -> str | None:
    """Return the upstream that is asked beside the first."""
    return next((each.leaf.upstream.name for each in found if each.leaf is not None), None)


_RESULTS: Final[dict[str, Callable[[Verdict, Posed], object]]] = {
    "route": lambda verdict, posed: None if verdict.route is None else verdict.route.name,
    "target": lambda verdict, posed: None if verdict.route is None else verdict.route.to,
    "upstream": lambda verdict, posed: None if verdict.leaf is None else verdict.leaf.upstream.name,
    "model": lambda verdict, posed: verdict.model(posed.wire.model),
    "chain": lambda verdict, posed: verdict.chain,
    "loss": _losses,
    "hedge": lambda verdict, posed: _beside(verdict.hedges),
    "shadow": lambda verdict, posed: _beside(verdict.shadows),
}


def _spot(node: Table, *keys: str) -> Spot:
    """Return where the innermost of ``keys`` that is there stands."""
    spot = node.spot
    entry: Entry | None
    for key in keys:
        entry = node.entries.get(key)
        if entry is None:
            break
        spot = entry.value.spot
        if not isinstance(entry.value, Table):
            break
        node = entry.value
    return spot
