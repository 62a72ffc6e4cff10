"""Addresses in a provider's answers that lead back to the gateway, however the bytes are split."""

from __future__ import annotations

import pytest
from headgate.gateway.ir.event import Wire
from headgate.gateway.passing.leading import Leading, led_back

OUT = (
    '{"a":"results_url","results_url" : "https://gw/x/r?a=é","b":[{"results_url":null},{"results_url":"https://gw/y"}]}'
)
CAME = OUT.replace("https://gw", "https://api.example")


def passed(*pieces: bytes) -> bytes:
    leading = Leading("results_url", lambda url: url.replace("api.example", "gw"), Wire("x", "bytes"))
    chunks = [*map(leading.feed, pieces), leading.close()]
    return b"".join(chunk.raw or b"" for chunk in chunks if chunk is not None)


def test_every_split_of_it_is_the_same() -> None:
    came, out = CAME.encode(), OUT.encode()
    assert passed(came) == passed(*(came[at : at + 1] for at in range(len(came)))) == out
    for at in range(len(came)):
        assert passed(came[:at], came[at:]) == out


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b'{"results_url": "https:\\/\\/api.example\\/r"}',
        b'{"results_url": "' + b"x" * 5000 + b'", "a": 1}',
        b'{"results_url"',
        b'{"results_ur',
        b'{"results_url": 5}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_address_passes_as_it_came(odd: bytes) -> None:
    assert passed(odd) == passed(*(odd[at : at + 7] for at in range(0, len(odd), 7))) == odd


def test_little_is_held() -> None:
    leading = Leading("results_url", str, Wire("x", "bytes"))
    sent = sum(len(chunk.raw or b"") for _ in range(100) if (chunk := leading.feed(b" " * 1000)) is not None)
    assert sent > 99_900


@pytest.mark.parametrize(
    ("url", "root", "base", "back"),
    [
        ("https://api.x/v1/a?b", "https://api.x", "http://gw", "http://gw/v1/a?b"),
        ("https://api.x/v1/a", "https://api.x", "http://gw/llm", "http://gw/llm/v1/a"),
        ("https://proxy/p/v1/a", "https://proxy/p", "http://gw", "http://gw/v1/a"),
        ("https://api.x.evil/v1", "https://api.x", "http://gw", None),
        ("https://other/v1", "https://api.x", "http://gw", None),
        ("//other/v1", "https://api.x", "http://gw", None),
        ("/v1/realtime/calls/r1", "https://api.x", "http://gw", "/v1/realtime/calls/r1"),
        ("/v1/realtime/calls/r1", "https://api.x", "http://gw/llm", "/llm/v1/realtime/calls/r1"),
        ("/p/v1/calls/r1", "https://proxy/p", "http://gw", "/v1/calls/r1"),
    ],
)
def test_back(url: str, root: str, base: str, back: str | None) -> None:
    assert led_back(url, root, base) == back
