"""When providers say that an account is back, in every spelling; and what is no answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from headgate.gateway.accounts.resets import back_in_s
from headgate.gateway.errors import upstream_error
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_790_000_000.0
BOTH: Any = ("reset-header", "retry-after")


def at(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat().replace("+00:00", "Z")


def openai(unit: str, remaining: str, reset: str) -> dict[str, str]:
    return {f"x-ratelimit-remaining{unit}": remaining, f"x-ratelimit-reset{unit}": reset}


def anthropic(unit: str, remaining: str, reset: str) -> dict[str, str]:
    return {f"anthropic-ratelimit-{unit}-remaining": remaining, f"anthropic-ratelimit-{unit}-reset": reset}


@pytest.mark.parametrize(
    ("headers", "retry_after_s", "expected"),
    [
        ({}, None, None),
        ({}, 20.0, 20.0),
        (openai("-requests", "0", "6m0s"), None, 360.0),
        (openai("-requests", "0", "1h2m3s"), 5.0, 3723.0),
        (openai("-tokens", "0", "20ms"), 5.0, 0.02),
        (openai("-requests", "99", "6m0s"), 5.0, 5.0),  # not what is used up
        (openai("-requests", "99", "1s") | openai("-tokens", "0", "8s"), None, 8.0),
        (openai("-requests", "0", "1s") | openai("-tokens", "0", "8s"), None, 8.0),
        (openai("-tokens", "0", "59"), None, 59.0),  # Azure's bare seconds
        (openai("", "0", str(int((NOW + 60) * 1000))), None, 60.0),  # OpenRouter's milliseconds
        (openai("", "0", str(int(NOW + 60))), None, 60.0),
        (anthropic("requests", "0", at(90)), None, 90.0),
        (anthropic("input-tokens", "0", at(90)), 5.0, 90.0),
        (anthropic("output-tokens", "12", at(90)), 5.0, 5.0),
        (anthropic("requests", "0", at(-90)), None, None),
        (anthropic("requests", "0", at(-90)), 5.0, 5.0),
        (
            {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": str(NOW + 7200)},
            5.0,
            7200.0,
        ),
        (
            {"anthropic-ratelimit-unified-status": "allowed", "anthropic-ratelimit-unified-reset": str(NOW + 7200)},
            5.0,
            5.0,
        ),
        (openai("-requests", "0", "soon"), 5.0, 5.0),
        (openai("-requests", "0", "nan"), 5.0, 5.0),
        (openai("-requests", "0", "-8"), 5.0, 5.0),
        (openai("-requests", "0", "2026-11-21T10:00:00"), 5.0, 5.0),  # of no zone
        (openai("-requests", "0", ""), None, None),
        ({"x-ratelimit-remaining-requests": "0"}, None, None),
        ({}, float("nan"), None),
        ({}, float("inf"), None),
        ({}, -1.0, None),
        ({}, 0.0, None),
    ],
)
def test_when_it_is_back(headers: dict[str, str], retry_after_s: float | None, expected: float | None) -> None:
    error = upstream_error("rate_limit", "no", headers=headers, retry_after_s=retry_after_s)
    found = back_in_s(error, BOTH, NOW)
    assert found == (None if expected is None else pytest.approx(expected))


def test_who_is_asked_first() -> None:
    error = upstream_error("rate_limit", "no", headers=openai("-requests", "0", "9s"), retry_after_s=4.0)
    assert back_in_s(error, ("reset-header", "retry-after"), NOW) == 9.0
    assert back_in_s(error, ("retry-after", "reset-header"), NOW) == 4.0
    assert back_in_s(error, ("retry-after",), NOW) == 4.0
    assert back_in_s(error, (), NOW) is None


@given(st.text(max_size=30), st.text(max_size=10))
def test_no_header_does_harm(reset: str, remaining: str) -> None:
    headers = openai("-requests", "0", reset) | anthropic("tokens", "0", reset) | openai("", remaining, reset)
    found = back_in_s(upstream_error("rate_limit", "no", headers=headers), BOTH, NOW)
    assert found is None or 0 < found < float("inf")
