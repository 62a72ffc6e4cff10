"""Law 10, no secret leaves: canaries are put wherever a secret may stand, and looked for wherever anything comes out."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final

import pytest
from headgate import Gateway
from headgate.gateway import rules
from headgate.gateway.call import Call
from headgate.gateway.chain import Next
from headgate.gateway.cli.main import main
from headgate.gateway.relay.reply import Reply
from msgspec import Struct

from ..fakes.gateway import Served
from ..fakes.provider import FakeProvider
from ..fakes.script import Script, script
from .common import FORMATS, OPENAI, PAIRS
from .sockets import Answer, Client, ask, call

# None of them looks like a key, so that no pattern can save who writes one down.
CALLER: Final = "canary-of-the-caller"
PROVIDER: Final = "canary-of-the-provider"
HEADER: Final = "canary-in-a-header"
QUERY: Final = "canary-in-the-query"
STRANGER: Final = "canary-of-a-stranger"
PASSED: Final = "canary-passed-through"
CANARIES: Final = (CALLER, PROVIDER, HEADER, QUERY, STRANGER, PASSED)


class Nothing(Struct, frozen=True):
    """No options."""


class Prying:
    """Writes down what it can see of a call, and of what comes back, as a careless middleware would."""

    Options: ClassVar[type[Struct]] = Nothing

    def __init__(self, options: Nothing) -> None:
        pass

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        seen = [call, call.principal, call.decision, call.ledger, call.scope, call.codec, call.peek]
        logging.getLogger("headgate.prying").warning("%r", seen)
        try:
            return await call_next(call)
        except Exception as fault:
            logging.getLogger("headgate.prying").warning("%r %s", fault, "".join(traceback.format_exception(fault)))
            raise


RULES: Final = """
version: 1
server: {{anonymous: allow}}
defaults: {{timeout: {{connect: 2s, first_token: 5s, total: 10s}}}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:CANARY_PROVIDER, headers: {{x-more: env:CANARY_HEADER}}}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: "file:{file}", headers: {{x-more: env:CANARY_HEADER}}}}
  pass-openai: {{adapter: openai, base_url: "{base}/v1", credential: pass-through}}
  pass-anthropic: {{adapter: anthropic, base_url: "{base}", credential: pass-through}}
  gone: {{adapter: openai, base_url: "http://127.0.0.1:9/v1", key: env:CANARY_PROVIDER}}
chains:
  base: [{{log: {{to: "{log}"}}}}, {prying}{{chain: keys}}]
  keys:
    - auth:
        keys:
          - {{name: alice, key: env:CANARY_CALLER, tenant: acme}}
          - {{name: bob, key: env:CANARY_PASSED}}
routes:
  - {{name: gone, match: {{model: gone}}, chain: base, to: gone}}
  - {{name: passing-gpt, match: {{model: "pass-gpt-*"}}, chain: base, to: pass-openai}}
  - {{name: passing-claude, match: {{model: "pass-claude-*"}}, chain: base, to: pass-anthropic}}
  - {{name: gpt, match: {{model: "gpt-*"}}, chain: base, to: openai}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: base, to: anthropic}}
"""


@pytest.fixture(autouse=True)
def canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment."""
    monkeypatch.setenv("CANARY_CALLER", CALLER)
    monkeypatch.setenv("CANARY_PROVIDER", PROVIDER)
    monkeypatch.setenv("CANARY_HEADER", HEADER)
    monkeypatch.setenv("CANARY_PASSED", PASSED)


@pytest.fixture
def rule_file(tmp_path: Path, provider: FakeProvider) -> Path:
    """The rules, before a provider that knows its own key."""
    provider.key = PROVIDER
    secret = tmp_path / "secret"
    secret.write_text(PROVIDER + "\n")
    return _write(tmp_path, provider, f'{{use: "{__name__}:Prying"}}, ')


def _write(directory: Path, provider: FakeProvider, prying: str) -> Path:
    path = directory / "routes.yaml"
    path.write_text(
        RULES.format(base=provider.base, file=directory / "secret", log=directory / "access.jsonl", prying=prying)
    )
    return path


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Served]:
    """Serve a rule file."""
    from aiohttp import web
    from headgate.gateway.server.handlers import make_app

    gateway = Gateway.load(path)
    runner = web.AppRunner(make_app(gateway), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Served("", gateway, "standalone", runner)
    finally:
        await runner.cleanup()


def leaked(*texts: object) -> list[str]:
    """Return the canaries in ``texts``."""
    return [canary for canary in CANARIES if any(canary in str(text) for text in texts)]


def echoing(canary: str) -> list[Script]:
    """Providers that say back what they were shown, in every place where they can."""
    words = f"Incorrect API key provided: {canary}. Bearer {canary}"
    frame = json.dumps({"type": "error", "error": {"type": "authentication_error", "message": words, "code": canary}})
    return [
        script(wire=frame.encode(), content_type="application/json"),
        script(status=401, error_message=words, error_kind="authentication_error"),
        script(status=500, error_message=words, headers={"x-echo": canary, "set-cookie": canary}),
        script(status=400, wire=frame.encode()),
        script(status=502, wire=f"<html>{words}</html>".encode(), content_type="text/html"),
        script(status=302, headers={"location": f"https://elsewhere.example/?key={canary}"}),
        script("Fine.", headers={"x-echo": canary, "set-cookie": canary}),
    ]


def reprs() -> Iterator[str]:
    """Yield how every object of ours that is alive shows itself; what shows itself as aiohttp wants is aiohttp's."""
    for thing in gc.get_objects():
        shows = getattr(type(thing).__repr__, "__module__", "")
        if str(type(thing).__module__).startswith("headgate.") and "aiohttp" not in shows:
            yield repr(thing)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("caller", "to"), PAIRS)
async def test_nothing_that_comes_out_holds_a_secret(
    provider: FakeProvider, rule_file: Path, caplog: pytest.LogCaptureFixture, caller: str, to: str, stream: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("aiohttp").setLevel(logging.DEBUG)
    answers: list[Answer] = []
    body = ask(caller, to, stream=stream)
    async with served(rule_file) as gateway:
        for play in echoing(PROVIDER):
            provider.answer(play)
            answers.append(await call(gateway, caller, body, {"authorization": f"Bearer {CALLER}"}))
        assert len(provider.requests) == len(answers)
        for headers in (
            {"authorization": f"Bearer {STRANGER}"},
            {"authorization": f"Basic {STRANGER}"},
            {"authorization": "", "x-api-key": STRANGER},
            {"authorization": f"Bearer {CALLER}", "x-api-key": STRANGER},
            {"authorization": f"Bearer {CALLER}", "proxy-authorization": f"Basic {STRANGER}", "cookie": STRANGER},
        ):
            answers.append(await call(gateway, caller, body, headers))
        gone = ask(caller, to, stream=stream, model="gone")
        answers.append(await call(gateway, caller, gone, {"x-api-key": CALLER, "authorization": ""}))
        shown = [*reprs(), json.dumps(gateway.gateway.health().upstreams), repr(gateway.gateway.health())]
        await asyncio.sleep(0.25)
    for answer in answers:
        assert leaked(answer.body, answer.headers) == [], answer
    log = (rule_file.parent / "access.jsonl").read_text()
    assert log.count("\n") == len(answers)
    assert leaked(log) == []
    assert [text for text in shown if leaked(text)] == []
    assert leaked(*(record.getMessage() + str(record.args) for record in caplog.records)) == []
    assert leaked(caplog.text) == []


@pytest.mark.parametrize(("caller", "to"), PAIRS)
async def test_the_provider_sees_its_own_key_alone(
    provider: FakeProvider, tmp_path: Path, rule_file: Path, caller: str, to: str
) -> None:
    path = _write(tmp_path, provider, "")
    places: list[dict[str, str]] = [
        {"authorization": f"Bearer {CALLER}"},
        {"authorization": "", "x-api-key": CALLER},
        {"authorization": "", "api-key": CALLER},
        {"authorization": "", "x-goog-api-key": CALLER},
    ]
    more = {"proxy-authorization": STRANGER, "cookie": STRANGER, "x-forwarded-for": "10.0.0.1", "x-secret": STRANGER}
    async with served(path) as gateway:
        for headers, stream in itertools.product(places, [False, True]):
            answer = await call(gateway, caller, ask(caller, to, stream=stream), headers | more)
            assert answer.status == 200
    for received in provider.requests:
        heard = [*received.headers.items(), *received.query.items(), received.raw.decode()]
        assert leaked(*heard) == [PROVIDER, HEADER]


@pytest.mark.parametrize("parameter", ["key", "api_key", "access_token", "token", "api-key"])
@pytest.mark.parametrize("format", FORMATS)
async def test_a_key_in_the_query_goes_nowhere(
    provider: FakeProvider, rule_file: Path, caplog: pytest.LogCaptureFixture, format: str, parameter: str
) -> None:
    caplog.set_level(logging.DEBUG, "headgate")
    async with served(rule_file) as gateway:
        client = await Client.connect(gateway)
        body = ask(format, format, stream=False)
        path = "/v1/chat/completions" if format == OPENAI else "/v1/messages"
        head = f"POST {path}?{parameter}={QUERY}&beta=true HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CALLER}\r\n"
        client.writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        answer = await client.answer()
        client.leave()
    assert answer.status == 200
    assert provider.last.query == {"beta": "true"}
    assert leaked(answer.body, answer.headers, (rule_file.parent / "access.jsonl").read_text()) == []
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("headgate")]
    assert leaked(*ours) == []


@pytest.mark.parametrize(("caller", "to"), PAIRS)
async def test_pass_through_shows_the_callers_key_where_the_rules_say_so(
    provider: FakeProvider, rule_file: Path, caplog: pytest.LogCaptureFixture, caller: str, to: str
) -> None:
    caplog.set_level(logging.DEBUG, "headgate")
    provider.key = PASSED
    provider.answer(script("Fine."), *echoing(PASSED))
    async with served(rule_file) as gateway:
        body = ask(caller, to, stream=False, prefix="pass-")
        headers = {"authorization": "", "x-api-key": PASSED}
        answers = [await call(gateway, caller, body, headers) for _ in range(8)]
    assert answers[0].status == 200
    for received in provider.requests:
        assert leaked(*received.headers.items()) == [PASSED]
    for answer in answers:
        assert leaked(answer.body, answer.headers) == []
    assert leaked(caplog.text, (rule_file.parent / "access.jsonl").read_text()) == []


def test_commands_show_no_secret(rule_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["check"], ["routes"], ["check", "--json"], ["routes", "--json"]):
        main([*command, str(rule_file)])
    shown = capsys.readouterr()
    assert "passing-gpt" in shown.out
    assert leaked(shown.out, shown.err) == []


MISTAKES: Final[list[Callable[[str], str]]] = [
    lambda text: text.replace("key: env:CANARY_PROVIDER", f"key: {PROVIDER}"),
    lambda text: text.replace("key: env:CANARY_CALLER", f"key: {CALLER}"),
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_key_that_stands_in_the_file_is_not_repeated(
    rule_file: Path, capsys: pytest.CaptureFixture[str], mistake: Callable[[str], str]
) -> None:
    rule_file.write_text(mistake(rule_file.read_text()))
    problems = rules.check(rule_file)
    assert any(problem.severity == "error" for problem in problems)
    assert leaked(*problems) == []
    assert main(["check", str(rule_file)]) == 1
    assert leaked(capsys.readouterr().out) == []
