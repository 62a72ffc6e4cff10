"""Each status of each provider, and each error in a stream, as the exception of each official SDK: over sockets, both ways.

The rows of docs/errors.md as users meet them: the class they catch, its status, and our word for it.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anthropic
import httpx
import ollama
import openai
import pytest
from google.genai import errors as google

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .test_formats import PROVIDERS, caller, served, to
from .voices import CALLERS, Refused

OPENAI: Final = {"openai.chat", "openai.responses", "openai.completions"}
KINDS: Final[dict[int, str]] = {
    400: "invalid_request",
    401: "auth",
    403: "permission",
    404: "not_found",
    408: "timeout.total",
    413: "too_large",
    429: "rate_limit",
    500: "upstream_error",
    502: "unavailable",
    503: "unavailable",
    529: "overloaded",
}
OTHER_KINDS: Final[dict[tuple[str, int], str]] = {
    **{(name, 408): "unavailable" for name in (*OPENAI, "ollama.chat")},
    **{(name, 502): "upstream_error" for name in OPENAI},
    ("gemini", 529): "unavailable",
}
"""Where a provider means something else by a status: OpenAI's SDK asks again after a 408; Google has no 529."""
CLASSES: Final[dict[str, dict[int, Any]]] = {
    "openai": {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        408: openai.APIStatusError,
        413: openai.APIStatusError,
        429: openai.RateLimitError,
        500: openai.InternalServerError,
        502: openai.InternalServerError,
        503: openai.InternalServerError,
        529: openai.InternalServerError,
    },
    "anthropic": {
        400: anthropic.BadRequestError,
        401: anthropic.AuthenticationError,
        403: anthropic.PermissionDeniedError,
        404: anthropic.NotFoundError,
        408: anthropic.RequestTimeoutError,
        413: anthropic.RequestTooLargeError,
        429: anthropic.RateLimitError,
        500: anthropic.InternalServerError,
        502: anthropic.InternalServerError,
        503: anthropic.ServiceUnavailableError,
        529: anthropic.OverloadedError,
    },
    "gemini": {status: google.ClientError if status < 500 else google.ServerError for status in KINDS},
    "ollama": dict.fromkeys(KINDS, ollama.ResponseError),
}
IN_STREAM: Final = {
    "openai.chat": "upstream_error",
    "openai.responses": "upstream_error",
    "openai.completions": "upstream_error",
    "anthropic.messages": "overloaded",
    "gemini": "unavailable",
    "ollama.chat": "upstream_error",
}
"""What the error frame of each fake provider means."""
TYPES: Final = {"upstream_error": "api_error", "overloaded": "overloaded_error", "unavailable": "api_error"}
"""Anthropic's words for them."""
WAIT: Final = {"retry-after": "7"}


def _family(name: str) -> str:
    return name.partition(".")[0]


def _headers(error: Any) -> Any:
    """The headers of the response that an SDK's exception shows; Ollama's shows none."""
    return None if isinstance(error, ollama.ResponseError) else error.response.headers


@to
@caller
async def test_statuses(provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, to: str) -> None:
    async with served(provider, tmp_path) as base:
        for status, kind in KINDS.items():
            for stream in (False, True):
                provider.answer(script(status=status, error_message="No.", headers=WAIT if status == 429 else {}))
                with pytest.raises(Refused) as refused:
                    await CALLERS[caller](base, to, stream, False, tls)
                error: Any = refused.value.__cause__
                assert type(error) is CLASSES[_family(caller)][status], (status, stream, repr(error))
                assert refused.value.status == status
                assert "No." in refused.value.message
                if (headers := _headers(error)) is None:
                    continue
                assert headers["headgate-error"] == OTHER_KINDS.get((to, status), kind), status
                assert headers.get("retry-after") == ("7" if status == 429 else None)


@to
@caller
async def test_errors_in_a_stream(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, caller: str, to: str
) -> None:
    provider.answer(script("One two three four five six.", error_after=2))
    async with served(provider, tmp_path) as base:
        with pytest.raises(Refused) as refused:
            await CALLERS[caller](base, to, True, False, tls)
    error: Any = refused.value.__cause__
    kind, family = IN_STREAM[to], _family(caller)
    own = caller == to or family == _family(to) == "ollama"
    if family == "openai":
        # Not in the status: the stream had begun. The SDK raises for the object ``error``, of whatever class the server means.
        assert type(error) is (RuntimeError if caller == "openai.responses" else openai.APIError)
        assert own or caller == "openai.responses" or error.code == kind
    elif family == "anthropic":
        assert type(error) is anthropic.APIStatusError
        assert error.body["error"]["type"] == TYPES[kind]
        assert own or error.body["error"]["code"] == kind
    elif family == "gemini":
        assert type(error) is google.ServerError
        assert error.status == ("UNAVAILABLE" if kind in ("overloaded", "unavailable") else "INTERNAL")
        assert own or error.details["error"]["details"][0]["reason"] == kind
    else:
        assert type(error) is ollama.ResponseError
        assert error.error


@to
async def test_errors_in_a_stream_of_responses(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, to: str
) -> None:
    """The events that OpenAI's SDK hands on: by them its users know."""
    provider.answer(script("One two three four five six.", error_after=2))
    http = openai.DefaultAsyncHttpxClient(verify=tls)
    async with served(provider, tmp_path) as base:
        client = openai.AsyncOpenAI(api_key=CALLER_KEY, base_url=base + "/v1", max_retries=0, http_client=http)
        async with client:
            events: list[Any] = [
                event async for event in await client.responses.create(model=to, input="Hi.", stream=True)
            ]
    last = events[-1]
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error.code == "server_error"
    assert last.response.error.message
    if to == "openai.responses":  # the provider's own event passes as it came, before
        assert (events[-2].type, events[-2].code, events[-2].sequence_number) == ("error", "server_error", 99)
    assert "response.completed" not in {event.type for event in events}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_limits_are_told_in_the_callers_words(
    provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext, stream: bool
) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    openais = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "-1",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "6m0s",
        "x-ratelimit-reset-requests": "59",
    }
    anthropics = {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "many",
        "anthropic-ratelimit-tokens-remaining": "0",
        "anthropic-ratelimit-tokens-reset": soon,
        "anthropic-ratelimit-input-tokens-limit": "9",
    }

    async def told(caller: str, to: str, headers: dict[str, str]) -> dict[str, str]:
        provider.answer(script(status=429, headers=headers))
        with pytest.raises(Refused) as refused:
            await CALLERS[caller](base, to, stream, False, tls)
        error: Any = refused.value.__cause__
        found = {name: error.response.headers[name] for name in error.response.headers if "ratelimit" in name}
        return {**found, "retry-after": error.response.headers.get("retry-after")}

    date = "Fri, 21 Nov 2036 10:00:00 GMT"
    async with served(provider, tmp_path) as base:
        same = await told("openai.chat", "openai.chat", {**openais, "retry-after": date})
        assert same == {**openais, "retry-after": date}
        assert await told("openai.responses", "openai.chat", openais) == {**openais, "retry-after": None}
        other = await told("anthropic.messages", "openai.chat", {**openais, "retry-after-ms": "1500"})
        reset = datetime.fromisoformat(other.pop("anthropic-ratelimit-tokens-reset")) - datetime.now(UTC)
        assert timedelta(minutes=5) < reset <= timedelta(minutes=6, seconds=1)
        assert other == {
            "anthropic-ratelimit-requests-limit": "60",
            "anthropic-ratelimit-tokens-remaining": "0",
            "retry-after": "2",
        }
        other = await told("openai.chat", "anthropic.messages", {**anthropics, "retry-after": "4"})
        assert other.pop("x-ratelimit-reset-tokens")[:2] in ("1h", "2h")
        assert other == {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-tokens": "0",
            "retry-after": "4",
        }
        assert await told("gemini", "openai.chat", {**openais, "retry-after": "4"}) == {"retry-after": "4"}


async def test_limits_of_answers_too(provider: FakeProvider, tmp_path: Path) -> None:
    key = {"authorization": f"Bearer {CALLER_KEY}"}
    ask = {"model": "openai.chat", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi."}]}
    async with served(provider, tmp_path) as base, httpx.AsyncClient(headers=key) as http:
        for stream in (False, True):
            provider.answer(*[script("Hi.", headers={"x-ratelimit-limit-tokens": "5"})] * 2)
            answer = await http.post(base + "/v1/messages", json={**ask, "stream": stream})
            assert answer.headers["anthropic-ratelimit-tokens-limit"] == "5"
            assert "x-ratelimit-limit-tokens" not in answer.headers
            answer = await http.post(base + "/v1/chat/completions", json={**ask, "stream": stream})
            assert answer.headers["x-ratelimit-limit-tokens"] == "5"


async def test_retry_info_becomes_retry_after(provider: FakeProvider, tmp_path: Path, tls: ssl.SSLContext) -> None:
    wait = '{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}'
    body = '{"error": {"code": 429, "message": "Slow.", "status": "RESOURCE_EXHAUSTED", "details": [' + wait + "]}}"
    async with served(provider, tmp_path) as base:
        for caller in ("openai.chat", "openai.responses", "anthropic.messages"):
            provider.answer(script(status=429, wire=body.encode()))
            with pytest.raises(Refused) as refused:
                await CALLERS[caller](base, "gemini", False, False, tls)
            assert _headers(refused.value.__cause__)["retry-after"] == "35"


def test_every_provider_has_its_frame() -> None:
    assert IN_STREAM.keys() == PROVIDERS.keys()
