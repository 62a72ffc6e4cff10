"""Errors of gemini, both ways: statuses, details, what the SDK makes of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from google.genai import errors as google_errors
from headgate.gateway.codecs.gemini import CODEC
from headgate.gateway.errors import KINDS, STATUS, CallerError, DecodeError, GatewayError, RateLimited, upstream_error

from .gemini_cases import client

RPC = "type.googleapis.com/google.rpc."
KEY = "API key not valid. Please pass a valid API key."
TOO_LONG = "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."


def error(code: int, status: str | None, message: str = "m", *details: dict[str, Any]) -> bytes:
    inner: dict[str, Any] = {"code": code, "message": message}
    if status is not None:
        inner["status"] = status
    if details:
        inner["details"] = details
    return json.dumps({"error": inner}).encode()


def info(reason: str) -> dict[str, Any]:
    return {"@type": f"{RPC}ErrorInfo", "reason": reason, "domain": "googleapis.com"}


def quota(id: str) -> dict[str, Any]:
    return {"@type": f"{RPC}QuotaFailure", "violations": [{"quotaMetric": "m", "quotaId": id}]}


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, error(400, "INVALID_ARGUMENT"), "invalid_request", "INVALID_ARGUMENT"),
        (400, error(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), "permission", None),
        (400, error(400, "INVALID_ARGUMENT", KEY, info("API_KEY_INVALID")), "auth", "API_KEY_INVALID"),
        (400, error(400, "INVALID_ARGUMENT", KEY), "auth", "INVALID_ARGUMENT"),
        (400, error(400, "INVALID_ARGUMENT", TOO_LONG), "context_length", "INVALID_ARGUMENT"),
        (401, error(401, "UNAUTHENTICATED"), "auth", "UNAUTHENTICATED"),
        (403, error(403, "PERMISSION_DENIED"), "permission", "PERMISSION_DENIED"),
        (403, error(403, "PERMISSION_DENIED", "m", info("CONSUMER_SUSPENDED")), "account_disabled", None),
        (403, error(403, "PERMISSION_DENIED", "Your API key was reported as leaked."), "auth", None),
        (404, error(404, "NOT_FOUND"), "not_found", "NOT_FOUND"),
        (413, error(413, "INVALID_ARGUMENT"), "too_large", None),
        (429, error(429, "RESOURCE_EXHAUSTED"), "rate_limit", "RESOURCE_EXHAUSTED"),
        (429, error(429, "RESOURCE_EXHAUSTED", "m", quota("RequestsPerMinutePerProject")), "rate_limit", None),
        (429, error(429, "RESOURCE_EXHAUSTED", "m", quota("GenerateRequestsPerDayPerProject")), "quota", None),
        (429, error(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), "quota", None),
        (499, error(499, "CANCELLED"), "invalid_request", "CANCELLED"),
        (500, error(500, "INTERNAL"), "upstream_error", "INTERNAL"),
        (501, error(501, "UNIMPLEMENTED"), "unsupported", "UNIMPLEMENTED"),
        (503, error(503, "UNAVAILABLE"), "unavailable", "UNAVAILABLE"),
        (503, error(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), "overloaded", None),
        (504, error(504, "DEADLINE_EXCEEDED"), "timeout.total", "DEADLINE_EXCEEDED"),
        (429, b"[" + error(429, "RESOURCE_EXHAUSTED") + b"]", "rate_limit", "RESOURCE_EXHAUSTED"),
        (429, error(429, None), "rate_limit", None),
        (400, b'{"error":"words"}', "invalid_request", None),
        (400, b'{"message":"words"}', "invalid_request", None),
        (418, b"", "invalid_request", None),
        (502, b"<html>", "unavailable", None),
        (599, b"[]", "upstream_error", None),
        (500, b"[" * 3000, "upstream_error", None),
        (500, error(500, "INTERNAL", "m", {"@type": 7}, quota("x")), "upstream_error", None),
    ],
)
def test_errors_of_the_provider(status: int, body: bytes, kind: str, code: str | None) -> None:
    found = CODEC.decode_error(status, {"content-type": "application/json", "x-goog-request-id": "g"}, body)
    assert (found.kind, found.status) == (kind, status)
    assert found.request_id == "g"
    assert found.message
    if code is not None:
        assert found.code == code


@pytest.mark.parametrize(
    ("details", "headers", "seconds"),
    [
        (({"@type": f"{RPC}RetryInfo", "retryDelay": "34.074824224s"},), {}, 34.074824224),
        (({"@type": f"{RPC}RetryInfo", "retryDelay": "34s"},), {"retry-after": "7"}, 7.0),
        (({"@type": f"{RPC}RetryInfo", "retryDelay": "soon"},), {}, None),
        (({"@type": f"{RPC}RetryInfo", "retryDelay": "infs"},), {}, None),
        (({"@type": f"{RPC}RetryInfo"}, 7), {}, None),
        ((), {"retry-after": "2"}, 2.0),
    ],
)
def test_when_to_come_back(details: tuple[Any, ...], headers: dict[str, str], seconds: float | None) -> None:
    found = CODEC.decode_error(429, headers, error(429, "RESOURCE_EXHAUSTED", "m", *details))
    assert found.retry_after_s == seconds


def test_a_providers_own_body_passes_as_it_came() -> None:
    body = b'{ "error" : {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED", "x": 1.0}}'
    for spelled in (body, b"[" + body + b"\n]", b"data: " + body + b"\n\n"):
        found = CODEC.decode_error(429, {}, spelled)
        if spelled.startswith(b"data"):
            found = RateLimited("slow", format="gemini", raw=spelled)
        status, _, out = CODEC.encode_error(found, "r")
        assert (status, out) == (429, body)
    foreign = RateLimited("slow", format="openai.chat", raw=b'{"error":{}}')
    assert b'"RESOURCE_EXHAUSTED"' in CODEC.encode_error(foreign, "r")[2]
    broken = RateLimited("slow", format="gemini", raw=b"[{")
    assert b'"slow"' in CODEC.encode_error(broken, "r")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_an_error_for_the_sdk(kind: Any) -> None:
    status, headers, body = CODEC.encode_error(upstream_error(kind, "what happened", retry_after_s=1.5), "r")
    assert status == STATUS[kind]
    assert headers["retry-after"] == "2"
    told = json.loads(body)["error"]
    assert told["code"] == status
    assert told["details"][0] == {"@type": f"{RPC}ErrorInfo", "reason": kind, "domain": "headgate"}
    assert told["details"][1] == {"@type": f"{RPC}RetryInfo", "retryDelay": "1.5s"}
    asked = client(lambda _: httpx.Response(status, headers=headers, content=body))
    with pytest.raises(google_errors.APIError) as caught:
        asked.models.generate_content(model="m", contents="hi")
    assert (caught.value.code, caught.value.message) == (status, "what happened")
    assert caught.value.status == told["status"]


def test_errors_of_the_caller() -> None:
    status, headers, body = CODEC.encode_error(DecodeError("contents[0].role", "unknown"), "r")
    assert status == 400
    assert "retry-after" not in headers
    assert json.loads(body)["error"]["status"] == "INVALID_ARGUMENT"
    assert json.loads(CODEC.encode_error(CallerError("x", status=0), "r")[2])["error"]["code"] == 502
    told = json.loads(CODEC.encode_error(CallerError("x", kind="unsupported", status=501), "r")[2])["error"]
    assert (told["code"], told["status"]) == (501, "UNIMPLEMENTED")


def test_what_we_write_we_read() -> None:
    first: GatewayError = upstream_error("rate_limit", "slow", retry_after_s=3.0)
    status, headers, body = CODEC.encode_error(first, "r")
    again = CODEC.decode_error(status, headers, body)
    assert (again.kind, again.message, again.retry_after_s) == ("rate_limit", "slow", 3.0)
