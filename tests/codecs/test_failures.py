"""What errors of all formats have in common: no key gets out, words for what is no error object."""

from __future__ import annotations

import json
import time

import pytest
from headgate.gateway import registry
from headgate.gateway.codecs.headers import retry_after_s

FORMATS = ("openai.chat", "openai.responses", "openai.completions", "anthropic.messages", "gemini", "ollama.chat")
OPENAI = FORMATS[:3]
QUOTED = "Incorrect API key provided: sk-abcdef**********wxyz. Find yours on the page."


def shaped(format: str, message: str) -> bytes:
    """An error of ``format``'s own shape."""
    error: dict[str, object] = {"type": "authentication_error", "message": message, "code": 401, "status": "X"}
    if format == "ollama.chat":
        return json.dumps({"error": message}).encode()
    return json.dumps({"type": "error", "error": error}).encode()


@pytest.mark.parametrize("format", FORMATS)
def test_a_quoted_key_stays_here(format: str) -> None:
    codec = registry.codec(format)
    error = codec.decode_error(401, {}, shaped(format, QUOTED))
    assert (error.kind, error.message) == ("auth", QUOTED.replace("sk-abcdef**********wxyz.", "***"))
    assert error.details is None
    status, _, body = codec.encode_error(error, "r")
    assert status == 401
    assert b"abcdef" not in body
    # The same without a key passes as it came.
    whole = shaped(format, "No.")
    assert codec.encode_error(codec.decode_error(401, {}, whole), "r")[2] == whole


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        ("text/plain", b" slow down \n", "slow down"),
        ("", b"slow down", "slow down"),
        ("text/plain; charset=utf-8", b"no sk-abcdefghij here", "no *** here"),
        ("text/plain", b"x" * 5000, "x" * 500),
        ("text/html", b"<html>", "HTTP 502 with a text/html body"),
        ("text/plain", b"<html>", "HTTP 502 with a text/plain body"),
        ("application/json", b"[]", "HTTP 502 with an application/json body"),
        ("", b"<html>", "HTTP 502 with an unreadable body"),
        ("text/plain", b" ", "HTTP 502 without a body"),
    ],
)
def test_what_is_no_error_object(format: str, content_type: str, body: bytes, message: str) -> None:
    error = registry.codec(format).decode_error(502, {"content-type": content_type}, body)
    assert (error.message, error.raw, error.status) == (message, None, 502)


@pytest.mark.parametrize("format", OPENAI)
@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (402, "insufficient_balance", "m", "quota"),
        (429, "tokens", "m", "rate_limit"),
        (400, "BadRequestError", "m", "invalid_request"),
        (401, "invalid_api_key", "Your account has been deactivated.", "account_disabled"),
        (400, None, "This model's maximum context length is 2049 tokens. Please reduce your prompt.", "context_length"),
    ],
)
def test_openais_formats_know_the_same_words(
    format: str, status: int, code: str | None, message: str, kind: str
) -> None:
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}})
    assert registry.codec(format).decode_error(status, {}, body.encode()).kind == kind


@pytest.mark.parametrize("told", ["1_0", "\u0661\u0660", "1 0", "0x10", "nan", "inf", "soon", ""])
def test_no_number_that_anybody_means(told: str) -> None:
    assert retry_after_s({"retry-after": told}) is None


@pytest.mark.parametrize(("told", "seconds"), [("7, 20", 20.0), ("20,7", 20.0), ("soon, 3", 3.0), ("3, -1", 3.0)])
def test_the_longest_of_several(told: str, seconds: float) -> None:
    assert retry_after_s({"retry-after": told}) == seconds


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows keeps its time zone")
@pytest.mark.parametrize("zone", ["GMT", "-0000", ""])
def test_a_date_is_one_of_utc_wherever_we_are(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        date = f"Sat, 21 Nov 2026 10:00:10 {zone}".strip()
        assert retry_after_s({"retry-after": date}, 1795255200.0) == 10.0
    finally:
        monkeypatch.undo()
        time.tzset()
