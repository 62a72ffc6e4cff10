"""Errors of anthropic.messages, read from providers and written for callers."""

from __future__ import annotations

import json

import pytest
from anthropic.types import ErrorResponse
from headgate.gateway.codecs.anthropic_messages import CODEC
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.errors import (
    KINDS,
    CallerError,
    Cancelled,
    DecodeError,
    ErrorKind,
    GatewayError,
    Overloaded,
    upstream_error,
)
from pydantic import TypeAdapter


def body(kind: str, message: str = "m", **more: object) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "data", "kind"),
    [
        (400, body("invalid_request_error"), "invalid_request"),
        (400, body("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"), "context_length"),
        (
            400,
            body("invalid_request_error", "input length and `max_tokens` exceed context limit: 199 + 2 > 200"),
            "context_length",
        ),
        (400, body("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), "quota"),
        (400, body("invalid_request_error", "This organization has been disabled."), "account_disabled"),
        (400, body("invalid_request_error", "Output blocked by content filtering policy"), "content_filter"),
        (401, body("authentication_error"), "auth"),
        (402, body("billing_error"), "quota"),
        (403, body("permission_error"), "permission"),
        (403, body("permission_error", details={"error_code": "organization_on_hold"}), "account_disabled"),
        (404, body("not_found_error"), "not_found"),
        (409, body("conflict_error"), "invalid_request"),
        (413, body("request_too_large"), "too_large"),
        (413, body("invalid_request_error"), "too_large"),
        (429, body("rate_limit_error"), "rate_limit"),
        (429, body("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), "quota"),
        (500, body("api_error"), "upstream_error"),
        (503, body("api_error"), "unavailable"),
        (504, body("timeout_error"), "timeout.total"),
        (529, body("overloaded_error"), "overloaded"),
        (418, body("a_new_error"), "invalid_request"),
        (529, body("a_new_error"), "overloaded"),
        (429, b'{"error":{"message":"slow down","type":"tokens","code":"rate_limit_exceeded"}}', "rate_limit"),
        (429, b'{"error":"busy"}', "rate_limit"),
        (404, b'{"detail":"Not Found"}', "not_found"),
        (400, b'{"message":"prompt is too long"}', "context_length"),
        (500, b"", "upstream_error"),
        (502, b"<html>", "unavailable"),
        (503, b"[1]", "unavailable"),
        (500, b'{"error":' * 5000, "upstream_error"),
    ],
)
def test_kinds(status: int, data: bytes, kind: ErrorKind) -> None:
    error = CODEC.decode_error(status, {}, data)
    assert (error.kind, error.status) == (kind, status)
    assert 0 < len(error.message) <= 500


def test_what_a_provider_says_is_kept() -> None:
    data = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"},"request_id":"req_1"}'
    error = CODEC.decode_error(429, {"retry-after": "7", "content-type": "application/json"}, data)
    assert (error.message, error.code, error.request_id) == ("slow", "rate_limit_error", "req_1")
    assert (error.retry_after_s, error.format, error.raw) == (7.0, "anthropic.messages", data)
    assert CODEC.decode_error(429, {"request-id": "req_0"}, data).request_id == "req_0"
    assert CODEC.decode_error(429, {"retry-after-ms": "1500"}, data).retry_after_s == 1.5
    status, headers, written = CODEC.encode_error(error, "ours")
    assert (status, headers["retry-after"], written) == (429, "7", data)


def test_a_page_is_not_repeated() -> None:
    error = CODEC.decode_error(502, {"content-type": "text/html; charset=utf-8"}, b"<html>secret</html>")
    assert error.message == "HTTP 502 with a text/html body"
    assert error.raw is None


def test_of_another_shape_is_not_passed_on() -> None:
    error = CODEC.decode_error(400, {}, b'{"error":{"type":"invalid_request_error","message":"m"}}')
    assert error.raw is None and error.kind == "invalid_request"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_an_error_that_the_sdk_reads(kind: ErrorKind) -> None:
    error = upstream_error(kind, "why", retry_after_s=1.2)
    status, headers, written = CODEC.encode_error(error, "req_9")
    parsed = json.loads(written)
    if kind != "too_large":  # the SDK's union does not list the documented request_too_large
        TypeAdapter(ErrorResponse).validate_json(written)
    assert parsed["request_id"] == "req_9"
    assert (parsed["error"]["message"], parsed["error"]["code"]) == ("why", kind)
    assert headers == {"content-type": "application/json", "retry-after": "2"}
    assert status == (529 if kind == "overloaded" else error.status)
    again = CODEC.decode_error(status, {}, written)
    assert again.kind in (kind, "upstream_error", "timeout.total", "permission", "invalid_request", "unavailable")


def test_a_path_of_the_request() -> None:
    status, _, written = CODEC.encode_error(DecodeError("messages[0].role", "no"), "")
    assert status == 400
    assert json.loads(written) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "messages[0].role: no", "code": "invalid_request"},
    }


FRAME = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'


@pytest.mark.parametrize(
    ("error", "frame"),
    [
        (Overloaded("x", format="anthropic.messages", raw=FRAME), FRAME),
        (
            Overloaded(
                "x", format="anthropic.messages", raw=b'{ "type":"error",\n "error":{"type":"x","message":"m"}}'
            ),
            b'event: error\ndata: {"type":"error","error":{"type":"x","message":"m"}}\n\n',
        ),
        (
            Overloaded("x", format="openai.chat", raw=b"{}"),
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x","code":"overloaded"},'
            b'"request_id":"r"}\n\n',
        ),
        (Cancelled("gone"), b""),
        (
            CallerError("no\nway"),
            b'event: error\ndata: {"type":"error","error":{"type":"invalid_request_error","message":"no\\nway",'
            b'"code":"invalid_request"},"request_id":"r"}\n\n',
        ),
    ],
)
def test_in_a_stream(error: GatewayError, frame: bytes) -> None:
    encoder = CODEC.stream_encoder(AnswerContext(request_id="r"))
    assert encoder.close(error) == frame
    assert encoder.close(None) == b""


def test_a_frame_that_came_before_the_commit_is_a_body() -> None:
    error = Overloaded("x", format="anthropic.messages", raw=FRAME)
    status, _, written = CODEC.encode_error(error, "r")
    assert status == 529
    assert written == b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
