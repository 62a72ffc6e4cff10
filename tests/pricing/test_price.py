"""What a usage costs: each kind of token by its own price, exactly; and which price a model has."""

from __future__ import annotations

from decimal import Decimal

import pytest
from headgate.gateway import registry
from headgate.gateway.ir.event import Usage
from headgate.gateway.pricing.catalog import Catalog, provider_of
from headgate.gateway.pricing.price import PICO, Price, PriceRules, dollars, spelled
from headgate.gateway.pricing.table import Prices
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

SONNET = PriceRules(input=3, output=15, cache_read=0.3, cache_write=3.75)

COSTS: list[tuple[PriceRules, Usage, str | None]] = [
    (SONNET, Usage(input_tokens=1000, output_tokens=100), "0.0045"),
    # 10,000 read, 8,000 of them from the cache and 1,000 into it: 3,000 + 2,400 + 3,750 + 7,500 millionths
    (
        SONNET,
        Usage(input_tokens=10_000, cache_read_input_tokens=8000, cache_creation_input_tokens=1000, output_tokens=500),
        "0.01665",
    ),
    (
        SONNET,
        Usage(
            uncached_input_tokens=1000,
            cache_read_input_tokens=8000,
            cache_creation_input_tokens=1000,
            output_tokens=500,
        ),
        "0.01665",
    ),
    (PriceRules(input=2, output=8), Usage(input_tokens=10, cache_read_input_tokens=10, output_tokens=0), "0.00002"),
    (PriceRules(input=0.02), Usage(input_tokens=7), "0.00000014"),
    (
        PriceRules(input=1, output=2, reasoning=3),
        Usage(input_tokens=0, output_tokens=100, reasoning_output_tokens=40),
        "0.00024",
    ),
    (PriceRules(input=1, output=2), Usage(input_tokens=0, output_tokens=100, reasoning_output_tokens=40), "0.0002"),
    (PriceRules(input=0), Usage(input_tokens=10**9, output_tokens=10**9), "0"),
    (SONNET, Usage(output_tokens=5), None),
    (
        PriceRules(input=3, output=15, cache_write=3.75, cache_write_1h=6),
        registry.codec("anthropic.messages").read_usage(
            Raw(
                b'{"input_tokens":1,"output_tokens":0,"cache_creation_input_tokens":1000,'
                b'"cache_creation":{"ephemeral_5m_input_tokens":400,"ephemeral_1h_input_tokens":600}}'
            )
        )
        or Usage(),
        "0.005103",
    ),
    (
        PriceRules(input=3, cache_write=3.75, cache_write_1h=6),
        Usage(input_tokens=10, cache_creation_input_tokens=10, raw={"cache_creation": Raw(b"[]")}),
        "0.0000375",
    ),
    # more from the cache than was read at all: a provider's slip is no refund
    (PriceRules(input=1, cache_read=0), Usage(input_tokens=5, cache_read_input_tokens=9), "0"),
    # -1 for what is not known is no refund either
    (PriceRules(input=1, output=2), Usage(input_tokens=-1, output_tokens=-1), "0"),
    # more thinking than there was output: no more than all of it
    (
        PriceRules(input=1, output=2, reasoning=4),
        Usage(input_tokens=0, output_tokens=5, reasoning_output_tokens=9),
        "0.00002",
    ),
]


@pytest.mark.parametrize(("rules", "usage", "cost"), COSTS)
def test_what_a_usage_costs(rules: PriceRules, usage: Usage, cost: str | None) -> None:
    pico = rules.price.of(usage)
    assert pico == (None if cost is None else Decimal(cost) * PICO)
    if pico is not None:
        assert spelled(dollars(pico)) == cost


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5)), max_size=30))
def test_sums_are_exact(tokens: list[tuple[int, int]]) -> None:
    price = PriceRules(input=0.1, output=0.7).price
    costs = [price.of(Usage(input_tokens=read, output_tokens=said)) or 0 for read, said in tokens]
    every = Usage(input_tokens=sum(read for read, _ in tokens), output_tokens=sum(said for _, said in tokens))
    assert sum(costs) == price.of(every)


def test_long_requests_cost_more() -> None:
    price = Price(1, 1, 1, 1, 1, 1, ((100, Price(2, 3, 1, 2, 3, 2)), (1000, Price(5, 5, 5, 5, 5, 5))))
    assert price.of(Usage(input_tokens=100, output_tokens=10)) == 110
    assert price.of(Usage(input_tokens=101, output_tokens=10)) == 202 + 30
    assert price.of(Usage(uncached_input_tokens=1, cache_read_input_tokens=100, output_tokens=0)) == 2 + 100
    assert price.of(Usage(input_tokens=1001, output_tokens=1)) == 5010
    assert price.estimate(100, 10) == 110
    assert price.estimate(101, 10) == 232


def test_an_estimate_takes_the_dearer_way() -> None:
    assert SONNET.price.estimate(1000, 10) == 1000 * 3_750_000 + 10 * 15_000_000


def test_what_is_said_of_the_upstream_comes_first_and_then_the_order_of_the_file() -> None:
    own = {"gpt-5*": PriceRules(input=1)}
    usual = {"gpt-5.4": PriceRules(input=2), "gpt-*": PriceRules(input=3), "gpt-4o": PriceRules(input=4)}
    prices = Prices((own, usual), None, None)
    found = {model: prices.of(model) for model in ("gpt-5.4", "gpt-4o", "claude")}
    assert {model: price and price.input for model, price in found.items()} == {
        "gpt-5.4": 1_000_000,
        "gpt-4o": 3_000_000,
        "claude": None,
    }
    for number in range(20_000):
        prices.of(f"made up {number}")
    assert len(prices._known) <= 10_000


@pytest.mark.parametrize("wrong", [float("inf"), float("nan")])
def test_a_price_is_a_number(wrong: float) -> None:
    with pytest.raises(ValueError, match="output must be"):
        PriceRules(input=1, output=wrong)


# --- the catalog: figures are the package's own, so that its updates break nothing here


def test_the_catalog_prices_as_its_package_does() -> None:
    genai_prices = pytest.importorskip("genai_prices")
    catalog = Catalog()
    for provider, model in (("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o"), ("google", "gemini-2.5-pro")):
        price = catalog.find(provider, model)
        assert price is not None
        for read, cached, said in ((1000, 0, 500), (10_000, 8000, 500), (250_000, 100_000, 1000)):
            told = genai_prices.Usage(input_tokens=read, cache_read_tokens=cached, output_tokens=said)
            expected = genai_prices.calc_price(told, model, provider_id=provider).total_price
            usage = Usage(input_tokens=read, cache_read_input_tokens=cached, output_tokens=said)
            assert price.of(usage) == expected * PICO


def test_whose_prices_are_asked_for() -> None:
    pytest.importorskip("genai_prices")
    catalog = Catalog()
    assert provider_of("openai", None) == "openai"
    assert provider_of("gemini", None) == "google"
    assert provider_of("simulator", None) is None
    known = catalog.find(provider_of("openai", "https://api.openai.com/v1") or "", "gpt-4o")
    assert known is not None and known.input == 2_500_000
    assert catalog.find(provider_of("openai", "http://127.0.0.1:8000/v1") or "", "gpt-4o") is None
    assert catalog.find("openai", "no such model") is None
    prices = Prices((), catalog, "openai")
    assert prices.of("gpt-4o") is not None and prices.of("made up") is None
    assert Prices(({"gpt-4o": PriceRules(input=1)},), catalog, "openai").of("gpt-4o").input == 1_000_000  # type: ignore[union-attr]
