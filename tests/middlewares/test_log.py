"""One line a call, whatever became of it, with the right figures and no secret."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway.call import Attempt, Call
from headgate.gateway.codecs.gemini import CODEC as GEMINI
from headgate.gateway.errors import CallerError, Cancelled, GatewayError, UpstreamError, upstream_error
from headgate.gateway.ir.event import Chunk, PartDelta, Usage, UsageReport
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.secret_shapes import mask_secrets
from headgate.gateway.telemetry.line import Line
from headgate.middlewares import log as module
from headgate.middlewares.log import Log, LogOptions

from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import KEY, FakeProvider
from ..fakes.script import Tokens, script
from ..server.house import CHAT, MESSAGES, body_of, load, serving, until, wire

RULES = """
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY, chain: [{{retry: {{tries: 2, backoff: 1ms}}}}]}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
chains:
  all: [{{auth: {{keys: [{{name: me, key: env:TEST_CALLER_KEY, tenant: acme}}]}}}}, {log}]
routes:
  - {{name: claude, match: {{model: "claude-*"}}, chain: all, to: anthropic}}
  - {{name: renamed, match: {{model: nick}}, chain: all, to: openai/gpt-real}}
  - {{name: rest, chain: all, to: openai}}
"""
HEADERS = {"x-api-key": CALLER_KEY, "Content-Type": "application/json", "x-request-id": "trace-1"}
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[dict[str, Any]]]:
    """The lines that went to the logger; each must be one line of JSON, at level INFO."""
    found: list[dict[str, Any]] = []

    class Catch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.levelno == logging.INFO
            text = record.getMessage()
            assert "\n" not in text
            assert "sk-" not in text
            found.append(json.loads(text))

    catch, logger = Catch(), logging.getLogger("headgate.access")
    caplog.set_level(logging.INFO, "headgate.access")
    logger.addHandler(catch)
    yield found
    logger.removeHandler(catch)


def rules(provider: FakeProvider, log: str = "log") -> str:
    return RULES.format(base=provider.base, log=log)


@both
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_an_answer(
    tmp_path: Path,
    provider: FakeProvider,
    http: aiohttp.ClientSession,
    lines: list[dict[str, Any]],
    path: str,
    stream: bool,
) -> None:
    tokens = Tokens(fresh=10, cached=30, written=0, output=7, reasoning=3)
    for model, route, upstream in (("m", "rest", "openai"), ("claude-fake-4-5", "claude", "anthropic")):
        lines.clear()
        provider.answer(script("Hello", tokens=tokens))
        async with serving(tmp_path, rules(provider)) as house:
            response = await http.post(house.base + path, data=body_of(stream=stream, model=model), headers=HEADERS)
            assert await response.read()
        (line,) = lines
        assert line["time"] > 1.7e9
        assert line["duration_ms"] >= 0
        expected: dict[str, Any] = {
            "request_id": "trace-1",
            "method": "POST",
            "path": path,
            "format": "openai.chat" if path == CHAT else "anthropic.messages",
            "model": model,
            "route": route,
            "upstream": upstream,
            "key": "me",
            "tenant": "acme",
            "stream": stream,
            "status": 200,
            "outcome": "ok",
            "input_tokens": 40,
            "output_tokens": 7,
            "cache_read_input_tokens": 30,
            "remote": "127.0.0.1",
        }
        assert {name: line.get(name) for name in expected} == expected
        assert ("first_token_ms" in line) is stream
        assert "error" not in line
        assert "upstream_model" not in line
        (attempt,) = line["attempts"]
        assert (attempt["status"], attempt["upstream"], attempt.get("error")) == (200, upstream, None)
        assert attempt["request_id"] == provider.last.request_id
        assert json.loads(json.dumps(line)) == line


@pytest.mark.parametrize("key", [CALLER_KEY, "sk-nobody's"], ids=["known", "unknown"])
async def test_in_front_it_tells_of_those_who_are_refused_too(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, lines: list[dict[str, Any]], key: str
) -> None:
    auth = "{auth: {keys: [{name: me, key: env:TEST_CALLER_KEY, tenant: acme, team: red}]}}"
    text = f"""
upstreams: {{openai: {{adapter: openai, base_url: "{provider.base}/v1", key: env:TEST_PROVIDER_KEY}}}}
routes: [{{name: all, chain: [log, {auth}, {{limit: {{requests: 1/h}}}}], to: openai}}]
"""
    async with serving(tmp_path, text) as house:
        for _ in range(2):
            async with http.post(house.base + CHAT, data=body_of(), headers={**HEADERS, "x-api-key": key}) as answer:
                await answer.read()
        await until(lambda: len(lines) == 2)
    told = [(line["status"], line["outcome"], line["key"], line.get("team")) for line in lines]
    if key == CALLER_KEY:
        assert told == [(200, "ok", "me", "red"), (429, "rate_limit", "me", "red")]
    else:
        assert told == [(401, "auth", "anonymous", None)] * 2


async def test_a_renamed_model(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, lines: list[dict[str, Any]]
) -> None:
    async with serving(tmp_path, rules(provider)) as house:
        await http.post(house.base + CHAT, data=body_of(model="nick"), headers=HEADERS)
    assert (lines[0]["model"], lines[0]["upstream_model"], lines[0]["route"]) == ("nick", "gpt-real", "renamed")


@both
async def test_an_error(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, lines: list[dict[str, Any]], stream: bool
) -> None:
    message = f"Your key {KEY} is\nout of quota"
    provider.answer(script(status=503), script(status=429, error_message=message, headers={"retry-after": "99"}))
    async with serving(tmp_path, rules(provider)) as house:
        response = await http.post(house.base + CHAT, data=body_of(stream=stream), headers=HEADERS)
        assert response.status == 429
    (line,) = lines
    assert (line["outcome"], line["status"]) == ("rate_limit", 429)
    assert "Your key *** is" in line["error"]
    assert [(each["status"], each["error"]) for each in line["attempts"]] == [(503, "overloaded"), (429, "rate_limit")]


async def test_an_error_in_a_stream(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, lines: list[dict[str, Any]]
) -> None:
    provider.answer(script("One two three", error_after=3), script("One two three", cut_after=3))
    async with serving(tmp_path, rules(provider)) as house:
        for _ in range(2):
            await (await http.post(house.base + CHAT, data=body_of(stream=True), headers=HEADERS)).read()
    assert [line["outcome"] for line in lines][1] == "cut"
    assert lines[0]["outcome"] not in ("ok", "cut")
    for line in lines:
        assert line["first_token_ms"] <= line["duration_ms"]
        assert line["error"]


@both
@pytest.mark.parametrize("cancels", [True, False])
async def test_a_client_that_leaves(
    tmp_path: Path, provider: FakeProvider, lines: list[dict[str, Any]], stream: bool, cancels: bool
) -> None:
    provider.answer(script("One two three", stall_after=3 if stream else 1))
    body = body_of(stream=stream)
    async with serving(tmp_path, rules(provider), cancels=cancels) as house, wire(house) as client:
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        client.send(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await (await provider.received(1)).answering.wait()
        await asyncio.sleep(0.05)
        client.leave()
        await house.idle()
    (line,) = lines
    assert (line["outcome"], line["status"], line["stream"]) == ("cancelled", 499, stream)
    assert ("first_token_ms" in line) is stream


async def test_what_is_lost_stands_in_the_line(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, lines: list[dict[str, Any]]
) -> None:
    async with serving(tmp_path, rules(provider)) as house:
        body = body_of(model="claude-fake-4-5", logit_bias={"1": 2}, seed=5)
        response = await http.post(house.base + CHAT, data=body, headers=HEADERS)
        assert response.status == 200, await response.text()
    lost = {loss["path"] for loss in lines[0]["loss"]}
    assert {"logit_bias", "seed"} <= lost
    assert set(response.headers["headgate-loss"].split(", ")) <= lost


async def test_a_call_without_a_socket(tmp_path: Path, provider: FakeProvider, lines: list[dict[str, Any]]) -> None:
    async with load(tmp_path, rules(provider)) as gateway:
        await (await gateway.handle("openai.chat", body_of(stream=True), HEADERS)).collect()
        reply = await gateway.handle("openai.chat", body_of(stream=True), HEADERS)
        await reply.aclose()
        with pytest.raises(CallerError):
            await gateway.handle("anthropic.messages", b'{"model": "gpt-5", "messages": 5}', HEADERS)
    assert [(line["outcome"], line["status"]) for line in lines] == [
        ("ok", 200),
        ("cancelled", 499),
        ("invalid_request", 400),
    ]


# --- without a server


async def answering(reply: Callable[[Call], Reply] | BaseException, log: Log, call: Call) -> Reply:
    async def end(call: Call) -> Reply:
        if isinstance(reply, BaseException):
            raise reply
        return reply(call)

    return await log(call, end)


FAULTS: list[tuple[BaseException, str, int]] = [
    (upstream_error("overloaded", "busy", status=529), "overloaded", 529),
    (CallerError("no"), "invalid_request", 400),
    (Cancelled("left"), "cancelled", 499),
    (asyncio.CancelledError(), "cancelled", 499),
    (ZeroDivisionError("division by zero"), "internal", 500),
]


@pytest.mark.parametrize(("fault", "outcome", "status"), FAULTS, ids=[repr(fault) for fault, _, _ in FAULTS])
async def test_whatever_ends_it(
    call_of: Callable[..., Call], lines: list[dict[str, Any]], fault: BaseException, outcome: str, status: int
) -> None:
    log = Log(LogOptions())
    await log.start()
    with pytest.raises(type(fault)):
        await answering(fault, log, call_of())
    assert lines == []
    await log.stop()
    assert [(line["outcome"], line["status"]) for line in lines] == [(outcome, status)]


async def test_cancelled_at_the_deadline(call_of: Callable[..., Call], lines: list[dict[str, Any]]) -> None:
    log, call = Log(LogOptions()), call_of()
    with pytest.raises(asyncio.CancelledError):
        await answering(asyncio.CancelledError(), log, call.replace(deadline=call.began - 1))
    await log.stop()
    assert [(line["outcome"], line["status"]) for line in lines] == [("timeout.total", 504)]


async def test_the_last_usage_counts(call_of: Callable[..., Call], lines: list[dict[str, Any]]) -> None:
    log = Log(LogOptions())
    usages = [Usage(input_tokens=1), Usage(input_tokens=9, output_tokens=5, estimated=True)]
    chunks = [Chunk((PartDelta(0, "x"), UsageReport(usage))) for usage in usages]
    reply = await answering(lambda call: Reply(Listed(chunks), call.scope), log, call_of(stream=True))
    await reply.collect()
    await log.stop()
    (line,) = lines
    assert (line["input_tokens"], line["output_tokens"], line["usage_estimated"]) == (9, 5, True)
    assert "cache_read_input_tokens" not in line


async def test_usage_that_was_told_beside_the_events_of_an_answer_that_broke_off(
    call_of: Callable[..., Call], lines: list[dict[str, Any]]
) -> None:
    log = Log(LogOptions())
    frame = (
        'data: {"candidates":[{"content":{"parts":[{"text":"x"}],"role":"model"},"index":0}],'
        '"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":%d}}\n\n'
    )
    decoder = GEMINI.stream_decoder()
    chunks = [chunk for count in (1, 2, 3) if (chunk := decoder.feed((frame % count).encode())) is not None]
    left = Listed(chunks, Cancelled("left"))
    reply = await answering(lambda call: Reply(left, call.scope), log, call_of(stream=True))
    with pytest.raises(Cancelled):
        await reply.collect()
    await log.stop()
    (line,) = lines
    assert (line["outcome"], line["input_tokens"], line["output_tokens"]) == ("cancelled", 3, 3)


async def test_lines_wait_a_little_and_no_longer(
    call_of: Callable[..., Call], lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.05)
    log = Log(LogOptions())
    for _ in range(3):
        log.note(call_of(), None, None, None, 200)
    assert lines == []
    await until(lambda: len(lines) == 3, 1)
    log.note(call_of(), None, None, None, 200)
    await until(lambda: len(lines) == 4, 1)
    await log.stop()
    assert len(lines) == 4


async def test_few_lines_wait(call_of: Callable[..., Call], lines: list[dict[str, Any]]) -> None:
    log, call = Log(LogOptions()), call_of()
    for _ in range(module.MAX_LINES + 10):
        log.note(call, None, None, None, 200)
    assert len(lines) == module.MAX_LINES
    await log.stop()
    assert len(lines) == module.MAX_LINES + 10


async def test_what_is_no_unicode_spoils_no_line(call_of: Callable[..., Call], lines: list[dict[str, Any]]) -> None:
    log, call = Log(LogOptions()), call_of()
    call.decision.attempts.append(Attempt("openai", "m", 0.0, request_id="id \udcff of a header"))
    log.note(call, None, None, None, 200)
    log.note(call_of(), None, None, None, 200)
    await log.stop()
    assert [len(line.get("attempts", [])) for line in lines] == [1, 0]
    assert lines[0]["attempts"][0]["request_id"] == "id \udcff of a header"


async def test_a_file(tmp_path: Path, call_of: Callable[..., Call], lines: list[dict[str, Any]]) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = Log(LogOptions(to=str(path)))
    await log.start()
    log.note(call_of(), upstream_error("cut", "mit Umlauten: ü \u2028 and\r\nlines"), None, None, 200)
    await log.stop()
    text = path.read_bytes().decode()
    first, line, rest = text.split("\n")
    assert (first, rest) == ("before", "")
    parsed = json.loads(line)
    assert parsed["outcome"] == "cut"
    assert lines == []
    assert set(parsed) <= set(Line.__struct_fields__)


@pytest.mark.parametrize("to", ["stdout", "stderr"])
async def test_standard_streams(call_of: Callable[..., Call], capfd: pytest.CaptureFixture[str], to: str) -> None:
    import sys

    log = Log(LogOptions(to=to))
    await log.start()
    log.note(call_of(), None, None, None, 200)
    await log.stop()
    captured = capfd.readouterr()
    assert json.loads(captured.out if to == "stdout" else captured.err)["outcome"] == "ok"
    assert not getattr(sys, to).closed


async def test_a_full_disk_fails_no_call(call_of: Callable[..., Call], caplog: pytest.LogCaptureFixture) -> None:
    log = Log(LogOptions(to="/dev/full"))
    await log.start()
    call = call_of()
    for _ in range(module.MAX_LINES):
        log.note(call, None, None, None, 200)
    log.note(call, None, None, None, 200)
    await log.stop()
    said = [record.getMessage() for record in caplog.records if record.name == "headgate.log"]
    assert len(said) == 2
    assert f"{module.MAX_LINES} access log lines are lost" in said[0]


async def test_a_file_that_cannot_be(tmp_path: Path) -> None:
    log = Log(LogOptions(to=str(tmp_path / "none" / "access.log")))
    with pytest.raises(OSError, match="No such file"):
        await log.start()
    await log.stop()


def test_what_an_error_says_is_bounded_and_masked() -> None:
    secrets = [
        "sk-abcdefgh12345678",
        "sk-ant-api03-abc_DEF-123456",
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_abcdefghijklmnopqrst12345",
        "AIza" + "x" * 35,
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.sig-nature",
        "gsk-0123456789",
    ]
    for secret in secrets:
        masked = mask_secrets(f"key '{secret}', Bearer {secret}: refused")
        assert secret not in masked
        assert masked == "key '***', Bearer ***" + masked[len("key '***', Bearer ***") :]
    assert mask_secrets("Bearer opaque-token-here x") == "Bearer *** x"
    for harmless in ("a task-oriented risk-averse desk", "sk-", "model gpt-5.4 not found", "key-", "messages[2].role"):
        assert mask_secrets(harmless) == harmless


async def test_long_errors_are_cut(call_of: Callable[..., Call], lines: list[dict[str, Any]]) -> None:
    log = Log(LogOptions())
    error: GatewayError = UpstreamError("x" * 100_000)
    log.note(call_of(), error, None, None, 200)
    await log.stop()
    assert len(lines[0]["error"]) == 500
