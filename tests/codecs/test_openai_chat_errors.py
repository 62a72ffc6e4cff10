"""Errors of Chat Completions: responses in any shape, and ours."""

from __future__ import annotations

import msgspec
import pytest
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.headers import request_id, retry_after_s
from headgate.gateway.codecs.openai_chat import CODEC
from headgate.gateway.errors import KINDS, STATUS, DecodeError, GatewayError, NotFound, QuotaExceeded, RateLimited

F = "openai.chat"


def shaped(
    message: str = "no", type: str | None = None, code: str | int | None = None, param: str | None = None
) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": type, "param": param, "code": code}})


RESPONSES: list[tuple[int, bytes, str, str]] = [
    (
        429,
        shaped("You exceeded your current quota", "insufficient_quota", "insufficient_quota"),
        "quota",
        "You exceeded",
    ),
    (429, shaped("quota", "insufficient_quota"), "quota", "quota"),
    (429, shaped("Rate limit reached", "tokens", "rate_limit_exceeded"), "rate_limit", "Rate"),
    (429, shaped("busy"), "rate_limit", "busy"),
    (429, shaped("The engine is currently overloaded", "engine_overloaded_error"), "overloaded", "The engine"),
    (400, shaped("too long", "invalid_request_error", "context_length_exceeded"), "context_length", "too long"),
    (
        400,
        shaped("This model's maximum context length is 8192 tokens", "invalid_request_error"),
        "context_length",
        "This",
    ),
    (400, shaped("filtered", None, "content_filter"), "content_filter", "filtered"),
    (400, shaped("bad", "invalid_request_error", None, "messages"), "invalid_request", "bad"),
    (400, shaped("bad", "invalid_request_error", "unsupported_parameter", "top_k"), "unsupported", "bad"),
    (401, shaped("Incorrect API key", "invalid_request_error", "invalid_api_key"), "auth", "Incorrect"),
    (401, shaped("deactivated", "invalid_request_error", "account_deactivated"), "account_disabled", "deactivated"),
    (401, shaped("Your account has been disabled"), "account_disabled", "Your account"),
    (402, shaped("Insufficient Balance", "unknown_error", "invalid_request_error"), "quota", "Insufficient"),
    (403, shaped("no"), "permission", "no"),
    (403, shaped("Web search is disabled"), "permission", "Web"),
    (404, shaped("no such model", "invalid_request_error", "model_not_found"), "not_found", "no such"),
    (404, shaped("nothing here"), "not_found", "nothing"),
    (413, shaped("big"), "too_large", "big"),
    (422, shaped("odd"), "invalid_request", "odd"),
    (500, shaped("oops", "server_error"), "upstream_error", "oops"),
    (502, shaped("bad gateway"), "upstream_error", "bad"),
    (503, shaped("later"), "unavailable", "later"),
    (503, shaped("The server is overloaded"), "overloaded", "The server"),
    (529, shaped("full"), "overloaded", "full"),
    (498, b"", "overloaded", "HTTP 498 without a body"),
    (502, shaped("Provider returned error", None, 502), "upstream_error", "Provider"),
    (
        400,
        b'{"object":"error","message":"bad thing","type":"BadRequestError","code":400}',
        "invalid_request",
        "bad thing",
    ),
    (422, b'{"detail":[{"loc":["body","x"],"msg":"field required"}]}', "invalid_request", "[{"),
    (401, b'{"detail":"Unauthorized"}', "auth", "Unauthorized"),
    (
        400,
        b'[{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT"}}]',
        "auth",
        "API",
    ),
    (500, b'{"error":"it broke"}', "upstream_error", "it broke"),
    (502, b"<html><body>Bad gateway</body></html>", "upstream_error", "HTTP 502 with a text/html body"),
    (504, b"upstream request timeout", "unavailable", "HTTP 504 with a text/html body"),
    (500, b"\xff\xfe", "upstream_error", "HTTP 500 with a text/html body"),
    (500, b"[" * 9000, "upstream_error", "HTTP 500"),
    (418, b"{}", "invalid_request", "HTTP 418"),
    (302, b"", "upstream_error", "HTTP 302 without a body"),
]


@pytest.mark.parametrize(("status", "body", "kind", "message"), RESPONSES)
def test_error_responses(status: int, body: bytes, kind: str, message: str) -> None:
    error = CODEC.decode_error(status, {"content-type": "text/html", "x-request-id": "req_1"}, body)
    assert error.kind == kind and error.message.startswith(message)
    assert error.request_id == "req_1"
    assert error.status == (status if status >= 400 else 502)


def test_what_an_error_keeps() -> None:
    body = shaped("slow", "tokens", "rate_limit_exceeded", "model")
    error = CODEC.decode_error(429, {"retry-after-ms": "1500", "retry-after": "9"}, body)
    assert isinstance(error, RateLimited)
    assert (error.code, error.param, error.retry_after_s) == ("rate_limit_exceeded", "model", 1.5)
    assert (error.format, error.raw, error.details) == (F, body, msgspec.json.decode(body))
    status, headers, out = CODEC.encode_error(error, "r1")
    assert (status, headers["retry-after"], out) == (429, "2", body)


def test_an_array_around_the_error_is_not_our_shape() -> None:
    error = CODEC.decode_error(429, {}, b'[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}]')
    assert (error.kind, error.code, error.raw) == ("rate_limit", "429", None)
    assert CODEC.stream_encoder(AnswerContext()).close(error).startswith(b'data: {"error":{"message":"slow"')


def test_plain_text_is_the_message_and_is_short() -> None:
    error = CODEC.decode_error(503, {"content-type": "text/plain"}, b"no healthy upstream" + b"!" * 5000)
    assert error.message.startswith("no healthy upstream") and len(error.message) == 500
    assert error.raw is None


def test_a_key_in_a_message_does_not_come_through() -> None:
    error = CODEC.decode_error(
        401, {}, shaped("Incorrect API key provided: sk-proj-abc123****wxyz.", None, "invalid_api_key")
    )
    assert "abc123" not in error.message and "wxyz" not in error.message
    assert error.raw is None and error.details is None
    assert b"abc123" not in CODEC.encode_error(error, "")[2]


HEADERS: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
    ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
    ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 60.0),
    ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ({"retry-after": "-3"}, 0.0),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), HEADERS)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now=1792567620.0) == seconds


@pytest.mark.parametrize(
    "name", ["x-request-id", "request-id", "x-amzn-requestid", "x-goog-request-id", "apim-request-id"]
)
def test_request_ids(name: str) -> None:
    assert request_id({"other": "x", name: "id1"}) == "id1"
    assert request_id({"other": "x"}) is None


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_errors(kind: str) -> None:
    status, headers, body = CODEC.encode_error(GatewayError("what happened", kind=kind, param="model"), "r1")  # type: ignore[arg-type]
    assert status == STATUS[kind] and headers["content-type"] == "application/json"  # type: ignore[index]
    told = msgspec.json.decode(body)["error"]
    assert (told["message"], told["code"], told["param"], told["request_id"]) == ("what happened", kind, "model", "r1")
    again = CODEC.decode_error(status, {}, body)
    assert isinstance(told["type"], str) and again.message == "what happened"


def test_types_are_openais() -> None:
    def type_of(error: GatewayError) -> str:
        return msgspec.json.decode(CODEC.encode_error(error, "")[2])["error"]["type"]

    assert type_of(DecodeError("messages[0].role", "unknown")) == "invalid_request_error"
    assert type_of(NotFound("no route")) == "not_found_error"
    assert type_of(QuotaExceeded("empty")) == "insufficient_quota"
    assert type_of(GatewayError("oops")) == "server_error"


def test_another_formats_body_is_not_passed_on() -> None:
    error = RateLimited("slow", format="anthropic.messages", raw=b'{"type":"error"}', retry_after_s=0.2)
    _, headers, body = CODEC.encode_error(error, "r1")
    assert msgspec.json.decode(body)["error"]["code"] == "rate_limit" and headers["retry-after"] == "1"


def test_an_error_frame_becomes_a_body_when_nothing_was_sent_yet() -> None:
    decoder = CODEC.stream_decoder()
    decoder.feed(b'data: {"id":"x","choices":[],"error":{"message":"full","code":529}}\n\n')
    assert decoder.error is not None
    status, _, body = CODEC.encode_error(decoder.error, "r1")
    assert (status, body) == (529, b'{"error":{"message":"full","code":529}}')
