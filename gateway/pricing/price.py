"""The price of a model's tokens, and what a usage costs by it. Money is counted in whole numbers, so that sums are exact.

The unit is the picodollar, 10^-12 USD: a token at 0.125 USD for a million costs 125,000 of them.
"""

from __future__ import annotations

import math
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from ..ir.event import Usage

PICO: Final = 10**12
"""Picodollars in a dollar."""
_MOST: Final = 10**24
"""What one try costs at most, a trillion dollars: whoever tells of more has slipped."""
_PER_TOKEN: Final = 10**6
"""Picodollars for a token at one dollar for a million."""

Dollars = Annotated[float, Meta(ge=0)]


class PriceRules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """USD for a million tokens."""

    input: Dollars
    """Tokens that are read."""
    output: Dollars = 0.0
    """Tokens that are written; embeddings have none."""
    cache_read: Dollars | None = None
    """Tokens that the provider has in its cache; left out: as ``input``."""
    cache_write: Dollars | None = None
    """Tokens that it puts there; left out: as ``input``."""
    cache_write_1h: Dollars | None = None
    """Those of them that are to stay there for an hour, as Anthropic tells; left out: as ``cache_write``."""
    reasoning: Dollars | None = None
    """Tokens of thinking, which are part of the output; left out: as ``output``."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} must be a number of dollars")

    @property
    def price(self) -> Price:
        """The same, per token."""
        reads = self.input if self.cache_read is None else self.cache_read
        writes = self.input if self.cache_write is None else self.cache_write
        thinks = self.output if self.reasoning is None else self.reasoning
        stays = writes if self.cache_write_1h is None else self.cache_write_1h
        figures = self.input, self.output, reads, writes, thinks, stays
        fresh, said, read, written, thought, kept = [round(each * _PER_TOKEN) for each in figures]
        return Price(fresh, said, read, written, thought, kept)


class Price:
    """Picodollars for a token. ``tiers`` are dearer prices, each for requests of more input than its number says."""

    __slots__ = ("input", "output", "cache_read", "cache_write", "reasoning", "cache_write_1h", "tiers")

    def __init__(
        self,
        input: int,
        output: int,
        cache_read: int,
        cache_write: int,
        reasoning: int,
        cache_write_1h: int,
        tiers: tuple[tuple[int, Price], ...] = (),
    ) -> None:
        self.input = input
        self.output = output
        self.cache_read = cache_read
        self.cache_write = cache_write
        self.reasoning = reasoning
        self.cache_write_1h = cache_write_1h
        self.tiers = tiers

    def of(self, usage: Usage) -> int | None:
        """Return what ``usage`` costs, in picodollars; None where it does not tell enough."""
        read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        fresh, total = usage.uncached_input_tokens, usage.input_tokens
        if fresh is None:
            if total is None:
                return None
            fresh = max(0, total - read - written)
        if self.tiers:
            return self.at(fresh + read + written)._sum(fresh, read, written, usage)
        return self._sum(fresh, read, written, usage)

    def at(self, tokens: int) -> Price:
        """Return the price for a request of ``tokens`` input."""
        found = self
        for above, dearer in self.tiers:
            if tokens > above:
                found = dearer
        return found

    def _sum(self, fresh: int, read: int, written: int, usage: Usage) -> int:
        cost = fresh * self.input + (usage.output_tokens or 0) * self.output
        if read or written:
            cost += read * self.cache_read + written * self.cache_write
            if written and self.cache_write_1h != self.cache_write:
                cost += _for_an_hour(usage, written) * (self.cache_write_1h - self.cache_write)
        if usage.reasoning_output_tokens:
            thought = min(usage.reasoning_output_tokens, usage.output_tokens or 0)
            cost += thought * (self.reasoning - self.output)
        if not 0 <= cost <= _MOST:  # some say -1 for what they do not know: nobody is paid for asking
            cost = min(max(0, cost), _MOST)
        return cost

    def estimate(self, asked: int, said: int) -> int:
        """Return what ``asked`` tokens of a request and ``said`` of its answer cost, if no cache has any of them.

        The dearer of reading and writing to a cache counts: which it is nobody knows before.
        """
        price = self.at(asked) if self.tiers else self
        dearest = max(price.input, price.cache_write, price.cache_write_1h)
        return asked * dearest + said * max(price.output, price.reasoning)


class _Kept(Struct):
    ephemeral_1h_input_tokens: int = 0


def _for_an_hour(usage: Usage, written: int) -> int:
    """Return how many of the tokens that were written to the cache are to stay for an hour, as Anthropic's usage says."""
    told = usage.raw.get("cache_creation")
    if told is None:
        return 0
    try:
        return min(written, max(0, msgspec.json.decode(told, type=_Kept).ephemeral_1h_input_tokens))
    except msgspec.DecodeError:
        return 0


def spelled(cost_usd: float) -> str:
    """Return dollars as a header says them: ``0.01665``, never ``1.2e-05``."""
    return f"{cost_usd:.12f}".rstrip("0").rstrip(".")


def dollars(pico: int) -> float:
    """Return picodollars in dollars."""
    return pico / PICO
