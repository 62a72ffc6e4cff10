"""What a collector is told of every kind of call, and that it can be away without anybody noticing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from headgate.gateway.call import Attempt, Call, Decision, Step
from headgate.gateway.errors import UpstreamError
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.telemetry.context import read_traceparent, read_tracestate
from headgate.gateway.telemetry.noting import Over
from headgate.gateway.telemetry.otlp import Envelope, encode_span
from headgate.gateway.telemetry.reading import settings_of
from headgate.gateway.telemetry.span import Event, Fixed, Span
from headgate.gateway.telemetry.usual import Usual
from headgate.middlewares.trace import Trace, TraceOptions
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, use_span

from ..fakes.collector import Collector, Seen, collecting, read
from ..fakes.files_api import FilesProvider
from ..fakes.gateway import CALLER_KEY
from ..fakes.operations_api import OperationsProvider
from ..fakes.provider import KEY, FakeProvider
from ..fakes.script import Say, Tokens, script
from ..server.house import CHAT, MESSAGES, House, body_of, serving, until

RULES = """
server: {{anonymous: allow}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, passthrough: true,
    chain: [{{retry: {{tries: 2, backoff: 1ms}}}}]}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
  gone: {{adapter: openai, base_url: "http://127.0.0.1:9/v1", key: env:TEST_PROVIDER_KEY}}
  cohere: {{adapter: cohere, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
chains:
  auth: [{{auth: {{keys: [{{name: me, key: env:TEST_CALLER_KEY, tenant: acme, team: blue}}]}}}}]
  traced: [{{trace: {trace}}}, {{chain: auth}}{more}]
targets:
  falls: {{select: [{{use: gone}}], on_failure: [{{kinds: [connect], use: openai/gpt-2nd}}]}}
routes:
  - {{name: claude, match: {{model: "claude-*"}}, chain: traced, to: anthropic}}
  - {{name: falls, match: {{model: falls}}, chain: traced, to: falls}}
  - {{name: rerank, match: {{model: "rerank-*"}}, chain: traced, to: cohere}}
  - {{name: files, match: {{path: "/v1/files*"}}, chain: traced, to: openai}}
  - {{name: rest, chain: traced, to: openai}}
"""
HEADERS = {"Authorization": f"Bearer {CALLER_KEY}", "Content-Type": "application/json"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(autouse=True)
def both_ways(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Whatever is written the short way in any of these tests comes to what the long way writes."""
    short, seen = Usual._short, []

    def compared(usual: Usual, over: Over) -> bytes | None:
        written = short(usual, over)
        if written is not None:
            assert written == b"".join(map(encode_span, usual.builder.spans(over.record())))
            seen.append(written)
        return written

    monkeypatch.setattr(Usual, "_short", compared)
    return seen


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own."""
    for name in ("OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_HEADERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


def rules(collector: Collector | str, base: str, trace: str = "", more: str = "") -> str:
    endpoint = collector if isinstance(collector, str) else collector.base
    options = f'{{endpoint: "{endpoint}"{", " if trace else ""}{trace}}}'
    return RULES.format(base=base, trace=options, more=f", {more}" if more else "")


def trace_of(house: House) -> Trace:
    """The middleware of the rules in force."""
    (found,) = [each for each in house.gateway.plan.members.values() if isinstance(each, Trace)]
    return found


async def told(house: House, collector: Collector, count: int = 1) -> Seen:
    """Have everything exported; return the latest call's span."""
    await house.idle()
    trace_of(house).outlet.flush()
    return (await collector.until(count))[-1]


async def ask(
    http: aiohttp.ClientSession, house: House, path: str = CHAT, *, headers: dict[str, str] | None = None, **body: Any
) -> tuple[int, bytes]:
    response = await http.post(house.base + path, data=body_of(**body), headers={**HEADERS, **(headers or {})})
    return response.status, await response.read()


# -- every path


@both
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("model", ["gpt-x", "claude-fake-4-5"])
async def test_an_answer(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    path: str,
    model: str,
    stream: bool,
) -> None:
    provider.answer(script("Hello", tokens=Tokens(fresh=10, cached=30, output=7, reasoning=3), model="real-1"))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        await ask(http, house, path, stream=stream, model=model, temperature=0.5)
        call = await told(house, collector)
    (attempt,) = collector.attempts(call)
    translated = (path == CHAT) != (model == "gpt-x")
    vendor = "openai" if model == "gpt-x" else "anthropic"
    about = call.attributes
    assert (call.name, call.kind, call.parent_id, call.failed) == (f"chat {model}", "SERVER", "", False)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": vendor,
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.model": "real-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 30,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": path,
        "headgate.route": "rest" if vendor == "openai" else "claude",
        "headgate.upstream": vendor,
        "headgate.format": "openai.chat" if path == CHAT else "anthropic.messages",
        "headgate.key": "me",
        "headgate.tenant": "acme",
        "headgate.team": "blue",
        "headgate.attempts": 1,
    }
    assert {name: about.get(name) for name in expected} == expected
    assert about["gen_ai.response.id"]
    assert about["headgate.request.id"]
    assert "error.type" not in about
    if vendor == "openai":
        assert about["gen_ai.usage.reasoning.output_tokens"] == 3
    assert about.get("gen_ai.request.stream") is (True if stream else None)
    assert ("gen_ai.response.time_to_first_chunk" in about) is stream
    assert call.happened == (["headgate.first_token"] if stream else [])
    assert (attempt.name, attempt.kind, attempt.failed) == (f"chat {model}", "CLIENT", False)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": vendor,
        "gen_ai.request.model": model,
        "gen_ai.response.model": "real-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": int(provider.base.rpartition(":")[2]),
        "headgate.upstream": vendor,
        "headgate.attempt": 1,
        "headgate.format": {"openai": "openai.chat", "anthropic": "anthropic.messages"}[vendor],
    }
    assert {name: attempt.attributes.get(name) for name in expected} == expected
    assert not any(name.startswith("gen_ai.usage") for name in attempt.attributes)
    assert attempt.attributes["gen_ai.response.id"] == about["gen_ai.response.id"]
    assert call.started_ns <= attempt.started_ns <= attempt.ended_ns <= call.ended_ns
    assert provider.last.headers["traceparent"] == f"00-{call.trace_id}-{attempt.span_id}-01"
    assert call.resource["service.name"] == "headgate"
    assert call.scope == "headgate"
    assert translated == (attempt.attributes["headgate.format"] != about["headgate.format"])
    secrets(collector)


def secrets(collector: Collector) -> None:
    """No key stands in any span."""
    for body in collector.raw:
        assert KEY.encode() not in body
        assert CALLER_KEY.encode() not in body
        assert b"sk-" not in body


@both
async def test_a_retry(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector, stream: bool
) -> None:
    provider.answer(script(status=503), script("Second."))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        assert (await ask(http, house, stream=stream))[0] == 200
        call = await told(house, collector)
    first, second = collector.attempts(call)
    assert [each.attributes["http.response.status_code"] for each in (first, second)] == [503, 200]
    assert (first.failed, first.attributes["error.type"]) == (True, "overloaded")
    assert (second.failed, second.attributes["headgate.cause"]) == (False, "retry")
    assert "gen_ai.response.id" not in first.attributes
    assert [name for name in call.happened if name != "headgate.first_token"] == ["headgate.retry"]
    assert call.events[0][2] == {"headgate.attempt": 2, "headgate.upstream": "openai", "error.type": "overloaded"}
    assert (call.failed, call.attributes["headgate.attempts"]) == (False, 2)
    sent = [received.headers["traceparent"].split("-")[2] for received in provider.requests]
    assert sent == [first.span_id, second.span_id]


async def test_a_retry_inside_a_stream(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector
) -> None:
    provider.answer(script("x", error_after=1), script("Second."))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        assert (await ask(http, house, stream=True))[0] == 200
        call = await told(house, collector)
    first, second = collector.attempts(call)
    assert (first.attributes["http.response.status_code"], first.failed) == (200, True)
    assert first.ended_ns <= second.started_ns
    assert call.happened == ["headgate.retry", "headgate.first_token"]


@both
async def test_a_fallback(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector, stream: bool
) -> None:
    provider.answer(script("Well."))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        assert (await ask(http, house, stream=stream, model="falls"))[0] == 200
        call = await told(house, collector)
    first, second = collector.attempts(call)
    assert (first.attributes["headgate.upstream"], first.attributes["server.port"]) == ("gone", 9)
    assert (first.failed, first.attributes["error.type"]) == (True, "connect")
    assert "http.response.status_code" not in first.attributes
    assert (second.name, second.attributes["headgate.cause"]) == ("chat gpt-2nd", "fallback")
    assert "headgate.fallback" in call.happened
    assert call.attributes["headgate.upstream"] == "openai"


@both
async def test_a_continuation(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector, stream: bool
) -> None:
    tokens = Tokens(fresh=10, output=5)
    provider.answer(script("One, ", stop="length", tokens=tokens), script("two.", tokens=tokens))
    async with serving(tmp_path, rules(collector, provider.base, more="continue")) as house:
        assert (await ask(http, house, stream=stream))[0] == 200
        call = await told(house, collector)
    first, second = collector.attempts(call)
    assert any(span.name == "continue round" for span in collector.below(call))
    assert (second.attributes["headgate.cause"], first.failed, second.failed) == ("continue", False, False)
    assert first.ended_ns <= second.started_ns
    assert "headgate.continuation" in call.happened
    assert call.attributes["headgate.rounds"] == 1
    assert call.attributes["gen_ai.usage.output_tokens"] == 10
    assert call.attributes["gen_ai.response.finish_reasons"] == ["stop"]


async def test_a_kept_answer(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector
) -> None:
    provider.answer(script("Once."))
    async with serving(tmp_path, rules(collector, provider.base, more="cache")) as house:
        for _ in range(2):
            assert (await ask(http, house))[0] == 200
        hit = await told(house, collector, 2)
    assert (hit.attributes["headgate.cache"], collector.calls[0].attributes["headgate.cache"]) == ("hit", "miss")
    assert hit.attributes["headgate.attempts"] == 0
    assert not collector.attempts(hit)
    assert hit.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert "gen_ai.usage.input_tokens" not in hit.attributes  # nothing was spent
    assert collector.calls[0].attributes["gen_ai.usage.input_tokens"] == 10


@both
async def test_refusals(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector, stream: bool
) -> None:
    async with serving(tmp_path, rules(collector, provider.base, more="{limit: {requests: 1/day}}")) as house:
        assert (await ask(http, house, stream=stream))[0] == 200
        assert (await ask(http, house, stream=stream))[0] == 429
        assert (await ask(http, house, stream=stream, headers={"Authorization": "Bearer sk-stranger"}))[0] == 401
        await told(house, collector, 3)
    _, limited, stranger = collector.calls
    for call, status, kind in ((limited, 429, "rate_limit"), (stranger, 401, "auth")):
        assert (call.attributes["http.response.status_code"], call.attributes["error.type"]) == (status, kind)
        assert not call.failed  # a server did as it should: 4xx leave the status of its span alone
        assert not collector.attempts(call)
    assert "headgate.tenant" not in stranger.attributes
    secrets(collector)


@both
@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request"), (500, "upstream_error"), (529, "overloaded")])
async def test_an_error_of_the_provider(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    stream: bool,
    status: int,
    kind: str,
) -> None:
    provider.answer(script(status=status, error_message=f"your key {KEY} is odd"))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        seen, _ = await ask(http, house, MESSAGES, stream=stream, model="claude-fake-4-5")
        call = await told(house, collector)
    (attempt,) = collector.attempts(call)
    assert (call.attributes["error.type"], call.attributes["http.response.status_code"]) == (kind, seen)
    assert call.failed is (status >= 500)
    assert (attempt.failed, attempt.attributes["error.type"]) == (True, kind)
    assert attempt.attributes["http.response.status_code"] == status
    secrets(collector)


@pytest.mark.parametrize("fault", ["cut", "error"])
async def test_a_failure_inside_a_stream(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector, fault: str
) -> None:
    play = {"cut": script(Say("a b c d", 4), cut_after=3), "error": script(Say("a b c d", 4), error_after=3)}[fault]
    provider.answer(play)
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        status, _ = await ask(http, house, stream=True)
        call = await told(house, collector)
    (attempt,) = collector.attempts(call)
    assert (status, call.attributes["http.response.status_code"]) == (200, 200)
    assert call.failed and attempt.failed
    assert call.attributes["error.type"] == attempt.attributes["error.type"]
    assert call.attributes["error.type"] == ("cut" if fault == "cut" else call.attributes["error.type"])
    assert call.attributes["gen_ai.response.finish_reasons"] == ["error"]
    assert call.happened == ["headgate.first_token"]


@both
async def test_a_caller_that_leaves(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector, stream: bool
) -> None:
    provider.answer(script(Say("a b c d", 4), stall_after=2) if stream else script("x", stall_before=True))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        asked = http.post(house.base + CHAT, data=body_of(stream=stream), headers=HEADERS)
        if stream:
            response = await asked
            await response.content.readany()
            response.close()
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await asked
        call = await told(house, collector)
    (attempt,) = collector.attempts(call)
    assert call.attributes["error.type"] == "cancelled"
    assert attempt.attributes["error.type"] == "cancelled"
    assert call.attributes.get("http.response.status_code") == (200 if stream else None)  # what the caller saw
    assert not call.failed and not attempt.failed
    assert attempt.ended_ns <= call.ended_ns


async def test_operations(tmp_path: Path, http: aiohttp.ClientSession, collector: Collector) -> None:
    runner = web.ServerRunner(web.Server(OperationsProvider().serve), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with serving(tmp_path, rules(collector, base)) as house:
        given = {"model": "embed-x", "input": ["a", "bc"], "dimensions": 4, "encoding_format": "float"}
        response = await http.post(house.base + "/v1/embeddings", json=given, headers=HEADERS)
        assert response.status == 200
        call = await told(house, collector)
        given = {"model": "rerank-x", "query": "q", "documents": ["a", "b"]}
        response = await http.post(house.base + "/v1/rerank", json=given, headers=HEADERS)
        assert response.status == 200
        ranked = await told(house, collector, 2)
    await runner.cleanup()
    (attempt,) = collector.attempts(call)
    for span in (call, attempt):
        assert span.name == "embeddings embed-x"
        assert span.attributes["gen_ai.operation.name"] == "embeddings"
        assert span.attributes["gen_ai.provider.name"] == "openai"
    assert call.attributes["gen_ai.usage.input_tokens"] > 0
    assert call.attributes["gen_ai.embeddings.dimension.count"] == 4
    assert call.attributes["gen_ai.request.encoding_formats"] == ["float"]
    assert (ranked.name, ranked.attributes["gen_ai.provider.name"]) == ("rerank rerank-x", "cohere")


async def test_what_is_passed_on(tmp_path: Path, http: aiohttp.ClientSession, collector: Collector) -> None:
    async with FilesProvider() as provider, serving(tmp_path, rules(collector, provider.base)) as house:
        url = f"{house.base}/v1/files?access_token={CALLER_KEY}&purpose=x"
        response = await http.get(url, headers={"Authorization": HEADERS["Authorization"], "traceparent": PARENT})
        assert response.status == 200, await response.read()
        await response.read()
        call = await told(house, collector)
        (attempt,) = collector.attempts(call)
        assert provider.last.headers["traceparent"] == f"00-{call.trace_id}-{attempt.span_id}-01"
    assert (call.name, call.attributes["url.path"]) == ("passthrough", "/v1/files")
    assert (call.attributes["http.request.method"], call.attributes["headgate.format"]) == ("GET", "openai.passthrough")
    assert (call.trace_id, call.parent_id) == (PARENT[3:35], PARENT[36:52])
    assert attempt.attributes["http.response.status_code"] == 200
    secrets(collector)


async def test_a_socket_that_is_passed_on(tmp_path: Path, http: aiohttp.ClientSession, collector: Collector) -> None:
    async with FilesProvider() as provider, serving(tmp_path, rules(collector, provider.base)) as house:
        url = house.base + "/v1/realtime?model=gpt-realtime"
        async with http.ws_connect(url, headers={"Authorization": HEADERS["Authorization"]}) as socket:
            await socket.send_str("hello")
            await socket.receive(timeout=5)
        call = await told(house, collector)
    (attempt,) = collector.attempts(call)
    assert (call.name, attempt.attributes["http.response.status_code"]) == ("passthrough gpt-realtime", 101)
    assert attempt.ended_ns == call.ended_ns
    assert call.happened == []
    assert "gen_ai.response.finish_reasons" not in call.attributes


async def test_a_turn_of_a_socket(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector
) -> None:
    provider.answer(script("One."), script("Two."))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        async with http.ws_connect(house.base + CHAT, headers={**HEADERS, "traceparent": PARENT}) as socket:
            for _ in range(2):
                await socket.send_str(body_of(stream=True).decode())
                async for message in socket:
                    if message.data == "[DONE]" or '"finish_reason":"stop"' in message.data:
                        break
            await until(lambda: len(provider.requests) == 2)
        await told(house, collector, 2)
    one, two = collector.calls
    assert one.span_id != two.span_id
    for call in (one, two):
        (attempt,) = collector.attempts(call)
        assert (call.name, call.parent_id, attempt.kind) == ("chat m", PARENT[36:52], "CLIENT")
        assert call.happened == ["headgate.first_token"]


async def test_what_middlewares_did(tmp_path: Path, collector: Collector, call_of: Callable[..., Call]) -> None:
    trace = Trace(TraceOptions(endpoint=collector.base))
    await trace.start()

    async def call_next(call: Call) -> Reply:
        attempt = call.attempt("pool")
        attempt.status, attempt.ended_s, attempt.error, attempt.account = 429, 0.2, "rate_limit", "first"
        hedged = call.replace(cause="hedge").attempt("pool")
        hedged.status, hedged.ended_s, hedged.account = 200, 0.3, "second"
        call.decision.steps.append(Step("rotate", "parked", 0.1, 0.2, {"account": "first", "for_s": 1.5, "all": False}))
        return Reply(Listed([]), call.scope)

    call = call_of()
    await (await trace(call, call_next)).collect()
    await trace.stop()
    (span,) = collector.calls
    spans = collector.below(span)
    step = next(each for each in spans if each.kind == "INTERNAL")
    assert (step.name, step.ended_ns - step.started_ns) == ("rotate parked", pytest.approx(1e8, rel=0.01))
    assert step.attributes["headgate.rotate.account"] == "first"
    assert step.attributes["headgate.rotate.for_s"] == 1.5
    assert step.attributes["headgate.rotate.all"] is False
    assert (span.happened, span.attributes["headgate.account.id"]) == (["headgate.hedge"], "second")
    accounts = [each.attributes["headgate.account.id"] for each in spans if each.kind == "CLIENT"]
    assert sorted(accounts) == ["first", "second"]


# -- W3C Trace Context


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c8031_c-b7ad6b7169203331-01",
        "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
        " 0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ],
)
def test_what_is_no_traceparent(value: str) -> None:
    assert read_traceparent(value) is None


def test_traceparents() -> None:
    assert read_traceparent(PARENT) == (PARENT[3:35], PARENT[36:52], 1)
    assert read_traceparent(PARENT[:-2] + "00") == (PARENT[3:35], PARENT[36:52], 0)
    later = "cc" + PARENT[2:] + "-what-the-future-will-be-like"
    assert read_traceparent(later) == (PARENT[3:35], PARENT[36:52], 1)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("congo=t61rcWkgMzE, rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
        ("fw529a3039@dt=FfEf", "fw529a3039@dt=FfEf"),
        ("", ""),
        ("no-value", ""),
        ("a=1,a=2", ""),
        ("A=1", ""),
        ("a=b\r\nx-evil: 1", ""),
        ("a=" + "x" * 600, ""),
        (",".join(f"k{number}=v" for number in range(33)), ""),
    ],
)
def test_tracestates(value: str, read: str) -> None:
    assert read_tracestate(value) == read


@pytest.mark.parametrize(
    ("how", "given", "sample", "joined", "exported", "flag"),
    [
        ("follow", PARENT, 0.0, True, True, "01"),
        ("follow", PARENT[:-2] + "00", 1.0, True, False, "00"),
        ("follow", PARENT.replace("0af", "0AF"), 1.0, False, True, "01"),
        ("join", PARENT[:-2] + "00", 1.0, True, True, "01"),
        ("join", PARENT, 0.0, True, False, "00"),
        ("ignore", PARENT[:-2] + "00", 1.0, False, True, "01"),
    ],
)
async def test_whose_trace_it_is(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    how: str,
    given: str,
    sample: float,
    joined: bool,
    exported: bool,
    flag: str,
) -> None:
    async with serving(tmp_path, rules(collector, provider.base, f"parent: {how}, sample: {sample}")) as house:
        await ask(http, house, headers={"traceparent": given, "tracestate": "congo=t61rcWkgMzE"})
        sent = provider.last.headers.getall("traceparent")
        if exported:
            call = await told(house, collector)
            assert (call.parent_id == given[36:52], call.trace_id == given[3:35]) == (joined, joined)
            assert call.state == ("congo=t61rcWkgMzE" if joined else "")
            assert bool(call.flags & 0x200) is joined
    assert len(sent) == 1
    assert (sent[0][3:35] == given[3:35], sent[0][36:52] == given[36:52], sent[0][-2:]) == (joined, False, flag)
    assert provider.last.headers.getall("tracestate", []) == (["congo=t61rcWkgMzE"] if joined else [])
    assert len(collector.calls) == exported


# -- sampling


class Kept:
    """An exporter that keeps spans; ``fails`` says why it does not."""

    where = "memory"
    takes_bytes = False

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.fails = ""

    def export(self, spans: Any) -> str:
        if not self.fails:
            self.spans += spans
        return self.fails

    def close(self) -> None: ...


async def run(trace: Trace, call: Call, error: UpstreamError | None = None) -> None:
    async def call_next(call: Call) -> Reply:
        if error is not None:
            raise error
        return Reply(Listed([]), call.scope)

    if error is None:
        await (await trace(call, call_next)).collect()
        return
    with pytest.raises(UpstreamError):
        await trace(call, call_next)


async def test_sampling_by_trace_id(call_of: Callable[..., Call]) -> None:
    kept = Kept()
    trace = Trace(TraceOptions(sample=0.25), kept)
    await trace.start()
    for number in range(400):
        # By what is said of it, the last half of an id is random.
        parent = f"00-{'a' * 16}{number * (1 << 64) // 400:016x}-{'b' * 16}-01"
        await run(Trace(TraceOptions(sample=0.25, parent="join"), kept), call_of({"traceparent": parent}))
        joining = Trace(TraceOptions(sample=0.25, parent="join"), kept)
        joining.outlet = trace.outlet
        await run(joining, call_of({"traceparent": parent}))
    await trace.stop()
    assert len(kept.spans) == 100
    assert trace.exported == 100


async def test_errors_and_slow_calls_are_exported_always(call_of: Callable[..., Call]) -> None:
    kept = Kept()
    trace = Trace(TraceOptions(sample=0, slow=10.0), kept)  # type: ignore[arg-type]  # a Duration is a float
    await trace.start()
    await run(trace, call_of())
    await run(trace, call_of(), UpstreamError("x"))
    slow = call_of()
    slow.began -= 11
    await run(trace, slow)
    quiet = Trace(TraceOptions(sample=0, errors=False), kept)
    quiet.outlet = trace.outlet
    await run(quiet, call_of(), UpstreamError("x"))
    await trace.stop()
    assert [(span.failed, span.flags) for span in kept.spans] == [(True, 0), (False, 0)]


async def test_one_span_for_a_call(call_of: Callable[..., Call]) -> None:
    kept = Kept()
    trace = Trace(TraceOptions(), kept)
    await trace.start()

    async def again(call: Call) -> Reply:
        async def call_next(call: Call) -> Reply:
            return Reply(Listed([]), call.scope)

        return await trace(call, call_next)

    await (await trace(call_of(), again)).collect()
    await trace.stop()
    assert len(kept.spans) == 1


# -- content


@both
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_content(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    path: str,
    stream: bool,
) -> None:
    provider.answer(script("Hello you."))
    async with serving(tmp_path, rules(collector, provider.base, "content: true")) as house:
        await ask(http, house, path, stream=stream, text="Who is there?")
        call = await told(house, collector)
    assert json.loads(call.attributes["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Who is there?"}]}
    ]
    assert json.loads(call.attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello you."}], "finish_reason": "stop"}
    ]


async def test_instructions_tools_and_bounds(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector
) -> None:
    messages = [
        {"role": "user", "content": "old " * 1000},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "sea"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "waves"}]},
    ]
    body = {"model": "gpt-x", "max_tokens": 9, "system": "Be brief.", "messages": messages}
    async with serving(tmp_path, rules(collector, provider.base, "content: true, max_content: 1KB")) as house:
        response = await http.post(house.base + MESSAGES, json=body, headers=HEADERS)
        assert response.status == 200
        call = await told(house, collector)
    assert json.loads(call.attributes["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be brief."}]
    old, use, result = json.loads(call.attributes["gen_ai.input.messages"])
    assert use["parts"] == [{"type": "tool_call", "id": "t1", "name": "look", "arguments": {"at": "sea"}}]
    assert result["parts"] == [{"type": "tool_call_response", "id": "t1", "response": "waves"}]
    assert old["parts"][0]["truncated"] is True
    assert len(call.attributes["gen_ai.input.messages"]) < 1400


async def test_inside_redact_no_secret_is_captured(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector
) -> None:
    provider.echo = True
    inner = f'{{endpoint: "{collector.base}", content: true}}'
    text = f"""
    server: {{anonymous: allow}}
    upstreams: {{openai: {{adapter: openai, base_url: "{provider.base}/v1", key: env:TEST_PROVIDER_KEY}}}}
    routes: [{{name: all, chain: [{{redact: {{kinds: [email]}}}}, {{trace: {inner}}}], to: openai}}]
    """
    async with serving(tmp_path, text) as house:
        assert (await ask(http, house, text="I am ann@example.org"))[0] == 200
        call = await told(house, collector)
    assert "I am <" in call.attributes["gen_ai.input.messages"]
    assert "I am <" in call.attributes["gen_ai.output.messages"]
    assert b"example.org" not in b"".join(collector.raw)


async def test_nothing_is_captured_unless_asked(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector
) -> None:
    provider.answer(script("an uncommon answer"))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        await ask(http, house, text="an uncommon question")
        await told(house, collector)
    assert b"uncommon" not in b"".join(collector.raw)


# -- the collector


async def test_headers_compression_and_resource(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_COLLECTOR_KEY", "sk-collectors-key")
    options = (
        "headers: {x-key: env:TEST_COLLECTOR_KEY}, compression: gzip, timeout: 3s, service: gate, "
        "resource: {deployment.environment.name: test}"
    )
    async with serving(tmp_path, rules(collector, provider.base, options)) as house:
        await ask(http, house)
        call = await told(house, collector)
    assert collector.headers[0]["x-key"] == "sk-collectors-key"
    assert collector.headers[0]["content-encoding"] == "gzip"
    assert collector.paths == ["/v1/traces"]
    assert call.resource["service.name"] == "gate"
    assert call.resource["deployment.environment.name"] == "test"
    assert call.resource["telemetry.sdk.language"] == "python"
    secrets(collector)


async def test_the_environment_says_where(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.base)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    async with serving(tmp_path, RULES.format(base=provider.base, trace="{}", more="")) as house:
        await ask(http, house)
        call = await told(house, collector)
    assert call.resource["service.name"] == "theirs"


async def test_a_collector_that_is_away(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    collector.status = 400
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        trace = trace_of(house)
        for lost in range(1, 4):
            assert (await ask(http, house))[0] == 200
            trace.outlet.flush()
            await until(lambda lost=lost: trace.failed == lost)
        collector.status = 200
        await ask(http, house)
        await told(house, collector)
        await until(lambda: trace.exported == 1)
    said = [record.getMessage() for record in caplog.records if record.name == "headgate.trace"]
    assert len(said) == 2
    assert "spans do not reach http://127.0.0.1" in said[0] and ("HTTP 400" in said[0] or "it was refused" in said[0])
    assert "those of 3 calls were lost" in said[1]
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []
    assert (trace.exported, trace.failed, trace.dropped) == (1, 3, 0)


async def test_a_collector_that_answers_nothing_holds_nobody_up(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    collector.stalled = asyncio.Event()
    async with serving(tmp_path, rules(collector, provider.base, "queue: 3")) as house:
        trace = trace_of(house)
        for _ in range(5):
            assert (await ask(http, house))[0] == 200
            trace.outlet.flush()
        assert (trace.dropped, trace.exported) == (2, 0)
        collector.stalled.set()
        await collector.until(3)
        await until(lambda: trace.exported == 3)
    said = [record.getMessage() for record in caplog.records if record.name == "headgate.trace"]
    assert len(said) == 2
    assert "more calls wait than it takes" in said[0]
    assert "those of 2 calls were lost" in said[1]


async def test_what_waits_is_exported_at_the_end(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    both_ways: list[bytes],
) -> None:
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        await ask(http, house)
        await house.idle()
    assert len(collector.calls) == len(both_ways) == 1


async def test_the_end_does_not_wait_for_a_collector_for_ever(
    call_of: Callable[..., Call],
    collector: Collector,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headgate.gateway.telemetry.outlet.FLUSH_S", 0.05)
    collector.stalled = asyncio.Event()
    trace = Trace(TraceOptions(endpoint=collector.base))
    await trace.start()
    await run(trace, call_of())
    async with asyncio.timeout(3):
        await trace.stop()
    assert trace.dropped == 1
    assert "spans of 1 calls did not reach" in caplog.text


async def test_a_collector_that_sends_elsewhere_did_not_take_them(
    call_of: Callable[..., Call], collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 307
    trace = Trace(TraceOptions(endpoint=collector.base))
    await trace.start()
    await run(trace, call_of())
    trace.outlet.flush()
    await until(lambda: trace.failed == 1)
    await trace.stop()
    assert "HTTP 307" in caplog.text


async def test_what_a_collector_answers_is_not_read_for_ever(call_of: Callable[..., Call]) -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for endless in (False, False, True):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                while endless:
                    writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                    await writer.drain()
                writer.write(b"2\r\n{}\r\n0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    trace = Trace(TraceOptions(endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    await trace.start()
    for count in range(1, 4):
        await run(trace, call_of())
        trace.outlet.flush()
        await until(lambda count=count: trace.exported == count)
    await trace.stop()
    server.close()
    assert connections == 1


def test_the_process_does_not_wait_for_a_collector_for_ever(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        where = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        (tmp_path / "routes.yaml").write_text(
            f"""
            version: 1
            server: {{anonymous: allow}}
            upstreams: {{sim: {{adapter: simulator}}}}
            routes: [{{name: a, chain: [{{trace: {{endpoint: "{where}", timeout: 1h}}}}], to: sim}}]
            """
        )
        program = """if True:
            import asyncio, sys
            from headgate.gateway.server.gateway import Gateway
            from headgate.gateway.telemetry import outlet

            async def main():
                outlet.FLUSH_S = 0.05
                gateway = Gateway.load(sys.argv[1])
                body = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}'
                await (await gateway.handle("openai.chat", body)).collect()
                await gateway.aclose()

            asyncio.run(main())
            print("over")
        """
        command = [sys.executable, "-c", program, str(tmp_path / "routes.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


async def test_batches(call_of: Callable[..., Call], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    sizes: list[int] = []
    kept.export = lambda spans: sizes.append(len(list(spans))) or ""  # type: ignore[method-assign,func-returns-value]
    monkeypatch.setattr("headgate.gateway.telemetry.outlet.BATCH", 10)
    trace = Trace(TraceOptions(), kept)
    await trace.start()
    for _ in range(25):
        await run(trace, call_of())
    await trace.stop()
    assert sizes == [10, 10, 5]


@pytest.mark.parametrize("content", [False, True], ids=["written at once", "in the thread"])
async def test_one_that_cannot_be_told_costs_the_others_nothing(
    call_of: Callable[..., Call], collector: Collector, caplog: pytest.LogCaptureFixture, content: bool
) -> None:
    trace = Trace(TraceOptions(endpoint=collector.base, content=content))
    await trace.start()
    for number in range(5):
        call = call_of()
        call.decision.attempts.append(Attempt("a", "m", 0.0))
        if number == 2:
            call.decision.upstream = []  # type: ignore[assignment]  # nothing that a span could hold, nor a table look up
        await run(trace, call)
    trace.outlet.flush()
    await collector.until(4)
    await until(lambda: (trace.exported, trace.failed) == (4, 1))
    await trace.stop()
    assert "the spans of 1 calls could not be built" in caplog.text


async def test_what_waits_does_not_wait_for_long(
    call_of: Callable[..., Call], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.gateway.telemetry.outlet.EVERY_S", 0.01)
    trace = Trace(TraceOptions(endpoint=collector.base))
    await trace.start()
    for count in range(1, 3):
        for _ in range(20):  # more than are built without a pause
            await run(trace, call_of())
        await collector.until(20 * count)
    await until(lambda: trace.exported == 40)
    await trace.stop()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.middlewares.trace.is_installed", lambda: False)
    with pytest.raises(ValueError, match=r"needs the extra otel: pip install"):
        Trace(TraceOptions())


async def test_what_waits_is_bounded_in_bytes(call_of: Callable[..., Call], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.gateway.telemetry.outlet.MAX_BYTES", 10_000)
    trace = Trace(TraceOptions(), Kept())
    await trace.start()
    for _ in range(10):
        await run(trace, call_of())
    assert 0 < trace.dropped < 10
    await trace.stop()
    assert trace.exported + trace.dropped == 10


@both
async def test_a_first_token_is_of_a_stream(
    tmp_path: Path, http: aiohttp.ClientSession, collector: Collector, stream: bool
) -> None:
    """Also where the answer that nobody wanted as a stream came in pieces; both ways of writing spans agree on it."""
    text = f"""
    server: {{anonymous: allow}}
    upstreams: {{sim: {{adapter: simulator}}}}
    routes: [{{name: a, chain: [{{trace: {{endpoint: "{collector.base}"}}}}], to: sim}}]
    """
    async with serving(tmp_path, text) as house:
        assert (await ask(http, house, stream=stream))[0] == 200
        call = await told(house, collector)
        assert call.happened == (["headgate.first_token"] if stream else [])


@pytest.mark.parametrize("fails", [False, True], ids=["usual", "built"])
async def test_what_callers_choose_is_not_kept(
    tmp_path: Path, http: aiohttp.ClientSession, collector: Collector, fails: bool
) -> None:
    """Names of models are as long as requests may be, and what spans have in common is remembered by them."""
    text = f"""
    server: {{anonymous: allow}}
    upstreams:
      sim: {{adapter: simulator}}
      gone: {{adapter: openai, base_url: "http://127.0.0.1:9", key: env:TEST_PROVIDER_KEY}}
    routes: [{{name: a, chain: [{{trace: {{endpoint: "{collector.base}"}}}}], to: {"gone" if fails else "sim"}}}]
    """
    async with serving(tmp_path, text) as house:
        for number in range(12):
            if number == 2:
                gc.collect()
                tracemalloc.start()
            assert (await ask(http, house, model=f"{number}{'m' * 1_000_000}"))[0] == (502 if fails else 200)
        await told(house, collector, 12)
        await until(lambda: trace_of(house).exported == 12)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert kept < 4_000_000
    assert {len(call.attributes["gen_ai.request.model"]) for call in collector.calls} == {256}


async def test_a_reload_goes_on_with_the_same_way_out(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector
) -> None:
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        before = trace_of(house)
        await ask(http, house)
        house.rewrite(rules(collector, provider.base, "sample: 0.5, slow: 0ms"))
        await house.gateway.reload()
        after = trace_of(house)
        assert after is not before
        assert after.outlet is before.outlet
        await ask(http, house)
        await told(house, collector, 2)
        house.rewrite(rules(collector, provider.base, "service: other"))
        await house.gateway.reload()
        assert trace_of(house).outlet is not after.outlet
        await ask(http, house)
        call = await told(house, collector, 3)
    assert call.resource["service.name"] == "other"


async def test_gateways_share_nothing(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector
) -> None:
    async with collecting() as other:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        async with (
            serving(tmp_path / "a", rules(collector, provider.base)) as one,
            serving(tmp_path / "b", rules(other, provider.base)) as two,
        ):
            await ask(http, one)
            await ask(http, two, model="gpt-other")
            assert (await told(one, collector)).name == "chat m"
            assert (await told(two, other)).name == "chat gpt-other"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": "collector:4318"}, "must begin with http"),
        ({"endpoint": "http://user:pass@collector:4318"}, "must hold no credentials"),
    ],
)
def test_endpoints_that_are_none(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Trace(TraceOptions(**options))
    assert "pass@" not in str(caught.value)


# -- the application's own


class Memory(SpanExporter):
    """Keeps what the application's processors export."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


@both
async def test_the_providers_processors_of_the_application(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    memory = Memory()
    theirs = TracerProvider(resource=Resource({"service.name": "host"}), shutdown_on_exit=False)
    theirs.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", theirs)
    host = web.Application(middlewares=[_instrumented(theirs)])
    provider.answer(script(status=503), script("Well."))
    async with serving(tmp_path, RULES.format(base=provider.base, trace="{}", more=""), host=host) as house:
        # What the application makes of the caller's context counts, not the header behind its back.
        assert (await ask(http, house, stream=stream, headers={"traceparent": PARENT}))[0] == 200
        await house.idle()
        trace = trace_of(house)
        trace.outlet.flush()
        await until(lambda: len(memory.spans) == 4)
    outer = next(span for span in memory.spans if span.name == "their request")
    call = next(span for span in memory.spans if span.name == "chat m" and span.kind is SpanKind.SERVER)
    first, second = [span for span in memory.spans if span.kind is SpanKind.CLIENT]
    assert outer.context is not None and call.context is not None and call.parent is not None
    assert (call.parent.span_id, call.parent.is_remote) == (outer.context.span_id, False)
    assert call.context.trace_id == outer.context.trace_id
    assert call.resource.attributes["service.name"] == "host"
    assert call.attributes is not None and call.attributes["gen_ai.usage.output_tokens"] == 5
    assert [event.name for event in call.events][:1] == ["headgate.retry"]
    for attempt in (first, second):
        assert attempt.parent is not None and attempt.parent.span_id == call.context.span_id
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert second.context is not None
    assert provider.last.headers["traceparent"].split("-")[2] == f"{second.context.span_id:016x}"
    assert collector.paths == []


def _instrumented(theirs: TracerProvider) -> Any:
    @web.middleware
    async def instrument(request: web.Request, handler: Any) -> web.StreamResponse:
        with theirs.get_tracer("theirs").start_as_current_span("their request"):
            answer: web.StreamResponse = await handler(request)
            return answer

    return instrument


async def test_an_application_that_has_only_read_whose_trace_it_is(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory()
    theirs = TracerProvider(shutdown_on_exit=False)
    theirs.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", theirs)

    @web.middleware
    async def read(request: web.Request, handler: Any) -> web.StreamResponse:
        found = SpanContext(int(PARENT[3:35], 16), int(PARENT[36:52], 16), True, TraceFlags(1))
        with use_span(NonRecordingSpan(found)):
            answer: web.StreamResponse = await handler(request)
            return answer

    host = web.Application(middlewares=[read])
    async with serving(tmp_path, RULES.format(base=provider.base, trace="{}", more=""), host=host) as house:
        await ask(http, house)
        await house.idle()
        trace_of(house).outlet.flush()
        await until(lambda: len(memory.spans) == 2)
    (call,) = [span for span in memory.spans if span.kind is SpanKind.SERVER]
    assert call.parent is not None
    assert (f"{call.parent.span_id:016x}", call.parent.is_remote) == (PARENT[36:52], True)


async def test_a_named_endpoint_passes_the_application_by(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Memory()
    theirs = TracerProvider(shutdown_on_exit=False)
    theirs.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", theirs)
    async with serving(tmp_path, rules(collector, provider.base), host=web.Application()) as house:
        await ask(http, house)
        assert (await told(house, collector)).resource["service.name"] == "headgate"
    assert memory.spans == []


async def test_by_the_exporters_public_face_it_is_the_same(
    call_of: Callable[..., Call], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An SDK without the member that takes bytes: its own encoder must say what ours says."""

    async def call_next(call: Call) -> Reply:
        first = call.attempt("one")
        first.status, first.ended_s, first.error = 503, 0.1, "overloaded"
        second = call.replace(cause="fallback").attempt("two")
        second.status, second.ended_s, second.span_id = 200, 0.2, "b" * 16
        first.span_id = "a" * 16
        return Reply(Listed([]), call.scope)

    call = call_of({"traceparent": PARENT, "tracestate": "congo=1"})
    monkeypatch.setattr("headgate.middlewares.trace.span_id", lambda: f"{0xC0FFEE:016x}")
    for public in (False, True):
        trace = Trace(TraceOptions(endpoint=collector.base))
        await trace.start()
        if public:
            trace.outlet._exporter._send = None  # type: ignore[union-attr]
        trace.outlet._exporter.takes_bytes = False
        await (await trace(call.replace(decision=Decision("r", "route")), call_next)).collect()
        await trace.stop()
    ours, theirs = collector.spans[:3], collector.spans[3:]
    assert len(ours) == len(theirs) == 3
    for mine, other in zip(ours, theirs, strict=True):
        same = {
            "name",
            "kind",
            "trace_id",
            "span_id",
            "parent_id",
            "attributes",
            "failed",
            "state",
            "resource",
            "scope",
        }
        assert {key: getattr(mine, key) for key in same} == {key: getattr(other, key) for key in same}
        assert mine.happened == other.happened
        assert mine.flags & 0x300 == other.flags & 0x300


async def test_switched_off_by_the_environment(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        await ask(http, house)
        assert len(provider.last.headers["traceparent"]) == 55
    assert collector.paths == []


async def test_values_that_are_no_unicode(call_of: Callable[..., Call], collector: Collector) -> None:
    trace = Trace(TraceOptions(endpoint=collector.base))
    await trace.start()

    async def call_next(call: Call) -> Reply:
        call.decision.attempts.append(Attempt("openai", "m\udcff" * 500, 0.0, 0.1, 200, None, "id \udcff"))
        return Reply(Listed([]), call.scope)

    await (await trace(call_of(), call_next)).collect()
    await trace.stop()
    (attempt,) = collector.attempts(collector.calls[0])
    assert attempt.attributes["headgate.upstream.request.id"] == "id ?"
    assert len(attempt.attributes["gen_ai.request.model"]) == 256


HUGE = b'{"seed": 100000000000000000000000000000000, "max_tokens": -100000000000000000000000000000000}'


@pytest.mark.parametrize("public", [False, True])
async def test_numbers_that_no_span_can_hold(call_of: Callable[..., Call], collector: Collector, public: bool) -> None:
    trace = Trace(TraceOptions(endpoint=collector.base))
    await trace.start()
    if public:
        trace.outlet._exporter._send = None  # type: ignore[union-attr]
        trace.outlet._exporter.takes_bytes = False
    await run(trace, call_of().replace(body=HUGE))
    await trace.stop()
    about = collector.calls[0].attributes
    assert (about["gen_ai.request.seed"], about["gen_ai.request.max_tokens"]) == (2**63 - 1, -(2**63))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff{}",
        b'{"temperature": "hot"}',
        b'{"top_k": 1e999}',
        b'{"stop": [1]}',
        b'{"stop_sequences": {}}',
        b'{"x": ' + b"[" * 7000 + b"]" * 7000 + b"}",
        b'{"generationConfig": 1}',
    ],
)
def test_bodies_that_are_no_requests(body: bytes) -> None:
    assert settings_of(body) == []


def test_settings_of_every_format() -> None:
    gemini = {"generationConfig": {"maxOutputTokens": 5, "topK": 3, "stopSequences": ["a"], "candidateCount": 2}}
    ollama = {"options": {"num_predict": 5, "seed": 1, "stop": "a"}}
    chat = {"max_completion_tokens": 5, "n": 1, "stop": "a", "response_format": {"type": "json_object"}}
    responses = {"max_output_tokens": 5, "reasoning": {"effort": "low"}, "previous_response_id": "resp_1"}
    messages = {"max_tokens": 5, "top_k": 3, "stop_sequences": ["a"], "output_config": {"effort": "high"}}
    found = [dict(settings_of(json.dumps(each).encode())) for each in (gemini, ollama, chat, responses, messages)]
    assert [each.pop("gen_ai.request.max_tokens") for each in found] == [5] * 5
    stops = {"gen_ai.request.stop_sequences": ("a",)}
    assert found == [
        {"gen_ai.request.top_k": 3, **stops, "gen_ai.request.choice.count": 2},
        {"gen_ai.request.seed": 1, **stops},
        {**stops, "gen_ai.output.type": "json"},
        {"gen_ai.request.reasoning.level": "low", "gen_ai.request.previous_response.id": "resp_1"},
        {"gen_ai.request.top_k": 3, **stops, "gen_ai.request.reasoning.level": "high"},
    ]


@pytest.mark.parametrize("cut", range(9))
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_cut_at_every_event(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, collector: Collector, path: str, cut: int
) -> None:
    provider.answer(script(Say("a b", 2), cut_after=cut))
    async with serving(tmp_path, rules(collector, provider.base)) as house:
        status, _ = await ask(http, house, path, stream=True, model="claude-fake-4-5")
        call = await told(house, collector)
    (attempt,) = collector.attempts(call)
    assert len(collector.calls) == 1
    assert call.attributes["http.response.status_code"] == status
    assert (call.failed, attempt.failed) == ("error.type" in call.attributes, "error.type" in attempt.attributes)
    assert call.failed is attempt.failed is (b"message_stop" not in provider.last.body)


HEDGED = """
server: {{anonymous: allow}}
upstreams:
  one: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  two: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
targets:
  quick: {{select: [{{use: one}}], hedge: {{after: 50ms, use: two/claude-fake-4-5, max_extra: 100%}}}}
routes: [{{name: all, chain: [{{trace: {{endpoint: "{collector}"}}}}], to: quick}}]
"""


@both
@pytest.mark.parametrize("winner", ["one", "two"])
async def test_a_hedge(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    stream: bool,
    winner: str,
) -> None:
    slow, quick = script("One.", wait_s=0.3), script("Two.", wait_s=5.0)
    if winner == "two":
        slow, quick = script("One.", stall_before=True), script("Two.")
    provider.answer(slow, quick)
    async with serving(tmp_path, HEDGED.format(base=provider.base, collector=collector.base)) as house:
        assert (await ask(http, house, stream=stream))[0] == 200
        call = await told(house, collector)
    first, second = collector.attempts(call)
    won, lost = (first, second) if winner == "one" else (second, first)
    assert [each.attributes["headgate.attempt"] for each in (first, second)] == [1, 2]
    assert (second.attributes["headgate.cause"], second.attributes["headgate.upstream"]) == ("hedge", "two")
    assert (lost.attributes["error.type"], lost.failed) == ("cancelled", False)
    assert lost.ended_ns <= call.ended_ns
    assert "error.type" not in won.attributes
    assert won.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert "gen_ai.response.id" not in lost.attributes
    assert (call.attributes["headgate.upstream"], call.failed) == (winner, False)
    assert "headgate.hedge" in call.happened
    sent = {received.headers["traceparent"].split("-")[2] for received in provider.requests}
    assert sent == {first.span_id, second.span_id}


ROTATED = """
server: {{anonymous: allow}}
accounts: {{pool: {{pick: fill_first, members: [{{id: a, key: env:TEST_A}}, {{id: b, key: env:TEST_B}}]}}}}
upstreams: {{one: {{adapter: openai, base_url: "{base}/v1", accounts: pool, chain: [rotate]}}}}
routes: [{{name: all, chain: [{{trace: {{endpoint: "{collector}"}}}}], to: one}}]
"""


@both
async def test_another_account(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    for name in ("A", "B"):
        monkeypatch.setenv(f"TEST_{name}", f"sk-the-key-of-{name}")
        provider.accounts[f"sk-the-key-of-{name}"] = script(status=429) if name == "A" else None
    async with serving(tmp_path, ROTATED.format(base=provider.base, collector=collector.base)) as house:
        assert (await ask(http, house, stream=stream))[0] == 200
        call = await told(house, collector)
    first, second = collector.attempts(call)
    assert [span.attributes["headgate.account.id"] for span in (first, second, call)] == ["a", "b", "b"]
    assert (first.attributes["error.type"], second.attributes["headgate.cause"]) == ("rate_limit", "rotate")
    assert "headgate.rotate" in call.happened
    secrets(collector)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x" * 127,
        "ü" * 200,
        "y" * 70_000,
        0,
        127,
        128,
        1023,
        1024,
        2**40,
        -1,
        True,
        False,
        0.1,
        (),
        ("a", "b" * 300),
    ],
)
def test_every_value_as_the_official_classes_read_it(value: Any) -> None:
    span = Span(
        "n", 3, "a" * 32, "b" * 16, "", False, 1, 2, Fixed([("fixed", value)]), [("own", value)], [], False, 1, ""
    )
    span.events.append(Event("e", 3, [("of.event", value)]))
    (seen,) = read(Envelope({"of.resource": value}, "s", "1").around([span]))
    expected = list(value) if isinstance(value, tuple) else value
    assert seen.attributes == {"fixed": expected, "own": expected}
    assert seen.events == (("e", 3, {"of.event": expected}),)
    assert seen.resource == {"of.resource": expected}
    assert (seen.started_ns, seen.ended_ns, seen.flags, seen.parent_id) == (1, 2, 0x101, "")
