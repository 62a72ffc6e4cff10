"""Rate-limit headers between formats: nothing lost that the other has a name for, nothing made up."""

from __future__ import annotations

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.failures import error_headers
from headgate.gateway.codecs.limits import for_caller
from headgate.gateway.errors import upstream_error

NOW = 1_763_719_200.25  # 2025-11-21T10:00:00.25Z
OPENAI = ("openai.chat", "openai.responses", "openai.completions")
ANTHROPIC = ("anthropic.messages",)
OTHERS = ("gemini", "ollama.chat", "ollama.generate")

# Values as in the table of OpenAI's page "Rate limits", written 2026-11-21.
OPENAIS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}
OPENAIS_FOR_ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "60",
    "anthropic-ratelimit-tokens-limit": "150000",
    "anthropic-ratelimit-requests-remaining": "59",
    "anthropic-ratelimit-tokens-remaining": "149984",
    "anthropic-ratelimit-requests-reset": "2025-11-21T10:00:02Z",
    "anthropic-ratelimit-tokens-reset": "2025-11-21T10:06:01Z",
}
# Names as in Anthropic's page "Rate limits", written 2026-11-21.
ANTHROPICS = {
    "anthropic-ratelimit-requests-limit": "1000",
    "anthropic-ratelimit-requests-remaining": "999",
    "anthropic-ratelimit-requests-reset": "2025-11-21T10:00:01Z",
    "anthropic-ratelimit-tokens-limit": "96000",
    "anthropic-ratelimit-tokens-remaining": "95000",
    "anthropic-ratelimit-tokens-reset": "2025-11-21T12:06:30+01:00",
    "anthropic-ratelimit-input-tokens-limit": "80000",
    "anthropic-ratelimit-input-tokens-remaining": "80000",
    "anthropic-ratelimit-input-tokens-reset": "2025-11-21T10:00:01Z",
    "anthropic-ratelimit-output-tokens-limit": "16000",
    "anthropic-ratelimit-output-tokens-remaining": "15000",
    "anthropic-ratelimit-output-tokens-reset": "2025-11-21T10:00:01Z",
}
ANTHROPICS_FOR_OPENAI = {
    "x-ratelimit-limit-requests": "1000",
    "x-ratelimit-remaining-requests": "999",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "96000",
    "x-ratelimit-remaining-tokens": "95000",
    "x-ratelimit-reset-tokens": "1h6m30s",
}


def test_every_format_is_thought_of() -> None:
    conversations = {name for name in registry.names("codecs") if name.startswith(("openai.", "anthropic.", "ollama."))}
    assert {*OPENAI, *ANTHROPIC, *OTHERS} - {"gemini"} <= conversations


@pytest.mark.parametrize("format", OPENAI)
def test_openai_callers(format: str) -> None:
    assert for_caller(OPENAIS, format, NOW) == OPENAIS
    assert for_caller(ANTHROPICS, format, NOW) == ANTHROPICS_FOR_OPENAI


@pytest.mark.parametrize("format", ANTHROPIC)
def test_anthropic_callers(format: str) -> None:
    assert for_caller(ANTHROPICS, format, NOW) == ANTHROPICS
    assert for_caller(OPENAIS, format, NOW) == OPENAIS_FOR_ANTHROPIC


@pytest.mark.parametrize("format", OTHERS)
def test_callers_of_formats_without_such_headers(format: str) -> None:
    assert for_caller({**OPENAIS, **ANTHROPICS, "x-should-retry": "false"}, format, NOW) == {"x-should-retry": "false"}


@pytest.mark.parametrize(
    ("reset", "moment"),
    [
        ("0s", "2025-11-21T10:00:01Z"),  # never before it is true
        ("12ms", "2025-11-21T10:00:01Z"),
        ("750ms", "2025-11-21T10:00:01Z"),
        ("751ms", "2025-11-21T10:00:02Z"),
        ("2m59.56s", "2025-11-21T10:03:00Z"),  # Groq's
        ("1h2m3s", "2025-11-21T11:02:04Z"),
        ("24h0m0s", "2025-11-22T10:00:01Z"),
        ("59", None),  # Azure's: seconds there, milliseconds elsewhere
        ("0", None),
        ("1763719260000", None),  # OpenRouter's: a moment
        ("", None),
        ("soon", None),
        ("-1s", None),
        ("1s!", None),
        ("1 s", None),
        ("999999999999h", None),
        ("9" * 400 + "s", None),
    ],
)
def test_durations(reset: str, moment: str | None) -> None:
    told = for_caller({"x-ratelimit-reset-tokens": reset}, "anthropic.messages", NOW)
    assert told == ({} if moment is None else {"anthropic-ratelimit-tokens-reset": moment})


@pytest.mark.parametrize(
    ("reset", "duration"),
    [
        ("2025-11-21T10:00:01Z", "1s"),
        ("2025-11-21T10:00:00.5Z", "1s"),
        ("2025-11-21T09:00:00Z", "0s"),
        ("2025-11-21T10:06:00Z", "6m0s"),
        ("2025-11-22T10:00:00Z", "24h0m0s"),
        ("2025-11-21T10:00:01", None),  # in which part of the world?
        ("2025-11-21", None),
        ("1763719260", None),
        ("tomorrow", None),
        ("9999-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00+14:00", "0s"),
    ],
)
def test_moments(reset: str, duration: str | None) -> None:
    told = for_caller({"anthropic-ratelimit-requests-reset": reset}, "openai.chat", NOW)
    assert told == ({} if duration is None else {"x-ratelimit-reset-requests": duration})


@pytest.mark.parametrize("count", ["-1", "1.5", "", "many", "٣"])
def test_what_is_no_count_is_left_out(count: str) -> None:
    assert for_caller({"x-ratelimit-remaining-tokens": count}, "anthropic.messages", NOW) == {}
    assert for_caller({"anthropic-ratelimit-tokens-limit": count}, "openai.chat", NOW) == {}


@pytest.mark.parametrize(
    "name",
    ["x-ratelimit-limit", "x-ratelimit-reset", "x-ratelimit-limit-req-minute", "x-ratelimit-limit-tokens-prompt"],
)
def test_what_has_no_name_there_is_left_out(name: str) -> None:
    assert for_caller({name: "1"}, "anthropic.messages", NOW) == {}
    assert for_caller({name: "1"}, "openai.responses", NOW) == {name: "1"}


def test_a_provider_of_both_families() -> None:
    both = {"x-ratelimit-limit-requests": "5", "anthropic-ratelimit-requests-limit": "6"}
    assert for_caller({"anthropic-ratelimit-requests-limit": "6"}, "openai.chat", NOW) == {
        "x-ratelimit-limit-requests": "6"
    }
    assert for_caller(both, "openai.chat", NOW) == {"x-ratelimit-limit-requests": "5"}
    turned = dict(reversed(both.items()))
    assert for_caller(turned, "openai.chat", NOW) == {"x-ratelimit-limit-requests": "5"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, "7"),
        ({"retry-after": "0.2"}, "1"),
        ({"retry-after": "Fri, 21 Nov 2025 10:00:07 GMT"}, "7"),
        ({"retry-after": "Fri, 21 Nov 2025 09:00:00 GMT"}, "0"),
        ({"retry-after-ms": "1200"}, "2"),
        ({"retry-after-ms": "1200", "retry-after": "1"}, "1"),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, "0"),
    ],
)
@pytest.mark.parametrize("format", [*OPENAI, *ANTHROPIC, *OTHERS])
def test_retry_after(format: str, headers: dict[str, str], seconds: str | None) -> None:
    told = for_caller(headers, format, NOW)
    assert told.get("retry-after") == seconds
    assert told.get("retry-after-ms") == (headers.get("retry-after-ms") if format not in OTHERS else None)


@pytest.mark.parametrize("format", [*OPENAI, *ANTHROPIC, *OTHERS])
def test_a_wait_told_in_the_body_becomes_a_header(format: str) -> None:
    told = upstream_error("rate_limit", "slow", retry_after_s=34.07)
    assert registry.codec(format).encode_error(told, "r")[1]["retry-after"] == "35"
    told.headers = {"retry-after": "Fri, 21 Nov 2025 10:00:07 GMT"}
    assert "retry-after" not in registry.codec(format).encode_error(told, "r")[1], "the provider's own stays as it is"
    assert "retry-after" not in error_headers(upstream_error("rate_limit", "slow"))


@pytest.mark.parametrize(
    ("wait", "shown"), [(34.07, "34.07s"), (7, "7s"), (0.0004, "0s"), (12345678, "12345678s"), (10, "10s")]
)
def test_a_header_becomes_retry_info(wait: float, shown: str) -> None:
    body = registry.codec("gemini").encode_error(upstream_error("rate_limit", "slow", retry_after_s=wait), "r")[2]
    assert b'"retryDelay":"%b"' % shown.encode() in body
