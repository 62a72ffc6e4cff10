"""What happens around a call: deadlines, retries that nobody waits for, reloads, shutdown, packed answers, odd HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from ..fakes import anthropic_api, openai_api
from ..fakes.gateway import CALLER_KEY, Served, serving
from ..fakes.provider import FakeProvider
from ..fakes.script import Script, Use, script
from .conftest import anthropic_client, openai_client
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI, AnthropicTalk, OpenAITalk, Talk, start

Begin = Callable[..., Talk]
PATHS = {OPENAI: "/v1/chat/completions", ANTHROPIC: "/v1/messages"}
HEADERS = {"Authorization": f"Bearer {CALLER_KEY}", "anthropic-version": "2023-06-01"}
SDK: dict[str, Any] = {OPENAI: openai, ANTHROPIC: anthropic}
from_each = pytest.mark.parametrize("caller", CALLERS)
to_each = pytest.mark.parametrize("to", MODELS)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


def ask(caller: str, to: str, stream: bool = False, **more: Any) -> dict[str, Any]:
    """A request body."""
    body: dict[str, Any] = {"model": MODELS[to], "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    if caller == ANTHROPIC:
        body["max_tokens"] = 99
    return body | more


def begin(served: Served, tls: Any, caller: str, to: str, stream: bool) -> tuple[Any, Talk]:
    """A client of a gateway that a test serves by itself, and a conversation with one question in it."""
    client: Any = openai_client(served, tls) if caller == OPENAI else anthropic_client(served, tls)
    talk: Talk = (OpenAITalk if caller == OPENAI else AnthropicTalk)(client, MODELS[to], stream)
    talk.say("Hi.")
    return client, talk


@to_each
@from_each
async def test_no_content_in_time(provider: FakeProvider, tls: Any, tmp_path: Path, caller: str, to: str) -> None:
    provider.answer(script("x", stall_before=True), script("x", stall_after=1))
    async with serving(provider, tmp_path, first_token="200ms") as served:
        client, talk = begin(served, tls, caller, to, True)
        async with client:
            with pytest.raises(SDK[caller].InternalServerError) as caught:
                await talk.hear()
            assert caught.value.status_code == 504
            with pytest.raises(SDK[caller].APIError):
                await talk.hear()
    assert [received.outcome for received in provider.requests] == ["aborted", "aborted"]


SLOW: dict[str, Script] = {
    "no headers": script("x", stall_before=True),
    "half a body": script("x", stall_after=1),
    "half an error": script(status=500, stall_after=1),
}


@pytest.mark.parametrize("how", SLOW)
@both
@from_each
async def test_every_wait_for_the_provider_ends(
    provider: FakeProvider, tls: Any, tmp_path: Path, caller: str, stream: bool, how: str
) -> None:
    provider.answer(SLOW[how])
    async with serving(provider, tmp_path, total="400ms") as served:
        client, talk = begin(served, tls, caller, OPENAI, stream)
        async with client:
            with pytest.raises(SDK[caller].APIError) as caught:
                async with asyncio.timeout(2):
                    await talk.hear()
    assert not isinstance(caught.value, SDK[caller].APIConnectionError)
    assert provider.last.outcome == "aborted"


@pytest.mark.parametrize("mode", ["standalone", "mounted"])
async def test_a_client_that_leaves_while_a_retry_waits(
    provider: FakeProvider, tls: Any, tmp_path: Path, mode: Any
) -> None:
    provider.answer(script(status=503, headers={"retry-after": "9"}))
    async with serving(provider, tmp_path, mode) as served:
        client, talk = begin(served, tls, OPENAI, OPENAI, True)
        async with client:
            talk.model = "x-gpt-5.4"  # type: ignore[attr-defined]
            task = start(talk.hear())
            await (await provider.received(1)).over.wait()
            await asyncio.sleep(0.05)
            assert served.gateway.in_flight == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(1.2):
                while served.gateway.in_flight:
                    await asyncio.sleep(0.01)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("mode", ["standalone", "mounted"])
@from_each
@both
async def test_shutdown_in_the_middle_is_not_a_clean_end(
    provider: FakeProvider, tls: Any, tmp_path: Path, caller: str, mode: Any, stream: bool
) -> None:
    provider.answer(script("One two three", stall_after=4) if stream else script("x", stall_before=True))
    async with serving(provider, tmp_path, mode) as served:
        client, talk = begin(served, tls, caller, OPENAI, stream)
        async with client:
            task = start(talk.hear())
            await (await provider.received(1)).answering.wait()
            await asyncio.sleep(0.05)
            await served.runner.cleanup()
            with pytest.raises((SDK[caller].APIError, Exception)) as caught:
                await asyncio.wait_for(task, 5)
            assert not isinstance(caught.value, TimeoutError)
        await asyncio.wait_for(provider.last.over.wait(), 1)
    assert provider.last.outcome == "aborted"


@both
async def test_a_reload_disturbs_nobody(provider: FakeProvider, tls: Any, tmp_path: Path, stream: bool) -> None:
    provider.answer(script("One two three", pause_s=0.05, piece=400), script("After."))
    async with serving(provider, tmp_path) as served:
        client, talk = begin(served, tls, ANTHROPIC, OPENAI, stream)
        async with client:
            task = start(talk.hear())
            await provider.received(1)
            for _ in range(3):
                await served.gateway.reload()
            assert (await task).text == "One two three"
            assert (await talk.hear()).text == "After."


@pytest.mark.parametrize("retry_after", [{"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"}, {"retry-after-ms": "1500"}])
@to_each
@from_each
async def test_how_long_to_wait(
    standalone: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, to: str, retry_after: Any
) -> None:
    provider.answer(script(status=429, headers=retry_after))
    response = await http.post(standalone.base + PATHS[caller], json=ask(caller, to), headers=HEADERS)
    assert response.status == 429
    (told,) = response.headers.getall("retry-after")
    if "retry-after-ms" in retry_after:
        assert (told, response.headers["retry-after-ms"]) == ("2", "1500")
    elif caller == to:
        assert told == retry_after["retry-after"]
    else:
        assert int(told) > 1e9


@both
@to_each
@from_each
async def test_a_provider_that_packs_its_answers(
    standalone: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, to: str, stream: bool
) -> None:
    play = script("Grüße 👋", Use("look"))
    if stream and to == OPENAI:
        wire = b"".join(openai_api.frames(play, 1, "m", include_usage=False))
    elif stream:
        wire = b"".join(anthropic_api.frames(play, 1, "m", provider.issued))
    else:
        wire = openai_api.whole(play, 1, "m") if to == OPENAI else anthropic_api.whole(play, 1, "m", provider.issued)
    provider.answer(
        script(wire=gzip.compress(wire), headers={"Content-Encoding": "gzip"}, piece=50 if stream else None)
    )
    response = await http.post(standalone.base + PATHS[caller], json=ask(caller, to, stream), headers=HEADERS)
    answer = await response.read()
    assert response.status == 200
    assert "Content-Encoding" not in response.headers
    if caller == to:
        assert answer == wire
    else:
        # A piece may begin anywhere; no such cut is inside a letter here.
        assert "👋".encode() in answer or "\\ud83d" in answer.decode()


@pytest.mark.parametrize("cut", ["fin", "eof"])
@to_each
@from_each
async def test_a_cut_in_arguments_is_no_call(
    provider: FakeProvider, talk: Begin, caller: str, to: str, cut: Any
) -> None:
    provider.answer(script(Use("look", '{"at": "Rome, the city"}', pieces=8), cut_after=5, cut=cut))
    conversation = talk(caller, MODELS[to], stream=True)
    conversation.tools("look")
    conversation.say("Go.")
    with pytest.raises(SDK[caller].APIError):
        await conversation.hear()


@to_each
@from_each
async def test_what_an_error_in_a_stream_says(
    standalone: Served, provider: FakeProvider, http: aiohttp.ClientSession, caller: str, to: str
) -> None:
    provider.answer(script("One two three", error_after=3))
    response = await http.post(standalone.base + PATHS[caller], json=ask(caller, to, True), headers=HEADERS)
    answer = await response.read()
    assert response.status == 200
    last = answer.rstrip(b"\n").rpartition(b"\n\n")[2]
    error = json.loads(last.partition(b"data: ")[2])["error"]
    assert error["message"]
    assert (b"event: error" in last) is (caller == ANTHROPIC)
    assert b"[DONE]" not in answer
    assert b"message_stop" not in answer
    if caller == to:
        assert answer == provider.last.body
    elif to == ANTHROPIC:
        assert error["code"] == "overloaded"


@to_each
async def test_a_provider_that_tells_no_usage(provider: FakeProvider, talk: Begin, to: str) -> None:
    """OpenAI-likes may ignore include_usage: then nothing is made up but the zeros that Anthropic's SDK cannot do without."""
    if to == ANTHROPIC:
        pytest.skip("usage is no option there")
    frames = openai_api.frames(script("Hi."), 1, "m", include_usage=False)
    provider.answer(script(wire=b"".join(frames)))
    conversation = talk(ANTHROPIC, MODELS[to], stream=True)
    conversation.say("Hi.")
    heard = await conversation.hear()
    assert heard.text == "Hi."
    assert heard.tokens == (0, 0, 0)


async def test_headers_of_the_answer(standalone: Served, provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    more = {"Set-Cookie": "secret=1", "X-Internal": "no", "Server": "provider/1", "x-ratelimit-limit-requests": "5"}
    for stream in (False, True):
        provider.answer(script("Hi.", headers=more))
        response = await http.post(standalone.base + PATHS[OPENAI], json=ask(OPENAI, OPENAI, stream), headers=HEADERS)
        await response.read()
        assert "Set-Cookie" not in response.headers
        assert "X-Internal" not in response.headers
        assert response.headers["Server"] != "provider/1"
        assert response.headers["x-ratelimit-limit-requests"] == "5"
        assert response.headers["headgate-upstream-request-id"] == provider.last.request_id
        assert response.headers["x-request-id"] == provider.last.headers["x-request-id"]


CODING_AGENT: dict[str, Any] = {
    "model": MODELS[ANTHROPIC],
    "max_tokens": 32000,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.197; cch=00000;"},
        {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Long instructions. " * 2000, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}],
    "tools": [
        {
            "name": f"Tool{number}",
            "description": "Does things. " * 200,
            "input_schema": {"type": "object", "properties": {}},
        }
        for number in range(25)
    ],
    "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "thinking": {"type": "enabled", "budget_tokens": 31999},
    "stream": True,
}


async def test_a_coding_agents_request_passes_untouched(
    standalone: Served, provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    assert (await http.head(standalone.base + "/")).status == 200
    headers = {
        "x-api-key": CALLER_KEY,
        "Content-Type": "application/json",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
        "anthropic-dangerous-direct-browser-access": "true",
        "x-app": "cli",
        "X-Claude-Code-Session-Id": "0b8e",
        "x-stainless-retry-count": "0",
    }
    sent = json.dumps(CODING_AGENT).encode()
    assert len(sent) > 90_000
    url = standalone.base + "/v1/messages?beta=true"
    response = await http.post(url, data=sent, headers=headers)
    assert await response.read() == provider.last.body
    assert provider.last.raw == sent
    assert provider.last.query == {"beta": "true"}
    for name in ("anthropic-version", "anthropic-beta", "x-app", "x-claude-code-session-id"):
        assert provider.last.headers[name] == {key.lower(): value for key, value in headers.items()}[name]
    assert provider.last.headers["anthropic-dangerous-direct-browser-access"] == "true"


DOUBLED = [
    b'{"model":"renamed-gpt","model":"gpt-5.4","messages":[{"role":"user","content":"hi"}]}',
    b'{"model":"gpt-5.4","messages":[{"role":"user","content":"hi"}],"model":"renamed-gpt"}',
    b'{"mod\\u0065l":"gpt-5.4","model":"renamed-gpt","messages":[{"role":"user","content":"hi"}]}',
    b'{"model":"renamed-gpt","messages":[{"role":"user","content":"hi"}],"mod\\u0065l":"gpt-secret"}',
]


@pytest.mark.parametrize("sent", DOUBLED)
async def test_a_member_that_stands_twice_fools_nobody(
    standalone: Served, provider: FakeProvider, http: aiohttp.ClientSession, sent: bytes
) -> None:
    """Whichever of two models counted for the route, the provider must not be asked for the other."""
    headers = {**HEADERS, "Content-Type": "application/json"}
    response = await http.post(standalone.base + PATHS[OPENAI], data=sent, headers=headers)
    if response.status == 400:
        assert provider.requests == []
        return
    assert response.status == 200
    renamed = response.headers["headgate-route"] == "gpt-renamed"
    asked = json.loads(sent)["model"]
    assert renamed is (asked == "renamed-gpt")
    pairs = json.loads(provider.last.raw, object_pairs_hook=list)
    models = [value for name, value in pairs if name == "model"]
    # A new name takes the place of both; else the last one counts, as it does for whoever reads JSON into a map.
    assert set(models) == {"gpt-other"} if renamed else models[-1] == asked


async def _raw(served: Served, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(request)
    return reader, writer


def _request(served: Served, body: bytes, head: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    prefix = served.base.partition(str(served.port))[2].encode()
    return (
        b"POST %b/v1/chat/completions %b\r\nhost: x\r\nauthorization: Bearer %b\r\n%bcontent-length: %d\r\n\r\n%b"
        % (
            prefix,
            version,
            CALLER_KEY.encode(),
            b"content-type: application/json\r\n" + head,
            len(body),
            body,
        )
    )


@both
async def test_http_1_0_and_close(served: Served, stream: bool) -> None:
    body = json.dumps(ask(OPENAI, OPENAI, stream)).encode()
    for head, version in ((b"", b"HTTP/1.0"), (b"connection: close\r\n", b"HTTP/1.1")):
        reader, writer = await _raw(served, _request(served, body, head, version))
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.split(b" ")[1] == b"200"
        assert b"Hello!" in answer or b'"ll"' in answer
        if version == b"HTTP/1.0":
            assert b"chunked" not in answer.lower()
            assert b"[DONE]" in answer or not stream
        writer.close()
        await writer.wait_closed()


async def test_pipelined_requests_are_answered_in_order(served: Served, provider: FakeProvider) -> None:
    provider.echo = True
    bodies = []
    for number in range(4):
        body = ask(OPENAI, OPENAI, number % 2 == 1)
        body["messages"][0]["content"] = f"<{number}>"
        bodies.append(_request(served, json.dumps(body).encode(), b"connection: close\r\n" if number == 3 else b""))
    reader, writer = await _raw(served, b"".join(bodies))
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.count(b"HTTP/1.1 200") == 4
    places = [answer.index(b"HTTP/1.1 200 OK", 0)]
    for _ in range(3):
        places.append(answer.index(b"HTTP/1.1 200 OK", places[-1] + 1))
    assert b"<0>" in answer[places[0] : places[1]]
    assert b"<2>" in answer[places[2] : places[3]]
    writer.close()
    await writer.wait_closed()


async def test_expect_100_continue(served: Served, provider: FakeProvider) -> None:
    body = json.dumps(ask(OPENAI, OPENAI)).encode()
    whole = _request(served, body, b"expect: 100-continue\r\nconnection: close\r\n")
    reader, writer = await _raw(served, whole[: -len(body)])
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 100")
    writer.write(body)
    assert b"HTTP/1.1 200" in await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_closes_its_half(served: Served, provider: FakeProvider) -> None:
    """It said all it has to say, and may still read; whatever becomes of it, nothing stays behind."""
    reader, writer = await _raw(served, _request(served, json.dumps(ask(OPENAI, OPENAI)).encode()))
    writer.write_eof()
    await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(2):
        while served.gateway.in_flight:
            await asyncio.sleep(0.01)
