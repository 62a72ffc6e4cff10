"""Prices: the sections of a file about what tokens cost, put together for each upstream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from ..chain import Middleware
from ..pricing.catalog import Catalog, is_installed, provider_of
from ..pricing.table import Prices, PriceSection
from .document import Entry, Node, Table
from .problems import Spot
from .read import Reader
from .schema import UpstreamRules


class PriceTables:
    """The prices of one file. ``any`` says whether it has some: without them nothing is counted."""

    def __init__(self, reader: Reader, node: Node | None, upstreams: Mapping[str, Entry]) -> None:
        self._problems = reader.problems
        read = None if node is None else reader.struct(node, PriceSection, "prices")
        self._section = read or PriceSection()
        self.any = node is not None or any(
            isinstance(entry.value, Table) and "prices" in entry.value.entries for entry in upstreams.values()
        )
        if node is not None:
            self._check(self._section.catalog, node, "prices")

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog()

    def _check(self, wanted: bool | str | None, node: Node, where: str) -> None:
        if wanted and not is_installed():
            said = f"{where}.catalog needs the extra prices"
            self._problems.add("E064", _spot(node, "catalog"), said, 'pip install "headgate[prices]"')

    def of(self, rules: UpstreamRules, node: Table, where: str) -> Prices | None:
        """Return the prices at an upstream; None if the file knows of no prices at all."""
        if not self.any:
            return None
        own, usual = rules.prices, self._section
        if (section := node.get("prices")) is not None:
            self._check(own.catalog, section, f"{where}.prices")
        wanted = usual.catalog if own.catalog is None else own.catalog
        if not wanted or not is_installed():
            return Prices((own.models, usual.models), None, None)
        provider = wanted if isinstance(wanted, str) else provider_of(rules.adapter, rules.base_url)
        return Prices((own.models, usual.models), self._catalog, provider)

    def no_budgets(self, middlewares: Iterable[Middleware], node: Table, where: str) -> None:
        """Note budgets in an upstream's chain: what stands around it would take our refusal for the provider's."""
        if any(getattr(each, "needs_prices", False) for each in middlewares):
            said = f"{where}.chain: a budget cannot be kept here"
            self._problems.add("E065", _spot(node, "chain"), said, "put it into the chain of a route")


def _spot(node: Node, key: str) -> Spot:
    value = node.get(key) if isinstance(node, Table) else None
    return node.spot if value is None else value.spot
