"""Targets: their cases read, what they name resolved, and what is off left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from ..facts import WireFacts
from ..targets.allowance import Allowance
from ..targets.shadow import Shadows
from .cel import narrowed, read_when
from .condition import Condition
from .coverage import all_covered
from .document import Entry, Items, Node, Table
from .match import FACT_NAMES, PRINCIPAL_FACTS, compile_match, find_fact
from .problems import Spot, nearest
from .read import Reader
from .read_match import read_match
from .schema import CaseRules, FailureRules, ShareRules, TargetRules
from .target import Aim, Case, Fallback, Hedge, Leaf, Shadow, Share, Split, Target
from .upstream import Upstream

STICKY: Final = ("text", "number", "any")


class Targets:
    """Resolves what ``to:`` and ``use:`` name. ``used`` are the upstreams and targets that something leads to."""

    def __init__(
        self,
        reader: Reader,
        entries: Mapping[str, Entry],
        known_upstreams: Sequence[str],
        upstreams: Mapping[str, Upstream],
    ) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._entries = entries
        self._known = (*entries, *known_upstreams)
        self._upstreams = upstreams
        self._built: dict[str, Target | None] = {}
        self._building: list[str] = []
        self.used: set[str] = set()

    def build_all(self) -> None:
        """Build every target, so that mistakes in unused ones are found too."""
        for name, entry in self._entries.items():
            self._named(name, entry.spot)

    def aim(self, text: str, spot: Spot, where: str) -> Aim | None:
        """Return what ``text`` names; None when it names nothing (and it is noted), or something broken."""
        name, slash, model = text.partition("/")
        if name not in self._known:
            hint = nearest(name, self._known) or "define it in upstreams or targets"
            self._problems.add("E033", spot, f'{where}: there is no upstream or target "{name}"', hint)
            return None
        if name in self._entries:
            self.used.add(name)
            if slash:
                said = f'{where}: "{name}" is a target, which chooses the model itself'
                self._problems.add("E011", spot, said, f'write "{name}"')
                return None
            return self._named(name, spot)
        self.used.add(name)
        if slash and not model:
            self._problems.add("E011", spot, f"{where}: no model after the slash", f"write {name}, or {name}/MODEL")
        upstream = self._upstreams.get(name)
        return None if upstream is None else Leaf(text, upstream, model or None)

    def _named(self, name: str, spot: Spot) -> Target | None:
        if name in self._building:
            circle = " → ".join([*self._building[self._building.index(name) :], name])
            self._problems.add("E036", spot, f"the target {name} leads to itself: {circle}", "take one of them out")
            return None
        if name not in self._built:
            self._building.append(name)
            self._built[name] = self._build(name, self._entries[name].value)
            self._building.pop()
        return self._built[name]

    def _build(self, name: str, node: Node) -> Target | None:
        where = f"targets.{name}"
        rules = self._reader.struct(node, TargetRules, where, keep=("select", "on_failure"))
        if rules is None or not isinstance(node, Table):
            return None
        cases = [
            self._case(item, f"{where}.select[{at}]", f"{name}.select[{at}]")
            for at, item in enumerate(self._reader.items(node.get("select"), f"{where}.select"))
        ]
        if not cases and isinstance(select := node.get("select"), Items):
            self._problems.add("E011", select.spot, f"{where}.select: no cases", "such as [{use: UPSTREAM}]")
        fallbacks = [
            self._fallback(item, f"{where}.on_failure[{at}]", f"{name}.on_failure[{at}]")
            for at, item in enumerate(self._reader.items(node.get("on_failure"), f"{where}.on_failure"))
        ]
        hedge, shadow = self._hedge(rules, node, name), self._shadow(rules, node, name)
        known = [case for case in cases if case is not None]
        if len(known) < len(cases) or any(each is None for each in fallbacks) or not known:
            return None
        if (rules.hedge is not None and hedge is None) or (rules.shadow is not None and shadow is None):
            return None
        self._judge(name, node, known)
        live = [lit for case in known if (lit := _lit(case)) is not None]
        entries = tuple(each for each in fallbacks if each is not None)
        return Target(
            name,
            tuple(live),
            tuple(each for each in entries if each.aim.off is None),
            tuple(case for case in known if _lit(case) is None),
            tuple(known),
            entries,
            hedge if hedge is not None and hedge.aim.off is None else None,
            shadow if shadow is not None and shadow.aim.off is None else None,
            tuple(each for each in (hedge, shadow) if each is not None),
        )

    def _hedge(self, rules: TargetRules, node: Table, name: str) -> Hedge | None:
        said = rules.hedge
        if said is None:
            return None
        aim = self._beside(node, name, "hedge", said.use)
        return None if aim is None else Hedge(f"{name}.hedge", aim, float(said.after), Allowance(float(said.max_extra)))

    def _shadow(self, rules: TargetRules, node: Table, name: str) -> Shadow | None:
        said = rules.shadow
        if said is None:
            return None
        aim = self._beside(node, name, "shadow", said.use)
        if aim is None:
            return None
        shadows = Shadows(float(said.share), said.at_once, float(said.timeout))
        return Shadow(f"{name}.shadow", aim, float(said.share), shadows)

    def _beside(self, node: Table, name: str, key: str, use: str) -> Aim | None:
        where, table = f"targets.{name}.{key}.use", node.get(key)
        spot = table.entries["use"].value.spot if isinstance(table, Table) else node.spot
        return self.aim(use, spot, where)

    def _judge(self, name: str, node: Table, cases: Sequence[Case]) -> None:
        """Note a case that is never reached, and requests that no case takes."""
        spots = [item.spot for item in self._reader.items(node.get("select"), "")]
        earlier: list[tuple[Spot, Mapping[str, Condition]]] = []
        for case, spot in zip(cases, spots, strict=True):
            for before, wide in earlier:
                if all_covered(wide, case.conditions):
                    said = f"{case.place} is never reached: the case on line {before.line} takes everything it matches"
                    self._problems.add("E045", spot, said, "move it up, or remove it")
                    break
            if case.when is None and not all(aim.optional for aim in case.aims):
                earlier.append((spot, case.conditions))
        if not any(not case.conditions and case.when is None for case in cases):
            self._problems.add(
                "W104",
                node.spot,
                f"the target {name} has no case for requests that none of its conditions take: they are refused",
                "end with a case that has no match",
            )

    def _case(self, node: Node, where: str, place: str) -> Case | None:
        rules = self._reader.struct(node, CaseRules, where, keep=("match", "split", "when"))
        if not isinstance(node, Table):
            return None
        match = node.get("match")
        conditions = {} if match is None else read_match(match, f"{where}.match", self._problems, principal=True)
        goes = self._goes(node, rules, where)
        expression = node.get("when")
        when = None if expression is None else read_when(expression, f"{where}.when", self._problems, principal=True)
        if conditions is None or goes is None or rules is None or (expression is not None and when is None):
            return None
        matches = narrowed(compile_match(conditions), when)
        return Case(place, matches, goes, conditions, None if when is None else when.text)

    def _goes(self, node: Table, rules: CaseRules | None, where: str) -> Aim | Split | None:
        use, split = node.entries.get("use"), node.entries.get("split")
        if use is None and split is None:
            self._problems.add("E010", node.spot, f'{where} needs "use" or "split"', 'such as "use: UPSTREAM"')
        elif use is not None and split is not None:
            self._problems.add("E052", split.spot, f'{where} has both "use" and "split"', "remove one of the two")
        if (sticky := node.entries.get("sticky")) is not None and split is None:
            self._problems.add("E052", sticky.spot, f'{where}: "sticky" binds to a branch of a split', "remove it")
        if rules is None or (use is None) == (split is None):
            return None
        if use is not None:
            return self.aim(rules.use or "", use.value.spot, f"{where}.use")
        assert split is not None
        return self._split(split.value, node, rules.sticky, where)

    def _split(self, node: Node, case: Table, sticky: str | None, where: str) -> Split | None:
        shares: list[Share | None] = []
        for at, item in enumerate(self._reader.items(node, f"{where}.split")):
            place = f"{where}.split[{at}]"
            rules = self._reader.struct(item, ShareRules, place)
            if rules is None or not isinstance(item, Table):
                shares.append(None)
                continue
            aim = self.aim(rules.use, item.entries["use"].value.spot, f"{place}.use")
            shares.append(None if aim is None else Share(aim, rules.weight))
        if isinstance(node, Items) and not node.items:
            self._problems.add("E011", node.spot, f"{where}.split: no branches", "such as [{use: UPSTREAM, weight: 9}]")
        known = tuple(share for share in shares if share is not None)
        reading = self._sticky(sticky, case, where)
        if not known or len(known) < len(shares) or (sticky is not None and reading is None):
            return None
        return Split(known, sticky, reading, where.removeprefix("targets."))

    def _sticky(self, name: str | None, case: Table, where: str) -> Callable[[WireFacts], Any] | None:
        if name is None:
            return None
        fact = find_fact(name)
        if fact is None or fact.kind not in STICKY:
            spot = case.entries["sticky"].value.spot
            known = (*FACT_NAMES, *PRINCIPAL_FACTS)
            self._problems.add(
                "E040", spot, f'{where}.sticky: no fact to tell requests by: "{name}"', nearest(name, known)
            )
            return None
        return fact.get

    def _fallback(self, node: Node, where: str, place: str) -> Fallback | None:
        rules = self._reader.struct(node, FailureRules, where)
        if rules is None or not isinstance(node, Table):
            return None
        aim = self.aim(rules.use, node.entries["use"].value.spot, f"{where}.use")
        return None if aim is None else Fallback(place, frozenset(rules.kinds), aim)


def _lit(case: Case) -> Case | None:
    """Return the case without what is off; None when nothing of it is on."""
    if not isinstance(case.goes, Split):
        return case if case.goes.off is None else None
    shares = tuple(share for share in case.goes.shares if share.aim.off is None)
    if not shares:
        return None
    return Case(case.place, case.matches, replace(case.goes, shares=shares), case.conditions, case.when)
