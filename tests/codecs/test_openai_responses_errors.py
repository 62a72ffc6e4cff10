"""Errors of openai.responses: response bodies in any shape, events of a stream, and ours."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from headgate.gateway.codecs.base import AnswerContext
from headgate.gateway.codecs.openai_responses import CODEC
from headgate.gateway.errors import (
    KINDS,
    STATUS,
    Cut,
    DecodeError,
    ErrorKind,
    GatewayError,
    Malformed,
    NotFound,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    UpstreamError,
    upstream_error,
)
from headgate.gateway.ir.event import Chunk, PartDelta, PartStart, ResponseStart
from headgate.gateway.ir.message import Text
from openai.types.responses import ResponseErrorEvent, ResponseFailedEvent
from openai.types.responses.response_error import ResponseError

F = "openai.responses"
CONTEXT = AnswerContext(request_id="r1", created=1_700_000_000, model="asked")
SDK_CODES = set(get_args(ResponseError.model_fields["code"].annotation))


def shaped(
    message: str = "no", type: str | None = None, code: str | int | None = None, param: str | None = None
) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": type, "param": param, "code": code}})


def event(kind: str, **members: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **members}).encode())


def failed(code: str | None, message: str = "no", **members: Any) -> bytes:
    error = None if code is None else {"code": code, "message": message}
    response = {"id": "resp_1", "object": "response", "status": "failed", "error": error, "output": [], **members}
    return event("response.failed", sequence_number=1, response=response)


def heard(data: bytes) -> UpstreamError:
    """The error of a stream that begins well and goes on with ``data``."""
    decoder = CODEC.stream_decoder()
    decoder.feed(event("response.created", sequence_number=0, response={"id": "resp_1", "model": "m"}) + data)
    assert decoder.error is not None
    return decoder.error


def payloads(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(frame.partition(b"data: ")[2]) for frame in data.split(b"\n\n") if b"data: " in frame]


# -- what a provider says

BODIES: list[tuple[int, bytes, str, str]] = [
    (429, shaped("You exceeded your quota", "insufficient_quota", "insufficient_quota"), "quota", "You exceeded"),
    (429, shaped("Rate limit reached", "tokens", "rate_limit_exceeded"), "rate_limit", "Rate"),
    (429, shaped("busy"), "rate_limit", "busy"),
    (429, shaped("The usage limit has been reached", "usage_limit_reached"), "quota", "The usage"),
    (400, shaped("too long", "invalid_request_error", "context_length_exceeded", "input"), "context_length", "too"),
    (400, shaped("Your input exceeds the context window of this model."), "context_length", "Your input"),
    (400, shaped("flagged", "invalid_request_error", "content_policy_violation"), "content_filter", "flagged"),
    (400, shaped("Invalid prompt: flagged", "invalid_request_error", "invalid_prompt"), "invalid_request", "Invalid"),
    (400, shaped("bad", "invalid_request_error", "unsupported_parameter", "top_k"), "unsupported", "bad"),
    (400, shaped("unknown", "invalid_request_error", "previous_response_not_found"), "invalid_request", "unknown"),
    (400, shaped("no image", "invalid_request_error", "invalid_image_url"), "invalid_request", "no image"),
    (401, shaped("Incorrect API key", "invalid_request_error", "invalid_api_key"), "auth", "Incorrect"),
    (401, shaped("Your account has been deactivated"), "account_disabled", "Your account"),
    (402, shaped("Insufficient Balance"), "quota", "Insufficient"),
    (403, shaped("no"), "permission", "no"),
    (404, shaped("no such model", "invalid_request_error", "model_not_found"), "not_found", "no such"),
    (408, shaped("late"), "unavailable", "late"),
    (409, shaped("again"), "unavailable", "again"),
    (413, shaped("big"), "too_large", "big"),
    (422, b'{"detail":[{"loc":["body","x"],"msg":"field required"}]}', "invalid_request", "[{"),
    (498, b"", "overloaded", "HTTP 498 without a body"),
    (500, shaped("oops", "server_error"), "upstream_error", "oops"),
    (500, b'{"error":"it broke"}', "upstream_error", "it broke"),
    (502, b"<html><body>Bad gateway</body></html>", "upstream_error", "HTTP 502 with a text/html body"),
    (503, shaped("later"), "unavailable", "later"),
    (503, shaped("overloaded", None, "server_is_overloaded"), "overloaded", "overloaded"),
    (504, b"upstream request timeout", "unavailable", "HTTP 504 with a text/html body"),
    (529, shaped("full"), "overloaded", "full"),
    (500, b"\xff\xfe", "upstream_error", "HTTP 500 with a text/html body"),
    (500, b"[" * 9000, "upstream_error", "HTTP 500"),
    (418, b"{}", "invalid_request", "HTTP 418"),
    (302, b"", "upstream_error", "HTTP 302 without a body"),
]


@pytest.mark.parametrize(("status", "body", "kind", "message"), BODIES)
def test_error_responses(status: int, body: bytes, kind: str, message: str) -> None:
    error = CODEC.decode_error(status, {"content-type": "text/html", "x-request-id": "req_1"}, body)
    assert error.kind == kind
    assert error.message.startswith(message)
    assert error.request_id == "req_1"
    assert error.status == (status if status >= 400 else 502)


def test_what_an_error_keeps() -> None:
    body = shaped("slow", "tokens", "rate_limit_exceeded", "model")
    told = {"retry-after-ms": "1500", "retry-after": "9", "x-ratelimit-remaining-tokens": "0"}
    error = CODEC.decode_error(429, told, body)
    assert isinstance(error, RateLimited)
    assert (error.code, error.param, error.retry_after_s) == ("rate_limit_exceeded", "model", 1.5)
    assert (error.format, error.raw, error.details) == (F, body, msgspec.json.decode(body))
    status, headers, out = CODEC.encode_error(error, "r1")
    assert (status, headers["retry-after"], out) == (429, "2", body)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"}, None),
    ],
)
def test_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    error = CODEC.decode_error(429, headers, shaped("slow"))
    assert error.retry_after_s == seconds
    assert CODEC.encode_error(error, "")[1].get("retry-after") == (None if seconds is None else str(int(seconds)))


@pytest.mark.parametrize("body", [b'{"detail":"no"}', b'[{"error":{"code":429,"message":"slow"}}]', b'{"error":"no"}'])
def test_another_shape_is_not_passed_on(body: bytes) -> None:
    error = CODEC.decode_error(429, {}, body)
    assert error.raw is None
    assert set(msgspec.json.decode(CODEC.encode_error(error, "")[2])["error"]) == {"message", "type", "param", "code"}


def test_a_key_in_a_message_does_not_come_through() -> None:
    body = shaped("Incorrect API key provided: sk-proj-abc123****wxyz.", None, "invalid_api_key")
    told = json.loads(body)["error"]
    for error in (
        CODEC.decode_error(401, {}, body),
        heard(event("error", sequence_number=1, **{**told, "type": "error"})),
    ):
        assert "abc123" not in error.message
        assert error.raw is None
        assert error.details is None
        assert b"abc123" not in CODEC.encode_error(error, "")[2]
        assert b"abc123" not in CODEC.stream_encoder(CONTEXT).close(error)


# -- in a stream

IN_STREAM: list[tuple[bytes, str, str | None]] = [
    (event("error", sequence_number=1, code="rate_limit_exceeded", message="slow", param=None), "rate_limit", None),
    (event("error", sequence_number=1, code=None, message="oops", param=None), "upstream_error", ""),
    (event("error", sequence_number=1, code="server_is_overloaded", message="full", param=None), "overloaded", None),
    (event("error", error={"code": "context_length_exceeded", "message": "long"}), "context_length", None),
    (b'event: error\ndata: {"message":"nameless"}\n\n', "upstream_error", ""),
    (b'data: {"error":{"message":"full","code":529}}\n\n', "overloaded", "529"),
    (failed("server_error"), "upstream_error", "server_error"),
    (failed("rate_limit_exceeded"), "rate_limit", "rate_limit_exceeded"),
    (failed("invalid_prompt"), "invalid_request", "invalid_prompt"),
    (failed("invalid_image_url"), "invalid_request", "invalid_image_url"),
    (failed("image_content_policy_violation"), "content_filter", "image_content_policy_violation"),
    (failed("vector_store_timeout"), "unavailable", "vector_store_timeout"),
    (failed("insufficient_quota"), "quota", "insufficient_quota"),
    (failed("context_length_exceeded"), "context_length", "context_length_exceeded"),
    (failed(None), "upstream_error", ""),
]


@pytest.mark.parametrize(("data", "kind", "code"), IN_STREAM)
def test_errors_in_a_stream(data: bytes, kind: str, code: str | None) -> None:
    error = heard(data)
    assert error.kind == kind
    assert error.status == (529 if code == "529" else STATUS[error.kind])
    if code is not None:
        assert (error.code or "") == code


@pytest.mark.parametrize("code", sorted(SDK_CODES))
def test_every_code_of_the_sdk_means_something(code: str) -> None:
    assert (heard(failed(code)).kind == "upstream_error") is (code == "server_error")


def test_the_providers_event_goes_out_as_it_came() -> None:
    flat = event("error", sequence_number=1, code="server_is_overloaded", message="full", param=None)
    for data in (flat, failed("insufficient_quota", "empty", model="m")):
        error = heard(data)
        assert error.raw == data
        encoder = CODEC.stream_encoder(CONTEXT)
        chunk = CODEC.stream_decoder().feed(event("response.created", sequence_number=0, response={"id": "resp_1"}))
        assert chunk is not None
        encoder.encode(chunk)
        out = encoder.close(error)
        assert out.startswith(data)
        last = payloads(out)[-1]
        assert last["type"] == "response.failed"
        assert last["response"]["id"] == "resp_1"
        assert last["response"]["error"]["code"] == error.code


def test_an_event_becomes_a_body_when_nothing_was_sent_yet() -> None:
    nested = {"message": "long", "code": "context_length_exceeded", "type": "invalid_request_error", "param": "input"}
    cases: list[tuple[bytes, int, dict[str, Any]]] = [
        (event("error", error=nested), 400, nested),
        (
            event("error", sequence_number=1, code="rate_limit_exceeded", message="slow", param=None),
            429,
            {"code": "rate_limit_exceeded", "message": "slow", "param": None, "type": "rate_limit_error"},
        ),
        (failed("server_error"), 502, {"code": "server_error", "message": "no"}),
    ]
    for data, status, told in cases:
        shown, _, body = CODEC.encode_error(heard(data), "r1")
        assert (shown, json.loads(body)) == (status, {"error": told})


def test_a_failed_response_with_status_200() -> None:
    response = json.loads(failed("rate_limit_exceeded", "slow").partition(b"data: ")[2])["response"]
    with pytest.raises(RateLimited, match="slow"):
        CODEC.decode_response(json.dumps(response).encode())
    with pytest.raises(Overloaded):
        CODEC.decode_response(shaped("full", None, "server_is_overloaded"))
    with pytest.raises(Malformed):
        CODEC.decode_response(b'{"status":"completed"}')


# -- ours


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_errors(kind: ErrorKind) -> None:
    status, headers, body = CODEC.encode_error(GatewayError("what happened", kind=kind, param="model"), "r1")
    assert status == STATUS[kind]
    assert headers["content-type"] == "application/json"
    told = msgspec.json.decode(body)["error"]
    assert (told["message"], told["code"], told["param"], told["request_id"]) == ("what happened", kind, "model", "r1")
    assert isinstance(told["type"], str)
    assert CODEC.decode_error(status, {}, body).message == "what happened"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cancelled"])
@pytest.mark.parametrize("started", [False, True])
def test_our_own_errors_in_a_stream(kind: ErrorKind, started: bool) -> None:
    """A failed response that the SDK's types take, and none that ends well."""
    encoder = CODEC.stream_encoder(CONTEXT)
    events = (ResponseStart("id", "m", 7, format="elsewhere"), PartStart(0, Text("")), PartDelta(0, "half"))
    out = encoder.encode(Chunk(events)) if started else b""
    error = upstream_error(kind, "what happened", code="overloaded_error", format="anthropic.messages", raw=b"{}")
    out += encoder.close(error)
    told = payloads(out)
    assert [value["sequence_number"] for value in told] == list(range(len(told)))
    last = ResponseFailedEvent.model_validate(told[-1])
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert last.response.error.code in SDK_CODES
    assert last.response.error.message == "what happened"
    assert bool(last.response.output) is started
    assert b"response.completed" not in out
    assert encoder.close(None) == b""


def test_ours_asks_for_a_retry_only_where_one_helps() -> None:
    for kind in KINDS:
        if kind == "cancelled":
            continue
        code = payloads(CODEC.stream_encoder(CONTEXT).close(upstream_error(kind, "x")))[-1]["response"]["error"]["code"]
        meant = heard(failed(code)).kind
        if upstream_error(kind, "x").retryable:
            assert upstream_error(meant, "x").retryable, kind


def test_types_are_openais() -> None:
    def type_of(error: GatewayError) -> str:
        told = msgspec.json.decode(CODEC.encode_error(error, "")[2])["error"]
        assert isinstance(told["type"], str)
        return str(told["type"])

    assert type_of(DecodeError("input[0].role", "unknown")) == "invalid_request_error"
    assert type_of(NotFound("no route")) == "not_found_error"
    assert type_of(QuotaExceeded("empty")) == "insufficient_quota"
    assert type_of(Cut("gone")) == "server_error"


def test_another_formats_body_is_not_passed_on() -> None:
    error = RateLimited("slow", format="anthropic.messages", raw=b'{"type":"error"}', retry_after_s=0.2)
    _, headers, body = CODEC.encode_error(error, "r1")
    assert msgspec.json.decode(body)["error"]["code"] == "rate_limit"
    assert headers["retry-after"] == "1"


def test_the_fixture_is_what_the_sdk_knows() -> None:
    data = event("error", sequence_number=1, code="rate_limit_exceeded", message="slow", param=None)
    ResponseErrorEvent.model_validate(payloads(data)[0])
