"""What ``log`` writes of bodies: as the innermost redact left them, masked, bounded, rotated, and gone after a while."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headgate.gateway import rules
from headgate.gateway.call import Call
from headgate.gateway.chain import compose
from headgate.gateway.errors import GatewayError, upstream_error
from headgate.gateway.ir.event import Chunk, PartDelta, PartStart, ResponseStart, Wire
from headgate.gateway.ir.message import Text
from headgate.gateway.passing.request import Passed
from headgate.gateway.relay.reply import Reply
from headgate.gateway.relay.source import Listed
from headgate.gateway.transcripts import files as module
from headgate.gateway.transcripts.files import Files
from headgate.gateway.units import Duration, FilePath, Size
from headgate.middlewares.log import Log, LogOptions
from headgate.middlewares.redact import Redact, RedactOptions

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from ..server.house import CHAT, MESSAGES, body_of, serving

ANN, KEY = "ann@corp.example", "sk-proj-0123456789abcdefABCDEF"
RULES = """
server: {{anonymous: allow}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
chains:
  all: [log: {{bodies: {bodies}, bodies_in: kept}}{more}]
routes:
  - {{name: claude, match: {{model: "claude-*"}}, chain: all, to: anthropic}}
  - {{name: rest, chain: all, to: openai}}
"""
REDACT = ", redact: {kinds: [email], restore: true}"


def written(directory: Path) -> list[dict[str, Any]]:
    """The lines, in order."""
    paths = sorted(directory.glob("bodies-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def text_of(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)


def options(directory: Path, **more: Any) -> LogOptions:
    return LogOptions(bodies=more.pop("bodies", "redacted"), bodies_in=FilePath(directory), **more)


async def through(
    call: Call, directory: Path, chunks: list[Chunk], *more: Any, error: GatewayError | None = None, **said: Any
) -> dict[str, Any]:
    """Send a call through log and the middlewares that follow; return its line."""
    log = Log(options(directory, **said))
    await log.start()

    async def answer(call: Call) -> Reply:
        return Reply(Listed(chunks, error), call.scope)

    try:
        reply = await compose([log, *more], answer)(call)
        await reply.collect()
    except GatewayError:
        pass
    await log.stop()
    (line,) = written(directory)
    return line


# --- over sockets


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("model", ["gpt-4o", "claude-fake-4-5"])
async def test_as_the_innermost_redact_left_them(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, path: str, model: str, stream: bool
) -> None:
    provider.answer(script("Hello <EMAIL_1>, it is done."))
    async with serving(tmp_path, RULES.format(base=provider.base, bodies="redacted", more=REDACT)) as house:
        asked = body_of(f"I am {ANN}, 4111 1111 1111 1111, {KEY}", model=model, stream=stream)
        response = await http.post(house.base + path, data=asked, headers={"content-type": "application/json"})
        assert ANN in await response.text()
    (line,) = written(tmp_path / "kept")
    assert (line["model"], line["outcome"], line["route"]) == (
        model,
        "ok",
        "claude" if model.startswith("claude") else "rest",
    )
    shown = text_of(line["request"])
    # The card stays, since this redact does not look for it; the secret stands in no log, whoever looks for it.
    assert "I am <EMAIL_1>, 4111 1111 1111 1111, ***" in shown and isinstance(line["request"], dict)
    assert "Hello <EMAIL_1>, it is done." in text_of(line["answer"]) and isinstance(line["answer"], dict)
    assert ANN not in json.dumps(line) and KEY not in json.dumps(line)
    assert line["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_is_masked_for_the_caller_is_masked_in_the_log(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession, stream: bool
) -> None:
    provider.answer(script("Hello <EMAIL_1>, ask zed@other.example."))
    more = REDACT.replace("restore: true", "restore: true, answers: mask")
    async with serving(tmp_path, RULES.format(base=provider.base, bodies="redacted", more=more)) as house:
        response = await http.post(house.base + CHAT, data=body_of(f"I am {ANN}", stream=stream), headers=JSON)
        assert "zed@" not in await response.text()
    (line,) = written(tmp_path / "kept")
    assert "Hello <EMAIL_1>, ask ***." in text_of(line["answer"])
    assert "zed@" not in json.dumps(line)


async def test_without_a_redact_everything_is_masked(
    tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession
) -> None:
    provider.answer(script(f"Mail {ANN}"))
    async with serving(tmp_path, RULES.format(base=provider.base, bodies="redacted", more="")) as house:
        await (await http.post(house.base + CHAT, data=body_of(f"{ANN} {KEY} 192.0.2.7"), headers=JSON)).read()
    (line,) = written(tmp_path / "kept")
    assert line["request"]["messages"][0]["content"] == "*** *** ***"
    assert line["answer"]["choices"][0]["message"]["content"] == "Mail ***"


async def test_full_is_all_but_secrets(tmp_path: Path, provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    provider.answer(script("Hello <EMAIL_1>"))
    async with serving(tmp_path, RULES.format(base=provider.base, bodies="full", more=REDACT)) as house:
        await (await http.post(house.base + CHAT, data=body_of(f"{ANN} {KEY}"), headers=JSON)).read()
    (line,) = written(tmp_path / "kept")
    assert line["request"]["messages"][0]["content"] == f"{ANN} ***"
    assert line["answer"]["choices"][0]["message"]["content"] == f"Hello {ANN}"


JSON = {"content-type": "application/json"}


# --- in process


async def test_none_is_written_unless_asked_for(
    call_of: Callable[..., Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = Log(LogOptions())
    await log.start()
    call = call_of()

    async def answer(call: Call) -> Reply:
        return Reply(Listed([Chunk((PartDelta(0, "x"),))]), call.scope)

    await (await log(call, answer)).collect()
    await log.stop()
    assert not list(tmp_path.iterdir())
    assert call.aside.transcript is None


async def test_the_try_that_succeeded_counts(call_of: Callable[..., Call], tmp_path: Path) -> None:
    class Twice:
        async def __call__(self, call: Call, call_next: Any) -> Reply:
            first = await call_next(call)
            with pytest.raises(GatewayError):
                await first.collect()
            return await call_next(call)  # type: ignore[no-any-return]

    class Failing:
        tries = 0

        async def __call__(self, call: Call, call_next: Any) -> Reply:
            self.tries += 1
            if self.tries == 1:
                return Reply(Listed([Chunk((PartDelta(0, "no"),))], upstream_error("cut", "x")), call.scope)
            return await call_next(call)  # type: ignore[no-any-return]

    call = call_of().replace(body=body_of(ANN))
    chunks = [Chunk((ResponseStart(), PartStart(0, Text("")), PartDelta(0, "yes <EMAIL_1>")))]
    redacts = [Redact(RedactOptions(restore=True)) for _ in range(2)]  # one within the other
    line = await through(call, tmp_path, chunks, Twice(), *redacts, Failing())
    assert "yes <EMAIL_1>" in text_of(line["answer"])
    assert line["request"]["messages"][0]["content"] == "<EMAIL_1>"


@pytest.mark.parametrize("at", range(4))
async def test_cut_anywhere(call_of: Callable[..., Call], tmp_path: Path, at: int) -> None:
    events = [ResponseStart("r"), PartStart(0, Text("")), PartDelta(0, "Half a word")]
    call = call_of(stream=True)
    line = await through(call, tmp_path, [Chunk((each,)) for each in events[:at]], error=upstream_error("cut", "x"))
    assert line["outcome"] == "cut"
    assert line["request"]["messages"][0]["content"] == "Hello"
    assert ("Half a word" in text_of(line.get("answer"))) is (at == 3)


async def test_a_refusal(call_of: Callable[..., Call], tmp_path: Path) -> None:
    call = call_of().replace(body=body_of(f"I am {ANN}"))
    line = await through(call, tmp_path, [], Redact(RedactOptions(mode="refuse")))
    assert (line["outcome"], line["request"]["messages"][0]["content"]) == ("invalid_request", "I am ***")
    assert "answer" not in line


async def test_bodies_are_bounded(call_of: Callable[..., Call], tmp_path: Path) -> None:
    asked = body_of("word " * 5000)
    deltas = [Chunk((PartDelta(0, "say it again "),)) for _ in range(5000)]
    chunks = [Chunk((ResponseStart(), PartStart(0, Text("")))), *deltas]
    line = await through(call_of().replace(body=asked), tmp_path, chunks, max_body=Size(1000))
    assert isinstance(line["request"], str) and len(line["request"]) <= 1000
    assert asked.decode().startswith(line["request"])
    assert line["request_bytes"] == len(asked)
    assert line["answer_cut"] is True and len(text_of(line["answer"])) <= 1000


async def test_a_secret_at_the_cut(call_of: Callable[..., Call], tmp_path: Path) -> None:
    for room in range(100, 140):
        directory = tmp_path / str(room)
        call = call_of().replace(body=body_of("x" * 30 + " " + KEY + " and more " * 100))
        line = await through(call, directory, [], max_body=Size(room))
        assert "0123456789" not in line["request"]


async def test_media_by_their_length(call_of: Callable[..., Call], tmp_path: Path) -> None:
    data = base64.b64encode(bytes(range(256)) * 400).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    asked = {"model": "m", "messages": [{"role": "user", "content": [image]}]}
    whole = Chunk((), json.dumps({"data": [{"b64_json": data}]}).encode(), Wire("openai.chat", "json"))
    line = await through(call_of().replace(body=json.dumps(asked).encode()), tmp_path, [whole], max_body=Size(2000))
    said = f"<{len(data)} characters of base64>"
    assert line["request"]["messages"][0]["content"][0]["image_url"]["url"] == said
    assert line["answer"] == {"data": [{"b64_json": said}]}
    assert "request_bytes" not in line and "answer_bytes" not in line


async def test_what_is_passed_on_has_no_bodies(call_of: Callable[..., Call], tmp_path: Path) -> None:
    log = Log(options(tmp_path))
    await log.start()

    async def answer(call: Call) -> Reply:
        return Reply(Listed([Chunk((), b"secret")]), call.scope)

    await (await log(call_of(passed=Passed("GET", "/v1/files")), answer)).collect()
    await log.stop()
    assert written(tmp_path) == []


# --- files


class Entry:
    size = 100

    def __init__(self, text: str) -> None:
        self.text = text

    def line(self) -> bytes:
        return self.text.encode() + b"\n"


def test_files_are_bounded_together(tmp_path: Path) -> None:
    files = Files(tmp_path / "new", 10_000, 3600)
    files.start()
    for number in range(1000):
        files.put(Entry(f"{number:099}"))
    files.stop()
    paths = sorted((tmp_path / "new").iterdir())
    assert 8 <= len(paths) <= 11
    assert sum(path.stat().st_size for path in paths) <= 10_000
    assert int(paths[-1].read_text().splitlines()[-1]) == 999
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_files_go_after_a_while(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    old = tmp_path / "bodies-20260101T000000-1-000001.jsonl"
    for path, age in ((old, 3700), (tmp_path / "bodies-other.jsonl", 3500), (tmp_path / "mine.txt", 9999)):
        path.write_text("x")
        os.utime(path, (now - age, now - age))
    files = Files(tmp_path, 10_000, 3600, lambda: now)
    files.start()
    files.stop()
    assert not old.exists() and (tmp_path / "bodies-other.jsonl").exists() and (tmp_path / "mine.txt").exists()


def test_a_file_does_not_grow_old(tmp_path: Path) -> None:
    now = [time.time() - 4000]
    files = Files(tmp_path, 10_000, 3600, lambda: now[0])
    files.start()
    for _ in range(3):
        files.put(Entry("x"))
        while files._put != files._done:
            pass
        now[0] += 1801
    files.stop()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_and_what_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Entry):
        def line(self) -> bytes:
            raise OSError(28, "No space left on device") if self.text == "disk" else ValueError(KEY)

    files = Files(tmp_path, 10_000, 3600)
    files.start()
    for entry in (Broken("disk"), Broken("disk"), Broken("value"), Entry("fine")):
        files.put(entry)
    files.stop()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["fine\n"]
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([each for each in said if "No space left" in each]) == 1
    assert any("2 bodies are lost" in each for each in said) and KEY not in caplog.text
    monkeypatch.setattr(module, "MAX_WAITING", -1)
    slow = Files(tmp_path / "slow", 10_000, 3600)
    slow.start()
    slow.put(Entry("never"))
    slow.stop()
    assert [path.read_text() for path in (tmp_path / "slow").iterdir()] == [""]


async def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = Log(options(tmp_path / "file" / "below"))
    with pytest.raises(OSError, match="Not a directory"):
        await log.start()
    await log.stop()


@pytest.mark.parametrize(
    "more", [{"keep": Duration(0)}, {"max_size": Size(0)}, {"max_body": Size(0)}, {"max_size": Size(100_000)}]
)
def test_bad_options(tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"max_size|above zero"):
        options(tmp_path, **more)


@pytest.mark.parametrize("more", ["bodies_in: kept", "keep: 3d", "max_size: 500MB", "max_body: 64KB", "keep: 7d"])
@pytest.mark.parametrize("bodies", ["", "bodies: none, "])
def test_what_is_of_bodies_needs_bodies(tmp_path: Path, bodies: str, more: str) -> None:
    file = tmp_path / "routes.yaml"
    text = "version: 1\nupstreams: {up: {adapter: simulator}}\nroutes:\n  - {name: all, to: up, chain: [log: {%s}]}\n"
    file.write_text(text % (bodies + more))
    (problem,) = rules.check(file)
    assert "routes.yaml:4" in str(problem) and f"{more.partition(':')[0]} is of bodies" in str(problem)
    file.write_text(text % f"bodies: redacted, {more}")
    assert rules.check(file) == []


async def test_a_reload_goes_on_in_another_file(call_of: Callable[..., Call], tmp_path: Path) -> None:
    old, new = Log(options(tmp_path)), Log(options(tmp_path))

    async def answer(call: Call) -> Reply:
        return Reply(Listed([Chunk((PartDelta(0, "x"),))]), call.scope)

    await old.start()
    await new.start()
    for log in (old, new):
        await (await log(call_of(), answer)).collect()
    await asyncio.gather(old.stop(), new.stop())
    assert len(written(tmp_path)) == 2
