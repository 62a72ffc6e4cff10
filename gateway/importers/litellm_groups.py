"""LiteLLM's model groups: deployments of one name as a target that draws between them as LiteLLM's router does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

from msgspec import Struct
from msgspec.structs import replace

from ..errors import ErrorKind
from .draft import PASSING_ERROR, Draft, retry, sample
from .litellm_deployments import Deployment

Retries = Mapping[ErrorKind, int]
"""How often after which kind of error, where a policy says so."""


class Way(Struct, frozen=True):
    """Where a group leads: what ``use:`` says, and what a test may expect of it: upstream, model, tries until it gives up."""

    use: str
    upstream: str
    model: str | None
    tries: int


class Groups:
    """Where each group of ``deployments`` leads. Those in ``covered`` have fallbacks, whose target takes the group's name."""

    def __init__(
        self,
        draft: Draft,
        deployments: Mapping[str, Sequence[Deployment]],
        covered: Collection[str],
        retries: int,
        policy: Retries,
    ) -> None:
        self._draft = draft
        self._groups = deployments
        self._covered = covered
        self._retries = retries
        self._policy = policy
        self._ways: dict[str, Way | None] = {}
        self._names: dict[str, list[str]] = {}

    def names(self, group: str) -> list[str]:
        """Return the globs of a group's route; none if it has no route, which is reported."""
        if group not in self._names:
            self._names[group] = self._find_names(group)
        return self._names[group]

    def way(self, group: str) -> Way | None:
        """Return where a group's own deployments lead, without fallbacks; None if it has no route."""
        if group not in self._ways:
            self._ways[group] = self._own(group) if self.names(group) else None
        return self._ways[group]

    def _own(self, group: str) -> Way:
        deployments = self._groups[group]
        if len(deployments) == 1:
            return self._leaf(deployments[0], chain=True)
        levels = [
            list(level)
            for _, level in groupby(sorted(deployments, key=lambda each: _order(each)), key=lambda each: _order(each))
        ]
        top = f"{group}-deployments" if group in self._covered else group
        drawn = self._redraws(deployments) if len(levels[0]) > 1 else []
        below = f"{group}-split" if drawn or len(levels) > 1 else top
        ways = [self._level(below, level) for level in levels]
        on_failure: list[object] = [{"kinds": kinds, "use": ways[0].use} for kinds in drawn]
        on_failure += [{"kinds": PASSING_ERROR, "use": way.use} for way in ways[1:]]
        if not on_failure:
            return ways[0]
        name = self._draft.target(top, [{"use": ways[0].use}], on_failure)
        tries = len(ways) + sum("rate_limit" in kinds for kinds in drawn)
        return Way(name, ways[0].upstream, ways[0].model, tries)

    def _level(self, wanted: str, level: Sequence[Deployment]) -> Way:
        leaves = [self._leaf(each, chain=False) for each in level]
        if len(level) == 1:
            return leaves[0]
        weights = self._weights(level)
        shares: dict[str, float] = {}
        for leaf, weight in zip(leaves, weights, strict=True):
            shares[leaf.use] = shares.get(leaf.use, 0.0) + weight
        shares = {use: weight for use, weight in shares.items() if weight > 0}
        heaviest = max(shares, key=lambda use: shares[use])
        first = next(leaf for leaf in leaves if leaf.use == heaviest)
        if len(shares) == 1:
            return first
        split = [{"use": use, "weight": weight} for use, weight in shares.items()]
        if len(set(shares.values())) == 1:
            split = [{"use": use} for use in shares]
        name = self._draft.target(wanted, [{"split": split}])
        return Way(name, first.upstream, first.model, 1)

    def _weights(self, level: Sequence[Deployment]) -> list[float]:
        """Return shares as LiteLLM's shuffle takes them: by weight, rpm or tpm, the first that the first deployment has."""
        for kind in ("weight", "rpm", "tpm"):
            if getattr(level[0], kind) is None:
                continue
            weights = [getattr(each, kind) or 0.0 for each in level]
            for each, weight in zip(level, weights, strict=True):
                cursor = each.cursor.get("litellm_params")
                found = None if cursor is None else cursor.get(kind)
                if found is not None and kind != "weight":
                    found.change("a weight of the split, as LiteLLM draws by it; no limit", "limit at the provider")
                elif found is not None:
                    found.carry()
                if weight <= 0 and sum(weights) > 0:
                    each.cursor.leave(f"it has no share: its {kind} is 0 or missing, and LiteLLM never draws it")
            return weights if sum(weights) > 0 else [1.0] * len(level)
        return [1.0] * len(level)

    def _leaf(self, deployment: Deployment, *, chain: bool) -> Way:
        draft, retries = self._draft, self._chain(deployment) if chain else ()
        model = None if "*" in deployment.model else deployment.model
        upstream = replace(deployment.upstream, chain=retries)
        name = draft.upstream(deployment.vendor.name, upstream, deployment.cursor, deployment.group)
        return Way(name if model is None else f"{name}/{model}", name, model, 1)

    def _chain(self, deployment: Deployment) -> tuple[object, ...]:
        """Return the retries of a deployment that is alone: LiteLLM waits between them."""
        if self._policy:
            counts: dict[int, list[ErrorKind]] = {}
            for kind, count in self._policy.items():
                counts.setdefault(count, []).append(kind)
            return tuple(retry(count + 1, kinds) for count, kinds in sorted(counts.items()) if count > 0)
        retries = self._retries if deployment.retries is None else deployment.retries
        return (retry(retries + 1),) if retries > 0 else ()

    def _redraws(self, deployments: Sequence[Deployment]) -> list[tuple[ErrorKind, ...]]:
        """Return the kinds after which a group draws again, one entry a time: LiteLLM retries on any deployment."""
        if self._policy:
            most = max(self._policy.values())
            return [tuple(kind for kind, count in self._policy.items() if count > turn) for turn in range(most)]
        known = [each.retries for each in deployments if each.retries is not None]
        return [PASSING_ERROR] * (max(known) if known else self._retries)

    def _find_names(self, group: str) -> list[str]:
        """Return the globs of a group's route. A prefix that LiteLLM would cut off cannot be asked for."""
        models = {each.model for each in self._groups[group]}
        if "*" not in group or not any("*" in model for model in models):
            return [group]
        if models == {group}:
            return [group]
        vendor = self._groups[group][0].vendor
        cursor = self._groups[group][0].cursor
        cut = group.partition("/")[2]
        if models != {cut} or (cut == "*" and not vendor.names):
            for each in self._groups[group]:
                each.cursor.leave(
                    "a wildcard that would cut or change the caller's name: Headgate renames to fixed names only",
                    "write a route for each name",
                )
            return []
        names = list(vendor.names) if cut == "*" else [cut]
        if (prefixed := cursor.get("model_name")) is not None:
            prefixed.change(
                f"callers leave out the prefix and ask for {', '.join(names)}",
                f'a name such as "{sample(group)}" has no route',
            )
        return names


def _order(deployment: Deployment) -> float:
    return float("inf") if deployment.order is None else deployment.order
