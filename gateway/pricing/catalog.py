"""The prices that the package genai-prices knows. Needs the extra ``prices``; nothing is fetched: they are as it has them.

A price that depends on the hour is the one of the moment when it is asked for.
"""

from __future__ import annotations

import logging
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, Final

from .price import Price

_log: Final = logging.getLogger("headgate.prices")
_PER_TOKEN: Final = 10**6
_OF_ADAPTERS: Final = {"anthropic": "anthropic", "openai": "openai", "gemini": "google", "cohere": "cohere"}
"""Whose prices an adapter's are, at the vendor's own address."""
_FIGURES: Final = (
    "input_mtok",
    "output_mtok",
    "cache_read_mtok",
    "cache_write_mtok",
    "output_reasoning_mtok",
    "cache_write_1h_mtok",
)


def is_installed() -> bool:
    """Whether the extra is there."""
    return find_spec("genai_prices") is not None


def provider_of(adapter: str, base_url: str | None) -> str | None:
    """Return what names the provider in the catalog: a name, or an address; None where nobody can say."""
    return base_url if base_url is not None else _OF_ADAPTERS.get(adapter)


class Catalog:
    """Looks prices up by provider and model. Making one imports the package, which takes a third of a second."""

    def __init__(self) -> None:
        import genai_prices

        self._calc: Any = genai_prices.calc_price
        self._usage: Any = genai_prices.Usage(input_tokens=1, output_tokens=1)

    def find(self, provider: str, model: str) -> Price | None:
        """Return the price of ``model`` at ``provider``, by its name or its address; None if it is not known."""
        whose = {"provider_api_url": provider} if "://" in provider else {"provider_id": provider}
        try:
            priced = self._calc(self._usage, model, **whose).model_price
        except (LookupError, ValueError, TypeError) as fault:
            _log.debug("no price for %s at %s: %s", model, provider, fault)
            return None
        figures = [getattr(priced, name, None) for name in _FIGURES]
        starts = {tier.start for figure in figures if figure is not None for tier in getattr(figure, "tiers", ())}
        if figures[0] is None:
            return None
        tiers = tuple((start, _price(figures, start)) for start in sorted(starts))
        base = _price(figures, 0)
        base.tiers = tiers
        return base


def _price(figures: list[Any], start: int) -> Price:
    """Return the price above ``start`` tokens of input."""
    reads, writes, cached, put, thinks, stays = (None if each is None else _at(each, start) for each in figures)
    reads, writes = reads or 0, writes or 0
    put = reads if put is None else put
    return Price(
        reads,
        writes,
        reads if cached is None else cached,
        put,
        writes if thinks is None else thinks,
        put if stays is None else stays,
    )


def _at(figure: Any, start: int) -> int:
    found = figure if isinstance(figure, Decimal) else figure.base
    for tier in getattr(figure, "tiers", ()):
        if start and tier.start <= start:
            found = tier.price
    return round(found * _PER_TOKEN)
