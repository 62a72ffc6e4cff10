"""Durations, sizes and secrets as rule files spell them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from headgate.gateway.units import Budget, Duration, MissingSecret, Percent, Rate, Secret, Size, decode_unit

DURATIONS: dict[str, float] = {
    "500ms": 0.5,
    "30s": 30,
    "5m": 300,
    "1h30m": 5400,
    "7d": 604800,
    "0s": 0,
    "1.5s": 1.5,
    "1m30s500ms": 90.5,
    "0.5h": 1800,
}
NO_DURATIONS: list[object] = [
    "", "5", 5, 5.0, None, True, "s", "5 s", " 5s", "5s ", "-5s", "+5s", "5S", "5sec", "1h 30m", "1e3s", ".5s", "5.s",
    "5s!", "inf", "nan", "5µs", ["5s"], b"5s", "1,5s",
]  # fmt: skip


@pytest.mark.parametrize("text", DURATIONS)
def test_durations(text: str) -> None:
    duration = Duration.parse(text)
    assert duration == DURATIONS[text]
    assert type(duration) is Duration


@pytest.mark.parametrize("text", NO_DURATIONS, ids=repr)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match='such as "30s"'):
        Duration.parse(text)


SIZES = {
    "0B": 0,
    "1B": 1,
    "64KB": 64_000,
    "64KiB": 65_536,
    "1.5MiB": 1_572_864,
    "10 MB": 10_000_000,
    "1GB": 10**9,
    "2GiB": 2**31,
}
NO_SIZES: list[object] = ["", "5", 5, "KB", "5K", "5kb", "5mb", "-5MB", "5MBs", "5 MB ", "1e3B", "5TB", None, b"5MB"]


@pytest.mark.parametrize("text", SIZES)
def test_sizes(text: str) -> None:
    size = Size.parse(text)
    assert size == SIZES[text]
    assert type(size) is Size


@pytest.mark.parametrize("text", NO_SIZES, ids=repr)
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match='such as "64KB"'):
        Size.parse(text)


RATES = {
    "5/s": (5, 1.0),
    "60/min": (60, 60.0),
    "100k/h": (100_000, 3600.0),
    "1.5M/day": (1_500_000, 86400.0),
    "0.25k/min": (250, 60.0),
}
NO_RATES: list[object] = [
    "", "5", 5, None, "0/s", "0.5/s", "1.5/s", "0.0001k/s", "-1/s", "5/m", "5/sec", "5 / s", "5/s ", "5K/s", "5m/s", "k/s",
    "1e3/s", "٣/s", "5/2s", b"5/s",
]  # fmt: skip


@pytest.mark.parametrize("text", RATES)
def test_rates(text: str) -> None:
    rate = Rate.parse(text)
    assert (rate.count, rate.period_s) == RATES[text]
    assert rate == Rate(rate.count, rate.period)
    assert hash(rate) == hash(Rate(rate.count, rate.period))
    assert rate != Rate(rate.count + 1, rate.period)
    assert rate != text


@pytest.mark.parametrize("text", NO_RATES, ids=repr)
def test_what_is_no_rate(text: object) -> None:
    with pytest.raises(ValueError, match='such as "5/s"'):
        Rate.parse(text)


BUDGETS = {
    "20 USD/day": (20 * 10**12, "day"),
    "0.50 USD/h": (5 * 10**11, "h"),
    "0.000001USD/week": (10**6, "week"),
    "1000 USD/month": (10**15, "month"),
}
NO_BUDGETS: list[object] = [
    "", 5, None, "20/day", "20 USD", "20 USD/year", "20 EUR/day", "-1 USD/day", "0 USD/day", "$20/day", "20 usd/day",
    "1e3 USD/day", "0.0000000000001 USD/day", " 20 USD/day", "20 USD/day ", "٣ USD/day", "1k USD/day",
]  # fmt: skip


@pytest.mark.parametrize("text", BUDGETS)
def test_budgets(text: str) -> None:
    budget = Budget.parse(text)
    assert (budget.pico, budget.period) == BUDGETS[text]
    assert str(budget).replace(" ", "") == text.replace(" ", "")
    same = Budget.parse(text.replace("USD", " USD"))
    assert budget == same and hash(budget) == hash(same)
    assert budget != Budget.parse("7 USD/day") and budget != text
    assert repr(budget) == f"Budget({str(budget)!r})"


@pytest.mark.parametrize("text", NO_BUDGETS, ids=repr)
def test_what_is_no_budget(text: object) -> None:
    with pytest.raises(ValueError, match='such as "20 USD/day"'):
        Budget.parse(text)


def test_a_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret.parse("env:HEADGATE_TEST_SECRET")
    monkeypatch.delenv("HEADGATE_TEST_SECRET", raising=False)
    assert not secret.optional
    for value in (None, "", "  \n"):
        if value is not None:
            monkeypatch.setenv("HEADGATE_TEST_SECRET", value)
        with pytest.raises(MissingSecret, match="HEADGATE_TEST_SECRET is not set"):
            secret.read()
    monkeypatch.setenv("HEADGATE_TEST_SECRET", " value\n")
    assert secret.read() == "value"


def test_an_optional_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret.parse("env:HEADGATE_TEST_SECRET?")
    assert secret.optional
    for value in ("", " "):
        monkeypatch.setenv("HEADGATE_TEST_SECRET", value)
        assert secret.read() is None
    monkeypatch.delenv("HEADGATE_TEST_SECRET")
    assert secret.read() is None
    monkeypatch.setenv("HEADGATE_TEST_SECRET", "value")
    assert secret.read() == "value"


def test_a_secret_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    secret = Secret.parse(f"file:{path}")
    with pytest.raises(OSError, match="No such file"):
        secret.read()
    path.write_text(" \n")
    with pytest.raises(MissingSecret, match="is empty"):
        secret.read()
    path.write_text("väl ue\n")
    assert secret.read() == "väl ue"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Secret.parse("file:~/secret").read() == "väl ue"


@pytest.mark.parametrize(
    "text", ["sk-live-abcdef0123456789", "", "env:", "env:?", "file:", "vault:x", ":x", "ENV:X", None, 5, "env"]
)
def test_a_secret_is_never_written_out(text: object) -> None:
    with pytest.raises(ValueError, match="by reference") as caught:
        Secret.parse(text)
    assert "sk-live" not in str(caught.value)


def test_a_secret_shows_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_TEST_SECRET", "the-value-itself")
    secret, same, other = (Secret(f"env:{name}") for name in ("HEADGATE_TEST_SECRET", "HEADGATE_TEST_SECRET", "OTHER"))
    assert secret.read() == "the-value-itself"
    assert repr(secret) == "Secret('env:HEADGATE_TEST_SECRET')"
    assert secret == same
    assert hash(secret) == hash(same)
    assert secret != other
    assert secret != "env:HEADGATE_TEST_SECRET"


class Options(msgspec.Struct):
    wait: Duration
    room: Size
    key: Secret | None = None


def test_units_in_options() -> None:
    options = msgspec.convert({"wait": "1m", "room": "1KiB", "key": "env:X"}, Options, dec_hook=decode_unit)
    assert (options.wait, options.room, options.key) == (60.0, 1024, Secret("env:X"))


@pytest.mark.parametrize("wrong", [{"wait": 5}, {"room": "5"}, {"key": "sk-live-0123456789"}])
def test_units_that_are_wrong_in_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"wait": "1m", "room": "1KiB", **wrong}, Options, dec_hook=decode_unit)
    assert next(iter(wrong)) in str(caught.value)
    assert "sk-live" not in str(caught.value)


def test_other_types_are_nobodys() -> None:
    with pytest.raises(NotImplementedError):
        decode_unit(complex, "1j")


@pytest.mark.parametrize(
    ("text", "share", "shown"),
    [("5%", 0.05, "5%"), ("0.5%", 0.005, "0.5%"), ("100%", 1, "100%"), ("100.0%", 1, "100%")],
)
def test_shares(text: str, share: float, shown: str) -> None:
    read = Percent.parse(text)
    assert (read, str(read)) == (pytest.approx(share), shown)
    assert decode_unit(Percent, text) == read


@pytest.mark.parametrize(
    "text", ["", "5", 5, 0.05, None, True, "0%", "0.0%", "101%", "100.1%", "-1%", "1 %", "1e1%", "%", "5%%"], ids=repr
)
def test_what_is_no_share(text: object) -> None:
    with pytest.raises(ValueError, match='such as "5%"'):
        Percent.parse(text)
