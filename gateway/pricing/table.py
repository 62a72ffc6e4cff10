"""Which price a model has at an upstream: what the rules say of it there, what they say of it at all, then the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from ..globs import Glob, Test
from .catalog import Catalog
from .price import Price, PriceRules

_MAX_KNOWN: Final = 10_000
"""Models whose price is remembered: callers may name any."""


class PriceSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens cost. A model without a price has no cost that is known, which is not none."""

    models: dict[str, PriceRules] = {}
    """Prices by name of a model, or glob such as ``gpt-5*``, as the provider is asked for it; the first that fits holds."""
    catalog: bool = False
    """Whether models that are not listed have the prices of the package genai-prices, which needs the extra ``prices``."""


class UpstreamPrices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens cost at an upstream; before what the file says."""

    models: dict[str, PriceRules] = {}
    """As those of the file."""
    catalog: bool | str | None = None
    """As that of the file, which holds where this is left out. A text names the provider in the catalog, such as ``openai``,
    for a ``base_url`` that it does not know."""


class Prices:
    """The prices at one upstream."""

    __slots__ = ("_tests", "_catalog", "_provider", "_known")

    def __init__(
        self, sections: Iterable[Mapping[str, PriceRules]], catalog: Catalog | None, provider: str | None
    ) -> None:
        self._tests: list[tuple[Test, Price]] = [
            (Glob.parse(glob).compile(), rules.price) for section in sections for glob, rules in section.items()
        ]
        self._catalog = catalog
        self._provider = provider
        self._known: dict[str, Price | None] = {}

    def of(self, model: str) -> Price | None:
        """Return the price of ``model``, None if nobody knows it."""
        try:
            return self._known[model]
        except KeyError:
            pass
        price = next((price for fits, price in self._tests if fits(model)), None)
        if price is None and self._catalog is not None and self._provider is not None:
            price = self._catalog.find(self._provider, model)
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[model] = price
        return price


NO_PRICES: Final = Prices((), None, None)
