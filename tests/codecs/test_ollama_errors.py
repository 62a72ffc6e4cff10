"""Errors of Ollama: what its words mean, and ours in its shape."""

from __future__ import annotations

import json

import pytest
from headgate.gateway.codecs.ollama import CHAT, GENERATE
from headgate.gateway.errors import GatewayError, RateLimited, TooLarge

CASES: list[tuple[int, bytes, str, str]] = [
    (404, b'{"error":"model \\"nope\\" not found, try pulling it first"}', "not_found", "model"),
    (404, b"404 page not found", "not_found", "404 page"),
    (400, b'{"error":"invalid options: num_ctx"}', "invalid_request", "invalid"),
    (400, b'{"error":"registry.ollama.ai/library/x:latest does not support tools"}', "unsupported", "support"),
    (400, b'{"error":"\\"x\\" does not support thinking"}', "unsupported", "thinking"),
    (400, b'{"error":"the input length exceeds the context length"}', "context_length", "exceeds"),
    (500, b'{"error":"llama runner process has terminated: exit status 2"}', "upstream_error", "runner"),
    (500, b'{"error":"model requires more system memory (9 GiB) than is available"}', "overloaded", "memory"),
    (503, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', "overloaded", "busy"),
    (401, b'{"error":"unauthorized"}', "auth", "unauthorized"),
    (402, b'{"error":"pay"}', "quota", "pay"),
    (429, b'{"error":"you have reached your hourly usage limit"}', "quota", "limit"),
    (429, b'{"error":"slow down"}', "rate_limit", "slow"),
    (403, b'{"error":"no"}', "permission", "no"),
    (413, b"", "too_large", "HTTP 413 without a body"),
    (502, b"<html>bad gateway</html>", "unavailable", "HTTP 502 with"),
    (500, b'{"error":""}', "upstream_error", "HTTP 500 with"),
    (400, b'{"error":{"message":"bad","code":"x"}}', "invalid_request", "bad"),
    (418, b'{"error":"teapot"}', "invalid_request", "teapot"),
    (500, b"\xff\xfe", "upstream_error", "\ufffd"),
    (500, b"[" * 100_000, "upstream_error", "HTTP 500"),
]


@pytest.mark.parametrize(("status", "body", "kind", "words"), CASES)
def test_what_an_error_means(status: int, body: bytes, kind: str, words: str) -> None:
    error = CHAT.decode_error(status, {"retry-after": "3", "content-type": "text/html" if b"<" in body else ""}, body)
    assert (error.kind, error.status, error.retry_after_s) == (kind, status, 3.0)
    assert words in error.message
    told = error.format == "ollama.chat" and body.startswith(b'{"error":"')
    assert (error.raw == body) is told
    # A caller of the same API gets the provider's own words, byte for byte.
    _, headers, sent = GENERATE.encode_error(error, "r1")
    assert headers["retry-after"] == "3"
    assert sent == (
        body if told else json.dumps({"error": error.message}, separators=(",", ":"), ensure_ascii=False).encode()
    )


def test_a_key_in_the_words_is_veiled() -> None:
    body = b'{"error":"invalid key sk-abcdefgh12345"}'
    error = CHAT.decode_error(401, {}, body)
    assert "abcdefgh" not in error.message + repr(error.details) + repr(error.raw)
    assert b"abcdefgh" not in CHAT.encode_error(error, "r1")[2]


@pytest.mark.parametrize(
    "error",
    [RateLimited("slow", retry_after_s=1.5), TooLarge("big"), GatewayError("odd", format="openai.chat", raw=b"{}")],
)
def test_our_errors(error: GatewayError) -> None:
    status, headers, body = CHAT.encode_error(error, "r1")
    assert status == error.status
    assert headers["content-type"].startswith("application/json")
    assert headers.get("retry-after") == ("2" if error.retry_after_s else None)
    assert json.loads(body) == {"error": error.message}
